/*
 * Secure aggregation as a job asks for it (section secure_aggregation): the rules at submission,
 * and what both ends of a secure sum derive from the plan and the round's key.
 */
#ifndef FL_PLAN_SECURE_H
#define FL_PLAN_SECURE_H

#include "common/plan/exchange.h"
#include "common/plan/plan.h"
#include "common/privacy/secagg/secagg.h"

/* The setup of slot `slot` of a round: a vector for each shared element, in the smallest ring that
 * holds the members' sum. Its context is H("cohort secagg context 1", incarnation, u64 round, u32
 * slot, the plan's digest). -FL_R_* of fl_secagg_setup_check. */
int fl_plan_secure_setup(const struct fl_plan *plan, const uint8_t incarnation[16], uint64_t round,
                         uint32_t slot, struct fl_secagg_setup *ret, struct fl_err *e);

/* The five exchanges in place of "update": "secagg-advertise", "secagg-share", ...; in the order of
 * enum fl_secagg_stage. */
void fl_plan_secure_exchange(const struct fl_plan *plan, enum fl_secagg_stage stage,
                             struct fl_exchange_terms *ret);
/*
 * Noise that the members of a secure sum share (privacy.noise: distributed). A sum is opened over
 * `survivors` members at the least, each of them sees to that; at most the assumed part of the
 * members gives its own noise away. What is left, fl_plan_noise_sharers, is a floor on honest
 * finishers: each member adds discrete Gaussian noise of 1 / sqrt(that) of the whole scale, so
 * that every sum that can be opened has the whole from honest members alone. The sum of k discrete
 * Gaussians of scale s differs from one of scale s sqrt(k), in the probability of each value, by a
 * factor of at most exp(10 k exp(-pi^2 s^2)) (Kairouz, Liu, Steinke 2021, on sums of discrete
 * Gaussians). With s >= 4, which the plan's check demands, that is less than 1 + 1e-55 for a vector
 * of a hundred million values, so one Gaussian event is debited. Noise must not be cut off before
 * it is summed: the grid must hold the clip and the largest noise that the sampler makes.
 */
uint32_t fl_plan_noise_sharers(const struct fl_plan *plan);
/* The standard deviation of a member's own noise, divided by the clip; the plan's multiplier
 * wherever it is not shared. */
double fl_plan_own_multiplier(const struct fl_plan *plan);

/* The stage that an exchange of this name is; FL_SECAGG_STAGES: it is none. */
enum fl_secagg_stage fl_plan_secure_stage(const char *exchange);

#endif
