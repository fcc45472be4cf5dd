/* A description's layers: names, order, shapes from the first to the last. What each kind wants is
 * in kinds.c. */
#include "common/nn/spec.h"

#include "common/nn/kinds.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { ELEMENTS_MAX = 1 << 26, NAME_LENGTH_MAX = 40 };

/* "layer fc1 (line 12): ..." */
static int named(struct fl_err *e, const struct fl_layer *l)
{
    if (l->line) {
        return fl_wrap(e, -FL_R_PLAN_MODEL, "layer %s (line %u)", l->name, l->line);
    }
    return fl_wrap(e, -FL_R_PLAN_MODEL, "layer %s", l->name);
}

static int refuse(struct fl_err *e, const struct fl_layer *l, const char *what)
{
    fl_fail(e, FL_R_PLAN_MODEL, "%s", what);
    return named(e, l);
}

static int check_name(struct fl_spec *spec, uint32_t i, struct fl_err *e)
{
    struct fl_layer *l = &spec->layers[i];
    const struct fl_kind *kind = fl_kind_of(l->kind);
    uint32_t number = 1;

    if (!kind) {
        return fl_fail(e, FL_R_PLAN_MODEL, "layer number %u: unknown kind", i + 1);
    }
    if (!l->name[0]) {
        for (uint32_t k = 0; k < i; k++) {
            number += spec->layers[k].kind == l->kind;
        }
        snprintf(l->name, sizeof l->name, "%s%u", kind->label, number);
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

/* Both ways into a JOIN must have the same shape; its FORK is the innermost that is open. */
static int check_join(struct fl_spec *spec, uint32_t i, uint32_t *open, struct fl_err *e)
{
    struct fl_layer *l = &spec->layers[i];
    uint32_t around[3];

    if (*open == 0) {
        return refuse(e, l, "the end of a residual block that never began");
    }
    uint32_t depth = 1, at = i;
    while (depth) {
        at--;
        depth += spec->layers[at].kind == FL_LAYER_JOIN;
        depth -= spec->layers[at].kind == FL_LAYER_FORK;
    }
    l->fork = at;
    (*open)--;
    memcpy(around, spec->layers[at].out_shape, sizeof around);
    l->around = around[0];
    if (l->out) {
        around[0] = l->out;
        around[1] = (around[1] - 1) / l->stride + 1;
        around[2] = (around[2] - 1) / l->stride + 1;
    }
    if (memcmp(around, l->in_shape, sizeof around) != 0) {
        fl_fail(e, FL_R_PLAN_MODEL,
                "the block makes %ux%ux%u, the way round it %ux%ux%u: they cannot be added",
                l->in_shape[0], l->in_shape[1], l->in_shape[2], around[0], around[1], around[2]);
        return named(e, l);
    }
    return 0;
}

static int check_layer(struct fl_spec *spec, uint32_t i, uint32_t *open, struct fl_err *e)
{
    struct fl_layer *l = &spec->layers[i];

    memcpy(l->out_shape, l->in_shape, sizeof l->out_shape);
    int r = fl_kind_of(l->kind)->shape(l, e);
    if (r < 0) {
        return named(e, l);
    }
    *open += l->kind == FL_LAYER_FORK;
    r = l->kind == FL_LAYER_JOIN ? check_join(spec, i, open, e) : 0;
    /* Each side is at most 2^26 by now, out included, or the product below would not be exact. */
    if (r == 0 && (l->out_shape[0] > ELEMENTS_MAX ||
                   (uint64_t)l->out_shape[0] * l->out_shape[1] > ELEMENTS_MAX ||
                   fl_shape_elements(l->out_shape) > ELEMENTS_MAX)) {
        return refuse(e, l, "more than 2^26 activations of one example");
    }
    return r;
}

static int check_input(const struct fl_spec *spec, struct fl_err *e)
{
    if (spec->layer_count == 0 || spec->layer_count > FL_SPEC_LAYERS_MAX) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a model has 1 to %d layers", FL_SPEC_LAYERS_MAX);
    }
    for (int k = 0; k < 3; k++) {
        if (spec->input[k] == 0 || spec->input[k] > ELEMENTS_MAX) {
            return fl_fail(e, FL_R_PLAN_MODEL, "the input shape has a side of 0 or above 2^26");
        }
    }
    if ((uint64_t)spec->input[0] * spec->input[1] > ELEMENTS_MAX ||
        fl_shape_elements(spec->input) > ELEMENTS_MAX) {
        return fl_fail(e, FL_R_PLAN_MODEL, "the input has more than 2^26 elements");
    }
    return 0;
}

uint32_t fl_spec_weighted(const struct fl_spec *spec)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        n += spec->layers[i].tensors > 0;
    }
    return n;
}

uint32_t fl_spec_fixed(const struct fl_spec *spec)
{
    bool fixed = false;
    uint32_t i = 0;

    for (; i < spec->layer_count && spec->layers[i].tensors == 0; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (l->kind == FL_LAYER_FORK || l->kind == FL_LAYER_DROPOUT) {
            break;
        }
        fixed = fixed || fl_kind_of(l->kind)->fixed;
    }
    return fixed ? i : 0;
}

const struct fl_layer *fl_spec_together(const struct fl_spec *spec)
{
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        if (spec->layers[i].kind == FL_LAYER_BATCH_NORM) {
            return &spec->layers[i];
        }
    }
    return NULL;
}

uint32_t fl_spec_head(const struct fl_spec *spec)
{
    uint32_t at = spec->layer_count, seen = 0;

    while (at > 0 && seen < spec->head) {
        seen += spec->layers[--at].tensors > 0;
    }
    return at;
}

uint32_t fl_spec_outputs(const struct fl_spec *spec)
{
    switch (spec->loss.kind) {
    case FL_LOSS_CROSS_ENTROPY:
        return spec->classes;
    case FL_LOSS_BINARY:
        return 1;
    case FL_LOSS_PINBALL:
        return spec->targets * spec->loss.quantile_count;
    default:
        return spec->targets;
    }
}

static int check_loss(const struct fl_spec *spec, struct fl_err *e)
{
    const struct fl_loss *l = &spec->loss;

    if (!fl_loss_is_regression(l)) {
        if (spec->classes < 2) {
            return fl_fail(e, FL_R_PLAN_MODEL, "a classifier has at least 2 classes");
        }
        return l->kind != FL_LOSS_BINARY || spec->classes == 2
                   ? 0
                   : fl_fail(e, FL_R_PLAN_MODEL, "a binary loss has 2 classes, not %u",
                             spec->classes);
    }
    if (spec->classes || spec->targets == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a loss of numbers has targets, and no classes");
    }
    for (uint32_t q = 0; l->kind == FL_LOSS_PINBALL && q < l->quantile_count; q++) {
        if (!(l->quantiles[q] > (q ? l->quantiles[q - 1] : 0) && l->quantiles[q] < 1)) {
            return fl_fail(e, FL_R_PLAN_MODEL, "quantiles are rising numbers between 0 and 1");
        }
    }
    if (l->kind == FL_LOSS_PINBALL && l->quantile_count == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a pinball loss has quantiles");
    }
    return 0;
}

/* A head inside a residual block would need values of the body that are not its features. */
static int check_head(const struct fl_spec *spec, struct fl_err *e)
{
    uint32_t weighted = fl_spec_weighted(spec);

    if (spec->head > weighted) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a head of %u layers, but only %u have weights",
                       spec->head, weighted);
    }
    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (l->kind == FL_LAYER_JOIN && l->fork < fl_spec_head(spec) && i >= fl_spec_head(spec)) {
            return fl_fail(e, FL_R_PLAN_MODEL,
                           "a head of %u layers begins inside the residual block that ends with %s",
                           spec->head, l->name);
        }
    }
    return 0;
}

static int flow(struct fl_spec *spec, uint32_t *open, struct fl_err *e)
{
    struct fl_weight weights[FL_LAYER_TENSORS_MAX];
    int tensor = 0, r = check_input(spec, e);

    *open = 0;
    for (uint32_t i = 0; r == 0 && i < spec->layer_count; i++) {
        struct fl_layer *l = &spec->layers[i];
        if ((r = check_name(spec, i, e)) < 0) {
            return r;
        }
        memcpy(l->in_shape, i ? spec->layers[i - 1].out_shape : spec->input, sizeof l->in_shape);
        if ((r = check_layer(spec, i, open, e)) < 0) {
            return r;
        }
        const struct fl_kind *kind = fl_kind_of(l->kind);
        if (kind->fixed && (tensor > 0 || *open > 0)) {
            return refuse(e, l,
                          "fixed features come first: before every layer with weights, and outside "
                          "of residual blocks");
        }
        l->seed = spec->seed;
        l->tensors = kind->weights ? kind->weights(l, weights) : 0;
        l->weight = l->tensors ? tensor : -1;
        tensor += l->tensors;
        if (l->kind == FL_LAYER_EMBEDDING && i > 0) {
            return refuse(e, l, "an embedding must be the first layer: it reads category numbers");
        }
    }
    return r;
}

int fl_spec_flow(struct fl_spec *spec, struct fl_err *e)
{
    uint32_t open;

    return flow(spec, &open, e);
}

int fl_spec_check(struct fl_spec *spec, struct fl_err *e)
{
    uint32_t open;
    int r = flow(spec, &open, e);

    if (r < 0) {
        return r;
    }
    const struct fl_layer *last = &spec->layers[spec->layer_count - 1];
    if (open) {
        return refuse(e, last, "a residual block that never ends");
    }
    if ((r = check_loss(spec, e)) < 0) {
        return r;
    }
    if (last->kind != FL_LAYER_LINEAR || last->in_shape[1] != 1 ||
        last->out_shape[0] != fl_spec_outputs(spec)) {
        fl_fail(e, FL_R_PLAN_MODEL, "the last layer must be linear with %s: %u",
                spec->loss.kind == FL_LOSS_CROSS_ENTROPY ? "one output for each class"
                                                         : "the outputs that the loss takes",
                fl_spec_outputs(spec));
        return named(e, last);
    }
    return check_head(spec, e);
}
