#include "client/trainer/augment.h"

#include <string.h>

/* One channel moved by (down, right) and mirrored; what comes in from outside is 0. */
static void move(const float *from, int64_t h, int64_t w, int64_t down, int64_t right, bool mirror,
                 float *to)
{
    for (int64_t i = 0; i < h; i++) {
        for (int64_t j = 0; j < w; j++) {
            int64_t row = i - down, column = (mirror ? w - 1 - j : j) - right;
            bool inside = row >= 0 && row < h && column >= 0 && column < w;
            to[i * w + j] = inside ? from[row * w + column] : 0;
        }
    }
}

void fl_augment(const struct fl_data_conf *conf, const uint32_t shape[3],
                const struct fl_seed *seed, uint64_t turn, uint32_t example, float *room, float *x)
{
    size_t pixels = (size_t)shape[1] * shape[2];
    struct fl_seed step, own;
    struct fl_rng r;

    fl_seed_derive(seed, "augment", turn, &step);
    fl_seed_derive(&step, "example", example, &own);
    fl_rng_init(&r, &own, 0);
    int64_t down = (int64_t)fl_rng_below(&r, 2u * conf->crop + 1) - conf->crop;
    int64_t right = (int64_t)fl_rng_below(&r, 2u * conf->crop + 1) - conf->crop;
    bool mirror = conf->flip && fl_rng_below(&r, 2) == 1;
    if (!down && !right && !mirror) {
        return;
    }
    for (uint32_t c = 0; c < shape[0]; c++) {
        move(x + c * pixels, shape[1], shape[2], down, right, mirror, room);
        memcpy(x + c * pixels, room, pixels * sizeof *x);
    }
}
