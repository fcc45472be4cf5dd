/*
 * Choosing from arrays by flags without a branch for each element: by AVX-512 where the machine has
 * it, by plain loops elsewhere. Counts are multiples of 16, flags 0 or 1.
 */
#ifndef FL_MATH_PICK_H
#define FL_MATH_PICK_H

#include <stddef.h>
#include <stdint.h>

/* What either writes behind its last result, at most: room for it must be there. */
enum { FL_PICK_SLACK = 16 };

/* The numbers of elements whose flag is 0, ascending; returns how many. */
size_t fl_pick_zeros(const uint32_t *flag, size_t count, uint32_t *to);
/* The elements whose flag is 1, in their order; returns how many. */
size_t fl_pick_values(const uint32_t *flag, const int64_t *x, size_t count, int64_t *to);

/* The plain loops, for tests and other machines. */
size_t fl_pick_plain_zeros(const uint32_t *flag, size_t count, uint32_t *to);
size_t fl_pick_plain_values(const uint32_t *flag, const int64_t *x, size_t count, int64_t *to);

#endif
