/*
 * The unit example and parameterizations: what a site releases, and what private state it keeps for
 * the next release, may depend on its examples through noised sums only. Here every Poisson batch
 * is empty (a sampling rate of 1e-9), so the sums hold noise alone: whatever the examples are,
 * both must come out the same, byte for byte, for every kind.
 */
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static const char *const kinds[][2] = {
    {"fedavg", "{layers: [conv1, fc1], kind: low_rank, rank: 3}"},
    {"fedrep", "{layers: [fc1, fc2], kind: adapter, rank: 2}"},
    {"fedrep", "{layers: [conv1, fc1], kind: sparse_rank, rank: 2, sparsity: 0.1}"},
    {"fedrep", "{layers: [conv1, fc1, fc2], kind: atoms, atoms: 3}"},
    {"fedavg", "{layers: ['*'], kind: hashed, ratio: 3}"},
    {"fedavg", "{layers: [fc1, fc2], kind: tied, rank: 1}"},
    {"fedrep", "{layers: [conv1, fc1], kind: nested}"},
    {"hyperfl", "{layers: [fc1], kind: plain}"},
    {"hyperfl", "{layers: [conv1], kind: frozen}"},
};

static const char text[] = "name: taint\n"
                           "strategy: %s\n"
                           "rounds: 1\n"
                           "model:\n"
                           "  input: [1, 5, 5]\n"
                           "  classes: 3\n"
                           "  layers: [{conv2d: {out: 4, kernel: 3}}, {relu: {}}, {flatten: {}}, "
                           "{linear: {out: 6}}, {relu: {}}, {linear: {out: 6}}, {tanh: {}}, "
                           "{linear: {out: 3}}]\n"
                           "  parameters: [%s]\n"
                           "train: {lr: 0.05, steps: 6, momentum: 0.5, weight_decay: 0.01, serve: "
                           "{epochs: 1}}\n"
                           "privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 1e-10, "
                           "sampling_rate: 1e-9, examples: 1000000000}\n"
                           "round: {members: 1}\n";

static void fill(struct fl_examples *x, uint32_t count, float value)
{
    x->count = count;
    x->x = fl_new((size_t)count * 25, sizeof *x->x);
    x->y = fl_new(count, sizeof *x->y);
    for (size_t i = 0; i < (size_t)count * 25; i++) {
        x->x[i] = value * (float)(i % 7);
    }
    for (uint32_t i = 0; i < count; i++) {
        x->y[i] = (int32_t)((i + (value > 1)) % 3);
    }
}

static void train(const struct fl_plan *plan, float value, float *delta, float *private_)
{
    struct fl_dataset data = {.shape = {1, 5, 5}, .classes = 3};
    struct fl_seed job, own;
    struct fl_err e = {0};
    const struct fl_layout *l = &plan->layout;
    float *shared = fl_new(l->shared.elements, sizeof *shared);
    float *before = fl_new(l->private_.elements + 1, sizeof *before);

    fill(&data.train, value > 1 ? 40 : 30, value);
    fill(&data.test, 10, value);
    fl_seed_from_u64(1, &job);
    fl_seed_from_u64(2, &own);
    fl_layout_init_shared(l, &job, shared);
    fl_layout_init_private(l, &job, &own, before);
    struct fl_train_task task = {
        .plan = plan, .data = &data, .base = shared, .private_in = before, .seed = own, .round = 1};
    struct fl_train_result result = {.delta = delta, .private_out = private_};
    ck_assert_msg(fl_train(&task, &result, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(result.event.count, 6);
    fl_free(shared);
    fl_free(before);
    fl_free(data.train.x);
    fl_free(data.train.y);
    fl_free(data.test.x);
    fl_free(data.test.y);
}

START_TEST(examples_reach_releases_and_private_parts_through_noised_sums_only)
{
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct fl_plan *plan = fl_new(1, sizeof *plan);
        struct fl_err e = {0};
        char job[2048];
        int n = snprintf(job, sizeof job, text, kinds[k][0], kinds[k][1]);
        ck_assert_msg(fl_plan_parse(plan, "job", job, (size_t)n, &e) == 0, "%s", e.msg);
        size_t shared = plan->layout.shared.elements, own = plan->layout.private_.elements;
        float *a = fl_new(shared, sizeof *a), *b = fl_new(shared, sizeof *b);
        float *p = fl_new(own + 1, sizeof *p), *q = fl_new(own + 1, sizeof *q);
        train(plan, 0.1f, a, p);
        train(plan, 3, b, q);
        bool moved = false;
        for (size_t i = 0; i < shared; i++) {
            moved = moved || a[i] != 0;
        }
        ck_assert_msg(moved, "%s: no noise in what is released", kinds[k][1]);
        ck_assert_msg(memcmp(a, b, shared * sizeof *a) == 0, "%s", kinds[k][1]);
        ck_assert_msg(memcmp(p, q, own * sizeof *p) == 0, "%s", kinds[k][1]);
        fl_free(a);
        fl_free(b);
        fl_free(p);
        fl_free(q);
        fl_free(plan);
    }
}
END_TEST

TESTS_MAIN("rules_private", examples_reach_releases_and_private_parts_through_noised_sums_only)
