/*
 * Nobody loses by joining: which model a site serves.
 *
 * Beside the federated model a site can have one that it trained alone, and ways between them. This
 * compares them on validation examples, which no training ever sees (struct fl_dataset), and takes
 * the one with the least loss there; among equals the simplest, which is the one named first:
 *
 *   alone    the same network, trained on this site's examples only, as the strategy `local` would
 *   as_is    what the federation made, with the site's private state
 *   head     the same, its head tuned at home
 *   full     the same, all of it tuned at home
 *   mixed    on the line between as_is and full (Wortsman et al. 2022, arXiv 2109.01903)
 *   parts    the layers of full that help, one by one from the last on; the others of as_is
 *
 * Whatever is tuned keeps the epoch that was best on the validation examples. Nothing of it leaves,
 * is written to anything that feeds a release, or costs any budget: it is post-processing of the
 * released model by the owner of the data, for himself.
 */
#ifndef CLIENT_GUARD_H
#define CLIENT_GUARD_H

#include "client/trainer/trainer.h"

enum fl_guard_model {
    FL_GUARD_ALONE,
    FL_GUARD_AS_IS,
    FL_GUARD_HEAD,
    FL_GUARD_FULL,
    FL_GUARD_MIXED,
    FL_GUARD_PARTS,
    FL_GUARD_MODELS
};
/* "alone", ... */
const char *fl_guard_word(enum fl_guard_model model);

struct fl_guard_score {
    bool tried;             /* false: there is no such model (no head of its own) */
    double validation_loss; /* mean over the validation examples; what the choice is made by */
    double validation_accuracy;
    double test_loss, test_accuracy; /* for people; accuracies are NAN for models of numbers */
    struct fl_errors test;
    double setting; /* alone, full: rounds trained; head: epochs; mixed: part of full; parts: how
                       many layers are of full */
};

struct fl_guard_report {
    enum fl_guard_model choice;
    struct fl_guard_score of[FL_GUARD_MODELS];
    double cpu_s;
};

/* `task` as for fl_train_serve; its data need validation examples (-FL_R_DATA_EMPTY), its plan
 * layers (-FL_R_TRAIN with trainer exec). theta: layout.theta.elements values, the chosen model's
 * on return. Deterministic: task->seed shuffles batches and initialises the model alone.
 * -FL_R_CANCELLED, -FL_R_NOMEM. */
int fl_guard_choose(const struct fl_train_task *task, float *theta, struct fl_guard_report *ret,
                    struct fl_err *e);

#endif
