/*
 * A spool: an object being received, byte by byte, over as many connections as it takes. Used by
 * the coordinator for uploads and by the agent for downloads.
 *
 * Next to the part file stands a mark: how many of its bytes are known to be durable. fl_spool_open
 * says from where to go on: never past that. The mark moves every FL_SPOOL_MARK_EVERY bytes and at
 * fl_spool_sync. All functions are for a job (they wait for the disk); one thread at a time.
 */
#ifndef FL_IO_SPOOL_H
#define FL_IO_SPOOL_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stdint.h>

enum { FL_SPOOL_MARK_EVERY = 1024 * 1024 };

struct fl_spool;

/* Opens or creates DIR/NAME.part (+ .mark) for an object of `size` bytes with this digest. A part
 * of another digest or size is thrown away. `*ret_offset` = durable bytes to go on from.
 * -FL_R_DISK_FULL, -FL_R_STORE_IO. */
int fl_spool_open(const char *dir, const char *name, const struct fl_digest *digest, uint64_t size,
                  struct fl_spool **ret, uint64_t *ret_offset, struct fl_err *e);
/* offset must be the next byte (-FL_R_OFFSET otherwise). */
int fl_spool_write(struct fl_spool *s, uint64_t offset, const uint8_t *data, size_t size,
                   struct fl_err *e);
int fl_spool_sync(struct fl_spool *s, struct fl_err *e);
/* All bytes are there: checks the digest by reading the file again in tiles (-FL_R_UPDATE_DIGEST,
 * and the part is emptied), syncs, renames to DIR/NAME, syncs the folder. */
int fl_spool_seal(struct fl_spool *s, struct fl_err *e);
/* Keeps what is durable. NULL is fine. */
void fl_spool_close(struct fl_spool *s);

#endif
