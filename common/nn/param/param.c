#include "common/nn/param/param.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/param/generator.h"

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
    return ops ? ops->make(layout, shared, private_ + embedding_of(layout)->offset, theta, e) : 0;
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
    if (!g->dv || !g->v_momentum) {
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
    g->ops->step(g, grad, theta);
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
    fl_free(g);
}

/* ---- the hidden layer ---- */

void fl_hidden_forward(const struct fl_layout *layout, const float *shared, const float *v,
                       float *f)
{
    size_t e = layout->generator.embedding, h = layout->generator.hidden;
    const float *bias = shared + layout->shared.at[1].offset;

    for (size_t i = 0; i < h; i++) {
        float p = (float)fl_vec_dot(shared + i * e, v, e) + bias[i];
        f[i] = p > 0 ? p : 0;
    }
}

void fl_hidden_backward(const struct fl_layout *layout, const float *shared, const float *f,
                        float *df, float *dv)
{
    size_t e = layout->generator.embedding, h = layout->generator.hidden;

    memset(dv, 0, e * sizeof *dv);
    for (size_t i = 0; i < h; i++) {
        df[i] = f[i] > 0 ? df[i] : 0;
        if (df[i] != 0) {
            fl_vec_axpy(df[i], shared + i * e, dv, e);
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
    size_t n = g->layout->shared.elements;
    float factor = fl_optim_clip(fl_vec_norm_squared(flat->grad, n), g->conf.clip);

    fl_optim_step(&g->conf.optim, factor, flat->grad, flat->momentum, g->shared, n);
    fl_generator_step_v(g);
}
