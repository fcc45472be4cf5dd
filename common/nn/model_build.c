/* From the layers of a spec to operations, values and memory; model.c says what they are. */
#include "common/base/mem.h"
#include "common/math/tile.h"
#include "common/nn/kinds.h"
#include "common/nn/model_in.h"

#include <assert.h>
#include <string.h>

static const struct fl_runner *const runners[FL_LAYER_KINDS] = {
    [FL_LAYER_GELU] = &fl_run_gelu,
    [FL_LAYER_TANH] = &fl_run_tanh,
    [FL_LAYER_AVG_POOL] = &fl_run_avg_pool,
    [FL_LAYER_GLOBAL_POOL] = &fl_run_global_pool,
    [FL_LAYER_GROUP_NORM] = &fl_run_group_norm,
    [FL_LAYER_LAYER_NORM] = &fl_run_layer_norm,
    [FL_LAYER_DROPOUT] = &fl_run_dropout,
    [FL_LAYER_EMBEDDING] = &fl_run_embedding,
    [FL_LAYER_SEQUENCE] = &fl_run_sequence,
    [FL_LAYER_POSITIONS] = &fl_run_positions,
    [FL_LAYER_ATTENTION] = &fl_run_attention,
    [FL_LAYER_GROUPED] = &fl_run_grouped,
    [FL_LAYER_FIRST_TOKEN] = &fl_run_first_token,
    [FL_LAYER_BATCH_NORM] = &fl_run_batch_norm,
    [FL_LAYER_SCATTERING] = &fl_run_scattering,
    [FL_LAYER_FOURIER] = &fl_run_fourier,
};

/* Runs example by example, and everything before it too. */
static bool is_single(const struct op *op)
{
    return op->kind == FL_LAYER_CONV2D || op->kind == FL_LAYER_MAX_POOL ||
           (op->kind != FL_LAYER_BATCH_NORM && op->layer->in_shape[2] > 1 &&
            op->kind != FL_LAYER_SEQUENCE && op->kind != FL_LAYER_LEAKY_RELU);
}

/* The order in which layers run; returns how many. */
static uint32_t arrange(const struct fl_spec *spec, const struct fl_layer *order[])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        const struct fl_layer *l = &spec->layers[i];
        if (l->kind == FL_LAYER_FLATTEN && l->in_shape[1] == 1 && l->in_shape[2] == 1) {
            continue;
        }
        order[n++] = l;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (order[i]->kind == FL_LAYER_LEAKY_RELU && order[i + 1]->kind == FL_LAYER_MAX_POOL) {
            const struct fl_layer *relu = order[i];
            order[i] = order[i + 1];
            order[i + 1] = relu;
        }
    }
    return n;
}

/* The next operation; `in` is the value that it takes. */
static struct op *add_op(struct fl_model *m, const struct fl_layer *l, enum fl_layer_kind kind,
                         uint32_t in, size_t count)
{
    struct op *op = &m->op[m->ops++];

    op->layer = l;
    op->kind = kind;
    op->runner = runners[kind];
    op->in = op->out = in;
    op->rows = l->in_shape[1];
    if (kind != FL_LAYER_LEAKY_RELU) {
        op->out = m->values++;
        m->value[op->out].count = count;
    }
    if (is_single(op)) {
        m->batched = m->ops;
    }
    return op;
}

/* Its tensors are the next of theta. */
static void add_tensors(struct fl_model *m, struct op *op)
{
    struct fl_weight weights[FL_LAYER_TENSORS_MAX];
    const struct fl_kind *kind = fl_kind_of(op->layer->kind);
    int count = kind->weights ? kind->weights(op->layer, weights) : 0;

    op->weight = op->bias = m->elements;
    for (int i = 0; i < count; i++) {
        size_t n = 1;
        for (uint32_t k = 0; k < weights[i].rank; k++) {
            n *= weights[i].shape[k];
        }
        op->bias = i == 0 ? op->weight + n : op->bias;
        op->elements += n;
    }
    m->elements += op->elements;
    if (count && m->first > (uint32_t)(op - m->op)) {
        m->first = (uint32_t)(op - m->op);
    }
}

static void plan_ops(struct fl_model *m)
{
    const struct fl_layer *order[FL_SPEC_LAYERS_MAX];
    uint32_t count = arrange(&m->spec, order), open[FL_SPEC_LAYERS_MAX], depth = 0, at = 0;

    m->first = OPS_MAX;
    m->value[0].count = fl_run_in(&m->spec.layers[0]);
    m->values = 1;
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_layer *l = order[i];
        uint32_t around = 0;
        if (l->kind == FL_LAYER_FORK) {
            open[depth++] = at;
        } else if (l->kind == FL_LAYER_JOIN) {
            around = open[--depth];
            if (fl_join_projects(l)) {
                struct op *way = add_op(m, l, FL_LAYER_CONV2D, around, fl_run_out(l));
                add_tensors(m, way);
                around = way->out;
            }
        }
        struct op *op = add_op(m, l, l->kind, at, fl_run_out(l));
        op->second = around;
        if (l->kind != FL_LAYER_JOIN) {
            add_tensors(m, op);
        }
        at = op->out;
    }
    m->first = m->first < m->ops ? m->first : m->ops;
    m->whole = fl_spec_together(&m->spec) != NULL;
    for (uint32_t i = 0; i < m->ops; i++) {
        m->op[i].single = m->whole ? is_single(&m->op[i]) : i < m->batched;
    }
}

static void keep_value(struct value *v)
{
    v->each = v->count;
}

static void plan_values(struct fl_model *m)
{
    uint32_t boundary = m->batched < m->ops ? m->op[m->batched].in : m->values - 1;

    for (uint32_t i = 0; i < m->ops; i++) {
        const struct op *op = &m->op[i];
        if (op->elements || op->kind == FL_LAYER_LEAKY_RELU || op->runner) {
            keep_value(&m->value[op->in]);
        }
        if (op->runner) {
            keep_value(&m->value[op->out]);
        }
        if (op->kind == FL_LAYER_JOIN) { /* it may run for a shard, its FORK for an example */
            m->value[op->second].each = m->value[op->second].d_each = m->value[op->second].count;
        }
    }
    for (uint32_t v = m->whole ? 0 : boundary; v < m->values; v++) {
        m->value[v].each = m->value[v].d_each = m->value[v].count;
    }
}

static bool new_values(struct fl_model *m)
{
    for (uint32_t v = 0; v < m->values; v++) {
        struct value *value = &m->value[v];
        size_t n = value->each ? m->shard : 1, dn = value->d_each ? m->shard : 1;
        value->at = fl_try_aligned(n * value->count + FL_SLACK, sizeof(float));
        value->d = fl_try_aligned(dn * value->count + FL_SLACK, sizeof(float));
        if (!value->at || !value->d) {
            return false;
        }
    }
    return true;
}

/* `from`: the shape that it takes, another one than the layer's on the way round a block. */
static bool new_conv(struct fl_conv *c, const struct fl_layer *l, const uint32_t from[3])
{
    bool round = l->kind == FL_LAYER_JOIN;

    c->channels = from[0];
    c->height = from[1];
    c->width = from[2];
    c->out = l->out;
    c->kernel = round ? 1 : l->kernel;
    c->stride = l->stride;
    c->padding = round ? 0 : l->padding;
    c->out_height = l->out_shape[1];
    c->out_width = l->out_shape[2];
    return fl_conv_init(c);
}

static bool new_op(struct fl_model *m, struct op *op)
{
    const struct fl_layer *l = op->layer;
    bool factors = op->kind == FL_LAYER_LINEAR && op->rows == 1;

    if (op->kind == FL_LAYER_CONV2D) {
        const uint32_t *from =
            l->kind == FL_LAYER_JOIN ? m->spec.layers[l->fork].in_shape : l->in_shape;
        if (!new_conv(&op->conv, l, from)) {
            return false;
        }
    } else if (op->kind == FL_LAYER_MAX_POOL) {
        op->place = fl_try(m->shard, m->value[op->out].count);
        if (!op->place) {
            return false;
        }
    }
    if (op->runner && op->runner->kept) {
        op->kept_each = op->runner->kept(l);
        op->kept = fl_try_aligned(m->shard * op->kept_each + 1, sizeof(float));
        if (!op->kept) {
            return false;
        }
    }
    if (op->runner && op->runner->scratch) {
        size_t at_once = op->single ? 1 : m->shard;
        op->scratch = fl_try_aligned(at_once * op->runner->scratch(l) + 1, sizeof(float));
        if (!op->scratch) {
            return false;
        }
    }
    if (op->runner && op->runner->open) {
        op->state = op->runner->open(l);
        if (!op->state) {
            return false;
        }
    }
    if (fl_tile_fast() &&
        (op->kind == FL_LAYER_ATTENTION || (op->kind == FL_LAYER_LINEAR && op->rows > 1))) {
        op->turned = fl_try_aligned(op->elements, sizeof(float));
        if (!op->turned) {
            return false;
        }
    }
    if (op->elements && !factors) {
        op->own = fl_try_aligned(op->elements, sizeof(float));
        return op->own != NULL;
    }
    return true;
}

static bool new_ops(struct fl_model *m)
{
    for (uint32_t i = 0; i < m->ops; i++) {
        if (!new_op(m, &m->op[i])) {
            return false;
        }
    }
    return true;
}

int fl_model_new(const struct fl_spec *spec, uint32_t shard, struct fl_model **ret,
                 struct fl_err *e)
{
    struct fl_model *m = fl_try(1, sizeof *m);

    assert(shard > 0);
    if (!m) {
        return fl_fail(e, FL_R_NOMEM, "a network of %u layers", spec->layer_count);
    }
    m->spec = *spec;
    m->shard = shard;
    plan_ops(m);
    plan_values(m);
    if (!new_values(m) || !new_ops(m)) {
        fl_model_free(m);
        return fl_fail(e, FL_R_NOMEM, "a network of %u layers for %u examples at once",
                       spec->layer_count, shard);
    }
    *ret = m;
    return 0;
}

size_t fl_model_held(const struct fl_spec *spec)
{
    struct fl_model *m = fl_try(1, sizeof *m);
    size_t sum = 0;

    if (!m) {
        return 0;
    }
    m->spec = *spec;
    plan_ops(m);
    plan_values(m);
    for (uint32_t v = 0; v < m->values; v++) {
        sum += m->value[v].each + m->value[v].d_each;
    }
    for (uint32_t i = 0; i < m->ops; i++) {
        const struct fl_runner *runner = m->op[i].runner;
        sum += runner && runner->kept ? runner->kept(m->op[i].layer) : 0;
    }
    fl_free(m);
    return sum;
}

void fl_model_free(struct fl_model *m)
{
    if (!m) {
        return;
    }
    for (uint32_t i = 0; i < m->ops; i++) {
        fl_conv_fini(&m->op[i].conv);
        fl_free(m->op[i].place);
        fl_free(m->op[i].kept);
        fl_free(m->op[i].scratch);
        fl_free(m->op[i].own);
        fl_free(m->op[i].turned);
        if (m->op[i].runner && m->op[i].runner->close) {
            m->op[i].runner->close(m->op[i].state);
        }
    }
    for (uint32_t v = 0; v < m->values; v++) {
        fl_free(m->value[v].at);
        fl_free(m->value[v].d);
    }
    if (m->drops) {
        fl_rng_fini(&m->drop);
    }
    fl_free(m);
}

/* ---- halves ---- */

void fl_spec_cut(const struct fl_spec *spec, uint32_t at, struct fl_spec part[2])
{
    part[0] = part[1] = *spec;
    part[0].layer_count = at;
    part[1].layer_count = spec->layer_count - at;
    memcpy(part[1].input, spec->layers[at].in_shape, sizeof part[1].input);
    memset(part[1].layers, 0, sizeof part[1].layers);
    memcpy(part[1].layers, spec->layers + at, part[1].layer_count * sizeof spec->layers[0]);
    for (uint32_t i = 0; i < part[1].layer_count; i++) {
        part[1].layers[i].fork -= part[1].layers[i].kind == FL_LAYER_JOIN ? at : 0;
    }
}

int fl_spec_split(const struct fl_spec *spec, struct fl_spec half[2], size_t *ret_body_elements,
                  struct fl_err *e)
{
    uint32_t weighted = fl_spec_weighted(spec), cut = fl_spec_head(spec);
    size_t elements = 0;

    if (spec->head == 0 || spec->head >= weighted) {
        return fl_fail(e, FL_R_PLAN_MODEL, "a model of %u layers with weights and a head of %u",
                       weighted, spec->head);
    }
    for (uint32_t i = 0; i < cut; i++) {
        struct fl_weight weights[FL_LAYER_TENSORS_MAX];
        const struct fl_kind *kind = fl_kind_of(spec->layers[i].kind);
        int count = kind->weights ? kind->weights(&spec->layers[i], weights) : 0;
        for (int w = 0; w < count; w++) {
            size_t n = 1;
            for (uint32_t k = 0; k < weights[w].rank; k++) {
                n *= weights[w].shape[k];
            }
            elements += n;
        }
    }
    fl_spec_cut(spec, cut, half);
    *ret_body_elements = elements;
    return 0;
}
