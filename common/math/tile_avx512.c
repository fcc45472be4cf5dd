/*
 * Register tiles. A tile of C, P rows of one or two vectors of 16, stays in registers while k runs:
 * each step loads a vector or two of B and broadcasts P numbers of A from where they lie. With two
 * vectors 12 rows fill 24 of the 32 registers, and there are 14 loads for 24 multiplications, of
 * which the machine does two in a cycle: what bounds it is the arithmetic. With one vector 24 rows
 * do.
 *
 * The functions for each P are written out by macros, because neither gcc nor clang keeps an array
 * of accumulators in registers at -O2. The columns of the last vector are masked.
 *
 * A product with B transposed is a tile of 4 x 4 inner products with vectors along k; its 16 sums
 * are reduced at the end.
 */
#include "common/math/tile.h"

#if defined(__x86_64__) && !defined(FL_PLAIN_LOOPS)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,fma")))

#define R1(X)  X(0)
#define R2(X)  R1(X) X(1)
#define R3(X)  R2(X) X(2)
#define R4(X)  R3(X) X(3)
#define R5(X)  R4(X) X(4)
#define R6(X)  R5(X) X(5)
#define R7(X)  R6(X) X(6)
#define R8(X)  R7(X) X(7)
#define R9(X)  R8(X) X(8)
#define R10(X) R9(X) X(9)
#define R11(X) R10(X) X(10)
#define R12(X) R11(X) X(11)
#define R16(X) R12(X) X(12) X(13) X(14) X(15)
#define R24(X) R16(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)

/* What a tile is asked for. mask: of the last vector. */
struct job {
    const float *a, *b, *bias;
    float *c;
    size_t k, segments, apart, lda, ldb, ldc;
    __mmask16 mask;
    bool add;
};

/*
 * Loads and stores that leave the masked columns out. The address sanitizer looks at each of the 16
 * numbers with a branch of its own; written out a thousand times below that compiles for a minute,
 * so with it they are called.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CALLED __attribute__((noinline))
#endif
#endif
#ifndef CALLED
#define CALLED inline
#endif

TARGET static CALLED __m512 get(__mmask16 mask, const float *from)
{
    return _mm512_maskz_loadu_ps(mask, from);
}

TARGET static CALLED void put(float *to, __mmask16 mask, __m512 x)
{
    _mm512_mask_storeu_ps(to, mask, x);
}

#define STEP1(p, x) u##p = _mm512_fmadd_ps(_mm512_set1_ps(x), w0, u##p);
#define STEP2(p, x)                                                                                \
    {                                                                                              \
        const __m512 x_ = _mm512_set1_ps(x);                                                       \
        u##p = _mm512_fmadd_ps(x_, w0, u##p);                                                      \
        v##p = _mm512_fmadd_ps(x_, w1, v##p);                                                      \
    }
#define LOAD1 const __m512 w0 = get(mask, b);
#define LOAD2                                                                                      \
    const __m512 w0 = _mm512_loadu_ps(b);                                                          \
    const __m512 w1 = get(mask, b + 16);

/* ---- A B ---- */

#define NN_START1(p) __m512 u##p = first;
#define NN_START2(p) __m512 u##p = first, v##p = second;
#define NN_STEP1(p)  STEP1(p, a[(p)*lda])
#define NN_STEP2(p)  STEP2(p, a[(p)*lda])
#define PUT1(p)      put(c + (p)*ldc, mask, u##p);
#define PUT2(p)                                                                                    \
    _mm512_storeu_ps(c + (p)*ldc, u##p);                                                           \
    put(c + (p)*ldc + 16, mask, v##p);
#define ADD1(p) put(c + (p)*ldc, mask, _mm512_add_ps(get(mask, c + (p)*ldc), u##p));
#define ADD2(p)                                                                                    \
    _mm512_storeu_ps(c + (p)*ldc, _mm512_add_ps(_mm512_loadu_ps(c + (p)*ldc), u##p));              \
    put(c + (p)*ldc + 16, mask, _mm512_add_ps(get(mask, c + (p)*ldc + 16), v##p));
#define BIAS1 const __m512 first = j->bias ? get(mask, j->bias) : _mm512_setzero_ps();
#define BIAS2                                                                                      \
    const __m512 first = j->bias ? _mm512_loadu_ps(j->bias) : _mm512_setzero_ps();                 \
    const __m512 second = j->bias ? get(mask, j->bias + 16) : _mm512_setzero_ps();

#define DEFINE_NN(P, V)                                                                            \
    TARGET static void nn_##P##x##V(const struct job *j)                                           \
    {                                                                                              \
        const __mmask16 mask = j->mask;                                                            \
        const size_t lda = j->lda, ldb = j->ldb, ldc = j->ldc, k = j->k;                           \
        const float *b = j->b;                                                                     \
        float *c = j->c;                                                                           \
        BIAS##V R##P(NN_START##V) for (size_t s = 0; s < j->segments; s++)                         \
        {                                                                                          \
            const float *a = j->a + s * j->apart, *end = a + k;                                    \
            for (; a < end; a++, b += ldb) {                                                       \
                LOAD##V R##P(NN_STEP##V)                                                           \
            }                                                                                      \
        }                                                                                          \
        if (j->add) {                                                                              \
            R##P(ADD##V)                                                                           \
        } else {                                                                                   \
            R##P(PUT##V)                                                                           \
        }                                                                                          \
    }

/* ---- A^T B ---- */

#define TN_START1(p) __m512 u##p = j->add ? get(mask, c + (p)*ldc) : _mm512_setzero_ps();
#define TN_START2(p)                                                                               \
    __m512 u##p = j->add ? _mm512_loadu_ps(c + (p)*ldc) : _mm512_setzero_ps();                     \
    __m512 v##p = j->add ? get(mask, c + (p)*ldc + 16) : _mm512_setzero_ps();
#define TN_STEP1(p) STEP1(p, a[p])
#define TN_STEP2(p) STEP2(p, a[p])

#define DEFINE_TN(P, V)                                                                            \
    TARGET static void tn_##P##x##V(const struct job *j)                                           \
    {                                                                                              \
        const __mmask16 mask = j->mask;                                                            \
        const size_t lda = j->lda, ldb = j->ldb, ldc = j->ldc, k = j->k;                           \
        const float *b = j->b;                                                                     \
        float *c = j->c;                                                                           \
        R##P(TN_START##V) for (size_t s = 0; s < j->segments; s++)                                 \
        {                                                                                          \
            const float *a = j->a + s * j->apart;                                                  \
            for (size_t i = 0; i < k; i++, a += lda, b += ldb) {                                   \
                LOAD##V R##P(TN_STEP##V)                                                           \
            }                                                                                      \
        }                                                                                          \
        R##P(PUT##V)                                                                               \
    }

#define FOR_ROWS(X, V)                                                                             \
    X(1, V)                                                                                        \
    X(2, V) X(3, V) X(4, V) X(5, V) X(6, V) X(7, V) X(8, V) X(9, V) X(10, V) X(11, V) X(12, V)

FOR_ROWS(DEFINE_NN, 1)
FOR_ROWS(DEFINE_NN, 2)
DEFINE_NN(16, 1)
DEFINE_NN(24, 1)
FOR_ROWS(DEFINE_TN, 1)
FOR_ROWS(DEFINE_TN, 2)
DEFINE_TN(16, 1)
DEFINE_TN(24, 1)

typedef void tile_fn(const struct job *j);

#define NAME_NN(P, V) [P] = nn_##P##x##V,
#define NAME_TN(P, V) [P] = tn_##P##x##V,
static tile_fn *const nn1[25] = {FOR_ROWS(NAME_NN, 1) NAME_NN(16, 1) NAME_NN(24, 1)};
static tile_fn *const nn2[13] = {FOR_ROWS(NAME_NN, 2)};
static tile_fn *const tn1[25] = {FOR_ROWS(NAME_TN, 1) NAME_TN(16, 1) NAME_TN(24, 1)};
static tile_fn *const tn2[13] = {FOR_ROWS(NAME_TN, 2)};

/* Rows of the next tile when `left` are left: as even as can be. */
static size_t rows_of(size_t left, bool two)
{
    if (!two && left % 24 == 0) {
        return 24;
    }
    if (!two && left % 16 == 0) {
        return 16;
    }
    size_t tiles = (left + 11) / 12;
    return (left + tiles - 1) / tiles;
}

/* All tiles; a_row: floats from a row of C to the next in A. */
static void cover(const struct fl_tile *t, size_t a_row, const float *a, const float *b,
                  const float *bias, bool add, float *c, tile_fn *const *one, tile_fn *const *two)
{
    struct job j = {.bias = bias,
                    .k = t->k,
                    .segments = t->segments,
                    .apart = t->apart,
                    .lda = t->lda,
                    .ldb = t->ldb,
                    .ldc = t->ldc,
                    .add = add};

    for (size_t at = 0; at < t->n;) {
        size_t left = t->n - at, width = left > 16 ? 32 : 16;
        j.mask = (__mmask16)(left >= width ? 0xffff : (1u << (left - (width - 16))) - 1);
        j.b = b + at;
        j.bias = bias ? bias + at : NULL;
        for (size_t i = 0; i < t->m;) {
            size_t rows = rows_of(t->m - i, width == 32);
            j.a = a + i * a_row;
            j.c = c + i * t->ldc + at;
            (width == 32 ? two : one)[rows](&j);
            i += rows;
        }
        at += width;
    }
}

/* ---- A B^T ---- */

#define DOT_ROW(p)                                                                                 \
    s##p##0 = _mm512_fmadd_ps(a##p, b0, s##p##0);                                                  \
    s##p##1 = _mm512_fmadd_ps(a##p, b1, s##p##1);                                                  \
    s##p##2 = _mm512_fmadd_ps(a##p, b2, s##p##2);                                                  \
    s##p##3 = _mm512_fmadd_ps(a##p, b3, s##p##3);
#define DOT_START(p)                                                                               \
    __m512 s##p##0 = _mm512_setzero_ps(), s##p##1 = s##p##0, s##p##2 = s##p##0, s##p##3 = s##p##0;
#define DOT_PUT(p)                                                                                 \
    to[p][0] = _mm512_reduce_add_ps(s##p##0);                                                      \
    to[p][1] = _mm512_reduce_add_ps(s##p##1);                                                      \
    to[p][2] = _mm512_reduce_add_ps(s##p##2);                                                      \
    to[p][3] = _mm512_reduce_add_ps(s##p##3);

/* Rows a[0..3] against b[0..3], given by pointers: at an edge the last one repeats. */
TARGET static void dots(const float *const a[4], const float *const b[4], size_t k, float to[4][4])
{
    const float *x0 = a[0], *x1 = a[1], *x2 = a[2], *x3 = a[3];
    const float *y0 = b[0], *y1 = b[1], *y2 = b[2], *y3 = b[3];
    R4(DOT_START)

    for (size_t i = 0; i < k; i += 16) {
        const __mmask16 mask = (__mmask16)(k - i >= 16 ? 0xffff : (1u << (k - i)) - 1);
        const __m512 a0 = get(mask, x0 + i);
        const __m512 a1 = get(mask, x1 + i);
        const __m512 a2 = get(mask, x2 + i);
        const __m512 a3 = get(mask, x3 + i);
        const __m512 b0 = get(mask, y0 + i);
        const __m512 b1 = get(mask, y1 + i);
        const __m512 b2 = get(mask, y2 + i);
        const __m512 b3 = get(mask, y3 + i);
        R4(DOT_ROW)
    }
    R4(DOT_PUT)
}

static void all_dots(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                     float *c)
{
    for (size_t j = 0; j < t->n; j += 4) {
        const float *y[4];
        for (size_t q = 0; q < 4; q++) {
            y[q] = b + (j + q < t->n ? j + q : t->n - 1) * t->ldb;
        }
        for (size_t i = 0; i < t->m; i += 4) {
            const float *x[4];
            float sum[4][4];
            for (size_t p = 0; p < 4; p++) {
                x[p] = a + (i + p < t->m ? i + p : t->m - 1) * t->lda;
            }
            dots(x, y, t->k, sum);
            for (size_t p = 0; p < 4 && i + p < t->m; p++) {
                for (size_t q = 0; q < 4 && j + q < t->n; q++) {
                    c[(i + p) * t->ldc + j + q] = (bias ? bias[j + q] : 0) + sum[p][q];
                }
            }
        }
    }
}

bool fl_tile_fast(void)
{
    return __builtin_cpu_supports("avx512f");
}

void fl_tile_nn(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                float *c)
{
    if (fl_tile_fast()) {
        cover(t, t->lda, a, b, bias, false, c, nn1, nn2);
    } else {
        fl_tile_plain_nn(t, a, b, bias, c);
    }
}

void fl_tile_nn_add(const struct fl_tile *t, const float *a, const float *b, float *c)
{
    if (fl_tile_fast()) {
        cover(t, t->lda, a, b, NULL, true, c, nn1, nn2);
    } else {
        fl_tile_plain_nn_add(t, a, b, c);
    }
}

void fl_tile_tn(const struct fl_tile *t, const float *a, const float *b, bool add, float *c)
{
    if (fl_tile_fast()) {
        cover(t, 1, a, b, NULL, add, c, tn1, tn2);
    } else {
        fl_tile_plain_tn(t, a, b, add, c);
    }
}

void fl_tile_nt(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                float *c)
{
    if (fl_tile_fast()) {
        all_dots(t, a, b, bias, c);
    } else {
        fl_tile_plain_nt(t, a, b, bias, c);
    }
}

#else

bool fl_tile_fast(void)
{
    return false;
}

void fl_tile_nn(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                float *c)
{
    fl_tile_plain_nn(t, a, b, bias, c);
}

void fl_tile_nn_add(const struct fl_tile *t, const float *a, const float *b, float *c)
{
    fl_tile_plain_nn_add(t, a, b, c);
}

void fl_tile_tn(const struct fl_tile *t, const float *a, const float *b, bool add, float *c)
{
    fl_tile_plain_tn(t, a, b, add, c);
}

void fl_tile_nt(const struct fl_tile *t, const float *a, const float *b, const float *bias,
                float *c)
{
    fl_tile_plain_nt(t, a, b, bias, c);
}

#endif
