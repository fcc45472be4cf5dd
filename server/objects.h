/*
 * What agents may fetch: the frozen description of a round and what an exchange begins with
 * (memory), and the model of a slot (a part of a checkpoint file). Immutable and named by digest;
 * the one thing in the coordinator that is reference-counted, since a round that has moved on must
 * not pull a model from under an agent that is still reading it.
 *
 * A file is read by pread from worker threads, never mapped: a mapped file counts as memory and a
 * truncated one kills the process.
 */
#ifndef SERVER_OBJECTS_H
#define SERVER_OBJECTS_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_object;

/* A copy of `data`. */
struct fl_object *fl_object_from_memory(const void *data, size_t size, struct fl_err *e);
/* A whole file; its digest is zero: its name says it. Errors name the path. */
int fl_object_from_file(const char *path, struct fl_object **ret, struct fl_err *e);
/* Bytes [from, from + size) of another, which lives as long. NULL: no memory. */
struct fl_object *fl_object_part(struct fl_object *whole, uint64_t from, uint64_t size,
                                 const struct fl_digest *digest);

struct fl_object *fl_object_ref(struct fl_object *o);
void fl_object_unref(struct fl_object *o); /* NULL is fine; any thread */

uint64_t fl_object_size(const struct fl_object *o);
const struct fl_digest *fl_object_digest(const struct fl_object *o);
/* [job] Exactly `size` bytes at `offset`; fits struct fl_source's read with the object as its
 * argument. */
int fl_object_read(void *object, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);

#endif
