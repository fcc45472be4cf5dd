/*
 * Hashed sharing (Stable-RPS, Desai and Shrivastava 2024): all matrices of a rule draw
 * their elements from one shared memory of m values,
 *
 *     theta_i = scale_l sign(i) memory[slot(i)]          d slots wanted, m = ceil(d / ratio) stored
 *
 * i counts through the rule's matrices as if they were one vector. It is cut into runs of m
 * elements; each run is laid over the whole memory, turned by an offset of its own, so that every
 * value is used as often as any other, and with ratio 1 the memory is the vector itself. The signs
 * are pseudo-random from the second run on: runs do not add up to a common mean.
 *
 * scale_l = 1/sqrt(3 fan_in) of the layer: the memory starts with unit variance, and each layer
 * with that of its usual start.
 *
 *     dmemory_j = sum over i with slot(i) = j of scale_l sign(i) g_i
 *
 * A plain step on the memory would move a layer by scale^2 of what it moves on its own, some
 * thousand times less for wide layers. Hence, as in the paper, gradients are scaled before a step:
 * by 1 over the mean of sum(scale^2) of a slot, so that theta moves about as it would on its own.
 * The factor depends on the layout alone.
 */
#include "common/math/vec.h"
#include "common/nn/param/make.h"

#include <math.h>

static uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The next elements, from number i on, as far as they lie side by side in the memory: where, and
 * how many. */
static size_t stretch(size_t i, size_t m, size_t left, size_t *ret_slot)
{
    size_t run = i / m, turn = run ? (size_t)(mix64(run) % m) : 0;
    size_t in_run = m - i % m, at = i % m + turn;

    *ret_slot = at < m ? at : at - m;
    size_t to_edge = m - *ret_slot, n = left < in_run ? left : in_run;
    return n < to_edge ? n : to_edge;
}

static float sign_of(size_t i, size_t m)
{
    return i >= m && (mix64(~(uint64_t)i) & 1) ? -1.0f : 1.0f;
}

static double scale_of(const struct fl_layout *layout, const struct fl_made *m)
{
    return 1 / sqrt(3.0 * layout->theta.at[m->tensor].fan_in);
}

static bool same_rule(const struct fl_layout *layout, const struct fl_made *a,
                      const struct fl_made *b)
{
    return layout->spec.layers[a->layer].make.rule == layout->spec.layers[b->layer].make.rule;
}

static int place(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    const struct fl_layer *l = &layout->spec.layers[m->layer];
    const struct fl_made *first = fl_made_first(layout, m, FL_PLACE_BASE, true);
    size_t total = 0;

    for (uint32_t k = 0; k < layout->made_count; k++) {
        const struct fl_made *other = &layout->made[k];
        if (same_rule(layout, m, other)) {
            m->first += other < m ? other->rows * other->columns : 0;
            total += other->rows * other->columns;
        }
    }
    if (l->make.ratio == 0 || l->make.ratio > total) {
        return fl_make_refuse(e, l, "ratio is 1 to the number of elements");
    }
    if (first) {
        m->at[FL_PLACE_BASE] = first->at[FL_PLACE_BASE];
        return 0;
    }
    struct fl_part_conf memory = {.place = FL_PLACE_BASE,
                                  .suffix = "memory",
                                  .rank = 1,
                                  .shape = {(uint32_t)((total - 1) / l->make.ratio + 1)},
                                  .init = FL_INIT_UNIFORM,
                                  .spread = sqrt(3)};
    return fl_part_add(layout, m, &memory, e);
}

static void make(const struct fl_parts *p, float *theta)
{
    const float *memory = fl_part(p, FL_PLACE_BASE);
    size_t m = fl_part_tensor(p->layout, &p->m->at[FL_PLACE_BASE])->count;
    size_t count = p->m->rows * p->m->columns, at;
    float scale = (float)scale_of(p->layout, p->m);

    for (size_t i = 0, n; i < count; i += n) {
        n = stretch(p->m->first + i, m, count - i, &at);
        for (size_t k = 0; k < n; k++) {
            theta[i + k] = scale * sign_of(p->m->first + i + k, m) * memory[at + k];
        }
    }
}

static void pull(const struct fl_parts *p, const float *grad, float *to_shared, float *to_private)
{
    float *memory = fl_part_grad(p, FL_PLACE_BASE, to_shared, to_private);
    size_t m = fl_part_tensor(p->layout, &p->m->at[FL_PLACE_BASE])->count;
    size_t count = p->m->rows * p->m->columns, at;
    float scale = (float)scale_of(p->layout, p->m);

    for (size_t i = 0, n; i < count; i += n) {
        n = stretch(p->m->first + i, m, count - i, &at);
        for (size_t k = 0; k < n; k++) {
            memory[at + k] += scale * sign_of(p->m->first + i + k, m) * grad[i + k];
        }
    }
}

/* 1 / the mean over slots of sum(scale^2). */
static void temper(const struct fl_parts *p, float *to_shared)
{
    size_t m = fl_part_tensor(p->layout, &p->m->at[FL_PLACE_BASE])->count;
    double sum = 0;

    if (p->m->first > 0) {
        return; /* one memory, once */
    }
    for (uint32_t k = 0; k < p->layout->made_count; k++) {
        const struct fl_made *other = &p->layout->made[k];
        if (same_rule(p->layout, p->m, other)) {
            double s = scale_of(p->layout, other);
            sum += s * s * (double)(other->rows * other->columns);
        }
    }
    float *memory = fl_part_grad(p, FL_PLACE_BASE, to_shared, NULL);
    fl_vec_scale((float)((double)m / sum), memory, memory, m);
}

const struct fl_make_ops fl_make_hashed = {
    .word = "hashed", .place = place, .make = make, .pull = pull, .temper = temper};
