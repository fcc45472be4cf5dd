/*
 * Scaling by integers. Let S be the exact sum of squares and n = ceil(sqrt(S)) >= |q|. With
 * f = floor(2^62 bound / n), every value becomes the integer part of q f / 2^62, towards zero, so
 *
 *   |q'_i| <= |q_i| bound / n    and    |q'| <= |q| bound / n <= bound.
 *
 * The direction changes by less than one grid step per value. Values may be as large as 2^62, whose
 * squares' sum would leave 128 bits: then all are first shifted down to 46 bits, which is still far
 * beyond any bound (2^40), so that they need scaling anyway.
 */
#include "common/privacy/clip.h"

#include "common/base/u128.h"

#include <assert.h>
#include <math.h>

enum { BOUND_BITS = 40, VALUE_BITS = 46, FACTOR_BITS = 62 };

int fl_clip_bound(const struct fl_grid *g, double clip, int64_t *ret_bound, struct fl_err *e)
{
    double steps = floor(ldexp(clip, -g->step)); /* exact: only the exponent changes */

    if (!(clip > 0) || !(steps >= 1)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "clip %g is below one grid step of 2^%d", clip,
                       (int)g->step);
    }
    if (!(steps <= ldexp(1, BOUND_BITS))) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "clip %g is beyond 2^%d grid steps of 2^%d", clip,
                       BOUND_BITS, (int)g->step);
    }
    *ret_bound = (int64_t)steps;
    return 0;
}

static inline uint64_t magnitude(int64_t v)
{
    return v < 0 ? -(uint64_t)v : (uint64_t)v;
}

static uint64_t all_bits(const int64_t *q, size_t count)
{
    uint64_t any = 0;

    for (size_t i = 0; i < count; i++) {
        any |= magnitude(q[i]);
    }
    return any;
}

/* All magnitudes below 2^47, at most 2^32 of them: below 2^126. */
static fl_u128 sum_of_squares(const int64_t *q, size_t count)
{
    fl_u128 sum = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t m = magnitude(q[i]);
        sum += (fl_u128)m * m;
    }
    return sum;
}

bool fl_clip_holds(const int64_t *q, size_t count, int64_t bound)
{
    return all_bits(q, count) <= (uint64_t)1 << VALUE_BITS &&
           sum_of_squares(q, count) <= (fl_u128)bound * (fl_u128)bound;
}

/* Towards zero: on magnitudes. */
static void scale(int64_t *q, size_t count, unsigned shift, uint64_t factor)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t m = magnitude(q[i]) >> shift;
        int64_t s = (int64_t)((fl_u128)m * factor >> FACTOR_BITS);
        q[i] = q[i] < 0 ? -s : s;
    }
}

int fl_clip_to_grid(const struct fl_grid *g, const float *x, size_t count, int64_t bound,
                    int64_t *q, double *ret_norm_before, struct fl_err *e)
{
    const fl_u128 limit = (fl_u128)bound * (fl_u128)bound;
    double squares = 0;
    unsigned bits, shift;
    fl_u128 sum;
    int r;

    assert(bound >= 1 && bound <= (int64_t)1 << BOUND_BITS && count <= (size_t)1 << 32);
    r = fl_grid_round(g, x, count, q, e);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < count; i++) {
        squares += (double)x[i] * (double)x[i];
    }
    bits = fl_u128_bits(all_bits(q, count));
    shift = bits > VALUE_BITS ? bits - VALUE_BITS : 0;
    if (shift) {
        scale(q, count, shift, (uint64_t)1 << FACTOR_BITS);
    }
    sum = sum_of_squares(q, count);
    if (sum > limit) {
        uint64_t norm = fl_u128_isqrt(sum);
        norm += (fl_u128)norm * norm < sum;
        scale(q, count, 0, (uint64_t)(((fl_u128)bound << FACTOR_BITS) / norm));
        sum = sum_of_squares(q, count);
    }
    if (sum > limit) {
        return fl_fail(e, FL_R_INTERNAL, "a clipped vector is longer than its bound");
    }
    *ret_norm_before = sqrt(squares);
    return 0;
}
