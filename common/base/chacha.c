/*
 * A register holds one word of the state for sixteen blocks, so a quarter round is twelve
 * instructions for all of them and nothing is moved between lanes until the end, where a transpose
 * of 16 x 16 words makes blocks of it. No branch and no address depends on the key.
 */
#include "common/base/chacha.h"

#include "common/base/le.h"

#include <assert.h>

#if defined(__x86_64__) && !defined(FL_PLAIN_LOOPS)

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f")))

#define QUARTER(a, b, c, d)                                                                        \
    a = _mm512_add_epi32(a, b);                                                                    \
    d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 16);                                              \
    c = _mm512_add_epi32(c, d);                                                                    \
    b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 12);                                              \
    a = _mm512_add_epi32(a, b);                                                                    \
    d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 8);                                               \
    c = _mm512_add_epi32(c, d);                                                                    \
    b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 7);

/* Four registers of four lanes of four words each: to[i] = the four words with number i of each
 * lane, from registers a to d. */
TARGET static inline void turn_words(__m512i a, __m512i b, __m512i c, __m512i d, __m512i to[4])
{
    const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);

    to[0] = _mm512_unpacklo_epi64(ab0, cd0);
    to[1] = _mm512_unpackhi_epi64(ab0, cd0);
    to[2] = _mm512_unpacklo_epi64(ab1, cd1);
    to[3] = _mm512_unpackhi_epi64(ab1, cd1);
}

/* Lane l of a to d, words 0-3 to 12-15 of block 4 l + i, goes to that block. */
TARGET static inline void put_lanes(__m512i a, __m512i b, __m512i c, __m512i d, uint8_t *to)
{
    const __m512i ab0 = _mm512_shuffle_i32x4(a, b, 0x44), ab1 = _mm512_shuffle_i32x4(a, b, 0xee);
    const __m512i cd0 = _mm512_shuffle_i32x4(c, d, 0x44), cd1 = _mm512_shuffle_i32x4(c, d, 0xee);
    enum { APART = 4 * FL_CHACHA_BLOCK };

    _mm512_storeu_si512(to, _mm512_shuffle_i32x4(ab0, cd0, 0x88));
    _mm512_storeu_si512(to + APART, _mm512_shuffle_i32x4(ab0, cd0, 0xdd));
    _mm512_storeu_si512(to + 2 * APART, _mm512_shuffle_i32x4(ab1, cd1, 0x88));
    _mm512_storeu_si512(to + 3 * APART, _mm512_shuffle_i32x4(ab1, cd1, 0xdd));
}

TARGET static void sixteen(const __m512i start[16], uint8_t *to)
{
    __m512i x0 = start[0], x1 = start[1], x2 = start[2], x3 = start[3];
    __m512i x4 = start[4], x5 = start[5], x6 = start[6], x7 = start[7];
    __m512i x8 = start[8], x9 = start[9], xa = start[10], xb = start[11];
    __m512i xc = start[12], xd = start[13], xe = start[14], xf = start[15];
    __m512i row[4][4];

    for (int round = 0; round < 10; round++) {
        QUARTER(x0, x4, x8, xc)
        QUARTER(x1, x5, x9, xd)
        QUARTER(x2, x6, xa, xe)
        QUARTER(x3, x7, xb, xf)
        QUARTER(x0, x5, xa, xf)
        QUARTER(x1, x6, xb, xc)
        QUARTER(x2, x7, x8, xd)
        QUARTER(x3, x4, x9, xe)
    }
    turn_words(_mm512_add_epi32(x0, start[0]), _mm512_add_epi32(x1, start[1]),
               _mm512_add_epi32(x2, start[2]), _mm512_add_epi32(x3, start[3]), row[0]);
    turn_words(_mm512_add_epi32(x4, start[4]), _mm512_add_epi32(x5, start[5]),
               _mm512_add_epi32(x6, start[6]), _mm512_add_epi32(x7, start[7]), row[1]);
    turn_words(_mm512_add_epi32(x8, start[8]), _mm512_add_epi32(x9, start[9]),
               _mm512_add_epi32(xa, start[10]), _mm512_add_epi32(xb, start[11]), row[2]);
    turn_words(_mm512_add_epi32(xc, start[12]), _mm512_add_epi32(xd, start[13]),
               _mm512_add_epi32(xe, start[14]), _mm512_add_epi32(xf, start[15]), row[3]);
    for (int i = 0; i < 4; i++) {
        put_lanes(row[0][i], row[1][i], row[2][i], row[3][i], to + i * FL_CHACHA_BLOCK);
    }
}

bool fl_chacha_fast(void)
{
    return __builtin_cpu_supports("avx512f");
}

TARGET void fl_chacha_stream(const uint8_t *key, const uint8_t *nonce, uint32_t counter,
                             uint8_t *to, size_t size)
{
    static const uint32_t constants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    const __m512i count = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i start[16];

    assert(size % FL_CHACHA_AT_ONCE == 0);
    for (int i = 0; i < 4; i++) {
        start[i] = _mm512_set1_epi32((int)constants[i]);
    }
    for (int i = 0; i < 8; i++) {
        start[4 + i] = _mm512_set1_epi32((int)fl_get_u32(key + 4 * i));
    }
    for (int i = 0; i < 3; i++) {
        start[13 + i] = _mm512_set1_epi32((int)fl_get_u32(nonce + 4 * i));
    }
    for (; size; size -= FL_CHACHA_AT_ONCE, to += FL_CHACHA_AT_ONCE, counter += 16) {
        start[12] = _mm512_add_epi32(_mm512_set1_epi32((int)counter), count);
        sixteen(start, to);
    }
    explicit_bzero(start, sizeof start);
}

#else

bool fl_chacha_fast(void)
{
    return false;
}

void fl_chacha_stream(const uint8_t *key, const uint8_t *nonce, uint32_t counter, uint8_t *to,
                      size_t size)
{
    (void)key, (void)nonce, (void)counter, (void)to, (void)size;
    assert(false && "fl_chacha_fast was not asked");
}

#endif
