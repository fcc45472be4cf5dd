/*
 * The coordinator: owns the loop's things (connections, jobs, store, workers) and performs what the
 * cores ask for. One struct, hung from main's stack; all functions are for the loop thread.
 */
#ifndef SERVER_COORDINATOR_H
#define SERVER_COORDINATOR_H

#include "common/base/err.h"
#include "server/config.h"

#include <stdint.h>
#include <uv.h>

struct fl_coordinator;

/* config_path is for reloads and must live as long. Opens the state folder, resumes what was
 * running and listens. `stopped` is called once, from the loop, when a drain is over or the store
 * failed for good (status < 0): then close and run the loop until it is empty. */
int fl_coordinator_open(uv_loop_t *loop, const char *config_path,
                        const struct fl_server_config *config,
                        void (*stopped)(void *arg, int status), void *arg,
                        struct fl_coordinator **ret, struct fl_err *e);
/* Stops inviting and accepting, says goodbye to the agents, lets what is being written finish. A
 * running round is resumed by the next start. */
void fl_coordinator_drain(struct fl_coordinator *co);
/* Reads the configuration file again and takes what may change while running; certificates and CRL
 * are read anew and sessions whose certificate is now revoked are cut. On error everything stays as
 * it was. ret_waiting: the changed keys that wait for a restart, "" = none. */
enum { FL_COORDINATOR_WAITING_MAX = 512 };
int fl_coordinator_reload(struct fl_coordinator *co, char ret_waiting[FL_COORDINATOR_WAITING_MAX],
                          struct fl_err *e);
/* After `stopped`. NULL is fine. */
void fl_coordinator_close(struct fl_coordinator *co);

uint16_t fl_coordinator_port(const struct fl_coordinator *co);
/* One line for systemd's STATUS=. */
void fl_coordinator_summary(const struct fl_coordinator *co, char *text, size_t size);

#endif
