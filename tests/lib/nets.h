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

#endif
