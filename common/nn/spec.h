/*
 * What a network is, before anything runs: its layers with shapes checked, its tensors with names,
 * groups and places. The coordinator uses this to know what travels; the agent to train. No weights
 * here.
 *
 * A network is a chain of layers over one example of shape [channels, height, width] (or [features,
 * 1, 1]). A sequence is [width, length, 1]: one column of `length` tokens with `width` channels
 * each. A residual block is a FORK, the layers of the block, and a JOIN that adds what the FORK got
 * to what the block made. Every tensor belongs to a visibility group (ARCHITECTURE.md, "Parameters
 * have a visibility"):
 *
 *   FL_GROUP_SHARED     travels and is aggregated
 *   FL_GROUP_GENERATED  made from shared and private tensors by a generator; never stored, never
 *                       sent
 *   FL_GROUP_PRIVATE    stays home
 */
#ifndef FL_NN_SPEC_H
#define FL_NN_SPEC_H

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/nn/loss.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_SPEC_LAYERS_MAX = 128,
    FL_SPEC_TENSORS_MAX = 512,
    FL_SPEC_NAME_MAX = 64,
    FL_SPEC_CATEGORIES_MAX = 32,
    FL_LAYER_TENSORS_MAX = 4,
    FL_SCATTERING_SCALES_MAX = 5,
    FL_SCATTERING_ANGLES_MAX = 16,
};

enum fl_layer_kind {
    FL_LAYER_CONV2D,     /* out, kernel, stride, padding; square kernels */
    FL_LAYER_MAX_POOL,   /* kernel (= stride) */
    FL_LAYER_LINEAR,     /* out; of a vector, or of each token of a sequence */
    FL_LAYER_LEAKY_RELU, /* slope; 0 = ReLU */
    FL_LAYER_FLATTEN,    /* to a vector, in the order [channels, height, width] */
    FL_LAYER_GELU,       /* x Phi(x), exact */
    FL_LAYER_TANH,
    FL_LAYER_AVG_POOL,    /* kernel (= stride) */
    FL_LAYER_GLOBAL_POOL, /* mean over height and width (or tokens) */
    FL_LAYER_GROUP_NORM,  /* groups of channels, over height and width */
    FL_LAYER_LAYER_NORM,  /* over the channels of a vector, or of each token */
    FL_LAYER_DROPOUT,     /* rate; only where fl_model_dropout was called */
    FL_LAYER_EMBEDDING, /* the last columns of a vector are categories; each becomes `out` values */
    FL_LAYER_SEQUENCE,  /* [1, length, width] read as a sequence of `length` tokens */
    FL_LAYER_POSITIONS, /* adds one learned vector to each token; sinusoidal: fixed ones */
    FL_LAYER_ATTENTION, /* multi-head self-attention: heads, causal */
    FL_LAYER_FORK,      /* a residual block begins */
    FL_LAYER_JOIN,      /* and ends; out, stride: the way round it is a convolution of 1 x 1 */
    FL_LAYER_GROUPED,   /* conv2d with groups above 1, which divide channels and out */
    FL_LAYER_FIRST_TOKEN, /* of a sequence: a vector */
    FL_LAYER_SCATTERING,  /* fixed: scales, angles, order, root */
    FL_LAYER_BATCH_NORM,  /* over a batch's examples and pixels; keeps running statistics */
    FL_LAYER_FOURIER,     /* fixed: out, bandwidth; drawn from the job's seed */
    FL_LAYER_KINDS
};

/* How the matrices of a layer are made of shared and private parts, where the strategy's word is
 * not all there is to say: a rule of the job (model.parameters). common/nn/param/README.md has a
 * table. Vectors (biases, norms) of such a layer travel as they are; under FROZEN they are frozen
 * too. */
enum fl_make_kind {
    FL_MAKE_STRATEGY, /* no rule: as the strategy's word says */
    FL_MAKE_PLAIN,    /* travels as it is */
    FL_MAKE_FROZEN,   /* never trained, never sent: from the job's seed, or a file (model.base) */
    FL_MAKE_LOW_RANK, /* base + up down, factors shared */
    FL_MAKE_ADAPTER,  /* base + up down, factors private */
    FL_MAKE_SPARSE_RANK, /* base + up diag(mix) down, factors shared, mix private and sparse */
    FL_MAKE_ATOMS,       /* sum of shared atoms, weighted by a private mix */
    FL_MAKE_HASHED,      /* every element is one of few shared values, times a sign and a scale */
    FL_MAKE_TIED,   /* one shared base for all layers of the rule, and shared factors for each */
    FL_MAKE_NESTED, /* a weak site trains the first units only */
    FL_MAKE_KINDS
};

enum fl_make_base { FL_BASE_NONE, FL_BASE_SHARED, FL_BASE_FROZEN };

struct fl_make {
    enum fl_make_kind kind;
    uint32_t rule;          /* layers of one rule share their base, atoms or memory; 0 = no rule */
    uint32_t rank;          /* low_rank, adapter, sparse_rank, tied (0 = tied without relaxation) */
    uint32_t atoms;         /* atoms: how many of one shape */
    uint32_t ratio;         /* hashed: elements for each stored value */
    enum fl_make_base base; /* low_rank, adapter, sparse_rank */
    float sparsity;         /* sparse_rank: L1 weight on the mix */
    bool columns_only;      /* nested: set by fl_layout_init in the layer after a nested one */
    unsigned line;          /* of the rule, for messages; 0 = unknown */
};

struct fl_layer {
    enum fl_layer_kind kind;
    char name[FL_SPEC_NAME_MAX]; /* given or "conv1", "fc2": kind and running number of its kind */
    uint32_t out, kernel, stride, padding, groups, heads;
    uint32_t scales, angles, order;
    float slope, rate, bandwidth;
    bool causal, sinusoidal, root;
    uint32_t category_count, categories[FL_SPEC_CATEGORIES_MAX];
    struct fl_make make; /* kind 0 = as the strategy says */
    unsigned line;       /* in the description, for messages; 0 = unknown */
    /* set by fl_spec_check */
    uint32_t in_shape[3], out_shape[3];
    uint64_t seed;         /* of the spec */
    uint32_t fork, around; /* of a JOIN: the number of its FORK, and the channels that it got */
    int weight, tensors;   /* its first tensor in the network's order, -1 = none; how many follow */
};

struct fl_spec {
    uint32_t input[3];
    struct fl_loss loss;
    uint32_t classes; /* 0: the targets are numbers */
    uint32_t targets; /* numbers of one target */
    float ridge;      /* > 0: the last layer, the only one with tensors, is solved with this lambda
                         (ridge.h) instead of trained */
    bool logistic;    /* with ridge: as logistic regression */
    uint64_t seed;    /* the job's: what fixed layers are drawn from */
    uint32_t head;    /* how many of the last layers with weights are the head (FedRep, HyperFL) */
    uint32_t layer_count;
    struct fl_layer layers[FL_SPEC_LAYERS_MAX];
};

/* Fills names and shapes; refuses what does not fit together, naming the layer and its line
 * (-FL_R_PLAN_MODEL). Bounds: no activation and no tensor above 2^26 elements. */
int fl_spec_check(struct fl_spec *spec, struct fl_err *e);
/* The same for the first layers of a network that is still being written down: names and shapes
 * only, nothing about how it must end. */
int fl_spec_flow(struct fl_spec *spec, struct fl_err *e);

/* Layers that have tensors: what `head` counts. The spec has been checked. */
uint32_t fl_spec_weighted(const struct fl_spec *spec);
/* Outputs that its loss wants of the last layer. */
uint32_t fl_spec_outputs(const struct fl_spec *spec);
/* The number of the layer where the head begins (layer_count when there is none). */
uint32_t fl_spec_head(const struct fl_spec *spec);
/* How many of the first layers make the same of an example every time: those before the first with
 * tensors, a dropout, or a residual block. 0 when none of them is a kind of fixed features, whose
 * outputs are worth keeping. */
uint32_t fl_spec_fixed(const struct fl_spec *spec);
/* Whether a layer looks at the examples of a batch together, so that what one of them contributes
 * depends on the others; the first such layer, or NULL. */
const struct fl_layer *fl_spec_together(const struct fl_spec *spec);
/* "conv2d", as descriptions have it. */
const char *fl_layer_word(enum fl_layer_kind kind);

enum fl_group { FL_GROUP_SHARED, FL_GROUP_GENERATED, FL_GROUP_PRIVATE };

/* Which tensors of the network are in which group: the word a job's `strategy` chooses. */
enum fl_visibility {
    FL_VISIBILITY_ALL_SHARED,     /* FedAvg */
    FL_VISIBILITY_HEAD_PRIVATE,   /* FedRep: shared body, private head */
    FL_VISIBILITY_BODY_GENERATED, /* HyperFL: generated body, private head and embedding */
    FL_VISIBILITY_ALL_PRIVATE,    /* local only */
    FL_VISIBILITY_NORMS_PRIVATE,  /* FedBN: layers that normalise stay home, all others travel */
};

/* How generated tensors are made. theta = generator(shared tensors, private embedding v). */
enum fl_generator_kind {
    FL_GENERATOR_NONE,
    FL_GENERATOR_AFFINE,  /* f = relu(M v + m), theta_l = W_l f + b_l (HyperFL, arXiv 2412.07187) */
    FL_GENERATOR_CHUNKED, /* one affine map shared by all chunks of theta, each with a learned chunk
                             embedding */
    FL_GENERATOR_KRONECKER, /* rows of W are Kronecker products of two factors (HyperFL++) */
};

struct fl_generator_conf {
    enum fl_generator_kind kind;
    uint32_t embedding; /* length of v */
    uint32_t hidden;    /* length of f */
    uint32_t chunk;     /* elements of a chunk (chunked) */
    bool scaled; /* false: the published start (uniform within 1/sqrt(fan_in) of the generator's own
                    layers, the same v and head at all agents). true: heads scaled so that generated
                    tensors start with the standard deviation 1/sqrt(3 fan_in) of the layer they
                    fill, v and head drawn by each agent. See init.c. */
};

enum fl_init {
    FL_INIT_FAN_IN, /* uniform within 1/sqrt(fan_in): PyTorch's start of linear layers and kernels
                     */
    FL_INIT_ZERO,
    FL_INIT_ONE,
    FL_INIT_NORMAL,  /* N(0, 1): PyTorch's start of embeddings */
    FL_INIT_SMALL,   /* N(0, 0.02^2): learned positions */
    FL_INIT_XAVIER,  /* uniform within sqrt(6 / (fan_in + fan_out)), fan_out = 3 fan_in: the three
                        projections of attention in one matrix */
    FL_INIT_UNIFORM, /* within spread */
    FL_INIT_GAUSS,   /* N(0, spread^2) */
};

struct fl_tensor {
    char name[FL_SPEC_NAME_MAX]; /* "conv1.weight", "hyper.conv1.weight.w", "embedding" */
    uint32_t rank, shape[4];
    size_t count, offset; /* elements; offset into its own vector (theta, shared or private) */
    enum fl_group group;
    uint32_t fan_in;   /* of the layer it belongs to, for initial values */
    enum fl_init init; /* of the network's own tensors and of parts */
    float spread;      /* of FL_INIT_UNIFORM and FL_INIT_GAUSS */
    bool part;         /* made into something else: starts alike at all sites */
    bool buffer;       /* running statistics: set from what was seen, not by a gradient */
    bool fixed;        /* never trained: a frozen tensor, a site's width */
    bool serving;      /* private, and no release ever reads it */
};

/* A tensor of theta that is made of parts by a rule. What the places mean, each kind says. */
enum { FL_PLACE_BASE, FL_PLACE_UP, FL_PLACE_DOWN, FL_PLACE_MIX, FL_PLACES };
struct fl_place {
    uint32_t tensor; /* in `shared`, or in `private_` */
    bool used, private_;
};
struct fl_made {
    enum fl_make_kind kind;
    uint32_t tensor, layer; /* in theta; the layer it belongs to */
    size_t rows, columns;   /* as a matrix [out, everything else] */
    struct fl_place at[FL_PLACES];
    size_t first;        /* hashed: number of its first element among the rule's */
    size_t source, unit; /* nested: units of the layer before it (0: none), columns for each */
};

struct fl_tensors {
    uint32_t count;
    size_t elements;
    struct fl_tensor at[FL_SPEC_TENSORS_MAX];
};

/* Everything about where parameters are. Three flat float vectors:
 *   theta    all tensors of the network, in layer order (weight, bias), whatever their group
 *   shared   what travels: shared network tensors in order, then parts, then the generator's
 * tensors private  what stays: private network tensors in order (frozen ones too), then parts, then
 * the embedding A tensor with group FL_GROUP_GENERATED is made: by the rule in made[] that names
 * it, or else by the generator. Weights are laid out as PyTorch's: [out, in] and [out, in, kernel,
 * kernel]. */
/* The generator's tensors in their order, for every generated tensor T where a T is named; H =
 * hidden, E = embedding, N elements of T:
 *
 *   affine:     hyper.hidden.weight [H, E]   hyper.hidden.bias [H]   hyper.T.w [H, N]   hyper.T.b
 * [N]
 *
 *   kronecker:  hyper.hidden.weight [H, E]   hyper.hidden.bias [H]   hyper.T.w1 [H, d1]
 *               hyper.T.w2 [H, d2]   hyper.T.b1 [d1]   hyper.T.b2 [d2]   with d1 d2 = N, d1 <= d2
 * as near to each other as can be
 *
 *   chunked:    hyper.hidden.weight [H, E]   hyper.hidden.chunk [H, E]   hyper.hidden.bias [H]
 *               hyper.chunks [chunks, E]   hyper.chunk.w [H, chunk]   hyper.chunk.b [chunk]
 */
struct fl_layout {
    struct fl_spec spec;
    enum fl_visibility visibility;
    struct fl_generator_conf generator;
    struct fl_tensors theta, shared, private_;
    size_t generated; /* elements of theta that the hypernetwork generates */
    uint32_t own;     /* tensors of `shared` before the hypernetwork's */
    bool mixed;       /* something but the hypernetwork makes, or keeps, body tensors by rules */
    uint32_t made_count;
    struct fl_made made[FL_SPEC_TENSORS_MAX];
};

/* spec must have passed fl_spec_check. Fails with -FL_R_PLAN_MODEL when groups make no sense (a
 * generated part without generator, more than FL_SPEC_TENSORS_MAX tensors, sizes beyond 2^31
 * elements). */
int fl_layout_init(struct fl_layout *layout, const struct fl_spec *spec,
                   enum fl_visibility visibility, const struct fl_generator_conf *generator,
                   struct fl_err *e);

/* A network known by its tensors only, for trainers that are programs: `list` has them in theta's
 * order, with groups FL_GROUP_SHARED and FL_GROUP_PRIVATE; offsets and counts are set here. spec
 * has input and classes and no layers. -FL_R_PLAN_MODEL: two of one name, a shape of 0 or too
 * large. */
int fl_layout_listed(struct fl_layout *layout, const struct fl_spec *spec,
                     enum fl_visibility visibility, const struct fl_tensors *list,
                     struct fl_err *e);

/* Appends a tensor of zeros to the private vector (or the shared one); or a tensor PREFIX.NAME for
 * each of theta from number `first` on. For strategies that keep or send more than the network
 * (common/nn/beside.c). -FL_R_PLAN_MODEL: the name is taken, or too long. */
int fl_layout_tensor(struct fl_layout *layout, enum fl_group group, bool serving, const char *name,
                     uint32_t rank, const uint32_t *shape, struct fl_err *e);
int fl_layout_beside(struct fl_layout *layout, enum fl_group group, bool serving,
                     const char *prefix, uint32_t first, struct fl_err *e);
/* Where the tensors of that prefix begin in their vector: they are in one piece. SIZE_MAX: there
 * are none. */
size_t fl_layout_found(const struct fl_tensors *in, const char *prefix);

/* Initial values, the same for the same seed (init.c says how and how exactly). `shared` holds
 * layout->shared.elements floats, `private_` layout->private_.elements. Published (unscaled)
 * generators take the embedding and head from the job's seed, so that all agents start alike;
 * otherwise from the agent's. */
void fl_layout_init_shared(const struct fl_layout *layout, const struct fl_seed *job_seed,
                           float *shared);
void fl_layout_init_private(const struct fl_layout *layout, const struct fl_seed *job_seed,
                            const struct fl_seed *agent_seed, float *private_);

#endif
