/*
 * Running somebody else's program: with limits, and nothing of it left when it is over, however it
 * ends. Knows nothing of training.
 *
 * Between the agent and the program stands a keeper, a process of its own (this executable again):
 *
 *     agent (a thread of the long class waits)
 *       keeper        adopts whatever the program leaves behind; dies with the agent
 *         program     its own process group; limits; dies with the keeper
 *           whatever it starts
 *
 * The loop is not involved, so nothing waits for a program but the training that asked for it. Why
 * not uv_spawn: it belongs to the loop and its SIGCHLD handler, knows no limits, and children of
 * the program that leave its process group would outlive it. keeper.c says more.
 */
#ifndef FL_IO_KEEPER_H
#define FL_IO_KEEPER_H

#include "common/base/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_KEEPER_ARGS_MAX = 16,
    FL_KEEPER_ANSWER_MAX = 64 * 1024, /* bytes of the line that is the answer */
    FL_KEEPER_TAIL = 2048,            /* bytes kept of the end of stderr */
};

struct fl_keeper_job {
    const char *const *program; /* and its arguments; ends with NULL */
    const char *folder;         /* it runs here */
    const char *input;          /* one line (without its end) on its stdin, then the end */
    uint64_t time_ms;
    uint64_t memory;           /* bytes of address space, 0 = no limit */
    uint64_t output;           /* bytes on stdout and stderr together */
    uint64_t file;             /* bytes of one file it writes */
    const atomic_bool *cancel; /* NULL = never */
};

struct fl_keeper_result {
    char *answer;              /* last line of stdout that is not empty; freed by fl_free */
    uint64_t cpu_ms;           /* of the program and all it started and waited for */
    char tail[FL_KEEPER_TAIL]; /* end of stderr: whole lines, printable, terminated */
};

/* Waits for it. 0 when it ended with exit status 0. -FL_R_EXEC_START, -FL_R_EXEC_TIME,
 * -FL_R_EXEC_OUTPUT, -FL_R_EXEC_SIGNAL, -FL_R_EXEC_EXIT, -FL_R_CANCELLED; -FL_R_SYS. On return
 * no process of it is left. `tail` is there in any case, `answer` only on success. */
int fl_keeper_run(const struct fl_keeper_job *job, struct fl_keeper_result *ret, struct fl_err *e);
void fl_keeper_result_fini(struct fl_keeper_result *r);

/* To be called first thing in main: when this process is to be a keeper it is one, and exits. */
void fl_keeper_main(int argc, char **argv);

#endif
