#include "common/base/mem.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct fl_tensors table = {
    .count = 2,
    .elements = 7,
    .at = {{.name = "fc1.weight", .rank = 2, .shape = {2, 3}, .count = 6, .offset = 0},
           {.name = "fc1.bias", .rank = 1, .shape = {1}, .count = 1, .offset = 6}}};
static const float values[7] = {1, -2, 3.5f, 0, 1e-30f, -0.0f, 7};

/* A file as another program may write it: header text and 28 bytes of data. */
static size_t make(uint8_t *to, const char *header, size_t data)
{
    size_t n = strlen(header);

    memset(to, 0, 8 + n + data);
    to[0] = (uint8_t)n;
    to[1] = (uint8_t)(n >> 8);
    memcpy(to + 8, header, n);
    return 8 + n + data;
}

START_TEST(test_what_is_written_is_read_back_bit_for_bit)
{
    uint8_t *bytes, *again;
    size_t size, again_size;
    float back[7];

    ck_assert_int_eq(fl_tensors_write(&table, values, &bytes, &size, NULL), 0);
    ck_assert_int_eq(fl_tensors_write(&table, values, &again, &again_size, NULL), 0);
    ck_assert_uint_eq(size, again_size);
    ck_assert_mem_eq(bytes, again, size);
    ck_assert_int_eq(fl_tensors_read(bytes, size, &table, back, NULL), 0);
    ck_assert_mem_eq(values, back, sizeof values);
    ck_assert_uint_eq(size % 4, 0);
    fl_free(bytes);
    fl_free(again);
}
END_TEST

START_TEST(test_another_order_and_metadata_are_fine)
{
    uint8_t file[1024];
    float back[7];
    size_t n = make(file,
                    "{\"__metadata__\":{\"by\":\"someone\"},"
                    "\"fc1.bias\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                    "\"fc1.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]}}",
                    28);
    memcpy(file + n - 28, &values[6], 4);
    memcpy(file + n - 24, values, 24);
    ck_assert_int_eq(fl_tensors_read(file, n, &table, back, NULL), 0);
    ck_assert_mem_eq(values, back, sizeof values);
}
END_TEST

START_TEST(test_damage_and_lies_are_refused)
{
#define BIAS "\"fc1.bias\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[24,28]}"
    static const char *const bad[] = {
        "[1]",
        "{" BIAS "}",
        "{" BIAS ",\"fc1.weight\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,24]}}",
        "{" BIAS ",\"fc1.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]}}",
        "{" BIAS ",\"fc1.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]}}",
        "{" BIAS ",\"fc1.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]}}",
        "{" BIAS ",\"fc1.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[-4,20]}}",
        "{" BIAS ",\"fc2.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}",
        "{" BIAS ",\"fc1.weight\":[]}",
        "{" BIAS "," BIAS "}",
        "{",
    };
    uint8_t file[1024];
    float back[7];
    struct fl_err e;

    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        size_t n = make(file, bad[i], 28);
        ck_assert_msg(fl_tensors_read(file, n, &table, back, &e) == -FL_R_TENSORS, "%s", bad[i]);
    }
    ck_assert_int_eq(fl_tensors_read(file, 7, &table, back, &e), -FL_R_TENSORS);
    memset(file, 0xff, 16);
    ck_assert_int_eq(fl_tensors_read(file, 16, &table, back, &e), -FL_R_TENSORS);
}
END_TEST

START_TEST(test_every_cut_and_every_flipped_header_bit_is_survived)
{
    uint8_t *bytes;
    size_t size;
    float back[7];

    ck_assert_int_eq(fl_tensors_write(&table, values, &bytes, &size, NULL), 0);
    for (size_t n = 0; n < size; n++) {
        ck_assert_int_eq(fl_tensors_read(bytes, n, &table, back, NULL), -FL_R_TENSORS);
    }
    for (size_t bit = 0; bit < (size - 28) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        fl_tensors_read(bytes, size, &table, back, NULL); /* must not read outside */
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(fl_tensors_read(bytes, size, &table, back, NULL), 0);
    fl_free(bytes);
}
END_TEST

static const struct fl_meta meta[] = {{"job", "demo"}, {"note", "a \"quote\", a \\ and\na line"}};

static void refused(const char *header, size_t data, const char *says)
{
    uint8_t bytes[1024] = {0};
    size_t n = strlen(header);
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    struct fl_err e = {0};

    bytes[0] = (uint8_t)n;
    bytes[1] = (uint8_t)(n >> 8);
    memcpy(bytes + 8, header, n);
    ck_assert_int_eq(fl_tensor_file_view(bytes, 8 + n + data, f, &e), -FL_R_TENSORS);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' lacks '%s'", e.msg, says);
    fl_free(f);
}

#define ENTRY(shape, from, to)                                                                     \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

START_TEST(test_hostile_headers_are_refused)
{
    refused("[]", 0, "no JSON object");
    refused("{", 0, "no JSON object");
    refused("{\"a\":1}", 0, "an entry has");
    refused("{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "only F32");
    refused("{\"a\":" ENTRY("[1,1,1,1,1]", 0, 4) "}", 4, "up to 4");
    refused("{\"a\":" ENTRY("[0]", 0, 0) "}", 0, "a side");
    refused("{\"a\":" ENTRY("[-1]", 0, 4) "}", 4, "a side");
    refused("{\"a\":" ENTRY("[65536,65536,65536,65536]", 0, 4) "}", 4, "a side");
    refused("{\"a\":" ENTRY("[1.0]", 0, 4) "}", 4, "a side");
    refused("{\"a\":" ENTRY("[1]", 0, 8) "}", 8, "data_offsets");
    refused("{\"a\":" ENTRY("[1]", 4, 8) "}", 8, "gap");
    refused("{\"a\":" ENTRY("[2]", 0, 8) ",\"b\":" ENTRY("[1]", 4, 8) "}", 8, "overlap");
    refused("{\"a\":" ENTRY("[1]", 0, 4) ",\"a\":" ENTRY("[1]", 4, 8) "}", 8, "duplicate");
    refused("{\"a\":" ENTRY("[1]", 0, 4) "}", 12, "describes 4");
    refused("{\"__metadata__\":[]}", 0, "__metadata__");
    refused("{\"__metadata__\":{\"a\":2}}", 0, "__metadata__");
    refused("{\"a123456789a123456789a123456789a123456789a123456789a123456789a123\":" ENTRY("[1]", 0,
                                                                                           4) "}",
            4, "63");
}
END_TEST

/* Metadata and files, and what is not a file. */
START_TEST(test_files)
{
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    struct fl_err e = {0};
    char path[64];
    float back[7];

    snprintf(path, sizeof path, "/tmp/test_tensors.%d", (int)getpid());
    ck_assert_int_eq(fl_tensors_save(path, &table, values, meta, 2, &e), 0);
    ck_assert_int_eq(fl_tensor_file_open(path, 1 << 20, f, &e), 0);
    ck_assert_str_eq(fl_tensor_file_meta(f, "note"), meta[1].value);
    ck_assert_ptr_null(fl_tensor_file_meta(f, "none"));
    ck_assert_int_eq(fl_tensor_file_take(f, &table, back, &e), 0);
    ck_assert_mem_eq(values, back, sizeof values);
    ck_assert_uint_eq(fl_tensors_find(&f->table, "fc1.weight")->shape[1], 3);
    ck_assert_ptr_null(fl_tensors_find(&f->table, "fc1"));
    fl_tensor_file_close(f);
    ck_assert_int_eq(fl_tensor_file_open(path, 100, f, &e), -FL_R_TENSORS);
    ck_assert_int_eq(truncate(path, 200), 0);
    ck_assert_int_eq(fl_tensor_file_open(path, 1 << 20, f, &e), -FL_R_TENSORS);
    ck_assert_int_eq(strncmp(e.msg, path, strlen(path)), 0);
    unlink(path);
    ck_assert_int_eq(fl_tensor_file_open(path, 1 << 20, f, &e), -FL_R_DATA_OPEN);
    ck_assert_int_eq(fl_tensor_file_open("/dev", 1 << 20, f, &e), -FL_R_TENSORS);
    ck_assert_int_eq(fl_tensors_save("/nowhere/x", &table, values, NULL, 0, &e), -FL_R_SYS);
    fl_free(f);
}
END_TEST

START_TEST(test_memory_may_end)
{
    bool hit = true;

    for (uint64_t n = 1; hit; n++) {
        uint8_t *bytes = NULL;
        size_t size;
        float back[7];
        ck_assert_uint_lt(n, 100);
        fl_mem_fail_at(n);
        int r = fl_tensors_write(&table, values, &bytes, &size, NULL);
        if (r == 0) {
            r = fl_tensors_read(bytes, size, &table, back, NULL);
        }
        hit = fl_mem_fail_hit();
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        fl_free(bytes);
    }
    fl_mem_fail_at(0);
}
END_TEST

TESTS_MAIN("tensors", test_what_is_written_is_read_back_bit_for_bit,
           test_another_order_and_metadata_are_fine, test_damage_and_lies_are_refused,
           test_every_cut_and_every_flipped_header_bit_is_survived,
           test_hostile_headers_are_refused, test_files, test_memory_may_end)
