/* What a job says about the coordinator's own arithmetic: its optimizer, and the robust rule
 * instead of the mean. */
#include "common/base/mem.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static struct fl_plan plan;
static struct fl_err err;

static int parse(const char *strategy, const char *more)
{
    char text[2048];

    snprintf(text, sizeof text,
             "name: j\nstrategy: %s\nrounds: 10\n"
             "model: {input: [4], classes: 2, layers: [{linear: {out: 3}}, {linear: {out: 2}}]}\n"
             "train: {lr: 0.1}\nround: {members: 12, quorum: 10}\n%s\n",
             strategy, more);
    return fl_plan_parse(&plan, "job.yaml", text, strlen(text), &err);
}

START_TEST(test_optimizers_by_one_word)
{
    static const struct {
        const char *strategy, *more;
        struct fl_server_opt_conf want;
    } cases[] = {
        {"fedavg", "", {FL_SERVER_AVERAGE, 1, 0, 0.99f, 0.001f}},
        {"fedavgm", "", {FL_SERVER_AVERAGE, 1, 0.9f, 0.99f, 0.001f}},
        {"fedadagrad", "", {FL_SERVER_ADAGRAD, 0.1f, 0, 0.99f, 0.001f}},
        {"fedadam", "", {FL_SERVER_ADAM, 0.1f, 0.9f, 0.99f, 0.001f}},
        {"fedyogi",
         "server: {lr: 0.01, momentum: 0, beta2: 0.9, tau: 0.1}",
         {FL_SERVER_YOGI, 0.01f, 0, 0.9f, 0.1f}},
        {"fedadam", "server: {optimizer: adam}", {FL_SERVER_ADAM, 0.1f, 0.9f, 0.99f, 0.001f}},
        {"fedrep", "server: {optimizer: yogi, lr: 1}", {FL_SERVER_YOGI, 1, 0.9f, 0.99f, 0.001f}},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        ck_assert_msg(parse(cases[i].strategy, cases[i].more) == 0, "%s", err.msg);
        ck_assert_mem_eq(&plan.server, &cases[i].want, sizeof plan.server);
    }
    ck_assert_int_eq(parse("fedadam", "server: {optimizer: yogi}"), -FL_R_CONF_CONFLICT);
    ck_assert_str_eq(err.msg, "job.yaml:7:21: server.optimizer: strategy fedadam is the optimizer "
                              "adam; with strategy fedavg it can be chosen");
    ck_assert_int_eq(parse("fedadam", "server: {tau: 0}"), -FL_R_CONF_RANGE);
    ck_assert_int_eq(parse("fedadam", "server: {beta2: 1}"), -FL_R_CONF_RANGE);
    ck_assert_int_eq(parse("fedavg", "server: {optimizer: lamb}"), -FL_R_CONF_TYPE);
    ck_assert(fl_plan_key_is_free("server.lr") && !fl_plan_key_is_free("server.optimizer"));
}
END_TEST

START_TEST(test_fednova)
{
    ck_assert_msg(parse("{fednova: {steps: 20}}", "") == 0, "%s", err.msg);
    ck_assert_uint_eq(plan.setting.steps, 20);
    ck_assert_int_eq(parse("fednova", ""), -FL_R_CONF_MISSING);
    ck_assert_int_eq(parse("{fednova: {steps: 20}}", "set: {train.optimizer: adam}"),
                     -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.msg, "under fednova the optimizer is sgd"));
}
END_TEST

START_TEST(test_rules)
{
    ck_assert_int_eq(parse("fedavg", ""), 0);
    ck_assert(!plan.aggregate.on);
    ck_assert_msg(parse("hyperfl", "aggregate: {rule: median}") == 0, "%s", err.msg);
    ck_assert(plan.aggregate.on && plan.aggregate.rule == FL_AGGREGATE_MEDIAN);
    ck_assert_msg(parse("fedavg",
                        "aggregate: {rule: centered_clipping, radius: 0.5, iterations: 3, "
                        "momentum: 0.9, clip: 10, byzantine: 2, bucket: 2, before: "
                        "bucketing}") == 0,
                  "%s", err.msg);
    const struct fl_aggregate_conf *a = &plan.aggregate;
    ck_assert(a->rule == FL_AGGREGATE_CENTERED_CLIPPING && a->before == FL_AGGREGATE_BUCKETING);
    ck_assert(a->radius == 0.5 && a->iterations == 3 && a->momentum == 0.9 && a->clip == 10);
    ck_assert(a->byzantine == 2 && a->bucket == 2);
    ck_assert_msg(parse("fedavg", "aggregate: {rule: pcb, clip: 10, scale: 1.2}") == 0, "%s",
                  err.msg);
    ck_assert(a->rule == FL_AGGREGATE_PCB && a->keep == 0.1 && a->scale == 1.2);
    /* What a site adds before its update leaves is none of the rule's business. */
    ck_assert_msg(parse("fedavg", "aggregate: {rule: krum, byzantine: 3}\n"
                                  "grid: {bits: 24, step: -12}\n"
                                  "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: "
                                  "1e-5}") == 0,
                  "%s", err.msg);
    ck_assert(!fl_plan_key_is_free("aggregate.rule") && !a->gates.on);
    ck_assert_msg(parse("fedavg", "aggregate: {gates: {norm: 3, cosine: 0}}") == 0, "%s", err.msg);
    ck_assert(a->gates.on && a->gates.norm == 3 && a->gates.cosine == 0 && a->gates.distance == 0);
    ck_assert(a->gates.decay == 0.9 && a->gates.quarantine == 0.9);
}
END_TEST

START_TEST(test_rules_that_cannot_be)
{
    static const struct {
        const char *strategy, *more;
        enum fl_reason reason;
        const char *says;
    } cases[] = {
        {"fedavg", "aggregate: {rule: bulyan}", FL_R_CONF_TYPE, "job.yaml:7:19: aggregate.rule"},
        {"fedavg", "aggregate: {rule: trimmed_mean}", FL_R_CONF_MISSING,
         "job.yaml:7:1: aggregate: byzantine is missing: trimmed_mean needs"},
        {"fedavg", "aggregate: {before: nearest_neighbour_mixing}", FL_R_CONF_MISSING,
         "byzantine is missing: nearest_neighbour_mixing needs"},
        {"fedavg", "aggregate: {rule: centered_clipping}", FL_R_CONF_MISSING, "radius is missing"},
        {"fedavg", "aggregate: {rule: krum, byzantine: 4}", FL_R_CONF_CONFLICT,
         "job.yaml:7:36: aggregate.byzantine: 4 bad ones among 10: krum needs at least 11"},
        {"fedavg", "aggregate: {rule: median, byzantine: 5}", FL_R_CONF_CONFLICT,
         "5 bad ones among 10: median needs at least 11"},
        {"fedavg", "aggregate: {before: bucketing, bucket: 4, byzantine: 2}", FL_R_CONF_CONFLICT,
         "2 bad ones among 3 buckets: mean needs at least 5"},
        {"fedavg", "aggregate: {rule: median}\nweights: examples", FL_R_CONF_CONFLICT,
         "job.yaml:8:10: weights: a weight is what a site says of itself"},
        {"fedavg", "aggregate: {rule: median}\nsecure_aggregation:", FL_R_CONF_CONFLICT,
         "secure_aggregation hides"},
        {"fedavg",
         "aggregate: {clip: 1}\ngrid: {bits: 24, step: -12}\nprivacy: {unit: client, clip: 1, "
         "noise_multiplier: 2, delta: 1e-5, noise: central}",
         FL_R_PLAN_PRIVACY, "noise made for sums does not hide it"},
        {"local", "aggregate: {rule: median}", FL_R_CONF_CONFLICT, "there is nothing to aggregate"},
        {"fedavg", "aggregate: {rule: pcb}", FL_R_CONF_MISSING,
         "job.yaml:7:1: aggregate: clip is missing: pcb lets the largest values win"},
        {"fedavg", "aggregate: {rule: pcb, clip: 1, keep: 0}", FL_R_CONF_RANGE, "aggregate.keep"},
        {"fedavg", "aggregate: {rule: pcb, clip: 1}\nset: {round.members: 65}", FL_R_LIMIT,
         "65 updates with over_select: pcb merges at most 64"},
        {"fedavg", "aggregate: {gates: {norm: 0.5}}", FL_R_CONF_RANGE,
         "aggregate.gates.norm: 0, or at least 1"},
        {"fedavg", "aggregate: {gates: {quarantine: 0.5}}", FL_R_CONF_RANGE, "quarantine"},
        {"fedavg", "aggregate: {rule: median}\nset: {round.members: 1000, round.over_select: 25}",
         FL_R_LIMIT, "1025 with over_select"},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        int r = parse(cases[i].strategy, cases[i].more);
        ck_assert_msg(r == -(int)cases[i].reason && strstr(err.msg, cases[i].says), "%s: %d, %s",
                      cases[i].more, r, err.msg);
    }
}
END_TEST

TESTS_MAIN("plan_server", test_optimizers_by_one_word, test_fednova, test_rules,
           test_rules_that_cannot_be)
