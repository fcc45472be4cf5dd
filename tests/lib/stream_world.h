/*
 * Both ends of streams on one loop, for tests: a listener, a client's configuration, and for each
 * stream a record of everything it told. Run until a condition, never sleep.
 */
#ifndef TESTS_LIB_STREAM_WORLD_H
#define TESTS_LIB_STREAM_WORLD_H

#include "common/base/mem.h"
#include "common/io/stream.h"
#include "tests/lib/certs.h"

#include <check.h>
#include <string.h>

enum { SIDES_MAX = 256, SAID_MAX = 64 };

struct side {
    struct world *world;
    struct fl_stream *stream; /* NULL after on_close */
    int opened, closed, messages;
    int sink_ends, source_ends, sink_status, source_status;
    char peer[64];
    struct fl_err why;
    int said[SAID_MAX]; /* kinds of the messages, in order */
    unsigned bye_reason;
    char bye_text[300];
    void (*on_message)(struct side *side, const Cohort__Frame *frame);
    void (*on_open)(struct side *side);
    void (*on_sink_end)(struct side *side);
    /* an object in memory, for sinks and sources */
    uint8_t *object;
    uint64_t object_size, object_at; /* touched by the job */
    uint64_t fail_at;                /* 0 = never */
    void *extra;
};

struct world {
    uv_loop_t loop;
    uv_timer_t limit;
    uv_async_t wake; /* for other threads that change a condition */
    bool too_long;
    struct fl_work *work;
    struct fl_pool *pool;
    struct fl_tls_conf *server_tls, *client_tls;
    struct fl_listener *listener;
    struct fl_stream_conf server; /* what new connections get */
    bool refuse;
    void (*on_open)(struct side *side);
    void (*on_message)(struct side *side, const Cohort__Frame *frame);
    void (*on_sink_end)(struct side *side);
    struct side sides[SIDES_MAX];
    int side_count, accepted;
};

static inline void world_on_open(void *owner, struct fl_stream *s, const struct fl_identity *peer)
{
    struct side *side = owner;

    side->stream = s;
    side->opened++;
    snprintf(side->peer, sizeof side->peer, "%s", peer->name);
    if (side->on_open) {
        side->on_open(side);
    }
}

static inline void world_on_message(void *owner, struct fl_stream *s, const Cohort__Frame *frame)
{
    struct side *side = owner;

    (void)s;
    ck_assert_int_eq(side->closed, 0);
    ck_assert_int_eq(side->opened, 1);
    if (side->messages < SAID_MAX) {
        side->said[side->messages] = (int)frame->body_case;
    }
    side->messages++;
    if (frame->body_case == COHORT__FRAME__BODY_BYE) {
        side->bye_reason = frame->bye->reason;
        snprintf(side->bye_text, sizeof side->bye_text, "%s", frame->bye->text);
    }
    if (side->on_message) {
        side->on_message(side, frame);
    }
}

static inline void world_on_sink_end(void *owner, struct fl_stream *s, void *arg, int status,
                                     const struct fl_err *e)
{
    struct side *side = owner;

    (void)s;
    (void)arg;
    ck_assert_int_eq(side->closed, 0);
    ck_assert(status == 0 || e->msg[0]);
    side->sink_ends++;
    side->sink_status = status;
    if (side->on_sink_end) {
        side->on_sink_end(side);
    }
}

static inline void world_on_source_end(void *owner, struct fl_stream *s, void *arg, int status,
                                       const struct fl_err *e)
{
    struct side *side = owner;

    (void)s;
    (void)arg;
    ck_assert_int_eq(side->closed, 0);
    ck_assert(status == 0 || e->msg[0]);
    side->source_ends++;
    side->source_status = status;
}

static inline void world_on_close(void *owner, struct fl_stream *s, const struct fl_err *why)
{
    struct side *side = owner;

    (void)s;
    side->closed++;
    ck_assert_int_eq(side->closed, 1);
    side->why = *why;
    side->stream = NULL;
}

static const struct fl_stream_events world_events = {
    .on_open = world_on_open,
    .on_message = world_on_message,
    .on_sink_end = world_on_sink_end,
    .on_source_end = world_on_source_end,
    .on_close = world_on_close,
};

static inline struct side *world_side(struct world *w)
{
    ck_assert_int_lt(w->side_count, SIDES_MAX);
    struct side *side = &w->sides[w->side_count++];
    side->world = w;
    return side;
}

static inline bool world_accepting(void *arg, struct fl_stream_conf *conf)
{
    struct world *w = arg;

    if (w->refuse) {
        return false;
    }
    struct side *side = world_side(w);
    side->on_open = w->on_open;
    side->on_message = w->on_message;
    side->on_sink_end = w->on_sink_end;
    *conf = w->server;
    conf->owner = side;
    w->accepted++;
    return true;
}

static inline void world_woken(uv_async_t *wake)
{
    (void)wake; /* the loop looks at its condition again */
}

static inline void world_init_with(struct world *w, const char *server, const char *crl,
                                   uint32_t buffers)
{
    static const unsigned threads[FL_WORK_CLASSES] = {3, 1, 1};
    struct fl_err e = {0};

    memset(w, 0, sizeof *w);
    ck_assert_int_eq(uv_loop_init(&w->loop), 0);
    uv_timer_init(&w->loop, &w->limit);
    ck_assert_int_eq(uv_async_init(&w->loop, &w->wake, world_woken), 0);
    ck_assert_int_eq(fl_work_new(&w->loop, threads, &w->work, &e), 0);
    ck_assert_int_eq(fl_pool_new(buffers, &w->pool, &e), 0);
    w->server_tls = certs_conf(true, server, crl);
    w->client_tls = certs_conf(false, "site-1", NULL);
    w->server = (struct fl_stream_conf){.loop = &w->loop,
                                        .work = w->work,
                                        .pool = w->pool,
                                        .tls = w->server_tls,
                                        .events = &world_events,
                                        .heartbeat_ms = 20000};
    ck_assert_msg(fl_listen(&w->loop, "127.0.0.1", 0, world_accepting, w, &w->listener, &e) == 0,
                  "%s", e.msg);
}

static inline void world_init(struct world *w)
{
    world_init_with(w, "server", NULL, 4);
}

static inline void world_too_long(uv_timer_t *timer)
{
    ((struct world *)timer->data)->too_long = true;
}

static inline void world_begin(struct world *w, uint64_t limit_ms)
{
    w->too_long = false;
    w->limit.data = w;
    uv_update_time(&w->loop);
    uv_timer_start(&w->limit, world_too_long, limit_ms, 0);
}

/* Runs the loop until the condition holds; fails after two minutes: machines are shared. */
#define RUN_UNTIL(w, condition)                                                                    \
    do {                                                                                           \
        world_begin(w, 120000);                                                                    \
        while (!(condition)) {                                                                     \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                       \
            ck_assert_msg(!(w)->too_long, "never came: %s", #condition);                           \
        }                                                                                          \
        uv_timer_stop(&(w)->limit);                                                                \
    } while (0)

/* Runs the loop for so long, for what must not happen. */
static inline void run_for(struct world *w, uint64_t ms)
{
    world_begin(w, ms);
    while (!w->too_long) {
        uv_run(&w->loop, UV_RUN_ONCE);
    }
}

static inline struct side *world_connect_as(struct world *w, struct fl_tls_conf *tls,
                                            const char *name, uint32_t heartbeat_ms)
{
    struct side *side = world_side(w);
    struct fl_stream_conf conf = w->server;
    struct fl_err e = {0};

    conf.tls = tls;
    conf.owner = side;
    conf.heartbeat_ms = heartbeat_ms;
    ck_assert_msg(fl_stream_connect(&conf, "127.0.0.1", fl_listener_port(w->listener), name,
                                    &side->stream, &e) == 0,
                  "%s", e.msg);
    return side;
}

static inline struct side *world_connect(struct world *w)
{
    return world_connect_as(w, w->client_tls, "localhost", w->server.heartbeat_ms);
}

/* The two ends of one connection, open. */
static inline void world_pair(struct world *w, struct side **ret_client, struct side **ret_server)
{
    struct side *client = world_connect(w);
    int at = w->side_count;

    RUN_UNTIL(w, w->side_count > at && client->opened && w->sides[at].opened);
    *ret_client = client;
    *ret_server = &w->sides[at];
}

static inline void world_fini(struct world *w)
{
    for (int i = 0; i < w->side_count; i++) {
        if (w->sides[i].stream) {
            fl_stream_close(w->sides[i].stream, 0, NULL, 0);
        }
    }
    for (int i = 0; i < w->side_count; i++) {
        RUN_UNTIL(w, w->sides[i].closed);
    }
    for (int i = 0; i < w->side_count; i++) {
        fl_free(w->sides[i].object);
    }
    fl_listener_close(w->listener);
    uv_close((uv_handle_t *)&w->limit, NULL);
    uv_close((uv_handle_t *)&w->wake, NULL);
    fl_work_free(w->work);
    fl_pool_free(w->pool);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&w->loop), 0);
    fl_tls_conf_unref(w->server_tls);
    fl_tls_conf_unref(w->client_tls);
}

/* ---- objects ---- */

static inline void make_object(uint8_t **ret, uint64_t size, struct fl_digest *digest)
{
    uint8_t *data = fl_new(size, 1);

    for (uint64_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 2654435761u >> 23);
    }
    fl_digest_of(data, size, digest);
    *ret = data;
}

static inline int object_write(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                               struct fl_err *e)
{
    struct side *side = arg;

    if (side->fail_at && offset >= side->fail_at) {
        return fl_fail(e, FL_R_DISK_FULL, "no space left");
    }
    if (offset != side->object_at || offset + size > side->object_size) {
        return fl_fail(e, FL_R_INTERNAL, "the stream does not keep its promise");
    }
    memcpy(side->object + offset, data, size);
    side->object_at += size;
    return 0;
}

static inline int object_read(void *arg, uint64_t offset, uint8_t *to, size_t size,
                              struct fl_err *e)
{
    struct side *side = arg;

    if (side->fail_at && offset >= side->fail_at) {
        return fl_fail(e, FL_R_STORE_IO, "cannot be read");
    }
    memcpy(to, side->object + offset, size);
    return 0;
}

static inline int give_sink(struct side *side, const struct fl_digest *digest, uint64_t from,
                            uint64_t size)
{
    struct fl_sink sink = {
        .write = object_write, .arg = side, .digest = *digest, .offset = from, .size = size};

    if (!side->object) {
        side->object = fl_new(size, 1);
    }
    side->object_size = size;
    side->object_at = from;
    return fl_stream_set_sink(side->stream, &sink);
}

static inline int give_source(struct side *side, const struct fl_digest *digest, uint64_t from,
                              uint64_t size)
{
    struct fl_source source = {
        .read = object_read, .arg = side, .digest = *digest, .offset = from, .size = size};

    return fl_stream_send_source(side->stream, &source);
}

static inline int send_ask(struct side *side)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Ask ask = COHORT__ASK__INIT;

    frame.body_case = COHORT__FRAME__BODY_ASK;
    frame.ask = &ask;
    return fl_stream_send(side->stream, &frame);
}

#endif
