/*
 * A secure sum in one process: agents and a coordinator, objects handed over by function calls, and
 * a place to change any of them on the way. Signatures are keyed digests that only this file can
 * make: as good as real ones for whoever does not look in here, and a thousand times faster.
 */
#ifndef TESTS_LIB_SECAGG_WORLD_H
#define TESTS_LIB_SECAGG_WORLD_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/privacy/secagg/mask.h"
#include "common/privacy/secagg/secagg.h"

#include <stdlib.h>
#include <string.h>

enum { SW_CERT = 40, SW_SIG = FL_DIGEST_SIZE, SW_STAYS = FL_SECAGG_STAGES };

struct sw_agent {
    uint64_t id;
    uint8_t cert[SW_CERT];
    struct fl_secagg_identity identity;
    struct fl_secagg_client *client;
    int64_t *q;
    uint32_t leaves; /* the stage it takes no part in any more; SW_STAYS = never */
    int error;       /* of its client or of the coordinator's refusal; it is out then */
    struct fl_err why;
    struct fl_secagg_bytes down; /* the last thing it got */
    struct fl_secagg_bytes up[FL_SECAGG_STAGES];
};

struct sw {
    struct fl_secagg_setup setup;
    struct fl_secagg_identity identity;
    struct fl_secagg_server *server;
    uint32_t count;
    struct sw_agent *agent;
    int error; /* of a close */
    struct fl_err why;
    /* Changes what agent i sends or gets in a stage. May be NULL. */
    void (*change)(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                   struct fl_secagg_bytes *b);
    void *arg;
};

static inline void sw_signature(const uint8_t *cert, const uint8_t *message, size_t size,
                                uint8_t *sig)
{
    struct fl_hash h;
    struct fl_digest d;

    fl_hash_init(&h);
    fl_hash_add(&h, "only the harness knows", 23);
    fl_hash_add(&h, cert, SW_CERT);
    fl_hash_add(&h, message, size);
    fl_hash_end(&h, &d);
    memcpy(sig, d.bytes, sizeof d.bytes);
}

static inline int sw_sign(void *arg, const uint8_t *message, size_t size, uint8_t *sig,
                          uint32_t *ret_size, struct fl_err *e)
{
    (void)e;
    sw_signature(((struct sw_agent *)arg)->cert, message, size, sig);
    *ret_size = SW_SIG;
    return 0;
}

static inline int sw_verify(void *arg, const uint8_t *cert, uint32_t cert_size,
                            const uint8_t *message, size_t size, const uint8_t *sig,
                            uint32_t sig_size, uint8_t *ret_principal, struct fl_err *e)
{
    uint8_t expected[SW_SIG];
    struct fl_digest d;

    (void)arg;
    if (cert_size != SW_CERT || sig_size != SW_SIG || memcmp(cert, "certificate", 11) != 0) {
        return fl_fail(e, FL_R_SECAGG_KEYS, "not a certificate of the authority");
    }
    sw_signature(cert, message, size, expected);
    if (memcmp(expected, sig, sizeof expected) != 0) {
        return fl_fail(e, FL_R_SECAGG_KEYS, "a signature that does not fit");
    }
    fl_digest_of(cert, cert_size, &d);
    memcpy(ret_principal, d.bytes, sizeof d.bytes);
    return 0;
}

static inline void sw_cert(uint64_t id, uint8_t cert[SW_CERT])
{
    memset(cert, 0, SW_CERT);
    memcpy(cert, "certificate", 11);
    memcpy(cert + 16, &id, sizeof id);
}

/* n agents of `setup`, ids 1000, 1001, ...; values are drawn in +-max from `seed`. */
static inline struct sw *sw_new(const struct fl_secagg_setup *setup, uint32_t n, uint64_t seed)
{
    struct sw *w = fl_new(1, sizeof *w);
    struct fl_seed s;
    struct fl_rng rng;

    fl_seed_from_u64(seed, &s);
    fl_rng_init(&rng, &s, 0);
    w->setup = *setup;
    w->identity = (struct fl_secagg_identity){.arg = w, .verify = sw_verify};
    w->count = n;
    w->agent = fl_new(n, sizeof *w->agent);
    for (uint32_t i = 0; i < n; i++) {
        struct sw_agent *a = &w->agent[i];
        a->id = 1000 + i;
        a->leaves = SW_STAYS;
        sw_cert(a->id, a->cert);
        a->identity = (struct fl_secagg_identity){a, a->cert, SW_CERT, sw_sign, sw_verify};
        a->q = fl_new(setup->count + 1, sizeof *a->q);
        for (uint64_t v = 0; v < setup->count; v++) {
            a->q[v] =
                (int64_t)fl_rng_below(&rng, 2 * (uint64_t)setup->max + 1) - (int64_t)setup->max;
        }
    }
    fl_rng_fini(&rng);
    return w;
}

static inline void sw_free(struct sw *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct sw_agent *a = &w->agent[i];
        fl_secagg_client_free(a->client);
        fl_free(a->q);
        fl_secagg_bytes_free(&a->down);
        for (int s = 0; s < FL_SECAGG_STAGES; s++) {
            fl_secagg_bytes_free(&a->up[s]);
        }
    }
    fl_secagg_server_free(w->server);
    fl_free(w->agent);
    fl_free(w);
}

static inline int sw_start(struct sw *w)
{
    int r = fl_secagg_server_new(&w->setup, &w->identity, &w->server, &w->why);

    for (uint32_t i = 0; r == 0 && i < w->count; i++) {
        struct sw_agent *a = &w->agent[i];
        r = fl_secagg_client_new(&w->setup, &a->identity, &a->client, &w->why);
    }
    w->error = r;
    return r;
}

static inline int sw_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct fl_secagg_bytes *b = arg;

    if (offset > b->size || size > b->size - offset) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "behind the end");
    }
    memcpy(to, b->bytes + offset, size);
    return 0;
}

/* Hands an object to the coordinator as agent `id`. */
static inline int sw_give(struct sw *w, enum fl_secagg_stage stage, uint64_t id,
                          struct fl_secagg_bytes *b, struct fl_err *e)
{
    if (stage == FL_SECAGG_MASK) {
        struct fl_secagg_source from = {b->size, sw_read, b};
        return fl_secagg_server_masked(w->server, id, &from, e);
    }
    return fl_secagg_server_take(w->server, stage, id, b->bytes, b->size, e);
}

static inline int sw_client_step(struct sw_agent *a, enum fl_secagg_stage stage,
                                 struct fl_secagg_bytes *ret)
{
    switch (stage) {
    case FL_SECAGG_ADVERTISE:
        return fl_secagg_client_advertise(a->client, ret, &a->why);
    case FL_SECAGG_SHARE:
        return fl_secagg_client_share(a->client, a->down.bytes, a->down.size, ret, &a->why);
    case FL_SECAGG_MASK:
        return fl_secagg_client_mask(a->client, a->down.bytes, a->down.size, a->q, ret, &a->why);
    case FL_SECAGG_SIGN:
        return fl_secagg_client_sign(a->client, a->down.bytes, a->down.size, ret, &a->why);
    default:
        return fl_secagg_client_reveal(a->client, a->down.bytes, a->down.size, ret, &a->why);
    }
}

/* The agents' part of a stage; then sw_close. */
static inline void sw_up(struct sw *w, enum fl_secagg_stage stage)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct sw_agent *a = &w->agent[i];
        if (a->error < 0 || a->leaves <= (uint32_t)stage) {
            continue;
        }
        a->error = sw_client_step(a, stage, &a->up[stage]);
        if (a->error == 0) {
            if (w->change) {
                w->change(w, stage, i, true, &a->up[stage]);
            }
            a->error = sw_give(w, stage, a->id, &a->up[stage], &a->why);
        }
    }
}

static inline void sw_down(struct sw *w, enum fl_secagg_stage stage)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct sw_agent *a = &w->agent[i];
        if (a->error < 0 || a->leaves <= (uint32_t)stage) {
            continue;
        }
        fl_secagg_bytes_free(&a->down);
        a->error = fl_secagg_server_reply(w->server, stage, a->id, &a->down, &a->why);
        if (a->error == 0 && w->change) {
            w->change(w, stage, i, false, &a->down);
        }
    }
}

static inline int sw_close(struct sw *w, enum fl_secagg_stage stage)
{
    w->error = fl_secagg_server_close(w->server, &w->why);
    if (w->error == 0 && stage < FL_SECAGG_UNMASK) {
        sw_down(w, stage);
    }
    return w->error;
}

/* Stages from `from` on, up to and with `to`. */
static inline int sw_run(struct sw *w, enum fl_secagg_stage from, enum fl_secagg_stage to)
{
    for (int stage = (int)from; stage <= (int)to; stage++) {
        sw_up(w, (enum fl_secagg_stage)stage);
        if (sw_close(w, (enum fl_secagg_stage)stage) < 0) {
            return w->error;
        }
    }
    return 0;
}

static inline int sw_whole(struct sw *w)
{
    int r = sw_start(w);

    return r < 0 ? r : sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK);
}

/* The coordinator's sum into q; 0 or what it says. */
static inline int sw_sum(const struct sw *w, const struct fl_secagg_server *server, int64_t *q,
                         struct fl_err *e)
{
    uint8_t *scratch = fl_try_aligned(2, FL_MASK_TILE);
    int r = scratch ? 0 : fl_fail(e, FL_R_NOMEM, "scratch");

    for (uint64_t tile = 0; r == 0 && tile < fl_secagg_server_tiles(server); tile++) {
        r = fl_secagg_server_sum(server, tile, scratch, scratch + FL_MASK_TILE,
                                 q + tile * fl_ring_tile(w->setup.bits), e);
    }
    fl_free(scratch);
    return r;
}

/* Whether the sum is, value for value, that of exactly the agents that the coordinator names, and
 * those are all whose vector was taken. */
static inline bool sw_sum_is_right(const struct sw *w)
{
    uint64_t *ids = fl_new(w->count, sizeof *ids);
    int64_t *q = fl_new(w->setup.count + 1, sizeof *q);
    uint32_t members = fl_secagg_server_members(w->server, ids, w->count), uploaded = 0;
    bool right = sw_sum(w, w->server, q, NULL) == 0;

    for (uint32_t i = 0; i < w->count; i++) {
        uploaded += w->agent[i].up[FL_SECAGG_MASK].bytes != NULL;
    }
    right &= members <= uploaded;
    for (uint64_t v = 0; v < w->setup.count; v++) {
        int64_t sum = 0;
        for (uint32_t m = 0; m < members; m++) {
            sum += w->agent[ids[m] - 1000].q[v];
        }
        right &= q[v] == sum;
    }
    fl_free(ids);
    fl_free(q);
    return right;
}

#endif
