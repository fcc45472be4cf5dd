/*
 * Data files: IDX, NumPy, CIFAR and CSV, without and with a schema; gzip too. The first byte
 * chooses the reader; the rest is the file (for IDX and NumPy labels are the same file as images,
 * so that only lists and mismatches get far, or a fixed good one).
 */
#include "client/data/dataset.h"
#include "client/data/records.h"
#include "client/data/table.h"
#include "common/base/mem.h"
#include "common/plan/schema.h"

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
static int read_ends(const char *path, const struct fl_table *t, struct fl_err *e)
{
    size_t features = fl_table_features(t);

    require(features > 0 && t->count > 0, "a table without contents");
    if (features > FEATURES_MAX) {
        return 0;
    }
    float *x = fl_new(2 * features, sizeof *x);
    struct fl_pick picks[2] = {{.to = x}, {.row = t->count - 1, .to = x + features}};
    const struct fl_wanted wanted = {.picks = picks, .count = 2};
    int r = t->records ? fl_records_read(t->records, features, &wanted, e)
                       : fl_csv_read(path, "y", "", t, &wanted, e);
    fl_free(x);
    return r;
}

/* With a schema, windows too: two columns, a time, a series. */
static int load_table(const char *path, bool windows, struct fl_err *e)
{
    static struct fl_schema s = {.count = 2, .features = 2, .value_count = 2, .value = {0, 2}};
    struct fl_data_source source = {.format = FL_DATA_CSV, .of = 1, .schema = &s};
    struct fl_dataset d = {0};

    s.column[0] = (struct fl_column){
        .kind = FL_COLUMN_NUMERIC, .name = "a", .min = -9, .max = 9, .std = 1, .width = 1};
    s.column[1] = (struct fl_column){
        .kind = FL_COLUMN_CATEGORY, .name = "b", .values = 2, .buckets = 3, .width = 1};
    s.target = (struct fl_column){
        .kind = FL_COLUMN_NUMERIC, .name = "y", .min = 0, .max = 5, .std = 1, .width = 1};
    memcpy(s.text, "p\0q", 4);
    s.window = (struct fl_schema_window){.steps = windows ? 2 : 0,
                                         .ahead = 1,
                                         .time = "t",
                                         .series_count = 1,
                                         .series = {"b"},
                                         .cut = 10,
                                         .gap = 1};
    snprintf(source.train_x, sizeof source.train_x, "%s", path);
    int r = fl_dataset_load(&source, &d, e);
    fl_dataset_fini(&d);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 0, 2, 1};
    char x[64], y[64];
    struct fl_table t = {0};
    struct fl_err e = {0};
    int r;

    if (size == 0) {
        return 0;
    }
    int fd_x = make_file(data + 1, size - 1, x, sizeof x);
    int fd_y = data[0] == 'l' || data[0] == 'n' ? make_file(data + 1, size - 1, y, sizeof y)
                                                : make_file(labels, sizeof labels, y, sizeof y);
    switch (data[0]) {
    case 'c':
        r = fl_csv_scan(x, "y", "", &t, &e);
        break;
    case 'n':
        r = fl_npy_scan(x, y, "", &t, &e);
        break;
    case 'C':
        r = fl_cifar_scan(x, false, false, "", &t, &e);
        break;
    case 't':
    case 'w':
        r = load_table(x, data[0] == 'w', &e);
        break;
    default:
        r = fl_idx_scan(x, y, "", &t, &e);
    }
    if (r == 0 && t.count) {
        r = read_ends(x, &t, &e);
    }
    require(r == 0 || (r == e.code && e.msg[0]), "refused without a reason");
    fl_table_fini(&t);
    close(fd_x);
    close(fd_y);
    return 0;
}
