/*
 * YAML events (libyaml; this is its one door) become a tree.
 *
 * The text may come from a coordinator that an agent does not trust, so everything is counted
 * before it is kept: bytes, nodes, depth, keys of a map, length of a key. Aliases, the one way a
 * small YAML becomes a large tree, are refused, and so are tags and further documents. Nodes and
 * texts live in blocks that are released together.
 */
#include "common/base/conf.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

enum { BLOCK = 16 * 1024, FILE_SHOWN = 80, PATH_SHOWN = 96 };

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(16) char bytes[];
};

struct fl_conf {
    char *file;
    struct block *blocks;
    struct fl_conf_node *root;
    uint32_t nodes;
};

static void *take(struct fl_conf *c, size_t size)
{
    size = (size + 15) / 16 * 16;
    if (!c->blocks || c->blocks->size - c->blocks->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        struct block *b = fl_try(1, sizeof *b + room);
        if (!b) {
            return NULL;
        }
        b->size = room;
        b->next = c->blocks;
        c->blocks = b;
    }
    void *p = c->blocks->bytes + c->blocks->used;
    c->blocks->used += size;
    return p;
}

static const char *keep_text(struct fl_conf *c, const char *text, size_t size)
{
    char *p = take(c, size + 1);
    if (p) {
        memcpy(p, text, size);
        p[size] = 0;
    }
    return p;
}

/* ---- messages ---- */

/* Long paths lose their beginning, so that the file's own name stays. */
static const char *shown_file(const struct fl_conf *c)
{
    size_t n = strlen(c->file);
    return n > FILE_SHOWN ? c->file + n - FILE_SHOWN : c->file;
}

static size_t path_of(const struct fl_conf_node *n, char *to, size_t size)
{
    if (!n->parent) {
        to[0] = 0;
        return 0;
    }
    size_t at = path_of(n->parent, to, size);
    int more = n->key ? snprintf(to + at, size - at, "%s%s", at ? "." : "", n->key)
                      : snprintf(to + at, size - at, "[%u]", n->index);
    at += more > 0 ? (size_t)more : 0;
    return at < size ? at : size - 1;
}

/* What a peer wrote may end in a terminal: no control characters. */
static void make_printable(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 127) {
            *text = '?';
        }
    }
}

__attribute__((format(printf, 5, 0))) static int fail_at(struct fl_err *e,
                                                         const struct fl_conf_node *at, bool key,
                                                         enum fl_reason reason, const char *fmt,
                                                         va_list ap)
{
    if (!e) {
        return -(int)reason;
    }
    bool by_key = key && at->key;
    char path[PATH_SHOWN];
    size_t length = path_of(at, path, sizeof path);
    int n = snprintf(e->msg, sizeof e->msg, "%s:%u:%u: %s%s", shown_file(at->conf),
                     by_key ? at->key_line : at->line, by_key ? at->key_column : at->column, path,
                     length ? ": " : "");
    size_t used = n < 0 ? 0 : (size_t)n < sizeof e->msg ? (size_t)n : sizeof e->msg - 1;
    vsnprintf(e->msg + used, sizeof e->msg - used, fmt, ap);
    make_printable(e->msg);
    e->code = -(int)reason;
    return e->code;
}

int fl_conf_fail(struct fl_err *e, const struct fl_conf_node *at, enum fl_reason reason,
                 const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int r = fail_at(e, at, false, reason, fmt, ap);
    va_end(ap);
    return r;
}

int fl_conf_fail_key(struct fl_err *e, const struct fl_conf_node *at, enum fl_reason reason,
                     const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int r = fail_at(e, at, true, reason, fmt, ap);
    va_end(ap);
    return r;
}

/* ---- events to tree ---- */

struct builder {
    struct fl_conf *conf;
    struct fl_conf_node *open[FL_CONF_DEPTH_MAX];
    uint32_t depth;
    const char *key; /* read, its value is next */
    unsigned key_line, key_column;
    struct fl_err *e;
};

static unsigned line_of(const yaml_event_t *ev)
{
    return (unsigned)ev->start_mark.line + 1;
}

static unsigned column_of(const yaml_event_t *ev)
{
    return (unsigned)ev->start_mark.column + 1;
}

static int fail_mark(struct builder *b, const yaml_event_t *ev, enum fl_reason reason,
                     const char *text)
{
    return fl_fail(b->e, reason, "%s:%u:%u: %s", shown_file(b->conf), line_of(ev), column_of(ev),
                   text);
}

static int read_key(struct builder *b, const yaml_event_t *ev)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t length = ev->data.scalar.length;
    struct fl_conf_node *map = b->open[b->depth - 1];

    if (length == 0 || length >= FL_CONF_KEY_MAX || memchr(text, 0, length)) {
        return fail_mark(b, ev, FL_R_CONF_SYNTAX, "a key is empty or too long");
    }
    for (const struct fl_conf_node *n = map->first; n; n = n->next) {
        if (strcmp(n->key, text) == 0) {
            struct fl_conf_node at = {.key = text,
                                      .key_line = line_of(ev),
                                      .key_column = column_of(ev),
                                      .parent = map,
                                      .conf = b->conf};
            return fl_conf_fail_key(b->e, &at, FL_R_CONF_DUPLICATE, "given twice, first in line %u",
                                    n->key_line);
        }
    }
    if (map->count >= FL_CONF_KEYS_MAX) {
        return fail_mark(b, ev, FL_R_LIMIT, "more than 1000 keys in one map");
    }
    b->key = keep_text(b->conf, text, length);
    b->key_line = line_of(ev);
    b->key_column = column_of(ev);
    return b->key ? 0 : fl_fail(b->e, FL_R_NOMEM, "out of memory");
}

static void append(struct fl_conf_node *parent, struct fl_conf_node *n)
{
    n->parent = parent;
    n->index = parent->count++;
    n->next = NULL;
    if (parent->last) {
        parent->last->next = n;
    } else {
        parent->first = n;
    }
    parent->last = n;
}

/* A value begins: makes its node and hangs it where it belongs. */
static int add_node(struct builder *b, const yaml_event_t *ev, enum fl_conf_kind kind,
                    struct fl_conf_node **ret)
{
    struct fl_conf *c = b->conf;
    struct fl_conf_node *parent = b->depth ? b->open[b->depth - 1] : NULL;

    if (c->nodes >= FL_CONF_NODES_MAX) {
        return fail_mark(b, ev, FL_R_LIMIT, "too many values in one file");
    }
    struct fl_conf_node *n = take(c, sizeof *n);
    if (!n) {
        return fl_fail(b->e, FL_R_NOMEM, "out of memory");
    }
    c->nodes++;
    *n = (struct fl_conf_node){.kind = kind,
                               .line = line_of(ev),
                               .column = column_of(ev),
                               .key = b->key,
                               .key_line = b->key_line,
                               .key_column = b->key_column,
                               .conf = c};
    b->key = NULL;
    if (parent) {
        append(parent, n);
    } else {
        c->root = n;
    }
    *ret = n;
    return 0;
}

static bool key_expected(const struct builder *b)
{
    return b->depth && b->open[b->depth - 1]->kind == FL_CONF_KIND_MAP && !b->key;
}

static int on_scalar(struct builder *b, const yaml_event_t *ev)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t length = ev->data.scalar.length;
    struct fl_conf_node *n;

    if (ev->data.scalar.anchor || ev->data.scalar.tag) {
        return fail_mark(b, ev, FL_R_CONF_SYNTAX, "anchors and tags are not understood");
    }
    if (key_expected(b)) {
        return read_key(b, ev);
    }
    if (memchr(text, 0, length)) {
        return fail_mark(b, ev, FL_R_CONF_SYNTAX, "a zero byte in a text");
    }
    int r = add_node(b, ev, FL_CONF_KIND_SCALAR, &n);
    if (r) {
        return r;
    }
    n->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    n->text = keep_text(b->conf, text, length);
    return n->text ? 0 : fl_fail(b->e, FL_R_NOMEM, "out of memory");
}

static int on_open(struct builder *b, const yaml_event_t *ev, bool marked, enum fl_conf_kind kind)
{
    struct fl_conf_node *n;

    if (marked) {
        return fail_mark(b, ev, FL_R_CONF_SYNTAX, "anchors and tags are not understood");
    }
    if (key_expected(b)) {
        return fail_mark(b, ev, FL_R_CONF_SYNTAX, "a key must be a word");
    }
    if (b->depth >= FL_CONF_DEPTH_MAX) {
        return fail_mark(b, ev, FL_R_LIMIT, "nested too deeply");
    }
    int r = add_node(b, ev, kind, &n);
    if (r == 0) {
        b->open[b->depth++] = n;
    }
    return r;
}

static int on_event(struct builder *b, const yaml_event_t *ev)
{
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(b, ev);
    case YAML_MAPPING_START_EVENT:
        return on_open(b, ev, ev->data.mapping_start.anchor || ev->data.mapping_start.tag,
                       FL_CONF_KIND_MAP);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(b, ev, ev->data.sequence_start.anchor || ev->data.sequence_start.tag,
                       FL_CONF_KIND_LIST);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return 0;
    case YAML_ALIAS_EVENT:
        return fail_mark(b, ev, FL_R_CONF_SYNTAX, "aliases are not understood");
    case YAML_DOCUMENT_START_EVENT:
        return b->conf->root
                   ? fail_mark(b, ev, FL_R_CONF_SYNTAX, "a second document in the same file")
                   : 0;
    default:
        return 0;
    }
}

/* libyaml gives marks for errors of the scanner and parser, but only a byte for the reader's. */
static int fail_yaml(const struct fl_conf *c, const yaml_parser_t *p, const char *text, size_t size,
                     struct fl_err *e)
{
    size_t line = p->problem_mark.line + 1, column = p->problem_mark.column + 1;

    if (p->error == YAML_MEMORY_ERROR) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    if (p->error == YAML_READER_ERROR) {
        line = column = 1;
        for (size_t i = 0; i < p->problem_offset && i < size; i++) {
            column = text[i] == '\n' ? 1 : column + 1;
            line += text[i] == '\n';
        }
    }
    return fl_fail(e, FL_R_CONF_SYNTAX, "%s:%zu:%zu: %s", shown_file(c), line, column,
                   p->problem ? p->problem : "not YAML");
}

static int build(struct fl_conf *c, const char *text, size_t size, struct fl_err *e)
{
    struct builder b = {.conf = c, .e = e};
    yaml_parser_t p;
    yaml_event_t ev;
    bool end = false;
    int r = 0;

    if (!yaml_parser_initialize(&p)) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    yaml_parser_set_encoding(&p, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p, (const unsigned char *)text, size);
    while (r == 0 && !end) {
        if (!yaml_parser_parse(&p, &ev)) {
            r = fail_yaml(c, &p, text, size, e);
            break;
        }
        end = ev.type == YAML_STREAM_END_EVENT;
        r = on_event(&b, &ev);
        yaml_event_delete(&ev);
    }
    yaml_parser_delete(&p);
    if (r) {
        return r;
    }
    if (!c->root) {
        yaml_event_t none = {.type = YAML_NO_EVENT};
        return add_node(&b, &none, FL_CONF_KIND_MAP, &c->root);
    }
    if (!fl_conf_is_map(c->root)) {
        return fl_conf_fail(e, c->root, FL_R_CONF_SYNTAX, "the file must be a map of keys");
    }
    return 0;
}

int fl_conf_parse(const char *file, const char *text, size_t size, struct fl_conf **ret,
                  struct fl_err *e)
{
    if (size > FL_CONF_FILE_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%s: longer than %d bytes", file, FL_CONF_FILE_MAX);
    }
    struct fl_conf *c = fl_try(1, sizeof *c);
    size_t name = strlen(file) + 1;
    if (!c || !(c->file = fl_try(name, 1))) {
        fl_conf_free(c);
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    memcpy(c->file, file, name);
    make_printable(c->file);
    int r = build(c, text, size, e);
    if (r) {
        fl_conf_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

int fl_conf_load(const char *path, struct fl_conf **ret, struct fl_err *e)
{
    struct stat st;
    size_t got = 0;
    int r = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st)) {
        r = fl_fail_sys(e, FL_R_CONF_OPEN, errno, "%s", path);
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    char *text = fl_try(FL_CONF_FILE_MAX + 1, 1);
    if (!text) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory");
    } else if (!S_ISREG(st.st_mode)) {
        r = fl_fail(e, FL_R_CONF_OPEN, "%s: not a regular file", path);
    }
    while (r == 0 && got <= FL_CONF_FILE_MAX) {
        ssize_t n = read(fd, text + got, FL_CONF_FILE_MAX + 1 - got);
        if (n < 0 && errno != EINTR) {
            r = fl_fail_sys(e, FL_R_CONF_OPEN, errno, "%s", path);
        } else if (n == 0) {
            break;
        } else if (n > 0) {
            got += (size_t)n;
        }
    }
    close(fd);
    if (r == 0) {
        r = fl_conf_parse(path, text, got, ret, e);
    }
    fl_free(text);
    return r;
}

void fl_conf_free(struct fl_conf *c)
{
    if (!c) {
        return;
    }
    while (c->blocks) {
        struct block *next = c->blocks->next;
        fl_free(c->blocks);
        c->blocks = next;
    }
    fl_free(c->file);
    fl_free(c);
}

/* ---- the tree ---- */

struct fl_conf_node *fl_conf_root(struct fl_conf *c)
{
    return c->root;
}

bool fl_conf_is_map(const struct fl_conf_node *n)
{
    return n->kind == FL_CONF_KIND_MAP ||
           (n->kind == FL_CONF_KIND_SCALAR && n->plain && n->text[0] == 0);
}

static struct fl_conf_node *child(const struct fl_conf_node *map, const char *key, size_t length)
{
    if (map->kind != FL_CONF_KIND_MAP) {
        return NULL;
    }
    for (struct fl_conf_node *n = map->first; n; n = n->next) {
        if (strncmp(n->key, key, length) == 0 && n->key[length] == 0) {
            return n;
        }
    }
    return NULL;
}

const struct fl_conf_node *fl_conf_find(const struct fl_conf_node *map, const char *path)
{
    while (map && *path) {
        size_t length = strcspn(path, ".");
        map = child(map, path, length);
        path += length;
        path += *path == '.';
    }
    return map;
}

const struct fl_conf_node *fl_conf_only(const struct fl_conf_node *n)
{
    return n->kind == FL_CONF_KIND_MAP && n->count == 1 ? n->first : NULL;
}

static void remove_child(struct fl_conf_node *map, const struct fl_conf_node *gone)
{
    struct fl_conf_node *n = map->first;

    map->first = map->last = NULL;
    map->count = 0;
    while (n) {
        struct fl_conf_node *next = n->next;
        if (n != gone) {
            append(map, n);
        }
        n = next;
    }
}

/* The node takes over the value of `from` and its position; its key stays. */
static void replace_value(struct fl_conf_node *n, const struct fl_conf_node *from)
{
    n->kind = from->kind;
    n->plain = from->plain;
    n->text = from->text;
    n->line = from->line;
    n->column = from->column;
    n->key_line = from->key_line;
    n->key_column = from->key_column;
    n->first = from->first;
    n->last = from->last;
    n->count = from->count;
    for (struct fl_conf_node *i = n->first; i; i = i->next) {
        i->parent = n;
    }
}

static int overlay_one(struct fl_conf *c, const struct fl_conf_node *from, struct fl_err *e)
{
    struct fl_conf_node *at = c->root;
    const char *path = from->key;

    while (*path) {
        size_t length = strcspn(path, ".");
        if (length == 0 || (path[length] == '.' && path[length + 1] == 0)) {
            return fl_conf_fail_key(e, from, FL_R_CONF_UNKNOWN, "not a dotted path of keys");
        }
        if (!fl_conf_is_map(at)) {
            return fl_conf_fail_key(e, from, FL_R_CONF_TYPE, "%s is not a map", at->key);
        }
        at->kind = FL_CONF_KIND_MAP;
        struct fl_conf_node *next = child(at, path, length);
        if (!next) {
            next = take(c, sizeof *next);
            const char *key = keep_text(c, path, length);
            if (!next || !key || c->nodes >= FL_CONF_NODES_MAX) {
                return fl_fail(e, FL_R_NOMEM, "out of memory");
            }
            c->nodes++;
            *next = (struct fl_conf_node){.kind = FL_CONF_KIND_MAP,
                                          .line = from->line,
                                          .column = from->column,
                                          .key_line = from->key_line,
                                          .key_column = from->key_column,
                                          .key = key,
                                          .conf = c};
            append(at, next);
        }
        at = next;
        path += length;
        path += *path == '.';
    }
    replace_value(at, from);
    return 0;
}

int fl_conf_overlay(struct fl_conf *c, const char *key, struct fl_err *e)
{
    struct fl_conf_node *set = child(c->root, key, strlen(key));

    if (!set) {
        return 0;
    }
    if (!fl_conf_is_map(set)) {
        return fl_conf_fail(e, set, FL_R_CONF_TYPE, "must be a map of dotted keys");
    }
    remove_child(c->root, set);
    for (const struct fl_conf_node *n = set->first; n; n = n->next) {
        int r = overlay_one(c, n, e);
        if (r) {
            return r;
        }
    }
    return 0;
}

/* ---- differences ---- */

static bool same(const struct fl_conf_node *a, const struct fl_conf_node *b)
{
    const struct fl_conf_node *x = a->first, *y = b->first;

    if (a->kind != b->kind || a->count != b->count ||
        strcmp(a->text ? a->text : "", b->text ? b->text : "") != 0) {
        return false;
    }
    if (a->kind == FL_CONF_KIND_MAP) { /* in any order */
        for (; x; x = x->next) {
            y = child(b, x->key, strlen(x->key));
            if (!y || !same(x, y)) {
                return false;
            }
        }
        return true;
    }
    for (; x && y; x = x->next, y = y->next) {
        if (!same(x, y)) {
            return false;
        }
    }
    return true;
}

struct changes {
    char *text;
    size_t size, used;
};

static void add_change(struct changes *c, const char *path)
{
    size_t more = strlen(path) + (c->used ? 2 : 0);

    if (c->used + more < c->size) {
        snprintf(c->text + c->used, c->size - c->used, "%s%s", c->used ? ", " : "", path);
        c->used += more;
    }
}

/* Keys of `a` that are not so in `b`; those in both maps are looked into once, `into`. */
static void compare(struct changes *c, const struct fl_conf_node *a, const struct fl_conf_node *b,
                    const char *above, bool into)
{
    char path[FL_CONF_KEY_MAX * 2];

    for (const struct fl_conf_node *x = a->first; x; x = x->next) {
        const struct fl_conf_node *y = child(b, x->key, strlen(x->key));
        snprintf(path, sizeof path, "%s%s%s", above, above[0] ? "." : "", x->key);
        if (!y) {
            add_change(c, path);
        } else if (x->kind == FL_CONF_KIND_MAP && y->kind == FL_CONF_KIND_MAP) {
            compare(c, x, y, path, into);
        } else if (into && !same(x, y)) {
            add_change(c, path);
        }
    }
}

void fl_conf_changes(const struct fl_conf_node *a, const struct fl_conf_node *b, char *ret,
                     size_t size)
{
    struct changes c = {ret, size, 0};

    ret[0] = 0;
    compare(&c, a, b, "", true);
    compare(&c, b, a, "", false); /* what is new */
}
