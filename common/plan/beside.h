/*
 * Tensors that a strategy keeps at a site beside the network's own: where they are in a private
 * vector, and the network that serves a site because of them. beside.c has a table.
 */
#ifndef FL_PLAN_BESIDE_H
#define FL_PLAN_BESIDE_H

#include "common/plan/plan.h"

/* Offsets; SIZE_MAX: the strategy has none. */
struct fl_kept {
    size_t rounds, alpha, personal, stays, mean;
    size_t stays_count; /* they are of theta's end */
};
struct fl_kept fl_kept_of(const struct fl_layout *layout);

/* The head's first layer, linear: offsets into theta, and its matrix [out, in]. Of plans that
 * compare features. */
struct fl_head {
    size_t weight, bias, out, in;
};
void fl_head_of(const struct fl_layout *layout, struct fl_head *ret);

/* theta, made of a shared model, becomes what serves the site, by its private tensors as they
 * stand. Nothing changes under a strategy without a model of the site's own, nor before its first
 * round. */
void fl_kept_serve(const struct fl_plan *plan, const float *private_, float *theta);

#endif
