/*
 * `selftest attack`: what an attacker makes of what this job's sites would send, at this machine,
 * before anybody takes part (server/ctl/attack). Each attack runs with the job's noise, where it is
 * to fail, and without, where it is to succeed: else it says nothing. Beside them stands what
 * nothing at all would give: a flat grey picture, a coin.
 */
#include "common/base/mem.h"
#include "common/plan/releases.h"
#include "common/privacy/accountant.h"
#include "server/ctl/attack/attack.h"
#include "server/ctl/cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PICTURES = 8, PICTURES_LARGE = 4, TRIALS = 120, TRIALS_LARGE = 40 };
#define GREY_SLACK_DB  1.0 /* what noise may leave above flat grey */
#define LIMIT_SLACK_DB 3.0 /* how near to what the grid allows the attack comes without noise */
#define AUC_POWER      0.75

struct findings {
    const struct fl_plan *plan;
    bool noised;
    double claimed;
    struct fl_attack_dense dense;
    const char *no_inversion, *no_imprint, *no_poisoning;
    struct fl_inversion inverted[2]; /* as configured, noise off */
    struct fl_imprint imprinted[2];
    struct fl_membership member[2];
    struct fl_poisoning poison;
};

static const double factors[2] = {1, 0};

static int claim_of(struct findings *f, struct fl_err *e)
{
    struct fl_event events[FL_RELEASE_EVENTS_MAX];
    enum fl_bound bound;
    uint32_t count = 0;
    int r = fl_release_total(f->plan, f->plan->privacy.noise_multiplier, events, &count, e);

    return r ? r : fl_epsilon(events, 1, f->plan->privacy.delta, &f->claimed, &bound, e);
}

static int examine(struct fl_attack *a, uint64_t count, struct findings *f, struct fl_err *e)
{
    bool large = f->plan->layout.shared.elements > (1u << 20);
    uint32_t pictures = large ? PICTURES_LARGE : PICTURES;
    uint32_t trials = count ? (uint32_t)count : large ? TRIALS_LARGE : TRIALS;
    bool dense = fl_attack_find_dense(a, &f->dense, &f->no_inversion), trap = false;
    int r = f->noised ? claim_of(f, e) : 0;

    f->no_imprint = f->no_inversion;
    if (dense) {
        trap = fl_attack_can_imprint(a, &f->dense, &f->no_imprint);
    }
    for (int k = f->noised ? 0 : 1; r == 0 && k < 2; k++) {
        if (dense) {
            r = fl_attack_invert(a, &f->dense, pictures, factors[k], &f->inverted[k], e);
        }
        if (r == 0 && trap) {
            r = fl_attack_imprint(a, &f->dense, PICTURES, factors[k], &f->imprinted[k], e);
        }
        r = r ? r : fl_attack_membership(a, trials, factors[k], &f->member[k], e);
    }
    if (fl_attack_classes(a) < 2) {
        f->no_poisoning = "the network predicts numbers";
    } else if (r == 0) {
        r = fl_attack_poison(a, &f->poison, e);
    }
    return r;
}

/* ---- what it means ---- */

static bool grey_holds(const struct findings *f)
{
    return f->no_inversion || f->inverted[0].gain <= GREY_SLACK_DB;
}

static bool imprint_holds(const struct findings *f)
{
    return f->no_imprint || f->imprinted[0].found == 0;
}

static bool member_holds(const struct findings *f)
{
    return f->member[0].audit.lower <= f->claimed;
}

static bool has_power(const struct findings *f)
{
    return (f->no_inversion || f->inverted[1].psnr >= f->inverted[1].limit - LIMIT_SLACK_DB) &&
           f->member[1].auc > AUC_POWER;
}

static int verdict(const struct findings *f, struct fl_err *e)
{
    if (!has_power(f)) {
        return fl_fail(e, FL_R_ACCOUNTING,
                       "without noise the attacks find too little: they are too weak to say "
                       "anything of this job");
    }
    if (!f->noised) {
        return 0;
    }
    if (!grey_holds(f)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "a site's input is recognised %.3g dB better than flat grey: the noise is "
                       "too small",
                       f->inverted[0].gain);
    }
    if (!imprint_holds(f)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "a malicious coordinator reads %u of %u inputs: the noise is too small",
                       f->imprinted[0].found, f->imprinted[0].pictures);
    }
    return member_holds(f) ? 0
                           : fl_fail(e, FL_R_PLAN_PRIVACY,
                                     "epsilon is above %.4g, but %.4g is claimed: the mechanism is "
                                     "broken",
                                     f->member[0].audit.lower, f->claimed);
}

/* ---- as a document ---- */

static json_t *inversion_json(const struct findings *f)
{
    const struct fl_inversion *on = &f->inverted[0], *off = &f->inverted[1];

    if (f->no_inversion) {
        return json_pack("{ss}", "not_run", f->no_inversion);
    }
    json_t *o =
        json_pack("{ss ss sI s{sf sf sf}}", "layer", f->dense.name, "of",
                  f->dense.direct ? "input" : "features", "pictures", (json_int_t)off->pictures,
                  "noise_off", "psnr", off->psnr, "grey", off->grey, "limit", off->limit);
    if (f->noised) {
        json_object_set_new(o, "as_configured",
                            json_pack("{sf sf sf}", "psnr", on->psnr, "grey", on->grey,
                                      "most_above_grey", on->gain));
    }
    return o;
}

static json_t *imprint_json(const struct findings *f)
{
    const struct fl_imprint *on = &f->imprinted[0], *off = &f->imprinted[1];

    if (f->no_imprint) {
        return json_pack("{ss}", "not_run", f->no_imprint);
    }
    json_t *o = json_pack("{sI sb s{sI sf sf}}", "pictures", (json_int_t)off->pictures,
                          "agents_refuse", off->refused, "noise_off", "found",
                          (json_int_t)off->found, "best", off->best, "grey", off->grey);
    if (f->noised) {
        json_object_set_new(o, "as_configured",
                            json_pack("{sI sf sf}", "found", (json_int_t)on->found, "best",
                                      on->best, "grey", on->grey));
    }
    return o;
}

static json_t *guesses_json(const struct fl_membership *m)
{
    return json_pack("{sf sf}", "auc", m->auc, "epsilon_lower", m->audit.lower);
}

static json_t *report_json(const struct findings *f)
{
    const struct fl_poisoning *p = &f->poison;
    json_t *o = json_pack("{ss ss so so}", "job", f->plan->name, "adversary",
                          f->noised ? fl_release_adversary(f->plan) : "everyone who sees uploads",
                          "inversion", inversion_json(f), "imprint", imprint_json(f));
    json_t *member =
        json_pack("{sI sI so}", "trials", (json_int_t)f->member[1].trials, "others",
                  (json_int_t)f->member[1].others, "noise_off", guesses_json(&f->member[1]));

    if (f->noised) {
        json_object_set_new(member, "as_configured", guesses_json(&f->member[0]));
        json_object_set_new(o, "epsilon_claimed", json_real(f->claimed));
    }
    json_object_set_new(o, "membership", member);
    json_object_set_new(o, "poisoning",
                        f->no_poisoning
                            ? json_pack("{ss}", "not_run", f->no_poisoning)
                            : json_pack("{sI sI sf sf sf sf sf}", "members", (json_int_t)p->members,
                                        "rounds", (json_int_t)p->rounds, "accuracy_clean", p->clean,
                                        "accuracy_label_flip", p->flip, "accuracy_scaling",
                                        p->scaling, "backdoor_without", p->backdoor_clean,
                                        "backdoor", p->backdoor));
    json_object_set_new(o, "noised", json_boolean(f->noised));
    json_object_set_new(o, "holds",
                        f->noised
                            ? json_boolean(grey_holds(f) && imprint_holds(f) && member_holds(f))
                            : json_null());
    json_object_set_new(o, "has_power", json_boolean(has_power(f)));
    return o;
}

/* ---- for people ---- */

static void print_inversion(const struct findings *f)
{
    const struct fl_inversion *on = &f->inverted[0], *off = &f->inverted[1];

    if (f->no_inversion) {
        fl_cli_row("inversion", "not run: %s", f->no_inversion);
        return;
    }
    fl_cli_row(
        "inversion", "one input from a step's release, by layer %s%s; %u of them", f->dense.name,
        f->dense.direct ? "" : " (what is found are its features, scaled to 0..1)", off->pictures);
    if (f->noised) {
        fl_cli_row("  as configured", "%.1f dB; flat grey %.1f; the best one %+.1f above its grey",
                   on->psnr, on->grey, on->gain);
    }
    fl_cli_row("  noise off", "%.1f dB; the grid allows %.1f", off->psnr, off->limit);
}

static void print_imprint(const struct findings *f)
{
    const struct fl_imprint *on = &f->imprinted[0], *off = &f->imprinted[1];

    if (f->no_imprint) {
        fl_cli_row("imprint", "not run: %s", f->no_imprint);
        return;
    }
    fl_cli_row("imprint", "a coordinator's trap, a batch of %u; agents %s it", off->pictures,
               off->refused ? "refuse" : "do not notice");
    if (f->noised) {
        fl_cli_row("  as configured", "%u above 30 dB; the best one %.1f, its grey %.1f", on->found,
                   on->best, on->grey);
    }
    fl_cli_row("  noise off", "%u above 30 dB; the best one %.1f, its grey %.1f", off->found,
               off->best, off->grey);
}

static void print_report(const struct findings *f)
{
    const struct fl_poisoning *p = &f->poison;

    fl_cli_row("job", "%s; seen by %s", f->plan->name,
               f->noised ? fl_release_adversary(f->plan) : "everyone who sees uploads, un-noised");
    print_inversion(f);
    print_imprint(f);
    fl_cli_row("membership", "one input among %u others; %u batches; a coin has 0.5",
               f->member[1].others, f->member[1].trials);
    if (f->noised) {
        fl_cli_row("  as configured", "area under the curve %.3f; epsilon is above %.3g of %.4g",
                   f->member[0].auc, f->member[0].audit.lower, f->claimed);
    }
    fl_cli_row("  noise off", "area under the curve %.3f; epsilon is above %.3g", f->member[1].auc,
               f->member[1].audit.lower);
    if (f->no_poisoning) {
        fl_cli_row("poisoning", "not run: %s", f->no_poisoning);
        return;
    }
    fl_cli_row("poisoning", "one of %u members of a mean, %u rounds, noise off", p->members,
               p->rounds);
    fl_cli_row("  nobody", "accuracy %.3f", p->clean);
    fl_cli_row("  label flip", "accuracy %.3f", p->flip);
    fl_cli_row("  scaling", "accuracy %.3f", p->scaling);
    fl_cli_row("  backdoor", "the mark works on %.3f; without the member on %.3f", p->backdoor,
               p->backdoor_clean);
}

int fl_cli_selftest_attack(struct fl_cli *c)
{
    struct fl_plan *plan = NULL;
    struct fl_attack *a = NULL;
    uint64_t seed = 0, count = 0;
    int status = fl_cli_count(c, "seed", 1, UINT64_MAX >> 1, 0, &seed);

    status = status ? status : fl_cli_count(c, "count", 32, 100000, 0, &count);
    status = status ? status : fl_cli_job_plan(c, &plan);
    struct findings f = {.plan = plan};
    if (status == 0 && plan->layout.shared.elements == 0) {
        status = fl_fail(&c->err, FL_R_PLAN_STRATEGY, "%s: nothing leaves a site", plan->name);
    }
    f.noised = status == 0 && plan->privacy.unit != FL_UNIT_NONE;
    status = status ? status : fl_attack_new(plan, seed, &a, &c->err);
    status = status ? status : examine(a, count, &f, &c->err);
    if (status == 0 && c->json) {
        json_t *doc = report_json(&f);
        fl_cli_print_json(doc);
        json_decref(doc);
    } else if (status == 0) {
        print_report(&f);
    }
    status = status ? status : verdict(&f, &c->err);
    fl_attack_free(a);
    fl_free(plan);
    return status;
}
