/*
 * Parameterizations: how theta, the network's parameters, comes from what is stored. A tensor of
 * the network is stored as it is (shared or private), or made by a generator from shared tensors
 * and this site's embedding v. Training works at theta: the network's gradient g = dL/dtheta is
 * computed as for any network and pulled back through the generator. Nothing above this room knows
 * which generator it is.
 *
 * The gradient of a generator's large matrices is never written out: see affine.c.
 */
#ifndef FL_NN_PARAM_H
#define FL_NN_PARAM_H

#include "common/nn/optim.h"
#include "common/nn/spec.h"

/* theta (layout->theta.elements) from the two stored vectors. -FL_R_NOMEM. */
int fl_param_make(const struct fl_layout *layout, const float *shared, const float *private_,
                  float *theta, struct fl_err *e);
/* The other way for tensors that are stored as they are; generators are left alone. */
void fl_param_store(const struct fl_layout *layout, const float *theta, float *shared,
                    float *private_);

/* Training of a generator and of the embedding, from a fresh momentum on. */
struct fl_generator;
struct fl_generator_conf_train {
    struct fl_optim optim;
    float clip; /* L2, one over all tensors of the generator and one over the embedding; 0 = none */
    uint64_t steps; /* about how many there will be; memory only */
};

/* Trains `shared` and `private_` in place; they are only complete again after fl_generator_end.
 * -FL_R_NOMEM. */
int fl_generator_new(const struct fl_layout *layout, const struct fl_generator_conf_train *conf,
                     float *shared, float *private_, struct fl_generator **ret, struct fl_err *e);
/* One step with the gradient at theta; writes the new theta. Both are the generated prefix of
 * theta: layout->generated elements. */
void fl_generator_step(struct fl_generator *g, const float *grad, float *theta);
void fl_generator_end(struct fl_generator *g);
void fl_generator_free(struct fl_generator *g);

#endif
