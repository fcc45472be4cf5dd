/*
 * The site's own ledger: what its data have paid for, in one SQLite file per agent (WAL,
 * synchronous=FULL, asserted). It stores mechanism events, never epsilons, per data set version,
 * over all jobs and coordinators. Together with the outbox it enforces the order that everything
 * rests on:
 *
 *   intent durable -> train -> outbox bytes synced -> debit (names their digest; the private state
 * that goes with it) -> release
 *
 * A crash anywhere in between either repeats the very same computation (same seed on same inputs:
 * checked by digests) or sends the very same bytes. Never two different updates for one key. All
 * functions wait for the disk: one thread at a time.
 */
#ifndef CLIENT_CORE_LEDGER_H
#define CLIENT_CORE_LEDGER_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stdint.h>

struct fl_ledger;

/* What the site allows for one data set version, over everything. */
struct fl_budget {
    enum fl_unit
        unit; /* FL_UNIT_NONE: releases without noise are allowed, and no epsilon is claimed */
    double epsilon, delta;
};

/* owner: the agent's certificate key; a ledger of another agent is refused (-FL_R_LEDGER). */
int fl_ledger_open(const char *path, const uint8_t owner[32], struct fl_ledger **ret,
                   struct fl_err *e);
void fl_ledger_close(struct fl_ledger *l);

/* Everything whose change must forbid the reuse of a seed. */
struct fl_intent_inputs {
    struct fl_digest plan, base, data, private_state;
};
/* Returns the seed for this key: recorded before (same inputs), or fresh from the kernel and
 * durable on return. A prepared intent (seed without inputs) is bound to these. Different inputs:
 * -FL_R_INTENT, nothing may be released for this key. */
int fl_ledger_intent(struct fl_ledger *l, const struct fl_key *key,
                     const struct fl_intent_inputs *in, struct fl_seed *ret, struct fl_err *e);
/* For tests that compare runs: seeds laid in before. */
int fl_ledger_prepare(struct fl_ledger *l, const struct fl_key *key, const struct fl_seed *seed,
                      struct fl_err *e);

struct fl_release {
    struct fl_key key;
    char job[FL_PLAN_NAME_MAX];
    uint8_t coordinator[16];
    enum fl_unit unit;
    struct fl_event event;   /* count 0 for FL_UNIT_NONE */
    struct fl_digest data;   /* data set version */
    struct fl_digest update; /* the outbox bytes, synced already */
    uint64_t size;
    struct fl_digest private_state; /* file of the private state that goes with it, synced already;
                                       zero = none */
    double norm_before, clip, noise_std; /* for `outbox show`; 0 where it does not apply */
    uint64_t saturated;
};
/* May this be spent? Asked before training. -FL_R_BUDGET_SPENT with the epsilon it would reach;
 * -FL_R_POLICY_NOISE when the unit is not the budget's; -FL_R_WITHDRAWN. */
int fl_ledger_allows(struct fl_ledger *l, const struct fl_budget *budget, const char *job,
                     enum fl_unit unit, const struct fl_event *event, const struct fl_digest *data,
                     struct fl_err *e);
/* The debit: durable on return. Checks the budget again. The same release twice is fine; another
 * digest for the key is -FL_R_LEDGER. */
int fl_ledger_debit(struct fl_ledger *l, const struct fl_budget *budget, const struct fl_release *r,
                    struct fl_err *e);
/* What was released under this key: 1 found, 0 not. After a restart: offer these bytes again
 * instead of training. */
int fl_ledger_find(struct fl_ledger *l, const struct fl_key *key, struct fl_release *ret,
                   struct fl_err *e);
/* The private state of the newest release of this incarnation: 1 found, 0 none yet. */
int fl_ledger_private(struct fl_ledger *l, const uint8_t incarnation[FL_INCARNATION_SIZE],
                      struct fl_digest *ret, uint64_t *ret_round, struct fl_err *e);
/* The coordinator acknowledged it: the outbox bytes may go. */
int fl_ledger_acknowledged(struct fl_ledger *l, const struct fl_key *key, struct fl_err *e);

int fl_ledger_withdraw(struct fl_ledger *l, const char *job, bool withdrawn,
                       struct fl_err *e); /* job "*" = all */
int fl_ledger_withdrawn(struct fl_ledger *l, const char *job, bool *ret, struct fl_err *e);

int fl_ledger_each(struct fl_ledger *l,
                   int (*each)(void *arg, const struct fl_release *r, uint64_t wall_ms,
                               bool acknowledged),
                   void *arg, struct fl_err *e);
/* Epsilon spent so far on a data set version at this delta, under this unit. */
int fl_ledger_spent(struct fl_ledger *l, const struct fl_digest *data, enum fl_unit unit,
                    double delta, double *ret_epsilon, enum fl_bound *ret_bound, struct fl_err *e);

#endif
