/*
 * The agent's machine: its story on a good day, every event in every state, and thousands of bad
 * days. In the bad days everything is a model: the disk (what an operation left behind when the
 * process died in the middle of it), the coordinator, the connection. What must hold in each:
 * nothing is trained without a durable intent, nothing is offered without a durable debit, no key
 * is ever offered with two digests, and once the faults end every debited update is settled.
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

/* ---- one agent by hand --------------------------------------------------------------------------
 */

struct hand {
    struct fl_agent a;
    struct fl_agent_todo todo;
    uint64_t now_ms;
    uint16_t minute;
    char trace[4096];
    size_t trace_size;
};

static const char *const do_names[] = {"connect",     "hello", "close",  "ask",   "accept",
                                       "decline",     "op",    "cancel", "offer", "upload",
                                       "stop-upload", "drop",  "stopped"};

static void hand_init(struct hand *h, const struct fl_agent_conf *conf)
{
    struct fl_seed seed;

    memset(h, 0, sizeof *h);
    fl_seed_from_u64(7, &seed);
    fl_agent_init(&h->a, conf, &seed);
    h->now_ms = 1000;
}

static void hand_step(struct hand *h, struct fl_agent_event *ev)
{
    ev->now_ms = h->now_ms;
    ev->minute = h->minute;
    fl_agent_step(&h->a, ev, &h->todo);
    for (uint32_t i = 0; i < h->todo.count; i++) {
        const struct fl_agent_item *item = &h->todo.at[i];
        const char *word =
            item->type == FL_AGENT_DO_OP ? fl_agent_state_name(item->op) : do_names[item->type];
        int n = snprintf(h->trace + h->trace_size, sizeof h->trace - h->trace_size, "%s%s",
                         h->trace_size ? " " : "", word);
        ck_assert(n > 0 && (size_t)n < sizeof h->trace - h->trace_size);
        h->trace_size += (size_t)n;
    }
}

static void simple(struct hand *h, enum fl_agent_ev type)
{
    struct fl_agent_event ev = {.type = type};
    hand_step(h, &ev);
}

static void done(struct hand *h, enum fl_agent_state op, int status, unsigned have)
{
    struct fl_agent_event ev = {
        .type = FL_AGENT_EV_DONE, .op = op, .status = status, .have = have, .costs = true};
    if (op == FL_AGENT_STATE_SEAL || (have & FL_AGENT_HAVE_RELEASE)) {
        ev.offer.key = h->a.task.key;
        ev.offer.size = 100;
        ev.offer.digest.bytes[0] = 42;
        snprintf(ev.offer.job, sizeof ev.offer.job, "%s", h->a.task.job);
    }
    hand_step(h, &ev);
}

static void task(struct hand *h, uint64_t round)
{
    struct fl_agent_event ev = {.type = FL_AGENT_EV_TASK,
                                .task = {.key = {.round = round},
                                         .job = "demo",
                                         .plan_size = 10,
                                         .base_size = 400,
                                         .update_size = 100,
                                         .deadline_left_ms = 600000}};
    ev.task.base.bytes[0] = (uint8_t)round;
    hand_step(h, &ev);
}

static struct fl_agent_event about_offer(struct hand *h, enum fl_agent_ev type)
{
    struct fl_agent_event ev = {.type = type, .has_key = true, .key = h->a.offer.key};
    ev.digest = h->a.offer.digest;
    return ev;
}

static void said(struct hand *h, const char *expected)
{
    ck_assert_str_eq(h->trace, expected);
    h->trace_size = 0;
    h->trace[0] = '\0';
}

/* To "asked": connected, nothing pending. */
static void to_ask(struct hand *h)
{
    simple(h, FL_AGENT_EV_START);
    simple(h, FL_AGENT_EV_OPENED);
    simple(h, FL_AGENT_EV_WELCOME);
    done(h, FL_AGENT_STATE_PENDING, 0, 0);
    said(h, "connect hello pending ask");
}

static void to_train(struct hand *h)
{
    to_ask(h);
    task(h, 1);
    done(h, FL_AGENT_STATE_LOOK, 0, 0);
    done(h, FL_AGENT_STATE_FETCH_PLAN, 0, 0);
    done(h, FL_AGENT_STATE_JUDGE, 0, 0);
    done(h, FL_AGENT_STATE_FETCH_BASE, 0, 0);
    done(h, FL_AGENT_STATE_INTENT, 0, 0);
    said(h, "look fetch-plan judge accept fetch-base intent train");
}

static void to_deliver(struct hand *h)
{
    to_train(h);
    done(h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(h, FL_AGENT_STATE_SEAL, 0, 0);
    done(h, FL_AGENT_STATE_DEBIT, 0, 0);
    said(h, "seal debit offer");
}

START_TEST(test_good_day)
{
    struct hand h;
    struct fl_agent_event ev;

    hand_init(&h, &usual);
    to_deliver(&h);
    ev = about_offer(&h, FL_AGENT_EV_RESUME);
    hand_step(&h, &ev);
    simple(&h, FL_AGENT_EV_SENT);
    ev = about_offer(&h, FL_AGENT_EV_ACK);
    hand_step(&h, &ev);
    ck_assert_int_eq(h.a.outcome, 0);
    done(&h, FL_AGENT_STATE_MARK, 0, 0);
    said(&h, "upload mark drop ask");
    /* The next round: the plan is in the cache. */
    task(&h, 2);
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_PLAN);
    done(&h, FL_AGENT_STATE_JUDGE, 0, 0);
    said(&h, "look judge accept fetch-base");
}
END_TEST

START_TEST(test_training_survives_the_link)
{
    struct hand h;

    hand_init(&h, &usual);
    to_train(&h);
    simple(&h, FL_AGENT_EV_CLOSED);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    done(&h, FL_AGENT_STATE_DEBIT, 0, 0);
    said(&h, "seal debit");
    h.now_ms = fl_agent_deadline(&h.a);
    simple(&h, FL_AGENT_EV_TICK);
    simple(&h, FL_AGENT_EV_OPENED);
    simple(&h, FL_AGENT_EV_WELCOME);
    said(&h, "connect hello offer");
}
END_TEST

START_TEST(test_offer_again_after_each_reconnection)
{
    struct hand h;
    struct fl_agent_event ev;

    hand_init(&h, &usual);
    to_deliver(&h);
    for (int i = 0; i < 5; i++) {
        ev = about_offer(&h, FL_AGENT_EV_RESUME);
        ev.offset = (uint64_t)i * 10;
        hand_step(&h, &ev);
        said(&h, "upload");
        ck_assert_uint_eq(h.todo.at[0].offset, (uint64_t)i * 10);
        simple(&h, FL_AGENT_EV_CLOSED);
        h.now_ms += 60000;
        simple(&h, FL_AGENT_EV_TICK);
        simple(&h, FL_AGENT_EV_OPENED);
        simple(&h, FL_AGENT_EV_WELCOME);
        /* a link may reconnect at once when jitter says 0 */
        ck_assert_ptr_nonnull(strstr(h.trace, "hello offer"));
        h.trace_size = 0;
        h.trace[0] = '\0';
    }
    /* A Resume during an upload (the bytes arrived damaged): the running one ends, then again. */
    ev = about_offer(&h, FL_AGENT_EV_RESUME);
    hand_step(&h, &ev);
    hand_step(&h, &ev);
    said(&h, "upload stop-upload");
    ev = (struct fl_agent_event){.type = FL_AGENT_EV_SENT, .status = -FL_R_CANCELLED};
    hand_step(&h, &ev);
    said(&h, "upload");
}
END_TEST

START_TEST(test_temporary_refusal_is_offered_again)
{
    struct hand h;
    struct fl_agent_event ev;

    hand_init(&h, &usual);
    to_deliver(&h);
    ev = about_offer(&h, FL_AGENT_EV_REFUSE);
    ev.status = -FL_R_DISK_FULL;
    hand_step(&h, &ev);
    said(&h, "");
    ck_assert_uint_ge(fl_agent_deadline(&h.a), h.now_ms + 1000);
    h.now_ms = fl_agent_deadline(&h.a);
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "offer");
    /* Bytes that arrive damaged again and again are not worth a loop. */
    for (int i = 0; i < FL_AGENT_DAMAGED_MAX - 1; i++) {
        ev = about_offer(&h, FL_AGENT_EV_REFUSE);
        ev.status = -FL_R_UPDATE_DIGEST;
        hand_step(&h, &ev);
        h.now_ms = fl_agent_deadline(&h.a);
        simple(&h, FL_AGENT_EV_TICK);
        said(&h, "offer");
    }
    hand_step(&h, &ev);
    said(&h, "decline mark");
    ck_assert_int_eq(h.a.outcome, -FL_R_UPDATE_DIGEST);
}
END_TEST

START_TEST(test_over)
{
    struct hand h;
    struct fl_agent_event ev = {.type = FL_AGENT_EV_OVER, .status = -FL_R_ROUND_OVER};

    /* during training: cancelled, nothing debited */
    hand_init(&h, &usual);
    to_train(&h);
    ev.key = h.a.task.key;
    hand_step(&h, &ev);
    said(&h, "cancel");
    done(&h, FL_AGENT_STATE_TRAIN, -FL_R_CANCELLED, 0);
    said(&h, "drop ask");
    /* too late to cancel: the debit is under way and then settled */
    hand_init(&h, &usual);
    to_train(&h);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    hand_step(&h, &ev);
    said(&h, "seal debit");
    done(&h, FL_AGENT_STATE_DEBIT, 0, 0);
    said(&h, "mark");
    ck_assert_int_eq(h.a.outcome, -FL_R_ROUND_OVER);
    done(&h, FL_AGENT_STATE_MARK, 0, 0);
    said(&h, "drop ask");
    /* about another key: nothing */
    hand_init(&h, &usual);
    to_train(&h);
    ev.key.round = 99;
    hand_step(&h, &ev);
    said(&h, "");
}
END_TEST

START_TEST(test_decline)
{
    struct hand h;

    hand_init(&h, &usual);
    to_ask(&h);
    task(&h, 1);
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_PLAN | FL_AGENT_HAVE_BASE);
    done(&h, FL_AGENT_STATE_JUDGE, -FL_R_BUDGET_SPENT, 0);
    said(&h, "look judge decline drop");
    ck_assert_int_eq(h.todo.at[0].reason, FL_R_BUDGET_SPENT);
    ck_assert_uint_gt(fl_agent_deadline(&h.a), h.now_ms); /* not a loop */
    h.now_ms += 60000;
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "ask");
    /* an intent that does not fit */
    task(&h, 1);
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_PLAN | FL_AGENT_HAVE_BASE);
    done(&h, FL_AGENT_STATE_JUDGE, 0, 0);
    done(&h, FL_AGENT_STATE_INTENT, -FL_R_INTENT, 0);
    said(&h, "look judge accept intent decline drop");
}
END_TEST

START_TEST(test_no_debit_behind_the_deadline)
{
    struct hand h;

    hand_init(&h, &usual);
    to_train(&h);
    h.now_ms += 600001;
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    said(&h, "seal decline drop");
    ck_assert_int_eq(h.todo.at[0].reason, FL_R_DEADLINE);
}
END_TEST

START_TEST(test_after_a_crash)
{
    struct hand h;
    struct fl_agent_event ev;

    /* debited, not acknowledged: offered before anything is asked */
    hand_init(&h, &usual);
    simple(&h, FL_AGENT_EV_START);
    simple(&h, FL_AGENT_EV_OPENED);
    simple(&h, FL_AGENT_EV_WELCOME);
    done(&h, FL_AGENT_STATE_PENDING, 0, FL_AGENT_HAVE_RELEASE);
    said(&h, "connect hello pending offer");
    ev = about_offer(&h, FL_AGENT_EV_ACK);
    hand_step(&h, &ev);
    done(&h, FL_AGENT_STATE_MARK, 0, 0);
    done(&h, FL_AGENT_STATE_PENDING, 0, 0);
    said(&h, "mark drop pending ask");
    /* found by its task's key */
    task(&h, 3);
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_RELEASE);
    said(&h, "look accept offer");
    /* settled before: declined, not trained again */
    hand_init(&h, &usual);
    to_ask(&h);
    task(&h, 3);
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_SETTLED);
    said(&h, "look decline drop");
}
END_TEST

START_TEST(test_window)
{
    struct fl_agent_conf conf = usual;
    struct hand h;
    struct fl_agent_event ev;

    conf.window_from = 22 * 60;
    conf.window_to = 6 * 60;
    ck_assert(fl_agent_in_window(&conf, 23 * 60));
    ck_assert(fl_agent_in_window(&conf, 0));
    ck_assert(!fl_agent_in_window(&conf, 6 * 60));
    ck_assert(fl_agent_in_window(&usual, 17));
    hand_init(&h, &conf);
    h.minute = 21 * 60;
    simple(&h, FL_AGENT_EV_START);
    said(&h, "");
    ck_assert_uint_eq(fl_agent_deadline(&h.a), h.now_ms + 3600 * 1000);
    h.now_ms += 3600 * 1000;
    h.minute = 22 * 60;
    simple(&h, FL_AGENT_EV_TICK);
    simple(&h, FL_AGENT_EV_OPENED);
    simple(&h, FL_AGENT_EV_WELCOME);
    done(&h, FL_AGENT_STATE_PENDING, 0, 0);
    said(&h, "connect hello pending ask");
    task(&h, 1);
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_PLAN | FL_AGENT_HAVE_BASE);
    done(&h, FL_AGENT_STATE_JUDGE, 0, 0);
    done(&h, FL_AGENT_STATE_INTENT, 0, 0);
    said(&h, "look judge accept intent train");
    h.minute = 6 * 60; /* morning comes: training ends, the coordinator is told */
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "cancel decline");
    done(&h, FL_AGENT_STATE_TRAIN, -FL_R_CANCELLED, 0);
    said(&h, "drop close");
    simple(&h, FL_AGENT_EV_CLOSED);
    said(&h, "");
    /* what is sealed is delivered whatever the hour */
    hand_init(&h, &conf);
    h.minute = 23 * 60;
    to_deliver(&h);
    h.minute = 7 * 60;
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "");
    ev = about_offer(&h, FL_AGENT_EV_ACK);
    hand_step(&h, &ev);
    done(&h, FL_AGENT_STATE_MARK, 0, 0);
    said(&h, "mark drop close");
}
END_TEST

START_TEST(test_drain)
{
    struct hand h;
    struct fl_agent_event ev;

    /* idle: at once */
    hand_init(&h, &usual);
    to_ask(&h);
    simple(&h, FL_AGENT_EV_STOP);
    said(&h, "close");
    simple(&h, FL_AGENT_EV_CLOSED);
    said(&h, "stopped");
    ck_assert_uint_eq(fl_agent_deadline(&h.a), UINT64_MAX);
    /* in training: goes on, is delivered, then stops */
    hand_init(&h, &usual);
    to_train(&h);
    simple(&h, FL_AGENT_EV_STOP);
    said(&h, "");
    ck_assert_uint_eq(fl_agent_deadline(&h.a), h.now_ms + 30000);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    done(&h, FL_AGENT_STATE_DEBIT, 0, 0);
    ev = about_offer(&h, FL_AGENT_EV_ACK);
    hand_step(&h, &ev);
    done(&h, FL_AGENT_STATE_MARK, 0, 0);
    said(&h, "seal debit offer mark drop close");
    simple(&h, FL_AGENT_EV_CLOSED);
    said(&h, "stopped");
    /* too long: abandoned at the limit */
    hand_init(&h, &usual);
    to_train(&h);
    simple(&h, FL_AGENT_EV_STOP);
    h.now_ms += 30000;
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "cancel");
    ck_assert_uint_eq(fl_agent_deadline(&h.a), UINT64_MAX);
    done(&h, FL_AGENT_STATE_TRAIN, -FL_R_CANCELLED, 0);
    said(&h, "drop close");
    /* a second signal means now; what is debited stays in the outbox */
    hand_init(&h, &usual);
    to_deliver(&h);
    simple(&h, FL_AGENT_EV_STOP);
    said(&h, "");
    simple(&h, FL_AGENT_EV_STOP);
    said(&h, "drop close");
}
END_TEST

START_TEST(test_withdraw)
{
    struct hand h;
    struct fl_agent_event ev = {.type = FL_AGENT_EV_WITHDRAW, .task = {.job = "demo"}};

    hand_init(&h, &usual);
    to_train(&h);
    hand_step(&h, &ev);
    said(&h, "cancel decline");
    hand_init(&h, &usual);
    to_deliver(&h);
    hand_step(&h, &ev);
    said(&h, "decline mark");
    hand_init(&h, &usual);
    to_train(&h);
    snprintf(ev.task.job, sizeof ev.task.job, "other");
    hand_step(&h, &ev);
    said(&h, "");
    snprintf(ev.task.job, sizeof ev.task.job, "*");
    hand_step(&h, &ev);
    said(&h, "cancel decline");
}
END_TEST

START_TEST(test_final_models)
{
    struct hand h;
    struct fl_agent_task finals[2] = {{.job = "a", .plan_size = 5, .base_size = 8},
                                      {.job = "b", .plan_size = 5, .base_size = 8}};
    struct fl_agent_event ev = {.type = FL_AGENT_EV_REST,
                                .status = -FL_R_JOB_STATE,
                                .retry_ms = 5000,
                                .finals = finals,
                                .final_count = 2};

    finals[0].key.incarnation[0] = 1;
    finals[1].key.incarnation[0] = 2;
    hand_init(&h, &usual);
    to_ask(&h);
    hand_step(&h, &ev);
    said(&h, "look");
    done(&h, FL_AGENT_STATE_LOOK, 0, FL_AGENT_HAVE_SETTLED); /* evaluated in an earlier life */
    done(&h, FL_AGENT_STATE_LOOK, 0, 0);
    done(&h, FL_AGENT_STATE_FETCH_PLAN, 0, 0);
    done(&h, FL_AGENT_STATE_FETCH_BASE, 0, 0);
    done(&h, FL_AGENT_STATE_EVALUATE, 0, 0);
    said(&h, "drop look fetch-plan fetch-base evaluate drop");
    ck_assert_uint_ge(fl_agent_deadline(&h.a), h.now_ms + 5000);
    h.now_ms = fl_agent_deadline(&h.a);
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "ask");
    hand_step(&h, &ev); /* the same again: nothing more to do */
    said(&h, "");
    /* once */
    struct fl_agent_conf conf = usual;
    conf.once = true;
    hand_init(&h, &conf);
    to_ask(&h);
    ev.final_count = 0;
    hand_step(&h, &ev);
    said(&h, "close");
    simple(&h, FL_AGENT_EV_CLOSED);
    said(&h, "stopped");
}
END_TEST

START_TEST(test_backoff)
{
    struct hand h;
    uint64_t top = 1000;

    hand_init(&h, &usual);
    simple(&h, FL_AGENT_EV_START);
    for (int i = 0; i < 200; i++) {
        struct fl_agent_event ev = {.type = FL_AGENT_EV_CLOSED, .status = -FL_R_CONNECT};
        h.trace_size = 0;
        hand_step(&h, &ev);
        if (h.a.link == FL_AGENT_LINK_DOWN) {
            uint64_t wait = fl_agent_deadline(&h.a) - h.now_ms;
            ck_assert_uint_le(wait, top);
            h.now_ms += wait;
            simple(&h, FL_AGENT_EV_TICK);
        }
        ck_assert_int_eq(h.a.link, FL_AGENT_LINK_CONNECTING);
        top = top * 2 > 60000 ? 60000 : top * 2;
    }
    /* the coordinator's own wish */
    struct fl_agent_event ev = {.type = FL_AGENT_EV_CLOSED, .retry_ms = 3600000};
    hand_step(&h, &ev);
    ck_assert_uint_ge(fl_agent_deadline(&h.a), h.now_ms + 3600000);
    ck_assert_uint_le(fl_agent_deadline(&h.a), h.now_ms + 3600000 + 900000);
}
END_TEST

START_TEST(test_out_of_order)
{
    static const enum fl_agent_ev messages[] = {FL_AGENT_EV_WELCOME, FL_AGENT_EV_REST,
                                                FL_AGENT_EV_TASK};
    struct hand h;

    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        hand_init(&h, &usual);
        to_train(&h);
        simple(&h, messages[i]);
        said(&h, "close");
        ck_assert_int_eq(h.todo.at[0].reason, FL_R_MSG_ORDER);
        simple(&h, messages[i]); /* closing: not even looked at */
        said(&h, "");
    }
    /* a task beyond what the site holds */
    struct fl_agent_event ev = {.type = FL_AGENT_EV_TASK,
                                .task = {.plan_size = 10, .base_size = 1ull << 40}};
    hand_init(&h, &usual);
    to_ask(&h);
    hand_step(&h, &ev);
    said(&h, "decline drop");
    /* a resume beyond the end */
    hand_init(&h, &usual);
    to_deliver(&h);
    ev = about_offer(&h, FL_AGENT_EV_RESUME);
    ev.offset = 101;
    hand_step(&h, &ev);
    said(&h, "close");
}
END_TEST

/* ---- bad days -----------------------------------------------------------------------------------
 */

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
    bool plan, base[ROUNDS];
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
    case FL_AGENT_STATE_INTENT:
        if (!u->intent) {
            u->intent = true;
            u->seed = fl_rng_u64(&w->rng);
        }
        break;
    case FL_AGENT_STATE_TRAIN:
        ck_assert(u->intent && w->disk.base[w->round]);
        break;
    case FL_AGENT_STATE_SEAL:
        ck_assert(u->intent);
        u->sealed = true;
        update_digest(u, w->round, &u->digest);
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
    } else if (w->op == FL_AGENT_STATE_FETCH_PLAN || w->op == FL_AGENT_STATE_FETCH_BASE) {
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
                  (w->disk.base[w->round] ? FL_AGENT_HAVE_BASE : 0u);
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

TESTS_MAIN("agent", test_good_day, test_training_survives_the_link,
           test_offer_again_after_each_reconnection, test_temporary_refusal_is_offered_again,
           test_over, test_decline, test_no_debit_behind_the_deadline, test_after_a_crash,
           test_window, test_drain, test_withdraw, test_final_models, test_backoff,
           test_out_of_order, test_every_event_everywhere, test_bad_days)
