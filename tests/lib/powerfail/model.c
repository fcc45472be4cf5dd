#include "tests/lib/powerfail/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const pf_mode_name[PF_MODES] = {"drop", "keep", "prefix", "subset", "meta"};

enum { SECTOR = 512 };

struct bytes {
    uint8_t *data;
    size_t size, room;
};

struct entry {
    char name[PF_NAME_MAX + 1];
    struct object *object;
};

struct entries {
    struct entry *item;
    size_t count;
};

/* Of a file: a write or (data NULL) a truncation to `offset`. Of a folder: `gone` vanishes, `name`
 * becomes `object`; either may be "". */
struct change {
    uint64_t offset;
    size_t size;
    uint8_t *data;
    bool lost; /* a sync after it failed: a later one does not make it durable */
    char gone[PF_NAME_MAX + 1], name[PF_NAME_MAX + 1];
    struct object *object;
};

struct object {
    uint64_t inode;
    bool folder;
    struct bytes live, durable;
    struct entries live_names, durable_names;
    struct change *pending;
    size_t count;
    struct object *next;
};

struct pf_model {
    struct object *root, *all; /* the newest object of an inode comes first */
};

static void fail(const char *what, const char *about)
{
    fprintf(stderr, "powerfail: %s: %s\n", what, about);
    exit(70);
}

static void *grow(void *p, size_t count, size_t size)
{
    p = realloc(p, count * size);
    if (!p) {
        fail("memory", "none left");
    }
    return p;
}

/* ---- bytes and names ---- */

static void bytes_resize(struct bytes *b, size_t size)
{
    if (size > b->room) {
        b->room = size * 3 / 2 + 4096;
        b->data = grow(b->data, b->room, 1);
    }
    if (size > b->size) {
        memset(b->data + b->size, 0, size - b->size);
    }
    b->size = size;
}

static void bytes_write(struct bytes *b, uint64_t offset, const uint8_t *data, size_t size)
{
    if (offset + size > b->size) {
        bytes_resize(b, offset + size);
    }
    memcpy(b->data + offset, data, size);
}

static void bytes_copy(struct bytes *to, const struct bytes *from)
{
    bytes_resize(to, from->size);
    if (from->size) {
        memcpy(to->data, from->data, from->size);
    }
}

static struct entry *names_find(const struct entries *n, const char *name)
{
    for (size_t i = 0; i < n->count; i++) {
        if (strcmp(n->item[i].name, name) == 0) {
            return &n->item[i];
        }
    }
    return NULL;
}

static void names_change(struct entries *n, const struct change *c)
{
    struct entry *e = c->gone[0] ? names_find(n, c->gone) : NULL;

    if (e) {
        *e = n->item[--n->count];
    }
    if (c->name[0]) {
        e = names_find(n, c->name);
        if (!e) {
            n->item = grow(n->item, n->count + 1, sizeof *n->item);
            e = &n->item[n->count++];
            memcpy(e->name, c->name, sizeof e->name);
        }
        e->object = c->object;
    }
}

static void names_copy(struct entries *to, const struct entries *from)
{
    to->item = grow(to->item, from->count + 1, sizeof *to->item);
    to->count = from->count;
    if (from->count) {
        memcpy(to->item, from->item, from->count * sizeof *to->item);
    }
}

/* ---- objects ---- */

static struct object *object_new(struct pf_model *m, uint64_t inode, bool folder)
{
    struct object *o = calloc(1, sizeof *o);

    if (!o) {
        fail("memory", "none left");
    }
    o->inode = inode;
    o->folder = folder;
    o->next = m->all;
    m->all = o;
    return o;
}

static struct object *find(const struct pf_model *m, uint64_t inode)
{
    for (struct object *o = m->all; o; o = o->next) {
        if (o->inode == inode) {
            return o;
        }
    }
    return NULL;
}

static struct object *need(const struct pf_model *m, uint64_t inode)
{
    struct object *o = find(m, inode);

    if (!o) {
        fail("journal", "an inode that was never made");
    }
    return o;
}

static struct change *pend(struct object *o, const struct change *c)
{
    o->pending = grow(o->pending, o->count + 1, sizeof *o->pending);
    o->pending[o->count] = *c;
    return &o->pending[o->count++];
}

static void pending_clear(struct object *o)
{
    for (size_t i = 0; i < o->count; i++) {
        free(o->pending[i].data);
    }
    o->count = 0;
}

struct pf_model *pf_model_new(uint64_t root_inode)
{
    struct pf_model *m = calloc(1, sizeof *m);

    if (!m) {
        fail("memory", "none left");
    }
    m->root = object_new(m, root_inode, true);
    return m;
}

void pf_model_free(struct pf_model *m)
{
    while (m && m->all) {
        struct object *o = m->all;
        m->all = o->next;
        pending_clear(o);
        free(o->pending);
        free(o->live.data);
        free(o->durable.data);
        free(o->live_names.item);
        free(o->durable_names.item);
        free(o);
    }
    free(m);
}

/* ---- replaying ---- */

static void set_name(char ret[PF_NAME_MAX + 1], const char *name)
{
    snprintf(ret, PF_NAME_MAX + 1, "%s", name);
}

static void rename_in(struct pf_model *m, const struct pf_record *r, const char *name,
                      const char *name2)
{
    struct object *from = need(m, r->parent), *to = need(m, r->parent2);
    struct entry *e = names_find(&from->live_names, name);
    struct change c = {0}, d = {0};

    if (!e) {
        fail("journal: a rename of what is not there", name);
    }
    c.object = e->object;
    set_name(c.name, name2);
    set_name(from == to ? c.gone : d.gone, name);
    pend(to, &c);
    names_change(&to->live_names, &c);
    if (from != to) {
        pend(from, &d);
        names_change(&from->live_names, &d);
    }
}

static void sync_object(struct object *o)
{
    if (o->folder) {
        for (size_t i = 0; i < o->count; i++) {
            names_change(&o->durable_names, &o->pending[i]);
        }
    }
    bool lost = false;
    for (size_t i = 0; i < o->count; i++) {
        lost |= o->pending[i].lost;
    }
    if (!o->folder && !lost) {
        bytes_copy(&o->durable, &o->live);
    }
    for (size_t i = 0; i < o->count && !o->folder && lost; i++) {
        const struct change *c = &o->pending[i];
        if (c->lost) {
            continue;
        }
        if (c->data) {
            bytes_write(&o->durable, c->offset, c->data, c->size);
        } else {
            bytes_resize(&o->durable, c->offset);
        }
    }
    pending_clear(o);
}

void pf_model_apply(struct pf_model *m, const struct pf_record *r, const char *name,
                    const char *name2, const uint8_t *data)
{
    struct change c = {.offset = r->offset, .size = r->size};
    struct object *o;

    switch ((enum pf_op)r->op) {
    case PF_CREATE:
    case PF_LINK:
        o = r->op == PF_CREATE ? object_new(m, r->inode, r->offset == 1) : need(m, r->inode);
        c.object = o;
        set_name(c.name, name);
        o = need(m, r->parent);
        pend(o, &c);
        names_change(&o->live_names, &c);
        break;
    case PF_UNLINK:
        o = need(m, r->parent);
        set_name(c.gone, name);
        pend(o, &c);
        names_change(&o->live_names, &c);
        break;
    case PF_RENAME:
        rename_in(m, r, name, name2);
        break;
    case PF_WRITE:
        o = need(m, r->inode);
        c.data = grow(NULL, r->size + 1, 1);
        memcpy(c.data, data, r->size);
        pend(o, &c);
        bytes_write(&o->live, r->offset, data, r->size);
        break;
    case PF_TRUNCATE:
        o = need(m, r->inode);
        pend(o, &c);
        bytes_resize(&o->live, r->offset);
        break;
    case PF_SYNC:
        sync_object(need(m, r->inode));
        break;
    case PF_SYNC_FAILED:
        o = need(m, r->inode);
        for (size_t i = 0; i < o->count && !o->folder; i++) {
            o->pending[i].lost = true;
        }
        break;
    case PF_NOTE:
        break;
    default:
        fail("journal", "an unknown operation");
    }
}

/* ---- rebuilding ---- */

/* splitmix64: every (seed, object, change) has its own stream. */
static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* How many of the changes of this object are considered, and how likely each is (of 256). */
static size_t considered(const struct object *o, enum pf_mode mode, uint64_t *rng)
{
    switch (mode) {
    case PF_DROP:
        return 0;
    case PF_PREFIX:
        return o->count ? mix(rng) % (o->count + 1) : 0;
    default:
        return o->count;
    }
}

static void torn_write(struct bytes *b, const struct change *c, uint64_t *rng)
{
    uint64_t odds = mix(rng) % 3; /* none, all or half of its sectors */

    for (uint64_t at = c->offset, end = c->offset + c->size; at < end;) {
        uint64_t next = (at / SECTOR + 1) * SECTOR;
        next = next < end ? next : end;
        if (odds == 1 || (odds == 2 && mix(rng) % 2)) {
            bytes_write(b, at, c->data + (at - c->offset), next - at);
        }
        at = next;
    }
}

static void surviving_bytes(const struct object *o, enum pf_mode mode, uint64_t rng,
                            struct bytes *ret)
{
    size_t n = considered(o, mode, &rng);

    bytes_copy(ret, &o->durable);
    for (size_t i = 0; i < n; i++) {
        const struct change *c = &o->pending[i];
        if (mode == PF_META) {
            continue;
        }
        if (!c->data) {
            if (mode != PF_SUBSET || mix(&rng) % 2) {
                bytes_resize(ret, c->offset);
            }
        } else if (mode == PF_SUBSET) {
            torn_write(ret, c, &rng);
        } else {
            bytes_write(ret, c->offset, c->data, c->size);
        }
    }
    if (mode == PF_META) {
        bytes_resize(ret, o->live.size);
    }
}

static void surviving_names(const struct object *o, enum pf_mode mode, uint64_t rng,
                            struct entries *ret)
{
    size_t n = considered(o, mode, &rng);

    names_copy(ret, &o->durable_names);
    for (size_t i = 0; i < n; i++) {
        if (mode != PF_SUBSET || mix(&rng) % 2) {
            names_change(ret, &o->pending[i]);
        }
    }
}

static void write_file(const char *path, const struct bytes *b)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t at = 0;

    while (fd >= 0 && at < b->size) {
        ssize_t n = write(fd, b->data + at, b->size - at);
        if (n <= 0) {
            fail(path, strerror(errno));
        }
        at += (size_t)n;
    }
    if (fd < 0 || close(fd) != 0) {
        fail(path, strerror(errno));
    }
}

static void rebuild(const struct object *o, enum pf_mode mode, uint64_t seed, const char *path)
{
    uint64_t rng = seed * 0x2545f4914f6cdd1du + o->inode;

    if (!o->folder) {
        struct bytes b = {0};
        surviving_bytes(o, mode, rng, &b);
        write_file(path, &b);
        free(b.data);
        return;
    }
    struct entries names = {0};
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        fail(path, strerror(errno));
    }
    surviving_names(o, mode, rng, &names);
    for (size_t i = 0; i < names.count; i++) {
        char sub[4096];
        if ((size_t)snprintf(sub, sizeof sub, "%s/%s", path, names.item[i].name) >= sizeof sub) {
            fail("a path is too long", path);
        }
        rebuild(names.item[i].object, mode, seed, sub);
    }
    free(names.item);
}

void pf_model_rebuild(const struct pf_model *m, enum pf_mode mode, uint64_t seed, const char *to)
{
    rebuild(m->root, mode, seed, to);
}

/* ---- reconciling ---- */

struct walk {
    const struct pf_model *m;
    void (*emit)(void *arg, const struct pf_record *r, const char *name, const uint8_t *data);
    void *arg;
};

static void differences(struct walk *w, const struct object *o, uint64_t inode, const char *path);

static void file_differences(struct walk *w, const struct object *o, uint64_t inode,
                             const char *path, size_t size)
{
    uint8_t *data = grow(NULL, size + 1, 1);
    size_t at = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    for (ssize_t n = 1; fd >= 0 && at < size && n > 0; at += (size_t)(n > 0 ? n : 0)) {
        n = read(fd, data + at, size - at);
    }
    if (fd < 0 || at != size) {
        fail(path, "cannot be read");
    }
    close(fd);
    if (!o || o->live.size != size || (size && memcmp(o->live.data, data, size) != 0)) {
        struct pf_record cut = {.op = PF_TRUNCATE, .inode = inode};
        w->emit(w->arg, &cut, NULL, NULL);
        struct pf_record all = {.op = PF_WRITE, .inode = inode, .size = size};
        if (size) {
            w->emit(w->arg, &all, NULL, data);
        }
    }
    free(data);
}

/* One name that is really there. */
static void entry_differences(struct walk *w, const struct object *o, uint64_t parent,
                              const char *path, const char *name)
{
    struct stat st;
    size_t n = strlen(name);

    if (lstat(path, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) ||
        (n > 4 && strcmp(name + n - 4, "-shm") == 0)) {
        return;
    }
    struct entry *e = o ? names_find(&o->live_names, name) : NULL;
    struct object *known = e && e->object->inode == st.st_ino ? e->object : NULL;
    if (!known) {
        if (e) {
            struct pf_record gone = {.op = PF_UNLINK, .parent = parent};
            w->emit(w->arg, &gone, name, NULL);
        }
        known = find(w->m, st.st_ino);
        if (known && known->folder != S_ISDIR(st.st_mode)) {
            known = NULL;
        }
        struct pf_record made = {.op = known ? PF_LINK : PF_CREATE,
                                 .inode = st.st_ino,
                                 .parent = parent,
                                 .offset = S_ISDIR(st.st_mode)};
        w->emit(w->arg, &made, name, NULL);
    }
    if (S_ISDIR(st.st_mode)) {
        differences(w, known, st.st_ino, path);
    } else {
        file_differences(w, known, st.st_ino, path, (size_t)st.st_size);
    }
}

static void differences(struct walk *w, const struct object *o, uint64_t inode, const char *path)
{
    char sub[4096];
    struct stat st;
    DIR *dir = opendir(path);

    if (!dir) {
        fail(path, strerror(errno));
    }
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) {
            continue;
        }
        if ((size_t)snprintf(sub, sizeof sub, "%s/%s", path, d->d_name) >= sizeof sub) {
            fail("a path is too long", path);
        }
        entry_differences(w, o, inode, sub, d->d_name);
    }
    closedir(dir);
    for (size_t i = 0; o && i < o->live_names.count; i++) {
        const char *name = o->live_names.item[i].name;
        if ((size_t)snprintf(sub, sizeof sub, "%s/%s", path, name) < sizeof sub &&
            lstat(sub, &st) != 0) {
            struct pf_record gone = {.op = PF_UNLINK, .parent = inode};
            w->emit(w->arg, &gone, name, NULL);
        }
    }
}

void pf_model_differences(const struct pf_model *m, const char *dir,
                          void (*emit)(void *arg, const struct pf_record *r, const char *name,
                                       const uint8_t *data),
                          void *arg)
{
    struct walk w = {m, emit, arg};

    differences(&w, m->root, m->root->inode, dir);
}
