#include "common/nn/optim.h"

#include "common/math/vec.h"

#include <math.h>

float fl_optim_clip(double norm_squared, float clip)
{
    double factor;

    if (clip == 0) {
        return 1;
    }
    factor = (double)clip / (sqrt(norm_squared) + 1e-6);
    return factor < 1 ? (float)factor : 1;
}

FL_VECTOR static void step_plain(const struct fl_optim *o, float factor, const float *restrict g,
                                 float *restrict w, size_t count)
{
    const float lr = o->lr, decay = o->weight_decay;

    for (size_t i = 0; i < count; i++) {
        w[i] -= lr * (factor * g[i] + decay * w[i]);
    }
}

FL_VECTOR static void step_momentum(const struct fl_optim *o, float factor, const float *restrict g,
                                    float *restrict m, float *restrict w, size_t count)
{
    const float lr = o->lr, decay = o->weight_decay, momentum = o->momentum;

    for (size_t i = 0; i < count; i++) {
        m[i] = momentum * m[i] + (factor * g[i] + decay * w[i]);
        w[i] -= lr * m[i];
    }
}

void fl_optim_step(const struct fl_optim *o, float factor, const float *g, float *m, float *w,
                   size_t count)
{
    if (m) {
        step_momentum(o, factor, g, m, w, count);
    } else {
        step_plain(o, factor, g, w, count);
    }
}
