/*
 * A site's own model v beside the shared one w.
 *
 * Ditto (Li et al. 2021, arXiv 2012.04221, algorithm 1): after w's training v takes steps on its
 * loss + lambda/2 |v - w received|^2. v serves.
 *
 * APFL (Deng et al. 2020, arXiv 2003.13461, algorithm 1): with each step of w
 *
 *     v <- v - lr alpha grad L(mix)         mix = alpha v + (1 - alpha) w
 *
 * and with the first one alpha <- alpha - lr <grad L(mix), v - w>, cut at 0 and 1. The mix serves;
 * of a model that was just received, with that as w.
 *
 * FedALA (Zhang et al. 2023, arXiv 2212.01197): on receiving w, the last layers become
 * w + (v - w) stays, where v is what the site's training ended with the last time and `stays` (one
 * minus the paper's W) follows the gradient of the loss on a part of the examples. That model
 * serves; it is trained and uploaded, and becomes v.
 *
 * Neither v nor alpha of the first two is read by what makes an upload: under the unit `example`
 * they train without noise, on batches and by seeds of their own. So that not even a failure could
 * tell of them, a model that is no longer finite begins again.
 */
#include "client/trainer/personal.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/param/param.h"
#include "common/plan/beside.h"

#include <math.h>
#include <string.h>

enum {
    ROUNDS_MAX = 1 << 20, /* counted exactly in a float */
    PASSES_MAX = 100,     /* of FedALA's weights, the first time */
    PASSES_SEEN = 10,
};
static const double PASSES_SPREAD = 0.1; /* of the last losses: they have settled */

/* to = b + part (a - b) */
FL_VECTOR static void blend(const float *a, const float *b, float part, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = b[i] + part * (a[i] - b[i]);
    }
}

/* ---- FedALA: weights learn when a model is received ---- */

struct ala {
    struct fl_session *s;
    size_t from, count; /* the mixed end of theta */
    float *received, *apart, *stays;
    struct fl_order order; /* the examples it learns from come first */
    size_t share;
};

static void ala_fini(struct ala *a)
{
    fl_free(a->received);
    fl_free(a->apart);
    fl_order_fini(&a->order);
}

static int ala_init(struct ala *a, struct fl_session *s, const struct fl_seed *seed, const float *v,
                    float *stays, size_t count, struct fl_err *e)
{
    uint32_t examples = s->data->train.count;

    *a = (struct ala){.s = s,
                      .from = s->layout->theta.elements - count,
                      .count = count,
                      .stays = stays,
                      .share = (size_t)ceil((double)s->plan->setting.share * examples)};
    a->received = fl_try_aligned(count, sizeof *a->received);
    a->apart = fl_try_aligned(count, sizeof *a->apart);
    if (!a->received || !a->apart) {
        return fl_fail(e, FL_R_NOMEM, "weights of %zu elements", count);
    }
    memcpy(a->received, s->theta + a->from, count * sizeof *a->received);
    fl_vec_sub(v + a->from, a->received, a->apart, count);
    int r = fl_order_init(&a->order, seed, "weights", examples, e);
    if (r == 0) {
        fl_rng_shuffle(&a->order.rng, a->order.at, examples);
    }
    return r;
}

static void ala_mix(struct ala *a)
{
    for (size_t i = 0; i < a->count; i++) {
        a->s->theta[a->from + i] = a->received[i] + a->stays[i] * a->apart[i];
    }
}

/* Once over the examples. The loss of the last batch. */
static int ala_pass(struct ala *a, double *ret_loss, struct fl_err *e)
{
    struct fl_session *s = a->s;
    float eta = s->plan->setting.eta;
    size_t batch = s->plan->train.batch;
    struct fl_score score;

    for (size_t at = 0, n; at < a->share; at += n) {
        int r = fl_session_cancelled(s, e);
        if (r < 0) {
            return r;
        }
        n = a->share - at < batch ? a->share - at : batch;
        fl_session_load(s, &s->data->train, a->order.at, at, n);
        fl_model_set(s->model, s->theta);
        fl_model_gradient(s->model, s->x, s->goal, n, s->grad, &score);
        for (size_t i = 0; i < a->count; i++) {
            float x = a->stays[i] - eta * s->grad[a->from + i] * a->apart[i];
            a->stays[i] = x > 0 ? x < 1 ? x : 1 : 0; /* not a number: 0 */
        }
        ala_mix(a);
        *ret_loss = score.loss / (double)n;
    }
    return 0;
}

static bool settled(const double *loss, size_t count)
{
    double mean = 0, spread = 0;

    if (count <= PASSES_SEEN) {
        return false;
    }
    loss += count - PASSES_SEEN;
    for (size_t i = 0; i < PASSES_SEEN; i++) {
        mean += loss[i] / PASSES_SEEN;
    }
    for (size_t i = 0; i < PASSES_SEEN; i++) {
        spread += (loss[i] - mean) * (loss[i] - mean) / PASSES_SEEN;
    }
    return sqrt(spread) < PASSES_SPREAD;
}

/* The first time until the loss has settled, later once. */
static int ala_learn(struct fl_session *s, const struct fl_seed *seed, const struct fl_kept *k,
                     const float *private_, float *stays, struct fl_err *e)
{
    double loss[PASSES_MAX] = {0};
    bool first = private_[k->rounds] == 1;
    struct ala a;
    int r = ala_init(&a, s, seed, private_ + k->personal, stays, k->stays_count, e);

    if (r == 0) {
        ala_mix(&a);
    }
    for (size_t i = 0; r == 0 && i < (first ? PASSES_MAX : 1) && !settled(loss, i); i++) {
        r = ala_pass(&a, &loss[i], e);
    }
    ala_fini(&a);
    return r;
}

int fl_personal_receive(struct fl_session *s, const struct fl_seed *seed, const float *private_in,
                        float *private_out, struct fl_err *e)
{
    const struct fl_kept k = fl_kept_of(s->layout);

    if (s->plan->setting.local != FL_LOCAL_FEDALA || private_in[k.rounds] == 0 ||
        s->data->train.count == 0) {
        fl_kept_serve(s->plan, private_in, s->theta);
        return 0;
    }
    size_t count = k.stays_count;
    float *stays = fl_try_aligned(count, sizeof *stays);
    if (!stays) {
        return fl_fail(e, FL_R_NOMEM, "weights of %zu elements", count);
    }
    memcpy(stays, private_in + k.stays, count * sizeof *stays);
    int r = ala_learn(s, seed, &k, private_in, stays, e);
    if (r == 0 && private_out) {
        memcpy(private_out + k.stays, stays, count * sizeof *stays);
    }
    fl_free(stays);
    return r;
}

/* ---- APFL: a second model beside every step ---- */

struct fl_mix {
    struct fl_session *s;
    struct fl_moves moves; /* of v */
    struct fl_order order;
    float *v, *alpha; /* in the private vector */
    float *was;       /* the shared model before its step */
    float *both, *grad;
    bool learns; /* alpha, with the next step */
};

void fl_mix_free(struct fl_mix *x)
{
    if (x) {
        fl_moves_fini(&x->moves);
        fl_order_fini(&x->order);
        fl_free(x->was);
        fl_free(x->both);
        fl_free(x->grad);
        fl_free(x);
    }
}

int fl_mix_new(struct fl_session *s, const struct fl_seed *seed, float *private_,
               struct fl_mix **ret, struct fl_err *e)
{
    const struct fl_kept k = fl_kept_of(s->layout);
    size_t elements = s->layout->theta.elements;
    struct fl_mix *x = fl_try(1, sizeof *x);
    int r;

    if (!x) {
        return fl_fail(e, FL_R_NOMEM, "a second model");
    }
    *x = (struct fl_mix){.s = s,
                         .v = private_ + k.personal,
                         .alpha = private_ + k.alpha,
                         .learns = s->plan->setting.learn};
    x->was = fl_try_aligned(elements, sizeof *x->was);
    x->both = fl_try_aligned(elements, sizeof *x->both);
    x->grad = fl_try_aligned(elements, sizeof *x->grad);
    r = x->was && x->both && x->grad
            ? 0
            : fl_fail(e, FL_R_NOMEM, "a second model of %zu elements", elements);
    if (r == 0) {
        r = fl_moves_init(&x->moves, s, true, false, true, NULL, NULL, 0, e);
    }
    if (r == 0) {
        r = fl_order_init(&x->order, seed, "personal", s->data->train.count, e);
    }
    if (r < 0) {
        fl_mix_free(x);
        return r;
    }
    if (private_[k.rounds] == 0) {
        memcpy(x->v, s->theta, elements * sizeof *x->v);
        *x->alpha = s->plan->setting.alpha;
    }
    *ret = x;
    return 0;
}

void fl_mix_look(struct fl_mix *x)
{
    memcpy(x->was, x->s->theta, x->s->layout->theta.elements * sizeof *x->was);
}

void fl_mix_step(struct fl_mix *x)
{
    struct fl_session *s = x->s;
    size_t elements = s->layout->theta.elements;
    float *theta = s->theta, *grad = s->grad;
    float alpha = *x->alpha;
    size_t n = fl_order_load(&x->order, s);
    double slope = 0;

    blend(x->v, x->was, alpha, x->both, elements);
    fl_model_set(s->model, x->both);
    fl_model_gradient(s->model, s->x, s->goal, n, x->grad, NULL);
    for (size_t i = 0; i < elements; i++) {
        slope += (double)x->grad[i] * ((double)x->v[i] - (double)x->was[i]);
        x->grad[i] *= alpha;
    }
    s->theta = x->v;
    s->grad = x->grad;
    fl_moves_step(&x->moves);
    s->theta = theta;
    s->grad = grad;
    if (x->learns) {
        double to = (double)alpha - (double)x->moves.body_optim.lr * slope;
        *x->alpha = to > 0 ? to < 1 ? (float)to : 1 : 0;
        x->learns = false;
    }
}

/* ---- after the shared model's training ---- */

static int ditto(struct fl_session *s, const struct fl_train_task *task, const struct fl_kept *k,
                 float *v, struct fl_err *e)
{
    const struct fl_strategy_conf *c = &s->plan->setting;
    uint64_t steps = fl_session_batches(s, c->epochs);
    struct fl_progress unused = {0};
    struct fl_moves moves = {0};
    struct fl_seed own;
    int r = fl_param_make(s->layout, task->base, task->private_in, s->theta, e);

    if (r == 0) {
        r = fl_moves_init(&moves, s, true, false, true, NULL, NULL, steps, e);
    }
    if (r == 0 && c->lambda > 0) {
        r = fl_moves_pull(&moves, c->lambda, e);
    }
    if (r == 0) {
        if (task->private_in[k->rounds] > 0) {
            memcpy(s->theta, v, s->layout->theta.elements * sizeof *v);
        }
        fl_seed_derive(&task->seed, "personal", 0, &own);
        s->augment = s->plan->data.crop || s->plan->data.flip ? &own : NULL;
        r = fl_train_batches(s, &moves, &own, steps, &unused, e);
        s->augment = NULL;
    }
    if (r == 0) {
        memcpy(v, s->theta, s->layout->theta.elements * sizeof *v);
    }
    fl_moves_fini(&moves);
    return r;
}

int fl_personal_train(struct fl_session *s, const struct fl_train_task *task, float *private_,
                      struct fl_err *e)
{
    const struct fl_kept k = fl_kept_of(s->layout);
    enum fl_local local = s->plan->setting.local;
    size_t elements = s->layout->theta.elements;
    int r = 0;

    if (local == FL_LOCAL_FEDDBE) {
        fl_kept_serve(s->plan, private_, s->theta);
        return 0;
    }
    if (!fl_plan_personal(s->plan) || s->data->train.count == 0) {
        return 0;
    }
    float *v = private_ + k.personal;
    if (local == FL_LOCAL_DITTO) {
        r = ditto(s, task, &k, v, e);
    } else if (local == FL_LOCAL_FEDALA) {
        memcpy(v, s->theta, elements * sizeof *v);
    }
    if (r < 0) {
        return r;
    }
    private_[k.rounds] = fminf(private_[k.rounds] + 1, ROUNDS_MAX);
    if (local == FL_LOCAL_APFL) {
        fl_kept_serve(s->plan, private_, s->theta);
    }
    if (!fl_vec_finite(v, elements)) {
        memset(private_ + k.rounds, 0, (s->layout->private_.elements - k.rounds) * sizeof *v);
    }
    return 0;
}
