/*
 * How far two clouds of points are apart: the maximum mean discrepancy (Gretton et al. 2012, JMLR
 * 13) under a mean of five Gaussian kernels,
 *
 *     k(u, v) = 1/5 sum_q exp(-|u - v|^2 / (bandwidth 2^q)),   q = -2 ... 2
 *
 * once exactly, in O(n m), and once by random Fourier features (Rahimi and Recht 2007), in O(n):
 * each point becomes a vector phi of norm 1, of which the mean is all that is needed of a cloud:
 *
 *     phi(z) = (cos w_j z, sin w_j z) / sqrt(frequencies),   w_j ~ N(0, 2 / (bandwidth 2^q))
 *     MMD^2 = |mean phi(x) - mean phi(y)|^2 in expectation over w
 *
 * Cosine and sine of one frequency, not a cosine with a random phase: less variance at the same
 * length (Sutherland and Schneider 2015), and the norm is 1 for every point, so a mean over n
 * points moves by at most 1/n when a point is added to a sum divided by n, by 2/n when one is
 * replaced.
 */
#ifndef FL_MATH_RFF_H
#define FL_MATH_RFF_H

#include "common/base/err.h"
#include "common/base/rng.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_RFF_KERNELS = 5, FL_RFF_FREQUENCIES_MAX = 65535 };

struct fl_rff {
    size_t width;       /* of a point */
    size_t frequencies; /* a multiple of FL_RFF_KERNELS; a vector phi is twice as long */
    float *omega;       /* [frequencies, width], for bandwidth 1 */
};

/* The same seed gives the same features everywhere. -FL_R_NOMEM. fini accepts a zeroed one. */
int fl_rff_init(struct fl_rff *r, const struct fl_seed *seed, size_t width, size_t frequencies,
                struct fl_err *e);
void fl_rff_fini(struct fl_rff *r);

/* sum[2 frequencies] += phi of each of `count` points (all cosines, then all sines). `angles` is
 * room for count * frequencies floats, and keeps them for fl_rff_pull. bandwidth > 0. */
void fl_rff_add(const struct fl_rff *r, double bandwidth, const float *z, size_t count,
                float *angles, double *sum);

/* |mean - target|^2 of the points of the last fl_rff_add, whose sum began at 0; and weight times
 * the gradient of its unbiased form, added to dz[count, width]: without the pairs of a point with
 * itself, which would draw the points of a small batch together. `angles` is overwritten. */
double fl_rff_pull(const struct fl_rff *r, double bandwidth, size_t count, float *angles,
                   const double *sum, const float *target, float weight, float *dz);

/* Points by their direction only: unit = z / |z| (0 stays 0), which may be z; and the way back:
 * dz += the gradient at z of what has the gradient d_unit at unit. */
void fl_rff_unit(const float *z, size_t count, size_t width, float *unit);
void fl_rff_unit_back(const float *z, const float *unit, const float *d_unit, size_t count,
                      size_t width, float *dz);

/* MMD^2 exactly, with the diagonals (never below 0): zero for equal clouds. dx (may be NULL) gets
 * weight times its gradient with respect to x added, at this bandwidth. */
double fl_mmd(const float *x, size_t n, const float *y, size_t m, size_t width, double bandwidth,
              float weight, float *dx);

/* Mean squared distance between different points, the bandwidth of choice; 0 for fewer than two. */
double fl_mmd_bandwidth(const float *x, size_t n, const float *y, size_t m, size_t width);

#endif
