/*
 * Configuration: YAML read into a small bounded tree that knows the line and column of every key
 * and value, and decoded into structs by tables. Job descriptions and the files of both daemons use
 * it, so one set of rules and messages holds for all:
 *
 *     job.yaml:12:3: round.quorom: unknown key; did you mean quorum?
 *     job.yaml:12:11: round.quorum: 25 is more than members (20)
 *
 * A table says name, type, place, range and default of each key; a default is written as it would
 * stand in the file.
 *
 *     struct site { char name[64]; uint64_t rest_ms; uint32_t tries; bool tls; };
 *     static const struct fl_conf_field site_fields[] = {
 *         {.name = "name", .type = FL_CONF_STRING, .offset = offsetof(struct site, name),
 *          .size = sizeof ((struct site *)0)->name, .flags = FL_CONF_REQUIRED},
 *         {.name = "rest", .type = FL_CONF_DURATION, .offset = offsetof(struct site, rest_ms),
 *          .min = 100, .max = 3600e3, .fallback = "30s"},
 *         {.name = "tries", .type = FL_CONF_UINT32, .offset = offsetof(struct site, tries),
 *          .min = 1, .max = 100, .fallback = "5"},
 *         {.name = "tls", .type = FL_CONF_BOOL, .offset = offsetof(struct site, tls),
 *          .fallback = "true"},
 *         {.name = NULL}};
 *
 *     struct fl_conf *c;
 *     int r = fl_conf_load(path, &c, e);
 *     if (r == 0) {
 *         r = fl_conf_decode(fl_conf_root(c), site_fields, &site, e);
 *         fl_conf_free(c);
 *     }
 *
 * What tables cannot say (unions, lists of maps, rules between keys) is done on the nodes: give the
 * key the type FL_CONF_NODE, walk ->first ->next, decode each map with its own table, and report
 * with fl_conf_fail at the node concerned.
 *
 * Not understood on purpose: anchors and aliases, tags, several documents, merge keys; values are
 * plain or quoted text, so `no` is never a truth value and 010 never an eight.
 */
#ifndef FL_BASE_CONF_H
#define FL_BASE_CONF_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_CONF_FILE_MAX = 256 * 1024,
    FL_CONF_DEPTH_MAX = 16,
    FL_CONF_NODES_MAX = 20000,
    FL_CONF_KEYS_MAX = 1000, /* of one map */
    FL_CONF_KEY_MAX = 128,   /* bytes of a key with its end */
};

enum fl_conf_kind { FL_CONF_KIND_SCALAR, FL_CONF_KIND_LIST, FL_CONF_KIND_MAP };

struct fl_conf; /* owns the nodes */

/* Read-only for users. Lives as long as its fl_conf. */
struct fl_conf_node {
    enum fl_conf_kind kind;
    bool plain;                    /* scalar without quotes */
    unsigned line, column;         /* of the value, from 1 */
    unsigned key_line, key_column; /* of the key */
    const char *key;               /* NULL in a list and at the root */
    const char *text;              /* scalars; terminated, no zero byte inside */
    uint32_t index;                /* place among its siblings */
    uint32_t count;                /* children */
    struct fl_conf_node *parent, *first, *last, *next;
    const struct fl_conf *conf;
};

/* `file` is for messages. The root is a map (an empty text: an empty map). Errors:
 * -FL_R_CONF_SYNTAX, -FL_R_CONF_DUPLICATE (at the second key, naming the line of the first),
 * -FL_R_LIMIT, -FL_R_NOMEM. */
int fl_conf_parse(const char *file, const char *text, size_t size, struct fl_conf **ret,
                  struct fl_err *e);
/* The same from a regular file; -FL_R_CONF_OPEN. */
int fl_conf_load(const char *path, struct fl_conf **ret, struct fl_err *e);
void fl_conf_free(struct fl_conf *c);

struct fl_conf_node *fl_conf_root(struct fl_conf *c);

/* The node at a dotted path ("train.head.lr") below a map; NULL when there is none. */
const struct fl_conf_node *fl_conf_find(const struct fl_conf_node *map, const char *path);
/* True for a map and for a key with nothing after it (`flatten:`), which reads as an empty map. */
bool fl_conf_is_map(const struct fl_conf_node *n);
/* The only entry of a one-key map: how a union is written ({conv2d: {...}}). NULL otherwise. */
const struct fl_conf_node *fl_conf_only(const struct fl_conf_node *n);

/* Takes the map `key` out of the root; each of its entries is a dotted path whose value replaces,
 * or is added to, what the rest of the file says. Messages about such a value name its line there.
 */
int fl_conf_overlay(struct fl_conf *c, const char *key, struct fl_err *e);

/* The keys whose values differ between two maps, as dotted paths with ", " between; a list is one
 * value. "" when there are none; cut at a whole path when they do not fit. */
void fl_conf_changes(const struct fl_conf_node *a, const struct fl_conf_node *b, char *ret,
                     size_t size);

/* "file:line:column: path: message" at a value, and at its key. Return -reason. */
int fl_conf_fail(struct fl_err *e, const struct fl_conf_node *at, enum fl_reason reason,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));
int fl_conf_fail_key(struct fl_err *e, const struct fl_conf_node *at, enum fl_reason reason,
                     const char *fmt, ...) __attribute__((format(printf, 4, 5)));

enum fl_conf_type {
    FL_CONF_STRING,   /* char[size]; min = least length */
    FL_CONF_BOOL,     /* bool; true or false */
    FL_CONF_INT32,    /* int32_t */
    FL_CONF_UINT32,   /* uint32_t */
    FL_CONF_UINT64,   /* uint64_t */
    FL_CONF_FLOAT,    /* float, finite */
    FL_CONF_DOUBLE,   /* double, finite */
    FL_CONF_ENUM,     /* an enum or unsigned: the index in `words` (NULL-terminated) */
    FL_CONF_SIZE,     /* uint64_t bytes: 64MiB, 1GB, 512 (B KiB MiB GiB TiB kB MB GB TB) */
    FL_CONF_DURATION, /* uint64_t milliseconds: 200ms 30s 5m 2h 7d; a bare number only if it is 0 */
    FL_CONF_MAP,      /* a nested table `fields`; offset is that of the inner struct */
    FL_CONF_STRINGS,  /* lists into arrays: char[items_max][size], uint32_t[], float[] */
    FL_CONF_UINT32S,
    FL_CONF_FLOATS,
    FL_CONF_NODE, /* const struct fl_conf_node *: the raw value, NULL when absent */
};

enum {
    FL_CONF_REQUIRED = 1,  /* -FL_R_CONF_MISSING at the map that lacks it */
    FL_CONF_ABOVE_MIN = 2, /* min itself is not allowed */
    FL_CONF_BELOW_MAX = 4, /* max itself is not allowed */
};

struct fl_conf_field {
    const char *name; /* NULL ends a table */
    enum fl_conf_type type;
    unsigned flags;
    size_t offset;
    size_t size;          /* strings: bytes with the end */
    double min, max;      /* both 0 = what the type holds. Lists: of each item */
    const char *fallback; /* NULL: an absent key leaves the struct as it is */
    const char *const *words;
    const struct fl_conf_field *fields;
    uint32_t items_min, items_max; /* lists */
    size_t count_offset;           /* lists: uint32_t, how many were given */
};

/* Decodes a map by its table. Unknown keys: -FL_R_CONF_UNKNOWN with the nearest known one; also
 * -FL_R_CONF_TYPE, -FL_R_CONF_RANGE, -FL_R_CONF_MISSING. An absent optional MAP gets its defaults,
 * and its required keys are not asked for. On failure *ret is partly written. */
int fl_conf_decode(const struct fl_conf_node *map, const struct fl_conf_field *fields, void *ret,
                   struct fl_err *e);

/* The parsers of SIZE and DURATION, for command lines. False when it is not one. */
bool fl_conf_duration(const char *text, uint64_t *ret_ms);
bool fl_conf_size(const char *text, uint64_t *ret_bytes);

#endif
