/* Strategies under secure aggregation: the same next model, byte for byte, as without it. */
#include "common/math/grid.h"
#include "server/strategy/secure.h"
#include "tests/lib/check_main.h"
#include "tests/lib/next_memory.h"
#include "tests/lib/secagg_world.h"

#include <math.h>
#include <stdio.h>

enum { AGENTS = 9 };

static const uint8_t incarnation[16] = {3};

/* A job whose update has some ten thousand values. */
static struct fl_plan *job(const char *strategy, uint32_t bits, const char *more)
{
    struct fl_plan *p = fl_new(1, sizeof *p);
    char text[1024];
    struct fl_err e;

    int n = snprintf(text, sizeof text,
                     "name: secure\nstrategy: %s\nrounds: 3\n"
                     "model:\n  input: [90]\n  classes: 10\n  layers:\n"
                     "    - linear: {out: 101}\n    - linear: {out: 10}\n"
                     "train: {lr: 0.1}\nround: {members: %d, quorum: 6}\n"
                     "grid: {bits: %u, step: -10}\nserver: {lr: 0.5, momentum: 0.9}\n"
                     "secure_aggregation: {corrupt: 0.1, dropout: 0.2}\n%s",
                     strategy, AGENTS, bits, more);
    ck_assert_msg(fl_plan_parse(p, "job", text, (size_t)n, &e) == 0, "%s", e.msg);
    return p;
}

/* A strategy with one slot, and what its finish makes. */
struct made {
    const struct fl_strategy *strategy;
    void *shared, *slot;
    float *base, *next;
    uint8_t *state;
    size_t state_size;
    struct fl_next info;
};

static void made_open(struct made *m, const struct fl_plan *p)
{
    size_t d = p->layout.shared.elements;

    m->strategy = fl_strategy_find(p->strategy);
    ck_assert_ptr_nonnull(m->strategy);
    m->shared = fl_new(1, m->strategy->shared_size);
    ck_assert_int_eq(m->strategy->init(m->shared, p, NULL), 0);
    ck_assert_int_eq(m->strategy->slot_new(m->shared, &m->slot, NULL), 0);
    m->base = fl_new(d, sizeof *m->base);
    m->next = fl_new(d, sizeof *m->next);
    for (size_t i = 0; i < d; i++) {
        m->base[i] = (float)sin((double)i);
    }
}

static void made_finish(struct made *m, const struct fl_plan *p)
{
    struct next_memory memory = {
        .base = m->base, .next = m->next, .elements = p->layout.shared.elements};

    m->state_size = m->strategy->state_size(m->shared);
    m->state = fl_new(m->state_size + 1, 1);
    m->info = next_in_memory(&memory, 1, m->state, m->state_size);
    ck_assert_int_eq(m->strategy->finish(m->shared, &m->slot, 4, &m->info, NULL), 0);
}

static void made_close(struct made *m)
{
    m->strategy->slot_free(m->slot);
    m->strategy->fini(m->shared);
    fl_free(m->shared);
    fl_free(m->base);
    fl_free(m->next);
    fl_free(m->state);
}

/* One stage of the round as a coordinator's shell drives it. */
static int stage_run(struct sw *w, struct fl_secure *s, const void *shared,
                     enum fl_secagg_stage stage)
{
    for (uint32_t i = w->count; i-- > 0;) {
        struct sw_agent *a = &w->agent[i];
        if (a->error < 0 || a->leaves <= (uint32_t)stage) {
            continue;
        }
        if (stage > FL_SECAGG_ADVERTISE) {
            fl_secagg_bytes_free(&a->down);
            a->error = fl_secure_input(s, stage, a->id, &a->down.bytes, &a->down.size, &a->why);
        }
        if (a->error == 0) {
            a->error = sw_client_step(a, stage, &a->up[stage]);
        }
        if (a->error == 0) {
            const struct fl_update u = {.agent = a->id,
                                        .exchange = stage,
                                        .weight = 1,
                                        .size = a->up[stage].size,
                                        .read = sw_read,
                                        .arg = &a->up[stage]};
            a->error = fl_secure_fold(s, stage, &u, &a->why);
        }
    }
    return fl_secure_between(s, shared, NULL, &w->why);
}

static struct sw *agents(const struct fl_plan *p, struct fl_secure **ret)
{
    struct fl_secagg_setup setup;

    ck_assert_int_eq(fl_plan_secure_setup(p, incarnation, 2, 0, &setup, NULL), 0);
    struct sw *w = sw_new(&setup, AGENTS, setup.bits);
    for (uint32_t i = 0; i < AGENTS; i++) {
        struct sw_agent *a = &w->agent[i];
        ck_assert_int_eq(fl_secagg_client_new(&w->setup, &a->identity, &a->client, NULL), 0);
    }
    ck_assert_int_eq(
        fl_secure_new(p, fl_strategy_find(p->strategy), incarnation, 2, &w->identity, ret, NULL),
        0);
    return w;
}

static void compare(const char *strategy, uint32_t bits, bool ends)
{
    struct fl_plan *p = job(strategy, bits, "");
    const struct fl_grid g = {p->grid.bits, p->grid.step};
    size_t d = p->layout.shared.elements, size;
    struct made plain = {0}, secure = {0};
    struct fl_secure *s;
    struct sw *w = agents(p, &s);
    struct fl_updates made;

    w->agent[1].leaves = FL_SECAGG_MASK;
    w->agent[5].leaves = FL_SECAGG_SIGN;
    w->agent[8].leaves = FL_SECAGG_ADVERTISE;
    for (uint32_t i = 0; ends && i < AGENTS; i++) {
        for (size_t v = 0; v < d; v++) {
            w->agent[i].q[v] = v % 3 == 0 ? fl_grid_max(&g) : -fl_grid_max(&g);
        }
    }
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        ck_assert_msg(stage_run(w, s, NULL, (enum fl_secagg_stage)stage) == 0, "%s", w->why.msg);
    }
    made_open(&secure, p);
    ck_assert_int_eq(fl_secure_finish(s, secure.shared, &secure.slot, &made, NULL), 0);
    ck_assert_uint_eq(made.count, 7);
    made_finish(&secure, p);

    made_open(&plain, p);
    ck_assert(fl_grid_bytes(&g, d, &size));
    for (uint32_t i = 0; i < AGENTS; i++) {
        if (i != 1 && i != 8) {
            struct fl_secagg_bytes b = {fl_new(size, 1), size};
            const struct fl_update u = {
                .agent = w->agent[i].id, .weight = 1, .size = size, .read = sw_read, .arg = &b};
            ck_assert_uint_eq(fl_grid_pack(&g, w->agent[i].q, d, b.bytes), 0);
            ck_assert_int_eq(plain.strategy->fold(plain.slot, plain.shared, &u, NULL), 0);
            fl_free(b.bytes);
        }
    }
    made_finish(&plain, p);
    ck_assert_mem_eq(plain.next, secure.next, d * sizeof *plain.next);
    ck_assert_uint_eq(plain.state_size, secure.state_size);
    ck_assert(memcmp(plain.state, secure.state, plain.state_size) == 0);
    ck_assert_uint_eq(plain.info.members, secure.info.members);
    ck_assert_uint_eq(plain.info.weight, secure.info.weight);
    ck_assert(plain.info.update_norm == secure.info.update_norm && plain.info.update_norm > 0);
    made_close(&plain);
    made_close(&secure);
    fl_secure_free(s);
    sw_free(w);
    fl_free(p);
}

START_TEST(test_the_same_model)
{
    static const uint32_t widths[] = {8, 13, 16, 24, 32};

    for (size_t i = 0; i < FL_COUNT(widths); i++) {
        compare("fedavg", widths[i], false);
        compare("fedavg", widths[i], true);
    }
    compare("fedrep", 16, false);
    compare("hyperfl", 16, false);
}
END_TEST

/* Whatever else the table gets: who looks at single updates is refused, in words. */
START_TEST(test_who_needs_more_than_sums)
{
    struct fl_plan *p = job("fedavg", 16, "");
    struct fl_strategy curious = {.name = "krum", .needs = 0};
    struct fl_err e;
    const struct fl_strategy *s;

    for (size_t i = 0; (s = fl_strategy_at(i)); i++) {
        ck_assert_int_eq(fl_secure_check(p, s, &e),
                         s->needs & FL_STRATEGY_SUM_ONLY && !s->next_slots ? 0
                                                                           : -FL_R_PLAN_STRATEGY);
    }
    ck_assert_int_eq(fl_secure_check(p, &curious, &e), -FL_R_PLAN_STRATEGY);
    ck_assert_ptr_nonnull(strstr(e.msg, "krum looks at single updates"));
    p->secure.on = false;
    ck_assert_int_eq(fl_secure_check(p, &curious, &e), 0);
    fl_free(p);
}
END_TEST

/* Below the quorum of survivors there is no sum, and nothing to finish with. */
START_TEST(test_too_few)
{
    struct fl_plan *p = job("fedavg", 16, "");
    struct fl_secure *s;
    struct sw *w = agents(p, &s);
    struct made m = {0};
    struct fl_updates made = {.count = 99};

    for (uint32_t i = 0; i < 4; i++) {
        w->agent[i].leaves = FL_SECAGG_MASK;
    }
    ck_assert_int_eq(stage_run(w, s, NULL, FL_SECAGG_ADVERTISE), 0);
    ck_assert_int_eq(stage_run(w, s, NULL, FL_SECAGG_SHARE), 0);
    ck_assert_int_eq(stage_run(w, s, NULL, FL_SECAGG_MASK), -FL_R_SECAGG_FEW);
    made_open(&m, p);
    ck_assert_int_eq(fl_secure_finish(s, m.shared, &m.slot, &made, NULL), -FL_R_MSG_ORDER);
    ck_assert_uint_eq(made.count, 99);
    made_close(&m);
    fl_secure_free(s);
    sw_free(w);
    fl_free(p);
}
END_TEST

static struct fl_update object_of(struct sw_agent *a, enum fl_secagg_stage stage)
{
    return (struct fl_update){.agent = a->id,
                              .exchange = stage,
                              .weight = 1,
                              .size = a->up[stage].size,
                              .read = sw_read,
                              .arg = &a->up[stage]};
}

static void principal_of(const struct sw_agent *a, uint8_t ret[FL_SECAGG_PRINCIPAL_SIZE])
{
    struct fl_digest d;

    fl_digest_of(a->cert, sizeof a->cert, &d);
    memcpy(ret, d.bytes, sizeof d.bytes);
}

/* In every stage: what is judged good is what folds; each byte that is wrong is found before, and
 * judging changes nothing. */
START_TEST(test_judged_before_it_counts)
{
    struct fl_plan *p = job("fedavg", 16, "");
    struct fl_secure *s;
    struct sw *w = agents(p, &s);
    uint8_t own[FL_SECAGG_PRINCIPAL_SIZE], another[FL_SECAGG_PRINCIPAL_SIZE];
    struct fl_err e;

    principal_of(&w->agent[1], another);
    for (int i = 0; i < FL_SECAGG_STAGES; i++) {
        enum fl_secagg_stage stage = (enum fl_secagg_stage)i;
        ck_assert_int_eq(fl_secure_stage(s), stage);
        for (uint32_t k = 0; k < w->count; k++) {
            struct sw_agent *a = &w->agent[k];
            if (stage > FL_SECAGG_ADVERTISE) {
                fl_secagg_bytes_free(&a->down);
                ck_assert_int_eq(
                    fl_secure_input(s, stage, a->id, &a->down.bytes, &a->down.size, &e), 0);
            }
            ck_assert_int_eq(sw_client_step(a, stage, &a->up[stage]), 0);
        }
        for (uint32_t k = 0; k < w->count; k++) {
            struct fl_secagg_bytes *b = &w->agent[k].up[stage];
            struct fl_update u = object_of(&w->agent[k], stage);
            principal_of(&w->agent[k], own);
            for (size_t at = 0; k == 0 && at < b->size; at += at < 64 ? 7 : 1 + b->size / 50) {
                b->bytes[at] ^= 1;
                bool hidden = (stage == FL_SECAGG_MASK && at >= FL_SECAGG_HEAD_SIZE) ||
                              (stage == FL_SECAGG_SHARE && at >= FL_SECAGG_HEAD_SIZE) ||
                              (stage == FL_SECAGG_SIGN && at >= FL_SECAGG_HEAD_SIZE + 2 + SW_SIG);
                int r = fl_secure_judge(s, stage, &u, own, &e);
                ck_assert_msg(r < 0 || hidden, "stage %d: byte %zu", i, at);
                ck_assert_msg(r == 0 || r == -FL_R_SECAGG_OBJECT || r == -FL_R_SECAGG_KEYS ||
                                  r == -FL_R_SECAGG_SHARE,
                              "stage %d, byte %zu: %s", i, at, e.msg);
                b->bytes[at] ^= 1;
            }
            if (stage == FL_SECAGG_ADVERTISE && k == 0) { /* signed by a certificate, not its own */
                ck_assert_int_eq(fl_secure_judge(s, stage, &u, another, &e), -FL_R_SECAGG_KEYS);
            }
            ck_assert_int_eq(fl_secure_judge(s, stage, &u, own, &e), 0);
            ck_assert_int_eq(fl_secure_fold(s, stage, &u, &e), 0);
            ck_assert_int_eq(fl_secure_judge(s, stage, &u, own, &e), 0); /* the same again */
            if (k == 4) { /* the disk failed: all of it is told again */
                fl_secure_reset(s, stage);
                for (uint32_t j = 0; j <= k; j++) {
                    u = object_of(&w->agent[k - j], stage);
                    ck_assert_int_eq(fl_secure_fold(s, stage, &u, &e), 0);
                }
            }
        }
        if (stage > FL_SECAGG_ADVERTISE) { /* of a stage that is over nothing is forgotten */
            fl_secure_reset(s, (enum fl_secagg_stage)(stage - 1));
        }
        ck_assert_int_eq(fl_secure_between(s, NULL, NULL, &e), 0);
    }
    ck_assert_int_eq(fl_secure_stage(s), FL_SECAGG_STAGES);
    struct made m = {0};
    struct fl_updates made;
    made_open(&m, p);
    ck_assert_int_eq(fl_secure_finish(s, m.shared, &m.slot, &made, &e), 0);
    ck_assert_uint_eq(made.count, AGENTS);
    made_close(&m);
    fl_secure_free(s);
    sw_free(w);
    fl_free(p);
}
END_TEST

/* Payloads that are too long, weigh something, or come out of turn. */
START_TEST(test_payloads)
{
    struct fl_plan *p = job("fedavg", 16, "");
    struct fl_secure *s;
    struct sw *w = agents(p, &s);
    struct sw_agent *a = &w->agent[0];
    struct fl_err e;
    uint8_t *in;
    size_t in_size;

    ck_assert_int_eq(sw_client_step(a, FL_SECAGG_ADVERTISE, &a->up[0]), 0);
    struct fl_update u = {
        .agent = a->id, .weight = 2, .size = a->up[0].size, .read = sw_read, .arg = &a->up[0]};
    ck_assert_int_eq(fl_secure_fold(s, FL_SECAGG_ADVERTISE, &u, &e), -FL_R_UPDATE_RANGE);
    u.weight = 1;
    u.size = 1 << 20;
    ck_assert_int_eq(fl_secure_fold(s, FL_SECAGG_ADVERTISE, &u, &e), -FL_R_UPDATE_LENGTH);
    u.size = a->up[0].size;
    ck_assert_int_eq(fl_secure_fold(s, FL_SECAGG_SHARE, &u, &e), -FL_R_MSG_ORDER);
    ck_assert_int_eq(fl_secure_fold(s, FL_SECAGG_MASK, &u, &e), -FL_R_UPDATE_LENGTH);
    ck_assert_int_eq(fl_secure_fold(s, FL_SECAGG_STAGES, &u, &e), -FL_R_MSG_ORDER);
    ck_assert_int_eq(fl_secure_input(s, FL_SECAGG_SHARE, a->id, &in, &in_size, &e),
                     -FL_R_MSG_ORDER);
    ck_assert_int_eq(fl_secure_fold(s, FL_SECAGG_ADVERTISE, &u, &e), 0);
    ck_assert_int_eq(fl_secure_between(s, NULL, NULL, &e), -FL_R_SECAGG_FEW);
    fl_secure_free(s);
    sw_free(w);
    fl_free(p);
}
END_TEST

TESTS_MAIN("secure", test_the_same_model, test_who_needs_more_than_sums, test_too_few,
           test_judged_before_it_counts, test_payloads)
