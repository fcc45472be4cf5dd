/* The table of releases: what it says is what is computed, what the documentation shows, and what a
 * plan without a row is refused by. */
#include "common/base/mem.h"
#include "common/plan/releases.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const units[] = {
    [FL_UNIT_NONE] = "none", [FL_UNIT_EXAMPLE] = "`example`", [FL_UNIT_CLIENT] = "`client`"};

static char page[64 * 1024];

START_TEST(test_the_documentation_shows_this_table)
{
    char line[1024];
    uint32_t rows = 0, shown = 0;
    FILE *f = fopen(TEST_SOURCE_ROOT "/deploy/docs/PRIVACY.md", "r");

    ck_assert_ptr_nonnull(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    for (const struct fl_release_row *row; (row = fl_release_row_at(rows)) != NULL; rows++) {
        snprintf(line, sizeof line, "\n| `%s` | %s | %s | %s | %s |\n", row->strategy,
                 units[row->unit], row->quantity, row->sensitivity, row->event);
        if (getenv("PRINT_RELEASES")) {
            printf("%s", line + 1);
        }
        ck_assert_msg(strstr(page, line) || getenv("PRINT_RELEASES"), "PRIVACY.md lacks %s", line);
    }
    for (const char *at = page; (at = strstr(at, "\n| `")) != NULL; at++) {
        shown++;
    }
    ck_assert_uint_ge(rows, 14);
    ck_assert_uint_eq(shown, rows);
}
END_TEST

static const char head[] = "name: j\nstrategy: %s\nrounds: 10\n"
                           "model: {input: [4], classes: 2, head: 1, layers: [{linear: {out: 8}}, "
                           "{leaky_relu: {}}, {linear: {out: 2}}]}\n"
                           "train: {batch: 4, lr: 0.1, steps: 5}\n"
                           "round: {members: 4}\ngrid: {bits: 24, step: -16}\n%s\n";

static int parse(struct fl_plan *ret, const char *strategy, const char *privacy, struct fl_err *e)
{
    char text[2048];

    snprintf(text, sizeof text, head, strategy, privacy);
    return fl_plan_parse(ret, "job.yaml", text, strlen(text), e);
}

START_TEST(test_events_of_a_round_and_of_a_job)
{
    static const struct {
        const char *strategy, *privacy;
        enum fl_release_kind kind;
        struct fl_event round, job;
    } cases[] = {
        {"fedavg",
         "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5}",
         FL_RELEASE_UPDATE,
         {.q = 1, .sigma = 2, .count = 1},
         {.q = 1, .sigma = 2, .count = 10}},
        {"fedrep",
         "privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 1e-5, sampling_rate: 0.1, "
         "examples: 1000}",
         FL_RELEASE_STEPS,
         {.q = 0.1, .sigma = 2, .count = 5},
         {.q = 0.1, .sigma = 2, .count = 50}},
        {"hyperfl",
         "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5, noise: central}",
         FL_RELEASE_SUM,
         {.q = 1, .sigma = 2, .count = 1},
         {.q = 1, .sigma = 2, .count = 10}},
        {"fedavg",
         "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5, noise: central, tree: "
         "4}",
         FL_RELEASE_TREE,
         {.q = 1, .sigma = 2, .count = 1, .mechanism = FL_MECHANISM_TREE, .a = 4},
         {.q = 1, .sigma = 2, .count = 3, .mechanism = FL_MECHANISM_TREE, .a = 4}},
        {"hyperfl",
         "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5, noise: distributed}\n"
         "secure_aggregation: {corrupt: 0, dropout: 0}",
         FL_RELEASE_MASKED,
         {.q = 1, .sigma = 2, .count = 1},
         {.q = 1, .sigma = 2, .count = 10}},
        {"fedavg",
         "privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 1e-5, sampling_rate: 0.1, "
         "examples: 1000, noise: distributed}\nsecure_aggregation: {corrupt: 0, dropout: 0}\n"
         "set: {train.steps: 1, train.momentum: 0}",
         FL_RELEASE_MASKED,
         {.q = 0.1, .sigma = 2, .count = 1},
         {.q = 0.1, .sigma = 2, .count = 10}},
        {"local",
         "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5}",
         FL_RELEASE_NOTHING,
         {.q = 1, .count = 0},
         {.q = 1, .count = 0}},
    };
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    const struct fl_release_row *row = NULL;
    struct fl_event got, all[FL_RELEASE_EVENTS_MAX];
    uint32_t n = 1;
    struct fl_err e = {0};

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        ck_assert_msg(parse(plan, cases[i].strategy, cases[i].privacy, &e) == 0, "%s", e.msg);
        ck_assert_int_eq(fl_release_row(plan, &row, &e), 0);
        ck_assert_int_eq(row->kind, cases[i].kind);
        for (int job = 0; job < 2; job++) {
            const struct fl_event *want = job ? &cases[i].job : &cases[i].round;
            ck_assert_int_eq(
                job ? fl_release_total(plan, 2, all, &n, &e) : fl_release_event(plan, &got, &e), 0);
            got = job ? all[0] : got;
            ck_assert_uint_eq(n, 1);
            ck_assert_int_eq(got.mechanism, want->mechanism);
            ck_assert_uint_eq(got.count, want->count);
            ck_assert_double_eq(got.q, want->q);
            ck_assert_double_eq(got.count ? got.sigma : 0, want->sigma);
            ck_assert_double_eq(got.a, want->a);
        }
    }
    ck_assert_int_eq(parse(plan, "fedavg", "", &e), 0);
    ck_assert_int_eq(fl_release_row(plan, &row, &e), 0);
    ck_assert_ptr_null(row);
    ck_assert_int_eq(fl_release_total(plan, 2, all, &n, &e), 0);
    ck_assert_uint_eq(all[0].count, 0);
    fl_free(plan);
}
END_TEST

/* A strategy that nobody wrote a row for trains and aggregates as it likes, without an epsilon. */
START_TEST(test_without_a_row_there_is_no_epsilon)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    const struct fl_release_row *row = NULL;
    struct fl_event event, all[FL_RELEASE_EVENTS_MAX];
    uint32_t n;
    struct fl_err e = {0};

    ck_assert_int_eq(
        parse(plan, "fedavg", "privacy: {unit: client, clip: 1, epsilon: 2, delta: 1e-5}", &e), 0);
    snprintf(plan->strategy, sizeof plan->strategy, "novel");
    ck_assert_int_eq(fl_release_row(plan, &row, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_nonnull(strstr(e.msg, "novel has no row"));
    ck_assert_int_eq(fl_release_event(plan, &event, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_int_eq(fl_release_total(plan, 2, all, &n, &e), -FL_R_PLAN_PRIVACY);
    plan->privacy.unit = FL_UNIT_NONE;
    ck_assert_int_eq(fl_release_row(plan, &row, &e), 0);
    fl_free(plan);
}
END_TEST

START_TEST(test_rules_of_the_place)
{
    static const struct {
        const char *privacy, *says;
    } cases[] = {
        {"privacy: {unit: example, clip: 1, epsilon: 2, delta: 1e-5, sampling_rate: 0.1, examples: "
         "100, noise: central}",
         "protects whole sites"},
        {"privacy: {unit: client, clip: 1, epsilon: 2, delta: 1e-5, tree: 8}", "noise: central"},
        {"privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 1e-5, sampling_rate: 0.1, "
         "examples: 100, noise: distributed}\nsecure_aggregation:",
         "one step a round (train.steps: 1)"},
        {"privacy: {unit: client, clip: 1, epsilon: 2, delta: 1e-5, noise: central, tree: 1}",
         "a tree of one round"},
        {"privacy: {unit: client, clip: 1, epsilon: 2, delta: 0.25}", "below 1/4"},
        {"privacy: {unit: example, clip: 1, epsilon: 2, delta: 0.01, sampling_rate: 0.1, examples: "
         "100}",
         "below 1/100"},
        {"privacy: {unit: client, clip: 200, noise_multiplier: 2, delta: 1e-5, noise: central}",
         "raise bits"},
        {"privacy: {unit: client, clip: 1, noise_multiplier: 0.00001, delta: 1e-5, noise: central}",
         "below 4 steps"},
        {"privacy: {unit: client, clip: 1, noise_multiplier: 2, epsilon: 2, delta: 1e-5, noise: "
         "central, tree: 4}",
         "gives epsilon"},
    };
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    char text[2048], *resolved = NULL;
    size_t size;
    struct fl_err e = {0};

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        ck_assert_msg(parse(plan, "fedavg", cases[i].privacy, &e) < 0, "case %zu", i);
        ck_assert_msg(strstr(e.msg, cases[i].says) != NULL, "case %zu: %s", i, e.msg);
    }
    /* Three trees of ceil(log2 5) = 3 levels: sigma = 3 times that of one Gaussian (3.7306 for
     * epsilon 1 at 1e-5). */
    snprintf(text, sizeof text, head, "fedavg",
             "privacy: {unit: client, clip: 1, epsilon: 1, delta: 1e-5, noise: central, tree: 4}");
    ck_assert_msg(fl_plan_resolve(text, strlen(text), &resolved, &size, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_plan_parse(plan, "job.yaml", resolved, size, &e) == 0, "%s", e.msg);
    ck_assert_double_eq_tol(plan->privacy.noise_multiplier, 3 * 3.730632, 1e-3);
    fl_free(resolved);
    fl_free(plan);
}
END_TEST

TESTS_MAIN("releases", test_the_documentation_shows_this_table, test_events_of_a_round_and_of_a_job,
           test_without_a_row_there_is_no_epsilon, test_rules_of_the_place)
