/*
 * Secure aggregation around a strategy. The stages of a secure sum are exchanges of the round; when
 * they are through, the sum is dealt out again as so many made-up updates as there were members,
 * each inside the grid and together exactly the sum, and the strategy folds those. So a strategy
 * that sees nothing but sums (FL_STRATEGY_SUM_ONLY) makes the same next model, byte for byte, as
 * from the members' own updates, and knows nothing of all this.
 *
 * Where the plan has groups (common/plan/secure.h), the strategy says who is in which when it is
 * known who advertised keys, and each has a sum of its own from then on: one that too many leave is
 * given up alone. A made-up update stands for a member of its group and says which that is
 * (fl_update.group).
 *
 * One of these for a round. Memory: two vectors for each sum, whatever the number of members.
 * Everything follows from the plan, the key, the strategy's state and the objects: after a crash
 * the same folds, in any order, give the same inputs.
 */
#ifndef SERVER_STRATEGY_SECURE_H
#define SERVER_STRATEGY_SECURE_H

#include "common/plan/secure.h"
#include "server/strategy/strategy.h"

struct fl_secure;

/* Whether the strategy of this plan can work on sums: -FL_R_PLAN_STRATEGY, in words. */
int fl_secure_check(const struct fl_plan *plan, const struct fl_strategy *strategy,
                    struct fl_err *e);

/* identity as for fl_secagg_server_new. Plan, strategy and identity must outlive it. */
int fl_secure_new(const struct fl_plan *plan, const struct fl_strategy *strategy,
                  const uint8_t incarnation[16], uint64_t round,
                  const struct fl_secagg_identity *identity, struct fl_secure **ret,
                  struct fl_err *e);
void fl_secure_free(struct fl_secure *s); /* NULL is fine */

/* The stage that an exchange is; FL_SECAGG_STAGES for one that is none. */
enum fl_secagg_stage fl_secure_stage_of(const struct fl_exchange_terms *terms);
/* The stage under way; FL_SECAGG_STAGES when all are closed. */
enum fl_secagg_stage fl_secure_stage(const struct fl_secure *s);

/* Whether fold will accept it of the agent whose certificate proves `principal`; changes nothing.
 * What is refused concerns its sender alone, as for fold: the sender's fault are
 * -FL_R_SECAGG_OBJECT, _KEYS, _SHARE and -FL_R_UPDATE_LENGTH, _RANGE, _CONFLICT, and others ours.
 */
int fl_secure_judge(const struct fl_secure *s, enum fl_secagg_stage stage,
                    const struct fl_update *u, const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE],
                    struct fl_err *e);
/* A payload of the exchange of the current stage. A failure concerns its agent alone, which is not
 * in the next stage then (errors of fl_secagg_server_take and _masked); only -FL_R_INTERNAL and
 * -FL_R_NOMEM, and what `read` says, concern the round. */
int fl_secure_fold(struct fl_secure *s, enum fl_secagg_stage stage, const struct fl_update *u,
                   struct fl_err *e);
/* Forgets what was folded in `stage`, if that is the current one. */
void fl_secure_reset(struct fl_secure *s, enum fl_secagg_stage stage);
/* The exchange of the current stage is closed: errors of fl_secagg_server_close, when there is no
 * sum left; `shared` and `secret` are for the strategy's groups. */
int fl_secure_between(struct fl_secure *s, const void *shared, const struct fl_seed *secret,
                      struct fl_err *e);
/* What an agent begins the exchange of `stage` with, which is the current one: *ret is freed by
 * fl_free. -FL_R_NOT_MEMBER for one that was left out. */
int fl_secure_input(const struct fl_secure *s, enum fl_secagg_stage stage, uint64_t agent,
                    uint8_t **ret, size_t *ret_size, struct fl_err *e);

/* Behind the last stage, closed or failed: fl_secagg_server_complaints, of all sums. */
uint32_t fl_secure_complaints(const struct fl_secure *s, struct fl_secagg_complaint *ret,
                              uint32_t max);
/* Of groups, for people, in a line: how many sums there are, of how many; who was left out. "" of
 * one sum. */
void fl_secure_note(const struct fl_secure *s, char *to, size_t size);

/* Whether the way on is barred for good: no repetition of a failed close or finish helps, and no
 * further agent can, so the round is to be given up. */
bool fl_secure_is_lost(int status);

/* After the last stage is closed: folds the sums, as made-up updates, into the strategy's slots,
 * which must be empty. *ret: these updates, ascending by agent, until it is called again or s is
 * freed. -FL_R_UPDATE_RANGE: somebody sent what is no masked vector, and no sum is left. */
int fl_secure_finish(struct fl_secure *s, const void *shared, void *const *slots,
                     struct fl_updates *ret, struct fl_err *e);

#endif
