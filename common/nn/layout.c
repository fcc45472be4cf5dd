/*
 * Which tensors there are, in which group, and where each stands in its flat vector: what a
 * strategy's word and a generator make of a network.
 */
#include "common/nn/kinds.h"
#include "common/nn/param/make.h"
#include "common/nn/ridge.h"
#include "common/nn/spec.h"

#include <stdio.h>
#include <string.h>

enum { ELEMENTS_MAX = 1 << 26 };
static const uint64_t VECTOR_MAX = (uint64_t)1 << 31;

/* ---- tensors and groups ---- */

int fl_tensors_add(struct fl_tensors *to, enum fl_group group, uint32_t fan_in, uint32_t rank,
                   const uint32_t *shape, const char *name, struct fl_err *e)
{
    uint64_t count = 1;

    if (to->count == FL_SPEC_TENSORS_MAX) {
        return fl_fail(e, FL_R_PLAN_MODEL, "more than %d tensors", FL_SPEC_TENSORS_MAX);
    }
    for (uint32_t k = 0; k < rank; k++) {
        count *= shape[k]; /* each factor < 2^32 and the product so far <= 2^31: no overflow */
        if (count == 0 || count > VECTOR_MAX) {
            return fl_fail(e, FL_R_PLAN_MODEL, "tensor %s: empty, or more than 2^31 elements",
                           name);
        }
    }
    if (to->elements + count > VECTOR_MAX) {
        return fl_fail(e, FL_R_PLAN_MODEL, "more than 2^31 elements at tensor %s", name);
    }
    struct fl_tensor *t = &to->at[to->count++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rank = rank;
    memcpy(t->shape, shape, rank * sizeof *shape);
    t->count = (size_t)count;
    t->offset = to->elements;
    t->group = group;
    t->fan_in = fan_in;
    to->elements += (size_t)count;
    return 0;
}

static enum fl_group group_of(const struct fl_layout *layout, const struct fl_kind *kind, bool head)
{
    if (fl_ridge_shared(layout)) {
        return FL_GROUP_GENERATED; /* made of moments */
    }
    if (layout->visibility == FL_VISIBILITY_NORMS_PRIVATE) {
        return kind->norm ? FL_GROUP_PRIVATE : FL_GROUP_SHARED;
    }
    if (layout->visibility == FL_VISIBILITY_ALL_PRIVATE ||
        (head && layout->visibility != FL_VISIBILITY_ALL_SHARED)) {
        return FL_GROUP_PRIVATE;
    }
    return layout->visibility == FL_VISIBILITY_BODY_GENERATED ? FL_GROUP_GENERATED
                                                              : FL_GROUP_SHARED;
}

/* One tensor of a layer with a rule: stored as it is, or to be made. */
static int add_ruled(struct fl_layout *layout, uint32_t layer, const struct fl_weight *w,
                     const char *name, struct fl_err *e)
{
    const struct fl_make *rule = &layout->spec.layers[layer].make;
    bool stored = rule->kind == FL_MAKE_PLAIN || rule->kind == FL_MAKE_FROZEN ||
                  (w->rank < 2 && rule->kind != FL_MAKE_NESTED);
    enum fl_group group = rule->kind == FL_MAKE_FROZEN ? FL_GROUP_PRIVATE
                          : stored                     ? FL_GROUP_SHARED
                                                       : FL_GROUP_GENERATED;
    struct fl_made *m = &layout->made[layout->made_count];
    int r = fl_tensors_add(&layout->theta, group, w->fan_in, w->rank, w->shape, name, e);

    if (r < 0) {
        return r;
    }
    struct fl_tensor *t = &layout->theta.at[layout->theta.count - 1];
    t->init = w->init;
    t->fixed = rule->kind == FL_MAKE_FROZEN;
    if (!stored) {
        layout->made_count++;
        *m = (struct fl_made){.kind = rule->kind,
                              .tensor = layout->theta.count - 1,
                              .layer = layer,
                              .rows = w->shape[0],
                              .columns = t->count / w->shape[0]};
    }
    layout->mixed = true;
    return 0;
}

static int add_layer(struct fl_layout *layout, uint32_t i, bool head, struct fl_err *e)
{
    const struct fl_layer *l = &layout->spec.layers[i];
    const struct fl_kind *kind = fl_kind_of(l->kind);
    struct fl_weight weights[FL_LAYER_TENSORS_MAX];
    enum fl_group group = group_of(layout, kind, head);
    int count = kind->weights ? kind->weights(l, weights) : 0;

    if (count && l->make.kind != FL_MAKE_STRATEGY && group == FL_GROUP_PRIVATE) {
        return fl_make_refuse(e, l, "it is private under this strategy: nothing of it is shared");
    }
    if (count && l->make.kind == FL_MAKE_STRATEGY && group == FL_GROUP_GENERATED &&
        !kind->generated) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "layer %s: a hypernetwork makes convolutions and linear layers; %s is not "
                       "one of them: give it a rule in model.parameters (plain, frozen), put it "
                       "into the head, or take another strategy",
                       l->name, kind->word);
    }
    for (int k = 0; k < count; k++) {
        const struct fl_weight *w = &weights[k];
        char name[FL_SPEC_NAME_MAX];
        int r;
        snprintf(name, sizeof name, "%.40s.%s", l->name, w->suffix);
        if (l->make.kind != FL_MAKE_STRATEGY) {
            r = add_ruled(layout, i, w, name, e);
        } else {
            r = fl_tensors_add(&layout->theta, group, w->fan_in, w->rank, w->shape, name, e);
        }
        if (r < 0) {
            return r;
        }
        layout->theta.at[layout->theta.count - 1].init = w->init;
        layout->theta.at[layout->theta.count - 1].buffer = w->buffer;
    }
    return 0;
}

/* A shared layer after a nested one is cut where it reads the units that are left out. */
static void follow_nested(struct fl_layout *layout)
{
    struct fl_spec *spec = &layout->spec;
    uint32_t head = fl_spec_head(spec);
    bool nested = false;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        struct fl_layer *l = &spec->layers[i];
        if (l->weight < 0) {
            continue;
        }
        bool whole = l->make.kind == FL_MAKE_NESTED;
        if (nested && l->make.kind == FL_MAKE_STRATEGY &&
            group_of(layout, fl_kind_of(l->kind), i >= head) == FL_GROUP_SHARED) {
            l->make.kind = FL_MAKE_NESTED;
            l->make.columns_only = true;
        }
        nested = whole;
    }
}

static int add_network(struct fl_layout *layout, struct fl_err *e)
{
    const struct fl_spec *spec = &layout->spec;
    uint32_t head = fl_spec_head(spec);
    int r = 0;

    follow_nested(layout);

    for (uint32_t i = 0; i < spec->layer_count && r == 0; i++) {
        r = add_layer(layout, i, i >= head, e);
    }
    return r;
}

/* The tensors of the network that are stored as they are, into the vector of their group. */
static int place_network(struct fl_layout *layout, struct fl_err *e)
{
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (t->group == FL_GROUP_GENERATED) {
            layout->generated += fl_made_of(layout, i) ? 0 : t->count;
            continue;
        }
        struct fl_tensors *to = t->group == FL_GROUP_SHARED ? &layout->shared : &layout->private_;
        int r = fl_tensors_add(to, t->group, t->fan_in, t->rank, t->shape, t->name, e);
        if (r < 0) {
            return r;
        }
        to->at[to->count - 1].init = t->init;
        to->at[to->count - 1].buffer = t->buffer;
        to->at[to->count - 1].fixed = t->fixed;
    }
    return 0;
}

/* d1 * d2 = count with d1 <= d2 as near to each other as can be: the factors of HyperFL++. */
static void kronecker_sides(size_t count, uint32_t side[2])
{
    size_t d = 1;

    for (size_t k = 1; k * k <= count; k++) {
        if (count % k == 0) {
            d = k;
        }
    }
    side[0] = (uint32_t)d;
    side[1] = (uint32_t)(count / d);
}

/* One suffix ("w", "b", "w1" ...) for every generated tensor. side: -1 = the whole tensor, 0 or 1 a
 * Kronecker factor; rows: 0 = a vector. */
static int add_heads(struct fl_layout *layout, const char *suffix, uint32_t rows, int side,
                     struct fl_err *e)
{
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (!fl_is_generated(layout, i)) {
            continue;
        }
        uint32_t sides[2], shape[2] = {rows, (uint32_t)t->count};
        if (side >= 0) {
            kronecker_sides(t->count, sides);
            shape[1] = sides[side];
        }
        char name[FL_SPEC_NAME_MAX];
        snprintf(name, sizeof name, "hyper.%.47s.%s", t->name, suffix);
        int r = fl_tensors_add(&layout->shared, FL_GROUP_SHARED, t->fan_in, rows ? 2 : 1,
                               rows ? shape : shape + 1, name, e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int add_matrix(struct fl_layout *layout, const char *name, uint32_t rows, uint32_t columns,
                      struct fl_err *e)
{
    uint32_t shape[2] = {rows, columns};

    return fl_tensors_add(&layout->shared, FL_GROUP_SHARED, columns, 2, shape, name, e);
}

static int add_vector(struct fl_layout *layout, const char *name, uint32_t count, uint32_t fan_in,
                      struct fl_err *e)
{
    return fl_tensors_add(&layout->shared, FL_GROUP_SHARED, fan_in, 1, &count, name, e);
}

/* What each kind of generator consists of, in this order; common/nn/param/ relies on it. */
static int add_generator(struct fl_layout *layout, struct fl_err *e)
{
    const struct fl_generator_conf *g = &layout->generator;
    uint32_t E = g->embedding, H = g->hidden;
    uint32_t chunks = g->kind == FL_GENERATOR_CHUNKED
                          ? (uint32_t)((layout->generated + g->chunk - 1) / g->chunk)
                          : 0;
    int r = add_matrix(layout, "hyper.hidden.weight", H, E, e);

    if (r == 0 && chunks) {
        r = add_matrix(layout, "hyper.hidden.chunk", H, E, e);
    }
    if (r == 0) {
        r = add_vector(layout, "hyper.hidden.bias", H, E, e);
    }
    if (r < 0) {
        return r;
    }
    switch (g->kind) {
    case FL_GENERATOR_AFFINE:
        (void)((r = add_heads(layout, "w", H, -1, e)) < 0 ||
               (r = add_heads(layout, "b", 0, -1, e)) < 0);
        break;
    case FL_GENERATOR_CHUNKED:
        (void)((r = add_matrix(layout, "hyper.chunks", chunks, E, e)) < 0 ||
               (r = add_matrix(layout, "hyper.chunk.w", H, g->chunk, e)) < 0 ||
               (r = add_vector(layout, "hyper.chunk.b", g->chunk, H, e)) < 0);
        break;
    case FL_GENERATOR_KRONECKER:
        (void)((r = add_heads(layout, "w1", H, 0, e)) < 0 ||
               (r = add_heads(layout, "w2", H, 1, e)) < 0 ||
               (r = add_heads(layout, "b1", 0, 0, e)) < 0 ||
               (r = add_heads(layout, "b2", 0, 1, e)) < 0);
        break;
    case FL_GENERATOR_NONE:
        break;
    }
    if (r < 0) {
        return r;
    }
    return fl_tensors_add(&layout->private_, FL_GROUP_PRIVATE, 1, 1, &E, "embedding", e);
}

static int check_generator(const struct fl_layout *layout, struct fl_err *e)
{
    const struct fl_generator_conf *g = &layout->generator;

    if (layout->visibility != FL_VISIBILITY_BODY_GENERATED) {
        return g->kind == FL_GENERATOR_NONE
                   ? 0
                   : fl_fail(e, FL_R_PLAN_MODEL,
                             "a generator, but this strategy generates nothing");
    }
    if (g->kind != FL_GENERATOR_AFFINE && g->kind != FL_GENERATOR_CHUNKED &&
        g->kind != FL_GENERATOR_KRONECKER) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "this strategy generates the body: it needs a generator");
    }
    if (g->embedding == 0 || g->embedding > 65536 || g->hidden == 0 || g->hidden > 65536) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a generator's embedding and hidden are 1 to 65536");
    }
    if (g->kind == FL_GENERATOR_CHUNKED && (g->chunk == 0 || g->chunk > ELEMENTS_MAX)) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a chunked generator's chunk is 1 to 2^26");
    }
    return 0;
}

/* A closed form is of one linear layer; where it is shared its inputs' moments travel. */
static int add_ridge(struct fl_layout *layout, struct fl_err *e)
{
    const struct fl_layer *last = &layout->spec.layers[layout->spec.layer_count - 1];
    uint32_t in = last->in_shape[0], out = last->out;
    uint32_t packed = (uint32_t)fl_ridge_packed(in), cross[2] = {out, in + 1};

    if (fl_spec_weighted(&layout->spec) != 1 || layout->mixed) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "a closed form is of one linear layer: no other layer may have weights, and "
                       "no rule may make them");
    }
    if (!fl_ridge_shared(layout)) {
        return 0;
    }
    if (in > FL_RIDGE_INPUTS_MAX) {
        return fl_fail(
            e, FL_R_PLAN_MODEL,
            "layer %s takes %u numbers: moments travel of at most %d (pool the features)",
            last->name, in, FL_RIDGE_INPUTS_MAX);
    }
    int r = fl_tensors_add(&layout->shared, FL_GROUP_SHARED, 1, 1, &packed, "moments.inputs", e);
    if (r == 0) {
        r = fl_tensors_add(&layout->shared, FL_GROUP_SHARED, 1, 2, cross, "moments.outputs", e);
    }
    for (uint32_t i = 0; r == 0 && i < layout->shared.count; i++) {
        layout->shared.at[i].init = FL_INIT_ZERO;
    }
    return r;
}

int fl_layout_init(struct fl_layout *layout, const struct fl_spec *spec,
                   enum fl_visibility visibility, const struct fl_generator_conf *generator,
                   struct fl_err *e)
{
    static const struct fl_generator_conf none = {.kind = FL_GENERATOR_NONE};
    int r;

    memset(layout, 0, sizeof *layout);
    layout->spec = *spec;
    layout->visibility = visibility;
    layout->generator = generator ? *generator : none;
    if ((r = check_generator(layout, e)) < 0 || (r = add_network(layout, e)) < 0) {
        return r;
    }
    if (visibility == FL_VISIBILITY_HEAD_PRIVATE || visibility == FL_VISIBILITY_BODY_GENERATED) {
        uint32_t weighted = fl_spec_weighted(spec);
        if (spec->head == 0 || spec->head >= weighted) {
            return fl_fail(e, FL_R_PLAN_MODEL,
                           "this strategy needs a head of 1 to %u layers, it has %u", weighted - 1,
                           spec->head);
        }
    }
    const struct fl_layer *together = fl_spec_together(spec);
    if (together && (layout->mixed || visibility == FL_VISIBILITY_BODY_GENERATED)) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "layer %s keeps running statistics, which rules of model.parameters and "
                       "hypernetworks do not move: use group_norm with them",
                       together->name);
    }
    if ((r = place_network(layout, e)) < 0 || (r = fl_make_place(layout, e)) < 0) {
        return r;
    }
    layout->own = layout->shared.count;
    if (visibility == FL_VISIBILITY_BODY_GENERATED && layout->generated == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "every layer of the body has a rule: nothing is left for the hypernetwork");
    }
    if (visibility == FL_VISIBILITY_NORMS_PRIVATE && layout->private_.count == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "this strategy keeps layers that normalise at home, and the model has none");
    }
    if (layout->mixed && layout->shared.elements == 0 && layout->generated == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "nothing is left that travels");
    }
    if (spec->ridge > 0 && (r = add_ridge(layout, e)) < 0) {
        return r;
    }
    return visibility == FL_VISIBILITY_BODY_GENERATED ? add_generator(layout, e) : 0;
}
