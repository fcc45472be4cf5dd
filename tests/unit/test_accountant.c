/* The accountant against the reference table: $COHORT_REFERENCE, else ../shared/reference beside
 * the source, else the copy in tests/golden. */
#include "common/base/mem.h"
#include "common/privacy/accountant.h"
#include "common/privacy/event.h"
#include "common/privacy/gauss.h"
#include "common/privacy/rdp.h"
#include "tests/lib/check_main.h"
#include "tests/lib/dp_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* RDP's epsilon over another library's grid of orders. */
static double epsilon_over(const struct fl_event *events, uint32_t n, double delta, bool opacus)
{
    double alpha[FL_RDP_ORDERS_MAX], rdp[FL_RDP_ORDERS_MAX] = {0};
    uint32_t count = 0;

    for (int i = 11; i < 110; i++) {
        alpha[count++] = i / 10.0;
    }
    for (int i = opacus ? 12 : 11; i <= 63; i++) {
        alpha[count++] = i;
    }
    for (int i = 128; i <= 1024 && !opacus; i *= 2) {
        alpha[count++] = i;
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < n; k++) {
            rdp[i] += fl_rdp(&events[k], alpha[i]);
        }
    }
    return fl_rdp_epsilon(alpha, rdp, count, delta, NULL);
}

START_TEST(test_golden_rdp_orders)
{
    uint32_t seen = 0;

    load();
    for (uint32_t r = 0; r < table_rows; r++) {
        if (!is_kind(r, "rdp_order")) {
            continue;
        }
        double alpha = value(r, "alpha"), want = value(r, "rdp_value");
        double got = fl_rdp_subsampled(value(r, "q"), value(r, "sigma"), alpha);
        ck_relative(cell(r, "id"), got, want, alpha == floor(alpha) ? 1e-12 : 1e-7);
        ck_assert_msg(got >= want * (1 - 1e-13), "%s is too low", cell(r, "id"));
        seen++;
    }
    ck_assert_uint_ge(seen, 20);
}
END_TEST

START_TEST(test_golden_epsilons)
{
    uint32_t seen = 0;

    load();
    for (uint32_t r = 0; r < table_rows; r++) {
        struct fl_event events[EVENTS];
        const char *id = cell(r, "id");
        double delta = value(r, "delta"), opacus = value(r, "eps_rdp_opacus");
        double rdp = value(r, "eps_rdp"), lower = value(r, "eps_prv_lower");
        double exact = value(r, "eps_exact"), got = NAN;
        enum fl_bound bound;
        if (!is_kind(r, "subsampled_gaussian") && !is_kind(r, "full_batch_gaussian") &&
            !is_kind(r, "composition")) {
            continue;
        }
        uint32_t n = events_of(r, events);
        ck_assert_int_eq(fl_epsilon(events, n, delta, &got, &bound, NULL), 0);
        ck_assert_msg(got <= rdp * (1 + 1e-9), "%s: %.17g above %.17g", id, got, rdp);
        if (!isnan(opacus)) {
            /* That library's series ends early: it is sometimes a little too low. */
            ck_relative(id, epsilon_over(events, n, delta, true), opacus, 1e-6);
        }
        ck_assert(epsilon_over(events, n, delta, false) <= rdp * (1 + 1e-9));
        if (!isnan(lower)) {
            ck_assert_msg(got >= lower, "%s: %.17g below %.17g", id, got, lower);
        }
        if (!isnan(exact)) {
            ck_relative(id, got, exact, 1e-9);
            ck_assert_int_eq(bound, FL_BOUND_EXACT_GAUSSIAN);
        } else {
            double pld = value(r, "eps_pld"), coarse = value(r, "eps_pld_coarse");
            double slack = isnan(coarse) ? 0 : fabs(coarse - pld);
            ck_assert_msg(isnan(pld) || got >= pld - slack, "%s: %.17g below the PLD", id, got);
            ck_assert_int_eq(bound, FL_BOUND_RDP);
        }
        seen++;
    }
    ck_assert_uint_ge(seen, 60);
}
END_TEST

START_TEST(test_golden_mixed_events)
{
    uint32_t seen = 0;

    load();
    for (uint32_t r = 0; r < table_rows; r++) {
        struct fl_event events[EVENTS];
        double got = NAN, rdp = value(r, "eps_rdp"), pld = value(r, "eps_pld");
        enum fl_bound bound;
        if (!is_kind(r, "mixed_events")) {
            continue;
        }
        uint32_t n = events_of(r, events);
        ck_assert_int_eq(fl_epsilon(events, n, value(r, "delta"), &got, &bound, NULL), 0);
        ck_assert_msg(got <= rdp * (1 + 1e-9), "%s: %.17g above %.17g", cell(r, "id"), got, rdp);
        ck_assert_msg(isnan(pld) || got >= pld, "%s: %.17g below the PLD", cell(r, "id"), got);
        seen++;
    }
    ck_assert_uint_ge(seen, 9);
}
END_TEST

START_TEST(test_golden_exact_gaussian)
{
    uint32_t seen = 0;

    load();
    for (uint32_t r = 0; r < table_rows; r++) {
        const char *id = cell(r, "id");
        double target = value(r, "target_eps"), delta = value(r, "delta");
        if (is_kind(r, "analytic_sigma")) {
            double want = value(r, "sigma_result"), got = fl_gauss_sigma(target, delta);
            ck_relative(id, got, want, 1e-9);
            seen++;
        } else if (is_kind(r, "analytic_eps")) {
            double want = value(r, "eps_exact"),
                   got = fl_gauss_epsilon(1 / value(r, "sigma"), delta);
            if (want > 0) {
                ck_relative(id, got, want, 1e-9);
            } else {
                ck_assert_double_eq(got, 0);
            }
            seen++;
        } else if (is_kind(r, "analytic_delta")) {
            double want = value(r, "delta_result");
            double got = exp(fl_gauss_log_delta(1 / value(r, "sigma"), target));
            ck_relative(id, got, want, 1e-9);
            seen++;
        }
    }
    ck_assert_uint_ge(seen, 20);
}
END_TEST

START_TEST(test_golden_inverse_sigma)
{
    uint32_t seen = 0;

    load();
    for (uint32_t r = 0; r < table_rows; r++) {
        double q = value(r, "q"), steps = value(r, "steps"), delta = value(r, "delta");
        double target = value(r, "target_eps"), got = NAN, back = NAN;
        enum fl_bound bound;
        if (!is_kind(r, "inverse_sigma")) {
            continue;
        }
        ck_assert_int_eq(fl_sigma_for(target, delta, q, (uint64_t)steps, &got, NULL), 0);
        if (q == 1) {
            ck_relative(cell(r, "id"), got, value(r, "sigma_pld"), 1e-3);
        } else {
            /* The finer grid of orders finds less noise than the usual one, up to 10 %. */
            ck_assert_msg(got <= value(r, "sigma_rdp") * (1 + 1e-3), "%s", cell(r, "id"));
            ck_assert_double_ge(got, value(r, "sigma_pld"));
        }
        struct fl_event event = {.q = q, .sigma = got, .count = (uint64_t)steps};
        ck_assert_int_eq(fl_epsilon(&event, 1, delta, &back, &bound, NULL), 0);
        ck_assert_double_le(back, target);
        ck_assert_double_ge(back, target * (1 - 1e-3));
        seen++;
    }
    ck_assert_uint_ge(seen, 10);
}
END_TEST

/* ---- the twin: signed binomial series of Mironov, Talwar, Zhang 2019 ---- */

static long double log_half_erfc(long double x)
{
    if (x < 80) {
        return logl(erfcl(x) / 2);
    }
    return -x * x - logl(2 * x * sqrtl(acosl(-1)));
}

static double series_rdp(double q, double sigma, double alpha)
{
    long double z0 = 0.5L + (long double)sigma * sigma * logl(1 / (long double)q - 1), sum = 0;
    long double log_binomial = 0, half = 0.5L / ((long double)sigma * sigma), a = alpha;
    int sign = 1;

    for (int i = 0; i < 5000; i++) {
        long double j = a - i;
        long double t0 = log_binomial + i * logl(q) + j * log1pl(-q) +
                         ((long double)i * i - i) * half +
                         log_half_erfc((i - z0) / (sqrtl(2) * sigma));
        long double t1 = log_binomial + j * logl(q) + i * log1pl(-q) + (j * j - j) * half +
                         log_half_erfc((z0 - j) / (sqrtl(2) * sigma));
        sum += sign * (expl(t0) + expl(t1));
        log_binomial += logl(fabsl(a - i) / (i + 1));
        sign = a - i < 0 ? -sign : sign;
        if (i > a && t0 < -60 && t1 < -60) {
            break;
        }
    }
    return (double)(logl(sum) / (a - 1));
}

START_TEST(test_the_quadrature_agrees_with_the_signed_series)
{
    const double qs[] = {0.001, 0.01, 0.2, 0.4}, sigmas[] = {0.4, 0.7, 1, 2, 4};
    const double alphas[] = {1.1, 1.5, 2.3, 4.7, 9.9};

    for (size_t i = 0; i < FL_COUNT(qs); i++) {
        for (size_t k = 0; k < FL_COUNT(sigmas); k++) {
            for (size_t l = 0; l < FL_COUNT(alphas); l++) {
                double got = fl_rdp_subsampled(qs[i], sigmas[k], alphas[l]);
                double want = series_rdp(qs[i], sigmas[k], alphas[l]);
                ck_assert_msg(fabs(got - want) <= 2e-9 * want + 1e-14,
                              "q %g sigma %g alpha %g: %.17g, series %.17g", qs[i], sigmas[k],
                              alphas[l], got, want);
            }
        }
    }
}
END_TEST

START_TEST(test_rdp_is_continuous_in_the_order_and_bounded_for_tiny_sigma)
{
    for (double sigma = 0.3; sigma < 60; sigma *= 3) {
        for (int n = 2; n < 12; n++) {
            double at = fl_rdp_subsampled(0.05, sigma, n);
            ck_relative("order", fl_rdp_subsampled(0.05, sigma, n + 1e-9), at, 1e-6);
            ck_relative("order", fl_rdp_subsampled(0.05, sigma, n - 1e-9), at, 1e-6);
        }
    }
    /* The chord is above the curve, and below the next integer's value. */
    double chord = fl_rdp_subsampled(0.01, 0.02, 2.5);
    ck_assert_double_gt(chord, fl_rdp_subsampled(0.01, 0.02, 2));
    ck_assert_double_lt(chord, fl_rdp_subsampled(0.01, 0.02, 3));
}
END_TEST

/* ---- edges and laws ---- */

static double epsilon_of(const struct fl_event *events, uint32_t n, double delta)
{
    double epsilon = NAN;
    enum fl_bound bound;
    struct fl_err e = {0};

    ck_assert_msg(fl_epsilon(events, n, delta, &epsilon, &bound, &e) == 0, "%s", e.msg);
    return epsilon;
}

static double one(double q, double sigma, uint64_t count, double delta)
{
    struct fl_event event = {.q = q, .sigma = sigma, .count = count};
    return epsilon_of(&event, 1, delta);
}

START_TEST(test_edge_rules)
{
    double epsilon = 7;
    enum fl_bound bound;

    ck_assert_double_eq(epsilon_of(NULL, 0, 1e-5), 0);
    ck_assert_double_eq(one(0, 1, 100, 1e-5), 0);
    ck_assert_double_eq(one(0, 1, 100, 0), 0);
    ck_assert_double_eq(one(0.1, 1, 0, 1e-5), 0);
    ck_assert(isinf(one(0.1, 0, 1, 1e-5)));
    ck_assert(isinf(one(1, 0, 1, 1e-5)));
    ck_assert(isinf(one(1, 1, 1, 0)));
    const struct {
        double q, sigma, delta;
    } bad[] = {{-0.1, 1, 1e-5}, {1.1, 1, 1e-5}, {NAN, 1, 1e-5}, {1, -1, 1e-5}, {1, NAN, 1e-5},
               {1, 1, 1},       {1, 1, 1.5},    {1, 1, -1e-5},  {1, 1, NAN},   {1, INFINITY, 1e-5}};
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        struct fl_event event = {.q = bad[i].q, .sigma = bad[i].sigma, .count = 1};
        struct fl_err e = {0};
        ck_assert_int_eq(fl_epsilon(&event, 1, bad[i].delta, &epsilon, &bound, &e),
                         -FL_R_ACCOUNTING);
        ck_assert_double_eq(epsilon, 7);
        ck_assert_uint_gt(strlen(e.msg), 0);
    }
    ck_assert_int_eq(fl_sigma_for(0, 1e-5, 1, 1, &epsilon, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_sigma_for(NAN, 1e-5, 1, 1, &epsilon, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_sigma_for(1, 0, 1, 1, &epsilon, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_sigma_for(1, 1, 1, 1, &epsilon, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_sigma_for(1, 1e-5, 2, 1, &epsilon, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_sigma_for(1, 1e-5, 0, 1, &epsilon, NULL), 0);
    ck_assert_double_eq(epsilon, 0);
    ck_assert_int_eq(fl_sigma_for(1e-3, 1e-9, 0.5, 1000000, &epsilon, NULL), 0);
    ck_assert_double_le(one(0.5, epsilon, 1000000, 1e-9), 1e-3);
}
END_TEST

START_TEST(test_laws_of_composition)
{
    struct fl_event steps[] = {{.q = 0.02, .sigma = 1.1, .count = 1},
                               {.q = 0.02, .sigma = 1.1, .count = 1999}};
    ck_relative("2000", epsilon_of(steps, 2, 1e-5), one(0.02, 1.1, 2000, 1e-5), 1e-12);
    struct fl_event pythagoras[] = {{.q = 1, .sigma = 3, .count = 1},
                                    {.q = 1, .sigma = 4, .count = 1}};
    ck_relative("3, 4", epsilon_of(pythagoras, 2, 1e-6), one(1, 2.4, 1, 1e-6), 1e-12);
    struct fl_event ab[] = {{.q = 0.1, .sigma = 2, .count = 7}, {.q = 1, .sigma = 9, .count = 3}};
    struct fl_event ba[] = {ab[1], ab[0]};
    ck_relative("order", epsilon_of(ab, 2, 1e-6), epsilon_of(ba, 2, 1e-6), 1e-12);
    for (double q = 0.01; q < 0.9; q *= 1.7) {
        ck_assert_double_lt(one(q, 1, 10, 1e-5), one(q * 1.1, 1, 10, 1e-5));
        ck_assert_double_lt(one(q, 1, 10, 1e-5), one(q, 1, 11, 1e-5));
        ck_assert_double_gt(one(q, 1, 10, 1e-5), one(q, 1.01, 10, 1e-5));
        ck_assert_double_gt(one(q, 1, 10, 1e-5), one(q, 1, 10, 2e-5));
    }
}
END_TEST

START_TEST(test_published_values)
{
    const double sigmas[] = {0.3, 0.5, 1, 2, 4, 10};
    const double want[6][3] = {{19.1308, 20.7812, 23.6777}, {9.9973, 10.9972, 12.7492},
                               {4.3772, 4.8866, 5.7761},    {1.9931, 2.2541, 2.7076},
                               {0.9263, 1.0607, 1.2927},    {0.3407, 0.3969, 0.4929}};
    const double deltas[] = {1e-5, 1e-6, 1e-8};
    double sigma = NAN;
    uint64_t rounds = 0;

    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 3; k++) {
            ck_assert_double_eq_tol(one(1, sigmas[i], 1, deltas[k]), want[i][k], 5.1e-5);
        }
    }
    ck_assert_int_eq(fl_sigma_for(8, 1e-5, 1, 500, &sigma, NULL), 0);
    ck_assert_double_eq_tol(sigma, 13.4215, 1e-4);
    ck_assert_int_eq(fl_sigma_for(1, 1e-5, 1, 100, &sigma, NULL), 0);
    ck_assert_double_eq_tol(sigma, 37.306, 1e-3);
    struct fl_event event = {.q = 1, .sigma = 37.3064, .count = 0};
    ck_assert_int_eq(fl_rounds_for(1, 1e-5, &event, &rounds, NULL), 0);
    ck_assert_uint_eq(rounds, 100);
    event = (struct fl_event){.q = 0.01, .sigma = 1, .count = 5};
    ck_assert_int_eq(fl_rounds_for(2.0, 1e-5, &event, &rounds, NULL), 0);
    ck_assert_double_le(one(0.01, 1, rounds, 1e-5), 2);
    ck_assert_double_gt(one(0.01, 1, rounds + 1, 1e-5), 2);
    /* Skellam rows of the facts: alpha, l2, l1, mu. */
    struct fl_event skellam = {.q = 1, .count = 1, .mechanism = FL_MECHANISM_SKELLAM};
    skellam.sigma = 4, skellam.a = 1, skellam.b = 1;
    ck_assert_double_eq_tol(fl_rdp(&skellam, 2), 0.390625, 1e-12);
    skellam.sigma = 100;
    ck_assert_double_eq_tol(fl_rdp(&skellam, 8), 0.040525, 1e-12);
    skellam.sigma = 1e4, skellam.a = 10, skellam.b = 100;
    ck_assert_double_eq_tol(fl_rdp(&skellam, 32), 0.16001725, 1e-12);
}
END_TEST

START_TEST(test_the_filter_stops_before_the_budget_is_passed)
{
    bool allows = false;

    /* Gaussian alone: exactly as many as the exact formula allows. */
    struct fl_event gauss = {.q = 1, .sigma = 0, .count = 100};
    ck_assert_int_eq(fl_sigma_for(4, 1e-6, 1, 100, &gauss.sigma, NULL), 0);
    ck_assert_int_eq(fl_filter_allows(NULL, 0, &gauss, 1, 4, 1e-6, &allows, NULL), 0);
    ck_assert(allows);
    struct fl_event more = gauss;
    more.count = 1;
    ck_assert_int_eq(fl_filter_allows(&gauss, 1, &more, 1, 4, 1e-6, &allows, NULL), 0);
    ck_assert(!allows);
    gauss.count = 99;
    ck_assert_int_eq(fl_filter_allows(&gauss, 1, &more, 1, 4, 1e-6, &allows, NULL), 0);
    ck_assert(allows);

    /* Mixed, chosen as one goes: when the filter stops, epsilon is within. */
    struct fl_event spent[64];
    uint32_t n = 0;
    for (; n < 64; n++) {
        struct fl_event next = {.q = n % 3 ? 0.05 : 1, .sigma = 1 + n % 5, .count = 1 + n % 7};
        next.sigma *= n % 3 ? 1 : 8;
        ck_assert_int_eq(fl_filter_allows(spent, n, &next, 1, 3, 1e-6, &allows, NULL), 0);
        if (!allows) {
            spent[n] = next;
            break;
        }
        spent[n] = next;
    }
    ck_assert_uint_gt(n, 3);
    ck_assert_uint_lt(n, 64);
    ck_assert_double_le(epsilon_of(spent, n, 1e-6), 3);
    ck_assert_double_gt(epsilon_of(spent, n + 1, 1e-6), 3 * 0.999);

    struct fl_event bare = {.q = 1, .sigma = 0, .count = 1};
    ck_assert_int_eq(fl_filter_allows(NULL, 0, &bare, 1, 100, 1e-6, &allows, NULL), 0);
    ck_assert(!allows);
    ck_assert_int_eq(fl_filter_allows(NULL, 0, NULL, 0, 1, 1e-6, &allows, NULL), 0);
    ck_assert(allows);
    ck_assert_int_eq(fl_filter_allows(NULL, 0, &bare, 1, -1, 1e-6, &allows, NULL),
                     -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_filter_allows(NULL, 0, &bare, 1, 1, 0, &allows, NULL), -FL_R_ACCOUNTING);
    struct fl_event leak = {
        .q = 1, .count = 1, .mechanism = FL_MECHANISM_EPS_DELTA, .a = 0.1, .b = 1e-5};
    ck_assert_int_eq(fl_filter_allows(NULL, 0, &leak, 1, 5, 1e-6, &allows, NULL), 0);
    ck_assert(!allows);
}
END_TEST

START_TEST(test_events_as_text)
{
    struct fl_event v[4];
    struct fl_err e = {0};
    char text[128];
    uint32_t n = 0;
    const char *round[] = {"Gauss(sigma=1.5)x3",
                           "Poisson(q=0.01;Gauss(sigma=1.1))x1000",
                           "DiscreteGauss(sens=1;sigma=4)x20",
                           "Laplace(b=10)x100",
                           "Skellam(mu=100;l2=3;l1=5)x2",
                           "TreeAggregation(sigma=7;steps=1000)x3",
                           "EpsDelta(0.5;1e-07)x1",
                           "zCDP(rho=0.01)x30",
                           "RandomizedResponse(p=0.8;k=10)x20"};
    for (size_t i = 0; i < FL_COUNT(round); i++) {
        ck_assert_int_eq(fl_events_parse(round[i], FL_RELATION_ADD_REMOVE, v, 4, &n, &e), 0);
        ck_assert_uint_eq(n, 1);
        ck_assert_str_eq(fl_event_text(v, text, sizeof text), round[i]);
    }
    ck_assert_int_eq(
        fl_events_parse(" Gauss( 2 ) + Poisson(0.5, Gauss(3)) x 4", FL_RELATION_ZERO, v, 4, &n, &e),
        0);
    ck_assert_uint_eq(n, 2);
    ck_assert_double_eq(v[0].sigma, 2);
    ck_assert_double_eq(v[1].q, 0.5);
    ck_assert_uint_eq(v[1].count, 4);
    ck_assert_int_eq(fl_events_parse("Gauss(4)", FL_RELATION_REPLACE, v, 4, &n, &e), 0);
    ck_assert_double_eq(v[0].sigma, 2);
    const char *bad[] = {"",
                         "Gauss",
                         "Gauss()",
                         "Gauss(1",
                         "Gauss(1)x",
                         "Gauss(1)x-1",
                         "Gauss(1) Gauss(1)",
                         "Gauss(1)+",
                         "Gauss(nan)",
                         "Gauss(-1)",
                         "Gauss(tau=1)",
                         "Gauss(1;2)",
                         "Poisson(q=2;Gauss(1))",
                         "Poisson(q=0.1;Laplace(1))",
                         "Poisson(q=0.1;Poisson(q=0.1;Gauss(1)))",
                         "Gauss(1)x99999999999999999999",
                         "Gauss(=1)",
                         "Foo(1)",
                         "Gauss(1)+Gauss(1)+Gauss(1)+Gauss(1)+Gauss(1)"};
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_msg(fl_events_parse(bad[i], FL_RELATION_ADD_REMOVE, v, 4, &n, &e) ==
                          -FL_R_ACCOUNTING,
                      "accepted: %s", bad[i]);
    }
    ck_assert_int_eq(fl_events_parse("Poisson(q=0.1;Gauss(1))", FL_RELATION_REPLACE, v, 4, &n, &e),
                     -FL_R_ACCOUNTING);
}
END_TEST

START_TEST(test_rounds_of_a_fixed_list)
{
    const struct fl_event cases[] = {
        {.q = 0.01, .sigma = 1.1},
        {.q = 1, .sigma = 10},
        {.q = 1, .sigma = 10, .mechanism = FL_MECHANISM_LAPLACE},
        {.q = 1, .sigma = 100, .a = 1, .b = 1, .mechanism = FL_MECHANISM_SKELLAM}};
    enum fl_bound bound, ignored;
    uint64_t fixed, chosen;
    double got;

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_event v = cases[i];
        ck_assert_int_eq(fl_rounds_for_frozen(2, 1e-6, &v, &fixed, &bound, NULL), 0);
        ck_assert_int_eq(fl_rounds_for(2, 1e-6, &v, &chosen, NULL), 0);
        ck_assert_uint_ge(fixed, chosen);
        ck_assert_uint_gt(fixed, 0);
        /* What it says is kept, and one more is not. */
        v.count = fixed;
        ck_assert_int_eq(fl_epsilon_frozen(&v, 1, 1e-6, &got, NULL, &ignored, NULL), 0);
        ck_assert_double_le(got, 2);
        v.count = fixed + 1;
        ck_assert_int_eq(fl_epsilon_frozen(&v, 1, 1e-6, &got, NULL, &ignored, NULL), 0);
        ck_assert_double_gt(got, 2);
    }
    ck_assert_int_eq(fl_rounds_for_frozen(NAN, 1e-6, &cases[0], &fixed, &bound, NULL),
                     -FL_R_ACCOUNTING);
}
END_TEST

START_TEST(test_delta_must_fit_the_number_of_units)
{
    ck_assert_int_eq(fl_delta_check(1e-5, 99999, NULL), 0);
    ck_assert_int_eq(fl_delta_check(1e-5, 1e5 + 1, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(0.5, 2, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(0, 10, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(-1e-9, 10, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(NAN, 10, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(1, 1, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(1e-5, NAN, NULL), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_delta_check(1e-5, 0, NULL), -FL_R_ACCOUNTING);
}
END_TEST

TESTS_MAIN("accountant", test_golden_rdp_orders, test_golden_epsilons, test_golden_mixed_events,
           test_golden_exact_gaussian, test_golden_inverse_sigma,
           test_the_quadrature_agrees_with_the_signed_series,
           test_rdp_is_continuous_in_the_order_and_bounded_for_tiny_sigma, test_edge_rules,
           test_laws_of_composition, test_published_values,
           test_the_filter_stops_before_the_budget_is_passed, test_events_as_text,
           test_rounds_of_a_fixed_list, test_delta_must_fit_the_number_of_units)
