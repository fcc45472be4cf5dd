/*
 * Repeats what PyTorch did (tests/experiments/pytorch_reference.py) and says how far apart the two
 * are. A file has the job's text, initial vectors, examples, the batch of each step, and after each
 * step the gradient at theta and theta.
 */
#ifndef TESTS_LIB_REPLAY_H
#define TESTS_LIB_REPLAY_H

#include "client/trainer/session.h"
#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Largest differences from PyTorch in double precision, relative to the largest value of what is
 * compared; and PyTorch's own in single precision. */
struct replay_errors {
    double first_gradient, gradient, theta; /* the first step alone; all of them */
    double end;                             /* shared and private after the last step */
    double torch_first_gradient, torch_gradient, torch_theta, torch_end;
    double whole; /* the end by fl_train in one go; NAN when batches are not whole */
};

/* Not further away than single precision has to be. On a large network one of many thousand ReLUs
 * or maxima may take the other side of a tie; `flips` allows for that after the first step. */
static inline bool replay_agrees(const struct replay_errors *r, bool flips)
{
    const double rounding = 1e-6, factor = 8;

    return r->first_gradient < factor * r->torch_first_gradient + rounding &&
           r->gradient < factor * r->torch_gradient + (flips ? 2e-2 : rounding) &&
           r->theta < factor * r->torch_theta + (flips ? 2e-4 : rounding) &&
           r->end < factor * r->torch_end + (flips ? 2e-4 : rounding) &&
           !(r->whole >= factor * r->torch_end + rounding);
}

struct replay {
    struct fl_tensor_file *file;
    struct fl_plan *plan;
    struct fl_dataset data;
    struct fl_session session;
    float *shared, *private_;
};

static inline size_t replay_get(const struct replay *r, const char *name, float **ret)
{
    const struct fl_tensor *t = fl_tensors_find(&r->file->table, name);

    *ret = fl_new(t ? t->count : 1, sizeof **ret);
    if (t) {
        fl_tensor_file_get(r->file, t, *ret);
    }
    return t ? t->count : 0;
}

static inline double replay_distance(const float *a, const float *b, size_t count)
{
    double far = 0, large = 1e-30;

    for (size_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        far = d > far || isnan(d) ? d : far;
        large = fmax(large, fabs((double)b[i]));
    }
    return isnan(far) ? INFINITY : far / large;
}

static inline double replay_number(const struct replay *r, const char *key)
{
    const char *text = fl_tensor_file_meta(r->file, key);

    return text ? strtod(text, NULL) : 0;
}

static inline int replay_open(struct replay *r, const char *path, struct fl_err *e)
{
    float *labels;
    int code;

    memset(r, 0, sizeof *r);
    r->file = fl_new(1, sizeof *r->file);
    r->plan = fl_new(1, sizeof *r->plan);
    if ((code = fl_tensor_file_open(path, (size_t)1 << 30, r->file, e)) < 0) {
        return code;
    }
    const char *text = fl_tensor_file_meta(r->file, "plan");
    if (!text || (code = fl_plan_parse(r->plan, path, text, strlen(text), e)) < 0) {
        return text ? code : fl_fail(e, FL_R_TENSORS, "%s has no plan", path);
    }
    const struct fl_spec *spec = &r->plan->layout.spec;
    memcpy(r->data.shape, spec->input, sizeof r->data.shape);
    r->data.classes = spec->classes;
    r->data.train.count = (uint32_t)replay_get(r, "y", &labels);
    r->data.train.y = fl_new(r->data.train.count, sizeof *r->data.train.y);
    for (uint32_t i = 0; i < r->data.train.count; i++) {
        r->data.train.y[i] = (int32_t)labels[i];
    }
    fl_free(labels);
    replay_get(r, "x", &r->data.train.x);
    size_t shared = replay_get(r, "shared", &r->shared);
    size_t private_ = replay_get(r, "private", &r->private_);
    if (shared != r->plan->layout.shared.elements ||
        private_ != r->plan->layout.private_.elements) {
        return fl_fail(e, FL_R_TENSORS, "%s: another number of parameters than its plan has", path);
    }
    return fl_session_init(&r->session, r->plan, &r->data, NULL, NULL, e);
}

static inline void replay_close(struct replay *r)
{
    fl_session_fini(&r->session);
    fl_tensor_file_close(r->file);
    fl_free(r->file);
    fl_free(r->plan);
    fl_free(r->data.train.x);
    fl_free(r->data.train.y);
    fl_free(r->shared);
    fl_free(r->private_);
}

/* The two final vectors against the file's. */
static inline double replay_end(const struct replay *r, const float *shared, const float *private_)
{
    float *want;
    double far = 0;
    size_t n = replay_get(r, "final_shared", &want);

    far = fmax(far, n ? replay_distance(shared, want, n) : 0);
    fl_free(want);
    n = replay_get(r, "final_private", &want);
    far = fmax(far, n ? replay_distance(private_, want, n) : 0);
    fl_free(want);
    return far;
}

/* fl_train with batches of everything: it shuffles, which cannot matter then. */
static inline int replay_whole(struct replay *r, double *ret, struct fl_err *e)
{
    const struct fl_layout *l = &r->plan->layout;
    float *delta = fl_new(l->shared.elements, sizeof *delta);
    float *private_ = fl_new(l->private_.elements, sizeof *private_);
    struct fl_train_task task = {
        .plan = r->plan, .data = &r->data, .base = r->shared, .private_in = r->private_};
    struct fl_train_result result = {.delta = delta, .private_out = private_};
    int code = fl_train(&task, &result, e);

    for (size_t i = 0; i < l->shared.elements; i++) {
        delta[i] += r->shared[i];
    }
    *ret = replay_end(r, delta, private_);
    fl_free(delta);
    fl_free(private_);
    return code;
}

static inline int replay_steps(struct replay *r, struct replay_errors *ret, struct fl_err *e)
{
    struct fl_session *s = &r->session;
    size_t elements = r->plan->layout.theta.elements, batch = r->plan->train.batch;
    size_t head_steps = (size_t)replay_number(r, "head_steps"), steps;
    float *order, *grads, *thetas;
    uint32_t *rows = fl_new(batch, sizeof *rows);
    struct fl_moves moves = {0};
    int code = fl_param_make(s->layout, r->shared, r->private_, s->theta, e);

    steps = replay_get(r, "order", &order) / batch;
    replay_get(r, "grads", &grads);
    replay_get(r, "thetas", &thetas);
    for (size_t k = 0; code == 0 && k < steps; k++) {
        bool head = k < head_steps;
        if (k == 0 || k == head_steps) {
            fl_moves_fini(&moves);
            code = fl_moves_init(&moves, s, !head, head || head_steps == 0, true, r->shared,
                                 r->private_, steps - head_steps, e);
            if (code < 0) {
                break;
            }
        }
        for (size_t i = 0; i < batch; i++) {
            rows[i] = (uint32_t)order[k * batch + i];
        }
        fl_session_load(s, &r->data.train, rows, 0, batch);
        fl_model_set(s->model, s->theta);
        fl_model_gradient(s->model, s->x, s->y, batch, s->grad, NULL);
        double far = replay_distance(s->grad, grads + k * elements, elements);
        ret->first_gradient = k == 0 ? far : ret->first_gradient;
        ret->gradient = fmax(ret->gradient, far);
        fl_moves_step(&moves);
        ret->theta = fmax(ret->theta, replay_distance(s->theta, thetas + k * elements, elements));
    }
    if (code == 0) {
        fl_moves_end(&moves);
        ret->end = replay_end(r, r->shared, r->private_);
    }
    fl_moves_fini(&moves);
    fl_free(order);
    fl_free(grads);
    fl_free(thetas);
    fl_free(rows);
    return code;
}

static inline int replay_file(const char *path, struct replay_errors *ret, struct fl_err *e)
{
    struct replay r;
    int code = replay_open(&r, path, e);

    *ret = (struct replay_errors){.whole = (double)NAN};
    if (code == 0 && r.plan->train.batch == r.data.train.count) {
        code = replay_whole(&r, &ret->whole, e);
    }
    if (code == 0) {
        ret->torch_first_gradient = replay_number(&r, "torch_first_gradient");
        ret->torch_gradient = replay_number(&r, "torch_gradient");
        ret->torch_theta = replay_number(&r, "torch_theta");
        ret->torch_end = replay_number(&r, "torch_end");
        code = replay_steps(&r, ret, e);
    }
    replay_close(&r);
    return code;
}

#endif
