/*
 * What grows with the model: folds, finishes, checkpoints. All of it runs on the federated job's
 * own lane (class long), except the write of the checkpoint, which waits for the disk on the
 * store's.
 *
 * A checkpoint is one file with one digest:
 *
 *     [ model: safetensors of the shared tensors ][ strategy state, server optimizer ][ trailer ]
 *
 * Agents fetch the first part only; it has a digest of its own. The trailer says how long the parts
 * are.
 */
#include "server/co.h"

#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/tensors.h"
#include "server/strategy/sumnoise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int co_read_fd(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    int fd = *(int *)arg;

    while (size) {
        ssize_t n = pread(fd, to, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fl_fail_sys(e, FL_R_STORE_IO, n < 0 ? errno : EIO, "read a file of the store");
        }
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* ---- sums ---- */

void co_sums_free(struct co_sums *s)
{
    if (!s) {
        return;
    }
    for (uint32_t i = 0; i < s->slot_count; i++) {
        s->strategy->slot_free(s->slots[i]);
    }
    if (s->shared) {
        s->strategy->fini(s->shared);
    }
    fl_free(s->slots);
    fl_free(s->shared);
    fl_free(s->plan);
    fl_free(s);
}

static int sums_init(struct co_sums *s, const char *name, const char *text, size_t size,
                     struct fl_err *e)
{
    int r = fl_plan_parse(s->plan, name, text, size, e);
    if (r) {
        return r;
    }
    s->strategy = fl_strategy_find(s->plan->strategy);
    if (!s->strategy) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "%s", s->plan->strategy);
    }
    if (fl_sum_noise_wanted(s->plan) && !(s->strategy->needs & FL_STRATEGY_SUM_NOISE)) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "strategy %s cannot noise its sums",
                       s->plan->strategy);
    }
    fl_strategy_rules(s->plan, 1, &s->rules);
    s->terms_count = fl_plan_exchanges(s->plan, 1, s->terms);
    void *shared = fl_try(1, s->strategy->shared_size);
    if (!shared) {
        return fl_fail(e, FL_R_NOMEM, "a strategy");
    }
    if ((r = s->strategy->init(shared, s->plan, e)) != 0) {
        fl_free(shared);
        return r;
    }
    s->shared = shared;
    uint32_t slots = s->strategy->slots(s->shared);
    s->slots = fl_try(slots, sizeof *s->slots);
    if (!s->slots) {
        return fl_fail(e, FL_R_NOMEM, "%u slots", slots);
    }
    while (s->slot_count < slots) {
        if ((r = s->strategy->slot_new(s->shared, &s->slots[s->slot_count], e)) != 0) {
            return r;
        }
        s->slot_count++;
    }
    return 0;
}

int co_sums_new(const char *name, const char *text, size_t size, struct co_sums **ret,
                struct fl_err *e)
{
    struct co_sums *s = fl_try(1, sizeof *s);

    if (!s || !(s->plan = fl_try(1, sizeof *s->plan))) {
        fl_free(s);
        return fl_fail(e, FL_R_NOMEM, "the sums of a round");
    }
    int r = sums_init(s, name, text, size, e);
    if (r) {
        co_sums_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

/* ---- fold ---- */

struct fold_op {
    struct co_op op;
    struct co_sums *sums;
    struct fl_store_update u;
    char path[FL_STORE_PATH_MAX];
};

static void path_run(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;
    op->status = fl_store_upload_path(op->co->store, &f->u, f->path, &op->err);
}

static void fold_run(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;
    struct fl_err *e = &op->err;
    uint32_t slot = 0;

    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        op->status = fl_fail_sys(e, fl_file_reason(errno), errno, "open %s", f->path);
        return;
    }
    struct fl_update u = {.agent = f->u.agent,
                          .exchange = f->u.exchange,
                          .weight = f->u.weight,
                          .size = f->u.size,
                          .read = co_read_fd,
                          .arg = &fd};
    op->status = f->sums->strategy->place(f->sums->shared, &u.agent, 1, &slot, e);
    if (op->status == 0) {
        op->status = f->sums->strategy->fold(f->sums->slots[slot], f->sums->shared, &u, e);
    }
    close(fd);
    FL_CRASH_POINT("round-fold-after");
}

static void fold_done(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;

    if (op->status) {
        co_store_failed(op->co, op, "fold an update");
    }
    co_event(op->co, op->job_id,
             &(struct fl_round_event){.type = FL_ROUND_EV_FOLDED,
                                      .round = f->u.round,
                                      .exchange = f->u.exchange,
                                      .agent = f->u.agent,
                                      .status = op->status},
             false);
}

/* The path is the store's to tell; then the fold takes its place in the lane. */
static void path_done(struct co_op *op)
{
    struct fold_op *f = (struct fold_op *)op;
    struct co_job *j = co_job_by_id(op->co, op->job_id);

    if (op->status == 0 && (!j || !j->sums)) {
        op->status = fl_fail(&op->err, FL_R_CANCELLED, "the round has moved on");
    }
    if (op->status) {
        fold_done(op);
        return;
    }
    struct fold_op *next = co_op_new(op->co, sizeof *next, fold_run, fold_done);
    next->op.job_id = op->job_id;
    next->sums = j->sums;
    next->u = f->u;
    memcpy(next->path, f->path, sizeof next->path);
    co_submit(op->co, j->lane, &next->op);
}

void co_fold(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct fold_op *f = co_op_new(co, sizeof *f, path_run, path_done);

    f->op.job_id = j->id;
    f->u = (struct fl_store_update){.job = j->id,
                                    .round = item->round,
                                    .agent = item->agent,
                                    .exchange = item->exchange,
                                    .weight = item->weight,
                                    .size = item->size,
                                    .digest = item->digest};
    co_submit(co, co->store_lane, &f->op);
}

static void refold_run(struct co_op *op)
{
    struct co_sums *s = ((struct fold_op *)op)->sums;

    for (uint32_t i = 0; i < s->slot_count; i++) {
        s->strategy->slot_reset(s->shared, s->slots[i]);
    }
}

static void nothing_done(struct co_op *op)
{
    (void)op;
}

static void refold_queued(struct co_op *op)
{
    struct co_job *j = co_job_by_id(op->co, op->job_id);

    if (j && j->sums) {
        struct fold_op *f = co_op_new(op->co, sizeof *f, refold_run, nothing_done);
        f->sums = j->sums;
        co_submit(op->co, j->lane, &f->op);
    }
}

/* By the same way as the folds, so that it comes behind those already asked for. */
void co_refold(struct co *co, struct co_job *j)
{
    struct fold_op *f = co_op_new(co, sizeof *f, nothing_done, refold_queued);

    f->op.job_id = j->id;
    co_submit(co, co->store_lane, &f->op);
}

/* ---- checkpoints ---- */

enum { TRAILER_SIZE = 32 };
static const char trailer_magic[8] = "COHCKPT1";

static void put_u64(uint8_t *to, uint64_t x)
{
    for (int i = 0; i < 8; i++) {
        to[i] = (uint8_t)(x >> (8 * i));
    }
}

static uint64_t get_u64(const uint8_t *from)
{
    uint64_t x = 0;

    for (int i = 0; i < 8; i++) {
        x |= (uint64_t)from[i] << (8 * i);
    }
    return x;
}

static void make_trailer(uint8_t to[TRAILER_SIZE], uint64_t round, uint64_t model, uint64_t state)
{
    memcpy(to, trailer_magic, sizeof trailer_magic);
    put_u64(to + 8, round);
    put_u64(to + 16, model);
    put_u64(to + 24, state);
}

/* A checkpoint file's two parts: the model's values and the strategy's state. */
static int checkpoint_read(const char *path, uint64_t round, const struct fl_layout *layout,
                           uint64_t model_size, float *values, uint8_t **ret_state,
                           size_t *ret_state_size, struct fl_err *e)
{
    uint8_t trailer[TRAILER_SIZE], *model = NULL, *state = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    int r = size < TRAILER_SIZE
                ? fl_fail_sys(e, FL_R_STORE_IO, errno, "open %s", path)
                : co_read_fd(&fd, (uint64_t)size - TRAILER_SIZE, trailer, TRAILER_SIZE, e);
    uint64_t state_size = r ? 0 : get_u64(trailer + 24);
    if (r == 0 && (memcmp(trailer, trailer_magic, sizeof trailer_magic) != 0 ||
                   get_u64(trailer + 8) != round || get_u64(trailer + 16) != model_size ||
                   model_size > (uint64_t)size || state_size > (uint64_t)size ||
                   model_size + state_size + TRAILER_SIZE != (uint64_t)size)) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "%s is not the checkpoint of round %llu", path,
                    (unsigned long long)round);
    }
    if (r == 0) {
        model = fl_try(model_size, 1);
        state = fl_try(state_size, 1);
        r = !model || !state ? fl_fail(e, FL_R_NOMEM, "a checkpoint of %lld bytes", (long long)size)
                             : 0;
    }
    if (r == 0 && (r = co_read_fd(&fd, 0, model, (size_t)model_size, e)) == 0 &&
        (r = co_read_fd(&fd, model_size, state, (size_t)state_size, e)) == 0) {
        r = fl_tensors_read(model, (size_t)model_size, &layout->shared, values, e);
    }
    fl_free(model);
    if (r) {
        fl_free(state);
    } else {
        *ret_state = state;
        *ret_state_size = (size_t)state_size;
    }
    if (fd >= 0) {
        close(fd);
    }
    return r;
}

int co_initial_checkpoint(struct fl_store *s, const struct fl_plan *plan,
                          const uint8_t incarnation[FL_INCARNATION_SIZE],
                          struct fl_digest *ret_checkpoint, struct fl_digest *ret_model,
                          uint64_t *ret_model_size, struct fl_err *e)
{
    const struct fl_strategy *strategy = fl_strategy_find(plan->strategy);
    const struct fl_tensors *tensors = &plan->layout.shared;
    struct fl_seed seed;
    uint8_t trailer[TRAILER_SIZE], *model = NULL, *state = NULL;
    size_t model_size = 0, state_size = 0;

    if (!strategy) {
        return fl_fail(e, FL_R_PLAN_STRATEGY, "%s", plan->strategy);
    }
    float *values = fl_try(tensors->elements ? tensors->elements : 1, sizeof *values);
    void *shared = fl_try(1, strategy->shared_size);
    int r = values && shared ? strategy->init(shared, plan, e) : fl_fail(e, FL_R_NOMEM, "a model");
    if (r == 0) {
        fl_seed_from_u64(plan->seed, &seed);
        fl_layout_init_shared(&plan->layout, &seed, values);
        state_size = strategy->state_size(shared);
        state = fl_try(state_size, 1);
        if (state) {
            strategy->save(shared, state);
        }
        strategy->fini(shared);
        r = state ? fl_tensors_write(tensors, values, &model, &model_size, e)
                  : fl_fail(e, FL_R_NOMEM, "a model");
    }
    if (r == 0) {
        make_trailer(trailer, 0, model_size, state_size);
        fl_digest_of(model, model_size, ret_model);
        *ret_model_size = model_size;
        r = fl_store_checkpoint_write(
            s, incarnation, 0,
            (struct fl_piece[]){{model, model_size}, {state, state_size}, {trailer, TRAILER_SIZE}},
            3, ret_checkpoint, e);
    }
    fl_free(values);
    fl_free(shared);
    fl_free(model);
    fl_free(state);
    return r;
}

/* ---- finish ---- */

struct finish_op {
    struct co_op op;
    struct co_sums *sums;
    uint64_t round;
    uint32_t exchange;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_seed secret; /* of the job */
    char base_path[FL_STORE_PATH_MAX];
    uint64_t base_size;
    /* results */
    uint8_t *model, *state;
    size_t model_size, state_size;
    uint8_t trailer[TRAILER_SIZE];
    struct fl_digest model_digest, checkpoint;
    double update_norm;
    uint32_t members;
};

struct in_memory {
    const float *base;
    float *next;
};

static int base_tile(void *arg, uint32_t slot, size_t first, size_t count, float *to,
                     struct fl_err *e)
{
    (void)slot;
    (void)e;
    memcpy(to, ((struct in_memory *)arg)->base + first, count * sizeof *to);
    return 0;
}

static int put_tile(void *arg, uint32_t slot, size_t first, size_t count, const float *values,
                    struct fl_err *e)
{
    (void)slot;
    (void)e;
    memcpy(((struct in_memory *)arg)->next + first, values, count * sizeof *values);
    return 0;
}

static int compute(struct finish_op *f, struct fl_err *e)
{
    const struct fl_strategy *strategy = f->sums->strategy;
    const struct fl_tensors *tensors = &f->sums->plan->layout.shared;
    size_t n = tensors->elements ? tensors->elements : 1, old_size;
    uint8_t *old_state = NULL;
    float *base = fl_try_aligned(n, sizeof *base), *values = fl_try_aligned(n, sizeof *values);
    struct in_memory slot = {.base = base, .next = values};
    struct fl_next next = {.base = base_tile,
                           .put = put_tile,
                           .arg = &slot,
                           .base_count = 1,
                           .put_count = 1,
                           .round = f->round,
                           .secret = &f->secret};

    f->state_size = strategy->state_size(f->sums->shared);
    f->state = fl_try(f->state_size, 1);
    next.state = f->state;
    next.state_size = f->state_size;
    int r = base && values && f->state ? 0 : fl_fail(e, FL_R_NOMEM, "a model of %zu values", n);
    if (r == 0 && f->sums->slot_count != 1) {
        r = fl_fail(e, FL_R_INTERNAL, "%u slots share one model", f->sums->slot_count);
    }
    if (r == 0 &&
        (r = checkpoint_read(f->base_path, f->round - 1, &f->sums->plan->layout, f->base_size, base,
                             &old_state, &old_size, e)) == 0 &&
        (r = strategy->load(f->sums->shared, old_state, old_size, e)) == 0 &&
        (r = strategy->finish(f->sums->shared, f->sums->slots, f->exchange, &next, e)) == 0) {
        r = fl_tensors_write(tensors, values, &f->model, &f->model_size, e);
    }
    f->members = next.members;
    f->update_norm = next.update_norm;
    fl_free(old_state);
    fl_free(base);
    fl_free(values);
    return r;
}

static void finish_run(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;

    FL_CRASH_POINT("round-finish-before");
    op->status = compute(f, &op->err);
    if (op->status == 0) {
        fl_digest_of(f->model, f->model_size, &f->model_digest);
        make_trailer(f->trailer, f->round, f->model_size, f->state_size);
    }
}

static void write_run(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;

    op->status = fl_store_checkpoint_write(op->co->store, f->incarnation, f->round,
                                           (struct fl_piece[]){{f->model, f->model_size},
                                                               {f->state, f->state_size},
                                                               {f->trailer, TRAILER_SIZE}},
                                           3, &f->checkpoint, &op->err);
}

static void write_done(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;
    struct co_job *j = co_job_by_id(op->co, op->job_id);

    if (op->status) {
        co_store_failed(op->co, op, "finish a round");
    }
    if (j && op->status == 0) {
        j->next_model = f->model_digest;
        j->next_model_size = f->model_size;
        fl_log(FL_LOG_DEBUG, j->name, "round %llu: %u updates, norm of the mean %.6g",
               (unsigned long long)f->round, f->members, f->update_norm);
    }
    fl_free(f->model);
    fl_free(f->state);
    co_event(op->co, op->job_id,
             &(struct fl_round_event){.type = FL_ROUND_EV_FINISHED,
                                      .round = f->round,
                                      .exchange = f->exchange,
                                      .digest = f->checkpoint,
                                      .status = op->status},
             false);
}

static void finish_done(struct co_op *op)
{
    struct finish_op *f = (struct finish_op *)op;

    if (op->status) {
        write_done(op);
        return;
    }
    struct finish_op *w = co_op_new(op->co, sizeof *w, write_run, write_done);
    struct co_op head = w->op;
    *w = *f;
    w->op = head;
    w->op.job_id = op->job_id;
    co_submit(op->co, op->co->store_lane, &w->op);
}

void co_finish(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct finish_op *f = co_op_new(co, sizeof *f, finish_run, finish_done);

    f->op.job_id = j->id;
    f->sums = j->sums;
    f->round = item->round;
    f->exchange = item->exchange;
    f->base_size = fl_object_size(j->model);
    memcpy(f->incarnation, j->incarnation, sizeof f->incarnation);
    co_secret_of(co, f->incarnation, &f->secret);
    fl_store_checkpoint_path(co->store, j->incarnation, item->round - 1, &j->checkpoint,
                             f->base_path);
    co_submit(co, j->lane, &f->op);
}
