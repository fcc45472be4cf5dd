/*
 * ChaCha20 (RFC 8439) for random streams: sixteen blocks at once where the machine has AVX-512,
 * about twice as fast as libsodium 1.0.18, which knows AVX2. The bytes are the same; a test
 * compares.
 */
#ifndef FL_BASE_CHACHA_H
#define FL_BASE_CHACHA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_CHACHA_BLOCK = 64, FL_CHACHA_AT_ONCE = 16 * FL_CHACHA_BLOCK };

/* Whether this machine has it; without it fl_chacha_stream must not be called. */
bool fl_chacha_fast(void);

/* Writes the key stream from block `counter` on: `size` bytes, a multiple of FL_CHACHA_AT_ONCE; the
 * counter must not wrap inside. key: 32 bytes, nonce: 12. */
void fl_chacha_stream(const uint8_t *key, const uint8_t *nonce, uint32_t counter, uint8_t *to,
                      size_t size);

#endif
