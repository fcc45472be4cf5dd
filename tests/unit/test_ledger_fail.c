/* Every write, sync and allocation fails once, and power goes at any write. */
#include "client/core/ledger.h"
#include "common/base/mem.h"
#include "tests/lib/ledger_bench.h"

#include <unistd.h>

/* A short life; returns the first failure. */
static int live(void)
{
    struct fl_key key = key_of(1);
    int r = fl_ledger_open(path, owner, &l, &e);

    r = r < 0 ? r : spend(1, 8, &client_budget);
    r = r < 0 ? r : spend(2, 8, &client_budget);
    r = r < 0 ? r : fl_ledger_acknowledged(l, &key, 5, &e);
    r = r < 0 ? r : fl_ledger_withdraw(l, "x", true, 6, &e);
    return r;
}

/* After a failure somewhere: what is there is sound, and the same life can be lived to its end. */
static void recover(void)
{
    struct fl_release got;
    struct fl_key key = key_of(1);
    uint64_t seen[4] = {0};
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;

    shut();
    ck_ok(fl_ledger_open(path, owner, &l, &e));
    if (fl_ledger_find(l, &key, &got, &e) == 0) {
        ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    }
    struct fl_release r = release_of(1, 8);
    ck_ok(fl_ledger_debit(l, &client_budget, &r, 1, &e));
    if (fl_ledger_find(l, &(struct fl_key){.incarnation = {7}, .round = 2}, &got, &e) == 0) {
        ck_ok(spend(2, 8, &client_budget));
    }
    ck_ok(fl_ledger_acknowledged(l, &key, 5, &e));
    ck_ok(fl_ledger_verify(l, &e));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    ck_assert_uint_eq(seen[0], 2);
    ck_assert_uint_eq(seen[1], 1);
    shut();
}

static void fresh_path(void)
{
    fresh();
    shut();
    unlink(path);
}

START_TEST(test_every_failing_write_and_sync_is_reported_and_survived)
{
    uint64_t nth = 1;

    for (;; nth++) {
        fresh_path();
        fault_vfs_fail_at(nth, nth % 2 ? FAULT_VFS_FULL : FAULT_VFS_IO);
        int r = live();
        bool hit = fault_vfs_hit();
        fault_vfs_fail_at(0, FAULT_VFS_FULL);
        if (!hit) {
            ck_ok(r);
            break;
        }
        /* What fails while closing or checkpointing may go unreported: the data are in the log. */
        if (r < 0) {
            ck_assert_msg(r == -FL_R_DISK_FULL || r == -FL_R_LEDGER, "%d %s", r, e.msg);
        }
        if (r < 0 && nth % 2) {
            ck_assert_msg(r == -FL_R_DISK_FULL, "%d %s", r, e.msg);
        }
        recover();
    }
    shut();
    ck_assert_uint_gt(nth, 20);
}
END_TEST

/* A life with power that may go at any write; counts what returned. */
static int live_until_dark(struct fl_seed *seed)
{
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_release r = release_of(1, 8);
    int done = 0;

    if (fl_ledger_open(path, owner, &l, &e) < 0 || ++done == 0 ||
        fl_ledger_intent(l, &r.key, &in, 1, seed, &e) < 0 || ++done == 0 ||
        fl_ledger_debit(l, &client_budget, &r, 2, &e) < 0 || ++done == 0 ||
        fl_ledger_withdraw(l, "x", true, 3, &e) < 0 || ++done == 0 ||
        fl_ledger_acknowledged(l, &r.key, 4, &e) < 0) {
        return done;
    }
    done++;
    for (uint64_t round = 2; round < 30; round++) {
        if (spend(round, 80, &client_budget) < 0) {
            return done;
        }
        done++;
    }
    return done;
}

static void check_after_dark(int done, const struct fl_seed *seed)
{
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_key key = key_of(1);
    struct fl_release got;
    struct fl_seed again;
    bool withdrawn = false;
    uint64_t seen[4] = {0};

    ck_ok(fl_ledger_open(path, owner, &l, &e));
    ck_ok(fl_ledger_verify(l, &e));
    int found = fl_ledger_find(l, &key, &got, &e);
    ck_ok(fl_ledger_withdrawn(l, "x", &withdrawn, &e));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    if (done >= 2 && seen[1] == 0) {
        ck_ok(fl_ledger_intent(l, &key, &in, 9, &again, &e));
        ck_assert_mem_eq(seed, &again, sizeof again);
    }
    ck_assert_int_ge(found, done >= 3);
    ck_assert_int_ge(withdrawn, done >= 4);
    ck_assert_int_ge((int)seen[1], done >= 5);
    ck_assert_int_ge((int)seen[0], done >= 5 ? done - 4 : done >= 3);
    shut();
}

START_TEST(test_what_returned_survives_a_loss_of_power_at_any_write)
{
    uint64_t random = 1;
    bool dark = true;

    for (uint64_t nth = 1; dark; nth += tests_every(1, 7)) {
        struct fl_seed seed = {{0}};
        fresh_path();
        fault_vfs_power_on();
        fault_vfs_fail_at(nth, FAULT_VFS_POWER);
        int done = live_until_dark(&seed);
        dark = fault_vfs_hit();
        fault_vfs_fail_at(0, FAULT_VFS_POWER);
        fault_vfs_power_off();
        shut();
        fault_vfs_restore(nth % 3 ? &random : NULL);
        check_after_dark(done, &seed);
        ck_assert(dark || done == 33);
    }
}
END_TEST

START_TEST(test_every_failing_allocation_is_reported_and_survived)
{
    uint64_t nth = 1;

    /* SQLite's own, then ours. */
    fault_memory_install();
    for (;; nth++) {
        fresh_path();
        fault_memory_fail_at(nth);
        int r = live();
        bool hit = fault_memory_hit();
        fault_memory_fail_at(0);
        if (!hit) {
            ck_ok(r);
            break;
        }
        /* SQLite may do without some allocations. */
        if (r < 0) {
            ck_assert_msg(r == -FL_R_NOMEM || r == -FL_R_LEDGER, "%d %s", r, e.msg);
        }
        recover();
        nth += nth / 12; /* not every one of thousands */
    }
    shut();
    ck_assert_uint_gt(nth, 100);
    fault_memory_remove();
    for (nth = 1;; nth++) {
        fresh_path();
        fl_mem_fail_at(nth);
        int r = live();
        if (!fl_mem_fail_hit()) {
            ck_ok(r);
            break;
        }
        ck_assert_int_eq(r, -FL_R_NOMEM);
        fl_mem_fail_at(0);
        recover();
    }
    fl_mem_fail_at(0);
    shut();
}
END_TEST

TESTS_MAIN("ledger_fail", test_every_failing_write_and_sync_is_reported_and_survived,
           test_what_returned_survives_a_loss_of_power_at_any_write,
           test_every_failing_allocation_is_reported_and_survived, gone)
