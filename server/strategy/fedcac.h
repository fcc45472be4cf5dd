/* FedCAC: a model for each agent, its critical weights from those like it (fedcac.c). */
#ifndef SERVER_STRATEGY_FEDCAC_H
#define SERVER_STRATEGY_FEDCAC_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_fedcac;

#endif
