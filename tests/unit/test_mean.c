#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/math/grid.h"
#include "server/strategy/serveropt.h"
#include "server/strategy/strategy.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"

#include <math.h>
#include <string.h>

/* A plan, members with updates, and one running sum. */
struct bench {
    const struct fl_strategy *strategy;
    struct fl_plan *plan;
    struct fl_grid grid;
    size_t d, size;
    uint32_t n;
    int64_t *q;      /* n rows of d */
    uint8_t *packed; /* n rows of size */
    uint32_t *weight;
    void *shared, *slot;
    float *base, *next;
    uint8_t *state;
};

static int read_packed(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static void open_bench(struct bench *b, const char *name, uint32_t bits, size_t d, uint32_t n,
                       float momentum)
{
    struct fl_seed seed;
    struct fl_rng rng;
    struct fl_err e = {0};

    *b = (struct bench){.d = d, .n = n, .grid = {.bits = bits, .step = -10}};
    b->strategy = fl_strategy_find(name);
    ck_assert_ptr_nonnull(b->strategy);
    b->plan = fl_new(1, sizeof *b->plan);
    b->plan->grid.bits = bits;
    b->plan->grid.step = -10;
    b->plan->layout.shared.elements = d;
    b->plan->weighting = FL_WEIGHT_EXAMPLES;
    b->plan->max_weight = 1000;
    b->plan->round.members = n;
    b->plan->server.lr = 0.5f;
    b->plan->server.momentum = momentum;
    ck_assert(fl_grid_bytes(&b->grid, d, &b->size));
    b->q = fl_new(n * d, sizeof *b->q);
    b->packed = fl_new(n, b->size);
    b->weight = fl_new(n, sizeof *b->weight);
    b->base = fl_new(d, sizeof *b->base);
    b->next = fl_new(d, sizeof *b->next);
    fl_seed_from_u64(bits + d, &seed);
    fl_rng_init(&rng, &seed, 0);
    uint64_t range = 2 * (uint64_t)fl_grid_max(&b->grid) + 1;
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < d; k++) {
            b->q[i * d + k] = (int64_t)fl_rng_below(&rng, range) - fl_grid_max(&b->grid);
        }
        b->weight[i] = 1 + (uint32_t)fl_rng_below(&rng, 1000);
        ck_assert_uint_eq(fl_grid_pack(&b->grid, b->q + i * d, d, b->packed + i * b->size), 0);
    }
    for (size_t k = 0; k < d; k++) {
        b->base[k] = (float)fl_rng_normal(&rng);
    }
    b->shared = fl_new(1, b->strategy->shared_size);
    ck_assert_msg(b->strategy->init(b->shared, b->plan, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(b->strategy->slots(b->shared), 1);
    ck_assert_int_eq(b->strategy->slot_new(b->shared, &b->slot, &e), 0);
    b->state = fl_new(b->strategy->state_size(b->shared), 1);
}

static void close_bench(struct bench *b)
{
    b->strategy->slot_free(b->slot);
    b->strategy->fini(b->shared);
    fl_free(b->shared);
    fl_free(b->plan);
    fl_free(b->q);
    fl_free(b->packed);
    fl_free(b->weight);
    fl_free(b->base);
    fl_free(b->next);
    fl_free(b->state);
}

static struct fl_update update(const struct bench *b, uint32_t i)
{
    return (struct fl_update){.agent = i + 1,
                              .weight = b->weight[i],
                              .size = b->size,
                              .read = read_packed,
                              .arg = b->packed + i * b->size};
}

static int finish(struct bench *b, struct fl_next *ret, struct fl_err *e)
{
    struct next_memory m = {.base = b->base, .next = b->next, .elements = b->d};

    *ret = next_in_memory(&m, 1, b->state, b->strategy->state_size(b->shared));
    return b->strategy->finish(b->shared, &b->slot, 0, ret, e);
}

static int scan(const struct bench *b, const struct fl_update *u, struct fl_err *e)
{
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];

    ck_assert_uint_eq(fl_plan_exchanges(b->plan, 1, terms), 1);
    return fl_update_scan(&terms[0], u, e);
}

START_TEST(test_mean_agrees_with_its_naive_twin)
{
    static const uint32_t widths[] = {8, 11, 16, 24, 32};

    for (size_t w = 0; w < FL_COUNT(widths); w++) {
        struct bench b;
        struct fl_next next;
        struct fl_err e = {0};
        open_bench(&b, "fedavg", widths[w], 40001, 5, 0.0f); /* more than one tile */
        uint64_t total = 0;
        double norm2 = 0.0;
        for (uint32_t i = 0; i < b.n; i++) {
            struct fl_update u = update(&b, i);
            ck_assert_int_eq(scan(&b, &u, &e), 0);
            ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
            total += b.weight[i];
        }
        ck_assert_int_eq(finish(&b, &next, &e), 0);
        ck_assert_uint_eq(next.members, b.n);
        ck_assert_uint_eq(next.weight, total);
        for (size_t k = 0; k < b.d; k++) {
            long double sum = 0.0L;
            for (uint32_t i = 0; i < b.n; i++) {
                sum += (long double)b.weight[i] * (long double)b.q[i * b.d + k];
            }
            double mean = (double)(sum / 1024.0L / (long double)total);
            double want = (double)b.base[k] + 0.5 * mean;
            ck_assert_double_le(fabs((double)b.next[k] - want), 1e-7 * (1.0 + fabs(want)));
            norm2 += mean * mean;
        }
        ck_assert_double_le(fabs(next.update_norm - sqrt(norm2)), 1e-9 * sqrt(norm2));
        close_bench(&b);
    }
}
END_TEST

START_TEST(test_order_does_not_matter_and_finish_repeats)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};
    float first[5000];
    uint8_t first_state[20000];

    open_bench(&b, "hyperfl", 16, 5000, 7, 0.9f);
    for (uint32_t i = 0; i < b.n; i++) {
        struct fl_update u = update(&b, i);
        ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
    }
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    memcpy(first, b.next, sizeof first);
    memcpy(first_state, b.state, sizeof first_state);
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    ck_assert_mem_eq(first, b.next, sizeof first);

    b.strategy->slot_reset(b.shared, b.slot);
    for (uint32_t i = b.n; i-- > 0;) {
        struct fl_update u = update(&b, (i * 3) % b.n);
        ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
    }
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    ck_assert_mem_eq(first, b.next, sizeof first);
    ck_assert_mem_eq(first_state, b.state, sizeof first_state);
    close_bench(&b);
}
END_TEST

START_TEST(test_momentum_is_state_of_the_checkpoint)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};
    const size_t d = 300;
    double v[300] = {0}, x[300];

    open_bench(&b, "fedavg", 16, d, 2, 0.9f);
    ck_assert_uint_eq(b.strategy->state_size(b.shared), 4 * d);
    for (size_t k = 0; k < d; k++) {
        x[k] = (double)b.base[k];
    }
    for (int round = 0; round < 4; round++) {
        b.strategy->slot_reset(b.shared, b.slot);
        for (uint32_t i = 0; i < b.n; i++) {
            struct fl_update u = update(&b, i);
            ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
        }
        ck_assert_int_eq(finish(&b, &next, &e), 0);
        for (size_t k = 0; k < d; k++) {
            double mean =
                ((double)b.weight[0] * (double)b.q[k] + (double)b.weight[1] * (double)b.q[d + k]) /
                1024.0 / (double)(b.weight[0] + b.weight[1]);
            v[k] = (double)0.9f * v[k] + mean;
            x[k] += 0.5 * v[k];
            ck_assert_double_le(fabs(x[k] - (double)b.next[k]), 1e-5 * (1.0 + fabs(x[k])));
        }
        /* Published: a new process loads what was saved. */
        memcpy(b.base, b.next, d * sizeof *b.base);
        b.strategy->fini(b.shared);
        memset(b.shared, 0, b.strategy->shared_size);
        ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
        ck_assert_int_eq(b.strategy->load(b.shared, b.state, 4 * d, &e), 0);
        uint8_t again[1200];
        b.strategy->save(b.shared, again);
        ck_assert_mem_eq(again, b.state, sizeof again);
    }
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, 4 * d - 4, &e), -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(b.strategy->load(b.shared, NULL, 0, &e), 0); /* momentum is new in the plan */
    memset(b.state, 0xff, 4);                                     /* NaN */
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, 4 * d, &e), -FL_R_STORE_MISMATCH);
    close_bench(&b);
}
END_TEST

/* FedDyn's algorithm 1 by a naive twin that keeps h, not m: two of three sites a round. */
/* A buffer: integers weighed by staleness, over all K of them (Nguyen et al. 2022, algorithm 1). */
START_TEST(test_a_buffers_step)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};
    const uint32_t weight[3] = {1024, 724, 591};

    open_bench(&b, "fedbuff", 16, 300, 3, 0);
    b.strategy->fini(b.shared);
    memset(b.shared, 0, b.strategy->shared_size);
    b.plan->weighting = FL_WEIGHT_EQUAL;
    b.plan->max_weight = FL_BUFFER_FRESH;
    b.plan->setting.buffer = (struct fl_buffer_conf){.size = 3, .staleness = 2};
    ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
    for (uint32_t k = 0; k < 3; k++) {
        uint32_t i = 2 - k; /* in any order */
        b.weight[i] = weight[i];
        const struct fl_update u = update(&b, i);
        ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
    }
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    for (size_t k = 0; k < b.d; k++) {
        double mean = 0;
        for (uint32_t i = 0; i < 3; i++) {
            mean += (double)(b.q[i * b.d + k] * weight[i]) * ldexp(1, -10) / (3 * 1024.0);
        }
        ck_assert_float_eq_tol(b.next[k], (float)((double)b.base[k] + 0.5 * mean), 1e-5f);
    }
    b.weight[0] = 1025;
    const struct fl_update heavy = update(&b, 0);
    ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &heavy, &e), -FL_R_UPDATE_RANGE);
    close_bench(&b);
}
END_TEST

START_TEST(test_feddyns_step)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};
    enum { D = 300 };
    const double alpha = 0.3;
    double h[D] = {0}, x[D];

    open_bench(&b, "feddyn", 16, D, 2, 0);
    b.strategy->fini(b.shared);
    memset(b.shared, 0, b.strategy->shared_size);
    b.plan->server =
        (struct fl_server_opt_conf){.optimizer = FL_SERVER_DYNAMIC, .lr = 1, .momentum = 2.0f / 3};
    ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
    ck_assert_uint_eq(b.strategy->state_size(b.shared), 4 * D);
    fl_free(b.state);
    b.state = fl_new(4, D);
    for (size_t k = 0; k < D; k++) {
        x[k] = (double)b.base[k];
    }
    for (int round = 0; round < 4; round++) {
        b.strategy->slot_reset(b.shared, b.slot);
        double weights = (double)b.weight[0] + (double)b.weight[1];
        for (uint32_t i = 0; i < b.n; i++) {
            struct fl_update u = update(&b, i);
            ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
        }
        ck_assert_int_eq(finish(&b, &next, &e), 0);
        for (size_t k = 0; k < D; k++) {
            double sum =
                ((double)b.weight[0] * (double)b.q[k] + (double)b.weight[1] * (double)b.q[D + k]) /
                1024.0 / weights * 2;
            double mean = x[k] + sum / 2;
            h[k] -= alpha / 3 * sum;
            x[k] = mean - h[k] / alpha;
            ck_assert_double_le(fabs(x[k] - (double)b.next[k]), 1e-5 * (1.0 + fabs(x[k])));
        }
        memcpy(b.base, b.next, D * sizeof *b.base);
        b.strategy->fini(b.shared);
        memset(b.shared, 0, b.strategy->shared_size);
        ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
        ck_assert_int_eq(b.strategy->load(b.shared, b.state, 4 * D, &e), 0);
    }
    close_bench(&b);
}
END_TEST

/* Algorithm 2 of Reddi et al. 2021 by a naive twin in doubles, a new process each round. */
START_TEST(test_two_moments_are_state_of_the_checkpoint)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};
    enum { D = 5000 };
    static double m[D], v[D], x[D];
    uint8_t again[8 * D];

    open_bench(&b, "fedyogi", 16, D, 2, 0.9f);
    b.strategy->fini(b.shared);
    memset(b.shared, 0, b.strategy->shared_size);
    b.plan->server.optimizer = FL_SERVER_YOGI;
    b.plan->server.beta2 = 0.99f;
    b.plan->server.tau = 0.01f;
    ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
    ck_assert_uint_eq(b.strategy->state_size(b.shared), 8 * D);
    fl_free(b.state);
    b.state = fl_new(8, D);
    for (size_t k = 0; k < D; k++) {
        x[k] = (double)b.base[k];
        v[k] = 0.01 * 0.01;
    }
    for (int round = 0; round < 4; round++) {
        b.strategy->slot_reset(b.shared, b.slot);
        for (uint32_t i = 0; i < b.n; i++) {
            struct fl_update u = update(&b, i);
            ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
        }
        ck_assert_int_eq(finish(&b, &next, &e), 0);
        for (size_t k = 0; k < D; k++) {
            double mean =
                ((double)b.weight[0] * (double)b.q[k] + (double)b.weight[1] * (double)b.q[D + k]) /
                1024.0 / (double)(b.weight[0] + b.weight[1]);
            m[k] = 0.9 * m[k] + 0.1 * mean;
            double d = mean * mean - v[k];
            v[k] += 0.01 * mean * mean * ((d > 0) - (d < 0));
            x[k] += 0.5 * m[k] / (sqrt(v[k]) + 0.01);
            ck_assert_double_le(fabs(x[k] - (double)b.next[k]), 1e-4 * (1.0 + fabs(x[k])));
        }
        memcpy(b.base, b.next, D * sizeof *b.base);
        b.strategy->fini(b.shared);
        memset(b.shared, 0, b.strategy->shared_size);
        ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
        ck_assert_int_eq(b.strategy->load(b.shared, b.state, 8 * D, &e), 0);
        b.strategy->save(b.shared, again);
        ck_assert_mem_eq(again, b.state, sizeof again);
    }
    b.strategy->slot_reset(b.shared, b.slot); /* nobody: the moments rest as well */
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    ck_assert_mem_eq(again, b.state, sizeof again);
    ck_assert_mem_eq(b.base, b.next, D * sizeof *b.base);
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, 4 * D, &e), -FL_R_STORE_MISMATCH);
    memset(b.state + 4 * D, 0, 4);
    b.state[4 * D + 3] = 0xbf; /* a negative second moment */
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, 8 * D, &e), -FL_R_STORE_MISMATCH);
    close_bench(&b);
}
END_TEST

static int read_fails(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)arg;
    (void)offset;
    (void)to;
    (void)size;
    return fl_fail(e, FL_R_STORE_IO, "read: Input/output error");
}

START_TEST(test_updates_that_do_not_fit)
{
    struct bench b;
    struct fl_err e = {0};
    struct fl_update u;

    open_bench(&b, "fedrep", 11, 50001, 1, 0.0f);
#define BOTH(reason)                                                                               \
    do {                                                                                           \
        ck_assert_int_eq(scan(&b, &u, &e), -FL_R_##reason);                                        \
        ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), -FL_R_##reason);              \
        b.strategy->slot_reset(b.shared, b.slot);                                                  \
    } while (0)
    u = update(&b, 0);
    u.size--;
    BOTH(UPDATE_LENGTH);
    u = update(&b, 0);
    u.weight = 0;
    BOTH(UPDATE_RANGE);
    u.weight = 1001;
    BOTH(UPDATE_RANGE);
    u = update(&b, 0);
    b.packed[b.size - 1] |= 0x80; /* padding: 50001 * 11 is not whole bytes */
    BOTH(UPDATE_RANGE);
    b.packed[b.size - 1] &= 0x7f;
    uint8_t *middle = b.packed + 8 * 11 * 500; /* value 4000 becomes the forbidden word */
    middle[0] = 0;
    middle[1] = (uint8_t)((middle[1] & ~7) | 4);
    BOTH(UPDATE_RANGE);
    u.read = read_fails;
    BOTH(STORE_IO);
    ck_assert_str_eq(e.msg, "update of agent 1, elements from 0: read: Input/output error");
    close_bench(&b);

    open_bench(&b, "fedavg", 16, 10, 1, 0.0f);
    u = update(&b, 0);
    ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
    ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), -FL_R_LIMIT);
    close_bench(&b);
}
END_TEST

START_TEST(test_nothing_shared_and_nobody_there)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};

    open_bench(&b, "local", 16, 0, 2, 0.9f);
    struct fl_update u = update(&b, 0);
    ck_assert_uint_eq(u.size, 0);
    ck_assert_int_eq(scan(&b, &u, &e), 0);
    ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    ck_assert_uint_eq(next.members, 1);
    close_bench(&b);

    open_bench(&b, "fedavg", 16, 100, 2, 0.9f);
    ck_assert_int_eq(finish(&b, &next, &e), 0);
    ck_assert_mem_eq(b.base, b.next, 100 * sizeof(float));
    ck_assert_uint_eq(next.weight, 0);
    close_bench(&b);
}
END_TEST

START_TEST(test_next_model_is_finite_or_refused)
{
    struct bench b;
    struct fl_next next;
    struct fl_err e = {0};

    open_bench(&b, "fedavg", 16, 5000, 1, 0.0f);
    b.q[4500] = 30000;
    fl_grid_pack(&b.grid, b.q, b.d, b.packed);
    b.base[4500] = 3.4028234e38f;
    b.plan->server.lr = 1e37f;
    ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
    struct fl_update u = update(&b, 0);
    ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &e), 0);
    ck_assert_int_eq(finish(&b, &next, &e), -FL_R_NOT_FINITE);
    close_bench(&b);
}
END_TEST

START_TEST(test_plans_whose_sums_could_overflow)
{
    struct bench b;
    struct fl_err e = {0};

    open_bench(&b, "fedavg", 32, 1, 1, 0.0f);
    b.plan->max_weight = UINT32_MAX;
    ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), -FL_R_PLAN_OVERFLOW);
    b.plan->weighting = FL_WEIGHT_EQUAL; /* every weight is 1 then */
    ck_assert_int_eq(b.strategy->init(b.shared, b.plan, &e), 0);
    close_bench(&b);
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    struct bench b;

    open_bench(&b, "fedavg", 16, 100, 1, 0.9f);
    b.strategy->fini(b.shared);
    for (uint64_t n = 1;; n++) {
        void *slot = NULL;
        struct fl_update u = update(&b, 0);
        fl_mem_fail_at(n);
        int r = b.strategy->init(b.shared, b.plan, NULL);
        if (r == 0) {
            r = b.strategy->slot_new(b.shared, &slot, NULL);
            if (r == 0) {
                r = scan(&b, &u, NULL);
                b.strategy->slot_free(slot);
            }
        }
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        if (!hit) {
            ck_assert_uint_gt(n, 4);
            break;
        }
        b.strategy->fini(b.shared);
    }
    close_bench(&b);
}
END_TEST

START_TEST(test_the_table)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_round_rules rules;
    size_t n = 0;

    plan->rounds = 9;
    plan->seed = 4;
    plan->round = (struct fl_round_conf){.members = 5,
                                         .quorum = 3,
                                         .over_select = 1,
                                         .deadline_ms = 1000,
                                         .fill_ms = 10,
                                         .attempts = 2};
    for (; fl_strategy_at(n); n++) {
        const struct fl_strategy *s = fl_strategy_at(n);
        ck_assert_ptr_eq(fl_strategy_find(s->name), s);
    }
    fl_strategy_rules(plan, 1, &rules);
    ck_assert_int_eq(fl_round_rules_check(&rules, NULL), 0);
    ck_assert_uint_eq(rules.exchange_count, 1);
    ck_assert_uint_eq(rules.exchange[0].quorum, 3);
    plan->counts = (struct fl_counts_conf){.noise_multiplier = 1, .bound = 10, .every = 3};
    for (uint64_t round = 1; round <= 9; round++) {
        fl_strategy_rules(plan, round, &rules);
        ck_assert_int_eq(fl_round_rules_check(&rules, NULL), 0);
        bool due = round == 1 || round == 4 || round == 7;
        ck_assert_uint_eq(rules.exchange_count, due ? 2 : 1);
        ck_assert_str_eq(rules.exchange[0].name, due ? "counts" : "update");
    }
    ck_assert_uint_ge(n, 6);
    ck_assert_ptr_null(fl_strategy_find("fedsgd"));
    fl_free(plan);
}
END_TEST

TESTS_MAIN("mean", test_mean_agrees_with_its_naive_twin,
           test_order_does_not_matter_and_finish_repeats, test_momentum_is_state_of_the_checkpoint,
           test_two_moments_are_state_of_the_checkpoint, test_a_buffers_step, test_feddyns_step,
           test_updates_that_do_not_fit, test_nothing_shared_and_nobody_there,
           test_next_model_is_finite_or_refused, test_plans_whose_sums_could_overflow,
           test_every_allocation_may_fail, test_the_table)
