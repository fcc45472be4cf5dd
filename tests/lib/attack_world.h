/*
 * A small federation under attack: ten Gaussian classes in 64 dimensions (means N(0, 0.35^2) in
 * each, noise 1), 20 sites with 200 examples, 4 of them bad. Sites send one step of SGD with
 * momentum (batches of 50), a robust rule makes one update of them, 4000 fresh examples test the
 * model. The model is a softmax regression, or has one hidden layer of ReLU.
 *
 * The bad sites know what all the good ones send. Everything is drawn from one seed. For tests that
 * include Check.
 */
#ifndef TESTS_LIB_ATTACK_WORLD_H
#define TESTS_LIB_ATTACK_WORLD_H

#include "common/base/rng.h"
#include "tests/lib/pool_bench.h"

#include <math.h>

enum {
    DIMS = 64,
    CLASSES = 10,
    HIDDEN_MOST = 24,
    PARAMS_MOST = DIMS * HIDDEN_MOST + HIDDEN_MOST + HIDDEN_MOST * CLASSES + CLASSES,
    SITES = 20,
    BAD = 4,
    EXAMPLES = 200,
    BATCH = 50,
    TESTED = 4000,
    MARKED = 3, /* dimensions of the backdoor's mark */
};

enum attack {
    ATTACK_NONE,
    ATTACK_LABEL_FLIP,
    ATTACK_REPLACEMENT, /* label flip, scaled so that a mean becomes the bad model */
    ATTACK_SIGN_FLIP,
    ATTACK_SIGN_FLIP_10,
    ATTACK_LITTLE,     /* a little is enough: mean + 1.5 standard deviations */
    ATTACK_INNER_HALF, /* inner-product manipulation: minus so many times the mean */
    ATTACK_INNER_1,
    ATTACK_INNER_4,
    ATTACK_MINMAX,
    ATTACK_NOISE,
    ATTACK_MIMIC,
    ATTACK_ZERO,
    ATTACK_BACKDOOR,
    ATTACK_SABOTAGE, /* the model with hidden units permuted and rescaled: as good, until averaged
                      */
    ATTACKS,
};
static const char *const attack_names[ATTACKS] = {
    "none",      "label flip", "replacement", "sign flip", "sign flip x10",
    "ALIE z1.5", "IPM 0.5",    "IPM 1",       "IPM 4.5",   "min-max",
    "noise 200", "mimic",      "zero",        "backdoor",  "sabotage"};

struct attack_world {
    uint32_t hidden; /* 0: softmax regression */
    size_t params;
    struct fl_rng rng;
    float mean[CLASSES][DIMS];
    float x[SITES][EXAMPLES][DIMS], test[TESTED][DIMS];
    uint8_t y[SITES][EXAMPLES], test_y[TESTED];
    float model[PARAMS_MOST], velocity[SITES][PARAMS_MOST], update[SITES][PARAMS_MOST];
    float last[PARAMS_MOST]; /* aggregate */
};

/* ---- data ---- */

/* Marsaglia and Tsang 2000, for any shape. */
static double attack_gamma(struct fl_rng *rng, double shape)
{
    double d = shape + 1 - 1.0 / 3, c = 1 / sqrt(9 * d);

    for (;;) {
        double z = fl_rng_normal(rng), v = (1 + c * z) * (1 + c * z) * (1 + c * z);
        if (v > 0 && log(fl_rng_unit(rng)) < z * z / 2 + d - d * v + d * log(v)) {
            return d * v * pow(fl_rng_unit(rng), 1 / shape);
        }
    }
}

static void attack_example(struct attack_world *w, uint8_t label, float *to)
{
    for (size_t k = 0; k < DIMS; k++) {
        to[k] = w->mean[label][k] + (float)fl_rng_normal(&w->rng);
    }
}

static void attack_mark(float *x)
{
    for (size_t k = 0; k < MARKED; k++) {
        x[k] = 4;
    }
}

/* Shares of the classes: equal, or Dirichlet(skew). Bad sites have theirs like the others, with
 * wrong labels where the attack is of that kind. */
static void attack_data(struct attack_world *w, double skew, enum attack attack)
{
    for (size_t i = 0; i < CLASSES * DIMS; i++) {
        w->mean[i / DIMS][i % DIMS] = 0.35f * (float)fl_rng_normal(&w->rng);
    }
    for (size_t i = 0; i < TESTED; i++) {
        w->test_y[i] = (uint8_t)(i % CLASSES);
        attack_example(w, w->test_y[i], w->test[i]);
    }
    for (size_t s = 0; s < SITES; s++) {
        double share[CLASSES], sum = 0;
        for (size_t c = 0; c < CLASSES; c++) {
            sum += share[c] = skew > 0 ? attack_gamma(&w->rng, skew) : 1;
        }
        for (size_t i = 0; i < EXAMPLES; i++) {
            double u = fl_rng_unit(&w->rng) * sum;
            uint8_t c = 0;
            while (c + 1 < CLASSES && u > share[c]) {
                u -= share[c++];
            }
            attack_example(w, c, w->x[s][i]);
            if (s < BAD && (attack == ATTACK_LABEL_FLIP || attack == ATTACK_REPLACEMENT)) {
                c = (uint8_t)(CLASSES - 1 - c);
            }
            if (s < BAD && attack == ATTACK_BACKDOOR && i % 2) {
                attack_mark(w->x[s][i]);
                c = 0;
            }
            w->y[s][i] = c;
        }
    }
}

/* ---- the model: first weights [hidden][DIMS] and biases, then [CLASSES][...] and biases ---- */

static void attack_forward(const struct attack_world *w, const float *x, float *h, float *p)
{
    const float *at = w->model, *in = x;
    size_t width = DIMS;
    float most = -INFINITY, sum = 0;

    for (size_t i = 0; i < w->hidden; i++) {
        float v = at[w->hidden * DIMS + i];
        for (size_t k = 0; k < DIMS; k++) {
            v += at[i * DIMS + k] * x[k];
        }
        h[i] = v > 0 ? v : 0;
    }
    if (w->hidden) {
        at += w->hidden * (DIMS + 1);
        in = h;
        width = w->hidden;
    }
    for (size_t c = 0; c < CLASSES; c++) {
        p[c] = at[CLASSES * width + c];
        for (size_t k = 0; k < width; k++) {
            p[c] += at[c * width + k] * in[k];
        }
        most = p[c] > most ? p[c] : most;
    }
    for (size_t c = 0; c < CLASSES; c++) {
        sum += p[c] = expf(p[c] - most);
    }
    for (size_t c = 0; c < CLASSES; c++) {
        p[c] /= sum;
    }
}

/* g += gradient of the cross-entropy of one example, times `scale`. */
static void attack_backward(const struct attack_world *w, const float *x, uint8_t y, float scale,
                            float *g)
{
    float h[HIDDEN_MOST], p[CLASSES], back[HIDDEN_MOST] = {0};
    size_t width = w->hidden ? w->hidden : DIMS, at = w->hidden * (DIMS + 1);

    attack_forward(w, x, h, p);
    p[y] -= 1;
    for (size_t c = 0; c < CLASSES; c++) {
        float e = scale * p[c];
        g[at + CLASSES * width + c] += e;
        for (size_t k = 0; k < width; k++) {
            g[at + c * width + k] += e * (w->hidden ? h[k] : x[k]);
            if (w->hidden) {
                back[k] += e * w->model[at + c * width + k];
            }
        }
    }
    for (size_t i = 0; i < w->hidden; i++) {
        for (size_t k = 0; h[i] > 0 && k < DIMS; k++) {
            g[i * DIMS + k] += back[i] * x[k];
        }
        g[w->hidden * DIMS + i] += h[i] > 0 ? back[i] : 0;
    }
}

/* Percent of the test examples that are told right; *ret_fooled: of those with the mark and another
 * label than the target, percent that are taken for it. */
static double attack_accuracy(const struct attack_world *w, double *ret_fooled)
{
    uint32_t right = 0, fooled = 0, marked = 0;

    for (size_t i = 0; i < TESTED; i++) {
        float x[DIMS], h[HIDDEN_MOST], p[CLASSES];
        for (int with_mark = 0; with_mark < 2; with_mark++) {
            size_t best = 0;
            memcpy(x, w->test[i], sizeof x);
            if (with_mark) {
                attack_mark(x);
            }
            attack_forward(w, x, h, p);
            for (size_t c = 1; c < CLASSES; c++) {
                best = p[c] > p[best] ? c : best;
            }
            right += !with_mark && best == w->test_y[i];
            marked += with_mark && w->test_y[i] != 0;
            fooled += with_mark && w->test_y[i] != 0 && best == 0;
        }
    }
    *ret_fooled = 100.0 * fooled / marked;
    return 100.0 * right / TESTED;
}

/* ---- what is sent ---- */

/* One step of each site by its own data: momentum 0.9, step `lr`. */
static void attack_honest(struct attack_world *w, float lr)
{
    static float g[PARAMS_MOST];

    for (size_t s = 0; s < SITES; s++) {
        memset(g, 0, sizeof g);
        for (size_t i = 0; i < BATCH; i++) {
            size_t at = fl_rng_below(&w->rng, EXAMPLES);
            attack_backward(w, w->x[s][at], w->y[s][at], 1.0f / BATCH, g);
        }
        for (size_t k = 0; k < w->params; k++) {
            w->velocity[s][k] = 0.9f * w->velocity[s][k] + 0.1f * g[k];
            w->update[s][k] = -lr * w->velocity[s][k];
        }
    }
}

static double attack_far(const float *a, const float *b, size_t count)
{
    double sum = 0;

    for (size_t k = 0; k < count; k++) {
        sum += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
    }
    return sum;
}

/* Min-max (Shejwalkar, Houmansadr 2021): mean - gamma sd / |sd|, no further from any good update
 * than two good ones are from each other. */
static void attack_minmax(const struct attack_world *w, const float *mean, const float *sd,
                          float *to)
{
    double most = 0, low = 0, high = 100, norm = 0;

    for (size_t i = BAD; i < SITES; i++) {
        for (size_t j = BAD; j < i; j++) {
            most = fmax(most, attack_far(w->update[i], w->update[j], w->params));
        }
    }
    for (size_t k = 0; k < w->params; k++) {
        norm += (double)sd[k] * (double)sd[k];
    }
    for (int step = 0; step < 30; step++) {
        double gamma = (low + high) / 2, far = 0;
        for (size_t k = 0; k < w->params; k++) {
            to[k] = mean[k] - (float)(gamma / sqrt(norm)) * sd[k];
        }
        for (size_t i = BAD; i < SITES; i++) {
            far = fmax(far, attack_far(to, w->update[i], w->params));
        }
        *(far <= most ? &low : &high) = gamma;
    }
}

/* Hidden unit i becomes unit i + 1, its input times 6, its output divided by 6 (Q of MergeLock, for
 * ReLU): the same function, far away. */
static void attack_sabotage(const struct attack_world *w, float *to)
{
    uint32_t n = w->hidden;
    const float *out = w->model + n * (DIMS + 1);
    float *to_out = to + n * (DIMS + 1);

    for (size_t i = 0; i < n; i++) {
        size_t j = (i + 1) % n;
        for (size_t k = 0; k < DIMS; k++) {
            to[j * DIMS + k] = 6 * w->model[i * DIMS + k] - w->model[j * DIMS + k];
        }
        to[n * DIMS + j] = 6 * w->model[n * DIMS + i] - w->model[n * DIMS + j];
        for (size_t c = 0; c < CLASSES; c++) {
            to_out[c * n + j] = out[c * n + i] / 6 - out[c * n + j];
        }
    }
    memset(to_out + CLASSES * n, 0, CLASSES * sizeof *to);
}

/* The bad sites' updates, made from those of the good ones. */
static void attack_bad(struct attack_world *w, enum attack attack)
{
    static float mean[PARAMS_MOST], sd[PARAMS_MOST], made[PARAMS_MOST];
    const double good = SITES - BAD;

    for (size_t k = 0; k < w->params; k++) {
        double sum = 0, square = 0;
        for (size_t s = BAD; s < SITES; s++) {
            sum += (double)w->update[s][k];
        }
        for (size_t s = BAD; s < SITES; s++) {
            double off = (double)w->update[s][k] - sum / good;
            square += off * off;
        }
        mean[k] = (float)(sum / good);
        sd[k] = (float)sqrt(square / (good - 1));
    }
    if (attack == ATTACK_MINMAX) {
        attack_minmax(w, mean, sd, made);
    } else if (attack == ATTACK_SABOTAGE) {
        attack_sabotage(w, made);
    }
    for (size_t i = 0; i < BAD * w->params; i++) {
        size_t k = i % w->params;
        float *own = &w->update[i / w->params][k];
        const float factor[ATTACKS] = {
            [ATTACK_REPLACEMENT] = SITES / BAD, [ATTACK_BACKDOOR] = SITES / BAD};
        *own = attack == ATTACK_SIGN_FLIP      ? -*own
               : attack == ATTACK_SIGN_FLIP_10 ? -10 * mean[k]
               : attack == ATTACK_LITTLE       ? mean[k] + 1.5f * sd[k]
               : attack == ATTACK_INNER_HALF   ? -0.5f * mean[k]
               : attack == ATTACK_INNER_1      ? -mean[k]
               : attack == ATTACK_INNER_4      ? -4.5f * mean[k]
               : attack == ATTACK_NOISE        ? 200 * (float)fl_rng_normal(&w->rng)
               : attack == ATTACK_MIMIC        ? w->update[BAD][k]
               : attack == ATTACK_ZERO         ? 0
               : attack == ATTACK_MINMAX || attack == ATTACK_SABOTAGE ? made[k]
               : factor[attack] > 0                                   ? factor[attack] * *own
                                                                      : *own;
    }
}

/* ---- rounds ---- */

/* Percent right after `rounds`, under a rule and an attack. b: 20 updates of w->params values. */
static double attack_run(struct attack_world *w, struct pool_bench *b, uint32_t hidden, double skew,
                         enum attack attack, uint64_t number, uint32_t rounds, double *ret_fooled)
{
    const double step = ldexp(1, b->terms.grid.step);
    static double got[PARAMS_MOST];
    struct fl_seed seed;

    memset(w, 0, sizeof *w);
    w->hidden = hidden;
    w->params = b->terms.elements;
    fl_seed_from_u64(number, &seed);
    fl_rng_init(&w->rng, &seed, 0);
    attack_data(w, skew, attack);
    for (size_t k = 0; hidden && k < w->params; k++) {
        w->model[k] = 0.15f * (float)fl_rng_normal(&w->rng);
    }
    for (uint32_t round = 0; round < rounds; round++) {
        attack_honest(w, 1);
        attack_bad(w, attack);
        for (size_t i = 0; i < SITES * w->params; i++) { /* what is too large saturates */
            b->q[i] = llround((double)w->update[i / w->params][i % w->params] / step);
        }
        ck_assert_int_eq(pool_bench_run(b, w->last, got, NULL), 0);
        for (size_t k = 0; k < w->params; k++) {
            w->last[k] = (float)got[k];
            w->model[k] += w->last[k];
        }
    }
    return attack_accuracy(w, ret_fooled);
}

#endif
