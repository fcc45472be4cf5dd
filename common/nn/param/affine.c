/*
 * The published generator: f = relu(M v + m), theta = W f + b, W of P x H elements: 14.8 million
 * for the Fashion-MNIST network with H = 128, where theta has 115,776. Here W is stored by hidden
 * units: H rows, each a vector like theta (in pieces, one for each tensor). The gradient of a step
 * is
 *
 *     dW = g f^T,  db = g,  df = W^T g,  dp = df [p > 0],  dM = dp v^T,  dm = dp,  dv = M^T dp
 *     |all but dv|^2 = |g|^2 (|f|^2 + 1) + |dp|^2 (|v|^2 + 1)
 *
 * so dW is never needed as a matrix, nor is its norm. Only rows whose unit is active (f > 0) take
 * part in theta, and only their df passes the ReLU: the others, about half, are not even read.
 *
 * Many units: after k steps W is W_0, g's and scalars.
 *
 *     W = a W_0 + sum_j C_j G_j^T     momentum buffer = b W_0 + sum_j D_j G_j^T    (G_j: g of step
 * j)
 *
 *     each step   b <- mu b + wd a;  D <- mu D + wd C, and D_k = c f for the new j = k;
 *                 a <- a - lr b;     C <- C - lr D                                  (c: clip
 * factor) theta       a W_0 f + sum_j (C_j f) G_j + b df          a W_0^T g + sum_j C_j (G_j g)
 *
 * Two passes over the active part of W_0 for a step instead of reading and writing W and its
 * momentum. When the rows of G are full they are folded into W_0. The momentum buffer is then (b/a)
 * W + sum_j (D_j - b/a C_j) G_j^T; terms older than mu^r < 2^-30 are dropped, the others kept.
 *
 * Few units: W and its momentum fit into the cache; a step updates them tile by tile, rank one, and
 * makes the new theta in the same pass. Which it is follows from memory: factors are used while G
 * is not larger than W.
 */
#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/vec.h"
#include "common/nn/param/generator.h"

#include <math.h>
#include <string.h>

enum { TILE = 4096, FRESH = 32 };

/* A piece of W: rows of `count` elements, for the elements of theta from `offset` on. */
struct piece {
    float *w;
    size_t count, offset;
};

struct affine {
    uint32_t pieces;
    struct piece *piece;
    float *hidden_weight, *hidden_bias, *bias; /* M, m, b in shared */
    float *f, *df;
    float *m_hidden, *m_bias; /* momentum of M and m (as one), of b; NULL without momentum */
    /* few units */
    float *m_w; /* momentum of W, in its layout */
    /* many units */
    size_t rows, capacity, keep; /* of G: used, allocated, kept at a fold */
    float *g;                    /* capacity x P */
    float *c, *d;                /* capacity x H */
    double a, b;
};

static const struct fl_tensor *first_head(const struct fl_layout *layout)
{
    return &layout->shared.at[layout->own + 2];
}

static uint32_t pieces_of(const struct fl_layout *layout)
{
    return (layout->shared.count - layout->own - 2) / 2;
}

/* ---- theta ---- */

static void add_active(const struct piece *p, const float *w, const float *f, size_t hidden,
                       float factor, float *theta)
{
    for (size_t at = 0; at < p->count; at += TILE) {
        size_t n = p->count - at < TILE ? p->count - at : TILE;
        for (size_t h = 0; h < hidden; h++) {
            if (f[h] > 0) {
                fl_vec_axpy(factor * f[h], w + h * p->count + at, theta + p->offset + at, n);
            }
        }
    }
}

static int make(const struct fl_layout *layout, const float *shared, const float *v, float *theta,
                struct fl_err *e)
{
    const struct fl_tensor *t = first_head(layout);
    uint32_t pieces = pieces_of(layout);
    size_t hidden = layout->generator.hidden, offset = 0;
    float *f = fl_try_aligned(hidden, sizeof *f);

    if (!f) {
        return fl_fail(e, FL_R_NOMEM, "a hidden layer of %zu", hidden);
    }
    fl_hidden_forward(layout, shared, v, f);
    memcpy(theta, shared + t[pieces].offset, layout->generated * sizeof *theta);
    for (uint32_t k = 0; k < pieces; k++) {
        struct piece p = {.count = t[k].shape[1], .offset = offset};
        add_active(&p, shared + t[k].offset, f, hidden, 1, theta);
        offset += p.count;
    }
    fl_free(f);
    return 0;
}

/* ---- a step, the parts in common ---- */

/* df = factor W^T g for active units. */
static void pull(const struct fl_generator *g, const float *grad, double factor)
{
    struct affine *s = g->own;

    for (size_t h = 0; h < g->hidden; h++) {
        double sum = 0;
        for (uint32_t k = 0; s->f[h] > 0 && k < s->pieces; k++) {
            const struct piece *p = &s->piece[k];
            sum += fl_vec_dot(p->w + h * p->count, grad + p->offset, p->count);
        }
        s->df[h] = (float)(factor * sum);
    }
}

/* From df: gradients of the hidden layer and of v, the clip factor of all but v; steps M, m, b and
 * v. Afterwards f is the new one, `old` the one the gradient belongs to. Returns the clip factor.
 */
static float step_small(struct fl_generator *g, const float *grad, float *old)
{
    struct affine *s = g->own;
    const struct fl_optim *o = &g->conf.optim;
    size_t e = g->embedding, hidden = g->hidden;
    double g2 = fl_vec_norm_squared(grad, g->generated);
    double f2 = fl_vec_norm_squared(s->f, hidden), v2 = fl_vec_norm_squared(g->v, e);

    fl_hidden_backward(g->layout, g->shared, s->f, s->df, g->dv);
    double p2 = fl_vec_norm_squared(s->df, hidden);
    float factor = fl_optim_clip(g2 * (f2 + 1) + p2 * (v2 + 1), g->conf.clip);

    for (size_t h = 0; h < hidden; h++) {
        fl_optim_step(o, factor * s->df[h], g->v, s->m_hidden ? s->m_hidden + h * e : NULL,
                      s->hidden_weight + h * e, e);
    }
    fl_optim_step(o, factor, s->df, s->m_hidden ? s->m_hidden + hidden * e : NULL, s->hidden_bias,
                  hidden);
    fl_optim_step(o, factor, grad, s->m_bias, s->bias, g->generated);
    fl_generator_step_v(g);
    memcpy(old, s->f, hidden * sizeof *old);
    fl_hidden_forward(g->layout, g->shared, g->v, s->f);
    return factor;
}

/* ---- few units ---- */

/* One row of W, one tile: its step with the gradient factor * g, and its part of the new theta. */
FL_VECTOR static void step_row(const struct fl_optim *o, float factor, const float *restrict g,
                               float *restrict m, float *restrict w, float f, float *restrict theta,
                               size_t count)
{
    const float lr = o->lr, decay = o->weight_decay, momentum = o->momentum;

    for (size_t i = 0; i < count; i++) {
        m[i] = momentum * m[i] + (factor * g[i] + decay * w[i]);
        w[i] -= lr * m[i];
        theta[i] += f * w[i];
    }
}

FL_VECTOR static void step_row_plain(const struct fl_optim *o, float factor,
                                     const float *restrict g, float *restrict w, float f,
                                     float *restrict theta, size_t count)
{
    const float lr = o->lr, decay = o->weight_decay;

    for (size_t i = 0; i < count; i++) {
        w[i] -= lr * (factor * g[i] + decay * w[i]);
        theta[i] += f * w[i];
    }
}

static void step_few(struct fl_generator *g, const float *grad, float *theta)
{
    struct affine *s = g->own;
    float *old = s->c;

    pull(g, grad, 1);
    float factor = step_small(g, grad, old);
    memcpy(theta, s->bias, g->generated * sizeof *theta);
    for (uint32_t k = 0; k < s->pieces; k++) {
        const struct piece *p = &s->piece[k];
        float *m = s->m_w ? s->m_w + p->offset * g->hidden : NULL;
        for (size_t at = 0; at < p->count; at += TILE) {
            size_t n = p->count - at < TILE ? p->count - at : TILE;
            for (size_t h = 0; h < g->hidden; h++) {
                size_t i = h * p->count + at;
                if (m) {
                    step_row(&g->conf.optim, factor * old[h], grad + p->offset + at, m + i,
                             p->w + i, s->f[h], theta + p->offset + at, n);
                } else {
                    step_row_plain(&g->conf.optim, factor * old[h], grad + p->offset + at, p->w + i,
                                   s->f[h], theta + p->offset + at, n);
                }
            }
        }
    }
}

/* ---- many units ---- */

/* W_0 <- W; the newest `keep` rows stay for the momentum buffer. */
static void fold(struct fl_generator *g, size_t keep)
{
    struct affine *s = g->own;
    size_t hidden = g->hidden, k = s->rows;
    double ratio = s->b / s->a;

    for (uint32_t i = 0; i < s->pieces; i++) {
        const struct piece *p = &s->piece[i];
        fl_blas_gemm(true, false, hidden, p->count, k, 1, s->c, hidden, s->g + p->offset,
                     g->generated, (float)s->a, p->w, p->count);
    }
    for (size_t i = 0; i < k * hidden; i++) {
        s->d[i] = (float)((double)s->d[i] - ratio * (double)s->c[i]);
    }
    keep = keep < k ? keep : k;
    memmove(s->d, s->d + (k - keep) * hidden, keep * hidden * sizeof *s->d);
    memmove(s->g, s->g + (k - keep) * g->generated, keep * g->generated * sizeof *s->g);
    memset(s->c, 0, s->capacity * hidden * sizeof *s->c);
    s->rows = keep;
    s->a = 1;
    s->b = ratio;
}

static void step_many(struct fl_generator *g, const float *grad, float *theta)
{
    struct affine *s = g->own;
    const struct fl_optim *o = &g->conf.optim;
    size_t hidden = g->hidden, generated = g->generated;

    if (s->rows == s->capacity) {
        fold(g, s->keep);
    }
    pull(g, grad, s->a);
    for (size_t j = 0; j < s->rows; j++) {
        float along = (float)fl_vec_dot(s->g + j * generated, grad, generated);
        fl_vec_axpy(along, s->c + j * hidden, s->df, hidden);
    }
    size_t k = s->rows++;
    memcpy(s->g + k * generated, grad, generated * sizeof *grad);
    float *old = s->d + k * hidden;
    float factor = step_small(g, grad, old);
    fl_vec_scale(factor, old, old, hidden);
    memset(s->c + k * hidden, 0, hidden * sizeof *s->c);

    s->b = (double)o->momentum * s->b + (double)o->weight_decay * s->a;
    fl_vec_scale(o->momentum, s->d, s->d, k * hidden);
    fl_vec_axpy(o->weight_decay, s->c, s->d, k * hidden);
    s->a -= (double)o->lr * s->b;
    fl_vec_axpy(-o->lr, s->d, s->c, s->rows * hidden);

    memcpy(theta, s->bias, generated * sizeof *theta);
    for (uint32_t i = 0; i < s->pieces; i++) {
        add_active(&s->piece[i], s->piece[i].w, s->f, hidden, (float)s->a, theta);
    }
    for (size_t at = 0; at < generated; at += TILE) {
        size_t n = generated - at < TILE ? generated - at : TILE;
        for (size_t j = 0; j < s->rows; j++) {
            float along = (float)fl_vec_dot(s->c + j * hidden, s->f, hidden);
            fl_vec_axpy(along, s->g + j * generated + at, theta + at, n);
        }
    }
}

static void step(struct fl_generator *g, const float *grad, float *theta)
{
    const struct affine *s = g->own;

    if (s->capacity) {
        step_many(g, grad, theta);
    } else {
        step_few(g, grad, theta);
    }
}

static void end(struct fl_generator *g)
{
    struct affine *s = g->own;

    if (s->capacity && s->rows) {
        fold(g, 0);
    }
}

/* ---- memory ---- */

/* How many rows G would have; 0 = rank-one steps on W itself. */
static size_t choose_capacity(const struct fl_generator *g, size_t *ret_keep)
{
    const struct fl_optim *o = &g->conf.optim;
    double mu = (double)o->momentum;
    double keep = mu > 0 ? ceil(log(0x1p-30) / log(mu)) : 0;
    double capacity = keep + FRESH;

    if (!(mu < 1) || capacity > 1e6) {
        return 0;
    }
    if ((double)g->conf.steps < capacity) {
        capacity = (double)(g->conf.steps ? g->conf.steps : 1);
    }
    /* a must not get near 0 between folds. */
    if (capacity > (double)g->hidden ||
        capacity * (double)o->lr * (double)o->weight_decay / (1 - mu) > 0.5) {
        return 0;
    }
    *ret_keep = (size_t)keep < (size_t)capacity ? (size_t)keep : (size_t)capacity - 1;
    return (size_t)capacity;
}

static int init(struct fl_generator *g, struct fl_err *e)
{
    struct affine *s = g->own = fl_try(1, sizeof *s);
    const struct fl_tensor *t = first_head(g->layout);
    size_t offset = 0, hidden = g->hidden, w = hidden * g->generated;

    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "its state");
    }
    s->pieces = pieces_of(g->layout);
    s->piece = fl_try(s->pieces, sizeof *s->piece);
    s->capacity = choose_capacity(g, &s->keep);
    s->f = fl_try_aligned(hidden, sizeof(float));
    s->df = fl_try_aligned(hidden, sizeof(float));
    bool ok = s->piece && s->f && s->df;
    if (g->conf.optim.momentum != 0) {
        s->m_hidden = fl_try_aligned(hidden * (g->embedding + 1), sizeof(float));
        s->m_bias = fl_try_aligned(g->generated, sizeof(float));
        s->m_w = s->capacity ? NULL : fl_try_aligned(w, sizeof(float));
        ok = ok && s->m_hidden && s->m_bias && (s->capacity || s->m_w);
    }
    size_t rows = s->capacity ? s->capacity : 1; /* few units: c holds the old f */
    s->c = fl_try_aligned(rows * hidden, sizeof(float));
    ok = ok && s->c;
    if (s->capacity) {
        s->d = fl_try_aligned(rows * hidden, sizeof(float));
        s->g = fl_try_aligned(rows * g->generated, sizeof(float));
        ok = ok && s->d && s->g;
    }
    if (!ok) {
        return fl_fail(e, FL_R_NOMEM, "momentum or factors of %zu elements", w);
    }
    s->hidden_weight = g->shared + g->layout->shared.at[g->layout->own].offset;
    s->hidden_bias = g->shared + g->layout->shared.at[g->layout->own + 1].offset;
    s->bias = g->shared + t[s->pieces].offset;
    for (uint32_t k = 0; k < s->pieces; k++) {
        s->piece[k] =
            (struct piece){.w = g->shared + t[k].offset, .count = t[k].shape[1], .offset = offset};
        offset += s->piece[k].count;
    }
    s->a = 1;
    fl_hidden_forward(g->layout, g->shared, g->v, s->f);
    return 0;
}

static void fini(struct fl_generator *g)
{
    struct affine *s = g->own;

    if (!s) {
        return;
    }
    fl_free(s->piece);
    fl_free(s->f);
    fl_free(s->df);
    fl_free(s->m_hidden);
    fl_free(s->m_bias);
    fl_free(s->m_w);
    fl_free(s->g);
    fl_free(s->c);
    fl_free(s->d);
    fl_free(s);
}

const struct fl_generator_ops fl_generator_affine = {
    .make = make, .init = init, .step = step, .end = end, .fini = fini};
