/* Tables with a schema, and windows over time. */
#include "client/data/dataset.h"
#include "client/data/encode.h"
#include "client/data/table.h"
#include "common/base/date.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"
#include "tests/lib/data_files.h"

#include <math.h>

static struct fl_schema schema;

static int parse(const char *text)
{
    struct fl_conf *c = NULL;

    memset(&err, 0, sizeof err);
    int r = fl_conf_parse("job.yaml", text, strlen(text), &c, &err);
    ck_assert_msg(r == 0, "%s", err.msg);
    r = fl_schema_parse(fl_conf_root(c), &schema, &err);
    fl_conf_free(c);
    return r;
}

/* ---- dates, hashes ---- */

START_TEST(test_dates)
{
    struct fl_date d;
    static const char *const wrong[] = {
        "",           "2011-1-01",        "2011-13-01",       "2011-02-29",          "2100-02-29",
        "2011-01-00", "2011-01-01 24:00", "2011-01-01 10:60", "2011-01-01 10:00:60", "2011-01-01x",
        "0000-01-01", "01/02/2011",       "2011-01-01 10"};

    ck_assert(fl_date_parse("1970-01-01", &d) && d.days == 0 && d.weekday == 3 && d.yearday == 0);
    ck_assert(fl_date_parse("2000-02-29", &d) && d.days == 11016 && d.weekday == 1);
    ck_assert(fl_date_parse("2011-01-01 06:00", &d) && d.days == 14975.25 && d.weekday == 5);
    ck_assert(fl_date_parse("2012-12-31T23:59:59.5Z", &d) && d.yearday == 365 && d.hour == 23);
    ck_assert(fl_date_parse("1969-12-31", &d) && d.days == -1 && d.weekday == 2);
    for (size_t i = 0; i < FL_COUNT(wrong); i++) {
        ck_assert_msg(!fl_date_parse(wrong[i], &d), "%s", wrong[i]);
    }
    /* FNV-1a's published vectors: a job's buckets are the same at every site and for ever. */
    ck_assert_uint_eq(fl_encode_hash(""), 0xcbf29ce484222325u);
    ck_assert_uint_eq(fl_encode_hash("a"), 0xaf63dc4c8601ec8cu);
    ck_assert_uint_eq(fl_encode_hash("foobar"), 0x85944171f73967e8u);
}
END_TEST

/* ---- tables ---- */

static const char small[] =
    "columns:\n"
    "  - numeric: {name: price, min: 0, max: 10, mean: 4, std: 2, missing: 6}\n"
    "  - category: {name: kind, values: [a, 'b c', ''], buckets: 2}\n"
    "  - category: {name: size, values: [S, L], onehot: true}\n"
    "  - datetime: {name: day, parts: [month, weekday], as: code}\n"
    "  - datetime: {name: when, parts: [hour], as: cyclic}\n"
    "target: {category: {name: sold, values: ['no', 'yes']}}\n";

START_TEST(test_a_row_becomes_numbers)
{
    struct fl_data_source s = source(FL_DATA_CSV, "t.csv");
    struct fl_dataset d;

    ck_assert_msg(parse(small) == 0, "%s", err.msg);
    ck_assert_uint_eq(schema.features, 8);
    s.schema = &schema;
    s.rename_count = 1;
    strcpy(s.rename[0].job, "price");
    strcpy(s.rename[0].site, "Preis");
    put_text("t.csv", "sold,day,when,size,kind,Preis,other\n"
                      "yes,2011-01-01,2011-01-01 06:00,L,a,2,x\n"
                      "no,2011-02-02,2011-01-01 00:00,S,,99,\"x,y\"\n"
                      "no,2011-02-02,2011-01-01 00:00,S,foobar,,x\n");
    load(&s, &d);
    ck_assert(d.classes == 2 && d.train.count == 3 && d.shape[0] == 8);
    ck_assert(d.train.y[0] == 1 && d.train.y[1] == 0);
    const float want[3][8] = {
        {-1, 0, 0, 1, 0, 5, 1, 0},
        {3, 2, 1, 0, 1, 2, 0, 1},
        {1, 3 + (float)(0x85944171f73967e8u % 2), 1, 0, 1, 2, 0, 1},
    };
    for (int i = 0; i < 24; i++) {
        ck_assert_float_eq_tol(d.train.x[i], want[i / 8][i % 8], 1e-7f);
    }
    /* Another job on the same rows: the same data to the ledger. */
    struct fl_dataset other;
    ck_assert_int_eq(parse("columns: [{category: {name: size, values: [S, L]}}]\n"
                           "target: {numeric: {name: Preis, min: 0, max: 1, missing: 0}}\n"),
                     -FL_R_CONF_CONFLICT);
    ck_assert_int_eq(parse("columns: [{category: {name: size, values: [S, L]}}]\n"
                           "target: {category: {name: kind, values: [a, '', foobar]}}\n"),
                     0);
    expect_fail(&s, FL_R_DATA_TARGET, "t.csv:3: column kind");
    ck_assert_int_eq(parse("columns: [{category: {name: kind, values: [a], buckets: 1}}]\n"
                           "target: {category: {name: size, values: [S, L]}}\n"),
                     0);
    load(&s, &other);
    ck_assert(other.shape[0] == 1 && fl_digest_equal(&d.identity, &other.identity));
    ck_assert(!fl_digest_equal(&d.digest, &other.digest));
    fl_dataset_fini(&other);
    fl_dataset_fini(&d);
}
END_TEST

START_TEST(test_rows_that_do_not_fit)
{
    struct fl_data_source s = source(FL_DATA_CSV, "t.csv");
    static const struct {
        const char *row;
        int reason;
        const char *part;
    } cases[] = {
        {"yes,2011-01-01,2011-01-01 06:00,M,a,2", FL_R_DATA_CATEGORY,
         "t.csv:3: column size: \"M\" is not in the job's dictionary"},
        {"perhaps,2011-01-01,2011-01-01 06:00,S,a,2", FL_R_DATA_CATEGORY, "t.csv:3: column sold"},
        {",2011-01-01,2011-01-01 06:00,S,a,2", FL_R_DATA_TARGET,
         "t.csv:3: column sold: \"\" is not a class"},
        {"yes,1.1.2011,2011-01-01 06:00,S,a,2", FL_R_DATA_VALUE,
         "t.csv:3: column day: \"1.1.2011\" is not a date"},
        {"yes,2011-01-01,2011-01-01 06:00,S,a,dear", FL_R_DATA_VALUE,
         "t.csv:3: column price: \"dear\" is not a finite number"},
        {"yes,2011-01-01,2011-01-01 06:00,S,a", FL_R_DATA_RAGGED,
         "t.csv:3: 5 fields where the first row has 6"},
        {"yes,2011-01-01,2011-01-01 06:00,S,f\xfcr,2", FL_R_DATA_ENCODING,
         "t.csv:3: column kind: byte 0xfc is not UTF-8"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xc0\xaf,2", FL_R_DATA_ENCODING, "byte 0xc0"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xed\xa0\x80,2", FL_R_DATA_ENCODING, "byte 0xed"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xe2\x82,2", FL_R_DATA_ENCODING, "byte 0xe2"},
        {"yes,2011-01-01,2011-01-01 06:00,S,\xe2\x82\xac,2", 0, NULL},
    };

    ck_assert_int_eq(parse(small), 0);
    s.schema = &schema;
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "sold,day,when,size,kind,price\nno,2011-01-01,2011-01-01 06:00,S,a,1\n%s\n",
                 cases[i].row);
        put_text("t.csv", text);
        if (cases[i].reason) {
            expect_fail(&s, cases[i].reason, cases[i].part);
        } else {
            struct fl_dataset d;
            load(&s, &d);
            ck_assert_int_eq(fl_dataset_batch(&d, 2, &err), 0);
            ck_assert_int_eq(fl_dataset_batch(&d, 3, &err), -FL_R_DATA_BATCH);
            ck_assert_str_eq(err.msg, "a batch of 3 of 2 training examples");
            fl_dataset_fini(&d);
        }
    }
    put_text("t.csv", "sold,day,size,kind,price\nno,2011-01-01,S,a,1\n");
    expect_fail(&s, FL_R_DATA_COLUMN, "t.csv:1: no column is named when");
    /* Another client's rows are not judged, and an empty partition has a name. */
    put_text("t.csv", "shop,sold,day,when,size,kind,price\n"
                      "A,no,2011-01-01,2011-01-01 06:00,S,a,1\nB,,x,x,M,a,x\n");
    s.partition = FL_PARTITION_COLUMN;
    strcpy(s.column, "shop");
    strcpy(s.client_text, "A");
    struct fl_dataset d;
    load(&s, &d);
    ck_assert_uint_eq(d.train.count, 1);
    fl_dataset_fini(&d);
    strcpy(s.client_text, "C");
    expect_fail(&s, FL_R_DATA_EMPTY, "t.csv: no training examples for client");
}
END_TEST

START_TEST(test_schemas_that_are_refused)
{
    static const struct {
        const char *text;
        int reason;
        const char *part;
    } cases[] = {
        {"columns: []\ntarget: {numeric: {name: y, min: 0, max: 1}}", FL_R_CONF_TYPE, "1 to 128"},
        {"columns: [{numeric: {name: a, min: 1, max: 1}}]\ntarget: {}", FL_R_CONF_CONFLICT,
         "min must be below max"},
        {"columns: [{numeric: {name: a, min: 0}}]\ntarget: {}", FL_R_CONF_MISSING, "max"},
        {"columns: [{word: {name: a}}]\ntarget: {}", FL_R_CONF_UNKNOWN, "word"},
        {"columns: [{category: {name: a, values: [x, x]}}]\ntarget: {}", FL_R_CONF_DUPLICATE,
         "x stands here twice"},
        {"columns: [{datetime: {name: a, parts: [century]}}]\ntarget: {}", FL_R_CONF_TYPE, "year"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}, {numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {}",
         FL_R_CONF_DUPLICATE, "a second column a"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {numeric: {name: a, min: 0, max: 1}}",
         FL_R_CONF_CONFLICT, "see what it is to predict"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {category: {name: b, values: [x, y], buckets: 1}}",
         FL_R_CONF_CONFLICT, "a target is numeric"},
        {"columns: [{numeric: {name: a, min: 0, max: 1}}]\n"
         "target: {numeric: {name: b, min: 0, max: 1}}\n"
         "window: {steps: 2, time: t, cut: soon}",
         FL_R_CONF_TYPE, "a number, or a date"},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        int r = parse(cases[i].text);
        ck_assert_msg(r == -cases[i].reason && strstr(err.msg, cases[i].part), "%zu: %d %s", i, r,
                      err.msg);
    }
}
END_TEST

/* ---- windows ---- */

static const char weekly[] = "columns:\n"
                             "  - numeric: {name: p, min: 0, max: 1000}\n"
                             "target: {numeric: {name: y, min: 0, max: 1000}}\n"
                             "window: {steps: 3, ahead: 1, time: t, series: [s], cut: 6, gap: 2, "
                             "every: 1}\n";

START_TEST(test_windows)
{
    struct fl_data_source s = source(FL_DATA_CSV, "w.csv");
    struct fl_dataset d, e;
    char text[1024] = "t,s,p,y\n";
    float x[3];

    /* Two series, written in a bad order; the second lacks time 5. */
    for (int t = 9; t >= 1; t--) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%d,A,%d,%d\n", t, 10 + t, 100 + t);
        at = strlen(text);
        if (t != 5) {
            snprintf(text + at, sizeof text - at, "%d,B,%d,%d\n", t, 20 + t, 200 + t);
        }
    }
    put_text("w.csv", text);
    ck_assert_msg(parse(weekly) == 0, "%s", err.msg);
    s.schema = &schema;
    load(&s, &d);
    /* A: targets at 4, 5 train, 8, 9 test; B: 4 trains, 9 tests (6, 7, 8 -> 9). */
    ck_assert_uint_eq(d.train.count, 3);
    ck_assert_uint_eq(d.test.count, 3);
    ck_assert(d.shape[0] == 1 && d.shape[1] == 3 && d.shape[2] == 1 && d.classes == 0);
    ck_assert(d.rows_held == 17 * sizeof(float) && d.rows_mapped == 0);
    float sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_int_eq(fl_examples_get(&d.train, 3, i, x, &err), 0);
        ck_assert(x[1] == x[0] + 1 && x[2] == x[0] + 2);
        float base = x[0] < 20 ? 90 : 180;
        ck_assert(d.train.target[i] == x[2] + 1 + base);
        sum += d.train.target[i];
    }
    ck_assert(sum == 104 + 105 + 204);
    sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        sum += d.test.target[i];
    }
    ck_assert(sum == 108 + 109 + 209);
    s.memory = 1;
    load(&s, &e);
    ck_assert(e.rows_mapped > 0 && e.rows_held == 0);
    same_data(&d, &e);
    fl_dataset_fini(&e);
    fl_dataset_fini(&d);
    /* Several ahead. */
    schema.window.ahead = 2;
    s.memory = 0;
    load(&s, &d);
    ck_assert(d.train.count == 1 && d.train.target_width == 2 && d.train.target[0] == 104 &&
              d.train.target[1] == 105);
    ck_assert(d.test.count == 1 && d.test.target[0] == 108);
    fl_dataset_fini(&d);
    /* The last row itself. */
    schema.window.ahead = 0;
    load(&s, &d);
    ck_assert(d.train.count == 5 && d.train.target_width == 1);
    fl_dataset_fini(&d);
    schema.window.steps = 9;
    expect_fail(&s, FL_R_DATA_EMPTY, "no window of 9 steps");
    schema.window.steps = 3;
    put_text("w.csv", "t,s,p,y\n1,A,1,1\n2,A,1,1\n1,A,2,2\n");
    expect_fail(&s, FL_R_DATA_VALUE,
                "w.csv:4: column t: the same time of the same series as line 2");
    put_text("w.csv", "t,s,p,y\n2011-01-01,A,1,1\n");
    expect_fail(&s, FL_R_DATA_VALUE, "w.csv:2: column t: \"2011-01-01\" is not a finite number");
    snprintf(s.test_x, sizeof s.test_x, "x");
    s.partition = FL_PARTITION_COLUMN;
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    struct fl_data_source s = source(FL_DATA_CSV, "w.csv");

    ck_assert_int_eq(parse(weekly), 0);
    s.schema = &schema;
    put_text("w.csv", "t,s,p,y\n1,A,1,1\n2,A,1,1\n3,A,2,2\n4,A,2,2\n8,A,3,3\n");
    load_without_memory(&s);
    schema.window.steps = 0;
    load_without_memory(&s);
}
END_TEST

/* ---- what the ledger calls a data set ---- */

/* One table without a schema, with one, with windows, with and without a test part, in whatever
 * sizes and drawn by whatever seed: one budget. */
START_TEST(test_a_table_has_one_identity)
{
    struct fl_data_source s = source(FL_DATA_CSV, "w.csv");
    struct fl_digest first = {{0}};
    const char *rows = "t,s,p,y\n1,7,11,1\n2,7,12,0\n3,7,13,1\n4,7,14,0\n5,7,15,1\n9,7,16,0\n";

    put_text("w.csv", rows);
    put_text("t.csv", "t,s,p,y\n1,1,1,3\n2,2,2,0\n");
    strcpy(s.target, "y");
    ck_assert(same_identity(&s, &first));
    s.test = 2;
    s.seed = 5;
    ck_assert(same_identity(&s, &first));
    s.train = 3;
    s.classes = 9;
    ck_assert(same_identity(&s, &first));
    s.validation = 1;
    ck_assert(same_identity(&s, &first));
    snprintf(s.test_x, sizeof s.test_x, "%s/t.csv", folder);
    ck_assert(same_identity(&s, &first));
    s = source(FL_DATA_CSV, "w.csv");
    strcpy(s.target, "y");
    s.deal = FL_DEAL_HASHED; /* by other keys, other parts */
    s.test_part = 0.3;
    s.role_key.bytes[0] = 1;
    ck_assert(same_identity(&s, &first));
    s = source(FL_DATA_CSV, "w.csv");
    s.schema = &schema;
    ck_assert_int_eq(parse("columns: [{numeric: {name: p, min: 0, max: 9}}]\n"
                           "target: {numeric: {name: y, min: 0, max: 1}}\n"),
                     0);
    ck_assert(same_identity(&s, &first));
    ck_assert_int_eq(parse("columns: [{numeric: {name: p, min: 0, max: 9}}]\n"
                           "target: {numeric: {name: y, min: 0, max: 1}}\n"
                           "window: {steps: 2, ahead: 1, time: t, series: [s], cut: 5, gap: 1}\n"),
                     0);
    ck_assert(same_identity(&s, &first));
    s.partition = FL_PARTITION_COLUMN;
    strcpy(s.column, "s");
    strcpy(s.client_text, "7");
    ck_assert(same_identity(&s, &first));
    /* one field of one row is another data set, and so is one row less */
    s.partition = FL_PARTITION_ALL;
    put_text("w.csv", "t,s,p,y\n1,7,11,1\n2,7,12,0\n3,7,13,1\n4,7,14,0\n5,7,15,1\n9,7,17,0\n");
    ck_assert(!same_identity(&s, &first));
    put_text("w.csv", "t,s,p,y\n1,7,11,1\n2,7,12,0\n3,7,13,1\n4,7,14,0\n5,7,15,1\n");
    ck_assert(!same_identity(&s, &first));
}
END_TEST

START_TEST(test_a_table_rewritten_between_two_passes_is_noticed)
{
    const char *rows = "a,y\n1,0\n2,1\n3,0\n";
    struct {
        const char *text;
        int status;
    } cases[] = {
        {"a,y\n1,0\n2,1\n3,0\n", 0},
        {"a,y\n1,0\n2,1\n4,0\n", -FL_R_DATA_CHANGED}, /* a row that is not even wanted */
        {"a,y\n1,1\n2,1\n3,0\n", -FL_R_DATA_CHANGED}, /* a target: it was read in the first pass */
        {"a,y\n1,0\n2,1\n", -FL_R_DATA_CHANGED},
        {"a,y\n1,0\n2,1\n3,0\n3,0\n", -FL_R_DATA_CHANGED},
        {"a,b,y\n1,1,0\n2,1,1\n3,1,0\n", -FL_R_DATA_CHANGED},
    };
    const uint8_t marks[] = {1, 1, 1};

    source(FL_DATA_CSV, "t.csv");
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_table t = {0};
        struct fl_hash h;
        float x = 0;
        struct fl_pick pick = {.row = 0, .to = &x};
        struct fl_wanted wanted = {&pick, 1, marks, &h, NULL};
        put_text("t.csv", rows);
        ck_assert_int_eq(fl_csv_scan(path_in("t.csv"), "y", "", &t, &err), 0);
        put_text("t.csv", cases[i].text);
        fl_hash_init(&h);
        ck_assert_int_eq(fl_csv_read(path_in("t.csv"), "y", "", &t, &wanted, &err),
                         cases[i].status);
        fl_table_fini(&t);
    }
}
END_TEST

START_TEST(test_folder_is_left_clean)
{
    static const char *const names[] = {"t.csv", "w.csv"};

    expect_only(names, FL_COUNT(names));
}
END_TEST

TESTS_MAIN("tables", test_dates, test_a_row_becomes_numbers, test_rows_that_do_not_fit,
           test_schemas_that_are_refused, test_windows, test_a_table_has_one_identity,
           test_a_table_rewritten_between_two_passes_is_noticed, test_every_allocation_may_fail,
           test_folder_is_left_clean)
