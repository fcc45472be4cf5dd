/* `train.solver`: steps, or a closed form of the last layer. */
#include "common/plan/plan_check.h"

#include <string.h>

static int refuse(const struct fl_conf_node *root, enum fl_reason reason, const char *what,
                  struct fl_err *e)
{
    return fl_conf_fail(e, fl_plan_at(root, "train.solver"), reason, "%s", what);
}

static int check_ridge(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_loss *loss = &p->layout.spec.loss;
    bool local = strcmp(p->strategy, "local") == 0;

    if (!local && strcmp(p->strategy, "fedavg") != 0) {
        return refuse(root, FL_R_CONF_CONFLICT,
                      "a closed form is found alone (strategy: local), or from the moments of all "
                      "sites (strategy: fedavg)",
                      e);
    }
    if (p->trainer != FL_TRAINER_BUILTIN) {
        return refuse(root, FL_R_CONF_CONFLICT, "programs train as they like: trainer: builtin", e);
    }
    if (loss->kind != FL_LOSS_MSE &&
        (loss->kind != FL_LOSS_CROSS_ENTROPY || loss->smoothing != 0)) {
        return refuse(root, FL_R_CONF_CONFLICT,
                      "ridge regression has squared errors of targets, or of ones and zeros for "
                      "classes: model.loss is mse or cross_entropy (which then judges only)",
                      e);
    }
    if (p->data.crop || p->data.flip) {
        return refuse(root, FL_R_CONF_CONFLICT,
                      "a closed form looks at every example once, as it is: data.crop and "
                      "data.flip are off",
                      e);
    }
    if (!local && p->privacy.unit != FL_UNIT_NONE) {
        return refuse(root, FL_R_PLAN_PRIVACY,
                      "sums of products of features have no row in the table of releases: no "
                      "epsilon can be stated for them. Train the layer by steps (solver: sgd), or "
                      "alone (strategy: local)",
                      e);
    }
    return 0;
}

int fl_plan_check_solver(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    if (p->train.solver == FL_SOLVER_RIDGE) {
        return check_ridge(p, root, e);
    }
    if (p->train.body.lr == 0) {
        return fl_conf_fail_key(e, fl_plan_at(root, "train"), FL_R_CONF_MISSING, "lr is missing");
    }
    return 0;
}
