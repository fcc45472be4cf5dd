/*
 * FeSEM (Xie et al. 2021, arXiv 2005.01026): expectation-maximisation on the distance of weights. K
 * models begin alike, and sites are dealt to them: models that began apart would be farther from
 * each other than training moves them, and every site would stay where it was dealt. In each round
 * a site trains the model it has to w_i, and
 *
 *     E   it belongs to the model c_k (as the round began with it) that is nearest: min |w_i -
 * c_k|, or stays where it is when that is as near and a model that nobody is nearest to takes the
 * site that is farthest from its own M   c_k becomes the weighted mean of the w_i that belong to it
 *
 * Everything is done by tiles over the updates: memory is members times models, not times weights.
 */
#ifndef SERVER_STRATEGY_FESEM_H
#define SERVER_STRATEGY_FESEM_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_fesem;

#endif
