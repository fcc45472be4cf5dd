/* Between agent.c (link, clock, rules) and agent_work.c (one task from Ask to Mark). Nobody else.
 */
#ifndef CLIENT_CORE_AGENT_IN_H
#define CLIENT_CORE_AGENT_IN_H

#include "client/core/agent.h"

struct fl_agent_item *fl_agent_add(struct fl_agent_todo *t, enum fl_agent_do type, int reason);
/* Begins the operation of a state. */
void fl_agent_begin(struct fl_agent *a, struct fl_agent_todo *t, enum fl_agent_state op);
/* from * 2^times, at most `most`. */
uint64_t fl_agent_doubled(uint64_t from, uint32_t times, uint64_t most);
/* Uniform below min * 2^n, at most max (full jitter). */
uint64_t fl_agent_backoff(struct fl_agent *a, uint32_t n);
/* now + wait, saturating. */
uint64_t fl_agent_after(const struct fl_agent *a, uint64_t wait);
void fl_agent_close_link(struct fl_agent *a, struct fl_agent_todo *t, int reason);

/* No work any more; the next Ask not before ask_at. */
void fl_agent_rest(struct fl_agent *a, struct fl_agent_todo *t, int why, uint64_t ask_at);
/* The work in flight ends when its operation does; `tell`: decline it now. */
void fl_agent_doom(struct fl_agent *a, struct fl_agent_todo *t, int reason, bool tell);
/* What happens to the work: messages about it, operations that ended, withdrawal. */
void fl_agent_work(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t);

static inline bool fl_agent_is_fetch(enum fl_agent_state s)
{
    return s == FL_AGENT_STATE_FETCH_PLAN || s == FL_AGENT_STATE_FETCH_BASE ||
           s == FL_AGENT_STATE_FETCH_INPUT;
}

/* There is a task, and no debit for it is under way. */
static inline bool fl_agent_before_debit(const struct fl_agent *a)
{
    return a->state >= FL_AGENT_STATE_LOOK && a->state <= FL_AGENT_STATE_HOLD;
}

static inline bool fl_agent_uploading(const struct fl_agent *a)
{
    return a->state == FL_AGENT_STATE_DELIVER && a->deliver == FL_AGENT_DELIVER_UPLOADING;
}

#endif
