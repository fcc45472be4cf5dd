#include "client/task_in.h"

#include "client/core/outbox.h"
#include "client/exec.h"
#include "client/fit.h"
#include "client/guard.h"
#include "client/report.h"
#include "client/served.h"
#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/math/grid.h"
#include "common/nn/param/param.h"
#include "common/nn/tensors.h"
#include "common/nn/trap.h"
#include "common/plan/adaptive.h"
#include "common/plan/beside.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fl_task_init(struct fl_task *t, struct fl_vault *v, const struct fl_agent_task *what,
                  const uint8_t coordinator[16])
{
    memset(t, 0, sizeof *t);
    t->vault = v;
    t->what = *what;
    memcpy(t->coordinator, coordinator, sizeof t->coordinator);
    atomic_init(&t->cancel, false);
}

void fl_task_secure(struct fl_task *t, struct fl_sessions *sessions, struct fl_tls_conf *tls)
{
    t->sessions = sessions;
    t->tls = tls ? fl_tls_conf_ref(tls) : NULL;
}

void fl_task_drop_vectors(struct fl_task *t)
{
    struct fl_produced *p = &t->produced;

    fl_free(t->delta);
    fl_free(t->private_out);
    t->delta = t->private_out = NULL;
    if (p->q) {
        explicit_bzero(p->q, t->terms.elements * sizeof *p->q);
    }
    if (p->bytes) {
        explicit_bzero(p->bytes, p->size);
    }
    fl_free(p->q);
    fl_free(p->bytes);
    p->q = NULL;
    p->bytes = NULL;
}

void fl_task_fini(struct fl_task *t)
{
    fl_task_drop_vectors(t);
    fl_free(t->plan);
    t->plan = NULL;
    json_decref(t->final_line);
    t->final_line = NULL;
    fl_tls_conf_unref(t->tls);
    t->tls = NULL;
    explicit_bzero(&t->seed, sizeof t->seed);
}

/* ---- judge --------------------------------------------------------------------------------------
 */

static int read_plan(struct fl_task *t, struct fl_err *e)
{
    char file[FL_PLAN_NAME_MAX + 16];
    uint8_t *text;

    fl_free(t->plan);
    t->plan = fl_try(1, sizeof *t->plan);
    if (!t->plan) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the plan");
    }
    int r = fl_vault_object(t->vault, &t->what.plan, t->what.plan_size, &text, e);
    if (r) {
        return r;
    }
    snprintf(file, sizeof file, "job %s", t->what.job);
    r = fl_plan_parse(t->plan, file, (const char *)text, t->what.plan_size, e);
    fl_free(text);
    if (r) {
        return r;
    }
    if (strcmp(t->plan->name, t->what.job) != 0) {
        return fl_fail(e, FL_R_POLICY_JOB, "the plan is of job %s, the task of job %s",
                       t->plan->name, t->what.job);
    }
    return 0;
}

/* safetensors: the values and a header in front. The exact check is fl_tensors_read's. */
static int check_model(const struct fl_task *t, bool wanted, struct fl_err *e)
{
    uint64_t values = 4 * (uint64_t)t->plan->layout.shared.elements;
    uint64_t least = wanted ? values : 0, most = wanted ? values + 8 + FL_TENSORS_HEADER_MAX : 0;

    if (t->what.base_size < least || t->what.base_size > most) {
        return fl_fail(e, FL_R_UPDATE_SHAPE, "a model of %llu bytes; the plan's has %llu of values",
                       (unsigned long long)t->what.base_size, (unsigned long long)least);
    }
    return 0;
}

/* What is asked for, by the plan's own list and not by the coordinator's word. */
static int find_exchange(struct fl_task *t, struct fl_err *e)
{
    struct fl_exchange_terms list[FL_PLAN_EXCHANGES_MAX];
    const struct fl_agent_task *w = &t->what;
    uint32_t i = w->key.exchange;

    if (i >= fl_plan_exchanges(t->plan, w->key.round, list) ||
        strcmp(list[i].name, w->exchange) != 0) {
        return fl_fail(e, FL_R_CAPABILITY, "the plan has no exchange %u named %s in round %llu", i,
                       w->exchange, (unsigned long long)w->key.round);
    }
    t->terms = list[i];
    t->masked = fl_plan_secure_stage(w->exchange) == FL_SECAGG_MASK;
    bool update = t->masked || strcmp(w->exchange, "update") == 0;
    t->producer = update ? NULL : fl_producer_find(w->exchange);
    if (!update && !t->producer) {
        return fl_fail(e, FL_R_CAPABILITY, "the exchange %s is not known here", w->exchange);
    }
    if (w->update_size != t->terms.size) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "%llu bytes for %s; the plan's has %llu",
                       (unsigned long long)w->update_size, w->exchange,
                       (unsigned long long)t->terms.size);
    }
    if (t->terms.input != (w->input_size > 0)) {
        return fl_fail(e, FL_R_CAPABILITY, "%s of %llu bytes to begin %s with",
                       t->terms.input ? "something instead" : "something",
                       (unsigned long long)w->input_size, w->exchange);
    }
    return check_model(t, t->terms.model, e);
}

/* What it will cost; the site's least noise holds for everything that is noised. */
static int event_of(const struct fl_task *t, struct fl_event *ret, struct fl_err *e)
{
    const struct fl_policy_job *job = fl_policy_find(t->vault->agent->policy, t->what.job);

    if (!t->producer) {
        return fl_outbox_event(t->plan, ret, e);
    }
    if (fl_task_of_data(t) && t->vault->agent->data.format == FL_DATA_PROGRAM) {
        return fl_fail(e, FL_R_EXEC_NONE, "only the trainer's program reads these data: no %s",
                       t->terms.name);
    }
    int r = t->producer->event(t->plan, &t->terms, ret, e);
    if (r == 0 && job && ret->count > 0 && !(ret->sigma >= job->min_noise_multiplier)) {
        r = fl_fail(e, FL_R_POLICY_NOISE,
                    "%s of job %s have noise multiplier %g; this site requires at least %g",
                    t->terms.name, t->what.job, ret->sigma, job->min_noise_multiplier);
    }
    return r;
}

static int load_data(struct fl_task *t, struct fl_err *e)
{
    if (t->plan->trainer == FL_TRAINER_EXEC && t->vault->agent->trainer.program_count == 0) {
        return fl_fail(e, FL_R_EXEC_NONE,
                       "the job wants this site's own trainer, and trainer.program names none");
    }
    int r = fl_vault_load(t->vault, &t->plan->data.schema, e);

    return r ? r : fl_fit(t->plan, &t->vault->data, e);
}

static const struct fl_budget *budget_of(const struct fl_task *t)
{
    static const struct fl_budget none = {.unit = FL_UNIT_NONE};
    const struct fl_policy_job *job = fl_policy_find(t->vault->agent->policy, t->what.job);

    return job ? &job->budget : &none; /* judged before: there is one */
}

/* A delta that one of so many examples could be published under protects none of them. */
static int check_delta(const struct fl_task *t, struct fl_err *e)
{
    const struct fl_privacy_conf *p = &t->plan->privacy;

    if (p->unit != FL_UNIT_EXAMPLE ||
        fl_delta_check(p->delta, t->vault->data.train.count, e) == 0) {
        return 0;
    }
    return fl_wrap(e, -FL_R_POLICY_NOISE, "job %s", t->what.job);
}

/* What is made of no data costs none of them anything; but a site that withdrew sends nothing. */
static int check_dataless(const struct fl_task *t, const struct fl_event *event, struct fl_err *e)
{
    static const struct fl_digest none;

    return fl_ledger_allows(t->vault->ledger, budget_of(t), t->what.job, FL_UNIT_NONE,
                            FL_NOISE_LOCAL, event, &none, e);
}

static int check_budget(const struct fl_task *t, const struct fl_event *event,
                        enum fl_noise_place noise, struct fl_err *e)
{
    int r = fl_ledger_participates(t->vault->ledger, &t->what.key, event, e);

    return r ? r
             : fl_ledger_allows(t->vault->ledger, budget_of(t), t->what.job, t->plan->privacy.unit,
                                noise, event, &t->vault->data.identity, e);
}

/* An agent that cannot pay for its vector does not begin a secure sum: its neighbours would have to
 * do without it. */
static int check_later(const struct fl_task *t, struct fl_err *e)
{
    struct fl_event event;

    if (fl_plan_secure_stage(t->what.exchange) >= FL_SECAGG_MASK) {
        return 0;
    }
    int r = fl_outbox_event(t->plan, &event, e);
    return r ? r : check_budget(t, &event, fl_task_update_noise(t), e);
}

int fl_task_judge(struct fl_task *t, bool *ret_costs, struct fl_err *e)
{
    struct fl_event event;
    int r = read_plan(t, e);

    if (r) {
        return r;
    }
    r = find_exchange(t, e);
    if (r == 0) {
        r = fl_policy_judge(t->vault->agent->policy, t->plan, e);
    }
    if (r) {
        return r;
    }
    r = fl_trap_spec(&t->plan->layout.spec, e);
    if (r) {
        return r;
    }
    if (!fl_plan_resolved(t->plan)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "the plan has a unit but no noise");
    }
    r = load_data(t, e);
    if (r == 0) {
        r = check_delta(t, e);
    }
    if (r == 0) {
        r = event_of(t, &event, e);
    }
    if (r == 0) {
        r = fl_task_of_data(t) ? check_budget(t, &event, fl_task_noise(t), e)
                               : check_dataless(t, &event, e);
    }
    if (r == 0) {
        r = check_later(t, e);
    }
    if (r == 0) {
        *ret_costs = event.count > 0;
    }
    return r;
}

/* ---- intent, train ------------------------------------------------------------------------------
 */

int fl_task_intent(struct fl_task *t, struct fl_err *e)
{
    const struct fl_digest *base[] = {&t->what.base, &t->what.input, &t->vault->data.digest};
    struct fl_hash h; /* of all: the seed belongs to these inputs only */

    fl_hash_init(&h);
    for (size_t i = 0; i < FL_COUNT(base); i++) {
        fl_hash_add(&h, base[i]->bytes, sizeof base[i]->bytes);
    }
    fl_hash_end(&h, &t->inputs.base);
    t->inputs.plan = t->what.plan;
    t->inputs.data = fl_task_of_data(t) ? t->vault->data.identity : (struct fl_digest){{0}};
    int r = fl_task_private_digest(t, &t->inputs.private_state, e);
    if (r) {
        return r;
    }
    FL_CRASH_POINT("agent-intent-before");
    r = fl_ledger_intent(t->vault->ledger, &t->what.key, &t->inputs, fl_vault_wall_ms(), &t->seed,
                         e);
    if (r == 0) {
        FL_CRASH_POINT("agent-intent-after");
    }
    return r;
}

static int load_base(const struct fl_task *t, float **ret, struct fl_err *e)
{
    const struct fl_tensors *tensors = &t->plan->layout.shared;
    uint8_t *bytes;
    float *x = fl_try_aligned(tensors->elements + 1, sizeof *x);

    if (!x) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the model");
    }
    int r = fl_vault_object(t->vault, &t->what.base, t->what.base_size, &bytes, e);
    if (r == 0) {
        r = fl_tensors_read(bytes, (size_t)t->what.base_size, tensors, x, e);
        fl_free(bytes);
    }
    for (size_t i = 0; r == 0 && i < tensors->elements; i++) {
        if (!isfinite(x[i])) {
            r = fl_fail(e, FL_R_TENSORS, "value %zu of the received model is not finite", i);
        }
    }
    if (r) {
        fl_free(x);
        return r;
    }
    *ret = x;
    return 0;
}

static struct fl_exec exec_of(const struct fl_task *t, char folder[FL_VAULT_PATH_MAX])
{
    fl_vault_path(t->vault, "exec", "", folder);
    return (struct fl_exec){t->vault->agent, folder};
}

/* What the builtin trainer does itself: a program is given no trap either. */
static int check_trap(const struct fl_train_task *task, struct fl_err *e)
{
    const struct fl_layout *l = &task->plan->layout;
    float *theta = fl_try_aligned(l->theta.elements + 1, sizeof *theta);
    int r = theta ? fl_param_make(l, task->base, task->private_in, theta, e)
                  : fl_fail(e, FL_R_NOMEM, "out of memory for the network");

    r = r ? r : fl_trap_check(l, theta, e);
    fl_free(theta);
    return r;
}

static int train_by(const struct fl_task *t, const struct fl_train_task *task,
                    struct fl_train_result *ret, struct fl_err *e)
{
    char folder[FL_VAULT_PATH_MAX];
    const struct fl_exec x = exec_of(t, folder);

    if (t->plan->trainer != FL_TRAINER_EXEC) {
        return fl_train(task, ret, e);
    }
    int r = t->plan->layout.spec.layer_count ? check_trap(task, e) : 0;
    return r ? r : fl_exec_train(&x, task, ret, e);
}

/* What the coordinator made for this exchange; *ret stays NULL where the plan has nothing. */
static int load_input(const struct fl_task *t, uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    if (!t->terms.input) {
        return 0;
    }
    int r = fl_vault_object(t->vault, &t->what.input, t->what.input_size, ret, e);
    if (r == 0) {
        *ret_size = (size_t)t->what.input_size;
    }
    return r;
}

static int produce(struct fl_task *t, struct fl_err *e)
{
    struct fl_produce in = {.plan = t->plan,
                            .terms = &t->terms,
                            .key = t->what.key,
                            .agent = t->vault->agent->name,
                            .data = &t->vault->data,
                            .site = &t->vault->seed,
                            .cancel = &t->cancel,
                            .sessions = t->sessions,
                            .tls = t->tls};
    struct fl_seed seed;
    float *base = NULL, *private_ = NULL;
    uint8_t *input = NULL;
    int r = t->terms.model ? load_base(t, &base, e) : 0;

    if (r == 0 && t->terms.model) {
        r = fl_task_load_private(t, &t->inputs.private_state, &private_, e);
    }
    r = r ? r : load_input(t, &input, &in.input_size, e);
    fl_task_drop_vectors(t);
    if (r == 0) {
        fl_seed_derive(&t->seed, t->terms.name, t->what.key.round, &seed);
        in.seed = &seed;
        in.base = base;
        in.private_ = private_;
        in.input = input;
        r = t->producer->make(&in, &t->produced, e);
        explicit_bzero(&seed, sizeof seed);
    }
    if (r == 0) {
        r = t->producer->event(t->plan, &t->terms, &t->event, e);
    }
    FL_CRASH_POINT("agent-train-after");
    fl_free(base);
    fl_free(private_);
    fl_free(input);
    return r;
}

/* Of adaptive clipping: the clip stands in the model, and is this round's only if the site takes
 * it.
 */
static int take_clip(struct fl_task *t, const float *base, struct fl_err *e)
{
    if (!t->plan->privacy.adaptive.on) {
        return 0;
    }
    int r = fl_adaptive_take(t->plan, base[t->plan->layout.shared.elements - 1], e);
    return r ? r : fl_policy_clip(t->vault->agent->policy, t->plan, e);
}

int fl_task_train(struct fl_task *t, struct fl_err *e)
{
    struct fl_train_task task = {.plan = t->plan,
                                 .data = &t->vault->data,
                                 .kept = &t->vault->features,
                                 .round = t->what.key.round,
                                 .cancel = &t->cancel};
    struct fl_train_result result = {0};
    float *base = NULL, *private_in = NULL;
    uint8_t *input = NULL;
    int r;

    if (atomic_load(&t->cancel)) {
        return fl_fail(e, FL_R_CANCELLED, "cancelled before it began");
    }
    FL_CRASH_POINT("agent-train-before");
    if (t->producer) {
        r = produce(t, e);
        t->vault->data_stale = t->vault->data_stale || r == -FL_R_DATA_CHANGED;
        return r;
    }
    r = load_base(t, &base, e);
    r = r ? r : take_clip(t, base, e);
    r = r ? r : load_input(t, &input, &task.input_size, e);
    if (r == 0) {
        r = fl_task_load_private(t, &t->inputs.private_state, &private_in, e);
    }
    if (r) {
        goto out;
    }
    fl_task_drop_vectors(t);
    t->delta = fl_try_aligned(t->plan->layout.shared.elements + 1, sizeof *t->delta);
    t->private_out = fl_try_aligned(fl_task_private_count(t) + 1, sizeof *t->private_out);
    if (!t->delta || !t->private_out) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory for the update");
        goto out;
    }
    task.base = base;
    task.input = input;
    task.private_in = private_in;
    fl_seed_derive(&t->seed, "train", t->what.key.round, &task.seed);
    result.delta = t->delta;
    result.private_out = t->private_out;
    r = train_by(t, &task, &result, e);
    explicit_bzero(&task.seed, sizeof task.seed);
    t->trained = result.report;
    t->event = result.event;
    FL_CRASH_POINT("agent-train-after");
out:
    fl_free(base);
    fl_free(input);
    fl_free(private_in);
    t->vault->data_stale = t->vault->data_stale || r == -FL_R_DATA_CHANGED;
    if (r) {
        fl_task_drop_vectors(t);
    }
    return r;
}

/* ---- debit --------------------------------------------------------------------------------------
 */

int fl_task_debit(struct fl_task *t, struct fl_err *e)
{
    FL_CRASH_POINT("agent-debit-before");
    int r = fl_ledger_debit(t->vault->ledger, budget_of(t), &t->release, fl_vault_wall_ms(), e);
    if (r == -FL_R_BUDGET_SPENT || r == -FL_R_POLICY_NOISE || r == -FL_R_WITHDRAWN) {
        fl_vault_discard(t->vault, &t->offer.digest); /* a clear no: nothing was recorded */
    }
    if (r) {
        return r; /* otherwise it may be recorded all the same: the next start will know */
    }
    FL_CRASH_POINT("agent-debit-after");
    fl_vault_private_kept(t->vault, t->what.key.incarnation, &t->release.private_state);
    return fl_vault_add_pending(t->vault, &t->offer, t->coordinator, e);
}

/* ---- final model, reports -----------------------------------------------------------------------
 */

int fl_task_prepare_final(struct fl_task *t, struct fl_err *e)
{
    int r = read_plan(t, e);

    r = r ? r : check_model(t, true, e);
    r = r ? r : fl_policy_judge(t->vault->agent->policy, t->plan, e);
    if (r == 0) {
        r = load_data(t, e);
    }
    if (r == 0) {
        r = fl_task_private_digest(t, &t->inputs.private_state, e);
    }
    if (r) {
        return r;
    }
    t->final_line = fl_report_new("final", &t->what, t->plan, NULL);
    if (!t->final_line) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    fl_vault_report_epsilon(t->vault, t->final_line, t->what.job, t->plan->privacy.unit,
                            &t->vault->data.identity, t->plan->privacy.delta);
    return 0;
}

/* The serving head is tuned on the received model, and where there are validation examples they
 * choose among it, other tunings and a model trained alone. `served` has the model that came, and
 * then the one that serves; nothing else is kept. */
static int tune_serving(const struct fl_task *t, const float *base, const float *private_in,
                        float *served, struct fl_train_report *ret, struct fl_err *e)
{
    char folder[FL_VAULT_PATH_MAX];
    struct fl_train_task task = {.plan = t->plan,
                                 .served = served,
                                 .data = &t->vault->data,
                                 .kept = &t->vault->features,
                                 .base = base,
                                 .private_in = private_in,
                                 .round = t->what.key.round,
                                 .cancel = &t->cancel};

    fl_seed_derive(&t->vault->seed, "final", t->what.key.round, &task.seed);
    const struct fl_exec x = exec_of(t, folder);
    bool program = t->plan->trainer == FL_TRAINER_EXEC; /* which serves what it likes */
    int r = program ? fl_exec_serve(&x, &task, ret, e) : fl_train_serve(&task, ret, e);
    if (r == 0 && !program && t->vault->data.validation.count) {
        struct fl_guard_report guard;
        r = fl_guard_choose(&task, served, &guard, e);
        if (r == 0) {
            fl_report_guard(t->final_line, &guard);
        }
    }
    return r;
}

static int remember_final(const struct fl_task *t, struct fl_err *e)
{
    char name[2 * FL_INCARNATION_SIZE + 1], path[FL_VAULT_PATH_MAX], digest[FL_DIGEST_HEX];

    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        snprintf(name + 2 * i, 3, "%02x", t->what.key.incarnation[i]);
    }
    fl_vault_path(t->vault, "final", name, path);
    fl_digest_hex(&t->what.base, digest);
    return fl_file_replace(path, digest, FL_DIGEST_HEX - 1, 0600, e);
}

/* What the final model is worth here goes to the report, and the network itself, as it serves this
 * site, to a file of its own. */
static int serve_final(const struct fl_task *t, struct fl_train_report *ret, struct fl_err *e)
{
    float *base = NULL, *private_in = NULL;
    float *served = fl_try_aligned(t->plan->layout.theta.elements + 1, sizeof *served);
    uint8_t *text = NULL;

    int r = served ? load_base(t, &base, e) : fl_fail(e, FL_R_NOMEM, "out of memory");
    if (r == 0) {
        r = fl_task_load_private(t, &t->inputs.private_state, &private_in, e);
    }
    if (r == 0) {
        r = fl_param_make(&t->plan->layout, base, private_in, served, e);
        fl_kept_serve(t->plan, private_in, served);
    }
    if (r == 0) {
        r = tune_serving(t, base, private_in, served, ret, e);
    }
    if (r == 0) {
        r = fl_vault_object(t->vault, &t->what.plan, t->what.plan_size, &text, e);
    }
    if (r == 0) {
        r = fl_served_save(t->vault->dir, &t->what, t->plan, text, served, e);
    }
    fl_free(text);
    fl_free(served);
    fl_free(base);
    fl_free(private_in);
    return r;
}

int fl_task_evaluate(struct fl_task *t, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_train_report report = {
        .accuracy_shared = NAN, .accuracy_trained = NAN, .accuracy_served = NAN};
    int r = serve_final(t, &report, e);

    if (r) {
        return r;
    }
    fl_report_trained(t->final_line, &report);
    fl_report_count(t->final_line, "train_examples", t->vault->data.train.count);
    fl_report_count(t->final_line, "test_examples", t->vault->data.test.count);
    fl_vault_path(t->vault, "", "report.jsonl", path);
    r = fl_report_append(path, t->final_line, e);
    FL_CRASH_POINT("agent-final-reported");
    return r ? r : remember_final(t, e);
}

int fl_task_report_decline(struct fl_task *t, int reason, const char *text, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    json_t *line = fl_report_new("declined", &t->what, NULL, NULL);

    if (!line) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    fl_report_text(line, "outcome", fl_reason_name(reason));
    fl_report_text(line, "why", text);
    fl_vault_path(t->vault, "", "report.jsonl", path);
    int r = fl_report_append(path, line, e);
    json_decref(line);
    return r;
}
