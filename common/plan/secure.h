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
/* The stage that an exchange of this name is; FL_SECAGG_STAGES: it is none. */
enum fl_secagg_stage fl_plan_secure_stage(const char *exchange);

#endif
