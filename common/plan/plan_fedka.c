/* Settings of fedka, and what a job cannot have together with it, with the reason in words. */
#include "common/base/mem.h"
#include "common/math/rff.h"
#include "common/plan/fedka.h"
#include "common/plan/plan_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define OF                  fl_strategy_conf
#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)

static const char *const variants[] = {"better", "published", NULL};
static const char *const targets[] = {"coordinator", "site", "none", NULL};

const struct fl_conf_field fl_plan_fedka_keys[] = {
    {TYPED("variant", ENUM, fedka.variant), .words = variants, .fallback = "better"},
    {TYPED("target", ENUM, fedka.target), .words = targets, .fallback = "coordinator"},
    {TYPED("site", STRING, fedka.site), .size = FL_PLAN_NAME_MAX},
    {TYPED("matching", FLOAT, fedka.matching), .max = 1000, .fallback = "0.1"},
    {TYPED("frequencies", UINT32, fedka.frequencies), .min = FL_RFF_KERNELS, .max = 10000,
     .fallback = "250"},
    {TYPED("disentangle", FLOAT, fedka.disentangle), .max = 1000},
    {TYPED("voting", BOOL, fedka.voting)},
    {TYPED("confidence", FLOAT, fedka.confidence), .max = 1, .fallback = "0.8"},
    {TYPED("agreement", FLOAT, fedka.agreement), .max = 1, .fallback = "0.667"},
    {TYPED("examples", UINT32, fedka.examples), .min = 1, .max = 1e6, .fallback = "2048"},
    {TYPED("epochs", UINT32, fedka.epochs), .min = 1, .max = 100, .fallback = "1"},
    {TYPED("voters", UINT32, fedka.voters), .min = 2, .max = 1000, .fallback = "50"},
    {TYPED("guard", BOOL, fedka.guard), .fallback = "true"},
    {TYPED("noise_multiplier", DOUBLE, fedka.noise_multiplier), .max = 1e4, .fallback = "0"},
    {.name = NULL},
};

void fl_plan_fedka_defaults(struct fl_plan *plan)
{
    /* Only the coordinator's own data can be shown to sites, and voted on. */
    plan->setting.fedka.voting = true;
    plan->setting.fedka.disentangle = 0.1f;
}

static int refuse(const struct fl_conf_node *root, const char *key, enum fl_reason reason,
                  const char *why, struct fl_err *e)
{
    char path[80];

    snprintf(path, sizeof path, "strategy.fedka.%s", key);
    return fl_conf_fail(e, fl_plan_at(root, path), reason, "%s", why);
}

/* What was left out is off where there is no data for it; what was asked for is refused. */
static int without_data(struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_fedka_conf *c = &p->setting.fedka;

    if (fl_conf_find(root, "strategy.fedka.voting") && c->voting) {
        return refuse(root, "voting", FL_R_CONF_CONFLICT,
                      "votes are cast on examples that the coordinator has: target: coordinator",
                      e);
    }
    if (fl_conf_find(root, "strategy.fedka.disentangle") && c->disentangle > 0) {
        return refuse(root, "disentangle", FL_R_CONF_CONFLICT,
                      "a discriminator needs single features of the target, which only the "
                      "coordinator may give away: target: coordinator",
                      e);
    }
    c->voting = false;
    c->disentangle = 0;
    if (c->variant == FL_FEDKA_PUBLISHED) {
        return refuse(root, "variant", FL_R_CONF_CONFLICT,
                      "as published the target's features are at every site: target: coordinator",
                      e);
    }
    if ((c->target == FL_FEDKA_SITE) != (c->site[0] != 0)) {
        return refuse(root, "site", c->site[0] ? FL_R_CONF_CONFLICT : FL_R_CONF_MISSING,
                      "the target's name, with target: site and only then", e);
    }
    return 0;
}

static int check_units(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_fedka_conf *c = &p->setting.fedka;
    bool noised = c->noise_multiplier > 0;

    if (p->privacy.noise == FL_NOISE_CENTRAL) {
        return fl_conf_fail(e, fl_plan_at(root, "privacy.noise"), FL_R_PLAN_PRIVACY,
                            "fedka looks at single members' models, which noise on their sum does "
                            "not cover: noise: local");
    }
    if (p->privacy.unit == FL_UNIT_EXAMPLE && fl_fedka_gives(p)) {
        return refuse(root, c->matching > 0 ? "matching" : "disentangle", FL_R_PLAN_PRIVACY,
                      "under the unit example a gradient is of one example alone; that of a "
                      "distance between batches is not. Set it to 0, or use the unit client",
                      e);
    }
    if (!fl_fedka_collects(p)) {
        return noised ? refuse(root, "noise_multiplier", FL_R_CONF_CONFLICT,
                               "no site sends an embedding: there is nothing to noise", e)
                      : 0;
    }
    if (p->privacy.unit == FL_UNIT_NONE) {
        return noised ? refuse(root, "noise_multiplier", FL_R_PLAN_PRIVACY,
                               "noise without a unit protects nothing: say privacy.unit: client", e)
                      : 0;
    }
    if (!(c->noise_multiplier >= 0.01 && c->noise_multiplier <= 32)) {
        return refuse(root, "noise_multiplier", FL_R_PLAN_PRIVACY,
                      "under a unit sites noise their embeddings: 0.01 to 32 times their norm", e);
    }
    return 0;
}

static int check_model(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    size_t width = fl_fedka_width(p);

    if (p->trainer == FL_TRAINER_EXEC) {
        return fl_conf_fail(e, fl_plan_at(root, "trainer"), FL_R_CONF_CONFLICT,
                            "fedka is part of the builtin training: a program knows nothing of it");
    }
    if (p->layout.spec.classes == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "model"), FL_R_CONF_CONFLICT,
                            "fedka is for classes, this model predicts numbers");
    }
    if (p->layout.shared.elements != p->layout.theta.elements || p->layout.mixed) {
        return fl_conf_fail(e, fl_plan_at(root, "model.parameters"), FL_R_CONF_CONFLICT,
                            "members' models are looked at as they were sent: fedka takes layers "
                            "without rules");
    }
    if (width == 0) {
        return fl_conf_fail(e, fl_plan_at(root, "model.head"), FL_R_CONF_CONFLICT,
                            "fedka compares what the head takes: it begins with a linear layer on "
                            "a vector");
    }
    if (width > FL_FEDKA_WIDTH_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "model.head"), FL_R_LIMIT,
                            "the head takes %zu numbers; fedka gives sites features of at most %d",
                            width, FL_FEDKA_WIDTH_MAX);
    }
    if (fl_fedka_gives(p) && p->train.batch > FL_FEDKA_BATCH_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "train.batch"), FL_R_CONF_CONFLICT,
                            "a batch is compared as a whole: at most %d", FL_FEDKA_BATCH_MAX);
    }
    return 0;
}

int fl_plan_check_fedka(struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    struct fl_fedka_conf *c = &p->setting.fedka;
    int r;

    if (!fl_fedka_is(p)) {
        return 0;
    }
    if (p->secure.on) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation"), FL_R_CONF_CONFLICT,
                            "fedka looks at single members' models, and secure aggregation shows "
                            "nobody but their sum");
    }
    if (c->frequencies % FL_RFF_KERNELS) {
        return refuse(root, "frequencies", FL_R_CONF_RANGE, "a multiple of 5, the kernels", e);
    }
    if (c->target != FL_FEDKA_COORDINATOR || c->site[0]) {
        r = c->target == FL_FEDKA_COORDINATOR
                ? refuse(root, "site", FL_R_CONF_CONFLICT, "with target: site only", e)
                : without_data(p, root, e);
        if (r) {
            return r;
        }
    }
    r = check_units(p, root, e);
    return r ? r : check_model(p, root, e);
}
