/*
 * `score`: what a site says of the model it would be served. One number between 0 and 1, which may
 * hang on any single example: the model does. So its sensitivity is 1 under either unit.
 */
#include "common/plan/plan_check.h"

int fl_plan_check_score(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_conf_node *at = fl_plan_at(root, "score.noise_multiplier");

    if (!p->score.on) {
        return 0;
    }
    if (p->trainer == FL_TRAINER_EXEC) {
        return fl_conf_fail(e, fl_plan_at(root, "score"), FL_R_CONF_CONFLICT,
                            "what a site's own program serves is not measured");
    }
    if (p->privacy.unit != FL_UNIT_NONE && p->score.noise_multiplier < 0.25) {
        return fl_conf_fail(e, at, FL_R_PLAN_PRIVACY,
                            "a score is made of private examples: with a unit it is noised, by "
                            "0.25 at least");
    }
    return 0;
}
