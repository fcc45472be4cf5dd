/*
 * Loading certificates, key and revocation list, and fixing the library's defaults. Everything that
 * can be wrong with our own files is found here, at start or at a reload, and named; what can only
 * be judged at a handshake (dates, the peer's certificate) is judged there.
 *
 * A configuration is used by many worker threads at once and never written after fl_tls_conf_new.
 * Mbed TLS fills some tables when they are first used (AES, curves); so the key signs once, each
 * authority's key verifies once, and AES encrypts once, before anybody else can see the
 * configuration.
 */
#include "common/wire/tls_conf.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILE_MAX = 4 * 1024 * 1024 };

int fl_tls_random(void *arg, unsigned char *to, size_t size)
{
    (void)arg;
    return fl_entropy(to, size, NULL) == 0 ? 0 : MBEDTLS_ERR_SSL_NO_RNG;
}

static int fail_library(struct fl_err *e, enum fl_reason reason, const char *file, int code)
{
    char text[120];

    mbedtls_strerror(code, text, sizeof text);
    return fl_fail(e, reason, "%s: %s", file, text);
}

/* A whole file with a zero byte behind its end, which PEM parsing wants; freed by drop_file. */
static int read_file(const char *path, bool private, uint8_t **ret, size_t *ret_size,
                     struct fl_err *e)
{
    struct stat st;
    int r = 0, fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        r = fl_fail_sys(e, FL_R_TLS_SETUP, errno, "%s", path);
        goto close_fd;
    }
    if (private && (st.st_mode & 077)) {
        r = fl_fail(e, FL_R_TLS_KEYMODE, "%s has mode %04o: others may read it; use chmod 600",
                    path, (unsigned)st.st_mode & 07777);
        goto close_fd;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        r = fl_fail(e, FL_R_TLS_SETUP, "%s is no file of at most %d bytes", path, FILE_MAX);
        goto close_fd;
    }
    size_t size = (size_t)st.st_size, at = 0;
    uint8_t *data = fl_try(size + 1, 1);
    if (!data) {
        r = fl_fail(e, FL_R_NOMEM, "no memory for %s", path);
        goto close_fd;
    }
    while (at < size) {
        ssize_t n = read(fd, data + at, size - at);
        if (n <= 0 && errno != EINTR) {
            r = fl_fail_sys(e, FL_R_TLS_SETUP, n < 0 ? errno : EIO, "read %s", path);
            mbedtls_platform_zeroize(data, size);
            fl_free(data);
            goto close_fd;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    *ret = data;
    *ret_size = size + 1;
close_fd:
    if (fd >= 0) {
        close(fd);
    }
    return r;
}

static void drop_file(uint8_t *data, size_t size)
{
    mbedtls_platform_zeroize(data, size);
    fl_free(data);
}

static int load_certificates(mbedtls_x509_crt *to, const char *path, struct fl_err *e)
{
    uint8_t *data;
    size_t size;
    int r = read_file(path, false, &data, &size, e);

    if (r < 0) {
        return r;
    }
    r = mbedtls_x509_crt_parse(to, data, size);
    drop_file(data, size);
    if (r > 0) {
        return fl_fail(e, FL_R_TLS_SETUP, "%s: %d of its certificates cannot be read", path, r);
    }
    return r == 0 ? 0 : fail_library(e, FL_R_TLS_SETUP, path, r);
}

static bool good_curve(const mbedtls_pk_context *pk)
{
    mbedtls_ecp_group_id id = fl_compat_group(pk);

    return id == MBEDTLS_ECP_DP_SECP256R1 || id == MBEDTLS_ECP_DP_SECP384R1;
}

static int load_own(struct fl_tls_conf *c, const struct fl_tls_files *files, struct fl_err *e)
{
    uint8_t hash[32] = {1}, signature[MBEDTLS_PK_SIGNATURE_MAX_SIZE], *data;
    size_t size;
    int r = load_certificates(&c->own, files->certificate, e);

    if (r < 0 || (r = read_file(files->key, true, &data, &size, e)) < 0) {
        return r;
    }
    r = fl_compat_parse_key(&c->key, data, size, fl_tls_random);
    drop_file(data, size);
    if (r != 0) {
        return fail_library(e, FL_R_TLS_SETUP, files->key, r);
    }
    if (!good_curve(&c->key) || !good_curve(&c->own.pk)) {
        return fl_fail(e, FL_R_TLS_SETUP, "%s: certificates must be ECDSA on P-256 or P-384",
                       files->certificate);
    }
    if (fl_compat_check_pair(&c->own.pk, &c->key, fl_tls_random) != 0) {
        return fl_fail(e, FL_R_TLS_SETUP, "%s is not the key of %s", files->key,
                       files->certificate);
    }
    /* The peer would refuse it; 2.28 would not even send it, and say nothing. */
    r = c->server
            ? mbedtls_x509_crt_check_extended_key_usage(&c->own, MBEDTLS_OID_SERVER_AUTH,
                                                        MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH))
            : mbedtls_x509_crt_check_extended_key_usage(&c->own, MBEDTLS_OID_CLIENT_AUTH,
                                                        MBEDTLS_OID_SIZE(MBEDTLS_OID_CLIENT_AUTH));
    if (r != 0 ||
        mbedtls_x509_crt_check_key_usage(&c->own, MBEDTLS_X509_KU_DIGITAL_SIGNATURE) != 0) {
        return fl_fail(e, FL_R_TLS_SETUP, "%s is not made for %s", files->certificate,
                       c->server ? "a coordinator" : "an agent");
    }
    r = fl_compat_sign(&c->key, hash, sizeof hash, signature, sizeof signature, &size,
                       fl_tls_random);
    if (r != 0) {
        return fail_library(e, FL_R_TLS_SETUP, files->key, r);
    }
    fl_tls_identity(&c->own, &c->identity);
    return 0;
}

static int load_authorities(struct fl_tls_conf *c, const char *path, struct fl_err *e)
{
    /* An ECDSA signature (r = 1, s = 1) that no key made. */
    static const uint8_t hash[32] = {1}, nobodys[] = {0x30, 6, 2, 1, 1, 2, 1, 1};
    int r = load_certificates(&c->ca, path, e);

    if (r < 0) {
        return r;
    }
    for (mbedtls_x509_crt *ca = &c->ca; ca; ca = ca->next) {
        if (!fl_compat_is_ca(ca)) {
            return fl_fail(e, FL_R_TLS_SETUP, "%s holds a certificate that is no authority's",
                           path);
        }
        if (!good_curve(&ca->pk)) {
            return fl_fail(e, FL_R_TLS_SETUP, "%s: authorities must be ECDSA on P-256 or P-384",
                           path);
        }
        if (mbedtls_pk_verify(&ca->pk, MBEDTLS_MD_SHA256, hash, sizeof hash, nobodys,
                              sizeof nobodys) == 0) {
            return fl_fail(e, FL_R_TLS_SETUP, "%s: an authority's key verifies anything", path);
        }
    }
    return 0;
}

static bool same_name(const mbedtls_x509_buf *a, const mbedtls_x509_buf *b)
{
    return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

static mbedtls_x509_crt *issuer_of(struct fl_tls_conf *c, const mbedtls_x509_crl *crl)
{
    for (mbedtls_x509_crt *ca = &c->ca; ca; ca = ca->next) {
        if (same_name(&ca->subject_raw, &crl->issuer_raw)) {
            return ca;
        }
    }
    return NULL;
}

/*
 * The library consults a list only if its issuer is the authority at hand, and says nothing when
 * there is none: a list of another authority would check nothing, silently. So every list must be
 * some authority's, and every authority must have one.
 */
static int load_crl(struct fl_tls_conf *c, const char *path, struct fl_err *e)
{
    uint8_t *data;
    size_t size;
    int r = read_file(path, false, &data, &size, e);

    if (r < 0) {
        return fl_fail(e, FL_R_TLS_CRL, "%s: the revocation list cannot be read", path);
    }
    r = mbedtls_x509_crl_parse(&c->crl, data, size);
    drop_file(data, size);
    if (r != 0) {
        return fail_library(e, FL_R_TLS_CRL, path, r);
    }
    for (const mbedtls_x509_crl *crl = &c->crl; crl; crl = crl->next) {
        mbedtls_x509_crt *ca = issuer_of(c, crl);
        if (!ca) {
            return fl_fail(e, FL_R_TLS_CRL, "%s is from another authority", path);
        }
        if (mbedtls_x509_crt_check_key_usage(ca, MBEDTLS_X509_KU_CRL_SIGN) != 0) {
            return fl_fail(e, FL_R_TLS_CRL, "%s: its authority may not sign revocation lists",
                           path);
        }
        if (fl_compat_verify_crl(crl, ca) != 0) {
            return fl_fail(e, FL_R_TLS_CRL, "%s is not signed by its authority", path);
        }
        if (mbedtls_x509_time_is_past(&crl->next_update)) {
            return fl_fail(e, FL_R_TLS_CRL, "%s expired on %04d-%02d-%02d", path,
                           crl->next_update.year, crl->next_update.mon, crl->next_update.day);
        }
        if (mbedtls_x509_time_is_future(&crl->this_update)) {
            return fl_fail(e, FL_R_TLS_CRL, "%s is from the future (%04d-%02d-%02d)", path,
                           crl->this_update.year, crl->this_update.mon, crl->this_update.day);
        }
    }
    for (const mbedtls_x509_crt *ca = &c->ca; ca; ca = ca->next) {
        const mbedtls_x509_crl *crl = &c->crl;
        while (crl && !same_name(&ca->subject_raw, &crl->issuer_raw)) {
            crl = crl->next;
        }
        if (!crl) {
            return fl_fail(e, FL_R_TLS_CRL, "%s has no list of one of the authorities", path);
        }
    }
    c->has_crl = true;
    return 0;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The best of three times for one record, in ns; UINT64_MAX when the library refuses. Also the one
 * AES operation that must happen before threads do any. */
static uint64_t measure(bool aes, uint8_t *record, size_t size)
{
    static const uint8_t key[32] = {1}, nonce[12] = {2};
    uint64_t best = UINT64_MAX;
    uint8_t tag[16];
    mbedtls_ccm_context ccm;
    mbedtls_chachapoly_context chacha;

    mbedtls_ccm_init(&ccm);
    mbedtls_chachapoly_init(&chacha);
    int r = aes ? mbedtls_ccm_setkey(&ccm, MBEDTLS_CIPHER_ID_AES, key, 128)
                : mbedtls_chachapoly_setkey(&chacha, key);
    for (int i = 0; i < 3 && r == 0; i++) {
        uint64_t start = cpu_ns();
        r = aes ? mbedtls_ccm_encrypt_and_tag(&ccm, size, nonce, 12, NULL, 0, record, record, tag,
                                              sizeof tag)
                : mbedtls_chachapoly_encrypt_and_tag(&chacha, size, nonce, NULL, 0, record, record,
                                                     tag);
        uint64_t spent = cpu_ns() - start;
        best = r == 0 && spent < best ? spent : best;
    }
    mbedtls_ccm_free(&ccm);
    mbedtls_chachapoly_free(&chacha);
    return best;
}

/* GCM is last: 2.28 multiplies block by block, at half the speed of the others. */
static int choose_suites(struct fl_tls_conf *c, enum fl_tls_order order, struct fl_err *e)
{
    enum { RECORD = 16384 };
    uint8_t *record = fl_try(RECORD, 1);

    if (!record) {
        return fl_fail(e, FL_R_NOMEM, "no memory to measure ciphers");
    }
    uint64_t aes = measure(true, record, RECORD);
    bool chacha_first = order == FL_TLS_ORDER_MEASURE ? measure(false, record, RECORD) <= aes
                                                      : order == FL_TLS_ORDER_CHACHA;
    fl_free(record);
    int at = 0;
    if (chacha_first) {
        c->suites[at++] = MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    }
    c->suites[at++] = MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM;
    if (!chacha_first) {
        c->suites[at++] = MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    }
    c->suites[at++] = MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_CCM;
    c->suites[at++] = MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    c->suites[at] = MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    return 0;
}

/* Each line is a default of the library that would be wrong for us. */
static int configure(struct fl_tls_conf *c, struct fl_err *e)
{
    mbedtls_ssl_config *s = &c->ssl;
    int r =
        mbedtls_ssl_config_defaults(s, c->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);

    if (r != 0) {
        return fail_library(e, FL_R_TLS_SETUP, "defaults", r);
    }
    fl_compat_conf_versions(s);   /* not TLS 1.0 */
    fl_compat_conf_algorithms(s); /* not SHA-1 */
    mbedtls_ssl_conf_rng(s, fl_tls_random, NULL);
    mbedtls_ssl_conf_authmode(s, MBEDTLS_SSL_VERIFY_REQUIRED); /* a server's is NONE */
    mbedtls_ssl_conf_ca_chain(s, &c->ca, c->has_crl ? &c->crl : NULL);
    mbedtls_ssl_conf_cert_profile(s, &mbedtls_x509_crt_profile_suiteb); /* not RSA */
    mbedtls_ssl_conf_ciphersuites(s, c->suites);                        /* not CBC */
    mbedtls_ssl_conf_renegotiation(s, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    mbedtls_ssl_conf_legacy_renegotiation(s, MBEDTLS_SSL_LEGACY_BREAK_HANDSHAKE);
    if (c->server) {
        /* No session cache and no ticket callback are set: a resumed session would skip the checks
         * of certificate and revocation list. Nor does everyone need to know our authorities. */
        mbedtls_ssl_conf_cert_req_ca_list(s, MBEDTLS_SSL_CERT_REQ_CA_LIST_DISABLED);
    } else {
        mbedtls_ssl_conf_session_tickets(s, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    }
    c->alpn[0] = FL_TLS_ALPN;
    r = mbedtls_ssl_conf_alpn_protocols(s, c->alpn);
    r = r ? r : mbedtls_ssl_conf_own_cert(s, &c->own, &c->key);
    return r ? fail_library(e, FL_R_TLS_SETUP, "own certificate", r) : 0;
}

int fl_tls_conf_new(bool server, const struct fl_tls_files *files, struct fl_tls_conf **ret,
                    struct fl_err *e)
{
    struct fl_tls_conf *c = fl_try(1, sizeof *c);

    if (!c) {
        return fl_fail(e, FL_R_NOMEM, "no memory for certificates");
    }
    c->server = server;
    atomic_init(&c->references, 1);
    mbedtls_ssl_config_init(&c->ssl);
    mbedtls_x509_crt_init(&c->ca);
    mbedtls_x509_crt_init(&c->own);
    mbedtls_x509_crl_init(&c->crl);
    mbedtls_pk_init(&c->key);
    int r = fl_compat_start() == 0 ? 0 : fl_fail(e, FL_R_TLS_SETUP, "the library does not start");
    if (r < 0 || (r = load_authorities(c, files->ca, e)) < 0 || (r = load_own(c, files, e)) < 0 ||
        (files->crl && (r = load_crl(c, files->crl, e)) < 0) ||
        (r = choose_suites(c, files->order, e)) < 0 || (r = configure(c, e)) < 0) {
        fl_tls_conf_unref(c);
        return r;
    }
    *ret = c;
    return 0;
}

struct fl_tls_conf *fl_tls_conf_ref(struct fl_tls_conf *c)
{
    atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
    return c;
}

void fl_tls_conf_unref(struct fl_tls_conf *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    mbedtls_ssl_config_free(&c->ssl);
    mbedtls_x509_crt_free(&c->ca);
    mbedtls_x509_crt_free(&c->own);
    mbedtls_x509_crl_free(&c->crl);
    mbedtls_pk_free(&c->key);
    fl_free(c);
}

const struct fl_identity *fl_tls_conf_identity(const struct fl_tls_conf *c)
{
    return &c->identity;
}

static void hex(const uint8_t *bytes, size_t count, char *to, size_t size)
{
    to[0] = 0;
    for (size_t i = 0; i < count && 2 * i + 2 < size; i++) {
        snprintf(to + 2 * i, size - 2 * i, "%02x", bytes[i]);
    }
}

bool fl_tls_conf_revoked(const struct fl_tls_conf *c, const char *serial_hex)
{
    char serial[64];

    for (const mbedtls_x509_crl *crl = c->has_crl ? &c->crl : NULL; crl; crl = crl->next) {
        const mbedtls_x509_crl_entry *entry = &crl->entry;
        for (; entry && entry->serial.p; entry = entry->next) {
            hex(entry->serial.p, entry->serial.len, serial, sizeof serial);
            if (strcmp(serial, serial_hex) == 0) {
                return true;
            }
        }
    }
    return false;
}

static uint64_t seconds(const mbedtls_x509_time *t)
{
    struct tm tm = {.tm_year = t->year - 1900,
                    .tm_mon = t->mon - 1,
                    .tm_mday = t->day,
                    .tm_hour = t->hour,
                    .tm_min = t->min,
                    .tm_sec = t->sec};
    time_t at = timegm(&tm);

    return at > 0 ? (uint64_t)at : 0;
}

uint64_t fl_tls_conf_crl_expires(const struct fl_tls_conf *c)
{
    uint64_t first = 0;

    for (const mbedtls_x509_crl *crl = c->has_crl ? &c->crl : NULL; crl; crl = crl->next) {
        uint64_t at = seconds(&crl->next_update);
        first = first == 0 || at < first ? at : first;
    }
    return first;
}

void fl_tls_identity(const mbedtls_x509_crt *crt, struct fl_identity *ret)
{
    memset(ret, 0, sizeof *ret);
    mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), crt->pk_raw.p, crt->pk_raw.len,
               ret->key);
    hex(crt->serial.p, crt->serial.len, ret->serial, sizeof ret->serial);
    ret->expires_s = seconds(&crt->valid_to);
    for (const mbedtls_x509_name *n = &crt->subject; n; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) != 0) {
            continue;
        }
        /* By its length, not up to a zero byte: "good\0.evil" is not "good". */
        for (size_t i = 0; i < n->val.len && i + 1 < sizeof ret->name; i++) {
            uint8_t ch = n->val.p[i];
            ret->name[i] = ch >= 0x20 && ch < 0x7f ? (char)ch : '?';
        }
        break;
    }
}
