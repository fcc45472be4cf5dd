/* Inside the room: what each field of each message may hold. */
#ifndef FL_WIRE_MSG_RULES_H
#define FL_WIRE_MSG_RULES_H

#include "common/base/err.h"

#include <protobuf-c/protobuf-c.h>

/* Checks a message and those inside it against the table. -FL_R_MSG_FIELD, -FL_R_FRAME_UNKNOWN. */
int fl_msg_rules_check(const ProtobufCMessage *m, struct fl_err *e);
/* For the test that no message and no field was forgotten: how many rules this type has, or -1. */
int fl_msg_rules_count(const ProtobufCMessageDescriptor *type);

#endif
