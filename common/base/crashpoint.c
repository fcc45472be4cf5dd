#include "common/base/crashpoint.h"

#ifdef FL_CRASH_POINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_ulong passed;

void fl_crash_point(const char *mark)
{
    const char *name = strchr(mark, '=') + 1;
    const char *at = getenv("COHORT_CRASH_AT");
    size_t n = strlen(name);

    if (!at || strncmp(at, name, n) != 0 || (at[n] != '\0' && at[n] != ':')) {
        return;
    }
    unsigned long count = at[n] == ':' ? strtoul(at + n + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&passed, 1) + 1 == count) {
        kill(getpid(), SIGKILL);
        for (;;) {
            pause(); /* the signal may reach another thread first; this one goes no further */
        }
    }
}

#else

/* A file must hold something. */
extern int fl_crash_points_off;
int fl_crash_points_off = 1;

#endif
