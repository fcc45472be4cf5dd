/*
 * One agent at work: the shell around its machine (core/agent.h). It owns the agent's connection,
 * vault and lanes, does what the machine's list says and reports back as events. Many runners share
 * one loop, one worker pool and one pool of frame buffers: they are hosted (host.h).
 *
 * Lanes: `files` waits for disks (ledger, cache, sealing, marks), `long` computes (training,
 * evaluating). The machine has one operation in flight at a time, so what a task owns has one user;
 * the ledger is touched only from `files`, so the site's questions can be answered during training.
 */
#ifndef CLIENT_RUNNER_H
#define CLIENT_RUNNER_H

#include "client/core/agent.h"
#include "client/task.h"
#include "client/vault.h"
#include "common/io/stream.h"
#include "common/io/work.h"
#include "common/wire/tls.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* What all runners of a process share. */
struct fl_runner_site {
    uv_loop_t *loop;
    struct fl_work *work;
    struct fl_pool *pool;
    const struct fl_config *config;
    bool once;
    /* Something ended: memory may be trimmed, or this runner is quiet. */
    void (*changed)(void *arg);
    void *arg;
};

struct fl_runner;

/* What the site's administrator sees; no data, but epsilons and rounds. */
struct fl_runner_view {
    const char *name, *state, *link, *job, *coordinator_address;
    uint64_t round;
    uint64_t certificate_expires_s;
    uint64_t rounds_settled, declined;
    uint64_t bytes_in, bytes_out;
    size_t data_bytes;
    int last_reason; /* of the last closed connection or failed task; 0 = none */
    const char *last_error;
    bool in_window;
};

/* Opens the vault and the certificate. The loop must not run yet, or it waits for the disk. */
int fl_runner_open(const struct fl_runner_site *site, uint32_t index, struct fl_runner **ret,
                   struct fl_err *e);
void fl_runner_start(struct fl_runner *r);
/* Drains; a second call means now. */
void fl_runner_stop(struct fl_runner *r);
/* Stopped, and nothing runs any more. */
bool fl_runner_quiet(const struct fl_runner *r);
/* When quiet, or before start. Handles close on the loop: it must run once more. */
void fl_runner_close(struct fl_runner *r);

/* New certificates for connections to come. */
int fl_runner_reload(struct fl_runner *r, struct fl_err *e);

void fl_runner_view(const struct fl_runner *r, struct fl_runner_view *ret);
const char *fl_runner_name(const struct fl_runner *r);

/* Unloads the data set if nothing uses it. Returns bytes freed. fl_runner_data_bytes is 0 while an
 * operation runs that could be loading it. */
bool fl_runner_can_unload(const struct fl_runner *r);
size_t fl_runner_unload(struct fl_runner *r);
/* It heard from its coordinator: a Rest, or an update was settled. */
bool fl_runner_useful(const struct fl_runner *r);
size_t fl_runner_data_bytes(const struct fl_runner *r);
uint64_t fl_runner_used_ms(const struct fl_runner *r);

/* A question about the vault: `run` in the files lane, then `done` on the loop (also when the lane
 * was closed meanwhile: then q->job.cancelled). Embed it. -FL_R_LIMIT: too many at once. */
struct fl_runner_query {
    struct fl_job job;
    struct fl_runner *runner;
    struct fl_vault *vault;
    void (*run)(struct fl_runner_query *q);
    void (*done)(struct fl_runner_query *q);
};
int fl_runner_ask(struct fl_runner *r, struct fl_runner_query *q);
/* The update that waits for the administrator's word; NULL = none. */
const struct fl_agent_offer *fl_runner_held(const struct fl_runner *r);
/* The word on it. When none waits nothing happens. */
void fl_runner_decide(struct fl_runner *r, bool approve);

/* After a withdrawal was recorded (job "*" = all): what is under way ends, what is asked for is
 * less. flags: one for each job of the policy. */
void fl_runner_withdrawn(struct fl_runner *r, const char *job, const bool *flags);
/* [files lane, or before start] Which jobs of the policy are withdrawn. */
int fl_runner_withdrawn_flags(struct fl_vault *v, bool *ret, struct fl_err *e);

#endif
