/*
 * The rules of secure aggregation: what a job cannot have together with it, and why, in words for
 * its author. Every agent checks them again.
 */
#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/plan_check.h"
#include "common/plan/secure.h"
#include "common/privacy/secagg/mask.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of a masked vector: two parts, and their heads, are no more than memory holds. */
#define MASKED_MOST (SIZE_MAX - 2 * FL_SECAGG_HEAD_SIZE - FL_SECURE_JOIN_HEAD - 8)

/* Chance that the random graph of one sum does not hide what it should (secagg/rule.h). */
#define GRAPH_FAILS 0x1p-40

enum { HONEST_LEAST = 3 }; /* honest members of a sum, one of them whoever reads this */

/* Of the most members that there can be. */
static uint32_t colluders_of(const struct fl_plan *p)
{
    uint32_t permille = (uint32_t)lround(p->secure.corrupt * 1000);
    uint32_t plain = (uint32_t)(p->round.members * p->secure.corrupt);
    uint32_t rounded = (uint32_t)((uint64_t)p->round.members * permille / 1000);

    return plain > rounded ? plain : rounded;
}

enum fl_secure_groups fl_plan_secure_groups(const struct fl_plan *plan)
{
    return plan->setting.bubble.by != FL_BUBBLE_NONE ? FL_SECURE_BUBBLES
           : plan->aggregate.on                      ? FL_SECURE_BUCKETS
                                                     : FL_SECURE_ONE;
}

uint32_t fl_plan_secure_least(const struct fl_plan *plan)
{
    return (uint32_t)ceil(plan->secure.survivors / (1 - plan->secure.dropout) - 1e-9);
}

uint32_t fl_plan_secure_survivors(const struct fl_plan *plan)
{
    return fl_plan_secure_groups(plan) == FL_SECURE_ONE ? plan->round.quorum
                                                        : colluders_of(plan) + HONEST_LEAST;
}

uint32_t fl_plan_secure_parts(const struct fl_plan *plan,
                              struct fl_secure_part ret[FL_SECURE_PARTS_MAX])
{
    size_t all = plan->layout.shared.elements;
    size_t split = plan->setting.bubble.body == FL_BODY_SHARED ? fl_plan_head_offset(plan) : 0;

    split = split < all ? split : 0; /* of a plan that is refused for its body */
    ret[0] = (struct fl_secure_part){0, split ? split : all};
    ret[1] = (struct fl_secure_part){split, all - split};
    return split ? 2 : 1;
}

int fl_plan_secure_join(const struct fl_secagg_bytes *parts, struct fl_secagg_bytes *ret,
                        struct fl_err *e)
{
    size_t size = FL_SECURE_JOIN_HEAD + parts[0].size + parts[1].size; /* of things in memory */
    uint8_t *to = fl_try(size, 1);

    if (!to || parts[0].size > UINT32_MAX) {
        fl_free(to);
        return fl_fail(e, FL_R_NOMEM, "%zu bytes of a secure sum", size);
    }
    fl_put_u32(to, (uint32_t)parts[0].size);
    memcpy(to + FL_SECURE_JOIN_HEAD, parts[0].bytes, parts[0].size);
    if (parts[1].size > 0) {
        memcpy(to + FL_SECURE_JOIN_HEAD + parts[0].size, parts[1].bytes, parts[1].size);
    }
    *ret = (struct fl_secagg_bytes){to, size};
    return 0;
}

int fl_plan_secure_split(const uint8_t *bytes, size_t size, size_t ret_size[FL_SECURE_PARTS_MAX],
                         struct fl_err *e)
{
    uint32_t first = size >= FL_SECURE_JOIN_HEAD ? fl_get_u32(bytes) : 0;

    if (first == 0 || first > size - FL_SECURE_JOIN_HEAD) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "%zu bytes are not two parts of a secure sum", size);
    }
    ret_size[0] = first;
    ret_size[1] = size - FL_SECURE_JOIN_HEAD - first;
    return 0;
}

int fl_plan_secure_setup(const struct fl_plan *plan, const uint8_t incarnation[16], uint64_t round,
                         uint32_t part, struct fl_secagg_setup *ret, struct fl_err *e)
{
    static const char label[] = "cohort secagg context 1"; /* with its zero */
    const struct fl_secure_conf *c = &plan->secure;
    const struct fl_grid g = {plan->grid.bits, plan->grid.step};
    struct fl_secagg_setup s = {
        .members_min = plan->round.quorum,
        .members_max = plan->round.members,
        .survivors_min = c->survivors,
        .corrupt_permille = (uint32_t)lround(c->corrupt * 1000),
        .dropout_permille = (uint32_t)lround(c->dropout * 1000),
        .max = fl_grid_max(&g),
    };
    struct fl_secure_part parts[FL_SECURE_PARTS_MAX];
    uint32_t part_count = fl_plan_secure_parts(plan, parts);
    uint8_t numbers[12];
    struct fl_hash h;

    s.count = parts[part].count;
    if (fl_plan_secure_groups(plan) != FL_SECURE_ONE && part + 1 == part_count) {
        s.members_min = c->survivors;
        s.corrupt_least = colluders_of(plan);
    }
    s.bits = fl_secagg_bits(s.members_max, s.max);
    fl_put_u64(numbers, round);
    fl_put_u32(numbers + 8, part);
    fl_hash_init(&h);
    fl_hash_add(&h, label, sizeof label);
    fl_hash_add(&h, incarnation, 16);
    fl_hash_add(&h, numbers, sizeof numbers);
    fl_hash_add(&h, plan->digest.bytes, sizeof plan->digest.bytes);
    fl_hash_end(&h, &s.context);
    int r = fl_secagg_setup_check(&s, e);
    if (r == 0) {
        *ret = s;
    }
    return r;
}

uint32_t fl_plan_noise_sharers(const struct fl_plan *plan)
{
    uint32_t colluders = colluders_of(plan);

    /* 3 at least in a plan that fl_plan_check_secure has seen. */
    return plan->secure.survivors > colluders ? plan->secure.survivors - colluders : 1;
}

double fl_plan_own_multiplier(const struct fl_plan *plan)
{
    double whole = plan->privacy.noise_multiplier;

    if (plan->privacy.noise != FL_NOISE_DISTRIBUTED) {
        return whole;
    }
    /* A little more, so that no rounding makes the sum's noise smaller than what is debited. */
    return whole / sqrt((double)fl_plan_noise_sharers(plan)) * (1 + 1e-12);
}

#define EXCHANGE_PREFIX "secagg-"

enum fl_secagg_stage fl_plan_secure_stage(const char *exchange)
{
    size_t prefix = sizeof EXCHANGE_PREFIX - 1;
    int stage = FL_SECAGG_STAGES;

    if (strncmp(exchange, EXCHANGE_PREFIX, prefix) == 0) {
        for (stage = 0;
             stage < FL_SECAGG_STAGES &&
             strcmp(exchange + prefix, fl_secagg_stage_name((enum fl_secagg_stage)stage)) != 0;) {
            stage++;
        }
    }
    return (enum fl_secagg_stage)stage;
}

void fl_plan_secure_exchange(const struct fl_plan *plan, enum fl_secagg_stage stage,
                             struct fl_exchange_terms *ret)
{
    const struct fl_grid g = {plan->grid.bits, plan->grid.step};
    uint32_t n = plan->round.members, bits = fl_secagg_bits(n, fl_grid_max(&g));
    uint64_t k = n - 1 < FL_SECAGG_NEIGHBOURS_MAX ? n - 1 : FL_SECAGG_NEIGHBOURS_MAX;
    struct fl_secure_part parts[FL_SECURE_PARTS_MAX];
    uint32_t part_count = fl_plan_secure_parts(plan, parts);
    const uint64_t sizes[FL_SECAGG_STAGES] = {
        [FL_SECAGG_ADVERTISE] = 2 * FL_SECAGG_KEY_SIZE + 4 + FL_SECAGG_CERT_MAX + FL_SECAGG_SIG_MAX,
        [FL_SECAGG_SHARE] =
            FL_DIGEST_SIZE + (2 * k + 1) * FL_SECAGG_CHECK_SIZE + k * FL_SECAGG_CIPHER_SIZE,
        [FL_SECAGG_SIGN] = 6 + FL_SECAGG_SIG_MAX + 4 * (uint64_t)n,
        [FL_SECAGG_UNMASK] = 32 + 4 + k * FL_REVEAL_ITEM,
    };
    memset(ret, 0, sizeof *ret);
    snprintf(ret->name, sizeof ret->name, EXCHANGE_PREFIX "%s", fl_secagg_stage_name(stage));
    ret->payload = FL_PAYLOAD_BYTES;
    ret->size = part_count > 1 ? FL_SECURE_JOIN_HEAD : 0;
    for (uint32_t i = 0; i < part_count; i++) {
        size_t packed = 0; /* checked with the plan */
        if (stage == FL_SECAGG_MASK) {
            (void)fl_ring_bytes(bits, parts[i].count, &packed);
        }
        ret->size += FL_SECAGG_HEAD_SIZE + sizes[stage] + packed;
    }
    ret->max_weight = 1;
    ret->model = stage == FL_SECAGG_MASK;
    ret->input = stage > FL_SECAGG_ADVERTISE;
    ret->same_cohort = ret->input || plan->setting.bubble.by == FL_BUBBLE_CHOICE;
}

/* What is asked for beside it that it cannot give. */
static int check_beside(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    if (p->layout.shared.elements == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation"), FL_R_CONF_CONFLICT,
                            "nothing leaves a site under strategy %s: there is nothing to sum",
                            p->strategy);
    }
    if (p->weighting != FL_WEIGHT_EQUAL) {
        return fl_conf_fail(e, fl_plan_at(root, "weights"), FL_R_CONF_CONFLICT,
                            "the coordinator cannot weigh updates that it does not see: under "
                            "secure_aggregation weights are equal");
    }
    if (p->privacy.tree) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.tree"), FL_R_CONF_CONFLICT,
                            "a tree's noise needs every one of its rounds, and a secure sum that "
                            "too many agents left is given up: secure_aggregation and trees do not "
                            "go together");
    }
    if (p->round.over_select > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "round.over_select"), FL_R_CONF_CONFLICT,
                            "an update that is too many cannot be left out of a secure sum: "
                            "over_select is 0, and dropouts are what members above quorum are for");
    }
    return 0;
}

/* Sums side by side. */
static int check_groups(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    uint32_t least = fl_plan_secure_least(p);

    if (fl_plan_secure_groups(p) == FL_SECURE_ONE) {
        return 0;
    }
    if (p->round.quorum < least) {
        return fl_conf_fail(e, fl_plan_at(root, "round.quorum"), FL_R_CONF_CONFLICT,
                            "%u: not one sum of at least %u members (secure_aggregation.survivors, "
                            "and the assumed dropouts) may come of it",
                            p->round.quorum, least);
    }
    if (p->aggregate.before == FL_AGGREGATE_BUCKETING && p->aggregate.bucket < least) {
        return fl_conf_fail(
            e, fl_plan_at(root, "aggregate.bucket"), FL_R_CONF_CONFLICT,
            "%u: the sum of a bucket is seen by the coordinator, so a bucket has at "
            "least %u members (secure_aggregation.survivors, and the assumed "
            "dropouts)",
            p->aggregate.bucket, least);
    }
    return 0;
}

/* Noise that is shared is as good as the sums that hide its parts, which stated deltas leave out.
 */
static int check_delta(const struct fl_plan *p, const struct fl_conf_node *root, uint32_t parts,
                       struct fl_err *e)
{
    uint32_t groups =
        fl_plan_secure_groups(p) == FL_SECURE_ONE ? 1 : 1 + p->round.members / p->secure.survivors;
    double sums = (double)p->rounds * parts * groups;

    if (p->privacy.noise != FL_NOISE_DISTRIBUTED || p->privacy.delta >= 100 * GRAPH_FAILS * sums) {
        return 0;
    }
    return fl_conf_fail(e, fl_plan_at(root, "privacy.delta"), FL_R_PLAN_PRIVACY,
                        "%g is less than a hundred times what the graphs of %.0f secure sums may "
                        "add to it (2^-40 each)",
                        p->privacy.delta, sums);
}

int fl_plan_check_secure(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    static const uint8_t nobody[16];
    const struct fl_secure_conf *c = &p->secure;
    const struct fl_conf_node *at = fl_plan_at(root, "secure_aggregation");
    struct fl_secure_part parts[FL_SECURE_PARTS_MAX];
    struct fl_secagg_setup setup;
    struct fl_err why = {0};
    size_t packed;

    if (!c->on) {
        return 0;
    }
    int r = check_beside(p, root, e);
    if (r < 0) {
        return r;
    }
    if (c->survivors > p->round.quorum) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation.survivors"), FL_R_CONF_CONFLICT,
                            "%u is more than round.quorum (%u)", c->survivors, p->round.quorum);
    }
    uint32_t colluders = colluders_of(p);
    if (c->survivors < colluders + HONEST_LEAST) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation.survivors"), FL_R_CONF_CONFLICT,
                            "a sum of %u, %u of which may collude, hides an update among fewer "
                            "than three: ask for a larger quorum or fewer colluders",
                            c->survivors, colluders);
    }
    uint32_t part_count = fl_plan_secure_parts(p, parts);
    for (uint32_t i = 0; r == 0 && i < part_count; i++) {
        r = fl_plan_secure_setup(p, nobody, 1, i, &setup, &why);
    }
    if (r < 0) {
        return fl_conf_fail(e, at, (enum fl_reason) - r, "%s", why.msg);
    }
    r = check_delta(p, root, part_count, e);
    if (r < 0) {
        return r;
    }
    r = check_groups(p, root, e);
    if (r < 0) {
        return r;
    }
    if (!fl_ring_bytes(setup.bits, p->layout.shared.elements, &packed) || packed > MASKED_MOST) {
        return fl_conf_fail(e, at, FL_R_LIMIT,
                            "masked vectors of %zu values of %u bits do not fit in memory",
                            p->layout.shared.elements, setup.bits);
    }
    return 0;
}
