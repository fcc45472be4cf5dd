/*
 * Every allocation fails once: ours (fl_try) and SQLite's. Out of memory is never final: the same
 * step succeeds when it is tried again, and what was promised is there.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/io/store/driver.h"
#include "tests/lib/check_main.h"

#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], facts[64 * 1024];
static size_t facts_size;
static sqlite3_mem_methods real_memory;
static long sqlite_left; /* SQLite allocations until one fails; 0 = none does */
static int sqlite_failed, tries;

static void *sqlite_alloc(int size)
{
    if (sqlite_left && --sqlite_left == 0) {
        sqlite_failed++;
        return NULL;
    }
    return real_memory.xMalloc(size);
}

static void *sqlite_realloc(void *p, int size)
{
    if (sqlite_left && --sqlite_left == 0) {
        sqlite_failed++;
        return NULL;
    }
    return real_memory.xRealloc(p, size);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remember(void *arg, const char *line)
{
    (void)arg;
    facts_size += (size_t)snprintf(facts + facts_size, sizeof facts - facts_size, "%s\n", line);
    ck_assert_uint_lt(facts_size, sizeof facts);
}

static int again(void *arg, const struct fl_err *e)
{
    (void)arg;
    return e->code == -FL_R_NOMEM && tries++ < 3 ? 0 : e->code;
}

/* A run with one failure at the n-th allocation; true when it happened. */
static bool run(long n, bool sqlite)
{
    struct driver d = {.dir = dir, .rounds = 2, .seed = 1, .fact = remember, .failed = again};
    struct fl_err e = {0};

    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    facts_size = 0;
    facts[0] = '\0';
    tries = sqlite_failed = 0;
    sqlite_left = sqlite ? n : 0;
    fl_mem_fail_at(sqlite ? 0 : (uint64_t)n);
    int r = driver_act(&d, &e);
    bool hit = sqlite ? sqlite_failed != 0 : fl_mem_fail_hit();
    sqlite_left = 0;
    fl_mem_fail_at(0);
    ck_assert_msg(r == 0, "allocation %ld: %d %s", n, r, e.msg);
    r = driver_verify(dir, facts, &e);
    ck_assert_msg(r == 0, "allocation %ld: %s", n, e.msg);
    return hit;
}

static void begin(void)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(dir, sizeof dir, "%s/test_memory.XXXXXX", base);
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

START_TEST(test_each_of_our_allocations)
{
    long n = 1;

    begin();
    while (run(n, false)) {
        n++;
    }
    ck_assert_int_gt(n, 20);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
END_TEST

START_TEST(test_each_allocation_of_sqlite)
{
    const char *all = getenv("TESTS_LONG");
    long step = all && strcmp(all, "1") == 0 ? 1 : 17, n = 1;

    begin();
    while (run(n, true)) {
        n += step;
    }
    ck_assert_int_gt(n, 500);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_each_of_our_allocations, test_each_allocation_of_sqlite};

    fl_log_setup("test", FL_LOG_WARN, FL_LOG_TEXT);
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory);
    sqlite3_mem_methods mine = real_memory;
    mine.xMalloc = sqlite_alloc;
    mine.xRealloc = sqlite_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &mine);
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0); /* so that every allocation is seen */
    return run_tests("store memory", tests, sizeof tests / sizeof tests[0]);
}
