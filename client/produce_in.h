/* Between the files of producers. Nobody else. */
#ifndef CLIENT_PRODUCE_IN_H
#define CLIENT_PRODUCE_IN_H

#include "client/produce.h"
#include "common/math/grid.h"

extern const struct fl_producer fl_produce_choice, fl_produce_descriptor;

/* The event of numbers that get noise of sigma times their sensitivity before they leave; nothing
 * without a unit. -FL_R_PLAN_PRIVACY: with one, and no noise; `what` names them. */
int fl_produce_event(const struct fl_plan *plan, double sigma, const char *what,
                     struct fl_event *ret, struct fl_err *e);
/* L2 of integers on a grid, in its units. */
double fl_produce_norm(const struct fl_grid *g, const int64_t *q, size_t count);
/* Discrete Gaussian noise of sigma times `bound` steps in each of `count` numbers, from a
 * stream of the intent's seed that belongs to this exchange. *ret_std in units of the grid. */
int fl_produce_noise(const struct fl_produce *in, double sigma, int64_t bound, int64_t *q,
                     size_t count, double *ret_std, struct fl_err *e);
/* The descriptor of pacfl's published form (produce_importance.c). */
int fl_produce_importances(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e);

#endif
