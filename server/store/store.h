/*
 * The coordinator's durable truth: one SQLite database (WAL, synchronous=FULL, asserted at open)
 * for records, and files named by digest beside it for bytes. What this page promises, crash tests
 * hold it to:
 *
 *   - accepted means durable: fl_store_commit returns 0 only when the records AND the bytes they
 *     name survive power loss;
 *   - who is in an exchange is closed durably before anything is computed from it;
 *   - a published checkpoint is one file with one digest (model, server optimizer, strategy
 *     state): old or new, never mixed.
 *
 *     STATE/cohortd.db  STATE/lock
 *     STATE/spool/<incarnation>/<round>-<exchange>/<agent>-<digest>   uploads (.part, .mark while
 *                                                                     incomplete)
 *     STATE/models/<incarnation>/<round>-<digest>                     checkpoints
 *
 * All functions wait for the disk: call them from the store's lane (FL_WORK_SYNC), or at start. One
 * thread at a time. What a failure means:
 *
 *   -FL_R_DISK_FULL, -FL_R_NOMEM   nothing was recorded; the same call may succeed later
 *   -FL_R_STORE_IO                 final for the handle: the kernel forgets what a failed sync did
 *                                  not write, so every later call that writes returns it too, and
 *                                  the shell stops accepting; a restart reads what is on the disk
 *   anything else                  the request was wrong; nothing was recorded
 *
 * Every call that writes may be repeated after a crash with the same arguments: what is recorded
 * already is success, and something else in its place is -FL_R_STORE_MISMATCH.
 */
#ifndef SERVER_STORE_STORE_H
#define SERVER_STORE_STORE_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_STORE_SCHEMA = 3,
    FL_STORE_APPLICATION_ID = 0x436f6864, /* "Cohd" */
    FL_STORE_PATH_MAX = 512,              /* of the state folder's own path: 256 */
    FL_STORE_NAME_MAX = 256,
    FL_STORE_TEXT_MAX = 1024 * 1024, /* of a description */
    FL_STORE_AGENTS_MAX = 1000000,
    FL_STORE_JOBS_MAX = 10000,
    FL_STORE_UPLOADS_MAX = 100000, /* uploads begun or committed in all open rounds together */
};

struct fl_store;

struct fl_store_quota {
    uint64_t state_bytes;     /* uploads and checkpoints together; 0 = no limit */
    uint32_t keep_models;     /* newest checkpoints kept per job, at least 2 */
    uint32_t transcript_rows; /* of one job's transcript; 0 = FL_STORE_TRANSCRIPT_ROWS */
    uint32_t keep_rounds;     /* newest published rounds of a job whose updates stay, with the
                                 checkpoints that they began with, to be replayed; 0 = none */
};

/* Creates or opens; takes the folder's lock. ret_coordinator: 16 random bytes made with the
 * database. Damage in the database is an error (-FL_R_STORE_CORRUPT, -FL_R_STORE_FOREIGN for
 * another program's or a newer version's). Bytes that do not match their record fail only the job
 * they belong to: its state is FL_JOB_FAILED, with the reason in `why`. Files that no record names
 * are removed, except parts of uploads that an open exchange can still take. */
int fl_store_open(const char *dir, const struct fl_store_quota *quota, struct fl_store **ret,
                  uint8_t ret_coordinator[16], struct fl_err *e);
void fl_store_close(struct fl_store *s);
const char *fl_store_dir(const struct fl_store *s);
/* Bytes counted against the quota now. */
uint64_t fl_store_bytes(const struct fl_store *s);

/* ---- enrolment ---- */
struct fl_store_agent {
    uint64_t id; /* small, never reused */
    uint8_t key[32];
    char name[64];
    char serial[64];
    bool revoked;
    /* How far its ledger was at the last committed update: releases to us, 0 = never told; and the
     * digest of the ledger's chain there. */
    uint64_t releases;
    struct fl_digest head;
};
/* -FL_R_CTL_EXISTS: key or name is there. serial: of its certificate, hex; may be "". */
int fl_store_agent_add(struct fl_store *s, const uint8_t key[32], const char *name,
                       const char *serial, uint64_t *ret_id, struct fl_err *e);
/* -FL_R_NOT_ENROLLED: no such name. */
int fl_store_agent_revoke(struct fl_store *s, const char *name, struct fl_err *e);
/* In the order of ids. `each` must not call the store (nowhere on this page); its non-zero answer
 * ends the walk and is returned. */
int fl_store_agents(struct fl_store *s, int (*each)(void *arg, const struct fl_store_agent *a),
                    void *arg, struct fl_err *e);
/* A published model that an agent's update is in: its own round's, or a later one of the job, which
 * was made from it. As far back as rounds are kept. */
struct fl_store_containing {
    char job[64];
    uint64_t round, published_ms;
    struct fl_digest checkpoint;
    bool own; /* the update was folded in this very round */
};
/* Newest first. */
int fl_store_models_with(struct fl_store *s, uint64_t agent, uint32_t limit,
                         int (*each)(void *arg, const struct fl_store_containing *m), void *arg,
                         struct fl_err *e);

/* ---- jobs ---- */
enum fl_job_state {
    FL_JOB_RUNNING,
    FL_JOB_PAUSED,
    FL_JOB_DRAINING,
    FL_JOB_DONE,
    FL_JOB_CANCELLED,
    FL_JOB_FAILED
};

struct fl_store_job {
    uint64_t id;
    char name[64];
    uint8_t incarnation[FL_INCARNATION_SIZE];
    enum fl_job_state state;
    const char *text; /* the description that the next round freezes */
    size_t text_size;
    uint64_t round;              /* last published; 0 = initial model */
    struct fl_digest checkpoint; /* of the file of `round` */
    uint64_t model_size;    /* the first bytes of the checkpoint are the model, with a digest of */
    struct fl_digest model; /* their own */
    char why[256];          /* of a pause or failure, for people */
};
/* Records the job (id, round and why are not read) and its initial checkpoint, already written by
 * fl_store_checkpoint_write for round 0, in one transaction. -FL_R_CTL_EXISTS: a job of this name
 * is not over yet, or the incarnation was used. */
int fl_store_job_add(struct fl_store *s, const struct fl_store_job *job, uint64_t *ret_id,
                     struct fl_err *e);
/* DONE and CANCELLED are for ever (-FL_R_JOB_STATE) and give up the bytes of an open round; FAILED
 * keeps them. -FL_R_NO_JOB. */
int fl_store_job_state(struct fl_store *s, uint64_t job, enum fl_job_state state, const char *why,
                       struct fl_err *e);
int fl_store_job_text(struct fl_store *s, uint64_t job, const char *text, size_t size,
                      struct fl_err *e);
int fl_store_jobs(struct fl_store *s, int (*each)(void *arg, const struct fl_store_job *j),
                  void *arg, struct fl_err *e);

/* ---- one round ---- */
/* Freezes the plan of the round after the last published one, when it opens (-FL_R_JOB_STATE for
 * any other). `plan` is the digest of the text; `base` of the model it starts from. */
int fl_store_round_open(struct fl_store *s, uint64_t job, uint64_t round, const char *text,
                        size_t size, const struct fl_digest *plan, const struct fl_digest *base,
                        struct fl_err *e);
struct fl_store_update {
    uint64_t job, round, agent;
    uint32_t exchange;
    uint32_t weight;
    uint64_t size;
    struct fl_digest digest;
    uint64_t releases; /* of the agent's ledger when it offered, 0 = not told; only commit reads */
    struct fl_digest head;
};
/* Where the upload goes (job, round, exchange, agent, size and digest are read): the folder exists
 * afterwards, durably, and `size` bytes are set aside in the quota. An agent has one upload per
 * exchange: bytes of an earlier one that was not committed are removed, so nobody may be writing
 * them any more. -FL_R_QUOTA; -FL_R_UPDATE_CONFLICT when another digest of this agent is
 * committed; -FL_R_ROUND_OVER when the round is not open or the exchange is closed; -FL_R_NO_ROUND
 * for one that never was. */
int fl_store_upload_place(struct fl_store *s, const struct fl_store_update *u,
                          char ret_dir[FL_STORE_PATH_MAX], char ret_name[FL_STORE_NAME_MAX],
                          struct fl_err *e);
/* An upload that was refused after all (out of range, over): its bytes go, unless committed. */
int fl_store_upload_drop(struct fl_store *s, const struct fl_store_update *u, struct fl_err *e);
/* The sealed file of a job's update. From any thread. */
void fl_store_upload_path(const struct fl_store *s, const uint8_t incarnation[FL_INCARNATION_SIZE],
                          const struct fl_store_update *u, char ret_path[FL_STORE_PATH_MAX]);
/* -FL_R_QUOTA when `more` bytes would exceed the quota. */
int fl_store_room(struct fl_store *s, uint64_t more, struct fl_err *e);

/* Group commit: all these updates (their files sealed) become durable in one transaction.
 * ret_status[i]: 0 (also for one recorded before), -FL_R_UPDATE_CONFLICT when another digest of
 * that agent is there, -FL_R_ROUND_OVER when the round is not open or the exchange is closed,
 * -FL_R_STORE_MISMATCH when no sealed file of that size exists, -FL_R_NOT_ENROLLED for an unknown
 * agent; the others are committed all the same. An error return means that none is durable,
 * whatever ret_status says. */
int fl_store_commit(struct fl_store *s, const struct fl_store_update *updates, uint32_t count,
                    int *ret_status, struct fl_err *e);
/* In ascending order of agents. */
int fl_store_updates(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                     int (*each)(void *arg, const struct fl_store_update *u), void *arg,
                     struct fl_err *e);
/* A committed update of this record: 1 found, 0 not, negative error. Kept `late_rounds` rounds
 * after publishing. */
int fl_store_update_find(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                         uint64_t agent, struct fl_digest *ret, struct fl_err *e);
/* The same by what the agent knows it by, the round `base` of its task, for late offers. */
int fl_store_update_made(struct fl_store *s, uint64_t job, uint64_t base, uint32_t exchange,
                         uint64_t agent, struct fl_digest *ret, struct fl_err *e);
/* Who is invited (so that a restart knows whose accepted work to wait for), in one transaction.
 * Already invited ones are fine. base: the round of their task, `round` or one before; another word
 * for one who has no committed update takes the place of the first. */
int fl_store_members_add(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                         uint64_t base, const uint64_t *agents, uint32_t count, struct fl_err *e);
/* In ascending order of agents; closed_in: a member of the closed exchange. */
int fl_store_members(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                     int (*each)(void *arg, uint64_t agent, uint64_t base, bool closed_in),
                     void *arg, struct fl_err *e);

/* The exchange is closed: `members` (agent ids of committed updates, ascending) is what will be
 * computed from; a digest over them and the plan is kept. Exchanges close in order. */
int fl_store_close_exchange(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                            const uint64_t *members, uint32_t count, uint64_t wall_ms,
                            struct fl_err *e);

/* ---- checkpoints ---- */
/* Writes beside, syncs, renames, syncs the folder. `pieces` are concatenated; the digest is over
 * all. Counts against the quota (-FL_R_QUOTA). */
struct fl_piece {
    const void *data;
    size_t size;
};
int fl_store_checkpoint_write(struct fl_store *s, const uint8_t incarnation[FL_INCARNATION_SIZE],
                              uint64_t round, const struct fl_piece *pieces, uint32_t count,
                              struct fl_digest *ret, struct fl_err *e);
/* The same from bytes that need not be in memory: `read` gives exactly `size` of them at `offset`.
 */
struct fl_store_bytes {
    uint64_t size;
    int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);
    void *arg;
};
int fl_store_checkpoint_copy(struct fl_store *s, const uint8_t incarnation[FL_INCARNATION_SIZE],
                             uint64_t round, const struct fl_store_bytes *from,
                             struct fl_digest *ret, struct fl_err *e);
/* Room for FL_STORE_PATH_MAX bytes. */
void fl_store_checkpoint_path(const struct fl_store *s,
                              const uint8_t incarnation[FL_INCARNATION_SIZE], uint64_t round,
                              const struct fl_digest *digest, char *ret_path);
/* Round `round` is published: the job's row, the round's row, in one transaction; then old uploads
 * and checkpoints are removed (what is removed was never needed again; a crash in between leaves
 * files that the next open sweeps). At least one exchange must be closed. */
int fl_store_publish(struct fl_store *s, uint64_t job, uint64_t round,
                     const struct fl_digest *checkpoint, const struct fl_digest *model,
                     uint64_t model_size, uint32_t late_rounds, struct fl_err *e);

/* What a restart needs of the running round. 1 found, 0 none is open. text is freed by fl_free. */
struct fl_store_round {
    uint64_t job, round;
    char *text;
    size_t text_size;
    struct fl_digest plan, base;
    uint32_t closed;    /* exchanges closed so far: 0..closed-1 */
    uint64_t opened_ms; /* wall clock */
};
int fl_store_round_load(struct fl_store *s, uint64_t job, struct fl_store_round *ret,
                        struct fl_err *e);
/* The last rounds of a job, newest first, for `round list`. */
struct fl_store_round_row {
    uint64_t round, opened_ms, closed_ms, published_ms; /* 0 = not yet; closed_ms: last exchange */
    uint32_t invited, committed;                        /* in all exchanges together */
    struct fl_digest plan, checkpoint;
};
int fl_store_rounds(struct fl_store *s, uint64_t job, uint32_t limit,
                    int (*each)(void *arg, const struct fl_store_round_row *r), void *arg,
                    struct fl_err *e);

/* ---- transcripts ---- */
/* Each publication leaves a record of what it was made of, chained by digests (transcript.c says
 * how). Rows (a round, and each of its members) kept for one job; the oldest rounds go first. */
enum { FL_STORE_TRANSCRIPT_ROWS = 1000000 };
/* Writes all records of a job that are kept, oldest first, to fd, and says how many bytes, the last
 * round and the head of the chain (zero when there are none). -FL_R_NO_JOB; -FL_R_STORE_CORRUPT
 * when a record is not what its digest says. */
int fl_store_transcript(struct fl_store *s, uint64_t job, int fd, uint64_t *ret_size,
                        uint64_t *ret_round, struct fl_digest *ret_head, struct fl_err *e);

/* One update in a published round's record. 1: found; 0: the record has none of this agent
 * (*ret_recorded), or there is no record (yet, or any more). */
struct fl_store_inclusion {
    struct fl_digest record, model, update;
    uint32_t weight;
    uint64_t size;
};
int fl_store_inclusion(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                       uint64_t agent, struct fl_store_inclusion *ret, bool *ret_recorded,
                       struct fl_err *e);

/* What a published round was made from: fl_store_upload_path has the bytes of each update, as long
 * as keep_rounds lets them stay (whoever reads them compares digests). -FL_R_NO_OBJECT. */
struct fl_store_replay {
    uint64_t job, round;
    char *text; /* the description it ran */
    size_t text_size;
    struct fl_digest before, checkpoint; /* the checkpoint of the round before, and its own */
    struct fl_store_update *updates;     /* by exchange and agent */
    uint32_t update_count;
};
int fl_store_replay(struct fl_store *s, uint64_t job, uint64_t round, struct fl_store_replay *ret,
                    struct fl_err *e);
void fl_store_replay_fini(struct fl_store_replay *x);

/* Every change that a person made: who, when, what. The newest FL_STORE_AUDIT_MAX are kept. */
enum { FL_STORE_AUDIT_MAX = 100000 };
int fl_store_audit(struct fl_store *s, uint64_t wall_ms, const char *who, const char *what,
                   struct fl_err *e);
/* Newest first. */
int fl_store_audits(struct fl_store *s, uint32_t limit,
                    int (*each)(void *arg, uint64_t wall_ms, const char *who, const char *what),
                    void *arg, struct fl_err *e);

#endif
