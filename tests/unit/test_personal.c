/* Sites with a model of their own: Ditto, APFL and FedALA against PyTorch
 * (tests/golden/beside.py); that what serves a site never reaches an upload; what is refused. */
#include "client/trainer/exec.h"
#include "client/trainer/personal.h"
#include "common/nn/param/param.h"
#include "common/nn/tensors.h"
#include "common/plan/beside.h"
#include "tests/lib/small_site.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- against PyTorch ---- */

static float *tensor_of(const struct fl_tensor_file *f, const char *name, size_t *ret_count)
{
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);

    ck_assert_msg(t != NULL, "%s", name);
    float *x = fl_new(t->count, sizeof *x);
    fl_tensor_file_get(f, t, x);
    *ret_count = t->count;
    return x;
}

/* Largest difference, relative to the largest value. */
static double apart(const float *a, const float *b, size_t count)
{
    double far = 0, large = 1e-30;

    for (size_t i = 0; i < count; i++) {
        far = fmax(far, fabs((double)a[i] - (double)b[i]));
        large = fmax(large, fabs((double)b[i]));
        ck_assert(isfinite(a[i]));
    }
    return far / large;
}

struct golden {
    struct fl_tensor_file file;
    struct fl_plan plan;
    struct fl_dataset data;
    float *received, *serves, *delta, *private_;
    float *begin; /* NULL: zeros */
    size_t rounds;
};

static void golden_open(struct golden *g, const char *path)
{
    struct fl_err e = {0};
    size_t n;

    ck_assert_msg(fl_tensor_file_open(path, 1 << 24, &g->file, &e) == 0, "%s", e.msg);
    const char *text = fl_tensor_file_meta(&g->file, "plan");
    ck_assert_msg(fl_plan_parse(&g->plan, path, text, strlen(text), &e) == 0, "%s", e.msg);
    memcpy(g->data.shape, g->plan.layout.spec.input, sizeof g->data.shape);
    g->data.classes = g->plan.layout.spec.classes;
    float *labels = tensor_of(&g->file, "y", &n);
    g->data.train.count = (uint32_t)n;
    g->data.train.y = fl_new(n, sizeof *g->data.train.y);
    for (size_t i = 0; i < n; i++) {
        g->data.train.y[i] = (int32_t)labels[i];
    }
    fl_free(labels);
    g->data.train.x = tensor_of(&g->file, "x", &n);
    g->received = tensor_of(&g->file, "received", &n);
    g->rounds = n / g->plan.layout.shared.elements;
    g->serves = tensor_of(&g->file, "serves", &n);
    g->delta = tensor_of(&g->file, "delta", &n);
    g->private_ = tensor_of(&g->file, "private", &n);
    ck_assert_uint_eq(n, g->rounds * g->plan.layout.private_.elements);
    g->begin = fl_tensors_find(&g->file.table, "begin") ? tensor_of(&g->file, "begin", &n) : NULL;
}

static void golden_close(struct golden *g)
{
    fl_tensor_file_close(&g->file);
    fl_free(g->data.train.x);
    fl_free(g->data.train.y);
    fl_free(g->received);
    fl_free(g->serves);
    fl_free(g->delta);
    fl_free(g->private_);
    fl_free(g->begin);
    fl_free(g);
}

static void repeat(const char *path)
{
    struct golden *g = fl_new(1, sizeof *g);
    struct fl_err e = {0};

    golden_open(g, path);
    const struct fl_layout *l = &g->plan.layout;
    size_t shared = l->shared.elements, own = l->private_.elements, theta = l->theta.elements;
    float *private_ = fl_new(own, sizeof *private_), *delta = fl_new(shared, sizeof *delta);
    float *out = fl_new(own, sizeof *out);
    ck_assert_uint_ge(g->rounds, 3);
    if (g->begin) {
        memcpy(private_, g->begin, own * sizeof *private_);
    }
    for (size_t k = 0; k < g->rounds; k++) {
        struct fl_train_task task = {.plan = &g->plan,
                                     .data = &g->data,
                                     .base = g->received + k * shared,
                                     .private_in = private_,
                                     .round = k + 1};
        struct fl_train_result result = {.delta = delta, .private_out = out};
        struct fl_session s = {0};
        ck_assert_int_eq(fl_session_init(&s, &g->plan, &g->data, NULL, NULL, &e), 0);
        ck_assert_int_eq(fl_param_make(l, task.base, private_, s.theta, &e), 0);
        ck_assert_int_eq(fl_personal_receive(&s, &task.seed, private_, NULL, &e), 0);
        double serves = apart(s.theta, g->serves + k * theta, theta);
        fl_session_fini(&s);
        ck_assert_msg(fl_train(&task, &result, &e) == 0, "%s", e.msg);
        double update = apart(delta, g->delta + k * shared, shared);
        double kept = apart(out, g->private_ + k * own, own);
        ck_assert_msg(serves < 2e-5 && update < 2e-5 && kept < 2e-5,
                      "%s, round %zu: serves %g, update %g, kept %g", path, k + 1, serves, update,
                      kept);
        memcpy(private_, out, own * sizeof *out);
    }
    fl_free(private_);
    fl_free(delta);
    fl_free(out);
    golden_close(g);
}

START_TEST(test_pytorch_comes_to_the_same)
{
    glob_t found;

    ck_assert_int_eq(glob(TEST_SOURCE_ROOT "/tests/golden/beside_*.safetensors", 0, NULL, &found),
                     0);
    ck_assert_uint_eq(found.gl_pathc, 7);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        repeat(found.gl_pathv[i]);
    }
    globfree(&found);
}
END_TEST

/* ---- on the small site ---- */

static const char job[] =
    "name: j\nstrategy: %s\nrounds: 10\n"
    "model: {input: [1, 8, 8], classes: 3, head: 1, layers: [{conv2d: {out: 4, kernel: 3}}, "
    "%s{leaky_relu: {}}, {max_pool: {size: 2}}, {flatten: {}}, {linear: {out: 12}}, "
    "{leaky_relu: {}}, {linear: {out: 3}}]%s}\n"
    "train: {batch: 10, epochs: 3, lr: 0.05}\n"
    "data: {mean: [0.25], std: [0.3]}\nround: {members: 1}\n%s\n";
static const char example[] = "privacy: {unit: example, clip: 1, noise_multiplier: 1, delta: 1e-5, "
                              "sampling_rate: 0.3, examples: 40}\nset: {train.steps: 6}";

static const char client[] = "privacy: {unit: client, clip: 1, delta: 1e-5, noise_multiplier: 1}\n"
                             "grid: {bits: 24, step: -16}";

static const char *norm = ""; /* a layer after the convolution */

static int parse(struct fl_plan *ret, const char *strategy, const char *model, const char *more,
                 struct fl_err *e)
{
    char text[2048];

    snprintf(text, sizeof text, job, strategy, norm, model, more);
    return fl_plan_parse(ret, "job.yaml", text, strlen(text), e);
}

/* steps: of the unit example, and then its lines; 0 = neither. */
static void site_of(struct small_site *s, const char *strategy, uint32_t steps)
{
    struct fl_err e = {0};

    small_site_init(s, FL_VISIBILITY_ALL_SHARED, NULL);
    ck_assert_msg(parse(s->plan, strategy, "", "", &e) == 0, "%s", e.msg);
    s->plan->train.body.momentum = 0.5f;
    if (steps) {
        s->plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_EXAMPLE,
                                                    .clip = 1,
                                                    .noise_multiplier = 1,
                                                    .delta = 1e-5,
                                                    .sampling_rate = 0.3,
                                                    .examples = 40};
        s->plan->train.steps = steps;
    }
    fl_free(s->shared);
    s->shared = fl_new(s->plan->layout.shared.elements, sizeof *s->shared);
    fl_layout_init_shared(&s->plan->layout, &s->job, s->shared);
    fl_free(s->private_);
    s->private_ = fl_new(s->plan->layout.private_.elements, sizeof *s->private_);
    fl_layout_init_private(&s->plan->layout, &s->job, &s->agent, s->private_);
}

struct run {
    float *delta, *private_;
    struct fl_train_report report;
};

static void train(const struct small_site *s, const float *base, const float *private_,
                  struct run *r)
{
    const struct fl_layout *l = &s->plan->layout;
    struct fl_train_task task = {
        .plan = s->plan, .data = &s->data, .base = base, .private_in = private_, .round = 1};
    struct fl_err e = {0};

    r->delta = fl_new(l->shared.elements, sizeof *r->delta);
    r->private_ = fl_new(l->private_.elements, sizeof *r->private_);
    struct fl_train_result result = {.delta = r->delta, .private_out = r->private_};
    fl_seed_from_u64(9, &task.seed);
    ck_assert_msg(fl_train(&task, &result, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(result.event.count, s->plan->privacy.unit == FL_UNIT_EXAMPLE ? 6 : 0);
    r->report = result.report;
}

static void run_fini(struct run *r)
{
    fl_free(r->delta);
    fl_free(r->private_);
}

/* Other values of what a site keeps: some, large ones, and so large that training leaves the
 * numbers. */
static void disturb(const struct small_site *s, float *private_, int how)
{
    const struct fl_kept k = fl_kept_of(&s->plan->layout);
    struct fl_rng r;

    fl_rng_init(&r, &s->agent, 77);
    for (size_t i = k.personal; i < s->plan->layout.private_.elements; i++) {
        private_[i] = (float)(fl_rng_normal(&r) * (how == 0 ? 0.3 : how == 1 ? 30 : 1e30));
    }
    private_[k.rounds] = (float)(1 + how);
    if (k.alpha != SIZE_MAX) {
        private_[k.alpha] = 0.8f;
    }
}

/* Any values of what is kept and what travels beside the model. */
static void disturb_all(const struct small_site *s)
{
    struct fl_rng r;

    fl_rng_init(&r, &s->agent, 78);
    for (size_t i = 0; i < s->plan->layout.private_.elements; i++) {
        s->private_[i] = (float)(0.05 * fl_rng_normal(&r));
    }
    for (size_t i = s->plan->layout.theta.elements; i < s->plan->layout.shared.elements; i++) {
        s->shared[i] = (float)(0.05 * fl_rng_normal(&r));
    }
}

START_TEST(test_what_serves_never_reaches_an_upload)
{
    static const struct {
        const char *word;
        uint32_t steps;
        const char *norm;
    } cases[] = {{"ditto", 0, ""}, {"ditto", 6, ""}, {"ditto", 0, "{batch_norm: {}}, "},
                 {"apfl", 0, ""},  {"apfl", 6, ""},  {"apfl", 0, "{batch_norm: {}}, "}};

    for (size_t w = 0; w < FL_COUNT(cases); w++) {
        struct small_site s;
        struct run a, b;

        norm = cases[w].norm;
        site_of(&s, cases[w].word, cases[w].steps);
        norm = "";
        size_t shared = s.plan->layout.shared.elements, own = s.plan->layout.private_.elements;
        train(&s, s.shared, s.private_, &a);
        for (int how = 0; how < 3; how++) {
            disturb(&s, s.private_, how);
            train(&s, s.shared, s.private_, &b);
            ck_assert_int_eq(memcmp(a.delta, b.delta, shared * sizeof *a.delta), 0);
            ck_assert_int_ne(memcmp(a.private_, b.private_, own * sizeof *a.private_), 0);
            ck_assert_uint_eq(a.report.steps, b.report.steps);
            for (size_t i = 0; i < own; i++) {
                ck_assert(isfinite(b.private_[i])); /* or the next round would fail */
            }
            run_fini(&b);
        }
        run_fini(&a);
        small_site_fini(&s);
    }
}
END_TEST

/* Networks whose features are compared begin alike at all sites; those of local training do not. */
START_TEST(test_prototypes_are_of_networks_that_begin_alike)
{
    struct small_site s;
    struct fl_seed other;

    fl_seed_from_u64(99, &other);
    for (int i = 0; i < 2; i++) {
        site_of(&s, i ? "fedproto" : "local", 0);
        size_t n = s.plan->layout.private_.elements;
        float *x = fl_new(n, sizeof *x);
        ck_assert_uint_eq(n, s.plan->layout.theta.elements);
        ck_assert_uint_eq(s.plan->layout.shared.elements, i ? 3 * 12 + 3 : 0);
        fl_layout_init_private(&s.plan->layout, &s.job, &other, x);
        ck_assert_int_eq(memcmp(x, s.private_, n * sizeof *x) == 0, i);
        fl_free(x);
        small_site_fini(&s);
    }
}
END_TEST

/* FedALA's is read, and so it is no strategy for the unit example. */
START_TEST(test_what_is_trained_reaches_it_and_is_refused)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct small_site s;
    struct run a, b;
    struct fl_err e = {0};

    site_of(&s, "fedala", 0);
    train(&s, s.shared, s.private_, &a);
    disturb(&s, s.private_, 0);
    train(&s, s.shared, s.private_, &b);
    ck_assert_int_ne(memcmp(a.delta, b.delta, s.plan->layout.shared.elements * sizeof *a.delta), 0);
    ck_assert_int_eq(parse(plan, "fedala", "", example, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_nonnull(
        strstr(e.msg, "fedala has no row in the table of releases for this unit"));
    ck_assert_int_eq(parse(plan, "ditto", "", example, &e), 0);
    ck_assert_int_eq(parse(plan, "apfl", "", example, &e), 0);
    ck_assert_int_eq(parse(plan, "fedala", "", client, &e), 0);
    run_fini(&a);
    run_fini(&b);
    small_site_fini(&s);
    fl_free(plan);
}
END_TEST

/* The shared model under Ditto and APFL is FedAvg's, bit by bit; the report and the served network
 * are of the site's own. */
START_TEST(test_the_shared_model_is_fedavgs_and_the_own_one_serves)
{
    static const char *const words[] = {"{ditto: {epochs: 20}}", "apfl", "fedala"};

    for (int w = 0; w < 3; w++) {
        struct small_site s, plain;
        struct run a, b, c;
        struct fl_train_report report;
        struct fl_err e = {0};

        site_of(&s, words[w], 0);
        site_of(&plain, "fedavg", 0);
        s.plan->train.epochs = plain.plan->train.epochs = 12;
        size_t n = s.plan->layout.theta.elements;
        train(&s, s.shared, s.private_, &a);
        train(&plain, plain.shared, plain.private_, &b);
        ck_assert_int_eq(memcmp(a.delta, b.delta, n * sizeof *a.delta), 0);
        ck_assert(isnan(b.report.accuracy_shared));
        ck_assert_double_eq(a.report.accuracy_shared, b.report.accuracy_received);
        ck_assert_double_eq(a.report.accuracy_received, b.report.accuracy_received);
        ck_assert_double_gt(a.report.accuracy_trained, 0.7);
        run_fini(&b);
        /* The next model is as bad as the first: it is the own one that serves. */
        train(&s, s.shared, a.private_, &c);
        ck_assert_double_lt(c.report.accuracy_shared, 0.6);
        ck_assert_double_gt(c.report.accuracy_received, c.report.accuracy_shared);
        float *served = fl_new(n, sizeof *served), *want = fl_new(n, sizeof *want);
        struct fl_train_task task = {.plan = s.plan,
                                     .data = &s.data,
                                     .base = s.shared,
                                     .private_in = a.private_,
                                     .served = served};
        fl_seed_from_u64(9, &task.seed);
        ck_assert_int_eq(fl_train_serve(&task, &report, &e), 0);
        ck_assert_double_eq(report.accuracy_received, c.report.accuracy_received);
        ck_assert_double_eq(report.accuracy_shared, c.report.accuracy_shared);
        memcpy(want, s.shared, n * sizeof *want);
        /* FedALA's weights have learnt once more: as they were kept then. */
        fl_kept_serve(s.plan, a.private_, want);
        double accuracy, loss;
        ck_assert_int_eq(
            fl_train_evaluate(s.plan, &s.data, s.shared, a.private_, &accuracy, &loss, &e), 0);
        if (w < 2) {
            ck_assert_int_eq(memcmp(want, served, n * sizeof *want), 0);
            ck_assert_double_eq(accuracy, report.accuracy_received);
        } else {
            const struct fl_kept k = fl_kept_of(&s.plan->layout);
            ck_assert_int_eq(memcmp(want, served, (n - k.stays_count) * sizeof *want), 0);
            ck_assert_int_ne(memcmp(want, served, n * sizeof *want), 0);
        }
        run_fini(&a);
        run_fini(&c);
        fl_free(served);
        fl_free(want);
        small_site_fini(&s);
        small_site_fini(&plain);
    }
}
END_TEST

/* What SCAFFOLD and FedDyn keep and send is made of what training came to, and of nothing else:
 * with noised steps the same numbers follow from the update alone. */
START_TEST(test_corrections_are_made_of_what_is_released)
{
    for (uint32_t steps = 0; steps <= 6; steps += 6) {
        struct small_site s;
        struct run a;

        site_of(&s, "scaffold", steps);
        s.plan->train.body.momentum = 0;
        size_t n = s.plan->layout.theta.elements;
        ck_assert_uint_eq(s.plan->layout.shared.elements, 2 * n);
        disturb_all(&s);
        train(&s, s.shared, s.private_, &a);
        double k = (double)a.report.steps;
        for (size_t i = 0; i < n; i++) {
            double now = -(double)a.delta[i] / (k * (double)0.05f) - (double)s.shared[n + i];
            ck_assert_double_eq_tol((double)a.delta[n + i], now, 2e-4);
            ck_assert_double_eq_tol((double)a.private_[i], (double)s.private_[i] + now, 2e-4);
        }
        run_fini(&a);
        small_site_fini(&s);
        site_of(&s, "feddyn", steps);
        disturb_all(&s);
        train(&s, s.shared, s.private_, &a);
        for (size_t i = 0; i < n; i++) {
            double want = (double)s.private_[i] - (double)0.1f * (double)a.delta[i];
            ck_assert_double_eq_tol((double)a.private_[i], want, 1e-6);
        }
        run_fini(&a);
        small_site_fini(&s);
    }
}
END_TEST

START_TEST(test_a_site_without_examples_keeps_nothing)
{
    static const char *const words[] = {"ditto", "apfl"};

    for (int w = 0; w < 2; w++) {
        struct small_site s;
        struct run a;

        site_of(&s, words[w], 6);
        s.data.train.count = 0;
        train(&s, s.shared, s.private_, &a);
        ck_assert_double_eq((double)a.private_[0], 0);
        run_fini(&a);
        small_site_fini(&s);
    }
}
END_TEST

START_TEST(test_no_memory_is_an_error_at_every_allocation)
{
    static const char *const words[] = {"ditto",  "apfl",   "fedala",  "scaffold",
                                        "feddyn", "feddbe", "fedproto"};

    for (int w = 0; w < 7; w++) {
        struct small_site s;
        struct fl_err e = {0};
        int code = -1;

        site_of(&s, words[w], 0);
        s.plan->train.epochs = s.plan->train.serve_epochs = 1;
        if (w < 3) {
            disturb(&s, s.private_, 0);
        }
        float *delta = fl_new(s.plan->layout.shared.elements, sizeof *delta);
        float *out = fl_new(s.plan->layout.private_.elements, sizeof *out);
        struct fl_train_task task = {
            .plan = s.plan, .data = &s.data, .base = s.shared, .private_in = s.private_};
        struct fl_train_result result = {.delta = delta, .private_out = out};
        for (uint64_t n = 1; code < 0; n++) {
            ck_assert_uint_lt(n, 400);
            fl_mem_fail_at(n);
            code = fl_train(&task, &result, &e);
            ck_assert_msg(code == 0 || (code == -FL_R_NOMEM && fl_mem_fail_hit()), "%d %s", code,
                          e.msg);
        }
        fl_mem_fail_at(0);
        fl_free(delta);
        fl_free(out);
        small_site_fini(&s);
    }
}
END_TEST

START_TEST(test_what_does_not_go_together)
{
    static const char listed[] =
        "name: j\nstrategy: %s\nrounds: 1\ntrainer: exec\n"
        "model: {input: [4], classes: 2, tensors: [{name: a, shape: [2, 4]}, {name: %s, shape: "
        "[2]}]}\ntrain: {lr: 0.1}\nround: {members: 1}\n";
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_err e = {0};
    char text[512];

    ck_assert_int_eq(parse(plan, "ditto", ", parameters: [{layers: [fc1], kind: frozen}]", "", &e),
                     -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(e.msg, "ditto keeps whole networks"));
    ck_assert_int_eq(parse(plan, "{fedala: {share: 0}}", "", "", &e), -FL_R_CONF_RANGE);
    ck_assert_int_eq(parse(plan, "{apfl: {alpha: 2}}", "", "", &e), -FL_R_CONF_RANGE);
    ck_assert_int_eq(parse(plan, "{fedala: {layers: 9}}", "", "", &e), 0);
    const struct fl_layout *l = &plan->layout;
    ck_assert_uint_eq(l->private_.elements, 1 + 2 * l->theta.elements);
    ck_assert_int_eq(parse(plan, "scaffold", "", "server: {lr: 1}", &e), -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(e.msg, "scaffold has a server step of its own"));
    ck_assert_int_eq(parse(plan, "feddyn", "", "server: {momentum: 0.5}", &e), -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "scaffold", "", "set: {train.momentum: 0.5}", &e),
                     -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "scaffold", "", "set: {train.optimizer: adam}", &e),
                     -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "{feddyn: {sites: 2}}", "", "set: {round.members: 3}", &e),
                     -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "{feddyn: {sites: 8}}", "", "set: {round.members: 2}", &e), 0);
    ck_assert(plan->server.optimizer == FL_SERVER_DYNAMIC && plan->server.momentum == 0.25f);
    norm = "{batch_norm: {}}, ";
    ck_assert_int_eq(parse(plan, "scaffold", "", "", &e), -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(e.msg, "use group_norm"));
    ck_assert_int_eq(parse(plan, "feddyn", "", "", &e), -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "pfedhn", "", "", &e), -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "apfl", "", "", &e), 0);
    norm = "";
    ck_assert_int_eq(parse(plan, "feddbe", "", "set: {model.head: 3}", &e), -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(e.msg, "feddbe compares features"));
    ck_assert_int_eq(parse(plan, "fedproto", "", "server: {lr: 0.5}", &e), -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse(plan, "fedproto", "", "aggregate: {rule: median}", &e),
                     -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(e.msg, "prototypes are sums"));
    for (int i = 0; i < 2; i++) {
        const char *word = i ? "fedproto" : "feddbe";
        ck_assert_int_eq(parse(plan, word, "", example, &e), -FL_R_PLAN_PRIVACY);
        ck_assert_ptr_nonnull(strstr(e.msg, "has no row in the table of releases for this unit"));
        ck_assert_int_eq(parse(plan, word, "", client, &e), 0);
        snprintf(text, sizeof text, listed, word, "b");
        ck_assert_int_eq(fl_plan_parse(plan, "job.yaml", text, strlen(text), &e),
                         -FL_R_CONF_CONFLICT);
    }
    ck_assert_int_eq(parse(plan, "{feddbe: {momentum: 0}}", "", "", &e), -FL_R_CONF_RANGE);
    snprintf(text, sizeof text, listed, "fedala", "b");
    ck_assert_int_eq(fl_plan_parse(plan, "job.yaml", text, strlen(text), &e), -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(e.msg, "a list of tensors has none"));
    snprintf(text, sizeof text, listed, "ditto", "b");
    ck_assert_int_eq(fl_plan_parse(plan, "job.yaml", text, strlen(text), &e), 0);
    ck_assert_str_eq(l->private_.at[2].name, "personal.b");
    ck_assert(l->private_.at[2].serving && !l->shared.at[1].serving);
    snprintf(text, sizeof text, listed, "ditto",
             "a-name-that-is-as-long-as-the-name-of-a-tensor-of-a-model-may-be");
    ck_assert_int_lt(fl_plan_parse(plan, "job.yaml", text, strlen(text), &e), 0);
    fl_free(plan);
}
END_TEST

/* A trainer program is told the strategy's settings, and names of what is kept and sent beside the
 * network. */
START_TEST(test_programs_are_told)
{
    static const struct {
        const char *strategy, *says[3];
    } cases[] = {
        {"{fedprox: {mu: 0.5}}", {"\"settings\":{\"mu\":0.5}", "\"private\":null"}},
        {"fedavg", {"\"settings\":{}"}},
        {"{apfl: {alpha: 0.25, learn: false}}",
         {"\"settings\":{\"alpha\":0.25,\"learn\":0.0}", "\"kept.alpha\"",
          "\"personal.conv1.weight\""}},
        {"{pfedhn: {variant: published}}", {"\"variant\":\"published\"", "\"hidden\":8.0"}},
        {"scaffold", {"\"settings\":{\"sites\":0.0}", "\"control.fc2.bias\""}},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct small_site s;
        site_of(&s, cases[i].strategy, 0);
        struct fl_train_task task = {
            .plan = s.plan, .data = &s.data, .base = s.shared, .private_in = s.private_};
        char *line = fl_exec_request(&task, "folder", false, false);
        for (size_t k = 0; k < 3 && cases[i].says[k]; k++) {
            ck_assert_msg(strstr(line, cases[i].says[k]) != NULL, "%s lacks %s", line,
                          cases[i].says[k]);
        }
        free(line);
        small_site_fini(&s);
    }
}
END_TEST

TESTS_MAIN("personal", test_programs_are_told, test_pytorch_comes_to_the_same,
           test_what_serves_never_reaches_an_upload,
           test_prototypes_are_of_networks_that_begin_alike,
           test_what_is_trained_reaches_it_and_is_refused,
           test_the_shared_model_is_fedavgs_and_the_own_one_serves,
           test_corrections_are_made_of_what_is_released,
           test_a_site_without_examples_keeps_nothing,
           test_no_memory_is_an_error_at_every_allocation, test_what_does_not_go_together)
