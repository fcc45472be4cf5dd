#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/math/tile.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 1 << 16 };

struct world {
    struct fl_rng rng;
    float *a, *b, *bias, *c, *want;
};

static void world_init(struct world *w)
{
    struct fl_seed seed;

    fl_seed_from_u64(7, &seed);
    fl_rng_init(&w->rng, &seed, 0);
    float **all[] = {&w->a, &w->b, &w->bias, &w->c, &w->want};
    for (size_t i = 0; i < FL_COUNT(all); i++) {
        *all[i] = fl_new(ROOM, sizeof(float));
        for (size_t k = 0; k < ROOM; k++) {
            (*all[i])[k] = (float)fl_rng_unit(&w->rng) - 0.5f;
        }
    }
}

static void world_fini(struct world *w)
{
    fl_free(w->a);
    fl_free(w->b);
    fl_free(w->bias);
    fl_free(w->c);
    fl_free(w->want);
}

static size_t any(struct world *w, size_t from, size_t to)
{
    return from + (size_t)fl_rng_below(&w->rng, (uint32_t)(to - from + 1));
}

/* Shapes at and around the edges of tiles; rows of A that overlap, as in a convolution. */
static struct fl_tile shape(struct world *w, bool segments)
{
    struct fl_tile t = {.m = any(w, 1, 50), .n = any(w, 1, 70), .k = any(w, 1, 40)};

    t.segments = segments ? any(w, 1, 5) : 1;
    t.ldb = t.n + any(w, 0, 3);
    t.ldc = t.n + any(w, 0, 3);
    return t;
}

static void same(const struct world *w, size_t k)
{
    for (size_t i = 0; i < ROOM; i++) {
        ck_assert_double_eq_tol((double)w->c[i], (double)w->want[i],
                                1e-6 * (double)k + 1e-6 * fabs((double)w->want[i]));
    }
}

enum { REPEATS = 30 }; /* each with sizes of its own */

START_TEST(test_products_are_those_of_the_plain_loops_and_write_nothing_else)
{
    struct world w;

    world_init(&w);
    for (int repeat = 0; repeat < REPEATS; repeat += (int)tests_every(1, 5)) {
        struct fl_tile t = shape(&w, true);
        t.lda = any(&w, 1, t.k + 3);
        t.apart = any(&w, 1, 100);
        memcpy(w.want, w.c, ROOM * sizeof *w.c);
        const float *bias = repeat % 2 ? w.bias : NULL;
        fl_tile_nn(&t, w.a, w.b, bias, w.c);
        fl_tile_plain_nn(&t, w.a, w.b, bias, w.want);
        same(&w, t.k * t.segments);

        t.lda = t.m + any(&w, 0, 3);
        t.apart = any(&w, 1, 300);
        fl_tile_tn(&t, w.a, w.b, repeat % 3, w.c);
        fl_tile_plain_tn(&t, w.a, w.b, repeat % 3, w.want);
        same(&w, t.k * t.segments);

        t.segments = 1;
        t.lda = t.k + any(&w, 0, 3);
        t.ldb = t.k + any(&w, 0, 3);
        fl_tile_nt(&t, w.a, w.b, bias, w.c);
        fl_tile_plain_nt(&t, w.a, w.b, bias, w.want);
        same(&w, t.k);
    }
    world_fini(&w);
}
END_TEST

START_TEST(test_added_rows_may_overlap)
{
    struct world w;

    world_init(&w);
    for (int repeat = 0; repeat < REPEATS; repeat += (int)tests_every(1, 5)) {
        struct fl_tile t = shape(&w, false);
        t.lda = t.k;
        t.ldc = any(&w, 1, t.n);
        memcpy(w.want, w.c, ROOM * sizeof *w.c);
        fl_tile_nn_add(&t, w.a, w.b, w.c);
        fl_tile_plain_nn_add(&t, w.a, w.b, w.want);
        same(&w, 50 * t.k);
    }
    world_fini(&w);
}
END_TEST

/* What private training counts on: a row's bits do not depend on its place or its company. */
START_TEST(test_a_row_is_the_same_bits_wherever_it_is)
{
    struct world w;
    float alone[80];

    world_init(&w);
    for (int repeat = 0; repeat < REPEATS; repeat += (int)tests_every(1, 5)) {
        struct fl_tile t = shape(&w, false), one;
        size_t row = any(&w, 0, t.m - 1);
        t.lda = t.k;
        one = t;
        one.m = 1;
        fl_tile_nn(&t, w.a, w.b, w.bias, w.c);
        fl_tile_nn(&one, w.a + row * t.lda, w.b, w.bias, alone);
        ck_assert_mem_eq(alone, w.c + row * t.ldc, t.n * sizeof *alone);
        t.ldb = one.ldb = t.k;
        fl_tile_nt(&t, w.a, w.b, w.bias, w.c);
        fl_tile_nt(&one, w.a + row * t.lda, w.b, w.bias, alone);
        ck_assert_mem_eq(alone, w.c + row * t.ldc, t.n * sizeof *alone);
    }
    world_fini(&w);
}
END_TEST

TESTS_MAIN("tile", test_products_are_those_of_the_plain_loops_and_write_nothing_else,
           test_added_rows_may_overlap, test_a_row_is_the_same_bits_wherever_it_is)
