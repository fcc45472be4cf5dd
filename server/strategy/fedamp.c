/*
 * FedAMP (Huang et al., "Personalized Cross-Silo Federated Learning on Non-IID Data", AAAI 2021,
 * arXiv 2007.03797): an agent's next model is a mean of all that were trained, in which those near
 * to its own count most.
 *
 *     u_i = xi_ii w_i + sum_{j != i} xi_ij w_j
 *
 * Published: xi_ij = alpha A'(|w_i - w_j|^2) = alpha / sigma exp(-|w_i - w_j|^2 / sigma), and xi_ii
 * what is left to 1. alpha and sigma are in the units of the model's weights, so they have to be
 * found for each network; where the others would get more than 1 together they get 1, and the agent
 * nothing (the published code goes below 0).
 *
 * By default weights are of no unit: the agent keeps `self`, and the others share the rest in
 * proportion to
 *
 *     exp(-|w_i - w_j|^2 / (sigma D_i)),    D_i = mean over j != i of |w_i - w_j|^2
 *
 * as the paper's own heuristic variant fixes xi_ii and takes a softmax, there of cosines, which are
 * all near 1 for models that came from one.
 *
 * An agent trains what it is given, pulled towards it (mu, which is the paper's lambda / alpha).
 * Members of the round are mixed with each other; who is away keeps its model.
 */
#include "server/strategy/fedamp.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "server/strategy/personal.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

FL_VECTOR static double squared_distance(const float *x, const float *y, size_t count)
{
    double lane[LANES] = {0}, sum = 0;
    size_t at = 0;

    for (; count - at >= LANES; at += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            double d = (double)x[at + k] - (double)y[at + k];
            lane[k] += d * d;
        }
    }
    for (size_t k = 0; k < LANES; k++) {
        sum += lane[k];
    }
    for (; at < count; at++) {
        double d = (double)x[at] - (double)y[at];
        sum += d * d;
    }
    return sum;
}

/* distance[i * rows + j] += of all that were trained. */
static int measure(const struct fl_rows *rows, double *distance, struct fl_err *e)
{
    size_t n = rows->count, tile = fl_mix_tile(rows->count);
    float *w = fl_try_aligned(n * tile, sizeof *w);
    int r = w ? 0 : fl_fail(e, FL_R_NOMEM, "a tile of %zu models", n);

    for (size_t first = 0; r == 0 && first < rows->s->elements; first += tile) {
        size_t left = rows->s->elements - first, count = left < tile ? left : tile;
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            if (rows->at[i].update) {
                r = fl_rows_read(rows, i, first, count, NULL, w + i * tile, e);
            }
        }
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            for (uint32_t j = 0; j < i && rows->at[i].update; j++) {
                if (rows->at[j].update) {
                    distance[i * n + j] += squared_distance(w + i * tile, w + j * tile, count);
                    distance[j * n + i] = distance[i * n + j];
                }
            }
        }
    }
    fl_free(w);
    return r;
}

/* The weights of one row, from its distances; 0 for those who are not there, and for itself. */
static void weigh_row(const struct fl_rows *rows, uint32_t i, const double *distance, double *row)
{
    const struct fl_fedamp_conf *c = &rows->s->setting.fedamp;
    bool published = c->variant == FL_PERSONAL_PUBLISHED;
    double sum = 0, mean = 0, others = rows->fresh - 1.0;

    for (uint32_t j = 0; j < rows->count; j++) {
        mean += distance[j] / others;
    }
    for (uint32_t j = 0; j < rows->count; j++) {
        if (j != i && rows->at[j].update) {
            row[j] = published  ? c->alpha / c->sigma * exp(-distance[j] / c->sigma)
                     : mean > 0 ? exp(-distance[j] / (c->sigma * mean))
                                : 1;
            sum += row[j];
        }
    }
    /* What the others get together. */
    double part = published ? (sum < 1 ? sum : 1) : 1 - c->self;
    double left = 1;
    for (uint32_t j = 0; j < rows->count; j++) {
        row[j] = sum > 0 ? row[j] / sum * part : 0;
        left -= row[j];
    }
    row[i] = left > 0 ? left : 0;
}

static int weigh(const struct fl_rows *rows, double *a, struct fl_personal_masks *masks,
                 struct fl_err *e)
{
    size_t n = rows->count;
    double *distance = fl_try(n * n, sizeof *distance);
    int r = distance ? measure(rows, distance, e) : fl_fail(e, FL_R_NOMEM, "%zu distances", n * n);

    (void)masks;
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        if (rows->at[i].update) {
            weigh_row(rows, i, distance + i * n, a + i * n);
        }
    }
    fl_free(distance);
    return r;
}

static const struct fl_personal_method method = {.weigh = weigh};

static int init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    return fl_personal_init(shared, &method, plan, e);
}

FL_PERSONAL_STRATEGY(fedamp, init);
