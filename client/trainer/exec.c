#include "client/trainer/exec.h"

#include "common/base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *path(const char *folder, const char *name)
{
    return json_sprintf("%s/%s", folder, name);
}

static json_t *step(const struct fl_sgd *s)
{
    return json_pack("{sfsfsfsf}", "lr", (double)s->lr, "momentum", (double)s->momentum,
                     "weight_decay", (double)s->weight_decay, "clip", (double)s->clip);
}

static json_t *numbers(const float *x, uint32_t count)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(a, json_real((double)x[i]));
    }
    return a;
}

static json_t *part(const char *folder, const char *name, const struct fl_examples *x)
{
    json_t *o = json_pack("{si}", "count", (int)x->count);

    json_object_set_new(o, "x", json_sprintf("%s/%s-x.npy", folder, name));
    json_object_set_new(o, "y", json_sprintf("%s/%s-y.npy", folder, name));
    return o;
}

static json_t *tensors(const char *folder, const struct fl_tensors *t, const char *in,
                       const char *out)
{
    json_t *o = json_object(), *names = json_array();

    if (t->count == 0) {
        json_decref(o);
        json_decref(names);
        return json_null();
    }
    for (uint32_t i = 0; i < t->count; i++) {
        json_array_append_new(names, json_string(t->at[i].name));
    }
    json_object_set_new(o, "in", path(folder, in));
    json_object_set_new(o, "out", path(folder, out));
    json_object_set_new(o, "names", names);
    return o;
}

static json_t *settings_of(const struct fl_plan *p)
{
    json_t *o = json_object();
    struct fl_setting x;

    for (uint32_t i = 0; fl_plan_setting(p, i, &x); i++) {
        json_object_set_new(o, x.name, x.word ? json_string(x.word) : json_real(x.number));
    }
    return o;
}

static json_t *train_of(const struct fl_plan *p)
{
    const struct fl_train_conf *t = &p->train;
    json_t *o = step(&t->body);

    json_object_set_new(o, "batch", json_integer(t->batch));
    json_object_set_new(o, "epochs", json_integer(t->epochs));
    json_object_set_new(o, "steps", json_integer(t->steps));
    json_t *head = step(&t->head);
    json_object_set_new(head, "epochs", json_integer(t->head_epochs));
    json_object_set_new(o, "head", head);
    return o;
}

char *fl_exec_request(const struct fl_train_task *task, const char *folder, bool evaluate,
                      bool examples)
{
    const struct fl_plan *p = task->plan;
    const struct fl_layout *l = &p->layout;
    char seed[2 * FL_SEED_SIZE + 1];
    json_t *o = json_object();

    for (size_t i = 0; i < FL_SEED_SIZE; i++) {
        snprintf(seed + 2 * i, 3, "%02x", task->seed.bytes[i]);
    }
    json_object_set_new(o, "version", json_integer(FL_EXEC_VERSION));
    json_object_set_new(o, "task", json_string(evaluate ? "evaluate" : "train"));
    json_object_set_new(o, "job", json_string(p->name));
    json_object_set_new(o, "strategy", json_string(fl_plan_model(p)));
    json_object_set_new(o, "settings", settings_of(p));
    json_object_set_new(o, "round", json_integer((json_int_t)task->round));
    json_object_set_new(o, "rounds", json_integer((json_int_t)p->rounds));
    json_object_set_new(o, "seed", json_string(seed));
    json_object_set_new(o, "folder", json_string(folder));
    json_object_set_new(o, "shared",
                        tensors(folder, &l->shared, FL_EXEC_SHARED, FL_EXEC_SHARED_OUT));
    json_object_set_new(o, "private",
                        tensors(folder, &l->private_, FL_EXEC_PRIVATE, FL_EXEC_PRIVATE_OUT));
    json_object_set_new(
        o, "input",
        json_pack("[iii]", (int)l->spec.input[0], (int)l->spec.input[1], (int)l->spec.input[2]));
    json_object_set_new(o, "classes", json_integer(l->spec.classes));
    json_object_set_new(o, "targets", json_integer(l->spec.targets));
    json_object_set_new(o, "train", train_of(p));
    json_object_set_new(o, "mean", numbers(p->data.mean, p->data.channels));
    json_object_set_new(o, "std", numbers(p->data.std, p->data.channels));
    json_t *files = examples ? json_object() : json_null();
    if (examples) {
        json_object_set_new(files, "train", part(folder, "train", &task->data->train));
        json_object_set_new(files, "test", part(folder, "test", &task->data->test));
    }
    json_object_set_new(o, "examples", files);
    char *line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(o);
    explicit_bzero(seed, sizeof seed);
    return line;
}

static int metric(const json_t *o, const char *name, double *ret, struct fl_err *e)
{
    const json_t *v = json_object_get(o, name);

    if (!v || json_is_null(v)) {
        return 0;
    }
    if (!json_is_number(v) || !isfinite(json_number_value(v))) {
        return fl_fail(e, FL_R_EXEC_ANSWER, "its answer: %s is no number", name);
    }
    *ret = json_number_value(v);
    return 0;
}

/* "rmse_received" and so on, of models that predict numbers. */
static int errors_of(const json_t *o, const char *model, struct fl_errors *ret, struct fl_err *e)
{
    const struct {
        const char *word;
        double *to;
    } all[] = {{"rmse", &ret->rmse}, {"mae", &ret->mae}, {"mape", &ret->mape}, {"r2", &ret->r2}};
    int r = 0;

    for (size_t i = 0; r == 0 && i < FL_COUNT(all); i++) {
        char name[32];
        snprintf(name, sizeof name, "%s_%s", all[i].word, model);
        *all[i].to = (double)NAN;
        r = metric(o, name, all[i].to, e);
        ret->known |= r == 0 && isfinite(*all[i].to);
    }
    return r;
}

int fl_exec_answer(const char *line, struct fl_train_report *ret, struct fl_err *e)
{
    struct fl_train_report t = {.loss = (double)NAN,
                                .accuracy_shared = (double)NAN,
                                .accuracy_received = (double)NAN,
                                .accuracy_trained = (double)NAN,
                                .accuracy_served = (double)NAN};
    json_error_t why;
    double steps = 0;
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, &why);

    if (!json_is_object(o)) {
        json_decref(o);
        return fl_fail(e, FL_R_EXEC_ANSWER, "its answer: %s", o ? "no JSON object" : why.text);
    }
    const char *error = json_string_value(json_object_get(o, "error"));
    int r = error ? fl_fail(e, FL_R_EXEC_ANSWER, "it says: %.160s", error) : 0;
    if (r == 0) {
        (void)((r = metric(o, "loss", &t.loss, e)) ||
               (r = metric(o, "accuracy_shared", &t.accuracy_shared, e)) ||
               (r = metric(o, "accuracy_received", &t.accuracy_received, e)) ||
               (r = metric(o, "accuracy_trained", &t.accuracy_trained, e)) ||
               (r = metric(o, "accuracy_served", &t.accuracy_served, e)) ||
               (r = errors_of(o, "received", &t.received, e)) ||
               (r = errors_of(o, "trained", &t.trained, e)) ||
               (r = errors_of(o, "served", &t.served, e)) || (r = metric(o, "steps", &steps, e)));
    }
    json_decref(o);
    if (r == 0) {
        t.steps = steps >= 0 && steps < 1e15 ? (uint64_t)steps : 0;
        *ret = t;
    }
    return r;
}
