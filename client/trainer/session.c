#include "client/trainer/session.h"

#include "client/trainer/augment.h"
#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/plan/fedka.h"

#include <math.h>
#include <string.h>

/* A shard's values are written on the way forward and read on the way back: they should still be in
 * the second cache then. SHARD_FEW keeps products of several examples worth their while. */
enum { SHARD_MIN = 16, SHARD_MAX = 64, SHARD_FEW = 4, SHARD_BYTES = 3 << 19 };

/* ---- data against model ---- */

static int check_labels(const struct fl_examples *x, const char *part, uint32_t classes,
                        struct fl_err *e)
{
    for (uint32_t i = 0; i < x->count; i++) {
        if (x->y[i] < 0 || (uint32_t)x->y[i] >= classes) {
            return fl_fail(e, FL_R_DATA_VALUE,
                           "%s example %u has class %d, the model knows 0 to %u", part, i, x->y[i],
                           classes - 1);
        }
    }
    return 0;
}

/* Columns that an embedding reads are numbers of categories. Examples that stay in a file were made
 * by the job's table, which knows no others; the engine takes any other number for the first. */
static int check_categories(const struct fl_spec *spec, const struct fl_examples *x,
                            const char *part, struct fl_err *e)
{
    const struct fl_layer *l = &spec->layers[0];
    uint32_t columns = spec->input[0], numeric = columns - l->category_count;

    if (l->kind != FL_LAYER_EMBEDDING || x->stored) {
        return 0;
    }
    for (uint32_t i = 0; i < x->count; i++) {
        for (uint32_t k = 0; k < l->category_count; k++) {
            float v = x->x[(size_t)i * columns + numeric + k];
            if (!(v >= 0 && v < (float)l->categories[k] && v == floorf(v))) {
                return fl_fail(e, FL_R_DATA_VALUE,
                               "%s example %u: column %u is %g, not a category from 0 to %u", part,
                               i, numeric + k + 1, (double)v, l->categories[k] - 1);
            }
        }
    }
    return 0;
}

static int check_targets(const struct fl_examples *x, uint32_t targets, struct fl_err *e)
{
    if (x->count && (!x->target || x->target_width != targets)) {
        return fl_fail(e, FL_R_DATA_SHAPE,
                       x->target ? "examples have %u target numbers, the model predicts %u"
                                 : "examples have classes (%u numbers), the model predicts %u",
                       x->target_width, targets);
    }
    return 0;
}

static int check_data(const struct fl_spec *spec, const struct fl_dataset *data, struct fl_err *e)
{
    int r;

    if (memcmp(spec->input, data->shape, sizeof data->shape) != 0) {
        return fl_fail(e, FL_R_DATA_SHAPE, "examples are %ux%ux%u, the model takes %ux%ux%u",
                       data->shape[0], data->shape[1], data->shape[2], spec->input[0],
                       spec->input[1], spec->input[2]);
    }
    if (fl_loss_is_regression(&spec->loss)) {
        r = check_targets(&data->train, spec->targets, e);
        return r < 0 ? r : check_targets(&data->test, spec->targets, e);
    }
    if (!data->train.y && data->train.count) {
        return fl_fail(e, FL_R_DATA_SHAPE, "the targets are numbers, the model predicts classes");
    }
    (void)((r = check_labels(&data->train, "training", spec->classes, e)) < 0 ||
           (r = check_labels(&data->test, "test", spec->classes, e)) < 0 ||
           (r = check_categories(spec, &data->train, "training", e)) < 0 ||
           (r = check_categories(spec, &data->test, "test", e)) < 0);
    return r;
}

/* ---- the session ---- */

static int init_halves(struct fl_session *s, struct fl_err *e)
{
    const struct fl_spec *spec = s->spec;

    s->body = s->layout->theta.elements;
    if (spec->head == 0 || spec->head >= fl_spec_weighted(spec)) {
        return 0;
    }
    s->half = fl_try(2, sizeof *s->half);
    if (!s->half) {
        return fl_fail(e, FL_R_NOMEM, "a model's halves");
    }
    return fl_spec_split(spec, s->half, &s->body, e);
}

/* Fixed layers at the front become a network of their own. */
static int init_parts(struct fl_session *s, struct fl_features *kept, struct fl_err *e)
{
    const struct fl_spec *all = &s->layout->spec;
    uint32_t fixed = fl_spec_fixed(all);

    s->spec = all;
    s->raw = s->features = (size_t)all->input[0] * all->input[1] * all->input[2];
    if (fixed == 0) {
        return 0;
    }
    s->parts = fl_try(2, sizeof *s->parts);
    if (!s->parts) {
        return fl_fail(e, FL_R_NOMEM, "a model's parts");
    }
    fl_spec_cut(all, fixed, s->parts);
    s->spec = &s->parts[1];
    s->features = (size_t)s->spec->input[0] * s->spec->input[1] * s->spec->input[2];
    s->kept = kept ? kept : &s->own;
    return fl_model_new(&s->parts[0], SHARD_MIN, &s->front, e);
}

/* Examples worked on together. */
static size_t shard_of(const struct fl_plan *plan, const struct fl_spec *trained)
{
    size_t shard = plan->privacy.unit == FL_UNIT_EXAMPLE ? SHARD_MAX : plan->train.batch;

    if (fl_spec_together(&plan->layout.spec)) { /* statistics are of a batch */
        return shard;
    }
    shard = shard < SHARD_MIN ? SHARD_MIN : shard;
    if (fl_fedka_gives(plan)) { /* it looks at all features of a batch */
        return shard < FL_FEDKA_BATCH_MAX ? shard : FL_FEDKA_BATCH_MAX;
    }
    size_t fit = SHARD_BYTES / sizeof(float) / (fl_model_held(trained) + 1);
    size_t most = fit < SHARD_FEW ? SHARD_FEW : fit < SHARD_MAX ? fit : SHARD_MAX;
    return shard < most ? shard : most;
}

int fl_session_init(struct fl_session *s, const struct fl_plan *plan, const struct fl_dataset *data,
                    struct fl_features *kept, const atomic_bool *cancel, struct fl_err *e)
{
    const struct fl_spec *spec = &plan->layout.spec;
    int r;

    memset(s, 0, sizeof *s);
    s->plan = plan;
    s->layout = &plan->layout;
    s->data = data;
    s->cancel = cancel;
    if ((r = check_data(spec, data, e)) < 0 || (r = init_parts(s, kept, e)) < 0 ||
        (r = init_halves(s, e)) < 0) {
        return r;
    }
    s->shard = shard_of(plan, s->spec);
    s->batch = plan->train.batch > s->shard ? plan->train.batch : s->shard;
    if ((r = fl_model_new(s->spec, (uint32_t)s->shard, &s->model, e)) < 0) {
        return r;
    }
    s->theta = fl_try_aligned(s->layout->theta.elements, sizeof *s->theta);
    s->grad = fl_try_aligned(s->layout->theta.elements, sizeof *s->grad);
    s->x = fl_try_aligned(s->batch * s->features, sizeof *s->x);
    s->example = s->front ? fl_try_aligned(s->batch * s->raw, sizeof *s->x) : s->x;
    s->y = fl_try(s->batch, sizeof *s->y);
    s->target = fl_try_aligned(s->batch * (spec->targets ? spec->targets : 1), sizeof *s->target);
    bool numbers = fl_loss_is_regression(&spec->loss);
    s->goal = numbers ? (const void *)s->target : s->y;
    s->goal_size = numbers ? spec->targets * sizeof(float) : sizeof(int32_t);
    s->rate = 1;
    s->room = fl_try((size_t)spec->input[1] * spec->input[2], sizeof *s->room);
    if (!s->theta || !s->grad || !s->x || !s->example || !s->y || !s->target || !s->room) {
        return fl_fail(e, FL_R_NOMEM, "a batch of %zu examples of %zu values", s->batch,
                       s->features);
    }
    return s->front ? fl_session_features(s, e) : 0;
}

void fl_session_fini(struct fl_session *s)
{
    fl_model_free(s->model);
    if (s->front) {
        fl_model_free(s->front);
        fl_free(s->example);
        fl_features_fini(&s->own);
    }
    fl_free(s->parts);
    fl_free(s->half);
    fl_free(s->theta);
    fl_free(s->grad);
    fl_free(s->x);
    fl_free(s->y);
    fl_free(s->target);
    fl_free(s->room);
}

int fl_session_cancelled(const struct fl_session *s, struct fl_err *e)
{
    FL_CRASH_POINT("agent-train-batch");
    if (s->cancel && atomic_load_explicit(s->cancel, memory_order_relaxed)) {
        return fl_fail(e, FL_R_CANCELLED, "training was stopped");
    }
    if (s->failed.code) {
        return fl_fail(e, (enum fl_reason) - s->failed.code, "%s", s->failed.msg);
    }
    return 0;
}

static void normalise(const struct fl_plan *plan, const float *from, float *to, size_t features)
{
    const struct fl_data_conf *d = &plan->data;
    size_t pixels = d->channels ? features / d->channels : features;

    if (d->channels == 0) {
        if (to != from) {
            memcpy(to, from, features * sizeof *to);
        }
        return;
    }
    for (size_t c = 0; c < d->channels; c++) {
        const float mean = d->mean[c], std = d->std[c];
        for (size_t i = c * pixels; i < (c + 1) * pixels; i++) {
            to[i] = (from[i] - mean) / std;
        }
    }
}

/* One that is not simply in memory, or not to be taken as it is. */
static void read_changed(struct fl_session *s, const struct fl_examples *from, size_t i, float *x)
{
    if (fl_examples_get(from, s->raw, i, x, &s->failed)) {
        memset(x, 0, s->raw * sizeof *x);
        return;
    }
    if (s->augment) {
        fl_augment(&s->plan->data, s->layout->spec.input, s->augment, s->turn, (uint32_t)i, s->room,
                   x);
    }
    normalise(s->plan, x, x, s->raw);
}

void fl_session_goal(struct fl_session *s, size_t n, const struct fl_examples *from, size_t i)
{
    if (s->goal == s->y) {
        s->y[n] = from->y[i];
    } else {
        memcpy((char *)s->target + n * s->goal_size, from->target + i * from->target_width,
               s->goal_size);
    }
}

/* Features of all of them, when they are kept. */
static const float *made_of(const struct fl_session *s, const struct fl_examples *from)
{
    if (!s->kept) {
        return NULL;
    }
    return from == &s->data->train ? s->kept->train : s->kept->test;
}

void fl_session_load(struct fl_session *s, const struct fl_examples *from, const uint32_t *order,
                     size_t first, size_t count)
{
    const float *made = made_of(s, from);

    for (size_t n = 0; n < count; n++) {
        size_t i = order ? order[first + n] : first + n;
        float *x = s->example + n * s->raw;
        if (made) {
            memcpy(s->x + n * s->features, made + i * s->features, s->features * sizeof *s->x);
        } else if (from->stored || s->augment) {
            read_changed(s, from, i, x);
        } else {
            normalise(s->plan, from->x + i * s->raw, x, s->raw);
        }
        fl_session_goal(s, n, from, i);
    }
    if (s->front && !made) {
        fl_model_forward(s->front, s->example, count, s->x);
    }
    s->turn += s->augment != NULL;
}

static void add_scores(struct fl_score *sum, const struct fl_score *one)
{
    sum->loss += one->loss;
    sum->correct += one->correct;
    sum->square += one->square;
    sum->absolute += one->absolute;
    sum->percent += one->percent;
    sum->percent_count += one->percent_count;
    sum->target += one->target;
    sum->target_square += one->target_square;
    sum->targets += one->targets;
    for (uint32_t c = 0; c < FL_SCORE_CLASSES_MAX; c++) {
        sum->seen[c] += one->seen[c];
        sum->hit[c] += one->hit[c];
    }
}

static struct fl_errors classes_of(const struct fl_score *sum, uint32_t classes)
{
    struct fl_errors x = {0};

    x.class_count = classes <= FL_SCORE_CLASSES_MAX ? classes : 0;
    for (uint32_t c = 0; c < x.class_count; c++) {
        x.class_accuracy[c] = sum->seen[c] ? (float)sum->hit[c] / (float)sum->seen[c] : NAN;
    }
    return x;
}

static struct fl_errors errors_of(const struct fl_score *sum, uint32_t classes)
{
    double n = (double)sum->targets;
    double spread = sum->targets ? sum->target_square - sum->target * sum->target / n : 0;

    if (sum->targets == 0) {
        return classes_of(sum, classes);
    }
    return (struct fl_errors){.known = true,
                              .rmse = sqrt(sum->square / n),
                              .mae = sum->absolute / n,
                              .mape = sum->percent_count ? sum->percent / (double)sum->percent_count
                                                         : (double)NAN,
                              .r2 = spread > 0 ? 1 - sum->square / spread : (double)NAN};
}

int fl_session_evaluate(struct fl_session *s, double *ret_accuracy, double *ret_loss,
                        struct fl_errors *ret_errors, struct fl_err *e)
{
    const struct fl_examples *test = &s->data->test;
    struct fl_score sum = {0}, score;
    int r;

    fl_model_set(s->model, s->theta);
    for (size_t at = 0, n; at < test->count; at += n) {
        if ((r = fl_session_cancelled(s, e)) < 0) {
            return r;
        }
        n = test->count - at < s->batch ? test->count - at : s->batch;
        fl_session_load(s, test, NULL, at, n);
        fl_model_score(s->model, s->x, s->goal, n, &score);
        add_scores(&sum, &score);
    }
    if ((r = fl_session_cancelled(s, e)) < 0) {
        return r;
    }
    *ret_accuracy =
        test->count && s->goal == s->y ? (double)sum.correct / test->count : (double)NAN;
    if (ret_loss) {
        *ret_loss = test->count ? sum.loss / test->count : (double)NAN;
    }
    if (ret_errors) {
        *ret_errors = errors_of(&sum, test->count ? s->layout->spec.classes : 0);
    }
    return 0;
}
