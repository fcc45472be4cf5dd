/* Bubbles: sites that are alike come together, sites that are not come apart, and noise, chance,
 * loners and duplicates make none of their own. */
#include "common/base/mem.h"
#include "server/strategy/bubbles.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <string.h>

enum { SITES = 40, LENGTH = 6 };

static const struct fl_bubbles_conf conf = {
    .most = 8, .min_size = 3, .draws = 20, .stability = 0.8, .silhouette = 0.5, .hysteresis = 0.05};
static double x[SITES * LENGTH], sigma[SITES];
static struct fl_rng rng;
static struct fl_seed seed;

static void begin(uint64_t number)
{
    fl_seed_from_u64(number, &seed);
    fl_rng_init(&rng, &seed, 0);
    memset(sigma, 0, sizeof sigma);
}

/* Sites around `centres` points that are `apart` from each other, spread by `spread`. */
static void scatter(uint32_t sites, uint32_t centres, double apart, double spread)
{
    for (uint32_t i = 0; i < sites; i++) {
        for (uint32_t k = 0; k < LENGTH; k++) {
            x[i * LENGTH + k] =
                (i % centres == k ? apart / sqrt(2) : 0) + spread * fl_rng_normal(&rng);
        }
    }
}

static struct fl_bubbles find(const struct fl_bubbles_conf *c, uint32_t sites,
                              const uint32_t *before)
{
    struct fl_bubbles b;
    struct fl_err e = {0};

    ck_assert_msg(fl_bubbles_find(c, x, sigma, sites, LENGTH, before, &seed, &b, &e) == 0, "%s",
                  e.msg);
    return b;
}

static uint32_t how_many(uint32_t sites)
{
    struct fl_bubbles b = find(&conf, sites, NULL);
    uint32_t count = b.count;

    fl_bubbles_fini(&b);
    return count;
}

START_TEST(test_features_have_names)
{
    /* The same values at other features: Earth Mover's distance of sorted values is 0 between them.
     */
    begin(1);
    for (uint32_t i = 0; i < 10; i++) {
        double *d = x + i * LENGTH;
        memset(d, 0, LENGTH * sizeof *d);
        d[i % 2 ? 0 : 2] = 0.9 + 0.01 * fl_rng_normal(&rng);
        d[1] = 0.1;
    }
    struct fl_bubbles b = find(&conf, 10, NULL);
    ck_assert_uint_eq(b.count, 2);
    for (uint32_t i = 0; i < 10; i++) {
        ck_assert_uint_eq(b.of[i], i % 2);
    }
    fl_bubbles_fini(&b);
}
END_TEST

START_TEST(test_one_crowd_is_one_bubble)
{
    for (uint64_t k = 0; k < 20; k++) {
        begin(100 + k);
        scatter(SITES, 1, 0, 1);
        ck_assert_uint_eq(how_many(SITES), 1);
        for (uint32_t i = 0; i < SITES; i++) { /* and when all there is is their own noise */
            sigma[i] = 1;
        }
        ck_assert_uint_eq(how_many(SITES), 1);
    }
    memset(x, 0, sizeof x);
    memset(sigma, 0, sizeof sigma);
    ck_assert_uint_eq(how_many(SITES), 1); /* all equal */
    ck_assert_uint_eq(how_many(1), 1);
    ck_assert_uint_eq(how_many(2), 1);
}
END_TEST

START_TEST(test_crowds_come_apart_until_noise_hides_them)
{
    for (uint64_t k = 0; k < 10; k++) {
        begin(200 + k);
        scatter(39, 3, 10, 0.3);
        struct fl_bubbles b = find(&conf, 39, NULL);
        ck_assert_uint_eq(b.count, 3);
        for (uint32_t i = 0; i < 39; i++) {
            ck_assert_uint_eq(b.of[i], i % 3);
        }
        ck_assert(b.silhouette > 0.8 && b.stability > 0.99 && b.moved == 0);
        fl_bubbles_fini(&b);
        for (uint32_t i = 0; i < 39; i++) {
            sigma[i] = 20;
            for (uint32_t j = 0; j < LENGTH; j++) {
                x[i * LENGTH + j] += sigma[i] * fl_rng_normal(&rng);
            }
        }
        ck_assert_uint_eq(how_many(39), 1);
    }
}
END_TEST

START_TEST(test_a_loner_is_served_not_banned)
{
    begin(3);
    scatter(25, 2, 10, 0.3);
    x[24 * LENGTH + 5] = 30; /* far from both, nearer to its own */
    struct fl_bubbles b = find(&conf, 25, NULL);
    ck_assert_uint_eq(b.count, 2);
    ck_assert_uint_lt(b.of[24], 2);
    for (uint32_t i = 0; i < 24; i++) {
        ck_assert_uint_eq(b.of[i], i % 2);
    }
    fl_bubbles_fini(&b);
    /* Two colluders that copied each other make no bubble of two. */
    scatter(24, 1, 0, 0.3);
    for (uint32_t k = 0; k < LENGTH; k++) {
        x[22 * LENGTH + k] = x[23 * LENGTH + k] = 50;
    }
    ck_assert_uint_eq(how_many(24), 1);
}
END_TEST

START_TEST(test_an_answer_stands_until_a_better_one_comes)
{
    uint32_t before[SITES];

    begin(4);
    scatter(30, 3, 10, 0.3);
    struct fl_bubbles b = find(&conf, 30, NULL);
    for (uint32_t i = 0; i < 30; i++) {
        before[i] = (b.of[i] + 1) % 3; /* other numbers */
    }
    fl_bubbles_fini(&b);
    before[7] = FL_BUBBLES_NEW;
    scatter(30, 3, 10, 0.3);
    b = find(&conf, 30, before);
    ck_assert(b.count == 3 && b.kept);
    for (uint32_t i = 0; i < 30; i++) {
        ck_assert_uint_eq(b.of[i], (i % 3 + 1) % 3);
    }
    fl_bubbles_fini(&b);
    /* Two of three have become one. */
    for (uint32_t i = 0; i < 30; i++) {
        for (uint32_t k = 0; k < LENGTH; k++) {
            x[i * LENGTH + k] = (i % 3 == 0 && k == 0 ? 10 : 0) + 0.3 * fl_rng_normal(&rng);
        }
    }
    b = find(&conf, 30, before);
    ck_assert(b.count == 2 && !b.kept);
    ck_assert(b.of[0] != b.of[1] && b.of[1] == b.of[2]);
    double newcomer[LENGTH] = {9};
    ck_assert_uint_eq(fl_bubbles_nearest(&b, x, 30, LENGTH, newcomer), b.of[0]);
    fl_bubbles_fini(&b);
}
END_TEST

/* The naive twin: all pairs of clusters, means over all pairs of members, every time. */
static void naive(uint32_t sites, uint32_t k, uint32_t *of)
{
    uint32_t count = sites;

    for (uint32_t i = 0; i < sites; i++) {
        of[i] = i;
    }
    while (count > k) {
        double best = INFINITY;
        uint32_t ba = 0, bb = 0;
        for (uint32_t a = 0; a < sites; a++) {
            for (uint32_t b = a + 1; b < sites; b++) {
                double sum = 0, pairs = 0;
                for (uint32_t i = 0; i < sites; i++) {
                    for (uint32_t j = 0; j < sites; j++) {
                        if (of[i] == a && of[j] == b) {
                            for (uint32_t d = 0; d < LENGTH; d++) {
                                double far = x[i * LENGTH + d] - x[j * LENGTH + d];
                                sum += far * far;
                            }
                            pairs++;
                        }
                    }
                }
                if (pairs > 0 && sum / pairs < best) {
                    best = sum / pairs;
                    ba = a;
                    bb = b;
                }
            }
        }
        for (uint32_t i = 0; i < sites; i++) {
            of[i] = of[i] == bb ? ba : of[i];
        }
        count--;
    }
    uint32_t next = 0, name[SITES];
    memset(name, 0xff, sizeof name);
    for (uint32_t i = 0; i < sites; i++) {
        name[of[i]] = name[of[i]] == UINT32_MAX ? next++ : name[of[i]];
        of[i] = name[of[i]];
    }
}

START_TEST(test_clusters_are_those_of_the_definition)
{
    struct fl_bubbles_conf any = {.most = 4, .min_size = 1, .silhouette = -1};
    uint32_t of[SITES];

    for (uint64_t k = 0; k < 20; k++) {
        begin(300 + k);
        scatter(14, 4, 2.5, 1);
        struct fl_bubbles b = find(&any, 14, NULL);
        if (b.count > 1) {
            naive(14, b.count, of);
            ck_assert_int_eq(memcmp(of, b.of, 14 * sizeof *of), 0);
        }
        fl_bubbles_fini(&b);
    }
}
END_TEST

/* Against scikit-learn 1.2: agglomerative clustering (average linkage) of SciPy's Wasserstein
 * distances, and the least Davies-Bouldin score of 2 to 10 clusters. */
START_TEST(test_published)
{
    static const double many[13][LENGTH] = {
        {0.011, 0.493, 0.249, 0.011, 0.031, 0.181},    {-0.011, 0.090, 0.690, 0.017, 0.025, 0.237},
        {-0.013, 0.141, 0.057, -0.013, 0.395, 0.390},  {0.012, 0.710, 0.213, 0.077, 0.043, 0.143},
        {0.003, -0.014, 0.624, -0.021, -0.001, 0.287}, {0.018, 0.096, 0.006, 0.043, 0.401, 0.357},
        {0.010, 0.678, 0.210, -0.004, 0.044, 0.091},   {0.053, 0.032, 0.653, 0.005, -0.021, 0.245},
        {0.033, 0.105, -0.002, 0.020, 0.394, 0.432},   {0.064, 0.543, 0.145, 0.004, 0.022, 0.165},
        {-0.015, 0.024, 0.595, 0.025, 0.009, 0.303},   {0.006, 0.093, 0.005, 0.050, 0.371, 0.419},
        {0.039, 0.368, 0.309, 0.003, 0.123, 0.104}};
    static const double two[13][LENGTH] = {
        {0.381, 0.065, 0.033, 0.167, 0.349, 0.071},   {0.810, -0.001, 0.032, 0.050, 0.072, 0.000},
        {0.078, 0.600, 0.054, 0.174, 0.060, 0.135},   {0.462, 0.020, 0.080, 0.313, 0.255, 0.039},
        {0.717, -0.010, 0.106, 0.111, -0.004, 0.038}, {0.042, 0.635, -0.013, 0.113, 0.049, 0.150},
        {0.410, 0.066, 0.193, 0.131, 0.238, 0.014},   {0.824, 0.013, 0.064, 0.092, -0.008, -0.003},
        {0.002, 0.805, 0.027, -0.059, 0.010, 0.088},  {0.432, 0.037, 0.093, 0.255, 0.229, 0.004},
        {0.677, 0.036, 0.120, 0.150, 0.034, 0.110},   {0.026, 0.786, -0.008, 0.016, 0.109, 0.122},
        {0.287, 0.044, 0.060, 0.232, 0.278, 0.043}};
    static const struct {
        const double (*x)[LENGTH];
        uint32_t count, of[13];
    } cases[] = {{many, 8, {0, 1, 2, 3, 4, 5, 1, 1, 5, 6, 4, 5, 7}}, /* five are alone */
                 {two, 2, {0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0}}};
    struct fl_bubbles b;
    struct fl_err e = {0};

    for (size_t c = 0; c < 2; c++) {
        ck_assert_int_eq(fl_bubbles_published(cases[c].x[0], 13, LENGTH, &b, &e), 0);
        ck_assert_uint_eq(b.count, cases[c].count);
        ck_assert_mem_eq(b.of, cases[c].of, sizeof cases[c].of);
        fl_bubbles_fini(&b);
    }
    for (uint32_t sites = 1; sites <= 3; sites++) { /* all alike: two, where there are three */
        memset(x, 0, sizeof x);
        ck_assert_int_eq(fl_bubbles_published(x, sites, LENGTH, &b, &e), 0);
        ck_assert_uint_eq(b.count, sites == 3 ? 2 : 1);
        fl_bubbles_fini(&b);
    }
    x[LENGTH] = (double)INFINITY;
    ck_assert_int_eq(fl_bubbles_published(x, 2, LENGTH, &b, &e), -FL_R_NOT_FINITE);
    ck_assert_int_eq(fl_bubbles_published(x, 0, LENGTH, &b, &e), -FL_R_LIMIT);
}
END_TEST

START_TEST(test_rand_index_and_bad_input)
{
    const uint32_t a[] = {0, 0, 1, 1}, b[] = {0, 0, 1, 2}, c[] = {1, 1, 0, 0}, d[] = {0, 1, 0, 1};
    struct fl_bubbles out;
    struct fl_err e = {0};

    ck_assert_double_eq_tol(fl_rand_index(a, b, 4), 4.0 / 7,
                            1e-12); /* Hubert and Arabie's formula */
    ck_assert_double_eq(fl_rand_index(a, c, 4), 1);
    ck_assert_double_eq_tol(fl_rand_index(a, d, 4), -0.5, 1e-12);
    begin(5);
    scatter(5, 1, 0, 1);
    x[3 * LENGTH + 2] = (double)NAN;
    ck_assert_int_eq(fl_bubbles_find(&conf, x, sigma, 5, LENGTH, NULL, &seed, &out, &e),
                     -FL_R_NOT_FINITE);
    ck_assert_ptr_nonnull(strstr(e.msg, "site 3"));
    ck_assert_int_eq(fl_bubbles_find(&conf, x, sigma, 0, LENGTH, NULL, &seed, &out, &e),
                     -FL_R_LIMIT);
}
END_TEST

TESTS_MAIN("bubbles", test_features_have_names, test_one_crowd_is_one_bubble,
           test_crowds_come_apart_until_noise_hides_them, test_a_loner_is_served_not_banned,
           test_an_answer_stands_until_a_better_one_comes,
           test_clusters_are_those_of_the_definition, test_published, test_rand_index_and_bad_input)
