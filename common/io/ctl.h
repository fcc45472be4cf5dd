/*
 * The control socket, server side: a UNIX socket on the loop, for cohortd and for cohort-agent's
 * site socket. Framing and messages are proto/control.proto; a connection carries one request at a
 * time, its answer is any number of parts and one end, at once or hours later (`--wait`, `watch`).
 *
 * Who may speak is decided once, at accept, by the kernel's word (SO_PEERCRED): the daemon's own
 * user, root, or a member of the configured group. Everyone else is told -FL_R_CTL_PEER and closed.
 *
 * A call that is not answered at once is named by its id across the gap, never by a pointer: when
 * the peer has gone meanwhile, answering says -FL_R_PEER_CLOSED and `gone` was called. All
 * functions are for the loop thread; none of them calls `handle` or `gone` before it returns. The
 * program ignores SIGPIPE (libuv writes with write(2)).
 *
 * Bounds: FL_CTL_CALLS_MAX connections, a request of FL_CTL_REQUEST_MAX bytes that arrives within
 * FL_CTL_REQUEST_MS, FL_CTL_QUEUE_MAX bytes of answers that a peer may leave unread.
 */
#ifndef FL_IO_CTL_H
#define FL_IO_CTL_H

#include "common/base/err.h"
#include "common/io/ctl_wire.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

enum {
    FL_CTL_CALLS_MAX = 64,
    FL_CTL_QUEUE_MAX = 4 * 1024 * 1024,
    FL_CTL_REQUEST_MS = 10 * 1000,
    FL_CTL_PIECE = 256 * 1024, /* of a file, per part */
};

struct fl_ctl;

/* One request. Valid during `handle` only; keep `id`. */
struct fl_ctl_call {
    uint64_t id; /* never 0, never reused */
    uid_t uid;
    pid_t pid;
    struct fl_ctl_request request;
    struct fl_err err; /* room for the text of a refusal */
};

struct fl_ctl_conf {
    uv_loop_t *loop;
    const char *path;
    const char *group; /* NULL = only the same user and root */
    /* 0: was or will be answered. Negative: the call is ended with that reason and call->err.msg.
     */
    int (*handle)(void *arg, struct fl_ctl_call *call);
    /* The peer hung up before the end of this call, and no answer's return value said so. NULL = do
     * not care.
     */
    void (*gone)(void *arg, uint64_t call);
    void *arg;
};

/* Listens with mode 0660 (owner and group set before anyone can connect). A socket nobody listens
 * on is replaced; one that somebody does: -FL_R_CTL_EXISTS; a path that is no socket, too long or
 * in a missing folder: -FL_R_CTL_LISTEN. An unknown group: -FL_R_CONF_RANGE. */
int fl_ctl_listen(const struct fl_ctl_conf *conf, struct fl_ctl **ret, struct fl_err *e);
/* Ends what is open with -FL_R_SHUTDOWN (as far as the sockets take it without waiting), removes
 * the socket file if it is still ours. Memory goes when the loop has closed the handles. NULL is
 * fine. `gone` is not called. */
void fl_ctl_close(struct fl_ctl *c);

/* Answers. 0, or -FL_R_PEER_CLOSED: no such call (any more); -FL_R_LIMIT: the peer does not read,
 * the call is over; -FL_R_NOMEM likewise. A part is at most FL_CTL_REQUEST_MAX - 64 bytes. */
int fl_ctl_json(struct fl_ctl *c, uint64_t call, const char *json);
int fl_ctl_data(struct fl_ctl *c, uint64_t call, const void *data, size_t size);
/* reason 0 = done. Negative reasons are made positive. text may be NULL. */
int fl_ctl_end(struct fl_ctl *c, uint64_t call, int reason, const char *text);
/* Takes the descriptor and sends [offset, offset + size) of it as data parts, read off the loop at
 * the speed of the peer, then the end. A read that fails or comes short ends the call with
 * -FL_R_STORE_IO. */
int fl_ctl_file(struct fl_ctl *c, uint64_t call, int fd, uint64_t offset, uint64_t size);

#endif
