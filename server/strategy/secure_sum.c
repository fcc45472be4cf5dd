/*
 * How a sum becomes updates again: value v of a sum of m members is dealt as floor((v + j) / m) for
 * j = 0 ... m - 1. These add up to v (Hermite's identity), and each is within the members' own
 * bound, since |v| <= m * max.
 */
#include "server/strategy/secure_in.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/privacy/secagg/mask.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A made-up update: for each part the sum it is dealt from, and its number among those. */
struct fl_secure_dealt {
    struct fl_secure *s;
    const int64_t *q[FL_SECURE_PARTS_MAX]; /* NULL: of a group that was given up */
    uint32_t number[FL_SECURE_PARTS_MAX];
};

enum {
    TILE = 4096, /* values; a multiple of 8, so that each begins at a byte */
    PART = 1 << 20,
};
_Static_assert(2 * FL_SECAGG_MEMBERS_MAX < PART, "a remainder and a number fit in a part");

/* Divided once and not for each member: v = q m + r becomes q PART + r + PART - m, and update j
 * is the floor of (that + j) / PART, which is q, or q + 1 when r + j reaches m. */
static void ready_to_deal(int64_t *sum, size_t count, uint32_t members)
{
    for (size_t i = 0; i < count; i++) {
        int64_t r = sum[i] % members;
        r += r < 0 ? members : 0;
        sum[i] = (sum[i] - r) / members * PART + r + PART - members;
    }
}

static int64_t part_of(int64_t v)
{
    return v / PART - (v % PART < 0);
}

/* Values [first, first + count) of a made-up update. */
static void deal(const struct fl_secure_dealt *d, size_t first, size_t count, int64_t *to)
{
    const struct fl_secure *s = d->s;

    memset(to, 0, count * sizeof *to);
    for (uint32_t p = 0; p < s->part_count; p++) {
        const struct fl_secure_part *part = &s->part[p];
        size_t low = first > part->first ? first : part->first;
        size_t end = part->first + part->count, high = first + count < end ? first + count : end;
        for (size_t i = low; d->q[p] && i < high; i++) {
            to[i - first] = part_of(d->q[p][i - part->first] + d->number[p]);
        }
    }
}

static int dealt_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct fl_secure_dealt *d = arg;
    struct fl_secure *s = d->s;
    const struct fl_grid g = {s->plan->grid.bits, s->plan->grid.step};
    size_t elements = s->plan->layout.shared.elements, all;

    (void)fl_grid_bytes(&g, elements, &all); /* the plan's own update */
    if (offset > all || size > all - offset) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "behind the end of an update");
    }
    while (size > 0) {
        size_t first = (size_t)(offset * 8 / g.bits) & ~(size_t)7;
        size_t count = elements - first < TILE ? elements - first : TILE;
        size_t skip = (size_t)offset - first / 8 * g.bits, bytes = (count * g.bits + 7) / 8 - skip;
        bytes = bytes < size ? bytes : size;
        deal(d, first, count, s->tile);
        if (fl_grid_pack(&g, s->tile, count, s->packed) != 0) {
            return fl_fail(e, FL_R_UPDATE_RANGE, "a secure sum beyond its members' grid");
        }
        memcpy(to, s->packed + skip, bytes);
        to += bytes;
        offset += bytes;
        size -= bytes;
    }
    return 0;
}

/* ---- opening ---- */

static int sum_open(const struct fl_secagg_server *server, uint32_t bits, int64_t *sum,
                    struct fl_err *e)
{
    uint8_t *scratch = fl_try_aligned(2, FL_MASK_TILE);
    size_t words = fl_ring_tile(bits);
    int r = scratch ? 0 : fl_fail(e, FL_R_NOMEM, "a tile of a secure sum");

    for (uint64_t tile = 0; r == 0 && tile < fl_secagg_server_tiles(server); tile++) {
        r = fl_secagg_server_sum(server, tile, scratch, scratch + FL_MASK_TILE, sum + tile * words,
                                 e);
    }
    fl_free(scratch);
    return r;
}

/* One that is no sum of honest vectors is given up. Fails when none is left. */
static int open_part(struct fl_secure *s, uint32_t part, struct fl_err *e)
{
    const struct fl_grid g = {s->plan->grid.bits, s->plan->grid.step};
    uint32_t bits = fl_secagg_bits(s->plan->round.members, fl_grid_max(&g)), left = 0;
    struct fl_secure_sums *sums = &s->sums[part];
    int why = 0;

    for (uint32_t i = 0; i < sums->count; i++) {
        struct fl_secure_sum *sum = &sums->at[i];
        if (sum->lost) {
            continue;
        }
        sum->members = fl_secagg_server_members(sum->server, NULL, 0);
        sum->q = fl_try_aligned(s->part[part].count, sizeof *sum->q);
        int r = sum->q ? sum_open(sum->server, bits, sum->q, why ? NULL : e)
                       : fl_fail(why ? NULL : e, FL_R_NOMEM, "a secure sum of %zu values",
                                 s->part[part].count);
        if (r == 0) {
            ready_to_deal(sum->q, s->part[part].count, sum->members);
            left++;
        } else if (!fl_secure_is_lost(r)) {
            return r;
        } else {
            why = why ? why : r;
            sum->lost = sums->count > 1;
            fl_free(sum->q);
            sum->q = NULL;
        }
    }
    return left > 0 ? 0 : why ? why : fl_fail(e, FL_R_SECAGG_FEW, "no secure sum is left");
}

/* ---- updates ---- */

void fl_secure_undeal(struct fl_secure *s)
{
    for (uint32_t p = 0; p < s->part_count; p++) {
        for (uint32_t i = 0; i < s->sums[p].count; i++) {
            fl_free(s->sums[p].at[i].q);
            s->sums[p].at[i].q = NULL;
        }
    }
    fl_free(s->dealt);
    fl_free(s->update);
    fl_free(s->tile);
    fl_free(s->packed);
    s->dealt = NULL;
    s->update = NULL;
    s->tile = NULL;
    s->packed = NULL;
    s->update_count = 0;
}

static int by_agent(const void *x, const void *y)
{
    const struct fl_update *a = x, *b = y;

    return (a->agent > b->agent) - (a->agent < b->agent);
}

/* A part's sums are dealt to their members: of the first part a new update each. */
static void deal_sum(struct fl_secure *s, uint32_t part, uint32_t group, const uint64_t *ids,
                     size_t size)
{
    const struct fl_secure_sum *sum = &s->sums[part].at[group];
    bool last = part + 1 == s->part_count;

    for (uint32_t j = 0; j < sum->members; j++) {
        const struct fl_update key = {.agent = ids[j]};
        struct fl_update *u =
            part == 0 ? NULL : bsearch(&key, s->update, s->update_count, sizeof key, by_agent);
        if (part == 0) {
            u = &s->update[s->update_count];
            *u = (struct fl_update){.agent = ids[j],
                                    .weight = 1,
                                    .group = FL_STRATEGY_NO_GROUP,
                                    .size = size,
                                    .read = dealt_read,
                                    .arg = &s->dealt[s->update_count++]};
        }
        if (!u) {
            continue; /* it is in the group's sum alone, which cannot be */
        }
        struct fl_secure_dealt *d = u->arg;
        d->s = s;
        d->q[part] = sum->q;
        d->number[part] = j;
        u->group = last ? group : u->group;
    }
}

static int deal_all(struct fl_secure *s, struct fl_err *e)
{
    const struct fl_grid g = {s->plan->grid.bits, s->plan->grid.step};
    uint32_t n = s->agent_count ? s->agent_count : 1;
    uint64_t *ids = fl_try(n, sizeof *ids);
    size_t size = 0;

    s->dealt = fl_try(n, sizeof *s->dealt);
    s->update = fl_try(n, sizeof *s->update);
    s->tile = fl_try_aligned(TILE, sizeof *s->tile);
    s->packed = fl_try_aligned(TILE, sizeof *s->tile);
    if (!ids || !s->dealt || !s->update || !s->tile || !s->packed ||
        !fl_grid_bytes(&g, s->plan->layout.shared.elements, &size)) {
        fl_free(ids);
        return fl_fail(e, FL_R_NOMEM, "updates of %u members", n);
    }
    for (uint32_t p = 0; p < s->part_count; p++) {
        for (uint32_t i = 0; i < s->sums[p].count; i++) {
            if (s->sums[p].at[i].q) {
                (void)fl_secagg_server_members(s->sums[p].at[i].server, ids, n);
                deal_sum(s, p, i, ids, size);
            }
        }
        qsort(s->update, s->update_count, sizeof *s->update, by_agent);
    }
    fl_free(ids);
    return 0;
}

int fl_secure_finish(struct fl_secure *s, const void *shared, void *const *slots,
                     struct fl_updates *ret, struct fl_err *e)
{
    int r = 0;

    if (s->stage != FL_SECAGG_STAGES) {
        return fl_fail(e, FL_R_MSG_ORDER, "the secure sum is not open yet");
    }
    fl_secure_undeal(s);
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        struct fl_err unused;
        r = open_part(s, p, p == 0 ? e : &unused);
        r = p == 0 || !fl_secure_is_lost(r) ? r : 0; /* a common part alone is something, too */
    }
    r = r < 0 ? r : deal_all(s, e);
    for (uint32_t i = 0; r == 0 && i < s->update_count; i++) {
        const struct fl_update *u = &s->update[i];
        uint32_t slot = 0;
        r = s->strategy->place(shared, &u->agent, 1, &slot, e);
        r = r < 0 ? r : s->strategy->fold(slots[slot], shared, u, e);
    }
    if (r == 0) {
        *ret = (struct fl_updates){s->update_count, s->update};
    }
    return r;
}
