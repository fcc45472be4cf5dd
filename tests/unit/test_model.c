#include "common/base/mem.h"
#include "common/nn/model.h"
#include "tests/lib/check_main.h"
#include "tests/lib/naive_net.h"
#include "tests/lib/nets.h"

#include <pthread.h>

/* A network, parameters and examples to try it on. */
struct bench {
    struct fl_spec spec;
    struct fl_layout *layout;
    size_t features, count;
    float *theta, *x, *grad;
    double *exact; /* theta in doubles */
    int32_t *y;
};

static void bench_init(struct bench *b, const struct fl_spec *spec, size_t count, uint64_t seed)
{
    struct fl_err e = {0};
    struct fl_seed s;
    struct fl_rng r;

    memset(b, 0, sizeof *b);
    b->spec = *spec;
    b->layout = fl_new(1, sizeof *b->layout);
    ck_assert_msg(fl_spec_check(&b->spec, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(fl_layout_init(b->layout, &b->spec, FL_VISIBILITY_ALL_SHARED, NULL, &e), 0);
    b->features = (size_t)spec->input[0] * spec->input[1] * spec->input[2];
    b->count = count;
    size_t p = b->layout->theta.elements;
    b->theta = fl_new(p, sizeof *b->theta);
    b->grad = fl_new(p, sizeof *b->grad);
    b->exact = fl_new(p, sizeof *b->exact);
    b->x = fl_new(count * b->features, sizeof *b->x);
    b->y = fl_new(count, sizeof *b->y);
    fl_seed_from_u64(seed, &s);
    fl_layout_init_shared(b->layout, &s, b->theta);
    fl_rng_init(&r, &s, 9);
    for (size_t i = 0; i < count * b->features; i++) {
        b->x[i] = (float)fl_rng_normal(&r);
    }
    for (size_t i = 0; i < count; i++) {
        b->y[i] = (int32_t)fl_rng_below(&r, spec->classes);
    }
    for (size_t i = 0; i < p; i++) {
        b->exact[i] = (double)b->theta[i];
    }
}

static void bench_fini(struct bench *b)
{
    fl_free(b->layout);
    fl_free(b->theta);
    fl_free(b->grad);
    fl_free(b->exact);
    fl_free(b->x);
    fl_free(b->y);
}

static struct fl_model *model_of(const struct bench *b, uint32_t shard)
{
    struct fl_model *m = NULL;
    struct fl_err e = {0};

    ck_assert_msg(fl_model_new(&b->spec, shard, &m, &e) == 0, "%s", e.msg);
    fl_model_set(m, b->theta);
    return m;
}

/* Outputs, loss and some derivatives in each tensor against the naive twin. */
static void agrees(const struct fl_spec *spec, size_t count, uint32_t shard, int probes)
{
    struct bench b;
    struct fl_score score;
    struct fl_seed s;
    struct fl_rng r;

    bench_init(&b, spec, count, 5);
    struct fl_model *m = model_of(&b, shard);
    float *out = fl_new(count * spec->classes, sizeof *out);

    fl_model_forward(m, b.x, count, out);
    for (size_t n = 0; n < count; n++) {
        double *o = naive_forward(&b.spec, b.exact, b.x + n * b.features);
        for (uint32_t c = 0; c < spec->classes; c++) {
            ck_assert_double_eq_tol((double)out[n * spec->classes + c], o[c], 2e-5);
        }
        fl_free(o);
    }
    fl_model_gradient(m, b.x, b.y, count, b.grad, &score);
    double loss = naive_loss(&b.spec, b.exact, b.x, b.y, count);
    ck_assert_double_eq_tol(score.loss / (double)count, loss, 1e-5);
    fl_seed_from_u64(1, &s);
    fl_rng_init(&r, &s, 0);
    for (uint32_t t = 0; t < b.layout->theta.count; t++) {
        const struct fl_tensor *tensor = &b.layout->theta.at[t];
        for (int k = 0; k < probes; k++) {
            size_t i = tensor->offset + fl_rng_below(&r, tensor->count);
            double keep = b.exact[i], h = 1e-5;
            b.exact[i] = keep + h;
            double up = naive_loss(&b.spec, b.exact, b.x, b.y, count);
            b.exact[i] = keep - h;
            double down = naive_loss(&b.spec, b.exact, b.x, b.y, count);
            b.exact[i] = keep;
            double want = (up - down) / (2 * h);
            ck_assert_msg(fabs((double)b.grad[i] - want) < 1e-5 + 1e-3 * fabs(want),
                          "%s[%zu]: %g, numerically %g", tensor->name, i - tensor->offset,
                          (double)b.grad[i], want);
        }
    }
    fl_free(out);
    fl_model_free(m);
    bench_fini(&b);
}

START_TEST(test_fmnist_network_agrees_with_its_naive_twin)
{
    struct fl_spec spec;

    nets_fmnist(&spec);
    agrees(&spec, 5, 3, 6);
}
END_TEST

/* Every odd shape at once: channels, strides, padding on both, a ragged pool, a leaky ReLU first
 * and one before a convolution, no flatten needed before a linear layer, two of them in the head.
 */
START_TEST(test_odd_networks_agree_with_their_naive_twin)
{
    static const struct fl_layer odd[] = {
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.3f},
        {.kind = FL_LAYER_CONV2D, .out = 5, .kernel = 3, .stride = 2, .padding = 2},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.1f},
        {.kind = FL_LAYER_CONV2D, .out = 7, .kernel = 2, .stride = 1, .padding = 1},
        {.kind = FL_LAYER_MAX_POOL, .kernel = 3},
        {.kind = FL_LAYER_CONV2D, .out = 3, .kernel = 1, .stride = 1},
        {.kind = FL_LAYER_FLATTEN},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0},
        {.kind = FL_LAYER_LINEAR, .out = 9},
        {.kind = FL_LAYER_FLATTEN},
        {.kind = FL_LAYER_LINEAR, .out = 4},
    };
    static const struct fl_layer flat[] = {
        {.kind = FL_LAYER_FLATTEN},
        {.kind = FL_LAYER_LINEAR, .out = 6},
        {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.2f},
        {.kind = FL_LAYER_LINEAR, .out = 4},
    };
    struct fl_spec spec = {.input = {3, 13, 11}, .classes = 4, .head = 1, .layer_count = 11};

    memcpy(spec.layers, odd, sizeof odd);
    agrees(&spec, 7, 3, 20);
    agrees(&spec, 1, 4, 20);
    spec.layer_count = 4;
    memcpy(spec.layers, flat, sizeof flat);
    agrees(&spec, 6, 4, 30);
}
END_TEST

static void write_out(const struct fl_piece *p, uint32_t count, float *grad)
{
    for (uint32_t k = 0; k < count; k++) {
        for (size_t o = 0; o < p[k].out; o++) {
            grad[p[k].bias + o] = p[k].d[o];
            for (size_t i = 0; i < p[k].in; i++) {
                grad[p[k].weight + o * p[k].in + i] =
                    p[k].w ? p[k].w[o * p[k].in + i] : p[k].d[o] * p[k].a[i];
            }
        }
    }
}

START_TEST(test_pieces_are_the_gradient_of_one_example)
{
    struct fl_spec spec;
    struct bench b;
    const struct fl_piece *pieces;
    double loss;

    nets_fmnist(&spec);
    bench_init(&b, &spec, 4, 11);
    struct fl_model *m = model_of(&b, 4);
    size_t p = b.layout->theta.elements;
    float *sum = fl_new(p, sizeof *sum), *one = fl_new(p, sizeof *one);

    for (size_t n = 0; n < 4; n++) {
        ck_assert_uint_eq(fl_model_example(m, b.x + n * b.features, &b.y[n], &pieces, &loss), 4);
        write_out(pieces, 4, one);
        for (size_t i = 0; i < p; i++) {
            sum[i] += one[i] / 4;
        }
    }
    fl_model_gradient(m, b.x, b.y, 4, b.grad, NULL);
    for (size_t i = 0; i < p; i++) {
        ck_assert_double_eq_tol((double)sum[i], (double)b.grad[i], 2e-6);
    }
    fl_free(sum);
    fl_free(one);
    fl_model_free(m);
    bench_fini(&b);
}
END_TEST

START_TEST(test_body_and_head_are_the_whole)
{
    struct fl_spec spec, half[2];
    struct bench b;
    struct fl_model *body, *head;
    struct fl_err e = {0};
    size_t body_elements;

    nets_fmnist(&spec);
    bench_init(&b, &spec, 6, 3);
    ck_assert_int_eq(fl_spec_split(&b.spec, half, &body_elements, &e), 0);
    ck_assert_uint_eq(body_elements, 115776);
    struct fl_model *m = model_of(&b, 4);
    ck_assert_int_eq(fl_model_new(&half[0], 4, &body, &e), 0);
    ck_assert_int_eq(fl_model_new(&half[1], 4, &head, &e), 0);
    fl_model_set(body, b.theta);
    fl_model_set(head, b.theta + body_elements);
    float whole[60], parts[60], *features = fl_new(6 * 128, sizeof *features);
    fl_model_forward(m, b.x, 6, whole);
    fl_model_forward(body, b.x, 6, features);
    fl_model_forward(head, features, 6, parts);
    ck_assert_mem_eq(whole, parts, sizeof whole);
    fl_free(features);
    fl_model_free(m);
    fl_model_free(body);
    fl_model_free(head);
    bench_fini(&b);
}
END_TEST

struct twin {
    const struct bench *b;
    const float *want;
    int wrong;
};

static void *train_beside(void *arg)
{
    struct twin *t = arg;
    struct fl_model *m = NULL;
    size_t p = t->b->layout->theta.elements;
    float *grad = fl_new(p, sizeof *grad);

    if (fl_model_new(&t->b->spec, 32, &m, NULL) < 0) {
        t->wrong = -1;
    } else {
        fl_model_set(m, t->b->theta);
        for (int k = 0; k < 40; k++) {
            fl_model_gradient(m, t->b->x, t->b->y, t->b->count, grad, NULL);
            t->wrong += memcmp(grad, t->want, p * sizeof *grad) != 0;
        }
    }
    fl_model_free(m);
    fl_free(grad);
    return NULL;
}

/* Debian's serial OpenBLAS fails this without the door's lock. */
START_TEST(test_threads_beside_each_other_get_the_same_bits)
{
    struct fl_spec spec;
    struct bench b;
    struct twin twin[4];
    pthread_t thread[4];

    nets_fmnist(&spec);
    bench_init(&b, &spec, 32, 2);
    struct fl_model *m = model_of(&b, 32);
    fl_model_gradient(m, b.x, b.y, b.count, b.grad, NULL);
    for (int i = 0; i < 4; i++) {
        twin[i] = (struct twin){.b = &b, .want = b.grad};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, train_beside, &twin[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        ck_assert_int_eq(twin[i].wrong, 0);
    }
    fl_model_free(m);
    bench_fini(&b);
}
END_TEST

START_TEST(test_no_memory_is_an_error_at_every_allocation)
{
    struct fl_spec spec;
    struct fl_err e = {0};
    struct fl_model *m;
    int r = -1;

    nets_fmnist(&spec);
    ck_assert_int_eq(fl_spec_check(&spec, &e), 0);
    for (uint64_t n = 1; r < 0; n++) {
        ck_assert_uint_lt(n, 1000);
        fl_mem_fail_at(n);
        m = NULL;
        r = fl_model_new(&spec, 2, &m, &e);
        ck_assert(r == 0 || (r == -FL_R_NOMEM && fl_mem_fail_hit()));
    }
    ck_assert(!fl_mem_fail_hit());
    fl_mem_fail_at(0);
    fl_model_free(m);
}
END_TEST

/* sum over examples n and features k of (n + 1) a_k z_nk */
static float slope_of(size_t k)
{
    return (float)(k % 7) - 2.5f;
}

static void add_slopes(void *arg, size_t first, size_t count, const float *z, float *dz)
{
    size_t features = *(const size_t *)arg;

    for (size_t n = 0; n < count; n++) {
        for (size_t k = 0; k < features; k++) {
            ck_assert(isfinite(z[n * features + k]));
            dz[n * features + k] += (float)(first + n + 1) * slope_of(k);
        }
    }
}

START_TEST(test_a_tap_adds_the_gradient_of_its_own_term)
{
    enum { COUNT = 5, FEATURES = 128 };
    struct fl_spec spec, half[2];
    struct bench b;
    size_t body, features = FEATURES;
    struct fl_tap tap = {.add = add_slopes, .arg = &features};
    struct fl_err e = {0};

    nets_fmnist(&spec);
    bench_init(&b, &spec, COUNT, 3);
    ck_assert_int_eq(fl_spec_split(&b.spec, half, &body, &e), 0);
    struct fl_model *m = model_of(&b, 2); /* shards of 2, 2, 1 */
    float *plain = fl_new(b.layout->theta.elements, sizeof *plain);
    fl_model_gradient(m, b.x, b.y, COUNT, plain, NULL);
    ck_assert(fl_model_tap(m, &tap));
    fl_model_gradient(m, b.x, b.y, COUNT, b.grad, NULL);
    for (size_t i = body; i < b.layout->theta.elements; i++) {
        ck_assert(b.grad[i] == plain[i]); /* the head knows nothing of it */
    }
    for (size_t i = 0; i < body; i += 1 + body * tests_every(1, 6) / 60) {
        double term[2] = {0}, keep = b.exact[i], h = 1e-5;
        for (int side = 0; side < 2; side++) {
            b.exact[i] = side ? keep - h : keep + h;
            for (size_t n = 0; n < COUNT; n++) {
                double *z = naive_forward(&half[0], b.exact, b.x + n * b.features);
                for (size_t k = 0; k < FEATURES; k++) {
                    term[side] += (double)(n + 1) * (double)slope_of(k) * z[k];
                }
                fl_free(z);
            }
        }
        b.exact[i] = keep;
        double want = (term[0] - term[1]) / (2 * h);
        ck_assert_double_eq_tol((double)b.grad[i] - (double)plain[i], want,
                                2e-3 + 1e-3 * fabs(want));
    }
    ck_assert(fl_model_tap(m, NULL));
    fl_model_gradient(m, b.x, b.y, COUNT, b.grad, NULL);
    ck_assert_mem_eq(b.grad, plain, b.layout->theta.elements * sizeof *plain);
    fl_model_free(m);
    fl_free(plain);
    bench_fini(&b);

    nets_mlp(&spec); /* no head of its own */
    bench_init(&b, &spec, 1, 3);
    m = model_of(&b, 1);
    ck_assert(!fl_model_tap(m, &tap));
    fl_model_free(m);
    bench_fini(&b);
}
END_TEST

TESTS_MAIN("model", test_a_tap_adds_the_gradient_of_its_own_term,
           test_fmnist_network_agrees_with_its_naive_twin,
           test_odd_networks_agree_with_their_naive_twin,
           test_pieces_are_the_gradient_of_one_example, test_body_and_head_are_the_whole,
           test_threads_beside_each_other_get_the_same_bits,
           test_no_memory_is_an_error_at_every_allocation)
