/*
 * Agglomerative clustering with average linkage: at first every site is a cluster; again and again
 * the two nearest become one, whose distance to any other is the mean over their members
 * (Lance-Williams). "Nearest-neighbour chain": follow nearest neighbours until two are each
 * other's; they can be merged at once, since average linkage is reducible. O(n^2) in time and
 * memory. The merges, sorted by height, are the dendrogram; cutting its last K - 1 merges leaves K
 * clusters.
 *
 * Distances are non-negative floats of a triangle of pairs; ties go to the lower number, so that
 * the order of the sites decides and nothing else does.
 */
#include "server/strategy/bubbles_in.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- distances ---- */

/* Squared, less what noise of these standard deviations adds on average, not below 0. */
static void measure(const double *x, const double *sigma, double more, uint32_t sites,
                    uint32_t length, float *to)
{
    for (uint32_t j = 1; j < sites; j++) {
        for (uint32_t i = 0; i < j; i++) {
            const double *a = x + (size_t)i * length, *b = x + (size_t)j * length;
            double sum = 0;
            for (uint32_t k = 0; k < length; k++) {
                sum += (a[k] - b[k]) * (a[k] - b[k]);
            }
            sum -= more * length * (sigma[i] * sigma[i] + sigma[j] * sigma[j]);
            to[fl_bubbles_pair(i, j)] = sum > 0 ? (float)sum : 0;
        }
    }
}

/* ---- the dendrogram ---- */

static uint32_t nearest(const float *d, const uint32_t *size, uint32_t sites, uint32_t of,
                        uint32_t before)
{
    uint32_t best = before; /* of equals the one we came from, or the chain would not end */

    for (uint32_t k = 0; k < sites; k++) {
        if (k != of && size[k] &&
            (best == FL_BUBBLES_NEW || d[fl_bubbles_pair(of, k)] < d[fl_bubbles_pair(of, best)])) {
            best = k;
        }
    }
    return best;
}

/* Cluster b joins a: averages of distances. */
static void join(float *d, uint32_t *size, uint32_t sites, uint32_t a, uint32_t b)
{
    float na = (float)size[a], nb = (float)size[b];

    for (uint32_t k = 0; k < sites; k++) {
        if (k != a && k != b && size[k]) {
            d[fl_bubbles_pair(a, k)] =
                (na * d[fl_bubbles_pair(a, k)] + nb * d[fl_bubbles_pair(b, k)]) / (na + nb);
        }
    }
    size[a] += size[b];
    size[b] = 0;
}

static int by_height(const void *x, const void *y)
{
    const struct fl_bubbles_merge *a = x, *b = y;

    if (a->height != b->height) {
        return a->height < b->height ? -1 : 1;
    }
    return a->a != b->a ? (a->a < b->a ? -1 : 1) : a->b < b->b ? -1 : a->b > b->b;
}

void fl_bubbles_cluster(struct fl_bubbles_work *w)
{
    uint32_t n = w->sites, length = 0, done = 0;

    for (uint32_t i = 0; i < n; i++) {
        w->size[i] = 1;
    }
    while (done + 1 < n) {
        if (length == 0) {
            uint32_t first = 0;
            while (w->size[first] == 0) {
                first++;
            }
            w->chain[length++] = first;
        }
        uint32_t top = w->chain[length - 1];
        uint32_t before = length > 1 ? w->chain[length - 2] : FL_BUBBLES_NEW;
        uint32_t next = nearest(w->scratch, w->size, n, top, before);
        if (next != before) {
            w->chain[length++] = next;
            continue;
        }
        uint32_t a = top < next ? top : next, b = top < next ? next : top;
        w->merges[done++] = (struct fl_bubbles_merge){a, b, w->scratch[fl_bubbles_pair(a, b)]};
        join(w->scratch, w->size, n, a, b);
        length -= 2;
    }
    qsort(w->merges, n - 1, sizeof *w->merges, by_height);
}

static uint32_t root_of(uint32_t *root, uint32_t i)
{
    while (root[i] != i) {
        root[i] = root[root[i]];
        i = root[i];
    }
    return i;
}

uint32_t fl_bubbles_cut(struct fl_bubbles_work *w, uint32_t k, uint32_t min_size, uint32_t *of,
                        uint32_t *ret_moved)
{
    uint32_t n = w->sites, count = 0;
    uint32_t *size = w->size, *root = w->root;

    for (uint32_t i = 0; i < n; i++) {
        root[i] = i;
        size[i] = 1;
    }
    *ret_moved = 0;
    for (uint32_t m = 0; m + 1 < n; m++) {
        uint32_t a = root_of(root, w->merges[m].a), b = root_of(root, w->merges[m].b);
        bool small = size[a] < min_size || size[b] < min_size;
        if (m >= n - k && !small) {
            continue;
        }
        if (m >= n - k) {
            *ret_moved += size[a] < size[b] ? size[a] : size[b];
        }
        root[b > a ? b : a] = b > a ? a : b;
        size[b > a ? a : b] = size[a] + size[b];
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t r = root_of(root, i);
        of[i] = r == i ? count++ : of[r];
    }
    return count;
}

/* ---- how good it is ---- */

double fl_rand_index(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    double table[FL_BUBBLES_MAX][FL_BUBBLES_MAX] = {{0}}, rows[FL_BUBBLES_MAX] = {0};
    double columns[FL_BUBBLES_MAX] = {0}, both = 0, left = 0, right = 0;
    double all = (double)n * (n - 1.0) / 2;

    for (uint32_t i = 0; i < n; i++) {
        table[a[i]][b[i]]++;
        rows[a[i]]++;
        columns[b[i]]++;
    }
    for (int i = 0; i < FL_BUBBLES_MAX; i++) {
        left += rows[i] * (rows[i] - 1) / 2;
        right += columns[i] * (columns[i] - 1) / 2;
        for (int k = 0; k < FL_BUBBLES_MAX; k++) {
            both += table[i][k] * (table[i][k] - 1) / 2;
        }
    }
    double chance = all > 0 ? left * right / all : 0, most = (left + right) / 2;
    return most == chance ? 1 : (both - chance) / (most - chance);
}

/* Mean over sites of (b - a) / max(a, b): a the mean distance within, b to the nearest other
 * cluster. Distances, not their squares; 0 for a site that is alone. */
static double silhouette_of(const struct fl_bubbles_work *w, const uint32_t *of, uint32_t count)
{
    double total = 0;

    if (count < 2) {
        return 0;
    }
    for (uint32_t i = 0; i < w->sites; i++) {
        double sum[FL_BUBBLES_MAX] = {0}, nearest_other = INFINITY;
        uint32_t size[FL_BUBBLES_MAX] = {0};
        for (uint32_t k = 0; k < w->sites; k++) {
            if (k != i) {
                sum[of[k]] += sqrt((double)w->distance[fl_bubbles_pair(i, k)]);
                size[of[k]]++;
            }
        }
        for (uint32_t c = 0; c < count; c++) {
            if (c != of[i] && sum[c] / size[c] < nearest_other) {
                nearest_other = sum[c] / size[c];
            }
        }
        double within = size[of[i]] ? sum[of[i]] / size[of[i]] : nearest_other;
        double most = within > nearest_other ? within : nearest_other;
        total += most > 0 ? (nearest_other - within) / most : 0;
    }
    return total / w->sites;
}

/* ---- the choice ---- */

/* For every number of clusters the mean Rand index between the answer and those after the noise was
 * drawn once more, on top of what is there. */
static void stabilities(struct fl_bubbles_work *w, const struct fl_bubbles_conf *c, const double *x,
                        const double *sigma, uint32_t most, const struct fl_seed *seed,
                        const uint32_t *answers, double *ret)
{
    struct fl_seed own;
    struct fl_rng rng;
    uint32_t moved;

    fl_seed_derive(seed, "bubbles", 0, &own);
    fl_rng_init(&rng, &own, 0);
    for (uint32_t draw = 0; draw < c->draws; draw++) {
        for (uint32_t i = 0; i < w->sites; i++) {
            for (uint32_t k = 0; k < w->length; k++) {
                size_t at = (size_t)i * w->length + k;
                w->noised[at] = x[at] + sigma[i] * fl_rng_normal(&rng);
            }
        }
        measure(w->noised, sigma, 2, w->sites, w->length, w->scratch);
        fl_bubbles_cluster(w);
        for (uint32_t k = 2; k <= most; k++) {
            fl_bubbles_cut(w, k, c->min_size, w->other, &moved);
            ret[k] += fl_rand_index(answers + (size_t)k * w->sites, w->other, w->sites) / c->draws;
        }
    }
    fl_rng_fini(&rng);
}

/* Numbers as in the earlier answer, where bubbles overlap most; the rest take free numbers. Numbers
 * stay below FL_BUBBLES_MAX and are then made dense again in their order. */
static void keep_numbers(const uint32_t *before, uint32_t *of, uint32_t sites, uint32_t count)
{
    uint32_t overlap[FL_BUBBLES_MAX][FL_BUBBLES_MAX] = {{0}}, name[FL_BUBBLES_MAX];
    bool taken[FL_BUBBLES_MAX] = {false}, named[FL_BUBBLES_MAX] = {false};
    uint32_t dense[FL_BUBBLES_MAX], next = 0;

    for (uint32_t i = 0; i < sites; i++) {
        if (before[i] < FL_BUBBLES_MAX) {
            overlap[of[i]][before[i]]++;
        }
    }
    for (uint32_t round = 0; round < count; round++) {
        uint32_t bubble = FL_BUBBLES_NEW, old = 0, most = 0;
        for (uint32_t b = 0; b < count; b++) {
            for (uint32_t o = 0; o < FL_BUBBLES_MAX && !named[b]; o++) {
                if (!taken[o] && overlap[b][o] > most) {
                    most = overlap[b][o];
                    bubble = b;
                    old = o;
                }
            }
        }
        if (bubble == FL_BUBBLES_NEW) { /* no overlap is left */
            for (bubble = 0; named[bubble]; bubble++) {
            }
            for (old = 0; taken[old]; old++) {
            }
        }
        name[bubble] = old;
        named[bubble] = taken[old] = true;
    }
    for (uint32_t o = 0; o < FL_BUBBLES_MAX; o++) {
        dense[o] = taken[o] ? next++ : 0;
    }
    for (uint32_t i = 0; i < sites; i++) {
        of[i] = dense[name[of[i]]];
    }
}

/* The earlier answer for the sites of today: newcomers with their nearest site. False when there is
 * none, or a bubble of it is now too small. */
static bool earlier(const struct fl_bubbles_work *w, const uint32_t *before, uint32_t min_size,
                    uint32_t *of, uint32_t *ret_count)
{
    uint32_t size[FL_BUBBLES_MAX] = {0}, dense[FL_BUBBLES_MAX] = {0}, count = 0;

    for (uint32_t i = 0; before && i < w->sites; i++) {
        uint32_t from = i;
        for (uint32_t k = 0; before[i] >= FL_BUBBLES_MAX && k < w->sites; k++) {
            bool nearer = before[from] >= FL_BUBBLES_MAX ||
                          (k != i && w->distance[fl_bubbles_pair(i, k)] <
                                         w->distance[fl_bubbles_pair(i, from)]);
            from = before[k] < FL_BUBBLES_MAX && nearer ? k : from;
        }
        if (before[from] >= FL_BUBBLES_MAX) {
            return false;
        }
        of[i] = before[from];
        size[of[i]]++;
    }
    for (uint32_t b = 0; before && b < FL_BUBBLES_MAX; b++) {
        if (size[b] && size[b] < min_size) {
            return false;
        }
        dense[b] = size[b] ? count++ : 0;
    }
    for (uint32_t i = 0; before && i < w->sites; i++) {
        of[i] = dense[of[i]];
    }
    *ret_count = count;
    return before != NULL;
}

static int check(const struct fl_bubbles_conf *c, const double *x, const double *sigma,
                 uint32_t sites, uint32_t length, struct fl_err *e)
{
    if (sites == 0 || sites > FL_BUBBLES_SITES_MAX || length == 0 ||
        length > FL_BUBBLES_LENGTH_MAX || c->most == 0 || c->most > FL_BUBBLES_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%u sites with descriptors of %u numbers, %u bubbles", sites,
                       length, c->most);
    }
    for (uint32_t i = 0; i < sites; i++) {
        bool finite = isfinite(sigma[i]) && sigma[i] >= 0;
        for (uint32_t k = 0; k < length && finite; k++) {
            finite = isfinite(x[(size_t)i * length + k]);
        }
        if (!finite) {
            return fl_fail(e, FL_R_NOT_FINITE, "the descriptor of site %u", i);
        }
    }
    return 0;
}

bool fl_bubbles_work_init(struct fl_bubbles_work *w, uint32_t sites, uint32_t length)
{
    size_t pairs = (size_t)sites * (sites - 1) / 2 + 1;

    *w = (struct fl_bubbles_work){.sites = sites, .length = length};
    w->distance = fl_try(pairs, sizeof *w->distance);
    w->scratch = fl_try(pairs, sizeof *w->scratch);
    w->noised = fl_try((size_t)sites * length, sizeof *w->noised);
    w->merges = fl_try(sites, sizeof *w->merges);
    w->chain = fl_try(sites, sizeof *w->chain);
    w->size = fl_try(sites, sizeof *w->size);
    w->root = fl_try(sites, sizeof *w->root);
    w->other = fl_try(sites, sizeof *w->other);
    return w->distance && w->scratch && w->noised && w->merges && w->chain && w->size && w->root &&
           w->other;
}

void fl_bubbles_work_fini(struct fl_bubbles_work *w)
{
    fl_free(w->distance);
    fl_free(w->scratch);
    fl_free(w->noised);
    fl_free(w->merges);
    fl_free(w->chain);
    fl_free(w->size);
    fl_free(w->root);
    fl_free(w->other);
}

/* The best number of clusters into ret, of answers[k] for k from 2 to most. */
static void choose(struct fl_bubbles_work *w, const struct fl_bubbles_conf *c,
                   const uint32_t *answers, const double *stable, const uint32_t *moved,
                   uint32_t most, struct fl_bubbles *ret)
{
    for (uint32_t k = 2; k <= most; k++) {
        const uint32_t *of = answers + (size_t)k * w->sites;
        uint32_t count = 0;
        for (uint32_t i = 0; i < w->sites; i++) {
            count = of[i] + 1 > count ? of[i] + 1 : count;
        }
        double s = silhouette_of(w, of, count);
        if (count > 1 && s >= c->silhouette && s > ret->silhouette &&
            (c->draws == 0 || stable[k] >= c->stability)) {
            memcpy(ret->of, of, w->sites * sizeof *of);
            ret->count = count;
            ret->silhouette = s;
            ret->stability = c->draws ? stable[k] : 1;
            ret->moved = moved[k];
        }
    }
}

/* From w->distance. answers: (most + 1) x sites, of which rows 2 to most are filled. */
static void search(struct fl_bubbles_work *w, const struct fl_bubbles_conf *c, const double *x,
                   const double *sigma, uint32_t most, const uint32_t *before,
                   const struct fl_seed *seed, uint32_t *answers, struct fl_bubbles *ret)
{
    double stable[FL_BUBBLES_MAX + 1] = {0};
    uint32_t moved[FL_BUBBLES_MAX + 1] = {0}, count = 0;

    memcpy(w->scratch, w->distance, (size_t)w->sites * (w->sites - 1) / 2 * sizeof *w->scratch);
    fl_bubbles_cluster(w);
    for (uint32_t k = 2; k <= most; k++) {
        fl_bubbles_cut(w, k, c->min_size, answers + (size_t)k * w->sites, &moved[k]);
    }
    stabilities(w, c, x, sigma, most, seed, answers, stable);
    choose(w, c, answers, stable, moved, most, ret);
    uint32_t *old = w->other;
    if (earlier(w, before, c->min_size, old, &count)) {
        double s = silhouette_of(w, old, count);
        if ((count == 1 || s >= c->silhouette) && s + c->hysteresis >= ret->silhouette &&
            !(count == 1 && ret->count > 1 && ret->silhouette > c->silhouette + c->hysteresis)) {
            memcpy(ret->of, old, w->sites * sizeof *old);
            ret->count = count;
            ret->silhouette = s;
            ret->kept = true;
            return;
        }
    }
    if (before) {
        keep_numbers(before, ret->of, w->sites, ret->count);
    }
}

/* x NULL: of `squared` distances in place of descriptors. */
static int find(const struct fl_bubbles_conf *conf, const double *x, const double *sigma,
                const float *squared, uint32_t sites, uint32_t length, const uint32_t *before,
                const struct fl_seed *seed, struct fl_bubbles *ret, struct fl_err *e)
{
    struct fl_bubbles_work w;
    int r = 0;
    uint32_t most = conf->most < sites ? conf->most : sites;
    uint32_t *answers = fl_try((size_t)(most + 1) * sites, sizeof *answers);

    *ret = (struct fl_bubbles){.count = 1, .stability = 1};
    ret->of = fl_try(sites, sizeof *ret->of);
    if (!fl_bubbles_work_init(&w, sites, length) || !answers || !ret->of) {
        r = fl_fail(e, FL_R_NOMEM, "distances between %u sites", sites);
        fl_bubbles_fini(ret);
    } else if (sites > 1) {
        if (x) {
            measure(x, sigma, 1, sites, length, w.distance);
        } else {
            memcpy(w.distance, squared, (size_t)sites * (sites - 1) / 2 * sizeof *squared);
        }
        search(&w, conf, x, sigma, most, before, seed, answers, ret);
    }
    fl_bubbles_work_fini(&w);
    fl_free(answers);
    return r;
}

int fl_bubbles_of_distances(const struct fl_bubbles_conf *conf, const float *squared,
                            uint32_t sites, struct fl_bubbles *ret, struct fl_err *e)
{
    struct fl_bubbles_conf own = *conf;
    struct fl_seed none = {{0}};

    own.draws = 0;
    if (sites == 0 || sites > FL_BUBBLES_SITES_MAX || own.most == 0 || own.most > FL_BUBBLES_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%u sites, %u bubbles", sites, own.most);
    }
    for (size_t i = 0; i < (size_t)sites * (sites - 1) / 2; i++) {
        if (!isfinite(squared[i]) || squared[i] < 0) {
            return fl_fail(e, FL_R_NOT_FINITE, "distance %zu", i);
        }
    }
    return find(&own, NULL, NULL, squared, sites, 1, NULL, &none, ret, e);
}

int fl_bubbles_find(const struct fl_bubbles_conf *conf, const double *descriptor,
                    const double *sigma, uint32_t sites, uint32_t length, const uint32_t *before,
                    const struct fl_seed *seed, struct fl_bubbles *ret, struct fl_err *e)
{
    int r = check(conf, descriptor, sigma, sites, length, e);

    return r ? r : find(conf, descriptor, sigma, NULL, sites, length, before, seed, ret, e);
}

void fl_bubbles_fini(struct fl_bubbles *b)
{
    fl_free(b->of);
    b->of = NULL;
}

uint32_t fl_bubbles_nearest(const struct fl_bubbles *b, const double *descriptor, uint32_t sites,
                            uint32_t length, const double *newcomer)
{
    double best = INFINITY;
    uint32_t nearest_one = 0;

    for (uint32_t c = 0; c < b->count; c++) {
        double far = 0;
        uint32_t members = 0;
        for (uint32_t i = 0; i < sites; i++) {
            members += b->of[i] == c;
        }
        for (uint32_t k = 0; k < length && members; k++) {
            double mean = 0;
            for (uint32_t i = 0; i < sites; i++) {
                mean += b->of[i] == c ? descriptor[(size_t)i * length + k] / members : 0;
            }
            far += (newcomer[k] - mean) * (newcomer[k] - mean);
        }
        if (members && far < best) {
            best = far;
            nearest_one = c;
        }
    }
    return nearest_one;
}
