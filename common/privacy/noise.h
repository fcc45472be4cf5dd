/*
 * Integer noise: the discrete Gaussian on Z, pmf proportional to exp(-x^2 / (2 s^2)), sampled
 * from a cryptographic stream by comparing integers (Canonne, Kamath, Steinke 2020). There is no
 * floating-point noise in this project.
 */
#ifndef FL_PRIVACY_NOISE_H
#define FL_PRIVACY_NOISE_H

#include "common/base/err.h"
#include "common/base/rng.h"

#include <stddef.h>
#include <stdint.h>

struct fl_noise; /* prepared for one s; immutable, may be shared by threads */

/* s^2 is taken as a rational just above s * s (noise is never smaller than asked, and larger by at
 * most 2^-31 of its standard deviation). s in [0.25, 2^30], else -FL_R_PLAN_PRIVACY. -FL_R_NOMEM.
 */
int fl_noise_new(double s, struct fl_noise **ret, struct fl_err *e);
void fl_noise_free(struct fl_noise *n);

/* The exact reference sampler (distance 0), some hundred times slower than the other. */
int64_t fl_noise_draw(const struct fl_noise *n, struct fl_rng *r);
/* q[i] += noise: the one for speed. Draws come from the stream in order, but random words are
 * fetched in blocks and what is left of the last block is thrown away: the same calls on the same
 * stream give the same values, two calls of n are not one of 2n. |noise| is below 14 s + 1; sums
 * must fit. */
void fl_noise_add(const struct fl_noise *n, struct fl_rng *r, int64_t *q, size_t count);
/* How far (total variation) one value of fl_noise_add is from the exact distribution: below 2^-116.
 * For k values and a claim (epsilon, delta), delta grows by at most (1 + e^epsilon) k times this.
 */
double fl_noise_distance(const struct fl_noise *n);
/* sqrt(s^2) as used. The standard deviation of the noise is this, below it by less than 1e-15 for s
 * >= 1.4 and visibly below it for s < 1. */
double fl_noise_scale(const struct fl_noise *n);

#endif
