/* Inside the room: what the files of the stream share. See stream.c for how it works. */
#ifndef FL_IO_STREAM_IN_H
#define FL_IO_STREAM_IN_H

#include "common/io/stream.h"

#include <netdb.h>

enum {
    MESSAGES_MAX = 8,               /* handed to the loop per turn */
    TURN_BYTES = 512 * 1024,        /* moved per turn, then others have theirs */
    RECORD_ROOM = 16 * 1024 + 1024, /* a TLS record with everything around it */
    REST_MAX = 64 * 1024,           /* cipher text the socket did not take */
    LINGER_MS = 1000,
};

/* A row of bytes that is taken from its front. */
struct bytes {
    uint8_t *data;
    size_t at, size, room;
};

/* Appends; false when memory ends or more than max bytes would wait. */
bool fl_bytes_add(struct bytes *b, const void *data, size_t size, size_t max);
static inline size_t fl_bytes_left(const struct bytes *b)
{
    return b->size - b->at;
}
/* Takes n bytes away; an empty row owns no memory. */
void fl_bytes_took(struct bytes *b, size_t n);
void fl_bytes_free(struct bytes *b);

/* The end of a sink or source, found in a job and told on the loop. */
struct ended {
    bool yes;
    int status;
    struct fl_err e;
};

/*
 * The part of a stream that its job works on. While a job is in flight only the job touches it,
 * otherwise only the loop.
 */
struct turn {
    /* what the loop says */
    int fd;
    struct fl_tls_conf *conf;
    const char *server_name; /* NULL on the server */
    size_t max_received, max_sent;
    bool flush; /* send what is left, say goodbye, read nothing */
    /* what lasts from turn to turn */
    struct fl_tls *tls;
    bool sink_set, source_set;
    struct fl_sink sink;
    struct fl_source source;
    struct fl_digest stale; /* chunks of this object, so many bytes, are still on their way */
    uint64_t stale_left;
    struct bytes sending; /* plain: whole frames */
    struct bytes rest;    /* cipher: what the socket did not take */
    uint8_t head[FL_FRAME_HEAD];
    size_t head_at;
    size_t frame_size, frame_at; /* size 0: the head is not complete */
    uint8_t *frame;              /* own memory, or the pool's buffer */
    uint8_t *buffer;             /* lent by the pool */
    /* what the job found */
    int status; /* negative: the end */
    struct fl_err e;
    int send_errno; /* the socket takes nothing more */
    bool opened, peer_closed, flushed;
    bool more;         /* there is more to do at once */
    bool wants_buffer; /* the frame that was begun needs one */
    Cohort__Frame *messages[MESSAGES_MAX];
    unsigned message_count;
    struct ended sink_ended, source_ended;
    uint64_t got, sent, frames_in, frames_out;
};

/* [job] Moves bytes both ways until nothing moves or it is someone else's turn. */
void fl_turn_run(struct turn *t);
/* Frees what a turn owns; the buffer goes back to the pool before. */
void fl_turn_fini(struct turn *t);

/* A connected socket on the loop; outlives its stream to linger. */
struct fl_socket {
    uv_poll_t poll;
    uv_timer_t timer;
    int fd, handles;
    struct fl_stream *stream; /* NULL: lingering or closing */
};

/* Takes fd (closed on failure, too). */
struct fl_socket *fl_socket_new(uv_loop_t *loop, int fd, struct fl_stream *stream);
void fl_socket_poll(struct fl_socket *k, int events); /* 0 stops */
/* Closes: at once, or after the peer has had time to read our last bytes. */
void fl_socket_close(struct fl_socket *k, bool linger);

enum ending { STAYS, FLUSHES, ENDS };

struct fl_stream {
    uv_loop_t *loop;
    uv_timer_t timer;
    struct fl_socket *socket;
    struct fl_lane *lane;
    struct fl_job job;
    bool in_job, again, connected, open, heard_message, blocked;
    bool late; /* the timer fired during a job */
    enum ending ending;
    struct fl_err why;
    bool why_set;
    const struct fl_stream_events *events;
    void *owner;
    struct fl_pool *pool;
    bool waiting; /* for a buffer */
    struct fl_stream *next_waiting;
    uint8_t *granted; /* the next turn's */
    struct turn turn;
    struct bytes queued; /* messages, until the next turn begins */
    size_t sending_left; /* of turn.sending when the last turn began or ended */
    /* until the next turn begins or the last one has ended: */
    bool sink_staged, sink_dropped, source_staged, source_stopped;
    bool has_sink, has_source; /* as the owner sees it */
    struct fl_sink staged_sink;
    struct fl_source staged_source;
    size_t max_received, max_sent;
    uint32_t heartbeat_ms, handshake_ms;
    uint64_t deadline_ms; /* of the phase; 0 = none */
    uint64_t heard_ms, sent_ms, frame_ms, moved_ms;
    uint64_t nonce;
    struct fl_stream_counts counts;
    char address[64];
    /* a client on its way */
    struct resolving *resolving;
    struct addrinfo *addresses, *next_address;
    char *server_name;
};

struct fl_stream *fl_stream_new(uv_loop_t *loop);
/* After `accepting` or from connect; takes a reference of conf->tls. */
void fl_stream_configure(struct fl_stream *s, const struct fl_stream_conf *conf);
/* The socket is connected. */
void fl_stream_start(struct fl_stream *s);
/* Ends it from the loop, soon, with this reason; never inside the call. */
void fl_stream_fail(struct fl_stream *s, enum ending how, const struct fl_err *e);
void fl_stream_ready(struct fl_stream *s); /* the socket can be read or written */
/* Frees one that was never configured. */
void fl_stream_discard(struct fl_stream *s);
/* From connect.c: a client that is not yet connected; the socket said something, or the end. */
void fl_connect_ready(struct fl_stream *s);
void fl_connect_abandon(struct fl_stream *s);
void fl_socket_options(int fd);
void fl_stream_set_address(struct fl_stream *s);

/* The pool. A stream that gets no buffer waits in line. */
uint8_t *fl_pool_take(struct fl_pool *p, struct fl_stream *s);
void fl_pool_give(struct fl_pool *p, uint8_t *buffer);
void fl_pool_forget(struct fl_pool *p, struct fl_stream *s);
/* Its turn has come; s owns the buffer now. */
void fl_stream_got_buffer(struct fl_stream *s, uint8_t *buffer);

#endif
