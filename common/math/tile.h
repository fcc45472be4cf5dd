/*
 * Matrix products of the sizes a training step has: some 10 to 1,000 in each direction, with
 * operands that are parts of images or of weights where they lie. Nothing is packed, so small
 * products cost no more a flop than large ones; convolutions run on them without patch matrices.
 *
 * Every element of C is one fixed sequence of operations on its own row of A and column of B: it
 * does not depend on how many other rows or columns there are, nor on its place among them. What
 * is computed for one example is so the same bits whoever else is in the batch. (OpenBLAS gives no
 * such promise.) The same bits on the same machine, for any number of threads.
 */
#ifndef FL_MATH_TILE_H
#define FL_MATH_TILE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether this machine has the fast kernels (AVX-512). Without them the functions below are plain
 * loops of the same meaning, slower than OpenBLAS. */
bool fl_tile_fast(void);

/* A: rows of `segments` runs of k floats, `apart` floats from a run to the next; B: segments * k
 * rows; all row-major with distances lda, ldb, ldc in floats between rows. */
struct fl_tile {
    size_t m, n, k, segments, apart;
    size_t lda, ldb, ldc;
};

/* C = bias + A B, bias n floats or NULL for zeros. */
void fl_tile_nn(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                float *c);
/* C += A B, row after row: rows of C may overlap (ldc < n). One segment. */
void fl_tile_nn_add(const struct fl_tile *t, const float *a, const float *b, float *c);
/* C = A^T B or C += A^T B. A: `segments` blocks of k rows of m floats, `apart` floats from a block
 * to the next; B: segments * k rows. */
void fl_tile_tn(const struct fl_tile *t, const float *a, const float *b, bool add, float *c);
/* C = bias + A B^T. B: n rows of k floats; one segment. */
void fl_tile_nt(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                float *c);

/* The plain loops, for tests and other machines. */
void fl_tile_plain_nn(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                      float *c);
void fl_tile_plain_nn_add(const struct fl_tile *t, const float *a, const float *b, float *c);
void fl_tile_plain_tn(const struct fl_tile *t, const float *a, const float *b, bool add, float *c);
void fl_tile_plain_nt(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                      float *c);

#endif
