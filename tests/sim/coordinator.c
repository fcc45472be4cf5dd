/* The coordinator: a small shell around round, roster, peer and strategy, as server/coordinator.c
 * is the real one. */
#include "tests/sim/world.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

static const struct fl_key no_key = {.round = 0};

static struct fl_key key_of(uint64_t round, uint32_t exchange)
{
    struct fl_key key = {.round = round, .exchange = exchange};
    memcpy(key.incarnation, sim_incarnation, sizeof key.incarnation);
    return key;
}

/* ---- life ---- */

static void tell_operator(struct world *w, uint64_t delay, enum fl_round_ev what)
{
    struct sim_event *ev = sim_at(w, delay, EV_OPERATOR);
    ev->epoch = w->c.epoch;
    ev->number = (uint32_t)what;
}

/* What the store remembers of the open round, in the order of round.h. */
static void remember(struct world *w)
{
    const struct disk *d = &w->disk;
    uint64_t round = d->published + 1;

    if (!d->open) {
        return;
    }
    uint32_t epoch = w->c.epoch;
    coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_OPENED, .round = round});
    for (uint32_t x = 0; x < w->rules.exchange_count; x++) {
        for (uint32_t i = 0; i < d->members[x] && w->c.up && w->c.epoch == epoch; i++) {
            coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_ENLISTED,
                                                         .round = round,
                                                         .base = d->base[x][i],
                                                         .exchange = x,
                                                         .agent = d->member[x][i]});
        }
        for (uint32_t i = 0; i < d->updates && w->c.up && w->c.epoch == epoch; i++) {
            const struct disk_update *u = &d->update[i];
            if (u->round == round && u->exchange == x) {
                coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_COMMITTED,
                                                             .round = round,
                                                             .exchange = x,
                                                             .agent = u->agent,
                                                             .digest = u->digest,
                                                             .size = u->size,
                                                             .weight = u->weight});
            }
        }
        if (d->closed[x] && w->c.up && w->c.epoch == epoch) {
            coordinator_tell(w, &(struct fl_round_event){
                                    .type = FL_ROUND_EV_CLOSED, .round = round, .exchange = x});
        }
    }
}

void coordinator_start(struct world *w)
{
    struct coordinator *c = &w->c;
    struct fl_round_setup setup = {.published = w->disk.published,
                                   .candidates_max = SITES_MAX,
                                   .paused = w->disk.paused,
                                   .now_ms = w->now,
                                   .rules = &w->rules};
    uint32_t epoch = c->epoch;
    struct fl_err e = {0};

    memset(c, 0, sizeof *c);
    c->epoch = epoch;
    memcpy(setup.incarnation, sim_incarnation, sizeof setup.incarnation);
    if (fl_roster_new(SITES_MAX, &c->roster, &e) != 0 || fl_round_new(&setup, &c->round, &e) != 0) {
        sim_fail(w, "start: %s", e.msg);
    }
    for (uint32_t i = 0; i < w->conf.sites; i++) {
        uint8_t key[FL_ROSTER_KEY_SIZE] = {(uint8_t)(i + 1)};
        char name[2] = {(char)('a' + i), 0};
        if (fl_roster_add(c->roster, i + 1, key, name, "", false, &e) != 0) {
            sim_fail(w, "start: %s", e.msg);
        }
    }
    sums_begin(w, &c->sums);
    c->up = true;
    sim_trace(w, "coordinator starts");
    if (w->disk.paused) {
        tell_operator(w, 400, FL_ROUND_EV_RESUME);
    }
    remember(w);
    if (c->up && c->epoch == epoch) {
        coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_TICK});
    }
}

void coordinator_crash(struct world *w)
{
    struct coordinator *c = &w->c;

    w->crashes++;
    sim_trace(w, "coordinator crashes");
    /* The kernel may have finished what was under way. */
    if (c->lane[0].count > 0 && fl_rng_below(&w->rng, 2) == 0) {
        struct fl_round_event lost;
        lane_perform(w, &c->lane[0].op[c->lane[0].first], &lost);
    }
    disk_crash(w);
    c->up = false;
    c->epoch++;
    fl_round_free(c->round);
    fl_roster_free(c->roster);
    sums_end(w, &c->sums);
    c->round = NULL;
    c->roster = NULL;
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        struct sim_conn *conn = &w->conn[i];
        if (conn->id != 0 && conn->server_knows) {
            net_break(w, conn);
            conn->server_knows = false;
            net_forget(conn);
        }
    }
    sim_at(w, w->conf.steady ? 100 : sim_delay(w, 500), EV_COORDINATOR_START);
}

/* ---- items ---- */

static struct sim_conn *conn_of(struct world *w, uint64_t agent)
{
    const struct fl_roster_agent *a = fl_roster_by_id(w->c.roster, agent);
    return a && a->connection ? net_find(w, a->connection) : NULL;
}

static void settle(struct world *w, struct sim_conn *c, const struct fl_key *key)
{
    if (fl_peer_sent_end(&c->peer, key)) {
        fl_roster_set(w->c.roster, c->peer.agent, FL_ROSTER_IDLE, 0, w->now);
    }
}

static void say(struct world *w, struct sim_conn *c, enum sim_msg_type type,
                const struct fl_key *key, const struct fl_digest *digest, int reason)
{
    struct sim_msg m = {.type = type, .key = *key, .has_key = true, .reason = reason};

    if (digest) {
        m.digest = *digest;
    }
    net_down(w, c->id, &m);
}

static void queue(struct world *w, const struct fl_round_event *ev)
{
    if (w->c.queued == FL_COUNT(w->c.queue)) {
        sim_fail(w, "the coordinator's queue is full");
    }
    w->c.queue[w->c.queued++] = *ev;
}

static void stop_receiving(struct world *w, struct sim_conn *c)
{
    if (c->receiving) {
        c->receiving = false;
        queue(w, &(struct fl_round_event){.type = FL_ROUND_EV_SPOOLED,
                                          .status = -FL_R_CANCELLED,
                                          .round = c->key.round,
                                          .exchange = c->key.exchange,
                                          .agent = c->peer.agent,
                                          .digest = c->digest});
    }
}

static void invite(struct world *w, const struct fl_round_item *it)
{
    struct sim_conn *c = conn_of(w, it->agent);
    struct disk *d = &w->disk;
    struct fl_key key = key_of(it->round, it->exchange);
    bool member = false;

    for (uint32_t i = 0; i < d->members[it->exchange]; i++) {
        member = member || d->member[it->exchange][i] == it->agent;
    }
    if (!d->open || !member || d->closed[it->exchange]) {
        sim_fail(w, "agent %d is invited and no member of an open exchange", (int)it->agent);
    }
    /* A task that finds its agent otherwise engaged would cost the connection. */
    if (!c || c->peer.state != FL_PEER_ASKING) {
        sim_fail(w, "agent %d is invited and does not ask", (int)it->agent);
    }
    struct fl_digest base = sums_base(w, &w->c.sums, it->agent);
    fl_peer_sent_task(&c->peer, &key, &d->plan, &base);
    fl_roster_set(w->c.roster, it->agent, FL_ROSTER_WORKING, 1, w->now);
    struct sim_msg m = {.type = MSG_TASK,
                        .key = key,
                        .has_key = true,
                        .plan = d->plan,
                        .base = base,
                        .size = UPDATE_SIZE,
                        .left_ms = fl_round_closes(w->c.round) - w->now};
    net_down(w, c->id, &m);
}

static void receive(struct world *w, const struct fl_round_item *it)
{
    struct sim_conn *c = conn_of(w, it->agent);
    struct disk_spool *s = &w->disk.spool[it->agent - 1];
    struct fl_key key = key_of(it->base, it->exchange);

    if (!c) {
        return;
    }
    if (!s->used || !fl_digest_equal(&s->digest, &it->digest) || s->round != it->round ||
        s->exchange != it->exchange) {
        *s = (struct disk_spool){.used = true,
                                 .round = it->round,
                                 .exchange = it->exchange,
                                 .size = it->size,
                                 .digest = it->digest};
    }
    if (!s->sealed) {
        s->received = s->durable;
    }
    c->receiving = true;
    c->key = key_of(it->round, it->exchange);
    c->digest = it->digest;
    struct sim_msg m = {.type = MSG_RESUME,
                        .key = key,
                        .has_key = true,
                        .digest = it->digest,
                        .offset = s->sealed ? s->size : s->durable};
    net_down(w, c->id, &m);
    if (m.offset == s->size) {
        c->receiving = false;
        lane_submit(w, 0, OP_SEAL, it);
    }
}

static void end(struct world *w, const struct fl_round_item *it)
{
    struct sim_conn *c = conn_of(w, it->agent);
    struct fl_key key = key_of(it->base, it->exchange);

    if (it->type == FL_ROUND_DO_ACK) {
        law_acked_is_durable(w, it->agent, &key, &it->digest);
    }
    if (!c) {
        return;
    }
    if (it->type == FL_ROUND_DO_ACK) {
        say(w, c, MSG_ACK, &key, &it->digest, 0);
        settle(w, c, &key);
        return;
    }
    stop_receiving(w, c);
    say(w, c, it->type == FL_ROUND_DO_DROP ? MSG_OVER : MSG_REFUSE, &key, NULL, it->reason);
    if (it->type == FL_ROUND_DO_DROP) {
        settle(w, c, &key);
    }
}

static void write_trace(struct world *w, const struct fl_round_item *it)
{
    static const char *const words[] = {
        [FL_ROUND_DO_OPEN] = "open",       [FL_ROUND_DO_ENLIST] = "enlist",
        [FL_ROUND_DO_INVITE] = "invite",   [FL_ROUND_DO_RECEIVE] = "receive",
        [FL_ROUND_DO_RECORD] = "record",   [FL_ROUND_DO_ACK] = "ack",
        [FL_ROUND_DO_FOLD] = "fold",       [FL_ROUND_DO_REFOLD] = "refold",
        [FL_ROUND_DO_CLOSE] = "close",     [FL_ROUND_DO_FINISH] = "finish",
        [FL_ROUND_DO_PUBLISH] = "publish", [FL_ROUND_DO_DROP] = "drop",
        [FL_ROUND_DO_REFUSE] = "refuse",   [FL_ROUND_DO_RETRY] = "retry",
        [FL_ROUND_DO_PAUSED] = "paused",   [FL_ROUND_DO_DONE] = "done",
    };
    char who[16] = "", why[64] = "", where[16] = "";

    if (!w->trace) {
        return;
    }
    if (it->agent) {
        snprintf(who, sizeof who, " %c", (char)('a' + it->agent - 1));
    }
    if (it->reason) {
        snprintf(why, sizeof why, " (%s)", fl_reason_name(it->reason));
    }
    if (w->rules.exchange_count > 1) {
        snprintf(where, sizeof where, ".%u", it->exchange);
    }
    char list[64] = "";
    for (uint32_t i = 0; it->members && i < it->count && i < 16; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, " %c", (char)('a' + it->members[i] - 1));
    }
    sim_trace(w, "%d%s: %s%s%s%s", (int)it->round, where, words[it->type], who, list, why);
}

static void item(struct world *w, const struct fl_round_item *it)
{
    write_trace(w, it);
    w->did[it->type]++;
    switch (it->type) {
    case FL_ROUND_DO_OPEN:
        lane_submit(w, 0, OP_OPEN, it);
        break;
    case FL_ROUND_DO_ENLIST:
        lane_submit(w, 0, OP_ENLIST, it);
        break;
    case FL_ROUND_DO_INVITE:
        invite(w, it);
        break;
    case FL_ROUND_DO_RECEIVE:
        receive(w, it);
        break;
    case FL_ROUND_DO_RECORD:
        lane_submit(w, 0, OP_COMMIT, it);
        break;
    case FL_ROUND_DO_ACK:
    case FL_ROUND_DO_DROP:
    case FL_ROUND_DO_REFUSE:
        end(w, it);
        break;
    case FL_ROUND_DO_FOLD:
        lane_submit(w, 1, OP_FOLD, it);
        break;
    case FL_ROUND_DO_REFOLD:
        lane_submit(w, 1, OP_REFOLD, it);
        break;
    case FL_ROUND_DO_CLOSE:
        lane_submit(w, 0, OP_CLOSE, it);
        break;
    case FL_ROUND_DO_FINISH:
        lane_submit(w, 1, OP_FINISH, it);
        break;
    case FL_ROUND_DO_PUBLISH:
        lane_submit(w, 0, OP_PUBLISH, it);
        break;
    case FL_ROUND_DO_RETRY:
        break;
    case FL_ROUND_DO_PAUSED:
        w->disk.paused = true;
        tell_operator(w, 400, FL_ROUND_EV_RESUME);
        break;
    case FL_ROUND_DO_DONE:
        w->disk.done = true;
        break;
    }
}

/* What the shell does itself at some answers, before the round hears of them. */
static void before(struct world *w, const struct fl_round_event *ev)
{
    if (ev->type == FL_ROUND_EV_RESUME) {
        w->disk.paused = false;
    } else if (ev->type == FL_ROUND_EV_PUBLISHED && ev->status == 0) {
        sums_end(w, &w->c.sums);
        sums_begin(w, &w->c.sums);
    } else if (ev->type == FL_ROUND_EV_FINISHED && ev->status == 0 &&
               ev->exchange + 1 < w->rules.exchange_count) {
        sums_reset(w, &w->c.sums);
    }
}

/* The one function that steps the round, performs the items, and queues what completes at once. */
void coordinator_tell(struct world *w, const struct fl_round_event *first)
{
    uint32_t epoch = w->c.epoch;

    queue(w, first);
    if (w->c.stepping) {
        return;
    }
    w->c.stepping = true;
    while (w->c.queued > 0) {
        struct fl_round_todo todo;
        struct fl_round_event ev = w->c.queue[0];
        memmove(w->c.queue, w->c.queue + 1, --w->c.queued * sizeof ev);
        before(w, &ev);
        ev.now_ms = w->now;
        ev.now_ms = w->now;
        int r = fl_round_step(w->c.round, &ev, &todo);
        if (r != 0) {
            sim_fail(w, "the round cannot go on: %s", fl_reason_text(r));
        }
        if (todo.more) {
            queue(w, &(struct fl_round_event){.type = FL_ROUND_EV_TICK});
        }
        for (uint32_t i = 0; i < todo.count; i++) {
            if (++w->items == w->conf.coordinator_crash_at ||
                sim_chance(w, w->conf.coordinator_crashes)) {
                coordinator_crash(w);
                return;
            }
            item(w, &todo.item[i]);
            if (sim_chance(w, w->conf.pauses)) {
                tell_operator(w, 0, FL_ROUND_EV_PAUSE);
            }
        }
        if (!w->c.up || w->c.epoch != epoch) {
            return;
        }
    }
    w->c.stepping = false;
}

/* ---- connections ---- */

static void left(struct world *w, struct sim_conn *c)
{
    uint64_t agent = c->peer.agent, id = c->id;

    if (fl_roster_disconnect(w->c.roster, agent, id, w->now)) {
        coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_LEFT, .agent = agent});
    }
}

void coordinator_closed(struct world *w, struct sim_conn *c)
{
    c->server_knows = false;
    c->receiving = false;
    if (w->c.up) {
        left(w, c);
    }
    net_forget(c);
}

bool coordinator_accept(struct world *w, struct sim_conn *c)
{
    uint8_t key[FL_ROSTER_KEY_SIZE] = {(uint8_t)(c->site + 1)};
    const struct fl_roster_agent *a;
    uint64_t replaced;

    if (fl_roster_connect(w->c.roster, key, "", c->id, w->now, &a, &replaced, NULL) != 0) {
        return false;
    }
    fl_peer_init(&c->peer, a->id, w->now);
    struct sim_conn *old = net_find(w, replaced);
    if (old) { /* the round must hear that it left before it hears of it again */
        net_break(w, old);
        old->server_knows = false;
        old->receiving = false;
        net_forget(old);
        coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_LEFT, .agent = a->id});
    }
    return w->c.up;
}

static void on_offer(struct world *w, struct sim_conn *c, const struct sim_msg *m)
{
    struct disk *d = &w->disk;
    bool open;
    uint64_t round = fl_round_current(w->c.round, &open);
    struct fl_member_view v;
    struct fl_err e = {0};

    struct fl_offer offer = {.key = m->key,
                             .digest = m->digest,
                             .plan = m->plan,
                             .base = m->base,
                             .size = m->size,
                             .weight = m->weight};
    struct fl_offer_terms terms = {.key = key_of(round, 0),
                                   .exchange_count = w->rules.exchange_count,
                                   .open = open,
                                   .plan = d->plan,
                                   .base = sums_base(w, &w->c.sums, c->peer.agent),
                                   .update_size = UPDATE_SIZE,
                                   .max_weight = 4,
                                   .carried = m->key.round < round &&
                                              fl_round_member(w->c.round, 0, c->peer.agent, &v) &&
                                              v.base == m->key.round,
                                   .late_rounds = LATE_ROUNDS};
    const struct disk_update *u;
    switch (fl_peer_offer(&terms, &offer, &e)) {
    case FL_OFFER_CURRENT:
        coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_OFFERED,
                                                     .round = round,
                                                     .base = m->key.round,
                                                     .exchange = m->key.exchange,
                                                     .agent = c->peer.agent,
                                                     .digest = m->digest,
                                                     .size = m->size,
                                                     .weight = m->weight});
        return;
    case FL_OFFER_LATE:
        u = disk_made(d, m->key.round, m->key.exchange, c->peer.agent);
        if (u && fl_digest_equal(&u->digest, &m->digest)) {
            law_acked_is_durable(w, c->peer.agent, &m->key, &m->digest);
            w->late_acks++;
            sim_trace(w, "late offer of %c for %d: ack", (char)('a' + c->site), (int)m->key.round);
            say(w, c, MSG_ACK, &m->key, &m->digest, 0);
            settle(w, c, &m->key);
            return;
        }
        if (u) {
            sim_fail(w, "agent %d offers another update than it did", (int)c->peer.agent);
        }
        break;
    case FL_OFFER_OVER:
        break;
    case FL_OFFER_REFUSED:
        if (terms.carried && !open) {
            say(w, c, MSG_REFUSE, &m->key, NULL, -FL_R_BUSY);
            return;
        }
        sim_fail(w, "an honest offer is refused: %s", e.msg);
    }
    sim_trace(w, "late offer of %c for %d: over", (char)('a' + c->site), (int)m->key.round);
    say(w, c, MSG_OVER, &m->key, NULL, -FL_R_ROUND_OVER);
    settle(w, c, &m->key);
}

static void on_chunk(struct world *w, struct sim_conn *c, const struct sim_msg *m)
{
    struct disk_spool *s = &w->disk.spool[c->peer.agent - 1];

    if (!c->receiving || !fl_digest_equal(&m->digest, &c->digest)) {
        return; /* of an upload that was refused meanwhile */
    }
    if (m->offset != s->received || s->sealed) {
        sim_fail(w, "a chunk at %d, %d bytes are here", (int)m->offset, (int)s->received);
    }
    memcpy(s->bytes + m->offset, m->data, m->size);
    s->received += m->size;
    if (fl_rng_below(&w->rng, 2) == 0) {
        s->durable = s->received;
    }
    if (s->received == s->size) {
        struct fl_round_item it = {.round = s->round,
                                   .exchange = s->exchange,
                                   .agent = c->peer.agent,
                                   .digest = s->digest,
                                   .size = s->size};
        c->receiving = false;
        lane_submit(w, 0, OP_SEAL, &it);
    }
}

static void on_fetch(struct world *w, struct sim_conn *c, const struct sim_msg *m)
{
    struct fl_err e = {0};
    int r = fl_peer_fetch(&c->peer, &m->digest, 0, 100, &e);
    struct sim_msg object = {.type = MSG_OBJECT, .digest = m->digest};

    if (r == 0) {
        net_down(w, c->id, &object);
    } else {
        say(w, c, MSG_REFUSE, &c->peer.task, NULL, r);
    }
}

static enum fl_peer_msg kind_of(const struct sim_msg *m)
{
    switch (m->type) {
    case MSG_HELLO:
        return FL_PEER_MSG_HELLO;
    case MSG_ASK:
        return FL_PEER_MSG_ASK;
    case MSG_ACCEPT:
        return FL_PEER_MSG_ACCEPT;
    case MSG_DECLINE:
        return FL_PEER_MSG_DECLINE;
    case MSG_FETCH:
        return FL_PEER_MSG_FETCH;
    case MSG_OFFER:
        return FL_PEER_MSG_OFFER;
    default:
        return FL_PEER_MSG_OTHER;
    }
}

void coordinator_message(struct world *w, struct sim_conn *c, const struct sim_msg *m)
{
    struct fl_err e = {0};
    uint64_t agent = c->peer.agent;
    struct fl_round_event ev = {
        .round = m->key.round, .exchange = m->key.exchange, .agent = agent, .status = m->reason};

    if (m->type == MSG_CHUNK) {
        on_chunk(w, c, m);
        return;
    }
    int r = fl_peer_step(&c->peer, kind_of(m), m->has_key ? &m->key : NULL, w->now, &e);
    if (r < 0) {
        sim_fail(w, "agent %d errs: %s", (int)agent, e.msg);
    }
    if (r == FL_PEER_STALE) {
        return;
    }
    switch (m->type) {
    case MSG_HELLO:
        if (fl_peer_hello(&c->peer, 1, 1, 1, 1, &e) != 0) {
            sim_fail(w, "hello: %s", e.msg);
        }
        say(w, c, MSG_WELCOME, &no_key, NULL, 0);
        break;
    case MSG_ASK:
        fl_roster_set(w->c.roster, agent, FL_ROSTER_ASKING, 0, w->now);
        ev.type = FL_ROUND_EV_AVAILABLE;
        coordinator_tell(w, &ev);
        break;
    case MSG_ACCEPT:
        ev.type = FL_ROUND_EV_ACCEPTED;
        coordinator_tell(w, &ev);
        break;
    case MSG_DECLINE:
        fl_roster_set(w->c.roster, agent, FL_ROSTER_IDLE, 0, w->now);
        ev.type = FL_ROUND_EV_DECLINED;
        coordinator_tell(w, &ev);
        break;
    case MSG_FETCH:
        on_fetch(w, c, m);
        break;
    default:
        on_offer(w, c, m);
        break;
    }
}
