/*
 * Rules between keys. Those about privacy are the ones of ARCHITECTURE.md ("Privacy, where it is
 * easy to be wrong"): a job that asks for a claim which its own training would break is refused at
 * submission, and again by every agent, with the reason in words.
 */
#include "common/plan/plan_check.h"

#include "common/math/narrow.h"

#include "common/math/grid.h"
#include "common/plan/adaptive.h"
#include "common/plan/releases.h"
#include "common/plan/secure.h"
#include "common/privacy/accountant.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const struct fl_conf_node *fl_plan_at(const struct fl_conf_node *root, const char *path)
{
    char up[FL_CONF_KEY_MAX];
    const struct fl_conf_node *n;

    snprintf(up, sizeof up, "%s", path);
    while (!(n = fl_conf_find(root, up))) {
        char *dot = strrchr(up, '.');
        if (!dot) {
            return root;
        }
        *dot = 0;
    }
    return n;
}

static int check_name(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    bool good = isalnum((unsigned char)p->name[0]);

    for (const char *c = p->name; *c; c++) {
        good = good && (isalnum((unsigned char)*c) || *c == '-' || *c == '_' || *c == '.');
    }
    return good ? 0
                : fl_conf_fail(e, fl_plan_at(root, "name"), FL_R_CONF_RANGE,
                               "a name has letters, digits, '-', '_' and '.', and begins with a "
                               "letter or digit");
}

static int check_round(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_round_conf *r = &p->round;
    const struct fl_grid g = {p->grid.bits, p->grid.step};

    if (r->quorum > r->members) {
        return fl_conf_fail(e, fl_plan_at(root, "round.quorum"), FL_R_CONF_CONFLICT,
                            "%u is more than members (%u)", r->quorum, r->members);
    }
    if (p->grid.narrow &&
        (!fl_narrow_is(p->grid.narrow) || p->grid.bits != FL_NARROW_FROM ||
         p->layout.shared.elements < 8 || p->secure.on || p->privacy.noise != FL_NOISE_LOCAL)) {
        return fl_conf_fail(e, fl_plan_at(root, "grid.narrow"), FL_R_CONF_CONFLICT,
                            "%u: 4 or 6, of bits: 8 and 8 values or more; neither with "
                            "secure_aggregation nor with noise "
                            "on the sum, whose bound a second rounding may exceed",
                            p->grid.narrow);
    }
    if (!fl_grid_sum_fits(&g, p->max_weight, r->members + r->over_select)) {
        return fl_conf_fail(e, fl_plan_at(root, "grid.bits"), FL_R_PLAN_OVERFLOW,
                            "sums of %u updates of %u bits with weights up to %u do not fit in 62 "
                            "bits",
                            r->members + r->over_select, g.bits, p->max_weight);
    }
    return 0;
}

/* The table gives what the model takes. */
static int check_table(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const uint32_t *in = p->layout.spec.input;
    const struct fl_schema *s = &p->data.schema;
    size_t takes = (size_t)in[0] * in[1] * in[2], gives = fl_schema_example(s);

    if (takes != gives) {
        return fl_conf_fail(e, fl_plan_at(root, "model.input"), FL_R_CONF_CONFLICT,
                            "the model takes %zu numbers, the table has %u columns' %zu", takes,
                            s->count, gives);
    }
    if ((s->target.kind == FL_COLUMN_CATEGORY) == (p->layout.spec.classes == 0)) {
        return fl_conf_fail(e, fl_plan_at(root, "model"), FL_R_CONF_CONFLICT,
                            "the table's target is %s, the model predicts %s",
                            p->layout.spec.classes ? "a number" : "a category",
                            p->layout.spec.classes ? "classes" : "numbers");
    }
    if (s->target.kind == FL_COLUMN_CATEGORY && s->target.values != p->layout.spec.classes) {
        return fl_conf_fail(e, fl_plan_at(root, "model.classes"), FL_R_CONF_CONFLICT,
                            "%u, but the table's target has %u values", p->layout.spec.classes,
                            s->target.values);
    }
    return fl_plan_check_input(p, root, e);
}

static int check_data(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    uint32_t n = p->data.channels, channels = p->layout.spec.input[0];

    if (n > 1 && n != channels) {
        return fl_conf_fail(e, fl_plan_at(root, "data.mean"), FL_R_CONF_CONFLICT,
                            "%u numbers for an input of %u channels", n, channels);
    }
    if ((p->data.crop || p->data.flip) && p->layout.spec.input[2] == 1) {
        return fl_conf_fail(e, fl_plan_at(root, p->data.crop ? "data.crop" : "data.flip"),
                            FL_R_CONF_CONFLICT, "the inputs are no images");
    }
    return p->data.schema.count ? check_table(p, root, e) : 0;
}

static int check_train(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    if (p->train.optimizer != FL_OPTIM_SGD && p->layout.generated > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "train.optimizer"), FL_R_CONF_CONFLICT,
                            "a hypernetwork is trained by sgd");
    }
    if (p->train.optimizer != FL_OPTIM_SGD && p->setting.steps > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "train.optimizer"), FL_R_CONF_CONFLICT,
                            "how much a step of sgd counts is known, of others it is not: under "
                            "fednova the optimizer is sgd");
    }
    if (p->train.epochs == 0 && p->train.steps == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "train.epochs"), FL_R_CONF_CONFLICT,
                            "epochs and steps are both 0: nothing would be trained");
    }
    return 0;
}

static int missing(const struct fl_conf_node *root, const char *section, const char *key,
                   const char *unit, struct fl_err *e)
{
    return fl_conf_fail_key(e, fl_plan_at(root, section), FL_R_CONF_MISSING,
                            "%s is missing: the unit %s needs it", key, unit);
}

/* Grid and privacy meet here: without a grid section the message points at the other. */
static const struct fl_conf_node *grid_at(const struct fl_conf_node *root, const char *key)
{
    return fl_plan_at(root, fl_conf_find(root, "grid") ? key : "privacy.clip");
}

/* The update of a whole site must fit the grid with its noise, or saturation would eat the noise.
 */
static int check_client(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_grid g = {p->grid.bits, p->grid.step};
    const struct fl_privacy_conf *v = &p->privacy;
    double step = ldexp(1, g.step), most = (double)fl_grid_max(&g) * step;
    /* Of every round: the least clip has its noise on the grid, and the greatest fits it. */
    double least = v->adaptive.on ? v->adaptive.min : v->clip;
    double clip = v->adaptive.on ? v->adaptive.max : v->clip;

    if (least < step) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.clip"), FL_R_PLAN_PRIVACY,
                            "%g is below one step of the grid (%g)", least, step);
    }
    if (v->noise_multiplier == 0) {
        return 0;
    }
    double ratio = fl_adaptive_ratio(v);
    if (v->adaptive.on && ratio * floor(least / step) < 1) {
        return fl_conf_fail(e, grid_at(root, "grid.step"), FL_R_PLAN_PRIVACY,
                            "with a clip of %g the bit beside it (%.4g) is below one step (%.4g): "
                            "lower step",
                            least, ratio * least, step);
    }
    if (v->noise == FL_NOISE_CENTRAL) { /* the update has none */
        if (clip > most) {
            return fl_conf_fail(e, grid_at(root, "grid.bits"), FL_R_PLAN_OVERFLOW,
                                "the grid holds values up to %.4g, the clip is %.4g: raise bits or "
                                "step",
                                most, clip);
        }
        if (v->noise_multiplier * floor(least / step) < 4) {
            return fl_conf_fail(e, grid_at(root, "grid.step"), FL_R_PLAN_PRIVACY,
                                "the noise is below 4 steps (%.4g each): lower step", step);
        }
        return 0;
    }
    double own = v->noise_multiplier,
           both = sqrt(1 + ratio * ratio);  /* the bit has its noise, too */
    if (v->noise == FL_NOISE_DISTRIBUTED) { /* cut noise would no longer add up: none is cut */
        own = fl_plan_own_multiplier(p);
        double reach = clip + 14 * own * both * clip + step;
        if (reach > most) {
            return fl_conf_fail(e, grid_at(root, "grid.bits"), FL_R_PLAN_OVERFLOW,
                                "the grid holds values up to %.4g, but clip and the largest noise "
                                "of one member reach %.4g: raise bits or step",
                                most, reach);
        }
        if (own * floor(least / step) < 4) {
            return fl_conf_fail(e, grid_at(root, "grid.step"), FL_R_PLAN_PRIVACY,
                                "each member's part of the noise is below 4 steps (%.4g each): "
                                "lower step",
                                step);
        }
    }
    double wanted = clip + 8 * own * both * clip;
    if (wanted > most) {
        return fl_conf_fail(e, grid_at(root, "grid.bits"), FL_R_PLAN_OVERFLOW,
                            "the grid holds values up to %.4g, but clip and 8 sigma of noise reach "
                            "%.4g: raise bits or step",
                            most, wanted);
    }
    if (own * least < step / 4) {
        return fl_conf_fail(e, grid_at(root, "grid.step"), FL_R_PLAN_PRIVACY,
                            "the noise (%.4g) is below a quarter of a step (%.4g): lower step",
                            v->noise_multiplier * least, step);
    }
    return 0;
}

/* DP-SGD: everything that a later release depends on must take accounted steps. */
static int check_example(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    if (p->privacy.sampling_rate == 0) {
        return missing(root, "privacy", "sampling_rate", "example", e);
    }
    if (p->privacy.examples == 0) {
        return missing(root, "privacy", "examples", "example", e);
    }
    if (p->train.steps == 0) {
        return missing(root, "train", "steps", "example", e);
    }
    if (p->data.schema.window.steps > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "data.table.window"), FL_R_PLAN_PRIVACY,
                            "one row is in many windows: an epsilon for one window says little of "
                            "one row. Use the unit client");
    }
    if (p->trainer == FL_TRAINER_EXEC) {
        return fl_conf_fail(e, fl_plan_at(root, "trainer"), FL_R_PLAN_PRIVACY,
                            "the unit example clips and noises inside training, where nobody sees "
                            "what a program does: use the unit client, or the builtin trainer");
    }
    if (p->train.head_epochs > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "train.head.epochs"), FL_R_PLAN_PRIVACY,
                            "the unit example trains head and body in the same noised steps: a "
                            "head trained apart without noise shapes the next release, and no "
                            "epsilon covers that; leave it out (train.serve is free)");
    }
    return 0;
}

/* One example's gradient must be a function of that example alone. The mask of a dropout is drawn
 * in the order of the batch, so it also depends on who else is in it; batch norm's statistics are
 * of the batch. */
static int check_apart(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_spec *s = &p->layout.spec;
    const struct fl_layer *together = fl_spec_together(s);

    if (p->privacy.unit != FL_UNIT_EXAMPLE) {
        return 0;
    }
    if (together) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.unit"), FL_R_PLAN_PRIVACY,
                            "layer %s (line %u) is a batch norm: its statistics tie the examples "
                            "of a batch to each other, and its running ones leave without noise, "
                            "so no promise about one example holds. Use group_norm",
                            together->name, together->line);
    }
    for (uint32_t i = 0; i < s->layer_count; i++) {
        if (s->layers[i].kind == FL_LAYER_DROPOUT && s->layers[i].rate > 0) {
            return fl_conf_fail(e, fl_plan_at(root, "privacy.unit"), FL_R_PLAN_PRIVACY,
                                "layer %s (line %u) is a dropout: under the unit example masks "
                                "would tie examples to each other. Leave it out: noise regularises",
                                s->layers[i].name, s->layers[i].line);
        }
    }
    return 0;
}

/* Counts of private examples: noised, or not at all; and with room on their grid for the noise. */
static int check_counts(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_counts_conf *c = &p->counts;
    const struct fl_grid g = {FL_COUNTS_BITS, FL_COUNTS_STEP};
    double step = ldexp(1, g.step), most = (double)fl_grid_max(&g) * step;
    bool client = p->privacy.unit == FL_UNIT_CLIENT;

    if (c->noise_multiplier == 0) {
        return 0;
    }
    if (c->noise_multiplier < 0.25) { /* the grid's steps would show through */
        return fl_conf_fail(e, fl_plan_at(root, "counts.noise_multiplier"), FL_R_CONF_RANGE,
                            "%g: 0 for no counts, or 0.25 and more", c->noise_multiplier);
    }
    if (p->privacy.unit == FL_UNIT_NONE) {
        return fl_conf_fail(e, fl_plan_at(root, "counts"), FL_R_PLAN_PRIVACY,
                            "counts of examples leave a site noised and accounted: say what they "
                            "protect by privacy.unit");
    }
    if (p->layout.spec.classes == 0 ||
        (p->data.schema.count && p->data.schema.target.kind != FL_COLUMN_CATEGORY)) {
        return fl_conf_fail(e, fl_plan_at(root, "counts"), FL_R_CONF_CONFLICT,
                            "there are no classes to count");
    }
    double sigma = c->noise_multiplier * (client ? c->bound : 1);
    if (c->bound + 14 * sigma > most) {
        return fl_conf_fail(e, fl_plan_at(root, "counts.noise_multiplier"), FL_R_PLAN_OVERFLOW,
                            "bound and noise reach %.4g, more than the %.4g of the counts' grid",
                            c->bound + 14 * sigma, most);
    }
    return 0;
}

/* A multiplier that stands beside an epsilon must keep it. */
static int check_epsilon(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &p->privacy;
    bool example = v->unit == FL_UNIT_EXAMPLE;
    struct fl_event event[FL_RELEASE_EVENTS_MAX];
    enum fl_bound bound;
    double epsilon;
    uint32_t count = 0;

    int r = fl_release_total(p, v->noise_multiplier, event, &count, e);
    r = r ? r : fl_epsilon(event, count, v->delta, &epsilon, &bound, e);
    if (r) {
        return fl_wrap(e, r, "privacy");
    }
    if (epsilon > v->epsilon * (1 + 1e-9)) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.noise_multiplier"), FL_R_PLAN_PRIVACY,
                            "%g over %llu %s gives epsilon %.4g, more than %.4g",
                            v->noise_multiplier, (unsigned long long)event[0].count,
                            example ? "steps" : "rounds", epsilon, v->epsilon);
    }
    return 0;
}

/* Where the noise is added, and that what is released has a row in the table at all. */
static int check_place(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &p->privacy;
    const struct fl_release_row *row;
    struct fl_err why = {0};

    if (v->noise == FL_NOISE_CENTRAL && v->unit != FL_UNIT_CLIENT) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.noise"), FL_R_PLAN_PRIVACY,
                            "noise of the coordinator protects whole sites: unit: client");
    }
    if (v->noise == FL_NOISE_DISTRIBUTED && !p->secure.on) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.noise"), FL_R_PLAN_PRIVACY,
                            "noise that members share is too little for each of them alone: it "
                            "needs secure_aggregation");
    }
    if (v->tree && v->noise != FL_NOISE_CENTRAL) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.tree"), FL_R_PLAN_PRIVACY,
                            "a tree is over the sums of many sites: noise: central");
    }
    if (v->tree == 1) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.tree"), FL_R_PLAN_PRIVACY,
                            "a tree of one round is none: 0, or 2 and more");
    }
    if (fl_release_row(p, &row, &why) < 0) {
        return fl_conf_fail(e, fl_plan_at(root, "strategy"), FL_R_PLAN_PRIVACY, "%s", why.msg);
    }
    return 0;
}

static int check_privacy(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &p->privacy;
    bool asked = v->epsilon > 0 || v->noise_multiplier > 0;

    if (v->clipping != FL_CLIPPING_FLAT && v->unit != FL_UNIT_EXAMPLE) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.clipping"), FL_R_PLAN_PRIVACY,
                            "clipping by layer is for the unit example");
    }
    if (v->unit == FL_UNIT_NONE) {
        if (asked && !fl_conf_find(root, "privacy.unit")) {
            return fl_conf_fail_key(e, fl_plan_at(root, "privacy"), FL_R_PLAN_PRIVACY,
                                    "epsilon or noise without a unit protects nothing: say unit: "
                                    "example or client (or none, to ignore them)");
        }
        return 0;
    }
    const char *unit = v->unit == FL_UNIT_CLIENT ? "client" : "example";
    int apart = check_apart(p, root, e);
    if (apart) {
        return apart;
    }
    if (v->clip == 0) {
        return missing(root, "privacy", "clip", unit, e);
    }
    if (v->delta == 0) {
        return missing(root, "privacy", "delta", unit, e);
    }
    if (!asked) {
        return missing(root, "privacy", "epsilon (or noise_multiplier)", unit, e);
    }
    if (p->weighting != FL_WEIGHT_EQUAL) {
        return fl_conf_fail(e, fl_plan_at(root, "weights"), FL_R_PLAN_PRIVACY,
                            "weights by the number of examples tell that number: with a unit they "
                            "must be equal");
    }
    int r = v->unit == FL_UNIT_CLIENT ? check_client(p, root, e) : check_example(p, root, e);
    if (r == 0) {
        r = check_place(p, root, e);
    }
    r = r ? r : fl_plan_check_shared_step(p, root, e);
    if (r == 0) { /* with the fewest units that the job itself names */
        uint32_t units = v->unit == FL_UNIT_CLIENT ? p->round.members : v->examples;
        if (fl_delta_check(v->delta, units, e) < 0) {
            struct fl_err why = *e;
            r = fl_conf_fail(e, fl_plan_at(root, "privacy.delta"), FL_R_PLAN_PRIVACY, "%s",
                             why.msg);
        }
    }
    if (r == 0 && v->epsilon > 0 && v->noise_multiplier > 0) {
        r = check_epsilon(p, root, e);
    }
    return r;
}

int fl_plan_check(const struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e)
{
    static int (*const rules[])(const struct fl_plan *, const struct fl_conf_node *,
                                struct fl_err *) = {
        check_name,
        check_round,
        check_data,
        check_train,
        check_privacy,
        check_counts,
        fl_plan_check_score,
        fl_plan_check_secure,
        fl_plan_check_aggregate,
        fl_plan_check_personal,
        fl_plan_check_descriptor,
        fl_plan_check_bubbles,
        fl_plan_check_buffer,
        fl_plan_check_solver,
    };

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        int r = rules[i](plan, root, e);
        if (r) {
            return r;
        }
    }
    return 0;
}
