/*
 * The site's own socket: what its administrator asks a running cohort-agent. Framing and access as
 * for the coordinator's control socket (common/io/ctl.h). Verbs:
 *
 *   status                            one part: the process and all its agents
 *   ledger    [agent] [limit]         a part for each agent
 *   withdraw  job|"*" [agent] [undo]  a part for each agent; durable before it is answered
 *   reload                            certificates and revocation list
 */
#ifndef CLIENT_SITE_H
#define CLIENT_SITE_H

#include "common/base/err.h"

struct fl_host;
struct fl_site;

int fl_site_open(struct fl_host *host, struct fl_site **ret, struct fl_err *e);
/* Waiting calls are ended. NULL is fine. */
void fl_site_close(struct fl_site *s);

#endif
