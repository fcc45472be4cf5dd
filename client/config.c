#include "client/config.h"

#include "client/config_in.h"
#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/wire/tls.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static const char *const units[] = {"none", "example", "client", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const log_formats[] = {"auto", "text", "json", NULL};
static const char *const orders[] = {"measure", "chacha20", "aes-ccm", NULL};

static const char *const noises[] = {"local", "central", "distributed", NULL};

static const struct fl_conf_field privacy_fields[] = {
    {.name = "unit", .type = FL_CONF_ENUM, AT(struct entry, privacy.unit), .words = units},
    {.name = "epsilon",
     .type = FL_CONF_DOUBLE,
     AT(struct entry, privacy.epsilon),
     .flags = FL_CONF_ABOVE_MIN,
     .min = 0,
     .max = 1e6},
    {.name = "delta",
     .type = FL_CONF_DOUBLE,
     AT(struct entry, privacy.delta),
     .flags = FL_CONF_ABOVE_MIN | FL_CONF_BELOW_MAX,
     .min = 0,
     .max = 1},
    {.name = "noise", .type = FL_CONF_ENUM, AT(struct entry, noise), .words = noises},
    {.name = NULL}};

static const char *const holds[] = {[FL_HOLD_NONE] = "none", [FL_HOLD_APPROVE] = "approve", NULL};

static const struct fl_conf_field entry_fields[] = {
    {.name = "name", .type = FL_CONF_STRING, TEXT(struct entry, agent.name), .min = 1},
    {.name = "certificate",
     .type = FL_CONF_STRING,
     TEXT(struct entry, agent.certificate),
     .min = 1},
    {.name = "key", .type = FL_CONF_STRING, TEXT(struct entry, agent.key), .min = 1},
    {.name = "count",
     .type = FL_CONF_UINT32,
     AT(struct entry, count),
     .min = 1,
     .max = FL_CONFIG_AGENTS_MAX},
    {.name = "first", .type = FL_CONF_UINT32, AT(struct entry, first), .min = 0, .max = 1e6},
    /* Tables of nested maps write into the same struct: their offsets count from its start. */
    {.name = "data", .type = FL_CONF_MAP, .offset = 0, .fields = fl_config_data_fields},
    {.name = "trainer", .type = FL_CONF_MAP, .offset = 0, .fields = fl_config_trainer_fields},
    {.name = "privacy", .type = FL_CONF_MAP, .offset = 0, .fields = privacy_fields},
    {.name = "jobs", .type = FL_CONF_NODE, AT(struct entry, jobs)},
    {.name = "window", .type = FL_CONF_STRING, TEXT(struct entry, window)},
    {.name = "hold", .type = FL_CONF_ENUM, AT(struct entry, agent.hold), .words = holds},
    {.name = "upload_bits",
     .type = FL_CONF_UINT32,
     AT(struct entry, agent.upload_bits),
     .min = 4,
     .max = 8},
    {.name = "width",
     .type = FL_CONF_FLOAT,
     AT(struct entry, agent.width),
     .max = 1,
     .flags = FL_CONF_ABOVE_MIN},
    {.name = "models",
     .type = FL_CONF_STRINGS,
     TEXT(struct entry, agent.models[0]),
     .items_min = 1,
     .items_max = FL_CONFIG_MODELS_MAX,
     .count_offset = offsetof(struct entry, agent.model_count)},
    {.name = "declared_examples",
     .type = FL_CONF_UINT32,
     AT(struct entry, agent.declared_examples),
     .min = 1,
     .max = 1 << 30},
    {.name = NULL}};

static const struct fl_conf_field job_fields[] = {
    {.name = "name",
     .type = FL_CONF_STRING,
     .flags = FL_CONF_REQUIRED,
     TEXT(struct fl_policy_job, name),
     .min = 1},
    {.name = "strategies",
     .type = FL_CONF_STRINGS,
     AT(struct fl_policy_job, strategies),
     .size = FL_PLAN_NAME_MAX,
     .items_min = 1,
     .items_max = FL_POLICY_STRATEGIES_MAX,
     .count_offset = offsetof(struct fl_policy_job, strategy_count)},
    {.name = "min_noise",
     .type = FL_CONF_DOUBLE,
     AT(struct fl_policy_job, min_noise_multiplier),
     .min = 0,
     .max = 1e6},
    {.name = "max_clip",
     .type = FL_CONF_DOUBLE,
     AT(struct fl_policy_job, max_clip),
     .flags = FL_CONF_ABOVE_MIN,
     .min = 0,
     .max = 1e9},
    {.name = "scores", .type = FL_CONF_BOOL, AT(struct fl_policy_job, scores), .fallback = "false"},
    {.name = "masked", .type = FL_CONF_BOOL, AT(struct fl_policy_job, masked), .fallback = "false"},
    {.name = "max_update", .type = FL_CONF_SIZE, AT(struct fl_policy_job, max_update_bytes)},
    {.name = "unit", .type = FL_CONF_ENUM, AT(struct fl_policy_job, budget.unit), .words = units},
    {.name = "epsilon",
     .type = FL_CONF_DOUBLE,
     AT(struct fl_policy_job, budget.epsilon),
     .flags = FL_CONF_ABOVE_MIN,
     .min = 0,
     .max = 1e6},
    {.name = "delta",
     .type = FL_CONF_DOUBLE,
     AT(struct fl_policy_job, budget.delta),
     .flags = FL_CONF_ABOVE_MIN | FL_CONF_BELOW_MAX,
     .min = 0,
     .max = 1},
    {.name = NULL}};

static const struct fl_conf_field coordinator_fields[] = {
    {.name = "host",
     .type = FL_CONF_STRING,
     .flags = FL_CONF_REQUIRED,
     TEXT(struct fl_config, coordinator.host),
     .min = 1},
    {.name = "port",
     .type = FL_CONF_UINT32,
     AT(struct fl_config, coordinator.port),
     .min = 1,
     .max = 65535,
     .fallback = "7443"},
    {.name = "name", .type = FL_CONF_STRING, TEXT(struct fl_config, coordinator.name)},
    {.name = "ca",
     .type = FL_CONF_STRING,
     .flags = FL_CONF_REQUIRED,
     TEXT(struct fl_config, coordinator.ca),
     .min = 1},
    {.name = "crl", .type = FL_CONF_STRING, TEXT(struct fl_config, coordinator.crl)},
    {.name = "order",
     .type = FL_CONF_ENUM,
     AT(struct fl_config, coordinator.order),
     .words = orders,
     .fallback = "measure"},
    {.name = NULL}};

static const struct fl_conf_field socket_fields[] = {
    {.name = "path", .type = FL_CONF_STRING, TEXT(struct fl_config, socket.path), .min = 1},
    {.name = "group", .type = FL_CONF_STRING, TEXT(struct fl_config, socket.group)},
    {.name = NULL}};

static const struct fl_conf_field log_fields[] = {{.name = "level",
                                                   .type = FL_CONF_ENUM,
                                                   AT(struct fl_config, log.level),
                                                   .words = levels,
                                                   .fallback = "info"},
                                                  {.name = "format",
                                                   .type = FL_CONF_ENUM,
                                                   AT(struct fl_config, log.format),
                                                   .words = log_formats,
                                                   .fallback = "auto"},
                                                  {.name = NULL}};

static const struct fl_conf_field backoff_fields[] = {{.name = "min",
                                                       .type = FL_CONF_DURATION,
                                                       AT(struct fl_config, backoff.min_ms),
                                                       .min = 10,
                                                       .max = 600e3,
                                                       .fallback = "1s"},
                                                      {.name = "max",
                                                       .type = FL_CONF_DURATION,
                                                       AT(struct fl_config, backoff.max_ms),
                                                       .min = 10,
                                                       .max = 86400e3,
                                                       .fallback = "60s"},
                                                      {.name = NULL}};

static const struct fl_conf_field limit_fields[] = {
    {.name = "model",
     .type = FL_CONF_SIZE,
     AT(struct fl_config, limits.model),
     .min = 1,
     .max = 64.0 * (1 << 30),
     .fallback = "1GiB"},
    {.name = "cache", .type = FL_CONF_SIZE, AT(struct fl_config, limits.cache), .fallback = "2GiB"},
    {.name = "data", .type = FL_CONF_SIZE, AT(struct fl_config, limits.data), .fallback = "2GiB"},
    {.name = NULL}};

struct top {
    struct fl_config config;
    const struct fl_conf_node *defaults, *agents;
};

static const struct fl_conf_field top_fields[] = {
    {.name = "state",
     .type = FL_CONF_STRING,
     .flags = FL_CONF_REQUIRED,
     TEXT(struct top, config.state),
     .min = 1},
    {.name = "socket", .type = FL_CONF_MAP, AT(struct top, config), .fields = socket_fields},
    {.name = "coordinator",
     .type = FL_CONF_MAP,
     .flags = FL_CONF_REQUIRED,
     AT(struct top, config),
     .fields = coordinator_fields},
    {.name = "log", .type = FL_CONF_MAP, AT(struct top, config), .fields = log_fields},
    {.name = "heartbeat",
     .type = FL_CONF_DURATION,
     AT(struct top, config.heartbeat_ms),
     .min = 50,
     .max = 600e3,
     .fallback = "20s"},
    {.name = "threads",
     .type = FL_CONF_UINT32,
     AT(struct top, config.threads),
     .max = 1024,
     .fallback = "0"},
    {.name = "drain",
     .type = FL_CONF_DURATION,
     AT(struct top, config.drain_ms),
     .max = 86400e3,
     .fallback = "30s"},
    {.name = "patience",
     .type = FL_CONF_DURATION,
     AT(struct top, config.patience_ms),
     .min = 1000,
     .max = 86400e3,
     .fallback = "2m"},
    {.name = "backoff", .type = FL_CONF_MAP, AT(struct top, config), .fields = backoff_fields},
    {.name = "limits", .type = FL_CONF_MAP, AT(struct top, config), .fields = limit_fields},
    {.name = "defaults", .type = FL_CONF_NODE, AT(struct top, defaults)},
    {.name = "agents", .type = FL_CONF_NODE, .flags = FL_CONF_REQUIRED, AT(struct top, agents)},
    {.name = NULL}};

/* ---- texts --------------------------------------------------------------------------------------
 */

/* {n}, {nn}, {nnn} become the number, at least that many digits. False: no room. */
static bool expand(char *text, size_t size, uint32_t number)
{
    char out[FL_CONFIG_PATH_MAX];
    size_t n = 0;

    for (const char *p = text; *p;) {
        size_t digits = p[0] == '{' ? strspn(p + 1, "n") : 0;
        if (digits >= 1 && digits <= 3 && p[1 + digits] == '}') {
            int w = snprintf(out + n, sizeof out - n, "%0*u", (int)digits, number);
            n += (size_t)w;
            p += digits + 2;
        } else {
            out[n++] = *p++;
        }
        if (n + 1 >= sizeof out || n >= size) {
            return false;
        }
    }
    memcpy(text, out, n);
    text[n] = '\0';
    return true;
}

/* A relative path counts from the folder of the configuration. False: no room. */
static bool place(const char *file, char *path, size_t size)
{
    char out[FL_CONFIG_PATH_MAX];
    const char *slash = strrchr(file, '/');

    if (path[0] == '\0' || path[0] == '/' || !slash) {
        return true;
    }
    int w = snprintf(out, sizeof out, "%.*s/%s", (int)(slash - file), file, path);
    if (w < 0 || (size_t)w >= sizeof out || (size_t)w >= size) {
        return false;
    }
    memcpy(path, out, (size_t)w + 1);
    return true;
}

static bool number(const char *text, uint32_t *ret)
{
    uint64_t n = 0;

    if (!text[0] || strlen(text) > 9) {
        return false;
    }
    for (const char *p = text; *p; p++) {
        if (!isdigit((unsigned char)*p)) {
            return false;
        }
        n = n * 10 + (uint64_t)(*p - '0');
    }
    *ret = (uint32_t)n;
    return true;
}

static bool is_name(const char *s)
{
    if (!isalnum((unsigned char)s[0])) {
        return false;
    }
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && !strchr("-_.", *s)) {
            return false;
        }
    }
    return true;
}

bool fl_config_window(const char *text, uint16_t *ret_from, uint16_t *ret_to)
{
    unsigned h[2], m[2];
    int end = 0;

    if (sscanf(text, "%2u:%2u-%2u:%2u%n", &h[0], &m[0], &h[1], &m[1], &end) != 4 || text[end] ||
        h[0] > 23 || m[0] > 59 || h[1] > 24 || m[1] > 59 || (h[1] == 24 && m[1] != 0)) {
        return false;
    }
    *ret_from = (uint16_t)(h[0] * 60 + m[0]);
    *ret_to = (uint16_t)((h[1] * 60 + m[1]) % (24 * 60));
    return true;
}

/* ---- agents -------------------------------------------------------------------------------------
 */

/* Where a setting of this agent was written: its entry, else the defaults, else the entry itself.
 */
static const struct fl_conf_node *where(const struct top *top, const struct fl_conf_node *node,
                                        const char *path)
{
    const struct fl_conf_node *at = fl_conf_find(node, path);

    if (!at && top->defaults) {
        at = fl_conf_find(top->defaults, path);
    }
    return at ? at : node;
}

static int read_job(const struct fl_conf_node *n, const struct entry *en, struct fl_policy *policy,
                    struct fl_err *e)
{
    struct fl_policy_job *job = &policy->jobs[policy->job_count];

    memset(job, 0, sizeof *job);
    job->budget = en->privacy;
    job->budget.noise = (enum fl_noise_place)en->noise;
    if (n->kind == FL_CONF_KIND_SCALAR) {
        if (strlen(n->text) >= sizeof job->name) {
            return fl_conf_fail(e, n, FL_R_CONF_RANGE, "a job's name has at most %zu characters",
                                sizeof job->name - 1);
        }
        memcpy(job->name, n->text, strlen(n->text) + 1);
    } else if (fl_conf_is_map(n)) {
        int r = fl_conf_decode(n, job_fields, job, e);
        if (r) {
            return r;
        }
    } else {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a job is a name or a map");
    }
    if (!is_name(job->name) && strcmp(job->name, "*") != 0) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE,
                            "'%.64s' is no job name (letters, digits, '-', '_', '.', or \"*\" for "
                            "any)",
                            job->name);
    }
    policy->job_count++;
    return 0;
}

static int read_jobs(const struct top *top, const struct fl_conf_node *node, const struct entry *en,
                     struct fl_policy **ret, struct fl_err *e)
{
    struct fl_err why = {0};

    if (!en->jobs) {
        return fl_conf_fail(e, node, FL_R_CONF_MISSING,
                            "jobs: a site says which jobs it allows; \"*\" allows any");
    }
    if (en->jobs->kind != FL_CONF_KIND_LIST || en->jobs->count > FL_POLICY_JOBS_MAX) {
        return fl_conf_fail(e, en->jobs, FL_R_CONF_TYPE, "a list of at most %d jobs",
                            FL_POLICY_JOBS_MAX);
    }
    struct fl_policy *policy = fl_try(1, sizeof *policy);
    if (!policy) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    int r = 0;
    for (const struct fl_conf_node *n = en->jobs->first; n && r == 0; n = n->next) {
        r = read_job(n, en, policy, e);
    }
    if (r == 0 && (r = fl_policy_check(policy, &why)) != 0) {
        const struct fl_conf_node *at = where(top, node, "privacy");
        r = fl_conf_fail(e, at == node ? en->jobs : at, (enum fl_reason) - r, "%s", why.msg);
    }
    if (r) {
        fl_free(policy);
        return r;
    }
    *ret = policy;
    return 0;
}

struct text_of_agent {
    const char *path; /* in the file */
    size_t offset, size;
    bool is_path, required;
};

static const struct text_of_agent texts[] = {
    {"name", offsetof(struct entry, agent.name), FL_CONFIG_NAME_MAX, false, true},
    {"certificate", offsetof(struct entry, agent.certificate), FL_CONFIG_PATH_MAX, true, true},
    {"key", offsetof(struct entry, agent.key), FL_CONFIG_PATH_MAX, true, true},
    {"data.train_x", offsetof(struct entry, agent.data.train_x), 512, true, false},
    {"data.train_y", offsetof(struct entry, agent.data.train_y), 512, true, false},
    {"data.test_x", offsetof(struct entry, agent.data.test_x), 512, true, false},
    {"data.test_y", offsetof(struct entry, agent.data.test_y), 512, true, false},
    {"data.clients", offsetof(struct entry, agent.data.clients), 512, true, false},
    {"data.target", offsetof(struct entry, agent.data.target), 64, false, false},
    {"data.column", offsetof(struct entry, agent.data.column), 64, false, false},
    {"data.client", offsetof(struct entry, client), 64, false, false},
};

/* `{n}` in every argument; what is written as a path relative to the configuration is one: the
 * program when it has a slash, and an argument that begins with a dot and a slash. */
static int place_program(const char *file, const struct fl_conf_node *at,
                         struct fl_config_trainer *t, uint32_t n, struct fl_err *e)
{
    for (uint32_t i = 0; i < t->program_count; i++) {
        char *text = t->program[i];
        bool is_path = i == 0 ? strchr(text, '/') != NULL
                              : strncmp(text, "./", 2) == 0 || strncmp(text, "../", 3) == 0;
        if (is_path && strncmp(text, "./", 2) == 0) {
            memmove(text, text + 2, strlen(text + 2) + 1);
        }
        if (!expand(text, FL_CONFIG_PATH_MAX, n) ||
            (is_path && !place(file, text, FL_CONFIG_PATH_MAX))) {
            return fl_conf_fail(e, at, FL_R_CONF_RANGE, "longer than %d characters",
                                FL_CONFIG_PATH_MAX - 1);
        }
    }
    return 0;
}

static int place_texts(const char *file, const struct top *top, const struct fl_conf_node *node,
                       struct entry *en, uint32_t n, struct fl_err *e)
{
    for (size_t i = 0; i < FL_COUNT(texts); i++) {
        char *text = (char *)en + texts[i].offset;
        if (texts[i].required && !text[0]) {
            return fl_conf_fail(e, node, FL_R_CONF_MISSING, "%s is missing", texts[i].path);
        }
        if (!expand(text, texts[i].size, n) ||
            (texts[i].is_path && !place(file, text, texts[i].size))) {
            return fl_conf_fail(e, where(top, node, texts[i].path), FL_R_CONF_RANGE,
                                "longer than %zu characters with everything filled in",
                                texts[i].size - 1);
        }
    }
    return 0;
}

/* Partitions by number say `client: 1..of`; inside, clients count from 0. A file or column of
 * client numbers has numbers of its own. */
static int read_client(const struct top *top, const struct fl_conf_node *node, struct entry *en,
                       struct fl_err *e)
{
    struct fl_data_source *d = &en->agent.data;
    const struct fl_conf_node *at = where(top, node, "data.client");
    bool own = d->partition == FL_PARTITION_FILE || d->partition == FL_PARTITION_COLUMN;

    if (d->partition == FL_PARTITION_COLUMN) {
        memcpy(d->client_text, en->client, sizeof d->client_text);
    }
    if (!number(en->client, &d->client)) {
        if (d->partition == FL_PARTITION_COLUMN) {
            return 0; /* a word: for tables with a schema; others say so when they are read */
        }
        return fl_conf_fail(e, at, FL_R_CONF_TYPE, "a whole number, not '%s'", en->client);
    }
    if (own) {
        return 0;
    }
    if (d->client < 1 || d->client > d->of) {
        return fl_conf_fail(e, at, FL_R_CONF_RANGE, "client %u of %u: must be 1 to %u", d->client,
                            d->of, d->of);
    }
    d->client--;
    return 0;
}

static int add_agent(const char *file, struct top *top, const struct fl_conf_node *node,
                     const struct entry *entry, uint32_t n, struct fl_err *e)
{
    struct fl_config *c = &top->config;
    struct entry en = *entry;
    int r = place_texts(file, top, node, &en, n, e);

    for (uint32_t i = 0; r == 0 && i < en.agent.model_count; i++) {
        if (!expand(en.agent.models[i], FL_CONFIG_PATH_MAX, n) ||
            !place(file, en.agent.models[i], FL_CONFIG_PATH_MAX)) {
            r = fl_conf_fail(e, where(top, node, "models"), FL_R_CONF_RANGE,
                             "longer than %d characters", FL_CONFIG_PATH_MAX - 1);
        }
    }
    if (r == 0) {
        r = place_program(file, where(top, node, "trainer.program"), &en.agent.trainer, n, e);
    }
    if (r == 0) {
        r = read_client(top, node, &en, e);
    }
    if (r == 0) {
        r = fl_config_data_check(where(top, node, "data"), &en, e);
    }
    if (r) {
        return r;
    }
    if (!is_name(en.agent.name)) {
        return fl_conf_fail(e, where(top, node, "name"), FL_R_CONF_RANGE,
                            "'%s': letters, digits, '-', '_', '.'; first a letter or digit",
                            en.agent.name);
    }
    for (uint32_t i = 0; i < c->agent_count; i++) {
        if (strcmp(c->agents[i].name, en.agent.name) == 0) {
            return fl_conf_fail(e, where(top, node, "name"), FL_R_CONF_DUPLICATE,
                                "a second agent %s%s", en.agent.name,
                                entry->count > 1 ? " (count needs {n} in the name)" : "");
        }
    }
    if (c->agent_count == FL_CONFIG_AGENTS_MAX) {
        return fl_conf_fail(e, node, FL_R_LIMIT, "more than %d agents", FL_CONFIG_AGENTS_MAX);
    }
    r = read_jobs(top, node, &en, &en.agent.policy, e);
    if (r) {
        return r;
    }
    if (!fl_try_grow((void **)&c->agents, c->agent_count + 1u, sizeof *c->agents)) {
        fl_free(en.agent.policy);
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    c->agents[c->agent_count++] = en.agent;
    return 0;
}

static int read_entry(const char *file, struct top *top, const struct fl_conf_node *node,
                      struct fl_err *e)
{
    struct entry en = {.count = 1, .first = 1, .client = "1"};
    int r = 0;

    if (!fl_conf_is_map(node)) {
        return fl_conf_fail(e, node, FL_R_CONF_TYPE, "an agent is a map");
    }
    en.agent.data.of = 1;
    en.agent.data.deal = FL_DEAL_UNSAID;
    en.agent.data.alpha = 0.5;
    en.agent.data.seed = 1;
    en.agent.data.disjoint = true;
    en.agent.data.memory = 1u << 30;
    en.agent.trainer = (struct fl_config_trainer){.time_ms = 600 * 1000,
                                                  .memory = (uint64_t)8 << 30,
                                                  .output = 1u << 20,
                                                  .file = (uint64_t)4 << 30,
                                                  .examples = true};
    if (top->defaults) {
        r = fl_conf_decode(top->defaults, entry_fields, &en, e);
    }
    /* A raw node that an entry lacks is NULL afterwards: what the defaults said is kept here. */
    const struct fl_conf_node *jobs = en.jobs;
    if (r == 0 && en.columns) {
        r = fl_config_data_columns(en.columns, &en.agent.data, e);
        en.columns = NULL;
    }
    if (r == 0) {
        r = fl_conf_decode(node, entry_fields, &en, e);
    }
    if (r == 0 && en.columns) {
        r = fl_config_data_columns(en.columns, &en.agent.data, e);
    }
    if (r) {
        return r;
    }
    if (!en.jobs) {
        en.jobs = jobs;
    }
    if (en.window[0] && !fl_config_window(en.window, &en.agent.window_from, &en.agent.window_to)) {
        return fl_conf_fail(e, where(top, node, "window"), FL_R_CONF_RANGE,
                            "a window is HH:MM-HH:MM, such as 22:00-06:00");
    }
    for (uint32_t i = 0; i < en.count && r == 0; i++) {
        r = add_agent(file, top, node, &en, en.first + i, e);
    }
    return r;
}

/* ---- the file -----------------------------------------------------------------------------------
 */

static int finish(const char *file, struct fl_conf *conf, struct fl_config *c, struct fl_err *e)
{
    const struct fl_conf_node *root = fl_conf_root(conf);
    struct sockaddr_un sun;
    char *paths[] = {c->state, c->socket.path, c->coordinator.ca, c->coordinator.crl};
    static const char *const names[] = {"state", "socket.path", "coordinator.ca",
                                        "coordinator.crl"};

    for (size_t i = 0; i < FL_COUNT(paths); i++) {
        if (!place(file, paths[i], FL_CONFIG_PATH_MAX)) {
            return fl_conf_fail(e, fl_conf_find(root, names[i]), FL_R_CONF_RANGE,
                                "longer than %d characters", FL_CONFIG_PATH_MAX - 1);
        }
    }
    if (!c->socket.path[0]) {
        int w = snprintf(c->socket.path, sizeof c->socket.path, "%.*s/agent.sock",
                         FL_CONFIG_PATH_MAX - 16, c->state);
        (void)w; /* bounded by the precision; its length is checked below */
    }
    if (strlen(c->socket.path) >= sizeof sun.sun_path) {
        const struct fl_conf_node *at = fl_conf_find(root, "socket.path");
        return fl_conf_fail(e, at ? at : fl_conf_find(root, "state"), FL_R_CONF_RANGE,
                            "the socket %s is longer than %zu characters", c->socket.path,
                            sizeof sun.sun_path - 1);
    }
    if (!c->coordinator.name[0]) {
        memcpy(c->coordinator.name, c->coordinator.host, sizeof c->coordinator.name);
    }
    if (c->backoff.min_ms > c->backoff.max_ms) {
        const struct fl_conf_node *at = fl_conf_find(root, "backoff");
        return fl_conf_fail(e, at ? at : root, FL_R_CONF_CONFLICT, "min is more than max");
    }
    return 0;
}

int fl_config_load(const char *path, struct fl_config **ret, struct fl_err *e)
{
    struct fl_conf *conf = NULL;
    struct top *top = fl_try(1, sizeof *top);
    int r = top ? fl_conf_load(path, &conf, e) : fl_fail(e, FL_R_NOMEM, "out of memory");

    if (r) {
        goto out;
    }
    r = fl_conf_decode(fl_conf_root(conf), top_fields, top, e);
    if (r == 0) {
        r = finish(path, conf, &top->config, e);
    }
    if (r == 0 && top->defaults && !fl_conf_is_map(top->defaults)) {
        r = fl_conf_fail(e, top->defaults, FL_R_CONF_TYPE, "defaults is a map");
    }
    if (r == 0 && (top->agents->kind != FL_CONF_KIND_LIST || !top->agents->count)) {
        r = fl_conf_fail(e, top->agents, FL_R_CONF_TYPE, "a list of at least one agent");
    }
    for (const struct fl_conf_node *n = r ? NULL : top->agents->first; n && r == 0; n = n->next) {
        r = read_entry(path, top, n, e);
    }
    if (r == 0) {
        struct fl_config *c = fl_try(1, sizeof *c);
        if (!c) {
            r = fl_fail(e, FL_R_NOMEM, "out of memory");
            goto out;
        }
        *c = top->config;
        snprintf(c->path, sizeof c->path, "%s", path);
        c->text = conf;
        conf = NULL;
        top->config.agents = NULL;
        top->config.agent_count = 0;
        *ret = c;
    }
out:
    if (top) {
        for (uint32_t i = 0; i < top->config.agent_count; i++) {
            fl_free(top->config.agents[i].policy);
        }
        fl_free(top->config.agents);
    }
    fl_conf_free(conf);
    fl_free(top);
    return r;
}

void fl_config_free(struct fl_config *c)
{
    if (!c) {
        return;
    }
    for (uint32_t i = 0; i < c->agent_count; i++) {
        fl_free(c->agents[i].policy);
    }
    fl_free(c->agents);
    fl_conf_free(c->text);
    fl_free(c);
}
