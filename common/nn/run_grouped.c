/*
 * Convolution in groups: channels are cut into groups, each seen by its own kernels only (one
 * channel a group: depthwise). The products are too thin for a matrix kernel, so it is plain loops
 * over what a pixel's window holds, in the order of the image in memory, with the weights turned to
 * [window, channel of the group, out]: the inner loop runs over outputs, or over channels when each
 * has a group of its own.
 */
#include "common/math/vec.h"
#include "common/nn/layers.h"
#include "common/nn/run.h"

#include <string.h>

struct grouped {
    size_t height, width, channels, out, kernel, stride, padding, out_height, out_width;
    size_t groups, in, each; /* channels and outputs of one group */
    size_t patch;            /* kernel * kernel * in */
};

static struct grouped grouped_of(const struct fl_layer *l)
{
    struct grouped g = {.height = l->in_shape[1],
                        .width = l->in_shape[2],
                        .channels = l->in_shape[0],
                        .out = l->out,
                        .kernel = l->kernel,
                        .stride = l->stride,
                        .padding = l->padding,
                        .out_height = l->out_shape[1],
                        .out_width = l->out_shape[2],
                        .groups = l->groups};

    g.in = g.channels / g.groups;
    g.each = g.out / g.groups;
    g.patch = g.kernel * g.kernel * g.in;
    return g;
}

/* Weights, and room for their gradient. */
static size_t grouped_scratch(const struct fl_layer *l)
{
    struct grouped g = grouped_of(l);

    return 2 * g.patch * g.out;
}

/* [out, channel of the group, window] <-> [window, channel of the group, out] */
static void turn_in(const struct grouped *g, const float *weight, float *to)
{
    size_t window = g->kernel * g->kernel;

    for (size_t o = 0; o < g->out; o++) {
        for (size_t i = 0; i < g->in; i++) {
            for (size_t k = 0; k < window; k++) {
                to[(k * g->in + i) * g->out + o] = weight[(o * g->in + i) * window + k];
            }
        }
    }
}

static void add_turned(const struct grouped *g, const float *from, float *grad)
{
    size_t window = g->kernel * g->kernel;

    for (size_t o = 0; o < g->out; o++) {
        for (size_t i = 0; i < g->in; i++) {
            for (size_t k = 0; k < window; k++) {
                grad[(o * g->in + i) * window + k] += from[(k * g->in + i) * g->out + o];
            }
        }
    }
}

/* One place of the window at one output pixel: x its channels, w its weights. */
FL_VECTOR static void tap(const struct grouped *g, const float *restrict x, const float *restrict w,
                          float *restrict y)
{
    if (g->in == 1 && g->each == 1) {
        for (size_t c = 0; c < g->channels; c++) {
            y[c] += x[c] * w[c];
        }
        return;
    }
    for (size_t b = 0; b < g->groups; b++) {
        for (size_t i = 0; i < g->in; i++) {
            const float a = x[b * g->in + i], *row = w + i * g->out + b * g->each;
            for (size_t o = 0; o < g->each; o++) {
                y[b * g->each + o] += a * row[o];
            }
        }
    }
}

/* dx may be NULL. */
FL_VECTOR static void tap_back(const struct grouped *g, const float *restrict x,
                               const float *restrict w, const float *restrict dy,
                               float *restrict dw, float *restrict dx)
{
    for (size_t b = 0; b < g->groups; b++) {
        const float *d = dy + b * g->each;
        for (size_t i = 0; i < g->in; i++) {
            const float a = x[b * g->in + i], *row = w + i * g->out + b * g->each;
            float *to = dw + i * g->out + b * g->each, sum = 0;
            for (size_t o = 0; o < g->each; o++) {
                to[o] += a * d[o];
                sum += row[o] * d[o];
            }
            if (dx) {
                dx[b * g->in + i] += sum;
            }
        }
    }
}

/* The offset of the pixel that place k of the window at output (oy, ox) looks at; false: padding.
 */
static bool looks_at(const struct grouped *g, size_t oy, size_t ox, size_t k, size_t *ret)
{
    size_t y = oy * g->stride + k / g->kernel, x = ox * g->stride + k % g->kernel;

    if (y < g->padding || x < g->padding || y - g->padding >= g->height ||
        x - g->padding >= g->width) {
        return false;
    }
    *ret = ((y - g->padding) * g->width + x - g->padding) * g->channels;
    return true;
}

static void grouped_forward(const struct fl_run *r)
{
    struct grouped g = grouped_of(r->layer);
    size_t window = g.kernel * g.kernel, pixels = g.out_height * g.out_width, at;

    turn_in(&g, r->theta, r->scratch);
    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * fl_run_in(r->layer);
        float *y = r->y + n * fl_run_out(r->layer);
        fl_fill_rows(r->theta + g.patch * g.out, pixels, g.out, y);
        for (size_t p = 0; p < pixels; p++) {
            for (size_t k = 0; k < window; k++) {
                if (looks_at(&g, p / g.out_width, p % g.out_width, k, &at)) {
                    tap(&g, x + at, r->scratch + k * g.in * g.out, y + p * g.out);
                }
            }
        }
    }
}

static void grouped_backward(const struct fl_run *r)
{
    struct grouped g = grouped_of(r->layer);
    size_t window = g.kernel * g.kernel, pixels = g.out_height * g.out_width, at;
    float *weight = r->scratch, *dweight = weight + g.patch * g.out;

    turn_in(&g, r->theta, weight);
    memset(dweight, 0, g.patch * g.out * sizeof *dweight);
    if (r->dx) {
        memset(r->dx, 0, r->count * fl_run_in(r->layer) * sizeof *r->dx);
    }
    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * fl_run_in(r->layer), *dy = r->dy + n * fl_run_out(r->layer);
        float *dx = r->dx ? r->dx + n * fl_run_in(r->layer) : NULL;
        for (size_t p = 0; p < pixels; p++) {
            for (size_t k = 0; k < window; k++) {
                if (looks_at(&g, p / g.out_width, p % g.out_width, k, &at)) {
                    tap_back(&g, x + at, weight + k * g.in * g.out, dy + p * g.out,
                             dweight + k * g.in * g.out, dx ? dx + at : NULL);
                }
            }
        }
        if (r->grad) {
            fl_vec_sum_rows(dy, pixels, g.out, r->grad + g.patch * g.out);
        }
    }
    if (r->grad) {
        add_turned(&g, dweight, r->grad);
    }
}

const struct fl_runner fl_run_grouped = {
    .forward = grouped_forward, .backward = grouped_backward, .scratch = grouped_scratch};
