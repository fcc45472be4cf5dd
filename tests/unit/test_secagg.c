/* The parts of secure aggregation: field, shares, graph, masks, ring; and whole sums. */
#include "common/privacy/secagg/client_in.h"
#include "common/privacy/secagg/mask.h"
#include "common/privacy/secagg/rule.h"
#include "common/privacy/secagg/shamir.h"
#include "tests/lib/secagg_small.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's randomness, which may end: fl_entropy calls this one. */
static long entropy_left = -1;

ssize_t getrandom(void *buf, size_t size, unsigned flags)
{
    if (entropy_left == 0) {
        errno = ENOSYS;
        return -1;
    }
    entropy_left -= entropy_left > 0;
    return syscall(SYS_getrandom, buf, size, flags);
}

/* ---- the field and the shares ---- */

/* Carry-less product and long division: nothing in common with the masks of the real one. */
static uint16_t naive_mul(uint16_t a, uint16_t b)
{
    uint32_t product = 0;

    for (int i = 0; i < 16; i++) {
        if (b >> i & 1) {
            product ^= (uint32_t)a << i;
        }
    }
    for (int i = 31; i >= 16; i--) {
        if (product >> i & 1) {
            product ^= (uint32_t)0x1100b << (i - 16);
        }
    }
    return (uint16_t)product;
}

START_TEST(test_field)
{
    struct fl_seed seed;
    struct fl_rng rng;
    uint16_t x = 1;
    uint32_t order = 0;

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int i = 0; i < 100000; i++) {
        uint16_t a = (uint16_t)fl_rng_u64(&rng), b = (uint16_t)fl_rng_u64(&rng);
        ck_assert_uint_eq(fl_gf16_mul(a, b), naive_mul(a, b));
    }
    /* x generates all 65535 that are not 0: so the polynomial is irreducible and this is a field.
     */
    do {
        x = fl_gf16_mul(x, 2);
        order++;
    } while (x != 1);
    ck_assert_uint_eq(order, 65535);
}
END_TEST

START_TEST(test_shamir)
{
    uint8_t secret[32], back[32];
    struct fl_share shares[40], some[40];
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(2, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int round = 0; round < 200; round++) {
        uint32_t count = 1 + (uint32_t)fl_rng_below(&rng, 40);
        uint32_t t = 1 + (uint32_t)fl_rng_below(&rng, count), order[40];
        fl_rng_bytes(&rng, secret, sizeof secret);
        for (uint32_t i = 0; i < count; i++) {
            order[i] = i;
            shares[i].holder = i == 0 ? 65535 : 3 * i;
        }
        ck_assert_int_eq(fl_shamir_deal(secret, t, &rng, shares, count, NULL), 0);
        fl_rng_shuffle(&rng, order, count);
        for (uint32_t i = 0; i < t; i++) {
            some[i] = shares[order[i]];
        }
        ck_assert(fl_shamir_join(some, t, back));
        ck_assert_mem_eq(back, secret, sizeof secret);
        if (t > 1) { /* one too few, or one wrong bit: other bytes */
            ck_assert(fl_shamir_join(some, t - 1, back));
            ck_assert_mem_ne(back, secret, sizeof secret);
            some[t / 2].bytes[5] ^= 1;
            ck_assert(fl_shamir_join(some, t, back));
            ck_assert_mem_ne(back, secret, sizeof secret);
            some[1].holder = some[0].holder;
            ck_assert(!fl_shamir_join(some, t, back));
        }
        some[0].holder = 0;
        ck_assert(!fl_shamir_join(some, t, back));
    }
}
END_TEST

/* t - 1 shares say nothing: over all secrets each value of a share is as likely. Seen on one symbol
 * of 2-of-3 shares: the shares of two very different secrets have the same distribution of bits. */
START_TEST(test_shares_hide)
{
    uint8_t secrets[2][32] = {{0}};
    struct fl_share shares[3] = {{.holder = 1}, {.holder = 2}, {.holder = 3}};
    int ones[2] = {0};
    struct fl_seed seed;
    struct fl_rng rng;

    memset(secrets[1], 0xff, 32);
    fl_seed_from_u64(3, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int which = 0; which < 2; which++) {
        for (int i = 0; i < 4000; i++) {
            ck_assert_int_eq(fl_shamir_deal(secrets[which], 2, &rng, shares, 3, NULL), 0);
            for (int byte = 0; byte < 32; byte++) {
                ones[which] += __builtin_popcount(shares[1].bytes[byte]);
            }
        }
        /* 1,024,000 bits, standard deviation 506 */
        ck_assert_int_lt(abs(ones[which] - 512000), 2600);
    }
}
END_TEST

/* ---- rule and graph ---- */

/* Published sizes for these assumptions (odd degrees), computed independently. */
START_TEST(test_rule_table)
{
    static const struct {
        uint32_t corrupt, dropout, k[3], t[3];
    } rows[] = {
        {50, 50, {11, 31, 37}, {6, 17, 20}},      {100, 100, {21, 53, 61}, {11, 28, 32}},
        {200, 100, {31, 75, 87}, {21, 46, 53}},   {200, 200, {41, 109, 137}, {21, 57, 71}},
        {330, 100, {43, 113, 139}, {32, 77, 94}}, {330, 330, {67, 309, 475}, {34, 158, 243}},
    };
    static const uint32_t n[3] = {100, 1000, 10000};
    struct fl_secagg_rule rule;
    struct fl_err e;

    for (size_t r = 0; r < FL_COUNT(rows); r++) {
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(fl_secagg_rule(n[i], rows[r].corrupt, rows[r].dropout, &rule, &e), 0);
            ck_assert_uint_eq(rule.neighbours, rows[r].k[i]);
            ck_assert_uint_eq(rule.threshold, rows[r].t[i]);
            ck_assert_uint_le(rule.sample_min, rule.sample);
            ck_assert_uint_gt(rule.threshold, rule.neighbours / 2);
        }
    }
    ck_assert_int_eq(fl_secagg_rule(1, 0, 0, &rule, &e), -FL_R_CONF_RANGE);
    ck_assert_int_eq(fl_secagg_rule(FL_SECAGG_MEMBERS_MAX + 1, 0, 0, &rule, &e), -FL_R_CONF_RANGE);
    ck_assert_int_eq(fl_secagg_rule(10, 600, 400, &rule, &e), -FL_R_CONF_RANGE);
    ck_assert_int_eq(fl_secagg_rule(100, 480, 480, &rule, &e), -FL_R_CONF_RANGE);
}
END_TEST

/* The tail against sums of exact products in long double. */
START_TEST(test_tail)
{
    for (uint32_t marked = 0; marked <= 12; marked++) {
        for (uint32_t draws = 0; draws <= 12; draws++) {
            for (uint32_t least = 0; least <= 13; least++) {
                long double sum = 0, all = 0;
                for (uint32_t set = 0; set < 1U << 12; set++) {
                    if ((uint32_t)__builtin_popcount(set) == draws) {
                        uint32_t hit = (uint32_t)__builtin_popcount(set & ((1U << marked) - 1));
                        sum += hit >= least;
                        all++;
                    }
                }
                double p = exp(fl_secagg_log_tail(12, marked, draws, least));
                ck_assert_double_eq_tol(p, (double)(sum / all), 1e-12);
            }
        }
    }
}
END_TEST

START_TEST(test_graph)
{
    uint32_t order[200], place[200], near[200][200], k;
    struct fl_secagg_rule rule;

    for (uint32_t n = 2; n <= 200; n += n < 12 ? 1 : 47) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            struct fl_digest d;
            bool reached[200] = {true};
            uint32_t list[200] = {0}, listed = 1;
            fl_digest_of(&seed, sizeof seed, &d);
            ck_assert_int_eq(fl_secagg_rule(n, 50, 50, &rule, NULL), 0);
            k = rule.neighbours;
            fl_secagg_graph(&d, n, order, place);
            for (uint32_t i = 0; i < n; i++) {
                fl_secagg_neighbours(order, place, n, k, i, near[i]);
                for (uint32_t j = 0; j < k; j++) {
                    ck_assert_uint_ne(near[i][j], i);
                    ck_assert(j == 0 || near[i][j] > near[i][j - 1]);
                }
            }
            for (uint32_t i = 0; i < n; i++) { /* no directions */
                for (uint32_t j = 0; j < k; j++) {
                    uint32_t other = near[i][j], found = 0;
                    for (uint32_t x = 0; x < k; x++) {
                        found += near[other][x] == i;
                    }
                    ck_assert_uint_eq(found, 1);
                }
            }
            for (uint32_t at = 0; at < listed; at++) { /* and in one piece */
                for (uint32_t j = 0; j < k; j++) {
                    if (!reached[near[list[at]][j]]) {
                        reached[near[list[at]][j]] = true;
                        list[listed++] = near[list[at]][j];
                    }
                }
            }
            ck_assert_uint_eq(listed, n);
        }
    }
}
END_TEST

/* ---- ring and masks ---- */

START_TEST(test_ring)
{
    static const uint32_t widths[] = {8, 9, 13, 16, 24, 31, 32, 33, 48, 61, 62};
    uint64_t words[40];
    uint8_t packed[320];
    int64_t q[40], back[40];
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(4, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (size_t w = 0; w < FL_COUNT(widths); w++) {
        uint32_t bits = widths[w];
        for (size_t count = 0; count <= 40; count++) {
            size_t size;
            int64_t half = (int64_t)1 << (bits - 1);
            for (size_t i = 0; i < count; i++) {
                q[i] = i == 0   ? half - 1
                       : i == 1 ? -half
                                : (int64_t)fl_rng_below(&rng, 2 * (uint64_t)half) - half;
            }
            memset(words, 0, sizeof words);
            memset(packed, 0xee, sizeof packed);
            fl_ring_add(bits, q, count, words);
            ck_assert(fl_ring_bytes(bits, count, &size));
            ck_assert_uint_eq(size, (count * bits + 7) / 8);
            fl_ring_pack(bits, words, count, packed);
            ck_assert_uint_eq(packed[size], 0xee);
            memset(words, 0, sizeof words);
            ck_assert(fl_ring_unpack_add(bits, packed, count, words));
            fl_ring_signed(bits, words, count, back);
            ck_assert_mem_eq(back, q, count * sizeof *q);
            if (count * bits % 8) {
                packed[size - 1] |= 0x80;
                ck_assert(!fl_ring_unpack_add(bits, packed, count, words));
            }
        }
    }
}
END_TEST

START_TEST(test_ring_too_small)
{
    struct fl_err e;

    ck_assert_uint_eq(fl_secagg_bits(2000, 32767), 27); /* 65,534,000 < 2^26, and a sign */
    ck_assert_int_eq(fl_secagg_ring_check(27, 2000, 32767, &e), 0);
    ck_assert_int_eq(fl_secagg_ring_check(26, 2000, 32767, &e), -FL_R_PLAN_OVERFLOW);
    ck_assert_str_eq(e.msg, "the sum of 2000 values up to 32767 needs 27 bits, the ring has 26");
    ck_assert_int_eq(fl_secagg_ring_check(63, 2, 1, &e), -FL_R_CONF_RANGE);
    ck_assert_int_eq(fl_secagg_ring_check(16, 2, 0, &e), -FL_R_PLAN_OVERFLOW);
    ck_assert_int_eq(fl_secagg_ring_check(62, 2, INT64_MAX, &e), -FL_R_PLAN_OVERFLOW);
    /* 2^22 steps of 2^32 hold 1024 agents; 2,000 would overflow without a word. */
    struct fl_secagg_setup s = plain(2000);
    s.max = 1 << 21;
    struct sw *w = sw_new(&s, 1, 1);
    ck_assert_int_eq(sw_start(w), -FL_R_PLAN_OVERFLOW);
    sw_free(w);
    s.members_max = 1023;
    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), 0);
}
END_TEST

/* Tiles of a mask are ChaCha20 with the tile's number as nonce: RFC 7539's block function, written
 * out. */
static void chacha_block(const uint8_t key[32], uint64_t nonce, uint64_t counter, uint8_t out[64])
{
    uint32_t in[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];
    static const int quarter[8][4] = {{0, 4, 8, 12},  {1, 5, 9, 13},  {2, 6, 10, 14},
                                      {3, 7, 11, 15}, {0, 5, 10, 15}, {1, 6, 11, 12},
                                      {2, 7, 8, 13},  {3, 4, 9, 14}};
    static const int turns[4] = {16, 12, 8, 7};

    memcpy(in + 4, key, 32);
    in[12] = (uint32_t)counter;
    in[13] = (uint32_t)(counter >> 32);
    in[14] = (uint32_t)nonce;
    in[15] = (uint32_t)(nonce >> 32);
    memcpy(x, in, sizeof x);
    for (int round = 0; round < 10; round++) {
        for (int q = 0; q < 8; q++) {
            const int *i = quarter[q];
            for (int s = 0; s < 4; s++) {
                int a = s % 2 ? 2 : 0, b = s % 2 ? 3 : 1, d = s % 2 ? 1 : 3;
                x[i[a]] += x[i[b]];
                uint32_t v = x[i[d]] ^ x[i[a]];
                x[i[d]] = v << turns[s] | v >> (32 - turns[s]);
            }
        }
    }
    for (int i = 0; i < 16; i++) {
        x[i] += in[i];
    }
    memcpy(out, x, 64);
}

START_TEST(test_mask)
{
    struct fl_seed seed;
    uint8_t *scratch = fl_try_aligned(1, FL_MASK_TILE), block[64];
    uint32_t *words = fl_try_aligned(1, FL_MASK_TILE);
    uint64_t *wide = fl_try_aligned(1, FL_MASK_TILE);

    fl_seed_from_u64(5, &seed);
    for (uint64_t tile = 0; tile < 3; tile++) {
        memset(words, 0, FL_MASK_TILE);
        memset(wide, 0, FL_MASK_TILE);
        fl_mask_add(&seed, 32, tile, false, words, fl_ring_tile(32), scratch);
        fl_mask_add(&seed, 33, tile, false, wide, fl_ring_tile(33), scratch);
        ck_assert_mem_eq(words, wide, FL_MASK_TILE); /* the same bytes, read as other words */
        for (uint64_t b = 0; b < 1024; b += 341) {
            chacha_block(seed.bytes, tile, b, block);
            ck_assert_mem_eq((uint8_t *)words + 64 * b, block, 64);
        }
        fl_mask_add(&seed, 32, tile, true, words, 100, scratch);
        fl_mask_add(&seed, 33, tile, true, wide, 1, scratch);
        for (int i = 0; i < 100; i++) {
            ck_assert_uint_eq(words[i], 0);
        }
        ck_assert_uint_ne(words[100], 0);
        ck_assert_uint_eq(wide[0], 0);
    }
    fl_free(scratch);
    fl_free(words);
    fl_free(wide);
}
END_TEST

/* ---- whole sums ---- */

static void whole(uint32_t n, const struct fl_secagg_setup *setup)
{
    struct sw *w = sw_new(setup, n, n);

    ck_assert_msg(sw_whole(w) == 0, "%s", w->why.msg);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_msg(w->agent[i].error == 0, "%s", w->agent[i].why.msg);
    }
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}

START_TEST(test_sizes)
{
    static const uint64_t counts[] = {0, 1, 7, 8191, 8192, 8193, 16384, 16385, 1000001};

    for (uint32_t n = 2; n <= 9; n++) {
        struct fl_secagg_setup s = plain(n);
        whole(n, &s);
    }
    for (size_t c = 0; c < FL_COUNT(counts); c++) {
        struct fl_secagg_setup s = plain(3);
        s.count = counts[c];
        whole(3, &s);
        s.bits = 41;
        whole(3, &s);
        s.bits = 23;
        whole(3, &s);
    }
}
END_TEST

/* All values at the ends, in the smallest ring that holds them. */
START_TEST(test_extremes)
{
    for (int sign = -1; sign <= 1; sign += 2) {
        for (uint32_t bits = 8; bits <= 62; bits += 9) {
            struct fl_secagg_setup s = plain(5);
            s.bits = bits;
            s.max = (int64_t)((((uint64_t)1 << (bits - 1)) - 1) / 5);
            struct sw *w = sw_new(&s, 5, 1);
            for (uint32_t i = 0; i < 5; i++) {
                for (uint64_t v = 0; v < s.count; v++) {
                    w->agent[i].q[v] = sign * s.max;
                }
            }
            ck_assert_int_eq(sw_whole(w), 0);
            ck_assert(sw_sum_is_right(w));
            sw_free(w);
        }
    }
    struct fl_secagg_setup s = plain(3);
    struct sw *w = sw_new(&s, 3, 1);
    w->agent[1].q[32] = s.max + 1; /* this agent stops, the others go on */
    ck_assert_int_eq(sw_whole(w), 0);
    ck_assert_int_eq(w->agent[1].error, -FL_R_UPDATE_RANGE);
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}
END_TEST

/* What goes up has nothing of the vector to be seen: two agents with the same values, and one agent
 * twice, send unrelated bytes. */
START_TEST(test_masked_looks_random)
{
    struct fl_secagg_setup s = plain(4);
    uint64_t ones = 0, bits = 0;

    s.count = 20000;
    struct sw *w = sw_new(&s, 4, 1);
    for (uint32_t i = 0; i < 4; i++) {
        memset(w->agent[i].q, 0, s.count * sizeof *w->agent[i].q);
    }
    ck_assert_int_eq(sw_whole(w), 0);
    for (uint32_t i = 0; i < 4; i++) {
        const struct fl_secagg_bytes *b = &w->agent[i].up[FL_SECAGG_MASK];
        for (size_t at = FL_SECAGG_HEAD_SIZE; at < b->size; at++) {
            ones += (uint64_t)__builtin_popcount(b->bytes[at]);
            bits += 8;
        }
    }
    ck_assert_double_eq_tol((double)ones, (double)bits / 2, 5 * sqrt((double)bits) / 2);
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}
END_TEST

START_TEST(test_setup)
{
    struct fl_secagg_setup s = plain(3);
    struct fl_err e;

    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), 0);
    s.members_min = 1;
    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), -FL_R_CONF_RANGE);
    s = plain(3);
    s.members_min = 4;
    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), -FL_R_CONF_RANGE);
    s = plain(3);
    s.survivors_min = 3;
    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), -FL_R_CONF_CONFLICT);
    s.survivors_min = 1;
    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), -FL_R_CONF_RANGE);
    s = plain(3);
    s.count = UINT64_MAX / 8;
    ck_assert_int_eq(fl_secagg_setup_check(&s, &e), -FL_R_LIMIT);
}
END_TEST

/* Without randomness nothing is sent, wherever it ends. */
START_TEST(test_entropy)
{
    struct fl_secagg_setup s = plain(3);

    for (long n = 0;; n++) {
        struct sw *w = sw_new(&s, 3, 1);
        entropy_left = n;
        int r = sw_whole(w);
        entropy_left = -1;
        uint32_t stopped = 0, for_it = 0;
        for (uint32_t i = 0; i < 3; i++) {
            stopped += w->agent[i].error < 0;
            for_it += w->agent[i].error == -FL_R_ENTROPY;
        }
        ck_assert(r == 0 ? sw_sum_is_right(w) : for_it > 0);
        sw_free(w);
        if (stopped == 0) {
            ck_assert_int_eq(r, 0);
            ck_assert_int_eq(n, 3 * 5); /* two keys, b; for the shares; for the sample */
            break;
        }
        ck_assert_uint_gt(for_it, 0);
    }
}
END_TEST

static bool is_zero(const void *bytes, size_t size)
{
    const uint8_t *b = bytes;

    for (size_t i = 0; i < size; i++) {
        if (b[i]) {
            return false;
        }
    }
    return true;
}

/* Secrets go as soon as they are not needed: those of the masks with the vector, the rest with the
 * shares; all of them when something is wrong. */
START_TEST(test_wiped)
{
    struct fl_secagg_setup s = plain(4);
    struct sw *w = sw_new(&s, 4, 1);

    ck_assert_int_eq(sw_start(w), 0);
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_SHARE), 0);
    ck_assert(!is_zero(w->agent[0].client->b, 32));
    ck_assert(!is_zero(w->agent[0].client->s.secret, 32));
    ck_assert_int_eq(sw_run(w, FL_SECAGG_MASK, FL_SECAGG_MASK), 0);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert(is_zero(w->agent[i].client->b, 32));
        ck_assert(is_zero(&w->agent[i].client->s, 32));
        ck_assert(is_zero(w->agent[i].client->c.secret, 32));
        ck_assert(
            !is_zero(w->agent[i].client->neighbour, 3 * sizeof *w->agent[i].client->neighbour));
    }
    w->agent[0].down.bytes[0] ^= 1; /* one is told rubbish */
    ck_assert_int_eq(sw_run(w, FL_SECAGG_SIGN, FL_SECAGG_UNMASK), 0);
    ck_assert_int_eq(w->agent[0].error, -FL_R_SECAGG_OBJECT);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert(
            is_zero(w->agent[i].client->neighbour, 3 * sizeof *w->agent[i].client->neighbour));
        ck_assert(is_zero(w->agent[i].client->own_share, 32));
    }
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}
END_TEST

/* The n-th allocation fails, for every n: an error, never a wrong sum. */
START_TEST(test_no_memory)
{
    struct fl_secagg_setup s = plain(3);
    int64_t *q = fl_new(s.count, sizeof *q);

    for (uint64_t n = 1;; n++) {
        struct sw *w = sw_new(&s, 3, 1);
        fl_mem_fail_at(n);
        int r = sw_whole(w);
        if (r == 0) {
            r = sw_sum(w, w->server, q, NULL);
        }
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        if (r == 0) {
            ck_assert(sw_sum_is_right(w));
        } else {
            ck_assert(hit);
        }
        sw_free(w);
        if (!hit) {
            ck_assert_uint_gt(n, 50);
            break;
        }
    }
    fl_free(q);
}
END_TEST

/* Tiles of the sum, opened side by side. */
struct tiles {
    const struct sw *w;
    int64_t *q;
    uint64_t first;
    int status;
};

static void *open_tiles(void *arg)
{
    struct tiles *t = arg;
    uint8_t *scratch = fl_try_aligned(2, FL_MASK_TILE);
    uint64_t tiles = fl_secagg_server_tiles(t->w->server);

    for (uint64_t tile = t->first; scratch && t->status == 0 && tile < tiles; tile += 3) {
        t->status = fl_secagg_server_sum(t->w->server, tile, scratch, scratch + FL_MASK_TILE,
                                         t->q + tile * fl_ring_tile(t->w->setup.bits), NULL);
    }
    fl_free(scratch);
    return NULL;
}

START_TEST(test_threads)
{
    struct fl_secagg_setup s = plain(6);
    struct tiles tiles[3];
    pthread_t thread[3];

    s.count = 200000;
    struct sw *w = sw_new(&s, 6, 1);
    w->agent[2].leaves = FL_SECAGG_MASK;
    ck_assert_int_eq(sw_whole(w), 0);
    int64_t *one = fl_new(s.count, sizeof *one), *many = fl_new(s.count, sizeof *many);
    ck_assert_int_eq(sw_sum(w, w->server, one, NULL), 0);
    for (uint64_t i = 0; i < 3; i++) {
        tiles[i] = (struct tiles){w, many, i, 0};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, open_tiles, &tiles[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
        ck_assert_int_eq(tiles[i].status, 0);
    }
    ck_assert_mem_eq(one, many, s.count * sizeof *one);
    ck_assert(sw_sum_is_right(w));
    fl_free(one);
    fl_free(many);
    sw_free(w);
}
END_TEST

TESTS_MAIN("secagg", test_field, test_shamir, test_shares_hide, test_rule_table, test_tail,
           test_graph, test_ring, test_ring_too_small, test_mask, test_sizes, test_extremes,
           test_masked_looks_random, test_setup, test_entropy, test_wiped, test_no_memory,
           test_threads)
