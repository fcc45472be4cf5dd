/*
 * The local report: STATE/<agent>/report.jsonl, one JSON object a line. It is for the site's own
 * eyes: accuracy, loss and counts are written here and nowhere else, and nothing here is ever sent.
 * The fields: client/README.md.
 */
#ifndef CLIENT_REPORT_H
#define CLIENT_REPORT_H

#include "client/core/agent.h"
#include "client/core/ledger.h"
#include "client/guard.h"
#include "client/trainer/trainer.h"
#include "common/base/err.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"

#include <jansson.h>
#include <stdint.h>

enum {
    FL_REPORT_LINE_MAX = 16 * 1024,
    FL_REPORT_FILE_MAX = 64 * 1024 * 1024, /* then it becomes report.jsonl.1 */
};

/* The facts of a training or evaluation: job, round, strategy, what the trainer measured. NULL when
 * memory ends. `trained` may be NULL. */
json_t *fl_report_new(const char *event, const struct fl_agent_task *task,
                      const struct fl_plan *plan, const struct fl_train_report *trained);
/* What the update is: tensors, size, digest, norms before the clip and before the noise, noise. */
void fl_report_update(json_t *line, const struct fl_release *r, double norm_after,
                      const struct fl_plan *plan);
/* Which tensors an update is made of. */
void fl_report_tensors(json_t *line, const struct fl_plan *plan);
/* What the trainer measured. */
void fl_report_trained(json_t *line, const struct fl_train_report *trained);
/* Which model serves, and what each was worth. */
void fl_report_guard(json_t *line, const struct fl_guard_report *guard);
/* A number, or null when it is not finite (JSON has no NaN). */
void fl_report_number(json_t *line, const char *name, double value);
void fl_report_count(json_t *line, const char *name, uint64_t value);
void fl_report_text(json_t *line, const char *name, const char *value);
/* What is changed between the data sets that an epsilon tells apart. placeless: of fl_release. */
const char *fl_report_neighbours(enum fl_unit unit, enum fl_noise_place trust, bool placeless);
/* Epsilon never stands alone: with delta, unit, neighbours, whom it holds against (not
 * against who is trusted with the noise) and the bound that was computed. */
void fl_report_epsilon(json_t *line, enum fl_unit unit, enum fl_noise_place trust, bool placeless,
                       double epsilon, double delta, enum fl_bound bound);

/* Appends the line with its time; durable on return. A line that a crash cut is ended first. */
int fl_report_append(const char *path, json_t *line, struct fl_err *e);

#endif
