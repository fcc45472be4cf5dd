/*
 * Calls that stay: `--wait` until a job is where it should be, `watch` for as long as somebody
 * looks. One timer serves them all: every TICK_MS while there are any, within SOON_MS after
 * fl_control_changed. A watcher gets a document only when it differs from the one before, so a slow
 * terminal costs nothing and an idle daemon says nothing.
 */
#include "server/control/calls.h"
#include "server/control/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 500, SOON_MS = 100, WATCHED_JOBS = 64 };

static void exact_name(const struct fl_control_job *j, char ret[FL_CONTROL_JOB_MAX])
{
    snprintf(ret, FL_CONTROL_JOB_MAX, "%s@%llu", j->name, (unsigned long long)j->id);
}

/* Whoever stays stays with one job, even if its name is used again meanwhile. */
static void settle(struct fl_control *c, struct fl_control_call *k)
{
    struct fl_control_job j;
    char why[1];
    json_t *document = k->job[0] ? fl_control_job_document(c, k->job, false, &j, why, 1) : NULL;

    if (document) {
        exact_name(&j, k->job);
    }
    json_decref(document);
}

/* ---- wait ---- */

static bool over(enum fl_job_state s)
{
    return s == FL_JOB_DONE || s == FL_JOB_CANCELLED || s == FL_JOB_FAILED;
}

/* 0 = goes on, 1 = reached, negative = cannot be reached any more. */
static int reached(enum fl_control_for wait, const struct fl_control_job *j, bool has_why)
{
    switch (wait) {
    case FL_CONTROL_FOR_PAUSED:
        if (j->state == FL_JOB_PAUSED || j->state == FL_JOB_DONE) {
            return !j->round_open;
        }
        return over(j->state) ? -FL_R_JOB_STATE : 0;
    case FL_CONTROL_FOR_CANCELLED:
        return j->state == FL_JOB_CANCELLED && !j->round_open;
    case FL_CONTROL_FOR_END:
        if (j->state == FL_JOB_DONE) {
            return 1;
        }
        /* A pause that somebody asked for may end; one with a reason waits for somebody. */
        return over(j->state) || (j->state == FL_JOB_PAUSED && has_why) ? -FL_R_JOB_STATE : 0;
    case FL_CONTROL_FOR_NOTHING:
        break;
    }
    return 1;
}

static void look(struct fl_control *c, struct fl_control_call *k)
{
    struct fl_control_job j;
    char why[256], text[400];
    json_t *document = fl_control_job_document(c, k->job, false, &j, why, sizeof why);

    if (!document) {
        fl_control_end(c, k, -FL_R_NO_JOB, "the job is gone");
        return;
    }
    int status = reached(k->wait, &j, why[0] != 0);
    if (status == 0) {
        json_decref(document);
        return;
    }
    if (!fl_control_send(c, k, document)) {
        return;
    }
    snprintf(text, sizeof text, "job %s is %s%s%s", j.name, fl_control_job_state_name(j.state),
             why[0] ? ": " : "", why);
    fl_control_end(c, k, status < 0 ? status : 0, status < 0 ? text : NULL);
}

/* ---- watch ---- */

struct watched {
    struct fl_control *c;
    const char *only; /* "" = all that are not over */
    json_t *jobs;
};

static void add_job(void *arg, const struct fl_control_job *j)
{
    struct watched *w = arg;
    struct fl_control_round r = {0};
    char exact[FL_CONTROL_JOB_MAX];

    if (w->only[0] ? !fl_control_job_is(w->only, j->name, j->id) : over(j->state)) {
        return;
    }
    if (json_array_size(w->jobs) >= WATCHED_JOBS) {
        return;
    }
    json_t *o = fl_control_json_job(j, false);
    exact_name(j, exact);
    bool open = w->c->conf.ops->round_now(w->c->conf.co, exact, &r);
    if (o) {
        json_object_set_new(o, "now", open ? fl_control_json_round(&r) : json_null());
    }
    json_array_append_new(w->jobs, o);
}

static json_t *watch_document(struct fl_control *c, struct fl_control_call *k)
{
    struct fl_control_status s = {0};
    struct watched w = {c, k->job, json_array()};

    c->conf.ops->status(c->conf.co, &s);
    c->conf.ops->jobs(c->conf.co, add_job, &w);
    json_t *o = json_object();
    if (!o || !w.jobs) {
        json_decref(o);
        json_decref(w.jobs);
        return NULL;
    }
    json_object_set_new(o, "state", json_string(s.state));
    json_object_set_new(o, "agents_connected", json_integer(s.agents_connected));
    json_object_set_new(o, "agents_enrolled", json_integer(s.agents_enrolled));
    json_object_set_new(o, "bytes_in", json_integer((json_int_t)s.bytes_in));
    json_object_set_new(o, "bytes_out", json_integer((json_int_t)s.bytes_out));
    json_object_set_new(o, "jobs", w.jobs);
    return o;
}

/* A watcher of one job is released when that job is over. */
static void show(struct fl_control *c, struct fl_control_call *k)
{
    json_t *o = watch_document(c, k);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    bool same = text && k->seen && strcmp(text, k->seen) == 0;
    struct fl_control_job j;
    char why[256];

    if (same) {
        json_decref(o);
        free(text);
        return;
    }
    free(k->seen);
    k->seen = text;
    if (!text) {
        json_decref(o);
        o = NULL;
    }
    if (!fl_control_send(c, k, o) || !k->job[0]) {
        return;
    }
    o = fl_control_job_document(c, k->job, false, &j, why, sizeof why);
    if (!o || (over(j.state) && !j.round_open)) {
        fl_control_end(c, k, o ? 0 : -FL_R_NO_JOB, NULL);
    }
    json_decref(o);
}

/* ---- the timer ---- */

static void arm(struct fl_control *c, uint64_t ms)
{
    if (!uv_is_active((uv_handle_t *)&c->timer) || uv_timer_get_due_in(&c->timer) > ms) {
        uv_timer_start(&c->timer, fl_control_tick, ms, 0);
    }
}

void fl_control_tick(uv_timer_t *timer)
{
    struct fl_control *c = timer->data;
    bool any = false;

    for (size_t i = 0; i < FL_CTL_CALLS_MAX; i++) {
        struct fl_control_call *k = &c->calls[i];
        if (k->ticket && k->waiting) {
            look(c, k);
        } else if (k->ticket && k->watching) {
            show(c, k);
        }
        any |= k->ticket && (k->waiting || k->watching);
    }
    if (any && !c->closed) {
        arm(c, TICK_MS);
    }
}

void fl_control_changed(struct fl_control *c)
{
    if (uv_is_active((uv_handle_t *)&c->timer)) { /* somebody waits or watches */
        arm(c, SOON_MS);
    }
}

void fl_control_wait(struct fl_control *c, struct fl_control_call *k)
{
    settle(c, k);
    k->waiting = true;
    arm(c, 0);
}

void fl_control_watch(struct fl_control *c, struct fl_control_call *k)
{
    settle(c, k);
    k->watching = true;
    arm(c, 0);
}
