/*
 * The layers' loops, for model.c only. Spatial values are [height, width, channels] here ("HWC"),
 * one example at a time: a patch is then k runs of k * channels floats, pooling and bias are loops
 * over channels, and one example's values stay in the cache from a layer to the next.
 */
#ifndef FL_NN_LAYERS_H
#define FL_NN_LAYERS_H

#include "common/nn/winograd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Slack in floats after every spatial buffer and patch matrix: copies run over their end. */
enum { FL_SLACK = 16 };

struct fl_conv {
    size_t channels, height, width; /* of the input */
    size_t out, kernel, stride, padding;
    size_t out_height, out_width;
    size_t patch, row;         /* elements of a patch: kernel * kernel * channels, and as stored */
    float *weight;             /* out x row, patches in (ky, kx, channel) order */
    float *dweight;            /* like across or else like weight, summed over examples */
    float *dbias;              /* out */
    bool alone;                /* with across: dweight is overwritten, not added to */
    float *across;             /* patch x out, for products without patches; NULL: with patches */
    float *padded;             /* the input with its border of zeros, NULL without padding */
    float *patches;            /* out_height * out_width x row; NULL without patches */
    struct fl_winograd *fewer; /* multiplications, with across; NULL: it does not fit */
};

/* Its memory, from the sizes and steps above (patch and row are set here). False: there is not
 * enough; fini is right after that too. */
bool fl_conv_init(struct fl_conv *c);
void fl_conv_fini(struct fl_conv *c);

/* From and to the layout of theta: [out, channels, ky, kx]. */
void fl_conv_set(struct fl_conv *c, const float *weight);
/* Before a batch's gradients: dweight and dbias are 0. After it: they are whole. */
void fl_conv_begin(struct fl_conv *c);
void fl_conv_end(struct fl_conv *c);
void fl_conv_unpack(const struct fl_conv *c, const float *packed, float *to, float scale);
void fl_conv_forward(struct fl_conv *c, const float *bias, const float *x, float *y);
/* Adds to dweight and dbias, between begin and end; fills dx unless it is NULL. Patches, if any,
 * are made again: cheaper than to keep. */
void fl_conv_backward(struct fl_conv *c, const float *x, const float *dy, float *dx);

/* What products of many rows are fast with: weight, out x in, becomes in x out. */
void fl_linear_turn(const float *weight, size_t in, size_t out, float *turned);
/* As fl_linear_forward, by a turned weight where there is one (NULL: by `weight`). */
void fl_linear_tokens(const float *weight, const float *turned, size_t in, size_t out,
                      const float *x, size_t rows, float *y);

/* y = x W^T + b for `rows` rows; weight is out x in, the bias follows it. */
void fl_linear_forward(const float *weight, size_t in, size_t out, const float *x, size_t rows,
                       float *y);
/* Adds to grad (weight and bias, as above) unless it is NULL; fills dx unless it is NULL. */
void fl_linear_backward(const float *weight, size_t in, size_t out, const float *x, const float *dy,
                        size_t rows, float *grad, float *dx);

/* Windows of kernel x kernel without overlap; place[i] is the number of the maximum in its window.
 */
void fl_pool_forward(const float *x, size_t width, size_t channels, size_t kernel,
                     size_t out_height, size_t out_width, float *y, uint8_t *place);
/* dx: all of height x width x channels is written. */
void fl_pool_backward(const float *dy, const uint8_t *place, size_t height, size_t width,
                      size_t channels, size_t kernel, size_t out_height, size_t out_width,
                      float *dx);

/* In place. The sign survives, so backward looks at the output. */
void fl_leaky_forward(float *x, size_t count, float slope);
void fl_leaky_backward(const float *y, float *d, size_t count, float slope);

/* [channels, pixels] <-> [pixels, channels] */
void fl_to_hwc(const float *x, size_t channels, size_t pixels, float *to);
void fl_to_chw(const float *x, size_t channels, size_t pixels, float *to);

/* y[r, c] = bias[c] */
void fl_fill_rows(const float *bias, size_t rows, size_t columns, float *y);

/* Softmax cross-entropy of one example: returns the loss; d (may be NULL) = weight * (p - onehot).
 * d may be `logits`. */
double fl_softmax_loss(const float *logits, size_t classes, int32_t label, float weight, float *d);

#endif
