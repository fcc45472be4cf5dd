/*
 * cohortctl: everything a person or a script does with a coordinator, and the tools around it that
 * need no coordinator (pki, model show, privacy). A thin client: it parses words, asks, prints.
 */
#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/math/pcb.h"
#include "server/ctl/cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GLOBAL_OPTIONS = 4 }; /* the first ones: for every command */

/* Every option of every command, with what it takes ("" = nothing). */
static const struct {
    const char *name, *takes, *help;
} options[] = {
    {"socket", "PATH",
     "the daemon's control socket (default: $COHORT_SOCKET or " FL_CLI_SOCKET ")"},
    {"json", "", "print JSON"},
    {"timeout", "TIME", "give up after this long, as 30s or 5m (exit code 4)"},
    {"help", "", "what a command does and takes"},
    {"wait", "", "return when it is done; of submit: when the job is"},
    {"set", "KEY=VALUE", "another value for a key of the file; may be repeated"},
    {"limit", "N", "at most so many"},
    {"round", "N", "this round, not the newest"},
    {"output", "FILE", "where to write it (short: -o)"},
    {"slot", "K", "the model of this slot; 0 by default"},
    {"agent", "NAME", "the model of the slot that this agent is in"},
    {"key", "HEX", "identity: SHA-256 of the certificate's public key"},
    {"name", "NAME", "what it is to be called"},
    {"dns", "NAME", "a host name or address that agents dial; may be repeated"},
    {"count", "N", "so many: certificates named by a pattern as site-{nn}; canaries"},
    {"first", "N", "the pattern's first number (default 1)"},
    {"days", "N", "lifetime (default 365)"},
    {"sigma", "X", "noise multiplier: standard deviation / clip norm"},
    {"q", "X", "sampling rate of the Poisson batches; 1 = everybody every time"},
    {"steps", "N", "releases"},
    {"delta", "X", "as 1e-5"},
    {"epsilon", "X", "as 2.5"},
    {"population", "N", "how many units delta is to protect: it must be below 1/N"},
    {"event", "TEXT", "as 'Poisson(q=0.01;Gauss(sigma=1.1))x1000'; may be repeated"},
    {"relation", "WORD", "neighbours: add-remove (default), replace, zero"},
    {"examples", "N", "at a site (default: the job's privacy.examples)"},
    {"seed", "N", "of what is made up (default: another one each time)"},
    {"dimensions", "N", "noised coordinates that matter (default: all)"},
    {"update", "DIGEST", "of an update (a site's `cohort-agent ledger` has them): is it in there?"},
    {"head", "DIGEST", "the head of an earlier export: is it still in there?"},
    {"candidates", "WORDS", "strategies from simple to elaborate, as local,fedavg,hyperfl"},
    {"rounds", "N", "of each pilot (default 5)"},
    {"cancel-leftovers", "", "first cancel pilots that a killed run left behind"},
    {"plan", "DIGEST", "of a job's text: which rounds ran it?"},
    {"base", "FILE", "the model that all the others came from"},
    {"method", "WORD", "how: mean, or pcb (default)"},
    {"keep", "X", "pcb: what part of a model's values stays in the running (default 0.1)"},
    {"scale", "X", "what the merged way from the base is multiplied by (default 1)"},
};

struct command {
    const char *words, *takes, *help;
    const char *options; /* space between and around */
    uint32_t min, max;   /* words behind it */
    int (*run)(struct fl_cli *c);
};

static const struct command commands[] = {
    {"status", "", "the coordinator at a glance", " ", 0, 0, fl_cli_status},
    {"watch", "[JOB]", "live: rounds, members against quorum, deadline, bytes", " ", 0, 1,
     fl_cli_watch},
    {"job submit", "FILE", "check a job description and start it", " wait set ", 1, 1,
     fl_cli_job_submit},
    {"job check", "FILE", "check a job description as submit does; nothing is started", " set ", 1,
     1, fl_cli_job_check},
    {"job list", "", "all jobs", " ", 0, 0, fl_cli_job_list},
    {"job show", "JOB", "one job, its description, its running round", " ", 1, 1, fl_cli_job_show},
    {"job wait", "JOB", "until the job is done; fails when it fails", " ", 1, 1, fl_cli_job_wait},
    {"job bubbles", "JOB", "which model each site has, and why", " ", 1, 1, fl_cli_job_bubbles},
    {"job scores", "JOB", "what the sites say of the model of its last round", " ", 1, 1,
     fl_cli_job_scores},
    {"job pause", "JOB", "finish the open round, then rest", " wait ", 1, 1, fl_cli_job_pause},
    {"job resume", "JOB", "go on with a paused job", " ", 1, 1, fl_cli_job_resume},
    {"job drain", "JOB", "finish the open round, then the job is done", " wait ", 1, 1,
     fl_cli_job_drain},
    {"job cancel", "JOB", "end it now, drop the open round", " wait ", 1, 1, fl_cli_job_cancel},
    {"job set", "JOB KEY=VALUE...", "change settings from the next round on", " ", 2, 64,
     fl_cli_job_set},
    {"round list", "JOB", "the last rounds, newest first", " limit ", 1, 1, fl_cli_round_list},
    {"round show", "JOB", "one round and its members", " round ", 1, 1, fl_cli_round_show},
    {"round explain", "JOB", "what a round waits for, who is missing and why", " round ", 1, 1,
     fl_cli_round_explain},
    {"agent list", "", "all enrolled agents", " ", 0, 0, fl_cli_agent_list},
    {"agent show", "AGENT", "one agent", " ", 1, 1, fl_cli_agent_show},
    {"agent explain", "AGENT", "how each job sees it, and why", " ", 1, 1, fl_cli_agent_explain},
    {"agent models", "AGENT", "published models that its updates are in", " limit ", 1, 1,
     fl_cli_agent_models},
    {"agent enrol", "CERTIFICATE...", "allow these certificates' owners to take part", " key name ",
     0, FL_CLI_WORDS_MAX, fl_cli_agent_enrol},
    {"agent revoke", "AGENT", "cut an agent off, now and for good", " ", 1, 1, fl_cli_agent_revoke},
    {"model export", "JOB", "a round's model as safetensors", " round slot agent output ", 1, 1,
     fl_cli_model_export},
    {"model merge", "FILE...", "several models that came from one become one; needs no coordinator",
     " base method keep scale output ", 1, FL_PCB_VECTORS_MAX, fl_cli_model_merge},
    {"model show", "FILE", "layers, tensors, groups and sizes of a job description", " set ", 1, 1,
     fl_cli_model_show},
    {"audit export", "JOB", "what each published round was made of, as a chain of records",
     " output ", 1, 1, fl_cli_audit_export},
    {"audit replay", "JOB ROUND", "compute a published round again and compare", " ", 2, 2,
     fl_cli_audit_replay},
    {"audit verify", "FILE", "check such a chain; needs no coordinator", " update head plan ", 1, 1,
     fl_cli_audit_verify},
    {"recommend", "FILE", "short pilots of some strategies, and which of them is worth it here",
     " set candidates rounds sigma cancel-leftovers ", 1, 1, fl_cli_recommend},
    {"reload", "", "certificates, CRL and the live part of the configuration", " ", 0, 0,
     fl_cli_reload},
    {"verbs", "", "what the daemon understands", " ", 0, 0, fl_cli_verbs},
    {"pki init", "DIR", "make a certificate authority in a folder", " name ", 1, 1,
     fl_cli_pki_init},
    {"pki issue", "DIR KIND [NAME]", "issue certificates; KIND: coordinator or agent",
     " dns count first days ", 2, 3, fl_cli_pki_issue},
    {"pki revoke", "DIR NAME", "revoke a name's certificates", " ", 2, 2, fl_cli_pki_revoke},
    {"pki refresh", "DIR", "a revocation list for another 30 days", " ", 1, 1, fl_cli_pki_refresh},
    {"pki list", "DIR", "everything that was issued", " ", 1, 1, fl_cli_pki_list},
    {"privacy epsilon", "", "what so many releases with this noise cost",
     " sigma q steps delta population ", 0, 0, fl_cli_privacy_epsilon},
    {"privacy sigma", "", "the noise that keeps so many releases within epsilon",
     " epsilon q steps delta population ", 0, 0, fl_cli_privacy_sigma},
    {"privacy rounds", "", "how many releases with this noise keep within epsilon",
     " epsilon sigma q delta population ", 0, 0, fl_cli_privacy_rounds},
    {"privacy compose", "", "what several kinds of releases cost together",
     " event relation delta population ", 0, 0, fl_cli_privacy_compose},
    {"privacy table", "FILE", "answers for every line of a CSV table of questions", " ", 1, 1,
     fl_cli_privacy_table},
    {"selftest attack", "FILE", "attack what a job's sites would release", " set count seed ", 1, 1,
     fl_cli_selftest_attack},
    {"selftest dp", "FILE", "attack a job's own mechanism with canaries", " set count ", 1, 1,
     fl_cli_selftest_dp},
    {"privacy plan", "FILE", "a job's cost and noise against signal, before it is submitted",
     " set examples dimensions ", 1, 1, fl_cli_privacy_plan},
};

/* ---- help ---- */

static void print_options(const char *only)
{
    for (size_t i = 0; i < FL_COUNT(options); i++) {
        char padded[40], left[64];
        bool always = i < GLOBAL_OPTIONS;
        snprintf(padded, sizeof padded, " %s ", options[i].name);
        if (only ? strstr(only, padded) != NULL : always) {
            snprintf(left, sizeof left, "--%s %s", options[i].name, options[i].takes);
            printf("  %-20s  %s\n", left, options[i].help);
        }
    }
}

/* For completion scripts and whoever builds on this. */
static void help_json(void)
{
    json_t *list = json_array();

    for (size_t i = 0; i < FL_COUNT(commands); i++) {
        json_t *taken = json_array();
        for (size_t k = 0; k < FL_COUNT(options); k++) {
            char padded[40];
            snprintf(padded, sizeof padded, " %s ", options[k].name);
            if (k < GLOBAL_OPTIONS || strstr(commands[i].options, padded)) {
                json_array_append_new(taken, json_string(options[k].name));
            }
        }
        json_array_append_new(list, json_pack("{ss ss ss so}", "command", commands[i].words,
                                              "takes", commands[i].takes, "help", commands[i].help,
                                              "options", taken));
    }
    fl_cli_print_json(list);
    json_decref(list);
}

/* Does the command begin with this word? */
static bool in_group(const struct command *k, const char *group)
{
    size_t length = strcspn(k->words, " ");

    return strlen(group) == length && strncmp(k->words, group, length) == 0;
}

/* `group`: only commands that begin with it; NULL or the name of no group: all. */
static void help_all(const char *group)
{
    bool known = false;

    for (size_t i = 0; group && i < FL_COUNT(commands); i++) {
        known = known || in_group(&commands[i], group);
    }
    printf("usage: cohortctl [options] COMMAND\n       cohortctl --version\n\n");
    for (size_t i = 0; i < FL_COUNT(commands); i++) {
        char left[64];
        if (known && !in_group(&commands[i], group)) {
            continue;
        }
        snprintf(left, sizeof left, "%s %s", commands[i].words, commands[i].takes);
        printf("  %-30s  %s\n", left, commands[i].help);
    }
    printf("\nfor every command:\n");
    print_options(NULL);
    printf("\nexit codes: 0 done, 1 failed, 2 usage, 3 cannot connect, 4 timed out, 5 refused by "
           "policy, 78 bad configuration\n");
}

static void help_one(const struct command *k)
{
    printf("usage: cohortctl %s %s\n\n%s\n", k->words, k->takes, k->help);
    if (strlen(k->options) > 1) {
        printf("\noptions:\n");
        print_options(k->options);
    }
    printf("\nfor every command:\n");
    print_options(NULL);
}

/* ---- parsing ---- */

static int add_option(struct fl_cli *c, int argc, char **argv, int *i)
{
    const char *given = argv[*i] + 2, *equals = strchr(given, '=');
    size_t length = equals ? (size_t)(equals - given) : strlen(given);
    size_t o = 0;

    if (strcmp(argv[*i], "-o") == 0) {
        given = "output";
        length = strlen(given);
    } else if (strcmp(argv[*i], "-h") == 0) {
        given = "help";
        length = strlen(given);
    } else if (argv[*i][1] != '-') {
        return fl_fail(&c->err, FL_R_ARG, "no option '%.40s'", argv[*i]);
    }
    while (o < FL_COUNT(options) &&
           (strlen(options[o].name) != length || strncmp(options[o].name, given, length) != 0)) {
        o++;
    }
    if (o == FL_COUNT(options)) {
        return fl_fail(&c->err, FL_R_ARG, "no option '%.40s'", argv[*i]);
    }
    const char *value = equals ? equals + 1 : "";
    if (options[o].takes[0] && !equals) {
        if (++*i >= argc) {
            return fl_fail(&c->err, FL_R_ARG, "--%s takes %s", options[o].name, options[o].takes);
        }
        value = argv[*i];
    } else if (!options[o].takes[0] && equals) {
        return fl_fail(&c->err, FL_R_ARG, "--%s takes nothing", options[o].name);
    }
    if (c->option_count == FL_CLI_OPTIONS_MAX) {
        return fl_fail(&c->err, FL_R_ARG, "too many options");
    }
    c->options[c->option_count++] = (struct fl_cli_option){options[o].name, value};
    return 0;
}

static int parse(struct fl_cli *c, int argc, char **argv)
{
    bool words_only = false;

    for (int i = 1; i < argc; i++) {
        if (!words_only && strcmp(argv[i], "--") == 0) {
            words_only = true;
        } else if (!words_only && argv[i][0] == '-' && argv[i][1]) {
            int status = add_option(c, argc, argv, &i);
            if (status) {
                return status;
            }
        } else if (c->word_count == FL_CLI_WORDS_MAX) {
            return fl_fail(&c->err, FL_R_ARG, "too many words");
        } else {
            c->words[c->word_count++] = argv[i];
        }
    }
    return 0;
}

/* Takes the command's own words off the front. */
static const struct command *find(struct fl_cli *c)
{
    for (size_t i = 0; i < FL_COUNT(commands); i++) {
        char first[32];
        const char *second = strchr(commands[i].words, ' ');
        uint32_t words = second ? 2 : 1;
        snprintf(first, sizeof first, "%.*s", (int)strcspn(commands[i].words, " "),
                 commands[i].words);
        if (c->word_count >= words && strcmp(c->words[0], first) == 0 &&
            (!second || strcmp(c->words[1], second + 1) == 0)) {
            c->word_count -= words;
            memmove(c->words, c->words + words, c->word_count * sizeof *c->words);
            return &commands[i];
        }
    }
    return NULL;
}

static int check(struct fl_cli *c, const struct command *k)
{
    for (uint32_t i = 0; i < c->option_count; i++) {
        char padded[40];
        const char *name = c->options[i].name;
        bool repeats =
            strcmp(name, "dns") == 0 || strcmp(name, "set") == 0 || strcmp(name, "event") == 0;
        snprintf(padded, sizeof padded, " %s ", name);
        if (!strstr(" socket json timeout help ", padded) && !strstr(k->options, padded)) {
            return fl_fail(&c->err, FL_R_ARG, "%s does not take --%s", k->words, name);
        }
        if (!repeats && fl_cli_option(c, name, 1)) {
            return fl_fail(&c->err, FL_R_ARG, "--%s given twice", name);
        }
    }
    if (c->word_count < k->min || c->word_count > k->max) {
        return fl_fail(&c->err, FL_R_ARG, "usage: cohortctl %s %s", k->words, k->takes);
    }
    const char *timeout = fl_cli_option(c, "timeout", 0);
    if (timeout && (!fl_conf_duration(timeout, &c->timeout_ms) || c->timeout_ms == 0)) {
        return fl_fail(&c->err, FL_R_ARG, "--timeout: a time as 30s or 5m, not '%.40s'", timeout);
    }
    return 0;
}

static enum fl_exit complain(const struct fl_cli *c, int status, const char *command)
{
    if (c->json) {
        json_t *o = json_pack("{s{si ss ss}}", "error", "reason", -status, "name",
                              fl_reason_name(status), "text", c->err.msg);
        char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
        fprintf(stderr, "%s\n", text ? text : "{}");
        free(text);
        json_decref(o);
    } else {
        fprintf(stderr, "cohortctl: %s%s%s (%s, reason %d)\n", command, command[0] ? ": " : "",
                c->err.msg, fl_reason_name(status), -status);
    }
    return c->goes_on ? FL_EXIT_GOES_ON : fl_cli_exit(status);
}

int main(int argc, char **argv)
{
    struct fl_cli *c;
    const char *variable = getenv("COHORT_SOCKET");
    const struct command *k = NULL;

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("cohortctl " FL_VERSION);
        return FL_EXIT_OK;
    }
    c = fl_new(1, sizeof *c);
    signal(SIGPIPE, SIG_IGN);
    int status = parse(c, argc, argv);
    const char *path = fl_cli_option(c, "socket", 0);
    c->json = fl_cli_option(c, "json", 0) != NULL;
    c->socket = path ? path : variable && variable[0] ? variable : FL_CLI_SOCKET;
    if (status == 0) {
        k = find(c);
        if (!k && fl_cli_option(c, "help", 0)) {
            c->json ? help_json() : help_all(c->word_count ? c->words[0] : NULL);
            goto out;
        }
        if (!k) {
            status =
                c->word_count
                    ? fl_fail(&c->err, FL_R_ARG, "no command '%.40s%s%.40s'", c->words[0],
                              c->word_count > 1 ? " " : "", c->word_count > 1 ? c->words[1] : "")
                    : fl_fail(&c->err, FL_R_ARG,
                              "what is to be done? `cohortctl --help` says what can be");
        }
    }
    if (status == 0 && fl_cli_option(c, "help", 0)) {
        help_one(k);
        goto out;
    }
    if (status == 0) {
        status = check(c, k);
    }
    if (status == 0) {
        status = k->run(c);
    }
    if (status == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        status = fl_fail(&c->err, FL_R_SYS, "standard output cannot be written");
    }
out:;
    enum fl_exit code = status < 0 ? complain(c, status, k ? k->words : "") : FL_EXIT_OK;
    fl_free(c);
    return (int)code;
}
