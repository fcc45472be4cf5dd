/*
 * A secure sum among real processes: one for each agent, one for the coordinator, and this one,
 * which kills them (SIGKILL) where a test says so. Agents talk to the coordinator over socket pairs
 * that outlive it; what it accepted it wrote down first, and a new coordinator begins with that.
 *
 * The cores are the product's; framing and spooling here are as small as they can be: a message is
 * a stage, a length and bytes; an accepted object is a file, a closed stage a file that names its
 * members. An agent that is asked again for a stage sends the very same bytes.
 */
#include "tests/lib/check_main.h"
#include "tests/lib/secagg_world.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AGENTS = 7, COUNT = 20000, PATIENCE_MS = 4000 };

/* Where an agent is killed: in a stage, and at which moment of it. */
enum moment { BEFORE, HALF_SENT, AFTER };

struct schedule {
    int kill_stage[AGENTS]; /* -1 = never */
    enum moment moment[AGENTS];
    int coordinator_stage;          /* it is killed there, and begins anew; -1 = never */
    enum moment coordinator_moment; /* before anything, with half of the objects, when closed */
};

struct message {
    uint32_t stage, size;
};

static char folder[64];

static const struct fl_secagg_setup setup = {.context = {{9}},
                                             .members_min = 2,
                                             .members_max = AGENTS,
                                             .survivors_min = 2,
                                             .corrupt_permille = 0,
                                             .dropout_permille = 300,
                                             .bits = 30,
                                             .max = 1 << 20,
                                             .count = COUNT};

static bool write_all(int fd, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool read_all(int fd, void *bytes, size_t size)
{
    uint8_t *at = bytes;

    while (size > 0) {
        ssize_t n = read(fd, at, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool receive(int fd, uint32_t *ret_stage, struct fl_secagg_bytes *ret)
{
    struct message m;

    if (!read_all(fd, &m, sizeof m) || m.size > FL_SECAGG_OBJECT_MAX) {
        return false;
    }
    *ret_stage = m.stage;
    *ret = (struct fl_secagg_bytes){fl_new(m.size + 1, 1), m.size};
    return read_all(fd, ret->bytes, m.size);
}

static bool send_message(int fd, uint32_t stage, const struct fl_secagg_bytes *b)
{
    struct message m = {stage, (uint32_t)b->size};

    return write_all(fd, &m, sizeof m) && write_all(fd, b->bytes, b->size);
}

/* ---- an agent ---- */

/* The same values for an agent in every process that asks. */
static struct sw *the_world(void)
{
    return sw_new(&setup, AGENTS, 77);
}

static void agent_main(uint32_t i, int fd, const struct schedule *how)
{
    struct sw *w = the_world();
    struct sw_agent *a = &w->agent[i];
    uint32_t stage;

    if (fl_secagg_client_new(&setup, &a->identity, &a->client, NULL) < 0) {
        _exit(2);
    }
    while (fl_secagg_bytes_free(&a->down), receive(fd, &stage, &a->down)) {
        bool last = how->kill_stage[i] == (int)stage;
        if (stage >= FL_SECAGG_STAGES) {
            _exit(0);
        }
        if (last && how->moment[i] == BEFORE) {
            kill(getpid(), SIGKILL);
        }
        if (!a->up[stage].bytes &&
            sw_client_step(a, (enum fl_secagg_stage)stage, &a->up[stage]) < 0) {
            fprintf(stderr, "agent %u, stage %u: %s\n", i, stage, a->why.msg);
            _exit(3);
        }
        if (last && how->moment[i] == HALF_SENT) {
            struct message m = {stage, (uint32_t)a->up[stage].size};
            write_all(fd, &m, sizeof m);
            write_all(fd, a->up[stage].bytes, a->up[stage].size / 2);
            kill(getpid(), SIGKILL);
        }
        if (!send_message(fd, stage, &a->up[stage])) {
            _exit(4);
        }
        if (last) {
            kill(getpid(), SIGKILL);
        }
    }
    _exit(0);
}

/* ---- the coordinator ---- */

static void path_of(char *path, size_t size, uint32_t stage, uint32_t i, const char *kind)
{
    snprintf(path, size, "%s/%u-%u.%s", folder, stage, i, kind);
}

static void keep(const char *path, const void *bytes, size_t size)
{
    char part[160];

    snprintf(part, sizeof part, "%s.part", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || !write_all(fd, bytes, size) || fsync(fd) != 0 || close(fd) != 0 ||
        rename(part, path) != 0) {
        _exit(5);
    }
}

static bool kept(const char *path, struct fl_secagg_bytes *ret)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &st) != 0) {
        _exit(5);
    }
    *ret = (struct fl_secagg_bytes){fl_new((size_t)st.st_size + 1, 1), (size_t)st.st_size};
    if (!read_all(fd, ret->bytes, ret->size)) {
        _exit(5);
    }
    close(fd);
    return true;
}

static void die_here(const struct schedule *how, uint32_t stage, enum moment moment)
{
    char path[160];
    struct fl_secagg_bytes before = {NULL, 0};

    snprintf(path, sizeof path, "%s/died", folder);
    if (how->coordinator_stage == (int)stage && how->coordinator_moment == moment &&
        !kept(path, &before)) {
        keep(path, "x", 1);
        kill(getpid(), SIGKILL);
    }
    fl_secagg_bytes_free(&before);
}

/* Whatever came in time, of those who are asked. A closed stage takes what its file says. */
static void collect(struct sw *w, uint32_t stage, int *fds, const bool *asked,
                    const struct schedule *how)
{
    char path[160];
    uint32_t waiting = 0, here = 0;
    bool wait_for[AGENTS] = {false};

    for (uint32_t i = 0; i < AGENTS; i++) {
        struct fl_secagg_bytes b;
        path_of(path, sizeof path, stage, i, "object");
        if (asked[i] && kept(path, &b)) {
            if (sw_give(w, (enum fl_secagg_stage)stage, w->agent[i].id, &b, NULL) < 0) {
                _exit(6);
            }
            fl_secagg_bytes_free(&b);
        } else if (asked[i]) {
            wait_for[i] = fds[i] >= 0;
            waiting += wait_for[i];
        }
    }
    while (waiting > 0) {
        struct pollfd p[AGENTS];
        for (uint32_t i = 0; i < AGENTS; i++) {
            p[i] = (struct pollfd){.fd = wait_for[i] ? fds[i] : -1, .events = POLLIN};
        }
        if (poll(p, AGENTS, PATIENCE_MS) <= 0) {
            _exit(7); /* whoever is gone has closed its end: nobody is waited for in vain */
        }
        for (uint32_t i = 0; i < AGENTS; i++) {
            struct fl_secagg_bytes b = {NULL, 0};
            uint32_t got;
            if (!p[i].revents) {
                continue;
            }
            if (!receive(fds[i], &got, &b)) {
                close(fds[i]);
                fds[i] = -1;
            } else if (got != stage) {
                fl_secagg_bytes_free(&b); /* asked twice for an earlier one: it is kept already */
                continue;
            } else {
                path_of(path, sizeof path, stage, i, "object");
                keep(path, b.bytes, b.size);
                if (sw_give(w, (enum fl_secagg_stage)stage, w->agent[i].id, &b, NULL) < 0) {
                    _exit(8);
                }
                if (++here == AGENTS / 2) {
                    die_here(how, stage, HALF_SENT);
                }
            }
            fl_secagg_bytes_free(&b);
            wait_for[i] = false;
            waiting--;
        }
    }
}

/* Exits with 0 when the sum is right, 1 when the round must be given up, more when it is wrong. */
static void coordinator_main(int *fds, const struct schedule *how)
{
    struct sw *w = the_world();
    bool asked[AGENTS];

    if (fl_secagg_server_new(&setup, &w->identity, &w->server, NULL) < 0) {
        _exit(9);
    }
    for (uint32_t stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        char path[160];
        struct fl_secagg_bytes members = {NULL, 0};
        die_here(how, stage, BEFORE);
        path_of(path, sizeof path, stage, 0, "closed");
        bool closed = kept(path, &members);
        for (uint32_t i = 0; i < AGENTS; i++) {
            struct fl_secagg_bytes b = {NULL, 0};
            asked[i] =
                stage == 0 || fl_secagg_server_reply(w->server, (enum fl_secagg_stage)(stage - 1),
                                                     w->agent[i].id, &b, NULL) == 0;
            if (closed) {
                asked[i] = asked[i] && members.bytes[i];
            } else if (asked[i] && fds[i] >= 0) {
                (void)!send_message(fds[i], stage, &b); /* or its end is closed, as we shall see */
            }
            fl_secagg_bytes_free(&b);
        }
        fl_secagg_bytes_free(&members);
        collect(w, stage, fds, asked, how);
        if (!closed) {
            uint8_t has[AGENTS];
            for (uint32_t i = 0; i < AGENTS; i++) {
                struct fl_secagg_bytes b = {NULL, 0};
                char object[160];
                path_of(object, sizeof object, stage, i, "object");
                has[i] = kept(object, &b);
                fl_secagg_bytes_free(&b);
            }
            keep(path, has, sizeof has);
        }
        die_here(how, stage, AFTER);
        if (fl_secagg_server_close(w->server, &w->why) < 0) {
            _exit(w->why.code == -FL_R_SECAGG_FEW ? 1 : 10);
        }
    }
    for (uint32_t i = 0; i < AGENTS; i++) { /* which vectors it must be of */
        struct fl_secagg_bytes b = {NULL, 0};
        char path[160];
        path_of(path, sizeof path, FL_SECAGG_MASK, i, "object");
        if (kept(path, &b)) {
            w->agent[i].up[FL_SECAGG_MASK] = b;
        }
    }
    uint64_t ids[AGENTS];
    uint32_t count = fl_secagg_server_members(w->server, ids, AGENTS), files = 0;
    for (uint32_t i = 0; i < AGENTS; i++) {
        files += w->agent[i].up[FL_SECAGG_MASK].bytes != NULL;
    }
    _exit(sw_sum_is_right(w) && count == files ? 0 : 11);
}

/* ---- the one who kills ---- */

static pid_t start(int *agent_end, int *server_end, int number, const struct schedule *how)
{
    pid_t pid = fork();

    if (pid != 0) {
        return pid;
    }
    signal(SIGPIPE, SIG_IGN);
    if (number >= 0) {
        for (int i = 0; i < AGENTS; i++) {
            close(server_end[i]);
            if (i != number && agent_end[i] >= 0) {
                close(agent_end[i]);
            }
        }
        agent_main((uint32_t)number, agent_end[number], how);
    }
    for (int i = 0; i < AGENTS; i++) {
        if (agent_end[i] >= 0) {
            close(agent_end[i]);
        }
    }
    coordinator_main(server_end, how);
    _exit(12);
}

static int play(const struct schedule *how)
{
    int pair[2], agent_end[AGENTS], server_end[AGENTS], status = 0, deaths = 0;
    pid_t agents[AGENTS], pid;
    char command[128];

    memcpy(folder, "/tmp/secagg-XXXXXX", 19);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    for (int i = 0; i < AGENTS; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        agent_end[i] = pair[0];
        server_end[i] = pair[1];
    }
    for (int i = 0; i < AGENTS; i++) {
        agents[i] = start(agent_end, server_end, i, how);
        ck_assert_int_gt(agents[i], 0);
        close(agent_end[i]);
        agent_end[i] = -1;
    }
    do {
        pid = start(agent_end, server_end, -1, how);
        ck_assert_int_gt(pid, 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        deaths += WIFSIGNALED(status);
    } while (WIFSIGNALED(status) && deaths < 2);
    ck_assert_int_eq(deaths, how->coordinator_stage >= 0);
    for (int i = 0; i < AGENTS; i++) {
        int of_agent;
        close(server_end[i]);
        ck_assert_int_eq(waitpid(agents[i], &of_agent, 0), agents[i]);
        ck_assert_msg(how->kill_stage[i] >= 0 ? WIFSIGNALED(of_agent)
                                              : WIFEXITED(of_agent) && WEXITSTATUS(of_agent) == 0,
                      "agent %d ended with %x", i, (unsigned)of_agent);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static struct schedule nobody_dies(void)
{
    struct schedule s = {.coordinator_stage = -1};

    for (int i = 0; i < AGENTS; i++) {
        s.kill_stage[i] = -1;
    }
    return s;
}

START_TEST(test_agents_are_killed_at_each_stage)
{
    struct schedule s = nobody_dies();

    ck_assert_int_eq(play(&s), 0);
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        for (int moment = BEFORE; moment <= AFTER; moment++) {
            s = nobody_dies();
            s.kill_stage[2] = stage;
            s.moment[2] = (enum moment)moment;
            ck_assert_int_eq(play(&s), 0);
        }
    }
    /* Two at a time, in different stages. */
    for (int one = 0; one < FL_SECAGG_STAGES; one++) {
        for (int two = one + 1; two < FL_SECAGG_STAGES; two++) {
            s = nobody_dies();
            s.kill_stage[1] = one;
            s.kill_stage[6] = two;
            s.moment[1] = AFTER;
            ck_assert_int_eq(play(&s), 0);
        }
    }
    /* Four of seven: given up, not opened. */
    s = nobody_dies();
    for (int i = 0; i < 4; i++) {
        s.kill_stage[i] = FL_SECAGG_UNMASK;
    }
    ck_assert_int_eq(play(&s), 1);
}
END_TEST

START_TEST(test_the_coordinator_is_killed_at_each_stage)
{
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        for (int moment = BEFORE; moment <= AFTER; moment++) {
            struct schedule s = nobody_dies();
            s.coordinator_stage = stage;
            s.coordinator_moment = (enum moment)moment;
            ck_assert_int_eq(play(&s), 0);
            s.kill_stage[4] = stage; /* and an agent at the same time */
            s.moment[4] = BEFORE;
            ck_assert_int_eq(play(&s), 0);
        }
    }
}
END_TEST

TESTS_MAIN("secagg-processes", test_agents_are_killed_at_each_stage,
           test_the_coordinator_is_killed_at_each_stage)
