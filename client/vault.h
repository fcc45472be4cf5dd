/*
 * The vault: everything one agent keeps, in one folder that nobody else may read.
 *
 *     STATE/<agent>/
 *       ledger.db     what its data have paid for (core/ledger.h)
 *       seed          32 bytes, made once: initial private tensors
 *       rows.key      32 bytes, made once: which of its rows train, validate and test (rows.h)
 *       private/      <incarnation>-<digest>: private tensors; committed by the debit naming them
 *       cache/        <digest>: what was fetched, plans and models, bounded
 *       outbox/       <digest>, <digest>.offer: bytes released but not acknowledged, and what an
 *                     Offer of them says
 *       final/        <incarnation>: digest of the final model already evaluated
 *       models/       <job>.safetensors: the network as it serves this site (served.h)
 *       exec/         while a trainer program runs: its folder
 *       report.jsonl  for the site's own eyes
 *
 * No loop and no socket here. Every function waits for the disk: it belongs in a job of the agent's
 * lanes. The ledger is touched only by functions marked [sync]; those marked [long] compute.
 */
#ifndef CLIENT_VAULT_H
#define CLIENT_VAULT_H

#include "client/config.h"
#include "client/core/agent.h"
#include "client/core/ledger.h"
#include "client/data/dataset.h"
#include "client/trainer/kept.h"
#include "common/base/err.h"
#include "common/io/spool.h"
#include "common/plan/schema.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    FL_VAULT_PATH_MAX = 768,
    FL_VAULT_CACHE_FILES = 16,
    FL_VAULT_OFFER_MAX = 64 * 1024, /* bytes of an .offer file */
};

/* A release that was debited and is not settled. */
struct fl_vault_pending {
    struct fl_agent_offer offer;
    uint8_t coordinator[16];
};

struct fl_vault {
    const struct fl_config_agent *agent;
    char dir[FL_CONFIG_PATH_MAX + 80];
    uint64_t cache_max;
    struct fl_ledger *ledger;
    struct fl_seed seed;
    struct fl_data_source source; /* the agent's, with what deals its rows settled */
    bool has_data;
    struct fl_digest schema; /* of the table's schema the data were read with; zero: none */
    bool data_stale; /* examples that stay in their files are not what they were: read them anew */
    struct fl_dataset data;
    struct fl_features features; /* of fixed layers, kept while the data are */
    uint32_t pending_count;
    struct fl_vault_pending *pending;
    uint32_t lost; /* releases whose bytes were gone at the start: they cannot be offered again */
};

/* Makes or opens the folder, checks the ledger's owner, sweeps what a crash left. The agent's
 * configuration must outlive the vault. */
int fl_vault_open(const struct fl_config *config, const struct fl_config_agent *agent,
                  const uint8_t owner[32], struct fl_vault **ret, struct fl_err *e);
void fl_vault_close(struct fl_vault *v); /* NULL is fine */

/* Names of files. `ret` has FL_VAULT_PATH_MAX bytes. */
void fl_vault_path(const struct fl_vault *v, const char *folder, const char *name, char *ret);
void fl_vault_digest_path(const struct fl_vault *v, const char *folder, const struct fl_digest *d,
                          const char *suffix, char *ret);
void fl_vault_private_path(const struct fl_vault *v, const uint8_t incarnation[FL_INCARNATION_SIZE],
                           const struct fl_digest *d, char *ret);

/* Calls `each` for every file of a folder; stops at a value other than 0 and returns it. */
int fl_vault_each(const struct fl_vault *v, const char *folder,
                  int (*each)(void *arg, const char *path, const char *name), void *arg,
                  struct fl_err *e);
uint64_t fl_vault_wall_ms(void);

/* The data set as this job reads it (`schema`: of its tables), loaded when it is first needed,
 * again after fl_vault_unload or data_stale, and again for a job with another schema. */
int fl_vault_load(struct fl_vault *v, const struct fl_schema *schema, struct fl_err *e);
void fl_vault_unload(struct fl_vault *v);
size_t fl_vault_data_bytes(const struct fl_vault *v);

/* [sync] An update for this coordinator that waits to be offered again: 1 found, 0 none. Bytes that
 * no longer match their digest are settled as lost. */
int fl_vault_pending(struct fl_vault *v, const uint8_t coordinator[16], struct fl_agent_offer *ret,
                     struct fl_err *e);
/* [sync] What is known of a task (FL_AGENT_HAVE_...). */
int fl_vault_look(struct fl_vault *v, const struct fl_agent_task *task, unsigned *ret_have,
                  struct fl_agent_offer *ret_offer, struct fl_err *e);
/* Room in the cache for this task's objects: the newest others stay while they fit. */
int fl_vault_make_room(struct fl_vault *v, const struct fl_agent_task *task, struct fl_err *e);
/* A download into the cache: from *ret_offset on. */
int fl_vault_spool(struct fl_vault *v, const struct fl_digest *digest, uint64_t size,
                   struct fl_spool **ret, uint64_t *ret_offset, struct fl_err *e);
/* A fetched object, checked against its digest; a file that does not match is removed
 * (-FL_R_STORE_MISMATCH), so that it is fetched again. Freed by fl_free. */
int fl_vault_object(struct fl_vault *v, const struct fl_digest *digest, uint64_t size,
                    uint8_t **ret, struct fl_err *e);
/* The outbox bytes of an offer, for reading. */
int fl_vault_update(struct fl_vault *v, const struct fl_agent_offer *offer, int *ret_fd,
                    struct fl_err *e);
/* [sync] Settles a release: a line in the report (outcome 0 = acknowledged, or -reason), the
 * ledger's mark, then the bytes go. Traffic of this round in bytes. */
int fl_vault_mark(struct fl_vault *v, const struct fl_agent_offer *offer, int outcome,
                  uint64_t bytes_down, uint64_t bytes_up, struct fl_err *e);
/* [sync] Adds the epsilon these data have cost so far to a line of the report, at the delta of the
 * site's budget, else of the plan. */
void fl_vault_report_epsilon(struct fl_vault *v, void *report_line, const char *job,
                             enum fl_unit unit, const struct fl_digest *data, double plan_delta);
/* Removes what a debit that was refused left in the outbox. */
void fl_vault_discard(struct fl_vault *v, const struct fl_digest *update);
/* After a debit: only these private tensors of the incarnation remain. */
void fl_vault_private_kept(struct fl_vault *v, const uint8_t incarnation[FL_INCARNATION_SIZE],
                           const struct fl_digest *kept);
/* Remembers a release that was just debited. */
int fl_vault_add_pending(struct fl_vault *v, const struct fl_agent_offer *offer,
                         const uint8_t coordinator[16], struct fl_err *e);

/* The .offer file: what an Offer says, the line of the report so far. Text, freed by free(). */
char *fl_vault_offer_text(const struct fl_agent_offer *offer, void *report_line);

#endif
