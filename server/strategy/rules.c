#include "common/plan/secure.h"
#include "server/strategy/strategy.h"

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
}
