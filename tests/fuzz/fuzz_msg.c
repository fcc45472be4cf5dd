/*
 * The first parser a peer meets: frames, messages, rules. The input is what TLS would deliver, a
 * row of frames. Whatever passes must be whole: packing it again gives as many bytes, and those are
 * read again to the same message. The first byte of the input chooses the phase's frame limit.
 */
#include "common/base/mem.h"
#include "common/wire/msg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fuzz_msg: %s\n", what);
        abort();
    }
}

static void one_message(const uint8_t *message, size_t size)
{
    Cohort__Frame *first = NULL, *second = NULL;
    struct fl_err e = {0};

    if (fl_msg_unpack(message, size, &first, &e) < 0) {
        require(e.code < 0 && e.msg[0], "refused without a reason");
        return;
    }
    size_t n = fl_msg_packed_size(first);
    require(n == size + FL_FRAME_HEAD, "bytes without meaning");
    uint8_t *a = fl_new(n, 1), *b = fl_new(n, 1);
    fl_msg_pack(first, a);
    require(fl_msg_unpack(a + FL_FRAME_HEAD, n - FL_FRAME_HEAD, &second, &e) == 0, e.msg);
    require(fl_msg_packed_size(second) == n, "another size the second time");
    fl_msg_pack(second, b);
    require(memcmp(a, b, n) == 0, "another message the second time");
    fl_msg_free(first);
    fl_msg_free(second);
    fl_free(a);
    fl_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    size_t limit = data[0] & 1 ? FL_FRAME_HELLO_MAX : FL_FRAME_MAX;
    for (size_t at = 1, n; fl_frame_next(data + at, size - at, limit, &n, NULL) == 1;
         at += FL_FRAME_HEAD + n) {
        one_message(data + at + FL_FRAME_HEAD, n);
    }
    return 0;
}
