#include "server/objects.h"

#include "common/base/mem.h"
#include "common/io/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

struct fl_object {
    atomic_uint refs;
    struct fl_digest digest;
    uint64_t size;
    int fd; /* -1: in memory, or a part of another */
    uint8_t *memory;
    struct fl_object *whole; /* a part: of this one, from there */
    uint64_t from;
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

int fl_object_from_file(const char *path, struct fl_object **ret, struct fl_err *e)
{
    struct fl_object *o = fl_try(1, sizeof *o);
    if (!o) {
        return fl_fail(e, FL_R_NOMEM, "%s", path);
    }
    atomic_init(&o->refs, 1);
    o->fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = o->fd < 0 ? -1 : lseek(o->fd, 0, SEEK_END);
    if (size < 0) {
        int r = fl_fail_sys(e, fl_file_reason(errno), errno, "open %s", path);
        fl_object_unref(o);
        return r;
    }
    o->size = (uint64_t)size;
    *ret = o;
    return 0;
}

struct fl_object *fl_object_part(struct fl_object *whole, uint64_t from, uint64_t size,
                                 const struct fl_digest *digest)
{
    struct fl_object *o = fl_try(1, sizeof *o);

    assert(from <= whole->size && size <= whole->size - from);
    if (o) {
        atomic_init(&o->refs, 1);
        o->digest = *digest;
        o->size = size;
        o->fd = -1;
        o->whole = fl_object_ref(whole);
        o->from = from;
    }
    return o;
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
    fl_object_unref(o->whole);
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
    if (o->whole) {
        return fl_object_read(o->whole, o->from + offset, to, size, e);
    }
    if (o->fd < 0) {
        memcpy(to, o->memory + offset, size);
        return 0;
    }
    return fl_file_read_at(o->fd, offset, to, size, e);
}
