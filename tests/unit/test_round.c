/* The round machine, one exchange a round: every event, and what it asks for. */
#include "common/base/mem.h"
#include "server/core/candidates.h"
#include "tests/lib/round_desk.h"

START_TEST(test_a_round_from_asking_to_publishing)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 2; FOLD 2;", COMMITTED, BY(2));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "", FOLDED, BY(2));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1,2;", COMMITTED, BY(1));
    TELL(&d, "", CLOSED);
    TELL(&d, "FINISH;", FOLDED, BY(1));
    TELL(&d, "PUBLISH;", FINISHED);
    TELL(&d, "", PUBLISHED);
    /* The second and last round needs new asking. */
    d.round = 2;
    both_at_work(&d);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_job_ends_after_its_last_round)
{
    struct desk d;
    struct fl_round_rules one = rules(1, 1, 0);

    one.rounds = 1;
    start(&d, &one);
    TELL(&d, "OPEN;", AVAILABLE, BY(5));
    TELL(&d, "ENLIST 5;", OPENED);
    TELL(&d, "INVITE 5;", ENLISTED, BY(5));
    TELL(&d, "", ACCEPTED, BY(5));
    TELL(&d, "RECEIVE 5;", OFFERED, BY(5));
    TELL(&d, "RECORD 5;", SPOOLED, BY(5));
    TELL(&d, "ACK 5; FOLD 5; CLOSE 5;", COMMITTED, BY(5));
    TELL(&d, "", FOLDED, BY(5));
    TELL(&d, "FINISH;", CLOSED);
    TELL(&d, "PUBLISH;", FINISHED);
    TELL(&d, "DONE;", PUBLISHED);
    TELL(&d, "", AVAILABLE, BY(5));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_quorum_at_the_deadline_and_the_rest_is_told)
{
    struct desk d;
    struct fl_round_rules three = rules(2, 1, 1);
    struct fl_round_view v;

    start(&d, &three);
    TELL(&d, "", AVAILABLE, BY(1));
    ck_assert_uint_eq(fl_round_deadline(d.r), 101); /* fill time */
    TELL(&d, "", AVAILABLE, BY(2));
    d.now = 101;
    TELL(&d, "OPEN;", TICK);
    TELL(&d, "ENLIST 1; ENLIST 2;", OPENED);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "INVITE 2;", ENLISTED, BY(2));
    TELL(&d, "ENLIST 3;", AVAILABLE, BY(3)); /* over-selection is still open */
    TELL(&d, "INVITE 3;", ENLISTED, BY(3));
    TELL(&d, "", ACCEPTED, BY(1));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    fl_round_view(d.r, &v);
    ck_assert_str_eq(v.unblock,
                     "1 of 2 updates are committed; it closes with 1 more, or in 1 s, as "
                     "the quorum of 1 is there");
    d.now = fl_round_deadline(d.r);
    ck_assert_uint_eq(d.now, 201); /* but somebody is still out */
    TELL(&d, "", TICK);
    d.now = fl_round_deadline(d.r);
    ck_assert_uint_eq(d.now, 1101);
    ck_assert_uint_eq(fl_round_closes(d.r), 1101);
    TELL(&d, "CLOSE 1;", TICK);
    TELL(&d, "", SPOOLED, BY(2)); /* too late to be recorded */
    TELL(&d, "DROP 2 (round-over); DROP 3 (round-over); FINISH;", CLOSED);
    TELL(&d, "DROP 2 (round-over);", OFFERED, BY(2));
    TELL(&d, "ACK 1;", OFFERED, BY(1));
    TELL(&d, "DROP 9 (round-over);", OFFERED, BY(9));
    fl_round_free(d.r);
}
END_TEST

/* The quorum is there, the others said no, nobody else asks: there is nothing to wait for. */
START_TEST(test_nobody_is_out_any_more)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 1, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    d.now = fl_round_deadline(d.r);
    ck_assert_uint_lt(d.now, fl_round_closes(d.r));
    TELL(&d, "", TICK); /* the other one works */
    TELL(&d, "CLOSE 1;", DECLINED, BY(2));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_draining_waits_for_records_in_flight)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 1, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    d.now = 5000;
    TELL(&d, "", TICK);
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_too_few_is_retried_and_then_pauses)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "", AVAILABLE, BY(3)); /* nobody is missing yet */
    TELL(&d, "", LEFT, BY(2));      /* it accepted: its slot is kept */
    d.now = 1001;
    TELL(&d, "ENLIST 3; RETRY (too-few-updates);", TICK);
    TELL(&d, "INVITE 3;", ENLISTED, BY(3));
    TELL(&d, "", LEFT, BY(3)); /* it never accepted: a free slot */
    TELL(&d, "INVITE 3;", AVAILABLE, BY(3));
    d.now = 2001;
    TELL(&d, "PAUSED (too-few-updates);", TICK);
    ck_assert_uint_eq(fl_round_deadline(d.r), FL_ROUND_NEVER);
    /* What comes meanwhile is kept, what was committed is there still. */
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 2; FOLD 2;", COMMITTED, BY(2));
    TELL(&d, "CLOSE 1,2;", RESUME);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_declined_slot_goes_to_another)
{
    struct desk d;
    struct fl_round_rules one = rules(1, 1, 0);

    start(&d, &one);
    TELL(&d, "OPEN;", AVAILABLE, BY(1));
    TELL(&d, "ENLIST 1;", OPENED);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "", AVAILABLE, BY(2));
    TELL(&d, "ENLIST 2;", DECLINED, BY(1), STATUS(BUDGET_SPENT));
    TELL(&d, "INVITE 2;", ENLISTED, BY(2));
    TELL(&d, "", DECLINED, BY(2), STATUS(WINDOW));
    TELL(&d, "", AVAILABLE, BY(1)); /* not again within this attempt */
    d.now = 1001;
    TELL(&d, "INVITE 1; RETRY (too-few-updates);", TICK);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_offers_that_do_not_fit)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);
    struct fl_digest other = digest(77);

    start(&d, &two);
    TELL(&d, "REFUSE 1 (no-such-round);", OFFERED, BY(1));
    both_at_work(&d);
    TELL(&d, "DROP 3 (not-a-member);", OFFERED, BY(3));
    TELL(&d, "", OFFERED, BY(1), .round = 9);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "REFUSE 1 (update-conflict);", OFFERED, .agent = 1, .digest = other, .size = 100);
    TELL(&d, "", SPOOLED, .agent = 1, .digest = other);
    TELL(&d, "REFUSE 1 (update-digest);", SPOOLED, BY(1), STATUS(UPDATE_DIGEST));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "", OFFERED, BY(1)); /* the Ack is on its way */
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "ACK 1;", OFFERED, BY(1));
    TELL(&d, "REFUSE 1 (update-conflict);", OFFERED, .agent = 1, .digest = other, .size = 100);
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "DROP 2 (update-range);", SPOOLED, BY(2), STATUS(UPDATE_RANGE));
    TELL(&d, "DROP 2 (update-range);", OFFERED, BY(2));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_failures_of_the_store_pause_and_resume_repeats)
{
    struct desk d;
    struct fl_round_rules one = rules(1, 1, 0);

    one.rounds = 1;
    start(&d, &one);
    TELL(&d, "OPEN;", AVAILABLE, BY(1));
    TELL(&d, "PAUSED (disk-full);", OPENED, STATUS(DISK_FULL));
    TELL(&d, "OPEN;", RESUME);
    TELL(&d, "ENLIST 1;", OPENED);
    TELL(&d, "PAUSED (disk-full);", ENLISTED, BY(1), STATUS(DISK_FULL));
    TELL(&d, "ENLIST 1;", RESUME);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "", ACCEPTED, BY(1));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "PAUSED (disk-full);", COMMITTED, BY(1), STATUS(DISK_FULL));
    TELL(&d, "RECORD 1;", RESUME);
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    TELL(&d, "PAUSED (store-io);", CLOSED, STATUS(STORE_IO));
    TELL(&d, "CLOSE 1;", RESUME);
    TELL(&d, "", CLOSED);
    TELL(&d, "PAUSED (store-mismatch);", FOLDED, BY(1), STATUS(STORE_MISMATCH));
    TELL(&d, "REFOLD; FOLD 1;", RESUME);
    TELL(&d, "FINISH;", FOLDED, BY(1));
    TELL(&d, "PAUSED (not-finite);", FINISHED, STATUS(NOT_FINITE));
    TELL(&d, "FINISH;", RESUME);
    TELL(&d, "PUBLISH;", FINISHED);
    TELL(&d, "PAUSED (disk-full);", PUBLISHED, STATUS(DISK_FULL));
    TELL(&d, "PUBLISH;", RESUME);
    TELL(&d, "DONE;", PUBLISHED);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_pause_drain_and_cancel)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    TELL(&d, "", AVAILABLE, BY(1));
    TELL(&d, "PAUSED;", PAUSE);
    TELL(&d, "", PAUSE);
    TELL(&d, "", AVAILABLE, BY(2));
    TELL(&d, "OPEN;", RESUME);
    TELL(&d, "ENLIST 1; ENLIST 2;", OPENED);
    TELL(&d, "PAUSED;", PAUSE);
    TELL(&d, "", ENLISTED, BY(1));
    TELL(&d, "", ENLISTED, BY(2));
    TELL(&d, "INVITE 1; INVITE 2;", RESUME);
    TELL(&d, "", ACCEPTED, BY(1));
    TELL(&d, "", DRAIN);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "DROP 1 (cancelled); DROP 2 (cancelled); DONE (cancelled);", CANCEL);
    TELL(&d, "", SPOOLED, BY(1));
    fl_round_free(d.r);

    struct fl_round_rules one = rules(1, 1, 0);
    start(&d, &one);
    TELL(&d, "PAUSED;", DRAIN); /* nothing has begun */
    TELL(&d, "", RESUME);
    TELL(&d, "OPEN;", AVAILABLE, BY(1));
    TELL(&d, "", DRAIN);
    TELL(&d, "ENLIST 1;", OPENED);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "FINISH;", CLOSED);
    TELL(&d, "PUBLISH;", FINISHED);
    TELL(&d, "PAUSED;", PUBLISHED);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_revoked_agents_are_out)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "", AVAILABLE, BY(3));
    TELL(&d, "DROP 1 (agent-revoked); ENLIST 3;", REVOKED, BY(1));
    TELL(&d, "DROP 1 (agent-revoked);", OFFERED, BY(1));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_restart_goes_on_from_what_the_store_remembers)
{
    struct desk d;
    struct fl_round_view v;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    TELL(&d, "", OPENED);
    TELL(&d, "", ENLISTED, BY(1));
    TELL(&d, "", ENLISTED, BY(2));
    TELL(&d, "ACK 2; FOLD 2;", COMMITTED, BY(2));
    TELL(&d, "", TICK);
    fl_round_view(d.r, &v);
    ck_assert_uint_eq(v.away, 1);
    TELL(&d, "", AVAILABLE, BY(3)); /* both slots are taken */
    TELL(&d, "ACK 2;", OFFERED, BY(2));
    TELL(&d, "INVITE 1;", AVAILABLE, BY(1)); /* it lost its work: the same task again */
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1,2;", COMMITTED, BY(1));
    fl_round_free(d.r);

    /* Closed already: nobody is awaited. */
    start(&d, &two);
    TELL(&d, "", OPENED);
    TELL(&d, "", ENLISTED, BY(1));
    TELL(&d, "", ENLISTED, BY(2));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    TELL(&d, "", CLOSED);
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "FINISH;", FOLDED, BY(2));
    fl_round_free(d.r);

    /* A store that remembers what never happened. */
    start(&d, &two);
    ck_assert_int_eq(tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_CLOSED}),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_COMMITTED, BY(1)}),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_PUBLISHED}),
                     -FL_R_INTERNAL);
    TELL(&d, "", OPENED);
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    ck_assert_int_eq(tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_CLOSED}),
                     -FL_R_STORE_MISMATCH); /* below quorum */
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    ck_assert_int_eq(tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_COMMITTED, BY(3)}),
                     -FL_R_STORE_MISMATCH); /* more than members */
    ck_assert_int_eq(tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_OPENED}), -FL_R_INTERNAL);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_rules_of_the_next_round)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0), one = rules(1, 1, 0), wrong = rules(2, 3, 0);
    struct fl_err e;

    start(&d, &two);
    ck_assert_int_eq(fl_round_set_rules(d.r, &wrong, &e), -FL_R_CONF_CONFLICT);
    fl_mem_fail_at(2);
    ck_assert_int_eq(fl_round_set_rules(d.r, &one, &e), -FL_R_NOMEM);
    fl_mem_fail_at(0);
    TELL(&d, "", AVAILABLE, BY(1));
    ck_assert_int_eq(fl_round_set_rules(d.r, &one, &e), 0);
    TELL(&d, "OPEN;", TICK);
    ck_assert_int_eq(fl_round_set_rules(d.r, &two, &e), 0); /* for round 2 */
    TELL(&d, "ENLIST 1;", OPENED);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "FINISH;", CLOSED);
    TELL(&d, "PUBLISH;", FINISHED);
    TELL(&d, "", PUBLISHED);
    d.round = 2;
    both_at_work(&d);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_never_records_more_than_members)
{
    struct desk d;
    struct fl_round_rules r = rules(1, 1, 1);

    start(&d, &r);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "", SPOOLED, BY(1));
    TELL(&d, "REFUSE 2 (store-mismatch); RECORD 1;", COMMITTED, BY(2), STATUS(STORE_MISMATCH));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_who_left_is_not_invited)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);
    struct fl_round_view v;

    start(&d, &two);
    TELL(&d, "", AVAILABLE, BY(1));
    TELL(&d, "", LEFT, BY(1));
    TELL(&d, "", AVAILABLE, BY(2));
    fl_round_view(d.r, &v);
    ck_assert_uint_eq(v.candidates, 1);
    TELL(&d, "", UNAVAILABLE, BY(2));
    fl_round_view(d.r, &v);
    ck_assert_uint_eq(v.candidates, 0);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "", LEFT, BY(1));
    fl_round_view(d.r, &v);
    ck_assert_uint_eq(v.receiving, 0);
    ck_assert_uint_eq(v.accepted, 2);
    ck_assert_uint_eq(v.away, 1);
    TELL(&d, "RECORD 1;", SPOOLED, BY(1)); /* its last byte had come */
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_asking_during_a_pause_is_remembered)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "PAUSED;", PAUSE);
    d.now = 500;
    TELL(&d, "", AVAILABLE, BY(1)); /* it lost its task */
    TELL(&d, "INVITE 1;", RESUME);
    ck_assert_uint_eq(fl_round_closes(d.r), 1500);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_a_record_that_fails_at_the_deadline)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    d.now = 1001;
    TELL(&d, "", TICK);
    TELL(&d, "REFUSE 2 (store-mismatch); RETRY (too-few-updates);", COMMITTED, BY(2),
         STATUS(STORE_MISMATCH));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_sums_are_made_again_when_nothing_touches_them)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);

    start(&d, &two);
    both_at_work(&d);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    TELL(&d, "ACK 1; FOLD 1;", COMMITTED, BY(1));
    TELL(&d, "ACK 2; FOLD 2; CLOSE 1,2;", COMMITTED, BY(2));
    TELL(&d, "", CLOSED);
    TELL(&d, "PAUSED (store-io);", FOLDED, BY(1), STATUS(STORE_IO));
    TELL(&d, "", RESUME); /* the other fold still runs */
    TELL(&d, "REFOLD; FOLD 2; FOLD 1;", FOLDED, BY(2));
    TELL(&d, "", FOLDED, BY(2));
    TELL(&d, "FINISH;", FOLDED, BY(1));
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_a_retry_closes_at_the_quorum_and_the_next_round_wants_all)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 1, 0);

    start(&d, &two);
    both_at_work(&d);
    d.now = 1001;
    TELL(&d, "RETRY (too-few-updates);", TICK);
    TELL(&d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(&d, "RECORD 1;", SPOOLED, BY(1));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    TELL(&d, "", FOLDED, BY(1));
    TELL(&d, "DROP 2 (round-over); FINISH;", CLOSED);
    TELL(&d, "PUBLISH;", FINISHED);
    TELL(&d, "", PUBLISHED);
    d.round = 2;
    both_at_work(&d);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_many_members_come_in_several_lists)
{
    struct desk d;
    struct fl_round_rules r = rules(100, 100, 0);

    start(&d, &r);
    for (uint64_t i = 1; i <= 100; i++) {
        tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_AVAILABLE, BY(i)});
    }
    ck_assert_str_eq(d.said, "OPEN;");
    tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_OPENED});
    uint32_t count = 0;
    for (const char *at = d.said; (at = strstr(at, "ENLIST ")); at++) {
        count++;
    }
    ck_assert_uint_eq(count, 100);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_a_full_table_gives_places_of_those_without_work)
{
    struct desk d;
    struct fl_round_rules r = rules(1, 1, 0);

    /* More who decline than the table holds. */
    r.exchange[0].deadline_ms = 1000000;
    start(&d, &r);
    TELL(&d, "OPEN;", AVAILABLE, BY(1));
    tell(&d, (struct fl_round_event){.type = FL_ROUND_EV_OPENED});
    for (uint64_t i = 1; i <= 300; i++) {
        char text[64];
        snprintf(text, sizeof text, "ENLIST %d;", (int)i);
        if (i > 1) {
            TELL(&d, text, AVAILABLE, BY(i));
        }
        snprintf(text, sizeof text, "INVITE %d;", (int)i);
        TELL(&d, text, ENLISTED, BY(i));
        d.now++;
        TELL(&d, "", DECLINED, BY(i), STATUS(POLICY_JOB));
    }
    struct fl_member_view v;
    ck_assert(fl_round_member(d.r, 0, 300, &v));
    ck_assert_int_eq(v.reason, -FL_R_POLICY_JOB);
    ck_assert(!fl_round_member(d.r, 0, 1, &v));
    fl_round_free(d.r);
}
END_TEST

static void last_text(void *arg, const struct fl_member_view *m, const char *text)
{
    (void)m;
    snprintf(arg, 256, "%s", text);
}

START_TEST(test_explain_says_who_and_why)
{
    struct desk d;
    struct fl_round_rules two = rules(2, 2, 0);
    struct fl_round_view v;
    char text[256] = "";

    start(&d, &two);
    TELL(&d, "", AVAILABLE, BY(1));
    fl_round_view(d.r, &v);
    ck_assert_str_eq(v.unblock, "1 of 2 agents ask for work; it begins with 2");
    TELL(&d, "OPEN;", AVAILABLE, BY(2));
    TELL(&d, "ENLIST 1; ENLIST 2;", OPENED);
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "INVITE 2;", ENLISTED, BY(2));
    d.now = 501;
    TELL(&d, "", DECLINED, BY(1), STATUS(BUDGET_SPENT));
    ck_assert_uint_eq(fl_round_explain(d.r, 1, last_text, text), 1);
    ck_assert_str_eq(text,
                     "declined 0 s ago: the site's privacy budget does not allow this release");
    ck_assert_uint_eq(fl_round_explain(d.r, 8, last_text, text), 0);
    ck_assert_uint_eq(fl_round_explain(d.r, 0, last_text, text), 2);
    ck_assert_str_eq(text, "was invited 0 s ago and has not answered");
    fl_round_view(d.r, &v);
    ck_assert_uint_eq(v.declined, 1);
    ck_assert_uint_eq(v.invited, 1);
    ck_assert_str_eq(v.unblock, "0 of 2 updates are committed; it closes with 2 more within 1 s; "
                                "only 1 agents work on it, 1 more must ask for work");
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_draw_is_uniform_and_repeatable)
{
    struct fl_key key = {.round = 3};
    unsigned hits[10] = {0};

    for (key.round = 1; key.round <= 2000; key.round++) {
        uint64_t a[10], b[10];
        struct fl_rng rng;
        for (uint64_t i = 0; i < 10; i++) {
            a[i] = b[i] = i;
        }
        fl_candidates_stream(&rng, 5, &key, 0);
        ck_assert_uint_eq(fl_candidates_draw(&rng, a, 10, 3), 3);
        fl_candidates_stream(&rng, 5, &key, 0);
        fl_candidates_draw(&rng, b, 10, 3);
        ck_assert_mem_eq(a, b, sizeof a);
        for (int i = 0; i < 3; i++) {
            hits[a[i]]++;
        }
    }
    for (int i = 0; i < 10; i++) { /* 600 expected, standard deviation 20.5 */
        ck_assert_uint_ge(hits[i], 500);
        ck_assert_uint_le(hits[i], 700);
    }
}
END_TEST

TESTS_MAIN("round", test_a_round_from_asking_to_publishing, test_job_ends_after_its_last_round,
           test_quorum_at_the_deadline_and_the_rest_is_told, test_nobody_is_out_any_more,
           test_draining_waits_for_records_in_flight, test_too_few_is_retried_and_then_pauses,
           test_declined_slot_goes_to_another, test_offers_that_do_not_fit,
           test_failures_of_the_store_pause_and_resume_repeats, test_pause_drain_and_cancel,
           test_revoked_agents_are_out, test_restart_goes_on_from_what_the_store_remembers,
           test_rules_of_the_next_round, test_never_records_more_than_members,
           test_who_left_is_not_invited, test_asking_during_a_pause_is_remembered,
           test_a_record_that_fails_at_the_deadline,
           test_sums_are_made_again_when_nothing_touches_them,
           test_a_retry_closes_at_the_quorum_and_the_next_round_wants_all,
           test_many_members_come_in_several_lists,
           test_a_full_table_gives_places_of_those_without_work, test_explain_says_who_and_why,
           test_draw_is_uniform_and_repeatable)
