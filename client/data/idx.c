/*
 * IDX, the format of MNIST and its kin: two zero bytes, a type, a rank, one big-endian 32-bit size
 * for each dimension, then the values. Sizes are checked before anything is allocated, and memory
 * grows with what the file really holds, never with what its header says.
 */
#include "client/data/bytes.h"
#include "client/data/records.h"
#include "client/data/table.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { RANK_MAX = 4, TYPE_U8 = 8, CHUNK = 1 << 16 };

#define ELEMENTS_MAX ((uint64_t)1 << 31)

struct header {
    uint32_t rank, dim[RANK_MAX];
    uint64_t elements, bytes; /* of the whole file */
};

static int read_header(struct fl_bytes *b, struct header *ret, struct fl_err *e)
{
    const char *path = fl_bytes_path(b);
    unsigned char head[4], sizes[4 * RANK_MAX];
    struct header h = {.elements = 1};

    int r = fl_bytes_need(b, head, sizeof head, sizeof head, e);
    if (r) {
        return r;
    }
    if (head[0] || head[1]) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 0: not an IDX file", path);
    }
    if (head[2] != TYPE_U8) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 2: type 0x%02x; only 0x08, unsigned bytes",
                       path, head[2]);
    }
    if (head[3] < 1 || head[3] > RANK_MAX) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 3: %u dimensions; 1 to %d are read", path,
                       head[3], RANK_MAX);
    }
    h.rank = head[3];
    h.bytes = 4 + 4 * (uint64_t)h.rank;
    if ((r = fl_bytes_need(b, sizes, 4 * (size_t)h.rank, h.bytes, e))) {
        return r;
    }
    for (uint32_t i = 0; i < h.rank; i++) {
        const unsigned char *s = sizes + 4 * i;
        h.dim[i] = (uint32_t)s[0] << 24 | (uint32_t)s[1] << 16 | (uint32_t)s[2] << 8 | s[3];
        if (h.dim[i] == 0 || h.dim[i] > ELEMENTS_MAX / h.elements) {
            return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte %u: a size of %u, %s", path, 4 + 4 * i,
                           h.dim[i], h.dim[i] ? "more than 2^31 values in all" : "nothing");
        }
        h.elements *= h.dim[i];
    }
    h.bytes += h.elements;
    *ret = h;
    return 0;
}

/* A file of one byte a row; *ret is freed by fl_free. */
static int read_column(const char *path, uint32_t *ret_count, unsigned char **ret, struct fl_err *e)
{
    struct fl_bytes *b = NULL;
    struct header h;
    unsigned char *all = NULL;

    int r = fl_bytes_open(path, &b, e);
    if (r == 0) {
        r = read_header(b, &h, e);
    }
    if (r == 0 && h.rank != 1) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 3: %u dimensions where a list is wanted", path,
                    h.rank);
    }
    for (uint64_t at = 0; r == 0 && at < h.elements;) {
        /* Doubling what was really read keeps a lying header cheap. */
        uint64_t more = at < CHUNK ? CHUNK : at;
        more = more < h.elements - at ? more : h.elements - at;
        if (!fl_try_grow((void **)&all, (size_t)(at + more), 1)) {
            r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
        } else {
            r = fl_bytes_need(b, all + at, (size_t)more, h.bytes, e);
        }
        at += more;
    }
    if (r == 0) {
        r = fl_bytes_end(b, e);
    }
    fl_bytes_close(b);
    if (r) {
        fl_free(all);
        return r;
    }
    *ret_count = (uint32_t)h.elements;
    *ret = all;
    return 0;
}

static int shape_of(const char *path, const struct header *h, uint32_t shape[3], struct fl_err *e)
{
    switch (h->rank) {
    case 2:
        shape[0] = h->dim[1];
        shape[1] = shape[2] = 1;
        break;
    case 3:
        shape[0] = 1;
        shape[1] = h->dim[1];
        shape[2] = h->dim[2];
        break;
    case 4:
        memcpy(shape, h->dim + 1, 3 * sizeof shape[0]);
        break;
    default:
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: byte 3: %u dimensions where images are wanted",
                       path, h->rank);
    }
    if (h->elements / h->dim[0] > FL_TABLE_FEATURES_MAX) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: an example of %llu values", path,
                       (unsigned long long)(h->elements / h->dim[0]));
    }
    return 0;
}

static int open_images(const char *path, struct fl_bytes **ret, struct header *h, uint32_t shape[3],
                       struct fl_err *e)
{
    struct fl_bytes *b = NULL;

    int r = fl_bytes_open(path, &b, e);
    if (r == 0) {
        r = read_header(b, h, e);
    }
    if (r == 0) {
        r = shape_of(path, h, shape, e);
    }
    if (r) {
        fl_bytes_close(b);
        return r;
    }
    *ret = b;
    return 0;
}

int fl_idx_numbers(const char *path, uint32_t count, const char *images, uint32_t **ret,
                   struct fl_err *e)
{
    unsigned char *bytes = NULL;
    uint32_t n = 0;

    int r = read_column(path, &n, &bytes, e);
    if (r) {
        return r;
    }
    uint32_t *to = NULL;
    if (n != count) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s: %u rows, but %s has %u", path, n, images, count);
    } else if (!(to = fl_try(n, sizeof *to))) {
        r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
    }
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        to[i] = bytes[i];
    }
    fl_free(bytes);
    if (r == 0) {
        *ret = to;
    }
    return r;
}

static void describe(const char *images, const struct header *h, bool packed, struct fl_table *t)
{
    struct fl_records *r = t->records;

    r->files = 1;
    snprintf(r->file[0].path, sizeof r->file[0].path, "%s", images);
    r->file[0].base = h->bytes - h->elements;
    r->file[0].rows = h->dim[0];
    r->file[0].packed = packed;
    r->record = (size_t)(h->elements / h->dim[0]);
    r->value = FL_VALUE_U8;
    r->divide = 255;
}

int fl_idx_scan(const char *images, const char *labels, const char *clients, struct fl_table *ret,
                struct fl_err *e)
{
    struct fl_table t = {.records = fl_try(1, sizeof *t.records)};
    struct fl_bytes *b = NULL;
    struct header h = {0};
    uint32_t *y = NULL;

    int r = t.records ? open_images(images, &b, &h, t.shape, e)
                      : fl_fail(e, FL_R_NOMEM, "%s: out of memory", images);
    if (r) {
        fl_table_fini(&t);
        return r;
    }
    describe(images, &h, fl_bytes_packed(b), &t);
    fl_bytes_close(b);
    t.count = h.dim[0];
    if (labels[0]) {
        r = fl_idx_numbers(labels, t.count, images, &y, e);
    } else if (!(y = fl_try(t.count, sizeof *y))) {
        r = fl_fail(e, FL_R_NOMEM, "%s: out of memory", images);
    }
    t.y = (int32_t *)y; /* a byte is the same bits signed or not */
    if (r == 0 && clients[0]) {
        r = fl_idx_numbers(clients, t.count, images, &t.client, e);
    }
    if (r) {
        fl_table_fini(&t);
        return r;
    }
    *ret = t;
    return 0;
}
