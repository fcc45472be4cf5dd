/* What the engine knows of each kind of layer before anything runs; for this folder. */
#ifndef FL_NN_KINDS_H
#define FL_NN_KINDS_H

#include "common/nn/spec.h"

/* One tensor of a layer. Rank 2 weights are [out, in], as PyTorch's. */
struct fl_weight {
    const char *suffix;
    uint32_t rank, shape[4], fan_in;
    enum fl_init init;
    bool buffer; /* as of struct fl_tensor */
};

struct fl_kind {
    const char *word;  /* in descriptions */
    const char *label; /* of names that are not given: "conv1" */
    /* Fills out_shape, which comes as a copy of in_shape. Its failures do not name the layer. */
    int (*shape)(struct fl_layer *l, struct fl_err *e);
    /* Its tensors; NULL: it has none. Returns how many. */
    int (*weights)(const struct fl_layer *l, struct fl_weight ret[FL_LAYER_TENSORS_MAX]);
    bool generated; /* a generator can make its tensors: they start around zero */
    bool norm;      /* what FedBN keeps at home */
    bool fixed;     /* features that nobody trains: no layer before it has tensors */
};

/* NULL for a number that is no kind. */
const struct fl_kind *fl_kind_of(enum fl_layer_kind kind);

static inline uint64_t fl_shape_elements(const uint32_t shape[3])
{
    return (uint64_t)shape[0] * shape[1] * shape[2];
}

/* Windows of scattering at a relative scale of 2^scale have 2 radius + 1 pixels a side: 3 standard
 * deviations of 0.8 2^scale. */
static inline uint32_t fl_scattering_radius(uint32_t scale)
{
    return ((12u << scale) + 4) / 5;
}

/* The windows: of the wavelets' real and imaginary parts, 2 for each angle, and a side of phi. */
void fl_scattering_waves(uint32_t angles, uint32_t scale, float *to);
void fl_scattering_gauss(uint32_t scale, float *to);

/* The weights of random Fourier features, out x in, and their phases. */
void fl_fourier_fill(const struct fl_layer *l, float *weight, float *bias);

/* What the JOIN of a residual block puts on the way round the block: a convolution of 1 x 1. */
static inline bool fl_join_projects(const struct fl_layer *l)
{
    return l->kind == FL_LAYER_JOIN && l->out > 0;
}

#endif
