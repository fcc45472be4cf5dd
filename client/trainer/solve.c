/*
 * The last layer in closed form (common/nn/ridge.h): no steps, one look at every example.
 *
 * Alone, with fewer examples than inputs, the site solves by its examples' products with each
 * other; otherwise by their moments. Where the layer is shared the moments themselves are what is
 * trained, in place of what was received, and the layer is made of them as everywhere.
 */
#include "client/trainer/session.h"

#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/nn/param/param.h"
#include "common/nn/ridge.h"

#include <string.h>

struct solving {
    struct fl_session *s;
    size_t in, out, count;
    struct fl_spec *part;   /* [0] what is before the layer and not fixed; NULL: nothing */
    struct fl_model *front; /* of it */
    float *x, *t;           /* a batch: inputs with a 1 behind them, targets */
};

static void solving_fini(struct solving *v)
{
    fl_model_free(v->front);
    fl_free(v->part);
    fl_free(v->x);
    fl_free(v->t);
}

static int solving_init(struct solving *v, struct fl_session *s, struct fl_err *e)
{
    const struct fl_spec *spec = s->spec;
    const struct fl_layer *last = &spec->layers[spec->layer_count - 1];

    *v = (struct solving){
        .s = s, .in = last->in_shape[0], .out = last->out, .count = s->data->train.count};
    v->x = fl_try_aligned(s->batch * (v->in + 1), sizeof *v->x);
    v->t = fl_try_aligned(s->batch * v->out, sizeof *v->t);
    if (!v->x || !v->t) {
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
            t[i * v->out + (size_t)s->y[i]] = 1;
        } else {
            memcpy(t + i * v->out, s->target + i * v->out, v->out * sizeof *t);
        }
    }
    return fl_session_cancelled(s, e);
}

/* Means over the examples, summed in doubles: of (x, 1)(x, 1)^T, packed, and of t (x, 1)^T. */
static int moments(struct solving *v, float *second, float *cross, struct fl_err *e)
{
    size_t side = v->in + 1, packed = fl_ridge_packed(v->in), crossed = v->out * side;
    double *sum = fl_try_aligned(packed + crossed, sizeof *sum);
    float *all = fl_try_aligned(side * side, sizeof *all);
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
        fl_blas_gemm(true, false, side, side, n, 1, v->x, side, v->x, side, 0, all, side);
        fl_blas_gemm(true, false, v->out, side, n, 1, v->t, v->out, v->x, side, 0, other, side);
        double *to = sum;
        for (size_t i = 0; i < side; i++) {
            for (size_t j = i; j < side; j++) {
                *to++ += (double)all[i * side + j];
            }
        }
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

static int by_examples(struct solving *v, double lambda, float *weight, float *bias,
                       struct fl_err *e)
{
    float *x = fl_try_aligned(v->count * v->in, sizeof *x);
    float *t = fl_try_aligned(v->count * v->out, sizeof *t);
    int r = x && t ? 0 : fl_fail(e, FL_R_NOMEM, "%zu features of %zu examples", v->in, v->count);

    for (size_t at = 0, n; r == 0 && at < v->count; at += n) {
        n = v->count - at < v->s->batch ? v->count - at : v->s->batch;
        r = load(v, at, n, v->in, x + at * v->in, t + at * v->out, e);
    }
    r = r < 0 ? r : fl_ridge_fit(v->in, v->out, lambda, x, t, v->count, weight, bias, e);
    fl_free(x);
    fl_free(t);
    return r;
}

static int by_moments(struct solving *v, double lambda, float *weight, float *bias,
                      struct fl_err *e)
{
    size_t packed = fl_ridge_packed(v->in);
    float *m = fl_try_aligned(packed + v->out * (v->in + 1), sizeof *m);
    int r =
        m ? moments(v, m, m + packed, e) : fl_fail(e, FL_R_NOMEM, "moments of %zu inputs", v->in);

    r = r < 0 ? r : fl_ridge_solve(v->in, v->out, lambda, m, m + packed, weight, bias, e);
    fl_free(m);
    return r;
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
    const struct fl_layout *l = s->layout;
    double lambda = (double)l->spec.ridge;
    float *weight = s->theta, *bias = s->theta + l->theta.at[1].offset;
    struct solving v;
    int r = solving_init(&v, s, e);

    if (r < 0) {
        goto out;
    }
    if (fl_ridge_shared(l)) {
        r = moments(&v, shared, shared + l->shared.at[1].offset, e);
        r = r < 0 ? r : fl_param_make(l, shared, private_, s->theta, e);
    } else {
        r = v.count <= v.in ? by_examples(&v, lambda, weight, bias, e)
                            : by_moments(&v, lambda, weight, bias, e);
        if (r == 0) {
            fl_param_store(l, s->theta, shared, private_);
        }
    }
    p->steps = 1;
    r = r < 0 ? r : mean_loss(&v, &p->loss, e);
out:
    solving_fini(&v);
    return r;
}
