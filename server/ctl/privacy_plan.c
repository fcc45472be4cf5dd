/*
 * `privacy plan`: what a job's noise does and costs, before anything is spent. The prediction is a
 * model (common/privacy/worth.h) and says so: it is there to stop jobs that cannot work, not to
 * promise that others will.
 */
#include "common/base/mem.h"
#include "common/plan/adaptive.h"
#include "common/plan/plan.h"
#include "common/plan/releases.h"
#include "common/plan/secure.h"
#include "common/privacy/accountant.h"
#include "common/privacy/worth.h"
#include "server/ctl/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static const char *const assumptions[] = {
    "every unit pulls the optimum about by at most the clip, independently",
    "all sites look for the same optimum (where they differ, joining is worth less)",
    "every noised coordinate matters equally (if fewer do, compare with break_even_dimensions)",
    "learning averages over all releases of the job",
};

struct forecast {
    const struct fl_plan *plan;
    struct fl_event events[FL_RELEASE_EVENTS_MAX], event;
    uint32_t event_count;
    struct fl_worth_question question;
    struct fl_worth worth;
    double epsilon, adaptive;
    enum fl_bound bound, adaptive_bound;
};

static int predict(struct fl_cli *c, struct forecast *f)
{
    const struct fl_plan *p = f->plan;
    const struct fl_privacy_conf *v = &p->privacy;
    bool example = v->unit == FL_UNIT_EXAMPLE;
    uint64_t given = 0, examples = 0;
    int status = fl_cli_count(c, "dimensions", 1, (uint64_t)1 << 40, 0, &given);

    status =
        status ? status : fl_cli_count(c, "examples", 1, (uint64_t)1 << 40, v->examples, &examples);
    if (status) {
        return status;
    }
    size_t noised = example ? p->layout.theta.elements : p->layout.shared.elements;
    f->question = (struct fl_worth_question){
        .dimensions = given ? (double)given : (double)noised,
        .units = example ? (double)examples : 1,
        .q = example ? v->sampling_rate : 1,
        .sigma = v->noise_multiplier,
        .releases = p->rounds * (example ? p->train.steps : 1),
        .in_an_upload = example ? p->train.steps : 1,
        .members = p->round.members,
    };
    status = fl_release_total(p, v->noise_multiplier, f->events, &f->event_count, &c->err);
    f->event = f->events[0];
    if (status == 0 && fl_event_is_void(&f->event)) {
        status = fl_fail(&c->err, FL_R_PLAN_PRIVACY, "%s: nothing travels under strategy %s",
                         p->name, p->strategy);
    }
    if (status) {
        return status;
    }
    f->question.central = v->noise != FL_NOISE_LOCAL; /* once on the sum, or all members' parts */
    if (v->noise == FL_NOISE_DISTRIBUTED) {
        f->question.sigma *= sqrt((double)p->round.members / fl_plan_noise_sharers(p));
    }
    if (v->tree) { /* what is left in the sum of all rounds, spread over them */
        f->question.sigma *=
            sqrt(ceil(log2(v->tree + 1.0)) * (double)f->event.count / (double)f->question.releases);
    }
    status = fl_delta_check(v->delta, example ? (double)examples : p->round.members, &c->err);
    status = status ? status : fl_worth(&f->question, &f->worth, &c->err);
    status = status ? status
                    : fl_epsilon(f->events, f->event_count, v->delta, &f->adaptive,
                                 &f->adaptive_bound, &c->err);
    status = status ? status
                    : fl_epsilon_frozen(f->events, f->event_count, v->delta, &f->epsilon, NULL,
                                        &f->bound, &c->err);
    if (status == 0 && !isfinite(f->adaptive)) {
        status = fl_fail(&c->err, FL_R_ACCOUNTING, "no finite epsilon holds for this job");
    }
    return status;
}

static json_t *assumptions_json(void)
{
    json_t *list = json_array();

    for (size_t i = 0; i < FL_COUNT(assumptions); i++) {
        json_array_append_new(list, json_string(assumptions[i]));
    }
    return list;
}

/* Of adaptive clipping: what is left of the noise for the update, as the bits have a part of it. */
static double update_multiplier(const struct fl_privacy_conf *v)
{
    double ratio = fl_adaptive_ratio(v);

    return v->noise_multiplier * sqrt(1 + ratio * ratio);
}

static json_t *document(const struct forecast *f)
{
    const struct fl_privacy_conf *v = &f->plan->privacy;
    const struct fl_worth *w = &f->worth;
    bool example = v->unit == FL_UNIT_EXAMPLE;

    json_t *o = json_pack(
        "{ss ss ss ss ss sf sf sf sf sI sf ss sf ss sf sf sI s{sf sf sf} s{sb sf so so}}", "job",
        f->plan->name, "strategy", f->plan->strategy, "unit", example ? "example" : "client",
        "neighbours", fl_release_neighbours(f->plan), "adversary", fl_release_adversary(f->plan),
        "clip", v->clip, "noise_multiplier", v->noise_multiplier, "delta", v->delta, "q",
        f->event.q, "releases", (json_int_t)f->event.count, "epsilon_adaptive", f->adaptive,
        "bound_adaptive", fl_bound_name(f->adaptive_bound), "epsilon", f->epsilon, "bound",
        fl_bound_name(f->bound), "dimensions", f->question.dimensions, "units_per_site",
        f->question.units, "members", (json_int_t)f->question.members, "noise_to_signal", "upload",
        w->upload, "mean", w->mean, "job", w->job, "prediction", "alone_wins", w->ratio > 1,
        "squared_error_joined_over_alone", w->ratio, "break_even_dimensions",
        isfinite(w->break_even) ? json_real(w->break_even) : json_null(), "assumptions",
        assumptions_json());
    if (v->adaptive.on) {
        const struct fl_adaptive_conf *a = &v->adaptive;
        json_object_set_new(o, "adaptive",
                            json_pack("{sf sf sf sf sf sf}", "quantile", a->quantile, "rate",
                                      a->rate, "min", a->min, "max", a->max, "noise_multiplier",
                                      a->noise_multiplier, "update_noise_multiplier",
                                      update_multiplier(v)));
    }
    return o;
}

static void print_text(const struct forecast *f)
{
    const struct fl_privacy_conf *v = &f->plan->privacy;
    const struct fl_worth *w = &f->worth;
    bool example = v->unit == FL_UNIT_EXAMPLE;

    fl_cli_row("job", "%s: %s, %" PRIu64 " rounds, %" PRIu32 " members", f->plan->name,
               f->plan->strategy, f->plan->rounds, f->plan->round.members);
    fl_cli_row("unit", "%s; neighbours: %s", example ? "example" : "client",
               fl_release_neighbours(f->plan));
    fl_cli_row("adversary", "%s", fl_release_adversary(f->plan));
    fl_cli_row("releases", "%" PRIu64 " with noise multiplier %g, clip %g, rate %g", f->event.count,
               v->noise_multiplier, v->clip, f->event.q);
    if (v->adaptive.on) {
        const struct fl_adaptive_conf *a = &v->adaptive;
        fl_cli_row("", "clip adaptive: %g at first, then towards the %g quantile, %g to %g",
                   v->clip, a->quantile, a->min, a->max);
        fl_cli_row("", "of that noise multiplier %.6g is of updates and %g of the bits",
                   update_multiplier(v), a->noise_multiplier);
    }
    fl_cli_row("epsilon", "%.6g at delta %g (bound %s): what sites' ledgers keep", f->adaptive,
               v->delta, fl_bound_name(f->adaptive_bound));
    fl_cli_row("", "%.6g if exactly this job runs and nothing else (bound %s)", f->epsilon,
               fl_bound_name(f->bound));
    fl_cli_row("noise:signal", "%.4g in a site's upload", w->upload);
    fl_cli_row("", "%.4g in the mean of a round's %" PRIu32 " members", w->mean,
               f->question.members);
    fl_cli_row("", "%.4g in the mean over the whole job", w->job);
    fl_cli_row("",
               "(norm of the noise in %.0f dimensions over the largest signal the clip lets "
               "through)",
               f->question.dimensions);
    printf("\nPrediction: squared error joined / alone %.4g%s.\n", w->ratio,
           w->ratio > 1 ? "" : "; joining is predicted to win");
    printf("Even at %.4g effective dimensions; below that joining is predicted to win.\n",
           w->break_even);
    printf("The model is a mean, not a network. It assumes that\n");
    for (size_t i = 0; i < FL_COUNT(assumptions); i++) {
        printf("  - %s\n", assumptions[i]);
    }
}

static int answer(struct fl_cli *c, const struct fl_plan *plan)
{
    struct forecast f = {.plan = plan};

    if (plan->privacy.unit == FL_UNIT_NONE) {
        return fl_fail(&c->err, FL_R_PLAN_PRIVACY,
                       "%s has privacy unit none: no noise, and no epsilon holds for it",
                       plan->name);
    }
    int status = predict(c, &f);
    if (status) {
        return status;
    }
    if (c->json) {
        json_t *o = document(&f);
        fl_cli_print_json(o);
        json_decref(o);
    } else {
        print_text(&f);
    }
    if (f.worth.ratio > 1) {
        fprintf(stderr,
                "cohortctl: warning: staying alone is predicted to win: noise makes the joined "
                "error %.3g times that of a site alone (as long as more than %.3g dimensions "
                "count)\n",
                f.worth.ratio, f.worth.break_even);
    }
    return 0;
}

int fl_cli_privacy_plan(struct fl_cli *c)
{
    struct fl_plan *plan = NULL;
    int status = fl_cli_job_plan(c, &plan);

    if (status == 0) {
        status = answer(c, plan);
    }
    fl_free(plan);
    return status;
}
