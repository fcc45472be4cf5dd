/*
 * The one mix that personalised strategies come down to: next = A W.
 *
 * W has a row for each member, the model that it trained; A is made by the strategy, a row for each
 * model that comes out, of weights that are not negative and add up to 1. FedAvg is a single row of
 * equal weights; FedAMP, FedFomo and bubbles are rows of their own; FedCAC blends, weight by weight
 * of the network, two rows by a mask:
 *
 *     next_i[k] = critical_i[k] ? sum_j A_ij W_j[k] : sum_j B_j W_j[k]
 *
 * with B the same for all (the global model). W is never in memory: it is read by tiles of some
 * thousand values over all rows, mixed and put, so memory is rows x tile however large a model is.
 * Sums are doubles, in ascending order of rows, each product rounded by itself, so what comes out
 * has the same bits whatever the tile, the machine or the order in which updates arrived.
 *
 * Cost: 2 x outs x rows x elements operations, less what is 0 in A, and one reading of W.
 */
#ifndef SERVER_STRATEGY_MIX_H
#define SERVER_STRATEGY_MIX_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    FL_MIX_ROWS_MAX = 4096,
    FL_MIX_MEMORY = 8 << 20, /* bytes of W at a time, about */
};
#define FL_MIX_PLAIN UINT32_MAX /* a model without a mask */

/* Where a value of a masked model comes from. */
enum {
    FL_MIX_COMMON, /* B */
    FL_MIX_OWN,    /* its row of A */
    FL_MIX_HOME,   /* neither: the row of W whose mask it is, as it is */
};

struct fl_mix {
    uint32_t rows, outs;  /* 1 to FL_MIX_ROWS_MAX; 1 and more */
    const double *a;      /* outs x rows */
    const double *b;      /* rows; NULL where every `mask` is FL_MIX_PLAIN */
    const uint32_t *mask; /* of each model that comes out: whose mask blends it (a row), or
                             FL_MIX_PLAIN; NULL: all plain */

    /* Values [first, first + count) of W's row, and for each one of the words above. `critical` is
     * NULL when nobody asks. first is a multiple of 64. */
    int (*row)(void *arg, uint32_t row, size_t first, size_t count, float *to, uint8_t *critical,
               struct fl_err *e);
    /* What came out; every value of every model once. `critical` is the mask that blended it, NULL
     * for a plain one. Values are the callee's to change. */
    int (*put)(void *arg, uint32_t out, size_t first, size_t count, float *values,
               const uint8_t *critical, struct fl_err *e);
    void *arg;
};

/* Values of a tile over so many rows: a multiple of 64. */
size_t fl_mix_tile(uint32_t rows);

/* -FL_R_INTERNAL: a row of A or B is not of weights that add up to 1. -FL_R_NOT_FINITE: a value
 * that came out. -FL_R_NOMEM, and what row and put say. */
int fl_mix(const struct fl_mix *m, size_t elements, struct fl_err *e);

#endif
