/*
 * `model.input`: one example's shape, or what the columns of a table's row are:
 *
 *     input: {numeric: 5, categorical: [brand, market], width: 8}
 *
 * 5 numbers that pass as they are, then two categories, each of which becomes 8 learned numbers; a
 * name stands for the dictionary of that column of data.table, a number for so many values. The
 * model begins with an embedding of 5 + 2 * 8 numbers then. Whether a table's rows look like that
 * is checked for this and for an embedding that is written among the layers alike.
 */
#include "common/plan/plan_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct input_raw {
    uint32_t shape[3], count;
    uint32_t numeric, categories, width;
    char category[FL_SPEC_CATEGORIES_MAX][FL_SCHEMA_NAME_MAX];
};

#define TYPED(key, kind, m)                                                                        \
    .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct input_raw, m)
static const struct fl_conf_field shape_keys[] = {
    {TYPED("input", UINT32S, shape), .min = 1, .max = 1 << 26, .items_min = 1, .items_max = 3,
     .count_offset = offsetof(struct input_raw, count)},
    {.name = NULL},
};
static const struct fl_conf_field column_keys[] = {
    {TYPED("numeric", UINT32, numeric), .max = 65536, .fallback = "0"},
    {TYPED("categorical", STRINGS, category), .size = FL_SCHEMA_NAME_MAX, .items_min = 1,
     .items_max = FL_SPEC_CATEGORIES_MAX, .count_offset = offsetof(struct input_raw, categories),
     .flags = FL_CONF_REQUIRED},
    {TYPED("width", UINT32, width), .min = 1, .max = 65536, .flags = FL_CONF_REQUIRED},
    {.name = NULL},
};

/* How many numbers a category's codes are: those of its dictionary and its buckets. 0: it is no
 * single code. */
static uint32_t codes_of(const struct fl_column *c)
{
    return c->kind == FL_COLUMN_CATEGORY && !c->onehot ? c->values + c->buckets : 0;
}

static int refuse(const struct fl_conf_node *root, struct fl_err *e, const char *column,
                  const char *what)
{
    return fl_conf_fail(e, fl_plan_at(root, "model.input.categorical"), FL_R_CONF_CONFLICT,
                        "column %s of data.table %s", column, what);
}

/* A name, or a number of values. */
static int get_size(const char *word, const struct fl_schema *s, const struct fl_conf_node *root,
                    uint32_t *ret, struct fl_err *e)
{
    char *end = NULL;
    unsigned long n = strtoul(word, &end, 10);

    if (*word >= '0' && *word <= '9' && *end == 0) {
        *ret = n <= 1 << 24 ? (uint32_t)n : 0; /* 0: refused with the layer */
        return 0;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        if (strcmp(s->column[i].name, word) == 0) {
            *ret = codes_of(&s->column[i]);
            return *ret ? 0
                        : refuse(root, e, word,
                                 "is no category of one number (it is numeric, a date, or onehot)");
        }
    }
    return refuse(root, e, word, s->count ? "does not exist" : "is named, and there is no table");
}

static int get_columns(const struct fl_conf_node *n, const struct fl_schema *s,
                       const struct fl_conf_node *root, struct fl_spec *spec, struct fl_err *e)
{
    struct input_raw raw = {.numeric = 0};
    struct fl_layer *first = &spec->layers[0];
    int r = fl_conf_decode(n, column_keys, &raw, e);

    *first = (struct fl_layer){.kind = FL_LAYER_EMBEDDING,
                               .out = raw.width,
                               .category_count = raw.categories,
                               .line = n->key_line};
    for (uint32_t i = 0; r == 0 && i < raw.categories; i++) {
        r = get_size(raw.category[i], s, root, &first->categories[i], e);
    }
    spec->layer_count = 1;
    spec->input[0] = raw.numeric + raw.categories;
    spec->input[1] = spec->input[2] = 1;
    return r;
}

int fl_plan_input(const struct fl_conf_node *n, const struct fl_schema *s,
                  const struct fl_conf_node *root, struct fl_spec *spec, struct fl_err *e)
{
    struct input_raw raw = {.count = 0};

    if (fl_conf_is_map(n)) {
        return get_columns(n, s, root, spec, e);
    }
    /* A map of this key alone, for the table. */
    struct fl_conf_node alone = *n, map = *n->parent;
    alone.next = NULL;
    map.first = map.last = &alone;
    map.count = 1;
    int r = fl_conf_decode(&map, shape_keys, &raw, e);
    if (r == 0 && raw.count == 2) {
        return fl_conf_fail(e, n, FL_R_CONF_RANGE,
                            "one number (features) or three (channels, height, width)");
    }
    for (uint32_t i = 0; i < 3; i++) {
        spec->input[i] = i < raw.count ? raw.shape[i] : 1;
    }
    return r;
}

/* Parts of a date are embedded one by one: each needs as many categories as it has values. */
static int check_date(const struct fl_column *c, const uint32_t *categories,
                      const struct fl_conf_node *root, struct fl_err *e)
{
    char what[96];

    for (uint32_t k = 0; k < c->part_count; k++) {
        uint32_t values = fl_date_part_values((enum fl_date_part)c->part[k]);
        if (values == 0) {
            return refuse(root, e, c->name, "has years, which no embedding holds");
        }
        if (categories[k] < values) {
            snprintf(what, sizeof what, "has a part of %u values, the model embeds %u", values,
                     categories[k]);
            return refuse(root, e, c->name, what);
        }
    }
    return 0;
}

int fl_plan_check_input(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct fl_layer *l = &p->layout.spec.layers[0];
    const struct fl_schema *s = &p->data.schema;
    uint32_t at = 0, numeric = s->features - l->category_count;

    if (p->layout.spec.layer_count == 0 || l->kind != FL_LAYER_EMBEDDING) {
        return 0;
    }
    for (uint32_t i = 0; i < s->count; at += s->column[i++].width) {
        const struct fl_column *c = &s->column[i];
        bool code = c->kind == FL_COLUMN_DATETIME && c->as == FL_DATE_CODE;
        uint32_t codes = codes_of(c);
        if (at + c->width <= numeric) {
            if (codes) {
                return refuse(root, e, c->name,
                              "is a category among the numbers: those that are embedded come last, "
                              "in the order of the table");
            }
            continue;
        }
        if (at < numeric || (!codes && !code)) {
            return refuse(root, e, c->name, "stands where a category is embedded, and is none");
        }
        if (codes && codes != l->categories[at - numeric]) {
            char what[96];
            snprintf(what, sizeof what, "has %u values and buckets, the model embeds %u", codes,
                     l->categories[at - numeric]);
            return refuse(root, e, c->name, what);
        }
        int r = code ? check_date(c, &l->categories[at - numeric], root, e) : 0;
        if (r) {
            return r;
        }
    }
    return 0;
}
