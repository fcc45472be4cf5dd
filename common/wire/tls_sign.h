/*
 * Signatures by the keys of certificates, for what agents must be able to show each other through a
 * coordinator that they do not trust (secure sums). Same certificates, authorities, revocation list
 * and rules as a connection. A signature is ECDSA over SHA-256 of a label and the message, so that
 * it is none of TLS, nor TLS's one of these.
 */
#ifndef FL_WIRE_TLS_SIGN_H
#define FL_WIRE_TLS_SIGN_H

#include "common/wire/tls.h"

enum { FL_TLS_SIG_MAX = 160, FL_TLS_CERT_MAX = 2048 };

/* Our own certificate, DER; lives as long as the configuration. */
size_t fl_tls_certificate(const struct fl_tls_conf *c, const uint8_t **ret);

/* -FL_R_TLS_SETUP, -FL_R_ENTROPY. */
int fl_tls_sign(const struct fl_tls_conf *c, const uint8_t *message, size_t size,
                uint8_t sig[FL_TLS_SIG_MAX], size_t *ret_size, struct fl_err *e);

/* Whether `certificate` (DER, exactly) is an agent's that may be trusted now, and its key made the
 * signature; then who it is. -FL_R_TLS_FOREIGN, _EXPIRED, _REVOKED, _CRL, _PROFILE as for a
 * connection, -FL_R_SECAGG_KEYS when it is no certificate or the signature is wrong. Thread-safe.
 */
int fl_tls_verify(const struct fl_tls_conf *c, const uint8_t *certificate, size_t certificate_size,
                  const uint8_t *message, size_t size, const uint8_t *sig, size_t sig_size,
                  struct fl_identity *ret, struct fl_err *e);
/* The same of a coordinator's certificate, which must carry `name`. `now` false: of what was
 * verified before and kept; dates and revocation are not asked again. */
int fl_tls_verify_coordinator(const struct fl_tls_conf *c, const char *name, bool now,
                              const uint8_t *certificate, size_t certificate_size,
                              const uint8_t *message, size_t size, const uint8_t *sig,
                              size_t sig_size, struct fl_identity *ret, struct fl_err *e);
/* Who a certificate (DER, exactly) speaks for; nothing is verified. -FL_R_SECAGG_KEYS: it is none.
 */
int fl_tls_certificate_of(const uint8_t *certificate, size_t size, struct fl_identity *ret,
                          struct fl_err *e);

#endif
