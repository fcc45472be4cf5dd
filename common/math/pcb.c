#include "common/math/pcb.h"

#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { BINS = 1 << 16 };

/* One order statistic of one vector: first the upper half of its key, then the lower. */
struct pick {
    size_t rank; /* from 0, among the keys that are still possible */
    uint32_t upper, key;
    uint32_t *bin;
};

struct fl_pcb {
    struct fl_pcb_terms terms;
    double *value, *part, *score; /* vectors x tile: t; s; beta */
    struct pick low[FL_PCB_VECTORS_MAX], high[FL_PCB_VECTORS_MAX];
    double least[FL_PCB_VECTORS_MAX], most[FL_PCB_VECTORS_MAX]; /* of a */
    double drop[FL_PCB_VECTORS_MAX], top[FL_PCB_VECTORS_MAX];   /* of beta */
};

/* ---- order statistics ---- */

/* Ascending as the value is; not for NaN. */
static uint32_t key_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | UINT32_C(1) << 31;
}

static float value_of(uint32_t key)
{
    uint32_t bits = key >> 31 ? key & ~(UINT32_C(1) << 31) : ~key;
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static void count_key(struct pick *k, uint32_t key, int half)
{
    if (half == 0) {
        k->bin[key >> 16]++;
    } else if (key >> 16 == k->upper) {
        k->bin[key & (BINS - 1)]++;
    }
}

static void settle(struct pick *k, int half)
{
    uint32_t b = 0;

    while (b < BINS - 1 && k->rank >= k->bin[b]) {
        k->rank -= k->bin[b++];
    }
    k->upper = half == 0 ? b : k->upper;
    k->key = k->upper << 16 | b;
    memset(k->bin, 0, BINS * sizeof *k->bin);
}

/* ---- a tile ---- */

static double magnitude(const struct fl_pcb *p, uint32_t i, double value)
{
    double a = fabs(value);

    return a < p->least[i] ? p->least[i] : a > p->most[i] ? p->most[i] : a;
}

/* s of all vectors. One of nothing but zeros takes no part; where all values are as large, none of
 * them is less than the largest. */
static void parts(struct fl_pcb *p, size_t count)
{
    for (uint32_t i = 0; i < p->terms.vectors; i++) {
        double span = p->most[i] - p->least[i];
        const double *t = p->value + i * p->terms.tile;
        double *s = p->part + i * p->terms.tile;
        for (size_t k = 0; k < count; k++) {
            double m = span > 0         ? (magnitude(p, i, t[k]) - p->least[i]) / span
                       : p->most[i] > 0 ? 1
                                        : 0;
            s[k] = t[k] > 0 ? m : t[k] < 0 ? -m : 0;
        }
    }
}

/* beta of all vectors. */
static void scores(struct fl_pcb *p, size_t count)
{
    uint32_t n = p->terms.vectors;
    size_t tile = p->terms.tile;

    parts(p, count);
    memset(p->score, 0, n * tile * sizeof *p->score);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            const double *a = p->part + i * tile, *b = p->part + j * tile;
            double *of_a = p->score + i * tile, *of_b = p->score + j * tile;
            for (size_t k = 0; k < count; k++) {
                double inter = a[k] == 0 || b[k] == 0 ? 0 : tanh(a[k] * b[k]);
                of_a[k] += inter;
                of_b[k] += i == j ? 0 : inter;
            }
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < count; k++) {
            double s = p->part[i * tile + k];
            double beta = p->score[i * tile + k] * exp((double)n * s * s);
            p->score[i * tile + k] = (double)(float)beta; /* that the ranks are of */
        }
    }
}

/* ---- passes ---- */

/* Both ranks of the magnitudes, or (`rank`) the one of the scores and the largest score. */
static int pass(struct fl_pcb *p, bool rank, int half, struct fl_err *e)
{
    const struct fl_pcb_terms *t = &p->terms;
    int r = 0;

    for (size_t first = 0, count; r == 0 && first < t->elements; first += count) {
        count = t->elements - first < t->tile ? t->elements - first : t->tile;
        r = t->read(t->arg, first, count, p->value, e);
        if (r == 0 && rank) {
            scores(p, count);
        }
        for (size_t at = 0; r == 0 && at < t->vectors * count; at++) {
            size_t i = at / count, k = at % count;
            double value = rank ? p->score[i * t->tile + k] : fabs(p->value[i * t->tile + k]);
            uint32_t key = key_of((float)value);
            count_key(&p->low[i], key, half);
            if (!rank) {
                count_key(&p->high[i], key, half);
            } else if (value > p->top[i]) {
                p->top[i] = value;
            }
        }
    }
    for (uint32_t i = 0; i < t->vectors; i++) {
        settle(&p->low[i], half);
        settle(&p->high[i], half);
    }
    return r;
}

static int find_magnitudes(struct fl_pcb *p, struct fl_err *e)
{
    double d = (double)p->terms.elements;
    size_t low = (size_t)(d * p->terms.outliers);
    double above = d * (1 - p->terms.outliers) - 1;
    size_t high = above > (double)low ? (size_t)above : low;

    for (uint32_t i = 0; i < p->terms.vectors; i++) {
        p->low[i].rank = low;
        p->high[i].rank = high;
    }
    int r = pass(p, false, 0, e);
    r = r ? r : pass(p, false, 1, e);
    for (uint32_t i = 0; i < p->terms.vectors; i++) {
        p->least[i] = (double)value_of(p->low[i].key);
        p->most[i] = (double)value_of(p->high[i].key);
    }
    return r;
}

static int find_ranks(struct fl_pcb *p, struct fl_err *e)
{
    size_t rank = (size_t)((double)p->terms.elements * (1 - p->terms.keep));

    for (uint32_t i = 0; i < p->terms.vectors; i++) {
        p->low[i].rank = rank < p->terms.elements ? rank : p->terms.elements - 1;
        p->top[i] = -INFINITY;
    }
    int r = pass(p, true, 0, e);
    r = r ? r : pass(p, true, 1, e);
    for (uint32_t i = 0; i < p->terms.vectors; i++) {
        p->drop[i] = (double)value_of(p->low[i].key);
    }
    return r;
}

/* ---- the door ---- */

void fl_pcb_free(struct fl_pcb *p)
{
    if (p) {
        for (size_t i = 0; i < FL_PCB_VECTORS_MAX; i++) {
            fl_free(p->low[i].bin);
            fl_free(p->high[i].bin);
        }
        fl_free(p->value);
        fl_free(p->part);
        fl_free(p->score);
        fl_free(p);
    }
}

int fl_pcb_new(const struct fl_pcb_terms *terms, struct fl_pcb **ret, struct fl_err *e)
{
    struct fl_pcb *p = fl_try(1, sizeof *p);
    size_t rows = (size_t)terms->vectors;

    assert(rows > 0 && rows <= FL_PCB_VECTORS_MAX);
    assert(terms->elements > 0 && terms->elements <= UINT32_MAX && terms->tile > 0);
    if (!p) {
        return fl_fail(e, FL_R_NOMEM, "a merge of %zu models", rows);
    }
    p->terms = *terms;
    p->value = fl_try_aligned(rows * terms->tile, sizeof *p->value);
    p->part = fl_try_aligned(rows * terms->tile, sizeof *p->part);
    p->score = fl_try_aligned(rows * terms->tile, sizeof *p->score);
    bool room = p->value && p->part && p->score;
    for (size_t i = 0; i < rows; i++) {
        p->low[i].bin = fl_try(BINS, sizeof *p->low[i].bin);
        p->high[i].bin = fl_try(BINS, sizeof *p->high[i].bin);
        room = room && p->low[i].bin && p->high[i].bin;
    }
    int r = room ? find_magnitudes(p, e) : fl_fail(e, FL_R_NOMEM, "tiles of %zu models", rows);
    r = r ? r : find_ranks(p, e);
    if (r) {
        fl_pcb_free(p);
        return r;
    }
    *ret = p;
    return 0;
}

int fl_pcb_values(struct fl_pcb *p, size_t first, size_t count, double *ret, struct fl_err *e)
{
    const struct fl_pcb_terms *t = &p->terms;

    assert(count <= t->tile);
    int r = t->read(t->arg, first, count, p->value, e);
    if (r) {
        return r;
    }
    scores(p, count);
    for (size_t k = 0; k < count; k++) {
        double sum = 0, all = 0;
        for (uint32_t i = 0; i < t->vectors; i++) {
            double value = p->value[i * t->tile + k], beta = p->score[i * t->tile + k];
            double span = p->top[i] - p->drop[i];
            double g = beta <= p->drop[i] ? 0 : span > 0 ? (beta - p->drop[i]) / span : 0;
            /* where those that are kept are all alike, none is less than the largest */
            g = span <= 0 && beta >= p->top[i] && p->most[i] > 0 ? 1 : g;
            all += g;
            if (value != 0) {
                sum += t->scale[i] * g * copysign(magnitude(p, i, value), value);
            }
        }
        ret[k] = sum / (all > 1e-12 ? all : 1e-12);
    }
    return 0;
}
