/*
 * The agent's process is killed, without a word, at each boundary of a round, and started again;
 * the coordinator stays and watches. What must hold after each kill: every round is acknowledged
 * once, no key was offered with two different updates (the coordinator insists), the ledger has
 * exactly one release for each round, and nothing is left in the outbox.
 *
 * Needs a build with -Dcrash_points=true; says so and skips otherwise. TESTS_LONG=1: five kills at
 * each point instead of two. Prints a table.
 */
#include "client/core/ledger.h"
#include "client/host.h"
#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "tests/lib/check_main.h"
#include "tests/lib/hub.h"
#include "tests/lib/pretend_trainer.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

static const char *const points[] = {
    "agent-fetch-chunk",   "agent-fetch-before-seal", "agent-fetch-after-seal",
    "agent-intent-before", "agent-intent-after",      "agent-train-before",
    "agent-train-after",   "agent-seal-before",       "agent-seal-bytes",
    "agent-seal-private",  "agent-seal-after",        "agent-debit-before",
    "agent-debit-after",   "agent-offer-before",      "agent-upload-chunk",
    "agent-upload-sent",   "agent-mark-reported",     "agent-mark-recorded",
    "agent-mark-swept",    "agent-final-reported",
};

/* ---- the agent's process: this program again, with other arguments -----------------------------
 */

static void child_stopped(void *arg)
{
    fl_host_close(*(struct fl_host **)arg);
}

static int child(const char *path)
{
    struct fl_config *config = NULL;
    struct fl_host *host = NULL;
    struct fl_err why;
    uv_loop_t loop;

    fl_log_setup("agent", FL_LOG_WARN, FL_LOG_TEXT);
    uv_loop_init(&loop);
    if (fl_config_load(path, &config, &why) ||
        fl_host_open(&loop, config, false, child_stopped, &host, &host, &why) ||
        fl_host_start(host, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return 1;
    }
    return uv_run(&loop, UV_RUN_DEFAULT);
}

static pid_t spawn(const char *crash_at)
{
    char path[128];

    snprintf(path, sizeof path, "%s/agent.yaml", dir);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (crash_at) {
            setenv("COHORT_CRASH_AT", crash_at, 1);
        } else {
            unsetenv("COHORT_CRASH_AT");
        }
        execl("/proc/self/exe", "agent", "--agent", path, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* ---- the coordinator's side --------------------------------------------------------------------
 */

/* Runs the hub until the child ended (killed = true) or everything is evaluated. */
static void run_until(struct hub *h, pid_t pid, bool *ret_killed)
{
    int status;

    *ret_killed = false;
    for (;;) {
        uv_run(&h->loop, UV_RUN_NOWAIT);
        if (waitpid(pid, &status, WNOHANG) == pid) {
            ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
            *ret_killed = true;
            return;
        }
        if (all_evaluated() && h->round[0] == ROUNDS && h->round[1] == ROUNDS) {
            return;
        }
        usleep(1000);
    }
}

static void count_release(const struct fl_release *r, bool acknowledged, int *counts)
{
    ck_assert_uint_ge(r->key.round, 1);
    ck_assert_uint_le(r->key.round, ROUNDS);
    ck_assert(acknowledged);
    counts[r->key.round]++;
}

static int each_release(void *arg, const struct fl_release *r, uint64_t wall_ms, bool acknowledged)
{
    (void)wall_ms;
    count_release(r, acknowledged, arg);
    return 0;
}

static void check_ledgers(void)
{
    for (uint32_t i = 0; i < AGENTS; i++) {
        char path[128], crt[128], key[128], ca[128];
        struct fl_tls_files files = {.ca = ca, .certificate = crt, .key = key};
        struct fl_tls_conf *tls = NULL;
        struct fl_ledger *l = NULL;
        struct dirent *d;
        int counts[ROUNDS + 1] = {0};

        snprintf(ca, sizeof ca, "%s/pki/ca.crt", dir);
        snprintf(crt, sizeof crt, "%s/pki/site-%02u.crt", dir, i + 1);
        snprintf(key, sizeof key, "%s/pki/site-%02u.key", dir, i + 1);
        ck_assert_int_eq(fl_tls_conf_new(false, &files, &tls, &e), 0);
        snprintf(path, sizeof path, "%s/state/site-%02u/ledger.db", dir, i + 1);
        ck_assert_msg(fl_ledger_open(path, fl_tls_conf_identity(tls)->key, &l, &e) == 0, "%s",
                      e.msg);
        ck_assert_int_eq(fl_ledger_verify(l, &e), 0);
        ck_assert_int_eq(fl_ledger_each(l, each_release, counts, &e), 0);
        for (int r = 1; r <= ROUNDS; r++) {
            ck_assert_int_eq(counts[r], 1);
        }
        fl_ledger_close(l);
        fl_tls_conf_unref(tls);
        snprintf(path, sizeof path, "%s/state/site-%02u/outbox", dir, i + 1);
        DIR *outbox = opendir(path);
        while ((d = readdir(outbox)) != NULL) {
            ck_assert_msg(d->d_name[0] == '.', "%s is left", d->d_name);
        }
        closedir(outbox);
    }
}

/* Asked to end: did it, or was it killed at its point on the way? */
static bool ends_killed(struct hub *h, pid_t pid)
{
    int status = 0;

    kill(pid, SIGTERM);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        uv_run(&h->loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* One story: killed at `point` (if it is passed that often), started again, ended in peace. */
static bool story(const char *point, unsigned count)
{
    static struct hub h;
    char at[64];
    bool killed, again;

    hub_open(&h);
    fl_config_free(load_config(&h, ""));
    snprintf(at, sizeof at, "%s:%u", point, count);
    pid_t pid = spawn(at);
    run_until(&h, pid, &killed);
    if (!killed) {
        /* The last point lies behind the last line that is waited for: a polite end passes it. */
        killed = ends_killed(&h, pid);
    }
    if (killed) {
        pid = spawn(NULL);
        run_until(&h, pid, &again);
        ck_assert(!again);
        kill(pid, SIGKILL); /* at rest: nothing depends on a polite end */
        waitpid(pid, NULL, 0);
    }
    for (uint32_t i = 0; i < AGENTS; i++) {
        for (int r = 1; r <= ROUNDS; r++) {
            ck_assert(h.up[i][r].done);
        }
        ck_assert_int_ge(count_lines(i, "\"outcome\":\"acknowledged\""), ROUNDS);
    }
    check_ledgers();
    hub_close(&h);
    clear_state();
    return killed;
}

START_TEST(test_kills)
{
    const char *longer = getenv("TESTS_LONG");
    unsigned most = longer && longer[0] == '1' ? 5 : 2;

    write_stage();
    printf("%-28s kills\n", "boundary");
    for (size_t i = 0; i < FL_COUNT(points); i++) {
        unsigned kills = 0;
        for (unsigned count = 1; count <= most; count++) {
            kills += story(points[i], count);
        }
        printf("%-28s %u of %u\n", points[i], kills, most);
        fflush(stdout);
        ck_assert_msg(kills > 0, "%s is never passed", points[i]);
    }
    remove_stage();
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {test_kills};

    if (argc == 3 && strcmp(argv[1], "--agent") == 0) {
        return child(argv[2]);
    }
#ifndef FL_CRASH_POINTS
    printf("skipped: needs -Dcrash_points=true\n");
    return 77;
#endif
    return run_tests("client_kills", tests, 1);
}
