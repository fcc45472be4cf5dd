#include "common/io/ctl_client.h"

#include "common/base/mem.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct client {
    int fd;
    uint64_t deadline_ms; /* of the monotonic clock; 0 = none */
    bool write_failed;    /* the daemon hung up on our request; it may have said why */
    uint64_t tick_ms;     /* 0 = none */
    fl_ctl_on_part *on_part;
    void *arg;
};

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Waits until the socket is ready. */
static int ready(const struct client *c, short events, struct fl_err *e)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = events};
        uint64_t wait = 60000, now = now_ms();

        if (c->deadline_ms) {
            uint64_t left = now < c->deadline_ms ? c->deadline_ms - now : 0;
            wait = left < wait ? left : wait;
        }
        bool ticks = c->tick_ms && c->tick_ms < wait;
        int n = poll(&p, 1, (int)(ticks ? c->tick_ms : wait));
        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return fl_fail_sys(e, FL_R_SYS, errno, "poll");
        }
        if (c->deadline_ms && now_ms() >= c->deadline_ms) {
            return fl_fail(e, FL_R_TIMEOUT, "no answer in time");
        }
        int status = ticks && n == 0 ? c->on_part(c->arg, NULL) : 0;
        if (status) {
            return status;
        }
    }
}

static int connect_to(struct client *c, const char *path, struct fl_err *e)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof to.sun_path) {
        return fl_fail(e, FL_R_CTL_CONNECT, "%s: a socket's path has at most %zu bytes", path,
                       sizeof to.sun_path - 1);
    }
    memcpy(to.sun_path, path, strlen(path) + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        return fl_fail_sys(e, FL_R_SYS, errno, "socket");
    }
    /* A full backlog says EAGAIN and cannot be polled for. */
    for (int tries = 0; connect(c->fd, (const struct sockaddr *)&to, sizeof to) < 0; tries++) {
        if (errno != EAGAIN || tries >= 50) {
            return fl_fail_sys(e, FL_R_CTL_CONNECT, errno, "connect to %s", path);
        }
        poll(NULL, 0, 20);
    }
    return 0;
}

static int write_all(struct client *c, const uint8_t *data, size_t size, struct fl_err *e)
{
    while (size > 0) {
        ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN) {
            int status = ready(c, POLLOUT, e);
            if (status) {
                return status;
            }
        } else if (errno != EINTR) {
            c->write_failed = true;
            return 0;
        }
    }
    return 0;
}

static int read_all(struct client *c, uint8_t *to, size_t size, struct fl_err *e)
{
    while (size > 0) {
        ssize_t n = recv(c->fd, to, size, 0);
        if (n > 0) {
            to += n;
            size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            int status = ready(c, POLLIN, e);
            if (status) {
                return status;
            }
        } else if (n == 0 || errno != EINTR) {
            return fl_fail(e, FL_R_PEER_CLOSED, "the daemon hung up%s",
                           c->write_failed ? " on the request" : "");
        }
    }
    return 0;
}

/* One answer. Returns 1 after an end without a reason, 0 after a part. */
static int read_answer(struct client *c, struct fl_err *e)
{
    uint8_t head[FL_CTL_HEAD];
    uint32_t size;
    struct fl_ctl_answer answer;
    void *memory;
    int status = read_all(c, head, sizeof head, e);

    if (status == 0 && fl_ctl_length(head, &size) < 0) {
        status = fl_fail(e, FL_R_FRAME_SIZE, "the daemon sent a frame of wrong length");
    }
    if (status) {
        return status;
    }
    uint8_t *frame = fl_try(1, size);
    if (!frame) {
        return fl_fail(e, FL_R_NOMEM, "an answer of %u bytes", size);
    }
    status = read_all(c, frame, size, e);
    if (status == 0) {
        status = fl_ctl_unpack_answer(frame, size, &answer, &memory, e);
    }
    fl_free(frame);
    if (status) {
        return status;
    }
    if (answer.kind == FL_CTL_END) {
        if (answer.reason) {
            int reason = answer.reason > 9999 ? FL_R_INTERNAL : (int)answer.reason;
            status = fl_fail(e, (enum fl_reason)reason, "%s",
                             answer.text[0] ? answer.text : fl_reason_text(reason));
        } else {
            status = 1;
        }
    } else if (c->on_part) {
        status = c->on_part(c->arg, &answer);
    }
    fl_ctl_release(memory);
    return status;
}

int fl_ctl_ask(const char *path, const struct fl_ctl_request *request, uint64_t timeout_ms,
               fl_ctl_on_part *on_part, void *arg, struct fl_err *e)
{
    return fl_ctl_ask_ticking(path, request, timeout_ms, 0, on_part, arg, e);
}

int fl_ctl_ask_ticking(const char *path, const struct fl_ctl_request *request, uint64_t timeout_ms,
                       uint64_t tick_ms, fl_ctl_on_part *on_part, void *arg, struct fl_err *e)
{
    struct client c = {.fd = -1,
                       .deadline_ms = timeout_ms ? now_ms() + timeout_ms : 0,
                       .tick_ms = on_part ? tick_ms : 0,
                       .on_part = on_part,
                       .arg = arg};
    uint8_t *frame = NULL;
    size_t size = 0;
    int status = fl_ctl_pack_request(request, &frame, &size, e);

    if (status == 0) {
        status = connect_to(&c, path, e);
    }
    if (status == 0) {
        status = write_all(&c, frame, size, e);
    }
    while (status == 0) {
        status = read_answer(&c, e);
    }
    if (c.fd >= 0) {
        close(c.fd);
    }
    fl_free(frame);
    return status == 1 ? 0 : status;
}
