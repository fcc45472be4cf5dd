/*
 * Gradients of single examples, in pieces.
 *
 * What concerns all examples alike, the way forward and the gradients that flow back, runs for a
 * shard at once; a linear layer's factors then stand in the values for every example, as what went
 * in and what came back, and attention keeps its own (fl_runner.factors). Only what comes before
 * the last operation on images goes back example by example.
 *
 * Over T tokens a weight's gradient is G = g^T a, T x out and T x in. Its squared norm is
 * sum_{t,u} (g_t . g_u)(a_t . a_u), some T^2 (in + out) multiplications for the two norms that
 * clipping takes, with G never written (Goodfellow 2015 for T = 1; Li et al. 2021, arXiv
 * 2110.05679, "ghost clipping", for sequences). Written out, G costs the T in out multiplications
 * that either way are due once for the sum, and passes over its elements that take the time of
 * WRITTEN multiplications each. The cheaper of the two is chosen from the shapes alone.
 *
 * Bits: nothing here depends on which examples run together, which holds where the register tiles
 * do the products (common/math/tile.h). Elsewhere examples run one by one.
 */
#include "common/math/blas.h"
#include "common/math/tile.h"
#include "common/math/vec.h"
#include "common/nn/model_in.h"

#include <assert.h>
#include <string.h>

enum { WRITTEN = 8, TOKENS_MAX = 4096, SIDE_MAX = 65536 };

/* Whether factors of so many tokens are cheaper than the product. The bounds are those of the
 * argument that norms of rounded factors are exact, the trainer's. */
static bool by_factors(size_t rows, size_t in, size_t out)
{
    double ghost = (double)rows * (double)rows * (double)(in + out);

    return fl_tile_fast() && rows <= TOKENS_MAX && in <= SIDE_MAX && out <= SIDE_MAX &&
           ghost < WRITTEN * (double)in * (double)out;
}

/* Whether the batched part gives each example the bits that it would have alone. */
static bool separable(const struct fl_model *m)
{
    for (uint32_t i = m->batched; i < m->ops; i++) {
        const struct op *op = &m->op[i];
        if (op->runner && op->runner->mixes && (op->kind != FL_LAYER_DROPOUT || m->drops)) {
            return false;
        }
    }
    return fl_tile_fast() && !m->whole;
}

static bool has_factors(const struct op *op)
{
    return op->kind == FL_LAYER_LINEAR || (op->runner && op->runner->factors);
}

double fl_model_examples(struct fl_model *m, const float *x, const void *y, size_t count)
{
    struct fl_score sum = {0};

    assert(count <= m->shard);
    m->each_x = x;
    m->each_y = y;
    m->each_count = count;
    m->together = separable(m);
    if (m->together) {
        fl_ops_forward(m, x, count);
        fl_ops_score(m, y, count, 1, &sum);
        for (uint32_t i = m->ops; i-- > m->batched && i >= m->first;) {
            fl_op_backward(m, i, 0, count, NULL);
        }
        return sum.loss;
    }
    fl_model_score(m, x, y, count, &sum);
    return sum.loss;
}

/* ---- one operation's pieces, of the example whose values are at place `at` ---- */

static uint32_t conv_piece(struct op *op, struct fl_piece *p)
{
    struct fl_conv *c = &op->conv;

    fl_conv_end(c);
    *p = (struct fl_piece){.weight = op->weight,
                           .bias = op->bias,
                           .out = op->layer->out,
                           .in = c->patch,
                           .d = c->dbias};
    if (c->across) {
        p->w = c->dweight;
        p->window = c->kernel * c->kernel;
    } else {
        fl_conv_unpack(c, c->dweight, op->own, 1);
        p->w = op->own;
    }
    return 1;
}

/* Whether its gradient goes into `own`: all tensors of the layer in one, nothing is gained by
 * factors. */
static bool is_own(const struct op *op)
{
    return op->elements && op->kind != FL_LAYER_CONV2D && !has_factors(op);
}

static uint32_t own_piece(struct fl_model *m, struct op *op, size_t at, struct fl_piece *p)
{
    if (m->together && !op->single) { /* it went back with the shard */
        struct fl_run run = fl_run_of(m, op, at, 1);
        run.dy = m->value[op->out].d + at * m->value[op->out].d_each;
        run.grad = op->own;
        op->runner->backward(&run);
    }
    *p = (struct fl_piece){
        .weight = op->weight, .bias = op->weight, .out = op->elements, .d = op->own, .w = op->own};
    return 1;
}

static void write_out(size_t rows, size_t in, size_t out, const float *a, const float *g, float *to)
{
    if (fl_tile_fast()) {
        struct fl_tile t = {
            .m = out, .n = in, .k = rows, .segments = 1, .lda = out, .ldb = in, .ldc = in};
        fl_tile_tn(&t, g, a, false, to);
    } else {
        fl_blas_gemm(true, false, out, in, rows, 1, g, out, a, in, 0, to, in);
    }
}

static uint32_t token_pieces(struct fl_model *m, struct op *op, size_t at, struct fl_piece *p)
{
    const struct value *in = &m->value[op->in], *out = &m->value[op->out];
    struct fl_factors f[FL_FACTORS_MAX] = {{0}};
    uint32_t count = 1;

    if (op->kind == FL_LAYER_LINEAR) {
        f[0] = (struct fl_factors){0, op->layer->in_shape[0], op->layer->out,
                                   in->at + at * in->each, out->d + at * out->d_each};
    } else {
        bool shard = m->together && !op->single;
        struct fl_run run = fl_run_of(m, op, shard ? 0 : at, shard ? m->each_count : 1);
        run.dy = out->d + (shard ? 0 : at) * out->d_each;
        count = op->runner->factors(&run, shard ? at : 0, f);
    }
    for (uint32_t k = 0; k < count; k++, p++) {
        float *w = op->own ? op->own + f[k].at : NULL, *d = w ? w + f[k].in * f[k].out : NULL;
        *p = (struct fl_piece){.weight = op->weight + f[k].at,
                               .bias = op->weight + f[k].at + f[k].in * f[k].out,
                               .out = f[k].out,
                               .in = f[k].in,
                               .rows = op->rows,
                               .a = f[k].a,
                               .d = d};
        if (op->rows == 1 && op->kind == FL_LAYER_LINEAR) {
            p->d = f[k].g;
            continue;
        }
        memset(d, 0, f[k].out * sizeof *d);
        fl_vec_sum_rows(f[k].g, op->rows, f[k].out, d);
        if (by_factors(op->rows, f[k].in, f[k].out)) {
            p->g = f[k].g;
        } else {
            write_out(op->rows, f[k].in, f[k].out, f[k].a, f[k].g, w);
            p->a = NULL;
            p->w = w;
        }
    }
    return count;
}

static uint32_t pieces_of(struct fl_model *m, struct op *op, size_t at, struct fl_piece *p)
{
    if (op->kind == FL_LAYER_CONV2D) {
        return conv_piece(op, p);
    }
    return has_factors(op) ? token_pieces(m, op, at, p) : own_piece(m, op, at, p);
}

static void clear_sums(struct fl_model *m)
{
    for (uint32_t i = 0; i < m->ops; i++) {
        struct op *op = &m->op[i];
        if (op->kind == FL_LAYER_CONV2D) {
            op->conv.alone = true;
            fl_conv_begin(&op->conv);
        } else if (is_own(op)) {
            memset(op->own, 0, op->elements * sizeof *op->own);
        }
    }
}

uint32_t fl_model_pieces(struct fl_model *m, size_t n, const struct fl_piece **ret_pieces)
{
    size_t at = m->together ? n : 0;
    uint32_t k = 0;

    clear_sums(m);
    if (!m->together) {
        struct fl_score unused = {0};
        fl_ops_forward(m, m->each_x + n * m->value[0].count, 1);
        fl_ops_score(m, (const char *)m->each_y + n * fl_target_bytes(m), 1, 1, &unused);
    }
    for (uint32_t i = m->together ? m->batched : m->ops; i-- > m->first;) {
        fl_op_backward(m, i, at, 1, is_own(&m->op[i]) ? m->op[i].own : NULL);
    }
    for (uint32_t i = 0; i < m->ops; i++) {
        m->op[i].conv.alone = false;
        if (m->op[i].elements) {
            k += pieces_of(m, &m->op[i], at, &m->piece[k]);
        }
    }
    *ret_pieces = m->piece;
    return k;
}

/* In theta's order, written out where the factors are those of several tokens. */
static void plain_piece(struct op *op, struct fl_piece *p)
{
    if (p->window) {
        fl_conv_unpack(&op->conv, op->conv.dweight, op->own, 1);
        p->w = op->own;
        p->window = 0;
    } else if (p->g) {
        float *w = op->own + (p->weight - op->weight);
        write_out(p->rows, p->in, p->out, p->a, p->g, w);
        p->w = w;
        p->a = p->g = NULL;
    }
}

uint32_t fl_model_example(struct fl_model *m, const float *x, const void *y,
                          const struct fl_piece **ret_pieces, double *ret_loss)
{
    *ret_loss = fl_model_examples(m, x, y, 1);
    uint32_t count = fl_model_pieces(m, 0, ret_pieces);

    for (uint32_t i = 0, k = 0; i < m->ops; i++) {
        struct op *op = &m->op[i];
        for (; k < count && m->piece[k].weight < op->weight + op->elements; k++) {
            plain_piece(op, &m->piece[k]);
        }
    }
    return count;
}
