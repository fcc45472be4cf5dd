/*
 * Inside the room: the calls that are open, and what each of them is waiting for.
 */
#ifndef SERVER_CONTROL_CALLS_H
#define SERVER_CONTROL_CALLS_H

#include "common/io/ctl.h"
#include "server/control/control.h"

#include <jansson.h>

enum { FL_CONTROL_NAMED = 32 }; /* members that `round explain` names, of each kind */

/* What ends a call that waits. */
enum fl_control_for {
    FL_CONTROL_FOR_NOTHING,
    FL_CONTROL_FOR_END,       /* done; failed, cancelled or paused by a failure is a failure */
    FL_CONTROL_FOR_PAUSED,    /* paused with no round open, or over */
    FL_CONTROL_FOR_CANCELLED, /* cancelled with no round open */
};

/* What `round explain` gathers while the members pass by. */
struct fl_control_explain {
    json_t *round, *waiting, *lost; /* NULL until needed */
    struct fl_control_round r;      /* its strings are not valid any more, but for `state` */
    char state[16];
    uint32_t waiting_count, lost_count;
};

struct fl_control_verb;

struct fl_control_call {
    uint64_t ticket; /* 0 = free */
    const struct fl_control_verb *verb;
    char job[FL_CONTROL_JOB_MAX]; /* or the agent's name, for agent verbs */
    enum fl_control_for wait;     /* begins when the change is done */
    bool waiting, watching;
    char *seen; /* the last document a watcher got; jansson's memory */
    struct fl_control_explain explain;
};

struct fl_control {
    struct fl_control_conf conf;
    struct fl_ctl *ctl;
    uv_timer_t timer;
    bool closed;
    struct fl_control_call calls[FL_CTL_CALLS_MAX];
};

/* Sends one document and drops its reference; a NULL document or a failed send ends the call. False
 * when the call is over. */
bool fl_control_send(struct fl_control *c, struct fl_control_call *k, json_t *document);
/* Ends the call and forgets it. */
void fl_control_end(struct fl_control *c, struct fl_control_call *k, int status, const char *text);
/* Forgets a call that the socket has ended already. */
void fl_control_forget(struct fl_control_call *k);

/* The job's document, NULL when there is no such job. Also says its state. */
json_t *fl_control_job_document(struct fl_control *c, const char *name, bool with_text,
                                struct fl_control_job *ret, char *ret_why, size_t why_size);

/* ---- watch.c: waiting and watching ---- */
/* Looks at once, then on every change, until the call is over. */
void fl_control_wait(struct fl_control *c, struct fl_control_call *k);
void fl_control_watch(struct fl_control *c, struct fl_control_call *k);
void fl_control_tick(uv_timer_t *timer);

/* ---- explain.c ---- */
void fl_control_explain_round(struct fl_control_call *k, const struct fl_control_round *r);
void fl_control_explain_member(struct fl_control_call *k, const struct fl_control_member *m);
json_t *fl_control_explain_document(struct fl_control_call *k, uint64_t wall_ms);
void fl_control_explain_fini(struct fl_control_explain *x);

/* ---- verbs.c ---- */
/* Checks verb and arguments, then acts. Negative: refused, with the text in in->err. */
int fl_control_handle(struct fl_control *c, struct fl_ctl_call *in);
bool fl_control_verb_explains(const struct fl_control_verb *v);
/* Its answer is the job's document, as it is afterwards. */
bool fl_control_verb_changes_job(const struct fl_control_verb *v);

#endif
