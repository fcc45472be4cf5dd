/*
 * Local training: one task in, one delta out. Deterministic: the same task gives the same bits on
 * the same machine.
 */
#ifndef CLIENT_TRAINER_TRAINER_H
#define CLIENT_TRAINER_TRAINER_H

#include "client/data/dataset.h"
#include "client/trainer/kept.h"
#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/nn/loss.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"

#include <stdatomic.h>

struct fl_train_task {
    const struct fl_plan *plan;
    const struct fl_dataset *data;
    const float *base;       /* shared vector received: layout.shared.elements */
    const float *private_in; /* release state: layout.private_.elements (head, embedding: what feeds
                                a release) */
    struct fl_seed seed;     /* of this round's intent: batches and, under unit `example`, noise */
    uint64_t round;
    const uint8_t *input; /* what `update` begins with, as the plan has it: from the coordinator,
                             unchecked. NULL = nothing */
    size_t input_size;
    const atomic_bool *cancel; /* checked per batch: -FL_R_CANCELLED */
    struct fl_features *kept;  /* NULL, or what stays of this data set until the next training */
    float *served; /* fl_train_serve: NULL, or theta as it is served here (the caller put in what
                      was received; a tuned head replaces it) */
};

/* Of a model that predicts numbers, over all targets of the test part. */
struct fl_errors {
    bool known; /* false: it predicts classes, or there is no such model */
    double rmse, mae;
    double mape;          /* mean of |y - p| / |y| where y is not 0, as a part of 1 */
    double r2;            /* 1 - sum (y - p)^2 / sum (y - mean)^2; NAN when all targets are equal */
    uint32_t class_count; /* of classes, when there are at most FL_SCORE_CLASSES_MAX; else 0 */
    float class_accuracy[FL_SCORE_CLASSES_MAX]; /* NAN: no test example of it */
};

/* What stays at home: for the agent's local report only. */
struct fl_train_report {
    double loss;              /* mean training loss of the last epoch; accuracies are NAN for
                                 models that predict numbers */
    double accuracy_shared;   /* of the received model by itself, where a site has a model of its
                                 own; else NAN */
    double accuracy_received; /* test accuracy of the received model with the private state as it
                                 came; of the site's own model where it has one (personal.h) */
    double accuracy_trained;  /* after local training, before aggregation */
    double accuracy_served;   /* received model with the serving copy of the head tuned (NAN when
                                 serve_epochs = 0) */
    struct fl_errors received, trained, served; /* of the same three models */
    uint64_t steps;
    double cpu_s;
};

struct fl_train_result {
    float *delta; /* trained - base: layout.shared.elements, caller's memory. Under unit `example`
                     already noised: post-processing of accounted steps. Under `client` and `none`
                     raw: the outbox clips and noises. */
    float *private_out;    /* release state after training: caller's memory */
    struct fl_event event; /* unit `example`: what these steps cost; count 0 otherwise */
    struct fl_train_report report;
};

int fl_train(const struct fl_train_task *task, struct fl_train_result *ret, struct fl_err *e);

/* fedka: the mean embedding of this site's training examples (its labels are not looked at) by the
 * model `task->base`, at the bandwidth of `task->input`: fl_fedka_embedding(plan) numbers of norm 1
 * at most. Errors of fl_fedka_input_get; -FL_R_CANCELLED. */
int fl_train_embed(const struct fl_train_task *task, float *ret, struct fl_err *e);

/* The received model at home, without training it: accuracy_received and loss (mean over the test
 * part) as it came, accuracy_served with the serving head tuned (NAN when serve_epochs = 0), cpu_s;
 * the rest of the report is NAN or 0. For the final model of a job. task->seed shuffles batches.
 * -FL_R_CANCELLED. */
int fl_train_serve(const struct fl_train_task *task, struct fl_train_report *ret, struct fl_err *e);

/* Test accuracy of (shared, private) as they are, 0..1. */
int fl_train_evaluate(const struct fl_plan *plan, const struct fl_dataset *data,
                      const float *shared, const float *private_, double *ret_accuracy,
                      double *ret_loss, struct fl_err *e);

#endif
