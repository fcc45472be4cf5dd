/*
 * Low-rank factors: a matrix of theta, rows x columns, is
 *
 *     theta = base + U diag(c) V          U: rows x r,  V: r x columns,  c: r, or all ones
 *     dU = G V^T diag(c)    dV = diag(c) U^T G    dc_k = u_k^T G v_k    dbase = G
 *
 * Which part is whose makes four kinds of it:
 *
 *     low_rank      U, V shared; the rank bounds what travels
 *     adapter       U, V private beside a shared or frozen base (LoRA, Hu et al. 2021, as a
 *                   personal adapter)
 *     sparse_rank   U, V shared, c private: sites share the directions and choose among them
 *                   (S2-LoRA). After a step c moves towards zero by lr * sparsity and stops there,
 *                   the proximal step of an L1 penalty, so unused directions become exactly zero
 *     tied          U, V shared, one for each layer; the base is one for all layers of the rule
 *                   (relaxed recursive transformers, Bae et al. 2024); matrices of another shape
 *                   have a base of their own
 *
 * With a base, U starts at zero, as LoRA's does, so theta starts as the base. Without one the
 * product starts with the variance 1/(3 fan_in) of a layer's usual start.
 *
 * Everything is made of dot products and scaled additions along rows of V: the factors are thin, so
 * a product with them is a few passes over theta, and no room beside the vectors is needed.
 */
#include "common/math/vec.h"
#include "common/nn/param/make.h"

#include <math.h>
#include <string.h>

/* ---- parts ---- */

static int place_base(struct fl_layout *layout, struct fl_made *m, const char *suffix, bool frozen,
                      struct fl_err *e)
{
    const struct fl_tensor *t = &layout->theta.at[m->tensor];
    struct fl_part_conf c = {.place = FL_PLACE_BASE,
                             .suffix = suffix,
                             .private_ = frozen,
                             .fixed = frozen,
                             .rank = 2,
                             .shape = {(uint32_t)m->rows, (uint32_t)m->columns},
                             .init = t->init};

    return fl_part_add(layout, m, &c, e);
}

static int place_factors(struct fl_layout *layout, struct fl_made *m, bool private_, bool based,
                         struct fl_err *e)
{
    const struct fl_layer *l = &layout->spec.layers[m->layer];
    uint32_t rank = l->make.rank;
    double fan_in = layout->theta.at[m->tensor].fan_in;
    struct fl_part_conf up = {.place = FL_PLACE_UP,
                              .suffix = "up",
                              .private_ = private_,
                              .rank = 2,
                              .shape = {(uint32_t)m->rows, rank},
                              .init = based ? FL_INIT_ZERO : FL_INIT_UNIFORM,
                              .spread = sqrt(3.0 / rank)},
                        down = {.place = FL_PLACE_DOWN,
                                .suffix = "down",
                                .private_ = private_,
                                .rank = 2,
                                .shape = {rank, (uint32_t)m->columns},
                                .init = FL_INIT_UNIFORM,
                                .spread = 1 / sqrt(fan_in)};
    int r;

    if (rank == 0 || rank > m->rows || rank > m->columns) {
        return fl_make_refuse(e, l, "the rank is at least 1 and at most the matrix's smaller side");
    }
    (void)((r = fl_part_add(layout, m, &up, e)) < 0 || (r = fl_part_add(layout, m, &down, e)) < 0);
    return r;
}

static int place_based(struct fl_layout *layout, struct fl_made *m, bool private_, struct fl_err *e)
{
    enum fl_make_base base = layout->spec.layers[m->layer].make.base;
    int r = base == FL_BASE_NONE ? 0 : place_base(layout, m, "base", base == FL_BASE_FROZEN, e);

    return r < 0 ? r : place_factors(layout, m, private_, base != FL_BASE_NONE, e);
}

static int place_low_rank(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    return place_based(layout, m, false, e);
}

static int place_adapter(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    const struct fl_layer *l = &layout->spec.layers[m->layer];

    if (l->make.base == FL_BASE_NONE) {
        return fl_make_refuse(e, l, "a personal adapter stands beside a base: shared or frozen");
    }
    return place_based(layout, m, true, e);
}

static int place_sparse(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    struct fl_part_conf mix = {.place = FL_PLACE_MIX,
                               .suffix = "mix",
                               .private_ = true,
                               .rank = 1,
                               .shape = {layout->spec.layers[m->layer].make.rank},
                               .init = FL_INIT_ONE};
    int r = place_based(layout, m, false, e);

    return r < 0 ? r : fl_part_add(layout, m, &mix, e);
}

static int place_tied(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    const struct fl_layer *l = &layout->spec.layers[m->layer];
    const struct fl_made *first = fl_made_first(layout, m, FL_PLACE_BASE, false);
    int r = 0;

    if (first) {
        m->at[FL_PLACE_BASE] = first->at[FL_PLACE_BASE];
    } else {
        r = place_base(layout, m, "tied", false, e);
    }
    return r < 0 || l->make.rank == 0 ? r : place_factors(layout, m, false, true, e);
}

/* ---- theta and back ---- */

static void make(const struct fl_parts *p, float *theta)
{
    const float *base = fl_part(p, FL_PLACE_BASE), *up = fl_part(p, FL_PLACE_UP);
    const float *down = fl_part(p, FL_PLACE_DOWN), *mix = fl_part(p, FL_PLACE_MIX);
    size_t rows = p->m->rows, n = p->m->columns, rank = up ? fl_rule_of(p)->rank : 0;

    for (size_t i = 0; i < rows; i++) {
        float *row = theta + i * n;
        if (base) {
            memcpy(row, base + i * n, n * sizeof *row);
        } else {
            memset(row, 0, n * sizeof *row);
        }
        for (size_t k = 0; k < rank; k++) {
            fl_vec_axpy(up[i * rank + k] * (mix ? mix[k] : 1), down + k * n, row, n);
        }
    }
}

static void pull(const struct fl_parts *p, const float *grad, float *to_shared, float *to_private)
{
    const float *up = fl_part(p, FL_PLACE_UP), *down = fl_part(p, FL_PLACE_DOWN);
    const float *mix = fl_part(p, FL_PLACE_MIX);
    float *base = fl_part_grad(p, FL_PLACE_BASE, to_shared, to_private);
    float *g_up = fl_part_grad(p, FL_PLACE_UP, to_shared, to_private);
    float *g_down = fl_part_grad(p, FL_PLACE_DOWN, to_shared, to_private);
    float *g_mix = fl_part_grad(p, FL_PLACE_MIX, to_shared, to_private);
    size_t rows = p->m->rows, n = p->m->columns, rank = up ? fl_rule_of(p)->rank : 0;

    if (base) {
        fl_vec_axpy(1, grad, base, rows * n);
    }
    for (size_t i = 0; i < rows; i++) {
        const float *row = grad + i * n;
        for (size_t k = 0; k < rank; k++) {
            float c = mix ? mix[k] : 1, u = up[i * rank + k];
            float along = (float)fl_vec_dot(row, down + k * n, n);
            g_up[i * rank + k] += c * along;
            fl_vec_axpy(c * u, row, g_down + k * n, n);
            if (g_mix) {
                g_mix[k] += u * along;
            }
        }
    }
}

static void settle(const struct fl_parts *p, float lr, float *private_)
{
    float *mix = fl_part_grad(p, FL_PLACE_MIX, NULL, private_);
    float by = lr * fl_rule_of(p)->sparsity;

    for (uint32_t k = 0; k < fl_rule_of(p)->rank; k++) {
        float size = fabsf(mix[k]) - by;
        mix[k] = size > 0 ? copysignf(size, mix[k]) : 0;
    }
}

const struct fl_make_ops fl_make_low_rank = {
    .word = "low_rank", .place = place_low_rank, .make = make, .pull = pull};
const struct fl_make_ops fl_make_adapter = {
    .word = "adapter", .place = place_adapter, .make = make, .pull = pull};
const struct fl_make_ops fl_make_sparse_rank = {
    .word = "sparse_rank", .place = place_sparse, .make = make, .pull = pull, .settle = settle};
const struct fl_make_ops fl_make_tied = {
    .word = "tied", .place = place_tied, .make = make, .pull = pull};
