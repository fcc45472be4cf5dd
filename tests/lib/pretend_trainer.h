/*
 * A trainer that only pretends, for tests of everything around one: its values depend on all that a
 * real one's do, it is instant, and it obeys `cancel`. Include it in one file of a test program
 * that links no trainer.
 */
#ifndef TESTS_LIB_PRETEND_TRAINER_H
#define TESTS_LIB_PRETEND_TRAINER_H

#include "client/trainer/trainer.h"

#include <math.h>

int fl_train(const struct fl_train_task *task, struct fl_train_result *ret, struct fl_err *why)
{
    const struct fl_layout *l = &task->plan->layout;
    struct fl_rng r;

    if (atomic_load(task->cancel)) {
        return fl_fail(why, FL_R_CANCELLED, "cancelled");
    }
    for (uint32_t i = 0; task->data->train.stored && i < task->data->train.count; i++) {
        const uint32_t *shape = task->data->shape;
        float x[64];
        size_t features = (size_t)shape[0] * shape[1] * shape[2];
        int code = features <= 64 ? fl_examples_get(&task->data->train, features, i, x, why) : 0;
        if (code) {
            return code;
        }
    }
    fl_rng_init(&r, &task->seed, 0);
    for (size_t i = 0; i < l->shared.elements; i++) {
        ret->delta[i] = (float)(fl_rng_unit(&r) - 0.5) * 0.1f + task->base[i] * 0.01f;
    }
    for (size_t i = 0; i < l->private_.elements; i++) {
        ret->private_out[i] = task->private_in[i] + 1;
    }
    ret->event = (struct fl_event){0};
    ret->report = (struct fl_train_report){.loss = 0.5,
                                           .accuracy_received = 0.25,
                                           .accuracy_trained = 0.75,
                                           .accuracy_served = NAN,
                                           .steps = 3,
                                           .cpu_s = 0.01};
    return 0;
}

int fl_train_embed(const struct fl_train_task *task, float *ret, struct fl_err *why)
{
    (void)task;
    (void)ret;
    return fl_fail(why, FL_R_INTERNAL, "pretended");
}

int fl_train_evaluate(const struct fl_plan *plan, const struct fl_dataset *data,
                      const float *shared, const float *private_, double *ret_accuracy,
                      double *ret_loss, struct fl_err *why)
{
    (void)plan;
    (void)data;
    (void)private_;
    (void)why;
    *ret_accuracy = 0.5;
    *ret_loss = (double)shared[0];
    return 0;
}

int fl_train_serve(const struct fl_train_task *task, struct fl_train_report *ret,
                   struct fl_err *why)
{
    (void)why;
    ret->accuracy_received = task->private_in[0] != 0 ? 0.8 : 0.7;
    ret->accuracy_served = 0.9;
    ret->loss = 0.1;
    ret->cpu_s = 0.01;
    return 0;
}

#endif
