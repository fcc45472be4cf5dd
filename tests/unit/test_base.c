#include "common/base/chacha.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <sodium.h>
#include <string.h>

START_TEST(test_err_gains_context_on_the_way_up)
{
    struct fl_err e = {0};

    int r = fl_fail_sys(&e, FL_R_DISK_FULL, 28, "rename %s", "model");
    ck_assert_int_eq(r, -FL_R_DISK_FULL);
    ck_assert_int_eq(fl_wrap(&e, r, "publish round %d", 41), -FL_R_DISK_FULL);
    ck_assert_str_eq(e.msg, "publish round 41: rename model: No space left on device");
    ck_assert_str_eq(fl_reason_name(r), "disk-full");
}
END_TEST

START_TEST(test_err_is_cut_never_overrun)
{
    struct fl_err e = {0};
    char long_text[600];

    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    fl_fail(&e, FL_R_ARG, "%s", long_text);
    fl_wrap(&e, e.code, "%s", long_text);
    ck_assert_uint_eq(strlen(e.msg), sizeof e.msg - 1);
    ck_assert_int_eq(fl_fail(NULL, FL_R_ARG, "nobody listens"), -FL_R_ARG);
}
END_TEST

START_TEST(test_mem_refuses_overflow_and_fails_on_purpose)
{
    ck_assert_ptr_null(fl_try(SIZE_MAX / 2, 4));
    ck_assert_ptr_null(fl_try(FL_MEM_MAX, 2));
    fl_mem_fail_at(2);
    void *first = fl_try(1, 1);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_null(fl_try(1, 1));
    ck_assert(fl_mem_fail_hit());
    fl_free(first);
}
END_TEST

START_TEST(test_rng_is_the_same_stream_whatever_the_reads)
{
    struct fl_seed seed;
    struct fl_rng a, b;
    uint8_t whole[5000], parts[5000];

    fl_seed_from_u64(7, &seed);
    fl_rng_init(&a, &seed, 1);
    fl_rng_init(&b, &seed, 1);
    fl_rng_bytes(&a, whole, sizeof whole);
    for (size_t at = 0, n = 1; at < sizeof parts; at += n, n = n % 97 + 1) {
        n = n < sizeof parts - at ? n : sizeof parts - at;
        fl_rng_bytes(&b, parts + at, n);
    }
    ck_assert_mem_eq(whole, parts, sizeof whole);
    fl_rng_init(&a, &seed, 1);
    fl_rng_init(&b, &seed, 1);
    a.block = b.block = UINT32_MAX - 15; /* the last of this nonce: both ways wrap alike */
    fl_rng_bytes(&a, whole, sizeof whole);
    for (size_t at = 0; at < sizeof parts; at += 8) {
        uint64_t word;
        if (at / 8 % 2) {
            fl_rng_words(&b, &word, 1);
        } else {
            word = fl_rng_u64(&b);
        }
        for (int i = 0; i < 8; i++) {
            parts[at + (size_t)i] = (uint8_t)(word >> (8 * i));
        }
    }
    ck_assert_mem_eq(whole, parts, sizeof whole);
    fl_rng_init(&b, &seed, 2);
    fl_rng_bytes(&b, parts, 64);
    ck_assert_mem_ne(whole, parts, 64);
}
END_TEST

/* The fast blocks against libsodium's, also where the counter leaves 16 and 31 bits. */
START_TEST(test_sixteen_blocks_at_once_are_the_same_bytes)
{
    static uint8_t ours[5 * FL_CHACHA_AT_ONCE], theirs[5 * FL_CHACHA_AT_ONCE];
    static const uint32_t counters[] = {0, 1, 65535, 0x7ffffff8, 0xffffffb0};
    uint8_t key[32], nonce[12];

    for (size_t k = 0; fl_chacha_fast() && k < FL_COUNT(counters); k++) {
        for (size_t i = 0; i < sizeof key; i++) {
            key[i] = (uint8_t)(i * 37 + k);
        }
        for (size_t i = 0; i < sizeof nonce; i++) {
            nonce[i] = (uint8_t)(i * 91 + k);
        }
        memset(theirs, 0, sizeof theirs);
        ck_assert_int_eq(crypto_stream_chacha20_ietf_xor_ic(theirs, theirs, sizeof theirs, nonce,
                                                            counters[k], key),
                         0);
        fl_chacha_stream(key, nonce, counters[k], ours, sizeof ours);
        ck_assert_mem_eq(ours, theirs, sizeof ours);
    }
}
END_TEST

START_TEST(test_rng_moments)
{
    struct fl_seed seed;
    struct fl_rng r;
    double sum = 0, squares = 0;
    uint32_t hits[7] = {0};
    const int n = 70000;

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&r, &seed, 0);
    for (int i = 0; i < n; i++) {
        double x = fl_rng_normal(&r);
        sum += x;
        squares += x * x;
        hits[fl_rng_below(&r, 7)]++;
    }
    ck_assert_double_lt(fabs(sum / n), 0.02);
    ck_assert_double_lt(fabs(squares / n - 1), 0.03);
    for (int i = 0; i < 7; i++) {
        ck_assert_double_lt(fabs(hits[i] - n / 7.0), 5 * sqrt(n / 7.0));
    }
}
END_TEST

START_TEST(test_digest_hex_round_trip)
{
    struct fl_digest d, back;
    struct fl_hash h;
    char hex[FL_DIGEST_HEX];

    fl_digest_of("abc", 3, &d);
    fl_digest_hex(&d, hex);
    /* BLAKE2b-256 of "abc" */
    ck_assert_str_eq(hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    ck_assert(fl_digest_from_hex(hex, &back) && fl_digest_equal(&d, &back));
    ck_assert(!fl_digest_from_hex("abcd", &back));
    fl_hash_init(&h);
    fl_hash_add(&h, "a", 1);
    fl_hash_add(&h, "bc", 2);
    fl_hash_end(&h, &back);
    ck_assert(fl_digest_equal(&d, &back));
}
END_TEST

TESTS_MAIN("base", test_err_gains_context_on_the_way_up, test_err_is_cut_never_overrun,
           test_mem_refuses_overflow_and_fails_on_purpose,
           test_rng_is_the_same_stream_whatever_the_reads,
           test_sixteen_blocks_at_once_are_the_same_bytes, test_rng_moments,
           test_digest_hex_round_trip)
