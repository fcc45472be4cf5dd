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

FL_VECTOR static void step_nesterov(const struct fl_optim *o, float factor, const float *restrict g,
                                    float *restrict m, float *restrict w, size_t count)
{
    const float lr = o->lr, decay = o->weight_decay, momentum = o->momentum;

    for (size_t i = 0; i < count; i++) {
        float d = factor * g[i] + decay * w[i];
        m[i] = momentum * m[i] + d;
        w[i] -= lr * (d + momentum * m[i]);
    }
}

void fl_optim_step(const struct fl_optim *o, float factor, const float *g, float *m, float *w,
                   size_t count)
{
    if (m && o->kind == FL_OPTIM_NESTEROV) {
        step_nesterov(o, factor, g, m, w, count);
    } else if (m) {
        step_momentum(o, factor, g, m, w, count);
    } else {
        step_plain(o, factor, g, w, count);
    }
}

void fl_optim_adam(const struct fl_optim *o, float factor, uint64_t t, const float *g, float *m,
                   float *v, float *w, size_t count)
{
    const float beta1 = o->momentum, beta2 = o->beta2;
    const float decay = o->kind == FL_OPTIM_ADAM ? o->weight_decay : 0;
    const float shrink = o->kind == FL_OPTIM_ADAMW ? 1 - o->lr * o->weight_decay : 1;
    const float rate = (float)((double)o->lr / (1 - pow((double)beta1, (double)t)));
    const float whole = (float)(1 / sqrt(1 - pow((double)beta2, (double)t)));

    for (size_t i = 0; i < count; i++) {
        float d = factor * g[i] + decay * w[i];
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        w[i] = shrink * w[i] - rate * m[i] / (sqrtf(v[i]) * whole + 1e-8f);
    }
}

double fl_schedule_at(const struct fl_schedule *s, uint64_t round, uint64_t rounds)
{
    uint64_t past = round > s->warmup ? round - s->warmup - 1 : 0;
    uint64_t whole = rounds > s->warmup + 1 ? rounds - s->warmup - 1 : 1;

    if (s->warmup && round <= s->warmup) {
        return (double)round / (double)(s->warmup + 1);
    }
    switch (s->kind) {
    case FL_SCHEDULE_CONSTANT:
        break;
    case FL_SCHEDULE_COSINE: {
        double least = (double)s->gamma, at = past < whole ? (double)past / (double)whole : 1;
        return least + (1 - least) * (1 + cos(at * acos(-1.0))) / 2;
    }
    case FL_SCHEDULE_STEP:
        return pow((double)s->gamma, (double)(past / s->every));
    }
    return 1;
}
