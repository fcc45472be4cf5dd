/*
 * What a coordinator does with the models of a round on its own examples of the target domain
 * (fedka, common/plan/fedka.h), by the same code that trains at sites. Runs in a process of its own
 * (client/tune.c); deterministic: the same arguments make the same bytes.
 *
 *   1  the members' models vote on unlabelled examples, drawn by job and round
 *   2  the aggregate is trained on those that got a label, at the job's rates times the ramp
 *   3  the model before, the members', the aggregate and the trained one are measured on the
 *      labelled part, which nothing is trained on: Group Effect
 *   4  what is published: the trained one, unless it is worse there than the aggregate; and
 *      (`guard`) the model before, when the aggregate hurts: when it is worse by a one-sided sign
 *      test of pairs at 5 %, or worse at all after two rounds in a row whose Group Effect was below
 *      0. Without a labelled part nothing is held back
 *   5  the target's mean embedding and some of its features, by what is published
 */
#ifndef CLIENT_TRAINER_TUNE_H
#define CLIENT_TRAINER_TUNE_H

#include "client/data/dataset.h"
#include "common/base/err.h"
#include "common/plan/fedka.h"

#include <stdint.h>

struct fl_tune_task {
    const struct fl_plan *plan;
    const struct fl_dataset *data; /* train: the unlabelled examples, whose labels are not looked
                                      at; test: the labelled part, may be empty */
    struct fl_fedka_score before;  /* of the last round; `round` and `models` are this one's */
    /* The i-th model, layout.shared.elements values: 0 the one before, 1 the aggregate, then
     * before.models of the members'. Each is asked for once or twice. */
    int (*model)(void *arg, uint32_t i, float *to, struct fl_err *e);
    void *arg;
};

struct fl_tune_result {
    struct fl_fedka_score score;
    float *model;                /* what is published; fl_free, by fini */
    struct fl_fedka_input input; /* of it */
    float *mean, *z;             /* that input points into */
};

/* -FL_R_DATA_*, -FL_R_LIMIT, -FL_R_NOMEM, errors of training. */
int fl_tune_round(const struct fl_tune_task *task, struct fl_tune_result *ret, struct fl_err *e);
void fl_tune_result_fini(struct fl_tune_result *r);

/* The data fit the job: -FL_R_DATA_SHAPE, -FL_R_DATA_VALUE (a labelled example of a class that the
 * job does not have). */
int fl_tune_check(const struct fl_plan *plan, const struct fl_dataset *data, struct fl_err *e);

#endif
