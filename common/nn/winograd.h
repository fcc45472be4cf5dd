/*
 * Convolutions of 3 x 3 with stride 1 and a border of 1 with 2.25 times fewer multiplications
 * (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308, F(2x2, 3x3)), forward and both gradients.
 * For conv.c only. Rounding differs from the direct sum's by a small factor; one example's values
 * are a function of this example alone.
 */
#ifndef FL_NN_WINOGRAD_H
#define FL_NN_WINOGRAD_H

#include <stdbool.h>
#include <stddef.h>

struct fl_winograd;

/* Whether it is worth its while: even sizes, channels in sixteens, a machine with the kernels of
 * common/math/tile.h. */
bool fl_winograd_fits(size_t channels, size_t out, size_t height, size_t width);
/* NULL: no memory. Images [height, width, channels] to [height, width, out]. */
struct fl_winograd *fl_winograd_new(size_t channels, size_t out, size_t height, size_t width);
void fl_winograd_free(struct fl_winograd *w);

/* weight: [out, row] with patches in (ky, kx, channel) order; across: the same as [patch, out]. */
void fl_winograd_set(struct fl_winograd *w, const float *weight, size_t row, const float *across);
/* y = bias + x * kernels */
void fl_winograd_forward(struct fl_winograd *w, const float *bias, const float *x, float *y);
/* The transpose: dx is filled. */
void fl_winograd_inputs(struct fl_winograd *w, const float *dy, float *dx);
/* The kernels' gradient gathers over calls until it is read; `alone`: it begins with this one. */
void fl_winograd_weights(struct fl_winograd *w, bool alone, const float *x, const float *dy);
/* What has gathered, as [patch, out]; the next begins with zero. */
void fl_winograd_read(struct fl_winograd *w, float *dweight);

#endif
