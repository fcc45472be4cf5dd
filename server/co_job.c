/*
 * Jobs come and go: submission, changes by people, the end, and restart. A restart feeds the round
 * core what the store remembers, as the same events; there is no second way through a round.
 */
#include "server/co.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

struct co_job *co_job_by_id(struct co *co, uint64_t id)
{
    struct co_job *j;

    HASH_FIND(hh, co->jobs, &id, sizeof id, j);
    return j;
}

struct co_job *co_job_by_name(struct co *co, const char *name)
{
    struct co_job *found = NULL;

    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (fl_control_job_is(name, j->name, j->id) && (!found || j->id > found->id)) {
            found = j;
        }
    }
    return found;
}

struct co_job *co_job_by_incarnation(struct co *co, const uint8_t incarnation[FL_INCARNATION_SIZE])
{
    for (struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (memcmp(j->incarnation, incarnation, FL_INCARNATION_SIZE) == 0) {
            return j;
        }
    }
    return NULL;
}

void co_job_free(struct co *co, struct co_job *j)
{
    HASH_DELETE(hh, co->jobs, j);
    fl_round_free(j->round);
    co_sums_free(j->sums);
    fl_lane_free(j->lane);
    fl_checkpoint_close(j->model);
    fl_free(j->counts.value);
    fl_free(j->distrust.out);
    fl_object_unref(j->last_plan);
    fl_object_unref(j->frozen_text);
    fl_free(j->plan);
    fl_free(j->text);
    fl_free(j->enlist);
    fl_free(j);
}

/* ---- a job in memory ---- */

static bool is_over(enum fl_job_state state)
{
    return state == FL_JOB_DONE || state == FL_JOB_CANCELLED || state == FL_JOB_FAILED;
}

int co_job_rules(struct co_job *j, struct fl_err *e)
{
    struct fl_round_rules rules;
    bool open = false;
    uint64_t round = fl_round_current(j->round, &open);
    struct fl_round_view v;

    fl_round_view(j->round, &v);
    fl_strategy_rules(j->plan, round + (open || v.phase != FL_ROUND_FILL), &rules);
    if (memcmp(&rules, &j->rules, sizeof rules) == 0) {
        return 0;
    }
    int r = fl_round_set_rules(j->round, &rules, e);
    if (r == 0) {
        j->rules = rules;
    }
    return r;
}

int co_job_take_text(struct co_job *j, const char *text, size_t size, struct fl_err *e)
{
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    char *copy = fl_try(size + 1, 1);

    int r = plan && copy ? fl_plan_parse(plan, j->name, text, size, e)
                         : fl_fail(e, FL_R_NOMEM, "a description");
    if (r) {
        fl_free(plan);
        fl_free(copy);
        return r;
    }
    memcpy(copy, text, size);
    fl_free(j->plan);
    fl_free(j->text);
    j->plan = plan;
    j->text = copy;
    j->text_size = size;
    return 0;
}

struct co_job *co_job_new(struct co *co, const struct fl_store_job *s, struct fl_err *e)
{
    struct co_job *j = fl_try(1, sizeof *j);

    if (!j) {
        fl_fail(e, FL_R_NOMEM, "a job");
        return NULL;
    }
    j->id = s->id;
    snprintf(j->name, sizeof j->name, "%s", s->name);
    memcpy(j->incarnation, s->incarnation, sizeof j->incarnation);
    j->state = s->state;
    snprintf(j->why, sizeof j->why, "%s", s->why);
    j->published = s->round;
    j->checkpoint = s->checkpoint;
    j->model_digest = s->model;
    j->model_size = s->model_size;
    HASH_ADD(hh, co->jobs, id, sizeof j->id, j);
    return j;
}

int co_job_round(struct co *co, struct co_job *j, struct fl_err *e)
{
    struct fl_round_setup setup = {
        .published = j->published,
        .candidates_max = co->config.limits.connections,
        /* by a person: the open round is still finished, see co_job_state */
        .paused = j->state == FL_JOB_PAUSED && j->why[0],
        .draining = j->state == FL_JOB_DRAINING || (j->state == FL_JOB_PAUSED && !j->why[0]),
        .now_ms = co_now(co),
        .rules = &j->rules};

    memcpy(setup.incarnation, j->incarnation, sizeof setup.incarnation);
    fl_strategy_rules(j->plan, j->published + 1, &j->rules);
    j->generation++;
    j->lane = j->lane ? j->lane : fl_lane_new(co->work, FL_WORK_LONG, FL_ROUND_MEMBERS_MAX + 64);
    if (!j->lane) {
        return fl_fail(e, FL_R_NOMEM, "a lane for job %s", j->name);
    }
    return fl_round_new(&setup, &j->round, e);
}

int co_counts_read(const struct fl_checkpoint *c, struct fl_control_counts *ret, struct fl_err *e)
{
    struct fl_section section;
    struct fl_counts counts;
    int r = fl_checkpoint_section(c, "counts", &section, e);

    memset(ret, 0, sizeof *ret);
    if (r <= 0) {
        return r;
    }
    r = fl_counts_view(section.bytes, section.size, &counts, e);
    if (r == 0) {
        ret->value = fl_try(counts.classes, sizeof *ret->value);
        r = ret->value ? 0 : fl_fail(e, FL_R_NOMEM, "%u counts", counts.classes);
    }
    for (uint32_t i = 0; r == 0 && i < counts.classes; i++) {
        ret->value[i] = fl_counts_at(&counts, i);
    }
    if (r == 0) {
        ret->sites = counts.sites;
        ret->classes = counts.classes;
        ret->noise_std = counts.noise_std;
    }
    fl_free(section.bytes);
    return r;
}

int co_job_model(struct co *co, struct co_job *j, struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    uint32_t open = 0;
    struct co_job *oldest = NULL;

    j->model_used = ++co->models_used;
    if (j->model) {
        return 0;
    }
    fl_store_checkpoint_path(co->store, j->incarnation, j->published, &j->checkpoint, path);
    int r = fl_checkpoint_open(path, j->published, &j->model, e);
    if (r == 0 && !fl_digest_equal(&j->model->model[0], &j->model_digest)) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "%s: not the model that was published", path);
    }
    if (r == 0 && !j->counts.value) {
        r = co_counts_read(j->model, &j->counts, e);
        co_note(j->plan, j->model, j->note);
    }
    if (r == 0 && !j->distrust.out) {
        r = co_distrust_read(j->model, j->published + 1, &j->distrust, e);
    }
    if (r) {
        fl_checkpoint_close(j->model);
        j->model = NULL;
        return r;
    }
    for (struct co_job *k = co->jobs; k; k = k->hh.next) {
        if (is_over(k->state) && k->model) {
            open++;
            oldest = !oldest || k->model_used < oldest->model_used ? k : oldest;
        }
    }
    if (open > CO_MODELS_OPEN && oldest != j) { /* who fetches of it has parts of its own */
        fl_checkpoint_close(oldest->model);
        oldest->model = NULL;
    }
    return 0;
}

/* ---- restart ---- */

/* What the store remembers of the open round, as events in their order. Collected where the store
 * may be asked, fed on the loop. */
struct replay {
    bool found;
    struct fl_store_round round;
    struct co_sums *sums;
    struct fl_round_event *events;
    uint32_t count, room;
    uint32_t exchange; /* being walked */
};

static int replay_add(struct replay *p, const struct fl_round_event *ev)
{
    if (p->count == p->room) {
        uint32_t room = p->room ? 2 * p->room : 64;
        if (!fl_try_grow((void **)&p->events, room, sizeof *p->events)) {
            return -FL_R_NOMEM;
        }
        p->room = room;
    }
    p->events[p->count] = *ev;
    p->events[p->count++].round = p->round.round;
    return 0;
}

static int replay_member(void *arg, uint64_t agent, uint64_t base, bool closed_in)
{
    struct replay *p = arg;

    (void)closed_in;
    return replay_add(p, &(struct fl_round_event){.type = FL_ROUND_EV_ENLISTED,
                                                  .base = base,
                                                  .exchange = p->exchange,
                                                  .agent = agent});
}

static int replay_update(void *arg, const struct fl_store_update *u)
{
    return replay_add(arg, &(struct fl_round_event){.type = FL_ROUND_EV_COMMITTED,
                                                    .exchange = u->exchange,
                                                    .agent = u->agent,
                                                    .digest = u->digest,
                                                    .size = u->size,
                                                    .weight = u->weight});
}

static void replay_fini(struct replay *p)
{
    co_sums_free(p->sums);
    fl_free(p->round.text);
    fl_free(p->events);
}

/* [store] `of`: what is not in the round's record. */
static int replay_load(struct fl_store *s, uint64_t job, struct co_sums_of *of, struct replay *p,
                       struct fl_err *e)
{
    int r = fl_store_round_load(s, job, &p->round, e);

    if (r <= 0) {
        return r;
    }
    p->found = true;
    of->text = p->round.text;
    of->size = p->round.text_size;
    of->round = p->round.round;
    r = co_sums_new(s, of, &p->sums, e);
    r = r ? r : replay_add(p, &(struct fl_round_event){.type = FL_ROUND_EV_OPENED});
    for (p->exchange = 0;
         r == 0 && p->exchange <= p->round.closed && p->exchange < FL_ROUND_EXCHANGES_MAX;
         p->exchange++) {
        if ((r = fl_store_members(s, job, p->round.round, p->exchange, replay_member, p, e)) == 0 &&
            (r = fl_store_updates(s, job, p->round.round, p->exchange, replay_update, p, e)) == 0 &&
            p->exchange < p->round.closed) {
            r = replay_add(
                p, &(struct fl_round_event){.type = FL_ROUND_EV_CLOSED, .exchange = p->exchange});
        }
    }
    return r;
}

static int replay_feed(struct co *co, struct co_job *j, struct replay *p, struct fl_err *e)
{
    uint64_t id = j->id;
    struct co_sums *sums = p->sums;

    p->sums = NULL;
    int r = co_round_freeze(co, j, p->round.text, p->round.text_size, sums, e);
    if (r) {
        return r;
    }
    j->opened_ms = p->round.opened_ms;
    if ((r = fl_round_set_rules(j->round, &j->sums->rules, e)) != 0) {
        return r;
    }
    j->rules = j->sums->rules;
    fl_log(FL_LOG_INFO, j->name, "round %llu resumed", (unsigned long long)p->round.round);
    for (uint32_t i = 0; i < p->count; i++) {
        co_event(co, id, &p->events[i], false);
    }
    co_event(co, id, &(struct fl_round_event){.type = FL_ROUND_EV_TICK}, false);
    j = co_job_by_id(co, id);
    return j && j->round ? co_job_rules(j, e) : 0;
}

static void sums_of(const struct co *co, const struct co_job *j, struct co_sums_of *ret)
{
    *ret = (struct co_sums_of){.name = j->name, .checkpoint = j->checkpoint, .tls = co->tls};
    memcpy(ret->incarnation, j->incarnation, sizeof ret->incarnation);
}

static int each_job(void *arg, const struct fl_store_job *s)
{
    struct co *co = arg;
    struct fl_err e = {0};
    struct co_job *j = co_job_new(co, s, &e);
    int r = j ? co_job_take_text(j, s->text, s->text_size, &e) : -FL_R_NOMEM;

    if (r == 0 && !is_over(s->state)) { /* others are opened when somebody asks */
        r = co_job_model(co, j, &e);
    }
    if (r == 0 && !is_over(j->state) && j->published < j->plan->rounds) {
        r = co_job_round(co, j, &e);
    }
    if (r && j) {
        fl_log_err(FL_LOG_ERROR, s->name, &e, "this job cannot go on");
        fl_round_free(j->round);
        j->round = NULL;
        j->state = FL_JOB_FAILED;
        snprintf(j->why, sizeof j->why, "%s", e.msg);
        return j->text ? 0 : r;
    }
    return r;
}

/* What one job was doing, with what its store remembers. */
static void go_on_loaded(struct co *co, struct co_job *j, struct replay *p, int bad,
                         struct fl_err *why)
{
    if (bad == 0 && p->found) {
        bad = replay_feed(co, j, p, why);
    }
    if (bad < 0) {
        fl_log_err(FL_LOG_ERROR, j->name, why, "the running round cannot be resumed");
        co_job_over(co, j, FL_JOB_FAILED, bad);
    } else if (!j->round && !is_over(j->state)) {
        co_job_over(co, j, FL_JOB_DONE, 0); /* the crash came between the last round and this */
    }
    if (j->state == FL_JOB_DONE && !j->last_plan) {
        j->last_plan = fl_object_from_memory(j->text, j->text_size, why);
    }
}

/* The first event of a round puts work into the store's lane, and from then on the store is that
 * lane's: so everything is read before anything goes on. */
int co_jobs_load(struct co *co, struct fl_err *e)
{
    uint32_t count, i = 0;
    struct co_job *j, *tmp;
    struct loaded {
        struct replay replay;
        struct fl_err why;
        int bad;
    } * all;

    int r = fl_store_jobs(co->store, each_job, co, e);
    if (r) {
        return r;
    }
    count = HASH_COUNT(co->jobs);
    all = fl_try(count ? count : 1, sizeof *all);
    if (!all) {
        return fl_fail(e, FL_R_NOMEM, "the memories of %u jobs", count);
    }
    for (j = co->jobs; j; j = j->hh.next, i++) {
        struct co_sums_of of;
        sums_of(co, j, &of);
        all[i].bad = j->round ? replay_load(co->store, j->id, &of, &all[i].replay, &all[i].why) : 0;
    }
    i = 0;
    HASH_ITER(hh, co->jobs, j, tmp)
    {
        go_on_loaded(co, j, &all[i].replay, all[i].bad, &all[i].why);
        replay_fini(&all[i++].replay);
    }
    fl_free(all);
    return 0;
}

/* ---- its agents ---- */

void co_job_release_agents(struct co *co, const struct co_job *j)
{
    for (struct co_peer *p = co->peers, *next; p; p = next) {
        next = p->hh.next;
        const struct fl_roster_agent *a = p->agent ? fl_roster_by_id(co->roster, p->agent) : NULL;
        if (a && a->state == FL_ROSTER_WORKING && a->job == j->id &&
            p->core.state == FL_PEER_ASKING && !p->closing) {
            co_peer_available(p);
        }
    }
}

void co_job_offer_agents(struct co *co, struct co_job *j)
{
    for (struct co_peer *p = co->peers; p; p = p->hh.next) {
        if (j->round && p->agent && co_peer_asks(p, j->name) && co_distrust_allows(j, p->agent)) {
            co_event(co, j->id,
                     &(struct fl_round_event){.type = FL_ROUND_EV_AVAILABLE, .agent = p->agent},
                     false);
        }
    }
}

/* ---- the end, and changes by people ---- */

struct change_op {
    struct co_op op;
    bool replay; /* a failed job goes on: its round is read again */
    struct co_sums_of of;
    char name[FL_PLAN_NAME_MAX];
    struct replay memory;
    uint64_t ticket; /* 0: nobody waits */
    char who[64], what[512];
    bool set_state;
    enum fl_job_state state;
    char why[256];
    char *text; /* job set */
    size_t size;
};

static void change_run(struct co_op *op)
{
    struct change_op *c = (struct change_op *)op;
    struct fl_store *s = op->co->store;

    if (c->text) {
        op->status = fl_store_job_text(s, op->job_id, c->text, c->size, &op->err);
    } else if (c->set_state) {
        op->status = fl_store_job_state(s, op->job_id, c->state, c->why, &op->err);
    }
    if (op->status == 0 && c->replay) {
        op->status = replay_load(s, op->job_id, &c->of, &c->memory, &op->err);
    }
    if (op->status == 0 && c->who[0]) {
        op->status = fl_store_audit(s, co_wall_ms(), c->who, c->what, &op->err);
    }
}

/* A failed job's round from what the store remembers. */
static int go_on(struct co *co, struct co_job *j, struct replay *memory, struct fl_err *e)
{
    uint64_t id = j->id;
    int r = co_job_model(co, j, e);

    r = r ? r : co_job_round(co, j, e);

    if (r == 0 && memory->found) {
        r = replay_feed(co, j, memory, e);
    }
    if (r) {
        co_job_over(co, j, FL_JOB_FAILED, r);
        return r;
    }
    co_event(co, id, &(struct fl_round_event){.type = FL_ROUND_EV_TICK}, false);
    co_job_offer_agents(co, j);
    return 0;
}

static void change_done(struct co_op *op)
{
    struct change_op *c = (struct change_op *)op;
    struct co *co = op->co;
    struct co_job *j = co_job_by_id(co, op->job_id);

    if (op->status) {
        co_store_failed(co, op, "record a change of a job");
    } else if (j && c->text) {
        op->status = co_job_take_text(j, c->text, c->size, &op->err);
        if (op->status == 0 && j->round) {
            op->status = co_job_rules(j, &op->err);
        }
    }
    if (op->status == 0 && c->replay && j && !j->round) {
        op->status = go_on(co, j, &c->memory, &op->err);
    }
    replay_fini(&c->memory);
    fl_tls_conf_unref(c->of.tls);
    fl_free(c->text);
    if (c->ticket) {
        fl_control_done(co->control, c->ticket, op->status, &op->err, NULL);
    }
    co_changed(co);
}

static struct change_op *change_new(struct co *co, struct co_job *j, const struct fl_control_by *by)
{
    struct change_op *c = co_op_new(co, sizeof *c, change_run, change_done);

    c->op.job_id = j->id;
    if (by) {
        c->ticket = by->ticket;
        snprintf(c->who, sizeof c->who, "%s", by->who);
        snprintf(c->what, sizeof c->what, "%s", by->what);
    }
    return c;
}

static bool passes(int reason)
{
    return reason == -FL_R_DISK_FULL || reason == -FL_R_QUOTA || reason == -FL_R_NOMEM ||
           reason == -FL_R_LIMIT;
}

/* Not recorded: it could not be, and a restart is to go on too. */
static void job_waits(struct co *co, struct co_job *j, int reason)
{
    j->retry_drain = j->state == FL_JOB_DRAINING;
    j->retry_ms = co_now(co) + CO_RETRY_MS;
    j->state = FL_JOB_PAUSED;
    snprintf(j->why, sizeof j->why, "%s", fl_reason_text(reason));
    fl_log(FL_LOG_WARN, j->name, "paused: %s; tried again in %d s", j->why, CO_RETRY_MS / 1000);
    co_job_release_agents(co, j);
    co_changed(co);
}

void co_job_retry(struct co *co, struct co_job *j)
{
    uint64_t id = j->id;

    j->state = j->retry_drain ? FL_JOB_DRAINING : FL_JOB_RUNNING;
    j->retry_ms = 0;
    j->why[0] = 0;
    co_event(co, id, &(struct fl_round_event){.type = FL_ROUND_EV_RESUME}, false);
    if (j->retry_drain) {
        co_event(co, id, &(struct fl_round_event){.type = FL_ROUND_EV_DRAIN}, false);
    }
    co_job_offer_agents(co, j);
}

/* The round core says so, or the store made it impossible to go on. PAUSED keeps the round. */
void co_job_over(struct co *co, struct co_job *j, enum fl_job_state state, int reason)
{
    if (state == FL_JOB_PAUSED && passes(reason)) {
        job_waits(co, j, reason);
        return;
    }
    struct change_op *c = change_new(co, j, NULL);

    j->retry_ms = 0;
    if (state == FL_JOB_PAUSED && j->state == FL_JOB_DRAINING && reason == 0) {
        state = FL_JOB_DONE; /* drained: this was its last round */
    }
    j->state = c->state = state;
    c->set_state = true;
    snprintf(c->why, sizeof c->why, "%s", reason ? fl_reason_text(reason) : "");
    snprintf(j->why, sizeof j->why, "%s", c->why);
    if (state != FL_JOB_PAUSED) {
        fl_round_free(j->round);
        j->round = NULL;
        co_round_thaw(co, j);
    }
    co_job_release_agents(co, j);
    fl_log(FL_LOG_INFO, j->name, "%s%s%s",
           state == FL_JOB_DONE        ? "done"
           : state == FL_JOB_PAUSED    ? "paused"
           : state == FL_JOB_CANCELLED ? "cancelled"
                                       : "failed",
           c->why[0] ? ": " : "", c->why);
    co_submit(co, co->store_lane, &c->op);
    for (struct co_peer *p = co->peers, *tmp; state == FL_JOB_DONE && p; p = tmp) {
        tmp = p->hh.next;
        if (co_peer_asks(p, j->name)) {
            co_peer_finals(p);
        }
    }
    co_changed(co);
}

void co_job_state(struct co *co, const struct fl_control_by *by, const char *name,
                  enum fl_control_to to)
{
    /* People pause a job between rounds: what the open round has cost its members is not wasted. */
    static const enum fl_round_ev event[] = {[FL_CONTROL_PAUSE] = FL_ROUND_EV_DRAIN,
                                             [FL_CONTROL_RESUME] = FL_ROUND_EV_RESUME,
                                             [FL_CONTROL_DRAIN] = FL_ROUND_EV_DRAIN,
                                             [FL_CONTROL_CANCEL] = FL_ROUND_EV_CANCEL};
    static const enum fl_job_state state[] = {[FL_CONTROL_PAUSE] = FL_JOB_PAUSED,
                                              [FL_CONTROL_RESUME] = FL_JOB_RUNNING,
                                              [FL_CONTROL_DRAIN] = FL_JOB_DRAINING,
                                              [FL_CONTROL_CANCEL] = FL_JOB_CANCELLED};
    struct co_job *j = co_job_by_name(co, name);
    struct fl_err e = {0};

    int r = 0;
    if (!j) {
        r = fl_fail(&e, FL_R_NO_JOB, "no job %s", name);
    } else if (j->state == FL_JOB_DONE || j->state == FL_JOB_CANCELLED) {
        r = fl_fail(&e, FL_R_JOB_STATE, "job %s is over", name);
    } else if (!j->round && to != FL_CONTROL_CANCEL && to != FL_CONTROL_RESUME) {
        r = fl_fail(&e, FL_R_JOB_STATE, "job %s has failed", name);
    }
    if (r) {
        fl_control_done(co->control, by->ticket, r, &e, NULL);
        return;
    }
    struct change_op *c = change_new(co, j, by);
    c->set_state = true;
    c->state = j->state = state[to];
    c->replay = !j->round && to == FL_CONTROL_RESUME;
    sums_of(co, j, &c->of);
    fl_tls_conf_ref(c->of.tls);
    memcpy(c->name, j->name, sizeof c->name);
    c->of.name = c->name;
    j->why[0] = 0;
    j->retry_ms = 0;
    co_submit(co, co->store_lane, &c->op);
    uint64_t id = j->id;
    co_event(co, id, &(struct fl_round_event){.type = event[to]}, false);
    co_job_release_agents(co, j);
    if (to == FL_CONTROL_RESUME) {
        co_job_offer_agents(co, j);
    }
}

/* What a job costs is computed from its text: never fewer rounds than ran or run. And sites score
 * the model of the last round once: when that has begun there is none after it. */
static int check_rounds(const struct co_job *j, uint64_t rounds, struct fl_err *e)
{
    uint64_t begun = j->published + co_round_is_open(j);

    if (rounds < begun) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "rounds: %llu, and %llu have run or run now",
                       (unsigned long long)rounds, (unsigned long long)begun);
    }
    if (j->plan->score.on && begun >= j->plan->rounds && rounds != j->plan->rounds) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "rounds: the last one has begun, and sites are asked for their scores once");
    }
    return 0;
}

void co_job_set(struct co *co, const struct fl_control_by *by, const char *name, const char *key,
                const char *value)
{
    struct co_job *j = co_job_by_name(co, name);
    struct fl_err e = {0};
    char *text = NULL;
    size_t size = 0;

    int r = !j                  ? fl_fail(&e, FL_R_NO_JOB, "no job %s", name)
            : is_over(j->state) ? fl_fail(&e, FL_R_JOB_STATE, "job %s is over", name)
                                : fl_plan_set(j->text, j->text_size, key, value, &text, &size, &e);
    if (r) {
        fl_control_done(co->control, by->ticket, r, &e, NULL);
        return;
    }
    r = strcmp(key, "rounds") == 0 ? check_rounds(j, strtoull(value, NULL, 10), &e) : 0;
    if (r) {
        fl_free(text);
        fl_control_done(co->control, by->ticket, r, &e, NULL);
        return;
    }
    struct change_op *c = change_new(co, j, by);
    c->text = text;
    c->size = size;
    co_submit(co, co->store_lane, &c->op);
}
