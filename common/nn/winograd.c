/*
 * An output tile of 2 x 2 is made from an input tile of 4 x 4, of which the next one begins two
 * pixels on. With
 *
 *          1  0 -1  0           1   0   0
 *   B^T =  0  1  1  0     G =  1/2 1/2 1/2     A^T =  1  1  1  0
 *          0 -1  1  0          1/2 -1/2 1/2           0  1 -1 -1
 *          0  1  0 -1           0   0   1
 *
 *   y = A^T [ (G g G^T) . (B^T x B) ] A,
 *
 * where g is a kernel's 3 x 3 for one pair of channels and "." multiplies element by element: 16
 * multiplications for four outputs instead of 36. Over all channels the 16 elements are 16 matrix
 * products, tiles x channels by channels x out, and those are nearly all the work.
 *
 *     x --B--> v [16][tiles, channels]  x  u [16][channels, out]  =  m [16][tiles, out] --A--> y
 *
 * The gradients are the transposes. Inputs: the same with kernels turned by half a circle and
 * channels exchanged. Kernels: du = v^T (A dy A^T), gathered over tiles and examples, and
 * G^T du G at the end, once a batch.
 *
 * Some tiles at a time, so that v and m stay in the first caches. Nothing is padded: rows outside
 * the image are a row of zeros, and the tiles at the left and right are copied with their border.
 */
#include "common/nn/winograd.h"

#include "common/base/mem.h"
#include "common/math/tile.h"

#include <string.h>

enum { SIDE = 4, PLACES = SIDE * SIDE, LANES = 16 };
/* Tiles worked on together: as many as fill the rows of a register tile; for the kernels' gradient,
 * whose products are read and written back for each of them, more. */
enum { TILES = 16, TILES_WEIGHTS = 64 };

/* Vectors that the compiler knows: one register with AVX-512, several elsewhere. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef float loose
    __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define GET(from)      (*(const loose *)(from))
#define PUT(to, value) (*(loose *)(to) = (value))
#if defined(__x86_64__)
#define WIDE __attribute__((target("avx512f")))
#else
#define WIDE
#endif

struct fl_winograd {
    size_t channels, out, height, width;
    size_t across;              /* tiles in the image's width */
    size_t rows, rows_weights;  /* rows of tiles worked on together */
    float *forward, *back, *du; /* PLACES x channels x out; back: x out x channels */
    float *v, *m;               /* PLACES x tiles x the more of channels and out */
    float *edge, *zeros;        /* one tile with its border; as wide as the widest tile */
};

bool fl_winograd_fits(size_t channels, size_t out, size_t height, size_t width)
{
    return fl_tile_fast() && height % 2 == 0 && width % 2 == 0 && channels % LANES == 0 &&
           out % LANES == 0;
}

static size_t rows_for(const struct fl_winograd *w, size_t tiles)
{
    size_t rows = w->across < tiles ? tiles / w->across : 1;

    return rows < w->height / 2 ? rows : w->height / 2;
}

struct fl_winograd *fl_winograd_new(size_t channels, size_t out, size_t height, size_t width)
{
    struct fl_winograd *w = fl_try(1, sizeof *w);
    size_t more = channels > out ? channels : out;

    if (!w) {
        return NULL;
    }
    *w = (struct fl_winograd){
        .channels = channels, .out = out, .height = height, .width = width, .across = width / 2};
    w->rows = rows_for(w, TILES);
    w->rows_weights = rows_for(w, TILES_WEIGHTS);
    size_t tiles = w->rows_weights * w->across;
    w->forward = fl_try_aligned(PLACES * channels * out, sizeof(float));
    w->back = fl_try_aligned(PLACES * channels * out, sizeof(float));
    w->du = fl_try_aligned(PLACES * channels * out, sizeof(float));
    w->v = fl_try_aligned(PLACES * (tiles * more + LANES), sizeof(float));
    w->m = fl_try_aligned(PLACES * (tiles * more + LANES), sizeof(float));
    w->edge = fl_try_aligned(PLACES * more, sizeof(float));
    w->zeros = fl_try_aligned(SIDE * more, sizeof(float));
    if (!w->forward || !w->back || !w->du || !w->v || !w->m || !w->edge || !w->zeros) {
        fl_winograd_free(w);
        return NULL;
    }
    return w;
}

void fl_winograd_free(struct fl_winograd *w)
{
    if (!w) {
        return;
    }
    fl_free(w->forward);
    fl_free(w->back);
    fl_free(w->du);
    fl_free(w->v);
    fl_free(w->m);
    fl_free(w->edge);
    fl_free(w->zeros);
    fl_free(w);
}

/* ---- the small transforms ---- */

/* u = G g G^T for `count` pairs of channels; from one of the nine of g to the next are `step`
 * floats, from a place of u to the next `apart`. */
WIDE static void spread_kernels(const float *g, ptrdiff_t step, size_t count, float *u,
                                size_t apart)
{
    for (size_t i = 0; i < count; i += LANES) {
        lanes t[SIDE][3];
        for (ptrdiff_t k = 0; k < 3; k++) {
            const lanes first = GET(g + k * step + i), last = GET(g + (6 + k) * step + i);
            const lanes sum = 0.5f * (first + last), middle = 0.5f * GET(g + (3 + k) * step + i);
            t[0][k] = first;
            t[1][k] = sum + middle;
            t[2][k] = sum - middle;
            t[3][k] = last;
        }
        for (size_t r = 0; r < SIDE; r++) {
            const lanes sum = 0.5f * (t[r][0] + t[r][2]), middle = 0.5f * t[r][1];
            float *to = u + SIDE * r * apart + i;
            PUT(to, t[r][0]);
            PUT(to + apart, sum + middle);
            PUT(to + 2 * apart, sum - middle);
            PUT(to + 3 * apart, t[r][2]);
        }
    }
}

void fl_winograd_set(struct fl_winograd *w, const float *weight, size_t row, const float *across)
{
    size_t channels = w->channels, out = w->out, count = channels * out;

    spread_kernels(across, (ptrdiff_t)count, count, w->forward, count);
    for (size_t o = 0; o < out; o++) { /* turned by half a circle: backwards from the last one */
        spread_kernels(weight + o * row + 8 * channels, -(ptrdiff_t)channels, channels,
                       w->back + o * channels, count);
    }
}

/* v = B^T x B for all channels of a tile; row: its rows. From a place to the next in v are `apart`
 * floats. */
WIDE static void take_tile(const float *const row[SIDE], size_t channels, float *v, size_t apart)
{
    for (size_t c = 0; c < channels; c += LANES) {
        lanes t[SIDE][SIDE];
        for (size_t k = 0; k < SIDE; k++) {
            const lanes x0 = GET(row[0] + k * channels + c), x1 = GET(row[1] + k * channels + c);
            const lanes x2 = GET(row[2] + k * channels + c), x3 = GET(row[3] + k * channels + c);
            t[0][k] = x0 - x2;
            t[1][k] = x1 + x2;
            t[2][k] = x2 - x1;
            t[3][k] = x1 - x3;
        }
        for (size_t r = 0; r < SIDE; r++) {
            float *to = v + SIDE * r * apart + c;
            PUT(to, t[r][0] - t[r][2]);
            PUT(to + apart, t[r][1] + t[r][2]);
            PUT(to + 2 * apart, t[r][2] - t[r][1]);
            PUT(to + 3 * apart, t[r][1] - t[r][3]);
        }
    }
}

/* y = A^T m A + bias: two pixels in each of two rows. */
WIDE static void put_tile(const float *m, size_t apart, size_t out, const float *bias, float *y0,
                          float *y1)
{
    for (size_t o = 0; o < out; o += LANES) {
        lanes s[2][SIDE];
        for (size_t k = 0; k < SIDE; k++) {
            const lanes a = GET(m + k * apart + o), b = GET(m + (SIDE + k) * apart + o);
            const lanes c = GET(m + (2 * SIDE + k) * apart + o);
            s[0][k] = a + b + c;
            s[1][k] = b - c - GET(m + (3 * SIDE + k) * apart + o);
        }
        const lanes always = GET(bias + o);
        PUT(y0 + o, always + (s[0][0] + s[0][1] + s[0][2]));
        PUT(y0 + out + o, always + (s[0][1] - s[0][2] - s[0][3]));
        PUT(y1 + o, always + (s[1][0] + s[1][1] + s[1][2]));
        PUT(y1 + out + o, always + (s[1][1] - s[1][2] - s[1][3]));
    }
}

/* m = A dy A^T, the transpose of put_tile. */
WIDE static void take_outputs(const float *y0, const float *y1, size_t out, float *m, size_t apart)
{
    for (size_t o = 0; o < out; o += LANES) {
        const lanes a = GET(y0 + o), b = GET(y0 + out + o), c = GET(y1 + o), d = GET(y1 + out + o);
        const lanes t[SIDE][2] = {{a, b}, {a + c, b + d}, {a - c, b - d}, {-c, -d}};
        for (size_t r = 0; r < SIDE; r++) {
            float *to = m + SIDE * r * apart + o;
            PUT(to, t[r][0]);
            PUT(to + apart, t[r][0] + t[r][1]);
            PUT(to + 2 * apart, t[r][0] - t[r][1]);
            PUT(to + 3 * apart, -t[r][1]);
        }
    }
}

/* g = G^T u G for `count` pairs of channels, u PLACES x count, g 9 x count. */
WIDE static void gather_kernels(const float *u, size_t count, float *g)
{
    for (size_t i = 0; i < count; i += LANES) {
        lanes t[3][SIDE];
        for (size_t k = 0; k < SIDE; k++) {
            const lanes b = GET(u + (SIDE + k) * count + i);
            const lanes c = GET(u + (2 * SIDE + k) * count + i);
            t[0][k] = GET(u + k * count + i) + 0.5f * (b + c);
            t[1][k] = 0.5f * (b - c);
            t[2][k] = 0.5f * (b + c) + GET(u + (3 * SIDE + k) * count + i);
        }
        for (size_t r = 0; r < 3; r++) {
            float *to = g + 3 * r * count + i;
            PUT(to, t[r][0] + 0.5f * (t[r][1] + t[r][2]));
            PUT(to + count, 0.5f * (t[r][1] - t[r][2]));
            PUT(to + 2 * count, 0.5f * (t[r][1] + t[r][2]) + t[r][3]);
        }
    }
}

/* ---- rows of tiles ---- */

/* Floats from a place to the next: not a power of two, which would put them all into the same few
 * lines of the first cache. */
static size_t apart_of(size_t tiles, size_t channels)
{
    return tiles * channels + LANES;
}

/* The tile at the image's left or right, with zeros where there is no image. */
WIDE static void copy_edge(const struct fl_winograd *w, const float *x, size_t channels, size_t top,
                           size_t left, float *to)
{
    for (size_t r = 0; r < SIDE; r++) {
        for (size_t k = 0; k < SIDE; k++, to += channels) {
            size_t y = top + r - 1, column = left + k - 1;
            bool within = y < w->height && column < w->width;
            const float *from = within ? x + (y * w->width + column) * channels : w->zeros;
            for (size_t c = 0; c < channels; c += LANES) {
                PUT(to + c, GET(from + c));
            }
        }
    }
}

/* Rows `first` to `first + rows` of tiles. */
static void take_tiles(struct fl_winograd *w, const float *x, size_t channels, size_t first,
                       size_t rows)
{
    size_t apart = apart_of(rows * w->across, channels);
    float *v = w->v;

    for (size_t ty = first; ty < first + rows; ty++) {
        for (size_t tx = 0; tx < w->across; tx++, v += channels) {
            const float *row[SIDE];
            bool edge = tx == 0 || tx + 1 == w->across;
            if (edge) {
                copy_edge(w, x, channels, 2 * ty, 2 * tx, w->edge);
            }
            for (size_t r = 0; r < SIDE; r++) {
                size_t y = 2 * ty + r - 1; /* 0 - 1 is beyond the image, too */
                row[r] = edge            ? w->edge + r * SIDE * channels
                         : y < w->height ? x + (y * w->width + 2 * tx - 1) * channels
                                         : w->zeros;
            }
            take_tile(row, channels, v, apart);
        }
    }
}

/* y [height, width, out] from x [height, width, channels] by the kernels u. */
static void convolve(struct fl_winograd *w, const float *u, const float *bias, const float *x,
                     size_t channels, size_t out, float *y)
{
    size_t line = w->width * out;

    for (size_t ty = 0, rows; ty < w->height / 2; ty += rows) {
        rows = w->height / 2 - ty < w->rows ? w->height / 2 - ty : w->rows;
        size_t tiles = rows * w->across, apart = apart_of(tiles, out);
        struct fl_tile t = {.m = tiles,
                            .n = out,
                            .k = channels,
                            .segments = 1,
                            .lda = channels,
                            .ldb = out,
                            .ldc = out};
        take_tiles(w, x, channels, ty, rows);
        for (size_t p = 0; p < PLACES; p++) {
            fl_tile_nn(&t, w->v + p * apart_of(tiles, channels), u + p * channels * out, NULL,
                       w->m + p * apart);
        }
        for (size_t n = 0; n < tiles; n++) {
            float *to = y + 2 * (ty + n / w->across) * line + 2 * (n % w->across) * out;
            put_tile(w->m + n * out, apart, out, bias, to, to + line);
        }
    }
}

void fl_winograd_forward(struct fl_winograd *w, const float *bias, const float *x, float *y)
{
    convolve(w, w->forward, bias, x, w->channels, w->out, y);
}

void fl_winograd_inputs(struct fl_winograd *w, const float *dy, float *dx)
{
    convolve(w, w->back, w->zeros, dy, w->out, w->channels, dx);
}

void fl_winograd_weights(struct fl_winograd *w, bool alone, const float *x, const float *dy)
{
    size_t channels = w->channels, out = w->out, line = w->width * out;

    for (size_t ty = 0, rows; ty < w->height / 2; ty += rows) {
        rows = w->height / 2 - ty < w->rows_weights ? w->height / 2 - ty : w->rows_weights;
        size_t tiles = rows * w->across, apart = apart_of(tiles, out);
        struct fl_tile t = {.m = channels,
                            .n = out,
                            .k = tiles,
                            .segments = 1,
                            .lda = channels,
                            .ldb = out,
                            .ldc = out};
        take_tiles(w, x, channels, ty, rows);
        for (size_t n = 0; n < tiles; n++) {
            const float *from = dy + 2 * (ty + n / w->across) * line + 2 * (n % w->across) * out;
            take_outputs(from, from + line, out, w->m + n * out, apart);
        }
        for (size_t p = 0; p < PLACES; p++) {
            fl_tile_tn(&t, w->v + p * apart_of(tiles, channels), w->m + p * apart, !alone || ty > 0,
                       w->du + p * channels * out);
        }
    }
}

void fl_winograd_read(struct fl_winograd *w, float *dweight)
{
    size_t count = w->channels * w->out;

    gather_kernels(w->du, count, dweight);
    memset(w->du, 0, PLACES * count * sizeof *w->du);
}
