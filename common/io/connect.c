/*
 * How streams come to their sockets: a client resolves a name and tries its addresses in order, a
 * listener accepts. Everything here is the loop's; names are resolved on libuv's own threads.
 */
#include "common/base/mem.h"
#include "common/io/stream_in.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 512, ACCEPTS = 32, PAUSE_MS = 100 };

static void put_address(const struct sockaddr_storage *a, socklen_t size, char *to, size_t to_size)
{
    char host[48], port[8];

    if (getnameinfo((const struct sockaddr *)a, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        to[0] = 0;
        return;
    }
    snprintf(to, to_size, a->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

void fl_stream_set_address(struct fl_stream *s)
{
    struct sockaddr_storage a;
    socklen_t size = sizeof a;

    if (getpeername(s->socket->fd, (struct sockaddr *)&a, &size) == 0) {
        put_address(&a, size, s->address, sizeof s->address);
    }
}

/* ---- client --------------------------------------------------------------------------------- */

struct resolving {
    uv_getaddrinfo_t request;
    struct fl_stream *stream; /* NULL: abandoned */
};

/* Begins to connect to the next address that lets it. */
static void try_next(struct fl_stream *s, int last_errno)
{
    struct fl_err e;

    if (s->socket) {
        fl_socket_close(s->socket, false);
        s->socket = NULL;
    }
    while (s->next_address) {
        const struct addrinfo *a = s->next_address;
        s->next_address = a->ai_next;
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            last_errno = errno;
            continue;
        }
        fl_socket_options(fd);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
            last_errno = errno;
            close(fd);
            continue;
        }
        s->socket = fl_socket_new(s->loop, fd, s);
        if (s->socket) {
            fl_socket_poll(s->socket, UV_WRITABLE);
            return;
        }
        last_errno = ENOMEM;
    }
    fl_fail_sys(&e, FL_R_CONNECT, last_errno, "connect");
    fl_stream_fail(s, ENDS, &e);
}

void fl_connect_ready(struct fl_stream *s)
{
    int why = 0;
    socklen_t size = sizeof why;

    if (s->ending != STAYS) {
        fl_socket_poll(s->socket, 0);
        return;
    }
    if (getsockopt(s->socket->fd, SOL_SOCKET, SO_ERROR, &why, &size) != 0) {
        why = errno;
    }
    if (why != 0) {
        try_next(s, why);
        return;
    }
    uv_freeaddrinfo(s->addresses);
    s->addresses = s->next_address = NULL;
    fl_stream_start(s);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct resolving *r = (struct resolving *)request;
    struct fl_stream *s = r->stream;
    struct fl_err e;

    fl_free(r);
    if (!s || s->ending != STAYS) {
        uv_freeaddrinfo(addresses);
        if (s) {
            s->resolving = NULL;
        }
        return;
    }
    s->resolving = NULL;
    if (status != 0) {
        fl_fail(&e, FL_R_CONNECT, "the name cannot be resolved: %s", uv_strerror(status));
        fl_stream_fail(s, ENDS, &e);
        return;
    }
    s->addresses = s->next_address = addresses;
    try_next(s, ENOENT);
}

void fl_connect_abandon(struct fl_stream *s)
{
    if (s->resolving) {
        s->resolving->stream = NULL;
        uv_cancel((uv_req_t *)&s->resolving->request);
        s->resolving = NULL;
    }
    uv_freeaddrinfo(s->addresses);
    s->addresses = s->next_address = NULL;
}

int fl_stream_connect(const struct fl_stream_conf *conf, const char *host, uint16_t port,
                      const char *server_name, struct fl_stream **ret, struct fl_err *e)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct fl_stream *s = fl_stream_new(conf->loop);
    struct resolving *r = fl_try(1, sizeof *r);
    size_t name_size = strlen(server_name) + 1;
    char *name = fl_try(name_size, 1);
    char service[8];

    if (!s || !r || !name) {
        goto no_memory;
    }
    snprintf(service, sizeof service, "%u", port);
    r->stream = s;
    int status = uv_getaddrinfo(conf->loop, &r->request, on_resolved, host, service, &hints);
    if (status != 0) {
        fl_free(r);
        fl_free(name);
        fl_stream_discard(s);
        return fl_fail(e, FL_R_CONNECT, "%s: %s", host, uv_strerror(status));
    }
    s->server_name = memcpy(name, server_name, name_size);
    s->resolving = r;
    fl_stream_configure(s, conf);
    *ret = s;
    return 0;

no_memory:
    fl_free(r);
    fl_free(name);
    if (s) {
        fl_stream_discard(s);
    }
    return fl_fail(e, FL_R_NOMEM, "no memory for a connection");
}

/* ---- listener ------------------------------------------------------------------------------- */

struct fl_listener {
    uv_loop_t *loop;
    uv_poll_t poll;
    uv_timer_t pause;
    int fd, handles;
    uint16_t port;
    bool (*accepting)(void *arg, struct fl_stream_conf *conf);
    void *arg;
};

static void on_connection(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
    struct fl_listener *l = timer->data;

    uv_poll_start(&l->poll, UV_READABLE, on_connection);
}

static void accept_one(struct fl_listener *l, int fd)
{
    struct fl_stream_conf conf = {.loop = l->loop};
    /* Everything that can fail comes before `accepting`: who was told of a connection is told of
     * its end. */
    struct fl_stream *s = fl_stream_new(l->loop);
    struct fl_socket *k = NULL;

    if (!s) {
        close(fd);
        return;
    }
    k = fl_socket_new(l->loop, fd, s);
    if (!k || !l->accepting(l->arg, &conf)) {
        if (k) {
            fl_socket_close(k, false);
        }
        fl_stream_discard(s);
        return;
    }
    fl_socket_options(fd);
    s->socket = k;
    conf.loop = l->loop;
    fl_stream_configure(s, &conf);
    fl_stream_start(s);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct fl_listener *l = poll->data;

    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPTS && !uv_is_closing((uv_handle_t *)poll); i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accept_one(l, fd);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            /* No descriptors or memory: the connection stays in the queue and would wake us again
             * at once. */
            uv_poll_stop(poll);
            uv_timer_start(&l->pause, on_pause_over, PAUSE_MS, 0);
            return;
        }
    }
}

static int bind_and_listen(const struct addrinfo *a, int *ret_fd)
{
    int yes = 1, no = 0;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (a->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no); /* "::" is everything */
    }
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int why = errno;
        close(fd);
        return why;
    }
    *ret_fd = fd;
    return 0;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t size = sizeof a;
    char port[8] = "0";

    if (getsockname(fd, (struct sockaddr *)&a, &size) == 0) {
        getnameinfo((struct sockaddr *)&a, size, NULL, 0, port, sizeof port, NI_NUMERICSERV);
    }
    return (uint16_t)strtoul(port, NULL, 10);
}

int fl_listen(uv_loop_t *loop, const char *address, uint16_t port,
              bool (*accepting)(void *arg, struct fl_stream_conf *conf), void *arg,
              struct fl_listener **ret, struct fl_err *e)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char service[8];
    int fd = -1, why = ENOENT;

    snprintf(service, sizeof service, "%u", port);
    int r = getaddrinfo(address, service, &hints, &found);
    if (r != 0) {
        return fl_fail(e, FL_R_CONNECT, "listen on %s: %s", address, gai_strerror(r));
    }
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        why = bind_and_listen(a, &fd);
    }
    freeaddrinfo(found);
    if (fd < 0) {
        return fl_fail_sys(e, FL_R_CONNECT, why, "listen on %s port %u", address, port);
    }
    struct fl_listener *l = fl_new(1, sizeof *l);
    if (uv_poll_init(loop, &l->poll, fd) != 0) {
        fl_free(l);
        close(fd);
        return fl_fail(e, FL_R_CONNECT, "listen on %s: the loop takes no more", address);
    }
    uv_timer_init(loop, &l->pause);
    l->poll.data = l->pause.data = l;
    l->handles = 2;
    l->loop = loop;
    l->fd = fd;
    l->port = bound_port(fd);
    l->accepting = accepting;
    l->arg = arg;
    uv_poll_start(&l->poll, UV_READABLE, on_connection);
    *ret = l;
    return 0;
}

uint16_t fl_listener_port(const struct fl_listener *l)
{
    return l->port;
}

static void free_listener(uv_handle_t *handle)
{
    struct fl_listener *l = handle->data;

    if (--l->handles == 0) {
        fl_free(l);
    }
}

void fl_listener_close(struct fl_listener *l)
{
    if (l) {
        uv_close((uv_handle_t *)&l->poll, free_listener);
        uv_close((uv_handle_t *)&l->pause, free_listener);
        close(l->fd); /* the port is free for the next one at once */
    }
}
