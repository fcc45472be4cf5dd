/*
 * A table's schema: which columns of a CSV file are read and how each becomes numbers. It belongs
 * to the job, so that no two sites encode the same word or price differently, and nothing in it is
 * computed from anybody's data: bounds, means and dictionaries are agreed beforehand. How a site
 * names these columns is the site's own configuration.
 *
 * A row becomes `features` floats, column after column in the job's order:
 *
 *   numeric    clipped to [min, max], then (x - mean) / std
 *   category   its number in `values`; an unknown word gets values + (hash mod buckets), or is
 *              refused without buckets; as one float, or as one-hot
 *   datetime   the wanted parts: as numbers from 0 (code), parts of their cycle in [0, 1)
 *              (fraction), or sine and cosine of these (cyclic)
 *
 * Windows: `steps` rows of a series that follow each other in time make an example, and the target
 * is that of the `ahead` rows after them (ahead 0: of the last row itself). Training has the
 * windows all of whose targets are before `cut`; the test part those whose targets begin at cut +
 * gap or later.
 */
#ifndef FL_PLAN_SCHEMA_H
#define FL_PLAN_SCHEMA_H

#include "common/base/conf.h"

enum {
    FL_SCHEMA_NAME_MAX = 64,
    FL_SCHEMA_COLUMNS_MAX = 128,
    FL_SCHEMA_VALUES_MAX = 8192,
    FL_SCHEMA_TEXT_MAX = 64 * 1024, /* all values with their ends */
    FL_SCHEMA_SERIES_MAX = 4,
    FL_SCHEMA_STEPS_MAX = 4096,
};

enum fl_column_kind { FL_COLUMN_NUMERIC, FL_COLUMN_CATEGORY, FL_COLUMN_DATETIME };

enum fl_date_part {
    FL_DATE_YEAR, /* fraction: (year - 2000) / 100 */
    FL_DATE_MONTH,
    FL_DATE_DAY,
    FL_DATE_WEEKDAY,
    FL_DATE_YEARDAY,
    FL_DATE_HOUR,
    FL_DATE_MINUTE,
    FL_DATE_PARTS
};

/* How many values a part takes, from 0 on; 0: years have no end. */
static inline uint32_t fl_date_part_values(enum fl_date_part part)
{
    static const uint32_t values[FL_DATE_PARTS] = {
        [FL_DATE_MONTH] = 12,    [FL_DATE_DAY] = 31,  [FL_DATE_WEEKDAY] = 7,
        [FL_DATE_YEARDAY] = 366, [FL_DATE_HOUR] = 24, [FL_DATE_MINUTE] = 60,
    };

    return values[part];
}

enum fl_date_as { FL_DATE_FRACTION, FL_DATE_CODE, FL_DATE_CYCLIC };

struct fl_column {
    enum fl_column_kind kind;
    char name[FL_SCHEMA_NAME_MAX];
    double min, max, mean, std;
    double missing; /* stands for an empty field, before clipping */
    bool has_missing;
    uint32_t first, values; /* of a category: place in fl_schema.value, and how many */
    uint32_t buckets;
    bool onehot;
    uint32_t part_count, part[FL_DATE_PARTS]; /* enum fl_date_part */
    unsigned as;                              /* enum fl_date_as */
    uint32_t width;                           /* floats it becomes */
};

struct fl_schema_window {
    uint32_t steps; /* 0: no windows, a row is an example */
    uint32_t ahead;
    char time[FL_SCHEMA_NAME_MAX]; /* column of numbers, or of dates (then in days) */
    uint32_t series_count;
    char series[FL_SCHEMA_SERIES_MAX][FL_SCHEMA_NAME_MAX];
    bool dates;        /* cut is a date, and so is the column */
    double cut;        /* number, or days since 1970-01-01 */
    double gap, every; /* every: the time between two steps; 0 = whatever follows */
};

struct fl_schema {
    uint32_t count; /* of columns; 0: the job has no schema */
    struct fl_column column[FL_SCHEMA_COLUMNS_MAX];
    struct fl_column target; /* numeric, or category without buckets: classes */
    uint32_t features;       /* floats of one row */
    struct fl_schema_window window;
    uint32_t value_count, value[FL_SCHEMA_VALUES_MAX]; /* where each begins in `text` */
    uint32_t text_size;
    char text[FL_SCHEMA_TEXT_MAX];
};

/* Reads the map `data.table` of a job. Errors: FL_R_CONF_*, FL_R_LIMIT. */
int fl_schema_parse(const struct fl_conf_node *table, struct fl_schema *ret, struct fl_err *e);

/* Floats of one example, and numbers of one target (0: the target is a class). */
static inline size_t fl_schema_example(const struct fl_schema *s)
{
    return (size_t)s->features * (s->window.steps ? s->window.steps : 1);
}
static inline uint32_t fl_schema_targets(const struct fl_schema *s)
{
    return s->target.kind == FL_COLUMN_CATEGORY     ? 0
           : s->window.steps && s->window.ahead > 1 ? s->window.ahead
                                                    : 1;
}

#endif
