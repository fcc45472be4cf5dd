#include "common/nn/param/param.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/param/generator.h"
#include "common/nn/param/make.h"
#include "common/nn/ridge.h"

#include <assert.h>
#include <string.h>

static const struct fl_generator_ops *ops_of(const struct fl_layout *layout)
{
    switch (layout->generator.kind) {
    case FL_GENERATOR_AFFINE:
        return &fl_generator_affine;
    case FL_GENERATOR_CHUNKED:
        return &fl_generator_chunked;
    case FL_GENERATOR_KRONECKER:
        return &fl_generator_kronecker;
    case FL_GENERATOR_NONE:
        break;
    }
    return NULL;
}

static const struct fl_tensor *embedding_of(const struct fl_layout *layout)
{
    return &layout->private_.at[layout->private_.count - 1];
}

/* ---- what is generated, in theta and by itself ---- */

/* Where it begins in theta when it is all in one piece; false when it is scattered. */
static bool one_piece(const struct fl_layout *layout, size_t *ret_from)
{
    size_t from = 0, next = 0;
    bool any = false;

    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (!fl_is_generated(layout, i)) {
            continue;
        }
        if (any && t->offset != next) {
            return false;
        }
        from = any ? from : t->offset;
        next = t->offset + t->count;
        any = true;
    }
    *ret_from = from;
    return true;
}

static void gather(const struct fl_layout *layout, const float *theta, float *to)
{
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (fl_is_generated(layout, i)) {
            memcpy(to, theta + t->offset, t->count * sizeof *to);
            to += t->count;
        }
    }
}

static void scatter(const struct fl_layout *layout, const float *from, float *theta)
{
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (fl_is_generated(layout, i)) {
            memcpy(theta + t->offset, from, t->count * sizeof *from);
            from += t->count;
        }
    }
}

static int generate(const struct fl_generator_ops *ops, const struct fl_layout *layout,
                    const float *shared, const float *private_, float *theta, struct fl_err *e)
{
    const float *v = private_ + embedding_of(layout)->offset;
    size_t from;

    if (one_piece(layout, &from)) {
        return ops->make(layout, shared, v, theta + from, e);
    }
    float *to = fl_try_aligned(layout->generated, sizeof *to);
    if (!to) {
        return fl_fail(e, FL_R_NOMEM, "%zu generated values", layout->generated);
    }
    int r = ops->make(layout, shared, v, to, e);
    if (r == 0) {
        scatter(layout, to, theta);
    }
    fl_free(to);
    return r;
}

/* ---- tensors stored as they are ---- */

/* The tensors stored as they are come first in `shared` and in `private_`, in the order of theta.
 */
int fl_param_make(const struct fl_layout *layout, const float *shared, const float *private_,
                  float *theta, struct fl_err *e)
{
    const struct fl_generator_ops *ops = ops_of(layout);
    const float *from_shared = shared, *from_private = private_;

    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        const float **from = t->group == FL_GROUP_PRIVATE ? &from_private : &from_shared;
        if (t->group != FL_GROUP_GENERATED) {
            memcpy(theta + t->offset, *from, t->count * sizeof *theta);
            *from += t->count;
        }
    }
    fl_rules_make(layout, shared, private_, theta);
    if (fl_ridge_shared(layout)) {
        return fl_ridge_make(layout, shared, theta, e);
    }
    return ops ? generate(ops, layout, shared, private_, theta, e) : 0;
}

void fl_param_store(const struct fl_layout *layout, const float *theta, float *shared,
                    float *private_)
{
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        float **to = t->group == FL_GROUP_PRIVATE ? &private_ : &shared;
        if (t->group != FL_GROUP_GENERATED) {
            memcpy(*to, theta + t->offset, t->count * sizeof *theta);
            *to += t->count;
        }
    }
}

/* ---- sessions ---- */

int fl_generator_new(const struct fl_layout *layout, const struct fl_generator_conf_train *conf,
                     float *shared, float *private_, struct fl_generator **ret, struct fl_err *e)
{
    const struct fl_generator_ops *ops = ops_of(layout);
    struct fl_generator *g = fl_try(1, sizeof *g);
    int r;

    assert(ops);
    if (!g) {
        return fl_fail(e, FL_R_NOMEM, "a generator");
    }
    g->layout = layout;
    g->ops = ops;
    g->conf = *conf;
    g->embedding = layout->generator.embedding;
    g->hidden = layout->generator.hidden;
    g->generated = layout->generated;
    g->shared = shared;
    g->v = private_ + embedding_of(layout)->offset;
    g->dv = fl_try_aligned(g->embedding, sizeof *g->dv);
    g->v_momentum = fl_try_aligned(g->embedding, sizeof *g->v_momentum);
    g->scattered = !one_piece(layout, &g->from);
    if (g->scattered) {
        g->whole = fl_try_aligned(2 * g->generated, sizeof *g->whole);
    }
    if (!g->dv || !g->v_momentum || (g->scattered && !g->whole)) {
        fl_generator_free(g);
        return fl_fail(e, FL_R_NOMEM, "a generator's embedding of %u", layout->generator.embedding);
    }
    if ((r = ops->init(g, e)) < 0) {
        fl_generator_free(g);
        return fl_wrap(e, r, "a generator of %zu elements", layout->generated);
    }
    *ret = g;
    return 0;
}

void fl_generator_step(struct fl_generator *g, const float *grad, float *theta)
{
    if (!g->scattered) {
        g->ops->step(g, grad + g->from, theta + g->from);
        return;
    }
    gather(g->layout, grad, g->whole);
    g->ops->step(g, g->whole, g->whole + g->generated);
    scatter(g->layout, g->whole + g->generated, theta);
}

void fl_generator_end(struct fl_generator *g)
{
    if (g->ops->end) {
        g->ops->end(g);
    }
}

void fl_generator_free(struct fl_generator *g)
{
    if (!g) {
        return;
    }
    g->ops->fini(g);
    fl_free(g->dv);
    fl_free(g->v_momentum);
    fl_free(g->whole);
    fl_free(g);
}

/* ---- the hidden layer ---- */

void fl_hidden_forward(const struct fl_layout *layout, const float *shared, const float *v,
                       float *f)
{
    size_t e = layout->generator.embedding, h = layout->generator.hidden;
    const float *weight = shared + layout->shared.at[layout->own].offset;
    const float *bias = shared + layout->shared.at[layout->own + 1].offset;

    for (size_t i = 0; i < h; i++) {
        float p = (float)fl_vec_dot(weight + i * e, v, e) + bias[i];
        f[i] = p > 0 ? p : 0;
    }
}

void fl_hidden_backward(const struct fl_layout *layout, const float *shared, const float *f,
                        float *df, float *dv)
{
    size_t e = layout->generator.embedding, h = layout->generator.hidden;
    const float *weight = shared + layout->shared.at[layout->own].offset;

    memset(dv, 0, e * sizeof *dv);
    for (size_t i = 0; i < h; i++) {
        df[i] = f[i] > 0 ? df[i] : 0;
        if (df[i] != 0) {
            fl_vec_axpy(df[i], weight + i * e, dv, e);
        }
    }
}

/* ---- flat gradients ---- */

int fl_flat_init(struct fl_flat *flat, const struct fl_generator *g, struct fl_err *e)
{
    size_t n = g->layout->shared.elements;

    flat->grad = fl_try_aligned(n, sizeof(float));
    if (g->conf.optim.momentum != 0) {
        flat->momentum = fl_try_aligned(n, sizeof(float));
    }
    if (!flat->grad || (g->conf.optim.momentum != 0 && !flat->momentum)) {
        return fl_fail(e, FL_R_NOMEM, "gradients of %zu elements", n);
    }
    return 0;
}

void fl_flat_fini(struct fl_flat *flat)
{
    fl_free(flat->grad);
    fl_free(flat->momentum);
}

void fl_generator_step_v(struct fl_generator *g)
{
    float factor = fl_optim_clip(fl_vec_norm_squared(g->dv, g->embedding), g->conf.clip);

    fl_optim_step(&g->conf.optim, factor, g->dv, g->v_momentum, g->v, g->embedding);
}

void fl_flat_step(struct fl_flat *flat, struct fl_generator *g)
{
    size_t from = g->layout->shared.at[g->layout->own].offset;
    size_t n = g->layout->shared.elements - from;
    float factor = fl_optim_clip(fl_vec_norm_squared(flat->grad + from, n), g->conf.clip);

    fl_optim_step(&g->conf.optim, factor, flat->grad + from,
                  flat->momentum ? flat->momentum + from : NULL, g->shared + from, n);
    fl_generator_step_v(g);
}
