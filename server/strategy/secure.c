/*
 * How a sum becomes updates again: value v of a sum of m members is dealt as floor((v + j) / m) for
 * j = 0 ... m - 1. These add up to v (Hermite's identity), and each is within the members' own
 * bound, since |v| <= m * max.
 */
#include "server/strategy/secure.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/privacy/secagg/mask.h"

#include <string.h>

struct fl_secure {
    const struct fl_plan *plan;
    struct fl_secagg_setup setup;
    struct fl_secagg_server *server;
};

int fl_secure_check(const struct fl_plan *plan, const struct fl_strategy *strategy,
                    struct fl_err *e)
{
    if (plan->secure.on && !(strategy->needs & FL_STRATEGY_SUM_ONLY)) {
        return fl_fail(e, FL_R_PLAN_STRATEGY,
                       "strategy %s looks at single updates (to compare, mix or vote), which "
                       "secure_aggregation hides from the coordinator: choose one of them",
                       strategy->name);
    }
    if (plan->secure.on && strategy->next_slots) {
        return fl_fail(e, FL_R_PLAN_STRATEGY,
                       "strategy %s has several models, and the sum of a few members would tell "
                       "much of each: secure_aggregation is for one model",
                       strategy->name);
    }
    return 0;
}

int fl_secure_new(const struct fl_plan *plan, const uint8_t incarnation[16], uint64_t round,
                  uint32_t slot, const struct fl_secagg_identity *identity, struct fl_secure **ret,
                  struct fl_err *e)
{
    struct fl_secure *s = fl_try(1, sizeof *s);

    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "a secure sum");
    }
    s->plan = plan;
    int r = fl_plan_secure_setup(plan, incarnation, round, slot, &s->setup, e);
    if (r == 0) {
        r = fl_secagg_server_new(&s->setup, identity, &s->server, e);
    }
    if (r < 0) {
        fl_secure_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void fl_secure_free(struct fl_secure *s)
{
    if (s) {
        fl_secagg_server_free(s->server);
        fl_free(s);
    }
}

enum fl_secagg_stage fl_secure_stage_of(const struct fl_exchange_terms *terms)
{
    return fl_plan_secure_stage(terms->name);
}

enum fl_secagg_stage fl_secure_stage(const struct fl_secure *s)
{
    return fl_secagg_server_stage(s->server);
}

static int check_payload(const struct fl_secure *s, enum fl_secagg_stage stage,
                         const struct fl_update *u, struct fl_err *e)
{
    struct fl_exchange_terms terms;

    if (stage >= FL_SECAGG_STAGES) {
        return fl_fail(e, FL_R_MSG_ORDER, "a secure sum has no such stage");
    }
    fl_plan_secure_exchange(s->plan, stage, &terms);
    if (u->size == 0 || u->size > terms.size || u->weight != 1) {
        return fl_fail(e, u->weight != 1 ? FL_R_UPDATE_RANGE : FL_R_UPDATE_LENGTH,
                       "%llu bytes of weight %u; %s takes 1 to %llu of weight 1",
                       (unsigned long long)u->size, u->weight, terms.name,
                       (unsigned long long)terms.size);
    }
    return 0;
}

/* A small object, whole; freed by fl_free. */
static int object_read(const struct fl_update *u, uint8_t **ret, struct fl_err *e)
{
    uint8_t *bytes = fl_try((size_t)u->size, 1);

    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "%llu bytes of a secure sum", (unsigned long long)u->size);
    }
    int r = u->read(u->arg, 0, bytes, (size_t)u->size, e);
    if (r < 0) {
        fl_free(bytes);
        return r;
    }
    *ret = bytes;
    return 0;
}

int fl_secure_judge(const struct fl_secure *s, enum fl_secagg_stage stage,
                    const struct fl_update *u, const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE],
                    struct fl_err *e)
{
    uint8_t *bytes = NULL;
    int r = check_payload(s, stage, u, e);

    if (r == 0 && stage == FL_SECAGG_MASK) {
        const struct fl_secagg_source from = {u->size, u->read, u->arg};
        return fl_secagg_server_judge_masked(s->server, u->agent, &from, e);
    }
    r = r < 0 ? r : object_read(u, &bytes, e);
    if (r == 0) {
        r = fl_secagg_server_judge(s->server, stage, u->agent, bytes, (size_t)u->size, principal,
                                   e);
    }
    fl_free(bytes);
    return r;
}

int fl_secure_fold(struct fl_secure *s, enum fl_secagg_stage stage, const struct fl_update *u,
                   struct fl_err *e)
{
    uint8_t *bytes = NULL;
    int r = check_payload(s, stage, u, e);

    if (r == 0 && stage == FL_SECAGG_MASK) {
        const struct fl_secagg_source from = {u->size, u->read, u->arg};
        return fl_secagg_server_masked(s->server, u->agent, &from, e);
    }
    r = r < 0 ? r : object_read(u, &bytes, e);
    if (r == 0) {
        r = fl_secagg_server_take(s->server, stage, u->agent, bytes, (size_t)u->size, e);
    }
    fl_free(bytes);
    return r;
}

void fl_secure_reset(struct fl_secure *s, enum fl_secagg_stage stage)
{
    if (stage == fl_secure_stage(s)) {
        fl_secagg_server_reset(s->server);
    }
}

bool fl_secure_is_lost(int status)
{
    return status == -FL_R_SECAGG_FEW || status == -FL_R_SECAGG_SHARE ||
           status == -FL_R_SECAGG_KEYS || status == -FL_R_UPDATE_RANGE ||
           status == -FL_R_CONF_RANGE; /* no graph for so many as came */
}

int fl_secure_between(struct fl_secure *s, struct fl_err *e)
{
    return fl_secagg_server_close(s->server, e);
}

uint32_t fl_secure_complaints(const struct fl_secure *s, struct fl_secagg_complaint *ret,
                              uint32_t max)
{
    return fl_secagg_server_complaints(s->server, ret, max);
}

int fl_secure_input(const struct fl_secure *s, enum fl_secagg_stage stage, uint64_t agent,
                    uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    struct fl_secagg_bytes b = {NULL, 0};

    if (stage == FL_SECAGG_ADVERTISE || stage != fl_secagg_server_stage(s->server)) {
        return fl_fail(e, FL_R_MSG_ORDER, "nothing to begin stage %s with",
                       fl_secagg_stage_name(stage));
    }
    int r = fl_secagg_server_reply(s->server, (enum fl_secagg_stage)(stage - 1), agent, &b, e);
    if (r == 0) {
        *ret = b.bytes;
        *ret_size = b.size;
    }
    return r;
}

/* ---- the sum as updates ---- */

struct dealt {
    const struct fl_grid *grid;
    const int64_t *sum; /* of ready_to_deal */
    size_t count;
    uint32_t number;
    uint8_t *packed; /* update `number`; made when it is first read */
    int64_t *tile;
    bool made;
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

static int dealt_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    struct dealt *d = arg;
    size_t all;

    (void)fl_grid_bytes(d->grid, d->count, &all); /* the plan's own update */
    if (offset > all || size > all - offset) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "behind the end of an update");
    }
    for (size_t first = 0; !d->made && first < d->count; first += TILE) {
        size_t some = d->count - first < TILE ? d->count - first : TILE;
        for (size_t i = 0; i < some; i++) {
            d->tile[i] = part_of(d->sum[first + i] + d->number);
        }
        if (fl_grid_pack(d->grid, d->tile, some, d->packed + first / 8 * d->grid->bits) != 0) {
            return fl_fail(e, FL_R_UPDATE_RANGE, "a secure sum beyond its members' grid");
        }
    }
    d->made = true;
    memcpy(to, d->packed + offset, size);
    return 0;
}

static int sum_open(const struct fl_secure *s, int64_t *sum, struct fl_err *e)
{
    uint8_t *scratch = fl_try_aligned(2, FL_MASK_TILE);
    size_t words = fl_ring_tile(s->setup.bits);
    int r = scratch ? 0 : fl_fail(e, FL_R_NOMEM, "a tile of a secure sum");

    for (uint64_t tile = 0; r == 0 && tile < fl_secagg_server_tiles(s->server); tile++) {
        r = fl_secagg_server_sum(s->server, tile, scratch, scratch + FL_MASK_TILE,
                                 sum + tile * words, e);
    }
    fl_free(scratch);
    return r;
}

int fl_secure_finish(const struct fl_secure *s, const struct fl_strategy *strategy,
                     const void *shared, void *slot, uint32_t *ret_members, struct fl_err *e)
{
    const struct fl_grid grid = {s->plan->grid.bits, s->plan->grid.step};
    uint32_t members = fl_secagg_server_members(s->server, NULL, 0);
    size_t count = (size_t)s->setup.count, size = 0;
    int64_t *sum = fl_try_aligned(count + TILE, sizeof *sum);
    uint8_t *packed = NULL;
    int r = fl_secure_check(s->plan, strategy, e);

    if (r == 0 && fl_grid_bytes(&grid, count, &size)) {
        packed = fl_try(size + 1, 1);
    }
    if (r == 0 && (!sum || !packed)) {
        r = fl_fail(e, FL_R_NOMEM, "a secure sum of %zu values", count);
    }
    if (r == 0) {
        r = sum_open(s, sum, e);
    }
    if (r == 0) {
        ready_to_deal(sum, count, members);
    }
    for (uint32_t j = 0; r == 0 && j < members; j++) {
        struct dealt d = {.grid = &grid,
                          .sum = sum,
                          .count = count,
                          .number = j,
                          .packed = packed,
                          .tile = sum + count};
        /* Nobody's: numbered, so that nothing can be read out of an agent's name. */
        const struct fl_update u = {
            .agent = j + 1, .weight = 1, .size = size, .read = dealt_read, .arg = &d};
        r = strategy->fold(slot, shared, &u, e);
    }
    if (r == 0) {
        *ret_members = members;
    }
    fl_free(sum);
    fl_free(packed);
    return r;
}
