#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local uint64_t fail_in;
static _Thread_local bool fail_hit;

void fl_mem_fail_at(uint64_t nth)
{
    fail_in = nth;
    fail_hit = false;
}

bool fl_mem_fail_hit(void)
{
    return fail_hit;
}

static bool refuse(size_t count, size_t size, size_t *ret_bytes)
{
    if (fail_in && --fail_in == 0) {
        fail_hit = true;
        return true;
    }
    return !fl_mul(count, size, ret_bytes) || *ret_bytes > FL_MEM_MAX;
}

void *fl_new(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p) {
        fputs("out of memory at start\n", stderr);
        abort();
    }
    return p;
}

void *fl_try(size_t count, size_t size)
{
    size_t bytes;
    if (refuse(count, size, &bytes)) {
        return NULL;
    }
    return calloc(1, bytes ? bytes : 1);
}

void *fl_try_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (refuse(count, size, &bytes)) {
        return NULL;
    }
    bytes = (bytes + 63) / 64 * 64;
    void *p = aligned_alloc(64, bytes ? bytes : 64);
    if (p) {
        memset(p, 0, bytes);
    }
    return p;
}

bool fl_try_grow(void **array, size_t count, size_t size)
{
    size_t bytes;
    if (refuse(count, size, &bytes)) {
        return false;
    }
    void *p = realloc(*array, bytes ? bytes : 1);
    if (!p) {
        return false;
    }
    *array = p;
    return true;
}

void fl_free(void *p)
{
    free(p);
}

char *fl_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = fl_new(n, 1);
    memcpy(p, s, n);
    return p;
}
