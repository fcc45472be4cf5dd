/*
 * `recommend FILE`: which strategy is worth it here? Each candidate runs as a short job of its own,
 * a pilot, in whose last round every site says what the model it would be served is worth to it
 * (the exchange `score`: noised and debited where the job has a privacy unit). Sites are compared
 * with themselves.
 *
 * The rule. Candidates are given from simple to elaborate. The best by its mean is compared with
 * each simpler one by a paired test over sites (one-sided sign-flip test: under "no difference"
 * each site's difference is as likely to be its negative), and the answer is the simplest that the
 * best does not beat at 5 %. So an elaborate strategy has to be shown better, and what cannot be
 * told apart stays simple; noise in the scores makes that more frequent, never less.
 */
#include "common/base/mem.h"
#include "server/ctl/cli.h"
#include "server/ctl/signflip.h"
#include "server/ctl/table.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { CANDIDATES_MAX = 16, ROUNDS = 5, WHY_MAX = 256 };
#define CANDIDATES  "local,fedavg,fedrep,hyperfl"
#define SIGNIFICANT 0.05

struct candidate {
    char word[FL_PLAN_NAME_MAX], job[FL_PLAN_NAME_MAX];
    char *text; /* the pilot's description */
    size_t size;
    json_t *scores;    /* documents of `job scores` */
    double mean;       /* over the sites that scored every candidate */
    double p;          /* that the best is no better than this one; 1 for the best itself */
    char why[WHY_MAX]; /* it did not run; "" = it did */
};

struct trial {
    struct fl_plan *plan; /* of the file, and its text */
    char *text;
    size_t size;
    uint64_t rounds;
    struct candidate of[CANDIDATES_MAX];
    uint32_t count, sites, best, choice;
    double *score; /* sites x count */
};

/* ---- pilots ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static void watch_signals(struct fl_cli *c)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    c->interrupted = &interrupted; /* a second signal ends us at once */
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
}

/* Replaces *text by the same with one more key. */
static int set_key(struct fl_cli *c, char **text, size_t *size, const char *key, const char *value)
{
    char *next;
    int status = fl_plan_override(*text, *size, key, value, &next, size, &c->err);

    if (status == 0) {
        fl_free(*text);
        *text = next;
    }
    return status;
}

/* The file's job as a pilot. Its own strategy keeps the settings that it has there. */
static int pilot_text(struct fl_cli *c, const struct trial *t, struct candidate *x)
{
    const char *sigma = fl_cli_option(c, "sigma", 0);
    char number[24];
    char *text = NULL;
    size_t size;

    snprintf(number, sizeof number, "%llu", (unsigned long long)t->rounds);
    int status = fl_plan_override(t->text, t->size, "name", x->job, &text, &size, &c->err);
    if (strcmp(x->word, t->plan->strategy) != 0) {
        status = status ? status : set_key(c, &text, &size, "strategy", x->word);
    }
    status = status ? status : set_key(c, &text, &size, "rounds", number);
    status =
        status ? status : set_key(c, &text, &size, "score.noise_multiplier", sigma ? sigma : "0");
    if (status) {
        fl_free(text);
        return status;
    }
    x->text = text;
    x->size = size;
    return 0;
}

static void leave_out(struct fl_cli *c, struct candidate *x)
{
    snprintf(x->why, sizeof x->why, "%.*s", (int)sizeof x->why - 1, c->err.msg);
    fprintf(stderr, "cohortctl: without %s: %s\n", x->word, x->why);
}

/* All candidates as they would be submitted, before the first of them is: sites' budgets are not
 * spent on a comparison that cannot be made. */
static int check_pilots(struct fl_cli *c, struct trial *t)
{
    uint32_t fit = 0;

    for (uint32_t k = 0; k < t->count; k++) {
        struct candidate *x = &t->of[k];
        int status = pilot_text(c, t, x);
        if (status == 0) {
            struct fl_ctl_request q = {
                .verb = "job check", .body = (const uint8_t *)x->text, .body_size = x->size};
            json_t *list;
            fl_cli_argument(&q, "file", x->job);
            status = fl_cli_ask(c, &q, false, &list);
            json_decref(list);
        }
        if (status == -FL_R_CTL_CONNECT || status == -FL_R_TIMEOUT || interrupted) {
            return status ? status : fl_fail(&c->err, FL_R_CANCELLED, "interrupted");
        }
        fit += status == 0;
        if (status) {
            leave_out(c, x);
        }
    }
    return fit >= 2 ? 0
                    : fl_fail(&c->err, FL_R_NO_OBJECT,
                              "%u of %u candidates fit this job: there is nothing to compare, and "
                              "no pilot was begun",
                              fit, t->count);
}

/* Whatever a pilot ended in, it does not go on without us. */
static void cancel_pilot(struct fl_cli *c, const char *job)
{
    struct fl_ctl_request q = {.verb = "job cancel"};
    struct fl_err e = {0};

    fl_cli_argument(&q, "job", job);
    int status = fl_ctl_ask(c->socket, &q, FL_CLI_REQUEST_MS, NULL, NULL, &e);
    if (status && status != -FL_R_JOB_STATE) { /* that it was over already is no failure */
        fprintf(stderr, "cohortctl: %s goes on: %s; `cohortctl job cancel %s` ends it\n", job,
                e.msg, job);
    }
}

static int run_pilot(struct fl_cli *c, struct candidate *x)
{
    char exact[FL_CLI_JOB_MAX];
    struct fl_ctl_request submit = {.verb = "job submit",
                                    .body = (const uint8_t *)x->text,
                                    .body_size = x->size},
                          ask = {.verb = "job scores"};
    json_t *list;

    fl_cli_argument(&submit, "file", x->job);
    int status = fl_cli_job_run(c, &submit, &list, exact);
    json_decref(list);
    if (status) {
        if (exact[0]) {
            cancel_pilot(c, exact);
        }
        if (c->goes_on) { /* no more: */
            c->goes_on = false;
            fl_fail(&c->err, FL_R_TIMEOUT, "pilot %s did not end in time and is cancelled", exact);
        }
        return status;
    }
    fl_cli_argument(&ask, "job", exact);
    status = fl_cli_ask(c, &ask, false, &x->scores);
    if (status == 0 && json_array_size(x->scores) == 0) {
        status = fl_fail(&c->err, FL_R_NO_OBJECT, "job %s ended without scores", x->job);
    }
    return status;
}

static int split_candidates(struct fl_cli *c, struct trial *t, const char *name)
{
    const char *at = fl_cli_option(c, "candidates", 0);

    for (at = at ? at : CANDIDATES; *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        struct candidate *x = &t->of[t->count];
        if (t->count == CANDIDATES_MAX || n == 0 || n >= sizeof x->word) {
            return fl_fail(&c->err, FL_R_ARG, "--candidates: 1 to %d words, commas between",
                           CANDIDATES_MAX);
        }
        snprintf(x->word, sizeof x->word, "%.*s", (int)n, at);
        int w = snprintf(x->job, sizeof x->job, "%s-pilot-%.*s", name, (int)n, at);
        if (w < 0 || (size_t)w >= sizeof x->job) {
            return fl_fail(&c->err, FL_R_ARG, "%s: no room for the names of pilots", name);
        }
        t->count++;
        at += n;
    }
    return 0;
}

/* Pilots of a run that was killed hold their names. They may be somebody else's who runs the same
 * just now, so they are only cancelled by who says so. */
static int find_leftovers(struct fl_cli *c, const struct trial *t)
{
    struct fl_ctl_request q = {.verb = "job list"};
    char exact[FL_CLI_JOB_MAX];
    bool cancel = fl_cli_option(c, "cancel-leftovers", 0) != NULL;
    json_t *list, *o;
    size_t i;
    int status = fl_cli_ask(c, &q, false, &list);

    json_array_foreach(list, i, o)
    {
        const char *state = fl_cli_text(o, "state");
        bool over = strcmp(state, "done") == 0 || strcmp(state, "cancelled") == 0 ||
                    strcmp(state, "failed") == 0;
        for (uint32_t k = 0; status == 0 && !over && k < t->count; k++) {
            if (strcmp(fl_cli_text(o, "job"), t->of[k].job) != 0) {
                continue;
            }
            fl_cli_job_exact(o, exact);
            if (cancel) {
                cancel_pilot(c, exact);
            } else {
                status = fl_fail(&c->err, FL_R_CTL_EXISTS,
                                 "pilot %s of another run is %s: let it end, or give "
                                 "--cancel-leftovers if that run is gone",
                                 exact, state);
            }
        }
    }
    json_decref(list);
    return status;
}

/* ---- the answer ---- */

static double score_of(const json_t *scores, const char *agent)
{
    const json_t *o;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)scores, i, o)
    {
        if (strcmp(fl_cli_text(o, "agent"), agent) == 0) {
            return json_number_value(json_object_get(o, "score"));
        }
    }
    return (double)NAN;
}

/* The sites that scored every candidate that ran. */
static int pair(struct fl_cli *c, struct trial *t)
{
    const json_t *first = NULL, *o;
    size_t i;

    for (uint32_t k = 0; k < t->count && !first; k++) {
        first = t->of[k].scores;
    }
    t->score = fl_try(json_array_size(first) * CANDIDATES_MAX, sizeof *t->score);
    if (!t->score) {
        return fl_fail(&c->err, FL_R_NOMEM, "scores");
    }
    json_array_foreach((json_t *)(uintptr_t)first, i, o)
    {
        double *row = t->score + (size_t)t->sites * CANDIDATES_MAX;
        bool all = true;
        for (uint32_t k = 0; k < t->count; k++) {
            row[k] = t->of[k].scores ? score_of(t->of[k].scores, fl_cli_text(o, "agent")) : 0;
            all = all && isfinite(row[k]);
        }
        t->sites += all;
    }
    return t->sites ? 0 : fl_fail(&c->err, FL_R_NO_OBJECT, "no site scored every pilot");
}

static int decide(struct fl_cli *c, struct trial *t)
{
    int status = pair(c, t);
    double *d = status ? NULL : fl_try(t->sites, sizeof *d);

    if (!d) {
        return status ? status : fl_fail(&c->err, FL_R_NOMEM, "differences");
    }
    t->best = CANDIDATES_MAX;
    for (uint32_t k = 0; k < t->count; k++) {
        double sum = 0;
        for (uint32_t i = 0; i < t->sites; i++) {
            sum += t->score[(size_t)i * CANDIDATES_MAX + k];
        }
        t->of[k].mean = sum / t->sites;
        if (t->of[k].scores && (t->best == CANDIDATES_MAX || t->of[k].mean > t->of[t->best].mean)) {
            t->best = k;
        }
    }
    t->choice = t->best;
    for (uint32_t k = t->count; k-- > 0;) {
        for (uint32_t i = 0; i < t->sites; i++) {
            const double *row = t->score + (size_t)i * CANDIDATES_MAX;
            d[i] = row[t->best] - row[k];
        }
        t->of[k].p = k == t->best ? 1 : fl_sign_flip(d, t->sites);
        if (t->of[k].scores && k < t->best && t->of[k].p >= SIGNIFICANT) {
            t->choice = k;
        }
    }
    fl_free(d);
    return 0;
}

/* What the least sure of the simpler ones leaves. */
static double confidence(const struct trial *t)
{
    double p = 0;

    for (uint32_t k = 0; k < t->choice; k++) {
        p = t->of[k].scores && t->of[k].p > p ? t->of[k].p : p;
    }
    return 1 - p;
}

static void print_json(const struct trial *t)
{
    json_t *o = json_object(), *list = json_array();

    for (uint32_t k = 0; k < t->count; k++) {
        const struct candidate *x = &t->of[k];
        json_t *one = json_pack("{ss ss}", "strategy", x->word, "job", x->job);
        if (x->scores) {
            json_object_set_new(one, "mean", json_real(x->mean));
            json_object_set_new(one, "p", json_real(x->p));
        } else {
            json_object_set_new(one, "why", json_string(x->why));
        }
        json_array_append_new(list, one);
    }
    json_object_set_new(o, "strategy", json_string(t->of[t->choice].word));
    json_object_set_new(o, "best", json_string(t->of[t->best].word));
    json_object_set_new(o, "confidence", json_real(confidence(t)));
    json_object_set_new(o, "sites", json_integer(t->sites));
    json_object_set_new(o, "candidates", list);
    fl_cli_print_json(o);
    json_decref(o);
}

static void print_table(const struct trial *t)
{
    static const char *const heads[] = {"STRATEGY", ">MEAN SCORE", ">P", "", NULL};
    struct fl_table *table = fl_table_new(heads);

    for (uint32_t k = 0; k < t->count; k++) {
        const struct candidate *x = &t->of[k];
        fl_table_add(table, "%s", x->word);
        if (!x->scores) {
            fl_table_add(table, "-");
            fl_table_add(table, "-");
            fl_table_add(table, "did not run: %s", x->why);
            continue;
        }
        fl_table_add(table, "%.4f", x->mean);
        if (k == t->best) {
            fl_table_add(table, "-");
        } else {
            fl_table_add(table, "%.3g", x->p);
        }
        fl_table_add(table, "%s",
                     k == t->best         ? "best"
                     : x->p < SIGNIFICANT ? "worse"
                                          : "not told apart");
    }
    fl_table_print(table, stdout, "");
    if (t->sites < 5) { /* 2^-4 is above 0.05 */
        printf("(%u sites are too few to tell anything apart at 5 %%: it takes five)\n", t->sites);
    }
    if (t->choice == t->best && t->choice == 0) {
        printf("%s: the simplest, and nothing was better, over %u sites\n", t->of[0].word,
               t->sites);
    } else if (t->choice == t->best) {
        printf("%s: better than everything simpler, confidence %.3f, over %u sites\n",
               t->of[t->choice].word, confidence(t), t->sites);
    } else {
        printf("%s and %s are not distinguishable over %u sites: keep the simple one, %s\n",
               t->of[t->best].word, t->of[t->choice].word, t->sites, t->of[t->choice].word);
    }
}

/* Every candidate that fits as a job of its own. */
static int run_pilots(struct fl_cli *c, struct trial *t)
{
    uint32_t ran = 0;
    int status = find_leftovers(c, t);

    status = status ? status : check_pilots(c, t);
    for (uint32_t k = 0; status == 0 && k < t->count; k++) {
        struct candidate *x = &t->of[k];
        if (x->why[0]) {
            continue;
        }
        int r = run_pilot(c, x);
        if (interrupted) {
            status = fl_fail(&c->err, FL_R_CANCELLED, "interrupted; its pilots are cancelled");
        } else if (r == -FL_R_CTL_CONNECT || r == -FL_R_TIMEOUT) {
            status = r;
        } else if (r) { /* one that cannot be run is no candidate; say so and go on */
            json_decref(x->scores);
            x->scores = NULL;
            leave_out(c, x);
        }
        ran += r == 0;
    }
    if (status == 0 && ran < 2) {
        status = fl_fail(&c->err, FL_R_NO_OBJECT, "%u of %u pilots ran: %s", ran, t->count,
                         t->of[t->count - 1].why[0] ? t->of[t->count - 1].why : t->of[0].why);
    }
    return status;
}

int fl_cli_recommend(struct fl_cli *c)
{
    struct trial *t = fl_new(1, sizeof *t);

    watch_signals(c);
    t->plan = fl_try(1, sizeof *t->plan);
    int status =
        t->plan ? fl_cli_job_text(c, &t->text, &t->size) : fl_fail(&c->err, FL_R_NOMEM, "plan");
    status = status ? status : fl_plan_parse(t->plan, c->words[0], t->text, t->size, &c->err);
    status = status ? status : fl_cli_count(c, "rounds", 2, 1000, ROUNDS, &t->rounds);
    status = status ? status : split_candidates(c, t, t->plan->name);
    status = status ? status : run_pilots(c, t);
    status = status ? status : decide(c, t);
    if (status == 0) {
        c->json ? print_json(t) : print_table(t);
    }
    for (uint32_t k = 0; k < t->count; k++) {
        json_decref(t->of[k].scores);
        fl_free(t->of[k].text);
    }
    fl_free(t->score);
    fl_free(t->text);
    fl_free(t->plan);
    fl_free(t);
    return status;
}
