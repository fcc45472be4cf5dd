/*
 * The round: one job's current round as a pure state machine. It opens no file, reads no clock and
 * knows no connection: it is told what happened (fl_round_event) and answers what to do
 * (fl_round_todo). The shell performs the items and reports back as further events. A restart is
 * not a special case: the shell feeds what the store remembers as the same events (see "Restart").
 *
 *        enough members      quorum + deadline       closed, folded     last exchange
 *   FILL ---- OPENING ----> COLLECT ---> DRAIN ---> CLOSING ---> FOLD ---> FINISH ----> PUBLISH
 *    ^                       |    ^ too few, again                            | next exchange |
 *    |                       +----+ (the same round)      COLLECT or FILL <---+               |
 *    +---------------------------------- published -------------------------------------------+
 *
 * A round is a list of named exchanges; each collects one contribution from each of its members and
 * has its own quorum, deadline and durable close. The core knows exchanges, not methods.
 *
 * What the machine guarantees, whatever the order of events:
 *   - a Task goes out (INVITE) only to an agent whose membership is durable (ENLIST -> ENLISTED),
 * so that its work is still recognised after a crash;
 *   - ACK and FOLD exist only in answer to COMMITTED (or, for ACK, to an offer equal to what is
 *     committed);
 *   - at most `members` contributions are recorded, so that integer sums cannot overflow;
 *   - CLOSE waits for every record in flight; the members it names never change afterwards;
 *   - FINISH exists only after CLOSED and after every member was FOLDED; PUBLISH only after
 * FINISHED of the last exchange;
 *   - a round that misses its quorum is retried under the same number, plan and base and keeps what
 *     was committed, since no agent ever makes two different updates for one key;
 *   - with `staleness`, who is still at work when the round closes is a member of the next ones
 * too, by the task it has: its contribution counts in the round that is open when it offers it, for
 *     less, and in that one only;
 *   - one that cannot be retried (`give_up`: agents that are gone have taken their secrets with
 * them) is given up: what it publishes is the model it began with, and the next round begins.
 */
#ifndef SERVER_CORE_ROUND_H
#define SERVER_CORE_ROUND_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_ROUND_EXCHANGES_MAX = 8,
    FL_ROUND_NAME_MAX = 32,
    FL_ROUND_MEMBERS_MAX = 100000, /* members + over_select of one exchange */
    FL_ROUND_TODO_MAX = 32,
    FL_ROUND_STALE_MAX = 64, /* rounds that a contribution may be late by */
};

#define FL_ROUND_NEVER UINT64_MAX

/* ---- what is fixed for one round ---- */

struct fl_exchange_rules {
    char name[FL_ROUND_NAME_MAX]; /* "update" */
    uint32_t members;             /* this many contributions close the exchange at once */
    uint32_t quorum;              /* 1..members: at least this many at the deadline */
    uint32_t over_select;         /* invited beyond members */
    uint64_t deadline_ms;         /* of collecting, from its start */
    uint64_t fill_ms; /* wait this long for candidates before inviting fewer than wanted */
    bool same_cohort; /* the members are those closed in the exchange before (never in the first);
                         then quorum must be at most that one's */
    bool give_up;     /* its cohort cannot be completed from others, nor come again under this key:
                         below quorum after the last attempt the round is given up, not the job
                         paused (after so many rounds in a row it is, too) */
};

struct fl_round_rules {
    uint64_t rounds; /* the job is done when this many are published */
    uint64_t
        job_seed; /* cohorts are drawn by a stream of (job_seed, incarnation, round, exchange) */
    uint32_t attempts; /* deadlines missed below quorum until the job pauses, at least 1 */
    uint32_t exchange_count;
    struct fl_exchange_rules exchange[FL_ROUND_EXCHANGES_MAX];
    /* Who has a task of round b may contribute to rounds b to b + staleness. 0: to its own only;
     * else a round has one exchange, and one made for a round s before counts stale_weight[s]. */
    uint32_t staleness;
    uint32_t stale_weight[FL_ROUND_STALE_MAX + 1];
};

/* -FL_R_CONF_RANGE or -FL_R_CONF_CONFLICT, naming the exchange. */
int fl_round_rules_check(const struct fl_round_rules *rules, struct fl_err *e);

/* ---- events ---- */

enum fl_round_ev {
    /* Agents. `agent` is its id, never 0. AVAILABLE, UNAVAILABLE, LEFT and REVOKED are about the
     * agent and need no round; the others carry the key's round and exchange. */
    FL_ROUND_EV_AVAILABLE,   /* it asked for work, is idle and allows this job */
    FL_ROUND_EV_UNAVAILABLE, /* it no longer asks (another job took it); still connected */
    FL_ROUND_EV_LEFT,        /* its connection is gone */
    FL_ROUND_EV_REVOKED,
    FL_ROUND_EV_ACCEPTED,
    FL_ROUND_EV_DECLINED, /* status: -reason */
    FL_ROUND_EV_OFFERED,  /* digest, size, weight; fl_peer_offer found nothing wrong with them */
    FL_ROUND_EV_SPOOLED,  /* answer to RECEIVE. digest; status 0: complete, verified and durable */
    /* The store's answers to OPEN, ENLIST, RECORD, CLOSE, PUBLISH, or its memories at a restart. */
    FL_ROUND_EV_OPENED,
    FL_ROUND_EV_ENLISTED,  /* agent, exchange, status */
    FL_ROUND_EV_COMMITTED, /* agent, exchange, digest, size, weight, status */
    FL_ROUND_EV_CLOSED,    /* exchange, status */
    FL_ROUND_EV_PUBLISHED, /* status */
    /* Computation. */
    FL_ROUND_EV_FOLDED,   /* agent, exchange, status */
    FL_ROUND_EV_FINISHED, /* exchange, status, digest (of the checkpoint, for the last exchange) */
    /* Time and people. */
    FL_ROUND_EV_TICK, /* fl_round_deadline has come, or `more` was set */
    FL_ROUND_EV_PAUSE,
    FL_ROUND_EV_RESUME,
    FL_ROUND_EV_DRAIN,  /* finish this round, then pause */
    FL_ROUND_EV_CANCEL, /* the end of the job */
};

/* An event of another round than the current one is stale and ignored. */
struct fl_round_event {
    uint64_t now_ms; /* monotonic; never goes back between steps */
    enum fl_round_ev type;
    uint64_t round;
    uint64_t base; /* OFFERED, ENLISTED: the round of its task, at most `round`; 0 = `round` */
    uint32_t exchange;
    int status; /* 0 or -FL_R_... */
    uint64_t agent;
    uint64_t size;
    uint32_t weight;
    struct fl_digest digest;
    bool given_up; /* FINISHED, of any exchange: there is no way on; `digest` is a checkpoint that
                      changes nothing, and publishing it ends the round */
};

/* ---- what to do ---- */

enum fl_round_do {
    FL_ROUND_DO_OPEN,    /* freeze the plan and base of this round durably -> OPENED */
    FL_ROUND_DO_ENLIST,  /* record agent as member of exchange -> ENLISTED */
    FL_ROUND_DO_INVITE,  /* send it the Task; may repeat for an agent that came back */
    FL_ROUND_DO_RECEIVE, /* open the spool of (agent, digest, size), answer Resume -> SPOOLED */
    FL_ROUND_DO_RECORD,  /* commit (agent, digest, size, weight) -> COMMITTED */
    FL_ROUND_DO_ACK,     /* send Ack if it is connected */
    FL_ROUND_DO_FOLD,    /* add its update to its slot -> FOLDED */
    FL_ROUND_DO_REFOLD,  /* set the sums of this exchange back to zero; FOLDs follow */
    FL_ROUND_DO_CLOSE,   /* record members[0..count) (ascending) as closed -> CLOSED */
    FL_ROUND_DO_FINISH,  /* compute from the sums of this exchange -> FINISHED; with a reason: the
                            round is given up, go on with the model it began with */
    FL_ROUND_DO_PUBLISH, /* record the checkpoint `digest` as the new model -> PUBLISHED */
    FL_ROUND_DO_DROP,    /* send Over(reason); stop receiving from it. The agent is idle then */
    FL_ROUND_DO_REFUSE,  /* send Refuse(reason); stop receiving from it. It may offer again */
    FL_ROUND_DO_RETRY,   /* for the log: the deadline passed below quorum, attempt `count` begins */
    FL_ROUND_DO_PAUSED,  /* record the job as paused; reason 0 = by a person or drained */
    FL_ROUND_DO_DONE,    /* record the job as done (reason 0) or cancelled (-FL_R_CANCELLED); round:
                            the last published */
};

struct fl_round_item {
    enum fl_round_do type;
    int reason; /* 0 or -FL_R_... */
    uint64_t round;
    uint64_t base; /* about an agent: the round of its task, by which it knows it */
    uint32_t exchange;
    uint32_t weight;
    uint64_t agent;
    uint64_t size;
    struct fl_digest digest;
    const uint64_t
        *members; /* CLOSE: unchanged until PUBLISHED, a new fl_round_set_rules or free */
    uint32_t count;
};

struct fl_round_todo {
    uint32_t count;
    bool more; /* it did not all fit: step TICK when these are performed */
    struct fl_round_item item[FL_ROUND_TODO_MAX];
};

/* ---- the machine ---- */

struct fl_round;

struct fl_round_setup {
    uint8_t incarnation[FL_INCARNATION_SIZE];
    uint64_t published;      /* last published round; the current one is the next */
    uint32_t candidates_max; /* agents that may ask at one time; more are not drawn */
    bool paused;             /* the job's recorded state */
    bool draining;
    uint64_t now_ms; /* waiting for candidates begins */
    const struct fl_round_rules *rules;
};

/* -FL_R_NOMEM, or what fl_round_rules_check says. After it, step TICK once. A job that has all its
 * rounds must not be made. */
int fl_round_new(const struct fl_round_setup *setup, struct fl_round **ret, struct fl_err *e);
void fl_round_free(struct fl_round *r);

/* Rules for the rounds to come: taken at once while the current round is not open (FILL of the
 * first exchange), and otherwise kept for the next. Memory is reserved here, so that a step never
 * fails for it: on failure the old rules stay. Whoever freezes a plan at OPEN takes the text whose
 * rules were last given. Before a restart's events are fed, give the rules of the round's frozen
 * plan here (or in the setup), and those of the job's text after OPENED. */
int fl_round_set_rules(struct fl_round *r, const struct fl_round_rules *rules, struct fl_err *e);

/* One event; the list is emptied, then filled. Returns 0, or -FL_R_INTERNAL or -FL_R_STORE_MISMATCH
 * when the store remembers what this machine never does (a round opened out of order, more
 * committed than members): the job must not go on. */
int fl_round_step(struct fl_round *r, const struct fl_round_event *ev, struct fl_round_todo *todo);

/* The number of the current round, and whether it is open: its plan and base are frozen. */
uint64_t fl_round_current(const struct fl_round *r, bool *ret_open);

/* When a TICK is due, or FL_ROUND_NEVER. */
uint64_t fl_round_deadline(const struct fl_round *r);
/* When collecting ends at the latest, or FL_ROUND_NEVER: what members are told. */
uint64_t fl_round_closes(const struct fl_round *r);

/*
 * Restart. fl_round_new with the last published round; if the store has an open round, then:
 *     OPENED, for each exchange in order: ENLISTED for each member, COMMITTED for each committed
 *     update, CLOSED if it is closed; then TICK.
 * Every COMMITTED asks for a FOLD again (sums live in memory) and for an ACK that finds nobody.
 * Collecting gets its whole deadline again: agents were cut off too.
 */

/* ---- looking in ---- */

enum fl_round_phase {
    FL_ROUND_FILL,    /* waits for candidates */
    FL_ROUND_OPENING, /* the plan is being frozen */
    FL_ROUND_COLLECT,
    FL_ROUND_DRAIN,   /* enough; waits for records in flight */
    FL_ROUND_CLOSING, /* the list of members is being written */
    FL_ROUND_FOLD,    /* closed; waits for the sums */
    FL_ROUND_FINISH,
    FL_ROUND_PUBLISH,
    FL_ROUND_STOPPED, /* done or cancelled */
};
const char *fl_round_phase_name(enum fl_round_phase phase);

enum fl_member_state {
    FL_MEMBER_ENLISTING, /* its membership is being recorded */
    FL_MEMBER_ENLISTED,  /* a member that has not been asked yet, or left before it accepted */
    FL_MEMBER_INVITED,
    FL_MEMBER_DECLINED,
    FL_MEMBER_ACCEPTED,  /* works, or is away with its work */
    FL_MEMBER_RECEIVING, /* uploading */
    FL_MEMBER_SEALED,    /* all bytes are here, durable, not yet recorded */
    FL_MEMBER_RECORDING,
    FL_MEMBER_COMMITTED,
    FL_MEMBER_FAILED, /* revoked, or its update cannot be used; `reason` says why */
};
const char *fl_member_state_name(enum fl_member_state state);

struct fl_member_view {
    uint64_t agent;
    uint64_t base; /* the round of its task */
    enum fl_member_state state;
    int reason; /* of a decline or failure, or of the last refusal; 0 = none */
    bool connected;
    bool late; /* missed a deadline of this exchange and is no longer counted on */
    bool folded;
    uint32_t weight;
    uint64_t size;
    uint64_t since_ms; /* in this state */
    struct fl_digest digest;
};

struct fl_round_view {
    enum fl_round_phase phase;
    uint64_t round, published, rounds;
    uint32_t exchange, exchange_count;
    const char *name; /* of the exchange */
    bool give_up;     /* below quorum, it ends the round */
    bool open;        /* the plan is frozen */
    bool paused, draining;
    int reason; /* why it is paused */
    uint32_t attempt, attempts;
    uint32_t members, quorum, wanted; /* wanted = how many are to be at work or committed now */
    /* how many members of the exchange are in each state, and others */
    uint32_t enlisted, invited, declined, accepted, receiving, sealed, committed, failed;
    uint32_t away;       /* accepted, not connected */
    uint32_t candidates; /* ask now and may be drawn for this exchange */
    uint64_t closes_ms;  /* deadline, or FL_ROUND_NEVER */
    char unblock[256];   /* what it waits for, in a sentence */
};

void fl_round_view(const struct fl_round *r, struct fl_round_view *ret);

/* Calls `each` for every member of the current exchange (agent == 0), or for one (not at all when
 * it is no member). `text` says it in a sentence for people. Returns how many there were. */
uint32_t fl_round_explain(const struct fl_round *r, uint64_t agent,
                          void (*each)(void *arg, const struct fl_member_view *m, const char *text),
                          void *arg);

/* A member of an exchange of the current round. */
bool fl_round_member(const struct fl_round *r, uint32_t exchange, uint64_t agent,
                     struct fl_member_view *ret);

#endif
