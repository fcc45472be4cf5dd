/*
 * For tests of the ledger: one ledger at a time, in a folder of its own, and the intents, releases
 * and budgets that are written to it. `fresh` begins with an empty file, `gone`, the last test of
 * each program, takes the folder away.
 */
#ifndef TESTS_LIB_LEDGER_BENCH_H
#define TESTS_LIB_LEDGER_BENCH_H

#include "client/core/ledger.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"
#include "tests/lib/fault_vfs.h"

#include <stdio.h>
#include <unistd.h>

static const uint8_t owner[32] = {1, 2, 3}, other_owner[32] = {9};
static const struct fl_budget client_budget = {.unit = FL_UNIT_CLIENT, .epsilon = 4, .delta = 1e-5};
static const struct fl_budget no_budget = {.unit = FL_UNIT_NONE, .epsilon = 0, .delta = 0};

static char folder[64], path[96];
static struct fl_ledger *l;
static struct fl_err e;

#define ck_ok(call)                                                                                \
    do {                                                                                           \
        int r_ = (call);                                                                           \
        ck_assert_msg(r_ == 0, "%s: %d %s", #call, r_, e.msg);                                     \
    } while (0)

static inline void shut(void)
{
    fl_ledger_close(l);
    l = NULL;
}

static inline void reopen(void)
{
    shut();
    ck_ok(fl_ledger_open(path, owner, &l, &e));
}

static inline void fresh(void)
{
    shut();
    fault_vfs_register();
    if (!folder[0]) {
        /* In memory where that can be: what is durable is the fault VFS's business here. */
        snprintf(folder, sizeof folder, "%s/cohort-ledger-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        ck_assert_ptr_nonnull(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/ledger.db", folder);
    }
    const char *ends[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < FL_COUNT(ends); i++) {
        char file[128];
        snprintf(file, sizeof file, "%s%s", path, ends[i]);
        unlink(file);
    }
    ck_ok(fl_ledger_open(path, owner, &l, &e));
}

static inline struct fl_key key_of(uint64_t round)
{
    return (struct fl_key){.incarnation = {7}, .round = round};
}

static inline struct fl_digest digest_of(const char *text, uint64_t number)
{
    char all[64];
    struct fl_digest d;

    fl_digest_of(
        all, (size_t)snprintf(all, sizeof all, "%s %llu", text, (unsigned long long)number), &d);
    return d;
}

static inline struct fl_intent_inputs inputs_of(uint64_t round)
{
    return (struct fl_intent_inputs){digest_of("plan", 0), digest_of("base", round),
                                     digest_of("data", 1), digest_of("private", round)};
}

static inline struct fl_release release_of(uint64_t round, double sigma)
{
    struct fl_release r = {.key = key_of(round),
                           .job = "fmnist",
                           .coordinator = {5, 6},
                           .unit = FL_UNIT_CLIENT,
                           .event = {.q = 1, .sigma = sigma, .count = 1},
                           .data = digest_of("data", 1),
                           .update = digest_of("update", round),
                           .size = 1000 + round,
                           .private_state = digest_of("private", round + 1),
                           .norm_before = 2.5,
                           .clip = 1,
                           .noise_std = sigma,
                           .saturated = 3};
    return r;
}

/* Intent and debit of one round. */
static inline int spend(uint64_t round, double sigma, const struct fl_budget *budget)
{
    struct fl_release r = release_of(round, sigma);
    struct fl_key key = key_of(round);
    struct fl_intent_inputs in = inputs_of(round);
    struct fl_seed seed;
    int result = fl_ledger_intent(l, &key, &in, 10 * round, &seed, &e);

    return result < 0 ? result : fl_ledger_debit(l, budget, &r, 10 * round + 1, &e);
}

static inline int count_release(void *arg, const struct fl_release *r, uint64_t wall_ms,
                                bool acknowledged)
{
    uint64_t *seen = arg;

    seen[0]++;
    seen[1] += acknowledged;
    seen[2] += wall_ms;
    seen[3] += r->size;
    return r->key.round == 99;
}

START_TEST(gone)
{
    char command[128];

    shut();
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

#endif
