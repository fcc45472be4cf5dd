/*
 * The loop's side of a stream. How the pieces play together:
 *
 *     stream.c    life, events, timers (this file; loop)       turn.c     bytes (the job)
 *     connect.c   resolving, connecting, listening (loop)      socket.c   poll, linger (loop)
 *     pool.c      frame buffers                                bytes.c    a row of bytes
 *
 * The loop waits until the socket can be read or written, or the owner has something to send, and
 * submits the stream's one job, a turn. While it is in flight the socket is not polled and the turn
 * belongs to the job; what the owner asks for meanwhile is staged and takes effect when the turn is
 * over. When the job is done the loop tells the owner what was found, in the order it came: open,
 * messages, the end of a sink, the end of a source. Then it begins another turn, waits for the
 * socket, or ends the stream. All events come from here or from the timer, never from inside a call
 * of the owner, so an owner may call anything from anywhere.
 *
 * Ending has two speeds. FLUSHES: Bye and what was queued goes out, then close_notify, within
 * FL_STREAM_CLOSE_MS. ENDS: the next time no job is in flight. Either way on_close is the last
 * event, and the socket stays a second longer on its own to let the peer read our last bytes: a
 * socket closed with unread bytes in it would send a reset that throws them away.
 *
 * One timer serves all deadlines. It is not moved whenever something happens, but looks when it
 * fires whether anything is really due, and sleeps for the rest.
 */
#include "common/base/mem.h"
#include "common/io/stream_in.h"
#include "common/wire/text.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SILENT_HEARTBEATS = 3 };

static void on_timer(uv_timer_t *timer);
static void arm(struct fl_stream *s);

static uint64_t now_ms(const struct fl_stream *s)
{
    return uv_now(s->loop);
}

/* ---- beginning ------------------------------------------------------------------------------ */

struct fl_stream *fl_stream_new(uv_loop_t *loop)
{
    struct fl_stream *s = fl_try(1, sizeof *s);

    if (s) {
        s->loop = loop;
        s->turn.fd = -1;
        uv_timer_init(loop, &s->timer); /* cannot fail */
        s->timer.data = s;
    }
    return s;
}

static void free_stream(uv_handle_t *timer)
{
    struct fl_stream *s = timer->data;

    fl_free(s->server_name);
    fl_free(s);
}

void fl_stream_discard(struct fl_stream *s)
{
    uv_close((uv_handle_t *)&s->timer, free_stream);
}

void fl_stream_configure(struct fl_stream *s, const struct fl_stream_conf *conf)
{
    assert(conf->work && conf->pool && conf->tls && conf->events && conf->heartbeat_ms > 0);
    assert(conf->max_frame <= FL_FRAME_MAX);
    s->events = conf->events;
    s->owner = conf->owner;
    s->pool = conf->pool;
    s->heartbeat_ms = conf->heartbeat_ms;
    s->handshake_ms = conf->handshake_ms ? conf->handshake_ms : FL_STREAM_HANDSHAKE_MS;
    s->max_received = conf->max_frame ? conf->max_frame : FL_FRAME_HELLO_MAX;
    s->max_sent = FL_FRAME_HELLO_MAX;
    s->turn.conf = fl_tls_conf_ref(conf->tls);
    s->turn.server_name = s->server_name;
    s->deadline_ms = now_ms(s) + s->handshake_ms;
    s->lane = fl_lane_new(conf->work, FL_WORK_SHORT, 1);
    if (!s->lane) {
        struct fl_err e;
        fl_fail(&e, FL_R_NOMEM, "no memory for a stream");
        fl_stream_fail(s, ENDS, &e);
    }
    arm(s);
}

/* ---- time ----------------------------------------------------------------------------------- */

static bool in_frame(const struct fl_stream *s)
{
    return s->turn.head_at > 0;
}

/* When is something due? All times are of uv_now. */
static uint64_t next_due(const struct fl_stream *s)
{
    uint64_t due = s->deadline_ms ? s->deadline_ms : UINT64_MAX;
    uint64_t beat = s->heartbeat_ms, silence = SILENT_HEARTBEATS * (uint64_t)s->heartbeat_ms;

    if (s->ending == ENDS) {
        return now_ms(s);
    }
    if (s->open && s->ending == STAYS) {
        due = s->sent_ms + beat < due ? s->sent_ms + beat : due;
        due = s->heard_ms + silence < due ? s->heard_ms + silence : due;
        due = s->blocked && s->moved_ms + silence < due ? s->moved_ms + silence : due;
        due = s->frame_ms && s->frame_ms + FL_STREAM_FRAME_MS < due
                  ? s->frame_ms + FL_STREAM_FRAME_MS
                  : due;
    }
    return due;
}

static void arm(struct fl_stream *s)
{
    uint64_t now = now_ms(s), due = next_due(s);

    uv_timer_start(&s->timer, on_timer, due > now ? due - now : 0, 0);
}

/* ---- turns ---------------------------------------------------------------------------------- */

static struct fl_stream *stream_of(struct fl_job *job)
{
    return (struct fl_stream *)(void *)((char *)job - offsetof(struct fl_stream, job));
}

static void run_turn(struct fl_job *job)
{
    fl_turn_run(&stream_of(job)->turn);
}

static void turn_done(struct fl_job *job);

/* What was asked for while a turn was under way takes effect. */
static void apply_staged(struct fl_stream *s)
{
    struct turn *t = &s->turn;

    if (s->sink_staged) {
        t->sink = s->staged_sink;
        t->sink_set = true;
        s->sink_staged = false;
    }
    if (s->source_staged) {
        t->source = s->staged_source;
        t->source_set = true;
        s->source_staged = false;
    }
    t->max_received = s->max_received;
    t->max_sent = s->max_sent;
    t->flush = s->ending == FLUSHES;
    if (fl_bytes_left(&t->sending) == 0) {
        t->sending = s->queued;
        s->queued = (struct bytes){0};
    } else if (fl_bytes_left(&s->queued) > 0 &&
               fl_bytes_add(&t->sending, s->queued.data + s->queued.at, fl_bytes_left(&s->queued),
                            2 * FL_STREAM_QUEUE_MAX)) {
        fl_bytes_free(&s->queued);
    }
    s->sending_left = fl_bytes_left(&t->sending);
    if (s->granted) {
        t->buffer = s->granted;
        s->granted = NULL;
    }
}

/* Begins a turn unless one is under way, in which case another follows it. */
static void kick(struct fl_stream *s)
{
    if (s->in_job || !s->connected || s->ending == ENDS) {
        s->again = true;
        return;
    }
    s->again = false;
    apply_staged(s);
    fl_socket_poll(s->socket, 0);
    s->job.run = run_turn;
    s->job.done = turn_done;
    s->in_job = fl_lane_submit(s->lane, &s->job) == 0;
    assert(s->in_job); /* the lane is ours alone */
}

void fl_stream_ready(struct fl_stream *s)
{
    if (!s->connected) {
        fl_connect_ready(s);
    } else if (!s->in_job && s->ending != ENDS) {
        kick(s);
    }
}

void fl_stream_start(struct fl_stream *s)
{
    s->connected = true;
    s->turn.fd = s->socket->fd;
    fl_stream_set_address(s);
    s->heard_ms = s->sent_ms = s->moved_ms = now_ms(s);
    arm(s);
    if (s->ending != ENDS) {
        if (s->server_name) {
            kick(s); /* a client speaks first */
        } else {
            fl_socket_poll(s->socket, UV_READABLE);
        }
    }
}

void fl_stream_got_buffer(struct fl_stream *s, uint8_t *buffer)
{
    s->granted = buffer;
    s->heard_ms = now_ms(s); /* it was not the peer who was silent */
    kick(s);
}

/* ---- events --------------------------------------------------------------------------------- */

static void tell_sink_end(struct fl_stream *s, void *arg, int status, const struct fl_err *e)
{
    s->has_sink = s->sink_dropped = s->sink_staged = false;
    if (s->events->on_sink_end) {
        s->events->on_sink_end(s->owner, s, arg, status, e);
    }
}

static void tell_source_end(struct fl_stream *s, void *arg, int status, const struct fl_err *e)
{
    s->has_source = s->source_stopped = s->source_staged = false;
    if (s->events->on_source_end) {
        s->events->on_source_end(s->owner, s, arg, status, e);
    }
}

/* Ends the sink and the source that the owner does not want any more. No job is in flight. */
static void end_unwanted(struct fl_stream *s)
{
    struct turn *t = &s->turn;
    struct fl_err e;

    fl_fail(&e, FL_R_CANCELLED, "given up");
    if (s->has_sink && s->sink_dropped) {
        void *arg = s->sink_staged ? s->staged_sink.arg : t->sink.arg;
        if (t->sink_set && !s->sink_staged) {
            t->stale = t->sink.digest;
            t->stale_left = t->sink.size - t->sink.offset;
        }
        t->sink_set = false;
        tell_sink_end(s, arg, e.code, &e);
    }
    if (s->has_source && s->source_stopped) {
        void *arg = s->source_staged ? s->staged_source.arg : t->source.arg;
        t->source_set = false;
        tell_source_end(s, arg, e.code, &e);
    }
}

static void count_turn(struct fl_stream *s)
{
    struct turn *t = &s->turn;
    uint64_t now = now_ms(s);

    s->counts.bytes_in += t->got;
    s->counts.bytes_out += t->sent;
    s->counts.frames_in += t->frames_in;
    s->counts.frames_out += t->frames_out;
    s->sending_left = fl_bytes_left(&t->sending);
    s->heard_ms = t->got ? now : s->heard_ms;
    s->sent_ms = t->sent ? now : s->sent_ms;
    s->moved_ms = t->sent ? now : s->moved_ms;
    s->blocked = fl_bytes_left(&t->rest) > 0;
    /* The clock of a frame begins with it, and anew with the next one. */
    s->frame_ms = !in_frame(s) ? 0 : (s->frame_ms && !t->frames_in ? s->frame_ms : now);
}

static void tell_what_was_found(struct fl_stream *s)
{
    struct turn *t = &s->turn;

    if (t->opened && s->ending == STAYS) {
        s->open = true;
        s->deadline_ms = now_ms(s) + s->handshake_ms; /* of the first message */
        s->heard_ms = s->sent_ms = now_ms(s);
        s->events->on_open(s->owner, s, fl_tls_peer(t->tls));
    }
    for (unsigned i = 0; i < t->message_count; i++) {
        if (s->ending == STAYS) {
            s->deadline_ms = s->heard_message ? s->deadline_ms : 0;
            s->heard_message = true;
            s->events->on_message(s->owner, s, t->messages[i]);
        }
        fl_msg_free(t->messages[i]);
    }
    t->message_count = 0;
    if (t->sink_ended.yes) {
        tell_sink_end(s, t->sink.arg, t->sink_ended.status, &t->sink_ended.e);
    }
    if (t->source_ended.yes) {
        tell_source_end(s, t->source.arg, t->source_ended.status, &t->source_ended.e);
    }
    end_unwanted(s);
}

/* ---- ending --------------------------------------------------------------------------------- */

static void note_why(struct fl_stream *s, const struct fl_err *e)
{
    if (!s->why_set) {
        s->why_set = true;
        s->why = *e;
    }
}

void fl_stream_fail(struct fl_stream *s, enum ending how, const struct fl_err *e)
{
    note_why(s, e);
    if (how > s->ending) {
        s->ending = how;
        arm(s);
    }
}

static void give_back_buffer(struct fl_stream *s)
{
    struct turn *t = &s->turn;
    uint8_t *buffer = t->buffer;

    if (buffer && t->frame != buffer) {
        t->buffer = NULL;
        fl_pool_give(s->pool, buffer);
    }
}

/* The last thing that happens; no job is in flight. */
static void finish(struct fl_stream *s)
{
    struct turn *t = &s->turn;
    bool linger = s->connected && !t->peer_closed && t->send_errno == 0;

    s->ending = ENDS;
    uv_timer_stop(&s->timer);
    fl_connect_abandon(s);
    s->sink_dropped = s->source_stopped = true;
    end_unwanted(s);
    fl_pool_forget(s->pool, s);
    if (t->frame == t->buffer) {
        t->frame = NULL;
    }
    give_back_buffer(s);
    if (s->granted) {
        fl_pool_give(s->pool, s->granted);
    }
    fl_turn_fini(t);
    fl_bytes_free(&s->queued);
    fl_lane_free(s->lane);
    if (s->socket) {
        s->socket->stream = NULL;
        fl_socket_close(s->socket, linger);
    }
    s->events->on_close(s->owner, s, &s->why);
    uv_close((uv_handle_t *)&s->timer, free_stream);
}

/* A protocol error of the peer is told to it; what TLS or the socket found cannot be. */
static void end_by_error(struct fl_stream *s)
{
    struct turn *t = &s->turn;
    bool of_protocol = t->status == -FL_R_LIMIT ||
                       (t->status <= -FL_R_FRAME_SIZE && t->status != -FL_R_PEER_CLOSED);

    if (of_protocol && s->open && !t->flush && t->send_errno == 0) {
        note_why(s, &t->e);
        fl_stream_close(s, -t->status, t->e.msg, 0);
        t->status = 0;
    } else {
        fl_stream_fail(s, ENDS, &t->e);
    }
}

/* What the socket is waited for, or a buffer, when a turn has left nothing to do. */
static void wait_for_more(struct fl_stream *s)
{
    struct turn *t = &s->turn;
    bool messages_wait = fl_bytes_left(&s->queued) > 0 && !s->blocked;

    if (t->wants_buffer && !s->granted) {
        s->granted = fl_pool_take(s->pool, s);
    }
    if (t->more || s->again || s->granted || messages_wait || (s->ending == FLUSHES && !t->flush)) {
        kick(s);
    } else {
        fl_socket_poll(s->socket, (t->wants_buffer || t->flush ? 0 : UV_READABLE) |
                                      (s->blocked ? UV_WRITABLE : 0));
    }
}

static void send_ping(struct fl_stream *s)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Ping ping = COHORT__PING__INIT;

    ping.nonce = ++s->nonce;
    frame.body_case = COHORT__FRAME__BODY_PING;
    frame.ping = &ping;
    s->sent_ms = now_ms(s); /* asked once, not at every look */
    if (fl_bytes_left(&s->queued) == 0 && s->sending_left == 0 && !s->blocked) {
        fl_stream_send(s, &frame);
    }
}

/* What is due? No job is in flight. */
static void look_at_clock(struct fl_stream *s)
{
    uint64_t now = now_ms(s), silence = SILENT_HEARTBEATS * (uint64_t)s->heartbeat_ms;
    struct fl_err e = {0};

    if (s->deadline_ms && now >= s->deadline_ms) {
        fl_fail(&e, s->connected ? FL_R_TIMEOUT : FL_R_CONNECT, "%s",
                !s->connected          ? "no connection in time"
                : s->ending == FLUSHES ? "the last bytes could not be sent in time"
                : s->open              ? "no first message in time"
                                       : "no TLS handshake in time");
        fl_stream_fail(s, ENDS, &e);
        return;
    }
    if (!s->open || s->ending != STAYS) {
        return;
    }
    if (s->waiting) { /* for our own buffers: not the peer's fault */
        s->heard_ms = s->frame_ms = now;
    }
    if (now >= s->heard_ms + silence) {
        fl_fail(&e, FL_R_PEER_SILENT, "nothing heard for %llu ms",
                (unsigned long long)(now - s->heard_ms));
        fl_stream_fail(s, ENDS, &e);
    } else if (s->blocked && now >= s->moved_ms + silence) {
        fl_fail(&e, FL_R_PEER_SILENT, "nothing read by the peer for %llu ms",
                (unsigned long long)(now - s->moved_ms));
        fl_stream_fail(s, ENDS, &e);
    } else if (s->frame_ms && now >= s->frame_ms + FL_STREAM_FRAME_MS) {
        fl_stream_close(s, FL_R_TIMEOUT, "a frame took too long", 0);
    } else if (now >= s->sent_ms + s->heartbeat_ms) {
        send_ping(s);
    }
}

static void turn_done(struct fl_job *job)
{
    struct fl_stream *s = stream_of(job);
    struct turn *t = &s->turn;

    count_turn(s);
    give_back_buffer(s);
    tell_what_was_found(s); /* what the owner asks for meanwhile waits, as in_job is still set */
    s->in_job = false;
    if (t->status < 0 && s->ending != ENDS) {
        end_by_error(s);
    } else if (t->peer_closed && s->ending != ENDS) {
        struct fl_err e = {0};
        snprintf(e.msg, sizeof e.msg, "the peer closed the connection");
        fl_stream_fail(s, ENDS, &e);
    }
    if (s->late && s->ending != ENDS) {
        look_at_clock(s);
    }
    s->late = false;
    if (t->flush && t->flushed && !s->blocked) {
        s->ending = ENDS;
    }
    if (s->ending == ENDS) {
        finish(s);
    } else if (!s->in_job) {
        arm(s);
        wait_for_more(s);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct fl_stream *s = timer->data;

    if (s->in_job) {
        s->late = true; /* the turn's end looks */
        return;
    }
    if (s->ending != ENDS) {
        look_at_clock(s);
    }
    if (s->ending == ENDS) {
        finish(s);
    } else {
        arm(s);
    }
}

/* ---- for owners ----------------------------------------------------------------------------- */

int fl_stream_send(struct fl_stream *s, const Cohort__Frame *frame)
{
    size_t size = fl_msg_packed_size(frame);
    uint8_t bytes[FL_FRAME_HEAD + FL_FRAME_CONTROL_MAX];

    if (s->ending != STAYS) {
        return -FL_R_PEER_CLOSED;
    }
    if (frame->body_case == COHORT__FRAME__BODY_CHUNK || size > sizeof bytes ||
        fl_msg_check(frame, NULL) < 0) {
        return -FL_R_MSG_FIELD;
    }
    if (size - FL_FRAME_HEAD > s->max_sent || s->sending_left > FL_STREAM_QUEUE_MAX) {
        return -FL_R_LIMIT;
    }
    fl_msg_pack(frame, bytes);
    if (!fl_bytes_add(&s->queued, bytes, size, FL_STREAM_QUEUE_MAX - s->sending_left)) {
        return -FL_R_LIMIT;
    }
    s->counts.frames_out++;
    kick(s);
    return 0;
}

void fl_stream_close(struct fl_stream *s, int why, const char *text, uint32_t retry_ms)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Bye bye = COHORT__BYE__INIT;
    char clean[FL_TEXT_MAX];
    struct fl_err e = {.code = why > 0 ? -why : why};

    if (s->ending != STAYS) {
        return;
    }
    fl_text_clean(clean, sizeof clean, text);
    snprintf(e.msg, sizeof e.msg, "%s", clean[0] || why == 0 ? clean : fl_reason_text(why));
    note_why(s, &e);
    if (!s->open) {
        fl_stream_fail(s, ENDS, &e);
        return;
    }
    if (why != 0) {
        bye.reason = (uint32_t)-e.code;
        bye.text = clean;
        bye.retry_ms = retry_ms < FL_WIRE_RETRY_MAX_MS ? retry_ms : FL_WIRE_RETRY_MAX_MS;
        frame.body_case = COHORT__FRAME__BODY_BYE;
        frame.bye = &bye;
        fl_stream_send(s, &frame); /* a full queue has no room for it either */
    }
    s->ending = FLUSHES;
    s->deadline_ms = now_ms(s) + FL_STREAM_CLOSE_MS;
    s->sink_dropped = s->source_stopped = true;
    arm(s);
    kick(s);
}

int fl_stream_send_source(struct fl_stream *s, const struct fl_source *source)
{
    assert(source->offset <= source->size);
    if (s->ending != STAYS) {
        return -FL_R_PEER_CLOSED;
    }
    if (s->has_source) {
        return -FL_R_BUSY;
    }
    s->has_source = s->source_staged = true;
    s->staged_source = *source;
    kick(s);
    return 0;
}

void fl_stream_stop_source(struct fl_stream *s)
{
    if (s->has_source && !s->source_stopped) {
        s->source_stopped = true;
        kick(s);
    }
}

int fl_stream_set_sink(struct fl_stream *s, const struct fl_sink *sink)
{
    assert(sink->offset <= sink->size);
    if (s->ending != STAYS) {
        return -FL_R_PEER_CLOSED;
    }
    if (s->has_sink) {
        return -FL_R_BUSY;
    }
    s->has_sink = s->sink_staged = true;
    s->staged_sink = *sink;
    kick(s);
    return 0;
}

void fl_stream_drop_sink(struct fl_stream *s)
{
    if (s->has_sink && !s->sink_dropped) {
        s->sink_dropped = true;
        kick(s);
    }
}

void *fl_stream_owner(const struct fl_stream *s)
{
    return s->owner;
}

void fl_stream_set_owner(struct fl_stream *s, void *owner)
{
    s->owner = owner;
}

void fl_stream_set_heartbeat(struct fl_stream *s, uint32_t heartbeat_ms)
{
    assert(heartbeat_ms > 0);
    s->heartbeat_ms = heartbeat_ms;
    arm(s);
}

void fl_stream_set_max_frame(struct fl_stream *s, uint32_t received, uint32_t sent)
{
    assert(received >= FL_FRAME_HELLO_MAX && received <= FL_FRAME_MAX);
    assert(sent >= FL_FRAME_HELLO_MAX && sent <= FL_FRAME_MAX);
    s->max_received = received;
    s->max_sent = sent;
}

void fl_stream_counts(const struct fl_stream *s, struct fl_stream_counts *ret)
{
    *ret = s->counts;
}

const char *fl_stream_address(const struct fl_stream *s)
{
    return s->address;
}
