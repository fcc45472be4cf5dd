/* Settings of strategies with bubbles (server/strategy/clusters.h), and what does not go together.
 */
#include "common/plan/exchange.h"
#include "common/plan/plan_check.h"

#include <string.h>

enum { HEADER_ROOM = 64 * 1024 }; /* of the table in front of a model's values, at most */
/* Sensitivities are at most 1, and a Laplace draw is below 37 scales. */
static const double LAPLACE_MIN = 0.025;

#define TYPED(key, kind, m)                                                                        \
    .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct fl_strategy_conf, bubble.m)

#define INSIDE                                                                                     \
    {                                                                                              \
        TYPED("model", STRING, model), .size = FL_BUBBLE_MODEL_WORD, .min = 1,                     \
                                       .fallback = "fedavg"                                        \
    }

static const char *const body_words[] = {"own", "shared", NULL};
static const char *const variants[] = {"better", "published", NULL};

const struct fl_conf_field fl_plan_pacfl_keys[] = {
    INSIDE,
    {TYPED("variant", ENUM, variant), .words = variants, .fallback = "better"},
    {TYPED("laplace", DOUBLE, laplace), .max = 1e6, .fallback = "10"},
    {TYPED("rows", UINT32, rows), .max = 1e6, .fallback = "10"},
    {TYPED("body", ENUM, body), .words = body_words, .fallback = "own"},
    {TYPED("most", UINT32, most), .min = 1, .max = FL_PLAN_BUBBLES_MAX, .fallback = "8"},
    {TYPED("minimum", UINT32, minimum), .min = 1, .max = 4096, .fallback = "2"},
    {TYPED("quorum", UINT32, quorum), .max = 100000, .fallback = "0"},
    {TYPED("silhouette", DOUBLE, silhouette), .max = 1, .fallback = "0.5"},
    {TYPED("stability", DOUBLE, stability), .max = 1, .fallback = "0.8"},
    {TYPED("hysteresis", DOUBLE, hysteresis), .max = 1, .fallback = "0.05"},
    {.name = NULL},
};

const struct fl_conf_field fl_plan_ifca_keys[] = {
    INSIDE,
    {TYPED("bubbles", UINT32, most), .min = 2, .max = FL_PLAN_BUBBLES_MAX, .fallback = "3"},
    {.name = NULL},
};
const struct fl_conf_field fl_plan_cfl_keys[] = {
    INSIDE,
    {TYPED("most", UINT32, most), .min = 1, .max = FL_PLAN_BUBBLES_MAX, .fallback = "8"},
    {TYPED("minimum", UINT32, minimum), .min = 1, .max = 4096, .fallback = "2"},
    {TYPED("after", UINT32, after), .min = 1, .max = 1e6, .fallback = "5"},
    {TYPED("still", DOUBLE, still), .max = 1, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.25"},
    {.name = NULL},
};
const struct fl_conf_field fl_plan_flhc_keys[] = {
    INSIDE,
    {TYPED("most", UINT32, most), .min = 1, .max = FL_PLAN_BUBBLES_MAX, .fallback = "8"},
    {TYPED("minimum", UINT32, minimum), .min = 1, .max = 4096, .fallback = "2"},
    {TYPED("after", UINT32, after), .min = 1, .max = 1e6, .fallback = "5"},
    {TYPED("silhouette", DOUBLE, silhouette), .max = 1, .fallback = "0.25"},
    {.name = NULL},
};

void fl_plan_bubbles_begin(struct fl_plan *plan)
{
    static const char *const words[] = {[FL_BUBBLE_DESCRIPTOR] = "pacfl",
                                        [FL_BUBBLE_CHOICE] = "ifca",
                                        [FL_BUBBLE_SPLIT] = "cfl",
                                        [FL_BUBBLE_ONCE] = "flhc",
                                        [FL_BUBBLE_WEIGHTS] = "fesem"};

    for (unsigned i = 1; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(plan->strategy, words[i]) == 0) {
            plan->setting.bubble.by = (enum fl_bubble_by)i;
        }
    }
    plan->descriptor.on = plan->setting.bubble.by == FL_BUBBLE_DESCRIPTOR;
}

size_t fl_plan_head_offset(const struct fl_plan *plan)
{
    const struct fl_layout *l = &plan->layout;
    uint32_t head = fl_spec_head(&l->spec);

    for (uint32_t i = head; i < l->spec.layer_count; i++) {
        if (l->spec.layers[i].weight >= 0) {
            return l->theta.at[l->spec.layers[i].weight].offset;
        }
    }
    return l->theta.elements;
}

/* Every site loads all models at once, and without noise says which is its own. */
static int check_choice(const struct fl_plan *p, const struct fl_conf_node *at, struct fl_err *e)
{
    uint64_t bytes = 4 * (uint64_t)p->layout.shared.elements + HEADER_ROOM;

    if (strcmp(p->setting.bubble.model, "fedavg") != 0 || p->layout.private_.elements > 0 ||
        p->trainer != FL_TRAINER_BUILTIN) {
        return fl_conf_fail(e, at, FL_R_PLAN_STRATEGY,
                            "a site picks among models by their loss, so they have to be whole: "
                            "model: fedavg, nothing private, and the builtin trainer");
    }
    if (bytes > FL_EXCHANGE_BYTES_MAX / p->setting.bubble.most) {
        return fl_conf_fail(
            e, at, FL_R_LIMIT, "%u models of %zu values: sites load all of them, at most %d bytes",
            p->setting.bubble.most, p->layout.shared.elements, FL_EXCHANGE_BYTES_MAX);
    }
    return 0;
}

/* What is decided on the updates of a round: all pairs of them. */
static int check_pairs(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    if (p->round.members + p->round.over_select > FL_PLAN_ROBUST_MAX) {
        return fl_conf_fail(e, fl_plan_at(root, "round.members"), FL_R_LIMIT,
                            "%u members: strategy %s compares all pairs of at most %d",
                            p->round.members + p->round.over_select, p->strategy,
                            FL_PLAN_ROBUST_MAX);
    }
    return 0;
}

/* Models are means of models. */
static int check_weights(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_server_opt_conf *s = &p->server;

    if (s->optimizer != FL_SERVER_AVERAGE || s->lr < 1 || s->lr > 1 || s->momentum > 0) {
        return fl_conf_fail(e, fl_plan_at(root, "server"), FL_R_CONF_CONFLICT,
                            "strategy %s takes means of models: there is no mean update that a "
                            "server optimizer could step along",
                            p->strategy);
    }
    if (p->round.members + p->round.over_select + p->setting.bubble.most > 4096) {
        return fl_conf_fail(e, fl_plan_at(root, "round.members"), FL_R_LIMIT,
                            "strategy %s takes 4096 members and models at most", p->strategy);
    }
    return 0;
}

/* pacfl: a key of the other variant says that its author expects something else to happen. */
static int check_variant(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    static const struct {
        const char *path;
        enum fl_bubble_variant of;
    } keys[] = {
        {"strategy.pacfl.body", FL_BUBBLE_BETTER},
        {"strategy.pacfl.most", FL_BUBBLE_BETTER},
        {"strategy.pacfl.minimum", FL_BUBBLE_BETTER},
        {"strategy.pacfl.quorum", FL_BUBBLE_BETTER},
        {"strategy.pacfl.silhouette", FL_BUBBLE_BETTER},
        {"strategy.pacfl.stability", FL_BUBBLE_BETTER},
        {"strategy.pacfl.hysteresis", FL_BUBBLE_BETTER},
        {"descriptor.noise_multiplier", FL_BUBBLE_BETTER},
        {"descriptor.share", FL_BUBBLE_BETTER},
        {"descriptor.bound", FL_BUBBLE_BETTER},
        {"descriptor.features", FL_BUBBLE_BETTER},
        {"strategy.pacfl.laplace", FL_BUBBLE_PUBLISHED},
        {"strategy.pacfl.rows", FL_BUBBLE_PUBLISHED},
    };

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct fl_conf_node *n = fl_conf_find(root, keys[i].path);
        if (n && keys[i].of != p->setting.bubble.variant) {
            return fl_conf_fail_key(e, n, FL_R_CONF_CONFLICT, "this is of variant %s, not of %s",
                                    variants[keys[i].of], variants[p->setting.bubble.variant]);
        }
    }
    return 0;
}

static int check_published(const struct fl_plan *p, const struct fl_conf_node *root,
                           struct fl_err *e)
{
    const struct fl_bubble_conf *b = &p->setting.bubble;
    const struct fl_conf_node *at = fl_plan_at(root, "strategy");

    if (b->variant != FL_BUBBLE_PUBLISHED) {
        return 0;
    }
    if (p->privacy.unit != FL_UNIT_NONE) {
        return fl_conf_fail(
            e, at, FL_R_PLAN_PRIVACY,
            "variant published sends gains of boosted trees: one example may change "
            "all of them, and noise by a sensitivity that is measured on the data "
            "is no guarantee, so no epsilon can be stated; variant better has one");
    }
    if (p->layout.spec.classes == 0 && p->layout.spec.targets != 1) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "variant published: boosted trees predict classes or one number, not "
                            "%u",
                            p->layout.spec.targets);
    }
    if (p->secure.on) {
        return fl_conf_fail(e, fl_plan_at(root, "secure_aggregation"), FL_R_PLAN_STRATEGY,
                            "variant published leaves sites alone that are like nobody, and a sum "
                            "of one hides nothing; variant better folds them into their parent");
    }
    if (b->laplace > 0 && b->laplace < LAPLACE_MIN) {
        return fl_conf_fail(e, at, FL_R_CONF_RANGE,
                            "laplace: 0, or at least %g for the noise to fit the descriptor's grid",
                            LAPLACE_MIN);
    }
    return 0;
}

int fl_plan_check_bubbles(const struct fl_plan *p, const struct fl_conf_node *root,
                          struct fl_err *e)
{
    static const char *const inside[] = {"fedavg", "fedper", "fedrep", "hyperfl"};
    const struct fl_bubble_conf *b = &p->setting.bubble;
    const struct fl_conf_node *at = fl_plan_at(root, "strategy");
    bool known = false;

    if (!b->model[0]) {
        return 0;
    }
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        known = known || strcmp(b->model, inside[i]) == 0;
    }
    if (!known) {
        return fl_conf_fail(e, at, FL_R_PLAN_STRATEGY,
                            "model %s cannot be inside bubbles: fedavg, fedper, fedrep or hyperfl",
                            b->model);
    }
    if (p->secure.on && b->by != FL_BUBBLE_DESCRIPTOR && b->by != FL_BUBBLE_CHOICE) {
        return fl_conf_fail(
            e, fl_plan_at(root, "secure_aggregation"), FL_R_PLAN_STRATEGY,
            "strategy %s tells sites apart by their updates, and secure aggregation "
            "hides them in a sum: pacfl and ifca know bubbles by other means",
            p->strategy);
    }
    if (b->by == FL_BUBBLE_WEIGHTS) {
        return check_weights(p, root, e);
    }
    if (b->by == FL_BUBBLE_CHOICE) {
        return check_choice(p, at, e);
    }
    if (b->by != FL_BUBBLE_DESCRIPTOR) {
        return check_pairs(p, root, e);
    }
    int r = check_variant(p, root, e);
    r = r ? r : check_published(p, root, e);
    if (r) {
        return r;
    }
    if (b->quorum > p->round.members) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "quorum %u of a bubble is more than round.members (%u)", b->quorum,
                            p->round.members);
    }
    if (b->body == FL_BODY_OWN) {
        return 0;
    }
    size_t head = fl_plan_head_offset(p);
    if (strcmp(b->model, "fedavg") != 0 || p->layout.mixed || head == 0 ||
        p->layout.shared.elements != p->layout.theta.elements ||
        head >= p->layout.shared.elements) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "body: shared is a body for all and a head for each bubble: it needs "
                            "model: fedavg, layers without rules, and a head that is not all of "
                            "them");
    }
    return 0;
}
