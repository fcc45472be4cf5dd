/* Batch norm in training: whose its tensors are, how running statistics move, where it is refused.
 * Its values are compared with PyTorch's in test_layers.c. */
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/nn/model.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct fl_err err;

static void norm_site(struct small_site *s, enum fl_visibility v)
{
    struct fl_spec spec = {
        .input = {1, 8, 8},
        .classes = 3,
        .head = 1,
        .layer_count = 6,
        .layers = {{.kind = FL_LAYER_CONV2D, .out = 4, .kernel = 3, .stride = 1},
                   {.kind = FL_LAYER_BATCH_NORM},
                   {.kind = FL_LAYER_LEAKY_RELU},
                   {.kind = FL_LAYER_MAX_POOL, .kernel = 2},
                   {.kind = FL_LAYER_FLATTEN},
                   {.kind = FL_LAYER_LINEAR, .out = 3}},
    };

    small_site_init(s, FL_VISIBILITY_ALL_SHARED, NULL);
    ck_assert_msg(fl_spec_check(&spec, &err) == 0, "%s", err.msg);
    ck_assert_msg(fl_layout_init(&s->plan->layout, &spec, v, NULL, &err) == 0, "%s", err.msg);
    fl_free(s->shared);
    fl_free(s->private_);
    s->shared = fl_new(s->plan->layout.shared.elements + 1, sizeof *s->shared);
    s->private_ = fl_new(s->plan->layout.private_.elements + 1, sizeof *s->private_);
    fl_layout_init_shared(&s->plan->layout, &s->job, s->shared);
    fl_layout_init_private(&s->plan->layout, &s->job, &s->agent, s->private_);
}

struct outcome {
    float delta[300], private_[32];
    struct fl_train_report report;
};

static void train(struct small_site *s, struct outcome *o)
{
    struct fl_train_task t = {.plan = s->plan,
                              .data = &s->data,
                              .base = s->shared,
                              .private_in = s->private_,
                              .seed = s->agent};
    struct fl_train_result result = {.delta = o->delta, .private_out = o->private_};

    ck_assert_msg(fl_train(&t, &result, &err) == 0, "%s", err.msg);
    o->report = result.report;
}

START_TEST(test_norms_stay_at_home)
{
    struct outcome o = {.report = {0}};
    struct small_site s;

    norm_site(&s, FL_VISIBILITY_NORMS_PRIVATE);
    const struct fl_tensors *p = &s.plan->layout.private_;
    ck_assert_uint_eq(p->count, 4);
    ck_assert_str_eq(p->at[0].name, "bn1.weight");
    ck_assert(!p->at[1].buffer && p->at[2].buffer && p->at[3].buffer);
    ck_assert_uint_eq(s.plan->layout.shared.elements, 4 * 9 + 4 + 3 * 36 + 3);
    s.plan->train.epochs = 15;
    train(&s, &o);
    ck_assert_double_gt(o.report.accuracy_trained, 0.8);
    for (uint32_t i = 0; i < p->elements; i++) {
        ck_assert(o.private_[i] != s.private_[i]);
    }
    small_site_fini(&s);
}
END_TEST

/* The optimizer has no hand in running statistics: they are those of the one batch. */
START_TEST(test_statistics_are_not_trained)
{
    struct outcome one = {.report = {0}}, decayed = {.report = {0}};
    struct small_site s;

    norm_site(&s, FL_VISIBILITY_NORMS_PRIVATE);
    s.plan->train.batch = s.data.train.count;
    s.plan->train.steps = 1;
    train(&s, &one);
    s.plan->train.body.weight_decay = 1;
    s.plan->train.body.lr = 0.5f;
    train(&s, &decayed);
    const struct fl_tensors *p = &s.plan->layout.private_;
    size_t mean = p->at[2].offset;
    ck_assert_mem_eq(one.private_ + mean, decayed.private_ + mean, 8 * sizeof(float));
    ck_assert(one.private_[0] != decayed.private_[0]);
    for (size_t i = 0; i < 4; i++) { /* 0.9 of 1 and 0.1 of something above 0 */
        ck_assert(one.private_[p->at[3].offset + i] > 0.9f);
    }
    small_site_fini(&s);
}
END_TEST

START_TEST(test_a_variance_below_zero_serves)
{
    struct small_site s;
    struct fl_model *m;
    float out[3];

    norm_site(&s, FL_VISIBILITY_ALL_SHARED);
    s.shared[s.plan->layout.theta.at[5].offset + 1] = -0.5f; /* out of a noised average */
    ck_assert_str_eq(s.plan->layout.theta.at[5].name, "bn1.variance");
    ck_assert_int_eq(fl_model_new(&s.plan->layout.spec, 4, &m, &err), 0);
    fl_model_set(m, s.shared);
    fl_model_forward(m, s.data.test.x, 1, out);
    ck_assert(isfinite(out[0]) && isfinite(out[1]) && isfinite(out[2]));
    fl_model_free(m);
    small_site_fini(&s);
}
END_TEST

static int parse(const char *strategy, const char *layer, const char *more, struct fl_plan *plan)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "name: norms\nstrategy: %s\nrounds: 1\nmodel:\n  input: [1, 8, 8]\n"
                     "  classes: 3\n  layers:\n    - conv2d: {out: 4, kernel: 3}\n%s"
                     "    - flatten:\n    - linear: {out: 3}\n"
                     "train: {lr: 0.1, steps: 5}\nround: {members: 2}\ngrid: {bits: 32}\n%s",
                     strategy, layer, more);

    return fl_plan_parse(plan, "job.yaml", text, (size_t)n, &err);
}

START_TEST(test_jobs)
{
    static const char batch[] = "    - batch_norm:\n", group[] = "    - group_norm: {groups: 2}\n";
    static const char example[] = "privacy: {unit: example, clip: 1, delta: 1e-5, "
                                  "noise_multiplier: 1, sampling_rate: 0.1, examples: 1000}\n";
    static const char client[] =
        "privacy: {unit: client, clip: 1, delta: 1e-5, noise_multiplier: 1}\n";
    struct fl_plan *plan = fl_new(1, sizeof *plan);

    ck_assert_msg(parse("fedbn", batch, client, plan) == 0, "%s", err.msg);
    ck_assert_int_eq(plan->layout.visibility, FL_VISIBILITY_NORMS_PRIVATE);
    ck_assert_uint_eq(plan->layout.private_.elements, 16);
    ck_assert_msg(parse("fedavg", batch, client, plan) == 0, "%s", err.msg);
    ck_assert_uint_eq(plan->layout.private_.elements, 0);
    ck_assert_msg(parse("fedbn", group, example, plan) == 0, "%s", err.msg);
    ck_assert_int_eq(parse("fedbn", batch, example, plan), -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_nonnull(strstr(err.msg, "layer bn1 (line 9) is a batch norm"));
    ck_assert_ptr_nonnull(strstr(err.msg, "Use group_norm"));
    ck_assert_int_eq(parse("local", batch, example, plan), -FL_R_PLAN_PRIVACY);
    ck_assert_int_eq(parse("fedbn", "", "", plan), -FL_R_PLAN_MODEL);
    ck_assert_ptr_nonnull(strstr(err.msg, "the model has none"));
    ck_assert_int_eq(parse("fedavg", batch,
                           "set: {model.parameters: [{layers: [fc1], kind: low_rank, rank: 2}]}\n",
                           plan),
                     -FL_R_PLAN_MODEL);
    ck_assert_ptr_nonnull(strstr(err.msg, "keeps running statistics"));
    ck_assert_int_eq(parse("hyperfl", batch, "", plan), -FL_R_PLAN_MODEL);
    fl_free(plan);
}
END_TEST

TESTS_MAIN("batch-norm", test_norms_stay_at_home, test_statistics_are_not_trained,
           test_a_variance_below_zero_serves, test_jobs)
