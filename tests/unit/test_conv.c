/* Convolutions against the plain sum, the ways with fewer multiplications and with none. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/layers.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <string.h>

enum { ROOM = 1 << 15 };

static float x[2][ROOM], y[ROOM], dy[2][ROOM], dx[ROOM], weight[ROOM], bias[64], gradient[ROOM];
static double want[ROOM];

static void fill(float *to, size_t count, struct fl_rng *r)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = (float)fl_rng_normal(r);
    }
}

static void same(const float *ours, size_t count, double terms)
{
    for (size_t i = 0; i < count; i++) {
        ck_assert_double_eq_tol((double)ours[i], want[i], 2e-6 * sqrt(terms) * 4);
    }
}

/* Calls back with every (pixel of y, element of the kernels, pixel of x) that meet. */
static void each(const struct fl_conv *c, void (*meet)(size_t out, size_t kernel, size_t in))
{
    for (size_t oy = 0; oy < c->out_height; oy++) {
        for (size_t ox = 0; ox < c->out_width; ox++) {
            for (size_t k = 0; k < c->kernel * c->kernel; k++) {
                size_t iy = oy * c->stride + k / c->kernel - c->padding;
                size_t ix = ox * c->stride + k % c->kernel - c->padding;
                if (iy >= c->height || ix >= c->width) {
                    continue;
                }
                for (size_t o = 0; o < c->out; o++) {
                    for (size_t i = 0; i < c->channels; i++) {
                        meet((oy * c->out_width + ox) * c->out + o,
                             (o * c->channels + i) * c->kernel * c->kernel + k,
                             (iy * c->width + ix) * c->channels + i);
                    }
                }
            }
        }
    }
}

static int image;

static void meet_forward(size_t out, size_t kernel, size_t in)
{
    want[out] += (double)weight[kernel] * (double)x[image][in];
}

static void meet_weights(size_t out, size_t kernel, size_t in)
{
    want[kernel] += (double)dy[image][out] * (double)x[image][in];
}

static void meet_inputs(size_t out, size_t kernel, size_t in)
{
    want[in] += (double)dy[image][out] * (double)weight[kernel];
}

static void check_gradient(struct fl_conv *c, int from, int to)
{
    size_t pixels = c->out_height * c->out_width;

    memset(want, 0, sizeof want);
    for (image = from; image <= to; image++) {
        each(c, meet_weights);
    }
    fl_conv_end(c);
    fl_conv_unpack(c, c->dweight, gradient, 1);
    same(gradient, c->out * c->patch, (double)(2 * pixels));
    for (size_t o = 0; o < c->out; o++) {
        double sum = 0;
        for (image = from; image <= to; image++) {
            for (size_t p = 0; p < pixels; p++) {
                sum += (double)dy[image][p * c->out + o];
            }
        }
        ck_assert_double_eq_tol((double)c->dbias[o], sum, 1e-4);
    }
}

/* A batch of two, one example alone, and a batch of two again: nothing is left over. */
static void check(struct fl_conv *c)
{
    static const int firsts[] = {0, 1, 0};
    size_t outputs = c->out_height * c->out_width * c->out;
    size_t inputs = c->height * c->width * c->channels;

    fl_conv_set(c, weight);
    fl_conv_forward(c, bias, x[0], y);
    memset(want, 0, sizeof want);
    for (size_t i = 0; i < outputs; i++) {
        want[i] = (double)bias[i % c->out];
    }
    image = 0;
    each(c, meet_forward);
    same(y, outputs, (double)c->patch);
    for (size_t k = 0; k < FL_COUNT(firsts); k++) {
        c->alone = firsts[k] == 1;
        fl_conv_begin(c);
        for (int n = firsts[k]; n < 2; n++) {
            fl_conv_backward(c, x[n], dy[n], dx);
        }
        memset(want, 0, sizeof want);
        image = 1;
        each(c, meet_inputs);
        same(dx, inputs, (double)(9 * c->out));
        check_gradient(c, firsts[k], 1);
    }
}

START_TEST(test_every_way_gives_the_plain_sum)
{
    static const struct {
        size_t channels, out, height, width, kernel, stride, padding;
    } rows[] = {
        {16, 16, 2, 2, 3, 1, 1},   {16, 32, 4, 6, 3, 1, 1},   {32, 16, 10, 4, 3, 1, 1},
        {48, 16, 6, 20, 3, 1, 1},  {16, 16, 14, 12, 3, 1, 1}, {16, 16, 2, 36, 3, 1, 1},
        {16, 16, 18, 18, 3, 1, 1}, {16, 16, 5, 6, 3, 1, 1},   {3, 16, 8, 8, 3, 1, 1},
        {16, 32, 8, 8, 3, 2, 1},   {16, 16, 6, 6, 3, 1, 0},   {4, 7, 9, 8, 5, 1, 2},
    };
    struct fl_seed seed;
    struct fl_rng r;
    size_t fewer = 0;

    fl_seed_from_u64(3, &seed);
    fl_rng_init(&r, &seed, 0);
    for (size_t i = 0; i < FL_COUNT(rows); i++) {
        struct fl_conv c = {.channels = rows[i].channels,
                            .out = rows[i].out,
                            .height = rows[i].height,
                            .width = rows[i].width,
                            .kernel = rows[i].kernel,
                            .stride = rows[i].stride,
                            .padding = rows[i].padding};
        c.out_height = (c.height + 2 * c.padding - c.kernel) / c.stride + 1;
        c.out_width = (c.width + 2 * c.padding - c.kernel) / c.stride + 1;
        ck_assert(fl_conv_init(&c));
        fewer += c.fewer != NULL;
        fill(x[0], 2 * (size_t)ROOM, &r);
        fill(dy[0], 2 * (size_t)ROOM, &r);
        fill(weight, ROOM, &r);
        fill(bias, FL_COUNT(bias), &r);
        check(&c);
        if (c.fewer) { /* and the direct way of the same sizes */
            fl_winograd_free(c.fewer);
            c.fewer = NULL;
            check(&c);
        }
        fl_conv_fini(&c);
    }
    ck_assert(fewer == 0 || fewer == 7); /* all or none of the machine's */
}
END_TEST

START_TEST(test_no_memory_is_told)
{
    for (uint64_t n = 1;; n++) {
        struct fl_conv c = {.channels = 16,
                            .out = 16,
                            .height = 4,
                            .width = 4,
                            .kernel = 3,
                            .stride = 1,
                            .padding = 1,
                            .out_height = 4,
                            .out_width = 4};
        fl_mem_fail_at(n);
        bool made = fl_conv_init(&c);
        fl_mem_fail_at(0);
        fl_conv_fini(&c);
        if (made) {
            break;
        }
    }
}
END_TEST

TESTS_MAIN("conv", test_every_way_gives_the_plain_sum, test_no_memory_is_told)
