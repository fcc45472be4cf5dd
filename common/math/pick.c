#include "common/math/pick.h"

#include <assert.h>

size_t fl_pick_plain_zeros(const uint32_t *flag, size_t count, uint32_t *to)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        to[n] = (uint32_t)i;
        n += 1 - flag[i];
    }
    return n;
}

size_t fl_pick_plain_values(const uint32_t *flag, const int64_t *x, size_t count, int64_t *to)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        to[n] = x[i];
        n += flag[i];
    }
    return n;
}

#if defined(__x86_64__) && !defined(FL_PLAIN_LOOPS)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,popcnt")))

/* Compressed in a register and stored whole: a store of what is left of it only is slow on some
 * machines. */
TARGET static size_t fast_zeros(const uint32_t *flag, size_t count, uint32_t *to)
{
    __m512i number = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    size_t n = 0;

    for (size_t i = 0; i < count; i += 16) {
        const __m512i f = _mm512_loadu_si512(flag + i);
        const __mmask16 zero = _mm512_testn_epi32_mask(f, f);
        _mm512_storeu_si512(to + n, _mm512_maskz_compress_epi32(zero, number));
        n += (size_t)_mm_popcnt_u32(zero);
        number = _mm512_add_epi32(number, _mm512_set1_epi32(16));
    }
    return n;
}

TARGET static size_t fast_values(const uint32_t *flag, const int64_t *x, size_t count, int64_t *to)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i += 16) {
        const __m512i f = _mm512_loadu_si512(flag + i);
        const __mmask16 one = _mm512_test_epi32_mask(f, f);
        const __mmask8 first = (__mmask8)one, second = (__mmask8)(one >> 8);
        _mm512_storeu_si512(to + n, _mm512_maskz_compress_epi64(first, _mm512_loadu_si512(x + i)));
        n += (size_t)_mm_popcnt_u32(first);
        _mm512_storeu_si512(to + n,
                            _mm512_maskz_compress_epi64(second, _mm512_loadu_si512(x + i + 8)));
        n += (size_t)_mm_popcnt_u32(second);
    }
    return n;
}

static int fast(void)
{
    return __builtin_cpu_supports("avx512f");
}

#else

static int fast(void)
{
    return 0;
}

#define fast_zeros  fl_pick_plain_zeros
#define fast_values fl_pick_plain_values

#endif

size_t fl_pick_zeros(const uint32_t *flag, size_t count, uint32_t *to)
{
    assert(count % 16 == 0);
    return fast() ? fast_zeros(flag, count, to) : fl_pick_plain_zeros(flag, count, to);
}

size_t fl_pick_values(const uint32_t *flag, const int64_t *x, size_t count, int64_t *to)
{
    assert(count % 16 == 0);
    return fast() ? fast_values(flag, x, count, to) : fl_pick_plain_values(flag, x, count, to);
}
