/*
 * Bubbles as PA-CFL publishes them (arXiv 2503.12220), to the letter of its code and with all that
 * bubbles.h mends: the reference that the better answer is compared with.
 *
 * Sites are apart by the earth mover's distance between the sets of their values, which forgets
 * whose they are; average linkage; as many clusters as the Davies-Bouldin index is least for, one
 * not among them.
 */
#include "server/strategy/bubbles_in.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return a < b ? -1 : a > b;
}

/* (1 / d) sum_k |a_(k) - b_(k)| over order statistics, in w->distance. */
static void measure(struct fl_bubbles_work *w, const double *x)
{
    uint32_t n = w->sites, d = w->length;

    memcpy(w->noised, x, (size_t)n * d * sizeof *x);
    for (uint32_t i = 0; i < n; i++) {
        qsort(w->noised + (size_t)i * d, d, sizeof *w->noised, by_value);
    }
    for (uint32_t j = 1; j < n; j++) {
        for (uint32_t i = 0; i < j; i++) {
            double sum = 0;
            for (uint32_t k = 0; k < d; k++) {
                sum += fabs(w->noised[(size_t)i * d + k] - w->noised[(size_t)j * d + k]);
            }
            w->distance[fl_bubbles_pair(i, j)] = (float)(sum / d);
        }
    }
}

static double apart(const double *a, const double *b, uint32_t length)
{
    double sum = 0;

    for (uint32_t k = 0; k < length; k++) {
        sum += (a[k] - b[k]) * (a[k] - b[k]);
    }
    return sqrt(sum);
}

/* Davies and Bouldin 1979: the mean over clusters of the worst (s_a + s_b) / d_ab, s the mean
 * distance to the cluster's center, d_ab between centers. `center`: count x length. Equal centers
 * count as no worse than any (scikit-learn does so), and where all distances of one sort are 0 the
 * index is 0. */
static double davies_bouldin(const double *x, uint32_t sites, uint32_t length, const uint32_t *of,
                             uint32_t count, double *center)
{
    double scatter[FL_BUBBLES_PUBLISHED_MOST] = {0}, total = 0;
    uint32_t size[FL_BUBBLES_PUBLISHED_MOST] = {0};
    bool scattered = false, distant = false;

    memset(center, 0, (size_t)count * length * sizeof *center);
    for (uint32_t i = 0; i < sites; i++) {
        size[of[i]]++;
        for (uint32_t k = 0; k < length; k++) {
            center[(size_t)of[i] * length + k] += x[(size_t)i * length + k];
        }
    }
    for (size_t k = 0; k < (size_t)count * length; k++) {
        center[k] /= size[k / length];
    }
    for (uint32_t i = 0; i < sites; i++) {
        double far = apart(x + (size_t)i * length, center + (size_t)of[i] * length, length);
        scattered = scattered || far > 1e-8;
        scatter[of[i]] += far / size[of[i]];
    }
    for (uint32_t a = 0; a < count; a++) {
        double worst = 0;
        for (uint32_t b = 0; b < count; b++) {
            double d = apart(center + (size_t)a * length, center + (size_t)b * length, length);
            distant = distant || d > 1e-8;
            if (a != b && d > 0) {
                worst = fmax(worst, (scatter[a] + scatter[b]) / d);
            }
        }
        total += worst / count;
    }
    return scattered && distant ? total : 0;
}

/* The least index of 2 to `most` clusters, the lower number of equals, into ret->of. */
static void search(struct fl_bubbles_work *w, const double *x, uint32_t most, double *center,
                   struct fl_bubbles *ret)
{
    double least = INFINITY;
    uint32_t moved;

    measure(w, x);
    memcpy(w->scratch, w->distance, (size_t)w->sites * (w->sites - 1) / 2 * sizeof *w->scratch);
    fl_bubbles_cluster(w);
    for (uint32_t k = 2; k <= most; k++) {
        uint32_t count = fl_bubbles_cut(w, k, 1, w->other, &moved);
        double index = davies_bouldin(x, w->sites, w->length, w->other, count, center);
        if (index < least) {
            least = index;
            ret->count = count;
            memcpy(ret->of, w->other, w->sites * sizeof *ret->of);
        }
    }
}

int fl_bubbles_published(const double *x, uint32_t sites, uint32_t length, struct fl_bubbles *ret,
                         struct fl_err *e)
{
    struct fl_bubbles_work w;
    uint32_t most =
        sites <= FL_BUBBLES_PUBLISHED_MOST ? sites - 1 : (uint32_t)FL_BUBBLES_PUBLISHED_MOST;
    int r = 0;

    *ret = (struct fl_bubbles){.count = 1};
    if (sites == 0 || sites > FL_BUBBLES_SITES_MAX || length == 0 ||
        length > FL_BUBBLES_LENGTH_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%u sites with descriptors of %u numbers", sites, length);
    }
    for (size_t i = 0; i < (size_t)sites * length; i++) {
        if (!isfinite(x[i])) {
            return fl_fail(e, FL_R_NOT_FINITE, "the descriptor of site %zu", i / length);
        }
    }
    double *center = fl_try((size_t)FL_BUBBLES_PUBLISHED_MOST * length, sizeof *center);
    ret->of = fl_try(sites, sizeof *ret->of);
    if (!fl_bubbles_work_init(&w, sites, length) || !center || !ret->of) {
        r = fl_fail(e, FL_R_NOMEM, "distances between %u sites", sites);
        fl_bubbles_fini(ret);
    } else {
        search(&w, x, most, center, ret);
    }
    fl_bubbles_work_fini(&w);
    fl_free(center);
    return r;
}
