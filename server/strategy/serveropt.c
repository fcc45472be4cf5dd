#include "server/strategy/serveropt.h"

#include <math.h>

int fl_server_opt_step(const struct fl_server_opt *opt, const float *x, const double *mean,
                       size_t first, size_t count, const float *v, float *next, float *v_next,
                       struct fl_err *e)
{
    for (size_t i = 0; i < count; i++) {
        double step = mean[i];
        if (opt->momentum > 0.0) {
            v_next[i] = (float)(opt->momentum * (double)v[i] + step);
            step = (double)v_next[i];
        }
        next[i] = (float)((double)x[i] + opt->lr * step);
        if (!isfinite(next[i]) || !isfinite(step)) {
            return fl_fail(e, FL_R_NOT_FINITE, "element %zu of the next model is not finite",
                           first + i);
        }
    }
    return 0;
}
