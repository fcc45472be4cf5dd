/*
 * The grid: what crosses the wire is integers. A value x becomes round(x / 2^step) and is packed in
 * `bits` bits, two's complement, little-endian, without gaps; sums are 64-bit integers, so that
 * they are the same bits in any order. (Kairouz, Liu, Steinke 2021 for discretised updates; the
 * clip after rounding is exact in integers.)
 *
 * Value number i of a packed vector is bits [i * bits, (i + 1) * bits) of the byte string, bit b
 * being bit b % 8 of byte b / 8. A vector of n values has exactly ceil(n * bits / 8) bytes; what is
 * left of the last byte is zero. So the number of values follows from the size.
 */
#ifndef FL_MATH_GRID_H
#define FL_MATH_GRID_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_grid {
    uint32_t bits; /* 8..32 */
    int32_t step;  /* log2 of the step */
};

/* Largest magnitude that fits: 2^(bits-1) - 1. (The most negative word is never used.) */
int64_t fl_grid_max(const struct fl_grid *g);
/* ceil(count * bits / 8); false on overflow. */
bool fl_grid_bytes(const struct fl_grid *g, size_t count, size_t *ret);

/* Rounds to nearest (ties to even), no clipping. -FL_R_NOT_FINITE on NaN or infinity, or beyond
 * 2^62; q is then undefined. */
int fl_grid_round(const struct fl_grid *g, const float *x, size_t count, int64_t *q,
                  struct fl_err *e);
/* Packs; values beyond fl_grid_max saturate and are counted, never resampled. Returns the count. */
uint64_t fl_grid_pack(const struct fl_grid *g, const int64_t *q, size_t count, uint8_t *to);
/* Unpacks `count` values beginning with value number `first` of the packed vector `from` (whole
 * vector). The most negative word is -FL_R_UPDATE_RANGE, as are non-zero padding bits at the very
 * end (looked at when the last value is asked for). -FL_R_UPDATE_LENGTH: from_size is not that of
 * a vector, or it has fewer values. */
int fl_grid_unpack(const struct fl_grid *g, const uint8_t *from, size_t from_size, size_t first,
                   size_t count, int64_t *q, struct fl_err *e);
/* acc[i] += weight * value first + i of the packed vector, for i < count: the fold. Same errors,
 * before anything is added. That sums fit is fl_grid_sum_fits, asked once for a job. */
int fl_grid_fold(const struct fl_grid *g, const uint8_t *from, size_t from_size, size_t first,
                 size_t count, uint32_t weight, int64_t *acc, struct fl_err *e);
/* True when sums of `members` values times at most max_weight fit: (bits-1) + ceil(log2 max_weight)
 * + ceil(log2 members) <= 62. */
bool fl_grid_sum_fits(const struct fl_grid *g, uint32_t max_weight, uint32_t members);

#endif
