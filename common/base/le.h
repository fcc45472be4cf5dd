/* Numbers as bytes, little-endian, wherever they are written to files. */
#ifndef FL_BASE_LE_H
#define FL_BASE_LE_H

#include <stdint.h>
#include <string.h>

static inline void fl_put_u32(uint8_t *to, uint32_t x)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(x >> (8 * i));
    }
}

static inline uint32_t fl_get_u32(const uint8_t *from)
{
    uint32_t x = 0;

    for (int i = 0; i < 4; i++) {
        x |= (uint32_t)from[i] << (8 * i);
    }
    return x;
}

static inline void fl_put_u64(uint8_t *to, uint64_t x)
{
    for (int i = 0; i < 8; i++) {
        to[i] = (uint8_t)(x >> (8 * i));
    }
}

static inline uint64_t fl_get_u64(const uint8_t *from)
{
    uint64_t x = 0;

    for (int i = 0; i < 8; i++) {
        x |= (uint64_t)from[i] << (8 * i);
    }
    return x;
}

static inline void fl_put_float(uint8_t *to, float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    fl_put_u32(to, bits);
}

static inline float fl_get_float(const uint8_t *from)
{
    uint32_t bits = fl_get_u32(from);
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void fl_put_double(uint8_t *to, double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    fl_put_u64(to, bits);
}

static inline double fl_get_double(const uint8_t *from)
{
    uint64_t bits = fl_get_u64(from);
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif
