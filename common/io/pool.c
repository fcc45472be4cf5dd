#include "common/base/mem.h"
#include "common/io/stream_in.h"

#include <assert.h>

struct fl_pool {
    uint32_t count, free_count;
    uint8_t *memory;
    uint8_t **free; /* a stack */
    struct fl_stream *first_waiting, *last_waiting;
};

int fl_pool_new(uint32_t buffers, struct fl_pool **ret, struct fl_err *e)
{
    assert(buffers > 0);
    struct fl_pool *p = fl_try(1, sizeof *p);
    if (p) {
        p->count = p->free_count = buffers;
        p->memory = fl_try(buffers, FL_FRAME_MAX); /* the kernel gives a page when it is touched */
        p->free = fl_try(buffers, sizeof *p->free);
    }
    if (!p || !p->memory || !p->free) {
        fl_pool_free(p);
        return fl_fail(e, FL_R_NOMEM, "no memory for %u frame buffers", buffers);
    }
    for (uint32_t i = 0; i < buffers; i++) {
        p->free[i] = p->memory + (size_t)i * FL_FRAME_MAX;
    }
    *ret = p;
    return 0;
}

void fl_pool_free(struct fl_pool *p)
{
    if (p) {
        assert(p->free_count == p->count || !p->free || !p->memory);
        fl_free(p->memory);
        fl_free(p->free);
        fl_free(p);
    }
}

size_t fl_pool_bytes(const struct fl_pool *p)
{
    return (size_t)p->count * FL_FRAME_MAX;
}

uint8_t *fl_pool_take(struct fl_pool *p, struct fl_stream *s)
{
    if (p->free_count > 0) {
        return p->free[--p->free_count];
    }
    if (!s->waiting) {
        s->waiting = true;
        s->next_waiting = NULL;
        *(p->last_waiting ? &p->last_waiting->next_waiting : &p->first_waiting) = s;
        p->last_waiting = s;
    }
    return NULL;
}

void fl_pool_give(struct fl_pool *p, uint8_t *buffer)
{
    struct fl_stream *s = p->first_waiting;

    if (!s) {
        p->free[p->free_count++] = buffer;
        return;
    }
    fl_pool_forget(p, s);
    fl_stream_got_buffer(s, buffer);
}

void fl_pool_forget(struct fl_pool *p, struct fl_stream *s)
{
    struct fl_stream *before = NULL;

    for (struct fl_stream *w = p->first_waiting; w && s->waiting; before = w, w = w->next_waiting) {
        if (w == s) {
            *(before ? &before->next_waiting : &p->first_waiting) = s->next_waiting;
            if (p->last_waiting == s) {
                p->last_waiting = before;
            }
            s->waiting = false;
        }
    }
}
