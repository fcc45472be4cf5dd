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
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { BATCH = 50, REPEATS = 9, SITE = 600, LARGE = 512, STEPS = 12 };

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

/* ---- how much of a step is products ---- */

/* The linker sends the engine's calls of the register tiles through here (--wrap). */
static bool counting;
static uint64_t in_products;

static uint64_t ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return (uint64_t)(1e9 * now_by(CLOCK_MONOTONIC));
#endif
}

/* What reading the counter twice takes by itself. */
static uint64_t ticks_own(void)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 1000; i++) {
        uint64_t start = ticks(), took = ticks() - start;
        least = took < least ? took : least;
    }
    return least;
}

#define WRAP(name, parameters, ...)                                                                \
    void __real_##name parameters;                                                                 \
    void __wrap_##name parameters;                                                                 \
    void __wrap_##name parameters                                                                  \
    {                                                                                              \
        if (!counting) {                                                                           \
            __real_##name(__VA_ARGS__);                                                            \
            return;                                                                                \
        }                                                                                          \
        uint64_t start_ = ticks();                                                                 \
        __real_##name(__VA_ARGS__);                                                                \
        in_products += ticks() - start_;                                                           \
        products_counted++;                                                                        \
    }

static uint64_t products_counted;
WRAP(fl_tile_nn,
     (const struct fl_tile *t, const float *a, const float *b, const float *bias, float *c), t, a,
     b, bias, c)
WRAP(fl_tile_nn_add, (const struct fl_tile *t, const float *a, const float *b, float *c), t, a, b,
     c)
WRAP(fl_tile_tn, (const struct fl_tile *t, const float *a, const float *b, bool add, float *c), t,
     a, b, add, c)
WRAP(fl_tile_nt,
     (const struct fl_tile *t, const float *a, const float *b, const float *bias, float *c), t, a,
     b, bias, c)

/* ---- a site ---- */

struct site {
    struct fl_plan *plan;
    struct fl_dataset data;
    float *shared, *private_;
};

static void fill(struct fl_examples *x, size_t features, struct fl_rng *r)
{
    x->count = SITE;
    x->x = fl_new(SITE * features, sizeof *x->x);
    x->y = fl_new(SITE, sizeof *x->y);
    for (size_t i = 0; i < SITE * features; i++) {
        x->x[i] = (float)fl_rng_unit(r);
    }
    for (size_t i = 0; i < SITE; i++) {
        x->y[i] = (int32_t)fl_rng_below(r, 10);
    }
}

static void site_init(struct site *s, void (*net)(struct fl_spec *), uint32_t batch,
                      enum fl_visibility v, const struct fl_generator_conf *g)
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
        .batch = batch,
        .epochs = 5,
        .head_epochs = v == FL_VISIBILITY_BODY_GENERATED,
        .body = {.lr = 0.002f, .momentum = 0.5f, .weight_decay = 5e-4f, .clip = 50},
        .head = {.lr = 0.1f, .momentum = 0.5f, .weight_decay = 5e-4f}};
    s->plan->data = (struct fl_data_conf){.channels = spec.input[0],
                                          .mean = {0.1307f, 0.1307f, 0.1307f},
                                          .std = {0.3081f, 0.3081f, 0.3081f}};
    fl_seed_from_u64(1, &seed);
    fl_rng_init(&r, &seed, 0);
    memcpy(s->data.shape, spec.input, sizeof s->data.shape);
    s->data.classes = 10;
    fill(&s->data.train, (size_t)spec.input[0] * spec.input[1] * spec.input[2], &r);
    fill(&s->data.test, (size_t)spec.input[0] * spec.input[1] * spec.input[2], &r);
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

/* Training as an agent does it, plain steps of everything that moves, batch and all. */
struct steps {
    struct site *site;
    struct fl_session session;
    struct fl_moves moves;
};

static void steps_init(struct steps *t, struct site *s)
{
    memset(t, 0, sizeof *t);
    t->site = s;
    if (fl_session_init(&t->session, s->plan, &s->data, NULL, NULL, NULL) < 0 ||
        fl_param_make(&s->plan->layout, s->shared, s->private_, t->session.theta, NULL) < 0 ||
        fl_moves_init(&t->moves, &t->session, true, s->plan->train.head_epochs == 0, true,
                      s->shared, s->private_, 60, NULL) < 0) {
        abort();
    }
}

static void steps_fini(struct steps *t)
{
    fl_moves_fini(&t->moves);
    fl_session_fini(&t->session);
}

static void steps_take(struct steps *t, size_t count)
{
    struct fl_session *s = &t->session;
    size_t batch = t->site->plan->train.batch;

    for (size_t k = 0; k < count; k++) {
        fl_session_load(s, &t->site->data.train, NULL, k % (SITE / batch) * batch, batch);
        fl_model_set(s->model, s->theta);
        fl_model_gradient(s->model, s->x, s->goal, batch, s->grad, NULL);
        fl_moves_step(&t->moves);
    }
}

/* Seconds of one of them. */
static double step_seconds(struct site *s)
{
    struct steps t;
    double best;

    steps_init(&t, s);
    BEST(best, steps_take(&t, STEPS));
    steps_fini(&t);
    return best / STEPS;
}

/* Seconds of one noised step of `batch` expected examples; some of them through fl_train, less what
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
            s->plan->train.steps = k ? STEPS + 1 : 1;
            if (fl_train(&task, &result, NULL) < 0) {
                abort();
            }
            cost[k] = fmin(cost[k], result.report.cpu_s);
        }
    }
    s->plan->privacy.unit = FL_UNIT_NONE;
    s->plan->train.steps = 0;
    return (cost[1] - cost[0]) / STEPS;
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

/* The share of a plain step that is not in products, of the quickest of several. Wall time of both:
 * what the machine does beside is in either. */
static double share_outside(struct site *s)
{
    uint64_t own = ticks_own(), least = UINT64_MAX;
    double share = NAN;
    struct steps t;

    steps_init(&t, s);
    counting = true;
    for (int repeat = 0; repeat < REPEATS * STEPS; repeat++) {
        in_products = products_counted = 0;
        uint64_t start = ticks();
        steps_take(&t, 1);
        uint64_t whole = ticks() - start;
        if (whole < least) {
            double within = (double)in_products - (double)(products_counted * own);
            least = whole;
            share = 1 - within / ((double)whole - 2 * (double)(products_counted * own));
        }
    }
    counting = false;
    steps_fini(&t);
    return share;
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

static void print_rate(const char *what, int threads, double samples_per_s)
{
    printf("{\"bench\":\"%s\",\"by\":\"cohort\",\"threads\":%d,\"samples_per_cpu_s\":%.0f}\n", what,
           threads, samples_per_s);
    fflush(stdout);
}

static void *lane(void *arg)
{
    steps_take(arg, STEPS);
    return NULL;
}

/* Two sites training at once, a thread each, as the lanes of an agent do. CPU time of both. */
static double pair_seconds(struct site s[2])
{
    struct steps t[2];
    double best = INFINITY;

    steps_init(&t[0], &s[0]);
    steps_init(&t[1], &s[1]);
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        pthread_t thread[2];
        double start = now_by(CLOCK_PROCESS_CPUTIME_ID);
        for (int k = 0; k < 2; k++) {
            if (pthread_create(&thread[k], NULL, lane, &t[k])) {
                abort();
            }
        }
        pthread_join(thread[0], NULL);
        pthread_join(thread[1], NULL);
        best = fmin(best, now_by(CLOCK_PROCESS_CPUTIME_ID) - start);
    }
    steps_fini(&t[0]);
    steps_fini(&t[1]);
    return best / (2 * STEPS);
}

/* A network's plain step with one thread and with two, and its private one; at two sizes of the
 * batch if it is `small`. */
static void bench_network(const char *what, void (*net)(struct fl_spec *), uint32_t batch,
                          bool small)
{
    struct site s[2];
    char name[40];

    site_init(&s[0], net, batch, FL_VISIBILITY_ALL_SHARED, NULL);
    site_init(&s[1], net, batch, FL_VISIBILITY_ALL_SHARED, NULL);
    size_t n = s[0].plan->layout.shared.elements;
    float *delta = fl_try_aligned(n, sizeof *delta);
    if (!delta) {
        abort();
    }
    double plain = step_seconds(&s[0]) / batch, noise = floor_noise(n);
    print_rate(what, 1, 1 / plain);
    print_rate(what, 2, batch / pair_seconds(s));
    if (fl_tile_fast()) { /* elsewhere products are OpenBLAS's, and not counted */
        printf("{\"bench\":\"%s_outside_products\",\"share\":%.2f}\n", what, share_outside(&s[0]));
    }
    for (int k = 0; k < (small ? 2 : 1); k++) {
        size_t size = k ? LARGE : batch;
        double s_private = noised_seconds(&s[0], size, delta, delta) / (double)size;
        snprintf(name, sizeof name, k ? "%s_private_%d" : "%s_private", what, LARGE);
        print_rate(name, 1, 1 / s_private);
        printf("{\"bench\":\"%s_cost\",\"of_plain_step\":%.2f,\"without_noise\":%.2f,"
               "\"noise_of_plain_step\":%.2f}\n",
               name, s_private / plain, (s_private - noise / (double)size) / plain,
               noise / (double)size / plain);
    }
    fl_free(delta);
    site_fini(&s[0]);
    site_fini(&s[1]);
}

/* plain: seconds of a step without a generator. */
static void bench_generator(const char *what, const struct fl_generator_conf *g, double products_s,
                            double plain)
{
    struct site s;

    site_init(&s, nets_fmnist, BATCH, FL_VISIBILITY_BODY_GENERATED, g);
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

static const struct network {
    const char *name;
    void (*net)(struct fl_spec *);
    uint32_t batch;
    bool small;
} networks[] = {
    {"cnn", nets_cnn, 50, true},
    {"mlp", nets_mlp, 50, true},
    {"transformer", nets_transformer, 32, false},
    {"resnet8", nets_resnet8, 50, false},
};

/* bench_train NETWORK: that one alone, and only plain steps if NETWORK is followed by a word, for a
 * profiler. */
int main(int argc, char **argv)
{
    struct site s;
    struct rusage usage;

    for (size_t i = 0; i < FL_COUNT(networks); i++) {
        const struct network *n = &networks[i];
        if (argc == 2 && strcmp(argv[1], n->name) == 0) {
            bench_network(n->name, n->net, n->batch, n->small);
        } else if (argc == 3 && strcmp(argv[1], n->name) == 0) {
            site_init(&s, n->net, n->batch, FL_VISIBILITY_ALL_SHARED, NULL);
            print_rate(n->name, 1, n->batch / step_seconds(&s));
            site_fini(&s);
        }
    }
    if (argc > 1) {
        return 0;
    }
    double products_s = floor_products();

    printf("{\"bench\":\"blas\",\"library\":\"%s\",\"products_us_per_sample\":%.1f}\n",
           fl_blas_name(), products_s * 1e6);
    bench_products();
    for (size_t i = 0; i < FL_COUNT(networks); i++) {
        bench_network(networks[i].name, networks[i].net, networks[i].batch, networks[i].small);
    }
    site_init(&s, nets_fmnist, BATCH, FL_VISIBILITY_ALL_SHARED, NULL);
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
