/*
 * Connections of agents: messages in, answers out. What is legal is decided by server/core/peer;
 * who is in a round by server/core/round. Here protobuf structs become calls and back.
 */
#include "server/co.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

/* ---- finding ---- */

struct co_peer *co_peer_by_connection(struct co *co, uint64_t connection)
{
    struct co_peer *p;

    HASH_FIND(hh, co->peers, &connection, sizeof connection, p);
    return p;
}

struct co_peer *co_peer_by_agent(struct co *co, uint64_t agent)
{
    const struct fl_roster_agent *a = fl_roster_by_id(co->roster, agent);
    struct co_peer *p = a && a->connection ? co_peer_by_connection(co, a->connection) : NULL;
    return p && !p->closing && p->welcomed ? p : NULL;
}

static bool allows(const struct co_peer *p, const char *job)
{
    for (uint32_t i = 0; i < p->ask_count; i++) {
        if (strcmp(p->asks[i], job) == 0) {
            return true;
        }
    }
    return p->ask_count == 0; /* an Ask without names means any job */
}

bool co_peer_asks(const struct co_peer *p, const char *job)
{
    return p->core.state == FL_PEER_ASKING && !p->closing && allows(p, job);
}

/* ---- sending ---- */

void co_peer_send(struct co_peer *p, const Cohort__Frame *frame)
{
    if (p->closing) {
        return;
    }
    int r = fl_stream_send(p->stream, frame);
    if (r == -FL_R_LIMIT) {
        fl_log(FL_LOG_WARN, p->identity.name, "does not read what it is sent: closing");
        co_peer_bye(p, -r, "you do not read", CO_REST_MS);
    } else if (r && r != -FL_R_PEER_CLOSED) {
        fl_log(FL_LOG_ERROR, p->identity.name, "a message of ours cannot be sent [%d %s]: closing",
               -r, fl_reason_name(r));
        co_peer_bye(p, FL_R_INTERNAL, "this coordinator made a message that breaks the rules",
                    CO_REST_MS);
    }
}

void co_peer_bye(struct co_peer *p, int reason, const char *text, uint32_t retry_ms)
{
    if (!p->closing && p->stream) { /* there is none before on_open */
        p->closing = true;
        fl_peer_sent_bye(&p->core);
        fl_stream_close(p->stream, reason, text, retry_ms);
    }
}

static void text_of(const char *text, char buffer[FL_TEXT_MAX])
{
    snprintf(buffer, FL_TEXT_MAX, "%s", text ? text : "");
}

/* Of what was sent or asked last: these may be fetched. */
void co_peer_grant(struct co_peer *p, struct fl_object *object)
{
    for (int i = 0; i < CO_OBJECTS_MAX; i++) {
        if (p->object[i] &&
            fl_digest_equal(fl_object_digest(p->object[i]), fl_object_digest(object))) {
            return;
        }
    }
    fl_object_unref(p->object[p->object_next]);
    p->object[p->object_next] = fl_object_ref(object);
    p->object_next = (p->object_next + 1) % CO_OBJECTS_MAX;
}

static void set_bytes(ProtobufCBinaryData *to, const struct fl_digest *d)
{
    to->data = (uint8_t *)(uintptr_t)d->bytes;
    to->len = FL_DIGEST_SIZE;
}

/* What this agent begins an exchange with; NULL when there is nothing. */
static int input_of(const struct co_peer *p, const struct co_sums *sums, uint32_t exchange,
                    struct fl_object **ret, struct fl_err *e)
{
    uint8_t *bytes = NULL;
    size_t size = 0;

    *ret = NULL;
    if (!sums->terms[exchange].input) {
        return 0;
    }
    if (sums->terms[exchange].models) {
        *ret = fl_object_ref(sums->models);
        return 0;
    }
    int r = co_sums_input(sums, exchange, p->agent, &bytes, &size, e);
    if (r == 0 && (size == 0 || size > FL_EXCHANGE_BYTES_MAX)) {
        r = fl_fail(e, FL_R_LIMIT, "%zu bytes to begin %s with", size, sums->terms[exchange].name);
    }
    if (r == 0) {
        *ret = fl_object_from_memory(bytes, size, e);
        r = *ret ? 0 : -FL_R_NOMEM;
    }
    fl_free(bytes);
    return r;
}

/* The objects of a task: the model of its slot, and what it begins with. Both to be unref'ed. */
static int objects_of(const struct co_peer *p, const struct co_job *j, uint32_t exchange,
                      struct fl_object **ret_model, struct fl_object **ret_input, struct fl_err *e)
{
    uint32_t slot = 0;
    int r = co_sums_place(j->sums, p->agent, &slot, e);

    r = r ? r : input_of(p, j->sums, exchange, ret_input, e);
    if (r == 0 && !(*ret_model = fl_checkpoint_model(j->model, slot))) {
        fl_object_unref(*ret_input);
        r = fl_fail(e, FL_R_NOMEM, "a task");
    }
    return r;
}

void co_peer_send_task(struct co_peer *p, struct co_job *j, const struct fl_round_item *item)
{
    struct fl_key key = {.round = item->round, .exchange = item->exchange};
    const struct fl_exchange_terms *terms = &j->sums->terms[item->exchange];
    struct fl_object *model, *input;
    struct fl_err e = {0};
    uint64_t now = co_now(p->co);
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Task task = COHORT__TASK__INIT;
    Cohort__Key k = COHORT__KEY__INIT;
    Cohort__Object begin = COHORT__OBJECT__INIT;

    int r = objects_of(p, j, item->exchange, &model, &input, &e);
    if (r) {
        co_no_task(p, j, item, r, &e);
        return;
    }

    memcpy(key.incarnation, j->incarnation, sizeof key.incarnation);
    fl_key_to_msg(&key, &k);
    task.key = &k;
    task.job = j->name;
    task.exchange = (char *)(uintptr_t)terms->name;
    set_bytes(&task.plan_digest, fl_object_digest(j->frozen_text));
    task.plan_size = fl_object_size(j->frozen_text);
    set_bytes(&task.base_digest, fl_object_digest(model));
    task.base_size = terms->model ? fl_object_size(model) : 0;
    task.update_size = terms->size;
    if (input) {
        set_bytes(&begin.digest, fl_object_digest(input));
        begin.size = fl_object_size(input);
        task.input = &begin;
        co_peer_grant(p, input);
        j->bytes_down += begin.size;
    }
    j->bytes_down += task.base_size;
    uint64_t closes = fl_round_closes(j->round);
    task.deadline_left_ms = closes != FL_ROUND_NEVER && closes > now ? closes - now : 0;
    if (task.deadline_left_ms) { /* a task may outlive its round by so many */
        const struct fl_plan *plan = j->sums->plan;
        task.deadline_left_ms += (uint64_t)plan->setting.buffer.staleness * plan->round.deadline_ms;
    }
    frame.body_case = COHORT__FRAME__BODY_TASK;
    frame.task = &task;
    co_peer_grant(p, j->frozen_text);
    co_peer_grant(p, model);
    fl_peer_sent_task(&p->core, &key, fl_object_digest(j->frozen_text), fl_object_digest(model));
    if (input) {
        fl_peer_sent_object(&p->core, fl_object_digest(input));
    }
    p->task_job = j->id;
    fl_roster_set(p->co->roster, p->agent, FL_ROSTER_WORKING, j->id, now);
    co_peer_send(p, &frame);
    fl_object_unref(model);
    fl_object_unref(input);
}

static void task_ended(struct co_peer *p, const struct fl_key *key)
{
    if (fl_peer_sent_end(&p->core, key)) {
        p->task_job = 0;
        fl_roster_set(p->co->roster, p->agent, FL_ROSTER_IDLE, 0, co_now(p->co));
    }
}

void co_peer_send_ack(struct co_peer *p, const struct fl_key *key, const struct fl_digest *digest)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Ack ack = COHORT__ACK__INIT;
    Cohort__Key k = COHORT__KEY__INIT;

    fl_key_to_msg(key, &k);
    ack.key = &k;
    set_bytes(&ack.digest, digest);
    frame.body_case = COHORT__FRAME__BODY_ACK;
    frame.ack = &ack;
    co_peer_send(p, &frame);
    task_ended(p, key);
}

void co_peer_send_over(struct co_peer *p, const struct fl_key *key, int reason)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Over over = COHORT__OVER__INIT;
    Cohort__Key k = COHORT__KEY__INIT;

    fl_key_to_msg(key, &k);
    over.key = &k;
    over.reason = (uint32_t)(reason < 0 ? -reason : reason);
    over.text = (char *)(uintptr_t)fl_reason_text(reason);
    frame.body_case = COHORT__FRAME__BODY_OVER;
    frame.over = &over;
    co_peer_send(p, &frame);
    task_ended(p, key);
}

void co_peer_send_refuse(struct co_peer *p, const struct fl_key *key, int reason, const char *text)
{
    char buffer[FL_TEXT_MAX];
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Refuse refuse = COHORT__REFUSE__INIT;
    Cohort__Key k = COHORT__KEY__INIT;

    text_of(text ? text : fl_reason_text(reason), buffer);
    refuse.reason = (uint32_t)(reason < 0 ? -reason : reason);
    refuse.text = buffer;
    if (key) {
        fl_key_to_msg(key, &k);
        refuse.key = &k;
        p->co->updates_refused++;
    }
    frame.body_case = COHORT__FRAME__BODY_REFUSE;
    frame.refuse = &refuse;
    fl_log(FL_LOG_INFO, p->identity.name, "refused: %s [%u %s]", buffer, refuse.reason,
           fl_reason_name(reason));
    co_peer_send(p, &frame);
}

static void send_rest(struct co_peer *p, int reason, const char *text, uint32_t retry_ms,
                      Cohort__Final **finals, size_t count)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;

    rest.reason = (uint32_t)reason;
    rest.text = (char *)(uintptr_t)text;
    rest.retry_ms = retry_ms;
    rest.finals = finals;
    rest.n_finals = count;
    frame.body_case = COHORT__FRAME__BODY_REST;
    frame.rest = &rest;
    fl_peer_sent_rest(&p->core);
    fl_roster_set(p->co->roster, p->agent, FL_ROSTER_IDLE, 0, co_now(p->co));
    co_peer_send(p, &frame);
}

/* One job at a time, so that both its objects surely stay fetchable. */
bool co_peer_finals(struct co_peer *p)
{
    struct co_job *found = NULL;

    for (struct co_job *j = p->co->jobs; j; j = j->hh.next) {
        if (j->state != FL_JOB_DONE || !j->last_plan || j->unreadable) {
            continue;
        }
        j->done = j->done ? j->done : ++p->co->jobs_done;
        if (j->done > p->finals && allows(p, j->name) && (!found || j->done < found->done)) {
            found = j;
        }
    }
    if (!found) {
        return false;
    }
    p->finals = found->done;
    struct fl_err e = {0};
    struct fl_object *model = NULL;
    if (co_job_model(p->co, found, &e) == 0) {
        model = fl_checkpoint_model(found->model, fl_checkpoint_slot(found->model, p->agent));
    }
    if (!model) {
        fl_log_err(FL_LOG_ERROR, found->name, &e, "the final model");
        found->unreadable = true; /* said once */
        return co_peer_finals(p);
    }
    Cohort__Final final = COHORT__FINAL__INIT, *list[1] = {&final};
    final.incarnation.data = found->incarnation;
    final.incarnation.len = FL_INCARNATION_SIZE;
    final.job = found->name;
    final.round = found->published;
    set_bytes(&final.plan_digest, fl_object_digest(found->last_plan));
    final.plan_size = fl_object_size(found->last_plan);
    set_bytes(&final.base_digest, fl_object_digest(model));
    final.base_size = fl_object_size(model);
    co_peer_grant(p, found->last_plan);
    co_peer_grant(p, model);
    fl_peer_earn(&p->core, FL_PEER_FINAL_MESSAGES);
    send_rest(p, FL_R_JOB_STATE, "this job is done", 1, list, 1);
    fl_object_unref(model);
    return true;
}

void co_peer_available(struct co_peer *p)
{
    struct co *co = p->co;

    fl_roster_set(co->roster, p->agent, FL_ROSTER_ASKING, 0, co_now(co));
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (j->round && co_peer_asks(p, j->name) && co_distrust_allows(j, p->agent)) {
            co_event(co, j->id,
                     &(struct fl_round_event){.type = FL_ROUND_EV_AVAILABLE, .agent = p->agent},
                     false);
        }
    }
}

/* ---- messages ---- */

static void on_hello(struct co_peer *p, const Cohort__Hello *m)
{
    struct co *co = p->co;
    struct fl_err e = {0};
    const struct fl_roster_agent *a = fl_roster_by_id(co->roster, p->agent);
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Welcome welcome = COHORT__WELCOME__INIT;
    struct co_mark mark;
    static char receipts_word[] = "receipts", *receipts = receipts_word;

    int r = fl_peer_hello(&p->core, m->min_version, m->max_version, FL_WIRE_VERSION_MIN,
                          FL_WIRE_VERSION_MAX, &e);
    if (r) {
        fl_log_err(FL_LOG_WARN, p->identity.name, &e, "hello");
        co_peer_bye(p, -r, e.msg, 60000);
        return;
    }
    snprintf(p->software, sizeof p->software, "%s", m->software);
    welcome.version = p->core.version;
    welcome.agent = (char *)(uintptr_t)a->name;
    welcome.heartbeat_ms = (uint32_t)co->config.limits.heartbeat_ms;
    welcome.max_frame = FL_FRAME_MAX;
    welcome.coordinator = (ProtobufCBinaryData){.len = sizeof co->id, .data = co->id};
    welcome.ledger = co_mark_echo(a, &mark);
    welcome.capabilities = &receipts;
    welcome.n_capabilities = 1;
    frame.body_case = COHORT__FRAME__BODY_WELCOME;
    frame.welcome = &welcome;
    p->welcomed = true;
    fl_stream_set_max_frame(p->stream, FL_FRAME_MAX, FL_FRAME_MAX);
    co_peer_send(p, &frame);
    fl_log(FL_LOG_INFO, p->identity.name, "connected: %s", p->software);
}

static void on_ask(struct co_peer *p, const Cohort__Ask *m)
{
    struct co *co = p->co;

    p->ask_count = 0;
    for (size_t i = 0; i < m->n_jobs && p->ask_count < FL_PEER_JOBS_MAX; i++) {
        snprintf(p->asks[p->ask_count++], FL_PLAN_NAME_MAX, "%s", m->jobs[i]);
    }
    if (co->draining) {
        send_rest(p, FL_R_SHUTDOWN, "the coordinator is stopping", CO_REST_MS, NULL, 0);
        return;
    }
    if (co_peer_finals(p)) {
        return;
    }
    /* Held until a round wants this agent: an idle connection costs next to nothing. */
    co_peer_available(p);
}

static void on_task_answer(struct co_peer *p, const Cohort__Key *k, bool accept, uint32_t reason,
                           const char *text)
{
    struct co *co = p->co;
    struct fl_key key;

    fl_key_from_msg(k, &key);
    struct co_job *j = co_job_by_incarnation(co, key.incarnation);
    if (!j) {
        return;
    }
    if (!accept) {
        fl_log(FL_LOG_INFO, p->identity.name, "declines round %llu of %s: %s [%u %s]",
               (unsigned long long)key.round, j->name, text, reason, fl_reason_name((int)reason));
        p->task_job = 0;
        fl_roster_set(co->roster, p->agent, FL_ROSTER_IDLE, 0, co_now(co));
    }
    co_event(co, j->id,
             &(struct fl_round_event){.type = accept ? FL_ROUND_EV_ACCEPTED : FL_ROUND_EV_DECLINED,
                                      .round = key.round,
                                      .exchange = key.exchange,
                                      .agent = p->agent,
                                      .status = accept ? 0 : -(int)reason},
             false);
}

static void on_fetch(struct co_peer *p, const Cohort__Fetch *m)
{
    struct fl_digest digest;
    struct fl_object *o = NULL;

    memcpy(digest.bytes, m->digest.data, FL_DIGEST_SIZE);
    for (int i = 0; i < CO_OBJECTS_MAX && !o; i++) {
        if (p->object[i] && fl_digest_equal(fl_object_digest(p->object[i]), &digest)) {
            o = p->object[i];
        }
    }
    if (!o) {
        co_peer_send_refuse(p, NULL, FL_R_NO_OBJECT, NULL);
        return;
    }
    if (m->offset >= fl_object_size(o)) {
        co_peer_send_refuse(p, NULL, FL_R_OFFSET, "nothing of the object lies there");
        return;
    }
    struct fl_source source = {.read = fl_object_read,
                               .arg = o,
                               .digest = digest,
                               .offset = m->offset,
                               .size = fl_object_size(o)};
    if (p->sending || fl_stream_send_source(p->stream, &source) != 0) {
        co_peer_send_refuse(p, NULL, FL_R_BUSY, "another object is being sent");
        return;
    }
    p->sending = fl_object_ref(o);
    if (m->offset) {
        fl_log(FL_LOG_INFO, p->identity.name, "a fetch goes on at byte %llu of %llu",
               (unsigned long long)m->offset, (unsigned long long)source.size);
    }
}

static enum fl_peer_msg classify(const Cohort__Frame *f, const Cohort__Key **ret_key)
{
    *ret_key = NULL;
    switch (f->body_case) {
    case COHORT__FRAME__BODY_HELLO:
        return FL_PEER_MSG_HELLO;
    case COHORT__FRAME__BODY_ASK:
        return FL_PEER_MSG_ASK;
    case COHORT__FRAME__BODY_ACCEPT:
        *ret_key = f->accept->key;
        return FL_PEER_MSG_ACCEPT;
    case COHORT__FRAME__BODY_DECLINE:
        *ret_key = f->decline->key;
        return FL_PEER_MSG_DECLINE;
    case COHORT__FRAME__BODY_FETCH:
        return FL_PEER_MSG_FETCH;
    case COHORT__FRAME__BODY_OFFER:
        *ret_key = f->offer->key;
        return FL_PEER_MSG_OFFER;
    case COHORT__FRAME__BODY_REFUSE:
        return FL_PEER_MSG_REFUSE;
    case COHORT__FRAME__BODY_CLAIM:
        return FL_PEER_MSG_CLAIM;
    case COHORT__FRAME__BODY_BYE:
        return FL_PEER_MSG_BYE;
    default:
        return FL_PEER_MSG_OTHER;
    }
}

static void on_message(void *owner, struct fl_stream *s, const Cohort__Frame *f)
{
    struct co_peer *p = owner;
    const Cohort__Key *k;
    struct fl_key key;
    struct fl_err e = {0};

    (void)s;
    if (p->closing || !p->agent) {
        return;
    }
    enum fl_peer_msg msg = classify(f, &k);
    if (k) {
        fl_key_from_msg(k, &key);
    }
    int r = fl_peer_step(&p->core, msg, k ? &key : NULL, co_now(p->co), &e);
    if (r < 0) {
        fl_log_err(FL_LOG_WARN, p->identity.name, &e, "offence");
        co_peer_bye(p, -r, e.msg, CO_REST_MS);
        return;
    }
    if (r == FL_PEER_STALE) {
        return;
    }
    switch (msg) {
    case FL_PEER_MSG_HELLO:
        on_hello(p, f->hello);
        break;
    case FL_PEER_MSG_ASK:
        on_ask(p, f->ask);
        break;
    case FL_PEER_MSG_ACCEPT:
        on_task_answer(p, k, true, 0, "");
        break;
    case FL_PEER_MSG_DECLINE:
        on_task_answer(p, k, false, f->decline->reason, f->decline->text);
        break;
    case FL_PEER_MSG_FETCH:
        on_fetch(p, f->fetch);
        break;
    case FL_PEER_MSG_OFFER:
        if (co_mark_fits(p, f->offer)) {
            co_peer_offered(p, f->offer);
        }
        break;
    case FL_PEER_MSG_REFUSE:
        fl_log(FL_LOG_WARN, p->identity.name, "refuses: %s [%u]", f->refuse->text,
               f->refuse->reason);
        break;
    case FL_PEER_MSG_CLAIM:
        co_peer_claims(p, f->claim);
        break;
    case FL_PEER_MSG_BYE:
    case FL_PEER_MSG_OTHER:
        break;
    }
}

/* ---- bytes ---- */

static void on_sink_end(void *owner, struct fl_stream *s, void *arg, int status,
                        const struct fl_err *e)
{
    (void)s;
    (void)arg;
    co_upload_ended(owner, status, e);
}

static void on_source_end(void *owner, struct fl_stream *s, void *arg, int status,
                          const struct fl_err *e)
{
    struct co_peer *p = owner;

    (void)s;
    (void)arg;
    if (status && status != -FL_R_CANCELLED) {
        fl_log_err(FL_LOG_ERROR, p->identity.name, e, "send an object");
        co_peer_bye(p, FL_R_INTERNAL, "an object cannot be read", CO_REST_MS);
    }
    fl_object_unref(p->sending);
    p->sending = NULL;
}

/* ---- coming and going ---- */

void co_agent_event(struct co *co, uint64_t agent, enum fl_round_ev type)
{
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (j->round) {
            co_event(co, j->id, &(struct fl_round_event){.type = type, .agent = agent}, false);
        }
    }
}

static bool revoked_by_list(void *arg, const struct fl_roster_agent *a)
{
    struct co *co = arg;

    if (!fl_tls_conf_revoked(co->tls, a->serial)) {
        return true;
    }
    struct co_peer *p = a->connection ? co_peer_by_connection(co, a->connection) : NULL;
    if (p && !p->closing) {
        fl_log(FL_LOG_WARN, a->name, "certificate %s is revoked: session cut", a->serial);
        co_peer_bye(p, FL_R_TLS_REVOKED, "this certificate is revoked", 0);
    }
    co_agent_event(co, a->id, FL_ROUND_EV_REVOKED);
    return true;
}

void co_peers_revoke(struct co *co)
{
    fl_roster_each(co->roster, revoked_by_list, co);
}

static void on_open(void *owner, struct fl_stream *s, const struct fl_identity *identity)
{
    struct co_peer *p = owner, *old;
    struct co *co = p->co;
    struct fl_err e = {0};
    const struct fl_roster_agent *a;
    uint64_t replaced;

    p->stream = s;
    co->half_open--;
    p->identity = *identity;
    p->connected_ms = co_wall_ms();
    int r = fl_roster_connect(co->roster, identity->key, identity->serial, p->connection,
                              co_now(co), &a, &replaced, &e);
    if (r) {
        fl_log_err(FL_LOG_WARN, identity->name, &e, "not admitted");
        co_peer_bye(p, -r, e.msg, 60000);
        return;
    }
    p->agent = a->id;
    fl_peer_init(&p->core, a->id, co_now(co));
    snprintf(p->identity.name, sizeof p->identity.name, "%s", a->name);
    old = replaced ? co_peer_by_connection(co, replaced) : NULL;
    if (old) {
        /* To the rounds the agent left and is now back, idle: whatever they knew of its asking
         * ended with that connection. */
        co_agent_event(co, a->id, FL_ROUND_EV_LEFT);
        co_upload_drop(old);
        old->agent = 0;
        co_peer_bye(old, FL_R_PEER_REPLACED, "this agent connected again", 0);
    }
    if (co->draining) { /* it was still shaking hands when the others were told */
        co_peer_bye(p, FL_R_SHUTDOWN, "the coordinator is stopping", CO_REST_MS);
    }
    co_changed(co);
}

static void on_close(void *owner, struct fl_stream *s, const struct fl_err *why)
{
    struct co_peer *p = owner;
    struct co *co = p->co;
    struct fl_stream_counts counts;

    fl_stream_counts(s, &counts);
    co->bytes_in += counts.bytes_in;
    co->bytes_out += counts.bytes_out;
    if (!p->connected_ms) {
        co->half_open--;
        fl_log_err(FL_LOG_INFO, fl_stream_address(s), why, "a connection that never opened");
    } else if (why->code) {
        fl_log_err(FL_LOG_INFO, p->identity.name, why, "connection ended");
    }
    HASH_DELETE(hh, co->peers, p);
    if (p->agent && fl_roster_disconnect(co->roster, p->agent, p->connection, co_now(co))) {
        co_agent_event(co, p->agent, FL_ROUND_EV_LEFT);
    }
    fl_object_unref(p->sending);
    for (int i = 0; i < CO_OBJECTS_MAX; i++) {
        fl_object_unref(p->object[i]);
    }
    fl_free(p);
    co_changed(co);
    co_peer_closed(co);
}

static const struct fl_stream_events events = {.on_open = on_open,
                                               .on_message = on_message,
                                               .on_sink_end = on_sink_end,
                                               .on_source_end = on_source_end,
                                               .on_close = on_close};

bool co_accepting(void *arg, struct fl_stream_conf *conf)
{
    struct co *co = arg;

    if (co->draining || co->half_open >= co->config.limits.half_open ||
        HASH_COUNT(co->peers) >= co->config.limits.connections) {
        return false;
    }
    struct co_peer *p = fl_try(1, sizeof *p);
    if (!p) {
        return false;
    }
    p->co = co;
    p->connection = ++co->next_connection;
    HASH_ADD(hh, co->peers, connection, sizeof p->connection, p);
    co->half_open++;
    conf->work = co->work;
    conf->pool = co->pool;
    conf->tls = co->tls;
    conf->events = &events;
    conf->owner = p;
    conf->heartbeat_ms = (uint32_t)co->config.limits.heartbeat_ms;
    return true;
}
