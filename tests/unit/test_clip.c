#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/u128.h"
#include "common/privacy/clip.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <string.h>

static struct fl_rng rng_of(uint64_t number)
{
    struct fl_seed seed;
    struct fl_rng r;

    fl_seed_from_u64(number, &seed);
    fl_rng_init(&r, &seed, 0);
    return r;
}

/* The sum of squares by 32-bit pieces, without the 128-bit sum of the code: (high, low) words of
 * 2^64. */
static void naive_sum(const int64_t *q, size_t count, uint64_t *high, uint64_t *low)
{
    *high = *low = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t m = (uint64_t)llabs(q[i]), a = m >> 32, b = m & 0xffffffff;
        uint64_t parts[3][2] = {{a * a, 0}, {(a * b) >> 31, (a * b) << 33}, {0, b * b}};
        for (int k = 0; k < 3; k++) {
            *low += parts[k][1];
            *high += parts[k][0] + (*low < parts[k][1]);
        }
    }
}

static bool naive_holds(const int64_t *q, size_t count, int64_t bound)
{
    uint64_t high, low, limit_high, limit_low;

    naive_sum(q, count, &high, &low);
    naive_sum(&bound, 1, &limit_high, &limit_low);
    return high < limit_high || (high == limit_high && low <= limit_low);
}

START_TEST(test_bound_is_the_whole_steps_in_the_clip)
{
    struct fl_grid g = {16, -14};
    int64_t bound = 0;
    struct fl_err e;

    ck_assert_int_eq(fl_clip_bound(&g, 1, &bound, &e), 0);
    ck_assert_int_eq(bound, 1 << 14);
    ck_assert_int_eq(fl_clip_bound(&g, 0x1.7ffp-13, &bound, &e), 0);
    ck_assert_int_eq(bound, 2);
    double bad[] = {0x1.fffp-15, 0, -1, NAN, INFINITY, 0x1p27};
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_int_eq(fl_clip_bound(&g, bad[i], &bound, &e), -FL_R_PLAN_PRIVACY);
    }
    ck_assert_int_eq(bound, 2);
    ck_assert_int_eq(fl_clip_bound(&g, 0x1p26, &bound, &e), 0);
}
END_TEST

START_TEST(test_short_vectors_are_only_rounded_and_long_ones_keep_their_direction)
{
    enum { N = 1000 };
    struct fl_grid g = {16, -10};
    struct fl_rng r = rng_of(1);
    static float x[N];
    static int64_t q[N], rounded[N];
    double norm = 0, want = 0;
    struct fl_err e;

    for (int i = 0; i < N; i++) {
        x[i] = (float)fl_rng_normal(&r);
        want += (double)x[i] * (double)x[i];
    }
    want = sqrt(want); /* about 31.6 */
    ck_assert_int_eq(fl_grid_round(&g, x, N, rounded, &e), 0);
    ck_assert_int_eq(fl_clip_to_grid(&g, x, N, 40 << 10, q, &norm, &e), 0);
    ck_assert_double_eq_tol(norm, want, 1e-9);
    ck_assert_mem_eq(q, rounded, sizeof q);
    ck_assert_int_eq(fl_clip_to_grid(&g, x, N, 8 << 10, q, &norm, &e), 0);
    ck_assert_double_eq_tol(norm, want, 1e-9);
    double squares = 0;
    for (int i = 0; i < N; i++) {
        ck_assert_double_le(fabs((double)q[i] - (double)rounded[i] * 8 / want), 1.01);
        squares += (double)(q[i] * q[i]);
    }
    ck_assert(naive_holds(q, N, 8 << 10));
    ck_assert_double_ge(sqrt(squares), (8 << 10) - 40); /* truncation takes at most sqrt(N) steps */
}
END_TEST

/* Vectors made to sit on the edge: equal values, one giant among dust, norms a hair above the
 * bound, powers of two, extremes of float. */
static void adversarial(struct fl_rng *r, uint64_t kind, float *x, size_t count, double bound)
{
    double size = bound * (1 + ldexp(fl_rng_unit(r), -(int)fl_rng_below(r, 24)));

    for (size_t i = 0; i < count; i++) {
        double sign = fl_rng_u64(r) & 1 ? 1 : -1;
        switch (kind) {
        case 0:
            x[i] = (float)(sign * size / sqrt((double)count));
            break;
        case 1:
            x[i] = (float)(sign * (i == count / 2 ? size : 0.5));
            break;
        case 2:
            x[i] = (float)(sign * (floor(size / sqrt((double)count)) + 0.5));
            break;
        case 3:
            x[i] = (float)(sign * ldexp(1, (int)fl_rng_below(r, 40)));
            break;
        case 4:
            x[i] = (float)(sign * ldexp(1 + fl_rng_unit(r), 61 - (int)fl_rng_below(r, 50)) * 0.49);
            break;
        case 5:
            x[i] = (float)(sign * fl_rng_normal(r) * size);
            break;
        default:
            x[i] = (float)(sign * 0x1.fffffep60);
            break;
        }
    }
}

START_TEST(test_no_adversarial_vector_exceeds_the_bound)
{
    enum { N = 257 };
    struct fl_grid g = {16, 0};
    struct fl_rng r = rng_of(2);
    float x[N];
    int64_t q[N];
    uint64_t clipped = 0;
    double norm = 0;
    struct fl_err e;

    for (int i = 0; i < 60000; i++) {
        size_t count = 1 + (size_t)fl_rng_below(&r, i % 50 ? 16 : N);
        int64_t bound = 1 + (int64_t)(fl_rng_u64(&r) >> (24 + fl_rng_below(&r, 40)));
        adversarial(&r, fl_rng_below(&r, 7), x, count, (double)bound);
        ck_assert_msg(fl_clip_to_grid(&g, x, count, bound, q, &norm, &e) == 0, "%s", e.msg);
        ck_assert_msg(naive_holds(q, count, bound), "vector %d exceeds %lld", i, (long long)bound);
        ck_assert(fl_clip_holds(q, count, bound));
        clipped += norm > (double)bound;
    }
    ck_assert_uint_gt(clipped, 20000);
}
END_TEST

START_TEST(test_holds_tells_one_step_apart)
{
    int64_t q[3] = {3, -4, 0}, huge[2] = {INT64_MIN, 1};

    ck_assert(fl_clip_holds(q, 3, 5));
    q[2] = 1;
    ck_assert(!fl_clip_holds(q, 3, 5));
    ck_assert(!fl_clip_holds(huge, 2, (int64_t)1 << 40));
    ck_assert(fl_clip_holds(q, 0, 1));
}
END_TEST

START_TEST(test_not_finite_is_refused)
{
    struct fl_grid g = {16, -10};
    float bad[] = {NAN, INFINITY, -INFINITY, 0x1p60f};
    int64_t q[2];
    double norm = -7;
    struct fl_err e;

    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        float x[2] = {1, bad[i]};
        ck_assert_int_eq(fl_clip_to_grid(&g, x, 2, 100, q, &norm, &e), -FL_R_NOT_FINITE);
        ck_assert_double_eq(norm, -7);
    }
}
END_TEST

START_TEST(test_integer_square_roots)
{
    struct fl_rng r = rng_of(3);

    for (int i = 0; i < 20000; i++) {
        unsigned shift = (unsigned)fl_rng_below(&r, 64);
        uint64_t root = (fl_rng_u64(&r) >> 1) >> shift;
        fl_u128 square = (fl_u128)root * root;
        ck_assert(fl_u128_isqrt(square) == root);
        ck_assert(fl_u128_isqrt(square + root) == root);
        ck_assert(root == 0 || fl_u128_isqrt(square - 1) == root - 1);
    }
    ck_assert(fl_u128_isqrt(~(fl_u128)0) == UINT64_MAX);
    ck_assert_uint_eq(fl_u128_bits(0), 0);
    ck_assert_uint_eq(fl_u128_bits((fl_u128)1 << 100), 101);
}
END_TEST

TESTS_MAIN("clip", test_bound_is_the_whole_steps_in_the_clip,
           test_short_vectors_are_only_rounded_and_long_ones_keep_their_direction,
           test_no_adversarial_vector_exceeds_the_bound, test_holds_tells_one_step_apart,
           test_not_finite_is_refused, test_integer_square_roots)
