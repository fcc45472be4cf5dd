/*
 * Errors.
 *
 * A function that can fail returns int: 0, or a negative reason number of the registry in
 * common/base/reasons.h (the same numbers that travel on the wire, stand in the logs and are
 * explained in proto/WIRE.md). If it has something to say it takes `struct fl_err *e` last. The
 * message starts where the failure is and gains context on the way up:
 *
 *     publish round 41: rename model: No space left on device
 *
 * No heap is used, so that "out of memory" can be reported too. `e` may be NULL everywhere.
 */
#ifndef FL_BASE_ERR_H
#define FL_BASE_ERR_H

#include "common/base/reasons.h"

struct fl_err {
    int code;      /* 0, or -FL_R_... */
    char msg[256]; /* always terminated; cut, never overrun */
};

/* Sets the message and returns -reason (reason > 0). */
int fl_fail(struct fl_err *e, enum fl_reason reason, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As fl_fail with ": " and the text of `sys_errno` at the end. */
int fl_fail_sys(struct fl_err *e, enum fl_reason reason, int sys_errno, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "context: " before the message and returns e->code (or `code` when e is NULL). */
int fl_wrap(struct fl_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The short name ("conf-unknown-key") and one-line meaning of a reason; never NULL. */
const char *fl_reason_name(int reason);
const char *fl_reason_text(int reason);

#endif
