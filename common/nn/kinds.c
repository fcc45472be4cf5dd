/*
 * The kinds of layers: their words, shapes and tensors. What they compute is in model.c, conv.c,
 * image.c and sequence.c.
 */
#include "common/nn/kinds.h"

#include <string.h>

enum { ELEMENTS_MAX = 1 << 26 };

static int refuse(struct fl_err *e, const char *what)
{
    return fl_fail(e, FL_R_PLAN_MODEL, "%s", what);
}

static bool is_vector(const uint32_t shape[3])
{
    return shape[1] == 1 && shape[2] == 1;
}

/* One spatial side: how many places a window of `kernel` has. 0 = it does not fit. */
static uint32_t places(uint32_t side, uint32_t kernel, uint32_t stride, uint32_t padding)
{
    uint64_t padded = (uint64_t)side + 2 * (uint64_t)padding;

    return padded < kernel ? 0 : (uint32_t)((padded - kernel) / stride + 1);
}

/* ---- shapes ---- */

static int conv_shape(struct fl_layer *l, struct fl_err *e)
{
    if (l->out == 0 || l->kernel == 0) {
        return refuse(e, "a convolution needs out and kernel above 0");
    }
    if (l->stride == 0) {
        l->stride = 1;
    }
    if (l->kernel > 256 || l->stride > 256 || l->padding >= l->kernel) {
        return refuse(e, "kernel and stride are at most 256, padding is less than the kernel");
    }
    l->out_shape[0] = l->out;
    for (int k = 1; k < 3; k++) {
        l->out_shape[k] = places(l->in_shape[k], l->kernel, l->stride, l->padding);
        if (l->out_shape[k] == 0) {
            return refuse(e, "the kernel is larger than its padded input");
        }
    }
    uint64_t patch = (uint64_t)l->in_shape[0] * l->kernel * l->kernel;
    if (patch > ELEMENTS_MAX || patch * l->out > ELEMENTS_MAX ||
        patch * ((uint64_t)l->out_shape[1] * l->out_shape[2]) > ELEMENTS_MAX) {
        return refuse(e, "more than 2^26 weights, or patch elements of one example");
    }
    return 0;
}

static int grouped_shape(struct fl_layer *l, struct fl_err *e)
{
    if (l->groups == 0 || l->in_shape[0] % l->groups != 0 || l->out % l->groups != 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "%u groups do not divide %u channels and out %u",
                       l->groups, l->in_shape[0], l->out);
    }
    return conv_shape(l, e);
}

static int first_token_shape(struct fl_layer *l, struct fl_err *e)
{
    l->out_shape[1] = 1;
    return l->in_shape[2] == 1 ? 0 : refuse(e, "it takes a sequence");
}

static int pool_shape(struct fl_layer *l, struct fl_err *e)
{
    if (l->kernel == 0 || l->kernel > 15) {
        return refuse(e, l->kind == FL_LAYER_MAX_POOL ? "the window of a max-pool is 1 to 15"
                                                      : "the window of a pool is 1 to 15");
    }
    for (int k = 1; k < 3; k++) {
        l->out_shape[k] = places(l->in_shape[k], l->kernel, l->kernel, 0);
        if (l->out_shape[k] == 0) {
            return refuse(e, "the window is larger than its input");
        }
    }
    return 0;
}

static int linear_shape(struct fl_layer *l, struct fl_err *e)
{
    if (l->out == 0) {
        return refuse(e, "a linear layer needs out above 0");
    }
    if (l->in_shape[2] != 1) {
        return refuse(e, "a linear layer takes a vector: put a flatten before it");
    }
    if ((uint64_t)l->out * l->in_shape[0] > ELEMENTS_MAX) {
        return refuse(e, "more than 2^26 weights");
    }
    l->out_shape[0] = l->out;
    return 0;
}

static int leaky_shape(struct fl_layer *l, struct fl_err *e)
{
    return l->slope >= 0 && l->slope < 1 ? 0 : refuse(e, "the slope is at least 0 and below 1");
}

static int flatten_shape(struct fl_layer *l, struct fl_err *e)
{
    (void)e;
    l->out_shape[0] = (uint32_t)fl_shape_elements(l->in_shape);
    l->out_shape[1] = l->out_shape[2] = 1;
    return 0;
}

static int same_shape(struct fl_layer *l, struct fl_err *e)
{
    (void)l;
    (void)e;
    return 0;
}

static int global_shape(struct fl_layer *l, struct fl_err *e)
{
    (void)e;
    l->out_shape[1] = l->out_shape[2] = 1;
    return 0;
}

static int group_norm_shape(struct fl_layer *l, struct fl_err *e)
{
    if (l->groups == 0 || l->in_shape[0] % l->groups != 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "%u groups do not divide %u channels", l->groups,
                       l->in_shape[0]);
    }
    return 0;
}

static int layer_norm_shape(struct fl_layer *l, struct fl_err *e)
{
    return l->in_shape[2] == 1
               ? 0
               : refuse(e, "a layer norm takes a vector or a sequence; for images use group_norm");
}

static int dropout_shape(struct fl_layer *l, struct fl_err *e)
{
    return l->rate >= 0 && l->rate < 1 ? 0 : refuse(e, "the rate is at least 0 and below 1");
}

static int embedding_shape(struct fl_layer *l, struct fl_err *e)
{
    uint64_t rows = 0;

    if (!is_vector(l->in_shape)) {
        return refuse(e, "an embedding takes a vector of columns");
    }
    if (l->category_count == 0 || l->category_count > FL_SPEC_CATEGORIES_MAX ||
        l->category_count > l->in_shape[0] || l->out == 0) {
        return fl_fail(e, FL_R_PLAN_MODEL,
                       "an embedding needs 1 to %d categories, no more than the %u columns, and a "
                       "width above 0",
                       FL_SPEC_CATEGORIES_MAX, l->in_shape[0]);
    }
    for (uint32_t i = 0; i < l->category_count; i++) {
        rows += l->categories[i];
        if (l->categories[i] < 1 || rows * l->out > ELEMENTS_MAX) {
            return refuse(e, "a category of size 0, or more than 2^26 embedded values");
        }
    }
    uint64_t columns = l->in_shape[0] - l->category_count + (uint64_t)l->category_count * l->out;
    if (columns > ELEMENTS_MAX) {
        return refuse(e, "more than 2^26 columns");
    }
    l->out_shape[0] = (uint32_t)columns;
    return 0;
}

static int sequence_shape(struct fl_layer *l, struct fl_err *e)
{
    if (l->in_shape[0] != 1) {
        return refuse(e, "a sequence is made of an input [1, length, width]");
    }
    l->out_shape[0] = l->in_shape[2];
    l->out_shape[2] = 1;
    return 0;
}

static int token_shape(struct fl_layer *l, struct fl_err *e)
{
    return l->in_shape[2] == 1 ? 0 : refuse(e, "it takes a sequence");
}

static int attention_shape(struct fl_layer *l, struct fl_err *e)
{
    uint64_t width = l->in_shape[0], length = l->in_shape[1];

    if (l->in_shape[2] != 1) {
        return refuse(e, "attention takes a sequence");
    }
    if (l->heads == 0 || width % l->heads != 0) {
        return fl_fail(e, FL_R_PLAN_MODEL, "%u heads do not divide a width of %u", l->heads,
                       l->in_shape[0]);
    }
    if (3 * width * width > ELEMENTS_MAX || length * length > ELEMENTS_MAX ||
        length * length * l->heads > ELEMENTS_MAX || 3 * width * length > ELEMENTS_MAX) {
        return refuse(e, "more than 2^26 weights, or scores of one example");
    }
    return 0;
}

static int join_shape(struct fl_layer *l, struct fl_err *e)
{
    (void)e;
    l->stride = l->stride ? l->stride : 1;
    return 0; /* fl_spec_check compares both ways */
}

/* Reflection needs windows that reach less far than the image, at every resolution. */
static int scattering_shape(struct fl_layer *l, struct fl_err *e)
{
    uint64_t scales = l->scales, angles = l->angles;

    if (l->scales < 1 || l->scales > FL_SCATTERING_SCALES_MAX || l->angles < 1 ||
        l->angles > FL_SCATTERING_ANGLES_MAX || l->order < 1 || l->order > 2) {
        return fl_fail(e, FL_R_PLAN_MODEL, "scales are 1 to %d, angles 1 to %d, the order 1 or 2",
                       FL_SCATTERING_SCALES_MAX, FL_SCATTERING_ANGLES_MAX);
    }
    for (uint32_t at = 0; at < l->scales; at++) {
        uint32_t reach = fl_scattering_radius(l->scales - at), step = 1u << at;
        for (int k = 1; k < 3; k++) {
            if ((l->in_shape[k] + step - 1) / step <= reach) {
                return fl_fail(e, FL_R_PLAN_MODEL,
                               "windows of %u scales are too large for an image of %u x %u",
                               l->scales, l->in_shape[1], l->in_shape[2]);
            }
        }
    }
    uint64_t paths =
        1 + scales * angles + (l->order == 2 ? angles * angles * scales * (scales - 1) / 2 : 0);
    if (paths * l->in_shape[0] > ELEMENTS_MAX ||
        2 * angles * l->in_shape[1] * l->in_shape[2] > ELEMENTS_MAX) {
        return refuse(e, "more than 2^26 values");
    }
    l->out_shape[0] = (uint32_t)paths * l->in_shape[0];
    for (int k = 1; k < 3; k++) {
        l->out_shape[k] = (l->in_shape[k] + (1u << l->scales) - 1) >> l->scales;
    }
    return 0;
}

static int fourier_shape(struct fl_layer *l, struct fl_err *e)
{
    if (!(l->bandwidth >= 0)) {
        return refuse(e, "the bandwidth is at least 0");
    }
    return is_vector(l->in_shape) ? linear_shape(l, e)
                                  : refuse(e, "it takes a vector: put a flatten before it");
}

/* ---- tensors ---- */

static int weight_and_bias(struct fl_weight *w, uint32_t out, uint32_t in, uint32_t kernel)
{
    uint32_t fan_in = in * kernel * kernel;

    w[0] = (struct fl_weight){
        "weight",       kernel ? 4 : 2, {out, in, kernel, kernel}, kernel ? fan_in : in,
        FL_INIT_FAN_IN, false};
    w[1] = (struct fl_weight){"bias", 1, {out}, w[0].fan_in, FL_INIT_FAN_IN, false};
    return 2;
}

static int conv_weights(const struct fl_layer *l, struct fl_weight *w)
{
    return weight_and_bias(w, l->out, l->in_shape[0], l->kernel);
}

static int grouped_weights(const struct fl_layer *l, struct fl_weight *w)
{
    return weight_and_bias(w, l->out, l->in_shape[0] / l->groups, l->kernel);
}

static int linear_weights(const struct fl_layer *l, struct fl_weight *w)
{
    return weight_and_bias(w, l->out, l->in_shape[0], 0);
}

static int norm_weights(const struct fl_layer *l, struct fl_weight *w)
{
    w[0] = (struct fl_weight){"weight", 1, {l->in_shape[0]}, l->in_shape[0], FL_INIT_ONE, false};
    w[1] = (struct fl_weight){"bias", 1, {l->in_shape[0]}, l->in_shape[0], FL_INIT_ZERO, false};
    return 2;
}

static int batch_norm_weights(const struct fl_layer *l, struct fl_weight *w)
{
    uint32_t channels = l->in_shape[0];

    norm_weights(l, w);
    w[2] = (struct fl_weight){"mean", 1, {channels}, channels, FL_INIT_ZERO, true};
    w[3] = (struct fl_weight){"variance", 1, {channels}, channels, FL_INIT_ONE, true};
    return 4;
}

static int embedding_weights(const struct fl_layer *l, struct fl_weight *w)
{
    uint32_t rows = 0;

    for (uint32_t i = 0; i < l->category_count; i++) {
        rows += l->categories[i];
    }
    w[0] = (struct fl_weight){"weight", 2, {rows, l->out}, l->out, FL_INIT_NORMAL, false};
    return 1;
}

static int positions_weights(const struct fl_layer *l, struct fl_weight *w)
{
    if (l->sinusoidal) {
        return 0;
    }
    w[0] = (struct fl_weight){"weight",      2,    {l->in_shape[1], l->in_shape[0]}, l->in_shape[0],
                              FL_INIT_SMALL, false};
    return 1;
}

static int attention_weights(const struct fl_layer *l, struct fl_weight *w)
{
    uint32_t width = l->in_shape[0];

    w[0] = (struct fl_weight){"in.weight", 2, {3 * width, width}, width, FL_INIT_XAVIER, false};
    w[1] = (struct fl_weight){"in.bias", 1, {3 * width}, width, FL_INIT_ZERO, false};
    w[2] = (struct fl_weight){"out.weight", 2, {width, width}, width, FL_INIT_FAN_IN, false};
    w[3] = (struct fl_weight){"out.bias", 1, {width}, width, FL_INIT_ZERO, false};
    return 4;
}

static int join_weights(const struct fl_layer *l, struct fl_weight *w)
{
    return l->out ? weight_and_bias(w, l->out, l->around, 1) : 0;
}

/* ---- the table ---- */

static const struct fl_kind kinds[FL_LAYER_KINDS] = {
    [FL_LAYER_CONV2D] = {"conv2d", "conv", conv_shape, conv_weights, true, false, false},
    [FL_LAYER_MAX_POOL] = {"max_pool", "pool", pool_shape, NULL, true, false, false},
    [FL_LAYER_LINEAR] = {"linear", "fc", linear_shape, linear_weights, true, false, false},
    [FL_LAYER_LEAKY_RELU] = {"leaky_relu", "relu", leaky_shape, NULL, true, false, false},
    [FL_LAYER_FLATTEN] = {"flatten", "flatten", flatten_shape, NULL, true, false, false},
    [FL_LAYER_GELU] = {"gelu", "gelu", same_shape, NULL, true, false, false},
    [FL_LAYER_TANH] = {"tanh", "tanh", same_shape, NULL, true, false, false},
    [FL_LAYER_AVG_POOL] = {"avg_pool", "avgpool", pool_shape, NULL, true, false, false},
    [FL_LAYER_GLOBAL_POOL] = {"global_pool", "global", global_shape, NULL, true, false, false},
    [FL_LAYER_GROUP_NORM] = {"group_norm", "gn", group_norm_shape, norm_weights, false, true,
                             false},
    [FL_LAYER_LAYER_NORM] = {"layer_norm", "ln", layer_norm_shape, norm_weights, false, true,
                             false},
    [FL_LAYER_DROPOUT] = {"dropout", "dropout", dropout_shape, NULL, true, false, false},
    [FL_LAYER_EMBEDDING] = {"embedding", "embed", embedding_shape, embedding_weights, false, false,
                            false},
    [FL_LAYER_SEQUENCE] = {"sequence", "sequence", sequence_shape, NULL, true, false, false},
    [FL_LAYER_POSITIONS] = {"positions", "positions", token_shape, positions_weights, false, false,
                            false},
    [FL_LAYER_ATTENTION] = {"attention", "attention", attention_shape, attention_weights, false,
                            false, false},
    [FL_LAYER_FORK] = {"residual", "residual", same_shape, NULL, true, false, false},
    [FL_LAYER_GROUPED] = {"conv2d", "gconv", grouped_shape, grouped_weights, true, false, false},
    [FL_LAYER_FIRST_TOKEN] = {"first_token", "first", first_token_shape, NULL, true, false, false},
    [FL_LAYER_SCATTERING] = {"scattering", "scattering", scattering_shape, NULL, true, false, true},
    [FL_LAYER_BATCH_NORM] = {"batch_norm", "bn", same_shape, batch_norm_weights, false, true,
                             false},
    [FL_LAYER_FOURIER] = {"fourier", "fourier", fourier_shape, NULL, true, false, true},
    [FL_LAYER_JOIN] = {"join", "join", join_shape, join_weights, true, false, false},
};

const struct fl_kind *fl_kind_of(enum fl_layer_kind kind)
{
    return (unsigned)kind < FL_LAYER_KINDS ? &kinds[kind] : NULL;
}

const char *fl_layer_word(enum fl_layer_kind kind)
{
    return fl_kind_of(kind) ? kinds[kind].word : "?";
}
