#include "client/task.h"

#include "client/core/outbox.h"
#include "client/exec.h"
#include "client/fit.h"
#include "client/report.h"
#include "client/served.h"
#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/param/param.h"
#include "common/nn/tensors.h"

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

static void drop_vectors(struct fl_task *t)
{
    fl_free(t->delta);
    fl_free(t->private_out);
    t->delta = t->private_out = NULL;
}

void fl_task_fini(struct fl_task *t)
{
    drop_vectors(t);
    fl_free(t->plan);
    t->plan = NULL;
    json_decref(t->final_line);
    t->final_line = NULL;
    explicit_bzero(&t->seed, sizeof t->seed);
}

/* ---- floats in files: 4 bytes, little-endian ----------------------------------------------------
 */

static void floats_from_bytes(const uint8_t *from, size_t count, float *to)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t w = (uint32_t)from[4 * i] | (uint32_t)from[4 * i + 1] << 8 |
                     (uint32_t)from[4 * i + 2] << 16 | (uint32_t)from[4 * i + 3] << 24;
        memcpy(&to[i], &w, sizeof w);
    }
}

static void floats_to_bytes(const float *from, size_t count, uint8_t *to)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t w;
        memcpy(&w, &from[i], sizeof w);
        to[4 * i] = (uint8_t)w;
        to[4 * i + 1] = (uint8_t)(w >> 8);
        to[4 * i + 2] = (uint8_t)(w >> 16);
        to[4 * i + 3] = (uint8_t)(w >> 24);
    }
}

static void digest_of_floats(const float *x, size_t count, struct fl_digest *ret)
{
    uint8_t bytes[4096];
    struct fl_hash h;

    fl_hash_init(&h);
    while (count) {
        size_t n = count < sizeof bytes / 4 ? count : sizeof bytes / 4;
        floats_to_bytes(x, n, bytes);
        fl_hash_add(&h, bytes, 4 * n);
        x += n;
        count -= n;
    }
    fl_hash_end(&h, ret);
}

/* ---- private tensors ----------------------------------------------------------------------------
 */

static size_t private_count(const struct fl_task *t)
{
    return t->plan->layout.private_.elements;
}

/* As a job begins: of the job's seed where the published start asks for it, else of the agent's. */
static int initial_private(const struct fl_task *t, float **ret, struct fl_err *e)
{
    struct fl_seed job;
    float *x = fl_try_aligned(private_count(t) + 1, sizeof *x);

    if (!x) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the private tensors");
    }
    fl_seed_from_u64(t->plan->seed, &job);
    fl_layout_init_private(&t->plan->layout, &job, &t->vault->seed, x);
    *ret = x;
    return 0;
}

/* [sync] Digest of the private tensors that go into this round. Zero: there are none. */
static int private_digest(struct fl_task *t, struct fl_digest *ret, struct fl_err *e)
{
    uint64_t round;
    float *x = NULL;

    memset(ret, 0, sizeof *ret);
    if (private_count(t) == 0) {
        return 0;
    }
    int r = fl_ledger_private(t->vault->ledger, t->what.key.incarnation, ret, &round, e);
    if (r != 0 && !(r == 1 && fl_digest_is_zero(ret))) {
        return r < 0 ? r : 0;
    }
    r = initial_private(t, &x, e);
    if (r == 0) {
        digest_of_floats(x, private_count(t), ret);
        fl_free(x);
    }
    return r;
}

/* The private tensors with the digest found before: from their file, or as the job begins. */
static int load_private(const struct fl_task *t, const struct fl_digest *digest, float **ret,
                        struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_digest found;
    uint8_t *bytes;
    size_t size, count = private_count(t);

    int r = initial_private(t, ret, e);
    if (r || count == 0) {
        return r;
    }
    digest_of_floats(*ret, count, &found);
    if (fl_digest_equal(&found, digest)) {
        return 0;
    }
    fl_vault_private_path(t->vault, t->what.key.incarnation, digest, path);
    r = fl_file_read(path, 4 * count, &bytes, &size, e);
    if (r == 0) {
        fl_digest_of(bytes, size, &found);
        if (size != 4 * count || !fl_digest_equal(&found, digest)) {
            r = fl_fail(e, FL_R_STORE_MISMATCH, "%s: its bytes do not match its name", path);
        } else {
            floats_from_bytes(bytes, count, *ret);
        }
        explicit_bzero(bytes, size);
        fl_free(bytes);
    }
    if (r) {
        fl_free(*ret);
        *ret = NULL;
    }
    return r;
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
    /* safetensors: the values and a header in front. The exact check is fl_tensors_read's. */
    uint64_t values = 4 * (uint64_t)t->plan->layout.shared.elements;
    if (t->what.base_size < values || t->what.base_size > values + 8 + FL_TENSORS_HEADER_MAX) {
        return fl_fail(e, FL_R_UPDATE_SHAPE, "a model of %llu bytes; the plan's has %llu of values",
                       (unsigned long long)t->what.base_size, (unsigned long long)values);
    }
    return fl_policy_judge(t->vault->agent->policy, t->plan, e);
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

int fl_task_judge(struct fl_task *t, bool *ret_costs, struct fl_err *e)
{
    struct fl_event event;
    int r = read_plan(t, e);

    if (r) {
        return r;
    }
    if (t->what.key.exchange != 0) {
        return fl_fail(e, FL_R_CAPABILITY, "exchange %u is not known here", t->what.key.exchange);
    }
    if (!fl_plan_resolved(t->plan)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "the plan has a unit but no noise");
    }
    if (t->what.update_size != fl_plan_update_size(t->plan)) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "an update of %llu bytes; the plan's has %zu",
                       (unsigned long long)t->what.update_size, fl_plan_update_size(t->plan));
    }
    r = load_data(t, e);
    if (r == 0) {
        r = check_delta(t, e);
    }
    if (r == 0) {
        r = fl_outbox_event(t->plan, &event, e);
    }
    if (r == 0) {
        r = fl_ledger_allows(t->vault->ledger, budget_of(t), t->what.job, t->plan->privacy.unit,
                             &event, &t->vault->data.digest, e);
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
    t->inputs.plan = t->what.plan;
    t->inputs.base = t->what.base;
    t->inputs.data = t->vault->data.digest;
    int r = private_digest(t, &t->inputs.private_state, e);
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

static int train_by(const struct fl_task *t, const struct fl_train_task *task,
                    struct fl_train_result *ret, struct fl_err *e)
{
    char folder[FL_VAULT_PATH_MAX];
    const struct fl_exec x = exec_of(t, folder);

    return t->plan->trainer == FL_TRAINER_EXEC ? fl_exec_train(&x, task, ret, e)
                                               : fl_train(task, ret, e);
}

int fl_task_train(struct fl_task *t, struct fl_err *e)
{
    struct fl_train_task task = {
        .plan = t->plan, .data = &t->vault->data, .round = t->what.key.round, .cancel = &t->cancel};
    struct fl_train_result result = {0};
    float *base = NULL, *private_in = NULL;
    int r;

    if (atomic_load(&t->cancel)) {
        return fl_fail(e, FL_R_CANCELLED, "cancelled before it began");
    }
    FL_CRASH_POINT("agent-train-before");
    r = load_base(t, &base, e);
    if (r == 0) {
        r = load_private(t, &t->inputs.private_state, &private_in, e);
    }
    if (r) {
        goto out;
    }
    drop_vectors(t);
    t->delta = fl_try_aligned(t->plan->layout.shared.elements + 1, sizeof *t->delta);
    t->private_out = fl_try_aligned(private_count(t) + 1, sizeof *t->private_out);
    if (!t->delta || !t->private_out) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory for the update");
        goto out;
    }
    task.base = base;
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
    fl_free(private_in);
    if (r) {
        drop_vectors(t);
    }
    return r;
}

/* ---- seal, debit --------------------------------------------------------------------------------
 */

/* The private tensors after this round, in a file named by their digest (zero: there are none). */
static int write_private(struct fl_task *t, struct fl_digest *ret, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    size_t count = private_count(t);

    memset(ret, 0, sizeof *ret);
    if (count == 0) {
        return 0;
    }
    uint8_t *bytes = fl_try(count, 4);
    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the private tensors");
    }
    floats_to_bytes(t->private_out, count, bytes);
    fl_digest_of(bytes, 4 * count, ret);
    fl_vault_private_path(t->vault, t->what.key.incarnation, ret, path);
    int r = fl_file_replace(path, bytes, 4 * count, 0600, e);
    explicit_bzero(bytes, 4 * count);
    fl_free(bytes);
    return r;
}

static uint32_t weight_of(const struct fl_task *t)
{
    uint32_t n = t->vault->agent->declared_examples;

    if (t->plan->weighting != FL_WEIGHT_EXAMPLES || n == 0) {
        return 1;
    }
    return n < t->plan->max_weight ? n : t->plan->max_weight;
}

/* Leaks on purpose, for the tests that must notice them (-Dseeded_leaks): never in a build that is
 * used. COHORT_SEEDED_LEAK chooses which. */
#ifdef FL_SEEDED_LEAKS
static bool leaks(const char *what)
{
    const char *chosen = getenv("COHORT_SEEDED_LEAK");

    return chosen && strcmp(chosen, what) == 0;
}

/* Before sealing: into the update itself. */
static void leak_into_update(struct fl_task *t)
{
    size_t count = private_count(t);

    if (t->plan->layout.shared.elements == 0) {
        return;
    }
    if (leaks("head") && count > 0) { /* private tensors of the network are first */
        t->delta[0] += t->private_out[0];
    }
    if (leaks("embedding") && count > 0) { /* the embedding is last */
        t->delta[0] += t->private_out[count - 1];
    }
    if (leaks("accuracy") && isfinite(t->trained.accuracy_received)) {
        t->delta[0] += (float)t->trained.accuracy_received;
    }
}

/* After it: into what is said about the update. */
static void leak_into_offer(struct fl_task *t)
{
    for (uint32_t i = 0; leaks("label") && i < t->vault->data.train.count; i++) {
        t->offer.weight += t->vault->data.train.y[i] == 0;
    }
}
#else
static void leak_into_update(struct fl_task *t)
{
    (void)t;
}

static void leak_into_offer(struct fl_task *t)
{
    (void)t;
}
#endif

static int write_offer(struct fl_task *t, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    const struct fl_release *r = &t->release;
    json_t *line = fl_report_new("round", &t->what, t->plan, &t->trained);

    if (!line) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    fl_report_count(line, "train_examples", t->vault->data.train.count);
    fl_report_count(line, "test_examples", t->vault->data.test.count);
    fl_report_update(line, r, t->norm_after, t->plan);
    char *text = fl_vault_offer_text(&t->offer, line);
    json_decref(line);
    if (!text) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    fl_vault_digest_path(t->vault, "outbox", &t->offer.digest, ".offer", path);
    int code = fl_file_replace(path, text, strlen(text), 0600, e);
    free(text);
    return code;
}

static void fill_release(struct fl_task *t, const struct fl_sealed *s)
{
    struct fl_release *r = &t->release;
    struct fl_agent_offer *o = &t->offer;

    memset(r, 0, sizeof *r);
    r->key = t->what.key;
    memcpy(r->job, t->what.job, sizeof r->job);
    memcpy(r->coordinator, t->coordinator, sizeof r->coordinator);
    r->unit = t->plan->privacy.unit;
    r->event = s->event;
    r->data = t->inputs.data;
    r->update = s->digest;
    r->size = s->size;
    r->norm_before = s->norm_before;
    r->clip = r->unit == FL_UNIT_NONE ? 0 : t->plan->privacy.clip;
    r->noise_std = s->noise_std;
    t->norm_after = s->norm_after;
    r->saturated = s->saturated;
    memset(o, 0, sizeof *o);
    o->key = t->what.key;
    memcpy(o->job, t->what.job, sizeof o->job);
    o->digest = s->digest;
    o->size = s->size;
    o->plan = t->what.plan;
    o->base = t->what.base;
    o->weight = weight_of(t);
}

int fl_task_seal(struct fl_task *t, struct fl_agent_offer *ret, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_sealed sealed = {0};
    struct fl_seed seed;

    leak_into_update(t);
    fl_seed_derive(&t->seed, "seal", t->what.key.round, &seed);
    int r = fl_outbox_seal(t->plan, t->delta,
                           t->plan->privacy.unit == FL_UNIT_EXAMPLE ? &t->event : NULL, &seed,
                           &sealed, e);
    explicit_bzero(&seed, sizeof seed);
    if (r) {
        goto out;
    }
    fill_release(t, &sealed);
    leak_into_offer(t);
    fl_vault_digest_path(t->vault, "outbox", &sealed.digest, "", path);
    FL_CRASH_POINT("agent-seal-before");
    r = fl_file_replace(path, sealed.bytes, sealed.size, 0600, e);
    if (r == 0) {
        FL_CRASH_POINT("agent-seal-bytes");
        r = write_private(t, &t->release.private_state, e);
    }
    if (r == 0) {
        FL_CRASH_POINT("agent-seal-private");
        r = write_offer(t, e);
    }
    if (r == 0) {
        FL_CRASH_POINT("agent-seal-after");
        *ret = t->offer;
    }
out:
    fl_sealed_fini(&sealed);
    drop_vectors(t);
    return r;
}

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

    if (r == 0) {
        r = load_data(t, e);
    }
    if (r == 0) {
        r = private_digest(t, &t->inputs.private_state, e);
    }
    if (r) {
        return r;
    }
    t->final_line = fl_report_new("final", &t->what, t->plan, NULL);
    if (!t->final_line) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    fl_vault_report_epsilon(t->vault, t->final_line, t->what.job, t->plan->privacy.unit,
                            &t->vault->data.digest, t->plan->privacy.delta);
    return 0;
}

/* The serving head is tuned on the received model; nothing else trains and nothing is kept. */
static int tune_serving(const struct fl_task *t, const float *base, const float *private_in,
                        float *served, struct fl_train_report *ret, struct fl_err *e)
{
    char folder[FL_VAULT_PATH_MAX];
    struct fl_train_task task = {.plan = t->plan,
                                 .served = served,
                                 .data = &t->vault->data,
                                 .base = base,
                                 .private_in = private_in,
                                 .round = t->what.key.round,
                                 .cancel = &t->cancel};

    fl_seed_derive(&t->vault->seed, "final", t->what.key.round, &task.seed);
    const struct fl_exec x = exec_of(t, folder);
    return t->plan->trainer == FL_TRAINER_EXEC ? fl_exec_serve(&x, &task, ret, e)
                                               : fl_train_serve(&task, ret, e);
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
        r = load_private(t, &t->inputs.private_state, &private_in, e);
    }
    if (r == 0) {
        r = fl_param_make(&t->plan->layout, base, private_in, served, e);
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
    struct fl_train_report report = {.accuracy_trained = NAN, .accuracy_served = NAN};
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
