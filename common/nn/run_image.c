/* Activations, average pools, group norm and dropout: what knows pixels and channels only. */
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

static void group_forward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], pixels = (size_t)l->in_shape[1] * l->in_shape[2];
    size_t each = channels / l->groups, all = each * pixels;
    const float *gamma = r->theta, *beta = r->theta + channels;

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * pixels * channels;
        float *y = r->y + n * pixels * channels, *kept = r->kept + 2 * n * l->groups;
        for (size_t g = 0; g < l->groups; g++) {
            double sum = 0, square = 0;
            for (size_t p = 0; p < pixels; p++) {
                for (size_t c = g * each; c < (g + 1) * each; c++) {
                    sum += (double)x[p * channels + c];
                }
            }
            double mean = sum / (double)all;
            for (size_t p = 0; p < pixels; p++) {
                for (size_t c = g * each; c < (g + 1) * each; c++) {
                    double far = (double)x[p * channels + c] - mean;
                    square += far * far;
                }
            }
            kept[2 * g + NORM_MEAN] = (float)mean;
            kept[2 * g + NORM_RSTD] = (float)(1 / sqrt(square / (double)all + 1e-5));
        }
        for (size_t p = 0; p < pixels; p++) {
            for (size_t c = 0; c < channels; c++) {
                const float *k = kept + 2 * (c / each);
                y[p * channels + c] =
                    (x[p * channels + c] - k[NORM_MEAN]) * k[NORM_RSTD] * gamma[c] + beta[c];
            }
        }
    }
}

/* With h = (x - mean) rstd and d = dy gamma:  dx = rstd (d - mean(d) - h mean(d h)). */
static void group_backward(const struct fl_run *r)
{
    const struct fl_layer *l = r->layer;
    size_t channels = l->in_shape[0], pixels = (size_t)l->in_shape[1] * l->in_shape[2];
    size_t each = channels / l->groups, all = each * pixels;
    const float *gamma = r->theta;

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * pixels * channels, *dy = r->dy + n * pixels * channels;
        for (size_t g = 0; g < l->groups; g++) {
            const float mean = r->kept[2 * (n * l->groups + g) + NORM_MEAN];
            const float rstd = r->kept[2 * (n * l->groups + g) + NORM_RSTD];
            double sum_d = 0, sum_dh = 0;
            for (size_t p = 0; p < pixels; p++) {
                for (size_t c = g * each; c < (g + 1) * each; c++) {
                    float h = (x[p * channels + c] - mean) * rstd, d = dy[p * channels + c];
                    if (r->grad) {
                        r->grad[c] += d * h;
                        r->grad[channels + c] += d;
                    }
                    sum_d += (double)(d * gamma[c]);
                    sum_dh += (double)(d * gamma[c] * h);
                }
            }
            float mean_d = (float)(sum_d / (double)all), mean_dh = (float)(sum_dh / (double)all);
            for (size_t p = 0; r->dx && p < pixels; p++) {
                for (size_t c = g * each; c < (g + 1) * each; c++) {
                    size_t i = p * channels + c;
                    float h = (x[i] - mean) * rstd;
                    r->dx[n * pixels * channels + i] =
                        rstd * (dy[i] * gamma[c] - mean_d - h * mean_dh);
                }
            }
        }
    }
}

static size_t group_kept(const struct fl_layer *l)
{
    return 2 * (size_t)l->groups;
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

const struct fl_runner fl_run_gelu = {gelu_forward, gelu_backward, NULL, NULL};
const struct fl_runner fl_run_tanh = {tanh_forward, tanh_backward, NULL, NULL};
const struct fl_runner fl_run_avg_pool = {avg_forward, avg_backward, NULL, NULL};
const struct fl_runner fl_run_global_pool = {global_forward, global_backward, NULL, NULL};
const struct fl_runner fl_run_group_norm = {group_forward, group_backward, group_kept, NULL};
const struct fl_runner fl_run_dropout = {dropout_forward, dropout_backward, fl_run_in, NULL};
