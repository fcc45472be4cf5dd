#include "client/trainer/tune.h"

#include "client/trainer/session.h"
#include "common/base/mem.h"
#include "common/math/rff.h"
#include "common/math/vec.h"
#include "common/math/vote.h"

#include <math.h>
#include <string.h>

enum { VOTES_MAX = 1 << 28, EMBED_MAX = 1024 };
#define HARM_LEVEL 0.05

struct tune {
    const struct fl_tune_task *task;
    const struct fl_plan *plan;
    const struct fl_fedka_conf *conf;
    struct fl_plan *plain; /* how the aggregate is trained on votes */
    struct fl_session s;
    size_t elements, classes;
    uint32_t *drawn; /* the first `examples` of the target's examples are used in this round */
    size_t examples;
    float *before, *aggregate, *tuned, *member;
    float *p;       /* votes: [models, examples, classes] */
    int32_t *label; /* of the drawn examples */
    uint8_t *right; /* [2, labelled]: which the model before had right; the candidate */
};

/* ---- models on examples ---- */

/* Outputs of a model become probabilities, in place. */
static void softmax(float *out, size_t classes)
{
    float most = out[0];
    double sum = 0;

    for (size_t c = 1; c < classes; c++) {
        most = out[c] > most ? out[c] : most;
    }
    for (size_t c = 0; c < classes; c++) {
        out[c] = expf(out[c] - most);
        sum += (double)out[c];
    }
    for (size_t c = 0; c < classes; c++) {
        out[c] = (float)((double)out[c] / sum);
    }
}

/* One output is the logit of class 1. */
static void probabilities(const struct tune *t, const float *out, size_t outputs, float *p)
{
    if (outputs == 1) {
        p[1] = 1 / (1 + expf(-out[0]));
        p[0] = 1 - p[1];
        return;
    }
    memcpy(p, out, t->classes * sizeof *p);
    softmax(p, t->classes);
}

/* p[count, classes] of the examples order[0..count) (NULL: 0, 1, ...). */
static int predict(struct tune *t, const float *theta, const struct fl_examples *from,
                   const uint32_t *order, size_t count, float *p, struct fl_err *e)
{
    struct fl_session *s = &t->s;
    size_t outputs = fl_spec_outputs(&t->plan->layout.spec);
    float *out = fl_try_aligned(s->batch * outputs, sizeof *out);
    int r = out ? 0 : fl_fail(e, FL_R_NOMEM, "outputs of %zu examples", s->batch);

    fl_model_set(s->model, theta);
    for (size_t at = 0, n; r == 0 && at < count; at += n) {
        n = count - at < s->batch ? count - at : s->batch;
        fl_session_load(s, from, order, at, n);
        r = fl_session_cancelled(s, e);
        if (r == 0) {
            fl_model_forward(s->model, s->x, n, out);
        }
        for (size_t i = 0; r == 0 && i < n; i++) {
            probabilities(t, out + i * outputs, outputs, p + (at + i) * t->classes);
        }
    }
    fl_free(out);
    return r;
}

/* Accuracy on the labelled part (NAN without one); right (may be NULL) says which. */
static int measure(struct tune *t, const float *theta, uint8_t *right, double *ret,
                   struct fl_err *e)
{
    const struct fl_examples *from = &t->task->data->test;
    float *p = fl_try((size_t)from->count * t->classes + 1, sizeof *p);
    size_t correct = 0;
    int r = p ? predict(t, theta, from, NULL, from->count, p, e)
              : fl_fail(e, FL_R_NOMEM, "outputs of %u examples", from->count);

    for (size_t i = 0; r == 0 && i < from->count; i++) {
        bool yes = fl_vote_first(p + i * t->classes, t->classes) == from->y[i];
        correct += yes;
        if (right) {
            right[i] = yes;
        }
    }
    if (r == 0) {
        *ret = from->count ? (double)correct / (double)from->count : (double)NAN;
    }
    fl_free(p);
    return r;
}

/* ---- votes ---- */

/* Also the members' mean accuracy. */
static int collect_votes(struct tune *t, struct fl_fedka_score *score, struct fl_err *e)
{
    double sum = 0, one = 0;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < score->models; i++) {
        r = t->task->model(t->task->arg, 2 + i, t->member, e);
        r = r ? r : measure(t, t->member, NULL, &one, e);
        if (r == 0 && t->p) {
            r = predict(t, t->member, &t->task->data->train, t->drawn, t->examples,
                        t->p + (size_t)i * t->examples * t->classes, e);
        }
        sum += one;
    }
    score->members = score->models ? sum / score->models : (double)NAN;
    return r;
}

/* The examples that got a label, as a training set of its own. */
static int agreed_examples(const struct tune *t, struct fl_dataset *ret, struct fl_err *e)
{
    const struct fl_examples *from = &t->task->data->train;
    size_t features = t->s.raw; /* before the layers that are fixed */
    uint32_t n = 0;
    int r = 0;

    *ret = *t->task->data;
    ret->train = (struct fl_examples){.x = fl_try(t->examples * features, sizeof(float)),
                                      .y = fl_try(t->examples, sizeof(int32_t))};
    memset(&ret->test, 0, sizeof ret->test); /* measured here, not by the training */
    if (!ret->train.x || !ret->train.y) {
        r = fl_fail(e, FL_R_NOMEM, "%zu examples that were voted on", t->examples);
    }
    for (size_t i = 0; r == 0 && i < t->examples; i++) {
        if (t->label[i] == FL_VOTE_NONE) {
            continue;
        }
        r = fl_examples_get(from, features, t->drawn[i], ret->train.x + n * features, e);
        ret->train.y[n++] = t->label[i];
    }
    ret->train.count = n;
    return r;
}

static int train_on_votes(struct tune *t, struct fl_err *e)
{
    struct fl_dataset data;
    float none = 0;
    struct fl_train_task task = {.plan = t->plain,
                                 .data = &data,
                                 .base = t->aggregate,
                                 .private_in = &none,
                                 .round = t->task->before.round};
    struct fl_train_result result = {.delta = t->tuned, .private_out = &none};
    struct fl_seed job;
    int r = agreed_examples(t, &data, e);

    fl_seed_from_u64(t->plan->seed, &job);
    fl_seed_derive(&job, "fedka votes", task.round, &task.seed);
    if (r == 0) {
        r = fl_train(&task, &result, e);
    }
    if (r == 0) {
        fl_vec_axpy(1, t->aggregate, t->tuned, t->elements);
    }
    fl_free(data.train.x);
    fl_free(data.train.y);
    return r;
}

/* Models are sure of some classes before others; trained on those alone, the aggregate would forget
 * the rest. So of one class at most half as many again as its even share keep their label: the
 * first in the order in which they were drawn. */
static int even_out(struct tune *t, struct fl_err *e)
{
    uint32_t *kept = fl_try(t->classes, sizeof *kept);
    size_t all = 0;

    if (!kept) {
        return fl_fail(e, FL_R_NOMEM, "counts of %zu classes", t->classes);
    }
    for (size_t i = 0; i < t->examples; i++) {
        all += t->label[i] != FL_VOTE_NONE;
    }
    for (size_t i = 0; i < t->examples; i++) {
        int32_t *label = &t->label[i];
        if (*label != FL_VOTE_NONE && 2 * t->classes * kept[*label]++ >= 3 * all) {
            *label = FL_VOTE_NONE;
        }
    }
    fl_free(kept);
    return 0;
}

static int vote(struct tune *t, struct fl_fedka_score *score, struct fl_err *e)
{
    int r = collect_votes(t, score, e);

    if (r || !t->p) {
        return r;
    }
    if (t->conf->variant == FL_FEDKA_PUBLISHED) {
        fl_vote_hard(t->p, score->models, t->examples, t->classes, t->label);
    } else {
        fl_vote_soft(t->p, score->models, t->examples, t->classes, t->conf->confidence,
                     t->conf->agreement, t->label);
        r = even_out(t, e);
    }
    score->examples = (uint32_t)t->examples;
    for (size_t i = 0; i < t->examples; i++) {
        score->agreed += t->label[i] != FL_VOTE_NONE;
    }
    return r == 0 && score->agreed ? train_on_votes(t, e) : r;
}

/* ---- what is published ---- */

/* The candidate against the model before, example by example. */
static bool hurts(const struct tune *t, const struct fl_fedka_score *score, double candidate)
{
    const uint8_t *before = t->right, *now = t->right + score->labelled;
    uint32_t better = 0, worse = 0;

    for (uint32_t i = 0; i < score->labelled; i++) {
        better += now[i] && !before[i];
        worse += before[i] && !now[i];
    }
    return fl_vote_sign_test(better, worse) < HARM_LEVEL ||
           (score->harm >= 2 && candidate < score->previous);
}

static int choose(struct tune *t, struct fl_fedka_score *score, struct fl_err *e)
{
    const struct fl_fedka_score *before = &t->task->before;
    double candidate;
    int r = measure(t, t->before, t->right, &score->previous, e);

    r = r ? r : measure(t, t->aggregate, NULL, &score->aggregate, e);
    if (r == 0 && score->agreed) {
        r = measure(t, t->tuned, NULL, &score->tuned, e);
    }
    if (r) {
        return r;
    }
    score->choice = score->agreed && !(t->conf->guard && score->tuned < score->aggregate)
                        ? FL_FEDKA_TUNED
                        : FL_FEDKA_AGGREGATE;
    score->harm = fl_fedka_effect(score) < 0 ? before->harm + 1 : 0;
    if (!t->conf->guard || t->conf->variant == FL_FEDKA_PUBLISHED || score->labelled == 0) {
        return 0;
    }
    const float *theta = score->choice == FL_FEDKA_TUNED ? t->tuned : t->aggregate;
    r = measure(t, theta, t->right + score->labelled, &candidate, e);
    if (r == 0 && hurts(t, score, candidate)) {
        score->choice = FL_FEDKA_PREVIOUS;
        score->kept++;
    }
    return r;
}

/* ---- the target's embedding ---- */

static int embed(struct tune *t, const float *theta, struct fl_tune_result *ret, struct fl_err *e)
{
    size_t count = t->examples < EMBED_MAX ? t->examples : EMBED_MAX;
    size_t width = fl_fedka_width(t->plan), f = t->conf->frequencies;
    struct fl_model *body = NULL;
    struct fl_rff rff = {0};
    struct fl_seed seed;
    float *angles = fl_try_aligned(t->s.batch * f, sizeof *angles);
    float *unit = fl_try_aligned(count * width, sizeof *unit);
    double *sum = fl_try(2 * f, sizeof *sum);
    int r = 0;

    ret->mean = fl_try(2 * f, sizeof *ret->mean);
    ret->z = fl_try_aligned(count * width, sizeof *ret->z);
    if (!angles || !unit || !sum || !ret->mean || !ret->z) {
        r = fl_fail(e, FL_R_NOMEM, "features of %zu examples", count);
    }
    fl_fedka_seed(t->plan, &seed);
    r = r ? r : fl_rff_init(&rff, &seed, width, f, e);
    r = r ? r : fl_model_new(&t->s.half[0], (uint32_t)t->s.shard, &body, e);
    if (r == 0) {
        fl_model_set(body, theta);
    }
    for (size_t at = 0, n; r == 0 && at < count; at += n) {
        n = count - at < t->s.batch ? count - at : t->s.batch;
        fl_session_load(&t->s, &t->task->data->train, t->drawn, at, n);
        fl_model_forward(body, t->s.x, n, ret->z + at * width);
        r = fl_session_cancelled(&t->s, e);
    }
    if (r == 0) {
        fl_rff_unit(ret->z, count, width, unit);
    }
    double bandwidth = r ? 0 : fl_mmd_bandwidth(unit, count, NULL, 0, width);
    bandwidth = bandwidth > 0 ? bandwidth : 1; /* all alike: any will do */
    for (size_t at = 0, n; r == 0 && at < count; at += n) {
        n = count - at < t->s.batch ? count - at : t->s.batch;
        fl_rff_add(&rff, bandwidth, unit + at * width, n, angles, sum);
    }
    for (size_t i = 0; r == 0 && i < 2 * f; i++) {
        ret->mean[i] = (float)(sum[i] / (double)count);
    }
    bool shown = t->conf->disentangle > 0 ||
                 (t->conf->matching > 0 && t->conf->variant == FL_FEDKA_PUBLISHED);
    ret->input =
        (struct fl_fedka_input){.known = true,
                                .bandwidth = bandwidth,
                                .width = width,
                                .length = 2 * f,
                                .features = !shown                      ? 0
                                            : count < FL_FEDKA_FEATURES ? count
                                                                        : FL_FEDKA_FEATURES,
                                .mean = ret->mean,
                                .z = ret->z};
    fl_model_free(body);
    fl_rff_fini(&rff);
    fl_free(angles);
    fl_free(unit);
    fl_free(sum);
    return r;
}

/* ---- all of it ---- */

/* Which examples, in an order drawn by job and round. */
static int draw(struct tune *t, struct fl_err *e)
{
    uint32_t all = t->task->data->train.count;
    struct fl_seed job, own;
    struct fl_rng rng;

    t->examples = all < t->conf->examples ? all : t->conf->examples;
    t->drawn = fl_try(all + 1, sizeof *t->drawn);
    t->label = fl_try(t->examples + 1, sizeof *t->label);
    if (!t->drawn || !t->label) {
        return fl_fail(e, FL_R_NOMEM, "the order of %u examples", all);
    }
    for (uint32_t i = 0; i < all; i++) {
        t->drawn[i] = i;
    }
    fl_seed_from_u64(t->plan->seed, &job);
    fl_seed_derive(&job, "fedka examples", t->task->before.round, &own);
    fl_rng_init(&rng, &own, 0);
    fl_rng_shuffle(&rng, t->drawn, all);
    fl_rng_fini(&rng);
    return 0;
}

/* Votes are trained on as a site trains on labels, with nothing beside the loss. */
static void plain_plan(const struct tune *t, struct fl_plan *ret)
{
    const struct fl_plan *plan = t->plan;
    float ramp = fl_fedka_ramp(t->task->before.round, plan->rounds, 1);

    *ret = *plan;
    memset(&ret->setting, 0, sizeof ret->setting);
    memset(ret->strategy, 0, sizeof ret->strategy);
    memcpy(ret->strategy, "fedavg", sizeof "fedavg");
    memset(&ret->privacy, 0, sizeof ret->privacy);
    ret->train.steps = 0;
    ret->train.epochs = t->conf->epochs;
    ret->train.serve_epochs = 0;
    ret->train.body.lr *= ramp;
    ret->train.head.lr *= ramp;
}

static int tune_init(struct tune *t, const struct fl_tune_task *task, struct fl_err *e)
{
    const struct fl_plan *plan = task->plan;
    size_t votes = 0;

    t->task = task;
    t->plan = plan;
    t->conf = &plan->setting.fedka;
    t->elements = plan->layout.shared.elements;
    t->classes = plan->layout.spec.classes;
    int r = fl_session_init(&t->s, plan, task->data, NULL, NULL, e);
    r = r ? r : draw(t, e);
    if (r) {
        return r;
    }
    if (t->conf->voting && task->before.models > 0 && t->examples > 0) {
        size_t each = t->examples * t->classes;
        if (task->before.models > FL_VOTE_MODELS_MAX || task->before.models > VOTES_MAX / each) {
            return fl_fail(e, FL_R_LIMIT, "%u models' votes on %zu examples of %zu classes",
                           task->before.models, t->examples, t->classes);
        }
        votes = task->before.models * each;
        t->p = fl_try(votes, sizeof *t->p);
    }
    t->plain = fl_try(1, sizeof *t->plain);
    t->before = fl_try_aligned(t->elements, sizeof *t->before);
    t->aggregate = fl_try_aligned(t->elements, sizeof *t->aggregate);
    t->tuned = fl_try_aligned(t->elements, sizeof *t->tuned);
    t->member = fl_try_aligned(t->elements, sizeof *t->member);
    t->right = fl_try(2 * (size_t)task->data->test.count + 1, 1);
    if ((votes && !t->p) || !t->plain || !t->before || !t->aggregate || !t->tuned || !t->member ||
        !t->right) {
        return fl_fail(e, FL_R_NOMEM, "models of %zu elements, %zu votes", t->elements, votes);
    }
    plain_plan(t, t->plain);
    r = task->model(task->arg, 0, t->before, e);
    return r ? r : task->model(task->arg, 1, t->aggregate, e);
}

static void tune_fini(struct tune *t)
{
    fl_session_fini(&t->s);
    fl_free(t->plain);
    fl_free(t->drawn);
    fl_free(t->label);
    fl_free(t->before);
    fl_free(t->aggregate);
    fl_free(t->tuned);
    fl_free(t->member);
    fl_free(t->p);
    fl_free(t->right);
}

void fl_tune_result_fini(struct fl_tune_result *r)
{
    fl_free(r->model);
    fl_free(r->mean);
    fl_free(r->z);
    memset(r, 0, sizeof *r);
}

int fl_tune_round(const struct fl_tune_task *task, struct fl_tune_result *ret, struct fl_err *e)
{
    const struct fl_fedka_score *before = &task->before;
    struct fl_fedka_score score = {.round = before->round,
                                   .models = before->models,
                                   .labelled = task->data->test.count,
                                   .kept = before->kept,
                                   .tuned = (double)NAN};
    struct tune t = {0};
    int r = tune_init(&t, task, e);

    memset(ret, 0, sizeof *ret);
    r = r ? r : vote(&t, &score, e);
    r = r ? r : choose(&t, &score, e);
    if (r == 0) {
        float **chosen = score.choice == FL_FEDKA_TUNED      ? &t.tuned
                         : score.choice == FL_FEDKA_PREVIOUS ? &t.before
                                                             : &t.aggregate;
        r = embed(&t, *chosen, ret, e);
        if (r == 0) {
            ret->model = *chosen;
            *chosen = NULL;
            ret->score = score;
        }
    }
    tune_fini(&t);
    if (r) {
        fl_tune_result_fini(ret);
    }
    return r;
}

int fl_tune_check(const struct fl_plan *plan, const struct fl_dataset *data, struct fl_err *e)
{
    struct fl_session s = {0};
    int r = data->train.count ? 0 : fl_fail(e, FL_R_DATA_SHAPE, "there are no examples");

    r = r ? r : fl_session_init(&s, plan, data, NULL, NULL, e);
    fl_session_fini(&s);
    return r;
}
