#include "client/trainer/clipsum.h"
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

    ck_assert_msg(fl_clipsum_new(w->elements, clip, 1e9, &c, &e) == 0, "%s", e.msg);
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
            double norm = 0, squares = 0;
            fl_model_gradient(w.m, w.s.data.train.x + (size_t)n * 64, &w.s.data.train.y[n], 1, grad,
                              NULL);
            for (size_t i = 0; i < w.elements; i++) {
                norm += (double)grad[i] * (double)grad[i];
            }
            norm = sqrt(norm);
            fl_clipsum_reset(c);
            add(&w, c, n);
            const int64_t *q = fl_clipsum_take(c);
            for (size_t i = 0; i < w.elements; i++) {
                double want = (double)grad[i] * fmin(1, clips[k] / norm);
                squares += (double)(q[i] * q[i]);
                ck_assert_double_eq_tol((double)q[i] * step, want, step + 1e-3 * fabs(want) + 1e-9);
            }
            ck_assert(squares <= bound * bound); /* exact: both below 2^53 */
            if (norm > clips[k]) {
                ck_assert(squares >= bound * bound * 0.999);
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
    memcpy(alone, fl_clipsum_take(c), w.elements * sizeof *alone);
    for (uint32_t with = 0; with < 43; with += 6) {
        for (uint32_t place = 0; place <= with; place += 5) {
            fl_clipsum_reset(c);
            for (uint32_t n = 0; n < with; n++) {
                if (n != 7) {
                    add(&w, c, n);
                }
            }
            memcpy(rest, fl_clipsum_take(c), w.elements * sizeof *rest);
            fl_clipsum_reset(c);
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
            const int64_t *all = fl_clipsum_take(c);
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

    ck_assert_int_eq(fl_clipsum_new(elements, 3, 1e9, &c, &e), 0);
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
            fl_clipsum_reset(c);
            ck_assert_int_eq(fl_clipsum_add(c, &p, 1, &e), 0);
            const int64_t *q = fl_clipsum_take(c);
            double squares = 0, bound = 3 / fl_clipsum_step(c);
            for (size_t k = 0; k < elements; k++) {
                squares += (double)(q[k] * q[k]);
            }
            ck_assert(squares <= bound * bound);
        }
    }
    a[3] = NAN;
    struct fl_piece bad = {.weight = 0, .bias = IN * OUT, .out = OUT, .in = IN, .d = d, .a = a};
    fl_clipsum_reset(c);
    ck_assert_int_eq(fl_clipsum_add(c, &bad, 1, &e), 0);
    a[3] = INFINITY;
    ck_assert_int_eq(fl_clipsum_add(c, &bad, 1, &e), 0);
    const int64_t *q = fl_clipsum_take(c);
    for (size_t k = 0; k < elements; k++) {
        ck_assert_int_eq(q[k], 0);
    }
    fl_free(a);
    fl_free(d);
    fl_clipsum_free(c);
}
END_TEST

START_TEST(test_clips_that_cannot_be_are_refused)
{
    struct fl_clipsum *c = NULL;
    struct fl_err e = {0};
    static const double bad[] = {0, -1, NAN, INFINITY, 1e-300};

    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_int_eq(fl_clipsum_new(10, bad[i], 1e6, &c, &e), -FL_R_PLAN_PRIVACY);
    }
    ck_assert_int_eq(fl_clipsum_new(1000000, 1, 8, &c, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_null(c);
}
END_TEST

TESTS_MAIN("clipsum", test_each_contribution_is_the_clipped_gradient_and_within_the_bound,
           test_an_example_adds_the_same_whoever_else_is_there,
           test_extreme_gradients_stay_within_the_bound, test_clips_that_cannot_be_are_refused)
