/* pFedHN: rounds of PyTorch's autograd (tests/golden/pfedhn.py), what a job begins with, that
 * embeddings come apart, and states that are refused. */
#include "common/base/le.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"
#include "tests/lib/personal_rounds.h"

#include <stdio.h>

static struct fl_err e;

static float *tensor(const struct fl_tensor_file *f, const char *name, size_t *ret_count)
{
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);

    if (!t) {
        return NULL;
    }
    float *x = fl_new(t->count, sizeof *x);
    fl_tensor_file_get(f, t, x);
    *ret_count = t->count;
    return x;
}

static float *of_round(const struct fl_tensor_file *f, uint64_t round, const char *what, uint32_t i)
{
    char name[64];
    size_t n;

    snprintf(name, sizeof name, "round%u.%s%u", (unsigned)round, what, i);
    return tensor(f, name, &n);
}

static void check_close(const float *a, float *b, size_t d, const char *what)
{
    double large = 0, far = 0;

    for (size_t k = 0; k < d; k++) {
        large = fmax(large, fabs((double)b[k]));
        far = fmax(far, fabs((double)a[k] - (double)b[k]));
    }
    ck_assert_msg(far < 3e-6 * large, "%s: %g of %g", what, far, large);
    fl_free(b);
}

enum { HOMES = 6, BEGUN = 4 + 20 * HOMES, VALUES = BEGUN + 4 };

/* h, embeddings and models as the file has them begin: after a round that three agents were in. */
static void begin(struct rounds *r, const struct fl_tensor_file *f)
{
    size_t n = 0;
    float *x = tensor(f, "begin", &n);

    ck_assert_uint_eq(r->state_size, VALUES + 4 * n);
    fl_put_u32(r->state, 3);
    for (uint32_t i = 0; i < 3; i++) {
        fl_put_u64(r->state + 4 + 20 * i, 10 + 3 * i);
        fl_put_u64(r->state + 12 + 20 * i, 1);
        fl_put_u32(r->state + 20 + 20 * i, 1);
    }
    fl_put_u32(r->state + BEGUN, 1);
    for (size_t i = 0; i < n; i++) {
        fl_put_float(r->state + VALUES + 4 * i, x[i]);
    }
    ck_assert_msg(r->strategy->load(r->shared, r->state, r->state_size, &e) == 0, "%s", e.msg);
    fl_free(x);
    fl_free(r->models);
    r->models = tensor(f, "models", &n);
    r->slots = 4;
    ck_assert_uint_eq(n, r->slots * r->d);
}

static void golden(const char *path)
{
    enum { AGENTS = 4 };
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    struct rounds r;
    size_t n;

    ck_assert_msg(fl_tensor_file_open(path, 1 << 20, f, &e) == 0, "%s", e.msg);
    float *weights = tensor(f, "weights", &n);
    rounds_open(&r, fl_tensor_file_meta(f, "job"), NULL);
    begin(&r, f);
    while (r.round < 3) {
        struct sent sent[AGENTS];
        uint32_t count = 0;
        for (uint32_t i = 0; i < AGENTS; i++) {
            float *q = of_round(f, r.round + 1, "steps", i);
            if (q) {
                sent[count] =
                    (struct sent){10 + 3 * i, (uint32_t)weights[i], fl_new(r.d, sizeof(int64_t))};
                for (size_t k = 0; k < r.d; k++) {
                    sent[count].q[k] = (int64_t)q[k];
                }
                count++;
            }
            fl_free(q);
        }
        ck_assert_uint_ge(count, 3);
        ck_assert_msg(rounds_do(&r, sent, count, &e) == 0, "%s", e.msg);
        check_close(r.models, of_round(f, r.round, "mean", 0), r.d, "newcomers");
        for (uint32_t i = 0; i < AGENTS; i++) {
            float *want = of_round(f, r.round, "next", i);
            ck_assert(want != NULL || (r.round == 1 && i == 3));
            if (want) {
                check_close(rounds_model(&r, 10 + 3 * i), want, r.d, "an agent");
            }
        }
        while (count > 0) {
            fl_free(sent[--count].q);
        }
    }
    fl_free(weights);
    fl_tensor_file_close(f);
    fl_free(f);
    rounds_close(&r);
}

START_TEST(test_rounds_are_those_of_pytorch)
{
    golden(TEST_SOURCE_ROOT "/tests/golden/pfedhn_published.safetensors");
    golden(TEST_SOURCE_ROOT "/tests/golden/pfedhn_better.safetensors");
}
END_TEST

static const char job[] = "name: p\nstrategy: pfedhn\nrounds: 40\nmodel: {input: [30], classes: 3, "
                          "layers: [{linear: {out: 200}}, {relu: {}}, {linear: {out: 3}}]}\n"
                          "train: {lr: 0.1}\nround: {members: 6}\ngrid: {bits: 24, step: -18}\n";

/* The model is larger than a tile here. Updates of nothing leave every model where it was: h begins
 * with the initial one, whatever that is. */
START_TEST(test_a_job_begins_with_its_initial_model)
{
    struct rounds r;
    struct sent sent[6];

    rounds_open(&r, job, NULL);
    ck_assert_uint_gt(r.d, 4096);
    ck_assert_int_eq(rounds_do(&r, NULL, 0, &e), 0); /* nobody */
    ck_assert_uint_eq(r.slots, 1);
    ck_assert_uint_eq(fl_get_u32(r.state + 4 + 20 * 256), 0);
    float *x = fl_new(r.d, sizeof *x);
    memcpy(x, r.models, r.d * sizeof *x);
    int64_t *q = fl_new(r.d, sizeof *q);
    for (uint32_t i = 0; i < 6; i++) {
        sent[i] = (struct sent){1 + i, 1, q};
    }
    ck_assert_int_eq(rounds_do(&r, sent, 6, &e), 0);
    ck_assert_uint_eq(r.slots, 7);
    for (uint32_t i = 0; i < 7; i++) {
        for (size_t k = 0; k < r.d; k++) {
            ck_assert_double_eq_tol((double)rounds_model(&r, i)[k], (double)x[k], 1e-6);
        }
    }
    ck_assert_double_le(r.update_norm, 1e-4);
    fl_free(q);
    fl_free(x);
    rounds_close(&r);
}
END_TEST

/* Two kinds of agents, each drawn to a model of its kind: they get different models, alike within a
 * kind, and near to what they want; one that comes late gets something in between. */
START_TEST(test_embeddings_come_apart_by_what_agents_want)
{
    struct rounds r;
    struct fl_seed seed;
    struct fl_rng rng;
    struct sent sent[6];
    double off = 0, begun = 0, between = 0, within = 0;

    rounds_open(&r, job, NULL);
    fl_seed_from_u64(3, &seed);
    fl_rng_init(&rng, &seed, 0);
    float *want = fl_new(2 * r.d, sizeof *want);
    for (size_t k = 0; k < 2 * r.d; k++) {
        want[k] = r.models[k % r.d] + (float)(0.05 * fl_rng_normal(&rng));
    }
    for (uint32_t i = 0; i < 6; i++) {
        sent[i] = (struct sent){1 + i, 1, fl_new(r.d, sizeof(int64_t))};
    }
    for (size_t k = 0; k < r.d; k++) {
        begun += pow((double)(want[k] - r.models[k]), 2);
    }
    for (int round = 0; round < 40; round++) {
        for (uint32_t i = 0; i < 6; i++) {
            const float *now = rounds_model(&r, 1 + i), *to = want + (i % 2) * r.d;
            for (size_t k = 0; k < r.d; k++) {
                sent[i].q[k] = llround(ldexp(0.5 * (double)(to[k] - now[k]), 18));
            }
        }
        ck_assert_msg(rounds_do(&r, sent, 6, &e) == 0, "%s", e.msg);
    }
    for (size_t k = 0; k < r.d; k++) {
        off += pow((double)(want[k] - rounds_model(&r, 1)[k]), 2);
        between += pow((double)(rounds_model(&r, 1)[k] - rounds_model(&r, 2)[k]), 2);
        within += pow((double)(rounds_model(&r, 1)[k] - rounds_model(&r, 3)[k]), 2);
    }
    ck_assert_msg(off < 0.2 * begun, "%g of %g", off, begun);
    ck_assert_msg(within < 0.01 * between, "%g of %g", within, between);
    for (uint32_t i = 0; i < 6; i++) {
        fl_free(sent[i].q);
    }
    fl_free(want);
    rounds_close(&r);
}
END_TEST

START_TEST(test_states_and_plans_that_are_refused)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct rounds r;
    char text[1024];

    rounds_open(&r, job, NULL);
    uint8_t *s = r.state;
    size_t begun = 4 + 20 * 256;
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size - 4, &e), -FL_R_STORE_MISMATCH);
    fl_put_u32(s + begun, 2);
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size, &e), -FL_R_STORE_MISMATCH);
    fl_put_u32(s + begun, 0);
    fl_put_float(s + r.state_size - 4, INFINITY);
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size, &e), -FL_R_STORE_MISMATCH);
    ck_assert_ptr_nonnull(strstr(e.msg, "is not finite"));
    fl_put_float(s + r.state_size - 4, 0);
    ck_assert_int_eq(r.strategy->load(r.shared, s, r.state_size, &e), 0);
    rounds_close(&r);
    static const struct {
        const char *strategy, *more;
        int reason;
        const char *says;
    } bad[] = {
        {"{pfedhn: {hidden: 1024}}", "", FL_R_CONF_RANGE, "a hypernetwork of"},
        {"pfedhn", "secure_aggregation: {}", FL_R_PLAN_STRATEGY, "secure_aggregation hides"},
        {"pfedhn", "server: {momentum: 0.5}", FL_R_CONF_CONFLICT, "no mean update"},
    };
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        snprintf(text, sizeof text,
                 "name: p\nstrategy: %s\nrounds: 4\nmodel: {input: [1000], classes: 3, layers: "
                 "[{linear: {out: 1000}}, {relu: {}}, {linear: {out: 3}}]}\ntrain: {lr: 0.1}\n"
                 "round: {members: 6}\n%s\n",
                 bad[i].strategy, bad[i].more);
        ck_assert_int_eq(fl_plan_parse(plan, "job", text, strlen(text), &e), -bad[i].reason);
        ck_assert_msg(strstr(e.msg, bad[i].says) != NULL, "%s", e.msg);
    }
    fl_free(plan);
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    struct rounds r;
    int status = -1;

    rounds_open(&r, job, NULL);
    struct sent one = {4, 1, fl_new(r.d, sizeof *one.q)};
    void *shared = fl_new(1, r.strategy->shared_size);
    for (uint64_t n = 1; status != 0; n++) {
        memset(shared, 0, r.strategy->shared_size);
        fl_mem_fail_at(n);
        status = r.strategy->init(shared, r.plan, &e);
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert(status == 0 || (status == -FL_R_NOMEM && hit));
        if (status == 0) {
            r.strategy->fini(shared);
        }
    }
    fl_free(shared);
    struct next_memory m = {.base = r.models, .elements = r.d};
    struct fl_update u = {.agent = 4, .weight = 1, .size = r.size, .read = rounds_read};
    u.arg = fl_new(r.size, 1);
    ck_assert_uint_eq(fl_grid_pack(&r.grid, one.q, r.d, u.arg), 0);
    m.next = fl_new(2 * r.d, sizeof *m.next);
    status = -1;
    for (uint64_t n = 1; status != 0; n++) {
        struct fl_next next = next_in_memory(&m, 1, r.state, r.state_size);
        next.put_count = 2;
        next.updates = (struct fl_updates){.count = 1, .at = &u};
        next.round = 1;
        fl_mem_fail_at(n);
        status = r.strategy->finish(r.shared, NULL, 0, &next, &e);
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert(status == 0 || (status == -FL_R_NOMEM && hit));
    }
    fl_free(u.arg);
    fl_free(one.q);
    fl_free(m.next);
    rounds_close(&r);
}
END_TEST

TESTS_MAIN("pfedhn", test_rounds_are_those_of_pytorch, test_a_job_begins_with_its_initial_model,
           test_embeddings_come_apart_by_what_agents_want, test_states_and_plans_that_are_refused,
           test_every_allocation_may_fail)
