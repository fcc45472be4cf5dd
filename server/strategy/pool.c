#include "server/strategy/pool.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int fl_pool_init(struct fl_pool *p, uint32_t updates, bool center, struct fl_err *e)
{
    size_t rows = updates + (size_t)center;

    *p = (struct fl_pool){.updates = updates, .points = updates, .center = center};
    p->gram = fl_try_aligned(rows * rows, sizeof *p->gram);
    p->weight = fl_try(rows, sizeof *p->weight);
    if (!p->gram || !p->weight) {
        fl_pool_fini(p);
        return fl_fail(e, FL_R_NOMEM, "inner products of %zu updates", rows);
    }
    return 0;
}

void fl_pool_fini(struct fl_pool *p)
{
    fl_free(p->gram);
    fl_free(p->mix);
    fl_free(p->heads);
    fl_free(p->weight);
    *p = (struct fl_pool){0};
}

/* Rounding may take a distance of two that are alike a little below zero. */
static double distance2(const double *gram, size_t rows, size_t i, size_t j)
{
    double d = gram[i * rows + i] + gram[j * rows + j] - 2 * gram[i * rows + j];

    return d > 0 ? d : 0;
}

/* ---- mixing ---- */

struct near {
    double distance;
    uint32_t index;
};

static int by_distance(const void *x, const void *y)
{
    const struct near *a = x, *b = y;

    if (a->distance != b->distance) {
        return a->distance < b->distance ? -1 : 1;
    }
    return a->index < b->index ? -1 : a->index > b->index;
}

/* factor[i] = min(1, clip / norm of update i). */
static void clip(const struct fl_pool *p, double bound, double *factor)
{
    size_t rows = p->updates + (size_t)p->center;

    for (uint32_t i = 0; i < p->updates; i++) {
        double norm = sqrt(p->gram[i * rows + i]);
        factor[i] = bound > 0 && norm > bound ? bound / norm : 1;
    }
}

uint32_t fl_pool_buckets(uint32_t *who, uint32_t count, uint32_t bucket, bool whole,
                         const struct fl_seed *seed, uint32_t *ret_bucket)
{
    uint32_t buckets = whole ? count / bucket : (count + bucket - 1) / bucket;
    struct fl_rng rng;

    fl_rng_init(&rng, seed, 0);
    fl_rng_shuffle(&rng, who, count);
    fl_rng_fini(&rng);
    for (uint32_t i = 0; i < count; i++) {
        ret_bucket[i] = i / bucket < buckets || buckets == 0 ? i / bucket : i % buckets;
    }
    return buckets;
}

/* Each point is the mean of a bucket of the updates `who`: their groups, or in an order drawn from
 * the seed. */
static int bucketing(struct fl_pool *p, uint32_t *who, uint32_t count, uint32_t bucket,
                     const uint32_t *group, const struct fl_seed *seed, struct fl_err *e)
{
    uint32_t *at = fl_try(count, sizeof *at), *size = fl_try(count, sizeof *size);

    if (!at || !size) {
        fl_free(at);
        fl_free(size);
        return fl_fail(e, FL_R_NOMEM, "buckets of %u updates", count);
    }
    if (group) {
        p->points = 0;
        for (uint32_t i = 0; i < count; i++) { /* numbered as they come */
            uint32_t same = 0;
            while (same < i && group[who[same]] != group[who[i]]) {
                same++;
            }
            at[i] = same < i ? at[same] : p->points++;
        }
    } else {
        p->points = fl_pool_buckets(who, count, bucket, false, seed, at);
    }
    for (uint32_t i = 0; i < count; i++) {
        size[at[i]]++;
    }
    for (uint32_t i = 0; i < count; i++) {
        p->mix[(size_t)at[i] * p->updates + who[i]] = 1.0 / size[at[i]];
    }
    fl_free(at);
    fl_free(size);
    return 0;
}

/* Each point is the mean of the count - f updates nearest to one of them, itself among them. */
static int nearest_neighbours(struct fl_pool *p, const uint32_t *who, uint32_t count,
                              const double *factor, uint32_t bad, struct fl_err *e)
{
    uint32_t kept = count > bad ? count - bad : 1;
    size_t rows = p->updates + (size_t)p->center;
    struct near *near = fl_try(count, sizeof *near);

    if (!near) {
        return fl_fail(e, FL_R_NOMEM, "the neighbours of %u updates", count);
    }
    for (uint32_t a = 0; a < count; a++) {
        size_t i = who[a];
        for (uint32_t b = 0; b < count; b++) {
            size_t j = who[b];
            double ii = factor[i] * factor[i] * p->gram[i * rows + i];
            double jj = factor[j] * factor[j] * p->gram[j * rows + j];
            double d = ii + jj - 2 * factor[i] * factor[j] * p->gram[i * rows + j];
            near[b] = (struct near){i == j || d < 0 ? 0 : d, who[b]};
        }
        qsort(near, count, sizeof *near, by_distance);
        for (uint32_t k = 0; k < kept; k++) {
            p->mix[(size_t)a * p->updates + near[k].index] = 1.0 / kept;
        }
    }
    fl_free(near);
    return 0;
}

static int mix(struct fl_pool *p, const struct fl_aggregate_conf *conf, const double *trust,
               const uint32_t *group, uint32_t *who, const double *factor,
               const struct fl_seed *seed, struct fl_err *e)
{
    uint32_t count = 0;
    int r = 0;

    for (uint32_t i = 0; i < p->updates; i++) {
        if (!trust || trust[i] > 0) {
            who[count++] = i;
        }
    }
    p->points = count;
    switch (conf->before) {
    case FL_AGGREGATE_AS_IS:
        for (uint32_t a = 0; a < count; a++) {
            p->mix[(size_t)a * p->updates + who[a]] = 1;
            p->heads[a] = trust ? trust[who[a]] : 1;
        }
        return 0;
    case FL_AGGREGATE_BUCKETING:
        r = bucketing(p, who, count, conf->bucket, group, seed, e);
        break;
    case FL_AGGREGATE_NEAREST:
        r = nearest_neighbours(p, who, count, factor, conf->byzantine, e);
        break;
    }
    if (r != 0) {
        return r;
    }
    for (uint32_t a = 0; a < p->points; a++) {
        p->heads[a] = 1;
    }
    return 0;
}

int fl_pool_mix(struct fl_pool *p, const struct fl_aggregate_conf *conf, const double *trust,
                const uint32_t *group, const struct fl_seed *seed, struct fl_err *e)
{
    uint32_t n = p->updates;

    if (conf->clip == 0 && conf->before == FL_AGGREGATE_AS_IS && !trust) {
        return 0;
    }
    p->mix = fl_try((size_t)n * n, sizeof *p->mix);
    p->heads = fl_try(n, sizeof *p->heads);
    double *factor = fl_try(n, sizeof *factor);
    uint32_t *who = fl_try(n, sizeof *who);
    int r =
        p->mix && p->heads && factor && who ? 0 : fl_fail(e, FL_R_NOMEM, "a mix of %u updates", n);
    if (r == 0) {
        clip(p, conf->clip, factor);
        r = mix(p, conf, trust, group, who, factor, seed, e);
    }
    for (size_t i = 0; r == 0 && i < (size_t)p->points * n; i++) {
        p->mix[i] *= factor[i % n];
    }
    fl_free(factor);
    fl_free(who);
    return r;
}

/* ---- votes ---- */

/* The points' own inner products, the center's last: mix * gram * mix^T. */
static double *points_gram(const struct fl_pool *p)
{
    uint32_t n = p->updates, m = p->points;
    size_t rows = n + (size_t)p->center, size = m + (size_t)p->center;
    double *half = fl_try(size * rows, sizeof *half), *ret = fl_try(size * size, sizeof *ret);

    for (size_t a = 0; half && ret && a < size; a++) { /* half = mix * gram */
        for (size_t i = 0; i < rows; i++) {
            double w = a == m ? i == n : i == n ? 0 : p->mix ? p->mix[a * n + i] : a == i;
            for (size_t j = 0; w != 0 && j < rows; j++) {
                half[a * rows + j] += w * p->gram[i * rows + j];
            }
        }
    }
    for (size_t a = 0; half && ret && a < size; a++) {
        for (size_t b = 0; b <= a; b++) {
            double sum = b == m ? half[a * rows + n] : 0;
            for (size_t j = 0; b < m && j < n; j++) {
                sum += half[a * rows + j] * (p->mix ? p->mix[b * n + j] : b == j);
            }
            ret[a * size + b] = ret[b * size + a] = sum;
        }
    }
    fl_free(half);
    if (!half) {
        fl_free(ret);
        return NULL;
    }
    return ret;
}

/* Scores: the sum of squared distances to the m - f - 1 nearest others. The `chosen` lowest share
 * the weight. */
static int krum(const double *gram, size_t size, uint32_t m, uint32_t bad, uint32_t chosen,
                double *weight, struct fl_err *e)
{
    struct near *near = fl_try(m, sizeof *near), *score = fl_try(m, sizeof *score);
    int r = near && score ? 0 : fl_fail(e, FL_R_NOMEM, "scores of %u updates", m);

    for (uint32_t i = 0; r == 0 && i < m; i++) {
        for (uint32_t j = 0; j < m; j++) { /* itself comes last, and is not counted */
            near[j] = (struct near){i == j ? INFINITY : distance2(gram, size, i, j), j};
        }
        qsort(near, m, sizeof *near, by_distance);
        score[i].index = i;
        for (uint32_t k = 0; k < m - bad - 1; k++) {
            score[i].distance += near[k].distance;
        }
    }
    if (r == 0) {
        qsort(score, m, sizeof *score, by_distance);
        for (uint32_t k = 0; k < chosen; k++) {
            weight[score[k].index] = 1.0 / chosen;
        }
    }
    fl_free(near);
    fl_free(score);
    return r;
}

/* to[i] = distance of point i from the weighted sum. */
static void distances(const double *gram, size_t size, uint32_t m, const double *weight, double *to)
{
    double own = 0;

    for (size_t i = 0; i < size; i++) {
        double with = 0;
        for (size_t j = 0; j < size; j++) {
            with += gram[i * size + j] * weight[j];
        }
        own += weight[i] * with;
        if (i < m) {
            to[i] = with;
        }
    }
    for (uint32_t i = 0; i < m; i++) {
        double d = gram[i * size + i] - 2 * to[i] + own;
        to[i] = d > 0 ? sqrt(d) : 0;
    }
}

static int ascending(const void *x, const void *y)
{
    const double *a = x, *b = y;

    return (*a > *b) - (*a < *b);
}

/* The mean of points clipped to their median norm. Not zero, where points that are nothing would
 * stand at no distance at all; nor the mean, which one huge point takes so far away that the
 * iterations end before it is back. */
static void clipped_start(const double *gram, size_t size, uint32_t m, double *weight,
                          double *scratch)
{
    for (uint32_t i = 0; i < m; i++) {
        scratch[i] = sqrt(gram[i * size + i]);
    }
    qsort(scratch, m, sizeof *scratch, ascending);
    double bound = scratch[(m - 1) / 2];
    for (uint32_t i = 0; i < m; i++) {
        double norm = sqrt(gram[i * size + i]);
        weight[i] = (norm > bound ? bound / norm : 1) / m;
    }
}

/* Weiszfeld's iteration, smoothed: weights 1 / max(smoothing, distance). */
static void geometric_median(const double *gram, size_t size, uint32_t m,
                             const struct fl_aggregate_conf *conf, double *weight, double *far)
{
    if (conf->start == FL_AGGREGATE_START_CLIPPED) {
        clipped_start(gram, size, m, weight, far);
    }
    for (uint32_t round = 0; round < conf->iterations; round++) {
        double sum = 0;
        distances(gram, size, m, weight, far);
        for (uint32_t i = 0; i < m; i++) {
            weight[i] = 1 / (far[i] > conf->smoothing ? far[i] : conf->smoothing);
            sum += weight[i];
        }
        for (uint32_t i = 0; i < m; i++) {
            weight[i] /= sum;
        }
    }
}

/* v += mean (x_i - v) min(1, radius / |x_i - v|), from the center, or from zero. */
static void centered_clipping(const double *gram, size_t size, uint32_t m,
                              const struct fl_aggregate_conf *conf, double *weight, double *far)
{
    if (size > m) {
        weight[m] = 1;
    }
    for (uint32_t round = 0; round < conf->iterations; round++) {
        double sum = 0;
        distances(gram, size, m, weight, far);
        for (uint32_t i = 0; i < m; i++) {
            far[i] = (far[i] > conf->radius ? conf->radius / far[i] : 1) / m;
            sum += far[i];
        }
        for (size_t i = 0; i < size; i++) {
            weight[i] = (1 - sum) * weight[i] + (i < m ? far[i] : 0);
        }
    }
}

bool fl_pool_votes(const struct fl_aggregate_conf *conf)
{
    return conf->rule != FL_AGGREGATE_MEDIAN && conf->rule != FL_AGGREGATE_TRIMMED_MEAN &&
           conf->rule != FL_AGGREGATE_PCB;
}

/* p->weight = the points' weights times mix. */
static void spread(struct fl_pool *p, const double *weight)
{
    uint32_t n = p->updates, m = p->points;

    memset(p->weight, 0, (n + (size_t)p->center) * sizeof *p->weight);
    for (uint32_t a = 0; a < m; a++) {
        for (uint32_t i = 0; i < n; i++) {
            p->weight[i] += weight[a] * (p->mix ? p->mix[(size_t)a * n + i] : a == i);
        }
    }
    if (p->center) {
        p->weight[n] = weight[m];
    }
}

int fl_pool_vote(struct fl_pool *p, const struct fl_aggregate_conf *conf, struct fl_err *e)
{
    uint32_t m = p->points, bad = conf->byzantine;
    size_t size = m + (size_t)p->center;
    bool krums = conf->rule == FL_AGGREGATE_KRUM || conf->rule == FL_AGGREGATE_MULTI_KRUM;
    int r = 0;

    if (krums && bad > 0 && m < 2 * bad + 3) {
        return fl_fail(e, FL_R_LIMIT, "%u points, %u of which may be bad", m, bad);
    }
    double *gram = points_gram(p), *weight = fl_try(size, sizeof *weight),
           *far = fl_try(m, sizeof *far);
    if (!gram || !weight || !far) {
        r = fl_fail(e, FL_R_NOMEM, "distances of %u updates", m);
    } else if (krums) {
        uint32_t chosen = conf->rule == FL_AGGREGATE_KRUM ? 1 : m - bad;
        r = krum(gram, size, m, bad, chosen, weight, e);
    } else if (conf->rule == FL_AGGREGATE_GEOMETRIC_MEDIAN) {
        geometric_median(gram, size, m, conf, weight, far);
    } else if (conf->rule == FL_AGGREGATE_CENTERED_CLIPPING) {
        centered_clipping(gram, size, m, conf, weight, far);
    } else {
        double sum = 0;
        for (uint32_t i = 0; i < m; i++) {
            sum += p->heads ? p->heads[i] : 1;
        }
        for (uint32_t i = 0; i < m; i++) {
            weight[i] = (p->heads ? p->heads[i] : 1) / sum;
        }
    }
    if (r == 0) {
        spread(p, weight);
    }
    fl_free(gram);
    fl_free(weight);
    fl_free(far);
    return r;
}
