/*
 * PA-CFL (arXiv 2503.12220), mended: sites send a descriptor of their data (common/plan/
 * descriptor.h), bubbles are found from these (bubbles.h), and each bubble is a federation of its
 * own (clusters.h). Descriptors are kept in the state of the checkpoint: a site that is not there
 * when they are asked for again is described by its last one; one that never sent a readable one
 * takes part in the largest bubble until it does.
 *
 * Variant `published`: importances in the place of moments, bubbles by bubbles_published.c, and
 * whoever is alone in one is excluded: its model stays as it is.
 */
#ifndef SERVER_STRATEGY_PACFL_H
#define SERVER_STRATEGY_PACFL_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_pacfl;

#endif
