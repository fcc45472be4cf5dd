/* Inside the room: what tls.c needs to know of a configuration. */
#ifndef FL_WIRE_TLS_CONF_H
#define FL_WIRE_TLS_CONF_H

#include "common/wire/tls.h"
#include "common/wire/tls_compat.h"

#include <stdatomic.h>

enum { FL_TLS_SUITES = 5 };

struct fl_tls_conf {
    atomic_uint references;
    bool server, has_crl;
    mbedtls_ssl_config ssl;
    mbedtls_x509_crt ca, own;
    mbedtls_pk_context key;
    mbedtls_x509_crl crl;
    int suites[FL_TLS_SUITES + 1];
    const char *alpn[2];
    struct fl_identity identity;
};

/* Kernel randomness for the library: no state to seed, fork, clone or lock. */
int fl_tls_random(void *arg, unsigned char *to, size_t size);
void fl_tls_identity(const mbedtls_x509_crt *crt, struct fl_identity *ret);

#endif
