/*
 * Questions of the control socket that need the store: each is asked of it in a job of its lane,
 * what comes is collected there and handed over on the loop.
 */
#include "server/co.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUERY_ROWS_MAX = 1000, QUERY_MEMBERS_MAX = FL_ROUND_MEMBERS_MAX };

struct query_op {
    struct co_op op;
    uint64_t ticket;
    char job[FL_PLAN_NAME_MAX];
    uint8_t incarnation[FL_INCARNATION_SIZE];
    uint64_t round; /* round_show; 0 = the last */
    uint32_t limit;
    struct fl_store_round_row *rows;
    uint32_t row_count;
    struct member {
        uint64_t agent;
        bool closed_in;
    } * members;
    uint32_t member_count, member_room;
    /* model */
    bool newest;
    uint32_t slot;
    uint64_t agent, from;
    int fd;
    uint64_t size;
    struct fl_digest digest;
};

static int keep_row(void *arg, const struct fl_store_round_row *r)
{
    struct query_op *q = arg;

    if (q->round && r->round != q->round) {
        return 0;
    }
    if (q->row_count < QUERY_ROWS_MAX) {
        q->rows[q->row_count++] = *r;
    }
    return 0;
}

static int keep_member(void *arg, uint64_t agent, uint64_t base, bool closed_in)
{
    struct query_op *q = arg;

    (void)base;
    if (q->member_count == q->member_room) {
        uint32_t room = q->member_room ? 2 * q->member_room : 64;
        if (room > QUERY_MEMBERS_MAX * 2 ||
            !fl_try_grow((void **)&q->members, room, sizeof *q->members)) {
            return -FL_R_NOMEM;
        }
        q->member_room = room;
    }
    q->members[q->member_count++] = (struct member){agent, closed_in};
    return 0;
}

static void rows_run(struct co_op *op)
{
    struct query_op *q = (struct query_op *)op;

    q->rows = fl_try(QUERY_ROWS_MAX, sizeof *q->rows);
    op->status = q->rows ? fl_store_rounds(op->co->store, op->job_id,
                                           q->round ? UINT32_MAX : q->limit, keep_row, q, &op->err)
                         : fl_fail(&op->err, FL_R_NOMEM, "rows");
    if (op->status == 0 && q->limit == 0 && q->row_count) {
        op->status = fl_store_members(op->co->store, op->job_id, q->rows[0].round, 0, keep_member,
                                      q, &op->err);
    }
}

static void give_row(struct co *co, struct query_op *q, const struct fl_store_round_row *r)
{
    struct fl_control_round row = {.job = q->job,
                                   .round = r->round,
                                   .state = r->published_ms ? "published"

                                            : r->closed_ms ? "drain"
                                                           : "collect",
                                   .opened_ms = r->opened_ms,
                                   .closed_ms = r->closed_ms,
                                   .published_ms = r->published_ms,
                                   .invited = r->invited,
                                   .committed = r->committed,
                                   .plan = r->plan,
                                   .checkpoint = r->checkpoint};
    fl_control_round_row(co->control, q->ticket, &row);
}

static void rows_done(struct co_op *op)
{
    struct query_op *q = (struct query_op *)op;
    struct co *co = op->co;

    for (uint32_t i = 0; op->status == 0 && i < q->row_count; i++) {
        give_row(co, q, &q->rows[i]);
    }
    for (uint32_t i = 0; op->status == 0 && i < q->member_count; i++) {
        const struct fl_roster_agent *a = fl_roster_by_id(co->roster, q->members[i].agent);
        struct fl_control_member m = {.agent = a ? a->name : "?",
                                      .state = q->members[i].closed_in ? "committed" : "lost",
                                      .closed_in = q->members[i].closed_in};
        fl_control_member(co->control, q->ticket, &m);
    }
    if (op->status == 0 && q->row_count == 0 && q->limit == 0) {
        op->status = fl_fail(&op->err, FL_R_NO_ROUND, "no such round of job %s", q->job);
    }
    fl_free(q->rows);
    fl_free(q->members);
    fl_control_done(co->control, q->ticket, op->status, &op->err, NULL);
}

struct co_job *co_job_asked(struct co *co, uint64_t ticket, const char *name)
{
    struct co_job *j = co_job_by_name(co, name);
    struct fl_err e = {0};

    if (!j) {
        fl_control_done(co->control, ticket, fl_fail(&e, FL_R_NO_JOB, "no job %s", name), &e, NULL);
    }
    return j;
}

const struct fl_roster_agent *co_agent_asked(struct co *co, uint64_t ticket, const char *name)
{
    const struct fl_roster_agent *a = fl_roster_by_name(co->roster, name);
    struct fl_err e = {0};

    if (!a) {
        fl_control_done(co->control, ticket, fl_fail(&e, FL_R_NOT_ENROLLED, "no agent '%s'", name),
                        &e, NULL);
    }
    return a;
}

static struct query_op *query_new(struct co *co, uint64_t ticket, const char *job,
                                  void (*run)(struct co_op *), void (*done)(struct co_op *))
{
    struct co_job *j = co_job_asked(co, ticket, job);

    if (!j) {
        return NULL;
    }
    struct query_op *q = co_op_new(co, sizeof *q, run, done);
    q->op.job_id = j->id;
    q->ticket = ticket;
    snprintf(q->job, sizeof q->job, "%s", j->name);
    memcpy(q->incarnation, j->incarnation, sizeof q->incarnation);
    return q;
}

void co_round_list(void *arg, uint64_t ticket, const char *job, uint32_t limit)
{
    struct co *co = arg;
    struct query_op *q = query_new(co, ticket, job, rows_run, rows_done);

    if (q) {
        q->limit = limit ? (limit < QUERY_ROWS_MAX ? limit : QUERY_ROWS_MAX) : 20;
        co_submit(co, co->store_lane, &q->op);
    }
}

/* ---- which models a site is in ---- */

struct models_op {
    struct co_op op;
    uint64_t ticket, agent;
    uint32_t limit, count;
    struct fl_store_containing *rows;
};

static int keep_model(void *arg, const struct fl_store_containing *m)
{
    struct models_op *q = arg;

    q->rows[q->count++] = *m; /* the store gives `limit` rows at most */
    return 0;
}

static void models_run(struct co_op *op)
{
    struct models_op *q = (struct models_op *)op;

    q->rows = fl_try(q->limit, sizeof *q->rows);
    op->status =
        q->rows ? fl_store_models_with(op->co->store, q->agent, q->limit, keep_model, q, &op->err)
                : fl_fail(&op->err, FL_R_NOMEM, "rows");
}

static void models_done(struct co_op *op)
{
    struct models_op *q = (struct models_op *)op;

    for (uint32_t i = 0; op->status == 0 && i < q->count; i++) {
        const struct fl_store_containing *m = &q->rows[i];
        struct fl_control_containing row = {.job = m->job,
                                            .round = m->round,
                                            .published_ms = m->published_ms,
                                            .checkpoint = &m->checkpoint,
                                            .own = m->own};
        fl_control_containing_row(op->co->control, q->ticket, &row);
    }
    fl_free(q->rows);
    fl_control_done(op->co->control, q->ticket, op->status, &op->err, NULL);
}

void co_agent_models(void *arg, uint64_t ticket, const char *agent, uint32_t limit)
{
    struct co *co = arg;
    const struct fl_roster_agent *a = co_agent_asked(co, ticket, agent);

    if (!a) {
        return;
    }
    struct models_op *q = co_op_new(co, sizeof *q, models_run, models_done);
    q->ticket = ticket;
    q->agent = a->id;
    q->limit = limit;
    co_submit(co, co->store_lane, &q->op);
}

struct explain_walk {
    struct co *co;
    uint64_t ticket, expected;
};

static void explain_member(void *arg, const struct fl_member_view *m, const char *text)
{
    struct explain_walk *w = arg;
    const struct fl_roster_agent *a = fl_roster_by_id(w->co->roster, m->agent);
    struct fl_control_member member = {.agent = a ? a->name : "?",
                                       .state = fl_member_state_name(m->state),
                                       .reason = m->reason,
                                       .closed_in = false,
                                       .since_ms = co_wall_of(w->co, m->since_ms),
                                       .bytes =
                                           m->state >= FL_MEMBER_SEALED && m->size ? m->size : 0,
                                       .bytes_expected = m->size ? m->size : w->expected};

    (void)text;
    fl_control_member(w->co->control, w->ticket, &member);
}

void co_round_show(void *arg, uint64_t ticket, const char *job, uint64_t round)
{
    struct co *co = arg;
    struct co_job *j = co_job_by_name(co, job);
    struct fl_control_round now;

    if (j && co_round_view(co, j, &now) && (round == 0 || round == now.round)) {
        struct explain_walk w = {co, ticket, co_payload_size(j, now.exchange)};
        fl_control_round_row(co->control, ticket, &now);
        fl_round_explain(j->round, 0, explain_member, &w);
        fl_control_done(co->control, ticket, 0, NULL, NULL);
        return;
    }
    struct query_op *q = query_new(co, ticket, job, rows_run, rows_done);
    if (q) {
        q->round = round ? round : j->published;
        co_submit(co, co->store_lane, &q->op);
    }
}

static int find_checkpoint(void *arg, const struct fl_store_round_row *r)
{
    struct query_op *q = arg;

    if (r->round == q->round && r->published_ms) {
        q->digest = r->checkpoint;
        q->row_count = 1;
    }
    return 0;
}

static void model_run(struct co_op *op)
{
    struct query_op *q = (struct query_op *)op;
    struct fl_checkpoint *c;
    struct fl_err *e = &op->err;
    char path[FL_STORE_PATH_MAX];

    op->status =
        q->newest ? 0
                  : fl_store_rounds(op->co->store, op->job_id, UINT32_MAX, find_checkpoint, q, e);
    if (op->status) {
        return;
    }
    fl_store_checkpoint_path(op->co->store, q->incarnation, q->round, &q->digest, path);
    q->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (q->fd < 0) {
        op->status = fl_fail(e, FL_R_NO_OBJECT, "the model of round %llu is not kept any more",
                             (unsigned long long)q->round);
        return;
    }
    op->status = fl_checkpoint_open(path, q->round, &c, e);
    if (op->status) {
        return;
    }
    q->slot = q->agent ? fl_checkpoint_slot(c, q->agent) : q->slot;
    if (q->slot >= c->slots) {
        op->status = fl_fail(e, FL_R_NO_OBJECT, "slot %u: there are %u, from 0", q->slot, c->slots);
    } else {
        q->from = q->slot * c->model_size;
        q->size = c->model_size;
        q->digest = c->model[q->slot];
    }
    fl_checkpoint_close(c);
}

static void model_done(struct co_op *op)
{
    struct query_op *q = (struct query_op *)op;
    struct co *co = op->co;

    if (op->status) {
        if (q->fd >= 0) {
            close(q->fd);
        }
        fl_control_done(co->control, q->ticket, op->status, &op->err, NULL);
        return;
    }
    struct fl_control_model model = {
        .round = q->round, .slot = q->slot, .from = q->from, .size = q->size, .digest = &q->digest};
    fl_control_model(co->control, q->ticket, q->fd, &model);
}

void co_model(void *arg, uint64_t ticket, const struct fl_control_which *which)
{
    struct co *co = arg;
    struct co_job *j = co_job_by_name(co, which->job);
    const struct fl_roster_agent *a =
        which->agent ? fl_roster_by_name(co->roster, which->agent) : NULL;
    struct fl_err e = {0};

    if (which->agent && !a) {
        fl_control_done(co->control, ticket,
                        fl_fail(&e, FL_R_NOT_ENROLLED, "no agent '%s'", which->agent), &e, NULL);
        return;
    }
    if (j && which->newest && j->published == 0) {
        int r = fl_fail(&e, FL_R_NO_ROUND,
                        "no round of job %s is published; round 0 is the untrained model it "
                        "begins with",
                        j->name);
        fl_control_done(co->control, ticket, r, &e, NULL);
        return;
    }
    struct query_op *q = query_new(co, ticket, which->job, model_run, model_done);
    if (q) {
        q->fd = -1;
        q->slot = which->slot;
        q->agent = a ? a->id : 0;
        q->newest = which->newest || which->round == j->published;
        q->round = which->newest ? j->published : which->round;
        q->digest = j->checkpoint;
        co_submit(co, co->store_lane, &q->op);
    }
}

/* Into a file without a name: an export may be larger than what should stand in memory. */
static void transcript_run(struct co_op *op)
{
    struct query_op *q = (struct query_op *)op;
    char path[FL_STORE_PATH_MAX];

    if (snprintf(path, sizeof path, "%s/export.XXXXXX", fl_store_dir(op->co->store)) >=
        (int)sizeof path) {
        op->status = fl_fail(&op->err, FL_R_LIMIT, "the state folder's path is too long");
        return;
    }
    q->fd = mkostemp(path, O_CLOEXEC);
    if (q->fd < 0 || unlink(path) != 0) {
        op->status = fl_fail_sys(&op->err, FL_R_SYS, errno, "%s", path);
        return;
    }
    op->status = fl_store_transcript(op->co->store, op->job_id, q->fd, &q->size, &q->round,
                                     &q->digest, &op->err);
}

static void transcript_done(struct co_op *op)
{
    struct query_op *q = (struct query_op *)op;

    if (op->status) {
        if (q->fd >= 0) {
            close(q->fd);
        }
        fl_control_done(op->co->control, q->ticket, op->status, &op->err, NULL);
        return;
    }
    fl_control_transcript(op->co->control, q->ticket, q->fd, q->size, q->round, &q->digest);
}

void co_transcript(void *arg, uint64_t ticket, const char *job)
{
    struct co *co = arg;
    struct query_op *q = query_new(co, ticket, job, transcript_run, transcript_done);

    if (q) {
        q->fd = -1;
        co_submit(co, co->store_lane, &q->op);
    }
}
