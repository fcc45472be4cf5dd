/*
 * The server optimizer: how the mean update moves the model. Plain averaging, or averaging with
 * server momentum (FedAvgM: Hsu, Qi, Brown 2019, arXiv 1909.06335, section 4.3):
 *
 *     v' = momentum v + mean        x' = x + lr v'
 *
 * In doubles, one element after the other, v rounded to float32 before it is used, so that what is
 * saved is what was applied.
 */
#ifndef SERVER_STRATEGY_SERVEROPT_H
#define SERVER_STRATEGY_SERVEROPT_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct fl_server_opt {
    double lr, momentum; /* momentum 0: v and v_next are not used and may be NULL */
};

/* x, next, v, v_next, mean: `count` elements each; next may not be x, v_next may not be v.
 * -FL_R_NOT_FINITE names the element by `first` + its place; next and v_next are undefined then. */
int fl_server_opt_step(const struct fl_server_opt *opt, const float *x, const double *mean,
                       size_t first, size_t count, const float *v, float *next, float *v_next,
                       struct fl_err *e);

#endif
