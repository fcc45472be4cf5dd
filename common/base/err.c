#include "common/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 0))) static int fail_v(struct fl_err *e, enum fl_reason reason,
                                                        const char *fmt, va_list ap)
{
    if (e) {
        e->code = -(int)reason;
        vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    }
    return -(int)reason;
}

int fl_fail(struct fl_err *e, enum fl_reason reason, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int code = fail_v(e, reason, fmt, ap);
    va_end(ap);
    return code;
}

int fl_fail_sys(struct fl_err *e, enum fl_reason reason, int sys_errno, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int code = fail_v(e, reason, fmt, ap);
    va_end(ap);
    if (e) {
        size_t n = strlen(e->msg);
        char text[96];
        /* The GNU strerror_r: the result may or may not live in `text`. */
        snprintf(e->msg + n, sizeof e->msg - n, ": %s", strerror_r(sys_errno, text, sizeof text));
    }
    return code;
}

int fl_wrap(struct fl_err *e, int code, const char *fmt, ...)
{
    if (!e) {
        return code;
    }
    struct fl_err inner = *e;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", inner.msg);
    e->code = code;
    return code;
}

const char *fl_reason_name(int reason)
{
    switch (reason < 0 ? -reason : reason) {
#define FL_REASON_NAME(number, name, text, meaning)                                                \
    case number:                                                                                   \
        return text;
        FL_REASONS(FL_REASON_NAME)
#undef FL_REASON_NAME
    case 0:
        return "ok";
    default:
        return "unknown";
    }
}

const char *fl_reason_text(int reason)
{
    switch (reason < 0 ? -reason : reason) {
#define FL_REASON_TEXT(number, name, text, meaning)                                                \
    case number:                                                                                   \
        return meaning;
        FL_REASONS(FL_REASON_TEXT)
#undef FL_REASON_TEXT
    case 0:
        return "no error";
    default:
        return "a reason of a newer version";
    }
}
