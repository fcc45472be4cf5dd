/*
 * The members of one exchange: a table of fixed capacity, found by agent id. Only the round uses
 * it.
 */
#ifndef SERVER_CORE_MEMBERS_H
#define SERVER_CORE_MEMBERS_H

#include "server/core/round.h"

/* What is still to be said about a member. The round sets these; they become items as room allows.
 */
enum fl_member_want {
    FL_MEMBER_WANT_ENLIST = 1 << 0,
    FL_MEMBER_WANT_INVITE = 1 << 1,
    FL_MEMBER_WANT_RECEIVE = 1 << 2,
    FL_MEMBER_WANT_RECORD = 1 << 3,
    FL_MEMBER_WANT_ACK = 1 << 4,
    FL_MEMBER_WANT_FOLD = 1 << 5,
    FL_MEMBER_WANT_REFUSE = 1 << 6, /* with tell */
    FL_MEMBER_WANT_DROP = 1 << 7,   /* with tell */
};

struct fl_member {
    uint64_t agent;
    uint64_t base; /* the round of its task: this one, or one before */
    uint64_t since_ms;
    uint64_t size;
    struct fl_digest digest; /* of the first offer; a second one is never taken */
    uint32_t weight;
    int reason;    /* of its last decline, failure or refusal */
    int tell;      /* reason of a wanted REFUSE or DROP */
    uint32_t term; /* in which it was last drawn or invited */
    uint16_t want;
    uint8_t state; /* enum fl_member_state */
    bool durable;  /* its membership is recorded */
    bool connected;
    bool tasked; /* was sent the task over the present connection, and not told that it is over */
    bool worked; /* has accepted or offered: it may have the update in its outbox */
    bool offered;
    bool late;
    bool folding; /* FOLD asked, not answered */
    bool folded;
};

struct fl_members {
    struct fl_member *at;
    uint32_t count, capacity;
    uint32_t *index; /* open addressing: 0 = empty, else place + 1 */
    uint32_t index_size;
    uint32_t wanting; /* members with want != 0 */
};

int fl_members_init(struct fl_members *m, uint32_t capacity, struct fl_err *e);
void fl_members_fini(struct fl_members *m);
void fl_members_clear(struct fl_members *m);

struct fl_member *fl_members_find(const struct fl_members *m, uint64_t agent);
/* A new member with this agent id (which is not there yet). When the table is full, the place of
 * one who cannot hold an update is taken: declined or never accepted, then failed, then late and
 * away; when it `must` be, then anybody away without a committed update. NULL when there is no such
 * one. */
struct fl_member *fl_members_add(struct fl_members *m, uint64_t agent, bool must);

void fl_members_want(struct fl_members *m, struct fl_member *one, unsigned want);
void fl_members_unwant(struct fl_members *m, struct fl_member *one, unsigned want);

#endif
