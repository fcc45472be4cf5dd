#include "server/strategy/personal.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_SIZE = 4, HOME_SIZE = 20 }; /* of the state */

/* ---- shared ---- */

int fl_personal_init(struct fl_personal *s, const struct fl_personal_method *method,
                     const struct fl_plan *plan, struct fl_err *e)
{
    const struct fl_tensors *table = &plan->layout.shared;

    s->method = method;
    s->setting = plan->setting;
    s->grid = (struct fl_grid){.bits = plan->grid.bits, .step = plan->grid.step};
    s->elements = table->elements;
    s->max_weight = plan->weighting == FL_WEIGHT_EXAMPLES ? plan->max_weight : 1;
    s->most = plan->setting.homes;
    s->rounds = plan->rounds;
    if (!fl_grid_bytes(&s->grid, s->elements, &s->update_size)) {
        return fl_fail(e, FL_R_LIMIT, "a model of %zu elements", s->elements);
    }
    s->part = fl_try(table->count ? table->count : 1, sizeof *s->part);
    s->home = fl_try(s->most ? s->most : 1, sizeof *s->home);
    if (!s->part || !s->home) {
        fl_personal_fini(s);
        return fl_fail(e, FL_R_NOMEM, "homes of %u agents", s->most);
    }
    for (s->part_count = 0; s->part_count < table->count; s->part_count++) {
        const struct fl_tensor *t = &table->at[s->part_count];
        s->part[s->part_count] = (struct fl_part){t->offset, t->count, t->buffer};
    }
    return 0;
}

void fl_personal_fini(void *shared)
{
    struct fl_personal *s = shared;

    fl_free(s->part);
    fl_free(s->home);
    s->part = NULL;
    s->home = NULL;
}

uint32_t fl_personal_slots(const void *shared)
{
    return 1 + ((const struct fl_personal *)shared)->home_count;
}

/* Its index, or home_count. */
static uint32_t home_of(const struct fl_personal *s, uint64_t agent)
{
    uint32_t low = 0, high = s->home_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->home[middle].agent < agent) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->home_count && s->home[low].agent == agent ? low : s->home_count;
}

static uint32_t slot_of(const struct fl_personal *s, uint64_t agent)
{
    uint32_t home = home_of(s, agent);

    return home < s->home_count ? 1 + home : 0;
}

int fl_personal_place(const void *shared, const uint64_t *agents, uint32_t count,
                      uint32_t *ret_slot, struct fl_err *e)
{
    (void)e;
    for (uint32_t i = 0; i < count; i++) {
        ret_slot[i] = slot_of(shared, agents[i]);
    }
    return 0;
}

/* ---- state: u32 homes; of each u64 agent, u64 round, u32 weight. As long as `most` need, since
 * its length is asked before anybody knows how many there will be. ---- */

size_t fl_personal_state_size(const void *shared)
{
    return HEAD_SIZE + HOME_SIZE * (size_t)((const struct fl_personal *)shared)->most;
}

static void put_home(uint8_t *state, uint32_t i, const struct fl_home *h)
{
    uint8_t *to = state + HEAD_SIZE + HOME_SIZE * (size_t)i;

    fl_put_u32(state, i + 1);
    fl_put_u64(to, h->agent);
    fl_put_u64(to + 8, h->round);
    fl_put_u32(to + 16, h->weight);
}

void fl_personal_save(const void *shared, uint8_t *to)
{
    const struct fl_personal *s = shared;

    memset(to, 0, fl_personal_state_size(s));
    for (uint32_t i = 0; i < s->home_count; i++) {
        put_home(to, i, &s->home[i]);
    }
}

int fl_personal_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct fl_personal *s = shared;
    uint32_t count = size == fl_personal_state_size(s) ? fl_get_u32(from) : s->most + 1;

    s->home_count = 0;
    if (count > s->most) {
        return fl_fail(e, FL_R_STORE_MISMATCH,
                       "strategy state of %zu bytes is not that of at most %u agents", size,
                       s->most);
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *at = from + HEAD_SIZE + HOME_SIZE * (size_t)i;
        struct fl_home h = {fl_get_u64(at), fl_get_u64(at + 8), fl_get_u32(at + 16)};
        if (h.round == 0 || h.weight == 0 || (i > 0 && h.agent <= s->home[i - 1].agent)) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "home %u of the strategy state", i);
        }
        s->home[i] = h;
    }
    s->home_count = count;
    return 0;
}

/* ---- slots and folds: everything is computed from the updates themselves, in finish ---- */

int fl_personal_slot_new(const void *shared, void **ret, struct fl_err *e)
{
    uint8_t *slot = fl_try(1, 1);

    (void)shared;
    *ret = slot;
    return slot ? 0 : fl_fail(e, FL_R_NOMEM, "a slot");
}

void fl_personal_slot_reset(const void *shared, void *slot)
{
    (void)shared;
    (void)slot;
}

void fl_personal_slot_free(void *slot)
{
    fl_free(slot);
}

int fl_personal_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e)
{
    const struct fl_personal *s = shared;

    (void)slot;
    if (u->size != s->update_size) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "an update of %llu bytes for %zu elements of %u bits",
                       (unsigned long long)u->size, s->elements, s->grid.bits);
    }
    if (u->weight == 0 || u->weight > s->max_weight) {
        return fl_fail(e, FL_R_UPDATE_RANGE, "weight %u is not 1 to %u", u->weight, s->max_weight);
    }
    return 0;
}

/* ---- rows ---- */

void fl_rows_fini(struct fl_rows *rows)
{
    fl_free(rows->at);
    fl_free(rows->bytes);
    fl_free(rows->q);
}

static int longest_away(const void *a, const void *b)
{
    const struct fl_row *x = *(const struct fl_row *const *)a,
                        *y = *(const struct fl_row *const *)b;

    return x->home.round != y->home.round ? (x->home.round < y->home.round ? -1 : 1)
                                          : (x->home.agent < y->home.agent ? -1 : 1);
}

/* Takes out those beyond `most`. */
static int forget(struct fl_rows *rows, struct fl_err *e)
{
    uint32_t away = rows->count - rows->fresh, over = rows->count - rows->s->most, n = 0;
    struct fl_row **list = NULL;

    if (rows->count <= rows->s->most) {
        return 0;
    }
    if (rows->fresh > rows->s->most) {
        return fl_fail(e, FL_R_LIMIT, "%u members and homes for %u", rows->fresh, rows->s->most);
    }
    list = fl_try(away, sizeof *list);
    if (!list) {
        return fl_fail(e, FL_R_NOMEM, "a list of %u agents", away);
    }
    for (uint32_t i = 0; i < rows->count; i++) {
        if (!rows->at[i].update) {
            list[n++] = &rows->at[i];
        }
    }
    qsort(list, n, sizeof *list, longest_away);
    for (uint32_t i = 0; i < over; i++) {
        list[i]->home.round = 0; /* marks it */
    }
    fl_free(list);
    n = 0;
    for (uint32_t i = 0; i < rows->count; i++) {
        if (rows->at[i].home.round > 0) {
            rows->at[n++] = rows->at[i];
        }
    }
    rows->count = n;
    return 0;
}

/* Homes and members, merged by agent. */
static int merge(struct fl_rows *rows, const struct fl_updates *updates, uint64_t round,
                 struct fl_err *e)
{
    const struct fl_personal *s = rows->s;
    uint32_t i = 0, k = 0;

    rows->at = fl_try(s->home_count + updates->count + 1, sizeof *rows->at);
    if (!rows->at) {
        return fl_fail(e, FL_R_NOMEM, "a list of %u agents", s->home_count + updates->count);
    }
    while (i < s->home_count || k < updates->count) {
        uint64_t home = i < s->home_count ? s->home[i].agent : UINT64_MAX;
        const struct fl_update *u = k < updates->count ? &updates->at[k] : NULL;
        struct fl_row *row = &rows->at[rows->count++];
        if (u && k > 0 && u->agent <= updates->at[k - 1].agent) {
            return fl_fail(e, FL_R_INTERNAL, "agent %llu is in one round twice",
                           (unsigned long long)u->agent);
        }
        if (u && u->agent <= home) {
            *row = (struct fl_row){.home = {u->agent, round, u->weight},
                                   .slot = u->agent == home ? 1 + i : 0,
                                   .update = u};
            rows->fresh++;
            i += u->agent == home;
            k++;
        } else {
            *row = (struct fl_row){.home = s->home[i], .slot = 1 + i};
            i++;
        }
    }
    return forget(rows, e);
}

int fl_personal_next_slots(const void *shared, void *const *slots, const struct fl_updates *updates,
                           uint32_t *ret, struct fl_err *e)
{
    struct fl_rows rows = {.s = shared};
    int r = merge(&rows, updates, 1, e);

    (void)slots;
    if (r == 0) {
        *ret = 1 + rows.count;
    }
    fl_rows_fini(&rows);
    return r;
}

int fl_rows_read(const struct fl_rows *rows, uint32_t row, size_t first, size_t count,
                 float *before, float *after, struct fl_err *e)
{
    const struct fl_personal *s = rows->s;
    const struct fl_row *at = &rows->at[row];
    const struct fl_next *next = rows->next;
    double step = ldexp(1, s->grid.step);
    float base[FL_ROWS_TILE];
    /* Whole bytes of the packed update: from a multiple of eight values to the next, or its end. */
    size_t from = first / 8 * 8, end = (first + count + 7) / 8 * 8;

    assert(count <= FL_ROWS_TILE);
    int r = next->base(next->arg, at->slot, first, count, base, e);
    if (r == 0 && before) {
        memcpy(before, base, count * sizeof *base);
    }
    if (r == 0 && after && at->update) {
        const struct fl_update *u = at->update;
        size_t values = (end < s->elements ? end : s->elements) - from;
        size_t size = (values * s->grid.bits + 7) / 8;
        r = u->read(u->arg, from / 8 * s->grid.bits, rows->bytes, size, e);
        r = r ? r : fl_grid_unpack(&s->grid, rows->bytes, size, first - from, count, rows->q, e);
        for (size_t k = 0; r == 0 && k < count; k++) {
            base[k] = (float)((double)base[k] + (double)rows->q[k] * step);
        }
        if (r) {
            return fl_wrap(e, r, "update of agent %llu, elements from %zu",
                           (unsigned long long)u->agent, first);
        }
    }
    if (r == 0 && after) {
        memcpy(after, base, count * sizeof *base);
    }
    return r;
}

int fl_rows_init(struct fl_rows *rows, const struct fl_personal *s, const struct fl_next *next,
                 struct fl_err *e)
{
    *rows = (struct fl_rows){.s = s, .next = next};
    int r = merge(rows, &next->updates, next->round, e);
    if (r == 0) {
        rows->bytes = fl_try(FL_ROWS_TILE + 16, 4);
        rows->q = fl_try(FL_ROWS_TILE, sizeof *rows->q);
        r = rows->bytes && rows->q ? 0 : fl_fail(e, FL_R_NOMEM, "a tile");
    }
    if (r == 0 && next->put_count != 1 + rows->count) {
        r = fl_fail(e, FL_R_INTERNAL, "%u models for %u agents", next->put_count, rows->count);
    }
    if (r) {
        fl_rows_fini(rows);
    }
    return r;
}

/* ---- finish ---- */

struct finish {
    struct fl_rows rows;
    struct fl_personal_masks masks;
    double *a, *b;  /* (1 + rows) x rows: first the global model's; and that one again */
    uint32_t *mask; /* of each model that comes out */
    float *before;  /* a tile */
    double moved;   /* of the global model, squared */
};

static int give_row(void *arg, uint32_t row, size_t first, size_t count, float *to,
                    uint8_t *critical, struct fl_err *e)
{
    struct finish *f = arg;
    int r = fl_rows_read(&f->rows, row, first, count, f->before, to, e);

    if (r == 0 && critical) {
        f->masks.of(f->masks.arg, row, first, count, f->before, to, critical);
    }
    return r;
}

static int take_model(void *arg, uint32_t out, size_t first, size_t count, float *values,
                      const uint8_t *critical, struct fl_err *e)
{
    struct finish *f = arg;
    const struct fl_next *next = f->rows.next;

    if (out == 0) {
        int r = next->base(next->arg, 0, first, count, f->before, e);
        if (r) {
            return r;
        }
        for (size_t k = 0; k < count; k++) {
            double by = (double)values[k] - (double)f->before[k];
            f->moved += by * by;
        }
    }
    if (critical && f->masks.keep) {
        f->masks.keep(values, count, critical);
    }
    return next->put(next->arg, out, first, count, values, e);
}

/* The global model, and those that stay as they are. */
static void weigh_plain(struct finish *f, uint64_t total)
{
    uint32_t n = f->rows.count;

    for (uint32_t j = 0; j < n; j++) {
        const struct fl_row *row = &f->rows.at[j];
        f->b[j] = row->update ? (double)row->update->weight / (double)total : 0;
        if (!row->update) {
            f->a[(size_t)(1 + j) * n + j] = 1;
        }
        f->mask[1 + j] = FL_MIX_PLAIN;
    }
    memcpy(f->a, f->b, n * sizeof *f->b);
    f->mask[0] = FL_MIX_PLAIN;
}

static int mix_all(struct finish *f, uint64_t total, struct fl_err *e)
{
    const struct fl_personal *s = f->rows.s;
    uint32_t n = f->rows.count;

    f->a = fl_try((size_t)(1 + n) * n, sizeof *f->a);
    f->b = fl_try(n, sizeof *f->b);
    f->mask = fl_try(1 + n, sizeof *f->mask);
    f->before = fl_try(FL_ROWS_TILE, sizeof *f->before);
    if (!f->a || !f->b || !f->mask || !f->before) {
        return fl_fail(e, FL_R_NOMEM, "a mix of %u models", n);
    }
    weigh_plain(f, total);
    int r = s->method->weigh(&f->rows, f->a + n, &f->masks, e);
    for (uint32_t j = 0; f->masks.of && j < n; j++) {
        f->mask[1 + j] = f->rows.at[j].update ? j : FL_MIX_PLAIN;
    }
    const struct fl_mix m = {.rows = n,
                             .outs = 1 + n,
                             .a = f->a,
                             .b = f->b,
                             .mask = f->mask,
                             .row = give_row,
                             .put = take_model,
                             .arg = f};
    return r ? r : fl_mix(&m, s->elements, e);
}

int fl_personal_keep(const struct fl_next *next, size_t elements, struct fl_err *e)
{
    float tile[FL_ROWS_TILE];
    int r = 0;

    for (uint32_t slot = 0; slot < next->put_count; slot++) {
        for (size_t first = 0; r == 0 && first < elements; first += FL_ROWS_TILE) {
            size_t count = elements - first < FL_ROWS_TILE ? elements - first : FL_ROWS_TILE;
            r = next->base(next->arg, slot, first, count, tile, e);
            r = r ? r : next->put(next->arg, slot, first, count, tile, e);
        }
    }
    return r;
}

void fl_rows_save(const struct fl_rows *rows, struct fl_next *next)
{
    next->members = rows->fresh;
    next->weight = 0;
    memset(next->state, 0, fl_personal_state_size(rows->s));
    for (uint32_t j = 0; j < rows->count; j++) {
        next->weight += rows->at[j].update ? rows->at[j].update->weight : 0;
        put_home(next->state, j, &rows->at[j].home);
    }
}

int fl_personal_finish(const void *shared, void *const *slots, uint32_t exchange,
                       struct fl_next *next, struct fl_err *e)
{
    const struct fl_personal *s = shared;
    struct finish f = {.moved = 0};
    int r = fl_rows_init(&f.rows, s, next, e);

    (void)slots;
    (void)exchange;
    if (r) {
        return r;
    }
    assert(next->state_size == fl_personal_state_size(s));
    fl_rows_save(&f.rows, next);
    r = f.rows.fresh ? mix_all(&f, next->weight, e) : fl_personal_keep(next, s->elements, e);
    next->update_norm = sqrt(f.moved);
    if (f.masks.free) {
        f.masks.free(f.masks.arg);
    }
    fl_free(f.a);
    fl_free(f.b);
    fl_free(f.mask);
    fl_free(f.before);
    fl_rows_fini(&f.rows);
    return r;
}
