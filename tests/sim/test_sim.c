/*
 * Federations that go wrong. SIM_SEEDS=20000 runs more random ones, SIM_SEED=17 runs one and prints
 * its trace when it fails.
 */
#include "tests/lib/check_main.h"
#include "tests/sim/world.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct sim_conf all_of_four = {
    .sites = 4,
    .members = 4,
    .quorum = 4,
    .rounds = 3,
    .attempts = 3,
    .exchanges = 1,
    .deadline_ms = 20000,
};

static struct world *run(const struct sim_conf *conf)
{
    struct world *w = fl_new(1, sizeof *w);
    sim_run(w, conf);
    return w;
}

static void done(struct world *w)
{
    sim_free(w);
    fl_free(w);
}

static void same_models(struct world *w, const struct world *reference)
{
    for (uint64_t i = 1; i <= w->conf.rounds; i++) {
        if (!fl_digest_equal(&w->disk.history[i], &reference->disk.history[i])) {
            sim_fail(w, "round %d has another model than without faults", (int)i);
        }
    }
}

START_TEST(test_nothing_goes_wrong)
{
    struct world *w = run(&all_of_four);

    ck_assert_uint_eq(w->disk.published, 3);
    ck_assert_uint_eq(w->crashes + w->faults, 0);
    /* open, close, finish, publish, and for each member enlist, invite, receive, record, ack, fold
     */
    ck_assert_uint_eq(w->items, 3 * (4 + 6 * 4) + 1);
    ck_assert(w->disk.model[0][0] != 0.0f);
    done(w);
}
END_TEST

static void crash_before_every_item(const struct sim_conf *base, bool site)
{
    struct sim_conf conf = *base;
    struct world *reference = run(base);
    uint32_t crashes;
    uint64_t n = 0;

    do {
        /* Other delays each time, or a crash would always meet the same things in flight. */
        conf.seed = ++n;
        *(site ? &conf.site_crash_at : &conf.coordinator_crash_at) = n;
        struct world *w = run(&conf);
        crashes = w->crashes + w->site_crashes;
        same_models(w, reference);
        done(w);
    } while (crashes > 0);
    ck_assert_uint_gt(n, 80);
    done(reference);
}

START_TEST(test_coordinator_crashes_before_every_item)
{
    crash_before_every_item(&all_of_four, false);
}
END_TEST

START_TEST(test_site_crashes_before_every_item)
{
    crash_before_every_item(&all_of_four, true);
}
END_TEST

START_TEST(test_two_exchanges_and_a_crash_before_every_item)
{
    struct sim_conf conf = all_of_four;

    conf.exchanges = 2;
    conf.same_cohort = true;
    crash_before_every_item(&conf, false);
    crash_before_every_item(&conf, true);
    conf.same_cohort = false;
    crash_before_every_item(&conf, false);
}
END_TEST

/* FedCAC: each agent fetches a model of its own, which its update depends on. */
START_TEST(test_personal_models_and_a_crash_before_every_item)
{
    struct sim_conf conf = all_of_four;

    conf.strategy = "fedcac";
    struct world *w = run(&conf);
    ck_assert_uint_eq(w->disk.models, 5);
    ck_assert_mem_ne(w->disk.model[1], w->disk.model[0], sizeof w->disk.model[1]);
    ck_assert_mem_ne(w->disk.model[1], w->disk.model[3], sizeof w->disk.model[1]);
    done(w);
    crash_before_every_item(&conf, false);
    crash_before_every_item(&conf, true);
}
END_TEST

/* Bubbles that part after the first round: from then on each agent fetches its bubble's model. */
START_TEST(test_bubbles_and_a_crash_before_every_item)
{
    struct sim_conf conf = all_of_four;

    conf.strategy = "flhc";
    struct world *w = run(&conf);
    ck_assert_uint_gt(w->disk.models, 1);
    ck_assert_mem_ne(w->disk.model[1], w->disk.model[0], sizeof w->disk.model[1]);
    done(w);
    crash_before_every_item(&conf, false);
    crash_before_every_item(&conf, true);
}
END_TEST

/* Buffers of two, all four at work: two rounds begin without those who are at work for an earlier
 * one. How much each weighs depends on when it comes, so there is no one right model; that every
 * acknowledged update is in exactly one published sum is the laws' to check. */
static void crash_buffers(bool site)
{
    struct sim_conf conf = all_of_four;
    uint32_t crashes, stale = 0;
    uint64_t n = 0;

    conf.strategy = "fedbuff";
    conf.buffer = conf.quorum = 2;
    conf.staleness = 2;
    conf.rounds = 6;
    do {
        conf.seed = ++n;
        *(site ? &conf.site_crash_at : &conf.coordinator_crash_at) = n;
        struct world *w = run(&conf);
        ck_assert_uint_eq(w->disk.published, 6);
        crashes = w->crashes + w->site_crashes;
        stale += w->stale;
        done(w);
    } while (crashes > 0);
    ck_assert_uint_gt(n, 80);
    ck_assert_uint_gt(stale, n / 2);
}

START_TEST(test_buffers_and_a_crash_before_every_item)
{
    crash_buffers(false);
    crash_buffers(true);
}
END_TEST

/* Everything at once, a little of each, by the seed. */
static struct sim_conf random_conf(uint64_t seed)
{
    struct sim_conf c = {.seed = seed, .attempts = 3, .faults_max = 60};
    struct fl_seed s;
    struct fl_rng rng;

    fl_seed_from_u64(seed ^ 0x51b, &s);
    fl_rng_init(&rng, &s, 0);
    c.sites = 2 + (uint32_t)fl_rng_below(&rng, SITES_MAX - 1);
    c.rounds = 1 + (uint32_t)fl_rng_below(&rng, 5);
    c.exchanges = 1 + (uint32_t)fl_rng_below(&rng, 2);
    c.deadline_ms = 600 + fl_rng_below(&rng, fl_rng_below(&rng, 2) ? 1000 : 20000);
    c.same_cohort = fl_rng_below(&rng, 2);
    if (fl_rng_below(&rng, 2)) { /* all or nothing: the model must be that of a calm world */
        c.members = c.quorum = c.sites;
    } else {
        c.members = 1 + (uint32_t)fl_rng_below(&rng, c.sites);
        c.quorum = 1 + (uint32_t)fl_rng_below(&rng, c.members);
        c.over_select = (uint32_t)fl_rng_below(&rng, c.sites - c.members + 1);
        c.declines = (uint32_t)fl_rng_below(&rng, 200000);
    }
    uint32_t *const chance[] = {&c.breaks, &c.coordinator_crashes, &c.site_crashes, &c.disk_full,
                                &c.damage, &c.fold_fails,          &c.pauses};
    for (size_t i = 0; i < FL_COUNT(chance); i++) {
        *chance[i] = fl_rng_below(&rng, 3) ? (uint32_t)fl_rng_below(&rng, 30000) : 0;
    }
    static const char *const strategies[] = {NULL, "fedcac", "flhc"};
    c.strategy = c.exchanges == 1 ? strategies[fl_rng_below(&rng, 3)] : NULL;
    if (c.exchanges == 1 && c.quorum < c.members && fl_rng_below(&rng, 2)) {
        c.strategy = "fedbuff";
        c.buffer = c.quorum + (uint32_t)fl_rng_below(&rng, c.members - c.quorum + 1);
        c.staleness = 1 + (uint32_t)fl_rng_below(&rng, 3);
        c.over_select = 0;
    }
    c.weather = fl_rng_below(&rng, 3) ? (uint32_t)fl_rng_below(&rng, 500000) : 0;
    return c;
}

/* What happened in all of them together. */
static uint64_t did[FL_ROUND_DO_DONE + 1], crashes, site_crashes, late_acks, stale;

static void run_seed(uint64_t seed, bool trace)
{
    struct sim_conf conf = random_conf(seed);

    conf.trace = trace;
    struct world *w = run(&conf);
    for (size_t i = 0; i <= FL_ROUND_DO_DONE; i++) {
        did[i] += w->did[i];
    }
    crashes += w->crashes;
    site_crashes += w->site_crashes;
    late_acks += w->late_acks;
    stale += w->stale;
    if (conf.quorum == conf.sites) {
        struct sim_conf calm = conf;
        calm.faults_max = 0;
        calm.trace = false;
        struct world *reference = run(&calm);
        same_models(w, reference);
        done(reference);
    }
    done(w);
}

START_TEST(test_random_federations)
{
    const char *one = getenv("SIM_SEED"), *many = getenv("SIM_SEEDS");
    uint64_t count = many ? strtoull(many, NULL, 10) : 1500;

    if (one) {
        run_seed(strtoull(one, NULL, 10), true);
        return;
    }
    for (uint64_t seed = 1; seed <= count; seed++) {
        run_seed(seed, false);
    }
    /* The worlds were bad enough to mean something. */
    ck_assert_uint_ge(crashes, count);
    ck_assert_uint_ge(site_crashes, count);
    ck_assert_uint_ge(late_acks, count / 50);
    ck_assert_uint_ge(stale, count / 20);
    for (size_t i = 0; i <= FL_ROUND_DO_DONE; i++) {
        ck_assert_msg(did[i] >= count / 10, "item %zu came only %" PRIu64 " times", i, did[i]);
    }
}
END_TEST

TESTS_MAIN("sim", test_nothing_goes_wrong, test_coordinator_crashes_before_every_item,
           test_site_crashes_before_every_item, test_two_exchanges_and_a_crash_before_every_item,
           test_personal_models_and_a_crash_before_every_item,
           test_bubbles_and_a_crash_before_every_item, test_buffers_and_a_crash_before_every_item,
           test_random_federations)
