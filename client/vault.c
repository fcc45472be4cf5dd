/*
 * The agent's folder. Its rule: the ledger is the truth, files follow. A file counts because a
 * ledger entry names it (outbox bytes, private tensors) or because its name is its digest (cache);
 * whatever no entry names is swept at the next start, so a crash at any moment leaves either
 * everything or litter.
 */
#include "client/vault.h"

#include "client/exec.h"
#include "client/report.h"
#include "client/rows.h"
#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t fl_vault_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void hex(const uint8_t *bytes, size_t size, char *ret)
{
    for (size_t i = 0; i < size; i++) {
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    }
}

static bool unhex(const char *text, uint8_t *ret, size_t size)
{
    if (!text || strlen(text) != 2 * size) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1) {
            return false;
        }
        ret[i] = (uint8_t)byte;
    }
    return true;
}

/* ---- names --------------------------------------------------------------------------------------
 */

/* The folder is at most FL_CONFIG_PATH_MAX + 80 bytes and names at most 110: this cannot be cut. */
void fl_vault_path(const struct fl_vault *v, const char *folder, const char *name, char *ret)
{
    snprintf(ret, FL_VAULT_PATH_MAX, "%s/%s%s%s", v->dir, folder, folder[0] && name[0] ? "/" : "",
             name);
}

void fl_vault_digest_path(const struct fl_vault *v, const char *folder, const struct fl_digest *d,
                          const char *suffix, char *ret)
{
    char name[FL_DIGEST_HEX + 16];

    fl_digest_hex(d, name);
    snprintf(name + FL_DIGEST_HEX - 1, 16, "%s", suffix);
    fl_vault_path(v, folder, name, ret);
}

void fl_vault_private_path(const struct fl_vault *v, const uint8_t incarnation[FL_INCARNATION_SIZE],
                           const struct fl_digest *d, char *ret)
{
    char name[2 * FL_INCARNATION_SIZE + 1 + FL_DIGEST_HEX];

    hex(incarnation, FL_INCARNATION_SIZE, name);
    name[2 * FL_INCARNATION_SIZE] = '-';
    fl_digest_hex(d, name + 2 * FL_INCARNATION_SIZE + 1);
    fl_vault_path(v, "private", name, ret);
}

int fl_vault_each(const struct fl_vault *v, const char *folder,
                  int (*each)(void *arg, const char *path, const char *name), void *arg,
                  struct fl_err *e)
{
    char dir[FL_VAULT_PATH_MAX], path[FL_VAULT_PATH_MAX + 260];
    struct dirent *entry;
    int r = 0;

    fl_vault_path(v, folder, "", dir);
    DIR *d = opendir(dir);
    if (!d) {
        return fl_fail_sys(e, FL_R_STORE_OPEN, errno, "%s", dir);
    }
    while (r == 0 && (entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        r = each(arg, path, entry->d_name);
    }
    closedir(d);
    return r;
}

/* ---- .offer files -------------------------------------------------------------------------------
 */

static void put_digest(json_t *to, const char *name, const struct fl_digest *d)
{
    char text[FL_DIGEST_HEX];
    fl_digest_hex(d, text);
    fl_report_text(to, name, text);
}

char *fl_vault_offer_text(const struct fl_agent_offer *offer, void *report_line)
{
    char incarnation[2 * FL_INCARNATION_SIZE + 1];
    json_t *all = json_object(), *o = json_object();

    hex(offer->key.incarnation, FL_INCARNATION_SIZE, incarnation);
    fl_report_text(o, "incarnation", incarnation);
    fl_report_count(o, "round", offer->key.round);
    fl_report_count(o, "exchange", offer->key.exchange);
    fl_report_text(o, "job", offer->job);
    put_digest(o, "digest", &offer->digest);
    put_digest(o, "plan", &offer->plan);
    put_digest(o, "base", &offer->base);
    fl_report_count(o, "size", offer->size);
    fl_report_count(o, "weight", offer->weight);
    json_object_set_new(all, "offer", o);
    json_object_set(all, "report", report_line);
    char *text = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(all);
    return text;
}

static json_t *read_offer(const struct fl_vault *v, const struct fl_digest *update,
                          struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    uint8_t *text;
    size_t size;

    fl_vault_digest_path(v, "outbox", update, ".offer", path);
    if (fl_file_read(path, FL_VAULT_OFFER_MAX, &text, &size, e)) {
        return NULL;
    }
    json_t *all = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, NULL);
    fl_free(text);
    if (!all) {
        fl_fail(e, FL_R_STORE_MISMATCH, "%s: not what was written", path);
    }
    return all;
}

static bool get_digest(const json_t *from, const char *name, struct fl_digest *ret)
{
    const char *text = json_string_value(json_object_get(from, name));
    return text && fl_digest_from_hex(text, ret);
}

/* The offer of a release, as the .offer file completes what the ledger says. */
static bool offer_of(const json_t *all, const struct fl_release *r, struct fl_agent_offer *ret)
{
    const json_t *o = json_object_get(all, "offer");
    struct fl_agent_offer offer = {.key = r->key, .digest = r->update, .size = r->size};
    struct fl_digest digest;
    uint8_t incarnation[FL_INCARNATION_SIZE];

    memcpy(offer.job, r->job, sizeof offer.job);
    if (!unhex(json_string_value(json_object_get(o, "incarnation")), incarnation,
               sizeof incarnation) ||
        memcmp(incarnation, r->key.incarnation, sizeof incarnation) != 0 ||
        (uint64_t)json_integer_value(json_object_get(o, "round")) != r->key.round ||
        !get_digest(o, "digest", &digest) || !fl_digest_equal(&digest, &r->update) ||
        !get_digest(o, "plan", &offer.plan) || !get_digest(o, "base", &offer.base)) {
        return false;
    }
    offer.weight = (uint32_t)json_integer_value(json_object_get(o, "weight"));
    *ret = offer;
    return offer.weight > 0;
}

static bool is_file_of(const char *path, uint64_t size)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

/* Is this release still here, with what is needed to offer it? */
static bool still_here(const struct fl_vault *v, const struct fl_release *r,
                       struct fl_agent_offer *ret)
{
    char path[FL_VAULT_PATH_MAX];

    fl_vault_digest_path(v, "outbox", &r->update, "", path);
    if (!is_file_of(path, r->size)) {
        return false;
    }
    json_t *all = read_offer(v, &r->update, NULL);
    bool ok = all && offer_of(all, r, ret);
    json_decref(all);
    return ok;
}

/* ---- opening ------------------------------------------------------------------------------------
 */

struct keep {
    struct fl_vault *v;
    /* newest private state of each incarnation */
    struct newest {
        uint8_t incarnation[FL_INCARNATION_SIZE];
        struct fl_digest private_state;
    } * newest;
    size_t newest_count;
    struct fl_key *lost; /* releases whose bytes are gone */
    size_t lost_count;
    struct fl_err *e;
};

int fl_vault_add_pending(struct fl_vault *v, const struct fl_agent_offer *offer,
                         const uint8_t coordinator[16], struct fl_err *e)
{
    for (uint32_t i = 0; i < v->pending_count; i++) {
        if (fl_key_equal(&v->pending[i].offer.key, &offer->key)) {
            return 0;
        }
    }
    if (!fl_try_grow((void **)&v->pending, v->pending_count + 1u, sizeof *v->pending)) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    struct fl_vault_pending *p = &v->pending[v->pending_count++];
    p->offer = *offer;
    memcpy(p->coordinator, coordinator, sizeof p->coordinator);
    return 0;
}

static int note_release(void *arg, const struct fl_release *r, uint64_t when, bool acknowledged)
{
    struct keep *k = arg;
    struct fl_agent_offer offer;
    size_t i = 0;

    (void)when;
    while (i < k->newest_count &&
           memcmp(k->newest[i].incarnation, r->key.incarnation, FL_INCARNATION_SIZE) != 0) {
        i++;
    }
    if (i == k->newest_count) {
        if (!fl_try_grow((void **)&k->newest, i + 1, sizeof *k->newest)) {
            return fl_fail(k->e, FL_R_NOMEM, "out of memory");
        }
        k->newest_count++;
    }
    memcpy(k->newest[i].incarnation, r->key.incarnation, FL_INCARNATION_SIZE);
    k->newest[i].private_state = r->private_state; /* releases come in their order */
    if (acknowledged) {
        return 0;
    }
    if (!still_here(k->v, r, &offer)) {
        if (!fl_try_grow((void **)&k->lost, k->lost_count + 1, sizeof *k->lost)) {
            return fl_fail(k->e, FL_R_NOMEM, "out of memory");
        }
        k->lost[k->lost_count++] = r->key;
        return 0;
    }
    return fl_vault_add_pending(k->v, &offer, r->coordinator, k->e);
}

static int sweep_private(void *arg, const char *path, const char *name)
{
    struct keep *k = arg;
    char wanted[FL_VAULT_PATH_MAX];

    (void)name;
    for (size_t i = 0; i < k->newest_count; i++) {
        fl_vault_private_path(k->v, k->newest[i].incarnation, &k->newest[i].private_state, wanted);
        if (strcmp(path, wanted) == 0) {
            return 0;
        }
    }
    return fl_file_remove(path, k->e);
}

static int sweep_outbox(void *arg, const char *path, const char *name)
{
    struct keep *k = arg;
    char digest[FL_DIGEST_HEX];

    for (uint32_t i = 0; i < k->v->pending_count; i++) {
        fl_digest_hex(&k->v->pending[i].offer.digest, digest);
        if (strncmp(name, digest, FL_DIGEST_HEX - 1) == 0) {
            return 0;
        }
    }
    return fl_file_remove(path, k->e);
}

static int open_files(struct fl_vault *v, const struct fl_config *config, const uint8_t owner[32],
                      struct fl_err *e)
{
    static const char *const folders[] = {"", "private", "cache", "outbox", "final"};
    char path[FL_VAULT_PATH_MAX];
    struct keep k = {.v = v, .e = e};
    int r = 0;

    for (size_t i = 0; i < FL_COUNT(folders) && r == 0; i++) {
        fl_vault_path(v, folders[i], "", path);
        r = fl_file_make_dirs(path, e);
    }
    if (r == 0) {
        fl_vault_path(v, "", "seed", path);
        r = fl_file_secret(path, v->seed.bytes, FL_SEED_SIZE, e);
    }
    if (r == 0) { /* before there is a ledger, which tells an old site from a new one */
        r = fl_rows_settle(config, v->agent, FL_ROWS_KEEP, &v->source, e);
    }
    if (r == 0) {
        fl_vault_path(v, "", "ledger.db", path);
        r = fl_ledger_open(path, owner, &v->ledger, e);
    }
    if (r == 0) {
        r = fl_ledger_each(v->ledger, note_release, &k, e);
    }
    for (size_t i = 0; i < k.lost_count && r == 0; i++) {
        r = fl_ledger_acknowledged(v->ledger, &k.lost[i], fl_vault_wall_ms(), e);
    }
    v->lost = (uint32_t)k.lost_count;
    if (r == 0) {
        r = fl_vault_each(v, "private", sweep_private, &k, e);
    }
    if (r == 0) {
        r = fl_vault_each(v, "outbox", sweep_outbox, &k, e);
    }
    fl_free(k.newest);
    fl_free(k.lost);
    return r;
}

int fl_vault_open(const struct fl_config *config, const struct fl_config_agent *agent,
                  const uint8_t owner[32], struct fl_vault **ret, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_vault *v = fl_try(1, sizeof *v);

    if (!v) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    v->agent = agent;
    v->cache_max = config->limits.cache;
    snprintf(v->dir, sizeof v->dir, "%s/%s", config->state, agent->name);
    int r = open_files(v, config, owner, e);
    if (r == 0) {
        fl_vault_path(v, "exec", "", path);
        r = fl_exec_sweep(path, e); /* what a trainer program was given when we died */
    }
    if (r) {
        fl_vault_close(v);
        return fl_wrap(e, r, "agent %s", agent->name);
    }
    *ret = v;
    return 0;
}

void fl_vault_close(struct fl_vault *v)
{
    if (!v) {
        return;
    }
    fl_vault_unload(v);
    fl_ledger_close(v->ledger);
    fl_free(v->pending);
    explicit_bzero(&v->seed, sizeof v->seed);
    explicit_bzero(&v->source, sizeof v->source);
    fl_free(v);
}

/* ---- what is known of a task --------------------------------------------------------------------
 */

static bool final_was_evaluated(const struct fl_vault *v, const struct fl_agent_task *task)
{
    char name[2 * FL_INCARNATION_SIZE + 1], path[FL_VAULT_PATH_MAX];
    struct fl_digest seen;
    uint8_t *text;
    size_t size;

    hex(task->key.incarnation, FL_INCARNATION_SIZE, name);
    fl_vault_path(v, "final", name, path);
    if (access(path, F_OK) != 0 || fl_file_read(path, FL_DIGEST_HEX, &text, &size, NULL)) {
        return false;
    }
    bool same =
        fl_digest_from_hex((const char *)text, &seen) && fl_digest_equal(&seen, &task->base);
    fl_free(text);
    return same;
}

int fl_vault_look(struct fl_vault *v, const struct fl_agent_task *task, unsigned *ret_have,
                  struct fl_agent_offer *ret_offer, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_release release;
    unsigned have = 0;

    if (task->final) {
        have |= final_was_evaluated(v, task) ? FL_AGENT_HAVE_SETTLED : 0u;
    } else {
        int r = fl_ledger_find(v->ledger, &task->key, &release, e);
        if (r < 0) {
            return r;
        }
        if (r == 1) {
            *ret_have =
                still_here(v, &release, ret_offer) ? FL_AGENT_HAVE_RELEASE : FL_AGENT_HAVE_SETTLED;
            return 0;
        }
    }
    int r = fl_vault_make_room(v, task, e);
    if (r) {
        return r;
    }
    fl_vault_digest_path(v, "cache", &task->plan, "", path);
    have |= is_file_of(path, task->plan_size) ? FL_AGENT_HAVE_PLAN : 0u;
    fl_vault_digest_path(v, "cache", &task->base, "", path);
    have |= is_file_of(path, task->base_size) ? FL_AGENT_HAVE_BASE : 0u;
    fl_vault_digest_path(v, "cache", &task->input, "", path);
    have |= task->input_size && is_file_of(path, task->input_size) ? FL_AGENT_HAVE_INPUT : 0u;
    *ret_have = have;
    return 0;
}

/* ---- releases -----------------------------------------------------------------------------------
 */

int fl_vault_update(struct fl_vault *v, const struct fl_agent_offer *offer, int *ret_fd,
                    struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];

    fl_vault_digest_path(v, "outbox", &offer->digest, "", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fl_fail_sys(e, FL_R_STORE_IO, errno, "%s: open", path);
    }
    *ret_fd = fd;
    return 0;
}

static int check_update(struct fl_vault *v, const struct fl_agent_offer *offer, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_digest found;
    uint8_t *bytes;
    size_t size;

    fl_vault_digest_path(v, "outbox", &offer->digest, "", path);
    int r = fl_file_read(path, offer->size, &bytes, &size, e);
    if (r) {
        return r;
    }
    fl_digest_of(bytes, size, &found);
    fl_free(bytes);
    if (size != offer->size || !fl_digest_equal(&found, &offer->digest)) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "%s: its bytes do not match its name", path);
    }
    return 0;
}

int fl_vault_pending(struct fl_vault *v, const uint8_t coordinator[16], struct fl_agent_offer *ret,
                     struct fl_err *e)
{
    for (uint32_t i = 0; i < v->pending_count; i++) {
        if (memcmp(v->pending[i].coordinator, coordinator, 16) != 0) {
            continue;
        }
        struct fl_agent_offer offer = v->pending[i].offer;
        if (check_update(v, &offer, NULL) == 0) {
            *ret = offer;
            return 1;
        }
        v->lost++;
        int r = fl_vault_mark(v, &offer, -(int)FL_R_STORE_MISMATCH, 0, 0, e);
        if (r) {
            return r;
        }
        i--; /* mark took it out */
    }
    return 0;
}

void fl_vault_discard(struct fl_vault *v, const struct fl_digest *update)
{
    char path[FL_VAULT_PATH_MAX];

    fl_vault_digest_path(v, "outbox", update, ".offer", path);
    fl_file_remove(path, NULL);
    fl_vault_digest_path(v, "outbox", update, "", path);
    fl_file_remove(path, NULL);
}

struct kept {
    char path[FL_VAULT_PATH_MAX], prefix[2 * FL_INCARNATION_SIZE + 1];
};

static int drop_older(void *arg, const char *path, const char *name)
{
    struct kept *k = arg;

    if (strncmp(name, k->prefix, 2 * FL_INCARNATION_SIZE) == 0 && strcmp(path, k->path) != 0) {
        fl_file_remove(path, NULL);
    }
    return 0;
}

void fl_vault_private_kept(struct fl_vault *v, const uint8_t incarnation[FL_INCARNATION_SIZE],
                           const struct fl_digest *kept)
{
    struct kept k;

    hex(incarnation, FL_INCARNATION_SIZE, k.prefix);
    fl_vault_private_path(v, incarnation, kept, k.path);
    fl_vault_each(v, "private", drop_older, &k, NULL); /* what stays is swept at the next start */
}

void fl_vault_report_epsilon(struct fl_vault *v, void *report_line, const char *job,
                             enum fl_unit unit, const struct fl_digest *data, double plan_delta)
{
    const struct fl_policy_job *policy = fl_policy_find(v->agent->policy, job);
    double delta = policy && policy->budget.unit == unit && policy->budget.delta > 0
                       ? policy->budget.delta
                       : plan_delta;
    enum fl_noise_place trust =
        policy && policy->budget.unit == unit ? policy->budget.noise : FL_NOISE_LOCAL;
    double epsilon = 0;
    enum fl_bound bound = FL_BOUND_RDP;
    bool placeless = false;

    if (unit != FL_UNIT_NONE && fl_ledger_spent(v->ledger, data, unit, trust, delta, &epsilon,
                                                &bound, &placeless, NULL) != 0) {
        json_object_set_new(report_line, "epsilon", json_null());
        return;
    }
    fl_report_epsilon(report_line, unit, trust, placeless, epsilon, delta, bound);
}

static int report_mark(struct fl_vault *v, const struct fl_agent_offer *offer, int outcome,
                       uint64_t bytes_down, uint64_t bytes_up, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_release release;
    int r = fl_ledger_find(v->ledger, &offer->key, &release, e);

    if (r <= 0) {
        return r < 0 ? r : fl_fail(e, FL_R_LEDGER, "an update is settled that was never debited");
    }
    json_t *all = read_offer(v, &offer->digest, NULL);
    json_t *line = all ? json_incref(json_object_get(all, "report")) : NULL;
    json_decref(all);
    if (!json_is_object(line)) {
        /* The figures are lost; that the round was, is not. */
        json_decref(line);
        struct fl_agent_task task = {.key = offer->key};
        memcpy(task.job, offer->job, sizeof task.job);
        line = fl_report_new("round", &task, NULL, NULL);
        if (!line) {
            return fl_fail(e, FL_R_NOMEM, "out of memory");
        }
    }
    fl_report_text(line, "outcome", outcome ? fl_reason_name(-outcome) : "acknowledged");
    fl_report_count(line, "bytes_down", bytes_down);
    fl_report_count(line, "bytes_up", bytes_up);
    double plan_delta = json_number_value(json_object_get(line, "plan_delta"));
    json_object_del(line, "plan_delta");
    fl_vault_report_epsilon(v, line, release.job, release.unit, &release.data, plan_delta);
    fl_vault_path(v, "", "report.jsonl", path);
    r = fl_report_append(path, line, e);
    json_decref(line);
    return r;
}

int fl_vault_mark(struct fl_vault *v, const struct fl_agent_offer *offer, int outcome,
                  uint64_t bytes_down, uint64_t bytes_up, struct fl_err *e)
{
    int r = report_mark(v, offer, outcome, bytes_down, bytes_up, e);

    if (r) {
        return r;
    }
    FL_CRASH_POINT("agent-mark-reported");
    r = fl_ledger_acknowledged(v->ledger, &offer->key, fl_vault_wall_ms(), e);
    if (r) {
        return r;
    }
    FL_CRASH_POINT("agent-mark-recorded");
    fl_vault_discard(v, &offer->digest);
    FL_CRASH_POINT("agent-mark-swept");
    for (uint32_t i = 0; i < v->pending_count; i++) {
        if (fl_key_equal(&v->pending[i].offer.key, &offer->key)) {
            v->pending[i] = v->pending[--v->pending_count];
            break;
        }
    }
    return 0;
}
