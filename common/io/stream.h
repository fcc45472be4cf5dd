/*
 * A stream: one TCP connection carrying TLS carrying frames; both ends use it. The loop thread sees
 * whole, validated messages; receiving, decrypting, parsing, writing received chunks to their sink,
 * reading, encrypting and sending are one job on the stream's lane.
 *
 *     socket -> [job] TLS -> frames -> messages -> loop: on_message
 *                                   \-> chunks -> sink (still in the job)
 *
 * Backpressure: an idle stream owns no buffer at all. Frames up to FL_STREAM_CHUNK are assembled in
 * memory of exactly their size; a larger one needs a frame buffer, of which the pool has a fixed
 * number, and a stream that gets none does not read. Sends queue at most FL_STREAM_QUEUE_MAX bytes
 * of messages; objects are pulled piece by piece as the socket drains.
 *
 * Half-open peers: each side sends a Ping when it has sent nothing for heartbeat_ms; silence for 3
 * heartbeats closes with FL_R_PEER_SILENT. TLS has a deadline, the first message has one, and so
 * has every frame that was begun.
 *
 * Callbacks never run inside a call to a function of this page; they come from the loop. After
 * fl_stream_close no on_message comes any more.
 */
#ifndef FL_IO_STREAM_H
#define FL_IO_STREAM_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/io/work.h"
#include "common/wire/msg.h"
#include "common/wire/tls.h"

#include <stdint.h>
#include <uv.h>

enum {
    FL_STREAM_QUEUE_MAX = 512 * 1024,
    FL_STREAM_HANDSHAKE_MS = 10 * 1000, /* TLS, and again for the first message */
    FL_STREAM_FRAME_MS = 30 * 1000,     /* from a frame's first byte to its last */
    FL_STREAM_CLOSE_MS = 3 * 1000,      /* for the last bytes of a stream that is being closed */
    FL_STREAM_CHUNK = 16 * 1024,        /* a frame of ours: one TLS record */
};

struct fl_stream;
struct fl_pool; /* frame buffers shared by all streams of a daemon */

/* `buffers` (at least 1) frame buffers of FL_FRAME_MAX; with more than that many large frames in
 * the making the other streams wait. Memory is touched only when used. Freed when no stream has one
 * any more, that is, after the last on_close. */
int fl_pool_new(uint32_t buffers, struct fl_pool **ret, struct fl_err *e);
void fl_pool_free(struct fl_pool *p);
size_t fl_pool_bytes(const struct fl_pool *p); /* for the stated memory ceiling */

/*
 * Where received chunks go. `write` runs in the stream's job, in order, offsets without gaps
 * beginning at the agreed one. Every sink that was set ends exactly once by on_sink_end, after
 * which the stream does not touch it: with status 0 at the last byte; with write's error, which
 * closes nothing by itself; with -FL_R_CANCELLED after fl_stream_drop_sink and before on_close.
 * Chunks of that object still on their way are then thrown away.
 */
struct fl_sink {
    int (*write)(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                 struct fl_err *e); /* [job] */
    void *arg;
    struct fl_digest digest; /* chunks must name it */
    uint64_t offset, size;   /* from, and the object's full length */
};

/* What is sent as chunks: `read` fills exactly `size` bytes at `offset`, in the stream's job. Every
 * source that was accepted ends exactly once by on_source_end, as a sink does. */
struct fl_source {
    int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e); /* [job] */
    void *arg;
    struct fl_digest digest;
    uint64_t offset, size;
};

struct fl_stream_events {
    /* TLS is up, the peer is who its certificate says. */
    void (*on_open)(void *owner, struct fl_stream *s, const struct fl_identity *peer);
    /* A message other than Chunk, Ping, Pong. Valid during the call. */
    void (*on_message)(void *owner, struct fl_stream *s, const Cohort__Frame *frame);
    /* The sink got its last byte, failed, or was dropped. NULL if no sink is ever set; likewise the
     * next. */
    void (*on_sink_end)(void *owner, struct fl_stream *s, void *sink_arg, int status,
                        const struct fl_err *e);
    /* The source's last byte was handed to the socket, or reading it failed, or it was stopped. */
    void (*on_source_end)(void *owner, struct fl_stream *s, void *source_arg, int status,
                          const struct fl_err *e);
    /* The end, exactly once, after which s is gone and no job runs for it. why->code 0 = orderly:
     * we closed with why = 0, or the peer said close_notify. After fl_stream_close(s, why, text)
     * it is -why with text. */
    void (*on_close)(void *owner, struct fl_stream *s, const struct fl_err *why);
};

struct fl_stream_conf {
    uv_loop_t *loop;
    struct fl_work *work;
    struct fl_pool *pool;
    struct fl_tls_conf *tls; /* a reference is taken for the stream's life */
    const struct fl_stream_events *events;
    void *owner;
    uint32_t heartbeat_ms;
    uint32_t max_frame;    /* received before fl_stream_set_max_frame; 0 = FL_FRAME_HELLO_MAX */
    uint32_t handshake_ms; /* 0 = FL_STREAM_HANDSHAKE_MS */
};

struct fl_listener;

/* `accepting` is asked for every new connection: it fills `conf` (zeroed; loop is set) or returns
 * false to drop it (too many half-open connections). `ret_stream` of a dropped one does not exist;
 * of others it is first seen in on_open or on_close. Port 0 picks one; fl_listener_port tells. */
int fl_listen(uv_loop_t *loop, const char *address, uint16_t port,
              bool (*accepting)(void *arg, struct fl_stream_conf *conf), void *arg,
              struct fl_listener **ret, struct fl_err *e);
uint16_t fl_listener_port(const struct fl_listener *l);
void fl_listener_close(struct fl_listener *l); /* NULL is fine; its memory goes on the loop */

/* Client. Resolves `host`, connects, checks the certificate against `server_name`. When it returned
 * 0 it answers by on_open or on_close. */
int fl_stream_connect(const struct fl_stream_conf *conf, const char *host, uint16_t port,
                      const char *server_name, struct fl_stream **ret, struct fl_err *e);

/* Queues a copy of the message. -FL_R_LIMIT: the peer does not read; close it. -FL_R_MSG_FIELD: our
 * own message breaks the rules of WIRE.md. -FL_R_PEER_CLOSED: the stream is being closed. Chunk is
 * refused: use fl_stream_send_source. */
int fl_stream_send(struct fl_stream *s, const Cohort__Frame *frame);
/* One at a time: -FL_R_BUSY until on_source_end of the one before. fl_stream_stop_source ends it
 * early. */
int fl_stream_send_source(struct fl_stream *s, const struct fl_source *source);
void fl_stream_stop_source(struct fl_stream *s);
/* Chunks are accepted only while a sink is set. One at a time: -FL_R_BUSY until on_sink_end of the
 * one before. */
int fl_stream_set_sink(struct fl_stream *s, const struct fl_sink *sink);
void fl_stream_drop_sink(struct fl_stream *s);

/* Sends Bye (when why != 0), what is queued, close_notify; then on_close. Idempotent. */
void fl_stream_close(struct fl_stream *s, int why, const char *text, uint32_t retry_ms);

void *fl_stream_owner(const struct fl_stream *s);
void fl_stream_set_owner(struct fl_stream *s, void *owner);
void fl_stream_set_heartbeat(struct fl_stream *s, uint32_t heartbeat_ms);
/* After Welcome: the longest frame taken from now on, and the longest the peer takes (both at most
 * FL_FRAME_MAX, at least FL_FRAME_HELLO_MAX). */
void fl_stream_set_max_frame(struct fl_stream *s, uint32_t received, uint32_t sent);
struct fl_stream_counts {
    uint64_t bytes_in, bytes_out; /* on the socket */
    uint64_t frames_in, frames_out;
};
void fl_stream_counts(const struct fl_stream *s, struct fl_stream_counts *ret);
/* The peer's address, for the log; "" before a client is connected. */
const char *fl_stream_address(const struct fl_stream *s);

#endif
