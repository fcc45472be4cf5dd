#include "client/data/records.h"

#include "client/data/bytes.h"
#include "client/data/table.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

/* ---- values ---- */

size_t fl_value_size(enum fl_value v)
{
    static const unsigned char sizes[] = {[FL_VALUE_U8] = 1,
                                          [FL_VALUE_I32] = 4,
                                          [FL_VALUE_I64] = 8,
                                          [FL_VALUE_F32] = 4,
                                          [FL_VALUE_F64] = 8};
    return sizes[v];
}

static uint64_t little_endian(const unsigned char *p, unsigned bytes)
{
    uint64_t x = 0;

    for (unsigned i = 0; i < bytes; i++) {
        x |= (uint64_t)p[i] << 8 * i;
    }
    return x;
}

static float one_value(enum fl_value v, const unsigned char *p)
{
    uint32_t w;
    uint64_t d;
    float f;
    double g;

    switch (v) {
    case FL_VALUE_U8:
        return (float)*p;
    case FL_VALUE_I32:
        return (float)(int32_t)little_endian(p, 4);
    case FL_VALUE_I64:
        return (float)(int64_t)little_endian(p, 8);
    case FL_VALUE_F32:
        w = (uint32_t)little_endian(p, 4);
        memcpy(&f, &w, sizeof f);
        return f;
    case FL_VALUE_F64:
        d = little_endian(p, 8);
        memcpy(&g, &d, sizeof g);
        return (float)g;
    }
    return 0;
}

void fl_value_floats(enum fl_value v, const unsigned char *from, size_t count, float divide,
                     float *to)
{
    size_t size = fl_value_size(v);

    if (v == FL_VALUE_U8) { /* pixels: what there is most of */
        for (size_t i = 0; i < count; i++) {
            to[i] = (float)from[i] / divide;
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        to[i] = one_value(v, from + i * size) / divide;
    }
}

static int check_finite(const char *path, uint64_t row, const float *x, size_t features,
                        struct fl_err *e)
{
    for (size_t i = 0; i < features; i++) {
        if (!isfinite(x[i])) {
            return fl_fail(e, FL_R_DATA_VALUE, "%s: row %llu: value %zu is not finite", path,
                           (unsigned long long)row + 1, i + 1);
        }
    }
    return 0;
}

/* ---- streamed ---- */

enum { TILE = 1024 };

struct reading {
    const struct fl_records *r;
    size_t features;
    const struct fl_wanted *wanted;
    size_t next;  /* of the picks */
    uint32_t row; /* over all files */
    unsigned char *record;
};

/* As numbers: in whichever format and type a site keeps them. */
static void add_identity(const struct fl_records *r, const unsigned char *from, size_t features,
                         struct fl_hash *h)
{
    float x[TILE];

    while (features) {
        size_t n = features < TILE ? features : TILE;
        fl_value_floats(r->value, from, n, r->divide, x);
        fl_hash_add(h, x, n * sizeof *x);
        from += n * fl_value_size(r->value);
        features -= n;
    }
}

/* Of the record that was just read, for whoever wants it. */
static int serve_record(struct reading *g, const char *path, uint32_t i, struct fl_err *e)
{
    const struct fl_records *r = g->r;
    const struct fl_wanted *w = g->wanted;
    const unsigned char *features = g->record + r->skip;
    int code = 0;

    if (w->marks && w->marks[g->row]) {
        add_identity(r, features, g->features, w->identity);
    }
    if (w->roles) {
        struct fl_hash h;
        fl_hash_init_keyed(&h, w->roles->key);
        add_identity(r, features, g->features, &h);
        fl_table_hash_target(w->roles->t, g->row, &h);
        w->roles->at[g->row] = fl_hash_end_u64(&h);
    }
    for (; code == 0 && g->next < w->count && w->picks[g->next].row == g->row; g->next++) {
        const struct fl_pick *p = &w->picks[g->next];
        if (p->to) {
            fl_value_floats(r->value, features, g->features, r->divide, p->to);
            code = check_finite(path, i, p->to, g->features, e);
        } else {
            struct fl_hash h;
            fl_hash_init(&h);
            fl_hash_add(&h, features, g->features * fl_value_size(r->value));
            *p->sum = fl_hash_end_u64(&h);
        }
    }
    return code;
}

static int read_file(struct reading *g, uint32_t k, struct fl_err *e)
{
    const struct fl_records *r = g->r;
    const char *path = r->file[k].path;
    uint64_t total = r->file[k].base + (uint64_t)r->file[k].rows * r->record;
    struct fl_bytes *b = NULL;
    int code = fl_bytes_open(path, &b, e);

    for (uint64_t left = r->file[k].base; code == 0 && left;) {
        size_t n = left < r->record ? (size_t)left : r->record;
        code = fl_bytes_need(b, g->record, n, total, e);
        left -= n;
    }
    for (uint32_t i = 0; code == 0 && i < r->file[k].rows; i++, g->row++) {
        code = fl_bytes_need(b, g->record, r->record, total, e);
        if (code == 0) {
            code = serve_record(g, path, i, e);
        }
    }
    if (code == 0) {
        code = fl_bytes_end(b, e);
    }
    fl_bytes_close(b);
    return code;
}

int fl_records_read(const struct fl_records *r, size_t features, const struct fl_wanted *wanted,
                    struct fl_err *e)
{
    struct reading g = {
        .r = r, .features = features, .wanted = wanted, .record = fl_try(r->record, 1)};
    int code = g.record ? 0 : fl_fail(e, FL_R_NOMEM, "%s: out of memory", r->file[0].path);

    for (uint32_t k = 0; code == 0 && k < r->files; k++) {
        code = read_file(&g, k, e);
    }
    fl_free(g.record);
    return code;
}

/* ---- left where they are ---- */

struct fl_stored {
    struct fl_records r;
    size_t features;
    int fd[FL_RECORDS_FILES_MAX];
    uint32_t *rows;
    uint64_t *sums;
    const float *base; /* windows */
    size_t *starts;
};

enum { ON_STACK = 16 * 1024 };

bool fl_records_direct(const struct fl_records *r)
{
    for (uint32_t k = 0; k < r->files; k++) {
        if (r->file[k].packed) {
            return false;
        }
    }
    return true;
}

static int read_at(int fd, const char *path, unsigned char *to, size_t size, uint64_t at,
                   struct fl_err *e)
{
    while (size) {
        ssize_t n = pread(fd, to, size, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fl_fail_sys(e, FL_R_DATA_OPEN, errno, "%s", path);
        }
        if (n == 0) {
            return fl_fail(e, FL_R_DATA_TRUNCATED, "%s: became shorter while it was in use", path);
        }
        to += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* In tiles, so that it needs no memory: training calls it from several threads. */
static int read_record(const struct fl_stored *s, size_t i, float *to, struct fl_err *e)
{
    const struct fl_records *r = &s->r;
    unsigned char tile[ON_STACK];
    size_t size = fl_value_size(r->value), most = sizeof tile / size;
    uint32_t row = s->rows[i], k = 0;

    while (row >= r->file[k].rows) {
        row -= r->file[k++].rows;
    }
    uint64_t at = r->file[k].base + (uint64_t)row * r->record + r->skip;
    float *x = to;
    struct fl_hash h;
    fl_hash_init(&h);
    for (size_t left = s->features; left;) {
        size_t n = left < most ? left : most;
        int code = read_at(s->fd[k], r->file[k].path, tile, n * size, at, e);
        if (code) {
            return code;
        }
        fl_hash_add(&h, tile, n * size);
        fl_value_floats(r->value, tile, n, r->divide, x);
        x += n;
        at += n * size;
        left -= n;
    }
    if (fl_hash_end_u64(&h) != s->sums[i]) {
        return fl_fail(e, FL_R_DATA_CHANGED,
                       "%s: row %u was rewritten while it was in use; nothing is released of it",
                       r->file[k].path, row + 1);
    }
    return check_finite(r->file[k].path, row, to, s->features, e);
}

int fl_records_store(const struct fl_records *r, size_t features, const uint32_t *rows,
                     uint32_t count, struct fl_examples *ret, struct fl_err *e)
{
    struct fl_stored *s = fl_try(1, sizeof *s);

    if (!s || !(s->rows = fl_try(count, sizeof *rows)) ||
        !(s->sums = fl_try(count, sizeof *s->sums))) {
        fl_stored_free(s);
        return fl_fail(e, FL_R_NOMEM, "out of memory for %u examples", count);
    }
    memcpy(s->rows, rows, count * sizeof *rows);
    s->r = *r;
    s->r.files = 0;
    s->features = features;
    for (uint32_t k = 0; k < r->files; k++) {
        s->fd[k] = open(r->file[k].path, O_RDONLY | O_CLOEXEC);
        if (s->fd[k] < 0) {
            int code = fl_fail_sys(e, FL_R_DATA_OPEN, errno, "%s", r->file[k].path);
            fl_stored_free(s);
            return code;
        }
        s->r.files++;
    }
    ret->stored = s;
    ret->read = read_record;
    return 0;
}

static int read_window(const struct fl_stored *s, size_t i, float *to, struct fl_err *e)
{
    (void)e;
    memcpy(to, s->base + s->starts[i], s->features * sizeof *to);
    return 0;
}

int fl_windows_store(const float *base, size_t features, size_t *starts, struct fl_examples *ret,
                     struct fl_err *e)
{
    struct fl_stored *s = fl_try(1, sizeof *s);

    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for windows");
    }
    s->base = base;
    s->features = features;
    s->starts = starts;
    ret->stored = s;
    ret->read = read_window;
    return 0;
}

uint64_t *fl_stored_sums(struct fl_stored *s)
{
    return s->sums;
}

void fl_stored_free(struct fl_stored *s)
{
    if (!s) {
        return;
    }
    for (uint32_t k = 0; k < s->r.files; k++) {
        close(s->fd[k]);
    }
    fl_free(s->rows);
    fl_free(s->sums);
    fl_free(s->starts);
    fl_free(s);
}
