/*
 * A connection's life:
 *
 *     accept -> may this peer speak? -> head -> body -> handle() -> parts ... end -> head -> ...
 *                                       '---- within FL_CTL_REQUEST_MS ----'
 *
 * While a call is open the socket is read all the same: bytes then are a breach of the protocol,
 * end of file is how we learn that the asker has gone. A connection is freed when its two handles
 * are closed and no file read is in flight; the server when its listener and all connections are.
 */
#include "common/io/ctl.h"

#include "common/base/mem.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct conn {
    struct fl_ctl *server;
    uv_pipe_t pipe;
    uv_timer_t timer;
    unsigned refs; /* open handles and the file read in flight */
    bool closing;
    uid_t uid;
    pid_t pid;
    uint64_t call; /* 0 = between requests */
    size_t queued;
    uint8_t head[FL_CTL_HEAD];
    uint8_t *body;
    uint32_t size, got; /* got counts head and body */
    int fd;             /* of fl_ctl_file, -1 = none */
    uint64_t file_at, file_left;
    uint8_t *piece;
    uv_fs_t read;
};

struct fl_ctl {
    struct fl_ctl_conf conf;
    uv_pipe_t listener;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    dev_t dev;
    ino_t ino;
    bool has_group, closed;
    gid_t group;
    uint64_t calls; /* last id given */
    unsigned refs;
    struct conn *conns[FL_CTL_CALLS_MAX];
};

struct write {
    uv_write_t req;
    struct conn *conn;
    size_t size;
    uint8_t *frame;
};

static void file_step(struct conn *k);

static void server_unref(struct fl_ctl *c)
{
    if (--c->refs == 0) {
        fl_free(c);
    }
}

static void conn_unref(struct conn *k)
{
    if (--k->refs > 0) {
        return;
    }
    if (k->fd >= 0) {
        close(k->fd);
    }
    fl_free(k->piece);
    fl_free(k->body);
    server_unref(k->server);
    fl_free(k);
}

static void on_conn_closed(uv_handle_t *h)
{
    conn_unref(h->data);
}

static void conn_close(struct conn *k, bool tell)
{
    struct fl_ctl *c = k->server;
    uint64_t call = k->call;

    if (k->closing) {
        return;
    }
    k->closing = true;
    k->call = 0;
    for (size_t i = 0; i < FL_CTL_CALLS_MAX; i++) {
        if (c->conns[i] == k) {
            c->conns[i] = NULL;
        }
    }
    uv_close((uv_handle_t *)&k->pipe, on_conn_closed);
    uv_close((uv_handle_t *)&k->timer, on_conn_closed);
    if (tell && call && c->conf.gone) {
        c->conf.gone(c->conf.arg, call);
    }
}

static void on_timeout(uv_timer_t *t)
{
    conn_close(t->data, true);
}

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;
    struct conn *k = w->conn;

    k->queued -= w->size;
    fl_free(w->frame);
    fl_free(w);
    if (k->closing) {
        return;
    }
    if (status < 0) {
        conn_close(k, true);
    } else if (k->fd >= 0 && k->queued == 0) {
        file_step(k);
    }
}

/* Queues one answer. On failure the connection is closed and nobody else is told. */
static int answer(struct conn *k, const struct fl_ctl_answer *a)
{
    struct write *w = fl_try(1, sizeof *w);
    int status = -FL_R_NOMEM;

    if (!w) {
        goto fail;
    }
    status = fl_ctl_pack_answer(a, &w->frame, &w->size);
    if (status == 0 && k->queued + w->size > FL_CTL_QUEUE_MAX) {
        status = -FL_R_LIMIT;
    }
    if (status) {
        goto fail;
    }
    uv_buf_t buf = uv_buf_init((char *)w->frame, (unsigned)w->size);
    w->conn = k;
    k->queued += w->size;
    if (uv_write(&w->req, (uv_stream_t *)&k->pipe, &buf, 1, on_written) < 0) {
        k->queued -= w->size;
        status = -FL_R_PEER_CLOSED;
        goto fail;
    }
    return 0;
fail:
    if (w) {
        fl_free(w->frame);
    }
    fl_free(w);
    conn_close(k, false);
    return status;
}

/* The last word to a peer that is not heard: as much as the socket takes at once. */
static void conn_refuse(struct conn *k, enum fl_reason reason, const char *text)
{
    struct fl_ctl_answer a = {.kind = FL_CTL_END, .reason = reason, .text = text};
    uint8_t *frame;
    size_t size;

    if (fl_ctl_pack_answer(&a, &frame, &size) == 0) {
        uv_buf_t buf = uv_buf_init((char *)frame, (unsigned)size);
        (void)uv_try_write((uv_stream_t *)&k->pipe, &buf, 1);
        fl_free(frame);
    }
    conn_close(k, true);
}

static struct conn *find(struct fl_ctl *c, uint64_t call)
{
    for (size_t i = 0; call && i < FL_CTL_CALLS_MAX; i++) {
        if (c->conns[i] && c->conns[i]->call == call) {
            return c->conns[i];
        }
    }
    return NULL;
}

int fl_ctl_json(struct fl_ctl *c, uint64_t call, const char *json)
{
    struct conn *k = find(c, call);

    return k ? answer(k, &(struct fl_ctl_answer){.kind = FL_CTL_JSON, .text = json})
             : -FL_R_PEER_CLOSED;
}

int fl_ctl_data(struct fl_ctl *c, uint64_t call, const void *data, size_t size)
{
    struct conn *k = find(c, call);

    return k ? answer(k, &(struct fl_ctl_answer){.kind = FL_CTL_DATA, .data = data, .size = size})
             : -FL_R_PEER_CLOSED;
}

static void next_request(struct conn *k)
{
    k->call = 0;
    k->got = k->size = 0;
    uv_timer_start(&k->timer, on_timeout, FL_CTL_REQUEST_MS, 0);
}

int fl_ctl_end(struct fl_ctl *c, uint64_t call, int reason, const char *text)
{
    struct conn *k = find(c, call);

    if (!k) {
        return -FL_R_PEER_CLOSED;
    }
    int status =
        answer(k, &(struct fl_ctl_answer){.kind = FL_CTL_END,
                                          .reason = (uint32_t)(reason < 0 ? -reason : reason),
                                          .text = text});
    if (status == 0) {
        next_request(k);
    }
    return status;
}

/* ---- files ---- */

static void file_done(struct conn *k, int reason, const char *text)
{
    close(k->fd);
    k->fd = -1;
    fl_free(k->piece);
    k->piece = NULL;
    fl_ctl_end(k->server, k->call, reason, text);
}

static void on_file_read(uv_fs_t *req)
{
    struct conn *k = req->data;
    ssize_t n = req->result;

    uv_fs_req_cleanup(req);
    if (k->closing) {
        conn_unref(k);
        return;
    }
    k->refs--;
    if (n <= 0) {
        file_done(k, FL_R_STORE_IO, n < 0 ? uv_strerror((int)n) : "the file ends early");
        return;
    }
    k->file_at += (uint64_t)n;
    k->file_left -= (uint64_t)n;
    uint64_t call = k->call;
    struct fl_ctl *c = k->server;
    if (answer(k,
               &(struct fl_ctl_answer){.kind = FL_CTL_DATA, .data = k->piece, .size = (size_t)n}) <
            0 &&
        c->conf.gone) {
        c->conf.gone(c->conf.arg, call);
    }
}

/* Reads the next piece once the last one is in the socket: one piece of memory per peer. */
static void file_step(struct conn *k)
{
    if (k->file_left == 0) {
        file_done(k, 0, NULL);
        return;
    }
    uv_buf_t buf = uv_buf_init((char *)k->piece,
                               k->file_left < FL_CTL_PIECE ? (unsigned)k->file_left : FL_CTL_PIECE);
    k->read.data = k;
    k->refs++;
    int status = uv_fs_read(k->server->conf.loop, &k->read, k->fd, &buf, 1, (int64_t)k->file_at,
                            on_file_read);
    if (status < 0) {
        k->refs--;
        file_done(k, FL_R_STORE_IO, uv_strerror(status));
    }
}

int fl_ctl_file(struct fl_ctl *c, uint64_t call, int fd, uint64_t offset, uint64_t size)
{
    struct conn *k = find(c, call);

    if (!k || k->fd >= 0) {
        close(fd);
        return -FL_R_PEER_CLOSED;
    }
    k->piece = fl_try(1, FL_CTL_PIECE);
    if (!k->piece) {
        close(fd);
        fl_ctl_end(c, call, FL_R_NOMEM, NULL);
        return -FL_R_NOMEM;
    }
    k->fd = fd;
    k->file_at = offset;
    k->file_left = size;
    if (k->queued == 0) { /* otherwise on_written starts it */
        file_step(k);
    }
    return 0;
}

/* ---- requests ---- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct conn *k = h->data;

    (void)suggested;
    if (k->call || k->got < FL_CTL_HEAD) {
        unsigned at = k->call ? 0 : k->got;
        *buf = uv_buf_init((char *)k->head + at, FL_CTL_HEAD - at);
    } else {
        unsigned at = k->got - FL_CTL_HEAD;
        *buf = uv_buf_init((char *)k->body + at, k->size - at);
    }
}

static void on_request(struct conn *k)
{
    struct fl_ctl *c = k->server;
    struct fl_ctl_call *call = fl_try(1, sizeof *call);
    uint8_t *body = k->body;
    void *memory = NULL;

    k->body = NULL;
    uv_timer_stop(&k->timer);
    if (!call) {
        conn_refuse(k, FL_R_NOMEM, "out of memory");
        fl_free(body);
        return;
    }
    k->call = call->id = ++c->calls;
    call->uid = k->uid;
    call->pid = k->pid;
    int status = fl_ctl_unpack_request(body, k->size, &call->request, &memory, &call->err);
    fl_free(body);
    if (status == 0) {
        status = c->conf.handle(c->conf.arg, call);
    }
    /* From here on k may be gone: only the id is safe. */
    if (status < 0) {
        fl_ctl_end(c, call->id, status, call->err.msg[0] ? call->err.msg : fl_reason_text(status));
    }
    fl_ctl_release(memory);
    fl_free(call);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct conn *k = s->data;

    (void)buf;
    if (n == 0) {
        return;
    }
    if (n < 0 || k->call) {
        conn_close(k, true);
        return;
    }
    k->got += (uint32_t)n;
    if (k->got == FL_CTL_HEAD) {
        if (fl_ctl_length(k->head, &k->size) < 0) {
            conn_refuse(k, FL_R_FRAME_SIZE, "a request that is empty or longer than 1 MiB");
            return;
        }
        k->body = fl_try(1, k->size);
        if (!k->body) {
            conn_refuse(k, FL_R_NOMEM, "out of memory");
        }
    } else if (k->got > FL_CTL_HEAD && k->got == FL_CTL_HEAD + k->size) {
        on_request(k);
    }
}

/* ---- connections ---- */

static bool in_group(int fd, const struct ucred *peer, gid_t group)
{
    gid_t few[64], *groups = few;
    socklen_t size = sizeof few;
    bool found = peer->gid == group;

    int status = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size);
    if (status < 0 && errno == ERANGE && size > sizeof few) {
        groups = fl_try(1, size);
        status = groups ? getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) : -1;
    }
    for (size_t i = 0; status == 0 && !found && i < size / sizeof *groups; i++) {
        found = groups[i] == group;
    }
    if (groups != few) {
        fl_free(groups);
    }
    return found;
}

static bool may_speak(struct conn *k)
{
    struct fl_ctl *c = k->server;
    struct ucred peer;
    socklen_t size = sizeof peer;
    uv_os_fd_t fd;

    if (uv_fileno((uv_handle_t *)&k->pipe, &fd) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        return false;
    }
    k->uid = peer.uid;
    k->pid = peer.pid;
    return peer.uid == 0 || peer.uid == geteuid() ||
           (c->has_group && in_group(fd, &peer, c->group));
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct fl_ctl *c = listener->data;
    size_t slot = 0;

    if (status < 0) {
        return;
    }
    /* Small, and at most FL_CTL_CALLS_MAX of them beside those that are closing. libuv stops
     * listening when a connection is not accepted, so there is no way to fail here. */
    struct conn *k = fl_new(1, sizeof *k);
    k->server = c;
    k->fd = -1;
    k->refs = 2;
    c->refs++;
    uv_pipe_init(c->conf.loop, &k->pipe, 0);
    uv_timer_init(c->conf.loop, &k->timer);
    k->pipe.data = k->timer.data = k;
    if (uv_accept(listener, (uv_stream_t *)&k->pipe) < 0) {
        conn_close(k, false);
        return;
    }
    while (slot < FL_CTL_CALLS_MAX && c->conns[slot]) {
        slot++;
    }
    if (!may_speak(k)) {
        conn_refuse(k, FL_R_CTL_PEER, "this user may not use the control socket");
    } else if (slot == FL_CTL_CALLS_MAX) {
        conn_refuse(k, FL_R_BUSY, "too many connections to the control socket");
    } else if (uv_read_start((uv_stream_t *)&k->pipe, on_alloc, on_read) < 0) {
        conn_close(k, false);
    } else {
        c->conns[slot] = k;
        next_request(k);
    }
}

/* ---- the socket ---- */

static int clear_stale(const char *path, const struct sockaddr_un *to, struct fl_err *e)
{
    struct stat st;

    if (lstat(path, &st) < 0) {
        return errno == ENOENT ? 0 : fl_fail_sys(e, FL_R_CTL_LISTEN, errno, "%s", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return fl_fail(e, FL_R_CTL_LISTEN, "%s exists and is not a socket", path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return fl_fail_sys(e, FL_R_CTL_LISTEN, errno, "socket");
    }
    int status = connect(fd, (const struct sockaddr *)to, sizeof *to);
    int why = errno;
    close(fd);
    if (status == 0 || why != ECONNREFUSED) {
        return fl_fail(e, FL_R_CTL_EXISTS, "another process listens on %s", path);
    }
    if (unlink(path) < 0) {
        return fl_fail_sys(e, FL_R_CTL_LISTEN, errno, "remove the stale socket %s", path);
    }
    return 0;
}

/* A bound socket of mode 0660 that does not listen yet. */
static int make_socket(struct fl_ctl *c, struct fl_err *e)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct stat st;

    if (strlen(c->conf.path) >= sizeof to.sun_path) {
        return fl_fail(e, FL_R_CTL_LISTEN, "%s: a socket's path has at most %zu bytes",
                       c->conf.path, sizeof to.sun_path - 1);
    }
    memcpy(to.sun_path, c->conf.path, strlen(c->conf.path) + 1);
    memcpy(c->path, to.sun_path, sizeof c->path);
    int status = clear_stale(c->path, &to, e);
    if (status) {
        return status;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return fl_fail_sys(e, FL_R_CTL_LISTEN, errno, "socket");
    }
    mode_t mask = umask(0177);
    status = bind(fd, (const struct sockaddr *)&to, sizeof to);
    int why = errno;
    umask(mask);
    if (status < 0) {
        close(fd);
        return fl_fail_sys(e, FL_R_CTL_LISTEN, why, "%s", c->path);
    }
    /* A sandbox may forbid chown; where the process's own group is meant there is nothing to do. */
    if (lstat(c->path, &st) < 0 ||
        (c->has_group && st.st_gid != c->group && chown(c->path, (uid_t)-1, c->group) < 0) ||
        chmod(c->path, 0660) < 0) {
        why = errno;
        close(fd);
        unlink(c->path);
        return fl_fail_sys(e, FL_R_CTL_LISTEN, why, "group and mode of %s", c->path);
    }
    c->dev = st.st_dev;
    c->ino = st.st_ino;
    return fd;
}

static int find_group(struct fl_ctl *c, struct fl_err *e)
{
    struct group group, *found = NULL;
    char memory[4096];

    if (!c->conf.group) {
        return 0;
    }
    if (getgrnam_r(c->conf.group, &group, memory, sizeof memory, &found) != 0 || !found) {
        return fl_fail(e, FL_R_CONF_RANGE, "no group '%s' on this machine", c->conf.group);
    }
    c->has_group = true;
    c->group = group.gr_gid;
    return 0;
}

static void on_listener_closed(uv_handle_t *h)
{
    server_unref(h->data);
}

int fl_ctl_listen(const struct fl_ctl_conf *conf, struct fl_ctl **ret, struct fl_err *e)
{
    struct fl_ctl *c = fl_new(1, sizeof *c);

    c->conf = *conf;
    int status = find_group(c, e);
    int fd = status ? status : make_socket(c, e);
    if (fd < 0) {
        fl_free(c);
        return fd;
    }
    c->refs = 1;
    uv_pipe_init(conf->loop, &c->listener, 0);
    c->listener.data = c;
    status = uv_pipe_open(&c->listener, fd);
    if (status < 0) {
        close(fd);
    } else {
        status = uv_listen((uv_stream_t *)&c->listener, 64, on_connection);
    }
    if (status < 0) {
        fl_ctl_close(c);
        return fl_fail(e, FL_R_CTL_LISTEN, "listen on %s: %s", conf->path, uv_strerror(status));
    }
    *ret = c;
    return 0;
}

void fl_ctl_close(struct fl_ctl *c)
{
    struct stat st;

    if (!c || c->closed) {
        return;
    }
    c->closed = true;
    c->conf.gone = NULL;
    for (size_t i = 0; i < FL_CTL_CALLS_MAX; i++) {
        if (c->conns[i]) {
            conn_refuse(c->conns[i], FL_R_SHUTDOWN, "the daemon is stopping");
        }
    }
    if (lstat(c->path, &st) == 0 && st.st_dev == c->dev && st.st_ino == c->ino) {
        unlink(c->path);
    }
    uv_close((uv_handle_t *)&c->listener, on_listener_closed);
}
