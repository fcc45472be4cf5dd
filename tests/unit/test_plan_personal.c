/* Settings of strategies with a model for each agent, and of buffers, and what does not go with
 * them. */
#include "common/base/mem.h"
#include "common/plan/exchange.h"
#include "common/plan/releases.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static struct fl_plan plan;
static struct fl_err e;

static int parse(const char *strategy, const char *more)
{
    char text[1024];

    snprintf(text, sizeof text,
             "name: j\nstrategy: %s\nrounds: 10\nmodel: {input: [4], classes: 2, layers: [{linear: "
             "{out: 2}}]}\ntrain: {lr: 0.1, steps: 2}\n%s\n",
             strategy, more);
    return fl_plan_parse(&plan, "job.yaml", text, strlen(text), &e);
}

static void refused(const char *strategy, const char *more, int reason, const char *message)
{
    int r = parse(strategy, more);

    ck_assert_msg(r == -reason, "%d, not %d: %s", r, -reason, e.msg);
    ck_assert_msg(strncmp(e.msg, message, strlen(message)) == 0, "%s", e.msg);
}

#define TEN "round: {members: 10}"

START_TEST(test_settings_of_fedcac)
{
    const struct fl_fedcac_conf *c = &plan.setting.fedcac;

    ck_assert_msg(parse("fedcac", TEN) == 0, "%s", e.msg);
    ck_assert(plan.layout.visibility == FL_VISIBILITY_ALL_SHARED);
    ck_assert(c->variant == FL_PERSONAL_BETTER && c->tau == 0.5 && c->partners == 1 &&
              c->decay == 0.9);
    ck_assert_uint_eq(plan.setting.homes, 256);
    ck_assert_msg(parse("{fedcac: {variant: published, tau: 0.4, beta: 170, homes: 40}}", TEN) == 0,
                  "%s", e.msg);
    ck_assert(c->variant == FL_PERSONAL_PUBLISHED && c->tau == 0.4 && c->beta == 170);
    ck_assert_int_eq(parse("fedavg", TEN), 0);
    ck_assert_uint_eq(plan.setting.homes, 0);

    refused("{fedcac: {variant: newer}}", TEN, FL_R_CONF_TYPE,
            "job.yaml:2:30: strategy.fedcac.variant");
    refused("{fedcac: {tau: 1.5}}", TEN, FL_R_CONF_RANGE, "job.yaml:2:26: strategy.fedcac.tau");
    refused("{fedcac: {variant: published, beta: 0}}", TEN, FL_R_CONF_RANGE,
            "job.yaml:2:47: strategy.fedcac.beta");
    refused("{fedcac: {beta: 100}}", TEN, FL_R_CONF_CONFLICT,
            "job.yaml:2:21: strategy.fedcac.beta: this is of variant published, not of better");
    refused("{fedcac: {variant: published, partners: 3}}", TEN, FL_R_CONF_CONFLICT,
            "job.yaml:2:41: strategy.fedcac.partners: this is of variant better");
}
END_TEST

/* The transformer of PA-CFL: a row is a sequence of one; 52 289 weights. */
START_TEST(test_the_published_transformer)
{
    static const char text[] =
        "name: j\nstrategy: {pacfl: {variant: published}}\nrounds: 100\n"
        "model: {input: [1, 1, 27], targets: 1, layers: [{sequence: {}}, {linear: {out: 64}}, "
        "{transformer_encoder: {layers: 2, heads: 8, feed_forward: 64, dropout: 0.5}}, "
        "{first_token: {}}, {linear: {out: 1}}]}\n"
        "train: {batch: 32, epochs: 10, lr: 5e-5, optimizer: adam}\nround: {members: 8}\n";

    ck_assert_msg(fl_plan_parse(&plan, "job.yaml", text, sizeof text - 1, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(plan.layout.theta.elements, 52289);
}
END_TEST

START_TEST(test_narrow_grids)
{
    ck_assert_msg(parse("fedavg", TEN "\ngrid: {bits: 8, step: -7, narrow: 4}") == 0, "%s", e.msg);
    ck_assert_uint_eq(plan.grid.narrow, 4);
    refused("fedavg", TEN "\ngrid: {bits: 8, narrow: 5}", FL_R_CONF_CONFLICT,
            "job.yaml:7:25: grid");
    refused("fedavg", TEN "\ngrid: {bits: 9, narrow: 4}", FL_R_CONF_CONFLICT,
            "job.yaml:7:25: grid");
    refused("fedavg",
            TEN "\ngrid: {bits: 8, narrow: 4, step: -4}\nprivacy: {unit: client, noise: "
                "central, clip: 4, noise_multiplier: 1, delta: 1e-5}",
            FL_R_CONF_CONFLICT, "job.yaml:7:25: grid");
    refused("fedavg", TEN "\ngrid: {bits: 8, narrow: 4}\nsecure_aggregation:", FL_R_CONF_CONFLICT,
            "job.yaml:7:25: grid");
}
END_TEST

START_TEST(test_settings_of_fedbuff)
{
    const char *const three = "{fedbuff: {buffer: 3}}";
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];

    ck_assert_msg(parse("{fedbuff: {buffer: 3, staleness: 7}}", TEN) == 0, "%s", e.msg);
    ck_assert(plan.setting.buffer.size == 3 && plan.setting.buffer.staleness == 7);
    ck_assert(plan.round.quorum == 3 && plan.max_weight == FL_BUFFER_FRESH);
    ck_assert_uint_eq(plan.round.late_rounds, 7); /* a lost Ack is said again as late */
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 2, terms), 1);
    ck_assert_uint_eq(terms[0].max_weight, 1); /* a site has no word in it, nor says its size */
    ck_assert_uint_eq(fl_plan_weight_max(&plan), FL_BUFFER_FRESH);
    ck_assert_int_eq(parse(three, TEN), 0);
    ck_assert_uint_eq(plan.setting.buffer.staleness, 4);
    ck_assert_int_eq(parse(three, TEN "\naggregate: {rule: pcb, clip: 1}"), 0);
    ck_assert_int_eq(parse("fedavg", TEN), 0);
    ck_assert(plan.setting.buffer.size == 0 && plan.max_weight == 1);

    refused("fedbuff", TEN, FL_R_CONF_MISSING, "job.yaml:2:1: strategy: buffer is missing");
    refused("{fedbuff: {buffer: 11}}", TEN, FL_R_CONF_CONFLICT,
            "job.yaml:2:30: strategy.fedbuff.buffer: strategy fedbuff: larger than round.members");
    refused("{fedbuff: {buffer: 3, staleness: 65}}", TEN, FL_R_CONF_RANGE,
            "job.yaml:2:44: strategy.fedbuff.staleness");
    refused(three, "round: {members: 10, quorum: 4}", FL_R_CONF_CONFLICT,
            "job.yaml:6:30: round.quorum");
    refused(three, "round: {members: 10, over_select: 1}", FL_R_CONF_CONFLICT,
            "job.yaml:6:35: round.over_select");
    refused(three, TEN "\nweights: examples", FL_R_CONF_CONFLICT, "job.yaml:7:10: weights");
    refused(three, TEN "\naggregate: {rule: median}", FL_R_CONF_CONFLICT, "job.yaml:7:");
    refused(three, TEN "\naggregate: {rule: pcb, gates: {norm: 3}}", FL_R_CONF_CONFLICT,
            "job.yaml:7:");
    refused(three, TEN "\nscore: {}", FL_R_CONF_CONFLICT, "job.yaml:7:");
}
END_TEST

START_TEST(test_settings_of_fedamp)
{
    const struct fl_fedamp_conf *c = &plan.setting.fedamp;

    ck_assert_msg(parse("fedamp", TEN) == 0, "%s", e.msg);
    ck_assert(c->variant == FL_PERSONAL_BETTER && c->sigma == 1 && c->self == 0.5);
    ck_assert(plan.setting.mu == 0.01f && plan.setting.homes == 256);
    ck_assert_msg(parse("{fedamp: {variant: published, sigma: 50, alpha: 20, mu: 0}}", TEN) == 0,
                  "%s", e.msg);
    ck_assert(c->variant == FL_PERSONAL_PUBLISHED && c->sigma == 50 && c->alpha == 20);
    refused("{fedamp: {sigma: 0}}", TEN, FL_R_CONF_RANGE, "job.yaml:2:28: strategy.fedamp.sigma");
    refused("{fedamp: {alpha: 1}}", TEN, FL_R_CONF_CONFLICT,
            "job.yaml:2:21: strategy.fedamp.alpha: this is of variant published, not of better");
    refused("{fedamp: {variant: published, self: 0.3}}", TEN, FL_R_CONF_CONFLICT,
            "job.yaml:2:41: strategy.fedamp.self: this is of variant better");
    refused("fedamp", TEN "\nserver: {momentum: 0.9}", FL_R_CONF_CONFLICT,
            "job.yaml:7:9: server: strategy fedamp mixes models");
}
END_TEST

START_TEST(test_what_does_not_go_with_single_models)
{
    refused("{fedcac: {homes: 9}}", TEN, FL_R_CONF_CONFLICT,
            "job.yaml:6:18: round.members: 10 members and a model for each of at most 9 agents");
    refused("fedcac", TEN "\nserver: {momentum: 0.9}", FL_R_CONF_CONFLICT,
            "job.yaml:7:9: server: strategy fedcac mixes models");
    refused("fedcac", TEN "\nserver: {optimizer: adam}", FL_R_CONF_CONFLICT,
            "job.yaml:7:9: server: strategy fedcac mixes models");
    refused("fedcac", TEN "\naggregate: {rule: median}", FL_R_CONF_CONFLICT,
            "job.yaml:7:12: aggregate: strategy fedcac mixes a model for each agent");
    refused("fedcac", TEN "\nsecure_aggregation: {}", FL_R_PLAN_STRATEGY,
            "job.yaml:7:21: secure_aggregation: strategy fedcac compares and mixes");
}
END_TEST

START_TEST(test_units)
{
    struct fl_event event;

    ck_assert_msg(parse("fedcac", TEN "\ngrid: {bits: 24, step: -16}\nprivacy: {unit: client, "
                                      "clip: 1, noise_multiplier: 2, delta: 1e-5}") == 0,
                  "%s", e.msg);
    ck_assert_int_eq(fl_release_event(&plan, &event, &e), 0);
    ck_assert(event.count == 1 && event.sigma == 2 && event.q == 1);
    ck_assert_msg(parse("fedcac", TEN "\nprivacy: {unit: example, clip: 1, noise_multiplier: 1, "
                                      "delta: 1e-5, sampling_rate: 0.1, examples: 100}") == 0,
                  "%s", e.msg);
    ck_assert_int_eq(fl_release_event(&plan, &event, &e), 0);
    ck_assert(event.count == 2 && event.sigma == 1 && event.q == 0.1);
    refused("fedcac",
            TEN "\nprivacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5, noise: "
                "central}",
            FL_R_PLAN_PRIVACY,
            "job.yaml:2:11: strategy: strategy fedcac has no row in the table of releases");
}
END_TEST

TESTS_MAIN("plan_personal", test_settings_of_fedcac, test_the_published_transformer,
           test_narrow_grids, test_settings_of_fedbuff, test_settings_of_fedamp,
           test_what_does_not_go_with_single_models, test_units)
