/* The samplers against the law they claim. Seeds are fixed, so a failure is a change of the code.
 * The source is included: what is reached seldom is tested by itself. */
#include "common/privacy/noise.c"

#include "common/base/hash.h"
#include "tests/lib/check_main.h"

enum { N = 1000000 };

static struct fl_rng rng_of(uint64_t number)
{
    struct fl_seed seed;
    struct fl_rng r;

    fl_seed_from_u64(number, &seed);
    fl_rng_init(&r, &seed, 0);
    return r;
}

static struct fl_noise *noise_of(double s)
{
    struct fl_noise *n = NULL;
    struct fl_err e;

    ck_assert_int_eq(fl_noise_new(s, &n, &e), 0);
    return n;
}

static void fill(double s, uint64_t seed, bool reference, int64_t *q, size_t count)
{
    struct fl_noise *n = noise_of(s);
    struct fl_rng r = rng_of(seed);

    memset(q, 0, count * sizeof *q);
    if (reference) {
        for (size_t i = 0; i < count; i++) {
            q[i] = fl_noise_draw(n, &r);
        }
    } else {
        fl_noise_add(n, &r, q, count);
    }
    fl_noise_free(n);
}

static double *law(double s, int64_t reach)
{
    double *p = fl_new((size_t)(2 * reach + 1), sizeof *p);
    long double total = 0;

    for (int64_t x = -reach; x <= reach; x++) {
        total += expl(-(long double)(x * x) / (2 * (long double)s * s));
    }
    for (int64_t x = -reach; x <= reach; x++) {
        p[x + reach] = (double)(expl(-(long double)(x * x) / (2 * (long double)s * s)) / total);
    }
    return p;
}

/* Chi-square with bins of at least 5 expected, the tails merged; returns its excess over the 99.9 %
 * quantile (Wilson and Hilferty), below 0 when all is well. */
static double chi_square(const int64_t *q, size_t count, double s)
{
    int64_t reach = (int64_t)(8 * s) + 8, middle;
    double *p = law(s, reach), *hits = fl_new((size_t)(2 * reach + 1), sizeof *hits);
    double chi = 0, expected = 0, seen = 0;
    int bins = 0;

    for (size_t i = 0; i < count; i++) {
        middle = q[i] < -reach ? -reach : q[i] > reach ? reach : q[i];
        hits[middle + reach]++;
    }
    for (int64_t x = 0; x <= 2 * reach; x++) {
        expected += p[x] * (double)count;
        seen += hits[x];
        if (expected >= 5) {
            chi += (seen - expected) * (seen - expected) / expected;
            expected = seen = 0;
            bins++;
        }
    }
    fl_free(p);
    fl_free(hits);
    double k = bins - 1, c = 1 - 2 / (9 * k) + 3.09 * sqrt(2 / (9 * k));
    return chi - k * c * c * c;
}

static double kolmogorov(const int64_t *q, size_t count, double s)
{
    int64_t reach = (int64_t)(8 * s) + 8;
    double *p = law(s, reach), *hits = fl_new((size_t)(2 * reach + 1), sizeof *hits);
    double worst = 0, claimed = 0, seen = 0;

    for (size_t i = 0; i < count; i++) { /* an assertion of Check writes to a file: not in here */
        int64_t at = q[i] < -reach ? -reach : q[i] > reach ? reach : q[i];
        hits[at + reach]++;
    }
    for (int64_t x = 0; x <= 2 * reach; x++) {
        claimed += p[x];
        seen += hits[x] / (double)count;
        worst = fmax(worst, fabs(claimed - seen));
    }
    fl_free(p);
    fl_free(hits);
    return worst;
}

static double worst_autocorrelation(const int64_t *q, size_t count)
{
    double variance = 0, worst = 0;

    for (size_t i = 0; i < count; i++) {
        variance += (double)q[i] * (double)q[i];
    }
    for (size_t lag = 1; lag <= 10; lag++) {
        double sum = 0;
        for (size_t i = lag; i < count; i++) {
            sum += (double)q[i] * (double)q[i - lag];
        }
        worst = fmax(worst, fabs(sum / variance));
    }
    return worst;
}

static double deviation(const int64_t *q, size_t count)
{
    double squares = 0;

    for (size_t i = 0; i < count; i++) {
        squares += (double)q[i] * (double)q[i];
    }
    return sqrt(squares / (double)count);
}

START_TEST(test_both_samplers_follow_the_law_at_a_million_draws)
{
    static int64_t q[N];
    const struct {
        double s;
        double deviation; /* of the discrete law, where it differs from s */
    } rows[] = {{0.5, 0.463694592}, {1, 0.9999998945}, {2, 2},       {4, 4},
                {10, 10},           {31.99, 31.99},    {32, 32},     {45.3, 45.3},
                {100, 100},         {1000.5, 1000.5},  {5000, 5000}, {0x1p16, 0x1p16}};

    for (size_t i = 0; i < FL_COUNT(rows); i += tests_every(1, 5)) {
        for (int reference = 0; reference <= (i % 3 == 1); reference++) {
            double s = rows[i].s;
            fill(s, 100 + i, reference, q, N);
            ck_assert_double_eq_tol(deviation(q, N) / rows[i].deviation, 1, 0.003);
            ck_assert_double_le(kolmogorov(q, N, s), 1.95 / sqrt(N));
            ck_assert_double_le(chi_square(q, N, s), 0);
            ck_assert_double_le(worst_autocorrelation(q, N), 0.004);
        }
    }
}
END_TEST

START_TEST(test_the_published_probabilities_of_small_scales)
{
    static int64_t q[N];
    const struct {
        double s2, p0, p1;
    } rows[] = {{0.25, 0.786570707, 0.106450769},
                {1, 0.398942278, 0.241970723},
                {4, 0.199471140, 0.176032663},
                {16, 0.0997355701, 0.0966670292},
                {100, 0.0398942280, 0.0396952548}};

    for (size_t i = 0; i < FL_COUNT(rows); i++) {
        double zero = 0, one = 0;
        fill(sqrt(rows[i].s2), 7, false, q, N);
        for (size_t k = 0; k < N; k++) {
            zero += q[k] == 0;
            one += q[k] == 1;
        }
        ck_assert_double_eq_tol(zero / N, rows[i].p0, 4 * sqrt(rows[i].p0 / N));
        ck_assert_double_eq_tol(one / N, rows[i].p1, 4 * sqrt(rows[i].p1 / N));
        /* And the table itself: P(0) of the half law is p0 / (p0 + (1 - p0) / 2). */
        struct fl_noise *n = noise_of(sqrt(rows[i].s2));
        double half = rows[i].p0 / (rows[i].p0 + (1 - rows[i].p0) / 2);
        ck_assert_double_eq_tol(ldexp((double)n->high[0], -64), half, 3e-9);
        fl_noise_free(n);
    }
}
END_TEST

START_TEST(test_large_scales_have_the_right_spread_and_tails)
{
    static int64_t q[N];

    for (int bits = 17; bits <= 30; bits += 13) {
        double s = ldexp(1, bits), beyond2 = 0, beyond4 = 0, odd = 0;
        for (int reference = 0; reference <= 1; reference++, beyond2 = beyond4 = odd = 0) {
            fill(s, 3, reference, q, N);
            for (size_t i = 0; i < N; i++) {
                beyond2 += fabs((double)q[i]) > 2 * s;
                beyond4 += fabs((double)q[i]) > 4 * s;
                odd += (double)(q[i] & 1);
            }
            ck_assert_double_eq_tol(deviation(q, N) / s, 1, 0.003);
            ck_assert_double_eq_tol(beyond2 / N, 0.0455003, 0.0008);
            ck_assert_double_eq_tol(beyond4 / N, 6.334e-5, 3.2e-5);
            ck_assert_double_eq_tol(odd / N, 0.5, 0.002);
        }
    }
}
END_TEST

START_TEST(test_the_scale_is_never_below_what_was_asked)
{
    struct fl_rng r = rng_of(9);

    for (int i = 0; i < 2000; i += (int)tests_every(1, 10)) {
        double s = 0.25 * exp2(32 * fl_rng_unit(&r)), used;
        struct fl_noise *n = noise_of(s);
        used = fl_noise_scale(n);
        ck_assert_double_ge(used * (1 + 0x1p-52), s);
        ck_assert_double_le(used, s * (1 + 0x1p-31));
        ck_assert_uint_eq(n->m >> 32, 0);
        ck_assert_uint_ge(n->m >> 30, 1);
        ck_assert_double_le(fl_noise_distance(n), 0x1p-116);
        fl_noise_free(n);
    }
    struct fl_noise *n = NULL;
    struct fl_err e;
    double bad[] = {0, -1, 0.2499, 0x1.000001p30, NAN, INFINITY};
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_int_eq(fl_noise_new(bad[i], &n, &e), -FL_R_PLAN_PRIVACY);
    }
    fl_mem_fail_at(1);
    ck_assert_int_eq(fl_noise_new(1, &n, &e), -FL_R_NOMEM);
    ck_assert_ptr_null(n);
    fl_noise_free(NULL);
}
END_TEST

START_TEST(test_thresholds_in_fixed_point)
{
    /* exp(-num/den), 256 bits, lowest limb first, from arithmetic with 200 decimal digits. */
    const struct {
        uint64_t num, den, limb[4];
    } rows[] = {
        {1, 2, {0xce4ae95861014318, 0xe347bf8ad0e80abb, 0xd675a35530cdd767, 0x9b4597e37cb04ff3}},
        {8, 1, {0x8767ef801a32c2ef, 0xad23fbcb7f4a81e5, 0xbbfcd46780fee71e, 0x0015fc21041027ac}},
        {1, 2048, {0x65624bd38b6095a1, 0x8bc3e72bdf83dfc6, 0x1127d21522f2295b, 0xffe001ffeaab5551}},
    };
    struct fl_fixed x, one, third;

    for (size_t i = 0; i < FL_COUNT(rows); i++) {
        fl_fixed_exp_minus(&x, rows[i].num, rows[i].den);
        for (int k = 3; k > 0; k--) {
            ck_assert_uint_eq(x.limb[k], rows[i].limb[k]);
        }
        ck_assert_uint_le(rows[i].limb[0] - x.limb[0], 1 << 16);
        ck_assert_uint_eq(x.limb[4], 0);
    }
    fl_fixed_exp_minus(&x, 0, 1);
    fl_fixed_one(&one);
    ck_assert_mem_eq(&x, &one, sizeof x);
    fl_fixed_add(&x, &one, &one);
    fl_fixed_add(&third, &x, &one);
    fl_u128 f = fl_fixed_fraction(&one, &third);
    ck_assert(f == ~(fl_u128)0 / 3);
    ck_assert(fl_fixed_fraction(&one, &one) == ~(fl_u128)0);
    fl_fixed_sub(&x, &third, &one);
    ck_assert(fl_fixed_fraction(&one, &x) == (fl_u128)1 << 127);
}
END_TEST

START_TEST(test_the_undecided_comparison_is_exact)
{
    struct fl_rng r = rng_of(11);

    /* a/b 2^37 = prefix + part: below with probability `part`. */
    for (int tenth = 0; tenth <= 10; tenth++) {
        fl_u128 b = (fl_u128)10 << 37, a = (fl_u128)10 * 123456 + (unsigned)tenth;
        int below = 0;
        for (int i = 0; i < 100000; i++) {
            below += below_exactly(&r, 123456, 37, a, b);
        }
        ck_assert_double_eq_tol(below / 1e5, tenth / 10.0, 0.007);
    }
    ck_assert(!below_exactly(&r, 5, 37, 4, (fl_u128)1 << 37));
    ck_assert(below_exactly(&r, 5, 37, 7, (fl_u128)1 << 37));
}
END_TEST

/* What the block decides surely is what the draw by itself is decided to be, and one whose first
 * bits are a threshold's is never sure. */
START_TEST(test_sure_draws_are_decided_alike)
{
    const double scales[] = {0.25, 1, 31.9, 32, 1000, 1.5e6, 0x1p30};
    struct block *b = fl_new(1, sizeof *b);

    for (size_t k = 0; k < FL_COUNT(scales); k++) {
        struct fl_noise *n = noise_of(scales[k]);
        struct fl_rng r = rng_of(k), more = rng_of(99);
        size_t sure = 0;
        for (int repeat = 0; repeat < 100; repeat++) {
            fetch(&r, &b->random);
            for (uint32_t x = 0; x < n->count && x < BLOCK / 2; x++) {
                b->random.high[x] = (uint16_t)(n->high[x] >> 48);
            }
            look_up(n->cell, b);
            decide(n->j, n->over_2s, b);
            for (uint32_t i = 0; i < BLOCK; i++) {
                int64_t value = 0;
                ck_assert(!b->sure[i] || i >= BLOCK / 2 || i >= n->count);
                ck_assert(!b->sure[i] ||
                          (draw_alone(n, &more, b->random.high[i], b->random.low[i], &value) &&
                           value == b->value[i]));
                sure += b->sure[i];
            }
        }
        ck_assert_uint_gt(sure, scales[k] == 0x1p30 ? 22000 : 20000); /* of 25,600 to 51,200 */
        fl_noise_free(n);
    }
    fl_free(b);
}
END_TEST

/* Every cell against the thresholds: the first and the last draw of it, and with all 16 bits. */
START_TEST(test_cells_know_their_thresholds)
{
    const double scales[] = {0.25, 4, 16, 31.9, 1.5e6};
    struct block *b = fl_new(1, sizeof *b);

    for (size_t k = 0; k < FL_COUNT(scales); k++) {
        struct fl_noise *n = noise_of(scales[k]);
        size_t open = 0;
        for (uint32_t from = 0; from < 1 << 16; from += BLOCK) {
            for (uint32_t i = 0; i < BLOCK; i++) {
                b->random.high[i] = (uint16_t)(from + i);
            }
            look_up(n->cell, b);
            for (uint32_t i = 0; i < BLOCK; i++) {
                uint64_t first = (uint64_t)(from + i) << 48, last = first | ~(uint64_t)0 >> 16;
                if (!b->sure[i]) {
                    open++;
                    continue;
                }
                ck_assert(last < n->high[b->x[i]]);
                ck_assert(b->x[i] == 0 || first > n->high[b->x[i] - 1]);
            }
        }
        ck_assert_uint_lt(open, 1000); /* of 65,536 */
        fl_noise_free(n);
    }
    fl_free(b);
}
END_TEST

/* With the first 16 bits of a threshold the other 112 decide. */
START_TEST(test_the_rest_of_a_threshold_decides)
{
    struct fl_noise *n = noise_of(4);
    struct fl_rng r = rng_of(13);
    double below = 0, part = ldexp((double)(n->high[2] & ~(uint64_t)0 >> 16), -48);

    for (int i = 0; i < 100000; i++) {
        uint64_t x = draw_table(n, &r, (uint32_t)(n->high[2] >> 48));
        ck_assert(x == 2 || x == 3);
        below += x == 2;
    }
    ck_assert_double_eq_tol(below / 1e5, part, 0.007);
    fl_noise_free(n);
}
END_TEST

START_TEST(test_exponential_coins)
{
    struct fl_rng r = rng_of(12);
    const struct {
        uint64_t a, b;
    } rows[] = {{0, 1}, {1, 3}, {1, 1}, {7, 5}, {4, 1}};

    for (size_t i = 0; i < FL_COUNT(rows); i++) {
        int kept = 0;
        for (int k = 0; k < 200000; k++) {
            kept += bernoulli_exp(&r, rows[i].a, rows[i].b);
        }
        ck_assert_double_eq_tol(kept / 2e5, exp(-(double)rows[i].a / (double)rows[i].b), 0.004);
    }
}
END_TEST

START_TEST(test_the_same_stream_gives_the_same_noise_and_it_is_added)
{
    static int64_t a[5000], b[5000];
    struct fl_digest d;
    char hex[FL_DIGEST_HEX];

    fill(1000, 5, false, a, 5000);
    fill(1000, 5, false, b, 5000);
    ck_assert_mem_eq(a, b, sizeof a);
    fill(1000, 6, false, b, 5000);
    ck_assert_mem_ne(a, b, sizeof a);
    struct fl_noise *n = noise_of(1000);
    struct fl_rng r = rng_of(5);
    for (int i = 0; i < 5000; i++) {
        b[i] = 1000000;
    }
    fl_noise_add(n, &r, b, 5000);
    for (int i = 0; i < 5000; i++) {
        ck_assert_int_eq(b[i], 1000000 + a[i]);
    }
    fl_noise_free(n);
    /* The very values are part of the contract: a release is repeated after a crash, perhaps by the
     * next version of this program. */
    fl_digest_of(a, sizeof a, &d);
    fl_digest_hex(&d, hex);
    ck_assert_str_eq(hex, "c4eaf773ba9c38422d7f01df7036031ceb5d6f7254a0b221c55fb5548d9c8545");
}
END_TEST

TESTS_MAIN("noise", test_both_samplers_follow_the_law_at_a_million_draws,
           test_the_published_probabilities_of_small_scales,
           test_large_scales_have_the_right_spread_and_tails,
           test_the_scale_is_never_below_what_was_asked, test_thresholds_in_fixed_point,
           test_the_undecided_comparison_is_exact, test_sure_draws_are_decided_alike,
           test_cells_know_their_thresholds, test_the_rest_of_a_threshold_decides,
           test_exponential_coins, test_the_same_stream_gives_the_same_noise_and_it_is_added)
