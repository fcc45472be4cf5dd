#include "client/data/bytes.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK = 64 * 1024 };

struct fl_bytes {
    int fd;
    bool packed, inflating, file_end;
    bool in_member; /* a gzip member began and its end was not seen */
    uint64_t offset;
    size_t at, have; /* unread part of block */
    z_stream z;
    char *path;
    unsigned char block[BLOCK];
};

/* Reads the next block when the last one is used up. */
static int refill(struct fl_bytes *b, struct fl_err *e)
{
    if (b->at < b->have || b->file_end) {
        return 0;
    }
    ssize_t n;
    do {
        n = read(b->fd, b->block, sizeof b->block);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return fl_fail_sys(e, FL_R_DATA_OPEN, errno, "%s", b->path);
    }
    b->at = 0;
    b->have = (size_t)n;
    b->file_end = n == 0;
    return 0;
}

int fl_bytes_open(const char *path, struct fl_bytes **ret, struct fl_err *e)
{
    size_t name = strlen(path) + 1;
    struct fl_bytes *b = fl_try(1, sizeof *b);
    struct stat st;
    int r = 0;

    if (b) {
        b->fd = -1;
        b->path = fl_try(name, 1);
    }
    if (!b || !b->path) {
        fl_bytes_close(b);
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
    }
    memcpy(b->path, path, name);
    b->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (b->fd < 0 || fstat(b->fd, &st)) {
        r = fl_fail_sys(e, FL_R_DATA_OPEN, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        r = fl_fail(e, FL_R_DATA_OPEN, "%s: not a regular file", path);
    } else {
        r = refill(b, e);
    }
    if (r == 0 && b->have >= 2 && b->block[0] == 0x1f && b->block[1] == 0x8b) {
        b->packed = true;
        b->inflating = inflateInit2(&b->z, 15 + 16) == Z_OK;
        r = b->inflating ? 0 : fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
    }
    if (r) {
        fl_bytes_close(b);
        return r;
    }
    *ret = b;
    return 0;
}

void fl_bytes_close(struct fl_bytes *b)
{
    if (!b) {
        return;
    }
    if (b->inflating) {
        inflateEnd(&b->z);
    }
    if (b->fd >= 0) {
        close(b->fd);
    }
    fl_free(b->path);
    fl_free(b);
}

static int read_plain(struct fl_bytes *b, unsigned char *to, size_t size, size_t *ret_got,
                      struct fl_err *e)
{
    size_t got = 0;

    while (got < size) {
        int r = refill(b, e);
        if (r) {
            return r;
        }
        if (b->at == b->have) {
            break;
        }
        size_t n = b->have - b->at < size - got ? b->have - b->at : size - got;
        memcpy(to + got, b->block + b->at, n);
        b->at += n;
        got += n;
    }
    *ret_got = got;
    return 0;
}

/* Between members: at the end of the file, or another one begins. */
static int next_member(struct fl_bytes *b, bool *ret_end, struct fl_err *e)
{
    int r = refill(b, e);

    if (r) {
        return r;
    }
    *ret_end = b->at == b->have;
    if (*ret_end) {
        return 0;
    }
    if (b->block[b->at] != 0x1f) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s: something follows the compressed data", b->path);
    }
    inflateReset(&b->z);
    b->in_member = true;
    return 0;
}

static int read_packed(struct fl_bytes *b, unsigned char *to, size_t size, size_t *ret_got,
                       struct fl_err *e)
{
    size_t got = 0;

    while (got < size) {
        int r = 0;
        if (!b->in_member) {
            bool end = false;
            r = next_member(b, &end, e);
            if (r || end) {
                *ret_got = got;
                return r;
            }
        }
        if ((r = refill(b, e))) {
            return r;
        }
        if (b->at == b->have) {
            return fl_fail(e, FL_R_DATA_TRUNCATED,
                           "%s: the compressed data end early, after %llu bytes unpacked", b->path,
                           (unsigned long long)(b->offset + got));
        }
        size_t room = size - got < (1u << 30) ? size - got : 1u << 30;
        b->z.next_in = b->block + b->at;
        b->z.avail_in = (uInt)(b->have - b->at);
        b->z.next_out = to + got;
        b->z.avail_out = (uInt)room;
        int z = inflate(&b->z, Z_NO_FLUSH);
        b->at = b->have - b->z.avail_in;
        got += room - b->z.avail_out;
        if (z == Z_MEM_ERROR) {
            return fl_fail(e, FL_R_NOMEM, "%s: out of memory", b->path);
        }
        if (z == Z_STREAM_END) {
            b->in_member = false;
        } else if (z != Z_OK && z != Z_BUF_ERROR) {
            return fl_fail(e, FL_R_DATA_FORMAT, "%s: damaged gzip after %llu bytes unpacked: %s",
                           b->path, (unsigned long long)(b->offset + got),
                           b->z.msg ? b->z.msg : "bad stream");
        }
    }
    *ret_got = got;
    return 0;
}

int fl_bytes_read(struct fl_bytes *b, void *to, size_t size, size_t *ret_got, struct fl_err *e)
{
    size_t got = 0;
    int r = b->packed ? read_packed(b, to, size, &got, e) : read_plain(b, to, size, &got, e);

    if (r == 0) {
        b->offset += got;
        *ret_got = got;
    }
    return r;
}

int fl_bytes_need(struct fl_bytes *b, void *to, size_t size, uint64_t total, struct fl_err *e)
{
    size_t got;
    int r = fl_bytes_read(b, to, size, &got, e);

    if (r == 0 && got < size) {
        r = fl_fail(e, FL_R_DATA_TRUNCATED, "%s: ends after %llu of %llu bytes", b->path,
                    (unsigned long long)b->offset, (unsigned long long)total);
    }
    return r;
}

int fl_bytes_end(struct fl_bytes *b, struct fl_err *e)
{
    unsigned char byte;
    size_t got;
    int r = fl_bytes_read(b, &byte, 1, &got, e);

    if (r == 0 && got) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s: goes on after the %llu bytes its header announces",
                    b->path, (unsigned long long)(b->offset - 1));
    }
    return r;
}

uint64_t fl_bytes_offset(const struct fl_bytes *b)
{
    return b->offset;
}

bool fl_bytes_packed(const struct fl_bytes *b)
{
    return b->packed;
}

const char *fl_bytes_path(const struct fl_bytes *b)
{
    return b->path;
}
