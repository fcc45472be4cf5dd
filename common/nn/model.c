/*
 * How a network runs.
 *
 * The layers of the spec become operations. Two things are rearranged, neither of which changes a
 * value: a leaky ReLU before a max-pool runs after it (it is monotone, and there are four times
 * fewer values), and a flatten of a vector disappears.
 *
 * Everything up to the last operation on images runs example by example, from the image to the
 * features, so that it stays in the cache ("spatial" operations); what follows, linear layers and
 * sequences, runs for a shard at once ("batched").
 *
 *     image -> conv -> pool -> relu -> conv -> pool -> relu -> flatten ||-> linear -> relu ->
 * linear
 *              \____________ one example at a time ______________/       \____ a shard at once ___/
 *
 * A residual block begins with a copy of its input (FORK) and ends with a sum (JOIN) of what the
 * block made and of that input, which went through a convolution of 1 x 1 of its own if the shapes
 * differ. Backward, JOIN hands its gradient to both ways and FORK adds what comes back through the
 * block.
 *
 * Batch norm takes its statistics over the shard, so with one in the network every operation is
 * done for the whole shard before the next begins, and all buffers are kept.
 *
 * A buffer between two operations is kept for each example of the shard if backward will look at it
 * (inputs of convolutions and linear layers, outputs of leaky ReLUs), otherwise all examples share
 * one. Gradients of spatial buffers are always shared.
 */
#include "common/nn/model.h"

#include "common/math/vec.h"
#include "common/nn/model_in.h"

#include <assert.h>
#include <string.h>

static void turn(const struct op *op, const float *theta)
{
    size_t w = op->layer->in_shape[0];

    if (op->kind == FL_LAYER_LINEAR) {
        fl_linear_turn(theta, w, op->layer->out, op->turned);
    } else { /* attention: two of them */
        size_t second = 3 * w * w + 3 * w;
        fl_linear_turn(theta, w, 3 * w, op->turned);
        fl_linear_turn(theta + second, w, w, op->turned + second);
    }
}

void fl_model_set(struct fl_model *m, const float *theta)
{
    m->theta = theta;
    for (uint32_t i = 0; i < m->ops; i++) {
        if (m->op[i].kind == FL_LAYER_CONV2D) {
            fl_conv_set(&m->op[i].conv, theta + m->op[i].weight);
        }
        if (m->op[i].turned) {
            turn(&m->op[i], theta + m->op[i].weight);
        }
    }
}

void fl_model_dropout(struct fl_model *m, const struct fl_seed *seed)
{
    if (m->drops) {
        fl_rng_fini(&m->drop);
    }
    m->drops = seed != NULL;
    if (seed) {
        fl_rng_init(&m->drop, seed, 0);
    }
}

bool fl_model_tap(struct fl_model *m, const struct fl_tap *tap)
{
    uint32_t weighted = fl_spec_weighted(&m->spec), i = m->ops;
    const struct fl_layer *head = &m->spec.layers[fl_spec_head(&m->spec)];

    m->tap = NULL;
    while (i > 0 && m->op[i - 1].layer >= head) {
        i--;
    }
    if (tap && (m->spec.head == 0 || m->spec.head >= weighted || i >= m->ops || i < m->batched ||
                i <= m->first || m->op[i].kind != FL_LAYER_LINEAR || m->op[i].rows != 1)) {
        return false;
    }
    m->tap = tap;
    m->tapped = i;
    return true;
}

/* ---- forward ---- */

struct fl_run fl_run_of(struct fl_model *m, const struct op *op, size_t first, size_t count)
{
    return (struct fl_run){.layer = op->layer,
                           .count = count,
                           .theta = m->theta ? m->theta + op->weight : NULL,
                           .turned = op->turned,
                           .x = m->value[op->in].at + first * m->value[op->in].each,
                           .y = m->value[op->out].at + first * m->value[op->out].each,
                           .kept = op->kept ? op->kept + first * op->kept_each : NULL,
                           .scratch = op->scratch,
                           .state = op->state,
                           .learning = m->learning,
                           .drop = m->drops ? &m->drop : NULL};
}

/* Operation `op` for `count` examples from number `first` of the shard; count > 1 only for batched
 * ones. */
static void run_forward(struct fl_model *m, struct op *op, size_t first, size_t count)
{
    const struct fl_layer *l = op->layer;
    const struct value *in = &m->value[op->in], *out = &m->value[op->out];
    float *x = in->at + first * in->each, *y = out->at + first * out->each;

    if (op->runner) {
        struct fl_run run = fl_run_of(m, op, first, count);
        op->runner->forward(&run);
        return;
    }
    switch (op->kind) {
    case FL_LAYER_CONV2D:
        fl_conv_forward(&op->conv, m->theta + op->bias, x, y);
        break;
    case FL_LAYER_MAX_POOL:
        fl_pool_forward(x, l->in_shape[2], l->in_shape[0], l->kernel, l->out_shape[1],
                        l->out_shape[2], y, op->place + first * out->count);
        break;
    case FL_LAYER_LINEAR:
        fl_linear_tokens(m->theta + op->weight, op->turned, l->in_shape[0], l->out, x,
                         count * op->rows, y);
        break;
    case FL_LAYER_LEAKY_RELU:
        fl_leaky_forward(x, count * in->count, l->slope);
        break;
    case FL_LAYER_FLATTEN:
        for (size_t n = 0; n < count; n++) {
            fl_to_chw(x + n * in->count, l->in_shape[0], (size_t)l->in_shape[1] * l->in_shape[2],
                      y + n * in->count);
        }
        break;
    case FL_LAYER_FORK:
        memcpy(y, x, count * in->count * sizeof *y);
        break;
    case FL_LAYER_JOIN:
        fl_vec_add(x, m->value[op->second].at + first * m->value[op->second].each, y,
                   count * in->count);
        break;
    default:
        assert(false && "a kind without its loops");
    }
}

void fl_ops_forward(struct fl_model *m, const float *x, size_t count)
{
    struct value *input = &m->value[0];
    size_t pixels = (size_t)m->spec.input[1] * m->spec.input[2];

    for (size_t n = 0; n < count; n++) {
        fl_to_hwc(x + n * input->count, m->spec.input[0], pixels, input->at + n * input->each);
        for (uint32_t i = 0; !m->whole && i < m->batched; i++) {
            run_forward(m, &m->op[i], n, 1);
        }
    }
    for (uint32_t i = m->whole ? 0 : m->batched; i < m->ops; i++) {
        size_t at_once = m->op[i].single ? 1 : count;
        for (size_t n = 0; n < count; n += at_once) {
            run_forward(m, &m->op[i], n, at_once);
        }
    }
}

void fl_model_forward(struct fl_model *m, const float *x, size_t count, float *out)
{
    const struct value *last = &m->value[m->values - 1];
    const uint32_t *shape = m->spec.layers[m->spec.layer_count - 1].out_shape;

    while (count) {
        size_t n = count < m->shard ? count : m->shard;
        fl_ops_forward(m, x, n);
        for (size_t i = 0; i < n; i++) {
            fl_to_chw(last->at + i * last->each, shape[0], (size_t)shape[1] * shape[2],
                      out + i * last->count);
        }
        x += n * m->value[0].count;
        out += n * last->count;
        count -= n;
    }
}

size_t fl_target_bytes(const struct fl_model *m)
{
    return fl_loss_is_regression(&m->spec.loss) ? m->spec.targets * sizeof(float) : sizeof(int32_t);
}

void fl_ops_score(struct fl_model *m, const void *y, size_t count, float weight,
                  struct fl_score *sum)
{
    struct value *last = &m->value[m->values - 1];
    bool numbers = fl_loss_is_regression(&m->spec.loss);

    for (size_t n = 0; n < count; n++) {
        const float *out = last->at + n * last->each;
        float *d = weight != 0 ? last->d + n * last->d_each : NULL;
        fl_loss_add(&m->spec.loss, out, last->count, numbers ? NULL : (const int32_t *)y + n,
                    numbers ? (const float *)y + n * m->spec.targets : NULL, m->spec.targets,
                    weight, d, sum);
    }
}

void fl_model_score(struct fl_model *m, const float *x, const void *y, size_t count,
                    struct fl_score *ret)
{
    *ret = (struct fl_score){0};
    while (count) {
        size_t n = count < m->shard ? count : m->shard;
        fl_ops_forward(m, x, n);
        fl_ops_score(m, y, n, 0, ret);
        x += n * m->value[0].count;
        y = (const char *)y + n * fl_target_bytes(m);
        count -= n;
    }
}

/* ---- backward ---- */

void fl_op_backward(struct fl_model *m, uint32_t i, size_t first, size_t count, float *own)
{
    struct op *op = &m->op[i];
    const struct fl_layer *l = op->layer;
    const struct value *in = &m->value[op->in], *out = &m->value[op->out];
    const float *x = in->at + first * in->each, *y = out->at + first * out->each;
    float *dx = in->d + first * in->d_each, *dy = out->d + first * out->d_each;
    float *wanted = i > m->first ? dx : NULL;

    if (op->runner) {
        struct fl_run run = fl_run_of(m, op, first, count);
        run.dy = dy;
        run.dx = wanted;
        run.grad = own;
        op->runner->backward(&run);
        return;
    }
    switch (op->kind) {
    case FL_LAYER_CONV2D:
        fl_conv_backward(&op->conv, x, dy, wanted);
        break;
    case FL_LAYER_MAX_POOL:
        fl_pool_backward(dy, op->place + first * out->count, l->in_shape[1], l->in_shape[2],
                         l->in_shape[0], l->kernel, l->out_shape[1], l->out_shape[2], dx);
        break;
    case FL_LAYER_LINEAR:
        fl_linear_backward(m->theta + op->weight, l->in_shape[0], l->out, x, dy, count * op->rows,
                           own, wanted);
        break;
    case FL_LAYER_LEAKY_RELU:
        fl_leaky_backward(y, dy, count * out->count, l->slope);
        break;
    case FL_LAYER_FLATTEN:
        for (size_t n = 0; n < count; n++) {
            fl_to_hwc(dy + n * in->count, l->in_shape[0], (size_t)l->in_shape[1] * l->in_shape[2],
                      dx + n * in->count);
        }
        break;
    case FL_LAYER_FORK:
        fl_vec_axpy(1, dy, dx, count * in->count);
        break;
    case FL_LAYER_JOIN:
        memcpy(dx, dy, count * in->count * sizeof *dx);
        memcpy(m->value[op->second].d + first * m->value[op->second].d_each, dy,
               count * in->count * sizeof *dx);
        break;
    default:
        assert(false && "a kind without its loops");
    }
}

/* Where the gradient of an operation's tensors stands. */
static float *own_of(const struct op *op, float *grad)
{
    return op->elements ? grad + op->weight : NULL;
}

/* `first`: the shard's place in its batch. */
static void backward(struct fl_model *m, size_t first, size_t count, float *grad)
{
    for (uint32_t i = m->ops; i-- > (m->whole ? m->first : m->batched) && i >= m->first;) {
        size_t at_once = m->op[i].single ? 1 : count;
        for (size_t n = 0; n < count; n += at_once) {
            fl_op_backward(m, i, n, at_once, own_of(&m->op[i], grad));
        }
        if (m->tap && i == m->tapped) {
            const struct value *z = &m->value[m->op[i].in];
            m->tap->add(m->tap->arg, first, count, z->at, z->d);
        }
    }
    for (size_t n = 0; !m->whole && n < count; n++) {
        for (uint32_t i = m->batched; i-- > m->first;) {
            fl_op_backward(m, i, n, 1, own_of(&m->op[i], grad));
        }
    }
}

static void zero_convs(struct fl_model *m)
{
    for (uint32_t i = 0; i < m->ops; i++) {
        if (m->op[i].conv.weight) {
            fl_conv_begin(&m->op[i].conv);
        }
    }
}

void fl_model_gradient(struct fl_model *m, const float *x, const void *y, size_t count, float *grad,
                       struct fl_score *ret_score)
{
    struct fl_score sum = {0};
    float weight = 1 / (float)count;
    size_t first = 0;

    assert(count > 0);
    memset(grad, 0, m->elements * sizeof *grad);
    zero_convs(m);
    while (count) {
        size_t n = count < m->shard ? count : m->shard;
        m->learning = true;
        fl_ops_forward(m, x, n);
        m->learning = false;
        fl_ops_score(m, y, n, weight, &sum);
        backward(m, first, n, grad);
        first += n;
        x += n * m->value[0].count;
        y = (const char *)y + n * fl_target_bytes(m);
        count -= n;
    }
    for (uint32_t i = 0; i < m->ops; i++) {
        struct op *op = &m->op[i];
        if (op->conv.weight) {
            fl_conv_end(&op->conv);
            fl_conv_unpack(&op->conv, op->conv.dweight, grad + op->weight, 1);
            memcpy(grad + op->bias, op->conv.dbias, op->conv.out * sizeof *grad);
        }
    }
    if (ret_score) {
        *ret_score = sum;
    }
}

void fl_model_settle(const struct fl_model *m, float *theta)
{
    for (uint32_t i = 0; m->whole && i < m->ops; i++) {
        const struct op *op = &m->op[i];
        const float *running =
            op->kind == FL_LAYER_BATCH_NORM ? fl_batch_norm_running(op->state) : NULL;
        if (running) {
            size_t channels = op->layer->in_shape[0];
            memcpy(theta + op->weight + 2 * channels, running, 2 * channels * sizeof *theta);
        }
    }
}
