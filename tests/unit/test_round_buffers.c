/* Buffers: who is late counts in a later round, for less (server/core/round.c). */
#include "common/base/mem.h"
#include "tests/lib/round_desk.h"

/* A buffer of one, two at work, up to two rounds late. */
static struct fl_round_rules buffer(void)
{
    struct fl_round_rules one = rules(1, 1, 1);

    one.rounds = 9;
    one.staleness = 2;
    one.stale_weight[0] = 1024;
    one.stale_weight[1] = 724;
    one.stale_weight[2] = 591;
    return one;
}

/* Agent 1 makes the round on its own. */
static void one_makes_the_round(struct desk *d, const char *at_the_end)
{
    TELL(d, "RECEIVE 1;", OFFERED, BY(1));
    TELL(d, "RECORD 1;", SPOOLED, BY(1));
    TELL(d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    TELL(d, at_the_end, CLOSED);
    TELL(d, "FINISH;", FOLDED, BY(1));
    TELL(d, "PUBLISH;", FINISHED);
}

START_TEST(test_a_buffer_takes_what_is_late)
{
    struct desk d;
    struct fl_round_rules one = buffer();
    struct fl_member_view v;

    start(&d, &one);
    both_at_work(&d);
    one_makes_the_round(&d, ""); /* nobody tells 2 to stop */
    TELL(&d, "OPEN;", PUBLISHED);
    d.round = 2;
    ck_assert(fl_round_member(d.r, 0, 2, &v) && v.base == 1 && v.state == FL_MEMBER_ACCEPTED);
    TELL(&d, "ENLIST 2;", OPENED);
    ck_assert_uint_eq(d.todo.item[0].base, 1);
    /* It offers before its membership is on the disk: recorded after that. */
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2), .base = 1);
    ck_assert_uint_eq(d.todo.item[0].base, 1);
    TELL(&d, "", SPOOLED, BY(2));
    TELL(&d, "RECORD 2;", ENLISTED, BY(2), .base = 1);
    ck_assert_uint_eq(d.todo.item[0].weight, 724);
    /* The task that is 1's is of this round, and it has none yet. */
    TELL(&d, "ENLIST 1;", AVAILABLE, BY(1));
    TELL(&d, "INVITE 1;", ENLISTED, BY(1));
    TELL(&d, "ACK 2; FOLD 2; CLOSE 2;", COMMITTED, BY(2));
    ck_assert_uint_eq(d.todo.item[0].base, 1);
    TELL(&d, "DROP 1 (round-over);", CLOSED); /* it had not accepted */
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_a_buffer_refuses_what_is_too_late)
{
    struct desk d;
    struct fl_round_rules one = buffer();

    start(&d, &one);
    both_at_work(&d);
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2));
    one_makes_the_round(&d, "REFUSE 2 (busy);"); /* it offers that again in the next round */
    TELL(&d, "REFUSE 2 (busy);", OFFERED, BY(2));
    TELL(&d, "OPEN;", PUBLISHED);
    for (d.round = 2; d.round <= 3; d.round++) {
        TELL(&d, "ENLIST 2;", OPENED);
        TELL(&d, "", ENLISTED, BY(2), .base = 1);
        TELL(&d, "ENLIST 1;", AVAILABLE, BY(1));
        TELL(&d, "INVITE 1;", ENLISTED, BY(1));
        TELL(&d, "", ACCEPTED, BY(1));
        if (d.round == 2) {
            one_makes_the_round(&d, "");
            TELL(&d, "OPEN;", PUBLISHED);
        }
    }
    d.round = 3;
    one_makes_the_round(&d, "DROP 2 (round-over);"); /* in round 4 it would be three late */
    TELL(&d, "", PUBLISHED);
    d.round = 4;
    TELL(&d, "", AVAILABLE, BY(2));
    d.now += 100;
    TELL(&d, "OPEN;", TICK);
    TELL(&d, "ENLIST 2;", OPENED);
    ck_assert_uint_eq(d.todo.item[0].base, 4);
    TELL(&d, "INVITE 2;", ENLISTED, BY(2));
    TELL(&d, "DROP 2 (not-a-member);", OFFERED, BY(2), .base = 1);
    fl_round_free(d.r);
}
END_TEST

START_TEST(test_who_comes_back_without_its_work_begins_anew)
{
    struct desk d;
    struct fl_round_rules one = buffer();

    start(&d, &one);
    both_at_work(&d);
    one_makes_the_round(&d, "");
    TELL(&d, "OPEN;", PUBLISHED);
    d.round = 2;
    TELL(&d, "ENLIST 2;", OPENED);
    TELL(&d, "", ENLISTED, BY(2), .base = 1);
    TELL(&d, "", LEFT, BY(2));
    TELL(&d, "ENLIST 2;", AVAILABLE, BY(2));
    ck_assert_uint_eq(d.todo.item[0].base, 2);
    TELL(&d, "INVITE 2;", ENLISTED, BY(2));
    fl_round_free(d.r);
    /* After a restart it is who it was. */
    start(&d, &one);
    TELL(&d, "", OPENED);
    TELL(&d, "", ENLISTED, BY(2));
    TELL(&d, "ACK 1; FOLD 1; CLOSE 1;", COMMITTED, BY(1));
    fl_round_free(d.r);
    start(&d, &one);
    struct fl_round_setup setup = {.published = 1, .candidates_max = 9, .now_ms = 1, .rules = &one};
    fl_round_free(d.r);
    ck_assert_int_eq(fl_round_new(&setup, &d.r, NULL), 0);
    d.round = 2;
    TELL(&d, "", OPENED);
    TELL(&d, "", ENLISTED, BY(2), .base = 1);
    TELL(&d, "RECEIVE 2;", OFFERED, BY(2), .base = 1);
    TELL(&d, "RECORD 2;", SPOOLED, BY(2));
    ck_assert_uint_eq(d.todo.item[0].weight, 724);
    fl_round_free(d.r);
    /* What the rules may say. */
    one.stale_weight[2] = 0;
    ck_assert_int_eq(fl_round_rules_check(&one, NULL), -FL_R_CONF_RANGE);
    one.staleness = FL_ROUND_STALE_MAX + 1;
    ck_assert_int_eq(fl_round_rules_check(&one, NULL), -FL_R_CONF_CONFLICT);
    one = buffer();
    one.exchange_count = 2;
    one.exchange[1] = one.exchange[0];
    ck_assert_int_eq(fl_round_rules_check(&one, NULL), -FL_R_CONF_CONFLICT);
}
END_TEST

START_TEST(test_new_fails_cleanly_without_memory)
{
    struct fl_round_rules two = buffer();
    struct fl_round_setup setup = {.candidates_max = 10, .rules = &two};
    struct fl_round *r = NULL;
    uint64_t n = 0;

    do {
        fl_mem_fail_at(++n);
        int status = fl_round_new(&setup, &r, NULL);
        ck_assert_int_eq(status, fl_mem_fail_hit() ? -FL_R_NOMEM : 0);
    } while (fl_mem_fail_hit());
    fl_mem_fail_at(0);
    ck_assert_uint_gt(n, 5);
    fl_round_free(r);
}
END_TEST

TESTS_MAIN("round_buffers", test_a_buffer_takes_what_is_late,
           test_a_buffer_refuses_what_is_too_late, test_who_comes_back_without_its_work_begins_anew,
           test_new_fails_cleanly_without_memory)
