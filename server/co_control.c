/*
 * What the control socket asks of the coordinator. Views are answered from memory; what needs the
 * store is asked of it in a job of its lane, collected there and handed over on the loop.
 */
#include "server/co.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *unit_name(enum fl_unit unit)
{
    return unit == FL_UNIT_EXAMPLE ? "example" : unit == FL_UNIT_CLIENT ? "client" : "none";
}

/* ---- views ---- */

static void op_status(void *arg, struct fl_control_status *ret)
{
    struct co *co = arg;
    struct fl_roster_counts counts;
    static char key_hex[2 * FL_IDENTITY_KEY + 1];
    const struct fl_identity *own = fl_tls_conf_identity(co->tls);

    fl_roster_counts(co->roster, &counts);
    for (int i = 0; i < FL_IDENTITY_KEY; i++) {
        snprintf(key_hex + 2 * i, 3, "%02x", own->key[i]);
    }
    *ret = (struct fl_control_status){.state = co->draining ? "draining" : "running",
                                      .started_ms = co->started_ms,
                                      .address = co->config.listen.address,
                                      .port = co->listener ? fl_listener_port(co->listener) : 0,
                                      .connections = HASH_COUNT(co->peers),
                                      .half_open = co->half_open,
                                      .connections_max = co->config.limits.connections,
                                      .agents_enrolled = counts.enrolled,
                                      .agents_connected = counts.online,
                                      .pool_bytes = fl_pool_bytes(co->pool),
                                      .state_bytes = co->state_bytes,
                                      .state_bytes_max = co->config.retention.state_bytes,
                                      .certificate_key = key_hex,
                                      .certificate_expires_s = own->expires_s,
                                      .crl_expires_s = fl_tls_conf_crl_expires(co->tls),
                                      .updates_committed = co->updates_committed,
                                      .updates_refused = co->updates_refused,
                                      .bytes_in = co->bytes_in,
                                      .bytes_out = co->bytes_out};
    memcpy(ret->coordinator, co->id, sizeof ret->coordinator);
    for (struct co_peer *p = co->peers; p; p = p->hh.next) {
        struct fl_stream_counts c = {0};
        if (p->stream) {
            fl_stream_counts(p->stream, &c);
        }
        ret->bytes_in += c.bytes_in;
        ret->bytes_out += c.bytes_out;
    }
}

static void op_jobs(void *arg, void (*each)(void *arg, const struct fl_control_job *j), void *to)
{
    struct co *co = arg;

    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        struct fl_control_job view = {.name = j->name,
                                      .incarnation = j->incarnation,
                                      .state = j->state,
                                      .why = j->why,
                                      .strategy = j->plan ? j->plan->strategy : "",
                                      .unit = j->plan ? unit_name(j->plan->privacy.unit) : "",
                                      .round = j->published,
                                      .rounds = j->plan ? j->plan->rounds : 0,
                                      .model_size = j->model_size,
                                      .slots = j->model ? j->model->slots : 0,
                                      .update_size = j->plan ? fl_plan_update_size(j->plan) : 0,
                                      .model = &j->model_digest,
                                      .counts = j->counts.value ? &j->counts : NULL,
                                      .note = j->note,
                                      .checkpoint = &j->checkpoint,
                                      .round_open = j->sums != NULL && j->round,
                                      .text = j->text,
                                      .text_size = j->text_size};
        each(to, &view);
    }
}

static uint64_t wall_of(const struct co *co, uint64_t mono)
{
    return mono == FL_ROUND_NEVER ? 0 : co_wall_ms() + mono - co_now(co);
}

struct agents_walk {
    struct co *co;
    void (*each)(void *arg, const struct fl_control_agent *a);
    void *arg;
};

static bool one_agent(void *arg, const struct fl_roster_agent *a)
{
    struct agents_walk *w = arg;
    struct co_peer *p = a->connection ? co_peer_by_connection(w->co, a->connection) : NULL;
    struct co_job *j = a->job ? co_job_by_id(w->co, a->job) : NULL;
    struct fl_stream_counts counts = {0};

    if (p) {
        fl_stream_counts(p->stream, &counts);
    }
    struct fl_control_agent view = {.id = a->id,
                                    .key = a->key,
                                    .name = a->name,
                                    .revoked = a->revoked,
                                    .connected = p != NULL,
                                    .serial = p ? p->identity.serial : a->serial,
                                    .address = p ? fl_stream_address(p->stream) : "",
                                    .connected_ms = p ? p->connected_ms : 0,
                                    .seen_ms = p            ? co_wall_ms()
                                               : a->seen_ms ? wall_of(w->co, a->seen_ms)
                                                            : 0,
                                    .certificate_expires_s = p ? p->identity.expires_s : 0,
                                    .job = j ? j->name : "",
                                    .task = p ? fl_roster_state_name(a->state) : "",
                                    .bytes_in = counts.bytes_in,
                                    .bytes_out = counts.bytes_out,
                                    .releases = a->releases};
    w->each(w->arg, &view);
    return true;
}

static void op_agents(void *arg, void (*each)(void *arg, const struct fl_control_agent *a),
                      void *to)
{
    struct agents_walk w = {arg, each, to};

    fl_roster_each(w.co->roster, one_agent, &w);
}

static bool round_view(struct co *co, struct co_job *j, struct fl_control_round *ret)
{
    struct fl_round_view v;

    if (!j || !j->round) {
        return false;
    }
    fl_round_view(j->round, &v);
    *ret = (struct fl_control_round){
        .job = j->name,
        .round = v.round,
        .state = fl_round_phase_name(v.phase),
        .exchange = v.exchange,
        .exchanges = v.exchange_count,
        .exchange_name = v.name,
        .gives_up = v.give_up,
        .attempt = v.attempt ? v.attempt - 1 : 0, /* retries */
        .opened_ms = v.open ? j->opened_ms : 0,
        .deadline_ms = wall_of(co, v.closes_ms),
        .wanted = v.members,
        .quorum = v.quorum,
        .candidates = v.candidates,
        .invited = v.invited + v.accepted + v.receiving + v.sealed + v.committed,
        .uploading = v.receiving,
        .committed = v.committed,
        .lost = v.failed + v.declined,
        .bytes_up = j->bytes_up,
        .bytes_up_expected = v.members * co_payload_size(j, v.exchange),
        .bytes_down = j->bytes_down};
    if (j->frozen_text) {
        ret->plan = *fl_object_digest(j->frozen_text);
    }
    return true;
}

static bool op_round_now(void *arg, const char *job, struct fl_control_round *ret)
{
    struct co *co = arg;

    return round_view(co, co_job_by_name(co, job), ret);
}

/* ---- changes ---- */

static void op_job_submit(void *arg, const struct fl_control_by *by, const char *file,
                          const char *text, size_t size)
{
    co_job_submit(arg, by, file, text, size);
}

static void op_job_state(void *arg, const struct fl_control_by *by, const char *job,
                         enum fl_control_to to)
{
    co_job_state(arg, by, job, to);
}

static void op_job_set(void *arg, const struct fl_control_by *by, const char *job, const char *key,
                       const char *value)
{
    co_job_set(arg, by, job, key, value);
}

struct agent_op {
    struct co_op op;
    uint64_t ticket, id;
    char who[64], what[512], name[FL_ROSTER_NAME_MAX];
    uint8_t key[32];
};

static void enrol_run(struct co_op *op)
{
    struct agent_op *a = (struct agent_op *)op;

    op->status = fl_store_agent_add(op->co->store, a->key, a->name, "", &a->id, &op->err);
    if (op->status == 0) {
        op->status = fl_store_audit(op->co->store, co_wall_ms(), a->who, a->what, &op->err);
    }
}

static void enrol_done(struct co_op *op)
{
    struct agent_op *a = (struct agent_op *)op;

    if (op->status == 0) {
        op->status = fl_roster_add(op->co->roster, a->id, a->key, a->name, "", false, &op->err);
    }
    if (op->status) {
        co_store_failed(op->co, op, "enrol an agent");
    }
    fl_control_done(op->co->control, a->ticket, op->status, &op->err, NULL);
    co_changed(op->co);
}

static void revoke_run(struct co_op *op)
{
    struct agent_op *a = (struct agent_op *)op;

    op->status = fl_store_agent_revoke(op->co->store, a->name, &op->err);
    if (op->status == 0) {
        op->status = fl_store_audit(op->co->store, co_wall_ms(), a->who, a->what, &op->err);
    }
}

static void revoke_done(struct co_op *op)
{
    struct agent_op *a = (struct agent_op *)op;
    struct co *co = op->co;
    const struct fl_roster_agent *agent = NULL;

    if (op->status == 0 && fl_roster_revoke(co->roster, a->name, &agent)) {
        struct co_peer *p = agent ? co_peer_by_connection(co, agent->connection) : NULL;
        if (p) {
            co_peer_bye(p, FL_R_AGENT_REVOKED, "the operator revoked this agent", 0);
        }
        for (struct co_job *j = co->jobs; agent && j; j = j->hh.next) {
            if (j->round) {
                co_event(co, j->id,
                         &(struct fl_round_event){.type = FL_ROUND_EV_REVOKED, .agent = agent->id},
                         false);
            }
        }
    }
    if (op->status) {
        co_store_failed(co, op, "revoke an agent");
    }
    fl_control_done(co->control, a->ticket, op->status, &op->err, NULL);
    co_changed(co);
}

static void agent_change(struct co *co, const struct fl_control_by *by, const uint8_t *key,
                         const char *name)
{
    struct agent_op *a =
        co_op_new(co, sizeof *a, key ? enrol_run : revoke_run, key ? enrol_done : revoke_done);

    a->ticket = by->ticket;
    snprintf(a->who, sizeof a->who, "%s", by->who);
    snprintf(a->what, sizeof a->what, "%s", by->what);
    snprintf(a->name, sizeof a->name, "%s", name);
    if (key) {
        memcpy(a->key, key, sizeof a->key);
    }
    co_submit(co, co->store_lane, &a->op);
}

static void op_agent_enrol(void *arg, const struct fl_control_by *by, const uint8_t key[32],
                           const char *name)
{
    agent_change(arg, by, key, name);
}

static void op_agent_revoke(void *arg, const struct fl_control_by *by, const char *name)
{
    agent_change(arg, by, NULL, name);
}

static void op_reload(void *arg, const struct fl_control_by *by)
{
    struct co *co = arg;
    struct fl_err e = {0};

    int r = fl_coordinator_reload((struct fl_coordinator *)co, &e);
    fl_control_done(co->control, by->ticket, r, &e, NULL);
}

/* ---- queries ---- */

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

static int keep_member(void *arg, uint64_t agent, bool closed_in)
{
    struct query_op *q = arg;

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

static struct query_op *query_new(struct co *co, uint64_t ticket, const char *job,
                                  void (*run)(struct co_op *), void (*done)(struct co_op *))
{
    struct co_job *j = co_job_by_name(co, job);
    struct fl_err e = {0};

    if (!j) {
        fl_control_done(co->control, ticket, fl_fail(&e, FL_R_NO_JOB, "no job %s", job), &e, NULL);
        return NULL;
    }
    struct query_op *q = co_op_new(co, sizeof *q, run, done);
    q->op.job_id = j->id;
    q->ticket = ticket;
    snprintf(q->job, sizeof q->job, "%s", job);
    memcpy(q->incarnation, j->incarnation, sizeof q->incarnation);
    return q;
}

static void op_round_list(void *arg, uint64_t ticket, const char *job, uint32_t limit)
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

static void op_agent_models(void *arg, uint64_t ticket, const char *agent, uint32_t limit)
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
                                       .since_ms = wall_of(w->co, m->since_ms),
                                       .bytes =
                                           m->state >= FL_MEMBER_SEALED && m->size ? m->size : 0,
                                       .bytes_expected = m->size ? m->size : w->expected};

    (void)text;
    fl_control_member(w->co->control, w->ticket, &member);
}

static void op_round_show(void *arg, uint64_t ticket, const char *job, uint64_t round)
{
    struct co *co = arg;
    struct co_job *j = co_job_by_name(co, job);
    struct fl_control_round now;

    if (j && round_view(co, j, &now) && (round == 0 || round == now.round)) {
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

static void op_model(void *arg, uint64_t ticket, const struct fl_control_which *which)
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

static void op_transcript(void *arg, uint64_t ticket, const char *job)
{
    struct co *co = arg;
    struct query_op *q = query_new(co, ticket, job, transcript_run, transcript_done);

    if (q) {
        q->fd = -1;
        co_submit(co, co->store_lane, &q->op);
    }
}

const struct fl_control_ops co_control_ops = {.status = op_status,
                                              .jobs = op_jobs,
                                              .agents = op_agents,
                                              .round_now = op_round_now,
                                              .job_submit = op_job_submit,
                                              .job_state = op_job_state,
                                              .job_set = op_job_set,
                                              .agent_explain = co_agent_explain,
                                              .bubbles = co_bubbles,
                                              .scores = co_scores,
                                              .agent_enrol = op_agent_enrol,
                                              .agent_revoke = op_agent_revoke,
                                              .reload = op_reload,
                                              .round_list = op_round_list,
                                              .agent_models = op_agent_models,
                                              .round_show = op_round_show,
                                              .model = op_model,
                                              .transcript = op_transcript,
                                              .replay = co_replay};
