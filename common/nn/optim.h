/*
 * Stochastic gradient descent with momentum and weight decay, as PyTorch's SGD (dampening 0, no
 * Nesterov) does it:
 *
 *   g <- clip * g + weight_decay * w,   m <- momentum * m + g,   w <- w - lr * m
 *
 * A buffer of zeros before the first step gives its "first buffer = first gradient".
 */
#ifndef FL_NN_OPTIM_H
#define FL_NN_OPTIM_H

#include <stddef.h>

struct fl_optim {
    float lr, momentum, weight_decay;
};

/* The factor by which gradients of this squared norm are scaled: min(1, clip / (norm + 1e-6)) as
 * clip_grad_norm_ has it. clip 0 = no clipping. */
float fl_optim_clip(double norm_squared, float clip);

/* One step of w[count]. m may be NULL when momentum is 0. */
void fl_optim_step(const struct fl_optim *o, float factor, const float *g, float *m, float *w,
                   size_t count);

#endif
