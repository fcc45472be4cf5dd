/*
 * Secure sums under random dropouts: from 3 to 40 agents, each leaves before any stage or stays.
 * Whenever the round comes to an end its sum is the plain integer sum of the vectors that were
 * taken, bit for bit, in as many schedules as are asked for; a round may only be given up where the
 * rules say that too few are left.
 *
 * A seed can be given: COHORT_SEED=7 test_secagg_sim; COHORT_SCHEDULES=50 for fewer.
 */
#include "tests/lib/check_main.h"
#include "tests/lib/secagg_world.h"

#include <stdio.h>

static uint64_t number_of(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : fallback;
}

static void setup_draw(struct fl_rng *rng, uint32_t n, struct fl_secagg_setup *ret)
{
    static const uint32_t rings[] = {16, 24, 32, 33, 47, 62};
    uint64_t context = fl_rng_u64(rng);

    *ret = (struct fl_secagg_setup){
        .members_min = 2,
        .members_max = n,
        .survivors_min = 2,
        .corrupt_permille = (uint32_t)fl_rng_below(rng, 3) * 100,
        .dropout_permille = 300,
        .bits = rings[fl_rng_below(rng, FL_COUNT(rings))],
        .count = 1 + fl_rng_below(rng, 40),
    };
    ret->max = (int64_t)((((uint64_t)1 << (ret->bits - 1)) - 1) / n);
    fl_digest_of(&context, sizeof context, &ret->context);
}

/* Whether enough are left at each stage, whoever they are: seen from outside, by the rules. */
static bool must_succeed(const struct sw *w)
{
    uint32_t left[FL_SECAGG_STAGES] = {0}, n = 0;
    struct fl_secagg_rule rule;

    for (uint32_t i = 0; i < w->count; i++) {
        for (uint32_t s = 0; s < FL_SECAGG_STAGES; s++) {
            left[s] += w->agent[i].leaves > s;
        }
    }
    n = left[FL_SECAGG_ADVERTISE];
    if (n < 2 ||
        fl_secagg_rule(n, w->setup.corrupt_permille, w->setup.dropout_permille, &rule, NULL) < 0) {
        return false;
    }
    if (rule.neighbours < n - 1) {
        return false; /* a matter of who is whose neighbour */
    }
    return left[FL_SECAGG_SIGN] >= rule.majority && left[FL_SECAGG_UNMASK] >= rule.threshold;
}

START_TEST(test_random_dropouts)
{
    const char *longer = getenv("TESTS_LONG");
    uint64_t most = longer && longer[0] == '1' ? 1000 : 100;
    uint64_t seed = number_of("COHORT_SEED", 1), schedules = number_of("COHORT_SCHEDULES", most);
    uint64_t finished = 0, given_up = 0, counted_and_gone = 0;

    for (uint64_t s = 0; finished < schedules; s++) {
        struct fl_secagg_setup setup;
        struct fl_seed key;
        struct fl_rng rng;
        fl_seed_from_u64(seed + s, &key);
        fl_rng_init(&rng, &key, 0);
        uint32_t n = 3 + (uint32_t)fl_rng_below(&rng, 38);
        uint64_t odds = 1 + fl_rng_below(&rng, 30); /* percent to leave at each stage */
        setup_draw(&rng, n, &setup);
        struct sw *w = sw_new(&setup, n, seed + s);
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t stage = 0; stage < FL_SECAGG_STAGES; stage++) {
                if (w->agent[i].leaves == SW_STAYS && fl_rng_below(&rng, 100) < odds / 2) {
                    w->agent[i].leaves = stage;
                }
            }
        }
        fl_rng_fini(&rng);
        int r = sw_whole(w);
        if (r == 0) {
            ck_assert_msg(sw_sum_is_right(w), "seed %llu: another sum",
                          (unsigned long long)(seed + s));
            finished++;
            for (uint32_t i = 0; i < n; i++) {
                counted_and_gone += w->agent[i].leaves == FL_SECAGG_SIGN;
            }
        } else {
            ck_assert_int_eq(r, -FL_R_SECAGG_FEW);
            given_up++;
        }
        ck_assert_msg(r == 0 || !must_succeed(w), "seed %llu: given up: %s",
                      (unsigned long long)(seed + s), w->why.msg);
        sw_free(w);
    }
    printf("secure sums: %llu finished, %llu given up, %llu vectors counted of agents that left "
           "before the end\n",
           (unsigned long long)finished, (unsigned long long)given_up,
           (unsigned long long)counted_and_gone);
    ck_assert_uint_lt(given_up, schedules); /* it is not by giving up that sums are right */
    if (schedules >= 100) {
        ck_assert_uint_gt(given_up, 0);
        ck_assert_uint_gt(counted_and_gone, schedules / 4);
    }
}
END_TEST

/* Sparse graphs and sampled signatures: the same with many agents. */
START_TEST(test_many)
{
    static const struct {
        uint32_t n, corrupt, dropout;
    } cases[] = {{100, 50, 50}, {101, 50, 50}, {150, 100, 100}};

    for (size_t c = 0; c < FL_COUNT(cases); c++) {
        struct fl_secagg_setup setup = {.members_min = cases[c].n / 2,
                                        .members_max = cases[c].n,
                                        .survivors_min = cases[c].n / 2,
                                        .corrupt_permille = cases[c].corrupt,
                                        .dropout_permille = cases[c].dropout,
                                        .bits = 32,
                                        .max = 1 << 20,
                                        .count = 17};
        struct fl_secagg_rule rule;
        ck_assert_int_eq(
            fl_secagg_rule(cases[c].n, cases[c].corrupt, cases[c].dropout, &rule, NULL), 0);
        ck_assert_uint_lt(rule.neighbours, cases[c].n - 1);
        struct sw *w = sw_new(&setup, cases[c].n, c);
        for (uint32_t i = 0; i < 5; i++) {
            w->agent[i * 7].leaves = i;
        }
        ck_assert_msg(sw_whole(w) == 0, "%s", w->why.msg);
        ck_assert(sw_sum_is_right(w));
        sw_free(w);
    }
}
END_TEST

TESTS_MAIN("secagg_sim", test_random_dropouts, test_many)
