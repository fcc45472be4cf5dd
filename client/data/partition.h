/*
 * Which rows an agent has: decided from class and client numbers alone, before any example is read,
 * or from keyed hashes of its rows (table.h).
 * A pure function of (source, numbers): the same client of the same federation always gets the same
 * rows.
 */
#ifndef CLIENT_DATA_PARTITION_H
#define CLIENT_DATA_PARTITION_H

#include "client/data/dataset.h"
#include "client/data/table.h"

/* Row numbers in the pool: 0.. are the training files' rows, train->count.. the test files'. */
struct fl_split {
    uint32_t *train, *test, *validation; /* freed by fl_split_fini */
    uint32_t train_count, test_count, validation_count;
};

/* `test` has count 0 when there are no test files. Labels must be below `classes`. Errors:
 * -FL_R_DATA_EMPTY (naming the class that runs short), -FL_R_CONF_RANGE, -FL_R_NOMEM. */
int fl_partition(const struct fl_data_source *source, uint32_t classes,
                 const struct fl_table *train, const struct fl_table *test, struct fl_split *ret,
                 struct fl_err *e);
void fl_split_fini(struct fl_split *s);

#endif
