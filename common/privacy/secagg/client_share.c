/* The agent's second stage: who takes part, who its neighbours are, what they get. */
#include "common/privacy/secagg/client_in.h"

#include "common/base/mem.h"

#include <sodium.h>
#include <string.h>

/* ---- 2: roster in, shares out ---- */

/* Sizes, the rule, ascending principals, and this agent's own keys among them. */
static int roster_judge(struct fl_secagg_client *c, const struct fl_roster_view *v,
                        struct fl_err *e)
{
    uint32_t found = UINT32_MAX;
    struct fl_digest keys;

    if (v->members < c->setup.members_min || v->members > c->setup.members_max) {
        return fl_fail(e, FL_R_SECAGG_FEW, "a roster of %u agents, where %u to %u were agreed",
                       v->members, c->setup.members_min, c->setup.members_max);
    }
    int r = fl_secagg_setup_rule(&c->setup, v->members, &c->rule, e);
    if (r < 0) {
        return r;
    }
    if (v->neighbours != c->rule.neighbours || v->threshold != c->rule.threshold) {
        return fl_fail(e, FL_R_SECAGG_VIEW,
                       "%u neighbours and threshold %u for %u agents, not %u and %u", v->neighbours,
                       v->threshold, v->members, c->rule.neighbours, c->rule.threshold);
    }
    for (uint32_t i = 0; i < v->members; i++) {
        const uint8_t *entry = v->entries + (size_t)i * FL_SECAGG_ENTRY_SIZE;
        if (i > 0 && memcmp(entry - FL_SECAGG_ENTRY_SIZE, entry, FL_SECAGG_PRINCIPAL_SIZE) >= 0) {
            return fl_fail(e, FL_R_SECAGG_KEYS, "an agent stands in the roster twice");
        }
        if (memcmp(entry, c->principal, sizeof c->principal) == 0) {
            found = i;
        }
    }
    fl_secagg_keys_digest(&c->setup.context, c->principal, c->c.public, c->s.public, &keys);
    if (found == UINT32_MAX ||
        memcmp(keys.bytes,
               v->entries + (size_t)found * FL_SECAGG_ENTRY_SIZE + FL_SECAGG_PRINCIPAL_SIZE,
               FL_SECAGG_CHECK_SIZE) != 0) {
        return fl_fail(e, FL_R_SECAGG_KEYS, "this agent's own keys are not in the roster");
    }
    c->own = found;
    return 0;
}

static int graph_view(struct fl_secagg_client *c, struct fl_err *e)
{
    uint32_t n = c->rule.members, k = c->rule.neighbours;
    uint32_t *order = fl_try(n, sizeof *order), *place = fl_try(n, sizeof *place);
    uint32_t *index = fl_try(k, sizeof *index);
    int r = 0;

    c->neighbour = fl_try(k, sizeof *c->neighbour);
    if (!order || !place || !index || !c->neighbour) {
        r = fl_fail(e, FL_R_NOMEM, "the graph of %u agents", n);
    } else {
        fl_secagg_graph(&c->view, n, order, place);
        fl_secagg_neighbours(order, place, n, k, c->own, index);
        for (uint32_t i = 0; i < k; i++) {
            c->neighbour[i].index = index[i];
        }
    }
    fl_free(order);
    fl_free(place);
    fl_free(index);
    return r;
}

/* The neighbours' keys are the roster's, signed for this secure sum by whom the roster names. */
static int neighbours_judge(struct fl_secagg_client *c, const struct fl_roster_view *v,
                            struct fl_err *e)
{
    const struct fl_secagg_identity *id = c->identity;
    size_t at = 0;

    for (uint32_t i = 0; i < c->rule.neighbours; i++) {
        struct fl_client_neighbour *n = &c->neighbour[i];
        const uint8_t *entry = v->entries + (size_t)n->index * FL_SECAGG_ENTRY_SIZE;
        uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE];
        struct fl_advert_view a;
        struct fl_digest message, keys;

        fl_roster_next(v, &at, &a);
        fl_secagg_advert_message(&c->setup.context, a.c_public, a.s_public, &message);
        int r = id->verify(id->arg, a.cert, a.cert_size, message.bytes, sizeof message.bytes, a.sig,
                           a.sig_size, principal, e);
        if (r < 0) {
            return fl_wrap(e, r, "keys of neighbour %u", n->index);
        }
        fl_secagg_keys_digest(&c->setup.context, principal, a.c_public, a.s_public, &keys);
        if (memcmp(principal, entry, sizeof principal) != 0 ||
            memcmp(keys.bytes, entry + FL_SECAGG_PRINCIPAL_SIZE, FL_SECAGG_CHECK_SIZE) != 0) {
            return fl_fail(e, FL_R_SECAGG_KEYS, "the keys of neighbour %u are not the roster's",
                           n->index);
        }
        if (memcmp(a.s_public, c->s.public, FL_SECAGG_KEY_SIZE) == 0 ||
            memcmp(a.c_public, c->c.public, FL_SECAGG_KEY_SIZE) == 0) {
            return fl_fail(e, FL_R_SECAGG_KEYS, "neighbour %u shows this agent's keys as its own",
                           n->index);
        }
        memcpy(n->c_public, a.c_public, sizeof n->c_public);
        memcpy(n->s_public, a.s_public, sizeof n->s_public);
    }
    return 0;
}

/* Deals b among the neighbours and this agent, the mask key among the neighbours. */
static int deal(struct fl_secagg_client *c, struct fl_share *of_b, struct fl_share *of_s,
                struct fl_err *e)
{
    uint32_t k = c->rule.neighbours, t = c->rule.threshold;
    struct fl_seed seed;
    struct fl_rng rng;
    int r = fl_entropy(seed.bytes, sizeof seed.bytes, e);

    if (r < 0) {
        return r;
    }
    of_b[0].holder = c->own + 1;
    for (uint32_t i = 0; i < k; i++) {
        of_b[i + 1].holder = of_s[i].holder = c->neighbour[i].index + 1;
    }
    fl_rng_init(&rng, &seed, 0);
    r = fl_shamir_deal(c->b, t, &rng, of_b, k + 1, e);
    if (r == 0) {
        r = fl_shamir_deal(c->s.secret, t, &rng, of_s, k, e);
    }
    fl_rng_fini(&rng);
    sodium_memzero(&seed, sizeof seed);
    return r;
}

/* For whom its shares are sealed. */
static int seal(const struct fl_secagg_client *c, const struct fl_client_neighbour *n,
                const struct fl_share *of_b, const struct fl_share *of_s,
                uint8_t cipher[FL_SECAGG_CIPHER_SIZE], struct fl_err *e)
{
    uint8_t shared[FL_SECAGG_KEY_SIZE], secrets[FL_SECAGG_SECRETS_SIZE];

    if (!fl_secagg_agree(c->c.secret, n->c_public, shared)) {
        return fl_fail(e, FL_R_SECAGG_KEYS, "neighbour %u has a public key of small order",
                       n->index);
    }
    memcpy(secrets, of_b->bytes, FL_SHARE_SIZE);
    memcpy(secrets + FL_SHARE_SIZE, of_s->bytes, FL_SHARE_SIZE);
    fl_secagg_seal(shared, &c->view, c->own, n->index, secrets, cipher);
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(secrets, sizeof secrets);
    return 0;
}

static int shares_write(struct fl_secagg_client *c, const struct fl_share *of_b,
                        const struct fl_share *of_s, struct fl_secagg_bytes *ret, struct fl_err *e)
{
    uint32_t k = c->rule.neighbours;
    uint8_t check[FL_SECAGG_CHECK_SIZE], cipher[FL_SECAGG_CIPHER_SIZE];
    struct fl_digest commitment;
    struct fl_secagg_out out;
    size_t size = FL_DIGEST_SIZE + (2 * (size_t)k + 1) * FL_SECAGG_CHECK_SIZE +
                  (size_t)k * FL_SECAGG_CIPHER_SIZE;
    int r = fl_out_begin(&out, FL_SECAGG_SHARES, &c->setup.context, size, ret, e);

    if (r < 0) {
        return r;
    }
    fl_secagg_commit(&c->view, c->own, c->b, &commitment);
    fl_out_put(&out, commitment.bytes, sizeof commitment.bytes);
    for (uint32_t i = 0; i <= k; i++) {
        fl_secagg_check(&c->view, FL_SECAGG_SELF, c->own, of_b[i].holder - 1, of_b[i].bytes, check);
        fl_out_put(&out, check, sizeof check);
    }
    for (uint32_t i = 0; i < k; i++) {
        fl_secagg_check(&c->view, FL_SECAGG_PAIR, c->own, of_s[i].holder - 1, of_s[i].bytes, check);
        fl_out_put(&out, check, sizeof check);
    }
    for (uint32_t i = 0; i < k; i++) {
        r = seal(c, &c->neighbour[i], &of_b[i + 1], &of_s[i], cipher, e);
        if (r < 0) {
            fl_secagg_bytes_free(ret);
            return r;
        }
        fl_out_put(&out, cipher, sizeof cipher);
    }
    fl_out_end(&out);
    return 0;
}

static int share(struct fl_secagg_client *c, const uint8_t *roster, size_t size,
                 struct fl_secagg_bytes *ret, struct fl_err *e)
{
    struct fl_roster_view v;
    int r;

    if ((r = fl_roster_read(&c->setup.context, roster, size, &v, e)) < 0 ||
        (r = roster_judge(c, &v, e)) < 0) {
        return r;
    }
    fl_roster_digest(&c->setup.context, &v, &c->view);
    c->entries = fl_try(v.members, FL_SECAGG_ENTRY_SIZE);
    if (!c->entries) {
        return fl_fail(e, FL_R_NOMEM, "a roster of %u agents", v.members);
    }
    memcpy(c->entries, v.entries, (size_t)v.members * FL_SECAGG_ENTRY_SIZE);
    if ((r = graph_view(c, e)) < 0 || (r = neighbours_judge(c, &v, e)) < 0) {
        return r;
    }
    size_t shares = 2 * (size_t)c->rule.neighbours + 1;
    struct fl_share *of_b = fl_try(shares, sizeof *of_b);
    if (!of_b) {
        return fl_fail(e, FL_R_NOMEM, "shares for %u neighbours", c->rule.neighbours);
    }
    struct fl_share *of_s = of_b + c->rule.neighbours + 1;
    r = deal(c, of_b, of_s, e);
    if (r == 0) {
        memcpy(c->own_share, of_b[0].bytes, sizeof c->own_share);
        r = shares_write(c, of_b, of_s, ret, e);
    }
    sodium_memzero(of_b, shares * sizeof *of_b);
    fl_free(of_b);
    return r;
}

int fl_secagg_client_share(struct fl_secagg_client *c, const uint8_t *roster, size_t size,
                           struct fl_secagg_bytes *ret, struct fl_err *e)
{
    int r = fl_client_in_order(c, FL_CLIENT_SHARE, e);

    return r < 0 ? r : fl_client_end_step(c, FL_CLIENT_MASK, share(c, roster, size, ret, e));
}
