/* What a coordinator computes with in a round, as server/co_sums.c is the real one: the strategy's
 * state of the published checkpoint, and running sums for each of its models. */
#include "tests/sim/world.h"

#include "common/base/mem.h"
#include "tests/lib/next_memory.h"

#include <string.h>

/* The checkpoint that a job begins with. */
void sums_initial(struct world *w)
{
    const struct fl_strategy *strategy = w->strategy;
    void *shared = fl_new(1, strategy->shared_size);
    struct fl_err e = {0};

    if (strategy->init(shared, w->plan, &e) != 0) {
        sim_fail(w, "the strategy does not begin: %s", e.msg);
    }
    w->disk.models = strategy->slots(shared);
    w->disk.state_size = strategy->state_size(shared);
    strategy->save(shared, w->disk.state);
    strategy->fini(shared);
    fl_free(shared);
}

void sums_begin(struct world *w, struct sim_sums *s)
{
    const struct fl_strategy *strategy = w->strategy;
    struct fl_err e = {0};

    s->shared = fl_new(1, strategy->shared_size);
    if (strategy->init(s->shared, w->plan, &e) != 0 ||
        strategy->load(s->shared, w->disk.state, w->disk.state_size, &e) != 0) {
        sim_fail(w, "the strategy does not begin: %s", e.msg);
    }
    s->models = strategy->slots(s->shared);
    if (s->models != w->disk.models) {
        sim_fail(w, "%u models, and the strategy has %u", w->disk.models, s->models);
    }
    memcpy(s->model, w->disk.model, sizeof s->model);
    for (uint32_t i = 0; i < s->models; i++) {
        if (strategy->slot_new(s->shared, &s->slot[i], &e) != 0) {
            sim_fail(w, "slot %u: %s", i, e.msg);
        }
    }
}

void sums_end(struct world *w, struct sim_sums *s)
{
    for (uint32_t i = 0; i < s->models; i++) {
        w->strategy->slot_free(s->slot[i]);
    }
    w->strategy->fini(s->shared);
    fl_free(s->shared);
    memset(s, 0, sizeof *s);
}

void sums_reset(struct world *w, struct sim_sums *s)
{
    for (uint32_t i = 0; i < s->models; i++) {
        w->strategy->slot_reset(s->shared, s->slot[i]);
    }
}

static uint32_t slot_of(struct world *w, const struct sim_sums *s, uint64_t agent)
{
    uint32_t slot = UINT32_MAX;

    if (w->strategy->place(s->shared, &agent, 1, &slot, NULL) != 0 || slot >= s->models) {
        sim_fail(w, "agent %d is in slot %u of %u", (int)agent, slot, s->models);
    }
    return slot;
}

struct fl_digest sums_base(struct world *w, const struct sim_sums *s, uint64_t agent)
{
    struct fl_digest ret;

    fl_digest_of(s->model[slot_of(w, s, agent)], sizeof s->model[0], &ret);
    return ret;
}

static int read_bytes(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static struct fl_update update_of(const struct disk_update *u)
{
    return (struct fl_update){.agent = u->agent,
                              .exchange = u->exchange,
                              .weight = u->weight,
                              .size = u->size,
                              .read = read_bytes,
                              .arg = (void *)(uintptr_t)u->bytes};
}

int sums_fold(struct world *w, struct sim_sums *s, const struct disk_update *u)
{
    const struct fl_update f = update_of(u);

    return w->strategy->fold(s->slot[slot_of(w, s, u->agent)], s->shared, &f, NULL);
}

/* The updates of a closed exchange are looked at again, as strategies may. */
static struct fl_updates closed_updates(struct world *w, uint32_t exchange, struct fl_update *list)
{
    const struct disk *d = &w->disk;

    for (uint32_t i = 0; i < d->listed[exchange]; i++) {
        list[i] = update_of(disk_find(d, d->published + 1, exchange, d->list[exchange][i]));
    }
    return (struct fl_updates){.count = d->listed[exchange], .at = list};
}

int sums_between(struct world *w, struct sim_sums *s, uint32_t exchange)
{
    struct fl_update list[SITES_MAX];
    const struct fl_updates updates = closed_updates(w, exchange, list);

    return w->strategy->between(s->shared, s->slot, exchange, &updates, NULL);
}

int sums_finish(struct world *w, struct sim_sums *s, uint32_t exchange, struct sim_made *ret)
{
    const struct fl_strategy *strategy = w->strategy;
    struct fl_update list[SITES_MAX];
    const struct fl_updates updates = closed_updates(w, exchange, list);
    struct next_memory m = {.base = s->model[0], .next = ret->model[0], .elements = ELEMENTS};

    memset(ret, 0, sizeof *ret);
    ret->state_size = strategy->state_size(s->shared);
    ret->models = s->models;
    if (ret->state_size > STATE_MAX) {
        sim_fail(w, "a state of %zu bytes", ret->state_size);
    }
    if (strategy->next_slots &&
        strategy->next_slots(s->shared, s->slot, &updates, &ret->models, NULL) != 0) {
        sim_fail(w, "nobody knows how many models there will be");
    }
    struct fl_next n = next_in_memory(&m, s->models, ret->state, ret->state_size);
    n.put_count = ret->models;
    n.updates = updates;
    n.round = w->disk.published + 1;
    int r = strategy->finish(s->shared, s->slot, exchange, &n, NULL);
    if (r == 0 && n.members != w->disk.listed[exchange]) {
        sim_fail(w, "%u updates are in the sum of %u members", n.members, w->disk.listed[exchange]);
    }
    return r;
}
