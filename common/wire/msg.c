#include "common/wire/msg.h"

#include "common/base/mem.h"
#include "common/wire/msg_rules.h"

#include <string.h>

enum { BUDGET_FACTOR = 4, BUDGET_FIXED = 64 * 1024 };

/* The first byte of a frame that holds a Chunk: field number and wire type "length-delimited". */
enum { CHUNK_TAG = COHORT__FRAME__BODY_CHUNK << 3 | 2 };

/*
 * protobuf-c builds up to 56 bytes of structure for each byte of a hostile message (empty
 * sub-messages, unknown fields, merges). The budget ends that; a real message stays far below it.
 */
struct budget {
    size_t left;
    bool spent, no_memory;
};

static void *budget_alloc(void *arg, size_t size)
{
    struct budget *b = arg;

    if (size > b->left) {
        b->spent = true;
        return NULL;
    }
    void *p = fl_try(size ? size : 1, 1);
    b->no_memory = b->no_memory || !p;
    b->left -= p ? size : 0;
    return p;
}

static void budget_free(void *arg, void *p)
{
    (void)arg;
    fl_free(p);
}

void fl_msg_free(Cohort__Frame *frame)
{
    ProtobufCAllocator allocator = {budget_alloc, budget_free, NULL};

    if (frame) {
        cohort__frame__free_unpacked(frame, &allocator);
    }
}

const char *fl_msg_name(const Cohort__Frame *frame)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(&cohort__frame__descriptor, frame->body_case);

    return f ? ((const ProtobufCMessageDescriptor *)f->descriptor)->short_name : "empty";
}

int fl_msg_check(const Cohort__Frame *frame, struct fl_err *e)
{
    if (frame->body_case == COHORT__FRAME__BODY__NOT_SET) {
        return fl_fail(e, FL_R_FRAME_PARSE, "a frame without a message");
    }
    return fl_msg_rules_check(&frame->base, e);
}

int fl_msg_unpack(const uint8_t *message, size_t size, Cohort__Frame **ret, struct fl_err *e)
{
    if (size == 0 || size > FL_FRAME_MAX ||
        (size > FL_FRAME_CONTROL_MAX && message[0] != CHUNK_TAG)) {
        return fl_fail(e, FL_R_FRAME_SIZE, "a message of %zu bytes, at most %d", size,
                       size > FL_FRAME_MAX ? FL_FRAME_MAX : FL_FRAME_CONTROL_MAX);
    }
    struct budget budget = {.left = BUDGET_FACTOR * size + BUDGET_FIXED};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    Cohort__Frame *frame = cohort__frame__unpack(&allocator, size, message);
    if (!frame) {
        return budget.spent ? fl_fail(e, FL_R_FRAME_BUDGET,
                                      "a message of %zu bytes that unpacks to more than %zu", size,
                                      BUDGET_FACTOR * size + BUDGET_FIXED)
               : budget.no_memory
                   ? fl_fail(e, FL_R_NOMEM, "no memory for a message of %zu bytes", size)
                   : fl_fail(e, FL_R_FRAME_PARSE, "%zu bytes that are no message", size);
    }
    int r = fl_msg_check(frame, e);
    /* protobuf lets a field come twice (the last one counts), a string hold a zero byte (the rest
     * is lost to C), a number be spelled with more bytes than needed. Each leaves bytes that nobody
     * looked at. */
    if (r == 0 && protobuf_c_message_get_packed_size(&frame->base) != size) {
        r = fl_fail(e, FL_R_FRAME_PARSE, "%s of %zu bytes says no more than %zu bytes would",
                    fl_msg_name(frame), size, protobuf_c_message_get_packed_size(&frame->base));
    }
    if (r < 0) {
        fl_msg_free(frame);
        return r;
    }
    *ret = frame;
    return 0;
}

size_t fl_msg_packed_size(const Cohort__Frame *frame)
{
    return FL_FRAME_HEAD + cohort__frame__get_packed_size(frame);
}

void fl_msg_pack(const Cohort__Frame *frame, uint8_t *to)
{
    size_t n = cohort__frame__pack(frame, to + FL_FRAME_HEAD);

    to[0] = (uint8_t)(n >> 24);
    to[1] = (uint8_t)(n >> 16);
    to[2] = (uint8_t)(n >> 8);
    to[3] = (uint8_t)n;
}

void fl_key_from_msg(const Cohort__Key *m, struct fl_key *ret)
{
    *ret = (struct fl_key){.round = m->round, .exchange = m->exchange};
    memcpy(ret->incarnation, m->incarnation.data, FL_INCARNATION_SIZE);
}

void fl_key_to_msg(const struct fl_key *k, Cohort__Key *m)
{
    cohort__key__init(m);
    m->incarnation.data = (uint8_t *)(uintptr_t)k->incarnation;
    m->incarnation.len = FL_INCARNATION_SIZE;
    m->round = k->round;
    m->exchange = k->exchange;
}

void fl_claimed_from_msg(const Cohort__Claimed *m, struct fl_key *ret, struct fl_digest *ret_update)
{
    *ret = (struct fl_key){.round = m->round, .exchange = m->exchange};
    memcpy(ret->incarnation, m->incarnation.data, FL_INCARNATION_SIZE);
    memcpy(ret_update->bytes, m->update.data, FL_DIGEST_SIZE);
}

void fl_claimed_to_msg(const struct fl_key *k, const struct fl_digest *update, Cohort__Claimed *m)
{
    cohort__claimed__init(m);
    m->incarnation = (ProtobufCBinaryData){.len = FL_INCARNATION_SIZE,
                                           .data = (uint8_t *)(uintptr_t)k->incarnation};
    m->round = k->round;
    m->exchange = k->exchange;
    m->update =
        (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = (uint8_t *)(uintptr_t)update->bytes};
}
