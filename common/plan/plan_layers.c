/*
 * The layers of a description. A layer is a map with one key, its kind; `residual` holds layers of
 * its own, and `transformer_encoder` stands for what it is made of:
 *
 *     post-norm, as published (and PyTorch's default)         pre-norm
 *       residual: attention, dropout    layer_norm              residual: layer_norm, attention,
 * dropout residual: linear, relu,         layer_norm              residual: layer_norm, linear,
 * relu, dropout, linear, dropout                                dropout, linear, dropout
 *
 * so that everything below knows a chain of simple layers only.
 */
#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/plan/plan_check.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 8 };

struct residual_raw {
    char name[FL_SPEC_NAME_MAX];
    const struct fl_conf_node *layers;
    uint32_t project, stride;
};

struct encoder_raw {
    uint32_t layers, heads, feed_forward;
    float dropout;
    unsigned norm, activation;
    bool causal;
};

enum norm { NORM_POST, NORM_PRE };
static const char *const norm_words[] = {"post", "pre", NULL};
enum activation { ACTIVATION_RELU, ACTIVATION_GELU };
static const char *const activation_words[] = {"relu", "gelu", NULL};

/* A place for each word's values. */
struct each {
    struct fl_layer layer[FL_LAYER_KINDS], relu;
    struct residual_raw residual;
    struct encoder_raw encoder;
};

/* ---- tables ---- */

#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)

#define OF fl_layer
#define NAME_KEY                                                                                   \
    {                                                                                              \
        TYPED("name", STRING, name), .size = FL_SPEC_NAME_MAX                                      \
    }
static const struct fl_conf_field conv2d_keys[] = {
    NAME_KEY,
    {TYPED("out", UINT32, out), .min = 1, .max = 1 << 20, .flags = FL_CONF_REQUIRED},
    {TYPED("kernel", UINT32, kernel), .min = 1, .max = 256, .flags = FL_CONF_REQUIRED},
    {TYPED("stride", UINT32, stride), .min = 1, .max = 256, .fallback = "1"},
    {TYPED("padding", UINT32, padding), .max = 255, .fallback = "0"},
    {TYPED("groups", UINT32, groups), .min = 1, .max = 1 << 20, .fallback = "1"},
    {.name = NULL},
};
static const struct fl_conf_field pool_keys[] = {
    NAME_KEY,
    {TYPED("size", UINT32, kernel), .min = 1, .max = 15, .flags = FL_CONF_REQUIRED},
    {.name = NULL},
};
static const struct fl_conf_field linear_keys[] = {
    NAME_KEY,
    {TYPED("out", UINT32, out), .min = 1, .max = 1 << 26, .flags = FL_CONF_REQUIRED},
    {.name = NULL},
};
static const struct fl_conf_field leaky_relu_keys[] = {
    NAME_KEY,
    {TYPED("slope", FLOAT, slope), .max = 1, .flags = FL_CONF_BELOW_MAX, .fallback = "0.01"},
    {.name = NULL},
};
static const struct fl_conf_field plain_keys[] = {NAME_KEY, {.name = NULL}};
static const struct fl_conf_field group_norm_keys[] = {
    NAME_KEY,
    {TYPED("groups", UINT32, groups), .min = 1, .max = 1 << 20, .flags = FL_CONF_REQUIRED},
    {.name = NULL},
};
static const struct fl_conf_field dropout_keys[] = {
    NAME_KEY,
    {TYPED("rate", FLOAT, rate), .max = 1, .flags = FL_CONF_BELOW_MAX | FL_CONF_REQUIRED},
    {.name = NULL},
};
static const struct fl_conf_field embedding_keys[] = {
    NAME_KEY,
    {TYPED("width", UINT32, out), .min = 1, .max = 65536, .flags = FL_CONF_REQUIRED},
    {TYPED("categories", UINT32S, categories), .min = 1, .max = 1 << 24, .items_min = 1,
     .items_max = FL_SPEC_CATEGORIES_MAX, .count_offset = offsetof(struct fl_layer, category_count),
     .flags = FL_CONF_REQUIRED},
    {.name = NULL},
};
static const struct fl_conf_field positions_keys[] = {
    NAME_KEY,
    {TYPED("sinusoidal", BOOL, sinusoidal), .fallback = "false"},
    {.name = NULL},
};
static const struct fl_conf_field attention_keys[] = {
    NAME_KEY,
    {TYPED("heads", UINT32, heads), .min = 1, .max = 1024, .flags = FL_CONF_REQUIRED},
    {TYPED("causal", BOOL, causal), .fallback = "false"},
    {.name = NULL},
};
static const struct fl_conf_field scattering_keys[] = {
    NAME_KEY,
    {TYPED("scales", UINT32, scales), .min = 1, .max = FL_SCATTERING_SCALES_MAX, .fallback = "2"},
    {TYPED("angles", UINT32, angles), .min = 1, .max = FL_SCATTERING_ANGLES_MAX, .fallback = "8"},
    {TYPED("order", UINT32, order), .min = 1, .max = 2, .fallback = "2"},
    {TYPED("root", BOOL, root), .fallback = "false"},
    {.name = NULL},
};
static const struct fl_conf_field fourier_keys[] = {
    NAME_KEY,
    {TYPED("out", UINT32, out), .min = 1, .max = 1 << 20, .flags = FL_CONF_REQUIRED},
    {TYPED("bandwidth", FLOAT, bandwidth), .max = 1e6, .fallback = "0"},
    {.name = NULL},
};
#undef OF

#define OF residual_raw
static const struct fl_conf_field residual_keys[] = {
    NAME_KEY,
    {TYPED("layers", NODE, layers), .flags = FL_CONF_REQUIRED},
    {TYPED("project", UINT32, project), .max = 1 << 20, .fallback = "0"},
    {TYPED("stride", UINT32, stride), .min = 1, .max = 256, .fallback = "1"},
    {.name = NULL},
};
#undef OF

#define OF encoder_raw
static const struct fl_conf_field encoder_keys[] = {
    {TYPED("layers", UINT32, layers), .min = 1, .max = 12, .fallback = "1"},
    {TYPED("heads", UINT32, heads), .min = 1, .max = 1024, .flags = FL_CONF_REQUIRED},
    {TYPED("feed_forward", UINT32, feed_forward), .min = 1, .max = 1 << 20,
     .flags = FL_CONF_REQUIRED},
    {TYPED("dropout", FLOAT, dropout), .max = 1, .flags = FL_CONF_BELOW_MAX, .fallback = "0"},
    {TYPED("norm", ENUM, norm), .words = norm_words, .fallback = "post"},
    {TYPED("activation", ENUM, activation), .words = activation_words, .fallback = "relu"},
    {TYPED("causal", BOOL, causal), .fallback = "false"},
    {.name = NULL},
};
#undef OF

/* Where each word's values go: a layer is decoded as a map that has one of these keys. */
#define WORD(key, keys, m)                                                                         \
    {                                                                                              \
        .name = key, .type = FL_CONF_MAP, .fields = keys, .offset = offsetof(struct each, m)       \
    }
#define KIND(key, keys, kind) WORD(key, keys, layer[FL_LAYER_##kind])
static const struct fl_conf_field words[] = {
    KIND("conv2d", conv2d_keys, CONV2D),
    KIND("max_pool", pool_keys, MAX_POOL),
    KIND("avg_pool", pool_keys, AVG_POOL),
    KIND("global_pool", plain_keys, GLOBAL_POOL),
    KIND("linear", linear_keys, LINEAR),
    KIND("leaky_relu", leaky_relu_keys, LEAKY_RELU),
    WORD("relu", plain_keys, relu),
    KIND("gelu", plain_keys, GELU),
    KIND("tanh", plain_keys, TANH),
    KIND("flatten", plain_keys, FLATTEN),
    KIND("group_norm", group_norm_keys, GROUP_NORM),
    KIND("batch_norm", plain_keys, BATCH_NORM),
    KIND("layer_norm", plain_keys, LAYER_NORM),
    KIND("dropout", dropout_keys, DROPOUT),
    KIND("embedding", embedding_keys, EMBEDDING),
    KIND("sequence", plain_keys, SEQUENCE),
    KIND("first_token", plain_keys, FIRST_TOKEN),
    KIND("positions", positions_keys, POSITIONS),
    KIND("attention", attention_keys, ATTENTION),
    KIND("scattering", scattering_keys, SCATTERING),
    KIND("fourier", fourier_keys, FOURIER),
    WORD("residual", residual_keys, residual),
    WORD("transformer_encoder", encoder_keys, encoder),
    {.name = NULL},
};

/* ---- layers ---- */

static int append(struct fl_spec *spec, const struct fl_conf_node *at, enum fl_layer_kind kind,
                  const struct fl_layer *layer, struct fl_err *e)
{
    if (spec->layer_count == FL_SPEC_LAYERS_MAX) {
        return fl_conf_fail(e, at, FL_R_CONF_RANGE, "more than %d layers, blocks unfolded",
                            FL_SPEC_LAYERS_MAX);
    }
    struct fl_layer *to = &spec->layers[spec->layer_count++];
    *to = *layer;
    to->kind = kind;
    to->line = at->key_line;
    return 0;
}

/* The two halves of an encoder layer: attention or not, each a residual block with its norm. */
static int append_half(struct fl_spec *spec, const struct fl_conf_node *at,
                       const struct encoder_raw *c, uint32_t width, bool attention,
                       struct fl_err *e)
{
    static const struct fl_layer plain = {0};
    struct fl_layer parts[8] = {{0}};
    uint32_t n = 0;

    parts[n++] = (struct fl_layer){.kind = FL_LAYER_FORK};
    if (c->norm == NORM_PRE) {
        parts[n++] = (struct fl_layer){.kind = FL_LAYER_LAYER_NORM};
    }
    if (attention) {
        parts[n++] =
            (struct fl_layer){.kind = FL_LAYER_ATTENTION, .heads = c->heads, .causal = c->causal};
    } else {
        parts[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = c->feed_forward};
        parts[n++] = (struct fl_layer){
            .kind = c->activation == ACTIVATION_GELU ? FL_LAYER_GELU : FL_LAYER_LEAKY_RELU};
        if (c->dropout > 0) {
            parts[n++] = (struct fl_layer){.kind = FL_LAYER_DROPOUT, .rate = c->dropout};
        }
        parts[n++] = (struct fl_layer){.kind = FL_LAYER_LINEAR, .out = width};
    }
    if (c->dropout > 0) {
        parts[n++] = (struct fl_layer){.kind = FL_LAYER_DROPOUT, .rate = c->dropout};
    }
    int r = 0;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = append(spec, at, parts[i].kind, &parts[i], e);
    }
    if (r == 0) {
        r = append(spec, at, FL_LAYER_JOIN, &plain, e);
    }
    if (r == 0 && c->norm == NORM_POST) {
        r = append(spec, at, FL_LAYER_LAYER_NORM, &plain, e);
    }
    return r;
}

/* The encoder keeps the width of what it gets: the shapes so far say which. */
static int append_encoder(struct fl_spec *spec, const struct fl_conf_node *at,
                          const struct encoder_raw *c, struct fl_err *e)
{
    uint32_t width = spec->input[0];
    int r = spec->layer_count ? fl_spec_flow(spec, e) : 0;

    if (r == 0 && spec->layer_count) {
        width = spec->layers[spec->layer_count - 1].out_shape[0];
    }
    for (uint32_t i = 0; i < c->layers && r == 0; i++) {
        r = append_half(spec, at, c, width, true, e);
        if (r == 0) {
            r = append_half(spec, at, c, width, false, e);
        }
    }
    return r;
}

static int append_list(const struct fl_conf_node *n, struct fl_spec *spec, unsigned depth,
                       struct fl_err *e);

static int append_residual(struct fl_spec *spec, const struct fl_conf_node *at,
                           const struct residual_raw *raw, unsigned depth, struct fl_err *e)
{
    struct fl_layer fork = {0}, join = {.out = raw->project, .stride = raw->stride};

    snprintf(join.name, sizeof join.name, "%s", raw->name);
    if (raw->stride > 1 && raw->project == 0) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT, "stride needs project");
    }
    int r = append(spec, at, FL_LAYER_FORK, &fork, e);
    if (r == 0) {
        r = append_list(raw->layers, spec, depth + 1, e);
    }
    return r == 0 ? append(spec, at, FL_LAYER_JOIN, &join, e) : r;
}

static int append_node(const struct fl_conf_node *n, struct fl_spec *spec, unsigned depth,
                       struct fl_err *e)
{
    const struct fl_conf_node *only = fl_conf_only(n);
    size_t word = 0;

    if (!only) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE,
                            "a layer is a map with one key, such as {linear: {out: 10}}");
    }
    struct each *each = fl_try(1, sizeof *each);
    if (!each) {
        return fl_fail(e, FL_R_NOMEM, "a layer");
    }
    int r = fl_conf_decode(n, words, each, e);
    while (r == 0 && strcmp(words[word].name, only->key) != 0) {
        word++; /* it is one of them, or decoding had failed */
    }
    size_t at = words[word].offset;
    if (r) {
        goto out;
    }
    if (at == offsetof(struct each, residual)) {
        r = append_residual(spec, only, &each->residual, depth, e);
    } else if (at == offsetof(struct each, encoder)) {
        r = append_encoder(spec, only, &each->encoder, e);
    } else if (at == offsetof(struct each, relu)) {
        r = append(spec, only, FL_LAYER_LEAKY_RELU, &each->relu, e);
    } else {
        size_t kind = at / sizeof each->layer[0];
        const struct fl_layer *l = &each->layer[kind];
        if (kind == FL_LAYER_CONV2D && l->groups > 1) {
            r = append(spec, only, FL_LAYER_GROUPED, l, e);
            goto out;
        }
        r = append(spec, only, (enum fl_layer_kind)kind, &each->layer[kind], e);
    }
out:
    fl_free(each);
    return r;
}

static int append_list(const struct fl_conf_node *n, struct fl_spec *spec, unsigned depth,
                       struct fl_err *e)
{
    int r = 0;

    if (n->kind != FL_CONF_KIND_LIST) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a list of layers is wanted");
    }
    if (n->count == 0 || n->count > FL_SPEC_LAYERS_MAX) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%u layers; 1 to %d are allowed", n->count,
                            FL_SPEC_LAYERS_MAX);
    }
    if (depth > DEPTH_MAX) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "blocks within blocks deeper than %d",
                            DEPTH_MAX);
    }
    for (const struct fl_conf_node *i = n->first; i && r == 0; i = i->next) {
        r = append_node(i, spec, depth, e);
    }
    return r;
}

int fl_plan_layers(const struct fl_conf_node *n, struct fl_spec *spec, struct fl_err *e)
{
    return append_list(n, spec, 0, e);
}
