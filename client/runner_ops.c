/*
 * Operations: each is one job, or a few in a row (a fetch: open the spool, receive, seal it; the
 * evaluation of a final model: ask the ledger, then compute). An operation begins by the machine's
 * word and ends in one DONE, whatever happens to the connection meanwhile.
 */
#include "client/runner_in.h"

#include "client/talk.h"
#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { FETCH_OPEN, FETCH_RECEIVE, FETCH_SEAL };
enum { HOLD_WAIT, HOLD_DECIDED };

static bool is_fetch(const struct fl_runner_op *op)
{
    return op->op == FL_AGENT_STATE_FETCH_PLAN || op->op == FL_AGENT_STATE_FETCH_BASE ||
           op->op == FL_AGENT_STATE_FETCH_INPUT;
}

/* ---- in the job ---------------------------------------------------------------------------------
 */

static void run_fetch(struct fl_runner_op *op)
{
    struct fl_err e;

    if (op->phase == FETCH_OPEN) {
        op->status = fl_vault_spool(op->runner->vault, &op->digest, op->size, &op->spool,
                                    &op->offset, &op->err);
        return;
    }
    /* FETCH_SEAL: what was received so far stays for the next connection. */
    if (op->status == 0) {
        FL_CRASH_POINT("agent-fetch-before-seal");
        op->status = fl_spool_seal(op->spool, &op->err);
        FL_CRASH_POINT("agent-fetch-after-seal");
    } else if (op->spool) {
        fl_spool_sync(op->spool, &e);
    }
    fl_spool_close(op->spool);
    op->spool = NULL;
}

static void run_files(struct fl_runner_op *op)
{
    struct fl_runner *r = op->runner;
    struct fl_vault *v = r->vault;

    switch (op->op) {
    case FL_AGENT_STATE_PENDING:
        if (fl_ledger_holds(v->ledger, op->coordinator, &op->echo, &op->err)) {
            break; /* nothing of it is offered; the next task is declined with this reason */
        }
        op->status = fl_vault_pending(v, op->coordinator, &op->offer, &op->err);
        if (op->status == 1) {
            op->have = FL_AGENT_HAVE_RELEASE;
            op->status = 0;
        }
        break;
    case FL_AGENT_STATE_LOOK:
        op->status = r->task.what.final
                         ? 0
                         : fl_ledger_holds(v->ledger, op->coordinator, &op->echo, &op->err);
        if (op->status == 0) {
            op->status = fl_vault_look(v, &r->task.what, &op->have, &op->offer, &op->err);
        }
        break;
    case FL_AGENT_STATE_FETCH_PLAN:
    case FL_AGENT_STATE_FETCH_BASE:
    case FL_AGENT_STATE_FETCH_INPUT:
        run_fetch(op);
        break;
    case FL_AGENT_STATE_JUDGE:
        op->status = fl_task_judge(&r->task, &op->costs, &op->err);
        break;
    case FL_AGENT_STATE_INTENT:
        op->status = fl_task_intent(&r->task, &op->err);
        break;
    case FL_AGENT_STATE_SEAL: /* not long: it must not queue behind the trainings of others */
        op->status = fl_task_seal(&r->task, &op->offer, &op->err);
        op->have = fl_task_of_data(&r->task) ? 0 : FL_AGENT_HAVE_NO_DATA;
        break;
    case FL_AGENT_STATE_HOLD:
        if (op->outcome) {
            fl_vault_discard(v, &op->offer.digest);
            op->status = fl_fail(&op->err, (enum fl_reason) - op->outcome, "%s",
                                 fl_reason_text(-op->outcome));
        }
        break;
    case FL_AGENT_STATE_DEBIT:
        op->status = fl_task_debit(&r->task, &op->err);
        break;
    case FL_AGENT_STATE_MARK:
        op->status =
            fl_vault_mark(v, &op->offer, op->outcome, op->bytes_down, op->bytes_up, &op->err);
        break;
    case FL_AGENT_STATE_EVALUATE:
        op->status = fl_task_prepare_final(&r->task, &op->err);
        break;
    default:
        op->status = fl_fail(&op->err, FL_R_INTERNAL, "no such operation");
    }
}

static void run_long(struct fl_runner_op *op)
{
    struct fl_task *t = &op->runner->task;

    if (op->op == FL_AGENT_STATE_TRAIN) {
        op->status = fl_task_train(t, &op->err);
    } else {
        op->status = fl_task_evaluate(t, &op->err);
    }
}

static bool is_long(const struct fl_runner_op *op)
{
    return op->op == FL_AGENT_STATE_TRAIN || (op->op == FL_AGENT_STATE_EVALUATE && op->phase == 1);
}

/* The next thing may be an Offer. */
static bool may_offer(const struct fl_runner_op *op)
{
    return op->op == FL_AGENT_STATE_DEBIT || op->op == FL_AGENT_STATE_LOOK ||
           op->op == FL_AGENT_STATE_PENDING;
}

static void op_run(struct fl_job *job)
{
    struct fl_runner_op *op = (struct fl_runner_op *)job;

    if (is_long(op)) {
        run_long(op);
    } else {
        run_files(op);
        if (op->status == 0 && may_offer(op)) {
            op->status =
                fl_ledger_mark(op->runner->vault->ledger, op->coordinator, &op->shown, &op->err);
        }
    }
}

/* ---- on the loop --------------------------------------------------------------------------------
 */

static void op_end(struct fl_runner *r)
{
    struct fl_runner_op *op = &r->op;
    struct fl_agent_event ev = {.type = FL_AGENT_EV_DONE,
                                .op = op->op,
                                .status = op->status,
                                .have = op->have,
                                .costs = op->costs,
                                .offer = op->offer};

    op->busy = false;
    if (may_offer(op)) {
        r->shown = op->shown;
    }
    if (op->status) {
        r->why = op->err;
    }
    fl_runner_feed(r, &ev);
}

static void op_done(struct fl_job *job);

static void op_submit(struct fl_runner *r)
{
    struct fl_runner_op *op = &r->op;

    op->job.run = op_run;
    op->job.done = op_done;
    int code = fl_lane_submit(is_long(op) ? r->longs : r->files, &op->job);
    if (code) {
        op->status = fl_fail(&op->err, FL_R_BUSY, "too many questions about the ledger at once");
        fl_spool_close(op->spool);
        op->spool = NULL;
        op_end(r);
    }
}

static int sink_write(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                      struct fl_err *e)
{
    struct fl_runner_op *op = arg;

    FL_CRASH_POINT("agent-fetch-chunk");
    return fl_spool_write(op->spool, offset, data, size, e);
}

/* The spool is open: receive what is missing. */
static void fetch_receive(struct fl_runner *r)
{
    struct fl_runner_op *op = &r->op;
    struct fl_talk t;

    op->phase = FETCH_RECEIVE;
    if (op->offset < op->size && r->core.link == FL_AGENT_LINK_UP && r->stream &&
        !atomic_load(&r->task.cancel)) {
        struct fl_sink sink = {.write = sink_write,
                               .arg = op,
                               .digest = op->digest,
                               .offset = op->offset,
                               .size = op->size};
        int code = fl_stream_set_sink(r->stream, &sink);
        if (code == 0) {
            op->sink_set = true;
            fl_talk_fetch(&t, &op->digest, op->offset);
            fl_runner_send(r, &t.frame);
            return;
        }
        op->status = fl_fail(&op->err, (enum fl_reason) - code, "cannot receive now");
    } else if (op->offset < op->size) {
        op->status = fl_fail(&op->err, FL_R_PEER_CLOSED, "no connection to fetch from");
    }
    op->phase = FETCH_SEAL;
    op_submit(r);
}

void fl_runner_sink_ended(struct fl_runner *r, int status, const struct fl_err *e)
{
    struct fl_runner_op *op = &r->op;

    op->sink_set = false;
    op->status = status;
    if (status && e) {
        op->err = *e;
    } else if (status) {
        fl_fail(&op->err, (enum fl_reason) - status, "the connection ended");
    }
    op->phase = FETCH_SEAL;
    op_submit(r);
}

static void op_done(struct fl_job *job)
{
    struct fl_runner_op *op = (struct fl_runner_op *)job;
    struct fl_runner *r = op->runner;

    if (job->cancelled && op->status == 0) {
        op->status = fl_fail(&op->err, FL_R_CANCELLED, "the process is stopping");
    }
    if (is_fetch(op) && op->phase == FETCH_OPEN && op->status == 0) {
        fetch_receive(r);
    } else if (op->op == FL_AGENT_STATE_EVALUATE && op->phase == 0 && op->status == 0) {
        op->phase = 1;
        op_submit(r);
    } else {
        op_end(r);
    }
}

static void look_begins(struct fl_runner *r)
{
    if (r->has_task) {
        fl_task_fini(&r->task);
    }
    fl_task_init(&r->task, r->vault, &r->core.task, r->core.coordinator);
    fl_task_secure(&r->task, r->sessions, r->tls);
    r->has_task = true;
    fl_runner_traffic(r, &r->task_in, &r->task_out);
}

void fl_runner_begin(struct fl_runner *r, enum fl_agent_state what)
{
    struct fl_runner_op *op = &r->op;

    memset(op, 0, sizeof *op);
    op->runner = r;
    op->op = what;
    op->busy = true;
    memcpy(op->coordinator, r->core.coordinator, sizeof op->coordinator);
    op->echo = r->echo;
    r->used_ms = fl_runner_now(r);
    switch (what) {
    case FL_AGENT_STATE_LOOK:
        look_begins(r);
        break;
    case FL_AGENT_STATE_FETCH_PLAN:
        op->digest = r->task.what.plan;
        op->size = r->task.what.plan_size;
        break;
    case FL_AGENT_STATE_FETCH_BASE:
        op->digest = r->task.what.base;
        op->size = r->task.what.base_size;
        break;
    case FL_AGENT_STATE_FETCH_INPUT:
        op->digest = r->task.what.input;
        op->size = r->task.what.input_size;
        break;
    case FL_AGENT_STATE_MARK:
        op->offer = r->core.offer;
        op->outcome = r->core.outcome;
        fl_runner_traffic(r, &op->bytes_down, &op->bytes_up);
        op->bytes_down -= r->task_in;
        op->bytes_up -= r->task_out;
        r->task_in += op->bytes_down;
        r->task_out += op->bytes_up;
        break;
    case FL_AGENT_STATE_HOLD: /* until fl_runner_decide or fl_runner_cancel */
        op->offer = r->core.offer;
        fl_log(FL_LOG_WARN, r->area, "%s round %llu: the update waits for outbox approve or reject",
               op->offer.job, (unsigned long long)op->offer.key.round);
        return;
    default:
        break;
    }
    op_submit(r);
}

static void hold_decided(struct fl_runner *r, int outcome)
{
    r->op.outcome = outcome;
    r->op.phase = HOLD_DECIDED;
    op_submit(r);
}

static bool holds(const struct fl_runner *r)
{
    return r->op.busy && r->op.op == FL_AGENT_STATE_HOLD && r->op.phase == HOLD_WAIT;
}

const struct fl_agent_offer *fl_runner_held(const struct fl_runner *r)
{
    return holds(r) ? &r->op.offer : NULL;
}

void fl_runner_decide(struct fl_runner *r, bool approve)
{
    if (!holds(r)) {
        return;
    }
    fl_log(FL_LOG_WARN, r->area, "%s round %llu: %s by the site's administrator", r->op.offer.job,
           (unsigned long long)r->op.offer.key.round, approve ? "approved" : "rejected");
    hold_decided(r, approve ? 0 : -(int)FL_R_REJECTED);
}

void fl_runner_cancel(struct fl_runner *r)
{
    if (r->has_task) {
        atomic_store(&r->task.cancel, true);
    }
    if (r->op.busy && r->op.sink_set && r->stream) {
        fl_stream_drop_sink(r->stream);
    }
    if (holds(r)) {
        hold_decided(r, -(int)FL_R_CANCELLED);
    }
}

/* ---- the report of a decline --------------------------------------------------------------------
 */

struct note {
    struct fl_job job;
    struct fl_runner *runner;
    struct fl_task task;
    int reason;
    char text[256], area[FL_CONFIG_NAME_MAX + 8];
};

static void note_run(struct fl_job *job)
{
    struct note *n = (struct note *)job;
    struct fl_err e;

    if (fl_task_report_decline(&n->task, n->reason, n->text, &e)) {
        fl_log_err(FL_LOG_WARN, n->area, &e, "report");
    }
}

static void note_done(struct fl_job *job)
{
    struct note *n = (struct note *)job;
    struct fl_runner *r = n->runner;

    fl_task_fini(&n->task);
    fl_free(n);
    r->site->changed(r->site->arg);
}

void fl_runner_note_decline(struct fl_runner *r, int reason)
{
    struct note *n = fl_try(1, sizeof *n);

    if (!n) {
        return; /* it is in the log */
    }
    n->job.run = note_run;
    n->job.done = note_done;
    n->runner = r;
    n->reason = reason;
    fl_task_init(&n->task, r->vault, &r->core.task, r->core.coordinator);
    memcpy(n->area, r->area, sizeof n->area);
    snprintf(n->text, sizeof n->text, "%s",
             r->why.code == -reason ? r->why.msg : fl_reason_text(reason));
    if (fl_lane_submit(r->files, &n->job)) {
        fl_task_fini(&n->task);
        fl_free(n);
    }
}

/* ---- data before they are asked for -------------------------------------------------------------
 *
 * Reading and unpacking takes about as long as connecting. A failure is not told here: judging the
 * first task meets it again. */

static void early_run(struct fl_job *job)
{
    struct fl_runner_early *early = (struct fl_runner_early *)job;
    struct fl_err unused;

    fl_vault_load(early->runner->vault, NULL, &unused);
}

static void early_done(struct fl_job *job)
{
    struct fl_runner_early *early = (struct fl_runner_early *)job;
    struct fl_runner *r = early->runner;

    early->busy = false;
    r->site->changed(r->site->arg);
}

void fl_runner_load_early(struct fl_runner *r)
{
    enum fl_data_format format = r->agent->data.format;

    if (r->site->config->agent_count != 1 || format == FL_DATA_CSV || format == FL_DATA_PROGRAM ||
        r->vault->pending_count > 0) { /* what waits to be offered goes first */
        return;
    }
    r->early = (struct fl_runner_early){
        .job = {.run = early_run, .done = early_done}, .runner = r, .busy = true};
    if (fl_lane_submit(r->files, &r->early.job)) {
        r->early.busy = false;
    }
}
