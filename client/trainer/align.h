/*
 * Domain adaptation in local training (fedka, common/plan/fedka.h): terms beside the loss,
 * functions of the features of a batch.
 *
 *   matching     weight * ramp * MMD^2(this batch, the target): by the mean embedding that was
 *                given; as published exactly, against features of the target that were given
 *   disentangle  a discriminator learns to tell this batch's features from the target's, and its
 *                gradient is reversed on the way back (Ganin et al. 2016, arXiv 1505.07818), times
 *                weight * ramp
 *
 * The discriminator is width-100-1 with a leaky ReLU, made anew in each round and trained by Adam
 * in the same steps; in the first quarter of them (at most 20) nothing is reversed, so that it
 * knows something before it is listened to. Nothing of it leaves the site.
 */
#ifndef CLIENT_TRAINER_ALIGN_H
#define CLIENT_TRAINER_ALIGN_H

#include "client/trainer/session.h"

struct fl_align;

/* For a round of about `steps` steps. *ret is NULL when there is nothing to add: another strategy,
 * nothing known of the target yet, or both terms off. Errors of fl_fedka_input_get;
 * -FL_R_UPDATE_SHAPE, -FL_R_NOMEM. */
int fl_align_new(struct fl_session *s, const struct fl_train_task *task, uint64_t steps,
                 struct fl_align **ret, struct fl_err *e);
void fl_align_free(struct fl_align *a); /* NULL is fine */

/* This site is the target of `task`: it does not train, since its labels are none of the job's
 * business. */
int fl_align_is_target(const struct fl_train_task *task, bool *ret, struct fl_err *e);

#endif
