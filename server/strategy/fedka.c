/*
 * FedKA (common/plan/fedka.h) on the coordinator's side. The updates are averaged by FedAvg; around
 * it:
 *
 *   target: coordinator   when all updates are in, a worker process (next->tune) gets the model
 *                         before, the mean of the members' and the members' own. It lets them vote
 *                         on the target's examples, trains the mean on what they agree upon,
 *                         measures all of them on the labelled part, decides what is published, and
 *                         embeds the target by that model, for the members of the next round
 *   target: site, none    members send mean embeddings first (exchange `embedding`), and train
 *                         towards the target's, or the mean of all, of this very round. The
 *                         bandwidth cannot be seen from here: it is halved while the kernels say
 *                         that all examples are alike, and doubled while none are
 *
 * State: the last round's score, what `update` of the next round begins with, FedAvg's own.
 */
#include "server/strategy/fedka.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/fedka.h"
#include "server/strategy/mean.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NOWHERE UINT32_MAX

struct shared {
    struct fl_plan *plan;
    void *mean; /* FedAvg's */
    struct fl_grid grid;
    size_t elements, width, length, room;
    /* state */
    struct fl_fedka_score score;
    double bandwidth;
    size_t input_size; /* 0: nothing is known */
    uint8_t *input;    /* fl_fedka_input_put; `room` bytes */
    /* of this round, from `between` on */
    uint32_t embedded; /* the exchange, NOWHERE before */
    uint64_t target;   /* the agent that is the target, 0 = nobody */
    float *embedding;  /* length; NULL: none was made */
};

struct slot {
    void *mean;
    uint32_t sites;
    uint64_t target;
    uint32_t targets; /* who claim to be it */
    int64_t *sum;     /* length + 1; NULL: the plan collects no embeddings */
    uint8_t *packed;
};

#define MEAN (&fl_strategy_fedavg)

/* ---- shared ---- */

static size_t packed_size(const struct shared *s)
{
    return (s->length + 1) * FL_FEDKA_EMBEDDING_BITS / 8;
}

static void fedka_fini(void *shared)
{
    struct shared *s = shared;

    if (s->mean) {
        MEAN->fini(s->mean);
    }
    fl_free(s->mean);
    fl_free(s->input);
    fl_free(s->embedding);
    fl_free(s->plan);
    s->mean = NULL;
    s->input = NULL;
    s->embedding = NULL;
    s->plan = NULL;
}

static int fedka_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    struct shared *s = shared;
    struct fl_fedka_input most = {
        .known = true, .width = fl_fedka_width(plan), .length = fl_fedka_embedding(plan)};
    int r = 0;

    most.features = plan->setting.fedka.target == FL_FEDKA_COORDINATOR ? FL_FEDKA_FEATURES : 0;
    s->elements = plan->layout.shared.elements;
    s->width = most.width;
    s->length = most.length;
    s->room = fl_fedka_input_size(&most);
    s->grid = (struct fl_grid){.bits = plan->grid.bits, .step = plan->grid.step};
    s->bandwidth = 1; /* of directions: squared distances are 0 to 4 */
    s->embedded = NOWHERE;
    s->plan = fl_try(1, sizeof *s->plan);
    s->mean = fl_try(1, MEAN->shared_size);
    s->input = fl_try(s->room, 1);
    if (!s->plan || !s->mean || !s->input) {
        r = fl_fail(e, FL_R_NOMEM, "fedka's state of %zu bytes", s->room);
    } else {
        *s->plan = *plan;
        r = MEAN->init(s->mean, plan, e);
    }
    if (r) {
        fl_free(s->mean);
        s->mean = NULL;
        fedka_fini(s);
    }
    return r;
}

/* ---- state ---- */

static size_t own_size(const struct shared *s)
{
    return FL_FEDKA_SCORE_SIZE + 16 + s->room;
}

static size_t fedka_state_size(const void *shared)
{
    const struct shared *s = shared;
    return own_size(s) + MEAN->state_size(s->mean);
}

static void put_own(const struct shared *s, const struct fl_fedka_score *score, double bandwidth,
                    const uint8_t *input, size_t input_size, uint8_t *to)
{
    fl_fedka_score_put(score, to);
    to += FL_FEDKA_SCORE_SIZE;
    fl_put_double(to, bandwidth);
    fl_put_u64(to + 8, input_size);
    memset(to + 16, 0, s->room);
    memcpy(to + 16, input, input_size);
}

static void fedka_save(const void *shared, uint8_t *to)
{
    const struct shared *s = shared;

    put_own(s, &s->score, s->bandwidth, s->input, s->input_size, to);
    MEAN->save(s->mean, to + own_size(s));
}

static int fedka_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct shared *s = shared;
    const uint8_t *at = from + FL_FEDKA_SCORE_SIZE;
    struct fl_fedka_input in;
    float *numbers = NULL;
    int r = 0;

    if (size < own_size(s) || fl_get_u64(at + 8) > s->room) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "a state of %zu bytes is none of this job's", size);
    }
    double bandwidth = fl_get_double(at);
    size_t input_size = (size_t)fl_get_u64(at + 8);
    if (!(bandwidth > 0) || !isfinite(bandwidth)) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "a state whose bandwidth is %g", bandwidth);
    }
    if (input_size &&
        (r = fl_fedka_input_get(s->plan, at + 16, input_size, &in, &numbers, e)) != 0) {
        return r == -FL_R_NOMEM ? r : fl_wrap(e, -FL_R_STORE_MISMATCH, "the state");
    }
    fl_free(numbers);
    r = MEAN->load(s->mean, from + own_size(s), size - own_size(s), e);
    if (r == 0) {
        fl_fedka_score_get(from, &s->score);
        s->bandwidth = bandwidth;
        s->input_size = input_size;
        memcpy(s->input, at + 16, input_size);
    }
    return r;
}

/* ---- slots ---- */

static uint32_t fedka_slots(const void *shared)
{
    (void)shared;
    return 1;
}

static void fedka_slot_free(void *slot)
{
    struct slot *t = slot;

    if (t) {
        MEAN->slot_free(t->mean);
        fl_free(t->sum);
        fl_free(t->packed);
        fl_free(t);
    }
}

static int fedka_slot_new(const void *shared, void **ret, struct fl_err *e)
{
    const struct shared *s = shared;
    struct slot *t = fl_try(1, sizeof *t);
    int r = t ? MEAN->slot_new(s->mean, &t->mean, e) : fl_fail(e, FL_R_NOMEM, "a slot");

    if (r == 0 && fl_fedka_collects(s->plan)) {
        t->sum = fl_try(s->length + 1, sizeof *t->sum);
        t->packed = fl_try(packed_size(s), 1);
        r = t->sum && t->packed ? 0 : fl_fail(e, FL_R_NOMEM, "sums of %zu numbers", s->length);
    }
    if (r) {
        fedka_slot_free(t);
        return r;
    }
    *ret = t;
    return 0;
}

static void fedka_slot_reset(const void *shared, void *slot)
{
    const struct shared *s = shared;
    struct slot *t = slot;

    MEAN->slot_reset(s->mean, t->mean);
    t->sites = t->targets = 0;
    t->target = 0;
    if (t->sum) {
        memset(t->sum, 0, (s->length + 1) * sizeof *t->sum);
    }
}

static int fedka_place(const void *shared, const uint64_t *agents, uint32_t count,
                       uint32_t *ret_slot, struct fl_err *e)
{
    const struct shared *s = shared;
    return MEAN->place(s->mean, agents, count, ret_slot, e);
}

/* ---- embeddings of sites ---- */

/* Which of the two exchanges it is: embeddings come first. */
static bool is_embedding(const struct shared *s, uint32_t exchange)
{
    return fl_fedka_collects(s->plan) && (s->embedded == NOWHERE || exchange <= s->embedded);
}

static int fold_embedding(struct slot *t, const struct shared *s, const struct fl_update *u,
                          struct fl_err *e)
{
    const struct fl_grid g = {.bits = FL_FEDKA_EMBEDDING_BITS, .step = FL_FEDKA_EMBEDDING_STEP};
    bool one_site = s->plan->setting.fedka.target == FL_FEDKA_SITE;
    int64_t claims = 0;

    if (u->size != packed_size(s)) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "%llu bytes of embedding; %zu are expected",
                       (unsigned long long)u->size, packed_size(s));
    }
    int r = u->read(u->arg, 0, t->packed, packed_size(s), e);
    r = r ? r : fl_grid_unpack(&g, t->packed, packed_size(s), s->length, 1, &claims, e);
    if (r == 0 && (!one_site || claims)) {
        r = fl_grid_fold(&g, t->packed, packed_size(s), 0, s->length, 1, t->sum, e);
        t->target = one_site ? u->agent : 0;
        t->targets += one_site;
        t->sites++;
    }
    return r;
}

static int fedka_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e)
{
    const struct shared *s = shared;
    struct slot *t = slot;

    if (is_embedding(s, u->exchange)) {
        return fold_embedding(t, s, u, e);
    }
    if (s->target && u->agent == s->target) { /* it did not train: its zeros would count */
        return 0;
    }
    return MEAN->fold(t->mean, s->mean, u, e);
}

/* Two that claim to be the target: neither is believed, and the target of the round before stands.
 */
static int fedka_between(void *shared, void *const *slots, uint32_t exchange,
                         const struct fl_updates *updates, struct fl_err *e)
{
    struct shared *s = shared;
    const struct slot *t = slots[0];

    (void)updates;
    s->embedded = exchange;
    s->target = t->targets == 1 ? t->target : 0;
    fl_free(s->embedding);
    s->embedding = NULL;
    if (t->sites == 0 || t->targets > 1) {
        return 0;
    }
    s->embedding = fl_try(s->length, sizeof *s->embedding);
    if (!s->embedding) {
        return fl_fail(e, FL_R_NOMEM, "an embedding of %zu numbers", s->length);
    }
    for (size_t i = 0; i < s->length; i++) {
        s->embedding[i] =
            (float)(ldexp((double)t->sum[i], FL_FEDKA_EMBEDDING_STEP) / (double)t->sites);
    }
    return 0;
}

/* What the next `update` begins with if no embedding is made until then, and this one if one was.
 */
static struct fl_fedka_input collected(const struct shared *s)
{
    return (struct fl_fedka_input){.known = s->embedding != NULL,
                                   .bandwidth = s->bandwidth,
                                   .width = s->width,
                                   .length = s->length,
                                   .mean = s->embedding};
}

static int fedka_input(const void *shared, uint32_t exchange, uint64_t agent, uint8_t **ret,
                       size_t *ret_size, struct fl_err *e)
{
    const struct shared *s = shared;
    bool stored = s->input_size > 0 && !s->embedding && !is_embedding(s, exchange);
    struct fl_fedka_input in = collected(s);

    in.known = in.known && !is_embedding(s, exchange);
    in.is_target = s->target && agent == s->target;
    size_t size = stored ? s->input_size : fl_fedka_input_size(&in);
    uint8_t *bytes = fl_try(size, 1);
    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "an embedding of %zu bytes", size);
    }
    if (stored) {
        memcpy(bytes, s->input, size);
    } else {
        fl_fedka_input_put(&in, bytes);
    }
    *ret = bytes;
    *ret_size = size;
    return 0;
}

/* The mean of k over pairs of examples, by the embedding itself: of single kernels in their middle
 * when the bandwidth fits. */
static double next_bandwidth(const struct shared *s)
{
    double k = 0;

    if (!s->embedding || s->plan->privacy.unit != FL_UNIT_NONE) { /* noise would be taken for k */
        return s->bandwidth;
    }
    for (size_t i = 0; i < s->length; i++) {
        k += (double)s->embedding[i] * (double)s->embedding[i];
    }
    return k > 0.7 ? s->bandwidth / 2 : k < 0.2 ? s->bandwidth * 2 : s->bandwidth;
}

/* ---- finish ---- */

/* FedAvg's next model, in memory. */
struct aggregate {
    const struct shared *s;
    struct fl_next *next;
    float *model;
    const uint32_t *voters;
};

static int take_base(void *arg, uint32_t slot, size_t first, size_t count, float *to,
                     struct fl_err *e)
{
    const struct aggregate *a = arg;
    return a->next->base(a->next->arg, slot, first, count, to, e);
}

static int take_put(void *arg, uint32_t slot, size_t first, size_t count, const float *values,
                    struct fl_err *e)
{
    const struct aggregate *a = arg;

    (void)slot;
    (void)e;
    memcpy(a->model + first, values, count * sizeof *values);
    return 0;
}

static int average(const struct shared *s, const struct slot *t, uint32_t exchange,
                   struct aggregate *a, struct fl_err *e)
{
    struct fl_next inner = *a->next;

    inner.base = take_base;
    inner.put = take_put;
    inner.arg = a;
    inner.state = a->next->state + own_size(s);
    inner.state_size = a->next->state_size - own_size(s);
    int r = MEAN->finish(s->mean, &t->mean, exchange, &inner, e);
    a->next->members = inner.members;
    a->next->weight = inner.weight;
    a->next->update_norm = inner.update_norm;
    return r;
}

/* The model before, the aggregate, members' own: what they received and their update. */
static int make_model(void *arg, uint32_t i, float *to, struct fl_err *e)
{
    const struct aggregate *a = arg;
    const struct shared *s = a->s;
    size_t values = (size_t)FL_STRATEGY_TILE * 8 / s->grid.bits / 64 * 64;
    double step = ldexp(1, s->grid.step);
    int64_t q[256];
    int r = 0;

    if (i == 1) {
        memcpy(to, a->model, s->elements * sizeof *to);
        return 0;
    }
    r = a->next->base(a->next->arg, 0, 0, s->elements, to, e);
    if (i == 0 || r) {
        return r;
    }
    const struct fl_update *u = &a->next->updates.at[a->voters[i - 2]];
    uint8_t *tile = fl_try_aligned(FL_STRATEGY_TILE, 1);
    r = tile ? 0 : fl_fail(e, FL_R_NOMEM, "a tile");
    for (size_t first = 0, offset = 0; r == 0 && first < s->elements; first += values) {
        size_t count = s->elements - first < values ? s->elements - first : values;
        size_t bytes = (count * s->grid.bits + 7) / 8;
        r = u->read(u->arg, offset, tile, bytes, e);
        for (size_t k = 0; r == 0 && k < count; k += FL_COUNT(q)) {
            size_t n = count - k < FL_COUNT(q) ? count - k : FL_COUNT(q);
            r = fl_grid_unpack(&s->grid, tile, bytes, k, n, q, e);
            for (size_t j = 0; r == 0 && j < n; j++) {
                to[first + k + j] += (float)((double)q[j] * step);
            }
        }
        offset += bytes;
    }
    fl_free(tile);
    return r;
}

/* Who votes, where there are more members than the plan wants to: drawn by job and round. */
static int draw_voters(const struct shared *s, const struct fl_next *next, uint32_t **ret,
                       uint32_t *ret_count, struct fl_err *e)
{
    uint32_t n = next->updates.count, most = s->plan->setting.fedka.voters;
    uint32_t *order = fl_try(n ? n : 1, sizeof *order);
    struct fl_seed job, own;
    struct fl_rng rng;

    if (!order) {
        return fl_fail(e, FL_R_NOMEM, "the order of %u members", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    if (n > most) {
        fl_seed_from_u64(s->plan->seed, &job);
        fl_seed_derive(&job, "fedka voters", next->round, &own);
        fl_rng_init(&rng, &own, 0);
        fl_rng_shuffle(&rng, order, n);
        fl_rng_fini(&rng);
    }
    *ret = order;
    *ret_count = n < most ? n : most;
    return 0;
}

/* The worker's answer: its model into a->model, the rest into the next state. */
static int take_answer(const struct shared *s, struct aggregate *a, const uint8_t *answer,
                       size_t size, struct fl_err *e)
{
    struct fl_fedka_score score;
    struct fl_fedka_input in;
    float *numbers = NULL;
    size_t rest = 4 * s->elements;

    if (size < FL_FEDKA_ANSWER_HEAD + rest ||
        fl_get_u64(answer + FL_FEDKA_SCORE_SIZE) != size - FL_FEDKA_ANSWER_HEAD - rest ||
        size - FL_FEDKA_ANSWER_HEAD - rest > s->room) {
        return fl_fail(e, FL_R_EXEC_ANSWER, "%zu bytes of a worker's answer", size);
    }
    size_t input_size = size - FL_FEDKA_ANSWER_HEAD - rest;
    const uint8_t *input = answer + FL_FEDKA_ANSWER_HEAD, *model = input + input_size;
    int r = fl_fedka_input_get(s->plan, input, input_size, &in, &numbers, e);
    fl_free(numbers);
    for (size_t i = 0; r == 0 && i < s->elements; i++) {
        a->model[i] = fl_get_float(model + 4 * i);
        if (!isfinite(a->model[i])) {
            r = fl_fail(e, FL_R_NOT_FINITE, "element %zu of the tuned model is not finite", i);
        }
    }
    if (r == 0) {
        fl_fedka_score_get(answer, &score);
        score.round = a->next->round;
        put_own(s, &score, in.bandwidth, input, input_size, a->next->state);
    }
    return r;
}

static int tune(const struct shared *s, struct aggregate *a, struct fl_err *e)
{
    struct fl_fedka_score ask = s->score;
    uint8_t bytes[FL_FEDKA_SCORE_SIZE], *answer = NULL;
    struct fl_tune what = {.ask = bytes,
                           .ask_size = sizeof bytes,
                           .model = make_model,
                           .arg = a,
                           .answer_max = FL_FEDKA_ANSWER_HEAD + s->room + 4 * s->elements};
    uint32_t *voters = NULL;
    size_t size = 0;

    if (!a->next->tune) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "this coordinator has no target data");
    }
    ask.round = a->next->round;
    int r = draw_voters(s, a->next, &voters, &ask.models, e);
    a->voters = voters;
    what.models = 2 + ask.models;
    fl_fedka_score_put(&ask, bytes);
    r = r ? r : a->next->tune(a->next->tune_arg, &what, &answer, &size, e);
    r = r ? r : take_answer(s, a, answer, size, e);
    fl_free(voters);
    fl_free(answer);
    return r;
}

/* What the sites' own embeddings leave to the next round. */
static int keep(const struct shared *s, struct fl_next *next, struct fl_err *e)
{
    struct fl_fedka_input in = collected(s);
    struct fl_fedka_score score = {.round = next->round};
    size_t size = s->embedding ? fl_fedka_input_size(&in) : s->input_size;
    uint8_t *bytes = fl_try(size ? size : 1, 1);

    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "an embedding of %zu bytes", size);
    }
    if (s->embedding) {
        fl_fedka_input_put(&in, bytes);
    } else {
        memcpy(bytes, s->input, size);
    }
    put_own(s, &score, next_bandwidth(s), bytes, size, next->state);
    fl_free(bytes);
    return 0;
}

static int fedka_finish(const void *shared, void *const *slots, uint32_t exchange,
                        struct fl_next *next, struct fl_err *e)
{
    const struct shared *s = shared;
    struct aggregate a = {
        .s = s, .next = next, .model = fl_try_aligned(s->elements, sizeof *a.model)};
    int r = a.model ? average(s, slots[0], exchange, &a, e)
                    : fl_fail(e, FL_R_NOMEM, "a model of %zu elements", s->elements);

    if (r == 0) {
        r = s->plan->setting.fedka.target == FL_FEDKA_COORDINATOR ? tune(s, &a, e)
                                                                  : keep(s, next, e);
    }
    r = r ? r : next->put(next->arg, 0, 0, s->elements, a.model, e);
    fl_free(a.model);
    return r;
}

/* ---- for people ---- */

static void fedka_note(const void *shared, char *to, size_t size)
{
    static const char *const chosen[] = {[FL_FEDKA_AGGREGATE] = "the aggregate",
                                         [FL_FEDKA_TUNED] = "the aggregate, trained on the votes",
                                         [FL_FEDKA_PREVIOUS] =
                                             "the model before, since the aggregate hurts"};
    const struct shared *s = shared;
    const struct fl_fedka_score *c = &s->score;
    size_t n = 0;

    to[0] = 0;
    if (c->round == 0 || s->plan->setting.fedka.target != FL_FEDKA_COORDINATOR) {
        return;
    }
    if (c->labelled) {
        n = (size_t)snprintf(
            to, size,
            "Group Effect %+.1f points (aggregate %.1f %%, members %.1f %%, before "
            "%.1f %%, of %u labelled); ",
            100 * fl_fedka_effect(c), 100 * c->aggregate, 100 * c->members, 100 * c->previous,
            c->labelled);
    } else {
        n = (size_t)snprintf(to, size,
                             "Group Effect not measured: the target has no labelled "
                             "part; ");
    }
    if (n < size && c->examples) {
        n += (size_t)snprintf(to + n, size - n, "%u of %u votes agreed", c->agreed, c->examples);
        if (n < size && c->labelled && c->agreed) {
            n += (size_t)snprintf(to + n, size - n, ", trained on them %.1f %%", 100 * c->tuned);
        }
        n += n < size ? (size_t)snprintf(to + n, size - n, "; ") : 0;
    }
    if (n < size) {
        snprintf(to + n, size - n, "published: %s (kept so %u times)", chosen[c->choice], c->kept);
    }
}

const struct fl_strategy fl_strategy_fedka = {
    .name = "fedka",
    .shared_size = sizeof(struct shared),
    .init = fedka_init,
    .fini = fedka_fini,
    .slots = fedka_slots,
    .slot_new = fedka_slot_new,
    .slot_reset = fedka_slot_reset,
    .slot_free = fedka_slot_free,
    .place = fedka_place,
    .fold = fedka_fold,
    .between = fedka_between,
    .input = fedka_input,
    .finish = fedka_finish,
    .state_size = fedka_state_size,
    .save = fedka_save,
    .load = fedka_load,
    .note = fedka_note,
};
