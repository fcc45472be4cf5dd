/*
 * Corrections against the drift of sites with different data: of each step (SCAFFOLD, FedDyn), and
 * of the whole update (FedNova).
 * Their tensors are those of common/plan/beside.c. For builtin.c.
 */
#ifndef CLIENT_TRAINER_DRIFT_H
#define CLIENT_TRAINER_DRIFT_H

#include "client/trainer/session.h"

/* Before the first step: s->theta is the received model. Nothing under other strategies.
 * -FL_R_NOMEM. */
int fl_drift_begin(struct fl_moves *m, const struct fl_train_task *task, struct fl_err *e);
/* After the last, when shared holds the trained model: what the site keeps and sends beside it. */
void fl_drift_end(const struct fl_moves *m, const struct fl_train_task *task, float *shared,
                  float *private_);

#endif
