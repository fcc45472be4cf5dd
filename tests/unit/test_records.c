/* Files of records: CIFAR and NumPy, read into memory or where they lie. */
#include "client/data/dataset.h"
#include "client/data/npy_out.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"
#include "tests/lib/data_files.h"

#include <math.h>

static struct fl_data_source golden(const char *x, const char *y)
{
    struct fl_data_source s = source(FL_DATA_NPY, "");

    snprintf(s.train_x, sizeof s.train_x, TEST_SOURCE_ROOT "/tests/golden/data/%s", x);
    snprintf(s.train_y, sizeof s.train_y, TEST_SOURCE_ROOT "/tests/golden/data/%s", y);
    return s;
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

START_TEST(test_every_allocation_may_fail)
{
    struct fl_data_source s = golden("x_f4.npy", "y_number.npy");

    load_without_memory(&s);
    s.memory = 1;
    load_without_memory(&s);
}
END_TEST

/* ---- what the ledger calls a data set ---- */

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

START_TEST(test_folder_is_left_clean)
{
    static const char *const names[] = {"c.bin",          "data_batch_1.bin", "data_batch_2.bin",
                                        "test_batch.bin", "c.bin.gz",         "x.npy"};

    expect_only(names, FL_COUNT(names));
}
END_TEST

TESTS_MAIN("records", test_cifar, test_cifar_that_is_not, test_npy, test_npy_out,
           test_npy_that_is_refused, test_records_have_one_identity,
           test_a_file_rewritten_in_place_is_noticed, test_every_allocation_may_fail,
           test_folder_is_left_clean)
