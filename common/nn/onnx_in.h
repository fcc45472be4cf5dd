/* An ONNX file being written: protobuf rows, nodes, initializers. For onnx*.c only. */
#ifndef FL_NN_ONNX_IN_H
#define FL_NN_ONNX_IN_H

#include "common/nn/onnx.h"

#include <stdbool.h>

enum { FL_ONNX_NAME = 96 };

/* Grows; after a failure everything is ignored until it is looked at. */
struct fl_pb {
    uint8_t *at;
    size_t size, room;
    bool failed;
};
void fl_pb_put(struct fl_pb *p, const void *bytes, size_t size);
void fl_pb_int(struct fl_pb *p, unsigned field, uint64_t x);
void fl_pb_text(struct fl_pb *p, unsigned field, const char *text);
/* An inner message, which is used up. */
void fl_pb_message(struct fl_pb *p, unsigned field, struct fl_pb *inner);

/* How the value that flows is laid out. Images are [N, C, H, W] and tokens [N, L, W], as ONNX's
 * operators want them. */
enum fl_onnx_form { FL_ONNX_VECTOR, FL_ONNX_IMAGE, FL_ONNX_TOKENS };

struct fl_onnx_value {
    char name[FL_ONNX_NAME];
    enum fl_onnx_form form;
};

struct fl_onnx_graph {
    const struct fl_onnx *model;
    struct fl_pb nodes, values; /* fields of the GraphProto */
    struct fl_onnx_value now;   /* what the last layer made */
    struct fl_onnx_value forks[FL_SPEC_LAYERS_MAX];
    uint32_t depth;
    const char *layer; /* names begin with it */
    unsigned count;    /* of names */
};

struct fl_onnx_node {
    struct fl_pb pb;
};
void fl_onnx_begin(struct fl_onnx_node *n, const char *op);
void fl_onnx_in(struct fl_onnx_node *n, const char *name);
void fl_onnx_attr_int(struct fl_onnx_node *n, const char *name, int64_t x);
void fl_onnx_attr_ints(struct fl_onnx_node *n, const char *name, const int64_t *x, uint32_t count);
void fl_onnx_attr_text(struct fl_onnx_node *n, const char *name, const char *text);
void fl_onnx_attr_float(struct fl_onnx_node *n, const char *name, float x);
/* Ends a node of `outputs` (1 to 3) values, whose new names are at ret. */
void fl_onnx_end(struct fl_onnx_graph *g, struct fl_onnx_node *n, unsigned outputs,
                 char ret[][FL_ONNX_NAME]);
/* A node of one or two inputs (b may be NULL) and no attribute: in -> ret. */
void fl_onnx_op(struct fl_onnx_graph *g, const char *op, const char *a, const char *b,
                char ret[FL_ONNX_NAME]);

/* Initializers; `ret` is the name, which begins with the layer's and ends with `what`. */
void fl_onnx_floats(struct fl_onnx_graph *g, const char *what, const uint32_t *dims, uint32_t rank,
                    const float *x, char ret[FL_ONNX_NAME]);
void fl_onnx_float(struct fl_onnx_graph *g, const char *what, float x, char ret[FL_ONNX_NAME]);
/* int64, one dimension; scalar: none. */
void fl_onnx_ints(struct fl_onnx_graph *g, const char *what, const int64_t *x, uint32_t count,
                  bool scalar, char ret[FL_ONNX_NAME]);

/* Another form of what flows, where it has not that form already. */
void fl_onnx_to_image(struct fl_onnx_graph *g);
void fl_onnx_to_vector(struct fl_onnx_graph *g);
/* A node of the value that flows and one other, or a number, or a shape. */
void fl_onnx_then(struct fl_onnx_graph *g, const char *op, const char *other);
void fl_onnx_then_number(struct fl_onnx_graph *g, const char *op, float x);
void fl_onnx_reshape(struct fl_onnx_graph *g, const int64_t *dims, uint32_t rank);

/* Fixed layers (onnx_fixed.c). */
int fl_onnx_scattering(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e);
int fl_onnx_fourier(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e);

/* One layer: changes g->now (onnx_layers.c). */
int fl_onnx_layer(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e);

#endif
