/* Ridge regression: both ways to solve it against PyTorch's least squares, moments that noise made
 * impossible, and training by it, alone and from the moments of several sites. */
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/nn/param/param.h"
#include "common/nn/ridge.h"
#include "common/nn/tensors.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { COUNT = 23, IN = 9, OUT = 3, SIDE = IN + 1 };

static struct fl_err err;

struct golden {
    float x[COUNT * IN], t[COUNT * OUT], weight[OUT * IN], bias[OUT], lambda;
    float second[SIDE * (SIDE + 1) / 2], cross[OUT * SIDE];
};

static void get(const struct fl_tensor_file *f, const char *name, float *to, size_t count)
{
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);

    ck_assert(t && t->count == count);
    fl_tensor_file_get(f, t, to);
}

static void open_golden(struct golden *g)
{
    struct fl_tensor_file f;

    ck_assert_msg(fl_tensor_file_open(TEST_SOURCE_ROOT "/tests/golden/ridge.safetensors", 1 << 16,
                                      &f, &err) == 0,
                  "%s", err.msg);
    get(&f, "x", g->x, COUNT * IN);
    get(&f, "t", g->t, COUNT * OUT);
    get(&f, "weight", g->weight, OUT * IN);
    get(&f, "bias", g->bias, OUT);
    get(&f, "lambda", &g->lambda, 1);
    fl_tensor_file_close(&f);
    ck_assert_uint_eq(fl_ridge_packed(IN), FL_COUNT(g->second));
    for (size_t i = 0, n = 0; i < SIDE; i++) {
        for (size_t j = i; j < SIDE; j++, n++) {
            double sum = 0;
            for (size_t k = 0; k < COUNT; k++) {
                sum += (i < IN ? (double)g->x[k * IN + i] : 1) *
                       (j < IN ? (double)g->x[k * IN + j] : 1);
            }
            g->second[n] = (float)(sum / COUNT);
        }
        for (size_t o = 0; o < OUT; o++) {
            double sum = 0;
            for (size_t k = 0; k < COUNT; k++) {
                sum += (i < IN ? (double)g->x[k * IN + i] : 1) * (double)g->t[k * OUT + o];
            }
            g->cross[o * SIDE + i] = (float)(sum / COUNT);
        }
    }
}

static void check_near(const float *got, const float *want, size_t count, double within)
{
    for (size_t i = 0; i < count; i++) {
        ck_assert_double_eq_tol((double)got[i], (double)want[i], within);
    }
}

static int layer_of(struct fl_ridge *s, const float *of, float *weight, float *bias)
{
    int r = fl_ridge_layer(s, OUT, of, weight, bias, &err);

    fl_ridge_free(s);
    return r;
}

static int by_examples(const struct golden *g, float *weight, float *bias)
{
    struct fl_ridge *s = NULL;
    int r = fl_ridge_by_examples(IN, (double)g->lambda, g->x, COUNT, &s, &err);

    return r < 0 ? r : layer_of(s, g->t, weight, bias);
}

static int by_moments(const struct golden *g, float *weight, float *bias)
{
    struct fl_ridge *s = NULL;
    int r = fl_ridge_by_moments(IN, (double)g->lambda, g->second, &s, &err);

    return r < 0 ? r : layer_of(s, g->cross, weight, bias);
}

START_TEST(test_both_ways_are_pytorchs)
{
    struct golden *g = fl_new(1, sizeof *g);
    float weight[OUT * IN], bias[OUT];

    open_golden(g);
    ck_assert_int_eq(by_examples(g, weight, bias), 0);
    check_near(weight, g->weight, OUT * IN, 2e-5);
    check_near(bias, g->bias, OUT, 5e-5);
    ck_assert_int_eq(by_moments(g, weight, bias), 0);
    check_near(weight, g->weight, OUT * IN, 2e-5);
    check_near(bias, g->bias, OUT, 5e-5);
    for (size_t i = 0; i < FL_COUNT(g->second); i++) { /* half of a mean is as good */
        g->second[i] /= 2;
    }
    for (size_t i = 0; i < FL_COUNT(g->cross); i++) {
        g->cross[i] /= 2;
    }
    ck_assert_int_eq(by_moments(g, weight, bias), 0);
    check_near(weight, g->weight, OUT * IN, 2e-5);
    fl_free(g);
}
END_TEST

START_TEST(test_moments_that_cannot_be)
{
    struct golden *g = fl_new(1, sizeof *g);
    float weight[OUT * IN] = {7}, bias[OUT] = {7};

    open_golden(g);
    g->second[0] = -50; /* a mean of squares */
    ck_assert_int_eq(by_moments(g, weight, bias), 0);
    for (size_t i = 0; i < OUT * IN; i++) {
        ck_assert(isfinite(weight[i]) && fabsf(weight[i]) < 10);
    }
    g->second[0] = NAN;
    ck_assert_int_eq(by_moments(g, weight, bias), -FL_R_TRAIN);
    memset(g->second, 0, sizeof g->second);
    ck_assert_int_eq(by_moments(g, weight, bias), 0);
    ck_assert(weight[0] == 0 && bias[0] == 0);
    fl_free(g);
}
END_TEST

/* ---- training ---- */

enum { FEATURES = 18, CLASSES = 3, LAYER = CLASSES * FEATURES + CLASSES };

static void ridge_site(struct small_site *s, enum fl_visibility v)
{
    struct fl_spec spec = {
        .input = {1, 8, 8},
        .classes = CLASSES,
        .head = 1,
        .ridge = 0.01f,
        .seed = 3,
        .layer_count = 4,
        .layers = {{.kind = FL_LAYER_FLATTEN},
                   {.kind = FL_LAYER_FOURIER, .out = FEATURES, .bandwidth = 3},
                   {.kind = FL_LAYER_DROPOUT, .rate = 0},
                   {.kind = FL_LAYER_LINEAR, .out = CLASSES}},
    };

    small_site_init(s, FL_VISIBILITY_ALL_SHARED, NULL);
    ck_assert_msg(fl_spec_check(&spec, &err) == 0, "%s", err.msg);
    ck_assert_msg(fl_layout_init(&s->plan->layout, &spec, v, NULL, &err) == 0, "%s", err.msg);
    s->plan->train.solver = FL_SOLVER_RIDGE;
    fl_free(s->shared);
    fl_free(s->private_);
    s->shared = fl_new(s->plan->layout.shared.elements + 1, sizeof *s->shared);
    s->private_ = fl_new(s->plan->layout.private_.elements + 1, sizeof *s->private_);
    fl_layout_init_shared(&s->plan->layout, &s->job, s->shared);
    fl_layout_init_private(&s->plan->layout, &s->job, &s->agent, s->private_);
}

static struct fl_train_report train(struct small_site *s, float *delta, float *private_out)
{
    struct fl_train_task t = {.plan = s->plan,
                              .data = &s->data,
                              .base = s->shared,
                              .private_in = s->private_,
                              .seed = s->agent};
    struct fl_train_result result = {.delta = delta, .private_out = private_out};

    ck_assert_msg(fl_train(&t, &result, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(result.report.steps, 1);
    return result.report;
}

START_TEST(test_alone_by_examples_and_by_moments)
{
    float delta[1], all[LAYER], few[LAYER], twice[LAYER];
    struct small_site s;

    ridge_site(&s, FL_VISIBILITY_ALL_PRIVATE);
    ck_assert_uint_eq(s.plan->layout.shared.elements, 0);
    struct fl_train_report report = train(&s, delta, all); /* 43 examples, 18 inputs: by moments */
    ck_assert_double_gt(report.accuracy_trained, 0.6);
    ck_assert_double_lt(report.accuracy_received, 0.6);
    s.data.train.count = FEATURES; /* by examples */
    train(&s, delta, few);
    for (uint32_t i = 0; i < FEATURES; i++) { /* each twice are the same means, by moments */
        memcpy(s.data.train.x + (FEATURES + i) * 64, s.data.train.x + i * 64, 64 * sizeof(float));
        s.data.train.y[FEATURES + i] = s.data.train.y[i];
    }
    s.data.train.count = 2 * FEATURES;
    train(&s, delta, twice);
    check_near(few, twice, LAYER, 1e-4);
    small_site_fini(&s);
}
END_TEST

/* The weighted mean of two sites' moments makes the layer of all their examples. */
START_TEST(test_shared_moments_are_those_of_all_examples)
{
    struct small_site s;
    float none[1];

    ridge_site(&s, FL_VISIBILITY_ALL_SHARED);
    size_t n = s.plan->layout.shared.elements;
    ck_assert_uint_eq(n, fl_ridge_packed(FEATURES) + CLASSES * (FEATURES + 1));
    ck_assert_uint_eq(s.plan->layout.private_.elements, 0);
    float *one = fl_new(n, sizeof *one), *two = fl_new(n, sizeof *two);
    float *all = fl_new(n, sizeof *all);
    float mixed[LAYER], pooled[LAYER];
    struct fl_train_report whole = train(&s, all, none);
    struct fl_examples part = s.data.train;
    s.data.train.count = 30;
    train(&s, one, none);
    s.data.train.x += (size_t)30 * 64;
    s.data.train.y += 30;
    s.data.train.count = 13;
    train(&s, two, none);
    s.data.train = part;
    for (size_t i = 0; i < n; i++) { /* the base is zeros */
        one[i] = (30 * one[i] + 13 * two[i]) / 43;
    }
    ck_assert_int_eq(fl_param_make(&s.plan->layout, one, none, mixed, &err), 0);
    ck_assert_int_eq(fl_param_make(&s.plan->layout, all, none, pooled, &err), 0);
    check_near(mixed, pooled, LAYER, 1e-4);
    memcpy(s.shared, one, n * sizeof *one); /* received: serves as it is */
    ck_assert_double_eq(train(&s, two, none).accuracy_received, whole.accuracy_trained);
    fl_free(one);
    fl_free(two);
    fl_free(all);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_one_layer_only)
{
    struct fl_layout *layout = fl_new(1, sizeof *layout);
    struct fl_spec spec = {
        .input = {20, 1, 1},
        .classes = 2,
        .head = 1,
        .ridge = 1,
        .layer_count = 2,
        .layers = {{.kind = FL_LAYER_LINEAR, .out = 5}, {.kind = FL_LAYER_LINEAR, .out = 2}},
    };

    ck_assert_int_eq(fl_spec_check(&spec, &err), 0);
    ck_assert_int_eq(fl_layout_init(layout, &spec, FL_VISIBILITY_ALL_SHARED, NULL, &err),
                     -FL_R_PLAN_MODEL);
    ck_assert_ptr_nonnull(strstr(err.msg, "a closed form is of one linear layer"));
    fl_free(layout);
}
END_TEST

/* ---- jobs ---- */

static int parse(const char *strategy, const char *loss, const char *more, struct fl_plan *plan)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "name: solved\nstrategy: %s\nrounds: 1\nmodel:\n  input: [1, 16, 16]\n"
                     "  classes: 3\n  loss: %s\n  layers:\n"
                     "    - scattering: {scales: 2, angles: 4}\n    - flatten:\n"
                     "    - linear: {out: 3}\ntrain: {solver: ridge, lambda: 0.5}\n"
                     "round: {members: 2}\n%s",
                     strategy, loss, more);

    return fl_plan_parse(plan, "job.yaml", text, (size_t)n, &err);
}

START_TEST(test_jobs)
{
    static const struct {
        const char *strategy, *loss, *more;
        int code;
        const char *why;
    } bad[] = {
        {"fedprox", "cross_entropy", "", -FL_R_CONF_CONFLICT,
         "job.yaml:12:17: train.solver: a "
         "closed form is found alone"},
        {"local", "{cross_entropy: {smoothing: 0.1}}", "", -FL_R_CONF_CONFLICT, "squared errors"},
        {"local", "cross_entropy", "data: {flip: true}\n", -FL_R_CONF_CONFLICT,
         "every example once"},
        {"local", "cross_entropy", "trainer: exec\n", -FL_R_CONF_CONFLICT, "trainer: builtin"},
        {"fedavg", "cross_entropy",
         "privacy: {unit: client, clip: 0.1, delta: 1e-5, noise_multiplier: 1}\n",
         -FL_R_PLAN_PRIVACY, "no row in the table of releases"},
        {"fedrep", "cross_entropy", "", -FL_R_PLAN_MODEL, "head"},
        {"fedavg", "cross_entropy",
         "set: {model.parameters: [{layers: [fc1], kind: low_rank, rank: 2}]}\n", -FL_R_PLAN_MODEL,
         "no rule may make them"},
    };
    struct fl_plan *plan = fl_new(1, sizeof *plan);

    ck_assert_msg(parse("local", "cross_entropy", "", plan) == 0, "%s", err.msg);
    ck_assert(plan->layout.spec.ridge == 0.5f);
    ck_assert_uint_eq(plan->layout.private_.elements, 3 * 400 + 3); /* 25 paths, 4 x 4 pixels */
    ck_assert_msg(parse("fedavg", "cross_entropy", "weights: examples\n", plan) == 0, "%s",
                  err.msg);
    ck_assert_uint_eq(plan->layout.shared.elements, 401 * 402 / 2 + 3 * 401);
    ck_assert(!fl_plan_key_is_free("train.solver") && fl_plan_key_is_free("train.lambda"));
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        int r = parse(bad[i].strategy, bad[i].loss, bad[i].more, plan);
        ck_assert_msg(r == bad[i].code, "%zu: %d %s", i, r, err.msg);
        ck_assert_msg(strstr(err.msg, bad[i].why) != NULL, "%zu: %s", i, err.msg);
    }
    fl_free(plan);
}
END_TEST

TESTS_MAIN("ridge", test_both_ways_are_pytorchs, test_moments_that_cannot_be,
           test_alone_by_examples_and_by_moments, test_shared_moments_are_those_of_all_examples,
           test_one_layer_only, test_jobs)
