/*
 * Data files: IDX and CSV, gzip too. The first byte chooses the reader; the rest is the file (for
 * IDX labels are the same file as images, so that only lists and mismatches get far, or a fixed
 * good one).
 */
#include "client/data/table.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FEATURES_MAX = 1 << 16 };

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fuzz_data: %s\n", what);
        abort();
    }
}

static int make_file(const void *data, size_t size, char *path, size_t path_size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    require(fd >= 0 && write(fd, data, size) == (ssize_t)size, "no memory file");
    snprintf(path, path_size, "/proc/self/fd/%d", fd);
    return fd;
}

/* Reads the first and the last row. */
static int read_ends(bool csv, const char *path, const struct fl_table *t, struct fl_err *e)
{
    size_t features = fl_table_features(t);

    require(features > 0 && t->count > 0, "a table without contents");
    if (features > FEATURES_MAX) {
        return 0;
    }
    float *x = fl_new(2 * features, sizeof *x);
    struct fl_pick picks[2] = {{0, x}, {t->count - 1, x + features}};
    int r = csv ? fl_csv_read(path, "y", "", t, picks, 2, e) : fl_idx_read(path, t, picks, 2, e);
    fl_free(x);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 0, 2, 1};
    char x[64], y[64];
    struct fl_table t = {0};
    struct fl_err e = {0};

    if (size == 0) {
        return 0;
    }
    bool csv = data[0] == 'c';
    int fd_x = make_file(data + 1, size - 1, x, sizeof x);
    int fd_y = data[0] == 'l' ? make_file(data + 1, size - 1, y, sizeof y)
                              : make_file(labels, sizeof labels, y, sizeof y);
    int r = csv ? fl_csv_scan(x, "y", "", &t, &e) : fl_idx_scan(x, y, "", &t, &e);
    if (r == 0) {
        r = read_ends(csv, x, &t, &e);
    }
    require(r == 0 || (r == e.code && e.msg[0]), "refused without a reason");
    fl_table_fini(&t);
    close(fd_x);
    close(fd_y);
    return 0;
}
