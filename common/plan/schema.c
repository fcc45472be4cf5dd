#include "common/plan/schema.h"

#include "common/base/date.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct column_raw {
    struct fl_column column;
    const struct fl_conf_node *values, *missing, *parts;
};

struct table_raw {
    const struct fl_conf_node *columns, *target, *window;
};

struct window_raw {
    struct fl_schema_window window;
    const struct fl_conf_node *cut;
};

static const char *const part_words[] = {"year",    "month", "day",    "weekday",
                                         "yearday", "hour",  "minute", NULL};
static const char *const as_words[] = {"fraction", "code", "cyclic", NULL};

#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)

#define OF column_raw
#define NAME_KEY                                                                                   \
    {                                                                                              \
        TYPED("name", STRING, column.name), .size = FL_SCHEMA_NAME_MAX, .min = 1,                  \
                                            .flags = FL_CONF_REQUIRED                              \
    }
static const struct fl_conf_field numeric_keys[] = {
    NAME_KEY,
    {TYPED("min", DOUBLE, column.min), .min = -1e15, .max = 1e15, .flags = FL_CONF_REQUIRED},
    {TYPED("max", DOUBLE, column.max), .min = -1e15, .max = 1e15, .flags = FL_CONF_REQUIRED},
    {TYPED("mean", DOUBLE, column.mean), .min = -1e15, .max = 1e15, .fallback = "0"},
    {TYPED("std", DOUBLE, column.std), .max = 1e15, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {TYPED("missing", NODE, missing)},
    {.name = NULL},
};
static const struct fl_conf_field category_keys[] = {
    NAME_KEY,
    {TYPED("values", NODE, values), .flags = FL_CONF_REQUIRED},
    {TYPED("buckets", UINT32, column.buckets), .max = 65536, .fallback = "0"},
    {TYPED("onehot", BOOL, column.onehot), .fallback = "false"},
    {.name = NULL},
};
static const struct fl_conf_field datetime_keys[] = {
    NAME_KEY,
    {TYPED("parts", NODE, parts), .flags = FL_CONF_REQUIRED},
    {TYPED("as", ENUM, column.as), .words = as_words, .fallback = "fraction"},
    {.name = NULL},
};
#undef OF

#define KIND(key, kind, keys)                                                                      \
    [FL_COLUMN_##kind] = {.name = key,                                                             \
                          .type = FL_CONF_MAP,                                                     \
                          .fields = keys,                                                          \
                          .offset = FL_COLUMN_##kind * sizeof(struct column_raw)}
static const struct fl_conf_field column_kinds[] = {
    KIND("numeric", NUMERIC, numeric_keys),
    KIND("category", CATEGORY, category_keys),
    KIND("datetime", DATETIME, datetime_keys),
    {.name = NULL},
};
enum { KINDS = 3 };

#define OF window_raw
static const struct fl_conf_field window_keys[] = {
    {TYPED("steps", UINT32, window.steps), .min = 1, .max = FL_SCHEMA_STEPS_MAX,
     .flags = FL_CONF_REQUIRED},
    {TYPED("ahead", UINT32, window.ahead), .max = FL_SCHEMA_STEPS_MAX, .fallback = "1"},
    {TYPED("time", STRING, window.time), .size = FL_SCHEMA_NAME_MAX, .min = 1,
     .flags = FL_CONF_REQUIRED},
    {TYPED("series", STRINGS, window.series), .size = FL_SCHEMA_NAME_MAX,
     .items_max = FL_SCHEMA_SERIES_MAX,
     .count_offset = offsetof(struct window_raw, window.series_count)},
    {TYPED("cut", NODE, cut), .flags = FL_CONF_REQUIRED},
    {TYPED("gap", DOUBLE, window.gap), .max = 1e9, .fallback = "0"},
    {TYPED("every", DOUBLE, window.every), .max = 1e9, .fallback = "0"},
    {.name = NULL},
};
#undef OF

#define OF table_raw
static const struct fl_conf_field table_keys[] = {
    {TYPED("columns", NODE, columns), .flags = FL_CONF_REQUIRED},
    {TYPED("target", NODE, target), .flags = FL_CONF_REQUIRED},
    {TYPED("window", NODE, window)},
    {.name = NULL},
};
#undef OF

/* ---- columns ---- */

static int add_value(const struct fl_conf_node *n, struct fl_schema *s, const struct fl_column *c,
                     struct fl_err *e)
{
    size_t size = n->text ? strlen(n->text) + 1 : 0;

    if (n->kind != FL_CONF_KIND_SCALAR) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a word is wanted");
    }
    if (s->value_count == FL_SCHEMA_VALUES_MAX || size > FL_SCHEMA_TEXT_MAX - s->text_size) {
        return fl_conf_fail(e, n, FL_R_LIMIT, "more than %d values in this job",
                            FL_SCHEMA_VALUES_MAX);
    }
    for (uint32_t i = c->first; i < s->value_count; i++) {
        if (strcmp(s->text + s->value[i], n->text) == 0) {
            return fl_conf_fail(e, n, FL_R_CONF_DUPLICATE, "%.40s stands here twice", n->text);
        }
    }
    memcpy(s->text + s->text_size, n->text, size);
    s->value[s->value_count++] = s->text_size;
    s->text_size += (uint32_t)size;
    return 0;
}

static int finish_numeric(const struct fl_conf_node *at, struct column_raw *c, struct fl_err *e)
{
    char *end;

    if (c->column.min >= c->column.max) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT, "min must be below max");
    }
    if (c->missing) {
        const char *text = c->missing->kind == FL_CONF_KIND_SCALAR ? c->missing->text : "";
        c->column.missing = strtod(text, &end);
        if (!text[0] || *end || !isfinite(c->column.missing)) {
            return fl_conf_fail(e, c->missing, FL_R_CONF_TYPE, "a number is wanted");
        }
        c->column.has_missing = true;
    }
    c->column.width = 1;
    return 0;
}

static int finish_category(const struct fl_conf_node *at, struct column_raw *c, struct fl_schema *s,
                           struct fl_err *e)
{
    struct fl_column *k = &c->column;

    if (c->values->kind != FL_CONF_KIND_LIST || c->values->count == 0) {
        return fl_conf_fail(e, at, FL_R_CONF_TYPE, "values is a list of at least one word");
    }
    k->first = s->value_count;
    for (const struct fl_conf_node *n = c->values->first; n; n = n->next) {
        int r = add_value(n, s, k, e);
        if (r) {
            return r;
        }
    }
    k->values = s->value_count - k->first;
    k->width = k->onehot ? k->values + k->buckets : 1;
    return 0;
}

static int finish_datetime(const struct fl_conf_node *at, struct column_raw *c, struct fl_err *e)
{
    struct fl_column *k = &c->column;

    if (c->parts->kind != FL_CONF_KIND_LIST || c->parts->count == 0 ||
        c->parts->count > FL_DATE_PARTS) {
        return fl_conf_fail(e, at, FL_R_CONF_TYPE, "parts is a list of 1 to %d parts",
                            FL_DATE_PARTS);
    }
    for (const struct fl_conf_node *n = c->parts->first; n; n = n->next) {
        uint32_t p = 0;
        while (part_words[p] && !(n->text && strcmp(n->text, part_words[p]) == 0)) {
            p++;
        }
        if (!part_words[p]) {
            return fl_conf_fail(e, n, FL_R_CONF_TYPE,
                                "year, month, day, weekday, yearday, hour or minute");
        }
        if (p == FL_DATE_YEAR && k->as == FL_DATE_CYCLIC) {
            return fl_conf_fail(e, n, FL_R_CONF_CONFLICT, "years do not come round");
        }
        k->part[k->part_count++] = p;
    }
    k->width = k->part_count * (k->as == FL_DATE_CYCLIC ? 2 : 1);
    return 0;
}

static int get_column(const struct fl_conf_node *n, struct fl_schema *s, struct fl_column *ret,
                      struct fl_err *e)
{
    struct column_raw each[KINDS];
    const struct fl_conf_node *only = fl_conf_only(n);
    unsigned kind = 0;

    if (!only) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE,
                            "a column is a map with one key: numeric, category or datetime");
    }
    memset(each, 0, sizeof each);
    int r = fl_conf_decode(n, column_kinds, each, e);
    if (r) {
        return r;
    }
    while (strcmp(column_kinds[kind].name, only->key) != 0) {
        kind++; /* it is one of them, or decoding had failed */
    }
    each[kind].column.kind = (enum fl_column_kind)kind;
    switch (each[kind].column.kind) {
    case FL_COLUMN_NUMERIC:
        r = finish_numeric(n, &each[kind], e);
        break;
    case FL_COLUMN_CATEGORY:
        r = finish_category(n, &each[kind], s, e);
        break;
    case FL_COLUMN_DATETIME:
        r = finish_datetime(n, &each[kind], e);
        break;
    }
    *ret = each[kind].column;
    return r;
}

static int get_columns(const struct fl_conf_node *n, struct fl_schema *s, struct fl_err *e)
{
    int r = 0;

    if (n->kind != FL_CONF_KIND_LIST || n->count == 0 || n->count > FL_SCHEMA_COLUMNS_MAX) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a list of 1 to %d columns",
                            FL_SCHEMA_COLUMNS_MAX);
    }
    for (const struct fl_conf_node *i = n->first; i && r == 0; i = i->next) {
        struct fl_column *c = &s->column[s->count];
        r = get_column(i, s, c, e);
        for (uint32_t k = 0; r == 0 && k < s->count; k++) {
            if (strcmp(s->column[k].name, c->name) == 0) {
                r = fl_conf_fail(e, i, FL_R_CONF_DUPLICATE, "a second column %s", c->name);
            }
        }
        s->features += c->width;
        s->count++;
    }
    return r;
}

static int get_target(const struct fl_conf_node *n, struct fl_schema *s, struct fl_err *e)
{
    struct fl_column *t = &s->target;
    int r = get_column(n, s, t, e);

    if (r) {
        return r;
    }
    if (t->kind == FL_COLUMN_DATETIME || t->onehot || t->buckets || t->has_missing) {
        return fl_conf_fail(e, n, FL_R_CONF_CONFLICT,
                            "a target is numeric, or a category of listed values, and never "
                            "missing");
    }
    if (t->kind == FL_COLUMN_CATEGORY && t->values < 2) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "a target of one class");
    }
    return 0;
}

static int get_window(const struct fl_conf_node *n, struct fl_schema *s, struct fl_err *e)
{
    struct window_raw w = {0};
    struct fl_date date;
    char *end;
    int r = fl_conf_decode(n, window_keys, &w, e);

    if (r) {
        return r;
    }
    const char *text = w.cut->kind == FL_CONF_KIND_SCALAR ? w.cut->text : "";
    if (fl_date_parse(text, &date)) {
        w.window.dates = true;
        w.window.cut = date.days;
    } else {
        w.window.cut = strtod(text, &end);
        if (!text[0] || *end || !isfinite(w.window.cut)) {
            return fl_conf_fail(e, w.cut, FL_R_CONF_TYPE, "a number, or a date YYYY-MM-DD");
        }
    }
    if (w.window.ahead > 1 && s->target.kind == FL_COLUMN_CATEGORY) {
        return fl_conf_fail(e, n, FL_R_CONF_CONFLICT, "a class is predicted for one row only");
    }
    s->window = w.window;
    return 0;
}

int fl_schema_parse(const struct fl_conf_node *table, struct fl_schema *ret, struct fl_err *e)
{
    struct table_raw raw = {0};

    memset(ret, 0, sizeof *ret);
    int r = fl_conf_decode(table, table_keys, &raw, e);
    if (r == 0) {
        r = get_columns(raw.columns, ret, e);
    }
    if (r == 0) {
        r = get_target(raw.target, ret, e);
    }
    if (r == 0 && raw.window) {
        r = get_window(raw.window, ret, e);
    }
    /* Past values of the target are features in a window; in the row itself they are the answer. */
    for (uint32_t i = 0; r == 0 && (!ret->window.steps || !ret->window.ahead) && i < ret->count;
         i++) {
        if (strcmp(ret->column[i].name, ret->target.name) == 0) {
            r = fl_conf_fail(e, raw.target, FL_R_CONF_CONFLICT,
                             "%s is also a column: the model would see what it is to predict",
                             ret->target.name);
        }
    }
    return r;
}
