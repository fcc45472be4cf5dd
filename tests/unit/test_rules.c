/*
 * Parameterizations by rules: theta and its derivative against PyTorch's autograd
 * (tests/golden/rules.py), and against differences; what a step moves and what it must not; the
 * grammar and its messages; what is told about releases.
 */
#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/nn/param/make.h"
#include "common/nn/param/param.h"
#include "common/nn/tensors.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct site {
    struct fl_plan *plan;
    const struct fl_layout *l;
    float *shared, *private_, *theta, *g_shared, *g_private;
};

static void site_init(struct site *s, const char *name, const char *job)
{
    struct fl_err e = {0};
    struct fl_seed seed, own;

    s->plan = fl_new(1, sizeof *s->plan);
    ck_assert_msg(fl_plan_parse(s->plan, name, job, strlen(job), &e) == 0, "%s", e.msg);
    s->l = &s->plan->layout;
    s->shared = fl_new(s->l->shared.elements + 1, sizeof(float));
    s->g_shared = fl_new(s->l->shared.elements + 1, sizeof(float));
    s->private_ = fl_new(s->l->private_.elements + 1, sizeof(float));
    s->g_private = fl_new(s->l->private_.elements + 1, sizeof(float));
    s->theta = fl_new(s->l->theta.elements, sizeof(float));
    fl_seed_from_u64(3, &seed);
    fl_seed_from_u64(4, &own);
    fl_layout_init_shared(s->l, &seed, s->shared);
    fl_layout_init_private(s->l, &seed, &own, s->private_);
    ck_assert_int_eq(fl_param_make(s->l, s->shared, s->private_, s->theta, &e), 0);
}

static void site_fini(struct site *s)
{
    fl_free(s->shared);
    fl_free(s->g_shared);
    fl_free(s->private_);
    fl_free(s->g_private);
    fl_free(s->theta);
    fl_free(s->plan);
}

static const char head[] = "name: rules\n"
                           "strategy: %s\n"
                           "rounds: 1\n"
                           "model:\n"
                           "  input: [1, 5, 5]\n"
                           "  classes: 3\n"
                           "  layers:\n"
                           "    - conv2d: {out: 4, kernel: 3}\n"
                           "    - relu: {}\n"
                           "    - flatten: {}\n"
                           "    - linear: {out: 6}\n"
                           "    - relu: {}\n"
                           "    - linear: {out: 6}\n"
                           "    - tanh: {}\n"
                           "    - linear: {out: 3}\n"
                           "  parameters:\n" /* line 16 */
                           "%s"
                           "train: {lr: 0.1, steps: 5}\n"
                           "round: {members: 20}\n"
                           "%s";

static const char *job_of(char ret[4096], const char *strategy, const char *rules, const char *more)
{
    snprintf(ret, 4096, head, strategy, rules, more);
    return ret;
}

/* ---- golden values ---- */

static void take(const struct fl_tensor_file *f, const char *where, const struct fl_tensors *all,
                 float *to)
{
    char name[128];

    for (uint32_t i = 0; i < all->count; i++) {
        snprintf(name, sizeof name, "%s.%s", where, all->at[i].name);
        const struct fl_tensor *t = fl_tensors_find(&f->table, name);
        ck_assert_msg(t && t->count == all->at[i].count, "%s", name);
        fl_tensor_file_get(f, t, to + all->at[i].offset);
    }
}

static void near(const char *what, const float *got, const float *want, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ck_assert_msg(fabsf(got[i] - want[i]) <= 2e-6f * (10 + fabsf(want[i])),
                      "%s: %zu of %zu: %.9g, not %.9g", what, i, count, (double)got[i],
                      (double)want[i]);
    }
}

static void check_golden(const char *path)
{
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    struct site s;
    struct fl_err e = {0};

    ck_assert_msg(fl_tensor_file_open(path, 1 << 20, f, &e) == 0, "%s", e.msg);
    site_init(&s, path, fl_tensor_file_meta(f, "job"));
    size_t n = s.l->theta.elements;
    float *theta = fl_new(n, sizeof *theta), *grad = fl_new(n, sizeof *grad);
    float *shared = fl_new(s.l->shared.elements + 1, sizeof *shared);
    float *private_ = fl_new(s.l->private_.elements + 1, sizeof *private_);
    take(f, "shared", &s.l->shared, s.shared);
    take(f, "private", &s.l->private_, s.private_);
    take(f, "d.shared", &s.l->shared, shared);
    take(f, "d.private", &s.l->private_, private_);
    fl_tensor_file_get(f, fl_tensors_find(&f->table, "theta"), theta);
    fl_tensor_file_get(f, fl_tensors_find(&f->table, "grad"), grad);
    ck_assert_uint_eq(fl_tensors_find(&f->table, "theta")->count, n);
    ck_assert_int_eq(fl_param_make(s.l, s.shared, s.private_, s.theta, &e), 0);
    near(path, s.theta, theta, n);
    fl_rules_pull(s.l, s.shared, s.private_, grad, s.g_shared, s.g_private);
    near(path, s.g_shared, shared, s.l->shared.elements);
    near(path, s.g_private, private_, s.l->private_.elements);
    fl_free(theta);
    fl_free(grad);
    fl_free(shared);
    fl_free(private_);
    site_fini(&s);
    fl_tensor_file_close(f);
    fl_free(f);
}

START_TEST(values_and_gradients_are_pytorchs)
{
    glob_t found;

    ck_assert_int_eq(glob(TEST_SOURCE_ROOT "/tests/golden/rule_*.safetensors", 0, NULL, &found), 0);
    ck_assert_uint_eq(found.gl_pathc, 7);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        check_golden(found.gl_pathv[i]);
    }
    globfree(&found);
}
END_TEST

/* ---- differences ---- */

static const char *const every_kind[][2] = {
    {"fedavg", "    - {layers: [conv1, fc1], kind: low_rank, rank: 3}\n"},
    {"fedrep", "    - {layers: [conv1], kind: frozen}\n"
               "    - {layers: [fc1, fc2], kind: adapter, rank: 2}\n"},
    {"fedrep", "    - {layers: [conv1, fc1], kind: sparse_rank, rank: 2, base: shared}\n"},
    {"fedrep", "    - {layers: [conv1, fc1, fc2], kind: atoms, atoms: 3}\n"},
    {"fedavg", "    - {layers: ['*'], kind: hashed, ratio: 3}\n"},
    {"fedavg", "    - {layers: [fc1, fc2], kind: tied, rank: 1}\n"},
    {"fedavg", "    - {layers: [conv1, fc1], kind: nested}\n"},
    {"fedrep", "    - {layers: [conv1, fc1], kind: nested}\n"},
    {"hyperfl", "    - {layers: [fc1], kind: plain}\n"},
    {"hyperfl", "    - {layers: [conv1], kind: frozen}\n    - {layers: [fc1], kind: low_rank, "
                "rank: 2}\n"},
};
enum { KINDS = sizeof every_kind / sizeof every_kind[0] };

static const char *job_with(char ret[4096], int k, const char *more)
{
    return job_of(ret, every_kind[k][0], every_kind[k][1], more);
}

static double product(const struct site *s, const float *g)
{
    struct fl_err e;
    double sum = 0;

    ck_assert_int_eq(fl_param_make(s->l, s->shared, s->private_, s->theta, &e), 0);
    for (size_t i = 0; i < s->l->theta.elements; i++) {
        sum += (double)s->theta[i] * (double)g[i];
    }
    return sum;
}

/* theta is of degree 1 in every single stored element: a central difference is exact but for
 * rounding, whatever its step. */
static void differences(struct site *s, const float *g, const struct fl_tensors *all, float *at,
                        const float *pulled)
{
    for (uint32_t i = 0; i < all->count; i++) {
        const struct fl_tensor *t = &all->at[i];
        if (t->fixed || strcmp(t->name, "embedding") == 0 || strncmp(t->name, "hyper.", 6) == 0) {
            continue;
        }
        for (size_t k = 0; k < t->count; k += 1 + t->count / 11) {
            float keep = at[t->offset + k];
            at[t->offset + k] = keep + 0.5f;
            double up = product(s, g);
            at[t->offset + k] = keep - 0.5f;
            double down = product(s, g);
            at[t->offset + k] = keep;
            ck_assert_msg(fabs(up - down - (double)pulled[t->offset + k]) < 2e-5, "%s[%zu]: %g %g",
                          t->name, k, up - down, (double)pulled[t->offset + k]);
        }
    }
}

static void difference_of(int kind)
{
    char job[4096];
    struct site s;
    struct fl_rng r;
    struct fl_seed seed;

    site_init(&s, "job", job_with(job, kind, ""));
    float *g = fl_new(s.l->theta.elements, sizeof *g);
    fl_seed_from_u64(9, &seed);
    fl_rng_init(&r, &seed, 0);
    for (size_t i = 0; i < s.l->theta.elements; i++) {
        g[i] = 0.1f * (float)fl_rng_normal(&r);
    }
    for (uint32_t i = 0; i < s.l->private_.count; i++) {
        const struct fl_tensor *t = &s.l->private_.at[i];
        if (strcmp(t->name, "width") == 0) {
            s.private_[t->offset] = 0.6f;
        }
    }
    fl_rules_pull(s.l, s.shared, s.private_, g, s.g_shared, s.g_private);
    differences(&s, g, &s.l->shared, s.shared, s.g_shared);
    differences(&s, g, &s.l->private_, s.private_, s.g_private);
    fl_free(g);
    site_fini(&s);
}

START_TEST(a_gradient_is_a_difference)
{
    for (int k = 0; k < KINDS; k++) {
        difference_of(k);
    }
}
END_TEST

/* ---- steps ---- */

/* Towards a target that lies in the middle of what the tensors can be. */
static double distance(const struct site *s, float *g)
{
    double sum = 0;

    for (uint32_t k = 0; k < s->l->theta.count; k++) {
        const struct fl_tensor *t = &s->l->theta.at[k];
        for (size_t i = 0; i < t->count; i++) {
            g[t->offset + i] = s->theta[t->offset + i] - 0.1f * (float)sin((double)i);
            if (t->group == FL_GROUP_PRIVATE) {
                g[t->offset + i] = 0; /* frozen, and the head, which rules do not move */
            }
            sum += (double)g[t->offset + i] * (double)g[t->offset + i];
        }
    }
    return sum;
}

static const struct fl_generator_conf_train sgd = {
    .optim = {.lr = 0.02f, .momentum = 0.5f}, .clip = 5, .steps = 40};

static void steps_of(int kind, bool adam)
{
    struct fl_generator_conf_train conf = sgd;
    char job[4096];
    struct site s;
    struct fl_rules *rules;
    struct fl_generator *gen = NULL;
    struct fl_err e = {0};

    site_init(&s, "job", job_with(job, kind, ""));
    if (adam && s.l->generated == 0) {
        conf.optim = (struct fl_optim){
            .kind = FL_OPTIM_ADAM, .lr = 0.01f, .momentum = 0.9f, .beta2 = 0.999f};
    }
    size_t n = s.l->theta.elements;
    float *g = fl_new(n, sizeof *g), *before = fl_new(s.l->private_.elements + 1, sizeof *before);
    memcpy(before, s.private_, s.l->private_.elements * sizeof *before);
    ck_assert_int_eq(fl_rules_new(s.l, &conf, s.shared, s.private_, &rules, &e), 0);
    if (s.l->generated) {
        ck_assert_int_eq(fl_generator_new(s.l, &conf, s.shared, s.private_, &gen, &e), 0);
    }
    double first = distance(&s, g), last = first;
    for (int k = 0; k < 40; k++) {
        if (gen) {
            fl_generator_step(gen, g, s.theta);
        }
        fl_rules_step(rules, g, s.theta);
        last = distance(&s, g);
    }
    if (gen) {
        fl_generator_end(gen);
    }
    ck_assert_msg(last < 0.7 * first, "%g, from %g", last, first);
    /* What is stored makes this very theta. */
    float *again = fl_new(n, sizeof *again);
    ck_assert_int_eq(fl_param_make(s.l, s.shared, s.private_, again, &e), 0);
    for (size_t i = 0; i < n; i++) {
        ck_assert_double_eq_tol((double)again[i], (double)s.theta[i], gen ? 1e-5 : 1e-12);
    }
    /* Fixed tensors and the head have not moved, parts have. */
    for (uint32_t i = 0; i < s.l->private_.count; i++) {
        const struct fl_tensor *t = &s.l->private_.at[i];
        bool same =
            memcmp(before + t->offset, s.private_ + t->offset, t->count * sizeof(float)) == 0;
        bool moves = t->part && !t->fixed;
        /* An embedding moves where a hidden unit is active. */
        ck_assert_msg(same == !moves || strcmp(t->name, "embedding") == 0, "%s", t->name);
    }
    fl_free(again);
    fl_free(before);
    fl_free(g);
    fl_rules_free(rules);
    fl_generator_free(gen);
    site_fini(&s);
}

START_TEST(steps_go_down_and_leave_theta_as_it_is_made)
{
    for (int k = 0; k < KINDS; k++) {
        steps_of(k, false);
        steps_of(k, true);
    }
}
END_TEST

START_TEST(a_weak_site_releases_zeros_outside_its_width)
{
    static const struct fl_generator_conf_train conf = {
        .optim = {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 0.1f}, .steps = 5};
    char job[4096];
    struct site s;
    struct fl_rules *rules;
    struct fl_err e = {0};

    site_init(&s, "job", job_with(job, 6, "")); /* conv1: 4, fc1: 6 units */
    float *g = fl_new(s.l->theta.elements, sizeof *g);
    float *base = fl_new(s.l->shared.elements, sizeof *base);
    s.private_[fl_tensors_find(&s.l->private_, "width")->offset] = 0.5f;
    memcpy(base, s.shared, s.l->shared.elements * sizeof *base);
    ck_assert_int_eq(fl_rules_new(s.l, &conf, s.shared, s.private_, &rules, &e), 0);
    for (size_t i = 0; i < s.l->theta.elements; i++) {
        g[i] = 1; /* noise is everywhere too */
    }
    for (int k = 0; k < 5; k++) {
        fl_rules_step(rules, g, s.theta);
    }
    static const struct {
        const char *name;
        size_t columns, rows_kept, columns_kept;
    } cut[] = {{"conv1.weight.all", 9, 2, 9},
               {"conv1.bias.all", 1, 2, 1},
               {"fc1.weight.all", 36, 3, 18},
               {"fc1.bias.all", 1, 3, 1},
               {"fc2.weight.all", 6, 6, 3}};
    for (size_t c = 0; c < sizeof cut / sizeof cut[0]; c++) {
        const struct fl_tensor *t = fl_tensors_find(&s.l->shared, cut[c].name);
        ck_assert_msg(t != NULL, "%s", cut[c].name);
        for (size_t i = 0; i < t->count; i++) {
            bool kept =
                i / cut[c].columns < cut[c].rows_kept && i % cut[c].columns < cut[c].columns_kept;
            ck_assert_msg((s.shared[t->offset + i] != base[t->offset + i]) == kept, "%s[%zu]",
                          cut[c].name, i);
        }
    }
    fl_free(g);
    fl_free(base);
    fl_rules_free(rules);
    site_fini(&s);
}
END_TEST

START_TEST(unused_directions_become_exactly_zero)
{
    static const struct fl_generator_conf_train conf = {.optim = {.lr = 0.1f}, .steps = 9};
    char job[4096];
    struct site s;
    struct fl_rules *rules;
    struct fl_err e = {0};

    site_init(&s, "job",
              job_of(job, "fedrep",
                     "    - {layers: [fc1], kind: sparse_rank, rank: 3, sparsity: 1}\n", ""));
    float *g = fl_new(s.l->theta.elements, sizeof *g); /* zeros */
    const float *mix = s.private_ + fl_tensors_find(&s.l->private_, "fc1.weight.mix")->offset;
    ck_assert_int_eq(fl_rules_new(s.l, &conf, s.shared, s.private_, &rules, &e), 0);
    for (int k = 0; k < 9; k++) {
        fl_rules_step(rules, g, s.theta);
    }
    ck_assert_double_eq_tol((double)mix[0], 0.1, 1e-6);
    fl_rules_step(rules, g, s.theta);
    fl_rules_step(rules, g, s.theta);
    ck_assert(mix[0] == 0 && mix[1] == 0 && mix[2] == 0);
    fl_free(g);
    fl_rules_free(rules);
    site_fini(&s);
}
END_TEST

START_TEST(matrices_start_as_wide_as_usual)
{
    static const struct {
        const char *rule;
        double tolerance;
    } cases[] = {{"low_rank, rank: 16", 0.2}, {"atoms, atoms: 8", 0.4}, {"hashed, ratio: 4", 0.05}};

    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        char job[1024];
        struct site s;
        double sum = 0;
        snprintf(job, sizeof job,
                 "name: w\nstrategy: fedavg\nrounds: 1\nmodel:\n  input: [300]\n  classes: 3\n"
                 "  layers: [{linear: {out: 200}}, {linear: {out: 3}}]\n"
                 "  parameters: [{layers: [fc1], kind: %s}]\n"
                 "train: {lr: 0.1}\nround: {members: 1}\n",
                 cases[c].rule);
        site_init(&s, "job", job);
        for (size_t i = 0; i < 60000; i++) {
            sum += (double)s.theta[i] * (double)s.theta[i];
        }
        double ratio = sqrt(sum / 60000 * 3 * 300);
        ck_assert_msg(fabs(ratio - 1) < cases[c].tolerance, "%s: %g", cases[c].rule, ratio);
        site_fini(&s);
    }
}
END_TEST

/* ---- what is told ---- */

START_TEST(releases_are_counted)
{
    struct fl_param_row row[FL_PARAM_ROWS_MAX];
    char job[4096];
    struct site s;

    site_init(&s, "job",
              job_of(job, "hyperfl",
                     "    - {layers: [fc1], kind: adapter, rank: 2, base: frozen}\n", ""));
    uint32_t n = fl_param_rows(s.l, row);
    size_t released = 0, theta = 0, stays = 0;
    ck_assert_uint_eq(n, 4); /* fc1.bias plain, fc1.weight adapter, conv1 and fc2 affine, fc3 */
    for (uint32_t i = 0; i < n; i++) {
        released += row[i].released;
        theta += row[i].theta;
        stays += row[i].private_ + row[i].fixed;
    }
    ck_assert_uint_eq(released, s.l->shared.elements);
    ck_assert_uint_eq(theta, s.l->theta.elements);
    ck_assert_uint_eq(stays, s.l->private_.elements);
    ck_assert_str_eq(row[0].kind, "plain");
    ck_assert_uint_eq(row[0].released, 6);
    ck_assert_str_eq(row[1].kind, "adapter");
    ck_assert_uint_eq(row[1].private_, 2 * (6 + 36));
    ck_assert_uint_eq(row[1].fixed, 6 * 36);
    ck_assert_uint_eq(row[1].released, 0);
    ck_assert_str_eq(row[2].kind, "affine");
    ck_assert_uint_eq(row[2].theta, 40 + 42);
    ck_assert_str_eq(row[3].kind, "private");
    site_fini(&s);
}
END_TEST

/* ---- a base from a file ---- */

START_TEST(a_frozen_base_comes_from_a_file)
{
    static const char rules[] = "    - {layers: [conv1], kind: frozen}\n"
                                "    - {layers: [fc1], kind: adapter, rank: 2, base: frozen}\n";
    char job[4096];
    struct site s;
    struct fl_err e = {0};
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    uint8_t *bytes;
    size_t size;

    site_init(&s, "job", job_of(job, "hyperfl", rules, ""));
    ck_assert_uint_eq(fl_param_frozen(s.l), 3);
    float *values = fl_new(s.l->theta.elements, sizeof *values);
    for (size_t i = 0; i < s.l->theta.elements; i++) {
        values[i] = (float)i;
    }
    /* Another network's file has more in it; theta's own table will do. */
    ck_assert_int_eq(fl_tensors_write(&s.l->theta, values, &bytes, &size, &e), 0);
    ck_assert_int_eq(fl_tensor_file_view(bytes, size, f, &e), 0);
    ck_assert_int_eq(fl_param_base(s.l, f, s.private_, &e), 0);
    ck_assert_int_eq(fl_param_make(s.l, s.shared, s.private_, s.theta, &e), 0);
    for (size_t i = 0; i < 40; i++) {
        ck_assert_float_eq(s.theta[i], (float)i); /* conv1 */
    }
    size_t fc1 = fl_tensors_find(&s.l->theta, "fc1.weight")->offset;
    for (size_t i = 0; i < 216; i++) {
        ck_assert_float_eq(s.theta[fc1 + i], values[fc1 + i]); /* up starts at zero */
    }
    values[3] = NAN;
    fl_free(bytes);
    ck_assert_int_eq(fl_tensors_write(&s.l->theta, values, &bytes, &size, &e), 0);
    ck_assert_int_eq(fl_tensor_file_view(bytes, size, f, &e), 0);
    ck_assert_int_eq(fl_param_base(s.l, f, s.private_, &e), -FL_R_TENSORS);
    ck_assert_ptr_nonnull(strstr(e.msg, "conv1.weight"));
    fl_free(bytes);
    ck_assert_int_eq(fl_tensors_write(&s.l->shared, s.shared, &bytes, &size, &e), 0);
    ck_assert_int_eq(fl_tensor_file_view(bytes, size, f, &e), 0);
    ck_assert_int_eq(fl_param_base(s.l, f, s.private_, &e), -FL_R_TENSORS);
    ck_assert_ptr_nonnull(strstr(e.msg, "there is no tensor conv1.weight"));
    fl_free(bytes);
    fl_free(values);
    fl_free(f);
    site_fini(&s);
}
END_TEST

START_TEST(a_base_is_named_by_a_digest)
{
    static const struct {
        const char *rules, *message;
    } bad[] = {{"    - {layers: [fc1], kind: plain}\n  base: "
                "0123456789012345678901234567890123456789012345678901234567890123\n",
                "nothing would be taken from it"},
               {"    - {layers: [fc1], kind: frozen}\n  base: abc\n", "64 hexadecimal digits"}};
    char job[4096];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fl_plan *plan = fl_new(1, sizeof *plan);
        struct fl_err e = {0};
        job_of(job, "fedrep", bad[i].rules, "");
        int r = fl_plan_parse(plan, "job.yaml", job, strlen(job), &e);
        ck_assert_msg(r < 0 && strstr(e.msg, bad[i].message), "%d %s", r, e.msg);
        fl_free(plan);
    }
}
END_TEST

static void noised_of(int kind)
{
    char job[4096];
    struct site s;

    site_init(&s, "job",
              job_with(job, kind,
                       "privacy: {unit: example, clip: 1, noise_multiplier: 1, delta: 1e-5, "
                       "sampling_rate: 0.1, examples: 600}\n"));
    site_fini(&s);
}

START_TEST(rules_work_with_noised_examples)
{
    for (int k = 0; k < KINDS; k++) {
        noised_of(k);
    }
}
END_TEST

START_TEST(bad_rules_are_named)
{
    static const struct {
        const char *strategy, *rules, *message;
    } bad[] = {
        {"fedavg", "    - {layers: [fc9], kind: plain}\n", ":17:16: model.parameters[0].layers"},
        {"fedavg", "    - {layers: [fc1], kind: low_rank}\n", "rank is missing: low_rank needs it"},
        {"fedavg", "    - {layers: [fc1], kind: atoms, atoms: 2, rank: 1}\n", "atoms has no rank"},
        {"fedavg", "    - {layers: [fc1], kind: magic}\n", "magic"},
        {"fedavg", "    - {layers: [fc1], kind: plain}\n    - {layers: ['fc*'], kind: frozen}\n",
         "layer fc1 has a rule already, in line 17"},
        {"fedavg", "    - {layers: [fc1], kind: low_rank, rank: 7}\n",
         "parameters (line 17): layer fc1: the rank"},
        {"fedavg", "    - {layers: [fc1], kind: adapter, rank: 2, base: none}\n", "beside a base"},
        {"fedrep", "    - {layers: [fc3], kind: plain}\n", "private under this strategy"},
        {"local", "    - {layers: [fc1], kind: plain}\n", "private under this strategy"},
        {"fedavg", "    - {layers: [fc3], kind: nested}\n", "last layer cannot be nested"},
        {"fedavg",
         "    - {layers: [fc1], kind: nested}\n    - {layers: [fc2], kind: hashed, "
         "ratio: 2}\n",
         "follows a nested layer"},
        {"fedavg", "    - {layers: [fc1], kind: hashed, ratio: 4000}\n", "ratio is 1 to"},
        {"fedavg", "    - {layers: ['*'], kind: frozen}\n", "nothing is left that travels"},
        {"hyperfl", "    - {layers: [conv1, fc1, fc2], kind: plain}\n",
         "nothing is left for the hypernetwork"},
        {"fedavg", "    - fc1\n", "model.parameters[0]"},
        {"fedavg", "    layers: [fc1]\n", "a list of rules is wanted"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fl_plan *plan = fl_new(1, sizeof *plan);
        struct fl_err e = {0};
        char job[4096];
        job_of(job, bad[i].strategy, bad[i].rules, "");
        int r = fl_plan_parse(plan, "job.yaml", job, strlen(job), &e);
        ck_assert_msg(r < 0 && strstr(e.msg, bad[i].message), "%zu: %d %s", i, r, e.msg);
        fl_free(plan);
    }
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    static const struct fl_generator_conf_train conf = {.optim = {.lr = 0.1f, .momentum = 0.5f}};
    char job[4096];
    struct site s;
    int r = -1, n = 0;

    site_init(&s, "job", job_with(job, 0, ""));
    for (; r < 0; n++) {
        struct fl_rules *rules = NULL;
        struct fl_err e = {0};
        fl_mem_fail_at((uint64_t)n + 1);
        r = fl_rules_new(s.l, &conf, s.shared, s.private_, &rules, &e);
        fl_mem_fail_at(0);
        ck_assert(r == 0 || r == -FL_R_NOMEM);
        fl_rules_free(rules);
    }
    ck_assert_int_ge(n, 5);
    site_fini(&s);
}
END_TEST

TESTS_MAIN("rules", values_and_gradients_are_pytorchs, a_gradient_is_a_difference,
           steps_go_down_and_leave_theta_as_it_is_made,
           a_weak_site_releases_zeros_outside_its_width, unused_directions_become_exactly_zero,
           matrices_start_as_wide_as_usual, releases_are_counted, a_frozen_base_comes_from_a_file,
           a_base_is_named_by_a_digest, rules_work_with_noised_examples, bad_rules_are_named,
           every_allocation_may_fail)
