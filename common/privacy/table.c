#include "common/privacy/table.h"

#include "common/base/mem.h"
#include "common/privacy/accountant.h"
#include "common/privacy/event.h"
#include "common/privacy/gauss.h"
#include "common/privacy/rdp.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 256, TERMS_MAX = 16384 };

enum column {
    COLUMN_ID,
    COLUMN_KIND,
    COLUMN_EVENT,
    COLUMN_RELATION,
    COLUMN_Q,
    COLUMN_SIGMA,
    COLUMN_STEPS,
    COLUMN_DELTA,
    COLUMN_TARGET,
    COLUMN_ALPHA,
    COLUMNS,
};
static const char *const column_names[COLUMNS] = {"id",    "kind",  "event", "relation",   "q",
                                                  "sigma", "steps", "delta", "target_eps", "alpha"};

struct row {
    const char *cells[COLUMNS]; /* NULL: the table has no such column */
    struct fl_event *events;    /* room for TERMS_MAX */
};

struct answer {
    double value, lower;
    const char *bound;
};

/* ---- CSV ---- */

/* Splits the record at *at in place (RFC 4180: cells in quotes may hold commas, line ends and
 * doubled quotes); *at moves to the next record. Returns the number of cells, at most COLUMNS_MAX.
 */
static uint32_t next_record(char **at, const char *end, char *cells[COLUMNS_MAX])
{
    char *from = *at;
    uint32_t n = 0;

    for (;;) {
        char *to = from;
        if (n < COLUMNS_MAX) {
            cells[n++] = to;
        }
        if (from < end && *from == '"') {
            for (from++; from < end && (*from != '"' || from[1] == '"'); from++) {
                from += *from == '"';
                *to++ = *from;
            }
            from += from < end;
        }
        while (from < end && *from != ',' && *from != '\n' && *from != '\r') {
            *to++ = *from++;
        }
        char stop = from < end ? *from : '\n';
        *to = 0; /* there is room: the stop's own place, or the one behind the text */
        from += from < end;
        if (stop == ',') {
            continue;
        }
        from += stop == '\r' && from < end && *from == '\n';
        *at = from;
        return n;
    }
}

/* ---- questions ---- */

static int text_of(const struct row *row, enum column c, const char **ret, struct fl_err *e)
{
    if (!row->cells[c] || !*row->cells[c]) {
        return fl_fail(e, FL_R_DATA_VALUE, "column %s is empty", column_names[c]);
    }
    *ret = row->cells[c];
    return 0;
}

static int number_of(const struct row *row, enum column c, double *ret, struct fl_err *e)
{
    const char *text = NULL;
    char *end = NULL;
    int r = text_of(row, c, &text, e);

    if (r < 0) {
        return r;
    }
    double v = strtod(text, &end);
    if (*end || end == text) {
        return fl_fail(e, FL_R_DATA_VALUE, "%s: %.40s is not a number", column_names[c], text);
    }
    *ret = v;
    return 0;
}

static int relation_of(const struct row *row, enum fl_relation *ret, struct fl_err *e)
{
    const char *text = row->cells[COLUMN_RELATION];

    if (!text || !*text || strcmp(text, "ADD_OR_REMOVE_ONE") == 0) {
        *ret = FL_RELATION_ADD_REMOVE;
    } else if (strcmp(text, "REPLACE_ONE") == 0) {
        *ret = FL_RELATION_REPLACE;
    } else if (strcmp(text, "REPLACE_SPECIAL") == 0) {
        *ret = FL_RELATION_ZERO;
    } else {
        return fl_fail(e, FL_R_DATA_VALUE, "relation %.40s", text);
    }
    return 0;
}

static int ask_epsilon(const struct row *row, struct answer *ret, struct fl_err *e)
{
    const char *text = NULL;
    enum fl_relation relation = FL_RELATION_ADD_REMOVE;
    enum fl_bound bound = FL_BOUND_RDP;
    uint32_t n = 0;
    double delta = NAN;
    int r = text_of(row, COLUMN_EVENT, &text, e);

    r = r < 0 ? r : relation_of(row, &relation, e);
    r = r < 0 ? r : number_of(row, COLUMN_DELTA, &delta, e);
    r = r < 0 ? r : fl_events_parse(text, relation, row->events, TERMS_MAX, &n, e);
    r = r < 0 ? r : fl_epsilon_frozen(row->events, n, delta, &ret->value, &ret->lower, &bound, e);
    ret->bound = fl_bound_name(bound);
    return r;
}

static int check_gaussian(double sigma, double delta, double epsilon, struct fl_err *e)
{
    if (!(sigma > 0) || !isfinite(sigma)) {
        return fl_fail(e, FL_R_ACCOUNTING, "sigma %g; must be finite and above 0", sigma);
    }
    if (!(delta > 0 && delta < 1)) {
        return fl_fail(e, FL_R_ACCOUNTING, "delta %g; must be above 0 and below 1", delta);
    }
    if (!(epsilon >= 0) || !isfinite(epsilon)) {
        return fl_fail(e, FL_R_ACCOUNTING, "epsilon %g; must be finite and not negative", epsilon);
    }
    return 0;
}

static int ask_analytic(const struct row *row, struct answer *ret, struct fl_err *e)
{
    const char *kind = row->cells[COLUMN_KIND];
    bool eps = strcmp(kind, "analytic_eps") == 0, sigma_asked = strcmp(kind, "analytic_sigma") == 0;
    double sigma = 1, delta = 0.5, epsilon = 0;
    int r = sigma_asked ? 0 : number_of(row, COLUMN_SIGMA, &sigma, e);

    r = r < 0 || !(eps || sigma_asked) ? r : number_of(row, COLUMN_DELTA, &delta, e);
    r = r < 0 || eps ? r : number_of(row, COLUMN_TARGET, &epsilon, e);
    r = r < 0 ? r : check_gaussian(sigma, delta, epsilon, e);
    if (r < 0) {
        return r;
    }
    ret->value = eps           ? fl_gauss_epsilon(1 / sigma, delta)
                 : sigma_asked ? fl_gauss_sigma(epsilon, delta)
                               : exp(fl_gauss_log_delta(1 / sigma, epsilon)) * (1 + 1e-12);
    ret->lower = ret->value * (1 - 2e-12);
    ret->bound = fl_bound_name(FL_BOUND_EXACT_GAUSSIAN);
    return 0;
}

static int ask_inverse(const struct row *row, struct answer *ret, struct fl_err *e)
{
    double q = NAN, steps = NAN, delta = NAN, epsilon = NAN, got, lower = 0;
    enum fl_bound bound = FL_BOUND_RDP, ignored;
    int r = number_of(row, COLUMN_Q, &q, e);

    r = r < 0 ? r : number_of(row, COLUMN_STEPS, &steps, e);
    r = r < 0 ? r : number_of(row, COLUMN_DELTA, &delta, e);
    r = r < 0 ? r : number_of(row, COLUMN_TARGET, &epsilon, e);
    if (r == 0 && !(steps >= 0 && steps <= 0x1p53)) {
        r = fl_fail(e, FL_R_DATA_VALUE, "steps %g", steps);
    }
    r = r < 0 ? r : fl_sigma_for_frozen(epsilon, delta, q, (uint64_t)steps, &ret->value, &bound, e);
    if (r < 0) {
        return r;
    }
    ret->bound = fl_bound_name(bound);
    ret->lower = 0;
    /* Less noise for which epsilon is certainly exceeded. */
    for (double less = 1e-4; ret->value > 0 && less < 0.5; less *= 4) {
        struct fl_event event = {
            .q = q, .sigma = ret->value * (1 - less), .count = (uint64_t)steps};
        r = fl_epsilon_frozen(&event, 1, delta, &got, &lower, &ignored, e);
        if (r < 0 || lower > epsilon) {
            ret->lower = r < 0 ? 0 : event.sigma;
            break;
        }
    }
    return r;
}

static int ask_rdp(const struct row *row, struct answer *ret, struct fl_err *e)
{
    struct fl_event event = {.count = 1};
    double alpha = NAN, steps = 1;
    int r = number_of(row, COLUMN_Q, &event.q, e);

    r = r < 0 ? r : number_of(row, COLUMN_SIGMA, &event.sigma, e);
    r = r < 0 ? r : number_of(row, COLUMN_ALPHA, &alpha, e);
    if (r == 0 && row->cells[COLUMN_STEPS] && *row->cells[COLUMN_STEPS]) {
        r = number_of(row, COLUMN_STEPS, &steps, e);
    }
    r = r < 0 ? r : fl_event_check(&event, e);
    if (r == 0 && !(alpha > 1 && alpha <= 1e6)) {
        r = fl_fail(e, FL_R_ACCOUNTING, "order %g; must be above 1 and at most 1e6", alpha);
    }
    if (r == 0 && !(steps >= 0 && steps <= 0x1p53)) {
        r = fl_fail(e, FL_R_DATA_VALUE, "steps %g", steps);
    }
    if (r < 0) {
        return r;
    }
    event.count = (uint64_t)steps;
    ret->value = fl_rdp(&event, alpha);
    ret->lower = ret->value * (1 - 1e-9);
    ret->bound = fl_bound_name(FL_BOUND_RDP);
    return 0;
}

static const struct {
    const char *kind;
    int (*ask)(const struct row *row, struct answer *ret, struct fl_err *e);
} kinds[] = {
    {"subsampled_gaussian", ask_epsilon}, {"full_batch_gaussian", ask_epsilon},
    {"composition", ask_epsilon},         {"mixed_events", ask_epsilon},
    {"wor_gaussian", ask_epsilon},        {"analytic_eps", ask_analytic},
    {"analytic_sigma", ask_analytic},     {"analytic_delta", ask_analytic},
    {"inverse_sigma", ask_inverse},       {"rdp_order", ask_rdp},
};

static int ask(const struct row *row, struct answer *ret, struct fl_err *e)
{
    for (size_t i = 0; i < FL_COUNT(kinds); i++) {
        if (strcmp(row->cells[COLUMN_KIND], kinds[i].kind) == 0) {
            return kinds[i].ask(row, ret, e);
        }
    }
    return fl_fail(e, FL_R_DATA_VALUE, "kind %.40s", row->cells[COLUMN_KIND]);
}

/* One answer line; a reason loses its quotes, so that it can stand in some. */
static void print_answer(const struct row *row, int r, const struct answer *a, struct fl_err *why,
                         void (*line)(void *arg, const char *text), void *arg)
{
    char text[700];

    if (r == 0) {
        snprintf(text, sizeof text, "%.100s,%.100s,%.15g,%.15g,%.15g,%s", row->cells[COLUMN_ID],
                 row->cells[COLUMN_KIND], a->value, a->lower, a->value, a->bound);
    } else {
        for (char *c = why->msg; *c; c++) {
            *c = *c == '"' ? '\'' : *c;
        }
        snprintf(text, sizeof text, "%.100s,%.100s,,,,\"%s\"", row->cells[COLUMN_ID],
                 row->cells[COLUMN_KIND], why->msg);
    }
    line(arg, text);
}

static int answer_all(const char *file, char *at, const char *end, struct row *row,
                      void (*line)(void *arg, const char *text), void *arg, uint64_t *ret_refused,
                      struct fl_err *e)
{
    static const char empty[] = "";
    char *cells[COLUMNS_MAX];
    uint32_t places[COLUMNS], n;

    n = next_record(&at, end, cells);
    for (int c = 0; c < COLUMNS; c++) {
        places[c] = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++) {
            places[c] = strcmp(cells[i], column_names[c]) == 0 ? i : places[c];
        }
    }
    if (places[COLUMN_ID] == UINT32_MAX || places[COLUMN_KIND] == UINT32_MAX) {
        return fl_fail(e, FL_R_DATA_FORMAT, "%s:1: no columns id and kind", file);
    }
    line(arg, "id,kind,value,lower,upper,bound");
    *ret_refused = 0;
    while (at < end) {
        struct answer a = {0};
        struct fl_err why = {0};
        n = next_record(&at, end, cells);
        if (n == 1 && !*cells[0]) {
            continue;
        }
        for (int c = 0; c < COLUMNS; c++) {
            row->cells[c] = places[c] < n ? cells[places[c]] : NULL;
        }
        row->cells[COLUMN_ID] = row->cells[COLUMN_ID] ? row->cells[COLUMN_ID] : empty;
        row->cells[COLUMN_KIND] = row->cells[COLUMN_KIND] ? row->cells[COLUMN_KIND] : empty;
        int r = ask(row, &a, &why);
        if (r == -FL_R_NOMEM) {
            return fl_fail(e, FL_R_NOMEM, "%s: %s: %s", file, row->cells[COLUMN_ID], why.msg);
        }
        *ret_refused += r < 0;
        print_answer(row, r, &a, &why, line, arg);
    }
    return 0;
}

int fl_privacy_table(const char *file, const char *text, size_t size,
                     void (*line)(void *arg, const char *text), void *arg, uint64_t *ret_refused,
                     struct fl_err *e)
{
    struct row row = {.events = fl_try(TERMS_MAX, sizeof *row.events)};
    char *copy = fl_try(size + 1, 1);
    uint64_t refused = 0;
    int r;

    if (!copy || !row.events) {
        r = fl_fail(e, FL_R_NOMEM, "%s", file);
    } else if (memchr(text, 0, size)) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s is not text", file);
    } else {
        memcpy(copy, text, size);
        r = answer_all(file, copy, copy + size, &row, line, arg, &refused, e);
    }
    if (r == 0) {
        *ret_refused = refused;
    }
    fl_free(copy);
    fl_free(row.events);
    return r;
}
