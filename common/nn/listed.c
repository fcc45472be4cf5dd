/*
 * A network that this engine does not compute: a trainer program does, and all there is to know
 * here is which tensors there are, which of them travel, and how they start.
 */
#include "common/nn/spec.h"

#include <string.h>

enum { ELEMENTS_MAX = 0x7fffffff };

static int append(struct fl_tensors *to, const struct fl_tensor *from, struct fl_err *e)
{
    struct fl_tensor *t = &to->at[to->count];

    for (uint32_t i = 0; i < to->count; i++) {
        if (strcmp(to->at[i].name, from->name) == 0) {
            return fl_fail(e, FL_R_PLAN_MODEL, "two tensors are named %s", from->name);
        }
    }
    *t = *from;
    t->count = 1;
    t->fan_in = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0 || t->shape[i] > ELEMENTS_MAX / t->count) {
            return fl_fail(e, FL_R_PLAN_MODEL, "tensor %s: no shape that is possible", t->name);
        }
        t->count *= t->shape[i];
        t->fan_in *= i ? t->shape[i] : 1;
    }
    t->offset = to->elements;
    to->elements += t->count;
    to->count++;
    return to->elements <= ELEMENTS_MAX
               ? 0
               : fl_fail(e, FL_R_PLAN_MODEL, "more than 2^31 values with tensor %s", t->name);
}

static enum fl_group group_of(const struct fl_tensor *t, enum fl_visibility v)
{
    switch (v) {
    case FL_VISIBILITY_ALL_SHARED:
        return FL_GROUP_SHARED;
    case FL_VISIBILITY_ALL_PRIVATE:
        return FL_GROUP_PRIVATE;
    default:
        return t->group;
    }
}

int fl_layout_listed(struct fl_layout *layout, const struct fl_spec *spec,
                     enum fl_visibility visibility, const struct fl_tensors *list, struct fl_err *e)
{
    int r = 0;

    memset(layout, 0, sizeof *layout);
    layout->spec = *spec;
    layout->visibility = visibility;
    if (visibility == FL_VISIBILITY_BODY_GENERATED) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "tensors that a program trains are not generated; use fedavg or fedrep");
    }
    for (uint32_t i = 0; r == 0 && i < list->count; i++) {
        struct fl_tensor t = list->at[i];
        t.group = group_of(&t, visibility);
        r = append(&layout->theta, &t, e);
        if (r == 0) {
            r = append(t.group == FL_GROUP_PRIVATE ? &layout->private_ : &layout->shared, &t, e);
        }
    }
    if (r == 0 &&
        (visibility == FL_VISIBILITY_HEAD_PRIVATE || visibility == FL_VISIBILITY_NORMS_PRIVATE) &&
        (layout->private_.count == 0 || layout->shared.count == 0)) {
        r = fl_fail(e, FL_R_PLAN_MODEL,
                    "this strategy needs tensors that are private and some that are not");
    }
    return r;
}
