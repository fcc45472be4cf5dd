#include "server/strategy/robust.h"

#include "common/base/mem.h"
#include "common/math/pcb.h"
#include "common/math/vec.h"
#include "server/strategy/pool.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES = 8,
    TILE_MOST = 4096,
    TILE_VALUES = 1 << 21, /* of all members together */
};

/* Of the first pass with gates: the median of those who are not in quarantine, and its products. */
struct median {
    uint32_t *free, free_count;
    double *row, square, *with; /* a tile; squared norm; with[i] = median . update i */
};

struct fl_robust {
    const struct fl_robust_terms *terms;
    struct fl_aggregate_conf conf; /* f without those who are left out */
    const struct fl_updates *updates;
    const float *center;
    struct fl_pool pool;
    struct median median;
    double *trust; /* with gates: of each update */
    size_t tile;
    uint8_t *packed;
    int64_t *q;
    double *row;   /* (updates + center) x tile */
    double *point; /* points x tile, for rules that go by coordinate */
    struct fl_pcb *pcb;
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
        row[k] = r->conf.momentum * (double)r->center[first + k];
    }
}

/* ---- sorting ---- */

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

/* ---- inner products ---- */

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

/* The same for the median of this tile, which is made here. */
static void add_median(struct fl_robust *r, size_t count)
{
    struct median *m = &r->median;
    size_t low = (m->free_count - 1) / 2, high = m->free_count / 2;
    double sum[4];

    for (uint32_t a = 0; a < m->free_count; a++) {
        memcpy(r->point + a * r->tile, r->row + m->free[a] * r->tile, count * sizeof *r->row);
    }
    sort_columns(r->point, m->free_count, r->tile, count);
    for (size_t k = 0; k < count; k++) {
        m->row[k] = (r->point[low * r->tile + k] + r->point[high * r->tile + k]) / 2;
    }
    for (uint32_t i = 0; i <= r->updates->count; i += 4) { /* the last one is the median itself */
        const double *b[4];
        for (uint32_t k = 0; k < 4; k++) {
            b[k] = i + k < r->updates->count ? r->row + (i + k) * r->tile : m->row;
        }
        dot4(m->row, b, count, sum);
        for (uint32_t k = 0; k < 4 && i + k <= r->updates->count; k++) {
            *(i + k < r->updates->count ? &m->with[i + k] : &m->square) += sum[k];
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
            if (r->conf.gates.on) {
                add_median(r, count);
            }
        }
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < i; j++) {
            r->pool.gram[j * rows + i] = r->pool.gram[i * rows + j];
        }
    }
    return ret;
}

/* ---- gates ---- */

static int ascending(const void *x, const void *y)
{
    const double *a = x, *b = y;

    return (*a > *b) - (*a < *b);
}

/* The middle value among those who are free; scratch: as many. */
static double middle_of(const struct median *m, const double *value, double *scratch)
{
    for (uint32_t a = 0; a < m->free_count; a++) {
        scratch[a] = value[m->free[a]];
    }
    qsort(scratch, m->free_count, sizeof *scratch, ascending);
    return scratch[(m->free_count - 1) / 2];
}

/* In units of the middle one's; where that is nothing, anything is too much. */
static float times(double value, double unit)
{
    double ratio = unit > 0 ? value / unit : value > 0 ? 1e6 : 1;

    return (float)(ratio < 1e6 ? ratio : 1e6);
}

static int judge(struct fl_robust *r, struct fl_standings *standings, uint64_t round,
                 struct fl_err *e)
{
    uint32_t n = r->updates->count, out = 0;
    size_t rows = n + (size_t)r->pool.center;
    const struct median *m = &r->median;
    double *norm = fl_try(n, sizeof *norm), *far = fl_try(n, sizeof *far),
           *scratch = fl_try(n, sizeof *scratch);
    uint64_t *agents = fl_try(n, sizeof *agents);
    struct fl_measure *measures = fl_try(n, sizeof *measures);
    int ret = norm && far && scratch && agents && measures
                  ? 0
                  : fl_fail(e, FL_R_NOMEM, "measures of %u updates", n);

    for (uint32_t i = 0; ret == 0 && i < n; i++) {
        double square = r->pool.gram[i * rows + i], d = square - 2 * m->with[i] + m->square;
        norm[i] = sqrt(square);
        far[i] = d > 0 ? sqrt(d) : 0;
        agents[i] = r->updates->at[i].agent;
        double both = norm[i] * sqrt(m->square);
        measures[i].cosine = both > 0 ? (float)(m->with[i] / both) : 0;
    }
    if (ret == 0) {
        double norm_unit = middle_of(m, norm, scratch), far_unit = middle_of(m, far, scratch);
        for (uint32_t i = 0; i < n; i++) {
            measures[i].norm = times(norm[i], norm_unit);
            measures[i].distance = times(far[i], far_unit);
        }
        ret =
            fl_standings_judge(standings, &r->conf.gates, round, agents, measures, n, r->trust, e);
    }
    for (uint32_t i = 0; ret == 0 && i < n; i++) {
        out += r->trust[i] == 0;
    }
    r->conf.byzantine -= out < r->conf.byzantine ? out : r->conf.byzantine;
    fl_free(norm);
    fl_free(far);
    fl_free(scratch);
    fl_free(agents);
    fl_free(measures);
    return ret;
}

/* ---- by coordinate ---- */

FL_VECTOR static void add_row(double weight, const double *restrict row, double *restrict sum,
                              size_t count)
{
    for (size_t k = 0; k < count; k++) {
        sum[k] += weight * row[k];
    }
}

/* The points: `points` rows. Those of r->row are no longer needed then. */
static double *points_of(struct fl_robust *r, size_t count)
{
    size_t n = r->updates->count, m = r->pool.points;

    if (!r->pool.mix) {
        return r->row;
    }
    memset(r->point, 0, m * r->tile * sizeof *r->point);
    for (size_t a = 0; a < m; a++) {
        for (size_t i = 0; i < n; i++) {
            if (r->pool.mix[a * n + i] != 0) {
                add_row(r->pool.mix[a * n + i], r->row + i * r->tile, r->point + a * r->tile,
                        count);
            }
        }
    }
    return r->point;
}

/* The mean of the middle rows of the sorted points: one or two of them for a median. */
static void middle(struct fl_robust *r, size_t count, double *ret)
{
    size_t m = r->pool.points;
    double *rows = points_of(r, count);

    sort_columns(rows, m, r->tile, count);
    size_t cut = r->conf.rule == FL_AGGREGATE_MEDIAN ? (m - 1) / 2 : r->conf.byzantine;
    memset(ret, 0, count * sizeof *ret);
    for (size_t a = cut; a < m - cut; a++) {
        add_row(1, rows + a * r->tile, ret, count);
    }
    for (size_t k = 0; k < count; k++) {
        ret[k] /= (double)(m - 2 * cut);
    }
}

/* ---- merging ---- */

static int read_points(void *arg, size_t first, size_t count, double *to, struct fl_err *e)
{
    struct fl_robust *r = arg;
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < r->updates->count; i++) {
        ret = read_row(r, i, first, count, e);
    }
    if (ret == 0) {
        memcpy(to, points_of(r, count), r->pool.points * r->tile * sizeof *to);
    }
    return ret;
}

/* A point counts as its updates do: the longer they were on the way and the less they are trusted,
 * the less. */
static double point_weight(const struct fl_robust *r, uint32_t a)
{
    uint32_t n = r->updates->count;
    double sum = 0, all = 0;

    for (uint32_t i = 0; i < n; i++) {
        double part = r->pool.mix ? r->pool.mix[(size_t)a * n + i] : a == i;
        sum += part * r->updates->at[i].weight;
        all += part;
    }
    return (all > 0 ? sum / all / r->terms->fresh : 1) * (r->pool.heads ? r->pool.heads[a] : 1);
}

static int merge_new(struct fl_robust *r, struct fl_err *e)
{
    struct fl_pcb_terms t = {.vectors = r->pool.points,
                             .elements = r->terms->elements,
                             .tile = r->tile,
                             .keep = r->conf.keep,
                             .outliers = FL_PCB_OUTLIERS,
                             .read = read_points,
                             .arg = r};

    if (t.vectors > FL_PCB_VECTORS_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%u updates to merge, at most %d", t.vectors,
                       FL_PCB_VECTORS_MAX);
    }
    for (uint32_t a = 0; a < t.vectors; a++) {
        t.scale[a] = r->conf.scale * point_weight(r, a);
    }
    return fl_pcb_new(&t, &r->pcb, e);
}

int fl_robust_values(struct fl_robust *r, size_t first, size_t count, double *ret, struct fl_err *e)
{
    bool votes = fl_pool_votes(&r->conf);
    uint32_t n = r->updates->count;

    assert(first % 64 == 0 && count <= r->tile);
    if (r->pcb) {
        return fl_pcb_values(r->pcb, first, count, ret, e);
    }
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
                                    .seed = plan->seed,
                                    .fresh = plan->setting.buffer.size ? FL_BUFFER_FRESH : 1,
                                    .summed = plan->secure.on};
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
        fl_pcb_free(r->pcb);
        fl_pool_fini(&r->pool);
        fl_free(r->packed);
        fl_free(r->q);
        fl_free(r->row);
        fl_free(r->point);
        fl_free(r->median.free);
        fl_free(r->median.row);
        fl_free(r->median.with);
        fl_free(r->trust);
        fl_free(r);
    }
}

/* Whether a rule needs to know distances at all. */
static bool needs_products(const struct fl_aggregate_conf *c)
{
    return (fl_pool_votes(c) && c->rule != FL_AGGREGATE_MEAN) || c->clip > 0 ||
           c->before == FL_AGGREGATE_NEAREST || c->gates.on;
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
    r->point = fl_try_aligned(n * r->tile, sizeof *r->point);
    return r->packed && r->q && r->row && r->point
               ? fl_pool_init(&r->pool, n, r->center != NULL, e)
               : fl_fail(e, FL_R_NOMEM, "tiles of %u updates", n);
}

/* Who the median is of. */
static int median_new(struct fl_robust *r, const struct fl_standings *standings, uint64_t round,
                      struct fl_err *e)
{
    struct median *m = &r->median;
    uint32_t n = r->updates->count;

    m->free = fl_try(n, sizeof *m->free);
    m->row = fl_try_aligned(r->tile, sizeof *m->row);
    m->with = fl_try(n, sizeof *m->with);
    r->trust = fl_try(n, sizeof *r->trust);
    if (!m->free || !m->row || !m->with || !r->trust) {
        return fl_fail(e, FL_R_NOMEM, "the median of %u updates", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!fl_standing_quarantined(&r->conf.gates, standings, r->updates->at[i].agent, round)) {
            m->free[m->free_count++] = i;
        }
    }
    for (; m->free_count == 0 && n > 0; m->free_count = n) { /* all of them: as if none */
        for (uint32_t i = 0; i < n; i++) {
            m->free[i] = i;
        }
    }
    return 0;
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

/* Returns how many there are. */
static uint32_t groups_of(const struct fl_updates *updates, uint32_t *ret)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < updates->count; i++) {
        uint32_t same = 0;
        ret[i] = updates->at[i].group;
        while (same < i && ret[same] != ret[i]) {
            same++;
        }
        count += same == i;
    }
    return count;
}

/* Who shares a bucket should be no one's to foresee. */
static struct fl_seed bucket_seed(const struct fl_robust_terms *terms, const struct fl_seed *secret,
                                  uint64_t round)
{
    struct fl_seed seed;

    fl_seed_from_u64(terms->seed, &seed);
    fl_seed_derive(secret ? secret : &seed, "bucketing", round, &seed);
    return seed;
}

int fl_robust_groups(const struct fl_robust_terms *terms, const struct fl_groups_terms *of,
                     uint32_t count, uint32_t *ret_group, struct fl_err *e)
{
    uint32_t bucket = terms->conf.bucket > of->least ? terms->conf.bucket : of->least;
    uint32_t *who = fl_try(count ? count : 1, sizeof *who);
    uint32_t *at = fl_try(count ? count : 1, sizeof *at);
    struct fl_seed seed = bucket_seed(terms, of->secret, of->round);
    int r = who && at ? 0 : fl_fail(e, FL_R_NOMEM, "buckets of %u members", count);

    for (uint32_t i = 0; r == 0 && i < count; i++) {
        who[i] = i;
        ret_group[i] = FL_STRATEGY_NO_GROUP;
    }
    if (r == 0 && fl_pool_buckets(who, count, bucket, true, &seed, at) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            ret_group[who[i]] = at[i];
        }
    }
    fl_free(who);
    fl_free(at);
    return r;
}

static int set_up(struct fl_robust *r, struct fl_standings *standings, const struct fl_seed *seed,
                  uint64_t round, struct fl_err *e)
{
    uint32_t n = r->updates->count, bucket = r->conf.bucket;
    uint32_t points = r->conf.before == FL_AGGREGATE_BUCKETING ? (n + bucket - 1) / bucket : n;
    uint32_t *group = r->terms->summed ? fl_try(n, sizeof *group) : NULL;
    bool krum = r->conf.rule == FL_AGGREGATE_KRUM || r->conf.rule == FL_AGGREGATE_MULTI_KRUM;

    if (r->terms->summed && !group) {
        return fl_fail(e, FL_R_NOMEM, "the groups of %u updates", n);
    }
    if (group) {
        points = groups_of(r->updates, group);
    }
    /* The plan has seen to it that a whole round is large enough for f; a slot of its own, as a
     * bubble has, may be smaller. */
    uint32_t spare = krum ? 3 : 1, most = points > spare ? (points - spare) / 2 : 0;
    r->conf.byzantine = r->conf.byzantine < most ? r->conf.byzantine : most;
    int ret = make_room(r, e);
    if (ret == 0 && r->conf.gates.on) {
        ret = median_new(r, standings, round, e);
    }
    if (ret == 0 && needs_products(&r->conf)) {
        ret = inner_products(r, e);
    }
    if (ret == 0 && r->conf.gates.on) {
        ret = judge(r, standings, round, e);
    }
    ret = ret ? ret : fl_pool_mix(&r->pool, &r->conf, r->trust, group, seed, e);
    fl_free(group);
    if (ret == 0 && fl_pool_votes(&r->conf)) {
        ret = fl_pool_vote(&r->pool, &r->conf, e);
    }
    return ret || r->conf.rule != FL_AGGREGATE_PCB ? ret : merge_new(r, e);
}

int fl_robust_new(const struct fl_robust_terms *terms, const struct fl_updates *updates,
                  const float *last, struct fl_standings *standings, const struct fl_seed *secret,
                  uint64_t round, struct fl_robust **ret, struct fl_err *e)
{
    struct fl_robust *r = fl_try(1, sizeof *r);

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "a robust rule");
    }
    r->terms = terms;
    r->conf = terms->conf;
    r->updates = updates;
    r->center = fl_robust_remembers(terms) ? last : NULL;
    const struct fl_seed seed = bucket_seed(terms, secret, round);
    int got = set_up(r, standings, &seed, round, e);
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
