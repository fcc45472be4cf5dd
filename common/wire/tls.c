/*
 * The pump. Mbed TLS is given two callbacks that move bytes from and to the memory of the call at
 * hand; when they have nothing or no room they say so and the library comes back later.
 *
 * Two things about Mbed TLS 2.28 shape this file.
 *
 * It may hold cipher text it could not hand over, and then takes the next mbedtls_ssl_write for the
 * continuation of that one: the new bytes would be lost, silently. So outside the handshake,
 * nothing is ever asked of it without room for all it could produce: writes are cut to what fits,
 * reads (which may answer with an alert) need ALERT_ROOM. If a callback ever finds no room all the
 * same, the connection ends with FL_R_INTERNAL rather than go on with a hole in it.
 *
 * It names what is wrong with a peer by one code for many causes. The verification flags, the alert
 * we sent and the alert we got tell them apart; `explain` turns all of it into one reason.
 */
#include "common/wire/tls.h"

#include "common/base/mem.h"
#include "common/wire/tls_conf.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
    RECORD_MAX = 16384,
    ALERT_ROOM = 128,
    ALERT_VERSION = 70,
    ALERT_NO_ALPN = 120,
    RECORD_ALERT = 21,
    RECORD_HANDSHAKE = 22,
};

struct fl_tls {
    struct fl_tls_conf *conf;
    mbedtls_ssl_context ssl;
    struct fl_tls_io *io; /* of the call at hand */
    enum fl_tls_state state;
    int failed;              /* the final error */
    size_t want;             /* bytes the library asked for last and did not get */
    bool stuck;              /* outside the handshake a callback found no room */
    bool spoken, is_tls;     /* has the peer said anything, and did it begin like TLS? */
    uint8_t alert_sent;      /* in clear, that is, during the handshake; 0 = none */
    struct fl_identity peer; /* from the moment its certificate is looked at */
};

static int take_cipher(void *arg, unsigned char *to, size_t size)
{
    struct fl_tls *t = arg;
    struct fl_tls_io *io = t->io;
    size_t left = io->in_size - io->ret_in;
    size_t n = size < left ? size : left;

    if (n == 0) {
        t->want = size;
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    if (!t->spoken) {
        t->spoken = true;
        t->is_tls = io->in[io->ret_in] == RECORD_HANDSHAKE || io->in[io->ret_in] == RECORD_ALERT;
    }
    memcpy(to, io->in + io->ret_in, n);
    io->ret_in += n;
    return (int)n;
}

static int give_cipher(void *arg, const unsigned char *from, size_t size)
{
    struct fl_tls *t = arg;
    struct fl_tls_io *io = t->io;
    size_t room = io->out_size - io->ret_out;
    size_t n = size < room ? size : room;

    if (t->state != FL_TLS_HANDSHAKE && n < size) {
        t->stuck = true;
    }
    if (n == 0) {
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    }
    /* A whole alert record: type, version, length 2, level, description. */
    if (size == 7 && from[0] == RECORD_ALERT && from[3] == 0 && from[4] == 2) {
        t->alert_sent = from[6];
    }
    memcpy(io->out + io->ret_out, from, n);
    io->ret_out += n;
    return (int)n;
}

/* Called for each certificate of the peer's chain, the leaf last with depth 0. Every certificate
 * must come straight from an authority we have: the revocation lists of authorities in between are
 * not ours, and the library would not say that it looked at none. */
static int look_at_peer(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    struct fl_tls *t = arg;

    if (depth == 0) {
        fl_tls_identity(crt, &t->peer);
        return 0;
    }
    for (const mbedtls_x509_crt *ca = &t->conf->ca; ca; ca = ca->next) {
        if (ca == crt) {
            return 0;
        }
    }
    *flags |= MBEDTLS_X509_BADCERT_NOT_TRUSTED;
    return 0;
}

int fl_tls_new(struct fl_tls_conf *c, const char *server_name, struct fl_tls **ret,
               struct fl_err *e)
{
    assert(c->server == !server_name);
    struct fl_tls *t = fl_try(1, sizeof *t);
    if (!t) {
        return fl_fail(e, FL_R_NOMEM, "no memory for a TLS connection");
    }
    mbedtls_ssl_init(&t->ssl);
    t->conf = fl_tls_conf_ref(c);
    t->want = 5;
    int r = mbedtls_ssl_setup(&t->ssl, &c->ssl);
    if (r == 0 && server_name) {
        r = mbedtls_ssl_set_hostname(&t->ssl, server_name);
    }
    if (r != 0) {
        fl_tls_free(t);
        return r == MBEDTLS_ERR_SSL_BAD_INPUT_DATA
                   ? fl_fail(e, FL_R_TLS_NAME, "not a host name: %.60s", server_name)
                   : fl_fail(e, FL_R_NOMEM, "no memory for a TLS connection");
    }
    mbedtls_ssl_set_verify(&t->ssl, look_at_peer, t);
    mbedtls_ssl_set_bio(&t->ssl, t, give_cipher, take_cipher, NULL);
    *ret = t;
    return 0;
}

void fl_tls_free(struct fl_tls *t)
{
    if (t) {
        mbedtls_ssl_free(&t->ssl);
        fl_tls_conf_unref(t->conf);
        fl_free(t);
    }
}

static int fail(struct fl_tls *t, struct fl_err *e, enum fl_reason reason, const char *text)
{
    t->failed = -(int)reason;
    return fl_fail(e, reason, "%s", text);
}

/* What the flags say, most damning first. */
static int explain_certificate(struct fl_tls *t, uint32_t flags, struct fl_err *e)
{
    static const struct {
        uint32_t flags;
        enum fl_reason reason;
        const char *text;
    } table[] = {
        {MBEDTLS_X509_BADCERT_MISSING, FL_R_TLS_NO_CERT, "none was sent"},
        {MBEDTLS_X509_BADCERT_NOT_TRUSTED, FL_R_TLS_FOREIGN, "not issued by our authority"},
        {MBEDTLS_X509_BADCERT_REVOKED, FL_R_TLS_REVOKED, "revoked"},
        {MBEDTLS_X509_BADCRL_EXPIRED, FL_R_TLS_CRL,
         "not judged: our revocation list has expired; renew it"},
        {MBEDTLS_X509_BADCRL_FUTURE | MBEDTLS_X509_BADCRL_NOT_TRUSTED | MBEDTLS_X509_BADCRL_BAD_MD |
             MBEDTLS_X509_BADCRL_BAD_PK | MBEDTLS_X509_BADCRL_BAD_KEY,
         FL_R_TLS_CRL, "not judged: our revocation list cannot be used"},
        {MBEDTLS_X509_BADCERT_EXPIRED, FL_R_TLS_EXPIRED, "expired"},
        {MBEDTLS_X509_BADCERT_FUTURE, FL_R_TLS_EXPIRED, "not yet valid"},
        {MBEDTLS_X509_BADCERT_CN_MISMATCH, FL_R_TLS_NAME, "made out to another host name"},
        {MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE |
             MBEDTLS_X509_BADCERT_NS_CERT_TYPE,
         FL_R_TLS_PROFILE, "not made for this use"},
        {UINT32_MAX, FL_R_TLS_PROFILE, "of a forbidden key or digest"},
    };
    size_t i = 0;

    while (!(flags & table[i].flags)) {
        i++;
    }
    t->failed = -(int)table[i].reason;
    return t->peer.serial[0]
               ? fl_fail(e, table[i].reason, "the certificate of '%s' (serial %s) is %s",
                         t->peer.name, t->peer.serial, table[i].text)
               : fl_fail(e, table[i].reason, "the peer's certificate: %s", table[i].text);
}

static int explain_alert(struct fl_tls *t, struct fl_err *e)
{
    static const struct {
        unsigned alert;
        enum fl_reason reason;
        const char *text;
    } table[] = {
        {20, FL_R_TLS_RECORD, "it got a damaged record"},
        {40, FL_R_TLS_HANDSHAKE, "no suite, key or signature in common"},
        {42, FL_R_TLS_HANDSHAKE, "our certificate is damaged"},
        {43, FL_R_TLS_HANDSHAKE, "our certificate is of an unsupported kind"},
        {44, FL_R_TLS_HANDSHAKE, "our certificate is revoked"},
        {45, FL_R_TLS_HANDSHAKE, "our certificate is expired or not yet valid"},
        {46, FL_R_TLS_HANDSHAKE, "our certificate is not acceptable"},
        {48, FL_R_TLS_HANDSHAKE, "our certificate is from an authority it does not know"},
        {ALERT_VERSION, FL_R_TLS_VERSION, "it speaks no TLS 1.2"},
        {ALERT_NO_ALPN, FL_R_TLS_ALPN, "it does not speak " FL_TLS_ALPN},
    };
    unsigned alert = fl_compat_alert(&t->ssl);

    for (size_t i = 0; i < FL_COUNT(table); i++) {
        if (table[i].alert == alert) {
            t->failed = -(int)table[i].reason;
            return fl_fail(e, table[i].reason, "the peer ended TLS: %s (alert %u)", table[i].text,
                           alert);
        }
    }
    t->failed = -FL_R_TLS_HANDSHAKE;
    return fl_fail(e, FL_R_TLS_HANDSHAKE, "the peer ended TLS with alert %u", alert);
}

static int explain(struct fl_tls *t, int code, struct fl_err *e)
{
    char text[120];

    if (t->spoken && !t->is_tls) {
        return fail(t, e, FL_R_TLS_RECORD, "what came is not TLS");
    }
    switch (code) {
    case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
        return explain_certificate(t, mbedtls_ssl_get_verify_result(&t->ssl), e);
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
        return fail(t, e, FL_R_TLS_NO_CERT, "the peer sent no certificate");
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        return explain_alert(t, e);
    case MBEDTLS_ERR_SSL_INVALID_MAC:
    case MBEDTLS_ERR_SSL_INVALID_RECORD:
        return fail(t, e, FL_R_TLS_RECORD, "a damaged record");
    case MBEDTLS_ERR_SSL_ALLOC_FAILED:
        return fail(t, e, FL_R_NOMEM, "no memory in TLS");
    default:
        break;
    }
    if (t->alert_sent == ALERT_NO_ALPN) {
        return fail(t, e, FL_R_TLS_ALPN, "the peer does not speak " FL_TLS_ALPN);
    }
    if (t->alert_sent == ALERT_VERSION) {
        return fail(t, e, FL_R_TLS_VERSION, "the peer speaks no TLS 1.2");
    }
    /* A certificate not made for this use has its flag, and a code that says nothing. */
    uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);
    if (t->peer.serial[0] && flags != 0 && flags != UINT32_MAX) {
        return explain_certificate(t, flags, e);
    }
    mbedtls_strerror(code, text, sizeof text);
    return fail(t, e, t->state == FL_TLS_HANDSHAKE ? FL_R_TLS_HANDSHAKE : FL_R_TLS_RECORD, text);
}

static bool waits(int code)
{
    return code == MBEDTLS_ERR_SSL_WANT_READ || code == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static int shake_hands(struct fl_tls *t, struct fl_err *e)
{
    int r = mbedtls_ssl_handshake(&t->ssl);

    if (r != 0) {
        return waits(r) ? 0 : explain(t, r, e);
    }
    /* A peer that offers no ALPN at all is fine with the library; and a verification that was
     * skipped must not pass for one that succeeded. */
    const char *alpn = mbedtls_ssl_get_alpn_protocol(&t->ssl);
    const mbedtls_x509_crt *crt = mbedtls_ssl_get_peer_cert(&t->ssl);
    uint32_t flags = crt ? mbedtls_ssl_get_verify_result(&t->ssl) : MBEDTLS_X509_BADCERT_MISSING;
    if (flags != 0) {
        return explain_certificate(t, flags, e);
    }
    if (!alpn || strcmp(alpn, FL_TLS_ALPN) != 0) {
        mbedtls_ssl_send_alert_message(&t->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL, ALERT_NO_ALPN);
        return fail(t, e, FL_R_TLS_ALPN, "the peer does not speak " FL_TLS_ALPN);
    }
    fl_tls_identity(crt, &t->peer);
    t->state = FL_TLS_OPEN;
    return 0;
}

static size_t room(const struct fl_tls_io *io)
{
    return io->out_size - io->ret_out;
}

static int write_plain(struct fl_tls *t, struct fl_err *e)
{
    struct fl_tls_io *io = t->io;
    int around = mbedtls_ssl_get_record_expansion(&t->ssl);
    size_t head = around > 0 ? (size_t)around : ALERT_ROOM;

    while (io->ret_written < io->write_size && room(io) > head) {
        size_t n = io->write_size - io->ret_written;
        n = n < RECORD_MAX ? n : RECORD_MAX;
        n = n < room(io) - head ? n : room(io) - head;
        int r = mbedtls_ssl_write(&t->ssl, io->write + io->ret_written, n);
        if (r < 0) {
            return explain(t, r, e);
        }
        io->ret_written += (size_t)r;
    }
    return 0;
}

static int read_plain(struct fl_tls *t, struct fl_err *e)
{
    struct fl_tls_io *io = t->io;

    while (io->ret_plain < io->plain_size && room(io) >= ALERT_ROOM) {
        int r =
            mbedtls_ssl_read(&t->ssl, io->plain + io->ret_plain, io->plain_size - io->ret_plain);
        if (r > 0) {
            io->ret_plain += (size_t)r;
        } else if (r == 0 || r == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            t->state = FL_TLS_CLOSED;
            break;
        } else if (waits(r)) {
            break;
        } else {
            return explain(t, r, e);
        }
    }
    return 0;
}

static void begin(struct fl_tls *t, struct fl_tls_io *io)
{
    io->ret_in = io->ret_written = io->ret_out = io->ret_plain = 0;
    t->io = io;
}

int fl_tls_pump(struct fl_tls *t, struct fl_tls_io *io, struct fl_err *e)
{
    int r = 0;

    begin(t, io);
    if (t->failed) {
        return fl_fail(e, (enum fl_reason) - t->failed, "the connection has failed before");
    }
    if (t->state == FL_TLS_HANDSHAKE) {
        r = shake_hands(t, e);
    }
    if (r == 0 && t->state == FL_TLS_OPEN) {
        r = write_plain(t, e);
    }
    if (r == 0 && t->state == FL_TLS_OPEN) {
        r = read_plain(t, e);
    }
    if (r == 0 && t->stuck) {
        r = fail(t, e, FL_R_INTERNAL, "TLS made more bytes than there was room for");
    }
    if (r == 0 && io->eof && io->ret_in == io->in_size && io->ret_plain < io->plain_size &&
        t->state != FL_TLS_CLOSED) {
        r = fail(t, e, FL_R_TLS_CLOSED,
                 t->state == FL_TLS_HANDSHAKE ? "the peer went away during the handshake"
                                              : "the peer went away without saying so");
    }
    return r;
}

int fl_tls_close_notify(struct fl_tls *t, struct fl_tls_io *io, struct fl_err *e)
{
    begin(t, io);
    if (t->failed || t->state != FL_TLS_OPEN) {
        return 0; /* nobody to say it to */
    }
    if (room(io) < ALERT_ROOM) {
        return fl_fail(e, FL_R_LIMIT, "no room for a close notification");
    }
    t->state = FL_TLS_CLOSED;
    int r = mbedtls_ssl_close_notify(&t->ssl);
    return r < 0 ? explain(t, r, e) : 0;
}

enum fl_tls_state fl_tls_state(const struct fl_tls *t)
{
    return t->state;
}

size_t fl_tls_want(const struct fl_tls *t)
{
    return t->want;
}

const struct fl_identity *fl_tls_peer(const struct fl_tls *t)
{
    return &t->peer;
}

const char *fl_tls_suite(const struct fl_tls *t)
{
    return mbedtls_ssl_get_ciphersuite(&t->ssl);
}
