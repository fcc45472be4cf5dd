/*
 * One connection, as the coordinator sees it: which message is legal now, how many there may be,
 * and whether what an offer says about itself fits what was asked for. Pure, over plain structs;
 * the shell turns protobuf messages into calls and performs the answers. Everything an agent sends
 * meets this file before it meets a round.
 *
 *             Hello           Ask              Task (INVITE)         Accept
 *   OPENING --------> IDLE --------> ASKING ---------------> TASKED --------> WORKING
 *                      ^                | Over, Decline         |                 |
 *                      +----------------+-----------------------+--- Ack, Over ---+
 *
 * Offer is legal in every state but OPENING: after a reconnection an agent first offers what waits
 * in its outbox. Messages can cross (an Accept meets the Over that was already on its way): an
 * Accept or Decline for another task than the current is STALE, not an offence.
 */
#ifndef SERVER_CORE_PEER_H
#define SERVER_CORE_PEER_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_PEER_JOBS_MAX = 64, /* names in one Ask */
    FL_PEER_OBJECTS_MAX =
        32, /* digests this agent may fetch: of its tasks and of finals; the newest */
    FL_PEER_RATE_BURST = 64, /* messages (not chunks) at once, ... */
    FL_PEER_RATE_MS = 50,    /* ... and then one each so many ms */
    /* What we asked for does not count: a round of a small model is over in milliseconds. */
    FL_PEER_TASK_MESSAGES = 8,  /* Fetch three times, Accept, Offer, Offer again, Ask, Claim */
    FL_PEER_FINAL_MESSAGES = 4, /* Fetch twice, Ask, Claim */
};

enum fl_peer_state {
    FL_PEER_OPENING, /* TLS is up; Hello must come */
    FL_PEER_IDLE,
    FL_PEER_ASKING,
    FL_PEER_TASKED, /* a Task was sent, neither accepted nor declined */
    FL_PEER_WORKING,
    FL_PEER_CLOSING, /* Bye was sent or an offence seen: everything is ignored */
};
const char *fl_peer_state_name(enum fl_peer_state state);

enum fl_peer_msg {
    FL_PEER_MSG_HELLO,
    FL_PEER_MSG_ASK,
    FL_PEER_MSG_ACCEPT,
    FL_PEER_MSG_DECLINE,
    FL_PEER_MSG_FETCH,
    FL_PEER_MSG_OFFER,
    FL_PEER_MSG_CLAIM,
    FL_PEER_MSG_REFUSE, /* the agent refuses something, e.g. an object with a wrong digest */
    FL_PEER_MSG_BYE,
    FL_PEER_MSG_OTHER, /* what only a coordinator may send: never legal */
};

struct fl_peer {
    enum fl_peer_state state;
    uint64_t agent;
    uint32_t version;   /* negotiated */
    struct fl_key task; /* TASKED, WORKING */
    bool has_task;
    /* what it may fetch */
    struct fl_digest object[FL_PEER_OBJECTS_MAX];
    uint32_t object_next;
    /* rate: the theoretical arrival time of a token bucket */
    uint64_t rate_ms;
};

void fl_peer_init(struct fl_peer *p, uint64_t agent, uint64_t now_ms);

enum { FL_PEER_OK = 0, FL_PEER_STALE = 1 };

/* Before anything else is done with a message: FL_PEER_OK, FL_PEER_STALE (ignore it silently), or
 * an offence after which the connection is closed with Bye(reason): -FL_R_MSG_ORDER, -FL_R_LIMIT
 * (messages too fast). `key` is that of an Accept, Decline or Offer, else NULL. Moves the state for
 * Ask, Accept, Decline and Offer; the others have functions of their own. */
int fl_peer_step(struct fl_peer *p, enum fl_peer_msg msg, const struct fl_key *key, uint64_t now_ms,
                 struct fl_err *e);

/* Hello: picks the highest version both speak. -FL_R_VERSION; then Refuse and Bye. */
int fl_peer_hello(struct fl_peer *p, uint32_t min_version, uint32_t max_version, uint32_t own_min,
                  uint32_t own_max, struct fl_err *e);

/* What the shell sent. Task: its key and the two objects it names become fetchable. */
void fl_peer_sent_task(struct fl_peer *p, const struct fl_key *key, const struct fl_digest *plan,
                       const struct fl_digest *base);
/* A Rest's final models: each digest it names becomes fetchable, the oldest ones no longer. */
void fl_peer_sent_object(struct fl_peer *p, const struct fl_digest *object);
/* So many messages are answers to what was sent: not held against its rate. A Task earns
 * FL_PEER_TASK_MESSAGES by itself. Never more than a full burst is kept. */
void fl_peer_earn(struct fl_peer *p, uint32_t messages);
/* Ack or Over for this key: idle again when it was the task's. True when it was. */
bool fl_peer_sent_end(struct fl_peer *p, const struct fl_key *key);
/* Rest: no longer asking. */
void fl_peer_sent_rest(struct fl_peer *p);
void fl_peer_sent_bye(struct fl_peer *p);

/* May it fetch this from there? 0, -FL_R_NO_OBJECT, or -FL_R_OFFSET when offset > size. A refusal,
 * not an offence. */
int fl_peer_fetch(const struct fl_peer *p, const struct fl_digest *object, uint64_t offset,
                  uint64_t size, struct fl_err *e);

/* What the current round of a job takes. */
struct fl_offer_terms {
    struct fl_key key;       /* incarnation, current round; the exchange is not compared */
    uint32_t exchange_count; /* of the plan */
    bool open;               /* the round is open: its plan and base are frozen */
    struct fl_digest plan, base;
    uint64_t update_size;    /* of the offer's exchange */
    uint64_t narrow_size[2]; /* so many will do, too; 0 = none */
    bool at_most;            /* opaque bytes: 1 to update_size; else exactly */
    uint32_t max_weight;     /* 1 with equal weights */
    bool carried;         /* the offer is of an earlier round's task, and this round takes it: plan
                             and base are of then, and the plan must be this round's all the same */
    uint32_t late_rounds; /* published rounds back that are looked up in the store */
};

struct fl_offer {
    struct fl_key key;
    struct fl_digest digest, plan, base;
    uint64_t size;
    uint32_t weight;
};

enum fl_offer_verdict {
    FL_OFFER_CURRENT, /* step FL_ROUND_EV_OFFERED */
    FL_OFFER_LATE,    /* of a published round: look it up in the store; Ack if that very digest is
                         committed, else Refuse(UPDATE_CONFLICT) or Over(ROUND_OVER) */
    FL_OFFER_OVER,    /* too old to be looked up: Over(FL_R_ROUND_OVER) */
    FL_OFFER_REFUSED, /* Refuse(e->code), with the text of e */
};

/* Everything an offer claims, before a byte of it is taken. `terms` NULL: no job has that
 * incarnation
 * (-FL_R_NO_JOB). Refusals: -FL_R_NO_ROUND (of the future or not open), -FL_R_MSG_FIELD (no such
 * exchange, zero digest), -FL_R_UPDATE_SHAPE (made for another plan or from another base),
 * -FL_R_UPDATE_LENGTH, -FL_R_UPDATE_RANGE (weight 0 or above the plan's). Membership, a second
 * digest and the close are the round's to judge. */
enum fl_offer_verdict fl_peer_offer(const struct fl_offer_terms *terms,
                                    const struct fl_offer *offer, struct fl_err *e);

#endif
