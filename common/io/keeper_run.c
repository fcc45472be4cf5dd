/*
 * The agent's side of a keeper: starts it, feeds the program its line, reads what it says within
 * limits, and sees it off. All in the thread that asked; it wakes ten times a second to look at the
 * clock and at `cancel`.
 */
#include "common/base/mem.h"
#include "common/io/keeper.h"
#include "common/io/keeper_in.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STDIN, STDOUT, STDERR, REPORT, PIPES };
enum { TICK_MS = 100, GRACE_MS = 5000, BLOCK = 16 * 1024 };

struct run {
    const struct fl_keeper_job *job;
    struct fl_keeper_result *ret;
    pid_t keeper;
    int fd[PIPES]; /* our ends, -1 when closed */
    size_t fed;    /* of the input */
    uint64_t from_ms, killed_ms, seen;
    char *line; /* of stdout: being read */
    size_t line_size;
    bool line_long, line_ended;
    char tail[2 * FL_KEEPER_TAIL];
    size_t tail_size;
    char report[128];
    size_t report_size;
    int status; /* why it was stopped: 0, or -FL_R_... with `e` */
    struct fl_err *e;
};

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void shut(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

/* ---- starting ---- */

/* In the child: only what may be called after fork() in a process with threads. */
static void become_keeper(const int theirs[PIPES], char **argv, char **environment)
{
    for (int i = 0; i < PIPES; i++) {
        if (dup2(theirs[i], i) < 0) { /* every descriptor of ours is above these: see above_all */
            _exit(127);
        }
    }
    execve("/proc/self/exe", argv, environment);
    _exit(127);
}

/* Pipe ends with numbers of 10 and more, so that dup2 onto 0 to 3 never meets one of them. */
static int above_all(int *fd)
{
    int up = fcntl(*fd, F_DUPFD_CLOEXEC, 10);

    close(*fd);
    *fd = up;
    return up < 0 ? -1 : 0;
}

static int make_pipes(struct run *r, int theirs[PIPES])
{
    for (int i = 0; i < PIPES; i++) {
        int both[2];
        if (pipe2(both, O_CLOEXEC)) {
            return -1;
        }
        theirs[i] = both[i == STDIN ? 0 : 1];
        r->fd[i] = both[i == STDIN ? 1 : 0];
        if (above_all(&theirs[i]) || above_all(&r->fd[i]) || fcntl(r->fd[i], F_SETFL, O_NONBLOCK)) {
            return -1;
        }
    }
    return 0;
}

/* What a program sees of the agent's environment: enough to find libraries, nothing that happens to
 * be there. */
static void choose_environment(char **to, size_t room)
{
    static const char *const names[] = {"PATH",
                                        "HOME",
                                        "LANG",
                                        "LC_ALL",
                                        "TZ",
                                        "LD_LIBRARY_PATH",
                                        "PYTHONPATH",
                                        "OMP_NUM_THREADS",
                                        "CUDA_VISIBLE_DEVICES"};
    size_t n = 0;

    for (char **v = environ; *v && n + 1 < room; v++) {
        for (size_t i = 0; i < FL_COUNT(names); i++) {
            size_t length = strlen(names[i]);
            if (strncmp(*v, names[i], length) == 0 && (*v)[length] == '=') {
                to[n++] = *v;
                break;
            }
        }
    }
    to[n] = NULL;
}

/* No signal reaches the child before it is a keeper: until then it has the agent's handlers, which
 * would tell the agent's loop. A keeper begins with everything blocked and asks for what it wants.
 */
static pid_t fork_quietly(const int theirs[PIPES], char **argv, char **environment)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    if (pid == 0) {
        become_keeper(theirs, argv, environment);
    }
    int code = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = code;
    return pid;
}

static int start(struct run *r)
{
    static char name[] = "cohort-agent", word[] = FL_KEEPER_WORD;
    char agent[24], memory[24], file[24], *environment[16];
    char *argv[FL_KEEPER_ARGS_MAX + 8] = {name, word, agent, memory, file, NULL};
    int theirs[PIPES] = {-1, -1, -1, -1}, code = 0;
    size_t n = 0;

    snprintf(agent, sizeof agent, "%ld", (long)getpid());
    snprintf(memory, sizeof memory, "%llu", (unsigned long long)r->job->memory);
    snprintf(file, sizeof file, "%llu", (unsigned long long)r->job->file);
    /* execve does not change its strings; its type is older than const. */
    memcpy(&argv[5], &r->job->folder, sizeof argv[5]);
    for (; r->job->program[n] && n < FL_KEEPER_ARGS_MAX; n++) {
        memcpy(&argv[6 + n], &r->job->program[n], sizeof argv[0]);
    }
    choose_environment(environment, FL_COUNT(environment));
    if (make_pipes(r, theirs)) {
        code = errno;
    } else {
        r->keeper = fork_quietly(theirs, argv, environment);
        code = r->keeper < 0 ? errno : 0;
    }
    for (int i = 0; i < PIPES; i++) {
        shut(&theirs[i]);
    }
    return code ? fl_fail_sys(r->e, FL_R_EXEC_START, code, "%s", r->job->program[0]) : 0;
}

/* ---- what it says ---- */

static void stop_it(struct run *r)
{
    if (!r->killed_ms) {
        r->killed_ms = now_ms();
        kill(r->keeper, SIGTERM);
    }
}

/* The first reason counts. */
static void give_up(struct run *r, int status)
{
    if (!r->status) {
        r->status = status;
    }
    stop_it(r);
}

static void take_stdout(struct run *r, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '\n') {
            r->line_ended = true;
            continue;
        }
        if (r->line_ended) { /* another line begins: the one before was not the last */
            r->line_ended = r->line_long = false;
            r->line_size = 0;
        }
        if (r->line_size < FL_KEEPER_ANSWER_MAX) {
            r->line[r->line_size++] = bytes[i];
        } else {
            r->line_long = true;
        }
    }
}

static void take_stderr(struct run *r, const char *bytes, size_t size)
{
    size_t most = sizeof r->tail;

    if (size >= most) {
        memcpy(r->tail, bytes + size - most, most);
        r->tail_size = most;
        return;
    }
    if (r->tail_size + size > most) {
        size_t drop = r->tail_size + size - most;
        memmove(r->tail, r->tail + drop, r->tail_size - drop);
        r->tail_size -= drop;
    }
    memcpy(r->tail + r->tail_size, bytes, size);
    r->tail_size += size;
}

static void take_report(struct run *r, const char *bytes, size_t size)
{
    size_t room = sizeof r->report - 1 - r->report_size;

    size = size < room ? size : room;
    memcpy(r->report + r->report_size, bytes, size);
    r->report_size += size;
}

static void read_from(struct run *r, int which)
{
    char block[BLOCK];
    ssize_t n = read(r->fd[which], block, sizeof block);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        shut(&r->fd[which]);
        return;
    }
    if (which == REPORT) {
        take_report(r, block, (size_t)n);
        return;
    }
    r->seen += (uint64_t)n;
    if (which == STDOUT) {
        take_stdout(r, block, (size_t)n);
    } else {
        take_stderr(r, block, (size_t)n);
    }
    if (r->seen > r->job->output && !r->status) {
        give_up(r, fl_fail(r->e, FL_R_EXEC_OUTPUT, "%s: more than %llu bytes on its output",
                           r->job->program[0], (unsigned long long)r->job->output));
    }
}

/* SIGPIPE is ignored in an agent; a program that does not read its line is no error. */
static void feed(struct run *r)
{
    const char *end = "\n";
    size_t size = strlen(r->job->input);
    const char *from = r->fed < size ? r->job->input + r->fed : end;
    ssize_t n = write(r->fd[STDIN], from, r->fed < size ? size - r->fed : 1);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    r->fed += n > 0 ? (size_t)n : 0;
    if (n < 0 || r->fed == size + 1) {
        shut(&r->fd[STDIN]);
    }
}

static void look_at_the_clock(struct run *r)
{
    uint64_t now = now_ms();

    if (r->job->cancel && atomic_load(r->job->cancel) && !r->status) {
        give_up(r, fl_fail(r->e, FL_R_CANCELLED, "training was stopped"));
    } else if (now - r->from_ms > r->job->time_ms && !r->status) {
        give_up(r, fl_fail(r->e, FL_R_EXEC_TIME, "%s: longer than %llu s", r->job->program[0],
                           (unsigned long long)(r->job->time_ms / 1000)));
    }
    if (r->killed_ms && now - r->killed_ms > GRACE_MS) {
        kill(r->keeper, SIGKILL); /* a keeper that does not come to an end */
        shut(&r->fd[STDOUT]);
        shut(&r->fd[STDERR]);
        shut(&r->fd[REPORT]);
    }
}

/* Until every end of its outputs is closed: then the keeper has buried everybody. */
static void follow(struct run *r)
{
    while (r->fd[STDOUT] >= 0 || r->fd[STDERR] >= 0 || r->fd[REPORT] >= 0) {
        struct pollfd p[PIPES];
        for (int i = 0; i < PIPES; i++) {
            p[i] = (struct pollfd){.fd = r->fd[i], .events = i == STDIN ? POLLOUT : POLLIN};
        }
        int n = poll(p, PIPES, TICK_MS);
        for (int i = 0; n > 0 && i < PIPES; i++) {
            if (p[i].fd < 0 || !p[i].revents) {
                continue;
            }
            if (i == STDIN) {
                feed(r);
            } else {
                read_from(r, i);
            }
        }
        look_at_the_clock(r);
    }
}

/* ---- how it went ---- */

static int judge(struct run *r)
{
    const char *name = r->job->program[0];
    int number = 0;

    if (sscanf(r->report, "cpu %d\n", &number) == 1) {
        r->ret->cpu_ms = (uint64_t)number;
        char *rest = strchr(r->report, '\n');
        memmove(r->report, rest + 1, strlen(rest + 1) + 1);
    }
    if (r->status) {
        return r->status;
    }
    if (sscanf(r->report, "start %d", &number) == 1) {
        return fl_fail_sys(r->e, FL_R_EXEC_START, number, "%s", name);
    }
    if (sscanf(r->report, "signal %d", &number) == 1) {
        return fl_fail(r->e, FL_R_EXEC_SIGNAL, "%s: ended by signal %d (%s)", name, number,
                       sigabbrev_np(number) ? sigabbrev_np(number) : "unknown");
    }
    if (sscanf(r->report, "exit %d", &number) != 1) {
        return fl_fail(r->e, FL_R_EXEC_START, "%s: its keeper ended without a report", name);
    }
    if (number) {
        return fl_fail(r->e, FL_R_EXEC_EXIT, "%s: ended with status %d", name, number);
    }
    if (r->line_long || r->line_size == 0) {
        return fl_fail(r->e, FL_R_EXEC_ANSWER,
                       r->line_long ? "%s: a line of more than %d bytes"
                                    : "%s: no answer on its stdout",
                       name, FL_KEEPER_ANSWER_MAX);
    }
    return 0;
}

/* Its last words, safe to print: from the first whole line that fits. */
static void keep_tail(struct run *r)
{
    size_t from = r->tail_size < FL_KEEPER_TAIL ? 0 : r->tail_size - FL_KEEPER_TAIL + 1, n = 0;

    while (from && from < r->tail_size && r->tail[from - 1] != '\n') {
        from++;
    }
    for (; from < r->tail_size; from++) {
        unsigned char c = (unsigned char)r->tail[from];
        r->ret->tail[n++] = c == '\n' || (c >= 32 && c < 127) ? (char)c : '?';
    }
    r->ret->tail[n] = 0;
}

int fl_keeper_run(const struct fl_keeper_job *job, struct fl_keeper_result *ret, struct fl_err *e)
{
    struct run *r = fl_try(1, sizeof *r);

    memset(ret, 0, sizeof *ret);
    if (!r || !(r->line = fl_try(FL_KEEPER_ANSWER_MAX + 1, 1))) {
        fl_free(r);
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    r->job = job;
    r->ret = ret;
    r->e = e;
    r->from_ms = now_ms();
    for (int i = 0; i < PIPES; i++) {
        r->fd[i] = -1;
    }
    int code = start(r);
    if (code == 0) {
        follow(r);
        while (waitpid(r->keeper, NULL, 0) < 0 && errno == EINTR) {
        }
        code = judge(r);
        keep_tail(r);
    }
    for (int i = 0; i < PIPES; i++) {
        shut(&r->fd[i]);
    }
    if (code == 0) {
        r->line[r->line_size] = 0;
        ret->answer = r->line;
    } else {
        fl_free(r->line);
    }
    fl_free(r);
    return code;
}

void fl_keeper_result_fini(struct fl_keeper_result *r)
{
    fl_free(r->answer);
    r->answer = NULL;
}
