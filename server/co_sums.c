/*
 * What an open round computes with, and folds: committed payloads become sums. All of it belongs to
 * jobs of the federated job's own lane (class long), in the order in which the round core asked, so
 * that a finish never overtakes a fold. A round's sums end in that lane too (co_round_thaw): work
 * of a round that was given up still finds them.
 */
#include "server/co.h"

#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/plan/adaptive.h"
#include "server/strategy/robust.h"
#include "server/strategy/sumnoise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- life ---- */

void co_sums_free(struct co_sums *s)
{
    if (!s) {
        return;
    }
    for (uint32_t i = 0; i < s->slot_count; i++) {
        s->strategy->slot_free(s->slots[i]);
    }
    for (uint32_t i = 0; i < s->terms_count; i++) {
        if (s->collector[i]) {
            s->collector[i]->fini(s->collected[i]);
        }
    }
    for (uint32_t i = 0; i < s->section_count; i++) {
        fl_free(s->section[i].bytes);
    }
    co_secure_close(s);
    if (s->shared) {
        s->strategy->fini(s->shared);
    }
    fl_object_unref(s->models);
    fl_checkpoint_close(s->base);
    fl_free(s->folded);
    fl_free(s->slots);
    fl_free(s->shared);
    fl_free(s->plan);
    fl_free(s->text);
    fl_free(s);
}

int co_strategy_new(const struct fl_plan *plan, const struct fl_checkpoint *from,
                    const struct fl_strategy **ret, void **ret_shared, struct fl_err *e)
{
    const struct fl_strategy *strategy = fl_strategy_find(plan->strategy);
    uint8_t *state = NULL;

    if (!strategy) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "%s", plan->strategy);
    }
    if (fl_sum_noise_wanted(plan) && !(strategy->needs & FL_STRATEGY_SUM_NOISE)) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "strategy %s cannot noise its sums", plan->strategy);
    }
    int r = fl_robust_check(plan, strategy, e);
    if (r) {
        return r;
    }
    void *shared = fl_try(1, strategy->shared_size);
    r = shared ? strategy->init(shared, plan, e) : fl_fail(e, FL_R_NOMEM, "a strategy");
    if (r) {
        fl_free(shared);
        return r;
    }
    if (from) {
        r = fl_checkpoint_state(from, &state, e);
        r = r ? r : strategy->load(shared, state, (size_t)from->state_size, e);
        fl_free(state);
    }
    if (r == 0 && from && strategy->slots(shared) != from->slots) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "%u models where the strategy has %u", from->slots,
                    strategy->slots(shared));
    }
    if (r) {
        strategy->fini(shared);
        fl_free(shared);
        return r;
    }
    *ret = strategy;
    *ret_shared = shared;
    return 0;
}

void co_note(const struct fl_plan *plan, const struct fl_checkpoint *from, char to[CO_NOTE_MAX])
{
    const struct fl_strategy *strategy = fl_strategy_find(plan->strategy);
    struct fl_err unused = {0};
    void *shared;

    to[0] = 0;
    if (strategy && strategy->note &&
        co_strategy_new(plan, from, &strategy, &shared, &unused) == 0) {
        strategy->note(shared, to, CO_NOTE_MAX);
        strategy->fini(shared);
        fl_free(shared);
    }
}

static int make_slots(struct co_sums *s, struct fl_err *e)
{
    uint32_t slots = s->strategy->slots(s->shared);
    int r = 0;

    s->slots = fl_try(slots, sizeof *s->slots);
    if (!s->slots) {
        return fl_fail(e, FL_R_NOMEM, "%u slots", slots);
    }
    while (r == 0 && s->slot_count < slots) {
        r = s->strategy->slot_new(s->shared, &s->slots[s->slot_count], e);
        s->slot_count += r == 0;
    }
    return r;
}

/* Of adaptive clipping: the clip stands in the model that the round begins with. */
static int take_clip(struct co_sums *s, struct fl_err *e)
{
    const struct fl_tensors *table = &s->plan->layout.shared;
    size_t head;
    float moved = 0;

    if (!s->plan->privacy.adaptive.on) {
        return 0;
    }
    int r = fl_checkpoint_head(s->base, table, &head, e);
    r = r ? r : fl_checkpoint_values(s->base, head, 0, table->elements - 1, 1, &moved, e);
    return r ? r : fl_adaptive_take(s->plan, moved, e);
}

static int sums_init(struct co_sums *s, const struct fl_store *store, const struct co_sums_of *of,
                     struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    int r = fl_plan_parse(s->plan, of->name, of->text, of->size, e);

    if (r) {
        return r;
    }
    s->text = fl_try(of->size + 1, 1);
    if (!s->text) {
        return fl_fail(e, FL_R_NOMEM, "a description");
    }
    memcpy(s->text, of->text, of->size);
    s->text_size = of->size;
    s->round = of->round;
    memcpy(s->incarnation, of->incarnation, sizeof s->incarnation);
    s->store = store;
    fl_store_checkpoint_path(store, of->incarnation, of->round - 1, &of->checkpoint, path);
    if ((r = fl_checkpoint_open(path, of->round - 1, &s->base, e)) != 0 ||
        (r = take_clip(s, e)) != 0 ||
        (r = co_strategy_new(s->plan, s->base, &s->strategy, &s->shared, e)) != 0 ||
        (r = make_slots(s, e)) != 0) {
        return r;
    }
    fl_strategy_rules(s->plan, of->round, &s->rules);
    s->terms_count = fl_plan_exchanges(s->plan, of->round, s->terms);
    for (uint32_t i = 0; r == 0 && i < s->terms_count; i++) {
        const struct fl_collector *c = fl_collector_find(s->terms[i].name);
        r = c ? c->init(s->plan, &s->terms[i], &s->collected[i], e) : 0;
        s->collector[i] = r ? NULL : c;
        if (r == 0 && s->terms[i].models) {
            r = fl_checkpoint_models(s->base, FL_EXCHANGE_BYTES_MAX, &s->models, e);
        }
    }
    return r ? r : co_secure_open(s, of->tls, e);
}

int co_sums_new(const struct fl_store *store, const struct co_sums_of *of, struct co_sums **ret,
                struct fl_err *e)
{
    struct co_sums *s = fl_try(1, sizeof *s);

    if (!s || !(s->plan = fl_try(1, sizeof *s->plan))) {
        fl_free(s);
        return fl_fail(e, FL_R_NOMEM, "the sums of a round");
    }
    int r = sums_init(s, store, of, e);
    if (r) {
        co_sums_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void co_sums_reset(struct co_sums *s, uint32_t exchange)
{
    s->folded_count = 0;
    if (s->collector[exchange]) {
        s->collector[exchange]->reset(s->collected[exchange]);
        return;
    }
    if (s->stage[exchange] < FL_SECAGG_STAGES) {
        fl_secure_reset(s->secure, s->stage[exchange]);
        return;
    }
    for (uint32_t i = 0; i < s->slot_count; i++) {
        s->strategy->slot_reset(s->shared, s->slots[i]);
    }
}

void co_sums_section(struct co_sums *s, const struct fl_section *section)
{
    uint32_t i = 0;

    while (i < s->section_count && strcmp(s->section[i].name, section->name) != 0) {
        i++;
    }
    fl_free(s->section[i].bytes); /* at most one for each exchange */
    s->section[i] = *section;
    s->section_count += i == s->section_count;
}

/* ---- where a member is ---- */

int co_sums_place(const struct co_sums *s, uint64_t agent, uint32_t *ret, struct fl_err *e)
{
    uint32_t slot = 0;
    int r = s->strategy->place(s->shared, &agent, 1, &slot, e);

    if (r == 0 && slot >= s->slot_count) {
        r = fl_fail(e, FL_R_INTERNAL, "slot %u of %u", slot, s->slot_count);
    }
    if (r == 0) {
        *ret = slot;
    }
    return r;
}

uint64_t co_payload_size(const struct co_job *j, uint32_t exchange)
{
    return j->sums && exchange < j->sums->terms_count ? j->sums->terms[exchange].size
                                                      : fl_plan_update_size(j->plan);
}

/* ---- updates ---- */

/* Exactly `size` bytes at `offset` of the descriptor *(int *)arg. */
static int read_fd(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    return fl_file_read_at(*(int *)arg, offset, to, size, e);
}

struct fl_store_update co_update_of(const struct co_job *j, const struct fl_round_item *item)
{
    return (struct fl_store_update){.job = j->id,
                                    .round = item->round,
                                    .agent = item->agent,
                                    .exchange = item->exchange,
                                    .weight = item->weight,
                                    .size = item->size,
                                    .digest = item->digest};
}

static int narrow_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    return fl_narrow_read(arg, offset, to, size, e);
}

/* In which bits a payload came; 0: those of its grid. Sizes tell it, as there are 8 values or more:
 * plan_check.c. */
static uint32_t narrow_bits(const struct fl_exchange_terms *terms, uint64_t size)
{
    for (uint32_t bits = 4; terms->payload == FL_PAYLOAD_GRID && size < terms->size; bits++) {
        if (bits == FL_NARROW_FROM) {
            break;
        }
        if (fl_narrow_is(bits) && fl_narrow_bytes(bits, terms->elements) == size) {
            return bits;
        }
    }
    return 0;
}

struct fl_update
co_update_view(const struct fl_exchange_terms *terms, const struct fl_store_update *u,
               int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e),
               void *arg, struct fl_narrow *narrow)
{
    *narrow = (struct fl_narrow){
        .bits = narrow_bits(terms, u->size), .count = terms->elements, .read = read, .arg = arg};
    return (struct fl_update){.agent = u->agent,
                              .exchange = u->exchange,
                              .weight = u->weight,
                              .size = narrow->bits ? terms->size : u->size,
                              .read = narrow->bits ? narrow_read : read,
                              .arg = narrow->bits ? narrow : arg};
}

int co_update_open(const struct fl_exchange_terms *terms, const struct fl_store_update *u,
                   const char *path, struct co_update_file *file, struct fl_update *ret,
                   struct fl_err *e)
{
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0) {
        return fl_fail_sys(e, fl_file_reason(errno), errno, "open %s", path);
    }
    *ret = co_update_view(terms, u, read_fd, &file->fd, &file->narrow);
    return 0;
}

/* ---- fold ---- */

struct fold_op {
    struct co_op op;
    struct co_sums *sums;
    struct fl_store_update u;
    char path[FL_STORE_PATH_MAX];
};

static int remember(struct co_sums *s, const struct fl_store_update *u, struct fl_err *e)
{
    if (s->folded_count == s->folded_room) {
        uint32_t room = s->folded_room ? 2 * s->folded_room : 64;
        if (room > 2 * FL_ROUND_MEMBERS_MAX ||
            !fl_try_grow((void **)&s->folded, room, sizeof *s->folded)) {
            return fl_fail(e, FL_R_NOMEM, "a list of %u members", room);
        }
        s->folded_room = room;
    }
    s->folded[s->folded_count++] = *u;
    return 0;
}

static int fold_one(struct co_sums *s, const struct fl_update *u, struct fl_err *e)
{
    uint32_t slot = 0;

    if (s->collector[u->exchange]) {
        return s->collector[u->exchange]->fold(s->collected[u->exchange], u, e);
    }
    if (s->stage[u->exchange] < FL_SECAGG_STAGES) {
        return co_secure_fold(s, u, e);
    }
    int r = co_sums_place(s, u->agent, &slot, e);
    return r ? r : s->strategy->fold(s->slots[slot], s->shared, u, e);
}

int co_sums_fold(struct co_sums *s, const struct fl_store_update *u, const char *path,
                 struct fl_err *e)
{
    struct co_update_file file;
    struct fl_update view;
    int r = co_update_open(&s->terms[u->exchange], u, path, &file, &view, e);

    if (r) {
        return r;
    }
    r = fold_one(s, &view, e);
    if (r == 0) {
        r = remember(s, u, e);
    }
    close(file.fd);
    return r;
}

static void fold_run(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;

    op->status = co_sums_fold(f->sums, &f->u, f->path, &op->err);
    if (op->status) {
        return;
    }
    FL_CRASH_POINT("round-fold-after");
}

static void fold_done(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;

    if (op->status) {
        co_store_failed(op->co, op, "fold an update");
    }
    co_answer(op, &(struct fl_round_event){.type = FL_ROUND_EV_FOLDED,
                                           .round = f->u.round,
                                           .exchange = f->u.exchange,
                                           .agent = f->u.agent,
                                           .status = op->status});
}

void co_fold(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct fold_op *f = co_op_new(co, sizeof *f, fold_run, fold_done);

    co_op_job(&f->op, j);
    f->sums = j->sums;
    f->u = co_update_of(j, item);
    fl_store_upload_path(co->store, j->incarnation, &f->u, f->path);
    co_submit(co, j->lane, &f->op);
}

static void refold_run(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;
    co_sums_reset(f->sums, f->u.exchange);
}

static void nothing_done(struct co_op *op)
{
    (void)op;
}

void co_refold(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct fold_op *f = co_op_new(co, sizeof *f, refold_run, nothing_done);

    f->sums = j->sums;
    f->u.exchange = item->exchange;
    co_submit(co, j->lane, &f->op);
}

/* ---- reading what was folded, again ---- */

struct co_reader {
    const struct co_sums *sums;
    struct handle {
        struct co_reader *reader;
        uint32_t i;
        struct fl_narrow narrow;
    } * handle;
    struct fl_update *at;
    int fd[CO_READER_FILES];
    uint32_t of[CO_READER_FILES]; /* whose file it is */
};

static int by_agent(const void *a, const void *b)
{
    const struct fl_store_update *x = a, *y = b;
    return x->agent < y->agent ? -1 : x->agent > y->agent;
}

static int reader_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct handle *h = arg;
    struct co_reader *r = h->reader;
    const struct fl_store_update *u = &r->sums->folded[h->i];
    uint32_t place = h->i % CO_READER_FILES;
    char path[FL_STORE_PATH_MAX];

    if (r->fd[place] < 0 || r->of[place] != h->i) {
        if (r->fd[place] >= 0) {
            close(r->fd[place]);
        }
        fl_store_upload_path(r->sums->store, r->sums->incarnation, u, path);
        r->of[place] = h->i;
        r->fd[place] = open(path, O_RDONLY | O_CLOEXEC);
        if (r->fd[place] < 0) {
            return fl_fail_sys(e, fl_file_reason(errno), errno, "open %s", path);
        }
    }
    if (offset > u->size || size > u->size - offset) {
        return fl_fail(e, FL_R_OFFSET, "%zu bytes at %llu of an update of %llu", size,
                       (unsigned long long)offset, (unsigned long long)u->size);
    }
    return fl_file_read_at(r->fd[place], offset, to, size, e);
}

int co_reader_new(struct co_sums *s, struct co_reader **ret, struct fl_updates *ret_updates,
                  struct fl_err *e)
{
    uint32_t n = s->folded_count;
    struct co_reader *r = fl_try(1, sizeof *r);

    if (r) {
        r->sums = s;
        r->handle = fl_try(n ? n : 1, sizeof *r->handle);
        r->at = fl_try(n ? n : 1, sizeof *r->at);
        memset(r->fd, 0xff, sizeof r->fd);
    }
    if (!r || !r->handle || !r->at) {
        co_reader_free(r);
        return fl_fail(e, FL_R_NOMEM, "a list of %u updates", n);
    }
    qsort(s->folded, n, sizeof *s->folded, by_agent);
    for (uint32_t i = 0; i < n; i++) {
        struct handle *h = &r->handle[i];
        *h = (struct handle){.reader = r, .i = i};
        r->at[i] = co_update_view(&s->terms[s->folded[i].exchange], &s->folded[i], reader_read, h,
                                  &h->narrow);
    }
    *ret = r;
    *ret_updates = (struct fl_updates){.count = n, .at = r->at};
    return 0;
}

void co_reader_free(struct co_reader *r)
{
    if (!r) {
        return;
    }
    for (int i = 0; i < CO_READER_FILES; i++) {
        if (r->fd[i] >= 0) {
            close(r->fd[i]);
        }
    }
    fl_free(r->handle);
    fl_free(r->at);
    fl_free(r);
}
