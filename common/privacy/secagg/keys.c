#include "common/privacy/secagg/keys.h"

#include <sodium.h>
#include <string.h>

/* Labels end with a zero byte, so that none is the beginning of another. */
static void begin(struct fl_hash *h, const char *label, const struct fl_digest *context)
{
    fl_hash_init(h);
    fl_hash_add(h, label, strlen(label) + 1);
    fl_hash_add(h, context->bytes, sizeof context->bytes);
}

static void end(struct fl_hash *h, uint8_t ret[FL_DIGEST_SIZE])
{
    struct fl_digest d;

    fl_hash_end(h, &d);
    memcpy(ret, d.bytes, sizeof d.bytes);
    sodium_memzero(&d, sizeof d);
    sodium_memzero(h, sizeof *h);
}

int fl_secagg_pair_new(struct fl_secagg_pair *ret, struct fl_err *e)
{
    int r = fl_entropy(ret->secret, sizeof ret->secret, e);

    if (r == 0) {
        fl_secagg_public(ret->secret, ret->public);
    }
    return r;
}

void fl_secagg_public(const uint8_t secret[FL_SECAGG_KEY_SIZE], uint8_t ret[FL_SECAGG_KEY_SIZE])
{
    crypto_scalarmult_base(ret, secret); /* cannot fail: the base point has a large order */
}

bool fl_secagg_agree(const uint8_t secret[FL_SECAGG_KEY_SIZE],
                     const uint8_t public[FL_SECAGG_KEY_SIZE], uint8_t ret[FL_SECAGG_KEY_SIZE])
{
    return crypto_scalarmult(ret, secret, public) == 0;
}

void fl_secagg_pair_seed(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                         uint32_t one, uint32_t other, struct fl_seed *ret)
{
    struct fl_hash h;

    begin(&h, "cohort secagg pair mask 1", view);
    fl_hash_add_u32(&h, one < other ? one : other);
    fl_hash_add_u32(&h, one < other ? other : one);
    fl_hash_add(&h, shared, FL_SECAGG_KEY_SIZE);
    end(&h, ret->bytes);
}

void fl_secagg_self_seed(const uint8_t b[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                         uint32_t index, struct fl_seed *ret)
{
    struct fl_hash h;

    begin(&h, "cohort secagg self mask 1", view);
    fl_hash_add_u32(&h, index);
    fl_hash_add(&h, b, FL_SECAGG_KEY_SIZE);
    end(&h, ret->bytes);
}

static void share_key(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                      uint32_t from, uint32_t to, uint8_t ret[FL_DIGEST_SIZE])
{
    struct fl_hash h;

    begin(&h, "cohort secagg share key 1", view);
    fl_hash_add_u32(&h, from);
    fl_hash_add_u32(&h, to);
    fl_hash_add(&h, shared, FL_SECAGG_KEY_SIZE);
    end(&h, ret);
}

static const uint8_t zero_nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

void fl_secagg_seal(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                    uint32_t from, uint32_t to, const uint8_t secrets[FL_SECAGG_SECRETS_SIZE],
                    uint8_t ret[FL_SECAGG_CIPHER_SIZE])
{
    uint8_t key[FL_DIGEST_SIZE];
    unsigned long long size;

    share_key(shared, view, from, to, key);
    crypto_aead_chacha20poly1305_ietf_encrypt(ret, &size, secrets, FL_SECAGG_SECRETS_SIZE,
                                              view->bytes, sizeof view->bytes, NULL, zero_nonce,
                                              key);
    sodium_memzero(key, sizeof key);
}

bool fl_secagg_open(const uint8_t shared[FL_SECAGG_KEY_SIZE], const struct fl_digest *view,
                    uint32_t from, uint32_t to, const uint8_t cipher[FL_SECAGG_CIPHER_SIZE],
                    uint8_t ret[FL_SECAGG_SECRETS_SIZE])
{
    uint8_t key[FL_DIGEST_SIZE];
    unsigned long long size;

    share_key(shared, view, from, to, key);
    int r =
        crypto_aead_chacha20poly1305_ietf_decrypt(ret, &size, NULL, cipher, FL_SECAGG_CIPHER_SIZE,
                                                  view->bytes, sizeof view->bytes, zero_nonce, key);
    sodium_memzero(key, sizeof key);
    return r == 0;
}

void fl_secagg_check(const struct fl_digest *view, enum fl_secagg_kind kind, uint32_t dealer,
                     uint32_t holder, const uint8_t share[32], uint8_t ret[FL_SECAGG_CHECK_SIZE])
{
    struct fl_hash h;
    uint8_t digest[FL_DIGEST_SIZE];

    begin(&h, "cohort secagg share check 1", view);
    fl_hash_add_u32(&h, kind);
    fl_hash_add_u32(&h, dealer);
    fl_hash_add_u32(&h, holder);
    fl_hash_add(&h, share, 32);
    end(&h, digest);
    memcpy(ret, digest, FL_SECAGG_CHECK_SIZE);
}

void fl_secagg_commit(const struct fl_digest *view, uint32_t dealer,
                      const uint8_t b[FL_SECAGG_KEY_SIZE], struct fl_digest *ret)
{
    struct fl_hash h;

    begin(&h, "cohort secagg commitment 1", view);
    fl_hash_add_u32(&h, dealer);
    fl_hash_add(&h, b, FL_SECAGG_KEY_SIZE);
    end(&h, ret->bytes);
}

void fl_secagg_keys_digest(const struct fl_digest *context,
                           const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE],
                           const uint8_t c_public[FL_SECAGG_KEY_SIZE],
                           const uint8_t s_public[FL_SECAGG_KEY_SIZE], struct fl_digest *ret)
{
    struct fl_hash h;

    begin(&h, "cohort secagg keys 1", context);
    fl_hash_add(&h, principal, FL_SECAGG_PRINCIPAL_SIZE);
    fl_hash_add(&h, c_public, FL_SECAGG_KEY_SIZE);
    fl_hash_add(&h, s_public, FL_SECAGG_KEY_SIZE);
    end(&h, ret->bytes);
}

void fl_secagg_advert_message(const struct fl_digest *context,
                              const uint8_t c_public[FL_SECAGG_KEY_SIZE],
                              const uint8_t s_public[FL_SECAGG_KEY_SIZE], struct fl_digest *ret)
{
    struct fl_hash h;

    begin(&h, "cohort secagg advertise 1", context);
    fl_hash_add(&h, c_public, FL_SECAGG_KEY_SIZE);
    fl_hash_add(&h, s_public, FL_SECAGG_KEY_SIZE);
    end(&h, ret->bytes);
}

void fl_secagg_view_message(const struct fl_digest *view, const uint8_t *shared_set,
                            const uint8_t *masked_set, size_t set_size, struct fl_digest *ret)
{
    struct fl_hash h;

    begin(&h, "cohort secagg survivors 1", view);
    fl_hash_add_u32(&h, (uint32_t)set_size);
    fl_hash_add(&h, shared_set, set_size);
    fl_hash_add(&h, masked_set, set_size);
    end(&h, ret->bytes);
}
