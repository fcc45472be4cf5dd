/* The plain twins. Slow and short; one element's additions are in the order of k, as in the fast
 * kernels of tile_avx512.c. */
#include "common/math/tile.h"

#include "common/math/vec.h"

#include <string.h>

enum { WIDTH = 64 };

void fl_tile_plain_nn(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                      float *c)
{
    for (size_t i = 0; i < t->m; i++) {
        float *row = c + i * t->ldc;
        memset(row, 0, t->n * sizeof *row);
        if (bias) {
            memcpy(row, bias, t->n * sizeof *row);
        }
        for (size_t s = 0; s < t->segments; s++) {
            for (size_t j = 0; j < t->k; j++) {
                fl_vec_axpy(a[i * t->lda + s * t->apart + j], b + (s * t->k + j) * t->ldb, row,
                            t->n);
            }
        }
    }
}

void fl_tile_plain_nn_add(const struct fl_tile *t, const float *a, const float *b, float *c)
{
    float sum[WIDTH];

    for (size_t i = 0; i < t->m; i++) {
        for (size_t at = 0; at < t->n; at += WIDTH) {
            size_t n = t->n - at < WIDTH ? t->n - at : WIDTH;
            memset(sum, 0, sizeof sum);
            for (size_t j = 0; j < t->k; j++) {
                fl_vec_axpy(a[i * t->lda + j], b + j * t->ldb + at, sum, n);
            }
            fl_vec_axpy(1, sum, c + i * t->ldc + at, n);
        }
    }
}

void fl_tile_plain_tn(const struct fl_tile *t, const float *a, const float *b, bool add, float *c)
{
    for (size_t i = 0; i < t->m; i++) {
        float *row = c + i * t->ldc;
        if (!add) {
            memset(row, 0, t->n * sizeof *row);
        }
        for (size_t s = 0; s < t->segments; s++) {
            for (size_t j = 0; j < t->k; j++) {
                fl_vec_axpy(a[s * t->apart + j * t->lda + i], b + (s * t->k + j) * t->ldb, row,
                            t->n);
            }
        }
    }
}

void fl_tile_plain_nt(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                      float *c)
{
    for (size_t i = 0; i < t->m; i++) {
        for (size_t j = 0; j < t->n; j++) {
            c[i * t->ldc + j] =
                (bias ? bias[j] : 0) + (float)fl_vec_dot(a + i * t->lda, b + j * t->ldb, t->k);
        }
    }
}
