/*
 * The argument. Let C be the clip and h the step. An example's contribution is the vector q of
 * integers made of
 *
 *     w' and d'                       for a weight whose gradient is written out, and for biases,
 *     sum_t g'_to a'_ti               for the weight of a linear layer, t its tokens (one, or those
 *                                     of a sequence)
 *
 * where w', d', g' and a' are integers made from this example's pieces by rounding: w' = round(f
 * w), the bias's d' = round(f d), the factors g' = round(f 2^s g) and a' = round(2^-s a), with a
 * factor f that clips and a whole number s that shares the grid between the factors.
 * How well they were chosen decides how good the gradient is, not how private. Privacy rests on
 * three facts only:
 *
 * 1. The norm. Once the integers stand, |q|^2 is computed from them, not from the gradient, and
 *    rounded up. Sums of squares, |w'|^2, |d'|^2 and with one token |g'|^2 |a'|^2: fl_vec_dot adds
 *    at most 256 products in a float lane before it goes on in doubles, all terms are positive, so
 *    the true sum is below (1 + 2^-14) times the computed one, and a product of two below (1 +
 *    2^-12.9). With several tokens it is the sum over pairs of (g'_t . g'_u)(a'_t . a'_u), whose
 *    terms can be negative: let S = sum_t |g'_t| |a'_t|. As long as no |g'_t|^2 or |a'_t|^2 is
 * above 2^23 every partial sum of every inner product is an integer that a float holds, and with
 * S^2
 *    <= 2^53 every partial sum of theirs one that a double holds: nothing is rounded. Otherwise an
 *    inner product of n <= 2^16 terms is off by at most n 2^-24 (1 + 2^-7) times the product of its
 *    vectors' norms, and the sum of at most 2^24 pairs by 2^-29 S^2 more; together below (in + out
 * + 1) 2^-23 S^2 as computed, which is added. If (1 + 2^-12) |q|^2 is above (C/h)^2, f is made
 *    smaller and everything rounded again; if that does not help 64 times, the contribution is
 *    zero. So |q| <= C/h always, however the rounding went.
 *
 * 2. The sum is exact. Written-out parts are added as integers. For linear layers rows of factors,
 *    an example's one or T, are gathered in a block of R >= 64, T of them, and a block's sum is one
 *    matrix product in floats of vectors with max |g'| max |a'| <= 2^24 / R: all partial sums are
 *    integers up to 2^24, which floats hold exactly, in any order and with any fusing of
 *    multiplication and addition. An example whose factors are larger is added element by element,
 *    as integers: |g'| and |a'| are at most 2^22. Which of the two it is makes no difference to the
 *    sum.
 *
 * 3. q depends on this example alone. Its pieces do (fl_model_examples), and the choice of f and s,
 *    how often it was made again, and whether the contribution is zero, follow from the pieces.
 *
 * So adding or removing one example changes the sum by exactly q, |q| <= C/h, and noise of scale
 * sigma C/h on integers is what the accountant takes it for.
 *
 * The grid. With C/h = 2^21 a factor of a layer of 784 x 256 has a root mean square of about 68 and
 * is rounded to integers: 0.4 % of its norm, in a random direction, of a vector that gets noise of
 * hundreds of times its norm. f aims at (1 - 2^-12) C, which leaves room for what rounding adds to
 * the norm.
 *
 * A gradient that is not finite, or has a norm above 2^60, contributes zero: whether training fails
 * must not depend on one example.
 */
#include "client/trainer/clipsum.h"

#include "common/base/mem.h"
#include "common/math/tile.h"
#include "common/math/vec.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 64, TRIES = 64, CHUNK = 16384, SMALL = 4096, PIECE = 256 };
static const double SLACK = 1 + 0x1p-12;

/* One layer's part of an example. */
struct part {
    struct fl_piece shape;
    size_t width; /* of the written-out weight; 0 for a product */
    float *d;     /* out: the bias's integers */
    float f;      /* what it was rounded with */
    int32_t *sum; /* of its integers over some examples */
    size_t rows;  /* of factors, for each example */
    size_t block; /* how many rows are gathered */
    float *gg;    /* block x out: factors */
    float *aa;    /* block x in */
    size_t waiting;
};

struct fl_clipsum {
    size_t elements;
    double clip, step;
    bool per_layer;
    int64_t *sum;
    uint32_t parts; /* 0 until the first example */
    struct part part[FL_MODEL_PIECES_MAX];
    float *tile;      /* CHUNK or a row of a linear layer, whichever is more */
    int64_t *moved;   /* the widest written-out weight */
    float *pairs;     /* inner products of tokens: 2 x rows x rows */
    uint32_t waiting; /* examples in part.sum */
};

int fl_clipsum_new(size_t elements, double clip, double scale_max, bool per_layer,
                   struct fl_clipsum **ret, struct fl_err *e)
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
    if (step * sqrt((double)elements) / 2 > clip / 4) {
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
    c->clip = clip;
    c->step = step;
    c->per_layer = per_layer;
    *ret = c;
    return 0;
}

void fl_clipsum_free(struct fl_clipsum *c)
{
    if (!c) {
        return;
    }
    for (uint32_t i = 0; i < FL_MODEL_PIECES_MAX; i++) {
        struct part *p = &c->part[i];
        fl_free(p->d);
        fl_free(p->sum);
        fl_free(p->gg);
        fl_free(p->aa);
    }
    fl_free(c->tile);
    fl_free(c->moved);
    fl_free(c->pairs);
    fl_free(c->sum);
    fl_free(c);
}

double fl_clipsum_step(const struct fl_clipsum *c)
{
    return c->step;
}

static bool new_part(struct part *p, const struct fl_piece *shape)
{
    p->shape = *shape;
    p->width = shape->a ? 0 : shape->in * shape->out;
    p->d = fl_try_aligned(shape->out, sizeof *p->d);
    if (p->width) {
        p->sum = fl_try_aligned(p->width, sizeof *p->sum);
        return p->d && p->sum;
    }
    if (shape->a) {
        p->rows = shape->g ? shape->rows : 1;
        p->block = p->rows < BLOCK ? BLOCK / p->rows * p->rows : p->rows;
        p->gg = fl_try_aligned(p->block * shape->out, sizeof *p->gg);
        p->aa = fl_try_aligned(p->block * shape->in, sizeof *p->aa);
        return p->d && p->gg && p->aa;
    }
    return p->d;
}

static int make_parts(struct fl_clipsum *c, const struct fl_piece *pieces, uint32_t count,
                      struct fl_err *e)
{
    size_t row = CHUNK, widest = 1, tokens = 1;
    bool ok = true;

    for (uint32_t i = 0; ok && i < count; i++) {
        const struct fl_piece *p = &pieces[i];
        ok = new_part(&c->part[i], p);
        row = p->a && p->in > row ? p->in : row;
        widest = c->part[i].width > widest ? c->part[i].width : widest;
        tokens = c->part[i].rows > tokens ? c->part[i].rows : tokens;
    }
    c->tile = ok ? fl_try_aligned(row, sizeof *c->tile) : NULL;
    c->moved = ok ? fl_try_aligned(widest, sizeof *c->moved) : NULL;
    c->pairs = ok ? fl_try_aligned(2 * tokens * tokens, sizeof *c->pairs) : NULL;
    if (!c->tile || !c->moved || !c->pairs) {
        return fl_fail(e, FL_R_NOMEM, "gradients of a block of examples");
    }
    c->parts = count;
    return 0;
}

/* ---- making integers ---- */

/* round(factor * x), ties to even; beyond 2^22 something near, which the norm then shows. Whoever
 * rounds the same twice gets the same. */
static inline float round_one(float factor, float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: no fraction fits beside it */
    float y = factor * x;

    y = y < 0x1p22f ? y : 0x1p22f;
    y = y > -0x1p22f ? y : -0x1p22f;
    return (y + magic) - magic;
}

FL_VECTOR static void round_to(float factor, const float *restrict x, float *restrict to,
                               size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = round_one(factor, x[i]);
    }
}

/* In pieces, whose sums a processor can work on side by side. */
static double square_of(const float *x, size_t count)
{
    double sum = 0;

    for (size_t at = 0, n; at < count; at += n) {
        n = count - at < PIECE ? count - at : PIECE;
        sum += fl_vec_dot(x + at, x + at, n);
    }
    return sum;
}

/* Returns the squared norm of the rounded ones (fact 1), which stand in `to` unless it is NULL. */
static double round_all(float factor, const float *x, float *to, size_t count)
{
    float room[PIECE];
    double sum = 0;

    for (size_t at = 0, n; at < count; at += n) {
        n = count - at < PIECE ? count - at : PIECE;
        float *put = to ? to + at : room;
        round_to(factor, x + at, put, n);
        sum += fl_vec_dot(put, put, n);
    }
    return sum;
}

/* In lanes: compilers keep the order of a single maximum, one after the other. */
FL_VECTOR static float largest(const float *x, size_t count)
{
    enum { LANES = 16 };
    float lane[LANES] = {0}, top = 0;
    size_t at = 0;

    for (; count - at >= LANES; at += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            float y = fabsf(x[at + k]);
            lane[k] = y > lane[k] ? y : lane[k];
        }
    }
    for (size_t k = 0; k < LANES; k++) {
        top = lane[k] > top ? lane[k] : top;
    }
    for (; at < count; at++) {
        top = fabsf(x[at]) > top ? fabsf(x[at]) : top;
    }
    return top;
}

/* x_t . x_u for u <= t, and some more. */
static void products_of(const float *x, size_t rows, size_t width, float *to)
{
    enum { STRIP = 8 };
    struct fl_tile tile = {.k = width, .segments = 1, .lda = width, .ldb = width, .ldc = rows};

    for (size_t t = 0; t < rows; t += STRIP) {
        tile.m = rows - t < STRIP ? rows - t : STRIP;
        tile.n = t + tile.m;
        fl_tile_nt(&tile, x + t * width, x, NULL, to + t * rows);
    }
}

/* |sum_t g_t a_t^T|^2, of integers from above (fact 1); of others, about. */
static double tokens_norm2(const struct fl_clipsum *c, const struct part *p, const float *g,
                           const float *a)
{
    size_t rows = p->rows, in = p->shape.in, out = p->shape.out;
    float *gg = c->pairs, *aa = gg + rows * rows, top = 0;
    double sum = 0, norms = 0;

    products_of(g, rows, out, gg);
    products_of(a, rows, in, aa);
    for (size_t t = 0; t < rows; t++) {
        const float *gt = gg + t * rows, *at = aa + t * rows;
        double row = 0;
        for (size_t u = 0; u < t; u++) {
            row += (double)gt[u] * (double)at[u];
        }
        double square = (double)gt[t] * (double)at[t];
        sum += square + 2 * row;
        norms += sqrt(square);
        top = gt[t] > top ? gt[t] : top;
        top = at[t] > top ? at[t] : top;
    }
    bool exact = top <= 0x1p23f && norms * norms <= 0x1p53;
    sum += exact ? 0 : (double)(in + out + 1) * 0x1p-23 * norms * norms;
    return sum < 0 ? 0 : sum;
}

/* What guides the choice of f and s only. */
struct about {
    double norm2; /* the squared norm of a layer's gradient */
    double a2;    /* of all its factors a */
};

static struct about about_of(const struct fl_clipsum *c, const struct part *p,
                             const struct fl_piece *from)
{
    double d = square_of(from->d, from->out);
    struct about about = {.norm2 = d};

    if (!from->a) {
        about.norm2 += square_of(from->w, from->in * from->out);
        return about;
    }
    about.a2 = square_of(from->a, p->rows * from->in);
    about.norm2 += from->g ? tokens_norm2(c, p, from->g, from->a) : d * about.a2;
    return about;
}

/* The integers of one layer with factor f; returns their squared norm, about (fact 1). */
static double make_integers(const struct fl_clipsum *c, struct part *p, const struct fl_piece *from,
                            double a2, double f)
{
    size_t in = p->shape.in, out = p->shape.out;
    double sum = round_all((float)f, from->d, p->d, out);

    if (p->width) {
        p->f = (float)f;
        return sum + round_all(p->f, from->w, NULL, p->width);
    }
    if (!from->a) {
        return sum;
    }
    const float *g = from->g ? from->g : from->d;
    float *gg = p->gg + p->waiting * out, *aa = p->aa + p->waiting * in;
    /* Both factors with the same root mean square, in powers of two. */
    double g2 = square_of(g, p->rows * out) * f * f;
    int s = 0;
    if (a2 > 0 && g2 > 0) {
        double ratio = (a2 / (double)in) / (g2 / (double)out);
        s = (int)lrint(0.25 * log2(ratio));
    }
    s = s < -60 ? -60 : s > 60 ? 60 : s;
    double gg2 = round_all((float)ldexp(f, s), g, gg, p->rows * out);
    double aa2 = round_all((float)ldexp(1, -s), from->a, aa, p->rows * in);
    return sum + (from->g ? tokens_norm2(c, p, gg, aa) : gg2 * aa2);
}

/* Makes the integers of layers from `first` on within the bound; false: they are zero. */
static bool make_within(struct fl_clipsum *c, const struct fl_piece *pieces, uint32_t first,
                        uint32_t count, const struct about *about, double norm2, double bound)
{
    double norm = sqrt(norm2), aim = bound * (1 - 0x1p-12), shrink = 1;

    for (int k = 0; k < TRIES; k++, shrink *= 1 - ldexp(1, k < 5 ? k - 11 : -6)) {
        double f = fmin(shrink / c->step, norm > 0 ? shrink * aim / norm : INFINITY), sum = 0;
        for (uint32_t i = first; i < first + count; i++) {
            sum += make_integers(c, &c->part[i], &pieces[i], about[i].a2, f);
        }
        if (sum * SLACK <= bound * bound) {
            return true;
        }
    }
    return false;
}

/* ---- adding up ---- */

FL_VECTOR static void add_rounded(float f, const float *restrict x, int32_t *restrict to,
                                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += (int32_t)round_one(f, x[i]);
    }
}

FL_VECTOR static void add_product(float d, const float *restrict a, int64_t *restrict to,
                                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += (int64_t)((double)d * (double)a[i]); /* exact: below 2^53 */
    }
}

FL_VECTOR static void widen_floats(const float *restrict from, int64_t *restrict to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += (int32_t)from[i];
    }
}

FL_VECTOR static void widen(const int32_t *restrict from, int64_t *restrict to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

/* Rows of a linear layer's weight that are worked on together, so that they stay in the cache. */
static size_t rows_at_once(const struct part *p)
{
    return CHUNK / p->shape.in ? CHUNK / p->shape.in : 1;
}

/* A block's sum of products, for rows from `at` on; returns how many. */
static size_t flush_rows(struct fl_clipsum *c, const struct part *p, size_t at)
{
    size_t in = p->shape.in, out = p->shape.out, rows = rows_at_once(p);
    struct fl_tile t = {.n = in, .k = p->waiting, .segments = 1, .lda = out, .ldb = in, .ldc = in};

    t.m = out - at < rows ? out - at : rows;
    if (p->waiting) {
        fl_tile_tn(&t, p->gg + at, p->aa, false, c->tile);
        widen_floats(c->tile, c->sum + p->shape.weight + at * in, t.m * in);
    }
    return t.m;
}

static void flush_products(struct fl_clipsum *c, struct part *p)
{
    for (size_t at = 0; at < p->shape.out;) {
        at += flush_rows(c, p, at);
    }
    p->waiting = 0;
}

static void flush_written(struct fl_clipsum *c)
{
    for (uint32_t i = 0; i < c->parts; i++) {
        struct part *p = &c->part[i];
        if (p->width) {
            widen(p->sum, c->sum + p->shape.weight, p->width);
            memset(p->sum, 0, p->width * sizeof *p->sum);
        }
    }
    c->waiting = 0;
}

static void add_part(struct fl_clipsum *c, struct part *p, const struct fl_piece *from)
{
    size_t in = p->shape.in, out = p->shape.out;
    widen_floats(p->d, c->sum + p->shape.bias, out);
    if (p->width) {
        add_rounded(p->f, from->w, p->sum, p->width);
        return;
    }
    if (!p->shape.a) {
        return;
    }
    const float *gg = p->gg + p->waiting * out, *aa = p->aa + p->waiting * in;
    double most = (double)largest(gg, p->rows * out) * (double)largest(aa, p->rows * in);
    if (p->rows * in * out > SMALL && most * (double)p->block <= 0x1p24) {
        p->waiting += p->rows;
        if (p->waiting == p->block) {
            flush_products(c, p);
        }
        return;
    }
    for (size_t k = 0; k < p->rows * out; k++) {
        add_product(gg[k], aa + k / out * in, c->sum + p->shape.weight + k % out * in, in);
    }
}

int fl_clipsum_add(struct fl_clipsum *c, const struct fl_piece *pieces, uint32_t count,
                   struct fl_err *e)
{
    struct about about[FL_MODEL_PIECES_MAX];
    double all = 0;
    double bound = c->clip / c->step;
    int r;

    if (c->parts == 0 && (r = make_parts(c, pieces, count, e)) < 0) {
        return r;
    }
    for (uint32_t i = 0; i < count; i++) {
        about[i] = about_of(c, &c->part[i], &pieces[i]);
        all += about[i].norm2;
    }
    if (!(all <= 0x1p120)) {
        return 0;
    }
    if (!c->per_layer && !make_within(c, pieces, 0, count, about, all, bound)) {
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!c->per_layer ||
            make_within(c, pieces, i, 1, about, about[i].norm2, bound / sqrt((double)count))) {
            add_part(c, &c->part[i], &pieces[i]);
        }
    }
    if (++c->waiting == 512) { /* 2^9 integers of at most 2^21 */
        flush_written(c);
    }
    return 0;
}

/* From the engine's order of a convolution's weight to theta's. */
static void move_written(struct fl_clipsum *c, const struct part *p)
{
    int64_t *sum = c->sum + p->shape.weight;
    size_t at = 0, window = p->shape.window, channels = p->shape.in / (window ? window : 1);

    if (!p->width || window == 0) {
        return;
    }
    memcpy(c->moved, sum, p->width * sizeof *sum);
    for (size_t k = 0; k < window; k++) {
        for (size_t i = 0; i < channels; i++) {
            for (size_t o = 0; o < p->shape.out; o++) {
                sum[(o * channels + i) * window + k] = c->moved[at++];
            }
        }
    }
}

/* Hands out what is final, up to element `to`, once it is worth a call; then it is zero again. */
static void hand_out(struct fl_clipsum *c, size_t *at, size_t to, fl_clipsum_taker *take, void *arg)
{
    assert(to >= *at); /* pieces are in theta's order */
    if (to - *at >= CHUNK || (to == c->elements && to > *at)) {
        take(arg, *at, c->sum + *at, to - *at);
        memset(c->sum + *at, 0, (to - *at) * sizeof *c->sum);
        *at = to;
    }
}

void fl_clipsum_drain(struct fl_clipsum *c, fl_clipsum_taker *take, void *arg)
{
    size_t at = 0;

    flush_written(c);
    for (uint32_t i = 0; i < c->parts; i++) {
        struct part *p = &c->part[i];
        move_written(c, p);
        if (!p->shape.a) {
            hand_out(c, &at, p->shape.weight, take, arg);
            continue;
        }
        for (size_t row = 0; row < p->shape.out;) {
            row += flush_rows(c, p, row);
            hand_out(c, &at, p->shape.weight + row * p->shape.in, take, arg);
        }
        p->waiting = 0;
    }
    hand_out(c, &at, c->elements, take, arg);
}
