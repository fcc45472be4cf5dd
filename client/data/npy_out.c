#include "client/data/npy_out.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/base/reasons.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

enum { HEAD = 128, PATH_MAX_ = 1024, RANK_MAX = 4 };

struct out {
    FILE *f;
    const char *path;
};

static int failed(const struct out *o, struct fl_err *e)
{
    return fl_fail(e, errno == ENOSPC || errno == EDQUOT ? FL_R_DISK_FULL : FL_R_STORE_IO,
                   "write %s: %s", o->path, strerror(errno));
}

/* The header is padded to 128 bytes: a dictionary in the spelling of numpy.save. */
static int begin(struct out *o, const char *path, const char *type, uint32_t rank,
                 const uint32_t *shape, struct fl_err *e)
{
    char head[HEAD + 1], sizes[64] = "";
    size_t n = 0;

    for (uint32_t i = 0; i < rank; i++) {
        n += (size_t)snprintf(sizes + n, sizeof sizes - n, i ? ", %u" : "%u", shape[i]);
    }
    n = (size_t)snprintf(head + 10, HEAD - 10,
                         "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", type, sizes,
                         rank == 1 ? "," : "");
    memset(head + 10 + n, ' ', HEAD - 10 - n);
    memcpy(head, "\x93NUMPY\x01\0\x76\0", 10);
    head[HEAD - 1] = '\n';
    o->path = path;
    o->f = fopen(path, "wb");
    return o->f && fwrite(head, 1, HEAD, o->f) == HEAD ? 0 : failed(o, e);
}

static int put(struct out *o, const void *values, size_t count, struct fl_err *e)
{
    unsigned char bytes[4096];
    const unsigned char *from = values;

    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < sizeof bytes / 4 ? count - done : sizeof bytes / 4;
        for (size_t i = 0; i < n; i++) {
            uint32_t word;
            memcpy(&word, from + 4 * (done + i), 4);
            fl_put_u32(bytes + 4 * i, word);
        }
        if (fwrite(bytes, 4, n, o->f) != n) {
            return failed(o, e);
        }
    }
    return 0;
}

static int end(struct out *o, int r, struct fl_err *e)
{
    if (o->f && fclose(o->f) != 0 && r == 0) {
        r = failed(o, e);
    }
    return r;
}

int fl_npy_save(const char *path, const char *type, uint32_t rank, const uint32_t *shape,
                const void *values, struct fl_err *e)
{
    struct out o = {0};
    size_t count = 1;

    assert(rank <= RANK_MAX);
    for (uint32_t i = 0; i < rank; i++) {
        count *= shape[i];
    }
    int r = begin(&o, path, type, rank, shape, e);
    return end(&o, r ? r : put(&o, values, count, e), e);
}

static int save_x(const char *path, const struct fl_dataset *d, const struct fl_examples *part,
                  struct fl_err *e)
{
    const uint32_t shape[4] = {part->count, d->shape[0], d->shape[1], d->shape[2]};
    size_t features = (size_t)d->shape[0] * d->shape[1] * d->shape[2];
    float *x = fl_try(features, sizeof *x);
    struct out o = {0};

    int r = x ? begin(&o, path, "<f4", d->shape[1] * d->shape[2] == 1 ? 2 : 4, shape, e)
              : fl_fail(e, FL_R_NOMEM, "%s: out of memory", path);
    for (size_t i = 0; r == 0 && i < part->count; i++) {
        r = fl_examples_get(part, features, i, x, e);
        r = r ? r : put(&o, x, features, e);
    }
    fl_free(x);
    return end(&o, r, e);
}

int fl_npy_save_dataset(const char *folder, const char *name, const struct fl_dataset *d,
                        struct fl_err *e)
{
    static const char *const words[] = {"train", "validation", "test"};
    const struct fl_examples *parts[] = {&d->train, &d->validation, &d->test};
    char path[PATH_MAX_];
    int r = 0;

    for (size_t i = 0; r == 0 && i < FL_COUNT(parts); i++) {
        const struct fl_examples *p = parts[i];
        const uint32_t shape[2] = {p->count, p->target_width};
        if (p->count == 0) {
            continue;
        }
        if (snprintf(path, sizeof path, "%s/%s-%s-x.npy", folder, name, words[i]) >=
            (int)sizeof path) {
            return fl_fail(e, FL_R_ARG, "%s: too long a path", folder);
        }
        r = save_x(path, d, p, e);
        path[strlen(path) - 5] = 'y';
        if (r == 0) {
            r = p->y ? fl_npy_save(path, "<i4", 1, shape, p->y, e)
                     : fl_npy_save(path, "<f4", 2, shape, p->target, e);
        }
    }
    return r;
}
