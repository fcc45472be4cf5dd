/* Rounds of more than one exchange: the same cohort, and what is given up. */
#include "tests/lib/round_desk.h"

START_TEST(test_second_exchange_with_the_same_cohort)
{
    struct desk d;
    struct fl_round_rules r = rules(2, 2, 0);

    r.exchange_count = 2;
    r.exchange[1] = r.exchange[0];
    r.exchange[1].same_cohort = true;
    start(&d, &r);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "", AVAILABLE, BY(1));
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "", FOLDED, BY(2));
    TELL(&d, "FINISH;", CLOSED);
    TELL(&d, "ENLIST 1; ENLIST 2;", FINISHED, .exchange = 0);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1), .exchange = 1);
    TELL(&d, "", ENLISTED, BY(2), .exchange = 1);
    TELL(&d, "", AVAILABLE, BY(3));
    TELL(&d, "INVITE 2;", AVAILABLE, BY(2));
    TELL(&d, "ACK 1;", OFFERED, BY(1), .exchange = 0);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1), .exchange = 1);
    TELL(&d, "RECORD 1;", SPOOLED, BY(1), .exchange = 1);
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2), .exchange = 1);
    TELL(&d, "RECORD 2;", SPOOLED, BY(2), .exchange = 1);
    TELL(&d, "ACK 2; FOLD 2;", COMMITTED, BY(2), .exchange = 1);
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1,2;", COMMITTED, BY(1), .exchange = 1);
    TELL(&d, "", FOLDED, BY(1), .exchange = 1);
    TELL(&d, "", FOLDED, BY(2), .exchange = 1);
    TELL(&d, "FINISH;", CLOSED, .exchange = 1);
    TELL(&d, "PUBLISH;", FINISHED, .exchange = 1);
    fl_round_free(d.r);
}
END_TEST

/* Two members through the first exchange, and invited to the second. */
static void into_the_second(struct desk *d, uint64_t round)
{
    d->round = round;
    TELL(d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(d, "RECORD 1;", SPOOLED, BY(1));
    TELL(d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(d, "RECORD 2;", SPOOLED, BY(2));
    TELL(d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    TELL(d, "", FOLDED, BY(1));
    TELL(d, "", FOLDED, BY(2));
    TELL(d, "FINISH;", CLOSED);
    TELL(d, "ENLIST 1; ENLIST 2;", FINISHED, .exchange = 0);
    TELL(d, "", ENLISTED, BY(1), .exchange = 1);
    TELL(d, "", ENLISTED, BY(2), .exchange = 1);
    TELL(d, "INVITE 1;", AVAILABLE, BY(1));
    TELL(d, "INVITE 2;", AVAILABLE, BY(2));
    TELL(d, "", ACCEPTED, BY(1), .exchange = 1);
}

START_TEST(test_a_round_that_cannot_be_retried_is_given_up)
{
    struct desk d;
    struct fl_round_rules r = rules(2, 2, 0);

    r.rounds = 9;
    r.attempts = 2;
    r.exchange_count = 2;
    r.exchange[1] = r.exchange[0];
    r.exchange[1].same_cohort = r.exchange[1].give_up = true;
    start(&d, &r);
    both_at_work(&d);
    into_the_second(&d, 1);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1), .exchange = 1);
    TELL(&d, "RECORD 1;", SPOOLED, BY(1), .exchange = 1);
    d.now += 1000; /* more time, as always */
    TELL(&d, "RETRY (too-few-updates);", TICK);
    d.now += 1000; /* the last attempt: but what the store writes is counted first */
    TELL(&d, "", TICK);
    TELL(&d, "DROP 2 (round-over); FINISH (too-few-updates);", COMMITTED, STATUS(UPDATE_CONFLICT),
         BY(1), .exchange = 1);
    TELL(&d, "DROP 2 (round-over);", OFFERED, BY(2), .exchange = 1); /* nothing is taken any more */
    TELL(&d, "PUBLISH;", FINISHED, .exchange = 1, .given_up = true);
    TELL(&d, "", PUBLISHED); /* and the next one begins */

    /* There is no way on behind a close: likewise. A second one in a row pauses the job. */
    d.round = 2;
    TELL(&d, "", AVAILABLE, BY(1));
    TELL(&d, "OPEN;", AVAILABLE, BY(2));
    TELL(&d, "ENLIST 1; ENLIST 2;", OPENED);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "INVITE 2;", ENLISTED, BY(2));
    TELL(&d, "", ACCEPTED, BY(1));
    TELL(&d, "", ACCEPTED, BY(2));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "", FOLDED, BY(2));
    TELL(&d, "FINISH;", CLOSED);
    TELL(&d, "PUBLISH;", FINISHED, .exchange = 0, .given_up = true);
    TELL(&d, "PAUSED (too-few-updates);", PUBLISHED);
    d.round = 3;
    TELL(&d, "", AVAILABLE, BY(1));
    TELL(&d, "", AVAILABLE, BY(2));
    TELL(&d, "OPEN;", RESUME);
    fl_round_free(d.r);
}
END_TEST

TESTS_MAIN("round_exchanges", test_second_exchange_with_the_same_cohort,
           test_a_round_that_cannot_be_retried_is_given_up)
