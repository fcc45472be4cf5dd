/*
 * Training images moved and mirrored (data.crop, data.flip of the job), each time anew. For this
 * folder only.
 */
#ifndef CLIENT_TRAINER_AUGMENT_H
#define CLIENT_TRAINER_AUGMENT_H

#include "common/base/rng.h"
#include "common/plan/plan.h"

/* Changes the image [shape] at x in place, as torchvision's RandomCrop with padding 0 and
 * RandomHorizontalFlip do. A function of (seed, turn, example): what happens to one example does
 * not depend on the others of its batch, so an example's gradient under DP-SGD does not either.
 * `room` holds one channel. */
void fl_augment(const struct fl_data_conf *conf, const uint32_t shape[3],
                const struct fl_seed *seed, uint64_t turn, uint32_t example, float *room, float *x);

#endif
