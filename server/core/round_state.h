/*
 * Inside the round: shared by round.c (what follows), round_event.c (what happened) and
 * round_view.c (looking in). Nobody else includes this.
 */
#ifndef SERVER_CORE_ROUND_STATE_H
#define SERVER_CORE_ROUND_STATE_H

#include "server/core/candidates.h"
#include "server/core/members.h"
#include "server/core/round.h"

/* Items about the round as a whole that are still to be said. */
enum fl_round_want {
    FL_ROUND_WANT_RETRY = 1 << 0,
    FL_ROUND_WANT_OPEN = 1 << 1,
    FL_ROUND_WANT_CLOSE = 1 << 2,
    FL_ROUND_WANT_FINISH = 1 << 3,
    FL_ROUND_WANT_PUBLISH = 1 << 4,
    FL_ROUND_WANT_PAUSED = 1 << 5,
    FL_ROUND_WANT_DONE = 1 << 6,
    FL_ROUND_WANT_REFOLD = 1 << 7,
};

struct fl_exchange {
    struct fl_members members;
    uint32_t goal;  /* contributions that close it; the most that are ever recorded */
    uint32_t drawn; /* members enlisted so far: numbers the next draw */
    uint32_t committed, recording, folding, folded;
    bool closed;    /* durably */
    bool spoilt;    /* a fold failed: the sums are to be made again */
    uint64_t *list; /* closed members, ascending; room for the rules' members */
    uint32_t list_count;
};

/* What belongs to one set of rules. */
struct fl_frame {
    struct fl_round_rules rules;
    struct fl_exchange at[FL_ROUND_EXCHANGES_MAX];
};

struct fl_round {
    uint8_t incarnation[FL_INCARNATION_SIZE];
    uint64_t published;
    uint64_t now_ms;
    struct fl_frame *frame;
    struct fl_frame *next; /* rules for the rounds to come, when they differ */

    enum fl_round_phase phase;
    uint32_t exchange;
    uint32_t attempt;
    uint32_t
        term;     /* counts attempts and resumptions: who declined may be asked again in the next */
    int given_up; /* -reason: this round publishes what it began with */
    uint32_t barren; /* rounds given up in a row */
    bool open;
    bool asked; /* the phase's item was said and is not answered */
    bool paused, draining;
    int reason;
    uint64_t fill_since_ms, deadline_ms;
    bool draw_due;   /* a slot or a candidate may have become free */
    bool rescan_due; /* members that wait to be asked are to be looked for */
    bool record_due; /* uploads may wait to be recorded */
    struct fl_candidates candidates;
    struct fl_digest checkpoint;
    struct fl_member *carry; /* room for those at work while one round becomes the next */
    uint32_t carry_room;

    unsigned want;
    bool has_direct; /* an answer to an agent that is no member: one for an event at most */
    struct fl_round_item direct;
};

static inline struct fl_exchange *fl_round_at(const struct fl_round *r)
{
    return &r->frame->at[r->exchange];
}

static inline const struct fl_exchange_rules *fl_round_rules_at(const struct fl_round *r)
{
    return &r->frame->rules.exchange[r->exchange];
}

static inline uint64_t fl_round_number(const struct fl_round *r)
{
    return r->published + 1;
}

/* Its exchange still takes contributions. */
static inline bool fl_round_takes(const struct fl_round *r, uint32_t exchange)
{
    return r->open && exchange == r->exchange && !r->frame->at[exchange].closed &&
           r->phase != FL_ROUND_STOPPED && !r->given_up;
}

/* The round of the task that an event is about. */
static inline uint64_t fl_round_base(const struct fl_round_event *ev)
{
    return ev->base ? ev->base : ev->round;
}

static inline void fl_round_set_state(const struct fl_round *r, struct fl_member *m,
                                      enum fl_member_state state)
{
    if (m->state != state) {
        m->state = (uint8_t)state;
        m->since_ms = r->now_ms;
    }
}

/* round.c */
void fl_frame_clear(struct fl_frame *f);
void fl_round_take_rules(struct fl_round *r); /* the next ones become the current ones */

/* round_phase.c */
void fl_round_advance(struct fl_round *r);
void fl_round_pause(struct fl_round *r, int reason);
void fl_round_stop(struct fl_round *r, int reason);
void fl_round_next(struct fl_round *r); /* this one is published */
/* What was collected is left where it is; the next thing to be published changes nothing. */
void fl_round_give_up(struct fl_round *r, int reason);
void fl_round_begin_exchange(struct fl_round *r, uint32_t exchange);
void fl_round_list(struct fl_exchange *x);
void fl_round_closed(struct fl_round *r, struct fl_exchange *x);
void fl_round_invite(struct fl_round *r, struct fl_exchange *x, struct fl_member *m);
void fl_round_record(struct fl_round *r, struct fl_exchange *x, struct fl_member *m);
void fl_round_drop(struct fl_exchange *x, struct fl_member *m, int reason);
bool fl_round_awaits(const struct fl_round *r, const struct fl_member *m);
/* Members of earlier rounds, to be recorded as such of this one. */
void fl_round_enlist_carried(struct fl_round *r);
/* It is at work, and what it makes may count in the next round. */
bool fl_round_carries(const struct fl_round *r, const struct fl_member *m);
/* Whether this agent may be drawn for the current exchange; how many are wanted in it. */
bool fl_round_eligible(const struct fl_round *r, uint64_t agent);
uint32_t fl_round_wanted(const struct fl_round *r);

/* round_item.c */
/* What is wanted of `agent`, who the event was about, comes first: usually that is all there is. */
void fl_round_emit(struct fl_round *r, uint64_t agent, struct fl_round_todo *todo);

/* round_event.c: takes the event in; what follows from it is decided afterwards. */
int fl_round_absorb(struct fl_round *r, const struct fl_round_event *ev);

#endif
