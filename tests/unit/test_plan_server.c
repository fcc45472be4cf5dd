/* What a job says about the coordinator's own arithmetic: its optimizer. */
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

TESTS_MAIN("plan_server", test_optimizers_by_one_word)
