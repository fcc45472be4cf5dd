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
#include "common/math/tile.h"
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

/* ---- the first token ---- */

static void first_forward(const struct fl_run *r)
{
    size_t width = r->layer->in_shape[0], all = fl_run_in(r->layer);

    for (size_t n = 0; n < r->count; n++) {
        memcpy(r->y + n * width, r->x + n * all, width * sizeof *r->y);
    }
}

static void first_backward(const struct fl_run *r)
{
    size_t width = r->layer->in_shape[0], all = fl_run_in(r->layer);

    for (size_t n = 0; r->dx && n < r->count; n++) {
        memcpy(r->dx + n * all, r->dy + n * width, width * sizeof *r->dx);
        memset(r->dx + n * all + width, 0, (all - width) * sizeof *r->dx);
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

/* Sums in 16 lanes, added up in a fixed order: the compiler may not reorder a plain sum. */
enum { LANES = 16 };

static inline float add_lanes(const float lane[LANES])
{
    float four[4];

    for (size_t i = 0; i < 4; i++) {
        four[i] = (lane[i] + lane[i + 4]) + (lane[i + 8] + lane[i + 12]);
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
}

static inline float sum_of(const float *x, size_t count)
{
    float lane[LANES] = {0}, rest = 0;
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            lane[k] += x[i + k];
        }
    }
    for (; i < count; i++) {
        rest += x[i];
    }
    return add_lanes(lane) + rest;
}

/* Sum of (x - shift) (y - shift_y). */
static inline float product_of(const float *x, float shift, const float *y, float shift_y,
                               size_t count)
{
    float lane[LANES] = {0}, rest = 0;
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            lane[k] += (x[i + k] - shift) * (y[i + k] - shift_y);
        }
    }
    for (; i < count; i++) {
        rest += (x[i] - shift) * (y[i] - shift_y);
    }
    return add_lanes(lane) + rest;
}

FL_VECTOR static void norm_rows(const float *restrict all, size_t rows, size_t width,
                                const float *restrict gamma, const float *restrict beta,
                                float *restrict kept, float *restrict to)
{
    for (size_t t = 0; t < rows; t++) {
        const float *x = all + t * width;
        float *y = to + t * width;
        float mean = sum_of(x, width) / (float)width;
        float rstd = 1 / sqrtf(product_of(x, mean, x, mean, width) / (float)width + 1e-5f);
        kept[2 * t] = mean;
        kept[2 * t + 1] = rstd;
        for (size_t c = 0; c < width; c++) {
            y[c] = (x[c] - mean) * rstd * gamma[c] + beta[c];
        }
    }
}

static void norm_forward(const struct fl_run *r)
{
    size_t width = r->layer->in_shape[0], rows = r->count * r->layer->in_shape[1];

    norm_rows(r->x, rows, width, r->theta, r->theta + width, r->kept, r->y);
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

/* dx = rstd (d - mean(d) - h mean(d h)) with h = (x - mean) rstd, d = dy gamma, which dx holds
 * meanwhile. */
FL_VECTOR static void norm_row_back(const float *restrict x, const float *restrict dy, float mean,
                                    float rstd, const float *restrict gamma, float *restrict dx,
                                    size_t width)
{
    for (size_t c = 0; c < width; c++) {
        dx[c] = dy[c] * gamma[c];
    }
    float sum_d = sum_of(dx, width) / (float)width;
    float sum_dh = product_of(x, mean, dx, 0, width) * rstd / (float)width;
    for (size_t c = 0; c < width; c++) {
        dx[c] = rstd * (dx[c] - sum_d - (x[c] - mean) * rstd * sum_dh);
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
    const float *in, *out;             /* weights, their biases behind them */
    size_t out_at;                     /* of the second one in theta */
};

static struct shape shape_of(const struct fl_run *r)
{
    size_t w = r->layer->in_shape[0];
    struct shape s = {.width = w,
                      .length = r->layer->in_shape[1],
                      .heads = r->layer->heads,
                      .head = w / r->layer->heads,
                      .out_at = 3 * w * w + 3 * w};

    s.in = r->theta;
    s.out = r->theta + s.out_at;
    return s;
}

/* What is kept for each example: [Q K V] of every token, P of every head, the heads' outputs. */
static size_t attention_kept(const struct fl_layer *l)
{
    size_t w = l->in_shape[0], t = l->in_shape[1];

    return 3 * t * w + l->heads * t * t + t * w;
}

/* d of [Q K V] and of the heads' outputs for every example; of one P; one head turned. */
static size_t attention_scratch(const struct fl_layer *l)
{
    size_t w = l->in_shape[0], t = l->in_shape[1];

    return 4 * t * w + t * t + t * (w / l->heads);
}

/* exp(x) of x <= 0, within 2 units in the last place; 0 for what would not be a normal number.
 * Cephes' polynomial on [-ln 2 / 2, ln 2 / 2]. NaN stays NaN. */
static inline float exp_of(float x)
{
    float at = x < -87 ? -87 : x, shifted = at * 1.44269504f + 12582912.0f, scale;
    float k = shifted - 12582912.0f;
    float r = (at - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    uint32_t bits;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    memcpy(&scale, &bits, sizeof scale);
    return x < -87 ? 0 : p * scale;
}

static inline float top_of(const float *x, size_t count)
{
    float lane[LANES], top = x[0];
    size_t i = 0;

    for (size_t k = 0; k < LANES; k++) {
        lane[k] = x[0];
    }
    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            lane[k] = x[i + k] > lane[k] ? x[i + k] : lane[k];
        }
    }
    for (; i < count; i++) {
        top = x[i] > top ? x[i] : top;
    }
    for (size_t k = 0; k < LANES; k++) {
        top = lane[k] > top ? lane[k] : top;
    }
    return top;
}

/* In place; `causal`: token t sees those up to itself. */
FL_VECTOR static void softmax_rows(float *p, size_t length, float scale, bool causal)
{
    for (size_t t = 0; t < length; t++) {
        float *row = p + t * length;
        size_t seen = causal ? t + 1 : length;
        float top = top_of(row, seen);
        for (size_t k = 0; k < seen; k++) {
            row[k] = exp_of(scale * (row[k] - top));
        }
        float part = 1 / sum_of(row, seen);
        for (size_t k = 0; k < seen; k++) {
            row[k] *= part;
        }
        memset(row + seen, 0, (length - seen) * sizeof *row);
    }
}

/* Products of one head: register tiles where the machine has them, OpenBLAS elsewhere. C = A B, A
 * B^T, A^T B. */
static void times_nn(struct fl_tile t, const float *a, const float *b, float *c)
{
    if (fl_tile_fast()) {
        fl_tile_nn(&t, a, b, NULL, c);
    } else {
        fl_blas_gemm(false, false, t.m, t.n, t.k, 1, a, t.lda, b, t.ldb, 0, c, t.ldc);
    }
}

/* `room`: n x k floats. Tiles want B turned: dot products of so few elements are slow. */
static void times_nt(struct fl_tile t, const float *a, const float *b, float *room, float *c)
{
    if (fl_tile_fast()) {
        for (size_t i = 0; i < t.n; i++) {
            for (size_t k = 0; k < t.k; k++) {
                room[k * t.n + i] = b[i * t.ldb + k];
            }
        }
        t.ldb = t.n;
        fl_tile_nn(&t, a, room, NULL, c);
    } else {
        fl_blas_gemm(false, true, t.m, t.n, t.k, 1, a, t.lda, b, t.ldb, 0, c, t.ldc);
    }
}

static void times_tn(struct fl_tile t, const float *a, const float *b, float *c)
{
    if (fl_tile_fast()) {
        fl_tile_tn(&t, a, b, false, c);
    } else {
        fl_blas_gemm(true, false, t.m, t.n, t.k, 1, a, t.lda, b, t.ldb, 0, c, t.ldc);
    }
}

static struct fl_tile tile(size_t m, size_t n, size_t k, size_t lda, size_t ldb, size_t ldc)
{
    return (struct fl_tile){
        .m = m, .n = n, .k = k, .segments = 1, .lda = lda, .ldb = ldb, .ldc = ldc};
}

static void attention_forward(const struct fl_run *r)
{
    struct shape s = shape_of(r);
    size_t w = s.width, t = s.length, rows = r->count * t;
    float *qkv = r->kept, *p = qkv + 3 * rows * w, *heads = p + r->count * s.heads * t * t;
    float scale = 1 / sqrtf((float)s.head);

    fl_linear_tokens(s.in, r->turned, w, 3 * w, r->x, rows, qkv);
    for (size_t n = 0; n < r->count; n++) {
        for (size_t h = 0; h < s.heads; h++) {
            const float *q = qkv + n * t * 3 * w + h * s.head;
            float *one = p + (n * s.heads + h) * t * t;
            times_nt(tile(t, t, s.head, 3 * w, 3 * w, t), q, q + w, r->scratch, one);
            softmax_rows(one, t, scale, r->layer->causal);
            times_nn(tile(t, s.head, t, t, 3 * w, w), one, q + 2 * w,
                     heads + n * t * w + h * s.head);
        }
    }
    fl_linear_tokens(s.out, r->turned ? r->turned + s.out_at : NULL, w, w, heads, rows, r->y);
}

/* dp becomes the gradient at the products Q K^T: scale P (dp - sum_k P dp). */
FL_VECTOR static void softmax_back(const float *restrict p, float *restrict dp, size_t length,
                                   float scale)
{
    for (size_t t = 0; t < length; t++) {
        const float *row = p + t * length;
        float *d = dp + t * length, sum = product_of(row, 0, d, 0, length);
        for (size_t k = 0; k < length; k++) {
            d[k] = scale * row[k] * (d[k] - sum);
        }
    }
}

static void attention_backward(const struct fl_run *r)
{
    struct shape s = shape_of(r);
    size_t w = s.width, t = s.length, rows = r->count * t;
    const float *qkv = r->kept, *p = qkv + 3 * rows * w, *heads = p + r->count * s.heads * t * t;
    float *dqkv = r->scratch, *dheads = dqkv + 3 * rows * w, *dp = dheads + rows * w;
    float *room = dp + t * t;
    float scale = 1 / sqrtf((float)s.head);

    fl_linear_backward(s.out, w, w, heads, r->dy, rows, r->grad ? r->grad + s.out_at : NULL,
                       dheads);
    for (size_t n = 0; n < r->count; n++) {
        for (size_t h = 0; h < s.heads; h++) {
            size_t at = n * t * 3 * w + h * s.head;
            const float *q = qkv + at, *k = q + w, *v = q + 2 * w;
            const float *one = p + (n * s.heads + h) * t * t;
            const float *dh = dheads + n * t * w + h * s.head;
            times_nt(tile(t, t, s.head, w, 3 * w, t), dh, v, room, dp);
            times_tn(tile(t, s.head, t, t, w, 3 * w), one, dh, dqkv + at + 2 * w);
            softmax_back(one, dp, t, scale);
            times_nn(tile(t, s.head, t, t, 3 * w, 3 * w), dp, k, dqkv + at);
            times_tn(tile(t, s.head, t, t, 3 * w, 3 * w), dp, q, dqkv + at + w);
        }
    }
    fl_linear_backward(s.in, w, 3 * w, r->x, dqkv, rows, r->grad, r->dx);
}

static uint32_t attention_factors(const struct fl_run *r, size_t n, struct fl_factors *ret)
{
    struct shape s = shape_of(r);
    size_t w = s.width, t = s.length, rows = r->count * t;
    const float *heads = r->kept + 3 * rows * w + r->count * s.heads * t * t;

    ret[0] = (struct fl_factors){0, w, 3 * w, r->x + n * t * w, r->scratch + n * t * 3 * w};
    ret[1] = (struct fl_factors){s.out_at, w, w, heads + n * t * w, r->dy + n * t * w};
    return 2;
}

const struct fl_runner fl_run_embedding = {.forward = embedding_forward,
                                           .backward = embedding_backward};
const struct fl_runner fl_run_sequence = {.forward = sequence_forward,
                                          .backward = sequence_backward};
const struct fl_runner fl_run_first_token = {.forward = first_forward, .backward = first_backward};
const struct fl_runner fl_run_positions = {
    .forward = positions_forward, .backward = positions_backward, .scratch = fl_run_in};
const struct fl_runner fl_run_layer_norm = {
    .forward = norm_forward, .backward = norm_backward, .kept = norm_kept};
const struct fl_runner fl_run_attention = {.forward = attention_forward,
                                           .backward = attention_backward,
                                           .kept = attention_kept,
                                           .factors = attention_factors,
                                           .scratch = attention_scratch};
