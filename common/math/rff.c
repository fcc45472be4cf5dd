#include "common/math/rff.h"

#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/vec.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* 2^q of the kernel with this number. */
static double multiple(size_t kernel)
{
    return ldexp(1, (int)kernel - FL_RFF_KERNELS / 2);
}

int fl_rff_init(struct fl_rff *r, const struct fl_seed *seed, size_t width, size_t frequencies,
                struct fl_err *e)
{
    struct fl_rng rng;

    assert(width > 0 && frequencies > 0 && frequencies % FL_RFF_KERNELS == 0);
    *r = (struct fl_rff){.width = width, .frequencies = frequencies};
    r->omega = fl_try_aligned(frequencies * width, sizeof *r->omega);
    if (!r->omega) {
        return fl_fail(e, FL_R_NOMEM, "%zu frequencies of %zu values", frequencies, width);
    }
    fl_rng_init(&rng, seed, 0);
    for (size_t j = 0; j < frequencies; j++) {
        double spread = sqrt(2 / multiple(j % FL_RFF_KERNELS));
        for (size_t i = 0; i < width; i++) {
            r->omega[j * width + i] = (float)(spread * fl_rng_normal(&rng));
        }
    }
    fl_rng_fini(&rng);
    return 0;
}

void fl_rff_fini(struct fl_rff *r)
{
    fl_free(r->omega);
    r->omega = NULL;
}

void fl_rff_add(const struct fl_rff *r, double bandwidth, const float *z, size_t count,
                float *angles, double *sum)
{
    size_t f = r->frequencies;
    float scale = (float)(1 / sqrt((double)f));

    fl_blas_gemm(false, true, count, f, r->width, (float)(1 / sqrt(bandwidth)), z, r->width,
                 r->omega, r->width, 0, angles, f);
    for (size_t n = 0; n < count; n++) {
        for (size_t j = 0; j < f; j++) {
            sum[j] += (double)(scale * cosf(angles[n * f + j]));
            sum[f + j] += (double)(scale * sinf(angles[n * f + j]));
        }
    }
}

double fl_rff_pull(const struct fl_rff *r, double bandwidth, size_t count, float *angles,
                   const double *sum, const float *target, float weight, float *dz)
{
    size_t f = r->frequencies;
    double part = 1 / (double)count, square = 0;
    double others = 1 / (double)(count > 1 ? count - 1 : 1); /* a point's own phi has no gradient */
    /* d |m - t|^2 / d angle = 2 (m - t) dm / d angle */
    float scale = (float)(2 * part / sqrt((double)f));

    for (size_t j = 0; j < f; j++) {
        double c = sum[j] * part - (double)target[j], s = sum[f + j] * part - (double)target[f + j];
        square += c * c + s * s;
        c = sum[j] * others - (double)target[j];
        s = sum[f + j] * others - (double)target[f + j];
        for (size_t n = 0; n < count; n++) {
            float *a = &angles[n * f + j];
            *a = scale * ((float)s * cosf(*a) - (float)c * sinf(*a));
        }
    }
    fl_blas_gemm(false, false, count, r->width, f, weight * (float)(1 / sqrt(bandwidth)), angles, f,
                 r->omega, r->width, 1, dz, r->width);
    return square;
}

/* ---- directions ---- */

void fl_rff_unit(const float *z, size_t count, size_t width, float *unit)
{
    for (size_t n = 0; n < count; n++, z += width, unit += width) {
        double norm = sqrt(fl_vec_norm_squared(z, width));
        fl_vec_scale(norm > 0 ? (float)(1 / norm) : 0, z, unit, width);
    }
}

void fl_rff_unit_back(const float *z, const float *unit, const float *d_unit, size_t count,
                      size_t width, float *dz)
{
    for (size_t n = 0; n < count; n++) { /* (d - (d u) u) / |z| */
        const float *u = unit + n * width, *d = d_unit + n * width;
        double norm = sqrt(fl_vec_norm_squared(z + n * width, width));
        if (norm > 0) {
            fl_vec_axpy((float)(1 / norm), d, dz + n * width, width);
            fl_vec_axpy((float)(-fl_vec_dot(d, u, width) / norm), u, dz + n * width, width);
        }
    }
}

/* ---- exactly ---- */

static double distance2(const float *u, const float *v, size_t width)
{
    double sum = 0;

    for (size_t i = 0; i < width; i++) {
        double d = (double)u[i] - (double)v[i];
        sum += d * d;
    }
    return sum;
}

/* k(u, v), and its derivative with respect to |u - v|^2. */
static double kernel(double d2, double bandwidth, double *ret_slope)
{
    double k = 0, slope = 0;

    for (size_t q = 0; q < FL_RFF_KERNELS; q++) {
        double b = bandwidth * multiple(q), one = exp(-d2 / b) / FL_RFF_KERNELS;
        k += one;
        slope -= one / b;
    }
    *ret_slope = slope;
    return k;
}

/* The sum of k over all pairs; dx gets weight times the gradient with respect to x, where y is
 * another cloud or x itself (then a pair counts from both sides). */
static double pairs(const float *x, size_t n, const float *y, size_t m, size_t width,
                    double bandwidth, double weight, float *dx)
{
    double sum = 0, slope;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < m; j++) {
            const float *u = x + i * width, *v = y + j * width;
            sum += kernel(distance2(u, v, width), bandwidth, &slope);
            for (size_t k = 0; dx && k < width; k++) {
                dx[i * width + k] += (float)(weight * slope * 2 * ((double)u[k] - (double)v[k]));
            }
        }
    }
    return sum;
}

double fl_mmd(const float *x, size_t n, const float *y, size_t m, size_t width, double bandwidth,
              float weight, float *dx)
{
    double nn = (double)n * (double)n, nm = (double)n * (double)m, mm = (double)m * (double)m;
    double w = (double)weight;
    double xx = pairs(x, n, x, n, width, bandwidth, 2 * w / nn, dx) / nn;
    double xy = pairs(x, n, y, m, width, bandwidth, -2 * w / nm, dx) / nm;
    double yy = pairs(y, m, y, m, width, bandwidth, 0, NULL) / mm;
    double square = xx + yy - 2 * xy;

    return square > 0 ? square : 0;
}

double fl_mmd_bandwidth(const float *x, size_t n, const float *y, size_t m, size_t width)
{
    size_t all = n + m;
    double sum = 0;

    for (size_t i = 0; i < all; i++) {
        for (size_t j = 0; j < i; j++) {
            sum += distance2(i < n ? x + i * width : y + (i - n) * width,
                             j < n ? x + j * width : y + (j - n) * width, width);
        }
    }
    return all < 2 ? 0 : sum / ((double)all * (double)(all - 1) / 2);
}
