#include "common/wire/msg.h"

int fl_frame_length(const uint8_t head[FL_FRAME_HEAD], size_t max_frame, size_t *ret_size,
                    struct fl_err *e)
{
    size_t n = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];

    if (n == 0 || n > max_frame) {
        return fl_fail(e, FL_R_FRAME_SIZE, "a frame of %zu bytes; 1 to %zu are taken now", n,
                       max_frame);
    }
    *ret_size = n;
    return 0;
}

int fl_frame_next(const uint8_t *data, size_t size, size_t max_frame, size_t *ret_size,
                  struct fl_err *e)
{
    size_t n;

    if (size < FL_FRAME_HEAD) {
        return 0;
    }
    int r = fl_frame_length(data, max_frame, &n, e);
    if (r < 0 || size - FL_FRAME_HEAD < n) {
        return r;
    }
    *ret_size = n;
    return 1;
}
