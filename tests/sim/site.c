/* A site: a small shell around the agent's core, as client/host.c is the real one. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

static const struct fl_agent_conf agent_conf = {
    .backoff_min_ms = 20,
    .backoff_max_ms = 2000,
    .patience_ms = 3000,
    .drain_ms = 1000,
    .max_base = 1000,
};

/* ---- life ---- */

void site_start(struct world *w, uint32_t i)
{
    struct site *s = &w->site[i];
    struct fl_seed seed;

    fl_seed_from_u64(fl_rng_u64(&w->rng), &seed);
    s->up = true;
    fl_agent_init(&s->agent, &agent_conf, &seed);
    site_tell(w, i, &(struct fl_agent_event){.type = FL_AGENT_EV_START});
}

static void perform(struct world *w, uint32_t i, struct fl_agent_event *done);

void site_crash(struct world *w, uint32_t i)
{
    struct site *s = &w->site[i];
    struct sim_conn *c = net_find(w, s->conn);

    w->site_crashes++;
    sim_trace(w, "site %c crashes", (char)('a' + i));
    if (s->operating && fl_rng_below(&w->rng, 2) == 0) { /* its disk may have been quicker */
        struct fl_agent_event lost = {.op = s->agent.state};
        perform(w, i, &lost);
    }
    if (c) {
        net_break(w, c);
        c->site_knows = false;
        net_forget(c);
    }
    s->up = s->operating = s->fetching = s->uploading = false;
    s->conn = 0;
    s->epoch++;
    memset(&s->sealed, 0, sizeof s->sealed);
    sim_at(w, w->conf.steady ? 100 : sim_delay(w, 1000), EV_SITE_START)->site = i;
}

/* ---- operations ---- */

static struct site_release *find_release(struct site *s, const struct fl_key *key)
{
    for (uint32_t i = 0; i < s->releases; i++) {
        if (fl_key_equal(&s->release[i].offer.key, key)) {
            return &s->release[i];
        }
    }
    return NULL;
}

/* The same key has the same inputs for ever: the coordinator froze them. */
static void law_intent(struct world *w, uint32_t site)
{
    struct site *s = &w->site[site];
    const struct fl_agent_task *t = &s->agent.task;

    for (uint32_t i = 0; i < s->intents; i++) {
        if (fl_key_equal(&s->intent[i], &t->key)) {
            if (!fl_digest_equal(&s->intent_base[i], &t->base)) {
                sim_fail(w, "site %u: the base of round %d changed", site, (int)t->key.round);
            }
            return;
        }
    }
    if (s->intents == RECORDS_MAX) {
        sim_fail(w, "too many intents");
    }
    s->intent[s->intents] = t->key;
    s->intent_base[s->intents++] = t->base;
}

/* Integers that depend on who, for what, and from which model. */
static void make_update(struct world *w, uint32_t site)
{
    struct site *s = &w->site[site];
    const struct fl_agent_task *t = &s->agent.task;
    struct fl_digest mix;
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, &site, sizeof site);
    fl_hash_add(&h, &t->key.round, sizeof t->key.round);
    fl_hash_add(&h, &t->key.exchange, sizeof t->key.exchange);
    fl_hash_add(&h, &t->base, sizeof t->base);
    fl_hash_end(&h, &mix);
    for (uint32_t k = 0; k < ELEMENTS; k++) {
        int value = (int)mix.bytes[k] - 127;
        s->sealed_bytes[2 * k] = (uint8_t)(value & 0xff);
        s->sealed_bytes[2 * k + 1] = (uint8_t)((value >> 8) & 0xff);
    }
    s->sealed = (struct fl_agent_offer){.key = t->key,
                                        .plan = t->plan,
                                        .base = t->base,
                                        .size = UPDATE_SIZE,
                                        .weight = 1 + site % 4};
    fl_digest_of(s->sealed_bytes, UPDATE_SIZE, &s->sealed.digest);
}

static void debit(struct world *w, uint32_t site)
{
    struct site *s = &w->site[site];
    struct site_release *r = find_release(s, &s->agent.offer.key);

    if (r) {
        if (!fl_digest_equal(&r->offer.digest, &s->agent.offer.digest)) {
            sim_fail(w, "site %u released two different updates", site);
        }
        return;
    }
    if (s->releases == RECORDS_MAX) {
        sim_fail(w, "too many releases");
    }
    r = &s->release[s->releases++];
    *r = (struct site_release){.offer = s->agent.offer};
    memcpy(r->bytes, s->sealed_bytes, sizeof r->bytes);
}

static void perform(struct world *w, uint32_t i, struct fl_agent_event *done)
{
    struct site *s = &w->site[i];
    struct site_release *r;

    switch (done->op) {
    case FL_AGENT_STATE_PENDING:
        for (uint32_t k = 0; k < s->releases; k++) {
            if (!s->release[k].settled) {
                done->have = FL_AGENT_HAVE_RELEASE;
                done->offer = s->release[k].offer;
            }
        }
        break;
    case FL_AGENT_STATE_LOOK:
        r = find_release(s, &s->agent.task.key);
        if (r) {
            done->have = r->settled ? FL_AGENT_HAVE_SETTLED : FL_AGENT_HAVE_RELEASE;
            done->offer = r->offer;
        }
        break;
    case FL_AGENT_STATE_JUDGE:
        done->costs = true;
        done->status = sim_chance(w, w->conf.declines) ? -FL_R_BUDGET_SPENT : 0;
        break;
    case FL_AGENT_STATE_INTENT:
        law_intent(w, i);
        break;
    case FL_AGENT_STATE_SEAL:
        make_update(w, i);
        done->offer = s->sealed;
        break;
    case FL_AGENT_STATE_DEBIT:
        debit(w, i);
        break;
    case FL_AGENT_STATE_MARK:
        r = find_release(s, &s->agent.offer.key);
        if (r) {
            r->settled = true;
        }
        break;
    default:
        break;
    }
}

static void operate(struct world *w, uint32_t i, enum fl_agent_state op)
{
    struct site *s = &w->site[i];
    uint64_t takes = op == FL_AGENT_STATE_TRAIN ? 400 : 20;

    s->operating = true;
    s->cancelled = false;
    s->operation++;
    if (op == FL_AGENT_STATE_FETCH_PLAN || op == FL_AGENT_STATE_FETCH_BASE) {
        struct sim_msg m = {.type = MSG_FETCH};
        m.digest = op == FL_AGENT_STATE_FETCH_PLAN ? s->agent.task.plan : s->agent.task.base;
        s->fetching = true;
        net_up(w, s->conn, &m);
        return;
    }
    struct sim_event *ev = sim_at(w, sim_delay(w, takes), EV_SITE_OP);
    ev->site = i;
    ev->epoch = s->epoch;
    ev->number = s->operation;
}

void site_operated(struct world *w, uint32_t i)
{
    struct site *s = &w->site[i];
    struct fl_agent_event done = {.type = FL_AGENT_EV_DONE, .op = s->agent.state};

    if (sim_chance(w, w->conf.site_crashes)) {
        site_crash(w, i);
        return;
    }
    if (s->cancelled) {
        done.status = -FL_R_CANCELLED;
    } else {
        perform(w, i, &done);
    }
    s->operating = s->fetching = false;
    site_tell(w, i, &done);
}

static void cancel(struct world *w, uint32_t i)
{
    struct site *s = &w->site[i];

    s->cancelled = true;
    s->operation++; /* whatever was to end it no longer does */
    struct sim_event *ev = sim_at(w, 1, EV_SITE_OP);
    ev->site = i;
    ev->epoch = s->epoch;
    ev->number = s->operation;
}

/* ---- uploads ---- */

static void chunk_soon(struct world *w, uint32_t i)
{
    struct sim_event *ev = sim_at(w, sim_delay(w, 30), EV_SITE_CHUNK);
    ev->site = i;
    ev->epoch = w->site[i].epoch;
    ev->number = w->site[i].upload;
}

void site_chunk(struct world *w, uint32_t i)
{
    struct site *s = &w->site[i];
    struct site_release *r = find_release(s, &s->agent.offer.key);

    if (!r) {
        sim_fail(w, "site %u uploads what it never released", i);
    }
    if (s->upload_at >= UPDATE_SIZE) {
        s->uploading = false;
        site_tell(w, i, &(struct fl_agent_event){.type = FL_AGENT_EV_SENT});
        return;
    }
    uint64_t n = UPDATE_SIZE - s->upload_at < CHUNK ? UPDATE_SIZE - s->upload_at : CHUNK;
    struct sim_msg m = {
        .type = MSG_CHUNK, .digest = r->offer.digest, .offset = s->upload_at, .size = n};
    memcpy(m.data, r->bytes + s->upload_at, n);
    s->upload_at += n;
    net_up(w, s->conn, &m);
    chunk_soon(w, i);
}

/* ---- messages and items ---- */

void site_closed(struct world *w, uint32_t i, int status)
{
    struct site *s = &w->site[i];

    s->conn = 0;
    s->uploading = false;
    if (s->up) {
        site_tell(w, i, &(struct fl_agent_event){.type = FL_AGENT_EV_CLOSED, .status = status});
    }
}

void site_message(struct world *w, uint32_t i, const struct sim_msg *m)
{
    struct site *s = &w->site[i];
    struct fl_agent_event ev = {.key = m->key,
                                .has_key = m->has_key,
                                .digest = m->digest,
                                .offset = m->offset,
                                .status = m->reason};

    switch (m->type) {
    case MSG_WELCOME:
        ev.type = FL_AGENT_EV_WELCOME;
        memcpy(ev.coordinator, "the coordinator", 16);
        break;
    case MSG_TASK:
        ev.type = FL_AGENT_EV_TASK;
        ev.task = (struct fl_agent_task){.key = m->key,
                                         .job = "job",
                                         .plan = m->plan,
                                         .base = m->base,
                                         .plan_size = 100,
                                         .base_size = 100,
                                         .update_size = m->size,
                                         .deadline_left_ms = m->left_ms};
        break;
    case MSG_OBJECT:
        if (s->fetching && s->operating && !s->cancelled) {
            site_operated(w, i);
        }
        return;
    case MSG_RESUME:
        ev.type = FL_AGENT_EV_RESUME;
        break;
    case MSG_ACK:
        ev.type = FL_AGENT_EV_ACK;
        law_acked_is_durable(w, i + 1, &m->key, &m->digest);
        break;
    case MSG_OVER:
        ev.type = FL_AGENT_EV_OVER;
        break;
    case MSG_REFUSE:
        ev.type = FL_AGENT_EV_REFUSE;
        break;
    default:
        sim_fail(w, "message %d is not for a site", m->type);
    }
    site_tell(w, i, &ev);
}

static void send_offer(struct world *w, uint32_t i)
{
    struct site *s = &w->site[i];
    const struct fl_agent_offer *o = &s->agent.offer;
    const struct site_release *r = find_release(s, &o->key);

    if (!r || !fl_digest_equal(&r->offer.digest, &o->digest)) {
        sim_fail(w, "site %u offers what it never released", i);
    }
    struct sim_msg m = {.type = MSG_OFFER,
                        .key = o->key,
                        .has_key = true,
                        .digest = o->digest,
                        .plan = o->plan,
                        .base = o->base,
                        .size = o->size,
                        .weight = o->weight};
    net_up(w, s->conn, &m);
}

static void item(struct world *w, uint32_t i, const struct fl_agent_item *it)
{
    struct site *s = &w->site[i];
    struct sim_msg m = {.key = it->key, .has_key = true, .reason = -it->reason};
    struct sim_event *ev;

    switch (it->type) {
    case FL_AGENT_DO_CONNECT:
        ev = sim_at(w, sim_delay(w, 60), EV_CONNECT);
        ev->site = i;
        ev->epoch = s->epoch;
        break;
    case FL_AGENT_DO_HELLO:
        m.type = MSG_HELLO;
        m.has_key = false;
        net_up(w, s->conn, &m);
        break;
    case FL_AGENT_DO_CLOSE:
        if (net_find(w, s->conn)) {
            net_break(w, net_find(w, s->conn));
        }
        break;
    case FL_AGENT_DO_ASK:
        m.type = MSG_ASK;
        m.has_key = false;
        net_up(w, s->conn, &m);
        break;
    case FL_AGENT_DO_ACCEPT:
        m.type = MSG_ACCEPT;
        net_up(w, s->conn, &m);
        break;
    case FL_AGENT_DO_DECLINE:
        sim_trace(w, "site %c declines (%s)", (char)('a' + i), fl_reason_name(it->reason));
        m.type = MSG_DECLINE;
        net_up(w, s->conn, &m);
        break;
    case FL_AGENT_DO_OP:
        operate(w, i, it->op);
        break;
    case FL_AGENT_DO_CANCEL:
        cancel(w, i);
        break;
    case FL_AGENT_DO_OFFER:
        send_offer(w, i);
        break;
    case FL_AGENT_DO_UPLOAD:
        s->uploading = true;
        s->upload++;
        s->upload_at = it->offset;
        chunk_soon(w, i);
        break;
    case FL_AGENT_DO_STOP_UPLOAD:
        if (s->uploading) { /* SENT comes by the next chunk's event */
            s->upload_at = UPDATE_SIZE;
        }
        break;
    case FL_AGENT_DO_DROP:
    case FL_AGENT_DO_STOPPED:
        break;
    }
}

void site_tell(struct world *w, uint32_t i, const struct fl_agent_event *given)
{
    struct site *s = &w->site[i];
    struct fl_agent_event ev = *given;
    struct fl_agent_todo todo;
    uint32_t epoch = s->epoch;

    ev.now_ms = w->now;
    fl_agent_step(&s->agent, &ev, &todo);
    for (uint32_t k = 0; k < todo.count && s->up && s->epoch == epoch; k++) {
        if (++w->site_items == w->conf.site_crash_at || sim_chance(w, w->conf.site_crashes)) {
            site_crash(w, i);
            return;
        }
        item(w, i, &todo.at[k]);
    }
}
