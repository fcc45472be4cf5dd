/*
 * A linear layer in closed form: ridge regression. W and b minimise, over the examples,
 *
 *     mean |W x + b - t|^2 + lambda |W|^2        t: the target, or 1 at its class and 0 elsewhere
 *
 * All that the minimum needs of the examples is their second moments, means over examples of
 * (x, 1)(x, 1)^T and of t (x, 1)^T. Moments of several sites' examples add up, so where the layer
 * is shared they are what travels: the mean of the sites' moments, weighted by examples, gives the
 * very layer that all examples in one place would give.
 */
#ifndef FL_NN_RIDGE_H
#define FL_NN_RIDGE_H

#include "common/nn/spec.h"

enum { FL_RIDGE_INPUTS_MAX = 8192 }; /* of a layer whose moments travel */

/* Elements of the moments of x and 1, the upper triangle row by row: (in + 1)(in + 2) / 2. */
static inline size_t fl_ridge_packed(size_t in)
{
    return (in + 1) * (in + 2) / 2;
}

/* weight (out x in) and bias (out) from `second` (packed) and `cross` (out x (in + 1)), whatever
 * they are multiplied by. Moments with noise in them need not be positive definite: then lambda
 * grows tenfold until they are. No moments yet (zeros): zeros. -FL_R_NOMEM, -FL_R_TRAIN. */
int fl_ridge_solve(size_t in, size_t out, double lambda, const float *second, const float *cross,
                   float *weight, float *bias, struct fl_err *e);

/* The same from `count` examples themselves, by the matrix of their products with each other: for
 * fewer examples than inputs. x is count x in, t count x out. */
int fl_ridge_fit(size_t in, size_t out, double lambda, const float *x, const float *t, size_t count,
                 float *weight, float *bias, struct fl_err *e);

/* Whether the layout's last layer is solved from moments in `shared` (two tensors, the only ones);
 * then theta is made of them. */
bool fl_ridge_shared(const struct fl_layout *layout);
int fl_ridge_make(const struct fl_layout *layout, const float *shared, float *theta,
                  struct fl_err *e);

#endif
