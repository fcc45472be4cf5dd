/*
 * What the layers beside conv.c and layers.c compute: one forward and one backward of plain loops
 * each, for model.c. Values are [height, width, channels], tokens of a sequence are its rows, and
 * examples follow each other without gaps.
 */
#ifndef FL_NN_RUN_H
#define FL_NN_RUN_H

#include "common/base/rng.h"
#include "common/nn/spec.h"

struct fl_run {
    const struct fl_layer *layer;
    size_t count;        /* examples */
    const float *theta;  /* the layer's tensors, one after the other */
    const float *turned; /* its matrices transposed, in the same places; NULL: use theta */
    float *grad;         /* likewise, added to; NULL: not wanted */
    const float *x, *dy;
    float *y, *dx;       /* dx NULL: not wanted */
    float *kept;         /* from forward to backward: fl_runner.kept floats an example */
    float *scratch;      /* fl_runner.scratch floats an example */
    struct fl_rng *drop; /* of dropout; NULL: nothing is dropped */
    void *state;         /* of the runner's open */
    bool learning; /* a gradient will be wanted: batch norm takes the statistics of its batch */
};

/* Batch norm's running statistics after the last forward that was learning: mean, then variance, of
 * each channel; NULL: there was none. */
const float *fl_batch_norm_running(const void *state);

/* A matrix in a layer over tokens, and its gradient for one example: g^T a, of what flowed back and
 * what went in at each of the layer's tokens. */
struct fl_factors {
    size_t at, in,
        out; /* weight, out x in, from here on in the layer's tensors; its bias follows */
    const float *a, *g; /* tokens x in, tokens x out */
};
enum { FL_FACTORS_MAX = 2 };

struct fl_runner {
    void (*forward)(const struct fl_run *r);
    void (*backward)(const struct fl_run *r);
    size_t (*kept)(const struct fl_layer *l); /* NULL: nothing */
    size_t (*scratch)(const struct fl_layer *l);
    void *(*open)(const struct fl_layer *l); /* NULL: it has no state; returns NULL: no memory */
    void (*close)(void *state);              /* NULL is fine */
    /* After a backward: the layer's matrices for example `n` of r->count; returns how many. NULL:
     * its tensors are no matrices over tokens. */
    uint32_t (*factors)(const struct fl_run *r, size_t n, struct fl_factors *ret);
    bool mixes; /* what one example gets depends on the others that it runs with */
};

extern const struct fl_runner fl_run_gelu, fl_run_tanh, fl_run_avg_pool, fl_run_global_pool,
    fl_run_group_norm, fl_run_layer_norm, fl_run_dropout, fl_run_embedding, fl_run_sequence,
    fl_run_positions, fl_run_attention, fl_run_grouped, fl_run_first_token, fl_run_scattering,
    fl_run_batch_norm, fl_run_fourier;

static inline size_t fl_run_in(const struct fl_layer *l)
{
    return (size_t)l->in_shape[0] * l->in_shape[1] * l->in_shape[2];
}

static inline size_t fl_run_out(const struct fl_layer *l)
{
    return (size_t)l->out_shape[0] * l->out_shape[1] * l->out_shape[2];
}

#endif
