/* pFedHN: the coordinator's hypernetwork makes each agent's model from an embedding (pfedhn.c). */
#ifndef SERVER_STRATEGY_PFEDHN_H
#define SERVER_STRATEGY_PFEDHN_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_pfedhn;

#endif
