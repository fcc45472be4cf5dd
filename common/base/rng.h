/*
 * Random streams: ChaCha20 keyed by 32 bytes, in blocks (libsodium). The same seed gives the same
 * stream on every machine. One kind of generator serves shuffles, initial weights and privacy
 * noise, so that there is no weak one to pick by mistake. The seed of anything released comes from
 * fl_entropy and is never reused on other inputs.
 */
#ifndef FL_BASE_RNG_H
#define FL_BASE_RNG_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define FL_SEED_SIZE 32

struct fl_seed {
    uint8_t bytes[FL_SEED_SIZE];
};

struct fl_rng {
    struct fl_seed key;
    uint64_t nonce; /* the stream's number under this key */
    uint32_t block; /* next block of 64 bytes to make, in this stream */
    uint32_t at;    /* next unread byte of buf */
    uint8_t buf[1024];
};

/* Kernel randomness. Fails (-FL_R_ENTROPY) instead of falling back. */
int fl_entropy(void *ret, size_t size, struct fl_err *e);

/* Derives an independent seed for a purpose: BLAKE2b keyed by the parent over (label, number). */
void fl_seed_derive(const struct fl_seed *parent, const char *label, uint64_t number,
                    struct fl_seed *ret);
/* A seed from a number in a configuration; for simulations and initial weights, never for noise. */
void fl_seed_from_u64(uint64_t number, struct fl_seed *ret);

/* `stream` separates uses of one seed; a stream holds 2^38 bytes and then moves to the next nonce
 * by itself (the high bits of nonce count wraps). */
void fl_rng_init(struct fl_rng *r, const struct fl_seed *seed, uint32_t stream);
void fl_rng_fini(struct fl_rng *r); /* wipes */

void fl_rng_bytes(struct fl_rng *r, void *ret, size_t size);
uint64_t fl_rng_u64(struct fl_rng *r);
/* As `count` calls of fl_rng_u64, in bulk. */
void fl_rng_words(struct fl_rng *r, uint64_t *ret, size_t count);
/* Uniform in [0, bound), exactly; bound > 0. */
uint64_t fl_rng_below(struct fl_rng *r, uint64_t bound);
/* Uniform in [0, 1) with 53 bits. */
double fl_rng_unit(struct fl_rng *r);
/* Standard normal by Box-Muller in doubles. For initial weights and tests; never for privacy noise.
 */
double fl_rng_normal(struct fl_rng *r);
/* Fisher-Yates over indices. */
void fl_rng_shuffle(struct fl_rng *r, uint32_t *items, size_t count);

#endif
