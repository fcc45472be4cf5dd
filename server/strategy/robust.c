#include "server/strategy/robust.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "server/strategy/pool.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    LANES = 8,
    TILE_MOST = 4096,
    TILE_VALUES = 1 << 21, /* of all members together */
};

struct fl_robust {
    const struct fl_robust_terms *terms;
    const struct fl_updates *updates;
    const float *center;
    struct fl_pool pool;
    size_t tile;
    uint8_t *packed;
    int64_t *q;
    double *row;   /* (updates + center) x tile */
    double *point; /* points x tile, for rules that go by coordinate */
};

/* ---- tiles ---- */

static int read_row(struct fl_robust *r, uint32_t i, size_t first, size_t count, struct fl_err *e)
{
    const struct fl_update *u = &r->updates->at[i];
    size_t bytes = (count * r->terms->grid.bits + 7) / 8;
    double step = ldexp(1, r->terms->grid.step), *row = r->row + i * r->tile;
    int ret = u->read(u->arg, (uint64_t)first / 8 * r->terms->grid.bits, r->packed, bytes, e);

    if (ret == 0) {
        ret = fl_grid_unpack(&r->terms->grid, r->packed, bytes, 0, count, r->q, e);
    }
    if (ret != 0) {
        return fl_wrap(e, ret, "update of agent %llu, elements from %zu",
                       (unsigned long long)u->agent, first);
    }
    for (size_t k = 0; k < count; k++) {
        row[k] = (double)r->q[k] * step;
    }
    return 0;
}

static void center_row(struct fl_robust *r, size_t first, size_t count)
{
    double *row = r->row + r->updates->count * r->tile;

    for (size_t k = 0; r->center && k < count; k++) {
        row[k] = r->terms->conf.momentum * (double)r->center[first + k];
    }
}

/* ret[j] = a . b_j for four rows, in LANES separate sums each that are added up in order. */
FL_VECTOR static void dot4(const double *restrict a, const double *const b[4], size_t count,
                           double ret[4])
{
    double lane[4][LANES] = {{0}};
    const double *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
    size_t at = 0;

    for (; count - at >= LANES; at += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            lane[0][k] += a[at + k] * b0[at + k];
            lane[1][k] += a[at + k] * b1[at + k];
            lane[2][k] += a[at + k] * b2[at + k];
            lane[3][k] += a[at + k] * b3[at + k];
        }
    }
    for (size_t j = 0; j < 4; j++) {
        ret[j] = 0;
        for (size_t k = 0; k < LANES; k++) {
            ret[j] += lane[j][k];
        }
        for (size_t k = at; k < count; k++) {
            ret[j] += a[k] * b[j][k];
        }
    }
}

/* Adds one tile to the lower triangle of inner products. */
static void add_products(struct fl_robust *r, size_t count)
{
    size_t rows = r->updates->count + (size_t)r->pool.center;
    double sum[4];

    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j <= i; j += 4) {
            const double *b[4];
            for (size_t k = 0; k < 4; k++) { /* what is beyond is computed for nothing */
                b[k] = r->row + (j + k < rows ? j + k : j) * r->tile;
            }
            dot4(r->row + i * r->tile, b, count, sum);
            for (size_t k = 0; k < 4 && j + k <= i; k++) {
                r->pool.gram[i * rows + j + k] += sum[k];
            }
        }
    }
}

static int inner_products(struct fl_robust *r, struct fl_err *e)
{
    size_t rows = r->updates->count + (size_t)r->pool.center;
    int ret = 0;

    for (size_t first = 0; ret == 0 && first < r->terms->elements; first += r->tile) {
        size_t count = r->terms->elements - first < r->tile ? r->terms->elements - first : r->tile;
        for (uint32_t i = 0; ret == 0 && i < r->updates->count; i++) {
            ret = read_row(r, i, first, count, e);
        }
        if (ret == 0) {
            center_row(r, first, count);
            add_products(r, count);
        }
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < i; j++) {
            r->pool.gram[j * rows + i] = r->pool.gram[i * rows + j];
        }
    }
    return ret;
}

/* ---- by coordinate ---- */

FL_VECTOR static void order_rows(double *restrict low, double *restrict high, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        double a = low[k], b = high[k];
        low[k] = a < b ? a : b;
        high[k] = a < b ? b : a;
    }
}

/* Sorts all columns at once: a merge exchange network of whole rows (Knuth, volume 3, 5.2.2,
 * algorithm M). */
static void sort_columns(double *rows, size_t n, size_t stride, size_t count)
{
    size_t top = 1;

    while (2 * top < n) {
        top *= 2;
    }
    for (size_t p = top; n > 1 && p > 0; p /= 2) {
        size_t q = top, r = 0, d = p;
        for (;;) {
            for (size_t i = 0; i + d < n; i++) {
                if ((i & p) == r) {
                    order_rows(rows + i * stride, rows + (i + d) * stride, count);
                }
            }
            if (q == p) {
                break;
            }
            d = q - p;
            q /= 2;
            r = p;
        }
    }
}

FL_VECTOR static void add_row(double weight, const double *restrict row, double *restrict sum,
                              size_t count)
{
    for (size_t k = 0; k < count; k++) {
        sum[k] += weight * row[k];
    }
}

/* The mean of the middle rows of the sorted points: one or two of them for a median. */
static void middle(struct fl_robust *r, size_t count, double *ret)
{
    size_t n = r->updates->count, m = r->pool.points;
    double *rows = r->row;

    if (r->pool.mix) {
        rows = r->point;
        memset(rows, 0, m * r->tile * sizeof *rows);
        for (size_t a = 0; a < m; a++) {
            for (size_t i = 0; i < n; i++) {
                if (r->pool.mix[a * n + i] != 0) {
                    add_row(r->pool.mix[a * n + i], r->row + i * r->tile, rows + a * r->tile,
                            count);
                }
            }
        }
    }
    sort_columns(rows, m, r->tile, count);
    size_t cut =
        r->terms->conf.rule == FL_AGGREGATE_MEDIAN ? (m - 1) / 2 : r->terms->conf.byzantine;
    memset(ret, 0, count * sizeof *ret);
    for (size_t a = cut; a < m - cut; a++) {
        add_row(1, rows + a * r->tile, ret, count);
    }
    for (size_t k = 0; k < count; k++) {
        ret[k] /= (double)(m - 2 * cut);
    }
}

int fl_robust_values(struct fl_robust *r, size_t first, size_t count, double *ret, struct fl_err *e)
{
    bool votes = fl_pool_votes(&r->terms->conf);
    uint32_t n = r->updates->count;

    assert(first % 64 == 0 && count <= r->tile);
    memset(ret, 0, count * sizeof *ret);
    for (uint32_t i = 0; i < n; i++) {
        if (votes && r->pool.weight[i] == 0) {
            continue;
        }
        int got = read_row(r, i, first, count, e);
        if (got != 0) {
            return got;
        }
        if (votes) {
            add_row(r->pool.weight[i], r->row + i * r->tile, ret, count);
        }
    }
    if (!votes) {
        middle(r, count, ret);
    } else if (r->pool.center) {
        center_row(r, first, count);
        add_row(r->pool.weight[n], r->row + n * r->tile, ret, count);
    }
    return 0;
}

/* ---- the door ---- */

struct fl_robust_terms fl_robust_terms_of(const struct fl_plan *plan)
{
    return (struct fl_robust_terms){.conf = plan->aggregate,
                                    .grid = {plan->grid.bits, plan->grid.step},
                                    .elements = plan->layout.shared.elements,
                                    .seed = plan->seed};
}

bool fl_robust_remembers(const struct fl_robust_terms *terms)
{
    return terms->conf.on && terms->conf.rule == FL_AGGREGATE_CENTERED_CLIPPING &&
           terms->conf.momentum > 0;
}

size_t fl_robust_tile(const struct fl_robust *r)
{
    return r->tile;
}

void fl_robust_free(struct fl_robust *r)
{
    if (r) {
        fl_pool_fini(&r->pool);
        fl_free(r->packed);
        fl_free(r->q);
        fl_free(r->row);
        fl_free(r->point);
        fl_free(r);
    }
}

/* Whether a rule needs to know distances at all. */
static bool needs_products(const struct fl_aggregate_conf *c)
{
    return (fl_pool_votes(c) && c->rule != FL_AGGREGATE_MEAN) || c->clip > 0 ||
           c->before == FL_AGGREGATE_NEAREST;
}

/* Tiles of all rows, and room for their products. */
static int make_room(struct fl_robust *r, struct fl_err *e)
{
    uint32_t n = r->updates->count;
    size_t rows = n + (size_t)(r->center != NULL);

    r->tile = TILE_VALUES / rows / 64 * 64;
    r->tile = r->tile > TILE_MOST ? TILE_MOST : r->tile < 64 ? 64 : r->tile;
    r->packed = fl_try_aligned(r->tile, 4);
    r->q = fl_try_aligned(r->tile, sizeof *r->q);
    r->row = fl_try_aligned(rows * r->tile, sizeof *r->row);
    if (!r->packed || !r->q || !r->row) {
        return fl_fail(e, FL_R_NOMEM, "tiles of %u updates", n);
    }
    return fl_pool_init(&r->pool, n, r->center != NULL, e);
}

int fl_robust_products(const struct fl_robust_terms *terms, const struct fl_updates *updates,
                       double *ret, struct fl_err *e)
{
    struct fl_robust *r = fl_try(1, sizeof *r);
    size_t n = updates->count;

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "products of %zu updates", n);
    }
    r->terms = terms;
    r->updates = updates;
    int got = n ? make_room(r, e) : 0;
    got = got || n == 0 ? got : inner_products(r, e);
    if (got == 0 && n) {
        memcpy(ret, r->pool.gram, n * n * sizeof *ret);
    }
    fl_robust_free(r);
    return got;
}

static int set_up(struct fl_robust *r, const struct fl_seed *seed, struct fl_err *e)
{
    uint32_t n = r->updates->count, bucket = r->terms->conf.bucket;
    uint32_t points =
        r->terms->conf.before == FL_AGGREGATE_BUCKETING ? (n + bucket - 1) / bucket : n;

    if (points < 2 * r->terms->conf.byzantine + 1) {
        return fl_fail(e, FL_R_LIMIT, "%u updates in %u points, %u of which may be bad", n, points,
                       r->terms->conf.byzantine);
    }
    int ret = make_room(r, e);
    if (ret == 0 && needs_products(&r->terms->conf)) {
        ret = inner_products(r, e);
    }
    ret = ret ? ret : fl_pool_mix(&r->pool, &r->terms->conf, seed, e);
    if (ret == 0 && fl_pool_votes(&r->terms->conf)) {
        ret = fl_pool_vote(&r->pool, &r->terms->conf, e);
    } else if (ret == 0 && r->pool.mix) {
        r->point = fl_try_aligned(r->pool.points * r->tile, sizeof *r->point);
        ret = r->point ? 0 : fl_fail(e, FL_R_NOMEM, "tiles of %u points", r->pool.points);
    }
    return ret;
}

int fl_robust_new(const struct fl_robust_terms *terms, const struct fl_updates *updates,
                  const float *last, const struct fl_seed *secret, uint64_t round,
                  struct fl_robust **ret, struct fl_err *e)
{
    struct fl_robust *r = fl_try(1, sizeof *r);
    struct fl_seed seed;

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "a robust rule");
    }
    r->terms = terms;
    r->updates = updates;
    r->center = fl_robust_remembers(terms) ? last : NULL;
    /* Who shares a bucket should be no one's to foresee. */
    fl_seed_from_u64(terms->seed, &seed);
    fl_seed_derive(secret ? secret : &seed, "bucketing", round, &seed);
    int got = set_up(r, &seed, e);
    if (got != 0) {
        fl_robust_free(r);
        return got;
    }
    *ret = r;
    return 0;
}

int fl_robust_check(const struct fl_plan *plan, const struct fl_strategy *strategy,
                    struct fl_err *e)
{
    if (plan->aggregate.on && !(strategy->needs & FL_STRATEGY_AGGREGATES)) {
        return fl_fail(e, FL_R_PLAN_STRATEGY,
                       "strategy %s makes the next model in a way of its own, without an "
                       "`aggregate` rule",
                       strategy->name);
    }
    return 0;
}
