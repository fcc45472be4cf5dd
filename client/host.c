#include "client/host.h"

#include "client/site.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

struct fl_host {
    struct fl_runner_site shared;
    uv_loop_t *loop;
    const struct fl_config *config;
    struct fl_work *work;
    struct fl_pool *pool;
    struct fl_site *site;
    int lock;
    uint32_t count;
    struct fl_runner **runners;
    uint64_t started_ms;
    bool started, stopping, done;
    uv_timer_t after; /* the end is told outside the callback it was noticed in */
    void (*stopped)(void *arg);
    void *arg;
};

/* Unloads data sets, longest idle first, until the rest keeps within the limit. */
static void trim(struct fl_host *h)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < h->count; i++) {
        total += fl_runner_data_bytes(h->runners[i]);
    }
    while (total > h->config->limits.data) {
        struct fl_runner *oldest = NULL;
        for (uint32_t i = 0; i < h->count; i++) {
            struct fl_runner *r = h->runners[i];
            if (fl_runner_can_unload(r) &&
                (!oldest || fl_runner_used_ms(r) < fl_runner_used_ms(oldest))) {
                oldest = r;
            }
        }
        if (!oldest) {
            return; /* all of it is in use */
        }
        total -= fl_runner_unload(oldest);
    }
}

static void tell_stopped(uv_timer_t *timer)
{
    struct fl_host *h = timer->data;

    h->stopped(h->arg);
}

static void on_changed(void *arg)
{
    struct fl_host *h = arg;

    if (!h->started || h->done) {
        return;
    }
    trim(h);
    for (uint32_t i = 0; i < h->count; i++) {
        if (!fl_runner_quiet(h->runners[i])) {
            return;
        }
    }
    h->done = true;
    uv_timer_start(&h->after, tell_stopped, 0, 0);
}

static int open_agents(struct fl_host *h, struct fl_err *e)
{
    h->runners = fl_try(h->config->agent_count, sizeof *h->runners);
    if (!h->runners) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    while (h->count < h->config->agent_count) {
        int r = fl_runner_open(&h->shared, h->count, &h->runners[h->count], e);
        if (r) {
            return r;
        }
        h->count++;
    }
    return 0;
}

int fl_host_open(uv_loop_t *loop, const struct fl_config *config, bool once,
                 void (*stopped)(void *arg), void *arg, struct fl_host **ret, struct fl_err *e)
{
    struct fl_host *h = fl_new(1, sizeof *h);
    unsigned cores = (unsigned)get_nprocs();
    unsigned threads[FL_WORK_CLASSES] = {
        [FL_WORK_SHORT] = cores,
        [FL_WORK_SYNC] = 4, /* they wait for the disk, not for a core */
        [FL_WORK_LONG] = config->threads ? config->threads : cores};

    h->loop = loop;
    h->config = config;
    h->stopped = stopped;
    h->arg = arg;
    h->lock = -1;
    h->started_ms = fl_vault_wall_ms();
    uv_timer_init(loop, &h->after);
    h->after.data = h;
    int r = fl_file_make_dirs(config->state, e);
    if (r == 0) {
        r = fl_file_lock_dir(config->state, &h->lock, e);
    }
    if (r == 0) {
        r = fl_work_new(loop, threads, &h->work, e);
    }
    if (r == 0) {
        r = fl_pool_new(2 * cores + 2, &h->pool, e);
    }
    h->shared = (struct fl_runner_site){.loop = loop,
                                        .work = h->work,
                                        .pool = h->pool,
                                        .config = config,
                                        .once = once,
                                        .changed = on_changed,
                                        .arg = h};
    if (r == 0) {
        r = open_agents(h, e);
    }
    if (r) {
        fl_host_close(h);
        return r;
    }
    *ret = h;
    return 0;
}

int fl_host_start(struct fl_host *h, struct fl_err *e)
{
    int r = fl_site_open(h, &h->site, e);

    if (r) {
        return r;
    }
    h->started = true;
    for (uint32_t i = 0; i < h->count; i++) {
        fl_runner_start(h->runners[i]);
    }
    return 0;
}

void fl_host_stop(struct fl_host *h)
{
    h->stopping = true;
    for (uint32_t i = 0; i < h->count; i++) {
        fl_runner_stop(h->runners[i]);
    }
}

/* The file is read and judged again: which keys say otherwise now? */
static int changed_keys(const struct fl_config *c, char *ret, size_t size, struct fl_err *e)
{
    struct fl_config *fresh;
    int r = fl_config_load(c->path, &fresh, e);

    if (r == 0) {
        fl_conf_changes(fl_conf_root(c->text), fl_conf_root(fresh->text), ret, size);
        fl_config_free(fresh);
    }
    return r;
}

int fl_host_reload(struct fl_host *h, char ret_waiting[FL_HOST_WAITING_MAX], struct fl_err *e)
{
    struct fl_err one;
    int first = changed_keys(h->config, ret_waiting, FL_HOST_WAITING_MAX, e);

    if (first) { /* nothing is taken of a file that cannot be used */
        return first;
    }

    for (uint32_t i = 0; i < h->count; i++) {
        int r = fl_runner_reload(h->runners[i], &one);
        if (r) {
            fl_log_err(FL_LOG_ERROR, "host", &one, "reload");
        }
        if (r && !first) {
            first = r;
            *e = one;
        }
    }
    if (first == 0) {
        fl_log(FL_LOG_INFO, "host", "certificates and revocation list read again%s%s",
               ret_waiting[0] ? "; waits for a restart: " : "", ret_waiting);
    }
    return first;
}

static void after_closed(uv_handle_t *handle)
{
    fl_free(handle->data);
}

void fl_host_close(struct fl_host *h)
{
    if (!h) {
        return;
    }
    fl_site_close(h->site);
    for (uint32_t i = 0; i < h->count; i++) {
        fl_runner_close(h->runners[i]);
    }
    fl_free(h->runners);
    fl_pool_free(h->pool);
    fl_work_free(h->work);
    if (h->lock >= 0) {
        close(h->lock);
    }
    h->config = NULL;
    uv_close((uv_handle_t *)&h->after, after_closed);
}

uint32_t fl_host_count(const struct fl_host *h)
{
    return h->count;
}

struct fl_runner *fl_host_runner(const struct fl_host *h, uint32_t index)
{
    return h->runners[index];
}

struct fl_runner *fl_host_find(const struct fl_host *h, const char *name)
{
    for (uint32_t i = 0; i < h->count; i++) {
        if (strcmp(fl_runner_name(h->runners[i]), name) == 0) {
            return h->runners[i];
        }
    }
    return NULL;
}

uint64_t fl_host_started_ms(const struct fl_host *h)
{
    return h->started_ms;
}

uv_loop_t *fl_host_loop(const struct fl_host *h)
{
    return h->loop;
}

const struct fl_config *fl_host_config(const struct fl_host *h)
{
    return h->config;
}

bool fl_host_stopping(const struct fl_host *h)
{
    return h->stopping;
}

bool fl_host_useful(const struct fl_host *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        if (fl_runner_useful(h->runners[i])) {
            return true;
        }
    }
    return false;
}
