/*
 * Secure aggregation as a job asks for it (section secure_aggregation): the rules at submission,
 * and what both ends of a secure sum derive from the plan and the round's key.
 */
#ifndef FL_PLAN_SECURE_H
#define FL_PLAN_SECURE_H

#include "common/plan/exchange.h"
#include "common/plan/plan.h"
#include "common/privacy/secagg/secagg.h"

/*
 * Which sums a round has. One over all members; or several side by side, of groups of members: the
 * bubbles of a strategy whose coordinator knows them by other means than updates, or the buckets of
 * a robust rule. With a common body an update has two parts, and each a sum of its own: the body's
 * over all members, the rest's over a bubble's. Groups are made when it is known who advertised
 * keys; none has fewer than fl_plan_secure_least, and no agent accepts a roster of fewer than
 * `survivors`. Since the coordinator says who is in a group, all colluders of a round may be in
 * one: `survivors` is more than these by three at least, and the graph of each group withstands
 * them.
 */
enum fl_secure_groups {
    FL_SECURE_ONE,
    FL_SECURE_BUBBLES,
    FL_SECURE_BUCKETS,
};
enum fl_secure_groups fl_plan_secure_groups(const struct fl_plan *plan);
/* Members that a group needs for `survivors` to be left behind the assumed dropouts. */
uint32_t fl_plan_secure_least(const struct fl_plan *plan);
/* `survivors` of a plan that does not say: the quorum; of groups three more than may collude. */
uint32_t fl_plan_secure_survivors(const struct fl_plan *plan);

/* Values [first, first + count) of an update. */
struct fl_secure_part {
    size_t first, count;
};
enum { FL_SECURE_PARTS_MAX = 2 };
/* How many there are; of two the second is the groups', the first all members'. */
uint32_t fl_plan_secure_parts(const struct fl_plan *plan,
                              struct fl_secure_part ret[FL_SECURE_PARTS_MAX]);

/* The setup of part `part` of a round: a vector for each of its elements, in the smallest ring that
 * holds the members' sum. Its context is H("cohort secagg context 1", incarnation, u64 round, u32
 * part, the plan's digest). -FL_R_* of fl_secagg_setup_check. */
int fl_plan_secure_setup(const struct fl_plan *plan, const uint8_t incarnation[16], uint64_t round,
                         uint32_t part, struct fl_secagg_setup *ret, struct fl_err *e);

/* Objects of two parts travel as one: the first's size (4 bytes), the first, the second. A second
 * of no bytes: the agent's group is given up, and it goes on with the common part alone.
 * -FL_R_SECAGG_OBJECT. */
enum { FL_SECURE_JOIN_HEAD = 4 };
int fl_plan_secure_join(const struct fl_secagg_bytes *parts, struct fl_secagg_bytes *ret,
                        struct fl_err *e);
int fl_plan_secure_split(const uint8_t *bytes, size_t size, size_t ret_size[FL_SECURE_PARTS_MAX],
                         struct fl_err *e);

/* The five exchanges in place of "update": "secagg-advertise", "secagg-share", ...; in the order of
 * enum fl_secagg_stage. */
void fl_plan_secure_exchange(const struct fl_plan *plan, enum fl_secagg_stage stage,
                             struct fl_exchange_terms *ret);
/*
 * Noise that the members of a secure sum share (privacy.noise: distributed). A sum, of all members
 * or of a group, is opened over `survivors` members at the least, each of them sees to that; at
 * most the assumed part of the members gives its own noise away. What is left,
 * fl_plan_noise_sharers, is a floor on honest finishers: each member adds discrete Gaussian noise
 * of 1 / sqrt(that) of the whole scale, so that every sum that can be opened has the whole from
 * honest members alone. The sum of k discrete Gaussians of scale s differs from one of scale s
 * sqrt(k), in the probability of each value, by a factor of at most exp(10 k exp(-pi^2 s^2))
 * (Kairouz, Liu, Steinke 2021, on sums of discrete Gaussians). With s >= 4, which the plan's check
 * demands, that is less than 1 + 1e-55 for a vector of a hundred million values, so one Gaussian
 * event is debited. Noise must not be cut off before it is summed: the grid must hold the clip and
 * the largest noise that the sampler makes.
 */
uint32_t fl_plan_noise_sharers(const struct fl_plan *plan);
/* The standard deviation of a member's own noise, divided by the clip; the plan's multiplier
 * wherever it is not shared. */
double fl_plan_own_multiplier(const struct fl_plan *plan);

/* The stage that an exchange of this name is; FL_SECAGG_STAGES: it is none. */
enum fl_secagg_stage fl_plan_secure_stage(const char *exchange);

#endif
