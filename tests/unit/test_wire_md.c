/* proto/WIRE.md says what the code does: its vectors, limits and reasons are compared with it. */
#include "common/base/mem.h"
#include "common/io/stream.h"
#include "common/wire/msg.h"
#include "common/wire/receipt.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *page;

static void read_page(void)
{
    FILE *f = fopen(TEST_SOURCE_ROOT "/proto/WIRE.md", "rb");

    ck_assert_ptr_nonnull(f);
    page = fl_new(1 << 20, 1);
    size_t n = fread(page, 1, (1 << 20) - 1, f);
    fclose(f);
    ck_assert_uint_gt(n, 10000);
}

static size_t from_hex(const char *hex, uint8_t *to, size_t room)
{
    size_t n = 0;
    unsigned byte;

    for (; n < room && sscanf(hex, "%2x", &byte) == 1; hex += 2) {
        to[n++] = (uint8_t)byte;
    }
    return n;
}

START_TEST(test_vectors_are_frames)
{
    bool seen[COHORT__FRAME__BODY_RECEIPT + 1] = {false};

    read_page();
    for (char *line = page; (line = strstr(line, "    vector ")); line++) {
        char name[32], hex[2048];
        uint8_t bytes[1024], back[1024];
        size_t size;
        Cohort__Frame *frame = NULL;
        struct fl_err e = {0};
        ck_assert_int_eq(sscanf(line, " vector %31[A-Za-z]: %2047[0-9a-f]", name, hex), 2);
        size_t n = from_hex(hex, bytes, sizeof bytes);
        ck_assert_uint_eq(2 * n, strlen(hex));
        ck_assert_int_eq(fl_frame_next(bytes, n, FL_FRAME_HELLO_MAX, &size, &e), 1);
        ck_assert_uint_eq(size + FL_FRAME_HEAD, n);
        ck_assert_msg(fl_msg_unpack(bytes + FL_FRAME_HEAD, size, &frame, &e) == 0, "%s: %s", name,
                      e.msg);
        ck_assert_str_eq(fl_msg_name(frame), name);
        ck_assert_uint_eq(fl_msg_packed_size(frame), n);
        fl_msg_pack(frame, back);
        ck_assert_mem_eq(back, bytes, n);
        seen[frame->body_case] = true;
        fl_msg_free(frame);
    }
    for (int body = 1; body <= COHORT__FRAME__BODY_RECEIPT; body++) {
        ck_assert_msg(seen[body], "no vector of message %d", body);
    }
    fl_free(page);
}
END_TEST

#define LIMIT(name)                                                                                \
    {                                                                                              \
#name, (uint64_t)name                                                                      \
    }

START_TEST(test_limits_are_those_of_the_code)
{
    static const struct {
        const char *name;
        uint64_t value;
    } limits[] = {
        LIMIT(FL_FRAME_HELLO_MAX),
        LIMIT(FL_FRAME_CONTROL_MAX),
        LIMIT(FL_FRAME_MAX),
        LIMIT(FL_CHUNK_MAX),
        LIMIT(FL_OBJECT_MAX),
        LIMIT(FL_WIRE_PLAN_MAX),
        LIMIT(FL_DIGEST_SIZE),
        LIMIT(FL_INCARNATION_SIZE),
        LIMIT(FL_WIRE_NAME_MAX),
        LIMIT(FL_WIRE_CAPABILITIES_MAX),
        LIMIT(FL_WIRE_JOBS_MAX),
        LIMIT(FL_WIRE_FINALS_MAX),
        LIMIT(FL_WIRE_EXCHANGES_MAX),
        LIMIT(FL_WIRE_CLAIMS_MAX),
        LIMIT(FL_WIRE_CERTIFICATE_MAX),
        LIMIT(FL_WIRE_SIGNATURE_MAX),
        LIMIT(FL_WIRE_WEIGHT_MAX),
        LIMIT(FL_TEXT_MAX),
        LIMIT(FL_WIRE_RETRY_MAX_MS),
        LIMIT(FL_WIRE_HEARTBEAT_MIN_MS),
        LIMIT(FL_WIRE_HEARTBEAT_MAX_MS),
        LIMIT(FL_STREAM_HANDSHAKE_MS),
        LIMIT(FL_STREAM_FRAME_MS),
        LIMIT(FL_STREAM_CLOSE_MS),
        LIMIT(FL_STREAM_QUEUE_MAX),
    };

    read_page();
    for (size_t i = 0; i < FL_COUNT(limits); i++) {
        char mark[64], row[256];
        unsigned long long value;
        snprintf(mark, sizeof mark, "| `%s` |", limits[i].name);
        char *at = strstr(page, mark);
        ck_assert_msg(at, "no row for %s", limits[i].name);
        while (at > page && at[-1] != '\n') {
            at--;
        }
        ck_assert_int_eq(sscanf(at, "| %255[^|]| %llu", row, &value), 2);
        ck_assert_msg(value == limits[i].value, "%s is %llu, the page says %llu", limits[i].name,
                      (unsigned long long)limits[i].value, value);
    }
    fl_free(page);
}
END_TEST

START_TEST(test_reasons_are_those_of_the_registry)
{
    read_page();
#define CHECK_ROW(number, name, text, meaning)                                                     \
    ck_assert_msg(strstr(page, "\n| " #number " | " text " | " meaning " |\n"), "reason %d",       \
                  number);
    FL_REASONS(CHECK_ROW)
#undef CHECK_ROW
    /* And none beside. */
    int rows = 0, reasons = 0;
    char *section = strstr(page, "\n## 10. Reasons");
    ck_assert_ptr_nonnull(section);
    for (char *line = section; (line = strstr(line, "\n| ")); line++) {
        rows += line[3] >= '0' && line[3] <= '9';
    }
#define COUNT_REASON(number, name, text, meaning) reasons++;
    FL_REASONS(COUNT_REASON)
#undef COUNT_REASON
    ck_assert_int_eq(rows, reasons);
    fl_free(page);
}
END_TEST

/* The text in section 12 is that of the vector in section 9. */
START_TEST(test_the_text_of_a_receipt)
{
    struct fl_receipt r = {.job = "fashion",
                           .key = {.round = 41, .exchange = 1},
                           .round = 41,
                           .weight = 1,
                           .size = 2161};
    char text[FL_RECEIPT_TEXT_MAX], want[2 * FL_RECEIPT_TEXT_MAX] = "";

    r.key.incarnation[0] = 0x1c;
    for (uint8_t i = 1; i < FL_INCARNATION_SIZE; i++) {
        r.key.incarnation[i] = i;
    }
    memset(r.agent, 0xee, sizeof r.agent);
    memset(r.update.bytes, 0xbb, FL_DIGEST_SIZE);
    memset(r.record.bytes, 0xcc, FL_DIGEST_SIZE);
    memset(r.model.bytes, 0xdd, FL_DIGEST_SIZE);
    size_t size = fl_receipt_text(&r, text), n = 0;
    ck_assert_uint_eq(size, strlen(text));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        n += (size_t)snprintf(want + n, sizeof want - n, "    %s\n", line);
    }
    read_page();
    ck_assert_msg(strstr(page, want), "the page does not have\n%s", want);
    fl_free(page);
    /* Every field at its longest: nothing is cut. */
    memset(r.job, 'j', sizeof r.job - 1);
    r.key.round = r.round = INT64_MAX;
    r.key.exchange = FL_WIRE_EXCHANGES_MAX - 1;
    r.weight = FL_WIRE_WEIGHT_MAX;
    r.size = FL_OBJECT_MAX;
    size = fl_receipt_text(&r, text);
    ck_assert_uint_eq(size, strlen(text));
    ck_assert_uint_lt(size, FL_RECEIPT_TEXT_MAX - 100);
    ck_assert_ptr_nonnull(strstr(text, " 1073741824 68719476736\nrecord "));
    ck_assert_int_eq(text[size - 1], '\n');
}
END_TEST

TESTS_MAIN("wire-md", test_vectors_are_frames, test_the_text_of_a_receipt,
           test_limits_are_those_of_the_code, test_reasons_are_those_of_the_registry)
