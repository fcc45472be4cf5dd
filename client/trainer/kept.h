/* What fixed layers make of a data set, kept from one training to the next: the features of an
 * example never change. */
#ifndef CLIENT_TRAINER_KEPT_H
#define CLIENT_TRAINER_KEPT_H

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <stddef.h>
#include <stdint.h>

struct fl_features {
    uint64_t most;        /* bytes that may be kept; more: computed for every batch. 0 = no limit */
    struct fl_digest key; /* of layers, normalisation and data */
    float *train, *test;  /* NULL: computed for every batch */
    size_t bytes;
};

/* Nothing is kept any more; it can be used again. */
static inline void fl_features_fini(struct fl_features *f)
{
    fl_free(f->train);
    fl_free(f->test);
    *f = (struct fl_features){.most = f->most};
}

#endif
