/* Descriptors: against a naive twin, how far one example moves them, what is refused, and what of
 * an epsilon they are given. */
#include "client/produce.h"
#include "common/base/mem.h"
#include "common/plan/descriptor.h"
#include "common/plan/releases.h"
#include "common/privacy/clip.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct fl_err err;
static struct fl_plan *plan;

static const char head[] = "name: d\nstrategy: pacfl\nrounds: 9\n"
                           "model: {input: [%d], %s: %d, layers: [{linear: {out: 6}}, "
                           "{relu: {}}, {linear: {out: %d}}]}\n"
                           "train: {batch: 4, lr: 0.1, steps: 5}\n"
                           "round: {members: 4}\ngrid: {bits: 24, step: -16}\n%s\n";

#define EXAMPLE                                                                                    \
    "privacy: {unit: example, clip: 1, noise_multiplier: 1, delta: 1e-5, sampling_rate: 0.1, "     \
    "examples: 100}\n"
#define CLIENT "privacy: {unit: client, clip: 1, noise_multiplier: 1, delta: 1e-5}\n"

static int parse(int inputs, bool classes, int outputs, const char *more)
{
    char text[2048];

    plan = plan ? plan : fl_new(1, sizeof *plan);
    snprintf(text, sizeof text, head, inputs, classes ? "classes" : "targets", outputs, outputs,
             more);
    return fl_plan_parse(plan, "job.yaml", text, strlen(text), &err);
}

struct site {
    struct fl_dataset data;
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];
    struct fl_seed seed;
    atomic_bool cancel;
};

/* `count` examples of the parsed plan's shape; features within about 3, some far out. */
static void site_init(struct site *s, uint32_t count, uint64_t seed)
{
    size_t inputs = plan->layout.spec.input[0];
    uint32_t targets = fl_descriptor_targets(plan);
    struct fl_seed own;
    struct fl_rng rng;

    memset(s, 0, sizeof *s);
    fl_seed_from_u64(seed, &own);
    fl_rng_init(&rng, &own, 0);
    s->seed = own;
    s->data.shape[0] = (uint32_t)inputs;
    s->data.shape[1] = s->data.shape[2] = 1;
    s->data.train.count = count;
    s->data.train.x = fl_new(count * inputs, sizeof(float));
    for (size_t i = 0; i < count * inputs; i++) {
        s->data.train.x[i] = (float)(fl_rng_normal(&rng) * (i % 7 ? 1 : 1e6));
    }
    if (plan->layout.spec.classes) {
        s->data.train.y = fl_new(count, sizeof(int32_t));
        for (uint32_t i = 0; i < count; i++) {
            s->data.train.y[i] = (int32_t)fl_rng_below(&rng, targets);
        }
    } else {
        s->data.train.target = fl_new(count * targets, sizeof(float));
        s->data.train.target_width = targets;
        for (uint32_t i = 0; i < count * targets; i++) {
            s->data.train.target[i] = (float)fl_rng_normal(&rng);
        }
    }
    (void)fl_plan_exchanges(plan, 1, s->terms);
    ck_assert_str_eq(s->terms[0].name, "descriptor");
}

static void site_fini(struct site *s)
{
    fl_free(s->data.train.x);
    fl_free(s->data.train.y);
    fl_free(s->data.train.target);
}

static int produce(struct site *s, struct fl_produced *ret)
{
    struct fl_produce in = {.plan = plan,
                            .terms = &s->terms[0],
                            .data = &s->data,
                            .seed = &s->seed,
                            .cancel = &s->cancel};
    return fl_producer_find("descriptor")->make(&in, ret, &err);
}

static double cut(double x)
{
    return fmax(-1, fmin(1, x));
}

/* sum of v over the examples, as the header says it. */
static void twin(const struct site *s, double *ret)
{
    size_t inputs = plan->layout.spec.input[0], p = fl_descriptor_features(plan);
    uint32_t targets = fl_descriptor_targets(plan);
    const struct fl_examples *x = &s->data.train;

    memset(ret, 0, fl_descriptor_elements(plan) * sizeof *ret);
    for (uint32_t i = 0; i < x->count; i++) {
        ret[0] += 1 / fl_descriptor_norm(plan);
        for (size_t k = 0; k <= p; k++) {
            double z = k ? cut((double)x->x[i * inputs + k - 1]) : 1;
            for (uint32_t t = 0; t < targets; t++) {
                double y = x->y ? x->y[i] == (int32_t)t : cut((double)x->target[i * targets + t]);
                ret[1 + k * targets + t] += z * y / fl_descriptor_norm(plan);
            }
        }
    }
}

START_TEST(test_agrees_with_its_naive_twin)
{
    static const struct {
        bool classes;
        int outputs;
        const char *more;
        double noise;
    } cases[] = {
        {true, 3, "", 0},
        {false, 1, "", 0},
        {false, 2, "", 0},
        {true, 3, EXAMPLE "descriptor: {noise_multiplier: 0.25}\n", 0.25},
        {false, 2, EXAMPLE "descriptor: {noise_multiplier: 0.25}\n", 0.25},
        {true, 3, CLIENT "descriptor: {noise_multiplier: 0.25}\n", 0.25},
    };

    for (size_t c = 0; c < FL_COUNT(cases); c++) {
        struct site s;
        struct fl_produced got;
        double want[64], step, square = 0;
        ck_assert_msg(parse(5, cases[c].classes, cases[c].outputs, cases[c].more) == 0, "%s",
                      err.msg);
        site_init(&s, 200, c);
        size_t n = fl_descriptor_elements(plan);
        bool sum = plan->privacy.unit == FL_UNIT_EXAMPLE;
        ck_assert_uint_eq(n, s.terms[0].elements);
        ck_assert_uint_eq(n, 1 + 6 * (size_t)cases[c].outputs);
        ck_assert_int_eq(produce(&s, &got), 0);
        step = ldexp(1, fl_descriptor_grid(plan).step);
        twin(&s, want);
        for (size_t i = 0; i < n; i++) {
            double diff = (double)got.q[i] * step - want[i] / (sum ? 1 : s.data.train.count);
            ck_assert_double_le(fabs(diff), 6 * cases[c].noise + (sum ? 200 * step : step));
            square += diff * diff;
        }
        if (cases[c].noise > 0) { /* it is there, and of this size */
            ck_assert_double_ge(sqrt(square / (double)n), 0.4 * cases[c].noise);
            ck_assert_double_eq_tol(got.noise_std, cases[c].noise, 1e-3);
        }
        fl_free(got.q);
        site_fini(&s);
    }
}
END_TEST

/* Integers before noise: the same seed draws the same noise, so it cancels. */
START_TEST(test_one_example_moves_it_by_at_most_one)
{
    for (int classes = 0; classes < 2; classes++) {
        ck_assert_int_eq(parse(40, classes, classes ? 4 : 3,
                               EXAMPLE "descriptor: {noise_multiplier: 1, bound: 0.5}\n"),
                         0);
        int64_t bound, diff[256];
        const struct fl_grid g = fl_descriptor_grid(plan);
        size_t n = fl_descriptor_elements(plan);
        ck_assert_int_eq(fl_clip_bound(&g, 1, &bound, &err), 0);
        double most = 0;
        for (uint64_t seed = 0; seed < 30; seed++) {
            struct site s;
            struct fl_produced all, less;
            site_init(&s, 30, seed);
            for (int i = 0; i < 40; i++) { /* the last one is as large as can be */
                s.data.train.x[29 * 40 + i] = seed % 2 ? 1e30f : -1e30f;
            }
            ck_assert_int_eq(produce(&s, &all), 0);
            s.data.train.count--;
            ck_assert_int_eq(produce(&s, &less), 0);
            double square = 0;
            for (size_t i = 0; i < n; i++) {
                diff[i] = all.q[i] - less.q[i];
                square += (double)diff[i] * (double)diff[i];
            }
            ck_assert(fl_clip_holds(diff, n, bound));
            most = fmax(most, sqrt(square) / (double)bound);
            fl_free(all.q);
            fl_free(less.q);
            site_fini(&s);
        }
        ck_assert_double_ge(most, 0.5); /* and the bound is not an idle one */
    }
}
END_TEST

START_TEST(test_the_same_seed_makes_the_same_bytes)
{
    struct site s;
    struct fl_produced a, b;

    ck_assert_int_eq(parse(300, true, 3, CLIENT "descriptor: {noise_multiplier: 1}\n"), 0);
    ck_assert_uint_eq(fl_descriptor_features(plan), 64); /* projected */
    site_init(&s, 20, 1);
    ck_assert_int_eq(produce(&s, &a), 0);
    ck_assert_int_eq(produce(&s, &b), 0);
    ck_assert_mem_eq(a.q, b.q, s.terms[0].elements * sizeof *a.q);
    fl_free(b.q);
    s.seed.bytes[0] ^= 1;
    ck_assert_int_eq(produce(&s, &b), 0);
    ck_assert_int_ne(memcmp(a.q, b.q, s.terms[0].elements * sizeof *a.q), 0);
    fl_free(a.q);
    fl_free(b.q);
    s.data.train.x[17] = NAN;
    ck_assert_int_eq(produce(&s, &a), -FL_R_NOT_FINITE);
    ck_assert_ptr_null(a.q);
    s.data.train.x[17] = 0;
    s.data.train.y[3] = 3;
    ck_assert_int_eq(produce(&s, &a), -FL_R_DATA_FORMAT);
    s.data.train.y[3] = 0;
    atomic_store(&s.cancel, true);
    ck_assert_int_eq(produce(&s, &a), -FL_R_CANCELLED);
    site_fini(&s);
}
END_TEST

START_TEST(test_memory_that_ends)
{
    struct site s;
    struct fl_produced got;
    bool hit = true;

    ck_assert_int_eq(parse(300, true, 3, CLIENT "descriptor: {noise_multiplier: 1}\n"), 0);
    site_init(&s, 3, 1);
    for (uint64_t n = 1; hit; n++) {
        fl_mem_fail_at(n);
        int r = produce(&s, &got);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert(hit ? r < 0 && !got.q : r == 0);
    }
    fl_free(got.q);
    site_fini(&s);
}
END_TEST

/* What the coordinator reads: moments of an example, and with how much noise; a site of few
 * examples is known with more, and one of too few not at all. */
START_TEST(test_reading)
{
    double sigma[2];
    uint32_t counts[2] = {400, 100};

    ck_assert_int_eq(parse(5, true, 3, EXAMPLE "descriptor: {noise_multiplier: 1}\n"), 0);
    size_t n = fl_descriptor_elements(plan);
    for (int i = 0; i < 2; i++) {
        struct site s;
        struct fl_produced got;
        double want[32];
        float x[32];
        site_init(&s, counts[i], 1);
        ck_assert_int_eq(produce(&s, &got), 0);
        ck_assert(fl_descriptor_read(plan, got.q, x, &sigma[i]));
        twin(&s, want);
        ck_assert_double_eq_tol(sigma[i], fl_descriptor_norm(plan) / counts[i], 0.2 * sigma[i]);
        for (size_t k = 1; k < n; k++) {
            double mean = want[k] * fl_descriptor_norm(plan) / counts[i];
            ck_assert_double_eq_tol((double)x[k - 1], mean, 8 * sigma[i]);
        }
        fl_free(got.q);
        site_fini(&s);
    }
    ck_assert_double_gt(sigma[1], 2 * sigma[0]);
    int64_t hostile[32] = {400 * 4096 / 3, INT32_MAX, -INT32_MAX};
    float said[32];
    ck_assert(fl_descriptor_read(plan, hostile, said, sigma));
    ck_assert(said[0] <= 1 + 8.1 * sigma[0] && said[1] >= -1 - 8.1 * sigma[0] && said[2] == 0);
    int64_t few[32] = {9 * 4096 / 3};
    float x[32];
    ck_assert(!fl_descriptor_read(plan, few, x, sigma));
    memset(few, 0, sizeof few);
    ck_assert(!fl_descriptor_read(plan, few, x, sigma));
}
END_TEST

START_TEST(test_when_and_how_often)
{
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];
    struct fl_event events[FL_RELEASE_EVENTS_MAX];
    uint32_t count;

    ck_assert_int_eq(parse(5, true, 3, CLIENT "descriptor: {noise_multiplier: 2, every: 4}\n"), 0);
    for (uint64_t round = 1; round <= 9; round++) { /* 1, 5, 9 */
        ck_assert_uint_eq(fl_plan_exchanges(plan, round, terms), round % 4 == 1 ? 2 : 1);
        ck_assert_str_eq(terms[round % 4 == 1].name, "update");
    }
    ck_assert_uint_eq(fl_descriptor_times(plan), 3);
    ck_assert_int_eq(fl_release_total(plan, 1, events, &count, &err), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(events[1].count, 3);
    ck_assert_double_eq(events[1].sigma, 2);
    const struct fl_producer *p = fl_producer_find("descriptor");
    ck_assert_int_eq(p->event(plan, &terms[0], &events[0], &err), 0);
    ck_assert(events[0].q == 1 && events[0].sigma == 2 && events[0].count == 1);
    ck_assert_int_eq(parse(5, true, 3, ""), 0); /* no unit: nothing to pay */
    ck_assert_int_eq(p->event(plan, &terms[0], &events[0], &err), 0);
    ck_assert_uint_eq(events[0].count, 0);
}
END_TEST

/* The descriptors get their share of 1/sigma^2, the rounds the rest, together just epsilon. */
START_TEST(test_share_of_epsilon)
{
    char *resolved, text[1024];
    size_t size;
    double alone;

    snprintf(text, sizeof text, head, 5, "classes", 3, 3,
             "privacy: {unit: client, clip: 1, delta: 1e-5, epsilon: 8}\n"
             "descriptor: {share: 0.25, every: 4}\n");
    plan = plan ? plan : fl_new(1, sizeof *plan);
    ck_assert_msg(fl_plan_resolve(text, strlen(text), &resolved, &size, &err) == 0, "%s", err.msg);
    ck_assert_int_eq(fl_plan_parse(plan, "job", resolved, size, &err), 0);
    ck_assert(fl_plan_resolved(plan));
    fl_free(resolved);
    ck_assert_int_eq(fl_sigma_for(8, 1e-5, 1, 1, &alone, &err), 0);
    double d = 3 / pow(plan->descriptor.noise_multiplier, 2), all = 1 / (alone * alone);
    double u = 9 / pow(plan->privacy.noise_multiplier, 2);
    ck_assert_double_eq_tol(d, 0.25 * all, 1e-4 * all);
    ck_assert_double_eq_tol(d + u, all, 1e-3 * all);
    ck_assert_double_le(d + u, all);
}
END_TEST

START_TEST(test_refusals)
{
    static const struct {
        const char *more, *says;
        int reason;
    } cases[] = {
        {CLIENT, "descriptor.noise_multiplier is missing", FL_R_CONF_MISSING},
        {CLIENT "descriptor: {noise_multiplier: 0.1}\n", "fit the descriptor's grid",
         FL_R_CONF_RANGE},
        {CLIENT "descriptor: {noise_multiplier: 150}\n", "fit the descriptor's grid",
         FL_R_CONF_RANGE},
        {"descriptor: {share: 0.95}\n", "descriptor.share", FL_R_CONF_RANGE},
        {"descriptor: {members: 3}\n", "0, or not fewer", FL_R_CONF_CONFLICT},
        {"set: {strategy: {pacfl: {variant: published}}}\nsecure_aggregation:\n",
         "leaves sites alone", FL_R_PLAN_STRATEGY},
        {"privacy: {unit: client, clip: 1, noise_multiplier: 1, delta: 1e-5, noise: central}\n"
         "descriptor: {noise_multiplier: 1}\n",
         "no row in the table of releases", FL_R_PLAN_PRIVACY},
        {"set: {strategy: {pacfl: {model: local}}}\n", "cannot be inside bubbles",
         FL_R_PLAN_STRATEGY},
        {"set: {strategy: {pacfl: {model: fedrep, body: shared}}}\n", "body: shared",
         FL_R_CONF_CONFLICT},
        {"set: {strategy: {pacfl: {quorum: 5}}}\n", "more than round.members", FL_R_CONF_CONFLICT},
        {"set: {strategy: {pacfl: {most: 65}}}\n", "most", FL_R_CONF_RANGE},
        {"set: {strategy: {pacfl: {variant: published, most: 4}}}\n", "of variant better",
         FL_R_CONF_CONFLICT},
        {"set: {strategy: {pacfl: {rows: 4}}}\n", "of variant published", FL_R_CONF_CONFLICT},
        {"set: {strategy: {pacfl: {variant: published}}}\ndescriptor: {bound: 2}\n",
         "of variant better", FL_R_CONF_CONFLICT},
        {"set: {strategy: {pacfl: {variant: published, laplace: 0.001}}}\n", "laplace",
         FL_R_CONF_RANGE},
        {"set: {strategy: {pacfl: {variant: published}}}\n" CLIENT, "no epsilon can be stated",
         FL_R_PLAN_PRIVACY},
        {"set: {strategy: {pacfl: {variant: published}}}\n" EXAMPLE, "no epsilon can be stated",
         FL_R_PLAN_PRIVACY},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        int r = parse(5, true, 3, cases[i].more);
        ck_assert_msg(r == -cases[i].reason && strstr(err.msg, cases[i].says), "%zu: %d %s", i, r,
                      err.msg);
    }
    ck_assert_int_eq(parse(5, false, 2, "set: {strategy: {pacfl: {variant: published}}}\n"),
                     -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(4000, true, 300, "descriptor: {features: 64}\n"), -FL_R_LIMIT);
    ck_assert_int_eq(parse(5, true, 3, "set: {strategy: {pacfl: {body: shared}}}\n"), 0);
    ck_assert_uint_eq(fl_plan_head_offset(plan), 5 * 6 + 6);
    ck_assert_int_eq(parse(5, true, 3, "set: {strategy: {pacfl: {model: hyperfl}}}\n"), 0);
    ck_assert_int_eq(plan->layout.visibility, FL_VISIBILITY_BODY_GENERATED);
    ck_assert_str_eq(fl_plan_model(plan), "hyperfl");
}
END_TEST

TESTS_MAIN("descriptor", test_agrees_with_its_naive_twin, test_one_example_moves_it_by_at_most_one,
           test_the_same_seed_makes_the_same_bytes, test_memory_that_ends, test_reading,
           test_when_and_how_often, test_share_of_epsilon, test_refusals)
