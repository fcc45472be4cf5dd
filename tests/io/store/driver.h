/*
 * A coordinator without a network, for the crash tests of the store: it opens a state folder, goes
 * on where the records say, and runs rounds of two exchanges with AGENTS agents. Everything it
 * computes follows from the records, so whoever reads them later can compute it again.
 *
 * What the store promised is told line by line ("facts"), each only after the call had returned:
 *
 *     agent ID NAME            job 1             text TEXT         state N
 *     open ROUND               invited ROUND EXCHANGE
 *     commit ROUND EXCHANGE AGENT DIGEST         closed ROUND EXCHANGE MASK
 *     published ROUND DIGEST   audit N
 */
#ifndef TESTS_IO_STORE_DRIVER_H
#define TESTS_IO_STORE_DRIVER_H

#include "server/store/store.h"

enum { DRIVER_AGENTS = 4, DRIVER_EXCHANGES = 2 };

struct driver {
    const char *dir;
    uint64_t seed;
    uint64_t rounds;      /* until this many are published */
    bool commit_unsealed; /* a wrong program: records an upload before its bytes are synced */
    void (*fact)(void *arg, const char *line);
    void *arg;
    /* Called when a step fails; 0: try the same step again, otherwise give up with this. */
    int (*failed)(void *arg, const struct fl_err *e);
};

/* 0, or what `failed` answered. */
int driver_act(const struct driver *d, struct fl_err *e);

/* Opens the folder and compares it with the facts (a text of lines): 0, or -FL_R_STORE_MISMATCH
 * saying which promise is broken. */
int driver_verify(const char *dir, const char *facts, struct fl_err *e);

#endif
