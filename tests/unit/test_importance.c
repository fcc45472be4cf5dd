/* The published descriptor of pacfl: importances of boosted trees against a naive twin of these,
 * and the noise that is put on them. */
#include "client/boost.h"
#include "client/produce.h"
#include "common/base/mem.h"
#include "common/plan/descriptor.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 240, COLUMNS = 5 };

static struct fl_err err;
static float x[ROWS * COLUMNS], y[ROWS];
static atomic_bool cancel;

static void draw(uint64_t number, uint32_t classes)
{
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(number, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int i = 0; i < ROWS; i++) {
        float *r = x + (size_t)i * COLUMNS;
        for (int k = 0; k < COLUMNS; k++) {
            r[k] = (float)fl_rng_below(&rng, 4);
        }
        float z = 3 * r[1] + (r[3] > 1 ? 2 : 0) + 0.05F * (float)fl_rng_normal(&rng);
        y[i] = classes ? (float)((int)z % (int)classes) : z;
    }
}

/* ---- the twin: Chen and Guestrin 2016, equations 5 to 7, lambda 1; squared error ---- */

static double pull[ROWS]; /* gradients */
static double gain[COLUMNS];
static int splits[COLUMNS];

static double worth(double g, double n)
{
    return g * g / (n + 1);
}

/* The best split of the rows in `in` by the lowest column of equals; leaves change `at`. */
static void grow(const bool *in, int depth, double *at)
{
    double g = 0, n = 0, best = 1e-6, threshold = 0;
    int column = -1;
    bool left[ROWS], right[ROWS];

    for (int i = 0; i < ROWS; i++) {
        g += in[i] ? pull[i] : 0;
        n += in[i];
    }
    for (int k = 0; depth < FL_BOOST_DEPTH && k < COLUMNS; k++) {
        for (double cut = 0.5; cut < 3; cut++) {
            double gl = 0, nl = 0;
            for (int i = 0; i < ROWS; i++) {
                bool below = in[i] && (double)x[i * COLUMNS + k] < cut;
                gl += below ? pull[i] : 0;
                nl += below;
            }
            double more = worth(gl, nl) + worth(g - gl, n - nl) - worth(g, n);
            if (nl > 0 && nl < n && more > best * (1 + 1e-9)) {
                best = more;
                column = k;
                threshold = cut;
            }
        }
    }
    for (int i = 0; i < ROWS; i++) {
        left[i] = column >= 0 && in[i] && (double)x[i * COLUMNS + column] < threshold;
        right[i] = column >= 0 && in[i] && !left[i];
        at[i] += in[i] && column < 0 ? -FL_BOOST_RATE * g / (n + 1) : 0;
    }
    if (column >= 0) {
        gain[column] += best;
        splits[column]++;
        grow(left, depth + 1, at);
        grow(right, depth + 1, at);
    }
}

static void twin(double *ret)
{
    double at[ROWS], sum = 0;
    bool all[ROWS];

    memset(gain, 0, sizeof gain);
    memset(splits, 0, sizeof splits);
    for (int i = 0; i < ROWS; i++) {
        at[i] = 0.5;
        all[i] = true;
    }
    for (int tree = 0; tree < FL_BOOST_TREES; tree++) {
        for (int i = 0; i < ROWS; i++) {
            pull[i] = at[i] - (double)y[i];
        }
        grow(all, 0, at);
    }
    for (int k = 0; k < COLUMNS; k++) {
        ret[k] = splits[k] ? gain[k] / splits[k] : 0;
        sum += ret[k];
    }
    for (int k = 0; k < COLUMNS; k++) {
        ret[k] /= sum;
    }
}

START_TEST(test_gains_are_those_of_the_naive_twin)
{
    double got[COLUMNS], again[COLUMNS], want[COLUMNS];

    for (uint64_t number = 1; number <= 3; number++) {
        draw(number, 0);
        ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, 0, &cancel, got, &err), 0);
        ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, 0, &cancel, again, &err), 0);
        ck_assert_mem_eq(got, again, sizeof got);
        twin(want);
        for (int k = 0; k < COLUMNS; k++) {
            ck_assert_msg(fabs(got[k] - want[k]) < 1e-3, "column %d: %g, not %g", k, got[k],
                          want[k]);
        }
        ck_assert(got[1] > 0.5 && got[3] > got[0] + got[2] + got[4]);
    }
}
END_TEST

START_TEST(test_classes_and_what_no_split_helps)
{
    double got[COLUMNS], sum = 0;

    for (uint32_t classes = 2; classes <= 3; classes++) {
        draw(7, classes);
        ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, classes, &cancel, got, &err), 0);
        ck_assert(got[1] + got[3] > 0.5);
    }
    memset(y, 0, sizeof y); /* what trees begin with is 0.5, and the root's leaf says the rest */
    ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, 0, &cancel, got, &err), 0);
    for (int k = 0; k < COLUMNS; k++) {
        sum += got[k];
    }
    ck_assert(sum == 0 || fabs(sum - 1) < 1e-9);
    memset(x, 0, sizeof x);
    ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, 0, &cancel, got, &err), 0);
    for (int k = 0; k < COLUMNS; k++) {
        ck_assert_double_eq(got[k], 0);
    }
    atomic_store(&cancel, true);
    ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, 0, &cancel, got, &err),
                     -FL_R_CANCELLED);
    atomic_store(&cancel, false);
}
END_TEST

/* ---- what is sent ---- */

static struct fl_plan *plan;
static struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];

static int produce(const char *setting, uint64_t number, uint32_t rows, struct fl_produced *ret)
{
    static const char job[] = "name: d\nstrategy: {pacfl: {variant: published%s}}\nrounds: 9\n"
                              "model: {input: [%d], targets: 1, layers: [{linear: {out: 1}}]}\n"
                              "train: {batch: 4, lr: 0.1, steps: 5}\nround: {members: 4}\n";
    struct fl_dataset data = {.shape = {COLUMNS, 1, 1},
                              .train = {.count = rows, .x = x, .target = y, .target_width = 1}};
    struct fl_seed seed;
    struct fl_event event = {.count = 7};
    char text[512];

    plan = plan ? plan : fl_new(1, sizeof *plan);
    snprintf(text, sizeof text, job, setting, COLUMNS);
    ck_assert_msg(fl_plan_parse(plan, "job", text, strlen(text), &err) == 0, "%s", err.msg);
    (void)fl_plan_exchanges(plan, 1, terms);
    ck_assert_str_eq(terms[0].name, "descriptor");
    ck_assert_uint_eq(terms[0].elements, COLUMNS);
    fl_seed_from_u64(number, &seed);
    struct fl_produce in = {
        .plan = plan, .terms = &terms[0], .data = &data, .seed = &seed, .cancel = &cancel};
    const struct fl_producer *p = fl_producer_find("descriptor");
    ck_assert_int_eq(p->event(plan, &terms[0], &event, &err), 0);
    ck_assert_uint_eq(event.count, 0); /* nothing is claimed, nothing is debited */
    return p->make(&in, ret, &err);
}

START_TEST(test_what_is_sent)
{
    const struct fl_grid g = {.bits = 32, .step = -20};
    struct fl_produced a, b;
    double importance[COLUMNS], squares = 0;
    float got[COLUMNS];
    double sigma;

    draw(1, 0);
    ck_assert_int_eq(fl_boost_importances(x, y, ROWS, COLUMNS, 0, &cancel, importance, &err), 0);
    ck_assert_int_eq(produce(", laplace: 0", 1, ROWS, &a), 0);
    ck_assert_double_eq(a.noise_std, 0);
    ck_assert(fl_descriptor_read(plan, a.q, got, &sigma));
    ck_assert_uint_eq(fl_descriptor_length(plan), COLUMNS);
    ck_assert_double_eq(sigma, 0);
    for (int k = 0; k < COLUMNS; k++) {
        ck_assert_double_eq_tol((double)got[k], importance[k], ldexp(1, g.step));
    }
    fl_free(a.q);
    /* The same intent makes the same bytes, another one others; the noise is as large as said. */
    ck_assert_int_eq(produce(", laplace: 0.1", 1, ROWS, &a), 0);
    ck_assert_int_eq(produce(", laplace: 0.1", 1, ROWS, &b), 0);
    ck_assert_mem_eq(a.q, b.q, COLUMNS * sizeof *a.q);
    fl_free(b.q);
    fl_free(a.q);
    double std = 0;
    for (uint64_t n = 0; n < 60; n++) {
        ck_assert_int_eq(produce(", laplace: 0.1, rows: 1", n, 40, &a), 0);
        if (n == 0) {
            ck_assert_int_eq(fl_boost_importances(x, y, 40, COLUMNS, 0, &cancel, importance, &err),
                             0);
        }
        for (int k = 0; k < COLUMNS && a.noise_std > 0; k++) {
            double off = (ldexp((double)a.q[k], g.step) - importance[k]) / a.noise_std;
            squares += off * off;
            std++;
        }
        fl_free(a.q);
    }
    ck_assert_double_gt(std, 100);
    ck_assert_double_eq_tol(squares / std, 1, 0.6); /* 300 draws of kurtosis 6: 0.13 is one sigma */
}
END_TEST

START_TEST(test_bad_data)
{
    struct fl_produced a;
    bool hit = true;

    draw(1, 0);
    for (uint32_t rows = 0; rows < 2; rows++) { /* too few to tell anything */
        ck_assert_int_eq(produce("", 1, rows, &a), 0);
        for (int k = 0; k < COLUMNS; k++) {
            ck_assert_int_eq(a.q[k], 0);
        }
        fl_free(a.q);
    }
    for (uint64_t n = 1; hit; n++) { /* counted from the producer's own: XGBoost has its own heap */
        struct fl_exchange_terms *t = terms;
        struct fl_dataset data = {.shape = {COLUMNS, 1, 1},
                                  .train = {.count = 9, .x = x, .target = y, .target_width = 1}};
        struct fl_seed seed = {{0}};
        struct fl_produce in = {
            .plan = plan, .terms = t, .data = &data, .seed = &seed, .cancel = &cancel};
        fl_mem_fail_at(n);
        int r = fl_producer_find("descriptor")->make(&in, &a, &err);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        fl_free(a.q);
    }
    x[3] = NAN;
    ck_assert_int_eq(produce("", 1, ROWS, &a), -FL_R_NOT_FINITE);
    ck_assert_ptr_null(a.q);
}
END_TEST

TESTS_MAIN("importance", test_gains_are_those_of_the_naive_twin,
           test_classes_and_what_no_split_helps, test_what_is_sent, test_bad_data)
