/*
 * Clipping a released vector on the grid, once, over all tensors, with an exact integer bound:
 * after rounding, the sum of squares (128-bit) is at most bound^2, bound = floor(C / 2^step).
 * Scaling truncates towards zero and re-checks. So the L2 sensitivity of a sum of clipped vectors
 * is `bound` grid steps, without a rounding error to account for.
 */
#ifndef FL_PRIVACY_CLIP_H
#define FL_PRIVACY_CLIP_H

#include "common/base/err.h"
#include "common/math/grid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* bound is in [1, 2^40] (-FL_R_PLAN_PRIVACY when C is below one step, or beyond). */
int fl_clip_bound(const struct fl_grid *g, double clip, int64_t *ret_bound, struct fl_err *e);
/* Rounds x to the grid and clips: |q|_2 <= bound exactly. Reports the norm before (in units of x).
 * At most 2^32 values. -FL_R_NOT_FINITE. */
int fl_clip_to_grid(const struct fl_grid *g, const float *x, size_t count, int64_t bound,
                    int64_t *q, double *ret_norm_before, struct fl_err *e);
/* |q|_2 <= bound, exactly; for any q. */
bool fl_clip_holds(const int64_t *q, size_t count, int64_t bound);

#endif
