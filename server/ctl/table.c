#include "server/ctl/table.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

struct fl_table {
    const char *const *heads;
    uint32_t columns;
    size_t count, room;
    char (*cells)[FL_TABLE_CELL_MAX];
};

/* Bytes a terminal shows in one place: the continuation bytes of UTF-8 take none. */
static int width(const char *s)
{
    int n = 0;

    for (; *s; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
    }
    return n;
}

struct fl_table *fl_table_new(const char *const *heads)
{
    struct fl_table *t = fl_new(1, sizeof *t);

    t->heads = heads;
    while (t->columns < FL_TABLE_COLUMNS_MAX && heads[t->columns]) {
        t->columns++;
    }
    return t;
}

void fl_text_clean(char *text)
{
    for (unsigned char *s = (unsigned char *)text; *s; s++) {
        if (*s < 0x20 || *s == 0x7f) {
            *s = ' ';
        }
    }
}

void fl_table_add(struct fl_table *t, const char *fmt, ...)
{
    va_list ap;

    if (t->count == t->room) {
        size_t room = t->room ? 2 * t->room : 64;
        void *cells = t->cells;
        if (!fl_try_grow(&cells, room, sizeof *t->cells)) {
            return;
        }
        t->cells = cells;
        t->room = room;
    }
    char *cell = t->cells[t->count++];
    va_start(ap, fmt);
    vsnprintf(cell, FL_TABLE_CELL_MAX, fmt, ap);
    va_end(ap);
    fl_text_clean(cell);
}

static void print_cell(FILE *to, const char *text, int room, bool right, bool last)
{
    int pad = room - width(text);

    if (right) {
        fprintf(to, "%*s%s%s", pad, "", text, last ? "\n" : "  ");
    } else {
        fprintf(to, "%s%*s", text, last ? 0 : pad + 2, "");
        if (last) {
            fputc('\n', to);
        }
    }
}

void fl_table_print(struct fl_table *t, FILE *to, const char *empty)
{
    int widths[FL_TABLE_COLUMNS_MAX] = {0};

    if (t->count == 0 && empty) {
        fprintf(to, "%s\n", empty);
    }
    for (uint32_t i = 0; i < t->columns; i++) {
        const char *head = t->heads[i] + (t->heads[i][0] == '>');
        widths[i] = width(head);
    }
    for (size_t i = 0; i < t->count; i++) {
        int *w = &widths[i % t->columns];
        *w = width(t->cells[i]) > *w ? width(t->cells[i]) : *w;
    }
    for (uint32_t i = 0; i < t->columns && t->count > 0; i++) {
        bool right = t->heads[i][0] == '>';
        print_cell(to, t->heads[i] + right, widths[i], right, i + 1 == t->columns);
    }
    for (size_t i = 0; i < t->count; i++) {
        uint32_t column = (uint32_t)(i % t->columns);
        print_cell(to, t->cells[i], widths[column], t->heads[column][0] == '>',
                   column + 1 == t->columns);
    }
    fl_free(t->cells);
    fl_free(t);
}

/* ---- quantities ---- */

const char *fl_text_bytes(uint64_t bytes, char ret[FL_TEXT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double n = (double)bytes;
    size_t u = 0;

    while (n >= 1024 && u + 1 < FL_COUNT(units)) {
        n /= 1024;
        u++;
    }
    snprintf(ret, FL_TEXT_MAX, u == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[u]);
    return ret;
}

const char *fl_text_span(uint64_t ms, char ret[FL_TEXT_MAX])
{
    double s = (double)ms / 1000;

    if (s < 10) {
        snprintf(ret, FL_TEXT_MAX, "%.1f s", s);
    } else if (s < 120) {
        snprintf(ret, FL_TEXT_MAX, "%.0f s", s);
    } else if (s < 7200) {
        snprintf(ret, FL_TEXT_MAX, "%.0f min", s / 60);
    } else if (s < 48 * 3600.0) {
        snprintf(ret, FL_TEXT_MAX, "%.0f h", s / 3600);
    } else {
        snprintf(ret, FL_TEXT_MAX, "%.0f d", s / 86400);
    }
    return ret;
}

const char *fl_text_when(uint64_t at_ms, uint64_t now_ms, char ret[FL_TEXT_MAX])
{
    char span[FL_TEXT_MAX];

    if (at_ms == 0) {
        snprintf(ret, FL_TEXT_MAX, "-");
    } else if (at_ms > now_ms) {
        snprintf(ret, FL_TEXT_MAX, "in %.30s", fl_text_span(at_ms - now_ms, span));
    } else {
        snprintf(ret, FL_TEXT_MAX, "%.30s ago", fl_text_span(now_ms - at_ms, span));
    }
    return ret;
}

const char *fl_text_date(int64_t seconds, char ret[FL_TEXT_MAX])
{
    time_t t = (time_t)seconds;
    struct tm tm;

    if (seconds == 0 || !gmtime_r(&t, &tm) || !strftime(ret, FL_TEXT_MAX, "%Y-%m-%d", &tm)) {
        snprintf(ret, FL_TEXT_MAX, "-");
    }
    return ret;
}

uint64_t fl_wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}
