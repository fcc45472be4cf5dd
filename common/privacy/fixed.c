#include "common/privacy/fixed.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

enum { LIMBS = 5 };

void fl_fixed_one(struct fl_fixed *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->limb[LIMBS - 1] = 1;
}

void fl_fixed_add(struct fl_fixed *ret, const struct fl_fixed *a, const struct fl_fixed *b)
{
    uint64_t carry = 0;

    for (int i = 0; i < LIMBS; i++) {
        fl_u128 sum = (fl_u128)a->limb[i] + b->limb[i] + carry;
        ret->limb[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
}

void fl_fixed_sub(struct fl_fixed *ret, const struct fl_fixed *a, const struct fl_fixed *b)
{
    uint64_t borrow = 0;

    for (int i = 0; i < LIMBS; i++) {
        fl_u128 difference = (fl_u128)a->limb[i] - b->limb[i] - borrow;
        ret->limb[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
}

void fl_fixed_mul(struct fl_fixed *ret, const struct fl_fixed *a, const struct fl_fixed *b)
{
    uint64_t product[2 * LIMBS] = {0};

    for (int i = 0; i < LIMBS; i++) {
        uint64_t carry = 0;
        for (int k = 0; k < LIMBS; k++) {
            fl_u128 t = (fl_u128)a->limb[i] * b->limb[k] + product[i + k] + carry;
            product[i + k] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
        product[i + LIMBS] = carry;
    }
    memcpy(ret->limb, product + LIMBS - 1, sizeof ret->limb);
}

static void divide_small(struct fl_fixed *a, uint64_t by)
{
    fl_u128 rest = 0;

    for (int i = LIMBS - 1; i >= 0; i--) {
        rest = rest << 64 | a->limb[i];
        a->limb[i] = (uint64_t)(rest / by);
        rest %= by;
    }
}

static bool is_zero(const struct fl_fixed *a)
{
    uint64_t any = 0;

    for (int i = 0; i < LIMBS; i++) {
        any |= a->limb[i];
    }
    return any == 0;
}

/* exp(-t) = (exp(-t / 2^10))^(2^10); the series of the root has some 28 terms, alternating: those
 * added and those taken away are summed apart. */
void fl_fixed_exp_minus(struct fl_fixed *ret, uint64_t numerator, uint64_t denominator)
{
    enum { HALVINGS = 10 };
    struct fl_fixed t = {{0}}, term, sums[2] = {{{0}}, {{0}}};

    t.limb[LIMBS - 1] = numerator;
    divide_small(&t, denominator);
    assert(t.limb[LIMBS - 1] <= 16);
    divide_small(&t, (uint64_t)1 << HALVINGS);
    fl_fixed_one(&term);
    for (uint64_t k = 1; !is_zero(&term); k++) {
        fl_fixed_add(&sums[k % 2], &sums[k % 2], &term);
        fl_fixed_mul(&term, &term, &t);
        divide_small(&term, k);
    }
    fl_fixed_sub(ret, &sums[1], &sums[0]);
    for (int i = 0; i < HALVINGS; i++) {
        fl_fixed_mul(ret, ret, ret);
    }
}

static bool at_least(const struct fl_fixed *a, const struct fl_fixed *b)
{
    for (int i = LIMBS - 1; i >= 0; i--) {
        if (a->limb[i] != b->limb[i]) {
            return a->limb[i] > b->limb[i];
        }
    }
    return true;
}

fl_u128 fl_fixed_fraction(const struct fl_fixed *a, const struct fl_fixed *b)
{
    struct fl_fixed rest = *a;
    fl_u128 quotient = 0;

    if (at_least(a, b)) {
        return ~(fl_u128)0;
    }
    for (int i = 0; i < 128; i++) {
        fl_fixed_add(&rest, &rest, &rest);
        quotient <<= 1;
        if (at_least(&rest, b)) {
            fl_fixed_sub(&rest, &rest, b);
            quotient |= 1;
        }
    }
    return quotient;
}
