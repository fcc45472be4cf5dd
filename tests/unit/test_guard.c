#include "client/guard.h"
#include "common/nn/param/param.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <string.h>

static const struct way {
    enum fl_visibility visibility;
    struct fl_generator_conf generator;
} ways[] = {
    {FL_VISIBILITY_ALL_SHARED, {.kind = FL_GENERATOR_NONE}},
    {FL_VISIBILITY_HEAD_PRIVATE, {.kind = FL_GENERATOR_NONE}},
    {FL_VISIBILITY_BODY_GENERATED,
     {.kind = FL_GENERATOR_AFFINE, .embedding = 8, .hidden = 3, .scaled = true}},
    {FL_VISIBILITY_ALL_PRIVATE, {.kind = FL_GENERATOR_NONE}},
};

static void site_of(struct small_site *s, const struct way *w)
{
    struct fl_rng r;

    small_site_init(s, w->visibility,
                    w->generator.kind == FL_GENERATOR_NONE ? NULL : &w->generator);
    s->plan->rounds = 30;
    fl_rng_init(&r, &s->agent, 9);
    small_examples(&s->data.validation, 60, &r);
}

static void site_end(struct small_site *s)
{
    fl_free(s->data.validation.x);
    fl_free(s->data.validation.y);
    small_site_fini(s);
}

static struct fl_train_task task_of(const struct small_site *s)
{
    struct fl_train_task t = {
        .plan = s->plan, .data = &s->data, .base = s->shared, .private_in = s->private_};

    fl_seed_from_u64(4, &t.seed);
    return t;
}

/* The federation has done well: shared and private parts trained on many more examples. */
static void federate(struct small_site *s)
{
    const struct fl_layout *l = &s->plan->layout;
    struct fl_dataset many = s->data;
    struct fl_train_task t = task_of(s);
    struct fl_err e = {0};
    struct fl_rng r;
    struct fl_train_result made = {.delta = fl_new(l->shared.elements + 1, sizeof(float)),
                                   .private_out = fl_new(l->private_.elements + 1, sizeof(float))};

    fl_rng_init(&r, &s->agent, 11);
    small_examples(&many.train, 2000, &r);
    s->plan->train.epochs = 12;
    t.data = &many;
    ck_assert_msg(fl_train(&t, &made, &e) == 0, "%s", e.msg);
    s->plan->train.epochs = 3;
    for (size_t i = 0; i < l->shared.elements; i++) {
        s->shared[i] += made.delta[i];
    }
    memcpy(s->private_, made.private_out, l->private_.elements * sizeof(float));
    fl_free(made.delta);
    fl_free(made.private_out);
    fl_free(many.train.x);
    fl_free(many.train.y);
}

/* Loss of theta on the validation examples, by a plan that was made apart. */
static double loss_of(const struct small_site *s, const float *theta)
{
    struct small_site alone;
    struct fl_dataset on = s->data;
    double accuracy, loss;
    struct fl_err e = {0};

    small_site_init(&alone, FL_VISIBILITY_ALL_PRIVATE, NULL);
    on.test = s->data.validation;
    ck_assert_msg(fl_train_evaluate(alone.plan, &on, alone.shared, theta, &accuracy, &loss, &e) ==
                      0,
                  "%s", e.msg);
    small_site_fini(&alone);
    return loss;
}

START_TEST(test_a_bad_federated_model_does_not_serve)
{
    for (size_t w = 0; w < FL_COUNT(ways); w++) {
        struct small_site s;
        struct fl_guard_report x;
        struct fl_err e = {0};

        site_of(&s, &ways[w]); /* as initialised: it knows nothing */
        size_t n = s.plan->layout.theta.elements;
        float *theta = fl_new(n, sizeof *theta), *start = fl_new(n, sizeof *start);
        struct fl_train_task t = task_of(&s);
        ck_assert_msg(fl_guard_choose(&t, theta, &x, &e) == 0, "%s", e.msg);
        /* Training alone, and training all of what came, are the same thing here. */
        ck_assert(x.choice == FL_GUARD_ALONE || x.choice == FL_GUARD_FULL);
        ck_assert_double_lt(x.of[FL_GUARD_ALONE].validation_loss,
                            x.of[FL_GUARD_AS_IS].validation_loss - 0.2);
        ck_assert_double_gt(x.of[FL_GUARD_ALONE].test_accuracy, 0.75);
        ck_assert_double_eq_tol(loss_of(&s, theta), x.of[x.choice].validation_loss, 1e-9);
        ck_assert_int_eq(fl_param_make(&s.plan->layout, s.shared, s.private_, start, &e), 0);
        ck_assert_double_eq_tol(loss_of(&s, start), x.of[FL_GUARD_AS_IS].validation_loss, 1e-9);
        fl_free(theta);
        fl_free(start);
        site_end(&s);
    }
}
END_TEST

START_TEST(test_a_good_federated_model_serves)
{
    for (size_t w = 0; w < FL_COUNT(ways); w++) {
        struct small_site s;
        struct fl_guard_report x, again;
        struct fl_err e = {0};

        site_of(&s, &ways[w]);
        federate(&s);
        size_t n = s.plan->layout.theta.elements;
        float *theta = fl_new(n, sizeof *theta), *second = fl_new(n, sizeof *second);
        struct fl_train_task t = task_of(&s);
        ck_assert_msg(fl_guard_choose(&t, theta, &x, &e) == 0, "%s", e.msg);
        ck_assert_int_ne(x.choice, FL_GUARD_ALONE);
        for (int m = 0; m < FL_GUARD_MODELS; m++) {
            ck_assert(x.of[m].tried);
            ck_assert_double_ge(x.of[m].validation_loss, x.of[x.choice].validation_loss);
        }
        ck_assert_double_eq_tol(loss_of(&s, theta), x.of[x.choice].validation_loss, 1e-9);
        /* It says the same when it is asked again. */
        ck_assert_int_eq(fl_guard_choose(&t, second, &again, &e), 0);
        ck_assert_int_eq(again.choice, x.choice);
        ck_assert_mem_eq(theta, second, n * sizeof *theta);
        fl_free(theta);
        fl_free(second);
        site_end(&s);
    }
}
END_TEST

/* The body is as good as it gets and the head is spoilt: the layers that help are the last ones,
 * and each is of one model or of the other. */
START_TEST(test_parts_are_the_layers_that_help)
{
    struct small_site s;
    struct fl_guard_report x;
    struct fl_err e = {0};

    site_of(&s, &ways[0]);
    federate(&s);
    const struct fl_tensors *t = &s.plan->layout.theta;
    const struct fl_guard_score *parts = &x.of[FL_GUARD_PARTS];
    struct fl_train_task task = task_of(&s);
    float *theta = fl_new(t->elements, sizeof *theta);
    for (size_t i = t->at[t->count - 2].offset; i < t->elements; i++) {
        s.shared[i] = -s.shared[i];
    }
    ck_assert_msg(fl_guard_choose(&task, theta, &x, &e) == 0, "%s", e.msg);
    ck_assert(parts->tried && parts->setting >= 1);
    ck_assert_double_lt(parts->validation_loss, x.of[FL_GUARD_AS_IS].validation_loss - 0.5);
    ck_assert_double_le(parts->setting, t->count);
    for (int m = 0; m < FL_GUARD_MODELS; m++) {
        ck_assert_double_ge(x.of[m].validation_loss, x.of[x.choice].validation_loss);
    }
    ck_assert_double_eq_tol(loss_of(&s, theta), x.of[x.choice].validation_loss, 1e-9);
    if (x.choice == FL_GUARD_PARTS) { /* whole layers that are as they came, but not all */
        uint32_t came = 0;
        for (uint32_t i = 0; i < t->count; i++) {
            size_t at = t->at[i].offset, n = t->at[i].count;
            came += memcmp(theta + at, s.shared + at, n * sizeof *theta) == 0;
        }
        ck_assert_uint_gt(came, 0);
        ck_assert_uint_lt(came, t->count);
        ck_assert_double_lt(parts->validation_loss, x.of[FL_GUARD_FULL].validation_loss);
    }
    fl_free(theta);
    site_end(&s);
}
END_TEST

/* Rates that send tuning astray leave the model that came. */
START_TEST(test_training_that_diverges_is_no_choice)
{
    struct small_site s;
    struct fl_guard_report x;
    struct fl_err e = {0};

    site_of(&s, &ways[0]);
    federate(&s);
    s.plan->train.body.lr = s.plan->train.head.lr = s.plan->train.serve_lr = 1e30f;
    float *theta = fl_new(s.plan->layout.theta.elements, sizeof *theta);
    struct fl_train_task t = task_of(&s);
    ck_assert_msg(fl_guard_choose(&t, theta, &x, &e) == 0, "%s", e.msg);
    ck_assert(!x.of[FL_GUARD_ALONE].tried && !x.of[FL_GUARD_FULL].tried);
    ck_assert(x.choice == FL_GUARD_AS_IS || x.choice == FL_GUARD_HEAD);
    for (size_t i = 0; i < s.plan->layout.theta.elements; i++) {
        ck_assert(isfinite(theta[i]));
    }
    fl_free(theta);
    site_end(&s);
}
END_TEST

START_TEST(test_what_cannot_be_chosen)
{
    struct small_site s;
    struct fl_guard_report x;
    struct fl_err e = {0};
    atomic_bool cancel = true;
    int code = -1;

    site_of(&s, &ways[1]);
    float *theta = fl_new(s.plan->layout.theta.elements, sizeof *theta);
    struct fl_train_task t = task_of(&s);
    t.cancel = &cancel;
    ck_assert_int_eq(fl_guard_choose(&t, theta, &x, &e), -FL_R_CANCELLED);
    t.cancel = NULL;
    s.plan->rounds = 1;
    for (uint64_t n = 1; code < 0; n++) {
        ck_assert_uint_lt(n, 2000);
        fl_mem_fail_at(n);
        code = fl_guard_choose(&t, theta, &x, &e);
        ck_assert_msg(code == 0 || (code == -FL_R_NOMEM && fl_mem_fail_hit()), "%d %s", code,
                      e.msg);
    }
    fl_mem_fail_at(0);
    s.plan->trainer = FL_TRAINER_EXEC;
    ck_assert_int_eq(fl_guard_choose(&t, theta, &x, &e), -FL_R_TRAIN);
    s.plan->trainer = FL_TRAINER_BUILTIN;
    s.data.validation.count = 0;
    ck_assert_int_eq(fl_guard_choose(&t, theta, &x, &e), -FL_R_DATA_EMPTY);
    fl_free(theta);
    site_end(&s);
}
END_TEST

TESTS_MAIN("guard", test_a_bad_federated_model_does_not_serve, test_a_good_federated_model_serves,
           test_parts_are_the_layers_that_help, test_training_that_diverges_is_no_choice,
           test_what_cannot_be_chosen)
