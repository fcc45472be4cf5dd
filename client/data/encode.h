/* A row of a table becomes numbers as the job's schema says. A pure function of schema and row. */
#ifndef CLIENT_DATA_ENCODE_H
#define CLIENT_DATA_ENCODE_H

#include "client/data/csv.h"
#include "common/plan/schema.h"

/* Where the schema's columns are in a file. */
struct fl_columns {
    uint32_t at[FL_SCHEMA_COLUMNS_MAX];
    uint32_t target, time, series[FL_SCHEMA_SERIES_MAX], client;
    bool has_client;
};

/* The row's features: schema->features floats at `to`. -FL_R_DATA_CATEGORY, -FL_R_DATA_VALUE. */
int fl_encode_row(const struct fl_schema *s, const struct fl_columns *at, const struct fl_csv *c,
                  float *to, struct fl_err *e);
/* The row's target: a class (schema->target is a category) or a number. -FL_R_DATA_TARGET when the
 * field is empty. */
int fl_encode_target(const struct fl_schema *s, const struct fl_columns *at, const struct fl_csv *c,
                     int32_t *ret_class, float *ret_number, struct fl_err *e);
/* The row's time: a number, or days since 1970. */
int fl_encode_time(const struct fl_schema *s, const struct fl_columns *at, const struct fl_csv *c,
                   double *ret, struct fl_err *e);

/* The hash that deals unknown words to buckets: 64-bit FNV-1a (Fowler, Noll, Vo). Part of what a
 * job means: never to be changed. */
uint64_t fl_encode_hash(const char *word);

#endif
