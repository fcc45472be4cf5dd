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
 *    (fixed.h), where p(x) is a running product of powers of exp(-1 / (2 (s/K)^2)). A draw takes 16
 *    random bits. The first 12 choose a cell, which knows the smallest x possible in it and the
 *    next 4 bits of the threshold that falls into it, if one does: below it is x, beyond it x + 1.
 *    Equal to it, or where several thresholds fall into one cell (far out), the other 112 of the
 *    128 bits are drawn and the comparison is the full one: once in some 200 draws.
 *
 *    The keeping. Bernoulli(exp(-t)) with rational t by the series of the reference: the first step
 *    is "a uniform number is not below t: keep". That is decided by the 31 - j bits that sign and y
 *    leave of 32 more random ones, and a float with margins far above its rounding; when they are
 *    too few to tell, the rest of the very same uniform number is drawn and compared exactly in
 *    integers. So the floats only save time. The other outcome (about 3 %) goes on with exact
 *    arithmetic.
 *
 *    So nearly every draw is decided by 48 bits, without a branch: a block of them is turned into
 *    values and "surely" flags by vector code, and what is not sure is decided one by one, with
 *    more of the stream. A value never moves to another place in the order for being sure or not.
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
#include "common/math/pick.h"
#include "common/math/vec.h"
#include "common/privacy/fixed.h"

#include <assert.h>
#include <endian.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    TABLE_MAX = 452, /* ceil(14 * 32) + 1, and some for s rounded up */
    CELL_BITS = 12,
    CELLS = 1 << CELL_BITS,
    REST = 16 - CELL_BITS, /* bits of a draw behind the cell's */
    NO_THRESHOLD = 1 << REST,
    CELL_X = 8, /* where x begins in a cell; below it the threshold */
    BLOCK = 512,
};
static const uint32_t SEVERAL = 1u << 31; /* thresholds: never sure */

struct fl_noise {
    uint64_t m; /* s^2 = m * 4^k */
    int k;
    uint64_t t; /* scale of the reference's proposals: floor(s) + 1, or that of sqrt(m) times 2^k */

    unsigned j;                               /* K = 2^j */
    double over_2s;                           /* about 1 / (2 s^2) */
    uint32_t count;                           /* of the table */
    uint64_t high[TABLE_MAX], low[TABLE_MAX]; /* T[x]; the last one is never reached */
    uint32_t cell[CELLS];
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

/* What a draw begins with: 16 bits for the table; and the sign, j bits of y, and what is left. */
struct random {
    uint32_t low[BLOCK];
    uint16_t high[BLOCK];
};

/* Room for a block, from random bits to values; wiped in the end. */
struct block {
    struct random random;
    uint32_t x[BLOCK], y[BLOCK], sure[BLOCK];
    uint32_t open[BLOCK + FL_PICK_SLACK]; /* numbers of those that are not sure */
    int64_t value[BLOCK], kept[BLOCK + FL_PICK_SLACK];
};

static void fetch(struct fl_rng *r, struct random *to)
{
    fl_rng_bytes(r, to, sizeof *to);
    for (size_t i = 0; i < BLOCK; i++) {
        to->low[i] = le32toh(to->low[i]);
        to->high[i] = le16toh(to->high[i]);
    }
}

FL_VECTOR static void look_up(const uint32_t *restrict cells, struct block *restrict b)
{
    for (size_t i = 0; i < BLOCK; i++) {
        uint32_t u = b->random.high[i], cell = cells[u >> REST];
        uint32_t rest = u & (NO_THRESHOLD - 1), threshold = cell & (2 * NO_THRESHOLD - 1);
        b->x[i] = ((cell & ~SEVERAL) >> CELL_X) + (rest > threshold ? 1 : 0);
        b->sure[i] = (rest != threshold ? 1 : 0) & ~(cell >> 31);
    }
}

/* Surely kept, and what it is: loops of one thing each become vector code. The floats: y, x and u
 * are rounded once, the products three times, each by 2^-24; t is below 0.9. */
FL_VECTOR static void decide(unsigned j, double over_2s, struct block *restrict b)
{
    const uint32_t mask = ((uint32_t)1 << j) - 1;
    const float twice = ldexpf(2, (int)j), unit = ldexpf(1, (int)j - 31), over = (float)over_2s;
    const uint32_t *restrict low = b->random.low;

    for (size_t i = 0; i < BLOCK; i++) {
        uint32_t whole_y = low[i] >> 1 & mask;
        float y = (float)(int32_t)whole_y, x = (float)(int32_t)b->x[i];
        float u = (float)(int32_t)(low[i] >> (j + 1)) * unit;
        uint32_t kept = u > y * (y + x * twice) * over + 0x1p-20f ? 1 : 0;
        uint32_t not_minus_zero = (b->x[i] | whole_y | (~low[i] & 1)) != 0 ? 1 : 0;
        b->y[i] = whole_y;
        b->sure[i] &= kept & not_minus_zero;
    }
    for (size_t i = 0; i < BLOCK; i++) {
        int64_t z = (int64_t)(((uint64_t)b->x[i] << j) + b->y[i]);
        int64_t minus = -(int64_t)(low[i] & 1);
        b->value[i] = (z ^ minus) - minus;
    }
}

/* The first x with (u, the other 112 bits) below T[x]; those are drawn only where they decide. */
static uint64_t draw_table(const struct fl_noise *n, struct fl_rng *r, uint32_t u)
{
    uint32_t x = (n->cell[u >> REST] & ~SEVERAL) >> CELL_X;

    while (u > n->high[x] >> 48) {
        x++;
    }
    if (u < n->high[x] >> 48) {
        return x;
    }
    fl_u128 whole = (fl_u128)u << 112 | uniform_bits(r, 112);
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

/* Keeps with probability exp(-y (y + 2 K x) / (2 s^2)). `prefix`: of the uniform number. */
static bool keeps(const struct fl_noise *n, struct fl_rng *r, uint64_t x, uint64_t y,
                  uint32_t prefix)
{
    unsigned bits = 31 - n->j;
    uint64_t a = y * (y + (x << (n->j + 1)));
    double t = (double)a * n->over_2s, u = ldexp(prefix, -(int)bits);

    if (u > t + 0x1p-30) {
        return true;
    }
    /* t = numerator / denominator, below 0.9: x <= 14 s/K and s/K >= 16 (or y = 0). Where y > 0 and
     * k < 0, 32 <= s < 2^16 makes a 4^-k < 2^54; a < 2^62 and 2 m 4^k < 2^62 otherwise. */
    fl_u128 numerator = n->k < 0 ? (fl_u128)a << (-2 * n->k) : a;
    fl_u128 denominator = n->k < 0 ? 2 * (fl_u128)n->m : (fl_u128)n->m << (2 * n->k + 1);
    bool below = u + ldexp(1, -(int)bits) + 0x1p-30 < t ||
                 below_exactly(r, prefix, bits, numerator, denominator);
    return !below || series(r, numerator, denominator, 2);
}

/* What the block left open: false, it gives no value. */
static bool draw_alone(const struct fl_noise *n, struct fl_rng *r, uint32_t high, uint32_t low,
                       int64_t *ret)
{
    uint64_t y = low >> 1 & (((uint32_t)1 << n->j) - 1);
    uint64_t x = draw_table(n, r, high), z = (x << n->j) + y;
    bool minus = low & 1;

    if ((z == 0 && minus) || !keeps(n, r, x, y, low >> (n->j + 1))) {
        return false;
    }
    *ret = minus ? -(int64_t)z : (int64_t)z;
    return true;
}

FL_VECTOR static void add(const int64_t *restrict x, int64_t *restrict to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] += x[i];
    }
}

void fl_noise_add(const struct fl_noise *n, struct fl_rng *r, int64_t *q, size_t count)
{
    struct block b;

    for (size_t at = 0, kept; at < count; at += kept) {
        fetch(r, &b.random);
        look_up(n->cell, &b);
        decide(n->j, n->over_2s, &b);
        size_t open = fl_pick_zeros(b.sure, BLOCK, b.open);
        for (size_t k = 0; k < open; k++) {
            uint32_t i = b.open[k];
            b.sure[i] = draw_alone(n, r, b.random.high[i], b.random.low[i], &b.value[i]);
        }
        kept = fl_pick_values(b.sure, b.value, BLOCK, b.kept);
        kept = kept < count - at ? kept : count - at;
        add(b.kept, q + at, kept);
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

static void fill_cells(struct fl_noise *n)
{
    for (uint32_t g = 0, x = 0; g < CELLS; g++) {
        while (n->high[x] < (uint64_t)g << (64 - CELL_BITS)) {
            x++;
        }
        uint32_t threshold = (uint32_t)(n->high[x] >> 48), cell = x << CELL_X;
        if (threshold >> REST != g) {
            cell |= NO_THRESHOLD;
        } else {
            cell |= threshold & (NO_THRESHOLD - 1);
            if (x + 1 < n->count && n->high[x + 1] >> (64 - CELL_BITS) == g) {
                cell |= SEVERAL;
            }
        }
        n->cell[g] = cell;
    }
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
    fill_cells(n);
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
