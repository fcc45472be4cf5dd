/*
 * What an agent and a trainer program say to each other (deploy/docs/TRAINER.md): one line of JSON
 * each way. Text only; who runs the program is client/exec.c.
 */
#ifndef CLIENT_TRAINER_EXEC_H
#define CLIENT_TRAINER_EXEC_H

#include "client/trainer/trainer.h"

enum { FL_EXEC_VERSION = 1 };

/* Names of the files in the program's folder, for ever: a program need not read the line. */
#define FL_EXEC_SHARED      "shared.safetensors"
#define FL_EXEC_PRIVATE     "private.safetensors"
#define FL_EXEC_SHARED_OUT  "shared-out.safetensors"
#define FL_EXEC_PRIVATE_OUT "private-out.safetensors"

/* The line for the program, without its end. `evaluate`: the final model of a job, nothing is to be
 * trained. `examples`: their files are in the folder. Freed by free(); NULL when memory ends. */
char *fl_exec_request(const struct fl_train_task *task, const char *folder, bool evaluate,
                      bool examples);

/* What it said. Numbers go to the report; what it did not say is NAN or 0. -FL_R_EXEC_ANSWER: not a
 * JSON object, a metric that is no finite number, or an "error" of its own. */
int fl_exec_answer(const char *line, struct fl_train_report *ret, struct fl_err *e);

#endif
