/*
 * What leaves a site under each strategy, how far one unit can move it, and the event that it
 * costs: the one table from which epsilons are computed. Ledgers are debited by it, submission
 * refuses an epsilon that it does not cover, and deploy/docs/PRIVACY.md shows the very same rows (a
 * test compares them). A strategy that is not in it has no epsilon under any unit, whatever else it
 * does right.
 */
#ifndef FL_PLAN_RELEASES_H
#define FL_PLAN_RELEASES_H

#include "common/base/err.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"

#include <stdbool.h>
#include <stdint.h>

enum fl_release_kind {
    FL_RELEASE_NOTHING, /* nothing travels */
    FL_RELEASE_UPDATE,  /* unit client: the site's update, clipped and noised at the site */
    FL_RELEASE_STEPS,   /* unit example: DP-SGD steps; the update is a function of their results */
    FL_RELEASE_SUM,     /* unit client: the sum of clipped updates, noised by the coordinator */
    FL_RELEASE_MASKED,  /* the same sum, or under the unit example that of steps, never seen without
                           the noise of its members */
    FL_RELEASE_COUNTS,  /* of examples of each class, noised at the site; beside any strategy */
    FL_RELEASE_EMBEDDING,  /* mean embedding of a site's features, noised at the site; fedka */
    FL_RELEASE_DESCRIPTOR, /* of a site's data, noised at the site; for strategies with bubbles */
    FL_RELEASE_SCORE, /* of the model that a site would be served, noised at the site; beside any */
    FL_RELEASE_BIT,  /* unit client: was the update within the clip; a value beside it, wherever the
                        noise is, and in its event */
    FL_RELEASE_TREE, /* unit client: prefix sums over rounds, noised by the coordinator as a tree */
};

struct fl_release_row {
    const char *strategy;
    enum fl_unit unit;
    enum fl_release_kind kind;
    const char *quantity, *sensitivity, *event; /* for people; C, sigma, q as in the plan */
};

/* The i-th row, NULL behind the end. */
const struct fl_release_row *fl_release_row_at(uint32_t i);
/* The row of this plan. -FL_R_PLAN_PRIVACY when there is none: no epsilon can be stated. For unit
 * none there is nothing to state: *ret is NULL. */
int fl_release_row(const struct fl_plan *plan, const struct fl_release_row **ret, struct fl_err *e);

/* Is there a row for the sum of all members' updates under the unit client, wherever this plan's
 * noise is? */
bool fl_release_summed(const struct fl_plan *plan);

/* What one round costs a site that takes part (count 0 under unit none, or when nothing travels),
 * and the whole job at most. noise_multiplier may still be 0, unresolved. -FL_R_PLAN_PRIVACY as
 * above. */
int fl_release_event(const struct fl_plan *plan, struct fl_event *ret, struct fl_err *e);
enum { FL_RELEASE_EVENTS_MAX = 4 };
/* The first is the strategy's, with `sigma` in place of the plan's; others stand beside it, of
 * which one that is not resolved yet counts as none. */
int fl_release_total(const struct fl_plan *plan, double sigma,
                     struct fl_event ret[FL_RELEASE_EVENTS_MAX], uint32_t *ret_count,
                     struct fl_err *e);

/* Who an epsilon of this plan holds against, and what is changed between neighbours. */
const char *fl_release_adversary(const struct fl_plan *plan);
const char *fl_release_neighbours(const struct fl_plan *plan);

#endif
