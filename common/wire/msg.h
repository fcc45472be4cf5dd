/*
 * Frames and messages: the only door to cohort.pb-c.h. A frame is a 4-byte big-endian length and
 * one protobuf message `Frame`. Everything a peer sends is bounded before anything is allocated:
 * the length by the limit of the phase, the unpacked size by a budget of 4 * length + 64 KiB. Every
 * field is checked here by a table (msg_rules.c), so that whoever receives a message may trust its
 * shape: digests have 32 bytes, incarnations 16, names are printable and short, required keys are
 * not NULL. Unknown fields, fields given twice and zeros spelled out are refused: a message has one
 * length, and no byte of it is ignored.
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
    FL_FRAME_HEAD = 4,
    FL_CHUNK_MAX = 256 * 1024,
    FL_CHUNK_HEAD = 64,                /* what a Chunk adds to its bytes, at most */
    FL_FRAME_MAX = FL_CHUNK_MAX + 256, /* a Chunk with its head */
    FL_FRAME_HELLO_MAX = 4096,         /* before Welcome */
    FL_FRAME_CONTROL_MAX = 8192,       /* anything but a Chunk, always */
    FL_TEXT_MAX = 256,                 /* of a text for people */
    FL_WIRE_NAME_MAX = 63,             /* of jobs, exchanges, agents */
    FL_WIRE_CAPABILITIES_MAX = 32,     /* how many, and the length of each */
    FL_WIRE_JOBS_MAX = 64,             /* of an Ask */
    FL_WIRE_FINALS_MAX = 8,            /* of a Rest */
    FL_WIRE_EXCHANGES_MAX = 64,        /* Key.exchange is below */
    FL_WIRE_CLAIMS_MAX = 16,           /* of a Claim */
    FL_WIRE_CERTIFICATE_MAX = 2048,    /* bytes, DER */
    FL_WIRE_SIGNATURE_MAX = 160,
    FL_WIRE_PLAN_MAX = 64 * 1024,                /* bytes of a plan */
    FL_WIRE_WEIGHT_MAX = 1 << 30,                /* of an Offer */
    FL_WIRE_RETRY_MAX_MS = 7 * 24 * 3600 * 1000, /* a week */
    FL_WIRE_HEARTBEAT_MIN_MS = 50,
    FL_WIRE_HEARTBEAT_MAX_MS = 10 * 60 * 1000,
};
#define FL_OBJECT_MAX ((uint64_t)1 << 36) /* bytes of a model, update or plan */

/* The message's length from a frame's head; at least 1, at most max_frame (-FL_R_FRAME_SIZE). */
int fl_frame_length(const uint8_t head[FL_FRAME_HEAD], size_t max_frame, size_t *ret_size,
                    struct fl_err *e);
/* Looks for a whole frame at the start of data. 1: *ret_size bytes of message at data + 4. 0: more
 * needed. Negative: -FL_R_FRAME_SIZE. */
int fl_frame_next(const uint8_t *data, size_t size, size_t max_frame, size_t *ret_size,
                  struct fl_err *e);

/* Unpacks and checks. The result is freed by fl_msg_free. -FL_R_FRAME_PARSE, -FL_R_FRAME_UNKNOWN,
 * -FL_R_FRAME_BUDGET, -FL_R_FRAME_SIZE (a control message above FL_FRAME_CONTROL_MAX),
 * -FL_R_MSG_FIELD, -FL_R_NOMEM. */
int fl_msg_unpack(const uint8_t *message, size_t size, Cohort__Frame **ret, struct fl_err *e);
void fl_msg_free(Cohort__Frame *frame);

/* The rules of msg_rules.c, for our own messages too: -FL_R_MSG_FIELD names the field. */
int fl_msg_check(const Cohort__Frame *frame, struct fl_err *e);
/* "Task"; of a frame without body "empty". */
const char *fl_msg_name(const Cohort__Frame *frame);

/* Length prefix included. fl_msg_pack writes exactly that many bytes. */
size_t fl_msg_packed_size(const Cohort__Frame *frame);
void fl_msg_pack(const Cohort__Frame *frame, uint8_t *to);

void fl_key_from_msg(const Cohort__Key *m, struct fl_key *ret);
/* m points into k afterwards. */
void fl_key_to_msg(const struct fl_key *k, Cohort__Key *m);
void fl_claimed_from_msg(const Cohort__Claimed *m, struct fl_key *ret,
                         struct fl_digest *ret_update);
/* m points into k, and into the digest, afterwards. */
void fl_claimed_to_msg(const struct fl_key *k, const struct fl_digest *update, Cohort__Claimed *m);

#endif
