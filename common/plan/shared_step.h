/*
 * One noised step whose noise the members of a secure sum share (unit `example`, privacy.noise:
 * distributed; secure.h has who adds how much).
 *
 * A site's clipped gradients are summed exactly, in integers of norm at most clip / h an example
 * (the trainer's clipsum.h; h is its step). What it adds to the secure sum is, for each element q_i
 * of that sum,
 *
 *     u_i = cut(rint(-factor h q_i)) + noise      factor = lr / (sampling_rate * examples * g)
 *
 * in steps g of the job's grid. No site's u can be called post-processing of a noised q, for only
 * the sum over sites has the whole noise; so rounding is inside of what is protected. rint moves a
 * difference of two values by less than 1, cut (to +-most) by nothing, hence one example moves u by
 * at most
 *
 *     bound = factor * clip + sqrt(elements)
 *
 * in L2 (rounded up, past what double arithmetic can err), and each member's noise has scale
 * multiplier / sqrt(sharers) * bound. A fine grid makes the second term small; the first is the
 * update itself. `most` leaves room on the grid for all the noise that the sampler can make, so
 * none is cut off.
 */
#ifndef FL_PLAN_SHARED_STEP_H
#define FL_PLAN_SHARED_STEP_H

#include "common/base/err.h"
#include "common/plan/plan.h"

struct fl_shared_step {
    double factor; /* grid steps for one unit of the sum of gradients */
    double bound;  /* L2, in grid steps: a whole number */
    double scale;  /* of a member's own noise, in grid steps; 0: not resolved yet */
    double most;   /* magnitude of one element before noise; a whole number of at most 2^23, so that
                      floats hold it */
};

/* Whether this plan's updates are such steps. */
static inline bool fl_plan_shares_step(const struct fl_plan *plan)
{
    return plan->privacy.unit == FL_UNIT_EXAMPLE && plan->privacy.noise == FL_NOISE_DISTRIBUTED;
}

/* -FL_R_PLAN_OVERFLOW: the grid does not hold step and noise; -FL_R_PLAN_PRIVACY: noise of fewer
 * than 4 grid steps. */
int fl_shared_step(const struct fl_plan *plan, struct fl_shared_step *ret, struct fl_err *e);

#endif
