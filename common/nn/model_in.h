/* A network as operations and the values between them: made by model_build.c, run by model.c;
 * pieces.c has the gradients of single examples. */
#ifndef FL_NN_MODEL_IN_H
#define FL_NN_MODEL_IN_H

#include "common/nn/layers.h"
#include "common/nn/model.h"
#include "common/nn/run.h"

enum { OPS_MAX = 2 * FL_SPEC_LAYERS_MAX }; /* a JOIN may be two */

struct value { /* between two operations */
    size_t count;
    float *at, *d;
    size_t each, d_each; /* floats from an example to the next; 0 = shared */
};

struct op {
    const struct fl_layer *layer;
    enum fl_layer_kind kind; /* the layer's, but CONV2D for what a JOIN puts on the way round */
    uint32_t in, out;        /* numbers of values; the same for a leaky ReLU */
    uint32_t second;         /* of a JOIN: the value that came round the block */
    size_t weight;           /* offset of its tensors in theta */
    size_t bias;             /* of convolutions and linear layers: the bias follows the weight */
    size_t elements;         /* of all its tensors */
    size_t rows;             /* of a linear layer: tokens of one example */
    struct fl_conv conv;
    uint8_t *place;                 /* max-pool: for each example */
    bool single;                    /* runs example by example */
    const struct fl_runner *runner; /* NULL: it is one of those in this file */
    float *kept, *scratch;          /* of the runner */
    void *state;                    /* of the runner too */
    size_t kept_each;
    float *turned; /* matrices of layers over tokens, transposed; see fl_model_set */
    float *own; /* room for one example's gradient of all its tensors; NULL: a linear layer's of a
                   vector, whose factors stand in values */
};

struct fl_model {
    struct fl_spec spec;
    uint32_t shard, ops, values;
    uint32_t batched; /* the first operation that runs for a shard at once */
    uint32_t first;   /* the first one with weights: nothing flows back before it */
    size_t elements;
    const float *theta;
    struct op op[OPS_MAX];
    struct value value[OPS_MAX + 1];
    struct fl_piece piece[OPS_MAX];
    const float *each_x; /* of fl_model_examples */
    const void *each_y;
    size_t each_count;
    bool together;            /* they went forward and back to the images at once */
    const struct fl_tap *tap; /* NULL = none; at the input of operation `tapped` */
    uint32_t tapped;
    struct fl_rng drop; /* of dropout */
    bool drops;
    bool whole;    /* a layer looks at all examples: every operation runs for the shard */
    bool learning; /* this forward is for a gradient */
};

/* `count` <= shard examples. */
void fl_ops_forward(struct fl_model *m, const float *x, size_t count);
/* Losses of the shard's examples, added to sum; d of the last value when weight is not 0. */
void fl_ops_score(struct fl_model *m, const void *y, size_t count, float weight,
                  struct fl_score *sum);
/* Operation `i`, back for `count` examples from number `first` of the shard. own: where the
 * gradient of its tensors is added, NULL: not wanted. (Convolutions have theirs in op.conv.) */
void fl_op_backward(struct fl_model *m, uint32_t i, size_t first, size_t count, float *own);
/* What a runner is given; backward adds the gradients. */
struct fl_run fl_run_of(struct fl_model *m, const struct op *op, size_t first, size_t count);
/* Bytes of one example's target. */
size_t fl_target_bytes(const struct fl_model *m);

#endif
