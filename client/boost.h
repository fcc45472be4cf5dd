/*
 * Boosted trees, by XGBoost; the door to it. PA-CFL's published descriptor is what such trees make
 * of a site's table: how much each column helps to predict its targets.
 */
#ifndef CLIENT_BOOST_H
#define CLIENT_BOOST_H

#include "common/base/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* As in the code of arXiv 2503.12220. */
enum { FL_BOOST_TREES = 100, FL_BOOST_DEPTH = 6 };
#define FL_BOOST_RATE 0.1

/* Fits `rows` examples of `columns` finite features (x, by rows) and targets y: numbers by squared
 * error with classes 0, else class numbers by cross entropy. ret[k]: the mean gain of the splits by
 * column k, over the sum of these means; all 0 where no split helps. One thread, nothing drawn: the
 * same arguments give the same bits on a machine. -FL_R_CANCELLED, -FL_R_NOMEM,
 * -FL_R_PLAN_STRATEGY: this program was built without XGBoost. */
int fl_boost_importances(const float *x, const float *y, uint32_t rows, uint32_t columns,
                         uint32_t classes, const atomic_bool *cancel, double *ret,
                         struct fl_err *e);

#endif
