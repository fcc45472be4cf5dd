/*
 * The server optimizer: how the mean update moves the model.
 *
 *   average   averaging, or with momentum FedAvgM (Hsu, Qi, Brown 2019, arXiv 1909.06335, 4.3):
 *                 m' = momentum m + mean                 x' = x + lr m'
 *   adaptive  FedAdagrad, FedAdam, FedYogi (Reddi et al. 2021, arXiv 2003.00295, algorithm 2):
 *                 m' = momentum m + (1 - momentum) mean  x' = x + lr m' / (sqrt(v') + tau)
 *                 v' = v + mean^2                                         Adagrad
 *                      beta2 v + (1 - beta2) mean^2                       Adam
 *                      v - (1 - beta2) mean^2 sign(v - mean^2)            Yogi
 *             v begins at tau^2; there is no correction of the start
 *   dynamic   FedDyn (Acar et al. 2021, arXiv 2111.04263, algorithm 1), with m = -h / alpha and
 *             `momentum` the part of all sites that a round has:
 *                 m' = m + momentum mean                 x' = x + mean + m'
 *
 * In doubles, one element after the other, m and v rounded to float32 before they are used, so that
 * what is saved is what was applied.
 */
#ifndef SERVER_STRATEGY_SERVEROPT_H
#define SERVER_STRATEGY_SERVEROPT_H

#include "common/base/err.h"
#include "common/plan/plan.h"

#include <stddef.h>
#include <stdint.h>

struct fl_server_opt {
    enum fl_server_optimizer kind;
    double lr, momentum, beta2, tau;
};

/* m and v, `count` elements each, that x and mean have a part of. */
struct fl_moments {
    float *m, *v;
};

struct fl_server_opt fl_server_opt_of(const struct fl_server_opt_conf *conf);
/* Moments that are kept: 0, 1 (m) or 2. Those not kept may be NULL below. */
uint32_t fl_server_opt_moments(const struct fl_server_opt *opt);
/* What v begins with. */
float fl_server_opt_first(const struct fl_server_opt *opt);

/* x, next, mean: `count` elements each; next may not be x, nor moments their next.
 * -FL_R_NOT_FINITE names the element by `first` + its place; next and moments_next are undefined
 * then. */
int fl_server_opt_step(const struct fl_server_opt *opt, const float *x, const double *mean,
                       size_t first, size_t count, const struct fl_moments *moments, float *next,
                       const struct fl_moments *moments_next, struct fl_err *e);

#endif
