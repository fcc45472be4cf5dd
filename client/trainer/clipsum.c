/*
 * The argument. Let C be the clip, h the step, P the number of elements. For one example, g is the
 * vector given by the pieces in exact arithmetic: the stored floats of a convolution's gradient and
 * of biases, the exact products d_o a_i of stored floats for linear layers. Its squared norm
 *
 *     N^2 = sum over pieces of |w|^2 + |d|^2, or |d|^2 (|a|^2 + 1)
 *
 * is computed in doubles from sums of exact squares; with fewer than 2^31 terms in 16 lanes the
 * relative error of N is below 2^-25. N that is not finite, or above 2^100, makes the contribution
 * zero. The factor f = float(min(1, C' / N) / h) and two float multiplications give, for every
 * element,
 *
 *     x = fl(fl(d_o f) a_i)  or  fl(w f):      |x - f_exact g| <= 2^-22 |f_exact g| + 2^-21
 *
 * (three roundings of 2^-24 each; the second term bounds underflow: f >= 2^-90 is normal, d f is
 * off by at most 2^-150 there and |a| < 2^128). The contribution is q = round(x) to nearest:
 *
 *     |q| <= (1 + 2^-22) (1 + 2^-25) C'/h + sqrt(P) (1/2 + 2^-21)
 *
 * which is at most C/h for  C' = (C - h sqrt(P) (1/2 + 2^-20)) (1 - 2^-20).  All |x| are below
 * 2^22, where adding 1.5 * 2^23 rounds to nearest exactly. Sums of a block of 32 fit 32 bits, of
 * blocks 64.
 *
 * That q depends on this example alone needs its pieces to: fl_model_example runs one example in
 * the same buffers with products of the same shapes, whatever else is in the batch.
 *
 * The cost of rounding: C' is below C by a part sqrt(P) 2^-21 of it, 2 in 10,000 for 10^5 elements.
 *
 * How. Norms come first; then a block's examples are added row by row of a weight matrix, so that
 * the sums of the row stay in the first cache and d a^T is never written.
 */
#include "client/trainer/clipsum.h"

#include "common/base/mem.h"
#include "common/math/vec.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, TILE = 2048 };

/* One layer's part of the examples in a block. */
struct part {
    size_t weight, bias, out, in;
    bool product;
    float *d; /* BLOCK x out, times f */
    float *a; /* BLOCK x in, or BLOCK x (out in), times f then */
};

struct fl_clipsum {
    size_t elements;
    double bound; /* C' */
    double step;
    int64_t *sum;
    uint32_t parts; /* 0 until the first example */
    struct part part[FL_SPEC_LAYERS_MAX];
    uint32_t waiting; /* examples in the block */
};

int fl_clipsum_new(size_t elements, double clip, double scale_max, struct fl_clipsum **ret,
                   struct fl_err *e)
{
    struct fl_clipsum *c;
    int exponent;

    if (!(clip >= 0x1p-60 && clip <= 0x1p60) || !(scale_max >= 1)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "a clip of %g", clip);
    }
    scale_max = scale_max < 0x1p21 ? scale_max : 0x1p21;
    /* A power of two with scale_max / 2 <= clip / step < scale_max. */
    frexp(clip / scale_max, &exponent);
    double step = ldexp(1, exponent);
    double lost = step * sqrt((double)elements) * (0.5 + 0x1p-20);
    if (lost > clip / 4) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "clip and noise leave no grid for %zu elements",
                       elements);
    }
    c = fl_try(1, sizeof *c);
    if (c) {
        c->sum = fl_try_aligned(elements, sizeof *c->sum);
    }
    if (!c || !c->sum) {
        fl_free(c);
        return fl_fail(e, FL_R_NOMEM, "a sum of %zu elements", elements);
    }
    c->elements = elements;
    c->step = step;
    c->bound = (clip - lost) * (1 - 0x1p-20);
    *ret = c;
    return 0;
}

void fl_clipsum_free(struct fl_clipsum *c)
{
    if (!c) {
        return;
    }
    for (uint32_t i = 0; i < FL_SPEC_LAYERS_MAX; i++) {
        fl_free(c->part[i].d);
        fl_free(c->part[i].a);
    }
    fl_free(c->sum);
    fl_free(c);
}

double fl_clipsum_step(const struct fl_clipsum *c)
{
    return c->step;
}

void fl_clipsum_reset(struct fl_clipsum *c)
{
    memset(c->sum, 0, c->elements * sizeof *c->sum);
    c->waiting = 0;
}

static int make_parts(struct fl_clipsum *c, const struct fl_piece *pieces, uint32_t count,
                      struct fl_err *e)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_piece *p = &pieces[i];
        size_t width = p->a ? p->in : p->in * p->out;
        struct part *part = &c->part[i];
        part->weight = p->weight;
        part->bias = p->bias;
        part->out = p->out;
        part->in = p->in;
        part->product = p->a != NULL;
        part->d = fl_try_aligned(BLOCK * p->out, sizeof(float));
        part->a = fl_try_aligned(BLOCK * (width ? width : 1), sizeof(float));
        if (!part->d || !part->a) {
            return fl_fail(e, FL_R_NOMEM, "gradients of a block of examples");
        }
    }
    c->parts = count;
    return 0;
}

/* ---- adding up ---- */

/* Nearest integer, ties to even, of |x| <= 2^22. */
static inline int32_t nearest(float x)
{
    float shifted = x + 12582912.0f; /* 1.5 * 2^23 */
    int32_t bits;

    memcpy(&bits, &shifted, sizeof bits);
    return bits - 0x4b400000;
}

FL_VECTOR static void add_product(float d, const float *restrict a, int32_t *restrict to,
                                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += nearest(d * a[i]);
    }
}

FL_VECTOR static void add_rounded(const float *restrict x, int32_t *restrict to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += nearest(x[i]);
    }
}

FL_VECTOR static void widen(const int32_t *restrict from, int64_t *restrict to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

static void add_vectors(const float *x, size_t width, uint32_t examples, int64_t *to)
{
    int32_t tile[TILE];

    for (size_t at = 0; at < width; at += TILE) {
        size_t n = width - at < TILE ? width - at : TILE;
        memset(tile, 0, n * sizeof *tile);
        for (uint32_t k = 0; k < examples; k++) {
            add_rounded(x + k * width + at, tile, n);
        }
        widen(tile, to + at, n);
    }
}

static void add_products(const struct part *p, uint32_t examples, int64_t *to)
{
    int32_t tile[TILE];

    for (size_t o = 0; o < p->out; o++) {
        for (size_t at = 0; at < p->in; at += TILE) {
            size_t n = p->in - at < TILE ? p->in - at : TILE;
            memset(tile, 0, n * sizeof *tile);
            for (uint32_t k = 0; k < examples; k++) {
                add_product(p->d[k * p->out + o], p->a + k * p->in + at, tile, n);
            }
            widen(tile, to + o * p->in + at, n);
        }
    }
}

static void flush(struct fl_clipsum *c)
{
    for (uint32_t i = 0; i < c->parts; i++) {
        const struct part *p = &c->part[i];
        add_vectors(p->d, p->out, c->waiting, c->sum + p->bias);
        if (p->product) {
            add_products(p, c->waiting, c->sum + p->weight);
        } else {
            add_vectors(p->a, p->in * p->out, c->waiting, c->sum + p->weight);
        }
    }
    c->waiting = 0;
}

static double norm_of(const struct fl_piece *pieces, uint32_t count)
{
    double sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct fl_piece *p = &pieces[i];
        double d = fl_vec_norm_squared(p->d, p->out);
        sum += p->a ? d * (fl_vec_norm_squared(p->a, p->in) + 1)
                    : d + fl_vec_norm_squared(p->w, p->in * p->out);
    }
    return sqrt(sum);
}

int fl_clipsum_add(struct fl_clipsum *c, const struct fl_piece *pieces, uint32_t count,
                   struct fl_err *e)
{
    double norm = norm_of(pieces, count);
    int r;

    if (c->parts == 0 && (r = make_parts(c, pieces, count, e)) < 0) {
        return r;
    }
    if (!(norm <= 0x1p100)) {
        return 0;
    }
    float factor = (float)((norm > c->bound ? c->bound / norm : 1) / c->step);
    uint32_t k = c->waiting++;
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_piece *p = &pieces[i];
        const struct part *part = &c->part[i];
        fl_vec_scale(factor, p->d, part->d + k * p->out, p->out);
        if (part->product) {
            memcpy(part->a + k * p->in, p->a, p->in * sizeof *p->a);
        } else {
            fl_vec_scale(factor, p->w, part->a + k * p->in * p->out, p->in * p->out);
        }
    }
    if (c->waiting == BLOCK) {
        flush(c);
    }
    return 0;
}

int64_t *fl_clipsum_take(struct fl_clipsum *c)
{
    flush(c);
    return c->sum;
}
