/* What is held against agents: gates, scores that add up and fade, quarantine; as bytes and after
 * crashes; and around a whole rule. */
#include "common/base/rng.h"
#include "tests/lib/check_main.h"
#include "tests/lib/pool_bench.h"

#include <math.h>

static const struct fl_gates_conf gates = {
    .on = true, .norm = 3, .distance = 2, .cosine = 0, .decay = 0.9, .quarantine = 0.9};
static const struct fl_measure good = {1, 0.9f, 1}, loud = {9, 0.9f, 8},
                               backward = {1, -0.9f, 1.5f};

/* One agent among four that are good. */
static double one_round(struct fl_standings *s, uint64_t round, const struct fl_measure *m)
{
    const uint64_t agents[5] = {3, 5, 7, 8, 20};
    const struct fl_measure measures[5] = {good, good, *m, good, good};
    double trust[5];

    ck_assert_int_eq(fl_standings_judge(s, &gates, round, agents, measures, 5, trust, NULL), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert(i == 2 || trust[i] > 0.85);
    }
    return trust[2];
}

START_TEST(test_a_score_adds_up_and_fades)
{
    struct fl_standings s = {0};
    uint64_t round = 1;

    /* Out of the round at once; in quarantine not before it has happened again and again. */
    ck_assert(one_round(&s, round, &loud) == 0);
    const struct fl_standing *a = fl_standings_find(&s, 7);
    ck_assert_uint_eq(a->flags, FL_STANDING_NORM | FL_STANDING_DISTANCE | FL_STANDING_OUT);
    ck_assert(a->last.norm == 9 && a->round == 1);
    ck_assert(!fl_standing_quarantined(&gates, &s, 7, 2));
    while (!(fl_standings_find(&s, 7)->flags & FL_STANDING_QUARANTINE)) {
        ck_assert(one_round(&s, ++round, &loud) == 0);
        ck_assert_uint_le(round, 5);
    }
    ck_assert_uint_ge(round, 2);
    ck_assert(fl_standing_quarantined(&gates, &s, 7, round + 1));
    char text[256];
    fl_standing_text(&gates, fl_standings_find(&s, 7), text, sizeof text);
    ck_assert_str_eq(text,
                     "quarantine (round 3, score 0.97); norm 9 > 3; distance 8 > 2; cosine 0.9");
    fl_standing_text(&gates, fl_standings_find(&s, 3), text, sizeof text);
    ck_assert_str_eq(text, "trusted (round 3, score 0.03); norm 1; distance 1; cosine 0.9");
    /* Better updates: judged, not used, and after a few rounds it is back. */
    double trust = one_round(&s, ++round, &good);
    ck_assert(trust == 0);
    ck_assert_uint_eq(fl_standings_find(&s, 7)->flags, FL_STANDING_QUARANTINE | FL_STANDING_OUT);
    uint64_t first = round;
    while (trust == 0) {
        trust = one_round(&s, ++round, &good);
        ck_assert_uint_le(round, first + 10);
    }
    ck_assert_double_gt(trust, 0.5);
    /* Others never were anything but trusted. */
    ck_assert_double_le(fl_standing_sigma((double)fl_standings_find(&s, 20)->theta), 0.02);
    fl_standings_fini(&s);
}
END_TEST

START_TEST(test_quarantine_ends_while_away_and_what_is_forgotten_is_dropped)
{
    struct fl_standings s = {0};
    uint64_t round = 1;
    double trust;
    const uint64_t other = 9;

    while (!(s.count && (fl_standings_find(&s, 7)->flags & FL_STANDING_QUARANTINE))) {
        one_round(&s, round++, &backward);
    }
    ck_assert(fl_standings_find(&s, 7)->flags & FL_STANDING_COSINE);
    uint64_t away = 0;
    while (fl_standing_quarantined(&gates, &s, 7, round + away)) {
        away++;
    }
    ck_assert(away > 2 && away < 30);
    ck_assert_int_eq(fl_standings_judge(&s, &gates, round + 10, &other, &good, 1, &trust, NULL), 0);
    ck_assert_uint_eq(s.count, 6);
    ck_assert_int_eq(fl_standings_judge(&s, &gates, round + 200, &other, &good, 1, &trust, NULL),
                     0);
    ck_assert_uint_eq(s.count, 1);
    fl_standings_fini(&s);
}
END_TEST

START_TEST(test_no_more_than_the_smaller_half_sits_out)
{
    const uint64_t agents[4] = {1, 2, 3, 4};
    const struct fl_measure measures[4] = {loud, backward, loud, good};
    struct fl_standings s = {0};
    double trust[4];

    ck_assert_int_eq(fl_standings_judge(&s, &gates, 1, agents, measures, 4, trust, NULL), 0);
    ck_assert(trust[0] > 0 || trust[2] > 0 || trust[1] > 0);
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        out += trust[i] == 0;
    }
    ck_assert_uint_eq(out, 1);
    ck_assert(trust[3] > trust[1]);
    fl_standings_fini(&s);
    ck_assert_int_eq(fl_standings_judge(&s, &gates, 1, agents, measures, 1, trust, NULL), 0);
    ck_assert(trust[0] > 0); /* alone: nobody to compare it with */
    fl_standings_fini(&s);
}
END_TEST

START_TEST(test_bytes)
{
    struct fl_standings s = {0}, got = {0};
    struct fl_err e = {0};
    uint8_t state[100 + 11 * FL_STANDING_SIZE + 4] = {1, 2, 3};
    size_t size, held;

    one_round(&s, 1, &loud);
    one_round(&s, 2, &backward);
    size = fl_standings_size(&s, 6);
    ck_assert_uint_eq(size, sizeof state - 100);
    fl_standings_put(&s, state + 100, size);
    ck_assert_int_eq(fl_standings_get(state, sizeof state, &got, &held, &e), 0);
    ck_assert_uint_eq(held, size);
    ck_assert_uint_eq(got.count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert(got.at[i].agent == s.at[i].agent && got.at[i].theta == s.at[i].theta);
        ck_assert(got.at[i].flags == s.at[i].flags && got.at[i].round == 2);
        ck_assert(got.at[i].last.distance == s.at[i].last.distance);
    }
    fl_standings_fini(&got);
    /* Hostile or torn: too many, out of order, not finite. */
    ck_assert_int_eq(fl_standings_get(state, 3, &got, &held, &e), -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(fl_standings_get(state + 101, sizeof state - 101, &got, &held, &e),
                     -FL_R_STORE_MISMATCH);
    state[100 + FL_STANDING_SIZE] = 1;
    ck_assert_int_eq(fl_standings_get(state, sizeof state, &got, &held, &e), -FL_R_STORE_MISMATCH);
    ck_assert_str_eq(e.msg, "standing 1 of the strategy state cannot be");
    state[100 + FL_STANDING_SIZE] = 5;
    memset(state + 100 + 16, 0xff, 4);
    ck_assert_int_eq(fl_standings_get(state, sizeof state, &got, &held, &e), -FL_R_STORE_MISMATCH);
    for (uint64_t n = 1;; n++) {
        const uint64_t agent = 4;
        double trust;
        fl_mem_fail_at(n);
        int r = fl_standings_judge(&s, &gates, 3, &agent, &good, 1, &trust, NULL);
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        ck_assert_uint_eq(s.count, hit ? 5 : 6);
        if (!hit) {
            break;
        }
    }
    fl_standings_fini(&s);
}
END_TEST

/* Ten updates about a common one over several tiles; two are something else. */
START_TEST(test_measures_against_the_median)
{
    enum { N = 10, D = 9000 };
    static double got[D], only[D];
    struct pool_bench b;
    struct fl_seed seed;
    struct fl_rng rng;

    pool_bench_open(&b, 24, -12, N, D);
    fl_seed_from_u64(11, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t k = 0; k < D; k++) {
        int64_t common = llround(4000 * fl_rng_normal(&rng));
        for (size_t i = 0; i < N; i++) {
            int64_t own = llround(2000 * fl_rng_normal(&rng));
            b.q[i * D + k] = i == 3 ? 10 * common : i == 6 ? -common + own : common + own;
        }
    }
    b.terms.conf.rule = FL_AGGREGATE_TRIMMED_MEAN;
    b.terms.conf.byzantine = 2; /* both are out: nothing is left to trim */
    b.terms.conf.gates = gates;
    ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
    const struct fl_standing *tall = fl_standings_find(&b.standings, 4);
    const struct fl_standing *back = fl_standings_find(&b.standings, 7);
    ck_assert_uint_eq(tall->flags, FL_STANDING_NORM | FL_STANDING_DISTANCE | FL_STANDING_OUT);
    ck_assert(tall->last.norm > 8 && tall->last.cosine > 0.9f);
    ck_assert(back->flags & FL_STANDING_COSINE);
    ck_assert(back->last.norm > 0.9f && back->last.norm < 1.1f && back->last.cosine < -0.8f);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t flags = fl_standings_find(&b.standings, i + 1)->flags;
        ck_assert((i == 3 || i == 6) == (flags != 0));
    }
    for (size_t k = 0; k < D; k++) {
        only[k] = 0;
        for (size_t i = 0; i < N; i++) {
            only[k] += i == 3 || i == 6 ? 0 : (double)b.q[i * D + k] / 8 / 4096;
        }
        ck_assert_double_le(fabs(got[k] - only[k]), 1e-12);
    }
    /* Until they are in quarantine: then the median is of the others. */
    for (int round = 0; round < 4; round++) {
        ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
    }
    ck_assert(fl_standing_quarantined(&gates, &b.standings, 4, 6));
    ck_assert(fl_standing_quarantined(&gates, &b.standings, 7, 6));
    pool_bench_close(&b);
}
END_TEST

/* A mean weighs by trust. */
START_TEST(test_soft_scores_in_a_mean)
{
    enum { N = 5, D = 64 };
    struct pool_bench b;
    double got[D], sum = 0, want = 0;

    pool_bench_open(&b, 24, 0, N, D);
    for (size_t i = 0; i < N * D; i++) { /* one is further out, still within the gates */
        b.q[i] = 1000 + (int64_t)((i * 7919) % 101) + (i / D == 4 ? 30 * (int64_t)(i % 2) : 0);
    }
    b.terms.conf.rule = FL_AGGREGATE_MEAN;
    b.terms.conf.gates = gates;
    for (int round = 0; round < 5; round++) {
        ck_assert_int_eq(pool_bench_run(&b, NULL, got, NULL), 0);
    }
    for (uint32_t i = 0; i < N; i++) {
        double trust = 1 - fl_standing_sigma((double)b.standings.at[i].theta);
        ck_assert_uint_eq(b.standings.at[i].flags, 0);
        sum += trust;
        want += trust * (double)b.q[i * D + 1];
    }
    ck_assert_double_le(fabs(got[1] - want / sum), 1e-9);
    ck_assert(b.standings.at[4].theta > b.standings.at[0].theta);
    pool_bench_close(&b);
}
END_TEST

TESTS_MAIN("standing", test_a_score_adds_up_and_fades,
           test_quarantine_ends_while_away_and_what_is_forgotten_is_dropped,
           test_no_more_than_the_smaller_half_sits_out, test_bytes,
           test_measures_against_the_median, test_soft_scores_in_a_mean)
