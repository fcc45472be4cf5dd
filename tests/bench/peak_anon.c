/*
 * Watches a process and says how much anonymous memory it held at most: RssAnon of
 * /proc/PID/status, read every millisecond, because the kernel keeps a high-water mark (VmHWM) only
 * for anonymous and file pages together; that one is printed beside it as a ceiling. One JSON line
 * when the process has ended, or at SIGTERM.
 *
 *     peak_anon PID
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void on_term(int number)
{
    (void)number;
    ended = 1;
}

/* The KiB behind `name` in the text of a status file; 0 when it is not there (a zombie has none).
 */
static unsigned long field(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoul(at + strlen(name), NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    unsigned long anon, peak = 0, high = 0, samples = 0;
    char path[64], text[8192];
    char *end = NULL;
    long pid = argc == 2 ? strtol(argv[1], &end, 10) : 0;

    if (pid <= 0 || *end) {
        fprintf(stderr, "usage: peak_anon PID\n");
        return 2;
    }
    signal(SIGTERM, on_term);
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "peak_anon: %s: %s\n", path, strerror(errno));
        return 1;
    }
    while (!ended) {
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        if (n <= 0) {
            break;
        }
        text[n] = 0;
        anon = field(text, "\nRssAnon:");
        if (anon == 0) {
            break;
        }
        peak = anon > peak ? anon : peak;
        high = field(text, "\nVmHWM:");
        samples++;
        nanosleep(&pause, NULL);
    }
    close(fd);
    printf("{\"peak_anon_kib\": %lu, \"vm_hwm_kib\": %lu, \"samples\": %lu}\n", peak, high,
           samples);
    return samples ? 0 : 1;
}
