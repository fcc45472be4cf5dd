/*
 * Shared atoms, private mixing (matrix atom sharing): matrices of one shape, of all layers of a
 * rule, are weighted sums of the same K atoms,
 *
 *     theta_l = sum_k c_lk A_k            A_k: like theta_l, shared     c_l: K numbers, private
 *     dA_k = sum_l c_lk G_l               dc_lk = <G_l, A_k>
 *
 * With fewer atoms than layers less travels than the layers hold; with more, sites differ in more
 * ways. Coefficients start as N(0, 1/K), the same at all sites but not in all layers, and atoms
 * with the variance of a layer's usual start, so theta starts with it too.
 */
#include "common/math/vec.h"
#include "common/nn/param/make.h"

#include <math.h>
#include <string.h>

static int place(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    const struct fl_layer *l = &layout->spec.layers[m->layer];
    const struct fl_tensor *t = &layout->theta.at[m->tensor];
    const struct fl_made *first = fl_made_first(layout, m, FL_PLACE_BASE, false);
    uint32_t count = l->make.atoms;
    struct fl_part_conf atoms = {.place = FL_PLACE_BASE,
                                 .suffix = "atoms",
                                 .rank = 2,
                                 .shape = {count, (uint32_t)t->count},
                                 .init = FL_INIT_UNIFORM,
                                 .spread = 1 / sqrt(t->fan_in)},
                        mix = {.place = FL_PLACE_MIX,
                               .suffix = "mix",
                               .private_ = true,
                               .rank = 1,
                               .shape = {count},
                               .init = FL_INIT_GAUSS,
                               .spread = 1 / sqrt(count ? count : 1)};
    int r = 0;

    if (count == 0) {
        return fl_make_refuse(e, l, "atoms is missing: how many there are");
    }
    if (first) {
        m->at[FL_PLACE_BASE] = first->at[FL_PLACE_BASE];
    } else {
        r = fl_part_add(layout, m, &atoms, e);
    }
    return r < 0 ? r : fl_part_add(layout, m, &mix, e);
}

static void make(const struct fl_parts *p, float *theta)
{
    const float *atoms = fl_part(p, FL_PLACE_BASE), *mix = fl_part(p, FL_PLACE_MIX);
    size_t n = p->m->rows * p->m->columns;

    memset(theta, 0, n * sizeof *theta);
    for (size_t k = 0; k < fl_rule_of(p)->atoms; k++) {
        fl_vec_axpy(mix[k], atoms + k * n, theta, n);
    }
}

static void pull(const struct fl_parts *p, const float *grad, float *to_shared, float *to_private)
{
    const float *atoms = fl_part(p, FL_PLACE_BASE), *mix = fl_part(p, FL_PLACE_MIX);
    float *g_atoms = fl_part_grad(p, FL_PLACE_BASE, to_shared, to_private);
    float *g_mix = fl_part_grad(p, FL_PLACE_MIX, to_shared, to_private);
    size_t n = p->m->rows * p->m->columns;

    for (size_t k = 0; k < fl_rule_of(p)->atoms; k++) {
        fl_vec_axpy(mix[k], grad, g_atoms + k * n, n);
        g_mix[k] += (float)fl_vec_dot(atoms + k * n, grad, n);
    }
}

const struct fl_make_ops fl_make_atoms = {
    .word = "atoms", .place = place, .make = make, .pull = pull};
