/*
 * Changing a job's text without disturbing what a person wrote: values go into the `set:` mapping,
 * which is the last key of the file and is rewritten as a whole, one dotted key a line. Everything
 * above it stays byte for byte. The new text is parsed before it is returned.
 */
#include "common/plan/plan.h"

#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/plan/descriptor.h"
#include "common/plan/releases.h"
#include "common/privacy/accountant.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text {
    char *at;
    size_t size;
    bool full;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->at + t->size, FL_PLAN_TEXT_MAX + 1 - t->size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n > FL_PLAN_TEXT_MAX - t->size) {
        t->full = true;
        return;
    }
    t->size += (size_t)n;
}

/* ---- writing YAML ---- */

/* Can this stand without quotes and mean the same? */
static bool is_bare(const struct fl_conf_node *n)
{
    size_t safe = strspn(n->text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_.+-");
    return n->plain && n->text[safe] == 0 && strcmp(n->text, "-") != 0 &&
           strncmp(n->text, "---", 3) != 0 && strncmp(n->text, "...", 3) != 0;
}

static void write_quoted(struct text *t, const char *s)
{
    say(t, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            say(t, "\\%c", c);
        } else if (c < ' ' || c == 127) {
            say(t, "\\x%02x", c);
        } else {
            say(t, "%c", c);
        }
    }
    say(t, "\"");
}

/* The tree is at most FL_CONF_DEPTH_MAX deep. */
static void write_value(struct text *t, const struct fl_conf_node *n)
{
    if (n->kind == FL_CONF_KIND_SCALAR) {
        if (is_bare(n)) {
            say(t, "%s", n->text);
        } else {
            write_quoted(t, n->text);
        }
        return;
    }
    bool map = n->kind == FL_CONF_KIND_MAP;
    say(t, map ? "{" : "[");
    for (const struct fl_conf_node *i = n->first; i && !t->full; i = i->next) {
        say(t, "%s", i == n->first ? "" : ", ");
        if (map) {
            write_quoted(t, i->key);
            say(t, ": ");
        }
        write_value(t, i);
    }
    say(t, map ? "}" : "]");
}

/* ---- the set: section ---- */

/* Where line number `line` (from 1) begins. */
static size_t line_start(const char *text, size_t size, unsigned line)
{
    size_t at = 0;

    while (line > 1 && at < size) {
        line -= text[at++] == '\n';
    }
    return at;
}

static int check_key(const char *key, struct fl_err *e)
{
    size_t length = strlen(key);

    if (length == 0 || length >= FL_CONF_KEY_MAX ||
        key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_.")] || strcmp(key, "set") == 0) {
        return fl_fail(e, FL_R_CONF_UNKNOWN, "%.64s is not a key of a job, such as round.deadline",
                       key);
    }
    return 0;
}

/* The text up to a `set:` section, which must be the last key and begin a line. */
static int find_set(const char *text, size_t size, struct fl_conf *c,
                    const struct fl_conf_node **ret, size_t *ret_end, struct fl_err *e)
{
    const struct fl_conf_node *set = fl_conf_find(fl_conf_root(c), "set");

    *ret = set;
    *ret_end = size;
    if (!set) {
        return 0;
    }
    if (set->next || set->key_column != 1 || !fl_conf_is_map(set)) {
        return fl_conf_fail_key(e, set, FL_R_CONF_SYNTAX,
                                "must be the last key of the file, and a map");
    }
    *ret_end = line_start(text, size, set->key_line);
    return 0;
}

static int write_text(struct text *t, const char *text, size_t size, const char *key,
                      const struct fl_conf_node *value, struct fl_err *e)
{
    struct fl_conf *c = NULL;
    const struct fl_conf_node *set;
    size_t end;

    int r = fl_conf_parse("job", text, size, &c, e);
    if (r) {
        return r;
    }
    r = find_set(text, size, c, &set, &end, e);
    if (r == 0 && end <= FL_PLAN_TEXT_MAX) {
        memcpy(t->at, text, end);
        t->size = end;
        say(t, "%sset:\n", end && text[end - 1] != '\n' ? "\n" : "");
        for (const struct fl_conf_node *n = set ? set->first : NULL; n && !t->full; n = n->next) {
            if (strcmp(n->key, key) != 0) {
                say(t, "  ");
                if (n->key[strspn(n->key, "abcdefghijklmnopqrstuvwxyz0123456789_.")]) {
                    write_quoted(t, n->key);
                } else {
                    say(t, "%s", n->key);
                }
                say(t, ": ");
                write_value(t, n);
                say(t, "\n");
            }
        }
        say(t, "  %s: ", key);
        write_value(t, value);
        say(t, "\n");
    }
    if (r == 0 && (t->full || end > FL_PLAN_TEXT_MAX)) {
        r = fl_fail(e, FL_R_LIMIT, "the job's text would be longer than %d bytes",
                    FL_PLAN_TEXT_MAX);
    }
    fl_conf_free(c);
    return r;
}

/* One line of YAML as a node of its own tree. */
static int parse_value(const char *key, const char *value, struct fl_conf **ret_conf,
                       const struct fl_conf_node **ret, struct fl_err *e)
{
    char line[1024];
    struct fl_conf *c = NULL;

    int n = snprintf(line, sizeof line, "v: %s\n", value);
    if (n < 0 || (size_t)n >= sizeof line || strpbrk(value, "\n\r")) {
        return fl_fail(e, FL_R_CONF_SYNTAX, "%s: the value must be one short line", key);
    }
    int r = fl_conf_parse(key, line, (size_t)n, &c, e);
    const struct fl_conf_node *only = r == 0 ? fl_conf_only(fl_conf_root(c)) : NULL;
    if (r == 0 && (!only || strcmp(only->key, "v") != 0 ||
                   (only->kind == FL_CONF_KIND_SCALAR && only->plain && !only->text[0]))) {
        r = fl_fail(e, FL_R_CONF_SYNTAX, "%s: no value", key);
    }
    if (r) {
        fl_conf_free(c);
        return r;
    }
    *ret_conf = c;
    *ret = only;
    return 0;
}

static int parses(const char *text, size_t size, struct fl_err *e)
{
    struct fl_plan *plan = fl_try(1, sizeof *plan);

    if (!plan) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    int r = fl_plan_parse(plan, "job", text, size, e);
    fl_free(plan);
    return r;
}

int fl_plan_override(const char *text, size_t size, const char *key, const char *value,
                     char **ret_text, size_t *ret_size, struct fl_err *e)
{
    struct text t = {0};
    struct fl_conf *c = NULL;
    const struct fl_conf_node *node;

    int r = check_key(key, e);
    if (r == 0) {
        r = parse_value(key, value, &c, &node, e);
    }
    if (r) {
        return r;
    }
    t.at = fl_try(FL_PLAN_TEXT_MAX + 1, 1);
    r = t.at ? write_text(&t, text, size, key, node, e) : fl_fail(e, FL_R_NOMEM, "out of memory");
    fl_conf_free(c);
    if (r == 0) {
        r = parses(t.at, t.size, e);
    }
    if (r) {
        fl_free(t.at);
        return r;
    }
    *ret_text = t.at;
    *ret_size = t.size;
    return 0;
}

bool fl_plan_key_is_free(const char *key)
{
    static const char *const sections[] = {"train.", "round.", "server."};

    if (strcmp(key, "server.optimizer") == 0 || strcmp(key, "train.solver") == 0) {
        return false; /* its state, or what travels, is no other's */
    }
    for (size_t i = 0; i < FL_COUNT(sections); i++) {
        if (strncmp(key, sections[i], strlen(sections[i])) == 0) {
            return true;
        }
    }
    return strcmp(key, "rounds") == 0;
}

/* What the epsilon of a job counts is rounds times steps; steps that were run under an earlier text
 * are not in it. So under the unit `example` steps stay what they were. */
static int check_counted(const char *text, size_t size, const char *key, struct fl_err *e)
{
    if (strcmp(key, "train.steps") != 0) {
        return 0;
    }
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    int r =
        plan ? fl_plan_parse(plan, "job", text, size, e) : fl_fail(e, FL_R_NOMEM, "out of memory");
    if (r == 0 && plan->privacy.unit == FL_UNIT_EXAMPLE) {
        r = fl_fail(e, FL_R_CONF_CONFLICT,
                    "%s is fixed once a job is submitted under the unit example: its epsilon "
                    "counts them",
                    key);
    }
    fl_free(plan);
    return r;
}

int fl_plan_set(const char *text, size_t size, const char *key, const char *value, char **ret_text,
                size_t *ret_size, struct fl_err *e)
{
    char *new_text;
    size_t new_size;

    /* First what is wrong with the key or value itself, which the other message would hide. */
    int r = fl_plan_override(text, size, key, value, &new_text, &new_size, e);
    if (r) {
        return r;
    }
    if (!fl_plan_key_is_free(key)) {
        fl_free(new_text);
        return fl_fail(e, FL_R_CONF_CONFLICT, "%s is fixed once a job is submitted", key);
    }
    if ((r = check_counted(new_text, new_size, key, e)) < 0) {
        fl_free(new_text);
        return r;
    }
    *ret_text = new_text;
    *ret_size = new_size;
    return 0;
}

/* ---- resolving ---- */

/* Six digits, never below x. */
static void round_up(double x, char *to, size_t size)
{
    double unit = pow(10, floor(log10(x)) - 5);
    double up = ceil(x / unit) * unit;

    snprintf(to, size, "%.6g", up);
    if (strtod(to, NULL) < x) {
        snprintf(to, size, "%.6g", up + unit);
    }
}

static int epsilon_at(const struct fl_plan *p, double sigma, double *ret, struct fl_err *e)
{
    struct fl_event event[FL_RELEASE_EVENTS_MAX];
    enum fl_bound bound;
    uint32_t count = 0;
    int r = fl_release_total(p, sigma, event, &count, e);

    return r ? r : fl_epsilon(event, count, p->privacy.delta, ret, &bound, e);
}

/* With other events beside it there is no closed form: it is looked for above *sigma, the one that
 * would do alone. */
static int sigma_beside(const struct fl_plan *p, double *sigma, struct fl_err *e)
{
    double low = *sigma, high = *sigma, epsilon = 0, target = p->privacy.epsilon;
    int r = epsilon_at(p, high, &epsilon, e);

    for (int i = 0; r == 0 && epsilon > target && i < 20; i++) {
        low = high;
        high *= 2;
        r = epsilon_at(p, high, &epsilon, e);
    }
    if (r == 0 && epsilon > target) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "counts and descriptors alone go beyond epsilon %g",
                       target);
    }
    while (r == 0 && high - low > 1e-5 * high) {
        double middle = (low + high) / 2;
        r = epsilon_at(p, middle, &epsilon, e);
        *(epsilon > target ? &low : &high) = middle;
    }
    *sigma = high;
    return r;
}

static int sigma_text(const struct fl_plan *p, char *to, size_t size, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &p->privacy;
    struct fl_event total[FL_RELEASE_EVENTS_MAX];
    uint32_t count = 0;
    double sigma = 0;
    int r = fl_release_total(p, 1, total, &count, e);

    if (r) {
        return r;
    }
    /* Alone: a tree is a Gaussian for each level that one round is in; where nothing travels, any
     * noise keeps the budget, and none is added. */
    uint64_t times = total[0].count ? total[0].count : 1;
    if (total[0].mechanism == FL_MECHANISM_TREE) {
        times *= (uint64_t)ceil(log2(total[0].a + 1));
    }
    r = fl_sigma_for(v->epsilon, v->delta, total[0].q, times, &sigma, e);
    if (r == 0 && count > 1) {
        r = sigma_beside(p, &sigma, e);
    }
    if (r) {
        return fl_wrap(e, r, "privacy.epsilon");
    }
    round_up(sigma, to, size);
    return 0;
}

/* One multiplier after the other is computed and written: the descriptors' share first, then what
 * is left of epsilon. */
static int resolve_next(const struct fl_plan *plan, const char *text, size_t size, char **ret_text,
                        size_t *ret_size, struct fl_err *e)
{
    bool descriptor = plan->descriptor.on && plan->descriptor.noise_multiplier == 0;
    char sigma[32];
    double x = 0;
    int r =
        descriptor ? fl_descriptor_sigma(plan, &x, e) : sigma_text(plan, sigma, sizeof sigma, e);

    if (r) {
        return r;
    }
    if (descriptor) {
        round_up(x, sigma, sizeof sigma);
    }
    return fl_plan_override(text, size,
                            descriptor ? "descriptor.noise_multiplier" : "privacy.noise_multiplier",
                            sigma, ret_text, ret_size, e);
}

int fl_plan_resolve(const char *text, size_t size, char **ret_text, size_t *ret_size,
                    struct fl_err *e)
{
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    char *now = fl_try(size + 1, 1), *next;
    int r = plan && now ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory");

    if (r == 0) {
        memcpy(now, text, size);
        r = fl_plan_parse(plan, "job", now, size, e);
    }
    while (r == 0 && !fl_plan_resolved(plan)) {
        r = resolve_next(plan, now, size, &next, &size, e);
        if (r == 0) {
            fl_free(now);
            now = next;
            r = fl_plan_parse(plan, "job", now, size, e);
        }
    }
    fl_free(plan);
    if (r) {
        fl_free(now);
        return r;
    }
    *ret_text = now;
    *ret_size = size;
    return 0;
}
