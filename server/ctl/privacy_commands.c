/*
 * The accountant at hand, before any job exists. Every figure is a valid upper bound with its name;
 * two are told where they differ: the smallest for a list that is fixed before its first release,
 * and the one that holds however the next release is chosen, which is what sites' ledgers keep.
 */
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/privacy/accountant.h"
#include "common/privacy/event.h"
#include "common/privacy/table.h"
#include "server/ctl/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { EVENTS_MAX = 1024, TABLE_MAX = 64 << 20 };

static const char *const neighbours[] = {
    [FL_RELATION_ADD_REMOVE] = "one unit added or removed",
    [FL_RELATION_REPLACE] = "one unit replaced by another",
    [FL_RELATION_ZERO] = "one unit's contribution set to zero",
};

struct question {
    double delta, epsilon; /* epsilon 0: asked for */
    enum fl_relation relation;
    uint32_t count;
    struct fl_event *events;
};

struct answer {
    double epsilon, lower, adaptive;
    enum fl_bound bound, adaptive_bound;
};

/* ---- what is asked ---- */

static int read_relation(struct fl_cli *c, enum fl_relation *ret)
{
    static const char *const words[] = {
        [FL_RELATION_ADD_REMOVE] = "add-remove",
        [FL_RELATION_REPLACE] = "replace",
        [FL_RELATION_ZERO] = "zero",
    };
    const char *text = fl_cli_option(c, "relation", 0);

    *ret = FL_RELATION_ADD_REMOVE;
    for (size_t i = 0; text && i < FL_COUNT(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret = (enum fl_relation)i;
            return 0;
        }
    }
    return text ? fl_fail(&c->err, FL_R_ARG, "--relation: add-remove, replace or zero, not '%.40s'",
                          text)
                : 0;
}

/* delta, and whether it is fit for so many units. */
static int read_delta(struct fl_cli *c, double *ret)
{
    uint64_t units = 0;
    int status = fl_cli_number(c, "delta", 0, 0.5, ret);

    if (status == 0) {
        status = fl_cli_count(c, "population", 1, (uint64_t)1 << 53, 0, &units);
    }
    return status || units == 0 ? status : fl_delta_check(*ret, (double)units, &c->err);
}

/* One Gaussian by --q, --steps and (if asked for) --sigma. */
static int read_gaussian(struct fl_cli *c, bool sigma, struct fl_event *ret)
{
    int status = 0;

    *ret = (struct fl_event){.q = 1, .sigma = 1};
    if (fl_cli_option(c, "q", 0)) {
        status = fl_cli_number(c, "q", 0, 1, &ret->q);
    }
    if (status == 0) {
        status = fl_cli_count(c, "steps", 1, (uint64_t)1 << 40, 1, &ret->count);
    }
    return status || !sigma ? status : fl_cli_number(c, "sigma", 0, 1e6, &ret->sigma);
}

static int add_events(struct fl_cli *c, struct question *q)
{
    const char *text;
    int status = 0;

    for (uint32_t i = 0; status == 0 && (text = fl_cli_option(c, "event", i)) != NULL; i++) {
        uint32_t more = 0;
        status = fl_events_parse(text, q->relation, q->events + q->count, EVENTS_MAX - q->count,
                                 &more, &c->err);
        if (status < 0) {
            return fl_wrap(&c->err, -FL_R_ARG, "--event '%.60s'", text);
        }
        q->count += more;
    }
    return q->count ? 0 : fl_fail(&c->err, FL_R_ARG, "--event is needed");
}

/* ---- what is answered ---- */

static int solve(struct fl_cli *c, const struct question *q, struct answer *ret)
{
    int status =
        fl_epsilon(q->events, q->count, q->delta, &ret->adaptive, &ret->adaptive_bound, &c->err);

    if (status == 0) {
        status = fl_epsilon_frozen(q->events, q->count, q->delta, &ret->epsilon, &ret->lower,
                                   &ret->bound, &c->err);
    }
    if (status == 0 && !isfinite(ret->epsilon)) {
        status = fl_fail(&c->err, FL_R_ACCOUNTING, "no finite epsilon holds for this");
    }
    return status;
}

/* NULL where it is infinite: JSON has no such number. */
static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *events_json(const struct question *q)
{
    json_t *list = json_array();
    char text[160];

    for (uint32_t i = 0; i < q->count; i++) {
        json_array_append_new(list, json_string(fl_event_text(&q->events[i], text, sizeof text)));
    }
    return list;
}

/* `extra`: further fields of the document, taken over. */
static int print(struct fl_cli *c, const struct question *q, const struct answer *a, json_t *extra)
{
    char text[160];
    bool sampled = false;

    for (uint32_t i = 0; i < q->count; i++) {
        sampled = sampled || q->events[i].q < 1;
    }
    if (c->json) {
        json_t *o = json_pack("{sf ss sf sf so ss so ss}", "epsilon", a->epsilon, "bound",
                              fl_bound_name(a->bound), "epsilon_lower", a->lower, "delta", q->delta,
                              "epsilon_adaptive", real(a->adaptive), "bound_adaptive",
                              fl_bound_name(a->adaptive_bound), "events", events_json(q),
                              "neighbours", neighbours[q->relation]);
        json_object_update(o, extra);
        fl_cli_print_json(o);
        json_decref(o);
        json_decref(extra);
        return 0;
    }
    json_decref(extra);
    for (uint32_t i = 0; i < q->count; i++) {
        fl_cli_row(i ? "" : "events", "%s", fl_event_text(&q->events[i], text, sizeof text));
    }
    fl_cli_row("epsilon",
               "%.6g for a list fixed before its first release (bound %s; not below %.6g)",
               a->epsilon, fl_bound_name(a->bound), a->lower);
    if (isfinite(a->adaptive)) {
        fl_cli_row("", "%.6g however each next release is chosen (bound %s)", a->adaptive,
                   fl_bound_name(a->adaptive_bound));
    } else {
        fl_cli_row("", "no finite one where each next release is chosen as one goes");
    }
    fl_cli_row("delta", "%.3g", q->delta);
    fl_cli_row("neighbours", "%s", neighbours[q->relation]);
    if (sampled) {
        printf("\nA rate below 1 counts only when every batch is Poisson-sampled.\n");
    }
    return 0;
}

/* epsilon of one Gaussian: what was asked, or what a found sigma or count really costs. */
static int answer_gaussian(struct fl_cli *c, const struct fl_event *event, double delta,
                           json_t *extra)
{
    struct fl_event v = *event;
    struct question q = {.delta = delta, .count = 1, .events = &v};
    struct answer a = {0};
    int status = solve(c, &q, &a);

    if (status) {
        json_decref(extra);
        return status;
    }
    json_object_set_new(extra, "sigma", json_real(v.sigma));
    json_object_set_new(extra, "q", json_real(v.q));
    json_object_set_new(extra, "steps", json_integer((json_int_t)v.count));
    return print(c, &q, &a, extra);
}

int fl_cli_privacy_epsilon(struct fl_cli *c)
{
    struct fl_event event;
    double delta = NAN;
    int status = read_delta(c, &delta);

    if (status == 0) {
        status = read_gaussian(c, true, &event);
    }
    return status ? status : answer_gaussian(c, &event, delta, json_object());
}

int fl_cli_privacy_sigma(struct fl_cli *c)
{
    struct fl_event event;
    double delta = NAN, epsilon = NAN, adaptive = NAN;
    enum fl_bound bound;
    int status = read_delta(c, &delta);

    status = status ? status : read_gaussian(c, false, &event);
    status = status ? status : fl_cli_number(c, "epsilon", 0, 1e4, &epsilon);
    if (status == 0) {
        status = fl_sigma_for(epsilon, delta, event.q, event.count, &adaptive, &c->err);
    }
    if (status == 0) {
        status = fl_sigma_for_frozen(epsilon, delta, event.q, event.count, &event.sigma, &bound,
                                     &c->err);
    }
    if (status) {
        return status;
    }
    if (!c->json) {
        fl_cli_row("sigma", "%.6g for a list fixed before its first release", event.sigma);
        fl_cli_row("", "%.6g however each next release is chosen (what a job is given)", adaptive);
    }
    return answer_gaussian(c, &event, delta, json_pack("{sf}", "sigma_adaptive", adaptive));
}

int fl_cli_privacy_rounds(struct fl_cli *c)
{
    struct fl_event event;
    double delta = NAN, epsilon = NAN;
    uint64_t adaptive = 0, fixed = 0;
    enum fl_bound bound;
    int status = read_delta(c, &delta);

    status = status ? status : read_gaussian(c, true, &event);
    status = status ? status : fl_cli_number(c, "epsilon", 0, 1e4, &epsilon);
    status = status ? status : fl_rounds_for(epsilon, delta, &event, &adaptive, &c->err);
    status =
        status ? status : fl_rounds_for_frozen(epsilon, delta, &event, &fixed, &bound, &c->err);
    if (status) {
        return status;
    }
    if (fixed == 0) {
        return fl_fail(&c->err, FL_R_ACCOUNTING,
                       "not even one release with noise multiplier %g keeps epsilon %g",
                       event.sigma, epsilon);
    }
    if (!c->json) {
        fl_cli_row("rounds", "%" PRIu64 " of a list fixed before its first release", fixed);
        fl_cli_row("", "%" PRIu64 " however each next release is chosen", adaptive);
    }
    event.count = fixed;
    return answer_gaussian(
        c, &event, delta,
        json_pack("{sI sI}", "rounds", (json_int_t)fixed, "rounds_adaptive", (json_int_t)adaptive));
}

int fl_cli_privacy_compose(struct fl_cli *c)
{
    struct question q = {.events = fl_try(EVENTS_MAX, sizeof *q.events)};
    struct answer a = {0};
    int status = q.events ? read_delta(c, &q.delta) : fl_fail(&c->err, FL_R_NOMEM, "events");

    status = status ? status : read_relation(c, &q.relation);
    status = status ? status : add_events(c, &q);
    status = status ? status : solve(c, &q, &a);
    status = status ? status : print(c, &q, &a, json_object());
    fl_free(q.events);
    return status;
}

/* ---- many at once ---- */

struct lines {
    json_t *list; /* NULL: printed as they come */
    bool first;
};

static void print_line(void *arg, const char *text)
{
    struct lines *to = arg;

    puts(text);
    to->first = false;
}

/* id,kind,value,lower,upper,bound as a document; ids and kinds of the tables have no commas, and a
 * line that does not split that way is kept as text. */
static void keep_line(void *arg, const char *text)
{
    struct lines *to = arg;
    char id[101], kind[101], bound[300];
    double value, lower, upper;

    if (to->first) { /* the header */
        to->first = false;
        return;
    }
    if (sscanf(text, "%100[^,],%100[^,],%lf,%lf,%lf,%299[^\n]", id, kind, &value, &lower, &upper,
               bound) == 6) {
        json_array_append_new(to->list, json_pack("{ss ss so so so ss}", "id", id, "kind", kind,
                                                  "value", real(value), "lower", real(lower),
                                                  "upper", real(upper), "bound", bound));
        return;
    }
    const char *why = strstr(text, ",,,,\"");
    int length = (int)strcspn(text, ",");
    json_array_append_new(to->list, json_pack("{ss# sn ss#}", "id", text, length, "value",
                                              "refused", why ? why + 5 : text,
                                              (int)strcspn(why ? why + 5 : text, "\"")));
}

int fl_cli_privacy_table(struct fl_cli *c)
{
    struct lines to = {.list = c->json ? json_array() : NULL, .first = true};
    uint8_t *text = NULL;
    size_t size = 0;
    uint64_t refused = 0;
    int status = fl_file_read(c->words[0], TABLE_MAX, &text, &size, &c->err);

    if (status == 0) {
        status = fl_privacy_table(c->words[0], (const char *)text, size,
                                  c->json ? keep_line : print_line, &to, &refused, &c->err);
    }
    if (status == 0 && c->json) {
        fl_cli_print_json(to.list);
    }
    if (status == 0 && refused) {
        fprintf(stderr,
                "cohortctl: %" PRIu64 " questions have no answer; why stands in their lines\n",
                refused);
    }
    json_decref(to.list);
    fl_free(text);
    return status;
}
