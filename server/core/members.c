#include "server/core/members.h"

#include "common/base/mem.h"

#include <assert.h>
#include <string.h>

int fl_members_init(struct fl_members *m, uint32_t capacity, struct fl_err *e)
{
    uint32_t size = 16;

    assert(capacity > 0 && capacity <= 4 * FL_ROUND_MEMBERS_MAX);
    while (size < 2 * capacity) {
        size *= 2;
    }
    struct fl_members made = {.capacity = capacity, .index_size = size};
    made.at = fl_try(capacity, sizeof *made.at);
    made.index = fl_try(size, sizeof *made.index);
    if (!made.at || !made.index) {
        fl_members_fini(&made);
        return fl_fail(e, FL_R_NOMEM, "a table of %u members", capacity);
    }
    *m = made;
    return 0;
}

void fl_members_fini(struct fl_members *m)
{
    fl_free(m->at);
    fl_free(m->index);
    memset(m, 0, sizeof *m);
}

void fl_members_clear(struct fl_members *m)
{
    m->count = 0;
    m->wanting = 0;
    memset(m->index, 0, m->index_size * sizeof *m->index);
}

/* The finaliser of splitmix64: ids are small numbers in a row. */
static uint32_t slot_of(const struct fl_members *m, uint64_t agent)
{
    agent = (agent ^ (agent >> 30)) * 0xbf58476d1ce4e5b9u;
    agent = (agent ^ (agent >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(agent ^ (agent >> 31)) & (m->index_size - 1);
}

static void index_add(struct fl_members *m, uint32_t place)
{
    uint32_t s = slot_of(m, m->at[place].agent);

    while (m->index[s]) {
        s = (s + 1) & (m->index_size - 1);
    }
    m->index[s] = place + 1;
}

struct fl_member *fl_members_find(const struct fl_members *m, uint64_t agent)
{
    if (!m->index) {
        return NULL;
    }
    for (uint32_t s = slot_of(m, agent); m->index[s]; s = (s + 1) & (m->index_size - 1)) {
        struct fl_member *one = &m->at[m->index[s] - 1];
        if (one->agent == agent) {
            return one;
        }
    }
    return NULL;
}

/* How willingly a place is given up; 0 = never. */
static int spare(const struct fl_member *one, bool must)
{
    if (one->want || one->tasked) {
        return 0;
    }
    switch ((enum fl_member_state)one->state) {
    case FL_MEMBER_DECLINED:
        return 3;
    case FL_MEMBER_ENLISTED:
        return one->worked ? (must ? 1 : 0) : 3;
    case FL_MEMBER_FAILED:
        return 2;
    case FL_MEMBER_ACCEPTED:
        return (one->late || must) && !one->connected ? 1 : 0;
    default:
        return 0;
    }
}

static struct fl_member *give_up_one(struct fl_members *m, bool must)
{
    struct fl_member *best = NULL;
    int best_spare = 0;

    for (uint32_t i = 0; i < m->count; i++) {
        struct fl_member *one = &m->at[i];
        int s = spare(one, must);
        if (s > best_spare || (s && s == best_spare && one->since_ms < best->since_ms)) {
            best = one;
            best_spare = s;
        }
    }
    return best;
}

struct fl_member *fl_members_add(struct fl_members *m, uint64_t agent, bool must)
{
    struct fl_member *one;

    if (m->count < m->capacity) {
        one = &m->at[m->count];
        *one = (struct fl_member){.agent = agent};
        index_add(m, m->count++);
        return one;
    }
    one = give_up_one(m, must);
    if (one) {
        *one = (struct fl_member){.agent = agent};
        memset(m->index, 0, m->index_size * sizeof *m->index);
        for (uint32_t i = 0; i < m->count; i++) {
            index_add(m, i);
        }
    }
    return one;
}

void fl_members_want(struct fl_members *m, struct fl_member *one, unsigned want)
{
    if (!one->want && want) {
        m->wanting++;
    }
    one->want = (uint16_t)(one->want | want);
}

void fl_members_unwant(struct fl_members *m, struct fl_member *one, unsigned want)
{
    if (one->want && !(one->want & ~want)) {
        m->wanting--;
    }
    one->want = (uint16_t)(one->want & ~want);
}
