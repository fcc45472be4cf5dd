/*
 * `aggregate`: a robust rule instead of the mean. What it needs, what it cannot stand beside, and
 * why, in words for the job's author. Every agent checks it again.
 */
#include "common/math/pcb.h"
#include "common/plan/plan_check.h"

static const char *const rule_words[] = {
    "mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centered_clipping",
    "pcb",  NULL};
static const char *const before_words[] = {"none", "bucketing", "nearest_neighbour_mixing", NULL};
static const char *const start_words[] = {"clipped_mean", "zero", NULL};

#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)
#define OF                  fl_gates_conf
static const struct fl_conf_field gates_keys[] = {
    {TYPED("norm", DOUBLE, norm), .max = 1e6, .fallback = "0"},
    {TYPED("distance", DOUBLE, distance), .max = 1e6, .fallback = "0"},
    {TYPED("cosine", DOUBLE, cosine), .min = -1, .max = 1, .flags = FL_CONF_BELOW_MAX,
     .fallback = "-1"},
    {TYPED("decay", DOUBLE, decay), .max = 1, .flags = FL_CONF_BELOW_MAX, .fallback = "0.9"},
    {TYPED("quarantine", DOUBLE, quarantine), .min = 0.5, .max = 1, .flags = FL_CONF_ABOVE_MIN,
     .fallback = "0.9"},
    {.name = NULL},
};
#undef OF

#define OF fl_aggregate_conf
static const struct fl_conf_field keys[] = {
    {TYPED("rule", ENUM, rule), .words = rule_words, .fallback = "mean"},
    {TYPED("before", ENUM, before), .words = before_words, .fallback = "none"},
    {TYPED("byzantine", UINT32, byzantine), .max = FL_PLAN_ROBUST_MAX, .fallback = "0"},
    {TYPED("clip", DOUBLE, clip), .max = 1e6, .fallback = "0"},
    {TYPED("bucket", UINT32, bucket), .min = 2, .max = FL_PLAN_ROBUST_MAX, .fallback = "2"},
    {TYPED("iterations", UINT32, iterations), .min = 1, .max = 1000, .fallback = "8"},
    {TYPED("smoothing", DOUBLE, smoothing), .max = 1e6, .flags = FL_CONF_ABOVE_MIN,
     .fallback = "1e-6"},
    {TYPED("start", ENUM, start), .words = start_words, .fallback = "clipped_mean"},
    {TYPED("radius", DOUBLE, radius), .max = 1e6, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("momentum", DOUBLE, momentum), .max = 1, .fallback = "1"},
    {TYPED("keep", DOUBLE, keep), .max = 1, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.1"},
    {TYPED("scale", DOUBLE, scale), .max = 10, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {TYPED("gates", MAP, gates), .fields = gates_keys},
    {.name = NULL},
};

int fl_plan_aggregate(const struct fl_conf_node *n, struct fl_aggregate_conf *ret, struct fl_err *e)
{
    ret->on = true;
    ret->gates.on = fl_conf_find(n, "gates") != NULL;
    return fl_conf_decode(n, keys, ret, e);
}

/* What the rule itself needs. */
static int check_rule(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_aggregate_conf *a = &p->aggregate;
    bool krum = a->rule == FL_AGGREGATE_KRUM || a->rule == FL_AGGREGATE_MULTI_KRUM;
    bool nearest = a->before == FL_AGGREGATE_NEAREST;
    uint32_t points = p->round.quorum, least = krum ? 3 : 1;

    if (a->byzantine == 0 && (krum || nearest || a->rule == FL_AGGREGATE_TRIMMED_MEAN)) {
        return fl_conf_fail_key(e, fl_plan_at(root, "aggregate"), FL_R_CONF_MISSING,
                                "byzantine is missing: %s needs to know how many updates may be "
                                "bad",
                                nearest ? before_words[a->before] : rule_words[a->rule]);
    }
    if (a->radius == 0 && a->rule == FL_AGGREGATE_CENTERED_CLIPPING) {
        return fl_conf_fail_key(e, fl_plan_at(root, "aggregate"), FL_R_CONF_MISSING,
                                "radius is missing: centered_clipping needs it");
    }
    if (a->before == FL_AGGREGATE_BUCKETING) {
        /* Under secure aggregation no bucket is smaller than the others. */
        points = p->secure.on ? points / a->bucket : (points + a->bucket - 1) / a->bucket;
    }
    if (points < 2 * a->byzantine + least) {
        return fl_conf_fail(e, fl_plan_at(root, "aggregate.byzantine"), FL_R_CONF_CONFLICT,
                            "%u bad ones among %u%s: %s needs at least %u of them, in the smallest "
                            "round (round.quorum)",
                            a->byzantine, points,
                            a->before == FL_AGGREGATE_BUCKETING ? " buckets" : "",
                            rule_words[a->rule], 2 * a->byzantine + least);
    }
    return 0;
}

/* It takes the largest at their word, and every pair of updates costs a tanh of each value. */
static int check_pcb(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_aggregate_conf *a = &p->aggregate;
    uint32_t points = p->round.members + p->round.over_select;

    if (a->rule != FL_AGGREGATE_PCB) {
        return 0;
    }
    if (a->clip == 0 && !a->gates.on) {
        return fl_conf_fail_key(e, fl_plan_at(root, "aggregate"), FL_R_CONF_MISSING,
                                "clip is missing: pcb lets the largest values win, so updates need "
                                "a bound, clip or gates");
    }
    if (a->before == FL_AGGREGATE_BUCKETING) {
        points = (points + a->bucket - 1) / a->bucket;
    }
    if (points > FL_PCB_VECTORS_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "round.members"), FL_R_LIMIT,
                            "%u updates with over_select: pcb merges at most %d; buckets make them "
                            "fewer (before: bucketing)",
                            points, FL_PCB_VECTORS_MAX);
    }
    return 0;
}

/* The middle member itself must pass. */
static int check_gates(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_gates_conf *g = &p->aggregate.gates;
    const char *low = g->norm > 0 && g->norm < 1           ? "aggregate.gates.norm"
                      : g->distance > 0 && g->distance < 1 ? "aggregate.gates.distance"
                                                           : NULL;

    if (low) {
        return fl_conf_fail(e, fl_plan_at(root, low), FL_R_CONF_RANGE,
                            "0, or at least 1: the middle member has 1");
    }
    return 0;
}

int fl_plan_check_aggregate(const struct fl_plan *p, const struct fl_conf_node *root,
                            struct fl_err *e)
{
    const struct fl_conf_node *at = fl_plan_at(root, "aggregate");

    if (!p->aggregate.on) {
        return 0;
    }
    if (p->layout.shared.elements == 0) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "nothing leaves a site under strategy %s: there is nothing to "
                            "aggregate",
                            p->strategy);
    }
    if (p->secure.on && (p->aggregate.before != FL_AGGREGATE_BUCKETING || p->aggregate.clip > 0 ||
                         p->aggregate.gates.on)) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "a rule compares single updates, which secure_aggregation hides from "
                            "the coordinator: with it a rule compares sums of buckets (before: "
                            "bucketing), without clip and gates");
    }
    if (p->secure.on && p->setting.bubble.by != FL_BUBBLE_NONE) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "under secure_aggregation the members of a bubble have one sum, and a "
                            "rule compares several: no aggregate inside bubbles");
    }
    if (p->privacy.unit != FL_UNIT_NONE && p->privacy.noise == FL_NOISE_CENTRAL) {
        return fl_conf_fail(e, at, FL_R_PLAN_PRIVACY,
                            "one site can move what a rule chooses further than its share of a "
                            "sum, so noise made for sums does not hide it: with a rule "
                            "privacy.noise is local");
    }
    if (p->weighting != FL_WEIGHT_EQUAL) {
        return fl_conf_fail(e, fl_plan_at(root, "weights"), FL_R_CONF_CONFLICT,
                            "a weight is what a site says of itself: a rule against bad sites "
                            "counts heads, weights are equal");
    }
    if (p->round.members + p->round.over_select > FL_PLAN_ROBUST_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "round.members"), FL_R_LIMIT,
                            "%u with over_select: a rule compares each update with all others, at "
                            "most %d of them",
                            p->round.members + p->round.over_select, FL_PLAN_ROBUST_MAX);
    }
    int r = check_gates(p, root, e);
    r = r ? r : check_pcb(p, root, e);
    return r ? r : check_rule(p, root, e);
}
