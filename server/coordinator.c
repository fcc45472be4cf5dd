/*
 * Start, drain, reload and end of the coordinator; its one timer; and the queue through which
 * everything that happens reaches the round cores.
 *
 * That queue is the spine: co_event appends, and unless a step is already running further up the
 * stack, events are taken one by one: fl_round_step fills a list, co_perform carries each item out,
 * and whatever completes at once is appended behind. So there is no recursion through callbacks,
 * one order of things, and one place to trace all of it.
 */
#include "server/co.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

uint64_t co_now(const struct co *co)
{
    return uv_now(co->loop);
}

uint64_t co_wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void co_changed(struct co *co)
{
    if (co->control) {
        fl_control_changed(co->control);
    }
}

/* ---- work ---- */

static void maybe_stopped(struct co *co);

static void op_run(struct fl_job *job)
{
    struct co_op *op = (struct co_op *)(void *)job;
    op->run(op);
}

static void op_done(struct fl_job *job)
{
    struct co_op *op = (struct co_op *)(void *)job;
    struct co *co = op->co;

    if (job->cancelled) {
        op->status = fl_fail(&op->err, FL_R_CANCELLED, "cancelled");
    }
    if (job->lane == co->store_lane && co->store) {
        co->state_bytes = fl_store_bytes(co->store); /* nothing of the lane runs until we return */
    }
    op->done(op);
    fl_free(op);
    co->ops--;
    maybe_stopped(co);
}

void *co_op_new(struct co *co, size_t size, void (*run)(struct co_op *),
                void (*done)(struct co_op *))
{
    struct co_op *op = fl_new(1, size); /* small, and bounded by the lanes */
    op->job.run = op_run;
    op->job.done = op_done;
    op->co = co;
    op->run = run;
    op->done = done;
    return op;
}

void co_op_job(struct co_op *op, const struct co_job *j)
{
    op->job_id = j->id;
    op->generation = j->generation;
}

void co_answer(const struct co_op *op, const struct fl_round_event *ev)
{
    const struct co_job *j = co_job_by_id(op->co, op->job_id);

    if (j && j->generation == op->generation) {
        co_event(op->co, op->job_id, ev, false);
    }
}

void co_submit(struct co *co, struct fl_lane *lane, struct co_op *op)
{
    co->ops++;
    int r = fl_lane_submit(lane, &op->job);
    if (r) {
        op->status = fl_fail(&op->err, (enum fl_reason) - r, "too much work is queued");
        op->done(op);
        fl_free(op);
        co->ops--;
    }
}

/* A failure of durability ends the service: what cannot be written must not be promised. */
void co_write_failed(struct co *co, int status)
{
    if (status == -FL_R_STORE_IO && !co->down) {
        fl_log(FL_LOG_ERROR, "store",
               "a durable write failed: stopping; a restart resumes what was acknowledged");
        co->down = true;
        co->down_status = status;
        fl_coordinator_drain((struct fl_coordinator *)co);
    }
}

void co_store_failed(struct co *co, const struct co_op *op, const char *what)
{
    fl_log_err(FL_LOG_ERROR, "store", &op->err, "%s", what);
    co_write_failed(co, op->status);
}

/* ---- events to the round cores ---- */

static void arm_timer(struct co *co);

static void on_timer(uv_timer_t *timer)
{
    struct co *co = timer->data;
    uint64_t now = co_now(co);

    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (j->round && fl_round_deadline(j->round) <= now) {
            co_event(co, j->id, &(struct fl_round_event){.type = FL_ROUND_EV_TICK}, false);
        }
        if (j->retry_ms && j->retry_ms <= now) {
            co_job_retry(co, j);
        }
    }
    arm_timer(co);
}

static void arm_timer(struct co *co)
{
    uint64_t next = FL_ROUND_NEVER, now = co_now(co);

    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (j->round && fl_round_deadline(j->round) < next) {
            next = fl_round_deadline(j->round);
        }
        if (j->retry_ms && j->retry_ms < next) {
            next = j->retry_ms;
        }
    }
    if (next == FL_ROUND_NEVER || co->draining) {
        uv_timer_stop(&co->timer);
    } else {
        uv_timer_start(&co->timer, on_timer, next > now ? next - now : 0, 0);
    }
}

static void step(struct co *co, const struct co_event *event)
{
    struct co_job *j = co_job_by_id(co, event->job);
    struct fl_round_todo todo;
    struct fl_round_event ev = event->ev;

    if (!j || !j->round) {
        return;
    }
    ev.now_ms = co_now(co);
    int r = fl_round_step(j->round, &ev, &todo);
    if (r) {
        fl_log(FL_LOG_ERROR, j->name, "the store remembers what cannot have happened (%s)",
               fl_reason_name(r));
        co_job_over(co, j, FL_JOB_FAILED, r);
        return;
    }
    for (uint32_t i = 0; i < todo.count; i++) {
        co_perform(co, j, &todo.item[i]);
    }
    if (todo.more && j->round) {
        co_event(co, event->job, &(struct fl_round_event){.type = FL_ROUND_EV_TICK}, false);
    }
    co_changed(co);
}

void co_event(struct co *co, uint64_t job, const struct fl_round_event *ev, bool front)
{
    struct co_event *q = co->spare;

    if (q) {
        co->spare = q->next;
    } else {
        q = fl_new(1, sizeof *q); /* as many as one turn of the loop brings */
    }
    q->job = job;
    q->ev = *ev;
    q->next = NULL;
    if (front) {
        q->next = co->first;
        co->first = q;
        co->last = co->last ? co->last : q;
    } else if (co->last) {
        co->last->next = q;
        co->last = q;
    } else {
        co->first = co->last = q;
    }
    if (co->stepping) {
        return;
    }
    co->stepping = true;
    while ((q = co->first)) {
        co->first = q->next;
        co->last = co->first ? co->last : NULL;
        step(co, q);
        q->next = co->spare;
        co->spare = q;
    }
    co->stepping = false;
    co_commit_kick(co);
    arm_timer(co);
}

/* ---- start ---- */

static int each_agent(void *arg, const struct fl_store_agent *a)
{
    struct co *co = arg;
    struct fl_err e = {0};

    int r = fl_roster_add(co->roster, a->id, a->key, a->name, a->serial, a->revoked, &e);
    if (r) {
        fl_log_err(FL_LOG_ERROR, "store", &e, "enrolled agent %s", a->name);
    } else {
        fl_roster_mark(co->roster, a->id, a->releases, &a->head);
    }
    return r;
}

static int open_all(struct co *co, struct fl_err *e)
{
    const struct fl_server_config *c = &co->config;
    struct fl_store_quota quota = {.state_bytes = c->retention.state_bytes,
                                   .keep_models = c->retention.keep_models,
                                   .keep_rounds = c->retention.keep_rounds};
    struct fl_tls_files files = fl_server_config_tls(c);
    const unsigned threads[FL_WORK_CLASSES] = {[FL_WORK_SHORT] = c->threads.short_,
                                               [FL_WORK_SYNC] = c->threads.sync,
                                               [FL_WORK_LONG] = c->threads.long_};
    int r;

    if ((r = fl_tls_conf_new(true, &files, &co->tls, e)) != 0 ||
        (r = fl_store_open(c->state, &quota, &co->store, co->id, e)) != 0 ||
        (r = co_secret_open(co, e)) != 0 ||
        (r = fl_work_new(co->loop, threads, &co->work, e)) != 0 ||
        (r = fl_pool_new(c->limits.frame_buffers, &co->pool, e)) != 0 ||
        (r = fl_roster_new(FL_STORE_AGENTS_MAX, &co->roster, e)) != 0) {
        return r;
    }
    co_tune_sweep(c->state);
    /* A restart asks for the path of every committed update at once; a connection has one upload,
     * one late offer and one claim under way. */
    co->store_lane = fl_lane_new(co->work, FL_WORK_SYNC,
                                 FL_STORE_UPLOADS_MAX + 5 * c->limits.connections + 1024);
    for (int i = 0; i < CO_SEAL_LANES; i++) {
        co->seal_lane[i] = fl_lane_new(co->work, FL_WORK_SYNC, c->limits.connections + 64);
    }
    co->replay_lane = fl_lane_new(co->work, FL_WORK_LONG, CO_REPLAYS_MAX);
    co->receipt_lane = fl_lane_new(co->work, FL_WORK_SHORT, c->limits.connections + 64);
    co->state_bytes = fl_store_bytes(co->store);
    if ((r = fl_store_agents(co->store, each_agent, co, e)) != 0 ||
        (r = co_jobs_load(co, e)) != 0) {
        return r;
    }
    struct fl_control_conf control = {.loop = co->loop,
                                      .path = c->socket.path,
                                      .group = c->socket.group[0] ? c->socket.group : NULL,
                                      .ops = &co_control_ops,
                                      .co = co};
    if ((r = fl_control_open(&control, &co->control, e)) != 0) {
        return r;
    }
    return fl_listen(co->loop, c->listen.address, (uint16_t)c->listen.port, co_accepting, co,
                     &co->listener, e);
}

int fl_coordinator_open(uv_loop_t *loop, const char *config_path,
                        const struct fl_server_config *config,
                        void (*stopped)(void *arg, int status), void *arg,
                        struct fl_coordinator **ret, struct fl_err *e)
{
    struct co *co = fl_new(1, sizeof *co);

    co->loop = loop;
    co->config = *config;
    co->config_path = config_path;
    co->stopped = stopped;
    co->stopped_arg = arg;
    co->started_ms = co_wall_ms();
    uv_timer_init(loop, &co->timer);
    co->timer.data = co;
    int r = open_all(co, e);
    if (r) {
        co->stopped = NULL;
        co->draining = true;
        while (co->ops) { /* of jobs that were going on already */
            uv_run(loop, UV_RUN_ONCE);
        }
        fl_coordinator_close((struct fl_coordinator *)co);
        return r;
    }
    /* Each resumed or new round looks at the clock once; that also begins its wait for candidates.
     */
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        co_event(co, j->id, &(struct fl_round_event){.type = FL_ROUND_EV_TICK}, false);
    }
    *ret = (struct fl_coordinator *)co;
    return 0;
}

/* ---- the end ---- */

static void maybe_stopped(struct co *co)
{
    if (co->draining && co->stopped && co->ops == 0 && !co->peers && !co->commit_count) {
        void (*stopped)(void *, int) = co->stopped;
        co->stopped = NULL;
        stopped(co->stopped_arg, co->down_status);
    }
}

void fl_coordinator_drain(struct fl_coordinator *coordinator)
{
    struct co *co = (struct co *)coordinator;
    struct co_peer *p, *tmp;

    if (co->draining) {
        return;
    }
    co->draining = true;
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (j->sums) {
            atomic_store(&j->sums->cancel, true);
        }
    }
    uv_timer_stop(&co->timer);
    fl_listener_close(co->listener);
    co->listener = NULL;
    HASH_ITER(hh, co->peers, p, tmp)
    {
        co_peer_bye(p, FL_R_SHUTDOWN, "the coordinator is stopping", CO_REST_MS);
    }
    maybe_stopped(co);
}

void co_peer_closed(struct co *co)
{
    maybe_stopped(co);
}

void fl_coordinator_close(struct fl_coordinator *coordinator)
{
    struct co *co = (struct co *)coordinator;
    struct co_job *j, *tmp;
    struct co_event *q;

    if (!co) {
        return;
    }
    fl_listener_close(co->listener);
    fl_control_close(co->control);
    co->control = NULL;
    HASH_ITER(hh, co->jobs, j, tmp)
    {
        co_job_free(co, j);
    }
    fl_lane_free(co->store_lane);
    for (int i = 0; i < CO_SEAL_LANES; i++) {
        fl_lane_free(co->seal_lane[i]);
    }
    fl_lane_free(co->replay_lane);
    fl_lane_free(co->receipt_lane);
    fl_work_free(co->work);
    fl_store_close(co->store);
    fl_roster_free(co->roster);
    fl_pool_free(co->pool);
    fl_tls_conf_unref(co->tls);
    uv_close((uv_handle_t *)&co->timer, NULL);
    uv_run(co->loop, UV_RUN_DEFAULT); /* closes what was just asked to close */
    while ((q = co->first ? co->first : co->spare)) {
        *(co->first ? &co->first : &co->spare) = q->next;
        fl_free(q);
    }
    fl_free(co->commit);
    fl_free(co);
}

/* ---- reload ---- */

int fl_coordinator_reload(struct fl_coordinator *coordinator,
                          char ret_waiting[FL_COORDINATOR_WAITING_MAX], struct fl_err *e)
{
    struct co *co = (struct co *)coordinator;
    struct fl_server_config fresh;
    struct fl_server_config renewed = co->config;
    struct fl_tls_conf *tls;

    int r = fl_server_config_load(co->config_path, &fresh, e);
    if (r) {
        return r;
    }
    fl_server_config_renew(&renewed, &fresh, ret_waiting, FL_COORDINATOR_WAITING_MAX);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        renewed.limits.connections =
            fl_server_config_connections(renewed.limits.connections, (uint64_t)limit.rlim_cur);
    }
    struct fl_tls_files files = fl_server_config_tls(&renewed);
    if ((r = fl_tls_conf_new(true, &files, &tls, e)) != 0) {
        return r;
    }
    co->config = renewed;
    fl_log_set_level(renewed.log.level);
    fl_log(FL_LOG_INFO, NULL, "reloaded%s%s", ret_waiting[0] ? "; waits for a restart: " : "",
           ret_waiting);
    fl_tls_conf_unref(co->tls);
    co->tls = tls;
    co_peers_revoke(co);
    return 0;
}

uint16_t fl_coordinator_port(const struct fl_coordinator *coordinator)
{
    return fl_listener_port(((const struct co *)coordinator)->listener);
}

void fl_coordinator_summary(const struct fl_coordinator *coordinator, char *text, size_t size)
{
    const struct co *co = (const struct co *)coordinator;
    struct fl_roster_counts counts;
    uint32_t running = 0;

    fl_roster_counts(co->roster, &counts);
    for (const struct co_job *j = co->jobs; j; j = j->hh.next) {
        running += j->round != NULL;
    }
    snprintf(text, size, "%u jobs, %u of %u agents connected, %llu updates committed", running,
             counts.online, counts.enrolled, (unsigned long long)co->updates_committed);
}
