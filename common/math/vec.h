/*
 * Plain loops over float vectors, written so that compilers make vector code of them: no branches
 * inside, sums in 16 separate lanes added up in a fixed order. They are compiled for several
 * instruction sets and the best is chosen at start; the bits are the same with each, since nothing
 * is reassociated or contracted.
 */
#ifndef FL_MATH_VEC_H
#define FL_MATH_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sanitized builds take the plain version: their runtimes are not up yet when the choice is made.
 * So does clang, whose clones (14) have no symbol of the function's own name that others could
 * link. */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&                \
    !defined(__SANITIZE_THREAD__) && !defined(FL_PLAIN_LOOPS)
#define FL_VECTOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FL_VECTOR
#endif

/* Sum of x[i] y[i]: float products in float lanes, folded into doubles every 4096 elements. */
double fl_vec_dot(const float *x, const float *y, size_t count);
/* Sum of squares, in doubles throughout: each square is exact, the sum off by 1e-13 relative at
 * most (count < 2^26). */
double fl_vec_norm_squared(const float *x, size_t count);
/* y += a x */
void fl_vec_axpy(float a, const float *x, float *y, size_t count);
/* to = a x */
void fl_vec_scale(float a, const float *x, float *to, size_t count);
/* to = x + y */
void fl_vec_add(const float *x, const float *y, float *to, size_t count);
/* to = x - y */
void fl_vec_sub(const float *x, const float *y, float *to, size_t count);
/* sum[c] += every row's column c */
void fl_vec_sum_rows(const float *x, size_t rows, size_t columns, float *sum);
bool fl_vec_finite(const float *x, size_t count);

#endif
