/*
 * Packing has three fast widths (8, 16 and 32 bits: whole bytes, plain loops that the compiler
 * turns into vector code) and one general loop that moves 64-bit windows. Folding first scans for
 * the one forbidden word, then adds: two passes over a tile that the first one leaves in the cache
 * (callers fold in tiles), and a bad update has touched nothing.
 *
 * Rounding relies on the default rounding mode (to nearest, ties to even) and on the conversion
 * instruction that obeys it. x * 2^-step is exact in a double: a float has 24 bits.
 */
#include "common/math/grid.h"

#include <assert.h>
#include <endian.h>
#include <math.h>
#include <string.h>

int64_t fl_grid_max(const struct fl_grid *g)
{
    return ((int64_t)1 << (g->bits - 1)) - 1;
}

bool fl_grid_bytes(const struct fl_grid *g, size_t count, size_t *ret)
{
    size_t bits;

    if (__builtin_mul_overflow(count, (size_t)g->bits, &bits)) {
        return false;
    }
    *ret = bits / 8 + (bits % 8 != 0);
    return true;
}

static unsigned ceil_log2(uint32_t n)
{
    return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

bool fl_grid_sum_fits(const struct fl_grid *g, uint32_t max_weight, uint32_t members)
{
    return g->bits - 1 + ceil_log2(max_weight) + ceil_log2(members) <= 62;
}

int fl_grid_round(const struct fl_grid *g, const float *x, size_t count, int64_t *q,
                  struct fl_err *e)
{
    const double scale = ldexp(1.0, -g->step);

    for (size_t i = 0; i < count; i++) {
        double v = (double)x[i] * scale;
        if (!(fabs(v) <= 0x1p62)) {
            return fl_fail(e, FL_R_NOT_FINITE, "value %zu is %g: not a number on the grid", i,
                           (double)x[i]);
        }
        q[i] = llrint(v);
    }
    return 0;
}

/* ---- words of whole bytes ---- */

static inline int16_t load16(const uint8_t *from, size_t i)
{
    uint16_t w;
    memcpy(&w, from + 2 * i, sizeof w);
    return (int16_t)le16toh(w);
}

static inline int32_t load32(const uint8_t *from, size_t i)
{
    uint32_t w;
    memcpy(&w, from + 4 * i, sizeof w);
    return (int32_t)le32toh(w);
}

static inline void store16(uint8_t *to, size_t i, int64_t v)
{
    uint16_t w = htole16((uint16_t)v);
    memcpy(to + 2 * i, &w, sizeof w);
}

static inline void store32(uint8_t *to, size_t i, int64_t v)
{
    uint32_t w = htole32((uint32_t)v);
    memcpy(to + 4 * i, &w, sizeof w);
}

/* ---- any width: the value's bits lie within 39 of a window that begins at a byte ---- */

static inline uint64_t window(const uint8_t *from, size_t from_size, size_t byte)
{
    uint64_t w = 0;

    if (from_size - byte >= sizeof w) {
        memcpy(&w, from + byte, sizeof w);
        return le64toh(w);
    }
    for (size_t i = 0; byte + i < from_size; i++) {
        w |= (uint64_t)from[byte + i] << (8 * i);
    }
    return w;
}

static inline int64_t load_any(const uint8_t *from, size_t from_size, unsigned bits, size_t i)
{
    size_t bit = i * bits;
    uint64_t w = window(from, from_size, bit / 8) >> (bit % 8);

    return (int64_t)(w << (64 - bits)) >> (64 - bits);
}

static void pack_any(unsigned bits, const int64_t *q, size_t count, int64_t max, uint8_t *to,
                     uint64_t *saturated)
{
    uint64_t pending = 0, beyond = 0;
    unsigned held = 0; /* bits in `pending`, below 8 between values */

    for (size_t i = 0; i < count; i++) {
        int64_t v = q[i] > max ? max : q[i] < -max ? -max : q[i];
        beyond += v != q[i];
        pending |= ((uint64_t)v & (((uint64_t)1 << bits) - 1)) << held;
        for (held += bits; held >= 8; held -= 8) {
            *to++ = (uint8_t)pending;
            pending >>= 8;
        }
    }
    if (held) {
        *to = (uint8_t)pending;
    }
    *saturated = beyond;
}

uint64_t fl_grid_pack(const struct fl_grid *g, const int64_t *q, size_t count, uint8_t *to)
{
    const int64_t max = fl_grid_max(g);
    uint64_t saturated = 0;

    assert(g->bits >= 8 && g->bits <= 32);
    if (g->bits != 8 && g->bits != 16 && g->bits != 32) {
        pack_any(g->bits, q, count, max, to, &saturated);
        return saturated;
    }
    for (size_t i = 0; i < count; i++) {
        int64_t v = q[i] > max ? max : q[i] < -max ? -max : q[i];
        saturated += v != q[i];
        if (g->bits == 8) {
            to[i] = (uint8_t)v;
        } else if (g->bits == 16) {
            store16(to, i, v);
        } else {
            store32(to, i, v);
        }
    }
    return saturated;
}

/* ---- reading what a peer sent ---- */

/* True when one of the values is the most negative word. No early exit: the loop stays simple
 * enough to be vectorized, and a bad update is rare. */
static bool has_forbidden(const struct fl_grid *g, const uint8_t *from, size_t from_size,
                          size_t first, size_t count)
{
    unsigned found = 0;

    switch (g->bits) {
    case 8:
        for (size_t i = first; i < first + count; i++) {
            found |= from[i] == 0x80;
        }
        break;
    case 16:
        for (size_t i = first; i < first + count; i++) {
            found |= load16(from, i) == INT16_MIN;
        }
        break;
    case 32:
        for (size_t i = first; i < first + count; i++) {
            found |= load32(from, i) == INT32_MIN;
        }
        break;
    default:
        for (size_t i = first; i < first + count; i++) {
            found |= load_any(from, from_size, g->bits, i) < -fl_grid_max(g);
        }
        break;
    }
    return found != 0;
}

static int check(const struct fl_grid *g, const uint8_t *from, size_t from_size, size_t first,
                 size_t count, struct fl_err *e)
{
    size_t total, size, end;

    assert(g->bits >= 8 && g->bits <= 32);
    if (from_size > SIZE_MAX / 8) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "%zu bytes are no packed vector", from_size);
    }
    total = from_size * 8 / g->bits;
    if (!fl_grid_bytes(g, total, &size) || size != from_size) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "%zu bytes are no vector of %u-bit values", from_size,
                       g->bits);
    }
    if (__builtin_add_overflow(first, count, &end) || end > total) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "values %zu to %zu of a vector of %zu", first,
                       first + count, total);
    }
    if (has_forbidden(g, from, from_size, first, count)) {
        for (size_t i = first; i < end; i++) {
            if (has_forbidden(g, from, from_size, i, 1)) {
                return fl_fail(e, FL_R_UPDATE_RANGE,
                               "value %zu is the word -2^%u, which is never sent", i, g->bits - 1);
            }
        }
    }
    if (end == total && total * g->bits % 8 && from[from_size - 1] >> (total * g->bits % 8)) {
        return fl_fail(e, FL_R_UPDATE_RANGE, "the last byte's unused bits are not zero");
    }
    return 0;
}

int fl_grid_unpack(const struct fl_grid *g, const uint8_t *from, size_t from_size, size_t first,
                   size_t count, int64_t *q, struct fl_err *e)
{
    int r = check(g, from, from_size, first, count, e);

    if (r < 0) {
        return r;
    }
    switch (g->bits) {
    case 8:
        for (size_t i = 0; i < count; i++) {
            q[i] = (int8_t)from[first + i];
        }
        break;
    case 16:
        for (size_t i = 0; i < count; i++) {
            q[i] = load16(from, first + i);
        }
        break;
    case 32:
        for (size_t i = 0; i < count; i++) {
            q[i] = load32(from, first + i);
        }
        break;
    default:
        for (size_t i = 0; i < count; i++) {
            q[i] = load_any(from, from_size, g->bits, first + i);
        }
        break;
    }
    return 0;
}

/* Adds `weight` times each value. Weight 1, the usual one, has loops of its own without the
 * product. */
static void add(const struct fl_grid *g, const uint8_t *from, size_t from_size, size_t first,
                size_t count, int64_t weight, int64_t *restrict acc)
{
    const uint8_t *at = from + first * g->bits / 8; /* used by the byte-sized widths */

    switch (g->bits) {
    case 8:
        for (size_t i = 0; i < count; i++) {
            acc[i] += weight * (int8_t)at[i];
        }
        break;
    case 16:
        if (weight == 1) {
            for (size_t i = 0; i < count; i++) {
                acc[i] += load16(at, i);
            }
        } else {
            for (size_t i = 0; i < count; i++) {
                acc[i] += weight * load16(at, i);
            }
        }
        break;
    case 32:
        if (weight == 1) {
            for (size_t i = 0; i < count; i++) {
                acc[i] += load32(at, i);
            }
        } else {
            for (size_t i = 0; i < count; i++) {
                acc[i] += weight * load32(at, i);
            }
        }
        break;
    default:
        for (size_t i = 0; i < count; i++) {
            acc[i] += weight * load_any(from, from_size, g->bits, first + i);
        }
        break;
    }
}

int fl_grid_fold(const struct fl_grid *g, const uint8_t *from, size_t from_size, size_t first,
                 size_t count, uint32_t weight, int64_t *acc, struct fl_err *e)
{
    int r = check(g, from, from_size, first, count, e);

    if (r < 0) {
        return r;
    }
    add(g, from, from_size, first, count, weight, acc);
    return 0;
}
