/* Stories: a few federations in which every message takes one millisecond, told item by item. */
#include "tests/lib/check_main.h"
#include "tests/sim/world.h"

#include "common/base/mem.h"

#include <string.h>

static void tell_story(const struct sim_conf *conf, const char *expected)
{
    struct world *w = fl_new(1, sizeof *w);

    sim_run(w, conf);
    ck_assert_str_eq(w->trace, expected);
    sim_free(w);
    fl_free(w);
}

static const struct sim_conf three_sites = {
    .seed = 1,
    .sites = 3,
    .members = 2,
    .quorum = 2,
    .rounds = 1,
    .attempts = 3,
    .exchanges = 1,
    .deadline_ms = 5000,
    .steady = true,
    .trace = true,
};

START_TEST(test_two_of_three_make_a_round)
{
    tell_story(&three_sites, "coordinator starts\n"
                             "1: open\n"
                             "1: enlist a\n"
                             "1: enlist b\n"
                             "1: invite a\n"
                             "1: invite b\n"
                             "1: receive a\n"
                             "1: receive b\n"
                             "1: record a\n"
                             "1: record b\n"
                             "1: ack a\n"
                             "1: fold a\n"
                             "1: ack b\n"
                             "1: fold b\n"
                             "1: close a b\n"
                             "1: finish\n"
                             "1: publish\n"
                             "1: done\n");
}
END_TEST

START_TEST(test_crash_when_an_update_is_durable_and_not_acknowledged)
{
    struct sim_conf conf = three_sites;

    conf.coordinator_crash_at = 10;
    tell_story(&conf, "coordinator starts\n"
                      "1: open\n"
                      "1: enlist a\n"
                      "1: enlist b\n"
                      "1: invite a\n"
                      "1: invite b\n"
                      "1: receive a\n"
                      "1: receive b\n"
                      "1: record a\n"
                      "1: record b\n"
                      "coordinator crashes\n"
                      "coordinator starts\n"
                      "1: ack a\n"
                      "1: fold a\n"
                      "1: ack b\n"
                      "1: fold b\n"
                      "1: close a b\n"
                      "1: finish\n"
                      "1: publish\n"
                      "1: done\n");
}
END_TEST

/* b has released its update, and goes away before it could offer it, until the next round. */
static void b_goes_away(struct world *w)
{
    struct site *s = &w->site[1];

    if (w->step == 0 && s->up && s->agent.state == FL_AGENT_STATE_DELIVER) {
        w->step = 1;
        site_crash(w, 1);
        s->away = true;
    } else if (w->step == 1 && w->disk.published == 1 && w->disk.open) {
        w->step = 2;
        s->away = false;
        site_start(w, 1);
    }
}

/* a is acknowledged, but the word is lost on the way, and it comes back a round later. */
static void a_misses_its_ack(struct world *w)
{
    struct site *s = &w->site[0];

    if (w->step == 0 && w->acked_count > 0) {
        w->step = 1;
        site_crash(w, 0);
        s->away = true;
    } else if (w->step == 1 && w->disk.published == 1 && w->disk.open) {
        w->step = 2;
        s->away = false;
        site_start(w, 0);
    }
}

START_TEST(test_who_stays_away_is_replaced)
{
    struct sim_conf conf = three_sites;

    conf.rounds = 2;
    conf.script = b_goes_away;
    tell_story(&conf, "coordinator starts\n"
                      "1: open\n"
                      "1: enlist a\n"
                      "1: enlist b\n"
                      "1: invite a\n"
                      "1: invite b\n"
                      "1: receive a\n"
                      "site b crashes\n"
                      "1: record a\n"
                      "1: ack a\n"
                      "1: fold a\n"
                      "1: enlist c\n"
                      "1: retry (too-few-updates)\n"
                      "1: invite c\n"
                      "1: receive c\n"
                      "1: record c\n"
                      "1: ack c\n"
                      "1: fold c\n"
                      "1: close a c\n"
                      "1: finish\n"
                      "1: publish\n"
                      "2: open\n"
                      "2: enlist c\n"
                      "2: enlist a\n"
                      "2: invite c\n"
                      "2: invite a\n"
                      "late offer of b for 1: over\n"
                      "2: receive c\n"
                      "2: receive a\n"
                      "2: record c\n"
                      "2: record a\n"
                      "2: ack c\n"
                      "2: fold c\n"
                      "2: ack a\n"
                      "2: fold a\n"
                      "2: close a c\n"
                      "2: finish\n"
                      "2: publish\n"
                      "2: done\n");
}
END_TEST

START_TEST(test_a_lost_ack_is_said_again_a_round_later)
{
    struct sim_conf conf = three_sites;

    conf.rounds = 2;
    conf.script = a_misses_its_ack;
    tell_story(&conf, "coordinator starts\n"
                      "1: open\n"
                      "1: enlist a\n"
                      "1: enlist b\n"
                      "1: invite a\n"
                      "1: invite b\n"
                      "1: receive a\n"
                      "1: receive b\n"
                      "1: record a\n"
                      "1: record b\n"
                      "1: ack a\n"
                      "1: fold a\n"
                      "site a crashes\n"
                      "1: ack b\n"
                      "1: fold b\n"
                      "1: close a b\n"
                      "1: finish\n"
                      "1: publish\n"
                      "2: open\n"
                      "2: enlist c\n"
                      "2: enlist b\n"
                      "2: invite c\n"
                      "2: invite b\n"
                      "late offer of a for 1: ack\n"
                      "2: receive c\n"
                      "2: receive b\n"
                      "2: record c\n"
                      "2: record b\n"
                      "2: ack c\n"
                      "2: fold c\n"
                      "2: ack b\n"
                      "2: fold b\n"
                      "2: close b c\n"
                      "2: finish\n"
                      "2: publish\n"
                      "2: done\n");
}
END_TEST

START_TEST(test_descriptors_then_updates)
{
    struct sim_conf conf = three_sites;

    conf.exchanges = 2;
    conf.same_cohort = true;
    tell_story(&conf, "coordinator starts\n"
                      "1.0: open\n"
                      "1.0: enlist a\n"
                      "1.0: enlist b\n"
                      "1.0: invite a\n"
                      "1.0: invite b\n"
                      "1.0: receive a\n"
                      "1.0: receive b\n"
                      "1.0: record a\n"
                      "1.0: record b\n"
                      "1.0: ack a\n"
                      "1.0: fold a\n"
                      "1.0: ack b\n"
                      "1.0: fold b\n"
                      "1.0: close a b\n"
                      "1.0: finish\n"
                      "1.1: enlist a\n"
                      "1.1: enlist b\n"
                      "1.1: invite a\n"
                      "1.1: invite b\n"
                      "1.1: receive a\n"
                      "1.1: receive b\n"
                      "1.1: record a\n"
                      "1.1: record b\n"
                      "1.1: ack a\n"
                      "1.1: fold a\n"
                      "1.1: ack b\n"
                      "1.1: fold b\n"
                      "1.1: close a b\n"
                      "1.1: finish\n"
                      "1.1: publish\n"
                      "1.0: done\n");
}
END_TEST

TESTS_MAIN("story", test_two_of_three_make_a_round,
           test_crash_when_an_update_is_durable_and_not_acknowledged,
           test_who_stays_away_is_replaced, test_a_lost_ack_is_said_again_a_round_later,
           test_descriptors_then_updates)
