#include "server/core/peer.h"
#include "tests/lib/check_main.h"

#include <string.h>

static struct fl_digest digest(uint8_t n)
{
    struct fl_digest d;
    memset(&d, n, sizeof d);
    return d;
}

static const struct fl_key now = {.incarnation = {1, 2, 3}, .round = 5};
static const struct fl_key before = {.incarnation = {1, 2, 3}, .round = 4};

static void greeted(struct fl_peer *p)
{
    fl_peer_init(p, 3, 1000);
    ck_assert_int_eq(fl_peer_step(p, FL_PEER_MSG_HELLO, NULL, 1000, NULL), FL_PEER_OK);
    ck_assert_int_eq(fl_peer_hello(p, 1, 1, 1, 1, NULL), 0);
}

static void tasked(struct fl_peer *p)
{
    struct fl_digest plan = digest(10), base = digest(11);
    greeted(p);
    ck_assert_int_eq(fl_peer_step(p, FL_PEER_MSG_ASK, NULL, 1000, NULL), FL_PEER_OK);
    fl_peer_sent_task(p, &now, &plan, &base);
}

START_TEST(test_the_usual_order)
{
    struct fl_peer p;

    tasked(&p);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ACCEPT, &now, 1001, NULL), FL_PEER_OK);
    ck_assert_int_eq(p.state, FL_PEER_WORKING);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_FETCH, NULL, 1002, NULL), FL_PEER_OK);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_OFFER, &now, 1003, NULL), FL_PEER_OK);
    ck_assert(fl_peer_sent_end(&p, &now));
    ck_assert_int_eq(p.state, FL_PEER_IDLE);
    ck_assert(!fl_peer_sent_end(&p, &now));
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ASK, NULL, 1004, NULL), FL_PEER_OK);
    fl_peer_sent_rest(&p);
    ck_assert_int_eq(p.state, FL_PEER_IDLE);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_BYE, NULL, 1005, NULL), FL_PEER_OK);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ASK, NULL, 1006, NULL), FL_PEER_STALE);
}
END_TEST

START_TEST(test_every_message_in_every_state)
{
    /* rows: states OPENING..CLOSING; columns: HELLO ASK ACCEPT DECLINE FETCH OFFER CLAIM REFUSE BYE
     * OTHER, Accept and Decline for the current task. o = ok, s = stale, - = offence. */
    static const char *const table[] = {
        "o-------o-", "-ossooooo-", "-ossooooo-", "-oooooooo-", "-o-oooooo-", "ssssssssss",
    };

    for (int state = FL_PEER_OPENING; state <= FL_PEER_CLOSING; state++) {
        for (int msg = FL_PEER_MSG_HELLO; msg <= FL_PEER_MSG_OTHER; msg++) {
            struct fl_peer p;
            struct fl_err e = {0};
            fl_peer_init(&p, 3, 1000);
            p.state = (enum fl_peer_state)state;
            p.task = now;
            p.has_task = state == FL_PEER_TASKED || state == FL_PEER_WORKING;
            int got = fl_peer_step(&p, (enum fl_peer_msg)msg, &now, 1000, &e);
            char want = table[state][msg];
            ck_assert_msg(got == (want == 'o'   ? FL_PEER_OK
                                  : want == 's' ? FL_PEER_STALE
                                                : -FL_R_MSG_ORDER),
                          "state %s, message %d: %d", fl_peer_state_name((enum fl_peer_state)state),
                          msg, got);
            ck_assert(got >= 0 || p.state == FL_PEER_CLOSING);
        }
    }
}
END_TEST

START_TEST(test_messages_that_cross)
{
    struct fl_peer p;

    tasked(&p);
    ck_assert(fl_peer_sent_end(&p, &now)); /* Over is on its way ... */
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ACCEPT, &now, 1001, NULL), FL_PEER_STALE);
    tasked(&p);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_DECLINE, &before, 1001, NULL), FL_PEER_STALE);
    ck_assert_int_eq(p.state, FL_PEER_TASKED);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_DECLINE, &now, 1001, NULL), FL_PEER_OK);
    ck_assert_int_eq(p.state, FL_PEER_IDLE);
    /* What waits in the outbox is a task too, until it is settled. */
    greeted(&p);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_OFFER, &before, 1001, NULL), FL_PEER_OK);
    ck_assert_int_eq(p.state, FL_PEER_WORKING);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_DECLINE, &before, 1001, NULL), FL_PEER_OK);
    ck_assert_int_eq(p.state, FL_PEER_IDLE);
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_OFFER, NULL, 1001, NULL), -FL_R_MSG_FIELD);
    /* An Ack for an older round does not end the present task. */
    tasked(&p);
    ck_assert(!fl_peer_sent_end(&p, &before));
    ck_assert_int_eq(p.state, FL_PEER_TASKED);
}
END_TEST

START_TEST(test_too_many_messages)
{
    struct fl_peer p;
    struct fl_err e = {0};
    uint64_t t = 1000;

    greeted(&p);
    for (int i = 1; i < FL_PEER_RATE_BURST; i++) {
        ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ASK, NULL, t, &e), FL_PEER_OK);
    }
    for (int i = 0; i < 1000; i++) { /* the steady rate is fine for ever */
        t += FL_PEER_RATE_MS;
        ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ASK, NULL, t, &e), FL_PEER_OK);
    }
    ck_assert_int_eq(fl_peer_step(&p, FL_PEER_MSG_ASK, NULL, t, &e), -FL_R_LIMIT);
    ck_assert_int_eq(p.state, FL_PEER_CLOSING);
}
END_TEST

/* A round of a small model takes milliseconds: a thousand of them in no time are no offence, for
 * every message of theirs was asked for; and no credit is saved up for later. */
START_TEST(test_tasks_are_not_a_flood)
{
    static const enum fl_peer_msg round[] = {FL_PEER_MSG_ASK, FL_PEER_MSG_FETCH, FL_PEER_MSG_FETCH,
                                             FL_PEER_MSG_ACCEPT, FL_PEER_MSG_OFFER};
    struct fl_peer p;
    struct fl_err e = {0};
    struct fl_key key = {.round = 1};
    struct fl_digest object = {{0}};

    fl_peer_init(&p, 1, 0);
    fl_peer_step(&p, FL_PEER_MSG_HELLO, NULL, 1000, &e);
    fl_peer_hello(&p, 1, 1, 1, 1, &e);
    for (key.round = 1; key.round <= 1000; key.round++) {
        for (size_t i = 0; i < sizeof round / sizeof round[0]; i++) {
            if (i == 1) {
                fl_peer_sent_task(&p, &key, &object, &object);
            }
            const struct fl_key *k = i > 2 ? &key : NULL;
            ck_assert_int_eq(fl_peer_step(&p, round[i], k, 1000, &e), FL_PEER_OK);
        }
        ck_assert(fl_peer_sent_end(&p, &key));
    }
    int sent = 0;
    while (sent < 1000 && fl_peer_step(&p, FL_PEER_MSG_ASK, NULL, 1000, &e) == FL_PEER_OK) {
        sent++;
    }
    ck_assert_int_le(sent, FL_PEER_RATE_BURST);
}
END_TEST

START_TEST(test_versions)
{
    struct fl_peer p;
    struct fl_err e = {0};

    fl_peer_init(&p, 1, 0);
    ck_assert_int_eq(fl_peer_hello(&p, 1, 9, 1, 3, &e), 0);
    ck_assert_uint_eq(p.version, 3);
    ck_assert_int_eq(fl_peer_hello(&p, 4, 9, 1, 3, &e), -FL_R_VERSION);
    ck_assert_int_eq(fl_peer_hello(&p, 0, 1, 2, 3, &e), -FL_R_VERSION);
    ck_assert_int_eq(fl_peer_hello(&p, 3, 2, 1, 3, &e), -FL_R_VERSION);
    ck_assert_str_eq(e.msg, "the agent speaks versions 3 to 2, this coordinator 1 to 3");
}
END_TEST

START_TEST(test_fetch_only_what_was_offered)
{
    struct fl_peer p;
    struct fl_digest plan = digest(10), base = digest(11), other = digest(12), zero = digest(0);

    greeted(&p);
    ck_assert_int_eq(fl_peer_fetch(&p, &plan, 0, 50, NULL), -FL_R_NO_OBJECT);
    ck_assert_int_eq(fl_peer_fetch(&p, &zero, 0, 50, NULL), -FL_R_NO_OBJECT);
    fl_peer_sent_task(&p, &now, &plan, &base);
    ck_assert_int_eq(fl_peer_fetch(&p, &plan, 0, 50, NULL), 0);
    ck_assert_int_eq(fl_peer_fetch(&p, &base, 50, 50, NULL), 0);
    ck_assert_int_eq(fl_peer_fetch(&p, &base, 51, 50, NULL), -FL_R_OFFSET);
    ck_assert_int_eq(fl_peer_fetch(&p, &other, 0, 50, NULL), -FL_R_NO_OBJECT);
    for (uint8_t i = 0; i < FL_PEER_OBJECTS_MAX; i++) {
        struct fl_digest d = digest((uint8_t)(100 + i));
        fl_peer_sent_object(&p, &d);
        fl_peer_sent_object(&p, &d);
    }
    ck_assert_int_eq(fl_peer_fetch(&p, &base, 0, 50, NULL), -FL_R_NO_OBJECT);
}
END_TEST

START_TEST(test_offers)
{
    struct fl_offer_terms terms = {.key = now,
                                   .exchange_count = 1,
                                   .open = true,
                                   .plan = digest(10),
                                   .base = digest(11),
                                   .update_size = 100,
                                   .max_weight = 8,
                                   .late_rounds = 2};
    const struct fl_offer good = {.key = now,
                                  .digest = digest(50),
                                  .plan = digest(10),
                                  .base = digest(11),
                                  .size = 100,
                                  .weight = 8};
    struct fl_offer o = good;
    struct fl_err e = {0};

    ck_assert_int_eq(fl_peer_offer(&terms, &o, &e), FL_OFFER_CURRENT);
#define REFUSED(change, reason)                                                                    \
    do {                                                                                           \
        o = good;                                                                                  \
        change;                                                                                    \
        ck_assert_int_eq(fl_peer_offer(&terms, &o, &e), FL_OFFER_REFUSED);                         \
        ck_assert_int_eq(e.code, -FL_R_##reason);                                                  \
    } while (0)
    REFUSED(o.key.incarnation[0] = 9, NO_JOB);
    REFUSED(o.key.round = 6, NO_ROUND);
    REFUSED(o.key.round = 0, MSG_FIELD);
    REFUSED(o.key.exchange = 1, MSG_FIELD);
    REFUSED(o.digest = digest(0), MSG_FIELD);
    REFUSED(o.plan = digest(1), UPDATE_SHAPE);
    REFUSED(o.base = digest(1), UPDATE_SHAPE);
    REFUSED(o.size = 99, UPDATE_LENGTH);
    REFUSED(o.size = 101, UPDATE_LENGTH);
    REFUSED(o.weight = 0, UPDATE_RANGE);
    REFUSED(o.weight = 9, UPDATE_RANGE);
    terms.narrow_size[0] = 50; /* fewer bits will do */
    struct fl_offer narrow = good;
    narrow.size = 50;
    ck_assert_int_eq(fl_peer_offer(&terms, &narrow, &e), FL_OFFER_CURRENT);
    REFUSED(o.size = 51, UPDATE_LENGTH);
    REFUSED(o.size = 0, UPDATE_LENGTH);
    terms.open = false;
    REFUSED(o.weight = 1, NO_ROUND);
    ck_assert_int_eq(fl_peer_offer(NULL, &good, &e), FL_OFFER_REFUSED);

    o = good; /* published rounds have another plan and base: only the store can tell */
    o.plan = digest(1);
    o.key.round = 4;
    ck_assert_int_eq(fl_peer_offer(&terms, &o, &e), FL_OFFER_LATE);
    o.key.round = 3;
    ck_assert_int_eq(fl_peer_offer(&terms, &o, &e), FL_OFFER_LATE);
    o.key.round = 2;
    ck_assert_int_eq(fl_peer_offer(&terms, &o, &e), FL_OFFER_OVER);
}
END_TEST

TESTS_MAIN("peer", test_the_usual_order, test_every_message_in_every_state,
           test_messages_that_cross, test_tasks_are_not_a_flood, test_too_many_messages,
           test_versions, test_fetch_only_what_was_offered, test_offers)
