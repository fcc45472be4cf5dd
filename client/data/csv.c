/*
 * CSV (RFC 4180): comma, quotes doubled inside quotes, LF or CRLF, a first row of names. Strict
 * where a silent guess would train on nonsense: an empty field, a word in a numeric column or a row
 * of another length is an error that names file, line and column.
 */
#include "client/data/bytes.h"
#include "client/data/table.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 * 1024, RECORD_MAX = 1 << 20, FIELDS_MAX = 1 << 16, ROWS_MAX = 1 << 28 };

struct csv {
    struct fl_bytes *bytes;
    const char *path;
    uint64_t line;        /* of the record's first character, from 1 */
    uint64_t next_line;   /* of the next character */
    uint32_t field_count; /* of the record */
    uint32_t columns;     /* of the file */
    uint32_t target, client;
    bool has_client;
    size_t used, room, starts_room;
    size_t at, have;
    char *record; /* fields, each terminated */
    size_t *starts;
    char **names; /* into `header` */
    char *header;
    char block[BLOCK];
};

static void csv_close(struct csv *c)
{
    if (c) {
        fl_bytes_close(c->bytes);
        fl_free(c->record);
        fl_free(c->starts);
        fl_free(c->names);
        fl_free(c->header);
        fl_free(c);
    }
}

/* The next byte, or -1 at the end of the file. */
static int next_byte(struct csv *c, int *ret, struct fl_err *e)
{
    if (c->at == c->have) {
        c->at = 0;
        int r = fl_bytes_read(c->bytes, c->block, sizeof c->block, &c->have, e);
        if (r) {
            return r;
        }
        if (c->have == 0) {
            *ret = -1;
            return 0;
        }
    }
    *ret = (unsigned char)c->block[c->at++];
    c->next_line += *ret == '\n';
    return 0;
}

static int put(struct csv *c, char byte, struct fl_err *e)
{
    if (c->used == RECORD_MAX) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s:%llu: a row longer than 1 MiB", c->path,
                       (unsigned long long)c->line);
    }
    if (c->used == c->room) {
        size_t room = c->room ? 2 * c->room : 1024;
        if (!fl_try_grow((void **)&c->record, room, 1)) {
            return fl_fail(e, FL_R_NOMEM, "%s: out of memory", c->path);
        }
        c->room = room;
    }
    c->record[c->used++] = byte;
    return 0;
}

static int begin_field(struct csv *c, struct fl_err *e)
{
    if (c->field_count == FIELDS_MAX) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s:%llu: more than %d columns", c->path,
                       (unsigned long long)c->line, FIELDS_MAX);
    }
    if (c->field_count == c->starts_room) {
        size_t room = c->starts_room ? 2 * c->starts_room : 64;
        if (!fl_try_grow((void **)&c->starts, room, sizeof *c->starts)) {
            return fl_fail(e, FL_R_NOMEM, "%s: out of memory", c->path);
        }
        c->starts_room = room;
    }
    c->starts[c->field_count++] = c->used;
    return 0;
}

static int fail_here(const struct csv *c, const char *what, struct fl_err *e)
{
    return fl_fail(e, FL_R_DATA_FORMAT, "%s:%llu: %s", c->path, (unsigned long long)c->line, what);
}

/* Reads one field and what ends it: ',', '\n' or -1. */
static int read_field(struct csv *c, int *ret_end, struct fl_err *e)
{
    bool quoted = false, closed = false, empty = true;
    int byte = 0;
    int r = begin_field(c, e);

    for (; r == 0; empty = false) {
        if ((r = next_byte(c, &byte, e))) {
            return r;
        }
        if (byte == 0) {
            return fail_here(c, "a zero byte", e);
        }
        if (quoted && !closed) {
            if (byte < 0) {
                return fail_here(c, "a quote is not closed", e);
            }
            closed = byte == '"';
            r = closed ? 0 : put(c, (char)byte, e);
        } else if (closed && byte == '"') {
            closed = false; /* a doubled quote */
            r = put(c, '"', e);
        } else if (byte < 0 || byte == ',' || byte == '\n') {
            *ret_end = byte;
            if (byte == '\n' && !closed && c->used > c->starts[c->field_count - 1] &&
                c->record[c->used - 1] == '\r') {
                c->used--;
            }
            return put(c, 0, e);
        } else if (closed && byte != '\r') {
            return fail_here(c, "something follows a closing quote", e);
        } else if (byte == '"' && empty) {
            quoted = true;
        } else if (byte == '"') {
            return fail_here(c, "a quote inside a field", e);
        } else if (!closed) {
            r = put(c, (char)byte, e);
        }
    }
    return r;
}

/* The next record; *ret_end when there is none. An empty last line is not a record. */
static int next_record(struct csv *c, bool *ret_end, struct fl_err *e)
{
    int end = ',';

    c->used = 0;
    c->field_count = 0;
    c->line = c->next_line;
    while (end == ',') {
        int r = read_field(c, &end, e);
        if (r) {
            return r;
        }
    }
    bool nothing = c->field_count == 1 && c->record[0] == 0;
    if (nothing && end == '\n') {
        return fail_here(c, "an empty line", e);
    }
    *ret_end = nothing && end < 0;
    return 0;
}

static const char *field(const struct csv *c, uint32_t i)
{
    return c->record + c->starts[i];
}

static int find_column(const struct csv *c, const char *name, uint32_t *ret, struct fl_err *e)
{
    uint32_t hits = 0;

    for (uint32_t i = 0; i < c->columns; i++) {
        if (strcmp(c->names[i], name) == 0) {
            *ret = i;
            hits++;
        }
    }
    if (hits != 1) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s:1: %s column is named %.64s", c->path,
                       hits ? "more than one" : "no", name);
    }
    return 0;
}

/* The first row: keeps the names and finds the special columns. */
static int read_names(struct csv *c, const char *target, const char *column, struct fl_err *e)
{
    bool end = false;

    int r = next_record(c, &end, e);
    if (r) {
        return r;
    }
    if (end) {
        return fl_fail(e, FL_R_DATA_TRUNCATED, "%s: empty; a row of column names is wanted",
                       c->path);
    }
    c->columns = c->field_count;
    c->header = fl_try(c->used, 1);
    c->names = fl_try(c->columns, sizeof *c->names);
    if (!c->header || !c->names) {
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", c->path);
    }
    memcpy(c->header, c->record, c->used);
    for (uint32_t i = 0; i < c->columns; i++) {
        c->names[i] = c->header + c->starts[i];
    }
    c->has_client = column[0] != 0;
    r = find_column(c, target, &c->target, e);
    if (r == 0 && c->has_client) {
        r = find_column(c, column, &c->client, e);
    }
    if (r == 0 && c->has_client && c->client == c->target) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s:1: %.64s is both target and client column", c->path,
                    target);
    }
    if (r == 0 && c->columns <= 1u + c->has_client) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s:1: no column of features", c->path);
    }
    return r;
}

static int csv_open(const char *path, const char *target, const char *column, struct csv **ret,
                    struct fl_err *e)
{
    struct csv *c = fl_try(1, sizeof *c);

    if (!c) {
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
    }
    c->path = path;
    c->next_line = 1;
    int r = fl_bytes_open(path, &c->bytes, e);
    if (r == 0) {
        r = fl_bytes_read(c->bytes, c->block, sizeof c->block, &c->have, e);
    }
    if (r == 0 && c->have >= 3 && memcmp(c->block, "\xef\xbb\xbf", 3) == 0) {
        c->at = 3; /* a byte order mark */
    }
    if (r == 0) {
        r = read_names(c, target, column, e);
    }
    if (r) {
        csv_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* The next row of data, of the right length. */
static int next_row(struct csv *c, bool *ret_end, struct fl_err *e)
{
    int r = next_record(c, ret_end, e);

    if (r == 0 && !*ret_end && c->field_count != c->columns) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s:%llu: %u fields where the first row has %u",
                       c->path, (unsigned long long)c->line, c->field_count, c->columns);
    }
    return r;
}

static int fail_value(const struct csv *c, uint32_t i, const char *wanted, struct fl_err *e)
{
    return fl_fail(e, FL_R_DATA_VALUE, "%s:%llu: column %.64s: \"%.40s\" is not %s", c->path,
                   (unsigned long long)c->line, c->names[i], field(c, i), wanted);
}

static int get_number(const struct csv *c, uint32_t i, uint32_t most, const char *wanted,
                      uint32_t *ret, struct fl_err *e)
{
    const char *s = field(c, i);
    uint64_t x = 0;
    size_t digits = strspn(s, "0123456789");

    if (digits == 0 || digits > 10 || s[digits]) {
        return fail_value(c, i, wanted, e);
    }
    for (; *s; s++) {
        x = 10 * x + (uint64_t)(*s - '0');
    }
    if (x > most) {
        return fail_value(c, i, wanted, e);
    }
    *ret = (uint32_t)x;
    return 0;
}

static int get_real(const struct csv *c, uint32_t i, float *ret, struct fl_err *e)
{
    const char *s = field(c, i);
    char *end = NULL;

    s += strspn(s, " ");
    size_t length = strspn(s, "+-.0123456789eE");
    if (length == 0 || s[length + strspn(s + length, " ")]) {
        return fail_value(c, i, "a finite number", e);
    }
    float x = strtof(s, &end);
    if (end != s + length || !isfinite(x)) {
        return fail_value(c, i, "a finite number", e);
    }
    *ret = x;
    return 0;
}

/* Makes room for one more row in y and client. */
static bool grow_table(struct fl_table *t, bool has_client, size_t *room)
{
    if (t->count < *room) {
        return true;
    }
    size_t more = *room ? 2 * *room : 256;
    if (!fl_try_grow((void **)&t->y, more, sizeof *t->y) ||
        (has_client && !fl_try_grow((void **)&t->client, more, sizeof *t->client))) {
        return false;
    }
    *room = more;
    return true;
}

int fl_csv_scan(const char *path, const char *target, const char *column, struct fl_table *ret,
                struct fl_err *e)
{
    struct fl_table t = {0};
    struct csv *c = NULL;
    size_t room = 0;
    bool end = false;

    int r = csv_open(path, target, column, &c, e);
    if (r) {
        return r;
    }
    while ((r = next_row(c, &end, e)) == 0 && !end) {
        uint32_t y = 0;
        if (t.count == ROWS_MAX) {
            r = fail_here(c, "too many rows", e);
        } else if (!grow_table(&t, c->has_client, &room)) {
            r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
        } else {
            r = get_number(c, c->target, FL_TABLE_CLASSES_MAX - 1, "a class number", &y, e);
        }
        if (r == 0 && c->has_client) {
            r = get_number(c, c->client, UINT32_MAX, "a client number", &t.client[t.count], e);
        }
        if (r) {
            break;
        }
        t.y[t.count++] = (int32_t)y;
    }
    if (r == 0 && t.count == 0) {
        r = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: no rows after the names", path);
    }
    t.shape[0] = c->columns - 1 - c->has_client;
    t.shape[1] = t.shape[2] = 1;
    csv_close(c);
    if (r) {
        fl_table_fini(&t);
        return r;
    }
    *ret = t;
    return 0;
}

int fl_csv_read(const char *path, const char *target, const char *column, const struct fl_table *t,
                const struct fl_pick *picks, size_t count, struct fl_err *e)
{
    size_t features = fl_table_features(t);
    struct csv *c = NULL;
    uint32_t row = 0;
    bool end = false;

    int r = csv_open(path, target, column, &c, e);
    if (r) {
        return r;
    }
    if (c->columns != features + 1 + c->has_client) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s: changed while it was read", path);
    }
    for (; r == 0 && count; row++) {
        r = next_row(c, &end, e);
        if (r == 0 && end) {
            r = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: changed while it was read", path);
        }
        for (; r == 0 && count && picks->row == row; picks++, count--) {
            float *to = picks->to;
            for (uint32_t i = 0; r == 0 && i < c->columns; i++) {
                if (i != c->target && !(c->has_client && i == c->client)) {
                    r = get_real(c, i, to++, e);
                }
            }
        }
    }
    csv_close(c);
    return r;
}
