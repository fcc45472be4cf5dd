/*
 * Decimation in frequency on the way there, in time on the way back (Gentleman and Sande; Cooley
 * and Tukey), so that neither needs the permutation. Recursive: once a half fits a cache it stays
 * there. The roots for length n lie at n/2 .. n-1 of one table, so that inner loops run straight.
 */
#include "common/privacy/fft.h"

#include "common/base/mem.h"

#include <assert.h>
#include <math.h>

struct fl_fft {
    size_t size;
    double *c, *s; /* cos, -sin */
};

struct fl_fft *fl_fft_new(size_t size)
{
    struct fl_fft *f;

    assert(size >= 2 && size <= (size_t)1 << 24 && (size & (size - 1)) == 0);
    f = fl_try(1, sizeof *f);
    if (!f) {
        return NULL;
    }
    f->size = size;
    f->c = fl_try_aligned(size, sizeof *f->c);
    f->s = fl_try_aligned(size, sizeof *f->s);
    if (!f->c || !f->s) {
        fl_fft_free(f);
        return NULL;
    }
    for (size_t k = 0; k < size / 2; k++) {
        double angle = 6.283185307179586476925 * (double)k / (double)size;
        f->c[size / 2 + k] = cos(angle);
        f->s[size / 2 + k] = -sin(angle);
    }
    for (size_t half = size / 4; half >= 1; half /= 2) {
        for (size_t k = 0; k < half; k++) {
            f->c[half + k] = f->c[2 * half + 2 * k];
            f->s[half + k] = f->s[2 * half + 2 * k];
        }
    }
    return f;
}

void fl_fft_free(struct fl_fft *f)
{
    if (f) {
        fl_free(f->c);
        fl_free(f->s);
        fl_free(f);
    }
}

static void forward(const struct fl_fft *f, double *restrict re, double *restrict im, size_t n)
{
    const size_t half = n / 2;
    const double *restrict c = f->c + half, *restrict s = f->s + half;
    double *restrict re2 = re + half, *restrict im2 = im + half;

    for (size_t k = 0; k < half; k++) {
        double dr = re[k] - re2[k], di = im[k] - im2[k];
        re[k] += re2[k];
        im[k] += im2[k];
        re2[k] = dr * c[k] - di * s[k];
        im2[k] = dr * s[k] + di * c[k];
    }
    if (half > 1) {
        forward(f, re, im, half);
        forward(f, re2, im2, half);
    }
}

static void inverse(const struct fl_fft *f, double *restrict re, double *restrict im, size_t n)
{
    const size_t half = n / 2;
    const double *restrict c = f->c + half, *restrict s = f->s + half;
    double *restrict re2 = re + half, *restrict im2 = im + half;

    if (half > 1) {
        inverse(f, re, im, half);
        inverse(f, re2, im2, half);
    }
    for (size_t k = 0; k < half; k++) {
        double tr = re2[k] * c[k] + im2[k] * s[k], ti = im2[k] * c[k] - re2[k] * s[k];
        re2[k] = re[k] - tr;
        im2[k] = im[k] - ti;
        re[k] += tr;
        im[k] += ti;
    }
}

void fl_fft_forward(const struct fl_fft *f, double *re, double *im)
{
    forward(f, re, im, f->size);
}

void fl_fft_inverse(const struct fl_fft *f, double *re, double *im)
{
    const double scale = 1 / (double)f->size;

    inverse(f, re, im, f->size);
    for (size_t k = 0; k < f->size; k++) {
        re[k] *= scale;
        im[k] *= scale;
    }
}
