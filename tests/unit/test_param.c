/*
 * Generators against their naive twin: theta straight from the definitions in doubles, gradients by
 * numerical differentiation of that, SGD as in the textbook with every gradient and momentum
 * written out.
 */
#include "common/base/mem.h"
#include "common/nn/param/param.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A small network with a generated body of 28: conv 1 -> 2 (2x2), linear 8 -> 2, and a linear head.
 */
static struct fl_layout *small_layout(const struct fl_generator_conf *g)
{
    struct fl_spec spec = {
        .input = {1, 3, 3},
        .classes = 3,
        .head = 1,
        .layer_count = 4,
        .layers = {{.kind = FL_LAYER_CONV2D, .out = 2, .kernel = 2, .stride = 1},
                   {.kind = FL_LAYER_FLATTEN},
                   {.kind = FL_LAYER_LINEAR, .out = 2},
                   {.kind = FL_LAYER_LINEAR, .out = 3}},
    };
    struct fl_layout *l = fl_new(1, sizeof *l);
    struct fl_err e = {0};

    ck_assert_msg(fl_spec_check(&spec, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_layout_init(l, &spec, FL_VISIBILITY_BODY_GENERATED, g, &e) == 0, "%s", e.msg);
    return l;
}

/* ---- theta by definition ---- */

static const double *at(const struct fl_layout *l, const double *shared, const char *prefix,
                        const char *tensor, const char *suffix)
{
    char whole[128];

    snprintf(whole, sizeof whole, "hyper.%s%s%s", prefix, tensor, suffix);
    for (uint32_t i = 0; i < l->shared.count; i++) {
        if (strcmp(l->shared.at[i].name, whole) == 0) {
            return shared + l->shared.at[i].offset;
        }
    }
    ck_abort_msg("no tensor %s", whole);
    return NULL;
}

static void units(const struct fl_layout *l, const double *shared, const double *v, const double *c,
                  double *f)
{
    size_t e = l->generator.embedding;
    const double *bias = at(l, shared, "hidden.bias", "", "");
    const double *weight = at(l, shared, "hidden.weight", "", "");
    const double *chunk = c ? at(l, shared, "hidden.chunk", "", "") : NULL;

    for (size_t h = 0; h < l->generator.hidden; h++) {
        double p = bias[h];
        for (size_t i = 0; i < e; i++) {
            p += weight[h * e + i] * v[i] + (c ? chunk[h * e + i] * c[i] : 0);
        }
        f[h] = p > 0 ? p : 0;
    }
}

static void naive_chunked(const struct fl_layout *l, const double *shared, const double *v,
                          double *theta)
{
    const struct fl_generator_conf *g = &l->generator;
    const double *w = at(l, shared, "chunk.w", "", ""), *b = at(l, shared, "chunk.b", "", "");
    double f[64];

    for (size_t i = 0; i < l->generated; i++) {
        size_t place = i % g->chunk;
        if (place == 0) {
            units(l, shared, v, at(l, shared, "chunks", "", "") + i / g->chunk * g->embedding, f);
        }
        theta[i] = b[place];
        for (size_t h = 0; h < g->hidden; h++) {
            theta[i] += w[h * g->chunk + place] * f[h];
        }
        for (uint32_t k = 0; g->scaled && k < l->theta.count; k++) {
            const struct fl_tensor *t = &l->theta.at[k];
            if (i >= t->offset && i < t->offset + t->count) {
                theta[i] /= sqrt(3.0 * t->fan_in);
            }
        }
    }
}

static void naive_affine(const struct fl_layout *l, const struct fl_tensor *t, const double *shared,
                         const double *f, double *theta)
{
    const double *w = at(l, shared, "", t->name, ".w"), *b = at(l, shared, "", t->name, ".b");

    for (size_t i = 0; i < t->count; i++) {
        theta[i] = b[i];
        for (size_t h = 0; h < l->generator.hidden; h++) {
            theta[i] += w[h * t->count + i] * f[h];
        }
    }
}

static void naive_kronecker(const struct fl_layout *l, const struct fl_tensor *t,
                            const double *shared, const double *f, double *theta)
{
    const double *w1 = at(l, shared, "", t->name, ".w1"), *w2 = at(l, shared, "", t->name, ".w2");
    const double *b1 = at(l, shared, "", t->name, ".b1"), *b2 = at(l, shared, "", t->name, ".b2");
    size_t d1 = 1, d2;

    for (size_t d = 1; d * d <= t->count; d++) {
        d1 = t->count % d == 0 ? d : d1;
    }
    d2 = t->count / d1;
    for (size_t i = 0; i < t->count; i++) {
        theta[i] = b1[i / d2] * b2[i % d2];
        for (size_t h = 0; h < l->generator.hidden; h++) {
            theta[i] += f[h] * w1[h * d1 + i / d2] * w2[h * d2 + i % d2];
        }
    }
}

static void naive_make(const struct fl_layout *l, const double *shared, const double *v,
                       double *theta)
{
    double f[64];

    if (l->generator.kind == FL_GENERATOR_CHUNKED) {
        naive_chunked(l, shared, v, theta);
        return;
    }
    units(l, shared, v, NULL, f);
    for (uint32_t k = 0; k < l->theta.count; k++) {
        const struct fl_tensor *t = &l->theta.at[k];
        if (t->group == FL_GROUP_GENERATED && l->generator.kind == FL_GENERATOR_AFFINE) {
            naive_affine(l, t, shared, f, theta + t->offset);
        } else if (t->group == FL_GROUP_GENERATED) {
            naive_kronecker(l, t, shared, f, theta + t->offset);
        }
    }
}

/* ---- training by the textbook ---- */

struct twin {
    const struct fl_layout *l;
    size_t n, e;          /* shared elements, embedding */
    double *p, *m, *grad; /* shared then v */
    double *up, *down;
};

/* Gradient of sum(g theta) to every parameter. */
static void naive_pull(struct twin *t, const float *g)
{
    for (size_t j = 0; j < t->n + t->e; j++) {
        double keep = t->p[j], h = 1e-6, sum = 0;
        t->p[j] = keep + h;
        naive_make(t->l, t->p, t->p + t->n, t->up);
        t->p[j] = keep - h;
        naive_make(t->l, t->p, t->p + t->n, t->down);
        t->p[j] = keep;
        for (size_t i = 0; i < t->l->generated; i++) {
            sum += (double)g[i] * (t->up[i] - t->down[i]);
        }
        t->grad[j] = sum / (2 * h);
    }
}

static void naive_sgd(struct twin *t, const struct fl_generator_conf_train *conf, size_t from,
                      size_t to)
{
    double norm = 0, factor = 1;

    for (size_t j = from; j < to; j++) {
        norm += t->grad[j] * t->grad[j];
    }
    if (conf->clip != 0) {
        factor = fmin(1, (double)conf->clip / (sqrt(norm) + 1e-6));
    }
    for (size_t j = from; j < to; j++) {
        t->m[j] = (double)conf->optim.momentum * t->m[j] + factor * t->grad[j] +
                  (double)conf->optim.weight_decay * t->p[j];
        t->p[j] -= (double)conf->optim.lr * t->m[j];
    }
}

/* Trains both for some steps on a gradient that depends on theta, so that errors would grow. */
static void agrees(const struct fl_generator_conf *gc, struct fl_generator_conf_train conf,
                   int steps)
{
    struct fl_layout *l = small_layout(gc);
    size_t n = l->shared.elements, e = gc->embedding, P = l->generated;
    float *shared = fl_new(n, sizeof *shared), *priv = fl_new(l->private_.elements, sizeof *priv);
    float *theta = fl_new(l->theta.elements, sizeof *theta), *g = fl_new(P, sizeof *g);
    struct twin t = {.l = l, .n = n, .e = e};
    struct fl_generator *session = NULL;
    struct fl_seed s;
    struct fl_rng r;
    struct fl_err err = {0};

    t.p = fl_new(n + e, sizeof *t.p);
    t.m = fl_new(n + e, sizeof *t.m);
    t.grad = fl_new(n + e, sizeof *t.grad);
    t.up = fl_new(P, sizeof *t.up);
    t.down = fl_new(P, sizeof *t.down);
    fl_seed_from_u64(4, &s);
    fl_layout_init_shared(l, &s, shared);
    fl_layout_init_private(l, &s, &s, priv);
    float *v = priv + l->private_.elements - e;
    for (size_t i = 0; i < n + e; i++) {
        t.p[i] = (double)(i < n ? shared[i] : v[i - n]);
    }
    fl_rng_init(&r, &s, 77);
    ck_assert_int_eq(fl_param_make(l, shared, priv, theta, &err), 0);
    ck_assert_int_eq(fl_generator_new(l, &conf, shared, priv, &session, &err), 0);
    for (int k = 0; k <= steps; k++) {
        naive_make(l, t.p, t.p + n, t.up);
        for (size_t i = 0; i < P; i++) {
            ck_assert_double_eq_tol((double)theta[i], t.up[i], 2e-5 * (1 + fabs(t.up[i])));
            g[i] = 0.3f * theta[i] + (float)fl_rng_normal(&r) * 0.1f;
        }
        naive_pull(&t, g);
        naive_sgd(&t, &conf, 0, n);
        naive_sgd(&t, &conf, n, n + e);
        fl_generator_step(session, g, theta);
    }
    fl_generator_end(session);
    for (size_t i = 0; i < n + e; i++) {
        ck_assert_double_eq_tol((double)(i < n ? shared[i] : v[i - n]), t.p[i], 3e-5);
    }
    /* What is stored makes the very theta that training ended with, up to rounding. */
    float *again = fl_new(l->theta.elements, sizeof *again);
    ck_assert_int_eq(fl_param_make(l, shared, priv, again, &err), 0);
    for (size_t i = 0; i < P; i++) {
        ck_assert_double_eq_tol((double)again[i], (double)theta[i], 1e-5);
    }
    fl_free(again);
    fl_generator_free(session);
    fl_free(t.p);
    fl_free(t.m);
    fl_free(t.grad);
    fl_free(t.up);
    fl_free(t.down);
    fl_free(shared);
    fl_free(priv);
    fl_free(theta);
    fl_free(g);
    fl_free(l);
}

static const struct fl_generator_conf_train plain = {.optim = {.lr = 0.02f}, .steps = 10};
static const struct fl_generator_conf_train full = {
    .optim = {.lr = 0.02f, .momentum = 0.5f, .weight_decay = 0.05f}, .clip = 1.5f, .steps = 30};

START_TEST(test_affine_with_few_units)
{
    struct fl_generator_conf g = {.kind = FL_GENERATOR_AFFINE, .embedding = 5, .hidden = 3};

    agrees(&g, plain, 10);
    g.scaled = true;
    agrees(&g, full, 30);
}
END_TEST

/* 40 units and 12 steps: factors, no fold. 64 units and 100 steps: several folds. */
START_TEST(test_affine_with_many_units)
{
    struct fl_generator_conf g = {.kind = FL_GENERATOR_AFFINE, .embedding = 5, .hidden = 40};
    struct fl_generator_conf_train conf = full;

    agrees(&g, plain, 10);
    conf.steps = 12;
    agrees(&g, conf, 12);
    g.hidden = 64;
    g.scaled = true;
    conf.steps = 100;
    agrees(&g, conf, 100);
    if (tests_every(1, 2) == 1) {
        conf.optim.momentum = 0;
        agrees(&g, conf, 70);
    }
}
END_TEST

START_TEST(test_kronecker)
{
    struct fl_generator_conf g = {.kind = FL_GENERATOR_KRONECKER, .embedding = 6, .hidden = 8};

    agrees(&g, plain, 10);
    g.scaled = true;
    agrees(&g, full, 25);
}
END_TEST

START_TEST(test_chunked)
{
    struct fl_generator_conf g = {
        .kind = FL_GENERATOR_CHUNKED, .embedding = 4, .hidden = 6, .chunk = 20};

    agrees(&g, plain, 10);
    g.scaled = true;
    g.chunk = 31;
    agrees(&g, full, 25);
    g.chunk = 1000; /* one chunk, longer than theta */
    agrees(&g, full, 5);
}
END_TEST

START_TEST(test_stored_tensors_come_and_go)
{
    static const enum fl_visibility all[] = {FL_VISIBILITY_ALL_SHARED, FL_VISIBILITY_HEAD_PRIVATE,
                                             FL_VISIBILITY_ALL_PRIVATE};
    struct fl_generator_conf g = {.kind = FL_GENERATOR_AFFINE, .embedding = 2, .hidden = 2};
    struct fl_layout *small = small_layout(&g), *l = fl_new(1, sizeof *l);
    struct fl_err e = {0};

    for (size_t k = 0; k < FL_COUNT(all); k++) {
        ck_assert_int_eq(fl_layout_init(l, &small->spec, all[k], NULL, &e), 0);
        size_t n = l->theta.elements, ns = l->shared.elements, np = l->private_.elements;
        ck_assert_uint_eq(n, ns + np);
        float *shared = fl_new(ns, sizeof *shared), *priv = fl_new(np, sizeof *priv);
        float *theta = fl_new(n, sizeof *theta), *back = fl_new(n, sizeof *back);
        for (size_t i = 0; i < n; i++) {
            theta[i] = (float)i;
        }
        fl_param_store(l, theta, shared, priv);
        for (size_t i = 0; i < n; i++) { /* shared tensors are the first ones here */
            ck_assert((i < ns ? shared[i] : priv[i - ns]) == (float)i);
        }
        ck_assert_int_eq(fl_param_make(l, shared, priv, back, &e), 0);
        ck_assert_mem_eq(theta, back, n * sizeof *theta);
        fl_free(shared);
        fl_free(priv);
        fl_free(theta);
        fl_free(back);
    }
    fl_free(l);
    fl_free(small);
}
END_TEST

START_TEST(test_no_memory_is_an_error_at_every_allocation)
{
    static const struct fl_generator_conf all[] = {
        {.kind = FL_GENERATOR_AFFINE, .embedding = 5, .hidden = 3},
        {.kind = FL_GENERATOR_AFFINE, .embedding = 5, .hidden = 40},
        {.kind = FL_GENERATOR_KRONECKER, .embedding = 5, .hidden = 3},
        {.kind = FL_GENERATOR_CHUNKED, .embedding = 5, .hidden = 3, .chunk = 10},
    };

    for (size_t k = 0; k < FL_COUNT(all); k++) {
        struct fl_layout *l = small_layout(&all[k]);
        float *shared = fl_new(l->shared.elements, sizeof *shared);
        float *priv = fl_new(l->private_.elements, sizeof *priv);
        float *theta = fl_new(l->theta.elements, sizeof *theta);
        struct fl_err e = {0};
        int r = -1;

        for (uint64_t n = 1; r < 0; n++) {
            struct fl_generator *g = NULL;
            ck_assert_uint_lt(n, 100);
            fl_mem_fail_at(n);
            r = fl_param_make(l, shared, priv, theta, &e);
            if (r == 0) {
                r = fl_generator_new(l, &full, shared, priv, &g, &e);
            }
            ck_assert(r == 0 || (r == -FL_R_NOMEM && fl_mem_fail_hit()));
            fl_generator_free(g);
        }
        fl_mem_fail_at(0);
        fl_free(shared);
        fl_free(priv);
        fl_free(theta);
        fl_free(l);
    }
}
END_TEST

TESTS_MAIN("param", test_affine_with_few_units, test_affine_with_many_units, test_kronecker,
           test_chunked, test_stored_tensors_come_and_go,
           test_no_memory_is_an_error_at_every_allocation)
