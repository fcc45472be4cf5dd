/* The coordinator's side: secrets back from shares, masks off the sum. */
#include "common/privacy/secagg/server_in.h"

#include "common/base/mem.h"
#include "common/privacy/secagg/shamir.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* Shares of `dealer` that were revealed, up to the threshold; returns how many. They were compared
 * with what it published when they came. */
static uint32_t gather(const struct fl_secagg_server *s, uint32_t dealer, const uint32_t *neighbour,
                       struct fl_share *ret)
{
    bool alive = fl_set_has(s->set[1], dealer);
    uint32_t count = 0, k = s->rule.neighbours;
    struct fl_reveal_view v;

    for (uint32_t i = 0; i <= k && count < s->rule.threshold; i++) {
        uint32_t holder = i < k ? neighbour[i] : dealer;
        const struct fl_secagg_bytes *o = &s->member[holder].object[FL_SECAGG_UNMASK];
        if (!s->member[holder].has[FL_SECAGG_UNMASK] ||
            fl_reveal_read(&s->setup.context, o->bytes, o->size, s->count, &v, NULL) < 0) {
            continue;
        }
        const uint8_t *share = holder == dealer && alive ? v.self : NULL;
        for (uint32_t at = 0; at < v.count && holder != dealer; at++) {
            const uint8_t *item = v.items + (size_t)at * FL_REVEAL_ITEM;
            if (fl_get_u32(item) == dealer && item[4] != FL_SECAGG_NONE) {
                share = item + 5;
            }
        }
        if (share) {
            ret[count].holder = holder + 1;
            memcpy(ret[count++].bytes, share, FL_SHARE_SIZE);
        }
    }
    return count;
}

/* One agent's secret, and whether it is what the agent published. */
static int recover(struct fl_secagg_server *s, uint32_t dealer, const uint32_t *neighbour,
                   struct fl_share *shares, uint8_t ret[FL_SECAGG_KEY_SIZE], struct fl_err *e)
{
    const struct fl_server_member *m = &s->member[dealer];
    uint32_t count = gather(s, dealer, neighbour, shares);
    bool fits;

    if (count < s->rule.threshold) {
        return fl_fail(e, FL_R_SECAGG_FEW, "%u shares of agent %016llx, %u are needed", count,
                       (unsigned long long)m->agent, s->rule.threshold);
    }
    fits = fl_shamir_join(shares, count, ret);
    sodium_memzero(shares, count * sizeof *shares);
    if (fits && fl_set_has(s->set[1], dealer)) {
        struct fl_shares_view v;
        struct fl_digest commitment;
        fl_server_shares(s, m, &v);
        fl_secagg_commit(&s->view, dealer, ret, &commitment);
        fits = memcmp(commitment.bytes, v.commitment, sizeof commitment.bytes) == 0;
    } else if (fits) {
        uint8_t public[FL_SECAGG_KEY_SIZE];
        struct fl_advert_view v;
        fl_server_advert(s, m, &v);
        fl_secagg_public(ret, public);
        fits = memcmp(public, v.s_public, sizeof public) == 0;
    }
    if (!fits) {
        s->culprit = m->agent;
        return fl_fail(e, FL_R_SECAGG_SHARE, "the shares that agent %016llx dealt do not fit",
                       (unsigned long long)m->agent);
    }
    return 0;
}

/* The masks that `dropped` left in the vectors of its neighbours. */
static int pair_masks(struct fl_secagg_server *s, uint32_t dropped, const uint32_t *neighbour,
                      const uint8_t secret[FL_SECAGG_KEY_SIZE], struct fl_err *e)
{
    for (uint32_t i = 0; i < s->rule.neighbours; i++) {
        uint8_t shared[FL_SECAGG_KEY_SIZE];
        struct fl_advert_view v;
        if (!fl_set_has(s->set[1], neighbour[i])) {
            continue;
        }
        fl_server_advert(s, &s->member[neighbour[i]], &v);
        if (!fl_secagg_agree(secret, v.s_public, shared)) {
            return fl_fail(e, FL_R_SECAGG_KEYS, "agent %016llx has a public key of small order",
                           (unsigned long long)s->member[neighbour[i]].agent);
        }
        struct fl_mask *mask = &s->mask[s->mask_count++];
        fl_secagg_pair_seed(shared, &s->view, dropped, neighbour[i], &mask->seed);
        /* The neighbour added it when the dropped one's index is above its own. */
        mask->negative = dropped > neighbour[i];
        sodium_memzero(shared, sizeof shared);
    }
    return 0;
}

static int masks_recover(struct fl_secagg_server *s, struct fl_share *shares, struct fl_err *e)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const uint32_t *neighbour = fl_server_near(s, i);
        uint8_t secret[FL_SECAGG_KEY_SIZE];
        bool alive = fl_set_has(s->set[1], i);
        if (!fl_set_has(s->set[0], i)) {
            continue;
        }
        if (!alive) { /* nobody in the sum has a mask with it: nothing to take off */
            uint32_t near = 0;
            for (uint32_t at = 0; at < s->rule.neighbours; at++) {
                near += fl_set_has(s->set[1], neighbour[at]);
            }
            if (near == 0) {
                continue;
            }
        }
        int r = recover(s, i, neighbour, shares, secret, e);
        if (r == 0 && alive) {
            struct fl_mask *mask = &s->mask[s->mask_count++];
            fl_secagg_self_seed(secret, &s->view, i, &mask->seed);
            mask->negative = true;
        } else if (r == 0) {
            r = pair_masks(s, i, neighbour, secret, e);
        }
        sodium_memzero(secret, sizeof secret);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int fl_server_unmask(struct fl_secagg_server *s, struct fl_err *e)
{
    uint32_t alive = fl_set_count(s->set[1], s->count);
    uint32_t dropped = fl_set_count(s->set[0], s->count) - alive;
    size_t most = alive + (size_t)dropped * s->rule.neighbours;
    struct fl_share *shares = fl_try(s->rule.threshold, sizeof *shares);

    s->mask = fl_try(most, sizeof *s->mask);
    s->mask_count = 0;
    int r = shares && s->mask ? masks_recover(s, shares, e)
                              : fl_fail(e, FL_R_NOMEM, "%zu masks of a secure sum", most);
    if (r < 0 && s->mask) {
        sodium_memzero(s->mask, most * sizeof *s->mask);
        fl_free(s->mask);
        s->mask = NULL;
        s->mask_count = 0;
    }
    if (shares) {
        sodium_memzero(shares, s->rule.threshold * sizeof *shares);
    }
    fl_free(shares);
    return r;
}

uint64_t fl_secagg_server_tiles(const struct fl_secagg_server *s)
{
    size_t words = fl_ring_tile(s->setup.bits);

    return (s->setup.count + words - 1) / words;
}

int fl_secagg_server_sum(const struct fl_secagg_server *s, uint64_t tile, uint8_t *scratch,
                         void *words, int64_t *q, struct fl_err *e)
{
    uint32_t bits = s->setup.bits;
    size_t tile_words = fl_ring_tile(bits);

    if (s->stage != FL_SECAGG_STAGES || tile >= fl_secagg_server_tiles(s)) {
        return fl_fail(e, FL_R_MSG_ORDER, "the secure sum is not open yet, or has no such tile");
    }
    uint64_t first = tile * tile_words, left = s->setup.count - first;
    size_t some = left < tile_words ? (size_t)left : tile_words;
    memcpy(words, (const uint8_t *)s->words + first * fl_ring_word(bits),
           some * fl_ring_word(bits));
    for (uint64_t m = 0; m < s->mask_count; m++) {
        fl_mask_add(&s->mask[m].seed, bits, tile, s->mask[m].negative, words, some, scratch);
    }
    fl_ring_signed(bits, words, some, q);
    int64_t most = s->setup.max * (int64_t)fl_set_count(s->set[1], s->count);
    for (size_t i = 0; i < some; i++) {
        if (q[i] > most || q[i] < -most) {
            return fl_fail(e, FL_R_UPDATE_RANGE,
                           "value %llu of the secure sum is more than its agents can make",
                           (unsigned long long)(first + i));
        }
    }
    return 0;
}

uint32_t fl_secagg_server_members(const struct fl_secagg_server *s, uint64_t *ret, uint32_t max)
{
    uint32_t count = 0;

    for (uint32_t i = 0; s->by_agent && i < s->count; i++) {
        if (fl_set_has(s->set[1], s->by_agent[i])) {
            if (count < max) {
                ret[count] = s->member[s->by_agent[i]].agent;
            }
            count++;
        }
    }
    return count;
}

uint32_t fl_secagg_server_complaints(const struct fl_secagg_server *s,
                                     struct fl_secagg_complaint *ret, uint32_t max)
{
    uint32_t count = 0;
    struct fl_reveal_view v;

    if (s->culprit) {
        if (max > 0) {
            ret[0] = (struct fl_secagg_complaint){.of = s->culprit};
        }
        count++;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct fl_secagg_bytes *o = &s->member[i].object[FL_SECAGG_UNMASK];
        if (!s->member[i].has[FL_SECAGG_UNMASK] ||
            fl_reveal_read(&s->setup.context, o->bytes, o->size, s->count, &v, NULL) < 0) {
            continue;
        }
        for (uint32_t at = 0; at < v.count; at++) {
            const uint8_t *item = v.items + (size_t)at * FL_REVEAL_ITEM;
            if (item[4] != FL_SECAGG_NONE) {
                continue;
            }
            if (count < max) {
                ret[count] = (struct fl_secagg_complaint){s->member[i].agent,
                                                          s->member[fl_get_u32(item)].agent};
            }
            count++;
        }
    }
    return count;
}

uint64_t fl_secagg_server_masks(const struct fl_secagg_server *s)
{
    return s->mask_count;
}
