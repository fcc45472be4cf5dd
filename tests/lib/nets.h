/* The networks the tests train. */
#ifndef TESTS_LIB_NETS_H
#define TESTS_LIB_NETS_H

#include "common/nn/spec.h"

#include <string.h>

/* The published Fashion-MNIST network: 2 convolutions 5x5 (16, 32), pools, 128, 10. Unchecked. */
static inline void nets_fmnist(struct fl_spec *spec)
{
    static const struct fl_layer layers[] = {
        {.kind = FL_LAYER_CONV2D, .out = 16, .kernel = 5, .stride = 1},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
        {.kind = FL_LAYER_MAX_POOL, .kernel = 2},
        {.kind = FL_LAYER_CONV2D, .out = 32, .kernel = 5, .stride = 1, .padding = 1},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
        {.kind = FL_LAYER_MAX_POOL, .kernel = 2},
        {.kind = FL_LAYER_FLATTEN},
        {.kind = FL_LAYER_LINEAR, .out = 128},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
        {.kind = FL_LAYER_LINEAR, .out = 10},
    };

    memset(spec, 0, sizeof *spec);
    spec->input[0] = 1;
    spec->input[1] = spec->input[2] = 28;
    spec->classes = 10;
    spec->head = 1;
    spec->layer_count = sizeof layers / sizeof layers[0];
    memcpy(spec->layers, layers, sizeof layers);
}

/* The same without padding: 512 features. Unchecked. */
static inline void nets_cnn(struct fl_spec *spec)
{
    nets_fmnist(spec);
    spec->layers[3].padding = 0;
}

/* 784-256-10. Unchecked. */
static inline void nets_mlp(struct fl_spec *spec)
{
    static const struct fl_layer layers[] = {
        {.kind = FL_LAYER_FLATTEN},
        {.kind = FL_LAYER_LINEAR, .out = 256},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
        {.kind = FL_LAYER_LINEAR, .out = 10},
    };

    memset(spec, 0, sizeof *spec);
    spec->input[0] = 1;
    spec->input[1] = spec->input[2] = 28;
    spec->classes = 10;
    spec->layer_count = sizeof layers / sizeof layers[0];
    memcpy(spec->layers, layers, sizeof layers);
}

/* A transformer over 30 steps of 16 numbers: width 64, feed-forward 256, 4 heads, 2 layers, mean
 * over the steps. Unchecked. */
static inline void nets_transformer(struct fl_spec *spec)
{
    static const struct fl_layer block[] = {
        {.kind = FL_LAYER_FORK},       {.kind = FL_LAYER_ATTENTION, .heads = 4},
        {.kind = FL_LAYER_JOIN},       {.kind = FL_LAYER_LAYER_NORM},
        {.kind = FL_LAYER_FORK},       {.kind = FL_LAYER_LINEAR, .out = 256},
        {.kind = FL_LAYER_LEAKY_RELU}, {.kind = FL_LAYER_LINEAR, .out = 64},
        {.kind = FL_LAYER_JOIN},       {.kind = FL_LAYER_LAYER_NORM},
    };
    enum { BLOCK = sizeof block / sizeof block[0] };
    uint32_t n = 0;

    memset(spec, 0, sizeof *spec);
    spec->input[0] = 1;
    spec->input[1] = 30;
    spec->input[2] = 16;
    spec->classes = 10;
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_SEQUENCE};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = 64};
    for (int k = 0; k < 2; k++, n += BLOCK) {
        memcpy(spec->layers + n, block, sizeof block);
    }
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_GLOBAL_POOL};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = 10};
    spec->layer_count = n;
}

/* ResNet-8 with group norms, for 3 x 32 x 32. Unchecked. */
static inline void nets_resnet8(struct fl_spec *spec)
{
    static const uint32_t widths[] = {16, 16, 32, 64};
    uint32_t n = 0;

    memset(spec, 0, sizeof *spec);
    spec->input[0] = 3;
    spec->input[1] = spec->input[2] = 32;
    spec->classes = 10;
    for (uint32_t b = 0; b < 4; b++) {
        uint32_t out = widths[b], stride = b > 1 ? 2 : 1;
        const struct fl_layer relu = {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
                              norm = {.kind = FL_LAYER_GROUP_NORM, .groups = 8};
        struct fl_layer conv = {
            .kind = FL_LAYER_CONV2D, .out = out, .kernel = 3, .stride = stride, .padding = 1};
        if (b > 0) {
            spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_FORK};
        }
        spec->layers[n++] = conv;
        spec->layers[n++] = norm;
        if (b > 0) {
            conv.stride = 1;
            spec->layers[n++] = relu;
            spec->layers[n++] = conv;
            spec->layers[n++] = norm;
            spec->layers[n++] = (struct fl_layer){
                .kind = FL_LAYER_JOIN, .out = stride > 1 ? out : 0, .stride = stride};
        }
        spec->layers[n++] = relu;
    }
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_GLOBAL_POOL};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = 10};
    spec->layer_count = n;
}

#endif
