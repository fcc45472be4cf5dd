/* The table of strategies: a line for each. */
#include "common/base/mem.h"
#include "server/strategy/fedamp.h"
#include "server/strategy/fedcac.h"
#include "server/strategy/fedka.h"
#include "server/strategy/fesem.h"
#include "server/strategy/ifca.h"
#include "server/strategy/mean.h"
#include "server/strategy/pacfl.h"
#include "server/strategy/parting.h"
#include "server/strategy/pfedhn.h"
#include "server/strategy/strategy.h"

#include <string.h>

/* clang-format off */
static const struct fl_strategy *const table[] = {
    &fl_strategy_apfl,
    &fl_strategy_cfl,
    &fl_strategy_ditto,
    &fl_strategy_fedala,
    &fl_strategy_fedadagrad,
    &fl_strategy_fedadam,
    &fl_strategy_fedamp,
    &fl_strategy_fedavg,
    &fl_strategy_fedavgm,
    &fl_strategy_fedbn,
    &fl_strategy_fedbuff,
    &fl_strategy_fedcac,
    &fl_strategy_feddbe,
    &fl_strategy_feddyn,
    &fl_strategy_fedka,
    &fl_strategy_fednova,
    &fl_strategy_fedper,
    &fl_strategy_fedproto,
    &fl_strategy_fedprox,
    &fl_strategy_fedrep,
    &fl_strategy_fedyogi,
    &fl_strategy_fesem,
    &fl_strategy_flhc,
    &fl_strategy_hyperfl,
    &fl_strategy_ifca,
    &fl_strategy_local,
    &fl_strategy_pacfl,
    &fl_strategy_pfedhn,
    &fl_strategy_scaffold,
};
/* clang-format on */

const struct fl_strategy *fl_strategy_at(size_t i)
{
    return i < FL_COUNT(table) ? table[i] : NULL;
}

const struct fl_strategy *fl_strategy_find(const char *name)
{
    for (size_t i = 0; i < FL_COUNT(table); i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return table[i];
        }
    }
    return NULL;
}
