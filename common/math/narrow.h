/*
 * One upload of 8 bits, usable at 6 and 4: nested steps. An integer q of 8 bits stands for q s; at
 * b bits it is round(q / 2^(8 - b)), ties to even, cut to the symmetric range, and stands for that
 * times 2^(8 - b) s. So a vector that was clipped and noised once is made narrower by a second
 * rounding of the integers alone ("double rounding"), without the floats it came from, and whoever
 * reads it adds it to sums of the 8-bit grid.
 */
#ifndef FL_MATH_NARROW_H
#define FL_MATH_NARROW_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_NARROW_FROM = 8 }; /* bits */

/* 4 and 6. */
bool fl_narrow_is(uint32_t bits);
/* Bytes of `count` values, ceil(count * bits / 8); count is below 2^59. */
size_t fl_narrow_bytes(uint32_t bits, size_t count);
/* q: values of 8 bits (beyond 127 they saturate); packed as in grid.h. Returns how many values the
 * narrower range cut, or 8 bits would have. */
uint64_t fl_narrow_pack(uint32_t bits, const int64_t *q, size_t count, uint8_t *to);

/* Reads a narrow vector of `count` values as if it were the 8-bit one: byte i is value i. `read`
 * gives exactly `size` bytes of it from `offset`. Errors: what `read` says; -FL_R_UPDATE_RANGE for
 * the word that is never sent, or padding that is not zero; -FL_R_OFFSET beyond the end. */
struct fl_narrow {
    uint32_t bits;
    size_t count;
    int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);
    void *arg;
};
int fl_narrow_read(const struct fl_narrow *n, uint64_t offset, uint8_t *to, size_t size,
                   struct fl_err *e);

#endif
