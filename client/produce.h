/*
 * Producers: what an agent makes for an exchange, found by its name. Judge, intent, outbox, debit
 * and delivery are around every producer, not inside any (task.c): whatever one makes is bound to
 * the intent's seed and inputs, named by the ledger's debit, and offered again byte for byte after
 * a crash. The update of the model is made by the trainer and sealed by core/outbox, bare or masked
 * (task_seal.c); all others are here.
 *
 * To add one: a file with its table, a line in produce.c, an entry in fl_plan_exchanges.
 */
#ifndef CLIENT_PRODUCE_H
#define CLIENT_PRODUCE_H

#include "client/data/dataset.h"
#include "client/session.h"
#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/plan/exchange.h"
#include "common/privacy/accountant.h"
#include "common/wire/ids.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* All it may look at. */
struct fl_produce {
    const struct fl_plan *plan;
    const struct fl_exchange_terms *terms;
    struct fl_key key;
    const char *agent; /* its name, as the site knows it */
    const struct fl_dataset *data;
    const float *base;     /* terms->model: the slot's model, finite; else NULL */
    const float *private_; /* this site's private tensors, with a model; else NULL */
    const uint8_t *input;  /* terms->input: what the coordinator made, which may be hostile; else
                              NULL */
    size_t input_size;
    const struct fl_seed *seed; /* of this key's intent: never used with other inputs */
    const struct fl_seed *site; /* the agent's own, for ever: for secrets that several exchanges of
                                   a round share, derived by incarnation and round */
    const atomic_bool *cancel;  /* stop early: -FL_R_CANCELLED */
    struct fl_sessions *sessions; /* secure sums; NULL: this agent takes part in none */
    struct fl_tls_conf *tls;      /* its certificate, for signatures; or NULL */
};

struct fl_produced {
    int64_t *q;     /* GRID: terms->elements values, clipped and noised; fl_try_aligned */
    uint8_t *bytes; /* BYTES: fl_try */
    size_t size;    /* of bytes */
    /* For `outbox show`, 0 where it does not apply. clip: of the payload, under the unit `example`
     * of what each example adds to it. */
    double norm_before, norm_after, clip, noise_std;
};

struct fl_producer {
    const char *exchange;
    /* [sync] What it will cost the ledger (count 0: nothing is released that the data shape); the
     * very event that is debited. Refuses what cannot be honoured. */
    int (*event)(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                 struct fl_event *ret, struct fl_err *e);
    /* [long] The same arguments make the same bytes. On failure ret's pointers are NULL. */
    int (*make)(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e);
};

extern const struct fl_producer fl_produce_embedding; /* produce_embedding.c */
extern const struct fl_producer fl_produce_score;     /* produce_score.c */
extern const struct fl_producer fl_produce_advertise, fl_produce_share, fl_produce_sign,
    fl_produce_unmask; /* produce_secure.c */

/* NULL: unknown here; the task is declined. */
const struct fl_producer *fl_producer_find(const char *exchange);

#endif
