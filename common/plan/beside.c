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
 *   control.T      scaffold: this site's control variates
 *
 *   dual.T         feddyn: the gradient that the pull of the rounds before stood against
 *
 *   own.mean       feddbe: what this site adds to the features before its head
 *
 * Among what travels:
 *
 *   control.T      scaffold: the mean of all sites'
 *
 *   mean.features  feddbe: mean over sites of their mean features
 *
 *   sum.features   fedproto: for each class the sum, over sites that have it, of its mean features,
 *                  divided by the number of all sites; by
 *
 *   sum.sites      how many have it, so divided, it is the class's prototype
 *
 * Ditto's and APFL's are read by what serves this site and by nothing that makes an upload; FedALA
 * trains what it mixed, so its tensors feed the next release. So do those of SCAFFOLD and FedDyn,
 * but they are made of received models and of the weights that training came to: under the unit
 * `example` that is post-processing of accounted steps, and no other look at the data.
 */
#include "common/plan/beside.h"
#include "common/plan/plan_check.h"

#include "common/math/vec.h"

#include <string.h>

struct fl_kept fl_kept_of(const struct fl_layout *layout)
{
    const struct fl_tensors *p = &layout->private_;
    struct fl_kept k = {.rounds = fl_layout_found(p, "kept.rounds"),
                        .alpha = fl_layout_found(p, "kept.alpha"),
                        .personal = fl_layout_found(p, "personal"),
                        .stays = fl_layout_found(p, "stays"),
                        .mean = fl_layout_found(p, "own.mean")};

    k.stays_count = k.stays == SIZE_MAX ? 0 : p->elements - k.stays;
    return k;
}

void fl_head_of(const struct fl_layout *layout, struct fl_head *ret)
{
    const struct fl_layer *l = &layout->spec.layers[fl_spec_head(&layout->spec)];
    const struct fl_tensor *t = &layout->theta.at[l->weight];

    *ret = (struct fl_head){
        .weight = t[0].offset, .bias = t[1].offset, .out = t->shape[0], .in = t->shape[1]};
}

/* A head that sees features + mean is the same head with another bias. */
static void shift_head(const struct fl_layout *layout, const float *mean, float *theta)
{
    struct fl_head h;

    fl_head_of(layout, &h);
    for (size_t o = 0; o < h.out; o++) {
        theta[h.bias + o] += (float)fl_vec_dot(theta + h.weight + o * h.in, mean, h.in);
    }
}

void fl_kept_serve(const struct fl_plan *plan, const float *private_, float *theta)
{
    enum fl_local local = plan->setting.local;
    size_t elements = plan->layout.theta.elements;
    const struct fl_kept k = fl_kept_of(&plan->layout);

    if (!fl_plan_personal(plan) || (k.rounds != SIZE_MAX && private_[k.rounds] == 0)) {
        return;
    }
    const float *v = private_ + (k.personal == SIZE_MAX ? 0 : k.personal);
    if (local == FL_LOCAL_DITTO) {
        memcpy(theta, v, elements * sizeof *theta);
    } else if (local == FL_LOCAL_APFL) {
        for (size_t i = 0; i < elements; i++) {
            theta[i] += private_[k.alpha] * (v[i] - theta[i]);
        }
    } else if (local == FL_LOCAL_FEDDBE) {
        shift_head(&plan->layout, private_ + k.mean, theta);
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
    static const uint32_t one = 1;
    struct fl_layout *l = &plan->layout;
    enum fl_local local = plan->setting.local;
    bool serving = local != FL_LOCAL_FEDALA;

    if (local == FL_LOCAL_FEDALA && l->spec.layer_count == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "model.tensors"), FL_R_CONF_CONFLICT,
                            "fedala mixes the last layers: a list of tensors has none");
    }
    int r = fl_layout_tensor(l, FL_GROUP_PRIVATE, serving, "kept.rounds", 1, &one, e);
    if (r == 0 && local == FL_LOCAL_APFL) {
        r = fl_layout_tensor(l, FL_GROUP_PRIVATE, serving, "kept.alpha", 1, &one, e);
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
    if (fl_spec_together(&l->spec)) {
        return fl_conf_fail(e, fl_plan_at(root, "model.layers"), FL_R_CONF_CONFLICT,
                            "%s corrects gradients, and running statistics of a batch norm have "
                            "none: use group_norm",
                            plan->strategy);
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

/* Both compare features, so there must be a place for them: vectors, before a linear layer. */
static int keep_features(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_layout *l = &plan->layout;
    const struct fl_spec *spec = &l->spec;
    bool proto = plan->setting.local == FL_LOCAL_FEDPROTO;
    uint32_t weighted = fl_spec_weighted(spec);
    const struct fl_layer *first = &spec->layers[fl_spec_head(spec)];

    if (spec->head == 0 || spec->head >= weighted || first->kind != FL_LAYER_LINEAR ||
        first->in_shape[1] != 1 || first->in_shape[2] != 1) {
        return fl_conf_fail(e, fl_plan_at(root, "model.head"), FL_R_CONF_CONFLICT,
                            "%s compares features: the head must begin with a linear layer that "
                            "takes vectors, and a body must be before it",
                            plan->strategy);
    }
    if (fl_conf_find(root, "server")) {
        return fl_conf_fail(e, fl_plan_at(root, "server"), FL_R_CONF_CONFLICT,
                            "the means of %s are means: no other server step", plan->strategy);
    }
    uint32_t shape[2] = {spec->classes, first->in_shape[0]};
    if (!proto) {
        int r = fl_layout_tensor(l, FL_GROUP_PRIVATE, false, "own.mean", 1, shape + 1, e);
        return r < 0
                   ? r
                   : fl_layout_tensor(l, FL_GROUP_SHARED, false, "mean.features", 1, shape + 1, e);
    }
    if (fl_conf_find(root, "aggregate")) {
        return fl_conf_fail(e, fl_plan_at(root, "aggregate"), FL_R_CONF_CONFLICT,
                            "prototypes are sums divided by numbers of sites: a rule that is not "
                            "the mean makes neither");
    }
    if (spec->classes == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "model.targets"), FL_R_CONF_CONFLICT,
                            "fedproto compares classes");
    }
    for (uint32_t i = 0; i < l->private_.count; i++) {
        l->private_.at[i].part = true; /* features can only be compared if networks begin alike */
    }
    int r = fl_layout_tensor(l, FL_GROUP_SHARED, false, "sum.features", 2, shape, e);
    return r < 0 ? r : fl_layout_tensor(l, FL_GROUP_SHARED, false, "sum.sites", 1, shape, e);
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
    int r;
    switch (plan->setting.local) {
    case FL_LOCAL_SCAFFOLD:
    case FL_LOCAL_FEDDYN:
        r = keep_drift(plan, root, e);
        break;
    case FL_LOCAL_FEDDBE:
    case FL_LOCAL_FEDPROTO:
        r = keep_features(plan, root, e);
        break;
    default:
        r = keep_personal(plan, root, e);
    }
    return r < 0 ? fl_wrap(e, r, "strategy %s", plan->strategy) : 0;
}
