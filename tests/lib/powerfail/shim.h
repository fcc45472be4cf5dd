/* What the parts of the shim share; see shim.c for what it is. */
#ifndef TESTS_LIB_POWERFAIL_SHIM_H
#define TESTS_LIB_POWERFAIL_SHIM_H

/* Both the plain functions and their 64-bit and fortified twins are defined here. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE

#include "tests/lib/powerfail/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC visibility push(hidden)

enum { PF_FDS = 4096 };

struct tracked {
    bool on, sync_writes, append;
    uint64_t inode;
    char path[256]; /* below the folder */
};

enum pf_kind {
    PF_ON_OPEN,
    PF_ON_WRITE,
    PF_ON_TRUNCATE,
    PF_ON_RENAME,
    PF_ON_UNLINK,
    PF_ON_MKDIR,
    PF_ON_SYNC,
    PF_ON_ANY,
    PF_ON_NEVER
};

/* Held over a call and its record, so that the journal's order is the order of effects. */
extern pthread_mutex_t pf_lock;
extern int pf_log; /* -1: no journal */
extern bool pf_real_sync;
extern struct tracked pf_fds[PF_FDS];

bool pf_active(void);
/* Ends the program. */
void pf_die(const char *what, const char *about);
/* Is it inside the folder? Then ret holds the absolute path. */
bool pf_inside(int at, const char *path, char ret[PATH_MAX]);
/* The part below the folder, "." for the folder itself. */
const char *pf_below(const char *path);
bool pf_stat(const char *path, struct stat *ret);
/* Splits off the last name; the folder's inode. */
uint64_t pf_parent(char *path, const char **ret_name);

/* Opens and tracks; takes the lock itself. */
int pf_open(int at, const char *name, int flags, mode_t mode);

/* With the lock held: */
void pf_put(struct pf_record r, const char *name, const char *name2, const void *data);
/* True: errno is set and the call must fail; *ret_short: only half of it may be done. */
bool pf_fault(enum pf_kind kind, const char *path, bool *ret_short);
struct tracked *pf_tracked(int fd);
void pf_copy_fd(int from, long to);
void pf_track(int fd, const char *path, int flags, const struct stat *st);
bool pf_skipped(const char *path, bool folder);

#pragma GCC visibility pop

#endif
