/*
 * The builtin trainer: one round at one site.
 *
 *     received model, private state as it came   -> accuracy_received
 *     train                                      -> delta, private_out; accuracy_trained
 *     received model again, its head tuned       -> accuracy_served
 *
 * Training is by what the layout says, never by a strategy's name:
 *
 *     all shared or all private   every tensor together
 *     private head                two stages when head_epochs > 0: the head at fixed theta, then
 * the body with the head fixed; each with momentum of its own, fresh each round. Together when it
 * is 0 generated body              as a private head; the body's stage moves generator and
 * embedding
 *
 * A strategy with a model of each site's own (personal.h) adds to each of the three steps.
 *
 * Under the unit `example` everything that a release depends on takes the same accounted steps
 * (example.c), and there is nothing else: the two other models of a round, the received one and the
 * serving one, are made from what was received, after and beside training, and written nowhere but
 * to the report. If nothing is shared, nothing is released, and no noise is needed.
 */
#include "client/trainer/align.h"
#include "client/trainer/drift.h"
#include "client/trainer/personal.h"
#include "client/trainer/represent.h"
#include "client/trainer/session.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/trap.h"
#include "common/plan/beside.h"
#include "common/plan/shared_step.h"

#include <math.h>
#include <string.h>
#include <time.h>

static double cpu_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int check_received(const struct fl_layout *layout, const float *shared,
                          const float *private_, struct fl_err *e)
{
    if (!fl_vec_finite(shared, layout->shared.elements)) {
        return fl_fail(e, FL_R_TRAIN, "the received model has values that are not finite");
    }
    if (!fl_vec_finite(private_, layout->private_.elements)) {
        return fl_fail(e, FL_R_TRAIN, "this site's private state has values that are not finite");
    }
    return 0;
}

/* What went astray is not kept: the next round begins where this one did. */
static int check_trained(const struct fl_layout *layout, const struct fl_train_result *made,
                         struct fl_err *e)
{
    bool finite = fl_vec_finite(made->delta, layout->shared.elements) &&
                  fl_vec_finite(made->private_out, layout->private_.elements);

    return finite ? 0
                  : fl_fail(e, FL_R_NOT_FINITE,
                            "training diverged: the result has values that are not finite; a lower "
                            "train.lr or a clip would help");
}

static bool noised(const struct fl_plan *plan)
{
    return plan->privacy.unit == FL_UNIT_EXAMPLE && plan->layout.shared.elements > 0;
}

static int check_plan(const struct fl_plan *plan, const struct fl_dataset *data, struct fl_err *e)
{
    const struct fl_privacy_conf *c = &plan->privacy;

    if (noised(plan)) {
        if (!(c->noise_multiplier > 0) || !(c->sampling_rate > 0 && c->sampling_rate <= 1) ||
            c->examples == 0 || plan->train.steps == 0) {
            return fl_fail(e, FL_R_PLAN_PRIVACY,
                           "the unit example needs noise, a sampling rate, examples and steps");
        }
        return 0;
    }
    if (plan->train.batch == 0) {
        return fl_fail(e, FL_R_TRAIN, "batches of 0 examples");
    }
    return data->train.count ? 0 : fl_fail(e, FL_R_DATA_EMPTY, "no examples to train on");
}

/* Trains at s->theta; shared and private_ follow. s->theta becomes what serves this site. */
static int train(struct fl_session *s, const struct fl_train_task *task, float *shared,
                 float *private_, struct fl_progress *p, struct fl_err *e)
{
    const struct fl_train_conf *t = &s->plan->train;
    bool dp = noised(s->plan);
    s->rate = (float)fl_schedule_at(&t->schedule, task->round, s->plan->rounds);
    bool stages = !dp && t->head_epochs > 0 && s->half &&
                  (s->layout->visibility == FL_VISIBILITY_HEAD_PRIVATE ||
                   s->layout->visibility == FL_VISIBILITY_BODY_GENERATED);
    uint64_t steps = t->steps ? t->steps : fl_session_batches(s, t->epochs);
    struct fl_align *align = NULL;
    struct fl_moves moves;
    bool is_target;
    int r;

    if (s->layout->spec.ridge > 0) {
        return fl_train_solved(s, shared, private_, p, e);
    }
    if ((r = fl_align_is_target(task, &is_target, e)) < 0 || is_target) {
        return r;
    }
    if (stages && (r = fl_train_head(s, &task->seed, "head", t->head_epochs, &t->head, p, e)) < 0) {
        return r;
    }
    if (s->plan->data.crop || s->plan->data.flip) {
        s->augment = &task->seed;
    }
    r = fl_moves_init(&moves, s, true, !stages, !dp, shared, private_, steps, e);
    if (r == 0 && s->plan->setting.mu > 0) {
        r = fl_moves_pull(&moves, s->plan->setting.mu, e);
    }
    r = r < 0 ? r : fl_drift_begin(&moves, task, e);
    if (r == 0 && s->plan->setting.local == FL_LOCAL_APFL && s->data->train.count) {
        r = fl_mix_new(s, &task->seed, private_, &moves.mix, e);
    }
    r = r ? r : fl_align_new(s, task, steps, &align, e);
    if (r == 0) {
        r = fl_represent_new(s, task, private_, &s->represent, e);
    }
    if (r == 0) {
        r = dp ? fl_train_noised(s, &moves, &task->seed, p, e)
               : fl_train_batches(s, &moves, &task->seed, steps, p, e);
    }
    s->augment = NULL;
    if (r == 0) {
        r = fl_represent_end(s->represent, shared, e);
    }
    fl_represent_free(s->represent);
    s->represent = NULL;
    if (r == 0) {
        fl_moves_end(&moves);
        fl_drift_end(&moves, task, shared, private_);
        r = fl_personal_train(s, task, private_, e);
    }
    fl_mix_free(moves.mix);
    fl_align_free(align);
    fl_moves_fini(&moves);
    return r;
}

/* A head of its own, or one that is all there is to train. */
static bool has_head(const struct fl_session *s)
{
    return s->half || (s->spec->head > 0 && fl_spec_weighted(s->spec) > 0);
}

/* Tunes the head of the received model at s->theta and tests it. Writes to the report only. */
static int serve(struct fl_session *s, const struct fl_train_task *task,
                 struct fl_train_report *report, struct fl_err *e)
{
    const struct fl_train_conf *t = &s->plan->train;
    struct fl_sgd sgd = {
        .lr = t->serve_lr, .momentum = t->head.momentum, .weight_decay = t->head.weight_decay};
    struct fl_progress unused = {0};
    int r;

    report->accuracy_served = (double)NAN;
    if (t->serve_epochs == 0 || !has_head(s) || s->data->train.count == 0) {
        return 0;
    }
    r = fl_param_make(s->layout, task->base, task->private_in, s->theta, e);
    if (r == 0) {
        r = fl_personal_receive(s, &task->seed, task->private_in, NULL, e);
    }
    if (r == 0) {
        r = fl_train_head(s, &task->seed, "serve", t->serve_epochs, &sgd, &unused, e);
    }
    return r < 0 ? r : fl_session_evaluate(s, &report->accuracy_served, NULL, &report->served, e);
}

/* s->theta: the received model; tested as it is, and as it serves this site, which training begins
 * from only where that is what trains. */
static int receive(struct fl_session *s, const struct fl_train_task *task, float *private_out,
                   struct fl_train_report *report, struct fl_err *e)
{
    bool apart = s->plan->setting.local != FL_LOCAL_FEDALA;
    int r = fl_param_make(s->layout, task->base, task->private_in, s->theta, e);

    report->accuracy_shared = (double)NAN;
    if (r == 0 && fl_plan_personal(s->plan)) {
        r = fl_session_evaluate(s, &report->accuracy_shared, NULL, NULL, e);
        r = r < 0 ? r : fl_personal_receive(s, &task->seed, task->private_in, private_out, e);
    }
    if (r == 0) {
        r = fl_session_evaluate(s, &report->accuracy_received, &report->loss, &report->received, e);
    }
    return r == 0 && fl_plan_personal(s->plan) && apart && private_out
               ? fl_param_make(s->layout, task->base, task->private_in, s->theta, e)
               : r;
}

int fl_train(const struct fl_train_task *task, struct fl_train_result *ret, struct fl_err *e)
{
    const struct fl_plan *plan = task->plan;
    const struct fl_layout *layout = &plan->layout;
    struct fl_train_report report = {0};
    struct fl_progress progress = {0};
    struct fl_session s = {0};
    double from = cpu_now();
    int r;

    if ((r = check_plan(plan, task->data, e)) < 0 ||
        (r = check_received(layout, task->base, task->private_in, e)) < 0 ||
        (r = fl_session_init(&s, plan, task->data, task->kept, task->cancel, e)) < 0 ||
        (r = fl_param_make(layout, task->base, task->private_in, s.theta, e)) < 0 ||
        (r = fl_trap_check(layout, s.theta, e)) < 0) {
        goto out;
    }
    /* The caller's memory holds the trained vectors on the way. */
    memcpy(ret->delta, task->base, layout->shared.elements * sizeof *ret->delta);
    memcpy(ret->private_out, task->private_in,
           layout->private_.elements * sizeof *ret->private_out);
    if ((r = receive(&s, task, ret->private_out, &report, e)) < 0 ||
        (r = train(&s, task, ret->delta, ret->private_out, &progress, e)) < 0 ||
        (r = check_trained(layout, ret, e)) < 0 ||
        (r = fl_session_evaluate(&s, &report.accuracy_trained, NULL, &report.trained, e)) < 0 ||
        (r = serve(&s, task, &report, e)) < 0) {
        goto out;
    }
    if (fl_plan_shares_step(plan)) { /* the step itself: a difference would not be on the grid */
        fl_param_store(layout, s.grad, ret->delta, ret->private_out);
    } else {
        fl_vec_sub(ret->delta, task->base, ret->delta, layout->shared.elements);
    }
    report.loss = progress.loss;
    report.steps = progress.steps;
    report.cpu_s = cpu_now() - from;
    ret->report = report;
    ret->event = (struct fl_event){0};
    if (noised(plan)) {
        ret->event = (struct fl_event){.q = plan->privacy.sampling_rate,
                                       .sigma = plan->privacy.noise_multiplier,
                                       .count = plan->train.steps};
    }
out:
    fl_session_fini(&s);
    return r;
}

int fl_train_serve(const struct fl_train_task *task, struct fl_train_report *ret, struct fl_err *e)
{
    const struct fl_layout *layout = &task->plan->layout;
    struct fl_train_report report = {.accuracy_trained = (double)NAN};
    struct fl_session s = {0};
    double from = cpu_now();
    int r;

    if ((r = check_received(layout, task->base, task->private_in, e)) == 0 &&
        (r = fl_session_init(&s, task->plan, task->data, task->kept, task->cancel, e)) == 0 &&
        (r = receive(&s, task, NULL, &report, e)) == 0 && (r = serve(&s, task, &report, e)) == 0) {
        report.cpu_s = cpu_now() - from;
        *ret = report;
        if (task->served) {
            memcpy(task->served, s.theta, layout->theta.elements * sizeof *s.theta);
        }
    }
    fl_session_fini(&s);
    return r;
}

int fl_train_evaluate(const struct fl_plan *plan, const struct fl_dataset *data,
                      const float *shared, const float *private_, double *ret_accuracy,
                      double *ret_loss, struct fl_err *e)
{
    struct fl_session s = {0};
    double accuracy, loss;
    int r;

    if ((r = check_received(&plan->layout, shared, private_, e)) == 0 &&
        (r = fl_session_init(&s, plan, data, NULL, NULL, e)) == 0 &&
        (r = fl_param_make(&plan->layout, shared, private_, s.theta, e)) == 0) {
        fl_kept_serve(plan, private_, s.theta);
        r = fl_session_evaluate(&s, &accuracy, &loss, NULL, e);
    }
    if (r == 0) {
        *ret_accuracy = accuracy;
        *ret_loss = loss;
    }
    fl_session_fini(&s);
    return r;
}
