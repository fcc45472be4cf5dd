/*
 * Certificates and revocation lists as bytes: ECDSA P-256 with SHA-256, nothing else. No folder and
 * no policy here (pki.h has those). With common/wire/tls the second door to mbedtls/.
 *
 * The library parses, signs and makes keys; the DER around them is written here (RFC 5280, 5758),
 * because Mbed TLS 2.28 can write neither revocation lists nor extended key usage, and puts a NULL
 * where an ECDSA algorithm has no parameters.
 */
#ifndef SERVER_CTL_PKI_X509_H
#define SERVER_CTL_PKI_X509_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    FL_PKI_SERIAL = 16,
    FL_PKI_KEY = 32,       /* an identity: SHA-256 of the public key (SubjectPublicKeyInfo, DER) */
    FL_PKI_PEM_MAX = 8192, /* of a key or certificate, with its end */
    FL_PKI_NAME_MAX = 64,  /* of a common name, with its end (RFC 5280: 64 characters at most) */
    FL_PKI_HOSTS_MAX = 16,
};

struct fl_pki_key;       /* a private key */
struct fl_pki_authority; /* a CA's certificate and key */

int fl_pki_key_make(struct fl_pki_key **ret, struct fl_err *e);
void fl_pki_key_free(struct fl_pki_key *k);
void fl_pki_key_identity(const struct fl_pki_key *k, uint8_t ret[FL_PKI_KEY]);
/* The caller wipes it (sodium_memzero and the like) when it is written. */
int fl_pki_key_pem(struct fl_pki_key *k, char ret[FL_PKI_PEM_MAX], struct fl_err *e);

enum fl_pki_kind {
    FL_PKI_AUTHORITY,   /* signs certificates and lists, path length 0 */
    FL_PKI_COORDINATOR, /* serverAuth, with host names */
    FL_PKI_AGENT,       /* clientAuth */
};

struct fl_pki_certificate {
    enum fl_pki_kind kind;
    const char *name; /* the common name */
    uint8_t serial[FL_PKI_SERIAL];
    time_t not_before, not_after;
    uint32_t host_count;
    const char *hosts[FL_PKI_HOSTS_MAX]; /* DNS names or addresses */
};

/* 127 random bits, never zero. */
int fl_pki_serial(uint8_t ret[FL_PKI_SERIAL], struct fl_err *e);
/* `subject` is certified by `by`; by NULL: by itself (only an authority). */
int fl_pki_certify(const struct fl_pki_certificate *c, struct fl_pki_key *subject,
                   struct fl_pki_authority *by, char ret_pem[FL_PKI_PEM_MAX], struct fl_err *e);

/* Reads both files; the key must be private (-FL_R_TLS_KEYMODE) and fit (-FL_R_TLS_SETUP). */
int fl_pki_authority_load(const char *certificate, const char *key, struct fl_pki_authority **ret,
                          struct fl_err *e);
void fl_pki_authority_free(struct fl_pki_authority *a);
time_t fl_pki_authority_expires(const struct fl_pki_authority *a);

struct fl_pki_revoked {
    uint8_t serial[FL_PKI_SERIAL];
    time_t when;
};
/* A version 2 list; *ret_pem is freed by fl_free. */
int fl_pki_crl(struct fl_pki_authority *by, uint32_t number, time_t this_update, time_t next_update,
               const struct fl_pki_revoked *revoked, uint32_t count, char **ret_pem,
               struct fl_err *e);

/* What `agent enrol FILE` needs of a certificate. -FL_R_TLS_SETUP. */
struct fl_pki_info {
    char name[FL_PKI_NAME_MAX];
    uint8_t key[FL_PKI_KEY];
    time_t not_after;
};
int fl_pki_read(const char *path, struct fl_pki_info *ret, struct fl_err *e);

#endif
