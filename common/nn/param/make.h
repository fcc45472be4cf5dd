/*
 * Rules: kinds of parameterizations that make one tensor of theta at a time out of parts (the
 * hypernetworks, which make all of theirs together, are in generator.h). For common/nn only.
 *
 * A kind is a file with these functions. `place` decides which parts there are; `make` is the
 * definition; `pull` is its derivative, added to what is in gradient vectors that look like
 * `shared` and `private_`; `settle` is what follows a step. All are functions of their arguments
 * alone: given a noised gradient at theta, whatever they compute is post-processing of it.
 */
#ifndef FL_NN_PARAM_MAKE_H
#define FL_NN_PARAM_MAKE_H

#include "common/nn/spec.h"

struct fl_parts {
    const struct fl_layout *layout;
    const struct fl_made *m;
    const float *shared, *private_;
};

struct fl_make_ops {
    const char *word;
    int (*place)(struct fl_layout *layout, struct fl_made *m, struct fl_err *e);
    void (*make)(const struct fl_parts *p, float *theta);
    void (*pull)(const struct fl_parts *p, const float *grad, float *to_shared, float *to_private);
    /* Between pull and the step: scales gradients of parts by a constant. NULL: nothing. */
    void (*temper)(const struct fl_parts *p, float *to_shared);
    void (*settle)(const struct fl_parts *p, float lr, float *private_); /* NULL: nothing */
};

extern const struct fl_make_ops fl_make_low_rank, fl_make_adapter, fl_make_sparse_rank,
    fl_make_atoms, fl_make_hashed, fl_make_tied, fl_make_nested;

/* NULL for kinds that store tensors as they are. */
const struct fl_make_ops *fl_make_ops_of(enum fl_make_kind kind);

/* ---- while a layout is being made ---- */

int fl_tensors_add(struct fl_tensors *to, enum fl_group group, uint32_t fan_in, uint32_t rank,
                   const uint32_t *shape, const char *name, struct fl_err *e);
/* Parts of everything in layout->made. */
int fl_make_place(struct fl_layout *layout, struct fl_err *e);
/* "model.parameters (line 12): layer fc1: ..." */
int fl_make_refuse(struct fl_err *e, const struct fl_layer *l, const char *what);

/* One part: a tensor named "<tensor>.<suffix>" of `private_` or `shared`. rank 1 or 2. */
struct fl_part_conf {
    int place;
    const char *suffix;
    bool private_, fixed;
    uint32_t rank, shape[2];
    enum fl_init init;
    double spread;
};
int fl_part_add(struct fl_layout *layout, struct fl_made *m, const struct fl_part_conf *c,
                struct fl_err *e);
/* The first tensor before m that the same rule makes with as many rows and columns, and that has
 * this part; NULL = m is the first. any_shape: whatever its rows and columns are. */
const struct fl_made *fl_made_first(const struct fl_layout *layout, const struct fl_made *m,
                                    int place, bool any_shape);

/* ---- ever after ---- */

/* NULL when theta's tensor `i` is not made by a rule. */
const struct fl_made *fl_made_of(const struct fl_layout *layout, uint32_t i);
/* Whether the hypernetwork makes it. */
bool fl_is_generated(const struct fl_layout *layout, uint32_t i);

static inline const struct fl_make *fl_rule_of(const struct fl_parts *p)
{
    return &p->layout->spec.layers[p->m->layer].make;
}
static inline const struct fl_tensor *fl_part_tensor(const struct fl_layout *l,
                                                     const struct fl_place *at)
{
    return at->private_ ? &l->private_.at[at->tensor] : &l->shared.at[at->tensor];
}
/* Where a part stands in a pair of vectors; NULL when there is none. */
static inline const float *fl_part(const struct fl_parts *p, int place)
{
    const struct fl_place *at = &p->m->at[place];
    return at->used
               ? (at->private_ ? p->private_ : p->shared) + fl_part_tensor(p->layout, at)->offset
               : NULL;
}
/* The same of gradients; NULL also for what is not trained. */
static inline float *fl_part_grad(const struct fl_parts *p, int place, float *shared,
                                  float *private_)
{
    const struct fl_place *at = &p->m->at[place];
    if (!at->used || fl_part_tensor(p->layout, at)->fixed) {
        return NULL;
    }
    return (at->private_ ? private_ : shared) + fl_part_tensor(p->layout, at)->offset;
}

/* nested: how many rows and columns this site trains. */
void fl_nested_cut(const struct fl_parts *p, size_t *ret_rows, size_t *ret_columns);

#endif
