/*
 * A certificate authority in a folder, for people:
 *
 *     DIR/ca.crt ca.key ca.crl   the authority (10 years), its revocation list (30 days)
 *     DIR/index.json             everything it ever issued
 *     DIR/NAME.crt NAME.key      what it issued (1 year)
 *
 * Keys are created with mode 0600 and never pass through a state that others can read. The index is
 * durable before a certificate exists, so whatever is out there can be revoked. One command at a
 * time works on a folder (a lock).
 */
#ifndef SERVER_CTL_PKI_H
#define SERVER_CTL_PKI_H

#include "server/ctl/pki_x509.h"

#include <stdbool.h>

enum {
    FL_PKI_AUTHORITY_DAYS = 3653,
    FL_PKI_DAYS = 365,
    FL_PKI_CRL_DAYS = 30,
    FL_PKI_COUNT_MAX = 10000, /* of one `issue` */
    FL_PKI_ISSUED_MAX = 100000,
};

struct fl_pki_entry {
    char name[FL_PKI_NAME_MAX];
    enum fl_pki_kind kind;
    char serial[2 * FL_PKI_SERIAL + 1]; /* hex */
    char key[2 * FL_PKI_KEY + 1];       /* hex: what `agent enrol` takes */
    time_t not_before, not_after;
    time_t revoked; /* 0 = not */
};
typedef void fl_pki_each(void *arg, const struct fl_pki_entry *entry);

struct fl_pki_order {
    enum fl_pki_kind kind;
    const char *name; /* with count > 1: a pattern, "site-{nn}" is site-01, site-02, ... */
    uint32_t count, first;
    uint32_t days;
    uint32_t host_count;
    const char *hosts[FL_PKI_HOSTS_MAX];
};

/* Makes the folder (0700) if needed; one with an authority in it: -FL_R_CTL_EXISTS. */
int fl_pki_init(const char *dir, const char *name, struct fl_err *e);
/* -FL_R_CTL_EXISTS: a valid certificate of this name is there (revoke it first, or let it expire);
 * -FL_R_ARG: a name, host, count or lifetime that cannot be used. All or none are issued. */
int fl_pki_issue(const char *dir, const struct fl_pki_order *order, fl_pki_each *each, void *arg,
                 struct fl_err *e);
/* Puts every valid certificate of this name on a new list. -FL_R_ARG: there is none. */
int fl_pki_revoke(const char *dir, const char *name, fl_pki_each *each, void *arg,
                  struct fl_err *e);
/* A new list with another 30 days. */
int fl_pki_refresh(const char *dir, struct fl_err *e);
/* ret_crl_expires may be NULL. */
int fl_pki_list(const char *dir, fl_pki_each *each, void *arg, time_t *ret_crl_expires,
                struct fl_err *e);

const char *fl_pki_kind_name(enum fl_pki_kind k);

#endif
