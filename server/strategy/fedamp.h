/* FedAMP: a model for each agent, mixed from those near to its own (fedamp.c). */
#ifndef SERVER_STRATEGY_FEDAMP_H
#define SERVER_STRATEGY_FEDAMP_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_fedamp;

#endif
