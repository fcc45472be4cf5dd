/*
 * CIFAR binary: records of one label byte (CIFAR-100: a coarse and a fine one) and 3,072 pixel
 * bytes, red, green and blue planes row by row; no header. A path names one file, or the folder of
 * the official archive, whose files are then taken as they are named there. gzip too.
 */
#include "client/data/bytes.h"
#include "client/data/records.h"
#include "client/data/table.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <sys/stat.h>

enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE, FILES = 5, ROWS_MAX = 1 << 28 };

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int add_file(struct fl_records *r, const char *folder, const char *name, bool wanted,
                    struct fl_err *e)
{
    char *to = r->file[r->files].path;
    const size_t size = sizeof r->file[0].path;
    static const char *const ends[] = {"", ".gz"};

    for (size_t i = 0; i < FL_COUNT(ends); i++) {
        int n = snprintf(to, size, "%s/%s%s", folder, name, ends[i]);
        if (n > 0 && (size_t)n < size && is_file(to)) {
            r->files++;
            return 0;
        }
    }
    to[0] = 0;
    return wanted ? fl_fail(e, FL_R_DATA_OPEN, "%s: no file %s in this folder", folder, name) : 0;
}

/* The files a path stands for. */
static int find_files(const char *path, bool fine, bool test, struct fl_records *r,
                      struct fl_err *e)
{
    struct stat st;
    char name[32];

    if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
        snprintf(r->file[0].path, sizeof r->file[0].path, "%s", path);
        r->files = 1;
        return 0;
    }
    if (fine || test) {
        return add_file(r, path, fine ? (test ? "test.bin" : "train.bin") : "test_batch.bin", true,
                        e);
    }
    int code = 0;
    for (int i = 1; code == 0 && i <= FILES; i++) {
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        code = add_file(r, path, name, i == 1, e);
    }
    return code;
}

/* The labels of one file. */
static int scan_file(struct fl_records *r, uint32_t k, struct fl_table *t, size_t *room,
                     struct fl_err *e)
{
    const char *path = r->file[k].path;
    unsigned char record[2 + PIXELS];
    struct fl_bytes *b = NULL;
    size_t got = 0;
    int code = fl_bytes_open(path, &b, e);

    if (code) {
        return code;
    }
    r->file[k].packed = fl_bytes_packed(b);
    while ((code = fl_bytes_read(b, record, r->record, &got, e)) == 0 && got) {
        if (got < r->record) {
            code = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: row %u: ends after %zu of %zu bytes", path,
                           r->file[k].rows + 1, got, r->record);
        } else if (t->count == ROWS_MAX) {
            code = fl_fail(e, FL_R_DATA_FORMAT, "%s: too many rows", path);
        } else if (t->count == *room) {
            size_t more = *room ? 2 * *room : 1024;
            if (!fl_try_grow((void **)&t->y, more, sizeof *t->y)) {
                code = fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
            }
            *room = more;
        }
        if (code) {
            break;
        }
        t->y[t->count++] = record[r->skip - 1];
        r->file[k].rows++;
    }
    fl_bytes_close(b);
    return code;
}

int fl_cifar_scan(const char *path, bool fine, bool test, const char *clients, struct fl_table *ret,
                  struct fl_err *e)
{
    struct fl_table t = {.shape = {3, SIDE, SIDE}, .records = fl_try(1, sizeof *t.records)};
    struct fl_records *r = t.records;
    size_t room = 0;

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
    }
    r->skip = fine ? 2 : 1;
    r->record = r->skip + PIXELS;
    r->value = FL_VALUE_U8;
    r->divide = 255;
    int code = find_files(path, fine, test, r, e);
    for (uint32_t k = 0; code == 0 && k < r->files; k++) {
        code = scan_file(r, k, &t, &room, e);
    }
    for (uint32_t i = 0; code == 0 && !fine && i < t.count; i++) {
        if (t.y[i] > 9) { /* the commonest mistake: CIFAR-100 read as CIFAR-10 */
            code = fl_fail(e, FL_R_DATA_VALUE, "%s: row %u: class %d; CIFAR-10 has 0 to 9", path,
                           i + 1, t.y[i]);
        }
    }
    if (code == 0 && t.count == 0) {
        code = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: empty", path);
    }
    if (code == 0 && clients[0]) {
        code = fl_idx_numbers(clients, t.count, path, &t.client, e);
    }
    if (code) {
        fl_table_fini(&t);
        return code;
    }
    *ret = t;
    return 0;
}
