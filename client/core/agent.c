/*
 * The agent's machine. Three layers, called in this order by fl_agent_step:
 *
 *   1. what the event means for link and work (on_...): states change, an operation that ended
 *      leads to the next one;
 *   2. advance(): what follows from the clock, the window, a wish to stop and the state of the
 * link. It is written as rules over the state, not as reactions, so that no event can be the one
 * that was forgotten: whatever happened, the same rules say what is due;
 *   3. fl_agent_deadline(): the same rules' next moment.
 *
 * Ending work early. An operation in flight owns memory of the shell, so work is never simply
 * forgotten: it is *doomed* (with a reason), its operation is asked to end, and when its DONE comes
 * the work is dropped. A doomed debit that succeeds is a release all the same: it is settled by
 * MARK, never lost.
 */
#include "client/core/agent_in.h"

#include <assert.h>
#include <string.h>

static const char *const state_names[FL_AGENT_STATES] = {
    "rest",       "ask",         "pending", "look",     "fetch-plan", "judge",
    "fetch-base", "fetch-input", "intent",  "train",    "seal",       "hold",
    "debit",      "deliver",     "mark",    "evaluate", "stopped"};
static const char *const link_names[] = {"down", "connecting", "hello", "up", "closing"};

const char *fl_agent_state_name(enum fl_agent_state s)
{
    return s < FL_AGENT_STATES ? state_names[s] : "?";
}

const char *fl_agent_link_name(enum fl_agent_link l)
{
    return l <= FL_AGENT_LINK_CLOSING ? link_names[l] : "?";
}

/* ---- small helpers ------------------------------------------------------------------------------
 */

struct fl_agent_item *fl_agent_add(struct fl_agent_todo *t, enum fl_agent_do type, int reason)
{
    assert(t->count < FL_AGENT_TODO_MAX);
    struct fl_agent_item *item = &t->at[t->count++];
    memset(item, 0, sizeof *item);
    item->type = type;
    item->reason = reason;
    return item;
}

void fl_agent_begin(struct fl_agent *a, struct fl_agent_todo *t, enum fl_agent_state op)
{
    a->state = op;
    fl_agent_add(t, FL_AGENT_DO_OP, 0)->op = op;
}

uint64_t fl_agent_after(const struct fl_agent *a, uint64_t wait)
{
    return a->now_ms > UINT64_MAX - wait ? UINT64_MAX : a->now_ms + wait;
}

static uint64_t min_u64(uint64_t x, uint64_t y)
{
    return x < y ? x : y;
}

/* Full jitter: uniform below min * 2^n, at most max. */
uint64_t fl_agent_doubled(uint64_t from, uint32_t times, uint64_t most)
{
    while (times-- > 0 && from < most) {
        from *= 2;
    }
    return min_u64(from, most);
}

uint64_t fl_agent_backoff(struct fl_agent *a, uint32_t n)
{
    const struct fl_agent_conf *c = &a->conf;

    return fl_rng_below(&a->jitter, fl_agent_doubled(c->backoff_min_ms, n, c->backoff_max_ms) + 1);
}

/* As the coordinator asked, and up to a quarter more, so that a crowd does not come back at once.
 */
static uint64_t retry_delay(struct fl_agent *a, uint32_t retry_ms)
{
    return retry_ms + fl_rng_below(&a->jitter, (uint64_t)retry_ms / 4 + 1);
}

bool fl_agent_in_window(const struct fl_agent_conf *conf, uint16_t minute)
{
    if (conf->window_from == conf->window_to) {
        return true;
    }
    if (conf->window_from < conf->window_to) {
        return minute >= conf->window_from && minute < conf->window_to;
    }
    return minute >= conf->window_from || minute < conf->window_to;
}

static bool in_window(const struct fl_agent *a)
{
    return fl_agent_in_window(&a->conf, a->minute);
}

/* Milliseconds until the window's next edge. */
static uint64_t window_left(const struct fl_agent *a)
{
    if (a->conf.window_from == a->conf.window_to) {
        return UINT64_MAX;
    }
    uint32_t edge = in_window(a) ? a->conf.window_to : a->conf.window_from;
    uint32_t minutes = (edge + FL_AGENT_DAY - a->minute) % FL_AGENT_DAY;
    return (uint64_t)(minutes ? minutes : FL_AGENT_DAY) * 60 * 1000;
}

/* ---- final models -------------------------------------------------------------------------------
 */

static bool same_final(const struct fl_agent_task *x, const struct fl_agent_task *y)
{
    return memcmp(x->key.incarnation, y->key.incarnation, FL_INCARNATION_SIZE) == 0 &&
           fl_digest_equal(&x->base, &y->base);
}

static void keep_finals(struct fl_agent *a, const struct fl_agent_event *ev)
{
    a->final_count = 0;
    for (uint32_t i = 0; i < ev->final_count && i < FL_AGENT_FINALS_MAX; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < FL_AGENT_FINALS_MAX; k++) {
            seen = seen || (a->seen[k].final && same_final(&a->seen[k], &ev->finals[i]));
        }
        if (!seen && ev->finals[i].plan_size <= FL_PLAN_TEXT_MAX &&
            ev->finals[i].base_size <= a->conf.max_base) {
            a->finals[a->final_count] = ev->finals[i];
            a->finals[a->final_count++].final = true;
        }
    }
}

/* ---- link ---------------------------------------------------------------------------------------
 */

void fl_agent_close_link(struct fl_agent *a, struct fl_agent_todo *t, int reason)
{
    if (a->link != FL_AGENT_LINK_DOWN && a->link != FL_AGENT_LINK_CLOSING) {
        fl_agent_add(t, FL_AGENT_DO_CLOSE, reason);
        a->link = FL_AGENT_LINK_CLOSING;
    }
    if (a->state == FL_AGENT_STATE_ASK) {
        a->state = FL_AGENT_STATE_REST;
    }
}

/* Reasons that only a person at the other end can change: no use in coming back soon. */
static bool needs_a_person(int reason)
{
    return (reason >= FL_R_TLS_SETUP && reason <= FL_R_TLS_PROFILE && reason != FL_R_TLS_CLOSED &&
            reason != FL_R_TLS_RECORD) ||
           reason == FL_R_VERSION || reason == FL_R_CAPABILITY;
}

static void on_closed(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (a->link == FL_AGENT_LINK_DOWN) {
        return;
    }
    a->link = FL_AGENT_LINK_DOWN;
    uint64_t wait = ev->retry_ms
                        ? retry_delay(a, ev->retry_ms)
                        : fl_agent_backoff(a, needs_a_person(-ev->status) ? 32 : a->failures);
    if (a->failures < 32) {
        a->failures++;
    }
    a->retry_at = fl_agent_after(a, wait);
    if (a->state == FL_AGENT_STATE_ASK) {
        a->state = FL_AGENT_STATE_REST;
    } else if (fl_agent_is_fetch(a->state)) {
        fl_agent_doom(a, t, FL_R_PEER_CLOSED, false);
    } else if (a->state == FL_AGENT_STATE_DELIVER) {
        a->deliver = FL_AGENT_DELIVER_HOLD;
        a->offer_at = a->now_ms;
    }
}

static void on_welcome(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    a->link = FL_AGENT_LINK_UP;
    if (memcmp(a->coordinator, ev->coordinator, sizeof a->coordinator) == 0) {
        return;
    }
    /* Another coordinator (or another state folder of the same one) knows nothing of our task. What
     * was released to the old one waits in the ledger for that one. */
    memcpy(a->coordinator, ev->coordinator, sizeof a->coordinator);
    a->pending_known = false;
    a->final_count = 0;
    if (fl_agent_before_debit(a) || a->state == FL_AGENT_STATE_DEBIT ||
        a->state == FL_AGENT_STATE_EVALUATE || a->state == FL_AGENT_STATE_PENDING) {
        fl_agent_doom(a, t, FL_R_NO_JOB, false);
    } else if (a->state == FL_AGENT_STATE_DELIVER) {
        fl_agent_rest(a, t, FL_R_NO_JOB, a->now_ms);
    }
}

static void on_rest(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    if (a->state != FL_AGENT_STATE_ASK) {
        fl_agent_close_link(a, t, FL_R_MSG_ORDER);
        return;
    }
    a->failures = 0;
    a->rested = true;
    a->state = FL_AGENT_STATE_REST;
    uint64_t wait = ev->retry_ms ? retry_delay(a, ev->retry_ms)
                                 : a->conf.backoff_min_ms + fl_agent_backoff(a, 1);
    a->ask_at = fl_agent_after(a, wait);
    keep_finals(a, ev);
}

static void on_refused_ask(struct fl_agent *a)
{
    a->state = FL_AGENT_STATE_REST;
    a->rested = true;
    a->ask_at = fl_agent_after(a, a->conf.backoff_min_ms + fl_agent_backoff(a, 3));
}

static void on_stop(struct fl_agent *a)
{
    a->stop_at = a->stopping ? a->now_ms : fl_agent_after(a, a->conf.drain_ms);
    a->stopping = true;
}

/* ---- rules --------------------------------------------------------------------------------------
 */

static void stop_rules(struct fl_agent *a, struct fl_agent_todo *t)
{
    bool late = a->now_ms >= a->stop_at;

    switch (a->state) {
    case FL_AGENT_STATE_REST:
    case FL_AGENT_STATE_ASK:
        break;
    case FL_AGENT_STATE_INTENT:
    case FL_AGENT_STATE_TRAIN:
    case FL_AGENT_STATE_SEAL:
        if (late) {
            fl_agent_doom(a, t, FL_R_SHUTDOWN, false);
        }
        return;
    case FL_AGENT_STATE_DEBIT:
    case FL_AGENT_STATE_MARK:
        return;
    case FL_AGENT_STATE_DELIVER:
        if (!late) {
            return;
        }
        if (fl_agent_uploading(a)) {
            fl_agent_add(t, FL_AGENT_DO_STOP_UPLOAD, 0);
        }
        fl_agent_rest(a, t, FL_R_SHUTDOWN, UINT64_MAX); /* durable: offered at the next start */
        break;
    default:
        fl_agent_doom(a, t, FL_R_SHUTDOWN, false);
        return;
    }
    fl_agent_close_link(a, t, FL_R_SHUTDOWN);
    if (a->link == FL_AGENT_LINK_DOWN) {
        a->state = FL_AGENT_STATE_STOPPED;
        fl_agent_add(t, FL_AGENT_DO_STOPPED, 0);
    }
}

/* The site's time window: nothing begins outside it, and training ends with it. What is sealed is
 * delivered; that is no work. */
static void window_rules(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (in_window(a)) {
        return;
    }
    if (a->state == FL_AGENT_STATE_REST || a->state == FL_AGENT_STATE_ASK) {
        fl_agent_close_link(a, t, FL_R_WINDOW);
    } else if (a->state != FL_AGENT_STATE_PENDING && a->state != FL_AGENT_STATE_SEAL &&
               a->state != FL_AGENT_STATE_HOLD &&
               (fl_agent_before_debit(a) || a->state == FL_AGENT_STATE_EVALUATE)) {
        fl_agent_doom(a, t, FL_R_WINDOW, true);
    }
}

static bool wants_link(const struct fl_agent *a)
{
    if (a->state == FL_AGENT_STATE_STOPPED || !a->started) {
        return false;
    }
    if (a->state == FL_AGENT_STATE_DELIVER) {
        return true;
    }
    return in_window(a) && !a->stopping;
}

static bool wants_to_ask(const struct fl_agent *a)
{
    return a->state == FL_AGENT_STATE_REST && a->link == FL_AGENT_LINK_UP && !a->stopping &&
           in_window(a);
}

static void ask_rules(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (!wants_to_ask(a)) {
        return;
    }
    if (a->final_count > 0) {
        a->task = a->finals[--a->final_count];
        a->costs = false;
        a->until = UINT64_MAX;
        fl_agent_begin(a, t, FL_AGENT_STATE_LOOK);
    } else if (a->now_ms < a->ask_at) {
        return;
    } else if (!a->pending_known) {
        fl_agent_begin(a, t, FL_AGENT_STATE_PENDING);
    } else {
        fl_agent_add(t, FL_AGENT_DO_ASK, 0);
        a->state = FL_AGENT_STATE_ASK;
        a->patience_at = fl_agent_after(a, a->conf.patience_ms);
    }
}

static void deliver_rules(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (a->state != FL_AGENT_STATE_DELIVER || a->link != FL_AGENT_LINK_UP) {
        return;
    }
    if (a->deliver == FL_AGENT_DELIVER_HOLD && a->now_ms >= a->offer_at) {
        fl_agent_add(t, FL_AGENT_DO_OFFER, 0)->key = a->offer.key;
        a->deliver = FL_AGENT_DELIVER_OFFERED;
        a->upload_again = false;
        a->patience_at = fl_agent_after(a, a->conf.patience_ms);
    } else if ((a->deliver == FL_AGENT_DELIVER_OFFERED || a->deliver == FL_AGENT_DELIVER_SENT) &&
               a->now_ms >= a->patience_at) {
        fl_agent_close_link(a, t, FL_R_TIMEOUT);
        a->deliver = FL_AGENT_DELIVER_HOLD;
    }
}

/* `once`: leave when there is nothing (more) to do here, or nobody to ask. */
static void once_rules(struct fl_agent *a)
{
    if (!a->conf.once || a->stopping) {
        return;
    }
    if ((a->state == FL_AGENT_STATE_ASK && a->now_ms >= a->patience_at) ||
        (a->state == FL_AGENT_STATE_REST && a->final_count == 0 &&
         (a->rested || a->failures >= FL_AGENT_ONCE_TRIES))) {
        a->rested = a->rested || a->state == FL_AGENT_STATE_ASK;
        a->stopping = true;
        a->stop_at = a->now_ms;
    }
}

static void advance(struct fl_agent *a, struct fl_agent_todo *t)
{
    if (a->state == FL_AGENT_STATE_STOPPED || !a->started) {
        return;
    }
    once_rules(a);
    if (a->stopping) {
        stop_rules(a, t);
    } else {
        window_rules(a, t);
    }
    if (fl_agent_is_fetch(a->state) && a->now_ms > a->until) {
        fl_agent_doom(a, t, FL_R_DEADLINE, true);
    }
    if (a->link == FL_AGENT_LINK_DOWN && wants_link(a) && a->now_ms >= a->retry_at) {
        fl_agent_add(t, FL_AGENT_DO_CONNECT, 0);
        a->link = FL_AGENT_LINK_CONNECTING;
    }
    deliver_rules(a, t);
    ask_rules(a, t);
}

/* ---- public -------------------------------------------------------------------------------------
 */

void fl_agent_init(struct fl_agent *a, const struct fl_agent_conf *conf,
                   const struct fl_seed *jitter)
{
    memset(a, 0, sizeof *a);
    a->conf = *conf;
    fl_rng_init(&a->jitter, jitter, 0);
    a->until = UINT64_MAX;
    a->stop_at = UINT64_MAX;
}

static void dispatch(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *t)
{
    switch (ev->type) {
    case FL_AGENT_EV_START:
        a->started = true;
        a->retry_at = a->now_ms;
        break;
    case FL_AGENT_EV_OPENED:
        if (a->link == FL_AGENT_LINK_CONNECTING) {
            a->link = FL_AGENT_LINK_HELLO;
            fl_agent_add(t, FL_AGENT_DO_HELLO, 0);
        }
        break;
    case FL_AGENT_EV_CLOSED:
        on_closed(a, ev, t);
        break;
    case FL_AGENT_EV_DONE:
    case FL_AGENT_EV_SENT:
    case FL_AGENT_EV_WITHDRAW:
        fl_agent_work(a, ev, t);
        break;
    case FL_AGENT_EV_STOP:
        on_stop(a);
        break;
    case FL_AGENT_EV_WELCOME:
        if (a->link == FL_AGENT_LINK_HELLO) {
            on_welcome(a, ev, t);
        } else {
            fl_agent_close_link(a, t, FL_R_MSG_ORDER);
        }
        break;
    case FL_AGENT_EV_REST:
    case FL_AGENT_EV_TASK:
    case FL_AGENT_EV_OVER:
    case FL_AGENT_EV_RESUME:
    case FL_AGENT_EV_ACK:
        if (a->link != FL_AGENT_LINK_UP) {
            fl_agent_close_link(a, t, FL_R_MSG_ORDER);
        } else if (ev->type == FL_AGENT_EV_REST) {
            on_rest(a, ev, t);
        } else {
            fl_agent_work(a, ev, t);
        }
        break;
    case FL_AGENT_EV_REFUSE:
        if (a->link != FL_AGENT_LINK_UP) {
            break; /* of our Hello: a Bye follows */
        }
        if (a->state == FL_AGENT_STATE_ASK) {
            on_refused_ask(a);
        } else {
            fl_agent_work(a, ev, t);
        }
        break;
    default:
        break; /* TICK: the rules do it */
    }
}

void fl_agent_step(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *todo)
{
    todo->count = 0;
    if (ev->now_ms > a->now_ms) {
        a->now_ms = ev->now_ms;
    }
    a->minute = ev->minute;
    if (a->state == FL_AGENT_STATE_STOPPED) {
        return;
    }
    dispatch(a, ev, todo);
    advance(a, todo);
}

uint64_t fl_agent_deadline(const struct fl_agent *a)
{
    uint64_t at = UINT64_MAX;

    if (a->state == FL_AGENT_STATE_STOPPED || !a->started) {
        return at;
    }
    at = fl_agent_after(a, window_left(a));
    if (a->link == FL_AGENT_LINK_DOWN && wants_link(a)) {
        at = min_u64(at, a->retry_at);
    }
    if (wants_to_ask(a)) {
        at = min_u64(at, a->ask_at);
    }
    if (a->conf.once && a->state == FL_AGENT_STATE_ASK && !a->stopping) {
        at = min_u64(at, a->patience_at);
    }
    if (a->state == FL_AGENT_STATE_DELIVER && a->link == FL_AGENT_LINK_UP) {
        if (a->deliver == FL_AGENT_DELIVER_HOLD) {
            at = min_u64(at, a->offer_at);
        } else if (a->deliver != FL_AGENT_DELIVER_UPLOADING) {
            at = min_u64(at, a->patience_at);
        }
    }
    if (fl_agent_is_fetch(a->state) && !a->doom) {
        at = min_u64(at, a->until < UINT64_MAX ? a->until + 1 : a->until);
    }
    if (a->stopping && !a->doom &&
        (a->state == FL_AGENT_STATE_DELIVER ||
         (a->state >= FL_AGENT_STATE_INTENT && a->state <= FL_AGENT_STATE_SEAL))) {
        at = min_u64(at, a->stop_at);
    }
    return at;
}
