/*
 * Integer noise: the discrete Gaussian on Z, pmf proportional to exp(-x^2 / (2 s^2)), sampled
 * exactly from a cryptographic stream (Canonne, Kamath, Steinke 2020). There is no floating-point
 * noise in this project.
 */
#ifndef FL_PRIVACY_NOISE_H
#define FL_PRIVACY_NOISE_H

#include "common/base/err.h"
#include "common/base/rng.h"

#include <stddef.h>
#include <stdint.h>

struct fl_noise; /* prepared for one s */

/* s^2 is taken as the rational num/den just above s * s (noise is never smaller than asked). s in
 * [0.25, 2^30]. */
int fl_noise_new(double s, struct fl_noise **ret, struct fl_err *e);
void fl_noise_free(struct fl_noise *n);
/* The exact reference sampler, and the one for speed (their distributions differ by at most
 * fl_noise_distance in total variation a draw, which the accountant's delta must cover; 0 when both
 * are exact). */
int64_t fl_noise_draw(const struct fl_noise *n, struct fl_rng *r);
void fl_noise_add(const struct fl_noise *n, struct fl_rng *r, int64_t *q, size_t count);
double fl_noise_distance(const struct fl_noise *n);

#endif
