#include "client/core/policy.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct fl_policy policy;
static struct fl_plan *plan;

static void name(char *to, const char *text)
{
    snprintf(to, FL_PLAN_NAME_MAX, "%s", text);
}

/* A site that allows one job strictly and every other one loosely. */
static void given(void)
{
    memset(&policy, 0, sizeof policy);
    policy.job_count = 2;
    struct fl_policy_job *strict = &policy.jobs[0], *any = &policy.jobs[1];
    name(strict->name, "fmnist");
    strict->strategy_count = 2;
    name(strict->strategies[0], "hyperfl");
    name(strict->strategies[1], "fedavg");
    strict->min_noise_multiplier = 0.5;
    strict->max_clip = 1;
    strict->max_update_bytes = 2000;
    strict->budget = (struct fl_budget){.unit = FL_UNIT_CLIENT, .epsilon = 8, .delta = 1e-5};
    name(any->name, "*");

    fl_free(plan);
    plan = fl_new(1, sizeof *plan);
    name(plan->name, "fmnist");
    name(plan->strategy, "hyperfl");
    plan->layout.shared.elements = 1000;
    plan->grid = (struct fl_grid_conf){.bits = 16, .step = -12};
    plan->privacy = (struct fl_privacy_conf){
        .unit = FL_UNIT_CLIENT, .clip = 1, .noise_multiplier = 0.5, .epsilon = 8, .delta = 1e-5};
}

static int judged(const char *expected)
{
    struct fl_err e = {0};
    int r = fl_policy_judge(&policy, plan, &e);

    ck_assert_msg(strstr(e.msg, expected) != NULL, "\"%s\" does not say \"%s\"", e.msg, expected);
    return r;
}

START_TEST(test_what_is_within_every_limit_is_allowed)
{
    given();
    ck_assert_int_eq(judged(""), 0);
    name(plan->name, "other");
    name(plan->strategy, "anything");
    plan->privacy.unit = FL_UNIT_NONE;
    ck_assert_int_eq(judged(""), 0);
}
END_TEST

START_TEST(test_jobs_strategies_and_sizes)
{
    given();
    name(plan->strategy, "local");
    ck_assert_int_eq(judged("strategy local"), -FL_R_POLICY_JOB);
    given();
    plan->layout.shared.elements = 1001;
    ck_assert_int_eq(judged("2002 bytes a round; this site allows at most 2000"), -FL_R_POLICY_JOB);
    given();
    plan->layout.shared.elements = SIZE_MAX;
    ck_assert_int_eq(judged("more than memory"), -FL_R_POLICY_JOB);
    given();
    policy.job_count = 1;
    name(plan->name, "other");
    ck_assert_int_eq(judged("does not list job other"), -FL_R_POLICY_JOB);
    policy.job_count = 0;
    ck_assert_int_eq(judged("does not list"), -FL_R_POLICY_JOB);
}
END_TEST

/* Under masks or not at all; and masked values are wider than bare ones. */
START_TEST(test_masks_and_who_is_trusted_with_the_noise)
{
    given();
    policy.jobs[0].masked = true;
    ck_assert_int_eq(judged("updates one by one; this site's leave only under secure_aggregation"),
                     -FL_R_POLICY_JOB);
    plan->secure = (struct fl_secure_conf){.on = true, .survivors = 3};
    plan->round.members = 20;
    plan->layout.shared.elements = 700;
    policy.jobs[0].max_update_bytes = 1500;
    ck_assert_int_eq(judged("allows at most 1500"), -FL_R_POLICY_JOB);
    policy.jobs[0].max_update_bytes = 2000;
    ck_assert_int_eq(judged(""), 0);
    /* A site without a budget, but with a least noise: what others would add is not its own. */
    double least = policy.jobs[0].min_noise_multiplier;
    struct fl_budget budget = policy.jobs[0].budget;
    policy.jobs[0].budget = (struct fl_budget){.unit = FL_UNIT_NONE};
    policy.jobs[0].min_noise_multiplier = plan->privacy.noise_multiplier;
    ck_assert_int_eq(judged(""), 0);
    plan->privacy.noise = FL_NOISE_DISTRIBUTED;
    ck_assert_int_eq(judged("this site requires at least"), -FL_R_POLICY_NOISE);
    plan->privacy.noise = FL_NOISE_CENTRAL;
    ck_assert_int_eq(judged("has noise multiplier 0; this site requires at least"),
                     -FL_R_POLICY_NOISE);
    policy.jobs[0].budget.noise = FL_NOISE_CENTRAL;
    ck_assert_int_eq(judged(""), 0);
    policy.jobs[0].budget = budget;
    policy.jobs[0].min_noise_multiplier = 0;
    for (int site = FL_NOISE_LOCAL; site <= FL_NOISE_DISTRIBUTED; site++) {
        for (int job = FL_NOISE_LOCAL; job <= FL_NOISE_DISTRIBUTED; job++) {
            policy.jobs[0].budget.noise = (enum fl_noise_place)site;
            plan->privacy.noise = (enum fl_noise_place)job;
            ck_assert_int_eq(judged(job == FL_NOISE_LOCAL || job == site ? ""
                                    : job == FL_NOISE_CENTRAL
                                        ? "leaves the noise to the coordinator"
                                        : "shares the noise"),
                             job == FL_NOISE_LOCAL || job == site ? 0 : -FL_R_POLICY_NOISE);
        }
    }
    policy.jobs[0].min_noise_multiplier = least;
}
END_TEST

START_TEST(test_less_privacy_than_the_site_requires_is_refused)
{
    given();
    plan->privacy.unit = FL_UNIT_EXAMPLE;
    ck_assert_int_eq(judged("unit `example`; this site requires `client`"), -FL_R_POLICY_NOISE);
    plan->privacy.unit = FL_UNIT_NONE;
    ck_assert_int_eq(judged("unit `none`"), -FL_R_POLICY_NOISE);
    given();
    plan->privacy.noise_multiplier = 0.49;
    ck_assert_int_eq(judged("noise multiplier 0.49; this site requires at least 0.5"),
                     -FL_R_POLICY_NOISE);
    plan->privacy.noise_multiplier = NAN;
    ck_assert_int_eq(judged("noise multiplier"), -FL_R_POLICY_NOISE);
    given();
    plan->privacy.clip = 1.01;
    ck_assert_int_eq(judged("clips at 1.01"), -FL_R_POLICY_NOISE);
    given();
    plan->privacy.epsilon = 8.1;
    ck_assert_int_eq(judged("epsilon 8.1; this site's budget"), -FL_R_POLICY_NOISE);
    given();
    plan->privacy.delta = 1e-4;
    ck_assert_int_eq(judged("delta 0.0001"), -FL_R_POLICY_NOISE);
    /* A floor on noise also refuses a job without any, whatever the unit. */
    given();
    policy.jobs[0].budget.unit = FL_UNIT_NONE;
    plan->privacy.unit = FL_UNIT_NONE;
    ck_assert_int_eq(judged("noise multiplier 0"), -FL_R_POLICY_NOISE);
    policy.jobs[0].min_noise_multiplier = 0;
    ck_assert_int_eq(judged("clips at 0"), -FL_R_POLICY_NOISE);
}
END_TEST

START_TEST(test_a_policy_that_means_nothing_is_refused)
{
    struct fl_err e;

    given();
    ck_assert_int_eq(fl_policy_check(&policy, &e), 0);
    name(policy.jobs[1].name, "fmnist");
    ck_assert_int_eq(fl_policy_check(&policy, &e), -FL_R_CONF_DUPLICATE);
    const double epsilons[] = {0, -1, NAN, INFINITY}, deltas[] = {0, -1e-5, 1, NAN};
    for (size_t i = 0; i < 4; i++) {
        given();
        policy.jobs[0].budget.epsilon = epsilons[i];
        ck_assert_int_eq(fl_policy_check(&policy, &e), -FL_R_CONF_RANGE);
        given();
        policy.jobs[0].budget.delta = deltas[i];
        ck_assert_int_eq(fl_policy_check(&policy, &e), -FL_R_CONF_RANGE);
    }
    given();
    policy.jobs[0].min_noise_multiplier = NAN;
    ck_assert_int_eq(fl_policy_check(&policy, &e), -FL_R_CONF_RANGE);
    given();
    policy.job_count = FL_POLICY_JOBS_MAX + 1;
    ck_assert_int_eq(fl_policy_check(&policy, &e), -FL_R_CONF_RANGE);
    fl_free(plan);
    plan = NULL;
}
END_TEST

TESTS_MAIN("policy", test_what_is_within_every_limit_is_allowed, test_jobs_strategies_and_sizes,
           test_masks_and_who_is_trusted_with_the_noise,
           test_less_privacy_than_the_site_requires_is_refused,
           test_a_policy_that_means_nothing_is_refused)
