/*
 * Inside the coordinator: what its files share. Nobody else includes this.
 *
 *     coordinator.c  start, drain, reload, end; the one timer; events to the round cores, in order
 *     co_peer.c      connections: messages in, answers out
 *     co_mark.c      how far agents' ledgers are, and its echo
 *     co_round.c     performs what a round core asks for
 *     co_secret.c    the key of the noise that is added to sums
 *     co_offer.c     what an offer claims
 *     co_upload.c    spools: open, receive, seal
 *     co_sums.c      a round's sums, and folds
 *     co_secure.c    secure sums: what is judged before it is committed
 *     co_distrust.c  who is not put together in them again
 *     co_compute.c   finishes, writes checkpoints
 *     co_replay.c    a published round once more, for `audit replay`
 *     co_receipts.c  the coordinator's signature under what became of an update
 *     co_tune.c      a worker process for work on target data
 *     co_submit.c    a job's first moment
 *     co_job.c       jobs go on and end; restart
 *     co_control.c   answers the control socket: views and changes
 *     co_query.c     questions of it that need the store; co_bubbles.c, co_scores.c likewise
 *
 * Across every asynchronous gap an id is kept (job id, connection id, agent id), never a pointer:
 * whoever has gone meanwhile is simply not found.
 */
#ifndef SERVER_CO_H
#define SERVER_CO_H

#include "common/io/spool.h"
#include "common/io/stream.h"
#include "common/io/work.h"
#include "common/math/narrow.h"
#include "common/plan/plan.h"
#include "server/checkpoint.h"
#include "server/config.h"
#include "server/control/control.h"
#include "server/coordinator.h"
#include "server/core/peer.h"
#include "server/core/roster.h"
#include "server/core/round.h"
#include "server/objects.h"
#include "server/store/store.h"
#include "server/strategy/collect.h"
#include "server/strategy/distrust.h"
#include "server/strategy/secure.h"
#include "server/strategy/strategy.h"

#include <uthash.h>

enum {
    CO_JOBS_MAX = 64,     /* not over at one time */
    CO_MODELS_OPEN = 16,  /* of jobs that are over: the newest asked for */
    CO_OBJECTS_MAX = 8,   /* an agent may fetch: of its task and of finals */
    CO_SEAL_LANES = 2,    /* uploads verified side by side */
    CO_REPLAYS_MAX = 4,   /* asked for at one time */
    CO_COMMIT_MAX = 1024, /* updates in one transaction */
    CO_REST_MS = 2000,    /* until an agent asks again after a Rest */
    CO_NOTE_MAX = 400,
    CO_RETRY_MS = 10000, /* until a job that ran out of disk or memory is tried again */
};

/* ---- work for the store or a worker, with the way back ---- */

struct co;

/* Embedded first in each kind of work. `run` is on a worker, `done` on the loop, once, also when
 * cancelled (then status is -FL_R_CANCELLED). Freed after `done`. */
struct co_op {
    struct fl_job job;
    struct co *co;
    void (*run)(struct co_op *op);
    void (*done)(struct co_op *op);
    uint64_t job_id;     /* of a federated job, 0 = none */
    uint32_t generation; /* of its round core: see co_answer */
    uint64_t connection; /* 0 = none */
    int status;
    struct fl_err err;
};

/* ---- jobs ---- */

/* What an open round computes with: the frozen plan, the strategy with the state the round began
 * with, its sums. Touched by jobs of the federated job's lane only, but for what says so; when the
 * round is over it is freed by the last of them. */
struct co_sums {
    /* never changed: from any thread */
    struct fl_plan *plan;
    const struct fl_strategy *strategy;
    const struct fl_store *store; /* for paths */
    uint64_t round;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_round_rules rules; /* of that plan and round */
    struct fl_exchange_terms terms[FL_PLAN_EXCHANGES_MAX];
    uint32_t terms_count;
    struct fl_checkpoint *base; /* what the round began with */
    struct fl_object *models;   /* all of its models, where an exchange begins with them */
    char *text;                 /* the description it was frozen with */
    size_t text_size;
    /* from any thread */
    atomic_bool cancel; /* the round was given up, or the coordinator stops */
    const struct fl_collector *collector[FL_PLAN_EXCHANGES_MAX];
    enum fl_secagg_stage stage[FL_PLAN_EXCHANGES_MAX]; /* FL_SECAGG_STAGES: it is none */
    struct fl_tls_conf *tls; /* judges the agents' signatures of a secure sum */
    struct fl_secagg_identity identity;
    /* the loop's: an exchange is being finished, which may change `shared`; at all other times the
     * loop may ask place and input of it */
    bool finishing;
    /* the lane's */
    void *shared;
    void **slots;
    uint32_t slot_count;
    void *collected[FL_PLAN_EXCHANGES_MAX];
    struct fl_secure *secure; /* NULL: updates come one by one */
    bool judged;              /* what is being looked at was judged before */
    struct fl_section section[FL_PLAN_EXCHANGES_MAX]; /* made in this round */
    uint32_t section_count;
    struct fl_store_update *folded; /* of the exchange under way */
    uint32_t folded_count, folded_room;
};

/* Who sits out of the round under way: ascending. */
struct co_distrust {
    uint32_t count;
    struct fl_distrust_out *out;
};

struct co_job {
    uint64_t id;
    char name[FL_PLAN_NAME_MAX];
    uint8_t incarnation[FL_INCARNATION_SIZE];
    enum fl_job_state state;
    char why[256];
    uint64_t retry_ms; /* it paused for want of room or memory: when it is tried again; 0 = never */
    bool retry_drain;  /* it was draining */
    char *text;        /* the description that the next round freezes */
    size_t text_size;
    struct fl_plan *plan; /* of that text */

    uint64_t published;            /* last published round */
    struct fl_digest checkpoint;   /* its file */
    struct fl_checkpoint *model;   /* it, open: what agents start from. Of a job that is over only
                                      while somebody asks */
    struct fl_digest model_digest; /* of its first model */
    uint64_t model_size;
    struct fl_control_counts counts; /* its section; value NULL: it has none */
    char note[CO_NOTE_MAX];          /* of its strategy, about the round that made it */
    struct co_distrust distrust;
    uint64_t model_used;
    bool unreadable;             /* it could not be opened */
    struct fl_round_rules rules; /* last given to the round core */
    uint32_t generation;         /* counts round cores: a failed job may get another */
    struct fl_object
        *last_plan; /* the description the last published round was frozen with; NULL before */

    struct fl_round *round; /* NULL when the job is over */
    /* the open round */
    uint64_t opened_ms; /* wall clock */
    struct fl_object *frozen_text;
    struct co_sums *sums;        /* NULL: no round is open */
    struct fl_lane *lane;        /* long: folds and finishes, in order */
    struct fl_digest next_model; /* of the checkpoint that FINISH made */
    uint64_t next_model_size;

    /* members waiting to be recorded */
    struct co_enlist {
        uint64_t agent, base;
        uint32_t exchange;
    } * enlist;
    uint32_t enlist_count, enlist_room;
    bool enlist_busy;

    uint64_t done; /* 1, 2, ... in the order in which jobs were seen to be done; 0 = not yet */
    uint64_t bytes_up, bytes_down; /* of the open round */
    uint32_t changed;
    UT_hash_handle hh;
};

static inline bool co_round_is_open(const struct co_job *j)
{
    return j->sums != NULL && j->round != NULL;
}

/* ---- connections ---- */

/* One upload at a time on a connection; see co_upload.c. */
enum co_upload_phase {
    CO_UPLOAD_NONE,
    CO_UPLOAD_OPENING,   /* the store makes room and opens the spool */
    CO_UPLOAD_RECEIVING, /* the stream writes into the spool, until on_sink_end */
};

struct co_upload {
    enum co_upload_phase phase;
    bool dropped; /* no longer wanted: ends without an event */
    uint64_t job;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_store_update u;
    uint64_t base; /* the round by which the agent knows it */
    struct fl_spool *spool;
    char path[FL_STORE_PATH_MAX + FL_STORE_NAME_MAX];
    uint64_t from; /* offset it was resumed at */
    bool again;    /* wanted next, when this one has ended */
    uint64_t again_job;
    struct fl_round_item again_item;
};

/* Somebody may be writing the spool of this agent's upload: a stream, or a seal. It is opened again
 * only afterwards. */
struct co_writing {
    struct co_writing_key {
        uint64_t job, agent;
    } key;
    struct fl_store_update u;
    bool sealing;
    UT_hash_handle hh;
};

struct co_peer {
    uint64_t connection; /* id of this connection */
    struct co *co;
    struct fl_stream *stream;
    struct fl_peer core;
    struct fl_identity identity;
    uint64_t agent; /* 0 = not enrolled or replaced */
    uint64_t connected_ms;
    bool welcomed;
    bool closing;
    char asks[FL_PEER_JOBS_MAX][FL_PLAN_NAME_MAX];
    uint32_t ask_count;
    uint64_t task_job; /* federated job of its task */
    bool late;         /* a late offer of it is being looked up */
    bool claiming;     /* its Claim is being answered */
    char software[64];
    struct fl_object *object[CO_OBJECTS_MAX];
    uint32_t object_next;
    struct fl_object *sending; /* what the stream's source reads from */
    uint64_t finals; /* done jobs up to this one's `done` were offered on this connection */
    struct co_upload upload;
    UT_hash_handle hh;
};

/* ---- all of it ---- */

struct co_event {
    struct co_event *next;
    uint64_t job;
    struct fl_round_event ev;
};

struct co {
    uv_loop_t *loop;
    const char *config_path;
    struct fl_server_config config;
    void (*stopped)(void *arg, int status);
    void *stopped_arg;
    uint8_t id[16];
    struct fl_seed secret;
    uint64_t started_ms;

    struct fl_work *work;
    struct fl_pool *pool;
    struct fl_tls_conf *tls;
    struct fl_store *store;
    struct fl_lane *store_lane;
    struct fl_lane *seal_lane[CO_SEAL_LANES];
    struct fl_lane *replay_lane, *receipt_lane;
    struct fl_listener *listener;
    struct fl_control *control;
    struct fl_roster *roster;
    uv_timer_t timer;

    struct co_job *jobs;   /* by id */
    struct co_peer *peers; /* by connection id */
    struct co_writing *writing;
    uint64_t next_connection, jobs_done, models_used;
    uint32_t half_open;

    struct co_event *first, *last, *spare; /* events for the rounds */
    bool stepping;

    struct fl_store_update *commit; /* sealed updates waiting for a transaction */
    uint32_t commit_count, commit_room;
    bool commit_busy;

    uint32_t ops; /* under way */
    bool draining, down;
    int down_status;
    uint64_t updates_committed, updates_refused, bytes_in, bytes_out;
    uint64_t state_bytes; /* as the store's last job left them */
};

/* coordinator.c */
uint64_t co_now(const struct co *co); /* monotonic ms */
uint64_t co_wall_ms(void);
/* Submits; on failure (memory, lane full) `done` is called before it returns, with the reason as
 * status. */
void co_submit(struct co *co, struct fl_lane *lane, struct co_op *op);
void *co_op_new(struct co *co, size_t size, void (*run)(struct co_op *),
                void (*done)(struct co_op *));
/* An event for a round, behind (or, `front`, before) those waiting; then steps unless we are inside
 * a step. */
void co_event(struct co *co, uint64_t job, const struct fl_round_event *ev, bool front);
/* Work for this job's round core, and its answer: dropped when the job got another core meanwhile,
 * which has asked for the same again. */
void co_op_job(struct co_op *op, const struct co_job *j);
void co_answer(const struct co_op *op, const struct fl_round_event *ev);
/* Logs; -FL_R_STORE_IO ends the service. */
void co_store_failed(struct co *co, const struct co_op *op, const char *what);
void co_write_failed(struct co *co, int status); /* likewise, logged already */
void co_changed(struct co *co);
void co_peer_closed(struct co *co); /* a connection is gone: was it the last of a drain? */

/* co_round.c */
void co_perform(struct co *co, struct co_job *j, const struct fl_round_item *item);
void co_commit_kick(struct co *co);
/* There is no task to send: the job fails, or the member is in none of the round's secure sums and
 * waits for other work. */
void co_no_task(struct co_peer *p, struct co_job *j, const struct fl_round_item *item, int status,
                const struct fl_err *why);
/* A round's frozen description and its sums, taken into use (also on failure: freed then), and
 * given up. */
int co_round_freeze(struct co *co, struct co_job *j, const char *text, size_t size,
                    struct co_sums *sums, struct fl_err *e);
void co_round_thaw(struct co *co, struct co_job *j);

/* co_upload.c */
void co_upload_begin(struct co *co, struct co_job *j, const struct fl_round_item *item);
void co_upload_drop(struct co_peer *p);
void co_upload_ended(struct co_peer *p, int status,
                     const struct fl_err *e); /* the stream's on_sink_end */

/* What is wrong with a sealed upload, if anything: it is recorded, or refused and removed. */
void co_upload_judged(struct co *co, uint64_t job, const struct fl_store_update *u, int status,
                      const struct fl_err *e);

/* co_sums.c */
struct co_sums_of {
    const char *name, *text;
    size_t size;
    uint64_t round;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_digest checkpoint; /* of the round before */
    struct fl_tls_conf *tls;     /* outlives the call; the sums hold on to it */
};
/* [job] */
int co_sums_new(const struct fl_store *store, const struct co_sums_of *of, struct co_sums **ret,
                struct fl_err *e);
void co_sums_free(struct co_sums *s); /* NULL is fine */
/* Sums of one exchange back to zero. [lane] */
void co_sums_reset(struct co_sums *s, uint32_t exchange);
/* A section of the next checkpoint, whose bytes it takes; the same name again replaces it. [lane]
 */
void co_sums_section(struct co_sums *s, const struct fl_section *section);
/* A member's slot. From the lane, and from the loop while `finishing` is false. */
int co_sums_place(const struct co_sums *s, uint64_t agent, uint32_t *ret, struct fl_err *e);
/* A strategy with the state of a checkpoint; with NULL as a job begins. *ret_shared: fini, then
 * fl_free. */
int co_strategy_new(const struct fl_plan *plan, const struct fl_checkpoint *from,
                    const struct fl_strategy **ret, void **ret_shared, struct fl_err *e);
/* Bytes of one member's contribution to an exchange of the open round, at most. On the loop. */
uint64_t co_payload_size(const struct co_job *j, uint32_t exchange);
/* What the strategy says of a checkpoint; "" = nothing. [job] */
void co_note(const struct fl_plan *plan, const struct fl_checkpoint *from, char to[CO_NOTE_MAX]);
void co_fold(struct co *co, struct co_job *j, const struct fl_round_item *item);
/* [lane] One update's bytes into the sums. */
int co_sums_fold(struct co_sums *s, const struct fl_store_update *u, const char *path,
                 struct fl_err *e);
void co_refold(struct co *co, struct co_job *j, const struct fl_round_item *item);
/* [lane] The payloads that were folded, in order of agents (they are sorted). */
enum { CO_READER_FILES = 64 }; /* open at one time */
struct co_reader;
int co_reader_new(struct co_sums *s, struct co_reader **ret, struct fl_updates *ret_updates,
                  struct fl_err *e);
void co_reader_free(struct co_reader *r); /* NULL is fine */

/* co_compute.c: an exchange whose updates were folded is finished as in its round; of the last one
 * the digest of the checkpoint it makes, which is not kept. unchanged: the one of a round that was
 * given up. [lane] */
int co_recompute(struct co_sums *s, uint32_t exchange, bool unchanged, const struct fl_seed *secret,
                 const struct fl_server_target *target, struct fl_digest *ret, struct fl_err *e);

/* co_secure.c */
int co_secure_open(struct co_sums *s, struct fl_tls_conf *tls, struct fl_err *e);
void co_secure_close(struct co_sums *s);
/* What an agent begins an exchange with, where there is something; freed by fl_free. On the loop
 * while `finishing` is false. */
int co_sums_input(const struct co_sums *s, uint32_t exchange, uint64_t agent, uint8_t **ret,
                  size_t *ret_size, struct fl_err *e);
/* A sealed upload of a secure sum is looked at in the job's lane, behind all that changes the sum;
 * then co_upload_judged. False: it is none. */
bool co_secure_judge(struct co *co, struct co_job *j, const struct fl_store_update *u);
/* [lane] */
int co_secure_fold(struct co_sums *s, const struct fl_update *u, struct fl_err *e);
/* [lane] An exchange of secure sums is closed; of the last one they go to the strategy, and
 * *ret_updates is what they are made into. */
int co_secure_finish(struct co_sums *s, uint32_t exchange, const struct fl_seed *secret,
                     struct fl_updates *ret_updates, struct fl_err *e);
/* Whether, after this failure of it, the round is to be given up. */
bool co_secure_is_lost(const struct co_sums *s, uint32_t exchange, int status);

/* co_distrust.c */
/* [lane] What the agents of a secure sum whose last stage is over, well or not, hold against each
 * other becomes a section of the next checkpoint. */
int co_distrust_add(struct co_sums *s, struct fl_err *e);
/* [job] Who sits out of `round`, by the checkpoint before it. */
int co_distrust_read(const struct fl_checkpoint *c, uint64_t round, struct co_distrust *ret,
                     struct fl_err *e);
/* Takes *fresh into use, and says so to people and to the round. */
void co_distrust_take(struct co *co, struct co_job *j, struct co_distrust *fresh, uint64_t round);
bool co_distrust_allows(const struct co_job *j, uint64_t agent);

/* co_tune.c */
/* [job] What fl_next.tune does, with `arg` one of these. */
struct co_tune {
    struct fl_server_target target;
    const char *dir; /* of the store */
    const char *text;
    size_t text_size;
    const uint8_t *incarnation;
    size_t elements; /* of a model */
    const atomic_bool *cancel;
};
int co_tune(void *arg, const struct fl_tune *what, uint8_t **ret, size_t *ret_size,
            struct fl_err *e);
/* [job] Whether a job that needs target data can be run here: -FL_R_PLAN_STRATEGY. */
int co_tune_check(const struct co *co, const struct fl_server_target *target,
                  const struct fl_plan *plan, const char *text, size_t size, struct fl_err *e);
/* Removes what a crash left. */
void co_tune_sweep(const char *dir);

/* co_compute.c */
/* The row of what an item is about. */
struct fl_store_update co_update_of(const struct co_job *j, const struct fl_round_item *item);
/* An update as a strategy sees it, read by `read` with `arg`: on the grid of its exchange, also
 * when it came in fewer bits. *narrow lives as long as it. */
struct fl_update
co_update_view(const struct fl_exchange_terms *terms, const struct fl_store_update *u,
               int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e),
               void *arg, struct fl_narrow *narrow);
/* [job] The same of a sealed upload's file, until file->fd is closed. */
struct co_update_file {
    int fd;
    struct fl_narrow narrow;
};
int co_update_open(const struct fl_exchange_terms *terms, const struct fl_store_update *u,
                   const char *path, struct co_update_file *file, struct fl_update *ret,
                   struct fl_err *e);
void co_finish(struct co *co, struct co_job *j, const struct fl_round_item *item);
/* The initial checkpoint of a plan, written; for job submission. [job] */
int co_initial_checkpoint(struct fl_store *s, const struct fl_plan *plan,
                          const uint8_t incarnation[FL_INCARNATION_SIZE],
                          struct fl_digest *ret_checkpoint, struct fl_digest *ret_model,
                          uint64_t *ret_model_size, struct fl_err *e);

/* co_submit.c */
void co_job_submit(struct co *co, const struct fl_control_by *by, const char *file,
                   const char *text, size_t size);
void co_job_check(struct co *co, const struct fl_control_by *by, const char *file, const char *text,
                  size_t size);

/* co_query.c, co_bubbles.c, co_scores.c, co_replay.c: operations of control (control.h) */
void co_round_list(void *co, uint64_t ticket, const char *job, uint32_t limit);
void co_round_show(void *co, uint64_t ticket, const char *job, uint64_t round);
void co_agent_models(void *co, uint64_t ticket, const char *agent, uint32_t limit);
void co_model(void *co, uint64_t ticket, const struct fl_control_which *which);
void co_transcript(void *co, uint64_t ticket, const char *job);
void co_scores(void *co, uint64_t ticket, const char *job);
void co_bubbles(void *co, uint64_t ticket, const char *job);
void co_agent_explain(void *co, uint64_t ticket, const char *agent);
void co_replay(void *co, uint64_t ticket, const char *job, uint64_t round);
/* Of a question about a job, or an agent: NULL when there is none, and that is answered. */
struct co_job *co_job_asked(struct co *co, uint64_t ticket, const char *name);
const struct fl_roster_agent *co_agent_asked(struct co *co, uint64_t ticket, const char *name);

/* co_job.c */
/* A job in memory, from its record; its description; its round core, behind what is published. */
struct co_job *co_job_new(struct co *co, const struct fl_store_job *s, struct fl_err *e);
int co_job_take_text(struct co_job *j, const char *text, size_t size, struct fl_err *e);
int co_job_round(struct co *co, struct co_job *j, struct fl_err *e);
int co_jobs_load(struct co *co, struct fl_err *e);
void co_job_free(struct co *co, struct co_job *j);
/* What people see of a checkpoint's section `counts`. [job] */
int co_counts_read(const struct fl_checkpoint *c, struct fl_control_counts *ret, struct fl_err *e);
/* The model of a job's last checkpoint, opened when it is not. */
int co_job_model(struct co *co, struct co_job *j, struct fl_err *e);
/* The rules of the round after this one, or of this one while it is not open. */
int co_job_rules(struct co_job *j, struct fl_err *e);
struct co_job *co_job_by_id(struct co *co, uint64_t id);
/* NAME is the newest of that name, NAME@ID that very one. */
struct co_job *co_job_by_name(struct co *co, const char *name);
struct co_job *co_job_by_incarnation(struct co *co, const uint8_t incarnation[FL_INCARNATION_SIZE]);
void co_job_state(struct co *co, const struct fl_control_by *by, const char *name,
                  enum fl_control_to to);
void co_job_set(struct co *co, const struct fl_control_by *by, const char *name, const char *key,
                const char *value);
void co_job_over(struct co *co, struct co_job *j, enum fl_job_state state, int reason);
/* What made it pause may have passed: room on the disk, memory. */
void co_job_retry(struct co *co, struct co_job *j);
/* Every connected agent that asks and allows this job is offered to its round. */
void co_job_offer_agents(struct co *co, struct co_job *j);
/* Agents that were drawn for this job but never sent a task wait for work again. */
void co_job_release_agents(struct co *co, const struct co_job *j);

/* co_offer.c */
void co_peer_offered(struct co_peer *p, const Cohort__Offer *m);

/* co_peer.c */
bool co_accepting(void *arg, struct fl_stream_conf *conf);
struct co_peer *co_peer_by_agent(struct co *co, uint64_t agent);
struct co_peer *co_peer_by_connection(struct co *co, uint64_t connection);
/* Something about the agent itself, told to every round. */
void co_agent_event(struct co *co, uint64_t agent, enum fl_round_ev type);
/* A new revocation list: whoever is on it loses its session and its place in the rounds, also when
 * it is away with its work, since it cannot come back with it. */
void co_peers_revoke(struct co *co);
void co_peer_bye(struct co_peer *p, int reason, const char *text, uint32_t retry_ms);
void co_peer_grant(struct co_peer *p, struct fl_object *object);
/* True when the agent asks on this connection and allows jobs of this name. */
bool co_peer_asks(const struct co_peer *p, const char *job);
/* It waits for work: every round that may use it is told. */
void co_peer_available(struct co_peer *p);
void co_peer_send(struct co_peer *p, const Cohort__Frame *frame);
void co_peer_send_task(struct co_peer *p, struct co_job *j, const struct fl_round_item *item);
void co_peer_send_ack(struct co_peer *p, const struct fl_key *key, const struct fl_digest *digest);
void co_peer_send_over(struct co_peer *p, const struct fl_key *key, int reason);
void co_peer_send_refuse(struct co_peer *p, const struct fl_key *key, int reason, const char *text);
void co_peer_send_resume(struct co_peer *p, const struct fl_key *key,
                         const struct fl_digest *digest, uint64_t offset);
/* Jobs that are over: their final models, in a Rest, once on this connection. True when one was
 * sent. */
bool co_peer_finals(struct co_peer *p);

/* ---- co_secret.c ---- */

/* Reads or makes it. */
int co_secret_open(struct co *co, struct fl_err *e);
/* Of one job. */
void co_secret_of(const struct co *co, const uint8_t incarnation[FL_INCARNATION_SIZE],
                  struct fl_seed *ret);

/* ---- co_mark.c ---- */

struct co_mark {
    Cohort__Mark message;
    struct fl_digest head;
};
/* For Welcome; NULL when this agent never told. Valid as long as *ret is. */
Cohort__Mark *co_mark_echo(const struct fl_roster_agent *a, struct co_mark *ret);
/* False, logged and refused: what the offer shows of the ledger is behind what was shown before. */
bool co_mark_fits(struct co_peer *p, const Cohort__Offer *m);

/* co_receipts.c */
void co_peer_claims(struct co_peer *p, const Cohort__Claim *m);

/* co_control.c */
extern const struct fl_control_ops co_control_ops;
/* The open round of a job; false when there is none. */
bool co_round_view(struct co *co, struct co_job *j, struct fl_control_round *ret);
/* The time of day of a time of the loop; 0 for never. */
uint64_t co_wall_of(const struct co *co, uint64_t mono);

#endif
