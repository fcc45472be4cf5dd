#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/math/blas.h"
#include "common/math/pick.h"
#include "common/math/vec.h"
#include "tests/lib/check_main.h"

#include <math.h>

static void fill(float *x, size_t count, uint64_t seed)
{
    struct fl_seed s;
    struct fl_rng r;

    fl_seed_from_u64(seed, &s);
    fl_rng_init(&r, &s, 0);
    for (size_t i = 0; i < count; i++) {
        x[i] = (float)fl_rng_normal(&r);
    }
}

START_TEST(test_loops_agree_with_their_naive_twins)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4095, 4096, 4097, 9000};
    float *x = fl_new(9000, sizeof *x), *y = fl_new(9000, sizeof *y), *z = fl_new(9000, sizeof *z);

    for (size_t k = 0; k < FL_COUNT(sizes); k++) {
        size_t n = sizes[k];
        double dot = 0, norm = 0;
        fill(x, n, 1);
        fill(y, n, 2);
        for (size_t i = 0; i < n; i++) {
            dot += (double)x[i] * (double)y[i];
            norm += (double)x[i] * (double)x[i];
        }
        ck_assert_double_eq_tol(fl_vec_dot(x, y, n), dot, 1e-3);
        ck_assert_double_eq_tol(fl_vec_norm_squared(x, n), norm, 1e-12 * (norm + 1));
        fl_vec_scale(0.5f, x, z, n);
        fl_vec_axpy(2, y, z, n);
        for (size_t i = 0; i < n; i++) {
            ck_assert(z[i] == 0.5f * x[i] + 2 * y[i]);
        }
        fl_vec_add(x, y, z, n);
        for (size_t i = 0; i < n; i++) {
            ck_assert(z[i] == x[i] + y[i]);
        }
        fl_vec_sub(z, z, z, n);
        ck_assert(fl_vec_norm_squared(z, n) == 0);
    }
    fl_free(x);
    fl_free(y);
    fl_free(z);
}
END_TEST

START_TEST(test_picking_agrees_with_its_plain_twin)
{
    enum { N = 512 };
    uint32_t flag[N], a[N + FL_PICK_SLACK], b[N + FL_PICK_SLACK];
    int64_t x[N], c[N + FL_PICK_SLACK], d[N + FL_PICK_SLACK];
    struct fl_seed s;
    struct fl_rng r;

    fl_seed_from_u64(4, &s);
    fl_rng_init(&r, &s, 0);
    for (uint32_t ones = 0; ones <= 16; ones++) {
        for (size_t i = 0; i < N; i++) {
            flag[i] = fl_rng_below(&r, 16) < ones;
            x[i] = (int64_t)fl_rng_u64(&r);
        }
        size_t zeros = fl_pick_zeros(flag, N, a), values = fl_pick_values(flag, x, N, c);
        ck_assert_uint_eq(fl_pick_plain_zeros(flag, N, b), zeros);
        ck_assert_uint_eq(fl_pick_plain_values(flag, x, N, d), values);
        ck_assert_uint_eq(zeros + values, N);
        ck_assert_mem_eq(a, b, zeros * sizeof *a);
        ck_assert_mem_eq(c, d, values * sizeof *c);
    }
}
END_TEST

START_TEST(test_finite_finds_one_bad_value_anywhere)
{
    float x[37];
    static const float bad[] = {NAN, INFINITY, -INFINITY};

    fill(x, FL_COUNT(x), 3);
    x[5] = 3.4e38f;
    x[6] = 1e-45f;
    ck_assert(fl_vec_finite(x, FL_COUNT(x)));
    for (size_t i = 0; i < FL_COUNT(x); i++) {
        float keep = x[i];
        x[i] = bad[i % 3];
        ck_assert(!fl_vec_finite(x, FL_COUNT(x)));
        x[i] = keep;
    }
}
END_TEST

START_TEST(test_products_agree_with_their_naive_twin)
{
    enum { M = 7, N = 5, K = 11 };
    float a[M * K], b[K * N], c[M * N], x[K + M], y[K + M];

    for (int t = 0; t < 4; t++) {
        bool ta = t & 1, tb = t & 2;
        fill(a, M * K, 4);
        fill(b, K * N, 5);
        fill(c, M * N, 6);
        float before[M * N];
        for (int i = 0; i < M * N; i++) {
            before[i] = c[i];
        }
        fl_blas_gemm(ta, tb, M, N, K, 2, a, ta ? M : K, b, tb ? K : N, 0.5f, c, N);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < K; k++) {
                    sum += (double)a[ta ? k * M + i : i * K + k] *
                           (double)b[tb ? j * K + k : k * N + j];
                }
                ck_assert_double_eq_tol((double)c[i * N + j],
                                        2 * sum + 0.5 * (double)before[i * N + j], 1e-4);
            }
        }
    }
    for (int t = 0; t < 2; t++) {
        size_t in = t ? M : K, out = t ? K : M;
        fill(a, M * K, 4);
        fill(x, in, 7);
        fl_blas_gemv(t, M, K, 1, a, K, x, 0, y);
        for (size_t i = 0; i < out; i++) {
            double sum = 0;
            for (size_t k = 0; k < in; k++) {
                sum += (double)a[t ? k * K + i : i * K + k] * (double)x[k];
            }
            ck_assert_double_eq_tol((double)y[i], sum, 1e-4);
        }
    }
}
END_TEST

TESTS_MAIN("vec", test_loops_agree_with_their_naive_twins, test_picking_agrees_with_its_plain_twin,
           test_finite_finds_one_bad_value_anywhere, test_products_agree_with_their_naive_twin)
