#include "common/base/rng.h"

#include "common/base/chacha.h"
#include "common/base/le.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <sodium.h>
#include <string.h>
#include <sys/random.h>

/* libsodium looks at the processor once, before anything runs; without this it stays with its
 * portable code, a third as fast. Repeated calls are free. */
__attribute__((constructor)) static void choose_code(void)
{
    if (sodium_init() < 0) {
        return; /* the portable code gives the same bytes */
    }
}

int fl_entropy(void *ret, size_t size, struct fl_err *e)
{
    uint8_t *at = ret;
    while (size) {
        ssize_t n = getrandom(at, size < 256 ? size : 256, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fl_fail_sys(e, FL_R_ENTROPY, errno, "getrandom");
        }
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

void fl_seed_derive(const struct fl_seed *parent, const char *label, uint64_t number,
                    struct fl_seed *ret)
{
    crypto_generichash_state st;
    uint8_t le[8];

    fl_put_u64(le, number);
    crypto_generichash_init(&st, parent->bytes, FL_SEED_SIZE, FL_SEED_SIZE);
    /* The terminating zero separates label and number. */
    crypto_generichash_update(&st, (const unsigned char *)label, strlen(label) + 1);
    crypto_generichash_update(&st, le, sizeof le);
    crypto_generichash_final(&st, ret->bytes, FL_SEED_SIZE);
}

void fl_seed_from_u64(uint64_t number, struct fl_seed *ret)
{
    static const struct fl_seed zero;
    fl_seed_derive(&zero, "number", number, ret);
}

void fl_rng_init(struct fl_rng *r, const struct fl_seed *seed, uint32_t stream)
{
    r->key = *seed;
    r->nonce = stream;
    r->block = 0;
    r->at = sizeof r->buf;
}

void fl_rng_fini(struct fl_rng *r)
{
    sodium_memzero(r, sizeof *r);
}

/* Writes `size` bytes of the stream, whole buffers' worth, and moves on; the block counter must not
 * wrap inside. */
static void blocks(struct fl_rng *r, uint8_t *to, size_t size)
{
    uint8_t nonce[crypto_stream_chacha20_ietf_NONCEBYTES] = {0};

    fl_put_u64(nonce, r->nonce);
    if (fl_chacha_fast()) {
        fl_chacha_stream(r->key.bytes, nonce, r->block, to, size);
    } else {
        memset(to, 0, size);
        crypto_stream_chacha20_ietf_xor_ic(to, to, size, nonce, r->block, r->key.bytes);
    }
    r->block += (uint32_t)(size / 64);
    if (r->block == 0) {
        r->nonce += (uint64_t)1 << 32;
    }
}

void fl_rng_bytes(struct fl_rng *r, void *ret, size_t size)
{
    uint8_t *to = ret;
    while (size) {
        size_t n = sizeof r->buf - r->at;
        if (n == 0 && size >= sizeof r->buf) {
            /* Straight to where it is wanted, up to the end of this nonce. */
            uint64_t left = (((uint64_t)1 << 32) - r->block) * 64;
            n = size - size % sizeof r->buf;
            n = n < left ? n : (size_t)left;
            blocks(r, to, n);
            to += n;
            size -= n;
            continue;
        }
        if (n == 0) {
            blocks(r, r->buf, sizeof r->buf);
            r->at = 0;
            n = sizeof r->buf;
        }
        if (n > size) {
            n = size;
        }
        memcpy(to, r->buf + r->at, n);
        r->at += (uint32_t)n;
        to += n;
        size -= n;
    }
}

void fl_rng_words(struct fl_rng *r, uint64_t *ret, size_t count)
{
    fl_rng_bytes(r, ret, count * sizeof *ret);
    for (size_t i = 0; i < count; i++) {
        ret[i] = le64toh(ret[i]);
    }
}

uint64_t fl_rng_u64(struct fl_rng *r)
{
    uint8_t b[8];

    if (sizeof r->buf - r->at >= sizeof b) { /* nearly always, and often */
        uint64_t x = fl_get_u64(r->buf + r->at);
        r->at += sizeof b;
        return x;
    }
    fl_rng_bytes(r, b, sizeof b);
    return fl_get_u64(b);
}

uint64_t fl_rng_below(struct fl_rng *r, uint64_t bound)
{
    uint64_t tail = (UINT64_MAX - bound + 1) % bound; /* 2^64 mod bound */
    uint64_t x;

    do {
        x = fl_rng_u64(r);
    } while (x < tail);
    return x % bound;
}

double fl_rng_unit(struct fl_rng *r)
{
    return (double)(fl_rng_u64(r) >> 11) * 0x1p-53;
}

double fl_rng_normal(struct fl_rng *r)
{
    double u = 1.0 - fl_rng_unit(r); /* in (0, 1] */
    double v = fl_rng_unit(r);
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}

void fl_rng_shuffle(struct fl_rng *r, uint32_t *items, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = (size_t)fl_rng_below(r, i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}
