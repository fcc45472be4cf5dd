/*
 * Terms of the loss at the features, what the head takes: FedDBE and FedProto. Their tensors are
 * those of common/plan/beside.c. For this folder only.
 */
#ifndef CLIENT_TRAINER_REPRESENT_H
#define CLIENT_TRAINER_REPRESENT_H

#include "client/trainer/session.h"

struct fl_represent;
/* For one training; s->theta is where it begins. *ret is NULL under other strategies. private_ and
 * the plan outlive it. -FL_R_NOMEM, -FL_R_PLAN_MODEL. */
int fl_represent_new(struct fl_session *s, const struct fl_train_task *task, float *private_,
                     struct fl_represent **ret, struct fl_err *e);
void fl_represent_free(struct fl_represent *f); /* NULL is fine */

/* Around the gradient of each batch of `count` that is loaded, before the model is given s->theta,
 * and before the step. NULL: nothing. */
void fl_represent_before(struct fl_represent *f, size_t count);
void fl_represent_after(struct fl_represent *f);

/* When training is over: what this site sends of the features of its training examples, into
 * shared. NULL: nothing. -FL_R_CANCELLED. */
int fl_represent_end(struct fl_represent *f, float *shared, struct fl_err *e);

#endif
