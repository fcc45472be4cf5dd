/*
 * The last layer in closed form (common/nn/ridge.h): no steps, one look at every example.
 *
 * Alone, with fewer examples than inputs, the site solves by its examples' products with each
 * other; otherwise by their moments. Where the layer is shared the moments themselves are what is
 * trained, in place of what was received, and the layer is made of them as everywhere.
 *
 * Logistic regression is that again and again with responses for targets. Alone, steps are taken
 * from a point beyond the last layer in the direction that it moved (Nesterov's, from the start
 * again when that points uphill: O'Donoghue and Candes 2015), until a step changes less than
 * STILL of the layer.
 */
#include "client/trainer/session.h"

#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/nn/layers.h"
#include "common/nn/param/param.h"
#include "common/nn/ridge.h"

#include <math.h>
#include <string.h>

enum { STEPS_MAX = 1000 };
static const double STILL = 2e-6;

struct solving {
    struct fl_session *s;
    size_t in, out, count;
    struct fl_spec *part;   /* [0] what is before the layer and not fixed; NULL: nothing */
    struct fl_model *front; /* of it */
    float *x, *t;           /* a batch: inputs with a 1 behind them, targets */
    const float *to;        /* logistic: the layer, weight and bias, that is responded to */
    float *eta;             /* and its outputs for a batch */
};

static void solving_fini(struct solving *v)
{
    fl_model_free(v->front);
    fl_free(v->part);
    fl_free(v->x);
    fl_free(v->t);
    fl_free(v->eta);
}

static int solving_init(struct solving *v, struct fl_session *s, struct fl_err *e)
{
    const struct fl_spec *spec = s->spec;
    const struct fl_layer *last = &spec->layers[spec->layer_count - 1];

    *v = (struct solving){
        .s = s, .in = last->in_shape[0], .out = last->out, .count = s->data->train.count};
    v->x = fl_try_aligned(s->batch * (v->in + 1), sizeof *v->x);
    v->t = fl_try_aligned(s->batch * v->out, sizeof *v->t);
    v->eta = fl_try_aligned(s->batch * v->out, sizeof *v->eta);
    if (!v->x || !v->t || !v->eta) {
        return fl_fail(e, FL_R_NOMEM, "a batch of %zu features", v->in);
    }
    if (spec->layer_count == 1) {
        return 0;
    }
    v->part = fl_try(2, sizeof *v->part);
    if (!v->part) {
        return fl_fail(e, FL_R_NOMEM, "a model's parts");
    }
    fl_spec_cut(spec, spec->layer_count - 1, v->part);
    return fl_model_new(&v->part[0], (uint32_t)s->shard, &v->front, e);
}

/* z = eta + c (t - p) in the place of t, one example's. */
static void respond_to(double c, const float *eta, size_t out, float *t)
{
    double top = (double)eta[0], sum = 0;

    for (size_t o = 1; o < out; o++) {
        top = fmax(top, (double)eta[o]);
    }
    for (size_t o = 0; o < out; o++) {
        sum += exp((double)eta[o] - top);
    }
    for (size_t o = 0; o < out; o++) {
        double p = out == 1 ? 1 / (1 + exp(-(double)eta[o])) : exp((double)eta[o] - top) / sum;
        t[o] = (float)((double)eta[o] + c * ((double)t[o] - p));
    }
}

/* Targets of `n` examples, inputs `apart` floats from each other, become responses to v->to. */
static void respond(const struct solving *v, const float *x, size_t apart, size_t n, float *t)
{
    double c = fl_ridge_response(v->s->spec);

    for (size_t first = 0, some; first < n; first += some) {
        some = n - first < v->s->batch ? n - first : v->s->batch;
        fl_fill_rows(v->to + v->in * v->out, some, v->out, v->eta);
        fl_blas_gemm(false, true, some, v->out, v->in, 1, x + first * apart, apart, v->to, v->in, 1,
                     v->eta, v->out);
        for (size_t i = 0; i < some; i++) {
            respond_to(c, v->eta + i * v->out, v->out, t + (first + i) * v->out);
        }
    }
}

/* Examples from number `at`: inputs `apart` floats from each other, and targets. */
static int load(struct solving *v, size_t at, size_t n, size_t apart, float *x, float *t,
                struct fl_err *e)
{
    struct fl_session *s = v->s;
    int r = fl_session_cancelled(s, e);

    if (r < 0) {
        return r;
    }
    fl_session_load(s, &s->data->train, NULL, at, n);
    const float *from = s->x;
    if (v->front) {
        fl_model_forward(v->front, s->x, n, x);
        from = x;
    }
    for (size_t i = n; i-- > 0;) { /* from the last on: they may be moved apart in place */
        memmove(x + i * apart, from + i * v->in, v->in * sizeof *x);
    }
    memset(t, 0, n * v->out * sizeof *t);
    for (size_t i = 0; i < n; i++) {
        if (s->goal == s->y) {
            *(v->out == 1 ? &t[i] : &t[i * v->out + (size_t)s->y[i]]) =
                v->out == 1 ? (float)s->y[i] : 1;
        } else {
            memcpy(t + i * v->out, s->target + i * v->out, v->out * sizeof *t);
        }
    }
    return fl_session_cancelled(s, e);
}

/* Means over the examples, summed in doubles: of (x, 1)(x, 1)^T, packed, unless `second` is NULL,
 * and of t (x, 1)^T. */
static int moments(struct solving *v, float *second, float *cross, struct fl_err *e)
{
    size_t side = v->in + 1, packed = second ? fl_ridge_packed(v->in) : 0, crossed = v->out * side;
    double *sum = fl_try_aligned(packed + crossed, sizeof *sum);
    float *all = fl_try_aligned(second ? side * side : 1, sizeof *all);
    float *other = fl_try_aligned(crossed, sizeof *other);
    int r = sum && all && other ? 0 : fl_fail(e, FL_R_NOMEM, "moments of %zu inputs", v->in);

    for (size_t at = 0, n; r == 0 && at < v->count; at += n) {
        n = v->count - at < v->s->batch ? v->count - at : v->s->batch;
        if ((r = load(v, at, n, side, v->x, v->t, e)) < 0) {
            break;
        }
        for (size_t i = 0; i < n; i++) {
            v->x[i * side + v->in] = 1;
        }
        if (v->to) {
            respond(v, v->x, side, n, v->t);
        }
        double *to = sum;
        if (second) {
            fl_blas_gemm(true, false, side, side, n, 1, v->x, side, v->x, side, 0, all, side);
        }
        for (size_t i = 0; second && i < side; i++) {
            for (size_t j = i; j < side; j++) {
                *to++ += (double)all[i * side + j];
            }
        }
        fl_blas_gemm(true, false, v->out, side, n, 1, v->t, v->out, v->x, side, 0, other, side);
        for (size_t i = 0; i < crossed; i++) {
            *to++ += (double)other[i];
        }
    }
    for (size_t i = 0; r == 0 && i < packed + crossed; i++) {
        *(i < packed ? second + i : cross + i - packed) = (float)(sum[i] / (double)v->count);
    }
    fl_free(sum);
    fl_free(all);
    fl_free(other);
    return r;
}

/* ---- alone ---- */

/* The site's own system and what it needs for right-hand sides. */
struct alone {
    struct fl_ridge *system;
    float *x, *t; /* by examples: all of them; NULL: by moments */
    float *of;    /* what fl_ridge_layer takes */
};

static void alone_fini(struct alone *a)
{
    fl_ridge_free(a->system);
    fl_free(a->x);
    fl_free(a->t);
    fl_free(a->of);
}

static int by_examples(struct solving *v, double lambda, struct alone *a, struct fl_err *e)
{
    int r = 0;

    a->x = fl_try_aligned(v->count * v->in, sizeof *a->x);
    a->t = fl_try_aligned(v->count * v->out, sizeof *a->t);
    a->of = fl_try_aligned(v->count * v->out, sizeof *a->of);
    if (!a->x || !a->t || !a->of) {
        return fl_fail(e, FL_R_NOMEM, "%zu features of %zu examples", v->in, v->count);
    }
    for (size_t at = 0, n; r == 0 && at < v->count; at += n) {
        n = v->count - at < v->s->batch ? v->count - at : v->s->batch;
        r = load(v, at, n, v->in, a->x + at * v->in, a->t + at * v->out, e);
    }
    return r < 0 ? r : fl_ridge_by_examples(v->in, lambda, a->x, v->count, &a->system, e);
}

static int by_moments(struct solving *v, double lambda, struct alone *a, struct fl_err *e)
{
    float *second = fl_try_aligned(fl_ridge_packed(v->in), sizeof *second);

    a->of = fl_try_aligned(v->out * (v->in + 1), sizeof *a->of);
    int r = second && a->of ? moments(v, second, a->of, e)
                            : fl_fail(e, FL_R_NOMEM, "moments of %zu inputs", v->in);
    r = r < 0 ? r : fl_ridge_by_moments(v->in, lambda, second, &a->system, e);
    fl_free(second);
    return r;
}

/* The layer for the targets, or for the responses to v->to. */
static int solve_alone(struct solving *v, struct alone *a, float *layer, struct fl_err *e)
{
    int r = fl_session_cancelled(v->s, e);

    if (a->x) {
        memcpy(a->of, a->t, v->count * v->out * sizeof *a->of);
        if (v->to) {
            respond(v, a->x, v->in, v->count, a->of);
        }
    } else if (r == 0 && v->to) { /* the targets' own are there */
        r = moments(v, NULL, a->of, e);
    }
    return r < 0 ? r : fl_ridge_layer(a->system, v->out, a->of, layer, layer + v->in * v->out, e);
}

/* Steps of logistic regression from the layer of zeros; `layer` is where they end. */
static int logistic(struct solving *v, struct alone *a, float *layer, uint64_t *ret_steps,
                    struct fl_err *e)
{
    size_t n = v->in * v->out + v->out;
    float *from = fl_try_aligned(n, sizeof *from), *next = fl_try_aligned(n, sizeof *next);
    double momentum = 1, change = INFINITY, size = 0;
    int r = from && next ? 0 : fl_fail(e, FL_R_NOMEM, "a layer of %zu inputs", v->in);

    if (r == 0) {
        memset(layer, 0, n * sizeof *layer);
        v->to = from;
    }
    for (uint64_t k = 0; r == 0 && k < STEPS_MAX && change > STILL * STILL * size; k++) {
        if ((r = solve_alone(v, a, next, e)) < 0) {
            break;
        }
        double uphill = 0, before = momentum;
        change = size = 0;
        for (size_t i = 0; i < n; i++) {
            double step = (double)next[i] - (double)from[i];
            uphill -= step * ((double)next[i] - (double)layer[i]);
            change += step * step;
            size += (double)next[i] * (double)next[i];
        }
        momentum = uphill > 0 ? 1 : (1 + sqrt(1 + 4 * momentum * momentum)) / 2;
        double beyond = uphill > 0 ? 0 : (before - 1) / momentum;
        for (size_t i = 0; i < n; i++) {
            from[i] = next[i] + (float)beyond * (next[i] - layer[i]);
            layer[i] = next[i];
        }
        *ret_steps = k + 1;
    }
    v->to = NULL;
    fl_free(from);
    fl_free(next);
    return r;
}

static int train_alone(struct solving *v, float *layer, uint64_t *ret_steps, struct fl_err *e)
{
    const struct fl_spec *spec = &v->s->layout->spec;
    double lambda = fl_ridge_lambda(spec);
    struct alone a = {0};
    int r = v->count <= v->in ? by_examples(v, lambda, &a, e) : by_moments(v, lambda, &a, e);

    *ret_steps = 1;
    if (r == 0) {
        r = spec->logistic ? logistic(v, &a, layer, ret_steps, e) : solve_alone(v, &a, layer, e);
    }
    alone_fini(&a);
    return r;
}

/* ---- with others ---- */

static int train_shared(struct solving *v, float *shared, float *private_, struct fl_err *e)
{
    const struct fl_layout *l = v->s->layout;
    int r;

    v->to = l->spec.logistic ? v->s->theta : NULL; /* as received */
    r = moments(v, shared, shared + l->shared.at[1].offset, e);
    v->to = NULL;
    return r < 0 ? r : fl_param_make(l, shared, private_, v->s->theta, e);
}

/* The mean loss of what was found, over the examples it was found from. */
static int mean_loss(struct solving *v, double *ret, struct fl_err *e)
{
    struct fl_session *s = v->s;
    struct fl_score score;
    double sum = 0;
    int r = 0;

    fl_model_set(s->model, s->theta);
    for (size_t at = 0, n; r == 0 && at < v->count; at += n) {
        n = v->count - at < s->batch ? v->count - at : s->batch;
        fl_session_load(s, &s->data->train, NULL, at, n);
        fl_model_score(s->model, s->x, s->goal, n, &score);
        sum += score.loss;
        r = fl_session_cancelled(s, e);
    }
    *ret = sum / (double)v->count;
    return r;
}

int fl_train_solved(struct fl_session *s, float *shared, float *private_, struct fl_progress *p,
                    struct fl_err *e)
{
    struct solving v;
    int r = solving_init(&v, s, e);

    p->steps = 1;
    if (r < 0) {
        goto out;
    }
    if (fl_ridge_shared(s->layout)) {
        r = train_shared(&v, shared, private_, e);
    } else {
        r = train_alone(&v, s->theta, &p->steps, e);
        if (r == 0) {
            fl_param_store(s->layout, s->theta, shared, private_);
        }
    }
    r = r < 0 ? r : mean_loss(&v, &p->loss, e);
out:
    solving_fini(&v);
    return r;
}
