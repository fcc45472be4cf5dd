/*
 * The roster: who is enrolled, who of them is here, and what each is doing. Memory of the store's
 * enrolment list plus the present; pure, bounded by `max` agents. An agent is known by the hash of
 * its certificate's key (32 bytes), by its id (small, never reused) and by its name.
 */
#ifndef SERVER_CORE_ROSTER_H
#define SERVER_CORE_ROSTER_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_ROSTER_NAME_MAX = 64, FL_ROSTER_KEY_SIZE = 32 };

enum fl_roster_state {
    FL_ROSTER_OFFLINE,
    FL_ROSTER_IDLE,    /* connected, asks for nothing */
    FL_ROSTER_ASKING,  /* wants work */
    FL_ROSTER_WORKING, /* has a task of `job` */
};
const char *fl_roster_state_name(enum fl_roster_state state);

/* Read it, change it only through the functions below. */
struct fl_roster_agent {
    uint64_t id;
    uint8_t key[FL_ROSTER_KEY_SIZE];
    char name[FL_ROSTER_NAME_MAX];
    char serial[FL_ROSTER_NAME_MAX]; /* of the certificate it last came with */
    bool revoked;
    enum fl_roster_state state;
    uint64_t connection; /* the shell's id of its connection; 0 = none */
    uint64_t job;        /* WORKING: for which */
    uint64_t since_ms;   /* in this state */
    uint64_t seen_ms;    /* last connected or disconnected; 0 = never */
    /* How far its ledger is, as it last told: releases to us (0 = never told), chain there. */
    uint64_t releases;
    struct fl_digest head;
};

struct fl_roster;

int fl_roster_new(uint32_t max, struct fl_roster **ret, struct fl_err *e);
void fl_roster_free(struct fl_roster *r);

/* -FL_R_LIMIT: full. -FL_R_CTL_EXISTS: id, key or name is there. -FL_R_ARG: id 0 or no name. */
int fl_roster_add(struct fl_roster *r, uint64_t id, const uint8_t key[FL_ROSTER_KEY_SIZE],
                  const char *name, const char *serial, bool revoked, struct fl_err *e);
/* False when there is no such name; *ret_agent (may be NULL) gets the agent, whose connection the
 * shell then ends. */
bool fl_roster_revoke(struct fl_roster *r, const char *name,
                      const struct fl_roster_agent **ret_agent);

const struct fl_roster_agent *fl_roster_by_id(const struct fl_roster *r, uint64_t id);
const struct fl_roster_agent *fl_roster_by_key(const struct fl_roster *r,
                                               const uint8_t key[FL_ROSTER_KEY_SIZE]);
const struct fl_roster_agent *fl_roster_by_name(const struct fl_roster *r, const char *name);
/* The working or asking agents are found by going through all, in order of enrolment. `each`
 * returns false to stop. */
void fl_roster_each(const struct fl_roster *r,
                    bool (*each)(void *arg, const struct fl_roster_agent *a), void *arg);

/* A connection with this certificate (its key and serial number) is up: -FL_R_NOT_ENROLLED,
 * -FL_R_AGENT_REVOKED, or 0 and *ret. When the agent was here already, *ret_replaced is its older
 * connection, which the shell ends with FL_R_PEER_REPLACED (its fl_roster_disconnect then changes
 * nothing); otherwise 0. */
int fl_roster_connect(struct fl_roster *r, const uint8_t key[FL_ROSTER_KEY_SIZE],
                      const char *serial, uint64_t connection, uint64_t now_ms,
                      const struct fl_roster_agent **ret, uint64_t *ret_replaced, struct fl_err *e);
/* True when that was the agent's current connection: then it is offline now. */
bool fl_roster_disconnect(struct fl_roster *r, uint64_t agent, uint64_t connection,
                          uint64_t now_ms);
/* IDLE, ASKING, or WORKING for `job`. False (nothing changes) when the agent is not connected. */
bool fl_roster_set(struct fl_roster *r, uint64_t agent, enum fl_roster_state state, uint64_t job,
                   uint64_t now_ms);

/* The agent shows how far its ledger is. False: it was farther before, so what it has now is an
 * old copy, or it tells nothing any more; the farther mark stays. */
bool fl_roster_mark(struct fl_roster *r, uint64_t agent, uint64_t releases,
                    const struct fl_digest *head);

struct fl_roster_counts {
    uint32_t enrolled, revoked, online, idle, asking, working;
};
void fl_roster_counts(const struct fl_roster *r, struct fl_roster_counts *ret);

#endif
