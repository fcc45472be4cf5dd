#include "server/strategy/serveropt.h"

#include <math.h>

struct fl_server_opt fl_server_opt_of(const struct fl_server_opt_conf *conf)
{
    return (struct fl_server_opt){.kind = conf->optimizer,
                                  .lr = (double)conf->lr,
                                  .momentum = (double)conf->momentum,
                                  .beta2 = (double)conf->beta2,
                                  .tau = (double)conf->tau};
}

uint32_t fl_server_opt_moments(const struct fl_server_opt *opt)
{
    return opt->kind == FL_SERVER_DYNAMIC   ? 1
           : opt->kind != FL_SERVER_AVERAGE ? 2
                                            : opt->momentum > 0.0;
}

float fl_server_opt_first(const struct fl_server_opt *opt)
{
    return (float)(opt->tau * opt->tau);
}

static double second(const struct fl_server_opt *opt, double v, double mean)
{
    double square = mean * mean, part = (1 - opt->beta2) * square;

    switch (opt->kind) {
    case FL_SERVER_ADAM:
        return opt->beta2 * v + part;
    case FL_SERVER_YOGI:
        return v > square ? v - part : v < square ? v + part : v;
    case FL_SERVER_ADAGRAD:
    case FL_SERVER_AVERAGE:
    case FL_SERVER_DYNAMIC:
        break;
    }
    return v + square;
}

int fl_server_opt_step(const struct fl_server_opt *opt, const float *x, const double *mean,
                       size_t first, size_t count, const struct fl_moments *moments, float *next,
                       const struct fl_moments *moments_next, struct fl_err *e)
{
    uint32_t kept = fl_server_opt_moments(opt);
    double share = kept == 2 ? 1 - opt->momentum : 1;

    for (size_t i = 0; i < count; i++) {
        double step = mean[i];
        if (opt->kind == FL_SERVER_DYNAMIC) {
            moments_next->m[i] = (float)((double)moments->m[i] + opt->momentum * step);
            step += (double)moments_next->m[i];
        } else if (kept > 0) {
            moments_next->m[i] = (float)(opt->momentum * (double)moments->m[i] + share * step);
            step = (double)moments_next->m[i];
        }
        if (kept == 2) {
            moments_next->v[i] = (float)second(opt, (double)moments->v[i], mean[i]);
            step /= sqrt((double)moments_next->v[i]) + opt->tau;
        }
        next[i] = (float)((double)x[i] + opt->lr * step);
        if (!isfinite(next[i]) || !isfinite(step) || (kept == 2 && !isfinite(moments_next->v[i]))) {
            return fl_fail(e, FL_R_NOT_FINITE, "element %zu of the next model is not finite",
                           first + i);
        }
    }
    return 0;
}
