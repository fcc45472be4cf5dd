/* Privacy-loss distributions against closed forms and the reference table; the masses by
 * themselves. */
#include "common/base/rng.h"
#include "common/privacy/fft.h"
#include "common/privacy/gauss.h"
#include "common/privacy/pld.h"
#include "common/privacy/pld_loss.h"
#include "tests/lib/check_main.h"
#include "tests/lib/dp_table.h"

static void bracket(const struct fl_event *events, uint32_t n, double delta, double *lower,
                    double *upper)
{
    struct fl_err e = {0};
    int r = fl_pld_epsilon(events, n, delta, lower, upper, &e);

    ck_assert_msg(r == 0, "%s", e.msg);
    ck_assert_double_le(*lower, *upper);
}

/* epsilon by bisection of a falling delta(epsilon). */
static double solve(long double (*delta_at)(long double epsilon, const double *p), const double *p,
                    double delta)
{
    long double low = 0, high = 200;

    for (int i = 0; i < 200; i++) {
        long double middle = (low + high) / 2;
        if (delta_at(middle, p) > delta) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (double)high;
}

static long double normal(long double x)
{
    return erfcl(-x / sqrtl(2)) / 2;
}

/* One sampled Gaussian, both directions in closed form. p: q, sigma. */
static long double one_step(long double epsilon, const double *p)
{
    long double q = p[0], s = p[1], x, remove, add = 0;

    x = s * s * log1pl(expm1l(epsilon) / q) + 0.5L;
    remove = (1 - q) * normal(-x / s) + q * normal(-(x - 1) / s) - expl(epsilon) * normal(-x / s);
    if (expm1l(-epsilon) > -q) {
        x = s * s * log1pl(expm1l(-epsilon) / q) + 0.5L;
        add = normal(x / s) - expl(epsilon) * ((1 - q) * normal(x / s) + q * normal((x - 1) / s));
    }
    return fmaxl(remove, add);
}

START_TEST(test_one_sampled_step_in_closed_form)
{
    const double rows[][3] = {{0.5, 0.5, 1e-5},   {0.2, 1.5, 1e-5}, {0.01, 1, 1e-6},
                              {0.001, 0.6, 1e-7}, {0.9, 3, 1e-10},  {0.0012, 3, 1e-5},
                              {0.3, 8, 1e-12}};

    for (size_t i = 0; i < FL_COUNT(rows); i++) {
        struct fl_event event = {.q = rows[i][0], .sigma = rows[i][1], .count = 1};
        double lower, upper, want = solve(one_step, rows[i], rows[i][2]);
        bracket(&event, 1, rows[i][2], &lower, &upper);
        ck_assert_msg(upper >= want * (1 - 1e-9) && upper <= want * (1 + 2e-4) + 1e-12,
                      "row %zu: %.15g, true %.15g", i, upper, want);
        ck_assert_double_le(lower, want * (1 + 1e-9));
        ck_assert_double_ge(lower, want * (1 - 2e-2) - 1e-9);
    }
}
END_TEST

/* Randomized response, k times. p: epsilon of one, k. */
static long double binomial(long double epsilon, const double *p)
{
    long double yes = 1 / (1 + expl(-p[0])), no = 1 / (1 + expl(p[0])), sum = 0;

    for (double j = 0; j <= p[1]; j++) {
        long double loss = (2 * j - p[1]) * p[0];
        long double mass = expl(lgammal(p[1] + 1) - lgammal(j + 1) - lgammal(p[1] - j + 1) +
                                j * logl(yes) + (p[1] - j) * logl(no));
        sum += loss > epsilon ? mass * -expm1l(epsilon - loss) : 0;
    }
    return sum;
}

START_TEST(test_composed_randomized_response_in_closed_form)
{
    const double rows[][3] = {{0.1, 50, 1e-6}, {1, 1, 1e-5}, {0.5, 10, 1e-12}, {0.01, 3000, 1e-30}};

    for (size_t i = 0; i < FL_COUNT(rows); i++) {
        struct fl_event event = {.q = 1,
                                 .count = (uint64_t)rows[i][1],
                                 .mechanism = FL_MECHANISM_EPS_DELTA,
                                 .a = rows[i][0]};
        double lower, upper, want = solve(binomial, rows[i], rows[i][2]);
        bracket(&event, 1, rows[i][2], &lower, &upper);
        ck_assert_msg(upper >= want * (1 - 1e-9) && upper <= want * (1 + 2e-4),
                      "row %zu: %.15g, true %.15g", i, upper, want);
        ck_assert_double_le(lower, want * (1 + 1e-9));
        ck_assert_double_ge(lower, want * (1 - 1e-2));
    }
}
END_TEST

START_TEST(test_gaussians_without_sampling_are_the_exact_formula)
{
    struct fl_event events[] = {
        {.q = 1, .sigma = 10, .count = 100},
        {.q = 1, .sigma = 30, .count = 10},
        {.q = 1, .sigma = 7, .count = 3, .mechanism = FL_MECHANISM_TREE, .a = 1000}};
    double lower, upper, mu2 = 100.0 / 100 + 10.0 / 900 + 3 * 10.0 / 49;
    double want = fl_gauss_epsilon(sqrt(mu2), 1e-6);

    bracket(events, 3, 1e-6, &lower, &upper);
    ck_relative("gauss", upper, want, 1e-5);
    ck_assert_double_ge(upper, want * (1 - 1e-9));
    ck_assert_double_le(lower, want);
}
END_TEST

START_TEST(test_golden_table)
{
    uint32_t seen = 0, every = tests_every(1, 7);

    load();
    for (uint32_t r = 0; r < table_rows; r += every) {
        struct fl_event events[EVENTS];
        const char *id = cell(r, "id");
        double pld = value(r, "eps_pld"), prv = value(r, "eps_prv_lower"), upper = NAN;
        struct fl_err e = {0};
        if (isnan(pld) || is_kind(r, "inverse_sigma")) {
            continue;
        }
        uint32_t n = events_of(r, events);
        ck_assert_msg(fl_pld_epsilon(events, n, value(r, "delta"), NULL, &upper, &e) == 0, "%s: %s",
                      id, e.msg);
        /* The table has randomized response composed once instead of 20 times. */
        bool wrong = strstr(cell(r, "event"), "RandomizedResponse") != NULL;
        ck_assert_msg(upper <= pld * (1 + 1e-3) || wrong, "%s: %.12g above %.12g", id, upper, pld);
        ck_assert_msg(isnan(prv) || upper >= prv, "%s: %.12g below %.12g", id, upper, prv);
        ck_assert_msg(upper <= value(r, "eps_rdp") * (1 + 1e-3), "%s", id);
        seen++;
    }
    ck_assert_uint_ge(seen, every == 1 ? 70 : 8);
}
END_TEST

START_TEST(test_lower_bounds_stay_below)
{
    load();
    for (uint32_t r = 0; r < table_rows; r += 4) {
        struct fl_event events[EVENTS];
        double pld = value(r, "eps_pld"), prv = value(r, "eps_prv_upper"), lower, upper;
        if (isnan(pld) || !is_kind(r, "subsampled_gaussian")) {
            continue;
        }
        bracket(events, events_of(r, events), value(r, "delta"), &lower, &upper);
        ck_assert_double_le(lower, pld);
        ck_assert(isnan(prv) || lower <= prv);
    }
}
END_TEST

START_TEST(test_many_kinds_are_joined_on_the_safe_side)
{
    static struct fl_event events[1000], worst, best;
    double lower, upper, high, low;

    for (int i = 0; i < 1000; i++) {
        events[i] =
            (struct fl_event){.q = 0.01 + 1e-5 * (i % 40), .sigma = 1 + 1e-4 * i, .count = 1};
    }
    worst = (struct fl_event){.q = 0.0104, .sigma = 1, .count = 1000};
    best = (struct fl_event){.q = 0.01, .sigma = 1.1, .count = 1000};
    bracket(events, 1000, 1e-5, &lower, &upper);
    bracket(&worst, 1, 1e-5, &low, &high);
    ck_assert_double_lt(upper, high);
    bracket(&best, 1, 1e-5, &low, &high);
    ck_assert_double_gt(upper, high);
    ck_assert_double_gt(lower, low * 0.97);
}
END_TEST

START_TEST(test_edges)
{
    struct fl_event sampled = {.q = 0.1, .sigma = 1, .count = 10},
                    none = {.q = 0, .sigma = 1, .count = 9};
    struct fl_event bare = {.q = 0.1, .sigma = 0, .count = 1};
    struct fl_event rho = {.q = 1, .count = 1, .mechanism = FL_MECHANISM_ZCDP, .a = 1};
    struct fl_event leak = {
        .q = 1, .count = 2, .mechanism = FL_MECHANISM_EPS_DELTA, .a = 1, .b = 1e-5};
    double lower = 7, upper = 7;
    struct fl_err e;

    bracket(NULL, 0, 1e-5, &lower, &upper);
    ck_assert_double_eq(upper, 0);
    bracket(&none, 1, 1e-5, &lower, &upper);
    ck_assert_double_eq(upper, 0);
    bracket(&bare, 1, 1e-5, &lower, &upper);
    ck_assert(isinf(upper));
    bracket(&leak, 1, 1e-5, &lower, &upper);
    ck_assert(isinf(upper));
    ck_assert_int_eq(fl_pld_epsilon(&rho, 1, 1e-5, NULL, &upper, &e), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_pld_epsilon(&sampled, 1, 0, NULL, &upper, &e), -FL_R_ACCOUNTING);
    ck_assert_int_eq(fl_pld_epsilon(&sampled, 1, NAN, NULL, &upper, &e), -FL_R_ACCOUNTING);
    bracket(&sampled, 1, 0.9, &lower, &upper);
    ck_assert_double_eq(upper, 0); /* so much delta needs no epsilon */
    /* Monotone, and the frozen figure is the smaller of what holds. */
    double before = 0;
    for (sampled.count = 1; sampled.count < 3000; sampled.count *= 4) {
        double frozen, adaptive;
        enum fl_bound bound, other;
        bracket(&sampled, 1, 1e-6, &lower, &upper);
        ck_assert_double_gt(upper, before);
        before = upper;
        ck_assert_int_eq(fl_epsilon(&sampled, 1, 1e-6, &adaptive, &other, &e), 0);
        ck_assert_int_eq(fl_epsilon_frozen(&sampled, 1, 1e-6, &frozen, &lower, &bound, &e), 0);
        ck_assert_double_eq(frozen, fmin(adaptive, upper));
        ck_assert_int_eq(bound, FL_BOUND_PLD);
        ck_assert_str_eq(fl_bound_name(bound), "pld");
    }
    double sigma = NAN, got = NAN;
    enum fl_bound bound;
    ck_assert_int_eq(fl_sigma_for_frozen(1, 1e-5, 0.01, 1000, &sigma, &bound, &e), 0);
    ck_assert_double_eq_tol(sigma, 1.41463, 1e-3);
    sampled = (struct fl_event){.q = 0.01, .sigma = sigma, .count = 1000};
    ck_assert_int_eq(fl_epsilon_frozen(&sampled, 1, 1e-5, &got, NULL, &bound, &e), 0);
    ck_assert_double_le(got, 1);
    ck_assert_double_ge(got, 1 - 3e-4);
}
END_TEST

/* The masses of UPPER keep both laws' totals, those of LOWER stay below them. */
START_TEST(test_masses_on_the_grid)
{
    const struct fl_loss losses[] = {{.kind = FL_LOSS_GAUSSIAN, .q = 0.1, .sigma = 0.8},
                                     {.kind = FL_LOSS_GAUSSIAN, .q = 1, .sigma = 2},
                                     {.kind = FL_LOSS_LAPLACE,
                                      .sigma = 2,
                                      .atoms = 2,
                                      .at = {0.5, -0.5},
                                      .mass = {0.5, 0.5 * 0.60653065971263342}}};

    for (size_t i = 0; i < FL_COUNT(losses); i++) {
        for (int d = 0; d < 2; d++) {
            for (int side = 0; side < 2; side++) {
                struct fl_masses m;
                double low, high, p = 0, q = 0;
                fl_loss_range(&losses[i], (enum fl_loss_direction)d, 1e-14, &low, &high);
                ck_assert(0 == fl_loss_masses(&losses[i], (enum fl_loss_direction)d,
                                              (enum fl_loss_side)side, 1e-3, low, high, 1, &m,
                                              NULL));
                for (size_t k = 0; k < m.count; k++) {
                    ck_assert_double_ge(m.p[k], 0);
                    p += m.p[k];
                    q += m.p[k] * exp(-(double)(m.first + (int64_t)k) * m.h);
                }
                ck_assert_double_eq_tol(p + m.infinite, 1, 1e-9);
                if (side == FL_LOSS_UPPER) {
                    ck_assert_double_eq_tol(q, 1, 1e-7);
                } else {
                    ck_assert_double_ge(q, 1 - 1e-9);
                    ck_assert_double_le(q, 1 + 1e-3);
                }
                fl_free(m.p);
            }
        }
    }
}
END_TEST

START_TEST(test_the_transform_convolves)
{
    enum { N = 64 };
    struct fl_fft *f = fl_fft_new(N);
    struct fl_seed seed;
    struct fl_rng r;
    double a[N], b[N], ai[N] = {0}, bi[N] = {0}, want[N] = {0};

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&r, &seed, 0);
    for (int i = 0; i < N; i++) {
        a[i] = fl_rng_unit(&r);
        b[i] = fl_rng_unit(&r);
    }
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            want[(i + k) % N] += a[i] * b[k];
        }
    }
    fl_fft_forward(f, a, ai);
    fl_fft_forward(f, b, bi);
    for (int i = 0; i < N; i++) {
        double re = a[i] * b[i] - ai[i] * bi[i];
        ai[i] = a[i] * bi[i] + ai[i] * b[i];
        a[i] = re;
    }
    fl_fft_inverse(f, a, ai);
    for (int i = 0; i < N; i++) {
        ck_assert_double_eq_tol(a[i], want[i], 1e-12);
        ck_assert_double_eq_tol(ai[i], 0, 1e-12);
    }
    fl_fft_free(f);
    fl_fft_free(NULL);
}
END_TEST

START_TEST(test_every_failed_allocation_is_reported)
{
    struct fl_event events[] = {{.q = 0.1, .sigma = 2, .count = 3},
                                {.q = 0.2, .sigma = 3, .count = 2}};
    double lower = 7, upper = 7;
    uint64_t nth = 1;

    for (;; nth++) {
        struct fl_err e = {0};
        fl_mem_fail_at(nth);
        int r = fl_pld_epsilon(events, 2, 1e-5, &lower, &upper, &e);
        if (!fl_mem_fail_hit()) {
            ck_assert_int_eq(r, 0);
            break;
        }
        ck_assert_msg(r == -FL_R_NOMEM, "allocation %d: %d", (int)nth, r);
        ck_assert_double_eq(upper, 7);
    }
    fl_mem_fail_at(0);
    ck_assert_uint_gt(nth, 20);
}
END_TEST

TESTS_MAIN("pld", test_one_sampled_step_in_closed_form,
           test_composed_randomized_response_in_closed_form,
           test_gaussians_without_sampling_are_the_exact_formula, test_golden_table,
           test_lower_bounds_stay_below, test_many_kinds_are_joined_on_the_safe_side, test_edges,
           test_masses_on_the_grid, test_the_transform_convolves,
           test_every_failed_allocation_is_reported)
