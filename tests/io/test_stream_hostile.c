/* Streams whose peer is broken, slow, silent or wicked. The peer is a thread with a blocking socket
 * of its own; what it saw is looked at when it has ended. */
#include "common/io/stream_in.h"
#include "tests/lib/check_main.h"
#include "tests/lib/raw_client.h"
#include "tests/lib/stream_world.h"

#include <poll.h>
#include <pthread.h>

static struct world w;

struct script {
    void (*play)(struct script *s);
    uint16_t port;
    struct fl_tls_conf *tls;
    pthread_t thread;
    atomic_bool over;
    unsigned bye; /* what the peer saw */
    size_t number;
    struct fl_digest digest;
    const uint8_t *object;
    atomic_bool may_end;
};

static void *play_script(void *arg)
{
    struct script *s = arg;

    s->play(s);
    atomic_store(&s->over, true);
    uv_async_send(&w.wake);
    return NULL;
}

static void begin_script(struct script *s, void (*play)(struct script *s))
{
    s->play = play;
    s->port = fl_listener_port(w.listener);
    s->tls = w.client_tls;
    ck_assert_int_eq(pthread_create(&s->thread, NULL, play_script, s), 0);
}

static void end_script(struct script *s)
{
    RUN_UNTIL(&w, atomic_load(&s->over));
    pthread_join(s->thread, NULL);
}

/* Plays it against a new server side and returns that, closed. */
static struct side *against(struct script *s, void (*play)(struct script *s))
{
    int at = w.side_count;

    begin_script(s, play);
    RUN_UNTIL(&w, w.side_count > at && w.sides[at].closed);
    end_script(s);
    return &w.sides[at];
}

static struct world *given_world(uint32_t heartbeat_ms, uint32_t handshake_ms)
{
    world_init_with(&w, "server", "ca", 1);
    w.server.heartbeat_ms = heartbeat_ms;
    w.server.handshake_ms = handshake_ms;
    return &w;
}

/* ---- before and during the handshake ---- */

static void say_nothing(struct script *s)
{
    int fd = raw_connect_tcp(s->port);
    char byte;

    s->bye = recv(fd, &byte, 1, 0) == 0 ? 0 : 1; /* waits for the end */
    close(fd);
}

static void drip(struct script *s)
{
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    int fd = raw_connect_tcp(s->port);

    /* A byte at a time, for as long as it is taken. */
    for (size_t i = 0; send(fd, hello + (i < 11 ? i : 10), 1, MSG_NOSIGNAL) == 1; i++) {
        char byte;
        struct timeval tick = {.tv_usec = 20000};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
        if (recv(fd, &byte, 1, 0) == 0) {
            break;
        }
    }
    close(fd);
}

static void garbage(struct script *s)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: coordinator\r\n\r\n";
    int fd = raw_connect_tcp(s->port);
    char bytes[512];

    send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
    while (recv(fd, bytes, sizeof bytes, 0) > 0) {
        s->number++;
    }
    close(fd);
}

static void hang_up(struct script *s)
{
    close(raw_connect_tcp(s->port));
}

START_TEST(test_before_tls)
{
    struct script s = {0};

    given_world(20000, 150);
    ck_assert_int_eq(against(&s, say_nothing)->why.code, -FL_R_TIMEOUT);
    ck_assert_int_eq(against(&s, drip)->why.code, -FL_R_TIMEOUT);
    ck_assert_int_eq(against(&s, garbage)->why.code, -FL_R_TLS_RECORD);
    ck_assert_int_eq(against(&s, hang_up)->why.code, -FL_R_TLS_CLOSED);
    world_fini(&w);
}
END_TEST

START_TEST(test_certificates_are_judged_by_both_ends)
{
    static const struct {
        const char *client, *name;
        int server_says, client_says;
        const char *client_text;
    } cases[] = {
        {"revoked", "localhost", -FL_R_TLS_REVOKED, -FL_R_TLS_HANDSHAKE, "revoked"},
        {"foreign", "localhost", -FL_R_TLS_FOREIGN, -FL_R_TLS_HANDSHAKE, "authority"},
        {"expired", "localhost", -FL_R_TLS_EXPIRED, -FL_R_TLS_HANDSHAKE, "expired"},
        {"site-2", "other.test", -FL_R_TLS_HANDSHAKE, -FL_R_TLS_NAME, "host name"},
    };

    given_world(20000, 5000);
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_tls_conf *tls = certs_conf(false, cases[i].client, NULL);
        struct side *client = world_connect_as(&w, tls, cases[i].name, 20000);
        int at = w.side_count;
        RUN_UNTIL(&w, client->closed && w.side_count > at && w.sides[at].closed);
        ck_assert_int_eq(w.sides[at].why.code, cases[i].server_says);
        ck_assert_msg(client->why.code == cases[i].client_says &&
                          strstr(client->why.msg, cases[i].client_text),
                      "%s: %d %s", cases[i].client, client->why.code, client->why.msg);
        ck_assert_int_eq(client->opened + w.sides[at].opened, 0);
        fl_tls_conf_unref(tls);
    }
    world_fini(&w);
}
END_TEST

START_TEST(test_a_listener_may_refuse)
{
    given_world(20000, 5000);
    w.refuse = true;
    struct side *client = world_connect(&w);
    RUN_UNTIL(&w, client->closed);
    ck_assert_int_lt(client->why.code, 0);
    w.refuse = false;
    client = world_connect(&w);
    RUN_UNTIL(&w, client->opened);
    world_fini(&w);
}
END_TEST

/* ---- frames ---- */

static void no_first_message(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);

    while (raw_ping(r) && raw_turn(r, true)) {
        r->plain_size = 0;
    }
    raw_close(r);
}

static void frame_too_long(struct script *s)
{
    static const uint8_t head[] = {0, 0, 0x10, 1};
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_write(r, head, sizeof head);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

static void frame_of_nothing(struct script *s)
{
    static const uint8_t head[] = {0, 0, 0, 0};
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_write(r, head, sizeof head);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

static void frame_of_garbage(struct script *s)
{
    static const uint8_t bytes[] = {0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'};
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_write(r, bytes, sizeof bytes);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

static void chunk_unasked(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_chunk(r, &s->digest, 0, (const uint8_t *)"0123", 4);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

static void cut_in_a_frame(struct script *s)
{
    static const uint8_t bytes[] = {0, 0, 0, 50, 1, 2, 3};
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_write(r, bytes, sizeof bytes);
    raw_close(r);
}

START_TEST(test_frames_that_break_the_rules)
{
    static const struct {
        void (*play)(struct script *s);
        int reason;
        bool bye;
    } cases[] = {
        {frame_too_long, -FL_R_FRAME_SIZE, true},    {frame_of_nothing, -FL_R_FRAME_SIZE, true},
        {frame_of_garbage, -FL_R_FRAME_PARSE, true}, {chunk_unasked, -FL_R_MSG_ORDER, true},
        {cut_in_a_frame, -FL_R_TLS_CLOSED, false},   {no_first_message, -FL_R_TIMEOUT, false},
    };

    given_world(20000, 300);
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct script s = {0};
        struct side *side = against(&s, cases[i].play);
        ck_assert_msg(side->why.code == cases[i].reason, "%zu: %d %s", i, side->why.code,
                      side->why.msg);
        ck_assert_uint_eq(s.bye, cases[i].bye ? (unsigned)-cases[i].reason : 0);
        ck_assert_int_eq(side->messages, 0);
    }
    world_fini(&w);
}
END_TEST

/* A peer that is given a sink when it asks, and then sends wrong chunks. */
static void sink_when_asked(struct side *side, const Cohort__Frame *frame)
{
    struct script *s = w.sides[0].extra;

    (void)frame;
    fl_stream_set_max_frame(side->stream, FL_FRAME_MAX, FL_FRAME_MAX);
    ck_assert_int_eq(give_sink(side, &s->digest, 100, 1000000), 0);
}

static void wait_for_rest(struct raw_client *r)
{
    Cohort__Frame *frame = raw_read(r);
    fl_msg_free(frame);
}

static void tell_go(struct side *side, const Cohort__Frame *frame)
{
    Cohort__Frame answer = COHORT__FRAME__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;

    sink_when_asked(side, frame);
    rest.reason = FL_R_NO_WORK;
    answer.body_case = COHORT__FRAME__BODY_REST;
    answer.rest = &rest;
    ck_assert_int_eq(fl_stream_send(side->stream, &answer), 0);
}

static void chunk_before_its_offset(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_ask(r);
    wait_for_rest(r);
    raw_chunk(r, &s->digest, 0, (const uint8_t *)"0123", 4);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

static void chunk_twice(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_ask(r);
    wait_for_rest(r);
    raw_chunk(r, &s->digest, 100, (const uint8_t *)"0123", 4);
    raw_chunk(r, &s->digest, 100, (const uint8_t *)"0123", 4);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

static void chunk_past_the_end(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);
    uint8_t *bytes = fl_new(FL_CHUNK_MAX, 1);

    raw_ask(r);
    wait_for_rest(r);
    for (uint64_t at = 100; raw_chunk(r, &s->digest, at, bytes, FL_CHUNK_MAX) && at < 2000000;) {
        at += FL_CHUNK_MAX;
    }
    s->bye = raw_read_to_bye(r);
    fl_free(bytes);
    raw_close(r);
}

static void chunk_of_another(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);
    struct fl_digest other = s->digest;

    other.bytes[31] ^= 1;
    raw_ask(r);
    wait_for_rest(r);
    raw_chunk(r, &other, 100, (const uint8_t *)"0123", 4);
    s->bye = raw_read_to_bye(r);
    raw_close(r);
}

START_TEST(test_chunks_that_break_the_rules)
{
    static const struct {
        void (*play)(struct script *s);
        int reason;
    } cases[] = {{chunk_before_its_offset, -FL_R_OFFSET},
                 {chunk_twice, -FL_R_OFFSET},
                 {chunk_past_the_end, -FL_R_OFFSET},
                 {chunk_of_another, -FL_R_MSG_ORDER}};
    struct script s = {.digest = {{7}}};

    given_world(20000, 5000);
    w.on_message = tell_go;
    w.sides[0].extra = &s;
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct side *side = against(&s, cases[i].play);
        ck_assert_msg(side->why.code == cases[i].reason, "%zu: %d %s", i, side->why.code,
                      side->why.msg);
        ck_assert_uint_eq(s.bye, (unsigned)-cases[i].reason);
        ck_assert_int_eq(side->sink_ends, 1);
        ck_assert_int_eq(side->sink_status, -FL_R_CANCELLED);
    }
    world_fini(&w);
}
END_TEST

/* ---- silence and deafness ---- */

static void ask_and_fall_silent(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_ask(r);
    while (recv(r->fd, r->plain, sizeof r->plain, 0) > 0) {
    }
    raw_close(r);
}

START_TEST(test_a_silent_peer_is_found_out)
{
    struct script s = {0};

    given_world(60, 5000);
    uint64_t start = uv_hrtime();
    struct side *side = against(&s, ask_and_fall_silent);
    ck_assert_int_eq(side->why.code, -FL_R_PEER_SILENT);
    ck_assert_int_eq(side->messages, 1);
    ck_assert_uint_ge((uv_hrtime() - start) / 1000000, 180);
    world_fini(&w);
}
END_TEST

/* Says something every few milliseconds and never reads, until told to stop or refused. */
static void never_read(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);

    raw_ask(r);
    while (!atomic_load(&s->may_end) && raw_ping(r)) {
        struct pollfd gone = {.fd = r->fd, .events = POLLRDHUP};
        if (poll(&gone, 1, 5) != 0) {
            break;
        }
    }
    raw_close(r);
}

START_TEST(test_a_peer_that_does_not_read)
{
    struct script s = {0};
    struct fl_digest digest;

    given_world(100, 5000);
    /* Messages: the queue has an end, and says so. */
    int at = w.side_count, sent = 0;
    begin_script(&s, never_read);
    RUN_UNTIL(&w, w.side_count > at && w.sides[at].messages);
    struct side *side = &w.sides[at];
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;
    char text[FL_TEXT_MAX + 1];
    memset(text, 'x', FL_TEXT_MAX);
    text[FL_TEXT_MAX] = 0;
    rest.reason = FL_R_NO_WORK;
    rest.text = text;
    frame.body_case = COHORT__FRAME__BODY_REST;
    frame.rest = &rest;
    int r = 0;
    while (r == 0 && sent < 200000) {
        r = fl_stream_send(side->stream, &frame);
        sent++;
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    ck_assert_int_eq(r, -FL_R_LIMIT);
    ck_assert_int_gt(sent, 1000);
    RUN_UNTIL(&w, side->closed); /* even without being closed by its owner */
    ck_assert(side->why.code == -FL_R_PEER_SILENT || side->why.code == -FL_R_LIMIT);
    atomic_store(&s.may_end, true);
    end_script(&s);

    /* An object: it stalls, and that is noticed. */
    struct script t = {0};
    at = w.side_count;
    begin_script(&t, never_read);
    RUN_UNTIL(&w, w.side_count > at && w.sides[at].messages);
    side = &w.sides[at];
    make_object(&side->object, 20000000, &digest);
    ck_assert_int_eq(give_source(side, &digest, 0, 20000000), 0);
    RUN_UNTIL(&w, side->closed);
    ck_assert_int_eq(side->why.code, -FL_R_PEER_SILENT);
    ck_assert_int_eq(side->source_ends, 1);
    ck_assert_int_eq(side->source_status, -FL_R_CANCELLED);
    atomic_store(&t.may_end, true);
    end_script(&t);
    world_fini(&w);
}
END_TEST

/* Many pings to a record of TLS: the flood has to be faster than the sockets' buffers are large. */
static void flood_with_pings(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);
    uint8_t pings[16 * 1024];
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Ping ping = COHORT__PING__INIT;
    size_t size = 0;

    frame.body_case = COHORT__FRAME__BODY_PING;
    frame.ping = &ping;
    while (size + fl_msg_packed_size(&frame) <= sizeof pings) {
        fl_msg_pack(&frame, pings + size);
        size += fl_msg_packed_size(&frame);
    }
    while (!atomic_load(&s->may_end) && raw_write(r, pings, size)) {
    }
    raw_close(r);
}

START_TEST(test_a_flood_of_pings_ends_at_a_limit)
{
    struct script s = {0};

    given_world(20000, 20000);
    int at = w.side_count;
    begin_script(&s, flood_with_pings);
    RUN_UNTIL(&w, w.side_count > at && w.sides[at].closed);
    atomic_store(&s.may_end, true);
    end_script(&s);
    ck_assert_int_eq(w.sides[at].why.code, -FL_R_LIMIT);
    world_fini(&w);
}
END_TEST

/* ---- the pool ---- */

enum { OBJECT = 2 * 1024 * 1024 };

static void upload_in_large_chunks(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);
    bool good = raw_ask(r);

    wait_for_rest(r);
    for (uint64_t at = 0; at < OBJECT && good; at += FL_CHUNK_MAX) {
        good = raw_chunk(r, &s->digest, at, s->object + at, FL_CHUNK_MAX);
    }
    Cohort__Frame *frame = raw_read(r); /* the server says that it has everything */
    s->number = good && frame && frame->body_case == COHORT__FRAME__BODY_REST;
    fl_msg_free(frame);
    raw_close(r);
}

static void whole_object_when_asked(struct side *side, const Cohort__Frame *frame)
{
    struct script *s = w.sides[0].extra;
    Cohort__Frame answer = COHORT__FRAME__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;

    (void)frame;
    fl_stream_set_max_frame(side->stream, FL_FRAME_MAX, FL_FRAME_MAX);
    ck_assert_int_eq(give_sink(side, &s->digest, 0, OBJECT), 0);
    rest.reason = FL_R_NO_WORK;
    answer.body_case = COHORT__FRAME__BODY_REST;
    answer.rest = &rest;
    ck_assert_int_eq(fl_stream_send(side->stream, &answer), 0);
}

static void rest_when_all_there(struct side *side)
{
    Cohort__Frame answer = COHORT__FRAME__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;

    ck_assert_int_eq(side->sink_status, 0);
    rest.reason = FL_R_NO_WORK;
    answer.body_case = COHORT__FRAME__BODY_REST;
    answer.rest = &rest;
    ck_assert_int_eq(fl_stream_send(side->stream, &answer), 0);
}

START_TEST(test_many_large_frames_share_one_buffer)
{
    enum { COUNT = 5 };
    static struct script s[COUNT];
    uint8_t *object;
    struct fl_digest digest;

    memset(s, 0, sizeof s);
    given_world(20000, 20000); /* one buffer */
    ck_assert_uint_eq(fl_pool_bytes(w.pool), FL_FRAME_MAX);
    w.on_message = whole_object_when_asked;
    w.on_sink_end = rest_when_all_there;
    make_object(&object, OBJECT, &digest);
    w.sides[0].extra = &s[0];
    for (int i = 0; i < COUNT; i++) {
        s[i].digest = digest;
        s[i].object = object;
        begin_script(&s[i], upload_in_large_chunks);
    }
    for (int i = 0; i < COUNT; i++) {
        end_script(&s[i]);
        ck_assert_uint_eq(s[i].number, 1);
    }
    ck_assert_int_eq(w.accepted, COUNT);
    for (int i = 0; i < COUNT; i++) {
        ck_assert_mem_eq(w.sides[i].object, object, OBJECT);
    }
    world_fini(&w);
    fl_free(object);
}
END_TEST

/* Begins a large frame and holds the only buffer. */
static void hold_a_buffer(struct script *s)
{
    struct raw_client *r = raw_open(s->port, s->tls);
    static const uint8_t begun[] = {0, 3, 0, 0, 0x6a, 0, 0, 0, 0};

    raw_ask(r);
    wait_for_rest(r);
    raw_write(r, begun, sizeof begun);
    raw_read_to_bye(r);
    raw_close(r);
}

START_TEST(test_who_holds_the_buffer_does_not_stop_small_frames)
{
    struct script s = {.digest = {{9}}};
    struct side *client, *server;
    struct fl_digest digest;

    given_world(20000, 20000);
    w.on_message = tell_go;
    w.sides[0].extra = &s;
    begin_script(&s, hold_a_buffer);
    RUN_UNTIL(&w, w.accepted == 1 && w.sides[0].messages);
    struct side *holder = &w.sides[0];
    RUN_UNTIL(&w, !holder->stream->in_job && holder->stream->turn.frame_at > 0);
    /* The only buffer is gone; others talk, send and receive objects all the same. */
    w.on_message = NULL;
    world_pair(&w, &client, &server);
    make_object(&client->object, 1000000, &digest);
    ck_assert_int_eq(give_sink(server, &digest, 0, 1000000), 0);
    ck_assert_int_eq(give_source(client, &digest, 0, 1000000), 0);
    RUN_UNTIL(&w, server->sink_ends);
    ck_assert_int_eq(server->sink_status, 0);
    ck_assert_int_eq(holder->closed, 0);
    fl_stream_close(holder->stream, 0, NULL, 0);
    end_script(&s);
    world_fini(&w);
}
END_TEST

/* ---- everything at any time ---- */

START_TEST(test_closing_at_any_moment_ends_everything_once)
{
    uint64_t state = 12345;

    for (int i = 0; i < 60; i++) {
        struct fl_digest up, down;
        struct side *client, *server;
        world_init(&w);
        world_pair(&w, &client, &server);
        make_object(&client->object, 3000000, &up);
        struct side *sink = world_side(&w);
        sink->closed = 1;
        sink->object = fl_new(3000000, 1);
        sink->object_size = 3000000;
        make_object(&server->object, 2999999, &down);
        struct fl_sink a = {object_write, sink, up, 0, 3000000};
        ck_assert_int_eq(fl_stream_set_sink(server->stream, &a), 0);
        ck_assert_int_eq(give_source(client, &up, 0, 3000000), 0);
        ck_assert_int_eq(give_source(server, &down, 0, 2999999), 0);
        state = state * 6364136223846793005u + 1442695040888963407u;
        for (uint64_t n = state >> 58; n > 0; n--) {
            uv_run(&w.loop, UV_RUN_NOWAIT);
        }
        struct side *who = state >> 40 & 1 ? client : server;
        switch (state >> 41 & 3) {
        case 0:
            if (who->stream) {
                fl_stream_close(who->stream, 0, NULL, 0);
            }
            break;
        case 1:
            if (who->stream) {
                fl_stream_close(who->stream, FL_R_BUSY, "stop", 1);
            }
            break;
        case 2:
            if (who->stream) {
                shutdown(who->stream->socket->fd, SHUT_RDWR);
            }
            break;
        default:
            if (server->stream) {
                fl_stream_drop_sink(server->stream);
            }
            if (client->stream) {
                fl_stream_stop_source(client->stream);
                fl_stream_close(client->stream, 0, NULL, 0);
            }
            break;
        }
        /* The server's chunks have no sink at the client: sooner or later that ends it as well. */
        RUN_UNTIL(&w, client->closed && server->closed);
        ck_assert_int_eq(server->sink_ends, 1);
        ck_assert_int_eq(client->source_ends, 1);
        ck_assert_int_eq(server->source_ends, 1);
        world_fini(&w);
    }
}
END_TEST

TESTS_MAIN("stream-hostile", test_before_tls, test_certificates_are_judged_by_both_ends,
           test_a_listener_may_refuse, test_frames_that_break_the_rules,
           test_chunks_that_break_the_rules, test_a_silent_peer_is_found_out,
           test_a_peer_that_does_not_read, test_a_flood_of_pings_ends_at_a_limit,
           test_many_large_frames_share_one_buffer,
           test_who_holds_the_buffer_does_not_stop_small_frames,
           test_closing_at_any_moment_ends_everything_once)
