/*
 * Room for examples that do not fit into the memory a site gives: a file in the agent's own folder,
 * mapped and unlinked at once, so that it is gone with the process however that ends. Its blocks
 * are allocated before anything is written, so a full disk is an error here and no SIGBUS later;
 * nobody else can reach it, so it cannot be cut short either.
 */
#include "client/data/windows.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int fl_floats_new(const struct fl_data_source *s, size_t values, float **ret, size_t *ret_mapped,
                  struct fl_err *e)
{
    char path[sizeof s->scratch + 32];
    size_t size;

    *ret_mapped = 0;
    if (!fl_mul(values, sizeof(float), &size) || size > (size_t)1 << 46) {
        return fl_fail(e, FL_R_NOMEM, "%zu values are too many", values);
    }
    if (s->memory == 0 || size <= s->memory || size == 0) {
        *ret = fl_try_aligned(values, sizeof **ret);
        return *ret ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory for %zu values", values);
    }
    int w = snprintf(path, sizeof path, "%s/.data-XXXXXX", s->scratch[0] ? s->scratch : "/var/tmp");
    (void)w; /* scratch and the name fit */
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        return fl_fail_sys(e, FL_R_STORE_IO, errno, "%s", path);
    }
    unlink(path);
    int bad = posix_fallocate(fd, 0, (off_t)size);
    if (bad) {
        close(fd);
        return fl_fail_sys(e, FL_R_DISK_FULL, bad, "%s: %zu bytes for examples", path, size);
    }
    void *x = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int code = errno;
    close(fd);
    if (x == MAP_FAILED) {
        return fl_fail_sys(e, FL_R_NOMEM, code, "%s", path);
    }
    *ret = x;
    *ret_mapped = size;
    return 0;
}

void fl_floats_free(float *x, size_t mapped)
{
    if (mapped) {
        munmap(x, mapped);
    } else {
        fl_free(x);
    }
}
