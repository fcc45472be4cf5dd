/* Strategies that keep a model for each agent at the coordinator (server/strategy/personal.h). */
#include "common/plan/plan_check.h"

#include <string.h>

static const uint64_t HYPER_MAX = (uint64_t)1 << 27; /* in the coordinator's memory */
static const char *const variants[] = {"better", "published", NULL};

#define OF                  fl_strategy_conf
#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)
#define HOMES                                                                                      \
    {                                                                                              \
        TYPED("homes", UINT32, homes), .min = 1, .max = 1024, .fallback = "256"                    \
    }

const struct fl_conf_field fl_plan_fedamp_keys[] = {
    HOMES,
    {TYPED("variant", ENUM, fedamp.variant), .words = variants, .fallback = "better"},
    {TYPED("sigma", DOUBLE, fedamp.sigma), .max = 1e9, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {TYPED("self", DOUBLE, fedamp.self), .max = 1, .fallback = "0.5"},
    {TYPED("alpha", DOUBLE, fedamp.alpha), .max = 1e9, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {TYPED("mu", FLOAT, mu), .max = 1000, .fallback = "0.01"},
    {.name = NULL},
};
const struct fl_conf_field fl_plan_fedcac_keys[] = {
    HOMES,
    {TYPED("variant", ENUM, fedcac.variant), .words = variants, .fallback = "better"},
    {TYPED("tau", DOUBLE, fedcac.tau), .max = 1, .fallback = "0.5"},
    {TYPED("beta", UINT32, fedcac.beta), .min = 1, .max = 1e6, .fallback = "100"},
    {TYPED("partners", UINT32, fedcac.partners), .max = 1024, .fallback = "1"},
    {TYPED("decay", DOUBLE, fedcac.decay), .max = 1, .fallback = "0.9"},
    {.name = NULL},
};

const struct fl_conf_field fl_plan_pfedhn_keys[] = {
    HOMES,
    {TYPED("variant", ENUM, pfedhn.variant), .words = variants, .fallback = "better"},
    {TYPED("embedding", UINT32, pfedhn.embedding), .min = 1, .max = 1024, .fallback = "16"},
    {TYPED("hidden", UINT32, pfedhn.hidden), .min = 1, .max = 1024, .fallback = "8"},
    {TYPED("lr", DOUBLE, pfedhn.lr), .max = 100, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {TYPED("embedding_lr", DOUBLE, pfedhn.embedding_lr), .max = 1e6, .fallback = "1"},
    {.name = NULL},
};

/* A key that the other variant has says that its author expects something else to happen. */
static int check_variant(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    static const struct {
        const char *path;
        enum fl_personal_variant of;
    } keys[] = {
        {"strategy.fedamp.self", FL_PERSONAL_BETTER},
        {"strategy.fedamp.alpha", FL_PERSONAL_PUBLISHED},
        {"strategy.fedcac.beta", FL_PERSONAL_PUBLISHED},
        {"strategy.fedcac.partners", FL_PERSONAL_BETTER},
        {"strategy.fedcac.decay", FL_PERSONAL_BETTER},
    };

    const enum fl_personal_variant is =
        strcmp(p->strategy, "fedamp") == 0 ? p->setting.fedamp.variant : p->setting.fedcac.variant;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct fl_conf_node *n = fl_conf_find(root, keys[i].path);
        if (n && keys[i].of != is) {
            return fl_conf_fail_key(e, n, FL_R_CONF_CONFLICT, "this is of variant %s, not of %s",
                                    variants[keys[i].of], variants[is]);
        }
    }
    return 0;
}

int fl_plan_check_personal(const struct fl_plan *p, const struct fl_conf_node *root,
                           struct fl_err *e)
{
    const struct fl_server_opt_conf *s = &p->server;

    if (p->setting.homes == 0) {
        return 0; /* none of these */
    }
    if (p->round.members + p->round.over_select > p->setting.homes) {
        return fl_conf_fail(e, fl_plan_at(root, "round.members"), FL_R_CONF_CONFLICT,
                            "%u members and a model for each of at most %u agents "
                            "(strategy.%s.homes)",
                            p->round.members + p->round.over_select, p->setting.homes, p->strategy);
    }
    if (s->optimizer != FL_SERVER_AVERAGE || s->lr < 1 || s->lr > 1 || s->momentum > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "server"), FL_R_CONF_CONFLICT,
                            "strategy %s mixes models: there is no mean update that a server "
                            "optimizer could step along",
                            p->strategy);
    }
    if (p->aggregate.on) {
        return fl_conf_fail(e, fl_plan_at(root, "aggregate"), FL_R_CONF_CONFLICT,
                            "strategy %s mixes a model for each agent by weights of its own: there "
                            "is no one mean that a rule could stand for",
                            p->strategy);
    }
    if (p->secure.on) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation"), FL_R_PLAN_STRATEGY,
                            "strategy %s compares and mixes the models of single agents, which "
                            "secure_aggregation hides from the coordinator: choose one of them",
                            p->strategy);
    }
    if (p->setting.pfedhn.hidden && fl_spec_together(&p->layout.spec)) {
        return fl_conf_fail(e, fl_plan_at(root, "model.layers"), FL_R_CONF_CONFLICT,
                            "a hypernetwork makes values of either sign, and a batch norm's "
                            "running variances are not to be negative: use group_norm");
    }
    uint64_t values = ((uint64_t)p->setting.pfedhn.hidden + 1) * p->layout.shared.elements;
    if (p->setting.pfedhn.hidden && values > HYPER_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "strategy.pfedhn.hidden"), FL_R_CONF_RANGE,
                            "a hypernetwork of %llu values for this model; %llu at most",
                            (unsigned long long)values, (unsigned long long)HYPER_MAX);
    }
    return check_variant(p, root, e);
}
