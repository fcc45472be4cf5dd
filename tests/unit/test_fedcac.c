/*
 * FedCAC: the published variant against rounds of PyTorch (tests/golden/fedcac.py), the default
 * against a naive twin with everything in memory, and what tells it from its neighbours.
 */
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"
#include "tests/lib/personal_rounds.h"

#include <stdio.h>

static struct fl_err e;

/* ---- as published ---- */

static float *tensor(const struct fl_tensor_file *f, const char *name)
{
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);

    ck_assert_msg(t != NULL, "%s", name);
    float *x = fl_new(t->count, sizeof *x);
    fl_tensor_file_get(f, t, x);
    return x;
}

static float *of_round(const struct fl_tensor_file *f, uint64_t round, const char *what, uint32_t i)
{
    char name[64];

    snprintf(name, sizeof name, "round%u.%s%u", (unsigned)round, what, i);
    return tensor(f, name);
}

static void check_close(const float *a, float *b, size_t d)
{
    for (size_t k = 0; k < d; k++) { /* sums in another order, in doubles on both sides */
        ck_assert_double_le(fabs((double)a[k] - (double)b[k]), 1.2e-7 * fabs((double)b[k]) + 1e-12);
    }
    fl_free(b);
}

START_TEST(test_published_rounds_are_those_of_pytorch)
{
    enum { AGENTS = 6 };
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    struct sent sent[AGENTS];
    struct rounds r;

    ck_assert_msg(fl_tensor_file_open(TEST_SOURCE_ROOT "/tests/golden/fedcac_published.safetensors",
                                      1 << 20, f, &e) == 0,
                  "%s", e.msg);
    float *initial = tensor(f, "initial"), *weights = tensor(f, "weights");
    rounds_open(&r, fl_tensor_file_meta(f, "job"), initial);
    while (r.round < 3) {
        for (uint32_t i = 0; i < AGENTS; i++) {
            float *q = of_round(f, r.round + 1, "steps", i);
            sent[i] = (struct sent){10 + 3 * i, (uint32_t)weights[i], fl_new(r.d, sizeof(int64_t))};
            for (size_t k = 0; k < r.d; k++) {
                sent[i].q[k] = (int64_t)q[k];
            }
            fl_free(q);
        }
        ck_assert_msg(rounds_do(&r, sent, AGENTS, &e) == 0, "%s", e.msg);
        ck_assert_uint_eq(r.slots, 1 + AGENTS);
        check_close(r.models, of_round(f, r.round, "mean", 0), r.d);
        for (uint32_t i = 0; i < AGENTS; i++) {
            check_close(rounds_model(&r, 10 + 3 * i), of_round(f, r.round, "next", i), r.d);
            fl_free(sent[i].q);
        }
    }
    fl_free(initial);
    fl_free(weights);
    fl_tensor_file_close(f);
    fl_free(f);
    rounds_close(&r);
}
END_TEST

/* ---- the default beside its twin ---- */

#define MODEL                                                                                      \
    "model: {input: [30], classes: 3, layers: [{linear: {out: 20}}, {relu: {}}, {linear: {out: "   \
    "3}}]}\ntrain: {lr: 0.1}\n"
static const char better[] =
    "name: b\nstrategy: fedcac\nrounds: 6\n" MODEL "weights: examples\nmax_weight: 50\n"
    "round: {members: 7}\ngrid: {bits: 13, step: -10}\n";

enum { TWIN_MAX = 16 };
struct twin {
    size_t d;
    uint32_t count;
    uint64_t agent[TWIN_MAX], round[TWIN_MAX];
    uint32_t weight[TWIN_MAX];
    float *model[TWIN_MAX], *global;
    uint8_t *mask[TWIN_MAX];
};

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* Half of a tensor, by sorting. */
static void twin_mask(const float *before, const float *after, const struct fl_tensor *t,
                      uint8_t *to)
{
    float *omega = fl_new(t->count, sizeof *omega), *sorted = fl_new(t->count, sizeof *omega);

    for (size_t k = 0; k < t->count; k++) {
        size_t at = t->offset + k;
        omega[k] = sorted[k] = fabsf((after[at] - before[at]) * after[at]);
    }
    qsort(sorted, t->count, sizeof *sorted, descending);
    for (size_t k = 0; k < t->count; k++) {
        to[t->offset + k] = t->count >= 2 && omega[k] > 0 && omega[k] >= sorted[t->count / 2 - 1];
    }
    fl_free(omega);
    fl_free(sorted);
}

static double twin_kappa(const struct twin *w, const struct fl_tensors *table, uint32_t i,
                         uint32_t j)
{
    double both = 0, all_i = 0, all_j = 0, chance = 0;

    for (uint32_t t = 0; t < table->count; t++) {
        double own_i = 0, own_j = 0;
        for (size_t k = table->at[t].offset; k < table->at[t].offset + table->at[t].count; k++) {
            own_i += w->mask[i][k];
            own_j += w->mask[j][k];
            both += w->mask[i][k] && w->mask[j][k];
        }
        all_i += own_i;
        all_j += own_j;
        chance += own_i * own_j / (double)table->at[t].count;
    }
    double k = (both - chance) / (sqrt(all_i * all_j) - chance);
    return k > 0 ? k : 0;
}

/* Circles without sorting: those above the threshold, or the one best. */
static void twin_weights(const struct twin *w, const struct fl_plan *plan, uint64_t round,
                         uint32_t i, double *a)
{
    double like[TWIN_MAX] = {0}, best = 0, mean = 0, sum = 0;

    for (uint32_t j = 0; j < w->count; j++) {
        if (j != i) {
            like[j] =
                twin_kappa(w, &plan->layout.shared, i, j) * pow(0.9, (double)(round - w->round[j]));
            best = fmax(best, like[j]);
            mean += like[j] / (w->count - 1);
        }
    }
    for (uint32_t j = 0; j < w->count; j++) {
        double left = 1 - (double)round / (double)plan->rounds;
        bool in = like[j] > 0 && like[j] >= best - left * (best - mean);
        a[j] = j == i ? w->weight[i] : in ? like[j] * w->weight[j] : 0;
        sum += a[j];
    }
    for (uint32_t j = 0; j < w->count; j++) {
        a[j] /= sum;
    }
}

static uint32_t twin_home(struct twin *w, uint64_t agent)
{
    uint32_t i = 0;

    while (i < w->count && w->agent[i] < agent) {
        i++;
    }
    if (i < w->count && w->agent[i] == agent) {
        return i;
    }
    for (uint32_t k = w->count++; k > i; k--) {
        w->agent[k] = w->agent[k - 1];
        w->round[k] = w->round[k - 1];
        w->weight[k] = w->weight[k - 1];
        w->model[k] = w->model[k - 1];
        w->mask[k] = w->mask[k - 1];
    }
    w->agent[i] = agent;
    w->model[i] = fl_new(w->d, sizeof(float));
    memcpy(w->model[i], w->global, w->d * sizeof(float));
    w->mask[i] = fl_new(w->d, 1);
    return i;
}

static float with_bit(double x, uint8_t bit)
{
    float f = (float)x;
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    u = (u & ~1u) | bit;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void twin_round(struct twin *w, const struct rounds *r, const struct sent *sent,
                       uint32_t count)
{
    uint64_t round = r->round + 1;
    float *trained[TWIN_MAX] = {NULL};
    double total = 0, a[TWIN_MAX], *common = fl_new(w->d, sizeof *common);

    for (uint32_t s = 0; s < count; s++) {
        twin_home(w, sent[s].agent);
    }
    for (uint32_t s = 0; s < count; s++) {
        uint32_t i = twin_home(w, sent[s].agent);
        trained[i] = fl_new(w->d, sizeof(float));
        w->weight[i] = sent[s].weight;
        w->round[i] = round;
        total += sent[s].weight;
        for (size_t k = 0; k < w->d; k++) {
            trained[i][k] =
                (float)((double)w->model[i][k] + ldexp((double)sent[s].q[k], r->grid.step));
        }
        for (uint32_t t = 0; t < r->plan->layout.shared.count; t++) {
            twin_mask(w->model[i], trained[i], &r->plan->layout.shared.at[t], w->mask[i]);
        }
    }
    for (size_t k = 0; k < w->d; k++) {
        for (uint32_t j = 0; j < w->count; j++) {
            common[k] += trained[j] ? w->weight[j] / total * (double)trained[j][k] : 0;
        }
        w->global[k] = (float)common[k];
    }
    float *next[TWIN_MAX] = {NULL};
    for (uint32_t i = 0; i < w->count; i++) {
        next[i] = fl_new(w->d, sizeof(float));
        memcpy(next[i], w->model[i], w->d * sizeof(float));
        if (trained[i]) {
            twin_weights(w, r->plan, round, i, a);
        }
        for (size_t k = 0; trained[i] && k < w->d; k++) {
            double own = 0;
            for (uint32_t j = 0; j < w->count; j++) {
                own += a[j] * (double)(trained[j] ? trained[j] : w->model[j])[k];
            }
            next[i][k] = with_bit(w->mask[i][k] ? own : common[k], w->mask[i][k]);
        }
    }
    for (uint32_t i = 0; i < w->count; i++) {
        fl_free(w->model[i]);
        fl_free(trained[i]);
        w->model[i] = next[i];
    }
    fl_free(common);
}

/* Updates that are alike within groups of three agents, and mostly 0 for some weights. */
static void make_sent(struct fl_rng *rng, struct sent *s, uint64_t agent, size_t d)
{
    *s = (struct sent){agent, 1 + (uint32_t)fl_rng_below(rng, 50), fl_new(d, sizeof *s->q)};
    for (size_t k = 0; k < d; k++) {
        bool much = (k + agent / 3 * 7) % 3 == 0;
        s->q[k] = (int64_t)fl_rng_below(rng, much ? 400 : 40) - (much ? 200 : 20);
        s->q[k] = fl_rng_below(rng, 5) ? s->q[k] : 0;
    }
}

START_TEST(test_default_agrees_with_its_naive_twin)
{
    /* Who takes part: all, some, newcomers, one again after a pause, one alone. */
    static const uint64_t who[6][8] = {
        {1, 2, 3, 5, 8, 9, 13}, {2, 3, 8}, {2, 3, 4, 9, 11}, {1, 4, 13}, {6},
        {1, 2, 3, 4, 5, 6, 8}};
    struct sent sent[8];
    struct fl_seed seed;
    struct fl_rng rng;
    struct rounds r;
    struct twin w = {.count = 0};

    rounds_open(&r, better, NULL);
    w.d = r.d;
    w.global = fl_new(r.d, sizeof(float));
    memcpy(w.global, r.models, r.d * sizeof(float));
    fl_seed_from_u64(9, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t count = 0;
        while (count < 8 && who[round][count]) {
            make_sent(&rng, &sent[count], who[round][count], r.d);
            count++;
        }
        twin_round(&w, &r, sent, count);
        ck_assert_msg(rounds_do(&r, sent, count, &e) == 0, "%s", e.msg);
        ck_assert_uint_eq(r.slots, 1 + w.count);
        for (size_t k = 0; k < r.d; k++) {
            ck_assert_float_eq(r.models[k], w.global[k]);
        }
        for (uint32_t i = 0; i < w.count; i++) {
            const float *mine = rounds_model(&r, w.agent[i]);
            for (size_t k = 0; k < r.d; k++) { /* a last bit of rounding may be the mask's */
                ck_assert_double_le(fabs((double)mine[k] - (double)w.model[i][k]),
                                    4e-7 * fabs((double)w.model[i][k]) + 1e-12);
                ck_assert_int_eq(with_bit((double)mine[k], w.mask[i][k]) == mine[k], 1);
            }
            memcpy(w.model[i], mine, r.d * sizeof *mine); /* and is not to grow */
        }
        ck_assert_uint_eq(rounds_slot(&r, 77), 0); /* never heard of: the global model */
        for (uint32_t i = 0; i < count; i++) {
            fl_free(sent[i].q);
        }
    }
    for (uint32_t i = 0; i < w.count; i++) {
        fl_free(w.model[i]);
        fl_free(w.mask[i]);
    }
    fl_free(w.global);
    rounds_close(&r);
}
END_TEST

/* ---- what tells it from its neighbours ---- */

#define PUBLISHED(beta)                                                                            \
    "name: p\nstrategy: {fedcac: {variant: published, beta: " beta "}}\nrounds: 6\n" MODEL         \
    "round: {members: 4}\ngrid: {bits: 16, step: -10}\n"
static const char default_equal[] = "name: p\nstrategy: fedcac\nrounds: 6\n" MODEL
                                    "round: {members: 4}\ngrid: {bits: 16, step: -10}\n";

static void mean_of(const struct rounds *r, const struct sent *sent, uint32_t count, float *to)
{
    for (size_t k = 0; k < r->d; k++) {
        double sum = 0;
        for (uint32_t i = 0; i < count; i++) {
            sum += (double)(float)((double)rounds_model(r, sent[i].agent)[k] +
                                   ldexp((double)sent[i].q[k], r->grid.step)) /
                   count;
        }
        to[k] = (float)sum;
    }
}

/* Everybody sends the same: masks are all equal, and what comes out is FedAvg for everybody. */
START_TEST(test_equal_masks_are_fedavg)
{
    const char *const jobs[] = {PUBLISHED("100"), default_equal};

    for (size_t job = 0; job < FL_COUNT(jobs); job++) {
        struct rounds r;
        struct sent sent[4];
        struct fl_seed seed;
        struct fl_rng rng;

        rounds_open(&r, jobs[job], NULL);
        float *mean = fl_new(r.d, sizeof *mean);
        fl_seed_from_u64(3, &seed);
        fl_rng_init(&rng, &seed, 0);
        make_sent(&rng, &sent[0], 1, r.d);
        for (uint32_t i = 1; i < 4; i++) {
            sent[i] = (struct sent){1 + i, 1, sent[0].q};
        }
        sent[0].weight = 1;
        for (int round = 0; round < 3; round++) {
            mean_of(&r, sent, 4, mean);
            ck_assert_msg(rounds_do(&r, sent, 4, &e) == 0, "%s", e.msg);
            for (uint32_t i = 0; i < 4; i++) {
                for (size_t k = 0; k < r.d; k++) {
                    ck_assert_double_le(fabs((double)rounds_model(&r, 1 + i)[k] - (double)mean[k]),
                                        2.4e-7 * fabs((double)mean[k]) + 1e-12);
                }
            }
        }
        fl_free(mean);
        fl_free(sent[0].q);
        rounds_close(&r);
    }
}
END_TEST

/* Beyond beta critical weights are what their agent made of them, and all others the mean. */
START_TEST(test_beyond_beta_critical_weights_stay_at_home)
{
    struct rounds r;
    struct sent sent[4];
    struct fl_seed seed;
    struct fl_rng rng;

    rounds_open(&r, PUBLISHED("1"), NULL);
    fl_seed_from_u64(4, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (uint32_t i = 0; i < 4; i++) {
        make_sent(&rng, &sent[i], 1 + 3 * i, r.d);
        sent[i].weight = 1;
    }
    ck_assert_int_eq(rounds_do(&r, sent, 4, &e), 0);
    float *before = fl_new(4 * r.d, sizeof *before), *mean = fl_new(r.d, sizeof *mean);
    for (uint32_t i = 0; i < 4; i++) {
        memcpy(before + i * r.d, rounds_model(&r, sent[i].agent), r.d * sizeof *before);
    }
    mean_of(&r, sent, 4, mean);
    ck_assert_int_eq(rounds_do(&r, sent, 4, &e), 0);
    for (uint32_t i = 0; i < 4; i++) {
        uint8_t *mask = fl_new(r.d, 1);
        float *after = fl_new(r.d, sizeof *after);
        size_t own = 0;
        for (size_t k = 0; k < r.d; k++) {
            after[k] =
                (float)((double)before[i * r.d + k] + ldexp((double)sent[i].q[k], r.grid.step));
        }
        for (uint32_t t = 0; t < r.plan->layout.shared.count; t++) {
            twin_mask(before + i * r.d, after, &r.plan->layout.shared.at[t], mask);
        }
        for (size_t k = 0; k < r.d; k++) {
            ck_assert_float_eq(rounds_model(&r, sent[i].agent)[k], mask[k] ? after[k] : mean[k]);
            own += mask[k];
        }
        ck_assert_uint_ge(own, r.d / 2 - 3);
        ck_assert_uint_le(own, r.d / 2 + 20);
        fl_free(mask);
        fl_free(after);
        fl_free(sent[i].q);
    }
    fl_free(before);
    fl_free(mean);
    rounds_close(&r);
}
END_TEST

/* An agent keeps the running statistics that it sent (their last bits apart); for newcomers they
 * are averaged. */
START_TEST(test_running_statistics_stay_with_their_agent)
{
    static const char *const jobs[] = {"fedcac", "{fedcac: {variant: published, beta: 1}}"};
    char text[512];

    for (size_t job = 0; job < FL_COUNT(jobs); job++) {
        struct rounds r;
        struct sent sent[3];
        size_t buffers = 0;

        snprintf(
            text, sizeof text,
            "name: b\nstrategy: %s\nrounds: 6\nmodel: {input: [1, 6, 6], classes: 2, layers: "
            "[{conv2d: {out: 4, kernel: 3}}, {batch_norm: }, {relu: }, {flatten: }, {linear: "
            "{out: 2}}]}\ntrain: {lr: 0.1}\nround: {members: 3}\ngrid: {bits: 16, step: -10}\n",
            jobs[job]);
        rounds_open(&r, text, NULL);
        float *trained = fl_new(3 * r.d, sizeof *trained);
        for (uint32_t i = 0; i < 3; i++) {
            sent[i] = (struct sent){1 + i, 1, fl_new(r.d, sizeof *sent[i].q)};
            for (size_t k = 0; k < r.d; k++) {
                sent[i].q[k] = (int64_t)((k * (7 + i) + i) % 90) - 45;
                trained[i * r.d + k] =
                    (float)((double)r.models[k] + ldexp((double)sent[i].q[k], -10));
            }
        }
        ck_assert_int_eq(rounds_do(&r, sent, 3, &e), 0);
        for (uint32_t t = 0; t < r.plan->layout.shared.count; t++) {
            const struct fl_tensor *at = &r.plan->layout.shared.at[t];
            for (size_t k = at->offset; at->buffer && k < at->offset + at->count; k++) {
                for (uint32_t i = 0; i < 3; i++) {
                    double want = (double)trained[i * r.d + k];
                    double got = (double)rounds_model(&r, 1 + i)[k];
                    ck_assert_double_le(fabs(got - want), job ? 0 : 1.2e-7 * fabs(want));
                }
                double mean =
                    ((double)trained[k] + (double)trained[r.d + k] + (double)trained[2 * r.d + k]) /
                    3;
                ck_assert_double_le(fabs((double)r.models[k] - mean), 1.2e-7 * fabs(mean) + 1e-9);
                buffers++;
            }
        }
        ck_assert_uint_ge(buffers, 8); /* mean and variance of four channels */
        for (uint32_t i = 0; i < 3; i++) {
            fl_free(sent[i].q);
        }
        fl_free(trained);
        rounds_close(&r);
    }
}
END_TEST

/* ---- odd members ---- */

START_TEST(test_one_agent_none_and_nothing_moved)
{
    const char *const jobs[] = {PUBLISHED("100"), default_equal};

    for (size_t job = 0; job < FL_COUNT(jobs); job++) {
        struct rounds r;
        struct sent still[3];

        rounds_open(&r, jobs[job], NULL);
        ck_assert_int_eq(rounds_do(&r, NULL, 0, &e), 0); /* nobody */
        ck_assert_uint_eq(r.slots, 1);
        float *x = fl_new(r.d, sizeof *x);
        for (size_t k = 0; k < r.d; k++) {
            x[k] = r.models[k];
        }
        struct sent one = {4, 1, fl_new(r.d, sizeof *one.q)};
        for (size_t k = 0; k < r.d; k++) {
            one.q[k] = (int64_t)(k % 7) - 3;
        }
        ck_assert_int_eq(rounds_do(&r, &one, 1, &e), 0);
        ck_assert_uint_eq(r.slots, 2);
        for (size_t k = 0; k < r.d; k++) { /* what it trained, to the last bit but one */
            double want = (double)(float)((double)x[k] + ldexp((double)one.q[k], -10));
            ck_assert_float_eq(r.models[k], (float)want);
            ck_assert_double_le(fabs((double)rounds_model(&r, 4)[k] - want), 1.2e-7 * fabs(want));
        }
        memset(one.q, 0, r.d * sizeof *one.q);
        for (uint32_t i = 0; i < 3; i++) { /* updates of nothing but 0 */
            still[i] = (struct sent){4 + i, 1, one.q};
        }
        ck_assert_int_eq(rounds_do(&r, still, 3, &e), 0);
        ck_assert_uint_eq(r.slots, 4);
        for (size_t k = 0; k < r.d; k++) {
            ck_assert(isfinite(rounds_model(&r, 6)[k]));
            ck_assert_double_le(fabs((double)rounds_model(&r, 6)[k] - (double)r.models[k]),
                                4e-7 * fabs((double)r.models[k]));
        }
        struct sent twice[2] = {still[0], still[0]};
        ck_assert_int_eq(rounds_do(&r, twice, 2, &e), -FL_R_INTERNAL);
        ck_assert_str_eq(e.msg, "agent 4 is in one round twice");
        fl_free(x);
        fl_free(one.q);
        rounds_close(&r);
    }
}
END_TEST

START_TEST(test_homes_have_a_ceiling)
{
    static const char text[] = "name: p\nstrategy: {fedcac: {homes: 3}}\nrounds: 6\n" MODEL
                               "round: {members: 3}\ngrid: {bits: 16, step: -10}\n";
    static const uint64_t who[4][3] = {{1, 2, 3}, {2}, {7, 8}, {1, 2, 9}};
    struct rounds r;

    rounds_open(&r, text, NULL);
    int64_t *q = fl_new(r.d, sizeof *q);
    q[3] = 5;
    for (int round = 0; round < 4; round++) {
        struct sent sent[3];
        uint32_t count = 0;
        while (count < 3 && who[round][count]) {
            sent[count] = (struct sent){who[round][count], 1, q};
            count++;
        }
        ck_assert_msg(rounds_do(&r, sent, count, &e) == 0, "%s", e.msg);
        ck_assert_uint_eq(r.slots, 4);
        if (round == 2) { /* 1 and 3 were away for longest */
            ck_assert_uint_eq(rounds_slot(&r, 1), 0);
            ck_assert_uint_eq(rounds_slot(&r, 2), 1);
            ck_assert_uint_eq(rounds_slot(&r, 3), 0);
            ck_assert_uint_eq(rounds_slot(&r, 7), 2);
            ck_assert_uint_eq(rounds_slot(&r, 8), 3);
        }
    }
    ck_assert_uint_eq(rounds_slot(&r, 7), 0);
    struct sent four[4] = {{1, 1, q}, {2, 1, q}, {3, 1, q}, {4, 1, q}};
    ck_assert_int_eq(rounds_do(&r, four, 4, &e), -FL_R_LIMIT);
    fl_free(q);
    rounds_close(&r);
}
END_TEST

START_TEST(test_states_of_others_are_refused)
{
    struct rounds r;
    struct sent sent[2];

    rounds_open(&r, default_equal, NULL);
    int64_t *q = fl_new(r.d, sizeof *q);
    sent[0] = (struct sent){5, 1, q};
    sent[1] = (struct sent){9, 1, q};
    ck_assert_int_eq(rounds_do(&r, sent, 2, &e), 0);
    uint8_t *s = r.state;
#define REFUSED                                                                                    \
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size, &e), -FL_R_STORE_MISMATCH)
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size - 1, &e), -FL_R_STORE_MISMATCH);
    s[1] = 2; /* more homes than there is room for */
    REFUSED;
    s[1] = 0;
    s[4] = 9; /* the same agent twice */
    REFUSED;
    s[4] = 5;
    s[12] = 0; /* never took part */
    REFUSED;
    s[12] = 1;
    s[20] = 0; /* weighs nothing */
    REFUSED;
    s[20] = 1;
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size, &e), 0);
    struct fl_update u = {.agent = 1, .weight = 1, .size = r.size - 1};
    ck_assert_int_eq(r.strategy->fold(NULL, r.shared, &u, &e), -FL_R_UPDATE_LENGTH);
    u.size++;
    u.weight = 2;
    ck_assert_int_eq(r.strategy->fold(NULL, r.shared, &u, &e), -FL_R_UPDATE_RANGE);
    fl_free(q);
    rounds_close(&r);
}
END_TEST

TESTS_MAIN("fedcac", test_published_rounds_are_those_of_pytorch,
           test_default_agrees_with_its_naive_twin, test_equal_masks_are_fedavg,
           test_beyond_beta_critical_weights_stay_at_home,
           test_running_statistics_stay_with_their_agent, test_one_agent_none_and_nothing_moved,
           test_homes_have_a_ceiling, test_states_of_others_are_refused)
