/*
 * Fixed feature layers as ONNX operators. Scattering (run_scattering.c has the formulas) treats
 * every channel, and after a modulus every angle, as an image of its own: [images, 1, rows,
 * columns]. A convolution makes the real and imaginary parts of all angles beside each other, which
 * read as pairs have the modulus as their L2 norm.
 */
#include "common/base/mem.h"
#include "common/nn/kinds.h"
#include "common/nn/onnx_in.h"

#include <math.h>
#include <string.h>

typedef char name_t[FL_ONNX_NAME];

enum { PATHS_MAX = 1 + FL_SCATTERING_SCALES_MAX * (FL_SCATTERING_SCALES_MAX + 1) / 2 };

struct names { /* initializers that several nodes share */
    name_t waves[FL_SCATTERING_SCALES_MAX], low[FL_SCATTERING_SCALES_MAX + 1];
    name_t border[FL_SCATTERING_SCALES_MAX + 1];
    name_t part[PATHS_MAX]; /* what will be the outputs, [images of the input, paths, ...] */
    uint32_t parts;
};

static void add_border(struct fl_onnx_graph *g, uint32_t scale, struct names *n)
{
    int64_t r = fl_scattering_radius(scale);

    fl_onnx_ints(g, "border", (const int64_t[]){0, 0, r, r, 0, 0, r, r}, 8, false,
                 n->border[scale]);
}

/* Windows at every relative scale. */
static int add_filters(struct fl_onnx_graph *g, const struct fl_layer *l, struct names *n,
                       struct fl_err *e)
{
    size_t most = 2 * (size_t)fl_scattering_radius(l->scales) + 1;
    float *room = fl_try((2 * l->angles + 1) * most * most, sizeof *room);

    if (!room) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    for (uint32_t scale = 0; scale <= l->scales; scale++) {
        uint32_t side = 2 * fl_scattering_radius(scale) + 1;
        float *side_of = room + (size_t)side * side;
        add_border(g, scale, n);
        if (scale < l->scales) {
            fl_scattering_waves(l->angles, scale, room);
            fl_onnx_floats(g, "waves", (const uint32_t[]){2 * l->angles, 1, side, side}, 4, room,
                           n->waves[scale]);
        }
        if (scale > 0) {
            fl_scattering_gauss(scale, side_of);
            for (size_t i = 0; i < (size_t)side * side; i++) {
                room[i] = side_of[i / side] * side_of[i % side];
            }
            fl_onnx_floats(g, "low", (const uint32_t[]){1, 1, side, side}, 4, room, n->low[scale]);
        }
    }
    fl_free(room);
    return 0;
}

static void conv(struct fl_onnx_graph *g, const char *of, const char *border, const char *weight,
                 uint32_t scale, name_t ret)
{
    int64_t side = 2 * (int64_t)fl_scattering_radius(scale) + 1, step = (int64_t)1 << scale;
    struct fl_onnx_node n;
    name_t out[1];

    fl_onnx_begin(&n, "Pad");
    fl_onnx_in(&n, of);
    fl_onnx_in(&n, border);
    fl_onnx_attr_text(&n, "mode", "reflect");
    fl_onnx_end(g, &n, 1, out);
    fl_onnx_begin(&n, "Conv");
    fl_onnx_in(&n, out[0]);
    fl_onnx_in(&n, weight);
    fl_onnx_attr_ints(&n, "kernel_shape", (const int64_t[]){side, side}, 2);
    fl_onnx_attr_ints(&n, "strides", (const int64_t[]){step, step}, 2);
    fl_onnx_end(g, &n, 1, out);
    memcpy(ret, out[0], sizeof out[0]);
}

static int64_t side_at(uint32_t side, uint32_t scale)
{
    return (side + (1u << scale) - 1) >> scale;
}

/* Every angle an image of its own, at resolution `at`. */
static void modulus(struct fl_onnx_graph *g, const struct fl_layer *l, const char *of,
                    const struct names *names, uint32_t scale, uint32_t at, name_t ret)
{
    struct fl_onnx_node n;
    name_t out[1];

    conv(g, of, names->border[scale], names->waves[scale], scale, g->now.name);
    fl_onnx_reshape(
        g, (const int64_t[]){-1, 2, side_at(l->in_shape[1], at), side_at(l->in_shape[2], at)}, 4);
    fl_onnx_begin(&n, "ReduceL2");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_attr_ints(&n, "axes", (const int64_t[]){1}, 1);
    fl_onnx_attr_int(&n, "keepdims", 1);
    fl_onnx_end(g, &n, 1, out);
    memcpy(ret, out[0], sizeof out[0]);
}

static void smooth(struct fl_onnx_graph *g, const struct fl_layer *l, const char *of, uint32_t at,
                   uint32_t paths, struct names *n)
{
    uint32_t scale = l->scales - at;

    conv(g, of, n->border[scale], n->low[scale], scale, g->now.name);
    fl_onnx_reshape(g, (const int64_t[]){-1, paths, l->out_shape[1], l->out_shape[2]}, 4);
    memcpy(n->part[n->parts++], g->now.name, sizeof g->now.name);
}

static void concat(struct fl_onnx_graph *g, const struct names *names)
{
    struct fl_onnx_node n;
    name_t out[1];

    fl_onnx_begin(&n, "Concat");
    for (uint32_t i = 0; i < names->parts; i++) {
        fl_onnx_in(&n, names->part[i]);
    }
    fl_onnx_attr_int(&n, "axis", 1);
    fl_onnx_end(g, &n, 1, out);
    memcpy(g->now.name, out[0], sizeof out[0]);
}

int fl_onnx_scattering(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    struct names *n = fl_try(1, sizeof *n);
    name_t x, first[FL_SCATTERING_SCALES_MAX], second, sign;

    if (!n) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    fl_onnx_to_image(g);
    fl_onnx_reshape(g, (const int64_t[]){-1, 1, l->in_shape[1], l->in_shape[2]}, 4);
    memcpy(x, g->now.name, sizeof x);
    int r = add_filters(g, l, n, e);
    if (r == 0) {
        smooth(g, l, x, 0, 1, n);
    }
    for (uint32_t j = 0; r == 0 && j < l->scales; j++) {
        modulus(g, l, x, n, j, j, first[j]);
        smooth(g, l, first[j], j, l->angles, n);
    }
    for (uint32_t j = 0; r == 0 && l->order == 2 && j < l->scales; j++) {
        for (uint32_t k = j + 1; k < l->scales; k++) {
            modulus(g, l, first[j], n, k - j, k, second);
            smooth(g, l, second, k, l->angles * l->angles, n);
        }
    }
    if (r == 0) {
        concat(g, n);
        fl_onnx_reshape(g, (const int64_t[]){-1, l->out_shape[0], l->out_shape[1], l->out_shape[2]},
                        4);
    }
    if (r == 0 && l->root) {
        fl_onnx_op(g, "Sign", g->now.name, NULL, sign);
        fl_onnx_op(g, "Abs", g->now.name, NULL, g->now.name);
        fl_onnx_op(g, "Sqrt", g->now.name, NULL, g->now.name);
        fl_onnx_then(g, "Mul", sign);
    }
    fl_free(n);
    return r;
}

int fl_onnx_fourier(struct fl_onnx_graph *g, const struct fl_layer *l, struct fl_err *e)
{
    uint32_t in = l->in_shape[0];
    float *w = fl_try((in + (size_t)1) * l->out, sizeof *w);
    struct fl_onnx_node n;
    name_t weight, bias, out[1];

    if (!w) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the ONNX file");
    }
    fl_fourier_fill(l, w, w + (size_t)in * l->out);
    fl_onnx_to_vector(g);
    fl_onnx_floats(g, "weight", (const uint32_t[]){l->out, in}, 2, w, weight);
    fl_onnx_floats(g, "bias", &l->out, 1, w + (size_t)in * l->out, bias);
    fl_free(w);
    fl_onnx_begin(&n, "Gemm");
    fl_onnx_in(&n, g->now.name);
    fl_onnx_in(&n, weight);
    fl_onnx_in(&n, bias);
    fl_onnx_attr_int(&n, "transB", 1);
    fl_onnx_end(g, &n, 1, out);
    fl_onnx_op(g, "Cos", out[0], NULL, g->now.name);
    fl_onnx_then_number(g, "Mul", sqrtf(2 / (float)l->out));
    return 0;
}
