/*
 * One task from the coordinator's word to the ledger's mark: what messages and ended operations do
 * to the work. See agent.h for the order of the states, agent.c for how work ends early.
 */
#include "client/core/agent_in.h"

#include <assert.h>
#include <string.h>

enum { BUSY_MS = 20 }; /* before an update is offered again to who was busy, at first */

/* An operation is in flight. */
static bool in_operation(const struct fl_agent *a)
{
    return a->state >= FL_AGENT_STATE_PENDING && a->state != FL_AGENT_STATE_DELIVER &&
           a->state != FL_AGENT_STATE_STOPPED;
}

/* ---- ends of work -------------------------------------------------------------------------------
 */

void fl_agent_rest(struct fl_agent *a, struct fl_agent_todo *t, int why, uint64_t ask_at)
{
    fl_agent_add(t, FL_AGENT_DO_DROP, why);
    a->state = FL_AGENT_STATE_REST;
    a->doom = 0;
    a->ask_at = ask_at;
}

static void decline(struct fl_agent *a, struct fl_agent_todo *t, const struct fl_key *key,
                    int reason)
{
    if (a->link == FL_AGENT_LINK_UP) {
        fl_agent_add(t, FL_AGENT_DO_DECLINE, reason)->key = *key;
    }
}

static void decline_task(struct fl_agent *a, struct fl_agent_todo *t, int reason)
{
    if (!a->task.final) {
        decline(a, t, &a->task.key, reason);
    }
}

/* The work in flight ends when its operation does. */
void fl_agent_doom(struct fl_agent *a, struct fl_agent_todo *t, int reason, bool tell)
{
    if (a->doom) {
        return;
    }
    a->doom = reason;
    if (fl_agent_is_fetch(a->state) || a->state == FL_AGENT_STATE_TRAIN ||
        a->state == FL_AGENT_STATE_HOLD || a->state == FL_AGENT_STATE_EVALUATE) {
        fl_agent_add(t, FL_AGENT_DO_CANCEL, reason);
    }
    if (tell) {
        decline_task(a, t, reason);
    }
}

static void settle(struct fl_agent *a, struct fl_agent_todo *t, int outcome)
{
    if (fl_agent_uploading(a)) {
        fl_agent_add(t, FL_AGENT_DO_STOP_UPLOAD, 0);
    }
    a->outcome = outcome;
    a->doom = 0;
    a->busy = 0;
    fl_agent_begin(a, t, FL_AGENT_STATE_MARK);
}

static void deliver(struct fl_agent *a)
{
    a->state = FL_AGENT_STATE_DELIVER;
    a->deliver = FL_AGENT_DELIVER_HOLD;
    a->offer_at = a->now_ms;
    a->damaged = 0;
    a->full = 0;
    a->declines = 0;
    a->doom = 0;
}

/* A task came to nothing here. Ask again later each time, so that a task that never can succeed
 * does not become a loop. */
static void give_up(struct fl_agent *a, struct fl_agent_todo *t, int reason, bool tell)
{
    if (tell) {
        decline_task(a, t, reason);
    }
    if (a->declines < 32) {
        a->declines++;
    }
    fl_agent_rest(a, t, reason, fl_agent_after(a, fl_agent_backoff(a, a->declines)));
}

static void final_dealt_with(struct fl_agent *a)
{
    a->seen[a->seen_next] = a->task;
    a->seen_next = (a->seen_next + 1) % FL_AGENT_FINALS_MAX;
}

/* ---- what the coordinator says ------------------------------------------------------------------
 */

static void on_task(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (a->state != FL_AGENT_STATE_ASK) {
        fl_agent_close_link(a, t, FL_R_MSG_ORDER);
        return;
    }
    a->failures = 0;
    a->rested = false;
    a->task = ev->task;
    a->task.final = false;
    a->until =
        ev->task.deadline_left_ms ? fl_agent_after(a, ev->task.deadline_left_ms) : UINT64_MAX;
    a->costs = false;
    if (a->task.plan_size == 0 || a->task.plan_size > FL_PLAN_TEXT_MAX ||
        a->task.base_size > a->conf.max_base || a->task.update_size > a->conf.max_base ||
        a->task.input_size > FL_EXCHANGE_BYTES_MAX) {
        give_up(a, t, FL_R_LIMIT, true);
        return;
    }
    fl_agent_begin(a, t, FL_AGENT_STATE_LOOK);
}

/* Refusals of an offer after which it is never worth offering again. */
static bool is_final_refusal(int reason)
{
    switch (reason) {
    case FL_R_NO_JOB:
    case FL_R_NO_ROUND:
    case FL_R_NOT_MEMBER:
    case FL_R_ROUND_OVER:
    case FL_R_UPDATE_LENGTH:
    case FL_R_UPDATE_RANGE:
    case FL_R_UPDATE_CONFLICT:
    case FL_R_UPDATE_SHAPE:
    case FL_R_QUORUM:
    case FL_R_JOB_STATE:
    case FL_R_DECLINED:
    case FL_R_DEADLINE:
    case FL_R_DROPPED:
    case FL_R_CANCELLED:
        return true;
    default:
        return false;
    }
}

/* There is no room for it over there, and that passes when somebody makes some, not by asking. */
static bool is_want_of_room(int reason)
{
    return reason == FL_R_DISK_FULL || reason == FL_R_QUOTA || reason == FL_R_NOMEM ||
           reason == FL_R_LIMIT;
}

static void hold(struct fl_agent *a, struct fl_agent_todo *t, uint64_t wait)
{
    if (fl_agent_uploading(a)) {
        fl_agent_add(t, FL_AGENT_DO_STOP_UPLOAD, 0);
    }
    a->deliver = FL_AGENT_DELIVER_HOLD;
    a->offer_at = fl_agent_after(a, wait);
}

/* A buffer that closes is open again in a moment, and an offer that comes late then counts less. */
static uint64_t busy_delay(struct fl_agent *a)
{
    uint64_t wait = fl_agent_doubled(BUSY_MS, a->busy, a->conf.backoff_min_ms);

    a->busy += a->busy < 32;
    return wait + fl_rng_below(&a->jitter, wait + 1);
}

static void on_over(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    int reason = ev->status ? -ev->status : FL_R_ROUND_OVER;

    if (a->state == FL_AGENT_STATE_DELIVER && fl_key_equal(&ev->key, &a->offer.key)) {
        settle(a, t, -reason);
    } else if ((fl_agent_before_debit(a) || a->state == FL_AGENT_STATE_DEBIT) && !a->task.final &&
               fl_key_equal(&ev->key, &a->task.key)) {
        fl_agent_doom(a, t, reason, false);
    }
}

static void on_refuse(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    int reason = ev->status ? -ev->status : FL_R_INTERNAL;

    if (a->state == FL_AGENT_STATE_DELIVER &&
        (!ev->has_key || fl_key_equal(&ev->key, &a->offer.key))) {
        if (a->deliver == FL_AGENT_DELIVER_HOLD) {
            return;
        }
        bool damaged = reason == FL_R_UPDATE_DIGEST && ++a->damaged >= FL_AGENT_DAMAGED_MAX;
        if (ev->has_key && (damaged || is_final_refusal(reason))) {
            decline(a, t, &a->offer.key, reason); /* the coordinator may still wait for it */
            settle(a, t, -reason);
        } else if (reason == FL_R_BUSY) {
            a->full = 0;
            hold(a, t, busy_delay(a));
        } else {
            a->full = !is_want_of_room(reason) ? 0 : a->full < 32 ? a->full + 1 : a->full;
            hold(a, t, a->conf.backoff_min_ms + fl_agent_backoff(a, 3 + a->full));
        }
    } else if (fl_agent_is_fetch(a->state) ||
               (fl_agent_before_debit(a) && ev->has_key && !a->task.final &&
                fl_key_equal(&ev->key, &a->task.key))) {
        fl_agent_doom(a, t, reason, true);
    }
}

static void on_resume(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (a->state != FL_AGENT_STATE_DELIVER || a->deliver == FL_AGENT_DELIVER_HOLD ||
        !fl_key_equal(&ev->key, &a->offer.key)) {
        return; /* about an offer that is settled meanwhile */
    }
    if (!fl_digest_equal(&ev->digest, &a->offer.digest) || ev->offset > a->offer.size) {
        fl_agent_close_link(a, t, FL_R_MSG_FIELD);
        return;
    }
    a->failures = 0;
    if (a->deliver == FL_AGENT_DELIVER_UPLOADING) {
        fl_agent_add(t, FL_AGENT_DO_STOP_UPLOAD, 0);
        a->upload_again = true; /* when the one that runs has ended */
        a->resume_from = ev->offset;
        return;
    }
    if (ev->offset == a->offer.size) {
        a->deliver = FL_AGENT_DELIVER_SENT;
        a->patience_at = fl_agent_after(a, a->conf.patience_ms);
        return;
    }
    a->deliver = FL_AGENT_DELIVER_UPLOADING;
    a->upload_again = false;
    fl_agent_add(t, FL_AGENT_DO_UPLOAD, 0)->offset = ev->offset;
}

static void on_sent(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (!fl_agent_uploading(a)) {
        return;
    }
    if (a->upload_again) {
        a->upload_again = false;
        fl_agent_add(t, FL_AGENT_DO_UPLOAD, 0)->offset = a->resume_from;
    } else if (ev->status) {
        a->deliver = FL_AGENT_DELIVER_HOLD;
        a->offer_at = fl_agent_after(a, a->conf.backoff_min_ms + fl_agent_backoff(a, 3));
    } else {
        a->deliver = FL_AGENT_DELIVER_SENT;
        a->patience_at = fl_agent_after(a, a->conf.patience_ms);
    }
}

static void on_ack(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (a->state != FL_AGENT_STATE_DELIVER || !fl_key_equal(&ev->key, &a->offer.key)) {
        return;
    }
    a->failures = 0;
    a->full = 0;
    settle(a, t, fl_digest_equal(&ev->digest, &a->offer.digest) ? 0 : -(int)FL_R_UPDATE_CONFLICT);
}

/* ---- operations that ended ----------------------------------------------------------------------
 */

static void fetch_or(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (!(a->have & FL_AGENT_HAVE_PLAN)) {
        fl_agent_begin(a, t, FL_AGENT_STATE_FETCH_PLAN);
    } else if (!a->task.final) {
        fl_agent_begin(a, t, FL_AGENT_STATE_JUDGE);
    } else if (!(a->have & FL_AGENT_HAVE_BASE)) {
        fl_agent_begin(a, t, FL_AGENT_STATE_FETCH_BASE);
    } else {
        fl_agent_begin(a, t, FL_AGENT_STATE_EVALUATE);
    }
}

static void accept_task(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (a->link == FL_AGENT_LINK_UP) {
        fl_agent_add(t, FL_AGENT_DO_ACCEPT, 0)->key = a->task.key;
    }
}

static void on_looked(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    a->have = ev->have;
    if (a->task.base_size == 0) {
        a->have |= FL_AGENT_HAVE_BASE; /* this exchange needs none */
    }
    if (a->task.input_size == 0) {
        a->have |= FL_AGENT_HAVE_INPUT;
    }
    if (a->task.final && (ev->have & FL_AGENT_HAVE_SETTLED)) {
        final_dealt_with(a);
        fl_agent_rest(a, t, 0, a->ask_at);
    } else if (ev->have & FL_AGENT_HAVE_RELEASE) {
        a->offer = ev->offer;
        accept_task(a, t);
        deliver(a);
    } else if (ev->have & FL_AGENT_HAVE_SETTLED) {
        give_up(a, t, FL_R_UPDATE_CONFLICT, true);
    } else if (a->link != FL_AGENT_LINK_UP) {
        fl_agent_rest(a, t, FL_R_PEER_CLOSED, a->now_ms);
    } else {
        fetch_or(a, t);
    }
}

/* What is still to be fetched, then the work. */
static void fetch_rest(struct fl_agent *a, struct fl_agent_todo *t)
{
    fl_agent_begin(a, t,
                   !(a->have & FL_AGENT_HAVE_BASE)    ? FL_AGENT_STATE_FETCH_BASE
                   : !(a->have & FL_AGENT_HAVE_INPUT) ? FL_AGENT_STATE_FETCH_INPUT
                                                      : FL_AGENT_STATE_INTENT);
}

static void on_judged(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (a->link != FL_AGENT_LINK_UP) {
        fl_agent_rest(a, t, FL_R_PEER_CLOSED,
                      a->now_ms); /* the answer cannot be given: asked again */
        return;
    }
    a->costs = ev->costs;
    accept_task(a, t);
    fetch_rest(a, t);
}

static void pay(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (a->costs && a->now_ms > a->until) {
        /* Nobody would take it any more: do not pay for it. */
        give_up(a, t, FL_R_DEADLINE, true);
    } else {
        fl_agent_begin(a, t, FL_AGENT_STATE_DEBIT);
    }
}

static void on_sealed(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    a->offer = ev->offer;
    if (a->conf.hold && !(ev->have & FL_AGENT_HAVE_NO_DATA)) {
        fl_agent_begin(a, t, FL_AGENT_STATE_HOLD);
    } else {
        pay(a, t);
    }
}

/* The end of an operation of doomed work. */
static void on_doomed(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    int why = a->doom;

    if (a->state == FL_AGENT_STATE_DEBIT && ev->status == 0) {
        settle(a, t, -why);
    } else if (why == FL_R_PEER_CLOSED || why == FL_R_ROUND_OVER || why == FL_R_CANCELLED) {
        fl_agent_rest(a, t, why, a->task.final ? a->ask_at : a->now_ms);
    } else {
        give_up(a, t, why, false);
    }
}

static void on_failed(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    int reason = -ev->status;

    switch (a->state) {
    case FL_AGENT_STATE_PENDING:
        fl_agent_rest(a, t, reason,
                      fl_agent_after(a, a->conf.backoff_min_ms + fl_agent_backoff(a, 3)));
        break;
    case FL_AGENT_STATE_MARK: /* offered again after the next start; harmless */
        fl_agent_rest(a, t, reason, a->now_ms);
        break;
    case FL_AGENT_STATE_FETCH_PLAN:
    case FL_AGENT_STATE_FETCH_BASE:
    case FL_AGENT_STATE_FETCH_INPUT:
        if (reason == FL_R_PEER_CLOSED || reason == FL_R_PEER_SILENT || reason == FL_R_CANCELLED) {
            fl_agent_rest(a, t, reason, a->task.final ? a->ask_at : a->now_ms);
            break;
        }
        give_up(a, t, reason, true);
        break;
    case FL_AGENT_STATE_EVALUATE:
        final_dealt_with(a); /* said in the log; once is enough */
        fl_agent_rest(a, t, reason, a->ask_at);
        break;
    default:
        give_up(a, t, reason, true);
    }
}

static void on_done(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    assert(in_operation(a) && ev->op == a->state);
    if (a->doom) {
        on_doomed(a, ev, t);
        return;
    }
    if (ev->status) {
        on_failed(a, ev, t);
        return;
    }
    switch (a->state) {
    case FL_AGENT_STATE_PENDING:
        if (ev->have & FL_AGENT_HAVE_RELEASE) {
            a->offer = ev->offer;
            deliver(a);
        } else {
            a->pending_known = true;
            a->state = FL_AGENT_STATE_REST;
        }
        break;
    case FL_AGENT_STATE_LOOK:
        on_looked(a, ev, t);
        break;
    case FL_AGENT_STATE_FETCH_PLAN:
        a->have |= FL_AGENT_HAVE_PLAN;
        fetch_or(a, t);
        break;
    case FL_AGENT_STATE_JUDGE:
        on_judged(a, ev, t);
        break;
    case FL_AGENT_STATE_FETCH_BASE:
        a->have |= FL_AGENT_HAVE_BASE;
        if (a->task.final) {
            fl_agent_begin(a, t, FL_AGENT_STATE_EVALUATE);
        } else {
            fetch_rest(a, t);
        }
        break;
    case FL_AGENT_STATE_FETCH_INPUT:
        a->have |= FL_AGENT_HAVE_INPUT;
        fetch_rest(a, t);
        break;
    case FL_AGENT_STATE_INTENT:
        fl_agent_begin(a, t, FL_AGENT_STATE_TRAIN);
        break;
    case FL_AGENT_STATE_TRAIN:
        fl_agent_begin(a, t, FL_AGENT_STATE_SEAL);
        break;
    case FL_AGENT_STATE_SEAL:
        on_sealed(a, ev, t);
        break;
    case FL_AGENT_STATE_HOLD:
        pay(a, t);
        break;
    case FL_AGENT_STATE_DEBIT:
        deliver(a);
        break;
    case FL_AGENT_STATE_MARK:
        fl_agent_rest(a, t, 0, a->now_ms);
        break;
    case FL_AGENT_STATE_EVALUATE:
        final_dealt_with(a);
        fl_agent_rest(a, t, 0, a->ask_at);
        break;
    default:
        assert(0);
    }
}

/* ---- the site's administrator -------------------------------------------------------------------
 */

static void on_withdraw(struct fl_agent *a, const struct fl_agent_event *ev,
                        struct fl_agent_todo *t)
{
    bool all = strcmp(ev->task.job, "*") == 0;

    if (a->state == FL_AGENT_STATE_DELIVER) {
        if (all || strcmp(ev->task.job, a->offer.job) == 0) {
            decline(a, t, &a->offer.key, FL_R_WITHDRAWN);
            settle(a, t, -(int)FL_R_WITHDRAWN);
        }
    } else if ((fl_agent_before_debit(a) || a->state == FL_AGENT_STATE_DEBIT ||
                a->state == FL_AGENT_STATE_EVALUATE) &&
               (all || strcmp(ev->task.job, a->task.job) == 0)) {
        fl_agent_doom(a, t, FL_R_WITHDRAWN, true);
    }
    if (a->state == FL_AGENT_STATE_ASK) {
        /* What was asked for names the job: take it back by a new connection. */
        fl_agent_close_link(a, t, FL_R_WITHDRAWN);
    }
}

void fl_agent_work(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    switch (ev->type) {
    case FL_AGENT_EV_TASK:
        on_task(a, ev, t);
        break;
    case FL_AGENT_EV_OVER:
        on_over(a, ev, t);
        break;
    case FL_AGENT_EV_REFUSE:
        on_refuse(a, ev, t);
        break;
    case FL_AGENT_EV_RESUME:
        on_resume(a, ev, t);
        break;
    case FL_AGENT_EV_ACK:
        on_ack(a, ev, t);
        break;
    case FL_AGENT_EV_SENT:
        on_sent(a, ev, t);
        break;
    case FL_AGENT_EV_DONE:
        on_done(a, ev, t);
        break;
    case FL_AGENT_EV_WITHDRAW:
        on_withdraw(a, ev, t);
        break;
    default:
        assert(0);
    }
}
