/*
 * A spool keeps three things apart: bytes written (in the part file), bytes durable (said by the
 * mark file), and the object being whole (its name without ".part").
 *
 *     write write write ... fdatasync(part), then mark := bytes so far, fdatasync(mark)
 *
 * In this order the mark can only say less than the truth. The mark file has two slots of one
 * sector each, written in turn; a slot torn by a power cut has a wrong checksum, and the other one
 * stands. A mark counts only for the digest and size it names, and only if the part has at least so
 * many bytes; anything else starts from 0. Before a part is used for another object the old mark is
 * removed durably, since a stale mark over new bytes would be a lie.
 *
 * Objects shorter than FL_SPOOL_MARK_EVERY that arrive in one go never get a mark: their cost is
 * one file, one sync, one rename.
 *
 * After a failed sync nobody knows what the disk holds; the handle refuses everything from then on
 * (a second sync would report success for pages the kernel has already dropped).
 */
#include "common/io/spool.h"

#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOT_SIZE = 512, TILE = 256 * 1024 };

static const uint8_t magic[8] = "FLSPOOL1";

struct mark {
    uint8_t magic[8];
    uint64_t sequence, size, durable;
    struct fl_digest digest;
    struct fl_digest check; /* of everything before */
};

struct fl_spool {
    int part_fd, mark_fd; /* mark_fd: -1 until the first mark */
    bool broken;
    uint64_t size, at, durable, sequence;
    struct fl_digest digest;
    const char *dir, *name; /* in text */
    char text[];
};

/* PATH_MAX is checked once, at open, for the longest suffix. */
static void path_of(const struct fl_spool *s, const char *suffix, char ret[PATH_MAX])
{
    int n = snprintf(ret, PATH_MAX, "%s/%s%s", s->dir, s->name, suffix);
    (void)n;
}

static int fail_io(struct fl_spool *s, const char *verb, struct fl_err *e)
{
    int why = errno;

    s->broken = true;
    return fl_fail_sys(e, fl_file_reason(why), why, "%s %s/%s", verb, s->dir, s->name);
}

static int pwrite_all(int fd, const void *data, size_t size, uint64_t offset)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = pwrite(fd, (const char *)data + at, size - at, (off_t)(offset + at));
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void mark_check(const struct mark *m, struct fl_digest *ret)
{
    fl_digest_of(m, offsetof(struct mark, check), ret);
}

/* The newest sound slot that speaks of this object; false when there is none. */
static bool mark_read(struct fl_spool *s)
{
    bool found = false;

    for (int slot = 0; slot < 2; slot++) {
        struct mark m;
        struct fl_digest check;
        if (pread(s->mark_fd, &m, sizeof m, slot * SLOT_SIZE) != (ssize_t)sizeof m) {
            continue;
        }
        mark_check(&m, &check);
        if (!fl_digest_equal(&check, &m.check) || memcmp(m.magic, magic, sizeof magic) != 0 ||
            !fl_digest_equal(&m.digest, &s->digest) || m.size != s->size || m.durable > m.size ||
            (found && m.sequence < s->sequence)) {
            continue;
        }
        found = true;
        s->sequence = m.sequence;
        s->durable = m.durable;
    }
    return found;
}

static int mark_write(struct fl_spool *s, struct fl_err *e)
{
    struct mark m = {.sequence = s->sequence + 1, .size = s->size, .durable = s->at};
    bool fresh = s->mark_fd < 0;
    char path[PATH_MAX];
    int r;

    memcpy(m.magic, magic, sizeof magic);
    m.digest = s->digest;
    mark_check(&m, &m.check);
    if (fresh) {
        path_of(s, ".mark", path);
        s->mark_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (s->mark_fd < 0) {
            return fail_io(s, "create the mark of", e);
        }
    }
    if (pwrite_all(s->mark_fd, &m, sizeof m, (m.sequence & 1) * SLOT_SIZE) != 0 ||
        fdatasync(s->mark_fd) != 0) {
        return fail_io(s, "write the mark of", e);
    }
    /* Also makes the part's own folder entry durable. */
    if (fresh && (r = fl_file_sync_dir(s->dir, e)) < 0) {
        s->broken = true;
        return r;
    }
    s->sequence = m.sequence;
    s->durable = s->at;
    return 0;
}

/* Starts from nothing; no old mark survives. */
static int start_over(struct fl_spool *s, struct fl_err *e)
{
    char path[PATH_MAX];

    s->at = s->durable = s->sequence = 0;
    if (s->mark_fd >= 0) {
        close(s->mark_fd);
        s->mark_fd = -1;
        path_of(s, ".mark", path);
        int r = fl_file_remove(path, e);
        if (r < 0 || (r = fl_file_sync_dir(s->dir, e)) < 0) {
            s->broken = true;
            return r;
        }
    }
    return ftruncate(s->part_fd, 0) == 0 ? 0 : fail_io(s, "empty", e);
}

int fl_spool_open(const char *dir, const char *name, const struct fl_digest *digest, uint64_t size,
                  struct fl_spool **ret, uint64_t *ret_offset, struct fl_err *e)
{
    char path[PATH_MAX];
    struct stat st;
    int r;

    if (strlen(dir) + strlen(name) + sizeof "/.part" > PATH_MAX ||
        strlen(name) + sizeof ".part" > NAME_MAX || strchr(name, '/') || size > INT64_MAX) {
        return fl_fail(e, FL_R_STORE_IO, "a spool cannot be named %.60s/%.60s", dir, name);
    }
    size_t dir_size = strlen(dir) + 1, name_size = strlen(name) + 1;
    struct fl_spool *s = fl_try(1, sizeof *s + dir_size + name_size);
    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "no memory for a spool");
    }
    s->part_fd = s->mark_fd = -1;
    s->digest = *digest;
    s->size = size;
    s->dir = memcpy(s->text, dir, dir_size);
    s->name = memcpy(s->text + dir_size, name, name_size);

    path_of(s, ".part", path);
    s->part_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (s->part_fd < 0 || fstat(s->part_fd, &st) != 0) {
        r = fail_io(s, "open", e);
        goto fail;
    }
    path_of(s, ".mark", path);
    s->mark_fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (s->mark_fd < 0 && errno != ENOENT) {
        r = fail_io(s, "open the mark of", e);
        goto fail;
    }
    if (s->mark_fd >= 0 && mark_read(s) && s->durable <= (uint64_t)st.st_size) {
        s->at = s->durable;
        r = ftruncate(s->part_fd, (off_t)s->at) == 0 ? 0 : fail_io(s, "cut", e);
    } else {
        r = s->mark_fd >= 0 || st.st_size > 0 ? start_over(s, e) : 0;
    }
    if (r < 0) {
        goto fail;
    }
    *ret = s;
    *ret_offset = s->at;
    return 0;
fail:
    fl_spool_close(s);
    return r;
}

static int refuse_broken(const struct fl_spool *s, struct fl_err *e)
{
    return fl_fail(e, FL_R_STORE_IO, "%s/%s failed before; not touched again", s->dir, s->name);
}

int fl_spool_write(struct fl_spool *s, uint64_t offset, const uint8_t *data, size_t size,
                   struct fl_err *e)
{
    if (s->broken) {
        return refuse_broken(s, e);
    }
    if (offset != s->at || size > s->size - s->at) {
        return fl_fail(e, FL_R_OFFSET,
                       "%s: %zu bytes at offset %llu, but %llu of %llu bytes are there", s->name,
                       size, (unsigned long long)offset, (unsigned long long)s->at,
                       (unsigned long long)s->size);
    }
    if (pwrite_all(s->part_fd, data, size, offset) != 0) {
        return fail_io(s, "write", e);
    }
    s->at += size;
    return s->at - s->durable >= FL_SPOOL_MARK_EVERY && s->at < s->size ? fl_spool_sync(s, e) : 0;
}

int fl_spool_sync(struct fl_spool *s, struct fl_err *e)
{
    if (s->broken) {
        return refuse_broken(s, e);
    }
    if (s->at == s->durable) {
        return 0;
    }
    if (fdatasync(s->part_fd) != 0) {
        return fail_io(s, "sync", e);
    }
    return mark_write(s, e);
}

static int check_digest(struct fl_spool *s, struct fl_err *e)
{
    struct fl_hash h;
    struct fl_digest got;
    uint8_t *tile = fl_try(TILE, 1);

    if (!tile) {
        return fl_fail(e, FL_R_NOMEM, "no memory to check %s", s->name);
    }
    fl_hash_init(&h);
    for (uint64_t at = 0; at < s->size;) {
        ssize_t n = pread(s->part_fd, tile, TILE, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n < 0 ? errno : EIO;
            fl_free(tile);
            return fail_io(s, "read back", e);
        }
        fl_hash_add(&h, tile, (size_t)n);
        at += (uint64_t)n;
    }
    fl_free(tile);
    fl_hash_end(&h, &got);
    if (!fl_digest_equal(&got, &s->digest)) {
        int r = start_over(s, e);
        return r < 0 ? r
                     : fl_fail(e, FL_R_UPDATE_DIGEST, "%s: %llu bytes do not match their digest",
                               s->name, (unsigned long long)s->size);
    }
    return 0;
}

int fl_spool_seal(struct fl_spool *s, struct fl_err *e)
{
    char part[PATH_MAX], whole[PATH_MAX], mark[PATH_MAX];
    int r;

    if (s->broken) {
        return refuse_broken(s, e);
    }
    if (s->at != s->size) {
        return fl_fail(e, FL_R_OFFSET, "%s: sealed with %llu of %llu bytes", s->name,
                       (unsigned long long)s->at, (unsigned long long)s->size);
    }
    if ((r = check_digest(s, e)) < 0) {
        return r;
    }
    FL_CRASH_POINT("spool-seal-before");
    if (fsync(s->part_fd) != 0) {
        return fail_io(s, "sync", e);
    }
    FL_CRASH_POINT("spool-seal-synced");
    path_of(s, ".part", part);
    path_of(s, "", whole);
    path_of(s, ".mark", mark);
    if (rename(part, whole) != 0) {
        return fail_io(s, "rename", e);
    }
    FL_CRASH_POINT("spool-seal-renamed");
    s->durable = s->at;
    if ((s->mark_fd >= 0 && (r = fl_file_remove(mark, e)) < 0) ||
        (r = fl_file_sync_dir(s->dir, e)) < 0) {
        s->broken = true;
        return r;
    }
    FL_CRASH_POINT("spool-seal-after");
    return 0;
}

void fl_spool_close(struct fl_spool *s)
{
    if (!s) {
        return;
    }
    if (!s->broken && s->at != s->durable) {
        fl_spool_sync(s, NULL); /* if it fails, the mark still says what is true */
    }
    if (s->mark_fd >= 0) {
        close(s->mark_fd);
    }
    if (s->part_fd >= 0) {
        close(s->part_fd);
    }
    fl_free(s);
}
