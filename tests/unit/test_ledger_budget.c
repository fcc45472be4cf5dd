/* What may still be spent, over jobs, rounds, units and restarts. */
#include "client/core/ledger.h"
#include "tests/lib/ledger_bench.h"

#include <math.h>
#include <string.h>

START_TEST(test_the_budget_is_kept_to_the_last_round_over_jobs_and_restarts)
{
    double sigma = NAN, epsilon = NAN;
    struct fl_digest data = digest_of("data", 1), data2 = digest_of("data", 2);
    enum fl_bound bound;
    bool placeless;

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
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &placeless, &e));
    ck_assert_double_le(epsilon, 4);
    ck_assert_double_ge(epsilon, 4 * (1 - 1e-6));
    ck_assert_int_eq(bound, FL_BOUND_EXACT_GAUSSIAN);
    double of_site = epsilon;
    ck_ok(
        fl_ledger_spent(l, &data2, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &placeless, &e));
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
    bool placeless;

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
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_EXAMPLE, false, 1e-5, &got, &bound, &placeless, &e));
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
    bool placeless;

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
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &placeless, &e));
    ck_assert(isfinite(epsilon) && epsilon > 0);
    ck_ok(
        fl_ledger_spent(l, &data, FL_UNIT_EXAMPLE, false, 1e-5, &epsilon, &bound, &placeless, &e));
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
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &placeless, &e));
    ck_assert(isinf(epsilon));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_NONE, false, 1e-5, &epsilon, &bound, &placeless, &e));
    ck_assert(isinf(epsilon));
    shut();
}
END_TEST

/* The sum is true of the neighbours that all of its releases have: without places only while every
 * one of them is, whatever comes later, and again for other data. */
START_TEST(test_a_release_by_place_stays_in_the_sum)
{
    static const bool story[] = {true, true, false, true};
    const struct fl_budget budget = {.unit = FL_UNIT_EXAMPLE, .epsilon = 99, .delta = 1e-5};
    struct fl_digest data = digest_of("data", 1), other = digest_of("data", 2);
    struct fl_release r, found;
    struct fl_seed seed;
    double epsilon;
    enum fl_bound bound;
    bool placeless, sofar = true;

    fresh();
    for (uint64_t i = 0; i < FL_COUNT(story); i++) {
        struct fl_intent_inputs in = inputs_of(i + 1);
        r = release_of(i + 1, 8);
        r.unit = FL_UNIT_EXAMPLE;
        r.placeless = story[i];
        ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
        ck_ok(fl_ledger_debit(l, &budget, &r, 1, &e));
        reopen();
        ck_assert_int_eq(fl_ledger_find(l, &r.key, &found, &e), 1);
        ck_assert_int_eq(found.placeless, story[i]);
        ck_assert_int_eq(found.noise, FL_NOISE_LOCAL);
        sofar = sofar && story[i];
        placeless = !sofar;
        ck_ok(fl_ledger_spent(l, &data, FL_UNIT_EXAMPLE, FL_NOISE_LOCAL, 1e-5, &epsilon, &bound,
                              &placeless, &e));
        ck_assert_int_eq(placeless, sofar);
    }
    double all = NAN; /* the price does not depend on it */
    const struct fl_event events = {.q = 1, .sigma = 8, .count = FL_COUNT(story)};
    ck_ok(fl_epsilon(&events, 1, 1e-5, &all, &bound, &e));
    ck_assert_double_eq_tol(epsilon / all, 1, 1e-12);
    struct fl_intent_inputs in = inputs_of(9);
    in.data = other;
    r = release_of(9, 8);
    r.unit = FL_UNIT_EXAMPLE;
    r.placeless = true;
    r.data = other;
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    ck_ok(fl_ledger_debit(l, &budget, &r, 1, &e));
    ck_ok(fl_ledger_spent(l, &other, FL_UNIT_EXAMPLE, FL_NOISE_LOCAL, 1e-5, &epsilon, &bound,
                          &placeless, &e));
    ck_assert(placeless);
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
    bool placeless;

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
    ck_ok(
        fl_ledger_spent(l, &r.data, FL_UNIT_CLIENT, true, 1e-5, &epsilon, &bound, &placeless, &e));
    ck_assert_double_eq_tol(epsilon, 0.4342, 1e-3); /* one Gaussian of sigma 8 */
    ck_ok(
        fl_ledger_spent(l, &r.data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &placeless, &e));
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
    bool placeless;

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
    ck_ok(
        fl_ledger_spent(l, &r.data, FL_UNIT_CLIENT, true, 1e-5, &epsilon, &bound, &placeless, &e));
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
    bool placeless;

    fresh();
    r.unit = FL_UNIT_NONE;
    r.event = (struct fl_event){.q = 1};
    r.size = 0;
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    ck_ok(fl_ledger_debit(l, &no_budget, &r, 1, &e));
    ck_ok(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, 1e-5, &epsilon, &bound, &placeless, &e));
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

TESTS_MAIN("ledger_budget", test_the_budget_is_kept_to_the_last_round_over_jobs_and_restarts,
           test_many_kinds_of_events_add_up, test_units_do_not_mix,
           test_a_release_by_place_stays_in_the_sum, test_a_coordinator_trusted_with_the_noise,
           test_a_tree_takes_a_site_once, test_an_update_of_no_bytes_costs_nothing,
           test_withdrawal_stops_at_once, gone)
