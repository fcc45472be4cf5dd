#include "common/nn/tensors.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { ROW_MAX = FL_SPEC_NAME_MAX + 160 };

static void put_u64(uint8_t *to, uint64_t x)
{
    for (int i = 0; i < 8; i++) {
        to[i] = (uint8_t)(x >> (8 * i));
    }
}

/* Names are letters, digits, '.', '_' (fl_spec_check), so that no JSON escape is ever needed. */
static size_t put_row(char *to, size_t room, const struct fl_tensor *t, bool first)
{
    size_t n = (size_t)snprintf(to, room, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
                                first ? "" : ",", t->name);
    for (uint32_t i = 0; i < t->rank; i++) {
        n += (size_t)snprintf(to + n, room - n, "%s%" PRIu32, i ? "," : "", t->shape[i]);
    }
    n += (size_t)snprintf(to + n, room - n, "],\"data_offsets\":[%zu,%zu]}", t->offset * 4,
                          (t->offset + t->count) * 4);
    return n;
}

static void put_floats(uint8_t *to, const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        to[4 * i] = (uint8_t)bits;
        to[4 * i + 1] = (uint8_t)(bits >> 8);
        to[4 * i + 2] = (uint8_t)(bits >> 16);
        to[4 * i + 3] = (uint8_t)(bits >> 24);
    }
}

static void get_floats(const uint8_t *from, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[4 * i] | (uint32_t)from[4 * i + 1] << 8 |
                        (uint32_t)from[4 * i + 2] << 16 | (uint32_t)from[4 * i + 3] << 24;
        memcpy(&values[i], &bits, 4);
    }
}

int fl_tensors_write(const struct fl_tensors *tensors, const float *values, uint8_t **ret,
                     size_t *ret_size, struct fl_err *e)
{
    size_t room = 64 + (size_t)tensors->count * ROW_MAX, n, header, size;
    char *json = fl_try(room, 1);

    if (!json) {
        return fl_fail(e, FL_R_NOMEM, "a header of %u tensors", tensors->count);
    }
    n = (size_t)snprintf(json, room, "{");
    for (uint32_t i = 0; i < tensors->count; i++) {
        n += put_row(json + n, room - n, &tensors->at[i], i == 0);
    }
    n += (size_t)snprintf(json + n, room - n, "}");
    header = (n + 7) / 8 * 8;
    uint8_t *bytes = NULL;
    if (fl_mul(tensors->elements, 4, &size) && fl_add(size, 8 + header, &size)) {
        bytes = fl_try(size, 1);
    }
    if (!bytes) {
        fl_free(json);
        return fl_fail(e, FL_R_NOMEM, "%zu values", tensors->elements);
    }
    put_u64(bytes, header);
    memset(bytes + 8, ' ', header);
    memcpy(bytes + 8, json, n);
    put_floats(bytes + 8 + header, values, tensors->elements);
    fl_free(json);
    *ret = bytes;
    *ret_size = size;
    return 0;
}

static bool same_shape(json_t *shape, const struct fl_tensor *t)
{
    if (!json_is_array(shape) || json_array_size(shape) != t->rank) {
        return false;
    }
    for (uint32_t i = 0; i < t->rank; i++) {
        json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) != (json_int_t)t->shape[i]) {
            return false;
        }
    }
    return true;
}

/* One tensor's row against the table; its data into place. */
static int read_one(json_t *row, const struct fl_tensor *t, const uint8_t *data, size_t data_size,
                    float *values, struct fl_err *e)
{
    json_t *offsets = json_object_get(row, "data_offsets");
    const char *dtype = json_string_value(json_object_get(row, "dtype"));

    if (!json_is_object(row)) {
        return fl_fail(e, FL_R_TENSORS, "tensor %s is missing", t->name);
    }
    if (!dtype || strcmp(dtype, "F32") != 0) {
        return fl_fail(e, FL_R_TENSORS, "tensor %s is not F32", t->name);
    }
    if (!same_shape(json_object_get(row, "shape"), t)) {
        return fl_fail(e, FL_R_TENSORS, "tensor %s has another shape than the model", t->name);
    }
    json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    json_int_t a = json_integer_value(from), b = json_integer_value(to);
    if (!json_is_integer(from) || !json_is_integer(to) || json_array_size(offsets) != 2 || a < 0 ||
        b < a || (uint64_t)b > data_size || (uint64_t)(b - a) != (uint64_t)t->count * 4) {
        return fl_fail(e, FL_R_TENSORS, "tensor %s lies outside the file or has another length",
                       t->name);
    }
    get_floats(data + a, values + t->offset, t->count);
    return 0;
}

/* Every tensor has its table's length and the data have the sum of them: without overlaps there are
 * no gaps either. */
static bool overlap(json_t *rows)
{
    const char *name_a, *name_b;
    json_t *a, *b;

    json_object_foreach(rows, name_a, a)
    {
        json_object_foreach(rows, name_b, b)
        {
            json_t *oa = json_object_get(a, "data_offsets"),
                   *ob = json_object_get(b, "data_offsets");
            if (a != b && json_is_array(oa) && json_is_array(ob) &&
                json_integer_value(json_array_get(oa, 0)) <
                    json_integer_value(json_array_get(ob, 1)) &&
                json_integer_value(json_array_get(ob, 0)) <
                    json_integer_value(json_array_get(oa, 1))) {
                return true;
            }
        }
    }
    return false;
}

static int read_rows(json_t *root, const struct fl_tensors *tensors, const uint8_t *data,
                     size_t data_size, float *values, struct fl_err *e)
{
    size_t rows = json_object_size(root) - (json_object_get(root, "__metadata__") ? 1 : 0);

    if (rows != tensors->count) {
        return fl_fail(e, FL_R_TENSORS, "%zu tensors where the model has %u", rows, tensors->count);
    }
    if (data_size != tensors->elements * 4 || overlap(root)) {
        return fl_fail(e, FL_R_TENSORS,
                       "the data have gaps, overlaps or another length than %zu values",
                       tensors->elements);
    }
    for (uint32_t i = 0; i < tensors->count; i++) {
        const struct fl_tensor *t = &tensors->at[i];
        int r = read_one(json_object_get(root, t->name), t, data, data_size, values, e);
        if (r) {
            return r;
        }
    }
    return 0;
}

int fl_tensors_read(const uint8_t *bytes, size_t size, const struct fl_tensors *tensors,
                    float *values, struct fl_err *e)
{
    uint64_t header = 0;
    json_error_t why;

    for (int i = 7; size >= 8 && i >= 0; i--) {
        header = header << 8 | bytes[i];
    }
    if (size < 8 || header > FL_TENSORS_HEADER_MAX || header > size - 8) {
        return fl_fail(e, FL_R_TENSORS, "not a safetensors file (%zu bytes)", size);
    }
    json_t *root = json_loadb((const char *)bytes + 8, (size_t)header,
                              JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &why);
    if (!json_is_object(root)) {
        bool parsed = root != NULL;
        json_decref(root);
        return fl_fail(e, FL_R_TENSORS, "the header is not JSON: %s",
                       parsed ? "not an object" : why.text);
    }
    int r = read_rows(root, tensors, bytes + 8 + header, size - 8 - (size_t)header, values, e);
    json_decref(root);
    return r;
}
