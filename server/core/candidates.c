#include "server/core/candidates.h"

#include "common/base/le.h"

#include "common/base/mem.h"

#include <assert.h>
#include <string.h>

int fl_candidates_init(struct fl_candidates *c, uint32_t capacity, struct fl_err *e)
{
    struct fl_candidates made = {.capacity = capacity};

    made.id = fl_try(capacity, sizeof *made.id);
    made.pool = fl_try(capacity, sizeof *made.pool);
    if (!made.id || !made.pool) {
        fl_candidates_fini(&made);
        return fl_fail(e, FL_R_NOMEM, "a list of %u candidates", capacity);
    }
    *c = made;
    return 0;
}

void fl_candidates_fini(struct fl_candidates *c)
{
    fl_free(c->id);
    fl_free(c->pool);
    memset(c, 0, sizeof *c);
}

/* Where it is, or where it belongs. */
static uint32_t place(const struct fl_candidates *c, uint64_t agent)
{
    uint32_t low = 0, high = c->count;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (c->id[mid] < agent) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

bool fl_candidates_has(const struct fl_candidates *c, uint64_t agent)
{
    uint32_t i = place(c, agent);
    return i < c->count && c->id[i] == agent;
}

bool fl_candidates_add(struct fl_candidates *c, uint64_t agent)
{
    uint32_t i = place(c, agent);

    if (i < c->count && c->id[i] == agent) {
        return true;
    }
    if (c->count == c->capacity) {
        return false;
    }
    memmove(&c->id[i + 1], &c->id[i], (c->count - i) * sizeof *c->id);
    c->id[i] = agent;
    c->count++;
    return true;
}

bool fl_candidates_remove(struct fl_candidates *c, uint64_t agent)
{
    uint32_t i = place(c, agent);

    if (i == c->count || c->id[i] != agent) {
        return false;
    }
    c->count--;
    memmove(&c->id[i], &c->id[i + 1], (c->count - i) * sizeof *c->id);
    return true;
}

void fl_candidates_stream(struct fl_rng *ret, uint64_t job_seed, const struct fl_key *key,
                          uint32_t drawn_before)
{
    struct fl_seed seed, next;

    static_assert(FL_INCARNATION_SIZE == 16, "two words");
    fl_seed_from_u64(job_seed, &seed);
    fl_seed_derive(&seed, "cohort incarnation low", fl_get_u64(key->incarnation), &next);
    fl_seed_derive(&next, "cohort incarnation high", fl_get_u64(key->incarnation + 8), &seed);
    fl_seed_derive(&seed, "cohort round", key->round, &next);
    fl_seed_derive(&next, "cohort exchange", key->exchange, &seed);
    fl_rng_init(ret, &seed, drawn_before);
}

uint32_t fl_candidates_draw(struct fl_rng *rng, uint64_t *pool, uint32_t count, uint32_t wanted)
{
    if (wanted > count) {
        wanted = count;
    }
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t j = i + (uint32_t)fl_rng_below(rng, count - i);
        uint64_t t = pool[i];
        pool[i] = pool[j];
        pool[j] = t;
    }
    return wanted;
}
