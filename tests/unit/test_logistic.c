/* Logistic regression as ridge regression again and again: against PyTorch's minimum, alone by
 * examples and by moments, and round by round from the moments of several sites. */
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/nn/model.h"
#include "common/nn/param/param.h"
#include "common/nn/ridge.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { COUNT = 23, IN = 9, CLASSES = 3, LAYER_MAX = CLASSES * IN + CLASSES };

static struct fl_err err;

/* The golden file's examples as a site, `times` over: more than inputs, or fewer. */
struct site {
    struct fl_plan *plan;
    struct fl_dataset data;
    float want[LAYER_MAX], *shared, private_[LAYER_MAX];
    uint32_t outputs;
};

static void get(const struct fl_tensor_file *f, const char *name, float *to)
{
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);

    ck_assert_msg(t != NULL, "%s", name);
    fl_tensor_file_get(f, t, to);
}

static void open_site(struct site *s, bool binary, enum fl_visibility v)
{
    struct fl_tensor_file f;
    float x[COUNT * IN], y[COUNT], lambda;
    struct fl_spec spec = {.input = {IN, 1, 1}, .head = 1, .logistic = true, .layer_count = 1};

    ck_assert_msg(fl_tensor_file_open(TEST_SOURCE_ROOT "/tests/golden/logistic.safetensors",
                                      1 << 16, &f, &err) == 0,
                  "%s", err.msg);
    *s = (struct site){.plan = fl_new(1, sizeof *s->plan), .outputs = binary ? 1 : CLASSES};
    get(&f, "x", x);
    get(&f, "y", y);
    get(&f, "lambda", &lambda);
    get(&f, binary ? "binary_weight" : "weight", s->want);
    get(&f, binary ? "binary_bias" : "bias", s->want + (size_t)s->outputs * IN);
    fl_tensor_file_close(&f);
    spec.ridge = lambda;
    spec.classes = binary ? 2 : CLASSES;
    spec.loss.kind = binary ? FL_LOSS_BINARY : FL_LOSS_CROSS_ENTROPY;
    spec.layers[0] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = s->outputs};
    ck_assert_msg(fl_spec_check(&spec, &err) == 0, "%s", err.msg);
    ck_assert_msg(fl_layout_init(&s->plan->layout, &spec, v, NULL, &err) == 0, "%s", err.msg);
    s->plan->train.solver = FL_SOLVER_LOGISTIC;
    s->plan->train.batch = 10;
    s->plan->rounds = 1;
    s->plan->data = (struct fl_data_conf){.channels = 1, .std = {1}};
    s->data.shape[0] = IN;
    s->data.shape[1] = s->data.shape[2] = 1;
    s->data.classes = spec.classes;
    for (int k = 0; k < 2; k++) {
        struct fl_examples *e = k ? &s->data.test : &s->data.train;
        e->count = COUNT;
        e->x = fl_new(COUNT * IN, sizeof *e->x);
        e->y = fl_new(COUNT, sizeof *e->y);
        memcpy(e->x, x, sizeof x);
        for (size_t i = 0; i < COUNT; i++) {
            e->y[i] = binary ? y[i] == 1 : (int32_t)y[i];
        }
    }
    s->shared = fl_new(s->plan->layout.shared.elements + 1, sizeof *s->shared);
}

static void close_site(struct site *s)
{
    fl_free(s->data.train.x);
    fl_free(s->data.train.y);
    fl_free(s->data.test.x);
    fl_free(s->data.test.y);
    fl_free(s->shared);
    fl_free(s->plan);
}

static struct fl_train_report train(struct site *s, float *delta, float *layer)
{
    struct fl_train_task t = {
        .plan = s->plan, .data = &s->data, .base = s->shared, .private_in = s->private_};
    struct fl_train_result result = {.delta = delta, .private_out = layer};

    ck_assert_msg(fl_train(&t, &result, &err) == 0, "%s", err.msg);
    return result.report;
}

/* The largest difference; of several outputs only what they differ by matters in the biases. */
static double off(const struct site *s, const float *layer)
{
    size_t n = (size_t)s->outputs * IN;
    double mean = 0, most = 0;

    for (size_t o = 0; s->outputs > 1 && o < s->outputs; o++) {
        mean += (double)layer[n + o] / s->outputs;
    }
    for (size_t i = 0; i < n + s->outputs; i++) {
        most = fmax(most, fabs((double)layer[i] - (i < n ? 0 : mean) - (double)s->want[i]));
    }
    return most;
}

START_TEST(test_alone_it_is_pytorchs_minimum)
{
    for (int binary = 0; binary < 2; binary++) {
        struct site s;
        float delta[1], layer[LAYER_MAX];
        open_site(&s, binary, FL_VISIBILITY_ALL_PRIVATE);
        struct fl_train_report report = train(&s, delta, layer); /* 23 of 9: by moments */
        ck_assert_msg(off(&s, layer) < 1e-3, "off by %g", off(&s, layer));
        ck_assert_uint_gt(report.steps, 5);
        ck_assert_uint_lt(report.steps, 500);
        close_site(&s);
    }
}
END_TEST

/* Eight examples of all classes, and each of them twice: the same means, one by examples and one by
 * moments. */
START_TEST(test_by_examples_and_by_moments)
{
    struct site s;
    float delta[1], few[LAYER_MAX], twice[LAYER_MAX];

    open_site(&s, false, FL_VISIBILITY_ALL_PRIVATE);
    s.data.train.count = 8;
    for (int32_t i = 0; i < 8; i++) {
        s.data.train.y[i] = i % CLASSES;
    }
    train(&s, delta, few);
    memcpy(s.data.train.x + 8 * IN, s.data.train.x, 8 * IN * sizeof(float));
    memcpy(s.data.train.y + 8, s.data.train.y, 8 * sizeof(int32_t));
    s.data.train.count = 16;
    train(&s, delta, twice);
    for (size_t i = 0; i < LAYER_MAX; i++) {
        ck_assert_double_eq_tol((double)few[i], (double)twice[i], 5e-3);
        ck_assert(i > 0 || few[i] != 0);
    }
    close_site(&s);
}
END_TEST

/* Two sites, 14 and 9 examples: the weighted mean of their moments, round after round. The loss of
 * all examples only falls, and towards the minimum. */
START_TEST(test_rounds_of_shared_moments)
{
    struct site s;
    float none[1], layer[LAYER_MAX];

    open_site(&s, false, FL_VISIBILITY_ALL_SHARED);
    size_t n = s.plan->layout.shared.elements;
    ck_assert_uint_eq(n, fl_ridge_packed(IN) + CLASSES * (IN + 1));
    float *one = fl_new(n, sizeof *one), *two = fl_new(n, sizeof *two);
    double before = INFINITY, first = 0;
    struct fl_examples all = s.data.train;
    for (int round = 0; round < 400; round++) {
        ck_assert_int_eq(fl_param_make(&s.plan->layout, s.shared, none, layer, &err), 0);
        double loss = 0;
        struct fl_model *m;
        struct fl_score score;
        ck_assert_int_eq(fl_model_new(&s.plan->layout.spec, COUNT, &m, &err), 0);
        fl_model_set(m, layer);
        fl_model_score(m, all.x, all.y, COUNT, &score);
        fl_model_free(m);
        loss = score.loss / COUNT;
        for (size_t i = 0; i < CLASSES * IN; i++) {
            loss += (double)s.plan->layout.spec.ridge * (double)layer[i] * (double)layer[i];
        }
        ck_assert_msg(loss <= before + 1e-5, "round %d: %g after %g", round, loss, before);
        before = loss;
        first = round == 0 ? loss : first;
        s.data.train.count = 14;
        train(&s, one, none);
        s.data.train.x += (size_t)14 * IN;
        s.data.train.y += 14;
        s.data.train.count = 9;
        train(&s, two, none);
        s.data.train = all;
        for (size_t i = 0; i < n; i++) {
            s.shared[i] += (14 * one[i] + 9 * two[i]) / 23;
        }
    }
    ck_assert_double_eq_tol(first, log(3), 1e-6);
    ck_assert_msg(off(&s, layer) < 0.05, "off by %g", off(&s, layer));
    fl_free(one);
    fl_free(two);
    close_site(&s);
}
END_TEST

/* ---- jobs ---- */

static int parse(const char *strategy, const char *loss, const char *more)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "name: solved\nstrategy: %s\nrounds: 9\nmodel:\n  input: [5]\n  classes: 2\n"
                     "  loss: %s\n  layers:\n    - linear: {out: %d}\n"
                     "train: {solver: logistic, lambda: 0.5}\nround: {members: 2}\n%s",
                     strategy, loss, strcmp(loss, "binary") == 0 ? 1 : 2, more);
    int r = fl_plan_parse(plan, "job.yaml", text, (size_t)n, &err);

    ck_assert(r < 0 || (plan->layout.spec.logistic && plan->layout.spec.ridge == 0.5f));
    fl_free(plan);
    return r;
}

START_TEST(test_jobs)
{
    ck_assert_msg(parse("local", "cross_entropy", "") == 0, "%s", err.msg);
    ck_assert_msg(parse("local", "binary", "") == 0, "%s", err.msg);
    ck_assert_msg(parse("fedavg", "cross_entropy", "weights: examples\n") == 0, "%s", err.msg);
    ck_assert_int_eq(parse("local", "{cross_entropy: {smoothing: 0.1}}", ""), -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.msg, "train.solver: logistic regression is of classes"));
    ck_assert_int_eq(parse("scaffold", "cross_entropy", ""), -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(
        parse("fedavg", "binary",
              "privacy: {unit: client, clip: 0.1, delta: 1e-5, noise_multiplier: 1}\n"),
        -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_nonnull(strstr(err.msg, "no row in the table of releases"));
}
END_TEST

TESTS_MAIN("logistic", test_alone_it_is_pytorchs_minimum, test_by_examples_and_by_moments,
           test_rounds_of_shared_moments, test_jobs)
