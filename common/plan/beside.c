/*
 * Tensors that a strategy keeps at a site, or sends, beside the network's own, and what it asks of
 * the rest of a plan. All of them begin as zeros.
 *
 *   kept.rounds    rounds this site has trained; 0: the other tensors say nothing yet
 *   kept.alpha     apfl: the own model's part in the mix
 *   personal.T     ditto, apfl: a network of this site's own; fedala: its trained one of the last
 *                  round
 *   stays.T        fedala, last layers: how much of the own value stays, 0 to 1 (one minus the
 *                  paper's W, which begins as one)
 *
 *   control.T      scaffold: this site's control variates; of the same names among what travels:
 * the mean of all sites' dual.T         feddyn: the gradient that the pull of the rounds before
 * stood against
 *
 * Ditto's and APFL's are read by what serves this site and by nothing that makes an upload; FedALA
 * trains what it mixed, so its tensors feed the next release. So do those of SCAFFOLD and FedDyn,
 * but they are made of received models and of the weights that training came to: under the unit
 * `example` that is post-processing of accounted steps, and no other look at the data.
 */
#include "common/plan/beside.h"
#include "common/plan/plan_check.h"

#include <string.h>

struct fl_kept fl_kept_of(const struct fl_layout *layout)
{
    const struct fl_tensors *p = &layout->private_;
    struct fl_kept k = {.rounds = fl_layout_found(p, "kept.rounds"),
                        .alpha = fl_layout_found(p, "kept.alpha"),
                        .personal = fl_layout_found(p, "personal"),
                        .stays = fl_layout_found(p, "stays")};

    k.stays_count = k.stays == SIZE_MAX ? 0 : p->elements - k.stays;
    return k;
}

void fl_kept_serve(const struct fl_plan *plan, const float *private_, float *theta)
{
    enum fl_local local = plan->setting.local;
    size_t elements = plan->layout.theta.elements;
    const struct fl_kept k = fl_kept_of(&plan->layout);

    if (!fl_plan_personal(plan) || private_[k.rounds] == 0) {
        return;
    }
    const float *v = private_ + k.personal;
    if (local == FL_LOCAL_DITTO) {
        memcpy(theta, v, elements * sizeof *theta);
    } else if (local == FL_LOCAL_APFL) {
        for (size_t i = 0; i < elements; i++) {
            theta[i] += private_[k.alpha] * (v[i] - theta[i]);
        }
    } else {
        size_t from = elements - k.stays_count;
        for (size_t i = 0; i < k.stays_count; i++) {
            theta[from + i] += private_[k.stays + i] * (v[from + i] - theta[from + i]);
        }
    }
}

/* The tensor of theta at which the last `layers` layers with weights begin. */
static uint32_t last_layers(const struct fl_layout *l, uint32_t layers)
{
    for (uint32_t i = l->spec.layer_count; i > 0 && layers > 0; i--) {
        if (l->spec.layers[i - 1].weight >= 0 && --layers == 0) {
            return (uint32_t)l->spec.layers[i - 1].weight;
        }
    }
    return 0;
}

static int keep_personal(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_layout *l = &plan->layout;
    enum fl_local local = plan->setting.local;
    bool serving = local != FL_LOCAL_FEDALA;

    if (local == FL_LOCAL_FEDALA && l->spec.layer_count == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "model.tensors"), FL_R_CONF_CONFLICT,
                            "fedala mixes the last layers: a list of tensors has none");
    }
    int r = fl_layout_number(l, serving, "kept.rounds", e);
    if (r == 0 && local == FL_LOCAL_APFL) {
        r = fl_layout_number(l, serving, "kept.alpha", e);
    }
    if (r == 0) {
        r = fl_layout_beside(l, FL_GROUP_PRIVATE, serving, "personal", 0, e);
    }
    if (r == 0 && local == FL_LOCAL_FEDALA) {
        r = fl_layout_beside(l, FL_GROUP_PRIVATE, serving, "stays",
                             last_layers(l, plan->setting.layers), e);
    }
    return r;
}

/* Both say what the coordinator does, and what a step of training is. */
static int keep_drift(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_layout *l = &plan->layout;
    bool scaffold = plan->setting.local == FL_LOCAL_SCAFFOLD;
    int r = 0;

    if (fl_conf_find(root, "server")) {
        return fl_conf_fail(e, fl_plan_at(root, "server"), FL_R_CONF_CONFLICT,
                            "%s has a server step of its own", plan->strategy);
    }
    if (plan->setting.sites && plan->setting.sites < plan->round.members) {
        return fl_conf_fail(e, fl_plan_at(root, "strategy"), FL_R_CONF_CONFLICT,
                            "sites: %u, fewer than round.members (%u)", plan->setting.sites,
                            plan->round.members);
    }
    if (!scaffold) {
        plan->server = (struct fl_server_opt_conf){
            .optimizer = FL_SERVER_DYNAMIC, .lr = 1, .momentum = fl_plan_part(plan)};
        return fl_layout_beside(l, FL_GROUP_PRIVATE, false, "dual", 0, e);
    }
    if (plan->train.optimizer != FL_OPTIM_SGD || plan->train.body.momentum != 0) {
        return fl_conf_fail(e, fl_plan_at(root, "train.optimizer"), FL_R_CONF_CONFLICT,
                            "control variates are mean gradients: optimizer sgd, momentum 0");
    }
    r = fl_layout_beside(l, FL_GROUP_PRIVATE, false, "control", 0, e);
    return r < 0 ? r : fl_layout_beside(l, FL_GROUP_SHARED, false, "control", 0, e);
}

int fl_plan_beside(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    if (plan->setting.local == FL_LOCAL_NOTHING) {
        return 0;
    }
    if (plan->layout.mixed) {
        return fl_conf_fail(e, fl_plan_at(root, "model.parameters"), FL_R_CONF_CONFLICT,
                            "%s keeps whole networks at the sites: its tensors have no rules",
                            plan->strategy);
    }
    int r = fl_plan_personal(plan) ? keep_personal(plan, root, e) : keep_drift(plan, root, e);
    return r < 0 ? fl_wrap(e, r, "strategy %s", plan->strategy) : 0;
}
