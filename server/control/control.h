/*
 * The coordinator's control surface: verbs over the control socket.
 *
 * This room knows words, arguments, JSON and who is waiting; the coordinator knows jobs, rounds and
 * agents. Between them stands `struct fl_control_ops`: what the room asks of the coordinator. Three
 * kinds of questions, by what they cost:
 *
 *   views     answered at once from the loop's memory, through `each` (structs valid during it);
 *   changes   need a durable write. The op starts it and returns; when it is durable (or refused)
 *             the coordinator calls fl_control_done with the ticket. It records by->who and
 *             by->what with fl_store_audit in the same store job as the change;
 *   queries   need the store. The coordinator answers with fl_control_round_row, _member or
 *             _model as often as needed, then fl_control_done.
 *
 * fl_control_done may be called before the op returns. A ticket whose asker has gone is ignored, so
 * the coordinator never has to know whether anybody still listens; a change is made all the same.
 * Everything runs on the loop thread.
 */
#ifndef SERVER_CONTROL_CONTROL_H
#define SERVER_CONTROL_CONTROL_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/plan/plan.h"
#include "common/wire/ids.h"
#include "server/store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct fl_control;

/* ---- what the coordinator shows; strings are borrowed ---- */

struct fl_control_status {
    const char *state; /* "running", "draining" */
    uint8_t coordinator[16];
    uint64_t started_ms; /* wall clock, ms since 1970, as every _ms of this file */
    const char *address;
    uint16_t port;
    uint32_t connections, half_open, connections_max;
    uint32_t agents_enrolled, agents_connected;
    size_t pool_bytes;                             /* stated ceiling of the frame buffers */
    uint64_t state_bytes, state_bytes_max;         /* uploads and checkpoints; max 0 = no limit */
    const char *certificate_key;                   /* hex, of our own certificate */
    uint64_t certificate_expires_s, crl_expires_s; /* seconds since 1970; 0 = none */
    uint64_t updates_committed, updates_refused;   /* since the start */
    uint64_t bytes_in, bytes_out;
};

/* Noised numbers of examples of each class, over all sites that were asked last. */
enum { FL_CONTROL_CLASSES_MAX = 1000 }; /* that are shown */
struct fl_control_counts {
    uint32_t sites, classes;
    double noise_std;
    double *value;
};

struct fl_control_job {
    uint64_t id;
    const char *name;
    const uint8_t *incarnation; /* FL_INCARNATION_SIZE */
    enum fl_job_state state;
    const char *why; /* of a pause or failure; "" = none */
    const char *strategy;
    const char *unit;                 /* "none", "example", "client" */
    uint64_t round, rounds;           /* last published, wanted */
    uint64_t model_size, update_size; /* of one model */
    uint32_t slots;                   /* models of the checkpoint; 0 = unknown */
    const struct fl_digest *model, *checkpoint;
    bool round_open; /* a round is running: a pause has not fully taken effect */
    const struct fl_control_counts *counts; /* NULL = there are none */
    const char *note; /* of the strategy, about the last published round; NULL or "" = none */
    const char *text;
    size_t text_size; /* the description that the next round freezes */
};

/* A round: the running one, or a row of the past (then what only lives in memory is 0). */
struct fl_control_round {
    const char *job;
    uint64_t round;
    const char
        *state; /* "fill", "collect", "drain", "finish", "publish", "published", "abandoned" */
    uint32_t exchange, exchanges;
    const char *exchange_name;                                /* NULL = unknown */
    bool gives_up;                                            /* below quorum at the last attempt */
    uint32_t attempt;                                         /* 0 = the first */
    uint64_t opened_ms, deadline_ms, closed_ms, published_ms; /* 0 = not (yet) */
    uint32_t wanted, quorum,
        candidates; /* candidates: connected agents that could be invited now */
    uint32_t invited, uploading, committed, lost;
    uint64_t bytes_up, bytes_up_expected, bytes_down;
    struct fl_digest plan, checkpoint; /* zero = unknown */
};

struct fl_control_member {
    const char *agent;
    const char
        *state;     /* "invited", "fetching", "training", "uploading", "committed", "lost", ... */
    int reason;     /* of a loss or refusal; 0 = none */
    bool closed_in; /* its update is part of the result */
    uint64_t since_ms;              /* of this state; 0 = unknown */
    uint64_t bytes, bytes_expected; /* of its upload */
};

struct fl_control_agent {
    uint64_t id;
    const uint8_t *key; /* 32 bytes */
    const char *name;
    bool revoked, connected;
    const char *serial, *address;                          /* "" = unknown */
    uint64_t connected_ms, seen_ms, certificate_expires_s; /* 0 = unknown */
    uint64_t releases;      /* to us, as its ledger last told; 0 = never told */
    const char *job, *task; /* "" = idle */
    uint64_t bytes_in, bytes_out;
};

/* A published model that a site's update is in. */
struct fl_control_containing {
    const char *job;
    uint64_t round, published_ms;
    const struct fl_digest *checkpoint;
    bool own; /* folded in this very round; else in an earlier one that it was made from */
};

/* ---- what the room asks ---- */

/* What a site says of the model it would be served. */
struct fl_control_score {
    const char *agent;
    uint64_t round;
    double score, noise_std;
};

struct fl_control_which {
    const char *job;
    bool newest;       /* the last published; else that of */
    uint64_t round;    /* (0 = initial) */
    uint32_t slot;     /* this one, or the one of */
    const char *agent; /* (NULL = of slot) */
};

enum fl_control_to {
    FL_CONTROL_PAUSE,  /* finish the open round, then rest */
    FL_CONTROL_RESUME, /* also out of "failed" and "draining" */
    FL_CONTROL_DRAIN,  /* finish the open round, then the job is done */
    FL_CONTROL_CANCEL  /* now: the open round is dropped */
};

/* Who wants it, for the record. Valid during the call: copy what is kept. */
struct fl_control_by {
    uint64_t ticket;
    const char *who;  /* "uid 1000 pid 4242" */
    const char *what; /* "job set demo round.quorum=8" */
};

struct fl_control_ops {
    /* views */
    void (*status)(void *co, struct fl_control_status *ret);
    void (*jobs)(void *co, void (*each)(void *arg, const struct fl_control_job *j), void *arg);
    /* By rising id. */
    void (*agents)(void *co, void (*each)(void *arg, const struct fl_control_agent *a), void *arg);
    /* The running round of a job; false = none is open. */
    bool (*round_now)(void *co, const char *job, struct fl_control_round *ret);

    /* changes. The text has passed no check yet; `file` is for messages. */
    void (*job_submit)(void *co, const struct fl_control_by *by, const char *file, const char *text,
                       size_t size);
    /* What job_submit would refuse in the text, refused likewise; nothing is changed. */
    void (*job_check)(void *co, const struct fl_control_by *by, const char *file, const char *text,
                      size_t size);
    void (*job_state)(void *co, const struct fl_control_by *by, const char *job,
                      enum fl_control_to to);
    void (*job_set)(void *co, const struct fl_control_by *by, const char *job, const char *key,
                    const char *value);
    void (*agent_enrol)(void *co, const struct fl_control_by *by, const uint8_t key[32],
                        const char *name);
    void (*agent_revoke)(void *co, const struct fl_control_by *by, const char *name);
    /* Certificates, CRL and the live part of the configuration, as SIGHUP does: first
     * fl_control_reloaded. */
    void (*reload)(void *co, const struct fl_control_by *by);

    /* queries */
    void (*round_list)(void *co, uint64_t ticket, const char *job, uint32_t limit);
    /* One fl_control_round_row, then its members. round 0 = the running one, else the last. */
    void (*round_show)(void *co, uint64_t ticket, const char *job, uint64_t round);
    /* fl_control_containing rows, newest first. */
    void (*agent_models)(void *co, uint64_t ticket, const char *agent, uint32_t limit);
    /* -FL_R_NO_OBJECT when it is not kept any more, or there is no such slot. */
    void (*model)(void *co, uint64_t ticket, const struct fl_control_which *which);
    /* fl_control_bubble_row of each site that took part. */
    void (*bubbles)(void *co, uint64_t ticket, const char *job);
    /* Likewise, of one site in each job that has something to say of it. */
    void (*agent_explain)(void *co, uint64_t ticket, const char *agent);
    /* fl_control_score_row of each site; none when the job has no scores (yet). */
    void (*scores)(void *co, uint64_t ticket, const char *job);
    /* fl_control_replay_row. -FL_R_NO_OBJECT when not all is kept that it takes. */
    void (*replay)(void *co, uint64_t ticket, const char *job, uint64_t round);
    /* All records that are kept (fl_store_transcript); answered by fl_control_transcript. */
    void (*transcript)(void *co, uint64_t ticket, const char *job);
};

/* ---- answers to changes and queries ---- */

void fl_control_round_row(struct fl_control *c, uint64_t ticket, const struct fl_control_round *r);
void fl_control_member(struct fl_control *c, uint64_t ticket, const struct fl_control_member *m);
void fl_control_containing_row(struct fl_control *c, uint64_t ticket,
                               const struct fl_control_containing *m);
struct fl_control_bubble {
    const char *job; /* NULL: the one that was asked about */
    const char *agent;
    uint64_t round; /* after which */
    uint32_t slot;
    const char *why; /* in a sentence; "" = nothing is known */
};
void fl_control_bubble_row(struct fl_control *c, uint64_t ticket,
                           const struct fl_control_bubble *b);
void fl_control_score_row(struct fl_control *c, uint64_t ticket, const struct fl_control_score *s);
struct fl_control_replay {
    const char *job;
    uint64_t round;
    uint32_t updates;
    struct fl_digest recorded, computed;
    bool given_up; /* the round changed nothing, and was recorded so */
};
void fl_control_replay_row(struct fl_control *c, uint64_t ticket,
                           const struct fl_control_replay *r);
/* Ends `agent enrol` well; not anew: this name had this key before. */
void fl_control_enrolled(struct fl_control *c, uint64_t ticket, bool anew);
/* waiting: changed keys that take effect with a restart, ", " between; "" = none. */
void fl_control_reloaded(struct fl_control *c, uint64_t ticket, const char *waiting);
struct fl_control_model {
    uint64_t round;
    uint32_t slot;
    uint64_t from, size; /* in the checkpoint */
    const struct fl_digest *digest;
};
/* Takes the descriptor of the checkpoint. No fl_control_done after it. */
void fl_control_model(struct fl_control *c, uint64_t ticket, int fd,
                      const struct fl_control_model *model);
/* Likewise: `size` bytes of records up to `round`, head of the chain. */
void fl_control_transcript(struct fl_control *c, uint64_t ticket, int fd, uint64_t size,
                           uint64_t round, const struct fl_digest *head);
/* status 0, or negative with the text in `e` (may be NULL). For job_submit, `name` is the new job's
 * name; NULL otherwise. */
void fl_control_done(struct fl_control *c, uint64_t ticket, int status, const struct fl_err *e,
                     const char *name);

/* ---- names of jobs ----
 * A name may be used again once its job is over: sites allow jobs by name, so the next run of the
 * same job has the same one. NAME means the newest job of that name, NAME@ID that very job. */
enum { FL_CONTROL_JOB_MAX = FL_PLAN_NAME_MAX + 21 }; /* NAME@ID with its zero */
bool fl_control_job_is(const char *asked, const char *name, uint64_t id);

/* ---- the room itself ---- */

struct fl_control_conf {
    uv_loop_t *loop;
    const char *path, *group; /* group may be NULL */
    const struct fl_control_ops *ops;
    void *co;
};

/* Listens (errors of fl_ctl_listen). */
int fl_control_open(const struct fl_control_conf *conf, struct fl_control **ret, struct fl_err *e);
/* Waiting calls end with -FL_R_SHUTDOWN. The loop must run once more. NULL is fine. */
void fl_control_close(struct fl_control *c);
/* Something that `watch` or `--wait` could be interested in has changed. Cheap: answers are sent at
 * most every 100 ms. */
void fl_control_changed(struct fl_control *c);

#endif
