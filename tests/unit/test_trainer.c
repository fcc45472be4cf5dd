#include "client/trainer/augment.h"
#include "client/trainer/trainer.h"
#include "common/nn/tensors.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <string.h>

/* The ways to divide a model, with generators of every kind. */
static const struct way {
    enum fl_visibility visibility;
    struct fl_generator_conf generator;
} ways[] = {
    {FL_VISIBILITY_ALL_SHARED, {.kind = FL_GENERATOR_NONE}},
    {FL_VISIBILITY_HEAD_PRIVATE, {.kind = FL_GENERATOR_NONE}},
    {FL_VISIBILITY_ALL_PRIVATE, {.kind = FL_GENERATOR_NONE}},
    {FL_VISIBILITY_BODY_GENERATED,
     {.kind = FL_GENERATOR_AFFINE, .embedding = 8, .hidden = 3, .scaled = true}},
    {FL_VISIBILITY_BODY_GENERATED,
     {.kind = FL_GENERATOR_AFFINE, .embedding = 8, .hidden = 64, .scaled = true}},
    {FL_VISIBILITY_BODY_GENERATED,
     {.kind = FL_GENERATOR_KRONECKER, .embedding = 8, .hidden = 8, .scaled = true}},
    {FL_VISIBILITY_BODY_GENERATED,
     {.kind = FL_GENERATOR_CHUNKED, .embedding = 8, .hidden = 8, .chunk = 100, .scaled = true}},
};
enum { WAYS = sizeof ways / sizeof ways[0] };

static void site_of(struct small_site *s, const struct way *w)
{
    small_site_init(s, w->visibility,
                    w->generator.kind == FL_GENERATOR_NONE ? NULL : &w->generator);
}

struct run {
    float *delta, *private_out;
    struct fl_train_result result;
    size_t shared, private_;
};

static void run_init(struct run *r, const struct small_site *s)
{
    r->shared = s->plan->layout.shared.elements;
    r->private_ = s->plan->layout.private_.elements;
    r->delta = fl_new(r->shared, sizeof *r->delta);
    r->private_out = fl_new(r->private_, sizeof *r->private_out);
    r->result = (struct fl_train_result){.delta = r->delta, .private_out = r->private_out};
}

static void run_fini(struct run *r)
{
    fl_free(r->delta);
    fl_free(r->private_out);
}

static struct fl_train_task task_of(const struct small_site *s, uint64_t seed)
{
    struct fl_train_task t = {
        .plan = s->plan, .data = &s->data, .base = s->shared, .private_in = s->private_};

    fl_seed_from_u64(seed, &t.seed);
    return t;
}

static void train(const struct small_site *s, uint64_t seed, struct run *r)
{
    struct fl_train_task t = task_of(s, seed);
    struct fl_err e = {0};

    run_init(r, s);
    ck_assert_msg(fl_train(&t, &r->result, &e) == 0, "%s", e.msg);
}

static bool same(const struct run *a, const struct run *b)
{
    return memcmp(a->delta, b->delta, a->shared * sizeof *a->delta) == 0 &&
           memcmp(a->private_out, b->private_out, a->private_ * sizeof *a->private_out) == 0;
}

static void set_example(struct small_site *s)
{
    s->plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_EXAMPLE,
                                                .clip = 1,
                                                .noise_multiplier = 1,
                                                .delta = 1e-5,
                                                .sampling_rate = 0.3,
                                                .examples = 40};
    s->plan->train.steps = 6;
    s->plan->train.head_epochs = 0;
}

/* What is reported of each class adds up to the accuracy. */
START_TEST(test_accuracy_of_each_class)
{
    struct small_site s;
    struct run r;
    double right = 0;
    uint32_t seen[3] = {0};

    site_of(&s, &ways[0]);
    train(&s, 3, &r);
    const struct fl_errors *x = &r.result.report.trained;
    ck_assert_uint_eq(x->class_count, 3);
    ck_assert(!x->known);
    for (uint32_t i = 0; i < s.data.test.count; i++) {
        seen[s.data.test.y[i]]++;
    }
    for (uint32_t c = 0; c < 3; c++) {
        right += (double)x->class_accuracy[c] * seen[c];
    }
    ck_assert_double_eq_tol(right / s.data.test.count, r.result.report.accuracy_trained, 1e-6);
    run_fini(&r);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_every_strategy_learns_and_repeats_itself)
{
    for (int w = 0; w < WAYS; w++) {
        struct small_site s;
        struct run a, b;

        site_of(&s, &ways[w]);
        s.plan->train.epochs = 25;
        if (ways[w].generator.kind == FL_GENERATOR_CHUNKED) {
            s.plan->train.body.lr = 0.2f; /* its values are scaled down by a constant */
        }
        s.plan->train.head_epochs = ways[w].visibility == FL_VISIBILITY_ALL_SHARED ? 0 : 2;
        s.plan->train.serve_epochs = 3;
        s.plan->train.serve_lr = 0.05f;
        train(&s, 1, &a);
        train(&s, 1, &b);
        ck_assert(same(&a, &b));
        ck_assert_double_lt(a.result.report.accuracy_received, 0.7);
        ck_assert_msg(a.result.report.accuracy_trained > 0.75, "way %d: %g", w,
                      a.result.report.accuracy_trained);
        ck_assert(a.result.report.accuracy_served >= 0 && a.result.report.accuracy_served <= 1);
        ck_assert_double_lt(a.result.report.loss, 0.7);
        ck_assert_uint_eq(a.result.event.count, 0);
        ck_assert_double_gt(a.result.report.cpu_s, 0);
        run_fini(&b);
        train(&s, 2, &b);
        ck_assert(!same(&a, &b));
        run_fini(&a);
        run_fini(&b);
        small_site_fini(&s);
    }
}
END_TEST

START_TEST(test_the_report_is_what_evaluation_says)
{
    struct small_site s;
    struct run a;
    struct fl_train_report served = {0};
    struct fl_err e = {0};
    double accuracy, loss;

    site_of(&s, &ways[3]);
    s.plan->train.head_epochs = 1;
    s.plan->train.serve_epochs = 2;
    s.plan->train.serve_lr = 0.1f;
    train(&s, 7, &a);
    ck_assert_int_eq(fl_train_evaluate(s.plan, &s.data, s.shared, s.private_, &accuracy, &loss, &e),
                     0);
    ck_assert(accuracy == a.result.report.accuracy_received);
    struct fl_train_task t = task_of(&s, 7);
    ck_assert_int_eq(fl_train_serve(&t, &served, &e), 0);
    ck_assert(served.accuracy_received == accuracy && served.loss == loss);
    ck_assert(served.accuracy_served == a.result.report.accuracy_served);
    ck_assert(isnan(served.accuracy_trained));
    for (size_t i = 0; i < a.shared; i++) {
        s.shared[i] += a.delta[i];
    }
    ck_assert_int_eq(
        fl_train_evaluate(s.plan, &s.data, s.shared, a.private_out, &accuracy, &loss, &e), 0);
    ck_assert_double_eq_tol(accuracy, a.result.report.accuracy_trained, 0.012);
    run_fini(&a);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_two_stages_move_what_they_should)
{
    struct small_site s;
    struct run a;

    site_of(&s, &ways[1]);
    s.plan->train.head_epochs = 1;
    s.plan->train.body.lr = 0; /* the body's stage does nothing: only the head moves */
    train(&s, 3, &a);
    for (size_t i = 0; i < a.shared; i++) {
        ck_assert(a.delta[i] == 0);
    }
    ck_assert_mem_ne(a.private_out, s.private_, a.private_ * sizeof *a.private_out);
    run_fini(&a);
    s.plan->train.body.lr = 0.05f;
    s.plan->train.head.lr = 0; /* the other way round */
    train(&s, 3, &a);
    ck_assert_mem_eq(a.private_out, s.private_, a.private_ * sizeof *a.private_out);
    ck_assert(a.delta[0] != 0);
    run_fini(&a);
    small_site_fini(&s);
}
END_TEST

/* |x - y| / |x| */
static double distance(const float *x, const float *y, size_t count)
{
    double all = 0, off = 0;

    for (size_t i = 0; i < count; i++) {
        all += (double)x[i] * (double)x[i];
        off += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    }
    return sqrt(off / all);
}

/* With no noise to speak of, no clipping and everybody sampled, the noised steps are gradient
 * descent on the whole set. The factors of linear layers
 * are rounded. */
START_TEST(test_noised_steps_without_noise_are_plain_steps)
{
    for (int w = 0; w < WAYS; w++) {
        struct small_site s;
        struct run a, b;

        if (ways[w].visibility == FL_VISIBILITY_ALL_PRIVATE) {
            continue;
        }
        site_of(&s, &ways[w]);
        s.plan->train.body.weight_decay = s.plan->train.head.weight_decay = 0.01f;
        s.plan->train.head.lr = 0.02f;
        s.plan->train.steps = 6;
        s.plan->train.batch = 43;
        train(&s, 3, &a);
        set_example(&s);
        s.plan->privacy.clip = 4;
        s.plan->privacy.noise_multiplier = 1e-6;
        s.plan->privacy.sampling_rate = 1;
        s.plan->privacy.examples = 43;
        train(&s, 3, &b);
        ck_assert_double_le(distance(a.delta, b.delta, a.shared), 0.01);
        for (size_t i = 0; i < a.private_; i++) {
            ck_assert_double_eq_tol((double)a.private_out[i], (double)b.private_out[i], 1e-4);
        }
        ck_assert(b.result.event.q == 1 && b.result.event.sigma == 1e-6);
        ck_assert_uint_eq(b.result.event.count, 6);
        run_fini(&a);
        run_fini(&b);
        small_site_fini(&s);
    }
}
END_TEST

START_TEST(test_empty_batches_send_noise_of_the_stated_size)
{
    struct small_site s;
    struct run a;
    double squares = 0;

    site_of(&s, &ways[0]);
    set_example(&s);
    s.plan->privacy.sampling_rate = 1e-9;
    s.plan->privacy.noise_multiplier = 2;
    s.plan->privacy.clip = 0.5;
    s.plan->train.steps = 1;
    train(&s, 4, &a);
    for (size_t i = 0; i < a.shared; i++) {
        squares += (double)a.delta[i] * (double)a.delta[i];
    }
    /* lr sigma C / (q examples) */
    double want = 0.05 * 2 * 0.5 / (1e-9 * 40);
    ck_assert_double_eq_tol(sqrt(squares / (double)a.shared) / want, 1, 0.1);
    ck_assert_uint_eq(a.result.event.count, 1);
    run_fini(&a);
    small_site_fini(&s);
}
END_TEST

/* What is released under `example` may not depend on anything but base, release state, training
 * examples and seed; a serving model least of all. */
START_TEST(test_serving_and_testing_never_touch_a_release)
{
    int seen = 0; /* the change was one that reports show */

    for (int w = 0; w < WAYS; w++) {
        struct small_site s;
        struct run a, b;

        site_of(&s, &ways[w]);
        set_example(&s);
        train(&s, 5, &a);
        s.plan->train.serve_epochs = 4;
        s.plan->train.serve_lr = 0.5f;
        for (uint32_t i = 0; i < s.data.test.count; i++) {
            s.data.test.y[i] = (s.data.test.y[i] + 1) % 3;
            s.data.test.x[(size_t)i * 64] = 9;
        }
        train(&s, 5, &b);
        ck_assert(same(&a, &b));
        seen += a.result.report.accuracy_trained != b.result.report.accuracy_trained;
        run_fini(&b);
        s.data.test.count = 0;
        train(&s, 5, &b);
        ck_assert(same(&a, &b));
        ck_assert(isnan(b.result.report.accuracy_trained));
        run_fini(&b);
        train(&s, 6, &b);
        ck_assert(!same(&a, &b));
        run_fini(&a);
        run_fini(&b);
        small_site_fini(&s);
    }
    ck_assert_int_gt(seen, 0);
}
END_TEST

/* Where everything that trains is the head there is a serving head, too, and it is tuned. */
START_TEST(test_a_model_that_is_all_head_is_tuned)
{
    struct fl_err e = {0};
    struct small_site s;
    struct fl_train_report before, after;

    site_of(&s, &ways[0]);
    s.plan->layout.spec.head = fl_spec_weighted(&s.plan->layout.spec);
    struct fl_train_task t = task_of(&s, 5);
    size_t count = s.plan->layout.theta.elements;
    float *theta = fl_new(count, sizeof *theta);
    memcpy(theta, s.shared, count * sizeof *theta);
    t.served = theta;
    ck_assert_int_eq(fl_train_serve(&t, &before, &e), 0);
    ck_assert(isnan(before.accuracy_served));
    ck_assert_int_eq(memcmp(theta, s.shared, count * sizeof *theta), 0);
    s.plan->train.serve_epochs = 30;
    s.plan->train.serve_lr = 0.1f;
    ck_assert_msg(fl_train_serve(&t, &after, &e) == 0, "%s", e.msg);
    ck_assert_double_ge(after.accuracy_served, before.accuracy_received + 0.3);
    ck_assert(theta[0] != s.shared[0]);
    fl_free(theta);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_private_models_train_without_noise_for_they_release_nothing)
{
    struct small_site s;
    struct run a;

    site_of(&s, &ways[2]);
    set_example(&s);
    s.plan->train.steps = 0;
    s.plan->train.epochs = 25;
    train(&s, 5, &a);
    ck_assert_uint_eq(a.shared, 0);
    ck_assert_uint_eq(a.result.event.count, 0);
    ck_assert_double_gt(a.result.report.accuracy_trained, 0.75);
    run_fini(&a);
    small_site_fini(&s);
}
END_TEST

static void refused(struct small_site *s, int reason, const char *says)
{
    struct fl_train_task t = task_of(s, 1);
    struct fl_err e = {0};
    struct run r;

    run_init(&r, s);
    ck_assert_int_eq(fl_train(&t, &r.result, &e), -reason);
    ck_assert_msg(strstr(e.msg, says) != NULL, "%s", e.msg);
    run_fini(&r);
}

START_TEST(test_what_cannot_be_trained_is_refused)
{
    struct small_site s;
    struct fl_err e = {0};
    atomic_bool cancel = true;

    site_of(&s, &ways[1]);
    s.data.train.y[3] = 3;
    refused(&s, FL_R_DATA_VALUE, "training example 3 has class 3");
    s.data.train.y[3] = -1;
    refused(&s, FL_R_DATA_VALUE, "class -1");
    s.data.train.y[3] = 0;
    int32_t *y = s.data.train.y;
    s.data.train.y = NULL;
    refused(&s, FL_R_DATA_SHAPE, "the targets are numbers");
    s.data.train.y = y;
    s.data.shape[1] = 9;
    refused(&s, FL_R_DATA_SHAPE, "1x9x8");
    s.data.shape[1] = 8;
    s.shared[5] = NAN;
    refused(&s, FL_R_TRAIN, "received model");
    s.shared[5] = 0;
    s.private_[0] = INFINITY;
    refused(&s, FL_R_TRAIN, "private state");
    s.private_[0] = 0;
    /* A coordinator's trap: all rows of the first dense layer are the first one. */
    const struct fl_tensor *t0 = fl_tensors_find(&s.plan->layout.shared, "fc1.weight");
    for (size_t i = 0; t0 && i < t0->count; i++) {
        s.shared[t0->offset + i] = s.shared[t0->offset + i % t0->shape[1]];
    }
    ck_assert_ptr_nonnull(t0);
    refused(&s, FL_R_TRAP, "layer fc1");
    for (size_t i = 0; i < t0->count; i++) {
        s.shared[t0->offset + i] = (float)(i % 11) - 5;
    }
    s.data.train.count = 0;
    refused(&s, FL_R_DATA_EMPTY, "no examples");
    s.data.train.count = 43;
    set_example(&s);
    s.plan->privacy.noise_multiplier = 0;
    refused(&s, FL_R_PLAN_PRIVACY, "noise");
    set_example(&s);
    s.plan->privacy.clip = -1;
    refused(&s, FL_R_PLAN_PRIVACY, "clip");
    s.plan->privacy.unit = FL_UNIT_NONE;
    struct fl_train_task t = task_of(&s, 1);
    struct run r;
    run_init(&r, &s);
    t.cancel = &cancel;
    ck_assert_int_eq(fl_train(&t, &r.result, &e), -FL_R_CANCELLED);
    run_fini(&r);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_no_memory_is_an_error_at_every_allocation)
{
    for (int w = 0; w < WAYS; w++) {
        for (int example = 0; example < 2; example++) {
            struct small_site s;
            struct run r;
            struct fl_err e = {0};
            int code = -1;

            site_of(&s, &ways[w]);
            s.plan->train.epochs = 1;
            s.plan->train.head_epochs = s.plan->train.serve_epochs = 1;
            if (example) {
                set_example(&s);
            }
            run_init(&r, &s);
            struct fl_train_task t = task_of(&s, 1);
            for (uint64_t n = 1; code < 0; n++) {
                ck_assert_uint_lt(n, 400);
                fl_mem_fail_at(n);
                code = fl_train(&t, &r.result, &e);
                ck_assert_msg(code == 0 || (code == -FL_R_NOMEM && fl_mem_fail_hit()), "%d %s",
                              code, e.msg);
            }
            fl_mem_fail_at(0);
            run_fini(&r);
            small_site_fini(&s);
        }
    }
}
END_TEST

/* ---- examples that stay in files; augmentation ---- */

static const float *kept; /* what the "file" has */
static size_t unreadable;

static int read_kept(const struct fl_stored *from, size_t i, float *to, struct fl_err *e)
{
    (void)from;
    if (i == unreadable) {
        return fl_fail(e, FL_R_DATA_TRUNCATED, "file: became shorter");
    }
    memcpy(to, kept + i * 64, 64 * sizeof *to);
    return 0;
}

START_TEST(test_stored_examples_train_to_the_same_bits)
{
    struct small_site s;
    struct run a, b;
    struct fl_err e = {0};

    site_of(&s, &ways[3]);
    struct fl_train_task t = task_of(&s, 7);
    run_init(&a, &s);
    run_init(&b, &s);
    ck_assert_int_eq(fl_train(&t, &a.result, &e), 0);
    float *x = s.data.train.x;
    kept = x;
    unreadable = SIZE_MAX;
    s.data.train.x = NULL;
    s.data.train.stored = (struct fl_stored *)&s;
    s.data.train.read = read_kept;
    ck_assert_msg(fl_train(&t, &b.result, &e) == 0, "%s", e.msg);
    ck_assert_mem_eq(a.delta, b.delta, a.shared * sizeof *a.delta);
    ck_assert_mem_eq(a.private_out, b.private_out, a.private_ * sizeof *a.delta);
    /* One that cannot be read, in the last batch too, is an error and no zero example. */
    for (unreadable = 0; unreadable < 43; unreadable += 21) {
        ck_assert_int_eq(fl_train(&t, &b.result, &e), -FL_R_DATA_TRUNCATED);
        ck_assert_str_eq(e.msg, "file: became shorter");
    }
    s.data.train.x = x;
    run_fini(&a);
    run_fini(&b);
    small_site_fini(&s);
}
END_TEST

/* As it is described: padded with zeros, cut at a place, mirrored. */
static void naive_augment(const float *from, uint32_t h, uint32_t w, uint32_t pad, uint32_t top,
                          uint32_t left, bool mirror, float *to)
{
    float padded[32][32] = {{0}};

    for (uint32_t i = 0; i < h; i++) {
        for (uint32_t j = 0; j < w; j++) {
            padded[i + pad][j + pad] = from[i * w + j];
        }
    }
    for (uint32_t i = 0; i < h; i++) {
        for (uint32_t j = 0; j < w; j++) {
            to[i * w + (mirror ? w - 1 - j : j)] = padded[i + top][j + left];
        }
    }
}

START_TEST(test_augmentation_is_a_cut_of_the_padded_image)
{
    const uint32_t shape[3] = {2, 5, 7};
    struct fl_data_conf conf = {.crop = 2, .flip = true};
    bool seen[5][5][2] = {{{false}}};
    float from[70], x[70], want[70], again[70], room[35];
    struct fl_seed seed;
    int kinds = 0;

    fl_seed_from_u64(5, &seed);
    for (int i = 0; i < 70; i++) {
        from[i] = 1 + (float)i;
    }
    for (uint32_t n = 0; n < 2000; n++) {
        bool found = false;
        memcpy(x, from, sizeof x);
        memcpy(again, from, sizeof x);
        fl_augment(&conf, shape, &seed, n / 50, n, room, x);
        fl_augment(&conf, shape, &seed, n / 50, n, room, again);
        ck_assert_mem_eq(x, again, sizeof x);
        for (uint32_t k = 0; k < 50 && !found; k++) {
            uint32_t top = k / 10, left = k / 2 % 5, mirror = k % 2;
            naive_augment(from, 5, 7, 2, top, left, mirror, want);
            naive_augment(from + 35, 5, 7, 2, top, left, mirror, want + 35);
            found = memcmp(x, want, sizeof x) == 0;
            kinds += found && !seen[top][left][mirror];
            seen[top][left][mirror] |= found;
        }
        ck_assert(found);
    }
    ck_assert_int_eq(kinds, 50);
}
END_TEST

/* With batches of everything the first step starts where the pull is zero, and the second differs
 * by lr mu (theta1 - received). */
START_TEST(test_training_that_diverges_is_an_error)
{
    for (int w = 0; w < WAYS; w++) {
        struct small_site s;
        struct run r;
        struct fl_err e = {0};

        site_of(&s, &ways[w]);
        s.plan->train.body.lr = s.plan->train.head.lr = 1e30f;
        struct fl_train_task t = task_of(&s, 5);
        run_init(&r, &s);
        ck_assert_int_eq(fl_train(&t, &r.result, &e), -FL_R_NOT_FINITE);
        ck_assert_ptr_nonnull(strstr(e.msg, "training diverged"));
        run_fini(&r);
        small_site_fini(&s);
    }
}
END_TEST

/* The update of five steps, scaled to what two would count: by the sums of momentum's weights. */
START_TEST(test_fednova_scales_to_so_many_steps)
{
    for (int with = 0; with < 2; with++) {
        struct small_site s;
        struct run plain, scaled;
        double momentum = with ? 0.5 : 0, own = 0, wanted = 0;

        site_of(&s, &ways[0]);
        s.plan->train.body.momentum = (float)momentum;
        s.plan->train.steps = 5;
        train(&s, 5, &plain);
        for (int k = 1; k <= 5; k++) { /* what the k-th gradient moves until the end */
            for (int later = 0; later <= 5 - k; later++) {
                own += pow(momentum, later);
                wanted += k > 3 ? pow(momentum, later) : 0;
            }
        }
        s.plan->setting.steps = 2;
        train(&s, 5, &scaled);
        for (size_t i = 0; i < plain.shared; i++) {
            ck_assert_double_eq_tol((double)scaled.delta[i], (double)plain.delta[i] * wanted / own,
                                    1e-6);
        }
        run_fini(&scaled);
        s.plan->setting.steps = 5; /* nothing to scale */
        train(&s, 5, &scaled);
        for (size_t i = 0; i < plain.shared; i++) {
            ck_assert_double_eq_tol((double)scaled.delta[i], (double)plain.delta[i], 1e-6);
        }
        run_fini(&scaled);
        run_fini(&plain);
        small_site_fini(&s);
    }
}
END_TEST

START_TEST(test_fedprox_pulls_towards_the_received_model)
{
    struct small_site s;
    struct run one, two, pulled;
    double lr = 0, furthest = 0;

    site_of(&s, &ways[0]);
    s.plan->train.batch = (uint32_t)s.data.train.count;
    s.plan->train.body.momentum = 0;
    lr = (double)s.plan->train.body.lr;
    s.plan->train.steps = 1;
    train(&s, 5, &one);
    s.plan->setting.mu = 0.5f;
    train(&s, 5, &pulled);
    ck_assert(same(&one, &pulled));
    run_fini(&pulled);
    s.plan->train.steps = 2;
    train(&s, 5, &pulled);
    s.plan->setting.mu = 0;
    train(&s, 5, &two);
    for (size_t i = 0; i < two.shared; i++) {
        double want = (double)two.delta[i] - lr * 0.5 * (double)one.delta[i];
        ck_assert_double_eq_tol((double)pulled.delta[i], want, 2e-6);
        furthest = fmax(furthest, fabs((double)pulled.delta[i] - (double)two.delta[i]));
    }
    ck_assert_double_gt(furthest, 1e-4);
    run_fini(&one);
    run_fini(&two);
    run_fini(&pulled);
    small_site_fini(&s);
}
END_TEST

START_TEST(test_augmented_training_repeats_itself_and_is_another)
{
    struct small_site s;
    struct run r[3];
    struct fl_err e = {0};

    site_of(&s, &ways[0]);
    struct fl_train_task t = task_of(&s, 7);
    for (int k = 0; k < 3; k++) {
        s.plan->data.crop = k ? 1 : 0;
        run_init(&r[k], &s);
        ck_assert_int_eq(fl_train(&t, &r[k].result, &e), 0);
    }
    ck_assert_mem_eq(r[1].delta, r[2].delta, r[0].shared * sizeof(float));
    ck_assert_mem_ne(r[1].delta, r[0].delta, r[0].shared * sizeof(float));
    /* What is tested is never augmented. */
    ck_assert_double_eq(r[0].result.report.accuracy_received, r[1].result.report.accuracy_received);
    for (int k = 0; k < 3; k++) {
        run_fini(&r[k]);
    }
    small_site_fini(&s);
}
END_TEST

TESTS_MAIN("trainer", test_stored_examples_train_to_the_same_bits,
           test_augmentation_is_a_cut_of_the_padded_image,
           test_augmented_training_repeats_itself_and_is_another,
           test_fednova_scales_to_so_many_steps, test_fedprox_pulls_towards_the_received_model,
           test_training_that_diverges_is_an_error, test_accuracy_of_each_class,
           test_every_strategy_learns_and_repeats_itself, test_the_report_is_what_evaluation_says,
           test_two_stages_move_what_they_should, test_noised_steps_without_noise_are_plain_steps,
           test_empty_batches_send_noise_of_the_stated_size,
           test_serving_and_testing_never_touch_a_release, test_a_model_that_is_all_head_is_tuned,
           test_private_models_train_without_noise_for_they_release_nothing,
           test_what_cannot_be_trained_is_refused, test_no_memory_is_an_error_at_every_allocation)
