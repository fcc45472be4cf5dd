/*
 * The control socket, client side: for command line tools. Plain blocking sockets with a deadline,
 * no loop, so that the tools stay small.
 */
#ifndef FL_IO_CTL_CLIENT_H
#define FL_IO_CTL_CLIENT_H

#include "common/base/err.h"
#include "common/io/ctl_wire.h"

#include <stdint.h>

/* Sees each part as it arrives (never the end). Return 0 to go on; a negative value hangs up
 * and becomes the result of fl_ctl_ask. */
typedef int fl_ctl_on_part(void *arg, const struct fl_ctl_answer *part);

/* Connects, asks, hands each part to `on_part` (may be NULL), returns the end's reason: 0, or
 * negative with the daemon's text in `e`. timeout_ms for the whole call, 0 = none. Besides what the
 * daemon says: -FL_R_CTL_CONNECT (nobody listens, or no permission to connect), -FL_R_TIMEOUT,
 * -FL_R_PEER_CLOSED. */
int fl_ctl_ask(const char *path, const struct fl_ctl_request *request, uint64_t timeout_ms,
               fl_ctl_on_part *on_part, void *arg, struct fl_err *e);
/* The same; while it waits for the daemon, on_part is also called with NULL every tick_ms, so that
 * a clock on the screen can move. */
int fl_ctl_ask_ticking(const char *path, const struct fl_ctl_request *request, uint64_t timeout_ms,
                       uint64_t tick_ms, fl_ctl_on_part *on_part, void *arg, struct fl_err *e);

#endif
