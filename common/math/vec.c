#include "common/math/vec.h"

#include <string.h>

enum { LANES = 16, FOLD = 4096 };

FL_VECTOR double fl_vec_dot(const float *x, const float *y, size_t count)
{
    double sum = 0;
    size_t at = 0;

    while (at < count) {
        size_t end = count - at < FOLD ? count : at + FOLD;
        float lane[LANES] = {0};

        for (; end - at >= LANES; at += LANES) {
            for (size_t k = 0; k < LANES; k++) {
                lane[k] += x[at + k] * y[at + k];
            }
        }
        for (size_t k = 0; k < LANES; k++) {
            sum += (double)lane[k];
        }
        for (; at < end; at++) {
            sum += (double)x[at] * (double)y[at];
        }
    }
    return sum;
}

FL_VECTOR double fl_vec_norm_squared(const float *x, size_t count)
{
    double lane[LANES] = {0}, sum = 0;
    size_t at = 0;

    for (; count - at >= LANES; at += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            lane[k] += (double)x[at + k] * (double)x[at + k];
        }
    }
    for (size_t k = 0; k < LANES; k++) {
        sum += lane[k];
    }
    for (; at < count; at++) {
        sum += (double)x[at] * (double)x[at];
    }
    return sum;
}

FL_VECTOR void fl_vec_axpy(float a, const float *restrict x, float *restrict y, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        y[i] += a * x[i];
    }
}

FL_VECTOR void fl_vec_scale(float a, const float *x, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = a * x[i];
    }
}

FL_VECTOR void fl_vec_add(const float *x, const float *y, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = x[i] + y[i];
    }
}

FL_VECTOR void fl_vec_sub(const float *x, const float *y, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = x[i] - y[i];
    }
}

FL_VECTOR void fl_vec_sum_rows(const float *restrict x, size_t rows, size_t columns,
                               float *restrict sum)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            sum[c] += x[r * columns + c];
        }
    }
}

FL_VECTOR bool fl_vec_finite(const float *x, size_t count)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
    }
    return !bad;
}
