/*
 * Masks: long rows of words from a 32-byte seed, added to vectors modulo 2^bits, tile by tile, so
 * that nobody ever holds a second vector.
 *
 * A vector's words are uint32_t in rings of up to 32 bits and uint64_t above; arithmetic is that of
 * the machine word, and what is above 2^bits is cut off when the vector is packed. Tile number T of
 * a mask is FL_MASK_TILE bytes of ChaCha20 (64-bit nonce) under the seed with nonce T, both little-
 * endian; so tiles can be made in any order and on any thread.
 */
#ifndef FL_PRIVACY_SECAGG_MASK_H
#define FL_PRIVACY_SECAGG_MASK_H

#include "common/base/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_MASK_TILE = 64 * 1024 };

/* Bytes of a word of the ring, and words of a whole tile. */
static inline size_t fl_ring_word(uint32_t bits)
{
    return bits <= 32 ? 4 : 8;
}
static inline size_t fl_ring_tile(uint32_t bits)
{
    return FL_MASK_TILE / fl_ring_word(bits);
}

/* words += mask, or -= when `negative`: tile number `tile` of it, the first `count` words of the
 * tile. `scratch` is FL_MASK_TILE bytes of the caller's, and holds a part of the mask afterwards.
 */
void fl_mask_add(const struct fl_seed *seed, uint32_t bits, uint64_t tile, bool negative,
                 void *words, size_t count, uint8_t *scratch);

struct fl_mask {
    struct fl_seed seed;
    bool negative;
};
/* The packed vector q + masks, `to` being fl_ring_bytes. Whole vectors are never copied: tile by
 * tile. -FL_R_UPDATE_RANGE for a value beyond +-max, -FL_R_NOMEM; `to` is then partly written. */
int fl_mask_vector(uint32_t bits, uint64_t count, int64_t max, const struct fl_mask *masks,
                   uint32_t mask_count, const int64_t *q, uint8_t *to, struct fl_err *e);

/* Signed integers to words, added. */
void fl_ring_add(uint32_t bits, const int64_t *q, size_t count, void *words);
/* Words to signed integers: the representative next to 0. */
void fl_ring_signed(uint32_t bits, const void *words, size_t count, int64_t *q);

/* ceil(count * bits / 8); false on overflow. */
bool fl_ring_bytes(uint32_t bits, uint64_t count, size_t *ret);
/* Word number i is bits [i * bits, (i + 1) * bits) of the bytes, as in common/math/grid.h; `to` is
 * whole bytes: count * bits must be a multiple of 8 unless these are the last words. */
void fl_ring_pack(uint32_t bits, const void *words, size_t count, uint8_t *to);
/* words += what is packed in `from`, count words. False when bits behind the last are not 0. */
bool fl_ring_unpack_add(uint32_t bits, const uint8_t *from, size_t count, void *words);

#endif
