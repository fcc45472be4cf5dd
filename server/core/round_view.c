/* Looking into a round: for `round explain`, `status` and tests. Nothing here changes anything. */
#include "server/core/round_state.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *fl_round_phase_name(enum fl_round_phase phase)
{
    static const char *const names[] = {
        [FL_ROUND_FILL] = "fill",       [FL_ROUND_OPENING] = "opening",
        [FL_ROUND_COLLECT] = "collect", [FL_ROUND_DRAIN] = "drain",
        [FL_ROUND_CLOSING] = "closing", [FL_ROUND_FOLD] = "fold",
        [FL_ROUND_FINISH] = "finish",   [FL_ROUND_PUBLISH] = "publish",
        [FL_ROUND_STOPPED] = "stopped",
    };
    return names[phase];
}

const char *fl_member_state_name(enum fl_member_state state)
{
    static const char *const names[] = {
        [FL_MEMBER_ENLISTING] = "enlisting", [FL_MEMBER_ENLISTED] = "enlisted",
        [FL_MEMBER_INVITED] = "invited",     [FL_MEMBER_DECLINED] = "declined",
        [FL_MEMBER_ACCEPTED] = "accepted",   [FL_MEMBER_RECEIVING] = "uploading",
        [FL_MEMBER_SEALED] = "received",     [FL_MEMBER_RECORDING] = "recording",
        [FL_MEMBER_COMMITTED] = "committed", [FL_MEMBER_FAILED] = "failed",
    };
    return names[state];
}

uint64_t fl_round_current(const struct fl_round *r, bool *ret_open)
{
    *ret_open = r->open;
    return fl_round_number(r);
}

/* Appends, as snprintf would; what does not fit is cut. */
static void add(char *text, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add(char *text, size_t size, const char *fmt, ...)
{
    size_t used = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text + used, size - used, fmt, ap);
    va_end(ap);
}

static uint64_t seconds_left(const struct fl_round *r)
{
    return r->deadline_ms > r->now_ms ? (r->deadline_ms - r->now_ms + 999) / 1000 : 0;
}

static void why_collecting(const struct fl_round *r, struct fl_round_view *v)
{
    uint32_t closing = v->attempt > 1 ? v->quorum : v->members;
    char *t = v->unblock;

    add(t, sizeof v->unblock, "%u of %u updates are committed; ", v->committed, closing);
    if (v->paused) {
        add(t, sizeof v->unblock, "it goes on when the job is resumed");
        return;
    }
    add(t, sizeof v->unblock, "it closes with %u more", closing - v->committed);
    if (v->committed >= v->quorum) {
        add(t, sizeof v->unblock, ", or in %" PRIu64 " s, as the quorum of %u is there",
            seconds_left(r), v->quorum);
        return;
    }
    if (closing > v->quorum) {
        add(t, sizeof v->unblock, ", or in %" PRIu64 " s if there are %u", seconds_left(r),
            v->quorum);
    } else {
        add(t, sizeof v->unblock, " within %" PRIu64 " s", seconds_left(r));
    }
    uint32_t hope = v->committed + v->sealed + v->receiving + v->accepted + v->invited;
    if (hope + v->candidates < v->quorum) {
        add(t, sizeof v->unblock, "; only %u agents work on it, %u more must ask for work", hope,
            v->quorum - hope - v->candidates);
    } else if (v->attempt < v->attempts) {
        add(t, sizeof v->unblock, "; else it tries again (attempt %u of %u)", v->attempt,
            v->attempts);
    } else {
        add(t, sizeof v->unblock, "; else the job pauses");
    }
}

static void why(const struct fl_round *r, struct fl_round_view *v)
{
    const struct fl_exchange *x = fl_round_at(r);
    char *t = v->unblock;
    size_t size = sizeof v->unblock;

    if (v->paused && r->phase != FL_ROUND_COLLECT) {
        add(t, size, "the job is paused (%s); resume it",
            v->reason ? fl_reason_text(-v->reason) : "by a person");
        return;
    }
    switch (r->phase) {
    case FL_ROUND_FILL:
        add(t, size, "%u of %u agents ask for work; it begins with %u", v->candidates, v->wanted,
            v->wanted);
        if (v->quorum < v->wanted) {
            uint64_t filled = r->fill_since_ms + fl_round_rules_at(r)->fill_ms;
            add(t, size, ", or with %u in %" PRIu64 " s", v->quorum,
                filled > r->now_ms ? (filled - r->now_ms + 999) / 1000 : 0);
        }
        break;
    case FL_ROUND_OPENING:
        add(t, size, "its plan is being recorded");
        break;
    case FL_ROUND_COLLECT:
        why_collecting(r, v);
        break;
    case FL_ROUND_DRAIN:
        add(t, size, "%u records are being written", x->recording);
        break;
    case FL_ROUND_CLOSING:
        add(t, size, "the list of its %u members is being recorded", x->list_count);
        break;
    case FL_ROUND_FOLD:
        add(t, size, "%u of %u updates are summed", x->folded, x->list_count);
        break;
    case FL_ROUND_FINISH:
        add(t, size, "the next model is being computed");
        break;
    case FL_ROUND_PUBLISH:
        add(t, size, "the next model is being published");
        break;
    case FL_ROUND_STOPPED:
        add(t, size, v->reason ? "nothing: the job was cancelled" : "nothing: the job is done");
        break;
    }
}

static void count(struct fl_round_view *v, const struct fl_member *m)
{
    switch ((enum fl_member_state)m->state) {
    case FL_MEMBER_ENLISTING:
    case FL_MEMBER_ENLISTED:
        v->enlisted++;
        break;
    case FL_MEMBER_INVITED:
        v->invited++;
        break;
    case FL_MEMBER_DECLINED:
        v->declined++;
        break;
    case FL_MEMBER_ACCEPTED:
        v->accepted++;
        v->away += !m->connected;
        break;
    case FL_MEMBER_RECEIVING:
        v->receiving++;
        break;
    case FL_MEMBER_SEALED:
    case FL_MEMBER_RECORDING:
        v->sealed++;
        break;
    case FL_MEMBER_COMMITTED:
        v->committed++;
        break;
    case FL_MEMBER_FAILED:
        v->failed++;
        break;
    }
}

void fl_round_view(const struct fl_round *r, struct fl_round_view *ret)
{
    const struct fl_exchange_rules *rules = fl_round_rules_at(r);
    const struct fl_exchange *x = fl_round_at(r);

    *ret = (struct fl_round_view){
        .phase = r->phase,
        .round = fl_round_number(r),
        .published = r->published,
        .rounds = r->frame->rules.rounds,
        .exchange = r->exchange,
        .exchange_count = r->frame->rules.exchange_count,
        .name = rules->name,
        .give_up = rules->give_up,
        .open = r->open,
        .paused = r->paused,
        .draining = r->draining,
        .reason = r->reason,
        .attempt = r->attempt,
        .attempts = r->frame->rules.attempts,
        .members = x->goal,
        .quorum = rules->quorum,
        .wanted = fl_round_wanted(r),
        .closes_ms = r->phase == FL_ROUND_COLLECT && !r->paused ? r->deadline_ms : FL_ROUND_NEVER,
    };
    for (uint32_t i = 0; i < x->members.count; i++) {
        count(ret, &x->members.at[i]);
    }
    for (uint32_t i = 0; i < r->candidates.count; i++) {
        ret->candidates += fl_round_eligible(r, r->candidates.id[i]);
    }
    why(r, ret);
}

static void view_member(const struct fl_member *m, struct fl_member_view *ret)
{
    *ret = (struct fl_member_view){
        .agent = m->agent,
        .base = m->base,
        .state = (enum fl_member_state)m->state,
        .reason = m->reason,
        .connected = m->connected,
        .late = m->late,
        .folded = m->folded,
        .weight = m->weight,
        .size = m->size,
        .since_ms = m->since_ms,
        .digest = m->digest,
    };
}

static void say_member(const struct fl_round *r, const struct fl_member *m, char *t, size_t size)
{
    uint64_t s = (r->now_ms - m->since_ms) / 1000;
    const char *reason = m->reason ? fl_reason_text(-m->reason) : "";

    t[0] = 0;
    switch ((enum fl_member_state)m->state) {
    case FL_MEMBER_ENLISTING:
        add(t, size, "is being recorded as a member");
        break;
    case FL_MEMBER_ENLISTED:
        add(t, size, "is a member, but %s",
            m->connected ? "does not ask for work" : "not connected");
        break;
    case FL_MEMBER_INVITED:
        add(t, size, "was invited %" PRIu64 " s ago and has not answered", s);
        break;
    case FL_MEMBER_DECLINED:
        add(t, size, "declined %" PRIu64 " s ago: %s", s, reason);
        break;
    case FL_MEMBER_ACCEPTED:
        add(t, size, "accepted %" PRIu64 " s ago; %s", s,
            m->connected ? "is at work" : "not connected, its slot is kept");
        if (m->reason) {
            add(t, size, "; its last offer was refused: %s", reason);
        }
        break;
    case FL_MEMBER_RECEIVING:
        add(t, size, "is uploading %" PRIu64 " bytes since %" PRIu64 " s", m->size, s);
        break;
    case FL_MEMBER_SEALED:
        add(t, size, "has uploaded; not recorded yet");
        break;
    case FL_MEMBER_RECORDING:
        add(t, size, "has uploaded; being recorded");
        break;
    case FL_MEMBER_COMMITTED:
        add(t, size, "is committed%s", m->folded ? " and summed" : "");
        break;
    case FL_MEMBER_FAILED:
        add(t, size, "is out: %s", reason);
        break;
    }
    if (m->late) {
        add(t, size, " (missed a deadline; replaced when others ask for work)");
    }
}

uint32_t fl_round_explain(const struct fl_round *r, uint64_t agent,
                          void (*each)(void *arg, const struct fl_member_view *m, const char *text),
                          void *arg)
{
    const struct fl_members *m = &fl_round_at(r)->members;
    uint32_t n = 0;
    char text[256];

    for (uint32_t i = 0; i < m->count; i++) {
        if (agent == 0 || m->at[i].agent == agent) {
            struct fl_member_view v;
            view_member(&m->at[i], &v);
            say_member(r, &m->at[i], text, sizeof text);
            if (v.base != fl_round_number(r)) {
                add(text, sizeof text, " (its task is of round %llu)", (unsigned long long)v.base);
            }
            each(arg, &v, text);
            n++;
        }
    }
    return n;
}

bool fl_round_member(const struct fl_round *r, uint32_t exchange, uint64_t agent,
                     struct fl_member_view *ret)
{
    const struct fl_member *m;

    if (exchange >= r->frame->rules.exchange_count) {
        return false;
    }
    m = fl_members_find(&r->frame->at[exchange].members, agent);
    if (m) {
        view_member(m, ret);
    }
    return m != NULL;
}
