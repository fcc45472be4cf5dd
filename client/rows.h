/*
 * What deals a site's rows to training, validation and test: `data.deal` of its configuration and
 * STATE/<agent>/rows.key, the secret of a keyed hash (data/dataset.h). The key is no function of
 * the data, so whatever it is, a row more or less changes no other row's part.
 *
 * Where the configuration does not say: `hashed` where that fits its other keys and the site has a
 * key, which every site gets before it has a ledger. An older site's rows stay where they were.
 */
#ifndef CLIENT_ROWS_H
#define CLIENT_ROWS_H

#include "client/config.h"
#include "client/data/dataset.h"
#include "common/base/err.h"

enum fl_rows_use {
    FL_ROWS_KEEP,  /* by the agent itself: a key that is missing is made */
    FL_ROWS_LOOK,  /* by who only looks: drawn, and forgotten */
    FL_ROWS_EXACT, /* by who wants the agent's very rows: its absence is -FL_R_CONF_CONFLICT */
};

/* The agent's data source with its deal settled and the key in it. The folder exists for KEEP. */
int fl_rows_settle(const struct fl_config *config, const struct fl_config_agent *agent,
                   enum fl_rows_use use, struct fl_data_source *ret, struct fl_err *e);

#endif
