#include "client/session.h"

#include "common/base/mem.h"
#include "common/wire/tls_sign.h"

#include <string.h>

struct session {
    struct fl_key key;     /* its exchange does not matter */
    struct fl_digest plan; /* that it was made for: numbers and sizes are that plan's */
    uint32_t part_count;
    struct fl_secure_part part[FL_SECURE_PARTS_MAX];
    struct fl_secagg_client *client[FL_SECURE_PARTS_MAX]; /* NULL: that part is given up */
    struct fl_tls_conf *tls;
    struct fl_secagg_identity identity;
    uint64_t began; /* 0: this place is free */
};

struct fl_sessions {
    struct session at[FL_SESSIONS_MAX];
    uint64_t count; /* begun so far */
};

struct fl_sessions *fl_sessions_new(void)
{
    return fl_new(1, sizeof(struct fl_sessions));
}

static void end(struct session *s)
{
    for (uint32_t p = 0; p < FL_SECURE_PARTS_MAX; p++) {
        fl_secagg_client_free(s->client[p]);
    }
    fl_tls_conf_unref(s->tls);
    memset(s, 0, sizeof *s);
}

void fl_sessions_free(struct fl_sessions *s)
{
    for (int i = 0; s && i < FL_SESSIONS_MAX; i++) {
        end(&s->at[i]);
    }
    fl_free(s);
}

/* ---- whose signatures ---- */

static int sign(void *arg, const uint8_t *message, size_t size, uint8_t sig[FL_SECAGG_SIG_MAX],
                uint32_t *ret_size, struct fl_err *e)
{
    size_t made = 0;
    int r = fl_tls_sign(arg, message, size, sig, &made, e);

    if (r == 0) {
        *ret_size = (uint32_t)made;
    }
    return r;
}

static int verify(void *arg, const uint8_t *cert, uint32_t cert_size, const uint8_t *message,
                  size_t size, const uint8_t *sig, uint32_t sig_size,
                  uint8_t ret_principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e)
{
    struct fl_identity who;
    int r = fl_tls_verify(arg, cert, cert_size, message, size, sig, sig_size, &who, e);

    if (r == 0) {
        memcpy(ret_principal, who.key, FL_SECAGG_PRINCIPAL_SIZE);
    }
    return r;
}

/* ---- finding ---- */

static struct session *find(struct fl_sessions *s, const struct fl_key *key)
{
    for (int i = 0; i < FL_SESSIONS_MAX; i++) {
        if (s->at[i].began &&
            memcmp(s->at[i].key.incarnation, key->incarnation, FL_INCARNATION_SIZE) == 0) {
            return &s->at[i];
        }
    }
    return NULL;
}

/* The job's own place, or a free one, or the oldest. */
static struct session *place_for(struct fl_sessions *s, const struct fl_key *key)
{
    struct session *place = find(s, key);

    for (int i = 0; !place && i < FL_SESSIONS_MAX; i++) {
        place = s->at[i].began ? NULL : &s->at[i];
    }
    if (!place) {
        place = s->at;
        for (int i = 1; i < FL_SESSIONS_MAX; i++) {
            place = s->at[i].began < place->began ? &s->at[i] : place;
        }
    }
    return place;
}

static int begin(struct fl_sessions *s, const struct fl_plan *plan, const struct fl_key *key,
                 struct fl_tls_conf *tls, struct session **ret, struct fl_err *e)
{
    struct session *place = place_for(s, key);
    const uint8_t *certificate;
    int r = 0;

    end(place);
    if (!tls) {
        return fl_fail(e, FL_R_CAPABILITY, "no certificate to take part in a secure sum with");
    }
    place->began = ++s->count;
    place->key = *key;
    place->plan = plan->digest;
    place->tls = fl_tls_conf_ref(tls);
    size_t size = fl_tls_certificate(tls, &certificate);
    if (size > FL_SECAGG_CERT_MAX) {
        end(place);
        return fl_fail(e, FL_R_LIMIT, "a certificate of %zu bytes; a secure sum takes %d", size,
                       FL_SECAGG_CERT_MAX);
    }
    place->identity = (struct fl_secagg_identity){.arg = place->tls,
                                                  .cert = certificate,
                                                  .cert_size = (uint32_t)size,
                                                  .sign = sign,
                                                  .verify = verify};
    place->part_count = fl_plan_secure_parts(plan, place->part);
    for (uint32_t p = 0; r == 0 && p < place->part_count; p++) {
        struct fl_secagg_setup setup;
        r = fl_plan_secure_setup(plan, key->incarnation, key->round, p, &setup, e);
        r = r < 0 ? r : fl_secagg_client_new(&setup, &place->identity, &place->client[p], e);
    }
    if (r < 0) {
        end(place);
        return r;
    }
    *ret = place;
    return 0;
}

/* ---- stages ---- */

static int step(struct fl_secagg_client *c, enum fl_secagg_stage stage, const uint8_t *input,
                size_t size, const int64_t *q, struct fl_secagg_bytes *ret, struct fl_err *e)
{
    switch (stage) {
    case FL_SECAGG_ADVERTISE:
        return fl_secagg_client_advertise(c, ret, e);
    case FL_SECAGG_SHARE:
        return fl_secagg_client_share(c, input, size, ret, e);
    case FL_SECAGG_MASK:
        return fl_secagg_client_mask(c, input, size, q, ret, e);
    case FL_SECAGG_SIGN:
        return fl_secagg_client_sign(c, input, size, ret, e);
    default:
        return fl_secagg_client_reveal(c, input, size, ret, e);
    }
}

/* Each part's stage; what goes up is one object, or both in one. */
static int step_parts(struct session *s, enum fl_secagg_stage stage, const uint8_t *input,
                      size_t size, const int64_t *q, struct fl_secagg_bytes *ret, struct fl_err *e)
{
    struct fl_secagg_bytes made[FL_SECURE_PARTS_MAX] = {{NULL, 0}};
    size_t sizes[FL_SECURE_PARTS_MAX] = {size, 0};
    bool joined = s->part_count > 1;
    int r = 0;

    if (joined && stage > FL_SECAGG_ADVERTISE) {
        r = fl_plan_secure_split(input, size, sizes, e);
        input = r == 0 ? input + FL_SECURE_JOIN_HEAD : NULL;
        if (r == 0 && sizes[1] == 0) { /* its group is given up */
            fl_secagg_client_free(s->client[1]);
            s->client[1] = NULL;
        }
    }
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        if (!s->client[p] && sizes[p] > 0) {
            r = fl_fail(e, FL_R_SECAGG_VIEW, "a part of a secure sum that was given up comes back");
        } else if (s->client[p]) {
            r = step(s->client[p], stage, input, sizes[p], q ? q + s->part[p].first : NULL,
                     &made[p], e);
        }
        input = input ? input + sizes[p] : NULL;
    }
    if (r == 0 && joined) {
        r = fl_plan_secure_join(made, ret, e);
    } else if (r == 0) {
        *ret = made[0];
        made[0] = (struct fl_secagg_bytes){NULL, 0};
    }
    fl_secagg_bytes_free(&made[0]);
    fl_secagg_bytes_free(&made[1]);
    return r;
}

int fl_session_stage(struct fl_sessions *s, const struct fl_plan *plan, const struct fl_key *key,
                     enum fl_secagg_stage stage, struct fl_tls_conf *tls, const uint8_t *input,
                     size_t input_size, const int64_t *q, struct fl_secagg_bytes *ret,
                     struct fl_err *e)
{
    struct session *own = s ? find(s, key) : NULL;
    int r = 0;

    if (!s) {
        return fl_fail(e, FL_R_CAPABILITY, "this agent takes part in no secure sums");
    }
    if (stage == FL_SECAGG_ADVERTISE) {
        r = begin(s, plan, key, tls, &own, e);
    } else if (!own || own->key.round != key->round) {
        return fl_fail(e, FL_R_SECAGG_VIEW,
                       "there are no keys for this secure sum: the agent was started anew within "
                       "the round, or left it before");
    } else if (!fl_digest_equal(&own->plan, &plan->digest)) {
        r = fl_fail(e, FL_R_SECAGG_VIEW, "the plan is not the one that this secure sum began with");
    }
    r = r < 0 ? r : step_parts(own, stage, input, input_size, q, ret, e);
    if (own && (r < 0 || stage == FL_SECAGG_UNMASK)) {
        end(own);
    }
    return r;
}
