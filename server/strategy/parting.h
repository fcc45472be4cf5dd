/*
 * Bubbles from the updates themselves: post-processing of what sites released, at no cost to them.
 * All that is asked of updates is their inner products, so memory is members^2, not members times
 * model.
 *
 *   cfl    clustered federated learning (Sattler, Mueller, Samek 2019, arXiv 1910.01991): when a
 *          bubble's mean update stands still (its norm is below `still` times the largest of its
 *          members') and they yet pull against each other, it parts in two. The parts are those of
 *          algorithm 1: the largest cosine between them is as small as it can be. It must be below
 *          0, or noise about a common optimum would part what belongs together
 *   flhc   FL+HC (Briggs, Fan, Andras 2020, arXiv 2004.11791): one agglomerative clustering, after
 *          some rounds. How many clusters: by silhouette (bubbles.h), with one as an answer, in
 *          place of a threshold on the distance; distances are those of directions, 2 - 2 cos
 *
 * A bubble that parts begins with the model of the whole in all its parts, from the next round on.
 * Who takes part for the first time is in the largest bubble.
 */
#ifndef SERVER_STRATEGY_PARTING_H
#define SERVER_STRATEGY_PARTING_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_cfl, fl_strategy_flhc;

/* n things in two such that the largest similarity between the parts is the least possible: part[i]
 * is 0 or 1, 0 for the first. similarity: n x n, symmetric. Returns that similarity; n at least 2.
 */
double fl_part_in_two(const double *similarity, uint32_t n, uint8_t *part, uint32_t *link,
                      double *best);

#endif
