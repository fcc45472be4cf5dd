#include "common/plan/secure.h"
#include "server/strategy/strategy.h"

#include <math.h>
#include <string.h>

/* Of the stages of a secure sum: how many may be left for it to be worth going on; whether the last
 * one has enough is seen from the shares themselves. */
static void secure_rules(const struct fl_plan *plan, enum fl_secagg_stage stage,
                         struct fl_exchange_rules *x)
{
    if (stage < FL_SECAGG_STAGES && x->same_cohort) {
        x->quorum = stage == FL_SECAGG_UNMASK ? 1 : plan->secure.survivors;
        x->give_up = true;
    }
}

/* A buffer is full of `size` updates, and round.members agents are at work for it (FedBuff). */
static void buffer_rules(const struct fl_plan *plan, struct fl_round_rules *ret)
{
    const struct fl_buffer_conf *b = &plan->setting.buffer;
    struct fl_exchange_rules *x = &ret->exchange[0];

    _Static_assert((int)FL_BUFFER_STALENESS_MAX <= (int)FL_ROUND_STALE_MAX, "weights of all");
    if (b->size == 0) {
        return;
    }
    x->over_select = x->members - b->size;
    x->members = b->size;
    ret->staleness = b->staleness;
    for (uint32_t s = 0; s <= b->staleness; s++) {
        ret->stale_weight[s] = (uint32_t)lround(FL_BUFFER_FRESH / sqrt(1.0 + s));
    }
}

void fl_strategy_rules(const struct fl_plan *plan, uint64_t round, struct fl_round_rules *ret)
{
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];

    memset(ret, 0, sizeof *ret);
    ret->rounds = plan->rounds;
    ret->job_seed = plan->seed;
    ret->attempts = plan->round.attempts;
    ret->exchange_count = fl_plan_exchanges(plan, round, terms);
    for (uint32_t i = 0; i < ret->exchange_count; i++) {
        struct fl_exchange_rules *x = &ret->exchange[i];
        memcpy(x->name, terms[i].name, sizeof x->name);
        x->members = plan->round.members;
        x->quorum = plan->round.quorum;
        x->over_select = plan->round.over_select;
        x->deadline_ms = plan->round.deadline_ms;
        x->fill_ms = plan->round.fill_ms;
        x->same_cohort = terms[i].same_cohort;
        if (plan->descriptor.members && strcmp(x->name, "descriptor") == 0) {
            x->members = plan->descriptor.members;
        }
        secure_rules(plan, fl_plan_secure_stage(terms[i].name), x);
    }
    buffer_rules(plan, ret);
}
