/*
 * What a round core asks for, performed: records in the store, messages to agents. Every answer
 * comes back as an event; what the core may rely on (an Ack only after the commit, a finish only
 * after the close) is in the core, not in the order of these functions.
 */
#include "server/co.h"

#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <string.h>

/* ---- the frozen plan ---- */

struct thaw_op {
    struct co_op op;
    struct co_sums *sums;
};

static void thaw_run(struct co_op *op)
{
    (void)op; /* being the last in the lane is all */
}

static void thaw_done(struct co_op *op)
{
    co_sums_free(((struct thaw_op *)op)->sums);
}

void co_round_thaw(struct co *co, struct co_job *j)
{
    if (!j->sums) {
        return;
    }
    struct thaw_op *t = co_op_new(co, sizeof *t, thaw_run, thaw_done);
    atomic_store(&j->sums->cancel, true);
    t->sums = j->sums;
    j->sums = NULL;
    co_submit(co, j->lane, &t->op);
}

int co_round_freeze(struct co *co, struct co_job *j, const char *text, size_t size,
                    struct co_sums *sums, struct fl_err *e)
{
    struct fl_object *frozen_text = fl_object_from_memory(text, size, e);

    if (!frozen_text) {
        co_sums_free(sums);
        return -FL_R_NOMEM;
    }
    co_round_thaw(co, j);
    fl_object_unref(j->frozen_text);
    j->frozen_text = frozen_text;
    j->sums = sums;
    j->bytes_up = j->bytes_down = 0;
    return 0;
}

/* ---- open ---- */

struct open_op {
    struct co_op op;
    uint64_t round;
    char name[FL_PLAN_NAME_MAX];
    char *text;
    struct co_sums_of of;
    struct co_sums *sums;
    struct fl_digest plan, base;
};

/* What can fail for want of memory comes before the record: a round that is recorded as open has a
 * description that `job set` no longer changes. */
static void open_run(struct co_op *op)
{
    struct open_op *o = (struct open_op *)op;

    op->status = co_sums_new(op->co->store, &o->of, &o->sums, &op->err);
    if (op->status == 0) {
        op->status = fl_store_round_open(op->co->store, op->job_id, o->round, o->text, o->of.size,
                                         &o->plan, &o->base, &op->err);
    }
}

static void open_done(struct co_op *op)
{
    struct open_op *o = (struct open_op *)op;
    struct co *co = op->co;
    struct co_job *j = co_job_by_id(co, op->job_id);

    if (op->status) {
        co_store_failed(co, op, "open a round");
    }
    if (j && j->round && op->status == 0) {
        op->status = co_round_freeze(co, j, o->text, o->of.size, o->sums, &op->err);
        o->sums = NULL;
        j->opened_ms = co_wall_ms();
        if (op->status) {
            fl_log_err(FL_LOG_ERROR, j->name, &op->err, "open round %llu",
                       (unsigned long long)o->round);
        }
    }
    co_sums_free(o->sums);
    fl_tls_conf_unref(o->of.tls);
    fl_free(o->text);
    co_event(co, op->job_id,
             &(struct fl_round_event){
                 .type = FL_ROUND_EV_OPENED, .round = o->round, .status = op->status},
             false);
}

static void do_open(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct open_op *o = co_op_new(co, sizeof *o, open_run, open_done);

    o->op.job_id = j->id;
    o->round = item->round;
    o->text = fl_new(j->text_size + 1, 1);
    memcpy(o->text, j->text, j->text_size);
    memcpy(o->name, j->name, sizeof o->name);
    o->of = (struct co_sums_of){.name = o->name,
                                .text = o->text,
                                .size = j->text_size,
                                .round = item->round,
                                .checkpoint = j->checkpoint,
                                .tls = fl_tls_conf_ref(co->tls)};
    memcpy(o->of.incarnation, j->incarnation, sizeof o->of.incarnation);
    fl_digest_of(o->text, j->text_size, &o->plan);
    o->base = j->model->model[0];
    co_submit(co, co->store_lane, &o->op);
}

/* ---- members, recorded in groups ---- */

struct enlist_op {
    struct co_op op;
    uint64_t round, base;
    uint32_t exchange, count;
    uint64_t *agents;
};

static void enlist_kick(struct co *co, struct co_job *j);

static void enlist_run(struct co_op *op)
{
    struct enlist_op *n = (struct enlist_op *)op;
    op->status = fl_store_members_add(op->co->store, op->job_id, n->round, n->exchange, n->base,
                                      n->agents, n->count, &op->err);
}

static void enlist_done(struct co_op *op)
{
    struct enlist_op *n = (struct enlist_op *)op;
    struct co *co = op->co;
    struct co_job *j = co_job_by_id(co, op->job_id);

    if (op->status) {
        co_store_failed(co, op, "record members");
    }
    for (uint32_t i = 0; i < n->count; i++) {
        co_event(co, op->job_id,
                 &(struct fl_round_event){.type = FL_ROUND_EV_ENLISTED,
                                          .round = n->round,
                                          .base = n->base,
                                          .exchange = n->exchange,
                                          .agent = n->agents[i],
                                          .status = op->status},
                 false);
    }
    fl_free(n->agents);
    if (j) {
        j->enlist_busy = false;
        enlist_kick(co, j);
    }
}

static void enlist_kick(struct co *co, struct co_job *j)
{
    if (j->enlist_busy || !j->enlist_count || !j->round) {
        return;
    }
    struct enlist_op *n = co_op_new(co, sizeof *n, enlist_run, enlist_done);
    n->op.job_id = j->id;
    n->round = j->published + 1;
    n->exchange = j->enlist[0].exchange;
    n->base = j->enlist[0].base;
    n->agents = fl_new(j->enlist_count, sizeof *n->agents);
    while (n->count < j->enlist_count && j->enlist[n->count].exchange == n->exchange &&
           j->enlist[n->count].base == n->base) {
        n->agents[n->count] = j->enlist[n->count].agent;
        n->count++;
    }
    j->enlist_count -= n->count;
    memmove(j->enlist, j->enlist + n->count, j->enlist_count * sizeof *j->enlist);
    j->enlist_busy = true;
    co_submit(co, co->store_lane, &n->op);
}

static void do_enlist(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    const struct fl_roster_agent *a = fl_roster_by_id(co->roster, item->agent);

    /* One task at a time: it is spoken for, so other jobs must not draw it. */
    if (a && a->state == FL_ROSTER_ASKING) {
        fl_roster_set(co->roster, item->agent, FL_ROSTER_WORKING, j->id, co_now(co));
        for (struct co_job *other = co->jobs; other; other = other->hh.next) {
            if (other != j && other->round) {
                co_event(
                    co, other->id,
                    &(struct fl_round_event){.type = FL_ROUND_EV_UNAVAILABLE, .agent = item->agent},
                    true);
            }
        }
    }
    if (j->enlist_count == j->enlist_room) {
        uint32_t room = j->enlist_room ? 2 * j->enlist_room : 64;
        if (!fl_try_grow((void **)&j->enlist, room, sizeof *j->enlist)) {
            co_event(co, j->id,
                     &(struct fl_round_event){.type = FL_ROUND_EV_ENLISTED,
                                              .round = item->round,
                                              .base = item->base,
                                              .exchange = item->exchange,
                                              .agent = item->agent,
                                              .status = -FL_R_NOMEM},
                     false);
            return;
        }
        j->enlist_room = room;
    }
    j->enlist[j->enlist_count++] = (struct co_enlist){item->agent, item->base, item->exchange};
}

/* ---- updates, committed in groups ---- */

struct commit_op {
    struct co_op op;
    struct fl_store_update *updates;
    int *status;
    uint32_t count;
};

static void commit_run(struct co_op *op)
{
    struct commit_op *c = (struct commit_op *)op;
    op->status = fl_store_commit(op->co->store, c->updates, c->count, c->status, &op->err);
}

static void commit_done(struct co_op *op)
{
    struct commit_op *c = (struct commit_op *)op;
    struct co *co = op->co;

    co->commit_busy = false;
    if (op->status) {
        co_store_failed(co, op, "commit updates");
    }
    for (uint32_t i = 0; i < c->count; i++) {
        const struct fl_store_update *u = &c->updates[i];
        int status = op->status ? op->status : c->status[i];
        co->updates_committed += status == 0;
        co_event(co, u->job,
                 &(struct fl_round_event){.type = FL_ROUND_EV_COMMITTED,
                                          .round = u->round,
                                          .exchange = u->exchange,
                                          .agent = u->agent,
                                          .digest = u->digest,
                                          .size = u->size,
                                          .weight = u->weight,
                                          .status = status},
                 false);
    }
    fl_free(c->updates);
    fl_free(c->status);
    co_commit_kick(co);
}

/* While one transaction waits for the disk, the next group gathers. */
void co_commit_kick(struct co *co)
{
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        enlist_kick(co, j);
    }
    if (co->commit_busy || !co->commit_count) {
        return;
    }
    struct commit_op *c = co_op_new(co, sizeof *c, commit_run, commit_done);
    c->count = co->commit_count < CO_COMMIT_MAX ? co->commit_count : CO_COMMIT_MAX;
    c->updates = fl_new(c->count, sizeof *c->updates);
    c->status = fl_new(c->count, sizeof *c->status);
    memcpy(c->updates, co->commit, c->count * sizeof *c->updates);
    co->commit_count -= c->count;
    memmove(co->commit, co->commit + c->count, co->commit_count * sizeof *co->commit);
    co->commit_busy = true;
    co_submit(co, co->store_lane, &c->op);
}

static void do_record(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct fl_store_update u = co_update_of(j, item);
    const struct fl_roster_agent *a = fl_roster_by_id(co->roster, item->agent);

    if (a) { /* at its last offer: at least as far as this update */
        u.releases = a->releases;
        u.head = a->head;
    }
    if (co->commit_count == co->commit_room) {
        uint32_t room = co->commit_room ? 2 * co->commit_room : 64;
        if (room > CO_COMMIT_MAX * 64 ||
            !fl_try_grow((void **)&co->commit, room, sizeof *co->commit)) {
            co_event(co, j->id,
                     &(struct fl_round_event){.type = FL_ROUND_EV_COMMITTED,
                                              .round = u.round,
                                              .exchange = u.exchange,
                                              .agent = u.agent,
                                              .digest = u.digest,
                                              .size = u.size,
                                              .weight = u.weight,
                                              .status = -FL_R_NOMEM},
                     false);
            return;
        }
        co->commit_room = room;
    }
    co->commit[co->commit_count++] = u;
}

/* ---- close ---- */

struct close_op {
    struct co_op op;
    uint64_t round;
    uint32_t exchange, count;
    uint64_t *members;
};

static void close_run(struct co_op *op)
{
    struct close_op *c = (struct close_op *)op;
    op->status = fl_store_close_exchange(op->co->store, op->job_id, c->round, c->exchange,
                                         c->members, c->count, co_wall_ms(), &op->err);
}

static void close_done(struct co_op *op)
{
    struct close_op *c = (struct close_op *)op;

    if (op->status) {
        co_store_failed(op->co, op, "close an exchange");
    }
    fl_free(c->members);
    co_event(op->co, op->job_id,
             &(struct fl_round_event){.type = FL_ROUND_EV_CLOSED,
                                      .round = c->round,
                                      .exchange = c->exchange,
                                      .status = op->status},
             false);
}

static void do_close(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct close_op *c = co_op_new(co, sizeof *c, close_run, close_done);

    c->op.job_id = j->id;
    c->round = item->round;
    c->exchange = item->exchange;
    c->count = item->count;
    c->members = fl_new(item->count ? item->count : 1, sizeof *c->members);
    memcpy(c->members, item->members, item->count * sizeof *c->members);
    co_submit(co, co->store_lane, &c->op);
}

/* ---- publish ---- */

struct publish_op {
    struct co_op op;
    uint64_t round;
    struct fl_digest checkpoint, model;
    uint64_t model_size;
    uint32_t late_rounds;
    char path[FL_STORE_PATH_MAX];
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_checkpoint *fresh;
    struct fl_control_counts counts;
    struct fl_plan plan;
    char note[CO_NOTE_MAX];
    struct co_distrust distrust;
};

static void publish_run(struct co_op *op)
{
    struct publish_op *p = (struct publish_op *)op;

    fl_store_checkpoint_path(op->co->store, p->incarnation, p->round, &p->checkpoint, p->path);
    op->status = fl_checkpoint_open(p->path, p->round, &p->fresh, &op->err);
    op->status = op->status ? op->status : co_counts_read(p->fresh, &p->counts, &op->err);
    if (op->status == 0) {
        op->status = co_distrust_read(p->fresh, p->round + 1, &p->distrust, &op->err);
    }
    if (op->status == 0) {
        co_note(&p->plan, p->fresh, p->note);
        op->status = fl_store_publish(op->co->store, op->job_id, p->round, &p->checkpoint,
                                      &p->model, p->model_size, p->late_rounds, &op->err);
    }
}

static void publish_done(struct co_op *op)
{
    struct publish_op *p = (struct publish_op *)op;
    struct co *co = op->co;
    struct co_job *j = co_job_by_id(co, op->job_id);

    if (op->status) {
        co_store_failed(co, op, "publish a round");
    }
    if (j && op->status == 0) {
        fl_checkpoint_close(j->model);
        j->model = p->fresh;
        p->fresh = NULL;
        j->model_digest = p->model;
        j->model_size = p->model_size;
        fl_free(j->counts.value);
        j->counts = p->counts;
        p->counts.value = NULL;
        memcpy(j->note, p->note, sizeof j->note);
        fl_object_unref(j->last_plan);
        j->last_plan = j->frozen_text;
        j->frozen_text = NULL;
        j->published = p->round;
        j->checkpoint = p->checkpoint;
        co_round_thaw(co, j);
        fl_log(FL_LOG_INFO, j->name, "round %llu of %llu published%s%s",
               (unsigned long long)p->round, (unsigned long long)j->plan->rounds,
               j->note[0] ? ": " : "", j->note);
        co_distrust_take(co, j, &p->distrust, p->round + 1);
    }
    fl_checkpoint_close(p->fresh);
    fl_free(p->distrust.out);
    fl_free(p->counts.value);
    if (j && j->round && op->status == 0) { /* they may change from round to round */
        int r = co_job_rules(j, &op->err);
        if (r) {
            fl_log_err(FL_LOG_ERROR, j->name, &op->err, "the rules of the next round");
            co_job_over(co, j, FL_JOB_FAILED, r);
        }
    }
    co_event(co, op->job_id,
             &(struct fl_round_event){
                 .type = FL_ROUND_EV_PUBLISHED, .round = p->round, .status = op->status},
             false);
}

static void do_publish(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct publish_op *p = co_op_new(co, sizeof *p, publish_run, publish_done);

    p->op.job_id = j->id;
    p->round = item->round;
    p->checkpoint = item->digest;
    p->model = j->next_model;
    p->model_size = j->next_model_size;
    p->late_rounds = j->sums->plan->round.late_rounds;
    p->plan = *j->sums->plan;
    memcpy(p->incarnation, j->incarnation, sizeof p->incarnation);
    co_submit(co, co->store_lane, &p->op);
}

/* ---- the list ---- */

void co_no_task(struct co_peer *p, struct co_job *j, const struct fl_round_item *item, int status,
                const struct fl_err *why)
{
    if (status != -FL_R_NOT_MEMBER) {
        fl_log_err(FL_LOG_ERROR, j->name, why, "round %llu: a task",
                   (unsigned long long)item->round);
        co_job_over(p->co, j, FL_JOB_FAILED, status);
        return;
    }
    fl_log_err(FL_LOG_INFO, p->identity.name, why, "no task in round %llu of %s",
               (unsigned long long)item->round, j->name);
    co_event(p->co, j->id,
             &(struct fl_round_event){.type = FL_ROUND_EV_DECLINED,
                                      .round = item->round,
                                      .exchange = item->exchange,
                                      .agent = p->agent,
                                      .status = status},
             false);
    co_peer_available(p);
}

static void key_of(const struct co_job *j, const struct fl_round_item *item, struct fl_key *ret)
{
    memcpy(ret->incarnation, j->incarnation, sizeof ret->incarnation);
    ret->round = item->base;
    ret->exchange = item->exchange;
}

static void to_agent(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    struct co_peer *p = co_peer_by_agent(co, item->agent);
    struct fl_key key;

    if (!p) {
        return; /* it asks, or offers, again when it is back */
    }
    key_of(j, item, &key);
    switch (item->type) {
    case FL_ROUND_DO_INVITE:
        co_peer_send_task(p, j, item);
        break;
    case FL_ROUND_DO_ACK:
        FL_CRASH_POINT("round-ack-before");
        co_peer_send_ack(p, &key, &item->digest);
        FL_CRASH_POINT("round-ack-after");
        break;
    case FL_ROUND_DO_DROP:
    case FL_ROUND_DO_REFUSE:
        if (p->upload.phase != CO_UPLOAD_NONE && p->upload.job == j->id) {
            co_upload_drop(p);
        }
        if (item->type == FL_ROUND_DO_DROP && p->core.state == FL_PEER_ASKING) {
            co_peer_available(p); /* drawn but never asked: it still waits */
        } else if (item->type == FL_ROUND_DO_DROP) {
            co_peer_send_over(p, &key, item->reason);
        } else {
            co_peer_send_refuse(p, &key, item->reason, NULL);
        }
        break;
    default:
        break;
    }
}

void co_perform(struct co *co, struct co_job *j, const struct fl_round_item *item)
{
    switch (item->type) {
    case FL_ROUND_DO_OPEN:
        do_open(co, j, item);
        break;
    case FL_ROUND_DO_ENLIST:
        do_enlist(co, j, item);
        break;
    case FL_ROUND_DO_INVITE:
    case FL_ROUND_DO_ACK:
    case FL_ROUND_DO_DROP:
    case FL_ROUND_DO_REFUSE:
        to_agent(co, j, item);
        break;
    case FL_ROUND_DO_RECEIVE:
        co_upload_begin(co, j, item);
        break;
    case FL_ROUND_DO_RECORD:
        do_record(co, j, item);
        break;
    case FL_ROUND_DO_FOLD:
        co_fold(co, j, item);
        break;
    case FL_ROUND_DO_REFOLD:
        co_refold(co, j, item);
        break;
    case FL_ROUND_DO_CLOSE:
        do_close(co, j, item);
        co_job_release_agents(co, j);
        break;
    case FL_ROUND_DO_FINISH:
        co_finish(co, j, item);
        break;
    case FL_ROUND_DO_PUBLISH:
        do_publish(co, j, item);
        break;
    case FL_ROUND_DO_RETRY:
        fl_log(FL_LOG_WARN, j->name,
               "round %llu: too few updates at the deadline; attempt %u begins",
               (unsigned long long)item->round, item->count);
        break;
    case FL_ROUND_DO_PAUSED:
        co_job_over(co, j, FL_JOB_PAUSED, item->reason);
        break;
    case FL_ROUND_DO_DONE:
        co_job_over(co, j, item->reason ? FL_JOB_CANCELLED : FL_JOB_DONE, item->reason);
        break;
    }
}
