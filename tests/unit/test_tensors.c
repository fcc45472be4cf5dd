#include "common/base/mem.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

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

START_TEST(test_memory_may_end)
{
    uint8_t *bytes;
    size_t size;
    bool hit = true;

    for (uint64_t n = 1; hit; n++) {
        fl_mem_fail_at(n);
        int r = fl_tensors_write(&table, values, &bytes, &size, NULL);
        hit = fl_mem_fail_hit();
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
    }
    fl_mem_fail_at(0);
    fl_free(bytes);
}
END_TEST

TESTS_MAIN("tensors", test_what_is_written_is_read_back_bit_for_bit,
           test_another_order_and_metadata_are_fine, test_damage_and_lies_are_refused,
           test_every_cut_and_every_flipped_header_bit_is_survived, test_memory_may_end)
