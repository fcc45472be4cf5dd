/*
 * Finishing an exchange. Of the last one: the next checkpoint (checkpoint.h), computed on the
 * federated job's lane and written on the store's. Of one before: what was collected becomes part
 * of the round's sums; nothing of that is written, since after a crash the same closed records make
 * the same again by the same calls.
 *
 * The next models are put tile by tile: one model into memory, several into a scratch file, which
 * has no name (it is gone with the process), so that memory stays that of one model however many
 * slots there are.
 */
#include "server/co.h"

#include "common/base/crashpoint.h"
#include "common/base/le.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/tensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TILE = 256 * 1024 };

/* ---- models being written ---- */

struct models {
    uint32_t slots;
    size_t head, elements, model_size;
    uint8_t *memory; /* one slot */
    int fd;          /* several */
};

static int models_write(struct models *m, uint64_t offset, const uint8_t *from, size_t size,
                        struct fl_err *e)
{
    if (m->memory) {
        memcpy(m->memory + offset, from, size);
        return 0;
    }
    while (size) {
        ssize_t n = pwrite(m->fd, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fl_fail_sys(e, fl_file_reason(errno), errno, "write a scratch file");
        }
        from += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int models_read(const struct models *m, uint64_t offset, uint8_t *to, size_t size,
                       struct fl_err *e)
{
    if (m->memory) {
        memcpy(to, m->memory + offset, size);
        return 0;
    }
    return fl_file_read_at(m->fd, offset, to, size, e);
}

static void models_fini(struct models *m)
{
    fl_free(m->memory);
    m->memory = NULL;
    if (m->fd >= 0) {
        close(m->fd);
        m->fd = -1;
    }
}

static int models_open(struct models *m, const struct fl_store *store, struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];

    if (m->slots == 1) {
        m->memory = fl_try(m->model_size, 1);
        return m->memory ? 0 : fl_fail(e, FL_R_NOMEM, "a model of %zu bytes", m->model_size);
    }
    snprintf(path, sizeof path, "%.480s/scratch-XXXXXX", fl_store_dir(store));
    m->fd = mkstemp(path);
    if (m->fd < 0) {
        return fl_fail_sys(e, fl_file_reason(errno), errno, "%s", path);
    }
    unlink(path);
    return 0;
}

static int models_new(struct models *m, const struct fl_store *store,
                      const struct fl_tensors *table, uint32_t slots, struct fl_err *e)
{
    uint8_t *head = NULL;
    int r = fl_tensors_header(table, NULL, 0, &head, &m->head, e);

    m->slots = slots;
    m->elements = table->elements;
    m->model_size = m->head + 4 * table->elements;
    r = r ? r : models_open(m, store, e);
    for (uint32_t i = 0; r == 0 && i < slots; i++) {
        r = models_write(m, (uint64_t)i * m->model_size, head, m->head, e);
    }
    fl_free(head);
    return r;
}

static int models_digest(const struct models *m, struct fl_digest *ret, struct fl_err *e)
{
    uint8_t *tile = fl_try(TILE, 1);
    int r = tile ? 0 : fl_fail(e, FL_R_NOMEM, "a tile");

    for (uint32_t i = 0; r == 0 && i < m->slots; i++) {
        struct fl_hash h;
        fl_hash_init(&h);
        for (size_t at = 0; r == 0 && at < m->model_size; at += TILE) {
            size_t n = m->model_size - at < TILE ? m->model_size - at : TILE;
            r = models_read(m, (uint64_t)i * m->model_size + at, tile, n, e);
            fl_hash_add(&h, tile, n);
        }
        fl_hash_end(&h, &ret[i]);
    }
    fl_free(tile);
    return r;
}

/* ---- what a strategy sees ---- */

struct seen {
    const struct fl_checkpoint *base;
    size_t base_head;
    struct models *next;
};

static int base_tile(void *arg, uint32_t slot, size_t first, size_t count, float *to,
                     struct fl_err *e)
{
    const struct seen *s = arg;

    if (slot >= s->base->slots || first > s->next->elements || count > s->next->elements - first) {
        return fl_fail(e, FL_R_INTERNAL, "values that slot %u does not have", slot);
    }
    return fl_checkpoint_values(s->base, s->base_head, slot, first, count, to, e);
}

static int put_tile(void *arg, uint32_t slot, size_t first, size_t count, const float *values,
                    struct fl_err *e)
{
    const struct seen *s = arg;
    struct models *m = s->next;
    uint8_t bytes[16 * 1024];

    if (slot >= m->slots || first > m->elements || count > m->elements - first) {
        return fl_fail(e, FL_R_INTERNAL, "values that slot %u does not have", slot);
    }
    while (count > 0) {
        size_t n = count < sizeof bytes / 4 ? count : sizeof bytes / 4;
        for (size_t i = 0; i < n; i++) {
            fl_put_float(bytes + 4 * i, values[i]);
        }
        int r =
            models_write(m, (uint64_t)slot * m->model_size + m->head + 4 * first, bytes, 4 * n, e);
        if (r) {
            return r;
        }
        values += n;
        first += n;
        count -= n;
    }
    return 0;
}

/* ---- a checkpoint in the making ---- */

struct made {
    struct models models;
    uint8_t *state, *end;
    size_t state_size, end_size;
    struct fl_digest *digest; /* of each model */
    double update_norm;
    uint32_t members;
};

static void made_fini(struct made *m)
{
    models_fini(&m->models);
    fl_free(m->state);
    fl_free(m->end);
    fl_free(m->digest);
    m->state = m->end = NULL;
    m->digest = NULL;
}

static int made_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct made *m = arg;
    uint64_t models = (uint64_t)m->models.slots * m->models.model_size;
    const struct {
        const uint8_t *bytes;
        uint64_t size;
    } part[] = {{NULL, models}, {m->state, m->state_size}, {m->end, m->end_size}};

    for (size_t i = 0; i < FL_COUNT(part) && size > 0; i++) {
        if (offset >= part[i].size) {
            offset -= part[i].size;
            continue;
        }
        size_t n = part[i].size - offset < size ? (size_t)(part[i].size - offset) : size;
        int r = 0;
        if (i == 0) {
            r = models_read(&m->models, offset, to, n, e);
        } else {
            memcpy(to, part[i].bytes + offset, n);
        }
        if (r) {
            return r;
        }
        to += n;
        size -= n;
        offset = 0;
    }
    return 0;
}

/* Who is in which slot from now on: asked of the next state, as the next round will. */
static int place_all(const struct co_sums *s, const struct made *m, struct fl_placed **ret,
                     uint32_t *ret_count, struct fl_err *e)
{
    struct fl_checkpoint next = {.slots = m->models.slots};
    const struct fl_strategy *strategy = s->strategy;
    uint32_t room = s->base->placed_count + s->folded_count, n = 0, i = 0, k = 0;
    struct fl_placed *placed = fl_try(room ? room : 1, sizeof *placed);
    void *shared = fl_try(1, strategy->shared_size);
    int r = placed && shared ? strategy->init(shared, s->plan, e)
                             : fl_fail(e, FL_R_NOMEM, "%u places", room);

    if (r) {
        fl_free(placed);
        fl_free(shared);
        return r;
    }
    r = strategy->load(shared, m->state, m->state_size, e);
    if (r == 0 && strategy->slots(shared) != next.slots) {
        r = fl_fail(e, FL_R_INTERNAL, "%u models were made, the next state has %u", next.slots,
                    strategy->slots(shared));
    }
    while (r == 0 && (i < s->base->placed_count || k < s->folded_count)) {
        uint64_t a = i < s->base->placed_count ? s->base->placed[i].agent : UINT64_MAX;
        uint64_t b = k < s->folded_count ? s->folded[k].agent : UINT64_MAX;
        uint64_t agent = a < b ? a : b;
        i += a == agent;
        k += b == agent;
        placed[n].agent = agent;
        r = strategy->place(shared, &agent, 1, &placed[n].slot, e);
        if (r == 0 && placed[n++].slot >= next.slots) {
            r = fl_fail(e, FL_R_INTERNAL, "a place that is not there");
        }
    }
    strategy->fini(shared);
    fl_free(shared);
    if (r) {
        fl_free(placed);
        return r;
    }
    *ret = placed;
    *ret_count = n;
    return 0;
}

/* What was collected in this round, and what was before and was not again. */
static int gather_sections(const struct co_sums *s, struct fl_section *all, uint32_t *ret_count,
                           struct fl_err *e)
{
    uint32_t n = 0;
    int r = 0;

    for (uint32_t i = 0; r >= 0 && i < s->base->section_count; i++) {
        bool again = false;
        for (uint32_t k = 0; k < s->section_count; k++) {
            again = again || strcmp(s->section[k].name, s->base->section[i].name) == 0;
        }
        if (!again) {
            r = fl_checkpoint_section(s->base, s->base->section[i].name, &all[n], e);
            n += r == 1;
        }
    }
    for (uint32_t k = 0; r >= 0 && k < s->section_count; k++) {
        if (n == FL_CHECKPOINT_SECTIONS_MAX) {
            r = fl_fail(e, FL_R_LIMIT, "more than %u sections", n);
            break;
        }
        all[n] = s->section[k];
        all[n].bytes = fl_try(s->section[k].size ? s->section[k].size : 1, 1);
        r = all[n].bytes ? 0 : fl_fail(e, FL_R_NOMEM, "a section");
        if (r == 0) {
            memcpy(all[n++].bytes, s->section[k].bytes, s->section[k].size);
        }
    }
    *ret_count = n;
    return r < 0 ? r : 0;
}

/* Everything behind the state. */
static int make_end(const struct co_sums *s, struct made *m, struct fl_err *e)
{
    struct fl_section sections[FL_CHECKPOINT_SECTIONS_MAX];
    struct fl_placed *placed = NULL;
    struct fl_checkpoint_end end = {.round = s->round,
                                    .model_size = m->models.model_size,
                                    .state_size = m->state_size,
                                    .slots = m->models.slots};
    int r = gather_sections(s, sections, &end.section_count, e);

    m->digest = fl_try(end.slots, sizeof *m->digest);
    if (r == 0 && !m->digest) {
        r = fl_fail(e, FL_R_NOMEM, "%u digests", end.slots);
    }
    r = r ? r : models_digest(&m->models, m->digest, e);
    if (r == 0 && end.slots > 1) {
        r = place_all(s, m, &placed, &end.placed_count, e);
    }
    if (r == 0) {
        end.model = m->digest;
        end.section = sections;
        end.placed = placed;
        r = fl_checkpoint_end(&end, &m->end, &m->end_size, e);
    }
    for (uint32_t i = 0; i < end.section_count; i++) {
        fl_free(sections[i].bytes);
    }
    fl_free(placed);
    return r;
}

static int make_checkpoint(struct co_sums *s, uint32_t exchange, const struct fl_updates *updates,
                           const struct fl_seed *secret, const struct fl_server_target *target,
                           struct made *m, struct fl_err *e)
{
    const struct fl_strategy *strategy = s->strategy;
    const struct fl_tensors *table = &s->plan->layout.shared;
    struct seen seen = {.base = s->base, .next = &m->models};
    struct co_tune tune = {.target = *target,
                           .dir = fl_store_dir(s->store),
                           .text = s->text,
                           .text_size = s->text_size,
                           .incarnation = s->incarnation,
                           .elements = table->elements,
                           .cancel = &s->cancel};
    struct fl_next next = {.base = base_tile,
                           .put = put_tile,
                           .arg = &seen,
                           .base_count = s->base->slots,
                           .put_count = s->base->slots,
                           .updates = *updates,
                           .round = s->round,
                           .tune = target->data[0] ? co_tune : NULL,
                           .tune_arg = &tune,
                           .secret = secret};
    int r = fl_checkpoint_head(s->base, table, &seen.base_head, e);

    if (r == 0 && strategy->next_slots) {
        r = strategy->next_slots(s->shared, s->slots, updates, &next.put_count, e);
    }
    if (r == 0 && (next.put_count == 0 || next.put_count > FL_STRATEGY_SLOTS_MAX)) {
        r = fl_fail(e, FL_R_LIMIT, "%u slots", next.put_count);
    }
    m->state_size = next.state_size = r ? 0 : strategy->state_size(s->shared);
    m->state = next.state = fl_try(m->state_size ? m->state_size : 1, 1);
    if (r == 0 && !m->state) {
        r = fl_fail(e, FL_R_NOMEM, "a state of %zu bytes", m->state_size);
    }
    r = r ? r : models_new(&m->models, s->store, table, next.put_count, e);
    r = r ? r : strategy->finish(s->shared, s->slots, exchange, &next, e);
    m->members = next.members;
    m->update_norm = next.update_norm;
    return r ? r : make_end(s, m, e);
}

/* The next checkpoint of a round that was given up: models and state as they were. */
static int make_unchanged(const struct co_sums *s, struct made *m, struct fl_err *e)
{
    const struct fl_tensors *table = &s->plan->layout.shared;
    struct seen seen = {.base = s->base, .next = &m->models};
    float *tile = fl_try(TILE, 1);
    int r = tile ? fl_checkpoint_head(s->base, table, &seen.base_head, e)
                 : fl_fail(e, FL_R_NOMEM, "a tile");

    r = r ? r : models_new(&m->models, s->store, table, s->base->slots, e);
    for (uint32_t slot = 0; r == 0 && slot < s->base->slots; slot++) {
        for (size_t at = 0; r == 0 && at < table->elements; at += TILE / sizeof *tile) {
            size_t left = table->elements - at, n = TILE / sizeof *tile;
            n = n < left ? n : left;
            r = base_tile(&seen, slot, at, n, tile, e);
            r = r ? r : put_tile(&seen, slot, at, n, tile, e);
        }
    }
    fl_free(tile);
    if (r == 0 && (r = fl_checkpoint_state(s->base, &m->state, e)) == 0) {
        m->state_size = (size_t)s->base->state_size;
    }
    return r ? r : make_end(s, m, e);
}

/* A collector's section; the same again replaces it. */
static int collect(struct co_sums *s, uint32_t exchange, const struct fl_updates *updates,
                   struct fl_err *e)
{
    struct fl_section made = {.name = {0}};
    int r =
        s->collector[exchange]->finish(s->collected[exchange], updates, &made.bytes, &made.size, e);

    if (r == 0) {
        snprintf(made.name, sizeof made.name, "%s", s->terms[exchange].name);
        co_sums_section(s, &made);
    }
    return r;
}

/* [lane] */
static int finish(struct co_sums *s, uint32_t exchange, const struct fl_seed *secret,
                  const struct fl_server_target *target, struct made *m, struct fl_err *e)
{
    struct co_reader *reader;
    struct fl_updates updates;
    bool last = exchange + 1 == s->terms_count;
    int r = co_reader_new(s, &reader, &updates, e);

    if (r) {
        return r;
    }
    if (s->collector[exchange]) {
        r = collect(s, exchange, &updates, e);
    } else if (s->stage[exchange] < FL_SECAGG_STAGES) {
        r = co_secure_finish(s, exchange, secret, &updates, e);
    } else if (!last && s->strategy->between) {
        r = s->strategy->between(s->shared, s->slots, exchange, &updates, e);
    }
    if (r == 0 && last) {
        r = make_checkpoint(s, exchange, &updates, secret, target, m, e);
    } else if (r == 0) {
        co_sums_reset(s, exchange);
    }
    co_reader_free(reader);
    return r;
}

int co_recompute(struct co_sums *s, uint32_t exchange, bool unchanged, const struct fl_seed *secret,
                 const struct fl_server_target *target, struct fl_digest *ret, struct fl_err *e)
{
    struct made m = {.models = {.fd = -1}};
    int r = unchanged ? make_unchanged(s, &m, e) : finish(s, exchange, secret, target, &m, e);
    uint64_t size = (uint64_t)m.models.slots * m.models.model_size + m.state_size + m.end_size;
    uint8_t *tile = fl_try(TILE, 1);
    struct fl_hash h;

    r = r || tile ? r : fl_fail(e, FL_R_NOMEM, "a tile");
    fl_hash_init(&h);
    for (uint64_t at = 0; r == 0 && m.end && at < size; at += TILE) {
        size_t n = size - at < TILE ? (size_t)(size - at) : TILE;
        r = made_read(&m, at, tile, n, e);
        fl_hash_add(&h, tile, n);
    }
    fl_hash_end(&h, ret);
    fl_free(tile);
    made_fini(&m);
    return r;
}

/* ---- the initial checkpoint ---- */

/* All alike; or each from a seed of its own, for strategies whose models must begin apart. */
static int initial_models(const struct fl_plan *plan, bool apart, struct models *m,
                          struct fl_err *e)
{
    const struct fl_tensors *table = &plan->layout.shared;
    struct seen seen = {.next = m};
    struct fl_seed job, seed;
    float *values = fl_try(table->elements ? table->elements : 1, sizeof *values);
    int r = values ? 0 : fl_fail(e, FL_R_NOMEM, "a model");

    fl_seed_from_u64(plan->seed, &job);
    for (uint32_t i = 0; r == 0 && i < m->slots; i++) {
        if (i == 0) {
            fl_layout_init_shared(&plan->layout, &job, values);
        } else if (apart) {
            fl_seed_derive(&job, "model apart", i, &seed);
            fl_layout_init_shared(&plan->layout, &seed, values);
        }
        r = put_tile(&seen, i, 0, table->elements, values, e);
    }
    fl_free(values);
    return r;
}

int co_initial_checkpoint(struct fl_store *s, const struct fl_plan *plan,
                          const uint8_t incarnation[FL_INCARNATION_SIZE],
                          struct fl_digest *ret_checkpoint, struct fl_digest *ret_model,
                          uint64_t *ret_model_size, struct fl_err *e)
{
    const struct fl_strategy *strategy;
    struct made m = {.models = {.fd = -1}};
    struct fl_checkpoint_end end = {.round = 0};
    void *shared;
    int r = co_strategy_new(plan, NULL, &strategy, &shared, e);

    if (r) {
        return r;
    }
    end.slots = strategy->slots(shared);
    m.state_size = strategy->state_size(shared);
    m.state = fl_try(m.state_size ? m.state_size : 1, 1);
    m.digest = fl_try(end.slots, sizeof *m.digest);
    if (m.state && m.digest) {
        strategy->save(shared, m.state);
    } else {
        r = fl_fail(e, FL_R_NOMEM, "a state of %zu bytes", m.state_size);
    }
    strategy->fini(shared);
    fl_free(shared);
    r = r ? r : models_new(&m.models, s, &plan->layout.shared, end.slots, e);
    r = r ? r : initial_models(plan, strategy->needs & FL_STRATEGY_APART, &m.models, e);
    r = r ? r : models_digest(&m.models, m.digest, e);
    if (r == 0) {
        end.model_size = m.models.model_size;
        end.state_size = m.state_size;
        end.model = m.digest;
        r = fl_checkpoint_end(&end, &m.end, &m.end_size, e);
    }
    if (r == 0) {
        *ret_model = m.digest[0];
        *ret_model_size = m.models.model_size;
        r = fl_store_checkpoint_copy(
            s, incarnation, 0,
            &(struct fl_store_bytes){(uint64_t)end.slots * m.models.model_size + m.state_size +
                                         m.end_size,
                                     made_read, &m},
            ret_checkpoint, e);
    }
    made_fini(&m);
    return r;
}

/* ---- on the way ---- */

struct finish_op {
    struct co_op op;
    struct co_sums *sums;
    uint64_t round;
    uint32_t exchange;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_seed secret; /* of the job */
    int given_up;          /* -reason: nothing changes */
    struct fl_err why;     /* it is */
    struct fl_server_target target;
    struct made made;
    struct fl_digest checkpoint;
};

static void finish_run(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;

    FL_CRASH_POINT("round-finish-before");
    if (!f->given_up) {
        op->status = finish(f->sums, f->exchange, &f->secret, &f->target, &f->made, &op->err);
        if (co_secure_is_lost(f->sums, f->exchange, op->status)) {
            f->given_up = op->status;
            f->why = op->err;
            made_fini(&f->made);
        }
    }
    if (f->given_up) {
        op->status = make_unchanged(f->sums, &f->made, &op->err);
    }
    if (op->status == 0 && !f->made.end) {
        FL_CRASH_POINT("round-between-after");
    }
}

static void write_run(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;
    const struct made *m = &f->made;

    op->status = fl_store_checkpoint_copy(
        op->co->store, f->incarnation, f->round,
        &(struct fl_store_bytes){(uint64_t)m->models.slots * m->models.model_size + m->state_size +
                                     m->end_size,
                                 made_read, &f->made},
        &f->checkpoint, &op->err);
}

static void write_done(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;
    struct co_job *j = co_job_by_id(op->co, op->job_id);

    if (op->status && op->status != -FL_R_CANCELLED) {
        co_store_failed(op->co, op, "finish a round");
    }
    if (j && j->generation == op->generation) {
        if (op->status == 0 && f->made.digest) {
            j->next_model = f->made.digest[0];
            j->next_model_size = f->made.models.model_size;
            if (f->given_up) {
                fl_log_err(FL_LOG_WARN, j->name, &f->why,
                           "round %llu is given up, the model stays as it was",
                           (unsigned long long)f->round);
            }
            fl_log(FL_LOG_DEBUG, j->name, "round %llu: %u updates, norm of the mean %.6g",
                   (unsigned long long)f->round, f->made.members, f->made.update_norm);
        }
        if (j->sums) {
            j->sums->finishing = false;
        }
    }
    made_fini(&f->made);
    if (op->status == -FL_R_CANCELLED) {
        return; /* nobody waits: the round is gone, or is computed again after a restart */
    }
    co_answer(op, &(struct fl_round_event){.type = FL_ROUND_EV_FINISHED,
                                           .round = f->round,
                                           .exchange = f->exchange,
                                           .digest = f->checkpoint,
                                           .given_up = f->given_up != 0,
                                           .status = op->status});
}

static void finish_done(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;

    if (op->status || !f->made.end) { /* nothing to write: not the last exchange */
        write_done(op);
        return;
    }
    struct finish_op *w = co_op_new(op->co, sizeof *w, write_run, write_done);
    struct co_op head = w->op;
    *w = *f;
    w->op = head;
    w->op.job_id = op->job_id;
    w->op.generation = op->generation;
    co_submit(op->co, op->co->store_lane, &w->op);
}

void co_finish(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct finish_op *f = co_op_new(co, sizeof *f, finish_run, finish_done);

    co_op_job(&f->op, j);
    f->sums = j->sums;
    f->made.models.fd = -1;
    f->round = item->round;
    f->exchange = item->exchange;
    f->given_up = item->reason;
    if (item->reason) {
        fl_fail(&f->why, (enum fl_reason) - item->reason, "%s", fl_reason_text(item->reason));
    }
    memcpy(f->incarnation, j->incarnation, sizeof f->incarnation);
    co_secret_of(co, f->incarnation, &f->secret);
    f->target = co->config.target;
    j->sums->finishing = true;
    co_submit(co, j->lane, &f->op);
}
