/* `data:` and `trainer:` of an agent: their keys, and what they must have in common. */
#include "client/config_in.h"

#include <stdio.h>
#include <string.h>

static const char *const formats[] = {"idx", "csv", "cifar10", "cifar100", "npy", "program", NULL};
static const char *const deals[] = {[FL_DEAL_PLACED] = "placed", [FL_DEAL_HASHED] = "hashed", NULL};
static const char *const partitions[] = {"all",       "column",       "file",
                                         "dirichlet", "pathological", NULL};
const struct fl_conf_field fl_config_data_fields[] = {
    {.name = "format", .type = FL_CONF_ENUM, AT(struct entry, agent.data.format), .words = formats},
    {.name = "train_x", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.train_x), .min = 1},
    {.name = "train_y", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.train_y)},
    {.name = "test_x", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.test_x)},
    {.name = "test_y", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.test_y)},
    {.name = "clients", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.clients)},
    {.name = "target", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.target)},
    {.name = "column", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.column)},
    {.name = "columns", .type = FL_CONF_NODE, AT(struct entry, columns)},
    {.name = "memory", .type = FL_CONF_SIZE, AT(struct entry, agent.data.memory)},
    {.name = "version", .type = FL_CONF_STRING, TEXT(struct entry, agent.data.version), .min = 1},
    {.name = "partition",
     .type = FL_CONF_ENUM,
     AT(struct entry, agent.data.partition),
     .words = partitions},
    {.name = "client", .type = FL_CONF_STRING, TEXT(struct entry, client), .min = 1},
    {.name = "of", .type = FL_CONF_UINT32, AT(struct entry, agent.data.of), .min = 1, .max = 1e6},
    {.name = "alpha",
     .type = FL_CONF_DOUBLE,
     AT(struct entry, agent.data.alpha),
     .flags = FL_CONF_ABOVE_MIN,
     .min = 0,
     .max = 1e6},
    {.name = "seed", .type = FL_CONF_UINT64, AT(struct entry, agent.data.seed)},
    {.name = "deal", .type = FL_CONF_ENUM, AT(struct entry, agent.data.deal), .words = deals},
    {.name = "train", .type = FL_CONF_DOUBLE, AT(struct entry, train), .max = UINT32_MAX},
    {.name = "test", .type = FL_CONF_DOUBLE, AT(struct entry, test), .max = UINT32_MAX},
    {.name = "validation",
     .type = FL_CONF_DOUBLE,
     AT(struct entry, agent.data.validation),
     .max = 1e9},
    {.name = "classes",
     .type = FL_CONF_UINT32,
     AT(struct entry, agent.data.classes),
     .min = 2,
     .max = 100000},
    {.name = "dealt", .type = FL_CONF_UINT32, AT(struct entry, agent.data.dealt)},
    {.name = "disjoint", .type = FL_CONF_BOOL, AT(struct entry, agent.data.disjoint)},
    {.name = NULL}};

const struct fl_conf_field fl_config_trainer_fields[] = {
    {.name = "program",
     .type = FL_CONF_STRINGS,
     TEXT(struct entry, agent.trainer.program[0]),
     .items_min = 1,
     .items_max = FL_CONFIG_PROGRAM_MAX,
     .count_offset = offsetof(struct entry, agent.trainer.program_count)},
    {.name = "time",
     .type = FL_CONF_DURATION,
     AT(struct entry, agent.trainer.time_ms),
     .min = 100,
     .max = 7 * 86400e3},
    {.name = "memory", .type = FL_CONF_SIZE, AT(struct entry, agent.trainer.memory)},
    {.name = "output", .type = FL_CONF_SIZE, AT(struct entry, agent.trainer.output), .min = 1024},
    {.name = "file", .type = FL_CONF_SIZE, AT(struct entry, agent.trainer.file), .min = 1024},
    {.name = "examples", .type = FL_CONF_BOOL, AT(struct entry, agent.trainer.examples)},
    {.name = NULL}};

/* `columns: {the job's name: the site's}`. */
int fl_config_data_columns(const struct fl_conf_node *map, struct fl_data_source *d,
                           struct fl_err *e)
{
    if (!fl_conf_is_map(map) || map->count > FL_DATA_RENAMES_MAX) {
        return fl_conf_fail(e, map, FL_R_CONF_TYPE,
                            "a map of at most %d columns: the job's name, then the file's",
                            FL_DATA_RENAMES_MAX);
    }
    d->rename_count = 0;
    for (const struct fl_conf_node *n = map->first; n; n = n->next) {
        const size_t size = sizeof d->rename[0].site;
        if (n->kind != FL_CONF_KIND_SCALAR || strlen(n->text) >= size || strlen(n->key) >= size) {
            return fl_conf_fail(e, n, FL_R_CONF_TYPE, "a name of at most %zu bytes", size - 1);
        }
        snprintf(d->rename[d->rename_count].job, size, "%s", n->key);
        snprintf(d->rename[d->rename_count++].site, size, "%s", n->text);
    }
    return 0;
}

/* Of `train` and `test`: a number of examples, or a part of them. */
static int read_size(const struct fl_conf_node *at, const char *key, double given,
                     uint32_t *ret_count, double *ret_part, struct fl_err *e)
{
    *ret_part = given < 1 ? given : 0;
    *ret_count = given < 1 ? 0 : (uint32_t)given;
    return given < 1 || given == *ret_count
               ? 0
               : fl_conf_fail(e, at, FL_R_CONF_RANGE,
                              "%s is a whole number of examples, or a part of them below 1", key);
}

static int read_sizes(const struct fl_conf_node *at, const struct entry *en,
                      struct fl_data_source *d, struct fl_err *e)
{
    struct fl_err why = {0};
    int r = read_size(at, "train", en->train, &d->train, &d->train_part, e);

    r = r ? r : read_size(at, "test", en->test, &d->test, &d->test_part, e);
    if (d->deal == FL_DEAL_UNSAID && (d->train_part > 0 || d->test_part > 0)) {
        d->deal = FL_DEAL_HASHED; /* nothing else deals parts */
    }
    if (r == 0 && d->deal != FL_DEAL_UNSAID && (r = fl_dataset_deal(d, &why)) != 0) {
        r = fl_conf_fail(e, at, (enum fl_reason) - r, "%s", why.msg);
    }
    return r;
}

int fl_config_data_check(const struct fl_conf_node *at, struct entry *en, struct fl_err *e)
{
    struct fl_data_source *d = &en->agent.data;
    bool own = d->format == FL_DATA_PROGRAM;

    if (own != (d->version[0] != 0) || own == (d->train_x[0] != 0)) {
        return fl_conf_fail(e, at, own || d->version[0] ? FL_R_CONF_CONFLICT : FL_R_CONF_MISSING,
                            own || d->version[0] ? "format program has a version and no files"
                                                 : "data.train_x is missing");
    }
    bool labels = d->format == FL_DATA_IDX || d->format == FL_DATA_NPY;

    if (labels && !d->train_y[0]) {
        return fl_conf_fail(e, at, FL_R_CONF_MISSING, "train_y (the labels) is missing");
    }
    if (labels && d->test_x[0] && !d->test_y[0]) {
        return fl_conf_fail(e, at, FL_R_CONF_MISSING, "test_y (the labels) is missing");
    }
    if (d->partition == FL_PARTITION_COLUMN && (d->format != FL_DATA_CSV || !d->column[0])) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "partition column needs csv and the name of the column");
    }
    if (d->partition == FL_PARTITION_FILE && (d->format == FL_DATA_CSV || !d->clients[0])) {
        return fl_conf_fail(e, at, FL_R_CONF_CONFLICT,
                            "partition file needs a file of client numbers (clients), and no csv");
    }
    if (d->format == FL_DATA_IDX && !d->classes) {
        return fl_conf_fail(e, at, FL_R_CONF_MISSING, "classes is missing");
    }
    return read_sizes(at, en, d, e);
}
