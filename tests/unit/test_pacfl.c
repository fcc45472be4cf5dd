/* The strategy pacfl, round after round as the coordinator calls it: who is with whom, whose model
 * each begins with, and every next model against a naive twin. */
#include "tests/lib/bubble_rounds.h"

START_TEST(test_bubbles_are_federations_of_their_own)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 0, 1, 1, 1, 2, 2}, one[] = {0, 0, 0}, own[] = {0, 1, 2};

    open_job(&j, "pacfl", "most: 4", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 3);
    add_members(&j, 2, 2); /* permuted importances: not with the first */
    full_round(&j);
    ck_assert_uint_eq(j.slots, 3);
    twin_round(&j, of, one, 3);
    same_as_twin(&j);
    for (int round = 2; round <= 3; round++) {
        full_round(&j);
        for (uint32_t i = 0; i < j.members; i++) {
            ck_assert_uint_eq(place(&j, j.member[i].agent), of[i]);
        }
        twin_round(&j, of, own, 3);
        same_as_twin(&j);
    }
    ck_assert_uint_eq(place(&j, 77777), 0); /* unknown: the largest */
    close_job(&j);
}
END_TEST

/* One crowd, one agent, all exactly alike: one bubble, which is the plain mean. */
START_TEST(test_one_bubble_is_the_mean)
{
    static const uint32_t zero[AGENTS] = {0};

    for (int c = 0; c < 3; c++) {
        struct job j;
        open_job(&j, "pacfl", "most: 4", "");
        spread = c == 2 ? 0 : 0.02; /* exactly alike */
        add_members(&j, 0, c == 0 ? AGENTS : c == 1 ? 1 : 4);
        full_round(&j);
        ck_assert_uint_eq(j.slots, 1);
        twin_round(&j, zero, zero, 1);
        same_as_twin(&j);
        close_job(&j);
    }
    spread = 0.02;
}
END_TEST

START_TEST(test_a_loner_is_served)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 0, 1, 1, 1, 1, 9}, one[] = {0, 0};
    uint32_t with[9];

    open_job(&j, "pacfl", "most: 4", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    add_members(&j, 3, 1);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 2);
    reload(&j);
    memcpy(with, of, sizeof with);
    with[8] = place(&j, j.member[8].agent); /* its parent: one of the two, and it counts there */
    ck_assert_uint_lt(with[8], 2);
    twin_round(&j, with, one, 2);
    same_as_twin(&j);
    close_job(&j);
}
END_TEST

/* A newcomer without a descriptor is in the largest bubble, and in its own when it was described.
 */
START_TEST(test_newcomers)
{
    struct job j;

    open_job(&j, "pacfl", "most: 4", "descriptor: {every: 2}");
    add_members(&j, 0, 5);
    add_members(&j, 1, 3);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 2);
    add_members(&j, 1, 1);
    full_round(&j); /* 2: not asked */
    ck_assert_uint_eq(place(&j, j.member[8].agent), place(&j, j.member[0].agent));
    full_round(&j); /* 3 */
    ck_assert_uint_eq(place(&j, j.member[8].agent), place(&j, j.member[5].agent));
    ck_assert_uint_ne(place(&j, j.member[8].agent), place(&j, j.member[0].agent));
    /* Who is away when it is asked again stays by its last descriptor. */
    uint64_t away = j.member[0].agent;
    memmove(j.member, j.member + 1, (--j.members) * sizeof *j.member);
    full_round(&j);
    full_round(&j); /* 5 */
    ck_assert_uint_eq(place(&j, away), place(&j, j.member[0].agent));
    close_job(&j);
}
END_TEST

/* Sites that come apart later begin with the model that they had together. */
START_TEST(test_a_bubble_parts)
{
    struct job j;
    static const uint32_t all[8] = {0}, two[] = {0, 0, 0, 0, 1, 1, 1, 1}, from[] = {0, 0};

    open_job(&j, "pacfl", "most: 4", "descriptor: {every: 2}");
    add_members(&j, 0, 8);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 1);
    twin_round(&j, all, all, 1);
    full_round(&j);
    twin_round(&j, all, all, 1);
    for (int i = 4; i < 8; i++) {
        j.member[i].kind = 1;
    }
    j.round++;
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_uint_eq(place(&j, j.member[0].agent), 0); /* both from the only model there is */
    ck_assert_uint_eq(place(&j, j.member[7].agent), 0);
    ck_assert_int_eq(end_round(&j), 0);
    ck_assert_uint_eq(j.slots, 2);
    twin_round(&j, two, from, 2);
    same_as_twin(&j);
    reload(&j);
    ck_assert_uint_eq(place(&j, j.member[7].agent), 1);
    close_job(&j);
}
END_TEST

/* Body by all, heads by bubble. */
START_TEST(test_common_body)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 1, 1, 1, 1}, one[2] = {0}, own[] = {0, 1}, all[7] = {0};
    size_t split = 4 * 3 + 3;

    open_job(&j, "pacfl", "most: 4, body: shared", "");
    add_members(&j, 0, 3);
    add_members(&j, 1, 4);
    for (int round = 1; round <= 2; round++) {
        float before[VALUES], body[VALUES];
        full_round(&j);
        ck_assert_uint_eq(j.slots, 2);
        memcpy(before, j.twin[0], sizeof before);
        struct job k = j;
        twin_round(&k, all, one, 1);
        memcpy(body, k.twin[0], sizeof body);
        twin_round(&j, of, round == 1 ? one : own, 2);
        for (uint32_t b = 0; b < 2; b++) {
            memcpy(j.twin[b], body, split * sizeof(float));
        }
        same_as_twin(&j);
        ck_assert(memcmp(j.model[0] + split, j.model[1] + split, sizeof(float)) != 0);
    }
    close_job(&j);
}
END_TEST

/* Two near kinds and a far one; the small near bubble got too few updates: it learns with its
 * neighbour, and neither with the far one. */
START_TEST(test_below_its_quorum_it_learns_with_its_parent)
{
    struct job j;
    float own[VALUES];

    open_job(&j, "pacfl", "most: 4, quorum: 3", "");
    add_members(&j, 0, 5);
    add_members(&j, 3, 4);
    add_members(&j, 1, 3);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 3);
    j.members -= 1; /* bubble 2 now gets 2 */
    for (uint32_t b = 0; b < 3; b++) {
        memcpy(j.twin[b], j.model[b], sizeof j.twin[b]);
    }
    full_round(&j);
    static const uint32_t apart[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2}, base[] = {0, 1, 2};
    static const uint32_t near[] = {2, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2};
    struct job k = j;
    twin_round(&k, near, base, 3);
    memcpy(own, k.twin[2], sizeof own);
    twin_round(&j, apart, base, 3);
    memcpy(j.twin[2], own, sizeof own);
    same_as_twin(&j);
    close_job(&j);
}
END_TEST

/* Each bubble's server optimizer goes its own way. */
START_TEST(test_momentum_by_bubble)
{
    struct job j;
    double v[2][VALUES] = {{0}};
    float x[2][VALUES];

    open_job(&j, "pacfl", "most: 4", "server: {momentum: 0.5}");
    add_members(&j, 0, 3);
    add_members(&j, 1, 4);
    memcpy(x[0], j.model[0], sizeof x[0]);
    memcpy(x[1], j.model[0], sizeof x[1]);
    for (int round = 1; round <= 3; round++) {
        full_round(&j);
        for (uint32_t b = 0; b < 2; b++) {
            for (int i = 0; i < VALUES; i++) {
                int64_t sum = 0;
                for (uint32_t m = b ? 3 : 0; m < (b ? 7u : 3u); m++) {
                    sum += j.member[m].q[i];
                }
                v[b][i] = (double)(float)(0.5 * v[b][i] +
                                          ldexp((double)sum, plan->grid.step) / (b ? 4 : 3));
                x[b][i] = (float)((double)x[b][i] + v[b][i]);
                ck_assert_float_eq_tol(j.model[b][i], x[b][i], 1e-6f);
            }
        }
    }
    close_job(&j);
}
END_TEST

/* Repeated calls, as after a failure or a crash, make the same bytes. */
START_TEST(test_again_is_the_same)
{
    struct job j, k;
    uint8_t *state;
    size_t size;

    open_job(&j, "pacfl", "most: 4", "descriptor: {every: 1}");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    full_round(&j);
    state = fl_new(j.state_size, 1);
    size = j.state_size;
    memcpy(state, j.state, size);
    j.round++;
    k = j;
    ck_assert_int_eq(begin_round(&j), 0);
    struct fl_update u = {.agent = j.member[0].agent,
                          .size = sizeof j.member[0].descriptor,
                          .read = read_bytes,
                          .arg = j.member[4].descriptor};
    const struct fl_updates odd = {1, &u}; /* an attempt with other records, then the true ones */
    ck_assert_int_eq(j.strategy->between(j.shared, NULL, 0, &odd, &err), 0);
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_int_eq(end_round(&j), 0);
    uint8_t *first = fl_new(j.state_size, 1);
    memcpy(first, j.state, j.state_size);
    fl_free(j.state);
    j.state = state;
    j.state_size = size;
    j.slots = k.slots;
    memcpy(j.model, k.model, sizeof j.model);
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_int_eq(end_round(&j), 0);
    ck_assert_mem_eq(first, j.state, j.state_size);
    fl_free(first);
    close_job(&j);
}
END_TEST

START_TEST(test_bad_input)
{
    struct job j;
    struct fl_update u;
    const struct fl_updates updates = {1, &u};

    open_job(&j, "pacfl", "most: 4", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    full_round(&j);
    describe(&j.member[0]);
    u = (struct fl_update){.agent = 10,
                           .size = sizeof j.member[0].descriptor - 4,
                           .read = read_bytes,
                           .arg = j.member[0].descriptor};
    ck_assert_int_eq(j.strategy->between(j.shared, NULL, 0, &updates, &err), -FL_R_UPDATE_LENGTH);
    u.size += 4;
    memset(j.member[0].descriptor, 0, 4);
    j.member[0].descriptor[3] = 0x80; /* the word that is never used */
    ck_assert_int_eq(j.strategy->between(j.shared, NULL, 0, &updates, &err), -FL_R_UPDATE_RANGE);
    for (size_t size = 1; size < j.state_size; size++) {
        int r = j.strategy->load(j.shared, j.state, size, &err);
        ck_assert_msg(r == -FL_R_STORE_MISMATCH, "%zu bytes: %d", size, r);
    }
    for (size_t at = 0; at < j.state_size;
         at++) { /* any byte: refused, or a state that can be used */
        uint8_t was = j.state[at];
        j.state[at] ^= 0xff;
        if (j.strategy->load(j.shared, j.state, j.state_size, &err) == 0) {
            ck_assert_uint_lt(place(&j, 10), j.strategy->slots(j.shared));
        }
        j.state[at] = was;
    }
    close_job(&j);
}
END_TEST

/* As published: the loner's updates count nowhere, and its model stays as it was. */
START_TEST(test_published)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 0, 1, 1, 9}, one[] = {0, 0, 0}, own[] = {0, 1, 2};

    open_job(&j, "pacfl", "variant: published", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 2);
    add_members(&j, 3, 1);
    for (int round = 1; round <= 3; round++) {
        full_round(&j);
        ck_assert_uint_eq(j.slots, 3);
        twin_round(&j, of, round == 1 ? one : own, 3);
        same_as_twin(&j);
        reload(&j);
        ck_assert_uint_eq(place(&j, 50), 1);
        ck_assert_uint_eq(place(&j, 70), 2);
    }
    close_job(&j);
    open_job(&j, "pacfl", "variant: published", ""); /* nobody to be told from: served */
    add_members(&j, 0, 1);
    full_round(&j);
    twin_round(&j, of, one, 1);
    same_as_twin(&j);
    close_job(&j);
}
END_TEST

/* More sites are described than send updates. */
START_TEST(test_rules_of_the_exchanges)
{
    struct job j;
    struct fl_round_rules rules;

    open_job(&j, "pacfl", "most: 4", "descriptor: {members: 100, every: 3}");
    fl_strategy_rules(plan, 1, &rules);
    ck_assert_uint_eq(rules.exchange_count, 2);
    ck_assert_uint_eq(rules.exchange[0].members, 100);
    ck_assert_uint_eq(rules.exchange[0].quorum, 24);
    ck_assert_uint_eq(rules.exchange[1].members, 24);
    ck_assert_int_eq(fl_round_rules_check(&rules, &err), 0);
    fl_strategy_rules(plan, 2, &rules);
    ck_assert_uint_eq(rules.exchange_count, 1);
    close_job(&j);
}
END_TEST

START_TEST(test_memory_that_ends)
{
    struct job j;
    bool hit = true;

    open_job(&j, "pacfl", "most: 4", "descriptor: {every: 1}");
    add_members(&j, 0, 3);
    add_members(&j, 1, 3);
    full_round(&j);
    j.round++;
    for (uint64_t n = 1; hit; n++) {
        fl_mem_fail_at(n);
        int r = begin_round(&j);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
    }
    ck_assert_int_eq(end_round(&j), 0);
    ck_assert_uint_eq(j.slots, 2);
    close_job(&j);
}
END_TEST

TESTS_MAIN("pacfl", test_bubbles_are_federations_of_their_own, test_one_bubble_is_the_mean,
           test_a_loner_is_served, test_newcomers, test_a_bubble_parts, test_common_body,
           test_below_its_quorum_it_learns_with_its_parent, test_momentum_by_bubble,
           test_again_is_the_same, test_bad_input, test_published, test_rules_of_the_exchanges,
           test_memory_that_ends)
