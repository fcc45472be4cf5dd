/*
 * The rules of secure aggregation: what a job cannot have together with it, and why, in words for
 * its author. Every agent checks them again.
 */
#include "common/base/le.h"
#include "common/math/grid.h"
#include "common/plan/plan_check.h"
#include "common/plan/secure.h"
#include "common/privacy/secagg/mask.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int fl_plan_secure_setup(const struct fl_plan *plan, const uint8_t incarnation[16], uint64_t round,
                         uint32_t slot, struct fl_secagg_setup *ret, struct fl_err *e)
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
        .count = plan->layout.shared.elements,
    };
    uint8_t numbers[12];
    struct fl_hash h;

    s.bits = fl_secagg_bits(s.members_max, s.max);
    fl_put_u64(numbers, round);
    fl_put_u32(numbers + 8, slot);
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

/* Of the most members that there can be. */
static uint32_t colluders_of(const struct fl_plan *p)
{
    uint32_t permille = (uint32_t)lround(p->secure.corrupt * 1000);
    uint32_t plain = (uint32_t)(p->round.members * p->secure.corrupt);
    uint32_t rounded = (uint32_t)((uint64_t)p->round.members * permille / 1000);

    return plain > rounded ? plain : rounded;
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
    size_t packed = 0;

    (void)fl_ring_bytes(bits, plan->layout.shared.elements, &packed); /* checked with the plan */
    const uint64_t sizes[FL_SECAGG_STAGES] = {
        [FL_SECAGG_ADVERTISE] = 2 * FL_SECAGG_KEY_SIZE + 4 + FL_SECAGG_CERT_MAX + FL_SECAGG_SIG_MAX,
        [FL_SECAGG_SHARE] =
            FL_DIGEST_SIZE + (2 * k + 1) * FL_SECAGG_CHECK_SIZE + k * FL_SECAGG_CIPHER_SIZE,
        [FL_SECAGG_MASK] = packed,
        [FL_SECAGG_SIGN] = 6 + FL_SECAGG_SIG_MAX + 4 * (uint64_t)n,
        [FL_SECAGG_UNMASK] = 32 + 4 + k * FL_REVEAL_ITEM,
    };
    memset(ret, 0, sizeof *ret);
    snprintf(ret->name, sizeof ret->name, EXCHANGE_PREFIX "%s", fl_secagg_stage_name(stage));
    ret->payload = FL_PAYLOAD_BYTES;
    ret->size = FL_SECAGG_HEAD_SIZE + sizes[stage];
    ret->max_weight = 1;
    ret->model = stage == FL_SECAGG_MASK;
    ret->input = ret->same_cohort = stage > FL_SECAGG_ADVERTISE;
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

int fl_plan_check_secure(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    static const uint8_t nobody[16];
    const struct fl_secure_conf *c = &p->secure;
    const struct fl_conf_node *at = fl_plan_at(root, "secure_aggregation");
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
    if (c->survivors < colluders + 3) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation.survivors"), FL_R_CONF_CONFLICT,
                            "a sum of %u, %u of which may collude, hides an update among fewer "
                            "than three: ask for a larger quorum or fewer colluders",
                            c->survivors, colluders);
    }
    r = fl_plan_secure_setup(p, nobody, 1, 0, &setup, &why);
    if (r < 0) {
        return fl_conf_fail(e, at, (enum fl_reason) - r, "%s", why.msg);
    }
    if (!fl_ring_bytes(setup.bits, setup.count, &packed) ||
        packed > SIZE_MAX - FL_SECAGG_HEAD_SIZE) {
        return fl_conf_fail(e, at, FL_R_LIMIT,
                            "masked vectors of %zu values of %u bits do not fit in memory",
                            p->layout.shared.elements, setup.bits);
    }
    return 0;
}
