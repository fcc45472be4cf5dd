#include "common/plan/exchange.h"

#include "common/math/grid.h"
#include "common/plan/descriptor.h"
#include "common/plan/fedka.h"
#include "common/plan/secure.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static struct fl_exchange_terms *add(struct fl_exchange_terms *list, uint32_t *count,
                                     const char *name)
{
    assert(*count < FL_PLAN_EXCHANGES_MAX);
    struct fl_exchange_terms *x = &list[(*count)++];

    memset(x, 0, sizeof *x);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->max_weight = 1;
    return x;
}

/* A packed vector. Sizes were checked with the plan: they cannot overflow here. */
static void grid_payload(struct fl_exchange_terms *x, uint32_t bits, int32_t step, size_t elements)
{
    const struct fl_grid g = {.bits = bits, .step = step};
    size_t size = 0;

    x->payload = FL_PAYLOAD_GRID;
    x->grid = (struct fl_grid_conf){.bits = bits, .step = step};
    x->elements = elements;
    (void)fl_grid_bytes(&g, elements, &size);
    x->size = size;
}

static bool counts_due(const struct fl_plan *plan, uint64_t round)
{
    const struct fl_counts_conf *c = &plan->counts;

    return c->noise_multiplier > 0 && (round == 1 || (c->every > 0 && (round - 1) % c->every == 0));
}

uint32_t fl_plan_exchanges(const struct fl_plan *plan, uint64_t round,
                           struct fl_exchange_terms ret[FL_PLAN_EXCHANGES_MAX])
{
    struct fl_exchange_terms *x;
    uint32_t count = 0;

    if (fl_descriptor_due(&plan->descriptor, round)) {
        const struct fl_grid g = fl_descriptor_grid(plan);
        x = add(ret, &count, "descriptor");
        grid_payload(x, g.bits, g.step, fl_descriptor_elements(plan));
    }
    if (counts_due(plan, round)) {
        x = add(ret, &count, "counts");
        grid_payload(x, FL_COUNTS_BITS, FL_COUNTS_STEP, plan->layout.spec.classes);
    }
    if (fl_fedka_collects(plan)) {
        x = add(ret, &count, "embedding");
        grid_payload(x, FL_FEDKA_EMBEDDING_BITS, FL_FEDKA_EMBEDDING_STEP,
                     fl_fedka_embedding(plan) + 1);
        x->model = x->input = true;
    }
    if (plan->score.on && round == plan->rounds) {
        x = add(ret, &count, "score");
        grid_payload(x, FL_SCORE_BITS, FL_SCORE_STEP, 1);
        x->model = true;
    }
    bool choice = plan->setting.bubble.by == FL_BUBBLE_CHOICE;
    if (choice) {
        x = add(ret, &count, "choice");
        grid_payload(x, FL_CHOICE_BITS, 0, 1);
        x->input = x->models = true;
    }
    if (plan->secure.on) {
        for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
            fl_plan_secure_exchange(plan, (enum fl_secagg_stage)stage, add(ret, &count, ""));
        }
        return count;
    }
    x = add(ret, &count, "update");
    grid_payload(x, plan->grid.bits, plan->grid.step, plan->layout.shared.elements);
    x->max_weight = plan->weighting == FL_WEIGHT_EXAMPLES ? plan->max_weight : 1;
    x->model = true;
    x->input = fl_fedka_gives(plan);
    x->same_cohort = choice;
    return count;
}
