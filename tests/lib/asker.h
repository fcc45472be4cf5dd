/*
 * A client of a control socket in a thread of its own, while the test runs the daemon's loop.
 */
#ifndef TESTS_LIB_ASKER_H
#define TESTS_LIB_ASKER_H

#include "common/io/ctl_client.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

struct asker {
    pthread_t thread;
    const char *path;
    struct fl_ctl_request request;
    uint64_t timeout_ms;
    int hang_up_after; /* so many parts, 0 = never */
    /* results, once `over` */
    atomic_bool over;
    atomic_int parts;
    int status;
    struct fl_err e;
    char json[16 * 1024]; /* all documents, each with a line end */
    size_t used;
    uint64_t bytes;
    uint8_t sum; /* xor of all data, to see that it is the right data */
};

static inline int asker_on_part(void *arg, const struct fl_ctl_answer *part)
{
    struct asker *a = arg;

    if (part->kind == FL_CTL_JSON) {
        size_t room = sizeof a->json - a->used;
        int n = snprintf(a->json + a->used, room, "%s\n", part->text);
        a->used += (size_t)n < room ? (size_t)n : room - 1;
    }
    for (size_t i = 0; i < part->size; i++) {
        a->sum ^= part->data[i];
    }
    a->bytes += part->size;
    a->parts++;
    return a->hang_up_after && --a->hang_up_after == 0 ? -FL_R_CANCELLED : 0;
}

static inline void *asker_run(void *arg)
{
    struct asker *a = arg;

    a->status = fl_ctl_ask(a->path, &a->request, a->timeout_ms, asker_on_part, a, &a->e);
    a->over = true;
    return NULL;
}

static inline void ask_start(const char *path, struct asker *a, const char *verb)
{
    a->path = path;
    a->request.verb = verb;
    ck_assert_int_eq(pthread_create(&a->thread, NULL, asker_run, a), 0);
}

static inline void asker_tick(uv_timer_t *t)
{
    (void)t;
}

/* Runs the loop until the condition holds; the timer only wakes it up to look. */
#define RUN_UNTIL(loop_, condition)                                                                \
    do {                                                                                           \
        uv_timer_t timer_;                                                                         \
        uv_timer_init((loop_), &timer_);                                                           \
        uv_timer_start(&timer_, asker_tick, 2, 2);                                                 \
        while (!(condition)) {                                                                     \
            uv_run((loop_), UV_RUN_ONCE);                                                          \
        }                                                                                          \
        uv_close((uv_handle_t *)&timer_, NULL);                                                    \
        uv_run((loop_), UV_RUN_NOWAIT);                                                            \
    } while (0)

static inline void ask_finish(uv_loop_t *loop, struct asker *a)
{
    RUN_UNTIL(loop, a->over);
    pthread_join(a->thread, NULL);
}

static inline void ask(uv_loop_t *loop, const char *path, struct asker *a, const char *verb)
{
    ask_start(path, a, verb);
    ask_finish(loop, a);
}

#endif
