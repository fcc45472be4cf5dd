/* Bubbles by what sites send anyway: cfl and flhc by updates, ifca by the model that a site picks.
 */
#include "server/strategy/bubbles.h"
#include "server/strategy/parting.h"
#include "tests/lib/bubble_rounds.h"

/* ---- in two ---- */

/* Of all ways to make two parts: the least of the largest similarities between them. */
static double brute(const double *s, uint32_t n)
{
    double least = (double)INFINITY;

    for (uint32_t set = 1; set < 1u << (n - 1); set++) { /* bit i - 1: i is not with 0 */
        double most = -(double)INFINITY;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t k = 0; k < i; k++) {
                bool a = i && (set >> (i - 1) & 1), b = k && (set >> (k - 1) & 1);
                most = a != b ? fmax(most, s[i * n + k]) : most;
            }
        }
        least = fmin(least, most);
    }
    return least;
}

START_TEST(test_two_parts_are_the_best_of_all)
{
    double s[81], best[9];
    uint8_t part[9];
    uint32_t link[9];
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int round = 0; round < 300; round++) {
        uint32_t n = 2 + (uint32_t)fl_rng_below(&rng, 8);
        double most = -(double)INFINITY;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t k = 0; k <= i; k++) {
                s[i * n + k] = s[k * n + i] = 2 * fl_rng_unit(&rng) - 1;
            }
        }
        double least = fl_part_in_two(s, n, part, link, best);
        uint32_t second = 0;
        for (uint32_t i = 0; i < n; i++) {
            ck_assert_uint_le(part[i], 1);
            second += part[i];
            for (uint32_t k = 0; k < i; k++) {
                most = part[i] != part[k] ? fmax(most, s[i * n + k]) : most;
            }
        }
        ck_assert_uint_gt(second, 0);
        ck_assert_uint_lt(second, n);
        ck_assert_double_eq(most, least);
        ck_assert_double_eq(brute(s, n), least);
    }
}
END_TEST

/* ---- by updates ---- */

/* At a common optimum: nothing but noise, -100 to 100. */
static int64_t noise_only(uint64_t agent, int kind, uint64_t round, uint64_t i)
{
    struct fl_seed seed;
    struct fl_rng rng;

    (void)kind;
    fl_seed_from_u64(agent * 1000 + round * 100 + i, &seed);
    fl_rng_init(&rng, &seed, 0);
    return (int64_t)fl_rng_below(&rng, 201) - 100;
}

/* Noise of each agent's own, on a direction of its kind: 0 and 1 are opposite, 2 is apart. */
static int64_t opposed(uint64_t agent, int kind, uint64_t round, uint64_t i)
{
    int64_t noise = noise_only(agent, kind, round, i) / 10;
    int64_t sign = i % 2 ? 100 : -100;

    return noise + (kind == 0 ? sign : kind == 1 ? -sign : i % 4 < 2 ? 100 : -100);
}

/* All go the same way. */
static int64_t together(uint64_t agent, int kind, uint64_t round, uint64_t i)
{
    (void)kind;
    return opposed(agent, 0, round, i);
}

START_TEST(test_cfl_parts_what_pulls_apart)
{
    struct job j;
    static const uint32_t all[8] = {0}, two[] = {0, 0, 0, 0, 1, 1, 1, 1}, from[] = {0, 0};
    static const uint32_t own[] = {0, 1};

    update_of = opposed;
    open_job(&j, "cfl", "after: 2", "");
    add_members(&j, 0, 4);
    add_members(&j, 1, 4);
    full_round(&j);
    twin_round(&j, all, all, 1);
    full_round(&j); /* 2: it is decided at its end */
    twin_round(&j, all, all, 1);
    same_as_twin(&j);
    ck_assert_uint_eq(j.slots, 1);
    full_round(&j);
    twin_round(&j, two, from, 2);
    ck_assert_uint_eq(j.slots, 2);
    same_as_twin(&j);
    full_round(&j);
    twin_round(&j, two, own, 2);
    ck_assert_uint_eq(j.slots, 2); /* neither parts again */
    same_as_twin(&j);
    ck_assert_uint_eq(place(&j, 12345), 0);
    close_job(&j);
}
END_TEST

START_TEST(test_cfl_leaves_together_what_does_not)
{
    static int64_t (*const kinds[])(uint64_t, int, uint64_t, uint64_t) = {together, noise_only};

    for (size_t k = 0; k < FL_COUNT(kinds); k++) {
        struct job j;
        update_of = kinds[k];
        open_job(&j, "cfl", "after: 1, still: 0.9", "");
        add_members(&j, 0, 20);
        for (int round = 0; round < 5; round++) {
            full_round(&j);
            ck_assert_uint_eq(j.slots, 1);
        }
        close_job(&j);
    }
}
END_TEST

START_TEST(test_cfl_has_limits)
{
    static const char *const settings[] = {"after: 1, most: 1", "after: 1, minimum: 3", "after: 9"};

    for (size_t k = 0; k < FL_COUNT(settings); k++) { /* 2 of 7 would part */
        struct job j;
        update_of = opposed;
        open_job(&j, "cfl", settings[k], "");
        plan->setting.bubble.still = 0.9;
        add_members(&j, 0, 5);
        add_members(&j, 1, 2);
        for (int round = 0; round < 3; round++) {
            full_round(&j);
        }
        ck_assert_uint_eq(j.slots, 1);
        close_job(&j);
    }
}
END_TEST

START_TEST(test_flhc_clusters_once)
{
    struct job j;
    static const uint32_t all[9] = {0}, of[] = {0, 0, 0, 1, 1, 1, 2, 2, 2}, own[] = {0, 1, 2};

    update_of = opposed;
    open_job(&j, "flhc", "after: 2", "");
    for (int kind = 0; kind < 3; kind++) {
        add_members(&j, kind, 3);
    }
    for (int round = 1; round <= 4; round++) {
        full_round(&j);
        ck_assert_uint_eq(j.slots, round < 3 ? 1 : 3);
        if (round < 3) {
            twin_round(&j, all, all, 1);
        } else {
            twin_round(&j, of, round == 3 ? all : own, 3);
        }
        same_as_twin(&j);
    }
    close_job(&j);
    update_of = together;
    open_job(&j, "flhc", "after: 1", "");
    add_members(&j, 0, 9);
    full_round(&j);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 1);
    close_job(&j);
}
END_TEST

/* ---- by choice ---- */

START_TEST(test_ifca_is_the_mean_of_those_who_chose)
{
    struct job j;
    static const uint32_t first[] = {0, 0, 0, 2, 2}, then[] = {2, 0, 0, 2, 2}, own[] = {0, 1, 2};

    update_of = NULL;
    open_job(&j, "ifca", "bubbles: 3", "");
    ck_assert(j.strategy->needs & FL_STRATEGY_APART);
    ck_assert_uint_eq(j.slots, 3);
    add_members(&j, 0, 3);
    add_members(&j, 2, 2);
    full_round(&j);
    twin_round(&j, first, own, 3); /* nobody chose 1: it stays */
    same_as_twin(&j);
    ck_assert_uint_eq(place(&j, j.member[4].agent), 2);
    j.member[0].kind = 2;
    full_round(&j);
    twin_round(&j, then, own, 3);
    same_as_twin(&j);
    j.member[0].kind = 7; /* there is no such model */
    j.round++;
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_uint_eq(place(&j, j.member[0].agent), 0);
    j.member[3].kind = -1; /* away: its last choice is kept */
    ck_assert_int_eq(begin_round(&j), 0);
    ck_assert_uint_eq(place(&j, j.member[3].agent), 2);
    close_job(&j);
}
END_TEST

/* ---- by weights ---- */

/* Members train towards the models they will belong to: 0 and 1 are as far apart as the models of a
 * job that begins. */
static int64_t pulled(uint64_t agent, int kind, uint64_t round, uint64_t i)
{
    return noise_only(agent, kind, round, i) / 20 + (kind ? 9000 : -9000);
}

START_TEST(test_fesem_is_expectation_maximisation)
{
    struct job j;
    uint32_t of[6], best[6];
    float trained[6][VALUES], next[2][VALUES];
    double far[6];

    update_of = pulled;
    open_job(&j, "fesem", "bubbles: 2", "grid: {bits: 16, step: -13}");
    add_members(&j, 0, 3);
    add_members(&j, 1, 3);
    for (int round = 1; round <= 4; round++) {
        memcpy(j.twin, j.model, sizeof j.twin);
        j.round++;
        ck_assert_int_eq(begin_round(&j), 0);
        for (uint32_t m = 0; m < 6; m++) {
            of[m] = place(&j, j.member[m].agent);
            ck_assert(round == 1 || of[m] == best[m]); /* where it was put */
        }
        ck_assert_int_eq(end_round(&j), 0);
        memset(next, 0, sizeof next);
        uint32_t size[2] = {0};
        for (uint32_t m = 0; m < 6; m++) {
            double d[2] = {0};
            for (int i = 0; i < VALUES; i++) {
                trained[m][i] = (float)((double)j.twin[of[m]][i] +
                                        ldexp((double)j.member[m].q[i], plan->grid.step));
                for (int k = 0; k < 2; k++) {
                    d[k] += pow((double)trained[m][i] - (double)j.twin[k][i], 2);
                }
            }
            best[m] = d[1 - of[m]] < d[of[m]] ? 1 - of[m] : of[m];
            size[best[m]]++;
            far[m] = d[best[m]];
        }
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t most = 0;
            for (uint32_t m = 0; m < 6; m++) {
                most = far[m] > far[most] ? m : most;
            }
            best[most] = size[k] ? best[most] : k;
            size[1 - k] -= size[k] == 0;
            size[k] += size[k] == 0;
        }
        for (int i = 0; i < VALUES; i++) {
            for (uint32_t k = 0; k < 2; k++) {
                double sum = 0;
                for (uint32_t m = 0; m < 6; m++) {
                    sum += best[m] == k ? (double)trained[m][i] : 0;
                }
                next[k][i] = size[k] ? (float)(sum / size[k]) : j.twin[k][i];
                ck_assert_float_eq_tol(j.model[k][i], next[k][i], 2e-6f);
            }
        }
    }
    for (uint32_t m = 0; m < 6; m++) { /* who pulls the same way is together in the end */
        ck_assert_uint_eq(best[m], best[m < 3 ? 0 : 3]);
    }
    ck_assert_uint_ne(best[0], best[3]);
    close_job(&j);
}
END_TEST

START_TEST(test_again_is_the_same_and_bad_states_are_refused)
{
    static const char *const names[] = {"cfl", "flhc", "ifca", "fesem"};

    for (size_t k = 0; k < FL_COUNT(names); k++) {
        struct job j, before;
        update_of = opposed;
        open_job(&j, names[k], k < 2 ? "after: 1" : "bubbles: 2", "");
        add_members(&j, 0, 4);
        add_members(&j, 1, 4);
        full_round(&j);
        before = j;
        before.state = fl_new(j.state_size, 1);
        memcpy(before.state, j.state, j.state_size);
        full_round(&j);
        uint8_t *state = fl_new(j.state_size, 1);
        memcpy(state, j.state, j.state_size);
        fl_free(j.state);
        j = before;
        full_round(&j);
        ck_assert_mem_eq(state, j.state, j.state_size);
        fl_free(state);
        for (size_t size = 1; size < j.state_size; size += 7) {
            ck_assert_int_eq(j.strategy->load(j.shared, j.state, size, &err), -FL_R_STORE_MISMATCH);
        }
        bool hit = true;
        j.round++;
        for (uint64_t n = 1; hit; n++) {
            ck_assert_int_eq(begin_round(&j), 0);
            fl_mem_fail_at(n);
            int r = end_round(&j);
            hit = fl_mem_fail_hit();
            fl_mem_fail_at(0);
            ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        }
        close_job(&j);
    }
}
END_TEST

START_TEST(test_refusals)
{
    static const struct {
        const char *strategy, *setting, *more;
        int reason;
    } cases[] = {
        {"ifca", "", "privacy: {unit: client, clip: 0.1, noise_multiplier: 1, delta: 1e-5}",
         FL_R_PLAN_PRIVACY},
        {"ifca", "model: fedrep", "", FL_R_PLAN_STRATEGY},
        {"ifca", "bubbles: 1", "", FL_R_CONF_RANGE},
        {"cfl", "", "secure_aggregation:", FL_R_PLAN_STRATEGY},
        {"cfl", "model: hyperfl, still: 2", "", FL_R_CONF_RANGE},
        {"flhc", "", "set: {round.members: 1025}", FL_R_LIMIT},
        {"fesem", "", "server: {momentum: 0.5}", FL_R_CONF_CONFLICT},
        {"fesem", "", "set: {round.members: 4094}", FL_R_LIMIT},
        {"flhc", "",
         "privacy: {unit: client, clip: 0.1, noise_multiplier: 1, delta: 1e-5, noise: "
         "central}",
         FL_R_PLAN_PRIVACY},
    };
    char text[1024];

    plan = plan ? plan : fl_new(1, sizeof *plan);
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        snprintf(text, sizeof text, job_head, cases[i].strategy, cases[i].setting, cases[i].more);
        int r = fl_plan_parse(plan, "job", text, strlen(text), &err);
        ck_assert_msg(r == -cases[i].reason, "%zu: %d %s", i, r, err.msg);
    }
}
END_TEST

TESTS_MAIN("parting", test_two_parts_are_the_best_of_all, test_cfl_parts_what_pulls_apart,
           test_cfl_leaves_together_what_does_not, test_cfl_has_limits, test_flhc_clusters_once,
           test_ifca_is_the_mean_of_those_who_chose, test_fesem_is_expectation_maximisation,
           test_again_is_the_same_and_bad_states_are_refused, test_refusals)
