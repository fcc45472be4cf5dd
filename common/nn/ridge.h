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

/* The system, for any number of right-hand sides. */
struct fl_ridge;

/* From `second` (packed), whatever it is multiplied by. With noise in them moments need not be
 * positive definite: then lambda grows tenfold until they are. No moments yet (zeros): every layer
 * is zeros. -FL_R_NOMEM, -FL_R_TRAIN. */
int fl_ridge_by_moments(size_t in, double lambda, const float *second, struct fl_ridge **ret,
                        struct fl_err *e);
/* From `count` examples themselves (x is count x in), by the matrix of their products with each
 * other: for fewer examples than inputs. */
int fl_ridge_by_examples(size_t in, double lambda, const float *x, size_t count,
                         struct fl_ridge **ret, struct fl_err *e);
void fl_ridge_free(struct fl_ridge *s);
/* weight (out x in) and bias (out) for `of`: by moments the cross moments (out x (in + 1)),
 * multiplied by the same as `second`; by examples the targets (count x out). */
int fl_ridge_layer(const struct fl_ridge *s, size_t out, const float *of, float *weight,
                   float *bias, struct fl_err *e);

/* c of the responses above; 0: not logistic. */
double fl_ridge_response(const struct fl_spec *spec);
/* What is to be given as lambda for this spec. */
double fl_ridge_lambda(const struct fl_spec *spec);

/* Whether the layout's last layer is solved from moments in `shared` (two tensors, the only ones);
 * then theta is made of them. */
bool fl_ridge_shared(const struct fl_layout *layout);
int fl_ridge_make(const struct fl_layout *layout, const float *shared, float *theta,
                  struct fl_err *e);

#endif
