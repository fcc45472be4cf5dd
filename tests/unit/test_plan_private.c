/* What a plan says of privacy and of secure sums, and which claims it may not make. */
#include "common/plan/exchange.h"
#include "common/plan/secure.h"
#include "common/privacy/accountant.h"
#include "tests/lib/plan_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char client[] = "  unit: client\n  clip: 0.5\n  delta: 1e-5\n";
static const char example[] = "  unit: example\n  clip: 1\n  delta: 1e-5\n";

static void private_bad(const char *head, const char *rest, const char *more, int reason,
                        const char *message)
{
    char section[512];
    snprintf(section, sizeof section, "%s%s", head, rest);
    bad(26, section, more, reason, message);
}

START_TEST(test_privacy_claims_that_cannot_be_made)
{
    bad(26, "  epsilon: 8\n  delta: 1e-5", "", FL_R_PLAN_PRIVACY,
        "job.yaml:25:1: privacy: epsilon or noise without a unit protects nothing");
    good(26, "  unit: none\n  epsilon: 8\n  delta: 1e-5", "");
    bad(26, "  unit: client\n  delta: 1e-5\n  epsilon: 8", "", FL_R_CONF_MISSING,
        "job.yaml:25:1: privacy: clip is missing");
    bad(26, "  unit: client\n  clip: 1\n  epsilon: 8", "", FL_R_CONF_MISSING,
        "job.yaml:25:1: privacy: delta is missing");
    private_bad(client, "", "", FL_R_CONF_MISSING, "job.yaml:25:1: privacy: epsilon (or noise");
    private_bad(client, "  epsilon: 0", "", FL_R_CONF_RANGE, "job.yaml:29:12: privacy.epsilon: ");
    private_bad(client, "  epsilon: .inf", "", FL_R_CONF_TYPE, "job.yaml:29:12: privacy.epsilon: ");
    bad(26, "  delta: 1", "", FL_R_CONF_RANGE, "job.yaml:26:10: privacy.delta: 1 is not above 0");
    private_bad(client, "  epsilon: 8", "weights: examples\n", FL_R_PLAN_PRIVACY,
                "job.yaml:30:10: weights: weights by the number of examples tell");
    private_bad(client, "  noise_multiplier: 0.37", "", 0, "");
    private_bad(client, "  noise_multiplier: 0.38", "grid: {bits: 16, step: -14}\n",
                FL_R_PLAN_OVERFLOW,
                "job.yaml:30:14: grid.bits: the grid holds values up to 2, but clip and 8 sigma");
    private_bad(client, "  noise_multiplier: 0.3\n  epsilon: 8", "", FL_R_PLAN_PRIVACY,
                "job.yaml:29:21: privacy.noise_multiplier: 0.3 over 30 rounds gives epsilon ");
    private_bad("  unit: client\n  clip: 1e-5\n  delta: 1e-5\n", "  noise_multiplier: 1", "",
                FL_R_PLAN_PRIVACY, "job.yaml:27:9: privacy.clip: 1e-05 is below one step");
    private_bad("  unit: client\n  clip: 0.001\n  delta: 1e-5\n", "  noise_multiplier: 0.001", "",
                FL_R_PLAN_PRIVACY, "job.yaml:27:9: privacy.clip: the noise");
}
END_TEST

START_TEST(test_unit_example_needs_all_it_counts)
{
    const char *all = "  epsilon: 8\n  sampling_rate: 0.1\n  examples: 200";

    private_bad(example, "  epsilon: 8\n  examples: 200", "", FL_R_CONF_MISSING,
                "job.yaml:25:1: privacy: sampling_rate is missing: the unit example needs it");
    private_bad(example, "  epsilon: 8\n  sampling_rate: 0.1", "", FL_R_CONF_MISSING,
                "job.yaml:25:1: privacy: examples is missing");
    private_bad(example, all, "", FL_R_CONF_MISSING, "job.yaml:18:1: train: steps is missing");
    private_bad(example, all, "set: {train.steps: 10}\n", FL_R_PLAN_PRIVACY,
                "job.yaml:21:18: train.head.epochs: the unit example trains head and body in the "
                "same noised steps");
    private_bad(example, all, "set: {train.steps: 10, train.head.epochs: 0}\n", 0, "");
    ck_assert(!fl_plan_resolved(&plan));
    /* no private head, no stage to refuse */
    private_bad(example, all, "set: {train.steps: 10, strategy: fedavg}\n", 0, "");
    private_bad(example, "  clipping: fierce\n  epsilon: 8\n  sampling_rate: 0.1", "",
                FL_R_CONF_TYPE,
                "job.yaml:29:13: privacy.clipping: fierce is not one of flat, per_layer");
    private_bad(example,
                "  clipping: per_layer\n  epsilon: 8\n  sampling_rate: 0.1\n  examples: 200",
                "set: {train.steps: 10, strategy: fedavg}\n", 0, "");
    ck_assert_int_eq(plan.privacy.clipping, FL_CLIPPING_PER_LAYER);
    private_bad(client, "  clipping: per_layer\n  epsilon: 8", "", FL_R_PLAN_PRIVACY,
                "job.yaml:29:13: privacy.clipping: clipping by layer is for the unit example");
    private_bad(example, "  epsilon: 8\n  sampling_rate: 1.5", "", FL_R_CONF_RANGE,
                "job.yaml:30:18: privacy.sampling_rate: 1.5");
}
END_TEST

static double epsilon_of(double q, double sigma, uint64_t count)
{
    struct fl_event ev = {.q = q, .sigma = sigma, .count = count};
    enum fl_bound bound;
    double epsilon;

    ck_assert_int_eq(fl_epsilon(&ev, 1, 1e-5, &epsilon, &bound, &err), 0);
    return epsilon;
}

static void resolve(const char *section, const char *more, double q, uint64_t count)
{
    char *text = text_with(26, section, more), *resolved, *again;
    size_t size, again_size;

    ck_assert_int_eq(parse(text), 0);
    ck_assert(!fl_plan_resolved(&plan) && plan.privacy.noise_multiplier == 0);
    ck_assert_msg(fl_plan_resolve(text, strlen(text), &resolved, &size, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(strlen(resolved), size);
    ck_assert_int_eq(parse(resolved), 0);
    ck_assert(fl_plan_resolved(&plan));
    double sigma = plan.privacy.noise_multiplier;
    ck_assert_double_le(epsilon_of(q, sigma, count), 8);
    ck_assert_double_gt(epsilon_of(q, sigma * 0.998, count), 8);
    ck_assert_int_eq(fl_plan_resolve(resolved, size, &again, &again_size, &err), 0);
    ck_assert(size == again_size && memcmp(resolved, again, size) == 0);
    /* twice the rounds are more than this multiplier pays for */
    fl_free(again);
    again = NULL;
    ck_assert_int_eq(fl_plan_set(resolved, size, "rounds", "60", &again, &again_size, &err),
                     -FL_R_PLAN_PRIVACY);
    fl_free(resolved);
    fl_free(text);
}

START_TEST(test_resolving_epsilon)
{
    resolve("  unit: client\n  clip: 0.1\n  delta: 1e-5\n  epsilon: 8", "grid: {step: -12}\n", 1,
            30);
    resolve("  unit: example\n  clip: 1\n  delta: 1e-5\n  epsilon: 8\n  sampling_rate: 0.1\n"
            "  examples: 80",
            "set: {train.steps: 10, train.head.epochs: 0}\n", 0.1, 300);

    char *text = text_with(0, "", ""), *copy;
    size_t size;
    ck_assert_int_eq(fl_plan_resolve(text, strlen(text), &copy, &size, &err), 0);
    ck_assert_str_eq(text, copy);
    fl_free(copy);
    fl_free(text);
}
END_TEST

/* Counts need noise, a unit and classes; what they cost is part of the epsilon. */
START_TEST(test_counts_and_their_epsilon)
{
    char *text = text_with(26, "  clip: 0", ""), *with, *resolved;
    size_t size;
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];

    ck_assert_int_eq(
        fl_plan_override(text, strlen(text), "counts.noise_multiplier", "2", &with, &size, &err),
        -FL_R_PLAN_PRIVACY);
    fl_free(text);
    char *plain = fl_strdup("name: c\nstrategy: fedavg\nrounds: 10\n"
                            "model: {input: [4], classes: 3, layers: [{linear: {out: 3}}]}\n"
                            "train: {lr: 0.1}\nround: {members: 2}\ngrid: {step: -10}\n"
                            "privacy: {unit: client, clip: 1, delta: 1e-5, epsilon: 8}\n");
    ck_assert_msg(fl_plan_resolve(plain, strlen(plain), &resolved, &size, &err) == 0, "%s",
                  err.msg);
    ck_assert_int_eq(parse(resolved), 0);
    fl_free(resolved);
    double alone = plan.privacy.noise_multiplier;
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 1, terms), 1);

    ck_assert_int_eq(fl_plan_override(plain, strlen(plain), "counts.noise_multiplier", "0.1", &with,
                                      &size, &err),
                     -FL_R_CONF_RANGE);
    ck_assert_int_eq(
        fl_plan_override(plain, strlen(plain), "counts.noise_multiplier", "4", &with, &size, &err),
        0);
    ck_assert_msg(fl_plan_resolve(with, strlen(with), &resolved, &size, &err) == 0, "%s", err.msg);
    ck_assert_int_eq(parse(resolved), 0);
    fl_free(resolved);
    fl_free(with);
    ck_assert_double_gt(plan.privacy.noise_multiplier, alone);
    /* Gaussians of all rounds and of the counts together: sum of 1 / sigma^2 stays what it was. */
    double sum = 10 / pow(plan.privacy.noise_multiplier, 2) + 1 / 16.0;
    ck_assert_double_eq_tol(sum, 10 / (alone * alone), 1e-3 * sum);
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 1, terms), 2);
    ck_assert_str_eq(terms[0].name, "counts");
    ck_assert_uint_eq(terms[0].size, 3 * 4);
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 2, terms), 1);
    ck_assert_int_eq(
        fl_plan_override(plain, strlen(plain), "score.noise_multiplier", "4", &with, &size, &err),
        0);
    ck_assert_int_eq(fl_plan_resolve(with, strlen(with), &resolved, &size, &err), 0);
    ck_assert_int_eq(parse(resolved), 0);
    fl_free(resolved);
    fl_free(with);
    sum = 10 / pow(plan.privacy.noise_multiplier, 2) + 1 / 16.0;
    ck_assert_double_eq_tol(sum, 10 / (alone * alone), 1e-3 * sum);
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 9, terms), 1);
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 10, terms), 2);
    ck_assert_str_eq(terms[0].name, "score");
    ck_assert_uint_eq(terms[0].size, 4);
    ck_assert_int_eq(fl_plan_override(plain, strlen(plain), "score.noise_multiplier", "0.005",
                                      &with, &size, &err),
                     -FL_R_PLAN_PRIVACY);
    ck_assert_int_eq(fl_plan_override(plain, strlen(plain), "counts.noise_multiplier", "0.3", &with,
                                      &size, &err),
                     0);
    ck_assert_int_eq(fl_plan_resolve(with, strlen(with), &resolved, &size, &err),
                     -FL_R_PLAN_PRIVACY);
    fl_free(with);
    fl_free(plain);
}
END_TEST

/* ---- secure sums ---- */

START_TEST(test_secure_aggregation)
{
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];
    struct fl_secagg_setup setup, other;
    const uint8_t one[16] = {1}, two[16] = {2};
    struct fl_err e;

    good(0, "", "secure_aggregation:\n");
    ck_assert(plan.secure.on);
    ck_assert_uint_eq(plan.secure.survivors, 15);
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 1, terms), 5);
    ck_assert_str_eq(terms[0].name, "secagg-advertise");
    ck_assert(!terms[0].same_cohort && !terms[0].input && !terms[0].model);
    ck_assert_str_eq(terms[2].name, "secagg-mask");
    ck_assert(terms[2].same_cohort && terms[2].input && terms[2].model);
    ck_assert_int_eq(terms[4].payload, FL_PAYLOAD_BYTES);
    /* 20 times 32767 needs 20 bits and a sign. */
    ck_assert_int_eq(fl_plan_secure_setup(&plan, one, 7, 0, &setup, &e), 0);
    ck_assert_uint_eq(setup.bits, 21);
    ck_assert_uint_eq(terms[2].size, 40 + (setup.count * 21 + 7) / 8);
    ck_assert_uint_eq(setup.members_min, 15);
    ck_assert_uint_eq(setup.members_max, 20);
    /* Another incarnation, round or slot is another sum. */
    for (int what = 0; what < 3; what++) {
        ck_assert_int_eq(fl_plan_secure_setup(&plan, what == 0 ? two : one, what == 1 ? 8 : 7,
                                              what == 2, &other, &e),
                         0);
        ck_assert_mem_ne(&other.context, &setup.context, sizeof setup.context);
    }
    good(0, "", "");
    ck_assert(!plan.secure.on);
    ck_assert_uint_eq(fl_plan_exchanges(&plan, 1, terms), 1);
    ck_assert_str_eq(terms[0].name, "update");
    good(0, "", "secure_aggregation: {corrupt: 0.3, dropout: 0.2, survivors: 12}\n");
}
END_TEST

static void refused(unsigned line, const char *instead, const char *more, int reason,
                    const char *part)
{
    char *text = text_with(line, instead, more);
    int r = parse(text);
    ck_assert_msg(r == -reason && strstr(err.msg, part), "%d, not %d: %s", r, -reason, err.msg);
    fl_free(text);
}

/* Noise that members share: the floor on honest finishers, and what it asks of the grid. */
START_TEST(test_shared_noise)
{
#define SHARED(multiplier)                                                                         \
    "  unit: client\n  clip: 1\n  noise_multiplier: " multiplier                                   \
    "\n  delta: 1e-5\n  noise: distributed"
    const char *section = SHARED("1.3");

    good(26, section, "secure_aggregation:\ngrid: {bits: 20, step: -14}\n");
    ck_assert_uint_eq(fl_plan_noise_sharers(&plan), 13); /* 15 survivors, 2 of 20 collude */
    ck_assert_double_eq_tol(fl_plan_own_multiplier(&plan), 1.3 / sqrt(13), 1e-9);
    good(26, section, "secure_aggregation: {survivors: 5}\ngrid: {bits: 20, step: -14}\n");
    ck_assert_uint_eq(fl_plan_noise_sharers(&plan), 3);
    refused(26, section, "grid: {bits: 20, step: -14}\n", FL_R_PLAN_PRIVACY,
            "noise that members share is too little for each of them alone: it needs "
            "secure_aggregation");
    /* 16 bits of 2^-14 reach to 2: fine for each member's 8 sigma, not for all that it may draw. */
    refused(26, section, "secure_aggregation:\n", FL_R_PLAN_OVERFLOW,
            "the largest noise of one member");
    section = SHARED("0.0007");
    refused(26, section, "secure_aggregation:\ngrid: {bits: 20, step: -14}\n", FL_R_PLAN_PRIVACY,
            "each member's part of the noise is below 4 steps");
    section = "  unit: client\n  clip: 1\n  noise_multiplier: 1.3\n  delta: 1e-10\n"
              "  noise: distributed";
    refused(26, section, "secure_aggregation:\ngrid: {bits: 20, step: -14}\n", FL_R_PLAN_PRIVACY,
            "2^-40 each");
}
END_TEST

/* What cannot be had together with it is refused at submission, in words. */
START_TEST(test_secure_aggregation_rules)
{
    refused(
        0, "", "secure_aggregation:\nweights: examples\n", FL_R_CONF_CONFLICT,
        "job.yaml:28:10: weights: the coordinator cannot weigh updates that it does not see: under "
        "secure_aggregation weights are equal");
    refused(2, "strategy: local", "secure_aggregation:\n", FL_R_CONF_CONFLICT,
            "nothing leaves a site under strategy local: there is nothing to sum");
    refused(24, "  over_select: 2", "secure_aggregation:\n", FL_R_CONF_CONFLICT,
            "an update that is too many cannot be left out of a secure sum");
    refused(0, "", "secure_aggregation: {survivors: 16}\n", FL_R_CONF_CONFLICT,
            "16 is more than round.quorum (15)");
    refused(0, "", "secure_aggregation: {survivors: 4}\n", FL_R_CONF_CONFLICT,
            "a sum of 4, 2 of which may collude, hides an update among fewer than three");
    refused(24, "  quorum: 2", "secure_aggregation: {corrupt: 0}\n", FL_R_CONF_CONFLICT,
            "a sum of 2, 0 of which may collude");
    refused(0, "", "secure_aggregation: {corrupt: 0.45, dropout: 0.45}\n", FL_R_CONF_RANGE,
            "must agree on who is left");
    refused(23, "  members: 20000", "secure_aggregation: {corrupt: 0}\n", FL_R_CONF_RANGE,
            "secure aggregation of 20000 agents: 2 to 16384 are possible");
    refused(2, "strategy: {hyperfl: yes}", "secure_aggregation:\n", FL_R_CONF_TYPE, "");
    refused(0, "", "secure_aggregation: {ring: 20}\n", FL_R_CONF_UNKNOWN, "");
    refused(26,
            "  unit: client\n  clip: 1\n  noise_multiplier: 2\n  delta: 1e-5\n  noise: central\n"
            "  tree: 4",
            "secure_aggregation:\n", FL_R_CONF_CONFLICT, "trees do not go together");
}
END_TEST

TESTS_MAIN("plan_private", test_privacy_claims_that_cannot_be_made,
           test_unit_example_needs_all_it_counts, test_resolving_epsilon,
           test_counts_and_their_epsilon, test_secure_aggregation, test_shared_noise,
           test_secure_aggregation_rules)
