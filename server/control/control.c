#include "server/control/control.h"

#include "common/base/mem.h"
#include "server/control/calls.h"
#include "server/control/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct fl_control_call *find(struct fl_control *c, uint64_t ticket)
{
    for (size_t i = 0; ticket && i < FL_CTL_CALLS_MAX; i++) {
        if (c->calls[i].ticket == ticket) {
            return &c->calls[i];
        }
    }
    return NULL;
}

void fl_control_forget(struct fl_control_call *k)
{
    fl_control_explain_fini(&k->explain);
    free(k->seen);
    *k = (struct fl_control_call){0};
}

void fl_control_end(struct fl_control *c, struct fl_control_call *k, int status, const char *text)
{
    fl_ctl_end(c->ctl, k->ticket, status, text);
    fl_control_forget(k);
}

bool fl_control_send(struct fl_control *c, struct fl_control_call *k, json_t *document)
{
    char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;

    json_decref(document);
    if (!text) {
        fl_control_end(c, k, -FL_R_NOMEM, NULL);
        return false;
    }
    int status = fl_ctl_json(c->ctl, k->ticket, text);
    free(text);
    if (status < 0) {
        fl_control_forget(k);
    }
    return status == 0;
}

/* ---- one job among all ---- */

bool fl_control_job_is(const char *asked, const char *name, uint64_t id)
{
    char exact[FL_CONTROL_JOB_MAX];

    snprintf(exact, sizeof exact, "%s@%llu", name, (unsigned long long)id);
    return strcmp(asked, name) == 0 || strcmp(asked, exact) == 0;
}

struct wanted {
    const char *name;
    bool with_text, found;
    json_t *document;
    struct fl_control_job *job;
    char *why;
    size_t why_size;
};

static void take_job(void *arg, const struct fl_control_job *j)
{
    struct wanted *w = arg;

    if (!fl_control_job_is(w->name, j->name, j->id) || (w->found && j->id < w->job->id)) {
        return;
    }
    json_decref(w->document); /* a later one of the same name is the one that is meant */
    w->found = true;
    w->document = fl_control_json_job(j, w->with_text);
    *w->job = *j;
    snprintf(w->why, w->why_size, "%s", j->why ? j->why : "");
}

json_t *fl_control_job_document(struct fl_control *c, const char *name, bool with_text,
                                struct fl_control_job *ret, char *ret_why, size_t why_size)
{
    struct wanted w = {name, with_text, false, NULL, ret, ret_why, why_size};

    c->conf.ops->jobs(c->conf.co, take_job, &w);
    return w.document;
}

/* ---- answers of the coordinator ---- */

void fl_control_round_row(struct fl_control *c, uint64_t ticket, const struct fl_control_round *r)
{
    struct fl_control_call *k = find(c, ticket);

    if (k && fl_control_verb_explains(k->verb)) {
        fl_control_explain_round(k, r);
    } else if (k) {
        fl_control_send(c, k, fl_control_json_round(r));
    }
}

void fl_control_member(struct fl_control *c, uint64_t ticket, const struct fl_control_member *m)
{
    struct fl_control_call *k = find(c, ticket);

    if (k && fl_control_verb_explains(k->verb)) {
        fl_control_explain_member(k, m);
    } else if (k) {
        fl_control_send(c, k, fl_control_json_member(m));
    }
}

void fl_control_enrolled(struct fl_control *c, uint64_t ticket, bool anew)
{
    struct fl_control_call *k = find(c, ticket);

    if (k && fl_control_send(c, k, json_pack("{ss sb}", "agent", k->job, "anew", anew))) {
        fl_control_end(c, k, 0, NULL);
    }
}

void fl_control_reloaded(struct fl_control *c, uint64_t ticket, const char *waiting)
{
    struct fl_control_call *k = find(c, ticket);

    if (k) {
        fl_control_send(c, k, json_pack("{ss}", "waits_for_restart", waiting));
    }
}

void fl_control_containing_row(struct fl_control *c, uint64_t ticket,
                               const struct fl_control_containing *m)
{
    struct fl_control_call *k = find(c, ticket);

    if (k) {
        fl_control_send(c, k, fl_control_json_containing(m));
    }
}

void fl_control_bubble_row(struct fl_control *c, uint64_t ticket, const struct fl_control_bubble *b)
{
    struct fl_control_call *k = find(c, ticket);

    if (k) {
        fl_control_send(c, k, fl_control_json_bubble(b));
    }
}

void fl_control_score_row(struct fl_control *c, uint64_t ticket, const struct fl_control_score *s)
{
    struct fl_control_call *k = find(c, ticket);

    if (k) {
        fl_control_send(c, k, fl_control_json_score(s));
    }
}

void fl_control_replay_row(struct fl_control *c, uint64_t ticket, const struct fl_control_replay *r)
{
    struct fl_control_call *k = find(c, ticket);

    if (k) {
        fl_control_send(c, k, fl_control_json_replay(r));
    }
}

/* A document about it, then the bytes. Takes document and descriptor. */
static void send_file(struct fl_control *c, struct fl_control_call *k, json_t *about, int fd,
                      uint64_t from, uint64_t size)
{
    uint64_t ticket = k->ticket;

    if (!fl_control_send(c, k, about)) {
        close(fd);
        return;
    }
    fl_ctl_file(c->ctl, ticket, fd, from, size);
    fl_control_forget(k);
}

void fl_control_model(struct fl_control *c, uint64_t ticket, int fd,
                      const struct fl_control_model *m)
{
    struct fl_control_call *k = find(c, ticket);
    char hex[FL_DIGEST_HEX];

    if (!k) {
        close(fd);
        return;
    }
    fl_digest_hex(m->digest, hex);
    send_file(c, k,
              json_pack("{ss sI sI sI ss}", "job", k->job, "round", (json_int_t)m->round, "slot",
                        (json_int_t)m->slot, "bytes", (json_int_t)m->size, "model", hex),
              fd, m->from, m->size);
}

void fl_control_transcript(struct fl_control *c, uint64_t ticket, int fd, uint64_t size,
                           uint64_t round, const struct fl_digest *head)
{
    struct fl_control_call *k = find(c, ticket);
    char hex[FL_DIGEST_HEX];

    if (!k) {
        close(fd);
        return;
    }
    fl_digest_hex(head, hex);
    send_file(c, k,
              json_pack("{ss sI sI ss}", "job", k->job, "round", (json_int_t)round, "bytes",
                        (json_int_t)size, "head", hex),
              fd, 0, size);
}

static uint64_t wall_ms(void)
{
    uv_timeval64_t t;

    return uv_gettimeofday(&t) == 0 ? (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_usec / 1000 : 0;
}

void fl_control_done(struct fl_control *c, uint64_t ticket, int status, const struct fl_err *e,
                     const char *name)
{
    struct fl_control_call *k = find(c, ticket);
    struct fl_control_job j;
    char why[256];

    if (!k) {
        return;
    }
    if (status < 0) {
        fl_control_end(c, k, status, e && e->msg[0] ? e->msg : fl_reason_text(status));
        return;
    }
    if (fl_control_verb_explains(k->verb) &&
        !fl_control_send(c, k, fl_control_explain_document(k, wall_ms()))) {
        return;
    }
    if (name) {
        snprintf(k->job, sizeof k->job, "%s", name);
    }
    if (k->wait != FL_CONTROL_FOR_NOTHING) {
        fl_control_wait(c, k);
        return;
    }
    if (fl_control_verb_changes_job(k->verb) &&
        !fl_control_send(c, k, fl_control_job_document(c, k->job, false, &j, why, sizeof why))) {
        return;
    }
    fl_control_end(c, k, 0, NULL);
}

/* ---- the room ---- */

static int on_call(void *arg, struct fl_ctl_call *call)
{
    return fl_control_handle(arg, call);
}

static void on_gone(void *arg, uint64_t ticket)
{
    struct fl_control_call *k = find(arg, ticket);

    if (k) {
        fl_control_forget(k);
    }
}

int fl_control_open(const struct fl_control_conf *conf, struct fl_control **ret, struct fl_err *e)
{
    struct fl_control *c = fl_new(1, sizeof *c);
    struct fl_ctl_conf ctl = {.loop = conf->loop,
                              .path = conf->path,
                              .group = conf->group,
                              .handle = on_call,
                              .gone = on_gone,
                              .arg = c};

    c->conf = *conf;
    int status = fl_ctl_listen(&ctl, &c->ctl, e);
    if (status) {
        fl_free(c);
        return status;
    }
    uv_timer_init(conf->loop, &c->timer);
    c->timer.data = c;
    *ret = c;
    return 0;
}

static void on_closed(uv_handle_t *h)
{
    fl_free(h->data);
}

void fl_control_close(struct fl_control *c)
{
    if (!c || c->closed) {
        return;
    }
    c->closed = true;
    for (size_t i = 0; i < FL_CTL_CALLS_MAX; i++) {
        fl_control_forget(&c->calls[i]);
    }
    fl_ctl_close(c->ctl);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}
