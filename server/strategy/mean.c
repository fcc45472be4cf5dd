/*
 * The weighted mean (FedAvg: McMahan et al. 2017, arXiv 1602.05629, algorithm 1):
 *
 *     next = step(base, 2^step * sum_i w_i q_i / sum_i w_i)
 *
 * (or a robust rule instead of the mean, where the job has one: robust.h), where q_i are the
 * integers that member i sent (its update on the plan's grid), w_i its weight, and `step` the
 * server optimizer. The sum is exact in 64 bits; everything behind it is done once, element by
 * element, so the next model does not depend on who came first.
 *
 * FedAvg, APFL, Ditto, FedALA, FedDBE, FedPer, FedProto, FedProx, FedRep, HyperFL, SCAFFOLD and
 * local training differ in what is shared and how agents train, which is the plan's business and
 * theirs; FedAvgM, FedAdagrad, FedAdam, FedYogi and FedDyn in the server optimizer that their word
 * stands for. Here they are one. With nothing shared an update has no bytes; members are still
 * counted, and the next model is as empty as the last.
 */
#include "server/strategy/mean.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/adaptive.h"
#include "server/strategy/robust.h"
#include "server/strategy/serveropt.h"
#include "server/strategy/sumnoise.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { FINISH_TILE = 4096 };

struct shared {
    struct fl_grid grid;
    size_t elements, update_size;
    uint32_t max_weight, members;
    struct fl_server_opt opt;
    struct fl_robust_terms robust; /* its rule is not on: the mean */
    uint32_t last, moments; /* of every element is kept: the last aggregate, the optimizer's */
    size_t kept;
    float *keep;                    /* all these, one after the other; NULL when nothing is */
    struct fl_standings standings;  /* with gates */
    bool buffered;                  /* stale updates count less, and the mean is over all K */
    bool noised;                    /* the plan wants noise on the sum */
    struct fl_privacy_conf privacy; /* with this round's clip */
    struct fl_sum_noise noise;
};

struct slot {
    uint64_t weight;
    uint32_t members;
    int64_t *sum;
    uint8_t *tile;
};

/* ---- shared ---- */

/* Kept vector `i` from element `first` on; NULL when it is not kept. */
static float *kept_at(const struct shared *s, uint32_t i, size_t first)
{
    return i < s->last + s->moments ? s->keep + i * s->elements + first : NULL;
}

/* What a job begins with: no motion yet, and tau^2. */
static void begin_kept(struct shared *s)
{
    memset(s->keep, 0, s->kept * sizeof *s->keep);
    for (size_t i = 0; s->moments == 2 && i < s->elements; i++) {
        kept_at(s, s->last + 1, 0)[i] = fl_server_opt_first(&s->opt);
    }
}

static int mean_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    struct shared *s = shared;

    s->grid = (struct fl_grid){.bits = plan->grid.bits, .step = plan->grid.step};
    s->elements = plan->layout.shared.elements;
    s->max_weight = fl_plan_weight_max(plan);
    s->buffered = plan->setting.buffer.size > 0;
    s->members = plan->round.members;
    s->opt = fl_server_opt_of(&plan->server);
    s->privacy = plan->privacy;
    if (s->grid.bits < 8 || s->grid.bits > 32 || s->max_weight == 0 || s->members == 0 ||
        !fl_grid_sum_fits(&s->grid, s->max_weight, s->members)) {
        return fl_fail(e, FL_R_PLAN_OVERFLOW,
                       "sums of %u members' %u-bit values, each at most %u times, do not fit",
                       s->members, s->grid.bits, s->max_weight);
    }
    if (!fl_grid_bytes(&s->grid, s->elements, &s->update_size)) {
        return fl_fail(e, FL_R_LIMIT, "a model of %zu elements", s->elements);
    }
    s->robust = fl_robust_terms_of(plan);
    s->last = fl_robust_remembers(&s->robust);
    s->moments = fl_server_opt_moments(&s->opt);
    s->kept = (s->last + s->moments) * s->elements;
    if (s->kept > 0) {
        s->keep = fl_try_aligned(s->kept, sizeof *s->keep);
        if (!s->keep) {
            return fl_fail(e, FL_R_NOMEM, "the server optimizer of %zu elements", s->elements);
        }
        begin_kept(s);
    }
    s->noised = fl_sum_noise_wanted(plan) && s->elements > 0;
    if (s->noised) {
        int r = fl_sum_noise_init(&s->noise, plan, e);
        if (r != 0) {
            fl_free(s->keep);
            return r;
        }
    }
    return 0;
}

static void mean_fini(void *shared)
{
    struct shared *s = shared;

    fl_free(s->keep);
    s->keep = NULL;
    fl_standings_fini(&s->standings);
    fl_sum_noise_fini(&s->noise);
}

/* Behind what is kept: where in its tree the noise stands. */
static size_t tree_size(const struct shared *s)
{
    return s->noised && s->noise.tree ? FL_SUM_NOISE_STATE : 0;
}

/* There too: what is held against agents, which never stands beside a tree. */
static size_t standings_size(const struct shared *s)
{
    return s->robust.conf.gates.on ? fl_standings_size(&s->standings, s->members) : 0;
}

static size_t mean_state_size(const void *shared)
{
    const struct shared *s = shared;
    return s->kept * sizeof(float) + standings_size(s) + tree_size(s);
}

static void mean_save(const void *shared, uint8_t *to)
{
    const struct shared *s = shared;

    for (size_t i = 0; i < s->kept; i++) {
        fl_put_float(to + 4 * i, s->keep[i]);
    }
    if (standings_size(s)) {
        fl_standings_put(&s->standings, to + s->kept * sizeof(float), standings_size(s));
    }
    if (tree_size(s)) {
        fl_sum_noise_put(&s->noise.state, to + mean_state_size(s) - FL_SUM_NOISE_STATE);
    }
}

/* The plan may have got or lost its momentum since: nothing saved is a start from the beginning,
 * something saved that is no longer used is left alone. */
static int mean_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct shared *s = shared;
    size_t tree = tree_size(s);

    memset(&s->noise.state, 0, sizeof s->noise.state);
    if (tree && size > 0) { /* 0: a job begins */
        if (size < tree || !fl_sum_noise_get(&s->noise.state, from + size - tree, s->noise.tree)) {
            return fl_fail(e, FL_R_STORE_MISMATCH,
                           "strategy state of %zu bytes has no tree of noise", size);
        }
        size -= tree;
    }
    fl_standings_fini(&s->standings);
    if (s->robust.conf.gates.on && size > 0) {
        size_t held;
        int r = fl_standings_get(from, size, &s->standings, &held, e);
        if (r != 0) {
            return r;
        }
        size -= held;
    }
    size_t last = s->last * s->elements, more = (s->moments == 2 ? 2 : 1) * s->elements;
    if (size != 0 && size != (last + more) * sizeof(float) &&
        (s->moments == 2 || last == 0 || size != last * sizeof(float))) {
        return fl_fail(e, FL_R_STORE_MISMATCH,
                       "strategy state of %zu bytes does not belong to a model of %zu elements",
                       size, s->elements);
    }
    for (size_t i = 0; i < size / sizeof(float); i++) {
        float value = fl_get_float(from + 4 * i);
        if (!isfinite(value) || (i >= last + s->elements && value < 0)) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "value %zu of the strategy state cannot be", i);
        }
    }
    if (s->kept > 0) {
        begin_kept(s);
    }
    for (size_t i = 0; i < size / sizeof(float) && i < s->kept; i++) {
        s->keep[i] = fl_get_float(from + 4 * i);
    }
    return 0;
}

/* ---- slots ---- */

static uint32_t mean_slots(const void *shared)
{
    (void)shared;
    return 1;
}

static void mean_slot_free(void *slot)
{
    struct slot *t = slot;

    if (t) {
        fl_free(t->sum);
        fl_free(t->tile);
        fl_free(t);
    }
}

static int mean_slot_new(const void *shared, void **ret, struct fl_err *e)
{
    const struct shared *s = shared;
    struct slot *t = fl_try(1, sizeof *t);

    if (t) {
        t->sum = fl_try_aligned(s->robust.conf.on ? 0 : s->elements, sizeof *t->sum);
        t->tile = fl_try_aligned(FL_STRATEGY_TILE, 1);
    }
    if (!t || !t->sum || !t->tile) {
        mean_slot_free(t);
        return fl_fail(e, FL_R_NOMEM, "sums of %zu elements", s->elements);
    }
    *ret = t;
    return 0;
}

static void mean_slot_reset(const void *shared, void *slot)
{
    const struct shared *s = shared;
    struct slot *t = slot;

    if (!s->robust.conf.on) {
        memset(t->sum, 0, s->elements * sizeof *t->sum);
    }
    t->weight = 0;
    t->members = 0;
}

static int mean_place(const void *shared, const uint64_t *agents, uint32_t count,
                      uint32_t *ret_slot, struct fl_err *e)
{
    (void)shared;
    (void)agents;
    (void)e;
    memset(ret_slot, 0, count * sizeof *ret_slot);
    return 0;
}

/* Several secure sums only for a robust rule, which compares those of buckets. */
static int mean_groups(const void *shared, const struct fl_groups_terms *terms,
                       const uint64_t *agents, uint32_t count, uint32_t *ret_group,
                       struct fl_err *e)
{
    const struct shared *s = shared;

    (void)agents;
    return fl_robust_groups(&s->robust, terms, count, ret_group, e);
}

/* ---- fold ---- */

/* Values of one tile: whole bytes, so that every tile but the last is a packed vector without
 * padding. */
static size_t tile_values(const struct fl_grid *g)
{
    return (size_t)FL_STRATEGY_TILE * 8 / g->bits / 64 * 64;
}

static int check_update(const struct fl_grid *g, size_t elements, uint32_t max_weight,
                        const struct fl_update *u, struct fl_err *e)
{
    size_t size;

    if (!fl_grid_bytes(g, elements, &size) || u->size != size) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "an update of %llu bytes for %zu elements of %u bits",
                       (unsigned long long)u->size, elements, g->bits);
    }
    if (u->weight == 0 || u->weight > max_weight) {
        return fl_fail(e, FL_R_UPDATE_RANGE, "weight %u is not 1 to %u", u->weight, max_weight);
    }
    return 0;
}

static int mean_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e)
{
    const struct shared *s = shared;
    struct slot *t = slot;
    size_t values = tile_values(&s->grid);
    uint64_t offset = 0;
    int r = check_update(&s->grid, s->elements, s->max_weight, u, e);

    if (r != 0) {
        return r;
    }
    if (t->members == s->members) {
        return fl_fail(e, FL_R_LIMIT, "more than %u updates in one sum", s->members);
    }
    for (size_t first = 0; !s->robust.conf.on && first < s->elements; first += values) {
        size_t count = s->elements - first < values ? s->elements - first : values;
        size_t bytes = (count * s->grid.bits + 7) / 8;
        r = u->read(u->arg, offset, t->tile, bytes, e);
        if (r == 0) {
            r = fl_grid_fold(&s->grid, t->tile, bytes, 0, count, u->weight, t->sum + first, e);
        }
        if (r != 0) {
            return fl_wrap(e, r, "update of agent %llu, elements from %zu",
                           (unsigned long long)u->agent, first);
        }
        offset += bytes;
    }
    t->weight += u->weight;
    t->members++;
    return 0;
}

int fl_update_scan(const struct fl_exchange_terms *terms, const struct fl_update *u,
                   struct fl_err *e)
{
    struct fl_grid g = {.bits = terms->grid.bits, .step = terms->grid.step};
    size_t elements = terms->elements, values;
    uint64_t offset = 0;
    int64_t q[1024];

    if (terms->payload == FL_PAYLOAD_BYTES) {
        return u->size > 0 && u->size <= terms->size
                   ? 0
                   : fl_fail(e, FL_R_UPDATE_LENGTH, "%llu bytes; %s takes 1 to %llu",
                             (unsigned long long)u->size, terms->name,
                             (unsigned long long)terms->size);
    }
    int r = check_update(&g, elements, terms->max_weight, u, e);
    if (r != 0) {
        return r;
    }
    uint8_t *tile = fl_try_aligned(FL_STRATEGY_TILE, 1);
    if (!tile) {
        return fl_fail(e, FL_R_NOMEM, "a tile");
    }
    values = tile_values(&g);
    for (size_t first = 0; r == 0 && first < elements; first += values) {
        size_t count = elements - first < values ? elements - first : values;
        size_t bytes = (count * g.bits + 7) / 8;
        r = u->read(u->arg, offset, tile, bytes, e);
        for (size_t i = 0; r == 0 && i < count; i += FL_COUNT(q)) {
            size_t n = count - i < FL_COUNT(q) ? count - i : FL_COUNT(q);
            r = fl_grid_unpack(&g, tile, bytes, i, n, q, e);
        }
        offset += bytes;
    }
    fl_free(tile);
    return r;
}

/* ---- finish ---- */

/* What a tile's values come from: one of them, or nothing but the sums. */
struct source {
    struct fl_sum_noise noise;
    struct fl_robust *robust;
};

/* The mean update, or what stands in its place. */
static int tile_mean(const struct shared *s, const struct slot *t, const struct source *from,
                     size_t first, size_t count, double *mean, struct fl_err *e)
{
    double scale = ldexp(1.0, s->grid.step);
    double weight = s->buffered ? (double)t->members * FL_BUFFER_FRESH : (double)t->weight;
    int64_t sum[FINISH_TILE];
    int r;

    if (from->robust) {
        return fl_robust_values(from->robust, first, count, mean, e);
    }
    memcpy(sum, t->sum + first, count * sizeof *sum);
    if (s->noised && (r = fl_sum_noise_add(&from->noise, first, sum, count, e)) != 0) {
        return r;
    }
    for (size_t i = 0; i < count; i++) {
        mean[i] = (double)sum[i] * scale / weight;
    }
    return 0;
}

/* One tile: the mean, then the optimizer. Adds to the squared norm of the mean. */
static int finish_tile(const struct shared *s, const struct slot *t, const struct source *from,
                       size_t first, size_t count, struct fl_next *next, double *norm2,
                       struct fl_err *e)
{
    double mean[FINISH_TILE];
    float base[FINISH_TILE], x_next[FINISH_TILE], kept[3][FINISH_TILE];
    uint32_t m = s->last, v = s->last + 1; /* which of the kept vectors */
    const struct fl_moments moments = {kept_at(s, m, first), kept_at(s, v, first)};
    const struct fl_moments moments_next = {kept[m], kept[v]};
    int r = next->base(next->arg, 0, first, count, base, e);

    if (r != 0 || t->weight == 0) { /* nobody: the model stays as it is */
        return r ? r : next->put(next->arg, 0, first, count, base, e);
    }
    r = tile_mean(s, t, from, first, count, mean, e);
    if (r != 0) {
        return r;
    }
    bool clip = s->privacy.adaptive.on && first + count == s->elements; /* its last value */
    double bits = clip ? mean[count - 1] : 0;
    mean[count - 1] = clip ? 0 : mean[count - 1];
    for (size_t i = 0; i < count; i++) {
        *norm2 += mean[i] * mean[i];
        kept[0][i] = s->last ? (float)mean[i] : 0;
    }
    r = fl_server_opt_step(&s->opt, base, mean, first, count, &moments, x_next, &moments_next, e);
    if (r == 0 && clip) {
        x_next[count - 1] = fl_adaptive_next(&s->privacy, s->grid.step, bits, e);
        r = isfinite(x_next[count - 1]) ? 0 : -FL_R_PLAN_PRIVACY;
    }
    for (uint32_t k = 0; r == 0 && k < s->last + s->moments; k++) {
        for (size_t i = 0; i < count; i++) {
            fl_put_float(next->state + 4 * (k * s->elements + first + i), kept[k][i]);
        }
    }
    return r ? r : next->put(next->arg, 0, first, count, x_next, e);
}

/* The noise of this round, and the state behind it into next->state. finish changes nothing it was
 * given, so it works on a copy that borrows the sampler. */
static int begin_noise(const struct shared *s, const struct slot *t, const struct fl_next *next,
                       struct fl_sum_noise *ret, struct fl_err *e)
{
    *ret = s->noise;
    if (!next->secret) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "the sum is to be noised, and there is no secret for it");
    }
    const struct fl_sum_noise_of of = {
        .round = next->round, .slot = 0, .weight = t->weight, .sum = t->sum, .count = s->elements};
    int r = fl_sum_noise_begin(ret, next->secret, &of, e);
    if (r == 0 && tree_size(s)) {
        fl_sum_noise_put(&ret->next, next->state + next->state_size - FL_SUM_NOISE_STATE);
    }
    return r;
}

/* The rule's first pass, and what is held against agents behind it into next->state. */
static int begin_robust(const struct shared *s, const struct fl_next *next, struct source *from,
                        struct fl_err *e)
{
    struct fl_standings standings;
    int r = fl_standings_copy(&s->standings, &standings, e);

    if (r != 0) {
        return r;
    }
    r = fl_robust_new(&s->robust, &next->updates, kept_at(s, 0, 0), &standings, next->secret,
                      next->round, &from->robust, e);
    if (r == 0 && standings_size(s)) {
        fl_standings_put(&standings, next->state + s->kept * sizeof(float), standings_size(s));
    }
    fl_standings_fini(&standings);
    return r;
}

static int mean_finish(const void *shared, void *const *slots, uint32_t exchange,
                       struct fl_next *next, struct fl_err *e)
{
    const struct shared *s = shared;
    const struct slot *t = slots[0];
    struct source from = {.robust = NULL};
    size_t tile = FINISH_TILE;
    double norm2 = 0.0;
    int r = 0;

    (void)exchange;
    assert(next->base_count == 1 && next->state_size == mean_state_size(s));
    next->members = t->members;
    next->weight = t->weight;
    next->update_norm = 0.0;
    if (t->weight == 0) { /* and so does what is kept */
        mean_save(s, next->state);
    } else if (s->robust.conf.on) {
        r = begin_robust(s, next, &from, e);
        tile = r ? tile : fl_robust_tile(from.robust);
    }
    if (s->noised) {
        r = begin_noise(s, t, next, &from.noise, e);
    }
    for (size_t first = 0; r == 0 && first < s->elements; first += tile) {
        size_t count = s->elements - first < tile ? s->elements - first : tile;
        r = finish_tile(s, t, &from, first, count, next, &norm2, e);
    }
    fl_robust_free(from.robust);
    explicit_bzero(&from, sizeof from);
    next->update_norm = sqrt(norm2);
    return r;
}

static int mean_explain(const void *shared,
                        void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                        void *arg, struct fl_err *e)
{
    const struct shared *s = shared;
    char why[256];

    (void)e;
    for (uint32_t i = 0; i < s->standings.count; i++) {
        fl_standing_text(&s->robust.conf.gates, &s->standings.at[i], why, sizeof why);
        each(arg, s->standings.at[i].agent, 0, why);
    }
    return 0;
}

#define MEAN_STRATEGY(word)                                                                        \
    const struct fl_strategy fl_strategy_##word = {                                                \
        .name = #word,                                                                             \
        .needs = FL_STRATEGY_SUM_ONLY | FL_STRATEGY_SUM_NOISE | FL_STRATEGY_AGGREGATES,            \
        .shared_size = sizeof(struct shared),                                                      \
        .init = mean_init,                                                                         \
        .fini = mean_fini,                                                                         \
        .slots = mean_slots,                                                                       \
        .slot_new = mean_slot_new,                                                                 \
        .slot_reset = mean_slot_reset,                                                             \
        .slot_free = mean_slot_free,                                                               \
        .place = mean_place,                                                                       \
        .fold = mean_fold,                                                                         \
        .groups = mean_groups,                                                                     \
        .finish = mean_finish,                                                                     \
        .explain = mean_explain,                                                                   \
        .state_size = mean_state_size,                                                             \
        .save = mean_save,                                                                         \
        .load = mean_load,                                                                         \
    }

MEAN_STRATEGY(apfl);
MEAN_STRATEGY(ditto);
MEAN_STRATEGY(fedala);
MEAN_STRATEGY(fedadagrad);
MEAN_STRATEGY(fedadam);
MEAN_STRATEGY(fedavg);
MEAN_STRATEGY(fedavgm);
MEAN_STRATEGY(fedbn);
MEAN_STRATEGY(fedbuff);
MEAN_STRATEGY(feddbe);
MEAN_STRATEGY(feddyn);
MEAN_STRATEGY(fednova);
MEAN_STRATEGY(fedper);
MEAN_STRATEGY(fedproto);
MEAN_STRATEGY(fedprox);
MEAN_STRATEGY(fedrep);
MEAN_STRATEGY(fedyogi);
MEAN_STRATEGY(hyperfl);
MEAN_STRATEGY(local);
MEAN_STRATEGY(scaffold);
