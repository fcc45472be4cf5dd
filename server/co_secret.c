/*
 * The coordinator's secret: 32 bytes of the kernel in STATE/noise.key, made once. The noise that it
 * adds to sums is keyed by them (strategy/sumnoise.h); whoever reads them, or the checkpoints
 * beside them, can take that noise off again.
 */
#include "common/io/file.h"
#include "server/co.h"

#include "common/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int co_secret_open(struct co *co, struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX + 16];
    uint8_t *bytes = NULL;
    size_t size = 0;
    int r;

    snprintf(path, sizeof path, "%s/noise.key", fl_store_dir(co->store));
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        r = fl_entropy(co->secret.bytes, FL_SEED_SIZE, e);
        return r ? r : fl_file_replace(path, co->secret.bytes, FL_SEED_SIZE, 0600, e);
    }
    r = fl_file_check_private(path, FL_R_FILE_MODE, e);
    r = r ? r : fl_file_read(path, FL_SEED_SIZE, &bytes, &size, e);
    if (r == 0 && size != FL_SEED_SIZE) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "%s: %zu bytes, not %d", path, size, FL_SEED_SIZE);
    }
    if (r == 0) {
        memcpy(co->secret.bytes, bytes, FL_SEED_SIZE);
    }
    if (bytes) {
        explicit_bzero(bytes, size);
    }
    fl_free(bytes);
    return r;
}

void co_secret_of(const struct co *co, const uint8_t incarnation[FL_INCARNATION_SIZE],
                  struct fl_seed *ret)
{
    struct fl_seed half;
    uint64_t part[2];

    memcpy(part, incarnation, sizeof part);
    fl_seed_derive(&co->secret, "incarnation", part[0], &half);
    fl_seed_derive(&half, "incarnation", part[1], ret);
    explicit_bzero(&half, sizeof half);
}
