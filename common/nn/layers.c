#include "common/nn/layers.h"

#include "common/math/vec.h"

#include <math.h>
#include <string.h>

/* One window position against the best so far, over all channels: "first maximum, or NaN". */
FL_VECTOR static void better(const float *x, uint8_t number, size_t channels, float *best,
                             uint8_t *place)
{
    for (size_t c = 0; c < channels; c++) {
        uint8_t take = (uint8_t)(x[c] > best[c] || x[c] != x[c]);
        best[c] = take ? x[c] : best[c];
        place[c] = take ? number : place[c];
    }
}

void fl_pool_forward(const float *x, size_t width, size_t channels, size_t kernel,
                     size_t out_height, size_t out_width, float *y, uint8_t *place)
{
    for (size_t oy = 0; oy < out_height; oy++) {
        for (size_t ox = 0; ox < out_width; ox++) {
            const float *window = x + (oy * kernel * width + ox * kernel) * channels;
            memcpy(y, window, channels * sizeof *y);
            memset(place, 0, channels);
            for (size_t k = 1; k < kernel * kernel; k++) {
                better(window + (k / kernel * width + k % kernel) * channels, (uint8_t)k, channels,
                       y, place);
            }
            y += channels;
            place += channels;
        }
    }
}

FL_VECTOR static void spread(const float *dy, const uint8_t *place, uint8_t number, size_t channels,
                             float *dx)
{
    for (size_t c = 0; c < channels; c++) {
        dx[c] = place[c] == number ? dy[c] : 0;
    }
}

void fl_pool_backward(const float *dy, const uint8_t *place, size_t height, size_t width,
                      size_t channels, size_t kernel, size_t out_height, size_t out_width,
                      float *dx)
{
    if (out_height * kernel < height || out_width * kernel < width) {
        memset(dx, 0, height * width * channels * sizeof *dx); /* the ragged edge is in no window */
    }
    for (size_t oy = 0; oy < out_height; oy++) {
        for (size_t ox = 0; ox < out_width; ox++) {
            float *window = dx + (oy * kernel * width + ox * kernel) * channels;
            for (size_t k = 0; k < kernel * kernel; k++) {
                spread(dy, place, (uint8_t)k, channels,
                       window + (k / kernel * width + k % kernel) * channels);
            }
            dy += channels;
            place += channels;
        }
    }
}

FL_VECTOR void fl_leaky_forward(float *x, size_t count, float slope)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = x[i] > 0 ? x[i] : x[i] * slope;
    }
}

FL_VECTOR void fl_leaky_backward(const float *y, float *d, size_t count, float slope)
{
    for (size_t i = 0; i < count; i++) {
        d[i] = y[i] > 0 ? d[i] : d[i] * slope;
    }
}

void fl_to_hwc(const float *x, size_t channels, size_t pixels, float *to)
{
    if (channels == 1 || pixels == 1) {
        memcpy(to, x, channels * pixels * sizeof *to);
        return;
    }
    for (size_t c = 0; c < channels; c++) {
        for (size_t p = 0; p < pixels; p++) {
            to[p * channels + c] = x[c * pixels + p];
        }
    }
}

void fl_to_chw(const float *x, size_t channels, size_t pixels, float *to)
{
    fl_to_hwc(x, pixels, channels, to);
}

void fl_fill_rows(const float *bias, size_t rows, size_t columns, float *y)
{
    for (size_t r = 0; r < rows; r++) {
        memcpy(y + r * columns, bias, columns * sizeof *y);
    }
}

double fl_softmax_loss(const float *logits, size_t classes, int32_t label, float weight, float *d)
{
    float top = logits[0];
    double sum = 0;
    float at_label = logits[label];

    for (size_t c = 1; c < classes; c++) {
        top = logits[c] > top ? logits[c] : top;
    }
    for (size_t c = 0; c < classes; c++) {
        sum += exp((double)logits[c] - (double)top);
    }
    if (d) {
        for (size_t c = 0; c < classes; c++) {
            double p = exp((double)logits[c] - (double)top) / sum;
            d[c] = weight * (float)(p - ((size_t)label == c));
        }
    }
    return log(sum) + (double)top - (double)at_label;
}
