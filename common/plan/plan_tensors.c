/* `model.tensors`: a network as the list of its tensors, for `trainer: exec`. */
#include "common/plan/plan_check.h"

#include <stdio.h>
#include <string.h>

struct tensor_raw {
    struct fl_tensor tensor;
    uint32_t shape[4], rank;
    bool private_;
    unsigned start; /* 0: by the rank */
};

static const char *const start_words[] = {"", "fan_in", "zeros", "ones", NULL};

static const struct fl_conf_field tensor_keys[] = {
    {.name = "name",
     .type = FL_CONF_STRING,
     .offset = offsetof(struct tensor_raw, tensor.name),
     .size = FL_SPEC_NAME_MAX,
     .min = 1,
     .flags = FL_CONF_REQUIRED},
    {.name = "shape",
     .type = FL_CONF_UINT32S,
     .offset = offsetof(struct tensor_raw, shape),
     .min = 1,
     .max = 1 << 30,
     .items_max = 4,
     .count_offset = offsetof(struct tensor_raw, rank),
     .flags = FL_CONF_REQUIRED},
    {.name = "private", .type = FL_CONF_BOOL, .offset = offsetof(struct tensor_raw, private_)},
    {.name = "start",
     .type = FL_CONF_ENUM,
     .offset = offsetof(struct tensor_raw, start),
     .words = start_words},
    {.name = NULL},
};

int fl_plan_tensors(const struct fl_conf_node *list, struct fl_tensors *ret, struct fl_err *e)
{
    if (list->kind != FL_CONF_KIND_LIST || list->count == 0 || list->count > FL_SPEC_TENSORS_MAX) {
        return fl_conf_fail(e, list, FL_R_CONF_TYPE, "a list of 1 to %d tensors",
                            FL_SPEC_TENSORS_MAX);
    }
    for (const struct fl_conf_node *n = list->first; n; n = n->next) {
        struct tensor_raw raw = {.rank = 0};
        if (!fl_conf_is_map(n)) {
            return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a tensor is a map with name and shape");
        }
        int r = fl_conf_decode(n, tensor_keys, &raw, e);
        if (r) {
            return r;
        }
        struct fl_tensor *t = &ret->at[ret->count++];
        *t = raw.tensor;
        t->rank = raw.rank;
        memcpy(t->shape, raw.shape, sizeof t->shape);
        t->group = raw.private_ ? FL_GROUP_PRIVATE : FL_GROUP_SHARED;
        t->init = raw.start      ? (enum fl_init)(raw.start - 1)
                  : raw.rank > 1 ? FL_INIT_FAN_IN
                                 : FL_INIT_ZERO;
    }
    return 0;
}
