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
 *
 * Entries are appended, never changed, and chained: each holds the digest of the one before and of
 * its own content. They are stamped with the caller's `wall_ms` (Unix time in milliseconds); the
 * ledger reads no clock. Errors: -FL_R_LEDGER (damaged, foreign, locked, read-only, of another
 * agent: the text says which), -FL_R_DISK_FULL, -FL_R_FILE_MODE, -FL_R_NOMEM.
 */
#ifndef CLIENT_CORE_LEDGER_H
#define CLIENT_CORE_LEDGER_H

#include "client/core/policy.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stdint.h>

struct fl_ledger;

/* Creates the file (mode 0600, folder synced) when there is none. owner: the agent's certificate
 * key; a ledger of another agent is refused (-FL_R_LEDGER). Checks the database's pages and the
 * chain. The file stays locked against other processes until it is closed. */
int fl_ledger_open(const char *path, const uint8_t owner[32], struct fl_ledger **ret,
                   struct fl_err *e);
void fl_ledger_close(struct fl_ledger *l);

/* Everything whose change must forbid the reuse of a seed. */
struct fl_intent_inputs {
    struct fl_digest plan;
    struct fl_digest
        base; /* of all that training begins with: the model, and the examples chosen */
    struct fl_digest data; /* data set version: what the release is charged to */
    struct fl_digest private_state;
};
/* Returns the seed for this key: recorded before (same inputs), or fresh from the kernel and
 * durable on return. A prepared intent (seed without inputs) is bound to these. Different inputs:
 * -FL_R_INTENT, nothing may be released for this key. */
int fl_ledger_intent(struct fl_ledger *l, const struct fl_key *key,
                     const struct fl_intent_inputs *in, uint64_t wall_ms, struct fl_seed *ret,
                     struct fl_err *e);
/* For tests that compare runs: seeds laid in before. */
int fl_ledger_prepare(struct fl_ledger *l, const struct fl_key *key, const struct fl_seed *seed,
                      uint64_t wall_ms, struct fl_err *e);

struct fl_release {
    struct fl_key key;
    char job[FL_PLAN_NAME_MAX];
    uint8_t coordinator[16];
    enum fl_unit unit;
    struct fl_event event;   /* count 0 for FL_UNIT_NONE */
    struct fl_digest data;   /* data set version; zero, with unit none: none shaped it */
    struct fl_digest update; /* the outbox bytes, synced already */
    uint64_t size;
    struct fl_digest private_state; /* file of the private state that goes with it, synced already;
                                       zero = none */
    double norm_before, clip, noise_std; /* for `outbox show`; 0 where it does not apply */
    uint64_t saturated;
    enum fl_noise_place noise; /* who is trusted with it */
    bool placeless; /* unit example: what was done with a row depended on no other row; false:
                       neighbours are data sets in which the others keep their places */
};
/* May this be spent? Asked before training. -FL_R_BUDGET_SPENT with the epsilon it would reach;
 * -FL_R_POLICY_NOISE when the unit is not the budget's, or when something else was released of
 * these data under another unit (then no epsilon of this one can be true any more);
 * -FL_R_WITHDRAWN. A budget of unit `none` allows everything. */
int fl_ledger_allows(struct fl_ledger *l, const struct fl_budget *budget, const char *job,
                     enum fl_unit unit, enum fl_noise_place noise, const struct fl_event *event,
                     const struct fl_digest *data, struct fl_err *e);
/* A tree's noise covers one participation: has this incarnation's tree of rounds that `key` is in
 * had one already (under another key)? -FL_R_PARTICIPATION. Asked before training, and again by the
 * debit. Nothing to ask for other mechanisms. */
int fl_ledger_participates(struct fl_ledger *l, const struct fl_key *key,
                           const struct fl_event *event, struct fl_err *e);
/* The debit: durable on return. Checks the budget again. The same release twice is fine; another
 * digest for the key is -FL_R_LEDGER. */
int fl_ledger_debit(struct fl_ledger *l, const struct fl_budget *budget, const struct fl_release *r,
                    uint64_t wall_ms, struct fl_err *e);
/* What was released under this key: 1 found, 0 not. After a restart: offer these bytes again
 * instead of training. */
int fl_ledger_find(struct fl_ledger *l, const struct fl_key *key, struct fl_release *ret,
                   struct fl_err *e);
/* The private state of the newest release of this incarnation: 1 found, 0 none yet. */
int fl_ledger_private(struct fl_ledger *l, const uint8_t incarnation[FL_INCARNATION_SIZE],
                      struct fl_digest *ret, uint64_t *ret_round, struct fl_err *e);
/* The coordinator acknowledged it: the outbox bytes may go, and the seed is erased. Twice is fine;
 * what was never debited is -FL_R_LEDGER. */
int fl_ledger_acknowledged(struct fl_ledger *l, const struct fl_key *key, uint64_t wall_ms,
                           struct fl_err *e);

/* job "*" = all. A job is withdrawn while the last word on it or the last word on "*" is. */
int fl_ledger_withdraw(struct fl_ledger *l, const char *job, bool withdrawn, uint64_t wall_ms,
                       struct fl_err *e);
int fl_ledger_withdrawn(struct fl_ledger *l, const char *job, bool *ret, struct fl_err *e);

int fl_ledger_each(struct fl_ledger *l,
                   int (*each)(void *arg, const struct fl_release *r, uint64_t wall_ms,
                               bool acknowledged),
                   void *arg, struct fl_err *e);
/* Epsilon spent so far on a data set version at this delta, under this unit, against everybody but
 * who is trusted with the noise. Infinity when anything was released of it under another unit, or
 * with noise that was left to somebody who is not. *ret_placeless: all of these releases are; if
 * one is not, the sum is true of its neighbours only (which are fewer). */
int fl_ledger_spent(struct fl_ledger *l, const struct fl_digest *data, enum fl_unit unit,
                    enum fl_noise_place trust, double delta, double *ret_epsilon,
                    enum fl_bound *ret_bound, bool *ret_placeless, struct fl_err *e);
/* Recomputes the chain from its first entry: -FL_R_LEDGER with the number of the entry that does
 * not fit. */
int fl_ledger_verify(struct fl_ledger *l, struct fl_err *e);
/* Entries as they stand, for an export that anybody can check: columns in their order, of which the
 * last is the chain's digest. A column is a whole number, a real, a text, bytes, or nothing. */
enum fl_ledger_type {
    FL_LEDGER_NONE,
    FL_LEDGER_COUNT,
    FL_LEDGER_REAL,
    FL_LEDGER_TEXT,
    FL_LEDGER_BYTES,
};
struct fl_ledger_column {
    const char *name;
    enum fl_ledger_type type;
    int64_t count;
    double real;
    const void *data; /* TEXT, BYTES; valid during the call */
    size_t size;
};
/* `limit` entries behind number `after`; `each` ends the walk with anything but 0. */
int fl_ledger_entries(struct fl_ledger *l, uint64_t after, uint32_t limit,
                      int (*each)(void *arg, const struct fl_ledger_column *columns, int count),
                      void *arg, struct fl_err *e);
/* The digest the chain begins with: of the owner. */
void fl_ledger_genesis(const struct fl_ledger *l, struct fl_digest *ret);

/* How many entries there are and the digest of the last one (zero when empty). */
int fl_ledger_head(struct fl_ledger *l, uint64_t *ret_entries, struct fl_digest *ret_digest,
                   struct fl_err *e);

/* How far the ledger is as one coordinator can know it: releases to it, and the digest of the chain
 * at the newest of them. It is shown with every Offer and echoed in Welcome, so that a ledger
 * restored from an old copy is noticed. The number of other entries stays the site's own. */
struct fl_ledger_mark {
    uint64_t releases;
    struct fl_digest head;
};
/* releases 0: none yet. */
int fl_ledger_mark(struct fl_ledger *l, const uint8_t coordinator[16], struct fl_ledger_mark *ret,
                   struct fl_err *e);
/* Does this ledger hold what was echoed? -FL_R_LEDGER: it is older, or another one; nothing may be
 * released then. */
int fl_ledger_holds(struct fl_ledger *l, const uint8_t coordinator[16],
                    const struct fl_ledger_mark *echo, struct fl_err *e);

#endif
