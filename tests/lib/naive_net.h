/*
 * The naive twin of common/nn/model.c: a network's loss in doubles, layer by layer, straight from
 * the definitions. Numerical derivatives of it are what the engine's gradients are compared with.
 */
#ifndef TESTS_LIB_NAIVE_NET_H
#define TESTS_LIB_NAIVE_NET_H

#include "common/base/mem.h"
#include "common/nn/spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static inline double *naive_conv(const struct fl_layer *l, const double *w, const double *b,
                                 const double *x)
{
    const uint32_t *in = l->in_shape, *out = l->out_shape;
    double *y = fl_new((size_t)out[0] * out[1] * out[2], sizeof *y);

    for (uint32_t o = 0; o < out[0]; o++) {
        for (uint32_t oy = 0; oy < out[1]; oy++) {
            for (uint32_t ox = 0; ox < out[2]; ox++) {
                double sum = b[o];
                for (uint32_t c = 0; c < in[0]; c++) {
                    for (uint32_t ky = 0; ky < l->kernel; ky++) {
                        for (uint32_t kx = 0; kx < l->kernel; kx++) {
                            long iy = (long)(oy * l->stride + ky) - (long)l->padding;
                            long ix = (long)(ox * l->stride + kx) - (long)l->padding;
                            if (iy < 0 || ix < 0 || iy >= (long)in[1] || ix >= (long)in[2]) {
                                continue;
                            }
                            sum += w[((o * in[0] + c) * l->kernel + ky) * l->kernel + kx] *
                                   x[(c * in[1] + (size_t)iy) * in[2] + (size_t)ix];
                        }
                    }
                }
                y[(o * out[1] + oy) * out[2] + ox] = sum;
            }
        }
    }
    return y;
}

static inline double *naive_pool(const struct fl_layer *l, const double *x)
{
    const uint32_t *in = l->in_shape, *out = l->out_shape;
    double *y = fl_new((size_t)out[0] * out[1] * out[2], sizeof *y);

    for (uint32_t c = 0; c < out[0]; c++) {
        for (uint32_t oy = 0; oy < out[1]; oy++) {
            for (uint32_t ox = 0; ox < out[2]; ox++) {
                double best = -INFINITY;
                for (uint32_t k = 0; k < l->kernel * l->kernel; k++) {
                    double v = x[(c * in[1] + oy * l->kernel + k / l->kernel) * in[2] +
                                 ox * l->kernel + k % l->kernel];
                    best = v > best ? v : best;
                }
                y[(c * out[1] + oy) * out[2] + ox] = best;
            }
        }
    }
    return y;
}

static inline double *naive_linear(const struct fl_layer *l, const double *w, const double *b,
                                   const double *x)
{
    double *y = fl_new(l->out, sizeof *y);

    for (uint32_t o = 0; o < l->out; o++) {
        y[o] = b[o];
        for (uint32_t i = 0; i < l->in_shape[0]; i++) {
            y[o] += w[(size_t)o * l->in_shape[0] + i] * x[i];
        }
    }
    return y;
}

/* Outputs of one example, freed by fl_free. */
static inline double *naive_forward(const struct fl_spec *spec, const double *theta, const float *x)
{
    size_t count = (size_t)spec->input[0] * spec->input[1] * spec->input[2];
    double *v = fl_new(count, sizeof *v);

    for (size_t i = 0; i < count; i++) {
        v[i] = (double)x[i];
    }
    for (uint32_t k = 0; k < spec->layer_count; k++) {
        const struct fl_layer *l = &spec->layers[k];
        double *y = NULL;
        size_t out = (size_t)l->out_shape[0] * l->out_shape[1] * l->out_shape[2];
        size_t fan_in = (size_t)l->in_shape[0] *
                        (l->kind == FL_LAYER_CONV2D ? (size_t)l->kernel * l->kernel : 1);
        switch (l->kind) {
        case FL_LAYER_CONV2D:
            y = naive_conv(l, theta, theta + fan_in * l->out, v);
            theta += (fan_in + 1) * l->out;
            break;
        case FL_LAYER_LINEAR:
            y = naive_linear(l, theta, theta + fan_in * l->out, v);
            theta += (fan_in + 1) * l->out;
            break;
        case FL_LAYER_MAX_POOL:
            y = naive_pool(l, v);
            break;
        case FL_LAYER_LEAKY_RELU:
            for (size_t i = 0; i < out; i++) {
                v[i] = v[i] > 0 ? v[i] : v[i] * (double)l->slope;
            }
            break;
        case FL_LAYER_FLATTEN:
            break;
        default: /* the others are compared with PyTorch (tests/golden/layers.py) */
            abort();
        }
        if (y) {
            fl_free(v);
            v = y;
        }
    }
    return v;
}

/* Mean loss. */
static inline double naive_loss(const struct fl_spec *spec, const double *theta, const float *x,
                                const int32_t *y, size_t count)
{
    size_t features = (size_t)spec->input[0] * spec->input[1] * spec->input[2];
    double loss = 0;

    for (size_t n = 0; n < count; n++) {
        double *o = naive_forward(spec, theta, x + n * features), sum = 0;
        for (uint32_t c = 0; c < spec->classes; c++) {
            sum += exp(o[c]);
        }
        loss += log(sum) - o[y[n]];
        fl_free(o);
    }
    return loss / (double)count;
}

#endif
