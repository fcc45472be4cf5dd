/*
 * A stream: one TCP connection carrying TLS carrying frames; both ends use it. The loop thread sees
 * whole, validated messages; decrypting, parsing, writing received chunks to disk, reading and
 * encrypting sent ones are jobs on the stream's lane.
 *
 *     socket -> ring of one buffer from the pool -> [job] tls -> frames -> messages -> loop:
 * on_message
 *                                                              \-> chunks -> sink (still in the
 * job)
 *
 * Backpressure: an idle stream owns no frame buffer; the pool has a fixed number; a stream without
 * a buffer does not read. Sends queue at most FL_STREAM_QUEUE_MAX bytes of messages; objects are
 * pulled piece by piece as the socket drains.
 *
 * Half-open peers: each side sends a Ping when it has sent nothing for heartbeat_ms; silence for 3
 * heartbeats closes with FL_R_PEER_SILENT. Handshake and Hello have a deadline (10 s).
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
    FL_STREAM_HANDSHAKE_MS = 10 * 1000,
};

struct fl_stream;
struct fl_pool; /* frame buffers shared by all streams of a daemon */

/* `buffers` frame buffers of FL_FRAME_MAX + head; with more than that many busy streams the rest
 * wait. */
int fl_pool_new(uint32_t buffers, struct fl_pool **ret, struct fl_err *e);
void fl_pool_free(struct fl_pool *p);
size_t fl_pool_bytes(const struct fl_pool *p); /* for the stated memory ceiling */

/* Where received chunks go. `write` runs in the stream's job, in order, offsets without gaps
 * beginning at the agreed one. An error closes nothing by itself: it is reported to on_sink_end. */
struct fl_sink {
    int (*write)(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                 struct fl_err *e); /* [job] */
    void *arg;
    struct fl_digest digest; /* chunks must name it */
    uint64_t offset, size;   /* from, and the object's full length */
};

/* What is sent as chunks: `read` fills up to `size` bytes at `offset`, in the stream's job. */
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
    /* The sink got its last byte, or failed. It is no longer used. */
    void (*on_sink_end)(void *owner, struct fl_stream *s, void *sink_arg, int status,
                        const struct fl_err *e);
    /* The source's last byte was handed to TLS, or reading it failed. It is no longer used. */
    void (*on_source_end)(void *owner, struct fl_stream *s, void *source_arg, int status,
                          const struct fl_err *e);
    /* The end, exactly once, after which s is gone and no job runs with its sink or source.
     * why->code 0 = orderly. */
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
    uint32_t max_frame; /* <= FL_FRAME_MAX */
};

struct fl_listener;

/* `accepting` is asked for every new connection: it fills `conf` (events, owner, current tls) or
 * returns false to drop it (too many half-open connections). Port 0 picks one; fl_listener_port
 * tells. */
int fl_listen(uv_loop_t *loop, const char *address, uint16_t port,
              bool (*accepting)(void *arg, struct fl_stream_conf *conf), void *arg,
              struct fl_listener **ret, struct fl_err *e);
uint16_t fl_listener_port(const struct fl_listener *l);
void fl_listener_close(struct fl_listener *l);

/* Client. Resolves `host`, connects, checks the certificate against `server_name`. Always answers
 * by on_open or on_close. */
int fl_stream_connect(const struct fl_stream_conf *conf, const char *host, uint16_t port,
                      const char *server_name, struct fl_stream **ret, struct fl_err *e);

/* Queues a copy of the message. -FL_R_LIMIT: the peer does not read; close it. Chunk is refused:
 * use fl_stream_send_source. */
int fl_stream_send(struct fl_stream *s, const Cohort__Frame *frame);
/* One at a time: -FL_R_BUSY while another is being sent. fl_stream_stop_source ends it early
 * (on_source_end with -FL_R_CANCELLED). */
int fl_stream_send_source(struct fl_stream *s, const struct fl_source *source);
void fl_stream_stop_source(struct fl_stream *s);
/* Chunks are accepted only while a sink is set. One at a time (-FL_R_BUSY). */
int fl_stream_set_sink(struct fl_stream *s, const struct fl_sink *sink);
void fl_stream_drop_sink(struct fl_stream *s);

/* Sends Bye (when why != 0), what is queued, close_notify; then on_close. Idempotent. */
void fl_stream_close(struct fl_stream *s, int why, const char *text, uint32_t retry_ms);

void *fl_stream_owner(const struct fl_stream *s);
void fl_stream_set_owner(struct fl_stream *s, void *owner);
void fl_stream_set_heartbeat(struct fl_stream *s, uint32_t heartbeat_ms);
struct fl_stream_counts {
    uint64_t bytes_in, bytes_out, frames_in, frames_out;
};
void fl_stream_counts(const struct fl_stream *s, struct fl_stream_counts *ret);

#endif
