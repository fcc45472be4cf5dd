/*
 * FedCAC (Wu et al., "Bold but Cautious: Unlocking the Potential of Personalized Federated
 * Learning through Cautiously Aggressive Collaboration", ICCV 2023, arXiv 2309.11103).
 *
 * Weights that hardly matter to an agent's loss are taken from the mean of all; those that do
 * (masks.h) from the agents whose critical weights are the same ones:
 *
 *     next_i = M_i * mean of theta_j, j in C_i  +  (1 - M_i) * mean of theta_j, all j
 *
 * Published, to the letter (round t from 1, overlaps of this round's members only, plain means):
 *
 *     O_ij = 1 - |M_i - M_j|_1 / (2 |M_i|_1)
 *     S    = O_avg + t / beta (O_max - O_avg)          over all ordered pairs of two
 *     C_i  = {i} and all j with O_ij >= S
 *
 * Once t is beyond beta nobody reaches S, and critical weights stay with their agent from then on.
 *
 * What is wrong with that, and what the default does instead:
 *
 *   chance     two masks drawn at random overlap by tau already, and one tensor more than another.
 *              So the overlap is what is above chance, out of what could be, as Cohen's kappa is:
 *                  kappa_ij = (|M_i & M_j| - E_ij) / (sqrt(|M_i| |M_j|) - E_ij)
 *              with E_ij = sum over tensors of |M_i| |M_j| / size
 *   threshold  one pair of twins sets O_max for everybody. So each agent has its own, of its own
 *              likenesses:  S_i = best_i - (1 - p) (best_i - mean_i),  p from 0 to 1 over the job,
 *              and at least `partners` others in its circle
 *   gate       one is in or out, with the weight of the agent itself. So weights are likenesses,
 *              the agent's own being 1
 *   beta       counts rounds, whatever the job's length. So p is progress, round of rounds
 *   absent     overlaps of whoever happens to be there. So those who are not count with their last
 *              model and mask, the less the longer they are away (decay per round). Their mask
 *              needs no room: it is the last bit of the values of their model
 *   sizes      a site of ten examples counts like one of ten thousand. So weights count, where the
 *              plan lets an update have any
 *
 * Everything is computed from what agents released, so it is post-processing: no unit pays for it.
 * Under local noise the masks are mostly of the noise, though, and partners are drawn by chance.
 *
 * Not under secure aggregation. Masks of the sums of clusters could do there what masks of agents
 * do here; but a round runs one secure sum, with one quorum (server/co_secure.c), and this would
 * take one for each cluster. Such jobs are refused (common/plan/plan_personal.c).
 */
#include "server/strategy/fedcac.h"

#include "common/base/mem.h"
#include "server/strategy/masks.h"

#include <math.h>
#include <stdlib.h>

/* ---- published ---- */

static double overlap(const uint32_t *both, uint32_t n, uint32_t i, uint32_t j)
{
    double own = both[(size_t)i * n + i],
           differ = own + both[(size_t)j * n + j] - 2.0 * both[(size_t)i * n + j];

    return own > 0 ? 1 - differ / (2 * own) : 0;
}

static void weigh_published(const struct fl_rows *rows, const uint32_t *both, double *a)
{
    uint32_t n = rows->count;
    double sum = 0, most = -INFINITY,
           pairs = rows->fresh > 1 ? (double)rows->fresh * (rows->fresh - 1) : 1;

    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < n; j++) {
            if (i != j && rows->at[i].update && rows->at[j].update) {
                double o = overlap(both, n, i, j);
                sum += o;
                most = o > most ? o : most;
            }
        }
    }
    double mean = sum / pairs, progress = (double)rows->next->round / rows->s->setting.fedcac.beta;
    double least = mean + progress * (most - mean);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t together = 0;
        double *row = a + (size_t)i * n;
        if (!rows->at[i].update) {
            continue;
        }
        for (uint32_t j = 0; j < n; j++) {
            row[j] = i == j || (rows->at[j].update && overlap(both, n, i, j) >= least);
            together += row[j] > 0;
        }
        for (uint32_t j = 0; j < n; j++) {
            row[j] /= together;
        }
    }
}

/* ---- the default ---- */

struct likeness {
    double value;
    uint32_t row;
};

static int most_alike(const void *a, const void *b)
{
    const struct likeness *x = a, *y = b;

    return x->value != y->value ? (x->value > y->value ? -1 : 1) : (x->row < y->row ? -1 : 1);
}

/* 1: the same masks; 0: no more alike than by chance, or less. */
static double kappa(const uint32_t *both, const double *chance, uint32_t n, uint32_t i, uint32_t j)
{
    size_t at = (size_t)i * n + j;
    double full = sqrt((double)both[(size_t)i * n + i] * (double)both[(size_t)j * n + j]);
    double k = full - chance[at] > 0 ? (both[at] - chance[at]) / (full - chance[at])
                                     : (double)(both[at] == full);

    return k < 0 ? 0 : k > 1 ? 1 : k;
}

/* all: how alike each row is to row i. */
static void weigh_row(const struct fl_rows *rows, uint32_t i, struct likeness *all, double *row)
{
    const struct fl_personal *s = rows->s;
    uint32_t n = rows->count, least = s->setting.fedcac.partners;
    double best = 0, mean = 0, sum = rows->at[i].home.weight;
    double left = 1 - (double)rows->next->round / (double)s->rounds;

    for (uint32_t j = 0; j < n; j++) {
        best = j != i && all[j].value > best ? all[j].value : best;
        mean += j != i ? all[j].value / (n - 1) : 0;
    }
    double threshold = best - (left > 0 ? left : 0) * (best - mean);
    all[i].value = -1; /* itself is no partner */
    qsort(all, n, sizeof *all, most_alike);
    row[i] = rows->at[i].home.weight;
    for (uint32_t p = 0; all[p].value > 0 && (p < least || all[p].value >= threshold); p++) {
        row[all[p].row] = rows->at[all[p].row].home.weight * all[p].value;
        sum += row[all[p].row];
    }
    for (uint32_t j = 0; j < n; j++) {
        row[j] /= sum;
    }
}

static int weigh_alike(const struct fl_rows *rows, const uint32_t *both, const double *chance,
                       double *a, struct fl_err *e)
{
    uint32_t n = rows->count;
    struct likeness *all = fl_try(n, sizeof *all);

    if (!all) {
        return fl_fail(e, FL_R_NOMEM, "a list of %u members", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < n; j++) {
            uint64_t away = rows->next->round - rows->at[j].home.round;
            all[j] = (struct likeness){.row = j,
                                       .value = kappa(both, chance, n, i, j) *
                                                pow(rows->s->setting.fedcac.decay, (double)away)};
        }
        if (rows->at[i].update) {
            weigh_row(rows, i, all, a + (size_t)i * n);
        }
    }
    fl_free(all);
    return 0;
}

/* ---- the table ---- */

static void free_masks(void *arg)
{
    fl_masks_fini(arg);
    fl_free(arg);
}

static int weigh(const struct fl_rows *rows, double *a, struct fl_personal_masks *masks,
                 struct fl_err *e)
{
    size_t pairs = (size_t)rows->count * rows->count;
    bool published = rows->s->setting.fedcac.variant == FL_PERSONAL_PUBLISHED;
    uint32_t *both = fl_try(pairs, sizeof *both);
    double *chance = fl_try(published ? 1 : pairs, sizeof *chance);
    struct fl_masks *m = fl_try(1, sizeof *m);
    int r = both && chance && m ? 0 : fl_fail(e, FL_R_NOMEM, "overlaps of %u members", rows->count);

    r = r ? r
          : fl_masks_init(m, rows, rows->s->setting.fedcac.tau,
                          published ? FL_MASKS_PUBLISHED : FL_MASKS_KEPT, e);
    if (r) {
        fl_free(m);
    } else {
        *masks = (struct fl_personal_masks){.of = fl_masks_of,
                                            .keep = published ? NULL : fl_masks_keep,
                                            .free = free_masks,
                                            .arg = m};
        r = fl_masks_overlap(m, both, published ? NULL : chance, e);
    }
    if (r == 0 && published) {
        weigh_published(rows, both, a);
    } else if (r == 0) {
        r = weigh_alike(rows, both, chance, a, e);
    }
    fl_free(both);
    fl_free(chance);
    return r;
}

static const struct fl_personal_method method = {.weigh = weigh};

static int init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    return fl_personal_init(shared, &method, plan, e);
}

FL_PERSONAL_STRATEGY(fedcac, init);
