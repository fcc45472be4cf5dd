#include "common/math/narrow.h"

#include <assert.h>
#include <string.h>

enum { BLOCK = 8, BLOCKS = 512 }; /* 8 values of b bits are b bytes */

bool fl_narrow_is(uint32_t bits)
{
    return bits == 4 || bits == 6;
}

size_t fl_narrow_bytes(uint32_t bits, size_t count)
{
    return count / BLOCK * bits + (count % BLOCK * bits + 7) / 8;
}

/* round(v / 2^shift), ties to even. */
static int64_t divide(int64_t v, unsigned shift)
{
    int64_t half = (int64_t)1 << (shift - 1), down = v >> shift;
    int64_t rest = v - down * 2 * half; /* 0 to 2 half - 1 */

    return down + (rest > half || (rest == half && down % 2 != 0));
}

static int64_t cut(int64_t v, int64_t most, uint64_t *saturated)
{
    int64_t at = v > most ? most : v < -most ? -most : v;

    *saturated += at != v;
    return at;
}

uint64_t fl_narrow_pack(uint32_t bits, const int64_t *q, size_t count, uint8_t *to)
{
    int64_t wide = ((int64_t)1 << (FL_NARROW_FROM - 1)) - 1, most = ((int64_t)1 << (bits - 1)) - 1;
    uint64_t saturated = 0;

    assert(fl_narrow_is(bits));
    memset(to, 0, fl_narrow_bytes(bits, count));
    for (size_t i = 0; i < count; i++) {
        uint64_t before = saturated;
        int64_t v = cut(q[i], wide, &saturated);
        v = cut(divide(v, FL_NARROW_FROM - bits), most, &saturated);
        saturated = saturated > before ? before + 1 : before;
        uint8_t *at = to + i / BLOCK * bits;
        for (uint32_t b = 0; b < bits; b++) {
            size_t bit = i % BLOCK * bits + b;
            at[bit / 8] |= (uint8_t)(((uint64_t)v >> b & 1) << (bit % 8));
        }
    }
    return saturated;
}

/* Value i of a block that is here whole, or as far as there are bytes. */
static int value(uint32_t bits, const uint8_t *block, size_t i)
{
    unsigned v = 0;

    for (uint32_t b = 0; b < bits; b++) {
        size_t bit = i * bits + b;
        v |= (unsigned)(block[bit / 8] >> (bit % 8) & 1) << b;
    }
    return v >> (bits - 1) ? (int)v - (1 << bits) : (int)v;
}

/* What follows the last value in its byte. */
static bool padded(const struct fl_narrow *n, const uint8_t *last)
{
    size_t used = n->count % BLOCK * n->bits % 8;

    return used == 0 || *last >> used == 0;
}

int fl_narrow_read(const struct fl_narrow *n, uint64_t offset, uint8_t *to, size_t size,
                   struct fl_err *e)
{
    uint8_t bytes[BLOCKS * BLOCK];
    int most = (1 << (n->bits - 1)) - 1;

    if (offset > n->count || size > n->count - offset) {
        return fl_fail(e, FL_R_OFFSET, "%zu values at %llu of %zu", size,
                       (unsigned long long)offset, n->count);
    }
    while (size > 0) {
        size_t first = (size_t)offset / BLOCK * BLOCK, skip = (size_t)offset - first;
        size_t values = n->count - first < BLOCKS * BLOCK ? n->count - first : BLOCKS * BLOCK;
        size_t take = values - skip < size ? values - skip : size;
        size_t length = fl_narrow_bytes(n->bits, values);
        int r = n->read(n->arg, first / BLOCK * n->bits, bytes, length, e);
        if (r) {
            return r;
        }
        if (first + values == n->count && !padded(n, &bytes[length - 1])) {
            return fl_fail(e, FL_R_UPDATE_RANGE, "the last byte's unused bits are not zero");
        }
        for (size_t i = skip; i < skip + take; i++) {
            int v = value(n->bits, bytes + i / BLOCK * n->bits, i % BLOCK);
            if (v < -most) {
                return fl_fail(e, FL_R_UPDATE_RANGE,
                               "value %zu is the word -2^%u, which is never sent", first + i,
                               n->bits - 1);
            }
            to[i - skip] = (uint8_t)(v * (1 << (FL_NARROW_FROM - n->bits)));
        }
        to += take;
        offset += take;
        size -= take;
    }
    return 0;
}
