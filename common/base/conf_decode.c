/*
 * Tables to structs. Every type has one reader, defaults go through the same readers as what stands
 * in the file, and numbers are read strictly: no octal, no hexadecimal, no infinity, nothing after
 * the last digit, and a quoted number is a text.
 */
#include "common/base/conf.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal digits only; false on overflow. *ret_end is where they end. */
static bool read_digits(const char *s, uint64_t *ret, const char **ret_end)
{
    uint64_t x = 0;

    if (!is_digit(*s)) {
        return false;
    }
    for (; is_digit(*s); s++) {
        if (__builtin_mul_overflow(x, 10u, &x) ||
            __builtin_add_overflow(x, (uint64_t)(*s - '0'), &x)) {
            return false;
        }
    }
    *ret = x;
    *ret_end = s;
    return true;
}

static bool read_integer(const char *s, bool *ret_negative, uint64_t *ret)
{
    const char *end;

    *ret_negative = *s == '-';
    s += *s == '-' || *s == '+';
    if (s[0] == '0' && is_digit(s[1])) {
        return false;
    }
    return read_digits(s, ret, &end) && *end == 0;
}

static bool read_real(const char *s, double *ret)
{
    char *end;

    if (s[0] == 0 || strspn(s, "+-.0123456789eE") != strlen(s)) {
        return false;
    }
    double x = strtod(s, &end);
    if (*end || end == s || !isfinite(x)) {
        return false;
    }
    *ret = x;
    return true;
}

struct unit {
    const char *name;
    uint64_t times;
};

static bool read_unit(const char *text, const struct unit *units, uint64_t *ret)
{
    const char *end;
    uint64_t x;

    if (!read_digits(text, &x, &end)) {
        return false;
    }
    end += *end == ' ';
    for (const struct unit *u = units; u->name; u++) {
        if (strcmp(end, u->name) == 0) {
            return !__builtin_mul_overflow(x, u->times, ret);
        }
    }
    return x == 0 && *end == 0 ? (*ret = 0, true) : false;
}

bool fl_conf_duration(const char *text, uint64_t *ret_ms)
{
    static const struct unit units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                        {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
    return read_unit(text, units, ret_ms);
}

bool fl_conf_size(const char *text, uint64_t *ret_bytes)
{
    static const struct unit units[] = {{"", 1},
                                        {"B", 1},
                                        {"KiB", 1ull << 10},
                                        {"MiB", 1ull << 20},
                                        {"GiB", 1ull << 30},
                                        {"TiB", 1ull << 40},
                                        {"kB", 1000},
                                        {"MB", 1000000},
                                        {"GB", 1000000000},
                                        {"TB", 1000000000000},
                                        {NULL, 0}};
    return read_unit(text, units, ret_bytes);
}

/* ---- one value ---- */

/* How messages write a bound: durations and sizes in the unit a person would take. */
static void bound_text(const struct fl_conf_field *f, double x, char *to, size_t size)
{
    static const struct unit times[] = {
        {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    static const struct unit bytes[] = {{"TiB", 1ull << 40},
                                        {"GiB", 1ull << 30},
                                        {"MiB", 1ull << 20},
                                        {"KiB", 1ull << 10},
                                        {"B", 1}};
    const struct unit *u = f->type == FL_CONF_DURATION ? times : bytes;

    if (f->type != FL_CONF_DURATION && f->type != FL_CONF_SIZE) {
        snprintf(to, size, "%.10g", x);
        return;
    }
    while (u->times > 1 && (x < (double)u->times || fmod(x, (double)u->times) != 0)) {
        u++;
    }
    snprintf(to, size, "%.10g%s", x / (double)u->times, u->name);
}

static int fail_range(const struct fl_conf_node *n, const struct fl_conf_field *f, struct fl_err *e)
{
    char low[32], high[32];

    bound_text(f, f->min, low, sizeof low);
    bound_text(f, f->max, high, sizeof high);
    return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%.40s is not %s %s and %s %s", n->text,
                        f->flags & FL_CONF_ABOVE_MIN ? "above" : "at least", low,
                        f->flags & FL_CONF_BELOW_MAX ? "below" : "at most", high);
}

static bool in_range(const struct fl_conf_field *f, double x)
{
    if (f->min == 0 && f->max == 0) {
        return true;
    }
    bool low = f->flags & FL_CONF_ABOVE_MIN ? x > f->min : x >= f->min;
    bool high = f->flags & FL_CONF_BELOW_MAX ? x < f->max : x <= f->max;
    return low && high;
}

static int fail_type(const struct fl_conf_node *n, const char *wanted, struct fl_err *e)
{
    switch (n->kind) {
    case FL_CONF_KIND_MAP:
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a map where %s is wanted", wanted);
    case FL_CONF_KIND_LIST:
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a list where %s is wanted", wanted);
    default:
        break;
    }
    if (n->plain && n->text[0] == 0) {
        return fl_conf_fail(e, n, FL_R_CONF_TYPE, "nothing where %s is wanted", wanted);
    }
    return fl_conf_fail(e, n, FL_R_CONF_TYPE, "%s%.40s%s is not %s", n->plain ? "" : "\"", n->text,
                        n->plain ? "" : "\"", wanted);
}

static bool is_plain(const struct fl_conf_node *n)
{
    return n->kind == FL_CONF_KIND_SCALAR && n->plain;
}

static int get_string(const struct fl_conf_node *n, const struct fl_conf_field *f, char *to,
                      struct fl_err *e)
{
    if (n->kind != FL_CONF_KIND_SCALAR || (n->plain && n->text[0] == 0)) {
        return fail_type(n, "a text", e);
    }
    size_t length = strlen(n->text);
    if (length >= f->size) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "longer than %zu bytes", f->size - 1);
    }
    if ((double)length < f->min) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "shorter than %.0f bytes", f->min);
    }
    memset(to, 0, f->size);
    memcpy(to, n->text, length);
    return 0;
}

static int get_integer(const struct fl_conf_node *n, const struct fl_conf_field *f, void *to,
                       struct fl_err *e)
{
    bool negative;
    uint64_t x;

    if (!is_plain(n) || !read_integer(n->text, &negative, &x)) {
        return fail_type(n, "a whole number", e);
    }
    negative = negative && x > 0;
    if (f->type == FL_CONF_INT32) {
        if (x > (uint64_t)INT32_MAX + negative) {
            return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%.40s does not fit", n->text);
        }
        int64_t value = negative ? -(int64_t)x : (int64_t)x;
        if (!in_range(f, (double)value)) {
            return fail_range(n, f, e);
        }
        *(int32_t *)to = (int32_t)value;
        return 0;
    }
    uint64_t most = f->type == FL_CONF_UINT64 ? UINT64_MAX : UINT32_MAX;
    if (!in_range(f, negative ? -(double)x : (double)x)) {
        return fail_range(n, f, e);
    }
    if (negative || x > most) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%.40s is %s", n->text,
                            negative ? "negative" : "too large");
    }
    if (f->type == FL_CONF_UINT64) {
        *(uint64_t *)to = x;
    } else {
        *(uint32_t *)to = (uint32_t)x;
    }
    return 0;
}

static int get_real(const struct fl_conf_node *n, const struct fl_conf_field *f, void *to,
                    struct fl_err *e)
{
    double x;
    bool single = f->type != FL_CONF_DOUBLE;

    if (!is_plain(n) || !read_real(n->text, &x)) {
        return fail_type(n, "a finite number", e);
    }
    /* The bound also holds for what is kept: 1e-60 above 0 is not above 0 as a float. */
    if (single) {
        x = fabs(x) > 3.4e38 ? (double)copysign(INFINITY, x) : (double)(float)x;
    }
    if (!in_range(f, x)) {
        return fail_range(n, f, e);
    }
    if (!isfinite(x)) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%.40s does not fit", n->text);
    }
    if (single) {
        *(float *)to = (float)x;
    } else {
        *(double *)to = x;
    }
    return 0;
}

static int get_unit(const struct fl_conf_node *n, const struct fl_conf_field *f, uint64_t *to,
                    struct fl_err *e)
{
    bool time = f->type == FL_CONF_DURATION;
    uint64_t x;

    if (!is_plain(n) || !(time ? fl_conf_duration(n->text, &x) : fl_conf_size(n->text, &x))) {
        return fail_type(n,
                         time ? "a duration such as 200ms, 30s, 5m or 2h"
                              : "a size such as 512KiB, 64MiB or 2GiB",
                         e);
    }
    if (!in_range(f, (double)x)) {
        return fail_range(n, f, e);
    }
    *to = x;
    return 0;
}

static int get_word(const struct fl_conf_node *n, const struct fl_conf_field *f, unsigned *to,
                    struct fl_err *e)
{
    char all[160] = "";
    size_t at = 0;

    for (unsigned i = 0; f->words[i]; i++) {
        if (n->kind == FL_CONF_KIND_SCALAR && strcmp(n->text, f->words[i]) == 0) {
            *to = i;
            return 0;
        }
        int more = snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", f->words[i]);
        at += more > 0 ? (size_t)more : 0;
        at = at < sizeof all ? at : sizeof all - 1;
    }
    char wanted[192];
    snprintf(wanted, sizeof wanted, "one of %s", all);
    return fail_type(n, wanted, e);
}

static int get_bool(const struct fl_conf_node *n, bool *to, struct fl_err *e)
{
    bool yes = is_plain(n) && strcmp(n->text, "true") == 0;

    if (!yes && !(is_plain(n) && strcmp(n->text, "false") == 0)) {
        return fail_type(n, "true or false", e);
    }
    *to = yes;
    return 0;
}

static int get_list(const struct fl_conf_node *n, const struct fl_conf_field *f, char *base,
                    struct fl_err *e)
{
    struct fl_conf_field item = *f;
    size_t step = f->type == FL_CONF_STRINGS ? f->size : 4;
    char *to = base + f->offset;
    uint32_t count = 0;
    int r = 0;

    if (n->kind != FL_CONF_KIND_LIST) {
        return fail_type(n, "a list", e);
    }
    if (n->count < f->items_min || n->count > f->items_max) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE, "%u items; %u to %u are allowed", n->count,
                            f->items_min, f->items_max);
    }
    item.type = f->type == FL_CONF_UINT32S ? FL_CONF_UINT32 : FL_CONF_FLOAT;
    for (const struct fl_conf_node *i = n->first; i && r == 0; i = i->next, to += step, count++) {
        if (f->type == FL_CONF_STRINGS) {
            r = get_string(i, &item, to, e);
        } else if (f->type == FL_CONF_UINT32S) {
            r = get_integer(i, &item, to, e);
        } else {
            r = get_real(i, &item, to, e);
        }
    }
    memcpy(base + f->count_offset, &count, sizeof count);
    return r;
}

/* ---- tables ---- */

static int decode(const struct fl_conf_node *map, bool given, const struct fl_conf_field *fields,
                  char *base, struct fl_err *e);

static int get_value(const struct fl_conf_node *n, const struct fl_conf_field *f, char *base,
                     struct fl_err *e)
{
    char *to = base + f->offset;

    switch (f->type) {
    case FL_CONF_STRING:
        return get_string(n, f, to, e);
    case FL_CONF_BOOL:
        return get_bool(n, (bool *)to, e);
    case FL_CONF_INT32:
    case FL_CONF_UINT32:
    case FL_CONF_UINT64:
        return get_integer(n, f, to, e);
    case FL_CONF_FLOAT:
    case FL_CONF_DOUBLE:
        return get_real(n, f, to, e);
    case FL_CONF_ENUM:
        return get_word(n, f, (unsigned *)to, e);
    case FL_CONF_SIZE:
    case FL_CONF_DURATION:
        return get_unit(n, f, (uint64_t *)to, e);
    case FL_CONF_STRINGS:
    case FL_CONF_UINT32S:
    case FL_CONF_FLOATS:
        return get_list(n, f, base, e);
    case FL_CONF_MAP:
        return fl_conf_is_map(n) ? decode(n, true, f->fields, to, e) : fail_type(n, "a map", e);
    case FL_CONF_NODE:
        *(const struct fl_conf_node **)to = n;
        return 0;
    }
    return fl_fail(e, FL_R_INTERNAL, "a table with an unknown type");
}

static int take_default(const struct fl_conf_node *map, const struct fl_conf_field *f, char *base,
                        struct fl_err *e)
{
    if (f->type == FL_CONF_MAP) {
        return decode(map, false, f->fields, base + f->offset, e);
    }
    if (f->type == FL_CONF_NODE) {
        *(const struct fl_conf_node **)(base + f->offset) = NULL;
        return 0;
    }
    if (!f->fallback) {
        return 0;
    }
    struct fl_conf_node n = {.kind = FL_CONF_KIND_SCALAR,
                             .plain = f->type != FL_CONF_STRING,
                             .key = f->name,
                             .text = f->fallback,
                             .line = map->line,
                             .column = map->column,
                             .conf = map->conf};
    return get_value(&n, f, base, e);
}

/* Edit distance where swapping neighbours counts once; keys are short, longer ones are compared by
 * their beginning. */
static unsigned distance(const char *a, const char *b)
{
    enum { MOST = 32 };
    unsigned d[MOST + 1][MOST + 1];
    size_t n = strnlen(a, MOST), m = strnlen(b, MOST);

    for (size_t i = 0; i <= n; i++) {
        d[i][0] = (unsigned)i;
    }
    for (size_t j = 0; j <= m; j++) {
        d[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best) {
                best = d[i - 2][j - 2] + 1;
            }
            d[i][j] = best;
        }
    }
    return d[n][m];
}

static int fail_unknown(const struct fl_conf_node *n, const struct fl_conf_field *fields,
                        struct fl_err *e)
{
    const struct fl_conf_field *near = NULL;
    unsigned least = 1 + (unsigned)strlen(n->key) / 2;
    char all[160] = "";
    size_t at = 0;

    for (const struct fl_conf_field *f = fields; f->name; f++) {
        unsigned d = distance(n->key, f->name);
        if (d < least) {
            least = d;
            near = f;
        }
        int more = snprintf(all + at, sizeof all - at, "%s%s", at ? ", " : "", f->name);
        at += more > 0 ? (size_t)more : 0;
        at = at < sizeof all ? at : sizeof all - 1;
    }
    if (near) {
        return fl_conf_fail_key(e, n, FL_R_CONF_UNKNOWN, "unknown key; did you mean %s?",
                                near->name);
    }
    return fl_conf_fail_key(e, n, FL_R_CONF_UNKNOWN, "unknown key; known here: %s", all);
}

static const struct fl_conf_node *child(const struct fl_conf_node *map, const char *key)
{
    for (const struct fl_conf_node *n = map->first; n; n = n->next) {
        if (strcmp(n->key, key) == 0) {
            return n;
        }
    }
    return NULL;
}

static int decode(const struct fl_conf_node *map, bool given, const struct fl_conf_field *fields,
                  char *base, struct fl_err *e)
{
    for (const struct fl_conf_node *n = given ? map->first : NULL; n; n = n->next) {
        const struct fl_conf_field *f = fields;
        while (f->name && strcmp(f->name, n->key) != 0) {
            f++;
        }
        if (!f->name) {
            return fail_unknown(n, fields, e);
        }
    }
    for (const struct fl_conf_field *f = fields; f->name; f++) {
        const struct fl_conf_node *n = given ? child(map, f->name) : NULL;
        int r = 0;
        if (n) {
            r = get_value(n, f, base, e);
        } else if (given && (f->flags & FL_CONF_REQUIRED)) {
            r = fl_conf_fail_key(e, map, FL_R_CONF_MISSING, "%s is missing", f->name);
        } else {
            r = take_default(map, f, base, e);
        }
        if (r) {
            return r;
        }
    }
    return 0;
}

int fl_conf_decode(const struct fl_conf_node *map, const struct fl_conf_field *fields, void *ret,
                   struct fl_err *e)
{
    if (!fl_conf_is_map(map)) {
        return fail_type(map, "a map", e);
    }
    return decode(map, true, fields, ret, e);
}
