/* A model whose input is a table's columns, and the example that is written with it. */
#include "common/base/mem.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static struct fl_plan plan;
static struct fl_err err;

static const char table[] = "data:\n  table:\n    columns:\n"
                            "      - numeric: {name: price, min: 0, max: 10}\n"
                            "      - category: {name: colour, values: [r, g, b], onehot: true}\n"
                            "      - category: {name: brand, values: [own, other], buckets: 3}\n"
                            "      - category: {name: shop, values: [a, b, c]}\n"
                            "      - datetime: {name: day, parts: [month], as: code}\n"
                            "    target: {numeric: {name: sales, min: 0, max: 9}}\n";

static int parse(const char *input, const char *first, const char *more)
{
    char text[4096];
    int n = snprintf(text, sizeof text,
                     "name: rows\nstrategy: fedavg\nrounds: 1\nmodel:\n  input: %s\n  targets: 1\n"
                     "  loss: mse\n  layers:\n%s    - linear: {out: 6}\n    - linear: {out: 1}\n"
                     "train: {lr: 0.1}\nround: {members: 2}\n%s",
                     input, first, more);

    return fl_plan_parse(&plan, "job.yaml", text, (size_t)n, &err);
}

START_TEST(test_columns_become_an_embedding)
{
    static const char columns[] = "{numeric: 4, categorical: [brand, shop, 12], width: 7}";
    static const char layer[] = "    - embedding: {width: 7, categories: [5, 3, 12]}\n";
    static const char *const input[] = {columns, "[7]"}, *const first[] = {"", layer};

    for (size_t i = 0; i < FL_COUNT(input); i++) { /* and the same, written as a layer */
        ck_assert_msg(parse(input[i], first[i], table) == 0, "%s", err.msg);
        const struct fl_spec *s = &plan.layout.spec;
        ck_assert_uint_eq(s->input[0], 7);
        ck_assert_uint_eq(s->layer_count, 3);
        ck_assert_int_eq(s->layers[0].kind, FL_LAYER_EMBEDDING);
        ck_assert_uint_eq(s->layers[0].out_shape[0], 4 + 3 * 7);
        const struct fl_tensor *t = &plan.layout.theta.at[0];
        ck_assert_str_eq(t->name, "embed1.weight");
        ck_assert(t->shape[0] == 20 && t->shape[1] == 7);
    }
    ck_assert_msg(parse("{categorical: [3, 2], width: 1}", "", "") == 0, "%s", err.msg);
    ck_assert_uint_eq(plan.layout.spec.layers[0].out_shape[0], 2);
    ck_assert_msg(parse("[3]", "", "") == 0, "%s", err.msg);
    ck_assert_uint_eq(plan.layout.spec.layer_count, 2);
}
END_TEST

START_TEST(test_columns_that_are_not_there)
{
    static const struct {
        const char *input, *first, *table;
        enum fl_reason reason;
        const char *why;
    } bad[] = {
        {"{numeric: 4, categorical: [brnd, shop, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "job.yaml:5:36: model.input.categorical: column brnd of data.table does not exist"},
        {"{numeric: 4, categorical: [brand], width: 7}", "", "", FL_R_CONF_CONFLICT,
         "is named, and there is no table"},
        {"{numeric: 4, categorical: [price, shop, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "column price of data.table is no category of one number"},
        {"{numeric: 4, categorical: [colour, shop, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "column colour of data.table is no category of one number"},
        {"{numeric: 5, categorical: [shop, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "column brand of data.table is a category among the numbers"},
        {"{numeric: 4, categorical: [shop, brand, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "column brand of data.table has 5 values and buckets, the model embeds 3"},
        {"{numeric: 3, categorical: [4, brand, shop, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "column colour of data.table stands where a category is embedded, and is none"},
        {"{numeric: 5, categorical: [brand, shop, 12], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "job.yaml:5:10: model.input: the model takes 8 numbers, the table has 5 columns' 7"},
        {"[7]", "    - embedding: {width: 7, categories: [5, 4, 12]}\n", table, FL_R_CONF_CONFLICT,
         "column shop of data.table has 3 values and buckets, the model embeds 4"},
        {"{numeric: 4, categorical: [brand, shop, 11], width: 7}", "", table, FL_R_CONF_CONFLICT,
         "column day of data.table has a part of 12 values, the model embeds 11"},
        {"{numeric: 4, categorical: [5, 3, 12], width: 0}", "", table, FL_R_CONF_RANGE,
         "model.input.width"},
        {"{numeric: 4, categorical: [0, 3, 12], width: 2}", "", "", FL_R_PLAN_MODEL,
         "job.yaml: model: layer embed1 (line 5): "},
        {"{numeric: 4, categorical: [99999999999, 3], width: 2}", "", "", FL_R_PLAN_MODEL,
         "layer embed1 (line 5)"},
        {"{numeric: 4, categorical: [], width: 2}", "", "", FL_R_CONF_RANGE, "categorical"},
        {"{numeric: 4, width: 2}", "", "", FL_R_CONF_MISSING, "categorical is missing"},
        {"{numerical: 4, categorical: [2], width: 2}", "", "", FL_R_CONF_UNKNOWN,
         "did you mean numeric?"},
        {"{numeric: 4, categorical: [2], width: 2}",
         "    - embedding: {width: 7, categories: [5]}\n", "", FL_R_PLAN_MODEL, "(line 9)"},
        {"seven", "", "", FL_R_CONF_TYPE, "job.yaml:5:10: model.input"},
        {"[0]", "", "", FL_R_CONF_RANGE, "job.yaml:5:11: model.input"},
        {"[1, 2]", "", "", FL_R_CONF_RANGE, "job.yaml:5:10: model.input: one number"},
    };

    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        int r = parse(bad[i].input, bad[i].first, bad[i].table);
        ck_assert_msg(r == -(int)bad[i].reason, "%zu: %d, %s", i, r, err.msg);
        ck_assert_msg(strstr(err.msg, bad[i].why) != NULL, "%zu: %s", i, err.msg);
    }
}
END_TEST

/* deploy/examples/job-table.yaml: two encoder layers over one row, as in PA-CFL. */
START_TEST(test_the_example)
{
    static char text[8192];
    FILE *f = fopen(TEST_SOURCE_ROOT "/deploy/examples/job-table.yaml", "r");

    ck_assert_ptr_nonnull(f);
    size_t n = fread(text, 1, sizeof text, f), encoder = 4 * (64 * 64 + 64) + 4 * 64;
    fclose(f);
    ck_assert_msg(fl_plan_parse(&plan, "job-table.yaml", text, n, &err) == 0, "%s", err.msg);
    encoder += 2 * (64 * 64 + 64);
    const struct fl_layer *l = plan.layout.spec.layers;
    ck_assert_uint_eq(l[0].in_shape[0], 18);
    ck_assert_uint_eq(l[0].out_shape[0], 11 + 7 * 8);
    ck_assert_uint_eq(plan.layout.shared.elements,
                      8 * (5 + 25 + 4 + 14 + 64 + 5 + 5) + 67 * 64 + 64 + 2 * encoder + 65);
}
END_TEST

TESTS_MAIN("plan_input", test_columns_become_an_embedding, test_columns_that_are_not_there,
           test_the_example)
