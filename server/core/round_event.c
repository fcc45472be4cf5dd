/*
 * Taking an event in: one function for each kind. They change facts and wishes, never the phase of
 * the happy path (that is for `advance` in round.c), except where an answer of the store is the
 * phase. What no state expects is stale or comes from a peer that errs: it is ignored, or answered
 * to that peer alone.
 */
#include "server/core/round_state.h"

#include <string.h>

/* ---- agents ---- */

/* An answer to somebody who is no member, or about another matter than the member's own state. */
static int answer(struct fl_round *r, const struct fl_round_event *ev, enum fl_round_do type,
                  int reason)
{
    r->direct = (struct fl_round_item){.type = type,
                                       .reason = reason,
                                       .round = fl_round_number(r),
                                       .base = fl_round_base(ev),
                                       .exchange = ev->exchange,
                                       .agent = ev->agent,
                                       .size = ev->size,
                                       .weight = ev->weight,
                                       .digest = ev->digest};
    r->has_direct = true;
    return 0;
}

static int available(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = fl_round_at(r);
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    fl_candidates_add(&r->candidates, ev->agent);
    r->draw_due = true;
    if (!m) {
        return 0;
    }
    m->connected = true;
    m->tasked = false; /* it is idle: a task that was sent before is lost */
    if (!fl_round_takes(r, r->exchange)) {
        return 0;
    }
    if (m->state == FL_MEMBER_RECEIVING) {
        fl_round_set_state(r, m, FL_MEMBER_ACCEPTED);
    }
    if (fl_round_awaits(r, m)) {
        if (r->phase == FL_ROUND_COLLECT && !r->paused) {
            fl_round_invite(r, x, m);
        } else {
            r->rescan_due = true;
        }
    }
    return 0;
}

static int left(struct fl_round *r, const struct fl_round_event *ev)
{
    fl_candidates_remove(&r->candidates, ev->agent);
    for (uint32_t i = 0; i < r->frame->rules.exchange_count; i++) {
        struct fl_exchange *x = &r->frame->at[i];
        struct fl_member *m = fl_members_find(&x->members, ev->agent);
        if (!m) {
            continue;
        }
        m->connected = false;
        m->tasked = false;
        fl_members_unwant(&x->members, m,
                          FL_MEMBER_WANT_INVITE | FL_MEMBER_WANT_RECEIVE | FL_MEMBER_WANT_ACK |
                              FL_MEMBER_WANT_REFUSE | FL_MEMBER_WANT_DROP);
        if (m->state == FL_MEMBER_INVITED) {
            fl_round_set_state(r, m, FL_MEMBER_ENLISTED);
        } else if (m->state == FL_MEMBER_RECEIVING) {
            fl_round_set_state(r, m, FL_MEMBER_ACCEPTED);
        }
    }
    r->draw_due = true;
    return 0;
}

/* What was committed before stays counted: an acknowledged update is never lost. */
static int revoked(struct fl_round *r, const struct fl_round_event *ev)
{
    fl_candidates_remove(&r->candidates, ev->agent);
    for (uint32_t i = 0; i < r->frame->rules.exchange_count; i++) {
        struct fl_exchange *x = &r->frame->at[i];
        struct fl_member *m = fl_members_find(&x->members, ev->agent);
        if (!m) {
            continue;
        }
        m->reason = -FL_R_AGENT_REVOKED;
        if (m->state == FL_MEMBER_COMMITTED || m->state == FL_MEMBER_RECORDING) {
            continue;
        }
        fl_round_drop(x, m, -FL_R_AGENT_REVOKED);
        fl_round_set_state(r, m, FL_MEMBER_FAILED);
    }
    r->draw_due = true;
    return 0;
}

static int accepted(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (!m || !fl_round_takes(r, ev->exchange)) {
        return 0;
    }
    if (m->state == FL_MEMBER_INVITED || m->state == FL_MEMBER_ACCEPTED) {
        fl_round_set_state(r, m, FL_MEMBER_ACCEPTED);
        m->worked = m->connected = m->tasked = true;
        m->late = false;
    }
    return 0;
}

static int declined(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (!m || !fl_round_takes(r, ev->exchange)) {
        return 0;
    }
    if (m->state == FL_MEMBER_INVITED || m->state == FL_MEMBER_ACCEPTED ||
        m->state == FL_MEMBER_RECEIVING) {
        fl_members_unwant(&x->members, m, FL_MEMBER_WANT_INVITE | FL_MEMBER_WANT_RECEIVE);
        fl_round_set_state(r, m, FL_MEMBER_DECLINED);
        m->reason = ev->status < 0 ? ev->status : -FL_R_DECLINED;
        m->tasked = false;
        r->draw_due = true;
    }
    return 0;
}

static int offered(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (!r->open) {
        return answer(r, ev, FL_ROUND_DO_REFUSE, -FL_R_NO_ROUND);
    }
    if (!m || m->base != fl_round_base(ev)) {
        bool over = x->closed || ev->exchange < r->exchange;
        return answer(r, ev, FL_ROUND_DO_DROP, over ? -FL_R_ROUND_OVER : -FL_R_NOT_MEMBER);
    }
    m->connected = true;
    bool other = m->offered && !fl_digest_equal(&m->digest, &ev->digest);
    if (m->state == FL_MEMBER_COMMITTED) {
        return other ? answer(r, ev, FL_ROUND_DO_REFUSE, -FL_R_UPDATE_CONFLICT)
                     : answer(r, ev, FL_ROUND_DO_ACK, 0);
    }
    if (m->state == FL_MEMBER_FAILED) {
        return answer(r, ev, FL_ROUND_DO_DROP, m->reason);
    }
    if (ev->exchange > r->exchange) { /* after a restart, before the sums are where they were */
        return answer(r, ev, FL_ROUND_DO_REFUSE, -FL_R_BUSY);
    }
    if (!fl_round_takes(r, ev->exchange)) {
        return fl_round_carries(r, m) ? answer(r, ev, FL_ROUND_DO_REFUSE, -FL_R_BUSY)
                                      : answer(r, ev, FL_ROUND_DO_DROP, -FL_R_ROUND_OVER);
    }
    if (other) {
        m->reason = -FL_R_UPDATE_CONFLICT;
        return answer(r, ev, FL_ROUND_DO_REFUSE, -FL_R_UPDATE_CONFLICT);
    }
    if (m->state == FL_MEMBER_ENLISTING) { /* never asked, as far as the store knows */
        return answer(r, ev, FL_ROUND_DO_REFUSE, -FL_R_BUSY);
    }
    m->tasked = true;
    if (m->state == FL_MEMBER_SEALED || m->state == FL_MEMBER_RECORDING) {
        return 0; /* acknowledged when it is committed */
    }
    m->digest = ev->digest;
    m->size = ev->size;
    m->weight = r->frame->rules.staleness > 0
                    ? r->frame->rules.stale_weight[fl_round_number(r) - m->base]
                    : ev->weight;
    m->offered = m->worked = true;
    m->late = false;
    m->since_ms = r->now_ms;
    fl_round_set_state(r, m, FL_MEMBER_RECEIVING);
    fl_members_unwant(&x->members, m, FL_MEMBER_WANT_INVITE);
    fl_members_want(&x->members, m, FL_MEMBER_WANT_RECEIVE);
    return 0;
}

/* Its bytes are worthless for good: the same bytes would come again. */
static void fail(struct fl_round *r, struct fl_exchange *x, struct fl_member *m, int reason)
{
    fl_round_set_state(r, m, FL_MEMBER_FAILED);
    m->reason = reason;
    fl_round_drop(x, m, reason);
    r->draw_due = true;
}

/* It may offer the same bytes again. */
static void refuse(struct fl_round *r, struct fl_exchange *x, struct fl_member *m, int reason)
{
    fl_round_set_state(r, m, FL_MEMBER_ACCEPTED);
    m->reason = reason;
    if (m->connected) {
        m->tell = reason;
        fl_members_want(&x->members, m, FL_MEMBER_WANT_REFUSE);
    }
}

static int spooled(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (!m || !fl_round_takes(r, ev->exchange) || !m->offered ||
        !fl_digest_equal(&m->digest, &ev->digest)) {
        return 0;
    }
    /* ACCEPTED: it left while the last bytes were being checked. */
    if (m->state != FL_MEMBER_RECEIVING && !(m->state == FL_MEMBER_ACCEPTED && ev->status == 0)) {
        return 0;
    }
    switch (-ev->status) {
    case 0:
        fl_round_set_state(r, m, FL_MEMBER_SEALED);
        m->late = false;
        m->reason = 0;
        fl_round_record(r, x, m);
        break;
    case FL_R_CANCELLED:
    case FL_R_PEER_CLOSED:
    case FL_R_PEER_REPLACED:
    case FL_R_PEER_SILENT:
        fl_round_set_state(r, m, FL_MEMBER_ACCEPTED);
        break;
    case FL_R_UPDATE_RANGE:
    case FL_R_UPDATE_LENGTH:
    case FL_R_UPDATE_SHAPE:
    case FL_R_UPDATE_CONFLICT:
    case FL_R_SECAGG_OBJECT:
    case FL_R_SECAGG_KEYS:
    case FL_R_SECAGG_SHARE:
    case FL_R_ROUND_OVER:
    case FL_R_NOT_ENROLLED:
        fail(r, x, m, ev->status);
        break;
    default:
        refuse(r, x, m, ev->status);
        break;
    }
    return 0;
}

/* ---- the store ---- */

static int opened(struct fl_round *r, const struct fl_round_event *ev)
{
    bool asked = r->phase == FL_ROUND_OPENING;

    if (r->open || (r->phase != FL_ROUND_FILL && !asked)) {
        return -FL_R_INTERNAL;
    }
    r->asked = false;
    if (ev->status != 0) {
        r->phase = FL_ROUND_FILL;
        fl_round_take_rules(r);
        fl_round_pause(r, ev->status);
        return 0;
    }
    r->open = true;
    fl_round_begin_exchange(r, 0);
    return 0;
}

static int enlisted(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (m && m->state == FL_MEMBER_ENLISTING) {
        fl_round_set_state(r, m, FL_MEMBER_ENLISTED);
        r->draw_due = true;
        if (ev->status != 0) {
            fl_round_pause(r, ev->status);
            return 0;
        }
        m->durable = true;
        if (r->phase == FL_ROUND_COLLECT && !r->paused && fl_round_takes(r, ev->exchange) &&
            fl_candidates_has(&r->candidates, ev->agent)) {
            fl_round_invite(r, x, m);
        }
        return 0;
    }
    if (m && !m->durable) { /* at work since an earlier round */
        m->durable = ev->status == 0;
        r->record_due = true;
        if (ev->status != 0) {
            fl_round_pause(r, ev->status);
        }
        return 0;
    }
    if (m || ev->status != 0) {
        return 0;
    }
    /* Remembered: it may have work in its outbox. */
    m = r->open && !x->closed ? fl_members_add(&x->members, ev->agent, false) : NULL;
    if (m) {
        m->state = FL_MEMBER_ACCEPTED;
        m->base = fl_round_base(ev);
        m->durable = m->worked = true;
        m->term = r->term;
        m->since_ms = r->now_ms;
        x->drawn++;
    }
    return 0;
}

static void count_committed(struct fl_round *r, struct fl_exchange *x, struct fl_member *m,
                            const struct fl_round_event *ev)
{
    fl_round_set_state(r, m, FL_MEMBER_COMMITTED);
    x->committed++;
    m->late = false;
    fl_members_want(&x->members, m, FL_MEMBER_WANT_ACK);
    if (ev->exchange == r->exchange) {
        fl_members_want(&x->members, m, FL_MEMBER_WANT_FOLD);
    }
    m->tasked = false;
}

/* What the store knew before this machine was made. */
static int remembered(struct fl_round *r, struct fl_exchange *x, struct fl_member *m,
                      const struct fl_round_event *ev)
{
    if (m && m->state == FL_MEMBER_COMMITTED) {
        return fl_digest_equal(&m->digest, &ev->digest) ? 0 : -FL_R_STORE_MISMATCH;
    }
    if (ev->status != 0) {
        return 0;
    }
    if (!r->open || x->closed || x->committed >= r->frame->rules.exchange[ev->exchange].members) {
        return -FL_R_STORE_MISMATCH;
    }
    if (!m) {
        m = fl_members_add(&x->members, ev->agent, true);
        if (!m) {
            return -FL_R_STORE_MISMATCH;
        }
        m->base = fl_round_base(ev);
        m->term = r->term;
        x->drawn++;
    }
    m->durable = m->worked = m->offered = true;
    m->digest = ev->digest;
    m->size = ev->size;
    m->weight = ev->weight;
    count_committed(r, x, m, ev);
    return 0;
}

static int committed(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (!m || m->state != FL_MEMBER_RECORDING) {
        return remembered(r, x, m, ev);
    }
    x->recording--;
    switch (-ev->status) {
    case 0:
        count_committed(r, x, m, ev);
        break;
    case FL_R_UPDATE_CONFLICT:
    case FL_R_ROUND_OVER:
    case FL_R_NOT_ENROLLED:
        fail(r, x, m, ev->status);
        r->record_due = true;
        break;
    case FL_R_STORE_MISMATCH: /* the sealed file is not what it was: send it again */
        refuse(r, x, m, ev->status);
        r->record_due = true;
        break;
    default: /* RESUME tries again */
        fl_round_set_state(r, m, FL_MEMBER_SEALED);
        fl_round_pause(r, ev->status);
        break;
    }
    return 0;
}

static int closed(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];

    if (r->phase == FL_ROUND_CLOSING && ev->exchange == r->exchange) {
        r->asked = false;
        if (ev->status != 0) {
            fl_round_pause(r, ev->status);
        } else {
            fl_round_closed(r, x);
        }
        return 0;
    }
    if (ev->status != 0 || x->closed) {
        return 0;
    }
    if (!r->open || x->committed < r->frame->rules.exchange[ev->exchange].quorum ||
        x->recording > 0 || ev->exchange < r->exchange) {
        return -FL_R_STORE_MISMATCH;
    }
    fl_round_list(x);
    fl_round_closed(r, x);
    return 0;
}

static int published(struct fl_round *r, const struct fl_round_event *ev)
{
    if (r->phase != FL_ROUND_PUBLISH) {
        return -FL_R_INTERNAL;
    }
    r->asked = false;
    if (ev->status != 0) {
        fl_round_pause(r, ev->status);
    } else {
        fl_round_next(r);
    }
    return 0;
}

/* ---- computation ---- */

static int folded(struct fl_round *r, const struct fl_round_event *ev)
{
    struct fl_exchange *x = &r->frame->at[ev->exchange];
    struct fl_member *m = fl_members_find(&x->members, ev->agent);

    if (!m || !m->folding) {
        return 0;
    }
    m->folding = false;
    x->folding--;
    if (ev->status != 0) {
        x->spoilt = true;
        fl_round_pause(r, ev->status);
    } else {
        m->folded = true;
        x->folded++;
    }
    return 0;
}

static int finished(struct fl_round *r, const struct fl_round_event *ev)
{
    if (r->phase != FL_ROUND_FINISH || ev->exchange != r->exchange) {
        return 0;
    }
    r->asked = false;
    if (ev->status != 0) {
        fl_round_pause(r, ev->status);
        return 0;
    }
    if (ev->given_up) {
        fl_round_give_up(r, r->given_up ? r->given_up : -FL_R_QUORUM);
    }
    if (!r->given_up && r->exchange + 1 < r->frame->rules.exchange_count) {
        fl_round_begin_exchange(r, r->exchange + 1);
    } else {
        r->checkpoint = ev->digest;
        r->phase = FL_ROUND_PUBLISH;
    }
    return 0;
}

/* ---- people ---- */

static int resume(struct fl_round *r)
{
    if (!r->paused) {
        r->draining = false; /* it was about to pause */
        return 0;
    }
    r->paused = r->draining = false;
    r->reason = 0;
    r->want &= ~(unsigned)FL_ROUND_WANT_PAUSED;
    r->attempt = 1;
    r->term++;
    if (r->phase == FL_ROUND_COLLECT || r->phase == FL_ROUND_DRAIN) {
        r->deadline_ms = r->now_ms + fl_round_rules_at(r)->deadline_ms;
    }
    r->draw_due = r->rescan_due = r->record_due = true;
    fl_round_enlist_carried(r);
    return 0;
}

/* ---- all ---- */

static bool about_a_round(enum fl_round_ev type)
{
    switch (type) {
    case FL_ROUND_EV_AVAILABLE:
    case FL_ROUND_EV_UNAVAILABLE:
    case FL_ROUND_EV_LEFT:
    case FL_ROUND_EV_REVOKED:
    case FL_ROUND_EV_TICK:
    case FL_ROUND_EV_PAUSE:
    case FL_ROUND_EV_RESUME:
    case FL_ROUND_EV_DRAIN:
    case FL_ROUND_EV_CANCEL:
        return false;
    default:
        return true;
    }
}

int fl_round_absorb(struct fl_round *r, const struct fl_round_event *ev)
{
    if (about_a_round(ev->type) &&
        (ev->round != fl_round_number(r) || ev->exchange >= r->frame->rules.exchange_count)) {
        return 0;
    }
    switch (ev->type) {
    case FL_ROUND_EV_AVAILABLE:
        return available(r, ev);
    case FL_ROUND_EV_UNAVAILABLE:
        fl_candidates_remove(&r->candidates, ev->agent);
        return 0;
    case FL_ROUND_EV_LEFT:
        return left(r, ev);
    case FL_ROUND_EV_REVOKED:
        return revoked(r, ev);
    case FL_ROUND_EV_ACCEPTED:
        return accepted(r, ev);
    case FL_ROUND_EV_DECLINED:
        return declined(r, ev);
    case FL_ROUND_EV_OFFERED:
        return offered(r, ev);
    case FL_ROUND_EV_SPOOLED:
        return spooled(r, ev);
    case FL_ROUND_EV_OPENED:
        return opened(r, ev);
    case FL_ROUND_EV_ENLISTED:
        return enlisted(r, ev);
    case FL_ROUND_EV_COMMITTED:
        return committed(r, ev);
    case FL_ROUND_EV_CLOSED:
        return closed(r, ev);
    case FL_ROUND_EV_PUBLISHED:
        return published(r, ev);
    case FL_ROUND_EV_FOLDED:
        return folded(r, ev);
    case FL_ROUND_EV_FINISHED:
        return finished(r, ev);
    case FL_ROUND_EV_TICK:
        return 0;
    case FL_ROUND_EV_PAUSE:
        fl_round_pause(r, 0);
        return 0;
    case FL_ROUND_EV_RESUME:
        return resume(r);
    case FL_ROUND_EV_DRAIN:
        r->draining = true;
        return 0;
    case FL_ROUND_EV_CANCEL:
        return 0; /* fl_round_step */
    }
    return -FL_R_INTERNAL;
}
