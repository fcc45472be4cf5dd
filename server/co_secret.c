/*
 * The coordinator's secret: 32 bytes of the kernel in STATE/noise.key, made once. The noise that it
 * adds to sums is keyed by them (strategy/sumnoise.h); whoever reads them, or the checkpoints
 * beside them, can take that noise off again.
 */
#include "common/io/file.h"
#include "server/co.h"

#include <stdio.h>
#include <string.h>

int co_secret_open(struct co *co, struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX + 16];

    snprintf(path, sizeof path, "%s/noise.key", fl_store_dir(co->store));
    return fl_file_secret(path, co->secret.bytes, FL_SEED_SIZE, e);
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
