/*
 * DER is written from its end to its beginning, as the library's asn1write functions do: then every
 * length is known when its header is due. A function that writes something constructed remembers
 * where the end is (`end = o->p`), writes the contents in reverse order and wraps them.
 */
#include "server/ctl/pki_x509.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/io/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <mbedtls/asn1write.h>
#include <mbedtls/ecp.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    TBS_MAX = 4096,
    SPKI_MAX = 256,
    KEY_ID = 20, /* RFC 7093, method 1: leftmost 160 bits of SHA-256 of the key's bits */
    CRL_FIXED = 2048,
    CRL_ENTRY = 64,
    TAG_SEQUENCE = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE,
    TAG_SET = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SET,
    TAG_CONTEXT = MBEDTLS_ASN1_CONTEXT_SPECIFIC,
    TAG_CONTEXT_BOX = MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_ASN1_CONSTRUCTED,
};

struct fl_pki_key {
    mbedtls_pk_context pk;
    uint8_t spki[SPKI_MAX]; /* SubjectPublicKeyInfo, DER */
    size_t spki_size;
    uint8_t id[KEY_ID];
};

struct fl_pki_authority {
    struct fl_pki_key key;
    mbedtls_x509_crt crt;
};

/* ---- what 2.28 and 3.x spell differently ---- */

static int kernel_rng(void *unused, unsigned char *to, size_t size)
{
    (void)unused;
    return fl_entropy(to, size, NULL) ? MBEDTLS_ERR_PK_ALLOC_FAILED : 0;
}

static int sign(mbedtls_pk_context *pk, const uint8_t hash[32], uint8_t *to, size_t size,
                size_t *ret_size)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    return mbedtls_pk_sign(pk, MBEDTLS_MD_SHA256, hash, 32, to, size, ret_size, kernel_rng, NULL);
#else
    (void)size;
    return mbedtls_pk_sign(pk, MBEDTLS_MD_SHA256, hash, 32, to, ret_size, kernel_rng, NULL);
#endif
}

static int parse_key(mbedtls_pk_context *pk, const char *path)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    return mbedtls_pk_parse_keyfile(pk, path, NULL, kernel_rng, NULL);
#else
    return mbedtls_pk_parse_keyfile(pk, path, NULL);
#endif
}

static int check_pair(mbedtls_pk_context *public_key, mbedtls_pk_context *private_key)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    return mbedtls_pk_check_pair(public_key, private_key, kernel_rng, NULL);
#else
    return mbedtls_pk_check_pair(public_key, private_key);
#endif
}

static int sha256(const void *data, size_t size, uint8_t ret[32])
{
    return mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), data, size, ret);
}

static int fail(struct fl_err *e, const char *what, int status)
{
    return fl_fail(e, FL_R_TLS_SETUP, "%s (library error -0x%04x)", what, (unsigned)-status);
}

/* ---- keys ---- */

/* Learns the public half of a key. */
static int learn(struct fl_pki_key *k)
{
    uint8_t buf[SPKI_MAX], hash[32];
    int size = mbedtls_pk_write_pubkey_der(&k->pk, buf, sizeof buf);

    if (size < 0) {
        return size;
    }
    k->spki_size = (size_t)size;
    memcpy(k->spki, buf + sizeof buf - k->spki_size, k->spki_size); /* it writes from the end */
    unsigned char *p = buf + sizeof buf;
    size = mbedtls_pk_write_pubkey(&p, buf, &k->pk);
    if (size < 0) {
        return size;
    }
    int status = sha256(p, (size_t)size, hash);
    memcpy(k->id, hash, KEY_ID);
    return status;
}

int fl_pki_key_make(struct fl_pki_key **ret, struct fl_err *e)
{
    struct fl_pki_key *k = fl_new(1, sizeof *k);

    mbedtls_pk_init(&k->pk);
    int status = mbedtls_pk_setup(&k->pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
    if (status == 0) {
        status =
            mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(k->pk), kernel_rng, NULL);
    }
    if (status == 0) {
        status = learn(k);
    }
    if (status) {
        fl_pki_key_free(k);
        return fail(e, "cannot make a key", status);
    }
    *ret = k;
    return 0;
}

void fl_pki_key_free(struct fl_pki_key *k)
{
    if (k) {
        mbedtls_pk_free(&k->pk);
        fl_free(k);
    }
}

void fl_pki_key_identity(const struct fl_pki_key *k, uint8_t ret[FL_PKI_KEY])
{
    /* Hashing memory with a digest that is compiled in cannot fail. */
    if (sha256(k->spki, k->spki_size, ret) != 0) {
        memset(ret, 0, FL_PKI_KEY);
    }
}

int fl_pki_key_pem(struct fl_pki_key *k, char ret[FL_PKI_PEM_MAX], struct fl_err *e)
{
    int status = mbedtls_pk_write_key_pem(&k->pk, (unsigned char *)ret, FL_PKI_PEM_MAX);

    return status ? fail(e, "cannot write a key", status) : 0;
}

int fl_pki_serial(uint8_t ret[FL_PKI_SERIAL], struct fl_err *e)
{
    do {
        int status = fl_entropy(ret, FL_PKI_SERIAL, e);
        if (status) {
            return status;
        }
        ret[0] &= 0x7f;
    } while (ret[0] == 0); /* so that its DER has exactly these bytes */
    return 0;
}

/* ---- DER ---- */

struct out {
    uint8_t *start, *p;
    int status; /* the first failure */
};

static void put(struct out *o, int written)
{
    if (written < 0 && o->status == 0) {
        o->status = written;
    }
}

static void put_bytes(struct out *o, const void *data, size_t size)
{
    put(o, mbedtls_asn1_write_raw_buffer(&o->p, o->start, data, size));
}

static void wrap(struct out *o, const uint8_t *end, int tag)
{
    put(o, mbedtls_asn1_write_len(&o->p, o->start, (size_t)(end - o->p)));
    put(o, mbedtls_asn1_write_tag(&o->p, o->start, (unsigned char)tag));
}

static void put_tagged(struct out *o, int tag, const void *data, size_t size)
{
    const uint8_t *end = o->p;

    put_bytes(o, data, size);
    wrap(o, end, tag);
}

static void put_oid(struct out *o, const char *oid)
{
    put(o, mbedtls_asn1_write_oid(&o->p, o->start, oid, strlen(oid)));
}

/* ecdsa-with-SHA256, without parameters (RFC 5758, 3.2) */
static void put_algorithm(struct out *o)
{
    const uint8_t *end = o->p;

    put_oid(o, MBEDTLS_OID_ECDSA_SHA256);
    wrap(o, end, TAG_SEQUENCE);
}

static void put_name(struct out *o, const char *common_name)
{
    const uint8_t *end = o->p;

    put_tagged(o, MBEDTLS_ASN1_UTF8_STRING, common_name, strlen(common_name));
    put_oid(o, MBEDTLS_OID_AT_CN);
    wrap(o, end, TAG_SEQUENCE);
    wrap(o, end, TAG_SET);
    wrap(o, end, TAG_SEQUENCE);
}

/* UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280, 4.1.2.5) */
static void put_time(struct out *o, time_t when)
{
    struct tm t;
    char text[32];

    if (!gmtime_r(&when, &t)) {
        put(o, MBEDTLS_ERR_ASN1_INVALID_DATA);
        return;
    }
    bool utc = t.tm_year < 150;
    size_t century = utc ? 2 : 0; /* UTCTime leaves it out */
    size_t n = strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &t);
    put_tagged(o, utc ? MBEDTLS_ASN1_UTC_TIME : MBEDTLS_ASN1_GENERALIZED_TIME, text + century,
               n - century);
}

/* What was written since `end` becomes the value of an extension. */
static void wrap_extension(struct out *o, const uint8_t *end, const char *oid, bool critical)
{
    wrap(o, end, MBEDTLS_ASN1_OCTET_STRING);
    if (critical) {
        put(o, mbedtls_asn1_write_bool(&o->p, o->start, 1));
    }
    put_oid(o, oid);
    wrap(o, end, TAG_SEQUENCE);
}

static void put_authority_id(struct out *o, const uint8_t id[KEY_ID])
{
    const uint8_t *end = o->p;

    put_tagged(o, TAG_CONTEXT | 0, id, KEY_ID);
    wrap(o, end, TAG_SEQUENCE);
    wrap_extension(o, end, MBEDTLS_OID_AUTHORITY_KEY_IDENTIFIER, false);
}

/* ---- certificates ---- */

static void put_hosts(struct out *o, const struct fl_pki_certificate *c)
{
    const uint8_t *end = o->p;

    for (uint32_t i = c->host_count; i-- > 0;) {
        uint8_t address[16];
        const char *host = c->hosts[i];
        if (inet_pton(AF_INET, host, address) == 1) {
            put_tagged(o, TAG_CONTEXT | 7, address, 4);
        } else if (inet_pton(AF_INET6, host, address) == 1) {
            put_tagged(o, TAG_CONTEXT | 7, address, 16);
        } else {
            put_tagged(o, TAG_CONTEXT | 2, host, strlen(host));
        }
    }
    wrap(o, end, TAG_SEQUENCE);
    wrap_extension(o, end, MBEDTLS_OID_SUBJECT_ALT_NAME, false);
}

static void put_usage(struct out *o, enum fl_pki_kind kind)
{
    const uint8_t *end = o->p;
    uint8_t bits = kind == FL_PKI_AUTHORITY ? 0x06 : 0x80; /* keyCertSign, cRLSign; signature */

    if (kind != FL_PKI_AUTHORITY) {
        put_oid(o, kind == FL_PKI_COORDINATOR ? MBEDTLS_OID_SERVER_AUTH : MBEDTLS_OID_CLIENT_AUTH);
        wrap(o, end, TAG_SEQUENCE);
        wrap_extension(o, end, MBEDTLS_OID_EXTENDED_KEY_USAGE, false);
        end = o->p;
    }
    put(o, mbedtls_asn1_write_named_bitstring(&o->p, o->start, &bits, 8));
    wrap_extension(o, end, MBEDTLS_OID_KEY_USAGE, true);
    end = o->p;
    if (kind == FL_PKI_AUTHORITY) {
        put(o, mbedtls_asn1_write_int(&o->p, o->start, 0)); /* path length */
        put(o, mbedtls_asn1_write_bool(&o->p, o->start, 1));
    }
    wrap(o, end, TAG_SEQUENCE);
    wrap_extension(o, end, MBEDTLS_OID_BASIC_CONSTRAINTS, true);
}

static void put_extensions(struct out *o, const struct fl_pki_certificate *c,
                           const struct fl_pki_key *subject, const struct fl_pki_authority *by)
{
    const uint8_t *end = o->p;

    if (c->host_count) {
        put_hosts(o, c);
    }
    put_usage(o, c->kind);
    put_authority_id(o, by ? by->key.id : subject->id);
    const uint8_t *value = o->p;
    put_tagged(o, MBEDTLS_ASN1_OCTET_STRING, subject->id, KEY_ID);
    wrap_extension(o, value, MBEDTLS_OID_SUBJECT_KEY_IDENTIFIER, false);
    wrap(o, end, TAG_SEQUENCE);
    wrap(o, end, TAG_CONTEXT_BOX | 3);
}

static void put_tbs(struct out *o, const struct fl_pki_certificate *c,
                    const struct fl_pki_key *subject, const struct fl_pki_authority *by)
{
    const uint8_t *end = o->p;

    put_extensions(o, c, subject, by);
    put_bytes(o, subject->spki, subject->spki_size);
    put_name(o, c->name);
    const uint8_t *validity = o->p;
    put_time(o, c->not_after);
    put_time(o, c->not_before);
    wrap(o, validity, TAG_SEQUENCE);
    if (by) {
        put_bytes(o, by->crt.subject_raw.p, by->crt.subject_raw.len);
    } else {
        put_name(o, c->name);
    }
    put_algorithm(o);
    put_tagged(o, MBEDTLS_ASN1_INTEGER, c->serial, FL_PKI_SERIAL);
    const uint8_t *version = o->p;
    put(o, mbedtls_asn1_write_int(&o->p, o->start, 2)); /* v3 */
    wrap(o, version, TAG_CONTEXT_BOX | 0);
    wrap(o, end, TAG_SEQUENCE);
}

/* tbs || algorithm || signature, as PEM. `work` has room for the tbs and 1 KiB more. */
static int seal(const uint8_t *tbs, size_t size, mbedtls_pk_context *by, const char *header,
                const char *footer, uint8_t *work, size_t work_size, char *ret_pem, size_t pem_size)
{
    uint8_t hash[32], signature[MBEDTLS_PK_SIGNATURE_MAX_SIZE];
    size_t signature_size = 0, written;
    struct out o = {work, work + work_size, 0};
    const uint8_t *end = o.p;
    int status = sha256(tbs, size, hash);

    if (status == 0) {
        status = sign(by, hash, signature, sizeof signature, &signature_size);
    }
    if (status) {
        return status;
    }
    put(&o, mbedtls_asn1_write_bitstring(&o.p, o.start, signature, 8 * signature_size));
    put_algorithm(&o);
    put_bytes(&o, tbs, size);
    wrap(&o, end, TAG_SEQUENCE);
    return o.status ? o.status
                    : mbedtls_pem_write_buffer(header, footer, o.p, (size_t)(end - o.p),
                                               (unsigned char *)ret_pem, pem_size, &written);
}

int fl_pki_certify(const struct fl_pki_certificate *c, struct fl_pki_key *subject,
                   struct fl_pki_authority *by, char ret_pem[FL_PKI_PEM_MAX], struct fl_err *e)
{
    uint8_t tbs[TBS_MAX], work[TBS_MAX + 1024];
    struct out o = {tbs, tbs + sizeof tbs, 0};

    put_tbs(&o, c, subject, by);
    int status = o.status;
    if (status == 0) {
        status = seal(o.p, (size_t)(tbs + sizeof tbs - o.p), by ? &by->key.pk : &subject->pk,
                      "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", work,
                      sizeof work, ret_pem, FL_PKI_PEM_MAX);
    }
    return status ? fail(e, "cannot write a certificate", status) : 0;
}

/* ---- the authority ---- */

static int parse_certificate(mbedtls_x509_crt *crt, const char *path, struct fl_err *e)
{
    if (access(path, R_OK) != 0) {
        return fl_fail_sys(e, FL_R_TLS_SETUP, errno, "%s", path);
    }
    int r = mbedtls_x509_crt_parse_file(crt, path); /* positive: some of several failed */
    return r ? fl_fail(e, FL_R_TLS_SETUP, "%s is no certificate (library error %d)", path, r) : 0;
}

int fl_pki_authority_load(const char *certificate, const char *key, struct fl_pki_authority **ret,
                          struct fl_err *e)
{
    struct fl_pki_authority *a = fl_new(1, sizeof *a);

    mbedtls_x509_crt_init(&a->crt);
    mbedtls_pk_init(&a->key.pk);
    int status = fl_file_check_private(key, FL_R_TLS_KEYMODE, e);
    if (status) {
        goto fail;
    }
    status = parse_certificate(&a->crt, certificate, e);
    if (status) {
        goto fail;
    }
    int r = parse_key(&a->key.pk, key);
    if (r == 0 && !mbedtls_pk_can_do(&a->key.pk, MBEDTLS_PK_ECDSA)) {
        r = MBEDTLS_ERR_PK_TYPE_MISMATCH;
    }
    if (r == 0) {
        r = learn(&a->key);
    }
    if (r == 0) {
        r = check_pair(&a->crt.pk, &a->key.pk);
    }
    if (r != 0) {
        status = fl_fail(e, FL_R_TLS_SETUP, "%s is not the key of %s (library error -0x%04x)", key,
                         certificate, (unsigned)-r);
        goto fail;
    }
    *ret = a;
    return 0;
fail:
    fl_pki_authority_free(a);
    return status;
}

void fl_pki_authority_free(struct fl_pki_authority *a)
{
    if (a) {
        mbedtls_pk_free(&a->key.pk);
        mbedtls_x509_crt_free(&a->crt);
        fl_free(a);
    }
}

static time_t to_time(const mbedtls_x509_time *t)
{
    struct tm tm = {.tm_year = t->year - 1900,
                    .tm_mon = t->mon - 1,
                    .tm_mday = t->day,
                    .tm_hour = t->hour,
                    .tm_min = t->min,
                    .tm_sec = t->sec};

    return timegm(&tm);
}

time_t fl_pki_authority_expires(const struct fl_pki_authority *a)
{
    return to_time(&a->crt.valid_to);
}

/* ---- revocation lists ---- */

static void put_revoked(struct out *o, const struct fl_pki_revoked *revoked, uint32_t count)
{
    const uint8_t *end = o->p;

    for (uint32_t i = count; i-- > 0;) {
        const uint8_t *entry = o->p;
        put_time(o, revoked[i].when);
        put_tagged(o, MBEDTLS_ASN1_INTEGER, revoked[i].serial, FL_PKI_SERIAL);
        wrap(o, entry, TAG_SEQUENCE);
    }
    if (count) { /* an empty list is left out, not written empty (RFC 5280, 5.1.2.6) */
        wrap(o, end, TAG_SEQUENCE);
    }
}

int fl_pki_crl(struct fl_pki_authority *by, uint32_t number, time_t this_update, time_t next_update,
               const struct fl_pki_revoked *revoked, uint32_t count, char **ret_pem,
               struct fl_err *e)
{
    size_t size = CRL_FIXED + (size_t)count * CRL_ENTRY;
    uint8_t *tbs = fl_try(1, size), *work = fl_try(1, size + 1024);
    char *pem = fl_try(2, size);
    int status = -FL_R_NOMEM;

    if (!tbs || !work || !pem) {
        fl_fail(e, FL_R_NOMEM, "a revocation list of %u certificates", count);
        goto out;
    }
    struct out o = {tbs, tbs + size, 0};
    const uint8_t *end = o.p;
    /* [0] { crlNumber, authority's key }, then the rest backwards */
    put(&o, mbedtls_asn1_write_int(&o.p, o.start, (int)number));
    wrap_extension(&o, end, MBEDTLS_OID_ID_CE "\x14", false);
    put_authority_id(&o, by->key.id);
    wrap(&o, end, TAG_SEQUENCE);
    wrap(&o, end, TAG_CONTEXT_BOX | 0);
    put_revoked(&o, revoked, count);
    put_time(&o, next_update);
    put_time(&o, this_update);
    put_bytes(&o, by->crt.subject_raw.p, by->crt.subject_raw.len);
    put_algorithm(&o);
    put(&o, mbedtls_asn1_write_int(&o.p, o.start, 1)); /* v2 */
    wrap(&o, end, TAG_SEQUENCE);
    int r = o.status;
    if (r == 0) {
        r = seal(o.p, (size_t)(end - o.p), &by->key.pk, "-----BEGIN X509 CRL-----\n",
                 "-----END X509 CRL-----\n", work, size + 1024, pem, 2 * size);
    }
    status = r ? fail(e, "cannot write a revocation list", r) : 0;
    if (status == 0) {
        *ret_pem = pem;
        pem = NULL;
    }
out:
    fl_free(tbs);
    fl_free(work);
    fl_free(pem);
    return status;
}

/* ---- reading ---- */

static void common_name(const mbedtls_x509_crt *crt, char *ret, size_t size)
{
    ret[0] = 0;
    for (const mbedtls_x509_name *n = &crt->subject; n; n = n->next) {
        if (n->oid.len != strlen(MBEDTLS_OID_AT_CN) ||
            memcmp(n->oid.p, MBEDTLS_OID_AT_CN, n->oid.len) != 0) {
            continue;
        }
        size_t length = n->val.len < size - 1 ? n->val.len : size - 1;
        for (size_t i = 0; i < length; i++) {
            unsigned char c = n->val.p[i];
            ret[i] = c > 0x20 && c < 0x7f ? (char)c : '?';
        }
        ret[length] = 0;
    }
}

int fl_pki_read(const char *path, struct fl_pki_info *ret, struct fl_err *e)
{
    mbedtls_x509_crt crt;

    mbedtls_x509_crt_init(&crt);
    int status = parse_certificate(&crt, path, e);
    if (status == 0) {
        common_name(&crt, ret->name, sizeof ret->name);
        ret->not_after = to_time(&crt.valid_to);
        int r = sha256(crt.pk_raw.p, crt.pk_raw.len, ret->key);
        status = r ? fail(e, "cannot hash a key", r) : 0;
    }
    mbedtls_x509_crt_free(&crt);
    return status;
}
