/*
 * A site's own model beside the shared one: Ditto, APFL, FedALA (and what FedDBE makes of it). Its
 * tensors are private ones of the plan's layout (common/plan/beside.h). For builtin.c, and for what
 * serves a site.
 *
 * "What serves": the network this site would use now. accuracy_received of a report is of what
 * serves before training, accuracy_trained of what serves after it.
 */
#ifndef CLIENT_TRAINER_PERSONAL_H
#define CLIENT_TRAINER_PERSONAL_H

#include "client/trainer/session.h"

/* s->theta, made of a received model, becomes what serves; FedALA's weights learn first and are
 * kept in private_out, unless that is NULL. -FL_R_CANCELLED, -FL_R_NOMEM. */
int fl_personal_receive(struct fl_session *s, const struct fl_seed *seed, const float *private_in,
                        float *private_out, struct fl_err *e);

/* After the shared model's training, which left s->theta: the site's own model trains, and with
 * what is to be kept goes into private_. s->theta becomes what serves. */
int fl_personal_train(struct fl_session *s, const struct fl_train_task *task, float *private_,
                      struct fl_err *e);

/* APFL: what trains beside every step of the shared model, in private_ itself. s->theta is the
 * received model. */
struct fl_mix;
int fl_mix_new(struct fl_session *s, const struct fl_seed *seed, float *private_,
               struct fl_mix **ret, struct fl_err *e);
/* Before the shared model's step, and behind it. s->theta and s->grad stay as they are, the batch
 * does not. */
void fl_mix_look(struct fl_mix *x);
void fl_mix_step(struct fl_mix *x);
void fl_mix_free(struct fl_mix *x); /* NULL is fine */

#endif
