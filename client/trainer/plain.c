/*
 * Training without noise: epochs over shuffled batches, the last short one kept.
 *
 * The head alone is trained on features: the body does not move meanwhile, so it runs once over the
 * examples and every further epoch costs only the head. Where everything that trains is the head (a
 * linear model on fixed features) there is no body, and features are what the session loads.
 */
#include "client/trainer/represent.h"
#include "client/trainer/session.h"

#include "common/base/mem.h"
#include "common/math/vec.h"

#include <string.h>

int fl_order_init(struct fl_order *o, const struct fl_seed *seed, const char *label, size_t count,
                  struct fl_err *e)
{
    struct fl_seed own;

    o->count = count;
    o->next = 0;
    o->at = fl_try(count, sizeof *o->at);
    if (!o->at) {
        return fl_fail(e, FL_R_NOMEM, "the order of %zu examples", count);
    }
    for (size_t i = 0; i < count; i++) {
        o->at[i] = (uint32_t)i;
    }
    fl_seed_derive(seed, label, 0, &own);
    fl_rng_init(&o->rng, &own, 0);
    return 0;
}

void fl_order_fini(struct fl_order *o)
{
    fl_free(o->at);
}

size_t fl_order_load(struct fl_order *o, struct fl_session *s)
{
    size_t batch = s->plan->train.batch, n = o->count - o->next;

    if (o->next == 0) {
        fl_rng_shuffle(&o->rng, o->at, o->count);
    }
    n = n < batch ? n : batch;
    fl_session_load(s, &s->data->train, o->at, o->next, n);
    o->next = o->next + n < o->count ? o->next + n : 0;
    return n;
}

uint64_t fl_session_batches(const struct fl_session *s, uint32_t epochs)
{
    uint64_t batch = s->plan->train.batch;

    return batch ? epochs * ((s->data->train.count + batch - 1) / batch) : 0;
}

/* ---- the head on features ---- */

struct head {
    struct fl_model *body, *model; /* body may be NULL */
    size_t features, elements;
    float *theta; /* its part of the session's */
    float *all;   /* features of every training example */
    float *x;     /* one batch */
    float *grad, *momentum;
    float *square; /* of Adam */
    uint64_t steps;
};

static void head_fini(struct head *h)
{
    fl_model_free(h->body);
    fl_model_free(h->model);
    fl_free(h->all);
    fl_free(h->x);
    fl_free(h->grad);
    fl_free(h->momentum);
    fl_free(h->square);
}

static int head_init(struct head *h, struct fl_session *s, struct fl_err *e)
{
    const struct fl_spec *spec = s->half ? &s->half[1] : s->spec;
    const uint32_t *in = spec->input;
    bool together = fl_spec_together(spec) != NULL;
    uint32_t shard = s->batch < 64 || together ? (uint32_t)s->batch : 64;
    size_t count = s->data->train.count;
    int r;

    memset(h, 0, sizeof *h);
    h->features = (size_t)in[0] * in[1] * in[2];
    h->theta = s->theta + (s->half ? s->body : 0);
    h->elements = s->layout->theta.elements - (size_t)(h->theta - s->theta);
    if ((r = s->half ? fl_model_new(&s->half[0], shard, &h->body, e) : 0) < 0 ||
        (r = fl_model_new(spec, shard, &h->model, e)) < 0) {
        return r;
    }
    h->all = fl_try_aligned(count * h->features, sizeof *h->all);
    h->x = fl_try_aligned(s->batch * h->features, sizeof *h->x);
    h->grad = fl_try_aligned(h->elements, sizeof *h->grad);
    h->momentum = fl_try_aligned(h->elements, sizeof *h->momentum);
    bool adam = s->plan->train.optimizer >= FL_OPTIM_ADAM;
    h->square = adam ? fl_try_aligned(h->elements, sizeof *h->square) : NULL;
    if (!h->all || !h->x || !h->grad || !h->momentum || (adam && !h->square)) {
        return fl_fail(e, FL_R_NOMEM, "%zu features of %zu examples", h->features, count);
    }
    return 0;
}

static int make_features(struct head *h, struct fl_session *s, struct fl_err *e)
{
    size_t count = s->data->train.count;
    int r;

    if (h->body) {
        fl_model_set(h->body, s->theta);
    }
    for (size_t at = 0, n; at < count; at += n) {
        if ((r = fl_session_cancelled(s, e)) < 0) {
            return r;
        }
        n = count - at < s->batch ? count - at : s->batch;
        fl_session_load(s, &s->data->train, NULL, at, n);
        float *to = h->all + at * h->features;
        if (h->body) {
            fl_model_forward(h->body, s->x, n, to);
        } else {
            memcpy(to, s->x, n * h->features * sizeof *to);
        }
    }
    return 0;
}

static void head_step(struct head *h, struct fl_session *s, const struct fl_sgd *sgd,
                      const uint32_t *order, size_t n, struct fl_score *score)
{
    struct fl_optim optim = fl_moves_optim(s, sgd);

    for (size_t i = 0; i < n; i++) {
        memcpy(h->x + i * h->features, h->all + order[i] * h->features, h->features * sizeof *h->x);
        fl_session_goal(s, i, &s->data->train, order[i]);
    }
    fl_model_set(h->model, h->theta);
    fl_model_gradient(h->model, h->x, s->goal, n, h->grad, score);
    float factor = fl_optim_clip(fl_vec_norm_squared(h->grad, h->elements), sgd->clip);
    if (h->square) {
        fl_optim_adam(&optim, factor, ++h->steps, h->grad, h->momentum, h->square, h->theta,
                      h->elements);
    } else {
        fl_optim_step(&optim, factor, h->grad, h->momentum, h->theta, h->elements);
    }
    fl_model_settle(h->model, h->theta);
}

int fl_train_head(struct fl_session *s, const struct fl_seed *seed, const char *label,
                  uint32_t epochs, const struct fl_sgd *sgd, struct fl_progress *p,
                  struct fl_err *e)
{
    size_t count = s->data->train.count, batch = s->plan->train.batch;
    struct fl_order order = {0};
    struct head h;
    int r;

    if ((r = head_init(&h, s, e)) < 0 || (r = fl_order_init(&order, seed, label, count, e)) < 0 ||
        (r = make_features(&h, s, e)) < 0) {
        goto out;
    }
    for (uint32_t epoch = 0; epoch < epochs; epoch++) {
        double loss = 0;
        fl_rng_shuffle(&order.rng, order.at, count);
        for (size_t at = 0, n; at < count; at += n) {
            struct fl_score score;
            if ((r = fl_session_cancelled(s, e)) < 0) {
                goto out;
            }
            n = count - at < batch ? count - at : batch;
            head_step(&h, s, sgd, order.at + at, n, &score);
            loss += score.loss;
            p->steps++;
        }
        p->loss = count ? loss / (double)count : 0;
    }
out:
    fl_order_fini(&order);
    head_fini(&h);
    return r;
}

/* ---- the whole network ---- */

int fl_train_batches(struct fl_session *s, struct fl_moves *moves, const struct fl_seed *seed,
                     uint64_t steps, struct fl_progress *p, struct fl_err *e)
{
    struct fl_order order = {0};
    struct fl_seed drop;
    size_t seen = 0;
    double loss = 0;
    int r = fl_order_init(&order, seed, "batches", s->data->train.count, e);

    fl_seed_derive(seed, "dropout", 0, &drop);
    fl_model_dropout(s->model, &drop);

    for (uint64_t k = 0; r == 0 && k < steps; k++) {
        struct fl_score score;
        if ((r = fl_session_cancelled(s, e)) < 0) {
            break;
        }
        if (order.next == 0) {
            seen = 0;
            loss = 0;
        }
        size_t n = fl_order_load(&order, s);
        fl_represent_before(s->represent, n);
        fl_model_set(s->model, s->theta);
        fl_model_gradient(s->model, s->x, s->goal, n, s->grad, &score);
        fl_represent_after(s->represent);
        fl_moves_step(moves);
        loss += score.loss;
        seen += n;
        p->loss = loss / (double)seen;
        p->steps++;
    }
    fl_model_dropout(s->model, NULL);
    fl_order_fini(&order);
    return r;
}
