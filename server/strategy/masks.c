#include "server/strategy/masks.h"

#include "common/base/mem.h"
#include "common/math/vec.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    TILE = FL_ROWS_TILE,
    WORDS = TILE / 64,
    BUCKETS = 1 << 16,
};

static uint32_t bits_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;

    memcpy(&x, &u, sizeof x);
    return x;
}

static float sensitivity(float before, float after)
{
    return fabsf((after - before) * after);
}

/* ---- thresholds ---- */

struct selection {
    const struct fl_masks *m;
    float before[TILE], omega[TILE];
    uint32_t *count; /* BUCKETS */
};

/* The sensitivities of a part of a tensor, into s->omega. */
static int sense(struct selection *s, uint32_t row, size_t first, size_t count, struct fl_err *e)
{
    int r = fl_rows_read(s->m->rows, row, first, count, s->before, s->omega, e);

    for (size_t k = 0; r == 0 && k < count; k++) {
        s->omega[k] = sensitivity(s->before[k], s->omega[k]);
    }
    return r;
}

/* Counts bits [shift, shift + 16) of those whose bits above are `upper`, and finds the least
 * sensitivity above `floor`, INFINITY if there is none. */
static int count_bits(struct selection *s, uint32_t row, const struct fl_part *part, int shift,
                      uint32_t upper, float floor, float *ret_least, struct fl_err *e)
{
    float least = INFINITY;
    int r = 0;

    memset(s->count, 0, BUCKETS * sizeof *s->count);
    for (size_t at = 0; r == 0 && at < part->count; at += TILE) {
        size_t n = part->count - at < TILE ? part->count - at : TILE;
        r = sense(s, row, part->first + at, n, e);
        for (size_t k = 0; r == 0 && k < n; k++) {
            uint32_t u = bits_of(s->omega[k]);
            if (shift == 16 || u >> 16 == upper) {
                s->count[u >> shift & 0xffff]++;
            }
            if (s->omega[k] > floor && s->omega[k] < least) {
                least = s->omega[k];
            }
        }
    }
    *ret_least = least;
    return r;
}

/* The bucket of the k-th from above; *k becomes its rank within. */
static uint32_t bucket_of(const uint32_t *count, size_t *k)
{
    uint32_t b = BUCKETS - 1;

    while (count[b] < *k) {
        *k -= count[b--];
    }
    return b;
}

static int select_threshold(struct selection *s, uint32_t row, const struct fl_part *part,
                            double tau, float *ret, struct fl_err *e)
{
    bool published = s->m->rule == FL_MASKS_PUBLISHED;
    size_t k = (size_t)(tau * (double)part->count);
    float least, same, threshold;

    *ret = INFINITY;
    if (k == 0) {
        return 0; /* a tensor too small to have critical weights */
    }
    int r = count_bits(s, row, part, 16, 0, published ? 1e-20f : 0, &least, e);
    if (r) {
        return r;
    }
    uint32_t upper = bucket_of(s->count, &k);
    r = count_bits(s, row, part, 0, upper, 0, &same, e);
    if (r) {
        return r;
    }
    threshold = float_of(upper << 16 | bucket_of(s->count, &k));
    if (threshold <= (published ? 1e-10f : 0) && (!published || least < INFINITY)) {
        threshold = least;
    }
    *ret = threshold;
    return 0;
}

int fl_masks_init(struct fl_masks *m, const struct fl_rows *rows, double tau,
                  enum fl_masks_rule rule, struct fl_err *e)
{
    const struct fl_personal *p = rows->s;
    size_t parts = p->part_count;
    struct selection *s = fl_try(1, sizeof *s);
    int r = 0;

    *m = (struct fl_masks){.rows = rows,
                           .rule = rule,
                           .threshold = fl_try(rows->count * parts + 1, sizeof *m->threshold)};
    if (s) {
        s->m = m;
        s->count = fl_try(BUCKETS, sizeof *s->count);
    }
    if (!m->threshold || !s || !s->count) {
        r = fl_fail(e, FL_R_NOMEM, "thresholds of %u members", rows->count);
    }
    for (uint32_t i = 0; r == 0 && i < rows->count; i++) {
        for (size_t t = 0; r == 0 && t < parts && rows->at[i].update; t++) {
            if (!p->part[t].buffer) {
                r = select_threshold(s, i, &p->part[t], tau, &m->threshold[i * parts + t], e);
            }
        }
    }
    if (s) {
        fl_free(s->count);
    }
    fl_free(s);
    if (r) {
        fl_masks_fini(m);
    }
    return r;
}

void fl_masks_fini(struct fl_masks *m)
{
    fl_free(m->threshold);
    m->threshold = NULL;
}

/* ---- masks ---- */

/* The first part that ends behind `first`. */
static uint32_t part_at(const struct fl_personal *p, size_t first)
{
    uint32_t low = 0, high = p->part_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p->part[middle].first + p->part[middle].count <= first) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void mask_of(const struct fl_masks *m, uint32_t row, size_t first, size_t count,
                    const float *before, const float *after, uint8_t *critical)
{
    const struct fl_personal *p = m->rows->s;
    size_t end = first + count;

    memset(critical, 0, count);
    if (!m->rows->at[row].update) {
        for (size_t k = 0; m->rule == FL_MASKS_KEPT && k < count; k++) {
            critical[k] = bits_of(before[k]) & 1;
        }
        return;
    }
    for (uint32_t t = part_at(p, first); t < p->part_count && p->part[t].first < end; t++) {
        float threshold = m->threshold[(size_t)row * p->part_count + t];
        size_t from = p->part[t].first < first ? first : p->part[t].first;
        size_t to = p->part[t].first + p->part[t].count;
        if (p->part[t].buffer) {
            memset(critical + (from - first), FL_MIX_HOME, (to < end ? to : end) - from);
            continue;
        }
        for (size_t k = from - first; k < (to < end ? to : end) - first; k++) {
            critical[k] = sensitivity(before[k], after[k]) >= threshold;
        }
    }
}

void fl_masks_of(void *arg, uint32_t row, size_t first, size_t count, const float *before,
                 const float *after, uint8_t *critical)
{
    mask_of(arg, row, first, count, before, after, critical);
}

/* A value below the normal ones becomes 0, which says no: it would be slow to compute with, and is
 * critical to nobody. The largest values are odd or one below, so none becomes infinite. */
void fl_masks_keep(float *values, size_t count, const uint8_t *critical)
{
    for (size_t k = 0; k < count; k++) {
        values[k] = fabsf(values[k]) < FLT_MIN
                        ? 0
                        : float_of((bits_of(values[k]) & ~1u) | (critical[k] == FL_MIX_OWN));
    }
}

/* ---- overlaps ---- */

FL_VECTOR static uint32_t common_bits(const uint64_t *a, const uint64_t *b, size_t words)
{
    uint32_t n = 0;

    for (size_t w = 0; w < words; w++) {
        n += (uint32_t)__builtin_popcountll(a[w] & b[w]);
    }
    return n;
}

struct overlap {
    const struct fl_masks *m;
    float before[TILE], after[TILE];
    uint8_t critical[TILE];
    uint64_t *packed; /* rows x WORDS */
    uint32_t *own;    /* by row: critical in this tensor */
};

static int pack_tile(struct overlap *o, uint32_t row, size_t first, size_t count, struct fl_err *e)
{
    uint64_t *to = o->packed + (size_t)row * WORDS;
    int r = fl_rows_read(o->m->rows, row, first, count, o->before, o->after, e);

    memset(to, 0, WORDS * sizeof *to);
    if (r == 0) {
        mask_of(o->m, row, first, count, o->before, o->after, o->critical);
    }
    for (size_t k = 0; r == 0 && k < count; k++) {
        to[k / 64] |= (uint64_t)o->critical[k] << k % 64;
    }
    return r;
}

static int overlap_part(struct overlap *o, const struct fl_part *part, uint32_t *both,
                        double *chance, struct fl_err *e)
{
    uint32_t n = o->m->rows->count;
    int r = 0;

    memset(o->own, 0, n * sizeof *o->own);
    for (size_t at = 0; r == 0 && at < part->count; at += TILE) {
        size_t count = part->count - at < TILE ? part->count - at : TILE;
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            r = pack_tile(o, i, part->first + at, count, e);
        }
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            const uint64_t *a = o->packed + (size_t)i * WORDS;
            o->own[i] += common_bits(a, a, WORDS);
            for (uint32_t j = i; j < n; j++) {
                both[(size_t)i * n + j] += common_bits(a, o->packed + (size_t)j * WORDS, WORDS);
            }
        }
    }
    for (uint32_t i = 0; r == 0 && chance && i < n; i++) {
        for (uint32_t j = i; j < n; j++) {
            chance[(size_t)i * n + j] +=
                (double)o->own[i] * (double)o->own[j] / (double)part->count;
        }
    }
    return r;
}

int fl_masks_overlap(const struct fl_masks *m, uint32_t *both, double *chance, struct fl_err *e)
{
    const struct fl_personal *p = m->rows->s;
    uint32_t n = m->rows->count;
    struct overlap *o = fl_try(1, sizeof *o);
    int r = 0;

    if (o) {
        o->m = m;
        o->packed = fl_try((size_t)n * WORDS, sizeof *o->packed);
        o->own = fl_try(n, sizeof *o->own);
    }
    if (!o || !o->packed || !o->own) {
        r = fl_fail(e, FL_R_NOMEM, "masks of %u members", n);
    }
    for (uint32_t t = 0; r == 0 && t < p->part_count; t++) {
        r = p->part[t].buffer ? 0 : overlap_part(o, &p->part[t], both, chance, e);
    }
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        for (uint32_t j = 0; j < i; j++) {
            both[(size_t)i * n + j] = both[(size_t)j * n + i];
            if (chance) {
                chance[(size_t)i * n + j] = chance[(size_t)j * n + i];
            }
        }
    }
    if (o) {
        fl_free(o->packed);
        fl_free(o->own);
    }
    fl_free(o);
    return r;
}
