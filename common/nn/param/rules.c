/*
 * Training of what rules make, beside tensors that travel as they are. All of it is small, at most
 * a few times theta, so gradients are two flat vectors like `shared` and `private_`, and a step is:
 *
 *     pull back -> temper -> clip -> optimizer, tensor by tensor -> settle -> theta again
 *
 * Tensors that are cut to a site's width take their step inside the cut only: weight decay and
 * momentum would move the rest.
 */
#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/param/make.h"
#include "common/nn/param/param.h"

#include <string.h>

struct fl_rules {
    const struct fl_layout *layout;
    struct fl_generator_conf_train conf;
    float *shared, *private_; /* trained in place */
    size_t own;               /* elements of shared before the hypernetwork's */
    float *g_shared, *g_private, *m_shared, *m_private;
    float *q_shared, *q_private; /* Adam's squares */
    uint64_t steps;
};

static size_t own_elements(const struct fl_layout *l)
{
    return l->own < l->shared.count ? l->shared.at[l->own].offset : l->shared.elements;
}

static struct fl_parts parts_of(const struct fl_layout *layout, uint32_t k, const float *shared,
                                const float *private_)
{
    return (struct fl_parts){
        .layout = layout, .m = &layout->made[k], .shared = shared, .private_ = private_};
}

void fl_rules_make(const struct fl_layout *layout, const float *shared, const float *private_,
                   float *theta)
{
    for (uint32_t k = 0; k < layout->made_count; k++) {
        struct fl_parts p = parts_of(layout, k, shared, private_);
        fl_make_ops_of(p.m->kind)->make(&p, theta + layout->theta.at[p.m->tensor].offset);
    }
}

/* Tensors stored as they are come first in both vectors, in the order of theta. */
void fl_rules_pull(const struct fl_layout *layout, const float *shared, const float *private_,
                   const float *grad, float *to_shared, float *to_private)
{
    float *shared_at = to_shared, *private_at = to_private;

    memset(to_shared, 0, own_elements(layout) * sizeof *to_shared);
    memset(to_private, 0, layout->private_.elements * sizeof *to_private);
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        float **to = t->group == FL_GROUP_PRIVATE ? &private_at : &shared_at;
        if (t->group == FL_GROUP_GENERATED) {
            continue;
        }
        if (!t->fixed) {
            memcpy(*to, grad + t->offset, t->count * sizeof **to);
        }
        *to += t->count;
    }
    for (uint32_t k = 0; k < layout->made_count; k++) {
        struct fl_parts p = parts_of(layout, k, shared, private_);
        fl_make_ops_of(p.m->kind)->pull(&p, grad + layout->theta.at[p.m->tensor].offset, to_shared,
                                        to_private);
    }
}

/* ---- sessions ---- */

int fl_rules_new(const struct fl_layout *layout, const struct fl_generator_conf_train *conf,
                 float *shared, float *private_, struct fl_rules **ret, struct fl_err *e)
{
    struct fl_rules *s = fl_try(1, sizeof *s);
    size_t own = own_elements(layout), n = layout->private_.elements;

    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "the training of parts");
    }
    *s = (struct fl_rules){
        .layout = layout, .conf = *conf, .shared = shared, .private_ = private_, .own = own};
    s->g_shared = fl_try_aligned(own + 1, sizeof(float));
    s->g_private = fl_try_aligned(n + 1, sizeof(float));
    bool ok = s->g_shared && s->g_private;
    bool adam = conf->optim.kind >= FL_OPTIM_ADAM;
    if (conf->optim.momentum != 0 || adam) {
        s->m_shared = fl_try_aligned(own + 1, sizeof(float));
        s->m_private = fl_try_aligned(n + 1, sizeof(float));
        ok = ok && s->m_shared && s->m_private;
    }
    if (adam) {
        s->q_shared = fl_try_aligned(own + 1, sizeof(float));
        s->q_private = fl_try_aligned(n + 1, sizeof(float));
        ok = ok && s->q_shared && s->q_private;
    }
    if (!ok) {
        fl_rules_free(s);
        return fl_fail(e, FL_R_NOMEM, "gradients of %zu elements", own + n);
    }
    *ret = s;
    return 0;
}

void fl_rules_free(struct fl_rules *s)
{
    if (!s) {
        return;
    }
    fl_free(s->g_shared);
    fl_free(s->g_private);
    fl_free(s->m_shared);
    fl_free(s->m_private);
    fl_free(s->q_shared);
    fl_free(s->q_private);
    fl_free(s);
}

static void step_range(struct fl_rules *s, bool private_, float factor, size_t at, size_t count)
{
    float *m = private_ ? s->m_private : s->m_shared, *q = private_ ? s->q_private : s->q_shared;
    const float *g = (private_ ? s->g_private : s->g_shared) + at;
    float *w = (private_ ? s->private_ : s->shared) + at;

    if (q) {
        fl_optim_adam(&s->conf.optim, factor, s->steps, g, m + at, q + at, w, count);
    } else {
        fl_optim_step(&s->conf.optim, factor, g, m ? m + at : NULL, w, count);
    }
}

/* The part that a nested tensor is stored in; NULL for others. */
static const struct fl_made *nested_base(const struct fl_layout *l, uint32_t tensor)
{
    for (uint32_t k = 0; k < l->made_count; k++) {
        const struct fl_made *m = &l->made[k];
        if (m->kind == FL_MAKE_NESTED && m->at[FL_PLACE_BASE].tensor == tensor) {
            return m;
        }
    }
    return NULL;
}

static void step_shared(struct fl_rules *s)
{
    const struct fl_layout *l = s->layout;
    float factor = fl_optim_clip(fl_vec_norm_squared(s->g_shared, s->own), s->conf.clip);

    for (uint32_t i = 0; i < l->own; i++) {
        const struct fl_tensor *t = &l->shared.at[i];
        const struct fl_made *m = nested_base(l, i);
        size_t rows = 1, columns = t->count;
        if (m) {
            struct fl_parts p = {l, m, s->shared, s->private_};
            fl_nested_cut(&p, &rows, &columns);
        }
        for (size_t k = 0; k < rows; k++) {
            step_range(s, false, factor, t->offset + k * (m ? m->columns : 0), columns);
        }
    }
}

/* Parts only: private tensors of the network itself, the head, move by rates of their own. */
static void step_private(struct fl_rules *s)
{
    const struct fl_tensors *all = &s->layout->private_;
    double sum = 0;

    for (uint32_t i = 0; i < all->count; i++) {
        const struct fl_tensor *t = &all->at[i];
        sum += t->part && !t->fixed ? fl_vec_norm_squared(s->g_private + t->offset, t->count) : 0;
    }
    float factor = fl_optim_clip(sum, s->conf.clip);
    for (uint32_t i = 0; i < all->count; i++) {
        const struct fl_tensor *t = &all->at[i];
        if (t->part && !t->fixed) {
            step_range(s, true, factor, t->offset, t->count);
        }
    }
}

void fl_rules_step(struct fl_rules *s, const float *grad, float *theta)
{
    const struct fl_layout *l = s->layout;
    const float *from = s->shared;

    s->steps++;
    fl_rules_pull(l, s->shared, s->private_, grad, s->g_shared, s->g_private);
    for (uint32_t k = 0; k < l->made_count; k++) {
        struct fl_parts p = parts_of(l, k, s->shared, s->private_);
        if (fl_make_ops_of(p.m->kind)->temper) {
            fl_make_ops_of(p.m->kind)->temper(&p, s->g_shared);
        }
    }
    step_shared(s);
    step_private(s);
    for (uint32_t k = 0; k < l->made_count; k++) {
        struct fl_parts p = parts_of(l, k, s->shared, s->private_);
        if (fl_make_ops_of(p.m->kind)->settle) {
            fl_make_ops_of(p.m->kind)->settle(&p, s->conf.optim.lr, s->private_);
        }
    }
    for (uint32_t i = 0; i < l->theta.count; i++) {
        const struct fl_tensor *t = &l->theta.at[i];
        if (t->group == FL_GROUP_SHARED) {
            memcpy(theta + t->offset, from, t->count * sizeof *theta);
            from += t->count;
        }
    }
    fl_rules_make(l, s->shared, s->private_, theta);
}
