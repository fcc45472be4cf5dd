/*
 * Frames of the control socket (proto/control.proto): 4 bytes of length, big-endian, then one
 * protobuf message. No socket and no loop here; the only door to control.pb-c.h.
 */
#ifndef FL_IO_CTL_WIRE_H
#define FL_IO_CTL_WIRE_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_CTL_VERSION = 1,
    FL_CTL_HEAD = 4,
    FL_CTL_REQUEST_MAX = 1024 * 1024, /* of a message in either direction, without its head */
    FL_CTL_ARGUMENTS_MAX = 64,
    FL_CTL_VALUE_MAX = 4096, /* of a verb, a name or a value */
};

struct fl_ctl_argument {
    const char *name, *value;
};

/* Strings and body point into memory that fl_ctl_unpack made (or, for packing, the caller's). */
struct fl_ctl_request {
    const char *verb;
    uint32_t argument_count;
    struct fl_ctl_argument arguments[FL_CTL_ARGUMENTS_MAX];
    const uint8_t *body;
    size_t body_size;
};

/* The value of an argument, or NULL. */
const char *fl_ctl_argument(const struct fl_ctl_request *r, const char *name);

enum fl_ctl_answer_kind { FL_CTL_JSON, FL_CTL_DATA, FL_CTL_END };

struct fl_ctl_answer {
    enum fl_ctl_answer_kind kind;
    const char *text; /* JSON, or the end's text */
    const uint8_t *data;
    size_t size;
    uint32_t reason;
};

/* What a head says: the message's length, or -FL_R_FRAME_SIZE when 0 or beyond the limit. */
int fl_ctl_length(const uint8_t head[FL_CTL_HEAD], uint32_t *ret);

/* A whole frame, freed by fl_free. -FL_R_LIMIT, -FL_R_NOMEM. */
int fl_ctl_pack_request(const struct fl_ctl_request *r, uint8_t **ret, size_t *ret_size,
                        struct fl_err *e);
int fl_ctl_pack_answer(const struct fl_ctl_answer *a, uint8_t **ret, size_t *ret_size);

/* From the bytes behind the head. `*ret_memory` holds what `ret` points into: fl_ctl_release.
 * Memory is budgeted. -FL_R_FRAME_PARSE, -FL_R_VERSION, -FL_R_CTL_REQUEST. */
int fl_ctl_unpack_request(const uint8_t *data, size_t size, struct fl_ctl_request *ret,
                          void **ret_memory, struct fl_err *e);
int fl_ctl_unpack_answer(const uint8_t *data, size_t size, struct fl_ctl_answer *ret,
                         void **ret_memory, struct fl_err *e);
void fl_ctl_release(void *memory);

#endif
