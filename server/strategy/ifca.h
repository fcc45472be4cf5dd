/* IFCA: each site picks the model that fits it best. */
#ifndef SERVER_STRATEGY_IFCA_H
#define SERVER_STRATEGY_IFCA_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_ifca;

#endif
