#include "common/base/mem.h"
#include "common/nn/spec.h"
#include "tests/lib/check_main.h"
#include "tests/lib/nets.h"

#include <math.h>
#include <string.h>

static struct fl_layout *layout_of(enum fl_visibility v, const struct fl_generator_conf *g)
{
    struct fl_spec spec;
    struct fl_err e = {0};
    struct fl_layout *layout = fl_new(1, sizeof *layout);

    nets_fmnist(&spec);
    ck_assert_msg(fl_spec_check(&spec, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_layout_init(layout, &spec, v, g, &e) == 0, "%s", e.msg);
    return layout;
}

START_TEST(test_fmnist_shapes_and_names)
{
    struct fl_layout *l = layout_of(FL_VISIBILITY_ALL_SHARED, NULL);

    ck_assert_uint_eq(l->theta.elements, 117066);
    ck_assert_uint_eq(l->shared.elements, 117066);
    ck_assert_uint_eq(l->private_.elements, 0);
    ck_assert_str_eq(l->theta.at[0].name, "conv1.weight");
    ck_assert_str_eq(l->theta.at[7].name, "fc2.bias");
    ck_assert_uint_eq(l->theta.at[4].fan_in, 800);
    ck_assert_uint_eq(l->spec.layers[3].in_shape[1], 12);
    ck_assert_uint_eq(l->spec.layers[5].out_shape[2], 5);
    fl_free(l);
}
END_TEST

START_TEST(test_groups_follow_the_strategy)
{
    struct fl_layout *l = layout_of(FL_VISIBILITY_HEAD_PRIVATE, NULL);
    ck_assert_uint_eq(l->shared.elements, 115776);
    ck_assert_uint_eq(l->private_.elements, 1290);
    fl_free(l);
    l = layout_of(FL_VISIBILITY_ALL_PRIVATE, NULL);
    ck_assert_uint_eq(l->shared.elements, 0);
    ck_assert_uint_eq(l->private_.elements, 117066);
    fl_free(l);
}
END_TEST

START_TEST(test_generator_sizes_are_the_published_ones)
{
    struct fl_generator_conf g = {.kind = FL_GENERATOR_AFFINE, .embedding = 64, .hidden = 128};
    struct fl_layout *l = layout_of(FL_VISIBILITY_BODY_GENERATED, &g);

    ck_assert_uint_eq(l->generated, 115776);
    ck_assert_uint_eq(l->shared.elements, 14943424);
    ck_assert_uint_eq(l->private_.elements, 1290 + 64);
    ck_assert_str_eq(l->shared.at[2].name, "hyper.conv1.weight.w");
    ck_assert_str_eq(l->private_.at[2].name, "embedding");
    fl_free(l);

    g = (struct fl_generator_conf){.kind = FL_GENERATOR_KRONECKER, .embedding = 128, .hidden = 64};
    l = layout_of(FL_VISIBILITY_BODY_GENERATED, &g);
    ck_assert_uint_eq(l->shared.elements, 70136);
    fl_free(l);

    g = (struct fl_generator_conf){
        .kind = FL_GENERATOR_CHUNKED, .embedding = 8, .hidden = 16, .chunk = 1000};
    l = layout_of(FL_VISIBILITY_BODY_GENERATED, &g);
    ck_assert_uint_eq(l->shared.elements, 16 * 8 * 2 + 16 + 116 * 8 + 17 * 1000);
    fl_free(l);
}
END_TEST

static double std_of(const float *x, size_t count)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    return sqrt(squares / (double)count - sum / (double)count * (sum / (double)count));
}

START_TEST(test_initial_values_have_their_bounds_and_owners)
{
    struct fl_generator_conf g = {
        .kind = FL_GENERATOR_AFFINE, .embedding = 64, .hidden = 4, .scaled = true};
    struct fl_seed job, a, b;

    fl_seed_from_u64(1, &job);
    fl_seed_from_u64(2, &a);
    fl_seed_from_u64(3, &b);
    for (int scaled = 0; scaled < 2; scaled++) {
        g.scaled = scaled;
        struct fl_layout *l = layout_of(FL_VISIBILITY_BODY_GENERATED, &g);
        float *shared = fl_new(l->shared.elements, sizeof *shared);
        float *p = fl_new(l->private_.elements, sizeof *p);
        float *q = fl_new(l->private_.elements, sizeof *q);

        fl_layout_init_shared(l, &job, shared);
        fl_layout_init_private(l, &job, &a, p);
        fl_layout_init_private(l, &job, &b, q);
        ck_assert_int_eq(memcmp(p, q, l->private_.elements * sizeof *p) != 0, scaled);
        const struct fl_tensor *fc1 = &l->shared.at[6];
        ck_assert_str_eq(fc1->name, "hyper.fc1.weight.w");
        double want =
            scaled ? 1 / sqrt(3 * 800.0) / sqrt(4 * (1 + 1 / 64.0) / 6 + 1) : 1 / sqrt(3 * 4.0);
        ck_assert_double_eq_tol(std_of(shared + fc1->offset, fc1->count), want, want * 0.01);
        ck_assert_double_eq_tol(std_of(p + 1290, 64), 1, 0.3);
        fl_free(shared);
        fl_free(p);
        fl_free(q);
        fl_free(l);
    }
}
END_TEST

/* Each change makes a good model a bad one; the message must name the layer and line. */
static void refused(void (*spoil)(struct fl_spec *), const char *says)
{
    struct fl_spec spec;
    struct fl_err e = {0};

    nets_fmnist(&spec);
    for (uint32_t i = 0; i < spec.layer_count; i++) {
        spec.layers[i].line = 10 + i;
    }
    spoil(&spec);
    ck_assert_int_eq(fl_spec_check(&spec, &e), -FL_R_PLAN_MODEL);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' lacks '%s'", e.msg, says);
}

static void no_flatten(struct fl_spec *s)
{
    memmove(&s->layers[6], &s->layers[7], 3 * sizeof s->layers[0]);
    s->layer_count--;
}
static void big_kernel(struct fl_spec *s)
{
    s->layers[3].kernel = 20;
}
static void big_pool(struct fl_spec *s)
{
    s->layers[5].kernel = 11;
}
static void wrong_classes(struct fl_spec *s)
{
    s->classes = 11;
}
static void zero_out(struct fl_spec *s)
{
    s->layers[7].out = 0;
}
static void huge_out(struct fl_spec *s)
{
    s->layers[7].out = UINT32_MAX;
}
static void huge_conv(struct fl_spec *s)
{
    s->layers[0].out = UINT32_MAX;
}
static void twice(struct fl_spec *s)
{
    memcpy(s->layers[0].name, "same", sizeof "same");
    memcpy(s->layers[3].name, "same", sizeof "same");
}
static void bad_name(struct fl_spec *s)
{
    memcpy(s->layers[0].name, "a b", sizeof "a b");
}
static void bad_slope(struct fl_spec *s)
{
    s->layers[1].slope = NAN;
}
static void bad_kind(struct fl_spec *s)
{
    s->layers[1].kind = (enum fl_layer_kind)99;
}
static void big_head(struct fl_spec *s)
{
    s->head = 5;
}
static void no_layers(struct fl_spec *s)
{
    s->layer_count = 0;
}
static void huge_input(struct fl_spec *s)
{
    s->input[0] = s->input[1] = s->input[2] = 1 << 25;
}

START_TEST(test_what_does_not_fit_is_refused_by_name)
{
    refused(no_flatten, "layer fc1 (line 17): a linear layer takes a vector");
    refused(big_kernel, "layer conv2 (line 13)");
    refused(big_pool, "layer pool2 (line 15)");
    refused(wrong_classes, "layer fc2 (line 19)");
    refused(zero_out, "layer fc1 (line 17)");
    refused(huge_out, "2^26");
    refused(huge_conv, "2^26");
    refused(twice, "two layers of this name");
    refused(bad_name, "letters, digits");
    refused(bad_slope, "layer relu1 (line 11)");
    refused(bad_kind, "unknown kind");
    refused(big_head, "a head of 5");
    refused(no_layers, "layers");
    refused(huge_input, "input");
}
END_TEST

START_TEST(test_layout_refuses_groups_without_sense)
{
    struct fl_layout *l = fl_new(1, sizeof *l);
    struct fl_generator_conf g = {.kind = FL_GENERATOR_AFFINE, .embedding = 64, .hidden = 60000};
    struct fl_spec spec;
    struct fl_err e = {0};

    nets_fmnist(&spec);
    ck_assert_int_eq(fl_spec_check(&spec, &e), 0);
    ck_assert_int_eq(fl_layout_init(l, &spec, FL_VISIBILITY_BODY_GENERATED, NULL, &e),
                     -FL_R_PLAN_MODEL);
    ck_assert_int_eq(fl_layout_init(l, &spec, FL_VISIBILITY_ALL_SHARED, &g, &e), -FL_R_PLAN_MODEL);
    ck_assert_int_eq(fl_layout_init(l, &spec, FL_VISIBILITY_BODY_GENERATED, &g, &e),
                     -FL_R_PLAN_MODEL);
    ck_assert_ptr_nonnull(strstr(e.msg, "2^31"));
    spec.head = 0;
    ck_assert_int_eq(fl_layout_init(l, &spec, FL_VISIBILITY_HEAD_PRIVATE, NULL, &e),
                     -FL_R_PLAN_MODEL);
    fl_free(l);
}
END_TEST

TESTS_MAIN("spec", test_fmnist_shapes_and_names, test_groups_follow_the_strategy,
           test_generator_sizes_are_the_published_ones,
           test_initial_values_have_their_bounds_and_owners,
           test_what_does_not_fit_is_refused_by_name, test_layout_refuses_groups_without_sense)
