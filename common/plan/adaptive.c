#include "common/plan/adaptive.h"

#include "common/math/grid.h"
#include "common/plan/plan_check.h"
#include "common/plan/releases.h"
#include "common/privacy/clip.h"

#include <math.h>

/* Without a word on it: a hundredth of the budget (z^2 / (2 sigma_b)^2), and the bits of a hundred
 * members are known to 5 %. */
static const double default_bits = 5, default_reach = 10;

double fl_adaptive_ratio(const struct fl_privacy_conf *p)
{
    double z = 2 * p->adaptive.noise_multiplier / p->noise_multiplier;

    return p->adaptive.on && p->noise_multiplier > 0 ? 1 / sqrt(z * z - 1) : 0;
}

int fl_adaptive_bound(const struct fl_privacy_conf *p, int32_t step, struct fl_adaptive_bound *ret,
                      struct fl_err *e)
{
    const struct fl_grid g = {.step = step};
    struct fl_adaptive_bound b = {0};
    int r = fl_clip_bound(&g, p->clip, &b.update, e);

    if (r < 0) {
        return r;
    }
    b.both = (double)b.update;
    if (p->adaptive.on) {
        b.bit = (int64_t)(fl_adaptive_ratio(p) * b.both);
        if (b.bit < 1) {
            return fl_fail(e, FL_R_PLAN_PRIVACY,
                           "a clip of %lld grid steps leaves none for the bit beside it",
                           (long long)b.update);
        }
        /* A little more, so that no rounding makes the noise smaller than what is debited. */
        b.both = sqrt(b.both * b.both + (double)b.bit * (double)b.bit) * (1 + 1e-12);
    }
    *ret = b;
    return 0;
}

int fl_adaptive_take(struct fl_plan *plan, float moved, struct fl_err *e)
{
    const struct fl_adaptive_conf *a = &plan->privacy.adaptive;
    double clip = a->first + (double)moved;

    /* What moved it was rounded to a float. */
    if (!(clip >= a->min * (1 - 1e-6)) || !(clip <= a->max * (1 + 1e-6))) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "the round's clip is %g; the job's are %g to %g", clip,
                       a->min, a->max);
    }
    plan->privacy.clip = fmin(fmax(clip, a->min), a->max);
    return 0;
}

float fl_adaptive_next(const struct fl_privacy_conf *p, int32_t step, double mean, struct fl_err *e)
{
    const struct fl_adaptive_conf *a = &p->adaptive;
    struct fl_adaptive_bound b;

    if (fl_adaptive_bound(p, step, &b, e) < 0) {
        return NAN;
    }
    double below = (mean / ldexp((double)b.bit, step) + 1) / 2;
    double clip = p->clip * exp(-a->rate * (below - a->quantile));

    return (float)(fmin(fmax(clip, a->min), a->max) - a->first);
}

/* What it does not go with: why, and where that was said. NULL: it does. */
static const char *conflict(const struct fl_plan *p, const char **ret_key)
{
    *ret_key = "privacy.unit";
    if (p->privacy.unit != FL_UNIT_CLIENT) {
        return "the unit example clips each example's gradient, whose norms change within a round "
               "and with every step: a bit for each example and step would have to be accounted. "
               "Adaptive clipping is for the unit client";
    }
    *ret_key = "privacy.tree";
    if (p->privacy.tree) {
        return "a tree's noise is of one scale, and the clip would change it from round to round";
    }
    *ret_key = "aggregate";
    if (p->aggregate.on) {
        return "the clip follows the mean of the members' bits, and an aggregate rule takes no "
               "mean";
    }
    *ret_key = "grid.narrow";
    if (p->grid.narrow) {
        return "an update in fewer bits would lose the bit beside it";
    }
    *ret_key = "trainer";
    if (p->trainer == FL_TRAINER_EXEC) {
        return "programs are given the network's tensors only, and the clip is one more";
    }
    *ret_key = "strategy";
    return p->layout.shared.elements && fl_release_summed(p)
               ? NULL
               : "the clip follows the mean of the members' bits, and this strategy takes no mean "
                 "of all members' updates";
}

int fl_plan_adaptive(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_privacy_conf *p = &plan->privacy;
    struct fl_adaptive_conf *a = &p->adaptive;
    static const uint32_t one = 1;
    const char *key, *why;

    a->on = fl_conf_find(root, "privacy.adaptive") && p->unit != FL_UNIT_NONE;
    if (!a->on || p->clip == 0) { /* which is refused for itself */
        *a = (struct fl_adaptive_conf){.on = false};
        return 0;
    }
    if ((why = conflict(plan, &key)) != NULL) {
        return fl_conf_fail(e, fl_plan_at(root, key), FL_R_PLAN_PRIVACY, "privacy.adaptive: %s",
                            why);
    }
    a->first = p->clip;
    a->min = a->min > 0 ? a->min : p->clip / default_reach;
    a->max = a->max > 0 ? a->max : p->clip * default_reach;
    if (p->clip < a->min || p->clip > a->max) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.clip"), FL_R_CONF_RANGE,
                            "%g: the clip that a job begins with is from adaptive.min (%g) to "
                            "adaptive.max (%g)",
                            p->clip, a->min, a->max);
    }
    if (a->noise_multiplier == 0) {
        a->noise_multiplier = default_bits * p->noise_multiplier;
    }
    if (a->noise_multiplier < sqrt(0.5) * p->noise_multiplier) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.adaptive"), FL_R_PLAN_PRIVACY,
                            "noise_multiplier %g: the bits would cost more than the updates; with "
                            "privacy.noise_multiplier %g at least %.4g",
                            a->noise_multiplier, p->noise_multiplier,
                            sqrt(0.5) * p->noise_multiplier);
    }
    return fl_layout_tensor(&plan->layout, FL_GROUP_SHARED, false, "clip.moved", 1, &one, e);
}
