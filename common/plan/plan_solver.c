/* `train.solver`: steps, or a closed form of the last layer. */
#include "common/plan/plan_check.h"

#include <string.h>

static int refuse(const struct fl_conf_node *root, enum fl_reason reason, const char *what,
                  struct fl_err *e)
{
    return fl_conf_fail(e, fl_plan_at(root, "train.solver"), reason, "%s", what);
}

/* Errors that a solver can minimise. */
static int check_loss(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_loss *loss = &p->layout.spec.loss;
    bool classes = loss->kind == FL_LOSS_CROSS_ENTROPY && loss->smoothing == 0;

    if (p->train.solver == FL_SOLVER_LOGISTIC) {
        return classes || loss->kind == FL_LOSS_BINARY
                   ? 0
                   : refuse(root, FL_R_CONF_CONFLICT,
                            "logistic regression is of classes: model.loss is cross_entropy "
                            "without smoothing, or binary",
                            e);
    }
    return classes || loss->kind == FL_LOSS_MSE
               ? 0
               : refuse(root, FL_R_CONF_CONFLICT,
                        "ridge regression has squared errors of targets, or of ones and zeros for "
                        "classes: model.loss is mse or cross_entropy (which then judges only)",
                        e);
}

static int check_closed(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
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
    int r = check_loss(p, root, e);
    if (r < 0) {
        return r;
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
    if (p->train.solver != FL_SOLVER_SGD) {
        return check_closed(p, root, e);
    }
    if (p->train.body.lr == 0) {
        return fl_conf_fail_key(e, fl_plan_at(root, "train"), FL_R_CONF_MISSING, "lr is missing");
    }
    return 0;
}
