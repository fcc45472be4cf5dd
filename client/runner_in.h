/* Between runner.c (machine, connection, messages) and runner_ops.c (operations). Nobody else. */
#ifndef CLIENT_RUNNER_IN_H
#define CLIENT_RUNNER_IN_H

#include "client/runner.h"

enum { FL_RUNNER_EVENTS_MAX = 16, FL_RUNNER_FILES_JOBS = 64 };

/* The operation in flight. Written by its job, read by the loop when the job is done. */
struct fl_runner_op {
    struct fl_job job;
    struct fl_runner *runner;
    enum fl_agent_state op;
    uint32_t phase;
    bool busy;
    int status;
    struct fl_err err;
    uint8_t coordinator[16]; /* pending */
    struct fl_ledger_mark echo, shown;
    unsigned have;
    bool costs;
    struct fl_agent_offer offer;
    /* fetch */
    struct fl_spool *spool;
    struct fl_digest digest;
    uint64_t offset, size;
    bool sink_set;
    /* mark; hold: 0 approved, -reason otherwise */
    int outcome;
    uint64_t bytes_down, bytes_up;
};

/* The data set, read while the first connection is being made. */
struct fl_runner_early {
    struct fl_job job;
    struct fl_runner *runner;
    bool busy;
};

struct fl_runner {
    const struct fl_runner_site *site;
    const struct fl_config_agent *agent;
    char area[FL_CONFIG_NAME_MAX + 8];
    struct fl_agent core;
    struct fl_vault *vault;
    struct fl_tls_conf *tls;
    struct fl_sessions *sessions; /* secure sums under way */
    struct fl_receipts *receipts;
    struct fl_stream *stream;
    struct fl_lane *files, *longs;
    uv_timer_t timer;
    /* events that came up while the machine's list was being done */
    struct fl_agent_event queue[FL_RUNNER_EVENTS_MAX];
    uint32_t queue_head, queue_count;
    bool stepping, stopped;
    bool has_task;
    struct fl_task task;
    struct fl_runner_op op;
    struct fl_runner_early early;
    struct fl_err why;           /* of the operation that failed last */
    struct fl_ledger_mark echo;  /* of this coordinator's Welcome */
    struct fl_ledger_mark shown; /* of the ledger now: goes with an Offer */
    /* upload */
    int upload_fd;
    bool uploading, upload_again;
    uint64_t upload_from;
    /* Bye */
    int bye_reason;
    uint32_t bye_retry_ms;
    /* jobs of the policy that are withdrawn */
    bool withdrawn[FL_POLICY_JOBS_MAX];
    /* counts */
    uint64_t bytes_in, bytes_out; /* of connections that ended */
    uint64_t task_in, task_out;   /* totals when the task began */
    uint64_t settled, declined, used_ms;
    int last_reason;
    char last_error[256];
};

/* Hands an event to the machine; from the loop, also while it is being stepped. */
void fl_runner_feed(struct fl_runner *r, const struct fl_agent_event *ev);
uint64_t fl_runner_now(const struct fl_runner *r);
void fl_runner_traffic(const struct fl_runner *r, uint64_t *ret_in, uint64_t *ret_out);
/* Sends or closes the connection. */
void fl_runner_send(struct fl_runner *r, const Cohort__Frame *frame);

/* Starts it, where the data are this process's only ones and no job has a say in how they are read.
 */
void fl_runner_load_early(struct fl_runner *r);
void fl_runner_begin(struct fl_runner *r, enum fl_agent_state op);
void fl_runner_cancel(struct fl_runner *r);
/* The stream no longer uses the sink of the fetch in flight. */
void fl_runner_sink_ended(struct fl_runner *r, int status, const struct fl_err *e);
void fl_runner_note_decline(struct fl_runner *r, int reason);

#endif
