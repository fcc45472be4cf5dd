#include "common/nn/spec.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { ELEMENTS_MAX = 1 << 26, NAME_LENGTH_MAX = 40 };
static const uint64_t VECTOR_MAX = (uint64_t)1 << 31;

/* ---- names and shapes ---- */

static const char *kind_word(enum fl_layer_kind kind)
{
    switch (kind) {
    case FL_LAYER_CONV2D:
        return "conv";
    case FL_LAYER_MAX_POOL:
        return "pool";
    case FL_LAYER_LINEAR:
        return "fc";
    case FL_LAYER_LEAKY_RELU:
        return "relu";
    case FL_LAYER_FLATTEN:
        return "flatten";
    }
    return NULL;
}

static bool has_weights(const struct fl_layer *l)
{
    return l->kind == FL_LAYER_CONV2D || l->kind == FL_LAYER_LINEAR;
}

/* "layer fc1 (line 12): ..." */
static int refuse(struct fl_err *e, const struct fl_layer *l, const char *what)
{
    fl_fail(e, FL_R_PLAN_MODEL, "%s", what);
    if (l->line) {
        return fl_wrap(e, -FL_R_PLAN_MODEL, "layer %s (line %u)", l->name, l->line);
    }
    return fl_wrap(e, -FL_R_PLAN_MODEL, "layer %s", l->name);
}

static int check_name(struct fl_spec *spec, uint32_t i, struct fl_err *e)
{
    struct fl_layer *l = &spec->layers[i];
    uint32_t number = 1;

    if (!kind_word(l->kind)) {
        return fl_fail(e, FL_R_PLAN_MODEL, "layer number %u: unknown kind", i + 1);
    }
    if (!l->name[0]) {
        for (uint32_t k = 0; k < i; k++) {
            number += spec->layers[k].kind == l->kind;
        }
        snprintf(l->name, sizeof l->name, "%s%u", kind_word(l->kind), number);
    }
    size_t length = strnlen(l->name, sizeof l->name);
    if (length > NAME_LENGTH_MAX) {
        l->name[NAME_LENGTH_MAX] = 0;
        return refuse(e, l, "the name is longer than 40 characters");
    }
    for (size_t k = 0; k < length; k++) {
        unsigned char c = (unsigned char)l->name[k];
        if (!isalnum(c) && c != '_' && c != '-') {
            l->name[k] = '?';
            return refuse(e, l, "a name has letters, digits, '_' and '-' only");
        }
    }
    if (strcmp(l->name, "hyper") == 0 || strcmp(l->name, "embedding") == 0) {
        return refuse(e, l, "this name is taken by the generator");
    }
    for (uint32_t k = 0; k < i; k++) {
        if (strcmp(spec->layers[k].name, l->name) == 0) {
            return refuse(e, l, "two layers of this name");
        }
    }
    return 0;
}

static uint64_t elements(const uint32_t shape[3])
{
    return (uint64_t)shape[0] * shape[1] * shape[2];
}

/* One spatial side: how many places a window of `kernel` has. 0 = it does not fit. */
static uint32_t places(uint32_t side, uint32_t kernel, uint32_t stride, uint32_t padding)
{
    uint64_t padded = (uint64_t)side + 2 * (uint64_t)padding;

    return padded < kernel ? 0 : (uint32_t)((padded - kernel) / stride + 1);
}

static int check_conv(struct fl_layer *l, struct fl_err *e)
{
    if (l->out == 0 || l->kernel == 0) {
        return refuse(e, l, "a convolution needs out and kernel above 0");
    }
    if (l->stride == 0) {
        l->stride = 1;
    }
    if (l->kernel > 256 || l->stride > 256 || l->padding >= l->kernel) {
        return refuse(e, l, "kernel and stride are at most 256, padding is less than the kernel");
    }
    l->out_shape[0] = l->out;
    for (int k = 1; k < 3; k++) {
        l->out_shape[k] = places(l->in_shape[k], l->kernel, l->stride, l->padding);
        if (l->out_shape[k] == 0) {
            return refuse(e, l, "the kernel is larger than its padded input");
        }
    }
    uint64_t patch = (uint64_t)l->in_shape[0] * l->kernel * l->kernel;
    if (patch > ELEMENTS_MAX || patch * l->out > ELEMENTS_MAX ||
        patch * ((uint64_t)l->out_shape[1] * l->out_shape[2]) > ELEMENTS_MAX) {
        return refuse(e, l, "more than 2^26 weights, or patch elements of one example");
    }
    return 0;
}

static int check_pool(struct fl_layer *l, struct fl_err *e)
{
    if (l->kernel == 0 || l->kernel > 15) {
        return refuse(e, l, "the window of a max-pool is 1 to 15");
    }
    l->out_shape[0] = l->in_shape[0];
    for (int k = 1; k < 3; k++) {
        l->out_shape[k] = places(l->in_shape[k], l->kernel, l->kernel, 0);
        if (l->out_shape[k] == 0) {
            return refuse(e, l, "the window is larger than its input");
        }
    }
    return 0;
}

static int check_linear(struct fl_layer *l, struct fl_err *e)
{
    if (l->out == 0) {
        return refuse(e, l, "a linear layer needs out above 0");
    }
    if (l->in_shape[1] != 1 || l->in_shape[2] != 1) {
        return refuse(e, l, "a linear layer takes a vector: put a flatten before it");
    }
    if ((uint64_t)l->out * l->in_shape[0] > ELEMENTS_MAX) {
        return refuse(e, l, "more than 2^26 weights");
    }
    l->out_shape[0] = l->out;
    l->out_shape[1] = l->out_shape[2] = 1;
    return 0;
}

static int check_layer(struct fl_layer *l, struct fl_err *e)
{
    int r = 0;

    memcpy(l->out_shape, l->in_shape, sizeof l->out_shape);
    switch (l->kind) {
    case FL_LAYER_CONV2D:
        r = check_conv(l, e);
        break;
    case FL_LAYER_MAX_POOL:
        r = check_pool(l, e);
        break;
    case FL_LAYER_LINEAR:
        r = check_linear(l, e);
        break;
    case FL_LAYER_LEAKY_RELU:
        if (!(l->slope >= 0 && l->slope < 1)) {
            return refuse(e, l, "the slope is at least 0 and below 1");
        }
        break;
    case FL_LAYER_FLATTEN:
        l->out_shape[0] = (uint32_t)elements(l->in_shape);
        l->out_shape[1] = l->out_shape[2] = 1;
        break;
    }
    /* Each side is at most 2^26 by now, out included, or the product below would not be exact. */
    if (r == 0 && (l->out_shape[0] > ELEMENTS_MAX ||
                   (uint64_t)l->out_shape[0] * l->out_shape[1] > ELEMENTS_MAX ||
                   elements(l->out_shape) > ELEMENTS_MAX)) {
        return refuse(e, l, "more than 2^26 activations of one example");
    }
    return r;
}

int fl_spec_check(struct fl_spec *spec, struct fl_err *e)
{
    uint32_t weighted = 0;
    int tensor = 0, r;

    if (spec->layer_count == 0 || spec->layer_count > FL_SPEC_LAYERS_MAX) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a model has 1 to %d layers", FL_SPEC_LAYERS_MAX);
    }
    for (int k = 0; k < 3; k++) {
        if (spec->input[k] == 0 || spec->input[k] > ELEMENTS_MAX) {
            return fl_fail(e, FL_R_PLAN_MODEL, "the input shape has a side of 0 or above 2^26");
        }
    }
    if ((uint64_t)spec->input[0] * spec->input[1] > ELEMENTS_MAX ||
        elements(spec->input) > ELEMENTS_MAX) {
        return fl_fail(e, FL_R_PLAN_MODEL, "the input has more than 2^26 elements");
    }
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        struct fl_layer *l = &spec->layers[i];
        if ((r = check_name(spec, i, e)) < 0) {
            return r;
        }
        memcpy(l->in_shape, i ? spec->layers[i - 1].out_shape : spec->input, sizeof l->in_shape);
        if ((r = check_layer(l, e)) < 0) {
            return r;
        }
        l->weight = l->bias = -1;
        if (has_weights(l)) {
            weighted++;
            l->weight = tensor++;
            l->bias = tensor++;
        }
    }
    const struct fl_layer *last = &spec->layers[spec->layer_count - 1];
    if (spec->classes < 2) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a classifier has at least 2 classes");
    }
    if (last->kind != FL_LAYER_LINEAR || last->out_shape[0] != spec->classes) {
        return refuse(e, last, "the last layer must be linear with one output for each class");
    }
    if (spec->head > weighted) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a head of %u layers, but only %u have weights",
                       spec->head, weighted);
    }
    return 0;
}

/* ---- tensors and groups ---- */

static int add(struct fl_tensors *to, enum fl_group group, uint32_t fan_in, uint32_t rank,
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

static int add_network(struct fl_layout *layout, struct fl_err *e)
{
    const struct fl_spec *spec = &layout->spec;
    uint32_t weighted = 0, seen = 0;
    int r;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        weighted += has_weights(&spec->layers[i]);
    }
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (!has_weights(l)) {
            continue;
        }
        bool head = seen++ >= weighted - spec->head;
        enum fl_group group = FL_GROUP_SHARED;
        if (layout->visibility == FL_VISIBILITY_ALL_PRIVATE ||
            (head && layout->visibility != FL_VISIBILITY_ALL_SHARED)) {
            group = FL_GROUP_PRIVATE;
        } else if (layout->visibility == FL_VISIBILITY_BODY_GENERATED) {
            group = FL_GROUP_GENERATED;
        }
        bool conv = l->kind == FL_LAYER_CONV2D;
        uint32_t shape[4] = {l->out, l->in_shape[0], l->kernel, l->kernel};
        uint32_t fan_in = l->in_shape[0] * (conv ? l->kernel * l->kernel : 1);
        char name[FL_SPEC_NAME_MAX];

        snprintf(name, sizeof name, "%.40s.weight", l->name);
        if ((r = add(&layout->theta, group, fan_in, conv ? 4 : 2, shape, name, e)) < 0) {
            return r;
        }
        snprintf(name, sizeof name, "%.40s.bias", l->name);
        if ((r = add(&layout->theta, group, fan_in, 1, shape, name, e)) < 0) {
            return r;
        }
    }
    return 0;
}

/* The tensors of the network that are stored as they are, into the vector of their group. */
static int place_network(struct fl_layout *layout, struct fl_err *e)
{
    for (uint32_t i = 0; i < layout->theta.count; i++) {
        const struct fl_tensor *t = &layout->theta.at[i];
        if (t->group == FL_GROUP_GENERATED) {
            layout->generated += t->count;
            continue;
        }
        struct fl_tensors *to = t->group == FL_GROUP_SHARED ? &layout->shared : &layout->private_;
        int r = add(to, t->group, t->fan_in, t->rank, t->shape, t->name, e);
        if (r < 0) {
            return r;
        }
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
        if (t->group != FL_GROUP_GENERATED) {
            continue;
        }
        uint32_t sides[2], shape[2] = {rows, (uint32_t)t->count};
        if (side >= 0) {
            kronecker_sides(t->count, sides);
            shape[1] = sides[side];
        }
        char name[FL_SPEC_NAME_MAX];
        snprintf(name, sizeof name, "hyper.%.47s.%s", t->name, suffix);
        int r = add(&layout->shared, FL_GROUP_SHARED, t->fan_in, rows ? 2 : 1,
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

    return add(&layout->shared, FL_GROUP_SHARED, columns, 2, shape, name, e);
}

static int add_vector(struct fl_layout *layout, const char *name, uint32_t count, uint32_t fan_in,
                      struct fl_err *e)
{
    return add(&layout->shared, FL_GROUP_SHARED, fan_in, 1, &count, name, e);
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
    return add(&layout->private_, FL_GROUP_PRIVATE, 1, 1, &E, "embedding", e);
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
        uint32_t weighted = layout->theta.count / 2;
        if (spec->head == 0 || spec->head >= weighted) {
            return fl_fail(e, FL_R_PLAN_MODEL,
                           "this strategy needs a head of 1 to %u layers, it has %u", weighted - 1,
                           spec->head);
        }
    }
    if ((r = place_network(layout, e)) < 0) {
        return r;
    }
    return visibility == FL_VISIBILITY_BODY_GENERATED ? add_generator(layout, e) : 0;
}
