#include "server/strategy/pacfl.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/plan/descriptor.h"
#include "server/strategy/bubbles.h"
#include "server/strategy/clusters.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    HEAD = 8,   /* of the bytes behind the clusters' state: descriptors, numbers in each */
    ENTRY = 24, /* agent, round, sigma; then the numbers */
    VALUES_MAX = 1 << 24, /* of all descriptors: older sites' stay, newer ones have no place */
    DRAWS = 20,
};

/* Ascending by agent. */
struct table {
    uint32_t count;
    uint64_t *agent, *round;
    double *sigma;
    float *x; /* count x length */
};

struct shared {
    struct fl_clusters clusters; /* first */
    uint32_t length;
    struct table was, now; /* as the round began; with what it collected */
    double *distance;      /* between the bubbles' mean descriptors, squared */
    bool published;
};

/* ---- descriptors ---- */

static void table_fini(struct table *t)
{
    fl_free(t->agent);
    fl_free(t->round);
    fl_free(t->sigma);
    fl_free(t->x);
    memset(t, 0, sizeof *t);
}

static int table_init(struct table *t, uint32_t room, uint32_t length, struct fl_err *e)
{
    size_t n = room ? room : 1;

    *t = (struct table){.agent = fl_try(n, sizeof *t->agent),
                        .round = fl_try(n, sizeof *t->round),
                        .sigma = fl_try(n, sizeof *t->sigma),
                        .x = fl_try(n * length, sizeof *t->x)};
    if (!t->agent || !t->round || !t->sigma || !t->x) {
        table_fini(t);
        return fl_fail(e, FL_R_NOMEM, "%u descriptors of %u numbers", room, length);
    }
    return 0;
}

static void table_add(struct table *t, uint32_t length, uint64_t agent, uint64_t round,
                      double sigma, const float *x)
{
    t->agent[t->count] = agent;
    t->round[t->count] = round;
    t->sigma[t->count] = sigma;
    memcpy(t->x + (size_t)t->count * length, x, length * sizeof *x);
    t->count++;
}

static uint32_t places(uint32_t length)
{
    return VALUES_MAX / length < FL_BUBBLES_SITES_MAX ? VALUES_MAX / length : FL_BUBBLES_SITES_MAX;
}

struct reading {
    uint8_t *bytes;
    int64_t *q;
    float *x;
};

static void reading_fini(struct reading *r)
{
    fl_free(r->bytes);
    fl_free(r->q);
    fl_free(r->x);
}

/* One that was received, into r->x. 1, or 0 when nothing can be read from it. */
static int read_one(const struct shared *s, const struct fl_update *u, struct reading *r,
                    double *ret_sigma, struct fl_err *e)
{
    const struct fl_plan *plan = s->clusters.plan;
    const struct fl_grid g = fl_descriptor_grid(plan);
    size_t size = 0;

    (void)fl_grid_bytes(&g, fl_descriptor_elements(plan), &size);
    if (u->size != size) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "a descriptor of %llu bytes; %zu are expected",
                       (unsigned long long)u->size, size);
    }
    int status = u->read(u->arg, 0, r->bytes, size, e);
    status = status ? status
                    : fl_grid_unpack(&g, r->bytes, size, 0, fl_descriptor_elements(plan), r->q, e);
    return status ? fl_wrap(e, status, "descriptor of agent %llu", (unsigned long long)u->agent)
                  : fl_descriptor_read(plan, r->q, r->x, ret_sigma);
}

/* s->now: what was, with those of the round in the place of older ones. */
static int merge(struct shared *s, const struct fl_updates *updates, struct fl_err *e)
{
    const struct table *was = &s->was;
    struct table *now = &s->now;
    size_t size = 0;
    const struct fl_grid g = fl_descriptor_grid(s->clusters.plan);
    uint32_t k = 0, room = places(s->length), fresh = 0, all = was->count + updates->count;

    size_t elements = fl_descriptor_elements(s->clusters.plan);
    (void)fl_grid_bytes(&g, elements, &size);
    struct reading r = {fl_try(size, 1), fl_try(elements, sizeof *r.q),
                        fl_try(s->length, sizeof *r.x)};
    table_fini(now);
    int status = r.bytes && r.q && r.x ? table_init(now, all < room ? all : room, s->length, e)
                                       : fl_fail(e, FL_R_NOMEM, "a descriptor");
    for (uint32_t i = 0; status == 0 && i <= updates->count; i++) {
        uint64_t agent = i < updates->count ? updates->at[i].agent : UINT64_MAX;
        double sigma = 0;
        for (; k < was->count && was->agent[k] < agent; k++) {
            table_add(now, s->length, was->agent[k], was->round[k], was->sigma[k],
                      was->x + (size_t)k * s->length);
        }
        if (i == updates->count) {
            break;
        }
        bool known = k < was->count && was->agent[k] == agent;
        int readable = read_one(s, &updates->at[i], &r, &sigma, e);
        if (readable < 0) {
            status = readable;
        } else if (readable && (known || was->count + fresh < room)) {
            table_add(now, s->length, agent, s->clusters.round, sigma, r.x);
            fresh += !known;
            k += known;
        }
    }
    reading_fini(&r);
    return status;
}

/* ---- bubbles ---- */

static struct fl_bubbles_conf conf_of(const struct shared *s)
{
    const struct fl_bubble_conf *c = &s->clusters.plan->setting.bubble;
    double n = s->now.count, cost = n * n * s->length / 2;
    bool noised = s->clusters.plan->privacy.unit != FL_UNIT_NONE;
    double draws = cost > 0 ? 4e9 / cost : DRAWS;

    return (struct fl_bubbles_conf){
        .most = c->most,
        .min_size = c->minimum,
        .draws = !noised          ? 0
                 : draws >= DRAWS ? DRAWS
                 : draws < 3      ? 3
                                  : (uint32_t)draws,
        .stability = c->stability,
        .silhouette = c->silhouette,
        .hysteresis = c->hysteresis,
    };
}

/* Sums of descriptors, a row of the zeroed `mean` for each bubble, and of how many. */
static void sum_bubbles(const struct shared *s, double *mean, uint32_t *members)
{
    memset(members, 0, FL_PLAN_BUBBLES_MAX * sizeof *members);
    for (uint32_t i = 0; i < s->now.count; i++) {
        uint32_t b = fl_clusters_of(&s->clusters, s->now.agent[i], NULL);
        members[b]++;
        for (uint32_t k = 0; k < s->length; k++) {
            mean[(size_t)b * s->length + k] += (double)s->now.x[(size_t)i * s->length + k];
        }
    }
}

/* Squared distances between the mean descriptors of bubbles. */
static int measure(struct shared *s, struct fl_err *e)
{
    const struct fl_clusters *c = &s->clusters;
    uint32_t n = c->count;
    double *mean = fl_try((size_t)n * s->length, sizeof *mean);
    uint32_t members[FL_PLAN_BUBBLES_MAX];

    fl_free(s->distance);
    s->distance = fl_try((size_t)n * n, sizeof *s->distance);
    if (!mean || !s->distance) {
        fl_free(mean);
        return fl_fail(e, FL_R_NOMEM, "distances between %u bubbles", n);
    }
    sum_bubbles(s, mean, members);
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t b = 0; b < a; b++) {
            double sum = 0;
            for (uint32_t k = 0; k < s->length && members[a] && members[b]; k++) {
                double d = mean[(size_t)a * s->length + k] / members[a] -
                           mean[(size_t)b * s->length + k] / members[b];
                sum += d * d;
            }
            s->distance[(size_t)a * n + b] = s->distance[(size_t)b * n + a] = sum;
        }
    }
    fl_free(mean);
    return 0;
}

static int regroup(struct shared *s, struct fl_err *e)
{
    struct fl_clusters *c = &s->clusters;
    const struct fl_bubbles_conf conf = conf_of(s);
    const struct table *t = &s->now;
    struct fl_bubbles found = {.of = NULL};
    struct fl_seed job, seed;
    uint32_t n = t->count;
    double *x = fl_try((size_t)n * s->length, sizeof *x);
    uint32_t *before = fl_try(n, sizeof *before);
    struct fl_who *who = fl_try(n, sizeof *who);
    int r = x && before && who ? 0 : fl_fail(e, FL_R_NOMEM, "bubbles of %u sites", n);

    for (size_t i = 0; r == 0 && i < (size_t)n * s->length; i++) {
        x[i] = (double)t->x[i];
    }
    for (uint32_t i = 0, k = 0; r == 0 && i < n; i++) {
        while (k < c->began_count && c->began[k].agent < t->agent[i]) {
            k++;
        }
        bool known = k < c->began_count && c->began[k].agent == t->agent[i];
        before[i] = known ? c->began[k].bubble : FL_BUBBLES_NEW;
    }
    fl_seed_from_u64(c->plan->seed, &job);
    fl_seed_derive(&job, "bubbles of round", c->round, &seed);
    if (r == 0 && s->published) {
        r = fl_bubbles_published(x, n, s->length, &found, e);
    } else if (r == 0) {
        r = fl_bubbles_find(&conf, x, t->sigma, n, s->length, c->began_count ? before : NULL, &seed,
                            &found, e);
    }
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        who[i] = (struct fl_who){t->agent[i], found.of[i]};
    }
    if (r == 0) {
        fl_clusters_regroup(c, who, n, found.count);
        who = NULL;
    }
    fl_bubbles_fini(&found);
    fl_free(x);
    fl_free(before);
    fl_free(who);
    return r;
}

/* As published: whoever is alone in a bubble is taken for an attacker, and none of its updates
 * count. */
static uint64_t loners(const struct shared *s)
{
    uint32_t members[FL_PLAN_BUBBLES_MAX] = {0};
    uint64_t set = 0;

    for (uint32_t i = 0; s->published && i < s->clusters.who_count; i++) {
        members[s->clusters.who[i].bubble]++;
    }
    for (uint32_t b = 0; b < FL_PLAN_BUBBLES_MAX; b++) {
        set |= members[b] == 1 ? (uint64_t)1 << b : 0;
    }
    /* With one bubble of one site there is nobody to tell it from. */
    return s->clusters.count > 1 ? set : 0;
}

/* ---- the table's ---- */

static void drop(struct shared *s)
{
    table_fini(&s->was);
    table_fini(&s->now);
    fl_free(s->distance);
    s->distance = NULL;
}

static int pacfl_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    struct shared *s = shared;

    s->published = plan->setting.bubble.variant == FL_BUBBLE_PUBLISHED;
    s->length = (uint32_t)fl_descriptor_length(plan);
    return fl_clusters_init(&s->clusters, plan, 1, e);
}

static void pacfl_fini(void *shared)
{
    struct shared *s = shared;

    drop(s);
    fl_clusters_fini(&s->clusters);
}

static int pacfl_between(void *shared, void *const *slots, uint32_t exchange,
                         const struct fl_updates *updates, struct fl_err *e)
{
    struct shared *s = shared;

    (void)slots;
    (void)exchange;
    int r = merge(s, updates, e);
    if (r == 0 && s->now.count > 0) {
        r = regroup(s, e);
    }
    return r ? r : measure(s, e);
}

/* Bytes behind the clusters' state: the descriptors. */
static uint32_t more_size(const struct shared *s)
{
    return HEAD + s->now.count * (ENTRY + 4 * s->length);
}

static uint8_t *more_bytes(const struct shared *s, struct fl_err *e)
{
    uint8_t *to = fl_try(more_size(s), 1), *at = to + HEAD;

    if (!to) {
        (void)fl_fail(e, FL_R_NOMEM, "%u descriptors", s->now.count);
        return NULL;
    }
    fl_put_u32(to, s->now.count);
    fl_put_u32(to + 4, s->length);
    for (uint32_t i = 0; i < s->now.count; i++) {
        fl_put_u64(at, s->now.agent[i]);
        fl_put_u64(at + 8, s->now.round[i]);
        fl_put_double(at + 16, s->now.sigma[i]);
        for (uint32_t k = 0; k < s->length; k++) {
            fl_put_float(at + ENTRY + 4 * (size_t)k, s->now.x[(size_t)i * s->length + k]);
        }
        at += ENTRY + 4 * (size_t)s->length;
    }
    return to;
}

static struct fl_clusters_more more_of(const struct shared *s, const uint8_t *bytes)
{
    return (struct fl_clusters_more){.room = s->clusters.who_count,
                                     .bytes = bytes,
                                     .size = more_size(s),
                                     .idle = loners(s),
                                     .distance = s->distance};
}

static int pacfl_finish(const void *shared, void *const *slots, uint32_t exchange,
                        struct fl_next *next, struct fl_err *e)
{
    const struct shared *s = shared;
    uint8_t *bytes = more_bytes(s, e);

    (void)slots;
    if (!bytes) {
        return -FL_R_NOMEM;
    }
    const struct fl_clusters_more more = more_of(s, bytes);
    int r = fl_clusters_finish(&s->clusters, exchange, &more, next, e);
    fl_free(bytes);
    return r;
}

static int pacfl_groups(const void *shared, const struct fl_groups_terms *terms,
                        const uint64_t *agents, uint32_t count, uint32_t *ret_group,
                        struct fl_err *e)
{
    const struct shared *s = shared;

    return fl_clusters_groups(&s->clusters, s->distance, terms, agents, count, ret_group, e);
}

static size_t pacfl_state_size(const void *shared)
{
    const struct shared *s = shared;

    return fl_clusters_size(&s->clusters, s->clusters.who_count, more_size(s));
}

/* Of a job that begins: nobody is described yet. */
static void pacfl_save(const void *shared, uint8_t *to)
{
    const struct shared *s = shared;
    uint8_t none[HEAD] = {0};

    fl_put_u32(none + 4, s->length);
    const struct fl_clusters_more more = more_of(s, none);
    fl_clusters_save(&s->clusters, &more, to);
}

static int load_table(struct shared *s, struct table *t, const uint8_t *from, size_t size,
                      struct fl_err *e)
{
    size_t entry = ENTRY + 4 * (size_t)s->length;
    uint32_t count = size >= HEAD ? fl_get_u32(from) : 0;

    if (size < HEAD || fl_get_u32(from + 4) != s->length || count > FL_BUBBLES_SITES_MAX ||
        size - HEAD != count * entry) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "descriptors of %zu bytes", size);
    }
    int r = table_init(t, count, s->length, e);
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        const uint8_t *at = from + HEAD + i * entry;
        t->agent[i] = fl_get_u64(at);
        t->round[i] = fl_get_u64(at + 8);
        t->sigma[i] = fl_get_double(at + 16);
        bool good = isfinite(t->sigma[i]) && (i == 0 || t->agent[i] > t->agent[i - 1]);
        for (uint32_t k = 0; k < s->length; k++) {
            t->x[(size_t)i * s->length + k] = fl_get_float(at + ENTRY + 4 * (size_t)k);
            good = good && isfinite(t->x[(size_t)i * s->length + k]);
        }
        if (!good) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "descriptor %u of the strategy state", i);
        }
        t->count++;
    }
    return r;
}

static int pacfl_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct shared *s = shared;
    const uint8_t *more;
    size_t length;
    int r = fl_clusters_load(&s->clusters, from, size, &more, &length, e);

    drop(s);
    if (r == 0 && size > 0) {
        r = load_table(s, &s->was, more, length, e);
        r = r ? r : load_table(s, &s->now, more, length, e);
        r = r ? r : measure(s, e);
    }
    return r;
}

/* ---- for people ---- */

/* Distance of descriptor i to the mean of each bubble: its own, and the nearest other. */
static void distances(const struct shared *s, const double *mean, const uint32_t *members,
                      uint32_t i, double *ret_own, double *ret_other)
{
    uint32_t own = fl_clusters_of(&s->clusters, s->now.agent[i], NULL);

    *ret_other = (double)INFINITY;
    for (uint32_t b = 0; b < s->clusters.count; b++) {
        double sum = 0;
        for (uint32_t k = 0; k < s->length; k++) {
            double d = (double)s->now.x[(size_t)i * s->length + k] -
                       mean[(size_t)b * s->length + k] / members[b];
            sum += d * d;
        }
        if (b == own) {
            *ret_own = sqrt(sum);
        } else if (members[b] > 0 && sqrt(sum) < *ret_other) {
            *ret_other = sqrt(sum);
        }
    }
}

static int pacfl_explain(const void *shared,
                         void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                         void *arg, struct fl_err *e)
{
    const struct shared *s = shared;
    uint32_t members[FL_PLAN_BUBBLES_MAX];
    double *mean = fl_try((size_t)s->clusters.count * s->length, sizeof *mean);
    char why[256];

    if (!mean) {
        return fl_fail(e, FL_R_NOMEM, "means of %u bubbles", s->clusters.count);
    }
    sum_bubbles(s, mean, members);
    for (uint32_t i = 0; i < s->now.count; i++) {
        double own = 0, other;
        int n = snprintf(why, sizeof why, "described in round %llu",
                         (unsigned long long)s->now.round[i]);
        distances(s, mean, members, i, &own, &other);
        if (isfinite(other)) {
            n += snprintf(why + n, sizeof why - (size_t)n,
                          ": %.3g from the middle of its bubble, %.3g from the next", own, other);
        } else {
            n += snprintf(why + n, sizeof why - (size_t)n, ": all are one bubble");
        }
        if (loners(s) >> fl_clusters_of(&s->clusters, s->now.agent[i], NULL) & 1) {
            snprintf(why + n, sizeof why - (size_t)n,
                     "; alone there, so its updates do not count, as published");
        }
        if (s->now.sigma[i] > 0) {
            snprintf(why + n, sizeof why - (size_t)n, ", of which %.3g is noise on average",
                     s->now.sigma[i] * sqrt((double)s->length));
        }
        each(arg, s->now.agent[i],
             s->clusters.origin[fl_clusters_of(&s->clusters, s->now.agent[i], NULL)], why);
    }
    fl_free(mean);
    return 0;
}

const struct fl_strategy fl_strategy_pacfl = {
    .name = "pacfl",
    .needs = FL_STRATEGY_SUM_ONLY | FL_STRATEGY_AGGREGATES,
    .shared_size = sizeof(struct shared),
    .init = pacfl_init,
    .fini = pacfl_fini,
    .slots = fl_clusters_slots,
    .next_slots = fl_clusters_next_slots,
    .slot_new = fl_clusters_slot_new,
    .slot_reset = fl_clusters_slot_reset,
    .slot_free = fl_clusters_slot_free,
    .place = fl_clusters_place,
    .fold = fl_clusters_fold,
    .between = pacfl_between,
    .groups = pacfl_groups,
    .finish = pacfl_finish,
    .explain = pacfl_explain,
    .state_size = pacfl_state_size,
    .save = pacfl_save,
    .load = pacfl_load,
};
