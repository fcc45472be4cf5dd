/*
 * The log: lines on stderr, text on a terminal and JSON otherwise (or as chosen). Cores never log;
 * the shell that ends a failure logs it, once, with its reason number. Never payloads. Thread-safe:
 * a line is one write.
 */
#ifndef FL_BASE_LOG_H
#define FL_BASE_LOG_H

#include "common/base/err.h"

enum fl_log_level { FL_LOG_ERROR, FL_LOG_WARN, FL_LOG_INFO, FL_LOG_DEBUG };
enum fl_log_format { FL_LOG_AUTO, FL_LOG_TEXT, FL_LOG_JSON };

void fl_log_setup(const char *program, enum fl_log_level level, enum fl_log_format format);
void fl_log_set_level(enum fl_log_level level);

/* `area` names the module ("round", "tls", "agent site-03"); an area of NULL is left out. */
void fl_log(enum fl_log_level level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A failure: "fmt: e->msg", with the reason's number and name. */
void fl_log_err(enum fl_log_level level, const char *area, const struct fl_err *e, const char *fmt,
                ...) __attribute__((format(printf, 4, 5)));

#endif
