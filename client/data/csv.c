/*
 * CSV (RFC 4180): comma, quotes doubled inside quotes, LF or CRLF, a first row of names. Strict
 * where a silent guess would train on nonsense: a row of another length, a quote in the middle of a
 * field or text that is not UTF-8 is an error that names file, line and column.
 */
#include "client/data/csv.h"

#include "client/data/bytes.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 * 1024, RECORD_MAX = 1 << 20, FIELDS_MAX = 1 << 16 };

struct fl_csv {
    struct fl_bytes *bytes;
    const char *path;
    uint64_t line;        /* of the record's first character, from 1 */
    uint64_t next_line;   /* of the next character */
    uint32_t field_count; /* of the record */
    uint32_t columns;     /* of the file */
    size_t used, room, starts_room;
    size_t at, have;
    char *record; /* fields, each terminated */
    size_t *starts;
    char **names; /* into `header` */
    char *header;
    char block[BLOCK];
};

void fl_csv_close(struct fl_csv *c)
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
static int next_byte(struct fl_csv *c, int *ret, struct fl_err *e)
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

static int put(struct fl_csv *c, char byte, struct fl_err *e)
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

static int begin_field(struct fl_csv *c, struct fl_err *e)
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

static int fail_here(const struct fl_csv *c, const char *what, struct fl_err *e)
{
    return fl_fail(e, FL_R_DATA_FORMAT, "%s:%llu: %s", c->path, (unsigned long long)c->line, what);
}

/* Reads one field and what ends it: ',', '\n' or -1. */
static int read_field(struct fl_csv *c, int *ret_end, struct fl_err *e)
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
static int next_record(struct fl_csv *c, bool *ret_end, struct fl_err *e)
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

const char *fl_csv_field(const struct fl_csv *c, uint32_t i)
{
    return c->record + c->starts[i];
}

void fl_csv_hash(const struct fl_csv *c, struct fl_hash *h)
{
    for (uint32_t i = 0; i < c->columns; i++) {
        const char *text = fl_csv_field(c, i);
        fl_hash_add(h, text, strlen(text) + 1);
    }
}

const char *fl_csv_name(const struct fl_csv *c, uint32_t i)
{
    return c->names[i];
}

const char *fl_csv_path(const struct fl_csv *c)
{
    return c->path;
}

uint64_t fl_csv_line(const struct fl_csv *c)
{
    return c->line;
}

uint32_t fl_csv_columns(const struct fl_csv *c)
{
    return c->columns;
}

int fl_csv_find(const struct fl_csv *c, const char *name, uint32_t *ret, struct fl_err *e)
{
    uint32_t hits = 0;

    for (uint32_t i = 0; i < c->columns; i++) {
        if (strcmp(c->names[i], name) == 0) {
            *ret = i;
            hits++;
        }
    }
    if (hits != 1) {
        return fl_fail(e, FL_R_DATA_COLUMN, "%s:1: %s column is named %.64s", c->path,
                       hits ? "more than one" : "no", name);
    }
    return 0;
}

/* Bytes of the UTF-8 character at s, 0 when it is none: overlong forms, surrogates and what lies
 * beyond U+10FFFF are none. */
static size_t utf8_length(const unsigned char *s)
{
    static const struct {
        unsigned char low, high, second_low, second_high, length;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < FL_COUNT(forms); i++) {
        if (s[0] < forms[i].low || s[0] > forms[i].high) {
            continue;
        }
        if (forms[i].length > 1 && (s[1] < forms[i].second_low || s[1] > forms[i].second_high)) {
            return 0;
        }
        for (size_t k = 2; k < forms[i].length; k++) {
            if ((s[k] & 0xc0) != 0x80) {
                return 0; /* the terminating zero too, so this never reads past a field */
            }
        }
        return forms[i].length;
    }
    return 0;
}

static int check_text(const struct fl_csv *c, struct fl_err *e)
{
    for (uint32_t i = 0; i < c->field_count; i++) {
        const unsigned char *s = (const unsigned char *)fl_csv_field(c, i);
        for (size_t n; *s; s += n) {
            if ((n = utf8_length(s)) == 0) {
                return fl_fail(e, FL_R_DATA_ENCODING,
                               "%s:%llu: column %.64s: byte 0x%02x is not UTF-8; convert the file "
                               "with iconv -t UTF-8",
                               c->path, (unsigned long long)c->line,
                               c->names && i < c->columns ? c->names[i] : "(name)", *s);
            }
        }
    }
    return 0;
}

/* The first row: keeps the names. */
static int read_names(struct fl_csv *c, struct fl_err *e)
{
    bool end = false;

    int r = next_record(c, &end, e);
    if (r == 0 && !end) {
        r = check_text(c, e);
    }
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
    return 0;
}

int fl_csv_open(const char *path, struct fl_csv **ret, struct fl_err *e)
{
    struct fl_csv *c = fl_try(1, sizeof *c);

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
        r = read_names(c, e);
    }
    if (r) {
        fl_csv_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

int fl_csv_next(struct fl_csv *c, bool *ret_end, struct fl_err *e)
{
    int r = next_record(c, ret_end, e);

    if (r == 0 && !*ret_end && c->field_count != c->columns) {
        return fl_fail(e, FL_R_DATA_RAGGED, "%s:%llu: %u fields where the first row has %u",
                       c->path, (unsigned long long)c->line, c->field_count, c->columns);
    }
    return r || *ret_end ? r : check_text(c, e);
}

int fl_csv_fail(const struct fl_csv *c, uint32_t i, enum fl_reason reason, const char *wanted,
                struct fl_err *e)
{
    return fl_fail(e, reason, "%s:%llu: column %.64s: \"%.40s\" is not %s", c->path,
                   (unsigned long long)c->line, c->names[i], fl_csv_field(c, i), wanted);
}

int fl_csv_whole(const struct fl_csv *c, uint32_t i, uint32_t most, const char *wanted,
                 uint32_t *ret, struct fl_err *e)
{
    const char *s = fl_csv_field(c, i);
    uint64_t x = 0;
    size_t digits = strspn(s, "0123456789");

    if (digits == 0 || digits > 10 || s[digits]) {
        return fl_csv_fail(c, i, FL_R_DATA_VALUE, wanted, e);
    }
    for (; *s; s++) {
        x = 10 * x + (uint64_t)(*s - '0');
    }
    if (x > most) {
        return fl_csv_fail(c, i, FL_R_DATA_VALUE, wanted, e);
    }
    *ret = (uint32_t)x;
    return 0;
}

int fl_csv_real(const struct fl_csv *c, uint32_t i, double *ret, struct fl_err *e)
{
    const char *s = fl_csv_field(c, i);
    char *end = NULL;

    s += strspn(s, " ");
    size_t length = strspn(s, "+-.0123456789eE");
    if (length == 0 || s[length + strspn(s + length, " ")]) {
        return fl_csv_fail(c, i, FL_R_DATA_VALUE, "a finite number", e);
    }
    double x = strtod(s, &end);
    if (end != s + length || !isfinite((float)x)) {
        return fl_csv_fail(c, i, FL_R_DATA_VALUE, "a finite number", e);
    }
    *ret = x;
    return 0;
}
