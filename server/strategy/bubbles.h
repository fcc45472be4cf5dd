/*
 * Who belongs together: from one noised descriptor a site to clusters ("bubbles") of sites.
 *
 * PA-CFL (arXiv 2503.12220) clusters feature importances and picks the number of clusters by the
 * Davies-Bouldin index. What is changed here and why:
 *
 *   distance     feature by feature (squared L2), not between sorted values: (0.9, 0.1, 0) and (0,
 *                0.1, 0.9) are not alike. What the sites' own noise adds to it on average, d (s_i^2
 *                + s_j^2), is taken off again
 *   how many     one cluster is an answer. More are taken only if they are stable (the same sites
 *                stay together when the noise is drawn once more: adjusted Rand index) and real
 *                (mean silhouette; Rousseeuw 1987: below 0.5 the structure is weak)
 *   small ones   are no attackers: a cluster below the least size goes back to the one it parted
 *                from last (its parent in the dendrogram)
 *   again        a later clustering keeps the earlier answer unless the new one is clearly better,
 *                and keeps its numbers
 *
 * Everything here is post-processing of what the sites released. Pure: no clock, no files; the same
 * input gives the same answer.
 */
#ifndef SERVER_STRATEGY_BUBBLES_H
#define SERVER_STRATEGY_BUBBLES_H

#include "common/base/err.h"
#include "common/base/rng.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    FL_BUBBLES_SITES_MAX = 4096, /* distances of all pairs: 4 bytes each */
    FL_BUBBLES_LENGTH_MAX = 65536,
    FL_BUBBLES_MAX = 64,
    FL_BUBBLES_PUBLISHED_MOST = 10,
};

struct fl_bubbles_conf {
    uint32_t most;     /* bubbles at most, 1 to FL_BUBBLES_MAX */
    uint32_t min_size; /* sites of a bubble at least */
    uint32_t draws;    /* of the noise, for stability; 0 = stability is not asked for */
    double stability;  /* least mean adjusted Rand index, as 0.8 */
    double silhouette; /* least mean silhouette, as 0.5 */
    double hysteresis; /* a new answer must be better by this much silhouette, as 0.05 */
};

struct fl_bubbles {
    uint32_t count;    /* bubbles, at least 1 */
    uint32_t *of;      /* of[i]: 0 to count - 1, of site i; freed by fl_bubbles_fini */
    double silhouette; /* of this answer; 0 for one bubble */
    double stability;  /* likewise; 1 for one bubble */
    uint32_t moved;    /* sites that went back to their parent for being too few */
    bool kept;         /* the earlier answer stands */
};

/* descriptor: sites x length. sigma[i]: standard deviation of the noise in every number of site i's
 * (0 = none). before: the earlier answer for the same sites (before[i] < FL_BUBBLES_MAX, or
 * FL_BUBBLES_NEW for one that was not there), NULL for the first time. Errors: -FL_R_LIMIT,
 * -FL_R_NOT_FINITE naming the site, -FL_R_NOMEM. */
#define FL_BUBBLES_NEW UINT32_MAX
int fl_bubbles_find(const struct fl_bubbles_conf *conf, const double *descriptor,
                    const double *sigma, uint32_t sites, uint32_t length, const uint32_t *before,
                    const struct fl_seed *seed, struct fl_bubbles *ret, struct fl_err *e);
/* The same from squared distances, that of sites i < j at j (j - 1) / 2 + i; without noise or an
 * earlier answer. */
int fl_bubbles_of_distances(const struct fl_bubbles_conf *conf, const float *squared,
                            uint32_t sites, struct fl_bubbles *ret, struct fl_err *e);
/* As PA-CFL's code has it (bubbles_published.c): distances between sorted values, 2 to
 * FL_BUBBLES_PUBLISHED_MOST clusters (fewer than sites) by the Davies-Bouldin index; of 1 or 2
 * sites, one. Only `count` and `of` say something. Same errors. */
int fl_bubbles_published(const double *descriptor, uint32_t sites, uint32_t length,
                         struct fl_bubbles *ret, struct fl_err *e);
void fl_bubbles_fini(struct fl_bubbles *b);

/* The bubble whose mean descriptor is nearest to that of a newcomer. */
uint32_t fl_bubbles_nearest(const struct fl_bubbles *b, const double *descriptor, uint32_t sites,
                            uint32_t length, const double *newcomer);

/* Adjusted Rand index of two partitions of n (Hubert and Arabie 1985): 1 the same, about 0 by
 * chance. Numbers below FL_BUBBLES_MAX. */
double fl_rand_index(const uint32_t *a, const uint32_t *b, uint32_t n);

#endif
