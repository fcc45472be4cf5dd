/*
 * Scattering (Bruna & Mallat 2013, arXiv 1203.1513): features of an image that nobody trained. With
 * psi_{j,t} a Morlet wavelet at scale 2^j and angle pi t / L, and phi a Gaussian at scale 2^J,
 *
 *     S0 = x * phi       S1[j, t] = |x * psi_{j,t}| * phi
 *     S2[j, t, k, u] = ||x * psi_{j,t}| * psi_{k,u}| * phi        k > j
 *
 * each on every 2^J-th pixel. The modulus makes them indifferent to small shifts and steady under
 * small deformations; what phi loses of it the next order keeps. Order 1 is a bank of Gabor filters
 * with its energies pooled.
 *
 * The mother wavelet, in pixels, s = 4 / L (its waves are that much shorter than long):
 *
 *     psi(u, v) = s / (2 pi a^2) (exp(i w u) - b) exp(-(u^2 + s^2 v^2) / (2 a^2))
 *     a = 0.8,  w = 3 pi / 4,  b such that the sum over its window is 0
 *
 * in windows of 2 ceil(3 a 2^j) + 1 pixels; phi is the Gaussian of a 2^J in such a window, its sum
 * 1. Images are continued by reflection. Whatever was filtered at scale 2^j is kept on every 2^j-th
 * pixel, where the wavelet at 2^k is that of k - j: so a convolution is known by the resolution it
 * runs at and by the scale relative to it. It is one convolution with 2 L outputs (real and
 * imaginary parts beside each other) by conv.c; phi is separable and runs as two sums.
 *
 * Channels are taken one by one; the outputs of one are S0, all S1[j, t], all S2 with j, k, t, u as
 * digits, the last one fastest. With `root` each is sign(s) sqrt(|s|), which evens them out for a
 * linear head. No tensors, so nothing flows back: spec.c sees that nothing before it wants to
 * learn.
 */
#include "common/base/mem.h"
#include "common/nn/kinds.h"
#include "common/nn/layers.h"
#include "common/nn/run.h"

#include <math.h>
#include <string.h>

enum { SCALES = FL_SCATTERING_SCALES_MAX, ANGLES = FL_SCATTERING_ANGLES_MAX };

struct scattering {
    size_t scales, angles, paths;
    bool second, root;
    size_t height[SCALES + 1], width[SCALES + 1]; /* at each resolution */
    struct fl_conv wave[SCALES][SCALES];          /* resolution, relative scale */
    float *gauss[SCALES + 1];                     /* phi's sides, by relative scale */
    float *plane, *padded, *pairs, *first, *other, *rows, *low;
    float zero[2 * ANGLES];
};

/* ---- filters ---- */

void fl_scattering_waves(uint32_t angles, uint32_t scale, float *to)
{
    const double pi = 3.14159265358979323846, a = 0.8, w = 3 * pi / 4;
    double slant = 4.0 / angles, wide = ldexp(1, (int)scale);
    double size = slant / (2 * pi * a * a * wide * wide);
    size_t side = 2 * (size_t)fl_scattering_radius(scale) + 1, count = side * side;
    double middle = (double)(side / 2);

    for (size_t t = 0; t < angles; t++) {
        double turn = pi * (double)t / angles, wave = 0, all = 0;
        float *re = to + 2 * t * count, *im = re + count;
        for (int pass = 0; pass < 2; pass++) { /* b first */
            double b = pass ? wave / all : 0;
            for (size_t i = 0; i < count; i++) {
                double y = (double)(i / side) - middle, x = (double)(i % side) - middle;
                double u = (cos(turn) * x + sin(turn) * y) / wide;
                double v = (cos(turn) * y - sin(turn) * x) / wide * slant;
                double envelope = exp(-(u * u + v * v) / (2 * a * a));
                wave += pass ? 0 : envelope * cos(w * u); /* its sine sums to 0 */
                all += pass ? 0 : envelope;
                re[i] = (float)(size * envelope * (cos(w * u) - b));
                im[i] = (float)(size * envelope * sin(w * u));
            }
        }
    }
}

void fl_scattering_gauss(uint32_t scale, float *to)
{
    size_t radius = fl_scattering_radius(scale);
    double std = 0.8 * ldexp(1, (int)scale), sum = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < 2 * radius + 1; i++) {
            double far = (double)i - (double)radius, g = exp(-far * far / (2 * std * std));
            to[i] = (float)(pass ? g / sum : 0);
            sum += pass ? 0 : g;
        }
    }
}

/* ---- state ---- */

static void scattering_close(void *state)
{
    struct scattering *s = state;

    for (size_t i = 0; s && i < SCALES; i++) {
        for (size_t k = 0; k < SCALES; k++) {
            fl_conv_fini(&s->wave[i][k]);
        }
        fl_free(s->gauss[i + 1]);
    }
    if (s) {
        float *all[] = {s->plane, s->padded, s->pairs, s->first, s->other, s->rows, s->low};
        for (size_t i = 0; i < FL_COUNT(all); i++) {
            fl_free(all[i]);
        }
    }
    fl_free(s);
}

static bool open_waves(struct scattering *s, uint32_t at, uint32_t scale)
{
    struct fl_conv *c = &s->wave[at][scale];
    size_t border = 2 * (size_t)fl_scattering_radius(scale);

    *c = (struct fl_conv){.channels = 1,
                          .height = s->height[at] + border,
                          .width = s->width[at] + border,
                          .out = 2 * s->angles,
                          .kernel = border + 1,
                          .stride = (size_t)1 << scale,
                          .out_height = s->height[at + scale],
                          .out_width = s->width[at + scale]};
    float *room = fl_try(c->out * c->kernel * c->kernel, sizeof *room);
    bool good = room && fl_conv_init(c);
    if (good) {
        fl_scattering_waves((uint32_t)s->angles, scale, room);
        fl_conv_set(c, room);
    }
    fl_free(room);
    return good;
}

static bool open_filters(struct scattering *s)
{
    for (uint32_t i = 1; i <= s->scales; i++) {
        s->gauss[i] = fl_try(2 * (size_t)fl_scattering_radius(i) + 1, sizeof(float));
        if (!s->gauss[i]) {
            return false;
        }
        fl_scattering_gauss(i, s->gauss[i]);
    }
    for (uint32_t at = 0; at < s->scales; at++) {
        for (uint32_t scale = at > 0; at + scale < s->scales; scale++) {
            if ((at == 0 || s->second) && !open_waves(s, at, scale)) {
                return false;
            }
        }
    }
    return true;
}

static void *scattering_open(const struct fl_layer *l)
{
    struct scattering *s = fl_try(1, sizeof *s);

    if (!s) {
        return NULL;
    }
    s->scales = l->scales;
    s->angles = l->angles;
    s->second = l->order == 2;
    s->root = l->root;
    s->paths = l->out_shape[0] / l->in_shape[0];
    for (size_t i = 0; i <= s->scales; i++) {
        size_t step = (size_t)1 << i;
        s->height[i] = (l->in_shape[1] + step - 1) / step;
        s->width[i] = (l->in_shape[2] + step - 1) / step;
    }
    size_t pixels = s->height[0] * s->width[0], border = 2 * fl_scattering_radius(l->scales);
    size_t high = s->height[0] + border, wide = s->width[0] + border;
    s->plane = fl_try_aligned(pixels, sizeof(float));
    s->padded = fl_try_aligned(high * wide + FL_SLACK, sizeof(float));
    s->pairs = fl_try_aligned(2 * s->angles * pixels + FL_SLACK, sizeof(float));
    s->first = fl_try_aligned(s->angles * pixels, sizeof(float));
    s->other = fl_try_aligned(s->angles * pixels, sizeof(float));
    s->rows = fl_try_aligned(high * s->width[s->scales], sizeof(float));
    s->low = fl_try_aligned(s->height[s->scales] * s->width[s->scales], sizeof(float));
    if (!s->plane || !s->padded || !s->pairs || !s->first || !s->other || !s->rows || !s->low ||
        !open_filters(s)) {
        scattering_close(s);
        return NULL;
    }
    return s;
}

/* ---- forward ---- */

/* Place i - radius of a side, reflected at both ends without repeating them. */
static size_t reflected(size_t i, size_t radius, size_t side)
{
    size_t at = i < radius ? radius - i : i - radius;

    return at < side ? at : 2 * (side - 1) - at;
}

static void pad(struct scattering *s, const float *x, size_t at, size_t radius)
{
    size_t height = s->height[at], width = s->width[at], line = width + 2 * radius;

    for (size_t y = 0; y < height + 2 * radius; y++) {
        const float *from = x + reflected(y, radius, height) * width;
        float *to = s->padded + y * line;
        for (size_t i = 0; i < radius; i++) {
            to[i] = from[reflected(i, radius, width)];
            to[radius + width + i] = from[reflected(radius + width + i, radius, width)];
        }
        memcpy(to + radius, from, width * sizeof *to);
    }
}

/* |x * psi| of a plane at resolution `at`, all angles: planes at resolution at + scale. */
static void modulus(struct scattering *s, const float *x, size_t at, size_t scale, float *to)
{
    struct fl_conv *c = &s->wave[at][scale];
    size_t pixels = c->out_height * c->out_width;

    pad(s, x, at, c->kernel / 2);
    fl_conv_forward(c, s->zero, s->padded, s->pairs);
    for (size_t p = 0; p < pixels; p++) {
        const float *pair = s->pairs + p * c->out;
        for (size_t t = 0; t < s->angles; t++) {
            to[t * pixels + p] =
                sqrtf(pair[2 * t] * pair[2 * t] + pair[2 * t + 1] * pair[2 * t + 1]);
        }
    }
}

/* x * phi of a plane at resolution `at`, into output `path` of a channel. */
static void smooth(struct scattering *s, const float *x, size_t at, size_t channels, float *to)
{
    size_t scale = s->scales - at, step = (size_t)1 << scale;
    size_t radius = fl_scattering_radius((uint32_t)scale), window = 2 * radius + 1;
    size_t high = s->height[at] + 2 * radius, line = s->width[at] + 2 * radius;
    size_t out_height = s->height[s->scales], out_width = s->width[s->scales];
    const float *g = s->gauss[scale];

    pad(s, x, at, radius);
    for (size_t y = 0; y < high; y++) {
        for (size_t ox = 0; ox < out_width; ox++) {
            const float *from = s->padded + y * line + ox * step;
            float sum = 0;
            for (size_t i = 0; i < window; i++) {
                sum += g[i] * from[i];
            }
            s->rows[y * out_width + ox] = sum;
        }
    }
    for (size_t oy = 0; oy < out_height; oy++) {
        float *sum = s->low;
        memset(sum, 0, out_width * sizeof *sum);
        for (size_t i = 0; i < window; i++) {
            for (size_t ox = 0; ox < out_width; ox++) {
                sum[ox] += g[i] * s->rows[(oy * step + i) * out_width + ox];
            }
        }
        for (size_t ox = 0; ox < out_width; ox++) {
            float v = s->root ? copysignf(sqrtf(fabsf(sum[ox])), sum[ox]) : sum[ox];
            to[(oy * out_width + ox) * channels] = v;
        }
    }
}

/* One channel, the plane; `to`: its first output, a pixel's outputs are `channels` apart. */
static void scatter(struct scattering *s, size_t channels, float *to)
{
    float *next = to + 1, *second = to + 1 + s->scales * s->angles;

    smooth(s, s->plane, 0, channels, to);
    for (size_t j = 0; j < s->scales; j++) {
        size_t pixels = s->height[j] * s->width[j];
        modulus(s, s->plane, 0, j, s->first);
        for (size_t t = 0; t < s->angles; t++) {
            smooth(s, s->first + t * pixels, j, channels, next++);
        }
        for (size_t k = j + 1; s->second && k < s->scales; k++) {
            size_t fewer = s->height[k] * s->width[k];
            for (size_t t = 0; t < s->angles; t++) {
                modulus(s, s->first + t * pixels, j, k - j, s->other);
                for (size_t v = 0; v < s->angles; v++) {
                    smooth(s, s->other + v * fewer, k, channels, second++);
                }
            }
        }
    }
}

static void scattering_forward(const struct fl_run *r)
{
    struct scattering *s = r->state;
    size_t in = r->layer->in_shape[0], out = r->layer->out_shape[0];
    size_t pixels = s->height[0] * s->width[0];

    for (size_t n = 0; n < r->count; n++) {
        const float *x = r->x + n * fl_run_in(r->layer);
        for (size_t c = 0; c < in; c++) {
            for (size_t p = 0; p < pixels; p++) {
                s->plane[p] = x[p * in + c];
            }
            scatter(s, out, r->y + n * fl_run_out(r->layer) + c * s->paths);
        }
    }
}

const struct fl_runner fl_run_scattering = {
    .forward = scattering_forward, .open = scattering_open, .close = scattering_close};
