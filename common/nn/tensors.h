/*
 * Named float tensors as a file: safetensors, as other tools read and write it. Eight bytes of
 * length, a JSON header, then the values, little-endian float32 without gaps. What is written is a
 * function of what goes in: metadata first in the order given, then tensors in the table's order.
 *
 * A file that is read may be hostile: the header is at most 1 MiB, every number in it is checked,
 * and values must cover the rest of the file exactly. Values themselves may be anything, NaN too.
 * Errors: -FL_R_TENSORS, -FL_R_NOMEM.
 */
#ifndef FL_NN_TENSORS_H
#define FL_NN_TENSORS_H

#include "common/nn/spec.h"

enum { FL_TENSORS_HEADER_MAX = 1 << 20, FL_TENSORS_META_MAX = 64 };

struct fl_meta {
    const char *key, *value; /* UTF-8 */
};

/* All that stands before the values, padded so that they begin at a multiple of 8: for writing a
 * large model in pieces. *ret is freed by fl_free. */
int fl_tensors_header(const struct fl_tensors *table, const struct fl_meta *meta, size_t meta_count,
                      uint8_t **ret, size_t *ret_size, struct fl_err *e);
/* A whole file in memory, without metadata; values has table->elements floats. *ret is freed by
 * fl_free. */
int fl_tensors_write(const struct fl_tensors *table, const float *values, uint8_t **ret,
                     size_t *ret_size, struct fl_err *e);
/* Writes beside `path` and renames. Not synced: for exports, not for state. -FL_R_SYS,
 * -FL_R_DISK_FULL. */
int fl_tensors_save(const char *path, const struct fl_tensors *table, const float *values,
                    const struct fl_meta *meta, size_t meta_count, struct fl_err *e);

/* Values of a file that must have exactly the table's tensors: missing, unknown, of another shape
 * or type are errors that name it. values is undefined then. */
int fl_tensors_read(const uint8_t *bytes, size_t size, const struct fl_tensors *table,
                    float *values, struct fl_err *e);

/* A file of any tensors: only float32, at most FL_SPEC_TENSORS_MAX of them, of rank 0 to 4, names
 * of the usual length. The table is in the order of the values; group and fan_in are not in a file
 * (0). The struct is large: keep it on the heap. */
struct fl_tensor_file {
    struct fl_tensors table;
    const uint8_t *values; /* table.elements floats, at any alignment */
    uint32_t meta_count;
    struct fl_meta meta[FL_TENSORS_META_MAX];
    uint8_t *own; /* the whole file, if it was opened */
};
/* `bytes` stay the caller's and must outlive the view. */
int fl_tensor_file_view(const uint8_t *bytes, size_t size, struct fl_tensor_file *ret,
                        struct fl_err *e);
/* max: largest file that is read. Messages begin with the path; -FL_R_DATA_OPEN. */
int fl_tensor_file_open(const char *path, size_t max, struct fl_tensor_file *ret, struct fl_err *e);
void fl_tensor_file_close(struct fl_tensor_file *f);

/* NULL when there is none of this name. */
const struct fl_tensor *fl_tensors_find(const struct fl_tensors *table, const char *name);
const char *fl_tensor_file_meta(const struct fl_tensor_file *f, const char *key);
/* Copies one tensor's values. */
void fl_tensor_file_get(const struct fl_tensor_file *f, const struct fl_tensor *t, float *ret);
/* fl_tensors_read for a file that is open. */
int fl_tensor_file_take(const struct fl_tensor_file *f, const struct fl_tensors *table, float *ret,
                        struct fl_err *e);

#endif
