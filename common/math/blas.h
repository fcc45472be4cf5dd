/*
 * The door to OpenBLAS: products of row-major float matrices. One thread per call; calls from
 * several threads at once are fine. The same call on the same machine gives the same bits; another
 * number of rows may give others, since edges of a product are computed by other kernels.
 */
#ifndef FL_MATH_BLAS_H
#define FL_MATH_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* C = alpha op(A) op(B) + beta C; C is m x n, the inner length is k; op transposes when told to.
 * lda, ldb, ldc are the lengths of stored rows. beta = 0 overwrites C, whatever it held. Sizes
 * below 2^31. */
void fl_blas_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha,
                  const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
                  size_t ldc);

/* y = alpha op(A) x + beta y; A is stored m x n. */
void fl_blas_gemv(bool transpose, size_t m, size_t n, float alpha, const float *a, size_t lda,
                  const float *x, float beta, float *y);

/* Version, build and kernels of the library, for benchmarks. */
const char *fl_blas_name(void);

#endif
