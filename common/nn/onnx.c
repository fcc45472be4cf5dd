#include "common/nn/onnx.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

/* ---- protobuf ---- */

enum { VARINT = 0, BYTES = 2, FIXED32 = 5, SIZE_MAX_31 = 0x7fffffff };

/* Grows; after a failure everything is ignored until it is looked at. */
struct pb {
    uint8_t *at;
    size_t size, room;
    bool failed;
};

static void put(struct pb *p, const void *bytes, size_t size)
{
    if (!p->failed && p->room - p->size < size) {
        size_t room = p->room ? p->room : 256;
        while (room - p->size < size) {
            room *= 2;
        }
        p->failed = room > (size_t)1 << 33 || !fl_try_grow((void **)&p->at, room, 1);
        p->room = p->failed ? p->room : room;
    }
    if (!p->failed && size) {
        memcpy(p->at + p->size, bytes, size);
        p->size += size;
    }
}

static void put_varint(struct pb *p, uint64_t x)
{
    uint8_t bytes[10];
    size_t n = 0;

    do {
        bytes[n++] = (uint8_t)((x & 0x7f) | (x > 0x7f ? 0x80 : 0));
        x >>= 7;
    } while (x);
    put(p, bytes, n);
}

static void put_tag(struct pb *p, unsigned field, unsigned type)
{
    put_varint(p, field << 3 | type);
}

static void put_int(struct pb *p, unsigned field, uint64_t x)
{
    put_tag(p, field, VARINT);
    put_varint(p, x);
}

static void put_bytes(struct pb *p, unsigned field, const void *bytes, size_t size)
{
    put_tag(p, field, BYTES);
    put_varint(p, size);
    put(p, bytes, size);
}

static void put_text(struct pb *p, unsigned field, const char *text)
{
    put_bytes(p, field, text, strlen(text));
}

static void put_float(struct pb *p, unsigned field, float x)
{
    uint32_t w;
    uint8_t bytes[4];

    memcpy(&w, &x, sizeof w);
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(w >> 8 * i);
    }
    put_tag(p, field, FIXED32);
    put(p, bytes, sizeof bytes);
}

/* An inner message, which is used up. */
static void put_message(struct pb *p, unsigned field, struct pb *inner)
{
    put_bytes(p, field, inner->at, inner->size);
    p->failed |= inner->failed;
    fl_free(inner->at);
    *inner = (struct pb){0};
}

/* ---- ONNX ---- */

enum { MODEL_IR = 7, MODEL_OPSET = 13 };
enum { DATA_FLOAT = 1, DATA_INT64 = 7 };
enum { ATTRIBUTE_FLOAT = 1, ATTRIBUTE_INT = 2, ATTRIBUTE_INTS = 7 };

struct graph {
    const struct fl_onnx *model;
    struct pb out;    /* GraphProto: nodes */
    struct pb values; /* its initializers, appended at the end */
    char last[80];    /* name of the value the last node made */
    unsigned count;   /* of nodes */
};

struct node {
    struct pb pb;
    char name[80], to[80];
};

static void tensor_head(struct pb *p, const char *name, unsigned type, const uint64_t *dims,
                        uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++) {
        put_int(p, 1, dims[i]); /* dims */
    }
    put_int(p, 2, type);  /* data_type */
    put_text(p, 8, name); /* name */
}

/* An initializer of floats: raw_data, little-endian. */
static void add_floats(struct graph *g, const char *name, const uint64_t *dims, uint32_t rank,
                       const float *x, size_t count)
{
    struct pb t = {0};

    tensor_head(&t, name, DATA_FLOAT, dims, rank);
    put_tag(&t, 9, BYTES);
    put_varint(&t, 4 * (uint64_t)count);
    for (size_t i = 0; i < count; i += 256) {
        uint8_t bytes[1024];
        size_t n = count - i < 256 ? count - i : 256;
        for (size_t k = 0; k < n; k++) {
            uint32_t w;
            memcpy(&w, x + i + k, sizeof w);
            for (unsigned b = 0; b < 4; b++) {
                bytes[4 * k + b] = (uint8_t)(w >> 8 * b);
            }
        }
        put(&t, bytes, 4 * n);
    }
    put_message(&g->values, 5, &t); /* initializer */
}

static void add_tensor(struct graph *g, int index)
{
    const struct fl_tensor *t = &g->model->tensors->at[index];
    uint64_t dims[4];

    for (uint32_t i = 0; i < t->rank; i++) {
        dims[i] = t->shape[i];
    }
    add_floats(g, t->name, dims, t->rank, g->model->theta + t->offset, t->count);
}

/* A node that takes the last value and perhaps others. */
static void begin(struct graph *g, struct node *n, const char *op, const char *name,
                  const char *second, const char *third)
{
    *n = (struct node){{0}, "", ""};
    snprintf(n->name, sizeof n->name, "%s", name);
    snprintf(n->to, sizeof n->to, "%.60s.out", name);
    put_text(&n->pb, 1, g->last); /* input */
    if (second) {
        put_text(&n->pb, 1, second);
    }
    if (third) {
        put_text(&n->pb, 1, third);
    }
    put_text(&n->pb, 4, op); /* op_type */
}

static void end(struct graph *g, struct node *n)
{
    put_text(&n->pb, 2, n->to); /* output */
    put_text(&n->pb, 3, n->name);
    snprintf(g->last, sizeof g->last, "%s", n->to);
    put_message(&g->out, 1, &n->pb); /* node */
    g->count++;
}

static void attribute_int(struct node *n, const char *name, uint64_t x)
{
    struct pb a = {0};

    put_text(&a, 1, name);
    put_int(&a, 3, x);
    put_int(&a, 20, ATTRIBUTE_INT);
    put_message(&n->pb, 5, &a); /* attribute */
}

static void attribute_ints(struct node *n, const char *name, uint64_t x, unsigned times)
{
    struct pb a = {0};

    put_text(&a, 1, name);
    for (unsigned i = 0; i < times; i++) {
        put_int(&a, 8, x);
    }
    put_int(&a, 20, ATTRIBUTE_INTS);
    put_message(&n->pb, 5, &a);
}

static void attribute_float(struct node *n, const char *name, float x)
{
    struct pb a = {0};

    put_text(&a, 1, name);
    put_float(&a, 2, x);
    put_int(&a, 20, ATTRIBUTE_FLOAT);
    put_message(&n->pb, 5, &a);
}

/* ---- layers ---- */

static bool is_vector(const uint32_t shape[3])
{
    return shape[1] == 1 && shape[2] == 1;
}

/* Layers with weights. */
static void begin_weighted(struct graph *g, struct node *n, const struct fl_layer *l,
                           const char *op)
{
    const struct fl_tensors *t = g->model->tensors;
    const char *bias = l->tensors > 1 ? t->at[l->weight + 1].name : NULL;

    add_tensor(g, l->weight);
    if (bias) {
        add_tensor(g, l->weight + 1);
    }
    begin(g, n, op, l->name, t->at[l->weight].name, bias);
}

static int add_layer(struct graph *g, const struct fl_layer *l, struct fl_err *e)
{
    struct node n;

    switch (l->kind) {
    case FL_LAYER_CONV2D:
        begin_weighted(g, &n, l, "Conv");
        attribute_ints(&n, "kernel_shape", l->kernel, 2);
        attribute_ints(&n, "strides", l->stride, 2);
        attribute_ints(&n, "pads", l->padding, 4);
        break;
    case FL_LAYER_MAX_POOL:
        begin(g, &n, "MaxPool", l->name, NULL, NULL);
        attribute_ints(&n, "kernel_shape", l->kernel, 2);
        attribute_ints(&n, "strides", l->kernel, 2);
        break;
    case FL_LAYER_LINEAR:
        if (!is_vector(l->in_shape)) {
            return fl_fail(e, FL_R_CAPABILITY, "layer %s: sequences have no ONNX form yet",
                           l->name);
        }
        begin_weighted(g, &n, l, "Gemm");
        attribute_int(&n, "transB", 1); /* weights are [out, in] */
        break;
    case FL_LAYER_LEAKY_RELU:
        begin(g, &n, "LeakyRelu", l->name, NULL, NULL);
        attribute_float(&n, "alpha", l->slope);
        break;
    case FL_LAYER_FLATTEN:
        if (is_vector(l->in_shape)) {
            return 0; /* a vector is already [batch, features] */
        }
        begin(g, &n, "Flatten", l->name, NULL, NULL);
        attribute_int(&n, "axis", 1);
        break;
    default:
        return fl_fail(e, FL_R_CAPABILITY, "layer %s has no ONNX form yet", l->name);
    }
    end(g, &n);
    return 0;
}

static void add_scaling(struct graph *g)
{
    const struct fl_onnx *m = g->model;
    const uint32_t *in = m->spec->input;
    const uint64_t dims[3] = {m->channels, 1, 1};
    uint32_t rank = m->channels == 1 || is_vector(in) ? 1 : 3;
    struct node n;

    if (m->channels == 0) {
        return;
    }
    add_floats(g, "input.mean", dims, rank, m->mean, m->channels);
    add_floats(g, "input.std", dims, rank, m->std, m->channels);
    begin(g, &n, "Sub", "input.shift", "input.mean", NULL);
    end(g, &n);
    begin(g, &n, "Div", "input.scale", "input.std", NULL);
    end(g, &n);
}

/* ---- the whole ---- */

/* ValueInfoProto: a float tensor [batch, ...]. */
static void put_value(struct pb *p, unsigned field, const char *name, const uint32_t shape[3])
{
    struct pb dims = {0}, tensor = {0}, type = {0}, value = {0}, batch = {0};

    put_text(&batch, 2, "batch");  /* dim_param */
    put_message(&dims, 1, &batch); /* TensorShapeProto.dim */
    for (int i = 0; i < (is_vector(shape) ? 1 : 3); i++) {
        struct pb d = {0};
        put_int(&d, 1, shape[i]); /* dim_value */
        put_message(&dims, 1, &d);
    }
    put_int(&tensor, 1, DATA_FLOAT); /* elem_type */
    put_message(&tensor, 2, &dims);  /* shape */
    put_message(&type, 1, &tensor);  /* tensor_type */
    put_text(&value, 1, name);
    put_message(&value, 2, &type);
    put_message(p, field, &value);
}

static int make_graph(struct graph *g, struct fl_err *e)
{
    const struct fl_spec *s = g->model->spec;
    struct node n;
    int r = 0;

    if (s->layer_count == 0) {
        return fl_fail(e, FL_R_CAPABILITY,
                       "a network known by its tensors only has no ONNX form: its program has it");
    }
    snprintf(g->last, sizeof g->last, "input");
    add_scaling(g);
    for (uint32_t i = 0; r == 0 && i < s->layer_count; i++) {
        r = add_layer(g, &s->layers[i], e);
    }
    if (r) {
        return r;
    }
    begin(g, &n, "Identity", "result", NULL, NULL);
    snprintf(n.to, sizeof n.to, "output");
    end(g, &n);
    put_text(&g->out, 2, g->model->name);
    put(&g->out, g->values.at, g->values.size); /* fields of the same message */
    g->out.failed |= g->values.failed;
    put_value(&g->out, 11, "input", s->input);
    put_value(&g->out, 12, "output", s->layers[s->layer_count - 1].out_shape);
    return 0;
}

static void make_model(struct pb *p, const struct fl_onnx *m, struct pb *graph)
{
    struct pb opset = {0};

    put_int(p, 1, MODEL_IR);
    put_text(p, 2, "cohort");
    put_message(p, 7, graph);
    put_text(&opset, 1, "");
    put_int(&opset, 2, MODEL_OPSET);
    put_message(p, 8, &opset);
    for (size_t i = 0; i < m->meta_count; i++) {
        struct pb entry = {0};
        put_text(&entry, 1, m->meta[i].key);
        put_text(&entry, 2, m->meta[i].value);
        put_message(p, 14, &entry);
    }
}

int fl_onnx_write(const struct fl_onnx *model, uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    struct graph g = {.model = model};
    struct pb all = {0};
    int r = make_graph(&g, e);

    if (r == 0) {
        make_model(&all, model, &g.out);
    }
    fl_free(g.values.at);
    fl_free(g.out.at);
    if (r == 0 && all.failed) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    if (r == 0 && all.size > SIZE_MAX_31) {
        r = fl_fail(e, FL_R_LIMIT, "%zu bytes; a protobuf has at most 2 GiB", all.size);
    }
    if (r) {
        fl_free(all.at);
        return r;
    }
    *ret = all.at;
    *ret_size = all.size;
    return 0;
}
