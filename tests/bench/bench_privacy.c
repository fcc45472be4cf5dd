/*
 * What privacy costs on this machine, as JSON lines. Every rate stands beside its floor, measured
 * in the same run: noise beside the random bytes it consumes, the fold beside a loop that only
 * moves the same bytes, sealing beside its parts. CPU time of one thread, best of several.
 */
#include "client/core/outbox.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/privacy/accountant.h"
#include "common/privacy/clip.h"
#include "common/privacy/noise.h"
#include "common/privacy/pld.h"
#include "tests/bench/best.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 1000000, REPEATS = 7, TILE = 1 << 14 };

static float *x;
static int64_t *q, *acc;
static uint8_t *packed;
static struct fl_rng rng;

static void bench_noise(void)
{
    static const double scales[] = {0.5, 1, 4, 30, 1000, 16384, 0x1p24};
    double bytes_s, draw_s, reference_s, new_s;

    BEST(bytes_s, fl_rng_bytes(&rng, q, N * sizeof *q));
    printf("{\"bench\":\"random_bytes\",\"gb_per_s\":%.3f}\n", 8e-9 * N / bytes_s);
    for (size_t i = 0; i < FL_COUNT(scales); i++) {
        struct fl_noise *n = NULL;
        double start = now();
        if (fl_noise_new(scales[i], &n, NULL) < 0) {
            abort();
        }
        new_s = now() - start;
        memset(q, 0, N * sizeof *q);
        BEST(draw_s, fl_noise_add(n, &rng, q, N));
        BEST(reference_s, for (int k = 0; k < N / 50; k++) q[k] = fl_noise_draw(n, &rng));
        printf("{\"bench\":\"noise\",\"scale\":%g,\"million_draws_per_s\":%.2f,"
               "\"reference_million_draws_per_s\":%.2f,\"prepare_ms\":%.3f,\"distance\":%.3g,"
               "\"floor_million_draws_per_s\":%.2f}\n",
               scales[i], 1e-6 * N / draw_s, 1e-6 * N / 50 / reference_s, 1e3 * new_s,
               fl_noise_distance(n), 1e-6 * N / (0.75 * bytes_s));
        fl_noise_free(n);
    }
}

/* What any fold must do: read the packed bytes, read and write the sums; tile by tile. */
static void touch(const uint8_t *from, size_t size)
{
    const size_t tile = size * TILE / N / 8;
    uint64_t any = 0, word;

    for (size_t at = 0; at < N; at += TILE) {
        size_t end = at + TILE < N ? at + TILE : N;
        for (size_t i = 0; i < tile && (at / TILE * tile + i + 1) * 8 <= size; i++) {
            memcpy(&word, from + (at / TILE * tile + i) * 8, sizeof word);
            any ^= word;
        }
        for (size_t i = at; i < end; i++) {
            acc[i] += (int64_t)any;
        }
    }
}

static void bench_fold(void)
{
    static const uint32_t widths[] = {8, 12, 16, 20, 24, 32};

    for (size_t w = 0; w < FL_COUNT(widths); w++) {
        struct fl_grid g = {widths[w], 0};
        double fold_s, pack_s, floor_s;
        size_t size = 0;
        for (size_t i = 0; i < N; i++) {
            q[i] = (int64_t)fl_rng_below(&rng, 200) - 100;
        }
        if (!fl_grid_bytes(&g, N, &size)) {
            abort();
        }
        BEST(pack_s, fl_grid_pack(&g, q, N, packed));
        BEST(
            fold_s, for (size_t at = 0; at < N; at += TILE) {
                fl_grid_fold(&g, packed, size, at, N - at < TILE ? N - at : TILE, 1, acc + at,
                             NULL);
            });
        BEST(floor_s, touch(packed, size));
        double moved = (double)size + 16.0 * N;
        printf("{\"bench\":\"fold\",\"bits\":%u,\"values\":%d,\"ms\":%.3f,\"gb_per_s\":%.2f,"
               "\"floor_gb_per_s\":%.2f,\"pack_ms\":%.3f}\n",
               widths[w], N, 1e3 * fold_s, 1e-9 * moved / fold_s, 1e-9 * moved / floor_s,
               1e3 * pack_s);
    }
}

static void bench_seal(void)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_grid g = {16, -14};
    struct fl_sealed sealed = {0};
    struct fl_seed seed;
    struct fl_noise *n = NULL;
    int64_t bound = 0;
    double seal_s, clip_s, noise_s, pack_s, norm;

    fl_seed_from_u64(1, &seed);
    snprintf(plan->strategy, sizeof plan->strategy, "fedavg");
    plan->layout.shared.elements = N;
    plan->grid = (struct fl_grid_conf){.bits = g.bits, .step = g.step};
    plan->privacy =
        (struct fl_privacy_conf){.unit = FL_UNIT_CLIENT, .clip = 1, .noise_multiplier = 0.05};
    for (size_t i = 0; i < N; i++) {
        x[i] = (float)fl_rng_normal(&rng) * 0.01f; /* norm 10: is clipped */
    }
    BEST(seal_s, {
        if (fl_outbox_seal(plan, x, NULL, &seed, 0, &sealed, NULL) < 0) {
            abort();
        }
        fl_sealed_fini(&sealed);
    });
    if (fl_clip_bound(&g, 1, &bound, NULL) < 0 ||
        fl_noise_new(0.05 * (double)bound, &n, NULL) < 0) {
        abort();
    }
    BEST(clip_s, fl_clip_to_grid(&g, x, N, bound, q, &norm, NULL));
    BEST(noise_s, fl_noise_add(n, &rng, q, N));
    BEST(pack_s, fl_grid_pack(&g, q, N, packed));
    printf("{\"bench\":\"seal\",\"values\":%d,\"ms\":%.2f,\"clip_ms\":%.2f,\"noise_ms\":%.2f,"
           "\"pack_ms\":%.2f}\n",
           N, 1e3 * seal_s, 1e3 * clip_s, 1e3 * noise_s, 1e3 * pack_s);
    fl_noise_free(n);
    fl_free(plan);
}

static void bench_accountant(void)
{
    struct fl_event sampled = {.q = 0.01, .sigma = 1.1, .count = 10000};
    struct fl_event full = {.q = 1, .sigma = 20, .count = 100};
    double sampled_s, full_s, sigma_s, epsilon = NAN, sigma = NAN;
    enum fl_bound bound;

    BEST(sampled_s, fl_epsilon(&sampled, 1, 1e-5, &epsilon, &bound, NULL));
    printf("{\"bench\":\"epsilon\",\"event\":\"sampled\",\"epsilon\":%.6f,\"bound\":\"%s\","
           "\"ms\":%.3f}\n",
           epsilon, fl_bound_name(bound), 1e3 * sampled_s);
    BEST(full_s, fl_epsilon(&full, 1, 1e-5, &epsilon, &bound, NULL));
    printf("{\"bench\":\"epsilon\",\"event\":\"full\",\"epsilon\":%.6f,\"bound\":\"%s\","
           "\"ms\":%.3f}\n",
           epsilon, fl_bound_name(bound), 1e3 * full_s);
    BEST(sigma_s, fl_sigma_for(1, 1e-5, 0.01, 10000, &sigma, NULL));
    printf("{\"bench\":\"sigma\",\"sigma\":%.6f,\"ms\":%.2f}\n", sigma, 1e3 * sigma_s);
}

/* 10,000 steps: of one kind, of a hundred, and no two alike. */
static void bench_pld(void)
{
    static const uint32_t kinds[] = {1, 100, 10000};
    struct fl_event *events = fl_new(10000, sizeof *events);
    double upper = NAN, best;

    for (size_t i = 0; i < FL_COUNT(kinds); i++) {
        for (uint32_t k = 0; k < kinds[i]; k++) {
            events[k] = (struct fl_event){
                .q = 0.01, .sigma = 0.9 + k / (double)kinds[i], .count = 10000 / kinds[i]};
        }
        BEST(best, if (fl_pld_epsilon(events, kinds[i], 1e-5, NULL, &upper, NULL) < 0) abort());
        printf("{\"bench\":\"pld\",\"steps\":10000,\"kinds\":%u,\"epsilon\":%.6f,\"ms\":%.1f}\n",
               kinds[i], upper, 1e3 * best);
    }
    fl_free(events);
}

int main(void)
{
    struct fl_seed seed;

    fl_seed_from_u64(7, &seed);
    fl_rng_init(&rng, &seed, 0);
    x = fl_new(N, sizeof *x);
    q = fl_new(N, sizeof *q);
    acc = fl_new(N, sizeof *acc);
    packed = fl_new(N, 4);
    bench_noise();
    bench_fold();
    bench_seal();
    bench_accountant();
    bench_pld();
    fl_free(x);
    fl_free(q);
    fl_free(acc);
    fl_free(packed);
    return 0;
}
