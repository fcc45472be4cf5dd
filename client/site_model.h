/* What a site puts into a job's private tensors before its first round. */
#ifndef CLIENT_SITE_MODEL_H
#define CLIENT_SITE_MODEL_H

#include "client/config.h"
#include "common/plan/plan.h"

/* Into private tensors as the job begins (fl_layout_init_private): the agent's `width` where layers
 * are nested, and frozen tensors from the file with the digest of model.base, which is one of the
 * agent's `models`. Nothing of it depends on examples. -FL_R_CAPABILITY: the job wants a file that
 * is not here; -FL_R_TENSORS: it does not fit the job; -FL_R_PLAN_PRIVACY: under the unit example,
 * a file that Cohort made at a site of its examples; errors of reading. */
int fl_site_model(const struct fl_config_agent *agent, const struct fl_plan *plan, float *private_,
                  struct fl_err *e);

#endif
