/*
 * Every kind of layer, loss and optimizer against PyTorch in double precision: outputs, gradients,
 * and the squared norm of each example's gradient, which PyTorch found by one backward pass an
 * example. The files are made by tests/golden/layers.py; networks are job descriptions, so the
 * grammar is tested with them.
 */
#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/model.h"
#include "common/nn/optim.h"
#include "common/nn/tensors.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct golden {
    struct fl_tensor_file file;
    struct fl_plan plan;
    const char *name;
    size_t elements, count, classes;
    float *theta, *x, *out, *grad, *norms, *loss, *target;
    int32_t *y;
    size_t goal_size;
};

/* What the model's functions take for example i. */
static const void *goal_of(const struct golden *g, size_t i)
{
    bool numbers = fl_loss_is_regression(&g->plan.layout.spec.loss);

    return (numbers ? (const char *)g->target : (const char *)g->y) + i * g->goal_size;
}

static float *values(struct golden *g, const char *name, size_t *ret_count)
{
    const struct fl_tensor *t = fl_tensors_find(&g->file.table, name);

    ck_assert_msg(t != NULL, "%s: no %s", g->name, name);
    float *v = fl_new(t->count, sizeof *v);
    fl_tensor_file_get(&g->file, t, v);
    *ret_count = t->count;
    return v;
}

static struct golden *open_golden(const char *path)
{
    struct golden *g = fl_new(1, sizeof *g);
    struct fl_err e = {0};
    size_t n;

    g->name = path;
    ck_assert_msg(fl_tensor_file_open(path, 1 << 20, &g->file, &e) == 0, "%s", e.msg);
    const char *job = fl_tensor_file_meta(&g->file, "job");
    ck_assert_ptr_nonnull(job);
    ck_assert_msg(fl_plan_parse(&g->plan, path, job, strlen(job), &e) == 0, "%s", e.msg);
    g->theta = values(g, "theta", &g->elements);
    ck_assert_msg(g->elements == g->plan.layout.theta.elements, "%s: %zu parameters, not %zu", path,
                  g->plan.layout.theta.elements, g->elements);
    g->norms = values(g, "norms", &g->count);
    g->x = values(g, "x", &n);
    g->out = values(g, "out", &n);
    g->classes = n / g->count;
    g->grad = values(g, "grad", &n);
    ck_assert_uint_eq(n, g->elements);
    g->loss = values(g, "loss", &n);
    g->target = values(g, "y", &n);
    g->goal_size = n / g->count * sizeof *g->target;
    g->y = fl_new(n, sizeof *g->y);
    for (size_t i = 0; i < n; i++) {
        g->y[i] = (int32_t)g->target[i];
    }
    return g;
}

static void close_golden(struct golden *g)
{
    float *all[] = {g->theta, g->x, g->out, g->grad, g->norms, g->loss, g->target};

    for (size_t i = 0; i < FL_COUNT(all); i++) {
        fl_free(all[i]);
    }
    fl_free(g->y);
    fl_tensor_file_close(&g->file);
    fl_free(g);
}

/* The largest difference, in parts of the largest value. */
static double far(const float *got, const float *want, size_t count)
{
    double most = 0, scale = 0;

    for (size_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        most = d > most || isnan(d) ? d : most;
        scale = fabs((double)want[i]) > scale ? fabs((double)want[i]) : scale;
    }
    return most / scale;
}

static void check_outputs(struct golden *g, struct fl_model *m)
{
    size_t n = g->count * g->classes;
    float *out = fl_new(n, sizeof *out), *grad = fl_new(g->elements, sizeof *grad);
    struct fl_score score;

    fl_model_forward(m, g->x, g->count, out);
    ck_assert_msg(far(out, g->out, n) < 2e-5, "%s: outputs %g", g->name, far(out, g->out, n));
    fl_model_gradient(m, g->x, goal_of(g, 0), g->count, grad, &score);
    ck_assert_msg(fabs(score.loss / (double)g->count / (double)g->loss[0] - 1) < 1e-5,
                  "%s: loss %g", g->name, score.loss / (double)g->count);
    ck_assert_msg(far(grad, g->grad, g->elements) < 1e-4, "%s: gradient %g", g->name,
                  far(grad, g->grad, g->elements));
    fl_free(out);
    fl_free(grad);
}

/* Each example's pieces: their norm, and written out their mean is the gradient. */
static void check_examples(struct golden *g, struct fl_model *m)
{
    size_t features = fl_tensors_find(&g->file.table, "x")->count / g->count;
    float *mean = fl_new(g->elements, sizeof *mean);

    for (size_t i = 0; i < g->count; i++) {
        const struct fl_piece *p;
        double loss, norm = 0;
        uint32_t pieces = fl_model_example(m, g->x + i * features, goal_of(g, i), &p, &loss);
        for (uint32_t k = 0; k < pieces; k++) {
            double d = fl_vec_norm_squared(p[k].d, p[k].out);
            norm += p[k].a ? d * (fl_vec_norm_squared(p[k].a, p[k].in) + 1)
                           : d + fl_vec_norm_squared(p[k].w, p[k].in * p[k].out);
            for (size_t o = 0; o < p[k].out; o++) {
                mean[p[k].bias + o] += p[k].d[o] / (float)g->count;
                for (size_t j = 0; j < p[k].in; j++) {
                    float w = p[k].a ? p[k].d[o] * p[k].a[j] : p[k].w[o * p[k].in + j];
                    mean[p[k].weight + o * p[k].in + j] += w / (float)g->count;
                }
            }
        }
        ck_assert_msg(fabs(norm / (double)g->norms[i] - 1) < 1e-4,
                      "%s: example %zu: norm %g, not %g", g->name, i, norm, (double)g->norms[i]);
    }
    ck_assert_msg(far(mean, g->grad, g->elements) < 1e-4, "%s: mean of the examples %g", g->name,
                  far(mean, g->grad, g->elements));
    fl_free(mean);
}

START_TEST(test_every_layer_is_pytorchs)
{
    static const uint32_t shards[] = {1, 4, 16};
    glob_t found;

    ck_assert_int_eq(glob(TEST_SOURCE_ROOT "/tests/golden/layer_*.safetensors", 0, NULL, &found),
                     0);
    ck_assert_uint_eq(found.gl_pathc, 17);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct golden *g = open_golden(found.gl_pathv[i]);
        for (size_t k = 0; k < FL_COUNT(shards); k++) {
            struct fl_model *m;
            struct fl_err e = {0};
            ck_assert_msg(fl_model_new(&g->plan.layout.spec, shards[k], &m, &e) == 0, "%s", e.msg);
            fl_model_set(m, g->theta);
            check_outputs(g, m);
            check_examples(g, m);
            check_outputs(g, m); /* and nothing was left behind */
            fl_model_free(m);
        }
        close_golden(g);
    }
    globfree(&found);
}
END_TEST

START_TEST(test_batch_norm_is_pytorchs)
{
    struct golden *g = open_golden(TEST_SOURCE_ROOT "/tests/golden/batch_norm.safetensors");
    struct fl_model *m;
    struct fl_err e = {0};
    size_t n;
    float *after = values(g, "after", &n), *settled = fl_new(n, sizeof *settled);
    const struct fl_tensors *theta = &g->plan.layout.theta;

    ck_assert_msg(fl_model_new(&g->plan.layout.spec, (uint32_t)g->count, &m, &e) == 0, "%s", e.msg);
    fl_model_set(m, g->theta);
    fl_model_settle(m, g->theta); /* nothing was learnt yet */
    check_outputs(g, m);
    check_outputs(g, m);
    memcpy(settled, g->theta, n * sizeof *settled);
    fl_model_settle(m, settled);
    ck_assert_msg(far(settled, after, n) < 1e-6, "running statistics %g", far(settled, after, n));
    for (uint32_t i = 0; i < theta->count; i++) { /* and nothing else has moved */
        const struct fl_tensor *t = &theta->at[i];
        bool same = memcmp(settled + t->offset, g->theta + t->offset, t->count * 4) == 0;
        ck_assert_msg(same == !t->buffer, "%s", t->name);
        ck_assert_int_eq(t->group == FL_GROUP_PRIVATE, strncmp(t->name, "bn", 2) == 0);
    }
    fl_model_free(m);
    fl_free(after);
    fl_free(settled);
    close_golden(g);
}
END_TEST

START_TEST(test_every_optimizer_is_pytorchs)
{
    static const struct {
        const char *name;
        struct fl_optim optim;
    } all[] = {{"sgd", {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 0.01f}},
               {"nesterov", {0.1f, 0.9f, 0.01f, FL_OPTIM_NESTEROV, 0}},
               {"adam", {0.1f, 0.8f, 0.01f, FL_OPTIM_ADAM, 0.95f}},
               {"adamw", {0.1f, 0.8f, 0.01f, FL_OPTIM_ADAMW, 0.95f}}};
    struct golden *g = fl_new(1, sizeof *g);
    struct fl_err e = {0};
    size_t n;

    g->name = "optimizers";
    ck_assert_msg(fl_tensor_file_open(TEST_SOURCE_ROOT "/tests/golden/optimizers.safetensors",
                                      1 << 20, &g->file, &e) == 0,
                  "%s", e.msg);
    float *grads = values(g, "grads", &n);
    ck_assert_uint_eq(n, 100);
    for (size_t k = 0; k < FL_COUNT(all); k++) {
        float m[5] = {0}, v[5] = {0}, *w = values(g, "start", &n);
        float *path = values(g, all[k].name, &n);
        for (uint64_t t = 0; t < 20; t++) {
            if (all[k].optim.kind >= FL_OPTIM_ADAM) {
                fl_optim_adam(&all[k].optim, 1, t + 1, grads + 5 * t, m, v, w, 5);
            } else {
                fl_optim_step(&all[k].optim, 1, grads + 5 * t, m, w, 5);
            }
            ck_assert_msg(far(w, path + 5 * t, 5) < 2e-6, "%s, step %d: %g", all[k].name,
                          (int)t + 1, far(w, path + 5 * t, 5));
        }
        fl_free(w);
        fl_free(path);
    }
    fl_free(grads);
    fl_tensor_file_close(&g->file);
    fl_free(g);
}
END_TEST

START_TEST(test_schedules)
{
    struct fl_schedule s = {.kind = FL_SCHEDULE_COSINE, .warmup = 2, .gamma = 0.1f, .every = 3};

    ck_assert_double_eq_tol(fl_schedule_at(&s, 1, 10), 1 / 3.0, 1e-12);
    ck_assert_double_eq_tol(fl_schedule_at(&s, 2, 10), 2 / 3.0, 1e-12);
    ck_assert_double_eq_tol(fl_schedule_at(&s, 3, 10), 1, 1e-12);
    ck_assert_double_eq_tol(fl_schedule_at(&s, 10, 10), 0.1, 1e-7);
    s.kind = FL_SCHEDULE_STEP;
    ck_assert_double_eq_tol(fl_schedule_at(&s, 5, 10), 1, 1e-12);
    ck_assert_double_eq_tol(fl_schedule_at(&s, 6, 10), 0.1, 1e-7);
    ck_assert_double_eq_tol(fl_schedule_at(&s, 9, 10), 0.01, 1e-7);
    s = (struct fl_schedule){.kind = FL_SCHEDULE_CONSTANT};
    ck_assert_double_eq(fl_schedule_at(&s, 0, 10), 1);
    ck_assert_double_eq(fl_schedule_at(&s, 7, 10), 1);
}
END_TEST

TESTS_MAIN("layers", test_every_optimizer_is_pytorchs, test_schedules, test_every_layer_is_pytorchs,
           test_batch_norm_is_pytorchs)
