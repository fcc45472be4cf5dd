/*
 * SQLite on a bad day. A VFS around the default one that
 *
 *   - fails the n-th write, truncation or sync with "disk full" or "I/O error";
 *   - loses power: from that moment nothing is written, and fault_vfs_restore gives every file the
 *     content it had at its last sync, or (mixed) any of its 512-byte sectors from then or now;
 *   - has no shared memory, so that only exclusive locking can use a write-ahead log.
 *
 * And an allocator that fails at the n-th call. One thread; include in one file of a test.
 */
#ifndef TESTS_LIB_FAULT_VFS_H
#define TESTS_LIB_FAULT_VFS_H

#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum fault_vfs_kind { FAULT_VFS_FULL, FAULT_VFS_IO, FAULT_VFS_POWER };

enum { FAULT_VFS_FILES = 8, FAULT_VFS_SECTOR = 512 };

/* What is durable of one file. */
struct fault_track {
    char path[512];
    uint8_t *bytes;
    size_t size;
    bool exists, unlinked; /* unlinked: its folder was not synced since */
};

static struct {
    sqlite3_vfs vfs, *real;
    uint64_t fail_in;
    enum fault_vfs_kind kind;
    bool hit, tracking, dead;
    struct fault_track tracks[FAULT_VFS_FILES];
    uint32_t track_count;
} fault;

struct fault_file {
    sqlite3_file base;
    struct fault_track *track;
    sqlite3_file *real; /* in the bytes behind this struct */
};

static sqlite3_file *fault_real(sqlite3_file *f)
{
    return ((struct fault_file *)f)->real;
}

/* SQLITE_OK, or what this write or sync must answer. */
static inline int fault_step(int io_error)
{
    if (fault.fail_in && --fault.fail_in == 0) {
        fault.hit = true;
        if (fault.kind != FAULT_VFS_POWER) {
            return fault.kind == FAULT_VFS_FULL ? SQLITE_FULL : io_error;
        }
        fault.dead = true;
    }
    return fault.dead ? io_error : SQLITE_OK;
}

static inline void fault_remember(struct fault_track *t)
{
    int fd = open(t->path, O_RDONLY);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    free(t->bytes);
    t->bytes = NULL;
    t->size = 0;
    t->exists = size >= 0;
    if (size > 0) {
        t->bytes = malloc((size_t)size);
        t->size = (size_t)pread(fd, t->bytes, (size_t)size, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static struct fault_track *fault_track_of(const char *path)
{
    for (uint32_t i = 0; i < fault.track_count; i++) {
        if (strcmp(fault.tracks[i].path, path) == 0) {
            return &fault.tracks[i];
        }
    }
    if (!fault.tracking || fault.track_count == FAULT_VFS_FILES) {
        return NULL;
    }
    struct fault_track *t = &fault.tracks[fault.track_count++];
    memset(t, 0, sizeof *t);
    strncpy(t->path, path, sizeof t->path - 1);
    return t;
}

static inline int fault_close(sqlite3_file *f)
{
    return fault_real(f)->pMethods->xClose(fault_real(f));
}

static inline int fault_read(sqlite3_file *f, void *to, int size, sqlite3_int64 at)
{
    return fault_real(f)->pMethods->xRead(fault_real(f), to, size, at);
}

static inline int fault_write(sqlite3_file *f, const void *from, int size, sqlite3_int64 at)
{
    int rc = fault_step(SQLITE_IOERR_WRITE);
    return rc ? rc : fault_real(f)->pMethods->xWrite(fault_real(f), from, size, at);
}

static inline int fault_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    int rc = fault_step(SQLITE_IOERR_TRUNCATE);
    return rc ? rc : fault_real(f)->pMethods->xTruncate(fault_real(f), size);
}

static inline int fault_sync(sqlite3_file *f, int flags)
{
    struct fault_file *file = (struct fault_file *)f;
    int rc = fault_step(SQLITE_IOERR_FSYNC);

    (void)flags; /* the disk itself is not asked: this one loses power by calculation only */
    if (rc == SQLITE_OK && fault.tracking && file->track) {
        uint8_t *bytes = NULL;
        sqlite3_int64 size = 0;
        file->real->pMethods->xFileSize(file->real, &size);
        if (size) {
            bytes = malloc((size_t)size);
            file->real->pMethods->xRead(file->real, bytes, (int)size, 0);
        }
        /* The first sync of a new file is one of its folder, too. */
        for (uint32_t i = 0; !file->track->exists && i < fault.track_count; i++) {
            fault.tracks[i].exists = fault.tracks[i].exists && !fault.tracks[i].unlinked;
        }
        file->track->unlinked = false;
        free(file->track->bytes);
        file->track->bytes = bytes;
        file->track->size = (size_t)size;
        file->track->exists = true;
    }
    return rc;
}

static inline int fault_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    return fault_real(f)->pMethods->xFileSize(fault_real(f), ret);
}

static inline int fault_lock(sqlite3_file *f, int level)
{
    return fault_real(f)->pMethods->xLock(fault_real(f), level);
}

static inline int fault_unlock(sqlite3_file *f, int level)
{
    return fault_real(f)->pMethods->xUnlock(fault_real(f), level);
}

static inline int fault_reserved(sqlite3_file *f, int *ret)
{
    return fault_real(f)->pMethods->xCheckReservedLock(fault_real(f), ret);
}

static inline int fault_control(sqlite3_file *f, int op, void *arg)
{
    return fault_real(f)->pMethods->xFileControl(fault_real(f), op, arg);
}

static inline int fault_sector(sqlite3_file *f)
{
    (void)f;
    return FAULT_VFS_SECTOR;
}

static inline int fault_device(sqlite3_file *f)
{
    (void)f;
    return 0; /* promise nothing */
}

static const sqlite3_io_methods fault_methods = {
    .iVersion = 1,
    .xClose = fault_close,
    .xRead = fault_read,
    .xWrite = fault_write,
    .xTruncate = fault_truncate,
    .xSync = fault_sync,
    .xFileSize = fault_size,
    .xLock = fault_lock,
    .xUnlock = fault_unlock,
    .xCheckReservedLock = fault_reserved,
    .xFileControl = fault_control,
    .xSectorSize = fault_sector,
    .xDeviceCharacteristics = fault_device,
};

static inline int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags,
                             int *ret)
{
    struct fault_file *file = (struct fault_file *)f;
    bool was_tracked = false;
    int rc;

    (void)vfs;
    memset(file, 0, sizeof *file);
    file->real = (sqlite3_file *)(file + 1);
    if (name && fault.tracking) {
        uint32_t before = fault.track_count;
        file->track = fault_track_of(name);
        was_tracked = fault.track_count == before;
        if (file->track && !was_tracked) {
            fault_remember(file->track); /* before the open may create it */
        }
    }
    rc = fault.real->xOpen(fault.real, name, file->real, flags, ret);
    if (rc == SQLITE_OK) {
        file->base.pMethods = &fault_methods;
    }
    return rc;
}

static inline int fault_delete(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
    struct fault_track *t = fault.tracking ? fault_track_of(name) : NULL;
    int rc;

    (void)vfs;
    if (fault.dead) {
        return SQLITE_IOERR_DELETE;
    }
    rc = fault.real->xDelete(fault.real, name, sync_folder);
    if (rc == SQLITE_OK && t) {
        t->unlinked = true;
        t->exists = t->exists && !sync_folder;
    }
    return rc;
}

static inline void fault_vfs_register(void)
{
    if (sqlite3_vfs_find(NULL) == &fault.vfs) {
        return;
    }
    fault.real = sqlite3_vfs_find(NULL);
    fault.vfs = *fault.real;
    fault.vfs.zName = "fault";
    fault.vfs.szOsFile = (int)sizeof(struct fault_file) + fault.real->szOsFile;
    fault.vfs.xOpen = fault_open;
    fault.vfs.xDelete = fault_delete;
    sqlite3_vfs_register(&fault.vfs, 1);
}

static inline void fault_vfs_fail_at(uint64_t nth, enum fault_vfs_kind kind)
{
    fault.fail_in = nth;
    fault.kind = kind;
    fault.hit = false;
}

static inline bool fault_vfs_hit(void)
{
    return fault.hit;
}

/* From now on it is remembered what is durable; files opened later only. */
static inline void fault_vfs_power_on(void)
{
    fault.tracking = true;
    fault.dead = false;
}

static inline void fault_vfs_power_off(void)
{
    fault.dead = true;
}

/* After everything is closed: the disk as the next boot finds it. *random (may be NULL: nothing
 * that was not synced is there) picks sectors. */
static inline void fault_vfs_restore(uint64_t *random)
{
    for (uint32_t i = 0; i < fault.track_count; i++) {
        struct fault_track *t = &fault.tracks[i], now = {.exists = false};
        strncpy(now.path, t->path, sizeof now.path - 1);
        fault_remember(&now);
        size_t size = t->size;
        if (random && now.exists && now.size > size) {
            size = now.size;
        }
        unlink(t->path);
        if (t->exists) {
            int fd = open(t->path, O_RDWR | O_CREAT, 0600);
            for (size_t at = 0; at < size; at += FAULT_VFS_SECTOR) {
                const struct fault_track *from = t;
                if (random) {
                    *random = *random * 6364136223846793005u + 1442695040888963407u;
                    from = *random >> 63 ? t : &now;
                }
                size_t n = at < from->size ? from->size - at : 0;
                n = n < FAULT_VFS_SECTOR ? n : FAULT_VFS_SECTOR;
                if (n && pwrite(fd, from->bytes + at, n, (off_t)at) != (ssize_t)n) {
                    abort();
                }
            }
            close(fd);
        }
        free(now.bytes);
        free(t->bytes);
        t->bytes = NULL;
    }
    fault.track_count = 0;
    fault.tracking = fault.dead = false;
}

/* ---- memory ---- */

static struct {
    sqlite3_mem_methods real;
    uint64_t fail_in;
    bool hit;
} fault_memory;

static inline bool fault_memory_refuses(void)
{
    if (fault_memory.fail_in && --fault_memory.fail_in == 0) {
        fault_memory.hit = true;
        return true;
    }
    return false;
}

static void *fault_malloc(int size)
{
    return fault_memory_refuses() ? NULL : fault_memory.real.xMalloc(size);
}

static void *fault_realloc(void *p, int size)
{
    return fault_memory_refuses() ? NULL : fault_memory.real.xRealloc(p, size);
}

/* No connection may be open. */
static inline void fault_memory_install(void)
{
    sqlite3_mem_methods m;

    sqlite3_shutdown();
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &fault_memory.real);
    m = fault_memory.real;
    m.xMalloc = fault_malloc;
    m.xRealloc = fault_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &m);
    sqlite3_initialize();
}

static inline void fault_memory_remove(void)
{
    sqlite3_shutdown();
    sqlite3_config(SQLITE_CONFIG_MALLOC, &fault_memory.real);
    sqlite3_initialize();
}

static inline void fault_memory_fail_at(uint64_t nth)
{
    fault_memory.fail_in = nth;
    fault_memory.hit = false;
}

static inline bool fault_memory_hit(void)
{
    return fault_memory.hit;
}

#endif
