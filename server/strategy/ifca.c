/*
 * IFCA (Ghosh et al. 2020, arXiv 2006.04088, algorithm 1): K models, begun apart; in each round
 * every member gets all of them, says which has the least loss on its own training examples (the
 * exchange `choice`), trains that one, and each model becomes the mean of those who chose it.
 *
 * A site that does not take part keeps its last choice. The choice is a release that no noise
 * protects, so there is no row for it in the table of releases, and no privacy unit.
 */
#include "server/strategy/ifca.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "server/strategy/clusters.h"

enum { KNOWN_MAX = 1 << 16 }; /* sites whose last choice is kept */

static int ifca_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    return fl_clusters_init(shared, plan, plan->setting.bubble.most, e);
}

static void ifca_fini(void *shared)
{
    fl_clusters_fini(shared);
}

static int read_choice(const struct fl_clusters *c, const struct fl_update *u, struct fl_who *ret,
                       struct fl_err *e)
{
    const struct fl_grid g = {.bits = FL_CHOICE_BITS, .step = 0};
    uint8_t bytes[1];
    int64_t q = 0;

    if (u->size != sizeof bytes) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "a choice of %llu bytes",
                       (unsigned long long)u->size);
    }
    int r = u->read(u->arg, 0, bytes, sizeof bytes, e);
    r = r ? r : fl_grid_unpack(&g, bytes, sizeof bytes, 0, 1, &q, e);
    /* A hostile one: what it trains and sends is then of the first model. */
    *ret = (struct fl_who){u->agent, q >= 0 && q < c->count ? (uint32_t)q : 0};
    return r;
}

static int ifca_between(void *shared, void *const *slots, uint32_t exchange,
                        const struct fl_updates *updates, struct fl_err *e)
{
    struct fl_clusters *c = shared;
    uint32_t count = updates->count;
    struct fl_who *now = fl_try(count ? count : 1, sizeof *now), *all = NULL;
    int r = now ? 0 : fl_fail(e, FL_R_NOMEM, "%u choices", count);

    (void)slots;
    (void)exchange;
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        r = read_choice(c, &updates->at[i], &now[i], e);
    }
    if (r == 0 && count + c->began_count <= KNOWN_MAX) {
        r = fl_clusters_merge(now, count, c->began, c->began_count, &all, &count, e);
    } else if (r == 0) { /* too many to remember: those of this round */
        all = now;
        now = NULL;
    }
    if (r == 0) {
        fl_clusters_move(c, all, count);
    }
    fl_free(now);
    return r;
}

static struct fl_clusters_more more_of(const struct fl_clusters *c)
{
    return (struct fl_clusters_more){.room = c->who_count};
}

static int ifca_finish(const void *shared, void *const *slots, uint32_t exchange,
                       struct fl_next *next, struct fl_err *e)
{
    const struct fl_clusters_more more = more_of(shared);

    (void)slots;
    return fl_clusters_finish(shared, exchange, &more, next, e);
}

/* Which models are near each other nobody says: a choice that too few make has no sum. */
static int ifca_groups(const void *shared, const struct fl_groups_terms *terms,
                       const uint64_t *agents, uint32_t count, uint32_t *ret_group,
                       struct fl_err *e)
{
    return fl_clusters_groups(shared, NULL, terms, agents, count, ret_group, e);
}

static size_t ifca_state_size(const void *shared)
{
    return fl_clusters_size(shared, more_of(shared).room, 0);
}

static void ifca_save(const void *shared, uint8_t *to)
{
    const struct fl_clusters_more more = more_of(shared);

    fl_clusters_save(shared, &more, to);
}

static int ifca_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    const uint8_t *more;
    size_t length;

    return fl_clusters_load(shared, from, size, &more, &length, e);
}

static int ifca_explain(const void *shared,
                        void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                        void *arg, struct fl_err *e)
{
    (void)e;
    fl_clusters_explain(shared, "it chose this model for its loss, when it last took part", each,
                        arg);
    return 0;
}

const struct fl_strategy fl_strategy_ifca = {
    .name = "ifca",
    .needs = FL_STRATEGY_SUM_ONLY | FL_STRATEGY_APART,
    .shared_size = sizeof(struct fl_clusters),
    .init = ifca_init,
    .fini = ifca_fini,
    .slots = fl_clusters_slots,
    .next_slots = fl_clusters_next_slots,
    .slot_new = fl_clusters_slot_new,
    .slot_reset = fl_clusters_slot_reset,
    .slot_free = fl_clusters_slot_free,
    .place = fl_clusters_place,
    .fold = fl_clusters_fold,
    .between = ifca_between,
    .groups = ifca_groups,
    .finish = ifca_finish,
    .explain = ifca_explain,
    .state_size = ifca_state_size,
    .save = ifca_save,
    .load = ifca_load,
};
