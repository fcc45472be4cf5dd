/* Data files of a test, in a folder of the program's own that is empty again at its end, and what
 * loading them gives. */
#ifndef TESTS_LIB_DATA_FILES_H
#define TESTS_LIB_DATA_FILES_H

#include "client/data/dataset.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static struct fl_err err; /* of the last thing that failed */
static char folder[64];

/* Valid until the fourth call after it. */
static const char *path_in(const char *name)
{
    static char path[4][128];
    static int turn;

    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/test_data_XXXXXX");
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

static inline void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

/* mode: "wb", or "ab" for a member more */
static inline void put_gzip(const char *name, const void *bytes, size_t size, const char *mode)
{
    gzFile z = gzopen(path_in(name), mode);
    ck_assert_ptr_nonnull(z);
    ck_assert_int_eq(gzwrite(z, bytes, (unsigned)size), (int)size);
    ck_assert_int_eq(gzclose(z), Z_OK);
}

/* All rows of a file of the folder. */
static struct fl_data_source source(enum fl_data_format format, const char *x)
{
    struct fl_data_source s = {.format = format, .of = 1};

    snprintf(s.train_x, sizeof s.train_x, "%s", path_in(x));
    snprintf(s.scratch, sizeof s.scratch, "%s", folder);
    return s;
}

static inline void load(const struct fl_data_source *s, struct fl_dataset *ret)
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

/* The same data wherever they are kept: digest and every example. */
static inline void same_data(const struct fl_dataset *a, const struct fl_dataset *b)
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

/* Loads with every allocation failing in turn. */
static inline void load_without_memory(const struct fl_data_source *s)
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

/* Loads, remembers the identity of the first and compares with it. */
static inline bool same_identity(const struct fl_data_source *s, struct fl_digest *first)
{
    struct fl_dataset d;

    load(s, &d);
    bool same = fl_digest_is_zero(first) || fl_digest_equal(first, &d.identity);
    *first = fl_digest_is_zero(first) ? d.identity : *first;
    fl_dataset_fini(&d);
    return same;
}

/* The last test of a program: the files named are all that is in the folder. */
static inline void expect_only(const char *const *names, size_t count)
{
    for (size_t i = 0; folder[0] && i < count; i++) {
        unlink(path_in(names[i]));
    }
    ck_assert_int_eq(folder[0] ? rmdir(folder) : 0, 0);
}

#endif
