/*
 * Models made to give away single examples (Fowl et al. 2022, "Robbing the Fed"; Boenisch et al.
 * 2021, "When the curious abandon honesty"; Zhao et al. 2023, LOKI). A coordinator that wants to
 * read a site's pictures sends weights that lead them apart:
 *
 *   rows      a dense layer whose rows all measure the same with other thresholds: as a matrix it
 *             is of rank one. What a job starts with, and what training makes of it, is not.
 *   deltas    convolutions that only pass their input on: one weight of a filter is all of it.
 *   a block   in front of a network on pictures: dense, and dense back to the picture's size.
 *
 * These are the published traps. Somebody who knows this file can make others: what protects is
 * noise and sums; this is a guard against the plain attack.
 */
#ifndef FL_NN_TRAP_H
#define FL_NN_TRAP_H

#include "common/nn/spec.h"

/* Of a description alone: the block. -FL_R_TRAP naming the layer. */
int fl_trap_spec(const struct fl_spec *spec, struct fl_err *e);
/* Of a network at these weights, private tensors left out: the block, rows, deltas. -FL_R_TRAP,
 * -FL_R_NOMEM. */
int fl_trap_check(const struct fl_layout *layout, const float *theta, struct fl_err *e);

#endif
