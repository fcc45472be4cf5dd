/* Federated domain adaptation: FedAvg, and what is done about a target domain around it. */
#ifndef SERVER_STRATEGY_FEDKA_H
#define SERVER_STRATEGY_FEDKA_H

#include "server/strategy/strategy.h"

extern const struct fl_strategy fl_strategy_fedka;

#endif
