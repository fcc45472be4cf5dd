/* Streams that behave: what both ends see of each other over loopback. */
#include "common/io/file.h"
#include "common/io/spool.h"
#include "common/io/stream_in.h"
#include "tests/lib/check_main.h"
#include "tests/lib/stream_world.h"

#include <malloc.h>
#include <sys/socket.h>

static struct world w;

/* Answers every Ask by a Rest that says the same. */
static void answer_ask(struct side *side, const Cohort__Frame *frame)
{
    Cohort__Frame answer = COHORT__FRAME__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;

    if (frame->body_case == COHORT__FRAME__BODY_ASK) {
        rest.reason = FL_R_NO_WORK;
        answer.body_case = COHORT__FRAME__BODY_REST;
        answer.rest = &rest;
        ck_assert_int_eq(fl_stream_send(side->stream, &answer), 0);
    }
}

START_TEST(test_both_ends_open_talk_and_close)
{
    struct side *client, *server;
    struct fl_stream_counts counts;

    world_init(&w);
    w.on_message = answer_ask;
    world_pair(&w, &client, &server);
    ck_assert_str_eq(client->peer, "server");
    ck_assert_str_eq(server->peer, "site-1");
    ck_assert_int_eq(strncmp(fl_stream_address(server->stream), "127.0.0.1:", 10), 0);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(send_ask(client), 0);
    }
    RUN_UNTIL(&w, client->messages == 100);
    ck_assert_int_eq(server->messages, 100);
    fl_stream_counts(client->stream, &counts);
    ck_assert_uint_eq(counts.frames_in, 100);
    ck_assert_uint_eq(counts.frames_out, 100);
    ck_assert_uint_gt(counts.bytes_in, 1000);
    fl_stream_close(client->stream, 0, NULL, 0);
    fl_stream_close(client->stream, FL_R_BUSY, "again", 0); /* no effect */
    ck_assert_int_eq(send_ask(client), -FL_R_PEER_CLOSED);
    ck_assert_int_eq(client->closed, 0); /* never inside the call */
    RUN_UNTIL(&w, client->closed && server->closed);
    ck_assert_int_eq(client->why.code, 0);
    ck_assert_int_eq(server->why.code, 0);
    world_fini(&w);
}
END_TEST

START_TEST(test_bye_arrives_with_its_reason)
{
    struct side *client, *server;

    world_init(&w);
    world_pair(&w, &client, &server);
    for (int i = 0; i < 50; i++) { /* what was queued before goes out before */
        ck_assert_int_eq(send_ask(server), 0);
    }
    fl_stream_close(server->stream, FL_R_SHUTDOWN, "back\nsoon", 5000);
    RUN_UNTIL(&w, client->closed && server->closed);
    ck_assert_int_eq(client->messages, 51);
    ck_assert_uint_eq(client->bye_reason, FL_R_SHUTDOWN);
    ck_assert_str_eq(client->bye_text, "back?soon");
    ck_assert_int_eq(client->why.code, 0);
    ck_assert_int_eq(server->why.code, -FL_R_SHUTDOWN);
    ck_assert_str_eq(server->why.msg, "back?soon");
    world_fini(&w);
}
END_TEST

static void close_at_once(struct side *side)
{
    fl_stream_close(side->stream, FL_R_NOT_ENROLLED, "who are you", 0);
}

START_TEST(test_closing_in_on_open)
{
    world_init(&w);
    w.on_open = close_at_once;
    struct side *client = world_connect(&w);
    RUN_UNTIL(&w, client->closed);
    ck_assert_uint_eq(client->bye_reason, FL_R_NOT_ENROLLED);
    world_fini(&w);
}
END_TEST

static void close_at_third(struct side *side, const Cohort__Frame *frame)
{
    (void)frame;
    if (side->messages == 3) {
        fl_stream_close(side->stream, 0, NULL, 0);
    }
}

START_TEST(test_after_close_no_message_comes)
{
    struct side *client, *server;

    world_init(&w);
    w.on_message = close_at_third;
    world_pair(&w, &client, &server);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(send_ask(client), 0);
    }
    RUN_UNTIL(&w, server->closed && client->closed);
    ck_assert_int_eq(server->messages, 3);
    world_fini(&w);
}
END_TEST

enum { EIGHT_MIB = 8 * 1024 * 1024 };

START_TEST(test_objects_pass_both_ways_at_once)
{
    struct side *client, *server;
    struct fl_digest up, down;

    world_init(&w);
    world_pair(&w, &client, &server);
    struct side *up_sink = world_side(&w), *down_sink = world_side(&w);
    up_sink->closed = down_sink->closed = 1; /* only memory */
    make_object(&client->object, EIGHT_MIB, &up);
    make_object(&server->object, EIGHT_MIB - 12345, &down);
    up_sink->object = fl_new(EIGHT_MIB, 1);
    up_sink->object_size = down_sink->object_size = EIGHT_MIB;
    down_sink->object = fl_new(EIGHT_MIB, 1);
    struct fl_sink a = {object_write, up_sink, up, 0, EIGHT_MIB};
    struct fl_sink b = {object_write, down_sink, down, 0, EIGHT_MIB - 12345};
    ck_assert_int_eq(fl_stream_set_sink(server->stream, &a), 0);
    ck_assert_int_eq(fl_stream_set_sink(client->stream, &b), 0);
    ck_assert_int_eq(fl_stream_set_sink(client->stream, &b), -FL_R_BUSY);
    ck_assert_int_eq(give_source(client, &up, 0, EIGHT_MIB), 0);
    ck_assert_int_eq(give_source(client, &up, 0, EIGHT_MIB), -FL_R_BUSY);
    ck_assert_int_eq(give_source(server, &down, 0, EIGHT_MIB - 12345), 0);
    int asked = 0; /* messages pass between the chunks */
    while (!server->sink_ends || !client->sink_ends) {
        asked += asked < 50 && send_ask(client) == 0;
        RUN_UNTIL(&w, server->messages == asked);
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    ck_assert_int_eq(server->sink_status, 0);
    ck_assert_int_eq(client->sink_status, 0);
    RUN_UNTIL(&w, client->source_ends == 1 && server->source_ends == 1);
    ck_assert_mem_eq(up_sink->object, client->object, EIGHT_MIB);
    ck_assert_mem_eq(down_sink->object, server->object, EIGHT_MIB - 12345);
    world_fini(&w);
}
END_TEST

static int spool_write(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                       struct fl_err *e)
{
    return fl_spool_write(arg, offset, data, size, e);
}

static void cut_cable(struct side *side)
{
    shutdown(side->stream->socket->fd, SHUT_RDWR);
}

/* One object in one direction, through a spool, with a connection killed on the way. */
static void resume(bool upload)
{
    char dir[] = "/tmp/stream-XXXXXX", path[128];
    struct side *client, *server;
    struct fl_digest digest;
    uint64_t offset = 1;
    uint8_t *object, *back;
    size_t size;

    world_init(&w);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    make_object(&object, EIGHT_MIB, &digest);
    for (int connection = 0; connection < 2; connection++) {
        struct fl_spool *spool = NULL;
        world_pair(&w, &client, &server);
        struct side *from = upload ? client : server, *to = upload ? server : client;
        from->object = object;
        ck_assert_int_eq(fl_spool_open(dir, "u", &digest, EIGHT_MIB, &spool, &offset, NULL), 0);
        ck_assert(connection == 0 ? offset == 0 : offset >= FL_SPOOL_MARK_EVERY);
        struct fl_sink sink = {spool_write, spool, digest, offset, EIGHT_MIB};
        ck_assert_int_eq(fl_stream_set_sink(to->stream, &sink), 0);
        ck_assert_int_eq(give_source(from, &digest, offset, EIGHT_MIB), 0);
        if (connection == 0) {
            struct fl_stream_counts counts = {0};
            while (counts.bytes_in < 5000000) {
                uv_run(&w.loop, UV_RUN_ONCE);
                ck_assert_ptr_nonnull(to->stream);
                fl_stream_counts(to->stream, &counts);
            }
            cut_cable(from);
            RUN_UNTIL(&w, client->closed && server->closed);
            ck_assert_int_lt(to->why.code, 0);
            ck_assert_int_eq(to->sink_ends, 1);
            ck_assert_int_eq(to->sink_status, -FL_R_CANCELLED);
            ck_assert_int_eq(from->source_ends, 1);
        } else {
            RUN_UNTIL(&w, to->sink_ends);
            ck_assert_int_eq(to->sink_status, 0);
            ck_assert_int_eq(fl_spool_seal(spool, NULL), 0);
        }
        from->object = NULL;
        fl_spool_close(spool);
    }
    snprintf(path, sizeof path, "%s/u", dir);
    ck_assert_int_eq(fl_file_read(path, EIGHT_MIB, &back, &size, NULL), 0);
    ck_assert_uint_eq(size, EIGHT_MIB);
    ck_assert_mem_eq(back, object, EIGHT_MIB);
    fl_free(back);
    fl_free(object);
    unlink(path);
    rmdir(dir);
    world_fini(&w);
}

START_TEST(test_an_upload_resumes_after_a_killed_connection)
{
    resume(true);
}
END_TEST

START_TEST(test_a_download_resumes_after_a_killed_connection)
{
    resume(false);
}
END_TEST

START_TEST(test_a_failing_sink_ends_alone)
{
    struct side *client, *server;
    struct fl_digest digest;

    world_init(&w);
    world_pair(&w, &client, &server);
    make_object(&client->object, EIGHT_MIB, &digest);
    server->fail_at = 1000000;
    ck_assert_int_eq(give_sink(server, &digest, 0, EIGHT_MIB), 0);
    ck_assert_int_eq(give_source(client, &digest, 0, EIGHT_MIB), 0);
    RUN_UNTIL(&w, server->sink_ends);
    ck_assert_int_eq(server->sink_status, -FL_R_DISK_FULL);
    /* What is still on its way is thrown away, and life goes on. */
    RUN_UNTIL(&w, client->source_ends);
    ck_assert_int_eq(send_ask(client), 0);
    RUN_UNTIL(&w, server->messages == 1);
    ck_assert_int_eq(server->closed, 0);
    /* Another sink for the same object, after the peer knows. */
    server->fail_at = 0;
    ck_assert_int_eq(give_sink(server, &digest, 1000, EIGHT_MIB), 0);
    ck_assert_int_eq(give_source(client, &digest, 1000, EIGHT_MIB), 0);
    RUN_UNTIL(&w, server->sink_ends == 2);
    ck_assert_int_eq(server->sink_status, 0);
    world_fini(&w);
}
END_TEST

START_TEST(test_dropping_a_sink_and_stopping_a_source)
{
    struct side *client, *server;
    struct fl_digest first, second;
    uint8_t *other;

    world_init(&w);
    world_pair(&w, &client, &server);
    make_object(&client->object, EIGHT_MIB, &first);
    make_object(&other, 100000, &second);
    ck_assert_int_eq(give_sink(server, &first, 0, EIGHT_MIB), 0);
    ck_assert_int_eq(give_source(client, &first, 0, EIGHT_MIB), 0);
    struct fl_stream_counts counts = {0};
    while (counts.bytes_in < 500000) {
        uv_run(&w.loop, UV_RUN_ONCE);
        fl_stream_counts(server->stream, &counts);
    }
    fl_stream_drop_sink(server->stream);
    fl_stream_drop_sink(server->stream);
    ck_assert_int_eq(server->sink_ends, 0); /* told from the loop */
    struct fl_sink too_early = {object_write, server, second, 0, 100000};
    ck_assert_int_eq(fl_stream_set_sink(server->stream, &too_early), -FL_R_BUSY);
    RUN_UNTIL(&w, server->sink_ends == 1);
    ck_assert_int_eq(server->sink_status, -FL_R_CANCELLED);
    /* The other end stops a little later; meanwhile its chunks come, and the next object's behind.
     */
    ck_assert_int_eq(give_sink(server, &second, 0, 100000), 0);
    fl_stream_stop_source(client->stream);
    RUN_UNTIL(&w, client->source_ends == 1);
    ck_assert_int_eq(client->source_status, -FL_R_CANCELLED);
    memcpy(client->object, other, 100000);
    ck_assert_int_eq(give_source(client, &second, 0, 100000), 0);
    RUN_UNTIL(&w, server->sink_ends == 2);
    ck_assert_int_eq(server->sink_status, 0);
    ck_assert_mem_eq(server->object, other, 100000);
    ck_assert_int_eq(server->closed, 0);
    fl_free(other);
    world_fini(&w);
}
END_TEST

START_TEST(test_a_failing_source_ends_alone)
{
    struct side *client, *server;
    struct fl_digest digest;

    world_init(&w);
    world_pair(&w, &client, &server);
    make_object(&client->object, EIGHT_MIB, &digest);
    client->fail_at = 1000000;
    ck_assert_int_eq(give_sink(server, &digest, 0, EIGHT_MIB), 0);
    ck_assert_int_eq(give_source(client, &digest, 0, EIGHT_MIB), 0);
    RUN_UNTIL(&w, client->source_ends);
    ck_assert_int_eq(client->source_status, -FL_R_STORE_IO);
    ck_assert_int_eq(send_ask(client), 0);
    RUN_UNTIL(&w, server->messages == 1);
    ck_assert_int_eq(server->sink_ends, 0);
    world_fini(&w);
    ck_assert_int_eq(server->sink_ends, 1);
}
END_TEST

START_TEST(test_an_object_that_lacks_nothing)
{
    struct side *client, *server;
    struct fl_digest digest;

    world_init(&w);
    world_pair(&w, &client, &server);
    make_object(&client->object, 1000, &digest);
    ck_assert_int_eq(give_sink(server, &digest, 1000, 1000), 0);
    ck_assert_int_eq(give_source(client, &digest, 1000, 1000), 0);
    RUN_UNTIL(&w, server->sink_ends && client->source_ends);
    ck_assert_int_eq(server->sink_status, 0);
    ck_assert_int_eq(client->source_status, 0);
    world_fini(&w);
}
END_TEST

START_TEST(test_quiet_streams_keep_each_other_alive)
{
    struct side *client, *server;
    struct fl_stream_counts counts;

    world_init(&w);
    w.server.heartbeat_ms = 50;
    w.server.handshake_ms = 5000;
    world_pair(&w, &client, &server);
    run_for(&w, 500);
    ck_assert_int_eq(client->closed + server->closed, 0);
    fl_stream_counts(client->stream, &counts);
    ck_assert_uint_ge(counts.frames_in, 5);
    ck_assert_uint_le(counts.frames_in, 40);
    world_fini(&w);
}
END_TEST

START_TEST(test_hundred_idle_connections_are_small)
{
    enum { COUNT = 100 };
    struct side *client, *server;

    world_init(&w);
    world_pair(&w, &client, &server); /* what is made once is made */
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < COUNT; i++) {
        world_pair(&w, &client, &server);
        ck_assert_int_eq(send_ask(client), 0);
        ck_assert_int_eq(send_ask(server), 0);
        RUN_UNTIL(&w, client->messages && server->messages);
    }
    struct mallinfo2 after = mallinfo2();
    double each =
        (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / (2 * COUNT);
    printf("an idle stream: %.1f KiB\n", each / 1024);
    ck_assert_double_lt(each,
                        60 * 1024); /* 0 under a sanitizer, which has an allocator of its own */
    world_fini(&w);
}
END_TEST

START_TEST(test_nobody_there)
{
    struct fl_err e = {0};
    struct fl_listener *l = NULL;
    struct fl_stream_conf conf;

    world_init(&w);
    ck_assert_int_eq(fl_listen(&w.loop, "127.0.0.1", 0, world_accepting, &w, &l, &e), 0);
    uint16_t port = fl_listener_port(l);
    ck_assert_int_eq(fl_listen(&w.loop, "127.0.0.1", port, world_accepting, &w, &l, &e),
                     -FL_R_CONNECT);
    fl_listener_close(l);
    struct side *refused = world_side(&w), *nowhere = world_side(&w);
    conf = w.server;
    conf.tls = w.client_tls;
    conf.owner = refused;
    ck_assert_int_eq(fl_stream_connect(&conf, "127.0.0.1", port, "localhost", &refused->stream, &e),
                     0);
    conf.owner = nowhere;
    ck_assert_int_eq(
        fl_stream_connect(&conf, "no-such-host.invalid", port, "localhost", &nowhere->stream, &e),
        0);
    RUN_UNTIL(&w, refused->closed && nowhere->closed);
    ck_assert_int_eq(refused->why.code, -FL_R_CONNECT);
    ck_assert_ptr_nonnull(strstr(refused->why.msg, "refused"));
    ck_assert_int_eq(nowhere->why.code, -FL_R_CONNECT);
    world_fini(&w);
}
END_TEST

START_TEST(test_closing_before_anything_happened)
{
    world_init(&w);
    struct side *client = world_connect(&w);
    ck_assert_int_eq(send_ask(client), 0); /* would be sent once open */
    fl_stream_close(client->stream, 0, NULL, 0);
    ck_assert_int_eq(client->closed, 0);
    RUN_UNTIL(&w, client->closed);
    ck_assert_int_eq(client->opened, 0);
    world_fini(&w);
}
END_TEST

START_TEST(test_what_was_sent_early_arrives)
{
    world_init(&w);
    struct side *client = world_connect(&w);
    ck_assert_int_eq(send_ask(client), 0);
    RUN_UNTIL(&w, w.accepted && w.sides[1].messages == 1);
    world_fini(&w);
}
END_TEST

TESTS_MAIN("stream", test_both_ends_open_talk_and_close, test_bye_arrives_with_its_reason,
           test_closing_in_on_open, test_after_close_no_message_comes,
           test_objects_pass_both_ways_at_once, test_an_upload_resumes_after_a_killed_connection,
           test_a_download_resumes_after_a_killed_connection, test_a_failing_sink_ends_alone,
           test_dropping_a_sink_and_stopping_a_source, test_a_failing_source_ends_alone,
           test_an_object_that_lacks_nothing, test_quiet_streams_keep_each_other_alive,
           test_hundred_idle_connections_are_small, test_nobody_there,
           test_closing_before_anything_happened, test_what_was_sent_early_arrives)
