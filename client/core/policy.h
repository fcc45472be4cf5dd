/*
 * The site's policy: what its own configuration allows, whatever a coordinator asks for. Judged on
 * the plan's text as the agent parsed it, before anything is fetched or trained. Pure: the
 * configuration fills the struct, a verdict is text that the site's administrator and the
 * coordinator's operator both understand.
 */
#ifndef CLIENT_CORE_POLICY_H
#define CLIENT_CORE_POLICY_H

#include "common/base/err.h"
#include "common/plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

enum { FL_POLICY_JOBS_MAX = 64, FL_POLICY_STRATEGIES_MAX = 16 };

/* What the site allows for one data set version, over all jobs and coordinators (the ledger adds
 * up). unit FL_UNIT_NONE: there is no budget; releases without noise are allowed, and no epsilon is
 * ever claimed for these data. */
struct fl_budget {
    enum fl_unit unit;
    double epsilon, delta;
    /* Whom the site trusts with the noise: LOCAL nobody; CENTRAL the coordinator, so that its
     * epsilons hold against everybody else; DISTRIBUTED the other members of a secure sum, but for
     * the part that the job takes for colluders. */
    enum fl_noise_place noise;
};

struct fl_policy_job {
    char name[FL_PLAN_NAME_MAX]; /* of the job, or "*" for every job that has no entry */
    uint32_t strategy_count;     /* 0 = any */
    char strategies[FL_POLICY_STRATEGIES_MAX][FL_PLAN_NAME_MAX];
    double min_noise_multiplier; /* 0 = no floor */
    double max_clip;             /* 0 = no ceiling */
    uint64_t max_update_bytes;   /* 0 = no ceiling */
    bool masked;                 /* updates leave under secure aggregation only */
    bool scores;                 /* jobs without a unit may ask for scores of their models */
    struct fl_budget budget;     /* its unit is the unit the site requires (NONE = any) */
};

struct fl_policy {
    uint32_t job_count; /* 0: no job is allowed */
    struct fl_policy_job jobs[FL_POLICY_JOBS_MAX];
};

const char *fl_policy_unit_name(enum fl_unit unit); /* "none", "example", "client" */

/* Is the policy itself sound? -FL_R_CONF_RANGE: a budget with a unit needs 0 < delta < 1 and a
 * finite epsilon > 0; -FL_R_CONF_DUPLICATE: a job named twice. */
int fl_policy_check(const struct fl_policy *policy, struct fl_err *e);
/* The entry for this job: its own, else "*", else NULL. */
const struct fl_policy_job *fl_policy_find(const struct fl_policy *policy, const char *job);
/* 0, or -FL_R_POLICY_JOB (job, strategy or size), or -FL_R_POLICY_NOISE (another unit, less noise,
 * a larger clip, a larger epsilon or delta than the site allows). */
int fl_policy_judge(const struct fl_policy *policy, const struct fl_plan *plan, struct fl_err *e);
/* Of it, the clip by itself: that of a plan with adaptive clipping is known when a round's model is
 * there. -FL_R_POLICY_NOISE. */
int fl_policy_clip(const struct fl_policy *policy, const struct fl_plan *plan, struct fl_err *e);

#endif
