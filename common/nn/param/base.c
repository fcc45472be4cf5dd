/*
 * A frozen base from a file: pre-trained weights that no site's examples are in. Frozen tensors are
 * named in the file as in the network ("conv1.weight"), whether they are frozen as they are or the
 * base of an adapter; what else is in the file is left alone.
 */
#include "common/math/vec.h"
#include "common/nn/param/param.h"

#include <stdio.h>
#include <string.h>

bool fl_param_is_frozen(const struct fl_tensor *t)
{
    return t->fixed && strcmp(t->name, "width") != 0;
}

uint32_t fl_param_frozen(const struct fl_layout *layout)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < layout->private_.count; i++) {
        n += fl_param_is_frozen(&layout->private_.at[i]);
    }
    return n;
}

static int take(const struct fl_layout *layout, const struct fl_tensor *t,
                const struct fl_tensor_file *f, float *to, struct fl_err *e)
{
    char name[FL_SPEC_NAME_MAX];
    size_t length = strlen(t->name);

    snprintf(name, sizeof name, "%s", t->name);
    if (t->part && length > 5) {
        name[length - 5] = 0; /* ".base" */
    }
    const struct fl_tensor *whole = fl_tensors_find(&layout->theta, name);
    const struct fl_tensor *stored = fl_tensors_find(&f->table, name);
    if (!stored) {
        return fl_fail(e, FL_R_TENSORS, "there is no tensor %s, which the job freezes", name);
    }
    if (!whole || stored->rank != whole->rank ||
        memcmp(stored->shape, whole->shape, whole->rank * sizeof whole->shape[0]) != 0) {
        return fl_fail(e, FL_R_TENSORS, "tensor %s has another shape than the job's", name);
    }
    fl_tensor_file_get(f, stored, to);
    return fl_vec_finite(to, t->count)
               ? 0
               : fl_fail(e, FL_R_TENSORS, "tensor %s has values that are not finite", name);
}

int fl_param_base(const struct fl_layout *layout, const struct fl_tensor_file *f, float *private_,
                  struct fl_err *e)
{
    int r = 0;

    for (uint32_t i = 0; i < layout->private_.count && r == 0; i++) {
        const struct fl_tensor *t = &layout->private_.at[i];
        r = fl_param_is_frozen(t) ? take(layout, t, f, private_ + t->offset, e) : 0;
    }
    return r;
}
