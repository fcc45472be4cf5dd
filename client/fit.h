/* Do a site's data fit a job? Asked before a task is taken, and by check-data. */
#ifndef CLIENT_FIT_H
#define CLIENT_FIT_H

#include "client/data/dataset.h"
#include "common/plan/plan.h"

#include <jansson.h>

/* A table's examples take the shape the model gives its input. -FL_R_DATA_SHAPE, -FL_R_DATA_BATCH.
 */
int fl_fit(const struct fl_plan *plan, struct fl_dataset *d, struct fl_err *e);

/* What would be trained on, for the administrator's eyes: "shape", "train", "test", "classes" or
 * "targets", "partition", "kept", "first" (the first training example, decoded back by the job's
 * table where there is one). */
int fl_fit_describe(const struct fl_data_source *source, const struct fl_dataset *d, json_t *to,
                    struct fl_err *e);

#endif
