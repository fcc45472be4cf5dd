/*
 * The sweep at open: whatever no record names goes. Publishing removes files after its transaction,
 * and a crash in between leaves them; uploads that were never committed, checkpoints whose round
 * was never recorded, and half-written ones are found here too. Only the parts of uploads that an
 * open exchange can still take are kept, since resuming them saves a site's bandwidth.
 *
 * Everything under spool/ and models/ is ours to remove; links are removed, never followed.
 */
#include "common/base/mem.h"
#include "common/io/file.h"
#include "server/store/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct sweep {
    struct fl_files *files;
    int (*wanted)(void *arg, const struct fl_file_key *key, struct fl_err *e);
    void *arg;
    bool models;
    bool known; /* the folders' names made sense: key is filled as far as they say */
    struct fl_file_key key;
};

/* What a walk does with one entry of a folder. */
typedef int visit_fn(struct sweep *s, int folder, const char *path, const char *name,
                     struct fl_err *e);

/* Visits every entry; a folder that is not there has none. */
static int walk(struct sweep *s, const char *path, visit_fn *visit, struct fl_err *e)
{
    int r = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir) {
        int why = errno;
        if (fd >= 0) {
            close(fd);
        }
        return why == ENOENT ? 0 : fl_fail_sys(e, FL_R_STORE_IO, why, "read folder %s", path);
    }
    while (r == 0) {
        errno = 0;
        struct dirent *d = readdir(dir);
        if (!d) {
            r = errno ? fl_fail_sys(e, FL_R_STORE_IO, errno, "read folder %s", path) : 0;
            break;
        }
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) {
            r = visit(s, fd, path, d->d_name, e);
        }
    }
    closedir(dir);
    return r;
}

/* A number in decimal, as we print it, then `end`; NULL when it is none. */
static const char *take_number(const char *at, char end, uint64_t *ret)
{
    char *stop;

    if (*at < '0' || *at > '9') {
        return NULL;
    }
    errno = 0;
    unsigned long long n = strtoull(at, &stop, 10);
    if (errno || *stop != end) {
        return NULL;
    }
    *ret = n;
    return end ? stop + 1 : stop;
}

/* "<number>-<digest><suffix>"; NULL or the suffix. */
static const char *take_name(const char *name, uint64_t *ret, struct fl_digest *ret_digest)
{
    char hex[FL_DIGEST_HEX];
    const char *at = take_number(name, '-', ret);

    if (!at || strlen(at) < FL_DIGEST_HEX - 1) {
        return NULL;
    }
    memcpy(hex, at, FL_DIGEST_HEX - 1);
    hex[FL_DIGEST_HEX - 1] = '\0';
    return fl_digest_from_hex(hex, ret_digest) ? at + FL_DIGEST_HEX - 1 : NULL;
}

static bool take_incarnation(const char *name, uint8_t ret[FL_INCARNATION_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    if (strlen(name) != 2 * (size_t)FL_INCARNATION_SIZE) {
        return false;
    }
    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        const char *high = strchr(digits, name[2 * i]);
        const char *low = strchr(digits, name[2 * i + 1]);
        if (!high || !low) {
            return false;
        }
        ret[i] = (uint8_t)((high - digits) * 16 + (low - digits));
    }
    return true;
}

/* 1 to keep the file, 0 to remove it. */
static int keeps(struct sweep *s, int folder, const char *name, struct fl_err *e)
{
    struct fl_file_key key = s->key;
    struct fl_digest digest;
    uint64_t number, size;
    bool committed;
    struct stat st;
    const char *suffix = s->known ? take_name(name, &number, &digest) : NULL;

    if (!suffix) {
        return 0;
    }
    if (s->models) {
        key.round = number;
        key.exchange = FL_FILE_CHECKPOINT;
    } else {
        key.agent = number;
    }
    if (*suffix == '\0') {
        return fl_files_has(s->files, &key, &digest, &committed, &size) && committed;
    }
    if (s->models || (strcmp(suffix, ".part") != 0 && strcmp(suffix, ".mark") != 0)) {
        return 0;
    }
    int r = s->wanted(s->arg, &key, e);
    if (r == 1 && strcmp(suffix, ".part") == 0) {
        if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) {
            return 0;
        }
        r = fl_files_take(s->files, &key, &digest, (uint64_t)st.st_size, true, e);
        r = r == 0 ? 1 : r;
    }
    return r;
}

static int visit_file(struct sweep *s, int folder, const char *path, const char *name,
                      struct fl_err *e)
{
    int r = keeps(s, folder, name, e);

    if (r != 0) {
        return r < 0 ? r : 0;
    }
    if (unlinkat(folder, name, 0) != 0 && errno != ENOENT && errno != EISDIR && errno != EPERM) {
        return fl_fail_sys(e, FL_R_STORE_IO, errno, "remove %s/%s", path, name);
    }
    return 0;
}

/* A folder goes in when it is one, is emptied, and goes when nothing stayed. */
static int visit_folder(struct sweep *s, int folder, const char *path, const char *name,
                        visit_fn *inside, struct fl_err *e)
{
    char sub[FL_STORE_PATH_MAX];
    struct stat st;

    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode) ||
        (size_t)snprintf(sub, sizeof sub, "%s/%s", path, name) >= sizeof sub) {
        unlinkat(folder, name, 0);
        return 0;
    }
    int r = walk(s, sub, inside, e);
    unlinkat(folder, name, AT_REMOVEDIR); /* refuses while something is in it */
    return r;
}

static int visit_round(struct sweep *s, int folder, const char *path, const char *name,
                       struct fl_err *e)
{
    bool known = s->known;
    uint64_t exchange = 0;
    const char *at = take_number(name, '-', &s->key.round);

    s->known = known && at && take_number(at, '\0', &exchange) && exchange < FL_FILE_CHECKPOINT;
    s->key.exchange = (uint32_t)exchange;
    int r = visit_folder(s, folder, path, name, visit_file, e);
    s->known = known;
    return r;
}

static int visit_job(struct sweep *s, int folder, const char *path, const char *name,
                     struct fl_err *e)
{
    s->key = (struct fl_file_key){0};
    s->known = take_incarnation(name, s->key.incarnation);
    return visit_folder(s, folder, path, name, s->models ? visit_file : visit_round, e);
}

int fl_files_sweep(struct fl_files *f,
                   int (*wanted)(void *arg, const struct fl_file_key *key, struct fl_err *e),
                   void *arg, struct fl_err *e)
{
    struct sweep s = {.files = f, .wanted = wanted, .arg = arg};
    char path[FL_STORE_PATH_MAX];

    snprintf(path, sizeof path, "%s/spool", f->dir);
    int r = walk(&s, path, visit_job, e);
    if (r == 0) {
        s.models = true;
        snprintf(path, sizeof path, "%s/models", f->dir);
        r = walk(&s, path, visit_job, e);
    }
    return r;
}
