/*
 * The steps of one task, as the agent's machine orders them: judge, intent, train, seal, debit; and
 * evaluate, for the final model of a job. Each is one call in a job of a lane, in the thread marked
 * [sync] (it may wait for the ledger) or [long] (it computes).
 *
 * Memory: the plan lives as long as the task. Networks and their batches exist only in training, on
 * the long threads, so at most as many agents hold them as there are such threads, however many
 * agents the process has; what training leaves is two vectors (update, private tensors) until they
 * are sealed, which waits for nobody's training.
 */
#ifndef CLIENT_TASK_H
#define CLIENT_TASK_H

#include "client/core/agent.h"
#include "client/core/ledger.h"
#include "client/produce.h"
#include "client/trainer/trainer.h"
#include "client/vault.h"

#include <jansson.h>
#include <stdatomic.h>

struct fl_task {
    struct fl_vault *vault;
    struct fl_agent_task what;
    uint8_t coordinator[16];
    atomic_bool cancel;
    struct fl_plan *plan;
    struct fl_exchange_terms terms;     /* of this exchange, from the plan */
    const struct fl_producer *producer; /* NULL: the update, made by the trainer */
    bool masked;                        /* and it leaves under the masks of a secure sum */
    struct fl_sessions *sessions;       /* the agent's, or NULL */
    struct fl_tls_conf *tls;            /* its certificate; held, or NULL */
    struct fl_intent_inputs inputs;
    struct fl_seed seed;
    float *delta, *private_out;  /* from training to sealing */
    struct fl_produced produced; /* likewise, of a producer */
    struct fl_event event;       /* unit example: what training cost */
    struct fl_train_report trained;
    struct fl_release release; /* from sealing to the debit */
    double norm_after;         /* of the sealed update, before noise */
    struct fl_agent_offer offer;
    json_t *final_line; /* of the report; from prepare_final to evaluate */
};

void fl_task_init(struct fl_task *t, struct fl_vault *v, const struct fl_agent_task *what,
                  const uint8_t coordinator[16]);
/* What secure sums need; the task holds on to `tls`. */
void fl_task_secure(struct fl_task *t, struct fl_sessions *sessions, struct fl_tls_conf *tls);
void fl_task_fini(struct fl_task *t);

/* After judge: what leaves is made of the site's data; keys, shares and signatures of a secure sum
 * are not. */
static inline bool fl_task_of_data(const struct fl_task *t)
{
    return !t->producer || fl_plan_secure_stage(t->terms.name) == FL_SECAGG_STAGES;
}

/* [sync] Parses the plan; the site's policy, the budget, the shapes of update, model and data.
 * Everything that can be refused is refused here, before anything is spent. */
int fl_task_judge(struct fl_task *t, bool *ret_costs, struct fl_err *e);
/* [sync] The seed of this round, durably bound to its inputs. */
int fl_task_intent(struct fl_task *t, struct fl_err *e);
/* [long] Trains, or makes what else the exchange asks for. -FL_R_CANCELLED when `cancel` was set.
 */
int fl_task_train(struct fl_task *t, struct fl_err *e);
/* [sync] Bytes, private tensors and .offer, each synced. */
int fl_task_seal(struct fl_task *t, struct fl_agent_offer *ret, struct fl_err *e);
/* [sync] The release is durable in the ledger on return. */
int fl_task_debit(struct fl_task *t, struct fl_err *e);

/* [sync], then [long]: the final model of a job. What it is worth here goes to the report. */
int fl_task_prepare_final(struct fl_task *t, struct fl_err *e);
int fl_task_evaluate(struct fl_task *t, struct fl_err *e);

/* A task that came to nothing: a line in the report. */
int fl_task_report_decline(struct fl_task *t, int reason, const char *text, struct fl_err *e);

#endif
