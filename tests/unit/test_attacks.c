/*
 * Robust rules under attack: the small benchmark (tests/lib/attack_world.h), each rule against each
 * attack at 20 % bad sites. What is asked of them:
 *
 *   identical data   every rule but single Krum and buckets loses at most 5 points against itself
 *                    without an attack
 *   Dirichlet 0.3    centered clipping, geometric median and mixing with trimmed mean lose at most
 * 8 mean             is broken by what is scaled: the attacks work
 *
 * A part always; with TESTS_LONG=1 all of it, printed as tables (a repeat is off by about a point).
 */
#include "tests/lib/attack_world.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 120, SEEDS = 1 };

#define RULE(r, ...)                                                                               \
    {                                                                                              \
        .on = true, .bucket = 2, .rule = FL_AGGREGATE_##r, __VA_ARGS__                             \
    }

static const struct {
    const char *name;
    bool identical, skewed; /* is held to the lines above */
    struct fl_aggregate_conf conf;
} rules[] = {
    {"mean", false, false, RULE(MEAN, .clip = 0)},
    {"mean, clip 0.5", true, false, RULE(MEAN, .clip = 0.5)},
    {"median", true, false, RULE(MEDIAN, .clip = 0)},
    {"trimmed mean", true, false, RULE(TRIMMED_MEAN, .byzantine = BAD)},
    {"geometric median", true, true, RULE(GEOMETRIC_MEDIAN, .iterations = 8, .smoothing = 1e-6)},
    {"Krum", false, false, RULE(KRUM, .byzantine = BAD)},
    {"multi-Krum", true, false, RULE(MULTI_KRUM, .byzantine = BAD)},
    {"centered clipping", true, true,
     RULE(CENTERED_CLIPPING, .iterations = 3, .radius = 0.5, .momentum = 1)},
    {"mixing + trimmed mean", true, true,
     RULE(TRIMMED_MEAN, .byzantine = BAD, .before = FL_AGGREGATE_NEAREST)},
    {"mixing + Krum", true, false, RULE(KRUM, .byzantine = BAD, .before = FL_AGGREGATE_NEAREST)},
    {"gates + mean", true, false,
     RULE(
         MEAN,
         .gates =
             {.on = true, .norm = 3, .distance = 2, .cosine = 0, .decay = 0.9, .quarantine = 0.9})},
    {"gates + clipping", true, false,
     RULE(
         CENTERED_CLIPPING, .iterations = 3, .radius = 0.5, .momentum = 1,
         .gates =
             {.on = true, .norm = 3, .distance = 2, .cosine = 0, .decay = 0.9, .quarantine = 0.9})},
    {"buckets + clipping", false, false,
     RULE(CENTERED_CLIPPING, .iterations = 3, .radius = 0.5, .momentum = 1,
          .before = FL_AGGREGATE_BUCKETING)},
};

static size_t rule_of(const char *name)
{
    for (size_t i = 0; i < FL_COUNT(rules); i++) {
        if (strcmp(rules[i].name, name) == 0) {
            return i;
        }
    }
    ck_abort_msg("%s", name);
    return 0;
}

/* The mean over seeds. */
static double accuracy_after(uint32_t rounds, size_t rule, enum attack attack, uint32_t hidden,
                             double skew, uint32_t seeds, double *ret_fooled)
{
    static struct attack_world world;
    struct pool_bench b;
    double right = 0, fooled = 0, one;
    size_t params = hidden ? hidden * (DIMS + 1) + CLASSES * (hidden + 1) : CLASSES * (DIMS + 1);

    pool_bench_open(&b, 28, -16, SITES, params);
    b.terms.conf = rules[rule].conf;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        right += attack_run(&world, &b, hidden, skew, attack, seed, rounds, &one) / seeds;
        fooled += one / seeds;
    }
    pool_bench_close(&b);
    *ret_fooled = fooled;
    return right;
}

static double accuracy(size_t rule, enum attack attack, uint32_t hidden, double skew,
                       uint32_t seeds, double *ret_fooled)
{
    return accuracy_after(ROUNDS, rule, attack, hidden, skew, seeds, ret_fooled);
}

START_TEST(test_a_mean_is_broken_and_rules_are_not)
{
    double fooled, none = accuracy(rule_of("mean"), ATTACK_NONE, 0, 0, 1, &fooled);
    static const char *const some[] = {"centered clipping", "mixing + trimmed mean"};

    ck_assert_double_ge(none, 75);
    ck_assert_double_le(accuracy(rule_of("mean"), ATTACK_SIGN_FLIP_10, 0, 0, 1, &fooled), 20);
    ck_assert_double_le(accuracy(rule_of("mean"), ATTACK_NOISE, 0, 0, 1, &fooled), 20);
    for (size_t i = 0; i < FL_COUNT(some); i++) {
        double alone = accuracy(rule_of(some[i]), ATTACK_NONE, 0, 0, 1, &fooled);
        ck_assert_double_ge(alone, none - 3);
        ck_assert_double_ge(accuracy(rule_of(some[i]), ATTACK_SIGN_FLIP_10, 0, 0, 1, &fooled),
                            alone - 5);
        ck_assert_double_ge(accuracy(rule_of(some[i]), ATTACK_LABEL_FLIP, 0, 0, 1, &fooled),
                            alone - 5);
    }
}
END_TEST

/* A model that is as good as before until it is averaged passes whoever only tries it out; the
 * gates see how far away it is, and so do rules that choose among updates. They stop a backdoor
 * that is scaled to be heard, too. */
START_TEST(test_gates_catch_sabotage_and_backdoors)
{
    static const char *const some[] = {"gates + mean", "mixing + trimmed mean"};
    enum { FEW = 50 };
    double fooled;
    double none = accuracy_after(FEW, rule_of("mean"), ATTACK_NONE, HIDDEN_MOST, 0.3, 1, &fooled);

    ck_assert_double_lt(
        accuracy_after(FEW, rule_of("mean"), ATTACK_SABOTAGE, HIDDEN_MOST, 0.3, 1, &fooled),
        none - 30);
    accuracy_after(FEW, rule_of("mean"), ATTACK_BACKDOOR, HIDDEN_MOST, 0.3, 1, &fooled);
    ck_assert_double_gt(fooled, 80);
    for (size_t i = 0; i < FL_COUNT(some); i++) {
        double right =
            accuracy_after(FEW, rule_of(some[i]), ATTACK_SABOTAGE, HIDDEN_MOST, 0.3, 1, &fooled);
        ck_assert_msg(right > none - 8, "%s: %.1f of %.1f", some[i], right, none);
        right =
            accuracy_after(FEW, rule_of(some[i]), ATTACK_BACKDOOR, HIDDEN_MOST, 0.3, 1, &fooled);
        ck_assert_msg(right > none - 8 && fooled < 5, "%s: %.1f of %.1f, %.1f fooled", some[i],
                      right, none, fooled);
    }
}
END_TEST

/* One table: a row for each rule. `line`: most points lost, where it is asked. */
static void table(const char *title, uint32_t hidden, double skew, const enum attack *attacks,
                  size_t count, bool fooled_instead, double line)
{
    printf("\n%s\n\n| rule |", title);
    for (size_t a = 0; a < count; a++) {
        printf(" %s |", attack_names[attacks[a]]);
    }
    printf("\n| --- |");
    for (size_t a = 0; a < count; a++) {
        printf(" --- |");
    }
    printf("\n");
    for (size_t r = 0; r < FL_COUNT(rules); r++) {
        double alone = 0;
        printf("| %s |", rules[r].name);
        for (size_t a = 0; a < count; a++) {
            double fooled, right = accuracy(r, attacks[a], hidden, skew, SEEDS, &fooled);
            printf(" %.1f |", fooled_instead ? fooled : right);
            fflush(stdout);
            alone = attacks[a] == ATTACK_NONE ? right : alone;
            bool held =
                skew > 0 ? rules[r].skewed && attacks[a] != ATTACK_INNER_1 : rules[r].identical;
            ck_assert_msg(line == 0 || !held || right >= alone - line, "%s under %s: %.1f of %.1f",
                          rules[r].name, attack_names[attacks[a]], right, alone);
            ck_assert_msg(r != 0 || line == 0 ||
                              (attacks[a] != ATTACK_SIGN_FLIP_10 && attacks[a] != ATTACK_INNER_4) ||
                              right < 20,
                          "the mean stands %s: %.1f", attack_names[attacks[a]], right);
        }
        printf("\n");
    }
}

START_TEST(test_all_rules_against_all_attacks)
{
    static const enum attack flat[] = {
        ATTACK_NONE,   ATTACK_LABEL_FLIP, ATTACK_REPLACEMENT, ATTACK_SIGN_FLIP, ATTACK_SIGN_FLIP_10,
        ATTACK_LITTLE, ATTACK_INNER_HALF, ATTACK_INNER_1,     ATTACK_INNER_4,   ATTACK_MINMAX,
        ATTACK_NOISE,  ATTACK_MIMIC,      ATTACK_ZERO};
    static const enum attack hidden[] = {ATTACK_NONE, ATTACK_LITTLE, ATTACK_MINMAX, ATTACK_SABOTAGE,
                                         ATTACK_BACKDOOR};
    static const enum attack door[] = {ATTACK_NONE, ATTACK_BACKDOOR};
    const char *longer = getenv("TESTS_LONG");

    if (!longer || strcmp(longer, "1") != 0) {
        printf("TESTS_LONG=1: all rules against all attacks\n");
        return;
    }
    table("Identical data", 0, 0, flat, FL_COUNT(flat), false, 5);
    table("Dirichlet 0.3", 0, 0.3, flat, FL_COUNT(flat), false, 8);
    table("One hidden layer, Dirichlet 0.3", HIDDEN_MOST, 0.3, hidden, FL_COUNT(hidden), false, 0);
    table("Marked examples taken for the target", HIDDEN_MOST, 0.3, door, FL_COUNT(door), true, 0);
}
END_TEST

TESTS_MAIN("attacks", test_a_mean_is_broken_and_rules_are_not,
           test_gates_catch_sabotage_and_backdoors, test_all_rules_against_all_attacks)
