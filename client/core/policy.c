#include "client/core/policy.h"

#include "common/math/grid.h"
#include "common/plan/secure.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

const char *fl_policy_unit_name(enum fl_unit unit)
{
    switch (unit) {
    case FL_UNIT_NONE:
        return "none";
    case FL_UNIT_EXAMPLE:
        return "example";
    case FL_UNIT_CLIENT:
        return "client";
    }
    return "unknown";
}

static bool is_finite_from(double x, double least)
{
    return isfinite(x) && x >= least;
}

int fl_policy_check(const struct fl_policy *policy, struct fl_err *e)
{
    if (policy->job_count > FL_POLICY_JOBS_MAX) {
        return fl_fail(e, FL_R_CONF_RANGE, "%u jobs; at most %d", policy->job_count,
                       FL_POLICY_JOBS_MAX);
    }
    for (uint32_t i = 0; i < policy->job_count; i++) {
        const struct fl_policy_job *job = &policy->jobs[i];
        const struct fl_budget *b = &job->budget;
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(policy->jobs[k].name, job->name) == 0) {
                return fl_fail(e, FL_R_CONF_DUPLICATE, "job %s has two entries", job->name);
            }
        }
        if (job->strategy_count > FL_POLICY_STRATEGIES_MAX) {
            return fl_fail(e, FL_R_CONF_RANGE, "job %s: %u strategies; at most %d", job->name,
                           job->strategy_count, FL_POLICY_STRATEGIES_MAX);
        }
        if (!is_finite_from(job->min_noise_multiplier, 0) || !is_finite_from(job->max_clip, 0)) {
            return fl_fail(e, FL_R_CONF_RANGE,
                           "job %s: min_noise_multiplier and max_clip are finite and not negative",
                           job->name);
        }
        if (b->unit == FL_UNIT_NONE) {
            continue;
        }
        if (!isfinite(b->epsilon) || !(b->epsilon > 0)) {
            return fl_fail(e, FL_R_CONF_RANGE, "job %s: budget epsilon %g; must be above 0",
                           job->name, b->epsilon);
        }
        if (!(b->delta > 0 && b->delta < 1)) {
            return fl_fail(e, FL_R_CONF_RANGE, "job %s: budget delta %g; must be between 0 and 1",
                           job->name, b->delta);
        }
    }
    return 0;
}

const struct fl_policy_job *fl_policy_find(const struct fl_policy *policy, const char *job)
{
    const struct fl_policy_job *any = NULL;

    for (uint32_t i = 0; i < policy->job_count; i++) {
        if (strcmp(policy->jobs[i].name, job) == 0) {
            return &policy->jobs[i];
        }
        if (strcmp(policy->jobs[i].name, "*") == 0) {
            any = &policy->jobs[i];
        }
    }
    return any;
}

static bool allows_strategy(const struct fl_policy_job *job, const char *strategy)
{
    for (uint32_t i = 0; i < job->strategy_count; i++) {
        if (strcmp(job->strategies[i], strategy) == 0) {
            return true;
        }
    }
    return job->strategy_count == 0;
}

/* The noise multiplier as this site sees it: what others add counts only where it trusts them. */
static double counted_noise(const struct fl_plan *plan, enum fl_noise_place trust)
{
    if (plan->privacy.unit == FL_UNIT_NONE) {
        return 0;
    }
    if (fl_noise_trusts(trust, plan->privacy.noise)) {
        return plan->privacy.noise_multiplier;
    }
    return plan->privacy.noise == FL_NOISE_CENTRAL ? 0 : fl_plan_own_multiplier(plan);
}

/* A site that goes back in the middle of a secure sum costs its neighbours the round: there the
 * greatest clip that may come is judged. */
int fl_policy_clip(const struct fl_policy *policy, const struct fl_plan *plan, struct fl_err *e)
{
    const struct fl_policy_job *job = fl_policy_find(policy, plan->name);
    const struct fl_privacy_conf *p = &plan->privacy;
    double clip = p->unit == FL_UNIT_NONE             ? 0
                  : p->adaptive.on && plan->secure.on ? p->adaptive.max
                                                      : p->clip;

    if (!job || job->max_clip <= 0 || (clip > 0 && clip <= job->max_clip)) {
        return 0;
    }
    return fl_fail(e, FL_R_POLICY_NOISE,
                   "job %s clips at %g (0 = never); this site requires at most %g", plan->name,
                   clip, job->max_clip);
}

static int judge_privacy(const struct fl_policy *policy, const struct fl_policy_job *job,
                         const struct fl_plan *plan, struct fl_err *e)
{
    const struct fl_privacy_conf *asked = &plan->privacy;
    const struct fl_budget *b = &job->budget;

    if (b->unit != FL_UNIT_NONE && asked->unit != b->unit) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       "job %s has privacy unit `%s`; this site requires `%s`", plan->name,
                       fl_policy_unit_name(asked->unit), fl_policy_unit_name(b->unit));
    }
    if (job->min_noise_multiplier > 0 &&
        !(counted_noise(plan, b->noise) >= job->min_noise_multiplier)) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       "job %s has noise multiplier %g; this site requires at least %g", plan->name,
                       counted_noise(plan, b->noise), job->min_noise_multiplier);
    }
    int r = fl_policy_clip(policy, plan, e);
    if (r < 0) {
        return r;
    }
    if (b->unit == FL_UNIT_NONE) {
        return 0;
    }
    if (!fl_noise_trusts(b->noise, asked->noise)) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       asked->noise == FL_NOISE_CENTRAL
                           ? "job %s leaves the noise to the coordinator; this site does not "
                             "(privacy.noise: central would allow it)"
                           : "job %s shares the noise among its members; this site adds it itself "
                             "(privacy.noise: distributed would allow it)",
                       plan->name);
    }
    if (asked->epsilon > b->epsilon) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       "job %s aims at epsilon %g; this site's budget for its data is %g",
                       plan->name, asked->epsilon, b->epsilon);
    }
    if (asked->delta > b->delta) {
        return fl_fail(e, FL_R_POLICY_NOISE, "job %s has delta %g; this site allows at most %g",
                       plan->name, asked->delta, b->delta);
    }
    return 0;
}

int fl_policy_judge(const struct fl_policy *policy, const struct fl_plan *plan, struct fl_err *e)
{
    const struct fl_policy_job *job = fl_policy_find(policy, plan->name);
    const struct fl_grid grid = {plan->grid.bits, plan->grid.step};
    size_t size;

    if (!job) {
        return fl_fail(e, FL_R_POLICY_JOB, "this site's configuration does not list job %s",
                       plan->name);
    }
    if (!allows_strategy(job, plan->strategy)) {
        return fl_fail(e, FL_R_POLICY_JOB,
                       "job %s uses strategy %s, which this site does not allow for it", plan->name,
                       plan->strategy);
    }
    if (job->masked && !plan->secure.on) {
        return fl_fail(e, FL_R_POLICY_JOB,
                       "job %s asks for updates one by one; this site's leave only under "
                       "secure_aggregation (masked)",
                       plan->name);
    }
    if (!fl_grid_bytes(&grid, plan->layout.shared.elements, &size)) {
        return fl_fail(e, FL_R_POLICY_JOB, "job %s uploads more than memory can hold", plan->name);
    }
    if (plan->secure.on) { /* masked values are wider */
        struct fl_exchange_terms terms;
        fl_plan_secure_exchange(plan, FL_SECAGG_MASK, &terms);
        size = (size_t)terms.size;
    }
    if (job->max_update_bytes && size > job->max_update_bytes) {
        return fl_fail(e, FL_R_POLICY_JOB,
                       "job %s uploads %zu bytes a round; this site allows at most %llu",
                       plan->name, size, (unsigned long long)job->max_update_bytes);
    }
    if (plan->score.on && plan->privacy.unit == FL_UNIT_NONE && !job->scores) {
        return fl_fail(e, FL_R_POLICY_JOB,
                       "job %s asks what its model is worth here, and this site does not say it "
                       "(scores: true would allow it)",
                       plan->name);
    }
    return judge_privacy(policy, job, plan, e);
}
