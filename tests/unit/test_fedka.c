/* The strategy fedka: what its worker is given and answers, its state, embeddings of sites. The
 * worker is this file; the mean is FedAvg's, bit for bit. */
#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/fedka.h"
#include "server/strategy/strategy.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MEMBERS = 4, BITS = 24, STEP = -14 };

static struct fl_plan plan;
static struct fl_err err;

static struct bench {
    const struct fl_strategy *strategy;
    void *shared, *slot;
    size_t d, size;
    float *base, *next;
    uint8_t *packed[MEMBERS], *state;
    int64_t *q;
} b;

static int read_packed(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static void begin(const char *strategy, const char *more)
{
    const struct fl_grid g = {.bits = BITS, .step = STEP};
    char text[1024];

    snprintf(text, sizeof text,
             "name: j\nstrategy: %s\nrounds: 9\nmodel: {input: [4], classes: 2, head: 1, layers: "
             "[{linear: {out: 6}}, {leaky_relu: {}}, {linear: {out: 2}}]}\n"
             "train: {batch: 4, lr: 0.1}\nround: {members: %d}\ngrid: {bits: %d, step: %d}\n%s\n",
             strategy, MEMBERS, BITS, STEP, more);
    ck_assert_msg(fl_plan_parse(&plan, "job.yaml", text, strlen(text), &err) == 0, "%s", err.msg);
    b.strategy = fl_strategy_find(plan.strategy);
    b.shared = fl_new(1, b.strategy->shared_size);
    ck_assert_msg(b.strategy->init(b.shared, &plan, &err) == 0, "%s", err.msg);
    ck_assert_int_eq(b.strategy->slot_new(b.shared, &b.slot, &err), 0);
    b.d = plan.layout.shared.elements;
    ck_assert(fl_grid_bytes(&g, b.d, &b.size));
    b.base = fl_new(b.d, sizeof *b.base);
    b.next = fl_new(b.d, sizeof *b.next);
    b.state = fl_new(b.strategy->state_size(b.shared), 1);
    b.q = fl_new(MEMBERS * b.d, sizeof *b.q);
    for (size_t k = 0; k < b.d; k++) {
        b.base[k] = (float)k / 16;
    }
    for (size_t i = 0; i < MEMBERS; i++) {
        for (size_t k = 0; k < b.d; k++) {
            b.q[i * b.d + k] = (int64_t)((k * 31 + i * 977) % 5000) - 2500;
        }
        b.packed[i] = fl_new(b.size, 1);
        ck_assert_uint_eq(fl_grid_pack(&g, b.q + i * b.d, b.d, b.packed[i]), 0);
    }
}

static void end(void)
{
    b.strategy->slot_free(b.slot);
    b.strategy->fini(b.shared);
    fl_free(b.shared);
    fl_free(b.base);
    fl_free(b.next);
    fl_free(b.state);
    fl_free(b.q);
    for (size_t i = 0; i < MEMBERS; i++) {
        fl_free(b.packed[i]);
    }
    memset(&b, 0, sizeof b);
}

static struct fl_update update(uint32_t i, uint32_t exchange)
{
    return (struct fl_update){.agent = 10 + i,
                              .exchange = exchange,
                              .weight = 1,
                              .size = b.size,
                              .read = read_packed,
                              .arg = b.packed[i]};
}

static void fold_all(uint32_t exchange)
{
    for (uint32_t i = 0; i < MEMBERS; i++) {
        struct fl_update u = update(i, exchange);
        ck_assert_msg(b.strategy->fold(b.slot, b.shared, &u, &err) == 0, "%s", err.msg);
    }
}

/* ---- the worker ---- */

static struct {
    struct fl_fedka_score asked;
    uint32_t models;
    float *model[2 + MEMBERS];
    uint8_t *answer;
    size_t size;
} worker;

/* Answers with the mean of the model before and the aggregate, and with what is given. */
static void make_answer(const struct fl_fedka_score *score, double bandwidth)
{
    float mean[500] = {0.25f}, z[3 * 6] = {1, 2, 3};
    struct fl_fedka_input in = {.known = true,
                                .bandwidth = bandwidth,
                                .width = 6,
                                .length = 500,
                                .features = 3,
                                .mean = mean,
                                .z = z};
    size_t input = fl_fedka_input_size(&in);

    fl_free(worker.answer);
    worker.size = FL_FEDKA_ANSWER_HEAD + input + 4 * b.d;
    worker.answer = fl_new(worker.size, 1);
    fl_fedka_score_put(score, worker.answer);
    fl_put_u64(worker.answer + FL_FEDKA_SCORE_SIZE, input);
    fl_fedka_input_put(&in, worker.answer + FL_FEDKA_ANSWER_HEAD);
    for (size_t k = 0; k < b.d; k++) {
        fl_put_float(worker.answer + FL_FEDKA_ANSWER_HEAD + input + 4 * k, (float)k + 0.5f);
    }
}

static int work(void *arg, const struct fl_tune *what, uint8_t **ret, size_t *ret_size,
                struct fl_err *e)
{
    ck_assert_ptr_eq(arg, &worker);
    ck_assert_uint_eq(what->ask_size, FL_FEDKA_SCORE_SIZE);
    fl_fedka_score_get(what->ask, &worker.asked);
    worker.models = what->models;
    ck_assert_uint_le(what->models, 2 + MEMBERS);
    for (uint32_t i = 0; i < what->models; i++) {
        fl_free(worker.model[i]);
        worker.model[i] = fl_new(b.d, sizeof(float));
        ck_assert_int_eq(what->model(what->arg, i, worker.model[i], e), 0);
    }
    ck_assert_uint_le(worker.size, what->answer_max);
    *ret = fl_new(worker.size + 1, 1);
    memcpy(*ret, worker.answer, worker.size);
    *ret_size = worker.size;
    return 0;
}

static int finish(uint64_t round, bool with_worker)
{
    struct next_memory m = {.base = b.base, .next = b.next, .elements = b.d};
    struct fl_next next = next_in_memory(&m, 1, b.state, b.strategy->state_size(b.shared));
    struct fl_update all[MEMBERS];

    for (uint32_t i = 0; i < MEMBERS; i++) {
        all[i] = update(i, 0);
    }
    next.updates = (struct fl_updates){.count = MEMBERS, .at = all};
    next.round = round;
    next.tune = with_worker ? work : NULL;
    next.tune_arg = &worker;
    memset(&err, 0, sizeof err);
    return b.strategy->finish(b.shared, &b.slot, 0, &next, &err);
}

static void free_worker(void)
{
    for (size_t i = 0; i < FL_COUNT(worker.model); i++) {
        fl_free(worker.model[i]);
    }
    fl_free(worker.answer);
    memset(&worker, 0, sizeof worker);
}

START_TEST(test_the_worker_gets_the_models_and_its_answer_is_published)
{
    struct fl_fedka_score score = {.models = 4, .harm = 1, .kept = 2, .aggregate = 0.5};
    float *mean = fl_new(200, sizeof *mean);
    char note[400];

    begin("fedavg", "");
    fold_all(0);
    ck_assert_int_eq(finish(7, false), 0);
    memcpy(mean, b.next, b.d * sizeof *mean);
    end();

    begin("fedka", "");
    ck_assert_uint_le(b.d, 200);
    fold_all(0);
    make_answer(&score, 3);
    ck_assert_msg(finish(7, true) == 0, "%s", err.msg);
    ck_assert_uint_eq(worker.models, 2 + MEMBERS);
    ck_assert(worker.asked.round == 7 && worker.asked.models == MEMBERS && worker.asked.harm == 0);
    ck_assert_mem_eq(worker.model[0], b.base, b.d * sizeof *b.base);
    ck_assert_mem_eq(worker.model[1], mean, b.d * sizeof *mean);
    for (size_t i = 0; i < MEMBERS; i++) {
        for (size_t k = 0; k < b.d; k++) {
            float want = b.base[k] + (float)ldexp((double)b.q[i * b.d + k], STEP);
            ck_assert(worker.model[2 + i][k] == want);
        }
    }
    for (size_t k = 0; k < b.d; k++) {
        ck_assert(b.next[k] == (float)k + 0.5f);
    }

    /* The next round begins with what was answered, and its worker hears of this one's score. */
    void *again = fl_new(1, b.strategy->shared_size);
    uint8_t *input = NULL;
    size_t size = 0;
    struct fl_fedka_input in;
    float *numbers;
    ck_assert_int_eq(b.strategy->init(again, &plan, &err), 0);
    ck_assert_int_eq(b.strategy->load(again, b.state, b.strategy->state_size(b.shared), &err), 0);
    ck_assert_int_eq(b.strategy->input(again, 0, 10, &input, &size, &err), 0);
    ck_assert_int_eq(fl_fedka_input_get(&plan, input, size, &in, &numbers, &err), 0);
    ck_assert(in.known && in.bandwidth == 3 && in.features == 3 && in.mean[0] == 0.25f);
    b.strategy->note(again, note, sizeof note);
    ck_assert_ptr_nonnull(strstr(note, "published: the aggregate"));
    uint8_t *saved = fl_new(b.strategy->state_size(again), 1);
    b.strategy->save(again, saved);
    ck_assert_mem_eq(saved, b.state, b.strategy->state_size(again));
    void *first = b.shared;
    b.shared = again;
    ck_assert_int_eq(finish(8, true), 0);
    ck_assert(worker.asked.round == 8 && worker.asked.harm == 1 && worker.asked.kept == 2);
    b.shared = first;
    b.strategy->fini(again);
    fl_free(again);
    fl_free(saved);
    fl_free(input);
    fl_free(numbers);
    fl_free(mean);
    free_worker();
    end();
}
END_TEST

START_TEST(test_voters_are_drawn_where_there_are_too_many)
{
    struct fl_fedka_score score = {.models = 2};

    begin("{fedka: {voters: 2}}", "");
    fold_all(0);
    make_answer(&score, 1);
    ck_assert_int_eq(finish(1, true), 0);
    ck_assert_uint_eq(worker.models, 4);
    float first = worker.model[2][3];
    ck_assert_int_eq(finish(1, true), 0);
    ck_assert(worker.model[2][3] == first);
    free_worker();
    end();
}
END_TEST

START_TEST(test_answers_that_are_none)
{
    struct fl_fedka_score score = {.models = 4};

    begin("fedka", "");
    fold_all(0);
    ck_assert_int_eq(finish(1, false), -FL_R_PLAN_STRATEGY);
    make_answer(&score, 1);
    worker.size--;
    ck_assert_int_eq(finish(1, true), -FL_R_EXEC_ANSWER);
    worker.size = 3;
    ck_assert_int_eq(finish(1, true), -FL_R_EXEC_ANSWER);
    make_answer(&score, NAN);
    ck_assert_int_eq(finish(1, true), -FL_R_NOT_FINITE);
    make_answer(&score, 1);
    memset(worker.answer + worker.size - 4, 0xff, 4);
    ck_assert_int_eq(finish(1, true), -FL_R_NOT_FINITE);
    free_worker();
    end();
}
END_TEST

START_TEST(test_states_that_are_none)
{
    begin("fedka", "");
    size_t size = b.strategy->state_size(b.shared);
    b.strategy->save(b.shared, b.state);
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, size, &err), 0);
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, size - 1, &err), -FL_R_STORE_MISMATCH);
    fl_put_double(b.state + FL_FEDKA_SCORE_SIZE, -1);
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, size, &err), -FL_R_STORE_MISMATCH);
    fl_put_double(b.state + FL_FEDKA_SCORE_SIZE, 1);
    fl_put_u64(b.state + FL_FEDKA_SCORE_SIZE + 8, 5);
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, size, &err), -FL_R_STORE_MISMATCH);
    fl_put_u64(b.state + FL_FEDKA_SCORE_SIZE + 8, UINT64_MAX);
    ck_assert_int_eq(b.strategy->load(b.shared, b.state, size, &err), -FL_R_STORE_MISMATCH);
    end();
}
END_TEST

/* ---- embeddings of sites ---- */

static int fold_embedding(uint32_t agent, double value, bool claims)
{
    const struct fl_grid g = {.bits = FL_FEDKA_EMBEDDING_BITS, .step = FL_FEDKA_EMBEDDING_STEP};
    static int64_t q[501];
    static uint8_t packed[2004];
    struct fl_update u = {
        .agent = agent, .weight = 1, .size = sizeof packed, .read = read_packed, .arg = packed};

    for (size_t i = 0; i < 500; i++) {
        q[i] = llround(ldexp(value, -FL_FEDKA_EMBEDDING_STEP));
    }
    q[500] = claims ? 1 << 22 : 0;
    ck_assert_uint_eq(fl_grid_pack(&g, q, 501, packed), 0);
    return b.strategy->fold(b.slot, b.shared, &u, &err);
}

static struct fl_fedka_input begins_with(uint32_t exchange, uint64_t agent, float **numbers)
{
    struct fl_fedka_input in;
    uint8_t *bytes = NULL;
    size_t size = 0;

    ck_assert_int_eq(b.strategy->input(b.shared, exchange, agent, &bytes, &size, &err), 0);
    ck_assert_int_eq(fl_fedka_input_get(&plan, bytes, size, &in, numbers, &err), 0);
    fl_free(bytes);
    return in;
}

START_TEST(test_without_a_target_sites_get_the_mean_of_all)
{
    float *numbers;

    begin("{fedka: {target: none}}", "");
    struct fl_fedka_input in = begins_with(0, 10, &numbers);
    ck_assert(!in.known && in.bandwidth == 1 && !in.is_target);
    fl_free(numbers);
    ck_assert_int_eq(fold_embedding(10, 0.5, false), 0);
    ck_assert_int_eq(fold_embedding(11, 0.25, false), 0);
    ck_assert_int_eq(b.strategy->between(b.shared, &b.slot, 0, NULL, &err), 0);
    b.strategy->slot_reset(b.shared, b.slot);
    in = begins_with(1, 11, &numbers);
    ck_assert(in.known && in.mean[7] == 0.375f && !in.is_target);
    fl_free(numbers);
    fold_all(1);
    ck_assert_int_eq(finish(3, false), 0); /* no worker is wanted */
    /* Too much alike: 500 times 0.375^2 is far above 0.7, so the next bandwidth is half. */
    ck_assert(fl_get_double(b.state + FL_FEDKA_SCORE_SIZE) == 0.5);
    end();
    begin("{fedka: {target: none}}", "");
    uint32_t size = (uint32_t)(2004 - 1);
    struct fl_update u = {.agent = 1, .weight = 1, .size = size, .read = read_packed};
    ck_assert_int_eq(b.strategy->fold(b.slot, b.shared, &u, &err), -FL_R_UPDATE_LENGTH);
    end();
}
END_TEST

START_TEST(test_a_target_that_is_a_site_neither_trains_nor_counts)
{
    float *numbers, mean[200];

    begin("fedavg", "");
    for (uint32_t i = 0; i < MEMBERS; i++) {
        struct fl_update u = update(i, 0);
        ck_assert(i == 2 || b.strategy->fold(b.slot, b.shared, &u, &err) == 0);
    }
    ck_assert_int_eq(finish(1, false), 0);
    memcpy(mean, b.next, b.d * sizeof *mean);
    end();

    begin("{fedka: {target: site, site: harbour}}", "");
    for (uint32_t i = 0; i < MEMBERS; i++) {
        ck_assert_int_eq(fold_embedding(10 + i, i == 2 ? 0.125 : 0, i == 2), 0);
    }
    ck_assert_int_eq(b.strategy->between(b.shared, &b.slot, 0, NULL, &err), 0);
    b.strategy->slot_reset(b.shared, b.slot);
    struct fl_fedka_input in = begins_with(1, 12, &numbers);
    ck_assert(in.is_target && in.known && in.mean[0] == 0.125f);
    fl_free(numbers);
    in = begins_with(1, 13, &numbers);
    ck_assert(!in.is_target && in.mean[0] == 0.125f);
    fl_free(numbers);
    fold_all(1);
    ck_assert_int_eq(finish(1, false), 0);
    ck_assert_mem_eq(b.next, mean, b.d * sizeof *mean);

    /* Two that claim it: neither is believed. */
    b.strategy->slot_reset(b.shared, b.slot);
    ck_assert_int_eq(fold_embedding(12, 0.125, true), 0);
    ck_assert_int_eq(fold_embedding(13, 0.5, true), 0);
    ck_assert_int_eq(b.strategy->between(b.shared, &b.slot, 0, NULL, &err), 0);
    in = begins_with(1, 13, &numbers);
    ck_assert(!in.is_target && !in.known);
    fl_free(numbers);
    end();
}
END_TEST

TESTS_MAIN("fedka", test_the_worker_gets_the_models_and_its_answer_is_published,
           test_voters_are_drawn_where_there_are_too_many, test_answers_that_are_none,
           test_states_that_are_none, test_without_a_target_sites_get_the_mean_of_all,
           test_a_target_that_is_a_site_neither_trains_nor_counts)
