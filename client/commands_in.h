/* The verbs of cohort-agent, among themselves. */
#ifndef CLIENT_COMMANDS_IN_H
#define CLIENT_COMMANDS_IN_H

#include "client/commands.h"
#include "client/core/ledger.h"

#include "client/data/dataset.h"
#include "common/plan/plan.h"

#include <jansson.h>

/* Fields of documents: "" or 0 where there is none. fl_command_number: "-" then; fmt "percent" or
 * "" (four digits). */
static inline const char *fl_command_text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s ? s : "";
}

static inline long long fl_command_count(const json_t *o, const char *name)
{
    return (long long)json_integer_value(json_object_get(o, name));
}

const char *fl_command_number(const json_t *o, const char *name, char buf[32], const char *fmt);
/* One document on one line of stdout. */
void fl_command_print_json(const json_t *document);

/* The ledger of an agent that does not run. */
int fl_command_ledger(const struct fl_config *config, const struct fl_config_agent *agent,
                      struct fl_ledger **ret, struct fl_err *e);

/* Asks the process that runs; its documents go to `print`, or to stdout with --json.
 * -FL_R_CTL_CONNECT: nobody runs. */
int fl_command_ask(const struct fl_config *config, const struct fl_command *c,
                   void (*print)(const json_t *document), struct fl_err *e);
/* Calls `each` for the agent asked for, or for all. */
int fl_command_each(const struct fl_config *config, const struct fl_command *c,
                    int (*each)(const struct fl_config *config, const struct fl_config_agent *agent,
                                const struct fl_command *c, struct fl_err *e),
                    struct fl_err *e);

/* command_outbox.c */
int fl_command_outbox(const struct fl_config *config, const struct fl_command *c, struct fl_err *e);

/* command_receipts.c */
int fl_command_receipts(const struct fl_config *config, const struct fl_config_agent *agent,
                        const struct fl_command *c, struct fl_err *e);

/* command_report.c: has the newest job of this name its `final` line; and waits for that at every
 * agent asked about, c->wait at most (-FL_R_TIMEOUT). */
bool fl_command_report_ended(const char *path, const char *job);
int fl_command_report_wait(const struct fl_config *config, const struct fl_command *c,
                           struct fl_err *e);

/* command_data.c: what an agent would train on, and what a published model is worth to it. Neither
 * asks a coordinator or a running agent, and nothing is written but what --export and --initial ask
 * for. */
int fl_command_check_data(const struct fl_config *config, const struct fl_config_agent *agent,
                          const struct fl_command *c, struct fl_err *e);
int fl_command_preview(const struct fl_config *config, const struct fl_config_agent *agent,
                       const struct fl_command *c, struct fl_err *e);

/* command_export.c: FOLDER/NAME-{train,validation,test}-{x,y}.npy (client/data/npy_out.h); the
 * tensors that a job begins with, as FOLDER/shared/TENSOR.npy and, once the site has its seed,
 * FOLDER/NAME/TENSOR.npy for the private ones. */
int fl_command_export_data(const struct fl_config_agent *agent, const struct fl_dataset *d,
                           const char *folder, struct fl_err *e);
int fl_command_export_initial(const struct fl_config *config, const struct fl_config_agent *agent,
                              const struct fl_plan *plan, const char *folder, struct fl_err *e);

#endif
