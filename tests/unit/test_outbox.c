#include "client/core/outbox.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/math/narrow.h"
#include "common/plan/secure.h"
#include "common/privacy/clip.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = 20000 };

static float delta[N];
static int64_t values[N];

static struct fl_plan *plan_of(enum fl_unit unit)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);

    memcpy(plan->name, "fmnist", 7);
    plan->layout.shared.elements = N;
    plan->grid = (struct fl_grid_conf){.bits = 16, .step = -12};
    snprintf(plan->strategy, sizeof plan->strategy, "fedavg");
    plan->privacy.unit = unit;
    plan->privacy.clip = 0.5;
    plan->privacy.noise_multiplier = 0.25;
    plan->privacy.sampling_rate = 0.05;
    plan->train.steps = 20;
    for (int i = 0; i < N; i++) {
        delta[i] = (float)sin(i) * 0.5f;
    }
    return plan;
}

static void seal(const struct fl_plan *plan, uint64_t seed_number, struct fl_sealed *ret)
{
    const struct fl_event cost = {.q = 0.05, .sigma = 0.25, .count = 20};
    struct fl_seed seed;
    struct fl_err e = {0};

    fl_seed_from_u64(seed_number, &seed);
    int r = fl_outbox_seal(plan, delta, plan->privacy.unit == FL_UNIT_EXAMPLE ? &cost : NULL, &seed,
                           0, ret, &e);
    ck_assert_msg(r == 0, "%s", e.msg);
    struct fl_grid g = {plan->grid.bits, plan->grid.step};
    ck_assert_int_eq(fl_grid_unpack(&g, ret->bytes, ret->size, 0, N, values, &e), 0);
}

/* What leaves in 6 or 4 bits is the second rounding of the very upload of 8: anybody could have
 * made it from that, and its noise is that one's. */
START_TEST(test_narrow_is_the_upload_rounded_again)
{
    struct fl_plan *plan = plan_of(FL_UNIT_CLIENT);
    struct fl_sealed wide, narrow;
    struct fl_seed seed;
    struct fl_err e = {0};
    uint8_t want[N];

    plan->grid = (struct fl_grid_conf){.bits = FL_NARROW_FROM, .step = -5, .narrow = 4};
    for (uint32_t bits = 4; bits <= 6; bits += 2) {
        seal(plan, 9, &wide);
        fl_seed_from_u64(9, &seed);
        ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, bits, &narrow, &e), 0);
        ck_assert_uint_eq(narrow.size, (N * bits + 7) / 8);
        fl_narrow_pack(bits, values, N, want); /* `values`: of the wide bytes */
        ck_assert_mem_eq(narrow.bytes, want, narrow.size);
        ck_assert(narrow.event.sigma == wide.event.sigma && narrow.noise_std == wide.noise_std);
        fl_sealed_fini(&narrow);
        fl_sealed_fini(&wide);
    }
    ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, 5, &narrow, &e), 0);
    ck_assert_uint_eq(narrow.size, (N * 6 + 7) / 8);
    fl_sealed_fini(&narrow);
    plan->grid.narrow = 6; /* no fewer than the job lets it; nor other than the job says */
    ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, 4, &narrow, &e), 0);
    ck_assert_uint_eq(narrow.size, (N * 6 + 7) / 8);
    fl_sealed_fini(&narrow);
    plan->grid.narrow = 0;
    ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, 4, &narrow, &e), 0);
    ck_assert_uint_eq(narrow.size, N);
    fl_sealed_fini(&narrow);
    fl_free(plan);
}
END_TEST

START_TEST(test_without_noise_the_rounded_delta_leaves)
{
    struct fl_plan *plan = plan_of(FL_UNIT_NONE);
    struct fl_sealed s = {0};
    struct fl_digest d;

    seal(plan, 1, &s);
    for (int i = 0; i < N; i++) {
        ck_assert_int_eq(values[i], (int64_t)rint((double)delta[i] * 4096));
    }
    ck_assert_uint_eq(s.size, 2 * N);
    ck_assert_uint_eq(s.event.count, 0);
    ck_assert_double_eq_tol(s.norm_before, 0.5 * sqrt(N / 2), 0.1);
    ck_assert_double_eq(s.noise_std, 0);
    ck_assert_uint_eq(s.saturated, 0);
    fl_digest_of(s.bytes, s.size, &d);
    ck_assert(fl_digest_equal(&d, &s.digest));
    fl_sealed_fini(&s);
    delta[7] = 100; /* beyond 2^15 steps of 2^-12 */
    seal(plan, 1, &s);
    ck_assert_uint_eq(s.saturated, 1);
    ck_assert_int_eq(values[7], 32767);
    fl_sealed_fini(&s);
    fl_free(plan);
}
END_TEST

/* Each member's part of the noise, and what the floor on honest members makes of it: never less
 * than the whole, whose event is what is debited. */
START_TEST(test_members_share_the_noise)
{
    struct fl_plan *plan = plan_of(FL_UNIT_CLIENT);
    int64_t *sum = fl_new(N, sizeof *sum);
    struct fl_sealed s = {0};
    struct fl_event event = {0};
    double squares = 0;

    plan->privacy.noise = FL_NOISE_DISTRIBUTED;
    plan->secure = (struct fl_secure_conf){.on = true, .corrupt = 0.1, .survivors = 18};
    plan->round.members = 25;
    ck_assert_uint_eq(fl_plan_noise_sharers(plan), 16); /* 18 less 2 of 25 */
    memset(delta, 0, sizeof delta);
    for (uint64_t member = 0; member < 16; member++) {
        seal(plan, member, &s);
        /* The whole is 0.25 of 2048 steps, a sixteenth of its variance is 128 steps. */
        ck_assert_double_eq_tol(s.noise_std, 128.0 / 4096, 1e-6);
        ck_assert_uint_eq(s.saturated, 0);
        for (int i = 0; i < N; i++) {
            sum[i] += values[i];
        }
        fl_sealed_fini(&s);
    }
    for (int i = 0; i < N; i++) {
        squares += (double)sum[i] * (double)sum[i];
    }
    /* Five standard errors of a variance of N values. */
    ck_assert_double_eq_tol(squares / N / (512.0 * 512), 1, 5 * sqrt(2.0 / N));
    ck_assert_int_eq(fl_outbox_event(plan, &event, NULL), 0);
    ck_assert_double_eq(event.sigma, 0.25);
    ck_assert_uint_eq(event.count, 1);
    ck_assert_double_ge(fl_plan_own_multiplier(plan) * 4, 0.25);
    /* A part of fewer than four steps is no Gaussian any more. */
    plan->privacy.noise_multiplier = 4 * 3.9 / 2048;
    ck_assert_int_eq(fl_outbox_event(plan, &event, NULL), -FL_R_PLAN_PRIVACY);
    for (int i = 0; i < N; i++) {
        delta[i] = (float)sin(i) * 0.5f;
    }
    fl_free(sum);
    fl_free(plan);
}
END_TEST

START_TEST(test_client_unit_clips_and_noises)
{
    struct fl_plan *plan = plan_of(FL_UNIT_CLIENT);
    struct fl_sealed s = {0}, again = {0};
    struct fl_event event = {0};
    double squares = 0, products = 0, norm = 0;

    seal(plan, 1, &s);
    /* clip 0.5 = 2048 steps; noise 0.25 * 2048 = 512 steps each; the signal has 2048 / sqrt(N). */
    for (int i = 0; i < N; i++) {
        squares += (double)(values[i] * values[i]);
        products += (double)values[i] * (double)delta[i];
        norm += (double)delta[i] * (double)delta[i];
    }
    ck_assert_double_eq_tol(sqrt(squares / N), sqrt(512 * 512 + 2048.0 * 2048 / N), 8);
    /* The projection on the true direction: 2048, give or take 512. */
    ck_assert_double_eq_tol(products / sqrt(norm), 2048, 4 * 512);
    ck_assert_double_eq_tol(s.noise_std, 0.125, 1e-9);
    ck_assert_double_eq_tol(s.norm_before, sqrt(norm), 1e-6);
    ck_assert_uint_eq(s.event.count, 1);
    ck_assert_double_eq(s.event.q, 1);
    ck_assert_double_eq(s.event.sigma, 0.25);
    ck_assert_int_eq(fl_outbox_event(plan, &event, NULL), 0);
    ck_assert_mem_eq(&event, &s.event, sizeof event);
    seal(plan, 1, &again);
    ck_assert_mem_eq(s.bytes, again.bytes, s.size); /* the same seed, the very same bytes */
    fl_sealed_fini(&again);
    seal(plan, 2, &again);
    ck_assert_mem_ne(s.bytes, again.bytes, s.size);
    fl_sealed_fini(&again);

    /* Noise taken away again, what is left is the clipped delta: |q| <= 2048 exactly. */
    int64_t *with = fl_new(N, sizeof *with);
    memcpy(with, values, N * sizeof *with);
    memset(delta, 0, sizeof delta);
    seal(plan, 2, &again);
    for (int i = 0; i < N; i++) {
        with[i] -= values[i];
    }
    ck_assert(fl_clip_holds(with, N, 2048));
    ck_assert(!fl_clip_holds(with, N, 1800));
    fl_free(with);
    fl_sealed_fini(&again);
    fl_sealed_fini(&s);
    fl_free(plan);
}
END_TEST

START_TEST(test_example_unit_passes_on_what_accounted_steps_made)
{
    struct fl_plan *plan = plan_of(FL_UNIT_EXAMPLE);
    struct fl_sealed s = {0};
    struct fl_event event = {0};

    seal(plan, 1, &s);
    ck_assert_uint_eq(s.event.count, 20);
    ck_assert_double_eq(s.event.q, 0.05);
    ck_assert_int_eq(values[1], (int64_t)rint((double)delta[1] * 4096));
    ck_assert_int_eq(fl_outbox_event(plan, &event, NULL), 0);
    ck_assert_uint_eq(event.count, 20);
    ck_assert_double_eq(event.sigma, 0.25);
    fl_sealed_fini(&s);
    fl_free(plan);
}
END_TEST

START_TEST(test_what_cannot_be_honoured_is_refused_and_nothing_sealed)
{
    const float bad[] = {NAN, INFINITY, -INFINITY, 0x1p70f};
    const enum fl_unit units[] = {FL_UNIT_NONE, FL_UNIT_CLIENT};
    struct fl_sealed s = {0};
    struct fl_event event = {0};
    struct fl_seed seed;
    struct fl_err e = {0};

    fl_seed_from_u64(1, &seed);
    for (size_t u = 0; u < FL_COUNT(units); u++) {
        struct fl_plan *plan = plan_of(units[u]);
        for (size_t i = 0; i < FL_COUNT(bad); i++) {
            delta[N - 1] = bad[i];
            ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, 0, &s, &e), -FL_R_NOT_FINITE);
            ck_assert_ptr_null(s.bytes);
            ck_assert_ptr_nonnull(strstr(e.msg, "job fmnist"));
        }
        fl_free(plan);
    }
    struct fl_plan *plan = plan_of(FL_UNIT_CLIENT);
    const double clips[] = {0, -1, NAN, 1e-9}, noises[] = {0, -1, NAN, 1e-3, INFINITY};
    for (size_t i = 0; i < FL_COUNT(clips); i++) {
        plan->privacy.clip = clips[i];
        ck_assert_int_eq(fl_outbox_event(plan, &event, &e), -FL_R_PLAN_PRIVACY);
        ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, 0, &s, &e), -FL_R_PLAN_PRIVACY);
    }
    plan->privacy.clip = 0.5;
    for (size_t i = 0; i < FL_COUNT(noises); i++) {
        plan->privacy.noise_multiplier = noises[i];
        ck_assert_int_eq(fl_outbox_event(plan, &event, &e), -FL_R_PLAN_PRIVACY);
        ck_assert_int_eq(fl_outbox_seal(plan, delta, NULL, &seed, 0, &s, &e), -FL_R_PLAN_PRIVACY);
    }
    ck_assert_ptr_null(s.bytes);
    fl_free(plan);
}
END_TEST

START_TEST(test_every_failed_allocation_is_reported)
{
    struct fl_plan *plan = plan_of(FL_UNIT_CLIENT);
    struct fl_seed seed;
    struct fl_err e = {0};
    uint64_t nth = 1;

    fl_seed_from_u64(1, &seed);
    for (;; nth++) {
        struct fl_sealed s = {0};
        fl_mem_fail_at(nth);
        int r = fl_outbox_seal(plan, delta, NULL, &seed, 0, &s, &e);
        if (!fl_mem_fail_hit()) {
            ck_assert_int_eq(r, 0);
            fl_sealed_fini(&s);
            break;
        }
        ck_assert_int_eq(r, -FL_R_NOMEM);
        ck_assert_ptr_null(s.bytes);
    }
    fl_mem_fail_at(0);
    ck_assert_uint_ge(nth, 4);
    fl_free(plan);
}
END_TEST

START_TEST(test_an_update_is_named_by_how_its_digest_begins)
{
    struct fl_digest of[3] = {{{0xab, 0xcd, 0xef, 0x01, 0x23}}, {{0xab, 0xcd, 0xef, 0x01, 0x24}}};
    char whole[FL_DIGEST_HEX];
    bool meant[3];
    struct fl_err e = {0};

    of[2] = of[0]; /* two agents with the same data */
    ck_assert_int_eq(fl_outbox_pick(of, 3, "ABCDEF0124", meant, &e), 0);
    ck_assert(!meant[0] && meant[1] && !meant[2]);
    fl_digest_hex(&of[0], whole);
    ck_assert_int_eq(fl_outbox_pick(of, 3, whole, meant, &e), 0);
    ck_assert(meant[0] && !meant[1] && meant[2]);
    ck_assert_int_eq(fl_outbox_pick(of, 3, NULL, meant, &e), 0);
    ck_assert(meant[0] && meant[1] && meant[2]);
    ck_assert_int_eq(fl_outbox_pick(of, 3, "abcdef01", meant, &e), -FL_R_ARG);
    ck_assert_ptr_nonnull(strstr(e.msg, "abcdef01 could be abcdef0123"));
    ck_assert_ptr_nonnull(strstr(e.msg, ", abcdef0124"));
    const char *const bad[] = {"", "abcdef0", "abcdefgh", "abcdef01 "};
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_int_eq(fl_outbox_pick(of, 3, bad[i], meant, &e), -FL_R_ARG);
        ck_assert_ptr_nonnull(strstr(e.msg, "64 hex digits"));
    }
    ck_assert_int_eq(fl_outbox_pick(of, 3, "00000000", meant, &e), -FL_R_ARG);
    ck_assert_int_eq(fl_outbox_pick(of, 0, NULL, meant, &e), -FL_R_ARG);
    ck_assert_ptr_nonnull(strstr(e.msg, "no such update waits"));
}
END_TEST

TESTS_MAIN("outbox", test_an_update_is_named_by_how_its_digest_begins,
           test_narrow_is_the_upload_rounded_again, test_without_noise_the_rounded_delta_leaves,
           test_client_unit_clips_and_noises, test_members_share_the_noise,
           test_example_unit_passes_on_what_accounted_steps_made,
           test_what_cannot_be_honoured_is_refused_and_nothing_sealed,
           test_every_failed_allocation_is_reported)
