/*
 * The rows of a CSV file, one after another, plain or gzip: the parser that tables with and without
 * a schema share. Memory is one row.
 */
#ifndef CLIENT_DATA_CSV_H
#define CLIENT_DATA_CSV_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct fl_csv;

/* Reads the first row, the names. `path` must outlive it. */
int fl_csv_open(const char *path, struct fl_csv **ret, struct fl_err *e);
void fl_csv_close(struct fl_csv *c);

/* The next row: as many fields as names (-FL_R_DATA_RAGGED), all UTF-8 (-FL_R_DATA_ENCODING). */
int fl_csv_next(struct fl_csv *c, bool *ret_end, struct fl_err *e);

uint32_t fl_csv_columns(const struct fl_csv *c);
const char *fl_csv_name(const struct fl_csv *c, uint32_t column);
const char *fl_csv_path(const struct fl_csv *c);
uint64_t fl_csv_line(const struct fl_csv *c); /* of the row, from 1 */
/* The column of this name: exactly one, or -FL_R_DATA_COLUMN. */
int fl_csv_find(const struct fl_csv *c, const char *name, uint32_t *ret, struct fl_err *e);

/* Fields of the row, until the next one is read. */
const char *fl_csv_field(const struct fl_csv *c, uint32_t column);
int fl_csv_whole(const struct fl_csv *c, uint32_t column, uint32_t most, const char *wanted,
                 uint32_t *ret, struct fl_err *e);
int fl_csv_real(const struct fl_csv *c, uint32_t column, double *ret, struct fl_err *e);
/* The fields as they stand, whatever is taken of them: two jobs that read other columns of the same
 * rows spend the same people's privacy, and the ledger must see one data set. */
struct fl_hash;
void fl_csv_hash(const struct fl_csv *c, struct fl_hash *h);
/* "file:line: column name: "text" is not <wanted>"; returns -reason. */
int fl_csv_fail(const struct fl_csv *c, uint32_t column, enum fl_reason reason, const char *wanted,
                struct fl_err *e);

#endif
