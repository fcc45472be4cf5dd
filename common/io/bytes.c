#include "common/base/mem.h"
#include "common/io/stream_in.h"

#include <string.h>

bool fl_bytes_add(struct bytes *b, const void *data, size_t size, size_t max)
{
    size_t left = fl_bytes_left(b);

    if (size > max || left > max - size) {
        return false;
    }
    if (b->at > 0 && b->size + size > b->room) {
        memmove(b->data, b->data + b->at, left);
        b->at = 0;
        b->size = left;
    }
    if (b->size + size > b->room) {
        size_t room = 2 * (b->size + size) < max ? 2 * (b->size + size) : max;
        void *grown = b->data;
        if (!fl_try_grow(&grown, room, 1)) {
            return false;
        }
        b->data = grown;
        b->room = room;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return true;
}

void fl_bytes_took(struct bytes *b, size_t n)
{
    b->at += n;
    if (b->at == b->size) {
        fl_bytes_free(b);
    }
}

void fl_bytes_free(struct bytes *b)
{
    fl_free(b->data);
    *b = (struct bytes){0};
}
