#include "server/strategy/clusters.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEAD = 24,
    ORIGINS = 4 * FL_PLAN_BUBBLES_MAX,
    WHO = 12,
    COMMON = FL_PLAN_BUBBLES_MAX, /* number of the common body among the models */
};

/* ---- life ---- */

static int make_model(struct fl_clusters *c, uint32_t i, struct fl_err *e)
{
    c->model[i] = fl_try(1, c->inside->shared_size);
    int r =
        c->model[i] ? c->inside->init(c->model[i], c->plan, e) : fl_fail(e, FL_R_NOMEM, "a bubble");
    if (r) {
        fl_free(c->model[i]);
        c->model[i] = NULL;
    }
    return r;
}

static void drop_models(struct fl_clusters *c)
{
    for (uint32_t i = 0; i < FL_COUNT(c->model); i++) {
        if (c->model[i]) {
            c->inside->fini(c->model[i]);
            fl_free(c->model[i]);
            c->model[i] = NULL;
        }
    }
}

/* One bubble, and nobody is known. */
static int begin(struct fl_clusters *c, uint32_t models, struct fl_err *e)
{
    int r = 0;

    drop_models(c);
    fl_free(c->who);
    fl_free(c->began);
    c->who = c->began = NULL;
    c->who_count = c->began_count = 0;
    c->round = 1;
    c->usual = 0;
    c->before = c->count = models;
    memset(c->origin, 0, sizeof c->origin);
    for (uint32_t i = 0; r == 0 && i < models; i++) {
        c->origin[i] = i;
        r = make_model(c, i, e);
    }
    return r == 0 && c->split ? make_model(c, COMMON, e) : r;
}

int fl_clusters_init(struct fl_clusters *c, const struct fl_plan *plan, uint32_t models,
                     struct fl_err *e)
{
    c->first = models;
    c->plan = plan;
    c->inside = fl_strategy_find(fl_plan_model(plan));
    if (!c->inside || c->inside->between || c->inside->next_slots) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "%s inside bubbles", fl_plan_model(plan));
    }
    c->split = plan->setting.bubble.body == FL_BODY_SHARED ? fl_plan_head_offset(plan) : 0;
    int r = begin(c, models, e);
    if (r) {
        drop_models(c);
    }
    return r;
}

void fl_clusters_fini(struct fl_clusters *c)
{
    drop_models(c);
    fl_free(c->who);
    fl_free(c->began);
    c->who = c->began = NULL;
}

/* ---- who is where ---- */

static const struct fl_who *find(const struct fl_who *who, uint32_t count, uint64_t agent)
{
    uint32_t low = 0, high = count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (who[middle].agent < agent) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && who[low].agent == agent ? &who[low] : NULL;
}

uint32_t fl_clusters_of(const struct fl_clusters *c, uint64_t agent, bool *ret_known)
{
    const struct fl_who *w = find(c->who, c->who_count, agent);

    if (ret_known) {
        *ret_known = w != NULL;
    }
    return w ? w->bubble : c->usual;
}

static uint32_t largest(const struct fl_who *who, uint32_t who_count)
{
    uint32_t members[FL_PLAN_BUBBLES_MAX] = {0}, best = 0;

    for (uint32_t i = 0; i < who_count; i++) {
        members[who[i].bubble]++;
    }
    for (uint32_t b = 1; b < FL_PLAN_BUBBLES_MAX; b++) {
        best = members[b] > members[best] ? b : best;
    }
    return best;
}

void fl_clusters_regroup(struct fl_clusters *c, struct fl_who *who, uint32_t who_count,
                         uint32_t count)
{
    uint32_t from[FL_PLAN_BUBBLES_MAX][FL_PLAN_BUBBLES_MAX] = {{0}};
    uint32_t usual = largest(c->began, c->began_count);

    assert(count > 0 && count <= FL_PLAN_BUBBLES_MAX);
    for (uint32_t i = 0; i < who_count; i++) {
        const struct fl_who *was = find(c->began, c->began_count, who[i].agent);
        if (was) {
            from[who[i].bubble][was->bubble]++;
        }
    }
    for (uint32_t b = 0; b < count; b++) {
        c->origin[b] = usual;
        for (uint32_t m = 0; m < c->before; m++) {
            c->origin[b] = from[b][m] > from[b][c->origin[b]] ? m : c->origin[b];
        }
    }
    fl_free(c->who);
    c->who = who;
    c->who_count = who_count;
    c->count = count;
    c->usual = largest(who, who_count);
}

void fl_clusters_move(struct fl_clusters *c, struct fl_who *who, uint32_t who_count)
{
    fl_free(c->who);
    c->who = who;
    c->who_count = who_count;
    c->usual = largest(who, who_count);
}

int fl_clusters_merge(const struct fl_who *a, uint32_t a_count, const struct fl_who *b,
                      uint32_t b_count, struct fl_who **ret, uint32_t *ret_count, struct fl_err *e)
{
    size_t n = (size_t)a_count + b_count, i = 0, k = 0;
    struct fl_who *all = fl_try(n ? n : 1, sizeof *all);

    if (!all) {
        return fl_fail(e, FL_R_NOMEM, "%zu places", n);
    }
    for (n = 0; i < a_count || k < b_count; n++) {
        bool first = k == b_count || (i < a_count && a[i].agent <= b[k].agent);
        k += first && k < b_count && a[i].agent == b[k].agent;
        all[n] = first ? a[i++] : b[k++];
    }
    *ret = all;
    *ret_count = (uint32_t)n;
    return 0;
}

/* ---- state ---- */

static void *inside_of(const struct fl_clusters *c, uint32_t model)
{
    return c->model[model == c->count ? COMMON : c->origin[model]];
}

/* States inside, of the models after this round. */
static size_t inside_size(const struct fl_clusters *c)
{
    size_t size = 0;

    for (uint32_t i = 0; i < c->count + (c->split > 0); i++) {
        size += 4 + c->inside->state_size(inside_of(c, i));
    }
    return size;
}

size_t fl_clusters_size(const struct fl_clusters *c, uint32_t room, uint32_t more)
{
    return HEAD + ORIGINS + (size_t)room * WHO + inside_size(c) + more;
}

/* All but the states inside. Returns where these begin. */
static uint8_t *put_head(const struct fl_clusters *c, const struct fl_clusters_more *more,
                         const struct fl_clusters_after *after, uint64_t round, uint8_t *to)
{
    size_t size = fl_clusters_size(c, more->room, more->size);

    memset(to, 0, HEAD + ORIGINS + (size_t)more->room * WHO);
    fl_put_u64(to, round);
    fl_put_u32(to + 8, c->count);
    fl_put_u32(to + 12, after->bubbles);
    fl_put_u32(to + 16, more->room);
    fl_put_u32(to + 20, more->size);
    for (uint32_t i = 0; i < after->bubbles; i++) {
        fl_put_u32(to + HEAD + 4 * (size_t)i, after->origin[i]);
    }
    assert(after->who_count <= more->room);
    for (uint32_t i = 0; i < after->who_count; i++) {
        uint8_t *at = to + HEAD + ORIGINS + (size_t)i * WHO;
        fl_put_u64(at, after->who[i].agent);
        fl_put_u32(at + 8, after->who[i].bubble);
    }
    if (more->size) {
        memcpy(to + size - more->size, more->bytes, more->size);
    }
    return to + HEAD + ORIGINS + (size_t)more->room * WHO;
}

static struct fl_clusters_after same(const struct fl_clusters *c)
{
    struct fl_clusters_after after = {
        .bubbles = c->count, .who = c->who, .who_count = c->who_count};

    for (uint32_t i = 0; i < c->count; i++) {
        after.origin[i] = i;
    }
    return after;
}

void fl_clusters_save(const struct fl_clusters *c, const struct fl_clusters_more *more, uint8_t *to)
{
    struct fl_clusters_after after = more->after ? *more->after : same(c);
    uint8_t *at = put_head(c, more, &after, c->round - 1, to);

    for (uint32_t i = 0; i < c->count + (c->split > 0); i++) {
        size_t n = c->inside->state_size(inside_of(c, i));
        fl_put_u32(at, (uint32_t)n);
        c->inside->save(inside_of(c, i), at + 4);
        at += 4 + n;
    }
}

static int load_who(struct fl_clusters *c, const uint8_t *from, uint32_t room, struct fl_err *e)
{
    uint32_t n = 0;

    while (n < room && fl_get_u64(from + (size_t)n * WHO) != 0) {
        n++;
    }
    c->who = fl_try(n ? n : 1, sizeof *c->who);
    c->began = fl_try(n ? n : 1, sizeof *c->began);
    if (!c->who || !c->began) {
        return fl_fail(e, FL_R_NOMEM, "%u places", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct fl_who w = {fl_get_u64(from + (size_t)i * WHO),
                           fl_get_u32(from + (size_t)i * WHO + 8)};
        if (w.bubble >= c->count || (i && w.agent <= c->who[i - 1].agent)) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "agent %llu of the strategy state",
                           (unsigned long long)w.agent);
        }
        c->who[i] = w;
        c->began[i] = (struct fl_who){w.agent, c->origin[w.bubble]};
    }
    c->who_count = c->began_count = n;
    c->usual = largest(c->who, n);
    return 0;
}

static int load_inside(struct fl_clusters *c, const uint8_t **at, const uint8_t *end,
                       struct fl_err *e)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < c->before + (c->split > 0); i++) {
        uint32_t n = end - *at >= 4 ? fl_get_u32(*at) : 0;
        if (end - *at < 4 || n > (size_t)(end - *at - 4)) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "the strategy state ends in bubble %u", i);
        }
        r = c->inside->load(c->model[i == c->before ? COMMON : i], *at + 4, n, e);
        *at += 4 + n;
    }
    return r;
}

int fl_clusters_load(struct fl_clusters *c, const uint8_t *from, size_t size,
                     const uint8_t **ret_more, size_t *ret_size, struct fl_err *e)
{
    uint32_t models = size >= HEAD ? fl_get_u32(from + 8) : 1;
    uint32_t bubbles = size >= HEAD ? fl_get_u32(from + 12) : 1;
    uint32_t room = size >= HEAD ? fl_get_u32(from + 16) : 0;
    uint32_t more = size >= HEAD ? fl_get_u32(from + 20) : 0;

    *ret_more = NULL;
    *ret_size = 0;
    if (size == 0) {
        return begin(c, c->first, e);
    }
    if (size < HEAD + ORIGINS || models == 0 || models > FL_PLAN_BUBBLES_MAX || bubbles == 0 ||
        bubbles > FL_PLAN_BUBBLES_MAX || (size - HEAD - ORIGINS) < (uint64_t)room * WHO + more) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "strategy state of %zu bytes", size);
    }
    const uint8_t *at = from + HEAD + ORIGINS, *end = from + size - more;
    int r = begin(c, models, e);
    c->round = fl_get_u64(from) + 1;
    c->count = bubbles;
    for (uint32_t i = 0; r == 0 && i < bubbles; i++) {
        c->origin[i] = fl_get_u32(from + HEAD + 4 * (size_t)i);
        if (c->origin[i] >= models) {
            r = fl_fail(e, FL_R_STORE_MISMATCH, "bubble %u of the strategy state", i);
        }
    }
    r = r ? r : load_who(c, at, room, e);
    at += (size_t)room * WHO;
    r = r ? r : load_inside(c, &at, end, e);
    if (r == 0 && at != end) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "strategy state of %zu bytes", size);
    }
    *ret_more = end;
    *ret_size = more;
    return r;
}

/* ---- finish ---- */

/* What the strategy inside sees in place of all: one model, and the values that are its to write.
 */
struct view {
    struct fl_next *next;
    uint32_t base, first_slot, last_slot; /* the same values for all of these */
    size_t from, to;
};

static int view_base(void *arg, uint32_t slot, size_t first, size_t count, float *to,
                     struct fl_err *e)
{
    const struct view *v = arg;

    (void)slot;
    return v->next->base(v->next->arg, v->base, first, count, to, e);
}

static int view_put(void *arg, uint32_t slot, size_t first, size_t count, const float *values,
                    struct fl_err *e)
{
    const struct view *v = arg;
    size_t low = first > v->from ? first : v->from;
    size_t high = first + count < v->to ? first + count : v->to;
    int r = 0;

    (void)slot;
    for (uint32_t b = v->first_slot; r == 0 && low < high && b <= v->last_slot; b++) {
        r = v->next->put(v->next->arg, b, low, high - low, values + (low - first), e);
    }
    return r;
}

/* Updates that a bubble with `got` of them needs: its quorum, and what a robust rule can work on.
 */
static uint32_t enough(const struct fl_clusters *c, uint32_t got)
{
    const struct fl_aggregate_conf *a = &c->plan->aggregate;
    uint32_t quorum = c->plan->setting.bubble.quorum;
    uint32_t rule = !a->on || got == 0                    ? 0
                    : a->before == FL_AGGREGATE_BUCKETING ? 2 * a->byzantine * a->bucket + 1
                                                          : 2 * a->byzantine + 1;

    return quorum > rule ? quorum : rule;
}

/* The bubbles whose updates make bubble b's next model, as a set: b alone, or the smallest cluster
 * around it that got enough (`least`, 0: what the plan wants), by average linkage. */
static uint64_t family(const struct fl_clusters *c, const double *distance, const uint32_t *got,
                       uint32_t least, uint32_t b)
{
    double d[FL_PLAN_BUBBLES_MAX][FL_PLAN_BUBBLES_MAX], weight[FL_PLAN_BUBBLES_MAX];
    uint64_t set[FL_PLAN_BUBBLES_MAX];
    uint32_t sum[FL_PLAN_BUBBLES_MAX], own = b, n = c->count;
    bool gone[FL_PLAN_BUBBLES_MAX] = {false};

    for (uint32_t i = 0; i < n; i++) {
        set[i] = (uint64_t)1 << i;
        sum[i] = got[i];
        weight[i] = 0;
        for (uint32_t k = 0; k < n; k++) {
            d[i][k] = distance ? distance[(size_t)i * n + k] : 0;
        }
    }
    for (uint32_t i = 0; i < c->who_count; i++) {
        weight[c->who[i].bubble]++;
    }
    while (distance && sum[own] < (least ? least : enough(c, sum[own]))) {
        uint32_t x = n, y = n;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t k = i + 1; k < n; k++) {
                if (!gone[i] && !gone[k] && (x == n || d[i][k] < d[x][y])) {
                    x = i;
                    y = k;
                }
            }
        }
        if (x == n) {
            break; /* all are one */
        }
        for (uint32_t k = 0; k < n; k++) {
            double both = weight[x] + weight[y];
            d[x][k] = d[k][x] =
                both > 0 ? (weight[x] * d[x][k] + weight[y] * d[y][k]) / both : d[x][k];
        }
        weight[x] += weight[y];
        set[x] |= set[y];
        sum[x] += sum[y];
        gone[y] = true;
        own = own == y ? x : own;
    }
    return set[own];
}

/* ---- secure sums ---- */

int fl_clusters_groups(const struct fl_clusters *c, const double *distance,
                       const struct fl_groups_terms *terms, const uint64_t *agents, uint32_t count,
                       uint32_t *ret_group, struct fl_err *e)
{
    uint32_t got[FL_PLAN_BUBBLES_MAX] = {0}, number[FL_PLAN_BUBBLES_MAX], groups = 0;
    uint64_t set[FL_PLAN_BUBBLES_MAX];

    (void)e;
    for (uint32_t i = 0; i < count; i++) {
        got[fl_clusters_of(c, agents[i], NULL)]++;
    }
    for (uint32_t b = 0; b < c->count; b++) {
        set[b] = got[b] ? family(c, distance, got, terms->least, b) : (uint64_t)1 << b;
    }
    for (uint32_t again = c->count; again > 0; again--) { /* sets that meet become one */
        for (uint32_t a = 0; a < c->count; a++) {
            for (uint32_t b = 0; b < c->count; b++) {
                set[a] |= set[a] & set[b] ? set[b] : 0;
            }
        }
    }
    for (uint32_t b = 0; b < c->count; b++) {
        uint32_t members = 0, first = c->count;
        for (uint32_t a = c->count; a-- > 0;) {
            members += set[b] >> a & 1 ? got[a] : 0;
            first = set[b] >> a & 1 ? a : first;
        }
        number[b] = members < terms->least ? FL_STRATEGY_NO_GROUP
                    : first < b            ? number[first]
                                           : groups++;
    }
    for (uint32_t i = 0; i < count; i++) {
        ret_group[i] = number[fl_clusters_of(c, agents[i], NULL)];
    }
    return 0;
}

/* Updates made of a sum say which. Those of one sum belong together: of whichever bubble of it, all
 * of them are for each. */
static void count_groups(const struct fl_clusters *c, const struct fl_next *next, uint32_t *got,
                         uint64_t *together)
{
    uint64_t bubbles[FL_PLAN_BUBBLES_MAX] = {0};
    uint32_t members[FL_PLAN_BUBBLES_MAX] = {0};

    for (uint32_t i = 0; i < next->updates.count; i++) {
        const struct fl_update *u = &next->updates.at[i];
        if (u->group < FL_PLAN_BUBBLES_MAX) {
            bubbles[u->group] |= (uint64_t)1 << fl_clusters_of(c, u->agent, NULL);
            members[u->group]++;
        }
    }
    for (uint32_t b = 0; b < c->count; b++) {
        together[b] = (uint64_t)1 << b;
        got[b] = 0;
        for (uint32_t g = 0; g < FL_PLAN_BUBBLES_MAX; g++) {
            if (bubbles[g] >> b & 1) {
                together[b] = bubbles[g];
                got[b] = members[g];
            }
        }
    }
}

/* Whose updates make bubble b's next model, of secure sums. */
static uint64_t sum_family(const struct fl_clusters *c, const double *distance, const uint32_t *got,
                           const uint64_t *together, uint32_t b)
{
    uint64_t set = family(c, distance, got, 0, b), all = 0;

    for (uint32_t a = 0; a < c->count; a++) {
        all |= set >> a & 1 ? together[a] : 0;
    }
    return all;
}

/* Folds the updates of a set of bubbles and lets the strategy inside finish on them. */
static int finish_set(const struct fl_clusters *c, uint64_t set, void *model, struct view *view,
                      struct fl_next *next, uint8_t *state, uint32_t exchange,
                      struct fl_update *list, struct fl_err *e)
{
    const struct fl_strategy *inside = c->inside;
    struct fl_next in = {.base = view_base,
                         .put = view_put,
                         .arg = view,
                         .base_count = 1,
                         .put_count = 1,
                         .updates = {.at = list},
                         .round = next->round,
                         .secret = next->secret,
                         .state = state,
                         .state_size = inside->state_size(model)};
    void *slot = NULL;
    int r = inside->slot_new(model, &slot, e);

    for (uint32_t i = 0; r == 0 && i < next->updates.count; i++) {
        const struct fl_update *u = &next->updates.at[i];
        bool whole = u->group != FL_STRATEGY_NO_GROUP || set == UINT64_MAX;
        if (whole && set >> fl_clusters_of(c, u->agent, NULL) & 1) {
            list[in.updates.count++] = *u;
            r = inside->fold(slot, model, u, e);
        }
    }
    r = r ? r : inside->finish(model, &slot, exchange, &in, e);
    if (slot) {
        inside->slot_free(slot);
    }
    next->update_norm = hypot(next->update_norm, in.update_norm);
    return r;
}

static void count_updates(const struct fl_clusters *c, struct fl_next *next, uint32_t *ret)
{
    next->members = next->updates.count;
    next->weight = 0;
    next->update_norm = 0;
    for (uint32_t i = 0; i < next->updates.count; i++) {
        next->weight += next->updates.at[i].weight;
        ret[fl_clusters_of(c, next->updates.at[i].agent, NULL)]++;
    }
}

int fl_clusters_finish(const struct fl_clusters *c, uint32_t exchange,
                       const struct fl_clusters_more *more, struct fl_next *next, struct fl_err *e)
{
    struct fl_clusters_after after = more->after ? *more->after : same(c);
    size_t elements = c->plan->layout.shared.elements;
    uint32_t got[FL_PLAN_BUBBLES_MAX] = {0};
    uint64_t together[FL_PLAN_BUBBLES_MAX];
    struct fl_update *list = fl_try(next->updates.count ? next->updates.count : 1, sizeof *list);
    int r = 0;

    assert(next->put_count == c->count && next->base_count == c->before);
    assert(next->state_size == fl_clusters_size(c, more->room, more->size));
    if (!list) {
        return fl_fail(e, FL_R_NOMEM, "a list of %u updates", next->updates.count);
    }
    count_updates(c, next, got);
    if (c->plan->secure.on) {
        count_groups(c, next, got, together);
    }
    uint8_t *at = put_head(c, more, &after, next->round, next->state);
    for (uint32_t b = 0; r == 0 && b < c->count + (c->split > 0); b++) {
        bool common = b == c->count;
        void *model = inside_of(c, b);
        size_t n = c->inside->state_size(model);
        struct view view = {.next = next,
                            .base = common ? 0 : c->origin[b],
                            .first_slot = common ? 0 : b,
                            .last_slot = common ? c->count - 1 : b,
                            .from = common ? 0 : c->split,
                            .to = common ? c->split : elements};
        uint64_t set = common               ? UINT64_MAX
                       : c->plan->secure.on ? sum_family(c, more->distance, got, together, b)
                                            : family(c, more->distance, got, 0, b);
        if (!common && more->idle >> b & 1) {
            set = 0;
        }
        fl_put_u32(at, (uint32_t)n);
        r = finish_set(c, set & ~more->idle, model, &view, next, at + 4, exchange, list, e);
        at += 4 + n;
    }
    fl_free(list);
    return r;
}

/* ---- the table's ---- */

uint32_t fl_clusters_slots(const void *shared)
{
    return ((const struct fl_clusters *)shared)->before;
}

int fl_clusters_next_slots(const void *shared, void *const *slots, const struct fl_updates *updates,
                           uint32_t *ret, struct fl_err *e)
{
    (void)slots;
    (void)updates;
    (void)e;
    *ret = ((const struct fl_clusters *)shared)->count;
    return 0;
}

int fl_clusters_slot_new(const void *shared, void **ret, struct fl_err *e)
{
    (void)shared;
    *ret = fl_try(1, 1);
    return *ret ? 0 : fl_fail(e, FL_R_NOMEM, "a slot");
}

void fl_clusters_slot_reset(const void *shared, void *slot)
{
    (void)shared;
    (void)slot;
}

void fl_clusters_slot_free(void *slot)
{
    fl_free(slot);
}

int fl_clusters_place(const void *shared, const uint64_t *agents, uint32_t count,
                      uint32_t *ret_slot, struct fl_err *e)
{
    const struct fl_clusters *c = shared;

    (void)e;
    for (uint32_t i = 0; i < count; i++) {
        ret_slot[i] = c->origin[fl_clusters_of(c, agents[i], NULL)];
    }
    return 0;
}

int fl_clusters_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e)
{
    (void)slot;
    (void)shared;
    (void)u;
    (void)e;
    return 0;
}

void fl_clusters_explain(const struct fl_clusters *c, const char *why,
                         void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                         void *arg)
{
    for (uint32_t i = 0; i < c->who_count; i++) {
        each(arg, c->who[i].agent, c->origin[c->who[i].bubble], why);
    }
}
