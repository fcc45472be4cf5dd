/*
 * cohort-agent: one process, one or many agents.
 *
 *     cohort-agent --config FILE [--check-config] [--once]
 *     cohort-agent VERB --config FILE [--agent NAME] [--job NAME] [--json] ...
 */
#include "client/commands.h"
#include "client/config.h"
#include "client/host.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/keeper.h"
#include "common/io/notify.h"
#include "common/wire/tls.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <uv.h>

static const char usage[] =
    "usage: cohort-agent --config FILE [--check-config] [--once]\n"
    "       cohort-agent status --config FILE [--agent NAME] [--json]\n"
    "       cohort-agent ledger [show|export|verify] --config FILE [--agent NAME] [--limit N] "
    "[--json]\n"
    "       cohort-agent receipts [show|export|verify] --config FILE [--agent NAME] [--job NAME] "
    "[--chain FILE] [--json]\n"
    "       cohort-agent outbox [show] --config FILE [--agent NAME] [--limit N] [--json]\n"
    "       cohort-agent outbox approve|reject --config FILE [--agent NAME] [--update HEX]\n"
    "       cohort-agent withdraw --config FILE --job NAME|'*' [--agent NAME] [--undo] [--json]\n"
    "       cohort-agent report --config FILE [--agent NAME] [--job NAME] [--wait TIME] [--json]\n"
    "       cohort-agent check-data --config FILE [--job JOB.yaml] [--export DIR] [--initial DIR] "
    "[--agent NAME] [--json]\n"
    "       cohort-agent preview --config FILE --job JOB.yaml --model FILE [--rounds N] [--agent "
    "NAME] [--json]\n"
    "       cohort-agent model export --config FILE --job NAME [--agent NAME] [--onnx FILE] "
    "[--safetensors FILE]\n"
    "       cohort-agent reload --config FILE\n"
    "       cohort-agent prepare --config FILE --incarnation HEX --rounds N [--exchange N] "
    "[--exchanges N] --seed N   (tests)\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 not running, 78 configuration\n";

struct options {
    const char *config;
    bool check, once;
    struct fl_command command; /* verb NULL: run */
};

static bool get_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    unsigned long long n = strtoull(text, &end, 10);
    if (*end || n > max) {
        return false;
    }
    *ret = n;
    return true;
}

enum {
    OPT_CHECK = 1,
    OPT_ONCE,
    OPT_JSON,
    OPT_UNDO,
    OPT_LIMIT,
    OPT_INCARNATION,
    OPT_ROUNDS,
    OPT_EXCHANGE,
    OPT_EXCHANGES,
    OPT_SEED,
    OPT_ONNX,
    OPT_SAFETENSORS,
    OPT_UPDATE,
    OPT_MODEL,
    OPT_EXPORT,
    OPT_INITIAL,
    OPT_WAIT,
    OPT_CHAIN
};

static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                      {"agent", required_argument, NULL, 'a'},
                                      {"job", required_argument, NULL, 'j'},
                                      {"help", no_argument, NULL, 'h'},
                                      {"version", no_argument, NULL, 'v'},
                                      {"check-config", no_argument, NULL, OPT_CHECK},
                                      {"once", no_argument, NULL, OPT_ONCE},
                                      {"json", no_argument, NULL, OPT_JSON},
                                      {"undo", no_argument, NULL, OPT_UNDO},
                                      {"limit", required_argument, NULL, OPT_LIMIT},
                                      {"incarnation", required_argument, NULL, OPT_INCARNATION},
                                      {"rounds", required_argument, NULL, OPT_ROUNDS},
                                      {"exchange", required_argument, NULL, OPT_EXCHANGE},
                                      {"exchanges", required_argument, NULL, OPT_EXCHANGES},
                                      {"seed", required_argument, NULL, OPT_SEED},
                                      {"onnx", required_argument, NULL, OPT_ONNX},
                                      {"safetensors", required_argument, NULL, OPT_SAFETENSORS},
                                      {"update", required_argument, NULL, OPT_UPDATE},
                                      {"export", required_argument, NULL, OPT_EXPORT},
                                      {"initial", required_argument, NULL, OPT_INITIAL},
                                      {"model", required_argument, NULL, OPT_MODEL},
                                      {"wait", required_argument, NULL, OPT_WAIT},
                                      {"chain", required_argument, NULL, OPT_CHAIN},
                                      {NULL, 0, NULL, 0}};

static int bad_usage(void)
{
    fputs(usage, stderr);
    return FL_EXIT_USAGE;
}

/* -1: go on. Otherwise the exit code. */
static int get_options(int argc, char **argv, struct options *o)
{
    uint64_t n = 0;
    int c;

    o->command.limit = 50;
    while ((c = getopt_long(argc, argv, "c:a:j:hv", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->config = optarg;
            break;
        case 'a':
            o->command.agent = optarg;
            break;
        case 'j':
            o->command.job = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return FL_EXIT_OK;
        case 'v':
            puts("cohort-agent " FL_VERSION);
            return FL_EXIT_OK;
        case OPT_CHECK:
            o->check = true;
            break;
        case OPT_ONCE:
            o->once = true;
            break;
        case OPT_JSON:
            o->command.json = true;
            break;
        case OPT_UNDO:
            o->command.undo = true;
            break;
        case OPT_LIMIT:
            if (!get_number(optarg, 1000, &n)) {
                return bad_usage();
            }
            o->command.limit = (uint32_t)n;
            break;
        case OPT_ONNX:
            o->command.onnx = optarg;
            break;
        case OPT_SAFETENSORS:
            o->command.safetensors = optarg;
            break;
        case OPT_MODEL:
            o->command.model = optarg;
            break;
        case OPT_EXPORT:
            o->command.export = optarg;
            break;
        case OPT_INITIAL:
            o->command.initial = optarg;
            break;
        case OPT_CHAIN:
            o->command.chain = optarg;
            break;
        case OPT_WAIT:
            o->command.wait = optarg;
            break;
        case OPT_UPDATE:
            o->command.update = optarg;
            break;
        case OPT_INCARNATION:
            o->command.incarnation = optarg;
            break;
        case OPT_ROUNDS:
            if (!get_number(optarg, 1000000, &o->command.rounds)) {
                return bad_usage();
            }
            break;
        case OPT_EXCHANGE:
            if (!get_number(optarg, FL_PLAN_EXCHANGES_MAX - 1, &o->command.exchange)) {
                return bad_usage();
            }
            break;
        case OPT_EXCHANGES:
            if (!get_number(optarg, FL_PLAN_EXCHANGES_MAX, &o->command.exchanges)) {
                return bad_usage();
            }
            break;
        case OPT_SEED:
            if (!get_number(optarg, UINT64_MAX, &o->command.seed)) {
                return bad_usage();
            }
            break;
        default:
            return bad_usage();
        }
    }
    if (optind < argc && fl_command_known(argv[optind])) {
        o->command.verb = argv[optind++];
        if (optind < argc && fl_command_has(o->command.verb, argv[optind])) {
            o->command.what = argv[optind++];
        }
    }
    return optind < argc || !o->config ? bad_usage() : -1;
}

static int config_failed(const struct fl_err *e)
{
    fprintf(stderr, "cohort-agent: %s [%d %s]\n", e->msg, -e->code, fl_reason_name(-e->code));
    return FL_EXIT_CONFIG;
}

/* The file is understood; are the certificates it names usable? */
static int check_config(const struct fl_config *config)
{
    struct fl_err e;

    for (uint32_t i = 0; i < config->agent_count; i++) {
        struct fl_tls_files files = {.ca = config->coordinator.ca,
                                     .certificate = config->agents[i].certificate,
                                     .key = config->agents[i].key,
                                     .crl = config->coordinator.crl[0] ? config->coordinator.crl
                                                                       : NULL,
                                     .order = FL_TLS_ORDER_CHACHA};
        struct fl_tls_conf *tls = NULL;
        int r = fl_tls_conf_new(false, &files, &tls, &e);
        fl_tls_conf_unref(tls);
        if (r) {
            fl_wrap(&e, r, "agent %s", config->agents[i].name);
            return config_failed(&e);
        }
    }
    printf("%u agents: configuration is fine\n", config->agent_count);
    return FL_EXIT_OK;
}

/* ---- the daemon ---------------------------------------------------------------------------------
 */

struct process {
    uv_loop_t loop;
    uv_signal_t term, intr, hup;
    uv_timer_t watchdog;
    struct fl_host *host;
    bool useful;
};

static void on_stop(uv_signal_t *s, int number)
{
    struct process *p = s->data;

    fl_log(FL_LOG_INFO, NULL, "signal %d: draining%s", number,
           fl_host_stopping(p->host) ? " at once" : "");
    fl_notify("STOPPING=1");
    fl_host_stop(p->host);
}

static void on_reload(uv_signal_t *s, int number)
{
    struct process *p = s->data;
    char waiting[FL_HOST_WAITING_MAX];
    struct fl_err e;

    (void)number;
    fl_notify("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(uv_hrtime() / 1000));
    if (fl_host_reload(p->host, waiting, &e)) {
        fl_log_err(FL_LOG_ERROR, "host", &e, "reload");
    }
    fl_notify("READY=1");
}

static void on_watchdog(uv_timer_t *t)
{
    (void)t;
    fl_notify("WATCHDOG=1");
}

/* Every agent has stopped: let the loop run empty. */
static void on_stopped(void *arg)
{
    struct process *p = arg;

    p->useful = fl_host_useful(p->host);
    fl_host_close(p->host);
    p->host = NULL;
    uv_close((uv_handle_t *)&p->term, NULL);
    uv_close((uv_handle_t *)&p->intr, NULL);
    uv_close((uv_handle_t *)&p->hup, NULL);
    uv_close((uv_handle_t *)&p->watchdog, NULL);
}

static void start_handles(struct process *p)
{
    uint64_t every = fl_notify_watchdog_ms();

    uv_signal_init(&p->loop, &p->term);
    uv_signal_init(&p->loop, &p->intr);
    uv_signal_init(&p->loop, &p->hup);
    uv_timer_init(&p->loop, &p->watchdog);
    p->term.data = p->intr.data = p->hup.data = p;
    uv_signal_start(&p->term, on_stop, SIGTERM);
    uv_signal_start(&p->intr, on_stop, SIGINT);
    uv_signal_start(&p->hup, on_reload, SIGHUP);
    if (every) {
        uv_timer_start(&p->watchdog, on_watchdog, every, every);
    }
}

static int run(const struct fl_config *config, bool once)
{
    struct process p = {0};
    struct fl_err e;

    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&p.loop);
    int r = fl_host_open(&p.loop, config, once, on_stopped, &p, &p.host, &e);
    if (r == 0) {
        start_handles(&p);
        r = fl_host_start(p.host, &e);
        if (r) {
            on_stopped(&p);
        }
    }
    if (r) {
        fl_log_err(FL_LOG_ERROR, NULL, &e, "cannot start");
        /* Handles close on the loop. */
        uv_run(&p.loop, UV_RUN_DEFAULT);
        uv_loop_close(&p.loop);
        return FL_EXIT_FAILED;
    }
    fl_log(FL_LOG_INFO, NULL, "%u agents, coordinator %s:%u, state %s", config->agent_count,
           config->coordinator.host, config->coordinator.port, config->state);
    fl_notify("READY=1\nSTATUS=%u agents", config->agent_count);
    uv_run(&p.loop, UV_RUN_DEFAULT);
    uv_loop_close(&p.loop);
    fl_log(FL_LOG_INFO, NULL, "stopped");
    return once && !p.useful ? FL_EXIT_FAILED : FL_EXIT_OK;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct fl_config *config = NULL;
    struct fl_err e;
    int code;

    fl_keeper_main(argc, argv);
    code = get_options(argc, argv, &o);

    if (code >= 0) {
        return code;
    }
    umask(077);
    prctl(PR_SET_DUMPABLE, 0); /* private tensors and keys are in this memory */
    if (fl_config_load(o.config, &config, &e)) {
        return config_failed(&e);
    }
    fl_log_setup("cohort-agent", (enum fl_log_level)config->log.level,
                 (enum fl_log_format)config->log.format);
    if (o.command.verb) {
        code = fl_command_run(config, &o.command);
    } else if (o.check) {
        code = check_config(config);
    } else {
        code = run(config, o.once);
    }
    fl_config_free(config);
    return code;
}
