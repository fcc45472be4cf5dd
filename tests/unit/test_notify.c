#include "common/io/notify.h"
#include "tests/lib/check_main.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A socket that takes what a service manager would be told. */
static int listen_at(const char *name, bool abstract)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    snprintf(at.sun_path, sizeof at.sun_path, "%s", name);
    if (abstract) {
        at.sun_path[0] = '\0';
    }
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, size), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void expect(int fd, const char *text)
{
    char got[600];
    ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);

    ck_assert_int_gt(n, 0);
    got[n] = '\0';
    ck_assert_str_eq(got, text);
}

START_TEST(test_says_what_is_asked)
{
    char path[64];

    snprintf(path, sizeof path, "/tmp/cohort-notify-%d", (int)getpid());
    int fd = listen_at(path, false);
    ck_assert(fl_notify("READY=1\nSTATUS=%d agents", 20));
    expect(fd, "READY=1\nSTATUS=20 agents");
    close(fd);
    unlink(path);
    ck_assert(!fl_notify("WATCHDOG=1")); /* nobody there: not our problem */
    snprintf(path, sizeof path, "@cohort-notify-%d", (int)getpid());
    fd = listen_at(path, true);
    ck_assert(fl_notify("STOPPING=1"));
    expect(fd, "STOPPING=1");
    close(fd);
    unsetenv("NOTIFY_SOCKET");
    ck_assert(!fl_notify("READY=1"));
    setenv("NOTIFY_SOCKET", "relative", 1);
    ck_assert(!fl_notify("READY=1"));
    unsetenv("NOTIFY_SOCKET");
}
END_TEST

START_TEST(test_watchdog)
{
    char pid[32];

    ck_assert_uint_eq(fl_notify_watchdog_ms(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    ck_assert_uint_eq(fl_notify_watchdog_ms(), 15000);
    setenv("WATCHDOG_PID", "1", 1);
    ck_assert_uint_eq(fl_notify_watchdog_ms(), 0); /* meant for another process */
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    ck_assert_uint_eq(fl_notify_watchdog_ms(), 15000);
    setenv("WATCHDOG_USEC", "soon", 1);
    ck_assert_uint_eq(fl_notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}
END_TEST

TESTS_MAIN("notify", test_says_what_is_asked, test_watchdog)
