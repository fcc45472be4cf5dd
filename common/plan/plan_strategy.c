/*
 * `strategy`: one word, or a map with one key for a word that has settings: {fedprox: {mu: 0.1}}.
 *
 * A line of the table says which part of the model travels and which settings there are. To add a
 * strategy: a line here, settings in struct fl_strategy_conf, a line in server/strategy/table.c,
 * and rows in releases.c, without which it is refused under every privacy unit.
 */
#include "common/base/mem.h"
#include "common/plan/plan_check.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define OF                  fl_strategy_conf
#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)

static const struct fl_conf_field no_keys[] = {{.name = NULL}};
static const struct fl_conf_field apfl_keys[] = {
    {TYPED("alpha", FLOAT, alpha), .max = 1, .fallback = "0.5"},
    {TYPED("learn", BOOL, learn), .fallback = "true"},
    {.name = NULL},
};
static const struct fl_conf_field ditto_keys[] = {
    {TYPED("lambda", FLOAT, lambda), .max = 1000, .fallback = "0.1"},
    {TYPED("epochs", UINT32, epochs), .min = 1, .max = 1000, .fallback = "1"},
    {.name = NULL},
};
static const struct fl_conf_field fedala_keys[] = {
    {TYPED("layers", UINT32, layers), .min = 1, .max = FL_SPEC_LAYERS_MAX, .fallback = "1"},
    {TYPED("share", FLOAT, share), .max = 1, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.8"},
    {TYPED("eta", FLOAT, eta), .max = 100, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {.name = NULL},
};
static const struct fl_conf_field feddbe_keys[] = {
    {TYPED("kappa", FLOAT, kappa), .max = 1e6, .fallback = "50"},
    {TYPED("momentum", FLOAT, momentum), .max = 1, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {.name = NULL},
};
static const struct fl_conf_field fedproto_keys[] = {
    {TYPED("lambda", FLOAT, lambda), .max = 1e6, .fallback = "1"},
    {.name = NULL},
};
static const struct fl_conf_field feddyn_keys[] = {
    {TYPED("alpha", FLOAT, alpha), .max = 1000, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.1"},
    {TYPED("sites", UINT32, sites), .max = 1e6, .fallback = "0"},
    {.name = NULL},
};
static const struct fl_conf_field scaffold_keys[] = {
    {TYPED("sites", UINT32, sites), .max = 1e6, .fallback = "0"},
    {.name = NULL},
};
static const struct fl_conf_field fednova_keys[] = {
    {TYPED("steps", UINT32, steps), .min = 1, .max = 1e6, .flags = FL_CONF_REQUIRED},
    {.name = NULL},
};
static const struct fl_conf_field fedprox_keys[] = {
    {TYPED("mu", FLOAT, mu), .max = 1000, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.01"},
    {.name = NULL},
};

static const struct {
    const char *name;
    enum fl_visibility visibility;
    const struct fl_conf_field *keys;
} strategies[] = {
    {"apfl", FL_VISIBILITY_ALL_SHARED, apfl_keys},
    {"cfl", FL_VISIBILITY_ALL_SHARED, fl_plan_cfl_keys},
    {"ditto", FL_VISIBILITY_ALL_SHARED, ditto_keys},
    {"fedala", FL_VISIBILITY_ALL_SHARED, fedala_keys},
    {"fedadagrad", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedadam", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedamp", FL_VISIBILITY_ALL_SHARED, fl_plan_fedamp_keys},
    {"fedavg", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedavgm", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fedcac", FL_VISIBILITY_ALL_SHARED, fl_plan_fedcac_keys},
    {"feddbe", FL_VISIBILITY_ALL_SHARED, feddbe_keys},
    {"fedbn", FL_VISIBILITY_NORMS_PRIVATE, no_keys},
    {"fedbuff", FL_VISIBILITY_ALL_SHARED, fl_plan_fedbuff_keys},
    {"feddyn", FL_VISIBILITY_ALL_SHARED, feddyn_keys},
    {"fedka", FL_VISIBILITY_ALL_SHARED, fl_plan_fedka_keys},
    {"fednova", FL_VISIBILITY_ALL_SHARED, fednova_keys},
    {"fedper", FL_VISIBILITY_HEAD_PRIVATE, no_keys},
    {"fedproto", FL_VISIBILITY_ALL_PRIVATE, fedproto_keys},
    {"fedprox", FL_VISIBILITY_ALL_SHARED, fedprox_keys},
    {"fedrep", FL_VISIBILITY_HEAD_PRIVATE, no_keys},
    {"fedyogi", FL_VISIBILITY_ALL_SHARED, no_keys},
    {"fesem", FL_VISIBILITY_ALL_SHARED, fl_plan_ifca_keys},
    {"flhc", FL_VISIBILITY_ALL_SHARED, fl_plan_flhc_keys},
    {"hyperfl", FL_VISIBILITY_BODY_GENERATED, no_keys},
    {"ifca", FL_VISIBILITY_ALL_SHARED, fl_plan_ifca_keys},
    {"local", FL_VISIBILITY_ALL_PRIVATE, no_keys},
    {"pacfl", FL_VISIBILITY_ALL_SHARED, fl_plan_pacfl_keys},
    {"pfedhn", FL_VISIBILITY_ALL_SHARED, fl_plan_pfedhn_keys},
    {"scaffold", FL_VISIBILITY_ALL_SHARED, scaffold_keys},
};

/* Those under which a site does more than train what it received. */
static const struct {
    const char *name;
    enum fl_local local;
} locals[] = {
    /* clang-format off */
    {"apfl", FL_LOCAL_APFL},
    {"ditto", FL_LOCAL_DITTO},
    {"fedala", FL_LOCAL_FEDALA},
    {"feddbe", FL_LOCAL_FEDDBE},
    {"feddyn", FL_LOCAL_FEDDYN},
    {"fedproto", FL_LOCAL_FEDPROTO},
    {"scaffold", FL_LOCAL_SCAFFOLD},
    /* clang-format on */
};

static size_t find(const char *word)
{
    size_t i = 0;

    while (i < FL_COUNT(strategies) && strcmp(word, strategies[i].name) != 0) {
        i++;
    }
    return i;
}

static int unknown(const struct fl_conf_node *at, const char *word, struct fl_err *e)
{
    char known[160] = ""; /* what fits into a message */
    size_t n = 0;

    for (size_t i = 0; i < FL_COUNT(strategies); i++) {
        const char *name = strategies[i].name;
        if (n + strlen(name) + 6 > sizeof known) {
            snprintf(known + n, sizeof known - n, " ...");
            break;
        }
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", name);
    }
    return fl_conf_fail(e, at, FL_R_PLAN_STRATEGY,
                        "%.40s is not a strategy (JOB.md has all); there are %s", word, known);
}

const char *fl_plan_strategy_at(size_t i)
{
    return i < FL_COUNT(strategies) ? strategies[i].name : NULL;
}

int fl_plan_strategy(const struct fl_conf_node *n, struct fl_plan *plan, enum fl_visibility *ret,
                     struct fl_err *e)
{
    const struct fl_conf_node *only = fl_conf_only(n);
    struct fl_conf_node empty = *n;
    const char *word = n->kind == FL_CONF_KIND_SCALAR ? n->text : only ? only->key : NULL;

    if (!word) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "one word, or a map with one key, is wanted");
    }
    size_t i = find(word);
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
    for (size_t k = 0; k < FL_COUNT(locals); k++) {
        if (strcmp(word, locals[k].name) == 0) {
            plan->setting.local = locals[k].local;
        }
    }
    fl_plan_fedka_defaults(plan);
    fl_plan_bubbles_begin(plan);
    *ret = strategies[i].visibility;
    int r = fl_conf_decode(only ? only : &empty, strategies[i].keys, &plan->setting, e);
    i = find(fl_plan_model(plan)); /* that of the one inside, where there is one */
    *ret = i < FL_COUNT(strategies) ? strategies[i].visibility : *ret;
    return r;
}

bool fl_plan_setting(const struct fl_plan *plan, uint32_t i, struct fl_setting *ret)
{
    size_t at = find(plan->strategy);
    const struct fl_conf_field *f = at < FL_COUNT(strategies) ? strategies[at].keys : no_keys;

    while (f->name && i > 0) {
        f++;
        i--;
    }
    if (!f->name) {
        return false;
    }
    const void *from = (const char *)&plan->setting + f->offset;
    *ret = (struct fl_setting){.name = f->name};
    switch (f->type) {
    case FL_CONF_FLOAT:
        ret->number = (double)*(const float *)from;
        break;
    case FL_CONF_DOUBLE:
        ret->number = *(const double *)from;
        break;
    case FL_CONF_UINT32:
        ret->number = *(const uint32_t *)from;
        break;
    case FL_CONF_BOOL:
        ret->number = *(const bool *)from;
        break;
    case FL_CONF_ENUM:
        ret->word = f->words[*(const unsigned *)from];
        break;
    case FL_CONF_STRING:
        ret->word = from;
        break;
    default: /* no setting is of another type */
        assert(false);
    }
    return true;
}
