/*
 * A strategy of two exchanges, which exists to show that the core knows exchanges and not methods:
 * members first send a descriptor; its sum becomes part of the state; then they send an update,
 * which counts by the descriptors' mean. Nothing of it is published between: after a crash it is
 * computed again from the first exchange's closed records.
 */
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "tests/sim/world.h"

#include <string.h>

struct two {
    int64_t described[ELEMENTS]; /* sums of the last descriptors */
    uint64_t weight;
};

struct two_slot {
    int64_t sum[ELEMENTS];
    uint64_t weight;
    uint32_t members;
};

static int two_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    (void)shared;
    (void)plan;
    (void)e;
    return 0;
}

static void two_fini(void *shared)
{
    (void)shared;
}

static uint32_t two_slots(const void *shared)
{
    (void)shared;
    return 1;
}

static int two_slot_new(const void *shared, void **ret, struct fl_err *e)
{
    (void)shared;
    (void)e;
    *ret = fl_new(1, sizeof(struct two_slot));
    return 0;
}

static void two_slot_reset(const void *shared, void *slot)
{
    (void)shared;
    memset(slot, 0, sizeof(struct two_slot));
}

static void two_slot_free(void *slot)
{
    fl_free(slot);
}

static int two_place(const void *shared, const uint64_t *agents, uint32_t count, uint32_t *ret_slot,
                     struct fl_err *e)
{
    (void)shared;
    (void)agents;
    (void)e;
    memset(ret_slot, 0, count * sizeof *ret_slot);
    return 0;
}

static int two_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e)
{
    struct two_slot *t = slot;
    struct fl_grid g = {.bits = 16, .step = -6};
    uint8_t bytes[UPDATE_SIZE];
    int r = u->read(u->arg, 0, bytes, sizeof bytes, e);

    (void)shared;
    if (r == 0) {
        r = fl_grid_fold(&g, bytes, sizeof bytes, 0, ELEMENTS, u->weight, t->sum, e);
    }
    t->weight += u->weight;
    t->members++;
    return r;
}

/* Into `shared`, where the second exchange's finish finds it. */
static int two_between(void *shared, void *const *slots, uint32_t exchange,
                       const struct fl_updates *updates, struct fl_err *e)
{
    struct two *s = shared;
    const struct two_slot *t = slots[0];

    (void)exchange;
    (void)updates;
    (void)e;
    memcpy(s->described, t->sum, sizeof s->described);
    s->weight = t->weight;
    return 0;
}

static void two_save(const void *shared, uint8_t *to);

static int two_finish(const void *shared, void *const *slots, uint32_t exchange,
                      struct fl_next *next, struct fl_err *e)
{
    const struct two *s = shared;
    const struct two_slot *t = slots[0];
    float x[ELEMENTS];
    int r = next->base(next->arg, 0, 0, ELEMENTS, x, e);

    (void)exchange;
    next->members = t->members;
    next->weight = t->weight;
    for (size_t k = 0; k < ELEMENTS; k++) {
        double described = (double)s->described[k] / (double)s->weight / 128.0;
        double mean = (double)t->sum[k] / 64.0 / (double)t->weight;
        x[k] = (float)((double)x[k] + described * mean);
    }
    two_save(s, next->state);
    return r ? r : next->put(next->arg, 0, 0, ELEMENTS, x, e);
}

static size_t two_state_size(const void *shared)
{
    (void)shared;
    return sizeof((struct two *)0)->described + sizeof((struct two *)0)->weight;
}

static void two_save(const void *shared, uint8_t *to)
{
    const struct two *s = shared;
    memcpy(to, s->described, sizeof s->described);
    memcpy(to + sizeof s->described, &s->weight, sizeof s->weight);
}

static int two_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct two *s = shared;

    memset(s->described, 0, sizeof s->described);
    s->weight = 0;
    if (size != 0 && size != two_state_size(s)) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "state of %zu bytes", size);
    }
    if (size != 0) {
        memcpy(s->described, from, sizeof s->described);
        memcpy(&s->weight, from + sizeof s->described, sizeof s->weight);
    }
    return 0;
}

const struct fl_strategy sim_twostep = {
    .name = "twostep",
    .shared_size = sizeof(struct two),
    .init = two_init,
    .fini = two_fini,
    .slots = two_slots,
    .slot_new = two_slot_new,
    .slot_reset = two_slot_reset,
    .slot_free = two_slot_free,
    .place = two_place,
    .fold = two_fold,
    .between = two_between,
    .finish = two_finish,
    .state_size = two_state_size,
    .save = two_save,
    .load = two_load,
};
