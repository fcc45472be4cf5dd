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

/* a = covariance of x + lambda, b = covariance of x and t (in x out). */
static void centre(size_t in, size_t out, double lambda, const float *second, const float *cross,
                   double *a, double *b)
{
    size_t side = in + 1;
    double weight = (double)second[at(side, in, in)];

    for (size_t i = 0; i < in; i++) {
        double mean = (double)second[at(side, i, in)] / weight;
        for (size_t j = i; j < in; j++) {
            double other = (double)second[at(side, j, in)] / weight;
            a[j * in + i] = (double)second[at(side, i, j)] / weight - mean * other;
        }
        a[i * in + i] += lambda;
        for (size_t o = 0; o < out; o++) {
            double target = (double)cross[o * side + in] / weight;
            b[i * out + o] = (double)cross[o * side + i] / weight - mean * target;
        }
    }
}

static void write_out(size_t in, size_t out, const float *second, const float *cross,
                      const double *b, float *weight, float *bias)
{
    size_t side = in + 1;
    double all = (double)second[at(side, in, in)];

    for (size_t o = 0; o < out; o++) {
        double sum = (double)cross[o * side + in] / all;
        for (size_t i = 0; i < in; i++) {
            weight[o * in + i] = (float)b[i * out + o];
            sum -= b[i * out + o] * (double)second[at(side, i, in)] / all;
        }
        bias[o] = (float)sum;
    }
}

int fl_ridge_solve(size_t in, size_t out, double lambda, const float *second, const float *cross,
                   float *weight, float *bias, struct fl_err *e)
{
    double *a = NULL, *b = NULL;
    bool good = false;

    if (!(second[at(in + 1, in, in)] > 1e-6f)) {
        memset(weight, 0, in * out * sizeof *weight);
        memset(bias, 0, out * sizeof *bias);
        return 0;
    }
    a = fl_try_aligned(in * in, sizeof *a);
    b = fl_try_aligned(in * out, sizeof *b);
    if (!a || !b) {
        fl_free(a);
        fl_free(b);
        return no_memory(in, e);
    }
    for (int k = 0; k < TRIES && !good; k++, lambda *= 10) {
        centre(in, out, lambda, second, cross, a, b);
        good = fl_cholesky(a, in);
    }
    if (good) {
        fl_cholesky_solve(a, in, b, out);
        write_out(in, out, second, cross, b, weight, bias);
    }
    fl_free(a);
    fl_free(b);
    return good ? finish(weight, in * out, e)
                : fl_fail(e, FL_R_TRAIN, "no closed form: the moments are not finite");
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

/* With X and T without their means: W = T^T (X X^T + count lambda)^-1 X. */
int fl_ridge_fit(size_t in, size_t out, double lambda, const float *x, const float *t, size_t count,
                 float *weight, float *bias, struct fl_err *e)
{
    float *c = fl_try_aligned(count * in, sizeof *c), *k = fl_try_aligned(count * count, sizeof *k);
    float *d = fl_try_aligned(count * out, sizeof *d);
    double *a = fl_try_aligned(count * count, sizeof *a),
           *b = fl_try_aligned(count * out, sizeof *b);
    double *mean = fl_try_aligned(in, sizeof *mean), *goal = fl_try_aligned(out, sizeof *goal);
    int r = c && k && d && a && b && mean && goal ? 0 : no_memory(count, e);

    if (r < 0) {
        goto out;
    }
    without_means(x, count, in, c, mean);
    without_means(t, count, out, d, goal);
    fl_blas_gemm(false, true, count, count, in, 1, c, in, c, in, 0, k, count);
    for (size_t i = 0; i < count * count; i++) {
        a[i] = (double)k[i] + (i % (count + 1) == 0 ? (double)count * lambda : 0);
    }
    for (size_t i = 0; i < count * out; i++) {
        b[i] = (double)d[i];
    }
    if (!fl_cholesky(a, count)) {
        r = fl_fail(e, FL_R_TRAIN, "no closed form: lambda %g is too small for these features",
                    lambda);
        goto out;
    }
    fl_cholesky_solve(a, count, b, out);
    for (size_t i = 0; i < count * out; i++) {
        d[i] = (float)b[i];
    }
    fl_blas_gemm(true, false, out, in, count, 1, d, out, c, in, 0, weight, in);
    for (size_t o = 0; o < out; o++) {
        double sum = goal[o];
        for (size_t i = 0; i < in; i++) {
            sum -= (double)weight[o * in + i] * mean[i];
        }
        bias[o] = (float)sum;
    }
    r = finish(weight, in * out, e);
out:
    fl_free(c);
    fl_free(k);
    fl_free(d);
    fl_free(a);
    fl_free(b);
    fl_free(mean);
    fl_free(goal);
    return r;
}

bool fl_ridge_shared(const struct fl_layout *layout)
{
    return layout->spec.ridge > 0 && layout->visibility == FL_VISIBILITY_ALL_SHARED;
}

int fl_ridge_make(const struct fl_layout *layout, const float *shared, float *theta,
                  struct fl_err *e)
{
    const struct fl_tensor *weight = &layout->theta.at[0], *bias = &layout->theta.at[1];

    return fl_ridge_solve(weight->shape[1], weight->shape[0], (double)layout->spec.ridge, shared,
                          shared + layout->shared.at[1].offset, theta + weight->offset,
                          theta + bias->offset, e);
}
