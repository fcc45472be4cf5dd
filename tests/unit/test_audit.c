/* What guesses prove: against numbers of the exact binomial law, randomized response, and noise. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/privacy/audit.h"
#include "common/privacy/gauss.h"
#include "tests/lib/check_main.h"

#include <math.h>

/* The same in long double, summed from the other end. */
static long double naive_p(uint32_t m, uint32_t r, uint32_t v, long double epsilon,
                           long double delta)
{
    long double q = 1 / (1 + expl(-epsilon)), pmf[257] = {0}, tail = 0, sum = 0, most = 0;

    pmf[0] = powl(1 - q, r);
    for (uint32_t k = 1; k <= r; k++) {
        pmf[k] = pmf[k - 1] * q / (1 - q) * (r - k + 1) / k;
    }
    for (uint32_t k = r; k >= v && k <= r; k--) {
        tail += pmf[k];
    }
    for (uint32_t i = 1; i <= v; i++) {
        sum += pmf[v - i];
        most = sum / i > most ? sum / i : most;
    }
    long double p = tail + 2 * m * delta * most;
    return p < 1 ? p : 1;
}

START_TEST(test_p_agrees_with_its_naive_twin)
{
    for (uint32_t v = 1; v <= 256; v += 15) {
        for (double epsilon = 0; epsilon < 6; epsilon += 0.7) {
            for (int d = 0; d < 2; d++) {
                double delta = d ? 1e-4 : 0;
                double want = (double)naive_p(1000, 256, v, epsilon, delta);
                ck_assert_double_eq_tol(fl_audit_p(1000, 256, v, epsilon, delta), want,
                                        1e-9 * want + 1e-300);
            }
        }
    }
    /* 100 coins, all right, no delta: q^100 = 0.05 gives q = 0.97049, epsilon = ln(q / (1 - q)). */
    ck_assert_double_eq_tol(fl_audit_lower(100, 100, 100, 0, 0.95), 3.4929, 1e-3);
    ck_assert_double_eq(fl_audit_lower(100, 100, 50, 0, 0.95), 0);
    /* delta takes something away, never gives. */
    ck_assert_double_lt(fl_audit_lower(1000, 100, 100, 1e-4, 0.95),
                        fl_audit_lower(1000, 100, 100, 0, 0.95));
}
END_TEST

/* Canaries behind randomized response of a known epsilon: proved in all but some 5 % of runs to be
 * at most that, and nearly that much. */
START_TEST(test_randomized_response_is_measured)
{
    enum { M = 4000, RUNS = 200 };
    static double score[M];
    static bool in[M];
    const double epsilon = 1.5, q = exp(epsilon) / (1 + exp(epsilon));
    struct fl_seed seed;
    struct fl_rng rng;
    struct fl_audit got = {0};
    struct fl_err e = {0};
    int above = 0;
    double sum = 0;

    fl_seed_from_u64(7, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; i < M; i++) {
            in[i] = fl_rng_below(&rng, 2) != 0;
            bool answer = (fl_rng_unit(&rng) < q) == in[i];
            score[i] = answer + 0.5 * fl_rng_unit(&rng);
        }
        ck_assert_int_eq(fl_audit_scores(score, in, M, 1e-6, &got, &e), 0);
        above += got.lower > epsilon;
        sum += got.lower;
    }
    ck_assert_int_le(above, 20); /* 10 are expected at most; 20 would be one in a thousand */
    ck_assert_double_gt(sum / RUNS, epsilon - 0.25);
    fl_rng_fini(&rng);
}
END_TEST

/* A Gaussian whose epsilon is 4 at 1e-5 is not above it, and is above 1; without noise it is above
 * 5; scores that know nothing prove nothing. */
START_TEST(test_power_and_soundness_on_a_gaussian)
{
    enum { M = 2000 };
    static double score[M];
    static bool in[M];
    const double sigma = fl_gauss_sigma(4, 1e-5), scales[] = {sigma, 0, 1e9};
    struct fl_audit got[3];
    struct fl_seed seed;
    struct fl_rng rng;
    struct fl_err e = {0};

    fl_seed_from_u64(11, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < M; i++) {
            in[i] = fl_rng_below(&rng, 2) != 0;
            score[i] = in[i] + scales[k] * fl_rng_normal(&rng);
        }
        ck_assert_int_eq(fl_audit_scores(score, in, M, 1e-5, &got[k], &e), 0);
    }
    ck_assert_double_gt(got[0].lower, 1);
    ck_assert_double_lt(got[0].lower, 4);
    ck_assert_double_gt(got[1].lower, 5);
    ck_assert_double_lt(got[2].lower, 0.1);
    ck_assert_int_eq(fl_audit_scores(score, in, 31, 1e-5, &got[0], &e), -FL_R_ARG);
    fl_mem_fail_at(1);
    ck_assert_int_eq(fl_audit_scores(score, in, M, 1e-5, &got[0], &e), -FL_R_NOMEM);
    fl_mem_fail_at(0);
    fl_rng_fini(&rng);
}
END_TEST

TESTS_MAIN("audit", test_p_agrees_with_its_naive_twin, test_randomized_response_is_measured,
           test_power_and_soundness_on_a_gaussian)
