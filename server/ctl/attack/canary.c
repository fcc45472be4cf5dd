/*
 * Data canaries: examples that a network would never learn from its neighbours, put in or left out
 * by coins, through the whole job - its network, steps, rounds, clip and noise. So beside the
 * mechanism it is the training around it that is audited: an example that reached a release by
 * another way than its clipped gradient would show.
 *
 *   mislabelled   a picture of one class with the label of another
 *   white         the largest value everywhere; at most one for each class, or they could not be
 * told apart extreme       every value the least or the largest, at random
 *
 * Unit example: all are examples of one site. Unit client: each is a site of its own. The attacker
 * sees every step's (or round's) release, knows the model before it, and so each canary's own
 * direction v_i. What was released is about sum b_i v_i + noise; b is estimated by ridge regression
 * with the noise's variance, which is the best linear guess, and summed over the job. Then it
 * guesses (common/privacy/audit.h).
 */
#include "server/ctl/attack/attack.h"

#include "common/base/mem.h"
#include "common/math/blas.h"
#include "common/math/vec.h"
#include "common/nn/param/param.h"

#include <math.h>
#include <string.h>

enum { NORMAL = 16, KINDS = 3 }; /* normal pictures at the site, beside canaries */

struct canaries {
    struct fl_attack *a;
    uint32_t count, rows; /* rows: and normal pictures, where they take part */
    size_t n;             /* values of what is released */
    double factor;        /* of the noise */
    float *x;             /* canaries, then normal pictures */
    uint8_t *y;
    bool *in;
    double *score;
    float *v;    /* rows x n: directions */
    float *seen; /* n */
    float *gram; /* rows x rows */
    double *l, *b;
};

static void make_one(struct canaries *c, uint32_t i, float *x, uint8_t *y)
{
    struct fl_attack *a = c->a;
    const struct fl_data_conf *data = &a->plan->data;
    uint32_t classes = fl_attack_classes(a),
             white = classes < c->count / 3 ? classes : c->count / 3;
    uint32_t class_ = (uint32_t)fl_rng_below(&a->rng, classes);
    size_t plane = (size_t)a->l->spec.input[1] * a->l->spec.input[2];

    fl_attack_picture(a, class_, x); /* what is no pixel (numbers of words) stays */
    if (i % KINDS == 0 || (i % KINDS == 1 && i / KINDS >= white)) {
        fl_attack_goal(a, (class_ + classes / 2) % classes, y);
        return;
    }
    bool extreme = i % KINDS == 2;
    size_t words = 0;
    for (uint32_t k = 0; k < a->l->spec.layer_count; k++) {
        const struct fl_layer *l = &a->l->spec.layers[k];
        words = l->kind == FL_LAYER_EMBEDDING ? l->category_count : words;
    }
    for (size_t j = 0; j + words < a->features; j++) {
        size_t k = data->channels > 1 ? j / plane : 0;
        float low = data->channels ? -data->mean[k] / data->std[k] : 0;
        float high = data->channels ? (1 - data->mean[k]) / data->std[k] : 1;
        x[j] = extreme && fl_rng_below(&a->rng, 2) ? low : high;
    }
    fl_attack_goal(a, extreme ? class_ : i / KINDS, y);
}

/* ---- the attacker ---- */

/* c->l = Cholesky factor of V V^T + lambda 1. */
static void prepare(struct canaries *c, double lambda)
{
    size_t m = c->rows;

    fl_blas_gemm(false, true, m, m, c->n, 1, c->v, c->n, c->v, c->n, 0, c->gram, m);
    for (size_t i = 0; i < m * m; i++) {
        c->l[i] = (double)c->gram[i];
    }
    for (size_t i = 0; i < m; i++) { /* and what 32-bit sums leave, so that it can be factored */
        c->l[i * m + i] = c->l[i * m + i] * (1 + 1e-5) + lambda + 1e-12;
    }
    fl_attack_factorize(c->l, m);
}

/* Adds each canary's estimated share of what was seen. */
static void look(struct canaries *c)
{
    for (uint32_t i = 0; i < c->rows; i++) {
        c->b[i] = fl_vec_dot(c->v + i * c->n, c->seen, c->n);
    }
    fl_attack_solve(c->l, c->rows, c->b);
    for (uint32_t i = 0; i < c->count; i++) {
        c->score[i] += c->b[i];
    }
}

/* ---- unit example ---- */

static int one_step(struct canaries *c, float *shared, float *own, struct fl_err *e)
{
    struct fl_attack *a = c->a;
    const struct fl_privacy_conf *v = &a->plan->privacy;
    double noise = c->factor * v->noise_multiplier * v->clip;
    int r = fl_param_make(a->l, shared, own, a->theta, e);

    if (r) {
        return r;
    }
    fl_model_set(a->model, a->theta);
    memset(a->grad, 0, c->n * sizeof *a->grad);
    for (uint32_t i = 0; i < c->rows; i++) {
        float *g = c->v + i * c->n;
        fl_model_gradient(a->model, c->x + i * a->features, c->y + i * a->goal_size, 1, g, NULL);
        fl_attack_clip(a, g);
        bool in = i >= c->count || c->in[i];
        if (fl_rng_unit(&a->rng) < v->sampling_rate && in) {
            fl_vec_axpy(1, g, a->grad, c->n);
        }
    }
    r = fl_attack_noise(a, c->factor, a->grad, e);
    if (r) {
        return r;
    }
    memcpy(c->seen, a->grad, c->n * sizeof *c->seen);
    prepare(c, noise * noise);
    look(c);
    fl_vec_scale((float)(1 / (v->sampling_rate * v->examples)), a->grad, a->grad, c->n);
    return fl_attack_move(a, shared, own, e);
}

static int all_steps(struct canaries *c, struct fl_err *e)
{
    struct fl_attack *a = c->a;
    uint64_t steps = a->plan->rounds * a->plan->train.steps;
    int r = 0;

    memcpy(a->after, a->shared, a->l->shared.elements * sizeof *a->after);
    memcpy(a->own, a->private_, a->l->private_.elements * sizeof *a->own);
    for (uint64_t k = 0; r == 0 && k < steps; k++) {
        r = one_step(c, a->after, a->own, e);
    }
    return r;
}

/* ---- unit client ---- */

/* Sites of one canary each: what they send, or what their sum is. */
static int one_round(struct canaries *c, float *model, bool sum, struct fl_err *e)
{
    struct fl_attack *a = c->a;
    double noise = c->factor * a->plan->privacy.noise_multiplier * a->plan->privacy.clip;
    uint32_t steps = a->plan->train.steps ? a->plan->train.steps : 1, members = 0;
    float *mean = a->shared; /* the caller has its own copy of what it was */
    int r = 0;

    memset(mean, 0, c->n * sizeof *mean);
    for (uint32_t i = 0; r == 0 && i < c->count; i++) {
        const struct fl_attack_batch one = {c->x + i * a->features, c->y + i * a->goal_size, 1};
        float *v = c->v + i * c->n;
        memcpy(v, model, c->n * sizeof *v);
        memcpy(a->own, a->private_, a->l->private_.elements * sizeof *a->own);
        for (uint32_t s = 0; r == 0 && s < steps; s++) {
            r = fl_attack_step(a, v, a->own, &one, 0, e);
        }
        fl_vec_sub(v, model, v, c->n);
        r = r ? r : fl_attack_send(a, v, true, sum ? 0 : c->factor, c->seen, e);
        r = r ? r : fl_attack_send(a, v, true, 0, v, e); /* what it would be without noise */
        if (r == 0 && !sum) {
            double energy = fl_vec_norm_squared(v, c->n);
            if (!c->in[i]) { /* nothing in its place */
                r = fl_attack_send(a, NULL, true, c->factor, c->seen, e);
            }
            c->score[i] += fl_vec_dot(v, c->seen, c->n) / (energy + noise * noise + 1e-12);
        }
        members += c->in[i];
        if (r == 0 && c->in[i]) {
            fl_vec_axpy(1, sum ? v : c->seen, mean, c->n);
        }
    }
    if (r == 0 && sum) {
        r = fl_attack_send(a, mean, false, c->factor, c->seen, e);
        memcpy(mean, c->seen, c->n * sizeof *mean);
        prepare(c, noise * noise);
        look(c);
    }
    fl_vec_axpy(1 / (float)(members ? members : 1), mean, model, c->n);
    return r;
}

static int all_rounds(struct canaries *c, bool sum, struct fl_err *e)
{
    struct fl_attack *a = c->a;
    float *kept = fl_try_aligned(c->n + 1, sizeof *kept), *model = fl_try_aligned(c->n + 1, 4);
    int r = kept && model ? 0 : fl_fail(e, FL_R_NOMEM, "a model of %zu values", c->n);

    if (r == 0) {
        memcpy(kept, a->shared, c->n * sizeof *kept);
        memcpy(model, a->shared, c->n * sizeof *model);
    }
    for (uint64_t k = 0; r == 0 && k < a->plan->rounds; k++) {
        r = one_round(c, model, sum, e);
    }
    if (kept) {
        memcpy(a->shared, kept, c->n * sizeof *kept);
    }
    fl_free(kept);
    fl_free(model);
    return r;
}

/* ---- both ---- */

bool fl_attack_can_audit(enum fl_release_kind kind)
{
    return kind == FL_RELEASE_STEPS || kind == FL_RELEASE_UPDATE || kind == FL_RELEASE_SUM ||
           kind == FL_RELEASE_MASKED;
}

uint64_t fl_attack_canary_work(const struct fl_plan *plan, enum fl_release_kind kind,
                               uint32_t canaries)
{
    bool example = kind == FL_RELEASE_STEPS;
    size_t n = example ? plan->layout.theta.elements : plan->layout.shared.elements;

    return (uint64_t)n * canaries * plan->rounds *
           (example || !plan->train.steps ? 1 + (example ? plan->train.steps : 0)
                                          : plan->train.steps);
}

int fl_attack_canaries(struct fl_attack *a, enum fl_release_kind kind, uint32_t count,
                       double factor, struct fl_audit *ret, struct fl_err *e)
{
    bool example = kind == FL_RELEASE_STEPS;
    size_t n = example ? a->l->theta.elements : a->l->shared.elements;
    uint32_t all = example ? count + NORMAL : count;
    struct canaries c = {.a = a,
                         .count = count,
                         .rows = all,
                         .n = n,
                         .factor = factor,
                         .x = fl_try((size_t)all * a->features, sizeof *c.x),
                         .y = fl_try(all, a->goal_size),
                         .in = fl_try(count, sizeof *c.in),
                         .score = fl_try(count, sizeof *c.score),
                         .v = fl_try_aligned((size_t)all * n, sizeof *c.v),
                         .seen = fl_try_aligned(n, sizeof *c.seen),
                         .gram = fl_try_aligned((size_t)all * all, sizeof *c.gram),
                         .l = fl_try((size_t)all * all, sizeof *c.l),
                         .b = fl_try(all, sizeof *c.b)};
    bool room = c.x && c.y && c.in && c.score && c.v && c.seen && c.gram && c.l && c.b;
    int r = room ? 0 : fl_fail(e, FL_R_NOMEM, "%u canaries of %zu values", count, n);

    for (uint32_t i = 0; r == 0 && i < all; i++) {
        float *x = c.x + (size_t)i * a->features;
        uint8_t *y = c.y + i * a->goal_size;
        if (i < count) {
            make_one(&c, i, x, y);
            c.in[i] = fl_rng_below(&a->rng, 2) != 0;
        } else {
            fl_attack_picture(a, i % fl_attack_classes(a), x);
            fl_attack_goal(a, i % fl_attack_classes(a), y);
        }
    }
    r = r ? r : example ? all_steps(&c, e) : all_rounds(&c, kind != FL_RELEASE_UPDATE, e);
    r = r ? r : fl_audit_scores(c.score, c.in, count, a->plan->privacy.delta, ret, e);
    fl_free(c.x);
    fl_free(c.y);
    fl_free(c.in);
    fl_free(c.score);
    fl_free(c.v);
    fl_free(c.seen);
    fl_free(c.gram);
    fl_free(c.l);
    fl_free(c.b);
    return r;
}
