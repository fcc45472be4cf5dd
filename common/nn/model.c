/*
 * How a network runs.
 *
 * The layers of the spec become operations. Two things are rearranged, neither of which changes a
 * value: a leaky ReLU before a max-pool runs after it (it is monotone, and there are four times
 * fewer values), and a flatten of a vector disappears.
 *
 * Everything up to the last convolution, pool or flatten runs example by example, from the image to
 * the features, so that it stays in the cache ("spatial" operations); what follows, linear layers,
 * runs for a shard at once ("batched").
 *
 *     image -> conv -> pool -> relu -> conv -> pool -> relu -> flatten ||-> linear -> relu ->
 * linear
 *              \____________ one example at a time ______________/       \____ a shard at once ___/
 *
 * A buffer between two operations is kept for each example of the shard if backward will look at it
 * (inputs of convolutions and linear layers, outputs of leaky ReLUs), otherwise all examples share
 * one. Gradients of spatial buffers are always shared.
 */
#include "common/nn/model.h"

#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/vec.h"
#include "common/nn/layers.h"

#include <assert.h>
#include <string.h>

struct value { /* between two operations */
    size_t count;
    float *at, *d;
    size_t each, d_each; /* floats from an example to the next; 0 = shared */
};

struct op {
    const struct fl_layer *layer;
    uint32_t in, out; /* numbers of values; the same for a leaky ReLU */
    size_t weight;    /* offset of the weight in theta; the bias follows at `bias` */
    size_t bias;
    struct fl_conv conv;
    uint8_t *place; /* max-pool: for each example */
};

struct fl_model {
    struct fl_spec spec;
    uint32_t shard, ops, values;
    uint32_t batched; /* the first operation that runs for a shard at once */
    uint32_t first;   /* the first one with weights: nothing flows back before it */
    size_t elements;
    const float *theta;
    struct op op[FL_SPEC_LAYERS_MAX];
    struct value value[FL_SPEC_LAYERS_MAX + 1];
    uint32_t pieces;
    struct fl_piece piece[FL_SPEC_LAYERS_MAX];
    float *piece_w[FL_SPEC_LAYERS_MAX]; /* convolutions: one example's gradient in theta's layout */
};

static size_t product(const uint32_t shape[3])
{
    return (size_t)shape[0] * shape[1] * shape[2];
}

static bool is_weighted(const struct fl_layer *l)
{
    return l->kind == FL_LAYER_CONV2D || l->kind == FL_LAYER_LINEAR;
}

/* ---- building ---- */

/* The order in which layers run; returns how many. */
static uint32_t arrange(const struct fl_spec *spec, const struct fl_layer *order[])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (l->kind == FL_LAYER_FLATTEN && l->in_shape[1] == 1 && l->in_shape[2] == 1) {
            continue;
        }
        order[n++] = l;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (order[i]->kind == FL_LAYER_LEAKY_RELU && order[i + 1]->kind == FL_LAYER_MAX_POOL) {
            const struct fl_layer *relu = order[i];
            order[i] = order[i + 1];
            order[i + 1] = relu;
        }
    }
    return n;
}

static void plan_ops(struct fl_model *m)
{
    const struct fl_layer *order[FL_SPEC_LAYERS_MAX];

    m->ops = arrange(&m->spec, order);
    m->first = m->ops;
    m->value[0].count = product(m->spec.input);
    m->values = 1;
    for (uint32_t i = 0; i < m->ops; i++) {
        struct op *op = &m->op[i];
        op->layer = order[i];
        op->in = op->out = m->values - 1;
        if (op->layer->kind != FL_LAYER_LEAKY_RELU) {
            op->out = m->values++;
            m->value[op->out].count = product(op->layer->out_shape);
        }
        if (op->layer->kind != FL_LAYER_LEAKY_RELU && op->layer->kind != FL_LAYER_LINEAR) {
            m->batched = i + 1;
        }
        if (is_weighted(op->layer)) {
            m->first = m->first < i ? m->first : i;
            op->weight = m->elements;
            size_t fan_in = op->layer->in_shape[0];
            if (op->layer->kind == FL_LAYER_CONV2D) {
                fan_in *= (size_t)op->layer->kernel * op->layer->kernel;
            }
            op->bias = op->weight + fan_in * op->layer->out;
            m->elements = op->bias + op->layer->out;
        }
    }
}

static void plan_values(struct fl_model *m)
{
    uint32_t boundary = m->batched < m->ops ? m->op[m->batched].in : m->values - 1;

    for (uint32_t i = 0; i < m->ops; i++) {
        const struct op *op = &m->op[i];
        if (is_weighted(op->layer) || op->layer->kind == FL_LAYER_LEAKY_RELU) {
            m->value[op->in].each = m->value[op->in].count;
        }
    }
    for (uint32_t v = boundary; v < m->values; v++) {
        m->value[v].each = m->value[v].d_each = m->value[v].count;
    }
}

static bool new_values(struct fl_model *m)
{
    for (uint32_t v = 0; v < m->values; v++) {
        struct value *value = &m->value[v];
        size_t n = value->each ? m->shard : 1, dn = value->d_each ? m->shard : 1;
        value->at = fl_try_aligned(n * value->count + FL_SLACK, sizeof(float));
        value->d = fl_try_aligned(dn * value->count + FL_SLACK, sizeof(float));
        if (!value->at || !value->d) {
            return false;
        }
    }
    return true;
}

static bool new_conv(struct fl_conv *c, const struct fl_layer *l)
{
    size_t line;

    c->channels = l->in_shape[0];
    c->height = l->in_shape[1];
    c->width = l->in_shape[2];
    c->out = l->out;
    c->kernel = l->kernel;
    c->stride = l->stride;
    c->padding = l->padding;
    c->out_height = l->out_shape[1];
    c->out_width = l->out_shape[2];
    c->patch = c->kernel * c->kernel * c->channels;
    c->row = (c->patch + 15) / 16 * 16;
    line = (c->width + 2 * c->padding) * c->channels;
    if (c->padding) {
        c->padded = fl_try_aligned((c->height + 2 * c->padding) * line + FL_SLACK, sizeof(float));
    }
    c->weight = fl_try_aligned(c->out * c->row, sizeof(float));
    c->dweight = fl_try_aligned(c->out * c->row, sizeof(float));
    c->dbias = fl_try_aligned(c->out, sizeof(float));
    c->patches = fl_try_aligned(c->out_height * c->out_width * c->row + FL_SLACK, sizeof(float));
    return c->weight && c->dweight && c->dbias && c->patches && (c->padded || !c->padding);
}

static bool new_ops(struct fl_model *m)
{
    for (uint32_t i = 0; i < m->ops; i++) {
        struct op *op = &m->op[i];
        if (op->layer->kind == FL_LAYER_CONV2D) {
            if (!new_conv(&op->conv, op->layer)) {
                return false;
            }
            m->piece_w[m->pieces] = fl_try_aligned(op->conv.out * op->conv.patch, sizeof(float));
            if (!m->piece_w[m->pieces]) {
                return false;
            }
        } else if (op->layer->kind == FL_LAYER_MAX_POOL) {
            op->place = fl_try(m->shard, m->value[op->out].count);
            if (!op->place) {
                return false;
            }
        }
        m->pieces += is_weighted(op->layer);
    }
    return true;
}

int fl_model_new(const struct fl_spec *spec, uint32_t shard, struct fl_model **ret,
                 struct fl_err *e)
{
    struct fl_model *m = fl_try(1, sizeof *m);

    assert(shard > 0);
    if (!m) {
        return fl_fail(e, FL_R_NOMEM, "a network of %u layers", spec->layer_count);
    }
    m->spec = *spec;
    m->shard = shard;
    plan_ops(m);
    plan_values(m);
    if (!new_values(m) || !new_ops(m)) {
        fl_model_free(m);
        return fl_fail(e, FL_R_NOMEM, "a network of %u layers for %u examples at once",
                       spec->layer_count, shard);
    }
    *ret = m;
    return 0;
}

void fl_model_free(struct fl_model *m)
{
    if (!m) {
        return;
    }
    for (uint32_t i = 0; i < m->ops; i++) {
        fl_free(m->op[i].conv.weight);
        fl_free(m->op[i].conv.dweight);
        fl_free(m->op[i].conv.dbias);
        fl_free(m->op[i].conv.padded);
        fl_free(m->op[i].conv.patches);
        fl_free(m->op[i].place);
    }
    for (uint32_t v = 0; v < m->values; v++) {
        fl_free(m->value[v].at);
        fl_free(m->value[v].d);
    }
    for (uint32_t i = 0; i < FL_SPEC_LAYERS_MAX; i++) {
        fl_free(m->piece_w[i]);
    }
    fl_free(m);
}

void fl_model_set(struct fl_model *m, const float *theta)
{
    m->theta = theta;
    for (uint32_t i = 0; i < m->ops; i++) {
        if (m->op[i].layer->kind == FL_LAYER_CONV2D) {
            fl_conv_set(&m->op[i].conv, theta + m->op[i].weight);
        }
    }
}

/* ---- forward ---- */

/* y = x W^T + b for `count` rows. One row takes the matrix-vector kernel. */
static void linear_forward(const struct fl_model *m, const struct op *op, const float *x, float *y,
                           size_t count)
{
    size_t in = op->layer->in_shape[0], out = op->layer->out;

    fl_fill_rows(m->theta + op->bias, count, out, y);
    if (count == 1) {
        fl_blas_gemv(false, out, in, 1, m->theta + op->weight, in, x, 1, y);
    } else {
        fl_blas_gemm(false, true, count, out, in, 1, x, in, m->theta + op->weight, in, 1, y, out);
    }
}

/* Operation `op` for `count` examples from number `first` of the shard; count > 1 only for batched
 * ones. */
static void run_forward(struct fl_model *m, struct op *op, size_t first, size_t count)
{
    const struct fl_layer *l = op->layer;
    float *x = m->value[op->in].at + first * m->value[op->in].each;
    float *y = m->value[op->out].at + first * m->value[op->out].each;

    switch (l->kind) {
    case FL_LAYER_CONV2D:
        fl_conv_forward(&op->conv, m->theta + op->bias, x, y);
        break;
    case FL_LAYER_MAX_POOL:
        fl_pool_forward(x, l->in_shape[2], l->in_shape[0], l->kernel, l->out_shape[1],
                        l->out_shape[2], y, op->place + first * m->value[op->out].count);
        break;
    case FL_LAYER_LINEAR:
        linear_forward(m, op, x, y, count);
        break;
    case FL_LAYER_LEAKY_RELU:
        fl_leaky_forward(x, count * m->value[op->in].count, l->slope);
        break;
    case FL_LAYER_FLATTEN:
        fl_to_chw(x, l->in_shape[0], (size_t)l->in_shape[1] * l->in_shape[2], y);
        break;
    }
}

/* count <= shard examples. */
static void forward(struct fl_model *m, const float *x, size_t count)
{
    struct value *input = &m->value[0];
    size_t pixels = (size_t)m->spec.input[1] * m->spec.input[2];

    for (size_t n = 0; n < count; n++) {
        fl_to_hwc(x + n * input->count, m->spec.input[0], pixels, input->at + n * input->each);
        for (uint32_t i = 0; i < m->batched; i++) {
            run_forward(m, &m->op[i], n, 1);
        }
    }
    for (uint32_t i = m->batched; i < m->ops; i++) {
        run_forward(m, &m->op[i], 0, count);
    }
}

void fl_model_forward(struct fl_model *m, const float *x, size_t count, float *out)
{
    const struct value *last = &m->value[m->values - 1];
    const uint32_t *shape = m->spec.layers[m->spec.layer_count - 1].out_shape;

    while (count) {
        size_t n = count < m->shard ? count : m->shard;
        forward(m, x, n);
        for (size_t i = 0; i < n; i++) {
            fl_to_chw(last->at + i * last->each, shape[0], (size_t)shape[1] * shape[2],
                      out + i * last->count);
        }
        x += n * m->value[0].count;
        out += n * last->count;
        count -= n;
    }
}

/* Losses of the shard's examples, added to score; d of the last value when weight is not 0. */
static void score(struct fl_model *m, const int32_t *y, size_t count, float weight,
                  struct fl_score *sum)
{
    struct value *last = &m->value[m->values - 1];

    for (size_t n = 0; n < count; n++) {
        const float *logits = last->at + n * last->each;
        float *d = weight != 0 ? last->d + n * last->d_each : NULL;
        size_t best = 0;
        assert(y[n] >= 0 && (size_t)y[n] < last->count);
        for (size_t c = 1; c < last->count; c++) {
            best = logits[c] > logits[best] ? c : best;
        }
        sum->correct += best == (size_t)y[n];
        sum->loss += fl_softmax_loss(logits, last->count, y[n], weight, d);
    }
}

void fl_model_score(struct fl_model *m, const float *x, const int32_t *y, size_t count,
                    struct fl_score *ret)
{
    *ret = (struct fl_score){0};
    while (count) {
        size_t n = count < m->shard ? count : m->shard;
        forward(m, x, n);
        score(m, y, n, 0, ret);
        x += n * m->value[0].count;
        y += n;
        count -= n;
    }
}

/* ---- backward ---- */

static void linear_backward(const struct fl_model *m, const struct op *op, const float *x,
                            const float *dy, float *dx, size_t count, float *grad)
{
    size_t in = op->layer->in_shape[0], out = op->layer->out;

    if (grad) {
        fl_vec_sum_rows(dy, count, out, grad + op->bias);
        fl_blas_gemm(true, false, out, in, count, 1, dy, out, x, in, 1, grad + op->weight, in);
    }
    if (!dx) {
        return;
    }
    if (count == 1) {
        fl_blas_gemv(true, out, in, 1, m->theta + op->weight, in, dy, 0, dx);
    } else {
        fl_blas_gemm(false, false, count, in, out, 1, dy, out, m->theta + op->weight, in, 0, dx,
                     in);
    }
}

/* grad NULL: linear layers' weights get none (their factors stay in the values). */
static void run_backward(struct fl_model *m, uint32_t i, size_t first, size_t count, float *grad)
{
    struct op *op = &m->op[i];
    const struct fl_layer *l = op->layer;
    const float *x = m->value[op->in].at + first * m->value[op->in].each;
    const float *y = m->value[op->out].at + first * m->value[op->out].each;
    float *dx = m->value[op->in].d + first * m->value[op->in].d_each;
    float *dy = m->value[op->out].d + first * m->value[op->out].d_each;

    switch (l->kind) {
    case FL_LAYER_CONV2D:
        fl_conv_backward(&op->conv, x, dy, i > m->first ? dx : NULL);
        break;
    case FL_LAYER_MAX_POOL:
        fl_pool_backward(dy, op->place + first * m->value[op->out].count, l->in_shape[1],
                         l->in_shape[2], l->in_shape[0], l->kernel, l->out_shape[1],
                         l->out_shape[2], dx);
        break;
    case FL_LAYER_LINEAR:
        linear_backward(m, op, x, dy, i > m->first ? dx : NULL, count, grad);
        break;
    case FL_LAYER_LEAKY_RELU:
        fl_leaky_backward(y, dy, count * m->value[op->out].count, l->slope);
        break;
    case FL_LAYER_FLATTEN:
        fl_to_hwc(dy, l->in_shape[0], (size_t)l->in_shape[1] * l->in_shape[2], dx);
        break;
    }
}

static void backward(struct fl_model *m, size_t count, float *grad)
{
    for (uint32_t i = m->ops; i-- > m->batched && i >= m->first;) {
        run_backward(m, i, 0, count, grad);
    }
    for (size_t n = 0; n < count; n++) {
        for (uint32_t i = m->batched; i-- > m->first;) {
            run_backward(m, i, n, 1, grad);
        }
    }
}

static void zero_convs(struct fl_model *m)
{
    for (uint32_t i = 0; i < m->ops; i++) {
        struct fl_conv *c = &m->op[i].conv;
        if (c->weight) {
            memset(c->dweight, 0, c->out * c->row * sizeof *c->dweight);
            memset(c->dbias, 0, c->out * sizeof *c->dbias);
        }
    }
}

void fl_model_gradient(struct fl_model *m, const float *x, const int32_t *y, size_t count,
                       float *grad, struct fl_score *ret_score)
{
    struct fl_score sum = {0};
    float weight = 1 / (float)count;

    assert(count > 0);
    memset(grad, 0, m->elements * sizeof *grad);
    zero_convs(m);
    while (count) {
        size_t n = count < m->shard ? count : m->shard;
        forward(m, x, n);
        score(m, y, n, weight, &sum);
        backward(m, n, grad);
        x += n * m->value[0].count;
        y += n;
        count -= n;
    }
    for (uint32_t i = 0; i < m->ops; i++) {
        const struct op *op = &m->op[i];
        if (op->conv.weight) {
            fl_conv_unpack(&op->conv, op->conv.dweight, grad + op->weight, 1);
            memcpy(grad + op->bias, op->conv.dbias, op->conv.out * sizeof *grad);
        }
    }
    if (ret_score) {
        *ret_score = sum;
    }
}

uint32_t fl_model_example(struct fl_model *m, const float *x, int32_t y,
                          const struct fl_piece **ret_pieces, double *ret_loss)
{
    struct fl_score sum = {0};
    uint32_t k = 0;

    zero_convs(m);
    forward(m, x, 1);
    score(m, &y, 1, 1, &sum);
    backward(m, 1, NULL);
    for (uint32_t i = 0; i < m->ops; i++) {
        const struct op *op = &m->op[i];
        if (!is_weighted(op->layer)) {
            continue;
        }
        struct fl_piece *p = &m->piece[k];
        *p = (struct fl_piece){.weight = op->weight, .bias = op->bias, .out = op->layer->out};
        p->in = (op->bias - op->weight) / p->out;
        if (op->conv.weight) {
            fl_conv_unpack(&op->conv, op->conv.dweight, m->piece_w[k], 1);
            p->w = m->piece_w[k];
            p->d = op->conv.dbias;
        } else {
            p->a = m->value[op->in].at;
            p->d = m->value[op->out].d;
        }
        k++;
    }
    *ret_pieces = m->piece;
    *ret_loss = sum.loss;
    return k;
}

/* ---- halves ---- */

int fl_spec_split(const struct fl_spec *spec, struct fl_spec half[2], size_t *ret_body_elements,
                  struct fl_err *e)
{
    uint32_t weighted = 0, seen = 0, cut = 0;
    size_t elements = 0;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        weighted += is_weighted(&spec->layers[i]);
    }
    if (spec->head == 0 || spec->head >= weighted) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a model of %u layers with weights and a head of %u",
                       weighted, spec->head);
    }
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (!is_weighted(l)) {
            continue;
        }
        if (seen++ == weighted - spec->head) {
            cut = i;
            break;
        }
        size_t patch = l->kind == FL_LAYER_CONV2D ? (size_t)l->kernel * l->kernel : 1;
        elements += (l->in_shape[0] * patch + 1) * l->out;
    }
    half[0] = half[1] = *spec;
    half[0].layer_count = cut;
    half[1].layer_count = spec->layer_count - cut;
    memcpy(half[1].input, spec->layers[cut].in_shape, sizeof half[1].input);
    memset(half[1].layers, 0, sizeof half[1].layers);
    memcpy(half[1].layers, spec->layers + cut, half[1].layer_count * sizeof spec->layers[0]);
    *ret_body_elements = elements;
    return 0;
}
