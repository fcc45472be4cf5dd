/* Bytes and syncs, and what is not covered. */
#include "tests/lib/powerfail/shim.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

/* ---- bytes ---- */

static void wrote(const struct tracked *t, uint64_t offset, const struct iovec *v, int count,
                  size_t size)
{
    for (int i = 0; i < count && size > 0; i++) {
        size_t n = v[i].iov_len < size ? v[i].iov_len : size;
        if (n > 0) {
            pf_put(
                (struct pf_record){.op = PF_WRITE, .inode = t->inode, .offset = offset, .size = n},
                NULL, NULL, v[i].iov_base);
        }
        offset += n;
        size -= n;
    }
    if (t->sync_writes) {
        pf_put((struct pf_record){.op = PF_SYNC, .inode = t->inode}, NULL, NULL, NULL);
    }
}

/* offset < 0: at the descriptor's own place. */
static ssize_t do_write(int fd, const struct iovec *v, int count, off_t offset, int flags)
{
    struct iovec half;
    bool shortened = false;
    ssize_t n;

    pthread_mutex_lock(&pf_lock);
    struct tracked *t = pf_tracked(fd);
    if (t && flags) {
        pf_die("pwritev2 with flags is not covered", t->path);
    }
    if (t && pf_fault(PF_ON_WRITE, t->path, &shortened)) {
        pthread_mutex_unlock(&pf_lock);
        return -1;
    }
    if (shortened && count > 0 && v[0].iov_len > 1) {
        half = (struct iovec){v[0].iov_base, v[0].iov_len / 2};
        v = &half;
        count = 1;
    }
    if (!t) { /* sockets and pipes may block for long */
        pthread_mutex_unlock(&pf_lock);
    }
    n = flags        ? syscall(SYS_pwritev2, fd, v, count, offset, offset < 0 ? -1L : 0L, flags)
        : offset < 0 ? syscall(SYS_writev, fd, v, count)
                     : syscall(SYS_pwritev, fd, v, count, offset, 0L);
    if (t) {
        int why = errno;
        if (n > 0) {
            if (offset < 0 || t->append) {
                offset = syscall(SYS_lseek, fd, 0, SEEK_CUR) - n;
            }
            wrote(t, (uint64_t)offset, v, count, (size_t)n);
        }
        pthread_mutex_unlock(&pf_lock);
        errno = why;
    }
    return n;
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec v = {(void *)(uintptr_t)data, size};
    return pf_tracked(fd) ? do_write(fd, &v, 1, -1, 0) : syscall(SYS_write, fd, data, size);
}

ssize_t writev(int fd, const struct iovec *v, int count)
{
    return do_write(fd, v, count, -1, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec v = {(void *)(uintptr_t)data, size};
    return do_write(fd, &v, 1, offset, 0);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    struct iovec v = {(void *)(uintptr_t)data, size};
    return do_write(fd, &v, 1, offset, 0);
}

ssize_t pwritev(int fd, const struct iovec *v, int count, off_t offset)
{
    return do_write(fd, v, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *v, int count, off64_t offset)
{
    return do_write(fd, v, count, offset, 0);
}

ssize_t pwritev2(int fd, const struct iovec *v, int count, off_t offset, int flags)
{
    return do_write(fd, v, count, offset, flags);
}

static int do_ftruncate(int fd, off_t size)
{
    pthread_mutex_lock(&pf_lock);
    struct tracked *t = pf_tracked(fd);
    int r = -1;
    if (!t || !pf_fault(PF_ON_TRUNCATE, t->path, NULL)) {
        r = (int)syscall(SYS_ftruncate, fd, size);
        if (t && r == 0) {
            pf_put(
                (struct pf_record){.op = PF_TRUNCATE, .inode = t->inode, .offset = (uint64_t)size},
                NULL, NULL, NULL);
        }
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int ftruncate(int fd, off_t size)
{
    return do_ftruncate(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return do_ftruncate(fd, size);
}

/* By way of a descriptor. */
static int do_truncate(const char *path, off_t size)
{
    int fd = pf_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    int r = fd < 0 ? -1 : do_ftruncate(fd, size);
    int why = errno;

    if (fd >= 0) {
        close(fd);
    }
    errno = why;
    return r;
}

int truncate(const char *path, off_t size)
{
    return do_truncate(path, size);
}

int truncate64(const char *path, off64_t size)
{
    return do_truncate(path, size);
}

static int do_fallocate(int fd, int mode, off_t offset, off_t size)
{
    struct stat st;

    pthread_mutex_lock(&pf_lock);
    struct tracked *t = pf_tracked(fd);
    int r = -1;
    if (t && mode != 0) {
        pf_die("fallocate with a mode is not covered", t->path);
    }
    if (!t || !pf_fault(PF_ON_WRITE, t->path, NULL)) {
        r = (int)syscall(SYS_fallocate, fd, mode, offset, size);
        if (t && r == 0 && syscall(SYS_fstat, fd, &st) == 0) {
            pf_put((struct pf_record){.op = PF_TRUNCATE,
                                      .inode = t->inode,
                                      .offset = (uint64_t)st.st_size},
                   NULL, NULL, NULL);
        }
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return do_fallocate(fd, mode, offset, size);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return do_fallocate(fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    return do_fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return do_fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

/* ---- syncs ---- */

static int do_sync(int fd, bool data_only)
{
    char link[40], path[PATH_MAX];
    struct stat st;
    int r = 0;

    /* A descriptor that was not opened through us (opendir). */
    if (pf_active() && !pf_tracked(fd)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
        if (n > 0) {
            path[n] = '\0';
            char full[PATH_MAX];
            if (pf_inside(AT_FDCWD, path, full) && syscall(SYS_fstat, fd, &st) == 0) {
                pthread_mutex_lock(&pf_lock);
                pf_track(fd, full, 0, &st);
                pthread_mutex_unlock(&pf_lock);
            }
        }
    }
    pthread_mutex_lock(&pf_lock);
    struct tracked *t = pf_tracked(fd);
    if (!t) {
        pthread_mutex_unlock(&pf_lock);
        return (int)syscall(data_only ? SYS_fdatasync : SYS_fsync, fd);
    }
    bool folder = syscall(SYS_fstat, fd, &st) == 0 && S_ISDIR(st.st_mode);
    if (pf_fault(PF_ON_SYNC, t->path, NULL)) {
        int why = errno;
        pf_put((struct pf_record){.op = PF_SYNC_FAILED, .inode = t->inode}, NULL, NULL, NULL);
        errno = why;
        r = -1;
    } else if (!pf_skipped(t->path, folder)) {
        r = pf_real_sync ? (int)syscall(data_only ? SYS_fdatasync : SYS_fsync, fd) : 0;
        if (r == 0) {
            pf_put((struct pf_record){.op = PF_SYNC, .inode = t->inode}, NULL, NULL, NULL);
        }
    }
    pthread_mutex_unlock(&pf_lock);
    return r;
}

int fsync(int fd)
{
    return do_sync(fd, false);
}

int fdatasync(int fd)
{
    return do_sync(fd, true);
}

/* ---- what is not covered ---- */

static void *do_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_TYPE) != MAP_PRIVATE && (protection & PROT_WRITE) && pf_tracked(fd)) {
        pf_die("a shared writable mapping is not covered", pf_fds[fd].path);
    }
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset); // NOLINT
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return do_mmap(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{
    return do_mmap(at, size, protection, flags, fd, offset);
}

int symlink(const char *to, const char *name)
{
    char path[PATH_MAX];

    if (pf_inside(AT_FDCWD, name, path)) {
        pf_die("symlink is not covered", path);
    }
    return (int)syscall(SYS_symlinkat, to, AT_FDCWD, name);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    if (pf_tracked(out)) {
        pf_die("copy_file_range is not covered", pf_fds[out].path);
    }
    return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t size)
{
    if (pf_tracked(out)) {
        pf_die("sendfile is not covered", pf_fds[out].path);
    }
    return syscall(SYS_sendfile, out, in, offset, size);
}

/* stdio writes by calls inside libc that cannot be seen from here. */
static void no_stdio(const char *path, const char *mode)
{
    char full[PATH_MAX];

    if (strpbrk(mode, "wa+") && pf_inside(AT_FDCWD, path, full)) {
        pf_die("stdio is not covered", full);
    }
}

FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*next)(const char *, const char *);

    no_stdio(path, mode);
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "fopen");
    }
    return next(path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    no_stdio(path, mode);
    return fopen(path, mode);
}

FILE *fdopen(int fd, const char *mode)
{
    static FILE *(*next)(int, const char *);

    if (strpbrk(mode, "wa+") && pf_tracked(fd)) {
        pf_die("stdio is not covered", pf_fds[fd].path);
    }
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "fdopen");
    }
    return next(fd, mode);
}

int mkostemp(char *path, int flags)
{
    static int (*next)(char *, int);

    no_stdio(path, "w");
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "mkostemp");
    }
    return next(path, flags);
}

int mkstemp(char *path)
{
    return mkostemp(path, 0);
}
