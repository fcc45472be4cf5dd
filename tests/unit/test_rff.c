#include "common/base/mem.h"
#include "common/math/rff.h"
#include "tests/lib/check_main.h"

#include <math.h>

enum { WIDTH = 12, POINTS = 80, FREQUENCIES = 2000 };

static void cloud(float *z, size_t count, double shift, uint64_t number)
{
    struct fl_seed seed;
    struct fl_rng r;

    fl_seed_from_u64(number, &seed);
    fl_rng_init(&r, &seed, 0);
    for (size_t i = 0; i < count * WIDTH; i++) {
        z[i] = (float)(fl_rng_normal(&r) + shift);
    }
}

static double by_features(const struct fl_rff *r, double bandwidth, const float *x, const float *y,
                          float *dx)
{
    float *angles = fl_new(POINTS * r->frequencies, sizeof *angles);
    float *target = fl_new(2 * r->frequencies, sizeof *target);
    float *none = fl_new(POINTS * WIDTH, sizeof *none);
    double *sum = fl_new(2 * r->frequencies, sizeof *sum), square;

    fl_rff_add(r, bandwidth, y, POINTS, angles, sum);
    for (size_t j = 0; j < 2 * r->frequencies; j++) {
        target[j] = (float)(sum[j] / POINTS);
        sum[j] = 0;
    }
    fl_rff_add(r, bandwidth, x, POINTS, angles, sum);
    square = fl_rff_pull(r, bandwidth, POINTS, angles, sum, target, 1, dx ? dx : none);
    fl_free(angles);
    fl_free(target);
    fl_free(none);
    fl_free(sum);
    return square;
}

static void features_of(struct fl_rff *r, size_t frequencies)
{
    struct fl_seed seed;
    struct fl_err e = {0};

    fl_seed_from_u64(9, &seed);
    ck_assert_int_eq(fl_rff_init(r, &seed, WIDTH, frequencies, &e), 0);
}

START_TEST(test_equal_clouds_are_nowhere_apart)
{
    float x[POINTS * WIDTH];
    struct fl_rff r;

    features_of(&r, FREQUENCIES);
    cloud(x, POINTS, 0, 1);
    ck_assert_double_lt(fl_mmd(x, POINTS, x, POINTS, WIDTH, 20, 0, NULL), 1e-12);
    ck_assert_double_lt(by_features(&r, 20, x, x, NULL), 1e-12);
    fl_rff_fini(&r);
}
END_TEST

START_TEST(test_the_distance_grows_with_the_shift_and_features_estimate_it)
{
    static const double shifts[] = {0, 0.25, 0.5, 1, 2};
    float x[POINTS * WIDTH], y[POINTS * WIDTH];
    double last_exact = -1, last_features = -1;
    struct fl_rff r;

    features_of(&r, FREQUENCIES);
    cloud(x, POINTS, 0, 1);
    for (size_t i = 0; i < FL_COUNT(shifts); i++) {
        cloud(y, POINTS, shifts[i], 2);
        double bandwidth = fl_mmd_bandwidth(x, POINTS, x, POINTS, WIDTH);
        double exact = fl_mmd(x, POINTS, y, POINTS, WIDTH, bandwidth, 0, NULL);
        double features = by_features(&r, bandwidth, x, y, NULL);
        ck_assert_double_gt(exact, last_exact);
        ck_assert_double_gt(features, last_features);
        /* each kernel value is a mean of FREQUENCIES cosines: 4 standard errors of the worst */
        ck_assert_double_eq_tol(features, exact, 4 * 2 / sqrt(FREQUENCIES));
        ck_assert_double_eq_tol(features, exact, 0.1 * exact + 2e-3);
        last_exact = exact;
        last_features = features;
    }
    fl_rff_fini(&r);
}
END_TEST

/* Two points by hand: x = 0, y = (d, 0, ...): MMD^2 = 2 - 2 k(d^2). */
START_TEST(test_two_points_by_hand)
{
    float x[WIDTH] = {0}, y[WIDTH] = {3};
    double k = 0;

    for (int q = -2; q <= 2; q++) {
        k += exp(-9.0 / (7 * pow(2, q))) / 5;
    }
    ck_assert_double_eq_tol(fl_mmd(x, 1, y, 1, WIDTH, 7, 0, NULL), 2 - 2 * k, 1e-12);
    ck_assert_double_eq_tol(fl_mmd_bandwidth(x, 1, y, 1, WIDTH), 9, 1e-12);
    ck_assert(fl_mmd_bandwidth(x, 1, y, 0, WIDTH) == 0);
}
END_TEST

/* phi and the distance in doubles, by the definition, but without the pairs of a point with itself:
 * the naive twin, less what no point moves. */
static double twin(const struct fl_rff *r, double bandwidth, const double *x, const float *target)
{
    size_t f = r->frequencies;
    double square = 0;

    for (size_t j = 0; j < f; j++) {
        double c = 0, s = 0;
        for (size_t n = 0; n < POINTS; n++) {
            double angle = 0;
            for (size_t i = 0; i < WIDTH; i++) {
                angle += (double)r->omega[j * WIDTH + i] * x[n * WIDTH + i];
            }
            c += cos(angle / sqrt(bandwidth));
            s += sin(angle / sqrt(bandwidth));
        }
        c = c / sqrt((double)f) / POINTS;
        s = s / sqrt((double)f) / POINTS;
        square += (c * c + s * s) * POINTS / (POINTS - 1) - 2 * c * (double)target[j] -
                  2 * s * (double)target[f + j];
    }
    return square;
}

START_TEST(test_gradients_are_those_of_finite_differences)
{
    enum { FEW = 50 };
    const double h = 1e-5, bandwidth = 15;
    float x[POINTS * WIDTH], y[POINTS * WIDTH], angles[POINTS * FEW], target[2 * FEW];
    float dx[POINTS * WIDTH] = {0}, exact[POINTS * WIDTH] = {0};
    double z[POINTS * WIDTH], sum[2 * FEW] = {0};
    struct fl_rff r;

    features_of(&r, FEW);
    cloud(x, POINTS, 0.7, 1);
    cloud(y, POINTS, 0, 2);
    fl_rff_add(&r, bandwidth, y, POINTS, angles, sum);
    for (size_t j = 0; j < 2 * FEW; j++) {
        target[j] = (float)(sum[j] / POINTS);
    }
    (void)by_features(&r, bandwidth, x, y, dx);
    (void)fl_mmd(x, POINTS, y, POINTS, WIDTH, bandwidth, 3, exact);
    for (size_t i = 0; i < POINTS * WIDTH; i++) {
        z[i] = (double)x[i];
    }
    for (size_t i = 0; i < POINTS * WIDTH; i += 37) {
        float kept = x[i];
        z[i] += h;
        double up = twin(&r, bandwidth, z, target);
        z[i] -= 2 * h;
        double down = twin(&r, bandwidth, z, target);
        z[i] += h;
        ck_assert_double_eq_tol((double)dx[i], (up - down) / (2 * h), 1e-6);
        x[i] = kept + 0x1p-10f; /* fl_mmd is in doubles, of float points */
        up = fl_mmd(x, POINTS, y, POINTS, WIDTH, bandwidth, 0, NULL);
        x[i] = kept - 0x1p-10f;
        down = fl_mmd(x, POINTS, y, POINTS, WIDTH, bandwidth, 0, NULL);
        x[i] = kept;
        ck_assert_double_eq_tol((double)exact[i], 3 * (up - down) / 0x1p-9, 2e-7);
    }
    fl_rff_fini(&r);
}
END_TEST

START_TEST(test_features_have_norm_1_and_come_from_the_seed)
{
    float x[POINTS * WIDTH], angles[500];
    double sum[1000], norm;
    struct fl_rff r, again;

    features_of(&r, 500);
    features_of(&again, 500);
    ck_assert_mem_eq(r.omega, again.omega, 500 * WIDTH * sizeof *r.omega);
    cloud(x, POINTS, 0, 4);
    for (size_t n = 0; n < POINTS; n++) {
        memset(sum, 0, sizeof sum);
        fl_rff_add(&r, 3, x + n * WIDTH, 1, angles, sum);
        norm = 0;
        for (size_t j = 0; j < FL_COUNT(sum); j++) {
            norm += sum[j] * sum[j];
        }
        ck_assert_double_eq_tol(norm, 1, 1e-5);
    }
    fl_rff_fini(&r);
    fl_rff_fini(&again);
}
END_TEST

START_TEST(test_directions_and_their_way_back)
{
    float z[3 * WIDTH], u[3 * WIDTH], d[3 * WIDTH], dz[3 * WIDTH] = {0};

    cloud(z, 3, 0.3, 5);
    cloud(d, 3, 0, 6);
    memset(z + WIDTH, 0, WIDTH * sizeof *z); /* the second has no direction */
    fl_rff_unit(z, 3, WIDTH, u);
    fl_rff_unit_back(z, u, d, 3, WIDTH, dz);
    for (size_t i = 0; i < 3 * WIDTH; i++) {
        size_t first = i / WIDTH * WIDTH;
        double value[2] = {0}, h = 1e-6;
        for (int side = 0; side < 2; side++) { /* of the sum of d u */
            double norm = 0;
            for (size_t k = 0; k < WIDTH; k++) {
                double x = (double)z[first + k] + (first + k == i ? (side ? -h : h) : 0);
                norm += x * x;
            }
            for (size_t k = 0; k < WIDTH; k++) {
                double x = (double)z[first + k] + (first + k == i ? (side ? -h : h) : 0);
                value[side] += (double)d[first + k] * x / sqrt(norm);
            }
        }
        double want = first == WIDTH ? 0 : (value[0] - value[1]) / (2 * h);
        ck_assert_double_eq_tol((double)dz[i], want, 1e-5);
    }
    ck_assert(u[WIDTH] == 0);
}
END_TEST

TESTS_MAIN("rff", test_directions_and_their_way_back, test_equal_clouds_are_nowhere_apart,
           test_the_distance_grows_with_the_shift_and_features_estimate_it, test_two_points_by_hand,
           test_gradients_are_those_of_finite_differences,
           test_features_have_norm_1_and_come_from_the_seed)
