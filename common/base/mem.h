/*
 * Memory. `fl_new*` is for small things made at start: it aborts when memory ends. `fl_try*` is for
 * everything whose size or number comes from a peer, a file or the model: it returns NULL on
 * failure or when count * size overflows or exceeds FL_MEM_MAX. All memory is zeroed and released
 * by fl_free (NULL is fine). Tests fail the n-th fl_try on purpose with fl_mem_fail_at.
 */
#ifndef FL_BASE_MEM_H
#define FL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_MEM_MAX ((size_t)1 << 36)

void *fl_new(size_t count, size_t size);
void *fl_try(size_t count, size_t size);
/* 64-byte aligned and zeroed, for tensors and grids. Also freed by fl_free. */
void *fl_try_aligned(size_t count, size_t size);
/* Grows *array (may be NULL) to hold count items; on failure returns false and changes nothing. New
 * items are not zeroed. */
bool fl_try_grow(void **array, size_t count, size_t size);
void fl_free(void *p);
/* Copies; fl_strdup aborts when memory ends. */
char *fl_strdup(const char *s);

/* False when a * b or a + b overflows size_t. */
static inline bool fl_mul(size_t a, size_t b, size_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}
static inline bool fl_add(size_t a, size_t b, size_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

/* Tests only: the n-th fl_try* of this thread from now on fails once (0 = never). fl_mem_fail_hit
 * says whether it did. */
void fl_mem_fail_at(uint64_t nth);
bool fl_mem_fail_hit(void);

#define FL_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
