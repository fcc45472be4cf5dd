/* A site of the job, made up, and what it would release. */
#include "server/ctl/attack/attack.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/math/vec.h"
#include "common/nn/optim.h"
#include "common/nn/param/param.h"
#include "common/privacy/clip.h"
#include "common/privacy/noise.h"

#include <math.h>
#include <string.h>

enum { SHARD = 16, BLOBS = 4 };
static const double example_scale = 0x1p16; /* the clip of an example in steps of its sum */

static bool regression(const struct fl_attack *a)
{
    return fl_loss_is_regression(&a->l->spec.loss);
}

int fl_attack_new(const struct fl_plan *plan, uint64_t seed, struct fl_attack **ret,
                  struct fl_err *e)
{
    const struct fl_layout *l = &plan->layout;
    const struct fl_spec *spec = &l->spec;
    struct fl_seed job, site, noise;

    if (spec->layer_count == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "%s: a network that only a program knows", plan->name);
    }
    struct fl_attack *a = fl_try(1, sizeof *a);
    if (!a) {
        return fl_fail(e, FL_R_NOMEM, "an attack");
    }
    a->plan = plan;
    a->l = l;
    a->features = (size_t)spec->input[0] * spec->input[1] * spec->input[2];
    a->goal_size = regression(a) ? spec->targets * sizeof(float) : sizeof(int32_t);
    size_t shared = l->shared.elements + 1, own = l->private_.elements + 1,
           theta = l->theta.elements + 1, bytes = 0;
    fl_grid_bytes(&(struct fl_grid){plan->grid.bits, plan->grid.step}, shared, &bytes);
    a->shared = fl_try_aligned(shared, sizeof *a->shared);
    a->after = fl_try_aligned(shared, sizeof *a->after);
    a->q = fl_try_aligned(shared > theta ? shared : theta, sizeof *a->q);
    a->packed = fl_try(bytes, 1);
    a->private_ = fl_try_aligned(own, sizeof *a->private_);
    a->own = fl_try_aligned(own, sizeof *a->own);
    a->theta = fl_try_aligned(theta, sizeof *a->theta);
    a->grad = fl_try_aligned(theta, sizeof *a->grad);
    a->one = fl_try_aligned(theta, sizeof *a->one);
    bool all = a->shared && a->after && a->q && a->packed && a->private_ && a->own && a->theta &&
               a->grad && a->one;
    int r = all ? fl_model_new(spec, SHARD, &a->model, e)
                : fl_fail(e, FL_R_NOMEM, "a site of %zu values", shared);
    r = r ? r : fl_entropy(noise.bytes, sizeof noise.bytes, e);
    r = r || seed ? r : fl_entropy(&seed, sizeof seed, e);
    if (r) {
        fl_attack_free(a);
        return r;
    }
    fl_seed_from_u64(plan->seed, &job);
    fl_seed_from_u64(seed, &site);
    fl_layout_init_shared(l, &job, a->shared);
    fl_layout_init_private(l, &job, &site, a->private_);
    fl_rng_init(&a->rng, &site, 1);
    fl_rng_init(&a->noise, &noise, 0);
    *ret = a;
    return 0;
}

void fl_attack_free(struct fl_attack *a)
{
    if (!a) {
        return;
    }
    fl_model_free(a->model);
    fl_free(a->shared);
    fl_free(a->after);
    fl_free(a->q);
    fl_free(a->packed);
    fl_free(a->private_);
    fl_free(a->own);
    fl_free(a->theta);
    fl_free(a->grad);
    fl_free(a->one);
    fl_free(a);
}

/* ---- pictures ---- */

uint32_t fl_attack_classes(const struct fl_attack *a)
{
    return regression(a) ? 1 : a->l->spec.classes;
}

static void add_blobs(struct fl_rng *r, size_t height, size_t width, uint32_t blobs, double height_,
                      float *x)
{
    for (uint32_t b = 0; b < blobs; b++) {
        double cy = fl_rng_unit(r) * (double)height, cx = fl_rng_unit(r) * (double)width;
        double s = 0.5 + (0.05 + 0.15 * fl_rng_unit(r)) * (double)(height > width ? height : width);
        double much = height_ * (0.4 + 0.6 * fl_rng_unit(r));
        for (size_t i = 0; i < height * width; i++) {
            double dy = (double)(i / width) - cy, dx = (double)(i % width) - cx;
            x[i] += (float)(much * exp(-(dy * dy + dx * dx) / (2 * s * s)));
        }
    }
}

void fl_attack_picture(struct fl_attack *a, uint32_t class_, float *x)
{
    const struct fl_spec *spec = &a->l->spec;
    const struct fl_data_conf *data = &a->plan->data;
    bool vector = spec->input[1] * spec->input[2] == 1;
    size_t height = vector ? 1 : spec->input[1], width = vector ? a->features : spec->input[2];
    size_t channels = a->features / (height * width);
    struct fl_seed seed;
    struct fl_rng common;

    fl_seed_from_u64(class_ + 1, &seed);
    fl_rng_init(&common, &seed, 7); /* what a class has in common is the same in every run */
    for (size_t c = 0; c < channels; c++) {
        float *to = x + c * height * width;
        memset(to, 0, height * width * sizeof *to);
        add_blobs(&common, height, width, BLOBS, 0.7, to);
        add_blobs(&a->rng, height, width, BLOBS, 0.4, to);
        for (size_t i = 0; i < height * width; i++) {
            double v = (double)to[i] + 0.03 * fl_rng_unit(&a->rng);
            v = v > 1 ? 1 : v;
            size_t k = data->channels == 1 ? 0 : c;
            to[i] =
                (float)(data->channels ? (v - (double)data->mean[k]) / (double)data->std[k] : v);
        }
    }
    for (uint32_t i = 0; i < spec->layer_count;
         i++) { /* the last columns may be numbers of words */
        const struct fl_layer *l = &spec->layers[i];
        for (uint32_t k = 0; l->kind == FL_LAYER_EMBEDDING && k < l->category_count; k++) {
            x[a->features - l->category_count + k] = (float)fl_rng_below(&a->rng, l->categories[k]);
        }
    }
}

void fl_attack_goal(struct fl_attack *a, uint32_t class_, void *goal)
{
    if (!regression(a)) {
        memcpy(goal, &class_, sizeof(int32_t));
        return;
    }
    float *to = goal;
    for (uint32_t i = 0; i < a->l->spec.targets; i++) {
        to[i] = (float)fl_rng_normal(&a->rng);
    }
}

/* ---- training ---- */

/* To the clip, as one vector or layer by layer. */
void fl_attack_clip(const struct fl_attack *a, float *g)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    const struct fl_spec *spec = &a->l->spec;
    double each = v->clip / sqrt((double)fl_spec_weighted(spec));

    if (v->clipping == FL_CLIPPING_FLAT) {
        size_t n = a->l->theta.elements;
        double norm = sqrt(fl_vec_norm_squared(g, n));
        fl_vec_scale(norm > v->clip ? (float)(v->clip / norm) : 1, g, g, n);
        return;
    }
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (l->weight < 0) {
            continue;
        }
        const struct fl_tensor *t = &a->l->theta.at[l->weight];
        size_t n = 0;
        for (int k = 0; k < l->tensors; k++) {
            n += t[k].count;
        }
        double norm = sqrt(fl_vec_norm_squared(g + t->offset, n));
        fl_vec_scale(norm > each ? (float)(each / norm) : 1, g + t->offset, g + t->offset, n);
    }
}

int fl_attack_noise(struct fl_attack *a, double factor, float *sum, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    size_t n = a->l->theta.elements;
    struct fl_noise *noise = NULL;

    if (factor == 0) {
        return 0;
    }
    int r = fl_noise_new(v->noise_multiplier * factor * example_scale, &noise, e);
    if (r) {
        return r;
    }
    memset(a->q, 0, n * sizeof *a->q);
    fl_noise_add(noise, &a->noise, a->q, n);
    fl_noise_free(noise);
    for (size_t i = 0; i < n; i++) {
        sum[i] += (float)((double)a->q[i] * v->clip / example_scale);
    }
    return 0;
}

/* a->grad: of the unit example, as one noised step has it. */
static int noised_gradient(struct fl_attack *a, const struct fl_attack_batch *b, double factor,
                           struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    size_t n = a->l->theta.elements;

    memset(a->grad, 0, n * sizeof *a->grad);
    for (size_t i = 0; i < b->count; i++) {
        fl_model_gradient(a->model, b->x + i * a->features,
                          (const uint8_t *)b->y + i * a->goal_size, 1, a->one, NULL);
        fl_attack_clip(a, a->one);
        fl_vec_axpy(1, a->one, a->grad, n);
    }
    int r = fl_attack_noise(a, factor, a->grad, e);
    fl_vec_scale((float)(1 / (v->sampling_rate * v->examples)), a->grad, a->grad, n);
    return r;
}

/* As client/trainer/moves.c: two groups, each with its own rate and clip; a fresh momentum, so that
 * the first step has none. */
static int move(struct fl_attack *a, float *shared, float *private_, bool clip, struct fl_err *e)
{
    const struct fl_layout *l = a->l;
    const struct fl_train_conf *t = &a->plan->train;
    bool own_head = l->visibility == FL_VISIBILITY_HEAD_PRIVATE ||
                    l->visibility == FL_VISIBILITY_BODY_GENERATED;
    uint32_t head = fl_spec_head(&l->spec);
    size_t all = l->theta.elements, cut = all;
    struct fl_optim body = {.lr = t->body.lr}, last = {.lr = t->head.lr};
    struct fl_generator_conf_train conf = {
        .optim = body, .clip = clip ? t->body.clip : 0, .steps = 1};
    int r = 0;

    for (uint32_t i = head; own_head && i < l->spec.layer_count && cut == all; i++) {
        const struct fl_layer *k = &l->spec.layers[i];
        cut = k->weight >= 0 ? l->theta.at[k->weight].offset : all;
    }
    if (l->generated) {
        struct fl_generator *g = NULL;
        if ((r = fl_generator_new(l, &conf, shared, private_, &g, e)) == 0) {
            fl_generator_step(g, a->grad, a->theta);
            fl_generator_end(g);
            fl_generator_free(g);
        }
    }
    if (r == 0 && l->mixed) {
        struct fl_rules *rules = NULL;
        if ((r = fl_rules_new(l, &conf, shared, private_, &rules, e)) == 0) {
            fl_rules_step(rules, a->grad, a->theta);
            fl_rules_free(rules);
        }
    } else if (r == 0 && !l->generated) {
        float f = conf.clip == 0 ? 1 : fl_optim_clip(fl_vec_norm_squared(a->grad, cut), conf.clip);
        fl_optim_step(&body, f, a->grad, NULL, a->theta, cut);
    }
    if (cut < all) {
        fl_optim_step(&last, 1, a->grad + cut, NULL, a->theta + cut, all - cut);
    }
    fl_param_store(l, a->theta, shared, private_);
    return r;
}

int fl_attack_move(struct fl_attack *a, float *shared, float *private_, struct fl_err *e)
{
    return move(a, shared, private_, false, e);
}

int fl_attack_step(struct fl_attack *a, float *shared, float *private_,
                   const struct fl_attack_batch *b, double factor, struct fl_err *e)
{
    bool example = a->plan->privacy.unit == FL_UNIT_EXAMPLE && a->l->shared.elements > 0;
    int r = fl_param_make(a->l, shared, private_, a->theta, e);

    if (r) {
        return r;
    }
    fl_model_set(a->model, a->theta);
    if (example) {
        r = noised_gradient(a, b, factor, e);
    } else {
        fl_model_gradient(a->model, b->x, b->y, b->count, a->grad, NULL);
    }
    return r ? r : move(a, shared, private_, !example, e);
}

/* ---- what leaves ---- */

/* The pieces of a->q, through packing and back. */
static int see(struct fl_attack *a, const struct fl_attack_range *ranges, size_t count,
               double *seen, struct fl_err *e)
{
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    int r = 0;

    for (size_t k = 0; r == 0 && k < count; seen += ranges[k++].count) {
        int64_t *q = a->q + ranges[k].first;
        size_t bytes = 0;
        fl_grid_bytes(&g, ranges[k].count, &bytes);
        fl_grid_pack(&g, q, ranges[k].count, a->packed);
        r = fl_grid_unpack(&g, a->packed, bytes, 0, ranges[k].count, q, e);
        for (size_t i = 0; r == 0 && i < ranges[k].count; i++) {
            seen[i] = ldexp((double)q[i], g.step);
        }
    }
    return r;
}

int fl_attack_release(struct fl_attack *a, const struct fl_attack_batch *b, double factor,
                      const struct fl_attack_range *ranges, size_t count, double *seen,
                      struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    size_t n = a->l->shared.elements;
    struct fl_noise *noise = NULL;
    int64_t bound = 0;
    double norm;

    memcpy(a->after, a->shared, n * sizeof *a->after);
    memcpy(a->own, a->private_, a->l->private_.elements * sizeof *a->own);
    int r = fl_attack_step(a, a->after, a->own, b, factor, e);
    if (r) {
        return r;
    }
    fl_vec_sub(a->after, a->shared, a->after, n);
    if (v->unit != FL_UNIT_CLIENT) {
        r = fl_grid_round(&g, a->after, n, a->q, e);
        return r ? r : see(a, ranges, count, seen, e);
    }
    r = fl_clip_bound(&g, v->clip, &bound, e);
    r = r ? r : fl_clip_to_grid(&g, a->after, n, bound, a->q, &norm, e);
    if (r == 0 && factor > 0) {
        r = fl_noise_new(v->noise_multiplier * factor * (double)bound, &noise, e);
    }
    for (size_t k = 0; r == 0 && noise && k < count; k++) {
        fl_noise_add(noise, &a->noise, a->q + ranges[k].first, ranges[k].count);
    }
    fl_noise_free(noise);
    return r ? r : see(a, ranges, count, seen, e);
}

int fl_attack_send(struct fl_attack *a, const float *delta, bool clip, double factor, float *seen,
                   struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    size_t n = a->l->shared.elements;
    struct fl_noise *noise = NULL;
    int64_t bound = 0;
    double norm;
    int r = fl_clip_bound(&g, v->clip, &bound, e);

    if (r == 0 && !delta) {
        memset(a->q, 0, n * sizeof *a->q);
    } else if (r == 0) {
        r = clip ? fl_clip_to_grid(&g, delta, n, bound, a->q, &norm, e)
                 : fl_grid_round(&g, delta, n, a->q, e);
    }
    if (r == 0 && factor > 0) {
        r = fl_noise_new(v->noise_multiplier * factor * (double)bound, &noise, e);
    }
    if (noise) {
        fl_noise_add(noise, &a->noise, a->q, n);
    }
    for (size_t i = 0; r == 0 && i < n; i++) {
        seen[i] = (float)ldexp((double)a->q[i], g.step);
    }
    fl_noise_free(noise);
    return r;
}

/* ---- small linear systems ---- */

static double dot(const double *x, const double *y, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

void fl_attack_factorize(double *g, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k <= i; k++) {
            double sum = g[i * n + k] - dot(g + i * n, g + k * n, k);
            g[i * n + k] = i == k ? sqrt(sum) : sum / g[k * n + k];
        }
    }
}

void fl_attack_solve(const double *l, size_t n, double *x)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (x[i] - dot(l + i * n, x, i)) / l[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++) {
            x[i] -= l[k * n + i] * x[k];
        }
        x[i] /= l[i * n + i];
    }
}
