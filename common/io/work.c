/*
 * The only file with locks. What is shared between threads, and by what it is guarded:
 *
 *   - each class: a list of jobs ready to run, under the class's mutex;
 *   - the list of jobs that ran, under `ran_mutex`, announced to the loop by an async handle.
 *
 * Everything else, lanes included, is the loop's alone: a lane gives at most one job at a time to
 * its class, and gives the next when the loop has called `done` of the one before. The two mutexes
 * are also what hands a job's memory over: what the loop wrote before submitting, the worker sees;
 * what the worker wrote in `run`, the loop sees in `done`.
 */
#include "common/io/work.h"

#include "common/base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS_MAX = 256, STACK_SIZE = 1024 * 1024 };

struct jobs {
    struct fl_job *first, *last;
};

struct crew {
    uv_mutex_t mutex;
    uv_cond_t ready;
    struct jobs jobs;
    bool stopping;
    unsigned count;
    uv_thread_t *threads;
    struct fl_work *work;
    char name[16];
};

struct fl_work {
    uv_loop_t *loop;
    uv_async_t wake;
    uv_mutex_t ran_mutex;
    struct jobs ran;
    uint32_t pending; /* jobs submitted whose done was not called; the loop's */
    struct crew classes[FL_WORK_CLASSES];
};

struct fl_lane {
    struct fl_work *work;
    struct crew *crew;
    struct fl_job *given; /* to the class, not yet done */
    struct jobs waiting;
    uint32_t pending, max;
    bool in_done, freed;
};

static void push(struct jobs *l, struct fl_job *job)
{
    job->next = NULL;
    if (l->last) {
        l->last->next = job;
    } else {
        l->first = job;
    }
    l->last = job;
}

static struct fl_job *pop(struct jobs *l)
{
    struct fl_job *job = l->first;

    if (job) {
        l->first = job->next;
        if (!l->first) {
            l->last = NULL;
        }
        job->next = NULL;
    }
    return job;
}

static bool take_out(struct jobs *l, struct fl_job *job)
{
    struct fl_job *before = NULL;

    for (struct fl_job *j = l->first; j; before = j, j = j->next) {
        if (j != job) {
            continue;
        }
        *(before ? &before->next : &l->first) = j->next;
        if (l->last == j) {
            l->last = before;
        }
        j->next = NULL;
        return true;
    }
    return false;
}

static void report(struct fl_work *w, struct fl_job *job)
{
    uv_mutex_lock(&w->ran_mutex);
    push(&w->ran, job);
    uv_mutex_unlock(&w->ran_mutex);
    uv_async_send(&w->wake);
}

static void worker(void *arg)
{
    struct crew *c = arg;

    pthread_setname_np(pthread_self(), c->name);
    uv_mutex_lock(&c->mutex);
    for (;;) {
        struct fl_job *job = pop(&c->jobs);
        if (job) {
            uv_mutex_unlock(&c->mutex);
            job->run(job);
            report(c->work, job);
            uv_mutex_lock(&c->mutex);
        } else if (c->stopping) {
            break;
        } else {
            uv_cond_wait(&c->ready, &c->mutex);
        }
    }
    uv_mutex_unlock(&c->mutex);
}

static void give_next(struct fl_lane *lane)
{
    struct crew *c = lane->crew;

    lane->given = pop(&lane->waiting);
    if (!lane->given) {
        return;
    }
    uv_mutex_lock(&c->mutex);
    push(&c->jobs, lane->given);
    uv_cond_signal(&c->ready);
    uv_mutex_unlock(&c->mutex);
}

static void call_done(struct fl_lane *lane, struct fl_job *job)
{
    struct fl_work *w = lane->work;

    lane->pending--;
    if (--w->pending == 0) {
        uv_unref((uv_handle_t *)&w->wake);
    }
    job->done(job); /* may free the job, submit to the lane, or free the lane */
}

static void job_ended(struct fl_job *job)
{
    struct fl_lane *lane = job->lane;

    lane->given = NULL;
    lane->in_done = true;
    call_done(lane, job);
    while (lane->freed && (job = pop(&lane->waiting))) {
        job->cancelled = true;
        call_done(lane, job);
    }
    lane->in_done = false;
    if (lane->freed) {
        fl_free(lane);
    } else {
        give_next(lane);
    }
}

static void on_wake(uv_async_t *wake)
{
    struct fl_work *w = wake->data;
    struct fl_job *job;

    uv_mutex_lock(&w->ran_mutex);
    struct jobs ran = w->ran;
    w->ran = (struct jobs){0};
    uv_mutex_unlock(&w->ran_mutex);
    while ((job = pop(&ran))) {
        job_ended(job);
    }
}

static int class_start(struct fl_work *w, enum fl_work_class cls, unsigned count, struct fl_err *e)
{
    static const char *const names[FL_WORK_CLASSES] = {"short", "sync", "long"};
    struct crew *c = &w->classes[cls];
    const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE,
                                         .stack_size = STACK_SIZE};

    c->work = w;
    snprintf(c->name, sizeof c->name, "fl-%s", names[cls]);
    c->threads = fl_new(count, sizeof *c->threads);
    while (c->count < count) {
        int r = uv_thread_create_ex(&c->threads[c->count], &options, worker, c);
        if (r != 0) {
            return fl_fail(e, FL_R_SYS, "start worker %s-%u: %s", c->name, c->count,
                           uv_strerror(r));
        }
        c->count++;
    }
    return 0;
}

static void on_wake_closed(uv_handle_t *wake)
{
    fl_free(wake->data);
}

int fl_work_new(uv_loop_t *loop, const unsigned threads[FL_WORK_CLASSES], struct fl_work **ret,
                struct fl_err *e)
{
    const unsigned cores = uv_available_parallelism();
    const unsigned usual[FL_WORK_CLASSES] = {cores, 2, cores};
    sigset_t all, before;
    int r = 0;

    for (int i = 0; i < FL_WORK_CLASSES; i++) {
        if (threads && threads[i] > THREADS_MAX) {
            return fl_fail(e, FL_R_LIMIT, "%u worker threads of one class; at most %d", threads[i],
                           THREADS_MAX);
        }
    }
    struct fl_work *w = fl_new(1, sizeof *w);
    w->loop = loop;
    w->wake.data = w;
    if ((r = uv_async_init(loop, &w->wake, on_wake)) != 0) {
        fl_free(w);
        return fl_fail(e, FL_R_SYS, "make the workers' wake-up: %s", uv_strerror(r));
    }
    uv_unref((uv_handle_t *)&w->wake);
    if (uv_mutex_init(&w->ran_mutex) != 0) {
        abort();
    }
    for (int i = 0; i < FL_WORK_CLASSES; i++) {
        if (uv_mutex_init(&w->classes[i].mutex) != 0 || uv_cond_init(&w->classes[i].ready) != 0) {
            abort();
        }
    }
    /* Signals are the loop thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < FL_WORK_CLASSES && r == 0; i++) {
        r = class_start(w, (enum fl_work_class)i, threads && threads[i] ? threads[i] : usual[i], e);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        fl_work_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

void fl_work_free(struct fl_work *w)
{
    if (!w) {
        return;
    }
    assert(w->pending == 0); /* the owner of a lane waits for its jobs first */
    for (int i = 0; i < FL_WORK_CLASSES; i++) {
        struct crew *c = &w->classes[i];
        uv_mutex_lock(&c->mutex);
        c->stopping = true;
        uv_cond_broadcast(&c->ready);
        uv_mutex_unlock(&c->mutex);
        for (unsigned t = 0; t < c->count; t++) {
            uv_thread_join(&c->threads[t]);
        }
        fl_free(c->threads);
        uv_cond_destroy(&c->ready);
        uv_mutex_destroy(&c->mutex);
    }
    uv_mutex_destroy(&w->ran_mutex);
    uv_close((uv_handle_t *)&w->wake, on_wake_closed);
}

struct fl_lane *fl_lane_new(struct fl_work *w, enum fl_work_class cls, uint32_t max_jobs)
{
    assert(max_jobs > 0 && cls < FL_WORK_CLASSES);
    struct fl_lane *lane = fl_try(1, sizeof *lane);
    if (lane) {
        lane->work = w;
        lane->crew = &w->classes[cls];
        lane->max = max_jobs;
    }
    return lane;
}

void fl_lane_free(struct fl_lane *lane)
{
    if (!lane) {
        return;
    }
    assert(!lane->freed);
    lane->freed = true;
    if (lane->given) {
        struct crew *c = lane->crew;
        uv_mutex_lock(&c->mutex);
        bool not_begun = take_out(&c->jobs, lane->given);
        uv_mutex_unlock(&c->mutex);
        if (not_begun) {
            /* Its `done` comes from the loop like any other. */
            lane->given->cancelled = true;
            report(lane->work, lane->given);
        }
    } else if (!lane->in_done) {
        fl_free(lane);
    }
}

int fl_lane_submit(struct fl_lane *lane, struct fl_job *job)
{
    assert(!lane->freed);
    if (lane->pending >= lane->max) {
        return -FL_R_LIMIT;
    }
    job->lane = lane;
    job->cancelled = false;
    push(&lane->waiting, job);
    lane->pending++;
    if (lane->work->pending++ == 0) {
        uv_ref((uv_handle_t *)&lane->work->wake);
    }
    if (!lane->given && !lane->in_done) {
        give_next(lane);
    }
    return 0;
}

uint32_t fl_lane_pending(const struct fl_lane *lane)
{
    return lane->pending;
}
