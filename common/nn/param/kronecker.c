/*
 * Kronecker heads (HyperFL++): what a hidden unit adds to a tensor of d1 * d2 elements is f_h times
 * the product of a d1- and a d2-vector, so the tensor, seen as a d1 x d2 matrix, is
 *
 *     theta = A^T diag(f) B + alpha beta^T            A: H x d1,  B: H x d2
 *
 * With G the gradient at theta in that shape:
 *
 *     dA_h = f_h B_h G^T,  dB_h = f_h A_h G,  df_h = A_h G B_h^T,  dalpha = G beta,  dbeta = G^T
 * alpha
 *
 * Rows of units that are not active (f_h = 0) have no gradient here and none passes their ReLU: the
 * others are gathered first, and the products are as tall as they are many. Nothing larger than the
 * factors is ever made.
 */
#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/vec.h"
#include "common/nn/param/generator.h"

#include <string.h>

/* One generated tensor's parts, as offsets into shared (and into gradients like it). */
struct part {
    size_t a, b, alpha, beta;
    size_t d1, d2, offset;
};

struct work {
    struct fl_flat flat; /* of sessions; empty in make */
    uint32_t parts;
    struct part *part;
    float *f, *df;
    float *a, *b;   /* active rows: H x widest side each */
    float *ag, *bg; /* products with the gradient, the same size */
    size_t *row;    /* which unit an active row is */
};

static void work_fini(struct work *w)
{
    fl_flat_fini(&w->flat);
    fl_free(w->part);
    fl_free(w->f);
    fl_free(w->df);
    fl_free(w->a);
    fl_free(w->b);
    fl_free(w->ag);
    fl_free(w->bg);
    fl_free(w->row);
}

static int work_init(struct work *w, const struct fl_layout *layout, struct fl_err *e)
{
    const struct fl_tensor *t = &layout->shared.at[layout->own + 2];
    size_t hidden = layout->generator.hidden, side = 1, offset = 0;

    w->parts = (layout->shared.count - layout->own - 2) / 4;
    w->part = fl_try(w->parts, sizeof *w->part);
    if (!w->part) {
        return fl_fail(e, FL_R_NOMEM, "parts of a generator");
    }
    for (uint32_t k = 0; k < w->parts; k++) {
        struct part *p = &w->part[k];
        *p = (struct part){.a = t[k].offset,
                           .b = t[k + w->parts].offset,
                           .alpha = t[k + 2 * w->parts].offset,
                           .beta = t[k + 3 * w->parts].offset,
                           .d1 = t[k].shape[1],
                           .d2 = t[k + w->parts].shape[1],
                           .offset = offset};
        offset += p->d1 * p->d2;
        side = side > p->d2 ? side : p->d2;
    }
    w->f = fl_try_aligned(hidden, sizeof(float));
    w->df = fl_try_aligned(hidden, sizeof(float));
    w->row = fl_try(hidden, sizeof *w->row);
    w->a = fl_try_aligned(hidden * side, sizeof(float));
    w->b = fl_try_aligned(hidden * side, sizeof(float));
    w->ag = fl_try_aligned(hidden * side, sizeof(float));
    w->bg = fl_try_aligned(hidden * side, sizeof(float));
    if (!w->f || !w->df || !w->row || !w->a || !w->b || !w->ag || !w->bg) {
        return fl_fail(e, FL_R_NOMEM, "a hidden layer of %zu", hidden);
    }
    return 0;
}

/* Numbers of the active units; returns how many. */
static size_t find_active(struct work *w, size_t hidden)
{
    size_t n = 0;

    for (size_t h = 0; h < hidden; h++) {
        if (w->f[h] > 0) {
            w->row[n++] = h;
        }
    }
    return n;
}

static void gather(const struct work *w, const float *from, size_t width, size_t n, bool scaled,
                   float *to)
{
    for (size_t i = 0; i < n; i++) {
        fl_vec_scale(scaled ? w->f[w->row[i]] : 1, from + w->row[i] * width, to + i * width, width);
    }
}

static void generate(struct work *w, const float *shared, size_t hidden, float *theta)
{
    size_t n = find_active(w, hidden);

    for (uint32_t k = 0; k < w->parts; k++) {
        const struct part *p = &w->part[k];
        float *t = theta + p->offset;
        for (size_t i = 0; i < p->d1; i++) {
            fl_vec_scale(shared[p->alpha + i], shared + p->beta, t + i * p->d2, p->d2);
        }
        if (n > 0) {
            gather(w, shared + p->a, p->d1, n, true, w->a);
            gather(w, shared + p->b, p->d2, n, false, w->b);
            fl_blas_gemm(true, false, p->d1, p->d2, n, 1, w->a, p->d1, w->b, p->d2, 1, t, p->d2);
        }
    }
}

static int make(const struct fl_layout *layout, const float *shared, const float *v, float *theta,
                struct fl_err *e)
{
    struct work w = {0};
    int r = work_init(&w, layout, e);

    if (r == 0) {
        fl_hidden_forward(layout, shared, v, w.f);
        generate(&w, shared, layout->generator.hidden, theta);
    }
    work_fini(&w);
    return r;
}

/* Gradients of one part's factors into flat.grad, and its share of df. */
static void pull_part(struct work *w, const struct part *p, const float *shared, const float *grad,
                      size_t n)
{
    float *out = w->flat.grad;

    fl_blas_gemv(false, p->d1, p->d2, 1, grad, p->d2, shared + p->beta, 0, out + p->alpha);
    fl_blas_gemv(true, p->d1, p->d2, 1, grad, p->d2, shared + p->alpha, 0, out + p->beta);
    if (n == 0) {
        return;
    }
    gather(w, shared + p->a, p->d1, n, false, w->a);
    gather(w, shared + p->b, p->d2, n, false, w->b);
    fl_blas_gemm(false, false, n, p->d2, p->d1, 1, w->a, p->d1, grad, p->d2, 0, w->ag, p->d2);
    fl_blas_gemm(false, true, n, p->d1, p->d2, 1, w->b, p->d2, grad, p->d2, 0, w->bg, p->d1);
    for (size_t i = 0; i < n; i++) {
        size_t h = w->row[i];
        fl_vec_scale(w->f[h], w->bg + i * p->d1, out + p->a + h * p->d1, p->d1);
        fl_vec_scale(w->f[h], w->ag + i * p->d2, out + p->b + h * p->d2, p->d2);
        w->df[h] += (float)fl_vec_dot(w->ag + i * p->d2, w->b + i * p->d2, p->d2);
    }
}

static void step(struct fl_generator *g, const float *grad, float *theta)
{
    struct work *w = g->own;
    const struct fl_tensor *hidden = &g->layout->shared.at[g->layout->own];
    size_t e = g->embedding;
    size_t n = find_active(w, g->hidden);

    memset(w->flat.grad, 0, g->layout->shared.elements * sizeof(float));
    memset(w->df, 0, g->hidden * sizeof *w->df);
    for (uint32_t k = 0; k < w->parts; k++) {
        pull_part(w, &w->part[k], g->shared, grad + w->part[k].offset, n);
    }
    fl_hidden_backward(g->layout, g->shared, w->f, w->df, g->dv);
    for (size_t h = 0; h < g->hidden; h++) {
        fl_vec_scale(w->df[h], g->v, w->flat.grad + hidden[0].offset + h * e, e);
    }
    memcpy(w->flat.grad + hidden[1].offset, w->df, g->hidden * sizeof(float));
    fl_flat_step(&w->flat, g);
    fl_hidden_forward(g->layout, g->shared, g->v, w->f);
    generate(w, g->shared, g->hidden, theta);
}

static int init(struct fl_generator *g, struct fl_err *e)
{
    struct work *w = g->own = fl_try(1, sizeof *w);
    int r;

    if (!w) {
        return fl_fail(e, FL_R_NOMEM, "its state");
    }
    if ((r = work_init(w, g->layout, e)) < 0 || (r = fl_flat_init(&w->flat, g, e)) < 0) {
        return r;
    }
    fl_hidden_forward(g->layout, g->shared, g->v, w->f);
    return 0;
}

static void fini(struct fl_generator *g)
{
    if (g->own) {
        work_fini(g->own);
        fl_free(g->own);
    }
}

const struct fl_generator_ops fl_generator_kronecker = {
    .make = make, .init = init, .step = step, .fini = fini};
