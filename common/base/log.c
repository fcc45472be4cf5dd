#include "common/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *program_name = "cohort";
static atomic_int max_level = FL_LOG_INFO;
static bool as_json;

static const char *const level_name[] = {"error", "warn", "info", "debug"};

void fl_log_setup(const char *program, enum fl_log_level level, enum fl_log_format format)
{
    program_name = program;
    as_json = format == FL_LOG_JSON || (format == FL_LOG_AUTO && !isatty(STDERR_FILENO));
    fl_log_set_level(level);
}

void fl_log_set_level(enum fl_log_level level)
{
    atomic_store(&max_level, (int)level);
}

/* Appends text with JSON's escapes; cuts at the end of the line buffer. */
static size_t put_json(char *line, size_t n, size_t size, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p && n + 8 < size; p++) {
        if (*p == '"' || *p == '\\') {
            line[n++] = '\\';
            line[n++] = (char)*p;
        } else if (*p < 0x20) {
            n += (size_t)snprintf(line + n, size - n, "\\u%04x", *p);
        } else {
            line[n++] = (char)*p;
        }
    }
    return n;
}

static void emit(enum fl_log_level level, const char *area, int reason, const char *text)
{
    struct timespec now;
    struct tm tm;
    char stamp[40], line[1024];
    size_t n;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t s = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + s, sizeof stamp - s, ".%03ldZ", now.tv_nsec / 1000000);
    if (as_json) {
        n = (size_t)snprintf(line, sizeof line,
                             "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\"", stamp,
                             level_name[level], program_name);
        if (area) {
            n += (size_t)snprintf(line + n, sizeof line - n, ",\"area\":\"");
            n = put_json(line, n, sizeof line - 64, area);
            line[n++] = '"';
        }
        if (reason) {
            n +=
                (size_t)snprintf(line + n, sizeof line - n, ",\"reason\":%d,\"reason_name\":\"%s\"",
                                 reason, fl_reason_name(reason));
        }
        n += (size_t)snprintf(line + n, sizeof line - n, ",\"message\":\"");
        n = put_json(line, n, sizeof line - 4, text);
        line[n++] = '"';
        line[n++] = '}';
        line[n++] = '\n';
    } else {
        int w = snprintf(line, sizeof line - 1, "%s %-5s %s%s%s%s", stamp, level_name[level],
                         area ? area : "", area ? ": " : "", text, "");
        n = (size_t)w < sizeof line - 1 ? (size_t)w : sizeof line - 2;
        /* What a peer or a file put into a message must not forge a second line. */
        for (size_t i = 0; i < n; i++) {
            if ((unsigned char)line[i] < 0x20) {
                line[i] = '?';
            }
        }
        if (reason) {
            w = snprintf(line + n, sizeof line - 1 - n, " [%d %s]", reason, fl_reason_name(reason));
            n = n + (size_t)w < sizeof line - 1 ? n + (size_t)w : sizeof line - 2;
        }
        line[n++] = '\n';
    }
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored; /* a log that cannot be written has nowhere to complain */
}

void fl_log(enum fl_log_level level, const char *area, const char *fmt, ...)
{
    if ((int)level > atomic_load(&max_level)) {
        return;
    }
    char text[700];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    emit(level, area, 0, text);
}

void fl_log_err(enum fl_log_level level, const char *area, const struct fl_err *e, const char *fmt,
                ...)
{
    if ((int)level > atomic_load(&max_level)) {
        return;
    }
    char text[700];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t at = n < 0 ? 0 : ((size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    snprintf(text + at, sizeof text - at, ": %s", e->msg);
    emit(level, area, -e->code, text);
}
