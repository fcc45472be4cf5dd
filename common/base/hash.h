/*
 * Digests: BLAKE2b-256 (libsodium), over bytes. One digest names an update, a checkpoint, a plan, a
 * data set.
 */
#ifndef FL_BASE_HASH_H
#define FL_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_DIGEST_SIZE 32
#define FL_DIGEST_HEX  (2 * FL_DIGEST_SIZE + 1)

struct fl_digest {
    uint8_t bytes[FL_DIGEST_SIZE];
};

/* Opaque, in place (crypto_generichash_state is 384 bytes, 64-byte aligned). */
struct fl_hash {
    _Alignas(64) unsigned char state[384];
};

void fl_hash_init(struct fl_hash *h);
/* Keyed: who does not know the 32 bytes cannot tell what comes out. */
void fl_hash_init_keyed(struct fl_hash *h, const uint8_t key[FL_DIGEST_SIZE]);
void fl_hash_add(struct fl_hash *h, const void *data, size_t size);
/* A number as 8 (or 4) bytes, little-endian. */
void fl_hash_add_u64(struct fl_hash *h, uint64_t number);
void fl_hash_add_u32(struct fl_hash *h, uint32_t number);
void fl_hash_end(struct fl_hash *h, struct fl_digest *ret);
/* The first 8 bytes of the digest, as a number. */
uint64_t fl_hash_end_u64(struct fl_hash *h);

void fl_digest_of(const void *data, size_t size, struct fl_digest *ret);
bool fl_digest_equal(const struct fl_digest *a, const struct fl_digest *b);
bool fl_digest_is_zero(const struct fl_digest *d);
void fl_digest_hex(const struct fl_digest *d, char ret[FL_DIGEST_HEX]);
bool fl_digest_from_hex(const char *hex, struct fl_digest *ret); /* exactly 64 hex digits */

#endif
