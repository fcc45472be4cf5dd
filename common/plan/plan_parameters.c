/*
 * model.parameters: rules that say how the matrices of some layers are made (common/nn/param/). A
 * rule names layers, by name or by the beginning of names ("conv*"), and a kind with its numbers:
 *
 *     parameters:
 *       - {layers: ["conv*"], kind: frozen}
 *       - {layers: [fc1], kind: low_rank, rank: 4}
 */
#include "common/base/conf.h"
#include "common/plan/plan_check.h"

#include <stdio.h>
#include <string.h>

enum { RULES_MAX = 32, PATTERNS_MAX = 16 };

struct rule_raw {
    char layers[PATTERNS_MAX][FL_SPEC_NAME_MAX];
    uint32_t count;
    unsigned kind; /* index into kind_words: one less than the enum, which begins with none */
    unsigned base; /* enum fl_make_base */
    struct fl_make make;
};

static const char *const kind_words[] = {"plain", "frozen", "low_rank", "adapter", "sparse_rank",
                                         "atoms", "hashed", "tied",     "nested",  NULL};
static const char *const base_words[] = {"none", "shared", "frozen", NULL};

#define TYPED(key, kind, m)                                                                        \
    .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct rule_raw, m)
static const struct fl_conf_field rule_keys[] = {
    {TYPED("layers", STRINGS, layers), .size = FL_SPEC_NAME_MAX, .items_min = 1,
     .items_max = PATTERNS_MAX, .count_offset = offsetof(struct rule_raw, count),
     .flags = FL_CONF_REQUIRED},
    {TYPED("kind", ENUM, kind), .words = kind_words, .flags = FL_CONF_REQUIRED},
    {TYPED("rank", UINT32, make.rank), .max = 65536},
    {TYPED("atoms", UINT32, make.atoms), .min = 1, .max = 1024},
    {TYPED("ratio", UINT32, make.ratio), .min = 1, .max = 1 << 20},
    {TYPED("base", ENUM, base), .words = base_words},
    {TYPED("sparsity", FLOAT, make.sparsity), .max = 1000},
    {.name = NULL},
};

/* Which kinds a key is of, and which cannot be without it. */
#define BIT(kind) (1u << FL_MAKE_##kind)
static const struct {
    const char *key;
    unsigned of, required;
} uses[] = {
    {"rank", BIT(LOW_RANK) | BIT(ADAPTER) | BIT(SPARSE_RANK) | BIT(TIED),
     BIT(LOW_RANK) | BIT(ADAPTER) | BIT(SPARSE_RANK)},
    {"atoms", BIT(ATOMS), BIT(ATOMS)},
    {"ratio", BIT(HASHED), BIT(HASHED)},
    {"base", BIT(LOW_RANK) | BIT(ADAPTER) | BIT(SPARSE_RANK), 0},
    {"sparsity", BIT(SPARSE_RANK), 0},
};

static int check_keys(const struct fl_conf_node *n, enum fl_make_kind kind, struct fl_err *e)
{
    const char *word = kind_words[kind - 1];

    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        const struct fl_conf_node *given = fl_conf_find(n, uses[i].key);
        if (given && !(uses[i].of & 1u << kind)) {
            return fl_conf_fail_key(e, given, FL_R_CONF_CONFLICT, "%s has no %s", word,
                                    uses[i].key);
        }
        if (!given && uses[i].required & 1u << kind) {
            return fl_conf_fail(e, n, FL_R_CONF_MISSING, "%s is missing: %s needs it", uses[i].key,
                                word);
        }
    }
    return 0;
}

static bool matches(const char *pattern, const char *name)
{
    size_t n = strlen(pattern);

    if (n > 0 && pattern[n - 1] == '*') {
        return strncmp(pattern, name, n - 1) == 0;
    }
    return strcmp(pattern, name) == 0;
}

/* Gives the rule to every layer with weights that the pattern names. */
static int apply(const struct fl_conf_node *n, const char *pattern, const struct fl_make *make,
                 struct fl_spec *spec, struct fl_err *e)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < spec->layer_count; i++) {
        struct fl_layer *l = &spec->layers[i];
        if (l->weight < 0 || !matches(pattern, l->name)) {
            continue;
        }
        if (l->make.kind != FL_MAKE_STRATEGY && l->make.rule != make->rule) {
            return fl_conf_fail(e, n, FL_R_CONF_CONFLICT, "layer %s has a rule already, in line %u",
                                l->name, l->make.line);
        }
        l->make = *make;
        found++;
    }
    return found ? 0
                 : fl_conf_fail(e, n, FL_R_PLAN_MODEL,
                                "%.40s is no layer with weights of this model (model show lists "
                                "them)",
                                pattern);
}

static int get_rule(const struct fl_conf_node *n, uint32_t number, struct fl_spec *spec,
                    struct fl_err *e)
{
    struct rule_raw raw = {.count = 0};
    int r = fl_conf_decode(n, rule_keys, &raw, e);

    if (r) {
        return r;
    }
    raw.make.kind = (enum fl_make_kind)(raw.kind + 1);
    raw.make.rule = number;
    raw.make.line = n->line;
    if (fl_conf_find(n, "base")) {
        raw.make.base = (enum fl_make_base)raw.base;
    } else {
        raw.make.base = raw.make.kind == FL_MAKE_ADAPTER       ? FL_BASE_SHARED
                        : raw.make.kind == FL_MAKE_SPARSE_RANK ? FL_BASE_FROZEN
                                                               : FL_BASE_NONE;
    }
    r = check_keys(n, raw.make.kind, e);
    for (uint32_t i = 0; i < raw.count && r == 0; i++) {
        r = apply(fl_conf_find(n, "layers"), raw.layers[i], &raw.make, spec, e);
    }
    return r;
}

int fl_plan_parameters(const struct fl_conf_node *n, struct fl_spec *spec, struct fl_err *e)
{
    uint32_t number = 0;
    int r = 0;

    if (n->kind != FL_CONF_KIND_LIST) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE,
                            "a list of rules is wanted, such as {layers: [fc1], kind: low_rank, "
                            "rank: 4}");
    }
    if (n->count == 0 || n->count > RULES_MAX) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%u rules; 1 to %d are allowed", n->count,
                            RULES_MAX);
    }
    for (const struct fl_conf_node *i = n->first; i && r == 0; i = i->next) {
        r = get_rule(i, ++number, spec, e);
    }
    return r;
}
