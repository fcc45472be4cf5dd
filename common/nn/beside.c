/*
 * Tensors beside the network's own: what a strategy keeps at a site, or sends with the model. They
 * stand behind everything the network and its generator need, and begin as zeros, so that "nothing
 * yet" needs no file and no seed.
 */
#include "common/nn/param/make.h"
#include "common/nn/spec.h"

#include <stdio.h>
#include <string.h>

int fl_layout_tensor(struct fl_layout *layout, enum fl_group group, bool serving, const char *name,
                     uint32_t rank, const uint32_t *shape, struct fl_err *e)
{
    struct fl_tensors *to = group == FL_GROUP_PRIVATE ? &layout->private_ : &layout->shared;

    for (uint32_t i = 0; i < to->count; i++) {
        if (strcmp(to->at[i].name, name) == 0) {
            return fl_fail(e, FL_R_PLAN_MODEL,
                           "the strategy keeps a tensor %s, and the model has one of that name",
                           name);
        }
    }
    int r = fl_tensors_add(to, group, 1, rank, shape, name, e);
    if (r == 0) {
        to->at[to->count - 1].init = FL_INIT_ZERO;
        to->at[to->count - 1].serving = serving;
    }
    return r;
}

int fl_layout_beside(struct fl_layout *layout, enum fl_group group, bool serving,
                     const char *prefix, uint32_t first, struct fl_err *e)
{
    char name[FL_SPEC_NAME_MAX];
    int r = 0;

    for (uint32_t i = first; r == 0 && i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        int n = snprintf(name, sizeof name, "%s.%s", prefix, t->name);
        if (n < 0 || (size_t)n >= sizeof name) {
            return fl_fail(e, FL_R_PLAN_MODEL, "the name %s is too long to stand behind %s",
                           t->name, prefix);
        }
        r = fl_layout_tensor(layout, group, serving, name, t->rank, t->shape, e);
    }
    return r;
}

size_t fl_layout_found(const struct fl_tensors *in, const char *prefix)
{
    size_t n = strlen(prefix);

    for (uint32_t i = 0; i < in->count; i++) {
        const char *name = in->at[i].name;
        if (strncmp(name, prefix, n) == 0 && (name[n] == 0 || name[n] == '.')) {
            return in->at[i].offset;
        }
    }
    return SIZE_MAX;
}
