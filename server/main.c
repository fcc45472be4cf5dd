/*
 * cohortd: command line, signals, readiness. Everything else hangs from the coordinator.
 *
 *   SIGTERM, SIGINT  drain: say goodbye, finish what is being written, exit 0; a second one ends at
 * once SIGHUP           configuration, certificates and CRL anew
 */
#include "common/base/log.h"
#include "common/io/keeper.h"
#include "common/io/notify.h"
#include "server/config.h"
#include "server/coordinator.h"

#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#ifndef FL_VERSION
#error "FL_VERSION comes from the build"
#endif

enum { EXIT_USAGE = 2, EXIT_CONFIG = 78, STATUS_EVERY_MS = 5000 };

struct daemon {
    uv_loop_t loop;
    const char *config_path;
    struct fl_server_config config;
    struct fl_coordinator *co;
    uv_signal_t term, interrupt, hup;
    uv_timer_t watchdog;
    bool stopping;
    int status;
};

static void usage(FILE *to)
{
    fputs("usage: cohortd --config FILE [--check-config]\n"
          "       cohortd --version | --help\n"
          "\n"
          "  --config FILE    the configuration (deploy/docs/COORDINATOR.md)\n"
          "  --check-config   read and check it, then exit: 0 good, 78 bad\n",
          to);
}

static void close_handles(struct daemon *d)
{
    uv_close((uv_handle_t *)&d->term, NULL);
    uv_close((uv_handle_t *)&d->interrupt, NULL);
    uv_close((uv_handle_t *)&d->hup, NULL);
    uv_close((uv_handle_t *)&d->watchdog, NULL);
}

static void on_stopped(void *arg, int status)
{
    struct daemon *d = arg;

    d->status = status ? EXIT_FAILURE : EXIT_SUCCESS;
    uv_stop(&d->loop);
}

static void on_stop_signal(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;

    if (d->stopping) {
        fl_log(FL_LOG_WARN, NULL, "signal %d again: ending at once; nothing acknowledged is lost",
               number);
        _exit(EXIT_FAILURE);
    }
    d->stopping = true;
    fl_log(FL_LOG_INFO, NULL, "signal %d: draining", number);
    fl_notify("STOPPING=1\nSTATUS=draining");
    fl_coordinator_drain(d->co);
}

static void on_hup(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;
    char waiting[FL_COORDINATOR_WAITING_MAX];
    struct fl_err e = {0};

    (void)number;
    fl_notify("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(uv_hrtime() / 1000));
    if (fl_coordinator_reload(d->co, waiting, &e) != 0) {
        fl_log_err(FL_LOG_ERROR, NULL, &e, "reload refused; the running configuration stays");
    }
    fl_notify("READY=1");
}

static void on_watchdog(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    char summary[160];

    fl_coordinator_summary(d->co, summary, sizeof summary);
    fl_notify("WATCHDOG=1\nSTATUS=%s", summary);
}

static int run(struct daemon *d)
{
    struct fl_err e = {0};

    uv_loop_init(&d->loop);
    int r = fl_coordinator_open(&d->loop, d->config_path, &d->config, on_stopped, d, &d->co, &e);
    if (r) {
        fl_log_err(FL_LOG_ERROR, NULL, &e, "cannot start");
        uv_run(&d->loop, UV_RUN_DEFAULT);
        uv_loop_close(&d->loop);
        return EXIT_FAILURE;
    }
    uv_signal_init(&d->loop, &d->term);
    uv_signal_init(&d->loop, &d->interrupt);
    uv_signal_init(&d->loop, &d->hup);
    uv_timer_init(&d->loop, &d->watchdog);
    d->term.data = d->interrupt.data = d->hup.data = d->watchdog.data = d;
    uv_signal_start(&d->term, on_stop_signal, SIGTERM);
    uv_signal_start(&d->interrupt, on_stop_signal, SIGINT);
    uv_signal_start(&d->hup, on_hup, SIGHUP);
    uint64_t every = fl_notify_watchdog_ms();
    every = every && every < STATUS_EVERY_MS ? every : STATUS_EVERY_MS;
    uv_timer_start(&d->watchdog, on_watchdog, every, every);
    fl_log(FL_LOG_INFO, NULL, "cohortd %s listens on %s port %u", FL_VERSION,
           d->config.listen.address, fl_coordinator_port(d->co));
    fl_notify("READY=1");
    uv_run(&d->loop, UV_RUN_DEFAULT);
    close_handles(d);
    fl_coordinator_close(d->co);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    r = uv_loop_close(&d->loop);
    if (r) {
        fl_log(FL_LOG_ERROR, NULL, "handles left on the loop at the end");
        return EXIT_FAILURE;
    }
    fl_log(FL_LOG_INFO, NULL, "stopped");
    return d->status;
}

static int config_failed(const struct fl_err *e)
{
    fprintf(stderr, "%s [%d %s]\n", e->msg, -e->code, fl_reason_name(e->code));
    return EXIT_CONFIG;
}

/* The file is understood; are the certificates it names usable? */
static int check_config(const char *path, const struct fl_server_config *config)
{
    struct fl_tls_files files = fl_server_config_tls(config);
    struct fl_tls_conf *tls = NULL;
    struct fl_err e = {0};

    files.order = FL_TLS_ORDER_CHACHA; /* nothing to measure */
    if (fl_tls_conf_new(true, &files, &tls, &e) != 0) {
        return config_failed(&e);
    }
    fl_tls_conf_unref(tls);
    printf("%s: good\n", path);
    return EXIT_SUCCESS;
}

/* A descriptor that cannot be had is an upload that fails: better fewer connections, and said. */
static int take_descriptors(struct fl_server_config *config)
{
    struct rlimit limit;
    uint32_t asked = config->limits.connections;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 0;
    }
    if (limit.rlim_cur < limit.rlim_max) { /* as far as one may without asking */
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            limit.rlim_cur = before;
        }
    }
    config->limits.connections =
        limit.rlim_cur == RLIM_INFINITY
            ? asked
            : fl_server_config_connections(asked, (uint64_t)limit.rlim_cur);
    if (config->limits.half_open > config->limits.connections) {
        config->limits.half_open = config->limits.connections;
    }
    if (config->limits.connections < asked) {
        fl_log(FL_LOG_WARN, NULL,
               "limits.connections is %u, but %llu descriptors are enough for %u only: raise the "
               "limit of open files (LimitNOFILE, ulimit -n)",
               asked, (unsigned long long)limit.rlim_cur, config->limits.connections);
    }
    return config->limits.connections > 0 ? 0 : -FL_R_LIMIT;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, 'n'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    static struct daemon d;
    bool check = false;
    struct fl_err e = {0};
    int c;

    fl_keeper_main(argc, argv);
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            d.config_path = optarg;
            break;
        case 'n':
            check = true;
            break;
        case 'V':
            puts("cohortd " FL_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return EXIT_USAGE;
        }
    }
    if (!d.config_path || optind != argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (fl_server_config_load(d.config_path, &d.config, &e) != 0) {
        return config_failed(&e);
    }
    if (check) {
        return check_config(d.config_path, &d.config);
    }
    umask(0077);
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
    fl_log_setup("cohortd", d.config.log.level, d.config.log.format);
    return take_descriptors(&d.config) ? EXIT_FAILURE : run(&d);
}
