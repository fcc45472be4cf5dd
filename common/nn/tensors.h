/*
 * safetensors in and out: named float32 tensors of an fl_tensors table and their flat vector. The
 * layout is fixed, so that the same values are the same bytes on every machine:
 *
 *     u64 little-endian length of the header | header: JSON, padded with spaces to 8 bytes | data,
 * little-endian, table order
 *
 * The reader takes what other programs write too (any order, metadata), and trusts nothing: header
 * at most FL_TENSORS_HEADER_MAX, names, types, shapes and offsets held against the table, no gaps,
 * no overlaps. Format: https://github.com/huggingface/safetensors (format section of its README).
 */
#ifndef FL_NN_TENSORS_H
#define FL_NN_TENSORS_H

#include "common/base/err.h"
#include "common/nn/spec.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_TENSORS_HEADER_MAX = 1024 * 1024 };

/* *ret is freed by fl_free. values: tensors->elements floats. */
int fl_tensors_write(const struct fl_tensors *tensors, const float *values, uint8_t **ret,
                     size_t *ret_size, struct fl_err *e);
/* Exactly the table's tensors must be there: missing, unknown, of another shape or type:
 * -FL_R_TENSORS, naming it. values is undefined after an error. */
int fl_tensors_read(const uint8_t *bytes, size_t size, const struct fl_tensors *tensors,
                    float *values, struct fl_err *e);

#endif
