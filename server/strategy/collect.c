/*
 * The table of collectors, and `counts`: noised class counts, summed over the sites that sent them.
 * The noise was added at each site, so what is published here is post-processing.
 */
#include "server/strategy/collect.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/math/grid.h"

#include <math.h>
#include <string.h>

enum { HEAD = 16 };

struct counts {
    struct fl_grid grid;
    uint32_t classes, members;
    size_t size;
    double noise_std; /* of one site */
    int64_t *sum;
    uint8_t *packed;
};

static void counts_fini(void *collector)
{
    struct counts *c = collector;

    if (c) {
        fl_free(c->sum);
        fl_free(c->packed);
        fl_free(c);
    }
}

static int counts_init(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                       void **ret, struct fl_err *e)
{
    const struct fl_counts_conf *conf = &plan->counts;
    struct counts *c = fl_try(1, sizeof *c);

    if (c) {
        c->grid = (struct fl_grid){.bits = terms->grid.bits, .step = terms->grid.step};
        c->classes = (uint32_t)terms->elements;
        c->size = (size_t)terms->size;
        c->noise_std =
            conf->noise_multiplier * (plan->privacy.unit == FL_UNIT_CLIENT ? conf->bound : 1);
        c->sum = fl_try(c->classes, sizeof *c->sum);
        c->packed = fl_try(c->size, 1);
    }
    if (!c || !c->sum || !c->packed) {
        counts_fini(c);
        return fl_fail(e, FL_R_NOMEM, "counts of %zu classes", terms->elements);
    }
    *ret = c;
    return 0;
}

static void counts_reset(void *collector)
{
    struct counts *c = collector;

    memset(c->sum, 0, c->classes * sizeof *c->sum);
    c->members = 0;
}

static int counts_fold(void *collector, const struct fl_update *u, struct fl_err *e)
{
    struct counts *c = collector;

    if (u->size != c->size) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "%llu bytes of counts; %zu are expected",
                       (unsigned long long)u->size, c->size);
    }
    int r = u->read(u->arg, 0, c->packed, c->size, e);
    r = r ? r : fl_grid_fold(&c->grid, c->packed, c->size, 0, c->classes, 1, c->sum, e);
    c->members += r == 0;
    return r;
}

static int counts_finish(const void *collector, const struct fl_updates *updates, uint8_t **ret,
                         size_t *ret_size, struct fl_err *e)
{
    const struct counts *c = collector;
    size_t size = HEAD + (size_t)c->classes * 8;
    uint8_t *to = fl_try(size, 1);

    (void)updates;
    if (!to) {
        return fl_fail(e, FL_R_NOMEM, "counts of %u classes", c->classes);
    }
    fl_put_u32(to, c->members);
    fl_put_u32(to + 4, c->classes);
    fl_put_double(to + 8, c->noise_std * sqrt((double)c->members));
    for (uint32_t i = 0; i < c->classes; i++) {
        fl_put_double(to + HEAD + 8 * (size_t)i, ldexp((double)c->sum[i], c->grid.step));
    }
    *ret = to;
    *ret_size = size;
    return 0;
}

int fl_counts_view(const uint8_t *section, size_t size, struct fl_counts *ret, struct fl_err *e)
{
    if (size < HEAD || (size - HEAD) / 8 != fl_get_u32(section + 4) || (size - HEAD) % 8) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "counts of %zu bytes", size);
    }
    *ret = (struct fl_counts){.sites = fl_get_u32(section),
                              .classes = fl_get_u32(section + 4),
                              .noise_std = fl_get_double(section + 8),
                              .values = section + HEAD};
    return 0;
}

double fl_counts_at(const struct fl_counts *c, uint32_t i)
{
    return fl_get_double(c->values + 8 * (size_t)i);
}

static const struct fl_collector counts = {.exchange = "counts",
                                           .init = counts_init,
                                           .fini = counts_fini,
                                           .reset = counts_reset,
                                           .fold = counts_fold,
                                           .finish = counts_finish};
static const struct fl_collector *const table[] = {&counts, &fl_collect_score};

const struct fl_collector *fl_collector_find(const char *exchange)
{
    for (size_t i = 0; i < FL_COUNT(table); i++) {
        if (strcmp(table[i]->exchange, exchange) == 0) {
            return table[i];
        }
    }
    return NULL;
}
