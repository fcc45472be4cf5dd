/* The agent's machine: its story on a good day, and on each kind of bad one. */
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

/* A coordinator whose disk is full is asked less and less often; a word that helps begins anew. */
START_TEST(test_a_full_disk_is_not_asked_again_and_again)
{
    struct hand h;
    uint64_t asked = 0, begin;

    hand_init(&h, &usual);
    to_deliver(&h);
    begin = h.now_ms;
    while (h.now_ms < begin + 3600 * 1000) {
        struct fl_agent_event ev = about_offer(&h, FL_AGENT_EV_REFUSE);
        ev.status = -(int)FL_R_DISK_FULL;
        hand_step(&h, &ev);
        asked++;
        h.now_ms = fl_agent_deadline(&h.a);
        simple(&h, FL_AGENT_EV_TICK);
        h.trace_size = 0;
    }
    /* Full jitter below a minute: some 120 in an hour; 5 s on average each would be 720. */
    ck_assert_uint_lt(asked, 200);
    ck_assert_uint_gt(asked, 60);
    ck_assert_uint_gt(h.a.full, 5);
    struct fl_agent_event ev = about_offer(&h, FL_AGENT_EV_REFUSE);
    ev.status = -(int)FL_R_BUSY;
    hand_step(&h, &ev);
    ck_assert_uint_eq(h.a.full, 0);
}
END_TEST

/* Whoever is busy for a moment is offered the update again in one, and less and less often if it
 * stays so. */
START_TEST(test_a_busy_coordinator_is_asked_again_soon)
{
    struct hand h;
    uint64_t begin, asked = 0;

    hand_init(&h, &usual);
    to_deliver(&h);
    begin = h.now_ms;
    for (; asked < 3 || h.now_ms < begin + 60 * 1000; asked++) {
        struct fl_agent_event ev = about_offer(&h, FL_AGENT_EV_REFUSE);
        ev.status = -(int)FL_R_BUSY;
        hand_step(&h, &ev);
        h.now_ms = fl_agent_deadline(&h.a);
        simple(&h, FL_AGENT_EV_TICK);
        h.trace_size = 0;
        ck_assert(asked != 2 || h.now_ms < begin + 300);
    }
    ck_assert_uint_lt(asked, 120);
}
END_TEST

/* A site that holds: nothing is paid for before somebody has looked. */
START_TEST(test_an_update_waits_for_approval)
{
    struct fl_agent_conf holding = usual;
    struct fl_agent_event over = {.type = FL_AGENT_EV_OVER, .status = -FL_R_DEADLINE};
    struct hand h;

    holding.hold = true;
    hand_init(&h, &holding);
    to_train(&h);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    said(&h, "seal hold");
    simple(&h, FL_AGENT_EV_CLOSED); /* the connection may come and go meanwhile */
    said(&h, "");
    h.now_ms += 100000;
    simple(&h, FL_AGENT_EV_TICK);
    simple(&h, FL_AGENT_EV_OPENED);
    simple(&h, FL_AGENT_EV_WELCOME);
    said(&h, "connect hello");
    done(&h, FL_AGENT_STATE_HOLD, 0, 0);
    done(&h, FL_AGENT_STATE_DEBIT, 0, 0);
    said(&h, "debit offer");

    hand_init(&h, &holding);
    to_train(&h);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    said(&h, "seal hold");
    done(&h, FL_AGENT_STATE_HOLD, -FL_R_REJECTED, 0);
    said(&h, "decline drop");
    ck_assert_int_eq(h.a.state, FL_AGENT_STATE_REST);

    /* The round is over while it waits: the waiting ends, nothing is paid for. */
    hand_init(&h, &holding);
    to_train(&h);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    said(&h, "seal hold");
    over.key = h.a.task.key;
    hand_step(&h, &over);
    said(&h, "cancel");
    done(&h, FL_AGENT_STATE_HOLD, -FL_R_CANCELLED, 0);
    said(&h, "drop");

    /* What the data are not in waits for nobody. */
    hand_init(&h, &holding);
    to_train(&h);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, FL_AGENT_HAVE_NO_DATA);
    done(&h, FL_AGENT_STATE_DEBIT, 0, 0);
    said(&h, "seal debit offer");

    /* Approved after the deadline that the task had: nobody would take it, so it is not paid for.
     */
    hand_init(&h, &holding);
    to_train(&h);
    done(&h, FL_AGENT_STATE_TRAIN, 0, 0);
    done(&h, FL_AGENT_STATE_SEAL, 0, 0);
    said(&h, "seal hold");
    h.now_ms += 700000;
    done(&h, FL_AGENT_STATE_HOLD, 0, 0);
    said(&h, "decline drop");
}
END_TEST

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
    /* the Ask is held: nothing to do here now */
    hand_init(&h, &conf);
    to_ask(&h);
    ck_assert_uint_eq(fl_agent_deadline(&h.a), h.now_ms + conf.patience_ms);
    h.now_ms += conf.patience_ms;
    simple(&h, FL_AGENT_EV_TICK);
    said(&h, "close");
    /* nobody to ask */
    hand_init(&h, &conf);
    simple(&h, FL_AGENT_EV_START);
    for (int i = 0; i < FL_AGENT_ONCE_TRIES; i++) {
        ck_assert_int_ne(h.a.state, FL_AGENT_STATE_STOPPED);
        simple(&h, FL_AGENT_EV_CLOSED);
        h.now_ms = h.a.retry_at;
        simple(&h, FL_AGENT_EV_TICK);
    }
    ck_assert_int_eq(h.a.state, FL_AGENT_STATE_STOPPED);
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

TESTS_MAIN("agent", test_a_full_disk_is_not_asked_again_and_again,
           test_a_busy_coordinator_is_asked_again_soon, test_an_update_waits_for_approval,
           test_good_day, test_training_survives_the_link, test_offer_again_after_each_reconnection,
           test_temporary_refusal_is_offered_again, test_over, test_decline,
           test_no_debit_behind_the_deadline, test_after_a_crash, test_window, test_drain,
           test_withdraw, test_final_models, test_backoff, test_out_of_order)
