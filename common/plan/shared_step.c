#include "common/plan/shared_step.h"

#include "common/math/grid.h"
#include "common/plan/plan_check.h"
#include "common/plan/secure.h"

#include <math.h>

static const double NOISE_REACH =
    14.2; /* standard deviations, which no draw of the sampler is beyond */
static const double FLOAT_MOST = 0x1p23;

int fl_shared_step(const struct fl_plan *plan, struct fl_shared_step *ret, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &plan->privacy;
    const struct fl_grid g = {plan->grid.bits, plan->grid.step};
    double width = ldexp(1, g.step), elements = (double)plan->layout.shared.elements;
    struct fl_shared_step s = {0};

    s.factor = (double)plan->train.body.lr / (v->sampling_rate * v->examples * width);
    s.bound = ceil((s.factor * v->clip + sqrt(elements)) * (1 + 0x1p-20)) + 1;
    s.scale = fl_plan_own_multiplier(plan) * s.bound;
    s.most = floor((double)fl_grid_max(&g) - NOISE_REACH * s.scale - 1);
    s.most = s.most < FLOAT_MOST ? s.most : FLOAT_MOST;
    if (!(s.most >= s.bound)) {
        return fl_fail(e, FL_R_PLAN_OVERFLOW,
                       "the grid holds %lld steps, but one example's part (%.0f) and the largest "
                       "noise of one member reach %.4g: raise bits or step",
                       (long long)fl_grid_max(&g), s.bound, s.bound + NOISE_REACH * s.scale);
    }
    if (v->noise_multiplier > 0 && s.scale < 4) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "each member's part of the noise is below 4 steps (%.4g each): lower step",
                       width);
    }
    *ret = s;
    return 0;
}

/* Everything that a site does to its noised part must be linear or inside the bound. */
int fl_plan_check_shared_step(const struct fl_plan *p, const struct fl_conf_node *root,
                              struct fl_err *e)
{
    const struct fl_train_conf *t = &p->train;
    struct fl_shared_step step;
    struct fl_err why = {0};
    static const char why_not[] =
        "where members share the noise, a site's own step is never seen with all of it, so what it "
        "makes of the step must be linear: ";

    if (!fl_plan_shares_step(p)) {
        return 0;
    }
    if (t->steps != 1) {
        return fl_conf_fail(e, fl_plan_at(root, "train.steps"), FL_R_PLAN_PRIVACY,
                            "%sone step a round (train.steps: 1)", why_not);
    }
    if (t->optimizer != FL_OPTIM_SGD || t->body.momentum != 0 || t->body.weight_decay != 0 ||
        t->schedule.kind != FL_SCHEDULE_CONSTANT || t->schedule.warmup > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "train"), FL_R_PLAN_PRIVACY,
                            "%ssgd at a constant rate, without momentum and weight decay (the "
                            "coordinator's `server` may have what it likes)",
                            why_not);
    }
    if (p->layout.visibility != FL_VISIBILITY_ALL_SHARED || p->layout.mixed ||
        p->layout.generated || p->layout.private_.elements > 0 || p->setting.mu > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "strategy"), FL_R_PLAN_PRIVACY,
                            "%sno private tensors, no generated ones, no rules", why_not);
    }
    if (fl_shared_step(p, &step, &why) < 0) {
        return fl_conf_fail(e, fl_plan_at(root, fl_conf_find(root, "grid") ? "grid" : "privacy"),
                            (enum fl_reason) - why.code, "%s", why.msg);
    }
    return 0;
}
