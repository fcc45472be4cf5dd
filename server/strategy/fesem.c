#include "server/strategy/fesem.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "server/strategy/clusters.h"
#include "server/strategy/mix.h"

#include <math.h>
#include <string.h>

enum { KNOWN_MAX = 1 << 16 }; /* sites whose model is remembered */

/* One finish. Rows of the mix: what each member trained, then the models as they were. */
struct steps {
    const struct fl_clusters *c;
    struct fl_next *next;
    size_t tile;
    struct fl_who *who; /* of this round's members: before, then after the E step */
    double *distance;   /* members x models, squared */
    double *a;          /* models x rows */
    float *base, *trained;
    uint8_t *packed;
    int64_t *q;
    double moved; /* of all models, squared */
};

/* ---- where a site is ---- */

/* Dealt out at first, evenly and by the job's seed. */
static uint32_t slot_of(const struct fl_clusters *c, uint64_t agent)
{
    struct fl_seed job, own;
    struct fl_rng rng;
    bool known;
    uint32_t bubble = fl_clusters_of(c, agent, &known);

    if (!known) {
        fl_seed_from_u64(c->plan->seed, &job);
        fl_seed_derive(&job, "dealt to a model", agent, &own);
        fl_rng_init(&rng, &own, 0);
        bubble = (uint32_t)fl_rng_below(&rng, c->count);
        fl_rng_fini(&rng);
    }
    return bubble;
}

static int fesem_place(const void *shared, const uint64_t *agents, uint32_t count,
                       uint32_t *ret_slot, struct fl_err *e)
{
    (void)e;
    for (uint32_t i = 0; i < count; i++) {
        ret_slot[i] = slot_of(shared, agents[i]);
    }
    return 0;
}

/* ---- tiles ---- */

/* Values [first, first + count) of what member i trained; first is a multiple of 64. */
static int read_trained(struct steps *s, uint32_t i, size_t first, size_t count, float *to,
                        struct fl_err *e)
{
    const struct fl_update *u = &s->next->updates.at[i];
    const struct fl_grid g = {s->c->plan->grid.bits, s->c->plan->grid.step};
    size_t bytes = (count * g.bits + 7) / 8;
    double step = ldexp(1, g.step);
    uint32_t slot = slot_of(s->c, u->agent);
    int r = s->next->base(s->next->arg, slot, first, count, to, e);

    r = r ? r : u->read(u->arg, (uint64_t)first / 8 * g.bits, s->packed, bytes, e);
    r = r ? r : fl_grid_unpack(&g, s->packed, bytes, 0, count, s->q, e);
    for (size_t k = 0; r == 0 && k < count; k++) {
        to[k] = (float)((double)to[k] + (double)s->q[k] * step);
    }
    return r ? fl_wrap(e, r, "update of agent %llu, elements from %zu",
                       (unsigned long long)u->agent, first)
             : 0;
}

static int give_row(void *arg, uint32_t row, size_t first, size_t count, float *to,
                    uint8_t *critical, struct fl_err *e)
{
    struct steps *s = arg;
    uint32_t members = s->next->updates.count;

    (void)critical;
    return row < members ? read_trained(s, row, first, count, to, e)
                         : s->next->base(s->next->arg, row - members, first, count, to, e);
}

static int take_model(void *arg, uint32_t out, size_t first, size_t count, float *values,
                      const uint8_t *critical, struct fl_err *e)
{
    struct steps *s = arg;
    int r = s->next->base(s->next->arg, out, first, count, s->base, e);

    (void)critical;
    for (size_t k = 0; r == 0 && k < count; k++) {
        double d = (double)values[k] - (double)s->base[k];
        s->moved += d * d;
    }
    return r ? r : s->next->put(s->next->arg, out, first, count, values, e);
}

/* ---- E, M ---- */

static int measure(struct steps *s, struct fl_err *e)
{
    size_t elements = s->c->plan->layout.shared.elements;
    uint32_t models = s->c->count;
    int r = 0;

    for (size_t first = 0; r == 0 && first < elements; first += s->tile) {
        size_t count = elements - first < s->tile ? elements - first : s->tile;
        for (uint32_t i = 0; r == 0 && i < s->next->updates.count; i++) {
            r = read_trained(s, i, first, count, s->trained, e);
            for (uint32_t m = 0; r == 0 && m < models; m++) {
                double sum = 0;
                r = s->next->base(s->next->arg, m, first, count, s->base, e);
                for (size_t k = 0; r == 0 && k < count; k++) {
                    double d = (double)s->trained[k] - (double)s->base[k];
                    sum += d * d;
                }
                s->distance[(size_t)i * models + m] += sum;
            }
        }
    }
    return r;
}

/* A model that nobody is nearest to takes the site that is farthest from its own, of those that do
 * not leave theirs empty: otherwise one model would soon have everybody. */
static void fill_empty(struct steps *s, uint32_t *size)
{
    uint32_t models = s->c->count, members = s->next->updates.count;

    for (uint32_t m = 0; m < models; m++) {
        uint32_t far = members;
        double most = 0;
        for (uint32_t i = 0; size[m] == 0 && i < members; i++) {
            uint32_t own = s->who[i].bubble;
            double d = s->distance[(size_t)i * models + own];
            if (size[own] > 1 && d > most) {
                most = d;
                far = i;
            }
        }
        if (far < members) {
            size[s->who[far].bubble]--;
            size[m]++;
            s->who[far].bubble = m;
        }
    }
}

/* Who belongs where from now on, and each model's row of weights. */
static void assign(struct steps *s)
{
    uint32_t models = s->c->count, members = s->next->updates.count;
    size_t rows = (size_t)members + models;
    double total[FL_PLAN_BUBBLES_MAX] = {0};
    uint32_t size[FL_PLAN_BUBBLES_MAX] = {0};

    for (uint32_t i = 0; i < members; i++) {
        const double *d = s->distance + (size_t)i * models;
        uint32_t best = slot_of(s->c, s->next->updates.at[i].agent); /* a tie keeps it */
        for (uint32_t m = 0; m < models; m++) {
            best = d[m] < d[best] ? m : best;
        }
        s->who[i] = (struct fl_who){s->next->updates.at[i].agent, best};
        size[best]++;
    }
    fill_empty(s, size);
    for (uint32_t i = 0; i < members; i++) {
        total[s->who[i].bubble] += s->next->updates.at[i].weight;
    }
    for (uint32_t i = 0; i < members; i++) {
        uint32_t m = s->who[i].bubble;
        s->a[m * rows + i] = s->next->updates.at[i].weight / total[m];
    }
    for (uint32_t m = 0; m < models; m++) {
        s->a[m * rows + members + m] = total[m] > 0 ? 0 : 1;
    }
}

static int steps_init(struct steps *s, const struct fl_clusters *c, struct fl_next *next,
                      struct fl_err *e)
{
    size_t members = next->updates.count, rows = members + c->count;

    *s = (struct steps){.c = c, .next = next, .tile = fl_mix_tile((uint32_t)rows)};
    s->who = fl_try(members + 1, sizeof *s->who);
    s->distance = fl_try(members * c->count + 1, sizeof *s->distance);
    s->a = fl_try(rows * c->count, sizeof *s->a);
    s->base = fl_try(s->tile, sizeof *s->base);
    s->trained = fl_try(s->tile, sizeof *s->trained);
    s->packed = fl_try(s->tile, 4);
    s->q = fl_try(s->tile, sizeof *s->q);
    return s->who && s->distance && s->a && s->base && s->trained && s->packed && s->q
               ? 0
               : fl_fail(e, FL_R_NOMEM, "a mix of %zu models", rows);
}

static void steps_fini(struct steps *s)
{
    fl_free(s->who);
    fl_free(s->distance);
    fl_free(s->a);
    fl_free(s->base);
    fl_free(s->trained);
    fl_free(s->packed);
    fl_free(s->q);
}

/* ---- the table's ---- */

static uint32_t room_of(const struct fl_clusters *c)
{
    uint64_t most = (uint64_t)c->who_count + c->plan->round.members + c->plan->round.over_select;

    return most < KNOWN_MAX ? (uint32_t)most : KNOWN_MAX;
}

/* The next state: as this one, but a round on and with these sites in it. */
static int save_next(const struct steps *s, struct fl_err *e)
{
    struct fl_clusters next = *s->c;
    struct fl_clusters_after after = {.bubbles = next.count};
    struct fl_clusters_more more = {.room = room_of(s->c), .after = &after};
    struct fl_who *all;
    uint32_t count;
    int r = fl_clusters_merge(s->who, s->next->updates.count, next.who, next.who_count, &all,
                              &count, e);

    if (r) {
        return r;
    }
    for (uint32_t i = 0; i < next.count; i++) {
        after.origin[i] = i;
    }
    after.who = all;
    after.who_count = count < KNOWN_MAX ? count : KNOWN_MAX;
    next.round++;
    fl_clusters_save(&next, &more, s->next->state);
    fl_free(all);
    return 0;
}

static int fesem_finish(const void *shared, void *const *slots, uint32_t exchange,
                        struct fl_next *next, struct fl_err *e)
{
    const struct fl_clusters *c = shared;
    struct steps s;
    int r = steps_init(&s, c, next, e);

    (void)slots;
    (void)exchange;
    r = r ? r : measure(&s, e);
    if (r == 0) {
        assign(&s);
        const struct fl_mix mix = {.rows = next->updates.count + c->count,
                                   .outs = c->count,
                                   .a = s.a,
                                   .row = give_row,
                                   .put = take_model,
                                   .arg = &s};
        r = fl_mix(&mix, c->plan->layout.shared.elements, e);
    }
    r = r ? r : save_next(&s, e);
    next->members = next->updates.count;
    next->weight = 0;
    for (uint32_t i = 0; i < next->updates.count; i++) {
        next->weight += next->updates.at[i].weight;
    }
    next->update_norm = sqrt(s.moved);
    steps_fini(&s);
    return r;
}

static int fesem_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    return fl_clusters_init(shared, plan, plan->setting.bubble.most, e);
}

static void fesem_fini(void *shared)
{
    fl_clusters_fini(shared);
}

static int fesem_explain(const void *shared,
                         void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                         void *arg, struct fl_err *e)
{
    (void)e;
    fl_clusters_explain(shared, "what it last trained was nearest to this model", each, arg);
    return 0;
}

static size_t fesem_state_size(const void *shared)
{
    return fl_clusters_size(shared, room_of(shared), 0);
}

static void fesem_save(const void *shared, uint8_t *to)
{
    const struct fl_clusters_more more = {.room = room_of(shared)};

    fl_clusters_save(shared, &more, to);
}

static int fesem_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    const uint8_t *more;
    size_t length;

    return fl_clusters_load(shared, from, size, &more, &length, e);
}

const struct fl_strategy fl_strategy_fesem = {
    .name = "fesem",
    .shared_size = sizeof(struct fl_clusters),
    .init = fesem_init,
    .fini = fesem_fini,
    .slots = fl_clusters_slots,
    .next_slots = fl_clusters_next_slots,
    .slot_new = fl_clusters_slot_new,
    .slot_reset = fl_clusters_slot_reset,
    .slot_free = fl_clusters_slot_free,
    .place = fesem_place,
    .fold = fl_clusters_fold,
    .finish = fesem_finish,
    .explain = fesem_explain,
    .state_size = fesem_state_size,
    .save = fesem_save,
    .load = fesem_load,
};
