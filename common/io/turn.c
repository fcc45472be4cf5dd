/*
 * One turn of a stream, as a job: the only place where its bytes are touched.
 *
 * Receiving: TLS is asked for exactly the bytes that the current frame still lacks, and the socket
 * for exactly the bytes that TLS lacks. So between frames nothing is buffered anywhere but in the
 * kernel and in the TLS context itself, and an idle stream owns no memory for them.
 *
 * Sending: messages first, then one chunk of the source, each as one TLS record made on this
 * thread's stack and given to the socket. What the socket does not take (at most a record, or what
 * a handshake says) is kept in `rest`, and nothing new is made before that has gone.
 */
#include "common/base/mem.h"
#include "common/io/stream_in.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

struct scratch {
    uint8_t in[RECORD_ROOM], out[RECORD_ROOM], chunk[FL_STREAM_CHUNK];
};

/*
 * Gives cipher text to the socket. Returns how much it took; less than size means "later". When the
 * peer has closed its end, the bytes are as good as gone, but what it said before is still to be
 * read: the alert or Bye that explains. So a failure here ends the stream only when nothing more
 * comes.
 */
static size_t socket_send(struct turn *t, const uint8_t *data, size_t size)
{
    size_t at = 0;

    while (at < size) {
        ssize_t n = send(t->fd, data + at, size - at, MSG_NOSIGNAL);
        if (n >= 0) {
            at += (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        } else if (errno != EINTR) {
            t->send_errno = errno;
            return size;
        }
    }
    t->sent += at;
    return at;
}

static void give(struct turn *t, const uint8_t *cipher, size_t size)
{
    size_t took = fl_bytes_left(&t->rest) > 0 ? 0 : socket_send(t, cipher, size);

    if (took < size && !fl_bytes_add(&t->rest, cipher + took, size - took, REST_MAX) &&
        t->status == 0) {
        t->status = fl_fail(&t->e, FL_R_LIMIT, "the peer does not read");
    }
}

static bool send_rest(struct turn *t)
{
    size_t left = fl_bytes_left(&t->rest);

    if (left > 0) {
        size_t took = socket_send(t, t->rest.data + t->rest.at, left);
        fl_bytes_took(&t->rest, took);
        return took > 0;
    }
    return false;
}

/* Whatever the pump says, its cipher text goes out: it may be the alert that explains. */
static int pump(struct turn *t, struct fl_tls_io *io, struct scratch *s)
{
    io->out = s->out;
    io->out_size = sizeof s->out;
    t->status = fl_tls_pump(t->tls, io, &t->e);
    give(t, s->out, io->ret_out);
    return t->status;
}

/* ---- sending ------------------------------------------------------------------------------- */

static void end_source(struct turn *t, int status)
{
    t->source_set = false;
    t->source_ended.yes = true;
    t->source_ended.status = status;
}

/* The next chunk of the source, packed; 0 when there is none. */
static size_t next_chunk(struct turn *t, struct scratch *s)
{
    struct fl_source *source = &t->source;
    uint64_t left = source->size - source->offset;
    size_t most = t->max_sent < FL_STREAM_CHUNK - FL_FRAME_HEAD ? t->max_sent
                                                                : FL_STREAM_CHUNK - FL_FRAME_HEAD;
    size_t n = most - FL_CHUNK_HEAD < left ? most - FL_CHUNK_HEAD : (size_t)left;
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Chunk chunk = COHORT__CHUNK__INIT;

    if (n == 0) {
        end_source(t, 0);
        return 0;
    }
    int r = source->read(source->arg, source->offset, s->in, n, &t->source_ended.e);
    if (r < 0) {
        end_source(t, r);
        return 0;
    }
    chunk.digest = (ProtobufCBinaryData){FL_DIGEST_SIZE, source->digest.bytes};
    chunk.offset = source->offset;
    chunk.data = (ProtobufCBinaryData){n, s->in};
    frame.body_case = COHORT__FRAME__BODY_CHUNK;
    frame.chunk = &chunk;
    fl_msg_pack(&frame, s->chunk);
    source->offset += n;
    t->frames_out++;
    return fl_msg_packed_size(&frame);
}

static bool send_turn(struct turn *t, struct scratch *s)
{
    bool moved = send_rest(t);

    if (t->status < 0 || fl_bytes_left(&t->rest) > 0 || fl_tls_state(t->tls) != FL_TLS_OPEN) {
        return moved;
    }
    struct fl_tls_io io = {0};
    if (fl_bytes_left(&t->sending) > 0) {
        io.write = t->sending.data + t->sending.at;
        io.write_size = fl_bytes_left(&t->sending);
        io.write_size = io.write_size < FL_STREAM_CHUNK ? io.write_size : FL_STREAM_CHUNK;
        if (pump(t, &io, s) == 0) {
            fl_bytes_took(&t->sending, io.ret_written);
        }
        return true;
    }
    if (t->source_set && !t->flush) {
        io.write = s->chunk;
        io.write_size = next_chunk(t, s);
        if (io.write_size > 0 && pump(t, &io, s) == 0 && io.ret_written != io.write_size) {
            t->status = fl_fail(&t->e, FL_R_INTERNAL, "a chunk did not fit its record");
        }
        if (t->source_set && t->source.offset == t->source.size) {
            end_source(t, 0);
        }
        return true;
    }
    if (t->flush && !t->flushed) {
        io.out = s->out;
        io.out_size = sizeof s->out;
        t->flushed = true;
        if (fl_tls_close_notify(t->tls, &io, NULL) == 0) {
            give(t, s->out, io.ret_out);
        }
        return true;
    }
    return moved;
}

/* ---- receiving ----------------------------------------------------------------------------- */

static void end_sink(struct turn *t, int status)
{
    t->sink_set = false;
    t->sink_ended.yes = true;
    t->sink_ended.status = status;
    if (status < 0) {
        t->stale = t->sink.digest;
        t->stale_left = t->sink.size - t->sink.offset;
    }
}

static int take_chunk(struct turn *t, const Cohort__Chunk *chunk)
{
    struct fl_sink *sink = &t->sink;
    struct fl_digest digest;
    size_t n = chunk->data.len;

    memcpy(digest.bytes, chunk->digest.data, FL_DIGEST_SIZE);
    if (t->sink_set && fl_digest_equal(&digest, &sink->digest)) {
        if (chunk->offset != sink->offset || n > sink->size - sink->offset) {
            return fl_fail(&t->e, FL_R_OFFSET,
                           "a chunk of %zu bytes at %llu, but byte %llu of %llu is next", n,
                           (unsigned long long)chunk->offset, (unsigned long long)sink->offset,
                           (unsigned long long)sink->size);
        }
        int r = sink->write(sink->arg, sink->offset, chunk->data.data, n, &t->sink_ended.e);
        sink->offset += n;
        if (r < 0 || sink->offset == sink->size) {
            end_sink(t, r);
        }
        return 0;
    }
    /* We gave up; the peer has not heard of it yet. */
    if (fl_digest_equal(&digest, &t->stale) && n <= t->stale_left) {
        t->stale_left -= n;
        return 0;
    }
    return fl_fail(&t->e, FL_R_MSG_ORDER, "a chunk of an object that was not asked for");
}

static int answer_ping(struct turn *t, const Cohort__Ping *ping)
{
    uint8_t bytes[32];
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Pong pong = COHORT__PONG__INIT;

    pong.nonce = ping->nonce;
    frame.body_case = COHORT__FRAME__BODY_PONG;
    frame.pong = &pong;
    fl_msg_pack(&frame, bytes);
    if (!fl_bytes_add(&t->sending, bytes, fl_msg_packed_size(&frame), FL_STREAM_QUEUE_MAX)) {
        return fl_fail(&t->e, FL_R_LIMIT, "the peer asks and does not read the answers");
    }
    t->frames_out++;
    return 0;
}

/* A whole frame has come. */
static int take_frame(struct turn *t)
{
    Cohort__Frame *frame = NULL;
    int r = fl_msg_unpack(t->frame, t->frame_size, &frame, &t->e);

    if (t->frame != t->buffer) {
        fl_free(t->frame);
    }
    t->frame = NULL;
    t->frame_size = t->frame_at = t->head_at = 0;
    t->frames_in++;
    if (r < 0) {
        return r;
    }
    switch (frame->body_case) {
    case COHORT__FRAME__BODY_CHUNK:
        r = take_chunk(t, frame->chunk);
        break;
    case COHORT__FRAME__BODY_PING:
        r = answer_ping(t, frame->ping);
        break;
    case COHORT__FRAME__BODY_PONG:
        break;
    default:
        t->messages[t->message_count++] = frame;
        return 0;
    }
    fl_msg_free(frame);
    return r;
}

/* Where the next plain bytes go; 0 when none can be taken now. */
static size_t next_place(struct turn *t, uint8_t **ret)
{
    if (t->frame_size == 0) {
        *ret = t->head + t->head_at;
        return FL_FRAME_HEAD - t->head_at;
    }
    if (!t->frame && t->frame_size <= FL_STREAM_CHUNK) {
        t->frame = fl_try(t->frame_size, 1);
        if (!t->frame) {
            t->status = fl_fail(&t->e, FL_R_NOMEM, "no memory for a frame");
            return 0;
        }
    } else if (!t->frame) {
        t->frame = t->buffer;
        t->wants_buffer = !t->frame;
    }
    *ret = t->frame ? t->frame + t->frame_at : NULL;
    return t->frame ? t->frame_size - t->frame_at : 0;
}

/* n plain bytes have come to where next_place said. */
static void took_plain(struct turn *t, size_t n)
{
    if (t->frame_size == 0) {
        t->head_at += n;
        if (t->head_at == FL_FRAME_HEAD) {
            int r = fl_frame_length(t->head, t->max_received, &t->frame_size, &t->e);
            if (r < 0) {
                t->status = r;
            }
        }
        return;
    }
    t->frame_at += n;
    if (t->frame_at == t->frame_size) {
        bool large = t->frame == t->buffer;
        int r = take_frame(t);
        if (r < 0) {
            t->status = r;
        }
        /* The order of events is kept by ending the turn; a buffer goes to who waits for one. */
        t->more = t->more || t->sink_ended.yes || large || t->message_count == MESSAGES_MAX;
    }
}

/* Bytes from the socket, exactly as many as TLS lacks. Negative: none now. */
static ssize_t socket_receive(struct turn *t, struct scratch *s)
{
    size_t want = fl_tls_want(t->tls);
    ssize_t n;

    do {
        n = recv(t->fd, s->in, want < sizeof s->in ? want : sizeof s->in, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        t->status = fl_fail_sys(&t->e, FL_R_PEER_CLOSED, errno, "receive");
    }
    t->got += n > 0 ? (uint64_t)n : 0;
    return n;
}

static bool receive_turn(struct turn *t, struct scratch *s)
{
    uint8_t *place = NULL, nowhere[1];
    bool open = fl_tls_state(t->tls) == FL_TLS_OPEN;
    size_t size = open ? next_place(t, &place) : 0;

    if (t->status < 0 || (open && size == 0)) {
        return false;
    }
    /* What TLS still holds, or has to say without being asked: a client speaks first. */
    struct fl_tls_io io = {.plain = place, .plain_size = size};
    if (pump(t, &io, s) == 0 && io.ret_plain > 0) {
        took_plain(t, io.ret_plain);
    }
    if (t->status < 0 || io.ret_plain > 0 || io.ret_out > 0 ||
        open != (fl_tls_state(t->tls) == FL_TLS_OPEN)) {
        return true;
    }
    ssize_t n = socket_receive(t, s);
    if (n < 0) {
        return false;
    }
    io = (struct fl_tls_io){.in = s->in, .in_size = (size_t)n, .plain = place, .plain_size = size};
    if (n == 0) {
        io.eof = true;
        io.plain = nowhere;
        io.plain_size = sizeof nowhere;
    }
    if (pump(t, &io, s) == 0 && io.ret_plain > 0) {
        took_plain(t, io.ret_plain);
    }
    return true;
}

/* ---- the turn ------------------------------------------------------------------------------ */

static void forget_results(struct turn *t)
{
    t->opened = t->more = t->wants_buffer = false;
    t->message_count = 0;
    t->sink_ended.yes = t->source_ended.yes = false;
    t->sink_ended.e.code = t->source_ended.e.code = 0;
    t->sink_ended.e.msg[0] = t->source_ended.e.msg[0] = 0;
    t->got = t->sent = t->frames_in = t->frames_out = 0;
}

void fl_turn_run(struct turn *t)
{
    struct scratch s;
    bool was_open = t->tls && fl_tls_state(t->tls) == FL_TLS_OPEN, moved = true;

    forget_results(t);
    if (!t->tls) {
        t->status = fl_tls_new(t->conf, t->server_name, &t->tls, &t->e);
    }
    if (t->sink_set && t->sink.offset == t->sink.size) {
        end_sink(t, 0); /* nothing was missing */
        t->more = true;
    }
    while (t->status == 0 && moved && !t->more && !t->peer_closed) {
        moved = send_turn(t, &s);
        if (t->status == 0 && !t->flush) {
            moved |= receive_turn(t, &s);
        }
        bool open = t->tls && fl_tls_state(t->tls) == FL_TLS_OPEN;
        t->opened = t->opened || (open && !was_open);
        t->peer_closed = !t->flush && fl_tls_state(t->tls) == FL_TLS_CLOSED;
        t->more = t->more || (moved && t->got + t->sent >= TURN_BYTES) || t->source_ended.yes;
    }
    if (t->status == 0 && t->send_errno != 0 && !t->more && !t->peer_closed) {
        t->status = fl_fail_sys(&t->e, FL_R_PEER_CLOSED, t->send_errno, "send");
    }
}

void fl_turn_fini(struct turn *t)
{
    if (t->frame != t->buffer) {
        fl_free(t->frame);
    }
    t->frame = t->buffer = NULL;
    fl_bytes_free(&t->sending);
    fl_bytes_free(&t->rest);
    fl_tls_free(t->tls);
    t->tls = NULL;
    fl_tls_conf_unref(t->conf);
    t->conf = NULL;
}
