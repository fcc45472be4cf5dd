/* Linear layers of several rows: register tiles where the machine has them, OpenBLAS elsewhere. */
#include "common/math/blas.h"
#include "common/math/tile.h"
#include "common/math/vec.h"
#include "common/nn/layers.h"

void fl_linear_turn(const float *weight, size_t in, size_t out, float *turned)
{
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) {
            turned[i * out + o] = weight[o * in + i];
        }
    }
}

void fl_linear_tokens(const float *weight, const float *turned, size_t in, size_t out,
                      const float *x, size_t rows, float *y)
{
    if (!turned) {
        fl_linear_forward(weight, in, out, x, rows, y);
        return;
    }
    struct fl_tile t = {
        .m = rows, .n = out, .k = in, .segments = 1, .lda = in, .ldb = out, .ldc = out};
    fl_tile_nn(&t, x, turned, weight + in * out, y);
}

void fl_linear_forward(const float *weight, size_t in, size_t out, const float *x, size_t rows,
                       float *y)
{
    const float *bias = weight + in * out;

    if (fl_tile_fast()) {
        struct fl_tile t = {
            .m = rows, .n = out, .k = in, .segments = 1, .lda = in, .ldb = in, .ldc = out};
        fl_tile_nt(&t, x, weight, bias, y);
        return;
    }
    fl_fill_rows(bias, rows, out, y);
    if (rows == 1) { /* the matrix-vector kernel */
        fl_blas_gemv(false, out, in, 1, weight, in, x, 1, y);
    } else {
        fl_blas_gemm(false, true, rows, out, in, 1, x, in, weight, in, 1, y, out);
    }
}

static void tiles_backward(const float *weight, size_t in, size_t out, const float *x,
                           const float *dy, size_t rows, float *grad, float *dx)
{
    if (grad) {
        struct fl_tile t = {
            .m = out, .n = in, .k = rows, .segments = 1, .lda = out, .ldb = in, .ldc = in};
        fl_tile_tn(&t, dy, x, true, grad);
    }
    if (dx) {
        struct fl_tile t = {
            .m = rows, .n = in, .k = out, .segments = 1, .lda = out, .ldb = in, .ldc = in};
        fl_tile_nn(&t, dy, weight, NULL, dx);
    }
}

void fl_linear_backward(const float *weight, size_t in, size_t out, const float *x, const float *dy,
                        size_t rows, float *grad, float *dx)
{
    if (grad) {
        fl_vec_sum_rows(dy, rows, out, grad + in * out);
    }
    if (fl_tile_fast()) {
        tiles_backward(weight, in, out, x, dy, rows, grad, dx);
        return;
    }
    if (grad) {
        fl_blas_gemm(true, false, out, in, rows, 1, dy, out, x, in, 1, grad, in);
    }
    if (dx && rows == 1) {
        fl_blas_gemv(true, out, in, 1, weight, in, dy, 0, dx);
    } else if (dx) {
        fl_blas_gemm(false, false, rows, in, out, 1, dy, out, weight, in, 0, dx, in);
    }
}
