/*
 * NumPy .npy, versions 1 and 2: a magic, a header that is a Python dictionary in a known spelling,
 * then the values. Read: little-endian f4, f8, i4, i8 and u1 in C order. What else NumPy can write
 * (Fortran order, objects, big-endian) is refused with a word on how to convert it.
 *
 * x has one example a row: [n], [n, features], [n, h, w] or [n, c, h, w]; bytes count as pixels and
 * become x / 255. y has class numbers when its type is an integer, and numbers to predict, [n] or
 * [n, k], when it is a float.
 */
#include "client/data/bytes.h"
#include "client/data/records.h"
#include "client/data/table.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADER_MAX = 4096, RANK_MAX = 4, CHUNK = 1024, ROWS_MAX = 1 << 28, WIDTH_MAX = 4096 };

struct npy {
    enum fl_value value;
    uint32_t rank;
    uint64_t dim[RANK_MAX];
    uint64_t base;
    bool packed;
};

static const char *value_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    if (!at) {
        return NULL;
    }
    at += strlen(key);
    at += strspn(at, " ");
    if (*at != ':') {
        return NULL;
    }
    return at + 1 + strspn(at + 1, " ");
}

static int get_type(const char *path, const char *at, enum fl_value *ret, struct fl_err *e)
{
    static const struct {
        const char *text;
        enum fl_value value;
    } types[] = {{"'|u1'", FL_VALUE_U8},  {"'<u1'", FL_VALUE_U8},  {"'<i4'", FL_VALUE_I32},
                 {"'<i8'", FL_VALUE_I64}, {"'<f4'", FL_VALUE_F32}, {"'<f8'", FL_VALUE_F64}};

    for (size_t i = 0; at && i < FL_COUNT(types); i++) {
        if (strncmp(at, types[i].text, 5) == 0) {
            *ret = types[i].value;
            return 0;
        }
    }
    return fl_fail(e, FL_R_DATA_FORMAT,
                   "%s: descr %.8s: only u1, <i4, <i8, <f4 and <f8 are read; convert with "
                   "x.astype('<f4')",
                   path, at ? at : "missing");
}

static int get_shape(const char *path, const char *at, struct npy *n, struct fl_err *e)
{
    char *end;

    if (!at || *at != '(') {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: no shape in the header", path);
    }
    for (at++; *at != ')'; at += strspn(at, " ,")) {
        if (*at < '0' || *at > '9' || n->rank == RANK_MAX) {
            return fl_fail(e, FL_R_DATA_FORMAT, "%s: a shape of 1 to %d sizes is wanted", path,
                           RANK_MAX);
        }
        unsigned long long size = strtoull(at, &end, 10);
        at = end;
        if (size == 0 || size > ROWS_MAX) {
            return fl_fail(e, FL_R_DATA_FORMAT, "%s: a size of %llu, %s", path, size,
                           size ? "too many" : "nothing");
        }
        n->dim[n->rank++] = size;
    }
    return n->rank ? 0 : fl_fail(e, FL_R_DATA_FORMAT, "%s: a single number, no array", path);
}

static int read_header(struct fl_bytes *b, struct npy *ret, struct fl_err *e)
{
    const char *path = fl_bytes_path(b);
    unsigned char head[12];
    char text[HEADER_MAX + 1];
    struct npy n = {.packed = fl_bytes_packed(b)};

    int r = fl_bytes_need(b, head, 10, 10, e);
    if (r) {
        return r;
    }
    if (memcmp(head, "\x93NUMPY", 6) != 0) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 0: not a .npy file", path);
    }
    size_t size = head[8] | (size_t)head[9] << 8;
    if (head[6] == 2 || head[6] == 3) {
        r = fl_bytes_need(b, head + 10, 2, 12, e);
        size |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    } else if (head[6] != 1) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 6: version %u is not known", path, head[6]);
    }
    if (r == 0 && size > HEADER_MAX) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s: a header of %zu bytes", path, size);
    }
    if (r == 0) {
        r = fl_bytes_need(b, text, size, fl_bytes_offset(b) + size, e);
    }
    if (r) {
        return r;
    }
    text[size] = 0;
    n.base = fl_bytes_offset(b);
    const char *order = value_of(text, "'fortran_order'");
    if (!order || strncmp(order, "False", 5) != 0) {
        return fl_fail(e, FL_R_DATA_FORMAT,
                       "%s: not in C order; convert with numpy.ascontiguousarray", path);
    }
    r = get_type(path, value_of(text, "'descr'"), &n.value, e);
    if (r == 0) {
        r = get_shape(path, value_of(text, "'shape'"), &n, e);
    }
    if (r == 0) {
        *ret = n;
    }
    return r;
}

/* ---- x ---- */

static int describe_x(struct fl_bytes *b, const struct npy *n, struct fl_table *t, struct fl_err *e)
{
    const char *path = fl_bytes_path(b);
    uint64_t features = 1;
    struct fl_records *r = t->records;

    for (uint32_t i = 1; i < n->rank; i++) {
        features *= n->dim[i]; /* each below 2^28; stopped before it could overflow */
        if (features > FL_TABLE_FEATURES_MAX) {
            return fl_fail(e, FL_R_DATA_FORMAT, "%s: an example of more than %d values", path,
                           FL_TABLE_FEATURES_MAX);
        }
    }
    uint32_t d[RANK_MAX] = {0};
    for (uint32_t i = 0; i < n->rank; i++) {
        d[i] = (uint32_t)n->dim[i];
    }
    t->count = d[0];
    t->shape[0] = n->rank == 2 || n->rank == 4 ? d[1] : 1;
    t->shape[1] = n->rank == 3 ? d[1] : n->rank == 4 ? d[2] : 1;
    t->shape[2] = n->rank == 3 ? d[2] : n->rank == 4 ? d[3] : 1;
    r->files = 1;
    snprintf(r->file[0].path, sizeof r->file[0].path, "%s", path);
    r->file[0].base = n->base;
    r->file[0].rows = t->count;
    r->file[0].packed = n->packed;
    r->value = n->value;
    r->record = (size_t)features * fl_value_size(n->value);
    r->divide = n->value == FL_VALUE_U8 ? 255 : 1;
    return 0;
}

/* ---- y ---- */

static int put_class(const char *path, uint64_t row, enum fl_value v, const unsigned char *from,
                     int32_t *to, struct fl_err *e)
{
    /* Class numbers are below 2^24, where a float is exact; a larger one is refused all the same.
     */
    float x;

    fl_value_floats(v, from, 1, 1, &x);
    if (!(x >= 0 && x < FL_TABLE_CLASSES_MAX)) {
        return fl_fail(e, FL_R_DATA_VALUE, "%s: row %llu: %g is not a class number", path,
                       (unsigned long long)row + 1, (double)x);
    }
    *to = (int32_t)x;
    return 0;
}

static int put_target(const char *path, uint64_t row, enum fl_value v, const unsigned char *from,
                      size_t width, float *to, struct fl_err *e)
{
    fl_value_floats(v, from, width, 1, to);
    for (size_t i = 0; i < width; i++) {
        if (!isfinite(to[i])) {
            return fl_fail(e, FL_R_DATA_TARGET, "%s: row %llu: a target that is not a number", path,
                           (unsigned long long)row + 1);
        }
    }
    return 0;
}

/* Room for `done` + 1 rows, growing with what was really read. */
static bool grow(struct fl_table *t, bool classes, uint64_t done, uint64_t *room)
{
    if (done < *room) {
        return true;
    }
    uint64_t more = *room ? 2 * *room : CHUNK;
    more = more < t->count ? more : t->count;
    if (classes ? !fl_try_grow((void **)&t->y, (size_t)more, sizeof *t->y)
                : !fl_try_grow((void **)&t->target, (size_t)more * t->target_width,
                               sizeof *t->target)) {
        return false;
    }
    *room = more;
    return true;
}

static int read_y(struct fl_bytes *b, const struct npy *n, struct fl_table *t, struct fl_err *e)
{
    const char *path = fl_bytes_path(b);
    bool classes = n->value != FL_VALUE_F32 && n->value != FL_VALUE_F64;
    size_t width = n->rank == 2 ? (size_t)n->dim[1] : 1, size = width * fl_value_size(n->value);
    uint64_t room = 0;
    unsigned char row[WIDTH_MAX * 8];
    int r = 0;

    if (n->dim[0] != t->count) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: %llu rows, but x has %u", path,
                       (unsigned long long)n->dim[0], t->count);
    }
    if (n->rank > 2 || width > WIDTH_MAX || (classes && width != 1)) {
        return fl_fail(e, FL_R_DATA_FORMAT,
                       "%s: [n] class numbers, or [n] or [n, k] floats, are wanted", path);
    }
    t->target_width = classes ? 0 : (uint32_t)width;
    for (uint64_t i = 0; r == 0 && i < t->count; i++) {
        if (!grow(t, classes, i, &room)) {
            return fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
        }
        r = fl_bytes_need(b, row, size, n->base + (uint64_t)t->count * size, e);
        if (r == 0) {
            r = classes ? put_class(path, i, n->value, row, t->y + i, e)
                        : put_target(path, i, n->value, row, width, t->target + i * width, e);
        }
    }
    return r ? r : fl_bytes_end(b, e);
}

/* Opens a file, reads its header, and gives both to `take`. */
static int scan(const char *path, struct fl_table *t,
                int (*take)(struct fl_bytes *b, const struct npy *n, struct fl_table *t,
                            struct fl_err *e),
                struct fl_err *e)
{
    struct fl_bytes *b = NULL;
    struct npy n;

    int r = fl_bytes_open(path, &b, e);
    if (r == 0) {
        r = read_header(b, &n, e);
    }
    if (r == 0) {
        r = take(b, &n, t, e);
    }
    fl_bytes_close(b);
    return r;
}

int fl_npy_scan(const char *x, const char *y, const char *clients, struct fl_table *ret,
                struct fl_err *e)
{
    struct fl_table t = {.records = fl_try(1, sizeof *t.records)};

    int r = t.records ? scan(x, &t, describe_x, e) : fl_fail(e, FL_R_NOMEM, "%s: out of memory", x);
    if (r == 0 && y[0]) {
        r = scan(y, &t, read_y, e);
    } else if (r == 0 && !(t.y = fl_try(t.count, sizeof *t.y))) {
        r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", x);
    }
    if (r == 0 && clients[0]) {
        r = fl_idx_numbers(clients, t.count, x, &t.client, e);
    }
    if (r) {
        fl_table_fini(&t);
        return r;
    }
    *ret = t;
    return 0;
}
