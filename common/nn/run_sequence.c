/*
 * Columns and tokens: embedding of categories, sequences, positions, layer norm, and multi-head
 * self-attention (Vaswani et al. 2017, arXiv 1706.03762, 3.2; tensors and start as PyTorch's
 * nn.MultiheadAttention):
 *
 *     [Q K V] = X W_in^T + b_in        one product for all tokens of all examples
 *     P_h = softmax(Q_h K_h^T / sqrt(w / heads))        per example and head; causal: no later
 * token Y = [P_1 V_1 ... P_h V_h] W_out^T + b_out
 *
 * Forward keeps [Q K V], P and the heads' outputs; backward is the same products transposed.
 */
#include "common/math/blas.h"
#include "common/math/vec.h"
#include "common/nn/layers.h"
#include "common/nn/run.h"

#include <math.h>
#include <string.h>

/* ---- embedding: numeric columns pass, each category becomes a row of the table ---- */

/* The row of category `k` of an example. A number that is none is row 0: data are checked when they
 * are loaded. */
static size_t table_row(const struct fl_layer *l, uint32_t k, float value)
{
    size_t first = 0;

    for (uint32_t i = 0; i < k; i++) {
        first += l->categories[i];
    }
    return first + (value >= 0 && value < (float)l->categories[k] ? (size_t)value : 0);
}

static void embedding_forward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t in = l->in_shape[0], numeric = in - l->category_count;

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * in;
        float *y = r->y + n * l->out_shape[0];
        memcpy(y, x, numeric * sizeof *y);
        for (uint32_t k = 0; k < l->category_count; k++) {
            memcpy(y + numeric + (size_t)k * l->out,
                   r->theta + table_row(l, k, x[numeric + k]) * l->out, l->out * sizeof *y);
        }
    }
}

/* It is the first layer: nothing flows back to the columns. */
static void embedding_backward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t in = l->in_shape[0], numeric = in - l->category_count;

    for (size_t n = 0; r->grad && n < r->count; n++) {
        for (uint32_t k = 0; k < l->category_count; k++) {
            fl_vec_axpy(1, r->dy + n * l->out_shape[0] + numeric + (size_t)k * l->out,
                        r->grad + table_row(l, k, r->x[n * in + numeric + k]) * l->out, l->out);
        }
    }
}

/* ---- a sequence: the same bytes, read otherwise ---- */

static void sequence_forward(const struct fl_run *r)
{
    memcpy(r->y, r->x, r->count * fl_run_in(r->layer) * sizeof *r->y);
}

static void sequence_backward(const struct fl_run *r)
{
    if (r->dx) {
        memcpy(r->dx, r->dy, r->count * fl_run_in(r->layer) * sizeof *r->dx);
    }
}

/* ---- positions ---- */

/* sin and cos of position / 10000^(2i / width), alternating. */
static void fill_waves(const struct fl_layer *l, float *to)
{
    size_t width = l->in_shape[0];

    for (size_t t = 0; t < l->in_shape[1]; t++) {
        for (size_t c = 0; c < width; c++) {
            double angle = (double)t * pow(10000, -(double)(c - c % 2) / (double)width);
            to[t * width + c] = (float)(c % 2 ? cos(angle) : sin(angle));
        }
    }
}

static void positions_forward(const struct fl_run *r)
{
    const float *add = r->layer->sinusoidal ? r->scratch : r->theta;
    size_t n = fl_run_in(r->layer);

    if (r->layer->sinusoidal) {
        fill_waves(r->layer, r->scratch);
    }
    memcpy(r->y, r->x, r->count * n * sizeof *r->y);
    for (size_t i = 0; i < r->count; i++) {
        fl_vec_axpy(1, add, r->y + i * n, n);
    }
}

static void positions_backward(const struct fl_run *r)
{
    size_t n = fl_run_in(r->layer);

    if (r->grad && !r->layer->sinusoidal) {
        fl_vec_sum_rows(r->dy, r->count, n, r->grad);
    }
    sequence_backward(r);
}

/* ---- layer norm: y = gamma (x - mean) / sqrt(var + 1e-5) + beta, per token ---- */

FL_VECTOR static void norm_row(const float *restrict x, float mean, float rstd,
                               const float *restrict gamma, const float *restrict beta,
                               float *restrict y, size_t width)
{
    for (size_t c = 0; c < width; c++) {
        y[c] = (x[c] - mean) * rstd * gamma[c] + beta[c];
    }
}

static void norm_forward(const struct fl_run *r)
{
    size_t width = r->layer->in_shape[0], rows = r->count * r->layer->in_shape[1];

    for (size_t t = 0; t < rows; t++) {
        const float *x = r->x + t * width;
        float sum = 0, square = 0;
        for (size_t c = 0; c < width; c++) {
            sum += x[c];
        }
        float mean = sum / (float)width;
        for (size_t c = 0; c < width; c++) {
            square += (x[c] - mean) * (x[c] - mean);
        }
        r->kept[2 * t] = mean;
        r->kept[2 * t + 1] = 1 / sqrtf(square / (float)width + 1e-5f);
        norm_row(x, mean, r->kept[2 * t + 1], r->theta, r->theta + width, r->y + t * width, width);
    }
}

FL_VECTOR static void norm_row_grad(const float *restrict x, const float *restrict dy, float mean,
                                    float rstd, float *restrict dgamma, float *restrict dbeta,
                                    size_t width)
{
    for (size_t c = 0; c < width; c++) {
        dgamma[c] += dy[c] * ((x[c] - mean) * rstd);
        dbeta[c] += dy[c];
    }
}

/* dx = rstd (d - mean(d) - h mean(d h)) with h = (x - mean) rstd, d = dy gamma. */
FL_VECTOR static void norm_row_back(const float *restrict x, const float *restrict dy, float mean,
                                    float rstd, const float *restrict gamma, float *restrict dx,
                                    size_t width)
{
    float sum_d = 0, sum_dh = 0;

    for (size_t c = 0; c < width; c++) {
        float d = dy[c] * gamma[c];
        sum_d += d;
        sum_dh += d * ((x[c] - mean) * rstd);
    }
    sum_d /= (float)width;
    sum_dh /= (float)width;
    for (size_t c = 0; c < width; c++) {
        dx[c] = rstd * (dy[c] * gamma[c] - sum_d - (x[c] - mean) * rstd * sum_dh);
    }
}

static void norm_backward(const struct fl_run *r)
{
    size_t width = r->layer->in_shape[0], rows = r->count * r->layer->in_shape[1];

    for (size_t t = 0; t < rows; t++) {
        const float *x = r->x + t * width, *dy = r->dy + t * width;
        float mean = r->kept[2 * t], rstd = r->kept[2 * t + 1];
        if (r->grad) {
            norm_row_grad(x, dy, mean, rstd, r->grad, r->grad + width, width);
        }
        if (r->dx) {
            norm_row_back(x, dy, mean, rstd, r->theta, r->dx + t * width, width);
        }
    }
}

static size_t norm_kept(const struct fl_layer *l)
{
    return 2 * (size_t)l->in_shape[1];
}

/* ---- attention ---- */

struct shape {
    size_t width, length, heads, head; /* head: channels of one */
    const float *in, *in_bias, *out, *out_bias;
    size_t in_at, in_bias_at, out_at, out_bias_at; /* of the tensors */
};

static struct shape shape_of(const struct fl_run *r)
{
    size_t w = r->layer->in_shape[0];
    struct shape s = {.width = w,
                      .length = r->layer->in_shape[1],
                      .heads = r->layer->heads,
                      .head = w / r->layer->heads,
                      .in_bias_at = 3 * w * w,
                      .out_at = 3 * w * w + 3 * w,
                      .out_bias_at = 4 * w * w + 3 * w};

    s.in = r->theta;
    s.in_bias = r->theta + s.in_bias_at;
    s.out = r->theta + s.out_at;
    s.out_bias = r->theta + s.out_bias_at;
    return s;
}

/* What is kept for each example: [Q K V] of every token, P of every head, the heads' outputs. */
static size_t attention_kept(const struct fl_layer *l)
{
    size_t w = l->in_shape[0], t = l->in_shape[1];

    return 3 * t * w + l->heads * t * t + t * w;
}

/* d of [Q K V] and of the heads' outputs for every example; of one P. */
static size_t attention_scratch(const struct fl_layer *l)
{
    size_t w = l->in_shape[0], t = l->in_shape[1];

    return 4 * t * w + t * t;
}

/* In place; the last `causal ? row + 1 : length` scores of a row count. */
static void softmax_rows(float *p, size_t length, bool causal)
{
    for (size_t t = 0; t < length; t++) {
        float *row = p + t * length, top = row[0], sum = 0;
        size_t seen = causal ? t + 1 : length;
        for (size_t k = 1; k < seen; k++) {
            top = row[k] > top ? row[k] : top;
        }
        for (size_t k = 0; k < seen; k++) {
            row[k] = expf(row[k] - top);
            sum += row[k];
        }
        for (size_t k = 0; k < length; k++) {
            row[k] = k < seen ? row[k] / sum : 0;
        }
    }
}

static void attention_forward(const struct fl_run *r)
{
    struct shape s = shape_of(r);
    size_t w = s.width, t = s.length, rows = r->count * t;
    float *qkv = r->kept, *p = qkv + 3 * rows * w, *heads = p + r->count * s.heads * t * t;
    float scale = 1 / sqrtf((float)s.head);

    fl_fill_rows(s.in_bias, rows, 3 * w, qkv);
    fl_blas_gemm(false, true, rows, 3 * w, w, 1, r->x, w, s.in, w, 1, qkv, 3 * w);
    for (size_t n = 0; n < r->count; n++) {
        for (size_t h = 0; h < s.heads; h++) {
            const float *q = qkv + n * t * 3 * w + h * s.head;
            float *one = p + (n * s.heads + h) * t * t;
            fl_blas_gemm(false, true, t, t, s.head, scale, q, 3 * w, q + w, 3 * w, 0, one, t);
            softmax_rows(one, t, r->layer->causal);
            fl_blas_gemm(false, false, t, s.head, t, 1, one, t, q + 2 * w, 3 * w, 0,
                         heads + n * t * w + h * s.head, w);
        }
    }
    fl_fill_rows(s.out_bias, rows, w, r->y);
    fl_blas_gemm(false, true, rows, w, w, 1, heads, w, s.out, w, 1, r->y, w);
}

/* dp becomes the gradient at the scores: P (dp - sum_k P dp). */
static void softmax_back(const float *p, float *dp, size_t length)
{
    for (size_t t = 0; t < length; t++) {
        const float *row = p + t * length;
        float *d = dp + t * length, sum = 0;
        for (size_t k = 0; k < length; k++) {
            sum += row[k] * d[k];
        }
        for (size_t k = 0; k < length; k++) {
            d[k] = row[k] * (d[k] - sum);
        }
    }
}

static void attention_backward(const struct fl_run *r)
{
    struct shape s = shape_of(r);
    size_t w = s.width, t = s.length, rows = r->count * t;
    const float *qkv = r->kept, *p = qkv + 3 * rows * w, *heads = p + r->count * s.heads * t * t;
    float *dqkv = r->scratch, *dheads = dqkv + 3 * rows * w, *dp = dheads + rows * w;
    float scale = 1 / sqrtf((float)s.head);

    if (r->grad) {
        fl_vec_sum_rows(r->dy, rows, w, r->grad + s.out_bias_at);
        fl_blas_gemm(true, false, w, w, rows, 1, r->dy, w, heads, w, 1, r->grad + s.out_at, w);
    }
    fl_blas_gemm(false, false, rows, w, w, 1, r->dy, w, s.out, w, 0, dheads, w);
    for (size_t n = 0; n < r->count; n++) {
        for (size_t h = 0; h < s.heads; h++) {
            size_t at = n * t * 3 * w + h * s.head;
            const float *q = qkv + at, *k = q + w, *v = q + 2 * w;
            const float *one = p + (n * s.heads + h) * t * t;
            const float *dh = dheads + n * t * w + h * s.head;
            fl_blas_gemm(false, true, t, t, s.head, 1, dh, w, v, 3 * w, 0, dp, t);
            fl_blas_gemm(true, false, t, s.head, t, 1, one, t, dh, w, 0, dqkv + at + 2 * w, 3 * w);
            softmax_back(one, dp, t);
            fl_blas_gemm(false, false, t, s.head, t, scale, dp, t, k, 3 * w, 0, dqkv + at, 3 * w);
            fl_blas_gemm(true, false, t, s.head, t, scale, dp, t, q, 3 * w, 0, dqkv + at + w,
                         3 * w);
        }
    }
    if (r->grad) {
        fl_vec_sum_rows(dqkv, rows, 3 * w, r->grad + s.in_bias_at);
        fl_blas_gemm(true, false, 3 * w, w, rows, 1, dqkv, 3 * w, r->x, w, 1, r->grad, w);
    }
    if (r->dx) {
        fl_blas_gemm(false, false, rows, w, 3 * w, 1, dqkv, 3 * w, s.in, w, 0, r->dx, w);
    }
}

const struct fl_runner fl_run_embedding = {embedding_forward, embedding_backward, NULL, NULL};
const struct fl_runner fl_run_sequence = {sequence_forward, sequence_backward, NULL, NULL};
const struct fl_runner fl_run_positions = {positions_forward, positions_backward, NULL, fl_run_in};
const struct fl_runner fl_run_layer_norm = {norm_forward, norm_backward, norm_kept, NULL};
const struct fl_runner fl_run_attention = {attention_forward, attention_backward, attention_kept,
                                           attention_scratch};
