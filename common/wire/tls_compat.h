/*
 * Where Mbed TLS 2.28 (Debian 12) and 3.6 differ. Only for common/wire/tls*.c. What is the same in
 * both is called by its own name there. 3.6 is held to TLS 1.2 as well: under 1.3 a client learns
 * only after its handshake that its certificate was refused, which the states of WIRE.md do not
 * have.
 */
#ifndef FL_WIRE_TLS_COMPAT_H
#define FL_WIRE_TLS_COMPAT_H

#include <mbedtls/ccm.h>
#include <mbedtls/chachapoly.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>

#if MBEDTLS_VERSION_NUMBER < 0x02160000
#error "Mbed TLS 2.28 or 3.6 is needed"
#endif

typedef int fl_compat_random(void *arg, unsigned char *to, size_t size);

#if MBEDTLS_VERSION_NUMBER >= 0x03000000

#include <psa/crypto.h>

#define FL_PRIVATE(field) MBEDTLS_PRIVATE(field)

static inline int fl_compat_start(void)
{
    return psa_crypto_init() == PSA_SUCCESS ? 0 : MBEDTLS_ERR_SSL_HW_ACCEL_FAILED;
}

static inline void fl_compat_conf_versions(mbedtls_ssl_config *c)
{
    mbedtls_ssl_conf_min_tls_version(c, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(c, MBEDTLS_SSL_VERSION_TLS1_2);
}

static inline void fl_compat_conf_algorithms(mbedtls_ssl_config *c)
{
    static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
                                      MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                      MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, 0};
    static const uint16_t signatures[] = {MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256,
                                          MBEDTLS_TLS1_3_SIG_ECDSA_SECP384R1_SHA384,
                                          MBEDTLS_TLS1_3_SIG_NONE};

    mbedtls_ssl_conf_groups(c, groups);
    mbedtls_ssl_conf_sig_algs(c, signatures);
}

static inline int fl_compat_parse_key(mbedtls_pk_context *pk, const uint8_t *pem, size_t size,
                                      fl_compat_random *random)
{
    return mbedtls_pk_parse_key(pk, pem, size, NULL, 0, random, NULL);
}

static inline int fl_compat_check_pair(const mbedtls_pk_context *certificate,
                                       const mbedtls_pk_context *key, fl_compat_random *random)
{
    return mbedtls_pk_check_pair(certificate, key, random, NULL);
}

static inline int fl_compat_sign(mbedtls_pk_context *key, const uint8_t *hash, size_t size,
                                 uint8_t *to, size_t to_size, size_t *ret, fl_compat_random *random)
{
    return mbedtls_pk_sign(key, MBEDTLS_MD_SHA256, hash, size, to, to_size, ret, random, NULL);
}

#else /* 2.28 */

#define FL_PRIVATE(field) field

static inline int fl_compat_start(void)
{
    return 0;
}

static inline void fl_compat_conf_versions(mbedtls_ssl_config *c)
{
    mbedtls_ssl_conf_min_version(c, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_max_version(c, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
}

static inline void fl_compat_conf_algorithms(mbedtls_ssl_config *c)
{
    static const mbedtls_ecp_group_id curves[] = {MBEDTLS_ECP_DP_CURVE25519,
                                                  MBEDTLS_ECP_DP_SECP256R1,
                                                  MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_NONE};
    static const int hashes[] = {MBEDTLS_MD_SHA256, MBEDTLS_MD_SHA384, MBEDTLS_MD_NONE};

    mbedtls_ssl_conf_curves(c, curves);
    mbedtls_ssl_conf_sig_hashes(c, hashes);
}

static inline int fl_compat_parse_key(mbedtls_pk_context *pk, const uint8_t *pem, size_t size,
                                      fl_compat_random *random)
{
    (void)random;
    return mbedtls_pk_parse_key(pk, pem, size, NULL, 0);
}

static inline int fl_compat_check_pair(const mbedtls_pk_context *certificate,
                                       const mbedtls_pk_context *key, fl_compat_random *random)
{
    (void)random;
    return mbedtls_pk_check_pair(certificate, key);
}

static inline int fl_compat_sign(mbedtls_pk_context *key, const uint8_t *hash, size_t size,
                                 uint8_t *to, size_t to_size, size_t *ret, fl_compat_random *random)
{
    (void)to_size; /* at least MBEDTLS_PK_SIGNATURE_MAX_SIZE */
    return mbedtls_pk_sign(key, MBEDTLS_MD_SHA256, hash, size, to, ret, random, NULL);
}

#endif

/* The number of the fatal alert that made the library return FATAL_ALERT_MESSAGE. Neither version
 * has a getter. */
static inline unsigned fl_compat_alert(const mbedtls_ssl_context *ssl)
{
    return ssl->FL_PRIVATE(in_msg) ? ssl->FL_PRIVATE(in_msg)[1] : 0;
}

static inline mbedtls_ecp_group_id fl_compat_group(const mbedtls_pk_context *pk)
{
    return mbedtls_pk_can_do(pk, MBEDTLS_PK_ECKEY)
               ? mbedtls_pk_ec(*pk)->FL_PRIVATE(grp).FL_PRIVATE(id)
               : MBEDTLS_ECP_DP_NONE;
}

static inline bool fl_compat_is_ca(const mbedtls_x509_crt *crt)
{
    return crt->FL_PRIVATE(ca_istrue) != 0;
}

static inline int fl_compat_verify_crl(const mbedtls_x509_crl *crl, mbedtls_x509_crt *ca)
{
    uint8_t hash[MBEDTLS_MD_MAX_SIZE];
    const mbedtls_md_info_t *md = mbedtls_md_info_from_type(crl->FL_PRIVATE(sig_md));
    int r = md ? mbedtls_md(md, crl->tbs.p, crl->tbs.len, hash) : MBEDTLS_ERR_MD_BAD_INPUT_DATA;

    return r ? r
             : mbedtls_pk_verify_ext(crl->FL_PRIVATE(sig_pk), crl->FL_PRIVATE(sig_opts), &ca->pk,
                                     crl->FL_PRIVATE(sig_md), hash, mbedtls_md_get_size(md),
                                     crl->FL_PRIVATE(sig).p, crl->FL_PRIVATE(sig).len);
}

#endif
