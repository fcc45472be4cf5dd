/*
 * FedDBE (Zhang et al. 2023, arXiv 2311.14975): the head sees z + m, where z are the features and m
 * a mean of this site's own that trains with everything else; and to the loss comes
 *
 *     kappa / 2 mean over features of (running - g)^2,  running <- (1 - mu) running + mu mean(z)
 *
 * where mean(z) is the batch's, mu `momentum`, and g the mean over sites of their mean features,
 * which travels behind the model. It is known from the second round on.
 *
 * A linear layer that sees z + m is one whose bias is b + W m: the network runs as it is with that
 * bias, and afterwards the gradient of W gets what is missing, that of b times m. What flows back
 * to the features, summed over the batch, is the gradient of m.
 *
 * FedProto (Tan et al. 2022, arXiv 2105.00243): models train alone, and to the loss comes
 *
 *     lambda mean over examples and features of (z - p_y)^2
 *
 * where p_y is the prototype of the example's class: the mean, over the sites that have the class,
 * of its mean features. Sums and numbers of sites travel, and are divided here, so that the
 * coordinator does nothing but means.
 */
#include "client/trainer/represent.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/plan/beside.h"

#include <string.h>

struct fl_represent {
    struct fl_session *s;
    bool proto;
    struct fl_head head;
    struct fl_tap tap;
    struct fl_model *body; /* features and nothing else */
    float *z;              /* of one batch */
    size_t batch;          /* examples of this one */
    /* feddbe */
    float *mean;         /* m, in the private vector */
    const float *center; /* g; NULL: not known yet */
    bool seen;           /* this batch is in `running` */
    float *running, *bias, *pulled;
    /* fedproto */
    uint32_t classes;
    float *prototype; /* classes x features */
    bool *known;
};

void fl_represent_free(struct fl_represent *f)
{
    if (f) {
        fl_model_tap(f->s->model, NULL);
        fl_model_free(f->body);
        fl_free(f->z);
        fl_free(f->running);
        fl_free(f->bias);
        fl_free(f->pulled);
        fl_free(f->prototype);
        fl_free(f->known);
        fl_free(f);
    }
}

/* ---- FedDBE ---- */

/* count examples more of a batch of f->batch: into the running mean, to which they count mu /
 * batch each. */
static void run_on(struct fl_represent *f, const float *z, size_t count)
{
    float part = f->s->plan->setting.momentum / (float)f->batch;

    for (size_t n = 0; n < count; n++) {
        fl_vec_axpy(part, z + n * f->head.in, f->running, f->head.in);
    }
}

static void fade(struct fl_represent *f)
{
    for (size_t i = 0; i < f->head.in; i++) {
        f->running[i] *= 1 - f->s->plan->setting.momentum;
    }
}

static void add_center(void *arg, size_t first, size_t count, const float *z, float *dz)
{
    struct fl_represent *f = arg;
    const struct fl_strategy_conf *c = &f->s->plan->setting;
    float weight = c->kappa * c->momentum / (float)f->head.in / (float)f->batch;

    (void)first;
    for (size_t n = 0; n < count; n++) {
        fl_vec_axpy(1, dz + n * f->head.in, f->pulled, f->head.in);
    }
    if (!f->center) {
        return;
    }
    if (!f->seen) { /* the whole batch is one shard */
        run_on(f, z, count);
        f->seen = true;
    }
    for (size_t n = 0; n < count; n++) {
        float *to = dz + n * f->head.in;
        for (size_t i = 0; i < f->head.in; i++) {
            to[i] += weight * (f->running[i] - f->center[i]);
        }
    }
}

/* A batch of several shards: its mean is needed before the first of them goes back. */
static void see_batch(struct fl_represent *f, size_t count)
{
    fl_model_set(f->body, f->s->theta);
    fl_model_forward(f->body, f->s->x, count, f->z);
    run_on(f, f->z, count);
    f->seen = true;
}

static void before_center(struct fl_represent *f, size_t count)
{
    struct fl_session *s = f->s;
    const struct fl_head *h = &f->head;

    memset(f->pulled, 0, h->in * sizeof *f->pulled);
    memcpy(f->bias, s->theta + h->bias, h->out * sizeof *f->bias);
    for (size_t o = 0; o < h->out; o++) {
        s->theta[h->bias + o] +=
            (float)fl_vec_dot(s->theta + h->weight + o * h->in, f->mean, h->in);
    }
    if (f->center) {
        fade(f);
        f->seen = false;
        if (count > s->shard) {
            see_batch(f, count);
        }
    }
}

static void after_center(struct fl_represent *f)
{
    struct fl_session *s = f->s;
    const struct fl_head *h = &f->head;

    memcpy(s->theta + h->bias, f->bias, h->out * sizeof *f->bias);
    for (size_t o = 0; o < h->out; o++) {
        fl_vec_axpy(s->grad[h->bias + o], f->mean, s->grad + h->weight + o * h->in, h->in);
    }
    fl_vec_axpy(-s->plan->train.body.lr * s->rate, f->pulled, f->mean, h->in);
}

static int init_center(struct fl_represent *f, const struct fl_train_task *task, float *private_,
                       struct fl_err *e)
{
    const struct fl_layout *l = f->s->layout;

    f->mean = private_ + fl_kept_of(l).mean;
    f->center = task->round > 1 ? task->base + fl_layout_found(&l->shared, "mean.features") : NULL;
    f->running = fl_try_aligned(f->head.in, sizeof *f->running);
    f->pulled = fl_try_aligned(f->head.in, sizeof *f->pulled);
    f->bias = fl_try_aligned(f->head.out, sizeof *f->bias);
    f->tap = (struct fl_tap){.add = add_center, .arg = f};
    return f->running && f->pulled && f->bias ? 0 : fl_fail(e, FL_R_NOMEM, "means of features");
}

/* ---- FedProto ---- */

static void add_prototype(void *arg, size_t first, size_t count, const float *z, float *dz)
{
    struct fl_represent *f = arg;
    size_t in = f->head.in;
    float weight = 2 * f->s->plan->setting.lambda / (float)in / (float)f->batch;

    for (size_t n = 0; n < count; n++) {
        size_t c = (size_t)f->s->y[first + n];
        for (size_t i = 0; f->known[c] && i < in; i++) {
            dz[n * in + i] += weight * (z[n * in + i] - f->prototype[c * in + i]);
        }
    }
}

/* A class that less than half a site has is noise. */
static int init_prototypes(struct fl_represent *f, const struct fl_train_task *task,
                           struct fl_err *e)
{
    const struct fl_tensors *shared = &f->s->layout->shared;
    const float *sum = task->base + fl_layout_found(shared, "sum.features");
    const float *sites = task->base + fl_layout_found(shared, "sum.sites");
    float least = 0.5f / (float)f->s->plan->round.members;

    f->classes = f->s->layout->spec.classes;
    f->prototype = fl_try_aligned(f->classes * f->head.in, sizeof *f->prototype);
    f->known = fl_try(f->classes, sizeof *f->known);
    if (!f->prototype || !f->known) {
        return fl_fail(e, FL_R_NOMEM, "prototypes of %u classes", f->classes);
    }
    for (uint32_t c = 0; c < f->classes; c++) {
        f->known[c] = sites[c] >= least;
        for (size_t i = 0; f->known[c] && i < f->head.in; i++) {
            f->prototype[c * f->head.in + i] = sum[c * f->head.in + i] / sites[c];
        }
    }
    f->tap = (struct fl_tap){.add = add_prototype, .arg = f};
    return 0;
}

/* ---- both ---- */

int fl_represent_new(struct fl_session *s, const struct fl_train_task *task, float *private_,
                     struct fl_represent **ret, struct fl_err *e)
{
    enum fl_local local = s->plan->setting.local;
    struct fl_represent *f;
    int r;

    *ret = NULL;
    if (local != FL_LOCAL_FEDDBE && local != FL_LOCAL_FEDPROTO) {
        return 0;
    }
    f = fl_try(1, sizeof *f);
    if (!f) {
        return fl_fail(e, FL_R_NOMEM, "means of features");
    }
    *f = (struct fl_represent){.s = s, .proto = local == FL_LOCAL_FEDPROTO};
    fl_head_of(s->layout, &f->head);
    r = fl_model_new(&s->half[0], (uint32_t)s->shard, &f->body, e);
    if (r == 0 && !(f->z = fl_try_aligned(s->batch * f->head.in, sizeof *f->z))) {
        r = fl_fail(e, FL_R_NOMEM, "features of %zu examples", s->batch);
    }
    if (r == 0) {
        r = f->proto ? init_prototypes(f, task, e) : init_center(f, task, private_, e);
    }
    if (r == 0 && !fl_model_tap(s->model, &f->tap)) {
        r = fl_fail(e, FL_R_PLAN_MODEL, "this network has no features to compare");
    }
    if (r < 0) {
        fl_represent_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

void fl_represent_before(struct fl_represent *f, size_t count)
{
    if (f) {
        f->batch = count;
        if (!f->proto) {
            before_center(f, count);
        }
    }
}

void fl_represent_after(struct fl_represent *f)
{
    if (f && !f->proto) {
        after_center(f);
    }
}

/* Means of features by class (one class of all for FedDBE): `classes` x features, and how many
 * examples each is of. */
static int means(struct fl_represent *f, uint32_t classes, double *to, size_t *ret_seen,
                 struct fl_err *e)
{
    struct fl_session *s = f->s;
    size_t count = s->data->train.count, in = f->head.in;

    fl_model_set(f->body, s->theta);
    for (size_t at = 0, n; at < count; at += n) {
        int r = fl_session_cancelled(s, e);
        if (r < 0) {
            return r;
        }
        n = count - at < s->batch ? count - at : s->batch;
        fl_session_load(s, &s->data->train, NULL, at, n);
        fl_model_forward(f->body, s->x, n, f->z);
        for (size_t k = 0; k < n; k++) {
            size_t c = classes == 1 ? 0 : (size_t)s->y[k];
            ret_seen[c]++;
            for (size_t i = 0; i < in; i++) {
                to[c * in + i] += (double)f->z[k * in + i];
            }
        }
    }
    for (uint32_t c = 0; c < classes; c++) {
        for (size_t i = 0; ret_seen[c] > 0 && i < in; i++) {
            to[c * in + i] /= (double)ret_seen[c];
        }
    }
    return fl_session_cancelled(s, e);
}

int fl_represent_end(struct fl_represent *f, float *shared, struct fl_err *e)
{
    if (!f) {
        return 0;
    }
    const struct fl_tensors *t = &f->s->layout->shared;
    uint32_t classes = f->proto ? f->classes : 1;
    size_t count = classes * f->head.in;
    double *mean = fl_try(count, sizeof *mean);
    size_t *seen = fl_try(classes, sizeof *seen);
    int r = mean && seen ? means(f, classes, mean, seen, e)
                         : fl_fail(e, FL_R_NOMEM, "means of %u classes", classes);

    if (r == 0) {
        float *to = shared + fl_layout_found(t, f->proto ? "sum.features" : "mean.features");
        for (size_t i = 0; i < count; i++) {
            to[i] = (float)mean[i];
        }
        for (uint32_t c = 0; f->proto && c < classes; c++) {
            shared[fl_layout_found(t, "sum.sites") + c] = seen[c] > 0;
        }
    }
    fl_free(mean);
    fl_free(seen);
    return r;
}
