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
 *    (fixed.h), where p(x) is a running product of powers of exp(-1 / (2 (s/K)^2)). A draw takes 64
 *    random bits, and the other 64 of the 128 only when the first ones equal a threshold's: once in
 *    2^56 draws, and then the comparison is the full one.
 *
 *    The keeping. Bernoulli(exp(-t)) with rational t by the series of the reference: the first step
 *    is "a uniform number is not below t: keep". That is decided by 37 random bits and a double
 * with margins far above its rounding; when the uniform prefix is too close to t to tell, the rest
 * of the very same uniform number is drawn and compared exactly in integers. So the doubles only
 *    save time. The rare other outcome (about 3 %) goes on with exact arithmetic.
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
#include "common/privacy/fixed.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    TABLE_MAX = 452, /* ceil(14 * 32) + 1, and some for s rounded up */
    GUIDE_BITS = 9,
    GUIDE = 1 << GUIDE_BITS,
    PREFIX_BITS = 37, /* of the uniform that decides the keeping: 64 - 1 (sign) - 26 (y) */
    WORDS = 512,
};

struct fl_noise {
    uint64_t m; /* s^2 = m * 4^k */
    int k;
    uint64_t t; /* scale of the reference's proposals: floor(s) + 1, or that of sqrt(m) times 2^k */

    unsigned j;                               /* K = 2^j */
    double over_2s;                           /* about 1 / (2 s^2) */
    uint32_t count;                           /* of the table */
    uint64_t high[TABLE_MAX], low[TABLE_MAX]; /* T[x]; the last one is never reached */
    uint16_t guide[GUIDE]; /* smallest x possible when the first GUIDE_BITS bits are these */
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

struct words {
    struct fl_rng *rng;
    uint32_t at;
    uint64_t word[WORDS];
};

static inline uint64_t next_word(struct words *w)
{
    if (w->at == WORDS) {
        fl_rng_words(w->rng, w->word, WORDS);
        w->at = 0;
    }
    return w->word[w->at++];
}

static inline uint64_t draw_table(const struct fl_noise *n, struct words *w)
{
    uint64_t u = next_word(w);
    uint32_t x = n->guide[u >> (64 - GUIDE_BITS)];

    for (;; x++) {
        if (u < n->high[x]) {
            return x;
        }
        if (__builtin_expect(u == n->high[x], 0)) {
            /* The other half of this uniform number, once and for all further comparisons. */
            uint64_t rest = next_word(w);
            while (x + 1 < n->count && n->high[x] == u && n->low[x] <= rest) {
                x++;
            }
            return x;
        }
    }
}

/* The uniform number began with `prefix` (PREFIX_BITS bits): is it below a/b? The rest of it,
 * uniform in [0, 1), decides: below a 2^bits / b - prefix. */
static bool below_exactly(struct fl_rng *r, uint64_t prefix, fl_u128 a, fl_u128 b)
{
    fl_u128 scaled = a << PREFIX_BITS, part = prefix * b;

    return scaled > part && bernoulli(r, scaled - part, b);
}

/* Keeps with probability exp(-y (y + 2 K x) / (2 s^2)). */
static inline bool keeps(const struct fl_noise *n, struct words *w, uint64_t x, uint64_t y,
                         uint64_t prefix)
{
    uint64_t a = y * (y + (x << (n->j + 1)));
    double t = (double)a * n->over_2s, u = (double)prefix * 0x1p-37;

    if (__builtin_expect(u > t + 0x1p-30, 1)) {
        return true;
    }
    /* t = numerator / denominator, below 0.9: x <= 14 s/K and s/K >= 16 (or y = 0). Where y > 0 and
     * k < 0, 32 <= s < 2^16 makes a 4^-k < 2^54; a < 2^62 and 2 m 4^k < 2^62 otherwise. */
    fl_u128 numerator = n->k < 0 ? (fl_u128)a << (-2 * n->k) : a;
    fl_u128 denominator = n->k < 0 ? 2 * (fl_u128)n->m : (fl_u128)n->m << (2 * n->k + 1);
    bool below = u + 0x1p-30 < t || below_exactly(w->rng, prefix, numerator, denominator);
    return !below || series(w->rng, numerator, denominator, 2);
}

void fl_noise_add(const struct fl_noise *n, struct fl_rng *r, int64_t *q, size_t count)
{
    const uint64_t mask = ((uint64_t)1 << n->j) - 1;
    struct words w = {.rng = r, .at = WORDS};

    for (size_t i = 0; i < count;) {
        uint64_t x = draw_table(n, &w), bits = next_word(&w);
        uint64_t y = bits >> 1 & mask, z = (x << n->j) + y;
        int64_t minus = -(int64_t)(bits & 1);
        if ((z == 0 && minus) || !keeps(n, &w, x, y, bits >> (64 - PREFIX_BITS))) {
            continue;
        }
        q[i++] += ((int64_t)z ^ minus) - minus;
    }
    explicit_bzero(&w, sizeof w);
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
    }
    for (uint32_t g = 0, x = 0; g < GUIDE; g++) {
        while (n->high[x] < (uint64_t)g << (64 - GUIDE_BITS)) {
            x++;
        }
        n->guide[g] = (uint16_t)x;
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
