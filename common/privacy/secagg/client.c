/*
 * The agent's side. It trusts the authority of the certificates, its own random numbers, and that
 * of the agents in a roster at most the assumed part works with the coordinator. It does not trust
 * the coordinator; what it relies on is bound together step by step:
 *
 *   - keys are signed for this secure sum by certificates, so the coordinator cannot be in the
 *     middle of two agents;
 *   - the roster's digest is the seed of the graph and goes into every derived key and check, so
 *     agents that were shown different rosters have no shares of each other;
 *   - shares are opened only with that digest and compared with what their dealer published;
 *   - the vector goes out masked for exactly the set U2 that was shown;
 *   - what was shown (roster, U2, U3) is signed once, and a share is revealed only when enough
 *     randomly chosen others signed the very same (rule.c says why that is enough);
 *   - of each neighbour one share, the kind given by that one view; then all secrets are wiped.
 *
 * One pass, no way back: whatever looks wrong ends the client, and it takes part no more.
 */
#include "common/privacy/secagg/client_in.h"

#include "common/base/mem.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

int fl_secagg_client_new(const struct fl_secagg_setup *setup,
                         const struct fl_secagg_identity *identity, struct fl_secagg_client **ret,
                         struct fl_err *e)
{
    int r = fl_secagg_setup_check(setup, e);

    if (r < 0) {
        return r;
    }
    if (identity->cert_size == 0 || identity->cert_size > FL_SECAGG_CERT_MAX) {
        return fl_fail(e, FL_R_LIMIT, "a certificate of %u bytes", identity->cert_size);
    }
    struct fl_secagg_client *c = fl_try(1, sizeof *c);
    if (!c) {
        return fl_fail(e, FL_R_NOMEM, "an agent's side of a secure sum");
    }
    c->setup = *setup;
    c->identity = identity;
    *ret = c;
    return 0;
}

static void wipe(struct fl_secagg_client *c)
{
    sodium_memzero(&c->c, sizeof c->c);
    sodium_memzero(&c->s, sizeof c->s);
    sodium_memzero(c->b, sizeof c->b);
    sodium_memzero(c->own_share, sizeof c->own_share);
    if (c->neighbour) {
        sodium_memzero(c->neighbour, c->rule.neighbours * sizeof *c->neighbour);
    }
}

void fl_secagg_client_free(struct fl_secagg_client *c)
{
    if (!c) {
        return;
    }
    wipe(c);
    fl_free(c->neighbour);
    fl_free(c->entries);
    fl_free(c->shared_set);
    fl_free(c->masked_set);
    fl_free(c->sample);
    fl_free(c);
}

int fl_client_end_step(struct fl_secagg_client *c, enum fl_client_step next, int r)
{
    if (r < 0) {
        wipe(c);
        c->step = FL_CLIENT_OVER;
    } else {
        c->step = next;
    }
    return r;
}

int fl_client_in_order(const struct fl_secagg_client *c, enum fl_client_step step, struct fl_err *e)
{
    if (c->step != step) {
        return fl_fail(e, FL_R_MSG_ORDER, "stage %s of a secure sum is not the next",
                       fl_secagg_stage_name((enum fl_secagg_stage)step));
    }
    return 0;
}

uint8_t *fl_client_set_copy(const uint8_t *set, uint32_t members)
{
    uint8_t *copy = fl_try(fl_set_size(members), 1);

    if (copy) {
        memcpy(copy, set, fl_set_size(members));
    }
    return copy;
}

/* ---- 1: keys ---- */

static int advertise(struct fl_secagg_client *c, struct fl_secagg_bytes *ret, struct fl_err *e)
{
    const struct fl_secagg_identity *id = c->identity;
    struct fl_secagg_out out;
    struct fl_digest message;
    uint8_t sig[FL_SECAGG_SIG_MAX];
    uint32_t sig_size = 0;
    int r;

    if ((r = fl_secagg_pair_new(&c->c, e)) < 0 || (r = fl_secagg_pair_new(&c->s, e)) < 0 ||
        (r = fl_entropy(c->b, sizeof c->b, e)) < 0) {
        return r;
    }
    fl_secagg_advert_message(&c->setup.context, c->c.public, c->s.public, &message);
    /* Who it is, it learns as the others will. */
    if ((r = id->sign(id->arg, message.bytes, sizeof message.bytes, sig, &sig_size, e)) < 0 ||
        (r = id->verify(id->arg, id->cert, id->cert_size, message.bytes, sizeof message.bytes, sig,
                        sig_size, c->principal, e)) < 0) {
        return r;
    }
    r = fl_out_begin(&out, FL_SECAGG_ADVERT, &c->setup.context,
                     2 * FL_SECAGG_KEY_SIZE + 2 + id->cert_size + 2 + sig_size, ret, e);
    if (r == 0) {
        fl_out_put(&out, c->c.public, FL_SECAGG_KEY_SIZE);
        fl_out_put(&out, c->s.public, FL_SECAGG_KEY_SIZE);
        fl_out_short(&out, id->cert, id->cert_size);
        fl_out_short(&out, sig, sig_size);
        fl_out_end(&out);
    }
    return r;
}

int fl_secagg_client_advertise(struct fl_secagg_client *c, struct fl_secagg_bytes *ret,
                               struct fl_err *e)
{
    int r = fl_client_in_order(c, FL_CLIENT_ADVERTISE, e);

    return r < 0 ? r : fl_client_end_step(c, FL_CLIENT_SHARE, advertise(c, ret, e));
}

/* ---- 4: survivors in, signature out ---- */

static int survivors_judge(struct fl_secagg_client *c, const uint8_t *set, struct fl_err *e)
{
    uint32_t n = c->rule.members, count = fl_set_count(set, n), near = 1;

    for (size_t i = 0; i < fl_set_size(n); i++) {
        if (set[i] & ~c->shared_set[i]) {
            return fl_fail(e, FL_R_SECAGG_VIEW, "a survivor that was not among the dealers");
        }
    }
    if (!fl_set_has(set, c->own)) {
        return fl_fail(e, FL_R_SECAGG_VIEW, "this agent is not among the survivors");
    }
    for (uint32_t i = 0; i < c->rule.neighbours; i++) {
        near += fl_set_has(set, c->neighbour[i].index);
    }
    if (count < c->setup.survivors_min || count < c->rule.majority || near < c->rule.threshold) {
        return fl_fail(e, FL_R_SECAGG_FEW,
                       "%u survivors of at least %u and %u; %u of them near, of at least %u", count,
                       c->setup.survivors_min, c->rule.majority, near, c->rule.threshold);
    }
    c->masked_set = fl_client_set_copy(set, n);
    return c->masked_set ? 0 : fl_fail(e, FL_R_NOMEM, "a set of %u agents", n);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* `sample` of the others, drawn afresh. */
static int sample_draw(struct fl_secagg_client *c, struct fl_err *e)
{
    uint32_t n = c->rule.members, m = c->rule.sample, count = 0;
    struct fl_seed seed;
    struct fl_rng rng;
    int r = fl_entropy(seed.bytes, sizeof seed.bytes, e);

    if (r < 0) {
        return r;
    }
    c->sample = fl_try(n, sizeof *c->sample);
    if (!c->sample) {
        return fl_fail(e, FL_R_NOMEM, "a sample of %u agents", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (i != c->own) {
            c->sample[count++] = i;
        }
    }
    if (m < count) {
        fl_rng_init(&rng, &seed, 0);
        fl_rng_shuffle(&rng, c->sample, count);
        fl_rng_fini(&rng);
    }
    qsort(c->sample, m, sizeof *c->sample, ascending);
    c->sample_count = m;
    return 0;
}

static int sign(struct fl_secagg_client *c, const uint8_t *survivors, size_t size,
                struct fl_secagg_bytes *ret, struct fl_err *e)
{
    const struct fl_secagg_identity *id = c->identity;
    uint8_t sig[FL_SECAGG_SIG_MAX];
    uint32_t sig_size = 0;
    struct fl_secagg_out out;
    const uint8_t *set;
    int r;

    if ((r = fl_survivors_read(&c->setup.context, survivors, size, c->rule.members, &set, e)) < 0 ||
        (r = survivors_judge(c, set, e)) < 0 || (r = sample_draw(c, e)) < 0) {
        return r;
    }
    fl_secagg_view_message(&c->view, c->shared_set, c->masked_set, fl_set_size(c->rule.members),
                           &c->message);
    r = id->sign(id->arg, c->message.bytes, sizeof c->message.bytes, sig, &sig_size, e);
    if (r < 0) {
        return r;
    }
    r = fl_out_begin(&out, FL_SECAGG_SIGNED, &c->setup.context,
                     2 + sig_size + 4 + 4 * (size_t)c->sample_count, ret, e);
    if (r == 0) {
        fl_out_short(&out, sig, sig_size);
        fl_out_u32(&out, c->sample_count);
        for (uint32_t i = 0; i < c->sample_count; i++) {
            fl_out_u32(&out, c->sample[i]);
        }
        fl_out_end(&out);
    }
    return r;
}

int fl_secagg_client_sign(struct fl_secagg_client *c, const uint8_t *survivors, size_t size,
                          struct fl_secagg_bytes *ret, struct fl_err *e)
{
    int r = fl_client_in_order(c, FL_CLIENT_SIGN, e);

    return r < 0 ? r : fl_client_end_step(c, FL_CLIENT_REVEAL, sign(c, survivors, size, ret, e));
}

/* ---- 5: signatures in, shares out ---- */

/* Every signature shown is of a sampled agent of the roster, on the very message that this agent
 * signed; a wrong one is not skipped but the end: an honest coordinator has checked them. */
static int proofs_judge(struct fl_secagg_client *c, const uint8_t *proofs, size_t size,
                        struct fl_err *e)
{
    const struct fl_secagg_identity *id = c->identity;
    struct fl_proofs_view v;
    size_t at = 0;
    int r = fl_proofs_read(&c->setup.context, proofs, size, c->rule.members, &v, e);

    for (uint32_t i = 0; r == 0 && i < v.count; i++) {
        uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE];
        struct fl_proof_view p;
        fl_proofs_next(&v, &at, &p);
        if (!bsearch(&p.index, c->sample, c->sample_count, sizeof *c->sample, ascending)) {
            return fl_fail(e, FL_R_SECAGG_VIEW, "a signature of agent %u that was not asked for",
                           p.index);
        }
        r = id->verify(id->arg, p.cert, p.cert_size, c->message.bytes, sizeof c->message.bytes,
                       p.sig, p.sig_size, principal, e);
        if (r < 0) {
            return fl_fail(e, FL_R_SECAGG_VIEW, "agent %u did not sign these survivors", p.index);
        }
        if (memcmp(principal, c->entries + (size_t)p.index * FL_SECAGG_ENTRY_SIZE,
                   sizeof principal) != 0) {
            return fl_fail(e, FL_R_SECAGG_VIEW, "the signature shown for agent %u is another's",
                           p.index);
        }
    }
    if (r == 0 && v.count < c->rule.sample_min) {
        return fl_fail(e, FL_R_SECAGG_VIEW, "%u of %u asked signed these survivors, %u must",
                       v.count, c->sample_count, c->rule.sample_min);
    }
    return r;
}

static int reveal(struct fl_secagg_client *c, const uint8_t *proofs, size_t size,
                  struct fl_secagg_bytes *ret, struct fl_err *e)
{
    struct fl_secagg_out out;
    uint32_t count = 0;
    int r = proofs_judge(c, proofs, size, e);

    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < c->rule.neighbours; i++) {
        count += c->neighbour[i].shared;
    }
    r = fl_out_begin(&out, FL_SECAGG_REVEAL, &c->setup.context,
                     FL_SHARE_SIZE + 4 + (size_t)count * FL_REVEAL_ITEM, ret, e);
    if (r < 0) {
        return r;
    }
    fl_out_put(&out, c->own_share, sizeof c->own_share);
    fl_out_u32(&out, count);
    for (uint32_t i = 0; i < c->rule.neighbours; i++) {
        static const uint8_t nothing[FL_SHARE_SIZE];
        const struct fl_client_neighbour *n = &c->neighbour[i];
        bool masked = fl_set_has(c->masked_set, n->index);
        uint8_t kind = !n->held ? FL_SECAGG_NONE : masked ? FL_SECAGG_SELF : FL_SECAGG_PAIR;
        if (n->shared) {
            fl_out_u32(&out, n->index);
            fl_out_put(&out, &kind, 1);
            fl_out_put(&out,
                       kind == FL_SECAGG_NONE   ? nothing
                       : kind == FL_SECAGG_SELF ? n->secrets
                                                : n->secrets + FL_SHARE_SIZE,
                       FL_SHARE_SIZE);
        }
    }
    fl_out_end(&out);
    wipe(c);
    return 0;
}

int fl_secagg_client_reveal(struct fl_secagg_client *c, const uint8_t *proofs, size_t size,
                            struct fl_secagg_bytes *ret, struct fl_err *e)
{
    int r = fl_client_in_order(c, FL_CLIENT_REVEAL, e);

    return r < 0 ? r : fl_client_end_step(c, FL_CLIENT_OVER, reveal(c, proofs, size, ret, e));
}

void fl_secagg_client_counts(const struct fl_secagg_client *c, struct fl_secagg_counts *ret)
{
    uint32_t n = c->rule.members;

    *ret = (struct fl_secagg_counts){
        .advertised = n,
        .neighbours = c->rule.neighbours,
        .threshold = c->rule.threshold,
        .shared = c->shared_set ? fl_set_count(c->shared_set, n) : 0,
        .masked = c->masked_set ? fl_set_count(c->masked_set, n) : 0,
    };
}
