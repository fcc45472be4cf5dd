/* fedbuff (Nguyen et al. 2022, arXiv 2106.06639): settings, and what does not go together. How a
 * buffer is a round: server/core/round.c. */
#include "common/plan/plan_check.h"

#define TYPED(key, kind, m)                                                                        \
    .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct fl_strategy_conf, buffer.m)

const struct fl_conf_field fl_plan_fedbuff_keys[] = {
    {TYPED("buffer", UINT32, size), .min = 1, .max = 100000, .flags = FL_CONF_REQUIRED},
    {TYPED("staleness", UINT32, staleness), .min = 1, .max = FL_BUFFER_STALENESS_MAX,
     .fallback = "4"},
    {.name = NULL},
};

void fl_plan_buffer_defaults(struct fl_plan *plan)
{
    const struct fl_buffer_conf *b = &plan->setting.buffer;

    if (b->size == 0) {
        return;
    }
    plan->max_weight = FL_BUFFER_FRESH;
    if (plan->round.quorum == 0 && b->size <= plan->round.members) {
        plan->round.quorum = b->size;
    }
    if (plan->round.late_rounds <
        b->staleness) { /* an Ack that was lost may be asked for so late */
        plan->round.late_rounds = b->staleness;
    }
}

int fl_plan_check_buffer(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_buffer_conf *b = &p->setting.buffer;
    const struct {
        bool wrong;
        const char *at, *why;
    } rules[] = {
        {b->size > p->round.members, "strategy.fedbuff.buffer",
         "larger than round.members, which is how many are at work at a time"},
        {p->round.quorum > b->size, "round.quorum", "more than a buffer holds"},
        {p->round.over_select > 0, "round.over_select",
         "round.members beyond the buffer are at work already"},
        {p->weighting == FL_WEIGHT_EXAMPLES, "weights",
         "an update of a buffer weighs by its staleness, not by examples"},
        {p->aggregate.on && (p->aggregate.rule != FL_AGGREGATE_PCB || p->aggregate.gates.on ||
                             p->aggregate.before != FL_AGGREGATE_AS_IS),
         "aggregate",
         "a rule compares updates that were made from one model, and those of a buffer are not; "
         "rule pcb with clip alone merges what moved away from different ones"},
        {p->secure.on, "secure_aggregation",
         "the members of a secure sum begin and end together, and those of a buffer do not"},
        {p->counts.noise_multiplier > 0, "counts", "a buffer collects updates only"},
        {p->score.on, "score", "a buffer collects updates only"},
    };

    for (size_t i = 0; b->size > 0 && i < sizeof rules / sizeof rules[0]; i++) {
        if (rules[i].wrong) {
            return fl_conf_fail(e, fl_plan_at(root, rules[i].at), FL_R_CONF_CONFLICT,
                                "strategy fedbuff: %s", rules[i].why);
        }
    }
    return 0;
}
