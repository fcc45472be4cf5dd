#include "common/privacy/secagg/shamir.h"

#include "common/base/mem.h"

#include <sodium.h>
#include <string.h>

enum {
    SYMBOLS = FL_SHARE_SIZE / 2,
    LOW_TERMS = 0x100b, /* x^16 = x^12 + x^3 + x + 1 */
};

/* a[] * b for all symbols at once. Whatever the values are, the same operations. */
static void mul_all(uint16_t *restrict a, uint16_t b)
{
    uint16_t product[SYMBOLS] = {0};

    for (int bit = 0; bit < 16; bit++) {
        uint16_t take = (uint16_t)(0 - ((b >> bit) & 1));
        for (int s = 0; s < SYMBOLS; s++) {
            product[s] ^= (uint16_t)(a[s] & take);
            uint16_t carry = (uint16_t)(0 - (a[s] >> 15));
            a[s] = (uint16_t)((uint16_t)(a[s] << 1) ^ (carry & LOW_TERMS));
        }
    }
    memcpy(a, product, sizeof product);
}

uint16_t fl_gf16_mul(uint16_t a, uint16_t b)
{
    uint32_t product = 0, at = a;

    for (int bit = 0; bit < 16; bit++) {
        product ^= at & (0 - ((uint32_t)b >> bit & 1));
        at = (at << 1 ^ (LOW_TERMS & (0 - (at >> 15 & 1)))) & 0xffff;
    }
    return (uint16_t)product;
}

/* a^(2^16 - 2) */
static uint16_t inverse(uint16_t a)
{
    uint16_t result = 1;

    for (int i = 0; i < 15; i++) {
        a = fl_gf16_mul(a, a);
        result = fl_gf16_mul(result, a);
    }
    return result;
}

static void symbols_of(const uint8_t *bytes, uint16_t *ret)
{
    for (int s = 0; s < SYMBOLS; s++) {
        ret[s] = (uint16_t)(bytes[2 * s] | bytes[2 * s + 1] << 8);
    }
}

static void bytes_of(const uint16_t *symbols, uint8_t *ret)
{
    for (int s = 0; s < SYMBOLS; s++) {
        ret[2 * s] = (uint8_t)symbols[s];
        ret[2 * s + 1] = (uint8_t)(symbols[s] >> 8);
    }
}

int fl_shamir_deal(const uint8_t secret[FL_SHARE_SIZE], uint32_t threshold, struct fl_rng *rng,
                   struct fl_share *shares, uint32_t count, struct fl_err *e)
{
    /* coefficient[0] is the secret's, the last is the highest power's. */
    uint16_t(*coefficient)[SYMBOLS] = fl_try(threshold, sizeof *coefficient);

    if (!coefficient) {
        return fl_fail(e, FL_R_NOMEM, "the polynomials of %u shares", count);
    }
    symbols_of(secret, coefficient[0]);
    for (uint32_t i = 1; i < threshold; i++) {
        uint8_t bytes[FL_SHARE_SIZE];
        fl_rng_bytes(rng, bytes, sizeof bytes);
        symbols_of(bytes, coefficient[i]);
        sodium_memzero(bytes, sizeof bytes);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint16_t value[SYMBOLS] = {0};
        for (uint32_t c = threshold; c-- > 0;) { /* Horner */
            mul_all(value, (uint16_t)shares[i].holder);
            for (int s = 0; s < SYMBOLS; s++) {
                value[s] ^= coefficient[c][s];
            }
        }
        bytes_of(value, shares[i].bytes);
        sodium_memzero(value, sizeof value);
    }
    sodium_memzero(coefficient, threshold * sizeof *coefficient);
    fl_free(coefficient);
    return 0;
}

bool fl_shamir_join(const struct fl_share *shares, uint32_t threshold, uint8_t ret[FL_SHARE_SIZE])
{
    uint16_t sum[SYMBOLS] = {0};

    for (uint32_t i = 0; i < threshold; i++) {
        /* Lagrange at 0: product over j of x_j / (x_j - x_i). Holders are public. */
        uint16_t above = 1, below = 1, x = (uint16_t)shares[i].holder, term[SYMBOLS];
        if (shares[i].holder == 0 || shares[i].holder > UINT16_MAX) {
            return false;
        }
        for (uint32_t j = 0; j < threshold; j++) {
            if (j != i) {
                uint16_t other = (uint16_t)shares[j].holder;
                above = fl_gf16_mul(above, other);
                below = fl_gf16_mul(below, other ^ x);
            }
        }
        if (below == 0) {
            return false;
        }
        symbols_of(shares[i].bytes, term);
        mul_all(term, fl_gf16_mul(above, inverse(below)));
        for (int s = 0; s < SYMBOLS; s++) {
            sum[s] ^= term[s];
        }
        sodium_memzero(term, sizeof term);
    }
    bytes_of(sum, ret);
    sodium_memzero(sum, sizeof sum);
    return true;
}
