/*
 * TLS by Mbed TLS as a byte pump: cipher text in, plain text out, and back. No socket, no file
 * descriptor, no clock of its own; the only door to mbedtls/ (with tls_compat.h, so that 2.28
 * and 3.6 both build).
 *
 * What is fixed against the library's defaults: TLS 1.2 at least; certificates REQUIRED on both
 * sides; host name always set on the client; ALPN "cohort/1" demanded by both; ECDSA P-256/P-384
 * with SHA-256/384 only; ChaCha20-Poly1305 and AES-CCM before GCM; no renegotiation, no tickets, no
 * session cache; a CRL whose issuer does not fit, that is missing though configured, or expired, is
 * an error; every certificate is issued directly by an authority of the `ca` file; randomness comes
 * from the kernel.
 */
#ifndef FL_WIRE_TLS_H
#define FL_WIRE_TLS_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_TLS_ALPN     "cohort/1"
#define FL_IDENTITY_KEY 32

/* Who a peer is: SHA-256 of its certificate's public key (SubjectPublicKeyInfo, DER). */
struct fl_identity {
    uint8_t key[FL_IDENTITY_KEY];
    char name[64];      /* common name, printable characters only; never used to decide anything */
    char serial[64];    /* hex, lower case, two digits a byte */
    uint64_t expires_s; /* seconds since 1970 */
};

enum fl_tls_order { FL_TLS_ORDER_MEASURE, FL_TLS_ORDER_CHACHA, FL_TLS_ORDER_AES_CCM };

struct fl_tls_files {
    const char *ca, *certificate, *key; /* PEM; the key's mode must not allow group or others */
    const char *crl;                    /* NULL = none */
    enum fl_tls_order order;
};

/* One immutable generation of certificates, reference-counted: a reload makes a new one, streams
 * keep theirs. */
struct fl_tls_conf;

/* -FL_R_TLS_SETUP, -FL_R_TLS_KEYMODE, -FL_R_TLS_CRL; the message names the file. */
int fl_tls_conf_new(bool server, const struct fl_tls_files *files, struct fl_tls_conf **ret,
                    struct fl_err *e);
struct fl_tls_conf *fl_tls_conf_ref(struct fl_tls_conf *c);
void fl_tls_conf_unref(struct fl_tls_conf *c); /* NULL is fine; thread-safe */
/* Our own certificate's identity. Its dates are not judged here: the peer does, and the shell warns
 * by expires_s. */
const struct fl_identity *fl_tls_conf_identity(const struct fl_tls_conf *c);
/* When the first of its revocation lists expires, in seconds since 1970; 0 without one. */
uint64_t fl_tls_conf_crl_expires(const struct fl_tls_conf *c);
/* Is this serial on the generation's CRL? For cutting live sessions after a reload. */
bool fl_tls_conf_revoked(const struct fl_tls_conf *c, const char *serial_hex);

struct fl_tls;

/* server_name only on the client, required there. */
int fl_tls_new(struct fl_tls_conf *c, const char *server_name, struct fl_tls **ret,
               struct fl_err *e);
void fl_tls_free(struct fl_tls *t);

enum fl_tls_state { FL_TLS_HANDSHAKE, FL_TLS_OPEN, FL_TLS_CLOSED };

/* One turn of the pump. Takes cipher text from in (ret_in), encrypts `write` bytes of plain text
 * (ret_written), puts cipher text for the socket into out and plain text into plain, as much as
 * fits; call again while it made progress. Everything of in is taken unless plain or out are full.
 * out needs at least 128 bytes free to read, and 64 more than are to be written. eof says that the
 * socket ended: without a close_notify before that is -FL_R_TLS_CLOSED. Errors are final
 * (-FL_R_TLS_*, -FL_R_NOMEM); *e names what is wrong with the peer's certificate, and out may hold
 * the alert that tells the peer. */
struct fl_tls_io {
    const uint8_t *in;
    size_t in_size;
    bool eof;
    const uint8_t *write;
    size_t write_size;
    uint8_t *out;
    size_t out_size;
    uint8_t *plain;
    size_t plain_size;
    /* results */
    size_t ret_in, ret_written, ret_out, ret_plain;
};
int fl_tls_pump(struct fl_tls *t, struct fl_tls_io *io, struct fl_err *e);
/* Puts our close_notify into out (128 bytes are enough); nothing but freeing comes after. */
int fl_tls_close_notify(struct fl_tls *t, struct fl_tls_io *io, struct fl_err *e);
enum fl_tls_state fl_tls_state(const struct fl_tls *t);
/* How many bytes of cipher text would complete what TLS waits for now, when a pump with plain room
 * gave no plain text: giving it no more keeps all buffers empty in between. */
size_t fl_tls_want(const struct fl_tls *t);
/* After the handshake. */
const struct fl_identity *fl_tls_peer(const struct fl_tls *t);
const char *fl_tls_suite(const struct fl_tls *t);

#endif
