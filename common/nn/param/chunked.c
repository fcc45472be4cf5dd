/*
 * A chunked generator (von Oswald et al. 2020): theta is cut into K chunks of equal length, and one
 * map makes them all, each from its own learned embedding c_k beside the site's v:
 *
 *     f_k = relu(M v + N c_k + m),   chunk k of theta = s (W^T f_k + b)     W: H x chunk
 *
 * s is a constant for each element: 1, or with `scaled` the 1/sqrt(3 fan_in) of the layer the
 * element belongs to, since one W serves layers of different width. As matrices, with F (K x H) the
 * rows f_k and G (K x chunk) the rows of s * gradient (the last one padded with zeros):
 *
 *     dW = F^T G,  db = sum_k G_k,  dF = G W^T,  dZ = dF [F > 0]
 *     dM = (sum_k dZ_k) v^T,  dN = dZ^T C,  dm = sum_k dZ_k,  dC = dZ N,  dv = M^T sum_k dZ_k
 */
#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/vec.h"
#include "common/nn/param/generator.h"
#include "common/nn/param/make.h"

#include <math.h>
#include <string.h>

/* The generator's tensors in order, as offsets into shared. */
enum { M, N, BIAS, CHUNKS, W, B, TENSORS };

struct work {
    struct fl_flat flat; /* of sessions; empty in make */
    size_t at[TENSORS];
    size_t k, h, e, chunk;
    float *f, *df; /* K x H */
    float *out;    /* K x chunk: values, then gradients */
    float *sum;    /* H: sum of dZ; and M v + m */
};

static void work_fini(struct work *w)
{
    fl_flat_fini(&w->flat);
    fl_free(w->f);
    fl_free(w->df);
    fl_free(w->out);
    fl_free(w->sum);
}

static int work_init(struct work *w, const struct fl_layout *layout, struct fl_err *e)
{
    for (int i = 0; i < TENSORS; i++) {
        w->at[i] = layout->shared.at[layout->own + (uint32_t)i].offset;
    }
    w->k = layout->shared.at[layout->own + CHUNKS].shape[0];
    w->h = layout->generator.hidden;
    w->e = layout->generator.embedding;
    w->chunk = layout->generator.chunk;
    w->f = fl_try_aligned(w->k * w->h, sizeof(float));
    w->df = fl_try_aligned(w->k * w->h, sizeof(float));
    w->out = fl_try_aligned(w->k * w->chunk, sizeof(float));
    w->sum = fl_try_aligned(w->h, sizeof(float));
    if (!w->f || !w->df || !w->out || !w->sum) {
        return fl_fail(e, FL_R_NOMEM, "%zu chunks of %zu", w->k, w->chunk);
    }
    return 0;
}

/* to = s * from over all generated elements, one after the other. */
static void scale(const struct fl_layout *layout, const float *from, float *to)
{
    size_t at = 0;

    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (fl_is_generated(layout, i)) {
            double s = layout->generator.scaled ? 1 / sqrt(3.0 * t->fan_in) : 1;
            fl_vec_scale((float)s, from + at, to + at, t->count);
            at += t->count;
        }
    }
}

static void generate(struct work *w, const struct fl_layout *layout, const float *shared,
                     const float *v, float *theta)
{
    for (size_t h = 0; h < w->h; h++) {
        w->sum[h] = (float)fl_vec_dot(shared + w->at[M] + h * w->e, v, w->e);
        w->sum[h] += shared[w->at[BIAS] + h];
    }
    for (size_t k = 0; k < w->k; k++) {
        memcpy(w->f + k * w->h, w->sum, w->h * sizeof *w->f);
        memcpy(w->out + k * w->chunk, shared + w->at[B], w->chunk * sizeof *w->out);
    }
    fl_blas_gemm(false, true, w->k, w->h, w->e, 1, shared + w->at[CHUNKS], w->e, shared + w->at[N],
                 w->e, 1, w->f, w->h);
    for (size_t i = 0; i < w->k * w->h; i++) {
        w->f[i] = w->f[i] > 0 ? w->f[i] : 0;
    }
    fl_blas_gemm(false, false, w->k, w->chunk, w->h, 1, w->f, w->h, shared + w->at[W], w->chunk, 1,
                 w->out, w->chunk);
    scale(layout, w->out, theta);
}

static int make(const struct fl_layout *layout, const float *shared, const float *v, float *theta,
                struct fl_err *e)
{
    struct work w = {0};
    int r = work_init(&w, layout, e);

    if (r == 0) {
        generate(&w, layout, shared, v, theta);
    }
    work_fini(&w);
    return r;
}

static void step(struct fl_generator *g, const float *grad, float *theta)
{
    struct work *w = g->own;
    float *out = w->flat.grad;
    const float *in = g->shared;

    scale(g->layout, grad, w->out);
    memset(w->out + g->generated, 0, (w->k * w->chunk - g->generated) * sizeof *w->out);
    memset(out + w->at[B], 0, w->chunk * sizeof *out);
    fl_vec_sum_rows(w->out, w->k, w->chunk, out + w->at[B]);
    fl_blas_gemm(true, false, w->h, w->chunk, w->k, 1, w->f, w->h, w->out, w->chunk, 0,
                 out + w->at[W], w->chunk);
    fl_blas_gemm(false, true, w->k, w->h, w->chunk, 1, w->out, w->chunk, in + w->at[W], w->chunk, 0,
                 w->df, w->h);
    for (size_t i = 0; i < w->k * w->h; i++) {
        w->df[i] = w->f[i] > 0 ? w->df[i] : 0;
    }
    memset(w->sum, 0, w->h * sizeof *w->sum);
    fl_vec_sum_rows(w->df, w->k, w->h, w->sum);
    for (size_t h = 0; h < w->h; h++) {
        fl_vec_scale(w->sum[h], g->v, out + w->at[M] + h * w->e, w->e);
    }
    memcpy(out + w->at[BIAS], w->sum, w->h * sizeof *out);
    fl_blas_gemm(true, false, w->h, w->e, w->k, 1, w->df, w->h, in + w->at[CHUNKS], w->e, 0,
                 out + w->at[N], w->e);
    fl_blas_gemm(false, false, w->k, w->e, w->h, 1, w->df, w->h, in + w->at[N], w->e, 0,
                 out + w->at[CHUNKS], w->e);
    fl_blas_gemv(true, w->h, w->e, 1, in + w->at[M], w->e, w->sum, 0, g->dv);
    fl_flat_step(&w->flat, g);
    generate(w, g->layout, g->shared, g->v, theta);
}

static int init(struct fl_generator *g, struct fl_err *e)
{
    struct work *w = g->own = fl_try(1, sizeof *w);
    float *theta;
    int r;

    if (!w) {
        return fl_fail(e, FL_R_NOMEM, "its state");
    }
    if ((r = work_init(w, g->layout, e)) < 0 || (r = fl_flat_init(&w->flat, g, e)) < 0) {
        return r;
    }
    theta = fl_try_aligned(g->generated, sizeof *theta);
    if (!theta) {
        return fl_fail(e, FL_R_NOMEM, "%zu generated values", g->generated);
    }
    generate(w, g->layout, g->shared, g->v, theta); /* for f */
    fl_free(theta);
    return 0;
}

static void fini(struct fl_generator *g)
{
    if (g->own) {
        work_fini(g->own);
        fl_free(g->own);
    }
}

const struct fl_generator_ops fl_generator_chunked = {
    .make = make, .init = init, .step = step, .fini = fini};
