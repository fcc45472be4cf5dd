/*
 * `strategy`: one word, or a map with one key for a word that has settings: {fedprox: {mu: 0.1}}.
 *
 * A line of the table says which part of the model travels and which settings there are. To add a
 * strategy: a line here, settings in struct fl_strategy_conf, a line in server/strategy/table.c,
 * and rows in releases.c, without which it is refused under every privacy unit.
 */
#include "common/base/mem.h"
#include "common/plan/plan_check.h"

#include <stdio.h>
#include <string.h>

#define OF                  fl_strategy_conf
#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)

static const struct fl_conf_field no_keys[] = {{.name = NULL}};
static const struct fl_conf_field fedprox_keys[] = {
    {TYPED("mu", FLOAT, mu), .max = 1000, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.01"},
    {.name = NULL},
};

static const struct {
    const char *name;
    enum fl_visibility visibility;
    const struct fl_conf_field *keys;
} strategies[] = {
    {"fedadagrad", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedadam", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedavg", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedavgm", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedper", FL_VISIBILITY_HEAD_PRIVATE, no_keys},
    {"fedprox", FL_VISIBILITY_ALL_SHARED, fedprox_keys},
    {"fedrep", FL_VISIBILITY_HEAD_PRIVATE, no_keys},
    {"fedyogi", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"hyperfl", FL_VISIBILITY_BODY_GENERATED, no_keys},
    {"local", FL_VISIBILITY_ALL_PRIVATE, no_keys},
};

static int unknown(const struct fl_conf_node *at, const char *word, struct fl_err *e)
{
    char known[256] = "";

    for (size_t i = 0, n = 0; i < FL_COUNT(strategies) && n < sizeof known; i++) {
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "",
                              strategies[i].name);
    }
    return fl_conf_fail(e, at, FL_R_PLAN_STRATEGY, "%.40s is not a strategy; there are %s", word,
                        known);
}

int fl_plan_strategy(const struct fl_conf_node *n, struct fl_plan *plan, enum fl_visibility *ret,
                     struct fl_err *e)
{
    const struct fl_conf_node *only = fl_conf_only(n);
    struct fl_conf_node empty = *n;
    const char *word = n->kind == FL_CONF_KIND_SCALAR ? n->text : only ? only->key : NULL;
    size_t i = 0;

    if (!word) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "one word, or a map with one key, is wanted");
    }
    while (i < FL_COUNT(strategies) && strcmp(word, strategies[i].name) != 0) {
        i++;
    }
    if (i == FL_COUNT(strategies)) {
        return unknown(only ? only : n, word, e);
    }
    if (only && !fl_conf_is_map(only)) {
        return fl_conf_fail(e, only, FL_R_CONF_TYPE, "a map of settings is wanted");
    }
    empty.kind = FL_CONF_KIND_MAP;
    empty.first = empty.last = NULL;
    empty.count = 0;
    snprintf(plan->strategy, sizeof plan->strategy, "%s", word);
    *ret = strategies[i].visibility;
    return fl_conf_decode(only ? only : &empty, strategies[i].keys, &plan->setting, e);
}
