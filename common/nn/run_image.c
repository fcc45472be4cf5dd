/* Activations, average pools, group and batch norm, and dropout: what knows pixels and channels
 * only. */
#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/run.h"

#include <math.h>
#include <string.h>

/* ---- activations ---- */

static void gelu_forward(const struct fl_run *r)
{
    size_t n = r->count * fl_run_in(r->layer);

    for (size_t i = 0; i < n; i++) {
        r->y[i] = 0.5f * r->x[i] * (1 + erff(r->x[i] * (float)M_SQRT1_2));
    }
}

/* d/dx x Phi(x) = Phi(x) + x phi(x) */
static void gelu_backward(const struct fl_run *r)
{
    const float scale = 0.3989422804014327f; /* 1 / sqrt(2 pi) */
    size_t n = r->count * fl_run_in(r->layer);

    for (size_t i = 0; r->dx && i < n; i++) {
        float x = r->x[i], cdf = 0.5f * (1 + erff(x * (float)M_SQRT1_2));
        r->dx[i] = r->dy[i] * (cdf + x * scale * expf(-0.5f * x * x));
    }
}

static void tanh_forward(const struct fl_run *r)
{
    size_t n = r->count * fl_run_in(r->layer);

    for (size_t i = 0; i < n; i++) {
        r->y[i] = tanhf(r->x[i]);
    }
}

/* From x, not y: a ReLU behind it works in place. */
static void tanh_backward(const struct fl_run *r)
{
    size_t n = r->count * fl_run_in(r->layer);

    for (size_t i = 0; r->dx && i < n; i++) {
        float t = tanhf(r->x[i]);
        r->dx[i] = r->dy[i] * (1 - t * t);
    }
}

/* ---- pools ---- */

static void avg_forward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], width = l->in_shape[2], k = l->kernel;
    float *y = r->y, scale = 1 / (float)(k * k);

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * fl_run_in(l);
        for (size_t oy = 0; oy < l->out_shape[1]; oy++) {
            for (size_t ox = 0; ox < l->out_shape[2]; ox++) {
                memset(y, 0, channels * sizeof *y);
                for (size_t at = 0; at < k * k; at++) {
                    fl_vec_axpy(scale, x + ((oy * k + at / k) * width + ox * k + at % k) * channels,
                                y, channels);
                }
                y += channels;
            }
        }
    }
}

static void avg_backward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], width = l->in_shape[2], k = l->kernel;
    const float *dy = r->dy;
    float scale = 1 / (float)(k * k);

    if (!r->dx) {
        return;
    }
    memset(r->dx, 0, r->count * fl_run_in(l) * sizeof *r->dx); /* a ragged edge is in no window */
    for (size_t n = 0; n < r->count; n++) {
        float *dx = r->dx + n * fl_run_in(l);
        for (size_t oy = 0; oy < l->out_shape[1]; oy++) {
            for (size_t ox = 0; ox < l->out_shape[2]; ox++) {
                for (size_t at = 0; at < k * k; at++) {
                    fl_vec_scale(scale, dy,
                                 dx + ((oy * k + at / k) * width + ox * k + at % k) * channels,
                                 channels);
                }
                dy += channels;
            }
        }
    }
}

static void global_forward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], pixels = (size_t)l->in_shape[1] * l->in_shape[2];

    memset(r->y, 0, r->count * channels * sizeof *r->y);
    for (size_t n = 0; n < r->count; n++) {
        float *y = r->y + n * channels;
        fl_vec_sum_rows(r->x + n * pixels * channels, pixels, channels, y);
        fl_vec_scale(1 / (float)pixels, y, y, channels);
    }
}

static void global_backward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], pixels = (size_t)l->in_shape[1] * l->in_shape[2];

    for (size_t n = 0; r->dx && n < r->count; n++) {
        for (size_t p = 0; p < pixels; p++) {
            fl_vec_scale(1 / (float)pixels, r->dy + n * channels,
                         r->dx + (n * pixels + p) * channels, channels);
        }
    }
}

/* ---- group norm: y = gamma (x - mean) / sqrt(var + 1e-5) + beta, per example and group ---- */

enum { NORM_MEAN, NORM_RSTD };

/* Each channel's numbers: all loops over pixels have channels inside, so that they are vector code
 * for groups of any size. */
struct by_channel {
    float *mean, *a, *b, *c;
};

static struct by_channel by_channel_of(const struct fl_run *r)
{
    size_t channels = r->layer->in_shape[0];
    float *at = r->scratch;

    return (struct by_channel){at, at + channels, at + 2 * channels, at + 3 * channels};
}

/* square[c] += (x - mean[c])^2 over all pixels */
FL_VECTOR static void add_squares(const float *restrict x, size_t pixels, size_t channels,
                                  const float *restrict mean, float *restrict square)
{
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            float far = x[p * channels + c] - mean[c];
            square[c] += far * far;
        }
    }
}

/* y = (x - mean) a + b */
FL_VECTOR static void scale_channels(const float *restrict x, size_t pixels, size_t channels,
                                     const float *restrict mean, const float *restrict a,
                                     const float *restrict b, float *restrict y)
{
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            y[p * channels + c] = (x[p * channels + c] - mean[c]) * a[c] + b[c];
        }
    }
}

/* Of each channel: a += dy, b += dy (x - mean). */
FL_VECTOR static void add_products(const float *restrict x, const float *restrict dy, size_t pixels,
                                   size_t channels, const float *restrict mean, float *restrict a,
                                   float *restrict b)
{
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            a[c] += dy[p * channels + c];
            b[c] += dy[p * channels + c] * (x[p * channels + c] - mean[c]);
        }
    }
}

/* dx = dy a - (x - mean) b - c */
FL_VECTOR static void group_back(const float *restrict x, const float *restrict dy, size_t pixels,
                                 size_t channels, const struct by_channel *k, float *restrict dx)
{
    const float *restrict mean = k->mean, *restrict a = k->a, *restrict b = k->b,
                          *restrict last = k->c;

    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            size_t i = p * channels + c;
            dx[i] = dy[i] * a[c] - (x[i] - mean[c]) * b[c] - last[c];
        }
    }
}

/* Sum over the channels of a group, weighted by `w` unless it is NULL. */
static double group_sum(const float *x, const float *w, size_t each)
{
    double sum = 0;

    for (size_t c = 0; c < each; c++) {
        sum += (double)x[c] * (w ? (double)w[c] : 1);
    }
    return sum;
}

static void group_forward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], pixels = (size_t)l->in_shape[1] * l->in_shape[2];
    size_t each = channels / l->groups;
    double all = (double)(each * pixels);
    const float *gamma = r->theta, *beta = r->theta + channels;
    struct by_channel k = by_channel_of(r);

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * pixels * channels;
        float *kept = r->kept + 2 * n * l->groups;
        memset(r->scratch, 0, 4 * channels * sizeof *r->scratch);
        fl_vec_sum_rows(x, pixels, channels, k.b);
        for (size_t c = 0; c < channels; c += each) {
            float mean = (float)(group_sum(k.b + c, NULL, each) / all);
            kept[2 * (c / each) + NORM_MEAN] = mean;
            for (size_t i = c; i < c + each; i++) {
                k.mean[i] = mean;
            }
        }
        add_squares(x, pixels, channels, k.mean, k.c);
        for (size_t c = 0; c < channels; c += each) {
            float rstd = (float)(1 / sqrt(group_sum(k.c + c, NULL, each) / all + 1e-5));
            kept[2 * (c / each) + NORM_RSTD] = rstd;
            for (size_t i = c; i < c + each; i++) {
                k.a[i] = rstd * gamma[i];
            }
        }
        scale_channels(x, pixels, channels, k.mean, k.a, beta, r->y + n * pixels * channels);
    }
}

/* With h = (x - mean) rstd and d = dy gamma:  dx = rstd (d - mean(d) - h mean(d h)). */
static void group_backward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], pixels = (size_t)l->in_shape[1] * l->in_shape[2];
    size_t each = channels / l->groups;
    double all = (double)(each * pixels);
    const float *gamma = r->theta;
    struct by_channel k = by_channel_of(r);

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * pixels * channels, *dy = r->dy + n * pixels * channels;
        const float *kept = r->kept + 2 * n * l->groups;
        memset(r->scratch, 0, 4 * channels * sizeof *r->scratch);
        for (size_t c = 0; c < channels; c++) {
            k.mean[c] = kept[2 * (c / each) + NORM_MEAN];
        }
        add_products(x, dy, pixels, channels, k.mean, k.a, k.b);
        for (size_t c = 0; c < channels; c += each) {
            float rstd = kept[2 * (c / each) + NORM_RSTD];
            float mean_d = (float)(group_sum(k.a + c, gamma + c, each) / all);
            float mean_dh = (float)(group_sum(k.b + c, gamma + c, each) / all) * rstd;
            for (size_t i = c; i < c + each; i++) {
                if (r->grad) {
                    r->grad[i] += k.b[i] * rstd;
                    r->grad[channels + i] += k.a[i];
                }
                k.a[i] = rstd * gamma[i];
                k.b[i] = rstd * rstd * mean_dh;
                k.c[i] = rstd * mean_d;
            }
        }
        if (r->dx) {
            group_back(x, dy, pixels, channels, &k, r->dx + n * pixels * channels);
        }
    }
}

static size_t group_scratch(const struct fl_layer *l)
{
    return 4 * (size_t)l->in_shape[0];
}

static size_t group_kept(const struct fl_layer *l)
{
    return 2 * (size_t)l->groups;
}

/* ---- batch norm: the same over all examples and pixels of a channel ---- */

/* Ioffe & Szegedy 2015 (arXiv 1502.03167), as PyTorch's nn.BatchNorm: momentum 0.1, the running
 * variance from the unbiased one. Running values can come out of noised averages: a variance below
 * 0 counts as 0. */
struct batch_norm {
    struct by_channel k;
    float *rstd, *sum, *running; /* running: mean, then variance */
    bool known;
    size_t channels;
};

static void *batch_norm_open(const struct fl_layer *l)
{
    size_t channels = l->in_shape[0];
    struct batch_norm *s = fl_try(1, sizeof *s);
    float *at = s ? fl_try_aligned(8 * channels, sizeof *at) : NULL;

    if (!at) {
        fl_free(s);
        return NULL;
    }
    s->k = (struct by_channel){at, at + channels, at + 2 * channels, at + 3 * channels};
    s->rstd = at + 4 * channels;
    s->sum = at + 5 * channels;
    s->running = at + 6 * channels;
    s->channels = channels;
    return s;
}

static void batch_norm_close(void *state)
{
    struct batch_norm *s = state;

    if (s) {
        fl_free(s->k.mean);
    }
    fl_free(s);
}

const float *fl_batch_norm_running(const void *state)
{
    const struct batch_norm *s = state;

    return s->known ? s->running : NULL;
}

/* Mean and 1 / std of the batch, and what the running values become. */
static void batch_statistics(struct batch_norm *s, const struct fl_run *r, size_t pixels)
{
    size_t channels = s->channels, values = r->count * pixels;
    const float *old = r->theta + 2 * channels;

    memset(s->sum, 0, channels * sizeof *s->sum);
    fl_vec_sum_rows(r->x, values, channels, s->sum);
    fl_vec_scale(1 / (float)values, s->sum, s->k.mean, channels);
    memset(s->sum, 0, channels * sizeof *s->sum);
    add_squares(r->x, values, channels, s->k.mean, s->sum);
    for (size_t c = 0; c < channels; c++) {
        double variance = (double)s->sum[c] / (double)values;
        double unbiased = values > 1 ? (double)s->sum[c] / (double)(values - 1) : variance;
        s->rstd[c] = (float)(1 / sqrt(variance + 1e-5));
        s->running[c] = 0.9f * old[c] + 0.1f * s->k.mean[c];
        s->running[channels + c] = (float)(0.9 * (double)old[channels + c] + 0.1 * unbiased);
    }
    s->known = true;
}

static void batch_norm_forward(const struct fl_run *r)
{
    struct batch_norm *s = r->state;
    size_t channels = s->channels;
    size_t pixels = (size_t)r->layer->in_shape[1] * r->layer->in_shape[2];

    if (r->learning) {
        batch_statistics(s, r, pixels);
    } else {
        memcpy(s->k.mean, r->theta + 2 * channels, channels * sizeof *s->k.mean);
        for (size_t c = 0; c < channels; c++) {
            s->rstd[c] = 1 / sqrtf(fmaxf(r->theta[3 * channels + c], 0) + 1e-5f);
        }
    }
    for (size_t c = 0; c < channels; c++) {
        s->k.a[c] = s->rstd[c] * r->theta[c];
    }
    scale_channels(r->x, r->count * pixels, channels, s->k.mean, s->k.a, r->theta + channels, r->y);
}

/* dx = rstd gamma (dy - mean(dy) - h mean(dy h)), h = (x - mean) rstd; after a forward that was
 * learning. */
static void batch_norm_backward(const struct fl_run *r)
{
    struct batch_norm *s = r->state;
    size_t channels = s->channels;
    size_t values = r->count * r->layer->in_shape[1] * r->layer->in_shape[2];
    struct by_channel k = s->k;

    memset(k.a, 0, channels * sizeof *k.a);
    memset(k.b, 0, channels * sizeof *k.b);
    add_products(r->x, r->dy, values, channels, k.mean, k.a, k.b);
    for (size_t c = 0; c < channels; c++) {
        float scale = s->rstd[c] * r->theta[c], dh = k.b[c] * s->rstd[c];
        if (r->grad) {
            r->grad[c] += dh;
            r->grad[channels + c] += k.a[c];
        }
        k.b[c] = scale * s->rstd[c] * dh / (float)values;
        k.c[c] = scale * k.a[c] / (float)values;
        k.a[c] = scale;
    }
    if (r->dx) {
        group_back(r->x, r->dy, values, channels, &k, r->dx);
    }
}

/* ---- dropout: what is kept is scaled by 1 / (1 - rate) ---- */

static void dropout_forward(const struct fl_run *r)
{
    size_t n = r->count * fl_run_in(r->layer);
    float scale = 1 / (1 - r->layer->rate);

    for (size_t i = 0; i < n; i++) {
        bool dropped = r->drop && fl_rng_unit(r->drop) < (double)r->layer->rate;
        r->kept[i] = dropped ? 0 : r->drop ? scale : 1;
        r->y[i] = r->x[i] * r->kept[i];
    }
}

static void dropout_backward(const struct fl_run *r)
{
    size_t n = r->count * fl_run_in(r->layer);

    for (size_t i = 0; r->dx && i < n; i++) {
        r->dx[i] = r->dy[i] * r->kept[i];
    }
}

const struct fl_runner fl_run_gelu = {.forward = gelu_forward, .backward = gelu_backward};
const struct fl_runner fl_run_tanh = {.forward = tanh_forward, .backward = tanh_backward};
const struct fl_runner fl_run_avg_pool = {.forward = avg_forward, .backward = avg_backward};
const struct fl_runner fl_run_global_pool = {.forward = global_forward,
                                             .backward = global_backward};
const struct fl_runner fl_run_group_norm = {.forward = group_forward,
                                            .backward = group_backward,
                                            .kept = group_kept,
                                            .scratch = group_scratch};
const struct fl_runner fl_run_dropout = {
    .forward = dropout_forward, .backward = dropout_backward, .kept = fl_run_in, .mixes = true};
const struct fl_runner fl_run_batch_norm = {.forward = batch_norm_forward,
                                            .backward = batch_norm_backward,
                                            .open = batch_norm_open,
                                            .close = batch_norm_close,
                                            .mixes = true};
