#include "common/nn/onnx.h"

#include "common/base/mem.h"
#include "common/nn/onnx_in.h"

#include <stdio.h>
#include <string.h>

/* ---- protobuf ---- */

enum { VARINT = 0, BYTES = 2, FIXED32 = 5, SIZE_MAX_31 = 0x7fffffff };

void fl_pb_put(struct fl_pb *p, const void *bytes, size_t size)
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

static void put_varint(struct fl_pb *p, uint64_t x)
{
    uint8_t bytes[10];
    size_t n = 0;

    do {
        bytes[n++] = (uint8_t)((x & 0x7f) | (x > 0x7f ? 0x80 : 0));
        x >>= 7;
    } while (x);
    fl_pb_put(p, bytes, n);
}

static void put_tag(struct fl_pb *p, unsigned field, unsigned type)
{
    put_varint(p, field << 3 | type);
}

void fl_pb_int(struct fl_pb *p, unsigned field, uint64_t x)
{
    put_tag(p, field, VARINT);
    put_varint(p, x);
}

static void put_bytes(struct fl_pb *p, unsigned field, const void *bytes, size_t size)
{
    put_tag(p, field, BYTES);
    put_varint(p, size);
    fl_pb_put(p, bytes, size);
}

void fl_pb_text(struct fl_pb *p, unsigned field, const char *text)
{
    put_bytes(p, field, text, strlen(text));
}

/* Little-endian. */
static void put_floats(struct fl_pb *p, const float *x, size_t count)
{
    uint8_t bytes[1024];

    for (size_t i = 0, n; i < count; i += n) {
        n = count - i < sizeof bytes / 4 ? count - i : sizeof bytes / 4;
        for (size_t k = 0; k < n; k++) {
            uint32_t w;
            memcpy(&w, x + i + k, sizeof w);
            for (unsigned b = 0; b < 4; b++) {
                bytes[4 * k + b] = (uint8_t)(w >> 8 * b);
            }
        }
        fl_pb_put(p, bytes, 4 * n);
    }
}

void fl_pb_message(struct fl_pb *p, unsigned field, struct fl_pb *inner)
{
    put_bytes(p, field, inner->at, inner->size);
    p->failed |= inner->failed;
    fl_free(inner->at);
    *inner = (struct fl_pb){0};
}

/* ---- nodes ---- */

enum { MODEL_IR = 7, MODEL_OPSET = 13 };
enum { DATA_FLOAT = 1, DATA_INT64 = 7 };
enum { ATTRIBUTE_FLOAT = 1, ATTRIBUTE_INT = 2, ATTRIBUTE_STRING = 3, ATTRIBUTE_INTS = 7 };

static void new_name(struct fl_onnx_graph *g, const char *what, char ret[FL_ONNX_NAME])
{
    snprintf(ret, FL_ONNX_NAME, "%.60s/%.20s%u", g->layer, what, g->count++);
}

void fl_onnx_begin(struct fl_onnx_node *n, const char *op)
{
    *n = (struct fl_onnx_node){{0}};
    fl_pb_text(&n->pb, 4, op); /* op_type */
}

void fl_onnx_in(struct fl_onnx_node *n, const char *name)
{
    fl_pb_text(&n->pb, 1, name); /* input */
}

void fl_onnx_attr_int(struct fl_onnx_node *n, const char *name, int64_t x)
{
    struct fl_pb a = {0};

    fl_pb_text(&a, 1, name);
    fl_pb_int(&a, 3, (uint64_t)x);
    fl_pb_int(&a, 20, ATTRIBUTE_INT);
    fl_pb_message(&n->pb, 5, &a); /* attribute */
}

void fl_onnx_attr_ints(struct fl_onnx_node *n, const char *name, const int64_t *x, uint32_t count)
{
    struct fl_pb a = {0};

    fl_pb_text(&a, 1, name);
    for (uint32_t i = 0; i < count; i++) {
        fl_pb_int(&a, 8, (uint64_t)x[i]);
    }
    fl_pb_int(&a, 20, ATTRIBUTE_INTS);
    fl_pb_message(&n->pb, 5, &a);
}

void fl_onnx_attr_text(struct fl_onnx_node *n, const char *name, const char *text)
{
    struct fl_pb a = {0};

    fl_pb_text(&a, 1, name);
    fl_pb_text(&a, 4, text);
    fl_pb_int(&a, 20, ATTRIBUTE_STRING);
    fl_pb_message(&n->pb, 5, &a);
}

void fl_onnx_attr_float(struct fl_onnx_node *n, const char *name, float x)
{
    struct fl_pb a = {0};

    fl_pb_text(&a, 1, name);
    put_tag(&a, 2, FIXED32);
    put_floats(&a, &x, 1);
    fl_pb_int(&a, 20, ATTRIBUTE_FLOAT);
    fl_pb_message(&n->pb, 5, &a);
}

void fl_onnx_end(struct fl_onnx_graph *g, struct fl_onnx_node *n, unsigned outputs,
                 char ret[][FL_ONNX_NAME])
{
    char name[FL_ONNX_NAME];

    for (unsigned i = 0; i < outputs; i++) {
        new_name(g, "", ret[i]);
        fl_pb_text(&n->pb, 2, ret[i]); /* output */
    }
    new_name(g, "node", name);
    fl_pb_text(&n->pb, 3, name);
    fl_pb_message(&g->nodes, 1, &n->pb); /* GraphProto.node */
}

void fl_onnx_op(struct fl_onnx_graph *g, const char *op, const char *a, const char *b,
                char ret[FL_ONNX_NAME])
{
    struct fl_onnx_node n;
    char out[1][FL_ONNX_NAME];

    fl_onnx_begin(&n, op);
    fl_onnx_in(&n, a);
    if (b) {
        fl_onnx_in(&n, b);
    }
    fl_onnx_end(g, &n, 1, out);
    memcpy(ret, out[0], FL_ONNX_NAME);
}

/* ---- initializers: TensorProto ---- */

static void tensor_head(struct fl_pb *p, const char *name, unsigned type)
{
    fl_pb_int(p, 2, type);  /* data_type */
    fl_pb_text(p, 8, name); /* name */
}

void fl_onnx_floats(struct fl_onnx_graph *g, const char *what, const uint32_t *dims, uint32_t rank,
                    const float *x, char ret[FL_ONNX_NAME])
{
    struct fl_pb t = {0};
    size_t count = 1;

    new_name(g, what, ret);
    for (uint32_t i = 0; i < rank; i++) {
        fl_pb_int(&t, 1, dims[i]); /* dims */
        count *= dims[i];
    }
    tensor_head(&t, ret, DATA_FLOAT);
    put_tag(&t, 9, BYTES); /* raw_data */
    put_varint(&t, 4 * (uint64_t)count);
    put_floats(&t, x, count);
    fl_pb_message(&g->values, 5, &t); /* GraphProto.initializer */
}

void fl_onnx_float(struct fl_onnx_graph *g, const char *what, float x, char ret[FL_ONNX_NAME])
{
    const uint32_t one = 1;

    fl_onnx_floats(g, what, &one, 1, &x, ret);
}

void fl_onnx_ints(struct fl_onnx_graph *g, const char *what, const int64_t *x, uint32_t count,
                  bool scalar, char ret[FL_ONNX_NAME])
{
    struct fl_pb t = {0};

    new_name(g, what, ret);
    if (!scalar) {
        fl_pb_int(&t, 1, count);
    }
    tensor_head(&t, ret, DATA_INT64);
    for (uint32_t i = 0; i < count; i++) {
        fl_pb_int(&t, 7, (uint64_t)x[i]); /* int64_data */
    }
    fl_pb_message(&g->values, 5, &t);
}

/* ---- the whole ---- */

static bool is_vector(const uint32_t shape[3])
{
    return shape[1] == 1 && shape[2] == 1;
}

static void add_scaling(struct fl_onnx_graph *g)
{
    const struct fl_onnx *m = g->model;
    const uint32_t dims[3] = {m->channels, 1, 1};
    uint32_t rank = m->channels == 1 || is_vector(m->spec->input) ? 1 : 3;
    char mean[FL_ONNX_NAME], std[FL_ONNX_NAME];

    if (m->channels == 0) {
        return;
    }
    fl_onnx_floats(g, "mean", dims, rank, m->mean, mean);
    fl_onnx_floats(g, "std", dims, rank, m->std, std);
    fl_onnx_op(g, "Sub", g->now.name, mean, g->now.name);
    fl_onnx_op(g, "Div", g->now.name, std, g->now.name);
}

/* ValueInfoProto: a float tensor [batch, ...]. */
static void put_value(struct fl_pb *p, unsigned field, const char *name, const uint32_t shape[3])
{
    struct fl_pb dims = {0}, tensor = {0}, type = {0}, value = {0}, batch = {0};

    fl_pb_text(&batch, 2, "batch");  /* dim_param */
    fl_pb_message(&dims, 1, &batch); /* TensorShapeProto.dim */
    for (int i = 0; i < (is_vector(shape) ? 1 : 3); i++) {
        struct fl_pb d = {0};
        fl_pb_int(&d, 1, shape[i]); /* dim_value */
        fl_pb_message(&dims, 1, &d);
    }
    fl_pb_int(&tensor, 1, DATA_FLOAT); /* elem_type */
    fl_pb_message(&tensor, 2, &dims);  /* shape */
    fl_pb_message(&type, 1, &tensor);  /* tensor_type */
    fl_pb_text(&value, 1, name);
    fl_pb_message(&value, 2, &type);
    fl_pb_message(p, field, &value);
}

static int make_graph(struct fl_onnx_graph *g, struct fl_err *e)
{
    const struct fl_spec *s = g->model->spec;
    struct fl_pb last = {0};
    int r = 0;

    if (s->layer_count == 0) {
        return fl_fail(e, FL_R_CAPABILITY,
                       "a network known by its tensors only has no ONNX form: its program has it");
    }
    g->layer = "input";
    snprintf(g->now.name, sizeof g->now.name, "input");
    g->now.form = is_vector(s->input) ? FL_ONNX_VECTOR : FL_ONNX_IMAGE;
    add_scaling(g);
    for (uint32_t i = 0; r == 0 && i < s->layer_count; i++) {
        g->layer = s->layers[i].name;
        r = fl_onnx_layer(g, &s->layers[i], e);
    }
    if (r) {
        return r;
    }
    fl_pb_text(&last, 1, g->now.name);
    fl_pb_text(&last, 2, "output");
    fl_pb_text(&last, 3, "result");
    fl_pb_text(&last, 4, "Identity");
    fl_pb_message(&g->nodes, 1, &last);
    fl_pb_text(&g->nodes, 2, g->model->name);
    fl_pb_put(&g->nodes, g->values.at, g->values.size); /* fields of the same message */
    g->nodes.failed |= g->values.failed;
    put_value(&g->nodes, 11, "input", s->input);
    put_value(&g->nodes, 12, "output", s->layers[s->layer_count - 1].out_shape);
    return 0;
}

static void make_model(struct fl_pb *p, const struct fl_onnx *m, struct fl_pb *graph)
{
    struct fl_pb opset = {0};

    fl_pb_int(p, 1, MODEL_IR);
    fl_pb_text(p, 2, "cohort");
    fl_pb_message(p, 7, graph);
    fl_pb_text(&opset, 1, "");
    fl_pb_int(&opset, 2, MODEL_OPSET);
    fl_pb_message(p, 8, &opset);
    for (size_t i = 0; i < m->meta_count; i++) {
        struct fl_pb entry = {0};
        fl_pb_text(&entry, 1, m->meta[i].key);
        fl_pb_text(&entry, 2, m->meta[i].value);
        fl_pb_message(p, 14, &entry);
    }
}

int fl_onnx_write(const struct fl_onnx *model, uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    struct fl_onnx_graph *g = fl_try(1, sizeof *g);
    struct fl_pb all = {0};

    if (!g) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    g->model = model;
    int r = make_graph(g, e);
    if (r == 0) {
        make_model(&all, model, &g->nodes);
    }
    fl_free(g->values.at);
    fl_free(g->nodes.at);
    fl_free(g);
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
