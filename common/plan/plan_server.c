/*
 * `server`: the step of the coordinator along the mean update. Some strategies are FedAvg with one
 * of these optimizers under a name of its own; their word settles `optimizer`, the other keys mean
 * the same.
 */
#include "common/base/mem.h"
#include "common/plan/plan_check.h"

#include <string.h>

static const char *const optimizer_words[] = {"average", "adagrad", "adam", "yogi", NULL};

#define OF                  fl_server_opt_conf
#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)
static const struct fl_conf_field server_keys[] = {
    {TYPED("optimizer", ENUM, optimizer), .words = optimizer_words},
    {TYPED("lr", FLOAT, lr), .max = 100, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("momentum", FLOAT, momentum), .max = 1, .flags = FL_CONF_BELOW_MAX},
    {TYPED("beta2", FLOAT, beta2), .max = 1, .flags = FL_CONF_BELOW_MAX, .fallback = "0.99"},
    {TYPED("tau", FLOAT, tau), .max = 1e3, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.001"},
    {.name = NULL},
};

static const struct {
    const char *strategy;
    enum fl_server_optimizer optimizer;
} named[] = {
    {"fedadagrad", FL_SERVER_ADAGRAD},
    {"fedadam", FL_SERVER_ADAM},
    {"fedavgm", FL_SERVER_AVERAGE},
    {"fedyogi", FL_SERVER_YOGI},
};

int fl_plan_server(const struct fl_conf_node *n, struct fl_plan *plan, struct fl_err *e)
{
    static const struct fl_conf_node absent = {.kind = FL_CONF_KIND_MAP};
    struct fl_server_opt_conf *s = &plan->server;
    size_t i = 0;

    n = n ? n : &absent;
    *s = (struct fl_server_opt_conf){.momentum = -1};
    int r = fl_conf_decode(n, server_keys, s, e);
    if (r) {
        return r;
    }
    while (i < FL_COUNT(named) && strcmp(named[i].strategy, plan->strategy) != 0) {
        i++;
    }
    bool word = i < FL_COUNT(named);
    const struct fl_conf_node *optimizer = fl_conf_find(n, "optimizer");
    if (word && optimizer && s->optimizer != named[i].optimizer) {
        return fl_conf_fail(
            e, optimizer, FL_R_CONF_CONFLICT,
            "strategy %s is the optimizer %s; with strategy fedavg it can be chosen",
            plan->strategy, optimizer_words[named[i].optimizer]);
    }
    s->optimizer = word ? named[i].optimizer : s->optimizer;
    bool adaptive = s->optimizer != FL_SERVER_AVERAGE;
    s->lr = s->lr > 0 ? s->lr : adaptive ? 0.1f : 1;
    /* Adagrad as published has none. */
    s->momentum = s->momentum >= 0                    ? s->momentum
                  : s->optimizer == FL_SERVER_ADAGRAD ? 0
                  : adaptive || word                  ? 0.9f
                                                      : 0;
    return 0;
}
