/* The agent's third stage: shares from the neighbours, and its vector under their masks. */
#include "common/privacy/secagg/client_in.h"

#include "common/base/mem.h"
#include "common/privacy/secagg/mask.h"

#include <sodium.h>
#include <string.h>

/* ---- 3: shares in, masked vector out ---- */

/* Opens one neighbour's shares. One that cannot be used is simply not held: a single colluder must
 * not be able to stop its neighbours. */
static void hold(struct fl_secagg_client *c, struct fl_client_neighbour *n, const uint8_t *item)
{
    uint8_t shared[FL_SECAGG_KEY_SIZE], check[2 * FL_SECAGG_CHECK_SIZE];

    n->held = fl_secagg_agree(c->c.secret, n->c_public, shared) &&
              fl_secagg_open(shared, &c->view, n->index, c->own, item, n->secrets);
    sodium_memzero(shared, sizeof shared);
    if (!n->held) {
        return;
    }
    fl_secagg_check(&c->view, FL_SECAGG_SELF, n->index, c->own, n->secrets, check);
    fl_secagg_check(&c->view, FL_SECAGG_PAIR, n->index, c->own, n->secrets + FL_SHARE_SIZE,
                    check + FL_SECAGG_CHECK_SIZE);
    n->held = memcmp(check, item + FL_SECAGG_CIPHER_SIZE, sizeof check) == 0;
}

static int delivery_judge(struct fl_secagg_client *c, const uint8_t *delivery, size_t size,
                          struct fl_err *e)
{
    struct fl_delivery_view v;
    uint32_t n = c->rule.members, taken = 0, held = 0;
    int r = fl_delivery_read(&c->setup.context, delivery, size, n, &v, e);

    if (r < 0) {
        return r;
    }
    if (!fl_set_has(v.set, c->own)) {
        return fl_fail(e, FL_R_SECAGG_VIEW, "this agent dealt and is not shown among the dealers");
    }
    for (uint32_t i = 0; i < c->rule.neighbours; i++) {
        struct fl_client_neighbour *nb = &c->neighbour[i];
        nb->shared = fl_set_has(v.set, nb->index);
        if (nb->shared && taken < v.count) {
            hold(c, nb, v.items + (size_t)taken * FL_DELIVERY_ITEM);
            held += nb->held;
        }
        taken += nb->shared;
    }
    if (taken != v.count) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "%u neighbours dealt, %u shares came", taken,
                       v.count);
    }
    if (fl_set_count(v.set, n) < c->setup.survivors_min || held + 1 < c->rule.threshold) {
        return fl_fail(e, FL_R_SECAGG_FEW, "%u of %u agents dealt, %u usable shares of %u needed",
                       fl_set_count(v.set, n), n, held + 1, c->rule.threshold);
    }
    c->shared_set = fl_client_set_copy(v.set, n);
    return c->shared_set ? 0 : fl_fail(e, FL_R_NOMEM, "a set of %u agents", n);
}

/* The self mask and one for each neighbour in U2. */
static int masks_of(const struct fl_secagg_client *c, struct fl_mask *masks, uint32_t *ret_count,
                    struct fl_err *e)
{
    uint32_t count = 0;

    fl_secagg_self_seed(c->b, &c->view, c->own, &masks[count++].seed);
    for (uint32_t i = 0; i < c->rule.neighbours; i++) {
        const struct fl_client_neighbour *n = &c->neighbour[i];
        uint8_t shared[FL_SECAGG_KEY_SIZE];
        if (!n->shared) {
            continue;
        }
        if (!fl_secagg_agree(c->s.secret, n->s_public, shared)) {
            return fl_fail(e, FL_R_SECAGG_KEYS, "neighbour %u has a public key of small order",
                           n->index);
        }
        fl_secagg_pair_seed(shared, &c->view, c->own, n->index, &masks[count].seed);
        masks[count++].negative = n->index < c->own;
        sodium_memzero(shared, sizeof shared);
    }
    *ret_count = count;
    return 0;
}

static int mask(struct fl_secagg_client *c, const uint8_t *delivery, size_t size, const int64_t *q,
                struct fl_secagg_bytes *ret, struct fl_err *e)
{
    struct fl_secagg_out out;
    uint32_t count = 0;
    size_t bytes = 0;
    int r = delivery_judge(c, delivery, size, e);

    if (r < 0) {
        return r;
    }
    struct fl_mask *masks = fl_try((size_t)c->rule.neighbours + 1, sizeof *masks);
    if (!masks) {
        return fl_fail(e, FL_R_NOMEM, "masks for %u neighbours", c->rule.neighbours);
    }
    r = masks_of(c, masks, &count, e);
    if (r == 0 && fl_ring_bytes(c->setup.bits, c->setup.count, &bytes)) {
        r = fl_out_begin(&out, FL_SECAGG_MASKED, &c->setup.context, bytes, ret, e);
    }
    if (r == 0) {
        r = fl_mask_vector(c->setup.bits, c->setup.count, c->setup.max, masks, count, q,
                           ret->bytes + FL_SECAGG_HEAD_SIZE, e);
        if (r < 0) {
            fl_secagg_bytes_free(ret);
        }
    }
    sodium_memzero(masks, ((size_t)c->rule.neighbours + 1) * sizeof *masks);
    fl_free(masks);
    /* What made the masks is not needed again: the neighbours have the shares. */
    sodium_memzero(&c->s, sizeof c->s);
    sodium_memzero(c->c.secret, sizeof c->c.secret);
    sodium_memzero(c->b, sizeof c->b);
    return r;
}

int fl_secagg_client_mask(struct fl_secagg_client *c, const uint8_t *delivery, size_t size,
                          const int64_t *q, struct fl_secagg_bytes *ret, struct fl_err *e)
{
    int r = fl_client_in_order(c, FL_CLIENT_MASK, e);

    return r < 0 ? r : fl_client_end_step(c, FL_CLIENT_SIGN, mask(c, delivery, size, q, ret, e));
}
