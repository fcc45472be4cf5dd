/*
 * What the control socket asks of the coordinator: views, which are answered from memory, and
 * changes. Questions that need the store are in co_query.c, co_bubbles.c, co_scores.c, co_replay.c.
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
        struct fl_control_job view = {.id = j->id,
                                      .name = j->name,
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
                                      .round_open = co_round_is_open(j),
                                      .text = j->text,
                                      .text_size = j->text_size};
        each(to, &view);
    }
}

uint64_t co_wall_of(const struct co *co, uint64_t mono)
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
                                    .serial = a->serial,
                                    .address = p ? fl_stream_address(p->stream) : "",
                                    .connected_ms = p ? p->connected_ms : 0,
                                    .seen_ms = p            ? co_wall_ms()
                                               : a->seen_ms ? co_wall_of(w->co, a->seen_ms)
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

bool co_round_view(struct co *co, struct co_job *j, struct fl_control_round *ret)
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
        .deadline_ms = co_wall_of(co, v.closes_ms),
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

    return co_round_view(co, co_job_by_name(co, job), ret);
}

/* ---- changes ---- */

static void op_job_submit(void *arg, const struct fl_control_by *by, const char *file,
                          const char *text, size_t size)
{
    co_job_submit(arg, by, file, text, size);
}

static void op_job_check(void *arg, const struct fl_control_by *by, const char *file,
                         const char *text, size_t size)
{
    co_job_check(arg, by, file, text, size);
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
        fl_control_done(op->co->control, a->ticket, op->status, &op->err, NULL);
        return;
    }
    fl_control_enrolled(op->co->control, a->ticket, true);
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
    const struct fl_roster_agent *agent;

    if (op->status == 0 && fl_roster_revoke(co->roster, a->name, &agent)) {
        struct co_peer *p = co_peer_by_connection(co, agent->connection);
        if (p) {
            co_peer_bye(p, FL_R_AGENT_REVOKED, "the operator revoked this agent", 0);
        }
        co_agent_event(co, agent->id, FL_ROUND_EV_REVOKED);
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

/* Who is enrolled already, under this name or key: 1 when it is the very same agent, negative when
 * it is another, 0 when nobody is. */
static int enrolled_already(const struct co *co, const uint8_t key[32], const char *name,
                            struct fl_err *e)
{
    const struct fl_roster_agent *of_name = fl_roster_by_name(co->roster, name),
                                 *of_key = fl_roster_by_key(co->roster, key);

    if (of_key && of_key->revoked) {
        return fl_fail(e, FL_R_AGENT_REVOKED,
                       "this key was revoked (as %s), and that is for good: a site that may come "
                       "back needs a new certificate, under a new name",
                       of_key->name);
    }
    if (of_name && of_name != of_key) {
        return fl_fail(e, FL_R_CTL_EXISTS,
                       "%s is enrolled with another key: a new certificate needs a new name", name);
    }
    if (of_key && of_key != of_name) {
        return fl_fail(e, FL_R_CTL_EXISTS, "this key is enrolled already, as %s", of_key->name);
    }
    return of_key != NULL;
}

static void op_agent_enrol(void *arg, const struct fl_control_by *by, const uint8_t key[32],
                           const char *name)
{
    struct co *co = arg;
    struct fl_err e = {0};
    int r = enrolled_already(co, key, name, &e);

    if (r == 0) {
        agent_change(co, by, key, name);
    } else if (r < 0) {
        fl_control_done(co->control, by->ticket, r, &e, NULL);
    } else {
        fl_control_enrolled(co->control, by->ticket, false);
    }
}

static void op_agent_revoke(void *arg, const struct fl_control_by *by, const char *name)
{
    agent_change(arg, by, NULL, name);
}

static void op_reload(void *arg, const struct fl_control_by *by)
{
    struct co *co = arg;
    char waiting[FL_COORDINATOR_WAITING_MAX];
    struct fl_err e = {0};

    int r = fl_coordinator_reload((struct fl_coordinator *)co, waiting, &e);
    if (r == 0) {
        fl_control_reloaded(co->control, by->ticket, waiting);
    }
    fl_control_done(co->control, by->ticket, r, &e, NULL);
}

const struct fl_control_ops co_control_ops = {.status = op_status,
                                              .jobs = op_jobs,
                                              .agents = op_agents,
                                              .round_now = op_round_now,
                                              .job_submit = op_job_submit,
                                              .job_check = op_job_check,
                                              .job_state = op_job_state,
                                              .job_set = op_job_set,
                                              .agent_explain = co_agent_explain,
                                              .bubbles = co_bubbles,
                                              .scores = co_scores,
                                              .agent_enrol = op_agent_enrol,
                                              .agent_revoke = op_agent_revoke,
                                              .reload = op_reload,
                                              .round_list = co_round_list,
                                              .agent_models = co_agent_models,
                                              .round_show = co_round_show,
                                              .model = co_model,
                                              .transcript = co_transcript,
                                              .replay = co_replay};
