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
 * Ditto's and APFL's are read by what serves this site and by nothing that makes an upload; FedALA
 * trains what it mixed, so its tensors feed the next release.
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

int fl_plan_beside(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_layout *l = &plan->layout;
    enum fl_local local = plan->setting.local;
    bool serving = local == FL_LOCAL_DITTO || local == FL_LOCAL_APFL;
    int r;

    if (local == FL_LOCAL_NOTHING) {
        return 0;
    }
    if (l->mixed) {
        return fl_conf_fail(e, fl_plan_at(root, "model.parameters"), FL_R_CONF_CONFLICT,
                            "%s keeps whole networks at the sites: its tensors have no rules",
                            plan->strategy);
    }
    if (local == FL_LOCAL_FEDALA && l->spec.layer_count == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "model.tensors"), FL_R_CONF_CONFLICT,
                            "fedala mixes the last layers: a list of tensors has none");
    }
    r = fl_layout_number(l, serving, "kept.rounds", e);
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
    return r < 0 ? fl_wrap(e, r, "model") : 0;
}
