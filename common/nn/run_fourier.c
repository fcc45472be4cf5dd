/*
 * Random Fourier features (Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines",
 * algorithm 1): z(x) = sqrt(2 / D) cos(W x + b) with W ~ N(0, 1 / bandwidth^2) and b uniform in
 * [0, 2 pi), so that on average z(x) . z(y) = exp(-|x - y|^2 / (2 bandwidth^2)). A linear head on
 * them is a kernel machine.
 *
 * W and b are drawn from the job's seed and the layer's name: the same at every site, and no
 * tensors, so nothing flows back.
 */
#include "common/base/mem.h"
#include "common/nn/kinds.h"
#include "common/nn/layers.h"
#include "common/nn/run.h"

#include <math.h>

void fl_fourier_fill(const struct fl_layer *l, float *weight, float *bias)
{
    size_t in = fl_run_in(l);
    double std = 1 / (l->bandwidth > 0 ? (double)l->bandwidth : sqrt((double)in));
    struct fl_seed job, own;
    struct fl_rng r;

    fl_seed_from_u64(l->seed, &job);
    fl_seed_derive(&job, l->name, 0, &own);
    fl_rng_init(&r, &own, 0);
    for (size_t i = 0; i < in * l->out; i++) {
        weight[i] = (float)(std * fl_rng_normal(&r));
    }
    for (size_t i = 0; i < l->out; i++) {
        bias[i] = (float)(2 * 3.14159265358979323846 * fl_rng_unit(&r));
    }
    fl_rng_fini(&r);
}

static void *fourier_open(const struct fl_layer *l)
{
    size_t in = fl_run_in(l);
    float *w = fl_try_aligned((in + 1) * l->out, sizeof *w);

    if (w) {
        fl_fourier_fill(l, w, w + in * l->out);
    }
    return w;
}

static void fourier_close(void *state)
{
    fl_free(state);
}

static void fourier_forward(const struct fl_run *r)
{
    size_t out = r->layer->out;
    float scale = sqrtf(2 / (float)out);

    fl_linear_forward(r->state, fl_run_in(r->layer), out, r->x, r->count, r->y);
    for (size_t i = 0; i < r->count * out; i++) {
        r->y[i] = scale * cosf(r->y[i]);
    }
}

const struct fl_runner fl_run_fourier = {
    .forward = fourier_forward, .open = fourier_open, .close = fourier_close};
