/*
 * Each layer as ONNX operators of opset 13. What has none there (layer and group norm, GELU,
 * attention) is written out in those that exist. Tokens are [N, length, width] here, so that what
 * works on channels is the last axis; a layer that wants another form gets it by a transpose.
 */
#include "common/nn/onnx_in.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef char name_t[FL_ONNX_NAME];

/* ---- forms ---- */

static void transpose(struct fl_onnx_graph *g, const int64_t *axes, uint32_t rank)
{
    struct fl_onnx_node n;
    name_t out[1];

    fl_onnx_begin(&n, "Transpose");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_attr_ints(&n, "perm", axes, rank);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof g->now.name);
}

/* Squeeze and Unsqueeze. */
static void change_axes(struct fl_onnx_graph *g, const char *op, const int64_t *axes,
                        uint32_t count)
{
    name_t list;

    fl_onnx_ints(g, "axes", axes, count, false, list);
    fl_onnx_op(g, op, g->now.name, list, g->now.name);
}

void fl_onnx_to_image(struct fl_onnx_graph *g)
{
    if (g->now.form == FL_ONNX_TOKENS) {
        transpose(g, (const int64_t[]){0, 2, 1}, 3);
        change_axes(g, "Unsqueeze", (const int64_t[]){3}, 1);
    } else if (g->now.form == FL_ONNX_VECTOR) {
        change_axes(g, "Unsqueeze", (const int64_t[]){2, 3}, 2);
    }
    g->now.form = FL_ONNX_IMAGE;
}

/* An image of one column is a sequence. */
static void to_tokens(struct fl_onnx_graph *g)
{
    if (g->now.form == FL_ONNX_IMAGE) {
        change_axes(g, "Squeeze", (const int64_t[]){3}, 1);
        transpose(g, (const int64_t[]){0, 2, 1}, 3);
    } else if (g->now.form == FL_ONNX_VECTOR) {
        change_axes(g, "Unsqueeze", (const int64_t[]){1}, 1);
    }
    g->now.form = FL_ONNX_TOKENS;
}

/* [N, everything], channels first. */
void fl_onnx_to_vector(struct fl_onnx_graph *g)
{
    struct fl_onnx_node n;
    name_t out[1];

    if (g->now.form == FL_ONNX_VECTOR) {
        return;
    }
    if (g->now.form == FL_ONNX_TOKENS) {
        transpose(g, (const int64_t[]){0, 2, 1}, 3);
    }
    fl_onnx_begin(&n, "Flatten");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_attr_int(&n, "axis", 1);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof g->now.name);
    g->now.form = FL_ONNX_VECTOR;
}

static void to_form(struct fl_onnx_graph *g, enum fl_onnx_form form)
{
    switch (form) {
    case FL_ONNX_VECTOR:
        fl_onnx_to_vector(g);
        break;
    case FL_ONNX_IMAGE:
        fl_onnx_to_image(g);
        break;
    case FL_ONNX_TOKENS:
        to_tokens(g);
        break;
    }
}

/* What the layer takes, in the form that is right for what works on channels alone. */
static void to_channels(struct fl_onnx_graph *g, const struct fl_layer *l)
{
    if (l->in_shape[1] == 1 && l->in_shape[2] == 1) {
        fl_onnx_to_vector(g);
    } else {
        to_tokens(g);
    }
}

/* ---- pieces ---- */

static const struct fl_tensor *tensor_of(const struct fl_onnx_graph *g, const struct fl_layer *l,
                                         int k)
{
    return &g->model->tensors->at[l->weight + k];
}

static void tensor(struct fl_onnx_graph *g, const struct fl_layer *l, int k, const char *what,
                   name_t ret)
{
    const struct fl_tensor *t = tensor_of(g, l, k);

    fl_onnx_floats(g, what, t->shape, t->rank, g->model->theta + t->offset, ret);
}

/* A node of the value that flows and one other. */
void fl_onnx_then(struct fl_onnx_graph *g, const char *op, const char *other)
{
    fl_onnx_op(g, op, g->now.name, other, g->now.name);
}

void fl_onnx_then_number(struct fl_onnx_graph *g, const char *op, float x)
{
    name_t number;

    fl_onnx_float(g, "number", x, number);
    fl_onnx_then(g, op, number);
}

/* x W^T + b along the last axis; `w` is [out, in]. */
static int product(struct fl_onnx_graph *g, const float *w, uint32_t out, uint32_t in,
                   const float *b, struct fl_err *e)
{
    name_t name;
    float *turned = fl_try((size_t)out * in, sizeof *turned);

    if (!turned) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    for (size_t i = 0; i < out; i++) {
        for (size_t j = 0; j < in; j++) {
            turned[j * out + i] = w[i * in + j];
        }
    }
    fl_onnx_floats(g, "weight", (const uint32_t[]){in, out}, 2, turned, name);
    fl_free(turned);
    fl_onnx_then(g, "MatMul", name);
    fl_onnx_floats(g, "bias", &out, 1, b, name);
    fl_onnx_then(g, "Add", name);
    return 0;
}

static void mean_of_last(struct fl_onnx_graph *g, const char *of, name_t ret)
{
    struct fl_onnx_node n;
    name_t out[1];

    fl_onnx_begin(&n, "ReduceMean");
    fl_onnx_in(&n, of);
    fl_onnx_attr_ints(&n, "axes", (const int64_t[]){-1}, 1);
    fl_onnx_attr_int(&n, "keepdims", 1);
    fl_onnx_end(g, &n, 1, out);
    memcpy(ret, out[0], sizeof out[0]);
}

/* (x - mean) / sqrt(var + 1e-5) along the last axis. */
static void normalise(struct fl_onnx_graph *g)
{
    name_t mean, far, square, small;

    mean_of_last(g, g->now.name, mean);
    fl_onnx_op(g, "Sub", g->now.name, mean, far);
    fl_onnx_op(g, "Mul", far, far, square);
    mean_of_last(g, square, square);
    fl_onnx_float(g, "epsilon", 1e-5f, small);
    fl_onnx_op(g, "Add", square, small, square);
    fl_onnx_op(g, "Sqrt", square, NULL, square);
    fl_onnx_op(g, "Div", far, square, g->now.name);
}

void fl_onnx_reshape(struct fl_onnx_graph *g, const int64_t *dims, uint32_t rank)
{
    name_t list;

    fl_onnx_ints(g, "shape", dims, rank, false, list);
    fl_onnx_then(g, "Reshape", list);
}

/* ---- layers ---- */

static void conv(struct fl_onnx_graph *g, const struct fl_layer *l, const char *of, uint32_t kernel,
                 name_t ret)
{
    const int64_t k[2] = {kernel, kernel}, s[2] = {l->stride, l->stride},
                  p[4] = {l->padding, l->padding, l->padding, l->padding};
    struct fl_onnx_node n;
    name_t weight, bias, out[1];

    tensor(g, l, 0, "weight", weight);
    tensor(g, l, 1, "bias", bias);
    fl_onnx_begin(&n, "Conv");
    fl_onnx_in(&n, of);
    fl_onnx_in(&n, weight);
    fl_onnx_in(&n, bias);
    fl_onnx_attr_ints(&n, "kernel_shape", k, 2);
    fl_onnx_attr_ints(&n, "strides", s, 2);
    fl_onnx_attr_ints(&n, "pads", p, 4);
    if (l->kind == FL_LAYER_GROUPED) {
        fl_onnx_attr_int(&n, "group", l->groups);
    }
    fl_onnx_end(g, &n, 1, out);
    memcpy(ret, out[0], sizeof out[0]);
}

static void pool(struct fl_onnx_graph *g, const struct fl_layer *l, const char *op)
{
    const int64_t k[2] = {l->kernel, l->kernel};
    struct fl_onnx_node n;
    name_t out[1];

    fl_onnx_to_image(g);
    fl_onnx_begin(&n, op);
    fl_onnx_in(&n, g->now.name);
    fl_onnx_attr_ints(&n, "kernel_shape", k, 2);
    fl_onnx_attr_ints(&n, "strides", k, 2);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
}

static int linear(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    const float *theta = g->model->theta;
    struct fl_onnx_node n;
    name_t weight, bias, out[1];

    to_channels(g, l);
    if (g->now.form == FL_ONNX_TOKENS) {
        return product(g, theta + tensor_of(g, l, 0)->offset, l->out, l->in_shape[0],
                       theta + tensor_of(g, l, 1)->offset, e);
    }
    tensor(g, l, 0, "weight", weight);
    tensor(g, l, 1, "bias", bias);
    fl_onnx_begin(&n, "Gemm");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_in(&n, weight);
    fl_onnx_in(&n, bias);
    fl_onnx_attr_int(&n, "transB", 1); /* weights are [out, in] */
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
    return 0;
}

static void leaky_relu(struct fl_onnx_graph *g, float slope)
{
    struct fl_onnx_node n;
    name_t out[1];

    if (slope == 0) {
        fl_onnx_op(g, "Relu", g->now.name, NULL, g->now.name);
        return;
    }
    fl_onnx_begin(&n, "LeakyRelu");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_attr_float(&n, "alpha", slope);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
}

/* 0.5 x (1 + erf(x / sqrt 2)) */
static void gelu(struct fl_onnx_graph *g)
{
    struct fl_onnx_value x = g->now;

    fl_onnx_then_number(g, "Mul", (float)M_SQRT1_2);
    fl_onnx_op(g, "Erf", g->now.name, NULL, g->now.name);
    fl_onnx_then_number(g, "Add", 1);
    fl_onnx_then(g, "Mul", x.name);
    fl_onnx_then_number(g, "Mul", 0.5f);
}

/* The first `count` of the second axis of what there is now. */
static void first_of(struct fl_onnx_graph *g, int64_t count, name_t ret)
{
    const int64_t zero = 0, one = 1;
    struct fl_onnx_node n;
    name_t from, to, axis, out[1];

    fl_onnx_ints(g, "from", &zero, 1, false, from);
    fl_onnx_ints(g, "to", &count, 1, false, to);
    fl_onnx_ints(g, "axis", &one, 1, false, axis);
    fl_onnx_begin(&n, "Slice");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_in(&n, from);
    fl_onnx_in(&n, to);
    fl_onnx_in(&n, axis);
    fl_onnx_end(g, &n, 1, out);
    memcpy(ret, out[0], sizeof out[0]);
}

static void first_token(struct fl_onnx_graph *g)
{
    name_t token;

    first_of(g, 1, token);
    memcpy(g->now.name, token, sizeof token);
    fl_onnx_to_vector(g);
}

static void global_pool(struct fl_onnx_graph *g, const struct fl_layer *l)
{
    if (l->in_shape[1] == 1 && l->in_shape[2] == 1) {
        fl_onnx_to_vector(g);
        return;
    }
    fl_onnx_to_image(g);
    fl_onnx_op(g, "GlobalAveragePool", g->now.name, NULL, g->now.name);
    fl_onnx_to_vector(g);
}

static void scale_and_shift(struct fl_onnx_graph *g, const struct fl_layer *l, uint32_t rank)
{
    const float *theta = g->model->theta;
    const uint32_t dims[3] = {l->in_shape[0], 1, 1};
    name_t name;

    fl_onnx_floats(g, "weight", dims, rank, theta + tensor_of(g, l, 0)->offset, name);
    fl_onnx_then(g, "Mul", name);
    fl_onnx_floats(g, "bias", dims, rank, theta + tensor_of(g, l, 1)->offset, name);
    fl_onnx_then(g, "Add", name);
}

/* As exporters write it and importers know it: each group is an instance of [channels, pixels]. */
static int group_norm(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    const uint32_t *s = l->in_shape;
    float *flat = fl_try(2 * (size_t)l->groups, sizeof *flat); /* ones, then zeros */
    struct fl_onnx_node n;
    name_t ones, zeros, out[1];

    if (!flat) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    for (uint32_t i = 0; i < l->groups; i++) {
        flat[i] = 1;
    }
    fl_onnx_floats(g, "ones", &l->groups, 1, flat, ones);
    fl_onnx_floats(g, "zeros", &l->groups, 1, flat + l->groups, zeros);
    fl_free(flat);
    fl_onnx_to_image(g);
    fl_onnx_reshape(g, (const int64_t[]){0, l->groups, -1}, 3);
    fl_onnx_begin(&n, "InstanceNormalization");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_in(&n, ones);
    fl_onnx_in(&n, zeros);
    fl_onnx_attr_float(&n, "epsilon", 1e-5f);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
    fl_onnx_reshape(g, (const int64_t[]){0, s[0], s[1], s[2]}, 4);
    scale_and_shift(g, l, 3);
    return 0;
}

static int batch_norm(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    uint32_t channels = l->in_shape[0];
    float *variance = fl_try(channels, sizeof *variance);
    struct fl_onnx_node n;
    name_t name, out[1];

    if (!variance) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    for (uint32_t c = 0; c < channels; c++) { /* as run_image.c reads it */
        variance[c] = fmaxf(g->model->theta[tensor_of(g, l, 3)->offset + c], 0);
    }
    if (l->in_shape[1] == 1 && l->in_shape[2] == 1) {
        fl_onnx_to_vector(g);
    } else {
        fl_onnx_to_image(g);
    }
    fl_onnx_begin(&n, "BatchNormalization");
    fl_onnx_in(&n, g->now.name);
    for (int k = 0; k < 3; k++) {
        tensor(g, l, k, "normal", name);
        fl_onnx_in(&n, name);
    }
    fl_onnx_floats(g, "variance", &channels, 1, variance, name);
    fl_onnx_in(&n, name);
    fl_free(variance);
    fl_onnx_attr_float(&n, "epsilon", 1e-5f);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
    return 0;
}

/* Numeric columns pass, then a row of its table for each category. */
static void embedding(struct fl_onnx_graph *g, const struct fl_layer *l)
{
    const float *table = g->model->theta + tensor_of(g, l, 0)->offset;
    int64_t numeric = (int64_t)l->in_shape[0] - l->category_count;
    name_t rows, column, row[FL_SPEC_CATEGORIES_MAX], numbers, out[1];
    struct fl_onnx_node n;

    fl_onnx_to_vector(g);
    if (numeric) {
        first_of(g, numeric, numbers);
    }
    for (uint32_t k = 0; k < l->category_count; k++) {
        const uint32_t dims[2] = {l->categories[k], l->out};
        int64_t which = numeric + k;
        fl_onnx_ints(g, "column", &which, 1, true, column);
        fl_onnx_begin(&n, "Gather");
        fl_onnx_in(&n, g->now.name);
        fl_onnx_in(&n, column);
        fl_onnx_attr_int(&n, "axis", 1);
        fl_onnx_end(g, &n, 1, out);
        fl_onnx_begin(&n, "Cast");
        fl_onnx_in(&n, out[0]);
        fl_onnx_attr_int(&n, "to", 7); /* int64 */
        fl_onnx_end(g, &n, 1, out);
        fl_onnx_floats(g, "rows", dims, 2, table, rows);
        fl_onnx_op(g, "Gather", rows, out[0], row[k]);
        table += (size_t)l->categories[k] * l->out;
    }
    fl_onnx_begin(&n, "Concat");
    if (numeric) {
        fl_onnx_in(&n, numbers);
    }
    for (uint32_t k = 0; k < l->category_count; k++) {
        fl_onnx_in(&n, row[k]);
    }
    fl_onnx_attr_int(&n, "axis", 1);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
}

/* [N, 1, length, width] are the tokens as they lie. */
static void sequence(struct fl_onnx_graph *g, const struct fl_layer *l)
{
    fl_onnx_to_image(g);
    fl_onnx_reshape(g, (const int64_t[]){0, l->in_shape[1], l->in_shape[2]}, 3);
    g->now.form = FL_ONNX_TOKENS;
}

static int positions(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    const uint32_t dims[2] = {l->in_shape[1], l->in_shape[0]};
    float *waves;
    name_t add;

    to_tokens(g);
    if (!l->sinusoidal) {
        tensor(g, l, 0, "weight", add);
        fl_onnx_then(g, "Add", add);
        return 0;
    }
    if (!(waves = fl_try((size_t)dims[0] * dims[1], sizeof *waves))) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    for (uint32_t t = 0; t < dims[0]; t++) {
        for (uint32_t c = 0; c < dims[1]; c++) {
            double angle = t * pow(10000, -(double)(c - c % 2) / dims[1]);
            waves[t * dims[1] + c] = (float)(c % 2 ? cos(angle) : sin(angle));
        }
    }
    fl_onnx_floats(g, "waves", dims, 2, waves, add);
    fl_free(waves);
    fl_onnx_then(g, "Add", add);
    return 0;
}

/* One of Q, K, V as [N, heads, length, head]. */
static void split_heads(struct fl_onnx_graph *g, const struct fl_layer *l, const char *of,
                        const int64_t axes[4], name_t ret)
{
    snprintf(g->now.name, sizeof g->now.name, "%s", of);
    fl_onnx_reshape(g, (const int64_t[]){0, l->in_shape[1], l->heads, l->in_shape[0] / l->heads},
                    4);
    transpose(g, axes, 4);
    memcpy(ret, g->now.name, FL_ONNX_NAME);
}

static int causal_mask(struct fl_onnx_graph *g, uint32_t length, struct fl_err *e)
{
    name_t name;
    float *mask = fl_try((size_t)length * length, sizeof *mask);

    if (!mask) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    for (uint32_t i = 0; i < length; i++) {
        for (uint32_t j = i + 1; j < length; j++) {
            mask[(size_t)i * length + j] = -1e9f; /* its weight is 0 in float */
        }
    }
    fl_onnx_floats(g, "mask", (const uint32_t[]){length, length}, 2, mask, name);
    fl_free(mask);
    fl_onnx_then(g, "Add", name);
    return 0;
}

static int attention(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    const float *theta = g->model->theta;
    uint32_t w = l->in_shape[0], t = l->in_shape[1];
    const int64_t thirds[3] = {w, w, w};
    struct fl_onnx_node n;
    name_t sizes, parts[3], q, k, v, out[1];

    to_tokens(g);
    int r = product(g, theta + tensor_of(g, l, 0)->offset, 3 * w, w,
                    theta + tensor_of(g, l, 1)->offset, e);
    fl_onnx_ints(g, "thirds", thirds, 3, false, sizes);
    fl_onnx_begin(&n, "Split");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_in(&n, sizes);
    fl_onnx_attr_int(&n, "axis", 2);
    fl_onnx_end(g, &n, 3, parts);
    split_heads(g, l, parts[0], (const int64_t[]){0, 2, 1, 3}, q);
    split_heads(g, l, parts[1], (const int64_t[]){0, 2, 3, 1}, k);
    split_heads(g, l, parts[2], (const int64_t[]){0, 2, 1, 3}, v);
    fl_onnx_op(g, "MatMul", q, k, g->now.name);
    fl_onnx_then_number(g, "Mul", 1 / sqrtf((float)(w / l->heads)));
    if (r == 0 && l->causal) {
        r = causal_mask(g, t, e);
    }
    fl_onnx_begin(&n, "Softmax");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_attr_int(&n, "axis", -1);
    fl_onnx_end(g, &n, 1, out);
    fl_onnx_op(g, "MatMul", out[0], v, g->now.name);
    transpose(g, (const int64_t[]){0, 2, 1, 3}, 4);
    fl_onnx_reshape(g, (const int64_t[]){0, t, w}, 3);
    return r ? r
             : product(g, theta + tensor_of(g, l, 2)->offset, w, w,
                       theta + tensor_of(g, l, 3)->offset, e);
}

/* Adds what the FORK got, by a convolution of 1 x 1 where the shapes differ. */
static int join(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    struct fl_onnx_value made = g->now;

    if (g->depth == 0) {
        return fl_fail(e, FL_R_INTERNAL, "layer %s joins nothing", l->name);
    }
    g->now = g->forks[--g->depth];
    if (l->out) {
        fl_onnx_to_image(g);
        conv(g, l, g->now.name, 1, g->now.name);
    }
    to_form(g, made.form);
    fl_onnx_then(g, "Add", made.name);
    return 0;
}

int fl_onnx_layer(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    switch (l->kind) {
    case FL_LAYER_CONV2D:
    case FL_LAYER_GROUPED:
        fl_onnx_to_image(g);
        conv(g, l, g->now.name, l->kernel, g->now.name);
        return 0;
    case FL_LAYER_MAX_POOL:
        pool(g, l, "MaxPool");
        return 0;
    case FL_LAYER_AVG_POOL:
        pool(g, l, "AveragePool");
        return 0;
    case FL_LAYER_GLOBAL_POOL:
        global_pool(g, l);
        return 0;
    case FL_LAYER_LINEAR:
        return linear(g, l, e);
    case FL_LAYER_LEAKY_RELU:
        leaky_relu(g, l->slope);
        return 0;
    case FL_LAYER_GELU:
        gelu(g);
        return 0;
    case FL_LAYER_TANH:
        fl_onnx_op(g, "Tanh", g->now.name, NULL, g->now.name);
        return 0;
    case FL_LAYER_FLATTEN:
        fl_onnx_to_vector(g);
        return 0;
    case FL_LAYER_GROUP_NORM:
        return group_norm(g, l, e);
    case FL_LAYER_BATCH_NORM:
        return batch_norm(g, l, e);
    case FL_LAYER_LAYER_NORM:
        to_channels(g, l);
        normalise(g);
        scale_and_shift(g, l, 1);
        return 0;
    case FL_LAYER_DROPOUT: /* only in training */
        return 0;
    case FL_LAYER_EMBEDDING:
        embedding(g, l);
        return 0;
    case FL_LAYER_SEQUENCE:
        sequence(g, l);
        return 0;
    case FL_LAYER_FIRST_TOKEN:
        first_token(g);
        return 0;
    case FL_LAYER_POSITIONS:
        return positions(g, l, e);
    case FL_LAYER_ATTENTION:
        return attention(g, l, e);
    case FL_LAYER_FORK:
        g->forks[g->depth++] = g->now;
        return 0;
    case FL_LAYER_JOIN:
        return join(g, l, e);
    case FL_LAYER_SCATTERING:
        return fl_onnx_scattering(g, l, e);
    case FL_LAYER_FOURIER:
        return fl_onnx_fourier(g, l, e);
    default:
        break;
    }
    return fl_fail(e, FL_R_CAPABILITY, "layer %s has no ONNX form", l->name);
}
