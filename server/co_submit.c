/*
 * A job is submitted: its description checked and resolved, its first checkpoint written, its
 * record made; then it runs. Or it is only checked, by the same code (`job check`).
 */
#include "server/co.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

struct submit_op {
    struct co_op op;
    uint64_t ticket;
    bool check; /* no more than that */
    char who[64], what[512], file[256];
    char *text;
    size_t size;
    struct fl_plan *plan;
    struct fl_server_target target;
    struct fl_store_job job;
};

/* The description as it will run: resolved, parsed, with rules that a round can follow. [store]
 * since computing a noise multiplier takes a while. */
static int check_submission(struct submit_op *s, struct fl_err *e)
{
    struct fl_round_rules rules;
    char *resolved;
    size_t size;

    /* First as its author wrote it, so that a complaint names the author's file. */
    s->plan = fl_try(1, sizeof *s->plan);
    int r = s->plan ? fl_plan_parse(s->plan, s->file, s->text, s->size, e)
                    : fl_fail(e, FL_R_NOMEM, "a plan");
    if (r == 0) {
        r = fl_plan_resolve(s->text, s->size, &resolved, &size, e);
    }
    if (r) {
        return r;
    }
    fl_free(s->text);
    s->text = resolved;
    s->size = size;
    r = fl_plan_parse(s->plan, s->file, s->text, s->size, e);
    if (r == 0 && !fl_strategy_find(s->plan->strategy)) {
        r = fl_fail(e, FL_R_PLAN_STRATEGY, "%s: no strategy %s here", s->file, s->plan->strategy);
    }
    r = r ? r : fl_secure_check(s->plan, fl_strategy_find(s->plan->strategy), e);
    r = r ? r : co_tune_check(s->op.co, &s->target, s->plan, s->text, s->size, e);
    if (r == 0) {
        fl_strategy_rules(s->plan, 1, &rules);
        r = fl_round_rules_check(&rules, e);
    }
    return r;
}

/* [store] The initial model is written and the job recorded, or nothing of it remains. */
static void submit_run(struct co_op *op)
{
    struct submit_op *s = (struct submit_op *)op;
    struct fl_store *store = op->co->store;
    struct fl_err *e = &op->err;

    if ((op->status = check_submission(s, e)) != 0 || s->check ||
        (op->status = fl_entropy(s->job.incarnation, sizeof s->job.incarnation, e)) != 0) {
        return;
    }
    snprintf(s->job.name, sizeof s->job.name, "%s", s->plan->name);
    s->job.state = FL_JOB_RUNNING;
    s->job.text = s->text;
    s->job.text_size = s->size;
    if ((op->status = co_initial_checkpoint(store, s->plan, s->job.incarnation, &s->job.checkpoint,
                                            &s->job.model, &s->job.model_size, e)) != 0 ||
        (op->status = fl_store_job_add(store, &s->job, &s->job.id, e)) != 0) {
        return;
    }
    op->status = fl_store_audit(store, co_wall_ms(), s->who, s->what, e);
}

static void submit_done(struct co_op *op)
{
    struct submit_op *s = (struct submit_op *)op;
    struct co *co = op->co;
    struct co_job *j = NULL;

    if (op->status == 0 && !s->check) {
        j = co_job_new(co, &s->job, &op->err);
        op->status = !j ? -FL_R_NOMEM : co_job_take_text(j, s->text, s->size, &op->err);
        op->status = op->status ? op->status : co_job_model(co, j, &op->err);
        op->status = op->status ? op->status : co_job_round(co, j, &op->err);
        if (op->status && j) {
            co_job_over(co, j, FL_JOB_FAILED,
                        op->status); /* recorded, so it must not start by itself */
        }
    } else if (-op->status >= 100 && -op->status < 200) {
        fl_log_err(FL_LOG_INFO, "job", &op->err,
                   "a description is refused"); /* its author's fault */
    } else if (op->status) {
        co_store_failed(co, op, "submit a job");
    }
    fl_control_done(co->control, s->ticket, op->status, &op->err, s->job.name);
    if (j && op->status == 0) {
        fl_log(FL_LOG_INFO, j->name, "submitted by %s: %s, %llu rounds, updates of %zu bytes",
               s->who, j->plan->strategy, (unsigned long long)j->plan->rounds,
               fl_plan_update_size(j->plan));
        co_event(co, j->id, &(struct fl_round_event){.type = FL_ROUND_EV_TICK}, false);
        co_job_offer_agents(co, j);
    }
    fl_free(s->text);
    fl_free(s->plan);
}

static void begin(struct co *co, const struct fl_control_by *by, const char *file, const char *text,
                  size_t size, bool check)
{
    struct submit_op *s = co_op_new(co, sizeof *s, submit_run, submit_done);
    struct fl_err e = {0};

    uint32_t running = 0;
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        running += j->round != NULL;
    }
    int r = co->draining             ? fl_fail(&e, FL_R_SHUTDOWN, "the coordinator is stopping")
            : running >= CO_JOBS_MAX ? fl_fail(&e, FL_R_LIMIT, "%u jobs are running", running)
                                     : 0;
    s->text = r ? NULL : fl_try(size + 1, 1);
    if (r == 0 && !s->text) {
        r = fl_fail(&e, FL_R_NOMEM, "a description");
    }
    if (r) {
        fl_control_done(co->control, by->ticket, r, &e, NULL);
        fl_free(s);
        return;
    }
    memcpy(s->text, text, size);
    s->size = size;
    s->ticket = by->ticket;
    s->check = check;
    s->target = co->config.target;
    snprintf(s->file, sizeof s->file, "%s", file);
    snprintf(s->who, sizeof s->who, "%s", by->who);
    snprintf(s->what, sizeof s->what, "%s", by->what);
    co_submit(co, co->store_lane, &s->op);
}

void co_job_submit(struct co *co, const struct fl_control_by *by, const char *file,
                   const char *text, size_t size)
{
    begin(co, by, file, text, size, false);
}

void co_job_check(struct co *co, const struct fl_control_by *by, const char *file, const char *text,
                  size_t size)
{
    begin(co, by, file, text, size, true);
}
