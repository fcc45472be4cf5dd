#include "common/base/mem.h"
#include "server/core/roster.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static const uint8_t *key(uint8_t n)
{
    static uint8_t k[FL_ROSTER_KEY_SIZE];
    memset(k, n, sizeof k);
    return k;
}

static struct fl_roster *three(void)
{
    struct fl_roster *r = NULL;
    struct fl_err e = {0};

    ck_assert_int_eq(fl_roster_new(4, &r, &e), 0);
    ck_assert_int_eq(fl_roster_add(r, 1, key(1), "site-1", "0a", false, &e), 0);
    ck_assert_int_eq(fl_roster_add(r, 2, key(2), "site-2", NULL, false, &e), 0);
    ck_assert_int_eq(fl_roster_add(r, 3, key(3), "site-3", "", true, &e), 0);
    return r;
}

START_TEST(test_enrolment_is_unique_and_bounded)
{
    struct fl_roster *r = three();
    struct fl_err e = {0};
    char long_name[FL_ROSTER_NAME_MAX + 1];

    memset(long_name, 'n', sizeof long_name);
    long_name[FL_ROSTER_NAME_MAX] = 0;
    ck_assert_int_eq(fl_roster_add(r, 1, key(9), "site-9", "", false, &e), -FL_R_CTL_EXISTS);
    ck_assert_int_eq(fl_roster_add(r, 9, key(1), "site-9", "", false, &e), -FL_R_CTL_EXISTS);
    ck_assert_int_eq(fl_roster_add(r, 9, key(9), "site-1", "", false, &e), -FL_R_CTL_EXISTS);
    ck_assert_int_eq(fl_roster_add(r, 0, key(9), "site-9", "", false, &e), -FL_R_ARG);
    ck_assert_int_eq(fl_roster_add(r, 9, key(9), "", "", false, &e), -FL_R_ARG);
    ck_assert_int_eq(fl_roster_add(r, 9, key(9), long_name, "", false, &e), -FL_R_ARG);
    ck_assert_int_eq(fl_roster_add(r, 9, key(9), "site-9", long_name, false, &e), -FL_R_ARG);
    ck_assert_int_eq(fl_roster_add(r, 9, key(9), "site-9", "", false, &e), 0);
    ck_assert_int_eq(fl_roster_add(r, 10, key(10), "site-10", "", false, &e), -FL_R_LIMIT);
    ck_assert_uint_eq(fl_roster_by_name(r, "site-9")->id, 9);
    ck_assert_uint_eq(fl_roster_by_key(r, key(2))->id, 2);
    ck_assert_str_eq(fl_roster_by_id(r, 1)->serial, "0a");
    ck_assert_ptr_null(fl_roster_by_name(r, "site"));
    ck_assert_ptr_null(fl_roster_by_id(r, 77));
    fl_roster_free(r);
    fl_roster_free(NULL);
}
END_TEST

START_TEST(test_connecting)
{
    struct fl_roster *r = three();
    struct fl_err e = {0};
    const struct fl_roster_agent *a = NULL;
    uint64_t replaced = 99;

    ck_assert_int_eq(fl_roster_connect(r, key(7), "07", 70, 1, &a, &replaced, &e),
                     -FL_R_NOT_ENROLLED);
    ck_assert_int_eq(fl_roster_connect(r, key(3), "03", 70, 1, &a, &replaced, &e),
                     -FL_R_AGENT_REVOKED);
    ck_assert_str_eq(e.msg, "agent site-3 is revoked");
    ck_assert(!fl_roster_set(r, 1, FL_ROSTER_ASKING, 0, 5));
    ck_assert_int_eq(fl_roster_connect(r, key(1), "01", 70, 10, &a, &replaced, &e), 0);
    ck_assert_uint_eq(replaced, 0);
    ck_assert_str_eq(a->serial, "01");
    ck_assert_int_eq(a->state, FL_ROSTER_IDLE);
    ck_assert(fl_roster_set(r, 1, FL_ROSTER_WORKING, 4, 20));
    ck_assert_uint_eq(a->job, 4);
    ck_assert_uint_eq(a->since_ms, 20);

    /* The same agent once more: the older connection goes, and its end changes nothing. */
    ck_assert_int_eq(fl_roster_connect(r, key(1), "11", 71, 30, &a, &replaced, &e), 0);
    ck_assert_uint_eq(replaced, 70);
    ck_assert_str_eq(a->serial, "11");
    ck_assert_int_eq(a->state, FL_ROSTER_IDLE);
    ck_assert_uint_eq(a->job, 0);
    ck_assert(!fl_roster_disconnect(r, 1, 70, 40));
    ck_assert_uint_eq(a->connection, 71);
    ck_assert(fl_roster_disconnect(r, 1, 71, 50));
    ck_assert(!fl_roster_disconnect(r, 1, 71, 50));
    ck_assert_int_eq(a->state, FL_ROSTER_OFFLINE);
    ck_assert_uint_eq(a->seen_ms, 50);
    fl_roster_free(r);
}
END_TEST

static bool until_two(void *arg, const struct fl_roster_agent *a)
{
    uint64_t *sum = arg;
    *sum = *sum * 10 + a->id;
    return a->id != 2;
}

START_TEST(test_revoking_counting_and_walking)
{
    struct fl_roster *r = three();
    const struct fl_roster_agent *a = NULL;
    struct fl_roster_counts c;
    uint64_t replaced, walked = 0;

    ck_assert_int_eq(fl_roster_connect(r, key(1), "01", 5, 1, &a, &replaced, NULL), 0);
    ck_assert_int_eq(fl_roster_connect(r, key(2), "02", 6, 1, &a, &replaced, NULL), 0);
    ck_assert(fl_roster_set(r, 2, FL_ROSTER_ASKING, 0, 2));
    ck_assert(!fl_roster_revoke(r, "nobody", NULL));
    ck_assert(fl_roster_revoke(r, "site-1", &a));
    ck_assert_uint_eq(a->connection, 5);
    fl_roster_counts(r, &c);
    ck_assert_uint_eq(c.enrolled, 3);
    ck_assert_uint_eq(c.revoked, 2);
    ck_assert_uint_eq(c.online, 2);
    ck_assert_uint_eq(c.asking, 1);
    ck_assert_uint_eq(c.idle, 1);
    ck_assert_uint_eq(c.working, 0);
    fl_roster_each(r, until_two, &walked);
    ck_assert_uint_eq(walked, 12);
    ck_assert_str_eq(fl_roster_state_name(FL_ROSTER_ASKING), "asking");
    fl_roster_free(r);
}
END_TEST

START_TEST(test_a_ledger_only_moves_forward)
{
    struct fl_roster *r = three();
    const struct fl_digest zero = {{0}}, a = {{1}}, b = {{2}};

    ck_assert(fl_roster_mark(r, 1, 0, &zero)); /* told nothing, as ever */
    ck_assert(fl_roster_mark(r, 1, 4, &a));
    ck_assert(fl_roster_mark(r, 1, 4, &a)); /* the same offer again */
    ck_assert(!fl_roster_mark(r, 1, 4, &b));
    ck_assert(!fl_roster_mark(r, 1, 3, &b));
    ck_assert(!fl_roster_mark(r, 1, 0, &zero));
    ck_assert(fl_roster_mark(r, 1, 9, &b));
    ck_assert_uint_eq(fl_roster_by_id(r, 1)->releases, 9);
    ck_assert(fl_digest_equal(&fl_roster_by_id(r, 1)->head, &b));
    ck_assert(!fl_roster_mark(r, 99, 1, &a));
    fl_roster_free(r);
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    uint64_t n = 0;
    bool hit;

    do {
        struct fl_roster *r = NULL;
        fl_mem_fail_at(++n);
        if (fl_roster_new(100, &r, NULL) == 0) {
            uint64_t added = 0;
            for (uint64_t i = 1; i <= 50; i++) {
                char name[16];
                uint8_t k[FL_ROSTER_KEY_SIZE] = {(uint8_t)i};
                snprintf(name, sizeof name, "a%d", (int)i);
                added += fl_roster_add(r, i, k, name, "", false, NULL) == 0;
                ck_assert((fl_roster_by_name(r, name) != NULL) == (fl_roster_by_id(r, i) != NULL));
                ck_assert((fl_roster_by_key(r, k) != NULL) == (fl_roster_by_id(r, i) != NULL));
            }
            struct fl_roster_counts c;
            fl_roster_counts(r, &c);
            ck_assert_uint_eq(c.enrolled, added);
        }
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        fl_roster_free(r);
    } while (hit);
    ck_assert_uint_gt(n, 50);
}
END_TEST

TESTS_MAIN("roster", test_enrolment_is_unique_and_bounded, test_connecting,
           test_revoking_counting_and_walking, test_a_ledger_only_moves_forward,
           test_every_allocation_may_fail)
