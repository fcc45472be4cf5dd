#include "common/plan/descriptor.h"

#include "common/plan/plan_check.h"

#include <math.h>
#include <string.h>

enum { STEP_OF_SUM = -12, STEP_OF_MEAN = -20, BITS = 32 };

#define TYPED(key, kind, m)                                                                        \
    .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct fl_descriptor_conf, m)

const struct fl_conf_field fl_plan_descriptor_keys[] = {
    {TYPED("noise_multiplier", DOUBLE, noise_multiplier), .max = 1e4, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("share", DOUBLE, share), .max = 0.9, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.1"},
    {TYPED("bound", DOUBLE, bound), .max = 1e6, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {TYPED("features", UINT32, features), .min = 1, .max = 4096, .fallback = "64"},
    {TYPED("every", UINT32, every), .max = 1e6, .fallback = "0"},
    {TYPED("members", UINT32, members), .max = 4096, .fallback = "0"},
    {.name = NULL},
};

/* ---- shape ---- */

bool fl_descriptor_due(const struct fl_descriptor_conf *c, uint64_t round)
{
    return c->on && (round == 1 || (c->every > 0 && (round - 1) % c->every == 0));
}

uint64_t fl_descriptor_times(const struct fl_plan *plan)
{
    const struct fl_descriptor_conf *c = &plan->descriptor;

    return !c->on ? 0 : 1 + (c->every ? (plan->rounds - 1) / c->every : 0);
}

static uint32_t inputs(const struct fl_plan *plan)
{
    const uint32_t *in = plan->layout.spec.input;

    return in[0] * in[1] * in[2]; /* at most 2^26: checked with the model */
}

uint32_t fl_descriptor_features(const struct fl_plan *plan)
{
    uint32_t n = inputs(plan);

    return n < plan->descriptor.features ? n : plan->descriptor.features;
}

uint32_t fl_descriptor_targets(const struct fl_plan *plan)
{
    const struct fl_spec *s = &plan->layout.spec;

    return s->classes ? s->classes : s->targets;
}

static bool importances(const struct fl_plan *plan)
{
    return plan->setting.bubble.variant == FL_BUBBLE_PUBLISHED;
}

size_t fl_descriptor_length(const struct fl_plan *plan)
{
    return fl_descriptor_elements(plan) - !importances(plan);
}

size_t fl_descriptor_elements(const struct fl_plan *plan)
{
    if (importances(plan)) {
        return inputs(plan);
    }
    return 1 + (size_t)(fl_descriptor_features(plan) + 1) * fl_descriptor_targets(plan);
}

double fl_descriptor_norm(const struct fl_plan *plan)
{
    double z = 1.0 + fl_descriptor_features(plan);

    return sqrt(1 + z * (plan->layout.spec.classes ? 1 : fl_descriptor_targets(plan)));
}

bool fl_descriptor_projected(const struct fl_plan *plan, struct fl_seed *ret)
{
    struct fl_seed job;

    if (inputs(plan) <= plan->descriptor.features) {
        return false;
    }
    fl_seed_from_u64(plan->seed, &job);
    fl_seed_derive(&job, "descriptor", 0, ret);
    return true;
}

struct fl_grid fl_descriptor_grid(const struct fl_plan *plan)
{
    bool sum = plan->privacy.unit == FL_UNIT_EXAMPLE;

    return (struct fl_grid){.bits = BITS, .step = sum ? STEP_OF_SUM : STEP_OF_MEAN};
}

/* ---- reading one ---- */

bool fl_descriptor_read(const struct fl_plan *plan, const int64_t *q, float *ret, double *ret_sigma)
{
    const struct fl_grid g = fl_descriptor_grid(plan);
    bool sum = plan->privacy.unit == FL_UNIT_EXAMPLE;
    double sigma = plan->privacy.unit == FL_UNIT_NONE ? 0 : plan->descriptor.noise_multiplier;
    double norm = fl_descriptor_norm(plan), examples = 1;

    for (size_t i = 0; importances(plan) && i < fl_descriptor_elements(plan); i++) {
        ret[i] = (float)ldexp((double)q[i], g.step);
    }
    if (importances(plan)) {
        *ret_sigma = 0;
        return true;
    }
    if (sum) { /* the first number counts them, with noise of sigma norm */
        examples = ldexp((double)q[0], g.step) * norm;
        if (!(examples >= 4 * sigma * norm) || examples <= 0) {
            return false;
        }
    }
    double noise = sigma * norm / examples, most = 1 + 8 * noise; /* what an honest one can say */
    for (size_t i = 1; i < fl_descriptor_elements(plan); i++) {
        double moment = ldexp((double)q[i], g.step) * norm / examples;
        ret[i - 1] = (float)fmax(-most, fmin(most, moment));
    }
    *ret_sigma = noise;
    return true;
}

/* ---- rules ---- */

int fl_descriptor_sigma(const struct fl_plan *plan, double *ret, struct fl_err *e)
{
    double one = 0; /* a single Gaussian release that would use all of epsilon */
    int r = fl_sigma_for(plan->privacy.epsilon, plan->privacy.delta, 1, 1, &one, e);

    if (r) {
        return fl_wrap(e, r, "descriptor.share");
    }
    *ret = one * sqrt((double)fl_descriptor_times(plan) / plan->descriptor.share);
    return 0;
}

int fl_plan_check_descriptor(const struct fl_plan *p, const struct fl_conf_node *root,
                             struct fl_err *e)
{
    const struct fl_descriptor_conf *c = &p->descriptor;
    const struct fl_grid g = fl_descriptor_grid(p);
    double most = ldexp((double)fl_grid_max(&g), g.step);

    if (!c->on) {
        return 0;
    }
    if (c->members > 0 && c->members < p->round.members) {
        return fl_conf_fail(e, fl_plan_at(root, "descriptor.members"), FL_R_CONF_CONFLICT,
                            "%u sites are described and %u send updates: 0, or not fewer",
                            c->members, p->round.members);
    }
    if (fl_descriptor_targets(p) == 0 || fl_descriptor_elements(p) > FL_DESCRIPTOR_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "descriptor.features"), FL_R_LIMIT,
                            "a descriptor of %u features and %u targets has %zu numbers; at most "
                            "%d",
                            fl_descriptor_features(p), fl_descriptor_targets(p),
                            fl_descriptor_elements(p), FL_DESCRIPTOR_MAX);
    }
    if (p->privacy.unit == FL_UNIT_NONE || importances(p)) {
        return 0; /* importances under a unit: refused with the strategy */
    }
    if (c->noise_multiplier == 0 && p->privacy.epsilon == 0) {
        return fl_conf_fail_key(
            e, fl_plan_at(root, "descriptor"), FL_R_CONF_MISSING,
            "descriptor.noise_multiplier is missing: with a unit they are noised, "
            "and there is no privacy.epsilon of which to take a share");
    }
    if (c->noise_multiplier > 0 &&
        (c->noise_multiplier < 0.25 || 1 + 14 * c->noise_multiplier > most)) {
        return fl_conf_fail(e, fl_plan_at(root, "descriptor.noise_multiplier"), FL_R_CONF_RANGE,
                            "%g: 0.25 to %.4g fit the descriptor's grid", c->noise_multiplier,
                            (most - 1) / 14);
    }
    return 0;
}
