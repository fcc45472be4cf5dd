/* Sequence examples from a table with times; and where their rows are kept. */
#ifndef CLIENT_DATA_WINDOWS_H
#define CLIENT_DATA_WINDOWS_H

#include "client/data/dataset.h"
#include "client/data/table.h"

/* `t` is what fl_frame_scan found in s->train_x, with marks on this site's rows. Fills rows, train
 * and test of d; on failure what it made is there for fl_dataset_fini. */
int fl_windows_load(const struct fl_data_source *s, const struct fl_table *t, const uint8_t *marks,
                    struct fl_hash *identity, struct fl_dataset *d, struct fl_err *e);

/* Room for `values` floats: in memory, or beyond s->memory in a file that has no name any more
 * (*ret_mapped is its size, 0 for memory), which the kernel writes out and reads back as it needs.
 * -FL_R_DISK_FULL, -FL_R_NOMEM. */
int fl_floats_new(const struct fl_data_source *s, size_t values, float **ret, size_t *ret_mapped,
                  struct fl_err *e);
void fl_floats_free(float *x, size_t mapped);

#endif
