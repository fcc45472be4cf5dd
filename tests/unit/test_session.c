/*
 * An agent's secrets between the stages of a secure sum: with real certificates, what a session
 * gives once it gives never again, and nobody finds a session but the sum it was begun for.
 */
#include "client/session.h"
#include "common/wire/tls_sign.h"
#include "server/strategy/secure.h"
#include "tests/lib/certs.h"
#include "tests/lib/check_main.h"
#include "tests/lib/secagg_world.h"

#include <stdio.h>

enum { AGENTS = 3 };

static const char *const names[AGENTS] = {"site-1", "site-2", "revoked"};
static struct fl_err e;

static struct fl_plan *job(const char *more)
{
    struct fl_plan *p = fl_new(1, sizeof *p);
    char text[512];

    int n = snprintf(text, sizeof text,
                     "name: secure\nstrategy: fedavg\nrounds: 3\n"
                     "model: {input: [4], classes: 2, layers: [{linear: {out: 2}}]}\n"
                     "train: {lr: 0.1}\nround: {members: 3, quorum: 3}\n"
                     "secure_aggregation: {corrupt: 0, dropout: 0}\n%s",
                     more);
    ck_assert_msg(fl_plan_parse(p, "job", text, (size_t)n, &e) == 0, "%s", e.msg);
    return p;
}

static int verify(void *arg, const uint8_t *cert, uint32_t cert_size, const uint8_t *m, size_t size,
                  const uint8_t *sig, uint32_t sig_size, uint8_t *ret, struct fl_err *err)
{
    struct fl_identity who;
    int r = fl_tls_verify(arg, cert, cert_size, m, size, sig, sig_size, &who, err);

    if (r == 0) {
        memcpy(ret, who.key, sizeof who.key);
    }
    return r;
}

struct world {
    struct fl_plan *plan;
    struct fl_tls_conf *server, *tls[AGENTS];
    struct fl_sessions *sessions[AGENTS];
    struct fl_secagg_identity identity;
    struct fl_secure *secure;
    struct fl_key key;
    int64_t *q[AGENTS];
};

static void world_open(struct world *w)
{
    memset(w, 0, sizeof *w);
    certs_make();
    w->plan = job("");
    w->key = (struct fl_key){.incarnation = {7}, .round = 2};
    w->server = certs_conf(true, "server", NULL);
    w->identity = (struct fl_secagg_identity){.arg = w->server, .verify = verify};
    ck_assert_int_eq(fl_secure_new(w->plan, fl_strategy_find("fedavg"), w->key.incarnation, 2,
                                   &w->identity, &w->secure, &e),
                     0);
    for (int i = 0; i < AGENTS; i++) {
        w->tls[i] = certs_conf(false, names[i], NULL);
        w->sessions[i] = fl_sessions_new();
        w->q[i] = fl_new(w->plan->layout.shared.elements, sizeof *w->q[i]);
        for (size_t v = 0; v < w->plan->layout.shared.elements; v++) {
            w->q[i][v] = 1000 * i - (int64_t)v;
        }
    }
}

static void world_close(struct world *w)
{
    for (int i = 0; i < AGENTS; i++) {
        fl_sessions_free(w->sessions[i]);
        fl_tls_conf_unref(w->tls[i]);
        fl_free(w->q[i]);
    }
    fl_secure_free(w->secure);
    fl_tls_conf_unref(w->server);
    fl_free(w->plan);
}

static int step(struct world *w, int i, enum fl_secagg_stage stage,
                const struct fl_secagg_bytes *in, struct fl_secagg_bytes *ret)
{
    return fl_session_stage(w->sessions[i], w->plan, &w->key, stage, w->tls[i], in->bytes, in->size,
                            w->q[i], ret, &e);
}

/* One stage of all agents; then each is asked for it a second time. */
static void stage_of_all(struct world *w, enum fl_secagg_stage stage)
{
    for (int i = 0; i < AGENTS; i++) {
        struct fl_secagg_bytes in = {NULL, 0}, out = {NULL, 0}, again = {NULL, 0};
        struct fl_update u = {.agent = (uint64_t)i + 1, .exchange = stage, .weight = 1};
        if (stage > FL_SECAGG_ADVERTISE) {
            ck_assert_int_eq(fl_secure_input(w->secure, stage, u.agent, &in.bytes, &in.size, &e),
                             0);
        }
        ck_assert_msg(step(w, i, stage, &in, &out) == 0, "%s", e.msg);
        u.size = out.size;
        u.read = sw_read;
        u.arg = &out;
        ck_assert_msg(
            fl_secure_judge(w->secure, stage, &u, fl_tls_conf_identity(w->tls[i])->key, &e) == 0,
            "%s", e.msg);
        ck_assert_int_eq(fl_secure_fold(w->secure, stage, &u, &e), 0);
        if (stage == FL_SECAGG_UNMASK) { /* all is wiped: there is nothing to ask */
            ck_assert_int_eq(step(w, i, stage, &in, &again), -FL_R_SECAGG_VIEW);
        }
        ck_assert_ptr_null(again.bytes);
        fl_secagg_bytes_free(&in);
        fl_secagg_bytes_free(&out);
    }
    ck_assert_int_eq(fl_secure_between(w->secure, NULL, NULL, &e), 0);
}

START_TEST(test_a_whole_sum)
{
    struct world w;

    world_open(&w);
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        stage_of_all(&w, (enum fl_secagg_stage)stage);
    }
    const struct fl_strategy *s = fl_strategy_find("fedavg");
    void *shared = fl_new(1, s->shared_size), *slot;
    struct fl_updates made;
    ck_assert_int_eq(s->init(shared, w.plan, &e), 0);
    ck_assert_int_eq(s->slot_new(shared, &slot, &e), 0);
    ck_assert_int_eq(fl_secure_finish(w.secure, shared, &slot, &made, &e), 0);
    ck_assert_uint_eq(made.count, AGENTS);
    s->slot_free(slot);
    s->fini(shared);
    fl_free(shared);
    world_close(&w);
}
END_TEST

/* A masked vector leaves once; asked for another, the session is gone, and with it what could have
 * unmasked the first. */
START_TEST(test_one_masked_vector)
{
    struct world w;
    struct fl_secagg_bytes in = {NULL, 0}, out = {NULL, 0}, again = {NULL, 0};

    world_open(&w);
    stage_of_all(&w, FL_SECAGG_ADVERTISE);
    stage_of_all(&w, FL_SECAGG_SHARE);
    ck_assert_int_eq(fl_secure_input(w.secure, FL_SECAGG_MASK, 1, &in.bytes, &in.size, &e), 0);
    ck_assert_int_eq(step(&w, 0, FL_SECAGG_MASK, &in, &out), 0);
    w.q[0][0]++;
    ck_assert_int_eq(step(&w, 0, FL_SECAGG_MASK, &in, &again), -FL_R_MSG_ORDER);
    ck_assert_ptr_null(again.bytes);
    ck_assert_int_eq(step(&w, 0, FL_SECAGG_SIGN, &in, &again), -FL_R_SECAGG_VIEW);
    /* One that is out of turn ends it too. */
    ck_assert_int_eq(step(&w, 1, FL_SECAGG_UNMASK, &in, &again), -FL_R_MSG_ORDER);
    ck_assert_int_eq(step(&w, 1, FL_SECAGG_MASK, &in, &again), -FL_R_SECAGG_VIEW);
    fl_secagg_bytes_free(&in);
    fl_secagg_bytes_free(&out);
    world_close(&w);
}
END_TEST

/* Another plan (its vector might be longer), another round, an agent that was started anew. */
START_TEST(test_of_one_sum_only)
{
    struct world w;
    struct fl_secagg_bytes in = {NULL, 0}, out = {NULL, 0};
    struct fl_plan *mine, *other = job("seed: 9\n");

    world_open(&w);
    stage_of_all(&w, FL_SECAGG_ADVERTISE);
    ck_assert_int_eq(fl_secure_input(w.secure, FL_SECAGG_SHARE, 1, &in.bytes, &in.size, &e), 0);
    mine = w.plan;
    w.plan = other;
    ck_assert_int_eq(step(&w, 0, FL_SECAGG_SHARE, &in, &out), -FL_R_SECAGG_VIEW);
    ck_assert_ptr_nonnull(strstr(e.msg, "not the one that this secure sum began with"));
    w.plan = mine;
    ck_assert_int_eq(step(&w, 0, FL_SECAGG_SHARE, &in, &out), -FL_R_SECAGG_VIEW); /* it is gone */
    w.key.round = 3;
    ck_assert_int_eq(step(&w, 1, FL_SECAGG_SHARE, &in, &out), -FL_R_SECAGG_VIEW);
    w.key.round = 2;
    fl_sessions_free(w.sessions[2]);
    w.sessions[2] = fl_sessions_new();
    ck_assert_int_eq(step(&w, 2, FL_SECAGG_SHARE, &in, &out), -FL_R_SECAGG_VIEW);
    ck_assert_ptr_nonnull(strstr(e.msg, "started anew"));
    ck_assert_int_eq(fl_session_stage(NULL, w.plan, &w.key, FL_SECAGG_ADVERTISE, w.tls[0], NULL, 0,
                                      NULL, &out, &e),
                     -FL_R_CAPABILITY);
    ck_assert_int_eq(fl_session_stage(w.sessions[2], w.plan, &w.key, FL_SECAGG_ADVERTISE, NULL,
                                      NULL, 0, NULL, &out, &e),
                     -FL_R_CAPABILITY);
    ck_assert_ptr_null(out.bytes);
    fl_secagg_bytes_free(&in);
    fl_free(other);
    world_close(&w);
}
END_TEST

/* Many jobs at one time: the oldest is forgotten, the others go on. */
START_TEST(test_the_oldest_is_forgotten)
{
    struct world w;
    struct fl_secagg_bytes in = {NULL, 0}, out = {NULL, 0};
    uint8_t nonsense[64] = {0};

    world_open(&w);
    for (uint8_t i = 0; i <= FL_SESSIONS_MAX; i++) {
        w.key.incarnation[0] = i;
        ck_assert_int_eq(step(&w, 0, FL_SECAGG_ADVERTISE, &in, &out), 0);
        fl_secagg_bytes_free(&out);
    }
    in = (struct fl_secagg_bytes){nonsense, sizeof nonsense};
    w.key.incarnation[0] = 0;
    ck_assert_int_eq(step(&w, 0, FL_SECAGG_SHARE, &in, &out), -FL_R_SECAGG_VIEW);
    for (uint8_t i = 1; i <= FL_SESSIONS_MAX; i++) { /* found, and not content */
        w.key.incarnation[0] = i;
        ck_assert_int_eq(step(&w, 0, FL_SECAGG_SHARE, &in, &out), -FL_R_SECAGG_OBJECT);
    }
    world_close(&w);
}
END_TEST

TESTS_MAIN("session", test_a_whole_sum, test_one_masked_vector, test_of_one_sum_only,
           test_the_oldest_is_forgotten)
