#include "common/base/hash.h"

#include "common/base/le.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

static_assert(sizeof(crypto_generichash_state) <= sizeof(struct fl_hash), "fl_hash too small");

/* libsodium looks at the processor once, before anything runs; without this it stays with its
 * portable code, a third as fast. Repeated calls are free. */
__attribute__((constructor)) static void choose_code(void)
{
    if (sodium_init() < 0) {
        return; /* the portable code gives the same bytes */
    }
}

void fl_hash_init(struct fl_hash *h)
{
    crypto_generichash_init((crypto_generichash_state *)(void *)h->state, NULL, 0, FL_DIGEST_SIZE);
}

void fl_hash_init_keyed(struct fl_hash *h, const uint8_t key[FL_DIGEST_SIZE])
{
    crypto_generichash_init((crypto_generichash_state *)(void *)h->state, key, FL_DIGEST_SIZE,
                            FL_DIGEST_SIZE);
}

void fl_hash_add(struct fl_hash *h, const void *data, size_t size)
{
    crypto_generichash_update((crypto_generichash_state *)(void *)h->state, data, size);
}

void fl_hash_add_u64(struct fl_hash *h, uint64_t number)
{
    uint8_t le[8];

    fl_put_u64(le, number);
    fl_hash_add(h, le, sizeof le);
}

void fl_hash_add_u32(struct fl_hash *h, uint32_t number)
{
    uint8_t le[4];

    fl_put_u32(le, number);
    fl_hash_add(h, le, sizeof le);
}

void fl_hash_end(struct fl_hash *h, struct fl_digest *ret)
{
    crypto_generichash_final((crypto_generichash_state *)(void *)h->state, ret->bytes,
                             FL_DIGEST_SIZE);
}

uint64_t fl_hash_end_u64(struct fl_hash *h)
{
    struct fl_digest d;

    fl_hash_end(h, &d);
    return fl_get_u64(d.bytes);
}

void fl_digest_of(const void *data, size_t size, struct fl_digest *ret)
{
    crypto_generichash(ret->bytes, FL_DIGEST_SIZE, data, size, NULL, 0);
}

bool fl_digest_equal(const struct fl_digest *a, const struct fl_digest *b)
{
    return memcmp(a->bytes, b->bytes, FL_DIGEST_SIZE) == 0;
}

bool fl_digest_is_zero(const struct fl_digest *d)
{
    static const struct fl_digest zero;
    return fl_digest_equal(d, &zero);
}

void fl_digest_hex(const struct fl_digest *d, char ret[FL_DIGEST_HEX])
{
    sodium_bin2hex(ret, FL_DIGEST_HEX, d->bytes, FL_DIGEST_SIZE);
}

bool fl_digest_from_hex(const char *hex, struct fl_digest *ret)
{
    struct fl_digest d;
    size_t n;
    if (strlen(hex) != FL_DIGEST_HEX - 1 ||
        sodium_hex2bin(d.bytes, sizeof d.bytes, hex, FL_DIGEST_HEX - 1, NULL, &n, NULL) != 0 ||
        n != FL_DIGEST_SIZE) {
        return false;
    }
    *ret = d;
    return true;
}
