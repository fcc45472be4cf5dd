/* Signatures by certificates, and a whole secure sum with real ones. */
#include "common/wire/tls_sign.h"
#include "tests/lib/certs.h"
#include "tests/lib/check_main.h"
#include "tests/lib/secagg_world.h"

static const uint8_t message[] = "what was shown";

static int verify(const struct fl_tls_conf *c, const uint8_t *cert, size_t cert_size,
                  const uint8_t *sig, size_t sig_size)
{
    struct fl_identity who;
    struct fl_err e = {0};
    int r = fl_tls_verify(c, cert, cert_size, message, sizeof message, sig, sig_size, &who, &e);

    ck_assert(r == 0 || (e.code == r && e.msg[0]));
    return r;
}

START_TEST(test_sign_and_verify)
{
    struct fl_tls_conf *server = certs_conf(true, "server", "ca"),
                       *one = certs_conf(false, "site-1", "ca"),
                       *two = certs_conf(false, "site-2", NULL);
    uint8_t sig[FL_TLS_SIG_MAX], cert[FL_TLS_CERT_MAX];
    const uint8_t *der, *other;
    struct fl_identity who;
    size_t size, cert_size = fl_tls_certificate(one, &der);

    ck_assert_uint_le(cert_size, sizeof cert);
    memcpy(cert, der, cert_size);
    ck_assert_int_eq(fl_tls_sign(one, message, sizeof message, sig, &size, NULL), 0);
    for (int i = 0; i < 3; i++) { /* the coordinator, another agent and itself all see who it was */
        const struct fl_tls_conf *judge = i == 0 ? server : i == 1 ? two : one;
        ck_assert_int_eq(
            fl_tls_verify(judge, cert, cert_size, message, sizeof message, sig, size, &who, NULL),
            0);
        ck_assert_mem_eq(who.key, fl_tls_conf_identity(one)->key, FL_IDENTITY_KEY);
        ck_assert_str_eq(who.name, "site-1");
    }
    ck_assert_int_eq(
        fl_tls_verify(one, cert, cert_size, message, sizeof message - 1, sig, size, &who, NULL),
        -FL_R_SECAGG_KEYS);
    size_t other_size = fl_tls_certificate(two, &other);
    ck_assert_int_eq(verify(one, other, other_size, sig, size), -FL_R_SECAGG_KEYS);
    ck_assert_int_eq(verify(one, cert, cert_size, sig, size - 1), -FL_R_SECAGG_KEYS);
    ck_assert_int_eq(verify(one, cert, cert_size, sig, 0), -FL_R_SECAGG_KEYS);
    for (size_t i = 0; i < size; i++) { /* wherever it is damaged */
        sig[i] ^= 0x10;
        ck_assert_int_eq(verify(one, cert, cert_size, sig, size), -FL_R_SECAGG_KEYS);
        sig[i] ^= 0x10;
    }
    for (size_t i = 0; i < cert_size; i += 7) {
        cert[i] ^= 0x10;
        ck_assert_int_lt(verify(one, cert, cert_size, sig, size), 0);
        cert[i] ^= 0x10;
    }
    for (size_t i = 0; i < cert_size; i += 13) {
        ck_assert_int_eq(verify(one, cert, i, sig, size), -FL_R_SECAGG_KEYS);
    }
    cert[cert_size] = 0;
    ck_assert_int_eq(verify(one, cert, cert_size + 1, sig, size), -FL_R_SECAGG_KEYS);
    fl_tls_conf_unref(server);
    fl_tls_conf_unref(one);
    fl_tls_conf_unref(two);
}
END_TEST

/* The same rules as for a connection. */
START_TEST(test_who_is_not_trusted)
{
    static const struct {
        const char *name, *crl;
        int reason;
    } cases[] = {
        {"expired", NULL, -FL_R_TLS_EXPIRED}, {"future", NULL, -FL_R_TLS_EXPIRED},
        {"revoked", "ca", -FL_R_TLS_REVOKED}, {"revoked", NULL, 0},
        {"foreign", NULL, -FL_R_TLS_FOREIGN}, {"self", NULL, -FL_R_TLS_FOREIGN},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_tls_conf *judge = certs_conf(false, "site-1", cases[i].crl),
                           *signer = certs_conf(false, cases[i].name, NULL);
        uint8_t sig[FL_TLS_SIG_MAX];
        const uint8_t *cert;
        size_t size, cert_size = fl_tls_certificate(signer, &cert);
        ck_assert_int_eq(fl_tls_sign(signer, message, sizeof message, sig, &size, NULL), 0);
        ck_assert_int_eq(verify(judge, cert, cert_size, sig, size), cases[i].reason);
        fl_tls_conf_unref(judge);
        fl_tls_conf_unref(signer);
    }
    struct fl_tls_conf *judge = certs_conf(false, "site-1", NULL),
                       *server = certs_conf(true, "server", NULL);
    uint8_t sig[FL_TLS_SIG_MAX];
    const uint8_t *cert;
    size_t size, cert_size = fl_tls_certificate(server, &cert);
    ck_assert_int_eq(fl_tls_sign(server, message, sizeof message, sig, &size, NULL), 0);
    ck_assert_int_eq(verify(judge, cert, cert_size, sig, size), -FL_R_TLS_PROFILE);
    fl_tls_conf_unref(judge);
    fl_tls_conf_unref(server);
}
END_TEST

/* Receipts: by the coordinator's certificate, of its name; what was verified once stays so. */
START_TEST(test_a_coordinators_signature)
{
    static const struct {
        const char *signer;
        bool server;
        const char *crl, *name;
        int now, later;
    } cases[] = {
        {"server", true, "ca", "localhost", 0, 0},
        {"server", true, "ca", "elsewhere.example", -FL_R_TLS_NAME, -FL_R_TLS_NAME},
        {"site-1", false, "ca", NULL, -FL_R_TLS_PROFILE, -FL_R_TLS_PROFILE},
        {"expired", false, NULL, NULL, -FL_R_TLS_EXPIRED, -FL_R_TLS_PROFILE},
        {"revoked", false, "ca", NULL, -FL_R_TLS_REVOKED, -FL_R_TLS_PROFILE},
        {"foreign", false, NULL, NULL, -FL_R_TLS_FOREIGN, -FL_R_TLS_FOREIGN},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_tls_conf *judge = certs_conf(false, "site-1", cases[i].crl),
                           *signer = certs_conf(cases[i].server, cases[i].signer, NULL);
        uint8_t sig[FL_TLS_SIG_MAX];
        const uint8_t *cert;
        struct fl_identity who;
        struct fl_err e;
        size_t size, cert_size = fl_tls_certificate(signer, &cert);
        ck_assert_int_eq(fl_tls_sign(signer, message, sizeof message, sig, &size, NULL), 0);
        for (int now = 0; now < 2; now++) {
            ck_assert_int_eq(fl_tls_verify_coordinator(judge, cases[i].name, now, cert, cert_size,
                                                       message, sizeof message, sig, size, &who,
                                                       &e),
                             now ? cases[i].now : cases[i].later);
        }
        sig[size / 2] ^= 1;
        ck_assert_int_lt(fl_tls_verify_coordinator(judge, cases[i].name, false, cert, cert_size,
                                                   message, sizeof message, sig, size, &who, &e),
                         0);
        fl_tls_conf_unref(judge);
        fl_tls_conf_unref(signer);
    }
}
END_TEST

static int real_sign(void *arg, const uint8_t *m, size_t size, uint8_t *sig, uint32_t *ret,
                     struct fl_err *e)
{
    size_t made;
    int r = fl_tls_sign(arg, m, size, sig, &made, e);

    *ret = (uint32_t)made;
    return r;
}

static int real_verify(void *arg, const uint8_t *cert, uint32_t cert_size, const uint8_t *m,
                       size_t size, const uint8_t *sig, uint32_t sig_size, uint8_t *ret,
                       struct fl_err *e)
{
    struct fl_identity who;
    int r = fl_tls_verify(arg, cert, cert_size, m, size, sig, sig_size, &who, e);

    _Static_assert(sizeof who.key == FL_SECAGG_PRINCIPAL_SIZE, "who is a principal");
    if (r == 0) {
        memcpy(ret, who.key, sizeof who.key);
    }
    return r;
}

START_TEST(test_secure_sum)
{
    static const char *const names[] = {"site-1", "site-2", "revoked"};
    const struct fl_secagg_setup setup = {.context = {{1}},
                                          .members_min = 2,
                                          .members_max = 3,
                                          .survivors_min = 2,
                                          .bits = 32,
                                          .max = 1 << 20,
                                          .count = 100};
    for (int crl = 0; crl < 2; crl++) {
        struct fl_tls_conf *server = certs_conf(true, "server", crl ? "ca" : NULL), *agent[3];
        struct sw *w = sw_new(&setup, 3, 1);
        w->identity = (struct fl_secagg_identity){.arg = server, .verify = real_verify};
        for (int i = 0; i < 3; i++) {
            const uint8_t *cert;
            agent[i] = certs_conf(false, names[i], NULL);
            uint32_t size = (uint32_t)fl_tls_certificate(agent[i], &cert);
            w->agent[i].identity =
                (struct fl_secagg_identity){agent[i], cert, size, real_sign, real_verify};
        }
        ck_assert_msg(sw_whole(w) == 0, "%s", w->why.msg);
        ck_assert_int_eq(w->agent[2].error, crl ? -FL_R_TLS_REVOKED : 0);
        ck_assert_uint_eq(fl_secagg_server_members(w->server, NULL, 0), crl ? 2 : 3);
        ck_assert(sw_sum_is_right(w));
        sw_free(w);
        for (int i = 0; i < 3; i++) {
            fl_tls_conf_unref(agent[i]);
        }
        fl_tls_conf_unref(server);
    }
}
END_TEST

TESTS_MAIN("tls-sign", test_sign_and_verify, test_who_is_not_trusted, test_a_coordinators_signature,
           test_secure_sum)
