/*
 * Work off the loop: jobs on three classes of threads, in lanes.
 *
 * One class would starve another (eight trainings on four threads delay a handshake by seconds), so
 * each class has threads of its own: short (TLS, parsing), sync (store, spool: things that wait for
 * a disk), long (training, folding, finishing).
 *
 * A lane runs one job at a time, in the order of submission. What a lane owns is touched only by
 * its running job; between jobs only by the loop. That is the whole locking discipline of this
 * project: there are no locks outside this file.
 *
 * All functions are for the loop thread, except where [job] is said.
 */
#ifndef FL_IO_WORK_H
#define FL_IO_WORK_H

#include "common/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

enum fl_work_class { FL_WORK_SHORT, FL_WORK_SYNC, FL_WORK_LONG, FL_WORK_CLASSES };

struct fl_work;
struct fl_lane;

/* Embed this in your own struct; it must live until `done` was called. */
struct fl_job {
    void (*run)(struct fl_job *job); /* [job] on a worker thread */
    void (*done)(
        struct fl_job *job); /* on the loop, always, also for jobs whose lane was cancelled */
    bool cancelled;          /* read-only: `run` was skipped */
    /* private */
    struct fl_lane *lane;
    struct fl_job *next;
};

/* Threads per class; 0 in any gets a default (short: cores, sync: 2, long: cores). Stacks are 1
 * MiB. */
int fl_work_new(uv_loop_t *loop, const unsigned threads[FL_WORK_CLASSES], struct fl_work **ret,
                struct fl_err *e);
/* Waits for running jobs; no lane may have jobs left. NULL is fine. The loop must run once more
 * afterwards to close its handle. */
void fl_work_free(struct fl_work *w);

/* max_jobs bounds the queue (running one included). */
struct fl_lane *fl_lane_new(struct fl_work *w, enum fl_work_class cls, uint32_t max_jobs);
/* Frees the lane once its jobs are done; queued ones that have not begun are cancelled (`done` with
 * cancelled = true). */
void fl_lane_free(struct fl_lane *lane);

/* -FL_R_LIMIT when the lane is full. */
int fl_lane_submit(struct fl_lane *lane, struct fl_job *job);
uint32_t fl_lane_pending(const struct fl_lane *lane);

#endif
