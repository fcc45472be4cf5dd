#include "server/objects.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

struct fl_object {
    atomic_uint refs;
    struct fl_digest digest;
    uint64_t size;
    int fd; /* -1: in memory */
    uint8_t *memory;
};

struct fl_object *fl_object_from_memory(const void *data, size_t size, struct fl_err *e)
{
    struct fl_object *o = fl_try(1, sizeof *o);
    uint8_t *copy = fl_try(size, 1);
    if (!o || !copy) {
        fl_free(o);
        fl_free(copy);
        fl_fail(e, FL_R_NOMEM, "an object of %zu bytes", size);
        return NULL;
    }
    memcpy(copy, data, size);
    atomic_init(&o->refs, 1);
    fl_digest_of(data, size, &o->digest);
    o->size = size;
    o->fd = -1;
    o->memory = copy;
    return o;
}

static int verify_bytes(struct fl_object *o, const char *path, struct fl_err *e)
{
    enum { TILE = 256 * 1024 };
    struct fl_hash h;
    struct fl_digest found;
    int r = 0;
    uint8_t *tile = fl_try(TILE, 1);
    if (!tile) {
        return fl_fail(e, FL_R_NOMEM, "a tile to verify %s", path);
    }
    fl_hash_init(&h);
    for (uint64_t at = 0; r == 0 && at < o->size; at += TILE) {
        size_t n = o->size - at < TILE ? (size_t)(o->size - at) : TILE;
        r = fl_object_read(o, at, tile, n, e);
        fl_hash_add(&h, tile, n);
    }
    fl_hash_end(&h, &found);
    fl_free(tile);
    if (r == 0 && !fl_digest_equal(&found, &o->digest)) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "%s: the model's bytes do not match their digest",
                    path);
    }
    return r;
}

int fl_object_from_file(const char *path, uint64_t size, const struct fl_digest *digest,
                        bool verify, struct fl_object **ret, struct fl_err *e)
{
    struct fl_object *o = fl_try(1, sizeof *o);
    if (!o) {
        return fl_fail(e, FL_R_NOMEM, "%s", path);
    }
    atomic_init(&o->refs, 1);
    o->digest = *digest;
    o->size = size;
    o->fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = o->fd < 0 ? fl_fail_sys(e, FL_R_STORE_IO, errno, "open %s", path) : 0;
    if (r == 0 && verify) {
        r = verify_bytes(o, path, e);
    }
    if (r) {
        fl_object_unref(o);
        return r;
    }
    *ret = o;
    return 0;
}

struct fl_object *fl_object_ref(struct fl_object *o)
{
    atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    return o;
}

void fl_object_unref(struct fl_object *o)
{
    if (!o || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (o->fd >= 0) {
        close(o->fd);
    }
    fl_free(o->memory);
    fl_free(o);
}

uint64_t fl_object_size(const struct fl_object *o)
{
    return o->size;
}

const struct fl_digest *fl_object_digest(const struct fl_object *o)
{
    return &o->digest;
}

int fl_object_read(void *object, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct fl_object *o = object;
    if (offset > o->size || size > o->size - offset) {
        return fl_fail(e, FL_R_OFFSET, "%zu bytes at %llu of an object of %llu", size,
                       (unsigned long long)offset, (unsigned long long)o->size);
    }
    if (o->fd < 0) {
        memcpy(to, o->memory + offset, size);
        return 0;
    }
    while (size) {
        ssize_t n = pread(o->fd, to, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fl_fail_sys(e, FL_R_STORE_IO, errno, "read a checkpoint");
        }
        if (n == 0) {
            return fl_fail(e, FL_R_STORE_IO, "a checkpoint ended early");
        }
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}
