/* What the site's administrator is shown, as JSON; the same documents online and offline. */
#ifndef CLIENT_SHOW_H
#define CLIENT_SHOW_H

#include "client/config.h"
#include "client/core/ledger.h"
#include "client/runner.h"

#include <jansson.h>

enum { FL_SHOW_RELEASES_MAX = 1000, FL_SHOW_PAGE = 200 };

json_t *fl_show_runner(const struct fl_runner_view *v);
/* Budgets and what was spent of them, then the newest `limit` releases (at most
 * FL_SHOW_RELEASES_MAX), oldest first. Waits for the disk. NULL: *e says why. */
json_t *fl_show_ledger(struct fl_ledger *l, const struct fl_config_agent *agent, uint32_t limit,
                       struct fl_err *e);

/* What waits in the outbox and the newest `limit` updates that left: tensors, sizes, norms, noise,
 * digest. dir: the agent's folder. */
json_t *fl_show_outbox(const char *dir, struct fl_ledger *l, const struct fl_config_agent *agent,
                       uint32_t limit, struct fl_err *e);
/* Entries behind number `after`, FL_SHOW_PAGE at most, every column as it is chained: bytes in hex.
 * With where the chain begins and ends. */
json_t *fl_show_entries(struct fl_ledger *l, const struct fl_config_agent *agent, uint64_t after,
                        struct fl_err *e);
/* What is known of the receipts of releases behind number `after`, with what proves it; a page. */
json_t *fl_show_receipts(struct fl_ledger *l, const struct fl_config_agent *agent, uint64_t after,
                         struct fl_err *e);
/* Recomputes the chain: entries and head, or NULL with what does not fit. */
json_t *fl_show_verified(struct fl_ledger *l, const struct fl_config_agent *agent,
                         struct fl_err *e);

#endif
