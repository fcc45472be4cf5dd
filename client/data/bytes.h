/*
 * A data file as a stream of bytes: plain, or gzip told by its first two bytes (one or more
 * members). The door to zlib. Never holds more than one block; a file that claims more than it has,
 * or a bomb, costs only what is read.
 */
#ifndef CLIENT_DATA_BYTES_H
#define CLIENT_DATA_BYTES_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_bytes;

/* -FL_R_DATA_OPEN. `path` is copied for messages. */
int fl_bytes_open(const char *path, struct fl_bytes **ret, struct fl_err *e);
void fl_bytes_close(struct fl_bytes *b);

/* Reads up to `size` bytes; fewer only at the end of the file. -FL_R_DATA_OPEN (reading failed),
 * -FL_R_DATA_FORMAT (damaged gzip, something after it), -FL_R_DATA_TRUNCATED (gzip cut short). */
int fl_bytes_read(struct fl_bytes *b, void *to, size_t size, size_t *ret_got, struct fl_err *e);
/* The same, but all of them: -FL_R_DATA_TRUNCATED naming the bytes there are and the bytes `total`
 * there should be. */
int fl_bytes_need(struct fl_bytes *b, void *to, size_t size, uint64_t total, struct fl_err *e);
/* -FL_R_DATA_FORMAT unless the end is reached. */
int fl_bytes_end(struct fl_bytes *b, struct fl_err *e);

/* Bytes delivered so far (of the unpacked data). */
uint64_t fl_bytes_offset(const struct fl_bytes *b);
bool fl_bytes_packed(const struct fl_bytes *b); /* gzip */
const char *fl_bytes_path(const struct fl_bytes *b);

#endif
