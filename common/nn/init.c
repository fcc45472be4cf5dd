/*
 * Initial values.
 *
 * A layer of the network starts as PyTorch's does: weights and biases uniform within
 * 1/sqrt(fan_in); norms as ones and zeros; spec.h names the others. A generator's hidden layer
 * likewise. Its heads are drawn in one of two ways. With f = relu(M v + m), v ~ N(0,1)^E and M, m
 * uniform within 1/sqrt(E), each hidden unit has E[f^2] = (1 + 1/E) / 6; a head whose entries
 * (weights and bias) have variance w^2 then generates values of variance
 *
 *     w^2 (H (1 + 1/E) / 6 + 1)
 *
 * published: w^2 = 1/(3 H), a linear layer's start, which is far too large for layers with a large
 * fan-in (theta has standard deviation 0.24 everywhere). scaled: w such that theta has the 1/sqrt(3
 * fan_in) of the layer it fills. A Kronecker head is a product of two factors of variance w each; a
 * chunked generator has one head for every place, so it is drawn for unit variance and theta
 * multiplied by the constant 1/sqrt(3 fan_in) instead (common/nn/param/chunked.c).
 *
 * Each tensor has a stream of its own, so adding a tensor does not change the others. Uniform
 * values are exact functions of the stream; normal ones pass through libm once and are rounded to
 * float.
 */
#include "common/nn/spec.h"

#include <math.h>
#include <string.h>

static void fill_uniform(const struct fl_seed *seed, const struct fl_tensor *t, double bound,
                         float *to)
{
    struct fl_seed own;
    struct fl_rng r;

    fl_seed_derive(seed, t->name, 0, &own);
    fl_rng_init(&r, &own, 0);
    for (size_t i = 0; i < t->count; i++) {
        to[t->offset + i] = (float)((2 * fl_rng_unit(&r) - 1) * bound);
    }
    fl_rng_fini(&r);
}

static void fill_normal(const struct fl_seed *seed, const struct fl_tensor *t, double std,
                        float *to)
{
    struct fl_seed own;
    struct fl_rng r;

    fl_seed_derive(seed, t->name, 0, &own);
    fl_rng_init(&r, &own, 0);
    for (size_t i = 0; i < t->count; i++) {
        to[t->offset + i] = (float)(std * fl_rng_normal(&r));
    }
    fl_rng_fini(&r);
}

/* One of the network's own tensors. */
static void fill_layer(const struct fl_seed *seed, const struct fl_tensor *t, float *to)
{
    switch (t->init) {
    case FL_INIT_FAN_IN:
        fill_uniform(seed, t, 1 / sqrt(t->fan_in), to);
        break;
    case FL_INIT_ZERO:
    case FL_INIT_ONE:
        for (size_t i = 0; i < t->count; i++) {
            to[t->offset + i] = t->init == FL_INIT_ONE;
        }
        break;
    case FL_INIT_NORMAL:
        fill_normal(seed, t, 1, to);
        break;
    case FL_INIT_SMALL:
        fill_normal(seed, t, 0.02, to);
        break;
    case FL_INIT_XAVIER:
        fill_uniform(seed, t, sqrt(6 / (4.0 * t->fan_in)), to);
        break;
    case FL_INIT_UNIFORM:
        fill_uniform(seed, t, (double)t->spread, to);
        break;
    case FL_INIT_GAUSS:
        fill_normal(seed, t, (double)t->spread, to);
        break;
    }
}

/* Standard deviation of a head's entries. */
static double head_std(const struct fl_generator_conf *g, double fan_in)
{
    double inputs = g->kind == FL_GENERATOR_CHUNKED ? 2.0 * g->embedding : g->embedding;

    if (!g->scaled) {
        return 1 / sqrt(3.0 * g->hidden);
    }
    double target = g->kind == FL_GENERATOR_CHUNKED ? 1 : 1 / sqrt(3 * fan_in);
    return target / sqrt(g->hidden * (1 + 1 / inputs) / 6 + 1);
}

static void init_generator(const struct fl_layout *layout, const struct fl_seed *seed,
                           const struct fl_tensor *t, float *shared)
{
    const struct fl_generator_conf *g = &layout->generator;
    double bound = head_std(g, t->fan_in) * sqrt(3);

    if (strcmp(t->name, "hyper.chunks") == 0) {
        fill_normal(seed, t, 1, shared);
        return;
    }
    /* hidden weight, chunk columns if any, hidden bias come first among the generator's tensors. */
    const struct fl_tensor *first = &layout->shared.at[layout->own];
    if (t - first < (g->kind == FL_GENERATOR_CHUNKED ? 3 : 2)) {
        double inputs = g->kind == FL_GENERATOR_CHUNKED ? 2.0 * g->embedding : g->embedding;
        bound = 1 / sqrt(inputs);
    } else if (g->kind == FL_GENERATOR_KRONECKER) {
        bound = sqrt(3 * head_std(g, t->fan_in));
    }
    fill_uniform(seed, t, bound, shared);
}

void fl_layout_init_shared(const struct fl_layout *layout, const struct fl_seed *job_seed,
                           float *shared)
{
    for (uint32_t i = 0; i < layout->shared.count; i++) {
        const struct fl_tensor *t = &layout->shared.at[i];
        if (strncmp(t->name, "hyper.", 6) == 0) {
            init_generator(layout, job_seed, t, shared);
        } else {
            fill_layer(job_seed, t, shared);
        }
    }
}

void fl_layout_init_private(const struct fl_layout *layout, const struct fl_seed *job_seed,
                            const struct fl_seed *agent_seed, float *private_)
{
    const struct fl_generator_conf *g = &layout->generator;
    const struct fl_seed *seed = g->kind != FL_GENERATOR_NONE && !g->scaled ? job_seed : agent_seed;

    for (uint32_t i = 0; i < layout->private_.count; i++) {
        const struct fl_tensor *t = &layout->private_.at[i];
        if (strcmp(t->name, "embedding") == 0) {
            fill_normal(seed, t, 1, private_);
        } else {
            fill_layer(t->part || t->fixed ? job_seed : seed, t, private_);
        }
    }
}
