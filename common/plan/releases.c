#include "common/plan/releases.h"

#include "common/plan/descriptor.h"
#include "common/plan/fedka.h"

#include <string.h>

#define STEPS_OF "one noised step: sum of clipped gradients of a Poisson batch, "
#define A_STEP   "C in L2, as one example's whole gradient is clipped to C"
#define POISSON  "Poisson(q; Gauss(sigma)) x steps"
#define SHARED_SUM(word)                                                                           \
    {                                                                                              \
        word, FL_UNIT_EXAMPLE, FL_RELEASE_MASKED,                                                  \
            "masked sum of all members' steps: sums of clipped gradients of Poisson batches, on "  \
            "the grid",                                                                            \
            "(lr / (q examples) C + sqrt(d) grid steps) in L2, rounding of d values to the grid "  \
            "included; honest members of any sum that opens add the noise together",               \
            "Poisson(q; Gauss(sigma))"                                                             \
    }
#define UPDATE "C in L2, exactly, after rounding to the grid"
#define MASKED SUM "; honest members of any sum that opens add the noise together"
#define SUM    "C in L2, exactly: one site's clipped update, or nothing in its place"
#define TREE   "C in L2 in each of ceil(log2(tree + 1)) nodes, as a site is in a tree once"

/* A model of which a part travels; `what` and `noised` name the parts. Of sites only, where what is
 * at home feeds the release without noise. */
#define MEAN_OF(word, what, noised)                                                                \
    MEAN_OF_SITES(word, what),                                                                     \
    {                                                                                              \
        word, FL_UNIT_EXAMPLE, FL_RELEASE_STEPS, STEPS_OF noised, A_STEP, POISSON                  \
    }
#define MEAN_OF_SITES(word, what)                                                                  \
    {word, FL_UNIT_CLIENT, FL_RELEASE_UPDATE, "update of " what, UPDATE, "Gauss(sigma)"},          \
        {word, FL_UNIT_CLIENT, FL_RELEASE_SUM, "sum of all members' updates of " what,             \
         SUM,  "Gauss(sigma)"},                                                                    \
        {word,   FL_UNIT_CLIENT, FL_RELEASE_MASKED, "masked sum of all members' updates of " what, \
         MASKED, "Gauss(sigma)"},                                                                  \
    {                                                                                              \
        word, FL_UNIT_CLIENT, FL_RELEASE_TREE,                                                     \
            "sums of updates of " what " over the rounds so far", TREE,                            \
            "TreeAggregation(sigma; tree)"                                                         \
    }

/* A strategy that looks at single updates, so there is no sum that central noise could be on. What
 * it makes of them (masks, overlaps, mixes) is post-processing. */
#define SINGLES_OF(word, what)                                                                     \
    {word, FL_UNIT_CLIENT, FL_RELEASE_UPDATE, "update of " what, UPDATE, "Gauss(sigma)"},          \
    {                                                                                              \
        word, FL_UNIT_EXAMPLE, FL_RELEASE_STEPS, STEPS_OF what, A_STEP, POISSON                    \
    }

static const struct fl_release_row rows[] = {
    MEAN_OF("apfl", "the shared model", "the shared model"),
    MEAN_OF("ditto", "the shared model", "the shared model"),
    MEAN_OF_SITES("fedala", "the whole model"),
    MEAN_OF("fedadagrad", "the whole model", "the whole model"),
    SHARED_SUM("fedadagrad"),
    MEAN_OF("fedadam", "the whole model", "the whole model"),
    SHARED_SUM("fedadam"),
    SINGLES_OF("fedamp", "the whole model"),
    MEAN_OF("fedavg", "the whole model", "the whole model"),
    SHARED_SUM("fedavg"),
    MEAN_OF("fedavgm", "the whole model", "the whole model"),
    SHARED_SUM("fedavgm"),
    SINGLES_OF("fedbuff", "the whole model"),
    MEAN_OF("fedbn", "all layers but norms", "norms and all other layers together"),
    SINGLES_OF("fedcac", "the whole model"),
    MEAN_OF_SITES("feddbe", "the whole model and its mean features together"),
    MEAN_OF("feddyn", "the whole model", "the whole model"),
    {"fedka", FL_UNIT_CLIENT, FL_RELEASE_UPDATE, "update of the whole model", UPDATE,
     "Gauss(sigma)"},
    {"fedka", FL_UNIT_CLIENT, FL_RELEASE_EMBEDDING, "mean embedding of a site's features",
     "1 in L2, exactly, after rounding to the grid", "Gauss(strategy.fedka.noise_multiplier)"},
    {"fedka", FL_UNIT_EXAMPLE, FL_RELEASE_STEPS, STEPS_OF "the whole model", A_STEP, POISSON},
    MEAN_OF("fednova", "the whole model", "the whole model"),
    MEAN_OF("fedper", "the body", "body and head together"),
    MEAN_OF_SITES("fedproto", "each class's mean features, and which classes there are"),
    MEAN_OF("fedprox", "the whole model", "the whole model"),
    MEAN_OF("fedrep", "the body", "body and head together"),
    MEAN_OF("fedyogi", "the whole model", "the whole model"),
    SHARED_SUM("fedyogi"),
    MEAN_OF("hyperfl", "the generator", "the generated network and the head together"),
    MEAN_OF("scaffold", "the whole model and its control variates together",
            "the whole model, of which the control variates are made"),
    {"privacy.adaptive", FL_UNIT_CLIENT, FL_RELEASE_BIT,
     "whether the update was within the clip, one value beside it, whoever adds the noise",
     "sqrt(C^2 + k^2) in L2 with the update, exactly, with C the round's clip and k = C / sqrt((2 "
     "adaptive.noise_multiplier / sigma)^2 - 1)",
     "none of its own: the update's Gauss(sigma) is of both"},
    {"counts", FL_UNIT_CLIENT, FL_RELEASE_COUNTS, "examples of each class, beside any strategy",
     "counts.bound in L2", "Gauss(counts.noise_multiplier)"},
    {"counts", FL_UNIT_EXAMPLE, FL_RELEASE_COUNTS, "examples of each class, beside any strategy",
     "1: an example is of one class", "Gauss(counts.noise_multiplier)"},
    {"descriptor", FL_UNIT_CLIENT, FL_RELEASE_DESCRIPTOR,
     "mean moments of features and targets, beside a strategy with bubbles", "1 in L2, clipped",
     "Gauss(descriptor.noise_multiplier)"},
    {"descriptor", FL_UNIT_EXAMPLE, FL_RELEASE_DESCRIPTOR,
     "sum over examples of their moments, beside a strategy with bubbles",
     "1 in L2, as each example's vector is clipped to 1", "Gauss(descriptor.noise_multiplier)"},
    {"score", FL_UNIT_CLIENT, FL_RELEASE_SCORE,
     "score of the model a site would be served, beside any strategy", "1: it is between 0 and 1",
     "Gauss(score.noise_multiplier)"},
    {"score", FL_UNIT_EXAMPLE, FL_RELEASE_SCORE,
     "score of the model a site would be served, beside any strategy",
     "1: it is between 0 and 1, and may hang on one example", "Gauss(score.noise_multiplier)"},
    {"local", FL_UNIT_CLIENT, FL_RELEASE_NOTHING, "nothing", "0", "none"},
    {"local", FL_UNIT_EXAMPLE, FL_RELEASE_NOTHING, "nothing", "0", "none"},
    SINGLES_OF("pfedhn", "the whole model"),
    SINGLES_OF("cfl", "what travels in a bubble"),
    SINGLES_OF("fesem", "what travels in a bubble"),
    SINGLES_OF("flhc", "what travels in a bubble"),
    SINGLES_OF("pacfl", "what travels in a bubble"),
};

const struct fl_release_row *fl_release_row_at(uint32_t i)
{
    return i < sizeof rows / sizeof rows[0] ? &rows[i] : NULL;
}

static enum fl_release_kind kind_of(const struct fl_plan *plan)
{
    if (plan->layout.shared.elements == 0) {
        return FL_RELEASE_NOTHING;
    }
    if (plan->privacy.noise == FL_NOISE_DISTRIBUTED) {
        return FL_RELEASE_MASKED;
    }
    if (plan->privacy.unit == FL_UNIT_EXAMPLE) {
        return FL_RELEASE_STEPS;
    }
    if (plan->privacy.noise == FL_NOISE_LOCAL) {
        return FL_RELEASE_UPDATE;
    }
    return plan->privacy.tree ? FL_RELEASE_TREE : FL_RELEASE_SUM;
}

int fl_release_row(const struct fl_plan *plan, const struct fl_release_row **ret, struct fl_err *e)
{
    enum fl_release_kind kind = kind_of(plan);
    const struct fl_release_row *row;

    if (plan->privacy.unit == FL_UNIT_NONE) {
        *ret = NULL;
        return 0;
    }
    for (uint32_t i = 0; (row = fl_release_row_at(i)) != NULL; i++) {
        if (strcmp(row->strategy, plan->strategy) == 0 && row->unit == plan->privacy.unit &&
            row->kind == kind) {
            *ret = row;
            return 0;
        }
    }
    return fl_fail(e, FL_R_PLAN_PRIVACY,
                   "strategy %s has no row in the table of releases for this unit and place of the "
                   "noise: what it releases is not accounted for, so no epsilon can be stated",
                   plan->strategy);
}

bool fl_release_summed(const struct fl_plan *plan)
{
    const struct fl_release_row *row;

    for (uint32_t i = 0; (row = fl_release_row_at(i)) != NULL; i++) {
        if (strcmp(row->strategy, plan->strategy) == 0 && row->kind == FL_RELEASE_SUM) {
            return true;
        }
    }
    return false;
}

int fl_release_event(const struct fl_plan *plan, struct fl_event *ret, struct fl_err *e)
{
    const struct fl_privacy_conf *p = &plan->privacy;
    const struct fl_release_row *row = NULL;
    struct fl_event event = {.q = 1, .sigma = p->noise_multiplier};
    int r = fl_release_row(plan, &row, e);

    if (r < 0) {
        return r;
    }
    if (row) {
        switch (row->kind) {
        case FL_RELEASE_NOTHING:
            event.sigma = 0;
            break;
        case FL_RELEASE_UPDATE:
        case FL_RELEASE_COUNTS:
        case FL_RELEASE_EMBEDDING:
        case FL_RELEASE_DESCRIPTOR:
        case FL_RELEASE_SCORE:
        case FL_RELEASE_SUM:
        case FL_RELEASE_BIT:
            event.count = 1;
            break;
        case FL_RELEASE_MASKED: /* of the unit example: one step */
            event.q = p->unit == FL_UNIT_EXAMPLE ? p->sampling_rate : 1;
            event.count = 1;
            break;
        case FL_RELEASE_STEPS:
            event.q = p->sampling_rate;
            event.count = plan->train.steps;
            break;
        case FL_RELEASE_TREE:
            event.mechanism = FL_MECHANISM_TREE;
            event.a = p->tree;
            event.count = 1;
            break;
        }
    } else {
        event.sigma = 0;
    }
    *ret = event;
    return 0;
}

int fl_release_total(const struct fl_plan *plan, double sigma,
                     struct fl_event ret[FL_RELEASE_EVENTS_MAX], uint32_t *ret_count,
                     struct fl_err *e)
{
    const struct fl_counts_conf *c = &plan->counts;
    struct fl_event event = {0};
    int r = fl_release_event(plan, &event, e);

    if (r < 0) {
        return r;
    }
    /* Of a tree a site is part once; the last one may be cut short. */
    event.count *= event.mechanism == FL_MECHANISM_TREE
                       ? (plan->rounds + plan->privacy.tree - 1) / plan->privacy.tree
                       : plan->rounds;
    event.sigma = event.count ? sigma : 0;
    ret[0] = event;
    *ret_count = 1;
    if (c->noise_multiplier > 0) { /* in the first round, and each `every` after it */
        ret[(*ret_count)++] =
            (struct fl_event){.q = 1,
                              .sigma = c->noise_multiplier,
                              .count = 1 + (c->every ? (plan->rounds - 1) / c->every : 0)};
    }
    if (fl_fedka_collects(plan) && plan->privacy.unit != FL_UNIT_NONE) { /* in each round */
        ret[(*ret_count)++] = (struct fl_event){
            .q = 1, .sigma = plan->setting.fedka.noise_multiplier, .count = plan->rounds};
    }
    if (plan->descriptor.on && plan->descriptor.noise_multiplier > 0) {
        ret[(*ret_count)++] = (struct fl_event){
            .q = 1, .sigma = plan->descriptor.noise_multiplier, .count = fl_descriptor_times(plan)};
    }
    if (plan->score.on && plan->score.noise_multiplier > 0) { /* in the last round */
        ret[(*ret_count)++] =
            (struct fl_event){.q = 1, .sigma = plan->score.noise_multiplier, .count = 1};
    }
    return 0;
}

const char *fl_release_adversary(const struct fl_plan *plan)
{
    switch (plan->privacy.noise) {
    case FL_NOISE_CENTRAL:
        return "everyone but the coordinator, who sees updates without noise";
    case FL_NOISE_DISTRIBUTED:
        return "everyone, the coordinator too, together with at most the part of the members that "
               "secure_aggregation.corrupt says";
    default:
        return "everyone who sees uploads, the coordinator too";
    }
}

const char *fl_release_neighbours(const struct fl_plan *plan)
{
    if (plan->privacy.unit == FL_UNIT_EXAMPLE) {
        return "one example of a site added or removed, all others in their places (of no matter "
               "at "
               "sites that deal rows by hash)";
    }
    return plan->privacy.noise != FL_NOISE_LOCAL
               ? "one site's updates replaced by nothing (how many took part is public)"
               : "one site added or removed";
}
