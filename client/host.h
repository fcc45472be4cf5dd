/*
 * The process: many agents on one loop. Trainings run at most `threads` at a time over all of them,
 * and loaded data sets together keep within limits.data (the ones idle longest are unloaded first
 * and loaded again when needed), so a host of a hundred agents needs little more memory than one of
 * two.
 */
#ifndef CLIENT_HOST_H
#define CLIENT_HOST_H

#include "client/config.h"
#include "client/runner.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct fl_host;

/* Takes the lock of the state folder, opens every agent. config must outlive the host. `stopped` is
 * called once, from the loop, when every agent has stopped. */
int fl_host_open(uv_loop_t *loop, const struct fl_config *config, bool once,
                 void (*stopped)(void *arg), void *arg, struct fl_host **ret, struct fl_err *e);
/* Agents start and the site's socket listens. */
int fl_host_start(struct fl_host *h, struct fl_err *e);
/* SIGTERM: drain. A second call: now. */
void fl_host_stop(struct fl_host *h);
/* SIGHUP: certificates and revocation list are read again; agents whose files are bad keep the old
 * ones. The first failure is returned, the rest goes on. ret_waiting: the keys of the configuration
 * file that were changed and wait for a restart, "" = none. */
enum { FL_HOST_WAITING_MAX = 512 };
int fl_host_reload(struct fl_host *h, char ret_waiting[FL_HOST_WAITING_MAX], struct fl_err *e);
/* After `stopped`, or before start. The loop must run until nothing is left. NULL is fine. */
void fl_host_close(struct fl_host *h);

uint32_t fl_host_count(const struct fl_host *h);
struct fl_runner *fl_host_runner(const struct fl_host *h, uint32_t index);
struct fl_runner *fl_host_find(const struct fl_host *h, const char *name);
uint64_t fl_host_started_ms(const struct fl_host *h); /* wall clock */
uv_loop_t *fl_host_loop(const struct fl_host *h);
const struct fl_config *fl_host_config(const struct fl_host *h);
bool fl_host_stopping(const struct fl_host *h);
/* At least one agent got as far as a Rest or a settled update (for the exit code of --once). */
bool fl_host_useful(const struct fl_host *h);

#endif
