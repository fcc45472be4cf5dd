/*
 * cohortctl: what its commands share. A command is a row of a table (main.c) with a function; it
 * finds its words and options parsed in `struct fl_cli` and returns 0 or a negative reason with the
 * text in cli->err. main turns that into one line on stderr and an exit code.
 */
#ifndef SERVER_CTL_CLI_H
#define SERVER_CTL_CLI_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/io/ctl_client.h"
#include "common/plan/plan.h"

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define FL_CLI_SOCKET "/run/cohort/cohortd.sock"

enum {
    FL_CLI_WORDS_MAX = 4096,
    FL_CLI_OPTIONS_MAX = 64,
    FL_CLI_REQUEST_MS = 30 * 1000, /* for an answer that waits for nothing */
};

/* Exit codes, stable for ever (deploy/docs/CONTROL.md). */
enum fl_exit {
    FL_EXIT_OK = 0,
    FL_EXIT_FAILURE = 1,
    FL_EXIT_USAGE = 2,
    FL_EXIT_CONNECT = 3, /* nothing listens, or it stopped while we waited */
    FL_EXIT_TIMEOUT = 4,
    FL_EXIT_POLICY = 5,
    FL_EXIT_GOES_ON = 6, /* what was asked for is under way; only the waiting for its end is over */
    FL_EXIT_CONFIG = 78,
};
enum fl_exit fl_cli_exit(int status);

struct fl_cli_option {
    const char *name, *value; /* value "" for flags */
};

struct fl_cli {
    const char *socket;
    bool json;
    uint64_t timeout_ms; /* 0 = not given */
    uint32_t word_count; /* behind the command's own words */
    const char *words[FL_CLI_WORDS_MAX];
    uint32_t option_count;
    struct fl_cli_option options[FL_CLI_OPTIONS_MAX];
    const volatile sig_atomic_t *interrupted; /* not 0: asking ends with -FL_R_CANCELLED. NULL: */
    bool goes_on;                             /* a failure is FL_EXIT_GOES_ON */
    struct fl_err err;
};

/* The n-th value of an option, NULL when there are not so many. */
const char *fl_cli_option(const struct fl_cli *c, const char *name, uint32_t n);
/* A whole number in [min, max]; `absent` when it is not given. -FL_R_ARG. */
int fl_cli_count(struct fl_cli *c, const char *name, uint64_t min, uint64_t max, uint64_t absent,
                 uint64_t *ret);
/* A finite number in (min, max], -FL_R_ARG also when it is missing. */
int fl_cli_number(struct fl_cli *c, const char *name, double min, double max, double *ret);

/* ---- asking the daemon ---- */

/* Adds an argument; a NULL value is left out. Strings are borrowed. */
void fl_cli_argument(struct fl_ctl_request *q, const char *name, const char *value);
/* Asks and gathers all documents in *ret_list (a JSON array, empty on failure too; the caller
 * releases it). `waits`: no default timeout. */
int fl_cli_ask(struct fl_cli *c, const struct fl_ctl_request *q, bool waits, json_t **ret_list);

/* Asks; when JSON is wanted prints it (all documents as a list, or the one) and returns 1; else 0
 * with the documents in *ret. */
int fl_cli_ask_or_print(struct fl_cli *c, const struct fl_ctl_request *q, bool waits, bool list,
                        json_t **ret);

/* Asks for a list and prints it: as JSON, or as a table of which `row` adds a document's cells;
 * `none` when there are no documents. */
struct fl_table;
int fl_cli_ask_table(struct fl_cli *c, const struct fl_ctl_request *q, const char *const *heads,
                     void (*row)(struct fl_table *t, const json_t *o), const char *none);

/* Submits a job, then waits for its end. *ret_list: its document. ret_job: NAME@ID, "" when it was
 * not submitted. --timeout is for both; when it passes and the job goes on, that is said. */
enum { FL_CLI_JOB_MAX = FL_PLAN_NAME_MAX + 21 };
int fl_cli_job_run(struct fl_cli *c, const struct fl_ctl_request *submit, json_t **ret_list,
                   char ret_job[FL_CLI_JOB_MAX]);
/* NAME@ID of a job's document. */
void fl_cli_job_exact(const json_t *job, char ret[FL_CLI_JOB_MAX]);

/* What came with a file. */
struct fl_download {
    json_t *about; /* the document before the bytes; the caller releases it, on failure too */
    uint64_t bytes;
    struct fl_digest digest; /* of them */
    bool to_file;            /* not to standard output */
};
/* Asks for a file and writes it to --output: beside, then checked by `check` (NULL: not), synced,
 * renamed. A failure leaves nothing. */
int fl_cli_download(struct fl_cli *c, const struct fl_ctl_request *q,
                    int (*check)(struct fl_cli *c, const struct fl_download *x),
                    struct fl_download *ret);

/* The job description named by the first word, with every --set applied; freed by fl_free. */
int fl_cli_job_text(struct fl_cli *c, char **ret, size_t *ret_size);
/* Its plan as it would run: with the noise that submission computes. Freed by fl_free. */
int fl_cli_job_plan(struct fl_cli *c, struct fl_plan **ret);

/* ---- saying it ---- */

/* "name           text" */
void fl_cli_row(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fl_cli_print_round(const json_t *round);

/* One document, indented, with a line end. */
void fl_cli_print_json(const json_t *document);
const char *fl_cli_text(const json_t *o, const char *field); /* "" for null and missing */
int64_t fl_cli_int(const json_t *o, const char *field);      /* 0 for null and missing */

/* ---- commands ---- */
int fl_cli_status(struct fl_cli *c);
int fl_cli_job_submit(struct fl_cli *c);
int fl_cli_job_check(struct fl_cli *c);
int fl_cli_job_list(struct fl_cli *c);
int fl_cli_job_bubbles(struct fl_cli *c);
int fl_cli_job_scores(struct fl_cli *c);
int fl_cli_recommend(struct fl_cli *c);

int fl_cli_job_show(struct fl_cli *c);
int fl_cli_job_wait(struct fl_cli *c);
int fl_cli_job_pause(struct fl_cli *c);
int fl_cli_job_resume(struct fl_cli *c);
int fl_cli_job_drain(struct fl_cli *c);
int fl_cli_job_cancel(struct fl_cli *c);
int fl_cli_job_set(struct fl_cli *c);
int fl_cli_round_list(struct fl_cli *c);
int fl_cli_round_show(struct fl_cli *c);
int fl_cli_round_explain(struct fl_cli *c);
int fl_cli_agent_list(struct fl_cli *c);
int fl_cli_agent_show(struct fl_cli *c);
int fl_cli_agent_explain(struct fl_cli *c);
int fl_cli_agent_models(struct fl_cli *c);
int fl_cli_agent_enrol(struct fl_cli *c);
int fl_cli_agent_revoke(struct fl_cli *c);
int fl_cli_reload(struct fl_cli *c);
int fl_cli_verbs(struct fl_cli *c);
int fl_cli_watch(struct fl_cli *c);
int fl_cli_audit_export(struct fl_cli *c);
int fl_cli_audit_replay(struct fl_cli *c);
int fl_cli_audit_verify(struct fl_cli *c);
int fl_cli_model_export(struct fl_cli *c);
int fl_cli_model_merge(struct fl_cli *c);
int fl_cli_model_show(struct fl_cli *c);
int fl_cli_pki_init(struct fl_cli *c);
int fl_cli_pki_issue(struct fl_cli *c);
int fl_cli_pki_revoke(struct fl_cli *c);
int fl_cli_pki_refresh(struct fl_cli *c);
int fl_cli_pki_list(struct fl_cli *c);
int fl_cli_privacy_epsilon(struct fl_cli *c);
int fl_cli_privacy_sigma(struct fl_cli *c);
int fl_cli_privacy_rounds(struct fl_cli *c);
int fl_cli_privacy_compose(struct fl_cli *c);
int fl_cli_privacy_table(struct fl_cli *c);
int fl_cli_privacy_plan(struct fl_cli *c);
int fl_cli_selftest_attack(struct fl_cli *c);
int fl_cli_selftest_dp(struct fl_cli *c);

#endif
