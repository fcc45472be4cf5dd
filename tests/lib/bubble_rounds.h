/*
 * Strategies with bubbles, round after round as the coordinator calls them, in memory; and a naive
 * twin of what each bubble's model must be.
 */
#ifndef TESTS_LIB_BUBBLE_ROUNDS_H
#define TESTS_LIB_BUBBLE_ROUNDS_H

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/descriptor.h"
#include "server/strategy/strategy.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { AGENTS = 24, LENGTH = 11, VALUES = 4 * 3 + 3 + 3 * 2 + 2, SLOTS = 8 };

static struct fl_err err;
static struct fl_plan *plan;
static double spread = 0.02;
static int64_t (*update_of)(uint64_t agent, int kind, uint64_t round, uint64_t i); /* NULL: any */

static const char job_head[] =
    "name: p\nstrategy: {%s: {%s}}\nrounds: 9\nseed: 3\n"
    "model: {input: [4], classes: 2, layers: [{linear: {out: 3}}, {relu: "
    "{}}, {linear: {out: 2}}]}\n"
    "train: {lr: 0.1}\nround: {members: 24}\n%s\n";

struct member {
    uint64_t agent;
    int kind; /* of its data, or the model it chooses; -1: it sends neither */
    uint8_t descriptor[4 * LENGTH], update[2 * VALUES];
    int64_t q[VALUES];
};

struct job {
    const struct fl_strategy *strategy;
    void *shared;
    uint64_t round;
    uint32_t slots;
    float model[SLOTS][VALUES], twin[SLOTS][VALUES];
    uint8_t *state;
    size_t state_size;
    struct member member[AGENTS];
    uint32_t members;
};

/* What becomes of the members' updates on their way to finish; NULL: nothing. */
static void (*through)(struct job *j, struct fl_updates *io);

/* ---- members ---- */

static inline int read_bytes(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

/* Moments of data of this kind: a one, then z * y for 5 z and 2 classes, each off by a little. */
static inline void describe(struct member *m)
{
    static const double of[4][LENGTH - 1] = {
        {.5, .5, .3, -.3, 0, 0, .1, .1, 0, 0},
        {.5, .5, -.3, .3, 0, 0, .1, .1, 0, 0},
        {.5, .5, 0, 0, .3, -.3, .1, .1, 0, 0}, /* the values of the first, at other features */
        {.5, .5, .1, .1, 0, 0, .3, -.3, .8, .8},
    };
    static const double importances[4][4] = {
        {.8, .1, .05, .05}, {.1, .1, .2, .6}, {.05, .05, .1, .8}, {.3, .3, .2, .2}};
    const struct fl_grid g = fl_descriptor_grid(plan);
    bool published = plan->setting.bubble.variant == FL_BUBBLE_PUBLISHED;
    size_t length = fl_descriptor_elements(plan);
    int64_t q[LENGTH];
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(m->agent, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t i = 0; i < length; i++) {
        double v = published ? importances[m->kind][i]
                   : i       ? of[m->kind][i - 1] + spread * fl_rng_normal(&rng)
                             : 1;
        double norm = published ? 1 : fl_descriptor_norm(plan);
        q[i] = (int64_t)rint(ldexp(v / norm, -g.step));
    }
    ck_assert_uint_eq(fl_grid_pack(&g, q, length, m->descriptor), 0);
}

static inline void make_update(struct member *m, uint64_t round)
{
    const struct fl_grid g = {plan->grid.bits, plan->grid.step};

    for (uint64_t i = 0; i < VALUES; i++) {
        m->q[i] = update_of ? update_of(m->agent, m->kind, round, i)
                            : (int64_t)((m->agent * 31 + round * 7 + i * 13) % 301) - 150;
    }
    fl_grid_pack(&g, m->q, VALUES, m->update);
}

/* ---- the coordinator's calls ---- */

static inline void open_job(struct job *j, const char *strategy, const char *setting,
                            const char *more)
{
    char text[1024];

    memset(j, 0, sizeof *j);
    plan = plan ? plan : fl_new(1, sizeof *plan);
    snprintf(text, sizeof text, job_head, strategy, setting, more);
    ck_assert_msg(fl_plan_parse(plan, "job", text, strlen(text), &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(plan->layout.shared.elements, VALUES);
    ck_assert_uint_eq(fl_descriptor_elements(plan),
                      plan->setting.bubble.variant == FL_BUBBLE_PUBLISHED ? 4 : LENGTH);
    j->strategy = fl_strategy_find(strategy);
    j->shared = fl_new(1, j->strategy->shared_size);
    ck_assert_int_eq(j->strategy->init(j->shared, plan, &err), 0);
    j->slots = j->strategy->slots(j->shared);
    j->state_size = j->strategy->state_size(j->shared);
    j->state = fl_new(j->state_size, 1);
    j->strategy->save(j->shared, j->state);
    for (uint32_t b = 0; b < SLOTS; b++) {
        for (int i = 0; i < VALUES; i++) {
            j->model[b][i] = j->twin[b][i] = (float)i / 8 + (float)b;
        }
    }
}

static inline void close_job(struct job *j)
{
    j->strategy->fini(j->shared);
    fl_free(j->shared);
    fl_free(j->state);
}

static inline void add_members(struct job *j, int kind, uint32_t count)
{
    while (count-- > 0) {
        j->member[j->members] = (struct member){.agent = 10 * (j->members + 1), .kind = kind};
        j->members++;
    }
}

static inline uint32_t place(const struct job *j, uint64_t agent)
{
    uint32_t slot;

    ck_assert_int_eq(j->strategy->place(j->shared, &agent, 1, &slot, &err), 0);
    return slot;
}

/* The round's beginning: state, descriptors when they are due. What a restart would do again. */
static inline int begin_round(struct job *j)
{
    struct fl_update u[AGENTS];
    uint32_t n = 0;
    int r = j->strategy->load(j->shared, j->state, j->state_size, &err);

    enum fl_bubble_by by = plan->setting.bubble.by;
    bool choice = by == FL_BUBBLE_CHOICE;

    for (uint32_t i = 0; i < j->members; i++) {
        struct member *m = &j->member[i];
        if (m->kind < 0) {
            continue;
        }
        if (choice) {
            m->descriptor[0] = (uint8_t)m->kind;
        } else {
            describe(m);
        }
        u[n++] = (struct fl_update){.agent = m->agent,
                                    .weight = 1,
                                    .size = choice ? 1 : 4 * fl_descriptor_elements(plan),
                                    .read = read_bytes,
                                    .arg = m->descriptor};
    }
    if (r == 0 && (choice || fl_descriptor_due(&plan->descriptor, j->round))) {
        const struct fl_updates updates = {n, u};
        r = j->strategy->between(j->shared, NULL, 0, &updates, &err);
    }
    return r;
}

static inline int end_round(struct job *j)
{
    struct fl_update u[AGENTS];
    uint32_t slots = 0;
    float next[SLOTS][VALUES];
    struct next_memory memory = {j->model[0], next[0], VALUES};

    for (uint32_t i = 0; i < j->members; i++) {
        struct member *m = &j->member[i];
        make_update(m, j->round);
        u[i] = (struct fl_update){.agent = m->agent,
                                  .exchange = 1,
                                  .weight = 1,
                                  .size = sizeof m->update,
                                  .read = read_bytes,
                                  .arg = m->update};
    }
    struct fl_updates updates = {j->members, u};
    if (through) {
        through(j, &updates);
    }
    ck_assert_int_eq(j->strategy->next_slots(j->shared, NULL, &updates, &slots, &err), 0);
    size_t size = j->strategy->state_size(j->shared);
    uint8_t *state = fl_new(size, 1);
    struct fl_next n = next_in_memory(&memory, slots, state, size);
    n.base_count = j->slots;
    n.updates = updates;
    n.round = j->round;
    int r = j->strategy->finish(j->shared, NULL, 1, &n, &err);
    if (r) {
        fl_free(state);
        return r;
    }
    ck_assert_uint_eq(n.members, updates.count);
    fl_free(j->state);
    j->state = state;
    j->state_size = size;
    j->slots = slots;
    memcpy(j->model, next, sizeof next);
    return 0;
}

/* Every bubble's mean on its base; `of`: the bubble of each member, `base`: of each bubble. */
static inline void twin_round(struct job *j, const uint32_t *of, const uint32_t *base,
                              uint32_t bubbles)
{
    float next[SLOTS][VALUES];

    for (uint32_t b = 0; b < bubbles; b++) {
        for (int i = 0; i < VALUES; i++) {
            int64_t sum = 0, n = 0;
            for (uint32_t m = 0; m < j->members; m++) {
                sum += of[m] == b ? j->member[m].q[i] : 0;
                n += of[m] == b;
            }
            next[b][i] = (float)((double)j->twin[base[b]][i] +
                                 (n ? ldexp((double)sum, plan->grid.step) / (double)n : 0));
        }
    }
    memcpy(j->twin, next, sizeof next);
}

static inline void full_round(struct job *j)
{
    j->round++;
    ck_assert_msg(begin_round(j) == 0, "%s", err.msg);
    ck_assert_msg(end_round(j) == 0, "%s", err.msg);
}

static inline void same_as_twin(const struct job *j)
{
    for (uint32_t b = 0; b < j->slots; b++) {
        ck_assert_mem_eq(j->model[b], j->twin[b], sizeof j->twin[b]);
    }
}

/* After a round: what the next state says. */
static inline void reload(struct job *j)
{
    ck_assert_int_eq(j->strategy->load(j->shared, j->state, j->state_size, &err), 0);
    ck_assert_uint_eq(j->strategy->slots(j->shared), j->slots);
}

#endif
