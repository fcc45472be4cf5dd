/*
 * A malicious coordinator (Fowl et al. 2022, "Robbing the Fed"). It cannot change the job's layers,
 * only the weights that it sends:
 *
 *   convolutions before the first dense layer pass their input on (one weight of 1), lifted above
 * 0; rows of the dense layer all measure the same, the mean, against rising thresholds; the layer
 * after it, if it travels, weighs all of them alike.
 *
 * Two neighbouring rows then differ by the pictures between their thresholds. With as many rows as
 * pictures, most are alone there, and the difference of the rows' gradients is a multiple of one.
 */
#include "server/ctl/attack/attack.h"

#include "common/base/mem.h"
#include "common/nn/param/param.h"
#include "common/nn/trap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 256 };
#define FOUND_DB 30.0

/* Where a tensor's values can be put; NULL: it is not the coordinator's to choose. */
static float *place_of(const struct fl_attack *a, const struct fl_tensor *t, bool *ret_generated)
{
    const struct fl_layout *l = a->l;
    char name[FL_SPEC_NAME_MAX];
    bool generated = t->group == FL_GROUP_GENERATED;
    int w = snprintf(name, sizeof name, generated ? "hyper.%s.b" : "%s", t->name);
    const struct fl_tensor *at = w > 0 && (size_t)w < sizeof name && t->group != FL_GROUP_PRIVATE
                                     ? fl_tensors_find(&l->shared, name)
                                     : NULL;

    if (!at || at->count != t->count || (generated && l->generator.kind != FL_GENERATOR_AFFINE)) {
        return NULL;
    }
    *ret_generated = generated;
    return a->shared + at->offset;
}

/* Makes theta's tensor these values: what a hypernetwork would add to them is switched off. */
static float *take_over(struct fl_attack *a, const struct fl_tensor *t)
{
    bool generated = false;
    float *to = place_of(a, t, &generated);

    if (to && generated) {
        char name[FL_SPEC_NAME_MAX + 16];
        snprintf(name, sizeof name, "hyper.%s.w", t->name);
        const struct fl_tensor *w = fl_tensors_find(&a->l->shared, name);
        if (w) {
            memset(a->shared + w->offset, 0, w->count * sizeof(float));
        }
    }
    return to;
}

static const struct fl_layer *next_dense(const struct fl_attack *a, const struct fl_attack_dense *d)
{
    const struct fl_spec *spec = &a->l->spec;

    for (uint32_t i = d->layer + 1; i < spec->layer_count; i++) {
        if (spec->layers[i].kind == FL_LAYER_LINEAR) {
            return &spec->layers[i];
        }
    }
    return NULL;
}

bool fl_attack_can_imprint(const struct fl_attack *a, const struct fl_attack_dense *d,
                           const char **ret_why)
{
    const struct fl_spec *spec = &a->l->spec;
    bool generated, active = false;

    for (uint32_t i = 0; i < d->layer; i++) {
        const struct fl_layer *l = &spec->layers[i];
        bool passes = l->kind == FL_LAYER_LEAKY_RELU || l->kind == FL_LAYER_MAX_POOL ||
                      l->kind == FL_LAYER_AVG_POOL || l->kind == FL_LAYER_FLATTEN ||
                      l->kind == FL_LAYER_DROPOUT;
        if (!passes && l->kind != FL_LAYER_CONV2D) {
            *ret_why = "the layers before the first dense one cannot be made to pass a picture on";
            return false;
        }
        if (!passes && (!place_of(a, &a->l->theta.at[l->weight], &generated) ||
                        !place_of(a, &a->l->theta.at[l->weight + 1], &generated))) {
            *ret_why = "the coordinator does not choose the layers before the first dense one";
            return false;
        }
    }
    for (uint32_t i = d->layer + 1; i < spec->layer_count; i++) {
        if (spec->layers[i].kind == FL_LAYER_LINEAR) {
            break;
        }
        active = active || spec->layers[i].kind == FL_LAYER_LEAKY_RELU;
    }
    if (!active || !next_dense(a, d) || d->out < 8) {
        *ret_why = "no thresholds can be made of the first dense layer";
        return false;
    }
    return true;
}

/* ---- the trap ---- */

static void pass_on(struct fl_attack *a, const struct fl_layer *l, float lift)
{
    const struct fl_tensor *t = &a->l->theta.at[l->weight];
    float *w = take_over(a, t), *b = take_over(a, t + 1);
    size_t patch = (size_t)l->kernel * l->kernel;

    memset(w, 0, t->count * sizeof *w);
    for (uint32_t c = 0; c < l->out; c++) {
        uint32_t from = c % l->in_shape[0];
        w[((size_t)c * l->in_shape[0] + from) * patch + patch / 2] = 1;
        b[c] = lift;
    }
}

static int compare(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static int set_thresholds(struct fl_attack *a, const struct fl_attack_dense *d, float *x,
                          uint8_t *y, float *truth, struct fl_err *e)
{
    float *w = take_over(a, d->weight), *b = take_over(a, d->bias);
    double mean[SAMPLES] = {0};
    int r = fl_param_make(a->l, a->shared, a->private_, a->theta, e);

    for (uint32_t i = 0; r == 0 && i < SAMPLES; i++) {
        uint32_t class_ = i % fl_attack_classes(a);
        fl_attack_picture(a, class_, x);
        fl_attack_goal(a, class_, y);
        r = fl_attack_truth(a, d, x, y, truth, NULL, e);
        for (size_t j = 0; j < d->in; j++) {
            mean[i] += (double)truth[j] / (double)d->in;
        }
    }
    qsort(mean, SAMPLES, sizeof *mean, compare);
    for (size_t i = 0; i < d->out; i++) {
        double at = ((double)i + 0.5) / (double)d->out * (SAMPLES - 1);
        size_t k = (size_t)at;
        double next = mean[k + 1 < SAMPLES ? k + 1 : k];
        b[i] = (float)-(mean[k] + (at - (double)k) * (next - mean[k]));
    }
    for (size_t i = 0; i < d->in * d->out; i++) {
        w[i] = 1 / (float)d->in;
    }
    return r;
}

static void weigh_alike(struct fl_attack *a, const struct fl_attack_dense *d)
{
    const struct fl_layer *l = next_dense(a, d);
    const struct fl_tensor *t = &a->l->theta.at[l->weight];
    float *w = l->in_shape[0] == d->out ? take_over(a, t) : NULL;

    for (size_t o = 0; w && o < l->out; o++) {
        float u = (float)(fl_rng_normal(&a->rng) / sqrt((double)d->out));
        for (size_t i = 0; i < d->out; i++) {
            w[o * d->out + i] = u;
        }
    }
}

/* ---- the attack ---- */

struct room {
    float *x, *truth, *kept;
    uint8_t *y;
    double *seen, *weight, *bias, *guess;
};

static int make_room(struct room *m, const struct fl_attack *a, const struct fl_attack_dense *d,
                     uint32_t n, struct fl_err *e)
{
    *m = (struct room){.x = fl_try(n * a->features, sizeof *m->x),
                       .truth = fl_try(n * d->in, sizeof *m->truth),
                       .kept = fl_try(a->l->shared.elements, sizeof *m->kept),
                       .y = fl_try(n, a->goal_size),
                       .seen = fl_try(d->seen, sizeof *m->seen),
                       .weight = fl_try(d->in * d->out, sizeof *m->weight),
                       .bias = fl_try(d->out, sizeof *m->bias),
                       .guess = fl_try(d->in, sizeof *m->guess)};
    bool all = m->x && m->truth && m->kept && m->y && m->seen && m->weight && m->bias && m->guess;
    return all ? 0 : fl_fail(e, FL_R_NOMEM, "an imprint of %zu values", d->seen);
}

static void free_room(struct room *m)
{
    fl_free(m->x);
    fl_free(m->truth);
    fl_free(m->kept);
    fl_free(m->y);
    fl_free(m->seen);
    fl_free(m->weight);
    fl_free(m->bias);
    fl_free(m->guess);
}

static int make_trap(struct fl_attack *a, const struct fl_attack_dense *d, struct room *m,
                     struct fl_err *e)
{
    const struct fl_data_conf *data = &a->plan->data;
    float lift = 0.1f;

    for (uint32_t k = 0; k < data->channels; k++) {
        float down = data->mean[k] / data->std[k] + 0.1f;
        lift = down > lift ? down : lift;
    }
    for (uint32_t i = 0; i < d->layer; i++) {
        const struct fl_layer *l = &a->l->spec.layers[i];
        if (l->kind == FL_LAYER_CONV2D) {
            pass_on(a, l, lift);
            lift = 0;
        }
    }
    int r = set_thresholds(a, d, m->x, m->y, m->truth, e);
    if (r == 0) {
        weigh_alike(a, d);
        r = fl_param_make(a->l, a->shared, a->private_, a->theta, e);
    }
    return r;
}

/* The difference of two rows, as a guess; the last row stands alone. */
static void guess_between(const struct fl_attack_dense *d, const struct room *m, size_t i,
                          double *guess)
{
    bool last = i + 1 == d->out;
    double under = m->bias[i] - (last ? 0 : m->bias[i + 1]);
    const double *w = m->weight + i * d->in;

    for (size_t j = 0; j < d->in; j++) {
        guess[j] = (w[j] - (last ? 0 : w[d->in + j])) / under;
    }
}

int fl_attack_imprint(struct fl_attack *a, const struct fl_attack_dense *d, uint32_t pictures,
                      double factor, struct fl_imprint *ret, struct fl_err *e)
{
    struct fl_imprint out = {.pictures = pictures, .best = -1};
    struct fl_err trap = {0};
    struct room m;
    int r = make_room(&m, a, d, pictures, e);

    if (r) {
        free_room(&m);
        return r;
    }
    memcpy(m.kept, a->shared, a->l->shared.elements * sizeof *m.kept);
    r = make_trap(a, d, &m, e);
    out.refused = r == 0 && fl_trap_check(a->l, a->theta, &trap) != 0;
    for (uint32_t k = 0; r == 0 && k < pictures; k++) {
        uint32_t class_ = k % fl_attack_classes(a);
        fl_attack_picture(a, class_, m.x + k * a->features);
        fl_attack_goal(a, class_, m.y + k * a->goal_size);
        r = fl_attack_truth(a, d, m.x + k * a->features, m.y + k * a->goal_size,
                            m.truth + k * d->in, NULL, e);
    }
    const struct fl_attack_batch batch = {m.x, m.y, pictures};
    r = r ? r : fl_attack_release(a, &batch, factor, d->range, d->range_count, m.seen, e);
    r = r ? r : fl_attack_gather(a, d, m.seen, m.weight, m.bias, e);
    for (uint32_t k = 0; r == 0 && k < pictures; k++) {
        const float *truth = m.truth + k * d->in;
        struct fl_attack_scale scale;
        double best = -1;
        fl_attack_scale_of(a, d->direct, truth, d->in, &scale);
        for (size_t i = 0; i < d->out; i++) {
            guess_between(d, &m, i, m.guess);
            best = fmax(best, fl_attack_psnr(&scale, truth, m.guess, d->in));
        }
        out.found += best > FOUND_DB;
        if (best > out.best) {
            out.best = best;
            out.grey = fl_attack_psnr(&scale, truth, NULL, d->in);
        }
    }
    memcpy(a->shared, m.kept, a->l->shared.elements * sizeof *m.kept);
    free_room(&m);
    if (r == 0) {
        *ret = out;
    }
    return r;
}
