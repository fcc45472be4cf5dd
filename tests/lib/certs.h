/* A folder of certificates for the tests of one program, made by certs.sh and removed at exit. */
#ifndef TESTS_LIB_CERTS_H
#define TESTS_LIB_CERTS_H

#include "common/wire/tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char certs_dir[64];

static inline void certs_remove(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", certs_dir);
    if (system(command) != 0) {
        fprintf(stderr, "left behind: %s\n", certs_dir);
    }
}

static inline void certs_make(void)
{
    char command[512];

    if (certs_dir[0]) {
        return;
    }
    memcpy(certs_dir, "/tmp/certs-XXXXXX", 18);
    if (!mkdtemp(certs_dir)) {
        perror("mkdtemp");
        exit(1);
    }
    atexit(certs_remove);
    snprintf(command, sizeof command, "%s/tests/lib/certs.sh '%s'", TEST_SOURCE_ROOT, certs_dir);
    if (system(command) != 0) {
        fprintf(stderr, "certs.sh failed: is openssl installed?\n");
        exit(1);
    }
}

/* DIR/NAME.SUFFIX, in one of a few buffers used in turn. */
static inline const char *certs_path(const char *name, const char *suffix)
{
    static char paths[12][128];
    static int next;
    char *path = paths[next++ % 12];

    snprintf(path, sizeof paths[0], "%s/%s.%s", certs_dir, name, suffix);
    return path;
}

/* crl: a name or NULL. */
static inline int certs_conf_with(bool server, const char *ca, const char *certificate,
                                  const char *key, const char *crl, enum fl_tls_order order,
                                  struct fl_tls_conf **ret, struct fl_err *e)
{
    const struct fl_tls_files files = {.ca = certs_path(ca, "crt"),
                                       .certificate = certs_path(certificate, "crt"),
                                       .key = certs_path(key, "key"),
                                       .crl = crl ? certs_path(crl, "crl") : NULL,
                                       .order = order};

    return fl_tls_conf_new(server, &files, ret, e);
}

static inline struct fl_tls_conf *certs_conf(bool server, const char *name, const char *crl)
{
    struct fl_tls_conf *c = NULL;
    struct fl_err e = {0};

    certs_make();
    if (certs_conf_with(server, "ca", name, name, crl, FL_TLS_ORDER_CHACHA, &c, &e) != 0) {
        fprintf(stderr, "%s: %s\n", name, e.msg);
        exit(1);
    }
    return c;
}

#endif
