/*
 * Where the machine has the register tiles of common/math/tile.h, a convolution is products with
 * the image where it lies. In HWC order the part of a patch in one row of the image is a run of
 * kernel * channels floats, and that of the next pixel begins stride * channels later; so a row of
 * outputs is a product of a matrix whose rows overlap, in `kernel` segments, with the kernels as
 * patch x out. The kernels' gradient is the transposed product, and inputs' gradients are added to
 * overlapping rows. No patches are made. Kernels of 3 x 3 with a border of 1 have a shorter way
 * still (winograd.h).
 *
 * Elsewhere, convolution as a matrix product: the patches of one image become the rows of a matrix
 * ("im2col"), its product with the kernels is the output in HWC order. Backward is two more
 * products: kernels from output gradients and patches, patch gradients from output gradients and
 * kernels, which are then added back to where the patches came from.
 *
 * One image at a time: its patch matrix (160 KB for the second layer of the Fashion-MNIST network)
 * stays in the cache between being written and being used, and memory does not grow with the batch.
 */
#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/tile.h"
#include "common/math/vec.h"
#include "common/nn/layers.h"

#include <string.h>

bool fl_conv_init(struct fl_conv *c)
{
    c->patch = c->kernel * c->kernel * c->channels;
    c->row = (c->patch + 15) / 16 * 16;
    size_t line = (c->width + 2 * c->padding) * c->channels;
    if (c->padding) {
        c->padded = fl_try_aligned((c->height + 2 * c->padding) * line + FL_SLACK, sizeof(float));
    }
    c->weight = fl_try_aligned(c->out * c->row, sizeof(float));
    c->dweight = fl_try_aligned(c->out * c->row, sizeof(float));
    c->dbias = fl_try_aligned(c->out, sizeof(float));
    bool fewer = c->kernel == 3 && c->stride == 1 && c->padding == 1 &&
                 fl_winograd_fits(c->channels, c->out, c->height, c->width);
    if (fewer) {
        c->fewer = fl_winograd_new(c->channels, c->out, c->height, c->width);
    }
    if (fl_tile_fast()) {
        c->across = fl_try_aligned(c->patch * c->out, sizeof(float));
    } else {
        c->patches =
            fl_try_aligned(c->out_height * c->out_width * c->row + FL_SLACK, sizeof(float));
    }
    return c->weight && c->dweight && c->dbias && (c->patches || c->across) &&
           (c->padded || !c->padding) && (c->fewer || !fewer);
}

void fl_conv_fini(struct fl_conv *c)
{
    fl_free(c->weight);
    fl_free(c->dweight);
    fl_free(c->dbias);
    fl_free(c->padded);
    fl_free(c->patches);
    fl_free(c->across);
    fl_winograd_free(c->fewer);
}

void fl_conv_set(struct fl_conv *c, const float *weight)
{
    size_t window = c->kernel * c->kernel;

    for (size_t o = 0; o < c->out; o++) {
        fl_to_hwc(weight + o * c->patch, c->channels, window, c->weight + o * c->row);
    }
    for (size_t o = 0; c->across && o < c->out; o++) {
        for (size_t i = 0; i < c->patch; i++) {
            c->across[i * c->out + o] = c->weight[o * c->row + i];
        }
    }
    if (c->fewer) {
        fl_winograd_set(c->fewer, c->weight, c->row, c->across);
    }
}

void fl_conv_begin(struct fl_conv *c)
{
    if (!c->across || !c->alone) { /* else it is overwritten */
        memset(c->dweight, 0, c->out * c->row * sizeof *c->dweight);
    }
    memset(c->dbias, 0, c->out * sizeof *c->dbias);
}

void fl_conv_end(struct fl_conv *c)
{
    if (c->fewer) {
        fl_winograd_read(c->fewer, c->dweight);
    }
}

/* From the gradient as patch x out. */
static void unpack_across(const struct fl_conv *c, const float *packed, float *to, float scale)
{
    size_t window = c->kernel * c->kernel;

    for (size_t k = 0; k < window; k++) {
        for (size_t i = 0; i < c->channels; i++) {
            for (size_t o = 0; o < c->out; o++) {
                to[o * c->patch + i * window + k] = scale * *packed++;
            }
        }
    }
}

void fl_conv_unpack(const struct fl_conv *c, const float *packed, float *to, float scale)
{
    size_t window = c->kernel * c->kernel;

    if (c->across) {
        unpack_across(c, packed, to, scale);
        return;
    }
    for (size_t o = 0; o < c->out; o++) {
        float *t = to + o * c->patch;
        fl_to_chw(packed + o * c->row, c->channels, window, t);
        if (scale != 1) {
            fl_vec_scale(scale, t, t, c->patch);
        }
    }
}

/* Copies in steps of 8 floats: what runs over the end is overwritten by the next run, or lands in
 * the slack. */
static inline void copy_run(const float *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        memcpy(to + i, from + i, 8 * sizeof *to);
    }
}

static const float *pad(struct fl_conv *c, const float *x)
{
    size_t line = c->width * c->channels, border = c->padding * c->channels;

    if (!c->padded) {
        return x;
    }
    for (size_t y = 0; y < c->height; y++) {
        memcpy(c->padded + (y + c->padding) * (line + 2 * border) + border, x + y * line,
               line * sizeof *x);
    }
    return c->padded;
}

FL_VECTOR static void make_patches(const struct fl_conv *c, const float *x)
{
    size_t line = (c->width + 2 * c->padding) * c->channels, run = c->kernel * c->channels;
    float *to = c->patches;

    for (size_t oy = 0; oy < c->out_height; oy++) {
        for (size_t ox = 0; ox < c->out_width; ox++) {
            const float *from = x + oy * c->stride * line + ox * c->stride * c->channels;
            for (size_t ky = 0; ky < c->kernel; ky++) {
                copy_run(from + ky * line, to + ky * run, run);
            }
            to += c->row;
        }
    }
}

/* The transpose of make_patches, into a zeroed padded image. */
FL_VECTOR static void add_patches(const struct fl_conv *c, float *restrict x)
{
    size_t line = (c->width + 2 * c->padding) * c->channels, run = c->kernel * c->channels;
    const float *restrict from = c->patches;

    for (size_t oy = 0; oy < c->out_height; oy++) {
        for (size_t ox = 0; ox < c->out_width; ox++) {
            float *to = x + oy * c->stride * line + ox * c->stride * c->channels;
            for (size_t ky = 0; ky < c->kernel; ky++) {
                for (size_t i = 0; i < run; i++) {
                    to[ky * line + i] += from[ky * run + i];
                }
            }
            from += c->row;
        }
    }
}

/* ---- without patches ---- */

static void direct_forward(const struct fl_conv *c, const float *bias, const float *x, float *y)
{
    size_t line = (c->width + 2 * c->padding) * c->channels;
    struct fl_tile t = {.m = c->out_width,
                        .n = c->out,
                        .k = c->kernel * c->channels,
                        .segments = c->kernel,
                        .apart = line,
                        .lda = c->stride * c->channels,
                        .ldb = c->out,
                        .ldc = c->out};

    for (size_t oy = 0; oy < c->out_height; oy++) {
        fl_tile_nn(&t, x + oy * c->stride * line, c->across, bias, y + oy * c->out_width * c->out);
    }
}

static void direct_weights(const struct fl_conv *c, const float *x, const float *dy)
{
    size_t line = (c->width + 2 * c->padding) * c->channels, run = c->kernel * c->channels;
    struct fl_tile t = {.m = run,
                        .n = c->out,
                        .k = c->out_width,
                        .segments = c->out_height,
                        .apart = c->stride * line,
                        .lda = c->stride * c->channels,
                        .ldb = c->out,
                        .ldc = c->out};

    for (size_t ky = 0; ky < c->kernel; ky++) {
        fl_tile_tn(&t, x + ky * line, dy, !c->alone, c->dweight + ky * run * c->out);
    }
}

/* Into a zeroed padded image. */
static void direct_inputs(const struct fl_conv *c, const float *dy, float *dx)
{
    size_t line = (c->width + 2 * c->padding) * c->channels, run = c->kernel * c->channels;
    struct fl_tile t = {.m = c->out_width,
                        .n = run,
                        .k = c->out,
                        .segments = 1,
                        .lda = c->out,
                        .ldb = c->row,
                        .ldc = c->stride * c->channels};

    for (size_t oy = 0; oy < c->out_height; oy++) {
        for (size_t ky = 0; ky < c->kernel; ky++) {
            fl_tile_nn_add(&t, dy + oy * c->out_width * c->out, c->weight + ky * run,
                           dx + (oy * c->stride + ky) * line);
        }
    }
}

/* ---- both ---- */

void fl_conv_forward(struct fl_conv *c, const float *bias, const float *x, float *y)
{
    size_t pixels = c->out_height * c->out_width;

    if (c->fewer) {
        fl_winograd_forward(c->fewer, bias, x, y);
        return;
    }
    if (c->across) {
        direct_forward(c, bias, pad(c, x), y);
        return;
    }

    make_patches(c, pad(c, x));
    fl_fill_rows(bias, pixels, c->out, y);
    fl_blas_gemm(false, true, pixels, c->out, c->patch, 1, c->patches, c->row, c->weight, c->row, 1,
                 y, c->out);
}

void fl_conv_backward(struct fl_conv *c, const float *x, const float *dy, float *dx)
{
    size_t pixels = c->out_height * c->out_width;
    size_t line = c->width * c->channels, border = c->padding * c->channels;
    float *to = c->padded ? c->padded : dx;

    fl_vec_sum_rows(dy, pixels, c->out, c->dbias);
    if (c->fewer) {
        fl_winograd_weights(c->fewer, c->alone, x, dy);
        if (dx) {
            fl_winograd_inputs(c->fewer, dy, dx);
        }
        return;
    }
    if (c->across) {
        direct_weights(c, pad(c, x), dy);
    } else {
        make_patches(c, pad(c, x));
        /* Whole rows, with what is in their unused ends: kernels like multiples of 16. */
        fl_blas_gemm(true, false, c->out, c->row, pixels, 1, dy, c->out, c->patches, c->row, 1,
                     c->dweight, c->row);
    }
    if (!dx) {
        return;
    }
    memset(to, 0, (c->height + 2 * c->padding) * (line + 2 * border) * sizeof *to);
    if (c->across) {
        direct_inputs(c, dy, to);
    } else {
        fl_blas_gemm(false, false, pixels, c->patch, c->out, 1, dy, c->out, c->weight, c->row, 0,
                     c->patches, c->row);
        add_patches(c, to);
    }
    if (!c->padded) {
        return;
    }
    for (size_t y = 0; y < c->height; y++) {
        memcpy(dx + y * line, to + (y + c->padding) * (line + 2 * border) + border,
               line * sizeof *dx);
    }
    /* pad() counts on a border of zeros. */
    memset(to, 0, (c->height + 2 * c->padding) * (line + 2 * border) * sizeof *to);
}
