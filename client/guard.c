/*
 * Every candidate is seen as values of the whole network, theta, under a plan in which all of it is
 * private: that of the strategy `local` with the same layers. Training a candidate further and
 * testing it are then the trainer's own functions, with the validation examples in the place of the
 * test examples, whatever the job's strategy makes its network of.
 */
#include "client/guard.h"

#include "client/trainer/kept.h"
#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/param/param.h"
#include "common/plan/beside.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum {
    PATIENCE = 10, /* rounds without a better validation loss */
    MIXES = 4,     /* quarters between as_is and full */
};

/* A model under way: the values it has, and the best it had. */
struct candidate {
    float *now, *best;
};

struct guard {
    const struct fl_train_task *task;
    struct fl_plan *plan;           /* all private */
    struct fl_dataset seen, unseen; /* tested on the validation examples, on the test examples */
    struct fl_features of_seen, of_unseen; /* one key would mean either: each has its own */
    size_t elements;
    float *spare;
    struct candidate of[FL_GUARD_MODELS];
    struct fl_guard_report report;
};

const char *fl_guard_word(enum fl_guard_model model)
{
    static const char *const words[FL_GUARD_MODELS] = {"alone", "as_is", "head",
                                                       "full",  "mixed", "parts"};
    return words[model];
}

static double cpu_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The job as a site alone would run it: the layers without rules, nothing shared, no noise. */
static int plan_alone(const struct fl_plan *from, struct fl_plan *to, struct fl_err *e)
{
    struct fl_spec *spec = fl_try(1, sizeof *spec);

    if (!spec) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    *spec = from->layout.spec;
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        spec->layers[i].make = (struct fl_make){.kind = FL_MAKE_STRATEGY};
    }
    *to = *from;
    int r = fl_layout_init(&to->layout, spec, FL_VISIBILITY_ALL_PRIVATE, NULL, e);
    fl_free(spec);
    to->setting = (struct fl_strategy_conf){0};
    to->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_NONE};
    to->train.head_epochs = 0;
    to->train.serve_epochs = 0;
    return r;
}

/* ---- one candidate ---- */

static struct fl_train_task task_of(struct guard *g, const struct fl_dataset *on,
                                    const float *theta)
{
    static const float nothing; /* a shared vector of no elements */

    return (struct fl_train_task){.plan = g->plan,
                                  .data = on,
                                  .base = &nothing,
                                  .private_in = theta,
                                  .kept = on == &g->seen ? &g->of_seen : &g->of_unseen,
                                  .cancel = g->task->cancel};
}

/* Keeps what the model is now, if it is its best; says so in *ret_better. */
static int judge(struct guard *g, enum fl_guard_model model, double setting, bool *ret_better,
                 struct fl_err *e)
{
    struct fl_guard_score *score = &g->report.of[model];
    struct candidate *c = &g->of[model];
    struct fl_train_task task = task_of(g, &g->seen, c->now);
    struct fl_train_report x = {0};

    *ret_better = false;
    if (!fl_vec_finite(c->now, g->elements)) {
        return 0;
    }
    int r = fl_train_serve(&task, &x, e);
    if (r == 0 && isfinite(x.loss) && (!score->tried || x.loss < score->validation_loss)) {
        memcpy(c->best, c->now, g->elements * sizeof *c->best);
        *score = (struct fl_guard_score){.tried = true,
                                         .validation_loss = x.loss,
                                         .validation_accuracy = x.accuracy_received,
                                         .setting = setting};
        *ret_better = true;
    }
    return r;
}

/* One call of the trainer on what the model is now. */
static int train(struct guard *g, enum fl_guard_model model, uint64_t turn, struct fl_err *e)
{
    struct candidate *c = &g->of[model];
    struct fl_train_task task = task_of(g, &g->seen, c->now);
    float unused;
    struct fl_train_result made = {.delta = &unused, .private_out = g->spare};

    task.round = turn;
    fl_seed_derive(&g->task->seed, fl_guard_word(model), turn, &task.seed);
    int r = fl_train(&task, &made, e);
    if (r == 0) {
        g->spare = c->now;
        c->now = made.private_out;
    }
    return r;
}

/* ---- the candidates ---- */

/* Trains what the model is now, until that has stopped to help. */
static int train_while_better(struct guard *g, enum fl_guard_model model, uint64_t most,
                              struct fl_err *e)
{
    bool better = false;
    int r = 0;

    for (uint64_t turn = 1, last = 0; r == 0 && turn <= most && turn <= last + PATIENCE; turn++) {
        r = train(g, model, turn, e);
        if (r == -FL_R_NOT_FINITE) {
            return 0; /* it diverged; what was best before stands */
        }
        r = r ? r : judge(g, model, (double)turn, &better, e);
        last = better ? turn : last;
    }
    return r;
}

/* As many rounds as the job has, at most; a closed form is found in one. */
static uint64_t turns_of(const struct fl_plan *p)
{
    return p->train.solver == FL_SOLVER_SGD ? p->rounds : 1;
}

static int try_alone(struct guard *g, struct fl_err *e)
{
    const struct fl_plan *p = g->plan;
    struct fl_seed job, site;

    fl_seed_from_u64(p->seed, &job);
    fl_seed_derive(&g->task->seed, "alone", 0, &site);
    fl_layout_init_private(&p->layout, &job, &site, g->of[FL_GUARD_ALONE].now);
    return train_while_better(g, FL_GUARD_ALONE, turns_of(p), e);
}

static int try_as_is(struct guard *g, struct fl_err *e)
{
    const struct fl_train_task *t = g->task;
    float *theta = g->of[FL_GUARD_AS_IS].now;
    bool better;
    int r = fl_param_make(&t->plan->layout, t->base, t->private_in, theta, e);

    fl_kept_serve(t->plan, t->private_in, theta);
    return r ? r : judge(g, FL_GUARD_AS_IS, 0, &better, e);
}

/* The job's own tuning of the serving head, for so many epochs. */
static int try_head(struct guard *g, struct fl_err *e)
{
    static const uint32_t epochs[] = {1, 3, 10, 30};
    struct fl_plan *tuned = fl_try(1, sizeof *tuned);
    struct fl_train_task task = *g->task;
    struct fl_train_report x;
    bool better;
    int r = tuned ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory");

    for (size_t i = 0; r == 0 && i < FL_COUNT(epochs); i++) {
        *tuned = *g->task->plan;
        tuned->train.serve_epochs = epochs[i];
        task.plan = tuned;
        task.data = &g->seen;
        task.kept = &g->of_seen;
        task.served = g->of[FL_GUARD_HEAD].now;
        memcpy(task.served, g->of[FL_GUARD_AS_IS].now, g->elements * sizeof *task.served);
        r = fl_train_serve(&task, &x, e);
        if (r == 0 && !isfinite(x.accuracy_served) && !x.served.known) {
            break; /* the network has no head of its own */
        }
        r = r ? r : judge(g, FL_GUARD_HEAD, epochs[i], &better, e);
    }
    fl_free(tuned);
    return r;
}

/* What the model alone is given, too. */
static int try_full(struct guard *g, struct fl_err *e)
{
    memcpy(g->of[FL_GUARD_FULL].now, g->of[FL_GUARD_AS_IS].now,
           g->elements * sizeof *g->of[FL_GUARD_FULL].now);
    return train_while_better(g, FL_GUARD_FULL, turns_of(g->plan), e);
}

static int try_mixed(struct guard *g, struct fl_err *e)
{
    const float *from = g->of[FL_GUARD_AS_IS].now, *to = g->of[FL_GUARD_FULL].best;
    float *now = g->of[FL_GUARD_MIXED].now;
    bool better;
    int r = 0;

    for (int k = 1; r == 0 && k < MIXES && g->report.of[FL_GUARD_FULL].tried; k++) {
        float part = (float)k / MIXES;
        for (size_t i = 0; i < g->elements; i++) {
            now[i] = from[i] + part * (to[i] - from[i]);
        }
        r = judge(g, FL_GUARD_MIXED, (double)part, &better, e);
    }
    return r;
}

/* Length of a tensor's name up to its last dot: tensors of one layer have it in common. */
static size_t layer_name(const struct fl_tensor *t)
{
    const char *dot = strrchr(t->name, '.');

    return dot ? (size_t)(dot - t->name) : strlen(t->name);
}

static bool same_layer(const struct fl_tensor *a, const struct fl_tensor *b)
{
    size_t n = layer_name(a);

    return n == layer_name(b) && memcmp(a->name, b->name, n) == 0;
}

/* Which layers a site tunes is for its validation examples to say: each is taken from `full` if
 * that makes the loss less, the last one first, as that is the one that tasks differ by most. */
static int try_parts(struct guard *g, struct fl_err *e)
{
    const struct fl_tensors *t = &g->plan->layout.theta;
    const float *as_is = g->of[FL_GUARD_AS_IS].now, *full = g->of[FL_GUARD_FULL].best;
    float *now = g->of[FL_GUARD_PARTS].now;
    double taken = 0;
    bool better = false;
    int r = 0;

    if (!g->report.of[FL_GUARD_FULL].tried) {
        return 0;
    }
    memcpy(now, as_is, g->elements * sizeof *now);
    r = judge(g, FL_GUARD_PARTS, 0, &better, e);
    for (uint32_t end = t->count, first; r == 0 && end > 0; end = first) {
        for (first = end - 1; first > 0 && same_layer(&t->at[first - 1], &t->at[end - 1]);) {
            first--;
        }
        size_t from = t->at[first].offset;
        size_t size = (end < t->count ? t->at[end].offset : g->elements) - from;
        memcpy(now + from, full + from, size * sizeof *now);
        r = judge(g, FL_GUARD_PARTS, taken + 1, &better, e);
        taken += better;
        if (!better) {
            memcpy(now + from, as_is + from, size * sizeof *now);
        }
    }
    return r;
}

/* ---- all of them ---- */

static int begin(struct guard *g, const struct fl_train_task *task, struct fl_err *e)
{
    if (task->plan->trainer != FL_TRAINER_BUILTIN) {
        return fl_fail(e, FL_R_TRAIN, "models are compared for the builtin trainer only");
    }
    if (task->data->validation.count == 0) {
        return fl_fail(e, FL_R_DATA_EMPTY,
                       "no validation examples to choose a model by: set some apart by "
                       "data.validation, as 0.2");
    }
    g->task = task;
    g->plan = fl_try(1, sizeof *g->plan);
    int r = g->plan ? plan_alone(task->plan, g->plan, e) : fl_fail(e, FL_R_NOMEM, "out of memory");
    if (r < 0) {
        return r;
    }
    g->elements = g->plan->layout.theta.elements;
    g->seen = g->unseen = *task->data;
    g->seen.test = task->data->validation;
    g->of_seen.most = g->of_unseen.most = task->kept ? task->kept->most : 0;
    bool room = (g->spare = fl_try_aligned(g->elements, sizeof *g->spare)) != NULL;
    for (int m = 0; m < FL_GUARD_MODELS; m++) {
        struct candidate *c = &g->of[m];
        c->now = fl_try_aligned(g->elements, sizeof *c->now);
        c->best = fl_try_aligned(g->elements, sizeof *c->best);
        room = room && c->now && c->best;
    }
    return room ? 0 : fl_fail(e, FL_R_NOMEM, "models of %zu elements", g->elements);
}

static void end(struct guard *g)
{
    for (int m = 0; m < FL_GUARD_MODELS; m++) {
        fl_free(g->of[m].now);
        fl_free(g->of[m].best);
    }
    fl_features_fini(&g->of_seen);
    fl_features_fini(&g->of_unseen);
    fl_free(g->spare);
    fl_free(g->plan);
}

/* The choice, and what each model would have been worth on the test examples. */
static int choose(struct guard *g, float *theta, struct fl_err *e)
{
    struct fl_guard_report *report = &g->report;
    int choice = -1, r = 0;

    for (int m = 0; r == 0 && m < FL_GUARD_MODELS; m++) {
        struct fl_guard_score *score = &report->of[m];
        struct fl_train_task task = task_of(g, &g->unseen, g->of[m].best);
        struct fl_train_report x = {0};
        if (!score->tried) {
            continue;
        }
        r = fl_train_serve(&task, &x, e);
        score->test_loss = x.loss;
        score->test_accuracy = x.accuracy_received;
        score->test = x.received;
        if (choice < 0 || score->validation_loss < report->of[choice].validation_loss) {
            choice = m;
        }
    }
    if (r < 0) {
        return r;
    }
    if (choice < 0) {
        return fl_fail(e, FL_R_TRAIN, "no model has a finite loss on the validation examples");
    }
    report->choice = (enum fl_guard_model)choice;
    memcpy(theta, g->of[choice].best, g->elements * sizeof *theta);
    return 0;
}

int fl_guard_choose(const struct fl_train_task *task, float *theta, struct fl_guard_report *ret,
                    struct fl_err *e)
{
    static int (*const tries[])(struct guard *, struct fl_err *) = {
        try_alone, try_as_is, try_head, try_full, try_mixed, try_parts};
    struct guard g = {0};
    double from = cpu_now();
    int r = begin(&g, task, e);

    for (size_t i = 0; r == 0 && i < FL_COUNT(tries); i++) {
        r = tries[i](&g, e);
    }
    if (r == 0) {
        r = choose(&g, theta, e);
    }
    if (r == 0) {
        g.report.cpu_s = cpu_now() - from;
        *ret = g.report;
    }
    end(&g);
    return r;
}
