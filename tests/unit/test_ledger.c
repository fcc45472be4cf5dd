#include "client/core/ledger_receipts.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"
#include "tests/lib/fault_vfs.h"

#include <fcntl.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t owner[32] = {1, 2, 3}, other_owner[32] = {9};
static const struct fl_budget client_budget = {.unit = FL_UNIT_CLIENT, .epsilon = 4, .delta = 1e-5};
static const struct fl_budget no_budget = {.unit = FL_UNIT_NONE, .epsilon = 0, .delta = 0};

static char folder[64], path[96];
static struct fl_ledger *l;
static struct fl_err e;

#define ck_ok(call)                                                                                \
    do {                                                                                           \
        int r_ = (call);                                                                           \
        ck_assert_msg(r_ == 0, "%s: %d %s", #call, r_, e.msg);                                     \
    } while (0)

static void shut(void)
{
    fl_ledger_close(l);
    l = NULL;
}

static void reopen(void)
{
    shut();
    ck_ok(fl_ledger_open(path, owner, &l, &e));
}

static void fresh(void)
{
    shut();
    fault_vfs_register();
    if (!folder[0]) {
        /* In memory where that can be: what is durable is the fault VFS's business here. */
        snprintf(folder, sizeof folder, "%s/cohort-ledger-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        ck_assert_ptr_nonnull(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/ledger.db", folder);
    }
    const char *ends[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < FL_COUNT(ends); i++) {
        char file[128];
        snprintf(file, sizeof file, "%s%s", path, ends[i]);
        unlink(file);
    }
    ck_ok(fl_ledger_open(path, owner, &l, &e));
}

static struct fl_key key_of(uint64_t round)
{
    return (struct fl_key){.incarnation = {7}, .round = round};
}

static struct fl_digest digest_of(const char *text, uint64_t number)
{
    char all[64];
    struct fl_digest d;

    fl_digest_of(
        all, (size_t)snprintf(all, sizeof all, "%s %llu", text, (unsigned long long)number), &d);
    return d;
}

static struct fl_intent_inputs inputs_of(uint64_t round)
{
    return (struct fl_intent_inputs){digest_of("plan", 0), digest_of("base", round),
                                     digest_of("data", 1), digest_of("private", round)};
}

static struct fl_release release_of(uint64_t round, double sigma)
{
    struct fl_release r = {.key = key_of(round),
                           .job = "fmnist",
                           .coordinator = {5, 6},
                           .unit = FL_UNIT_CLIENT,
                           .event = {.q = 1, .sigma = sigma, .count = 1},
                           .data = digest_of("data", 1),
                           .update = digest_of("update", round),
                           .size = 1000 + round,
                           .private_state = digest_of("private", round + 1),
                           .norm_before = 2.5,
                           .clip = 1,
                           .noise_std = sigma,
                           .saturated = 3};
    return r;
}

/* Intent and debit of one round. */
static int spend(uint64_t round, double sigma, const struct fl_budget *budget)
{
    struct fl_release r = release_of(round, sigma);
    struct fl_key key = key_of(round);
    struct fl_intent_inputs in = inputs_of(round);
    struct fl_seed seed;
    int result = fl_ledger_intent(l, &key, &in, 10 * round, &seed, &e);

    return result < 0 ? result : fl_ledger_debit(l, budget, &r, 10 * round + 1, &e);
}

/* ---- intents ---- */

START_TEST(test_an_intent_gives_the_same_seed_for_the_same_inputs_only)
{
    struct fl_key key = key_of(1), second = key_of(2);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed = {{0}}, again = {{0}}, zero = {{0}};

    fresh();
    ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    ck_assert_mem_ne(&seed, &zero, sizeof seed);
    reopen();
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &again, &e));
    ck_assert_mem_eq(&seed, &again, sizeof seed);
    ck_ok(fl_ledger_intent(l, &second, &in, 3, &again, &e));
    ck_assert_mem_ne(&seed, &again, sizeof seed);

    struct fl_digest *fields[] = {&in.plan, &in.base, &in.data, &in.private_state};
    const char *names[] = {"job description", "base model", "data set", "private state"};
    for (size_t i = 0; i < FL_COUNT(fields); i++) {
        in = inputs_of(1);
        fields[i]->bytes[31] ^= 1;
        again = zero;
        ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 4, &again, &e), -FL_R_INTENT);
        ck_assert_ptr_nonnull(strstr(e.msg, names[i]));
        ck_assert_mem_eq(&again, &zero, sizeof again);
    }
    ck_ok(fl_ledger_verify(l, &e));
    shut();
}
END_TEST

START_TEST(test_prepared_seeds_are_bound_by_the_first_intent)
{
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed laid, got, other;

    fresh();
    fl_seed_from_u64(1, &laid);
    fl_seed_from_u64(2, &other);
    ck_ok(fl_ledger_prepare(l, &key, &laid, 1, &e));
    ck_ok(fl_ledger_prepare(l, &key, &laid, 1, &e));
    ck_assert_int_eq(fl_ledger_prepare(l, &key, &other, 1, &e), -FL_R_INTENT);
    reopen();
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &got, &e));
    ck_assert_mem_eq(&got, &laid, sizeof got);
    in.base.bytes[0] ^= 1;
    ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 2, &got, &e), -FL_R_INTENT);
    /* An intent that is there has its seed: nothing can be laid in any more. */
    key.round = 2;
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &got, &e));
    ck_assert_int_eq(fl_ledger_prepare(l, &key, &laid, 3, &e), -FL_R_INTENT);
    ck_ok(fl_ledger_prepare(l, &key, &got, 3, &e));
    shut();
}
END_TEST

/* ---- releases ---- */

static int count_release(void *arg, const struct fl_release *r, uint64_t wall_ms, bool acknowledged)
{
    uint64_t *seen = arg;

    seen[0]++;
    seen[1] += acknowledged;
    seen[2] += wall_ms;
    seen[3] += r->size;
    return r->key.round == 99;
}

START_TEST(test_a_release_is_found_whole_and_only_once)
{
    struct fl_release r = release_of(1, 8), got;
    struct fl_key key = key_of(1);
    struct fl_digest d;
    uint64_t round = 0, seen[4] = {0};

    fresh();
    ck_assert_int_eq(fl_ledger_find(l, &key, &got, &e), 0);
    ck_assert_int_eq(fl_ledger_private(l, key.incarnation, &d, &round, &e), 0);
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(spend(2, 8, &client_budget));
    reopen();
    memset(&got, 0, sizeof got);
    ck_assert_int_eq(fl_ledger_find(l, &key, &got, &e), 1);
    ck_assert_str_eq(got.job, "fmnist");
    ck_assert_mem_eq(got.coordinator, r.coordinator, 16);
    ck_assert_int_eq(got.unit, r.unit);
    ck_assert_double_eq(got.event.sigma, 8);
    ck_assert_double_eq(got.event.q, 1);
    ck_assert_uint_eq(got.event.count, 1);
    ck_assert(fl_digest_equal(&got.data, &r.data));
    ck_assert(fl_digest_equal(&got.update, &r.update));
    ck_assert(fl_digest_equal(&got.private_state, &r.private_state));
    ck_assert_uint_eq(got.size, r.size);
    ck_assert_double_eq(got.norm_before, 2.5);
    ck_assert_double_eq(got.noise_std, 8);
    ck_assert_uint_eq(got.saturated, 3);
    ck_assert(fl_key_equal(&got.key, &key));
    ck_assert_int_eq(fl_ledger_private(l, key.incarnation, &d, &round, &e), 1);
    ck_assert_uint_eq(round, 2);
    struct fl_digest want = digest_of("private", 3);
    ck_assert(fl_digest_equal(&d, &want));

    ck_ok(fl_ledger_debit(l, &client_budget, &r, 77, &e)); /* the same again */
    r.update.bytes[5] ^= 1;
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 77, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "another update"));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    ck_assert_uint_eq(seen[0], 2);
    ck_assert_uint_eq(seen[1], 0);
    ck_assert_uint_eq(seen[2], 11 + 21);
    ck_assert_uint_eq(seen[3], 1001 + 1002);
    shut();
}
END_TEST

START_TEST(test_no_release_without_its_intent_and_its_data)
{
    struct fl_release r = release_of(1, 8);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;

    fresh();
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 1, &e), -FL_R_INTENT);
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    r.data.bytes[0] ^= 1;
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 1, &e), -FL_R_INTENT);
    r.data.bytes[0] ^= 1;
    ck_ok(fl_ledger_debit(l, &client_budget, &r, 1, &e));
    shut();
}
END_TEST

START_TEST(test_acknowledging_erases_the_seed)
{
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;
    uint64_t seen[4] = {0};

    fresh();
    ck_assert_int_eq(fl_ledger_acknowledged(l, &key, 1, &e), -FL_R_LEDGER);
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &seed, &e)); /* may still be repeated */
    ck_ok(fl_ledger_acknowledged(l, &key, 3, &e));
    ck_ok(fl_ledger_acknowledged(l, &key, 4, &e));
    ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 5, &seed, &e), -FL_R_INTENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "acknowledged"));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    ck_assert_uint_eq(seen[1], 1);
    shut();
    /* Nowhere in the file. */
    FILE *f = fopen(path, "rb");
    static uint8_t bytes[1 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    ck_assert_uint_gt(size, 4096);
    ck_assert_ptr_null(memmem(bytes, size, seed.bytes, 8));
}
END_TEST

/* ---- the budget ---- */

START_TEST(test_the_budget_is_kept_to_the_last_round_over_jobs_and_restarts)
{
    double sigma = NAN, epsilon = NAN;
    struct fl_digest data = digest_of("data", 1), data2 = digest_of("data", 2);
    enum fl_bound bound;

    fresh();
    ck_ok(fl_sigma_for(4, 1e-5, 1, 10, &sigma, &e));
    for (uint64_t round = 1; round <= 10; round++) {
        ck_ok(spend(round, sigma, &client_budget));
        if (round == 5) {
            reopen();
        }
    }
    ck_assert_int_eq(spend(11, sigma, &client_budget), -FL_R_BUDGET_SPENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "of the 4 that this site allows"));
    ck_assert_ptr_nonnull(strstr(e.msg, "unit client"));
    struct fl_event event = {.q = 1, .sigma = sigma, .count = 1};
    ck_assert_int_eq(fl_ledger_allows(l, &client_budget, "another job", FL_UNIT_CLIENT, false,
                                      &event, &data, &e),
                     -FL_R_BUDGET_SPENT);
    /* It is the site that is protected: other data of it have no other budget. */
    ck_assert_int_eq(fl_ledger_allows(l, &client_budget, "another job", FL_UNIT_CLIENT, false,
                                      &event, &data2, &e),
                     -FL_R_BUDGET_SPENT);
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &e));
    ck_assert_double_le(epsilon, 4);
    ck_assert_double_ge(epsilon, 4 * (1 - 1e-6));
    ck_assert_int_eq(bound, FL_BOUND_EXACT_GAUSSIAN);
    double of_site = epsilon;
    ck_ok(fl_ledger_spent(l, &data2, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &e));
    ck_assert_double_eq(epsilon, of_site);
    /* A release that exists is repeated although the budget is spent. */
    struct fl_release r = release_of(10, sigma);
    ck_ok(fl_ledger_debit(l, &client_budget, &r, 1, &e));
    shut();
}
END_TEST

START_TEST(test_many_kinds_of_events_add_up)
{
    struct fl_event events[40];
    struct fl_digest data = digest_of("data", 1);
    double want = NAN, got = NAN;
    enum fl_bound bound;

    fresh();
    for (uint64_t i = 0; i < 40; i++) {
        struct fl_release r = release_of(i + 1, 0);
        struct fl_intent_inputs in = inputs_of(i + 1);
        struct fl_seed seed;
        r.unit = FL_UNIT_EXAMPLE;
        r.event = (struct fl_event){
            .q = 0.01 * (double)(1 + i % 3), .sigma = 2 + (double)(i % 7), .count = 1 + i % 5};
        events[i] = r.event;
        ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
        struct fl_budget budget = {.unit = FL_UNIT_EXAMPLE, .epsilon = 8, .delta = 1e-5};
        ck_ok(fl_ledger_debit(l, &budget, &r, 1, &e));
    }
    ck_ok(fl_epsilon(events, 40, 1e-5, &want, &bound, &e));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_EXAMPLE, false, 1e-5, &got, &bound, &e));
    ck_assert_double_eq_tol(got / want, 1, 1e-12);
    shut();
}
END_TEST

START_TEST(test_units_do_not_mix)
{
    struct fl_digest data = digest_of("data", 1);
    struct fl_event event = {.q = 1, .sigma = 8, .count = 1}, none = {.q = 1};
    struct fl_budget example = {.unit = FL_UNIT_EXAMPLE, .epsilon = 4, .delta = 1e-5};
    double epsilon = NAN;
    enum fl_bound bound;

    fresh();
    ck_assert_int_eq(fl_ledger_allows(l, &example, "j", FL_UNIT_CLIENT, false, &event, &data, &e),
                     -FL_R_POLICY_NOISE);
    ck_assert_int_eq(fl_ledger_allows(l, &example, "j", FL_UNIT_NONE, false, &none, &data, &e),
                     -FL_R_POLICY_NOISE);
    ck_ok(fl_ledger_allows(l, &no_budget, "j", FL_UNIT_NONE, false, &none, &data, &e));
    ck_ok(fl_ledger_allows(l, &no_budget, "j", FL_UNIT_CLIENT, false, &event, &data, &e));
    ck_assert_int_eq(
        fl_ledger_allows(l, &client_budget, "j", FL_UNIT_CLIENT, false, &none, &data, &e),
        -FL_R_ACCOUNTING); /* a claim that costs nothing */
    ck_ok(spend(1, 8, &no_budget));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &e));
    ck_assert(isfinite(epsilon) && epsilon > 0);
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_EXAMPLE, false, 1e-5, &epsilon, &bound, &e));
    ck_assert(isinf(epsilon));
    ck_assert_int_eq(fl_ledger_allows(l, &example, "j", FL_UNIT_EXAMPLE, false, &event, &data, &e),
                     -FL_R_POLICY_NOISE);
    ck_assert_ptr_nonnull(strstr(e.msg, "under unit `client`"));
    /* Without noise, no epsilon ever. */
    struct fl_release r = release_of(2, 0);
    struct fl_intent_inputs in = inputs_of(2);
    struct fl_seed seed;
    r.unit = FL_UNIT_NONE;
    r.event = none;
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    ck_ok(fl_ledger_debit(l, &no_budget, &r, 1, &e));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &e));
    ck_assert(isinf(epsilon));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_NONE, false, 1e-5, &epsilon, &bound, &e));
    ck_assert(isinf(epsilon));
    shut();
}
END_TEST

/* Updates that went out without noise, because the coordinator adds it: an epsilon against it is
 * gone, one against everybody else is not. */
START_TEST(test_a_coordinator_trusted_with_the_noise)
{
    const struct fl_budget trusting = {
        .unit = FL_UNIT_CLIENT, .epsilon = 4, .delta = 1e-5, .noise = FL_NOISE_CENTRAL};
    struct fl_release r = release_of(1, 8), found = {.size = 0};
    struct fl_event event = {.q = 1, .sigma = 8, .count = 1};
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;
    double epsilon;
    enum fl_bound bound;

    fresh();
    r.noise = FL_NOISE_CENTRAL;
    r.noise_std = 0;
    ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 2, &e), -FL_R_POLICY_NOISE);
    ck_assert_ptr_nonnull(strstr(e.msg, "leaves the noise to the coordinator"));
    ck_ok(fl_ledger_debit(l, &trusting, &r, 2, &e));
    reopen();
    ck_assert_int_eq(fl_ledger_find(l, &key, &found, &e), 1);
    ck_assert_int_eq(found.noise, FL_NOISE_CENTRAL);
    ck_ok(fl_ledger_spent(l, &r.data, FL_UNIT_CLIENT, true, 1e-5, &epsilon, &bound, &e));
    ck_assert_double_eq_tol(epsilon, 0.4342, 1e-3); /* one Gaussian of sigma 8 */
    ck_ok(fl_ledger_spent(l, &r.data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &e));
    ck_assert(isinf(epsilon));
    /* A site that trusts nobody any more cannot have its epsilon back for these data. */
    ck_assert_int_eq(
        fl_ledger_allows(l, &client_budget, "j", FL_UNIT_CLIENT, false, &event, &r.data, &e),
        -FL_R_POLICY_NOISE);
    ck_assert_ptr_nonnull(strstr(e.msg, "1 updates of these data went to a coordinator"));
    /* Noise at the source is good enough for the one that does. */
    ck_ok(fl_ledger_allows(l, &trusting, "j", FL_UNIT_CLIENT, false, &event, &r.data, &e));
    ck_ok(fl_ledger_allows(l, &trusting, "j", FL_UNIT_CLIENT, true, &event, &r.data, &e));
    event.sigma = 0.5;
    ck_assert_int_eq(fl_ledger_allows(l, &trusting, "j", FL_UNIT_CLIENT, true, &event, &r.data, &e),
                     -FL_R_BUDGET_SPENT);
    shut();
}
END_TEST

/* Rounds 1 to 4 are a tree, 5 to 8 the next: one participation in each, whoever asks. */
START_TEST(test_a_tree_takes_a_site_once)
{
    const struct fl_budget trusting = {
        .unit = FL_UNIT_CLIENT, .epsilon = 100, .delta = 1e-5, .noise = FL_NOISE_CENTRAL};
    const struct fl_event tree = {
        .q = 1, .sigma = 3, .count = 1, .mechanism = FL_MECHANISM_TREE, .a = 4};
    static const struct {
        uint64_t round;
        int answer;
    } story[] = {{2, 0},
                 {2, 0},
                 {1, -FL_R_PARTICIPATION},
                 {4, -FL_R_PARTICIPATION},
                 {8, 0},
                 {5, -FL_R_PARTICIPATION},
                 {9, 0}};
    struct fl_key other = {.incarnation = {8}, .round = 1};
    struct fl_seed seed;
    double epsilon;
    enum fl_bound bound;

    fresh();
    for (size_t i = 0; i < FL_COUNT(story); i++) {
        struct fl_release r = release_of(story[i].round, 3);
        struct fl_intent_inputs in = inputs_of(story[i].round);
        r.event = tree;
        r.noise = FL_NOISE_CENTRAL;
        ck_assert_int_eq(fl_ledger_participates(l, &r.key, &tree, &e), story[i].answer);
        ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
        ck_assert_msg(fl_ledger_debit(l, &trusting, &r, 2, &e) == story[i].answer, "round %llu: %s",
                      (unsigned long long)story[i].round, e.msg);
        reopen();
    }
    ck_assert_int_eq(
        fl_ledger_participates(l, &(struct fl_key){.incarnation = {7}, .round = 6}, &tree, &e),
        -FL_R_PARTICIPATION);
    ck_assert_ptr_nonnull(strstr(e.msg, "rounds 5 to 8, of which this site was in round 8"));
    ck_ok(fl_ledger_participates(l, &other, &tree, &e)); /* of another job */
    /* Three trees of ceil(log2 5) = 3 levels: one Gaussian of sigma 3 / sqrt(9) = 1. */
    struct fl_release r = release_of(2, 3);
    ck_ok(fl_ledger_spent(l, &r.data, FL_UNIT_CLIENT, true, 1e-5, &epsilon, &bound, &e));
    ck_assert_double_eq_tol(epsilon, 4.3772, 1e-3);
    shut();
}
END_TEST

START_TEST(test_an_update_of_no_bytes_costs_nothing)
{
    struct fl_release r = release_of(1, 0);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_event event = {.q = 1, .sigma = 8, .count = 1};
    struct fl_digest data = digest_of("data", 1);
    struct fl_seed seed;
    double epsilon = NAN;
    enum fl_bound bound;

    fresh();
    r.unit = FL_UNIT_NONE;
    r.event = (struct fl_event){.q = 1};
    r.size = 0;
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    ck_ok(fl_ledger_debit(l, &no_budget, &r, 1, &e));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &e));
    ck_assert_double_eq(epsilon, 0);
    ck_ok(fl_ledger_allows(l, &client_budget, "j", FL_UNIT_CLIENT, false, &event, &data, &e));
    shut();
}
END_TEST

START_TEST(test_withdrawal_stops_at_once)
{
    struct fl_digest data = digest_of("data", 1);
    struct fl_event event = {.q = 1, .sigma = 8, .count = 1};
    struct fl_seed seed;
    bool withdrawn = true;

    fresh();
    ck_ok(fl_ledger_withdrawn(l, "fmnist", &withdrawn, &e));
    ck_assert(!withdrawn);
    struct fl_release r = release_of(1, 8);
    struct fl_intent_inputs in = inputs_of(1);
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    ck_ok(fl_ledger_withdraw(l, "fmnist", true, 1, &e));
    reopen();
    ck_ok(fl_ledger_withdrawn(l, "fmnist", &withdrawn, &e));
    ck_assert(withdrawn);
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 2, &e), -FL_R_WITHDRAWN);
    ck_assert_int_eq(
        fl_ledger_allows(l, &client_budget, "fmnist", FL_UNIT_CLIENT, false, &event, &data, &e),
        -FL_R_WITHDRAWN);
    ck_ok(fl_ledger_allows(l, &client_budget, "other", FL_UNIT_CLIENT, false, &event, &data, &e));
    ck_ok(fl_ledger_withdraw(l, "*", true, 3, &e));
    ck_assert_int_eq(
        fl_ledger_allows(l, &client_budget, "other", FL_UNIT_CLIENT, false, &event, &data, &e),
        -FL_R_WITHDRAWN);
    ck_ok(fl_ledger_withdraw(l, "fmnist", false, 4, &e));
    ck_ok(fl_ledger_withdrawn(l, "fmnist", &withdrawn, &e));
    ck_assert(withdrawn); /* "*" still stands */
    ck_ok(fl_ledger_withdraw(l, "*", false, 5, &e));
    ck_ok(fl_ledger_debit(l, &client_budget, &r, 6, &e));
    shut();
}
END_TEST

/* ---- the file ---- */

/* SQL on the closed file, as somebody with another program would. */
static void tamper(const char *sql)
{
    sqlite3 *db;
    char *why = NULL;

    shut();
    ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    int rc = sqlite3_exec(db, sql, NULL, NULL, &why);
    ck_assert_msg(rc == SQLITE_OK, "%s: %s", sql, why ? why : "");
    sqlite3_close(db);
}

static void refused(const char *expected, int code)
{
    struct fl_ledger *none = NULL;

    shut();
    memset(&e, 0, sizeof e);
    int r = fl_ledger_open(path, owner, &none, &e);
    ck_assert_msg(r == code, "for \"%s\" the answer is %d: %s", expected, r, e.msg);
    ck_assert_ptr_null(none);
    ck_assert_msg(strstr(e.msg, expected) != NULL, "\"%s\" does not say \"%s\"", e.msg, expected);
    ck_assert_msg(strstr(e.msg, path) != NULL, "\"%s\" does not name the file", e.msg);
}

START_TEST(test_every_change_of_an_entry_breaks_the_chain)
{
    const char *changes[] = {
        "UPDATE entry SET sigma = 100 WHERE kind = 3 AND round = 2",
        "UPDATE entry SET count = 0 WHERE seq = 2",
        "UPDATE entry SET wall_ms = wall_ms + 1 WHERE seq = 1",
        "UPDATE entry SET job = 'x' WHERE seq = 4",
        "UPDATE entry SET q = NULL WHERE seq = 2",
        "UPDATE entry SET chain = zeroblob(32) WHERE seq = 6",
        "UPDATE entry SET chain = x'00' WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 1",
        "UPDATE entry SET seq = 20 WHERE seq = 6",
        "UPDATE entry SET data = zeroblob(32) WHERE kind = 3",
    };

    for (size_t i = 0; i < FL_COUNT(changes); i++) {
        fresh();
        for (uint64_t round = 1; round <= 3; round++) {
            ck_ok(spend(round, 8, &client_budget));
        }
        ck_ok(fl_ledger_verify(l, &e));
        tamper(changes[i]);
        refused("was changed", -FL_R_LEDGER);
    }
}
END_TEST

START_TEST(test_a_rolled_back_file_has_another_head)
{
    struct fl_digest before, after;
    uint64_t n = 0;

    fresh();
    ck_ok(fl_ledger_head(l, &n, &before, &e));
    ck_assert_uint_eq(n, 0);
    ck_assert(fl_digest_is_zero(&before));
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(spend(2, 8, &client_budget));
    ck_ok(fl_ledger_head(l, &n, &before, &e));
    ck_assert_uint_eq(n, 4);
    tamper("DELETE FROM entry WHERE seq > 2");
    reopen(); /* a shorter chain is a sound chain: only somebody who remembers the head can tell */
    ck_ok(fl_ledger_head(l, &n, &after, &e));
    ck_assert_uint_eq(n, 2);
    ck_assert(!fl_digest_equal(&before, &after));
    shut();
}
END_TEST

/* The same story as a coordinator tells it: what it has seen is echoed. */
START_TEST(test_an_old_copy_does_not_hold_the_echo)
{
    const uint8_t coordinator[16] = {5, 6}, another[16] = {8};
    struct fl_ledger_mark none = {0}, first, second, now;

    fresh();
    ck_ok(fl_ledger_mark(l, coordinator, &now, &e));
    ck_assert_uint_eq(now.releases, 0);
    ck_ok(fl_ledger_holds(l, coordinator, &none, &e));
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(fl_ledger_mark(l, coordinator, &first, &e));
    ck_assert_uint_eq(first.releases, 1);
    ck_ok(spend(2, 8, &client_budget));
    struct fl_key key = key_of(2);
    ck_ok(fl_ledger_acknowledged(l, &key, 99, &e)); /* other entries do not count */
    ck_ok(fl_ledger_mark(l, coordinator, &second, &e));
    ck_assert_uint_eq(second.releases, 2);
    ck_assert(!fl_digest_equal(&first.head, &second.head));
    ck_ok(fl_ledger_mark(l, another, &now, &e));
    ck_assert_uint_eq(now.releases, 0);
    /* An echo from any time before is held, also after a restart. */
    reopen();
    ck_ok(fl_ledger_holds(l, coordinator, &first, &e));
    ck_ok(fl_ledger_holds(l, coordinator, &second, &e));
    /* Of another coordinator, of a future, or with another digest it is not. */
    ck_assert_int_eq(fl_ledger_holds(l, another, &first, &e), -FL_R_LEDGER);
    now = second;
    now.releases = 3;
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &now, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "holds 2 releases"));
    now.releases = UINT64_MAX;
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &now, &e), -FL_R_MSG_FIELD);
    now = second;
    now.releases = 1;
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &now, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "another history"));
    /* The copy from before round 2, a sound chain in itself; then spent again on something else. */
    tamper("DELETE FROM entry WHERE seq > 2; DELETE FROM seed");
    reopen();
    ck_ok(fl_ledger_verify(l, &e));
    ck_ok(fl_ledger_holds(l, coordinator, &first, &e));
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &second, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "old copy"));
    ck_ok(spend(7, 8, &client_budget));
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &second, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "another history"));
    shut();
}
END_TEST

/* The chain as the documentation states it, computed from what is exported. */
struct recomputed {
    struct fl_digest head;
    uint64_t entries;
};

static void put_u64(struct fl_hash *h, uint64_t v)
{
    uint8_t le[8];

    for (int i = 0; i < 8; i++) {
        le[i] = (uint8_t)(v >> (8 * i));
    }
    fl_hash_add(h, le, sizeof le);
}

static int recompute(void *arg, const struct fl_ledger_column *c, int count)
{
    struct recomputed *to = arg;
    struct fl_hash h;
    uint64_t bits;

    fl_hash_init(&h);
    fl_hash_add(&h, to->head.bytes, sizeof to->head.bytes);
    for (int i = 0; i < count - 1; i++) {
        static const uint64_t types[] = {[FL_LEDGER_NONE] = 5,
                                         [FL_LEDGER_COUNT] = 1,
                                         [FL_LEDGER_REAL] = 2,
                                         [FL_LEDGER_TEXT] = 3,
                                         [FL_LEDGER_BYTES] = 4};
        put_u64(&h, types[c[i].type]);
        if (c[i].type == FL_LEDGER_COUNT) {
            put_u64(&h, (uint64_t)c[i].count);
        } else if (c[i].type == FL_LEDGER_REAL) {
            memcpy(&bits, &c[i].real, sizeof bits);
            put_u64(&h, bits);
        } else if (c[i].type != FL_LEDGER_NONE) {
            put_u64(&h, c[i].size);
            if (c[i].size) {
                fl_hash_add(&h, c[i].data, c[i].size);
            }
        }
    }
    fl_hash_end(&h, &to->head);
    ck_assert_str_eq(c[0].name, "seq");
    ck_assert_int_eq(c[0].count, (int64_t)++to->entries);
    ck_assert_str_eq(c[count - 1].name, "chain");
    ck_assert_mem_eq(c[count - 1].data, to->head.bytes, sizeof to->head.bytes);
    return 0;
}

START_TEST(test_an_export_can_be_checked_by_anybody)
{
    struct recomputed mine = {.entries = 0};
    struct fl_digest head;
    uint64_t n = 0;

    fresh();
    for (uint64_t round = 1; round <= 5; round++) {
        ck_ok(spend(round, 20, &client_budget));
    }
    ck_ok(fl_ledger_withdraw(l, "fmnist", true, 77, &e));
    fl_ledger_genesis(l, &mine.head);
    for (uint64_t after = UINT64_MAX; after != mine.entries;) { /* in pages of four */
        after = mine.entries;
        ck_ok(fl_ledger_entries(l, after, 4, recompute, &mine, &e));
    }
    ck_ok(fl_ledger_head(l, &n, &head, &e));
    ck_assert_uint_eq(n, 11);
    ck_assert_uint_eq(mine.entries, 11);
    ck_assert(fl_digest_equal(&head, &mine.head));
    shut();
}
END_TEST

START_TEST(test_a_changed_seed_is_noticed)
{
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;

    fresh();
    ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    tamper("UPDATE seed SET seed = zeroblob(32)");
    ck_ok(fl_ledger_open(path, owner, &l, &e));
    ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 2, &seed, &e), -FL_R_LEDGER);
    shut();
}
END_TEST

static void write_file(const void *bytes, size_t size, off_t at, bool cut)
{
    int fd = open(path, O_RDWR | O_CREAT | (cut ? O_TRUNC : 0), 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, size, at), (ssize_t)size);
    close(fd);
}

START_TEST(test_foreign_corrupt_and_shared_files_are_refused_untouched)
{
    static const char text[] = "this is a letter, not a ledger; it is long enough to be looked at "
                               "as the header of a database, which has one hundred bytes";
    uint8_t noise[3000];
    char back[sizeof text];

    fresh();
    ck_ok(spend(1, 8, &client_budget));
    shut();
    struct fl_ledger *none = NULL;
    ck_assert_int_eq(fl_ledger_open(path, other_owner, &none, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "belongs to another agent"));

    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    chmod(path, 0640);
    refused("chmod 600", -FL_R_FILE_MODE);
    chmod(path, 0600);

    ck_ok(fl_ledger_open(path, owner, &l, &e));
    ck_assert_int_eq(fl_ledger_open(path, owner, &none, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "in use"));
    ck_assert_int_eq(spend(2, 8, &client_budget), 0); /* the owner is not disturbed */
    shut();

    tamper("PRAGMA user_version = 2");
    refused("version 2", -FL_R_LEDGER);
    tamper("PRAGMA user_version = 1; PRAGMA application_id = 5");
    refused("another program", -FL_R_LEDGER);
    tamper("PRAGMA application_id = 1178815559; DELETE FROM meta");
    refused("names no owner", -FL_R_LEDGER);

    memset(noise, 0x5a, sizeof noise);
    fresh();
    for (uint64_t round = 1; round <= 20; round++) {
        ck_ok(spend(round, 80, &client_budget));
    }
    shut();
    write_file(noise, sizeof noise, 2 * 4096, false);
    refused("damaged", -FL_R_LEDGER);

    write_file(text, sizeof text, 0, true);
    refused("not a database", -FL_R_LEDGER);
    int fd = open(path, O_RDONLY);
    ck_assert_int_eq(read(fd, back, sizeof back), sizeof back);
    close(fd);
    ck_assert_str_eq(back, text);

    unlink(path);
    mkdir(path, 0700);
    refused("not a regular file", -FL_R_LEDGER);
    rmdir(path);
    char whole[96];
    memcpy(whole, path, sizeof whole);
    snprintf(path, sizeof path, "%s/no/such/folder", folder);
    refused("cannot be created", -FL_R_LEDGER);
    memcpy(path, whole, sizeof path);
}
END_TEST

/* In a child without privileges, whom the file's mode binds. */
START_TEST(test_a_read_only_file_is_refused)
{
    if (geteuid() != 0) {
        fresh();
        shut();
        chmod(path, 0400);
        refused("read-only", -FL_R_LEDGER);
        return;
    }
    fresh();
    shut();
    ck_assert_int_eq(chown(path, 65534, 65534), 0);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    chmod(path, 0400);
    pid_t child = fork();
    if (child == 0) {
        struct fl_ledger *none = NULL;
        bool told = seteuid(65534) == 0 && fl_ledger_open(path, owner, &none, &e) == -FL_R_LEDGER &&
                    strstr(e.msg, "read-only") != NULL;
        _exit(told ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- every failure ---- */

/* A short life; returns the first failure. */
static int live(void)
{
    struct fl_key key = key_of(1);
    int r = fl_ledger_open(path, owner, &l, &e);

    r = r < 0 ? r : spend(1, 8, &client_budget);
    r = r < 0 ? r : spend(2, 8, &client_budget);
    r = r < 0 ? r : fl_ledger_acknowledged(l, &key, 5, &e);
    r = r < 0 ? r : fl_ledger_withdraw(l, "x", true, 6, &e);
    return r;
}

/* After a failure somewhere: what is there is sound, and the same life can be lived to its end. */
static void recover(void)
{
    struct fl_release got;
    struct fl_key key = key_of(1);
    uint64_t seen[4] = {0};
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;

    shut();
    ck_ok(fl_ledger_open(path, owner, &l, &e));
    if (fl_ledger_find(l, &key, &got, &e) == 0) {
        ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    }
    struct fl_release r = release_of(1, 8);
    ck_ok(fl_ledger_debit(l, &client_budget, &r, 1, &e));
    if (fl_ledger_find(l, &(struct fl_key){.incarnation = {7}, .round = 2}, &got, &e) == 0) {
        ck_ok(spend(2, 8, &client_budget));
    }
    ck_ok(fl_ledger_acknowledged(l, &key, 5, &e));
    ck_ok(fl_ledger_verify(l, &e));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    ck_assert_uint_eq(seen[0], 2);
    ck_assert_uint_eq(seen[1], 1);
    shut();
}

static void fresh_path(void)
{
    fresh();
    shut();
    unlink(path);
}

START_TEST(test_every_failing_write_and_sync_is_reported_and_survived)
{
    uint64_t nth = 1;

    for (;; nth++) {
        fresh_path();
        fault_vfs_fail_at(nth, nth % 2 ? FAULT_VFS_FULL : FAULT_VFS_IO);
        int r = live();
        bool hit = fault_vfs_hit();
        fault_vfs_fail_at(0, FAULT_VFS_FULL);
        if (!hit) {
            ck_ok(r);
            break;
        }
        /* What fails while closing or checkpointing may go unreported: the data are in the log. */
        if (r < 0) {
            ck_assert_msg(r == -FL_R_DISK_FULL || r == -FL_R_LEDGER, "%d %s", r, e.msg);
        }
        if (r < 0 && nth % 2) {
            ck_assert_msg(r == -FL_R_DISK_FULL, "%d %s", r, e.msg);
        }
        recover();
    }
    shut();
    ck_assert_uint_gt(nth, 20);
}
END_TEST

/* A life with power that may go at any write; counts what returned. */
static int live_until_dark(struct fl_seed *seed)
{
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_release r = release_of(1, 8);
    int done = 0;

    if (fl_ledger_open(path, owner, &l, &e) < 0 || ++done == 0 ||
        fl_ledger_intent(l, &r.key, &in, 1, seed, &e) < 0 || ++done == 0 ||
        fl_ledger_debit(l, &client_budget, &r, 2, &e) < 0 || ++done == 0 ||
        fl_ledger_withdraw(l, "x", true, 3, &e) < 0 || ++done == 0 ||
        fl_ledger_acknowledged(l, &r.key, 4, &e) < 0) {
        return done;
    }
    done++;
    for (uint64_t round = 2; round < 30; round++) {
        if (spend(round, 80, &client_budget) < 0) {
            return done;
        }
        done++;
    }
    return done;
}

static void check_after_dark(int done, const struct fl_seed *seed)
{
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_key key = key_of(1);
    struct fl_release got;
    struct fl_seed again;
    bool withdrawn = false;
    uint64_t seen[4] = {0};

    ck_ok(fl_ledger_open(path, owner, &l, &e));
    ck_ok(fl_ledger_verify(l, &e));
    int found = fl_ledger_find(l, &key, &got, &e);
    ck_ok(fl_ledger_withdrawn(l, "x", &withdrawn, &e));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    if (done >= 2 && seen[1] == 0) {
        ck_ok(fl_ledger_intent(l, &key, &in, 9, &again, &e));
        ck_assert_mem_eq(seed, &again, sizeof again);
    }
    ck_assert_int_ge(found, done >= 3);
    ck_assert_int_ge(withdrawn, done >= 4);
    ck_assert_int_ge((int)seen[1], done >= 5);
    ck_assert_int_ge((int)seen[0], done >= 5 ? done - 4 : done >= 3);
    shut();
}

START_TEST(test_what_returned_survives_a_loss_of_power_at_any_write)
{
    uint64_t random = 1;
    bool dark = true;

    for (uint64_t nth = 1; dark; nth++) {
        struct fl_seed seed = {{0}};
        fresh_path();
        fault_vfs_power_on();
        fault_vfs_fail_at(nth, FAULT_VFS_POWER);
        int done = live_until_dark(&seed);
        dark = fault_vfs_hit();
        fault_vfs_fail_at(0, FAULT_VFS_POWER);
        fault_vfs_power_off();
        shut();
        fault_vfs_restore(nth % 3 ? &random : NULL);
        check_after_dark(done, &seed);
        ck_assert(dark || done == 33);
    }
}
END_TEST

START_TEST(test_every_failing_allocation_is_reported_and_survived)
{
    uint64_t nth = 1;

    /* SQLite's own, then ours. */
    fault_memory_install();
    for (;; nth++) {
        fresh_path();
        fault_memory_fail_at(nth);
        int r = live();
        bool hit = fault_memory_hit();
        fault_memory_fail_at(0);
        if (!hit) {
            ck_ok(r);
            break;
        }
        /* SQLite may do without some allocations. */
        if (r < 0) {
            ck_assert_msg(r == -FL_R_NOMEM || r == -FL_R_LEDGER, "%d %s", r, e.msg);
        }
        recover();
        nth += nth / 12; /* not every one of thousands */
    }
    shut();
    ck_assert_uint_gt(nth, 100);
    fault_memory_remove();
    for (nth = 1;; nth++) {
        fresh_path();
        fl_mem_fail_at(nth);
        int r = live();
        if (!fl_mem_fail_hit()) {
            ck_ok(r);
            break;
        }
        ck_assert_int_eq(r, -FL_R_NOMEM);
        fl_mem_fail_at(0);
        recover();
    }
    fl_mem_fail_at(0);
    shut();
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* ---- receipts ---- */

static struct fl_receipt_proof proof_of(uint64_t round)
{
    struct fl_receipt_proof p = {.receipt = {.key = key_of(round),
                                             .weight = 7,
                                             .round = round + 1,
                                             .record = digest_of("record", round),
                                             .model = digest_of("model", round)},
                                 .certificate_size = 900,
                                 .signature_size = 71};

    memset(p.certificate, 0x30, p.certificate_size);
    memset(p.signature, (int)round, p.signature_size);
    return p;
}

static uint32_t seen, kept, none;
static int see(void *arg, uint64_t number, uint64_t wall_ms, const struct fl_receipt_proof *p)
{
    struct fl_digest update = digest_of("update", p->receipt.key.round),
                     record = digest_of("record", p->receipt.key.round);

    (void)arg;
    (void)number;
    seen++;
    ck_assert_str_eq(p->receipt.job, "fmnist");
    ck_assert(fl_digest_equal(&p->receipt.update, &update));
    ck_assert_uint_eq(p->receipt.size, 1000 + p->receipt.key.round);
    ck_assert_mem_eq(p->receipt.agent, owner, sizeof p->receipt.agent);
    ck_assert_int_eq(p->reason < 0, wall_ms == 0);
    none += p->reason > 0;
    if (p->reason == 0) {
        kept++;
        ck_assert(fl_digest_equal(&p->receipt.record, &record));
        ck_assert_uint_eq(p->receipt.weight, 7);
        ck_assert_uint_eq(p->receipt.round, p->receipt.key.round + 1);
        ck_assert_uint_eq(p->certificate_size, 900);
        ck_assert_uint_eq(p->signature_size, 71);
        ck_assert_uint_eq(p->signature[70], p->receipt.key.round);
    }
    return 0;
}

START_TEST(test_receipts_are_wanted_until_they_are_kept)
{
    struct fl_receipt_proof p[2] = {proof_of(1), proof_of(2)}, later = proof_of(1);
    uint8_t coordinator[16] = {5, 6}, other[16] = {7};
    struct fl_wanted keys[2];
    struct fl_digest third = digest_of("update", 3);
    uint32_t count;

    fresh();
    for (uint64_t round = 1; round <= 3; round++) {
        ck_ok(spend(round, 8, &client_budget));
    }
    ck_ok(fl_ledger_receipts_wanted(l, coordinator, keys, 2, &count, &e));
    ck_assert_uint_eq(count, 2); /* as many as there is room for */
    ck_ok(fl_ledger_receipts_wanted(l, other, keys, 2, &count, &e));
    ck_assert_uint_eq(count, 0);
    p[1].reason = FL_R_NOT_MEMBER;
    ck_ok(fl_ledger_receipts_keep(l, p, 2, 77, &e));
    later.receipt.weight = 8; /* what is kept stays as it is */
    ck_ok(fl_ledger_receipts_keep(l, &later, 1, 78, &e));
    reopen();
    ck_ok(fl_ledger_receipts_wanted(l, coordinator, keys, 2, &count, &e));
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(keys[0].key.round, 3);
    ck_assert(fl_digest_equal(&keys[0].update, &third));
    seen = kept = none = 0;
    ck_ok(fl_ledger_receipts_each(l, 0, 100, see, NULL, &e));
    ck_assert(seen == 3 && kept == 1 && none == 1);
    ck_ok(fl_ledger_verify(l, &e)); /* they are beside the chain */
    fl_ledger_close(l);
    l = NULL;
}
END_TEST

TESTS_MAIN("ledger", test_an_intent_gives_the_same_seed_for_the_same_inputs_only,
           test_prepared_seeds_are_bound_by_the_first_intent,
           test_a_release_is_found_whole_and_only_once,
           test_no_release_without_its_intent_and_its_data, test_acknowledging_erases_the_seed,
           test_the_budget_is_kept_to_the_last_round_over_jobs_and_restarts,
           test_many_kinds_of_events_add_up, test_units_do_not_mix,
           test_a_coordinator_trusted_with_the_noise, test_a_tree_takes_a_site_once,
           test_an_update_of_no_bytes_costs_nothing, test_withdrawal_stops_at_once,
           test_every_change_of_an_entry_breaks_the_chain, test_a_rolled_back_file_has_another_head,
           test_an_old_copy_does_not_hold_the_echo, test_an_export_can_be_checked_by_anybody,
           test_a_changed_seed_is_noticed, test_receipts_are_wanted_until_they_are_kept,
           test_foreign_corrupt_and_shared_files_are_refused_untouched,
           test_a_read_only_file_is_refused,
           test_every_failing_write_and_sync_is_reported_and_survived,
           test_what_returned_survives_a_loss_of_power_at_any_write,
           test_every_failing_allocation_is_reported_and_survived)
