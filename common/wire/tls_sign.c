#include "common/wire/tls_sign.h"

#include "common/base/mem.h"
#include "common/wire/tls_conf.h"

#include <string.h>

size_t fl_tls_certificate(const struct fl_tls_conf *c, const uint8_t **ret)
{
    *ret = c->own.raw.p;
    return c->own.raw.len;
}

static void digest(const uint8_t *message, size_t size, uint8_t ret[32])
{
    static const char label[] = "cohort certificate signature 1"; /* with its zero */
    mbedtls_md_context_t md;

    mbedtls_md_init(&md);
    /* None of these can fail for a digest that is built in, but for memory. */
    if (mbedtls_md_setup(&md, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 0) != 0 ||
        mbedtls_md_starts(&md) != 0 ||
        mbedtls_md_update(&md, (const uint8_t *)label, sizeof label) != 0 ||
        mbedtls_md_update(&md, message, size) != 0 || mbedtls_md_finish(&md, ret) != 0) {
        memset(ret, 0, 32);
    }
    mbedtls_md_free(&md);
}

int fl_tls_sign(const struct fl_tls_conf *c, const uint8_t *message, size_t size,
                uint8_t sig[FL_TLS_SIG_MAX], size_t *ret_size, struct fl_err *e)
{
    static const uint8_t nothing[32];
    uint8_t hash[32], made[MBEDTLS_PK_SIGNATURE_MAX_SIZE];
    size_t made_size = 0;

    digest(message, size, hash);
    if (memcmp(hash, nothing, sizeof hash) == 0) {
        return fl_fail(e, FL_R_NOMEM, "a digest to sign");
    }
    /* The library takes the key without const; it signed at load, so nothing is written. */
    int r = fl_compat_sign((mbedtls_pk_context *)&c->key, hash, sizeof hash, made, sizeof made,
                           &made_size, fl_tls_random);
    if (r != 0 || made_size > FL_TLS_SIG_MAX) {
        return fl_fail(e, FL_R_TLS_SETUP, "our certificate's key does not sign (%d)", r);
    }
    memcpy(sig, made, made_size);
    *ret_size = made_size;
    return 0;
}

/* Who a certificate has to be of. */
struct role {
    const char *whose, *usage;
    size_t usage_size;
    const char *name; /* that it must carry; NULL = any */
    bool now;         /* in its dates and not revoked */
};

/* Issued directly by an authority, of the curves we use, made for this role. */
static int judge(const struct fl_tls_conf *c, const struct role *role, mbedtls_x509_crt *crt,
                 struct fl_err *e)
{
    static const struct {
        uint32_t flags;
        enum fl_reason reason;
        const char *text;
    } causes[] = {
        {MBEDTLS_X509_BADCERT_NOT_TRUSTED, FL_R_TLS_FOREIGN, "not issued by our authority"},
        {MBEDTLS_X509_BADCERT_CN_MISMATCH, FL_R_TLS_NAME, "of another name"},
        {MBEDTLS_X509_BADCERT_REVOKED, FL_R_TLS_REVOKED, "revoked"},
        {MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE, FL_R_TLS_EXPIRED,
         "outside its dates"},
        {MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE | MBEDTLS_X509_BADCRL_NOT_TRUSTED,
         FL_R_TLS_CRL, "not to be judged: the revocation list is out of date"},
    };
    uint32_t flags = 0;
    int r = mbedtls_x509_crt_verify_with_profile(
        crt, (mbedtls_x509_crt *)&c->ca,
        role->now && c->has_crl ? (mbedtls_x509_crl *)&c->crl : NULL,
        &mbedtls_x509_crt_profile_suiteb, role->name, &flags, NULL, NULL);

    if (!role->now && r == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
        r = flags ? r : 0;
    }
    for (size_t i = 0; i < FL_COUNT(causes); i++) {
        if (flags & causes[i].flags) {
            return fl_fail(e, causes[i].reason, "a certificate is %s", causes[i].text);
        }
    }
    if (r != 0 || flags ||
        mbedtls_x509_crt_check_key_usage(crt, MBEDTLS_X509_KU_DIGITAL_SIGNATURE) != 0 ||
        mbedtls_x509_crt_check_extended_key_usage(crt, role->usage, role->usage_size) != 0) {
        return fl_fail(e, FL_R_TLS_PROFILE, "a certificate is not made for %s", role->whose);
    }
    return 0;
}

/* DER, with nothing behind it. */
static int parse(mbedtls_x509_crt *crt, const uint8_t *certificate, size_t size, struct fl_err *e)
{
    mbedtls_x509_crt_init(crt);
    if (size == 0 || size > FL_TLS_CERT_MAX ||
        mbedtls_x509_crt_parse_der(crt, certificate, size) != 0 || crt->raw.len != size) {
        return fl_fail(e, FL_R_SECAGG_KEYS, "%zu bytes that are no certificate", size);
    }
    return 0;
}

int fl_tls_certificate_of(const uint8_t *certificate, size_t size, struct fl_identity *ret,
                          struct fl_err *e)
{
    mbedtls_x509_crt crt;
    int r = parse(&crt, certificate, size, e);

    if (r == 0) {
        fl_tls_identity(&crt, ret);
    }
    mbedtls_x509_crt_free(&crt);
    return r;
}

static int verify(const struct fl_tls_conf *c, const struct role *role, const uint8_t *certificate,
                  size_t certificate_size, const uint8_t *message, size_t size, const uint8_t *sig,
                  size_t sig_size, struct fl_identity *ret, struct fl_err *e)
{
    struct fl_identity identity;
    mbedtls_x509_crt crt;
    uint8_t hash[32];
    int r = parse(&crt, certificate, certificate_size, e);

    r = r < 0 ? r : judge(c, role, &crt, e);
    if (r < 0) {
        goto out;
    }
    digest(message, size, hash);
    if (sig_size == 0 || sig_size > FL_TLS_SIG_MAX ||
        mbedtls_pk_verify(&crt.pk, MBEDTLS_MD_SHA256, hash, sizeof hash, sig, sig_size) != 0) {
        fl_tls_identity(&crt, &identity);
        r = fl_fail(e, FL_R_SECAGG_KEYS, "not signed by the key of %s", identity.name);
        goto out;
    }
    fl_tls_identity(&crt, ret);
out:
    mbedtls_x509_crt_free(&crt);
    return r;
}

int fl_tls_verify(const struct fl_tls_conf *c, const uint8_t *certificate, size_t certificate_size,
                  const uint8_t *message, size_t size, const uint8_t *sig, size_t sig_size,
                  struct fl_identity *ret, struct fl_err *e)
{
    const struct role agent = {.whose = "an agent",
                               .usage = MBEDTLS_OID_CLIENT_AUTH,
                               .usage_size = MBEDTLS_OID_SIZE(MBEDTLS_OID_CLIENT_AUTH),
                               .now = true};

    return verify(c, &agent, certificate, certificate_size, message, size, sig, sig_size, ret, e);
}

int fl_tls_verify_coordinator(const struct fl_tls_conf *c, const char *name, bool now,
                              const uint8_t *certificate, size_t certificate_size,
                              const uint8_t *message, size_t size, const uint8_t *sig,
                              size_t sig_size, struct fl_identity *ret, struct fl_err *e)
{
    const struct role coordinator = {.whose = "a coordinator",
                                     .usage = MBEDTLS_OID_SERVER_AUTH,
                                     .usage_size = MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH),
                                     .name = name,
                                     .now = now};

    return verify(c, &coordinator, certificate, certificate_size, message, size, sig, sig_size, ret,
                  e);
}
