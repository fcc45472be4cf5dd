/*
 * What training costs on this machine, as JSON lines: the published Fashion-MNIST network, batches
 * of 50, CPU time of one thread, best of several. Every rate stands beside its floor, measured in
 * the same run: the network's matrix products by OpenBLAS alone, the random integers of a noised
 * step, two passes over a generator's matrix. "of_floor" is floor time / time: 1 would be nothing
 * but that.
 */
#include "client/trainer/session.h"
#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/tile.h"
#include "common/math/vec.h"
#include "common/nn/layers.h"
#include "common/privacy/noise.h"
#include "tests/bench/best.h"
#include "tests/lib/nets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { BATCH = 50, REPEATS = 9, SITE = 600, LARGE = 512 };

/* ---- floors ---- */

struct product {
    bool ta, tb;
    size_t m, n, k, lda, ldb, ldc;
    size_t batch; /* examples in one call */
};
/* Forward, weights' gradient, inputs' gradient of each layer: as many multiplications as training
 * needs, in the shapes that the engine uses. */
static const struct product products[] = {
    {false, true, 576, 16, 25, 25, 25, 16, 1},      {true, false, 16, 25, 576, 16, 25, 25, 1},
    {false, true, 100, 32, 400, 400, 400, 32, 1},   {true, false, 32, 400, 100, 32, 400, 400, 1},
    {false, false, 100, 400, 32, 32, 400, 400, 1},  {false, true, 50, 128, 800, 800, 800, 128, 50},
    {true, false, 128, 800, 50, 128, 800, 800, 50}, {false, false, 50, 800, 128, 128, 800, 800, 50},
    {false, true, 50, 10, 128, 128, 128, 10, 50},   {true, false, 10, 128, 50, 10, 128, 128, 50},
    {false, false, 50, 128, 10, 10, 128, 128, 50},
};

/* Seconds of one example's products. */
static double floor_products(void)
{
    float *a = fl_try_aligned(120000, sizeof *a), *b = fl_try_aligned(120000, sizeof *b);
    float *c = fl_try_aligned(120000, sizeof *c);
    double sum = 0;

    if (!a || !b || !c) {
        abort();
    }
    for (size_t i = 0; i < FL_COUNT(products); i++) {
        const struct product *p = &products[i];
        double s;
        BEST(
            s, for (size_t n = 0; n < 200; n++) {
                fl_blas_gemm(p->ta, p->tb, p->m, p->n, p->k, 1, a, p->lda, b, p->ldb, 0, c, p->ldc);
            });
        sum += s / 200 / (double)p->batch;
    }
    fl_free(a);
    fl_free(b);
    fl_free(c);
    return sum;
}

/* Seconds of two passes over a matrix of H x P floats, of which the second one adds up. */
static double floor_passes(size_t hidden, size_t generated)
{
    float *w = fl_try_aligned(hidden * generated, sizeof *w);
    float *x = fl_try_aligned(generated, sizeof *x);
    double s;

    if (!w || !x) {
        abort();
    }
    BEST(s, {
        for (size_t h = 0; h < hidden; h++) {
            x[0] += (float)fl_vec_dot(w + h * generated, x, generated);
        }
        for (size_t h = 0; h < hidden; h++) {
            fl_vec_axpy(0.5f, w + h * generated, x, generated);
        }
    });
    fl_free(w);
    fl_free(x);
    return s;
}

static double floor_noise(size_t elements)
{
    int64_t *q = fl_try_aligned(elements, sizeof *q);
    struct fl_noise *n = NULL;
    struct fl_seed seed;
    struct fl_rng rng;
    double s;

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&rng, &seed, 0);
    if (!q || fl_noise_new(0x1p20, &n, NULL) < 0) {
        abort();
    }
    BEST(s, fl_noise_add(n, &rng, q, elements));
    fl_noise_free(n);
    fl_free(q);
    return s;
}

/* ---- a site ---- */

struct site {
    struct fl_plan *plan;
    struct fl_dataset data;
    float *shared, *private_;
};

static void fill(struct fl_examples *x, struct fl_rng *r)
{
    x->count = SITE;
    x->x = fl_new((size_t)SITE * 784, sizeof *x->x);
    x->y = fl_new(SITE, sizeof *x->y);
    for (size_t i = 0; i < (size_t)SITE * 784; i++) {
        x->x[i] = (float)fl_rng_unit(r);
    }
    for (size_t i = 0; i < SITE; i++) {
        x->y[i] = (int32_t)fl_rng_below(r, 10);
    }
}

static void site_init(struct site *s, void (*net)(struct fl_spec *), enum fl_visibility v,
                      const struct fl_generator_conf *g)
{
    struct fl_spec spec;
    struct fl_seed seed;
    struct fl_rng r;
    struct fl_err e = {0};

    memset(s, 0, sizeof *s);
    s->plan = fl_new(1, sizeof *s->plan);
    net(&spec);
    if (fl_spec_check(&spec, &e) < 0 || fl_layout_init(&s->plan->layout, &spec, v, g, &e) < 0) {
        abort();
    }
    s->plan->train = (struct fl_train_conf){
        .batch = BATCH,
        .epochs = 5,
        .head_epochs = v == FL_VISIBILITY_BODY_GENERATED,
        .body = {.lr = 0.002f, .momentum = 0.5f, .weight_decay = 5e-4f, .clip = 50},
        .head = {.lr = 0.1f, .momentum = 0.5f, .weight_decay = 5e-4f}};
    s->plan->data = (struct fl_data_conf){.channels = 1, .mean = {0.1307f}, .std = {0.3081f}};
    fl_seed_from_u64(1, &seed);
    fl_rng_init(&r, &seed, 0);
    s->data.shape[0] = 1;
    s->data.shape[1] = s->data.shape[2] = 28;
    s->data.classes = 10;
    fill(&s->data.train, &r);
    fill(&s->data.test, &r);
    s->shared = fl_try_aligned(s->plan->layout.shared.elements, sizeof *s->shared);
    s->private_ = fl_try_aligned(s->plan->layout.private_.elements, sizeof *s->private_);
    if (!s->shared || !s->private_) {
        abort();
    }
    fl_layout_init_shared(&s->plan->layout, &seed, s->shared);
    fl_layout_init_private(&s->plan->layout, &seed, &seed, s->private_);
}

static void site_fini(struct site *s)
{
    fl_free(s->plan);
    fl_free(s->data.train.x);
    fl_free(s->data.train.y);
    fl_free(s->data.test.x);
    fl_free(s->data.test.y);
    fl_free(s->shared);
    fl_free(s->private_);
}

/* Seconds of one plain step of everything that moves, batch and all. */
static double step_seconds(struct site *s)
{
    struct fl_session session;
    struct fl_moves moves = {0};
    double best = INFINITY;

    if (fl_session_init(&session, s->plan, &s->data, NULL, NULL, NULL) < 0 ||
        fl_param_make(&s->plan->layout, s->shared, s->private_, session.theta, NULL) < 0 ||
        fl_moves_init(&moves, &session, true, s->plan->train.head_epochs == 0, true, s->shared,
                      s->private_, 60, NULL) < 0) {
        abort();
    }
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        double start = now();
        for (size_t k = 0; k < SITE / BATCH; k++) {
            fl_session_load(&session, &s->data.train, NULL, k * BATCH, BATCH);
            fl_model_set(session.model, session.theta);
            fl_model_gradient(session.model, session.x, session.y, BATCH, session.grad, NULL);
            fl_moves_step(&moves);
        }
        best = fmin(best, (now() - start) / (SITE / BATCH));
    }
    fl_moves_fini(&moves);
    fl_session_fini(&session);
    return best;
}

/* Seconds of one noised step of `batch` expected examples; 20 of them through fl_train, less what
 * it does beside. */
static double noised_seconds(struct site *s, size_t batch, float *delta, float *private_out)
{
    struct fl_train_task task = {
        .plan = s->plan, .data = &s->data, .base = s->shared, .private_in = s->private_};
    double cost[2] = {INFINITY, INFINITY};

    s->plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_EXAMPLE,
                                                .clip = 1,
                                                .noise_multiplier = 1,
                                                .sampling_rate = (double)batch / SITE,
                                                .examples = SITE};
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        for (int k = 0; k < 2; k++) {
            struct fl_train_result result = {.delta = delta, .private_out = private_out};
            s->plan->train.steps = k ? 21 : 1;
            if (fl_train(&task, &result, NULL) < 0) {
                abort();
            }
            cost[k] = fmin(cost[k], result.report.cpu_s);
        }
    }
    s->plan->privacy.unit = FL_UNIT_NONE;
    s->plan->train.steps = 0;
    return (cost[1] - cost[0]) / 20;
}

/* Seconds of a whole round by fl_train: 1 epoch of the head, 5 of the body, two tests of 600. */
static double round_seconds(struct site *s, float *delta, float *private_out)
{
    struct fl_train_task task = {
        .plan = s->plan, .data = &s->data, .base = s->shared, .private_in = s->private_};
    double best = INFINITY;

    for (int repeat = 0; repeat < 3; repeat++) {
        struct fl_train_result result = {.delta = delta, .private_out = private_out};
        if (fl_train(&task, &result, NULL) < 0) {
            abort();
        }
        best = fmin(best, result.report.cpu_s);
    }
    return best;
}

static void print_step(const char *what, double s, double floor)
{
    printf("{\"bench\":\"%s\",\"samples_per_cpu_s\":%.0f,\"floor_samples_per_cpu_s\":%.0f,"
           "\"of_floor\":%.2f}\n",
           what, BATCH / s, BATCH / floor, floor / s);
    fflush(stdout);
}

/* ---- products, each beside OpenBLAS's own time for it ---- */

static const struct large {
    const char *name;
    bool ta, tb;
    size_t m, n, k;
} large[] = {
    {"linear_forward", false, true, 50, 256, 784}, {"linear_weights", true, false, 256, 784, 50},
    {"linear_inputs", false, false, 50, 512, 128}, {"conv_forward", false, true, 64, 32, 400},
    {"conv_weights", true, false, 32, 400, 64},    {"conv_inputs", false, false, 64, 400, 32},
};

/* The second convolution of the network "cnn", 12 x 12 x 16 to 8 x 8 x 32: as the engine does it,
 * patches and all. */
static void large_conv(const char *name, struct fl_conv *c, const float *x, const float *dy,
                       float *to)
{
    if (strcmp(name, "conv_forward") == 0) {
        fl_conv_forward(c, c->dbias, x, to);
    } else {
        fl_conv_backward(c, x, dy, strcmp(name, "conv_inputs") == 0 ? to : NULL);
    }
}

static void large_linear(const struct large *p, const float *a, const float *b, float *c)
{
    struct fl_tile t = {.m = p->m, .n = p->n, .k = p->k, .segments = 1, .ldc = p->n};

    t.lda = p->ta ? p->m : p->k;
    t.ldb = p->tb ? p->k : p->n;
    if (p->ta) {
        fl_tile_tn(&t, a, b, true, c);
    } else if (p->tb) {
        fl_tile_nt(&t, a, b, NULL, c);
    } else {
        fl_tile_nn(&t, a, b, NULL, c);
    }
}

static void bench_products(void)
{
    enum { ROOM = 256 * 784 + 64, TIMES = 100 };
    float *at[7];
    double before = 0;

    for (size_t i = 0; i < FL_COUNT(at); i++) {
        if (!(at[i] = fl_try_aligned(ROOM, sizeof(float)))) {
            abort();
        }
    }
    struct fl_conv conv = {.channels = 16,
                           .height = 12,
                           .width = 12,
                           .out = 32,
                           .kernel = 5,
                           .stride = 1,
                           .out_height = 8,
                           .out_width = 8,
                           .patch = 400,
                           .row = 400,
                           .weight = at[0],
                           .dweight = at[1],
                           .dbias = at[2],
                           .across = fl_tile_fast() ? at[3] : NULL,
                           .patches = at[4]};
    for (size_t i = 0; i < FL_COUNT(large); i++) {
        const struct large *p = &large[i];
        double ours, theirs, flops = 2 * (double)(p->m * p->n * p->k);
        BEST(
            theirs, for (size_t n = 0; n < TIMES; n++) {
                fl_blas_gemm(p->ta, p->tb, p->m, p->n, p->k, 1, at[0], p->ta ? p->m : p->k, at[1],
                             p->tb ? p->k : p->n, 0, at[4], p->n);
            });
        if (p->name[0] == 'c') {
            BEST(
                ours, for (size_t n = 0; n < TIMES;
                           n++) { large_conv(p->name, &conv, at[5], at[6], at[4]); });
        } else {
            BEST(
                ours, for (size_t n = 0; n < TIMES; n++) { large_linear(p, at[0], at[1], at[4]); });
        }
        /* Backward with inputs is both products: the weights' alone is taken off. */
        double own = strcmp(p->name, "conv_inputs") == 0 ? ours - before : ours;
        before = ours;
        printf("{\"bench\":\"product\",\"name\":\"%s\",\"gflops\":%.0f,"
               "\"openblas_gflops\":%.0f}\n",
               p->name, flops * TIMES / own * 1e-9, flops * TIMES / theirs * 1e-9);
    }
    for (size_t i = 0; i < FL_COUNT(at); i++) {
        fl_free(at[i]);
    }
}

/* ---- beside PyTorch ---- */

static void print_rate(const char *what, double samples_per_s)
{
    printf("{\"bench\":\"%s\",\"by\":\"cohort\",\"threads\":1,\"samples_per_cpu_s\":%.0f}\n", what,
           samples_per_s);
    fflush(stdout);
}

/* A network's plain step, and its private one at two sizes of the batch. */
static void bench_network(const char *what, void (*net)(struct fl_spec *))
{
    struct site s;
    char name[40];

    site_init(&s, net, FL_VISIBILITY_ALL_SHARED, NULL);
    size_t n = s.plan->layout.shared.elements;
    float *delta = fl_try_aligned(n, sizeof *delta);
    if (!delta) {
        abort();
    }
    double plain = step_seconds(&s) / BATCH, noise = floor_noise(n);
    print_rate(what, 1 / plain);
    for (int k = 0; k < 2; k++) {
        size_t batch = k ? LARGE : BATCH;
        double s_private = noised_seconds(&s, batch, delta, delta) / (double)batch;
        snprintf(name, sizeof name, k ? "%s_private_%d" : "%s_private", what, LARGE);
        print_rate(name, 1 / s_private);
        printf("{\"bench\":\"%s_cost\",\"of_plain_step\":%.2f,\"without_noise\":%.2f}\n", name,
               s_private / plain, (s_private - noise / (double)batch) / plain);
    }
    fl_free(delta);
    site_fini(&s);
}

/* plain: seconds of a step without a generator. */
static void bench_generator(const char *what, const struct fl_generator_conf *g, double products_s,
                            double plain)
{
    struct site s;

    site_init(&s, nets_fmnist, FL_VISIBILITY_BODY_GENERATED, g);
    const struct fl_layout *l = &s.plan->layout;
    float *delta = fl_try_aligned(l->shared.elements, sizeof *delta);
    float *private_out = fl_try_aligned(l->private_.elements, sizeof *private_out);
    if (!delta || !private_out) {
        abort();
    }
    double passes = g->kind == FL_GENERATOR_AFFINE ? floor_passes(g->hidden, l->generated) : 0;
    double step = step_seconds(&s);
    print_step(what, step, BATCH * products_s + passes);
    printf("{\"bench\":\"%s_cost\",\"of_plain_step\":%.2f,\"added_ms\":%.3f,\"two_passes_ms\":%.3f,"
           "\"added_of_two_passes\":%.2f}\n",
           what, step / plain, 1e3 * (step - plain), 1e3 * passes,
           passes > 0 ? (step - plain) / passes : 0.0);
    /* The head's epoch and the two tests need the forward products only, about a third. */
    double floor = 5 * (SITE * products_s + SITE / BATCH * passes) + 3 * SITE * products_s / 3;
    double round = round_seconds(&s, delta, private_out);
    printf("{\"bench\":\"%s_round\",\"cpu_s\":%.3f,\"cpu_s_per_epoch\":%.4f,"
           "\"floor_cpu_s_per_epoch\":%.4f,\"of_floor\":%.2f}\n",
           what, round, round / 6, floor / 6, floor / round);
    fl_free(delta);
    fl_free(private_out);
    site_fini(&s);
}

/* A whole step of a network by itself: gradient of a batch, SGD with momentum. */
static void bench_step(const char *name, void (*net)(struct fl_spec *), size_t batch)
{
    enum { STEPS = 10 };
    const struct fl_optim optim = {.lr = 0.001f, .momentum = 0.5f};
    struct fl_layout *layout = fl_new(1, sizeof *layout);
    struct fl_model *m = NULL;
    struct fl_spec spec;
    struct fl_seed seed;
    struct fl_rng r;
    double s;

    net(&spec);
    if (fl_spec_check(&spec, NULL) < 0 ||
        fl_layout_init(layout, &spec, FL_VISIBILITY_ALL_SHARED, NULL, NULL) < 0 ||
        fl_model_new(&spec, (uint32_t)batch, &m, NULL) < 0) {
        abort();
    }
    size_t n = layout->theta.elements;
    size_t features = (size_t)spec.input[0] * spec.input[1] * spec.input[2];
    float *theta = fl_new(n, sizeof *theta), *grad = fl_new(n, sizeof *grad);
    float *momentum = fl_new(n, sizeof *momentum);
    float *x = fl_new(batch * features, sizeof *x);
    int32_t *y = fl_new(batch, sizeof *y);
    fl_seed_from_u64(1, &seed);
    fl_layout_init_shared(layout, &seed, theta);
    fl_rng_init(&r, &seed, 0);
    for (size_t i = 0; i < batch * features; i++) {
        x[i] = (float)fl_rng_unit(&r);
    }
    for (size_t i = 0; i < batch; i++) {
        y[i] = (int32_t)fl_rng_below(&r, spec.classes);
    }
    BEST(
        s, for (int k = 0; k < STEPS; k++) {
            fl_model_set(m, theta);
            fl_model_gradient(m, x, y, batch, grad, NULL);
            fl_optim_step(&optim, 1, grad, momentum, theta, n);
        });
    printf("{\"bench\":\"%s\",\"by\":\"cohort\",\"threads\":1,\"samples_per_cpu_s\":%.0f}\n", name,
           (double)(batch * STEPS) / s);
    fflush(stdout);
    fl_model_free(m);
    fl_free(layout);
    fl_free(theta);
    fl_free(grad);
    fl_free(momentum);
    fl_free(x);
    fl_free(y);
}

/* bench_train transformer: that one alone, for a profiler. */
int main(int argc, char **argv)
{
    struct site s;
    struct rusage usage;
    if (argc > 1) {
        bool resnet = strcmp(argv[1], "resnet8") == 0;
        bench_step(argv[1], resnet ? nets_resnet8 : nets_transformer, resnet ? 50 : 32);
        return 0;
    }
    double products_s = floor_products();

    printf("{\"bench\":\"blas\",\"library\":\"%s\",\"products_us_per_sample\":%.1f}\n",
           fl_blas_name(), products_s * 1e6);
    bench_products();
    bench_network("cnn", nets_cnn);
    bench_network("mlp", nets_mlp);
    bench_step("transformer", nets_transformer, 32);
    bench_step("resnet8", nets_resnet8, 50);
    site_init(&s, nets_fmnist, FL_VISIBILITY_ALL_SHARED, NULL);
    size_t n = s.plan->layout.shared.elements;
    float *delta = fl_try_aligned(n, sizeof *delta);
    if (!delta) {
        abort();
    }
    double plain = step_seconds(&s);
    print_step("plain_step", plain, BATCH * products_s);
    print_step("noised_step", noised_seconds(&s, BATCH, delta, delta),
               BATCH * products_s + floor_noise(n));
    fl_free(delta);
    site_fini(&s);
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"bench\":\"memory\",\"peak_mb\":%.1f}\n", (double)usage.ru_maxrss / 1024);
    bench_generator("hyperfl_affine_3",
                    &(struct fl_generator_conf){FL_GENERATOR_AFFINE, .embedding = 64, .hidden = 3,
                                                .scaled = true},
                    products_s, plain);
    bench_generator("hyperfl_kronecker_64",
                    &(struct fl_generator_conf){FL_GENERATOR_KRONECKER, .embedding = 128,
                                                .hidden = 64, .scaled = true},
                    products_s, plain);
    bench_generator("hyperfl_chunked",
                    &(struct fl_generator_conf){FL_GENERATOR_CHUNKED, .embedding = 16, .hidden = 64,
                                                .chunk = 1024, .scaled = true},
                    products_s, plain);
    bench_generator("hyperfl_affine_128",
                    &(struct fl_generator_conf){FL_GENERATOR_AFFINE, .embedding = 64, .hidden = 128,
                                                .scaled = true},
                    products_s, plain);
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"bench\":\"memory_affine_128\",\"peak_mb\":%.1f}\n", (double)usage.ru_maxrss / 1024);
    return 0;
}
