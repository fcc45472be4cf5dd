/*
 * What a vault holds for convenience: the loaded data set and the cache of fetched objects. All of
 * it can be made again, so nothing here is ever waited for on the way to a release.
 */
#include "client/vault.h"

#include "common/base/mem.h"
#include "common/io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* ---- data ---------------------------------------------------------------------------------------
 */

int fl_vault_load(struct fl_vault *v, const struct fl_schema *schema, struct fl_err *e)
{
    struct fl_data_source source = v->source;
    struct fl_digest wanted = {{0}};

    if (schema && schema->count) {
        fl_digest_of(schema, sizeof *schema, &wanted);
    }
    if (v->has_data && !v->data_stale && fl_digest_equal(&wanted, &v->schema)) {
        return 0;
    }
    fl_vault_unload(v);
    source.schema = schema;
    int w = snprintf(source.scratch, sizeof source.scratch, "%s", v->dir);
    if (w < 0 || (size_t)w >= sizeof source.scratch) {
        return fl_fail(e, FL_R_CONF_RANGE, "%s: a longer path than there is room for", v->dir);
    }
    int r = fl_dataset_load(&source, &v->data, e);
    v->has_data = r == 0;
    v->features.most = source.memory;
    v->schema = wanted;
    return r;
}

void fl_vault_unload(struct fl_vault *v)
{
    if (v->has_data) {
        fl_features_fini(&v->features);
        fl_dataset_fini(&v->data);
        v->has_data = v->data_stale = false;
    }
}

size_t fl_vault_data_bytes(const struct fl_vault *v)
{
    const struct fl_dataset *d = &v->data;

    if (!v->has_data) {
        return 0;
    }
    size_t features = (size_t)d->shape[0] * d->shape[1] * d->shape[2],
           all = d->rows_held + v->features.bytes;
    const struct fl_examples *parts[] = {&d->train, &d->test, &d->validation};
    for (size_t i = 0; i < FL_COUNT(parts); i++) {
        const struct fl_examples *p = parts[i];
        bool held = !p->stored && !p->x_mapped;
        all += p->count * (sizeof(int32_t) + p->target_width * sizeof(float) +
                           (held ? features * sizeof(float) : 0));
    }
    return all;
}

/* ---- cache --------------------------------------------------------------------------------------
 */

struct cached {
    char name[FL_DIGEST_HEX + 16];
    struct timespec when;
    uint64_t size;
    bool needed;
};

struct listing {
    const struct fl_agent_task *task;
    struct cached *at;
    size_t count;
    struct fl_err *e;
};

static int list_cached(void *arg, const char *path, const char *name)
{
    struct listing *l = arg;
    struct stat st;
    char plan[FL_DIGEST_HEX], base[FL_DIGEST_HEX], input[FL_DIGEST_HEX];

    if (strlen(name) >= sizeof l->at->name || stat(path, &st) != 0) {
        return fl_file_remove(path, l->e);
    }
    if (!fl_try_grow((void **)&l->at, l->count + 1, sizeof *l->at)) {
        return fl_fail(l->e, FL_R_NOMEM, "out of memory");
    }
    struct cached *c = &l->at[l->count++];
    memset(c, 0, sizeof *c);
    memcpy(c->name, name, strlen(name) + 1);
    c->when = st.st_mtim;
    c->size = (uint64_t)st.st_size;
    fl_digest_hex(&l->task->plan, plan);
    fl_digest_hex(&l->task->base, base);
    fl_digest_hex(&l->task->input, input);
    c->needed = strncmp(name, plan, FL_DIGEST_HEX - 1) == 0 ||
                strncmp(name, base, FL_DIGEST_HEX - 1) == 0 ||
                strncmp(name, input, FL_DIGEST_HEX - 1) == 0;
    return 0;
}

static int by_age(const void *x, const void *y)
{
    const struct cached *a = x, *b = y;

    if (a->when.tv_sec != b->when.tv_sec) {
        return a->when.tv_sec < b->when.tv_sec ? 1 : -1;
    }
    return (a->when.tv_nsec < b->when.tv_nsec) - (a->when.tv_nsec > b->when.tv_nsec);
}

/* Newest files stay while they fit beside what this task needs; the rest, parts included, goes. */
int fl_vault_make_room(struct fl_vault *v, const struct fl_agent_task *task, struct fl_err *e)
{
    struct listing l = {.task = task, .e = e};
    char path[FL_VAULT_PATH_MAX];
    uint64_t used = task->plan_size + task->base_size + task->input_size;
    size_t files = 0;
    int r = fl_vault_each(v, "cache", list_cached, &l, e);

    if (r == 0 && l.count) {
        qsort(l.at, l.count, sizeof *l.at, by_age);
    }
    for (size_t i = 0; i < l.count && r == 0; i++) {
        if (l.at[i].needed) {
            continue;
        }
        if (files < FL_VAULT_CACHE_FILES && used <= v->cache_max &&
            l.at[i].size <= v->cache_max - used) {
            files++;
            used += l.at[i].size;
        } else {
            fl_vault_path(v, "cache", l.at[i].name, path);
            r = fl_file_remove(path, e);
        }
    }
    fl_free(l.at);
    return r;
}

int fl_vault_spool(struct fl_vault *v, const struct fl_digest *digest, uint64_t size,
                   struct fl_spool **ret, uint64_t *ret_offset, struct fl_err *e)
{
    char dir[FL_VAULT_PATH_MAX], name[FL_DIGEST_HEX];

    fl_vault_path(v, "cache", "", dir);
    fl_digest_hex(digest, name);
    return fl_spool_open(dir, name, digest, size, ret, ret_offset, e);
}

int fl_vault_object(struct fl_vault *v, const struct fl_digest *digest, uint64_t size,
                    uint8_t **ret, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_digest found;
    uint8_t *bytes;
    size_t got;

    fl_vault_digest_path(v, "cache", digest, "", path);
    int r = fl_file_read(path, size, &bytes, &got, e);
    if (r) {
        return r;
    }
    fl_digest_of(bytes, got, &found);
    if (got != size || !fl_digest_equal(&found, digest)) {
        fl_free(bytes);
        fl_file_remove(path, NULL);
        return fl_fail(e, FL_R_STORE_MISMATCH, "%s: its bytes do not match its name; removed",
                       path);
    }
    *ret = bytes;
    return 0;
}
