#include "client/trainer/align.h"

#include "common/base/mem.h"
#include "common/math/rff.h"
#include "common/math/vec.h"
#include "common/nn/layers.h"
#include "common/plan/fedka.h"

#include <math.h>
#include <string.h>

enum { HIDDEN = 100, WARM_MAX = 20 };

/* Which features belong to the target: 1 of these, 0 of the site's own. */
struct judge {
    size_t width, count; /* of its parameters */
    float *theta, *grad, *momentum, *square;
    float *x, *hidden, *d_hidden, *dx; /* of 2 * shard points: own ones, then the target's */
    float *out, *d_out;
    uint64_t steps;
    struct fl_rng rng; /* which of the target's features are next */
};

struct fl_align {
    struct fl_session *s;
    struct fl_tap tap;
    const struct fl_fedka_conf *conf;
    struct fl_fedka_input target;
    float *numbers; /* that target points into */
    uint64_t round, rounds, steps, step;
    struct fl_rff rff;
    float *angles, *unit, *d_unit;
    double *sum;
    struct judge judge;
};

/* ---- discriminator ---- */

static void judge_fini(struct judge *j)
{
    fl_free(j->theta);
    fl_free(j->grad);
    fl_free(j->momentum);
    fl_free(j->square);
    fl_free(j->x);
    fl_free(j->hidden);
    fl_free(j->d_hidden);
    fl_free(j->dx);
    fl_free(j->out);
    fl_free(j->d_out);
    fl_rng_fini(&j->rng);
}

static int judge_init(struct judge *j, size_t width, size_t shard, const struct fl_seed *seed,
                      struct fl_err *e)
{
    struct fl_seed own;
    size_t points = 2 * shard;

    j->width = width;
    j->count = HIDDEN * width + HIDDEN + HIDDEN + 1;
    j->theta = fl_try_aligned(j->count, sizeof *j->theta);
    j->grad = fl_try_aligned(j->count, sizeof *j->grad);
    j->momentum = fl_try_aligned(j->count, sizeof *j->momentum);
    j->square = fl_try_aligned(j->count, sizeof *j->square);
    j->x = fl_try_aligned(points * width, sizeof *j->x);
    j->dx = fl_try_aligned(points * width, sizeof *j->dx);
    j->hidden = fl_try_aligned(points * HIDDEN, sizeof *j->hidden);
    j->d_hidden = fl_try_aligned(points * HIDDEN, sizeof *j->d_hidden);
    j->out = fl_try_aligned(points, sizeof *j->out);
    j->d_out = fl_try_aligned(points, sizeof *j->d_out);
    if (!j->theta || !j->grad || !j->momentum || !j->square || !j->x || !j->dx || !j->hidden ||
        !j->d_hidden || !j->out || !j->d_out) {
        return fl_fail(e, FL_R_NOMEM, "a discriminator of %zu features", width);
    }
    fl_seed_derive(seed, "discriminator", 0, &own);
    fl_rng_init(&j->rng, &own, 0);
    for (size_t i = 0; i < j->count; i++) {
        double bound = 1 / sqrt(i < HIDDEN * width + HIDDEN ? (double)width : (double)HIDDEN);
        j->theta[i] = (float)((2 * fl_rng_unit(&j->rng) - 1) * bound);
    }
    return 0;
}

/* One step on the points in j->x: the first `own` are the site's, as many of the target's follow.
 * j->dx = the gradient of the mean loss of the one plus that of the other. */
static void judge_step(struct judge *j, size_t own)
{
    const struct fl_optim adam = {
        .kind = FL_OPTIM_ADAM, .lr = 1e-3f, .momentum = 0.9f, .beta2 = 0.999f};
    size_t points = 2 * own, second = HIDDEN * j->width + HIDDEN;

    fl_linear_forward(j->theta, j->width, HIDDEN, j->x, points, j->hidden);
    fl_leaky_forward(j->hidden, points * HIDDEN, 0.01f);
    fl_linear_forward(j->theta + second, HIDDEN, 1, j->hidden, points, j->out);
    for (size_t n = 0; n < points; n++) { /* of log(1 + exp(out)) - label * out */
        float p = 1 / (1 + expf(-j->out[n]));
        j->d_out[n] = (p - (n < own ? 0.0f : 1.0f)) / (float)own;
    }
    memset(j->grad, 0, j->count * sizeof *j->grad);
    fl_linear_backward(j->theta + second, HIDDEN, 1, j->hidden, j->d_out, points, j->grad + second,
                       j->d_hidden);
    fl_leaky_backward(j->hidden, j->d_hidden, points * HIDDEN, 0.01f);
    fl_linear_backward(j->theta, j->width, HIDDEN, j->x, j->d_hidden, points, j->grad, j->dx);
    fl_optim_adam(&adam, 1, ++j->steps, j->grad, j->momentum, j->square, j->theta, j->count);
}

static void disentangle(struct fl_align *a, size_t count, float ramp, const float *z, float *dz)
{
    struct judge *j = &a->judge;
    size_t width = j->width;
    uint64_t warm = a->steps / 4 < WARM_MAX ? a->steps / 4 : WARM_MAX;

    memcpy(j->x, z, count * width * sizeof *z);
    for (size_t n = 0; n < count; n++) {
        size_t k = fl_rng_below(&j->rng, a->target.features);
        memcpy(j->x + (count + n) * width, a->target.z + k * width, width * sizeof *z);
    }
    judge_step(j, count);
    if (a->step > warm) {
        fl_vec_axpy(-ramp * a->conf->disentangle, j->dx, dz, count * width);
    }
}

/* ---- matching ---- */

static void match(struct fl_align *a, size_t count, float ramp, const float *z, float *dz)
{
    const struct fl_fedka_input *t = &a->target;
    float weight = ramp * a->conf->matching;

    if (a->conf->variant == FL_FEDKA_PUBLISHED) { /* the sum of the kernels, not their mean */
        size_t width = t->width, most = t->features < count ? t->features : count;
        double bandwidth = fl_mmd_bandwidth(z, count, t->z, most, width);
        if (bandwidth > 0) {
            (void)fl_mmd(z, count, t->z, most, width, bandwidth, FL_RFF_KERNELS * weight, dz);
        }
        return;
    }
    memset(a->sum, 0, t->length * sizeof *a->sum);
    memset(a->d_unit, 0, count * t->width * sizeof *a->d_unit);
    fl_rff_unit(z, count, t->width, a->unit);
    fl_rff_add(&a->rff, t->bandwidth, a->unit, count, a->angles, a->sum);
    (void)fl_rff_pull(&a->rff, t->bandwidth, count, a->angles, a->sum, t->mean, weight, a->d_unit);
    fl_rff_unit_back(z, a->unit, a->d_unit, count, t->width, dz);
}

static void add_terms(void *arg, size_t first, size_t count, const float *z, float *dz)
{
    struct fl_align *a = arg;

    a->step += first == 0;
    double part = (double)(a->step - 1) / (double)a->steps;
    float ramp = fl_fedka_ramp(a->round, a->rounds, part < 1 ? part : 1);

    if (a->conf->matching > 0 && a->target.known) {
        match(a, count, ramp, z, dz);
    }
    if (a->conf->disentangle > 0 && a->target.features) {
        disentangle(a, count, ramp, z, dz);
    }
}

/* ---- life ---- */

void fl_align_free(struct fl_align *a)
{
    if (!a) {
        return;
    }
    (void)fl_model_tap(a->s->model, NULL);
    judge_fini(&a->judge);
    fl_rff_fini(&a->rff);
    fl_free(a->angles);
    fl_free(a->unit);
    fl_free(a->d_unit);
    fl_free(a->sum);
    fl_free(a->numbers);
    fl_free(a);
}

static int align_init(struct fl_align *a, const struct fl_train_task *task, struct fl_err *e)
{
    const struct fl_plan *plan = task->plan;
    struct fl_seed seed;
    int r = fl_fedka_input_get(plan, task->input, task->input_size, &a->target, &a->numbers, e);

    if (r) {
        return r;
    }
    if (a->conf->matching > 0 && a->conf->variant == FL_FEDKA_BETTER) {
        fl_fedka_seed(plan, &seed);
        r = fl_rff_init(&a->rff, &seed, a->target.width, a->conf->frequencies, e);
        a->angles = fl_try_aligned(a->s->shard * a->conf->frequencies, sizeof *a->angles);
        a->unit = fl_try_aligned(a->s->shard * a->target.width, sizeof *a->unit);
        a->d_unit = fl_try_aligned(a->s->shard * a->target.width, sizeof *a->d_unit);
        a->sum = fl_try(a->target.length, sizeof *a->sum);
        if (r == 0 && (!a->angles || !a->unit || !a->d_unit || !a->sum)) {
            r = fl_fail(e, FL_R_NOMEM, "an embedding of %zu numbers", a->target.length);
        }
    }
    if (r == 0 && a->conf->disentangle > 0 && a->target.features) {
        r = judge_init(&a->judge, a->target.width, a->s->shard, &task->seed, e);
    }
    a->tap = (struct fl_tap){.add = add_terms, .arg = a};
    if (r == 0 && !fl_model_tap(a->s->model, &a->tap)) {
        r = fl_fail(e, FL_R_UPDATE_SHAPE, "the head does not begin with a layer on a vector");
    }
    return r;
}

int fl_align_new(struct fl_session *s, const struct fl_train_task *task, uint64_t steps,
                 struct fl_align **ret, struct fl_err *e)
{
    struct fl_align *a = NULL;
    int r = 0;

    *ret = NULL;
    if (!fl_fedka_gives(task->plan)) {
        return 0;
    }
    a = fl_try(1, sizeof *a);
    if (!a) {
        return fl_fail(e, FL_R_NOMEM, "a round's alignment");
    }
    a->s = s;
    a->conf = &task->plan->setting.fedka;
    a->round = task->round;
    a->rounds = task->plan->rounds;
    a->steps = steps ? steps : 1;
    r = align_init(a, task, e);
    if (r) {
        fl_align_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

int fl_align_is_target(const struct fl_train_task *task, bool *ret, struct fl_err *e)
{
    struct fl_fedka_input in = {0};
    float *numbers = NULL;
    int r = fl_fedka_gives(task->plan)
                ? fl_fedka_input_get(task->plan, task->input, task->input_size, &in, &numbers, e)
                : 0;

    *ret = r == 0 && in.is_target;
    fl_free(numbers);
    return r;
}

/* ---- a site's own embedding ---- */

int fl_train_embed(const struct fl_train_task *task, float *ret, struct fl_err *e)
{
    const struct fl_plan *plan = task->plan;
    struct fl_fedka_input in = {0};
    struct fl_session s = {0};
    struct fl_rff rff = {0};
    struct fl_model *body = NULL;
    struct fl_seed seed;
    float *numbers = NULL, *z = NULL, *angles = NULL;
    double *sum = fl_try(fl_fedka_embedding(plan), sizeof *sum);
    size_t f = plan->setting.fedka.frequencies, all = task->data->train.count;
    int r = sum ? fl_fedka_input_get(plan, task->input, task->input_size, &in, &numbers, e)
                : fl_fail(e, FL_R_NOMEM, "an embedding");

    r = r ? r : fl_session_init(&s, plan, task->data, task->kept, task->cancel, e);
    fl_fedka_seed(plan, &seed);
    r = r ? r : fl_rff_init(&rff, &seed, in.width, f, e);
    r = r ? r : fl_model_new(&s.half[0], (uint32_t)s.shard, &body, e);
    if (r == 0) {
        z = fl_try_aligned(s.batch * in.width, sizeof *z);
        angles = fl_try_aligned(s.batch * f, sizeof *angles);
        r = z && angles ? 0 : fl_fail(e, FL_R_NOMEM, "features of %zu examples", s.batch);
    }
    if (r == 0) {
        memcpy(s.theta, task->base, plan->layout.theta.elements * sizeof *s.theta);
        fl_model_set(body, s.theta);
    }
    for (size_t at = 0, n; r == 0 && at < all; at += n) {
        n = all - at < s.batch ? all - at : s.batch;
        fl_session_load(&s, &task->data->train, NULL, at, n);
        r = fl_session_cancelled(&s, e);
        if (r == 0) {
            fl_model_forward(body, s.x, n, z);
            fl_rff_unit(z, n, in.width, z);
            fl_rff_add(&rff, in.bandwidth, z, n, angles, sum);
        }
    }
    for (size_t i = 0; r == 0 && i < 2 * f; i++) {
        ret[i] = all ? (float)(sum[i] / (double)all) : 0;
    }
    fl_model_free(body);
    fl_rff_fini(&rff);
    fl_session_fini(&s);
    fl_free(numbers);
    fl_free(z);
    fl_free(angles);
    fl_free(sum);
    return r;
}
