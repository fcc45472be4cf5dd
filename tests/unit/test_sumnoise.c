/* Noise on sums, through the strategy that adds it: its law, its seeds, and trees over rounds. */
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "server/strategy/strategy.h"
#include "server/strategy/sumnoise.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"

#include <math.h>
#include <string.h>

enum { D = 40000, T = 8, BOUND = 64, BITS = 16, STEP = -6 };
static const double scale = 3.0 * BOUND; /* sigma times the clip of 1 in steps of 2^-6 */

/* One member whose update is `q` in every element; the job's model is the sum of what was
 * published. */
struct job {
    struct fl_plan *plan;
    const struct fl_strategy *strategy;
    float *model;
    uint8_t *state;
    size_t state_size;
    uint64_t round;
    struct fl_seed secret;
};

static void open_job(struct job *j, uint32_t tree, float momentum)
{
    *j = (struct job){.plan = fl_new(1, sizeof *j->plan),
                      .strategy = fl_strategy_find("fedavg"),
                      .model = fl_new(D, sizeof *j->model),
                      .secret = {{1, 2, 3}}};
    j->plan->grid.bits = BITS;
    j->plan->grid.step = STEP;
    j->plan->layout.shared.elements = D;
    j->plan->max_weight = 1;
    j->plan->round.members = 4;
    j->plan->server.lr = 1;
    j->plan->server.momentum = momentum;
    j->plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_CLIENT,
                                                .clip = 1,
                                                .noise_multiplier = 3,
                                                .noise = FL_NOISE_CENTRAL,
                                                .tree = tree};
}

static void close_job(struct job *j)
{
    fl_free(j->plan);
    fl_free(j->model);
    fl_free(j->state);
}

static int read_packed(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

/* One round as a process does it that knows nothing but the last checkpoint. `keep`: publish. */
static int one_round(struct job *j, int64_t value, uint64_t round, bool secret, bool keep,
                     float *ret, struct fl_err *e)
{
    struct fl_grid g = {BITS, STEP};
    int64_t *q = fl_new(D, sizeof *q);
    uint8_t *packed = fl_new(2, D);
    void *shared = fl_new(1, j->strategy->shared_size), *slot = NULL;
    struct fl_update u = {
        .agent = 1, .weight = 1, .size = 2 * D, .read = read_packed, .arg = packed};
    int r;

    for (size_t i = 0; i < D; i++) {
        q[i] = value;
    }
    ck_assert_uint_eq(fl_grid_pack(&g, q, D, packed), 0);
    ck_assert_msg(j->strategy->init(shared, j->plan, e) == 0, "%s", e->msg);
    size_t size = j->strategy->state_size(shared);
    uint8_t *state = fl_new(size, 1);
    struct next_memory memory = {.base = j->model, .next = ret, .elements = D};
    struct fl_next next = next_in_memory(&memory, 1, state, size);
    next.round = round;
    next.secret = secret ? &j->secret : NULL;
    r = j->strategy->load(shared, j->state, j->state_size, e);
    ck_assert_int_eq(j->strategy->slot_new(shared, &slot, e), 0);
    ck_assert_int_eq(j->strategy->fold(slot, shared, &u, e), 0);
    r = r ? r : j->strategy->finish(shared, &slot, 0, &next, e);
    if (r == 0 && keep) {
        fl_free(j->state);
        j->state = state;
        j->state_size = size;
        memcpy(j->model, ret, D * sizeof *ret);
        j->round = round;
        state = NULL;
    }
    j->strategy->slot_free(slot);
    j->strategy->fini(shared);
    fl_free(shared);
    fl_free(state);
    fl_free(packed);
    fl_free(q);
    return r;
}

/* Of two models, in units of the variance of one noise. */
static double covariance(const float *a, const float *b, double a_mean, double b_mean)
{
    double sum = 0;

    for (size_t i = 0; i < D; i++) {
        sum += (ldexp((double)a[i], -STEP) - a_mean) * (ldexp((double)b[i], -STEP) - b_mean);
    }
    return sum / D / (scale * scale);
}

START_TEST(test_a_sum_has_one_noise)
{
    static float a[D], b[D];
    struct job j;
    struct fl_err e = {0};
    double mean = 0;

    open_job(&j, 0, 0);
    ck_assert_msg(one_round(&j, 20, 1, true, false, a, &e) == 0, "%s", e.msg);
    for (size_t i = 0; i < D; i++) {
        double x = ldexp((double)a[i], -STEP);
        ck_assert(x == rint(x)); /* integers, as everything on the grid */
        mean += x / D;
    }
    ck_assert_double_eq_tol(mean, 20, 5 * scale / sqrt(D));
    ck_assert_double_eq_tol(covariance(a, a, 20, 20), 1, 0.05);
    /* The same sums: the same bytes. Other sums, another round, another secret: other noise. */
    ck_assert_int_eq(one_round(&j, 20, 1, true, false, b, &e), 0);
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert_int_eq(one_round(&j, 21, 1, true, false, b, &e), 0);
    ck_assert_double_eq_tol(covariance(a, b, 20, 21), 0, 0.05);
    ck_assert_int_eq(one_round(&j, 20, 2, true, false, b, &e), 0);
    ck_assert_double_eq_tol(covariance(a, b, 20, 20), 0, 0.05);
    j.secret.bytes[31] ^= 1;
    ck_assert_int_eq(one_round(&j, 20, 1, true, false, b, &e), 0);
    ck_assert_double_eq_tol(covariance(a, b, 20, 20), 0, 0.05);
    /* Without a secret nothing is published. */
    ck_assert_int_eq(one_round(&j, 20, 1, false, false, b, &e), -FL_R_PLAN_PRIVACY);
    /* Noise at the sites: none here. */
    j.plan->privacy.noise = FL_NOISE_LOCAL;
    ck_assert_int_eq(one_round(&j, 20, 1, false, false, b, &e), 0);
    ck_assert_double_eq(ldexp((double)b[0], -STEP), 20);
    close_job(&j);
}
END_TEST

/* Nodes of the prefix of t rounds: the ones of t in binary. What two prefixes share, they share. */
static int shared_nodes(unsigned s, unsigned t)
{
    int shared = 0;

    for (unsigned bit = 1u << 4; bit; bit >>= 1) { /* a node of `bit` rounds in both */
        if ((s & bit) != (t & bit)) {
            break;
        }
        shared += (s & bit) != 0;
    }
    return shared;
}

START_TEST(test_a_tree_holds_log_t_noises)
{
    static float prefix[2 * T + 1][D], again[D];
    struct job j;
    struct fl_err e = {0};

    open_job(&j, T, 0);
    for (uint64_t t = 1; t <= T + 3; t++) {
        ck_assert_msg(one_round(&j, 0, t, true, false, again, &e) == 0, "%s", e.msg);
        ck_assert_int_eq(one_round(&j, 0, t, true, true, prefix[t], &e), 0);
        ck_assert_mem_eq(again, prefix[t], sizeof again); /* finish may be repeated */
    }
    for (unsigned s = 1; s <= T; s++) {
        for (unsigned t = s; t <= T; t++) {
            ck_assert_msg(fabs(covariance(prefix[s], prefix[t], 0, 0) - shared_nodes(s, t)) <
                              0.05 + 0.03 * shared_nodes(s, t),
                          "prefixes of %u and %u rounds share %g noises, not %d", s, t,
                          covariance(prefix[s], prefix[t], 0, 0), shared_nodes(s, t));
        }
    }
    ck_assert_int_eq(shared_nodes(7, 6), 2);
    ck_assert_int_eq(shared_nodes(8, 7), 0);
    /* Behind a full tree its one noise stays, and another tree begins. */
    ck_assert_double_eq_tol(covariance(prefix[T], prefix[T + 3], 0, 0), 1, 0.07);
    ck_assert_double_eq_tol(covariance(prefix[T + 3], prefix[T + 3], 0, 0), 3, 0.12);
    close_job(&j);
}
END_TEST

/* A coordinator that went back in time and repeats a round with other members: what both published
 * models tell about each other is hidden by fresh noise at the round's own node. */
START_TEST(test_other_sums_never_meet_the_noise_of_a_node)
{
    static float a[D], b[D];
    struct job j;
    struct fl_err e = {0};

    open_job(&j, T, 0);
    for (uint64_t t = 1; t <= 3; t++) {
        ck_assert_int_eq(one_round(&j, 0, t, true, true, a, &e), 0);
    }
    ck_assert_int_eq(one_round(&j, 5, 4, true, false, a, &e), 0);
    ck_assert_int_eq(one_round(&j, 9, 4, true, false, b, &e), 0);
    ck_assert_double_eq_tol(covariance(a, b, 5, 9), 0, 0.05);
    close_job(&j);
}
END_TEST

START_TEST(test_the_state_must_be_that_of_the_round_before)
{
    static float a[D];
    struct job j;
    struct fl_err e = {0};

    open_job(&j, T, 0.9f);
    ck_assert_int_eq(one_round(&j, 0, 1, true, true, a, &e), 0);
    ck_assert_uint_eq(j.state_size, D * 4 + FL_SUM_NOISE_STATE);
    ck_assert_int_eq(one_round(&j, 0, 3, true, false, a, &e), -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(one_round(&j, 0, 0, true, false, a, &e), -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(one_round(&j, 0, 2, true, false, a, &e), 0);
    j.state[D * 4] = T + 1; /* rounds done in the tree */
    ck_assert_int_eq(one_round(&j, 0, 2, true, false, a, &e), -FL_R_STORE_MISMATCH);
    j.state_size = FL_SUM_NOISE_STATE - 1;
    ck_assert_int_eq(one_round(&j, 0, 2, true, false, a, &e), -FL_R_STORE_MISMATCH);
    j.state_size = 0; /* as a job begins; but this is not its first round */
    ck_assert_int_eq(one_round(&j, 0, 2, true, false, a, &e), -FL_R_STORE_MISMATCH);
    close_job(&j);
}
END_TEST

/* Bubbles that happen to have the same sums must not have the same noise. */
START_TEST(test_each_slot_has_its_own_noise)
{
    struct job j;
    struct fl_sum_noise n;
    struct fl_err e = {0};
    static int64_t sum[64];
    struct fl_sum_noise_of of = {.round = 3, .weight = 2, .sum = sum, .count = FL_COUNT(sum)};
    struct fl_seed first, again, other;

    open_job(&j, 0, 0);
    ck_assert_int_eq(fl_sum_noise_init(&n, j.plan, &e), 0);
    ck_assert_int_eq(fl_sum_noise_begin(&n, &j.secret, &of, &e), 0);
    first = n.add;
    ck_assert_int_eq(fl_sum_noise_begin(&n, &j.secret, &of, &e), 0);
    again = n.add;
    of.slot = 1;
    ck_assert_int_eq(fl_sum_noise_begin(&n, &j.secret, &of, &e), 0);
    other = n.add;
    ck_assert_mem_eq(&first, &again, sizeof first);
    ck_assert_mem_ne(&first, &other, sizeof first);
    fl_sum_noise_fini(&n);
    close_job(&j);
}
END_TEST

TESTS_MAIN("sumnoise", test_a_sum_has_one_noise, test_each_slot_has_its_own_noise,
           test_a_tree_holds_log_t_noises, test_other_sums_never_meet_the_noise_of_a_node,
           test_the_state_must_be_that_of_the_round_before)
