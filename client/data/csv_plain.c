/*
 * CSV without a schema: every column is a number and a feature, but for one of class numbers and
 * one of client numbers. For tables that were made for training; others have a schema (frame.c).
 */
#include "client/data/csv.h"
#include "client/data/table.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <string.h>

enum { ROWS_MAX = 1 << 28 };

struct special {
    uint32_t target, client;
    bool has_client;
};

static int find_special(const struct fl_csv *c, const char *target, const char *column,
                        struct special *ret, struct fl_err *e)
{
    struct special s = {.has_client = column[0] != 0};
    int r = fl_csv_find(c, target, &s.target, e);

    if (r == 0 && s.has_client) {
        r = fl_csv_find(c, column, &s.client, e);
    }
    if (r == 0 && s.has_client && s.client == s.target) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s:1: %.64s is both target and client column",
                    fl_csv_path(c), target);
    }
    if (r == 0 && fl_csv_columns(c) <= 1u + s.has_client) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s:1: no column of features", fl_csv_path(c));
    }
    *ret = s;
    return r;
}

static int open_table(const char *path, const char *target, const char *column, struct fl_csv **ret,
                      struct special *s, struct fl_err *e)
{
    struct fl_csv *c = NULL;
    int r = fl_csv_open(path, &c, e);

    if (r == 0) {
        r = find_special(c, target, column, s, e);
    }
    if (r) {
        fl_csv_close(c);
        return r;
    }
    *ret = c;
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
    struct fl_csv *c = NULL;
    struct special s;
    size_t room = 0;
    bool end = false;
    struct fl_hash h;

    int r = open_table(path, target, column, &c, &s, e);
    if (r) {
        return r;
    }
    fl_hash_init(&h);
    while ((r = fl_csv_next(c, &end, e)) == 0 && !end) {
        uint32_t y = 0;
        if (t.count == ROWS_MAX) {
            r = fl_fail(e, FL_R_DATA_FORMAT, "%s: too many rows", path);
        } else if (!grow_table(&t, s.has_client, &room)) {
            r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
        } else if (!*fl_csv_field(c, s.target)) {
            r = fl_csv_fail(c, s.target, FL_R_DATA_TARGET, "a class number", e);
        } else {
            r = fl_csv_whole(c, s.target, FL_TABLE_CLASSES_MAX - 1, "a class number", &y, e);
        }
        if (r == 0 && s.has_client) {
            r = fl_csv_whole(c, s.client, UINT32_MAX, "a client number", &t.client[t.count], e);
        }
        if (r) {
            break;
        }
        fl_csv_hash(c, &h);
        t.y[t.count++] = (int32_t)y;
    }
    fl_hash_end(&h, &t.raw);
    if (r == 0 && t.count == 0) {
        r = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: no rows after the names", path);
    }
    t.shape[0] = fl_csv_columns(c) - 1 - s.has_client;
    t.shape[1] = t.shape[2] = 1;
    fl_csv_close(c);
    if (r) {
        fl_table_fini(&t);
        return r;
    }
    *ret = t;
    return 0;
}

static int read_features(const struct fl_csv *c, const struct special *s, float *to,
                         struct fl_err *e)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < fl_csv_columns(c); i++) {
        double x = 0;
        if (i != s->target && !(s->has_client && i == s->client)) {
            r = fl_csv_real(c, i, &x, e);
            *to++ = (float)x;
        }
    }
    return r;
}

int fl_csv_read(const char *path, const char *target, const char *column, const struct fl_table *t,
                const struct fl_wanted *wanted, struct fl_err *e)
{
    size_t features = fl_table_features(t), left = wanted->count;
    const struct fl_pick *picks = wanted->picks;
    struct fl_csv *c = NULL;
    struct special s;
    struct fl_rows rows = {.t = t, .wanted = wanted};

    fl_rows_begin(&rows);
    int r = open_table(path, target, column, &c, &s, e);
    if (r) {
        return r;
    }
    if (fl_csv_columns(c) != features + 1 + s.has_client) {
        r = fl_fail(e, FL_R_DATA_CHANGED, "%s: changed while it was read", path);
    }
    for (uint32_t row = 0; r == 0 && row < t->count; row++) {
        r = fl_rows_next(&rows, c, row, e);
        for (; r == 0 && left && picks->row == row; picks++, left--) {
            r = read_features(c, &s, picks->to, e);
        }
    }
    if (r == 0) {
        r = fl_rows_end(&rows, c, e);
    }
    fl_csv_close(c);
    return r;
}
