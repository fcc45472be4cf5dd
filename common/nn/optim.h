/*
 * Steps of an optimizer, as PyTorch's of the same name do them. g is scaled by `factor` (a clip)
 * first.
 *
 *   SGD     g <- g + weight_decay * w,  m <- momentum * m + g,  w <- w - lr * m
 *           nesterov:                                           w <- w - lr * (g + momentum * m)
 *   Adam    g <- g + weight_decay * w (AdamW: w <- w - lr * weight_decay * w instead)
 *           m <- momentum * m + (1 - momentum) g,  v <- beta2 * v + (1 - beta2) g^2
 *           w <- w - lr / (1 - momentum^t) * m / (sqrt(v / (1 - beta2^t)) + 1e-8)
 *
 * A buffer of zeros before the first step gives SGD's "first buffer = first gradient".
 */
#ifndef FL_NN_OPTIM_H
#define FL_NN_OPTIM_H

#include <stddef.h>
#include <stdint.h>

enum fl_optim_kind { FL_OPTIM_SGD, FL_OPTIM_NESTEROV, FL_OPTIM_ADAM, FL_OPTIM_ADAMW };

struct fl_optim {
    float lr, momentum, weight_decay; /* momentum: Adam's beta1 */
    enum fl_optim_kind kind;
    float beta2; /* of Adam */
};

/* The factor by which gradients of this squared norm are scaled: min(1, clip / (norm + 1e-6)) as
 * clip_grad_norm_ has it. clip 0 = no clipping. */
float fl_optim_clip(double norm_squared, float clip);

/* One step of SGD of w[count]. m may be NULL when momentum is 0. */
void fl_optim_step(const struct fl_optim *o, float factor, const float *g, float *m, float *w,
                   size_t count);
/* One step of Adam, the t-th (from 1) with these buffers. */
void fl_optim_adam(const struct fl_optim *o, float factor, uint64_t t, const float *g, float *m,
                   float *v, float *w, size_t count);

/* How the learning rate changes from round to round. */
enum fl_schedule_kind { FL_SCHEDULE_CONSTANT, FL_SCHEDULE_COSINE, FL_SCHEDULE_STEP };
struct fl_schedule {
    enum fl_schedule_kind kind;
    uint32_t warmup; /* the first rounds: rising in equal steps to the whole rate */
    uint32_t every;  /* step: after so many rounds the rate is multiplied by gamma */
    float gamma;     /* cosine: what is left of the rate in the last round */
};
/* What the rate of round `round` (1 to rounds) is multiplied by. */
double fl_schedule_at(const struct fl_schedule *s, uint64_t round, uint64_t rounds);

#endif
