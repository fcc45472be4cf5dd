/*
 * Robust rules: what a slot's updates become instead of their mean (`aggregate` in a job), usable
 * by every strategy whose members fold into slots.
 *
 * Two passes over the updates, tile by tile, so that memory is O(tile * members + members^2), never
 * members times model:
 *
 *   1  inner products of all pairs, only if the job asks for anything that needs them (pool.h)
 *   2  for each tile of values its answer: a weighted sum of updates, or the median or trimmed mean
 *      of every coordinate; or PCB's merge of them (common/math/pcb.h), which bounds nothing and
 *      goes over the updates four times more
 *
 * Updates come in ascending order of agents and every sum is in a fixed order, so that the next
 * model has the same bits whatever the order of arrival and after every crash.
 *
 * With gates (standing.h) the first pass also measures every update against the coordinate-wise
 * median of the slot; who fails them, or is in quarantine, is left out of what follows, and f is
 * less by as many.
 *
 * A rule counts heads: weights are equal. What comes out is post-processing of what the sites
 * released, but it is no sum: noise on sums excludes it, and under secure aggregation the rule runs
 * over sums of buckets (the plan refuses the rest).
 */
#ifndef SERVER_STRATEGY_ROBUST_H
#define SERVER_STRATEGY_ROBUST_H

#include "common/math/grid.h"
#include "server/strategy/standing.h"
#include "server/strategy/strategy.h"

/* What of the plan a rule goes by. */
struct fl_robust_terms {
    struct fl_aggregate_conf conf;
    struct fl_grid grid;
    size_t elements;
    uint64_t seed;
    uint32_t fresh; /* weight of an update that counts in full; pcb alone looks at weights */
    bool summed;    /* the buckets are those of secure sums: fl_update.group says which */
};
struct fl_robust_terms fl_robust_terms_of(const struct fl_plan *plan);

struct fl_robust;

/* The buckets of a round whose updates come as secure sums (fl_strategy.groups): drawn as without
 * them, but none is smaller than the others. -FL_R_NOMEM. */
int fl_robust_groups(const struct fl_robust_terms *terms, const struct fl_groups_terms *of,
                     uint32_t count, uint32_t *ret_group, struct fl_err *e);

/* Does the rule remember the aggregate of the round before? */
bool fl_robust_remembers(const struct fl_robust_terms *terms);

/* The first pass. `terms` and `updates` (at least one, of one slot) are borrowed until
 * fl_robust_free. `last`: the slot's aggregate of the round before, where it is remembered, else
 * NULL. `secret` and `round` order the buckets. Errors: -FL_R_LIMIT (too few updates for the rule),
 * -FL_R_NOMEM, those of `read` and of the grid. */
int fl_robust_new(const struct fl_robust_terms *terms, const struct fl_updates *updates,
                  const float *last, struct fl_standings *standings, const struct fl_seed *secret,
                  uint64_t round, struct fl_robust **ret, struct fl_err *e);
void fl_robust_free(struct fl_robust *r);

/* Most values that can be asked for at once: a multiple of 64. */
size_t fl_robust_tile(const struct fl_robust *r);
/* The second pass: values [first, first + count) of the aggregate; `first` is a multiple of 64. */
int fl_robust_values(struct fl_robust *r, size_t first, size_t count, double *ret,
                     struct fl_err *e);

/* The first pass alone: inner products of all pairs of updates into ret, count x count, in the
 * units of the model squared. terms->conf is not looked at. */
int fl_robust_products(const struct fl_robust_terms *terms, const struct fl_updates *updates,
                       double *ret, struct fl_err *e);

/* -FL_R_PLAN_STRATEGY, in words: this strategy takes no rule. */
int fl_robust_check(const struct fl_plan *plan, const struct fl_strategy *strategy,
                    struct fl_err *e);

#endif
