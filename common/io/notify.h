/*
 * Talking to systemd (or whoever set NOTIFY_SOCKET) without its library: the two-line protocol of
 * sd_notify(3). Without the variable everything here does nothing.
 */
#ifndef FL_IO_NOTIFY_H
#define FL_IO_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* One datagram: "READY=1", "RELOADING=1\nMONOTONIC_USEC=...", "STATUS=12 agents", "WATCHDOG=1",
 * "STOPPING=1". True when it was sent. Never blocks. */
bool fl_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* How often a WATCHDOG=1 is expected of this process: half of WATCHDOG_USEC, in ms; 0 = not at all.
 */
uint64_t fl_notify_watchdog_ms(void);

#endif
