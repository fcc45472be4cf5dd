#include "common/nn/ridge.h"

#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/solve.h"
#include "common/math/vec.h"

#include <math.h>
#include <string.h>

enum { TRIES = 40 };

static int no_memory(size_t n, struct fl_err *e)
{
    return fl_fail(e, FL_R_NOMEM, "a closed form of %zu unknowns an output", n);
}

static int finish(const float *weight, size_t count, struct fl_err *e)
{
    return fl_vec_finite(weight, count)
               ? 0
               : fl_fail(e, FL_R_TRAIN, "the closed form gave values that are not finite");
}

/* Element (i, j), i <= j, of a packed triangle with `side` rows. */
static size_t at(size_t side, size_t i, size_t j)
{
    return i * side - i * (i + 1) / 2 + j;
}

struct fl_ridge {
    size_t in, count; /* count 0: by moments */
    double *a;        /* L of the system's matrix; NULL: no moments yet */
    double *mean;     /* of x: in */
    double weight;    /* by moments: what they are multiplied by */
    float *x;         /* by examples: without the means */
};

static int no_system(struct fl_ridge *s, int r)
{
    fl_ridge_free(s);
    return r;
}

void fl_ridge_free(struct fl_ridge *s)
{
    if (s) {
        fl_free(s->a);
        fl_free(s->mean);
        fl_free(s->x);
    }
    fl_free(s);
}

static struct fl_ridge *new_system(size_t in, size_t count)
{
    struct fl_ridge *s = fl_try(1, sizeof *s);

    if (s) {
        *s = (struct fl_ridge){.in = in, .count = count};
        s->mean = fl_try_aligned(in, sizeof *s->mean);
    }
    return s;
}

/* a = covariance of x + lambda */
static void centre(struct fl_ridge *s, double lambda, const float *second)
{
    size_t in = s->in, side = in + 1;

    for (size_t i = 0; i < in; i++) {
        s->mean[i] = (double)second[at(side, i, in)] / s->weight;
        for (size_t j = i; j < in; j++) {
            double other = (double)second[at(side, j, in)] / s->weight;
            s->a[j * in + i] = (double)second[at(side, i, j)] / s->weight - s->mean[i] * other;
        }
        s->a[i * in + i] += lambda;
    }
}

int fl_ridge_by_moments(size_t in, double lambda, const float *second, struct fl_ridge **ret,
                        struct fl_err *e)
{
    struct fl_ridge *s = new_system(in, 0);
    bool good = false;

    if (!s || !s->mean) {
        return no_system(s, no_memory(in, e));
    }
    s->weight = (double)second[at(in + 1, in, in)];
    if (!(s->weight > 1e-6)) {
        *ret = s;
        return 0;
    }
    s->a = fl_try_aligned(in * in, sizeof *s->a);
    if (!s->a) {
        return no_system(s, no_memory(in, e));
    }
    for (int k = 0; k < TRIES && !good; k++, lambda *= 10) {
        centre(s, lambda, second);
        good = fl_cholesky(s->a, in);
    }
    if (!good) {
        return no_system(s, fl_fail(e, FL_R_TRAIN, "no closed form: the moments are not finite"));
    }
    *ret = s;
    return 0;
}

/* Columns of x without their means; the means. */
static void without_means(const float *x, size_t count, size_t in, float *to, double *mean)
{
    memset(mean, 0, in * sizeof *mean);
    for (size_t n = 0; n < count; n++) {
        for (size_t i = 0; i < in; i++) {
            mean[i] += (double)x[n * in + i];
        }
    }
    for (size_t i = 0; i < in; i++) {
        mean[i] /= (double)count;
    }
    for (size_t n = 0; n < count; n++) {
        for (size_t i = 0; i < in; i++) {
            to[n * in + i] = (float)((double)x[n * in + i] - mean[i]);
        }
    }
}

int fl_ridge_by_examples(size_t in, double lambda, const float *x, size_t count,
                         struct fl_ridge **ret, struct fl_err *e)
{
    struct fl_ridge *s = new_system(in, count);
    float *k = fl_try_aligned(count * count, sizeof *k);
    int r = 0;

    if (s) {
        s->x = fl_try_aligned(count * in, sizeof *s->x);
        s->a = fl_try_aligned(count * count, sizeof *s->a);
    }
    if (!s || !s->mean || !s->x || !s->a || !k) {
        r = no_memory(count, e);
        goto out;
    }
    without_means(x, count, in, s->x, s->mean);
    fl_blas_gemm(false, true, count, count, in, 1, s->x, in, s->x, in, 0, k, count);
    for (size_t i = 0; i < count * count; i++) {
        s->a[i] = (double)k[i] + (i % (count + 1) == 0 ? (double)count * lambda : 0);
    }
    if (!fl_cholesky(s->a, count)) {
        r = fl_fail(e, FL_R_TRAIN, "no closed form: lambda %g is too small for these features",
                    lambda);
    }
out:
    fl_free(k);
    if (r < 0) {
        return no_system(s, r);
    }
    *ret = s;
    return 0;
}

/* bias = mean of the targets - weight times mean of x */
static void set_bias(const struct fl_ridge *s, size_t out, const double *goal, const float *weight,
                     float *bias)
{
    for (size_t o = 0; o < out; o++) {
        double sum = goal[o];
        for (size_t i = 0; i < s->in; i++) {
            sum -= (double)weight[o * s->in + i] * s->mean[i];
        }
        bias[o] = (float)sum;
    }
}

/* W = (covariance of x and t)^T (covariance of x + lambda)^-1 */
static void solve_moments(const struct fl_ridge *s, size_t out, const float *cross, double *b,
                          double *goal, float *weight)
{
    size_t in = s->in, side = in + 1;

    for (size_t o = 0; o < out; o++) {
        goal[o] = (double)cross[o * side + in] / s->weight;
        for (size_t i = 0; i < in; i++) {
            b[i * out + o] = (double)cross[o * side + i] / s->weight - s->mean[i] * goal[o];
        }
    }
    fl_cholesky_solve(s->a, in, b, out);
    for (size_t i = 0; i < in * out; i++) {
        weight[i] = (float)b[i % in * out + i / in];
    }
}

/* With X and T without their means: W = T^T (X X^T + count lambda)^-1 X. `d`: count x out. */
static void solve_examples(const struct fl_ridge *s, size_t out, const float *t, double *b,
                           double *goal, float *d, float *weight)
{
    without_means(t, s->count, out, d, goal);
    for (size_t i = 0; i < s->count * out; i++) {
        b[i] = (double)d[i];
    }
    fl_cholesky_solve(s->a, s->count, b, out);
    for (size_t i = 0; i < s->count * out; i++) {
        d[i] = (float)b[i];
    }
    fl_blas_gemm(true, false, out, s->in, s->count, 1, d, out, s->x, s->in, 0, weight, s->in);
}

int fl_ridge_layer(const struct fl_ridge *s, size_t out, const float *of, float *weight,
                   float *bias, struct fl_err *e)
{
    size_t rows = s->count ? s->count : s->in;

    if (!s->a) {
        memset(weight, 0, s->in * out * sizeof *weight);
        memset(bias, 0, out * sizeof *bias);
        return 0;
    }
    double *b = fl_try_aligned(rows * out, sizeof *b), *goal = fl_try_aligned(out, sizeof *goal);
    float *d = fl_try_aligned(rows * out, sizeof *d);
    int r = b && goal && d ? 0 : no_memory(rows, e);
    if (r == 0) {
        if (s->count) {
            solve_examples(s, out, of, b, goal, d, weight);
        } else {
            solve_moments(s, out, of, b, goal, weight);
        }
        set_bias(s, out, goal, weight, bias);
        r = finish(weight, s->in * out, e);
    }
    fl_free(b);
    fl_free(goal);
    fl_free(d);
    return r;
}

double fl_ridge_response(const struct fl_spec *spec)
{
    return !spec->logistic ? 0 : spec->loss.kind == FL_LOSS_BINARY ? 4 : 2;
}

double fl_ridge_lambda(const struct fl_spec *spec)
{
    return (double)spec->ridge * (spec->logistic ? 2 * fl_ridge_response(spec) : 1);
}

bool fl_ridge_shared(const struct fl_layout *layout)
{
    return layout->spec.ridge > 0 && layout->visibility == FL_VISIBILITY_ALL_SHARED;
}

int fl_ridge_make(const struct fl_layout *layout, const float *shared, float *theta,
                  struct fl_err *e)
{
    const struct fl_tensor *weight = &layout->theta.at[0], *bias = &layout->theta.at[1];
    struct fl_ridge *s = NULL;
    int r = fl_ridge_by_moments(weight->shape[1], fl_ridge_lambda(&layout->spec), shared, &s, e);

    if (r == 0) {
        r = fl_ridge_layer(s, weight->shape[0], shared + layout->shared.at[1].offset,
                           theta + weight->offset, theta + bias->offset, e);
    }
    fl_ridge_free(s);
    return r;
}
