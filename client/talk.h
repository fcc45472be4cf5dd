/*
 * Between the agent's machine and the messages of the wire. What an agent can say is all in this
 * one page: there is no other place in client/ where a message is made.
 *
 * Reasons travel as numbers with the registry's own words. Whatever an error's text knows beyond
 * that (paths, epsilons, rows of a data file) stays at the site.
 */
#ifndef CLIENT_TALK_H
#define CLIENT_TALK_H

#include "client/core/agent.h"
#include "client/core/ledger_receipts.h"
#include "common/wire/msg.h"

#include <stdbool.h>
#include <stdint.h>

/* One message with everything it points into. The frame is valid as long as the struct is. */
struct fl_talk {
    Cohort__Frame frame;
    union {
        Cohort__Hello hello;
        Cohort__Ask ask;
        Cohort__Accept accept;
        Cohort__Decline decline;
        Cohort__Fetch fetch;
        Cohort__Offer offer;
        Cohort__Claim claim;
    } body;
    Cohort__Claimed claims[FL_WIRE_CLAIMS_MAX], *claimed[FL_WIRE_CLAIMS_MAX];
    Cohort__Key key;
    struct fl_key key_bytes;
    Cohort__Mark mark;
    struct fl_digest digest[4];
    char *names[FL_WIRE_JOBS_MAX];
};

void fl_talk_hello(struct fl_talk *t);
/* `jobs` is borrowed; none = any job. */
void fl_talk_ask(struct fl_talk *t, const char *const *jobs, uint32_t count);
void fl_talk_accept(struct fl_talk *t, const struct fl_key *key);
void fl_talk_decline(struct fl_talk *t, const struct fl_key *key, int reason);
void fl_talk_fetch(struct fl_talk *t, const struct fl_digest *digest, uint64_t offset);
/* updates: borrowed, at most FL_WIRE_CLAIMS_MAX. */
void fl_talk_claim(struct fl_talk *t, const struct fl_wanted *updates, uint32_t count);
/* mark: of the ledger, releases 0 = none is shown. */
void fl_talk_offer(struct fl_talk *t, const struct fl_agent_offer *offer,
                   const struct fl_ledger_mark *mark);

/* A message of the coordinator as an event. `finals` has room for FL_AGENT_FINALS_MAX. False: a
 * message that only an agent may send. Bye is the shell's own. */
bool fl_talk_event(const Cohort__Frame *frame, struct fl_agent_event *ev,
                   struct fl_agent_task *finals);

#endif
