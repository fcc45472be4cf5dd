#include "client/trainer/clipsum.h"
#include "tests/lib/clip_sums.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <string.h>

/* A model, its examples, and the integer vector of each. */
struct world {
    struct small_site s;
    struct fl_model *m;
    float *theta;
    size_t elements;
};

static void world_init(struct world *w)
{
    struct fl_err e = {0};

    small_site_init(&w->s, FL_VISIBILITY_ALL_SHARED, NULL);
    w->elements = w->s.plan->layout.theta.elements;
    w->theta = w->s.shared;
    ck_assert_int_eq(fl_model_new(&w->s.plan->layout.spec, 16, &w->m, &e), 0);
    fl_model_set(w->m, w->theta);
}

static void world_fini(struct world *w)
{
    fl_model_free(w->m);
    small_site_fini(&w->s);
}

static void add(struct world *w, struct fl_clipsum *c, uint32_t n)
{
    const struct fl_piece *pieces;
    struct fl_err e = {0};
    double loss;
    uint32_t count = fl_model_example(w->m, w->s.data.train.x + (size_t)n * 64,
                                      &w->s.data.train.y[n], &pieces, &loss);

    ck_assert_int_eq(fl_clipsum_add(c, pieces, count, &e), 0);
}

static struct fl_clipsum *sum_of(const struct world *w, double clip)
{
    struct fl_clipsum *c = NULL;
    struct fl_err e = {0};

    ck_assert_msg(fl_clipsum_new(w->elements, clip, 1e9, false, &c, &e) == 0, "%s", e.msg);
    return c;
}

START_TEST(test_each_contribution_is_the_clipped_gradient_and_within_the_bound)
{
    static const double clips[] = {1e-3, 0.1, 0.7, 1.3, 50};
    struct world w;

    world_init(&w);
    float *grad = fl_new(w.elements, sizeof *grad);
    for (size_t k = 0; k < FL_COUNT(clips); k++) {
        struct fl_clipsum *c = sum_of(&w, clips[k]);
        double step = fl_clipsum_step(c), bound = clips[k] / step;
        for (uint32_t n = 0; n < w.s.data.train.count; n++) {
            double norm = 0, squares = 0, off = 0;
            fl_model_gradient(w.m, w.s.data.train.x + (size_t)n * 64, &w.s.data.train.y[n], 1, grad,
                              NULL);
            for (size_t i = 0; i < w.elements; i++) {
                norm += (double)grad[i] * (double)grad[i];
            }
            norm = sqrt(norm);
            add(&w, c, n);
            const int64_t *q = take_all(c);
            for (size_t i = 0; i < w.elements; i++) {
                double want = (double)grad[i] * fmin(1, clips[k] / norm);
                squares += (double)(q[i] * q[i]);
                off += ((double)q[i] * step - want) * ((double)q[i] * step - want);
            }
            /* Factors are rounded: a part of the norm in some direction, more of it the farther the
             * gradient is below the clip. */
            double kept = fmin(norm, clips[k]);
            ck_assert_double_le(sqrt(off), 0.004 * sqrt(kept * clips[k]) + 0.001 * kept);
            ck_assert(squares <= bound * bound); /* exact: both below 2^53 */
            if (norm > clips[k]) {
                ck_assert(squares >= bound * bound * 0.99);
            }
        }
        fl_clipsum_free(c);
    }
    fl_free(grad);
    world_fini(&w);
}
END_TEST

/* The sensitivity is exact: whoever else is in the sum, and wherever in the batch, an example adds
 * the very same integers. */
START_TEST(test_an_example_adds_the_same_whoever_else_is_there)
{
    struct world w;

    world_init(&w);
    struct fl_clipsum *c = sum_of(&w, 0.5);
    int64_t *alone = fl_new(w.elements, sizeof *alone), *rest = fl_new(w.elements, sizeof *rest);

    add(&w, c, 7);
    memcpy(alone, take_all(c), w.elements * sizeof *alone);
    for (uint32_t with = 0; with < 43; with += 6) {
        for (uint32_t place = 0; place <= with; place += 5) {
            for (uint32_t n = 0; n < with; n++) {
                if (n != 7) {
                    add(&w, c, n);
                }
            }
            memcpy(rest, take_all(c), w.elements * sizeof *rest);
            for (uint32_t n = 0; n < with; n++) {
                if (n == place) {
                    add(&w, c, 7);
                }
                if (n != 7) {
                    add(&w, c, n);
                }
            }
            if (place >= with) {
                add(&w, c, 7);
            }
            const int64_t *all = take_all(c);
            for (size_t i = 0; i < w.elements; i++) {
                ck_assert_int_eq(all[i] - rest[i], alone[i]);
            }
        }
    }
    fl_free(alone);
    fl_free(rest);
    fl_clipsum_free(c);
    world_fini(&w);
}
END_TEST

/* Pieces made by hand, with values no gradient should have. */
START_TEST(test_extreme_gradients_stay_within_the_bound)
{
    enum { IN = 5000, OUT = 7 };
    static const float values[] = {1e-45f, 1e-38f, 1e-20f, 1, 1e12f, 1e19f, 3e38f};
    float *a = fl_new(IN, sizeof *a), *d = fl_new(OUT, sizeof *d);
    size_t elements = IN * OUT + OUT;
    struct fl_clipsum *c = NULL;
    struct fl_err e = {0};

    ck_assert_int_eq(fl_clipsum_new(elements, 3, 1e9, false, &c, &e), 0);
    for (size_t i = 0; i < FL_COUNT(values); i++) {
        for (size_t j = 0; j < FL_COUNT(values); j++) {
            for (size_t k = 0; k < IN; k++) {
                a[k] = values[i] * (k % 2 ? 1 : -0.7f);
            }
            for (size_t k = 0; k < OUT; k++) {
                d[k] = values[j] * (k % 3 ? 1 : -0.3f);
            }
            struct fl_piece p = {
                .weight = 0, .bias = IN * OUT, .out = OUT, .in = IN, .d = d, .a = a};
            ck_assert_int_eq(fl_clipsum_add(c, &p, 1, &e), 0);
            const int64_t *q = take_all(c);
            double squares = 0, bound = 3 / fl_clipsum_step(c);
            for (size_t k = 0; k < elements; k++) {
                squares += (double)(q[k] * q[k]);
            }
            ck_assert(squares <= bound * bound);
        }
    }
    a[3] = NAN;
    struct fl_piece bad = {.weight = 0, .bias = IN * OUT, .out = OUT, .in = IN, .d = d, .a = a};
    ck_assert_int_eq(fl_clipsum_add(c, &bad, 1, &e), 0);
    a[3] = INFINITY;
    ck_assert_int_eq(fl_clipsum_add(c, &bad, 1, &e), 0);
    const int64_t *q = take_all(c);
    for (size_t k = 0; k < elements; k++) {
        ck_assert_int_eq(q[k], 0);
    }
    fl_free(a);
    fl_free(d);
    fl_clipsum_free(c);
}
END_TEST

/* A hunt for examples beyond the bound: factors drawn to be hard to round (few values, halves, one
 * large among many small, everything equal), at clips from coarse to fine grids, one by one and in
 * company; and the company does not change what an example adds. */
static float hard(struct fl_rng *r, uint32_t kind, size_t i)
{
    float u = (float)fl_rng_unit(r) - 0.5f;

    switch (kind) {
    case 0:
        return u;
    case 1:
        return i == 3 ? 1000 * u : 0.001f * u;
    case 2:
        return 0.5f;
    case 3:
        return fl_rng_below(r, 50) ? 0 : 1;
    case 4:
        return (float)ldexp((double)u, (int)fl_rng_below(r, 60) - 30);
    default:
        return (float)(fl_rng_below(r, 3)) - 1.5f;
    }
}

static double squares_of(const int64_t *q, const int64_t *without, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        double x = (double)(q[i] - (without ? without[i] : 0));
        sum += x * x;
    }
    return sum;
}

START_TEST(test_no_example_is_beyond_the_bound)
{
    enum { IN = 130, OUT = 40, WIDE = 150, ELEMENTS = IN * OUT + OUT + WIDE * 2 + 2 };
    static float d[OUT], a[IN], bias[2], w[WIDE * 2];
    struct fl_rng r;
    struct fl_seed seed;
    struct fl_err e = {0};
    const struct fl_piece pieces[2] = {
        {.weight = 0, .bias = IN * OUT, .out = OUT, .in = IN, .d = d, .a = a},
        {.weight = IN * OUT + OUT, .bias = ELEMENTS - 2, .out = 2, .in = WIDE, .d = bias, .w = w}};

    fl_seed_from_u64(11, &seed);
    fl_rng_init(&r, &seed, 0);
    for (uint32_t n = 0; n < 2000; n++) {
        struct fl_clipsum *c = NULL;
        double clip = ldexp(0.5 + fl_rng_unit(&r), (int)fl_rng_below(&r, 20) - 10);
        bool per_layer = n % 2;
        ck_assert_int_eq(fl_clipsum_new(ELEMENTS, clip, n % 3 ? 1e9 : 400, per_layer, &c, &e), 0);
        double bound = clip / fl_clipsum_step(c);
        for (int company = 0; company < 2; company++) {
            for (uint32_t k = 0; k < (company ? 70 : 1); k++) {
                for (size_t i = 0; i < OUT; i++) {
                    d[i] = hard(&r, n % 6, i);
                }
                for (size_t i = 0; i < IN; i++) {
                    a[i] = hard(&r, n / 6 % 6, i);
                }
                for (size_t i = 0; i < 2 * WIDE; i++) {
                    w[i] = hard(&r, n / 36 % 6, i);
                }
                bias[0] = bias[1] = d[0];
                ck_assert_int_eq(fl_clipsum_add(c, pieces, 2, &e), 0);
            }
            const int64_t *q = take_all(c);
            if (company == 0) {
                ck_assert(squares_of(q, NULL, ELEMENTS) <= bound * bound);
                if (per_layer) {
                    ck_assert(squares_of(q, NULL, IN * OUT + OUT) <= bound * bound / 2);
                    ck_assert(squares_of(q + IN * OUT + OUT, NULL, 2 * WIDE + 2) <=
                              bound * bound / 2);
                }
            }
        }
        fl_clipsum_free(c);
    }
}
END_TEST

/* One example more in a crowd of loud ones, a block's edge among the places: the sum differs by
 * exactly its own integers. */
START_TEST(test_a_crowd_changes_nothing)
{
    enum { IN = 300, OUT = 50, ELEMENTS = IN * OUT + OUT };
    static float d[130][OUT], a[130][IN];
    static int64_t alone[ELEMENTS], rest[ELEMENTS];
    static const uint32_t crowd[] = {0, 1, 63, 64, 65, 127, 129};
    struct fl_rng r;
    struct fl_seed seed;
    struct fl_err e = {0};
    struct fl_clipsum *c = NULL;

    fl_seed_from_u64(12, &seed);
    fl_rng_init(&r, &seed, 0);
    for (size_t k = 0; k < 130; k++) {
        for (size_t i = 0; i < OUT; i++) {
            d[k][i] = (k % 5 == 4 && i ? 0 : 100) * hard(&r, 0, i);
        }
        for (size_t i = 0; i < IN; i++) {
            a[k][i] = hard(&r, k % 2 ? 0 : 1, i);
        }
    }
    ck_assert_int_eq(fl_clipsum_new(ELEMENTS, 1, 1e9, false, &c, &e), 0);
    for (size_t n = 0; n < FL_COUNT(crowd); n++) {
        int64_t *to[] = {alone, rest, NULL};
        for (int way = 0; way < 3; way++) {
            for (uint32_t k = 0; k < 130; k++) {
                bool it = k == crowd[n] / 2;
                if ((it && way == 1) || (!it && way == 0) || (!it && k > crowd[n])) {
                    continue;
                }
                struct fl_piece p = {.bias = IN * OUT, .out = OUT, .in = IN, .d = d[k], .a = a[k]};
                ck_assert_int_eq(fl_clipsum_add(c, &p, 1, &e), 0);
            }
            const int64_t *q = take_all(c);
            if (to[way]) {
                memcpy(to[way], q, sizeof alone);
                continue;
            }
            for (size_t i = 0; i < ELEMENTS; i++) {
                ck_assert_int_eq(q[i] - rest[i], alone[i]);
            }
        }
        ck_assert(squares_of(alone, NULL, ELEMENTS) > 1e6);
    }
    fl_clipsum_free(c);
}
END_TEST

/* The model's batched way gives each example the integers of the one-by-one way. */
START_TEST(test_examples_together_are_examples_alone)
{
    struct world w;
    const struct fl_piece *pieces;
    struct fl_err e = {0};

    world_init(&w);
    struct fl_clipsum *c = sum_of(&w, 0.5), *other = sum_of(&w, 0.5);
    int64_t *want = fl_new(w.elements, sizeof *want);
    for (uint32_t count = 1; count <= 16; count += 5) {
        for (uint32_t n = 0; n < count; n++) {
            add(&w, c, n);
        }
        memcpy(want, take_all(c), w.elements * sizeof *want);
        (void)fl_model_examples(w.m, w.s.data.train.x, w.s.data.train.y, count);
        for (uint32_t n = 0; n < count; n++) {
            uint32_t parts = fl_model_pieces(w.m, n, &pieces);
            ck_assert_int_eq(fl_clipsum_add(other, pieces, parts, &e), 0);
        }
        ck_assert_mem_eq(take_all(other), want, w.elements * sizeof *want);
    }
    fl_free(want);
    fl_clipsum_free(other);
    fl_clipsum_free(c);
    world_fini(&w);
}
END_TEST

START_TEST(test_clips_that_cannot_be_are_refused)
{
    struct fl_clipsum *c = NULL;
    struct fl_err e = {0};
    static const double bad[] = {0, -1, NAN, INFINITY, 1e-300};

    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_int_eq(fl_clipsum_new(10, bad[i], 1e6, false, &c, &e), -FL_R_PLAN_PRIVACY);
    }
    ck_assert_int_eq(fl_clipsum_new(1000000, 1, 8, false, &c, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_null(c);
}
END_TEST

TESTS_MAIN("clipsum", test_each_contribution_is_the_clipped_gradient_and_within_the_bound,
           test_an_example_adds_the_same_whoever_else_is_there,
           test_extreme_gradients_stay_within_the_bound, test_no_example_is_beyond_the_bound,
           test_a_crowd_changes_nothing, test_examples_together_are_examples_alone,
           test_clips_that_cannot_be_are_refused)
