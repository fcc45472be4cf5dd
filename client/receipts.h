/*
 * The agent's side of receipts (proto/WIRE.md, section 12): it claims those of its releases that
 * nothing was heard of, judges what comes, and keeps it in the ledger's file. Beside the machine of
 * core/agent: no state of a round depends on a receipt.
 */
#ifndef CLIENT_RECEIPTS_H
#define CLIENT_RECEIPTS_H

#include "client/core/ledger_receipts.h"
#include "client/runner.h"
#include "common/wire/msg.h"
#include "common/wire/tls_sign.h"

struct fl_receipts; /* of one runner */

/* Nothing fails but for memory at start (fl_new). */
struct fl_receipts *fl_receipts_new(struct fl_runner *r);
/* When nothing is left in the files lane (fl_runner_quiet). NULL is fine. */
void fl_receipts_free(struct fl_receipts *x);
/* A coordinator said who it is, and whether it gives receipts. */
void fl_receipts_welcome(struct fl_receipts *x, const Cohort__Welcome *w);
/* Whatever is wanted is claimed, if that is not under way. */
void fl_receipts_claim(struct fl_receipts *x);
/* One came. */
void fl_receipts_take(struct fl_receipts *x, const Cohort__Receipt *m);

#endif
