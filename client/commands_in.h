/* The verbs of cohort-agent, among themselves. */
#ifndef CLIENT_COMMANDS_IN_H
#define CLIENT_COMMANDS_IN_H

#include "client/commands.h"

#include <jansson.h>

/* One document on one line of stdout. */
void fl_command_print_json(const json_t *document);

/* command_data.c: what an agent would train on, and what a published model is worth to it. Neither
 * asks a coordinator or a running agent, and nothing is written. */
int fl_command_check_data(const struct fl_config *config, const struct fl_config_agent *agent,
                          const struct fl_command *c, struct fl_err *e);
int fl_command_preview(const struct fl_config *config, const struct fl_config_agent *agent,
                       const struct fl_command *c, struct fl_err *e);

#endif
