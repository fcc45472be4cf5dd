#include "common/privacy/secagg/mask.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <sodium.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "masks are read as little-endian words");

#define ADD_WORDS(type, sign)                                                                      \
    do {                                                                                           \
        type *restrict to_ = words;                                                                \
        const type *restrict mask_ = (const type *)(const void *)scratch;                          \
        for (size_t i_ = 0; i_ < count; i_++) {                                                    \
            to_[i_] = (type)(to_[i_] sign mask_[i_]);                                              \
        }                                                                                          \
    } while (0)

void fl_mask_add(const struct fl_seed *seed, uint32_t bits, uint64_t tile, bool negative,
                 void *words, size_t count, uint8_t *scratch)
{
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];

    _Static_assert(sizeof nonce == 8, "the tile's number is the nonce");
    fl_put_u64(nonce, tile);
    crypto_stream_chacha20(scratch, count * fl_ring_word(bits), nonce, seed->bytes);
    if (bits <= 32) {
        if (negative) {
            ADD_WORDS(uint32_t, -);
        } else {
            ADD_WORDS(uint32_t, +);
        }
    } else if (negative) {
        ADD_WORDS(uint64_t, -);
    } else {
        ADD_WORDS(uint64_t, +);
    }
}

void fl_ring_add(uint32_t bits, const int64_t *q, size_t count, void *words)
{
    if (bits <= 32) {
        uint32_t *to = words;
        for (size_t i = 0; i < count; i++) {
            to[i] += (uint32_t)(uint64_t)q[i];
        }
    } else {
        uint64_t *to = words;
        for (size_t i = 0; i < count; i++) {
            to[i] += (uint64_t)q[i];
        }
    }
}

static inline uint64_t word_at(uint32_t bits, const void *words, size_t i)
{
    uint64_t w = bits <= 32 ? ((const uint32_t *)words)[i] : ((const uint64_t *)words)[i];

    return w & (((uint64_t)1 << bits) - 1);
}

void fl_ring_signed(uint32_t bits, const void *words, size_t count, int64_t *q)
{
    uint64_t half = (uint64_t)1 << (bits - 1);

    for (size_t i = 0; i < count; i++) {
        q[i] = (int64_t)(word_at(bits, words, i) ^ half) - (int64_t)half;
    }
}

bool fl_ring_bytes(uint32_t bits, uint64_t count, size_t *ret)
{
    uint64_t all;

    if (__builtin_mul_overflow(count, (uint64_t)bits, &all) || all > UINT64_MAX - 7) {
        return false;
    }
    *ret = (size_t)((all + 7) / 8);
    return true;
}

/* Up to 56 bits and 7 that wait fit in one 64-bit load or store. */
enum { WIDE_MAX = 56 };

void fl_ring_pack(uint32_t bits, const void *words, size_t count, uint8_t *to)
{
    size_t size = (count * bits + 7) / 8, at = 0, i = 0; /* a vector in memory: no overflow */
    uint64_t held = 0;                                   /* fewer than 8 bits between words */
    uint32_t have = 0;

    for (; bits <= WIDE_MAX && i < count && size - at >= 8; i++) {
        held |= word_at(bits, words, i) << have;
        memcpy(to + at, &held, sizeof held);
        have += bits;
        at += have / 8;
        held >>= have & ~7U; /* at most 56 */
        have &= 7;
    }
    for (; i < count; i++) {
        uint64_t w = word_at(bits, words, i);
        uint32_t left = bits;
        while (left > 0) { /* bits of a word may be 62, and 7 wait: not all at once */
            uint32_t take = left < 32 ? left : 32;
            held |= (w & (((uint64_t)1 << take) - 1)) << have;
            w >>= take;
            have += take;
            left -= take;
            while (have >= 8) {
                to[at++] = (uint8_t)held;
                held >>= 8;
                have -= 8;
            }
        }
    }
    if (have > 0) {
        to[at] = (uint8_t)held;
    }
}

static inline void add_word(uint32_t bits, void *words, size_t i, uint64_t w)
{
    if (bits <= 32) {
        ((uint32_t *)words)[i] += (uint32_t)w;
    } else {
        ((uint64_t *)words)[i] += w;
    }
}

bool fl_ring_unpack_add(uint32_t bits, const uint8_t *from, size_t count, void *words)
{
    size_t size = (count * bits + 7) / 8, bit = 0, i = 0;
    uint64_t most = ((uint64_t)1 << bits) - 1;

    for (; bits <= WIDE_MAX && i < count && size - bit / 8 >= 8; i++, bit += bits) {
        uint64_t w;
        memcpy(&w, from + bit / 8, sizeof w);
        add_word(bits, words, i, w >> (bit & 7) & most);
    }
    for (; i < count; i++) {
        uint64_t w = 0;
        for (uint32_t got = 0; got < bits;) {
            uint32_t skip = bit & 7, take = bits - got < 8 - skip ? bits - got : 8 - skip;
            w |= (uint64_t)(from[bit / 8] >> skip & ((1U << take) - 1)) << got;
            got += take;
            bit += take;
        }
        add_word(bits, words, i, w);
    }
    return count * bits % 8 == 0 || from[size - 1] >> (count * bits % 8) == 0;
}

int fl_mask_vector(uint32_t bits, uint64_t count, int64_t max, const struct fl_mask *masks,
                   uint32_t mask_count, const int64_t *q, uint8_t *to, struct fl_err *e)
{
    size_t tile_words = fl_ring_tile(bits);
    uint8_t *words = fl_try_aligned(2, FL_MASK_TILE);
    int r = words ? 0 : fl_fail(e, FL_R_NOMEM, "a tile of a masked vector");

    for (uint64_t tile = 0; r == 0 && tile * tile_words < count; tile++) {
        uint64_t first = tile * tile_words, left = count - first;
        size_t some = left < tile_words ? (size_t)left : tile_words;
        for (size_t i = 0; i < some; i++) {
            if (q[first + i] > max || q[first + i] < -max) {
                r = fl_fail(e, FL_R_UPDATE_RANGE, "value %llu is beyond what the ring is made for",
                            (unsigned long long)(first + i));
            }
        }
        memset(words, 0, FL_MASK_TILE);
        fl_ring_add(bits, q + first, some, words);
        for (uint32_t m = 0; m < mask_count; m++) {
            fl_mask_add(&masks[m].seed, bits, tile, masks[m].negative, words, some,
                        words + FL_MASK_TILE);
        }
        fl_ring_pack(bits, words, some, to + first / 8 * bits);
    }
    if (words) {
        sodium_memzero(words, 2 * (size_t)FL_MASK_TILE);
    }
    fl_free(words);
    return r;
}
