/* Settings of strategies with bubbles (server/strategy/clusters.h), and what does not go together.
 */
#include "common/plan/plan_check.h"

#include <string.h>

#define TYPED(key, kind, m)                                                                        \
    .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct fl_strategy_conf, bubble.m)

static const char *const body_words[] = {"own", "shared", NULL};

const struct fl_conf_field fl_plan_pacfl_keys[] = {
    {TYPED("model", STRING, model), .size = FL_BUBBLE_MODEL_WORD, .min = 1, .fallback = "fedavg"},
    {TYPED("body", ENUM, body), .words = body_words, .fallback = "own"},
    {TYPED("most", UINT32, most), .min = 1, .max = FL_PLAN_BUBBLES_MAX, .fallback = "8"},
    {TYPED("minimum", UINT32, minimum), .min = 1, .max = 4096, .fallback = "2"},
    {TYPED("quorum", UINT32, quorum), .max = 100000, .fallback = "0"},
    {TYPED("silhouette", DOUBLE, silhouette), .max = 1, .fallback = "0.5"},
    {TYPED("stability", DOUBLE, stability), .max = 1, .fallback = "0.8"},
    {TYPED("hysteresis", DOUBLE, hysteresis), .max = 1, .fallback = "0.05"},
    {.name = NULL},
};

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
