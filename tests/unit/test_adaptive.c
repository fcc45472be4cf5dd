/* Adaptive clipping: the recurrence and the split against the paper's formulas (computed in
 * Python), a federation of 40 sites whose clip finds the quantile, and what is refused. */
#include "client/core/outbox.h"
#include "client/core/policy.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/adaptive.h"
#include "common/plan/releases.h"
#include "server/strategy/strategy.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct fl_err e;
static struct fl_plan plan;

static int parse(const char *privacy, const char *more)
{
    char text[2048];

    snprintf(text, sizeof text,
             "name: j\nstrategy: fedavg\nrounds: 100\n"
             "model: {input: [4], classes: 2, head: 1, layers: [{linear: {out: 8}}, {linear: {out: "
             "2}}]}\ntrain: {batch: 4, lr: 0.1}\nround: {members: 40}\n"
             "grid: {bits: 32, step: -20}\nprivacy: {%s}\n%s\n",
             privacy, more);
    memset(&e, 0, sizeof e);
    return fl_plan_parse(&plan, "job.yaml", text, strlen(text), &e);
}

#define CLIENT  "unit: client, clip: 1, noise_multiplier: 1, delta: 1e-5, "
#define CENTRAL CLIENT "noise: central, "

static void good(const char *privacy, const char *more)
{
    ck_assert_msg(parse(privacy, more) == 0, "%s", e.msg);
}

START_TEST(test_the_clip_follows_the_papers_recurrence)
{
    static const double below[] = {0, 0.25, 1, 1, 0.5, -0.3, 1.4, 0, 0, 0.75};
    static const double clips[] = {1.105170918, 1.161834243, 1.051271096, 0.951229425, 0.951229425,
                                   1.116278070, 0.932393820, 1.030454534, 1.138828383, 1.083287068};
    struct fl_adaptive_bound b;

    good(CLIENT "adaptive: {quantile: 0.5, rate: 0.2}", "");
    size_t last = plan.layout.shared.elements - 1;
    ck_assert_str_eq(plan.layout.shared.at[plan.layout.shared.count - 1].name, "clip.moved");
    ck_assert_uint_eq(plan.layout.shared.at[plan.layout.shared.count - 1].offset, last);
    for (size_t i = 0; i < FL_COUNT(below); i++) {
        ck_assert_int_eq(fl_adaptive_bound(&plan.privacy, plan.grid.step, &b, &e), 0);
        double mean = (2 * below[i] - 1) * ldexp((double)b.bit, plan.grid.step);
        float moved = fl_adaptive_next(&plan.privacy, plan.grid.step, mean, &e);
        ck_assert_int_eq(fl_adaptive_take(&plan, moved, &e), 0);
        ck_assert_double_eq_tol(plan.privacy.clip, clips[i], 1e-6);
    }
    for (int i = 0; i < 200; i++) { /* to the ends, and not beyond */
        ck_assert_int_eq(fl_adaptive_bound(&plan.privacy, plan.grid.step, &b, &e), 0);
        double mean = ldexp((i < 100 ? -1.0 : 1.0) * (double)b.bit, plan.grid.step);
        ck_assert_int_eq(
            fl_adaptive_take(&plan, fl_adaptive_next(&plan.privacy, plan.grid.step, mean, &e), &e),
            0);
        ck_assert(i != 99 || plan.privacy.clip == 10);
    }
    ck_assert_double_eq_tol(plan.privacy.clip, 0.1, 1e-7);
    ck_assert_int_eq(fl_adaptive_take(&plan, -0.95f, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_int_eq(fl_adaptive_take(&plan, 9.1f, &e), -FL_R_PLAN_PRIVACY);
    ck_assert_int_eq(fl_adaptive_take(&plan, NAN, &e), -FL_R_PLAN_PRIVACY);
}
END_TEST

/* What the update has is (z^-2 - (2 sigma_b)^-2)^(-1/2), what the bits have is sigma_b: both of the
 * one noise that leaves. */
START_TEST(test_the_noise_is_split_as_in_the_paper)
{
    static const struct {
        const char *privacy;
        double z, bits, update;
    } cases[] = {
        {CLIENT "adaptive: {}", 1, 5, 1.005037815},
        {CLIENT "adaptive: {noise_multiplier: 0.7072}", 1, 0.7072, 1.414027198},
        {"unit: client, clip: 1, noise_multiplier: 0.5, delta: 1e-5, noise: central, adaptive: "
         "{noise_multiplier: 2}",
         0.5, 2, 0.503952631},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_adaptive_bound b;
        struct fl_event event;
        good(cases[i].privacy, "");
        ck_assert_int_eq(fl_adaptive_bound(&plan.privacy, plan.grid.step, &b, &e), 0);
        double noise = cases[i].z * b.both;
        ck_assert_int_eq(b.update, 1 << 20);
        ck_assert_double_ge(b.both * b.both, ldexp(1, 40) + (double)b.bit * (double)b.bit);
        ck_assert_double_eq_tol(noise / (double)b.update, cases[i].update, 1e-5);
        ck_assert_double_eq_tol(noise / (2 * (double)b.bit), cases[i].bits, 1e-4);
        ck_assert_int_eq(fl_release_event(&plan, &event, &e), 0);
        ck_assert_double_eq(event.sigma, cases[i].z); /* one event, of both */
        ck_assert_uint_eq(event.count, 1);
    }
}
END_TEST

/* Parsed again for each round, as both ends do; the model carries the clip. */
struct federation {
    float *model, *next;
    uint8_t *bytes[40];
    double norm[40]; /* of each site's update before the clip */
    struct fl_seed secret;
};

static int read_bytes(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *err)
{
    (void)err;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static void seal_all(struct federation *f, uint64_t round)
{
    size_t n = plan.layout.shared.elements;
    const struct fl_grid g = {.bits = plan.grid.bits, .step = plan.grid.step};
    struct fl_adaptive_bound b;
    int64_t *q = fl_new(n, sizeof *q);
    float *delta = fl_new(n, sizeof *delta);

    ck_assert_int_eq(fl_adaptive_bound(&plan.privacy, plan.grid.step, &b, &e), 0);
    for (uint64_t i = 0; i < FL_COUNT(f->norm); i++) {
        struct fl_sealed s;
        struct fl_seed seed;
        fl_seed_from_u64(round * 1000 + i, &seed);
        delta[(i + round) % (n - 1)] = (float)f->norm[i];
        delta[n - 1] = 77; /* whatever training left there */
        int r = fl_outbox_seal(&plan, delta, NULL, &seed, 0, &s, &e);
        ck_assert_msg(r == 0, "%s", e.msg);
        memset(delta, 0, n * sizeof *delta);
        ck_assert_double_eq(s.clip, plan.privacy.clip);
        ck_assert_double_le(s.norm_after, plan.privacy.clip);
        if (plan.privacy.noise == FL_NOISE_CENTRAL) { /* bare: the bound, exactly */
            double squares = 0;
            ck_assert_int_eq(fl_grid_unpack(&g, s.bytes, s.size, 0, n, q, &e), 0);
            for (size_t k = 0; k < n; k++) {
                squares += (double)q[k] * (double)q[k];
            }
            ck_assert_double_le(sqrt(squares), b.both);
            ck_assert_int_eq(q[n - 1], f->norm[i] <= plan.privacy.clip ? b.bit : -b.bit);
        }
        f->bytes[i] = s.bytes;
        ck_assert_uint_eq(s.size, fl_plan_update_size(&plan));
    }
    fl_free(delta);
    fl_free(q);
}

static void finish(const struct federation *f, uint64_t round)
{
    const struct fl_strategy *strategy = fl_strategy_find(plan.strategy);
    void *shared = fl_new(1, strategy->shared_size), *slot = NULL;
    struct next_memory memory = {
        .base = f->model, .next = f->next, .elements = plan.layout.shared.elements};
    uint8_t state[1];

    ck_assert_int_eq(strategy->init(shared, &plan, &e), 0);
    ck_assert_uint_eq(strategy->state_size(shared), 0);
    ck_assert_int_eq(strategy->slot_new(shared, &slot, &e), 0);
    for (uint64_t i = 0; i < FL_COUNT(f->bytes); i++) {
        const struct fl_update u = {.agent = i + 1,
                                    .weight = 1,
                                    .size = fl_plan_update_size(&plan),
                                    .read = read_bytes,
                                    .arg = f->bytes[i]};
        ck_assert_int_eq(strategy->fold(slot, shared, &u, &e), 0);
    }
    struct fl_next next = next_in_memory(&memory, 1, state, 0);
    next.round = round;
    next.secret = &f->secret;
    int r = strategy->finish(shared, &slot, 0, &next, &e);
    ck_assert_msg(r == 0, "%s", e.msg);
    strategy->slot_free(slot);
    strategy->fini(shared);
    fl_free(shared);
}

/* Norms 0.04 to 1.99 in steps of 0.05: the quantile 0.75 is between 1.49 and 1.54. */
static void federate(const char *privacy)
{
    struct federation f = {.secret = {{9}}};
    double mean = 0;

    good(privacy, "");
    size_t n = plan.layout.shared.elements;
    f.model = fl_new(n, sizeof *f.model);
    f.next = fl_new(n, sizeof *f.next);
    for (size_t i = 0; i < FL_COUNT(f.norm); i++) {
        f.norm[i] = 0.05 * (double)(i + 1) - 0.01;
    }
    for (uint64_t round = 1; round <= 100; round++) {
        float *again = fl_new(n, sizeof *again);
        good(privacy, "");
        ck_assert_int_eq(fl_adaptive_take(&plan, f.model[n - 1], &e), 0);
        mean += round > 50 ? plan.privacy.clip / 50 : 0;
        seal_all(&f, round);
        finish(&f, round);
        memcpy(again, f.next, n * sizeof *again);
        finish(&f, round); /* after a crash: the same model, and the same clip */
        ck_assert_mem_eq(again, f.next, n * sizeof *again);
        memcpy(f.model, f.next, n * sizeof *f.model);
        for (size_t i = 0; i < FL_COUNT(f.bytes); i++) {
            fl_free(f.bytes[i]);
        }
        fl_free(again);
    }
    ck_assert_msg(fabs(mean - 1.515) < 0.1, "the clip is %g on average", mean);
    fl_free(f.model);
    fl_free(f.next);
}

START_TEST(test_the_clip_finds_the_quantile)
{
    federate(CENTRAL "adaptive: {quantile: 0.75, noise_multiplier: 2}");
    federate(CLIENT "adaptive: {quantile: 0.75, noise_multiplier: 0.75}");
    federate("unit: client, clip: 0.2, noise_multiplier: 1, delta: 1e-5, noise: central, adaptive: "
             "{quantile: 0.75, noise_multiplier: 2, rate: 0.5, min: 0.1, max: 3}");
}
END_TEST

START_TEST(test_what_is_refused)
{
    static const struct {
        const char *privacy, *more, *says;
    } cases[] = {
        {"unit: example, clip: 1, noise_multiplier: 1, delta: 1e-5, sampling_rate: 0.1, examples: "
         "100, adaptive: {}",
         "", "is for the unit client"},
        {CENTRAL "tree: 4, adaptive: {}", "", "a tree's noise is of one scale"},
        {CLIENT "adaptive: {}", "aggregate: {rule: median}", "takes no mean"},
        {CLIENT "adaptive: {}", "set: {grid.narrow: 4, grid.bits: 8, grid.step: -2}", "fewer bits"},
        {CLIENT "adaptive: {}", "set: {strategy: fedamp}", "takes no mean of all"},
        {CLIENT "adaptive: {}", "set: {strategy: local}", "takes no mean of all"},
        {CLIENT "adaptive: {noise_multiplier: 0.7}", "", "would cost more than the updates"},
        {CLIENT "adaptive: {min: 1.5}", "", "that a job begins with"},
        {CLIENT "adaptive: {max: 0.5}", "", "that a job begins with"},
        {CLIENT "adaptive: {max: 300}", "", "the grid holds values up to"},
        {CLIENT "adaptive: {min: 0.000002}", "", "below one step"},
        {CLIENT "adaptive: {quantile: 1}", "", "quantile"},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        ck_assert_int_lt(parse(cases[i].privacy, cases[i].more), 0);
        ck_assert_msg(strstr(e.msg, cases[i].says) != NULL, "case %zu: %s", i, e.msg);
    }
    good("unit: none, adaptive: {}", ""); /* ignored, as all of privacy is */
    ck_assert(!plan.privacy.adaptive.on);
    ck_assert_uint_eq(fl_layout_found(&plan.layout.shared, "clip"), SIZE_MAX);
}
END_TEST

START_TEST(test_a_site_takes_no_larger_clip_than_it_allows)
{
    struct fl_policy *policy = fl_new(1, sizeof *policy);

    policy->job_count = 1;
    snprintf(policy->jobs[0].name, sizeof policy->jobs[0].name, "j");
    policy->jobs[0].max_clip = 2;
    good(CLIENT "adaptive: {}", "");
    ck_assert_int_eq(fl_policy_judge(policy, &plan, &e), 0);
    ck_assert_int_eq(fl_adaptive_take(&plan, 0.99f, &e), 0);
    ck_assert_int_eq(fl_policy_clip(policy, &plan, &e), 0);
    ck_assert_int_eq(fl_adaptive_take(&plan, 1.01f, &e), 0);
    ck_assert_int_eq(fl_policy_clip(policy, &plan, &e), -FL_R_POLICY_NOISE);
    ck_assert_ptr_nonnull(strstr(e.msg, "requires at most 2"));
    /* Within a secure sum nobody goes back half way: what may come is judged before. */
    good(CLIENT "adaptive: {}", "secure_aggregation:");
    ck_assert_int_eq(fl_policy_judge(policy, &plan, &e), -FL_R_POLICY_NOISE);
    good(CLIENT "adaptive: {max: 2}", "secure_aggregation:");
    ck_assert_int_eq(fl_policy_judge(policy, &plan, &e), 0);
    fl_free(policy);
}
END_TEST

TESTS_MAIN("adaptive", test_the_clip_follows_the_papers_recurrence,
           test_the_noise_is_split_as_in_the_paper, test_the_clip_finds_the_quantile,
           test_what_is_refused, test_a_site_takes_no_larger_clip_than_it_allows)
