/*
 * A peer of another make, which does not keep our rules: Mbed TLS used directly, in memory, with a
 * choice of sins. For tests of what tls.c must refuse.
 */
#ifndef TESTS_LIB_LAX_PEER_H
#define TESTS_LIB_LAX_PEER_H

#include "common/base/rng.h"
#include "tests/lib/certs.h"

#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <string.h>

struct lax_sins {
    bool server;
    const char *certificate; /* NULL = none */
    const char *alpn;        /* NULL = none */
    bool tls_1_1, renegotiation;
    const int *suites; /* NULL = the library's */
};

struct lax_peer {
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config conf;
    mbedtls_x509_crt crt, ca;
    mbedtls_pk_context key;
    const char *alpn[2];
    const uint8_t *in;
    size_t in_left;
    uint8_t out[65536];
    size_t out_size;
    bool open;
};

static inline int lax_random(void *arg, unsigned char *to, size_t size)
{
    (void)arg;
    return fl_entropy(to, size, NULL);
}

static inline int lax_take(void *arg, unsigned char *to, size_t size)
{
    struct lax_peer *p = arg;
    size_t n = size < p->in_left ? size : p->in_left;

    if (n == 0) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    memcpy(to, p->in, n);
    p->in += n;
    p->in_left -= n;
    return (int)n;
}

static inline int lax_give(void *arg, const unsigned char *from, size_t size)
{
    struct lax_peer *p = arg;

    if (size > sizeof p->out - p->out_size) {
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    }
    memcpy(p->out + p->out_size, from, size);
    p->out_size += size;
    return (int)size;
}

static inline int lax_load_key(struct lax_peer *p, const char *path)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    return mbedtls_pk_parse_keyfile(&p->key, path, NULL, lax_random, NULL);
#else
    return mbedtls_pk_parse_keyfile(&p->key, path, NULL);
#endif
}

static inline struct lax_peer *lax_new(const struct lax_sins *sins)
{
    struct lax_peer *p = calloc(1, sizeof *p);
    int r = p ? 0 : -1;

    certs_make();
    mbedtls_ssl_init(&p->ssl);
    mbedtls_ssl_config_init(&p->conf);
    mbedtls_x509_crt_init(&p->crt);
    mbedtls_x509_crt_init(&p->ca);
    mbedtls_pk_init(&p->key);
    r |= mbedtls_ssl_config_defaults(&p->conf,
                                     sins->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                     MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_rng(&p->conf, lax_random, NULL);
    mbedtls_ssl_conf_authmode(&p->conf, MBEDTLS_SSL_VERIFY_NONE);
    r |= mbedtls_x509_crt_parse_file(&p->ca, certs_path("ca", "crt"));
    if (sins->server) { /* a server asks for a certificate only if it would look at it */
        mbedtls_ssl_conf_authmode(&p->conf, MBEDTLS_SSL_VERIFY_OPTIONAL);
        mbedtls_ssl_conf_ca_chain(&p->conf, &p->ca, NULL);
    }
    if (sins->certificate) {
        r |= mbedtls_x509_crt_parse_file(&p->crt, certs_path(sins->certificate, "crt"));
        r |= lax_load_key(p, certs_path(sins->certificate, "key"));
        r |= mbedtls_ssl_conf_own_cert(&p->conf, &p->crt, &p->key);
    }
    if (sins->alpn) {
        p->alpn[0] = sins->alpn;
        r |= mbedtls_ssl_conf_alpn_protocols(&p->conf, p->alpn);
    }
    if (sins->suites) {
        mbedtls_ssl_conf_ciphersuites(&p->conf, sins->suites);
    }
    mbedtls_ssl_conf_renegotiation(&p->conf, sins->renegotiation);
#if MBEDTLS_VERSION_NUMBER < 0x03000000
    if (sins->tls_1_1) {
        mbedtls_ssl_conf_max_version(&p->conf, MBEDTLS_SSL_MAJOR_VERSION_3,
                                     MBEDTLS_SSL_MINOR_VERSION_2);
    }
#endif
    r |= mbedtls_ssl_setup(&p->ssl, &p->conf);
    mbedtls_ssl_set_bio(&p->ssl, p, lax_give, lax_take, NULL);
    if (r != 0) {
        fprintf(stderr, "the lax peer cannot be made\n");
        exit(1);
    }
    return p;
}

static inline void lax_free(struct lax_peer *p)
{
    mbedtls_ssl_free(&p->ssl);
    mbedtls_ssl_config_free(&p->conf);
    mbedtls_x509_crt_free(&p->crt);
    mbedtls_x509_crt_free(&p->ca);
    mbedtls_pk_free(&p->key);
    free(p);
}

/* Takes cipher text, steps; what it wants to send is in p->out. 0 or the library's error. */
static inline int lax_step(struct lax_peer *p, const uint8_t *in, size_t size)
{
    uint8_t plain[1024];
    int r = 0;

    p->in = in;
    p->in_left = size;
    p->out_size = 0;
    if (!p->open) {
        r = mbedtls_ssl_handshake(&p->ssl);
        p->open = r == 0;
    }
    while (p->open && p->in_left > 0 && r >= 0) {
        r = mbedtls_ssl_read(&p->ssl, plain, sizeof plain);
    }
    return r == MBEDTLS_ERR_SSL_WANT_READ || r > 0 ? 0 : r;
}

#endif
