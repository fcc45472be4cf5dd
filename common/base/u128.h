/* 128-bit unsigned integers: sums of squares, exact comparisons of products. */
#ifndef FL_BASE_U128_H
#define FL_BASE_U128_H

#include <stdint.h>

__extension__ typedef unsigned __int128 fl_u128;

/* Index of the highest bit that is set, plus one; 0 for 0. */
static inline unsigned fl_u128_bits(fl_u128 x)
{
    uint64_t high = (uint64_t)(x >> 64), low = (uint64_t)x;

    if (high) {
        return 128 - (unsigned)__builtin_clzll(high);
    }
    return low ? 64 - (unsigned)__builtin_clzll(low) : 0;
}

/* floor(sqrt(x)) exactly: Newton's iteration in integers, from above. */
static inline uint64_t fl_u128_isqrt(fl_u128 x)
{
    fl_u128 r = (fl_u128)1 << ((fl_u128_bits(x) + 1) / 2), next;

    if (x == 0) {
        return 0;
    }
    while ((next = (r + x / r) / 2) < r) {
        r = next;
    }
    return (uint64_t)r;
}

#endif
