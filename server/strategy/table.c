/* The table of strategies: a line for each. */
#include "common/base/mem.h"
#include "server/strategy/mean.h"
#include "server/strategy/strategy.h"

#include <string.h>

static const struct fl_strategy *const table[] = {
    &fl_strategy_fedavg,
    &fl_strategy_fedrep,
    &fl_strategy_hyperfl,
    &fl_strategy_local,
};

const struct fl_strategy *fl_strategy_at(size_t i)
{
    return i < FL_COUNT(table) ? table[i] : NULL;
}

const struct fl_strategy *fl_strategy_find(const char *name)
{
    for (size_t i = 0; i < FL_COUNT(table); i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return table[i];
        }
    }
    return NULL;
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
    }
}
