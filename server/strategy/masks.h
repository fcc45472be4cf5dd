/*
 * Which weights of a network matter to whom (FedCAC: Wu et al., ICCV 2023, arXiv 2309.11103).
 *
 * How much the loss of an agent would change if a weight were set to zero is estimated to first
 * order by its sensitivity
 *
 *     Omega = | (theta - theta_before) * theta |                                   (float32)
 *
 * with the update in place of the gradient. In each tensor the k = floor(tau * size) most sensitive
 * weights are critical, and all that are as sensitive as the last of them. Running statistics (of
 * batch norm) are no weights: an agent keeps its own. Published masks are made
 * by the agents; here they are computed from what the agents released, which is the same numbers:
 * nothing more leaves a site, and a forged mask takes a forged model.
 *
 * Nothing of the size of a model is kept. Of each agent and tensor there is one threshold, found by
 * selection on the bits of the sensitivities (a positive float's bits are in its order): one
 * reading counts the upper 16 bits, a second the lower 16 of those that the k-th falls among. Masks
 * are then made again, by tile, from thresholds whenever they are wanted: an overlap of all pairs
 * takes one more reading and the mix another. Four readings of W instead of a file of masks, which
 * would take rows x elements / 8 bytes, to be written and read as well.
 */
#ifndef SERVER_STRATEGY_MASKS_H
#define SERVER_STRATEGY_MASKS_H

#include "server/strategy/personal.h"

enum fl_masks_rule {
    /* To the letter. A threshold of at most 1e-10 becomes the least sensitivity above 1e-20; when
     * there is none it stays, and where nothing moved everything is critical. Rows without an
     * update have no mask. */
    FL_MASKS_PUBLISHED,
    /* A weight that did not move is critical to nobody. Rows without an update have the mask that
     * their model was mixed by: the last bit of each of its values says it (fl_masks_keep). */
    FL_MASKS_KEPT,
};

struct fl_masks {
    const struct fl_rows *rows;
    enum fl_masks_rule rule;
    float *threshold; /* rows x parts */
};

/* tau: 0 to 1. -FL_R_NOMEM, and what reading says. */
int fl_masks_init(struct fl_masks *m, const struct fl_rows *rows, double tau,
                  enum fl_masks_rule rule, struct fl_err *e);
void fl_masks_fini(struct fl_masks *m);

/* For struct fl_personal_masks; arg is a struct fl_masks. */
void fl_masks_of(void *arg, uint32_t row, size_t first, size_t count, const float *before,
                 const float *after, uint8_t *critical);
void fl_masks_keep(float *values, size_t count, const uint8_t *critical);

/* both[i * rows + j]: weights critical to i and to j; on the diagonal, to i. chance[...]: how many
 * that would be on average if each tensor's were drawn at random; NULL: not asked for. */
int fl_masks_overlap(const struct fl_masks *m, uint32_t *both, double *chance, struct fl_err *e);

#endif
