/*
 * Nested widths (SortedNet; HeteroFL): a layer's units are in an order of use, and a weak site
 * works with the first ceil(width * units) of them, 0 < width <= 1, a word of the site's own
 * configuration. The smaller network is the larger one with zeros: rows of units that are left out
 * are zero, so such a unit's output is zero before and after its activation, and the columns of the
 * next layer that would read it have no effect and no gradient. They are cut too, so that weight
 * decay does not move them: what a site releases is exactly zero outside of its prefix.
 *
 *     theta_ij = W_ij for i < rows kept, j < columns kept; 0 elsewhere          W shared
 *
 * Between such a layer and the next one with weights there may only be what keeps zeros zero. The
 * mean at the coordinator is over all members: a unit that few sites hold moves as much slower.
 */
#include "common/nn/param/make.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The nested layer whose units are the columns of layer `at`; -1 = none. */
static int source_of(const struct fl_layout *layout, uint32_t at)
{
    for (uint32_t i = at; i-- > 0;) {
        if (layout->spec.layers[i].weight >= 0) {
            return layout->spec.layers[i].make.kind == FL_MAKE_NESTED ? (int)i : -1;
        }
    }
    return -1;
}

static bool keeps_zero(enum fl_layer_kind kind)
{
    return kind == FL_LAYER_MAX_POOL || kind == FL_LAYER_LEAKY_RELU || kind == FL_LAYER_FLATTEN ||
           kind == FL_LAYER_GELU || kind == FL_LAYER_TANH || kind == FL_LAYER_AVG_POOL ||
           kind == FL_LAYER_GLOBAL_POOL || kind == FL_LAYER_DROPOUT;
}

static int check(const struct fl_layout *layout, const struct fl_made *m, struct fl_err *e)
{
    const struct fl_spec *spec = &layout->spec;
    const struct fl_layer *l = &spec->layers[m->layer], *next;

    if (l->make.columns_only) {
        return 0;
    }
    if (l->kind != FL_LAYER_LINEAR && l->kind != FL_LAYER_CONV2D) {
        return fl_make_refuse(e, l, "nested widths are for linear and conv2d layers");
    }
    for (uint32_t i = m->layer + 1; i < spec->layer_count; i++) {
        next = &spec->layers[i];
        if (next->kind == FL_LAYER_LINEAR || next->kind == FL_LAYER_CONV2D) {
            enum fl_make_kind k = next->make.kind;
            return k == FL_MAKE_NESTED || k == FL_MAKE_FROZEN || k == FL_MAKE_STRATEGY
                       ? 0
                       : fl_make_refuse(e, next,
                                        "it follows a nested layer, whose units it must leave out "
                                        "as well: nested, frozen or no rule");
        }
        if (!keeps_zero(next->kind)) {
            return fl_make_refuse(e, l,
                                  "between a nested layer and the next one with weights only "
                                  "activations, pools and flatten keep left out units at zero");
        }
    }
    return fl_make_refuse(e, l, "the last layer cannot be nested: its outputs are the classes");
}

static int place(struct fl_layout *layout, struct fl_made *m, struct fl_err *e)
{
    const struct fl_tensor *t = &layout->theta.at[m->tensor];
    int source = source_of(layout, m->layer);
    struct fl_part_conf base = {.place = FL_PLACE_BASE,
                                .suffix = "all",
                                .rank = 2,
                                .shape = {(uint32_t)m->rows, (uint32_t)m->columns},
                                .init = t->init},
                        width = {.place = FL_PLACE_MIX,
                                 .suffix = "width",
                                 .private_ = true,
                                 .fixed = true,
                                 .rank = 1,
                                 .shape = {1},
                                 .init = FL_INIT_ONE};
    int r = check(layout, m, e);

    if (t->rank > 1 && source >= 0) {
        m->source = layout->spec.layers[source].out;
        m->unit = m->columns / m->source;
    }
    for (const struct fl_made *k = layout->made; k < m; k++) {
        if (k->kind == FL_MAKE_NESTED) {
            m->at[FL_PLACE_MIX] = k->at[FL_PLACE_MIX];
        }
    }
    if (r == 0 && !m->at[FL_PLACE_MIX].used && (r = fl_part_add(layout, m, &width, e)) == 0) {
        /* One for all layers of the network: the site has one width. */
        snprintf(layout->private_.at[layout->private_.count - 1].name, FL_SPEC_NAME_MAX, "width");
    }
    return r < 0 ? r : fl_part_add(layout, m, &base, e);
}

static size_t kept(float width, size_t units)
{
    double n = ceil((double)width * (double)units);

    return n >= 1 && n < (double)units ? (size_t)n : n < 1 ? 1 : units;
}

void fl_nested_cut(const struct fl_parts *p, size_t *ret_rows, size_t *ret_columns)
{
    float width = *fl_part(p, FL_PLACE_MIX);

    *ret_rows = fl_rule_of(p)->columns_only ? p->m->rows : kept(width, p->m->rows);
    *ret_columns = p->m->source ? kept(width, p->m->source) * p->m->unit : p->m->columns;
}

static void make(const struct fl_parts *p, float *theta)
{
    const float *base = fl_part(p, FL_PLACE_BASE);
    size_t rows, columns, n = p->m->columns;

    fl_nested_cut(p, &rows, &columns);
    memset(theta, 0, p->m->rows * n * sizeof *theta);
    for (size_t i = 0; i < rows; i++) {
        memcpy(theta + i * n, base + i * n, columns * sizeof *theta);
    }
}

static void pull(const struct fl_parts *p, const float *grad, float *to_shared, float *to_private)
{
    float *base = fl_part_grad(p, FL_PLACE_BASE, to_shared, to_private);
    size_t rows, columns, n = p->m->columns;

    fl_nested_cut(p, &rows, &columns);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            base[i * n + j] += grad[i * n + j];
        }
    }
}

const struct fl_make_ops fl_make_nested = {
    .word = "nested", .place = place, .make = make, .pull = pull};
