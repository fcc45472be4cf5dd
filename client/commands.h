/* What `cohort-agent VERB` does: asks the running process over its socket, or reads the files. */
#ifndef CLIENT_COMMANDS_H
#define CLIENT_COMMANDS_H

#include "client/config.h"

#include <stdbool.h>
#include <stdint.h>

/* Exit codes, for ever. */
enum {
    FL_EXIT_OK = 0,
    FL_EXIT_FAILED = 1,
    FL_EXIT_USAGE = 2,
    FL_EXIT_NOT_RUNNING = 3,
    FL_EXIT_CONFIG = 78,
};

struct fl_command {
    const char *verb;
    const char *what;        /* of the verb: "show", "export", ...; NULL = none given */
    const char *agent, *job; /* NULL = all, none given; of check-data and preview: a file */
    const char *update;      /* digest, of outbox approve and reject */
    bool json, undo;
    const char *chain; /* of receipts verify: a file of `cohortctl audit export` */
    const char *wait;  /* of report: how long at most; NULL = not */
    uint32_t limit;
    const char *onnx, *safetensors; /* model export: files */
    const char *export, *initial;   /* check-data: folders */
    const char *model; /* preview: file of a published model; `rounds` and `seed` too */
    /* prepare */
    const char *incarnation;
    /* exchanges: of a round, 0 = 1; exchange: the first of them, which gets the seeds that another
     * job's first has */
    uint64_t rounds, exchange, exchanges, seed;
};

/* True when there is such a verb; and such a second word of it. */
bool fl_command_known(const char *verb);
bool fl_command_has(const char *verb, const char *what);
/* Prints to stdout, errors to stderr; returns the exit code. */
int fl_command_run(const struct fl_config *config, const struct fl_command *c);

#endif
