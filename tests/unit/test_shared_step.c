/* A step whose noise the members of a secure sum share: what one example can move, what is added,
 * and what is refused. */
#include "client/core/outbox.h"
#include "client/trainer/trainer.h"
#include "common/math/grid.h"
#include "common/plan/secure.h"
#include "common/plan/shared_step.h"
#include "tests/lib/small_site.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void begin(struct small_site *s, int32_t step, double multiplier)
{
    small_site_init(s, FL_VISIBILITY_ALL_SHARED, NULL);
    s->plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_EXAMPLE,
                                                .noise = FL_NOISE_DISTRIBUTED,
                                                .clip = 0.5,
                                                .noise_multiplier = multiplier,
                                                .delta = 1e-5,
                                                .sampling_rate = 1,
                                                .examples = 43};
    s->plan->secure = (struct fl_secure_conf){.on = true, .corrupt = 0.1, .survivors = 18};
    snprintf(s->plan->strategy, sizeof s->plan->strategy, "fedavg");
    s->plan->round.members = s->plan->round.quorum = 20;
    s->plan->grid.bits = 28;
    s->plan->grid.step = step;
    s->plan->train.steps = 1;
    s->plan->train.body = (struct fl_sgd){.lr = 2};
}

static void train(const struct small_site *s, float *delta, struct fl_event *ret)
{
    float none;
    struct fl_train_task t = {
        .plan = s->plan, .data = &s->data, .base = s->shared, .private_in = &none};
    struct fl_train_result made = {.delta = delta, .private_out = &none};
    struct fl_err e = {0};

    fl_seed_from_u64(7, &t.seed);
    ck_assert_msg(fl_train(&t, &made, &e) == 0, "%s", e.msg);
    *ret = made.event;
}

static double difference(const float *a, const float *b, size_t count, int32_t step)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        double d = ldexp((double)a[i] - (double)b[i], -step);
        sum += d * d;
    }
    return sqrt(sum);
}

/* Every example in turn is removed, among them loud ones, on grids so coarse that rounding is most
 * of the bound and so fine that it is nothing. */
START_TEST(test_one_example_moves_no_more_than_the_bound)
{
    static const int32_t steps[] = {-6, -10, -20};
    double closest = 0;

    for (size_t k = 0; k < FL_COUNT(steps); k++) {
        struct small_site s;
        struct fl_shared_step bound;
        struct fl_event event;
        struct fl_err e = {0};

        begin(&s, steps[k], 20);
        for (uint32_t i = 0; i < s.data.train.count; i += 3) { /* clipped, and one not finite */
            s.data.train.x[(size_t)i * 64 + i] = i == 21 ? NAN : 1e4f;
        }
        size_t count = s.plan->layout.shared.elements, last = s.data.train.count - 1;
        float *all = fl_new(count, sizeof *all), *less = fl_new(count, sizeof *less);
        ck_assert_msg(fl_shared_step(s.plan, &bound, &e) == 0, "%s", e.msg);
        train(&s, all, &event);
        ck_assert(event.q == 1 && event.sigma == 20 && event.count == 1);
        for (size_t i = 0; i < count; i++) {
            double x = ldexp((double)all[i], -steps[k]);
            ck_assert(x == rint(x) && fabs(x) <= bound.most);
        }
        for (size_t gone = 0; gone <= last; gone++) { /* the last one takes its place */
            float x[64];
            int32_t y = s.data.train.y[gone];
            memcpy(x, s.data.train.x + gone * 64, sizeof x);
            memcpy(s.data.train.x + gone * 64, s.data.train.x + last * 64, sizeof x);
            s.data.train.y[gone] = s.data.train.y[last];
            s.data.train.count--;
            train(&s, less, &event);
            double moved = difference(all, less, count, steps[k]);
            ck_assert_msg(moved <= bound.bound, "%g of %g", moved, bound.bound);
            closest = fmax(closest, moved / bound.bound);
            memcpy(s.data.train.x + gone * 64, x, sizeof x);
            s.data.train.y[gone] = y;
            s.data.train.count++;
        }
        fl_free(all);
        fl_free(less);
        small_site_fini(&s);
    }
    ck_assert_double_ge(closest, 0.9); /* the bound is not idle */
}
END_TEST

/* It is the plain noised step, which anybody would take, but for noise and grid. */
START_TEST(test_it_is_the_step_that_one_would_take_alone)
{
    struct small_site s;
    struct fl_event event;
    double off = 0, all = 0;

    begin(&s, -20, 20);
    size_t count = s.plan->layout.shared.elements;
    float *shared = fl_new(count, sizeof *shared), *alone = fl_new(count, sizeof *alone);
    train(&s, shared, &event);
    s.plan->privacy.noise = FL_NOISE_LOCAL;
    s.plan->privacy.noise_multiplier = 1e-6;
    train(&s, alone, &event);
    for (size_t i = 0; i < count; i++) {
        off += pow((double)shared[i] - (double)alone[i], 2);
        all += pow((double)alone[i], 2);
    }
    ck_assert_double_le(sqrt(off / all), 1e-3);
    fl_free(shared);
    fl_free(alone);
    small_site_fini(&s);
}
END_TEST

/* 18 survivors, 2 of 20 collude: 16 members' noise is the whole of what is debited. */
START_TEST(test_members_noise_adds_up)
{
    enum { MEMBERS = 16 };
    struct small_site s;
    struct fl_event event;
    struct fl_shared_step step;
    struct fl_sealed sealed;
    struct fl_err e = {0};
    double squares = 0;

    begin(&s, -20, 3);
    const struct fl_grid g = {s.plan->grid.bits, s.plan->grid.step};
    size_t count = s.plan->layout.shared.elements;
    float *delta = fl_new(count, sizeof *delta);
    int64_t *q = fl_new(count, sizeof *q), *sum = fl_new(count, sizeof *sum);
    ck_assert_int_eq(fl_shared_step(s.plan, &step, &e), 0);
    ck_assert_double_eq_tol(step.scale, 3 * step.bound / 4, 1e-6 * step.scale);
    train(&s, delta, &event);
    for (uint64_t m = 0; m < MEMBERS; m++) {
        struct fl_seed seed;
        fl_seed_from_u64(100 + m, &seed);
        ck_assert_msg(fl_outbox_seal(s.plan, delta, &event, &seed, 0, &sealed, &e) == 0, "%s",
                      e.msg);
        ck_assert(sealed.event.sigma == 3 && sealed.event.count == 1 && sealed.saturated == 0);
        ck_assert_double_eq_tol(sealed.noise_std, ldexp(step.scale, g.step), 1e-9);
        ck_assert_int_eq(fl_grid_unpack(&g, sealed.bytes, sealed.size, 0, count, q, &e), 0);
        for (size_t i = 0; i < count; i++) {
            sum[i] += q[i] - (int64_t)ldexp((double)delta[i], -g.step);
        }
        fl_sealed_fini(&sealed);
    }
    for (size_t i = 0; i < count; i++) {
        squares += (double)sum[i] * (double)sum[i];
    }
    double measured = sqrt(squares / (double)count), want = 3 * step.bound;
    ck_assert_double_eq_tol(measured / want, 1,
                            6 / sqrt(2.0 * (double)count)); /* seeds are fixed */
    fl_free(delta);
    fl_free(q);
    fl_free(sum);
    small_site_fini(&s);
}
END_TEST

/* A grid that could not hold step and noise, or would swallow the noise. */
START_TEST(test_grids_that_do_not_serve)
{
    struct small_site s;
    struct fl_shared_step step;
    struct fl_err e = {0};

    begin(&s, -20, 3);
    s.plan->grid.bits = 16;
    ck_assert_int_eq(fl_shared_step(s.plan, &step, &e), -FL_R_PLAN_OVERFLOW);
    ck_assert_ptr_nonnull(strstr(e.msg, "raise bits or step"));
    s.plan->grid.bits = 28;
    s.plan->privacy.noise_multiplier = 1e-4;
    ck_assert_int_eq(fl_shared_step(s.plan, &step, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_ptr_nonnull(strstr(e.msg, "below 4 steps"));
    small_site_fini(&s);
}
END_TEST

TESTS_MAIN("shared_step", test_one_example_moves_no_more_than_the_bound,
           test_it_is_the_step_that_one_would_take_alone, test_members_noise_adds_up,
           test_grids_that_do_not_serve)
