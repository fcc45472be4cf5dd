/* CIFAR, NumPy, tables with a schema, windows over time, and data larger than memory. */
#include "client/data/dataset.h"
#include "client/data/encode.h"
#include "client/data/npy_out.h"
#include "client/data/table.h"
#include "common/base/date.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static struct fl_err err;
static char folder[64];
static struct fl_schema schema;

/* ---- files ---- */

static const char *path_in(const char *name)
{
    static char path[4][128];
    static int turn;

    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/test_tables_XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(folder));
    }
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void put_file(const char *name, const void *bytes, size_t size)
{
    FILE *f = fopen(path_in(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

static struct fl_data_source source(enum fl_data_format format, const char *x)
{
    struct fl_data_source s = {.format = format, .of = 1};

    snprintf(s.train_x, sizeof s.train_x, "%s", path_in(x));
    snprintf(s.scratch, sizeof s.scratch, "%s", folder);
    return s;
}

static struct fl_data_source golden(const char *x, const char *y)
{
    struct fl_data_source s = source(FL_DATA_NPY, "");

    snprintf(s.train_x, sizeof s.train_x, TEST_SOURCE_ROOT "/tests/golden/data/%s", x);
    snprintf(s.train_y, sizeof s.train_y, TEST_SOURCE_ROOT "/tests/golden/data/%s", y);
    return s;
}

static void load(const struct fl_data_source *s, struct fl_dataset *ret)
{
    int r = fl_dataset_load(s, ret, &err);
    ck_assert_msg(r == 0, "%d: %s", r, err.msg);
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

static int parse(const char *text)
{
    struct fl_conf *c = NULL;

    memset(&err, 0, sizeof err);
    int r = fl_conf_parse("job.yaml", text, strlen(text), &c, &err);
    ck_assert_msg(r == 0, "%s", err.msg);
    r = fl_schema_parse(fl_conf_root(c), &schema, &err);
    fl_conf_free(c);
    return r;
}

/* The same data wherever they are kept: digest and every example. */
static void same_data(const struct fl_dataset *a, const struct fl_dataset *b)
{
    size_t features = (size_t)a->shape[0] * a->shape[1] * a->shape[2];
    float x[4096], y[4096];

    ck_assert_uint_le(features, FL_COUNT(x));
    ck_assert(fl_digest_equal(&a->digest, &b->digest));
    ck_assert(fl_digest_equal(&a->identity, &b->identity));
    ck_assert_uint_eq(a->train.count, b->train.count);
    for (size_t i = 0; i < a->train.count; i++) {
        ck_assert_int_eq(fl_examples_get(&a->train, features, i, x, &err), 0);
        ck_assert_int_eq(fl_examples_get(&b->train, features, i, y, &err), 0);
        ck_assert_mem_eq(x, y, features * sizeof *x);
    }
}

/* ---- CIFAR ---- */

enum { RECORD = 3073 };

static unsigned char *cifar(uint32_t rows, uint32_t labels)
{
    unsigned char *all = fl_new(rows, 3072 + labels), *at = all;

    for (uint32_t i = 0; i < rows; i++) {
        *at++ = (unsigned char)(i % 3);
        for (uint32_t k = 1; k < labels; k++) {
            *at++ = (unsigned char)(50 + i);
        }
        for (uint32_t p = 0; p < 3072; p++) {
            *at++ = (unsigned char)(p + 7 * i);
        }
    }
    return all;
}

START_TEST(test_cifar)
{
    struct fl_data_source s = source(FL_DATA_CIFAR10, "c.bin");
    struct fl_dataset a, b;
    unsigned char *bytes = cifar(5, 1);

    put_file("c.bin", bytes, 5 * RECORD);
    load(&s, &a);
    ck_assert(a.shape[0] == 3 && a.shape[1] == 32 && a.shape[2] == 32 && a.classes == 3);
    ck_assert(a.train.count == 5 && a.train.y[4] == 1);
    ck_assert(a.train.x[3072 + 1024] == (float)(unsigned char)(1024 + 7) / 255.0f);
    /* The folder of the archive: files in their order; a missing fifth one is no error. */
    put_file("data_batch_1.bin", bytes, 2 * RECORD);
    put_file("data_batch_2.bin", bytes + 2 * RECORD, 3 * RECORD);
    put_file("test_batch.bin", bytes, RECORD);
    snprintf(s.train_x, sizeof s.train_x, "%s", folder);
    load(&s, &b);
    same_data(&a, &b);
    fl_dataset_fini(&b);
    /* Larger than the memory there is: read where they lie, across both files. */
    s.memory = 1;
    load(&s, &b);
    ck_assert(b.train.stored && !b.train.x);
    same_data(&a, &b);
    fl_dataset_fini(&b);
    snprintf(s.test_x, sizeof s.test_x, "%s", folder);
    s.train = 3;
    load(&s, &b);
    ck_assert(b.train.count == 3 && b.test.count == 1 && b.test.stored && b.train.stored);
    fl_dataset_fini(&b);
    fl_dataset_fini(&a);
    /* gzip is not read where it lies: the examples go to a file without a name. */
    gzFile z = gzopen(path_in("c.bin.gz"), "wb");
    ck_assert_int_eq(gzwrite(z, bytes, 5 * RECORD), 5 * RECORD);
    gzclose(z);
    s = source(FL_DATA_CIFAR10, "c.bin.gz");
    load(&s, &a);
    s.memory = 1;
    load(&s, &b);
    ck_assert(b.train.x && b.train.x_mapped == 5 * 3072 * sizeof(float));
    same_data(&a, &b);
    fl_dataset_fini(&a);
    fl_dataset_fini(&b);
    snprintf(s.scratch, sizeof s.scratch, "%s/none", folder);
    expect_fail(&s, FL_R_STORE_IO, "none/.data-");
    fl_free(bytes);
}
END_TEST

START_TEST(test_cifar_that_is_not)
{
    struct fl_data_source s = source(FL_DATA_CIFAR10, "c.bin");
    unsigned char *bytes = cifar(3, 2);
    struct fl_dataset d;

    put_file("c.bin", bytes, 3 * 3074);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "c.bin: row 4: ends after 3 of 3073 bytes");
    put_file("c.bin", "", 0);
    expect_fail(&s, FL_R_DATA_TRUNCATED, "c.bin: empty");
    bytes[0] = 10;
    put_file("c.bin", bytes, RECORD);
    expect_fail(&s, FL_R_DATA_VALUE, "c.bin: row 1: class 10; CIFAR-10 has 0 to 9");
    s.format = FL_DATA_CIFAR100;
    put_file("c.bin", bytes, 3 * 3074);
    load(&s, &d);
    ck_assert(d.classes == 53 && d.train.y[0] == 50 && d.train.y[2] == 52);
    fl_dataset_fini(&d);
    /* A file that becomes shorter while it is in use is an error, not a signal. */
    s.memory = 1;
    load(&s, &d);
    float x[3072];
    ck_assert_int_eq(truncate(path_in("c.bin"), 3 * 3074 - 1), 0);
    ck_assert_int_eq(fl_examples_get(&d.train, 3072, 1, x, &err), 0);
    ck_assert_int_eq(fl_examples_get(&d.train, 3072, 2, x, &err), -FL_R_DATA_TRUNCATED);
    fl_dataset_fini(&d);
    fl_free(bytes);
}
END_TEST

/* ---- NumPy (files written by NumPy: golden/data/make_npy.py) ---- */

START_TEST(test_npy)
{
    struct fl_data_source s = golden("x_f4.npy", "y_class.npy");
    struct fl_dataset a, b;

    load(&s, &a);
    ck_assert(a.shape[0] == 2 && a.shape[1] == 2 && a.shape[2] == 2 && a.classes == 3);
    ck_assert(a.train.count == 3 && a.train.y[0] == 2 && a.train.y[2] == 1 && !a.train.target);
    for (int i = 0; i < 24; i++) {
        ck_assert(a.train.x[i] == (float)i / 8);
    }
    s = golden("x_f8_v2.npy", "y_class.npy");
    load(&s, &b);
    same_data(&a, &b);
    fl_dataset_fini(&b);
    s.memory = 1;
    load(&s, &b);
    ck_assert_ptr_nonnull(b.train.stored);
    same_data(&a, &b);
    fl_dataset_fini(&b);
    fl_dataset_fini(&a);
    s = golden("x_u1.npy", "y_number.npy");
    load(&s, &a);
    ck_assert(a.train.x[23] == 230.0f / 255.0f && !a.train.y && a.classes == 0);
    ck_assert(a.train.target_width == 2 && a.train.target[0] == 0.5f && a.train.target[5] == -1);
    char text[200];
    fl_dataset_describe(&a, text, sizeof text);
    ck_assert_msg(strstr(text, "2x2x2, 2 numbers to predict, digest ") &&
                      strstr(text, "train 3: mean 0.9167 in [-2, 4.25] mean 1 in [-1, 3]"),
                  "%s", text);
    fl_dataset_fini(&a);
    s = golden("x_i8.npy", "y_number.npy");
    s.train = 2;
    s.test = 1;
    load(&s, &a);
    ck_assert(a.train.count == 2 && a.test.count == 1 && a.test.target_width == 2);
    fl_dataset_fini(&a);
    s.partition = FL_PARTITION_DIRICHLET;
    s.alpha = 1;
    expect_fail(&s, FL_R_CONF_CONFLICT, "a partition by classes, but the targets are numbers");
    s.partition = FL_PARTITION_ALL;
    s.classes = 3;
    expect_fail(&s, FL_R_DATA_VALUE, "targets are numbers where 3 classes are stated");
}
END_TEST

/* What is written is what was read: classes and pixels, numbers to predict; a part that stays in
 * its file too. What NumPy makes of it, tests/e2e/test_experiments.sh asks. */
START_TEST(test_npy_out)
{
    static const char *const targets[] = {"y_class.npy", "y_number.npy"};
    struct fl_dataset a, b;

    for (int i = 0; i < 2; i++) {
        struct fl_data_source s = golden("x_f4.npy", targets[i]), t = source(FL_DATA_NPY, "");
        s.memory = i == 0 ? 1 : 0;
        load(&s, &a);
        ck_assert((a.train.stored != NULL) == (i == 0));
        ck_assert_msg(fl_npy_save_dataset(folder, "out", &a, &err) == 0, "%s", err.msg);
        snprintf(t.train_x, sizeof t.train_x, "%s", path_in("out-train-x.npy"));
        snprintf(t.train_y, sizeof t.train_y, "%s", path_in("out-train-y.npy"));
        load(&t, &b);
        same_data(&a, &b);
        ck_assert(a.train.target_width == b.train.target_width && a.classes == b.classes);
        for (uint32_t k = 0; i == 1 && k < 3 * a.train.target_width; k++) {
            ck_assert(a.train.target[k] == b.train.target[k]);
        }
        ck_assert_int_ne(access(path_in("out-test-x.npy"), F_OK), 0);
        ck_assert(unlink(t.train_x) == 0 && unlink(t.train_y) == 0);
        fl_dataset_fini(&a);
        fl_dataset_fini(&b);
    }
    struct fl_data_source s = golden("x_f4.npy", "y_class.npy");
    load(&s, &a);
    ck_assert_int_eq(fl_npy_save_dataset("/dev/full/no", "out", &a, &err), -FL_R_STORE_IO);
    fl_dataset_fini(&a);
}
END_TEST

START_TEST(test_npy_that_is_refused)
{
    struct fl_data_source s = golden("x_big_endian.npy", "y_class.npy");
    static const struct {
        const char *header;
        int reason;
        const char *part;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", FL_R_DATA_FORMAT, "a single"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }", FL_R_DATA_FORMAT, "nothing"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }", FL_R_DATA_FORMAT,
         "too many"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9999999, 9999999), }",
         FL_R_DATA_FORMAT, "an example of more than"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, x)}", FL_R_DATA_FORMAT, "a shape"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", FL_R_DATA_FORMAT, "'|O'"},
        {"{'fortran_order': False, 'shape': (3,), }", FL_R_DATA_FORMAT, "missing"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", FL_R_DATA_TRUNCATED,
         "ends after"},
    };

    expect_fail(&s, FL_R_DATA_FORMAT, "descr '>f4'");
    s = golden("x_fortran.npy", "y_class.npy");
    expect_fail(&s, FL_R_DATA_FORMAT, "not in C order");
    s = golden("y_class.npy", "x_f4.npy");
    expect_fail(&s, FL_R_DATA_FORMAT, "are wanted");
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        char bytes[256] = "\x93NUMPY\x01";
        size_t size = strlen(cases[i].header);
        bytes[8] = (char)size;
        memcpy(bytes + 10, cases[i].header, size);
        put_file("x.npy", bytes, 10 + size);
        s = golden("", "y_class.npy");
        snprintf(s.train_x, sizeof s.train_x, "%s", path_in("x.npy"));
        expect_fail(&s, cases[i].reason, cases[i].part);
    }
    float nan_[2] = {1, NAN};
    char head[] =
        "\x93NUMPY\x01\0\x3c\0{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }   ";
    char all[sizeof head - 1 + sizeof nan_];
    memcpy(all, head, sizeof head - 1);
    memcpy(all + sizeof head - 1, nan_, sizeof nan_);
    head[8] = all[8] = (char)(sizeof head - 1 - 10);
    put_file("x.npy", all, sizeof all);
    snprintf(s.train_x, sizeof s.train_x, "%s", path_in("x.npy"));
    snprintf(s.train_y, sizeof s.train_y, "%s", path_in("x.npy"));
    expect_fail(&s, FL_R_DATA_TARGET, "x.npy: row 2: a target that is not a number");
}
END_TEST

/* ---- dates, hashes ---- */

START_TEST(test_dates)
{
    struct fl_date d;
    static const char *const wrong[] = {
        "",           "2011-1-01",        "2011-13-01",       "2011-02-29",          "2100-02-29",
        "2011-01-00", "2011-01-01 24:00", "2011-01-01 10:60", "2011-01-01 10:00:60", "2011-01-01x",
        "0000-01-01", "01/02/2011",       "2011-01-01 10"};

    ck_assert(fl_date_parse("1970-01-01", &d) && d.days == 0 && d.weekday == 3 && d.yearday == 0);
    ck_assert(fl_date_parse("2000-02-29", &d) && d.days == 11016 && d.weekday == 1);
    ck_assert(fl_date_parse("2011-01-01 06:00", &d) && d.days == 14975.25 && d.weekday == 5);
    ck_assert(fl_date_parse("2012-12-31T23:59:59.5Z", &d) && d.yearday == 365 && d.hour == 23);
    ck_assert(fl_date_parse("1969-12-31", &d) && d.days == -1 && d.weekday == 2);
    for (size_t i = 0; i < FL_COUNT(wrong); i++) {
        ck_assert_msg(!fl_date_parse(wrong[i], &d), "%s", wrong[i]);
    }
    /* FNV-1a's published vectors: a job's buckets are the same at every site and for ever. */
    ck_assert_uint_eq(fl_encode_hash(""), 0xcbf29ce484222325u);
    ck_assert_uint_eq(fl_encode_hash("a"), 0xaf63dc4c8601ec8cu);
    ck_assert_uint_eq(fl_encode_hash("foobar"), 0x85944171f73967e8u);
}
END_TEST

/* ---- tables ---- */

static const char small[] =
    "columns:\n"
    "  - numeric: {name: price, min: 0, max: 10, mean: 4, std: 2, missing: 6}\n"
    "  - category: {name: kind, values: [a, 'b c', ''], buckets: 2}\n"
    "  - category: {name: size, values: [S, L], onehot: true}\n"
    "  - datetime: {name: day, parts: [month, weekday], as: code}\n"
    "  - datetime: {name: when, parts: [hour], as: cyclic}\n"
    "target: {category: {name: sold, values: ['no', 'yes']}}\n";

START_TEST(test_a_row_becomes_numbers)
{
    struct fl_data_source s = source(FL_DATA_CSV, "t.csv");
    struct fl_dataset d;

    ck_assert_msg(parse(small) == 0, "%s", err.msg);
    ck_assert_uint_eq(schema.features, 8);
    s.schema = &schema;
    s.rename_count = 1;
    strcpy(s.rename[0].job, "price");
    strcpy(s.rename[0].site, "Preis");
    put_text("t.csv", "sold,day,when,size,kind,Preis,other\n"
                      "yes,2011-01-01,2011-01-01 06:00,L,a,2,x\n"
                      "no,2011-02-02,2011-01-01 00:00,S,,99,\"x,y\"\n"
                      "no,2011-02-02,2011-01-01 00:00,S,foobar,,x\n");
    load(&s, &d);
    ck_assert(d.classes == 2 && d.train.count == 3 && d.shape[0] == 8);
    ck_assert(d.train.y[0] == 1 && d.train.y[1] == 0);
    const float want[3][8] = {
        {-1, 0, 0, 1, 0, 5, 1, 0},
        {3, 2, 1, 0, 1, 2, 0, 1},
        {1, 3 + (float)(0x85944171f73967e8u % 2), 1, 0, 1, 2, 0, 1},
    };
    for (int i = 0; i < 24; i++) {
        ck_assert_float_eq_tol(d.train.x[i], want[i / 8][i % 8], 1e-7f);
    }
    /* Another job on the same rows: the same data to the ledger. */
    struct fl_dataset other;
    ck_assert_int_eq(parse("columns: [{category: {name: size, values: [S, L]}}]\n"
                           "target: {numeric: {name: Preis, min: 0, max: 1, missing: 0}}\n"),
                     -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse("columns: [{category: {name: size, values: [S, L]}}]\n"
                           "target: {category: {name: kind, values: [a, '', foobar]}}\n"),
                     0);
    expect_fail(&s, FL_R_DATA_TARGET, "t.csv:3: column kind");
    ck_assert_int_eq(parse("columns: [{category: {name: kind, values: [a], buckets: 1}}]\n"
                           "target: {category: {name: size, values: [S, L]}}\n"),
                     0);
    load(&s, &other);
    ck_assert(other.shape[0] == 1 && fl_digest_equal(&d.identity, &other.identity));
    ck_assert(!fl_digest_equal(&d.digest, &other.digest));
    fl_dataset_fini(&other);
    fl_dataset_fini(&d);
}
END_TEST

START_TEST(test_rows_that_do_not_fit)
{
    struct fl_data_source s = source(FL_DATA_CSV, "t.csv");
    static const struct {
        const char *row;
        int reason;
        const char *part;
    } cases[] = {
        {"yes,2011-01-01,2011-01-01 06:00,M,a,2", FL_R_DATA_CATEGORY,
         "t.csv:3: column size: \"M\" is not in the job's dictionary"},
        {"perhaps,2011-01-01,2011-01-01 06:00,S,a,2", FL_R_DATA_CATEGORY, "t.csv:3: column sold"},
        {",2011-01-01,2011-01-01 06:00,S,a,2", FL_R_DATA_TARGET,
         "t.csv:3: column sold: \"\" is not a class"},
        {"yes,1.1.2011,2011-01-01 06:00,S,a,2", FL_R_DATA_VALUE,
         "t.csv:3: column day: \"1.1.2011\" is not a date"},
        {"yes,2011-01-01,2011-01-01 06:00,S,a,dear", FL_R_DATA_VALUE,
         "t.csv:3: column price: \"dear\" is not a finite number"},
        {"yes,2011-01-01,2011-01-01 06:00,S,a", FL_R_DATA_RAGGED,
         "t.csv:3: 5 fields where the first row has 6"},
        {"yes,2011-01-01,2011-01-01 06:00,S,f\xfcr,2", FL_R_DATA_ENCODING,
         "t.csv:3: column kind: byte 0xfc is not UTF-8"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xc0\xaf,2", FL_R_DATA_ENCODING, "byte 0xc0"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xed\xa0\x80,2", FL_R_DATA_ENCODING, "byte 0xed"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xe2\x82,2", FL_R_DATA_ENCODING, "byte 0xe2"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xe2\x82\xac,2", 0, NULL},
    };

    ck_assert_int_eq(parse(small), 0);
    s.schema = &schema;
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "sold,day,when,size,kind,price\nno,2011-01-01,2011-01-01 06:00,S,a,1\n%s\n",
                 cases[i].row);
        put_text("t.csv", text);
        if (cases[i].reason) {
            expect_fail(&s, cases[i].reason, cases[i].part);
        } else {
            struct fl_dataset d;
            load(&s, &d);
            ck_assert_int_eq(fl_dataset_batch(&d, 2, &err), 0);
            ck_assert_int_eq(fl_dataset_batch(&d, 3, &err), -FL_R_DATA_BATCH);
            ck_assert_str_eq(err.msg, "a batch of 3 of 2 training examples");
            fl_dataset_fini(&d);
        }
    }
    put_text("t.csv", "sold,day,size,kind,price\nno,2011-01-01,S,a,1\n");
    expect_fail(&s, FL_R_DATA_COLUMN, "t.csv:1: no column is named when");
    /* Another client's rows are not judged, and an empty partition has a name. */
    put_text("t.csv", "shop,sold,day,when,size,kind,price\n"
                      "A,no,2011-01-01,2011-01-01 06:00,S,a,1\nB,,x,x,M,a,x\n");
    s.partition = FL_PARTITION_COLUMN;
    strcpy(s.column, "shop");
    strcpy(s.client_text, "A");
    struct fl_dataset d;
    load(&s, &d);
    ck_assert_uint_eq(d.train.count, 1);
    fl_dataset_fini(&d);
    strcpy(s.client_text, "C");
    expect_fail(&s, FL_R_DATA_EMPTY, "t.csv: no training examples for client");
}
END_TEST

START_TEST(test_schemas_that_are_refused)
{
    static const struct {
        const char *text;
        int reason;
        const char *part;
    } cases[] = {
        {"columns: []\ntarget: {numeric: {name: y, min: 0, max: 1}}", FL_R_CONF_TYPE, "1 to 128"},
        {"columns: [{numeric: {name: a, min: 1, max: 1}}]\ntarget: {}", FL_R_CONF_CONFLICT,
         "min must be below max"},
        {"columns: [{numeric: {name: a, min: 0}}]\ntarget: {}", FL_R_CONF_MISSING, "max"},
        {"columns: [{word: {name: a}}]\ntarget: {}", FL_R_CONF_UNKNOWN, "word"},
        {"columns: [{category: {name: a, values: [x, x]}}]\ntarget: {}", FL_R_CONF_DUPLICATE,
         "x stands here twice"},
        {"columns: [{datetime: {name: a, parts: [century]}}]\ntarget: {}", FL_R_CONF_TYPE, "year"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}, {numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {}",
         FL_R_CONF_DUPLICATE, "a second column a"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {numeric: {name: a, min: 0, max: 1}}",
         FL_R_CONF_CONFLICT, "see what it is to predict"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {category: {name: b, values: [x, y], buckets: 1}}",
         FL_R_CONF_CONFLICT, "a target is numeric"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {numeric: {name: b, min: 0, max: 1}}\n"
         "window: {steps: 2, time: t, cut: soon}",
         FL_R_CONF_TYPE, "a number, or a date"},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        int r = parse(cases[i].text);
        ck_assert_msg(r == -cases[i].reason && strstr(err.msg, cases[i].part), "%zu: %d %s", i, r,
                      err.msg);
    }
}
END_TEST

/* ---- windows ---- */

static const char weekly[] = "columns:\n"
                             "  - numeric: {name: p, min: 0, max: 1000}\n"
                             "target: {numeric: {name: y, min: 0, max: 1000}}\n"
                             "window: {steps: 3, ahead: 1, time: t, series: [s], cut: 6, gap: 2, "
                             "every: 1}\n";

START_TEST(test_windows)
{
    struct fl_data_source s = source(FL_DATA_CSV, "w.csv");
    struct fl_dataset d, e;
    char text[1024] = "t,s,p,y\n";
    float x[3];

    /* Two series, written in a bad order; the second lacks time 5. */
    for (int t = 9; t >= 1; t--) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%d,A,%d,%d\n", t, 10 + t, 100 + t);
        at = strlen(text);
        if (t != 5) {
            snprintf(text + at, sizeof text - at, "%d,B,%d,%d\n", t, 20 + t, 200 + t);
        }
    }
    put_text("w.csv", text);
    ck_assert_msg(parse(weekly) == 0, "%s", err.msg);
    s.schema = &schema;
    load(&s, &d);
    /* A: targets at 4, 5 train, 8, 9 test; B: 4 trains, 9 tests (6, 7, 8 -> 9). */
    ck_assert_uint_eq(d.train.count, 3);
    ck_assert_uint_eq(d.test.count, 3);
    ck_assert(d.shape[0] == 1 && d.shape[1] == 3 && d.shape[2] == 1 && d.classes == 0);
    ck_assert(d.rows_held == 17 * sizeof(float) && d.rows_mapped == 0);
    float sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_int_eq(fl_examples_get(&d.train, 3, i, x, &err), 0);
        ck_assert(x[1] == x[0] + 1 && x[2] == x[0] + 2);
        float base = x[0] < 20 ? 90 : 180;
        ck_assert(d.train.target[i] == x[2] + 1 + base);
        sum += d.train.target[i];
    }
    ck_assert(sum == 104 + 105 + 204);
    sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        sum += d.test.target[i];
    }
    ck_assert(sum == 108 + 109 + 209);
    s.memory = 1;
    load(&s, &e);
    ck_assert(e.rows_mapped > 0 && e.rows_held == 0);
    same_data(&d, &e);
    fl_dataset_fini(&e);
    fl_dataset_fini(&d);
    /* Several ahead. */
    schema.window.ahead = 2;
    s.memory = 0;
    load(&s, &d);
    ck_assert(d.train.count == 1 && d.train.target_width == 2 && d.train.target[0] == 104 &&
              d.train.target[1] == 105);
    ck_assert(d.test.count == 1 && d.test.target[0] == 108);
    fl_dataset_fini(&d);
    /* The last row itself. */
    schema.window.ahead = 0;
    load(&s, &d);
    ck_assert(d.train.count == 5 && d.train.target_width == 1);
    fl_dataset_fini(&d);
    schema.window.steps = 9;
    expect_fail(&s, FL_R_DATA_EMPTY, "no window of 9 steps");
    schema.window.steps = 3;
    put_text("w.csv", "t,s,p,y\n1,A,1,1\n2,A,1,1\n1,A,2,2\n");
    expect_fail(&s, FL_R_DATA_VALUE,
                "w.csv:4: column t: the same time of the same series as line 2");
    put_text("w.csv", "t,s,p,y\n2011-01-01,A,1,1\n");
    expect_fail(&s, FL_R_DATA_VALUE, "w.csv:2: column t: \"2011-01-01\" is not a finite number");
    snprintf(s.test_x, sizeof s.test_x, "x");
    s.partition = FL_PARTITION_COLUMN;
}
END_TEST

static void load_some(const struct fl_data_source *s)
{
    for (uint64_t n = 1;; n++) {
        struct fl_dataset d = {0};
        memset(&err, 0, sizeof err);
        fl_mem_fail_at(n);
        int r = fl_dataset_load(s, &d, &err);
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        fl_dataset_fini(&d);
        ck_assert_msg(hit ? r == -FL_R_NOMEM : r == 0, "allocation %lu: %d %s", (unsigned long)n, r,
                      err.msg);
        if (!hit) {
            ck_assert_uint_gt(n, 5);
            return;
        }
    }
}

START_TEST(test_every_allocation_may_fail)
{
    struct fl_data_source s = golden("x_f4.npy", "y_number.npy");

    load_some(&s);
    s.memory = 1;
    load_some(&s);
    s = source(FL_DATA_CSV, "w.csv");
    ck_assert_int_eq(parse(weekly), 0);
    s.schema = &schema;
    put_text("w.csv", "t,s,p,y\n1,A,1,1\n2,A,1,1\n3,A,2,2\n4,A,2,2\n8,A,3,3\n");
    load_some(&s);
    schema.window.steps = 0;
    load_some(&s);
}
END_TEST

/* ---- what the ledger calls a data set ---- */

/* Loads, remembers the identity of the first and compares with it. */
static bool same_identity(const struct fl_data_source *s, struct fl_digest *first)
{
    struct fl_dataset d;

    load(s, &d);
    bool same = fl_digest_is_zero(first) || fl_digest_equal(first, &d.identity);
    *first = fl_digest_is_zero(first) ? d.identity : *first;
    fl_dataset_fini(&d);
    return same;
}

/* One table without a schema, with one, with windows, with and without a test part, in whatever
 * sizes and drawn by whatever seed: one budget. */
START_TEST(test_a_table_has_one_identity)
{
    struct fl_data_source s = source(FL_DATA_CSV, "w.csv");
    struct fl_digest first = {{0}};
    const char *rows = "t,s,p,y\n1,7,11,1\n2,7,12,0\n3,7,13,1\n4,7,14,0\n5,7,15,1\n9,7,16,0\n";

    put_text("w.csv", rows);
    put_text("t.csv", "t,s,p,y\n1,1,1,3\n2,2,2,0\n");
    strcpy(s.target, "y");
    ck_assert(same_identity(&s, &first));
    s.test = 2;
    s.seed = 5;
    ck_assert(same_identity(&s, &first));
    s.train = 3;
    s.classes = 9;
    ck_assert(same_identity(&s, &first));
    s.validation = 1;
    ck_assert(same_identity(&s, &first));
    snprintf(s.test_x, sizeof s.test_x, "%s/t.csv", folder);
    ck_assert(same_identity(&s, &first));
    s = source(FL_DATA_CSV, "w.csv");
    s.schema = &schema;
    ck_assert_int_eq(parse("columns: [{numeric: {name: p, min: 0, max: 9}}]\n"
                           "target: {numeric: {name: y, min: 0, max: 1}}\n"),
                     0);
    ck_assert(same_identity(&s, &first));
    ck_assert_int_eq(parse("columns: [{numeric: {name: p, min: 0, max: 9}}]\n"
                           "target: {numeric: {name: y, min: 0, max: 1}}\n"
                           "window: {steps: 2, ahead: 1, time: t, series: [s], cut: 5, gap: 1}\n"),
                     0);
    ck_assert(same_identity(&s, &first));
    s.partition = FL_PARTITION_COLUMN;
    strcpy(s.column, "s");
    strcpy(s.client_text, "7");
    ck_assert(same_identity(&s, &first));
    /* one field of one row is another data set, and so is one row less */
    s.partition = FL_PARTITION_ALL;
    put_text("w.csv", "t,s,p,y\n1,7,11,1\n2,7,12,0\n3,7,13,1\n4,7,14,0\n5,7,15,1\n9,7,17,0\n");
    ck_assert(!same_identity(&s, &first));
    put_text("w.csv", "t,s,p,y\n1,7,11,1\n2,7,12,0\n3,7,13,1\n4,7,14,0\n5,7,15,1\n");
    ck_assert(!same_identity(&s, &first));
}
END_TEST

/* Files of records: the same, and where they are kept makes no difference. */
START_TEST(test_records_have_one_identity)
{
    struct fl_data_source s = source(FL_DATA_CIFAR10, "c.bin");
    struct fl_digest first = {{0}};
    unsigned char *all = cifar(12, 1);

    put_file("c.bin", all, 12 * RECORD);
    put_file("test_batch.bin", all, 3 * RECORD);
    ck_assert(same_identity(&s, &first));
    s.test = 4;
    ck_assert(same_identity(&s, &first));
    s.memory = 1;
    s.train = 2;
    ck_assert(same_identity(&s, &first));
    s.validation = 1;
    ck_assert(same_identity(&s, &first));
    snprintf(s.test_x, sizeof s.test_x, "%s/test_batch.bin", folder);
    ck_assert(same_identity(&s, &first));
    s.classes = 10;
    ck_assert(same_identity(&s, &first));
    all[11 * RECORD]++; /* a label */
    put_file("c.bin", all, 12 * RECORD);
    ck_assert(!same_identity(&s, &first));
    all[11 * RECORD]--;
    all[5 * RECORD + 17]++; /* a pixel, whether this row trains now or not */
    put_file("c.bin", all, 12 * RECORD);
    ck_assert(!same_identity(&s, &first));
    fl_free(all);
}
END_TEST

/* The folder's clocks are too coarse to tell, so it is the bytes that are compared. */
START_TEST(test_a_file_rewritten_in_place_is_noticed)
{
    struct fl_data_source s = source(FL_DATA_CIFAR10, "c.bin");
    struct fl_dataset d;
    unsigned char *all = cifar(12, 1);
    static float x[3072];

    put_file("c.bin", all, 12 * RECORD);
    s.memory = 1;
    load(&s, &d);
    ck_assert_ptr_nonnull(d.train.stored);
    ck_assert_int_eq(fl_examples_get(&d.train, 3072, 7, x, &err), 0);
    all[7 * RECORD + 100] ^= 1;
    put_file("c.bin", all, 12 * RECORD); /* truncated and written: the same inode */
    ck_assert_int_eq(fl_examples_get(&d.train, 3072, 6, x, &err), 0);
    ck_assert_int_eq(fl_examples_get(&d.train, 3072, 7, x, &err), -FL_R_DATA_CHANGED);
    ck_assert_ptr_nonnull(strstr(err.msg, "c.bin: row 8 was rewritten while it was in use"));
    fl_dataset_fini(&d);
    fl_free(all);
}
END_TEST

START_TEST(test_a_table_rewritten_between_two_passes_is_noticed)
{
    const char *rows = "a,y\n1,0\n2,1\n3,0\n";
    struct {
        const char *text;
        int status;
    } cases[] = {
        {"a,y\n1,0\n2,1\n3,0\n", 0},
        {"a,y\n1,0\n2,1\n4,0\n", -FL_R_DATA_CHANGED}, /* a row that is not even wanted */
        {"a,y\n1,1\n2,1\n3,0\n", -FL_R_DATA_CHANGED}, /* a target: it was read in the first pass */
        {"a,y\n1,0\n2,1\n", -FL_R_DATA_CHANGED},
        {"a,y\n1,0\n2,1\n3,0\n3,0\n", -FL_R_DATA_CHANGED},
        {"a,b,y\n1,1,0\n2,1,1\n3,1,0\n", -FL_R_DATA_CHANGED},
    };
    const uint8_t marks[] = {1, 1, 1};

    source(FL_DATA_CSV, "t.csv");
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_table t = {0};
        struct fl_hash h;
        float x = 0;
        struct fl_pick pick = {.row = 0, .to = &x};
        struct fl_wanted wanted = {&pick, 1, marks, &h};
        put_text("t.csv", rows);
        ck_assert_int_eq(fl_csv_scan(path_in("t.csv"), "y", "", &t, &err), 0);
        put_text("t.csv", cases[i].text);
        fl_hash_init(&h);
        ck_assert_int_eq(fl_csv_read(path_in("t.csv"), "y", "", &t, &wanted, &err),
                         cases[i].status);
        fl_table_fini(&t);
    }
}
END_TEST

START_TEST(test_folder_is_left_clean)
{
    const char *names[] = {"c.bin",
                           "data_batch_1.bin",
                           "data_batch_2.bin",
                           "test_batch.bin",
                           "c.bin.gz",
                           "x.npy",
                           "t.csv",
                           "w.csv"};

    for (size_t i = 0; folder[0] && i < FL_COUNT(names); i++) {
        unlink(path_in(names[i]));
    }
    ck_assert_int_eq(folder[0] ? rmdir(folder) : 0, 0);
}
END_TEST

TESTS_MAIN("tables", test_cifar, test_cifar_that_is_not, test_npy, test_npy_out,
           test_npy_that_is_refused, test_dates, test_a_row_becomes_numbers,
           test_rows_that_do_not_fit, test_schemas_that_are_refused, test_windows,
           test_a_table_has_one_identity, test_records_have_one_identity,
           test_a_file_rewritten_in_place_is_noticed,
           test_a_table_rewritten_between_two_passes_is_noticed, test_every_allocation_may_fail,
           test_folder_is_left_clean)
