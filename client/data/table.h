/*
 * What the readers have in common. A file of examples is read twice: `scan` checks its format and
 * keeps one class (and client) number a row; the partition chooses rows; `read` streams the file
 * again and keeps only these. So an agent holds its own examples, whatever the size of the file.
 */
#ifndef CLIENT_DATA_TABLE_H
#define CLIENT_DATA_TABLE_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_TABLE_CLASSES_MAX = 100000,
    FL_TABLE_FEATURES_MAX = 1 << 26, /* of one example */
};

struct fl_records;

struct fl_table {
    uint32_t count;
    uint32_t shape[3];
    int32_t *y;              /* class of each row; NULL when there are targets */
    float *target;           /* NULL, or target_width numbers a row */
    uint32_t target_width;   /* 0 when there are classes */
    uint32_t *client;        /* NULL, or client number of each row */
    struct fl_digest raw;    /* csv: of all rows as they stood when the file was scanned */
    uint64_t *series, *line; /* windows: digest of each row's series, its line in the file */
    double *time;
    uint64_t *role;             /* NULL, or what decides each row's part (fl_roles) */
    struct fl_records *records; /* where the rows are; NULL: csv */
};

/* The features of row `row` of a file are wanted at `to`; or, when they stay in the file (to is
 * NULL), a sum at `sum` that tells later whether they are still the same. */
struct fl_pick {
    uint32_t row;
    float *to;
    uint64_t *sum;
};

/* Of every row a keyed hash of the row as it stands, its target with it: at[row], which decides the
 * row's part whatever other rows there are (partition.h). Rows with equal bytes have equal ones. */
struct fl_roles {
    const uint8_t *key; /* FL_DIGEST_SIZE bytes */
    const struct fl_table *t;
    uint64_t *at;
};

/* What the second pass over a file is for. Rows with a mark are this site's data to its ledger, and
 * go to `identity` from the very bytes that are read. */
struct fl_wanted {
    const struct fl_pick *picks; /* sorted by row; the same row may be wanted several times */
    size_t count;
    const uint8_t *marks; /* a byte a row */
    struct fl_hash *identity;
    const struct fl_roles *roles; /* NULL: nobody asks */
};

/* Features of one example: at most FL_TABLE_FEATURES_MAX. */
size_t fl_table_features(const struct fl_table *t);
void fl_table_fini(struct fl_table *t);
/* The class or the targets of a row. */
void fl_table_hash_target(const struct fl_table *t, uint32_t row, struct fl_hash *h);

/* IDX (unsigned bytes): images of rank 2 [n, features], 3 [n, h, w] or 4 [n, c, h, w], labels of
 * rank 1 ("" = there are none: all 0); gzip too. `clients` ("" = none) has one byte a row. Values
 * become x / 255. Rows are read by fl_records_read. */
int fl_idx_scan(const char *images, const char *labels, const char *clients, struct fl_table *ret,
                struct fl_err *e);
/* An IDX file of one byte a row, as numbers; `count` rows as the file `of` has. Freed by fl_free.
 */
int fl_idx_numbers(const char *path, uint32_t count, const char *of, uint32_t **ret,
                   struct fl_err *e);

/* CIFAR-10 or, with `fine`, CIFAR-100 by its fine labels: a file, or the folder of the archive, of
 * which `test` chooses the files. */
int fl_cifar_scan(const char *path, bool fine, bool test, const char *clients, struct fl_table *ret,
                  struct fl_err *e);

/* NumPy: float y are targets, others classes; "" = there are none: class 0. */
int fl_npy_scan(const char *x, const char *y, const char *clients, struct fl_table *ret,
                struct fl_err *e);

/* CSV (RFC 4180, UTF-8, first row names the columns): `target` holds class numbers, `column` ("" =
 * none) client numbers, all others are features in their order. */
int fl_csv_scan(const char *path, const char *target, const char *column, struct fl_table *ret,
                struct fl_err *e);
int fl_csv_read(const char *path, const char *target, const char *column, const struct fl_table *t,
                const struct fl_wanted *wanted, struct fl_err *e);

/* How both readers of tables walk through a file the second time: to its end, so that rows which
 * are not those that were scanned are noticed. */
struct fl_csv;
struct fl_rows {
    const struct fl_table *t;
    const struct fl_wanted *wanted;
    struct fl_hash raw;
};
void fl_rows_begin(struct fl_rows *r);
int fl_rows_next(struct fl_rows *r, struct fl_csv *c, uint32_t row, struct fl_err *e);
int fl_rows_end(struct fl_rows *r, struct fl_csv *c, struct fl_err *e);

/* CSV with the schema of the job (frame.c); windows want series, line and time, which are filled
 * when the schema has windows. */
struct fl_data_source;
int fl_frame_scan(const struct fl_data_source *s, const char *path, struct fl_table *ret,
                  struct fl_err *e);
int fl_frame_read(const struct fl_data_source *s, const char *path, const struct fl_table *t,
                  const struct fl_wanted *wanted, struct fl_err *e);
/* Both read the file to its end: -FL_R_DATA_CHANGED when the rows are not those that were
 * scanned, so that targets, features and identity are of one and the same data. */

#endif
