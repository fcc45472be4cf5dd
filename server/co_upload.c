/*
 * Uploads. An admitted offer becomes a spool file that grows over as many connections as it takes:
 *
 *     RECEIVE -> [store] place, open the spool -> Resume(offset) -> chunks into the spool, in the
 * stream's job
 *             -> [seal] digest, every value on the grid, sync, rename, sync the folder
 *             -> [job's lane] of a secure sum: everything that can be wrong with it -> SPOOLED
 *
 * A connection has one upload at a time, and its spool belongs to the stream from Resume until
 * on_sink_end. What is asked for meanwhile waits as `again`.
 *
 * An agent may come back on another connection while the old one still writes, or while what it
 * sent is being sealed. A second writer could change bytes after their digest was checked, so
 * `co->writing` says whose spools are in use: such an offer waits (BUSY), or is answered by the
 * seal that is under way.
 */
#include "server/co.h"

#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void spooled(struct co *co, uint64_t job, const struct fl_store_update *u, int status)
{
    co_event(co, job,
             &(struct fl_round_event){.type = FL_ROUND_EV_SPOOLED,
                                      .round = u->round,
                                      .exchange = u->exchange,
                                      .agent = u->agent,
                                      .digest = u->digest,
                                      .size = u->size,
                                      .weight = u->weight,
                                      .status = status},
             false);
}

/* Publishing a round, or the end of a job, removes the uploads that came too late, while they may
 * be on their way still: that these fail says nothing about the disk. */
static bool wanted(const struct co_job *j, const struct fl_store_update *u)
{
    struct fl_round_view v;

    if (!j || !j->round) {
        return false;
    }
    fl_round_view(j->round, &v);
    return v.round == u->round && v.exchange == u->exchange && v.phase < FL_ROUND_FOLD;
}

/* ---- one writer ---- */

static struct co_writing *writing_find(struct co *co, const struct fl_store_update *u)
{
    struct co_writing_key key = {u->job, u->agent};
    struct co_writing *w;

    HASH_FIND(hh, co->writing, &key, sizeof key, w);
    return w;
}

static void writing_begins(struct co *co, const struct fl_store_update *u)
{
    struct co_writing *w = fl_new(1, sizeof *w); /* at most one for each connection and seal */

    w->key = (struct co_writing_key){u->job, u->agent};
    w->u = *u;
    HASH_ADD(hh, co->writing, key, sizeof w->key, w);
}

/* What comes later in the store's lane may open the spool. */
static void writing_ends(struct co *co, const struct fl_store_update *u)
{
    struct co_writing *w = writing_find(co, u);

    if (w) {
        HASH_DELETE(hh, co->writing, w);
        fl_free(w);
    }
}

/* ---- closing a spool that is not wanted: what is durable of it stays ---- */

struct close_op {
    struct co_op op;
    struct fl_spool *spool;
};

static void close_run(struct co_op *op)
{
    fl_spool_close(((struct close_op *)op)->spool);
}

static void close_done(struct co_op *op)
{
    if (op->status) { /* never ran */
        fl_spool_close(((struct close_op *)op)->spool);
    }
}

static void close_spool(struct co *co, struct fl_spool *spool)
{
    if (spool) {
        struct close_op *c = co_op_new(co, sizeof *c, close_run, close_done);
        c->spool = spool;
        co_submit(co, co->store_lane, &c->op);
    }
}

/* ---- sealing ---- */

struct seal_op {
    struct co_op op;
    struct fl_store_update u;
    struct fl_spool *spool;
    struct fl_exchange_terms terms; /* a copy: the round may move on */
    char path[FL_STORE_PATH_MAX + FL_STORE_NAME_MAX];
};

static void seal_run(struct co_op *op)
{
    struct seal_op *s = (struct seal_op *)op;
    struct co_update_file file;
    struct fl_update u;

    op->status = fl_spool_seal(s->spool, &op->err);
    if (op->status == 0) {
        op->status = co_update_open(&s->terms, &s->u, s->path, &file, &u, &op->err);
    }
    if (op->status) {
        return;
    }
    op->status = fl_update_scan(&s->terms, &u, &op->err);
    close(file.fd);
}

struct drop_op {
    struct co_op op;
    struct fl_store_update u;
};

static void drop_run(struct co_op *op)
{
    op->status = fl_store_upload_drop(op->co->store, &((struct drop_op *)op)->u, &op->err);
}

static void drop_done(struct co_op *op)
{
    if (op->status) {
        co_store_failed(op->co, op, "remove a refused upload");
    }
}

void co_upload_judged(struct co *co, uint64_t job, const struct fl_store_update *u, int status,
                      const struct fl_err *e)
{
    if (status && !wanted(co_job_by_id(co, job), u)) {
        status = -FL_R_CANCELLED;
    } else if (status) {
        struct co_peer *p = co_peer_by_agent(co, u->agent);
        fl_log_err(FL_LOG_WARN, p ? p->identity.name : "upload", e, "update of round %llu",
                   (unsigned long long)u->round);
        co_write_failed(co, status);
        if (status != -FL_R_CANCELLED) {
            struct drop_op *d = co_op_new(co, sizeof *d, drop_run, drop_done);
            d->u = *u;
            co_submit(co, co->store_lane, &d->op);
        }
    }
    spooled(co, job, u, status);
}

static void seal_done(struct co_op *op)
{
    struct seal_op *s = (struct seal_op *)op;
    struct co *co = op->co;

    close_spool(co, s->spool);
    writing_ends(co, &s->u);
    if (op->status || !co_secure_judge(co, co_job_by_id(co, op->job_id), &s->u)) {
        co_upload_judged(co, op->job_id, &s->u, op->status, &op->err);
    }
}

static void seal(struct co *co, struct co_job *j, struct co_upload *up)
{
    struct seal_op *s = co_op_new(co, sizeof *s, seal_run, seal_done);

    s->op.job_id = up->job;
    s->u = up->u;
    s->spool = up->spool;
    up->spool = NULL;
    struct co_writing *w = writing_find(co, &s->u);
    if (w) {
        w->sealing = true;
    }
    snprintf(s->path, sizeof s->path, "%s", up->path);
    if (!j || !j->sums || up->u.exchange >= j->sums->terms_count) {
        s->op.status = fl_fail(&s->op.err, FL_R_CANCELLED, "the round has moved on");
        seal_done(&s->op);
        fl_free(s);
        return;
    }
    s->terms = j->sums->terms[up->u.exchange];
    if (j->sums->plan->setting.buffer.size > 0) { /* its weight is ours, not what it claimed */
        s->terms.max_weight = fl_plan_weight_max(j->sums->plan);
    }
    co_submit(co, co->seal_lane[up->u.agent % CO_SEAL_LANES], &s->op);
}

/* ---- opening ---- */

struct open_op {
    struct co_op op;
    struct fl_store_update u;
    struct fl_spool *spool;
    uint64_t from;
    char path[FL_STORE_PATH_MAX + FL_STORE_NAME_MAX];
};

static void open_run(struct co_op *op)
{
    struct open_op *o = (struct open_op *)op;
    char dir[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];

    op->status = fl_store_upload_place(op->co->store, &o->u, dir, name, &op->err);
    if (op->status == 0) {
        snprintf(o->path, sizeof o->path, "%s/%s", dir, name);
        op->status =
            fl_spool_open(dir, name, &o->u.digest, o->u.size, &o->spool, &o->from, &op->err);
    }
}

static void next(struct co_peer *p)
{
    struct co_upload *up = &p->upload;
    bool again = up->again;
    uint64_t job = up->again_job;
    struct fl_round_item item = up->again_item;

    memset(up, 0, sizeof *up);
    struct co_job *j = again ? co_job_by_id(p->co, job) : NULL;
    if (j) {
        co_upload_begin(p->co, j, &item);
    }
}

static int sink_write(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                      struct fl_err *e)
{
    int r = fl_spool_write(arg, offset, data, size, e);
    FL_CRASH_POINT("round-chunk-written");
    return r;
}

/* Each update once, when all of it is here: not what a broken connection had of it as well. */
static void count_up(struct co_job *j, const struct fl_store_update *u)
{
    if (j) {
        j->bytes_up += u->size;
    }
}

static void receive(struct co_peer *p)
{
    struct co_upload *up = &p->upload;
    struct fl_key key = {.round = up->base, .exchange = up->u.exchange};
    struct fl_sink sink = {.write = sink_write,
                           .arg = up->spool,
                           .digest = up->u.digest,
                           .offset = up->from,
                           .size = up->u.size};

    int r = fl_stream_set_sink(p->stream, &sink);
    if (r) {
        struct fl_store_update u = up->u;
        uint64_t job = up->job;
        close_spool(p->co, up->spool);
        writing_ends(p->co, &u);
        next(p);
        spooled(p->co, job, &u, r);
        return;
    }
    if (up->from) {
        fl_log(FL_LOG_INFO, p->identity.name,
               "the update for round %llu goes on at byte %llu of %llu",
               (unsigned long long)up->u.round, (unsigned long long)up->from,
               (unsigned long long)up->u.size);
    }
    up->phase = CO_UPLOAD_RECEIVING;
    memcpy(key.incarnation, up->incarnation, sizeof key.incarnation);
    co_peer_send_resume(p, &key, &up->u.digest, up->from);
}

static void open_done(struct co_op *op)
{
    struct open_op *o = (struct open_op *)op;
    struct co *co = op->co;
    struct co_peer *p = co_peer_by_connection(co, op->connection);

    if (op->status && op->status != -FL_R_ROUND_OVER) {
        co_store_failed(co, op, "open an upload");
    }
    if (!p || p->closing || p->upload.dropped) {
        close_spool(co, o->spool);
        writing_ends(co, &o->u);
        if (p && !p->closing) {
            next(p);
            spooled(co, op->job_id, &o->u, -FL_R_CANCELLED);
        }
        return;
    }
    struct co_upload *up = &p->upload;
    if (op->status) {
        writing_ends(co, &o->u);
        next(p);
        spooled(co, op->job_id, &o->u, op->status);
        return;
    }
    up->spool = o->spool;
    up->from = o->from;
    snprintf(up->path, sizeof up->path, "%s", o->path);
    if (up->from == up->u.size) {
        count_up(co_job_by_id(co, up->job), &up->u);
        seal(co, co_job_by_id(co, up->job), up);
        next(p);
        return;
    }
    receive(p);
}

void co_upload_begin(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct co_peer *p = co_peer_by_agent(co, item->agent);

    if (!p) {
        return; /* it offers again when it is back */
    }
    struct co_upload *up = &p->upload;
    if (up->phase != CO_UPLOAD_NONE) {
        if (up->again) {
            struct fl_store_update u = {.round = up->again_item.round,
                                        .exchange = up->again_item.exchange,
                                        .agent = up->again_item.agent,
                                        .digest = up->again_item.digest};
            spooled(co, up->again_job, &u, -FL_R_CANCELLED);
        }
        co_upload_drop(p);
        up->again = true;
        up->again_job = j->id;
        up->again_item = *item;
        return;
    }
    struct fl_store_update u = co_update_of(j, item);
    const struct co_writing *w = writing_find(co, &u);
    if (w && w->sealing && w->u.round == u.round && w->u.exchange == u.exchange &&
        fl_digest_equal(&w->u.digest, &u.digest)) {
        return; /* all of it is here: the seal's SPOOLED is the answer */
    }
    if (w) {
        spooled(co, j->id, &u, -FL_R_BUSY);
        return;
    }
    writing_begins(co, &u);
    memset(up, 0, sizeof *up);
    up->phase = CO_UPLOAD_OPENING;
    up->job = j->id;
    memcpy(up->incarnation, j->incarnation, sizeof up->incarnation);
    up->u = u;
    up->base = item->base;
    struct open_op *o = co_op_new(co, sizeof *o, open_run, open_done);
    o->op.job_id = j->id;
    o->op.connection = p->connection;
    o->u = up->u;
    co_submit(co, co->store_lane, &o->op);
}

/* No longer wanted. Ends when the stream, or the store, lets go of the spool. */
void co_upload_drop(struct co_peer *p)
{
    struct co_upload *up = &p->upload;

    up->again = false;
    if (up->phase == CO_UPLOAD_NONE || up->dropped) {
        return;
    }
    up->dropped = true;
    if (up->phase == CO_UPLOAD_RECEIVING) {
        fl_stream_drop_sink(p->stream);
    }
}

void co_upload_ended(struct co_peer *p, int status, const struct fl_err *e)
{
    struct co *co = p->co;
    struct co_upload *up = &p->upload;

    if (up->phase != CO_UPLOAD_RECEIVING) {
        return;
    }
    struct fl_store_update u = up->u;
    uint64_t job = up->job;
    struct co_job *j = co_job_by_id(co, job);
    if (status == 0 && !up->dropped) {
        count_up(j, &u);
        seal(co, j, up);
        next(p);
        return;
    }
    close_spool(co, up->spool);
    writing_ends(co, &u);
    if (status && status != -FL_R_CANCELLED) {
        fl_log_err(FL_LOG_WARN, p->identity.name, e, "receive an update");
        if (wanted(j, &u)) {
            co_write_failed(co, status);
        }
    }
    if (p->closing) {
        return; /* LEFT follows */
    }
    next(p);
    spooled(co, job, &u, status ? status : -FL_R_CANCELLED);
}
