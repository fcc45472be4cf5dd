/*
 * A connected socket as the loop sees it: when it can be read or written. Its end has two parts:
 * our direction is shut, then what still comes is thrown away until the peer closes too or a second
 * has passed. Without that, unread bytes would make the kernel answer with a reset, and the peer
 * would lose our last words.
 */
#include "common/base/mem.h"
#include "common/io/stream_in.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NOT_SENT_MAX = 128 * 1024, DRAIN_READS = 16 };

void fl_socket_options(int fd)
{
    int yes = 1, low = NOT_SENT_MAX;

    /* Failures leave a connection that works, only slower. Little unsent data in the kernel keeps
     * messages from queueing behind megabytes of chunks. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low, sizeof low);
}

static void free_socket(uv_handle_t *handle)
{
    struct fl_socket *k = handle->data;

    if (--k->handles == 0) {
        close(k->fd);
        fl_free(k);
    }
}

static void close_now(struct fl_socket *k)
{
    uv_close((uv_handle_t *)&k->poll, free_socket);
    uv_close((uv_handle_t *)&k->timer, free_socket);
}

static void on_lingered(uv_timer_t *timer)
{
    close_now(timer->data);
}

static void drain(struct fl_socket *k)
{
    char nowhere[4096];
    ssize_t n = 1;

    for (int i = 0; i < DRAIN_READS && n > 0; i++) {
        n = recv(k->fd, nowhere, sizeof nowhere, 0);
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        close_now(k);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct fl_socket *k = poll->data;

    (void)status; /* an error is found by whoever reads */
    (void)events;
    if (k->stream) {
        fl_stream_ready(k->stream);
    } else if (!uv_is_closing((uv_handle_t *)poll)) {
        drain(k);
    }
}

struct fl_socket *fl_socket_new(uv_loop_t *loop, int fd, struct fl_stream *stream)
{
    struct fl_socket *k = fl_try(1, sizeof *k);

    if (!k || uv_poll_init(loop, &k->poll, fd) != 0) {
        fl_free(k);
        close(fd);
        return NULL;
    }
    uv_timer_init(loop, &k->timer);
    k->poll.data = k->timer.data = k;
    k->fd = fd;
    k->handles = 2;
    k->stream = stream;
    return k;
}

void fl_socket_poll(struct fl_socket *k, int events)
{
    if (events) {
        uv_poll_start(&k->poll, events, on_poll);
    } else {
        uv_poll_stop(&k->poll);
    }
}

void fl_socket_close(struct fl_socket *k, bool linger)
{
    k->stream = NULL;
    if (linger && shutdown(k->fd, SHUT_WR) == 0) {
        fl_socket_poll(k, UV_READABLE);
        uv_timer_start(&k->timer, on_lingered, LINGER_MS, 0);
    } else {
        close_now(k);
    }
}
