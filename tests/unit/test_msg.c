#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/wire/msg.h"
#include "common/wire/msg_rules.h"
#include "common/wire/text.h"
#include "tests/lib/check_main.h"
#include "tests/lib/frames.h"

#include <string.h>

static struct frames all;

static int unpack(const uint8_t *message, size_t size, struct fl_err *e)
{
    Cohort__Frame *frame = NULL;
    int r = fl_msg_unpack(message, size, &frame, e);

    fl_msg_free(frame);
    return r;
}

/* Packs our message, and lets the other side judge it. */
static int send_and_check(const Cohort__Frame *frame, struct fl_err *e)
{
    uint8_t bytes[20000];
    size_t n = fl_msg_packed_size(frame);

    ck_assert_uint_le(n, sizeof bytes);
    fl_msg_pack(frame, bytes);
    int r = unpack(bytes + FL_FRAME_HEAD, n - FL_FRAME_HEAD, e);
    if (r != -FL_R_FRAME_PARSE && r != -FL_R_FRAME_SIZE && r != -FL_R_FRAME_BUDGET) {
        ck_assert_int_eq(fl_msg_check(frame, NULL), r);
    }
    return r;
}

START_TEST(test_each_message_round_trips)
{
    bool seen[COHORT__FRAME__BODY_RECEIPT + 1] = {false};

    frames_all(&all);
    for (size_t i = 0; i < all.count; i++) {
        uint8_t back[FRAMES_SIZE_MAX];
        size_t size;
        struct fl_err e = {0};
        Cohort__Frame *frame = NULL;
        ck_assert_int_eq(fl_frame_next(all.at[i].bytes, all.at[i].size, 4096, &size, &e), 1);
        ck_assert_uint_eq(size, all.at[i].size - 4);
        ck_assert_msg(fl_msg_unpack(all.at[i].bytes + 4, size, &frame, &e) == 0, "%s", e.msg);
        ck_assert_uint_eq(fl_msg_packed_size(frame), all.at[i].size);
        fl_msg_pack(frame, back);
        ck_assert_mem_eq(back, all.at[i].bytes, all.at[i].size);
        seen[frame->body_case] = true;
        fl_msg_free(frame);
    }
    for (int body = 1; body <= COHORT__FRAME__BODY_RECEIPT; body++) {
        ck_assert_msg(seen[body], "no example of message %d", body);
    }
}
END_TEST

START_TEST(test_no_message_and_no_field_is_without_a_rule)
{
    const ProtobufCMessageDescriptor *frame = &cohort__frame__descriptor;

    ck_assert_int_eq(fl_msg_rules_count(frame), (int)frame->n_fields);
    for (unsigned i = 0; i < frame->n_fields; i++) {
        const ProtobufCMessageDescriptor *type = frame->fields[i].descriptor;
        ck_assert_msg(fl_msg_rules_count(type) == (int)type->n_fields, "%s", type->name);
        for (unsigned j = 0; j < type->n_fields; j++) {
            const ProtobufCMessageDescriptor *inner = type->fields[j].descriptor;
            if (type->fields[j].type != PROTOBUF_C_TYPE_MESSAGE) {
                continue;
            }
            ck_assert_msg(fl_msg_rules_count(inner) == (int)inner->n_fields, "%s", inner->name);
            for (unsigned k = 0; k < inner->n_fields; k++) {
                /* Nothing nests deeper, nothing can recurse. */
                ck_assert_int_ne(inner->fields[k].type, PROTOBUF_C_TYPE_MESSAGE);
            }
        }
    }
}
END_TEST

START_TEST(test_every_truncation_is_refused_or_another_whole_message)
{
    frames_all(&all);
    for (size_t i = 0; i < all.count; i++) {
        size_t size;
        for (size_t n = 0; n < all.at[i].size; n++) {
            ck_assert_int_eq(fl_frame_next(all.at[i].bytes, n, 4096, &size, NULL), 0);
            if (n > 4) {
                /* Cut inside the message: its head says more than there is. */
                ck_assert_int_lt(unpack(all.at[i].bytes + 4, n - 4, NULL), 0);
            }
        }
    }
}
END_TEST

START_TEST(test_every_flipped_bit_is_refused_or_another_valid_message)
{
    size_t refused = 0, valid = 0;

    frames_all(&all);
    for (size_t i = 0; i < all.count; i++) {
        uint8_t *message = all.at[i].bytes + 4;
        size_t size = all.at[i].size - 4;
        for (size_t bit = 0; bit < 8 * size; bit++) {
            Cohort__Frame *frame = NULL;
            struct fl_err e = {0};
            message[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int r = fl_msg_unpack(message, size, &frame, &e);
            if (r == 0) {
                ck_assert_uint_eq(fl_msg_packed_size(frame) - 4, size);
                valid++;
            } else {
                ck_assert_int_eq(e.code, r);
                ck_assert_uint_gt(strlen(e.msg), 0);
                refused++;
            }
            fl_msg_free(frame);
            message[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        /* And of the head: never a frame longer than allowed, never one that is there only in part.
         */
        for (size_t bit = 0; bit < 32; bit++) {
            size_t n = 0;
            all.at[i].bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int r = fl_frame_next(all.at[i].bytes, all.at[i].size, 4096, &n, NULL);
            ck_assert(r != 1 || n < size);
            all.at[i].bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    ck_assert_uint_gt(refused, 1000);
    ck_assert_uint_gt(valid, 1000); /* digests are free bytes */
}
END_TEST

START_TEST(test_random_bytes_never_pass_for_long)
{
    struct fl_seed seed;
    struct fl_rng rng;
    uint8_t bytes[200];

    fl_seed_from_u64(3, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int i = 0; i < 100000; i++) {
        size_t n = 1 + fl_rng_below(&rng, sizeof bytes - 1);
        fl_rng_bytes(&rng, bytes, n);
        if (i % 2) { /* look a little like a message */
            bytes[0] = (uint8_t)((1 + fl_rng_below(&rng, 17)) << 3 | 2);
            bytes[1 < n ? 1 : 0] = (uint8_t)(n - 2);
        }
        unpack(bytes, n, NULL);
    }
}
END_TEST

START_TEST(test_frame_sizes)
{
    uint8_t head[4] = {0, 0, 0, 0};
    size_t n;

    ck_assert_int_eq(fl_frame_next(head, 4, 4096, &n, NULL), -FL_R_FRAME_SIZE);
    head[2] = 0x10;
    ck_assert_int_eq(fl_frame_next(head, 4, 4096, &n, NULL), 0);
    head[3] = 1;
    ck_assert_int_eq(fl_frame_next(head, 4, 4096, &n, NULL), -FL_R_FRAME_SIZE);
    head[0] = 0xff;
    ck_assert_int_eq(fl_frame_next(head, 4, FL_FRAME_MAX, &n, NULL), -FL_R_FRAME_SIZE);
    ck_assert_int_eq(fl_frame_next(head, 3, FL_FRAME_MAX, &n, NULL), 0);
}
END_TEST

/* A message of `count` repetitions of these bytes as body number `body`. */
static int bomb(unsigned body, const uint8_t *piece, size_t piece_size, size_t count)
{
    static uint8_t message[FL_FRAME_MAX];
    size_t inner = piece_size * count, at = 0;
    struct fl_err e = {0};

    message[at++] = (uint8_t)(body << 3 | 2);
    if (body > 15) {
        message[0] = (uint8_t)(0x80 | (body << 3 & 0x7f) | 2);
        message[at++] = (uint8_t)(body >> 4);
    }
    for (size_t n = inner;; n >>= 7) {
        message[at++] = (uint8_t)((n & 0x7f) | (n > 0x7f ? 0x80 : 0));
        if (n <= 0x7f) {
            break;
        }
    }
    ck_assert_uint_le(at + inner, sizeof message);
    for (size_t i = 0; i < count; i++) {
        memcpy(message + at + i * piece_size, piece, piece_size);
    }
    return unpack(message, at + inner, &e);
}

START_TEST(test_bombs_hit_a_limit_before_memory)
{
    const uint8_t empty_string[] = {3 << 3 | 2, 0}, unknown[] = {0x7f & (15 << 3 | 0), 1};
    const uint8_t empty_message[] = {4 << 3 | 2, 0}, key[] = {3 << 3 | 2, 0};

    /* Longer than any control message: not even looked into. */
    ck_assert_int_eq(bomb(COHORT__FRAME__BODY_HELLO, empty_string, 2, 100000), -FL_R_FRAME_SIZE);
    /* Within its length: the budget (56 bytes for 2) or the rules. */
    ck_assert_int_lt(bomb(COHORT__FRAME__BODY_HELLO, empty_string, 2, 4000), 0);
    ck_assert_int_lt(bomb(COHORT__FRAME__BODY_HELLO, unknown, 2, 4000), 0);
    ck_assert_int_eq(bomb(COHORT__FRAME__BODY_REST, empty_message, 2, 4000), -FL_R_FRAME_BUDGET);
    ck_assert_int_lt(bomb(COHORT__FRAME__BODY_REFUSE, key, 2, 4000), 0);
    /* A long message passes as a Chunk only by being one. */
    ck_assert_int_lt(bomb(COHORT__FRAME__BODY_CHUNK, unknown, 2, 130000), 0);
    ck_assert_int_eq(bomb(COHORT__FRAME__BODY_CHUNK, unknown, 2, 130000), -FL_R_FRAME_BUDGET);
}
END_TEST

START_TEST(test_unknown_fields_are_refused_at_every_level)
{
    uint8_t bytes[FRAMES_SIZE_MAX + 8];

    frames_all(&all);
    for (size_t i = 0; i < all.count; i++) {
        size_t size = all.at[i].size - 4;
        const uint8_t extra[] = {0x98, 0x06, 1}; /* field 99, varint 1 */
        memcpy(bytes, all.at[i].bytes + 4, size);
        memcpy(bytes + size, extra, sizeof extra);
        ck_assert_int_eq(unpack(bytes, size + sizeof extra, NULL), -FL_R_FRAME_UNKNOWN);
    }
    /* Inside: a Ping with a field 2; a Key with a field 4 inside an Accept. */
    const uint8_t ping[] = {4 << 3 | 2, 4, 1 << 3, 7, 2 << 3, 1};
    ck_assert_int_eq(unpack(ping, sizeof ping, NULL), -FL_R_FRAME_UNKNOWN);
    uint8_t accept[] = {10 << 3 | 2, 24, 1 << 3 | 2, 22, 1 << 3 | 2, 16, 0,      0, 0,
                        0,           0,  0,          0,  0,          0,  0,      0, 0,
                        0,           0,  0,          0,  2 << 3,     1,  4 << 3, 1};
    ck_assert_int_eq(unpack(accept, sizeof accept, NULL), -FL_R_FRAME_UNKNOWN);
}
END_TEST

START_TEST(test_bytes_without_meaning_are_refused)
{
    const uint8_t twice[] = {4 << 3 | 2, 2, 1 << 3, 7, 4 << 3 | 2, 2, 1 << 3, 7};
    const uint8_t two_bodies[] = {4 << 3 | 2, 2, 1 << 3, 7, 5 << 3 | 2, 2, 1 << 3, 7};
    const uint8_t long_number[] = {4 << 3 | 2, 3, 1 << 3, 0x87, 0x00};
    const uint8_t zero[] = {4 << 3 | 2, 2, 1 << 3, 0};
    const uint8_t hidden[] = {6 << 3 | 2, 6, 1 << 3, 7, 2 << 3 | 2, 2, 'a', 0};
    const uint8_t plain[] = {6 << 3 | 2, 6, 1 << 3, 7, 2 << 3 | 2, 2, 'a', 'b'};

    ck_assert_int_eq(unpack(twice, sizeof twice, NULL), -FL_R_FRAME_PARSE);
    ck_assert_int_eq(unpack(two_bodies, sizeof two_bodies, NULL), -FL_R_FRAME_PARSE);
    ck_assert_int_eq(unpack(long_number, sizeof long_number, NULL), -FL_R_FRAME_PARSE);
    ck_assert_int_eq(unpack(zero, sizeof zero, NULL), -FL_R_FRAME_PARSE);
    ck_assert_int_eq(unpack(hidden, sizeof hidden, NULL), -FL_R_FRAME_PARSE);
    ck_assert_int_eq(unpack(plain, sizeof plain, NULL), 0);
    ck_assert_int_eq(unpack((const uint8_t *)"", 0, NULL), -FL_R_FRAME_SIZE);
}
END_TEST

START_TEST(test_fields_are_held_to_their_limits)
{
    uint8_t bytes[64] = {0};
    char *jobs[65];
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Fetch fetch = COHORT__FETCH__INIT;
    Cohort__Ask ask = COHORT__ASK__INIT;
    Cohort__Hello hello = COHORT__HELLO__INIT;
    Cohort__Accept accept = COHORT__ACCEPT__INIT;
    Cohort__Key key = COHORT__KEY__INIT;
    Cohort__Chunk chunk = COHORT__CHUNK__INIT;
    Cohort__Task task = COHORT__TASK__INIT;
    struct fl_err e = {0};

    frame.body_case = COHORT__FRAME__BODY_FETCH;
    frame.fetch = &fetch;
    for (size_t n = 0; n <= 64; n++) {
        fetch.digest = (ProtobufCBinaryData){n, bytes};
        ck_assert_int_eq(send_and_check(&frame, &e), n == 32 ? 0 : -FL_R_MSG_FIELD);
    }
    ck_assert_str_eq(e.msg, "Fetch.digest: length 64, must be 32 to 32");
    fetch.digest.len = 32;
    fetch.offset = FL_OBJECT_MAX;
    ck_assert_int_eq(send_and_check(&frame, &e), 0);
    fetch.offset++;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);

    frame.body_case = COHORT__FRAME__BODY_ASK;
    frame.ask = &ask;
    for (size_t i = 0; i < 65; i++) {
        jobs[i] = (char *)"a-job";
    }
    ask.jobs = jobs;
    ask.n_jobs = 64;
    ck_assert_int_eq(send_and_check(&frame, &e), 0);
    ask.n_jobs = 65;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);
    ask.n_jobs = 1;
    const char *const bad_names[] = {
        "",    "-a",
        "a b", "a/b",
        "..",  "\xc3\xa9",
        "a\n", "a234567890123456789012345678901234567890123456789012345678901234"};
    for (size_t i = 0; i < FL_COUNT(bad_names); i++) {
        jobs[0] = (char *)(uintptr_t)bad_names[i];
        ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);
    }

    frame.body_case = COHORT__FRAME__BODY_HELLO;
    frame.hello = &hello;
    hello.min_version = 2;
    hello.max_version = 1;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);
    hello.max_version = 2;
    ck_assert_int_eq(send_and_check(&frame, &e), 0);
    hello.software = (char *)"bell \a";
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);

    frame.body_case = COHORT__FRAME__BODY_ACCEPT;
    frame.accept = &accept;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);
    ck_assert_str_eq(e.msg, "Accept.key: missing");
    accept.key = &key;
    key.incarnation = (ProtobufCBinaryData){16, bytes};
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD); /* round 0 */
    key.round = 1;
    ck_assert_int_eq(send_and_check(&frame, &e), 0);
    key.exchange = FL_WIRE_EXCHANGES_MAX;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);

    frame.body_case = COHORT__FRAME__BODY_CHUNK;
    frame.chunk = &chunk;
    chunk.digest = (ProtobufCBinaryData){32, bytes};
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD); /* no bytes */
    chunk.data = (ProtobufCBinaryData){64, bytes};
    chunk.offset = FL_OBJECT_MAX - 64;
    ck_assert_int_eq(send_and_check(&frame, &e), 0);
    chunk.offset++;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);

    /* Where nothing travels, an update has no bytes; but a plan always has some. */
    frame.body_case = COHORT__FRAME__BODY_TASK;
    frame.task = &task;
    task.key = &key;
    key.exchange = 0;
    task.job = task.exchange = (char *)"local";
    task.plan_digest = task.base_digest = (ProtobufCBinaryData){32, bytes};
    task.plan_size = task.base_size = 1;
    ck_assert_int_eq(send_and_check(&frame, &e), 0);
    task.plan_size = 0;
    ck_assert_int_eq(send_and_check(&frame, &e), -FL_R_MSG_FIELD);

    frame.body_case = COHORT__FRAME__BODY__NOT_SET;
    ck_assert_int_eq(fl_msg_check(&frame, &e), -FL_R_FRAME_PARSE);
}
END_TEST

START_TEST(test_the_longest_chunk_fits_its_frame)
{
    uint8_t digest[32] = {1};
    uint8_t *data = fl_new(FL_CHUNK_MAX + 1, 1), *bytes = fl_new(FL_FRAME_MAX + 100, 1);
    Cohort__Frame frame = COHORT__FRAME__INIT, *back = NULL;
    Cohort__Chunk chunk = COHORT__CHUNK__INIT;

    frame.body_case = COHORT__FRAME__BODY_CHUNK;
    frame.chunk = &chunk;
    chunk.digest = (ProtobufCBinaryData){32, digest};
    chunk.offset = FL_OBJECT_MAX - FL_CHUNK_MAX;
    chunk.data = (ProtobufCBinaryData){FL_CHUNK_MAX, data};
    size_t n = fl_msg_packed_size(&frame) - FL_FRAME_HEAD;
    ck_assert_uint_le(n, FL_CHUNK_MAX + FL_CHUNK_HEAD);
    ck_assert_uint_le(n, FL_FRAME_MAX);
    fl_msg_pack(&frame, bytes);
    ck_assert_int_eq(fl_msg_unpack(bytes + 4, n, &back, NULL), 0);
    ck_assert_uint_eq(back->chunk->data.len, FL_CHUNK_MAX);
    fl_msg_free(back);
    chunk.data.len++;
    fl_msg_pack(&frame, bytes);
    ck_assert_int_eq(unpack(bytes + 4, fl_msg_packed_size(&frame) - 4, NULL), -FL_R_MSG_FIELD);
    fl_free(data);
    fl_free(bytes);
}
END_TEST

START_TEST(test_memory_failures_at_every_call)
{
    frames_all(&all);
    for (size_t i = 0; i < all.count; i++) {
        for (uint64_t nth = 1;; nth++) {
            Cohort__Frame *frame = NULL;
            fl_mem_fail_at(nth);
            int r = fl_msg_unpack(all.at[i].bytes + 4, all.at[i].size - 4, &frame, NULL);
            bool hit = fl_mem_fail_hit();
            fl_mem_fail_at(0);
            fl_msg_free(frame);
            ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
            if (!hit) {
                break;
            }
        }
    }
}
END_TEST

START_TEST(test_keys)
{
    struct fl_key k = {.round = 7, .exchange = 3}, back;
    Cohort__Key m;

    memset(k.incarnation, 0x5a, sizeof k.incarnation);
    fl_key_to_msg(&k, &m);
    fl_key_from_msg(&m, &back);
    ck_assert(fl_key_equal(&k, &back));
}
END_TEST

START_TEST(test_texts)
{
    char text[8];

    ck_assert(fl_text_valid("", 10) && fl_text_valid("d\xc3\xa9j\xc3\xa0 vu \xf0\x9f\x8e\x89", 20));
    ck_assert(!fl_text_valid("12345678901", 10));
    const char *const bad[] = {"\n",       "\x1b[2J",          "\x7f",
                               "\xc2\x9b", "\xc0\xaf",         "\xed\xa0\x80",
                               "\xe2\x80", "\xf5\x80\x80\x80", "\xf4\x90\x80\x80",
                               "\x80",     "\xe2\x80\xa8",     "\xc3"};
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        ck_assert_msg(!fl_text_valid(bad[i], 10), "%zu", i);
        fl_text_clean(text, sizeof text, bad[i]);
        ck_assert(text[0] == '?' && fl_text_valid(text, sizeof text));
    }
    fl_text_clean(text, sizeof text, "abcdef\xc3\xa9");
    ck_assert_str_eq(text, "abcdef");
    fl_text_clean(text, sizeof text, "abcdefgh");
    ck_assert_str_eq(text, "abcdefg");
    fl_text_clean(text, sizeof text, NULL);
    ck_assert_str_eq(text, "");
}
END_TEST

TESTS_MAIN("msg", test_each_message_round_trips, test_no_message_and_no_field_is_without_a_rule,
           test_every_truncation_is_refused_or_another_whole_message,
           test_every_flipped_bit_is_refused_or_another_valid_message,
           test_random_bytes_never_pass_for_long, test_frame_sizes,
           test_bombs_hit_a_limit_before_memory, test_unknown_fields_are_refused_at_every_level,
           test_bytes_without_meaning_are_refused, test_fields_are_held_to_their_limits,
           test_the_longest_chunk_fits_its_frame, test_memory_failures_at_every_call, test_keys,
           test_texts)
