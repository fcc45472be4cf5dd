/*
 * A short Fourier transform for convolving probability vectors: sizes are powers of two, real and
 * imaginary parts apart. The forward transform leaves its result in bit-reversed order, which the
 * inverse takes; products of spectra do not mind.
 */
#ifndef FL_PRIVACY_FFT_H
#define FL_PRIVACY_FFT_H

#include <stddef.h>

struct fl_fft; /* the roots of unity for one size */

/* NULL when memory ends. size = 2^k, 2 <= size <= 2^24. */
struct fl_fft *fl_fft_new(size_t size);
void fl_fft_free(struct fl_fft *f);
void fl_fft_forward(const struct fl_fft *f, double *re, double *im);
/* Divides by the size. */
void fl_fft_inverse(const struct fl_fft *f, double *re, double *im);

#endif
