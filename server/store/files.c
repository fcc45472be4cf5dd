#include "server/store/files.h"

#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Out of memory while adding is an error, not the end. */
#define HASH_NONFATAL_OOM        1
#define uthash_malloc(size)      fl_try(size, 1)
#define uthash_free(p, size)     fl_free(p)
#define uthash_nonfatal_oom(obj) ((obj)->lost = true)
#include <uthash.h>

enum { TILE = 1024 * 1024 };

struct fl_file_slot {
    struct fl_file_key key;
    struct fl_digest digest;
    uint64_t size;
    bool committed;
    bool retained; /* of a published round, to be replayed */
    bool lost;     /* no memory to enter it into the table */
    UT_hash_handle hh;
};

/* ---- names ---- */

struct fl_file_key fl_file_key(const uint8_t incarnation[FL_INCARNATION_SIZE], uint64_t round,
                               uint32_t exchange, uint64_t agent)
{
    struct fl_file_key key = {.round = round, .agent = agent, .exchange = exchange};

    memcpy(key.incarnation, incarnation, sizeof key.incarnation);
    return key;
}

static void hex_of(const uint8_t incarnation[FL_INCARNATION_SIZE],
                   char ret[2 * FL_INCARNATION_SIZE + 1])
{
    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        snprintf(ret + 2 * i, 3, "%02x", incarnation[i]);
    }
}

void fl_files_folder(const struct fl_files *f, const struct fl_file_key *key,
                     char ret[FL_STORE_PATH_MAX])
{
    char hex[2 * FL_INCARNATION_SIZE + 1];

    hex_of(key->incarnation, hex);
    if (key->exchange == FL_FILE_CHECKPOINT) {
        snprintf(ret, FL_STORE_PATH_MAX, "%s/models/%s", f->dir, hex);
    } else {
        snprintf(ret, FL_STORE_PATH_MAX, "%s/spool/%s/%llu-%u", f->dir, hex,
                 (unsigned long long)key->round, key->exchange);
    }
}

void fl_files_name(const struct fl_file_key *key, const struct fl_digest *digest,
                   char ret[FL_STORE_NAME_MAX])
{
    char hex[FL_DIGEST_HEX];

    fl_digest_hex(digest, hex);
    snprintf(ret, FL_STORE_NAME_MAX, "%llu-%s",
             (unsigned long long)(key->exchange == FL_FILE_CHECKPOINT ? key->round : key->agent),
             hex);
}

/* The folder's own length leaves room for every name; see FL_STORE_PATH_MAX. */
static void join(const char *folder, const char *name, const char *suffix,
                 char ret[FL_STORE_PATH_MAX])
{
    if ((size_t)snprintf(ret, FL_STORE_PATH_MAX, "%s/%s%s", folder, name, suffix) >=
        FL_STORE_PATH_MAX) {
        abort(); /* a name of ours grew */
    }
}

void fl_files_path(const struct fl_files *f, const struct fl_file_key *key,
                   const struct fl_digest *digest, char ret[FL_STORE_PATH_MAX])
{
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];

    fl_files_folder(f, key, folder);
    fl_files_name(key, digest, name);
    join(folder, name, "", ret);
}

int fl_files_ensure(struct fl_files *f, const struct fl_file_key *key, struct fl_err *e)
{
    char folder[FL_STORE_PATH_MAX], up[FL_STORE_PATH_MAX];
    int r;

    fl_files_folder(f, key, folder);
    for (uint32_t i = 0; i < FL_FILES_ENSURED; i++) {
        if (strcmp(f->ensured[i], folder) == 0) {
            return 0;
        }
    }
    if ((r = fl_file_make_dirs(folder, e)) != 0) {
        return r;
    }
    FL_CRASH_POINT("store-place-made");
    memcpy(up, folder, sizeof up);
    size_t root = strlen(f->dir);
    while (strlen(up) > root) {
        *strrchr(up, '/') = '\0';
        if ((r = fl_file_sync_dir(up, e)) != 0) {
            return r;
        }
    }
    memcpy(f->ensured[f->next_ensured++ % FL_FILES_ENSURED], folder, sizeof folder);
    return 0;
}

/* ---- slots ---- */

static struct fl_file_slot *slot_find(const struct fl_files *f, const struct fl_file_key *key)
{
    struct fl_file_slot *slot = NULL;

    HASH_FIND(hh, f->slots, key, sizeof *key, slot);
    return slot;
}

static bool is_upload(const struct fl_file_key *key)
{
    return key->exchange != FL_FILE_CHECKPOINT;
}

static void slot_free(struct fl_files *f, struct fl_file_slot *slot)
{
    f->bytes -= slot->size;
    f->uploads -= is_upload(&slot->key) && !slot->retained;
    HASH_DELETE(hh, f->slots, slot);
    fl_free(slot);
}

/* Best effort: what stays is swept at the next open. */
static void unlink_all(const struct fl_files *f, const struct fl_file_slot *slot)
{
    static const char *const suffix[] = {"", ".part", ".mark"};
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX], path[FL_STORE_PATH_MAX];

    fl_files_folder(f, &slot->key, folder);
    fl_files_name(&slot->key, &slot->digest, name);
    for (size_t i = 0; i < (is_upload(&slot->key) ? FL_COUNT(suffix) : 1); i++) {
        join(folder, name, suffix[i], path);
        unlink(path);
    }
}

int fl_files_room(const struct fl_files *f, uint64_t more, struct fl_err *e)
{
    if (f->limit && (f->bytes > f->limit || more > f->limit - f->bytes)) {
        return fl_fail(e, FL_R_QUOTA, "%llu bytes more than the %llu of %llu in use",
                       (unsigned long long)more, (unsigned long long)f->bytes,
                       (unsigned long long)f->limit);
    }
    return 0;
}

int fl_files_take(struct fl_files *f, const struct fl_file_key *key, const struct fl_digest *digest,
                  uint64_t size, bool forced, struct fl_err *e)
{
    struct fl_file_slot *slot = slot_find(f, key);
    int r;

    if (slot && fl_digest_equal(&slot->digest, digest)) {
        /* A part found at open counts what it has; now the whole is set aside. */
        if (!slot->committed && size > slot->size && !forced &&
            (r = fl_files_room(f, size - slot->size, e)) != 0) {
            return r;
        }
        if (!slot->committed) {
            f->bytes = f->bytes - slot->size + size;
            slot->size = size;
        }
        return 0;
    }
    if (slot && slot->committed) {
        return fl_fail(e, FL_R_UPDATE_CONFLICT, "%s", fl_reason_text(FL_R_UPDATE_CONFLICT));
    }
    if (slot) {
        unlink_all(f, slot);
        slot_free(f, slot);
    }
    if (!forced && is_upload(key) && f->uploads >= FL_STORE_UPLOADS_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%u uploads are open at once", f->uploads);
    }
    if (!forced && (r = fl_files_room(f, size, e)) != 0) {
        return r;
    }
    slot = fl_try(1, sizeof *slot);
    if (!slot) {
        return fl_fail(e, FL_R_NOMEM, "no memory for a file's record");
    }
    slot->key = *key;
    slot->digest = *digest;
    slot->size = size;
    HASH_ADD(hh, f->slots, key, sizeof slot->key, slot);
    if (slot->lost) {
        fl_free(slot);
        return fl_fail(e, FL_R_NOMEM, "no memory for a file's record");
    }
    f->bytes += size;
    f->uploads += is_upload(key);
    return 0;
}

void fl_files_committed(struct fl_files *f, const struct fl_file_key *key)
{
    struct fl_file_slot *slot = slot_find(f, key);

    if (slot) {
        slot->committed = true;
    }
}

bool fl_files_has(const struct fl_files *f, const struct fl_file_key *key,
                  const struct fl_digest *digest, bool *ret_committed, uint64_t *ret_size)
{
    struct fl_file_slot *slot = slot_find(f, key);

    if (!slot || !fl_digest_equal(&slot->digest, digest)) {
        return false;
    }
    *ret_committed = slot->committed;
    *ret_size = slot->size;
    return true;
}

void fl_files_drop(struct fl_files *f, const struct fl_file_key *key,
                   const struct fl_digest *digest)
{
    struct fl_file_slot *slot = slot_find(f, key);

    if (slot && !slot->committed && fl_digest_equal(&slot->digest, digest)) {
        unlink_all(f, slot);
        slot_free(f, slot);
    }
}

static void retain(struct fl_files *f, struct fl_file_slot *slot)
{
    f->uploads -= !slot->retained;
    slot->committed = slot->retained = true;
}

void fl_files_retained(struct fl_files *f, const struct fl_file_key *key)
{
    struct fl_file_slot *slot = slot_find(f, key);

    if (slot && is_upload(key)) {
        retain(f, slot);
    }
}

void fl_files_retain(struct fl_files *f, const uint8_t incarnation[FL_INCARNATION_SIZE],
                     uint64_t round)
{
    struct fl_file_slot *slot, *next;

    HASH_ITER(hh, f->slots, slot, next)
    {
        if (is_upload(&slot->key) && slot->committed && slot->key.round == round &&
            memcmp(slot->key.incarnation, incarnation, FL_INCARNATION_SIZE) == 0) {
            retain(f, slot);
        }
    }
}

void fl_files_remove(struct fl_files *f, const uint8_t incarnation[FL_INCARNATION_SIZE],
                     bool (*goes)(void *arg, const struct fl_file_key *key,
                                  const struct fl_digest *digest),
                     void *arg)
{
    struct fl_file_slot *slot, *next;
    char folder[FL_STORE_PATH_MAX];

    HASH_ITER(hh, f->slots, slot, next)
    {
        if (memcmp(slot->key.incarnation, incarnation, FL_INCARNATION_SIZE) != 0 ||
            !goes(arg, &slot->key, &slot->digest)) {
            continue;
        }
        unlink_all(f, slot);
        if (is_upload(&slot->key)) {
            fl_files_folder(f, &slot->key, folder);
            rmdir(folder); /* succeeds with the last file of it */
        }
        slot_free(f, slot);
    }
}

void fl_files_fini(struct fl_files *f)
{
    struct fl_file_slot *slot, *next;

    HASH_ITER(hh, f->slots, slot, next)
    {
        slot_free(f, slot);
    }
}

/* ---- bytes ---- */

int fl_files_has_size(const char *path, uint64_t size, struct fl_err *e)
{
    struct stat st;

    if (lstat(path, &st) != 0) {
        return fl_fail_sys(e, FL_R_STORE_MISMATCH, errno, "%s", path);
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "%s has %lld bytes, not %llu", path,
                       (long long)st.st_size, (unsigned long long)size);
    }
    return 0;
}

int fl_files_verify(const char *path, uint64_t size, const struct fl_digest *digest,
                    struct fl_err *e)
{
    struct fl_hash hash;
    struct fl_digest got;
    int r = fl_files_has_size(path, size, e);

    if (r != 0) {
        return r;
    }
    uint8_t *tile = fl_try(TILE, 1);
    if (!tile) {
        return fl_fail(e, FL_R_NOMEM, "no memory to check %s", path);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : 1;

    fl_hash_init(&hash);
    while (n > 0 || (n < 0 && fd >= 0 && errno == EINTR)) {
        n = read(fd, tile, TILE);
        if (n > 0) {
            fl_hash_add(&hash, tile, (size_t)n);
        }
    }
    if (n < 0) {
        r = fl_fail_sys(e, FL_R_STORE_MISMATCH, errno, "%s", path);
    } else {
        fl_hash_end(&hash, &got);
        if (!fl_digest_equal(&got, digest)) {
            r = fl_fail(e, FL_R_STORE_MISMATCH, "%s does not match its digest", path);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    fl_free(tile);
    return r;
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = write(fd, data + at, size - at);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int fl_files_write(const char *path, const struct fl_store_bytes *from, struct fl_digest *ret,
                   struct fl_err *e)
{
    struct fl_hash hash;
    uint8_t *tile = fl_try(TILE, 1);
    int r = tile ? fl_file_remove(path, e) : fl_fail(e, FL_R_NOMEM, "a tile");

    if (r != 0) {
        fl_free(tile);
        return r;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        fl_free(tile);
        return fl_fail_sys(e, fl_file_reason(errno), errno, "create %s", path);
    }
    fl_hash_init(&hash);
    for (uint64_t at = 0; at < from->size && r == 0; at += TILE) {
        size_t n = from->size - at < TILE ? (size_t)(from->size - at) : TILE;

        if ((r = from->read(from->arg, at, tile, n, e)) != 0) {
            break;
        }
        fl_hash_add(&hash, tile, n); /* while it is in the cache */
        if (write_all(fd, tile, n) != 0) {
            r = fl_fail_sys(e, fl_file_reason(errno), errno, "write %s", path);
        }
    }
    fl_free(tile);
    FL_CRASH_POINT("store-checkpoint-written");
    if (r == 0 && fsync(fd) != 0) {
        r = fl_fail_sys(e, FL_R_STORE_IO, errno, "sync %s", path);
    }
    if (close(fd) != 0 && r == 0) {
        r = fl_fail_sys(e, FL_R_STORE_IO, errno, "close %s", path);
    }
    if (r != 0) {
        unlink(path);
        return r;
    }
    fl_hash_end(&hash, ret);
    return 0;
}
