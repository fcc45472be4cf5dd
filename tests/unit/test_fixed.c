/* Fixed feature layers: random Fourier features against their definition and the kernel they stand
 * for, where fixed layers may stand, and training on features that are kept. Scattering's values
 * are compared with PyTorch's in test_layers.c. */
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/nn/model.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <string.h>

static struct fl_err err;

/* ---- random Fourier features ---- */

static void fourier_of(uint32_t out, float bandwidth, uint64_t seed, const float *x, size_t count,
                       float *ret)
{
    struct fl_spec spec = {
        .input = {5, 1, 1},
        .classes = 2,
        .seed = seed,
        .layer_count = 2,
        .layers = {{.kind = FL_LAYER_FOURIER, .out = out, .bandwidth = bandwidth},
                   {.kind = FL_LAYER_LINEAR, .out = 2}},
    };
    struct fl_spec part[2];
    struct fl_model *m;

    ck_assert_msg(fl_spec_check(&spec, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(fl_spec_fixed(&spec), 1);
    fl_spec_cut(&spec, 1, part);
    ck_assert_int_eq(fl_model_new(&part[0], 3, &m, &err), 0);
    fl_model_set(m, NULL);
    fl_model_forward(m, x, count, ret);
    fl_model_free(m);
}

START_TEST(test_fourier_features_are_a_kernel)
{
    enum { OUT = 20000, COUNT = 4 };
    static const float x[COUNT][5] = {
        {0.3f, -1, 0.5f, 0, 2}, {0.3f, -1, 0.5f, 0, 2.5f}, {1, 0, 0.5f, 0.2f, 2}, {-2, 1, 1, 1, 1}};
    float *z = fl_new((size_t)OUT * COUNT, sizeof *z);

    fourier_of(OUT, 1.5f, 9, &x[0][0], COUNT, z);
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < COUNT; k++) {
            double far = 0, dot = 0;
            for (int c = 0; c < 5; c++) {
                far += pow((double)x[i][c] - (double)x[k][c], 2);
            }
            for (size_t o = 0; o < OUT; o++) {
                dot += (double)z[(size_t)i * OUT + o] * (double)z[(size_t)k * OUT + o];
            }
            /* an average of OUT terms of variance 1/2 at most: 6 standard deviations */
            ck_assert_double_eq_tol(dot, exp(-far / (2 * 1.5 * 1.5)), 6 * sqrt(0.5 / OUT));
        }
    }
    fl_free(z);
}
END_TEST

START_TEST(test_fourier_features_are_of_the_seed)
{
    enum { OUT = 7 };
    static const float x[5] = {0.3f, -1, 0.5f, 0, 2};
    struct fl_seed job, own;
    struct fl_rng r;
    double sum[OUT] = {0};
    float z[OUT], other[OUT];

    fourier_of(OUT, 0, 9, x, 1, z);
    fl_seed_from_u64(9, &job);
    fl_seed_derive(&job, "fourier1", 0, &own);
    fl_rng_init(&r, &own, 0);
    for (int i = 0; i < OUT * 5; i++) { /* bandwidth 0: the root of the inputs' number */
        sum[i / 5] += (double)x[i % 5] * (double)(float)(fl_rng_normal(&r) / sqrt(5));
    }
    for (int i = 0; i < OUT; i++) {
        double phase = (double)(float)(2 * M_PI * fl_rng_unit(&r));
        ck_assert_double_eq_tol((double)z[i], sqrt(2.0 / OUT) * cos(sum[i] + phase), 1e-6);
    }
    fl_rng_fini(&r);
    fourier_of(OUT, 0, 10, x, 1, other);
    ck_assert_mem_ne(z, other, sizeof z);
}
END_TEST

/* ---- where they stand ---- */

static void refused(const struct fl_layer *layers, uint32_t count, const char *why)
{
    struct fl_spec spec = {.input = {1, 8, 8}, .classes = 3, .head = 1, .layer_count = count};

    memcpy(spec.layers, layers, count * sizeof *layers);
    ck_assert_int_eq(fl_spec_check(&spec, &err), -FL_R_PLAN_MODEL);
    ck_assert_msg(strstr(err.msg, why) != NULL, "%s", err.msg);
}

START_TEST(test_they_come_first_and_fit)
{
    const struct fl_layer scattering = {
        .kind = FL_LAYER_SCATTERING, .scales = 1, .angles = 4, .order = 1};
    const struct fl_layer behind[] = {{.kind = FL_LAYER_CONV2D, .out = 2, .kernel = 1, .stride = 1},
                                      scattering};
    const struct fl_layer inside[] = {{.kind = FL_LAYER_FORK}, scattering, {.kind = FL_LAYER_JOIN}};
    const struct fl_layer large[] = {
        {.kind = FL_LAYER_SCATTERING, .scales = 2, .angles = 4, .order = 1}};
    const struct fl_layer image[] = {{.kind = FL_LAYER_FOURIER, .out = 10}};
    const struct fl_layer angles[] = {
        {.kind = FL_LAYER_SCATTERING, .scales = 1, .angles = 17, .order = 1}};

    refused(behind, 2, "layer scattering1: fixed features come first");
    refused(inside, 3, "layer scattering1: fixed features come first");
    refused(large, 1, "windows of 2 scales are too large for an image of 8 x 8");
    refused(image, 1, "layer fourier1: it takes a vector");
    refused(angles, 1, "angles 1 to 16");
}
END_TEST

/* ---- training on them ---- */

static void fixed_site(struct small_site *s)
{
    struct fl_spec spec = {
        .input = {1, 8, 8},
        .classes = 3,
        .head = 1,
        .seed = 4,
        .layer_count = 6,
        .layers = {{.kind = FL_LAYER_SCATTERING, .scales = 1, .angles = 4, .order = 1},
                   {.kind = FL_LAYER_FLATTEN},
                   {.kind = FL_LAYER_FOURIER, .out = 30, .bandwidth = 2},
                   {.kind = FL_LAYER_LINEAR, .out = 8},
                   {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.1f},
                   {.kind = FL_LAYER_LINEAR, .out = 3}},
    };

    small_site_init(s, FL_VISIBILITY_HEAD_PRIVATE, NULL);
    ck_assert_msg(fl_spec_check(&spec, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(fl_spec_fixed(&spec), 3);
    ck_assert_int_eq(
        fl_layout_init(&s->plan->layout, &spec, FL_VISIBILITY_HEAD_PRIVATE, NULL, &err), 0);
    ck_assert_uint_eq(s->plan->layout.shared.elements, 30 * 8 + 8);
    s->plan->train.body.lr = s->plan->train.head.lr = 0.5f;
    s->plan->train.epochs = 20;
    s->plan->train.head_epochs = 2;
    s->plan->train.serve_epochs = 1;
    s->plan->train.serve_lr = 0.05f;
    fl_layout_init_shared(&s->plan->layout, &s->job, s->shared);
    fl_layout_init_private(&s->plan->layout, &s->job, &s->agent, s->private_);
}

struct outcome {
    float delta[300], private_[40];
    struct fl_train_report report;
};

static int train(struct small_site *s, struct fl_features *kept, struct outcome *o)
{
    struct fl_train_task t = {.plan = s->plan,
                              .data = &s->data,
                              .base = s->shared,
                              .private_in = s->private_,
                              .kept = kept,
                              .seed = s->agent};
    struct fl_train_result result = {.delta = o->delta, .private_out = o->private_};

    int r = fl_train(&t, &result, &err);
    o->report = result.report;
    return r;
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    ck_assert_mem_eq(a->delta, b->delta, sizeof a->delta);
    ck_assert_mem_eq(a->private_, b->private_, sizeof a->private_);
    ck_assert_double_eq(a->report.accuracy_trained, b->report.accuracy_trained);
    ck_assert_double_eq(a->report.accuracy_served, b->report.accuracy_served);
    ck_assert_double_eq(a->report.loss, b->report.loss);
}

START_TEST(test_kept_features_change_nothing)
{
    struct fl_features kept = {.most = 1 << 20}, small = {.most = 1000};
    struct outcome plain = {.report = {0}}, first = {.report = {0}}, again = {.report = {0}},
                   computed = {.report = {0}};
    struct small_site s;

    fixed_site(&s);
    ck_assert_int_eq(train(&s, NULL, &plain), 0);
    ck_assert_double_gt(plain.report.accuracy_trained, 0.4);
    ck_assert_int_eq(train(&s, &kept, &first), 0);
    ck_assert_uint_eq(kept.bytes, (43 + 90) * 30 * sizeof(float));
    const float *was = kept.train;
    ck_assert_int_eq(train(&s, &kept, &again), 0);
    ck_assert_ptr_eq(kept.train, was); /* nothing was made again */
    ck_assert_int_eq(train(&s, &small, &computed), 0);
    ck_assert_ptr_null(small.train);
    check_same(&plain, &first);
    check_same(&plain, &again);
    check_same(&plain, &computed);
    fl_features_fini(&kept);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_kept_features_are_of_their_data_and_layers)
{
    struct fl_features kept = {0};
    struct outcome own = {.report = {0}}, with = {.report = {0}};
    struct small_site s;

    fixed_site(&s);
    ck_assert_int_eq(train(&s, &kept, &with), 0);
    s.plan->layout.spec.layers[2].seed++; /* another job's */
    ck_assert_int_eq(train(&s, &kept, &with), 0);
    ck_assert_int_eq(train(&s, NULL, &own), 0);
    check_same(&own, &with);
    s.plan->data.mean[0] = 0.5f;
    ck_assert_int_eq(train(&s, &kept, &with), 0);
    ck_assert_int_eq(train(&s, NULL, &own), 0);
    check_same(&own, &with);
    s.data.train.x[7] += 1;
    s.data.digest.bytes[0]++;
    ck_assert_int_eq(train(&s, &kept, &with), 0);
    ck_assert_int_eq(train(&s, NULL, &own), 0);
    check_same(&own, &with);
    s.plan->data.flip = true; /* what is mirrored anew each time is not kept */
    ck_assert_int_eq(train(&s, &kept, &with), 0);
    ck_assert_int_eq(train(&s, NULL, &own), 0);
    check_same(&own, &with);
    ck_assert_ptr_null(kept.train);
    ck_assert_ptr_nonnull(kept.test);
    fl_features_fini(&kept);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_a_network_without_tensors_before_the_head_takes_noised_steps)
{
    struct small_site s;
    struct outcome a = {.report = {0}}, b = {.report = {0}};
    struct fl_features kept = {0};

    fixed_site(&s);
    s.plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_EXAMPLE,
                                               .clip = 1,
                                               .noise_multiplier = 1,
                                               .sampling_rate = 0.3,
                                               .examples = 43};
    s.plan->train.steps = 5;
    s.plan->train.head_epochs = 0;
    ck_assert_msg(train(&s, &kept, &a) == 0, "%s", err.msg);
    ck_assert_int_eq(train(&s, NULL, &b), 0);
    check_same(&a, &b);
    ck_assert_uint_eq(a.report.steps, 5);
    fl_features_fini(&kept);
    small_site_fini(&s);
}
END_TEST

TESTS_MAIN("fixed", test_fourier_features_are_a_kernel, test_fourier_features_are_of_the_seed,
           test_they_come_first_and_fit, test_kept_features_change_nothing,
           test_kept_features_are_of_their_data_and_layers,
           test_a_network_without_tensors_before_the_head_takes_noised_steps)
