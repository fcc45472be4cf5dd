/*
 * Gradient inversion (analytic; Phong et al. 2018): the gradient of a dense layer with a bias is
 * d x^T and d, so every row of it is the input x times a number that stands beside it. Rows are
 * combined by a matched filter, x = sum_i d_i W_i / sum_i d_i^2, which adds up what they say and
 * averages what is noise.
 *
 * A layer that an affine hypernetwork makes leaves as H + 1 copies of its gradient, times f_1 ...
 * f_H and 1. Looking at the bias alone would underestimate the leak by 17 dB; so copies are
 * combined the same way. f depends on the private embedding; the attacker could estimate it from
 * the copies, and is given it here.
 */
#include "server/ctl/attack/attack.h"

#include "common/base/mem.h"
#include "common/nn/param/param.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DB_MAX 400.0

/* ---- which layer ---- */

static const struct fl_tensor *shared_of(const struct fl_layout *l, const struct fl_tensor *t,
                                         const char *before, const char *after)
{
    char name[FL_SPEC_NAME_MAX];
    int w = snprintf(name, sizeof name, "%s%s%s", before, t->name, after);

    return w > 0 && (size_t)w < sizeof name ? fl_tensors_find(&l->shared, name) : NULL;
}

static bool made_by_a_rule(const struct fl_layout *l, const struct fl_tensor *t)
{
    for (uint32_t i = 0; i < l->made_count; i++) {
        if (&l->theta.at[l->made[i].tensor] == t) {
            return true;
        }
    }
    return false;
}

static void add_range(struct fl_attack_dense *d, const struct fl_tensor *t)
{
    d->range[d->range_count++] = (struct fl_attack_range){t->offset, t->count};
    d->seen += t->count;
}

static const char *find_released(const struct fl_layout *l, struct fl_attack_dense *d)
{
    if (d->weight->group == FL_GROUP_PRIVATE) {
        return "the first dense layer stays at the site";
    }
    if (made_by_a_rule(l, d->weight)) {
        return "the first dense layer is made by a rule: what leaves is its factors";
    }
    if (d->weight->group == FL_GROUP_GENERATED) {
        if (l->generator.kind != FL_GENERATOR_AFFINE) {
            return "the first dense layer is made by a generator that mixes its elements";
        }
        const struct fl_tensor *parts[] = {
            shared_of(l, d->weight, "hyper.", ".b"), shared_of(l, d->bias, "hyper.", ".b"),
            shared_of(l, d->weight, "hyper.", ".w"), shared_of(l, d->bias, "hyper.", ".w")};
        for (size_t i = 0; i < FL_COUNT(parts); i++) {
            if (!parts[i]) {
                return "the first dense layer's generator has no tensors of the usual names";
            }
            add_range(d, parts[i]);
        }
        d->generated = true;
        d->hidden = l->generator.hidden;
        return NULL;
    }
    const struct fl_tensor *weight = shared_of(l, d->weight, "", ""),
                           *bias = shared_of(l, d->bias, "", "");
    if (!weight || !bias) {
        return "the first dense layer does not travel as it is";
    }
    add_range(d, weight);
    add_range(d, bias);
    return NULL;
}

bool fl_attack_find_dense(const struct fl_attack *a, struct fl_attack_dense *ret,
                          const char **ret_why)
{
    const struct fl_spec *spec = &a->l->spec;
    struct fl_attack_dense d = {.direct = true};

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (l->kind != FL_LAYER_LINEAR || l->in_shape[1] * l->in_shape[2] != 1) {
            d.direct = d.direct && l->kind == FL_LAYER_FLATTEN;
            continue;
        }
        d.layer = i;
        d.in = l->in_shape[0];
        d.out = l->out;
        d.name = l->name;
        d.weight = &a->l->theta.at[l->weight];
        d.bias = d.weight + 1;
        const char *why = find_released(a->l, &d);
        *ret = d;
        *ret_why = why;
        return !why;
    }
    *ret_why = "there is no dense layer";
    return false;
}

/* ---- from what was seen to the layer's gradient ---- */

/* f = relu(M v + m), in doubles. */
static double *hidden_of(const struct fl_attack *a, struct fl_err *e)
{
    const struct fl_layout *l = a->l;
    const struct fl_tensor *m = fl_tensors_find(&l->shared, "hyper.hidden.weight"),
                           *b = fl_tensors_find(&l->shared, "hyper.hidden.bias"),
                           *v = fl_tensors_find(&l->private_, "embedding");
    double *f = fl_try(l->generator.hidden, sizeof *f);

    if (!f || !m || !b || !v) {
        fl_free(f);
        fl_fail(e, FL_R_NOMEM, "a hypernetwork's hidden values");
        return NULL;
    }
    for (size_t h = 0; h < l->generator.hidden; h++) {
        double x = (double)a->shared[b->offset + h];
        for (size_t k = 0; k < v->count; k++) {
            x += (double)a->shared[m->offset + h * v->count + k] *
                 (double)a->private_[v->offset + k];
        }
        f[h] = x > 0 ? x : 0;
    }
    return f;
}

int fl_attack_gather(const struct fl_attack *a, const struct fl_attack_dense *d, const double *seen,
                     double *weight, double *bias, struct fl_err *e)
{
    size_t n = d->in * d->out, m = d->out;
    double gain = 1;

    memcpy(weight, seen, n * sizeof *weight);
    memcpy(bias, seen + n, m * sizeof *bias);
    if (!d->generated) {
        return 0;
    }
    double *f = hidden_of(a, e);
    if (!f) {
        return -FL_R_NOMEM;
    }
    const double *w = seen + n + m, *b = w + d->hidden * n;
    for (size_t h = 0; h < d->hidden; h++) {
        gain += f[h] * f[h];
        for (size_t i = 0; f[h] > 0 && i < n; i++) {
            weight[i] += f[h] * w[h * n + i];
        }
        for (size_t i = 0; f[h] > 0 && i < m; i++) {
            bias[i] += f[h] * b[h * m + i];
        }
    }
    for (size_t i = 0; i < n; i++) {
        weight[i] /= gain;
    }
    for (size_t i = 0; i < m; i++) {
        bias[i] /= gain;
    }
    fl_free(f);
    return 0;
}

int fl_attack_truth(struct fl_attack *a, const struct fl_attack_dense *d, const float *x,
                    const void *y, float *ret, double *ret_flow, struct fl_err *e)
{
    const struct fl_piece *pieces;
    double loss;
    uint32_t count;

    fl_model_set(a->model, a->theta);
    count = fl_model_example(a->model, x, y, &pieces, &loss);
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].weight == d->weight->offset && pieces[i].a && pieces[i].in == d->in) {
            memcpy(ret, pieces[i].a, d->in * sizeof *ret);
            for (size_t k = 0; ret_flow && k < d->out; k++) {
                ret_flow[k] = (double)pieces[i].d[k];
            }
            return 0;
        }
    }
    return fl_fail(e, FL_R_INTERNAL, "the input of layer %s is not known", d->name);
}

/* ---- how good a guess is ---- */

void fl_attack_scale_of(const struct fl_attack *a, bool direct, const float *truth, size_t count,
                        struct fl_attack_scale *ret)
{
    *ret = (struct fl_attack_scale){.a = a, .direct = direct, .least = 0, .most = 1};
    for (size_t i = 0; !direct && i < count; i++) {
        double x = (double)truth[i];
        ret->least = i == 0 || x < ret->least ? x : ret->least;
        ret->most = i == 0 || x > ret->most ? x : ret->most;
    }
    if (!(ret->most > ret->least)) {
        ret->most = ret->least + 1;
    }
}

double fl_attack_scaled(const struct fl_attack_scale *s, size_t i, double value)
{
    const struct fl_data_conf *data = &s->a->plan->data;
    const struct fl_spec *spec = &s->a->l->spec;
    double x = (value - s->least) / (s->most - s->least);

    if (s->direct && data->channels) {
        size_t k = data->channels == 1 ? 0 : i / ((size_t)spec->input[1] * spec->input[2]);
        x = value * (double)data->std[k] + (double)data->mean[k];
    }
    return x < 0 ? 0 : x > 1 ? 1 : x; /* and NaN, of a guess divided by nothing, is 1 */
}

double fl_attack_psnr(const struct fl_attack_scale *s, const float *truth, const double *guess,
                      size_t count)
{
    double mean = 0, square = 0;

    for (size_t i = 0; i < count; i++) {
        mean += fl_attack_scaled(s, i, (double)truth[i]) / (double)count;
    }
    for (size_t i = 0; i < count; i++) {
        double x = guess ? fl_attack_scaled(s, i, isnan(guess[i]) ? 0 : guess[i]) : mean;
        double d = x - fl_attack_scaled(s, i, (double)truth[i]);
        square += d * d / (double)count;
    }
    return square > 0 ? fmin(DB_MAX, -10 * log10(square)) : DB_MAX;
}

/* ---- the attack ---- */

struct guesses {
    double *seen, *weight, *bias, *flow, *guess, *row;
    float *x, *truth;
    uint8_t *y;
};

static int make_room(struct guesses *g, const struct fl_attack *a, const struct fl_attack_dense *d,
                     struct fl_err *e)
{
    *g = (struct guesses){.seen = fl_try(d->seen, sizeof *g->seen),
                          .weight = fl_try(d->in * d->out, sizeof *g->weight),
                          .bias = fl_try(d->out, sizeof *g->bias),
                          .flow = fl_try(d->out, sizeof *g->flow),
                          .guess = fl_try(d->in, sizeof *g->guess),
                          .row = fl_try(d->in, sizeof *g->row),
                          .x = fl_try(a->features, sizeof *g->x),
                          .truth = fl_try(d->in, sizeof *g->truth),
                          .y = fl_try(a->goal_size, 1)};
    bool all = g->seen && g->weight && g->bias && g->flow && g->guess && g->row && g->x &&
               g->truth && g->y;
    return all ? 0 : fl_fail(e, FL_R_NOMEM, "guesses of %zu values", d->seen);
}

static void free_room(struct guesses *g)
{
    fl_free(g->seen);
    fl_free(g->weight);
    fl_free(g->bias);
    fl_free(g->flow);
    fl_free(g->guess);
    fl_free(g->row);
    fl_free(g->x);
    fl_free(g->truth);
    fl_free(g->y);
}

/* All rows together, and the strongest alone. */
static void combine(const struct fl_attack_dense *d, struct guesses *g)
{
    double energy = 0;
    size_t best = 0;

    memset(g->guess, 0, d->in * sizeof *g->guess);
    for (size_t i = 0; i < d->out; i++) {
        energy += g->bias[i] * g->bias[i];
        best = fabs(g->bias[i]) > fabs(g->bias[best]) ? i : best;
    }
    for (size_t i = 0; i < d->out; i++) {
        for (size_t j = 0; j < d->in; j++) {
            g->guess[j] += g->bias[i] * g->weight[i * d->in + j] / energy;
        }
    }
    for (size_t j = 0; j < d->in; j++) {
        g->row[j] = g->weight[best * d->in + j] / g->bias[best];
    }
}

/* What what left allows at best: by somebody who knows the layer's output gradient exactly, and the
 * scale. Rounding, and values too small for the grid, are all that stands in its way. */
static double limit_of(const struct fl_attack_dense *d, struct guesses *g, const double *flow,
                       const struct fl_attack_scale *s)
{
    double energy = 0, dot = 0;

    memset(g->row, 0, d->in * sizeof *g->row);
    for (size_t i = 0; i < d->out; i++) {
        for (size_t j = 0; j < d->in; j++) {
            g->row[j] += flow[i] * g->weight[i * d->in + j];
        }
    }
    for (size_t j = 0; j < d->in; j++) {
        energy += g->row[j] * g->row[j];
        dot += g->row[j] * (double)g->truth[j];
    }
    for (size_t j = 0; j < d->in; j++) {
        g->row[j] *= energy > 0 ? dot / energy : 0;
    }
    return fl_attack_psnr(s, g->truth, g->row, d->in);
}

int fl_attack_invert(struct fl_attack *a, const struct fl_attack_dense *d, uint32_t pictures,
                     double factor, struct fl_inversion *ret, struct fl_err *e)
{
    struct fl_inversion sum = {.pictures = pictures, .gain = -DB_MAX};
    struct guesses g;
    int r = make_room(&g, a, d, e);

    for (uint32_t i = 0; r == 0 && i < pictures; i++) {
        const struct fl_attack_batch batch = {g.x, g.y, 1};
        struct fl_attack_scale scale;
        uint32_t class_ = i % fl_attack_classes(a);
        double grey, psnr;
        fl_attack_picture(a, class_, g.x);
        fl_attack_goal(a, class_, g.y);
        r = fl_attack_release(a, &batch, factor, d->range, d->range_count, g.seen, e);
        r = r ? r : fl_attack_gather(a, d, g.seen, g.weight, g.bias, e);
        /* theta has moved meanwhile */
        r = r ? r : fl_param_make(a->l, a->shared, a->private_, a->theta, e);
        r = r ? r : fl_attack_truth(a, d, g.x, g.y, g.truth, g.flow, e);
        if (r) {
            break;
        }
        combine(d, &g);
        fl_attack_scale_of(a, d->direct, g.truth, d->in, &scale);
        grey = fl_attack_psnr(&scale, g.truth, NULL, d->in);
        psnr = fmax(fl_attack_psnr(&scale, g.truth, g.guess, d->in),
                    fl_attack_psnr(&scale, g.truth, g.row, d->in));
        sum.psnr += psnr / pictures;
        sum.grey += grey / pictures;
        sum.limit += limit_of(d, &g, g.flow, &scale) / pictures;
        sum.gain = fmax(sum.gain, psnr - grey);
    }
    free_room(&g);
    if (r == 0) {
        *ret = sum;
    }
    return r;
}
