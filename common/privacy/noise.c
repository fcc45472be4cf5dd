/*
 * Two samplers of one distribution, p(x) ~ exp(-x^2 / (2 s^2)) over the integers.
 *
 * s^2 is the rational m * 4^k with 2^30 <= m < 2^32, rounded up from the double that was asked for.
 *
 * 1. fl_noise_draw, the reference: discrete Laplace proposals and exact rejection, algorithms 1-3
 * of Canonne, Kamath and Steinke (2020). Every decision is "is this uniform integer below that
 *    integer", so the distribution is exact. All products fit in 128 bits (see draw_accepts).
 *
 * 2. fl_noise_add, for speed. Write K = 2^j with s/K in [16, 32) (j = 0 below 32). A magnitude is
 *    K x + y: x from the half Gaussian of scale s/K by a table, y uniform in [0, K), kept with
 *    probability exp(-y (y + 2 K x) / (2 s^2)), which turns the product of the two laws into the
 *    half Gaussian of scale s (the construction of BLISS: Ducas, Durmus, Lepoint, Lyubashevsky
 *    2013). Then a sign; zero with a minus is drawn again. With s/K >= 16 some 97 % are kept, the
 *    table has at most 433 entries and stays in the first cache, and s may be as large as 2^30.
 *
 *    The table. Thresholds T[x] = floor(2^128 P(X <= x)) are made in 256-bit fixed point
 *    (fixed.h), where p(x) is a running product of powers of exp(-1 / (2 (s/K)^2)). A draw takes 32
 *    random bits, and the other 96 of the 128 only when the first ones equal a threshold's: once in
 *    2^23 draws, and then the comparison is the full one.
 *
 *    The keeping. Bernoulli(exp(-t)) with rational t by the series of the reference: the first step
 *    is "a uniform number is not below t: keep". That is decided by the 31 - j bits that sign and y
 *    leave of the other half of a random word, and a double with margins far above its rounding;
 *    when they are too few to tell, the rest of the very same uniform number is drawn and compared
 *    exactly in integers. So the doubles only save time. The other outcome (about 3 %) goes on with
 *    exact arithmetic.
 *
 *    So nearly every draw is decided by one word, without a branch: a block of words is turned into
 *    values and "surely" flags by vector code, and what is not sure is decided one by one, with
 * more of the stream.
 *
 * Distance of one value: every threshold is at most 2^-127 off (rounding down, plus the table's
 * 2^-200), 433 of them; the tail beyond the table (14 s) is below 2^-130; division by the
 * probability of being kept, more than 1/2 each for y and for the sign of zero, at most quadruples
 * that.
 *
 * Time depends on the noise drawn, never on the data it is added to. Buffers of random words are
 * wiped.
 */
#include "common/privacy/noise.h"

#include "common/base/mem.h"
#include "common/base/u128.h"
#include "common/math/vec.h"
#include "common/privacy/fixed.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    TABLE_MAX = 452, /* ceil(14 * 32) + 1, and some for s rounded up */
    GUIDE_BITS = 10,
    GUIDE = 1 << GUIDE_BITS,
    STEPS = 2, /* from the guide's x on, before a draw is left to be decided by itself */
    BLOCK = 512,
};

struct fl_noise {
    uint64_t m; /* s^2 = m * 4^k */
    int k;
    uint64_t t; /* scale of the reference's proposals: floor(s) + 1, or that of sqrt(m) times 2^k */

    unsigned j;                               /* K = 2^j */
    double over_2s;                           /* about 1 / (2 s^2) */
    uint32_t count;                           /* of the table */
    uint64_t high[TABLE_MAX], low[TABLE_MAX]; /* T[x]; the last one is never reached */
    uint32_t top[TABLE_MAX];                  /* the first 32 bits of T[x] */
    uint32_t guide[GUIDE]; /* smallest x possible when the first GUIDE_BITS bits are these */
};

/* ---- exact decisions from a stream ---- */

static fl_u128 uniform_bits(struct fl_rng *r, unsigned bits)
{
    fl_u128 x = fl_rng_u64(r);

    if (bits > 64) {
        x |= (fl_u128)fl_rng_u64(r) << 64;
    }
    return bits == 128 ? x : x & (((fl_u128)1 << bits) - 1);
}

/* True with probability a/b exactly; a >= b is always true. */
static bool bernoulli(struct fl_rng *r, fl_u128 a, fl_u128 b)
{
    unsigned bits = fl_u128_bits(b - 1);
    fl_u128 x;

    if (a == 0 || a >= b) {
        return a != 0;
    }
    do {
        x = uniform_bits(r, bits);
    } while (x >= b);
    return x < a;
}

/* From step k on: is the first k with a failed Bernoulli(a / (b k)) odd? For a <= b. A hundredth
 * step has probability 1/100!; until there b k stays within 128 bits. */
static bool series(struct fl_rng *r, fl_u128 a, fl_u128 b, unsigned k)
{
    assert(a <= b && fl_u128_bits(b) <= 121);
    while (k < 100 && bernoulli(r, a, b * k)) {
        k++;
    }
    return k % 2 == 1;
}

/* True with probability exp(-a/b) exactly. */
static bool bernoulli_exp(struct fl_rng *r, fl_u128 a, fl_u128 b)
{
    while (a > b) {
        if (!series(r, 1, 1, 1)) {
            return false;
        }
        a -= b;
    }
    return series(r, a, b, 1);
}

/* ---- the reference ---- */

/* exp(-(|y| - s^2/t)^2 / (2 s^2)). With k >= 0, t = T 2^k:  (|y| T - m 2^k)^2 / (2 m T^2 4^k),
 * where |y| < 2^10 (t + 1) keeps the square below 2^116; with k < 0, d = 4^-k <= 2^34: (|y| d t -
 * m)^2 / (2 m d t^2), below 2^96. */
static bool draw_accepts(const struct fl_noise *n, struct fl_rng *r, uint64_t y)
{
    fl_u128 left, right, gap, denominator;

    if (n->k >= 0) {
        fl_u128 T = n->t >> n->k;
        left = y * T;
        right = (fl_u128)n->m << n->k;
        denominator = (2 * (fl_u128)n->m * T * T) << (2 * n->k);
    } else {
        fl_u128 d = (fl_u128)1 << (-2 * n->k);
        left = y * d * n->t;
        right = n->m;
        denominator = 2 * (fl_u128)n->m * d * n->t * n->t;
    }
    gap = left > right ? left - right : right - left;
    return bernoulli_exp(r, gap * gap, denominator);
}

int64_t fl_noise_draw(const struct fl_noise *n, struct fl_rng *r)
{
    for (;;) {
        /* Discrete Laplace of scale t: |y| = u + t v. */
        uint64_t u = fl_rng_below(r, n->t), v = 0;
        if (!bernoulli_exp(r, u, n->t)) {
            continue;
        }
        while (v < 1024 && series(r, 1, 1, 1)) {
            v++;
        }
        bool minus = fl_rng_u64(r) & 1;
        uint64_t y = u + n->t * v;
        /* v = 1024 has probability e^-1024, and would be kept with probability e^-500000. */
        if ((minus && y == 0) || v == 1024 || !draw_accepts(n, r, y)) {
            continue;
        }
        return minus ? -(int64_t)y : (int64_t)y;
    }
}

/* ---- the fast one ---- */

/* One random word: 32 bits for the table, the sign, j bits of y, and what is left. */
struct parts {
    uint32_t u, y, prefix;
    bool minus;
};

static inline struct parts parts_of(const struct fl_noise *n, uint64_t word)
{
    uint32_t low = (uint32_t)word;

    return (struct parts){.u = (uint32_t)(word >> 32),
                          .minus = low & 1,
                          .y = low >> 1 & (((uint32_t)1 << n->j) - 1),
                          .prefix = low >> (n->j + 1)};
}

/* Room for a block, from words to values; wiped in the end. */
struct block {
    uint64_t word[BLOCK];
    uint32_t low[BLOCK], x[BLOCK], y[BLOCK], sure[BLOCK];
    int64_t value[BLOCK];
};

/* Without a branch, so that many draws are under way at once. */
static void look_up(const struct fl_noise *n, struct block *restrict b)
{
    for (size_t i = 0; i < BLOCK; i++) {
        uint32_t u = (uint32_t)(b->word[i] >> 32), x = n->guide[u >> (32 - GUIDE_BITS)];
        for (int k = 0; k < STEPS; k++) {
            x += u > n->top[x];
        }
        b->x[i] = x;
        b->sure[i] = u < n->top[x];
        b->low[i] = (uint32_t)b->word[i];
    }
}

/* Surely kept, and what it is: loops of one thing each become vector code. The doubles: y and x K
 * are exact, t is below 0.9. */
FL_VECTOR static void decide(unsigned j, double over_2s, struct block *restrict b)
{
    const uint32_t mask = ((uint32_t)1 << j) - 1;
    const double twice = ldexp(2, (int)j), unit = ldexp(1, (int)j - 31);

    for (size_t i = 0; i < BLOCK; i++) {
        b->y[i] = b->low[i] >> 1 & mask;
    }
    for (size_t i = 0; i < BLOCK; i++) {
        double y = (double)(int32_t)b->y[i], x = (double)(int32_t)b->x[i];
        double u = (double)(int32_t)(b->low[i] >> (j + 1)) * unit;
        b->sure[i] &= u > y * (y + x * twice) * over_2s + 0x1p-30 ? 1 : 0;
    }
    for (size_t i = 0; i < BLOCK; i++) { /* zero with a minus is none */
        b->sure[i] &= (b->x[i] | b->y[i] | (~b->low[i] & 1)) != 0 ? 1 : 0;
    }
    for (size_t i = 0; i < BLOCK; i++) {
        int64_t z = (int64_t)(((uint64_t)b->x[i] << j) + b->y[i]);
        int64_t minus = -(int64_t)(b->low[i] & 1);
        b->value[i] = (z ^ minus) - minus;
    }
}

/* The first x with (u, the other 96 bits) below T[x]; those are drawn only where they decide. */
static uint64_t draw_table(const struct fl_noise *n, struct fl_rng *r, uint32_t u)
{
    uint32_t x = n->guide[u >> (32 - GUIDE_BITS)];

    while (u > n->top[x]) {
        x++;
    }
    if (u < n->top[x]) {
        return x;
    }
    fl_u128 whole = (fl_u128)u << 96 | uniform_bits(r, 96);
    while (x + 1 < n->count && whole >= ((fl_u128)n->high[x] << 64 | n->low[x])) {
        x++;
    }
    return x;
}

/* The uniform number began with `prefix` (of so many bits): is it below a/b? The rest of it,
 * uniform in [0, 1), decides: below a 2^bits / b - prefix. */
static bool below_exactly(struct fl_rng *r, uint64_t prefix, unsigned bits, fl_u128 a, fl_u128 b)
{
    fl_u128 scaled = a << bits, part = prefix * b;

    return scaled > part && bernoulli(r, scaled - part, b);
}

/* Keeps with probability exp(-y (y + 2 K x) / (2 s^2)). */
static bool keeps(const struct fl_noise *n, struct fl_rng *r, uint64_t x, const struct parts *p)
{
    unsigned bits = 31 - n->j;
    uint64_t a = p->y * (p->y + (x << (n->j + 1)));
    double t = (double)a * n->over_2s, u = ldexp(p->prefix, -(int)bits);

    if (u > t + 0x1p-30) {
        return true;
    }
    /* t = numerator / denominator, below 0.9: x <= 14 s/K and s/K >= 16 (or y = 0). Where y > 0 and
     * k < 0, 32 <= s < 2^16 makes a 4^-k < 2^54; a < 2^62 and 2 m 4^k < 2^62 otherwise. */
    fl_u128 numerator = n->k < 0 ? (fl_u128)a << (-2 * n->k) : a;
    fl_u128 denominator = n->k < 0 ? 2 * (fl_u128)n->m : (fl_u128)n->m << (2 * n->k + 1);
    bool below = u + ldexp(1, -(int)bits) + 0x1p-30 < t ||
                 below_exactly(r, p->prefix, bits, numerator, denominator);
    return !below || series(r, numerator, denominator, 2);
}

/* A word that the block left open: false, it gives no value. */
static bool draw_alone(const struct fl_noise *n, struct fl_rng *r, uint64_t word, int64_t *ret)
{
    struct parts p = parts_of(n, word);
    uint64_t x = draw_table(n, r, p.u), z = (x << n->j) + p.y;

    if ((z == 0 && p.minus) || !keeps(n, r, x, &p)) {
        return false;
    }
    *ret = p.minus ? -(int64_t)z : (int64_t)z;
    return true;
}

void fl_noise_add(const struct fl_noise *n, struct fl_rng *r, int64_t *q, size_t count)
{
    struct block b;
    size_t at = 0;

    while (at < count) {
        fl_rng_words(r, b.word, BLOCK);
        look_up(n, &b);
        decide(n->j, n->over_2s, &b);
        for (size_t i = 0; i < BLOCK && at < count; i++) {
            if (__builtin_expect(b.sure[i] != 0, 1) || draw_alone(n, r, b.word[i], &b.value[i])) {
                q[at++] += b.value[i];
            }
        }
    }
    explicit_bzero(&b, sizeof b);
}

/* ---- preparing ---- */

/* m * 4^k >= s^2, just above. s = mantissa * 2^exponent with a 53-bit mantissa. */
static void square_up(double s, uint64_t *ret_m, int *ret_k)
{
    int exponent;
    uint64_t mantissa = (uint64_t)ldexp(frexp(s, &exponent), 53);
    fl_u128 square = (fl_u128)mantissa * mantissa; /* 105 or 106 bits */
    unsigned cut = (fl_u128_bits(square) - 31) & ~1u;
    fl_u128 m = (square + (((fl_u128)1 << cut) - 1)) >> cut;
    int k = exponent - 53 + (int)(cut / 2);

    if (m >> 32) {
        m = (m + 3) >> 2;
        k++;
    }
    *ret_m = (uint64_t)m;
    *ret_k = k;
}

/* T[x] = floor(2^128 sum_{i <= x} p(i) / sum_i p(i)), p(i) = exp(-i^2 / (2 s0^2)), s0^2 = s^2 /
 * K^2.
 */
static void fill_table(struct fl_noise *n)
{
    int k0 = n->k - (int)n->j; /* s0^2 = m 4^k0, and k0 < 0: s0 < 32 while sqrt(m) >= 2^15 */
    struct fl_fixed base, ratio, square, p, total = {{0}}, sums[TABLE_MAX];
    double s0 = ldexp(sqrt((double)n->m), k0);

    assert(k0 < 0);
    n->count = (uint32_t)ceil(14 * s0) + 1;
    assert(n->count <= TABLE_MAX);
    /* exp(-1 / (2 s0^2)) = exp(-4^-k0 / (2 m)) */
    fl_fixed_exp_minus(&base, (uint64_t)1 << (-2 * k0 - 1), n->m);
    fl_fixed_mul(&square, &base, &base);
    fl_fixed_one(&p);
    ratio = base; /* p(i + 1) / p(i) = base^(2 i + 1) */
    for (uint32_t i = 0; i < n->count; i++) {
        fl_fixed_add(&total, &total, &p);
        sums[i] = total;
        fl_fixed_mul(&p, &p, &ratio);
        fl_fixed_mul(&ratio, &ratio, &square);
    }
    for (uint32_t i = 0; i < n->count; i++) {
        fl_u128 t = i + 1 == n->count ? ~(fl_u128)0 : fl_fixed_fraction(&sums[i], &total);
        n->high[i] = (uint64_t)(t >> 64);
        n->low[i] = (uint64_t)t;
        n->top[i] = (uint32_t)(t >> 96);
    }
    for (uint32_t g = 0, x = 0; g < GUIDE; g++) {
        while (n->high[x] < (uint64_t)g << (64 - GUIDE_BITS)) {
            x++;
        }
        n->guide[g] = x;
    }
}

int fl_noise_new(double s, struct fl_noise **ret, struct fl_err *e)
{
    struct fl_noise *n;

    if (!(s >= 0.25 && s <= 0x1p30)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "noise of %g grid steps; between 0.25 and 2^30 can be drawn", s);
    }
    n = fl_try(1, sizeof *n);
    if (!n) {
        return fl_fail(e, FL_R_NOMEM, "noise table");
    }
    square_up(s, &n->m, &n->k);
    if (n->k >= 0) {
        n->t = (fl_u128_isqrt(n->m) + 1) << n->k;
    } else {
        n->t = fl_u128_isqrt(n->m >> (-2 * n->k)) + 1;
    }
    while (ldexp(s, -(int)n->j) >= 32) {
        n->j++;
    }
    n->over_2s = 0.5 / ldexp((double)n->m, 2 * n->k);
    fill_table(n);
    *ret = n;
    return 0;
}

void fl_noise_free(struct fl_noise *n)
{
    fl_free(n);
}

double fl_noise_distance(const struct fl_noise *n)
{
    return 4 * ((double)n->count * 0x1p-127 + 0x1p-130);
}

double fl_noise_scale(const struct fl_noise *n)
{
    return ldexp(sqrt((double)n->m), n->k);
}
