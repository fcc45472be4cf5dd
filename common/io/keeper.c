/*
 * The keeper's own side: what runs in the process between agent and program.
 *
 * It is this executable started again with a first argument nobody types, so that after fork() in a
 * process with many threads nothing runs but exec, and so that a keeper holds none of the agent's
 * memory (models, private tensors). It says on descriptor 3 how it went:
 *
 *     "start <errno>"     the program could not be started
 *     "cpu <milliseconds>", then one of
 *     "exit <status>"     it ended by itself
 *     "signal <number>"   it was killed by a signal, its own doing or somebody else's
 *
 * How nothing is left:
 *   - the program has a process group of its own, which is killed as one;
 *   - children that left the group are orphans once the program is dead, and orphans come to the
 *     nearest ancestor that is a "child subreaper", the keeper, who kills until it has no children;
 *   - when the agent dies, even by SIGKILL, the kernel sends the keeper SIGTERM (PR_SET_PDEATHSIG:
 *     tied to the thread that forked, which waits until the keeper is done), and it does the same;
 *   - when somebody kills the keeper itself, the program dies by its own PR_SET_PDEATHSIG. Only
 * then could a grandchild in another group survive.
 */
#include "common/io/keeper.h"

#include "common/io/keeper_in.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS = FL_KEEPER_STATUS, PATIENCE_MS = 3000 };

static void say(const char *what, int number)
{
    char line[32];
    int n = snprintf(line, sizeof line, "%s %d\n", what, number);
    ssize_t w = write(STATUS, line, (size_t)n);
    (void)w; /* the agent may be gone */
}

/* ---- the program's side of fork ---- */

static bool limit(int what, uint64_t value)
{
    const struct rlimit l = {value, value};
    return setrlimit((__rlimit_resource_t)what, &l) == 0;
}

/* exec or the end; errno goes up the pipe. */
static void become(char **program, const char *folder, uint64_t memory, uint64_t file, int pipe_up)
{
    sigset_t none;
    pid_t keeper = getppid();

    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++) {
        signal(s, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == keeper &&
        chdir(folder) == 0 && limit(RLIMIT_CORE, 0) && limit(RLIMIT_FSIZE, file) &&
        (memory == 0 || limit(RLIMIT_AS, memory))) {
        close(STATUS);
        execvp(program[0], program);
    }
    int code = errno;
    ssize_t w = write(pipe_up, &code, sizeof code);
    (void)w;
    _exit(127);
}

/* The program's pid, or -errno. */
static pid_t start(char **program, const char *folder, uint64_t memory, uint64_t file)
{
    int up[2], code = 0;

    if (pipe2(up, O_CLOEXEC)) {
        return -errno;
    }
    pid_t pid = fork();
    if (pid == 0) {
        become(program, folder, memory, file, up[1]);
    }
    int failed = errno;
    close(up[1]);
    if (pid > 0 && read(up[0], &code, sizeof code) == (ssize_t)sizeof code) {
        waitpid(pid, NULL, 0);
        pid = -code;
    } else if (pid < 0) {
        pid = -failed;
    }
    close(up[0]);
    return pid;
}

/* ---- the end ---- */

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void kill_children(void)
{
    char path[64];
    int child;

    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "re");
    while (f && fscanf(f, "%d", &child) == 1) {
        kill(child, SIGKILL);
    }
    if (f) {
        fclose(f);
    }
}

/* Kills until there is nothing: each death may bring new orphans. */
static void kill_all(pid_t group)
{
    const struct timespec moment = {.tv_nsec = 500 * 1000};
    uint64_t until = now_ms() + PATIENCE_MS;
    pid_t p;

    while (now_ms() < until) {
        kill(-group, SIGKILL);
        kill_children();
        while ((p = waitpid(-1, NULL, WNOHANG)) > 0) {
        }
        if (p < 0 && errno == ECHILD) {
            return;
        }
        nanosleep(&moment, NULL);
    }
}

/* True when `program` has ended; others are buried. */
static bool reap(pid_t program, int *ret_status)
{
    int status;
    pid_t p;

    while ((p = waitpid(-1, &status, WNOHANG)) > 0) {
        if (p == program) {
            *ret_status = status;
            return true;
        }
    }
    return false;
}

static int cpu_ms(void)
{
    struct rusage u;

    if (getrusage(RUSAGE_CHILDREN, &u)) {
        return 0;
    }
    return (int)((u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
                 (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000);
}

static int keep(char **program, const char *folder, uint64_t memory, uint64_t file, pid_t agent)
{
    sigset_t mine;
    int status = 0, s;

    sigemptyset(&mine);
    sigaddset(&mine, SIGTERM);
    sigaddset(&mine, SIGINT);
    sigaddset(&mine, SIGHUP);
    sigaddset(&mine, SIGCHLD);
    sigprocmask(SIG_SETMASK, &mine, NULL);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) || prctl(PR_SET_PDEATHSIG, SIGTERM) ||
        getppid() != agent) {
        say("start", errno ? errno : ESRCH);
        return 1;
    }
    pid_t pid = start(program, folder, memory, file);
    if (pid < 0) {
        say("start", -pid);
        return 1;
    }
    do {
        s = sigwaitinfo(&mine, NULL);
    } while ((s < 0 && errno == EINTR) || (s == SIGCHLD && !reap(pid, &status)));
    kill_all(pid);
    say("cpu", cpu_ms());
    if (s == SIGCHLD && WIFEXITED(status)) {
        say("exit", WEXITSTATUS(status));
    } else {
        say("signal", s == SIGCHLD ? WTERMSIG(status) : SIGKILL);
    }
    return 0;
}

void fl_keeper_main(int argc, char **argv)
{
    if (argc < 7 || strcmp(argv[1], FL_KEEPER_WORD) != 0) {
        return;
    }
    close_range(STATUS + 1, ~0u, 0); /* what the agent itself was given and never closed */
    /* argv: name, word, agent's pid, memory, file size, folder, program... */
    _exit(keep(argv + 6, argv[5], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
               (pid_t)strtol(argv[2], NULL, 10)));
}
