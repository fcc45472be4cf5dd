/*
 * `trainer: exec`: a round trained by the site's own program (deploy/docs/TRAINER.md). The job can
 * only ask for it; which program that is, and what it may use, is in the site's configuration.
 *
 * Same contract as client/trainer/trainer.h: what comes back is a delta and private tensors,
 * checked to be of the model's shapes and finite; whatever happens, nothing is half-applied, since
 * nothing is applied here at all.
 */
#ifndef CLIENT_EXEC_H
#define CLIENT_EXEC_H

#include "client/config.h"
#include "client/trainer/trainer.h"

struct fl_exec {
    const struct fl_config_agent *agent; /* its trainer */
    const char *folder;                  /* made (0700), used and removed */
};

/* [long] Errors of fl_keeper_run; -FL_R_EXEC_ANSWER, -FL_R_EXEC_TENSORS, -FL_R_NOT_FINITE,
 * -FL_R_STORE_IO, -FL_R_DISK_FULL. The program's last words on stderr go to the log. */
int fl_exec_train(const struct fl_exec *x, const struct fl_train_task *task,
                  struct fl_train_result *ret, struct fl_err *e);
/* [long] The final model, for the site's report. */
int fl_exec_serve(const struct fl_exec *x, const struct fl_train_task *task,
                  struct fl_train_report *ret, struct fl_err *e);

/* Removes what a run left that was cut off. */
int fl_exec_sweep(const char *folder, struct fl_err *e);

#endif
