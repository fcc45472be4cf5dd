#include "common/nn/tensors.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values are copied as they are: this needs a little-endian machine"
#endif

enum { LENGTH = 8 };

/* ---- writing ---- */

/* Text that grows; `broken` once memory ended or the limit was passed. */
struct text {
    char *at;
    size_t count, room;
    bool broken;
};

static void put(struct text *t, const char *from, size_t count)
{
    if (t->broken || count > FL_TENSORS_HEADER_MAX - t->count) {
        t->broken = true;
        return;
    }
    if (t->count + count > t->room) {
        size_t room = (t->count + count) * 2;
        void *grown = t->at;
        if (!fl_try_grow(&grown, room, 1)) {
            t->broken = true;
            return;
        }
        t->at = grown;
        t->room = room;
    }
    memcpy(t->at + t->count, from, count);
    t->count += count;
}

static void put_text(struct text *t, const char *from)
{
    put(t, from, strlen(from));
}

static void put_string(struct text *t, const char *from)
{
    put_text(t, "\"");
    for (; *from; from++) {
        char escaped[8];
        if ((unsigned char)*from < 0x20) {
            put(t, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", *from));
            continue;
        }
        if (*from == '"' || *from == '\\') {
            put_text(t, "\\");
        }
        put(t, from, 1);
    }
    put_text(t, "\"");
}

static void put_tensor(struct text *t, const struct fl_tensor *tensor)
{
    char number[64];

    put_string(t, tensor->name);
    put_text(t, ":{\"dtype\":\"F32\",\"shape\":[");
    for (uint32_t k = 0; k < tensor->rank; k++) {
        snprintf(number, sizeof number, "%s%" PRIu32, k ? "," : "", tensor->shape[k]);
        put_text(t, number);
    }
    snprintf(number, sizeof number, "],\"data_offsets\":[%zu,%zu]}", tensor->offset * sizeof(float),
             (tensor->offset + tensor->count) * sizeof(float));
    put_text(t, number);
}

int fl_tensors_header(const struct fl_tensors *table, const struct fl_meta *meta, size_t meta_count,
                      uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    struct text t = {0};
    const char *comma = "";

    put(&t, "\0\0\0\0\0\0\0\0{", LENGTH + 1);
    if (meta_count > 0) {
        put_text(&t, "\"__metadata__\":{");
        for (size_t i = 0; i < meta_count; i++) {
            put_text(&t, i ? "," : "");
            put_string(&t, meta[i].key);
            put_text(&t, ":");
            put_string(&t, meta[i].value);
        }
        put_text(&t, "}");
        comma = ",";
    }
    for (uint32_t i = 0; i < table->count; i++) {
        put_text(&t, comma);
        put_tensor(&t, &table->at[i]);
        comma = ",";
    }
    put_text(&t, "}");
    while (!t.broken && t.count % 8 != 0) {
        put_text(&t, " ");
    }
    if (t.broken) {
        bool long_ = t.count > FL_TENSORS_HEADER_MAX / 2;
        fl_free(t.at);
        return long_ ? fl_fail(e, FL_R_TENSORS, "a header of more than 1 MiB")
                     : fl_fail(e, FL_R_NOMEM, "a header");
    }
    fl_put_u64((uint8_t *)t.at, t.count - LENGTH);
    *ret = (uint8_t *)t.at;
    *ret_size = t.count;
    return 0;
}

int fl_tensors_write(const struct fl_tensors *table, const float *values, uint8_t **ret,
                     size_t *ret_size, struct fl_err *e)
{
    uint8_t *header, *whole;
    size_t size, bytes = table->elements * sizeof *values;
    int r = fl_tensors_header(table, NULL, 0, &header, &size, e);

    if (r < 0) {
        return r;
    }
    whole = fl_try(size + bytes, 1);
    if (whole) {
        memcpy(whole, header, size);
        memcpy(whole + size, values, bytes);
        *ret = whole;
        *ret_size = size + bytes;
    } else {
        r = fl_fail(e, FL_R_NOMEM, "%zu values", table->elements);
    }
    fl_free(header);
    return r;
}

int fl_tensors_save(const char *path, const struct fl_tensors *table, const float *values,
                    const struct fl_meta *meta, size_t meta_count, struct fl_err *e)
{
    char beside[4096];
    uint8_t *header;
    size_t size;
    int r = fl_tensors_header(table, meta, meta_count, &header, &size, e);

    if (r < 0) {
        return r;
    }
    if ((size_t)snprintf(beside, sizeof beside, "%s.part", path) >= sizeof beside) {
        fl_free(header);
        return fl_fail(e, FL_R_ARG, "%.100s...: the path is too long", path);
    }
    FILE *f = fopen(beside, "we");
    bool ok = f && fwrite(header, 1, size, f) == size &&
              fwrite(values, sizeof *values, table->elements, f) == table->elements;
    int error = errno;
    if (f && fclose(f) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && rename(beside, path) != 0) {
        ok = false;
        error = errno;
    }
    if (!ok) {
        r = fl_fail_sys(e, error == ENOSPC || error == EDQUOT ? FL_R_DISK_FULL : FL_R_SYS, error,
                        "write %s", path);
        if (f) {
            unlink(beside);
        }
    }
    fl_free(header);
    return r;
}

/* ---- reading ---- */

static int refuse(struct fl_err *e, const char *name, const char *what)
{
    return fl_fail(e, FL_R_TENSORS, "tensor %.80s: %s", name, what);
}

static bool number(const json_t *j, uint64_t max, uint64_t *ret)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0 || (uint64_t)json_integer_value(j) > max) {
        return false;
    }
    *ret = (uint64_t)json_integer_value(j);
    return true;
}

/* One entry of the header; the offset is in bytes of the data for now. */
static int read_entry(struct fl_tensor *t, const char *name, const json_t *j, size_t data_size,
                      struct fl_err *e)
{
    const json_t *shape = json_object_get(j, "shape"), *place = json_object_get(j, "data_offsets");
    const char *dtype = json_string_value(json_object_get(j, "dtype"));
    uint64_t count = 1, side, from, to;

    if (strlen(name) >= sizeof t->name) {
        return refuse(e, name, "the name is longer than 63 bytes");
    }
    if (!dtype || json_object_size(j) != 3) {
        return refuse(e, name, "an entry has dtype, shape and data_offsets");
    }
    if (strcmp(dtype, "F32") != 0) {
        return refuse(e, name, "only F32 is read here");
    }
    if (!json_is_array(shape) || json_array_size(shape) > 4) {
        return refuse(e, name, "its shape is not a list of up to 4 numbers");
    }
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rank = (uint32_t)json_array_size(shape);
    for (uint32_t k = 0; k < t->rank; k++) {
        if (!number(json_array_get(shape, k), UINT32_MAX, &side) || side == 0 ||
            side > data_size / count) {
            return refuse(e, name, "a side of its shape is 0 or beyond the file");
        }
        t->shape[k] = (uint32_t)side;
        count *= side;
    }
    if (!json_is_array(place) || json_array_size(place) != 2 ||
        !number(json_array_get(place, 0), data_size, &from) ||
        !number(json_array_get(place, 1), data_size, &to) || from > to ||
        to - from != count * sizeof(float)) {
        return refuse(e, name, "data_offsets do not fit its shape and the file");
    }
    t->count = (size_t)count;
    t->offset = (size_t)from;
    return 0;
}

static int read_meta(struct fl_tensor_file *f, json_t *j, struct fl_err *e)
{
    const char *key;
    json_t *value;

    if (!json_is_object(j) || json_object_size(j) > FL_TENSORS_META_MAX) {
        return fl_fail(e, FL_R_TENSORS, "__metadata__ is not a map of at most %d strings",
                       FL_TENSORS_META_MAX);
    }
    json_object_foreach(j, key, value)
    {
        if (!json_is_string(value)) {
            return fl_fail(e, FL_R_TENSORS, "__metadata__ has a value that is not a string");
        }
        size_t k = strlen(key) + 1, v = strlen(json_string_value(value)) + 1;
        char *pair = fl_try(k + v, 1);
        if (!pair) {
            return fl_fail(e, FL_R_NOMEM, "metadata");
        }
        memcpy(pair, key, k);
        memcpy(pair + k, json_string_value(value), v);
        f->meta[f->meta_count++] = (struct fl_meta){.key = pair, .value = pair + k};
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct fl_tensor *x = a, *y = b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int read_header(struct fl_tensor_file *f, json_t *root, size_t data_size, struct fl_err *e)
{
    struct fl_tensors *table = &f->table;
    const char *key;
    json_t *value;
    int r = 0;

    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) {
            r = read_meta(f, value, e);
        } else if (table->count == FL_SPEC_TENSORS_MAX) {
            r = fl_fail(e, FL_R_TENSORS, "more than %d tensors", FL_SPEC_TENSORS_MAX);
        } else {
            r = read_entry(&table->at[table->count++], key, value, data_size, e);
        }
        if (r < 0) {
            return r;
        }
    }
    qsort(table->at, table->count, sizeof table->at[0], by_offset);
    for (uint32_t i = 0; i < table->count; i++) {
        struct fl_tensor *t = &table->at[i];
        if (t->offset != table->elements * sizeof(float)) {
            return refuse(e, t->name, "its values overlap others, or leave a gap");
        }
        t->offset = table->elements;
        table->elements += t->count;
    }
    if (table->elements * sizeof(float) != data_size) {
        return fl_fail(e, FL_R_TENSORS, "%zu bytes of values, the header describes %zu", data_size,
                       table->elements * sizeof(float));
    }
    return 0;
}

int fl_tensor_file_view(const uint8_t *bytes, size_t size, struct fl_tensor_file *ret,
                        struct fl_err *e)
{
    uint64_t length = size >= LENGTH ? fl_get_u64(bytes) : 0;
    json_error_t error;
    int r;

    memset(ret, 0, sizeof *ret);
    if (size < LENGTH || length > FL_TENSORS_HEADER_MAX || length > size - LENGTH) {
        return fl_fail(e, FL_R_TENSORS, "not a safetensors file (%zu bytes)", size);
    }
    json_t *root =
        json_loadb((const char *)bytes + LENGTH, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        bool parsed = root != NULL;
        json_decref(root);
        return fl_fail(e, FL_R_TENSORS, "the header is no JSON object: %.100s",
                       parsed ? "something else" : error.text);
    }
    r = read_header(ret, root, size - LENGTH - (size_t)length, e);
    json_decref(root);
    ret->values = bytes + LENGTH + length;
    if (r < 0) {
        fl_tensor_file_close(ret);
    }
    return r;
}

int fl_tensor_file_open(const char *path, size_t max, struct fl_tensor_file *ret, struct fl_err *e)
{
    FILE *f = fopen(path, "re");
    struct stat st;
    uint8_t *bytes = NULL;
    int r;

    if (!f || fstat(fileno(f), &st) != 0) {
        r = fl_fail_sys(e, FL_R_DATA_OPEN, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size > max) {
        r = fl_fail(e, FL_R_TENSORS, "%s: not a file of at most %zu bytes", path, max);
    } else if (!(bytes = fl_try((size_t)st.st_size, 1))) {
        r = fl_fail(e, FL_R_NOMEM, "%s: %lld bytes", path, (long long)st.st_size);
    } else if (fread(bytes, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        r = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: it ended while being read", path);
    } else if ((r = fl_tensor_file_view(bytes, (size_t)st.st_size, ret, e)) < 0) {
        r = fl_wrap(e, r, "%s", path);
    }
    if (r == 0) {
        ret->own = bytes;
    } else {
        fl_free(bytes);
    }
    if (f) {
        fclose(f);
    }
    return r;
}

void fl_tensor_file_close(struct fl_tensor_file *f)
{
    if (!f) {
        return;
    }
    for (uint32_t i = 0; i < f->meta_count; i++) {
        fl_free((char *)(uintptr_t)f->meta[i].key); /* one allocation holds both */
    }
    fl_free(f->own);
    f->own = NULL;
    f->values = NULL;
    f->meta_count = 0;
}

const struct fl_tensor *fl_tensors_find(const struct fl_tensors *table, const char *name)
{
    for (uint32_t i = 0; i < table->count; i++) {
        if (strcmp(table->at[i].name, name) == 0) {
            return &table->at[i];
        }
    }
    return NULL;
}

const char *fl_tensor_file_meta(const struct fl_tensor_file *f, const char *key)
{
    for (uint32_t i = 0; i < f->meta_count; i++) {
        if (strcmp(f->meta[i].key, key) == 0) {
            return f->meta[i].value;
        }
    }
    return NULL;
}

void fl_tensor_file_get(const struct fl_tensor_file *f, const struct fl_tensor *t, float *ret)
{
    memcpy(ret, f->values + t->offset * sizeof *ret, t->count * sizeof *ret);
}

int fl_tensor_file_take(const struct fl_tensor_file *f, const struct fl_tensors *table, float *ret,
                        struct fl_err *e)
{
    if (f->table.count != table->count) {
        return fl_fail(e, FL_R_TENSORS, "%u tensors where the model has %u", f->table.count,
                       table->count);
    }
    for (uint32_t i = 0; i < table->count; i++) {
        const struct fl_tensor *want = &table->at[i];
        const struct fl_tensor *have = fl_tensors_find(&f->table, want->name);
        if (!have) {
            return refuse(e, want->name, "missing");
        }
        if (have->rank != want->rank ||
            memcmp(have->shape, want->shape, want->rank * sizeof want->shape[0]) != 0) {
            return refuse(e, want->name, "another shape than the model has");
        }
        fl_tensor_file_get(f, have, ret + want->offset);
    }
    return 0;
}

int fl_tensors_read(const uint8_t *bytes, size_t size, const struct fl_tensors *table,
                    float *values, struct fl_err *e)
{
    struct fl_tensor_file *f = fl_try(1, sizeof *f);
    int r;

    if (!f) {
        return fl_fail(e, FL_R_NOMEM, "a table of tensors");
    }
    r = fl_tensor_file_view(bytes, size, f, e);
    if (r == 0) {
        r = fl_tensor_file_take(f, table, values, e);
        fl_tensor_file_close(f);
    }
    fl_free(f);
    return r;
}
