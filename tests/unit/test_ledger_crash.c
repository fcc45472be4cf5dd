/*
 * A child lives rounds against the ledger and tells, over a pipe, what returned; it is killed at a
 * random moment, fifty times. Afterwards nothing that was told is missing or different: a seed told
 * for a key is the key's seed until the end, a debit told is there, no key ever has two digests,
 * and the budget is not exceeded. The chain holds each time.
 */
#include "client/core/ledger.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILLS = 50, ROUNDS_MAX = 20000 };

static const uint8_t owner[32] = {1};
static const struct fl_budget budget = {.unit = FL_UNIT_CLIENT, .epsilon = 8, .delta = 1e-5};
static const double sigma = 40;

/* What the child says; smaller than PIPE_BUF, so whole or not at all. */
struct told {
    uint64_t round;
    enum told_what { TOLD_SEED, TOLD_DEBIT, TOLD_ACKNOWLEDGED, TOLD_END } what;
    uint8_t bytes[32];
};

static struct {
    bool seed, debit, acknowledged;
    uint8_t seed_bytes[32], update[32];
} known[ROUNDS_MAX];

static struct fl_intent_inputs inputs_of(uint64_t round)
{
    struct fl_intent_inputs in = {0};

    fl_digest_of(&round, sizeof round, &in.base);
    return in;
}

/* The update is a function of seed and inputs, as training is. */
static struct fl_release release_of(uint64_t round, const struct fl_seed *seed)
{
    struct fl_release r = {.key = {.incarnation = {3}, .round = round},
                           .job = "crash",
                           .unit = FL_UNIT_CLIENT,
                           .event = {.q = 1, .sigma = sigma, .count = 1},
                           .size = 32};

    fl_digest_of(seed->bytes, sizeof seed->bytes, &r.update);
    return r;
}

static void tell(int fd, uint64_t round, enum told_what what, const uint8_t bytes[32])
{
    struct told t = {.round = round};

    t.what = what;
    memcpy(t.bytes, bytes, 32);
    if (write(fd, &t, sizeof t) != (ssize_t)sizeof t) {
        _exit(3);
    }
}

static void child(const char *path, int fd)
{
    struct fl_ledger *l;
    struct fl_err e = {0};
    int r = fl_ledger_open(path, owner, &l, &e);

    for (uint64_t round = 1; r == 0 && round < ROUNDS_MAX; round++) {
        struct fl_key key = {.incarnation = {3}, .round = round};
        struct fl_intent_inputs in = inputs_of(round);
        struct fl_release there, release;
        struct fl_seed seed;
        int found = fl_ledger_find(l, &key, &there, &e);
        if (found == 1) { /* as an agent: offer it again, and it is acknowledged */
            r = fl_ledger_acknowledged(l, &key, 1, &e);
            continue;
        }
        r = fl_ledger_intent(l, &key, &in, 1, &seed, &e);
        if (r < 0) {
            break;
        }
        tell(fd, round, TOLD_SEED, seed.bytes);
        release = release_of(round, &seed);
        r = fl_ledger_debit(l, &budget, &release, 2, &e);
        if (r < 0) {
            break;
        }
        tell(fd, round, TOLD_DEBIT, release.update.bytes);
        r = fl_ledger_acknowledged(l, &key, 3, &e);
        if (r == 0) {
            tell(fd, round, TOLD_ACKNOWLEDGED, release.update.bytes);
        }
    }
    if (r == -FL_R_BUDGET_SPENT) {
        tell(fd, 0, TOLD_END, owner);
        _exit(0);
    }
    fprintf(stderr, "child: %s\n", e.msg);
    _exit(2);
}

/* True when the budget came to its end. */
static bool listen_to(int fd)
{
    struct told t;
    bool end = false;

    while (read(fd, &t, sizeof t) == (ssize_t)sizeof t) {
        ck_assert_uint_lt(t.round, ROUNDS_MAX);
        switch (t.what) {
        case TOLD_SEED:
            ck_assert(!known[t.round].seed || memcmp(known[t.round].seed_bytes, t.bytes, 32) == 0);
            known[t.round].seed = true;
            memcpy(known[t.round].seed_bytes, t.bytes, 32);
            break;
        case TOLD_DEBIT:
            ck_assert(!known[t.round].debit); /* never debited twice: find comes first */
            known[t.round].debit = true;
            memcpy(known[t.round].update, t.bytes, 32);
            break;
        case TOLD_ACKNOWLEDGED:
            known[t.round].acknowledged = true;
            break;
        case TOLD_END:
            end = true;
            break;
        }
    }
    return end;
}

static uint64_t check(const char *path)
{
    struct fl_ledger *l;
    struct fl_err e = {0};
    struct fl_digest data = {0};
    uint64_t releases = 0;
    double epsilon = NAN;
    enum fl_bound bound;
    bool placeless;

    ck_assert_msg(fl_ledger_open(path, owner, &l, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_ledger_verify(l, &e) == 0, "%s", e.msg);
    for (uint64_t round = 1; round < ROUNDS_MAX; round++) {
        struct fl_key key = {.incarnation = {3}, .round = round};
        struct fl_release there;
        int found = fl_ledger_find(l, &key, &there, &e);
        ck_assert_int_ge(found, 0);
        if (!found) {
            ck_assert(!known[round].debit);
            if (!known[round].seed) {
                break;
            }
            continue;
        }
        releases++;
        ck_assert(!known[round].debit || memcmp(known[round].update, there.update.bytes, 32) == 0);
        if (known[round].seed) {
            struct fl_seed seed;
            memcpy(seed.bytes, known[round].seed_bytes, 32);
            struct fl_release want = release_of(round, &seed);
            ck_assert(fl_digest_equal(&want.update, &there.update));
        }
    }
    ck_assert_int_eq(fl_ledger_spent(l, &data, FL_UNIT_CLIENT, false, budget.delta, &epsilon,
                                     &bound, &placeless, &e),
                     0);
    ck_assert_double_le(epsilon, budget.epsilon);
    fl_ledger_close(l);
    return releases;
}

START_TEST(test_killed_at_random_fifty_times)
{
    char folder[] = "/tmp/cohort-crash-XXXXXX", path[64], command[64];
    uint64_t before = 0, releases = 0, moved = 0;
    struct fl_rng rng;
    struct fl_seed seed;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    fl_seed_from_u64(4, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int i = 0; i < KILLS; i++) {
        int fds[2];
        ck_assert_int_eq(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child(path, fds[1]);
        }
        close(fds[1]);
        struct timespec wait = {0, (long)fl_rng_below(&rng, 120 * 1000 * 1000)};
        nanosleep(&wait, NULL);
        kill(pid, SIGKILL);
        int status = 0;
        waitpid(pid, &status, 0);
        ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "child failed: %x",
                      (unsigned)status);
        bool end = listen_to(fds[0]);
        close(fds[0]);
        releases = check(path);
        ck_assert_uint_ge(releases, before);
        moved += releases > before;
        before = releases;
        if (end) {
            break;
        }
    }
    printf("%llu releases over %d kills\n", (unsigned long long)releases, KILLS);
    ck_assert_uint_gt(moved, 5);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

TESTS_MAIN("ledger_crash", test_killed_at_random_fifty_times)
