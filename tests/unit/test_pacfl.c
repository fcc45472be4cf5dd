/* The strategy pacfl, round after round as the coordinator calls it: who is with whom, whose model
 * each begins with, and every next model against a naive twin. */
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

static const char head[] = "name: p\nstrategy: {pacfl: {most: 4%s}}\nrounds: 9\nseed: 3\n"
                           "model: {input: [4], classes: 2, layers: [{linear: {out: 3}}, {relu: "
                           "{}}, {linear: {out: 2}}]}\n"
                           "train: {lr: 0.1}\nround: {members: 24}\n%s\n";

struct member {
    uint64_t agent;
    int kind; /* of its data; -1: it sends no descriptor */
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

/* ---- members ---- */

static int read_bytes(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

/* Moments of data of this kind: a one, then z * y for 5 z and 2 classes, each off by a little. */
static void describe(struct member *m)
{
    static const double of[4][LENGTH - 1] = {
        {.5, .5, .3, -.3, 0, 0, .1, .1, 0, 0},
        {.5, .5, -.3, .3, 0, 0, .1, .1, 0, 0},
        {.5, .5, 0, 0, .3, -.3, .1, .1, 0, 0}, /* the values of the first, at other features */
        {.5, .5, .1, .1, 0, 0, .3, -.3, .8, .8},
    };
    const struct fl_grid g = fl_descriptor_grid(plan);
    int64_t q[LENGTH];
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(m->agent, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int i = 0; i < LENGTH; i++) {
        double v = i ? of[m->kind][i - 1] + spread * fl_rng_normal(&rng) : 1;
        q[i] = (int64_t)rint(ldexp(v / fl_descriptor_norm(plan), -g.step));
    }
    ck_assert_uint_eq(fl_grid_pack(&g, q, LENGTH, m->descriptor), 0);
}

static void make_update(struct member *m, uint64_t round)
{
    const struct fl_grid g = {plan->grid.bits, plan->grid.step};

    for (uint64_t i = 0; i < VALUES; i++) {
        m->q[i] = (int64_t)((m->agent * 31 + round * 7 + i * 13) % 301) - 150;
    }
    fl_grid_pack(&g, m->q, VALUES, m->update);
}

/* ---- the coordinator's calls ---- */

static void open_job(struct job *j, const char *setting, const char *more)
{
    char text[1024];

    memset(j, 0, sizeof *j);
    plan = plan ? plan : fl_new(1, sizeof *plan);
    snprintf(text, sizeof text, head, setting, more);
    ck_assert_msg(fl_plan_parse(plan, "job", text, strlen(text), &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(plan->layout.shared.elements, VALUES);
    ck_assert_uint_eq(fl_descriptor_elements(plan), LENGTH);
    j->strategy = fl_strategy_find("pacfl");
    j->shared = fl_new(1, j->strategy->shared_size);
    ck_assert_int_eq(j->strategy->init(j->shared, plan, &err), 0);
    j->slots = j->strategy->slots(j->shared);
    ck_assert_uint_eq(j->slots, 1);
    j->state_size = j->strategy->state_size(j->shared);
    j->state = fl_new(j->state_size, 1);
    j->strategy->save(j->shared, j->state);
    for (int i = 0; i < VALUES; i++) {
        j->model[0][i] = j->twin[0][i] = (float)i / 8;
    }
}

static void close_job(struct job *j)
{
    j->strategy->fini(j->shared);
    fl_free(j->shared);
    fl_free(j->state);
}

static void add_members(struct job *j, int kind, uint32_t count)
{
    while (count-- > 0) {
        j->member[j->members] = (struct member){.agent = 10 * (j->members + 1), .kind = kind};
        j->members++;
    }
}

static uint32_t place(const struct job *j, uint64_t agent)
{
    uint32_t slot;

    ck_assert_int_eq(j->strategy->place(j->shared, &agent, 1, &slot, &err), 0);
    return slot;
}

/* The round's beginning: state, descriptors when they are due. What a restart would do again. */
static int begin_round(struct job *j)
{
    struct fl_update u[AGENTS];
    uint32_t n = 0;
    int r = j->strategy->load(j->shared, j->state, j->state_size, &err);

    for (uint32_t i = 0; i < j->members; i++) {
        struct member *m = &j->member[i];
        if (m->kind >= 0) {
            describe(m);
            u[n++] = (struct fl_update){.agent = m->agent,
                                        .weight = 1,
                                        .size = sizeof m->descriptor,
                                        .read = read_bytes,
                                        .arg = m->descriptor};
        }
    }
    if (r == 0 && fl_descriptor_due(&plan->descriptor, j->round)) {
        const struct fl_updates updates = {n, u};
        r = j->strategy->between(j->shared, NULL, 0, &updates, &err);
    }
    return r;
}

static int end_round(struct job *j)
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
    const struct fl_updates updates = {j->members, u};
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
    ck_assert_uint_eq(n.members, j->members);
    fl_free(j->state);
    j->state = state;
    j->state_size = size;
    j->slots = slots;
    memcpy(j->model, next, sizeof next);
    return 0;
}

/* Every bubble's mean on its base; `of`: the bubble of each member, `base`: of each bubble. */
static void twin_round(struct job *j, const uint32_t *of, const uint32_t *base, uint32_t bubbles)
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

static void full_round(struct job *j)
{
    j->round++;
    ck_assert_msg(begin_round(j) == 0, "%s", err.msg);
    ck_assert_msg(end_round(j) == 0, "%s", err.msg);
}

static void same_as_twin(const struct job *j)
{
    for (uint32_t b = 0; b < j->slots; b++) {
        ck_assert_mem_eq(j->model[b], j->twin[b], sizeof j->twin[b]);
    }
}

/* After a round: what the next state says. */
static void reload(struct job *j)
{
    ck_assert_int_eq(j->strategy->load(j->shared, j->state, j->state_size, &err), 0);
    ck_assert_uint_eq(j->strategy->slots(j->shared), j->slots);
}

/* ---- */

START_TEST(test_bubbles_are_federations_of_their_own)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 0, 1, 1, 1, 2, 2}, one[] = {0, 0, 0}, own[] = {0, 1, 2};

    open_job(&j, "", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 3);
    add_members(&j, 2, 2); /* permuted importances: not with the first */
    full_round(&j);
    ck_assert_uint_eq(j.slots, 3);
    twin_round(&j, of, one, 3);
    same_as_twin(&j);
    for (int round = 2; round <= 3; round++) {
        full_round(&j);
        for (uint32_t i = 0; i < j.members; i++) {
            ck_assert_uint_eq(place(&j, j.member[i].agent), of[i]);
        }
        twin_round(&j, of, own, 3);
        same_as_twin(&j);
    }
    ck_assert_uint_eq(place(&j, 77777), 0); /* unknown: the largest */
    close_job(&j);
}
END_TEST

/* One crowd, one agent, all exactly alike: one bubble, which is the plain mean. */
START_TEST(test_one_bubble_is_the_mean)
{
    static const uint32_t zero[AGENTS] = {0};

    for (int c = 0; c < 3; c++) {
        struct job j;
        open_job(&j, "", "");
        spread = c == 2 ? 0 : 0.02; /* exactly alike */
        add_members(&j, 0, c == 0 ? AGENTS : c == 1 ? 1 : 4);
        full_round(&j);
        ck_assert_uint_eq(j.slots, 1);
        twin_round(&j, zero, zero, 1);
        same_as_twin(&j);
        close_job(&j);
    }
    spread = 0.02;
}
END_TEST

START_TEST(test_a_loner_is_served)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 0, 1, 1, 1, 1, 9}, one[] = {0, 0};
    uint32_t with[9];

    open_job(&j, "", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    add_members(&j, 3, 1);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 2);
    reload(&j);
    memcpy(with, of, sizeof with);
    with[8] = place(&j, j.member[8].agent); /* its parent: one of the two, and it counts there */
    ck_assert_uint_lt(with[8], 2);
    twin_round(&j, with, one, 2);
    same_as_twin(&j);
    close_job(&j);
}
END_TEST

/* A newcomer without a descriptor is in the largest bubble, and in its own when it was described.
 */
START_TEST(test_newcomers)
{
    struct job j;

    open_job(&j, "", "descriptor: {every: 2}");
    add_members(&j, 0, 5);
    add_members(&j, 1, 3);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 2);
    add_members(&j, 1, 1);
    full_round(&j); /* 2: not asked */
    ck_assert_uint_eq(place(&j, j.member[8].agent), place(&j, j.member[0].agent));
    full_round(&j); /* 3 */
    ck_assert_uint_eq(place(&j, j.member[8].agent), place(&j, j.member[5].agent));
    ck_assert_uint_ne(place(&j, j.member[8].agent), place(&j, j.member[0].agent));
    /* Who is away when it is asked again stays by its last descriptor. */
    uint64_t away = j.member[0].agent;
    memmove(j.member, j.member + 1, (--j.members) * sizeof *j.member);
    full_round(&j);
    full_round(&j); /* 5 */
    ck_assert_uint_eq(place(&j, away), place(&j, j.member[0].agent));
    close_job(&j);
}
END_TEST

/* Sites that come apart later begin with the model that they had together. */
START_TEST(test_a_bubble_parts)
{
    struct job j;
    static const uint32_t all[8] = {0}, two[] = {0, 0, 0, 0, 1, 1, 1, 1}, from[] = {0, 0};

    open_job(&j, "", "descriptor: {every: 2}");
    add_members(&j, 0, 8);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 1);
    twin_round(&j, all, all, 1);
    full_round(&j);
    twin_round(&j, all, all, 1);
    for (int i = 4; i < 8; i++) {
        j.member[i].kind = 1;
    }
    j.round++;
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_uint_eq(place(&j, j.member[0].agent), 0); /* both from the only model there is */
    ck_assert_uint_eq(place(&j, j.member[7].agent), 0);
    ck_assert_int_eq(end_round(&j), 0);
    ck_assert_uint_eq(j.slots, 2);
    twin_round(&j, two, from, 2);
    same_as_twin(&j);
    reload(&j);
    ck_assert_uint_eq(place(&j, j.member[7].agent), 1);
    close_job(&j);
}
END_TEST

/* Body by all, heads by bubble. */
START_TEST(test_common_body)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 1, 1, 1, 1}, one[2] = {0}, own[] = {0, 1}, all[7] = {0};
    size_t split = 4 * 3 + 3;

    open_job(&j, ", body: shared", "");
    add_members(&j, 0, 3);
    add_members(&j, 1, 4);
    for (int round = 1; round <= 2; round++) {
        float before[VALUES], body[VALUES];
        full_round(&j);
        ck_assert_uint_eq(j.slots, 2);
        memcpy(before, j.twin[0], sizeof before);
        struct job k = j;
        twin_round(&k, all, one, 1);
        memcpy(body, k.twin[0], sizeof body);
        twin_round(&j, of, round == 1 ? one : own, 2);
        for (uint32_t b = 0; b < 2; b++) {
            memcpy(j.twin[b], body, split * sizeof(float));
        }
        same_as_twin(&j);
        ck_assert(memcmp(j.model[0] + split, j.model[1] + split, sizeof(float)) != 0);
    }
    close_job(&j);
}
END_TEST

/* Two near kinds and a far one; the small near bubble got too few updates: it learns with its
 * neighbour, and neither with the far one. */
START_TEST(test_below_its_quorum_it_learns_with_its_parent)
{
    struct job j;
    float own[VALUES];

    open_job(&j, ", quorum: 3", "");
    add_members(&j, 0, 5);
    add_members(&j, 3, 4);
    add_members(&j, 1, 3);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 3);
    j.members -= 1; /* bubble 2 now gets 2 */
    for (uint32_t b = 0; b < 3; b++) {
        memcpy(j.twin[b], j.model[b], sizeof j.twin[b]);
    }
    full_round(&j);
    static const uint32_t apart[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2}, base[] = {0, 1, 2};
    static const uint32_t near[] = {2, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2};
    struct job k = j;
    twin_round(&k, near, base, 3);
    memcpy(own, k.twin[2], sizeof own);
    twin_round(&j, apart, base, 3);
    memcpy(j.twin[2], own, sizeof own);
    same_as_twin(&j);
    close_job(&j);
}
END_TEST

/* Each bubble's server optimizer goes its own way. */
START_TEST(test_momentum_by_bubble)
{
    struct job j;
    double v[2][VALUES] = {{0}};
    float x[2][VALUES];

    open_job(&j, "", "server: {momentum: 0.5}");
    add_members(&j, 0, 3);
    add_members(&j, 1, 4);
    memcpy(x[0], j.model[0], sizeof x[0]);
    memcpy(x[1], j.model[0], sizeof x[1]);
    for (int round = 1; round <= 3; round++) {
        full_round(&j);
        for (uint32_t b = 0; b < 2; b++) {
            for (int i = 0; i < VALUES; i++) {
                int64_t sum = 0;
                for (uint32_t m = b ? 3 : 0; m < (b ? 7u : 3u); m++) {
                    sum += j.member[m].q[i];
                }
                v[b][i] = (double)(float)(0.5 * v[b][i] +
                                          ldexp((double)sum, plan->grid.step) / (b ? 4 : 3));
                x[b][i] = (float)((double)x[b][i] + v[b][i]);
                ck_assert_float_eq_tol(j.model[b][i], x[b][i], 1e-6f);
            }
        }
    }
    close_job(&j);
}
END_TEST

/* Repeated calls, as after a failure or a crash, make the same bytes. */
START_TEST(test_again_is_the_same)
{
    struct job j, k;
    uint8_t *state;
    size_t size;

    open_job(&j, "", "descriptor: {every: 1}");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    full_round(&j);
    state = fl_new(j.state_size, 1);
    size = j.state_size;
    memcpy(state, j.state, size);
    j.round++;
    k = j;
    ck_assert_int_eq(begin_round(&j), 0);
    struct fl_update u = {.agent = j.member[0].agent,
                          .size = sizeof j.member[0].descriptor,
                          .read = read_bytes,
                          .arg = j.member[4].descriptor};
    const struct fl_updates odd = {1, &u}; /* an attempt with other records, then the true ones */
    ck_assert_int_eq(j.strategy->between(j.shared, NULL, 0, &odd, &err), 0);
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_int_eq(end_round(&j), 0);
    uint8_t *first = fl_new(j.state_size, 1);
    memcpy(first, j.state, j.state_size);
    fl_free(j.state);
    j.state = state;
    j.state_size = size;
    j.slots = k.slots;
    memcpy(j.model, k.model, sizeof j.model);
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_int_eq(end_round(&j), 0);
    ck_assert_mem_eq(first, j.state, j.state_size);
    fl_free(first);
    close_job(&j);
}
END_TEST

START_TEST(test_bad_input)
{
    struct job j;
    struct fl_update u;
    const struct fl_updates updates = {1, &u};

    open_job(&j, "", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    full_round(&j);
    describe(&j.member[0]);
    u = (struct fl_update){.agent = 10,
                           .size = sizeof j.member[0].descriptor - 4,
                           .read = read_bytes,
                           .arg = j.member[0].descriptor};
    ck_assert_int_eq(j.strategy->between(j.shared, NULL, 0, &updates, &err), -FL_R_UPDATE_LENGTH);
    u.size += 4;
    memset(j.member[0].descriptor, 0, 4);
    j.member[0].descriptor[3] = 0x80; /* the word that is never used */
    ck_assert_int_eq(j.strategy->between(j.shared, NULL, 0, &updates, &err), -FL_R_UPDATE_RANGE);
    for (size_t size = 1; size < j.state_size; size++) {
        int r = j.strategy->load(j.shared, j.state, size, &err);
        ck_assert_msg(r == -FL_R_STORE_MISMATCH, "%zu bytes: %d", size, r);
    }
    for (size_t at = 0; at < j.state_size;
         at++) { /* any byte: refused, or a state that can be used */
        uint8_t was = j.state[at];
        j.state[at] ^= 0xff;
        if (j.strategy->load(j.shared, j.state, j.state_size, &err) == 0) {
            ck_assert_uint_lt(place(&j, 10), j.strategy->slots(j.shared));
        }
        j.state[at] = was;
    }
    close_job(&j);
}
END_TEST

START_TEST(test_memory_that_ends)
{
    struct job j;
    bool hit = true;

    open_job(&j, "", "descriptor: {every: 1}");
    add_members(&j, 0, 3);
    add_members(&j, 1, 3);
    full_round(&j);
    j.round++;
    for (uint64_t n = 1; hit; n++) {
        fl_mem_fail_at(n);
        int r = begin_round(&j);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
    }
    ck_assert_int_eq(end_round(&j), 0);
    ck_assert_uint_eq(j.slots, 2);
    close_job(&j);
}
END_TEST

TESTS_MAIN("pacfl", test_bubbles_are_federations_of_their_own, test_one_bubble_is_the_mean,
           test_a_loner_is_served, test_newcomers, test_a_bubble_parts, test_common_body,
           test_below_its_quorum_it_learns_with_its_parent, test_momentum_by_bubble,
           test_again_is_the_same, test_bad_input, test_memory_that_ends)
