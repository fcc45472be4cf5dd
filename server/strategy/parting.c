#include "server/strategy/parting.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "server/strategy/bubbles.h"
#include "server/strategy/clusters.h"
#include "server/strategy/robust.h"

#include <math.h>
#include <string.h>

enum {
    KNOWN_MAX = 1 << 16,             /* sites whose bubble is remembered */
    SINCE = 8 * FL_PLAN_BUBBLES_MAX, /* bytes behind the clusters' state: rounds of each bubble's
                                        beginning */
};

struct shared {
    struct fl_clusters clusters; /* first */
    uint64_t since[FL_PLAN_BUBBLES_MAX];
};

/* The next round's bubbles, in the making. */
struct parting {
    struct fl_clusters_after after;
    struct fl_who *members; /* of this round, ascending, with their bubble now and then */
    uint32_t count;
    double *product; /* count x count */
    uint64_t since[FL_PLAN_BUBBLES_MAX];
};

/* ---- in two ---- */

/* Prim's algorithm: the tree of greatest similarities. Its weakest link is what two parts that are
 * as unlike as can be still have in common. `link` and `best`: n places each, for scratch. */
double fl_part_in_two(const double *similarity, uint32_t n, uint8_t *part, uint32_t *link,
                      double *best)
{
    uint32_t weakest = 0;
    double least = (double)INFINITY;

    for (int pass = 0; pass < 2; pass++) { /* to find the weakest, then to part there */
        memset(part, 0xff, n);             /* 0xff: not in the tree yet */
        part[0] = 0;
        for (uint32_t i = 1; i < n; i++) {
            link[i] = 0;
            best[i] = similarity[i];
        }
        for (uint32_t added = 1; added < n; added++) {
            uint32_t next = 0;
            for (uint32_t i = 1; i < n; i++) {
                next = part[i] == 0xff && (next == 0 || best[i] > best[next]) ? i : next;
            }
            part[next] = pass && next == weakest ? 1 : part[link[next]];
            if (!pass && best[next] < least) {
                least = best[next];
                weakest = next;
            }
            for (uint32_t i = 1; i < n; i++) {
                double s = similarity[(size_t)next * n + i];
                if (part[i] == 0xff && s > best[i]) {
                    best[i] = s;
                    link[i] = next;
                }
            }
        }
    }
    return least;
}

static double cosine(const struct parting *p, uint32_t i, uint32_t k)
{
    size_t n = p->count;
    double norms = sqrt(p->product[i * n + i] * p->product[k * n + k]);

    return norms > 0 ? p->product[i * n + k] / norms : 0;
}

/* ---- cfl ---- */

/* The mean of these updates is small against the largest of them. */
static bool stands_still(const struct parting *p, const uint32_t *who, uint32_t n, double still)
{
    double mean = 0, most = 0;

    for (uint32_t a = 0; a < n; a++) {
        most = fmax(most, p->product[(size_t)who[a] * p->count + who[a]]);
        for (uint32_t b = 0; b < n; b++) {
            mean += p->product[(size_t)who[a] * p->count + who[b]];
        }
    }
    return most > 0 && sqrt(fmax(mean, 0)) / n < still * sqrt(most);
}

struct room {
    uint32_t *who, *link;
    double *similarity, *best;
    uint8_t *part;
};

static void room_fini(struct room *r)
{
    fl_free(r->who);
    fl_free(r->link);
    fl_free(r->similarity);
    fl_free(r->best);
    fl_free(r->part);
}

static int room_init(struct room *r, size_t n, struct fl_err *e)
{
    n = n ? n : 1;
    *r = (struct room){fl_try(n, sizeof *r->who), fl_try(n, sizeof *r->link),
                       fl_try(n * n, sizeof *r->similarity), fl_try(n, sizeof *r->best),
                       fl_try(n, 1)};
    if (r->who && r->link && r->similarity && r->best && r->part) {
        return 0;
    }
    room_fini(r);
    return fl_fail(e, FL_R_NOMEM, "products of %zu updates", n);
}

/* Bubble b parts, or does not. */
static void part_bubble(const struct fl_clusters *c, struct parting *p, uint32_t b, struct room *r)
{
    const struct fl_bubble_conf *conf = &c->plan->setting.bubble;
    uint32_t n = 0, second = 0;

    for (uint32_t i = 0; i < p->count; i++) {
        if (p->members[i].bubble == b) {
            r->who[n++] = i;
        }
    }
    if (n < 2 || n < 2 * conf->minimum || p->after.bubbles == conf->most ||
        c->round < p->since[b] + conf->after || !stands_still(p, r->who, n, conf->still)) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < n; k++) {
            r->similarity[(size_t)i * n + k] = cosine(p, r->who[i], r->who[k]);
        }
    }
    if (fl_part_in_two(r->similarity, n, r->part, r->link, r->best) >= 0) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        second += r->part[i];
    }
    if (second < conf->minimum || n - second < conf->minimum) {
        return;
    }
    uint32_t fresh = p->after.bubbles++;
    p->after.origin[fresh] = b;
    p->since[b] = p->since[fresh] = c->round;
    for (uint32_t i = 0; i < n; i++) {
        p->members[r->who[i]].bubble = r->part[i] ? fresh : b;
    }
}

static int part_all(const struct fl_clusters *c, struct parting *p, struct fl_err *e)
{
    struct room r;
    int status = room_init(&r, p->count, e);

    for (uint32_t b = 0; status == 0 && b < c->count; b++) {
        part_bubble(c, p, b, &r);
    }
    if (status == 0) {
        room_fini(&r);
    }
    return status;
}

/* ---- flhc ---- */

static int cluster_once(const struct fl_clusters *c, struct parting *p, struct fl_err *e)
{
    const struct fl_bubble_conf *b = &c->plan->setting.bubble;
    const struct fl_bubbles_conf conf = {
        .most = b->most, .min_size = b->minimum, .silhouette = b->silhouette};
    struct fl_bubbles found = {.of = NULL};
    size_t n = p->count;
    float *squared = fl_try(n * n / 2 + 1, sizeof *squared);
    int r = squared ? 0 : fl_fail(e, FL_R_NOMEM, "distances of %zu updates", n);

    for (uint32_t k = 1; r == 0 && k < n; k++) {
        for (uint32_t i = 0; i < k; i++) {
            squared[(size_t)k * (k - 1) / 2 + i] = (float)fmax(0, 2 - 2 * cosine(p, i, k));
        }
    }
    r = r ? r : fl_bubbles_of_distances(&conf, squared, p->count, &found, e);
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        p->members[i].bubble = found.of[i];
    }
    if (r == 0) {
        p->after.bubbles = found.count;
        memset(p->after.origin, 0, sizeof p->after.origin); /* all from the one there was */
    }
    fl_bubbles_fini(&found);
    fl_free(squared);
    return r;
}

static bool is_due(const struct fl_clusters *c)
{
    const struct fl_bubble_conf *b = &c->plan->setting.bubble;

    return b->by == FL_BUBBLE_SPLIT ? c->round >= b->after : c->round == b->after;
}

/* ---- finish ---- */

static void parting_fini(struct parting *p)
{
    fl_free(p->members);
    fl_free(p->product);
    fl_free((void *)(uintptr_t)p->after.who);
}

/* Who is where as it stands, and what comes after if nothing parts. */
static int parting_init(struct parting *p, const struct shared *s, const struct fl_updates *updates,
                        struct fl_err *e)
{
    const struct fl_clusters *c = &s->clusters;
    size_t n = updates->count ? updates->count : 1;

    *p = (struct parting){.after = {.bubbles = c->count},
                          .members = fl_try(n, sizeof *p->members),
                          .product = fl_try(n * n, sizeof *p->product),
                          .count = updates->count};
    memcpy(p->since, s->since, sizeof p->since);
    if (!p->members || !p->product) {
        return fl_fail(e, FL_R_NOMEM, "products of %zu updates", n);
    }
    for (uint32_t b = 0; b < c->count; b++) {
        p->after.origin[b] = b;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        uint64_t agent = updates->at[i].agent;
        p->members[i] = (struct fl_who){agent, fl_clusters_of(c, agent, NULL)};
    }
    return 0;
}

static int decide(struct parting *p, const struct shared *s, const struct fl_updates *updates,
                  struct fl_err *e)
{
    const struct fl_clusters *c = &s->clusters;
    const struct fl_robust_terms terms = fl_robust_terms_of(c->plan);
    struct fl_who *all = NULL;
    uint32_t count = 0;
    int r = parting_init(p, s, updates, e);

    if (r == 0 && p->count > 0 && is_due(c)) {
        r = fl_robust_products(&terms, updates, p->product, e);
        r = r                                               ? r
            : c->plan->setting.bubble.by == FL_BUBBLE_SPLIT ? part_all(c, p, e)
                                                            : cluster_once(c, p, e);
    }
    r = r ? r : fl_clusters_merge(p->members, p->count, c->who, c->who_count, &all, &count, e);
    if (r == 0) {
        p->after.who = all;
        p->after.who_count = count < KNOWN_MAX ? count : KNOWN_MAX;
    }
    return r;
}

static uint32_t room_of(const struct fl_clusters *c)
{
    uint64_t most = (uint64_t)c->who_count + c->plan->round.members + c->plan->round.over_select;

    return most < KNOWN_MAX ? (uint32_t)most : KNOWN_MAX;
}

static int parting_finish(const void *shared, void *const *slots, uint32_t exchange,
                          struct fl_next *next, struct fl_err *e)
{
    const struct shared *s = shared;
    uint8_t since[SINCE];
    struct parting p = {.members = NULL};
    int r = decide(&p, s, &next->updates, e);

    (void)slots;
    for (uint32_t b = 0; b < FL_PLAN_BUBBLES_MAX; b++) {
        fl_put_u64(since + 8 * (size_t)b, p.since[b]);
    }
    if (r == 0) {
        const struct fl_clusters_more more = {
            .room = room_of(&s->clusters), .bytes = since, .size = SINCE, .after = &p.after};
        r = fl_clusters_finish(&s->clusters, exchange, &more, next, e);
    }
    parting_fini(&p);
    return r;
}

/* ---- the table's ---- */

static int parting_init_shared(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    return fl_clusters_init(&((struct shared *)shared)->clusters, plan, 1, e);
}

static void parting_fini_shared(void *shared)
{
    fl_clusters_fini(&((struct shared *)shared)->clusters);
}

static size_t parting_state_size(const void *shared)
{
    const struct shared *s = shared;

    return fl_clusters_size(&s->clusters, room_of(&s->clusters), SINCE);
}

static void parting_save(const void *shared, uint8_t *to)
{
    const struct shared *s = shared;
    uint8_t since[SINCE] = {0};
    const struct fl_clusters_more more = {
        .room = room_of(&s->clusters), .bytes = since, .size = SINCE};

    fl_clusters_save(&s->clusters, &more, to);
}

static int parting_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct shared *s = shared;
    const uint8_t *more;
    size_t length;
    int r = fl_clusters_load(&s->clusters, from, size, &more, &length, e);

    memset(s->since, 0, sizeof s->since);
    if (r == 0 && size > 0 && length != SINCE) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "strategy state of %zu bytes", size);
    }
    for (uint32_t b = 0; r == 0 && size > 0 && b < FL_PLAN_BUBBLES_MAX; b++) {
        s->since[b] = fl_get_u64(more + 8 * (size_t)b);
    }
    return r;
}

static int parting_explain(const void *shared,
                           void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                           void *arg, struct fl_err *e)
{
    const struct shared *s = shared;
    const struct fl_clusters *c = &s->clusters;
    bool parted = c->count > 1;

    (void)e;
    fl_clusters_explain(
        c, parted ? "by the direction of its update when bubbles parted" : "nothing has parted yet",
        each, arg);
    return 0;
}

#define PARTING_STRATEGY(word)                                                                     \
    const struct fl_strategy fl_strategy_##word = {                                                \
        .name = #word,                                                                             \
        .shared_size = sizeof(struct shared),                                                      \
        .init = parting_init_shared,                                                               \
        .fini = parting_fini_shared,                                                               \
        .slots = fl_clusters_slots,                                                                \
        .next_slots = fl_clusters_next_slots,                                                      \
        .slot_new = fl_clusters_slot_new,                                                          \
        .slot_reset = fl_clusters_slot_reset,                                                      \
        .slot_free = fl_clusters_slot_free,                                                        \
        .place = fl_clusters_place,                                                                \
        .fold = fl_clusters_fold,                                                                  \
        .finish = parting_finish,                                                                  \
        .explain = parting_explain,                                                                \
        .state_size = parting_state_size,                                                          \
        .save = parting_save,                                                                      \
        .load = parting_load,                                                                      \
    }

PARTING_STRATEGY(cfl);
PARTING_STRATEGY(flhc);
