/* Inside bubbles.c and bubbles_published.c: the dendrogram, which both cut by rules of their own.
 */
#ifndef SERVER_STRATEGY_BUBBLES_IN_H
#define SERVER_STRATEGY_BUBBLES_IN_H

#include "server/strategy/bubbles.h"

#include <stddef.h>

struct fl_bubbles_merge {
    uint32_t a, b; /* the lowest sites of the two clusters, a < b */
    float height;
};

/* Memory of one search, reused by every draw of the noise. */
struct fl_bubbles_work {
    uint32_t sites, length;
    float *distance, *scratch; /* the triangle, and a copy that clustering uses up */
    double *noised;
    struct fl_bubbles_merge *merges;
    uint32_t *chain, *size, *root, *other;
};

/* False when memory ended; fini it all the same. */
bool fl_bubbles_work_init(struct fl_bubbles_work *w, uint32_t sites, uint32_t length);
void fl_bubbles_work_fini(struct fl_bubbles_work *w);

/* Where the distance of two sites is in the triangle. */
static inline size_t fl_bubbles_pair(uint32_t i, uint32_t j)
{
    return i < j ? (size_t)j * (j - 1) / 2 + i : (size_t)i * (i - 1) / 2 + j;
}

/* Fills w->merges from w->scratch; w->sites is at least 2. */
void fl_bubbles_cluster(struct fl_bubbles_work *w);
/* The first n - k merges of the dendrogram, then those that a cluster below min_size needs to be
 * with its parent. of[] gets numbers in the order of the lowest site. Returns how many clusters. */
uint32_t fl_bubbles_cut(struct fl_bubbles_work *w, uint32_t k, uint32_t min_size, uint32_t *of,
                        uint32_t *ret_moved);

#endif
