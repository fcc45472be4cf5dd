/* Messages of the control socket, both directions, as whoever may connect could send them. */
#include "common/base/mem.h"
#include "common/io/ctl_wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fl_ctl_request request, again;
    struct fl_ctl_answer answer;
    struct fl_err e = {0};
    void *memory, *second;
    uint8_t *frame;
    size_t frame_size;

    if (size > FL_CTL_REQUEST_MAX) {
        return 0;
    }
    if (fl_ctl_unpack_request(data, size, &request, &memory, &e) == 0) {
        /* What is accepted means the same when it is said again. */
        if (fl_ctl_pack_request(&request, &frame, &frame_size, &e) == 0) {
            assert(fl_ctl_unpack_request(frame + FL_CTL_HEAD, frame_size - FL_CTL_HEAD, &again,
                                         &second, &e) == 0);
            assert(strcmp(again.verb, request.verb) == 0);
            assert(again.argument_count == request.argument_count);
            assert(again.body_size == request.body_size);
            fl_ctl_release(second);
            fl_free(frame);
        }
        fl_ctl_release(memory);
    }
    if (fl_ctl_unpack_answer(data, size, &answer, &memory, &e) == 0) {
        assert(answer.text != NULL || answer.kind == FL_CTL_DATA);
        fl_ctl_release(memory);
    }
    return 0;
}
