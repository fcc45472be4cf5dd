/* The tiled mix beside a naive twin that has everything in memory. */
#include "server/strategy/mix.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

struct bench {
    struct fl_mix m;
    size_t d;
    float *w, *out; /* rows x d, outs x d */
    uint8_t *critical;
    double *a, *b;
    uint32_t *mask, *puts;
    uint32_t asked; /* masks */
    struct fl_rng rng;
};

static int row(void *arg, uint32_t j, size_t first, size_t count, float *to, uint8_t *critical,
               struct fl_err *e)
{
    struct bench *b = arg;

    (void)e;
    ck_assert_uint_eq(first % 64, 0);
    ck_assert_uint_le(first + count, b->d);
    memcpy(to, b->w + j * b->d + first, count * sizeof *to);
    if (critical) {
        memcpy(critical, b->critical + j * b->d + first, count);
        b->asked++;
    }
    return 0;
}

static int put(void *arg, uint32_t i, size_t first, size_t count, float *values,
               const uint8_t *critical, struct fl_err *e)
{
    struct bench *b = arg;

    (void)e;
    memcpy(b->out + i * b->d + first, values, count * sizeof *values);
    for (size_t k = first; k < first + count; k++) {
        b->puts[i * b->d + k]++;
    }
    if (b->mask[i] == FL_MIX_PLAIN) {
        ck_assert_ptr_null(critical);
    } else {
        ck_assert_mem_eq(critical, b->critical + b->mask[i] * b->d + first, count);
    }
    return 0;
}

static void weights(struct bench *b, double *a, uint32_t rows)
{
    double sum = 0;

    for (uint32_t j = 0; j < rows; j++) {
        a[j] = fl_rng_below(&b->rng, 3) ? fl_rng_unit(&b->rng) : 0;
        sum += a[j];
    }
    a[0] += sum == 0;
    for (uint32_t j = 0; j < rows; j++) {
        a[j] /= sum == 0 ? 1 : sum;
    }
}

static void bench_open(struct bench *b, uint32_t rows, uint32_t outs, size_t d, bool masks)
{
    struct fl_seed seed;

    *b = (struct bench){.d = d};
    fl_seed_from_u64(rows * 1000 + d, &seed);
    fl_rng_init(&b->rng, &seed, 0);
    b->w = fl_new(rows * d, sizeof *b->w);
    b->out = fl_new(outs * d, sizeof *b->out);
    b->puts = fl_new(outs * d, sizeof *b->puts);
    b->critical = fl_new(rows * d, 1);
    b->a = fl_new(outs * rows, sizeof *b->a);
    b->b = fl_new(rows, sizeof *b->b);
    b->mask = fl_new(outs, sizeof *b->mask);
    for (size_t i = 0; i < rows * d; i++) {
        b->w[i] = (float)fl_rng_normal(&b->rng);
        b->critical[i] = (uint8_t)fl_rng_below(&b->rng, 3);
    }
    for (uint32_t i = 0; i < outs; i++) {
        weights(b, b->a + i * rows, rows);
        b->mask[i] = masks && i > 0 ? (uint32_t)fl_rng_below(&b->rng, rows) : FL_MIX_PLAIN;
    }
    weights(b, b->b, rows);
    b->m = (struct fl_mix){.rows = rows,
                           .outs = outs,
                           .a = b->a,
                           .b = masks ? b->b : NULL,
                           .mask = masks ? b->mask : NULL,
                           .row = row,
                           .put = put,
                           .arg = b};
}

static void bench_close(struct bench *b)
{
    fl_free(b->w);
    fl_free(b->out);
    fl_free(b->puts);
    fl_free(b->critical);
    fl_free(b->a);
    fl_free(b->b);
    fl_free(b->mask);
}

/* As the header says it, element by element. */
static float twin(const struct bench *b, uint32_t i, size_t k)
{
    bool masked = b->mask[i] != FL_MIX_PLAIN;
    int from = masked ? b->critical[b->mask[i] * b->d + k] : FL_MIX_OWN;
    bool common = from == FL_MIX_COMMON;
    const double *a = common ? b->b : b->a + i * b->m.rows;
    double sum = 0;

    if (from == FL_MIX_HOME) {
        return b->w[b->mask[i] * b->d + k];
    }
    for (uint32_t j = 0; j < b->m.rows; j++) {
        sum += a[j] * (double)b->w[j * b->d + k];
    }
    return (float)sum;
}

START_TEST(test_mix_has_the_bits_of_its_naive_twin)
{
    static const struct {
        uint32_t rows, outs;
        size_t d;
        bool masks;
    } sizes[] = {{1, 1, 1, false},    {1, 2, 63, true},     {3, 4, 64, true},
                 {7, 8, 65, true},    {20, 21, 9001, true}, {13, 2, 0, true},
                 {9, 9, 4099, false}, {1000, 5, 3001, true}};
    struct fl_err e = {0};

    for (size_t s = 0; s < FL_COUNT(sizes); s++) {
        struct bench b;
        bench_open(&b, sizes[s].rows, sizes[s].outs, sizes[s].d, sizes[s].masks);
        ck_assert_msg(fl_mix(&b.m, b.d, &e) == 0, "%s", e.msg);
        for (uint32_t i = 0; i < sizes[s].outs; i++) {
            for (size_t k = 0; k < b.d; k++) {
                float want = twin(&b, i, k);
                ck_assert_uint_eq(b.puts[i * b.d + k], 1);
                ck_assert_mem_eq(&b.out[i * b.d + k], &want, sizeof want);
            }
        }
        if (!sizes[s].masks) {
            ck_assert_uint_eq(b.asked, 0);
        }
        bench_close(&b);
    }
}
END_TEST

START_TEST(test_tiles_stay_within_their_memory)
{
    ck_assert_uint_eq(fl_mix_tile(1), 4096);
    for (uint32_t rows = 1; rows <= FL_MIX_ROWS_MAX; rows++) {
        size_t tile = fl_mix_tile(rows);
        ck_assert_uint_eq(tile % 64, 0);
        ck_assert_uint_ge(tile, 64);
        ck_assert(tile == 64 || tile * rows * 5 <= FL_MIX_MEMORY);
    }
    ck_assert_uint_ge(fl_mix_tile(FL_MIX_ROWS_MAX), 256);
}
END_TEST

START_TEST(test_what_is_no_mix)
{
    struct fl_err e = {0};
    struct bench b;

    bench_open(&b, 5, 3, 100, true);
    b.a[1] += 0.01;
    ck_assert_int_eq(fl_mix(&b.m, b.d, &e), -FL_R_INTERNAL);
    b.a[1] -= 0.01;
    b.b[0] = NAN;
    ck_assert_int_eq(fl_mix(&b.m, b.d, &e), -FL_R_INTERNAL);
    weights(&b, b.b, 5);
    b.mask[1] = 5;
    ck_assert_int_eq(fl_mix(&b.m, b.d, &e), -FL_R_INTERNAL);
    b.mask[1] = 1;
    b.m.rows = 0;
    ck_assert_int_eq(fl_mix(&b.m, b.d, &e), -FL_R_LIMIT);
    b.m.rows = 5;
    for (size_t k = 0; k < 5 * b.d; k++) {
        b.w[k] = 3e38f;
    }
    b.w[70] = INFINITY; /* of row 0 */
    b.a[0] = 0.5;
    b.a[1] = 0.5;
    b.a[2] = b.a[3] = b.a[4] = 0;
    ck_assert_int_eq(fl_mix(&b.m, b.d, &e), -FL_R_NOT_FINITE);
    b.w[70] = 3e38f;
    uint64_t n = 0;
    do { /* whatever memory is not there */
        fl_mem_fail_at(++n);
        int r = fl_mix(&b.m, b.d, &e);
        ck_assert_int_eq(r, fl_mem_fail_hit() ? -FL_R_NOMEM : 0);
    } while (fl_mem_fail_hit());
    fl_mem_fail_at(0);
    ck_assert_uint_gt(n, 5);
    bench_close(&b);
}
END_TEST

TESTS_MAIN("mix", test_mix_has_the_bits_of_its_naive_twin, test_tiles_stay_within_their_memory,
           test_what_is_no_mix)
