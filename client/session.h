/*
 * Secure sums that an agent is in the middle of. A round with secure aggregation asks an agent five
 * times (common/privacy/secagg), and what it needs from one time to the next is secret: keys, its
 * own mask, shares of its neighbours' secrets.
 *
 * That lives here, in memory and nowhere else. It goes with the process: an agent that was killed
 * has no keys any more, declines what is left of the round and is a dropout, as if it had lost its
 * network; what it had released before is offered again from its outbox, and counts. So no disk and
 * no backup ever holds what takes a mask off, and a round's keys cannot come back on other inputs.
 * Beside the ledger, which knows one release for a key and no other, that is why there are never
 * two masked vectors of a round, and no two answers of which one has a share of a neighbour's mask
 * and the other a share of its key.
 *
 * One agent, one user at a time (the agent's machine has one operation in flight).
 */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include "common/base/err.h"
#include "common/plan/plan.h"
#include "common/plan/secure.h"
#include "common/wire/ids.h"
#include "common/wire/tls.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_SESSIONS_MAX = 16 }; /* jobs with a secure sum at one time; the oldest is forgotten */

struct fl_sessions;

struct fl_sessions *fl_sessions_new(void);
void fl_sessions_free(struct fl_sessions *s); /* wipes all; NULL is fine */

/* What the stage of an exchange asks for, made of what the coordinator sent (`input`, NULL in the
 * first). The first stage forgets what there was of the job and begins anew with the keys of `tls`,
 * on which the session holds; each other is made once. `q` is for FL_SECAGG_MASK: a value for each
 * shared element, within the grid. Errors of fl_secagg_client_*; -FL_R_SECAGG_VIEW when there is no
 * such session: the agent was started anew within the round, or was not in the stage before. After
 * an error the session is gone. */
int fl_session_stage(struct fl_sessions *s, const struct fl_plan *plan, const struct fl_key *key,
                     enum fl_secagg_stage stage, struct fl_tls_conf *tls, const uint8_t *input,
                     size_t input_size, const int64_t *q, struct fl_secagg_bytes *ret,
                     struct fl_err *e);

#endif
