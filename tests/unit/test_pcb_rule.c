/* `aggregate.rule: pcb`: the merge of common/math/pcb.h over the updates of a slot, as other rules
 * find them: on a grid, clipped, in buckets, late. */
#include "common/base/rng.h"
#include "common/math/pcb.h"
#include "tests/lib/check_main.h"
#include "tests/lib/pool_bench.h"

#include <math.h>

enum { N = 5, D = 300, STEP = -12 };

static struct fl_err err;

static void fill(struct pool_bench *b)
{
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(3, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t i = 0; i < N * D; i++) {
        b->q[i] = llround(400 * (1 + (double)(i / D)) * fl_rng_normal(&rng));
    }
    fl_rng_fini(&rng);
}

static void open_bench(struct pool_bench *b)
{
    pool_bench_open(b, 16, STEP, N, D);
    fill(b);
    b->terms.fresh = 1;
    b->terms.conf = (struct fl_aggregate_conf){
        .on = true, .rule = FL_AGGREGATE_PCB, .keep = 0.2, .scale = 1, .bucket = 2};
}

/* ---- the twin: the same vectors, in doubles ---- */

struct twin {
    uint32_t vectors;
    double value[N][D];
};

static int twin_read(void *arg, size_t first, size_t count, double *to, struct fl_err *e)
{
    const struct twin *t = arg;

    (void)e;
    for (uint32_t i = 0; i < t->vectors; i++) {
        memcpy(to + i * D, t->value[i] + first, count * sizeof *to);
    }
    return 0;
}

/* Updates longer than clip (0: none) are scaled down to it. */
static void twin_of(const struct pool_bench *b, double clip, struct twin *t)
{
    t->vectors = N;
    for (size_t i = 0; i < N; i++) {
        double square = 0;
        for (size_t k = 0; k < D; k++) {
            t->value[i][k] = ldexp((double)b->q[i * D + k], STEP);
            square += t->value[i][k] * t->value[i][k];
        }
        for (size_t k = 0; clip > 0 && sqrt(square) > clip && k < D; k++) {
            t->value[i][k] *= clip / sqrt(square);
        }
    }
}

static void twin_merge(struct twin *t, const double *scale, double *ret)
{
    struct fl_pcb_terms terms = {.vectors = t->vectors,
                                 .elements = D,
                                 .tile = D,
                                 .keep = 0.2,
                                 .outliers = FL_PCB_OUTLIERS,
                                 .read = twin_read,
                                 .arg = t};
    struct fl_pcb *p;

    memcpy(terms.scale, scale, t->vectors * sizeof *scale);
    ck_assert_int_eq(fl_pcb_new(&terms, &p, &err), 0);
    ck_assert_int_eq(fl_pcb_values(p, 0, D, ret, &err), 0);
    fl_pcb_free(p);
}

static void same(const double *got, const double *want)
{
    size_t moved = 0;

    for (size_t k = 0; k < D; k++) {
        ck_assert_double_eq_tol(got[k], want[k], 1e-9);
        moved += got[k] != 0;
    }
    ck_assert(moved > D / 10 && moved < D);
}

START_TEST(test_updates_are_merged)
{
    static const double one[N] = {1, 1, 1, 1, 1}, half[N] = {0.5, 0.5, 0.5, 0.5, 0.5};
    static double got[D], want[D];
    struct pool_bench b;
    struct twin t;

    open_bench(&b);
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), 0);
    twin_of(&b, 0, &t);
    twin_merge(&t, one, want);
    same(got, want);
    b.terms.conf.clip = 4; /* the last ones are longer than that */
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), 0);
    twin_of(&b, 4, &t);
    twin_merge(&t, one, want);
    same(got, want);
    b.terms.conf.scale = 0.5;
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), 0);
    twin_merge(&t, half, want);
    same(got, want);
    pool_bench_close(&b);
}
END_TEST

/* The later, the less an update counts: as its weight says. */
START_TEST(test_late_ones_count_less)
{
    static const uint32_t weights[N] = {1024, 724, 1024, 512, 256};
    static double got[D], want[D], scale[N];
    struct pool_bench b;
    struct twin t;

    open_bench(&b);
    b.terms.fresh = 1024;
    for (size_t i = 0; i < N; i++) {
        b.update[i].weight = weights[i];
        scale[i] = weights[i] / 1024.0;
    }
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), 0);
    twin_of(&b, 0, &t);
    twin_merge(&t, scale, want);
    same(got, want);
    pool_bench_close(&b);
}
END_TEST

/* Who the gates leave out is not merged either. */
START_TEST(test_behind_gates)
{
    static const double one[N] = {1, 1, 1, 1, 1};
    static double got[D], want[D];
    struct pool_bench b;
    struct twin t;

    open_bench(&b);
    for (size_t k = 0; k < D; k++) { /* four alike, and one far away */
        for (size_t i = 0; i < 4; i++) {
            b.q[i * D + k] = b.q[k] + (int64_t)((k * (i + 3)) % 41);
        }
        b.q[4 * D + k] *= 9;
    }
    b.terms.conf.gates = (struct fl_gates_conf){
        .on = true, .distance = 5, .cosine = -1, .decay = 0.9, .quarantine = 0.9};
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), 0);
    twin_of(&b, 0, &t);
    t.vectors = 4;
    twin_merge(&t, one, want);
    double far = 0, all = 0; /* trust is a little below 1 */
    for (size_t k = 0; k < D; k++) {
        far = fmax(far, fabs(got[k] - want[k]));
        all = fmax(all, fabs(want[k]));
    }
    ck_assert_double_lt(far, 0.25 * all);
    pool_bench_close(&b);
}
END_TEST

START_TEST(test_every_allocation_may_fail_and_too_many)
{
    static double got[D];
    struct pool_bench b;

    open_bench(&b);
    b.terms.conf.clip = 4;
    for (uint64_t n = 1;; n++) {
        fl_mem_fail_at(n);
        int status = pool_bench_run(&b, NULL, got, &err);
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(status, hit ? -FL_R_NOMEM : 0);
        if (!hit) {
            ck_assert_uint_gt(n, 10);
            break;
        }
    }
    pool_bench_close(&b);
    pool_bench_open(&b, 16, STEP, FL_PCB_VECTORS_MAX + 1, 64);
    b.terms.fresh = 1;
    b.terms.conf = (struct fl_aggregate_conf){
        .on = true, .rule = FL_AGGREGATE_PCB, .keep = 0.2, .scale = 1, .bucket = 2};
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), -FL_R_LIMIT);
    b.terms.conf.before = FL_AGGREGATE_BUCKETING;
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, &err), 0);
    pool_bench_close(&b);
}
END_TEST

TESTS_MAIN("pcb_rule", test_updates_are_merged, test_late_ones_count_less, test_behind_gates,
           test_every_allocation_may_fail_and_too_many)
