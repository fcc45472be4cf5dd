/* Rules in general: which kinds there are, and where their parts are put. */
#include "common/nn/param/make.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct fl_make_ops *const kinds[FL_MAKE_KINDS] = {
    [FL_MAKE_LOW_RANK] = &fl_make_low_rank,       [FL_MAKE_ADAPTER] = &fl_make_adapter,
    [FL_MAKE_SPARSE_RANK] = &fl_make_sparse_rank, [FL_MAKE_ATOMS] = &fl_make_atoms,
    [FL_MAKE_HASHED] = &fl_make_hashed,           [FL_MAKE_TIED] = &fl_make_tied,
    [FL_MAKE_NESTED] = &fl_make_nested,
};

const struct fl_make_ops *fl_make_ops_of(enum fl_make_kind kind)
{
    return kinds[kind];
}

int fl_make_refuse(struct fl_err *e, const struct fl_layer *l, const char *what)
{
    if (l->make.line) {
        return fl_fail(e, FL_R_PLAN_MODEL, "parameters (line %u): layer %s: %s", l->make.line,
                       l->name, what);
    }
    return fl_fail(e, FL_R_PLAN_MODEL, "parameters: layer %s: %s", l->name, what);
}

int fl_part_add(struct fl_layout *layout, struct fl_made *m, const struct fl_part_conf *c,
                struct fl_err *e)
{
    const struct fl_tensor *whole = &layout->theta.at[m->tensor];
    struct fl_tensors *to = c->private_ ? &layout->private_ : &layout->shared;
    char name[FL_SPEC_NAME_MAX];

    snprintf(name, sizeof name, "%.54s.%.8s", whole->name, c->suffix);
    int r = fl_tensors_add(to, c->private_ ? FL_GROUP_PRIVATE : FL_GROUP_SHARED, whole->fan_in,
                           c->rank, c->shape, name, e);
    if (r < 0) {
        return r;
    }
    struct fl_tensor *t = &to->at[to->count - 1];
    t->init = c->init;
    t->spread = (float)c->spread;
    t->part = true;
    t->fixed = c->fixed;
    m->at[c->place] =
        (struct fl_place){.tensor = to->count - 1, .used = true, .private_ = c->private_};
    return 0;
}

const struct fl_made *fl_made_first(const struct fl_layout *layout, const struct fl_made *m,
                                    int place, bool any_shape)
{
    uint32_t rule = layout->spec.layers[m->layer].make.rule;

    for (const struct fl_made *k = layout->made; k < m; k++) {
        if (layout->spec.layers[k->layer].make.rule == rule && k->at[place].used &&
            (any_shape || (k->rows == m->rows && k->columns == m->columns))) {
            return k;
        }
    }
    return NULL;
}

int fl_make_place(struct fl_layout *layout, struct fl_err *e)
{
    int r = 0;

    for (uint32_t i = 0; i < layout->made_count && r == 0; i++) {
        r = kinds[layout->made[i].kind]->place(layout, &layout->made[i], e);
    }
    return r;
}

const struct fl_made *fl_made_of(const struct fl_layout *layout, uint32_t i)
{
    for (uint32_t k = 0; k < layout->made_count; k++) {
        if (layout->made[k].tensor == i) {
            return &layout->made[k];
        }
    }
    return NULL;
}

bool fl_is_generated(const struct fl_layout *layout, uint32_t i)
{
    return layout->theta.at[i].group == FL_GROUP_GENERATED && !fl_made_of(layout, i);
}
