/* TLS against peers that break its rules, end without a word, or send what is no TLS at all. */
#include "common/base/mem.h"
#include "tests/lib/lax_peer.h"
#include "tests/lib/tls_pair.h"

#include <string.h>

/* Our end against a peer of another make, until neither moves. */
static int against(struct fl_tls *t, struct lax_peer *lax, bool eof_at_end, struct fl_err *e)
{
    static uint8_t out[65536];
    uint8_t plain[64], from_lax[65536];
    size_t size = 0;
    int r = 0, quiet = 0;

    while (r == 0 && quiet < 2) {
        struct fl_tls_io io = {.in = from_lax,
                               .in_size = size,
                               .eof = eof_at_end && quiet == 1,
                               .out = out,
                               .out_size = sizeof out,
                               .plain = plain,
                               .plain_size = sizeof plain};
        r = fl_tls_pump(t, &io, e);
        lax_step(lax, out, io.ret_out);
        size = lax->out_size;
        memcpy(from_lax, lax->out, size);
        quiet = io.ret_out + size > 0 ? 0 : quiet + 1;
    }
    return r;
}

START_TEST(test_peers_that_break_the_rules)
{
    static const int gcm_only[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, 0};
    static const int cbc_only[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, 0};
    static const struct {
        struct lax_sins sins;
        int reason;
    } cases[] = {
        {{.certificate = "site-1", .alpn = FL_TLS_ALPN}, 0},
        {{.certificate = "site-1", .alpn = FL_TLS_ALPN, .suites = gcm_only}, 0},
        {{.certificate = "site-1", .alpn = FL_TLS_ALPN, .suites = cbc_only}, -FL_R_TLS_HANDSHAKE},
        {{.certificate = NULL, .alpn = FL_TLS_ALPN}, -FL_R_TLS_NO_CERT},
        {{.certificate = "site-1", .alpn = NULL}, -FL_R_TLS_ALPN},
        {{.certificate = "site-1", .alpn = "http/1.1"}, -FL_R_TLS_ALPN},
        {{.certificate = "rsa", .alpn = FL_TLS_ALPN}, -FL_R_TLS_PROFILE},
        {{.certificate = "server-2", .alpn = FL_TLS_ALPN}, -FL_R_TLS_PROFILE},
        {{.certificate = "site-1", .alpn = FL_TLS_ALPN, .tls_1_1 = true}, -FL_R_TLS_VERSION},
        {{.server = true, .certificate = "server", .alpn = FL_TLS_ALPN}, 0},
        {{.server = true, .certificate = "server", .alpn = NULL}, -FL_R_TLS_ALPN},
        {{.server = true, .certificate = "server", .alpn = "h2"}, -FL_R_TLS_ALPN},
        {{.server = true, .certificate = "rsa", .alpn = FL_TLS_ALPN}, -FL_R_TLS_HANDSHAKE},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        bool server = !cases[i].sins.server;
        struct fl_tls_conf *c = certs_conf(server, server ? "server" : "site-1", NULL);
        struct lax_peer *lax = lax_new(&cases[i].sins);
        struct fl_tls *t = NULL;
        struct fl_err e = {0};
        ck_assert_int_eq(fl_tls_new(c, server ? NULL : "localhost", &t, NULL), 0);
        int r = against(t, lax, false, &e);
        ck_assert_msg(r == cases[i].reason, "%zu: %d %s", i, r, e.msg);
        ck_assert_int_eq(fl_tls_state(t), r == 0 ? FL_TLS_OPEN : FL_TLS_HANDSHAKE);
        lax_free(lax);
        fl_tls_free(t);
        fl_tls_conf_unref(c);
    }
}
END_TEST

START_TEST(test_no_renegotiation)
{
    static const struct lax_sins sins = {
        .certificate = "site-1", .alpn = FL_TLS_ALPN, .renegotiation = true};
    struct fl_tls_conf *c = certs_conf(true, "server", NULL);
    struct lax_peer *lax = lax_new(&sins);
    struct fl_tls *t = NULL;
    struct fl_err e = {0};

    ck_assert_int_eq(fl_tls_new(c, NULL, &t, NULL), 0);
    ck_assert_int_eq(against(t, lax, false, &e), 0);
    for (int i = 0; i < 50; i++) { /* asking again and again gains nothing and fills nothing */
        uint8_t out[256], plain[16];
        lax->out_size = 0;
        int asked = mbedtls_ssl_renegotiate(&lax->ssl);
        if (lax->out_size == 0) {
            break;
        }
        struct fl_tls_io io = {.in = lax->out,
                               .in_size = lax->out_size,
                               .out = out,
                               .out_size = sizeof out,
                               .plain = plain,
                               .plain_size = sizeof plain};
        ck_assert_int_ne(asked, 0);
        int r = fl_tls_pump(t, &io, &e);
        ck_assert_uint_eq(io.ret_plain, 0);
        if (r < 0) {
            break;
        }
    }
    lax_free(lax);
    fl_tls_free(t);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_the_end_must_be_said)
{
    static const struct lax_sins sins = {.certificate = "site-1", .alpn = FL_TLS_ALPN};
    struct fl_tls_conf *c = certs_conf(true, "server", NULL);

    for (int say_it = 0; say_it < 2; say_it++) {
        struct lax_peer *lax = lax_new(&sins);
        struct fl_tls *t = NULL;
        struct fl_err e = {0};
        uint8_t out[256], plain[16];
        ck_assert_int_eq(fl_tls_new(c, NULL, &t, NULL), 0);
        ck_assert_int_eq(against(t, lax, false, &e), 0);
        lax->out_size = 0;
        if (say_it) {
            ck_assert_int_eq(mbedtls_ssl_close_notify(&lax->ssl), 0);
        }
        struct fl_tls_io io = {.in = lax->out,
                               .in_size = lax->out_size,
                               .eof = true,
                               .out = out,
                               .out_size = sizeof out,
                               .plain = plain,
                               .plain_size = sizeof plain};
        ck_assert_int_eq(fl_tls_pump(t, &io, &e), say_it ? 0 : -FL_R_TLS_CLOSED);
        ck_assert_int_eq(fl_tls_state(t), say_it ? FL_TLS_CLOSED : FL_TLS_OPEN);
        lax_free(lax);
        fl_tls_free(t);
    }
    /* Within the handshake, too. */
    struct fl_tls *t = NULL;
    uint8_t out[256], plain[16];
    struct fl_tls_io io = {.eof = true,
                           .out = out,
                           .out_size = sizeof out,
                           .plain = plain,
                           .plain_size = sizeof plain};
    ck_assert_int_eq(fl_tls_new(c, NULL, &t, NULL), 0);
    ck_assert_int_eq(fl_tls_pump(t, &io, NULL), -FL_R_TLS_CLOSED);
    fl_tls_free(t);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_our_own_close_is_understood)
{
    struct fl_tls_conf *s = certs_conf(true, "server", NULL),
                       *c = certs_conf(false, "site-1", NULL);
    struct pair p;
    uint8_t out[256], plain[16];

    begin_pair(&p, s, c, "localhost");
    shake_hands(&p);
    struct fl_tls_io io = {.out = out, .out_size = 100};
    ck_assert_int_eq(fl_tls_close_notify(p.client.tls, &io, NULL), -FL_R_LIMIT);
    io.out_size = sizeof out;
    ck_assert_int_eq(fl_tls_close_notify(p.client.tls, &io, NULL), 0);
    deliver(&p, &p.server, out, io.ret_out);
    p.server.eof = true;
    io = (struct fl_tls_io){.plain = plain, .plain_size = sizeof plain};
    turn(&p, &p.server, &p.client, &io);
    ck_assert_int_eq(p.server.status, 0);
    ck_assert_int_eq(fl_tls_state(p.server.tls), FL_TLS_CLOSED);
    end_pair(&p);
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_garbage_is_not_tls)
{
    static const char *const garbage[] = {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                          "SSH-2.0-OpenSSH_9.2\r\n", "\x16\x03\x01\xff\xff\x01",
                                          "\x80\x2e\x01\x03\x01"};
    struct fl_tls_conf *s = certs_conf(true, "server", NULL);

    for (size_t i = 0; i < FL_COUNT(garbage); i++) {
        struct fl_tls *t = NULL;
        struct fl_err e = {0};
        uint8_t out[256], plain[16];
        struct fl_tls_io io = {.in = (const uint8_t *)garbage[i],
                               .in_size = strlen(garbage[i]),
                               .eof = true,
                               .out = out,
                               .out_size = sizeof out,
                               .plain = plain,
                               .plain_size = sizeof plain};
        ck_assert_int_eq(fl_tls_new(s, NULL, &t, NULL), 0);
        int r = fl_tls_pump(t, &io, &e);
        ck_assert_msg(i < 2 || i == 3 ? r == -FL_R_TLS_RECORD : r < 0, "%zu: %d %s", i, r, e.msg);
        fl_tls_free(t);
    }
    fl_tls_conf_unref(s);
}
END_TEST

START_TEST(test_a_damaged_byte_is_noticed)
{
    struct fl_tls_conf *s = certs_conf(true, "server", NULL),
                       *c = certs_conf(false, "site-1", NULL);
    struct pair p;

    begin_pair(&p, s, c, "localhost");
    shake_hands(&p);
    assert_open(&p);
    uint64_t handshake = p.moved;
    end_pair(&p);
    ck_assert_uint_gt(handshake, 1000);
    for (uint64_t flip = 1; flip <= handshake; flip += 41) {
        begin_pair(&p, s, c, "localhost");
        p.flip = flip;
        shake_hands(&p);
        ck_assert_msg(fl_tls_state(p.server.tls) != FL_TLS_OPEN ||
                          fl_tls_state(p.client.tls) != FL_TLS_OPEN || p.server.status < 0 ||
                          p.client.status < 0,
                      "byte %llu of the handshake", (unsigned long long)flip);
        end_pair(&p);
    }
    /* In a record: header, cipher text, tag. */
    for (uint64_t at = 1; at < 60; at++) {
        uint8_t plain[64];
        begin_pair(&p, s, c, "localhost");
        shake_hands(&p);
        p.flip = p.moved + at;
        struct fl_tls_io io = {.write = (const uint8_t *)"forty bytes of text, to be sent as is...",
                               .write_size = 40};
        turn(&p, &p.client, &p.server, &io);
        io = (struct fl_tls_io){.plain = plain, .plain_size = sizeof plain};
        p.server.eof = true; /* a longer length in the header waits for more */
        turn(&p, &p.server, &p.client, &io);
        ck_assert_uint_eq(io.ret_plain, 0);
        ck_assert_msg(p.server.status < 0, "byte %llu", (unsigned long long)at);
        end_pair(&p);
    }
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
}
END_TEST

TESTS_MAIN("tls_hostile", test_peers_that_break_the_rules, test_no_renegotiation,
           test_the_end_must_be_said, test_our_own_close_is_understood, test_garbage_is_not_tls,
           test_a_damaged_byte_is_noticed)
