/*
 * What follows from what happened.
 *
 * A step has three parts. First the event is taken in (round_event.c): it changes facts about
 * members and exchanges and says nothing. Then `advance` looks at the facts and moves the phase as
 * far as it goes. Last `emit` turns what is wanted into items. Wishes are bits on members and on
 * the round, so that a list of fixed length is enough for any number of members: what does not fit
 * stays wanted and comes with the next step. And because wishes are facts, not calls, there is no
 * order in which an event could find the machine half way.
 *
 * The happy path of one exchange, for one member:
 *
 *     AVAILABLE -> (drawn) ENLIST -> ENLISTED -> INVITE -> ACCEPTED -> OFFERED -> RECEIVE ->
 * SPOOLED
 *       -> RECORD -> COMMITTED -> ACK, FOLD -> FOLDED
 *
 * and for all: the last wanted COMMITTED -> CLOSE -> CLOSED -> FINISH -> FINISHED -> PUBLISH.
 *
 * Who counts. An exchange wants `members + over_select` agents at work. A member counts while it
 * may still contribute within the attempt: from being enlisted until it declines, fails, or leaves
 * before it ever accepted. Whoever stops counting frees its slot, and the next draw fills it. One
 * that accepted and lost its connection counts on: it can come back with its outbox.
 *
 * Too few at the deadline. Nothing that was committed is thrown away, since a member will never
 * make another update for this key; nobody is told to stop, since their work still fits. Those who
 * brought nothing are marked late and no longer counted on, replacements are drawn for what the
 * quorum lacks, and the exchange gets a new deadline. From then on the quorum closes it at once:
 * its time was up already. After `attempts` deadlines the job pauses; RESUME starts counting again.
 *
 * Buffers (FedBuff, Nguyen et al. 2022, arXiv 2106.06639). With `staleness` a round is a buffer
 * that closes when it is full, however many are still at work. These are not told to stop: they go
 * with the machine into the next round as members that have their task already (`base` says of
 * which round), and are enlisted there, durably, before anything of theirs is recorded. So whose
 * update counts where is in the records of one round, as ever; a contribution is recorded once, in
 * the round that is open when it is offered, and a crash finds it there. What is on its way while a
 * round closes is refused as busy and offered again. A member that comes back with empty hands gets
 * a task of the round that is open; one that is too many rounds behind is told that it is over.
 *
 * Pausing gates `advance` only. What agents and workers bring in is still taken: an upload in
 * flight is recorded and acknowledged. A failed answer of store or worker pauses with its reason,
 * and leaves the phase as it was with `asked` cleared, so that RESUME says the same item again.
 */
#include "server/core/round_state.h"

#include "common/base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { TIME_MAX_MS = 1000000000 }; /* eleven days: sums of times cannot overflow */

/* ---- rules ---- */

static int check_exchange(const struct fl_round_rules *rules, uint32_t i, struct fl_err *e)
{
    const struct fl_exchange_rules *x = &rules->exchange[i];

    if (!memchr(x->name, 0, sizeof x->name) || !x->name[0]) {
        return fl_fail(e, FL_R_CONF_RANGE, "exchange %u has no name", i);
    }
    if (x->members == 0 || x->members > FL_ROUND_MEMBERS_MAX ||
        x->over_select > FL_ROUND_MEMBERS_MAX - x->members) {
        return fl_fail(e, FL_R_CONF_RANGE, "exchange %s: members and over_select must be 1 to %d",
                       x->name, FL_ROUND_MEMBERS_MAX);
    }
    if (x->quorum == 0 || x->quorum > x->members) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "exchange %s: quorum %u is not 1 to members (%u)",
                       x->name, x->quorum, x->members);
    }
    if (x->deadline_ms == 0 || x->deadline_ms > TIME_MAX_MS || x->fill_ms > TIME_MAX_MS) {
        return fl_fail(e, FL_R_CONF_RANGE, "exchange %s: times must be at most %d ms", x->name,
                       TIME_MAX_MS);
    }
    if (x->same_cohort && i == 0) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "exchange %s: the first one draws its own cohort",
                       x->name);
    }
    if (x->same_cohort && x->quorum > rules->exchange[i - 1].quorum) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "exchange %s: quorum %u could exceed the cohort of %s (quorum %u)", x->name,
                       x->quorum, rules->exchange[i - 1].name, rules->exchange[i - 1].quorum);
    }
    return 0;
}

int fl_round_rules_check(const struct fl_round_rules *rules, struct fl_err *e)
{
    if (rules->exchange_count == 0 || rules->exchange_count > FL_ROUND_EXCHANGES_MAX) {
        return fl_fail(e, FL_R_CONF_RANGE, "a round has 1 to %d exchanges, not %u",
                       FL_ROUND_EXCHANGES_MAX, rules->exchange_count);
    }
    if (rules->rounds == 0 || rules->attempts == 0) {
        return fl_fail(e, FL_R_CONF_RANGE, "rounds and attempts must be at least 1");
    }
    if (rules->staleness > FL_ROUND_STALE_MAX ||
        (rules->staleness > 0 && rules->exchange_count > 1)) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "staleness %u: at most %d, and in rounds of one exchange only",
                       rules->staleness, FL_ROUND_STALE_MAX);
    }
    for (uint32_t i = 0; i < rules->exchange_count; i++) {
        int r = check_exchange(rules, i, e);
        if (r != 0) {
            return r;
        }
    }
    for (uint32_t i = 0; rules->staleness > 0 && i <= rules->staleness; i++) {
        if (rules->stale_weight[i] == 0) {
            return fl_fail(e, FL_R_CONF_RANGE, "what is %u rounds late must weigh something", i);
        }
    }
    return 0;
}

/* ---- life ---- */

static void frame_free(struct fl_frame *f)
{
    if (!f) {
        return;
    }
    for (uint32_t i = 0; i < FL_ROUND_EXCHANGES_MAX; i++) {
        fl_members_fini(&f->at[i].members);
        fl_free(f->at[i].list);
    }
    fl_free(f);
}

/* Room for everybody who is wanted at one time, and as many who failed, declined or are late:
 * beyond that their places are given to others. */
static uint32_t table_size(const struct fl_round_rules *rules, uint32_t i)
{
    const struct fl_exchange_rules *x = &rules->exchange[i];
    uint32_t wanted = x->members + x->over_select;

    if (x->same_cohort && i > 0) {
        uint32_t before = rules->exchange[i - 1].members;
        wanted = wanted > before ? wanted : before;
    }
    return 2 * wanted + 64;
}

static int frame_new(const struct fl_round_rules *rules, struct fl_frame **ret, struct fl_err *e)
{
    int r = fl_round_rules_check(rules, e);
    if (r != 0) {
        return r;
    }
    struct fl_frame *f = fl_try(1, sizeof *f);
    if (!f) {
        return fl_fail(e, FL_R_NOMEM, "a round");
    }
    f->rules = *rules;
    for (uint32_t i = 0; i < rules->exchange_count; i++) {
        r = fl_members_init(&f->at[i].members, table_size(rules, i), e);
        if (r != 0) {
            goto fail;
        }
        f->at[i].list = fl_try(rules->exchange[i].members, sizeof *f->at[i].list);
        if (!f->at[i].list) {
            r = fl_fail(e, FL_R_NOMEM, "a list of %u members", rules->exchange[i].members);
            goto fail;
        }
        f->at[i].goal = rules->exchange[i].members;
    }
    *ret = f;
    return 0;
fail:
    frame_free(f);
    return r;
}

void fl_frame_clear(struct fl_frame *f)
{
    for (uint32_t i = 0; i < f->rules.exchange_count; i++) {
        struct fl_exchange *x = &f->at[i];
        struct fl_members members = x->members;
        uint64_t *list = x->list;
        fl_members_clear(&members);
        *x = (struct fl_exchange){
            .members = members, .list = list, .goal = f->rules.exchange[i].members};
    }
}

/* Room for the members of a round under these rules. */
static int carry_init(struct fl_round *r, const struct fl_round_rules *rules, struct fl_err *e)
{
    uint32_t room = rules->staleness > 0 ? table_size(rules, 0) : 0;

    if (room > r->carry_room) {
        struct fl_member *carry = fl_try(room, sizeof *carry);
        if (!carry) {
            return fl_fail(e, FL_R_NOMEM, "a table of %u members", room);
        }
        fl_free(r->carry);
        r->carry = carry;
        r->carry_room = room;
    }
    return 0;
}

int fl_round_new(const struct fl_round_setup *setup, struct fl_round **ret, struct fl_err *e)
{
    int status;
    struct fl_round *r = fl_try(1, sizeof *r);

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "a round");
    }
    status = frame_new(setup->rules, &r->frame, e);
    status = status ? status : carry_init(r, setup->rules, e);
    if (status == 0) {
        status = fl_candidates_init(&r->candidates,
                                    setup->candidates_max ? setup->candidates_max : 1, e);
    }
    if (status != 0) {
        fl_round_free(r);
        return status;
    }
    memcpy(r->incarnation, setup->incarnation, sizeof r->incarnation);
    r->published = setup->published;
    r->now_ms = r->fill_since_ms = setup->now_ms;
    r->paused = setup->paused;
    r->draining = setup->draining;
    r->attempt = 1;
    *ret = r;
    return 0;
}

void fl_round_free(struct fl_round *r)
{
    if (!r) {
        return;
    }
    frame_free(r->frame);
    frame_free(r->next);
    fl_free(r->carry);
    fl_candidates_fini(&r->candidates);
    fl_free(r);
}

void fl_round_take_rules(struct fl_round *r)
{
    if (r->next) {
        frame_free(r->frame);
        r->frame = r->next;
        r->next = NULL;
    }
}

int fl_round_set_rules(struct fl_round *r, const struct fl_round_rules *rules, struct fl_err *e)
{
    struct fl_frame *made;
    int status = frame_new(rules, &made, e);

    if (status != 0) {
        return status;
    }
    status = carry_init(r, rules, e);
    if (status != 0) {
        frame_free(made);
        return status;
    }
    frame_free(r->next);
    r->next = made;
    if (!r->open && r->phase == FL_ROUND_FILL) {
        fl_round_take_rules(r);
        r->draw_due = true;
    }
    return 0;
}

/* ---- a step ---- */

int fl_round_step(struct fl_round *r, const struct fl_round_event *ev, struct fl_round_todo *todo)
{
    todo->count = 0;
    todo->more = false;
    if (ev->now_ms > r->now_ms) {
        r->now_ms = ev->now_ms;
    }
    if (r->phase != FL_ROUND_STOPPED) {
        int status = ev->type == FL_ROUND_EV_CANCEL ? 0 : fl_round_absorb(r, ev);
        if (status != 0) {
            return status;
        }
        if (ev->type == FL_ROUND_EV_CANCEL) {
            for (uint32_t k = 0; k < r->frame->rules.exchange_count; k++) {
                struct fl_exchange *x = &r->frame->at[k];
                for (uint32_t i = 0; i < x->members.count; i++) {
                    fl_round_drop(x, &x->members.at[i], -FL_R_CANCELLED);
                }
            }
            fl_round_stop(r, -FL_R_CANCELLED);
        }
        fl_round_advance(r);
    }
    fl_round_emit(r, ev->agent, todo);
    return 0;
}

uint64_t fl_round_closes(const struct fl_round *r)
{
    return !r->paused && r->phase == FL_ROUND_COLLECT ? r->deadline_ms : FL_ROUND_NEVER;
}

uint64_t fl_round_deadline(const struct fl_round *r)
{
    const struct fl_exchange_rules *rules = fl_round_rules_at(r);
    uint64_t filled = r->fill_since_ms + rules->fill_ms;

    if (r->paused) {
        return FL_ROUND_NEVER;
    }
    if (r->phase == FL_ROUND_COLLECT) { /* from when on nobody being out any more is enough */
        uint64_t early = r->deadline_ms - rules->deadline_ms + rules->fill_ms;
        return r->now_ms < early && early < r->deadline_ms ? early : r->deadline_ms;
    }
    return r->phase == FL_ROUND_FILL && r->now_ms < filled ? filled : FL_ROUND_NEVER;
}
