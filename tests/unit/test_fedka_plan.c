/* fedka in a job description: its settings, what it is refused with, and the bytes that its
 * exchanges begin with. */
#include "common/base/mem.h"
#include "common/plan/exchange.h"
#include "common/plan/fedka.h"
#include "common/plan/releases.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct fl_plan plan;
static struct fl_err err;

static const char layers[] = "layers: [{linear: {out: 8}}, {leaky_relu: {}}, {linear: {out: 2}}]";

static int parse_model(const char *strategy, const char *model, const char *more)
{
    char text[2048];

    snprintf(text, sizeof text,
             "name: j\nstrategy: %s\nrounds: 10\nmodel: {input: [4], classes: 2, head: 1, %s}\n"
             "train: {batch: 4, lr: 0.1, steps: 5}\nround: {members: 4}\ngrid: {bits: 24, step: "
             "-16}\n%s\n",
             strategy, model, more);
    memset(&err, 0, sizeof err);
    return fl_plan_parse(&plan, "job.yaml", text, strlen(text), &err);
}

static int parse(const char *strategy, const char *more)
{
    return parse_model(strategy, layers, more);
}

static void good(const char *strategy, const char *more)
{
    ck_assert_msg(parse(strategy, more) == 0, "%s", err.msg);
}

static void bad(const char *strategy, const char *more, int reason, const char *says)
{
    ck_assert_int_eq(parse(strategy, more), -reason);
    ck_assert_msg(strstr(err.msg, says), "%s", err.msg);
}

START_TEST(test_settings_and_what_is_off_where_there_are_no_data)
{
    const struct fl_fedka_conf *c = &plan.setting.fedka;

    good("fedka", "");
    ck_assert(fl_fedka_is(&plan) && fl_fedka_gives(&plan) && !fl_fedka_collects(&plan));
    ck_assert(c->variant == FL_FEDKA_BETTER && c->target == FL_FEDKA_COORDINATOR && c->voting);
    ck_assert(c->matching == 0.1f && c->disentangle == 0.1f && c->guard);
    ck_assert_uint_eq(fl_fedka_width(&plan), 8);
    ck_assert_uint_eq(fl_fedka_embedding(&plan), 500);
    good("{fedka: {matching: 0, disentangle: 0, voting: false, variant: published}}", "");
    ck_assert(!fl_fedka_gives(&plan) && !c->voting && c->variant == FL_FEDKA_PUBLISHED);
    good("{fedka: {target: none}}", "");
    ck_assert(fl_fedka_collects(&plan) && !c->voting && c->disentangle == 0);
    good("{fedka: {target: site, site: harbour}}", "");
    ck_assert(fl_fedka_collects(&plan) && strcmp(c->site, "harbour") == 0);
    good("fedavg", "");
    ck_assert(!fl_fedka_is(&plan) && !fl_fedka_gives(&plan) && !fl_fedka_collects(&plan));
}
END_TEST

START_TEST(test_refusals_say_why)
{
    static const char client[] =
        "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5}";

    bad("{fedka: {target: none, voting: true}}", "", FL_R_CONF_CONFLICT, "votes are cast on");
    bad("{fedka: {target: none, disentangle: 1}}", "", FL_R_CONF_CONFLICT, "single features");
    bad("{fedka: {target: none, variant: published}}", "", FL_R_CONF_CONFLICT, "as published");
    bad("{fedka: {target: site}}", "", FL_R_CONF_MISSING, "the target's name");
    bad("{fedka: {site: harbour}}", "", FL_R_CONF_CONFLICT, "with target: site only");
    bad("{fedka: {frequencies: 12}}", "", FL_R_CONF_RANGE, "a multiple of 5");
    bad("{fedka: {matchin: 1}}", "", FL_R_CONF_UNKNOWN, "did you mean matching?");
    bad("fedka", "secure_aggregation:", FL_R_CONF_CONFLICT, "single members' models");
    bad("fedka", "trainer: exec", FL_R_CONF_CONFLICT, "a program knows nothing of it");
    bad("fedka",
        "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5, noise: central}",
        FL_R_PLAN_PRIVACY, "noise: local");
    bad("fedka",
        "privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 1e-5, sampling_rate: 0.1, "
        "examples: 1000}",
        FL_R_PLAN_PRIVACY, "of one example alone");
    good("{fedka: {matching: 0, disentangle: 0}}",
         "privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 1e-5, sampling_rate: 0.1, "
         "examples: 1000}");
    bad("{fedka: {target: none}}", client, FL_R_PLAN_PRIVACY, "sites noise their embeddings");
    bad("{fedka: {target: none, noise_multiplier: 1}}", "", FL_R_PLAN_PRIVACY, "without a unit");
    bad("{fedka: {noise_multiplier: 1}}", client, FL_R_CONF_CONFLICT, "nothing to noise");
    ck_assert_int_eq(parse_model("fedka", "layers: [{linear: {out: 2}}]", ""), -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.msg, "compares what the head takes"));
    ck_assert_int_eq(
        parse_model("fedka", "layers: [{linear: {out: 9000}}, {linear: {out: 2}}]", ""),
        -FL_R_LIMIT);
}
END_TEST

START_TEST(test_exchanges_and_what_they_cost)
{
    struct fl_exchange_terms list[FL_PLAN_EXCHANGES_MAX];
    struct fl_event all[FL_RELEASE_EVENTS_MAX];
    uint32_t n = 0;

    good("fedka", "");
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 1, list), 1);
    ck_assert(list[0].input && list[0].model);
    good("{fedka: {target: none, noise_multiplier: 3}}",
         "privacy: {unit: client, clip: 1, noise_multiplier: 2, delta: 1e-5}");
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 7, list), 2);
    ck_assert_str_eq(list[0].name, "embedding");
    ck_assert(list[0].input && list[0].model && list[0].elements == 501 && list[0].size == 2004);
    ck_assert(list[1].input && strcmp(list[1].name, "update") == 0);
    ck_assert_int_eq(fl_release_total(&plan, 2, all, &n, &err), 0);
    ck_assert_uint_eq(n, 2);
    ck_assert(all[1].q == 1 && all[1].sigma == 3 && all[1].count == 10);
}
END_TEST

START_TEST(test_what_an_exchange_begins_with_is_checked)
{
    float mean[500], z[3 * 8], *numbers = NULL;
    struct fl_fedka_input in = {.known = true,
                                .bandwidth = 2.5,
                                .width = 8,
                                .length = 500,
                                .features = 3,
                                .mean = mean,
                                .z = z};
    struct fl_fedka_input got;

    good("fedka", "");
    for (size_t i = 0; i < FL_COUNT(mean); i++) {
        mean[i] = (float)i / 1000;
    }
    for (size_t i = 0; i < FL_COUNT(z); i++) {
        z[i] = (float)i - 5;
    }
    size_t size = fl_fedka_input_size(&in);
    uint8_t *bytes = fl_new(size + 8, 1);
    fl_fedka_input_put(&in, bytes);
    ck_assert_int_eq(fl_fedka_input_get(&plan, bytes, size, &got, &numbers, &err), 0);
    ck_assert(got.known && !got.is_target && got.bandwidth == 2.5 && got.features == 3);
    ck_assert_mem_eq(got.mean, mean, sizeof mean);
    ck_assert_mem_eq(got.z, z, sizeof z);
    fl_free(numbers);
    numbers = NULL;
    for (size_t cut = 0; cut < size; cut += 13) {
        ck_assert_int_eq(fl_fedka_input_get(&plan, bytes, cut, &got, &numbers, &err),
                         -FL_R_UPDATE_SHAPE);
    }
    ck_assert_int_eq(fl_fedka_input_get(&plan, bytes, size + 4, &got, &numbers, &err),
                     -FL_R_UPDATE_SHAPE);
    mean[7] = NAN;
    fl_fedka_input_put(&in, bytes);
    ck_assert_int_eq(fl_fedka_input_get(&plan, bytes, size, &got, &numbers, &err),
                     -FL_R_NOT_FINITE);
    mean[7] = 0;
    in.bandwidth = 0;
    fl_fedka_input_put(&in, bytes);
    ck_assert_int_eq(fl_fedka_input_get(&plan, bytes, size, &got, &numbers, &err),
                     -FL_R_NOT_FINITE);
    ck_assert_ptr_null(numbers);
    in = (struct fl_fedka_input){.is_target = true, .bandwidth = 1, .width = 8, .length = 500};
    fl_fedka_input_put(&in, bytes);
    ck_assert_int_eq(
        fl_fedka_input_get(&plan, bytes, fl_fedka_input_size(&in), &got, &numbers, &err), 0);
    ck_assert(got.is_target && !got.known && !got.mean);
    fl_free(numbers);
    fl_free(bytes);
}
END_TEST

START_TEST(test_scores_and_the_ramp)
{
    struct fl_fedka_score s = {.round = 9,
                               .models = 4,
                               .examples = 100,
                               .agreed = 80,
                               .labelled = 50,
                               .previous = 0.5,
                               .members = 0.25,
                               .aggregate = 0.75,
                               .tuned = 0.875,
                               .harm = 1,
                               .kept = 2,
                               .choice = FL_FEDKA_TUNED};
    struct fl_fedka_score got;
    uint8_t bytes[FL_FEDKA_SCORE_SIZE];

    fl_fedka_score_put(&s, bytes);
    fl_fedka_score_get(bytes, &got);
    ck_assert(got.round == 9 && got.models == 4 && got.examples == 100 && got.agreed == 80);
    ck_assert(got.labelled == 50 && got.harm == 1 && got.kept == 2 && got.choice == s.choice);
    ck_assert(got.previous == 0.5 && got.aggregate == 0.75 && got.tuned == 0.875);
    ck_assert(fl_fedka_effect(&got) == 0.5);
    ck_assert(fl_fedka_ramp(1, 200, 0) == 0);
    ck_assert_float_eq_tol(fl_fedka_ramp(200, 200, 1), 0.98661f, 1e-5f); /* 2/(1+e^-5) - 1 */
    ck_assert_float_eq_tol(fl_fedka_ramp(101, 200, 0), 0.84828f, 1e-5f); /* 2/(1+e^-2.5) - 1 */
}
END_TEST

TESTS_MAIN("fedka_plan", test_settings_and_what_is_off_where_there_are_no_data,
           test_refusals_say_why, test_exchanges_and_what_they_cost,
           test_what_an_exchange_begins_with_is_checked, test_scores_and_the_ramp)
