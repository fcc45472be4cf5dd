/*
 * What an agent trains on: examples as floats, in two parts that never share an example. They are
 * in memory, or stay in a file and are read as they are needed (data larger than memory); whoever
 * trains asks fl_examples_get and need not know.
 */
#ifndef CLIENT_DATA_DATASET_H
#define CLIENT_DATA_DATASET_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct fl_stored; /* examples that stay in a file */

/* Either y or target is there: classes, or numbers to predict. Class numbers and targets are always
 * in memory. */
struct fl_examples {
    uint32_t count;
    float *x;              /* count * features, raw values scaled to [0, 1] for images; the plan's
                              mean and std are applied by the trainer's copy. NULL when stored */
    int32_t *y;            /* count class numbers; NULL when there are targets */
    float *target;         /* count * target_width; NULL when there are classes */
    uint32_t target_width; /* values of one target; 0 when there are classes */
    size_t x_mapped;       /* bytes of x that are a mapped file, 0 = memory */
    struct fl_stored *stored;
    /* How one of them is read: -FL_R_DATA_OPEN, -FL_R_DATA_TRUNCATED (the file changed). From any
     * thread. */
    int (*read)(const struct fl_stored *from, size_t i, float *to, struct fl_err *e);
};

/* The features of example i (below count) at `to`, wherever they are. */
static inline int fl_examples_get(const struct fl_examples *from, size_t features, size_t i,
                                  float *to, struct fl_err *e)
{
    if (from->stored) {
        return from->read(from->stored, i, to, e);
    }
    memcpy(to, from->x + i * features, features * sizeof *to);
    return 0;
}

struct fl_dataset {
    uint32_t shape[3]; /* of one example: channels, height, width */
    uint32_t classes;  /* 0: the target is a number */
    struct fl_examples train, test;
    struct fl_examples validation; /* of the training rows, and never trained on; may be empty */
    bool by_place;                 /* fl_dataset_by_place of its source */
    float *rows;                   /* what windows overlap in; NULL without them */
    size_t rows_mapped, rows_held; /* bytes of it in a file, and in memory */
    struct fl_digest digest;       /* of all that training sees: forbids the reuse of a seed */
    struct fl_digest identity;     /* of this site's rows in its training files, as they stand: the
                                      data set's version in the ledger. Who changes the test part, a
                                      job's schema, sizes or seeds spends of the same budget */
};

enum fl_data_format {
    FL_DATA_IDX,
    FL_DATA_CSV, /* with the job's schema where it has one */
    FL_DATA_CIFAR10,
    FL_DATA_CIFAR100, /* fine labels */
    FL_DATA_NPY,
    FL_DATA_PROGRAM, /* only the site's trainer program reads them: no examples here */
};
enum { FL_DATA_RENAMES_MAX = 32 };
enum fl_partition {
    FL_PARTITION_ALL,
    FL_PARTITION_COLUMN,       /* csv: a column of client numbers */
    FL_PARTITION_FILE,         /* not csv: one byte per training example */
    FL_PARTITION_DIRICHLET,    /* per class shares drawn from Dirichlet(alpha), seed in the
                                  configuration */
    FL_PARTITION_PATHOLOGICAL, /* 20 % over all classes, 80 % over the group's dominant ones
                                  (HyperFL) */
};

/* What decides which of a site's rows train, validate and test. */
enum fl_deal {
    FL_DEAL_PLACED, /* their places in the file, and the seed: exact numbers; one row less, and
                       others change parts */
    FL_DEAL_HASHED, /* a keyed hash of the row itself: parts of about the size that is wanted; a row
                       more or less changes no other's part, and equal rows are in the same one */
    FL_DEAL_UNSAID, /* of a configuration: which of the two is settled when the agent opens its
                       folder (client/rows.h), before anything is read */
};

struct fl_schema;

struct fl_data_source {
    enum fl_data_format format;
    char train_x[512], train_y[512]; /* idx, npy: examples and labels; csv: train_x is the file;
                                        cifar: file or folder of the archive */
    char test_x[512], test_y[512];   /* empty: `test` examples are taken from the training files,
                                        apart from `train` */
    char clients[512];               /* FL_PARTITION_FILE */
    char target[64], column[64];     /* csv: names of the class column and of the client column */
    enum fl_partition partition;
    uint32_t client, of; /* this agent is number `client` of `of` */
    double alpha;
    uint64_t seed;
    uint32_t train, test; /* examples of each part; 0 = all there are */
    uint32_t dealt; /* pathological, disjoint: training examples that are dealt to every site, of
                       which this one takes `train`; 0 = so many */
    unsigned deal;  /* enum fl_deal */
    double train_part, test_part; /* hashed: below 1, of all rows; 0 = all there are */
    struct fl_seed role_key;      /* hashed: a secret of the site */
    double validation; /* below 1: such a part, else so many, are taken out of the training rows */
    uint32_t classes;  /* 0: as many as there are, or the target is a number */
    char client_text[64]; /* csv with a schema, partition column: what the column says in this
                             agent's rows (client is then any number) */
    uint32_t rename_count;
    struct {
        char job[64], site[64]; /* a column of the job's schema, and its name in the file */
    } rename[FL_DATA_RENAMES_MAX];
    const struct fl_schema *schema; /* of the job; NULL or count 0: none */
    char version[64]; /* FL_DATA_PROGRAM: what the site calls this state of its data */
    uint64_t memory; /* bytes: a larger part stays in its file, or in one in `scratch`; 0 = never */
    char scratch[512]; /* folder */
    bool disjoint;     /* pathological: no example at two clients (default); false = the published
                          wrap-around */
};

/* Errors name file, and row or byte: FL_R_DATA_*. */
int fl_dataset_load(const struct fl_data_source *source, struct fl_dataset *ret, struct fl_err *e);
void fl_dataset_fini(struct fl_dataset *d);

/* Can one row more or less change what is done with another of this site? */
bool fl_dataset_by_place(const struct fl_data_source *source);
/* Is something cut from its rows, by their hashes? */
bool fl_dataset_hashed(const struct fl_data_source *source);
/* Do deal, partition and sizes fit each other? -FL_R_CONF_CONFLICT, -FL_R_CONF_RANGE. */
int fl_dataset_deal(const struct fl_data_source *source, struct fl_err *e);

/* A batch of this size can be filled: -FL_R_DATA_BATCH. */
int fl_dataset_batch(const struct fl_dataset *d, uint32_t batch, struct fl_err *e);

/* "1x28x28, 10 classes, digest 3f2a...; train 80: 2 2 18 ...; test 240: ..." in one line of at most
 * `size` bytes: counts of each class. Stays at the site. */
void fl_dataset_describe(const struct fl_dataset *d, char *ret, size_t size);

#endif
