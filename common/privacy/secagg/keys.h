/*
 * The small cryptography of secure aggregation, all of it libsodium's: X25519 agreements, ChaCha20-
 * Poly1305 for shares, BLAKE2b for keys and digests. Every derived value begins with a label of its
 * purpose and the context (job, round, slot), so that nothing made for one means anything in
 * another.
 */
#ifndef FL_PRIVACY_SECAGG_KEYS_H
#define FL_PRIVACY_SECAGG_KEYS_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_SECAGG_KEY_SIZE = 32,
    FL_SECAGG_CHECK_SIZE = 16,       /* of a share: second preimages, not collisions, matter */
    FL_SECAGG_SECRETS_SIZE = 64,     /* a share of b, then a share of the mask key */
    FL_SECAGG_CIPHER_SIZE = 64 + 16, /* with the tag */
    FL_SECAGG_PRINCIPAL_SIZE = 32,   /* who a certificate speaks for: a digest of its key */
};

struct fl_secagg_pair {
    uint8_t secret[FL_SECAGG_KEY_SIZE];
    uint8_t public[FL_SECAGG_KEY_SIZE];
};

/* From the kernel's randomness. -FL_R_ENTROPY. */
int fl_secagg_pair_new(struct fl_secagg_pair *ret, struct fl_err *e);
/* The public key of a secret one. */
void fl_secagg_public(const uint8_t secret[FL_SECAGG_KEY_SIZE], uint8_t ret[FL_SECAGG_KEY_SIZE]);
/* X25519; false for a public key of small order (the secret would be zero). */
bool fl_secagg_agree(const uint8_t secret[FL_SECAGG_KEY_SIZE],
                     const uint8_t public[FL_SECAGG_KEY_SIZE], uint8_t ret[FL_SECAGG_KEY_SIZE]);

/* The seed of the mask that two agents share; indices in either order. `view` is the roster's
 * digest. */
void fl_secagg_pair_seed(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                         uint32_t one, uint32_t other, struct fl_seed *ret);
/* The seed of an agent's own mask. */
void fl_secagg_self_seed(const uint8_t b[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                         uint32_t index, struct fl_seed *ret);

/* Shares on their way from one agent to another: the key is used once, so the nonce is zero; the
 * roster's digest and both indices are authenticated with it. */
void fl_secagg_seal(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                    uint32_t from, uint32_t to, const uint8_t secrets[FL_SECAGG_SECRETS_SIZE],
                    uint8_t ret[FL_SECAGG_CIPHER_SIZE]);
bool fl_secagg_open(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                    uint32_t from, uint32_t to, const uint8_t cipher[FL_SECAGG_CIPHER_SIZE],
                    uint8_t ret[FL_SECAGG_SECRETS_SIZE]);

enum fl_secagg_kind { FL_SECAGG_NONE, FL_SECAGG_SELF, FL_SECAGG_PAIR }; /* of a share */

/* What a dealer publishes of a share, so that a forged one is told from what it dealt. */
void fl_secagg_check(const struct fl_digest *view, enum fl_secagg_kind kind, uint32_t dealer,
                     uint32_t holder, const uint8_t share[32], uint8_t ret[FL_SECAGG_CHECK_SIZE]);
/* What a dealer publishes of b, so that shares which do not fit together are noticed. */
void fl_secagg_commit(const struct fl_digest *view, uint32_t dealer,
                      const uint8_t b[FL_SECAGG_KEY_SIZE], struct fl_digest *ret);

/* The digest of an agent's keys in a roster (its first FL_SECAGG_CHECK_SIZE bytes are used). */
void fl_secagg_keys_digest(const struct fl_digest *context,
                           const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE],
                           const uint8_t c_public[FL_SECAGG_KEY_SIZE],
                           const uint8_t s_public[FL_SECAGG_KEY_SIZE], struct fl_digest *ret);
/* What is signed: keys at the beginning, and the survivors that were shown (bit i of a set, least
 * significant first, is agent i of the roster). */
void fl_secagg_advert_message(const struct fl_digest *context,
                              const uint8_t c_public[FL_SECAGG_KEY_SIZE],
                              const uint8_t s_public[FL_SECAGG_KEY_SIZE], struct fl_digest *ret);
void fl_secagg_view_message(const struct fl_digest *view, const uint8_t *shared_set,
                            const uint8_t *masked_set, size_t set_size, struct fl_digest *ret);

#endif
