/*
 * A network that runs: outputs, loss and gradients of a checked spec (common/nn/spec.h) at given
 * parameters. The loss is the spec's. Examples are given as the data has them, [channels,
 * height, width] each; targets as the loss takes them; parameters and gradients are flat vectors in
 * the order and layout of the spec's tensors (PyTorch's). Conventions where a derivative has a
 * choice are PyTorch's: a max-pool passes its gradient to the first maximum, a leaky ReLU has its
 * slope at 0.
 *
 * The model owns all working memory (some 20 KB for each example of a shard on the Fashion-MNIST
 * network, and one image's patches); nothing is allocated after fl_model_new. Not for several
 * threads at once. The same calls give the same bits on the same machine.
 */
#ifndef FL_NN_MODEL_H
#define FL_NN_MODEL_H

#include "common/nn/spec.h"

struct fl_model;

/* `shard`: how many examples are worked on together, 1 or more; batches are cut into shards of this
 * size and summed in order. It bounds memory and fixes the bits, batches may have any size. The
 * spec is copied. A spec without loss (a body, whose outputs are features) is fine for forward.
 * Errors: FL_R_NOMEM. */
int fl_model_new(const struct fl_spec *spec, uint32_t shard, struct fl_model **ret,
                 struct fl_err *e);
void fl_model_free(struct fl_model *m);

/* Floats that a shard holds for each of its examples, from forward until backward has passed. 0: no
 * memory to find out. */
size_t fl_model_held(const struct fl_spec *spec);

/* Parameters for all calls that follow, until they change or are set again. Kept by reference. */
void fl_model_set(struct fl_model *m, const float *theta);

/* From here on dropout layers drop, by a stream of `seed` in the order of examples; NULL: they pass
 * everything, as they do at first. Under a privacy unit the stream is no function of the data. */
void fl_model_dropout(struct fl_model *m, const struct fl_seed *seed);

/* out: count * outputs floats, [channels, height, width] each when the last layer is not a vector.
 */
void fl_model_forward(struct fl_model *m, const float *x, size_t count, float *out);

/* `y`: class numbers (int32_t, one an example), or for a loss of numbers the targets (float,
 * spec.targets an example). */
void fl_model_score(struct fl_model *m, const float *x, const void *y, size_t count,
                    struct fl_score *ret);

/* grad = gradient of the mean loss over `count` examples; overwritten, as long as theta.
 * `ret_score` may be NULL. count >= 1, labels within the outputs. */
void fl_model_gradient(struct fl_model *m, const float *x, const void *y, size_t count, float *grad,
                       struct fl_score *ret_score);

/* What else a step minimises, as a function of the features: what the head's first layer takes.
 * `add` is called once for each shard of fl_model_gradient, between forward and backward: `z` and
 * `dz` are [count, features], of the examples from number `first` of the batch; it adds to dz the
 * gradient of its own term (not of a mean over examples: that is its own business). */
struct fl_tap {
    void (*add)(void *arg, size_t first, size_t count, const float *z, float *dz);
    void *arg;
};
/* For all gradients that follow; NULL: none. Kept by reference. False when the model has no head of
 * its own, or one that does not begin with a layer on vectors. */
bool fl_model_tap(struct fl_model *m, const struct fl_tap *tap);

/* Batch norm: a gradient is taken with the statistics of its batch (of each shard of it: give
 * `shard` the batch's size), everything else with the running ones in theta. Gradients at those are
 * 0; this writes what the last gradient made of them, 0.9 of the old and 0.1 of the batch's, into
 * theta after the step. */
void fl_model_settle(const struct fl_model *m, float *theta);

/* The gradient of one example's loss, in the pieces that make norms cheap: a linear layer's is the
 * product d a^T of what flows back and what went in, never written out. Over the tokens of a
 * sequence it is a sum of such products, g^T a, given so where its norm is cheaper from the factors
 * (`rows` of each) and else written out. A layer of other tensors is one vector `d` at `bias`, with
 * in = 0. */
struct fl_piece {
    size_t weight, bias; /* offsets into theta */
    size_t out, in;      /* the weight is out x in */
    const float *d;      /* out: gradient of the bias */
    const float *a;      /* rows x in; NULL: the weight's gradient is w */
    const float *g;      /* rows x out; NULL: rows is 1, and the weight's gradient d a^T */
    size_t rows;         /* where there is a */
    const float *w;      /* out x in */
    size_t window;       /* not 0: w is in the engine's order, [window, in / window, out] */
};
enum { FL_MODEL_PIECES_MAX = 2 * FL_SPEC_LAYERS_MAX };
/* Everything in the pieces is a function of (theta, x, y) alone: no other example's presence or
 * place changes a bit of it. Pieces are valid until the next call. Returns their number: one for
 * each layer with weights, two for attention. No piece has `g`, nor `window`. */
uint32_t fl_model_example(struct fl_model *m, const float *x, const void *y,
                          const struct fl_piece **ret_pieces, double *ret_loss);

/* The same for `count` <= shard examples at once, as cheaply as can be, of which fl_model_pieces
 * then gives the pieces one by one, in ascending order; x and y stay until then. What concerns
 * several examples is computed together where the network and the machine allow it with the same
 * promise (common/math/tile.h). Returns the sum of the losses. */
double fl_model_examples(struct fl_model *m, const float *x, const void *y, size_t count);
uint32_t fl_model_pieces(struct fl_model *m, size_t n, const struct fl_piece **ret_pieces);

/* The first `at` layers of a spec, and the rest, which takes what those make. */
void fl_spec_cut(const struct fl_spec *spec, uint32_t at, struct fl_spec part[2]);
/* The two halves of a spec at its head: [0] the body, whose outputs are features, [1] the head. The
 * head's parameters follow the body's in theta. spec->head must leave both non-empty. */
int fl_spec_split(const struct fl_spec *spec, struct fl_spec half[2], size_t *ret_body_elements,
                  struct fl_err *e);

#endif
