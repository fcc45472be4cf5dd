/* Trainer programs: how they are run, and what they may answer. This program is its own keeper. */
#include "client/trainer/exec.h"
#include "common/base/mem.h"
#include "common/io/keeper.h"
#include "tests/lib/check_main.h"
#include "tests/lib/pretend_trainer.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct fl_err err;
static struct fl_keeper_result result;

static int run(const char *script, struct fl_keeper_job job)
{
    const char *program[] = {"/bin/sh", "-c", script, NULL};

    memset(&err, 0, sizeof err);
    job.program = program;
    job.folder = "/tmp";
    job.input = job.input ? job.input : "{\"a\": 1}";
    job.time_ms = job.time_ms ? job.time_ms : 10000;
    job.output = job.output ? job.output : 10000;
    job.file = job.file ? job.file : 10000;
    return fl_keeper_run(&job, &result, &err);
}

static void good(const char *script, const char *answer)
{
    int r = run(script, (struct fl_keeper_job){0});
    ck_assert_msg(r == 0, "%d %s", r, err.msg);
    ck_assert_str_eq(result.answer, answer);
    fl_keeper_result_fini(&result);
}

static void bad(const char *script, int reason, const char *says)
{
    int r = run(script, (struct fl_keeper_job){.time_ms = reason == FL_R_EXEC_TIME ? 400 : 30000,
                                               .memory = 256u << 20});
    ck_assert_msg(r == -reason, "%s: %d %s", script, r, err.msg);
    ck_assert_msg(strstr(err.msg, says) != NULL, "%s", err.msg);
    ck_assert_ptr_null(result.answer);
}

START_TEST(test_answers)
{
    good("cat", "{\"a\": 1}");
    good("echo one; echo two; printf '\\n\\n'", "two");
    good("echo one; printf two", "two");
    good("exec <&-; echo x", "x"); /* does not read its line */
    good("pwd", "/tmp");
    good("echo $PPID-${HOMEX:-none}; echo ok", "ok");
    setenv("COHORT_SECRET", "1", 1);
    good("echo ${COHORT_SECRET:-none}", "none");
    good("ls /proc/self/fd | wc -l | tr -d ' '", "4"); /* 0, 1, 2 and the folder itself */
    char *long_line = fl_new(60001, 1);
    memset(long_line, 'x', 60000);
    int r = run("cat", (struct fl_keeper_job){.input = long_line, .output = 1 << 20});
    ck_assert_msg(r == 0, "%s", err.msg);
    ck_assert_str_eq(result.answer, long_line);
    fl_keeper_result_fini(&result);
    fl_free(long_line);
}
END_TEST

START_TEST(test_what_goes_wrong_has_a_name)
{
    bad("true", FL_R_EXEC_ANSWER, "no answer");
    bad("head -c 70000 /dev/zero | tr '\\0' x", FL_R_EXEC_OUTPUT, "more than 10000 bytes");
    bad("echo x; exit 3", FL_R_EXEC_EXIT, "status 3");
    bad("kill -ABRT $$", FL_R_EXEC_SIGNAL, "signal 6 (ABRT)");
    bad("sleep 100", FL_R_EXEC_TIME, "longer than 0 s");
    bad("trap '' TERM INT HUP; while :; do sleep 0.01; done", FL_R_EXEC_TIME, "longer");
    bad("yes", FL_R_EXEC_OUTPUT, "output");
    bad("yes >&2", FL_R_EXEC_OUTPUT, "output");
    bad("head -c 20000 /dev/zero >/tmp/test_exec_$$; s=$?; rm -f /tmp/test_exec_$$; exit $s",
        FL_R_EXEC_EXIT, "status");
    bad("head -c 600000000 /dev/zero | tail -c 500000000 >/dev/null", FL_R_EXEC_EXIT, "status");
    const char *program[] = {"/nonexistent/trainer", NULL};
    struct fl_keeper_job job = {.program = program,
                                .folder = "/tmp",
                                .input = "",
                                .time_ms = 5000,
                                .output = 100,
                                .file = 100};
    ck_assert_int_eq(fl_keeper_run(&job, &result, &err), -FL_R_EXEC_START);
    ck_assert_str_eq(err.msg, "/nonexistent/trainer: No such file or directory");
    const char *shell[] = {"/bin/sh", "-c", "echo", NULL};
    job.program = shell;
    job.folder = "/nonexistent";
    ck_assert_int_eq(fl_keeper_run(&job, &result, &err), -FL_R_EXEC_START);
}
END_TEST

START_TEST(test_the_end_of_stderr_is_kept)
{
    run("echo first >&2; exit 1", (struct fl_keeper_job){0});
    ck_assert_str_eq(result.tail, "first\n");
    run("i=0; while [ $i -lt 300 ]; do echo line $i of some length >&2; i=$((i+1)); done; printf "
        "'\\033[31mred' >&2; exit 1",
        (struct fl_keeper_job){0});
    size_t n = strlen(result.tail);
    ck_assert(n < FL_KEEPER_TAIL && n > FL_KEEPER_TAIL / 2);
    ck_assert(strncmp(result.tail, "line ", 5) == 0);
    ck_assert_str_eq(result.tail + n - 8, "?[31mred");
}
END_TEST

/* Reads a pid the script wrote; 0 when there is none. */
static pid_t pid_in(const char *path)
{
    int pid = 0;
    FILE *f = fopen(path, "r");

    if (f) {
        ck_assert_int_le(fscanf(f, "%d", &pid), 1);
        fclose(f);
    }
    return pid;
}

START_TEST(test_nothing_is_left)
{
    char script[512], path[64];

    snprintf(path, sizeof path, "/tmp/test_exec_pid_%d", (int)getpid());
    /* Two generations, in sessions of their own, deaf to all that can be ignored. */
    snprintf(script, sizeof script,
             "setsid sh -c 'trap \"\" TERM HUP INT; setsid sh -c \"trap : TERM; echo \\$\\$ >%s; "
             "sleep 1000; sleep 1000\" & sleep 1000' >/dev/null 2>&1 & "
             "while [ ! -s %s ]; do sleep 0.01; done; echo done",
             path, path);
    good(script, "done");
    pid_t pid = pid_in(path);
    ck_assert_int_gt(pid, 1);
    ck_assert(kill(pid, 0) != 0);
    unlink(path);
}
END_TEST

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

START_TEST(test_cancelled)
{
    atomic_bool cancel = true;
    int64_t from = now_ms();

    int r = run("trap '' TERM; sleep 1000", (struct fl_keeper_job){.cancel = &cancel});
    ck_assert_int_eq(r, -FL_R_CANCELLED);
    ck_assert_int_lt(now_ms() - from, 5000);
}
END_TEST

/* The agent is killed by what nobody can catch; the program, deaf to SIGTERM, dies with it. */
START_TEST(test_killed_with_the_agent)
{
    char script[256], path[64];
    pid_t agent, pid = 0;

    snprintf(path, sizeof path, "/tmp/test_exec_pid_%d", (int)getpid());
    snprintf(script, sizeof script, "trap '' TERM HUP; echo $$ >%s; while :; do sleep 1; done",
             path);
    agent = fork();
    if (agent == 0) {
        run(script, (struct fl_keeper_job){0});
        _exit(1);
    }
    for (int64_t until = now_ms() + 10000; now_ms() < until && !pid; usleep(10000)) {
        pid = pid_in(path);
    }
    ck_assert_int_gt(pid, 1);
    kill(agent, SIGKILL);
    waitpid(agent, NULL, 0);
    for (int64_t until = now_ms() + 10000; now_ms() < until && kill(pid, 0) == 0; usleep(10000)) {
    }
    ck_assert(kill(pid, 0) != 0);
    unlink(path);
}
END_TEST

START_TEST(test_what_an_answer_may_be)
{
    struct fl_train_report t;
    static const char *const wrong[] = {"",
                                        "[]",
                                        "{",
                                        "{\"loss\": \"low\"}",
                                        "{} x",
                                        "{\"loss\": 1, \"loss\": 2}",
                                        "{\"steps\": true}",
                                        "{\"error\": \"no GPU\"}"};

    ck_assert_int_eq(fl_exec_answer("{}", &t, &err), 0);
    ck_assert(isnan(t.loss) && isnan(t.accuracy_trained) && t.steps == 0);
    ck_assert(isnan(t.received.rmse) && isnan(t.served.r2) && !t.received.known);
    ck_assert_int_eq(fl_exec_answer("{\"rmse_received\": 1.5, \"r2_trained\": -0.5}", &t, &err), 0);
    ck_assert(t.received.rmse == 1.5 && t.trained.r2 == -0.5 && isnan(t.trained.rmse) &&
              t.trained.known);
    ck_assert_int_eq(fl_exec_answer("{\"mae_served\": \"x\"}", &t, &err), -FL_R_EXEC_ANSWER);
    ck_assert_int_eq(fl_exec_answer("{\"loss\": 2, \"accuracy_received\": 0.5, \"steps\": 7, "
                                    "\"accuracy_served\": null, \"mine\": [1]}",
                                    &t, &err),
                     0);
    ck_assert(t.loss == 2 && t.accuracy_received == 0.5 && t.steps == 7 &&
              isnan(t.accuracy_served));
    for (size_t i = 0; i < FL_COUNT(wrong); i++) {
        ck_assert_int_eq(fl_exec_answer(wrong[i], &t, &err), -FL_R_EXEC_ANSWER);
    }
    ck_assert_ptr_nonnull(strstr(err.msg, "no GPU"));
}
END_TEST

static int all_tests(void)
{
    const TTest *const tests[] = {test_answers,
                                  test_what_goes_wrong_has_a_name,
                                  test_the_end_of_stderr_is_kept,
                                  test_nothing_is_left,
                                  test_cancelled,
                                  test_killed_with_the_agent,
                                  test_what_an_answer_may_be};
    signal(SIGPIPE, SIG_IGN); /* as in an agent */
    return run_tests("exec", tests, sizeof tests / sizeof tests[0]);
}

int main(int argc, char **argv)
{
    fl_keeper_main(argc, argv);
    return all_tests();
}
