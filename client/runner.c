/*
 * Events in, todo done. Callbacks of the stream and of jobs turn into events; fl_runner_feed steps
 * the machine, does its list and takes what came up meanwhile from a short queue, so nothing
 * recurses and there is one place to trace everything.
 */
#include "client/runner_in.h"

#include "client/receipts.h"
#include "client/talk.h"
#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIMER_MAX_MS = 3600 * 1000, ALL_WITHDRAWN_MS = 60 * 1000 };

uint64_t fl_runner_now(const struct fl_runner *r)
{
    (void)r;
    return uv_hrtime() / 1000000;
}

static uint16_t minute_now(void)
{
    time_t now = time(NULL);
    struct tm tm;

    localtime_r(&now, &tm);
    return (uint16_t)(tm.tm_hour * 60 + tm.tm_min);
}

void fl_runner_traffic(const struct fl_runner *r, uint64_t *ret_in, uint64_t *ret_out)
{
    struct fl_stream_counts c = {0};

    if (r->stream) {
        fl_stream_counts(r->stream, &c);
    }
    *ret_in = r->bytes_in + c.bytes_in;
    *ret_out = r->bytes_out + c.bytes_out;
}

static void keep_reason(struct fl_runner *r, const struct fl_err *e)
{
    r->last_reason = -e->code;
    snprintf(r->last_error, sizeof r->last_error, "%s", e->msg);
}

/* ---- sending ------------------------------------------------------------------------------------
 */

void fl_runner_send(struct fl_runner *r, const Cohort__Frame *frame)
{
    if (!r->stream) {
        return; /* it ended meanwhile: the machine will hear of that */
    }
    int code = fl_stream_send(r->stream, frame);
    if (code && code != -FL_R_PEER_CLOSED) {
        fl_log(FL_LOG_WARN, r->area, "cannot send %s: %s", fl_msg_name(frame),
               fl_reason_text(-code));
        fl_stream_close(r->stream, -code, fl_reason_text(-code), 0);
    }
}

static void do_ask(struct fl_runner *r)
{
    const struct fl_policy *p = r->agent->policy;
    const char *names[FL_POLICY_JOBS_MAX];
    struct fl_talk t;
    uint32_t count = 0;
    bool any = false;

    for (uint32_t i = 0; i < p->job_count; i++) {
        if (r->withdrawn[i]) {
            continue;
        }
        if (strcmp(p->jobs[i].name, "*") == 0) {
            any = true;
        } else {
            names[count++] = p->jobs[i].name;
        }
    }
    if (count == 0 && !any) {
        struct fl_agent_event ev = {
            .type = FL_AGENT_EV_REST, .status = -(int)FL_R_WITHDRAWN, .retry_ms = ALL_WITHDRAWN_MS};
        fl_runner_feed(r, &ev);
        return;
    }
    fl_talk_ask(&t, names, any ? 0 : count);
    fl_runner_send(r, &t.frame);
    fl_receipts_claim(r->receipts);
}

/* ---- upload -------------------------------------------------------------------------------------
 */

static int source_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct fl_runner *r = arg;

    FL_CRASH_POINT("agent-upload-chunk");
    return fl_file_read_at(r->upload_fd, offset, to, size, e);
}

static void upload_failed(struct fl_runner *r, const struct fl_err *e)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_SENT, .status = e->code};

    fl_log_err(FL_LOG_WARN, r->area, e, "upload");
    keep_reason(r, e);
    fl_runner_feed(r, &ev);
}

static void do_upload(struct fl_runner *r, uint64_t offset)
{
    const struct fl_agent_offer *offer = &r->core.offer;
    struct fl_err e;

    if (r->uploading) { /* the one before is ending */
        r->upload_again = true;
        r->upload_from = offset;
        return;
    }
    if (!r->stream) {
        return;
    }
    if (fl_vault_update(r->vault, offer, &r->upload_fd, &e)) {
        upload_failed(r, &e);
        return;
    }
    struct fl_source source = {.read = source_read,
                               .arg = r,
                               .digest = offer->digest,
                               .offset = offset,
                               .size = offer->size};
    int code = fl_stream_send_source(r->stream, &source);
    if (code) {
        close(r->upload_fd);
        fl_fail(&e, (enum fl_reason) - code, "cannot send now");
        upload_failed(r, &e);
        return;
    }
    r->uploading = true;
}

static void on_source_end(void *owner, struct fl_stream *s, void *arg, int status,
                          const struct fl_err *e)
{
    struct fl_runner *r = owner;
    struct fl_agent_event ev = {.type = FL_AGENT_EV_SENT, .status = status};

    (void)s;
    (void)arg;
    r->uploading = false;
    close(r->upload_fd);
    if (status && status != -FL_R_CANCELLED && e) {
        fl_log_err(FL_LOG_WARN, r->area, e, "upload");
    }
    if (r->upload_again) {
        r->upload_again = false;
        do_upload(r, r->upload_from);
        return;
    }
    FL_CRASH_POINT("agent-upload-sent");
    fl_runner_feed(r, &ev);
}

/* ---- the connection -----------------------------------------------------------------------------
 */

static void on_open(void *owner, struct fl_stream *s, const struct fl_identity *peer)
{
    struct fl_runner *r = owner;
    struct fl_agent_event ev = {.type = FL_AGENT_EV_OPENED};

    fl_log(FL_LOG_DEBUG, r->area, "connected to %s (%s)", peer->name, fl_stream_address(s));
    fl_runner_feed(r, &ev);
}

static void on_welcome(struct fl_runner *r, const Cohort__Welcome *w)
{
    if (w->version < FL_WIRE_VERSION_MIN || w->version > FL_WIRE_VERSION_MAX) {
        fl_stream_close(r->stream, FL_R_VERSION, fl_reason_text(FL_R_VERSION), 0);
        return;
    }
    r->echo = (struct fl_ledger_mark){0};
    if (w->ledger) {
        r->echo.releases = w->ledger->releases;
        memcpy(r->echo.head.bytes, w->ledger->head.data, FL_DIGEST_SIZE);
    }
    fl_receipts_welcome(r->receipts, w);
    fl_stream_set_heartbeat(r->stream, w->heartbeat_ms);
    fl_stream_set_max_frame(r->stream, FL_FRAME_MAX, w->max_frame);
    fl_log(FL_LOG_INFO, r->area, "welcome at %s as %s", fl_stream_address(r->stream), w->agent);
}

static void on_message(void *owner, struct fl_stream *s, const Cohort__Frame *frame)
{
    struct fl_runner *r = owner;
    struct fl_agent_task finals[FL_AGENT_FINALS_MAX];
    struct fl_agent_event ev;

    if (frame->body_case == COHORT__FRAME__BODY_BYE) {
        r->bye_reason = (int)frame->bye->reason;
        r->bye_retry_ms = frame->bye->retry_ms;
        fl_stream_close(s, 0, "", 0);
        return;
    }
    if (frame->body_case == COHORT__FRAME__BODY_RECEIPT) { /* no state of a round is about it */
        fl_receipts_take(r->receipts, frame->receipt);
        return;
    }
    if (!fl_talk_event(frame, &ev, finals)) {
        fl_stream_close(s, FL_R_MSG_ORDER, fl_reason_text(FL_R_MSG_ORDER), 0);
        return;
    }
    if (ev.type == FL_AGENT_EV_WELCOME) {
        on_welcome(r, frame->welcome);
    } else if (ev.type == FL_AGENT_EV_REFUSE || ev.type == FL_AGENT_EV_OVER) {
        fl_log(FL_LOG_INFO, r->area, "%s: %s", fl_msg_name(frame), fl_reason_text(-ev.status));
        r->last_reason = -ev.status;
        snprintf(r->last_error, sizeof r->last_error, "%s", fl_reason_text(-ev.status));
    }
    assert(!r->stepping); /* `finals` lives only here */
    fl_runner_feed(r, &ev);
}

static void on_sink_end(void *owner, struct fl_stream *s, void *arg, int status,
                        const struct fl_err *e)
{
    (void)s;
    (void)arg;
    fl_runner_sink_ended(owner, status, e);
}

static void on_close(void *owner, struct fl_stream *s, const struct fl_err *why)
{
    struct fl_runner *r = owner;
    struct fl_agent_event ev = {
        .type = FL_AGENT_EV_CLOSED, .status = why->code, .retry_ms = r->bye_retry_ms};

    /* Our own wish, or a connection that fails again and again: once is enough. */
    bool quiet = r->core.link == FL_AGENT_LINK_CLOSING || r->core.failures;

    (void)s;
    fl_runner_traffic(r, &r->bytes_in, &r->bytes_out);
    r->stream = NULL;
    if (r->bye_reason) {
        ev.status = -r->bye_reason;
        fl_log(FL_LOG_INFO, r->area, "the coordinator says bye: %s [%d %s]",
               fl_reason_text(r->bye_reason), r->bye_reason, fl_reason_name(r->bye_reason));
        r->last_reason = r->bye_reason;
        snprintf(r->last_error, sizeof r->last_error, "%s", fl_reason_text(r->bye_reason));
    } else if (why->code) {
        fl_log_err(quiet ? FL_LOG_DEBUG : FL_LOG_INFO, r->area, why, "connection ended");
        if (r->core.link != FL_AGENT_LINK_CLOSING) {
            keep_reason(r, why);
        }
    }
    fl_runner_feed(r, &ev);
}

static const struct fl_stream_events stream_events = {.on_open = on_open,
                                                      .on_message = on_message,
                                                      .on_sink_end = on_sink_end,
                                                      .on_source_end = on_source_end,
                                                      .on_close = on_close};

static void do_connect(struct fl_runner *r)
{
    const struct fl_config *c = r->site->config;
    struct fl_stream_conf conf = {.loop = r->site->loop,
                                  .work = r->site->work,
                                  .pool = r->site->pool,
                                  .tls = r->tls,
                                  .events = &stream_events,
                                  .owner = r,
                                  .heartbeat_ms = (uint32_t)c->heartbeat_ms};
    struct fl_err e;

    r->bye_reason = 0;
    r->bye_retry_ms = 0;
    int code = fl_stream_connect(&conf, c->coordinator.host, (uint16_t)c->coordinator.port,
                                 c->coordinator.name, &r->stream, &e);
    if (code) {
        struct fl_agent_event ev = {.type = FL_AGENT_EV_CLOSED, .status = code};
        r->stream = NULL;
        fl_log_err(FL_LOG_WARN, r->area, &e, "connect");
        keep_reason(r, &e);
        fl_runner_feed(r, &ev);
    }
}

/* ---- the machine's list -------------------------------------------------------------------------
 */

static void do_drop(struct fl_runner *r, int reason)
{
    if (reason && r->has_task) {
        bool failed = r->why.code == -reason;
        fl_log(FL_LOG_INFO, r->area, "%s round %llu: dropped: %s", r->task.what.job,
               (unsigned long long)r->task.what.key.round,
               failed ? r->why.msg : fl_reason_text(reason));
        if (failed) {
            keep_reason(r, &r->why);
        }
    }
    if (r->has_task) {
        fl_task_fini(&r->task);
        r->has_task = false;
    }
    memset(&r->why, 0, sizeof r->why);
}

static void do_op(struct fl_runner *r, enum fl_agent_state op)
{
    if (op == FL_AGENT_STATE_MARK) {
        r->settled++;
        fl_log(FL_LOG_INFO, r->area, "%s round %llu: %s", r->core.offer.job,
               (unsigned long long)r->core.offer.key.round,
               r->core.outcome ? fl_reason_text(-r->core.outcome) : "acknowledged");
    } else {
        fl_log(FL_LOG_DEBUG, r->area, "%s round %llu: %s", r->core.task.job,
               (unsigned long long)r->core.task.key.round, fl_agent_state_name(op));
    }
    fl_runner_begin(r, op);
}

static void do_decline(struct fl_runner *r, const struct fl_agent_item *item)
{
    struct fl_talk t;

    r->declined++;
    fl_log(FL_LOG_WARN, r->area, "round %llu: declined: %s [%d %s]",
           (unsigned long long)item->key.round,
           r->why.code == -item->reason ? r->why.msg : fl_reason_text(item->reason), item->reason,
           fl_reason_name(item->reason));
    fl_runner_note_decline(r, item->reason);
    fl_talk_decline(&t, &item->key, item->reason);
    fl_runner_send(r, &t.frame);
}

static void do_item(struct fl_runner *r, const struct fl_agent_item *item)
{
    struct fl_talk t;

    switch (item->type) {
    case FL_AGENT_DO_CONNECT:
        do_connect(r);
        break;
    case FL_AGENT_DO_HELLO:
        fl_talk_hello(&t);
        fl_runner_send(r, &t.frame);
        break;
    case FL_AGENT_DO_CLOSE:
        if (r->stream) {
            fl_stream_close(r->stream, item->reason, fl_reason_text(item->reason), 0);
        }
        break;
    case FL_AGENT_DO_ASK:
        do_ask(r);
        break;
    case FL_AGENT_DO_ACCEPT:
        fl_talk_accept(&t, &item->key);
        fl_runner_send(r, &t.frame);
        break;
    case FL_AGENT_DO_DECLINE:
        do_decline(r, item);
        break;
    case FL_AGENT_DO_OP:
        do_op(r, item->op);
        break;
    case FL_AGENT_DO_CANCEL:
        fl_runner_cancel(r);
        break;
    case FL_AGENT_DO_OFFER:
        FL_CRASH_POINT("agent-offer-before");
        fl_talk_offer(&t, &r->core.offer, &r->shown);
        fl_runner_send(r, &t.frame);
        break;
    case FL_AGENT_DO_UPLOAD:
        do_upload(r, item->offset);
        break;
    case FL_AGENT_DO_STOP_UPLOAD:
        if (r->uploading && r->stream) {
            fl_stream_stop_source(r->stream);
        }
        break;
    case FL_AGENT_DO_DROP:
        do_drop(r, item->reason);
        break;
    case FL_AGENT_DO_STOPPED:
        r->stopped = true;
        break;
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_TICK};

    fl_runner_feed(timer->data, &ev);
}

static void arm(struct fl_runner *r)
{
    uint64_t at = fl_agent_deadline(&r->core), now = fl_runner_now(r);
    uint64_t wait = at == UINT64_MAX ? TIMER_MAX_MS : at > now ? at - now : 0;

    if (r->stopped) {
        uv_timer_stop(&r->timer);
        return;
    }
    uv_timer_start(&r->timer, on_timer, wait < TIMER_MAX_MS ? wait : TIMER_MAX_MS, 0);
}

void fl_runner_feed(struct fl_runner *r, const struct fl_agent_event *ev)
{
    struct fl_agent_todo todo;

    assert(r->queue_count < FL_RUNNER_EVENTS_MAX);
    r->queue[(r->queue_head + r->queue_count++) % FL_RUNNER_EVENTS_MAX] = *ev;
    if (r->stepping) {
        return;
    }
    r->stepping = true;
    while (r->queue_count) {
        struct fl_agent_event next = r->queue[r->queue_head];
        r->queue_head = (r->queue_head + 1) % FL_RUNNER_EVENTS_MAX;
        r->queue_count--;
        next.now_ms = fl_runner_now(r);
        next.minute = minute_now();
        fl_agent_step(&r->core, &next, &todo);
        for (uint32_t i = 0; i < todo.count; i++) {
            do_item(r, &todo.at[i]);
        }
    }
    r->stepping = false;
    arm(r);
    if (r->stopped || !r->op.busy) {
        r->site->changed(r->site->arg);
    }
}

/* ---- life ---------------------------------------------------------------------------------------
 */

static int open_tls(const struct fl_runner *r, struct fl_tls_conf **ret, struct fl_err *e)
{
    const struct fl_config *c = r->site->config;
    struct fl_tls_files files = {.ca = c->coordinator.ca,
                                 .certificate = r->agent->certificate,
                                 .key = r->agent->key,
                                 .crl = c->coordinator.crl[0] ? c->coordinator.crl : NULL,
                                 .order = (enum fl_tls_order)c->coordinator.order};
    int code = fl_tls_conf_new(false, &files, ret, e);

    return code ? fl_wrap(e, code, "agent %s", r->agent->name) : 0;
}

int fl_runner_withdrawn_flags(struct fl_vault *v, bool *ret, struct fl_err *e)
{
    const struct fl_policy *p = v->agent->policy;
    int r = 0;

    for (uint32_t i = 0; i < p->job_count && r == 0; i++) {
        r = fl_ledger_withdrawn(v->ledger, p->jobs[i].name, &ret[i], e);
    }
    return r;
}

static void core_init(struct fl_runner *r, const struct fl_seed *jitter)
{
    const struct fl_config *c = r->site->config;
    struct fl_agent_conf conf = {.backoff_min_ms = (uint32_t)c->backoff.min_ms,
                                 .backoff_max_ms = (uint32_t)c->backoff.max_ms,
                                 .patience_ms = (uint32_t)c->patience_ms,
                                 .drain_ms = (uint32_t)c->drain_ms,
                                 .window_from = r->agent->window_from,
                                 .window_to = r->agent->window_to,
                                 .max_base = c->limits.model,
                                 .hold = r->agent->hold == FL_HOLD_APPROVE,
                                 .once = r->site->once};

    fl_agent_init(&r->core, &conf, jitter);
}

int fl_runner_open(const struct fl_runner_site *site, uint32_t index, struct fl_runner **ret,
                   struct fl_err *e)
{
    struct fl_runner *r = fl_try(1, sizeof *r);
    struct fl_seed jitter;

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    r->site = site;
    r->agent = &site->config->agents[index];
    snprintf(r->area, sizeof r->area, "agent %s", r->agent->name);
    int code = open_tls(r, &r->tls, e);
    if (code == 0) {
        code =
            fl_vault_open(site->config, r->agent, fl_tls_conf_identity(r->tls)->key, &r->vault, e);
    }
    if (code == 0) {
        code = fl_runner_withdrawn_flags(r->vault, r->withdrawn, e);
    }
    if (code == 0) {
        code = fl_entropy(&jitter, sizeof jitter, e);
    }
    if (code) {
        fl_tls_conf_unref(r->tls);
        fl_vault_close(r->vault);
        fl_free(r);
        return code;
    }
    if (r->vault->lost) {
        fl_log(FL_LOG_WARN, r->area, "%u released updates are gone and cannot be offered again",
               r->vault->lost);
    }
    core_init(r, &jitter);
    r->sessions = fl_sessions_new();
    r->receipts = fl_receipts_new(r);
    r->files = fl_lane_new(site->work, FL_WORK_SYNC, FL_RUNNER_FILES_JOBS);
    r->longs = fl_lane_new(site->work, FL_WORK_LONG, 2);
    uv_timer_init(site->loop, &r->timer);
    r->timer.data = r;
    *ret = r;
    return 0;
}

void fl_runner_start(struct fl_runner *r)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_START};

    if (fl_agent_in_window(&r->core.conf, minute_now())) {
        fl_runner_load_early(r);
    }
    fl_runner_feed(r, &ev);
}

void fl_runner_stop(struct fl_runner *r)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_STOP};
    fl_runner_feed(r, &ev);
}

static void timer_closed(uv_handle_t *handle)
{
    fl_free(handle->data);
}

void fl_runner_close(struct fl_runner *r)
{
    if (!r) {
        return;
    }
    if (r->has_task) {
        fl_task_fini(&r->task);
    }
    fl_lane_free(r->files);
    fl_lane_free(r->longs);
    fl_sessions_free(r->sessions);
    fl_receipts_free(r->receipts);
    fl_vault_close(r->vault);
    fl_tls_conf_unref(r->tls);
    uv_close((uv_handle_t *)&r->timer, timer_closed);
}

int fl_runner_reload(struct fl_runner *r, struct fl_err *e)
{
    struct fl_tls_conf *tls;
    int code = open_tls(r, &tls, e);

    if (code) {
        return code;
    }
    if (memcmp(fl_tls_conf_identity(tls)->key, fl_tls_conf_identity(r->tls)->key,
               FL_IDENTITY_KEY) != 0) {
        fl_tls_conf_unref(tls);
        return fl_fail(e, FL_R_TLS_SETUP,
                       "agent %s: the new certificate has another key; its ledger belongs to the "
                       "old one",
                       r->agent->name);
    }
    fl_tls_conf_unref(r->tls);
    r->tls = tls;
    return 0;
}

/* ---- for host and site --------------------------------------------------------------------------
 */

const char *fl_runner_name(const struct fl_runner *r)
{
    return r->agent->name;
}

void fl_runner_view(const struct fl_runner *r, struct fl_runner_view *ret)
{
    const struct fl_agent *a = &r->core;
    bool delivering = a->state == FL_AGENT_STATE_DELIVER || a->state == FL_AGENT_STATE_MARK;
    bool busy = a->state > FL_AGENT_STATE_PENDING && a->state != FL_AGENT_STATE_STOPPED;

    memset(ret, 0, sizeof *ret);
    ret->name = r->agent->name;
    ret->state = fl_agent_state_name(a->state);
    ret->link = fl_agent_link_name(a->link);
    ret->job = !busy ? "" : delivering ? a->offer.job : a->task.job;
    ret->round = !busy ? 0 : delivering ? a->offer.key.round : a->task.key.round;
    ret->coordinator_address = r->stream ? fl_stream_address(r->stream) : "";
    ret->certificate_expires_s = fl_tls_conf_identity(r->tls)->expires_s;
    ret->rounds_settled = r->settled;
    ret->declined = r->declined;
    fl_runner_traffic(r, &ret->bytes_in, &ret->bytes_out);
    ret->data_bytes = fl_runner_data_bytes(r);
    ret->last_reason = r->last_reason;
    ret->last_error = r->last_error;
    ret->in_window = fl_agent_in_window(&a->conf, minute_now());
}

bool fl_runner_quiet(const struct fl_runner *r)
{
    return r->stopped && fl_lane_pending(r->files) == 0 && fl_lane_pending(r->longs) == 0;
}

size_t fl_runner_data_bytes(const struct fl_runner *r)
{
    return r->op.busy || r->early.busy ? 0 : fl_vault_data_bytes(r->vault);
}

uint64_t fl_runner_used_ms(const struct fl_runner *r)
{
    return r->used_ms;
}

bool fl_runner_can_unload(const struct fl_runner *r)
{
    /* A task between two operations still counts on its data. */
    return fl_runner_data_bytes(r) > 0 && (!r->has_task || r->core.state == FL_AGENT_STATE_DELIVER);
}

size_t fl_runner_unload(struct fl_runner *r)
{
    size_t bytes = fl_runner_data_bytes(r);

    if (!fl_runner_can_unload(r)) {
        return 0;
    }
    fl_vault_unload(r->vault);
    return bytes;
}

bool fl_runner_useful(const struct fl_runner *r)
{
    return r->core.rested || r->settled > 0;
}

static void query_run(struct fl_job *job)
{
    struct fl_runner_query *q = (struct fl_runner_query *)job;
    q->run(q);
}

static void query_done(struct fl_job *job)
{
    struct fl_runner_query *q = (struct fl_runner_query *)job;
    struct fl_runner *r = q->runner;

    q->done(q);
    r->site->changed(r->site->arg);
}

int fl_runner_ask(struct fl_runner *r, struct fl_runner_query *q)
{
    q->runner = r;
    q->vault = r->vault;
    q->job.run = query_run;
    q->job.done = query_done;
    return fl_lane_submit(r->files, &q->job);
}

void fl_runner_withdrawn(struct fl_runner *r, const char *job, const bool *flags)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_WITHDRAW};

    memcpy(r->withdrawn, flags, r->agent->policy->job_count * sizeof *flags);
    snprintf(ev.task.job, sizeof ev.task.job, "%s", job);
    fl_runner_feed(r, &ev);
}
