/* The phases: who is drawn, what is awaited, what comes next. The essay is in round.c. */
#include "server/core/round_state.h"

#include <stdlib.h>
#include <string.h>

/* ---- members ---- */

static bool counts(const struct fl_exchange_rules *rules, const struct fl_member *m)
{
    switch ((enum fl_member_state)m->state) {
    case FL_MEMBER_DECLINED:
    case FL_MEMBER_FAILED:
        return false;
    case FL_MEMBER_ENLISTED:
        return rules->same_cohort && !m->late;
    case FL_MEMBER_COMMITTED:
    case FL_MEMBER_RECORDING:
    case FL_MEMBER_SEALED:
        return true;
    default:
        return !m->late;
    }
}

bool fl_round_eligible(const struct fl_round *r, uint64_t agent)
{
    const struct fl_member *m = fl_members_find(&fl_round_at(r)->members, agent);

    if (fl_round_rules_at(r)->same_cohort) {
        return false;
    }
    return !m || m->state == FL_MEMBER_ENLISTED ||
           (m->state == FL_MEMBER_DECLINED && m->term != r->term);
}

/* A member that gets its task as soon as it asks, without being drawn. */
bool fl_round_awaits(const struct fl_round *r, const struct fl_member *m)
{
    bool again = m->state == FL_MEMBER_DECLINED && m->term != r->term;

    if (m->state == FL_MEMBER_INVITED || m->state == FL_MEMBER_ACCEPTED) {
        return true;
    }
    return fl_round_rules_at(r)->same_cohort && m->durable &&
           (m->state == FL_MEMBER_ENLISTED || again);
}

void fl_round_invite(struct fl_round *r, struct fl_exchange *x, struct fl_member *m)
{
    if (m->base != fl_round_number(r)) { /* it has nothing of that task: one of this round, then */
        m->base = fl_round_number(r);
        m->durable = m->worked = m->offered = m->late = false;
        fl_round_set_state(r, m, FL_MEMBER_ENLISTING);
        fl_members_want(&x->members, m, FL_MEMBER_WANT_ENLIST);
        return;
    }
    fl_candidates_remove(&r->candidates, m->agent);
    fl_round_set_state(r, m, m->worked ? FL_MEMBER_ACCEPTED : FL_MEMBER_INVITED);
    m->connected = true;
    m->tasked = true;
    m->late = false;
    m->term = r->term;
    fl_members_want(&x->members, m, FL_MEMBER_WANT_INVITE);
}

void fl_round_drop(struct fl_exchange *x, struct fl_member *m, int reason)
{
    fl_members_unwant(&x->members, m, ~(unsigned)(FL_MEMBER_WANT_ACK | FL_MEMBER_WANT_FOLD));
    if (m->tasked && m->connected) {
        m->tell = reason;
        fl_members_want(&x->members, m, FL_MEMBER_WANT_DROP);
    }
    m->tasked = false;
}

/* ---- drawing ---- */

uint32_t fl_round_wanted(const struct fl_round *r)
{
    const struct fl_exchange_rules *rules = fl_round_rules_at(r);

    return (r->attempt > 1 ? rules->quorum : fl_round_at(r)->goal) + rules->over_select;
}

static uint32_t fill_pool(struct fl_round *r)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->candidates.count; i++) {
        if (fl_round_eligible(r, r->candidates.id[i])) {
            r->candidates.pool[n++] = r->candidates.id[i];
        }
    }
    return n;
}

static void enlist(struct fl_round *r, struct fl_exchange *x, uint64_t agent)
{
    struct fl_member *m = fl_members_find(&x->members, agent);

    if (!m) {
        m = fl_members_add(&x->members, agent, false);
    }
    if (!m) {
        return; /* everybody in the table may still bring something */
    }
    m->base = fl_round_number(r);
    m->term = r->term;
    m->late = false;
    x->drawn++;
    if (m->durable) {
        fl_round_invite(r, x, m);
        return;
    }
    m->since_ms = r->now_ms;
    fl_round_set_state(r, m, FL_MEMBER_ENLISTING);
    fl_members_want(&x->members, m, FL_MEMBER_WANT_ENLIST);
}

static void draw(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r);
    uint32_t counted = 0, wanted = fl_round_wanted(r);

    if (!r->draw_due || fl_round_rules_at(r)->same_cohort) {
        return;
    }
    r->draw_due = false;
    for (uint32_t i = 0; i < x->members.count; i++) {
        counted += counts(fl_round_rules_at(r), &x->members.at[i]);
    }
    if (counted >= wanted) {
        return;
    }
    uint32_t n = fill_pool(r);
    if (n == 0) {
        return;
    }
    struct fl_key key = {.round = fl_round_number(r), .exchange = r->exchange};
    struct fl_rng rng;
    memcpy(key.incarnation, r->incarnation, sizeof key.incarnation);
    fl_candidates_stream(&rng, r->frame->rules.job_seed, &key, x->drawn);
    n = fl_candidates_draw(&rng, r->candidates.pool, n, wanted - counted);
    fl_rng_fini(&rng);
    for (uint32_t i = 0; i < n; i++) {
        enlist(r, x, r->candidates.pool[i]);
    }
}

/* After a pause, a retry or a start: members that asked meanwhile, and uploads that wait. */
static void rescan(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r);
    bool same = fl_round_rules_at(r)->same_cohort;

    if (!r->rescan_due) {
        return;
    }
    r->rescan_due = false;
    for (uint32_t i = 0; i < x->members.count; i++) {
        struct fl_member *m = &x->members.at[i];
        if (fl_round_awaits(r, m) && !m->tasked && fl_candidates_has(&r->candidates, m->agent)) {
            fl_round_invite(r, x, m);
        } else if (m->state == FL_MEMBER_ENLISTED && same && !m->durable) {
            fl_round_set_state(r, m, FL_MEMBER_ENLISTING);
            fl_members_want(&x->members, m, FL_MEMBER_WANT_ENLIST);
        }
    }
}

/* At most `goal` are ever recorded: sums were sized for that many. The others wait, sealed. */
void fl_round_record(struct fl_round *r, struct fl_exchange *x, struct fl_member *m)
{
    if (m->state == FL_MEMBER_SEALED && m->durable && r->phase == FL_ROUND_COLLECT &&
        x->committed + x->recording < x->goal) {
        fl_round_set_state(r, m, FL_MEMBER_RECORDING);
        x->recording++;
        fl_members_want(&x->members, m, FL_MEMBER_WANT_RECORD);
    }
}

static void record_sealed(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r);

    if (!r->record_due) {
        return;
    }
    r->record_due = false;
    for (uint32_t i = 0; i < x->members.count && x->committed + x->recording < x->goal; i++) {
        fl_round_record(r, x, &x->members.at[i]);
    }
}

/* ---- phases ---- */

void fl_round_pause(struct fl_round *r, int reason)
{
    if (!r->paused || (reason != 0 && r->reason == 0)) {
        r->paused = true;
        r->reason = reason;
        r->want |= FL_ROUND_WANT_PAUSED;
    }
}

static bool enough_to_begin(const struct fl_round *r)
{
    const struct fl_exchange_rules *rules = fl_round_rules_at(r);
    uint32_t n = r->candidates.count; /* nobody is a member yet: all may be drawn */

    if (fl_round_at(r)->members.count > 0) {
        return true; /* remembered members: it had begun */
    }
    return n >= fl_round_wanted(r) ||
           (n >= rules->quorum && r->now_ms >= r->fill_since_ms + rules->fill_ms);
}

static void collect(struct fl_round *r)
{
    r->term++;
    r->phase = FL_ROUND_COLLECT;
    r->asked = false;
    r->deadline_ms = r->now_ms + fl_round_rules_at(r)->deadline_ms;
    r->draw_due = r->rescan_due = r->record_due = true;
}

/* The cohort of the exchange before, as members of this one. */
static void same_cohort(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r), *before = x - 1;

    if (before->list_count < x->goal) {
        x->goal = before->list_count;
    }
    for (uint32_t i = 0; i < before->list_count; i++) {
        const struct fl_member *was = fl_members_find(&before->members, before->list[i]);
        if (fl_members_find(&x->members, before->list[i])) {
            continue; /* remembered by the store */
        }
        struct fl_member *m = fl_members_add(&x->members, before->list[i], true);
        if (!m) {
            continue;
        }
        m->since_ms = r->now_ms;
        m->base = fl_round_number(r);
        m->term = r->term;
        m->connected = was && was->connected;
        x->drawn++;
        if (was && was->reason == -FL_R_AGENT_REVOKED) {
            m->state = FL_MEMBER_FAILED;
            m->reason = -FL_R_AGENT_REVOKED;
        } else {
            m->state = FL_MEMBER_ENLISTING;
            fl_members_want(&x->members, m, FL_MEMBER_WANT_ENLIST);
        }
    }
}

bool fl_round_carries(const struct fl_round *r, const struct fl_member *m)
{
    bool works = m->state == FL_MEMBER_ACCEPTED || m->state == FL_MEMBER_RECEIVING ||
                 m->state == FL_MEMBER_SEALED;

    return works && !r->given_up && fl_round_number(r) < r->frame->rules.rounds &&
           fl_round_number(r) + 1 - m->base <= r->frame->rules.staleness;
}

void fl_round_enlist_carried(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r);

    for (uint32_t i = 0; r->open && i < x->members.count; i++) {
        struct fl_member *m = &x->members.at[i];
        if (m->base != fl_round_number(r) && !m->durable) {
            fl_members_want(&x->members, m, FL_MEMBER_WANT_ENLIST);
        }
    }
}

/* Those who are at work go on, into the frame of the next round. */
static uint32_t carry_out(struct fl_round *r)
{
    const struct fl_members *from = &r->frame->at[0].members;
    uint32_t n = 0;

    for (uint32_t i = 0; i < from->count && n < r->carry_room; i++) {
        if (fl_round_carries(r, &from->at[i])) {
            r->carry[n++] = from->at[i];
        }
    }
    return n;
}

static void carry_in(struct fl_round *r, uint32_t count)
{
    struct fl_exchange *x = &r->frame->at[0];

    for (uint32_t i = 0; i < count; i++) {
        const struct fl_member *was = &r->carry[i];
        struct fl_member *m = fl_round_number(r) - was->base <= r->frame->rules.staleness
                                  ? fl_members_add(&x->members, was->agent, false)
                                  : NULL;
        if (m) {
            *m = *was;
            m->state = FL_MEMBER_ACCEPTED;
            m->want = 0;
            m->durable = false;
            m->term = r->term;
            x->drawn++;
        }
    }
}

void fl_round_begin_exchange(struct fl_round *r, uint32_t exchange)
{
    r->exchange = exchange;
    r->attempt = 1;
    r->asked = false;
    struct fl_exchange *x = fl_round_at(r);
    for (uint32_t i = 0; i < x->members.count; i++) {
        struct fl_member *m = &x->members.at[i];
        if (m->state == FL_MEMBER_COMMITTED && !m->folded && !m->folding) {
            fl_members_want(&x->members, m, FL_MEMBER_WANT_FOLD);
        }
    }
    if (x->closed) {
        r->phase = FL_ROUND_FOLD;
    } else if (fl_round_rules_at(r)->same_cohort) {
        same_cohort(r);
        collect(r);
    } else if (exchange == 0) {
        fl_round_enlist_carried(r);
        collect(r);
    } else {
        r->phase = FL_ROUND_FILL;
        r->fill_since_ms = r->now_ms;
    }
}

void fl_round_stop(struct fl_round *r, int reason)
{
    r->phase = FL_ROUND_STOPPED;
    r->reason = reason;
    r->paused = false;
    r->want = FL_ROUND_WANT_DONE;
}

static bool is_last_attempt(const struct fl_round *r)
{
    return r->attempt >= r->frame->rules.attempts;
}

/* The deadline passed below quorum. An upload that took less than the whole time is still hoped
 * for. */
static void retry(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r);
    uint64_t began = r->deadline_ms - fl_round_rules_at(r)->deadline_ms;

    for (uint32_t i = 0; i < x->members.count; i++) {
        struct fl_member *m = &x->members.at[i];
        bool hoped = m->state == FL_MEMBER_RECEIVING && m->since_ms > began;
        if (m->state != FL_MEMBER_COMMITTED && m->state != FL_MEMBER_SEALED && !hoped) {
            m->late = true;
        }
    }
    if (is_last_attempt(r) && fl_round_rules_at(r)->give_up) {
        fl_round_give_up(r, -FL_R_QUORUM);
        return;
    }
    if (is_last_attempt(r)) {
        r->phase = FL_ROUND_COLLECT;
        fl_round_pause(r, -FL_R_QUORUM);
        return;
    }
    r->attempt++;
    collect(r);
    r->want |= FL_ROUND_WANT_RETRY;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void fl_round_list(struct fl_exchange *x)
{
    x->list_count = 0;
    for (uint32_t i = 0; i < x->members.count; i++) {
        if (x->members.at[i].state == FL_MEMBER_COMMITTED) {
            x->list[x->list_count++] = x->members.at[i].agent;
        }
    }
    qsort(x->list, x->list_count, sizeof *x->list, by_id);
}

/* What it has sent so far was for this round: it offers it again in the next. */
static void put_off(struct fl_round *r, struct fl_exchange *x, struct fl_member *m)
{
    if (m->state == FL_MEMBER_ACCEPTED) {
        return;
    }
    fl_round_set_state(r, m, FL_MEMBER_ACCEPTED);
    fl_members_unwant(&x->members, m, FL_MEMBER_WANT_RECEIVE | FL_MEMBER_WANT_RECORD);
    if (m->connected) {
        m->tell = -FL_R_BUSY;
        fl_members_want(&x->members, m, FL_MEMBER_WANT_REFUSE);
    }
}

void fl_round_closed(struct fl_round *r, struct fl_exchange *x)
{
    x->closed = true;
    for (uint32_t i = 0; i < x->members.count; i++) {
        struct fl_member *m = &x->members.at[i];
        if (fl_round_carries(r, m)) {
            put_off(r, x, m);
        } else if (m->state != FL_MEMBER_COMMITTED) {
            fl_round_drop(x, m, -FL_R_ROUND_OVER);
        }
    }
    if (x == fl_round_at(r)) {
        r->phase = FL_ROUND_FOLD;
        r->asked = false;
    }
}

void fl_round_give_up(struct fl_round *r, int reason)
{
    struct fl_exchange *x = fl_round_at(r);

    for (uint32_t i = 0; i < x->members.count; i++) {
        if (x->members.at[i].state != FL_MEMBER_COMMITTED) {
            fl_round_drop(x, &x->members.at[i], -FL_R_ROUND_OVER);
        }
    }
    r->given_up = reason;
    r->phase = FL_ROUND_FINISH;
    r->asked = false;
}

void fl_round_next(struct fl_round *r)
{
    uint32_t carried = carry_out(r);

    r->barren = r->given_up ? r->barren + 1 : 0;
    r->given_up = 0;
    if (r->barren >= r->frame->rules.attempts) {
        r->barren = 0;
        fl_round_pause(r, -FL_R_QUORUM);
    }
    r->published++;
    fl_frame_clear(r->frame);
    fl_round_take_rules(r);
    carry_in(r, carried);
    r->open = false;
    r->exchange = 0;
    r->attempt = 1;
    r->phase = FL_ROUND_FILL;
    r->asked = false;
    r->fill_since_ms = r->now_ms;
    r->checkpoint = (struct fl_digest){{0}};
}

static void ask(struct fl_round *r, unsigned want)
{
    if (!r->asked) {
        r->asked = true;
        r->want |= want;
    }
}

/* Sums that a failed fold left half added are made again, once nothing touches them any more. */
static void refold(struct fl_round *r, struct fl_exchange *x)
{
    if (!x->spoilt || x->folding > 0) {
        return;
    }
    x->spoilt = false;
    x->folded = 0;
    r->want |= FL_ROUND_WANT_REFOLD;
    for (uint32_t i = 0; i < x->members.count; i++) {
        struct fl_member *m = &x->members.at[i];
        if (m->state == FL_MEMBER_COMMITTED) {
            m->folded = false;
            fl_members_want(&x->members, m, FL_MEMBER_WANT_FOLD);
        }
    }
}

/* Nobody is at work any more and nobody waits to be drawn: what is here is all that comes, unless
 * somebody new turns up, for whom collecting has waited as long as a round waits to fill. */
static bool nobody_is_out(const struct fl_round *r)
{
    const struct fl_exchange *x = &r->frame->at[r->exchange];
    const struct fl_exchange_rules *rules = fl_round_rules_at(r);

    if (x->committed < rules->quorum || x->recording > 0 ||
        (!rules->same_cohort && r->now_ms < r->deadline_ms - rules->deadline_ms + rules->fill_ms)) {
        return false;
    }
    for (uint32_t i = 0; i < x->members.count; i++) {
        const struct fl_member *m = &x->members.at[i];
        if (m->state != FL_MEMBER_COMMITTED && m->state != FL_MEMBER_DECLINED &&
            m->state != FL_MEMBER_FAILED && !(m->state == FL_MEMBER_ENLISTED && m->late)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < r->candidates.count; i++) {
        if (fl_round_eligible(r, r->candidates.id[i])) {
            return false;
        }
    }
    return true;
}

/* One phase; true when it moved on. */
static bool advance_once(struct fl_round *r)
{
    struct fl_exchange *x = fl_round_at(r);
    const struct fl_exchange_rules *rules = fl_round_rules_at(r);
    bool over = r->now_ms >= r->deadline_ms || (r->phase != FL_ROUND_FILL && nobody_is_out(r));

    switch (r->phase) {
    case FL_ROUND_FILL:
        if (!r->open && r->published >= r->frame->rules.rounds) {
            fl_round_stop(r, 0);
            return false;
        }
        if (!r->open && r->draining) {
            fl_round_pause(r, 0);
            return false;
        }
        if (!enough_to_begin(r)) {
            return false;
        }
        if (r->open) {
            collect(r);
        } else {
            r->phase = FL_ROUND_OPENING;
        }
        return true;
    case FL_ROUND_OPENING:
        ask(r, FL_ROUND_WANT_OPEN);
        return false;
    case FL_ROUND_COLLECT:
        record_sealed(r);
        rescan(r);
        draw(r);
        if (x->committed == x->goal || (r->attempt > 1 && x->committed >= rules->quorum) ||
            (over && x->committed + x->recording >= rules->quorum)) {
            r->phase = FL_ROUND_DRAIN;
            return true;
        }
        if (over && rules->give_up && is_last_attempt(r) && x->recording > 0) {
            return false; /* what the store writes is counted first */
        }
        if (over) {
            retry(r);
            return !r->paused;
        }
        return false;
    case FL_ROUND_DRAIN:
        if (x->recording > 0) {
            return false;
        }
        if (x->committed >= rules->quorum && (over || r->attempt > 1 || x->committed == x->goal)) {
            fl_round_list(x);
            r->phase = FL_ROUND_CLOSING;
        } else {
            r->phase = FL_ROUND_COLLECT;
            r->rescan_due = r->draw_due = r->record_due = true;
        }
        return true;
    case FL_ROUND_CLOSING:
        ask(r, FL_ROUND_WANT_CLOSE);
        return false;
    case FL_ROUND_FOLD:
        if (x->folded < x->list_count) {
            return false;
        }
        r->phase = FL_ROUND_FINISH;
        return true;
    case FL_ROUND_FINISH:
        ask(r, FL_ROUND_WANT_FINISH);
        return false;
    case FL_ROUND_PUBLISH:
        ask(r, FL_ROUND_WANT_PUBLISH);
        return false;
    case FL_ROUND_STOPPED:
        return false;
    }
    return false;
}

void fl_round_advance(struct fl_round *r)
{
    if (r->phase == FL_ROUND_COLLECT) {
        record_sealed(r); /* during a pause too: what is here is taken */
    }
    do {
        if (r->paused || r->phase == FL_ROUND_STOPPED) {
            return;
        }
        refold(r, fl_round_at(r));
    } while (advance_once(r));
}
