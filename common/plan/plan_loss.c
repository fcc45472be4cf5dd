/* `model.loss`: one word, or a map with one key for a loss that has settings. */
#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/plan/plan_check.h"

#include <string.h>

#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)
#define OF                  fl_loss
static const struct fl_conf_field cross_entropy_keys[] = {
    {TYPED("smoothing", FLOAT, smoothing), .max = 1, .flags = FL_CONF_BELOW_MAX, .fallback = "0"},
    {.name = NULL},
};
static const struct fl_conf_field plain_keys[] = {{.name = NULL}};
static const struct fl_conf_field huber_keys[] = {
    {TYPED("delta", FLOAT, delta), .max = 1e6, .flags = FL_CONF_ABOVE_MIN, .fallback = "1"},
    {.name = NULL},
};
static const struct fl_conf_field pinball_keys[] = {
    {TYPED("quantiles", FLOATS, quantiles), .max = 1,
     .flags = FL_CONF_ABOVE_MIN | FL_CONF_BELOW_MAX | FL_CONF_REQUIRED, .items_min = 1,
     .items_max = FL_LOSS_QUANTILES_MAX, .count_offset = offsetof(struct fl_loss, quantile_count)},
    {.name = NULL},
};
#undef OF

/* In the order of enum fl_loss_kind. */
#define WORD(key, keys, kind)                                                                      \
    [FL_LOSS_##kind] = {.name = key,                                                               \
                        .type = FL_CONF_MAP,                                                       \
                        .fields = keys,                                                            \
                        .offset = FL_LOSS_##kind * sizeof(struct fl_loss)}
static const struct fl_conf_field words[] = {
    WORD("cross_entropy", cross_entropy_keys, CROSS_ENTROPY),
    WORD("binary", plain_keys, BINARY),
    WORD("mse", plain_keys, MSE),
    WORD("huber", huber_keys, HUBER),
    WORD("pinball", pinball_keys, PINBALL),
    {.name = NULL},
};
enum { KINDS = sizeof words / sizeof words[0] - 1 };

static int decode(const struct fl_conf_node *n, struct fl_loss *ret, struct fl_err *e)
{
    struct fl_loss each[KINDS] = {{0}};
    const struct fl_conf_node *only = fl_conf_only(n);
    unsigned kind = 0;

    if (n->kind == FL_CONF_KIND_SCALAR) {
        while (kind < KINDS && strcmp(words[kind].name, n->text) != 0) {
            kind++;
        }
        if (kind == KINDS || kind == FL_LOSS_PINBALL) {
            return fl_conf_fail(e, n, FL_R_CONF_RANGE,
                                kind == FL_LOSS_PINBALL
                                    ? "quantiles are missing, as {pinball: {quantiles: [0.1, 0.5]}}"
                                    : "cross_entropy, binary, mse, huber or pinball is wanted");
        }
        *ret = (struct fl_loss){.kind = (enum fl_loss_kind)kind, .delta = 1};
        return 0;
    }
    if (!only) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "one word, or a map with one key, is wanted");
    }
    int r = fl_conf_decode(n, words, each, e);
    if (r) {
        return r;
    }
    while (strcmp(words[kind].name, only->key) != 0) {
        kind++;
    }
    *ret = each[kind];
    ret->kind = (enum fl_loss_kind)kind;
    return 0;
}

int fl_plan_loss(const struct fl_conf_node *n, const struct fl_conf_node *model,
                 struct fl_spec *spec, struct fl_err *e)
{
    spec->loss = (struct fl_loss){.kind = spec->targets ? FL_LOSS_MSE : FL_LOSS_CROSS_ENTROPY};
    int r = n ? decode(n, &spec->loss, e) : 0;
    if (r) {
        return r;
    }
    bool numbers = fl_loss_is_regression(&spec->loss);
    if (numbers ? spec->classes || !spec->targets : !spec->classes || spec->targets) {
        return fl_conf_fail_key(
            e, n ? n : model,
            spec->classes && spec->targets ? FL_R_CONF_CONFLICT : FL_R_CONF_MISSING,
            spec->classes && spec->targets ? "classes and targets: a model has one of them"
            : numbers                      ? "a loss of numbers needs targets (how many numbers)"
                                           : "classes is missing (or targets, for numbers)");
    }
    return 0;
}
