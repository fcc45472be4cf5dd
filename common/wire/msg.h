/*
 * Frames and messages: the only door to cohort.pb-c.h. A frame is a 4-byte big-endian length and
 * one protobuf message `Frame`. Everything a peer sends is bounded before anything is allocated:
 * the length by the limit of the phase, the unpacked size by a budget of 4 * length + 64 KiB,
 * unknown fields refused, and every field of fixed length or range is checked here, so that whoever
 * receives a message may trust its shape (digests have 32 bytes, incarnations 16, names are
 * printable and short).
 */
#ifndef FL_WIRE_MSG_H
#define FL_WIRE_MSG_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/wire/ids.h"

#include "cohort.pb-c.h"

#include <stdbool.h>

#include <stddef.h>
#include <stdint.h>

enum {
    FL_WIRE_VERSION_MIN = 1,
    FL_WIRE_VERSION_MAX = 1,
    FL_CHUNK_MAX = 256 * 1024,
    FL_FRAME_MAX = FL_CHUNK_MAX + 256, /* a Chunk with its head */
    FL_FRAME_HELLO_MAX = 4096,         /* before Welcome */
    FL_TEXT_MAX = 256,                 /* of a text for people */
};

/* Looks for a whole frame at the start of data. 1: *ret_size bytes of message at data + 4. 0: more
 * needed. Negative: -FL_R_FRAME_SIZE. */
int fl_frame_next(const uint8_t *data, size_t size, size_t max_frame, size_t *ret_size,
                  struct fl_err *e);

/* Unpacks and checks. The result is freed by fl_msg_free. */
int fl_msg_unpack(const uint8_t *message, size_t size, Cohort__Frame **ret, struct fl_err *e);
void fl_msg_free(Cohort__Frame *frame);

/* Length prefix included. fl_msg_pack writes exactly that many bytes. */
size_t fl_msg_packed_size(const Cohort__Frame *frame);
void fl_msg_pack(const Cohort__Frame *frame, uint8_t *to);

void fl_key_from_msg(const Cohort__Key *m, struct fl_key *ret);
/* m points into k afterwards. */
void fl_key_to_msg(const struct fl_key *k, Cohort__Key *m);

#endif
