#include "common/io/file.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum fl_reason fl_file_reason(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
    case EDQUOT:
        return FL_R_DISK_FULL;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return FL_R_LIMIT; /* nothing was written; it may go well later */
    default:
        return FL_R_STORE_IO;
    }
}

static int fail_io(struct fl_err *e, const char *verb, const char *path)
{
    return fl_fail_sys(e, fl_file_reason(errno), errno, "%s %s", verb, path);
}

/* The folder a path is in: "." when it names none. */
static bool parent_of(const char *path, char ret[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    if (n >= PATH_MAX) {
        return false;
    }
    if (!slash) {
        memcpy(ret, ".", 2);
    } else if (n == 0) {
        memcpy(ret, "/", 2);
    } else {
        memcpy(ret, path, n);
        ret[n] = 0;
    }
    return true;
}

int fl_file_read_at(int fd, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    while (size) {
        ssize_t n = pread(fd, to, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fl_fail_sys(e, FL_R_STORE_IO, errno, "read");
        }
        if (n == 0) {
            return fl_fail(e, FL_R_STORE_IO, "a file ends at %llu, %zu bytes too early",
                           (unsigned long long)offset, size);
        }
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

int fl_file_sync_dir(const char *dir, struct fl_err *e)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return fail_io(e, "open folder", dir);
    }
    int r = fsync(fd) == 0 ? 0 : fail_io(e, "sync folder", dir);
    close(fd);
    return r;
}

static int write_all(int fd, const void *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = write(fd, (const char *)data + at, size - at);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int fl_file_replace(const char *path, const void *data, size_t size, unsigned mode,
                    struct fl_err *e)
{
    char dir[PATH_MAX], beside[PATH_MAX];
    int r;

    if ((size_t)snprintf(beside, sizeof beside, "%s.new", path) >= sizeof beside ||
        !parent_of(path, dir)) {
        return fl_fail(e, FL_R_STORE_IO, "the path is too long: %.60s...", path);
    }
    /* What a crash left beside may have another mode, or be a link to somewhere else. */
    if (unlink(beside) != 0 && errno != ENOENT) {
        return fail_io(e, "remove", beside);
    }
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode);
    if (fd < 0) {
        return fail_io(e, "create", beside);
    }
    if (fchmod(fd, (mode_t)mode) != 0 || write_all(fd, data, size) != 0) {
        r = fail_io(e, "write", beside);
        close(fd);
        goto remove_beside;
    }
    if (fsync(fd) != 0) {
        r = fail_io(e, "sync", beside);
        close(fd);
        goto remove_beside;
    }
    if (close(fd) != 0) {
        r = fail_io(e, "close", beside);
        goto remove_beside;
    }
    if (rename(beside, path) != 0) {
        r = fail_io(e, "rename to", path);
        goto remove_beside;
    }
    return fl_file_sync_dir(dir, e);

remove_beside:
    unlink(beside);
    return r;
}

int fl_file_read(const char *path, size_t max, uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    struct stat st;
    int r = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return fl_fail_sys(e, FL_R_SYS, errno, "open %s", path);
    }
    if (fstat(fd, &st) != 0) {
        r = fl_fail_sys(e, FL_R_SYS, errno, "stat %s", path);
        goto close_fd;
    }
    if (!S_ISREG(st.st_mode)) {
        r = fl_fail(e, FL_R_SYS, "%s is not a regular file", path);
        goto close_fd;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > max) {
        r = fl_fail(e, FL_R_LIMIT, "%s has %lld bytes; at most %zu are read", path,
                    (long long)st.st_size, max);
        goto close_fd;
    }
    size_t size = (size_t)st.st_size, at = 0;
    uint8_t *data = fl_try(size + 1, 1);
    if (!data) {
        r = fl_fail(e, FL_R_NOMEM, "no memory for the %zu bytes of %s", size, path);
        goto close_fd;
    }
    while (at < size) {
        ssize_t n = read(fd, data + at, size - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            r = n < 0 ? fl_fail_sys(e, FL_R_SYS, errno, "read %s", path)
                      : fl_fail(e, FL_R_SYS, "%s shrank while it was read", path);
            fl_free(data);
            goto close_fd;
        }
        at += (size_t)n;
    }
    *ret = data;
    *ret_size = size;
close_fd:
    close(fd);
    return r;
}

int fl_file_make_dirs(const char *dir, struct fl_err *e)
{
    char path[PATH_MAX], parent[PATH_MAX];
    size_t n = strlen(dir);

    if (n == 0 || n >= sizeof path) {
        return fl_fail(e, FL_R_STORE_IO, "a folder's path is empty or too long");
    }
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) {
            continue;
        }
        char was = path[i];
        path[i] = 0;
        if (mkdir(path, 0700) == 0) {
            int r = parent_of(path, parent) ? fl_file_sync_dir(parent, e) : -FL_R_STORE_IO;
            if (r < 0) {
                return r;
            }
        } else if (errno != EEXIST) {
            return fail_io(e, "create folder", path);
        }
        path[i] = was;
    }
    struct stat st;
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return fl_fail(e, FL_R_STORE_IO, "%s is not a folder", dir);
    }
    return 0;
}

int fl_file_remove(const char *path, struct fl_err *e)
{
    return unlink(path) == 0 || errno == ENOENT ? 0 : fail_io(e, "remove", path);
}

int fl_file_lock_dir(const char *dir, int *ret_fd, struct fl_err *e)
{
    char path[PATH_MAX], text[32];

    if ((size_t)snprintf(path, sizeof path, "%s/lock", dir) >= sizeof path) {
        return fl_fail(e, FL_R_STORE_OPEN, "the path is too long: %.60s...", dir);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fl_fail_sys(e, FL_R_STORE_OPEN, errno, "open %s", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int why = errno;
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        close(fd);
        if (why != EWOULDBLOCK) {
            return fl_fail_sys(e, FL_R_STORE_OPEN, why, "lock %s", path);
        }
        text[n > 0 ? n : 0] = 0;
        text[strcspn(text, "\n")] = 0;
        return fl_fail(e, FL_R_STORE_LOCKED, "%s is in use by process %s", dir,
                       text[0] ? text : "unknown");
    }
    /* The number is for people; the lock itself is the kernel's and ends with the process. */
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        int r = fl_fail_sys(e, fl_file_reason(errno), errno, "write %s", path);
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int fl_file_check_private(const char *path, enum fl_reason reason, struct fl_err *e)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        return fl_fail_sys(e, reason, errno, "%s", path);
    }
    if (st.st_mode & 077) {
        return fl_fail(e, reason, "%s has mode %04o: others may read it; use chmod 600", path,
                       (unsigned)st.st_mode & 07777);
    }
    return 0;
}

int fl_file_secret(const char *path, uint8_t *ret, size_t size, struct fl_err *e)
{
    uint8_t *bytes;
    size_t found;

    if (access(path, F_OK) != 0 && errno == ENOENT) {
        int r = fl_entropy(ret, size, e);
        return r ? r : fl_file_replace(path, ret, size, 0600, e);
    }
    int r = fl_file_check_private(path, FL_R_FILE_MODE, e);
    r = r ? r : fl_file_read(path, size, &bytes, &found, e);
    if (r) {
        return r;
    }
    if (found == size) {
        memcpy(ret, bytes, size);
    }
    explicit_bzero(bytes, found);
    fl_free(bytes);
    return found == size
               ? 0
               : fl_fail(e, FL_R_STORE_MISMATCH, "%s: %zu bytes, not %zu", path, found, size);
}
