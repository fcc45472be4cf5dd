#include "client/data/dataset.h"
#include "client/data/partition.h"
#include "client/data/table.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { SITES = 20 };

static struct fl_err err;
static char folder[64];

/* ---- files ---- */

static void make_folder(void)
{
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/test_data_XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(folder));
    }
}

static const char *path_in(const char *name)
{
    static char path[4][128];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void put_file(const char *name, const void *bytes, size_t size)
{
    make_folder();
    FILE *f = fopen(path_in(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

static void put_gzip(const char *name, const void *bytes, size_t size, const char *mode)
{
    make_folder();
    gzFile z = gzopen(path_in(name), mode);
    ck_assert_ptr_nonnull(z);
    ck_assert_int_eq(gzwrite(z, bytes, (unsigned)size), (int)size);
    ck_assert_int_eq(gzclose(z), Z_OK);
}

static struct fl_data_source source(enum fl_data_format format, const char *x, const char *y)
{
    struct fl_data_source s = {.format = format, .of = 1, .disjoint = true};

    make_folder();
    snprintf(s.train_x, sizeof s.train_x, "%s/%s", folder, x);
    snprintf(s.train_y, sizeof s.train_y, "%s/%s", folder, y);
    snprintf(s.target, sizeof s.target, "y");
    return s;
}

static void expect_fail(const struct fl_data_source *s, int reason, const char *part)
{
    struct fl_dataset d = {0};

    memset(&err, 0, sizeof err);
    int r = fl_dataset_load(s, &d, &err);
    ck_assert_msg(r == -reason, "%d, not %d: %s", r, -reason, err.msg);
    ck_assert_msg(strstr(err.msg, part) != NULL, "\"%s\" lacks \"%s\"", err.msg, part);
    ck_assert_ptr_null(d.train.x);
}

static const unsigned char images[] = {0, 0, 8, 3, 0, 0, 0, 3,  0,   0,   0,  2,  0,  0,
                                       0, 2, 0, 1, 2, 3, 4, 51, 102, 153, 10, 20, 30, 255};
static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 0, 2, 1};

static void put_small(void)
{
    put_file("x", images, sizeof images);
    put_file("y", labels, sizeof labels);
}

/* ---- IDX ---- */

START_TEST(test_idx_plain_and_gzip_are_the_same)
{
    struct fl_data_source s = source(FL_DATA_IDX, "x", "y");
    struct fl_dataset a, b;
    char text[200];

    put_small();
    ck_assert_int_eq(fl_dataset_load(&s, &a, &err), 0);
    ck_assert(a.shape[0] == 1 && a.shape[1] == 2 && a.shape[2] == 2 && a.classes == 3);
    ck_assert(a.train.count == 3 && a.test.count == 0);
    ck_assert(a.train.y[0] == 0 && a.train.y[1] == 2 && a.train.y[2] == 1);
    ck_assert(a.train.x[5] == 51.0f / 255.0f && a.train.x[11] == 1.0f);
    fl_dataset_describe(&a, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "1x2x2, 3 classes, digest "));
    ck_assert_ptr_nonnull(strstr(text, "; train 3: 1 1 1; test 0: 0 0 0"));
    fl_dataset_describe(&a, text, 8);
    ck_assert_str_eq(text, "1x2x2, ");

    /* two gzip members, as `cat a.gz b.gz` makes them */
    put_gzip("x", images, 20, "wb");
    put_gzip("x", images + 20, sizeof images - 20, "ab");
    put_gzip("y", labels, sizeof labels, "wb");
    ck_assert_int_eq(fl_dataset_load(&s, &b, &err), 0);
    ck_assert(fl_digest_equal(&a.digest, &b.digest));
    fl_dataset_fini(&b);

    s.train = 2;
    s.test = 1;
    ck_assert_int_eq(fl_dataset_load(&s, &b, &err), 0);
    ck_assert(b.train.count == 2 && b.test.count == 1);
    ck_assert_int_eq(b.train.y[0] + b.train.y[1] + b.test.y[0], 3);
    ck_assert(!fl_digest_equal(&a.digest, &b.digest));
    fl_dataset_fini(&b);
    fl_dataset_fini(&a);
    fl_dataset_fini(&a);
}
END_TEST

START_TEST(test_idx_headers_that_lie)
{
    struct fl_data_source s = source(FL_DATA_IDX, "x", "y");
    unsigned char bad[sizeof images + 1];
    struct {
        size_t at;
        unsigned char byte;
        int reason;
        const char *part;
    } cases[] = {
        {0, 1, FL_R_DATA_FORMAT, "/x: byte 0: not an IDX file"},
        {2, 13, FL_R_DATA_FORMAT, "/x: byte 2: type 0x0d"},
        {3, 9, FL_R_DATA_FORMAT, "/x: byte 3: 9 dimensions"},
        {3, 1, FL_R_DATA_FORMAT, "/x: byte 3: 1 dimensions where images are wanted"},
        {4, 0x80, FL_R_DATA_FORMAT, "/x: byte 4: a size of 2147483651, more than 2^31"},
        {4, 0x40, FL_R_DATA_FORMAT, "/x: byte 8: a size of 2, more than 2^31"},
        {7, 0, FL_R_DATA_FORMAT, "/x: byte 4: a size of 0, nothing"},
        {7, 4, FL_R_DATA_FORMAT, "/y: 3 rows, but"},
    };

    put_small();
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        memcpy(bad, images, sizeof images);
        bad[cases[i].at] = cases[i].byte;
        put_file("x", bad, sizeof images);
        expect_fail(&s, cases[i].reason, cases[i].part);
    }
    put_file("x", images, sizeof images - 1);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "/x: ends after 27 of 28 bytes");
    put_file("x", images, 10);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "/x: ends after 10 of 16 bytes");
    put_file("x", "", 0);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "/x: ends after 0 of 4 bytes");
    memcpy(bad, images, sizeof images);
    bad[sizeof images] = 7;
    put_file("x", bad, sizeof bad);
    expect_fail(&s, FL_R_DATA_FORMAT, "/x: goes on after the 28 bytes its header announces");
    put_small();
    put_file("y", labels, sizeof labels - 1);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "/y: ends after 10 of 11 bytes");
    put_file("y", images, sizeof images);
    expect_fail(&s, FL_R_DATA_FORMAT, "/y: byte 3: 3 dimensions where a list is wanted");
    /* claims 2^31 labels and has three: costs nothing */
    memcpy(bad, labels, sizeof labels);
    bad[4] = 0x80;
    bad[7] = 0;
    put_file("y", bad, sizeof labels);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "/y: ends after 11 of 2147483656 bytes");
    put_small();
    s.classes = 2;
    expect_fail(&s, FL_R_DATA_VALUE, "/y: row 2: class 2 of 2");
    unlink(path_in("y"));
    expect_fail(&s, FL_R_DATA_OPEN, "/y: No such file or directory");
    snprintf(s.train_x, sizeof s.train_x, "/tmp");
    expect_fail(&s, FL_R_DATA_OPEN, "/tmp: not a regular file");
}
END_TEST

START_TEST(test_gzip_cut_damaged_and_followed)
{
    struct fl_data_source s = source(FL_DATA_IDX, "x", "y");
    unsigned char packed[256];

    put_small();
    put_gzip("x", images, sizeof images, "wb");
    FILE *f = fopen(path_in("x"), "rb");
    size_t size = fread(packed, 1, sizeof packed - 1, f);
    fclose(f);
    for (size_t cut = 2; cut < size; cut++) {
        put_file("x", packed, cut);
        expect_fail(&s, FL_R_DATA_TRUNCATED, "end early, after ");
    }
    packed[size] = '!';
    put_file("x", packed, size + 1);
    expect_fail(&s, FL_R_DATA_FORMAT, "something follows the compressed data");
    packed[size - 6] ^= 1; /* the checksum */
    put_file("x", packed, size);
    expect_fail(&s, FL_R_DATA_FORMAT, "damaged gzip after 28 bytes unpacked");
}
END_TEST

START_TEST(test_ranks_and_shapes)
{
    struct fl_data_source s = source(FL_DATA_IDX, "x", "y");
    const unsigned char rank2[] = {0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 1, 1, 2, 3};
    const unsigned char rank4[] = {0, 0, 8, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0,
                                   0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6};
    struct fl_dataset d;

    put_small();
    put_file("x", rank2, sizeof rank2);
    ck_assert_int_eq(fl_dataset_load(&s, &d, &err), 0);
    ck_assert(d.shape[0] == 1 && d.shape[1] == 1 && d.shape[2] == 1);
    fl_dataset_fini(&d);
    put_file("x", rank4, sizeof rank4);
    ck_assert_int_eq(fl_dataset_load(&s, &d, &err), 0);
    ck_assert(d.shape[0] == 2 && d.shape[1] == 1 && d.shape[2] == 1);
    fl_dataset_fini(&d);
    snprintf(s.test_x, sizeof s.test_x, "%s/x2", folder);
    snprintf(s.test_y, sizeof s.test_y, "%s/y", folder);
    put_file("x2", rank2, sizeof rank2);
    expect_fail(&s, FL_R_DATA_SHAPE, "examples of different shapes");
}
END_TEST

/* ---- CSV ---- */

START_TEST(test_csv)
{
    struct fl_data_source s = source(FL_DATA_CSV, "t.csv", "");
    struct fl_dataset a, b;
    const char *text = "\xef\xbb\xbf\"a\",\"the \"\"b\"\"\",y,site\r\n"
                       "1.5,-2e1,0,0\r\n"
                       "\"3\", 4 ,1,1\r\n"
                       "5,6,2,1";

    put_text("t.csv", text);
    ck_assert_int_eq(fl_dataset_load(&s, &a, &err), 0);
    ck_assert(a.shape[0] == 3 && a.shape[1] == 1 && a.classes == 3 && a.train.count == 3);
    ck_assert(a.train.x[0] == 1.5f && a.train.x[1] == -20 && a.train.x[3] == 3 &&
              a.train.x[4] == 4);
    fl_dataset_fini(&a);

    s.partition = FL_PARTITION_COLUMN;
    snprintf(s.column, sizeof s.column, "site");
    s.client = 1;
    ck_assert_int_eq(fl_dataset_load(&s, &a, &err), 0);
    ck_assert(a.shape[0] == 2 && a.train.count == 2 && a.train.x[0] == 3 && a.train.y[1] == 2);
    put_gzip("t.csv", text, strlen(text), "wb");
    ck_assert_int_eq(fl_dataset_load(&s, &b, &err), 0);
    ck_assert(fl_digest_equal(&a.digest, &b.digest));
    fl_dataset_fini(&a);
    fl_dataset_fini(&b);
    s.client = 7;
    expect_fail(&s, FL_R_DATA_EMPTY, "t.csv: no training examples for client 7");
    s.client = 0;
    s.test = 1;
    expect_fail(&s, FL_R_DATA_EMPTY, "t.csv: no test examples for client 0");
}
END_TEST

START_TEST(test_csv_errors_name_line_and_column)
{
    struct fl_data_source s = source(FL_DATA_CSV, "t.csv", "");
    struct {
        const char *text;
        int reason;
        const char *part;
    } cases[] = {
        {"", FL_R_DATA_TRUNCATED, "t.csv: empty; a row of column names is wanted"},
        {"a,y\n", FL_R_DATA_TRUNCATED, "t.csv: no rows after the names"},
        {"a,b\n1,2\n", FL_R_DATA_COLUMN, "t.csv:1: no column is named y"},
        {"y,a,y\n1,2,1\n", FL_R_DATA_COLUMN, "t.csv:1: more than one column is named y"},
        {"y\n1\n", FL_R_DATA_FORMAT, "t.csv:1: no column of features"},
        {"a,y\n1,0\n2\n", FL_R_DATA_RAGGED, "t.csv:3: 1 fields where the first row has 2"},
        {"a,y\n\n1,0\n", FL_R_DATA_FORMAT, "t.csv:2: an empty line"},
        {"a,y\n1,0\n\"2,1\n", FL_R_DATA_FORMAT, "t.csv:3: a quote is not closed"},
        {"a,y\n\"1\"x,0\n", FL_R_DATA_FORMAT, "t.csv:2: something follows a closing quote"},
        {"a,y\n1\"2,0\n", FL_R_DATA_FORMAT, "t.csv:2: a quote inside a field"},
        {"a,y\n1,0\n,1\n", FL_R_DATA_VALUE, "t.csv:3: column a: \"\" is not a finite number"},
        {"a,y\n1,0\nnan,1\n", FL_R_DATA_VALUE, "t.csv:3: column a: \"nan\" is not a finite"},
        {"a,y\n1,0\n1e60,1\n", FL_R_DATA_VALUE, "t.csv:3: column a: \"1e60\" is not a finite"},
        {"a,y\n1,0\n1-2,1\n", FL_R_DATA_VALUE, "t.csv:3: column a: \"1-2\" is not a finite"},
        {"a,y\n1,-1\n", FL_R_DATA_VALUE, "t.csv:2: column y: \"-1\" is not a class number"},
        {"a,y\n1,99999999999999\n", FL_R_DATA_VALUE, "t.csv:2: column y: \"9999"},
        {"a,y\n\"1\n2\",0\n3,1,4\n", FL_R_DATA_RAGGED, "t.csv:4: 3 fields"},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        put_text("t.csv", cases[i].text);
        expect_fail(&s, cases[i].reason, cases[i].part);
    }
    put_file("t.csv", "a,y\n1\0002,0\n", 11);
    expect_fail(&s, FL_R_DATA_FORMAT, "t.csv:2: a zero byte");
    size_t size = (1 << 20) + 64;
    char *big = fl_new(size, 1);
    memset(big, '1', size - 1);
    memcpy(big, "a,y\n", 4);
    put_text("t.csv", big);
    expect_fail(&s, FL_R_DATA_FORMAT, "t.csv:2: a row longer than 1 MiB");
    memset(big, ',', size - 1);
    put_text("t.csv", big);
    expect_fail(&s, FL_R_DATA_FORMAT, "t.csv:1: more than 65536 columns");
    fl_free(big);
    put_text("t.csv", "a,y\n1,0\n");
    s.partition = FL_PARTITION_COLUMN;
    expect_fail(&s, FL_R_CONF_MISSING, "which column?");
    snprintf(s.column, sizeof s.column, "y");
    expect_fail(&s, FL_R_DATA_FORMAT, "y is both target and client column");
}
END_TEST

/* ---- partitions, on numbers alone ---- */

static void make_table(struct fl_table *t, uint32_t count, uint32_t classes, uint32_t seed)
{
    memset(t, 0, sizeof *t);
    t->count = count;
    t->shape[0] = t->shape[1] = t->shape[2] = 1;
    t->y = fl_new(count, sizeof *t->y);
    for (uint32_t i = 0; i < count; i++) {
        t->y[i] = (int32_t)((i * 7 + seed) % classes);
    }
}

static struct fl_data_source dealt(enum fl_partition partition, uint32_t client, uint32_t of)
{
    struct fl_data_source s = {.partition = partition,
                               .client = client,
                               .of = of,
                               .alpha = 0.5,
                               .seed = 3,
                               .disjoint = true,
                               .train_x = "train",
                               .test_x = "test"};
    return s;
}

START_TEST(test_dirichlet_deals_every_row_once)
{
    struct fl_table train, test;
    const double alphas[] = {1e-3, 0.5, 100};

    make_table(&train, 3000, 10, 0);
    make_table(&test, 1000, 10, 3);
    for (size_t a = 0; a < FL_COUNT(alphas); a++) {
        uint32_t seen[4000] = {0}, total = 0, largest = 0;
        for (uint32_t i = 0; i < SITES; i++) {
            struct fl_data_source s = dealt(FL_PARTITION_DIRICHLET, i, SITES);
            struct fl_split split = {0};
            s.alpha = alphas[a];
            int r = fl_partition(&s, 10, &train, &test, &split, &err);
            ck_assert(r == 0 || (r == -FL_R_DATA_EMPTY && alphas[a] < 1));
            for (uint32_t k = 0; k < split.train_count; k++) {
                ck_assert_uint_lt(split.train[k], 3000);
                seen[split.train[k]]++;
            }
            for (uint32_t k = 0; k < split.test_count; k++) {
                ck_assert_uint_ge(split.test[k], 3000);
                seen[split.test[k]]++;
            }
            largest = split.train_count > largest ? split.train_count : largest;
            fl_split_fini(&split);
        }
        for (uint32_t i = 0; i < 4000; i++) {
            ck_assert_uint_le(seen[i], 1);
            total += seen[i];
        }
        /* sites without training rows are refused, and their test rows with them */
        ck_assert_uint_ge(total, alphas[a] < 0.1 ? 3000 : 3900);
        ck_assert(alphas[a] < 50 ? largest > 200 : largest < 200);
    }
    fl_table_fini(&train);
    fl_table_fini(&test);
}
END_TEST

/* The same rows with and without it, but apart: whatever the partition. */
START_TEST(test_validation_rows_leave_the_training_part)
{
    const enum fl_partition kinds[] = {FL_PARTITION_ALL, FL_PARTITION_DIRICHLET,
                                       FL_PARTITION_PATHOLOGICAL};
    struct fl_table train, test;

    make_table(&train, 3000, 10, 0);
    make_table(&test, 1000, 10, 3);
    for (size_t k = 0; k < FL_COUNT(kinds); k++) {
        struct fl_data_source s = dealt(kinds[k], 1, 4);
        struct fl_split all, two, again;
        uint8_t seen[4000] = {0};
        s.train = 200;
        s.test = 50;
        ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &all, &err), 0);
        s.validation = 60;
        ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &two, &err), 0);
        ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &again, &err), 0);
        ck_assert_uint_eq(all.validation_count, 0);
        ck_assert_uint_eq(two.validation_count, 60);
        ck_assert_uint_eq(two.train_count, all.train_count - 60);
        ck_assert_mem_eq(two.validation, again.validation, 60 * sizeof *two.validation);
        ck_assert_uint_eq(two.test_count, all.test_count);
        ck_assert_mem_eq(two.test, all.test, all.test_count * sizeof *all.test);
        for (uint32_t i = 0; i < all.train_count; i++) {
            seen[all.train[i]] = 1;
        }
        uint32_t place = 0, last = 0;
        for (uint32_t i = 0; i < 60; i++) {
            ck_assert_uint_eq(seen[two.validation[i]]--, 1);
            while (all.train[place] != two.validation[i]) { /* in order, from all over it */
                ck_assert_uint_lt(++place, all.train_count);
            }
            last = place;
        }
        ck_assert_uint_gt(last, all.train_count / 2);
        for (uint32_t i = 0; i < two.train_count; i++) {
            ck_assert_uint_eq(seen[two.train[i]]--, 1);
        }
        fl_split_fini(&again);
        s.validation = 60.0 / all.train_count; /* the same as a part */
        ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &again, &err), 0);
        ck_assert_uint_eq(again.validation_count, 60);
        ck_assert_mem_eq(two.validation, again.validation, 60 * sizeof *two.validation);
        fl_split_fini(&all);
        fl_split_fini(&two);
        fl_split_fini(&again);
    }
    struct fl_data_source s = dealt(FL_PARTITION_ALL, 0, 1);
    struct fl_split split;
    s.train = 4; /* a part of it that is no example */
    s.validation = 0.2;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &split, &err), 0);
    ck_assert_uint_eq(split.train_count, 4);
    ck_assert_uint_eq(split.validation_count, 0);
    fl_split_fini(&split);
    s.train = 60;
    s.validation = 60;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &split, &err), -FL_R_DATA_EMPTY);
    ck_assert_str_eq(
        err.msg, "train: 60 validation examples of 60 training examples leave none to train on");
    fl_table_fini(&train);
    fl_table_fini(&test);
}
END_TEST

START_TEST(test_published_pathological_wraps_around)
{
    struct fl_table train, test;
    struct fl_split split;

    make_table(&train, 60000, 10, 0);
    make_table(&test, 10000, 10, 0);
    for (uint32_t i = 0; i < SITES; i++) {
        struct fl_data_source s = dealt(FL_PARTITION_PATHOLOGICAL, i, SITES);
        uint32_t by_class[2][10] = {{0}};
        s.disjoint = false;
        s.train = s.test = 600;
        ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &split, &err), 0);
        for (uint32_t k = 0; k < 600; k++) {
            by_class[0][train.y[split.train[k]]]++;
            by_class[1][test.y[split.test[k] - 60000]]++;
        }
        for (uint32_t c = 0; c < 10; c++) {
            uint32_t g = i % 5 * 2;
            bool dominant = c == g || c == g + 1 || c == (g + 2) % 10;
            ck_assert_uint_eq(by_class[0][c], dominant ? 172 : 12);
            ck_assert_uint_eq(by_class[1][c], dominant ? 172 : 12);
        }
        /* Rows are taken in file order: the n-th row of class c is at 10 n plus a constant. Class
         * 0 of the test files: sites 0..4 take 172, 12, 12, 12, 172, and so on: 380 for five. */
        if (i == 1) {
            ck_assert_int_eq(train.y[split.train[0]], 0);
            ck_assert_uint_eq(split.train[0] / 10, 172);
        }
        /* Site 10 ends at 932 of 1000; sites 11 to 13 at 968; site 14 takes 12 (980) and begins
         * anew for its 160, which are those of site 0. */
        if (i == 14) {
            uint32_t n = 0;
            for (uint32_t k = 0; k < 600; k++) {
                uint32_t row = split.test[k] - 60000;
                n += test.y[row] == 0 && row / 10 < 160;
            }
            ck_assert_uint_eq(n, 160);
        }
        fl_split_fini(&split);
    }
    struct fl_data_source s = dealt(FL_PARTITION_PATHOLOGICAL, 0, 1);
    s.disjoint = false;
    s.train = 30000;
    expect_fail(&s, FL_R_DATA_OPEN, "train: ");
    ck_assert_int_eq(fl_partition(&s, 10, &train, &test, &split, &err), -FL_R_DATA_EMPTY);
    ck_assert_str_eq(err.msg, "train: class 0: 8000 examples are wanted, there are 6000");
    fl_table_fini(&train);
    fl_table_fini(&test);
}
END_TEST

START_TEST(test_what_partitions_refuse)
{
    struct fl_table train, none = {0};
    struct fl_split split;
    struct fl_data_source s = dealt(FL_PARTITION_PATHOLOGICAL, 2, 2);

    make_table(&train, 100, 10, 0);
    ck_assert_int_eq(fl_partition(&s, 10, &train, &none, &split, &err), -FL_R_CONF_RANGE);
    s.of = 3;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &none, &split, &err), -FL_R_CONF_RANGE);
    s.train = 10;
    ck_assert_int_eq(fl_partition(&s, 2, &train, &none, &split, &err), -FL_R_CONF_RANGE);
    s.train = 100;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &none, &split, &err), -FL_R_DATA_EMPTY);
    s.disjoint = false;
    s.test = 1;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &none, &split, &err), -FL_R_CONF_RANGE);
    s = dealt(FL_PARTITION_DIRICHLET, 0, 1);
    s.alpha = 0;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &none, &split, &err), -FL_R_CONF_RANGE);
    s.alpha = NAN;
    ck_assert_int_eq(fl_partition(&s, 10, &train, &none, &split, &err), -FL_R_CONF_RANGE);
    fl_table_fini(&train);
}
END_TEST

START_TEST(test_file_of_client_numbers)
{
    struct fl_data_source s = source(FL_DATA_IDX, "x", "y");
    const unsigned char who[] = {0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 5};
    struct fl_dataset d;

    put_small();
    put_file("who", who, sizeof who);
    s.partition = FL_PARTITION_FILE;
    expect_fail(&s, FL_R_CONF_CONFLICT, "file of client numbers");
    snprintf(s.clients, sizeof s.clients, "%s/who", folder);
    s.client = 5;
    snprintf(s.test_x, sizeof s.test_x, "%s/x", folder);
    snprintf(s.test_y, sizeof s.test_y, "%s/y", folder);
    ck_assert_int_eq(fl_dataset_load(&s, &d, &err), 0);
    ck_assert(d.train.count == 2 && d.train.y[1] == 1 && d.train.x[4] == 10.0f / 255.0f);
    ck_assert(d.test.count == 3);
    fl_dataset_fini(&d);
    s.client = 1;
    expect_fail(&s, FL_R_DATA_EMPTY, "no training examples for client 1");
}
END_TEST

/* ---- the shipped images ---- */

static struct fl_data_source shipped(uint32_t client)
{
    struct fl_data_source s = dealt(FL_PARTITION_PATHOLOGICAL, client, SITES);
    const char *dir = TEST_SOURCE_ROOT "/tests/data/fashion-mnist";

    snprintf(s.train_x, sizeof s.train_x, "%s/train-images-idx3-ubyte.gz", dir);
    snprintf(s.train_y, sizeof s.train_y, "%s/train-labels-idx1-ubyte.gz", dir);
    snprintf(s.test_x, sizeof s.test_x, "%s/test-images-idx3-ubyte.gz", dir);
    snprintf(s.test_y, sizeof s.test_y, "%s/test-labels-idx1-ubyte.gz", dir);
    s.train = 80;
    s.test = 240;
    s.classes = 10;
    return s;
}

static int compare_digests(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct fl_digest));
}

START_TEST(test_twenty_disjoint_sites)
{
    enum { EACH = 320 };
    struct fl_digest *seen = fl_new((size_t)SITES * EACH, sizeof *seen);
    struct fl_dataset d, again;
    size_t count = 0;

    for (uint32_t i = 0; i < SITES; i++) {
        struct fl_data_source s = shipped(i);
        ck_assert_msg(fl_dataset_load(&s, &d, &err) == 0, "%s", err.msg);
        ck_assert(d.shape[0] == 1 && d.shape[1] == 28 && d.shape[2] == 28 && d.classes == 10);
        ck_assert(d.train.count == 80 && d.test.count == 240);
        for (int part = 0; part < 2; part++) {
            const struct fl_examples *x = part ? &d.test : &d.train;
            uint32_t by_class[10] = {0}, all = x->count;
            for (uint32_t k = 0; k < all; k++) {
                by_class[x->y[k]]++;
                fl_digest_of(x->x + (size_t)k * 784, 784 * sizeof(float), &seen[count++]);
            }
            for (uint32_t c = 0, g = i % 5 * 2; c < 10; c++) {
                bool dominant = c == g || c == g + 1 || c == (g + 2) % 10;
                uint32_t low = all / 50 + (dominant ? all * 4 / 15 : 0);
                ck_assert_uint_ge(by_class[c], low);
                ck_assert_uint_le(by_class[c], low + 2);
            }
        }
        if (i % 7 == 0) {
            ck_assert_int_eq(fl_dataset_load(&s, &again, &err), 0);
            ck_assert(fl_digest_equal(&d.digest, &again.digest));
            fl_dataset_fini(&again);
        }
        fl_dataset_fini(&d);
    }
    /* Two rows with the same pixels would show here too: the shipped images have none. */
    qsort(seen, count, sizeof *seen, compare_digests);
    for (size_t i = 1; i < count; i++) {
        ck_assert(!fl_digest_equal(&seen[i - 1], &seen[i]));
    }
    fl_free(seen);
    struct fl_data_source s = shipped(0);
    s.test = 400;
    expect_fail(&s, FL_R_DATA_EMPTY, "train-images-idx3-ubyte.gz: class 0: ");
}
END_TEST

/* Sites of other sizes in the same deal: what a small one has is of its own share. */
START_TEST(test_sizes_of_one_deal)
{
    struct fl_data_source s = shipped(3);
    struct fl_dataset all, some;

    ck_assert_int_eq(fl_dataset_load(&s, &all, &err), 0);
    s.dealt = s.train;
    s.train = 20;
    ck_assert_msg(fl_dataset_load(&s, &some, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(some.train.count, 20);
    ck_assert_uint_eq(some.test.count, all.test.count);
    ck_assert_int_eq(memcmp(some.test.x, all.test.x, all.test.count * 784 * sizeof(float)), 0);
    for (uint32_t i = 0; i < some.train.count; i++) {
        uint32_t at = 0;
        while (at < all.train.count &&
               memcmp(some.train.x + (size_t)i * 784, all.train.x + (size_t)at * 784,
                      784 * sizeof(float))) {
            at++;
        }
        ck_assert_uint_lt(at, all.train.count);
    }
    fl_dataset_fini(&some);
    fl_dataset_fini(&all);
    s.train = 100;
    expect_fail(&s, FL_R_CONF_RANGE, "dealt (80) is for a disjoint deal, and at least train (100)");
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    struct fl_data_source s = source(FL_DATA_IDX, "x", "y");
    struct fl_data_source t = source(FL_DATA_CSV, "t.csv", "");
    bool hit = true;

    put_small();
    put_gzip("x", images, sizeof images, "wb");
    put_text("t.csv", "a,y\n1,0\n2,1\n3,2\n4,0\n5,1\n");
    s.partition = FL_PARTITION_DIRICHLET;
    s.alpha = 1;
    t.partition = FL_PARTITION_PATHOLOGICAL;
    t.train = 3;
    t.test = 1;
    for (uint64_t nth = 1; hit; nth++) {
        struct fl_dataset d;
        hit = false;
        for (int k = 0; k < 2; k++) {
            fl_mem_fail_at(nth);
            int r = fl_dataset_load(k ? &t : &s, &d, &err);
            ck_assert_int_eq(r, fl_mem_fail_hit() ? -FL_R_NOMEM : 0);
            hit = hit || fl_mem_fail_hit();
            fl_mem_fail_at(0);
            if (r == 0) {
                fl_dataset_fini(&d);
            }
        }
    }
}
END_TEST

/* ---- roles by hash ---- */

enum { ROWS = 2000, TRAINS = 1, TESTS = 2, VALIDATES = 3 };

/* A table, or images, of rows i = first..last but `without`, and `twice` at the end again. */
static void put_rows(bool csv, int without, int twice)
{
    static char text[64 * ROWS];
    static unsigned char x[16 + 4 * (ROWS + 1)], y[8 + ROWS + 1];
    size_t n = 0, at = (size_t)snprintf(text, sizeof text, "a,y\n");

    for (int k = 0; k < ROWS + (twice >= 0); k++) {
        int i = k < ROWS ? k : twice;
        if (k == without) {
            continue;
        }
        at += (size_t)snprintf(text + at, sizeof text - at, "%d,%d\n", i, i % 2);
        memcpy(x + 12 + 2 * n, (const unsigned char[]){(unsigned char)(i >> 8), (unsigned char)i},
               2);
        y[8 + n++] = (unsigned char)(i % 2);
    }
    memcpy(x,
           (const unsigned char[]){0, 0, 8, 2, 0, 0, (unsigned char)(n >> 8), (unsigned char)n, 0,
                                   0, 0, 2},
           12);
    memcpy(y, (const unsigned char[]){0, 0, 8, 1, 0, 0, (unsigned char)(n >> 8), (unsigned char)n},
           8);
    if (csv) {
        put_file("t.csv", text, at);
    } else {
        put_file("x", x, 12 + 2 * n);
        put_file("y", y, 8 + n);
    }
}

/* Adds to seen[i] how row i is used; a row that is there twice must be used alike. */
static void note_roles(const struct fl_data_source *s, uint8_t seen[ROWS], uint32_t count[4])
{
    bool csv = s->format == FL_DATA_CSV;
    struct fl_dataset d;

    memset(seen, 0, ROWS);
    memset(count, 0, 4 * sizeof *count);
    ck_assert_msg(fl_dataset_load(s, &d, &err) == 0, "%s", err.msg);
    const struct fl_examples *parts[] = {NULL, &d.train, &d.test, &d.validation};
    for (uint8_t k = TRAINS; k <= VALIDATES; k++) {
        for (uint32_t i = 0; i < parts[k]->count; i++) {
            const float *v = parts[k]->x + i * (csv ? 1 : 2);
            int row = csv ? (int)v[0] : (int)lroundf(v[0] * 255) * 256 + (int)lroundf(v[1] * 255);
            ck_assert(seen[row] == 0 || seen[row] == k);
            ck_assert_int_eq(parts[k]->y[i], row % 2);
            seen[row] = k;
            count[k]++;
        }
    }
    fl_dataset_fini(&d);
}

/* Within five standard deviations of a binomial. */
static void expect_part(uint32_t count, double p)
{
    ck_assert_double_le(fabs(count - p * ROWS), 5 * sqrt(ROWS * p * (1 - p)));
}

START_TEST(test_one_row_more_or_less_changes_no_other)
{
    for (int csv = 0; csv < 2; csv++) {
        struct fl_data_source s =
            csv ? source(FL_DATA_CSV, "t.csv", "") : source(FL_DATA_IDX, "x", "y");
        uint8_t all[ROWS], other[ROWS];
        uint32_t sizes[4], more[4];
        s.deal = FL_DEAL_HASHED;
        s.test_part = 0.2;
        s.train_part = 0.5;
        s.validation = 0.1;
        memset(&s.role_key, 7, sizeof s.role_key);
        put_rows(csv, -1, -1);
        note_roles(&s, all, sizes);
        expect_part(sizes[TESTS], 0.2);
        expect_part(sizes[TRAINS], 0.45);
        expect_part(sizes[VALIDATES], 0.05);
        const int gone[] = {0, 1, 777, ROWS - 1};
        for (size_t k = 0; k < FL_COUNT(gone); k++) {
            put_rows(csv, gone[k], -1);
            note_roles(&s, other, more);
            ck_assert_uint_eq(other[gone[k]], 0);
            other[gone[k]] = all[gone[k]];
            ck_assert_mem_eq(other, all, sizeof all);
            put_rows(csv, -1, gone[k]);
            note_roles(&s, other, more);
            ck_assert_mem_eq(other, all, sizeof all);
            sizes[all[gone[k]]]++; /* the twin is where the first one is */
            ck_assert_mem_eq(more + 1, sizes + 1, 3 * sizeof *more);
            sizes[all[gone[k]]]--;
        }
        put_rows(csv, -1, -1);
        s.role_key.bytes[31] ^= 1; /* another site's secret, other roles */
        note_roles(&s, other, more);
        ck_assert_int_ne(memcmp(other, all, sizeof all), 0);

        s.train_part = s.test_part = s.validation = 0; /* nothing cut: all rows train */
        note_roles(&s, other, more);
        ck_assert_uint_eq(more[TRAINS], ROWS);
        s.test = 20;
        expect_fail(&s, FL_R_CONF_CONFLICT, "parts of the rows, not numbers of them");
        s.test = 0;
        s.test_part = 0.6;
        s.train_part = 0.5;
        expect_fail(&s, FL_R_CONF_RANGE, "more than all rows");
        s.deal = FL_DEAL_PLACED;
        expect_fail(&s, FL_R_CONF_CONFLICT, "need deal: hashed");
    }
}
END_TEST

START_TEST(test_folder_is_left_clean)
{
    const char *names[] = {"x", "y", "x2", "t.csv", "who"};

    for (size_t i = 0; folder[0] && i < FL_COUNT(names); i++) {
        unlink(path_in(names[i]));
    }
    ck_assert_int_eq(folder[0] ? rmdir(folder) : 0, 0);
}
END_TEST

TESTS_MAIN("data", test_idx_plain_and_gzip_are_the_same, test_idx_headers_that_lie,
           test_gzip_cut_damaged_and_followed, test_ranks_and_shapes, test_csv,
           test_csv_errors_name_line_and_column, test_dirichlet_deals_every_row_once,
           test_validation_rows_leave_the_training_part, test_published_pathological_wraps_around,
           test_what_partitions_refuse, test_file_of_client_numbers, test_twenty_disjoint_sites,
           test_sizes_of_one_deal, test_one_row_more_or_less_changes_no_other,
           test_every_allocation_may_fail, test_folder_is_left_clean)
