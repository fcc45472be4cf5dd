#include "server/config.h"

#include "common/base/conf.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define AT(member)   offsetof(struct fl_server_config, member)
#define SIZE(member) sizeof(((struct fl_server_config *)NULL)->member)
/* Sections are anonymous structs of the same struct: their tables hold offsets from its start, and
 * the section itself sits at 0. */
#define SECTION(key, table, needed)                                                                \
    {                                                                                              \
        .name = key, .type = FL_CONF_MAP, .fields = table, .flags = needed                         \
    }
#define STRING(key, member, ...)                                                                   \
    {                                                                                              \
        .name = key, .type = FL_CONF_STRING, .offset = AT(member), .size = SIZE(member),           \
        __VA_ARGS__                                                                                \
    }
#define COUNT(key, member, low, high, normal)                                                      \
    {                                                                                              \
        .name = key, .type = FL_CONF_UINT32, .offset = AT(member), .min = low, .max = high,        \
        .fallback = normal                                                                         \
    }
#define WORD(key, member, list, normal)                                                            \
    {                                                                                              \
        .name = key, .type = FL_CONF_ENUM, .offset = AT(member), .words = list, .fallback = normal \
    }

static const char *const orders[] = {"measure", "chacha20", "aes-ccm", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const formats[] = {"auto", "text", "json", NULL};

static const struct fl_conf_field listen_fields[] = {
    STRING("address", listen.address, .min = 1, .fallback = "127.0.0.1"),
    COUNT("port", listen.port, 0, 65535, "7443"),
    {.name = NULL}};

static const struct fl_conf_field socket_fields[] = {
    STRING("path", socket.path, .min = 1, .fallback = "/run/cohort/cohortd.sock"),
    STRING("group", socket.group, .fallback = ""),
    {.name = NULL}};

static const struct fl_conf_field tls_fields[] = {
    STRING("ca", tls.ca, .min = 1, .flags = FL_CONF_REQUIRED),
    STRING("certificate", tls.certificate, .min = 1, .flags = FL_CONF_REQUIRED),
    STRING("key", tls.key, .min = 1, .flags = FL_CONF_REQUIRED),
    STRING("crl", tls.crl, .fallback = ""),
    WORD("order", tls.order, orders, "measure"),
    {.name = NULL}};

static const struct fl_conf_field limits_fields[] = {
    COUNT("connections", limits.connections, 1, 100000, "1000"),
    COUNT("half_open", limits.half_open, 1, 10000, "64"),
    COUNT("frame_buffers", limits.frame_buffers, 2, 4096, "32"),
    {.name = "heartbeat",
     .type = FL_CONF_DURATION,
     .offset = AT(limits.heartbeat_ms),
     .min = 1000,
     .max = 600e3,
     .fallback = "20s"},
    {.name = NULL}};

static const struct fl_conf_field retention_fields[] = {
    {.name = "state_bytes",
     .type = FL_CONF_SIZE,
     .offset = AT(retention.state_bytes),
     .max = 1e15,
     .fallback = "0"},
    COUNT("keep_models", retention.keep_models, 2, 1000, "3"),
    COUNT("keep_rounds", retention.keep_rounds, 0, 100, "0"),
    {.name = NULL}};

static const struct fl_conf_field log_fields[] = {WORD("level", log.level, levels, "info"),
                                                  WORD("format", log.format, formats, "auto"),
                                                  {.name = NULL}};

static const struct fl_conf_field target_fields[] = {
    STRING("data", target.data, .min = 1, .flags = FL_CONF_REQUIRED),
    STRING("program", target.program, .min = 1, .fallback = FL_LIBEXEC "/cohort-tune"),
    {.name = "time",
     .type = FL_CONF_DURATION,
     .offset = AT(target.time_ms),
     .min = 1000,
     .max = 86400e3,
     .fallback = "10m"},
    {.name = "memory",
     .type = FL_CONF_SIZE,
     .offset = AT(target.memory),
     .min = 64 << 20,
     .max = 1e15,
     .fallback = "4GiB"},
    {.name = NULL}};

static const struct fl_conf_field threads_fields[] = {COUNT("short", threads.short_, 0, 64, "0"),
                                                      COUNT("sync", threads.sync, 0, 64, "0"),
                                                      COUNT("long", threads.long_, 0, 64, "0"),
                                                      {.name = NULL}};

static const struct fl_conf_field fields[] = {
    SECTION("listen", listen_fields, 0),
    STRING("state", state, .min = 1, .fallback = "/var/lib/cohort"),
    SECTION("socket", socket_fields, 0),
    SECTION("tls", tls_fields, FL_CONF_REQUIRED),
    SECTION("limits", limits_fields, 0),
    SECTION("retention", retention_fields, 0),
    SECTION("log", log_fields, 0),
    SECTION("target", target_fields, 0),
    SECTION("threads", threads_fields, 0),
    {.name = NULL}};

/* ---- loading ---- */

/* Puts the configuration file's folder before a relative path. */
static int resolve(const struct fl_conf_node *root, const char *key, const char *file, char *path,
                   size_t size, struct fl_err *e)
{
    char full[2 * FL_SERVER_PATH_MAX];
    const char *slash = strrchr(file, '/');

    if (path[0] == 0 || path[0] == '/' || !slash) {
        return 0;
    }
    int n = snprintf(full, sizeof full, "%.*s/%s", (int)(slash - file), file, path);
    if (n < 0 || (size_t)n >= size) {
        const struct fl_conf_node *at = fl_conf_find(root, key);
        return fl_conf_fail(e, at ? at : root, FL_R_CONF_RANGE,
                            "with the folder of the file it is longer than %zu bytes", size - 1);
    }
    memcpy(path, full, (size_t)n + 1);
    return 0;
}

static int resolve_all(const struct fl_conf_node *root, const char *file,
                       struct fl_server_config *c, struct fl_err *e)
{
    const struct {
        const char *key;
        char *path;
        size_t size;
    } paths[] = {{"state", c->state, sizeof c->state},
                 {"socket.path", c->socket.path, sizeof c->socket.path},
                 {"target.data", c->target.data, sizeof c->target.data},
                 {"target.program", c->target.program, sizeof c->target.program},
                 {"tls.ca", c->tls.ca, sizeof c->tls.ca},
                 {"tls.certificate", c->tls.certificate, sizeof c->tls.certificate},
                 {"tls.key", c->tls.key, sizeof c->tls.key},
                 {"tls.crl", c->tls.crl, sizeof c->tls.crl}};
    int status = 0;

    for (size_t i = 0; i < sizeof paths / sizeof paths[0] && status == 0; i++) {
        status = resolve(root, paths[i].key, file, paths[i].path, paths[i].size, e);
    }
    return status;
}

static int check(const struct fl_conf_node *root, const struct fl_server_config *c,
                 struct fl_err *e)
{
    const struct fl_conf_node *at = fl_conf_find(root, "limits.half_open");

    if (c->limits.half_open > c->limits.connections) {
        return fl_conf_fail(e, at ? at : fl_conf_find(root, "limits.connections"),
                            FL_R_CONF_CONFLICT, "half_open (%u) is more than connections (%u)",
                            c->limits.half_open, c->limits.connections);
    }
    return 0;
}

uint32_t fl_server_config_connections(uint32_t asked, uint64_t most)
{
    uint64_t room = most > FL_SERVER_DESCRIPTORS ? (most - FL_SERVER_DESCRIPTORS) / 2 : 0;

    return room < asked ? (uint32_t)room : asked;
}

int fl_server_config_load(const char *path, struct fl_server_config *ret, struct fl_err *e)
{
    struct fl_server_config c;
    struct fl_conf *conf;

    memset(&c, 0, sizeof c);
    int status = fl_conf_load(path, &conf, e);
    if (status) {
        return status;
    }
    const struct fl_conf_node *root = fl_conf_root(conf);
    status = fl_conf_decode(root, fields, &c, e);
    if (status == 0) {
        status = resolve_all(root, path, &c, e);
    }
    if (status == 0) {
        status = check(root, &c, e);
    }
    fl_conf_free(conf);
    if (status == 0) {
        memcpy(ret, &c, sizeof c); /* with its padding: a reload compares bytes */
    }
    return status;
}

/* ---- reload ---- */

struct waiting {
    char *text;
    size_t size, used;
};

static void wait_for_restart(struct waiting *w, const char *key, const void *a, const void *b,
                             size_t size)
{
    if (memcmp(a, b, size) == 0 || w->used >= w->size) {
        return;
    }
    int n = snprintf(w->text + w->used, w->size - w->used, "%s%s", w->used ? ", " : "", key);
    w->used += n > 0 ? (size_t)n : 0;
}

#define RESTART(w, a, b, member)                                                                   \
    wait_for_restart((w), #member, &(a)->member, &(b)->member, sizeof(a)->member)

void fl_server_config_renew(struct fl_server_config *running, const struct fl_server_config *fresh,
                            char *ret_waiting, size_t size)
{
    struct waiting w = {ret_waiting, size, 0};

    ret_waiting[0] = 0;
    running->tls = fresh->tls;
    running->limits.connections = fresh->limits.connections;
    running->limits.half_open = fresh->limits.half_open;
    running->limits.heartbeat_ms = fresh->limits.heartbeat_ms;
    running->log.level = fresh->log.level;
    running->target = fresh->target;
    RESTART(&w, running, fresh, listen);
    RESTART(&w, running, fresh, state);
    RESTART(&w, running, fresh, socket);
    RESTART(&w, running, fresh, limits.frame_buffers);
    RESTART(&w, running, fresh, retention);
    RESTART(&w, running, fresh, log.format);
    RESTART(&w, running, fresh, threads);
}

struct fl_tls_files fl_server_config_tls(const struct fl_server_config *c)
{
    return (struct fl_tls_files){.ca = c->tls.ca,
                                 .certificate = c->tls.certificate,
                                 .key = c->tls.key,
                                 .crl = c->tls.crl[0] ? c->tls.crl : NULL,
                                 .order = c->tls.order};
}
