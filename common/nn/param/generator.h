/* What the kinds of generators share, for this folder only. */
#ifndef FL_NN_PARAM_GENERATOR_H
#define FL_NN_PARAM_GENERATOR_H

#include "common/nn/param/param.h"

struct fl_generator_ops {
    /* theta from the generator's tensors; -FL_R_NOMEM. */
    int (*make)(const struct fl_layout *layout, const float *shared, const float *v, float *theta,
                struct fl_err *e);
    int (*init)(struct fl_generator *g, struct fl_err *e);
    void (*step)(struct fl_generator *g, const float *grad, float *theta);
    void (*end)(struct fl_generator *g);
    void (*fini)(struct fl_generator *g);
};

extern const struct fl_generator_ops fl_generator_affine, fl_generator_chunked,
    fl_generator_kronecker;

struct fl_generator {
    const struct fl_layout *layout;
    const struct fl_generator_ops *ops;
    struct fl_generator_conf_train conf;
    size_t embedding, hidden, generated; /* E, H, P */
    float *shared, *v;                   /* trained in place */
    float *dv, *v_momentum;
    bool scattered; /* what is generated is not in one piece in theta, or begins at `from` */
    size_t from;
    float *whole; /* scattered in theta: gradient and values of what is generated, in one piece */
    void *own;    /* of the kind */
};

/* ---- the hidden layer of affine and Kronecker generators: f = relu(M v + m) ---- */

/* f: H floats; M [H, E] and m [H] are the first two tensors of `shared`. */
void fl_hidden_forward(const struct fl_layout *layout, const float *shared, const float *v,
                       float *f);
/* dp = df where f > 0, else 0 (in place); dv = M^T dp. */
void fl_hidden_backward(const struct fl_layout *layout, const float *shared, const float *f,
                        float *df, float *dv);

/* ---- kinds whose whole gradient is small: one flat vector like `shared` ---- */

struct fl_flat {
    float *grad, *momentum; /* layout->shared.elements each; momentum NULL when there is none */
};
int fl_flat_init(struct fl_flat *flat, const struct fl_generator *g, struct fl_err *e);
void fl_flat_fini(struct fl_flat *flat);
/* Clips and steps shared tensors from flat->grad, and v from g->dv. */
void fl_flat_step(struct fl_flat *flat, struct fl_generator *g);
/* The step of v alone, from g->dv. */
void fl_generator_step_v(struct fl_generator *g);

#endif
