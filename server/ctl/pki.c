#include "server/ctl/pki.h"

#include "common/base/mem.h"
#include "common/io/file.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { DAY = 24 * 3600, BACKDATE = 3600 /* for clocks that are behind */, INDEX_MAX = 64 << 20 };

/* An open folder: locked, index in memory. */
struct pki {
    const char *dir;
    int lock;
    json_t *index, *issued; /* issued is the index's list */
};

const char *fl_pki_kind_name(enum fl_pki_kind k)
{
    static const char *const names[] = {[FL_PKI_AUTHORITY] = "authority",
                                        [FL_PKI_COORDINATOR] = "coordinator",
                                        [FL_PKI_AGENT] = "agent"};
    return names[k];
}

static int path_of(const struct pki *p, const char *name, const char *end, char ret[PATH_MAX],
                   struct fl_err *e)
{
    int n = snprintf(ret, PATH_MAX, "%s/%s%s", p->dir, name, end);

    return n > 0 && n < PATH_MAX ? 0 : fl_fail(e, FL_R_ARG, "the path is too long: %.80s", p->dir);
}

static void hex(const uint8_t *bytes, size_t size, char *ret)
{
    for (size_t i = 0; i < size; i++) {
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    }
}

static bool unhex(const char *text, uint8_t *ret, size_t size)
{
    if (strlen(text) != 2 * size) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned byte;
        if (!isxdigit((unsigned char)text[2 * i]) || !isxdigit((unsigned char)text[2 * i + 1]) ||
            sscanf(text + 2 * i, "%2x", &byte) != 1) {
            return false;
        }
        ret[i] = (uint8_t)byte;
    }
    return true;
}

/* ---- the folder and its index ---- */

static void pki_close(struct pki *p)
{
    json_decref(p->index);
    if (p->lock >= 0) {
        close(p->lock);
    }
}

static int pki_lock(struct pki *p, struct fl_err *e)
{
    char path[PATH_MAX];
    int status = path_of(p, "lock", "", path, e);

    if (status) {
        return status;
    }
    p->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->lock < 0 || flock(p->lock, LOCK_EX) != 0) {
        return fl_fail_sys(e, FL_R_STORE_OPEN, errno, "%s", path);
    }
    return 0;
}

/* Reads the index; the shape of every entry is checked here, once. */
static int pki_open(struct pki *p, const char *dir, struct fl_err *e)
{
    char path[PATH_MAX];
    uint8_t *text = NULL;
    size_t size;
    json_error_t bad = {0};

    *p = (struct pki){.dir = dir, .lock = -1};
    int status = path_of(p, "index", ".json", path, e);
    if (status) {
        return status;
    }
    if (access(path, F_OK) != 0) {
        return fl_fail(e, FL_R_STORE_OPEN, "%s is no authority's folder; `pki init` makes one",
                       dir);
    }
    status = pki_lock(p, e);
    if (status == 0) {
        status = fl_file_read(path, INDEX_MAX, &text, &size, e);
    }
    if (status == 0) {
        p->index = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, &bad);
        p->issued = json_object_get(p->index, "certificates");
        if (!json_is_array(p->issued) ||
            !json_is_integer(json_object_get(p->index, "crl_number"))) {
            status = fl_fail(e, FL_R_STORE_CORRUPT, "%s:%d: not an index of `pki`%s%s", path,
                             bad.line > 0 ? bad.line : 1, bad.text[0] ? ": " : "", bad.text);
        }
    }
    fl_free(text);
    if (status) {
        pki_close(p);
    }
    return status;
}

static int pki_save(struct pki *p, struct fl_err *e)
{
    char path[PATH_MAX];
    char *text = json_dumps(p->index, JSON_INDENT(1));
    int status = path_of(p, "index", ".json", path, e);

    if (status == 0) {
        status = text ? fl_file_replace(path, text, strlen(text), 0644, e)
                      : fl_fail(e, FL_R_NOMEM, "the index of %s", p->dir);
    }
    free(text);
    return status;
}

/* False when the entry is not one of ours. */
static bool read_entry(const json_t *o, struct fl_pki_entry *ret)
{
    const char *name, *kind, *serial, *key;
    json_int_t from, until, revoked;
    uint8_t bytes[FL_PKI_KEY];
    int r = json_unpack((json_t *)(uintptr_t)o, "{s:s s:s s:s s:s s:I s:I s:I}", "name", &name,
                        "kind", &kind, "serial", &serial, "key", &key, "not_before_s", &from,
                        "not_after_s", &until, "revoked_s", &revoked);

    if (r != 0 || strlen(name) >= FL_PKI_NAME_MAX || !unhex(serial, bytes, FL_PKI_SERIAL) ||
        !unhex(key, bytes, FL_PKI_KEY)) {
        return false;
    }
    *ret = (struct fl_pki_entry){
        .kind = FL_PKI_AGENT, .not_before = from, .not_after = until, .revoked = revoked};
    if (strcmp(kind, "coordinator") == 0) {
        ret->kind = FL_PKI_COORDINATOR;
    }
    snprintf(ret->name, sizeof ret->name, "%s", name);
    snprintf(ret->serial, sizeof ret->serial, "%s", serial);
    snprintf(ret->key, sizeof ret->key, "%s", key);
    return true;
}

static int entry_at(const struct pki *p, size_t i, struct fl_pki_entry *ret, struct fl_err *e)
{
    return read_entry(json_array_get(p->issued, i), ret)
               ? 0
               : fl_fail(e, FL_R_STORE_CORRUPT, "%s/index.json: entry %zu cannot be read", p->dir,
                         i + 1);
}

static json_t *write_entry(const struct fl_pki_entry *t)
{
    return json_pack("{ss ss ss ss sI sI sI}", "name", t->name, "kind", fl_pki_kind_name(t->kind),
                     "serial", t->serial, "key", t->key, "not_before_s", (json_int_t)t->not_before,
                     "not_after_s", (json_int_t)t->not_after, "revoked_s", (json_int_t)t->revoked);
}

static int authority(const struct pki *p, struct fl_pki_authority **ret, struct fl_err *e)
{
    char certificate[PATH_MAX], key[PATH_MAX];
    int status = path_of(p, "ca", ".crt", certificate, e);

    if (status == 0) {
        status = path_of(p, "ca", ".key", key, e);
    }
    return status ? status : fl_pki_authority_load(certificate, key, ret, e);
}

/* ---- the revocation list ---- */

/* A new list from the index, with the next number; the index is saved first. */
static int write_crl(struct pki *p, struct fl_pki_authority *a, struct fl_err *e)
{
    size_t count = json_array_size(p->issued), n = 0;
    struct fl_pki_revoked *revoked = fl_try(count + 1, sizeof *revoked);
    struct fl_pki_entry t;
    json_int_t number = json_integer_value(json_object_get(p->index, "crl_number")) + 1;
    time_t now = time(NULL);
    char path[PATH_MAX], *pem = NULL;
    int status = revoked ? 0 : fl_fail(e, FL_R_NOMEM, "%zu certificates", count);

    for (size_t i = 0; i < count && status == 0; i++) {
        status = entry_at(p, i, &t, e);
        /* Expired ones stay: nothing is gained by the space. */
        if (status == 0 && t.revoked) {
            revoked[n].when = t.revoked;
            status = unhex(t.serial, revoked[n++].serial, FL_PKI_SERIAL) ? 0 : -FL_R_STORE_CORRUPT;
        }
    }
    if (status == 0) {
        json_object_set_new(p->index, "crl_number", json_integer(number));
        json_object_set_new(p->index, "crl_expires_s", json_integer(now + FL_PKI_CRL_DAYS * DAY));
        status = pki_save(p, e);
    }
    if (status == 0) {
        status = fl_pki_crl(a, (uint32_t)number, now - BACKDATE, now + FL_PKI_CRL_DAYS * DAY,
                            revoked, (uint32_t)n, &pem, e);
    }
    if (status == 0) {
        status = path_of(p, "ca", ".crl", path, e);
    }
    if (status == 0) {
        status = fl_file_replace(path, pem, strlen(pem), 0644, e);
    }
    fl_free(revoked);
    fl_free(pem);
    return status;
}

/* ---- names and hosts ---- */

static bool name_fits(const char *s)
{
    size_t n = strlen(s);

    if (n == 0 || n >= FL_PKI_NAME_MAX || !isalnum((unsigned char)s[0]) || strcmp(s, "ca") == 0) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])) {
            return false;
        }
    }
    return true;
}

/* The authority's name is for eyes only, and may have spaces. */
static bool title_fits(const char *s)
{
    size_t n = strlen(s);

    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] > 0x7e) {
            return false;
        }
    }
    return n > 0 && n < FL_PKI_NAME_MAX;
}

static bool host_fits(const char *s)
{
    uint8_t address[16];
    size_t n = strlen(s);

    if (inet_pton(AF_INET, s, address) == 1 || inet_pton(AF_INET6, s, address) == 1) {
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("-.*", s[i])) {
            return false;
        }
    }
    return n > 0 && n < 254 && s[0] != '.' && s[0] != '-';
}

/* "site-{nn}" and 7: site-07 */
static bool expand(const char *pattern, uint32_t number, char ret[FL_PKI_NAME_MAX])
{
    const char *open = strchr(pattern, '{');
    size_t n = open ? strspn(open + 1, "n") : 0;

    if (!open || n == 0 || n > 9 || open[1 + n] != '}') {
        return false;
    }
    int size = snprintf(ret, FL_PKI_NAME_MAX, "%.*s%0*u%s", (int)(open - pattern), pattern, (int)n,
                        number, open + n + 2);
    return size > 0 && size < FL_PKI_NAME_MAX;
}

/* ---- commands ---- */

static int write_text(const struct pki *p, const char *name, const char *end, const char *text,
                      unsigned mode, struct fl_err *e)
{
    char path[PATH_MAX];
    int status = path_of(p, name, end, path, e);

    return status ? status : fl_file_replace(path, text, strlen(text), mode, e);
}

static int make_authority(struct pki *p, const char *name, char *pem, char *key_pem,
                          struct fl_err *e)
{
    struct fl_pki_key *key = NULL;
    struct fl_pki_certificate c = {.kind = FL_PKI_AUTHORITY,
                                   .name = name,
                                   .not_before = time(NULL) - BACKDATE,
                                   .not_after = time(NULL) + (time_t)FL_PKI_AUTHORITY_DAYS * DAY};
    int status = fl_pki_serial(c.serial, e);

    if (status == 0) {
        status = fl_pki_key_make(&key, e);
    }
    if (status == 0) {
        status = fl_pki_certify(&c, key, NULL, pem, e);
    }
    if (status == 0) {
        status = fl_pki_key_pem(key, key_pem, e);
    }
    if (status == 0) {
        status = write_text(p, "ca", ".key", key_pem, 0600, e);
    }
    if (status == 0) {
        status = write_text(p, "ca", ".crt", pem, 0644, e);
    }
    fl_pki_key_free(key);
    explicit_bzero(key_pem, FL_PKI_PEM_MAX);
    return status;
}

int fl_pki_init(const char *dir, const char *name, struct fl_err *e)
{
    struct pki p = {.dir = dir, .lock = -1};
    struct fl_pki_authority *a = NULL;
    char path[PATH_MAX], pem[FL_PKI_PEM_MAX], key_pem[FL_PKI_PEM_MAX];

    if (!title_fits(name)) {
        return fl_fail(e, FL_R_ARG, "an authority's name has 1 to %d printable characters",
                       FL_PKI_NAME_MAX - 1);
    }
    int status = fl_file_make_dirs(dir, e);
    if (status == 0) {
        status = pki_lock(&p, e);
    }
    if (status == 0) {
        status = path_of(&p, "ca", ".key", path, e);
    }
    if (status == 0 && access(path, F_OK) == 0) {
        status = fl_fail(e, FL_R_CTL_EXISTS, "%s has an authority already", dir);
    }
    if (status == 0) {
        status = make_authority(&p, name, pem, key_pem, e);
    }
    if (status == 0) {
        status = authority(&p, &a, e);
    }
    if (status == 0) {
        p.index = json_pack("{si ss si s[]}", "version", 1, "name", name, "crl_number", 0,
                            "certificates");
        p.issued = json_object_get(p.index, "certificates");
        status = write_crl(&p, a, e);
    }
    fl_pki_authority_free(a);
    pki_close(&p);
    return status;
}

struct made {
    struct fl_pki_entry entry;
    char pem[FL_PKI_PEM_MAX], key_pem[FL_PKI_PEM_MAX];
};

/* Every name in the index: true = it has a valid certificate. NULL when memory ends or the index
 * cannot be read. */
static json_t *names_taken(const struct pki *p, time_t now, struct fl_err *e)
{
    json_t *taken = json_object();
    struct fl_pki_entry t;

    for (size_t i = 0; taken && i < json_array_size(p->issued); i++) {
        if (entry_at(p, i, &t, e) != 0) {
            json_decref(taken);
            return NULL;
        }
        bool valid =
            json_is_true(json_object_get(taken, t.name)) || (!t.revoked && t.not_after > now);
        json_object_set_new(taken, t.name, json_boolean(valid));
    }
    if (!taken) {
        fl_fail(e, FL_R_NOMEM, "the names of %s", p->dir);
    }
    return taken;
}

static int name_is_free(const struct pki *p, const char *name, const json_t *taken,
                        struct fl_err *e)
{
    const json_t *known = json_object_get(taken, name);
    char path[PATH_MAX];
    int status = path_of(p, name, ".key", path, e);

    if (status == 0 && json_is_true(known)) {
        status =
            fl_fail(e, FL_R_CTL_EXISTS, "%s has a valid certificate; `pki revoke` it first", name);
    } else if (status == 0 && !known && access(path, F_OK) == 0) {
        status = fl_fail(e, FL_R_CTL_EXISTS, "%s is there and was not made here", path);
    }
    return status;
}

static int make_one(const struct pki *p, struct fl_pki_authority *a,
                    const struct fl_pki_order *order, json_t *taken, struct made *m,
                    struct fl_err *e)
{
    struct fl_pki_key *key = NULL;
    time_t now = time(NULL);
    uint8_t identity[FL_PKI_KEY];
    struct fl_pki_certificate c = {.kind = order->kind,
                                   .name = m->entry.name,
                                   .not_before = now - BACKDATE,
                                   .not_after = now + (time_t)order->days * DAY,
                                   .host_count = order->host_count};

    memcpy(c.hosts, order->hosts, sizeof c.hosts);
    int status = name_is_free(p, m->entry.name, taken, e);
    if (status == 0 && c.not_after >= fl_pki_authority_expires(a)) {
        status = fl_fail(e, FL_R_ARG, "%u days are more than the authority has left", order->days);
    }
    if (status == 0) {
        status = fl_pki_serial(c.serial, e);
    }
    if (status == 0) {
        status = fl_pki_key_make(&key, e);
    }
    if (status == 0) {
        status = fl_pki_certify(&c, key, a, m->pem, e);
    }
    if (status == 0) {
        status = fl_pki_key_pem(key, m->key_pem, e);
    }
    if (status == 0) {
        fl_pki_key_identity(key, identity);
        m->entry.kind = order->kind;
        m->entry.not_before = c.not_before;
        m->entry.not_after = c.not_after;
        hex(c.serial, FL_PKI_SERIAL, m->entry.serial);
        hex(identity, FL_PKI_KEY, m->entry.key);
        json_array_append_new(p->issued, write_entry(&m->entry));
        json_object_set_new(taken, m->entry.name, json_true());
    }
    fl_pki_key_free(key);
    return status;
}

static int check_order(const struct fl_pki_order *o, struct fl_err *e)
{
    char name[FL_PKI_NAME_MAX];

    if (o->count < 1 || o->count > FL_PKI_COUNT_MAX || o->first > 999999999 - o->count) {
        return fl_fail(e, FL_R_ARG, "count: 1 to %d", FL_PKI_COUNT_MAX);
    }
    bool pattern = strchr(o->name, '{') != NULL;
    if (o->count > 1 && !pattern) {
        return fl_fail(e, FL_R_ARG, "several names need a pattern, as site-{nn}");
    }
    if (pattern ? !expand(o->name, o->first + o->count - 1, name) || !name_fits(name)
                : !name_fits(o->name)) {
        return fl_fail(e, FL_R_ARG,
                       "'%.64s': a name has letters, digits, '-', '_' and '.', at most %d of them",
                       o->name, FL_PKI_NAME_MAX - 1);
    }
    if (o->days < 1 || o->days > FL_PKI_AUTHORITY_DAYS) {
        return fl_fail(e, FL_R_ARG, "days: 1 to %d", FL_PKI_AUTHORITY_DAYS);
    }
    if (o->kind == FL_PKI_COORDINATOR && o->host_count == 0) {
        return fl_fail(e, FL_R_ARG, "a coordinator needs the name that agents dial: --dns NAME");
    }
    for (uint32_t i = 0; i < o->host_count; i++) {
        if (!host_fits(o->hosts[i])) {
            return fl_fail(e, FL_R_ARG, "'%.64s' is no host name", o->hosts[i]);
        }
    }
    return 0;
}

static int issue_all(struct pki *p, struct fl_pki_authority *a, const struct fl_pki_order *order,
                     struct made *made, fl_pki_each *each, void *arg, struct fl_err *e)
{
    json_t *taken;

    if (json_array_size(p->issued) + order->count > FL_PKI_ISSUED_MAX) {
        return fl_fail(e, FL_R_LIMIT, "an authority issues at most %d certificates",
                       FL_PKI_ISSUED_MAX);
    }
    taken = names_taken(p, time(NULL), e);
    int status = taken ? 0 : -FL_R_STORE_CORRUPT;
    for (uint32_t i = 0; i < order->count && status == 0; i++) {
        if (!expand(order->name, order->first + i, made[i].entry.name)) {
            snprintf(made[i].entry.name, sizeof made[i].entry.name, "%s", order->name);
        }
        status = make_one(p, a, order, taken, &made[i], e);
    }
    if (status == 0) {
        status = pki_save(p, e);
    }
    for (uint32_t i = 0; i < order->count && status == 0; i++) {
        status = write_text(p, made[i].entry.name, ".key", made[i].key_pem, 0600, e);
        if (status == 0) {
            status = write_text(p, made[i].entry.name, ".crt", made[i].pem, 0644, e);
        }
        if (status == 0 && each) {
            each(arg, &made[i].entry);
        }
    }
    json_decref(taken);
    return status;
}

int fl_pki_issue(const char *dir, const struct fl_pki_order *order, fl_pki_each *each, void *arg,
                 struct fl_err *e)
{
    struct pki p;
    struct fl_pki_authority *a = NULL;
    int status = check_order(order, e);

    if (status == 0) {
        status = pki_open(&p, dir, e);
    }
    if (status) {
        return status;
    }
    struct made *made = fl_try(order->count, sizeof *made);
    status = made ? authority(&p, &a, e) : fl_fail(e, FL_R_NOMEM, "%u keys", order->count);
    if (status == 0) {
        status = issue_all(&p, a, order, made, each, arg, e);
    }
    if (made) {
        explicit_bzero(made, order->count * sizeof *made);
    }
    fl_free(made);
    fl_pki_authority_free(a);
    pki_close(&p);
    return status;
}

int fl_pki_revoke(const char *dir, const char *name, fl_pki_each *each, void *arg, struct fl_err *e)
{
    struct pki p;
    struct fl_pki_entry t;
    struct fl_pki_authority *a = NULL;
    time_t now = time(NULL);
    size_t found = 0;
    int status = pki_open(&p, dir, e);

    if (status) {
        return status;
    }
    for (size_t i = 0; i < json_array_size(p.issued) && status == 0; i++) {
        status = entry_at(&p, i, &t, e);
        if (status == 0 && strcmp(t.name, name) == 0 && !t.revoked && t.not_after > now) {
            t.revoked = now;
            found++;
            json_object_set_new(json_array_get(p.issued, i), "revoked_s", json_integer(now));
            if (each) {
                each(arg, &t);
            }
        }
    }
    if (status == 0 && !found) {
        status = fl_fail(e, FL_R_ARG, "no valid certificate of '%.64s' in %s", name, dir);
    }
    if (status == 0) {
        status = authority(&p, &a, e);
    }
    if (status == 0) {
        status = write_crl(&p, a, e);
    }
    fl_pki_authority_free(a);
    pki_close(&p);
    return status;
}

int fl_pki_refresh(const char *dir, struct fl_err *e)
{
    struct pki p;
    struct fl_pki_authority *a = NULL;
    int status = pki_open(&p, dir, e);

    if (status) {
        return status;
    }
    status = authority(&p, &a, e);
    if (status == 0) {
        status = write_crl(&p, a, e);
    }
    fl_pki_authority_free(a);
    pki_close(&p);
    return status;
}

int fl_pki_list(const char *dir, fl_pki_each *each, void *arg, time_t *ret_crl_expires,
                struct fl_err *e)
{
    struct pki p;
    struct fl_pki_entry t;
    int status = pki_open(&p, dir, e);

    if (status) {
        return status;
    }
    for (size_t i = 0; i < json_array_size(p.issued) && status == 0; i++) {
        status = entry_at(&p, i, &t, e);
        if (status == 0) {
            each(arg, &t);
        }
    }
    if (ret_crl_expires) {
        *ret_crl_expires = json_integer_value(json_object_get(p.index, "crl_expires_s"));
    }
    pki_close(&p);
    return status;
}
