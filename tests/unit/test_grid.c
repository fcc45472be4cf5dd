#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/math/grid.h"
#include "common/math/narrow.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <string.h>

static const uint32_t widths[] = {8, 9, 11, 12, 15, 16, 17, 20, 23, 24, 25, 28, 31, 32};

/* The naive twin: one bit at a time, as the header says it. */
static void naive_pack(unsigned bits, const int64_t *q, size_t count, uint8_t *to, size_t size)
{
    memset(to, 0, size);
    for (size_t bit = 0; bit < count * bits; bit++) {
        unsigned one = ((uint64_t)q[bit / bits] >> (bit % bits)) & 1;
        to[bit / 8] = (uint8_t)(to[bit / 8] | one << (bit % 8));
    }
}

static int64_t naive_get(unsigned bits, const uint8_t *from, size_t i)
{
    int64_t v = 0;
    for (unsigned b = 0; b < bits; b++) {
        size_t bit = i * bits + b;
        if (from[bit / 8] >> (bit % 8) & 1) {
            v += b == bits - 1 ? -((int64_t)1 << b) : (int64_t)1 << b;
        }
    }
    return v;
}

static void random_values(struct fl_rng *r, const struct fl_grid *g, int64_t *q, size_t count)
{
    int64_t max = fl_grid_max(g);
    for (size_t i = 0; i < count; i++) {
        q[i] = (int64_t)fl_rng_below(r, (uint64_t)(2 * max + 1)) - max;
    }
    q[0] = max;
    q[count - 1] = -max;
}

static int read_memory(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

START_TEST(test_packing_and_the_fold_agree_with_the_naive_twin_at_every_width)
{
    enum { N = 1003 };
    static int64_t q[N], back[N], acc[N];
    struct fl_seed seed;
    struct fl_rng r;
    struct fl_err e;

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&r, &seed, 0);
    for (uint32_t bits = 8; bits <= 32; bits++) {
        for (size_t count = 1; count < N; count = count * 3 + 1) {
            struct fl_grid g = {bits, 0};
            size_t size;
            random_values(&r, &g, q, count);
            ck_assert(fl_grid_bytes(&g, count, &size));
            uint8_t *fast = fl_new(size, 1), *slow = fl_new(size, 1); /* exact: for ASan */
            memset(fast, 0xff, size);
            ck_assert_uint_eq(fl_grid_pack(&g, q, count, fast), 0);
            naive_pack(bits, q, count, slow, size);
            ck_assert_mem_eq(fast, slow, size);
            ck_assert_int_eq(fl_grid_unpack(&g, fast, size, 0, count, back, &e), 0);
            ck_assert_mem_eq(back, q, count * sizeof *q);
            for (size_t first = 0; first < count; first += first / 2 + 1) {
                size_t n = (size_t)fl_rng_below(&r, count - first + 1);
                uint32_t weight = first % 3 == 0 ? 1 : (uint32_t)fl_rng_below(&r, 100000);
                memset(acc, 0, sizeof acc);
                ck_assert_int_eq(fl_grid_fold(&g, fast, size, first, n, weight, acc, &e), 0);
                for (size_t i = 0; i < n; i++) {
                    ck_assert_int_eq(acc[i], weight * naive_get(bits, fast, first + i));
                }
                ck_assert(n == N || acc[n] == 0);
            }
            fl_free(fast);
            fl_free(slow);
        }
    }
}
END_TEST

START_TEST(test_the_most_negative_word_and_padding_are_refused_before_anything_is_added)
{
    struct fl_err e;

    for (size_t w = 0; w < FL_COUNT(widths); w++) {
        struct fl_grid g = {widths[w], 0};
        int64_t q[7] = {1, 2, 3, 4, 5, 6, 7}, acc[7] = {0}, zero[7] = {0};
        uint8_t bytes[28] = {0};
        size_t size;
        ck_assert(fl_grid_bytes(&g, 7, &size));
        q[5] = -fl_grid_max(&g) - 1;
        naive_pack(g.bits, q, 7, bytes, size);
        ck_assert_int_eq(fl_grid_fold(&g, bytes, size, 0, 7, 1, acc, &e), -FL_R_UPDATE_RANGE);
        ck_assert_ptr_nonnull(strstr(e.msg, "value 5"));
        ck_assert_mem_eq(acc, zero, sizeof acc);
        ck_assert_int_eq(fl_grid_unpack(&g, bytes, size, 4, 2, q, &e), -FL_R_UPDATE_RANGE);
        ck_assert_int_eq(fl_grid_fold(&g, bytes, size, 0, 5, 1, acc, &e), 0);

        q[5] = 0;
        ck_assert_uint_eq(fl_grid_pack(&g, q, 7, bytes), 0);
        ck_assert_int_eq(fl_grid_fold(&g, bytes, size, 0, 7, 1, acc, &e), 0);
        if (7 * g.bits % 8) {
            bytes[size - 1] |= 0x80;
            memset(acc, 0, sizeof acc);
            ck_assert_int_eq(fl_grid_fold(&g, bytes, size, 6, 1, 1, acc, &e), -FL_R_UPDATE_RANGE);
            ck_assert_mem_eq(acc, zero, sizeof acc);
            ck_assert_int_eq(fl_grid_fold(&g, bytes, size, 0, 6, 1, acc, &e), 0);
        }
    }
}
END_TEST

START_TEST(test_wrong_lengths_are_refused)
{
    struct fl_grid g = {12, 0};
    uint8_t bytes[8] = {0};
    int64_t q[8];
    struct fl_err e;

    ck_assert_int_eq(fl_grid_unpack(&g, bytes, 3, 0, 2, q, &e), 0);
    ck_assert_int_eq(fl_grid_unpack(&g, bytes, 3, 0, 3, q, &e), -FL_R_UPDATE_LENGTH);
    ck_assert_int_eq(fl_grid_unpack(&g, bytes, 4, 0, 1, q, &e), -FL_R_UPDATE_LENGTH);
    ck_assert_int_eq(fl_grid_unpack(&g, bytes, 0, 0, 0, q, &e), 0);
    ck_assert_int_eq(fl_grid_unpack(&g, bytes, 3, SIZE_MAX, 2, q, &e), -FL_R_UPDATE_LENGTH);
    ck_assert_int_eq(fl_grid_unpack(&g, bytes, SIZE_MAX, 0, 1, q, &e), -FL_R_UPDATE_LENGTH);
    size_t size;
    ck_assert(!fl_grid_bytes(&g, SIZE_MAX / 4, &size));
}
END_TEST

START_TEST(test_values_beyond_the_grid_saturate_and_are_counted)
{
    for (size_t w = 0; w < FL_COUNT(widths); w++) {
        struct fl_grid g = {widths[w], 0};
        int64_t max = fl_grid_max(&g), back[6];
        int64_t q[6] = {max, -max, max + 1, -max - 1, INT64_MAX, INT64_MIN};
        uint8_t bytes[24];
        size_t size;
        struct fl_err e;
        ck_assert(fl_grid_bytes(&g, 6, &size));
        ck_assert_uint_eq(fl_grid_pack(&g, q, 6, bytes), 4);
        ck_assert_int_eq(fl_grid_unpack(&g, bytes, size, 0, 6, back, &e), 0);
        for (int i = 0; i < 6; i++) {
            ck_assert_int_eq(back[i], i % 2 ? -max : max);
        }
    }
}
END_TEST

START_TEST(test_rounding_is_to_nearest_with_ties_to_even_and_finite)
{
    struct fl_grid g = {16, -2};
    float x[] = {0.125f, 0.375f, 0.625f, -0.125f, -0.375f, 0.126f, 1e6f, 0.0f, 0x1p-149f};
    int64_t want[] = {0, 2, 2, 0, -2, 1, 4000000, 0, 0}, q[9];
    struct fl_err e;

    ck_assert_int_eq(fl_grid_round(&g, x, 9, q, &e), 0);
    ck_assert_mem_eq(q, want, sizeof want);
    float bad[] = {NAN, INFINITY, -INFINITY, 0x1p61f};
    for (int i = 0; i < 4; i++) {
        x[3] = bad[i];
        ck_assert_int_eq(fl_grid_round(&g, x, 9, q, &e), -FL_R_NOT_FINITE);
        ck_assert_ptr_nonnull(strstr(e.msg, "value 3"));
    }
    x[3] = 0x1p60f;
    ck_assert_int_eq(fl_grid_round(&g, x, 9, q, &e), 0);
    ck_assert_int_eq(q[3], (int64_t)1 << 62);
}
END_TEST

START_TEST(test_sums_fit_exactly_up_to_62_bits)
{
    struct fl_grid g = {32, 0}, small = {8, 0};

    ck_assert(fl_grid_sum_fits(&g, 1, (uint32_t)1 << 31));
    ck_assert(!fl_grid_sum_fits(&g, 1, ((uint32_t)1 << 31) + 1));
    ck_assert(fl_grid_sum_fits(&g, 1 << 20, 1 << 11));
    ck_assert(!fl_grid_sum_fits(&g, (1 << 20) + 1, 1 << 11));
    ck_assert(!fl_grid_sum_fits(&small, UINT32_MAX, UINT32_MAX));
    ck_assert(fl_grid_sum_fits(&small, UINT32_MAX, 1 << 23));
    ck_assert(fl_grid_sum_fits(&g, 0, 0));
}
END_TEST

/* Python's round() is to nearest, ties to even: [max(-m, min(m, round(q / 2**s))) for q in ...]. */
START_TEST(test_narrow_values)
{
    static const int64_t q[] = {-300, -127, -126, -24, -8, -2, -1, 0,  1,
                                2,    3,    6,    8,   10, 24, 40, 127};
    static const int six[] = {-31, -31, -31, -6, -2, 0, 0, 0, 0, 0, 1, 2, 2, 2, 6, 10, 31};
    static const int four[] = {-7, -7, -7, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 7};
    enum { COUNT = sizeof q / sizeof *q };
    uint8_t packed[COUNT], wide[COUNT];

    for (uint32_t bits = 4; bits <= 6; bits += 2) {
        const int *want = bits == 6 ? six : four;
        struct fl_narrow n = {bits, COUNT, read_memory, packed};
        struct fl_err e = {0};
        ck_assert_uint_eq(fl_narrow_pack(bits, q, COUNT, packed), 4); /* three below, one above */
        ck_assert_int_eq(fl_narrow_read(&n, 0, wide, COUNT, &e), 0);
        for (size_t i = 0; i < COUNT; i++) {
            ck_assert_int_eq((int8_t)wide[i], want[i] * (1 << (8 - bits)));
        }
    }
    ck_assert(fl_narrow_is(4) && fl_narrow_is(6) && !fl_narrow_is(5) && !fl_narrow_is(8));
}
END_TEST

/* Any part of a long vector is what the whole has there; what was never sent is refused. */
START_TEST(test_narrow_reads_anywhere)
{
    enum { COUNT = 9001 };
    static int64_t q[COUNT];
    static uint8_t packed[COUNT], whole[COUNT], part[COUNT];
    struct fl_seed seed;
    struct fl_rng rng;
    struct fl_err e = {0};

    fl_seed_from_u64(8, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t i = 0; i < COUNT; i++) {
        q[i] = (int64_t)fl_rng_below(&rng, 255) - 127;
    }
    for (uint32_t bits = 4; bits <= 6; bits += 2) {
        struct fl_narrow n = {bits, COUNT, read_memory, packed};
        size_t size = fl_narrow_bytes(bits, COUNT);
        ck_assert_uint_eq(size, (COUNT * bits + 7) / 8);
        fl_narrow_pack(bits, q, COUNT, packed);
        ck_assert_int_eq(fl_narrow_read(&n, 0, whole, COUNT, &e), 0);
        for (size_t i = 0; i < COUNT; i++) {
            double near = (double)q[i] / (1 << (8 - bits));
            double most = (1 << (bits - 1)) - 1;
            near = fmax(-most, fmin(most, nearbyint(near)));
            ck_assert_double_eq((double)(int8_t)whole[i], near * (1 << (8 - bits)));
        }
        for (int k = 0; k < 300; k++) {
            size_t first = fl_rng_below(&rng, COUNT), count = fl_rng_below(&rng, COUNT - first + 1);
            ck_assert_int_eq(fl_narrow_read(&n, first, part, count, &e), 0);
            ck_assert_int_eq(memcmp(part, whole + first, count), 0);
        }
        ck_assert_int_eq(fl_narrow_read(&n, COUNT - 1, part, 2, &e), -FL_R_OFFSET);
        packed[size - 1] |= 0x80; /* 9001 values: bits are left in the last byte */
        ck_assert_int_eq(fl_narrow_read(&n, COUNT - 1, part, 1, &e), -FL_R_UPDATE_RANGE);
        packed[size - 1] &= 0x7f;
        packed[0] = (uint8_t)(1 << (bits - 1)); /* the word that is never sent */
        ck_assert_int_eq(fl_narrow_read(&n, 0, part, 1, &e), -FL_R_UPDATE_RANGE);
        ck_assert_ptr_nonnull(strstr(e.msg, "value 0"));
    }
}
END_TEST

TESTS_MAIN("grid", test_narrow_values, test_narrow_reads_anywhere,
           test_packing_and_the_fold_agree_with_the_naive_twin_at_every_width,
           test_the_most_negative_word_and_padding_are_refused_before_anything_is_added,
           test_wrong_lengths_are_refused, test_values_beyond_the_grid_saturate_and_are_counted,
           test_rounding_is_to_nearest_with_ties_to_even_and_finite,
           test_sums_fit_exactly_up_to_62_bits)
