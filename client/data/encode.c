#include "client/data/encode.h"

#include "common/base/date.h"

#include <math.h>
#include <string.h>

uint64_t fl_encode_hash(const char *word)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *word; word++) {
        h = (h ^ (unsigned char)*word) * 0x100000001b3u;
    }
    return h;
}

static int encode_numeric(const struct fl_column *k, const struct fl_csv *c, uint32_t i, float *to,
                          struct fl_err *e)
{
    double x = k->missing;

    if (*fl_csv_field(c, i) || !k->has_missing) {
        int r = fl_csv_real(c, i, &x, e);
        if (r) {
            return r;
        }
    }
    x = x < k->min ? k->min : x > k->max ? k->max : x;
    *to = (float)((x - k->mean) / k->std);
    return 0;
}

/* The number of a word; unknown ones go to their bucket. */
static int code_of(const struct fl_schema *s, const struct fl_column *k, const struct fl_csv *c,
                   uint32_t i, uint32_t *ret, struct fl_err *e)
{
    const char *word = fl_csv_field(c, i);

    for (uint32_t v = 0; v < k->values; v++) {
        if (strcmp(s->text + s->value[k->first + v], word) == 0) {
            *ret = v;
            return 0;
        }
    }
    if (k->buckets == 0) {
        return fl_csv_fail(c, i, FL_R_DATA_CATEGORY,
                           "in the job's dictionary, which has no bucket for new words", e);
    }
    *ret = k->values + (uint32_t)(fl_encode_hash(word) % k->buckets);
    return 0;
}

static int encode_category(const struct fl_schema *s, const struct fl_column *k,
                           const struct fl_csv *c, uint32_t i, float *to, struct fl_err *e)
{
    uint32_t code = 0;
    int r = code_of(s, k, c, i, &code, e);

    if (r) {
        return r;
    }
    if (!k->onehot) {
        *to = (float)code;
        return 0;
    }
    memset(to, 0, k->width * sizeof *to);
    to[code] = 1;
    return 0;
}

static double part_of(const struct fl_date *d, enum fl_date_part p)
{
    switch (p) {
    case FL_DATE_MONTH:
        return d->month - 1;
    case FL_DATE_DAY:
        return d->day - 1;
    case FL_DATE_WEEKDAY:
        return d->weekday;
    case FL_DATE_YEARDAY:
        return d->yearday;
    case FL_DATE_HOUR:
        return d->hour;
    case FL_DATE_MINUTE:
        return d->minute;
    default:
        return d->year - 2000;
    }
}

static int encode_datetime(const struct fl_column *k, const struct fl_csv *c, uint32_t i, float *to,
                           struct fl_err *e)
{
    const double turn = 6.283185307179586;
    struct fl_date d;

    if (!fl_date_parse(fl_csv_field(c, i), &d)) {
        return fl_csv_fail(c, i, FL_R_DATA_VALUE, "a date YYYY-MM-DD [HH:MM[:SS]]", e);
    }
    for (uint32_t p = 0; p < k->part_count; p++) {
        enum fl_date_part part = (enum fl_date_part)k->part[p];
        double x = part_of(&d, part),
               cycle = part == FL_DATE_YEAR ? 100 : fl_date_part_values(part);
        switch ((enum fl_date_as)k->as) {
        case FL_DATE_CODE:
            *to++ = (float)x;
            break;
        case FL_DATE_FRACTION:
            *to++ = (float)(x / cycle);
            break;
        case FL_DATE_CYCLIC:
            *to++ = (float)sin(turn * x / cycle);
            *to++ = (float)cos(turn * x / cycle);
            break;
        }
    }
    return 0;
}

int fl_encode_row(const struct fl_schema *s, const struct fl_columns *at, const struct fl_csv *c,
                  float *to, struct fl_err *e)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < s->count; i++) {
        const struct fl_column *k = &s->column[i];
        switch (k->kind) {
        case FL_COLUMN_NUMERIC:
            r = encode_numeric(k, c, at->at[i], to, e);
            break;
        case FL_COLUMN_CATEGORY:
            r = encode_category(s, k, c, at->at[i], to, e);
            break;
        case FL_COLUMN_DATETIME:
            r = encode_datetime(k, c, at->at[i], to, e);
            break;
        }
        to += k->width;
    }
    return r;
}

int fl_encode_target(const struct fl_schema *s, const struct fl_columns *at, const struct fl_csv *c,
                     int32_t *ret_class, float *ret_number, struct fl_err *e)
{
    const struct fl_column *k = &s->target;
    bool classes = k->kind == FL_COLUMN_CATEGORY;
    uint32_t code = 0;

    if (!*fl_csv_field(c, at->target)) {
        return fl_csv_fail(c, at->target, FL_R_DATA_TARGET, classes ? "a class" : "a number", e);
    }
    if (!classes) {
        return encode_numeric(k, c, at->target, ret_number, e);
    }
    int r = code_of(s, k, c, at->target, &code, e);
    *ret_class = (int32_t)code;
    return r;
}

int fl_encode_time(const struct fl_schema *s, const struct fl_columns *at, const struct fl_csv *c,
                   double *ret, struct fl_err *e)
{
    struct fl_date d;

    if (!s->window.dates) {
        return fl_csv_real(c, at->time, ret, e);
    }
    if (!fl_date_parse(fl_csv_field(c, at->time), &d)) {
        return fl_csv_fail(c, at->time, FL_R_DATA_VALUE, "a date, as the job's cut is", e);
    }
    *ret = d.days;
    return 0;
}
