/*
 * `score`: what each site's model is worth to it, noised at the site where the job has a unit.
 * Sites are kept apart, so that jobs can be compared site by site.
 */
#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "server/strategy/collect.h"

#include <math.h>
#include <string.h>

enum { HEAD = 16, EACH = 16, BYTES_MAX = 8 };

struct scores {
    struct fl_grid grid;
    size_t size;
    double noise_std;
};

static void score_fini(void *collector)
{
    fl_free(collector);
}

static int score_init(const struct fl_plan *plan, const struct fl_exchange_terms *terms, void **ret,
                      struct fl_err *e)
{
    struct scores *c = fl_try(1, sizeof *c);

    if (!c) {
        return fl_fail(e, FL_R_NOMEM, "scores");
    }
    *c = (struct scores){.grid = {.bits = terms->grid.bits, .step = terms->grid.step},
                         .size = (size_t)terms->size,
                         .noise_std = plan->score.noise_multiplier};
    *ret = c;
    return 0;
}

static void score_reset(void *collector)
{
    (void)collector; /* nothing is folded: finish reads the payloads */
}

static int read_one(const struct scores *c, const struct fl_update *u, int64_t *ret,
                    struct fl_err *e)
{
    uint8_t packed[BYTES_MAX];

    if (u->size != c->size || c->size > sizeof packed) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "%llu bytes of a score; %zu are expected",
                       (unsigned long long)u->size, c->size);
    }
    int r = u->read(u->arg, 0, packed, c->size, e);
    return r ? r : fl_grid_unpack(&c->grid, packed, c->size, 0, 1, ret, e);
}

static int score_fold(void *collector, const struct fl_update *u, struct fl_err *e)
{
    int64_t unused;
    return read_one(collector, u, &unused, e);
}

static int score_finish(const void *collector, const struct fl_updates *updates, uint8_t **ret,
                        size_t *ret_size, struct fl_err *e)
{
    const struct scores *c = collector;
    size_t size = HEAD + (size_t)updates->count * EACH;
    uint8_t *to = fl_try(size, 1);
    int64_t q;

    if (!to) {
        return fl_fail(e, FL_R_NOMEM, "scores of %u sites", updates->count);
    }
    fl_put_u32(to, updates->count);
    fl_put_double(to + 8, c->noise_std);
    for (uint32_t i = 0; i < updates->count; i++) {
        uint8_t *at = to + HEAD + (size_t)i * EACH;
        int r = read_one(c, &updates->at[i], &q, e);
        if (r) {
            fl_free(to);
            return r;
        }
        fl_put_u64(at, updates->at[i].agent);
        fl_put_double(at + 8, ldexp((double)q, c->grid.step));
    }
    *ret = to;
    *ret_size = size;
    return 0;
}

int fl_scores_view(const uint8_t *section, size_t size, struct fl_scores *ret, struct fl_err *e)
{
    if (size < HEAD || (size - HEAD) / EACH != fl_get_u32(section) || (size - HEAD) % EACH) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "scores of %zu bytes", size);
    }
    *ret = (struct fl_scores){.sites = fl_get_u32(section),
                              .noise_std = fl_get_double(section + 8),
                              .values = section + HEAD};
    return 0;
}

void fl_scores_at(const struct fl_scores *c, uint32_t i, uint64_t *ret_agent, double *ret_score)
{
    const uint8_t *at = c->values + (size_t)i * EACH;

    *ret_agent = fl_get_u64(at);
    *ret_score = fl_get_double(at + 8);
}

const struct fl_collector fl_collect_score = {.exchange = "score",
                                              .init = score_init,
                                              .fini = score_fini,
                                              .reset = score_reset,
                                              .fold = score_fold,
                                              .finish = score_finish};
