/* The control socket: the real server on a real loop, the real client in a thread. */
#include "common/base/mem.h"
#include "common/io/ctl.h"
#include "common/io/ctl_client.h"
#include "tests/lib/asker.h"
#include "tests/lib/check_main.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], path[96];

/* ---- a daemon that answers a few words ---- */

struct daemon {
    uv_loop_t loop;
    struct fl_ctl *ctl;
    uint64_t held, last_gone; /* a call that "hold" left open */
    int calls, status;
    uint64_t file_size;
    char file[128];
};

static int handle(void *arg, struct fl_ctl_call *call)
{
    struct daemon *d = arg;
    const struct fl_ctl_request *q = &call->request;

    d->calls++;
    ck_assert_uint_eq(call->uid, geteuid());
    if (strcmp(q->verb, "echo") == 0) {
        ck_assert_int_eq(fl_ctl_json(d->ctl, call->id, fl_ctl_argument(q, "say")), 0);
        ck_assert_int_eq(fl_ctl_data(d->ctl, call->id, q->body, q->body_size), 0);
        ck_assert_int_eq(fl_ctl_end(d->ctl, call->id, 0, NULL), 0);
        return 0;
    }
    if (strcmp(q->verb, "hold") == 0) {
        d->held = call->id;
        return 0;
    }
    if (strcmp(q->verb, "file") == 0) {
        FILE *f = fopen(d->file, "rb");
        ck_assert_ptr_nonnull(f);
        int fd = dup(fileno(f));
        fclose(f);
        return fl_ctl_file(d->ctl, call->id, fd, 1, d->file_size - 1);
    }
    if (strcmp(q->verb, "flood") == 0) {
        static char text[64 * 1024];
        memset(text, '1', sizeof text - 1);
        for (int i = 0; i < 1000 && d->status == 0; i++) {
            d->status = fl_ctl_json(d->ctl, call->id, text);
        }
        return 0;
    }
    return fl_fail(&call->err, FL_R_CTL_REQUEST, "no verb '%s'", q->verb);
}

static void gone(void *arg, uint64_t call)
{
    ((struct daemon *)arg)->last_gone = call;
}

static struct fl_ctl_conf conf_of(struct daemon *d)
{
    return (struct fl_ctl_conf){
        .loop = &d->loop, .path = path, .handle = handle, .gone = gone, .arg = d};
}

static void daemon_start(struct daemon *d)
{
    struct fl_err e = {0};
    struct fl_ctl_conf conf = conf_of(d);

    uv_loop_init(&d->loop);
    ck_assert_msg(fl_ctl_listen(&conf, &d->ctl, &e) == 0, "%s", e.msg);
}

static void daemon_stop(struct daemon *d)
{
    fl_ctl_close(d->ctl);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&d->loop), 0);
}

static int raw_connect(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memcpy(to.sun_path, path, strlen(path) + 1);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Sends raw bytes and returns the reason of the end that comes back, or -1 for a bare hang-up. */
static int raw_ask(struct daemon *d, const void *bytes, size_t size)
{
    uint8_t back[1024];
    size_t got = 0;
    ssize_t n = 1;
    int fd = raw_connect();

    ck_assert_int_eq(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
    RUN_UNTIL(&d->loop, (n = recv(fd, back + got, sizeof back - got, MSG_DONTWAIT)) >= 0);
    got = (size_t)n;
    close(fd);
    if (got <= FL_CTL_HEAD) {
        return -1;
    }
    struct fl_ctl_answer a;
    void *memory;
    ck_assert_int_eq(fl_ctl_unpack_answer(back + FL_CTL_HEAD, got - FL_CTL_HEAD, &a, &memory, NULL),
                     0);
    int reason = a.kind == FL_CTL_END ? (int)a.reason : -1;
    fl_ctl_release(memory);
    return reason;
}

/* ---- tests ---- */

START_TEST(test_answers_parts_and_end)
{
    struct daemon d = {0};
    struct asker a = {.request = {.argument_count = 2,
                                  .arguments = {{"x", "y"}, {"say", "{\"a\":1}"}},
                                  .body = (const uint8_t *)"ab",
                                  .body_size = 2}};

    daemon_start(&d);
    ask(&d.loop, path, &a, "echo");
    ck_assert_int_eq(a.status, 0);
    ck_assert_str_eq(a.json, "{\"a\":1}\n");
    ck_assert_uint_eq(a.bytes, 2);
    ck_assert_uint_eq(a.sum, 'a' ^ 'b');

    struct asker b = {0};
    ask(&d.loop, path, &b, "nonsense");
    ck_assert_int_eq(b.status, -FL_R_CTL_REQUEST);
    ck_assert_str_eq(b.e.msg, "no verb 'nonsense'");
    daemon_stop(&d);
    ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(test_answers_later)
{
    struct daemon d = {0};
    struct asker a = {0};

    daemon_start(&d);
    ask_start(path, &a, "hold");
    RUN_UNTIL(&d.loop, d.held);
    ck_assert_int_eq(fl_ctl_json(d.ctl, d.held, "[]"), 0);
    ck_assert_int_eq(fl_ctl_end(d.ctl, d.held, -FL_R_JOB_STATE, "not now"), 0);
    ck_assert_int_eq(fl_ctl_end(d.ctl, d.held, 0, NULL), -FL_R_PEER_CLOSED);
    RUN_UNTIL(&d.loop, a.over);
    pthread_join(a.thread, NULL);
    ck_assert_int_eq(a.status, -FL_R_JOB_STATE);
    ck_assert_str_eq(a.e.msg, "not now");
    ck_assert_str_eq(a.json, "[]\n");
    ck_assert_uint_eq(d.last_gone, 0);
    daemon_stop(&d);
}
END_TEST

START_TEST(test_asker_goes_away)
{
    struct daemon d = {0};
    struct asker a = {.timeout_ms = 30};

    daemon_start(&d);
    ask(&d.loop, path, &a, "hold");
    ck_assert_int_eq(a.status, -FL_R_TIMEOUT);
    RUN_UNTIL(&d.loop, d.last_gone);
    ck_assert_uint_eq(d.last_gone, d.held);
    ck_assert_int_eq(fl_ctl_json(d.ctl, d.held, "{}"), -FL_R_PEER_CLOSED);
    daemon_stop(&d);
}
END_TEST

START_TEST(test_stopping_daemon_tells)
{
    struct daemon d = {0};
    struct asker a = {0};

    daemon_start(&d);
    ask_start(path, &a, "hold");
    RUN_UNTIL(&d.loop, d.held);
    daemon_stop(&d);
    pthread_join(a.thread, NULL);
    ck_assert_int_eq(a.status, -FL_R_SHUTDOWN);
}
END_TEST

static void write_file(struct daemon *d, uint64_t size, uint8_t *ret_sum)
{
    snprintf(d->file, sizeof d->file, "%s/file", dir);
    FILE *f = fopen(d->file, "wb");
    *ret_sum = 0;
    for (uint64_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(i * 2654435761U >> 13);
        *ret_sum ^= i > 0 ? byte : 0;
        ck_assert_int_ne(fputc(byte, f), EOF);
    }
    fclose(f);
    d->file_size = size;
}

START_TEST(test_sends_a_file_at_the_speed_of_the_peer)
{
    struct daemon d = {0};
    struct asker a = {0}, cut = {.hang_up_after = 2}, shorter = {0};
    uint8_t sum;

    daemon_start(&d);
    write_file(&d, 3000001, &sum);
    ask(&d.loop, path, &a, "file");
    ck_assert_int_eq(a.status, 0);
    ck_assert_uint_eq(a.bytes, 3000000);
    ck_assert_uint_eq(a.sum, sum);

    ask(&d.loop, path, &cut, "file");
    ck_assert_int_eq(cut.status, -FL_R_CANCELLED);
    RUN_UNTIL(&d.loop, d.last_gone);

    d.file_size += 10; /* more than there is */
    ask(&d.loop, path, &shorter, "file");
    ck_assert_int_eq(shorter.status, -FL_R_STORE_IO);
    daemon_stop(&d);
}
END_TEST

START_TEST(test_peer_that_does_not_read_is_dropped)
{
    struct daemon d = {0};
    uint8_t *frame;
    size_t size;
    struct fl_ctl_request q = {.verb = "flood"};

    daemon_start(&d);
    ck_assert_int_eq(fl_ctl_pack_request(&q, &frame, &size, NULL), 0);
    int fd = raw_connect();
    ck_assert_int_eq(send(fd, frame, size, 0), (ssize_t)size);
    fl_free(frame);
    RUN_UNTIL(&d.loop, d.status != 0);
    ck_assert_int_eq(d.status, -FL_R_LIMIT);
    ck_assert_uint_eq(d.last_gone, 0);
    close(fd);
    daemon_stop(&d);
}
END_TEST

START_TEST(test_bad_requests_are_refused)
{
    struct daemon d = {0};
    struct fl_ctl_request q = {.verb = "echo"};
    uint8_t *frame;
    size_t size;

    daemon_start(&d);
    ck_assert_int_eq(raw_ask(&d, "\0\0\0\0", 4), FL_R_FRAME_SIZE);
    ck_assert_int_eq(raw_ask(&d, "\0\x10\0\1", 4), FL_R_FRAME_SIZE);
    ck_assert_int_eq(raw_ask(&d, "GET / HTTP/1.1\r\n", 16), FL_R_FRAME_SIZE);
    ck_assert_int_eq(raw_ask(&d, "\0\0\0\3\xff\xff\xff", 7), FL_R_FRAME_PARSE);
    ck_assert_int_eq(raw_ask(&d, "\0\0\0\2\x08\x02", 6), FL_R_VERSION);
    ck_assert_int_eq(raw_ask(&d, "\0\0\0\2\x08\x01", 6), FL_R_CTL_REQUEST); /* no verb */

    q.argument_count = 2;
    q.arguments[0] = q.arguments[1] = (struct fl_ctl_argument){"say", "x"};
    ck_assert_int_eq(fl_ctl_pack_request(&q, &frame, &size, NULL), 0);
    ck_assert_int_eq(raw_ask(&d, frame, size), FL_R_CTL_REQUEST);
    fl_free(frame);
    ck_assert_int_eq(d.calls, 0);

    /* A second request before the first is answered breaks the protocol. */
    q = (struct fl_ctl_request){.verb = "hold"};
    ck_assert_int_eq(fl_ctl_pack_request(&q, &frame, &size, NULL), 0);
    int fd = raw_connect();
    ck_assert_int_eq(send(fd, frame, size, 0), (ssize_t)size);
    RUN_UNTIL(&d.loop, d.held);
    ck_assert_int_eq(send(fd, frame, size, 0), (ssize_t)size);
    RUN_UNTIL(&d.loop, d.last_gone);
    fl_free(frame);
    close(fd);
    daemon_stop(&d);
}
END_TEST

START_TEST(test_requests_of_a_bomb_are_bounded)
{
    /* 100,000 empty arguments would unpack to many times their size. */
    size_t size = 200000;
    uint8_t *bomb = fl_new(1, size);
    struct fl_ctl_request *q = fl_new(1, sizeof *q);
    void *memory;

    for (size_t i = 0; i < size; i += 2) {
        bomb[i] = 3 << 3 | 2;
    }
    ck_assert_int_eq(fl_ctl_unpack_request(bomb, size, q, &memory, NULL), -FL_R_FRAME_PARSE);
    fl_free(bomb);
    fl_free(q);
}
END_TEST

START_TEST(test_connections_are_bounded)
{
    struct daemon d = {0};
    int fds[FL_CTL_CALLS_MAX];
    struct asker a = {0};

    daemon_start(&d);
    for (int i = 0; i < FL_CTL_CALLS_MAX; i++) {
        fds[i] = raw_connect();
        uv_run(&d.loop, UV_RUN_NOWAIT);
    }
    ask(&d.loop, path, &a, "hold");
    ck_assert_int_eq(a.status, -FL_R_BUSY);
    for (int i = 0; i < FL_CTL_CALLS_MAX; i++) {
        close(fds[i]);
    }
    daemon_stop(&d);
}
END_TEST

START_TEST(test_socket_file)
{
    struct daemon d = {0}, other = {0};
    struct fl_err e = {0};
    struct stat st;

    daemon_start(&d);
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0660);

    uv_loop_init(&other.loop);
    struct fl_ctl_conf conf = conf_of(&other);
    ck_assert_int_eq(fl_ctl_listen(&conf, &other.ctl, &e), -FL_R_CTL_EXISTS);
    conf.path = dir; /* a folder */
    ck_assert_int_eq(fl_ctl_listen(&conf, &other.ctl, &e), -FL_R_CTL_LISTEN);
    conf.path = "/nonexistent/sock";
    ck_assert_int_eq(fl_ctl_listen(&conf, &other.ctl, &e), -FL_R_CTL_LISTEN);
    char long_path[200];
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = 0;
    conf.path = long_path;
    ck_assert_int_eq(fl_ctl_listen(&conf, &other.ctl, &e), -FL_R_CTL_LISTEN);
    conf.path = path;
    conf.group = "no-such-group-here";
    ck_assert_int_eq(fl_ctl_listen(&conf, &other.ctl, &e), -FL_R_CONF_RANGE);
    daemon_stop(&d);

    /* What a crash leaves behind: a socket file that nobody listens on. */
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&to, sizeof to), 0);
    close(fd);
    conf = conf_of(&other);
    ck_assert_int_eq(fl_ctl_listen(&conf, &other.ctl, &e), 0);
    daemon_stop(&other);

    struct asker a = {.request = {.verb = "echo"}};
    ck_assert_int_eq(fl_ctl_ask(path, &a.request, 0, NULL, NULL, &e), -FL_R_CTL_CONNECT);
}
END_TEST

START_TEST(test_strangers_are_refused)
{
    struct daemon d = {0};
    int status, report[2];
    pid_t child;
    int reason = 0;

    if (geteuid() != 0) {
        printf("skipped: only root can ask as somebody else\n");
        return;
    }
    daemon_start(&d);
    /* Even when the file's mode lets everyone in. */
    ck_assert_int_eq(chmod(dir, 0755), 0);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_int_eq(pipe(report), 0);
    child = fork();
    if (child == 0) {
        struct fl_err e = {0};
        struct fl_ctl_request *q = fl_new(1, sizeof *q);
        q->verb = "echo";
        int r = setgid(65534) || setuid(65534) ? 1 : fl_ctl_ask(path, q, 5000, NULL, NULL, &e);
        _exit(write(report[1], &r, sizeof r) == sizeof r ? 0 : 1);
    }
    RUN_UNTIL(&d.loop, waitpid(child, &status, WNOHANG) == child);
    ck_assert_int_eq(read(report[0], &reason, sizeof reason), sizeof reason);
    ck_assert_int_eq(reason, -FL_R_CTL_PEER);
    ck_assert_int_eq(d.calls, 0);
    close(report[0]);
    close(report[1]);
    daemon_stop(&d);
}
END_TEST

static int run(void)
{
    const TTest *const tests[] = {test_answers_parts_and_end,
                                  test_answers_later,
                                  test_asker_goes_away,
                                  test_stopping_daemon_tells,
                                  test_sends_a_file_at_the_speed_of_the_peer,
                                  test_peer_that_does_not_read_is_dropped,
                                  test_bad_requests_are_refused,
                                  test_requests_of_a_bomb_are_bounded,
                                  test_connections_are_bounded,
                                  test_socket_file,
                                  test_strangers_are_refused};

    return run_tests("ctl", tests, FL_COUNT(tests));
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/cohort-ctl-XXXXXX");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    snprintf(path, sizeof path, "%s/sock", dir);
    signal(SIGPIPE, SIG_IGN);
    int failed = run();
    char file[128];
    snprintf(file, sizeof file, "%s/file", dir);
    unlink(file);
    rmdir(dir);
    return failed;
}
