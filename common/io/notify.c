#include "common/io/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool fl_notify(const char *fmt, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char text[512];
    va_list ap;

    /* A path, or '@' for a name in the abstract space. */
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path) {
        return false;
    }
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text) {
        return false;
    }
    memcpy(to.sun_path, path, strlen(path));
    if (to.sun_path[0] == '@') {
        to.sun_path[0] = '\0';
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    ssize_t sent = sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&to, size);
    close(fd);
    return sent == n;
}

uint64_t fl_notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    char *end;

    if (!usec || (pid && strtoll(pid, NULL, 10) != (long long)getpid())) {
        return 0;
    }
    errno = 0;
    unsigned long long n = strtoull(usec, &end, 10);
    if (errno || end == usec || *end || n < 2000 || n > UINT64_MAX / 2) {
        return 0;
    }
    return n / 2000;
}
