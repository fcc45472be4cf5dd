/* Rounds of a strategy that has a model for each agent, with everything in memory: the state is
 * saved and loaded between rounds, and every finish is done twice. */
#ifndef TESTS_LIB_PERSONAL_ROUNDS_H
#define TESTS_LIB_PERSONAL_ROUNDS_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/math/grid.h"
#include "server/strategy/strategy.h"
#include "tests/lib/next_memory.h"

#include <check.h>
#include <math.h>
#include <string.h>

struct rounds {
    const struct fl_strategy *strategy;
    struct fl_plan *plan;
    void *shared;
    struct fl_grid grid;
    size_t d, size;
    uint64_t round; /* last one done */
    uint32_t slots;
    float *models; /* slots x d */
    uint8_t *state;
    size_t state_size;
    double update_norm;
};

/* What a member sends in a round. */
struct sent {
    uint64_t agent;
    uint32_t weight;
    int64_t *q; /* d */
};

static inline struct fl_plan *rounds_plan(const char *text)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_err e = {0};

    ck_assert_msg(fl_plan_parse(plan, "job", text, strlen(text), &e) == 0, "%s", e.msg);
    return plan;
}

/* initial: NULL, or d values; otherwise normal ones. */
static inline void rounds_open(struct rounds *r, const char *text, const float *initial)
{
    struct fl_seed seed;
    struct fl_rng rng;
    struct fl_err e = {0};

    *r = (struct rounds){.plan = rounds_plan(text), .slots = 1};
    r->strategy = fl_strategy_find(r->plan->strategy);
    ck_assert_ptr_nonnull(r->strategy);
    r->grid = (struct fl_grid){r->plan->grid.bits, r->plan->grid.step};
    r->d = r->plan->layout.shared.elements;
    ck_assert(fl_grid_bytes(&r->grid, r->d, &r->size));
    r->shared = fl_new(1, r->strategy->shared_size);
    ck_assert_msg(r->strategy->init(r->shared, r->plan, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(r->strategy->slots(r->shared), 1);
    r->models = fl_new(r->d, sizeof *r->models);
    fl_seed_from_u64(5, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t k = 0; k < r->d; k++) {
        r->models[k] = initial ? initial[k] : (float)fl_rng_normal(&rng) / 8;
    }
    r->state_size = r->strategy->state_size(r->shared);
    r->state = fl_new(r->state_size, 1);
    r->strategy->save(r->shared, r->state);
}

static inline void rounds_close(struct rounds *r)
{
    r->strategy->fini(r->shared);
    fl_free(r->shared);
    fl_free(r->plan);
    fl_free(r->models);
    fl_free(r->state);
}

static inline int rounds_read(void *arg, uint64_t offset, uint8_t *to, size_t size,
                              struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static inline uint32_t rounds_slot(const struct rounds *r, uint64_t agent)
{
    uint32_t slot = UINT32_MAX;

    ck_assert_int_eq(r->strategy->place(r->shared, &agent, 1, &slot, NULL), 0);
    ck_assert_uint_lt(slot, r->slots);
    return slot;
}

/* The model that an agent would fetch now. */
static inline const float *rounds_model(const struct rounds *r, uint64_t agent)
{
    return r->models + rounds_slot(r, agent) * r->d;
}

static inline int rounds_finish(struct rounds *r, const struct fl_updates *updates, uint32_t slots,
                                float *next, uint8_t *state, struct fl_err *e)
{
    struct next_memory m = {.base = r->models, .next = next, .elements = r->d};
    struct fl_next n = next_in_memory(&m, r->slots, state, r->state_size);

    n.put_count = slots;
    n.updates = *updates;
    n.round = r->round + 1;
    memset(next, 0x7f, slots * r->d * sizeof *next);
    int status = r->strategy->finish(r->shared, NULL, 0, &n, e);
    if (status == 0) {
        ck_assert_uint_eq(n.members, updates->count);
        r->update_norm = n.update_norm;
    }
    return status;
}

/* One round of `count` members in ascending order; 0, or what finish said. */
static inline int rounds_do(struct rounds *r, const struct sent *sent, uint32_t count,
                            struct fl_err *e)
{
    struct fl_update *u = fl_new(count + 1, sizeof *u);
    const struct fl_updates updates = {.count = count, .at = u};
    uint32_t slots = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint8_t *packed = fl_new(r->size, 1);
        ck_assert_uint_eq(fl_grid_pack(&r->grid, sent[i].q, r->d, packed), 0);
        u[i] = (struct fl_update){.agent = sent[i].agent,
                                  .weight = sent[i].weight,
                                  .size = r->size,
                                  .read = rounds_read,
                                  .arg = packed};
        ck_assert_int_eq(r->strategy->fold(NULL, r->shared, &u[i], e), 0);
    }
    int status = r->strategy->next_slots(r->shared, NULL, &updates, &slots, e);
    if (status == 0) {
        float *next = fl_new(slots * r->d, sizeof *next),
              *again = fl_new(slots * r->d, sizeof *next);
        uint8_t *state = fl_new(r->state_size, 1), *other = fl_new(r->state_size, 1);
        status = rounds_finish(r, &updates, slots, next, state, e);
        if (status == 0) { /* after a crash */
            ck_assert_int_eq(rounds_finish(r, &updates, slots, again, other, e), 0);
            ck_assert_mem_eq(next, again, slots * r->d * sizeof *next);
            ck_assert_mem_eq(state, other, r->state_size);
            fl_free(r->models);
            r->models = next;
            next = NULL;
            memcpy(r->state, state, r->state_size);
            r->slots = slots;
            r->round++;
            r->strategy->fini(r->shared); /* another process loads what was published */
            memset(r->shared, 0, r->strategy->shared_size);
            ck_assert_int_eq(r->strategy->init(r->shared, r->plan, e), 0);
            ck_assert_int_eq(r->strategy->load(r->shared, r->state, r->state_size, e), 0);
            ck_assert_uint_eq(r->strategy->slots(r->shared), slots);
            r->strategy->save(r->shared, other);
            ck_assert_mem_eq(state, other, r->state_size);
        }
        fl_free(next);
        fl_free(again);
        fl_free(state);
        fl_free(other);
    }
    for (uint32_t i = 0; i < count; i++) {
        fl_free(u[i].arg);
    }
    fl_free(u);
    return status;
}

#endif
