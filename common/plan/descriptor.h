/*
 * The descriptor: what a site says of its data so that sites can be told apart, in one short vector
 * with a provable sensitivity. (The importances of boosted trees that PA-CFL sends, arXiv
 * 2503.12220, have none: one row can change them as a whole. Variant `published` sends these in its
 * place, with no unit: one number for each input.)
 *
 * Of one example with features x and target y:
 *
 *     v = (1, z, z_1 y_1, z_1 y_2, ...) / sqrt(D)        z = (1, clip(x_1), clip(x_2), ...)
 *
 * that is a one, by which examples are counted, and the products of all z with all y: y is one-hot
 * for classes, clip(y) for numbers; clip(u) is u / bound cut to [-1, 1]. More than `features`
 * features are first projected on so many public random directions. D is such that |v| <= 1 always:
 * 1 + length of z, times the targets' number where these are numbers.
 *
 *     unit example   the sum of v over the training examples: one more or less moves it by at most
 * 1 in L2 (each v is rounded and clipped on the grid before it is added) client, none   the mean of
 * v, clipped to 1 in L2
 *
 * plus discrete Gaussian noise of `noise_multiplier` in each number, on the grid. A site with few
 * examples so is described with more noise, by the same release.
 */
#ifndef FL_PLAN_DESCRIPTOR_H
#define FL_PLAN_DESCRIPTOR_H

#include "common/base/rng.h"
#include "common/math/grid.h"
#include "common/plan/plan.h"

#include <stdbool.h>

/* Of the exchange. Elements are at most FL_DESCRIPTOR_MAX: checked with the plan. */
bool fl_descriptor_due(const struct fl_descriptor_conf *c, uint64_t round);
size_t fl_descriptor_elements(const struct fl_plan *plan);
struct fl_grid fl_descriptor_grid(const struct fl_plan *plan);

/* How often a site sends one in the whole job. */
uint64_t fl_descriptor_times(const struct fl_plan *plan);

/* Numbers that fl_descriptor_read makes of one: all, less the one that counts examples. */
size_t fl_descriptor_length(const struct fl_plan *plan);

/* Length of z without its one, and how many z * y one example has at most. */
uint32_t fl_descriptor_features(const struct fl_plan *plan);
uint32_t fl_descriptor_targets(const struct fl_plan *plan);
/* sqrt(D). */
double fl_descriptor_norm(const struct fl_plan *plan);
/* The features are projected; the seed of the signs is public. */
bool fl_descriptor_projected(const struct fl_plan *plan, struct fl_seed *ret);

/* What a received vector says. Importances: as they are, without a word about their noise. Else
 * `elements` - 1 moments of one example each, cut to what an honest
 * site can send (1 and 8 deviations of its noise), and the standard deviation of that noise. False:
 * the noise is as large as the site itself (fewer examples than about four deviations of their
 * counter), and nothing can be read from it. */
bool fl_descriptor_read(const struct fl_plan *plan, const int64_t *q, float *ret,
                        double *ret_sigma);

/* The multiplier for which all descriptors of the job together use the part `share` of
 * privacy.epsilon, in terms of sums of 1 / sigma^2 (that is, of zCDP's rho). */
int fl_descriptor_sigma(const struct fl_plan *plan, double *ret, struct fl_err *e);

#endif
