/*
 * Adaptive clipping (Andrew, Thakkar, McMahan, Ramaswamy 2021, arXiv 1905.03871): under the unit
 * `client` the clip follows a quantile of the updates' norms,
 *
 *     C' = C exp(-rate (b - quantile)),
 *
 * where b is the part of a round's members whose update was within C, known with noise only.
 *
 * A bit for each member is a release of its own. It leaves as one more value of the update: +k for
 * "within C", -k for "beyond", so that one vector of L2 norm at most sqrt(C^2 + k^2) leaves, and
 * one Gaussian of the plan's noise multiplier z covers both, exactly, whoever adds the noise. In
 * the paper's words: with sigma_b, the noise on the number of bits, and k = C / sqrt((2 sigma_b /
 * z)^2 - 1), the update itself has the multiplier (z^-2 - (2 sigma_b)^-2)^(-1/2) (theorem 1).
 *
 * The clip of a round is announced in the model: its last value, a tensor of one beside the
 * network's, is how far the clip has moved from privacy.clip. So it is in the checkpoint, bound by
 * the digests of intents, and the same after a crash. All of it is computed by the operations of
 * IEEE 754, so both ends have the same bound, to the grid step.
 */
#ifndef FL_PLAN_ADAPTIVE_H
#define FL_PLAN_ADAPTIVE_H

#include "common/base/err.h"
#include "common/plan/plan.h"

#include <stdint.h>

/* What one update is bounded by, in grid steps. Of a plan without adaptive clipping there is no
 * bit. */
struct fl_adaptive_bound {
    int64_t update; /* L2, of what the model's values have */
    int64_t bit;    /* k */
    double both;    /* L2, of all that leaves: what noise multipliers are of */
};
/* -FL_R_PLAN_PRIVACY: a clip below one step, or a bit that is. */
int fl_adaptive_bound(const struct fl_privacy_conf *p, int32_t step, struct fl_adaptive_bound *ret,
                      struct fl_err *e);
/* k / C; 0 without adaptive clipping. */
double fl_adaptive_ratio(const struct fl_privacy_conf *p);

/* The round that begins with a model whose last value is `moved`: the plan's privacy.clip becomes
 * this round's. -FL_R_PLAN_PRIVACY: not from min to max. Not for other plans. */
int fl_adaptive_take(struct fl_plan *plan, float moved, struct fl_err *e);
/* The last value of the next model, from the mean over members (noise included) of their last
 * values. `p` has this round's clip. */
float fl_adaptive_next(const struct fl_privacy_conf *p, int32_t step, double mean,
                       struct fl_err *e);

#endif
