/*
 * Shamir's sharing of 32-byte secrets, over GF(2^16).
 *
 * Why this field: a secret is any 32 bytes, exactly 16 symbols, so that nothing is reduced or
 * rejected as a prime field would ask for; a share has the secret's size; 65535 holders are
 * possible where GF(2^8) has 255; and addition is exclusive or. Multiplication is by shifts and
 * masks, without tables, so its time does not depend on secrets.
 *
 * The field is GF(2)[x] / (x^16 + x^12 + x^3 + x + 1); symbol s of a secret is bytes 2s (low) and
 * 2s + 1. A share is the value at the holder's number of 16 polynomials whose constant terms are
 * the secret. (Shamir 1979.)
 *
 * A share alone cannot be checked: whoever hands out shares publishes digests of them
 * (fl_secagg_check), and the secret's own check is the caller's.
 */
#ifndef FL_PRIVACY_SECAGG_SHAMIR_H
#define FL_PRIVACY_SECAGG_SHAMIR_H

#include "common/base/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_SHARE_SIZE = 32 };

struct fl_share {
    uint32_t holder; /* 1..65535 */
    uint8_t bytes[FL_SHARE_SIZE];
};

/* Shares of `secret` for the holders that stand in shares[i].holder, any `threshold` of which bring
 * it back. Coefficients are drawn from `rng`. threshold 1..count. -FL_R_NOMEM. */
int fl_shamir_deal(const uint8_t secret[FL_SHARE_SIZE], uint32_t threshold, struct fl_rng *rng,
                   struct fl_share *shares, uint32_t count, struct fl_err *e);

/* The secret from `threshold` shares of different holders; false when holders repeat or are 0.
 * Fewer shares than were needed give other bytes: check the result. */
bool fl_shamir_join(const struct fl_share *shares, uint32_t threshold, uint8_t ret[FL_SHARE_SIZE]);

/* The product in the field. */
uint16_t fl_gf16_mul(uint16_t a, uint16_t b);

#endif
