/* Between task.c, task_private.c and task_seal.c. Nobody else. */
#ifndef CLIENT_TASK_IN_H
#define CLIENT_TASK_IN_H

#include "client/task.h"

/* What training or a producer left in memory. */
void fl_task_drop_vectors(struct fl_task *t);

/* How many private values the job has. */
size_t fl_task_private_count(const struct fl_task *t);
/* [sync] Digest of the private tensors that go into this round. Zero: there are none. */
int fl_task_private_digest(struct fl_task *t, struct fl_digest *ret, struct fl_err *e);
/* The private tensors with the digest found before; freed by fl_free. */
int fl_task_load_private(const struct fl_task *t, const struct fl_digest *digest, float **ret,
                         struct fl_err *e);
/* Writes t->private_out. Zero: there are none. */
int fl_task_write_private(struct fl_task *t, struct fl_digest *ret, struct fl_err *e);

/* Who is trusted with the noise of the update, and of what leaves now: what producers make is
 * always noised here. */
static inline enum fl_noise_place fl_task_update_noise(const struct fl_task *t)
{
    return t->plan->privacy.unit == FL_UNIT_NONE ? FL_NOISE_LOCAL : t->plan->privacy.noise;
}
static inline enum fl_noise_place fl_task_noise(const struct fl_task *t)
{
    return t->producer ? FL_NOISE_LOCAL : fl_task_update_noise(t);
}

#endif
