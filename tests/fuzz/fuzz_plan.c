/*
 * Agents parse what a coordinator sends: YAML, tables, layers, rules. Whatever text passes must be
 * a plan that keeps the rules, and an edit of it must change the one key and nothing else.
 */
#include "common/base/mem.h"
#include "common/plan/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fuzz_plan: %s\n", what);
        abort();
    }
}

static void check_rules(const struct fl_plan *p)
{
    require(p->name[0] && memchr(p->name, 0, sizeof p->name), "a name without an end");
    require(p->rounds > 0 && p->round.members > 0 && p->round.quorum > 0, "nothing to do");
    require(p->round.quorum <= p->round.members, "quorum above members");
    require(p->grid.bits >= 8 && p->grid.bits <= 32, "grid");
    require(p->train.body.lr > 0 && p->train.head.lr > 0 && isfinite(p->train.body.lr), "lr");
    require(p->layout.spec.layer_count > 0 &&
                p->layout.theta.elements >=
                    p->layout.private_.elements - p->layout.generator.embedding,
            "tensors");
    if (p->privacy.unit != FL_UNIT_NONE) {
        require(p->privacy.clip > 0 && p->privacy.delta > 0 && p->privacy.delta < 1, "privacy");
        require(p->weighting == FL_WEIGHT_EQUAL, "weights beside a unit");
    }
    if (p->privacy.unit == FL_UNIT_EXAMPLE) {
        require(p->train.steps > 0 && p->train.head_epochs == 0, "an un-noised stage");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fl_plan *first = fl_new(1, sizeof *first), *second = fl_new(1, sizeof *second);
    const char *text = (const char *)data;
    struct fl_err e = {0};
    char *edited = NULL;
    size_t edited_size;

    if (fl_plan_parse(first, "job", text, size, &e) < 0) {
        require(e.code < 0 && e.msg[0], "refused without a reason");
    } else {
        check_rules(first);
        if (fl_plan_set(text, size, "round.attempts", "77", &edited, &edited_size, &e) == 0) {
            require(fl_plan_parse(second, "job", edited, edited_size, &e) == 0, e.msg);
            require(second->round.attempts == 77, "the edit is lost");
            second->round.attempts = first->round.attempts;
            require(first->layout.generator.kind == second->layout.generator.kind, "generator");
            memset(&first->layout.generator, 0, sizeof first->layout.generator); /* has padding */
            memset(&second->layout.generator, 0, sizeof second->layout.generator);
            second->digest = first->digest;
            for (uint32_t i = 0; i < FL_SPEC_LAYERS_MAX; i++) {
                first->layout.spec.layers[i].line = second->layout.spec.layers[i].line = 0;
            }
            require(memcmp(first, second, sizeof *first) == 0, "the edit changed something else");
        }
    }
    fl_free(edited);
    fl_free(first);
    fl_free(second);
    return 0;
}
