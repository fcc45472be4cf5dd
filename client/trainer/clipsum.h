/*
 * A sum of clipped gradients whose L2 sensitivity is exact: what DP-SGD adds noise to. For this
 * folder only.
 *
 * Each example contributes an integer vector, a function of theta and of this example alone, of
 * norm at most clip / step; the vectors are added exactly. So whatever the other examples are,
 * adding or removing one changes the sum by exactly its vector. clipsum.c has the argument.
 */
#ifndef CLIENT_TRAINER_CLIPSUM_H
#define CLIENT_TRAINER_CLIPSUM_H

#include "common/nn/model.h"

struct fl_clipsum;

/* elements: of theta. clip: C > 0. scale_max: the largest C / step that is of use (noise samplers
 * have limits). per_layer: every layer's part is clipped for itself, to C / sqrt(layers); else the
 * whole vector to C. Either way its norm is at most C. -FL_R_NOMEM; -FL_R_PLAN_PRIVACY when C is
 * not a usable number. */
int fl_clipsum_new(size_t elements, double clip, double scale_max, bool per_layer,
                   struct fl_clipsum **ret, struct fl_err *e);
void fl_clipsum_free(struct fl_clipsum *c);
/* The grid's step, a power of two. */
double fl_clipsum_step(const struct fl_clipsum *c);

/* Adds one example's gradient; one that is not finite, or above 2^60, counts as zero. All examples
 * of a sum have pieces of the same shapes. -FL_R_NOMEM (at the first example only). */
int fl_clipsum_add(struct fl_clipsum *c, const struct fl_piece *pieces, uint32_t count,
                   struct fl_err *e);
/* What takes the sum: the `count` integers, in steps, of theta's elements from `at` on. It may
 * change them in place. */
typedef void fl_clipsum_taker(void *arg, size_t at, int64_t *q, size_t count);
/* Hands out the whole sum, in order and in parts that are still in the cache, and begins a new one.
 */
void fl_clipsum_drain(struct fl_clipsum *c, fl_clipsum_taker *take, void *arg);

#endif
