/*
 * Unsigned fixed-point numbers with 64 bits before the point and 256 behind it, for the thresholds
 * of the noise tables. Results are cut, never rounded up. Each operation is at most 2^-256 too
 * small (times its operand).
 */
#ifndef FL_PRIVACY_FIXED_H
#define FL_PRIVACY_FIXED_H

#include "common/base/u128.h"

#include <stdint.h>

struct fl_fixed {
    uint64_t limb[5]; /* sum of limb[i] * 2^(64 (i - 4)) */
};

void fl_fixed_one(struct fl_fixed *ret);
/* Results may be operands. Overflow beyond 2^64 is the caller's to avoid. */
void fl_fixed_add(struct fl_fixed *ret, const struct fl_fixed *a, const struct fl_fixed *b);
void fl_fixed_sub(struct fl_fixed *ret, const struct fl_fixed *a, const struct fl_fixed *b);
void fl_fixed_mul(struct fl_fixed *ret, const struct fl_fixed *a, const struct fl_fixed *b);
/* exp(-numerator / denominator), denominator > 0, the quotient at most 16. Exact to 2^-240. */
void fl_fixed_exp_minus(struct fl_fixed *ret, uint64_t numerator, uint64_t denominator);
/* floor(2^128 a / b) for 0 <= a < b < 2^63; 2^128 - 1 when a = b. */
fl_u128 fl_fixed_fraction(const struct fl_fixed *a, const struct fl_fixed *b);

#endif
