/* The coordinator's side: the end of each stage, and what goes down after it. */
#include "common/privacy/secagg/server_in.h"

#include "common/base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void fl_server_advert(const struct fl_secagg_server *s, const struct fl_server_member *m,
                      struct fl_advert_view *ret)
{
    const struct fl_secagg_bytes *o = &m->object[FL_SECAGG_ADVERTISE];
    int r = fl_advert_read(&s->setup.context, o->bytes, o->size, ret, NULL);

    assert(r == 0); /* it was read when it came */
}

void fl_server_shares(const struct fl_secagg_server *s, const struct fl_server_member *m,
                      struct fl_shares_view *ret)
{
    const struct fl_secagg_bytes *o = &m->object[FL_SECAGG_SHARE];
    int r = fl_shares_read(&s->setup.context, o->bytes, o->size, s->rule.neighbours, ret, NULL);

    assert(r == 0);
}

/* ---- U1 ---- */

static int by_principal(const void *a, const void *b)
{
    const struct fl_server_member *x = a, *y = b;

    return memcmp(x->principal, y->principal, sizeof x->principal);
}

struct numbered {
    uint64_t agent;
    uint32_t index;
};

static int by_agent(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;

    return (x->agent > y->agent) - (x->agent < y->agent);
}

static int sort_by_agent(struct fl_secagg_server *s, uint32_t *ret, struct fl_err *e)
{
    struct numbered *list = fl_try(s->count, sizeof *list);

    if (!list) {
        return fl_fail(e, FL_R_NOMEM, "a list of %u agents", s->count);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        list[i] = (struct numbered){s->member[i].agent, i};
    }
    qsort(list, s->count, sizeof *list, by_agent);
    for (uint32_t i = 0; i < s->count; i++) {
        ret[i] = list[i].index;
    }
    fl_free(list);
    return 0;
}

static int graph_draw(struct fl_secagg_server *s, struct fl_err *e)
{
    uint32_t n = s->count, k = s->rule.neighbours;
    uint32_t *order = fl_try(n, sizeof *order), *place = fl_try(n, sizeof *place);
    int r = 0;

    s->near = fl_try((size_t)n * k, sizeof *s->near);
    if (!order || !place || !s->near) {
        r = fl_fail(e, FL_R_NOMEM, "the graph of %u agents", n);
    } else {
        fl_secagg_graph(&s->view, n, order, place);
        for (uint32_t i = 0; i < n; i++) {
            fl_secagg_neighbours(order, place, n, k, i, s->near + (size_t)i * k);
        }
    }
    fl_free(order);
    fl_free(place);
    return r;
}

static void entries_write(struct fl_secagg_server *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        uint8_t *entry = s->entries + (size_t)i * FL_SECAGG_ENTRY_SIZE;
        struct fl_advert_view v;
        struct fl_digest keys;
        fl_server_advert(s, &s->member[i], &v);
        fl_secagg_keys_digest(&s->setup.context, s->member[i].principal, v.c_public, v.s_public,
                              &keys);
        memcpy(entry, s->member[i].principal, FL_SECAGG_PRINCIPAL_SIZE);
        memcpy(entry + FL_SECAGG_PRINCIPAL_SIZE, keys.bytes, FL_SECAGG_CHECK_SIZE);
    }
}

static int close_adverts(struct fl_secagg_server *s, struct fl_err *e)
{
    uint32_t n = s->count;

    if (n < s->setup.members_min) {
        return fl_fail(e, FL_R_SECAGG_FEW, "%u agents advertised keys, at least %u must", n,
                       s->setup.members_min);
    }
    int r = fl_secagg_setup_rule(&s->setup, n, &s->rule, e);
    if (r < 0) {
        return r;
    }
    uint32_t *sorted = fl_try(n, sizeof *sorted);
    s->entries = fl_try(n, FL_SECAGG_ENTRY_SIZE);
    s->set[0] = fl_try(fl_set_size(n), 1);
    s->set[1] = fl_try(fl_set_size(n), 1);
    if (!sorted || !s->entries || !s->set[0] || !s->set[1]) {
        fl_free(sorted);
        return fl_fail(e, FL_R_NOMEM, "a roster of %u agents", n);
    }
    qsort(s->member, n, sizeof *s->member, by_principal);
    r = sort_by_agent(s, sorted, e);
    if (r < 0) {
        fl_free(sorted);
        return r;
    }
    s->by_agent = sorted;
    entries_write(s);
    struct fl_roster_view v = {.members = n,
                               .neighbours = s->rule.neighbours,
                               .threshold = s->rule.threshold,
                               .entries = s->entries};
    fl_roster_digest(&s->setup.context, &v, &s->view);
    return graph_draw(s, e);
}

/* ---- the others ---- */

static uint32_t how_many(const struct fl_secagg_server *s, enum fl_secagg_stage stage)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < s->count; i++) {
        count += s->member[i].has[stage];
    }
    return count;
}

/* For the vectors: not before they are about to come. */
static int make_room(struct fl_secagg_server *s, struct fl_err *e)
{
    uint64_t count = s->setup.count > 0 ? s->setup.count : 1;

    s->words = s->words ? s->words : fl_try_aligned(count, fl_ring_word(s->setup.bits));
    s->tile = s->tile ? s->tile : fl_try_aligned(2, FL_MASK_TILE);
    return s->words && s->tile
               ? 0
               : fl_fail(e, FL_R_NOMEM, "a secure sum of %llu values", (unsigned long long)count);
}

int fl_secagg_server_close(struct fl_secagg_server *s, struct fl_err *e)
{
    enum fl_secagg_stage stage = s->stage;
    int r = 0;

    if (stage == FL_SECAGG_STAGES) {
        return fl_fail(e, FL_R_MSG_ORDER, "the secure sum is closed");
    }
    if (stage == FL_SECAGG_ADVERTISE) {
        r = close_adverts(s, e);
    } else {
        uint32_t least = s->rule.majority;
        if (stage <= FL_SECAGG_MASK && s->setup.survivors_min > least) {
            least = s->setup.survivors_min;
        } else if (stage == FL_SECAGG_UNMASK) {
            least = 1; /* whether the shares are enough is seen from them */
        }
        uint32_t count = how_many(s, stage);
        if (count < least) {
            return fl_fail(e, FL_R_SECAGG_FEW, "%u agents are in stage %s, at least %u must", count,
                           fl_secagg_stage_name(stage), least);
        }
    }
    if (r == 0 && stage == FL_SECAGG_SHARE) {
        r = make_room(s, e);
    }
    if (r == 0 && (stage == FL_SECAGG_SHARE || stage == FL_SECAGG_MASK)) {
        uint8_t *set = s->set[stage - FL_SECAGG_SHARE];
        for (uint32_t i = 0; i < s->count; i++) {
            if (s->member[i].has[stage]) {
                fl_set_add(set, i);
            }
        }
    } else if (stage == FL_SECAGG_UNMASK) {
        r = s->spoilt ? fl_fail(e, FL_R_INTERNAL, "the sum is spoilt by a failed read")
                      : fl_server_unmask(s, e);
    }
    if (r == 0) {
        s->stage++;
    }
    return r;
}

/* ---- what goes down ---- */

static int roster_write(const struct fl_secagg_server *s, uint32_t index,
                        struct fl_secagg_bytes *ret, struct fl_err *e)
{
    const uint32_t *neighbour = fl_server_near(s, index);
    uint32_t k = s->rule.neighbours;
    size_t size = 12 + (size_t)s->count * FL_SECAGG_ENTRY_SIZE;
    struct fl_secagg_out out;

    for (uint32_t i = 0; i < k; i++) {
        size += s->member[neighbour[i]].object[FL_SECAGG_ADVERTISE].size - FL_SECAGG_HEAD_SIZE;
    }
    int r = fl_out_begin(&out, FL_SECAGG_ROSTER, &s->setup.context, size, ret, e);
    if (r < 0) {
        return r;
    }
    fl_out_u32(&out, s->count);
    fl_out_u32(&out, k);
    fl_out_u32(&out, s->rule.threshold);
    fl_out_put(&out, s->entries, (size_t)s->count * FL_SECAGG_ENTRY_SIZE);
    for (uint32_t i = 0; i < k; i++) {
        const struct fl_secagg_bytes *o = &s->member[neighbour[i]].object[FL_SECAGG_ADVERTISE];
        fl_out_put(&out, o->bytes + FL_SECAGG_HEAD_SIZE, o->size - FL_SECAGG_HEAD_SIZE);
    }
    fl_out_end(&out);
    return 0;
}

/* Where `index` stands among the neighbours of `dealer`. */
static uint32_t rank_among(const struct fl_secagg_server *s, uint32_t dealer, uint32_t index)
{
    const uint32_t *neighbour = fl_server_near(s, dealer);
    uint32_t low = 0, high = s->rule.neighbours;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (neighbour[middle] <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    assert(neighbour[low] == index); /* the graph has no directions */
    return low;
}

bool fl_server_share_fits(const struct fl_secagg_server *s, uint32_t dealer,
                          enum fl_secagg_kind kind, uint32_t holder, const uint8_t *share)
{
    uint8_t check[FL_SECAGG_CHECK_SIZE];
    uint32_t rank = dealer == holder ? 0 : rank_among(s, dealer, holder);
    struct fl_shares_view v;

    fl_server_shares(s, &s->member[dealer], &v);
    const uint8_t *published = kind == FL_SECAGG_PAIR ? v.pair_checks
                               : dealer == holder     ? v.self_checks
                                                      : v.self_checks + FL_SECAGG_CHECK_SIZE;
    fl_secagg_check(&s->view, kind, dealer, holder, share, check);
    return memcmp(check, published + (size_t)rank * FL_SECAGG_CHECK_SIZE, sizeof check) == 0;
}

static int delivery_write(const struct fl_secagg_server *s, uint32_t index,
                          struct fl_secagg_bytes *ret, struct fl_err *e)
{
    const uint32_t *neighbour = fl_server_near(s, index);
    uint32_t k = s->rule.neighbours, count = 0;
    struct fl_secagg_out out;

    for (uint32_t i = 0; i < k; i++) {
        count += fl_set_has(s->set[0], neighbour[i]);
    }
    int r = fl_out_begin(&out, FL_SECAGG_DELIVERY, &s->setup.context,
                         fl_set_size(s->count) + 4 + (size_t)count * FL_DELIVERY_ITEM, ret, e);
    if (r < 0) {
        return r;
    }
    fl_out_put(&out, s->set[0], fl_set_size(s->count));
    fl_out_u32(&out, count);
    for (uint32_t i = 0; i < k; i++) {
        struct fl_shares_view v;
        if (!fl_set_has(s->set[0], neighbour[i])) {
            continue;
        }
        size_t rank = rank_among(s, neighbour[i], index);
        fl_server_shares(s, &s->member[neighbour[i]], &v);
        fl_out_put(&out, v.ciphers + rank * FL_SECAGG_CIPHER_SIZE, FL_SECAGG_CIPHER_SIZE);
        fl_out_put(&out, v.self_checks + (rank + 1) * FL_SECAGG_CHECK_SIZE, FL_SECAGG_CHECK_SIZE);
        fl_out_put(&out, v.pair_checks + rank * FL_SECAGG_CHECK_SIZE, FL_SECAGG_CHECK_SIZE);
    }
    fl_out_end(&out);
    return 0;
}

static int survivors_write(const struct fl_secagg_server *s, struct fl_secagg_bytes *ret,
                           struct fl_err *e)
{
    struct fl_secagg_out out;
    int r =
        fl_out_begin(&out, FL_SECAGG_SURVIVORS, &s->setup.context, fl_set_size(s->count), ret, e);

    if (r == 0) {
        fl_out_put(&out, s->set[1], fl_set_size(s->count));
        fl_out_end(&out);
    }
    return r;
}

static void signed_of(const struct fl_secagg_server *s, const struct fl_server_member *m,
                      struct fl_signed_view *ret)
{
    const struct fl_secagg_bytes *o = &m->object[FL_SECAGG_SIGN];
    int r = fl_signed_read(&s->setup.context, o->bytes, o->size, s->count, ret, NULL);

    assert(r == 0);
}

static int proofs_write(const struct fl_secagg_server *s, const struct fl_server_member *m,
                        struct fl_secagg_bytes *ret, struct fl_err *e)
{
    struct fl_signed_view asked, v;
    struct fl_advert_view advert;
    struct fl_secagg_out out;
    uint32_t count = 0;
    size_t size = 4;

    signed_of(s, m, &asked);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            int r = fl_out_begin(&out, FL_SECAGG_PROOFS, &s->setup.context, size, ret, e);
            if (r < 0) {
                return r;
            }
            fl_out_u32(&out, count);
        }
        for (uint32_t i = 0; i < asked.count; i++) {
            uint32_t index = fl_get_u32(asked.sample + 4 * (size_t)i);
            const struct fl_server_member *other = &s->member[index];
            if (!other->has[FL_SECAGG_SIGN]) {
                continue;
            }
            signed_of(s, other, &v);
            fl_server_advert(s, other, &advert);
            if (pass == 0) {
                count++;
                size += 4 + 2 + advert.cert_size + 2 + v.sig_size;
            } else {
                fl_out_u32(&out, index);
                fl_out_short(&out, advert.cert, advert.cert_size);
                fl_out_short(&out, v.sig, v.sig_size);
            }
        }
    }
    fl_out_end(&out);
    return 0;
}

int fl_secagg_server_reply(const struct fl_secagg_server *s, enum fl_secagg_stage stage,
                           uint64_t agent, struct fl_secagg_bytes *ret, struct fl_err *e)
{
    const struct fl_server_member *m = fl_server_find(s, agent);

    if (stage >= s->stage || stage >= FL_SECAGG_UNMASK) {
        return fl_fail(e, FL_R_MSG_ORDER, "nothing goes down after stage %s yet",
                       fl_secagg_stage_name(stage));
    }
    if (!m || !m->has[stage]) {
        return fl_fail(e, FL_R_NOT_MEMBER, "the agent was not in stage %s",
                       fl_secagg_stage_name(stage));
    }
    uint32_t index = (uint32_t)(m - s->member);
    switch (stage) {
    case FL_SECAGG_ADVERTISE:
        return roster_write(s, index, ret, e);
    case FL_SECAGG_SHARE:
        return delivery_write(s, index, ret, e);
    case FL_SECAGG_MASK:
        return survivors_write(s, ret, e);
    default:
        return proofs_write(s, m, ret, e);
    }
}
