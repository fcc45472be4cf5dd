/*
 * CSV with the job's schema: finds the schema's columns under the names this site gives them, and
 * reads the rows this site has. Rows of other clients are only parsed, never judged: what is wrong
 * with them is not this site's business.
 */
#include "client/data/dataset.h"
#include "client/data/encode.h"
#include "client/data/table.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { ROWS_MAX = 1 << 28 };

/* The site's name of a column of the job. */
static const char *site_name(const struct fl_data_source *s, const char *name)
{
    for (uint32_t i = 0; i < s->rename_count; i++) {
        if (strcmp(s->rename[i].job, name) == 0) {
            return s->rename[i].site;
        }
    }
    return name;
}

static int find_columns(const struct fl_data_source *s, const struct fl_csv *c,
                        struct fl_columns *ret, struct fl_err *e)
{
    const struct fl_schema *schema = s->schema;
    const struct fl_schema_window *w = &schema->window;
    int r = 0;

    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; r == 0 && i < schema->count; i++) {
        r = fl_csv_find(c, site_name(s, schema->column[i].name), &ret->at[i], e);
    }
    if (r == 0) {
        r = fl_csv_find(c, site_name(s, schema->target.name), &ret->target, e);
    }
    if (r == 0 && w->steps) {
        r = fl_csv_find(c, site_name(s, w->time), &ret->time, e);
    }
    for (uint32_t i = 0; r == 0 && i < w->series_count; i++) {
        r = fl_csv_find(c, site_name(s, w->series[i]), &ret->series[i], e);
    }
    ret->has_client = s->partition == FL_PARTITION_COLUMN;
    if (r == 0 && ret->has_client) {
        r = fl_csv_find(c, s->column, &ret->client, e);
    }
    return r;
}

static int open_frame(const struct fl_data_source *s, const char *path, struct fl_csv **ret,
                      struct fl_columns *at, struct fl_err *e)
{
    struct fl_csv *c = NULL;
    int r = fl_csv_open(path, &c, e);

    if (r == 0) {
        r = find_columns(s, c, at, e);
    }
    if (r) {
        fl_csv_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

static bool grow(struct fl_table *t, const struct fl_data_source *s, size_t *room)
{
    size_t more = *room ? 2 * *room : 256;
    bool classes = s->schema->target.kind == FL_COLUMN_CATEGORY;

    if (t->count < *room) {
        return true;
    }
    if (!(classes ? fl_try_grow((void **)&t->y, more, sizeof *t->y)
                  : fl_try_grow((void **)&t->target, more, sizeof *t->target)) ||
        (s->partition == FL_PARTITION_COLUMN &&
         !fl_try_grow((void **)&t->client, more, sizeof *t->client)) ||
        (s->schema->window.steps && (!fl_try_grow((void **)&t->series, more, sizeof *t->series) ||
                                     !fl_try_grow((void **)&t->time, more, sizeof *t->time) ||
                                     !fl_try_grow((void **)&t->line, more, sizeof *t->line)))) {
        return false;
    }
    *room = more;
    return true;
}

/* A series is told by the digest of its key columns: 64 bits of it, so that two series of one site
 * meet with probability n^2 / 2^65. */
static uint64_t series_of(const struct fl_schema *s, const struct fl_columns *at,
                          const struct fl_csv *c)
{
    struct fl_hash h;

    fl_hash_init(&h);
    for (uint32_t i = 0; i < s->window.series_count; i++) {
        const char *text = fl_csv_field(c, at->series[i]);
        fl_hash_add(&h, text, strlen(text) + 1);
    }
    return fl_hash_end_u64(&h);
}

static int scan_row(const struct fl_data_source *s, const struct fl_columns *at,
                    const struct fl_csv *c, struct fl_table *t, struct fl_err *e)
{
    uint32_t n = t->count;
    int32_t y = 0;
    float x = 0;
    int r = 0;
    bool own = true;

    if (at->has_client) {
        own = strcmp(fl_csv_field(c, at->client), s->client_text) == 0;
        t->client[n] = own ? s->client : s->client + 1;
    }
    if (own) {
        r = fl_encode_target(s->schema, at, c, &y, &x, e);
    }
    if (t->y) {
        t->y[n] = y;
    } else {
        t->target[n] = x;
    }
    if (r == 0 && s->schema->window.steps) {
        t->line[n] = fl_csv_line(c);
        t->series[n] = series_of(s->schema, at, c);
        t->time[n] = 0;
        r = own ? fl_encode_time(s->schema, at, c, &t->time[n], e) : 0;
    }
    t->count += r == 0;
    return r;
}

int fl_frame_scan(const struct fl_data_source *s, const char *path, struct fl_table *ret,
                  struct fl_err *e)
{
    struct fl_table t = {.shape = {s->schema->features, 1, 1}};
    struct fl_columns at;
    struct fl_csv *c = NULL;
    struct fl_hash h;
    size_t room = 0;
    bool end = false;

    fl_hash_init(&h);
    t.target_width = s->schema->target.kind == FL_COLUMN_CATEGORY ? 0 : 1;
    int r = open_frame(s, path, &c, &at, e);
    while (r == 0 && (r = fl_csv_next(c, &end, e)) == 0 && !end) {
        if (t.count == ROWS_MAX) {
            r = fl_fail(e, FL_R_DATA_FORMAT, "%s: too many rows", path);
        } else if (!grow(&t, s, &room)) {
            r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
        } else {
            fl_csv_hash(c, &h);
            r = scan_row(s, &at, c, &t, e);
        }
    }
    if (r == 0 && t.count == 0) {
        r = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: no rows after the names", path);
    }
    fl_csv_close(c);
    fl_hash_end(&h, &t.raw);
    if (r) {
        fl_table_fini(&t);
        return r;
    }
    *ret = t;
    return 0;
}

int fl_frame_read(const struct fl_data_source *s, const char *path, const struct fl_table *t,
                  const struct fl_wanted *wanted, struct fl_err *e)
{
    size_t features = s->schema->features, left = wanted->count;
    const struct fl_pick *picks = wanted->picks;
    struct fl_columns at;
    struct fl_csv *c = NULL;
    struct fl_rows rows = {.t = t, .wanted = wanted};

    fl_rows_begin(&rows);
    int r = open_frame(s, path, &c, &at, e);
    for (uint32_t row = 0; r == 0 && row < t->count; row++) {
        r = fl_rows_next(&rows, c, row, e);
        if (r == 0 && left && picks->row == row) {
            r = fl_encode_row(s->schema, &at, c, picks->to, e);
        }
        for (const float *first = left ? picks->to : NULL; r == 0 && left && picks->row == row;
             picks++, left--) {
            if (picks->to != first) {
                memcpy(picks->to, first, features * sizeof *first);
            }
        }
    }
    if (r == 0) {
        r = fl_rows_end(&rows, c, e);
    }
    fl_csv_close(c);
    return r;
}
