/* Robust rules: against the reference table ($COHORT_REFERENCE, else ../shared/reference beside the
 * source; a part of it is in tests/golden), against naive twins on more than one tile, and around
 * a whole strategy. */
#include "common/base/rng.h"
#include "server/strategy/pool.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"
#include "tests/lib/pool_bench.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the table ---- */

/* Its numbers have six decimals: in millionths they are integers, and every rule here scales. */
#define UNIT 1e6

static const struct {
    const char *name;
    struct fl_aggregate_conf conf;
    double tolerance; /* in the table's unit */
} rules[] = {
    {"average", {.rule = FL_AGGREGATE_MEAN}, 1e-11},
    {"median", {.rule = FL_AGGREGATE_MEDIAN}, 1e-11},
    {"trimmed_mean", {.rule = FL_AGGREGATE_TRIMMED_MEAN}, 1e-11},
    {"geometric_median_byzfl_nu0.1_T3",
     {.rule = FL_AGGREGATE_GEOMETRIC_MEDIAN,
      .iterations = 3,
      .smoothing = 0.1 * UNIT,
      .start = FL_AGGREGATE_START_ZERO},
     1e-8},
    {"geometric_median_converged",
     {.rule = FL_AGGREGATE_GEOMETRIC_MEDIAN, .iterations = 1000, .smoothing = 1e-4},
     1e-6},
    {"krum", {.rule = FL_AGGREGATE_KRUM}, 1e-11},
    {"multi_krum", {.rule = FL_AGGREGATE_MULTI_KRUM}, 1e-11},
    {"centered_clipping_v0_L1_tau1",
     {.rule = FL_AGGREGATE_CENTERED_CLIPPING, .iterations = 1, .radius = UNIT},
     1e-9},
    {"centered_clipping_v0_L3_tau5",
     {.rule = FL_AGGREGATE_CENTERED_CLIPPING, .iterations = 3, .radius = 5 * UNIT},
     1e-8},
    {"nnm_then_trimmed_mean",
     {.rule = FL_AGGREGATE_TRIMMED_MEAN, .before = FL_AGGREGATE_NEAREST},
     1e-9},
    {"nnm_then_krum", {.rule = FL_AGGREGATE_KRUM, .before = FL_AGGREGATE_NEAREST}, 1e-9},
    {"clip2_then_average", {.rule = FL_AGGREGATE_MEAN, .clip = 2 * UNIT}, 1e-9},
};

static json_t *open_table(bool *ret_all)
{
    const char *folder = getenv("COHORT_REFERENCE");
    char path[1024];
    json_error_t why;

    snprintf(path, sizeof path, "%s/robust_aggregation.json",
             folder ? folder : TEST_SOURCE_ROOT "/../shared/reference");
    json_t *table = json_load_file(path, 0, &why);
    *ret_all = table != NULL;
    if (!table) {
        printf("no %s: the part of it in tests/golden only\n", path);
        table = json_load_file(TEST_SOURCE_ROOT "/tests/golden/robust_aggregation.json", 0, &why);
    }
    ck_assert_msg(table != NULL, "%s", why.text);
    return table;
}

static double number(const json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

/* The reference's outliers of a million do not fit the grid: what is decided in doubles alone. */
static void vote_of(const json_t *input, const struct fl_aggregate_conf *conf, double *ret)
{
    uint32_t n = (uint32_t)json_array_size(input);
    size_t d = json_array_size(json_array_get(input, 0));
    struct fl_pool pool;

    ck_assert_int_eq(fl_pool_init(&pool, n, false, NULL), 0);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < n; j++) {
            for (size_t k = 0; k < d; k++) {
                pool.gram[i * n + j] += UNIT * number(json_array_get(input, i), k) * UNIT *
                                        number(json_array_get(input, j), k);
            }
        }
    }
    ck_assert_int_eq(fl_pool_mix(&pool, conf, NULL, NULL, NULL, NULL), 0);
    ck_assert_int_eq(fl_pool_vote(&pool, conf, NULL), 0);
    for (size_t k = 0; k < d; k++) {
        ret[k] = 0;
        for (uint32_t i = 0; i < n; i++) {
            ret[k] += pool.weight[i] * UNIT * number(json_array_get(input, i), k);
        }
    }
    fl_pool_fini(&pool);
}

static void check_case(const json_t *c, size_t r, uint32_t *ret_checked)
{
    const json_t *input = json_object_get(c, "input");
    const json_t *want = json_object_get(json_object_get(c, "output"), rules[r].name);
    const bool huge = strcmp(json_string_value(json_object_get(c, "bad")), "huge") == 0;
    struct fl_aggregate_conf conf = rules[r].conf;
    uint32_t n = (uint32_t)json_array_size(input);
    size_t d = json_array_size(want);
    struct pool_bench b;
    double got[16];

    ck_assert(d > 0 && d <= FL_COUNT(got));
    conf.on = true;
    conf.byzantine = (uint32_t)json_integer_value(json_object_get(c, "f"));
    pool_bench_open(&b, 32, 0, n, d);
    b.terms.conf = conf;
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < d; k++) { /* a million saturates */
            b.q[i * d + k] = llround(UNIT * number(json_array_get(input, i), k));
        }
    }
    for (int by_vote = 0; by_vote < 2; by_vote++) {
        if (by_vote ? !fl_pool_votes(&conf) : huge && (fl_pool_votes(&conf) || conf.before)) {
            continue;
        }
        if (by_vote) {
            vote_of(input, &conf, got);
        } else {
            ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
        }
        for (size_t k = 0; k < d; k++) {
            double off = fabs(got[k] / UNIT - number(want, k));
            ck_assert_msg(off <= rules[r].tolerance * (1 + fabs(number(want, k))),
                          "%s, case of %u, value %zu: %.12g, not %.12g", rules[r].name, n, k,
                          got[k] / UNIT, number(want, k));
        }
        ++*ret_checked;
    }
    pool_bench_close(&b);
}

START_TEST(test_the_reference_table)
{
    bool all;
    json_t *table = open_table(&all);
    const json_t *cases = json_object_get(table, "cases");
    uint32_t checked = 0;

    for (size_t c = 0; c < json_array_size(cases); c++) {
        for (size_t r = 0; r < FL_COUNT(rules); r++) {
            check_case(json_array_get(cases, c), r, &checked);
        }
    }
    ck_assert_uint_ge(checked, all ? 116 : 42);
    json_decref(table);
}
END_TEST

/* ---- twins ---- */

static void fill(struct pool_bench *b, uint64_t number)
{
    struct fl_seed seed;
    struct fl_rng rng;
    uint64_t range = 2 * (uint64_t)fl_grid_max(&b->terms.grid) + 1;

    fl_seed_from_u64(number, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t i = 0; i < b->n * b->terms.elements; i++) {
        b->q[i] = (int64_t)fl_rng_below(&rng, range) - fl_grid_max(&b->terms.grid);
    }
}

static int ascending(const void *x, const void *y)
{
    const int64_t *a = x, *b = y;

    return (*a > *b) - (*a < *b);
}

START_TEST(test_median_and_trimmed_mean_of_every_number_of_members)
{
    enum { D = 9001 };
    static double got[D];
    const double step = ldexp(1, -9);

    for (uint32_t n = 1; n <= 33; n++) {
        struct pool_bench b;
        pool_bench_open(&b, 11, -9, n, D);
        fill(&b, n);
        for (uint32_t f = 0; 2 * f < n; f += 3) {
            b.terms.conf.rule = f ? FL_AGGREGATE_TRIMMED_MEAN : FL_AGGREGATE_MEDIAN;
            b.terms.conf.byzantine = f;
            ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
            for (size_t k = 0; k < D; k++) {
                int64_t column[33], sum = 0;
                for (uint32_t i = 0; i < n; i++) {
                    column[i] = b.q[i * D + k];
                }
                qsort(column, n, sizeof *column, ascending);
                uint32_t cut = f ? f : (n - 1) / 2;
                for (uint32_t i = cut; i < n - cut; i++) {
                    sum += column[i];
                }
                ck_assert(got[k] == (double)sum * step / (double)(n - 2 * cut));
            }
        }
        pool_bench_close(&b);
    }
}
END_TEST

/* Krum over several tiles: scores from distances in 64-bit integers. */
START_TEST(test_krum_over_tiles)
{
    enum { N = 9, D = 10007, F = 2 };
    static double got[D];
    struct pool_bench b;
    uint64_t distance[N][N] = {{0}}, best = UINT64_MAX;
    uint32_t chosen = 0;

    pool_bench_open(&b, 13, -9, N, D);
    fill(&b, 5);
    b.terms.conf.rule = FL_AGGREGATE_KRUM;
    b.terms.conf.byzantine = F;
    memcpy(b.q + 7 * D, b.q + 4 * D, D * sizeof *b.q); /* twins, and so nearest to each other */
    for (size_t i = 0; i < N * N; i++) {
        for (size_t k = 0; k < D; k++) {
            int64_t off = b.q[i / N * D + k] - b.q[i % N * D + k];
            distance[i / N][i % N] += (uint64_t)(off * off);
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        uint64_t score = 0;
        qsort(distance[i], N, sizeof *distance[i], ascending);
        for (uint32_t k = 1; k <= N - F - 1; k++) {
            score += distance[i][k];
        }
        if (score < best) {
            best = score;
            chosen = i;
        }
    }
    ck_assert_uint_eq(chosen, 4); /* of the twins the lower */
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
    for (size_t k = 0; k < D; k++) {
        ck_assert(got[k] == ldexp((double)b.q[chosen * D + k], -9));
    }
    pool_bench_close(&b);
}
END_TEST

/* Centered clipping from a center that is remembered, by the formula and not by inner products. */
START_TEST(test_centered_clipping_begins_at_the_last_aggregate)
{
    enum { N = 6, D = 5000 };
    static double got[D], v[D];
    static float last[D];
    struct pool_bench b;

    pool_bench_open(&b, 16, -12, N, D);
    fill(&b, 6);
    b.terms.conf.rule = FL_AGGREGATE_CENTERED_CLIPPING;
    b.terms.conf.iterations = 3;
    b.terms.conf.radius = 100;
    b.terms.conf.momentum = 0.5;
    for (size_t k = 0; k < D; k++) {
        last[k] = (float)b.q[k] / 5000;
        v[k] = 0.5 * (double)last[k];
    }
    for (int round = 0; round < 3; round++) {
        double off[N] = {0}, move[N], step = ldexp(1, -12);
        for (size_t i = 0; i < N * D; i++) {
            double x = (double)b.q[i] * step - v[i % D];
            off[i / D] += x * x;
        }
        for (size_t i = 0; i < N; i++) {
            move[i] = sqrt(off[i]) > 100 ? 100 / sqrt(off[i]) : 1;
            ck_assert_double_lt(move[i], 1);
        }
        for (size_t k = 0; k < D; k++) {
            double more = 0;
            for (size_t i = 0; i < N; i++) {
                more += move[i] * ((double)b.q[i * D + k] * step - v[k]) / N;
            }
            v[k] += more;
        }
    }
    ck_assert_int_eq(pool_bench_run(&b, last, got, NULL), 0);
    for (size_t k = 0; k < D; k++) {
        ck_assert_double_le(fabs(got[k] - v[k]), 1e-10);
    }
    b.terms.conf.momentum = 0; /* nothing is remembered */
    ck_assert(!fl_robust_remembers(&b.terms));
    pool_bench_close(&b);
}
END_TEST

/* Sites that send nothing stand at zero: an iteration that begins there does not get away from
 * them, and one that begins at the mean does not come back from the huge one. */
START_TEST(test_geometric_median_among_nothing_and_too_much)
{
    struct pool_bench b;
    double got, from_zero;

    pool_bench_open(&b, 32, 0, 11, 1);
    for (uint32_t i = 0; i < 11; i++) {
        b.q[i] = i < 3 ? 0 : i == 3 ? 2000000000 : 1000 + 10 * (int64_t)i;
    }
    b.terms.conf.rule = FL_AGGREGATE_GEOMETRIC_MEDIAN;
    b.terms.conf.iterations = 8;
    b.terms.conf.smoothing = 1e-6;
    ck_assert_int_eq(pool_bench_run(&b, NULL, &got, NULL), 0);
    ck_assert_double_ge(got, 1000);
    ck_assert_double_le(got, 1110);
    b.terms.conf.start = FL_AGGREGATE_START_ZERO;
    ck_assert_int_eq(pool_bench_run(&b, NULL, &from_zero, NULL), 0);
    ck_assert_double_le(from_zero, 1);
    pool_bench_close(&b);
}
END_TEST

/* Every update is in one bucket, each bucket of its size; another round has others. */
START_TEST(test_buckets)
{
    const struct fl_aggregate_conf conf = {
        .on = true, .before = FL_AGGREGATE_BUCKETING, .bucket = 3, .rule = FL_AGGREGATE_MEDIAN};
    struct fl_seed seed;
    double first[5 * 13];

    for (uint64_t round = 0; round < 2; round++) {
        struct fl_pool pool;
        fl_seed_from_u64(round, &seed);
        ck_assert_int_eq(fl_pool_init(&pool, 13, false, NULL), 0);
        ck_assert_int_eq(fl_pool_mix(&pool, &conf, NULL, NULL, &seed, NULL), 0);
        ck_assert_uint_eq(pool.points, 5);
        for (uint32_t i = 0; i < 13; i++) {
            uint32_t in = 0;
            for (uint32_t a = 0; a < 5; a++) {
                double w = pool.mix[a * 13 + i];
                in += w > 0;
                ck_assert(w == 0 || w == (a < 4 ? 1.0 / 3 : 1));
            }
            ck_assert_uint_eq(in, 1);
        }
        if (round == 0) {
            memcpy(first, pool.mix, sizeof first);
        } else {
            ck_assert_mem_ne(first, pool.mix, sizeof first);
        }
        fl_pool_fini(&pool);
    }
}
END_TEST

/* What a rule answers does not depend on who is who, but for ties and buckets. */
START_TEST(test_names_do_not_matter)
{
    enum { N = 11, D = 700 };
    static double got[D], other[D];

    for (size_t r = 0; r < FL_COUNT(rules); r++) {
        struct pool_bench b;
        int64_t row[D];
        pool_bench_open(&b, 12, -11, N, D);
        fill(&b, 3);
        b.terms.conf = rules[r].conf;
        b.terms.conf.byzantine = 3;
        b.terms.conf.clip /= UNIT;
        b.terms.conf.radius /= UNIT;
        b.terms.conf.smoothing /= UNIT;
        ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
        for (size_t i = 0; i < N / 2; i++) {
            memcpy(row, b.q + i * D, sizeof row);
            memcpy(b.q + i * D, b.q + (N - 1 - i) * D, sizeof row);
            memcpy(b.q + (N - 1 - i) * D, row, sizeof row);
        }
        ck_assert_int_eq(pool_bench_run(&b, NULL, other, NULL), 0);
        for (size_t k = 0; k < D; k++) {
            ck_assert_double_le(fabs(got[k] - other[k]), 1e-12);
        }
        pool_bench_close(&b);
    }
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

START_TEST(test_too_few_and_no_memory_and_no_disk)
{
    static double got[100], other[100];
    struct pool_bench b;
    struct fl_err e = {0};

    pool_bench_open(&b, 16, -10, 6, 100);
    fill(&b, 4);
    /* Six can stand one of Krum's bad ones, three buckets one of the median's. */
    b.terms.conf.rule = FL_AGGREGATE_KRUM;
    b.terms.conf.byzantine = 2;
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &e), 0);
    b.terms.conf.byzantine = 1;
    ck_assert_int_eq(pool_bench_run(&b, NULL, other, &e), 0);
    ck_assert_mem_eq(got, other, sizeof got);
    b.terms.conf.rule = FL_AGGREGATE_TRIMMED_MEAN;
    b.terms.conf.before = FL_AGGREGATE_BUCKETING;
    b.round = 7;
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &e), 0);
    b.terms.conf.byzantine = 2;
    b.round = 7;
    ck_assert_int_eq(pool_bench_run(&b, NULL, other, &e), 0);
    ck_assert_mem_eq(got, other, sizeof got);
    for (size_t r = 0; r < FL_COUNT(rules); r++) {
        for (int before = 0; before < 3; before++) {
            b.terms.conf.rule = rules[r].conf.rule;
            b.terms.conf.before = (enum fl_aggregate_before)before;
            b.terms.conf.iterations = 2;
            for (uint64_t n = 1;; n++) {
                fl_mem_fail_at(n);
                int status = pool_bench_run(&b, NULL, got, &e);
                bool hit = fl_mem_fail_hit();
                fl_mem_fail_at(0);
                ck_assert_int_eq(status, hit ? -FL_R_NOMEM : 0);
                if (!hit) {
                    ck_assert_uint_gt(n, 4);
                    break;
                }
            }
        }
    }
    b.terms.conf = (struct fl_aggregate_conf){.on = true};
    b.update[3].read = read_fails;
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &e), -FL_R_STORE_IO);
    ck_assert_str_eq(e.msg, "update of agent 4, elements from 0: read: Input/output error");
    pool_bench_close(&b);
}
END_TEST

/* ---- around a strategy ---- */

struct around {
    struct pool_bench b;
    struct fl_plan *plan;
    const struct fl_strategy *strategy;
    void *shared, *slot;
    float *base, *next;
    uint8_t *state;
    size_t state_size;
};

static void start(struct around *a)
{
    struct fl_err e = {0};

    ck_assert_msg(a->strategy->init(a->shared, a->plan, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(a->strategy->slot_new(a->shared, &a->slot, &e), 0);
    a->state_size = a->strategy->state_size(a->shared);
}

static void stop(struct around *a)
{
    a->strategy->slot_free(a->slot);
    a->strategy->fini(a->shared);
    memset(a->shared, 0, a->strategy->shared_size);
}

/* Members fold in the order i * stride mod n. */
static void finish(struct around *a, uint32_t stride)
{
    struct next_memory m = {a->base, a->next, a->b.terms.elements};
    struct fl_next next = next_in_memory(&m, 1, a->state, a->state_size);

    next.updates = (struct fl_updates){.count = a->b.n, .at = a->b.update};
    next.round = a->b.round - 1; /* pool_bench_run was there before */
    a->strategy->slot_reset(a->shared, a->slot);
    for (uint32_t i = 0; i < a->b.n; i++) {
        ck_assert_int_eq(
            a->strategy->fold(a->slot, a->shared, &a->b.update[i * stride % a->b.n], NULL), 0);
    }
    ck_assert_int_eq(a->strategy->finish(a->shared, &a->slot, 0, &next, NULL), 0);
    ck_assert_uint_eq(next.members, a->b.n);
}

START_TEST(test_a_strategy_with_a_rule_survives_crashes)
{
    enum { N = 7, D = 5000 };
    static double want[D];
    static float x[D], once[D], again[D], last[D];
    static uint8_t state[12 * D + 1024], state_once[sizeof state], before[sizeof state];
    struct around a = {.plan = fl_new(1, sizeof *a.plan), .state = state, .base = x};

    pool_bench_open(&a.b, 16, -12, N, D);
    fill(&a.b, 8);
    for (size_t k = 0; k < D; k++) { /* louder than the others: it fails a gate */
        a.b.q[2 * D + k] = k % 2 ? 32767 : -32767;
    }
    a.strategy = fl_strategy_find("fedrep");
    a.next = once;
    a.shared = fl_new(1, a.strategy->shared_size);
    a.plan->grid.bits = 16;
    a.plan->grid.step = -12;
    a.plan->layout.shared.elements = D;
    a.plan->round.members = N;
    a.plan->server = (struct fl_server_opt_conf){FL_SERVER_ADAM, 0.1f, 0.9f, 0.99f, 0.001f};
    a.plan->aggregate = a.b.terms.conf;
    a.plan->aggregate.rule = FL_AGGREGATE_CENTERED_CLIPPING;
    a.plan->aggregate.iterations = 2;
    a.plan->aggregate.radius = 80;
    a.plan->aggregate.momentum = 1;
    a.plan->aggregate.gates = (struct fl_gates_conf){
        .on = true, .norm = 1.5, .cosine = -1, .decay = 0.9, .quarantine = 0.9};
    a.b.terms = fl_robust_terms_of(a.plan);
    start(&a);
    /* The aggregate, two moments, and room for as many standings as there may be. */
    ck_assert_uint_eq(a.state_size, 12 * D + N * FL_STANDING_SIZE + 4);
    a.strategy->save(a.shared, state);
    for (int round = 0; round < 3; round++) {
        memcpy(before, state, sizeof before);
        /* What is remembered is the first part of the state, and the rule begins there. */
        for (size_t k = 0; k < D; k++) {
            memcpy(&last[k], before + 4 * k, 4);
            ck_assert((last[k] == 0) == (round == 0));
        }
        ck_assert_int_eq(pool_bench_run(&a.b, last, want, NULL), 0);
        a.next = once;
        finish(&a, 1);
        memcpy(state_once, state, sizeof state);
        for (size_t k = 0; k < D; k++) {
            memcpy(&last[k], state + 4 * k, 4);
            ck_assert(last[k] == (float)want[k]);
        }
        /* Killed behind finish: a new process, the same records in another order of arrival. */
        size_t size = a.state_size;
        stop(&a);
        start(&a);
        ck_assert_int_eq(a.strategy->load(a.shared, before, size, NULL), 0);
        a.state_size = a.strategy->state_size(a.shared);
        ck_assert_uint_eq(a.state_size, size);
        a.next = again;
        finish(&a, 3);
        ck_assert_mem_eq(again, once, sizeof once);
        ck_assert_mem_eq(state, state_once, sizeof state);
        struct fl_standings held;
        ck_assert_int_eq(fl_standings_get(state, a.state_size, &held, &size, NULL), 0);
        ck_assert_mem_eq(held.at, a.b.standings.at, N * sizeof *held.at);
        ck_assert(held.at[2].flags & FL_STANDING_OUT);
        fl_standings_fini(&held);
        ck_assert_int_eq(a.strategy->load(a.shared, state, a.state_size, NULL), 0);
        memcpy(x, once, sizeof x);
        /* The next round begins with as many bytes as there are standings now. */
        a.state_size = a.strategy->state_size(a.shared);
        ck_assert_uint_eq(a.state_size, 12 * D + 2 * N * FL_STANDING_SIZE + 4);
        a.strategy->save(a.shared, state);
    }
    ck_assert_int_eq(a.strategy->load(a.shared, state, a.state_size - 1, NULL),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(a.strategy->load(a.shared, state + 4 * D, a.state_size - 4 * D, NULL),
                     -FL_R_STORE_MISMATCH);
    stop(&a);
    fl_free(a.shared);
    fl_free(a.plan);
    pool_bench_close(&a.b);
}
END_TEST

START_TEST(test_a_strategy_says_whether_it_takes_a_rule)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    const struct fl_strategy own = {.name = "own"};
    struct fl_err e = {0};

    ck_assert_int_eq(fl_robust_check(plan, &own, &e), 0);
    plan->aggregate.on = true;
    ck_assert_int_eq(fl_robust_check(plan, &own, &e), -FL_R_PLAN_STRATEGY);
    ck_assert_ptr_nonnull(strstr(e.msg, "strategy own makes the next model"));
    ck_assert_int_eq(fl_robust_check(plan, fl_strategy_find("hyperfl"), &e), 0);
    fl_free(plan);
}
END_TEST

TESTS_MAIN("robust", test_the_reference_table,
           test_median_and_trimmed_mean_of_every_number_of_members, test_krum_over_tiles,
           test_centered_clipping_begins_at_the_last_aggregate,
           test_geometric_median_among_nothing_and_too_much, test_buckets, test_names_do_not_matter,
           test_too_few_and_no_memory_and_no_disk, test_a_strategy_with_a_rule_survives_crashes,
           test_a_strategy_says_whether_it_takes_a_rule)
