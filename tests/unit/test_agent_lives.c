/*
 * Thousands of bad days of an agent. Everything is a model: the disk (what an operation left behind
 * when the process died in the middle of it), the coordinator, the connection. What must hold in
 * each: nothing is trained without a durable intent, nothing is offered without a durable debit, no
 * key is ever offered with two digests, and once the faults end every debited update is settled.
 */
#include "client/core/agent.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static const struct fl_agent_conf usual = {.backoff_min_ms = 1000,
                                           .backoff_max_ms = 60000,
                                           .patience_ms = 120000,
                                           .drain_ms = 30000,
                                           .max_base = 1 << 30};

enum { ROUNDS = 40, CACHE = 2 * ROUNDS };

struct update {
    bool intent, sealed, debited, settled;
    uint64_t seed;
    struct fl_digest digest; /* a function of seed and round */
    bool offered;
    struct fl_digest offered_digest;
};

/* What survives a crash of the agent. */
struct disk {
    struct update of[ROUNDS];
    bool plan, base[ROUNDS], input[ROUNDS];
    bool final_done;
};

struct world {
    struct fl_rng rng;
    struct fl_agent_conf conf;
    struct fl_agent a;
    struct disk disk;
    uint64_t now_ms;
    uint16_t minute;
    bool faults; /* anything may go wrong */
    /* the operation in flight */
    bool busy, cancelled;
    enum fl_agent_state op;
    uint64_t round; /* it is about */
    bool final;
    /* connection: 0 none, 1 opening, 2 open; an upload and an answer due */
    int link;
    bool welcome_due, uploading, ask_due, offer_due, over_due;
    bool stopped;
    uint64_t current; /* the coordinator's round */
    bool committed[ROUNDS];
    uint64_t steps, crashes, offers;
};

static bool chance(struct world *w, unsigned percent)
{
    return fl_rng_below(&w->rng, 100) < percent;
}

static bool fault(struct world *w, unsigned percent)
{
    return w->faults && chance(w, percent);
}

static void world_step(struct world *w, struct fl_agent_event *ev);

static void boot(struct world *w)
{
    struct fl_seed seed;
    struct fl_agent_event ev = {.type = FL_AGENT_EV_START};

    fl_rng_bytes(&w->rng, seed.bytes, sizeof seed.bytes);
    fl_agent_init(&w->a, &w->conf, &seed);
    w->busy = w->uploading = w->ask_due = w->offer_due = w->over_due = w->welcome_due = false;
    w->link = 0;
    w->stopped = false;
    world_step(w, &ev);
}

static void update_digest(const struct update *u, uint64_t round, struct fl_digest *ret)
{
    uint64_t in[2] = {u->seed, round};
    fl_digest_of(in, sizeof in, ret);
}

/* What the operation in flight does to the disk. A crash may come before or after. */
static int effect(struct world *w)
{
    struct update *u = &w->disk.of[w->round];

    switch (w->op) {
    case FL_AGENT_STATE_FETCH_PLAN:
        w->disk.plan = true;
        break;
    case FL_AGENT_STATE_FETCH_BASE:
        w->disk.base[w->round] = true;
        break;
    case FL_AGENT_STATE_FETCH_INPUT:
        w->disk.input[w->round] = true;
        break;
    case FL_AGENT_STATE_INTENT:
        if (!u->intent) {
            u->intent = true;
            u->seed = fl_rng_u64(&w->rng);
        }
        break;
    case FL_AGENT_STATE_TRAIN:
        ck_assert(u->intent && w->disk.base[w->round] && w->disk.input[w->round]);
        break;
    case FL_AGENT_STATE_SEAL:
        ck_assert(u->intent);
        u->sealed = true;
        update_digest(u, w->round, &u->digest);
        break;
    case FL_AGENT_STATE_HOLD:
        ck_assert(u->sealed && !u->debited);
        break;
    case FL_AGENT_STATE_DEBIT:
        ck_assert(u->sealed && !u->settled);
        u->debited = true;
        break;
    case FL_AGENT_STATE_MARK:
        ck_assert(u->debited);
        u->settled = true;
        break;
    case FL_AGENT_STATE_EVALUATE:
        w->disk.final_done = true;
        break;
    default:
        break;
    }
    return 0;
}

static void fill_offer(struct world *w, uint64_t round, struct fl_agent_offer *offer)
{
    memset(offer, 0, sizeof *offer);
    offer->key.round = round;
    offer->digest = w->disk.of[round].digest;
    offer->size = 100;
}

static void finish_op(struct world *w)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_DONE, .op = w->op, .costs = true};
    struct update *u = &w->disk.of[w->round];

    w->busy = false;
    if (w->cancelled && chance(w, 80)) {
        ev.status = -FL_R_CANCELLED;
    } else if (fault(w, 5)) {
        ev.status = -(int)(chance(w, 50) ? FL_R_DISK_FULL : FL_R_LEDGER);
        if (w->op == FL_AGENT_STATE_DEBIT && chance(w, 50)) {
            effect(w); /* it said no and is durable all the same */
        }
    } else if (w->op == FL_AGENT_STATE_FETCH_PLAN || w->op == FL_AGENT_STATE_FETCH_BASE ||
               w->op == FL_AGENT_STATE_FETCH_INPUT) {
        ev.status = w->link == 2 ? effect(w) : -FL_R_PEER_CLOSED;
    } else {
        ev.status = effect(w);
    }
    if (ev.status == 0 && w->op == FL_AGENT_STATE_PENDING) {
        for (uint64_t r = 0; r < ROUNDS && !ev.have; r++) {
            if (w->disk.of[r].debited && !w->disk.of[r].settled) {
                fill_offer(w, r, &ev.offer);
                ev.have = FL_AGENT_HAVE_RELEASE;
            }
        }
    } else if (ev.status == 0 && w->op == FL_AGENT_STATE_LOOK) {
        ev.have = (w->disk.plan ? FL_AGENT_HAVE_PLAN : 0u) |
                  (w->disk.base[w->round] ? FL_AGENT_HAVE_BASE : 0u) |
                  (w->disk.input[w->round] ? FL_AGENT_HAVE_INPUT : 0u);
        if (w->final) {
            ev.have |= w->disk.final_done ? FL_AGENT_HAVE_SETTLED : 0u;
        } else if (u->settled) {
            ev.have |= FL_AGENT_HAVE_SETTLED;
        } else if (u->debited) {
            ev.have |= FL_AGENT_HAVE_RELEASE;
            fill_offer(w, w->round, &ev.offer);
        }
    } else if (ev.status == 0 && w->op == FL_AGENT_STATE_SEAL) {
        fill_offer(w, w->round, &ev.offer);
    }
    world_step(w, &ev);
}

static void perform(struct world *w, const struct fl_agent_item *item)
{
    switch (item->type) {
    case FL_AGENT_DO_CONNECT:
        ck_assert_int_eq(w->link, 0);
        w->link = 1;
        break;
    case FL_AGENT_DO_HELLO:
        w->welcome_due = true;
        break;
    case FL_AGENT_DO_CLOSE:
        ck_assert_int_ne(w->link, 0);
        w->link = 3; /* closed by us: CLOSED is due */
        break;
    case FL_AGENT_DO_ASK:
        w->ask_due = true;
        break;
    case FL_AGENT_DO_OP:
        ck_assert(!w->busy); /* one operation at a time */
        w->busy = true;
        w->cancelled = false;
        w->op = item->op;
        w->final = w->a.task.final;
        w->round = item->op == FL_AGENT_STATE_MARK ? w->a.offer.key.round : w->a.task.key.round;
        break;
    case FL_AGENT_DO_CANCEL:
        ck_assert(w->busy);
        w->cancelled = true;
        break;
    case FL_AGENT_DO_OFFER: {
        struct update *u = &w->disk.of[item->key.round];
        ck_assert(u->debited);
        ck_assert(fl_digest_equal(&w->a.offer.digest, &u->digest));
        ck_assert(!u->offered || fl_digest_equal(&u->offered_digest, &u->digest));
        u->offered = true;
        u->offered_digest = u->digest;
        w->offer_due = true;
        w->offers++;
        break;
    }
    case FL_AGENT_DO_UPLOAD:
        ck_assert(!w->uploading);
        w->uploading = true;
        break;
    case FL_AGENT_DO_STOP_UPLOAD:
        break; /* SENT comes when it comes */
    case FL_AGENT_DO_DROP:
        ck_assert(!w->busy);
        break;
    case FL_AGENT_DO_STOPPED:
        ck_assert(w->link == 0 && !w->busy);
        w->stopped = true;
        break;
    default:
        break;
    }
}

static void world_step(struct world *w, struct fl_agent_event *ev)
{
    struct fl_agent_todo todo;

    ev->now_ms = w->now_ms;
    ev->minute = w->minute;
    fl_agent_step(&w->a, ev, &todo);
    w->steps++;
    for (uint32_t i = 0; i < todo.count; i++) {
        perform(w, &todo.at[i]);
    }
}

static void lose_link(struct world *w, uint32_t retry_ms)
{
    struct fl_agent_event ev = {
        .type = FL_AGENT_EV_CLOSED, .status = -FL_R_PEER_CLOSED, .retry_ms = retry_ms};
    w->link = 0;
    w->uploading = w->ask_due = w->offer_due = w->over_due = w->welcome_due = false;
    world_step(w, &ev);
}

static void answer_ask(struct world *w)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_TASK};

    w->ask_due = false;
    if (w->current < ROUNDS && !fault(w, 15)) {
        ev.task = (struct fl_agent_task){.key = {.round = w->current},
                                         .job = "demo",
                                         .plan_size = 10,
                                         .base_size = 400,
                                         .input_size = 30,
                                         .update_size = 100,
                                         .deadline_left_ms = 60000 + fl_rng_below(&w->rng, 60000)};
        world_step(w, &ev);
        return;
    }
    struct fl_agent_task final = {.key = {.round = ROUNDS - 1}, .plan_size = 5, .base_size = 400};
    ev.type = FL_AGENT_EV_REST;
    ev.status = -FL_R_NO_WORK;
    ev.retry_ms = chance(w, 50) ? 2000 : 0;
    if (w->current >= ROUNDS) {
        ev.finals = &final;
        ev.final_count = 1;
    }
    world_step(w, &ev);
}

/* An answer to the offer, or to an upload that is complete. */
static void answer_offer(struct world *w, bool complete)
{
    struct fl_agent_event ev = {.has_key = true, .key = w->a.offer.key};
    uint64_t r = ev.key.round;

    w->offer_due = false;
    ev.digest = w->a.offer.digest;
    if (fault(w, 10)) {
        ev.type = FL_AGENT_EV_REFUSE;
        ev.status = -(int)(chance(w, 70) ? FL_R_BUSY : FL_R_NOT_MEMBER);
    } else if (w->committed[r]) {
        ev.type = FL_AGENT_EV_ACK;
    } else if (r != w->current) {
        ev.type = FL_AGENT_EV_OVER;
        ev.status = -FL_R_ROUND_OVER;
    } else if (complete) {
        ev.type = FL_AGENT_EV_ACK;
        w->committed[r] = true;
        w->current++;
        if (fault(w, 20)) {
            return; /* committed, the acknowledgement is lost */
        }
    } else {
        ev.type = FL_AGENT_EV_RESUME;
        ev.offset = chance(w, 50) ? 0 : fl_rng_below(&w->rng, 100);
    }
    world_step(w, &ev);
}

/* One thing that may happen next; false when only time can help. */
static bool happen(struct world *w)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_TICK};
    unsigned pick = (unsigned)fl_rng_below(&w->rng, 6);

    for (unsigned i = 0; i < 6; i++) {
        switch ((pick + i) % 6) {
        case 0:
            if (w->busy) {
                finish_op(w);
                return true;
            }
            break;
        case 1:
            if (w->link == 3 || (w->link == 1 && fault(w, 30))) {
                lose_link(w, 0);
                return true;
            }
            if (w->link == 1) {
                w->link = 2;
                ev.type = FL_AGENT_EV_OPENED;
                world_step(w, &ev);
                return true;
            }
            break;
        case 2:
            if (w->link == 2 && w->welcome_due) {
                w->welcome_due = false;
                ev.type = FL_AGENT_EV_WELCOME;
                ev.coordinator[0] = 1;
                world_step(w, &ev);
                return true;
            }
            break;
        case 3:
            if (w->link == 2 && w->ask_due) {
                answer_ask(w);
                return true;
            }
            break;
        case 4:
            if (w->link == 2 && w->offer_due && w->a.state == FL_AGENT_STATE_DELIVER) {
                answer_offer(w, false);
                return true;
            }
            break;
        case 5:
            if (w->link == 2 && w->uploading) {
                w->uploading = false;
                ev.type = FL_AGENT_EV_SENT;
                ev.status = fault(w, 10) ? -FL_R_CANCELLED : 0;
                world_step(w, &ev);
                if (w->link == 2 && w->a.state == FL_AGENT_STATE_DELIVER && !w->uploading &&
                    w->a.deliver == FL_AGENT_DELIVER_SENT) {
                    answer_offer(w, true);
                }
                return true;
            }
            break;
        default:
            break;
        }
    }
    return false;
}

static void trouble(struct world *w)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_OVER, .status = -FL_R_ROUND_OVER};

    if (chance(w, 3)) { /* power cut: an operation in flight happened or did not */
        if (w->busy && chance(w, 50)) {
            effect(w);
        }
        w->crashes++;
        boot(w);
    } else if (w->link == 2 && chance(w, 4)) {
        lose_link(w, chance(w, 20) ? 5000 : 0);
    } else if (w->current < ROUNDS && chance(w, 2)) { /* the round closes without us */
        ev.key.round = w->current++;
        if (w->link == 2 && !w->welcome_due && w->a.link == FL_AGENT_LINK_UP) {
            world_step(w, &ev);
        }
    } else if (chance(w, 1)) {
        ev = (struct fl_agent_event){.type = FL_AGENT_EV_STOP};
        world_step(w, &ev);
    } else if (w->conf.window_from != w->conf.window_to && chance(w, 3)) {
        w->minute = (uint16_t)fl_rng_below(&w->rng, FL_AGENT_DAY);
        ev = (struct fl_agent_event){.type = FL_AGENT_EV_TICK};
        world_step(w, &ev);
    }
}

static void pass_time(struct world *w)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_TICK};
    uint64_t at = fl_agent_deadline(&w->a);

    ck_assert_msg(at != UINT64_MAX || w->stopped, "nothing is due in %s",
                  fl_agent_state_name(w->a.state));
    if (w->stopped) {
        boot(w);
        return;
    }
    if (at > w->now_ms) {
        uint64_t minutes = (at - w->now_ms) / 60000;
        w->minute = (uint16_t)((w->minute + minutes) % FL_AGENT_DAY);
        w->now_ms = at;
    }
    world_step(w, &ev);
}

static void one_life(uint64_t number, uint64_t *ret_crashes, uint64_t *ret_offers)
{
    struct world w = {.faults = true};
    struct fl_seed seed;
    bool all = false;

    fl_seed_from_u64(number, &seed);
    fl_rng_init(&w.rng, &seed, 0);
    w.conf = usual;
    w.conf.hold = number % 4 == 1;
    if (number % 3 == 0) {
        w.conf.window_from = 22 * 60;
        w.conf.window_to = 6 * 60;
    }
    w.now_ms = 1;
    boot(&w);
    for (uint64_t i = 0; i < 3000 && w.current < ROUNDS; i++) {
        trouble(&w);
        if (!happen(&w)) {
            pass_time(&w);
        }
    }
    w.faults = false;
    boot(&w);
    for (uint64_t i = 0; i < 20000 && !all; i++) {
        if (!happen(&w)) {
            pass_time(&w);
        }
        all = w.current >= ROUNDS && w.disk.final_done && !w.busy;
        for (uint64_t r = 0; all && r < ROUNDS; r++) {
            all = !w.disk.of[r].debited || w.disk.of[r].settled;
        }
    }
    ck_assert_msg(all, "seed %llu: not everything is settled; state %s, round %llu",
                  (unsigned long long)number, fl_agent_state_name(w.a.state),
                  (unsigned long long)w.current);
    *ret_crashes += w.crashes;
    *ret_offers += w.offers;
}

START_TEST(test_bad_days)
{
    const char *from = getenv("TESTS_SEED");
    uint64_t first = from ? strtoull(from, NULL, 10) : 1;
    const char *longer = getenv("TESTS_LONG");
    uint64_t lives = from ? 1 : longer && longer[0] == '1' ? 20000 : 1000;
    uint64_t crashes = 0, offers = 0;

    for (uint64_t i = 0; i < lives; i++) {
        one_life(first + i, &crashes, &offers);
    }
    printf("%llu lives, %llu crashes, %llu offers\n", (unsigned long long)lives,
           (unsigned long long)crashes, (unsigned long long)offers);
    ck_assert_uint_gt(crashes, lives);
}
END_TEST

/* Every event in every state the lives go through, including nonsense: no assertion of the machine
 * fires but for an operation's end that was never begun, which no shell can send. */
START_TEST(test_every_event_everywhere)
{
    bool seen[FL_AGENT_STATES][FL_AGENT_EVS] = {{false}};
    struct fl_seed seed;

    for (uint64_t life = 1; life <= 60; life++) {
        struct world w = {.faults = true, .conf = usual, .now_ms = 1};
        w.conf.hold = life % 2 == 0;
        fl_seed_from_u64(life * 1000, &seed);
        fl_rng_init(&w.rng, &seed, 0);
        boot(&w);
        for (int i = 0; i < 400 && w.current < ROUNDS; i++) {
            for (int e = 0; e < FL_AGENT_EVS; e++) {
                struct fl_agent copy = w.a;
                struct fl_agent_todo todo;
                struct fl_agent_event ev = {.type = (enum fl_agent_ev)e,
                                            .now_ms = w.now_ms,
                                            .status = -(int)fl_rng_below(&w.rng, 520),
                                            .has_key = chance(&w, 50),
                                            .key = chance(&w, 50) ? w.a.offer.key : w.a.task.key,
                                            .digest = w.a.offer.digest,
                                            .offset = fl_rng_below(&w.rng, 120),
                                            .op = w.op};
                if (e == FL_AGENT_EV_DONE && !w.busy) {
                    continue;
                }
                seen[w.a.state][e] = true;
                fl_agent_step(&copy, &ev, &todo);
                for (uint32_t k = 0; k < todo.count; k++) {
                    if (todo.at[k].type == FL_AGENT_DO_OP) {
                        ck_assert(!w.busy || e == FL_AGENT_EV_DONE);
                    }
                    if (todo.at[k].type == FL_AGENT_DO_OFFER) {
                        ck_assert_int_eq(copy.state, FL_AGENT_STATE_DELIVER);
                    }
                }
                /* A timer that is due and changes nothing would spin. */
                struct fl_agent_event tick = {.type = FL_AGENT_EV_TICK, .now_ms = w.now_ms};
                for (int k = 0; k < 4 && fl_agent_deadline(&copy) <= w.now_ms; k++) {
                    fl_agent_step(&copy, &tick, &todo);
                }
                ck_assert_msg(fl_agent_deadline(&copy) > w.now_ms, "spins in %s after event %d",
                              fl_agent_state_name(copy.state), e);
            }
            if (!happen(&w)) {
                pass_time(&w);
            }
        }
    }
    for (int s = 0; s < FL_AGENT_STATE_STOPPED; s++) {
        for (int e = 0; e < FL_AGENT_EVS; e++) {
            bool idle = s < FL_AGENT_STATE_PENDING || s == FL_AGENT_STATE_DELIVER;
            ck_assert_msg(
                seen[s][e] || s == FL_AGENT_STATE_EVALUATE || (idle && e == FL_AGENT_EV_DONE),
                "state %s never met event %d", fl_agent_state_name((enum fl_agent_state)s), e);
        }
    }
}
END_TEST

TESTS_MAIN("agent_lives", test_every_event_everywhere, test_bad_days)
