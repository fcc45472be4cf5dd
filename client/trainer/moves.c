/*
 * How theta moves: given a gradient at theta, two groups take a step, each with its own rates and
 * clip, as an optimizer with two parameter groups would.
 *
 *   body   everything before the head (everything, when the strategy has no head of its own); if it
 *          is generated, its gradient is pulled back and the generator and the embedding move
 *   head   the private head of FedRep and HyperFL
 *
 * Which gradient it is (plain, or noised) is none of this file's business.
 */
#include "client/trainer/personal.h"
#include "client/trainer/session.h"

#include "common/base/mem.h"
#include "common/math/vec.h"

#include <string.h>

static bool has_private_head(const struct fl_layout *layout)
{
    return layout->visibility == FL_VISIBILITY_HEAD_PRIVATE ||
           layout->visibility == FL_VISIBILITY_BODY_GENERATED;
}

struct fl_optim fl_moves_optim(const struct fl_session *s, const struct fl_sgd *sgd)
{
    return (struct fl_optim){.kind = s->plan->train.optimizer,
                             .lr = sgd->lr * s->rate,
                             .momentum = sgd->momentum,
                             .weight_decay = sgd->weight_decay,
                             .beta2 = s->plan->train.beta2};
}

/* Where the head's group begins. */
static size_t boundary(const struct fl_session *s)
{
    return has_private_head(s->layout) ? s->body : s->layout->theta.elements;
}

int fl_moves_init(struct fl_moves *m, struct fl_session *s, bool body, bool head, bool clip,
                  float *shared, float *private_, uint64_t steps, struct fl_err *e)
{
    const struct fl_train_conf *t = &s->plan->train;
    int r;

    *m = (struct fl_moves){.s = s,
                           .body = body,
                           .head = head && has_private_head(s->layout),
                           .body_optim = fl_moves_optim(s, &t->body),
                           .head_optim = fl_moves_optim(s, &t->head),
                           .body_clip = clip ? t->body.clip : 0,
                           .head_clip = clip ? t->head.clip : 0,
                           .shared = shared,
                           .private_ = private_};
    if (t->optimizer >= FL_OPTIM_ADAM) {
        m->square = fl_try_aligned(s->layout->theta.elements, sizeof *m->square);
        if (!m->square) {
            return fl_fail(e, FL_R_NOMEM, "Adam's squares of %zu elements",
                           s->layout->theta.elements);
        }
    }
    if (t->body.momentum != 0 || t->head.momentum != 0 || m->square) {
        m->momentum = fl_try_aligned(s->layout->theta.elements, sizeof *m->momentum);
        if (!m->momentum) {
            return fl_fail(e, FL_R_NOMEM, "momentum of %zu elements", s->layout->theta.elements);
        }
    }
    if (body && s->layout->generated) {
        struct fl_generator_conf_train conf = {
            .optim = m->body_optim, .clip = m->body_clip, .steps = steps};
        r = fl_generator_new(s->layout, &conf, shared, private_, &m->generator, e);
        if (r < 0) {
            return r;
        }
    }
    if (body && s->layout->mixed) {
        struct fl_generator_conf_train conf = {
            .optim = m->body_optim, .clip = m->body_clip, .steps = steps};
        return fl_rules_new(s->layout, &conf, shared, private_, &m->rules, e);
    }
    return 0;
}

int fl_moves_pull(struct fl_moves *m, float mu, struct fl_err *e)
{
    size_t elements = m->s->layout->theta.elements;

    m->anchor = fl_try_aligned(elements, sizeof *m->anchor);
    if (!m->anchor) {
        return fl_fail(e, FL_R_NOMEM, "an anchor of %zu elements", elements);
    }
    memcpy(m->anchor, m->s->theta, elements * sizeof *m->anchor);
    m->mu = mu;
    return 0;
}

void fl_moves_fini(struct fl_moves *m)
{
    fl_free(m->momentum);
    fl_free(m->square);
    fl_free(m->anchor);
    fl_free(m->shift);
    fl_generator_free(m->generator);
    fl_rules_free(m->rules);
}

static void step_range(const struct fl_moves *m, const struct fl_optim *optim, float clip,
                       size_t from, size_t to)
{
    const struct fl_session *s = m->s;
    size_t n = to - from;
    float factor = clip == 0 ? 1 : fl_optim_clip(fl_vec_norm_squared(s->grad + from, n), clip);
    float *momentum = m->momentum && optim->momentum != 0 ? m->momentum + from : NULL;

    if (m->square) {
        fl_optim_adam(optim, factor, m->steps, s->grad + from, m->momentum + from, m->square + from,
                      s->theta + from, n);
        return;
    }
    fl_optim_step(optim, factor, s->grad + from, momentum, s->theta + from, n);
}

/* FedProx (Li et al. 2020, arXiv 1812.06127, eq. 2): the gradient of mu/2 |theta - anchor|^2, which
 * looks at no example, so under the unit example it comes after the noise and costs nothing. */
static void pull(const struct fl_moves *m)
{
    const struct fl_session *s = m->s;

    for (size_t i = 0; i < s->layout->theta.elements; i++) {
        s->grad[i] += m->mu * (s->theta[i] - m->anchor[i]);
    }
}

void fl_moves_step(struct fl_moves *m)
{
    struct fl_session *s = m->s;
    size_t cut = boundary(s);

    m->steps++;
    if (m->mix) {
        fl_mix_look(m->mix);
    }
    if (m->anchor) {
        pull(m);
    }
    if (m->shift) {
        fl_vec_axpy(1, m->shift, s->grad, s->layout->theta.elements);
    }
    if (m->generator) {
        fl_generator_step(m->generator, s->grad, s->theta);
    }
    if (m->rules) {
        fl_rules_step(m->rules, s->grad, s->theta);
    } else if (m->body && !m->generator) {
        step_range(m, &m->body_optim, m->body_clip, 0, cut);
    }
    if (m->head) {
        step_range(m, &m->head_optim, m->head_clip, cut, s->layout->theta.elements);
    }
    fl_model_settle(s->model, s->theta);
    if (m->mix) { /* last: its gradient leaves other batch statistics in the model */
        fl_mix_step(m->mix);
    }
}

void fl_moves_end(struct fl_moves *m)
{
    if (m->generator) {
        fl_generator_end(m->generator);
    }
    fl_param_store(m->s->layout, m->s->theta, m->shared, m->private_);
}
