/* Weighted means of updates: the strategies of the table that fold into one slot. */
#ifndef SERVER_STRATEGY_MEAN_H
#define SERVER_STRATEGY_MEAN_H

#include "server/strategy/strategy.h"

/* clang-format off */
extern const struct fl_strategy
    fl_strategy_apfl,
    fl_strategy_ditto,
    fl_strategy_fedadagrad,
    fl_strategy_fedadam,
    fl_strategy_fedala,
    fl_strategy_fedavg,
    fl_strategy_fedavgm,
    fl_strategy_fedbn,
    fl_strategy_fedbuff,
    fl_strategy_feddbe,
    fl_strategy_feddyn,
    fl_strategy_fednova,
    fl_strategy_fedper,
    fl_strategy_fedproto,
    fl_strategy_fedprox,
    fl_strategy_fedrep,
    fl_strategy_fedyogi,
    fl_strategy_hyperfl,
    fl_strategy_local,
    fl_strategy_scaffold;
/* clang-format on */

#endif
