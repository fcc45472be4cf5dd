/* Domain adaptation in local training: a site of two classes whose domain is shifted away from the
 * target's by a vector that says nothing about classes. */
#include "client/trainer/align.h"
#include "common/base/mem.h"
#include "common/math/rff.h"
#include "common/math/vec.h"
#include "common/plan/fedka.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { IN = 6, EXAMPLES = 160, WIDTH = 8 };

static struct fl_plan plan;
static struct fl_err err;

static struct world {
    struct fl_dataset source, target;
    float *base, *delta;
    struct fl_fedka_input input;
    uint8_t *bytes;
    size_t size;
} w;

/* Class in columns 0 and 1, domain in 2 and 3, noise everywhere. */
static void fill(struct fl_dataset *d, float shift, uint64_t number)
{
    struct fl_seed seed;
    struct fl_rng r;

    memset(d, 0, sizeof *d);
    d->shape[0] = IN;
    d->shape[1] = d->shape[2] = 1;
    d->classes = 2;
    d->train.count = EXAMPLES;
    d->train.x = fl_new((size_t)EXAMPLES * IN, sizeof *d->train.x);
    d->train.y = fl_new(EXAMPLES, sizeof *d->train.y);
    fl_seed_from_u64(number, &seed);
    fl_rng_init(&r, &seed, 0);
    for (int n = 0; n < EXAMPLES; n++) {
        d->train.y[n] = n % 2;
        for (int i = 0; i < IN; i++) {
            float mean = i < 2 ? (n % 2 ? 1.0f : -1.0f) : i < 4 ? shift : 0;
            d->train.x[n * IN + i] = mean + 0.5f * (float)fl_rng_normal(&r);
        }
    }
}

static void parse(const char *strategy)
{
    char text[1024];

    snprintf(text, sizeof text,
             "name: j\nstrategy: %s\nrounds: 4\nmodel: {input: [%d], classes: 2, head: 1, layers: "
             "[{linear: {out: %d}}, {leaky_relu: {}}, {linear: {out: 2}}]}\n"
             "train: {batch: 32, lr: 0.05, epochs: 12}\nround: {members: 2}\n",
             strategy, IN, WIDTH);
    memset(&err, 0, sizeof err);
    ck_assert_msg(fl_plan_parse(&plan, "job.yaml", text, strlen(text), &err) == 0, "%s", err.msg);
}

static void begin(const char *strategy)
{
    struct fl_seed seed;

    parse(strategy);
    fill(&w.source, 1.5f, 1);
    fill(&w.target, -1.5f, 2);
    w.base = fl_new(plan.layout.shared.elements, sizeof *w.base);
    w.delta = fl_new(plan.layout.shared.elements, sizeof *w.delta);
    fl_seed_from_u64(3, &seed);
    fl_layout_init_shared(&plan.layout, &seed, w.base);
}

static void end(void)
{
    fl_free(w.source.train.x);
    fl_free(w.source.train.y);
    fl_free(w.target.train.x);
    fl_free(w.target.train.y);
    fl_free(w.base);
    fl_free(w.delta);
    fl_free(w.bytes);
    memset(&w, 0, sizeof w);
}

/* Features of a data set by base + delta. */
static void features_of(const struct fl_dataset *d, float *z)
{
    struct fl_spec half[2];
    struct fl_model *m = NULL;
    size_t body;
    float *theta = fl_new(plan.layout.theta.elements, sizeof *theta);

    memcpy(theta, w.base, plan.layout.theta.elements * sizeof *theta);
    fl_vec_axpy(1, w.delta, theta, plan.layout.theta.elements);
    ck_assert_int_eq(fl_spec_split(&plan.layout.spec, half, &body, &err), 0);
    ck_assert_int_eq(fl_model_new(&half[0], 32, &m, &err), 0);
    fl_model_set(m, theta);
    fl_model_forward(m, d->train.x, EXAMPLES, z);
    fl_model_free(m);
    fl_free(theta);
}

/* What a coordinator that has the target would send. */
static void make_input(size_t features)
{
    static float z[EXAMPLES * WIDTH], mean[4000];
    struct fl_rff rff;
    struct fl_seed seed;
    size_t f = plan.setting.fedka.frequencies;
    float *angles = fl_new(EXAMPLES * f, sizeof *angles);
    double *sum = fl_new(2 * f, sizeof *sum);

    static float unit[EXAMPLES * WIDTH];
    features_of(&w.target, z);
    fl_rff_unit(z, EXAMPLES, WIDTH, unit);
    fl_fedka_seed(&plan, &seed);
    ck_assert_int_eq(fl_rff_init(&rff, &seed, WIDTH, f, &err), 0);
    w.input = (struct fl_fedka_input){.known = true,
                                      .bandwidth = fl_mmd_bandwidth(unit, EXAMPLES, unit, 0, WIDTH),
                                      .width = WIDTH,
                                      .length = 2 * f,
                                      .features = features,
                                      .mean = mean,
                                      .z = z};
    fl_rff_add(&rff, w.input.bandwidth, unit, EXAMPLES, angles, sum);
    for (size_t i = 0; i < 2 * f; i++) {
        mean[i] = (float)(sum[i] / EXAMPLES);
    }
    fl_rff_fini(&rff);
    fl_free(angles);
    fl_free(sum);
    fl_free(w.bytes);
    w.size = fl_fedka_input_size(&w.input);
    w.bytes = fl_new(w.size, 1);
    fl_fedka_input_put(&w.input, w.bytes);
}

static struct fl_train_task task_of(uint64_t round)
{
    struct fl_train_task t = {.plan = &plan,
                              .data = &w.source,
                              .base = w.base,
                              .private_in = w.base,
                              .round = round,
                              .input = w.bytes,
                              .input_size = w.size};

    fl_seed_from_u64(11, &t.seed);
    return t;
}

static int train(uint64_t round)
{
    struct fl_train_task t = task_of(round);
    float none;
    struct fl_train_result result = {.delta = w.delta, .private_out = &none};

    memset(&err, 0, sizeof err);
    return fl_train(&t, &result, &err);
}

/* How far the features are apart after a training of the last round. */
static double distance(const char *strategy, double *ret_accuracy)
{
    float own[EXAMPLES * WIDTH], other[EXAMPLES * WIDTH];
    struct fl_train_task t;
    double loss;

    begin(strategy);
    if (fl_fedka_gives(&plan)) {
        make_input(EXAMPLES);
    }
    ck_assert_msg(train(4) == 0, "%s", err.msg);
    features_of(&w.source, own);
    features_of(&w.target, other);
    double bandwidth = fl_mmd_bandwidth(own, EXAMPLES, other, EXAMPLES, WIDTH);
    double square = fl_mmd(own, EXAMPLES, other, EXAMPLES, WIDTH, bandwidth, 0, NULL);
    t = task_of(1);
    w.source.test = w.source.train;
    fl_vec_axpy(1, w.delta, w.base, plan.layout.shared.elements);
    ck_assert_int_eq(
        fl_train_evaluate(t.plan, t.data, w.base, t.private_in, ret_accuracy, &loss, &err), 0);
    end();
    return square;
}

START_TEST(test_each_part_brings_the_domains_together_and_keeps_the_classes)
{
    static const char *const parts[] = {
        "{fedka: {matching: 2, disentangle: 0, voting: false}}",
        "{fedka: {matching: 0, disentangle: 1, voting: false}}",
        "{fedka: {matching: 2, disentangle: 0.5, voting: false}}",
        "{fedka: {matching: 1, disentangle: 0, voting: false, variant: published}}",
    };
    double accuracy, plain = distance("fedavg", &accuracy);

    ck_assert_double_gt(accuracy, 0.95);
    ck_assert_double_gt(plain, 0.2);
    for (size_t i = 0; i < FL_COUNT(parts); i++) {
        double with = distance(parts[i], &accuracy);
        ck_assert_msg(with < 0.7 * plain, "%s: %g, without %g", parts[i], with, plain);
        ck_assert_msg(accuracy > 0.9, "%s: %g", parts[i], accuracy);
    }
}
END_TEST

START_TEST(test_the_ramp_begins_at_nothing_and_the_same_task_makes_the_same_bytes)
{
    float *first;
    size_t size;

    begin("{fedka: {disentangle: 1}}");
    make_input(EXAMPLES);
    size = plan.layout.shared.elements * sizeof *first;
    first = fl_new(1, size);
    ck_assert_int_eq(train(3), 0);
    memcpy(first, w.delta, size);
    ck_assert_int_eq(train(3), 0);
    ck_assert_mem_eq(first, w.delta, size);
    plan.rounds = 1000000000; /* p is 0 all through the round */
    ck_assert_int_eq(train(1), 0);
    memcpy(first, w.delta, size);
    snprintf(plan.strategy, sizeof plan.strategy, "fedavg");
    ck_assert_int_eq(train(1), 0);
    for (size_t i = 0; i < plan.layout.shared.elements; i++) {
        ck_assert_float_eq_tol(first[i], w.delta[i], 1e-5f);
    }
    fl_free(first);
    end();
}
END_TEST

START_TEST(test_switched_off_it_is_fedavg)
{
    float *first;
    size_t size;

    begin("{fedka: {matching: 0, disentangle: 0}}");
    size = plan.layout.shared.elements * sizeof *first;
    first = fl_new(1, size);
    ck_assert_int_eq(train(4), 0);
    memcpy(first, w.delta, size);
    end();
    begin("fedavg");
    ck_assert_int_eq(train(4), 0);
    ck_assert_mem_eq(first, w.delta, size);
    fl_free(first);
    end();
}
END_TEST

START_TEST(test_what_a_coordinator_sends_may_be_anything)
{
    begin("fedka");
    make_input(10);
    w.size--;
    ck_assert_int_eq(train(2), -FL_R_UPDATE_SHAPE);
    w.size++;
    memset(w.bytes + 28, 0xff, 4);
    ck_assert_int_eq(train(2), -FL_R_NOT_FINITE);
    w.size = 0; /* nothing at all, where there must be something */
    ck_assert_int_eq(train(2), -FL_R_UPDATE_SHAPE);
    end();
}
END_TEST

START_TEST(test_the_target_does_not_train)
{
    begin("{fedka: {target: site, site: harbour}}");
    w.input = (struct fl_fedka_input){
        .is_target = true, .bandwidth = 1, .width = WIDTH, .length = fl_fedka_embedding(&plan)};
    w.size = fl_fedka_input_size(&w.input);
    w.bytes = fl_new(w.size, 1);
    fl_fedka_input_put(&w.input, w.bytes);
    ck_assert_int_eq(train(2), 0);
    for (size_t i = 0; i < plan.layout.shared.elements; i++) {
        ck_assert(w.delta[i] == 0);
    }
    end();
}
END_TEST

START_TEST(test_an_embedding_is_the_mean_over_examples)
{
    float mean[500], z[EXAMPLES * WIDTH];
    double norm = 0;

    begin("{fedka: {target: none}}");
    make_input(0);
    w.input.bandwidth = 3;
    fl_fedka_input_put(&w.input, w.bytes);
    struct fl_train_task t = task_of(1);
    t.data = &w.target;
    ck_assert_msg(fl_train_embed(&t, mean, &err) == 0, "%s", err.msg);
    struct fl_rff rff;
    struct fl_seed seed;
    fl_fedka_seed(&plan, &seed);
    ck_assert_int_eq(fl_rff_init(&rff, &seed, WIDTH, 250, &err), 0);
    features_of(&w.target, z); /* delta is zero: the base */
    fl_rff_unit(z, EXAMPLES, WIDTH, z);
    for (size_t j = 0; j < 250; j += 17) {
        double cosine = 0;
        for (size_t n = 0; n < EXAMPLES; n++) {
            double angle = 0;
            for (size_t i = 0; i < WIDTH; i++) {
                angle += (double)rff.omega[j * WIDTH + i] * (double)z[n * WIDTH + i] / sqrt(3);
            }
            cosine += cos(angle) / sqrt(250) / EXAMPLES;
        }
        ck_assert_double_eq_tol((double)mean[j], cosine, 1e-6);
    }
    for (size_t i = 0; i < 500; i++) {
        norm += (double)mean[i] * (double)mean[i];
    }
    ck_assert_double_le(norm, 1 + 1e-5);
    ck_assert_double_gt(norm, 0.01);
    fl_rff_fini(&rff);
    end();
}
END_TEST

START_TEST(test_no_memory_is_an_error_at_every_allocation)
{
    int r = -1;

    begin("{fedka: {disentangle: 1}}");
    make_input(20);
    for (uint64_t n = 1; r < 0; n++) {
        ck_assert_uint_lt(n, 1000);
        fl_mem_fail_at(n);
        r = train(2);
        ck_assert(r == 0 || (r == -FL_R_NOMEM && fl_mem_fail_hit()));
    }
    fl_mem_fail_at(0);
    end();
}
END_TEST

TESTS_MAIN("align", test_each_part_brings_the_domains_together_and_keeps_the_classes,
           test_the_ramp_begins_at_nothing_and_the_same_task_makes_the_same_bytes,
           test_switched_off_it_is_fedavg, test_what_a_coordinator_sends_may_be_anything,
           test_the_target_does_not_train, test_an_embedding_is_the_mean_over_examples,
           test_no_memory_is_an_error_at_every_allocation)
