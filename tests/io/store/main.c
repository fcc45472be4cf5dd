/*
 * store-driver act DIR ROUNDS SEED [VARIANT]    runs rounds; prints each fact, and notes it in the
 *                                               journal when it runs under the shim. VARIANT:
 *                                               unsealed  a wrong program
 *                                               retry     tries again, up to 3 times in a row, when
 *                                                         the disk is full
 *                                               Exit 0 or 1; on stderr the reason, and under the
 *                                               shim how often a fault struck
 * store-driver verify DIR FACTS                 exit 0 when the folder keeps every promise, and
 *                                               work can go on from it: one more round
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "tests/io/store/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void powerfail_note(const char *line) __attribute__((weak));
extern unsigned long powerfail_struck(void) __attribute__((weak));

static void fact(void *arg, const char *line)
{
    char text[300];
    size_t n = (size_t)snprintf(text, sizeof text, "%s\n", line);

    (void)arg;
    if (powerfail_note) {
        powerfail_note(line);
    }
    if (write(STDOUT_FILENO, text, n) != (ssize_t)n) {
        _exit(3);
    }
}

static void quiet(void *arg, const char *line)
{
    (void)arg;
    (void)line;
}

static int try_again(void *arg, const struct fl_err *e)
{
    static int tries;

    (void)arg;
    return e->code == -FL_R_DISK_FULL && tries++ < 3 ? 0 : e->code;
}

static int act(int argc, char **argv)
{
    struct fl_err e = {0};
    const char *variant = argc > 5 ? argv[5] : "";
    struct driver d = {.dir = argv[2],
                       .rounds = strtoull(argv[3], NULL, 10),
                       .seed = strtoull(argv[4], NULL, 10),
                       .commit_unsealed = strcmp(variant, "unsealed") == 0,
                       .failed = strcmp(variant, "retry") == 0 ? try_again : NULL,
                       .fact = fact};

    int r = driver_act(&d, &e);
    if (r != 0) {
        fprintf(stderr, "reason %d: %s\n", -r, e.msg);
    }
    if (powerfail_struck && getenv("POWERFAIL_FAIL")) {
        fprintf(stderr, "struck %lu\n", powerfail_struck());
    }
    return r != 0;
}

static int verify(char **argv)
{
    struct fl_err e = {0};
    uint8_t *facts;
    size_t size;
    int r = fl_file_read(argv[3], 1 << 26, &facts, &size, &e);

    if (r == 0) {
        r = driver_verify(argv[2], (const char *)facts, &e);
        /* What survived must also carry on: the last published round is in the facts, if any. */
        const char *last = (const char *)facts, *at = last;
        uint64_t rounds = 0;
        while ((at = strstr(at, "published ")) != NULL) {
            rounds = strtoull(at + strlen("published "), NULL, 10);
            at++;
        }
        struct driver d = {.dir = argv[2], .rounds = rounds + 1, .seed = 1, .fact = quiet};
        r = r == 0 ? driver_act(&d, &e) : r;
        fl_free(facts);
    }
    if (r != 0) {
        fprintf(stderr, "verify: %s [%d]\n", e.msg, -r);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    fl_log_setup("store-driver", FL_LOG_WARN, FL_LOG_TEXT);
    if (argc >= 5 && strcmp(argv[1], "act") == 0) {
        return act(argc, argv);
    }
    if (argc == 4 && strcmp(argv[1], "verify") == 0) {
        return verify(argv);
    }
    fprintf(stderr,
            "usage: store-driver act DIR ROUNDS SEED [unsealed|retry] | verify DIR FACTS\n");
    return 64;
}
