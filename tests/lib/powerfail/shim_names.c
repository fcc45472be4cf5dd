/* Names and descriptors: opening, renaming, removing. */
#include "tests/lib/powerfail/shim.h"

#include <stdarg.h>
#include <stdio.h>

int pf_open(int at, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    struct stat st;

    if (!pf_inside(at, name, path)) {
        return (int)syscall(SYS_openat, at, name, flags, mode);
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        pf_die("O_TMPFILE is not covered", path);
    }
    pthread_mutex_lock(&pf_lock);
    bool existed = pf_stat(path, &st);
    bool changes = (flags & O_TRUNC) || ((flags & O_CREAT) && !existed);
    int fd = -1;
    if (!(changes && pf_fault(PF_ON_OPEN, pf_below(path), NULL))) {
        fd = (int)syscall(SYS_openat, at, name, flags, mode);
    }
    int why = errno;
    if (fd >= 0 && syscall(SYS_fstat, fd, &st) == 0) {
        const char *last;
        uint64_t parent = pf_parent(path, &last);
        if (!existed) {
            pf_put((struct pf_record){.op = PF_CREATE, .inode = st.st_ino, .parent = parent}, last,
                   NULL, NULL);
        } else if ((flags & O_TRUNC) && S_ISREG(st.st_mode)) {
            pf_put((struct pf_record){.op = PF_TRUNCATE, .inode = st.st_ino}, NULL, NULL, NULL);
        }
        pf_track(fd, path, flags, &st);
    }
    pthread_mutex_unlock(&pf_lock);
    errno = why;
    return fd;
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = va_arg(ap, mode_t);                                                                 \
        va_end(ap);                                                                                \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return pf_open(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return pf_open(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return pf_open(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return pf_open(at, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
    return pf_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return pf_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* What fortified programs call. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int at, const char *path, int flags);
int __openat64_2(int at, const char *path, int flags);

int __open_2(const char *path, int flags)
{
    return pf_open(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
    return pf_open(AT_FDCWD, path, flags, 0);
}

int __openat_2(int at, const char *path, int flags)
{
    return pf_open(at, path, flags, 0);
}

int __openat64_2(int at, const char *path, int flags)
{
    return pf_open(at, path, flags, 0);
}

int close(int fd)
{
    if (fd == pf_log && fd >= 0) {
        errno = EBADF; /* a program that closes everything does not close this */
        return -1;
    }
    pthread_mutex_lock(&pf_lock);
    if (fd >= 0 && fd < PF_FDS) {
        pf_fds[fd].on = false;
    }
    int r = (int)syscall(SYS_close, fd);
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int dup(int fd)
{
    pthread_mutex_lock(&pf_lock);
    long r = syscall(SYS_dup, fd);
    pf_copy_fd(fd, r);
    pthread_mutex_unlock(&pf_lock);
    return (int)r;
}

static int do_dup3(int from, int to, int flags)
{
    pthread_mutex_lock(&pf_lock);
    long r = syscall(SYS_dup3, from, to, flags);
    pf_copy_fd(from, r);
    pthread_mutex_unlock(&pf_lock);
    return (int)r;
}

int dup2(int from, int to)
{
    return from == to ? (int)syscall(SYS_fcntl, from, F_GETFD) < 0 ? -1 : to : do_dup3(from, to, 0);
}

int dup3(int from, int to, int flags)
{
    return do_dup3(from, to, flags);
}

static int do_fcntl(int fd, int command, void *argument)
{
    pthread_mutex_lock(&pf_lock);
    long r = syscall(SYS_fcntl, fd, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
        pf_copy_fd(fd, r);
    }
    pthread_mutex_unlock(&pf_lock);
    return (int)r;
}

int fcntl(int fd, int command, ...)
{
    va_list ap;

    va_start(ap, command);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    return command == F_SETLKW || command == F_OFD_SETLKW
               ? (int)syscall(SYS_fcntl, fd, command, argument)
               : do_fcntl(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list ap;

    va_start(ap, command);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    return command == F_SETLKW || command == F_OFD_SETLKW
               ? (int)syscall(SYS_fcntl, fd, command, argument)
               : do_fcntl(fd, command, argument);
}

/* ---- names ---- */

static int do_rename(int at1, const char *name1, int at2, const char *name2, unsigned flags)
{
    char from[PATH_MAX], to[PATH_MAX];
    bool a = pf_inside(at1, name1, from), b = pf_inside(at2, name2, to);
    const char *last1, *last2;
    int r = -1;

    if (a != b) {
        pf_die("a rename across the folder's border is not covered", name1);
    }
    if (!a) {
        return (int)syscall(SYS_renameat2, at1, name1, at2, name2, flags);
    }
    if (flags & ~(unsigned)RENAME_NOREPLACE) {
        pf_die("renameat2 with flags is not covered", from);
    }
    pthread_mutex_lock(&pf_lock);
    if (!pf_fault(PF_ON_RENAME, pf_below(to), NULL)) {
        uint64_t p1 = pf_parent(from, &last1), p2 = pf_parent(to, &last2);
        r = (int)syscall(SYS_renameat2, at1, name1, at2, name2, flags);
        if (r == 0) {
            pf_put((struct pf_record){.op = PF_RENAME, .parent = p1, .parent2 = p2}, last1, last2,
                   NULL);
        }
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int rename(const char *from, const char *to)
{
    return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int at1, const char *from, int at2, const char *to)
{
    return do_rename(at1, from, at2, to, 0);
}

int renameat2(int at1, const char *from, int at2, const char *to, unsigned flags)
{
    return do_rename(at1, from, at2, to, flags);
}

static int do_unlink(int at, const char *name, int flags)
{
    char path[PATH_MAX];
    const char *last;
    int r = -1;

    if (!pf_inside(at, name, path)) {
        return (int)syscall(SYS_unlinkat, at, name, flags);
    }
    pthread_mutex_lock(&pf_lock);
    if (!pf_fault(PF_ON_UNLINK, pf_below(path), NULL)) {
        uint64_t parent = pf_parent(path, &last);
        r = (int)syscall(SYS_unlinkat, at, name, flags);
        if (r == 0) {
            pf_put((struct pf_record){.op = PF_UNLINK, .parent = parent}, last, NULL, NULL);
        }
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int unlink(const char *path)
{
    return do_unlink(AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    return do_unlink(at, path, flags);
}

int rmdir(const char *path)
{
    return do_unlink(AT_FDCWD, path, AT_REMOVEDIR);
}

int remove(const char *path)
{
    int r = do_unlink(AT_FDCWD, path, 0);
    return r != 0 && errno == EISDIR ? do_unlink(AT_FDCWD, path, AT_REMOVEDIR) : r;
}

static int do_mkdir(int at, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    const char *last;
    struct stat st;
    int r = -1;

    if (!pf_inside(at, name, path)) {
        return (int)syscall(SYS_mkdirat, at, name, mode);
    }
    pthread_mutex_lock(&pf_lock);
    if (pf_stat(path, &st)) {
        errno = EEXIST; /* no fault for what changes nothing */
    } else if (!pf_fault(PF_ON_MKDIR, pf_below(path), NULL)) {
        r = (int)syscall(SYS_mkdirat, at, name, mode);
        int why = errno;
        if (r == 0 && pf_stat(path, &st)) {
            uint64_t parent = pf_parent(path, &last);
            pf_put(
                (struct pf_record){
                    .op = PF_CREATE, .inode = st.st_ino, .parent = parent, .offset = 1},
                last, NULL, NULL);
        }
        errno = why;
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int mkdir(const char *path, mode_t mode)
{
    return do_mkdir(AT_FDCWD, path, mode);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    return do_mkdir(at, path, mode);
}

static int do_link(int at1, const char *name1, int at2, const char *name2, int flags)
{
    char from[PATH_MAX], to[PATH_MAX];
    bool a = pf_inside(at1, name1, from), b = pf_inside(at2, name2, to);
    const char *last;
    struct stat st;

    if (a != b) {
        pf_die("a link across the folder's border is not covered", name1);
    }
    pthread_mutex_lock(&pf_lock);
    int r = (int)syscall(SYS_linkat, at1, name1, at2, name2, flags);
    if (a && r == 0 && pf_stat(to, &st)) {
        uint64_t parent = pf_parent(to, &last);
        pf_put((struct pf_record){.op = PF_LINK, .inode = st.st_ino, .parent = parent}, last, NULL,
               NULL);
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int link(const char *from, const char *to)
{
    return do_link(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int at1, const char *from, int at2, const char *to, int flags)
{
    return do_link(at1, from, at2, to, flags);
}
