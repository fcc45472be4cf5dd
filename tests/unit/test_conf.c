#include "common/base/conf.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum mode { MODE_SLOW, MODE_FAST };

struct inner {
    double rate;
    uint64_t rest_ms;
};

struct conf {
    char name[8];
    bool on;
    int32_t shift;
    uint32_t tries;
    uint64_t seed, memory;
    float slope;
    enum mode mode;
    struct inner inner, needy;
    char hosts[2][16];
    uint32_t host_count, number_count, mean_count;
    uint32_t numbers[3];
    float mean[3];
    const struct fl_conf_node *layers;
};

#define AT(m) .offset = offsetof(struct conf, m)
static const char *const modes[] = {"slow", "fast", NULL};
static const struct fl_conf_field inner_fields[] = {{.name = "rate",
                                                     .type = FL_CONF_DOUBLE,
                                                     .offset = offsetof(struct inner, rate),
                                                     .max = 1,
                                                     .flags = FL_CONF_ABOVE_MIN,
                                                     .fallback = "0.5"},
                                                    {.name = "rest",
                                                     .type = FL_CONF_DURATION,
                                                     .offset = offsetof(struct inner, rest_ms),
                                                     .min = 100,
                                                     .max = 3600e3,
                                                     .fallback = "30s"},
                                                    {.name = NULL}};
static const struct fl_conf_field needy_fields[] = {{.name = "rate",
                                                     .type = FL_CONF_DOUBLE,
                                                     .offset = offsetof(struct inner, rate),
                                                     .flags = FL_CONF_REQUIRED},
                                                    {.name = NULL}};
static const struct fl_conf_field fields[] = {
    {.name = "name", .type = FL_CONF_STRING, AT(name), .size = 8, .flags = FL_CONF_REQUIRED},
    {.name = "on", .type = FL_CONF_BOOL, AT(on), .fallback = "true"},
    {.name = "shift", .type = FL_CONF_INT32, AT(shift), .min = -30, .max = 30, .fallback = "-14"},
    {.name = "tries", .type = FL_CONF_UINT32, AT(tries), .min = 1, .max = 100, .fallback = "5"},
    {.name = "seed", .type = FL_CONF_UINT64, AT(seed)},
    {.name = "memory", .type = FL_CONF_SIZE, AT(memory), .min = 1, .max = 1e12, .fallback = "1MiB"},
    {.name = "slope", .type = FL_CONF_FLOAT, AT(slope), .flags = FL_CONF_ABOVE_MIN, .max = 9},
    {.name = "mode", .type = FL_CONF_ENUM, AT(mode), .words = modes, .fallback = "fast"},
    {.name = "inner", .type = FL_CONF_MAP, AT(inner), .fields = inner_fields},
    {.name = "needy", .type = FL_CONF_MAP, AT(needy), .fields = needy_fields},
    {.name = "hosts",
     .type = FL_CONF_STRINGS,
     AT(hosts),
     .size = 16,
     .items_max = 2,
     .count_offset = offsetof(struct conf, host_count)},
    {.name = "numbers",
     .type = FL_CONF_UINT32S,
     AT(numbers),
     .items_min = 1,
     .items_max = 3,
     .max = 20,
     .count_offset = offsetof(struct conf, number_count)},
    {.name = "mean",
     .type = FL_CONF_FLOATS,
     AT(mean),
     .items_max = 3,
     .count_offset = offsetof(struct conf, mean_count)},
    {.name = "layers", .type = FL_CONF_NODE, AT(layers)},
    {.name = NULL}};

static struct fl_err err;

/* Parses and decodes; the tree is released unless keep is given. */
static int read_conf(const char *text, struct conf *ret, struct fl_conf **keep)
{
    struct fl_conf *c = NULL;

    memset(ret, 0, sizeof *ret);
    memset(&err, 0, sizeof err);
    int r = fl_conf_parse("t.yaml", text, strlen(text), &c, &err);
    if (r == 0) {
        r = fl_conf_overlay(c, "set", &err);
    }
    if (r == 0) {
        r = fl_conf_decode(fl_conf_root(c), fields, ret, &err);
    }
    if (keep && r == 0) {
        *keep = c;
    } else {
        fl_conf_free(c);
    }
    ck_assert_int_eq(err.code, r);
    return r;
}

static void expect(const char *text, int reason, const char *message)
{
    struct conf got;

    ck_assert_int_eq(read_conf(text, &got, NULL), -reason);
    ck_assert_str_eq(err.msg, message);
}

START_TEST(test_values_and_defaults)
{
    struct conf got;
    struct fl_conf *c = NULL;

    ck_assert_int_eq(read_conf("name: a-1\n"
                               "seed: 18446744073709551615\n"
                               "shift: -30\n"
                               "memory: 64MiB\n"
                               "slope: 1e-2\n"
                               "mode: slow\n"
                               "on: false\n"
                               "inner: {rest: 200ms}\n"
                               "hosts: [one, \"two\"]\n"
                               "numbers: [1, 20]\n"
                               "mean: [0.25]\n"
                               "layers:\n"
                               "  - {conv: {out: 3}}\n"
                               "  - flatten:\n",
                               &got, &c),
                     0);
    ck_assert_str_eq(got.name, "a-1");
    ck_assert_uint_eq(got.seed, UINT64_MAX);
    ck_assert_int_eq(got.shift, -30);
    ck_assert_uint_eq(got.memory, 64u << 20);
    ck_assert(got.slope == 0.01f && got.mode == MODE_SLOW && !got.on);
    ck_assert_uint_eq(got.tries, 5);
    ck_assert(got.inner.rate == 0.5 && got.inner.rest_ms == 200);
    ck_assert_uint_eq(got.host_count, 2);
    ck_assert_str_eq(got.hosts[1], "two");
    ck_assert(got.number_count == 2 && got.numbers[1] == 20);
    ck_assert(got.mean_count == 1 && got.mean[0] == 0.25f);
    const struct fl_conf_node *last = fl_conf_only(got.layers->last);
    ck_assert_str_eq(last->key, "flatten");
    ck_assert(fl_conf_is_map(last) && last->key_line == 14 && last->key_column == 5);
    ck_assert_ptr_nonnull(fl_conf_find(fl_conf_root(c), "inner.rest"));
    ck_assert_ptr_null(fl_conf_find(fl_conf_root(c), "inner.rest.x"));
    fl_conf_free(c);

    ck_assert_int_eq(read_conf("name: x\ninner:\n", &got, NULL), 0);
    ck_assert(got.on && got.mode == MODE_FAST && got.memory == 1 << 20 && got.shift == -14);
    ck_assert(got.inner.rest_ms == 30000 && got.needy.rate == 0 && !got.layers);
}
END_TEST

START_TEST(test_unknown_keys_name_line_and_neighbour)
{
    expect("name: x\ninner:\n  rset: 1s\n", FL_R_CONF_UNKNOWN,
           "t.yaml:3:3: inner.rset: unknown key; did you mean rest?");
    expect("name: x\n\n# c\nzzzzzzzz: 1\n", FL_R_CONF_UNKNOWN,
           "t.yaml:4:1: zzzzzzzz: unknown key; known here: name, on, shift, tries, seed, memory, "
           "slope, mode, inner, needy, hosts, numbers, mean, layers");
    expect("set: {inner.rats: 1}\nname: x\n", FL_R_CONF_UNKNOWN,
           "t.yaml:1:7: inner.rats: unknown key; did you mean rate?");
}
END_TEST

START_TEST(test_wrong_types)
{
    expect("name: x\non: yes\n", FL_R_CONF_TYPE, "t.yaml:2:5: on: yes is not true or false");
    expect("name: x\ntries: \"3\"\n", FL_R_CONF_TYPE,
           "t.yaml:2:8: tries: \"3\" is not a whole number");
    expect("name: x\ntries: 010\n", FL_R_CONF_TYPE, "t.yaml:2:8: tries: 010 is not a whole number");
    expect("name: x\ntries: 1.5\n", FL_R_CONF_TYPE, "t.yaml:2:8: tries: 1.5 is not a whole number");
    expect("name: x\nslope: .inf\n", FL_R_CONF_TYPE,
           "t.yaml:2:8: slope: .inf is not a finite number");
    expect("name: x\nslope: 0x1p3\n", FL_R_CONF_TYPE,
           "t.yaml:2:8: slope: 0x1p3 is not a finite number");
    expect("name: x\ninner:\n  rest: 30\n", FL_R_CONF_TYPE,
           "t.yaml:3:9: inner.rest: 30 is not a duration such as 200ms, 30s, 5m or 2h");
    expect("name: x\nmemory: 5 parsecs\n", FL_R_CONF_TYPE,
           "t.yaml:2:9: memory: 5 parsecs is not a size such as 512KiB, 64MiB or 2GiB");
    expect("name: x\nmode: [slow]\n", FL_R_CONF_TYPE,
           "t.yaml:2:7: mode: a list where one of slow, fast is wanted");
    expect("name:\n  - x\n", FL_R_CONF_TYPE, "t.yaml:2:3: name: a list where a text is wanted");
    expect("name:\n", FL_R_CONF_TYPE, "t.yaml:1:6: name: nothing where a text is wanted");
    expect("name: x\ninner: 3\n", FL_R_CONF_TYPE, "t.yaml:2:8: inner: 3 is not a map");
    expect("name: x\nmean: [1, {}]\n", FL_R_CONF_TYPE,
           "t.yaml:2:11: mean[1]: a map where a finite number is wanted");
}
END_TEST

START_TEST(test_ranges)
{
    expect("name: x\ntries: 0\n", FL_R_CONF_RANGE,
           "t.yaml:2:8: tries: 0 is not at least 1 and at most 100");
    expect("name: x\ntries: -1\n", FL_R_CONF_RANGE,
           "t.yaml:2:8: tries: -1 is not at least 1 and at most 100");
    expect("name: x\nseed: -1\n", FL_R_CONF_RANGE, "t.yaml:2:7: seed: -1 is negative");
    expect("name: x\nseed: 18446744073709551616\n", FL_R_CONF_TYPE,
           "t.yaml:2:7: seed: 18446744073709551616 is not a whole number");
    expect("name: x\ninner:\n  rest: 2h\n", FL_R_CONF_RANGE,
           "t.yaml:3:9: inner.rest: 2h is not at least 100ms and at most 1h");
    expect("name: x\ninner:\n  rate: 0\n", FL_R_CONF_RANGE,
           "t.yaml:3:9: inner.rate: 0 is not above 0 and at most 1");
    expect("name: x\nslope: 1e-60\n", FL_R_CONF_RANGE,
           "t.yaml:2:8: slope: 1e-60 is not above 0 and at most 9");
    expect("name: x\nmean: [1e39]\n", FL_R_CONF_RANGE, "t.yaml:2:8: mean[0]: 1e39 does not fit");
    expect("name: 12345678\n", FL_R_CONF_RANGE, "t.yaml:1:7: name: longer than 7 bytes");
    expect("name: x\nnumbers: []\n", FL_R_CONF_RANGE,
           "t.yaml:2:10: numbers: 0 items; 1 to 3 are allowed");
    expect("name: x\nhosts: [a, b, c]\n", FL_R_CONF_RANGE,
           "t.yaml:2:8: hosts: 3 items; 0 to 2 are allowed");
}
END_TEST

START_TEST(test_duplicates_and_missing)
{
    expect("name: x\ninner:\n  rate: 1\n  rate: 1\n", FL_R_CONF_DUPLICATE,
           "t.yaml:4:3: inner.rate: given twice, first in line 3");
    expect("on: true\n", FL_R_CONF_MISSING, "t.yaml:1:1: name is missing");
    expect("", FL_R_CONF_MISSING, "t.yaml:1:1: name is missing");
    expect("name: x\nneedy: {}\n", FL_R_CONF_MISSING, "t.yaml:2:1: needy: rate is missing");
}
END_TEST

START_TEST(test_syntax_and_limits)
{
    struct conf got;
    char deep[64];

    expect("name: x\n  y: z\n", FL_R_CONF_SYNTAX,
           "t.yaml:2:4: mapping values are not allowed in this context");
    expect("name: &a x\n", FL_R_CONF_SYNTAX, "t.yaml:1:7: anchors and tags are not understood");
    expect("name: !!str x\n", FL_R_CONF_SYNTAX, "t.yaml:1:7: anchors and tags are not understood");
    expect("name: *a\n", FL_R_CONF_SYNTAX, "t.yaml:1:7: aliases are not understood");
    expect("name: x\n---\nname: y\n", FL_R_CONF_SYNTAX,
           "t.yaml:2:1: a second document in the same file");
    expect("- x\n", FL_R_CONF_SYNTAX, "t.yaml:1:1: the file must be a map of keys");
    expect("? [a]\n: b\n", FL_R_CONF_SYNTAX, "t.yaml:1:3: a key must be a word");
    expect("name: \"a\\0b\"\n", FL_R_CONF_SYNTAX, "t.yaml:1:7: a zero byte in a text");
    expect("name: x\non: \x01\n", FL_R_CONF_SYNTAX,
           "t.yaml:2:5: control characters are not allowed");
    expect("name: x\nmode: \"\\e[2J\"\n", FL_R_CONF_TYPE,
           "t.yaml:2:7: mode: \"?[2J\" is not one of slow, fast");
    memset(deep, '[', sizeof deep);
    memcpy(deep, "name: ", 6);
    deep[40] = 0;
    ck_assert_int_eq(read_conf(deep, &got, NULL), -FL_R_LIMIT);

    char *many = fl_new(FL_CONF_FILE_MAX + 2, 1);
    memcpy(many, "x: [", 4);
    for (size_t i = 4; i + 2 < 60000; i += 2) {
        memcpy(many + i, "1,", 2);
    }
    ck_assert_int_eq(read_conf(many, &got, NULL), -FL_R_LIMIT);
    memset(many, 0, FL_CONF_FILE_MAX);
    for (int i = 0; i < 1001; i++) {
        snprintf(many + strlen(many), 16, "k%d:\n", i);
    }
    ck_assert_int_eq(read_conf(many, &got, NULL), -FL_R_LIMIT);
    ck_assert_str_eq(err.msg, "t.yaml:1001:1: more than 1000 keys in one map");
    memset(many, '#', FL_CONF_FILE_MAX + 1);
    ck_assert_int_eq(read_conf(many, &got, NULL), -FL_R_LIMIT);
    fl_free(many);
}
END_TEST

START_TEST(test_overlay_replaces_and_adds)
{
    struct conf got;

    ck_assert_int_eq(read_conf("name: x\ntries: 2\n"
                               "set:\n  tries: 7\n  inner.rate: 0.25\n  mean: [1, 2]\n",
                               &got, NULL),
                     0);
    ck_assert(got.tries == 7 && got.inner.rate == 0.25 && got.mean_count == 2);
    ck_assert(got.inner.rest_ms == 30000);
    expect("name: x\nset:\n  inner.rate: 7\n", FL_R_CONF_RANGE,
           "t.yaml:3:15: inner.rate: 7 is not above 0 and at most 1");
    expect("name: x\nset:\n  name.first: 7\n", FL_R_CONF_TYPE,
           "t.yaml:3:3: set.name.first: name is not a map");
    expect("name: x\nset:\n  inner.: 7\n", FL_R_CONF_UNKNOWN,
           "t.yaml:3:3: set.inner.: not a dotted path of keys");
    expect("name: x\nset: [1]\n", FL_R_CONF_TYPE, "t.yaml:2:6: set: must be a map of dotted keys");
}
END_TEST

static void changes(const char *was, const char *is, const char *want)
{
    struct fl_conf *a, *b;
    char got[32];

    ck_assert_int_eq(fl_conf_parse("a", was, strlen(was), &a, &err), 0);
    ck_assert_int_eq(fl_conf_parse("b", is, strlen(is), &b, &err), 0);
    fl_conf_changes(fl_conf_root(a), fl_conf_root(b), got, sizeof got);
    ck_assert_str_eq(got, want);
    fl_conf_free(a);
    fl_conf_free(b);
}

START_TEST(test_changes_are_named)
{
    changes("a: 1\nb: {c: 2, d: [1, {x: 2, y: 3}]}\n",
            "# said otherwise\nb:\n  d: [1, {y: 3, x: 2}]\n  c: 2\na: 1\n", "");
    changes("a: 1\nb: {c: 2, d: 3}\n", "a: 2\nb: {c: 2, d: 4}\n", "a, b.d");
    changes("a: 1\nb: {c: 2}\n", "b: {c: 2, new: 1}\nmore: [1]\n", "a, b.new, more");
    changes("l: [{x: 1}, {x: 2}]\n", "l: [{x: 1}, {x: 3}]\n", "l");
    changes("l: [1, 2]\n", "l: [1, 2, 3]\n", "l");
    changes("a: {b: 1}\n", "a: 1\n", "a");
    changes("", "a_long_key_of_a_file: 1\nanother_long_key: 1\nx: 1\n", "a_long_key_of_a_file, x");
}
END_TEST

START_TEST(test_units)
{
    uint64_t x;

    ck_assert(fl_conf_duration("2h", &x) && x == 7200000);
    ck_assert(fl_conf_duration("0", &x) && x == 0);
    ck_assert(!fl_conf_duration("5", &x) && !fl_conf_duration("-5s", &x));
    ck_assert(!fl_conf_duration("18446744073709551615s", &x) && !fl_conf_duration("5sx", &x));
    ck_assert(fl_conf_size("512", &x) && x == 512);
    ck_assert(fl_conf_size("2 GiB", &x) && x == 2ull << 30);
    ck_assert(!fl_conf_size("2gib", &x) && !fl_conf_size("", &x));
}
END_TEST

START_TEST(test_load)
{
    char path[] = "/tmp/test_conf_XXXXXX";
    struct fl_conf *c = NULL;
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, "a: [1, 2]\n", 10), 10);
    ck_assert_int_eq(fl_conf_load(path, &c, &err), 0);
    ck_assert_uint_eq(fl_conf_find(fl_conf_root(c), "a")->count, 2);
    fl_conf_free(c);
    ck_assert_int_eq(ftruncate(fd, FL_CONF_FILE_MAX + 1), 0);
    ck_assert_int_eq(fl_conf_load(path, &c, &err), -FL_R_LIMIT);
    close(fd);
    unlink(path);
    ck_assert_int_eq(fl_conf_load(path, &c, &err), -FL_R_CONF_OPEN);
    ck_assert_int_eq(fl_conf_load("/tmp", &c, &err), -FL_R_CONF_OPEN);
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    const char *text = "a: {b: [1, 2, x]}\nset: {a.c.d: 1}\n";
    bool hit = true;

    for (uint64_t nth = 1; hit; nth++) {
        struct fl_conf *c = NULL;
        fl_mem_fail_at(nth);
        int r = fl_conf_parse("t", text, strlen(text), &c, &err);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        fl_conf_free(c);
    }
}
END_TEST

TESTS_MAIN("conf", test_values_and_defaults, test_unknown_keys_name_line_and_neighbour,
           test_wrong_types, test_ranges, test_duplicates_and_missing, test_syntax_and_limits,
           test_overlay_replaces_and_adds, test_changes_are_named, test_units, test_load,
           test_every_allocation_may_fail)
