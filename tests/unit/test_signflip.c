#include "server/ctl/signflip.h"

#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <math.h>

/* Known by counting: of 2^n signs, those whose sum is as large. */
START_TEST(test_small_cases_by_counting)
{
    const double all_up[] = {1, 1, 1, 1, 1}, one[] = {0.5}, none[] = {0, 0, 0},
                 mixed[] = {3, -1, 2};

    ck_assert_double_eq_tol(fl_sign_flip(all_up, 5), 1.0 / 32, 1e-12);
    ck_assert_double_eq_tol(fl_sign_flip(one, 1), 0.5, 1e-12);
    ck_assert_double_eq_tol(fl_sign_flip(none, 3), 1, 1e-12);
    /* 3 - 1 + 2 = 4: only +3 +1 +2 = 6 and itself are as large */
    ck_assert_double_eq_tol(fl_sign_flip(mixed, 3), 2.0 / 8, 1e-12);
    ck_assert_double_eq(fl_sign_flip(mixed, 0), 1);
}
END_TEST

/* Many: close to the normal approximation of the same test, and never 0. */
START_TEST(test_many_by_draws)
{
    double d[200], z = 0, squares = 0;

    for (int i = 0; i < 200; i++) {
        d[i] = sin(i) + 0.1;
        z += d[i];
        squares += d[i] * d[i];
    }
    double want = 0.5 * erfc(z / sqrt(2 * squares));
    ck_assert_double_eq_tol(fl_sign_flip(d, 200), want, 0.005);
    ck_assert_double_eq(fl_sign_flip(d, 200), fl_sign_flip(d, 200));
    for (int i = 0; i < 200; i++) {
        d[i] = 1;
    }
    ck_assert_double_gt(fl_sign_flip(d, 200), 0);
    ck_assert_double_lt(fl_sign_flip(d, 200), 1e-5);
}
END_TEST

TESTS_MAIN("signflip", test_small_cases_by_counting, test_many_by_draws)
