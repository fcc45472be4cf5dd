#include "server/strategy/mix.h"

#include "common/base/mem.h"
#include "common/math/vec.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { GRAIN = 64, TILE_MAX = 4096 };

struct scratch {
    size_t tile;
    float *w;              /* rows x tile */
    uint8_t *critical;     /* rows x tile, where there are masks */
    double *sum, *common;  /* a tile each */
    float *out;            /* a tile */
    uint32_t *some;        /* rows of W whose weight is not 0 */
    const uint8_t **asked; /* by row: its mask in this tile, NULL when nobody needs it */
};

size_t fl_mix_tile(uint32_t rows)
{
    size_t tile = (size_t)FL_MIX_MEMORY / (sizeof(float) + 1) / (rows ? rows : 1) / GRAIN * GRAIN;

    return tile < GRAIN ? GRAIN : tile > TILE_MAX ? TILE_MAX : tile;
}

static void scratch_fini(struct scratch *s)
{
    fl_free(s->w);
    fl_free(s->critical);
    fl_free(s->sum);
    fl_free(s->common);
    fl_free(s->out);
    fl_free(s->some);
    fl_free(s->asked);
}

static int scratch_init(struct scratch *s, const struct fl_mix *m, struct fl_err *e)
{
    size_t n = fl_mix_tile(m->rows);

    *s = (struct scratch){.tile = n,
                          .w = fl_try_aligned(m->rows * n, sizeof *s->w),
                          .critical = fl_try_aligned(m->mask ? m->rows * n : 1, 1),
                          .sum = fl_try_aligned(n, sizeof *s->sum),
                          .common = fl_try_aligned(n, sizeof *s->common),
                          .out = fl_try_aligned(n, sizeof *s->out),
                          .some = fl_try(m->rows, sizeof *s->some),
                          .asked = fl_try(m->rows, sizeof *s->asked)};
    if (!s->w || !s->critical || !s->sum || !s->common || !s->out || !s->some || !s->asked) {
        scratch_fini(s);
        return fl_fail(e, FL_R_NOMEM, "a tile of %u models", m->rows);
    }
    for (uint32_t i = 0; m->mask && i < m->outs; i++) {
        if (m->mask[i] != FL_MIX_PLAIN) {
            s->asked[m->mask[i]] = s->critical + m->mask[i] * n;
        }
    }
    return 0;
}

static int check_row(const double *a, uint32_t rows, uint32_t out, struct fl_err *e)
{
    double sum = 0;

    for (uint32_t j = 0; j < rows; j++) {
        if (!(a[j] >= 0)) {
            return fl_fail(e, FL_R_INTERNAL, "weight %u of mix %u is %g", j, out, a[j]);
        }
        sum += a[j];
    }
    return fabs(sum - 1) <= 1e-9
               ? 0
               : fl_fail(e, FL_R_INTERNAL, "the weights of mix %u add up to %.17g", out, sum);
}

static int check(const struct fl_mix *m, struct fl_err *e)
{
    int r = 0;

    if (m->rows == 0 || m->rows > FL_MIX_ROWS_MAX || m->outs == 0) {
        return fl_fail(e, FL_R_LIMIT, "a mix of %u models into %u", m->rows, m->outs);
    }
    for (uint32_t i = 0; r == 0 && i < m->outs; i++) {
        r = check_row(m->a + (size_t)i * m->rows, m->rows, i, e);
        if (r == 0 && m->mask && m->mask[i] != FL_MIX_PLAIN && (m->mask[i] >= m->rows || !m->b)) {
            r = fl_fail(e, FL_R_INTERNAL, "mix %u wants a mask that is not there", i);
        }
    }
    return r == 0 && m->b ? check_row(m->b, m->rows, m->outs, e) : r;
}

/* Four rows at a time: the sum is read and written once for them, and each product is still added
 * by itself, in order. */
FL_VECTOR static void add_four(const double a[4], const float *const w[4], size_t count,
                               double *restrict sum)
{
    const float *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];

    for (size_t k = 0; k < count; k++) {
        double s = sum[k] + a[0] * (double)w0[k];
        s += a[1] * (double)w1[k];
        s += a[2] * (double)w2[k];
        sum[k] = s + a[3] * (double)w3[k];
    }
}

FL_VECTOR static void add_one(double a, const float *w, size_t count, double *restrict sum)
{
    for (size_t k = 0; k < count; k++) {
        sum[k] += a * (double)w[k];
    }
}

static void product(const struct scratch *s, const double *a, uint32_t rows, size_t count,
                    double *sum)
{
    uint32_t n = 0, i = 0;

    for (uint32_t j = 0; j < rows; j++) {
        if (a[j] != 0) {
            s->some[n++] = j;
        }
    }
    memset(sum, 0, count * sizeof *sum);
    for (; i + 4 <= n; i += 4) {
        const uint32_t *j = s->some + i;
        const double weight[4] = {a[j[0]], a[j[1]], a[j[2]], a[j[3]]};
        const float *const w[4] = {s->w + j[0] * s->tile, s->w + j[1] * s->tile,
                                   s->w + j[2] * s->tile, s->w + j[3] * s->tile};
        add_four(weight, w, count, sum);
    }
    for (; i < n; i++) {
        add_one(a[s->some[i]], s->w + s->some[i] * s->tile, count, sum);
    }
}

static int mix_tile(const struct fl_mix *m, struct scratch *s, size_t first, size_t count,
                    struct fl_err *e)
{
    int r = 0;

    for (uint32_t j = 0; r == 0 && j < m->rows; j++) {
        uint8_t *critical = s->asked[j] ? s->critical + j * s->tile : NULL;
        r = m->row(m->arg, j, first, count, s->w + j * s->tile, critical, e);
    }
    if (r == 0 && m->b) {
        product(s, m->b, m->rows, count, s->common);
    }
    for (uint32_t i = 0; r == 0 && i < m->outs; i++) {
        bool blend = m->mask && m->mask[i] != FL_MIX_PLAIN;
        const uint8_t *critical = blend ? s->asked[m->mask[i]] : NULL;
        const float *home = blend ? s->w + m->mask[i] * s->tile : NULL;
        product(s, m->a + (size_t)i * m->rows, m->rows, count, s->sum);
        for (size_t k = 0; k < count; k++) {
            s->out[k] = !critical || critical[k] == FL_MIX_OWN ? (float)s->sum[k]
                        : critical[k] == FL_MIX_COMMON         ? (float)s->common[k]
                                                               : home[k];
        }
        if (!fl_vec_finite(s->out, count)) {
            return fl_fail(e, FL_R_NOT_FINITE, "mix %u, elements from %zu", i, first);
        }
        r = m->put(m->arg, i, first, count, s->out, critical, e);
    }
    return r;
}

int fl_mix(const struct fl_mix *m, size_t elements, struct fl_err *e)
{
    struct scratch s;
    int r = check(m, e);

    r = r ? r : scratch_init(&s, m, e);
    if (r) {
        return r;
    }
    for (size_t first = 0; r == 0 && first < elements; first += s.tile) {
        size_t count = elements - first < s.tile ? elements - first : s.tile;
        r = mix_tile(m, &s, first, count, e);
    }
    scratch_fini(&s);
    return r;
}
