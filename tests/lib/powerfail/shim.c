/*
 * powerfail: a library to preload, that journals how a program changes one folder, so that
 * afterwards every state can be rebuilt that a disk might hold had the power failed at any moment.
 *
 *   POWERFAIL_DIR   the folder (absolute, no links in it)
 *   POWERFAIL_LOG   the journal (made by `powerfail begin`); without it only faults are injected
 *   POWERFAIL_SYNC  "real": also perform syncs. By default they are journalled only, since a kill
 *                   loses nothing of the page cache and real ones cost milliseconds
 *   POWERFAIL_SKIP  syncs that are left out as if the program had forgotten them: "dir" (all
 *                   folders), "file" (all files), or a pattern of the path below the folder, as
 *                   "*.db-wal"; several separated by ','. To prove that a test would notice
 *   POWERFAIL_FAIL  op:n[+]:errno[:pattern]  the n-th such call fails (with '+' all later ones
 *                   too). op: open write truncate rename unlink mkdir sync any; errno: EIO ENOSPC
 *                   EDQUOT EROFS EMFILE. write:3:SHORT writes half of it
 *   POWERFAIL_KILL  op:n[:pattern]  SIGKILL before the n-th such call
 *
 * Every call is made as a raw system call and journalled after it succeeded, under one lock, so
 * that the journal's order is the order of effects. What cannot be followed (shared writable
 * mappings, stdio, links out of the folder) ends the program with a message: better no test than
 * one that looks away. SQLite's -shm file is the exception: it is made again from the log.
 */
#include "tests/lib/powerfail/shim.h"

#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

pthread_mutex_t pf_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char root[PATH_MAX];
static size_t root_size;
int pf_log = -1;
bool pf_real_sync;
static const char *skip;
struct tracked pf_fds[PF_FDS];

static const char *const kind_name[] = {"open",   "write", "truncate", "rename",
                                        "unlink", "mkdir", "sync",     "any"};

struct fault {
    enum pf_kind kind;
    unsigned long left; /* calls until it strikes */
    bool forever, shortened;
    int error;
    char pattern[128];
    unsigned long struck;
};
static struct fault fail_at = {.kind = PF_ON_NEVER}, kill_at = {.kind = PF_ON_NEVER};

/* ---- start ---- */

void pf_die(const char *what, const char *about)
{
    dprintf(STDERR_FILENO, "powerfail: %s: %s\n", what, about);
    abort();
}

static void parse_fault(const char *spec, struct fault *ret, bool kills)
{
    static const struct {
        const char *name;
        int error;
    } errors[] = {{"EIO", EIO},     {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT},
                  {"EROFS", EROFS}, {"EMFILE", EMFILE}, {"SHORT", 0}};
    char text[256], *at = text;

    *ret = (struct fault){.kind = PF_ON_NEVER};
    if (!spec || !*spec) {
        return;
    }
    snprintf(text, sizeof text, "%s", spec);
    char *name = strsep(&at, ":"), *count = strsep(&at, ":");
    char *error = kills ? NULL : strsep(&at, ":");
    for (int i = 0; i <= PF_ON_ANY; i++) {
        if (strcmp(name, kind_name[i]) == 0) {
            ret->kind = (enum pf_kind)i;
        }
    }
    ret->left = count ? strtoul(count, &count, 10) : 0;
    ret->forever = count && *count == '+';
    ret->error = -1;
    for (size_t i = 0; error && i < sizeof errors / sizeof errors[0]; i++) {
        if (strcmp(error, errors[i].name) == 0) {
            ret->error = errors[i].error;
            ret->shortened = errors[i].error == 0;
        }
    }
    if (ret->kind == PF_ON_NEVER || ret->left == 0 || (!kills && ret->error < 0)) {
        pf_die("not understood", spec);
    }
    snprintf(ret->pattern, sizeof ret->pattern, "%s", at ? at : "");
}

static void begin(void)
{
    const char *dir = getenv("POWERFAIL_DIR"), *log = getenv("POWERFAIL_LOG");
    const char *sync = getenv("POWERFAIL_SYNC");

    root_size = dir ? strlen(dir) : 0;
    if (root_size == 0 || root_size >= sizeof root) {
        root_size = 0;
        return;
    }
    memcpy(root, dir, root_size + 1);
    pf_real_sync = sync && strcmp(sync, "real") == 0;
    skip = getenv("POWERFAIL_SKIP");
    parse_fault(getenv("POWERFAIL_FAIL"), &fail_at, false);
    parse_fault(getenv("POWERFAIL_KILL"), &kill_at, true);
    if (log && *log) {
        long fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
        if (fd < 0) {
            pf_die("no journal", log);
        }
        pf_log = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
        syscall(SYS_close, fd);
    }
}

bool pf_active(void)
{
    pthread_once(&once, begin);
    return root_size > 0;
}

/* ---- names ---- */

/* "." and ".." and "//" out of an absolute path. */
static void normalise(char *path)
{
    char *out = path;

    for (char *at = path; *at;) {
        while (*at == '/') {
            at++;
        }
        size_t n = strcspn(at, "/");
        if (n == 0) {
            break;
        }
        if (n == 2 && at[0] == '.' && at[1] == '.') {
            while (out > path && *--out != '/') {
            }
        } else if (!(n == 1 && at[0] == '.')) {
            *out++ = '/';
            memmove(out, at, n);
            out += n;
        }
        at += n;
    }
    if (out == path) {
        *out++ = '/';
    }
    *out = '\0';
}

/* Is it inside? Then ret holds the absolute path. */
bool pf_inside(int at, const char *path, char ret[PATH_MAX])
{
    size_t n = 0;

    if (!pf_active() || !path) {
        return false;
    }
    if (*path != '/') {
        char link[40];
        long got;
        if (at == AT_FDCWD) {
            got = syscall(SYS_getcwd, ret, PATH_MAX) - 1;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            got = syscall(SYS_readlinkat, AT_FDCWD, link, ret, PATH_MAX - 1);
        }
        if (got <= 0) {
            return false;
        }
        n = (size_t)got;
        ret[n++] = '/';
    }
    if (n + strlen(path) >= PATH_MAX) {
        return false;
    }
    memcpy(ret + n, path, strlen(path) + 1);
    normalise(ret);
    if (strncmp(ret, root, root_size) != 0 || (ret[root_size] != '/' && ret[root_size] != '\0')) {
        return false;
    }
    n = strlen(ret);
    return !(n > 4 && strcmp(ret + n - 4, "-shm") == 0);
}

const char *pf_below(const char *path)
{
    return path[root_size] ? path + root_size + 1 : ".";
}

bool pf_stat(const char *path, struct stat *ret)
{
    return syscall(SYS_newfstatat, AT_FDCWD, path, ret, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Splits off the last name; the folder's inode. */
uint64_t pf_parent(char *path, const char **ret_name)
{
    struct stat st;
    char *slash = strrchr(path, '/');

    *slash = '\0';
    bool found = pf_stat(slash == path ? "/" : path, &st);
    *slash = '/';
    *ret_name = slash + 1;
    return found ? st.st_ino : 0;
}

/* ---- journal and faults; the lock is held ---- */

void pf_put(struct pf_record r, const char *name, const char *name2, const void *data)
{
    if (pf_log < 0) {
        return;
    }
    r.magic = PF_MAGIC;
    r.name = name ? (uint32_t)strlen(name) : 0;
    r.name2 = name2 ? (uint32_t)strlen(name2) : 0;
    struct iovec v[4] = {{&r, sizeof r},
                         {(void *)(uintptr_t)name, r.name},
                         {(void *)(uintptr_t)name2, r.name2},
                         {(void *)(uintptr_t)data, r.size}};
    size_t total = sizeof r + r.name + r.name2 + r.size;
    if (syscall(SYS_writev, pf_log, v, 4) != (long)total) {
        pf_die("journal", strerror(errno));
    }
}

static bool strikes(struct fault *f, enum pf_kind kind, const char *path)
{
    if ((f->kind != kind && f->kind != PF_ON_ANY) ||
        (f->pattern[0] && fnmatch(f->pattern, path, 0) != 0)) {
        return false;
    }
    if (f->left > 1) {
        f->left--;
        return false;
    }
    if (f->left == 0 && !f->forever) {
        return false;
    }
    f->left = 0;
    f->struck++;
    return true;
}

/* True: errno is set and the call must fail; *ret_short: only half of it may be done. */
bool pf_fault(enum pf_kind kind, const char *path, bool *ret_short)
{
    if (strikes(&kill_at, kind, path)) {
        kill(getpid(), SIGKILL);
        for (;;) {
            pause();
        }
    }
    if (!strikes(&fail_at, kind, path)) {
        return false;
    }
    if (fail_at.shortened) {
        if (ret_short) {
            *ret_short = true;
        }
        return false;
    }
    errno = fail_at.error;
    return true;
}

void powerfail_note(const char *line)
{
    if (pf_active()) {
        pthread_mutex_lock(&pf_lock);
        pf_put((struct pf_record){.op = PF_NOTE, .size = strlen(line)}, NULL, NULL, line);
        pthread_mutex_unlock(&pf_lock);
    }
}

void powerfail_fail(const char *spec)
{
    pf_active();
    pthread_mutex_lock(&pf_lock);
    parse_fault(spec, &fail_at, false);
    pthread_mutex_unlock(&pf_lock);
}

unsigned long powerfail_struck(void)
{
    return fail_at.struck;
}

/* ---- descriptors ---- */

struct tracked *pf_tracked(int fd)
{
    return fd >= 0 && fd < PF_FDS && pf_fds[fd].on ? &pf_fds[fd] : NULL;
}

void pf_copy_fd(int from, long to)
{
    if (to >= 0 && to < PF_FDS) {
        pf_fds[to].on = false;
        if (pf_tracked(from)) {
            pf_fds[to] = pf_fds[from];
        }
    }
}

void pf_track(int fd, const char *path, int flags, const struct stat *st)
{
    if (fd >= PF_FDS) {
        pf_die("too many descriptors", path);
    }
    pf_fds[fd] = (struct tracked){
        .on = true,
        .inode = st->st_ino,
        .sync_writes = (flags & (O_SYNC | O_DSYNC)) != 0,
        .append = (flags & O_APPEND) != 0,
    };
    snprintf(pf_fds[fd].path, sizeof pf_fds[fd].path, "%s", pf_below(path));
}

/* ---- syncs ---- */

bool pf_skipped(const char *path, bool folder)
{
    char text[256], *at = text;

    snprintf(text, sizeof text, "%s", skip ? skip : "");
    for (char *one; (one = strsep(&at, ",")) != NULL;) {
        if (*one && (strcmp(one, folder ? "dir" : "file") == 0 || fnmatch(one, path, 0) == 0)) {
            return true;
        }
    }
    return false;
}
