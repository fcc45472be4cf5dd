/* Clipped sums over layers of tokens: factors whose product is never written, and products that
 * are; each against gradients taken one by one. */
#include "client/trainer/clipsum.h"
#include "common/base/mem.h"
#include "common/math/tile.h"
#include "tests/lib/clip_sums.h"

#include <math.h>
#include <string.h>

enum { EXAMPLES = 9, FEATURES_MAX = 320 };

struct world {
    struct fl_layout *layout;
    struct fl_model *m;
    size_t elements, features;
    float *theta, x[EXAMPLES * FEATURES_MAX];
    int32_t y[EXAMPLES];
};

static void world_init(struct world *w, struct fl_spec *spec)
{
    struct fl_seed seed;
    struct fl_rng r;
    struct fl_err e = {0};

    memset(w, 0, sizeof *w);
    w->layout = fl_new(1, sizeof *w->layout);
    ck_assert_msg(fl_spec_check(spec, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_layout_init(w->layout, spec, FL_VISIBILITY_ALL_SHARED, NULL, &e) == 0, "%s",
                  e.msg);
    w->elements = w->layout->theta.elements;
    w->features = (size_t)spec->input[0] * spec->input[1] * spec->input[2];
    ck_assert_uint_le(w->features, FEATURES_MAX);
    w->theta = fl_new(w->elements, sizeof *w->theta);
    fl_seed_from_u64(21, &seed);
    fl_layout_init_shared(w->layout, &seed, w->theta);
    fl_rng_init(&r, &seed, 0);
    for (size_t i = 0; i < EXAMPLES * w->features; i++) {
        w->x[i] = (float)fl_rng_unit(&r) * 2 - 1;
    }
    if (spec->layers[0].kind == FL_LAYER_EMBEDDING) {
        for (size_t n = 0; n < EXAMPLES; n++) {
            w->x[(n + 1) * w->features - 1] = (float)fl_rng_below(&r, 3);
            w->x[(n + 1) * w->features - 2] = (float)fl_rng_below(&r, 5);
        }
    }
    for (size_t n = 0; n < EXAMPLES; n++) {
        w->y[n] = (int32_t)fl_rng_below(&r, spec->classes);
    }
    ck_assert_int_eq(fl_model_new(spec, EXAMPLES, &w->m, &e), 0);
    fl_model_set(w->m, w->theta);
}

static void world_fini(struct world *w)
{
    fl_model_free(w->m);
    fl_free(w->theta);
    fl_free(w->layout);
}

/* An encoder; `pre`: its norms come before. */
static uint32_t put_encoder(struct fl_layer *l, bool pre, uint32_t width, uint32_t wide)
{
    const struct fl_layer norm = {.kind = FL_LAYER_LAYER_NORM};
    uint32_t n = 0;

    for (int k = 0; k < 2; k++) {
        l[n++] = (struct fl_layer){.kind = FL_LAYER_FORK};
        if (pre) {
            l[n++] = norm;
        }
        if (k == 0) {
            l[n++] = (struct fl_layer){.kind = FL_LAYER_ATTENTION, .heads = 2, .causal = pre};
        } else {
            l[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = wide};
            l[n++] = (struct fl_layer){.kind = pre ? FL_LAYER_GELU : FL_LAYER_LEAKY_RELU};
            l[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = width};
        }
        l[n++] = (struct fl_layer){.kind = FL_LAYER_JOIN};
        if (!pre) {
            l[n++] = norm;
        }
    }
    return n;
}

static void sequence_net(struct fl_spec *spec, uint32_t length, bool pre, uint32_t width,
                         uint32_t wide)
{
    uint32_t n = 0;

    *spec = (struct fl_spec){.input = {1, length, 7}, .classes = 3};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_SEQUENCE};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = width};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_POSITIONS, .sinusoidal = pre};
    n += put_encoder(spec->layers + n, pre, width, wide);
    spec->layers[n++] =
        (struct fl_layer){.kind = pre ? FL_LAYER_GLOBAL_POOL : FL_LAYER_FIRST_TOKEN};
    spec->layers[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = 3};
    spec->layer_count = n;
}

static void table_net(struct fl_spec *spec)
{
    static const struct fl_layer layers[] = {
        {.kind = FL_LAYER_EMBEDDING, .out = 4, .category_count = 2, .categories = {5, 3}},
        {.kind = FL_LAYER_LINEAR, .out = 12},
        {.kind = FL_LAYER_LAYER_NORM},
        {.kind = FL_LAYER_TANH},
        {.kind = FL_LAYER_LINEAR, .out = 3},
    };

    *spec = (struct fl_spec){.input = {6, 1, 1}, .classes = 3, .layer_count = FL_COUNT(layers)};
    memcpy(spec->layers, layers, sizeof layers);
}

enum { NETS = 5 };
static void net(struct fl_spec *spec, int which)
{
    switch (which) {
    case 0:
        sequence_net(spec, 6, true, 24, 48);
        break;
    case 1:
        sequence_net(spec, 6, false, 32, 70);
        break;
    case 2:
        sequence_net(spec, 40, true, 8, 20);
        break;
    case 3:
        sequence_net(spec, 1, false, 16, 16);
        break;
    default:
        table_net(spec);
    }
}

static void gradient_of(struct world *w, size_t n, float *grad)
{
    fl_model_gradient(w->m, w->x + n * w->features, &w->y[n], 1, grad, NULL);
}

/* The whole gradient of one example's pieces; returns how many of them are factors of tokens. */
static uint32_t write_out(const struct fl_piece *p, uint32_t count, float *grad)
{
    uint32_t products = 0;

    for (uint32_t k = 0; k < count; k++, p++) {
        const float *g = p->g ? p->g : p->d;
        size_t rows = p->g ? p->rows : 1;
        products += p->g != NULL && rows > 1;
        for (size_t o = 0; o < p->out; o++) {
            grad[p->bias + o] = p->d[o];
            for (size_t i = 0; i < p->in; i++) {
                double sum = 0;
                for (size_t t = 0; p->a && t < rows; t++) {
                    sum += (double)g[t * p->out + o] * (double)p->a[t * p->in + i];
                }
                grad[p->weight + o * p->in + i] = p->a ? (float)sum : p->w[o * p->in + i];
            }
        }
    }
    return products;
}

static double norm_of(const float *x, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sqrt(sum);
}

START_TEST(test_pieces_of_examples_together_are_their_gradients)
{
    static const uint32_t products[NETS] = {5, 5, 0, 0, 0}; /* of tokens, never written out */
    for (int which = 0; which < NETS; which++) {
        struct fl_spec spec;
        struct world w;
        net(&spec, which);
        world_init(&w, &spec);
        float *got = fl_new(w.elements, sizeof *got), *want = fl_new(w.elements, sizeof *want);
        const struct fl_piece *p;
        for (size_t n = 0; n < EXAMPLES; n++) {
            /* together afresh, as asking for a gradient alone has overwritten the values */
            (void)fl_model_examples(w.m, w.x, w.y, EXAMPLES);
            uint32_t count = fl_model_pieces(w.m, n, &p), some = write_out(p, count, got);
            ck_assert_uint_eq(some, fl_tile_fast() ? products[which] : 0);
            gradient_of(&w, n, want);
            for (size_t i = 0; i < w.elements; i++) {
                got[i] -= want[i];
            }
            ck_assert_msg(norm_of(got, w.elements) < 2e-6 * norm_of(want, w.elements),
                          "net %d, example %zu: off by %g of %g", which, n,
                          norm_of(got, w.elements), norm_of(want, w.elements));
        }
        fl_free(got);
        fl_free(want);
        world_fini(&w);
    }
}
END_TEST

static void add_all(struct world *w, struct fl_clipsum *c, size_t first, size_t count)
{
    const struct fl_piece *p;
    struct fl_err e = {0};

    (void)fl_model_examples(w->m, w->x + first * w->features, w->y + first, count);
    for (size_t n = 0; n < count; n++) {
        uint32_t parts = fl_model_pieces(w->m, n, &p);
        ck_assert_int_eq(fl_clipsum_add(c, p, parts, &e), 0);
    }
}

/* Near the clipped gradient, within the bound exactly, and the same in any company. */
START_TEST(test_each_contribution_is_its_clipped_gradient)
{
    static const double clips[] = {1e-3, 0.2, 30};

    for (int which = 0; which < NETS * 3; which++) {
        struct fl_spec spec;
        struct world w;
        struct fl_clipsum *c = NULL;
        struct fl_err e = {0};
        double clip = clips[which / NETS];
        net(&spec, which % NETS);
        world_init(&w, &spec);
        ck_assert_int_eq(fl_clipsum_new(w.elements, clip, 1e9, false, &c, &e), 0);
        float *grad = fl_new(w.elements, sizeof *grad);
        int64_t *sum = fl_new(w.elements, sizeof *sum);
        double step = fl_clipsum_step(c), bound = clip / step;
        for (size_t n = 0; n < EXAMPLES; n++) {
            double squares = 0, off = 0;
            gradient_of(&w, n, grad);
            double norm = norm_of(grad, w.elements), kept = fmin(norm, clip);
            add_all(&w, c, n, 1);
            const int64_t *q = take_all(c);
            for (size_t i = 0; i < w.elements; i++) {
                double want = (double)grad[i] * fmin(1, clip / norm);
                squares += (double)(q[i] * q[i]);
                off += ((double)q[i] * step - want) * ((double)q[i] * step - want);
                sum[i] += q[i];
            }
            ck_assert(squares <= bound * bound);
            ck_assert(norm <= clip || squares >= bound * bound * 0.99);
            ck_assert_msg(sqrt(off) <= 0.01 * sqrt(kept * clip) + 0.001 * kept,
                          "net %d, clip %g, example %zu: off by %g of %g", which % NETS, clip, n,
                          sqrt(off), kept);
        }
        add_all(&w, c, 0, EXAMPLES);
        ck_assert_mem_eq(take_all(c), sum, w.elements * sizeof *sum);
        fl_free(grad);
        fl_free(sum);
        fl_clipsum_free(c);
        world_fini(&w);
    }
}
END_TEST

/* Factors drawn to be hard: few values, halves, tokens that cancel each other, one loud token. */
static float hard(struct fl_rng *r, uint32_t kind, size_t t, size_t i)
{
    float u = (float)fl_rng_unit(r) - 0.5f;

    switch (kind) {
    case 0:
        return u;
    case 1:
        return t == 2 ? 3000 * u : 0.001f * u;
    case 2:
        return t % 2 ? -0.5f : 0.5f;
    case 3:
        return (t % 2 ? -1.0f : 1.0f) * (1 + (float)(i % 7)) + 1e-4f * u;
    case 4:
        return (float)ldexp((double)u, (int)fl_rng_below(r, 60) - 30);
    default:
        return i == 1 ? 1e6f : 0;
    }
}

START_TEST(test_no_example_of_tokens_is_beyond_the_bound)
{
    enum { IN = 40, OUT = 110, TOKENS = 7, ELEMENTS = IN * OUT + OUT, LAST = 9 };
    static float d[OUT], a[TOKENS * IN], g[TOKENS * OUT];
    static int64_t alone[ELEMENTS], rest[ELEMENTS];
    const struct fl_piece p = {
        .bias = IN * OUT, .out = OUT, .in = IN, .rows = TOKENS, .d = d, .a = a, .g = g};
    struct fl_rng r, again;
    struct fl_seed seed;
    struct fl_err e = {0};

    fl_seed_from_u64(31, &seed);
    fl_rng_init(&again, &seed, 0);
    for (uint32_t n = 0; n < 108; n++) {
        struct fl_clipsum *c = NULL;
        double clip = ldexp(0.5 + fl_rng_unit(&again), (int)fl_rng_below(&again, 20) - 10);
        ck_assert_int_eq(fl_clipsum_new(ELEMENTS, clip, n % 3 ? 1e9 : 300, n % 2, &c, &e), 0);
        double bound = clip / fl_clipsum_step(c);
        for (int way = 0; way < 3; way++) { /* alone, the others, everyone */
            fl_rng_init(&r, &seed, n + 1);
            for (uint32_t k = 0; k <= LAST; k++) {
                for (size_t i = 0; i < TOKENS * OUT; i++) {
                    g[i] = hard(&r, n % 6, i / OUT, i % OUT);
                }
                for (size_t i = 0; i < TOKENS * IN; i++) {
                    a[i] = hard(&r, n / 6 % 6, i / IN, i % IN);
                }
                for (size_t i = 0; i < OUT; i++) {
                    d[i] = 0;
                    for (size_t t = 0; t < TOKENS; t++) {
                        d[i] += g[t * OUT + i];
                    }
                }
                if (k == 4 ? way == 1 : way == 0) {
                    continue;
                }
                ck_assert_int_eq(fl_clipsum_add(c, &p, 1, &e), 0);
            }
            const int64_t *q = take_all(c);
            double squares = 0;
            for (size_t i = 0; i < ELEMENTS; i++) {
                squares += (double)q[i] * (double)q[i];
                ck_assert(way < 2 || q[i] - rest[i] == alone[i]);
            }
            ck_assert(way > 0 || squares <= bound * bound);
            if (way < 2) {
                memcpy(way ? rest : alone, q, sizeof alone);
            }
        }
        fl_clipsum_free(c);
    }
}
END_TEST

TESTS_MAIN("clip_tokens", test_pieces_of_examples_together_are_their_gradients,
           test_each_contribution_is_its_clipped_gradient,
           test_no_example_of_tokens_is_beyond_the_bound)
