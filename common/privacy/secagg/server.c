/*
 * The coordinator's side. It is told objects and when a stage is over; what it answers follows from
 * them alone, so that after a restart the same objects, told again, give the same answers, byte for
 * byte. An object that is not right costs its sender the round, never the round itself.
 *
 * It checks what it passes on (signatures, shares against what their dealers published): not to
 * protect the agents, who check for themselves, but because one wrong piece would end the work of
 * every honest neighbour. A share that is not the one dealt names its holder; shares which are what
 * was dealt and still do not fit together name the dealer.
 */
#include "common/privacy/secagg/server_in.h"

#include "common/base/mem.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

int fl_secagg_server_new(const struct fl_secagg_setup *setup,
                         const struct fl_secagg_identity *identity, struct fl_secagg_server **ret,
                         struct fl_err *e)
{
    int r = fl_secagg_setup_check(setup, e);

    if (r < 0) {
        return r;
    }
    struct fl_secagg_server *s = fl_try(1, sizeof *s);
    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "the coordinator's side of a secure sum");
    }
    s->setup = *setup;
    s->identity = identity;
    *ret = s;
    return 0;
}

int fl_secagg_server_part(const struct fl_secagg_server *from, const uint64_t *agents,
                          uint32_t count, struct fl_secagg_server **ret, struct fl_err *e)
{
    struct fl_secagg_server *s;
    int r = fl_secagg_server_new(&from->setup, from->identity, &s, e);

    if (r < 0) {
        return r;
    }
    s->member = fl_try(count ? count : 1, sizeof *s->member);
    for (uint32_t i = 0; s->member && i < count; i++) {
        const struct fl_server_member *m = fl_server_find(from, agents[i]);
        const struct fl_secagg_bytes *o = &m->object[FL_SECAGG_ADVERTISE];
        struct fl_server_member *to = &s->member[s->count++];
        *to = (struct fl_server_member){.agent = m->agent};
        memcpy(to->principal, m->principal, sizeof to->principal);
        to->digest[FL_SECAGG_ADVERTISE] = m->digest[FL_SECAGG_ADVERTISE];
        to->has[FL_SECAGG_ADVERTISE] = true;
        to->object[FL_SECAGG_ADVERTISE] = (struct fl_secagg_bytes){fl_try(o->size, 1), o->size};
        if (!to->object[FL_SECAGG_ADVERTISE].bytes) {
            fl_secagg_server_free(s);
            return fl_fail(e, FL_R_NOMEM, "keys of %u agents", count);
        }
        memcpy(to->object[FL_SECAGG_ADVERTISE].bytes, o->bytes, o->size);
    }
    if (!s->member) {
        fl_secagg_server_free(s);
        return fl_fail(e, FL_R_NOMEM, "keys of %u agents", count);
    }
    *ret = s;
    return 0;
}

void fl_secagg_server_free(struct fl_secagg_server *s)
{
    if (!s) {
        return;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        for (int o = 0; o < FL_SECAGG_STAGES; o++) {
            fl_secagg_bytes_free(&s->member[i].object[o]);
        }
    }
    if (s->mask) {
        sodium_memzero(s->mask, s->mask_count * sizeof *s->mask);
    }
    fl_free(s->mask);
    fl_free(s->member);
    fl_free(s->near);
    fl_free(s->by_agent);
    fl_free(s->entries);
    fl_free(s->set[0]);
    fl_free(s->set[1]);
    fl_free(s->words);
    fl_free(s->tile);
    fl_free(s);
}

enum fl_secagg_stage fl_secagg_server_stage(const struct fl_secagg_server *s)
{
    return s->stage;
}

struct fl_server_member *fl_server_find(const struct fl_secagg_server *s, uint64_t agent)
{
    if (!s->by_agent) { /* still collecting: in order of arrival */
        for (uint32_t i = 0; i < s->count; i++) {
            if (s->member[i].agent == agent) {
                return &s->member[i];
            }
        }
        return NULL;
    }
    uint32_t low = 0, high = s->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->member[s->by_agent[middle]].agent < agent) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->count && s->member[s->by_agent[low]].agent == agent
               ? &s->member[s->by_agent[low]]
               : NULL;
}

const uint32_t *fl_server_near(const struct fl_secagg_server *s, uint32_t index)
{
    return s->near + (size_t)index * s->rule.neighbours;
}

/* ---- taking ---- */

/* Its agreements are not zero. One such key would stop every neighbour of the agent. */
static bool usable(const uint8_t public[FL_SECAGG_KEY_SIZE])
{
    static const uint8_t any[FL_SECAGG_KEY_SIZE] = {1};
    uint8_t shared[FL_SECAGG_KEY_SIZE];

    return fl_secagg_agree(any, public, shared);
}

/* Whose keys they are, when there is nothing wrong with them. */
static int judge_advert(const struct fl_secagg_server *s, uint64_t agent, const uint8_t *bytes,
                        size_t size, uint8_t ret_principal[FL_SECAGG_PRINCIPAL_SIZE],
                        struct fl_err *e)
{
    const struct fl_secagg_identity *id = s->identity;
    struct fl_advert_view v;
    struct fl_digest message;
    int r = fl_advert_read(&s->setup.context, bytes, size, &v, e);

    if (r < 0) {
        return r;
    }
    if (s->count == s->setup.members_max) {
        return fl_fail(e, FL_R_LIMIT, "%u agents take part already", s->count);
    }
    fl_secagg_advert_message(&s->setup.context, v.c_public, v.s_public, &message);
    r = id->verify(id->arg, v.cert, v.cert_size, message.bytes, sizeof message.bytes, v.sig,
                   v.sig_size, ret_principal, e);
    if (r < 0) {
        return fl_wrap(e, r, "keys of agent %016llx", (unsigned long long)agent);
    }
    if (!usable(v.c_public) || !usable(v.s_public)) {
        return fl_fail(e, FL_R_SECAGG_KEYS, "a public key of small order");
    }
    for (uint32_t i = 0; i < s->count; i++) {
        if (memcmp(s->member[i].principal, ret_principal, FL_SECAGG_PRINCIPAL_SIZE) == 0) {
            return fl_fail(e, FL_R_SECAGG_KEYS, "another agent has this certificate's key");
        }
    }
    return 0;
}

static int judge_shares(const struct fl_secagg_server *s, const uint8_t *bytes, size_t size,
                        struct fl_err *e)
{
    struct fl_shares_view v;

    return fl_shares_read(&s->setup.context, bytes, size, s->rule.neighbours, &v, e);
}

static int judge_signed(const struct fl_secagg_server *s, const struct fl_server_member *m,
                        const uint8_t *bytes, size_t size, struct fl_err *e)
{
    const struct fl_secagg_identity *id = s->identity;
    uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE];
    struct fl_advert_view advert;
    struct fl_signed_view v;
    struct fl_digest message;
    int r = fl_signed_read(&s->setup.context, bytes, size, s->count, &v, e);

    if (r < 0) {
        return r;
    }
    if (v.count > s->rule.sample) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "a sample of %u, at most %u is asked for", v.count,
                       s->rule.sample);
    }
    fl_server_advert(s, m, &advert);
    fl_secagg_view_message(&s->view, s->set[0], s->set[1], fl_set_size(s->count), &message);
    r = id->verify(id->arg, advert.cert, advert.cert_size, message.bytes, sizeof message.bytes,
                   v.sig, v.sig_size, principal, e);
    return r < 0 ? fl_wrap(e, r, "survivors signed by agent %016llx", (unsigned long long)m->agent)
                 : 0;
}

/* Each share is of the kind that was to be revealed and the one that its dealer published. */
static int judge_reveal(const struct fl_secagg_server *s, uint32_t index, const uint8_t *bytes,
                        size_t size, struct fl_err *e)
{
    const uint32_t *neighbour = fl_server_near(s, index);
    uint32_t expected = 0;
    struct fl_reveal_view v;
    int r = fl_reveal_read(&s->setup.context, bytes, size, s->count, &v, e);

    if (r < 0) {
        return r;
    }
    if (!fl_server_share_fits(s, index, FL_SECAGG_SELF, index, v.self)) {
        return fl_fail(e, FL_R_SECAGG_SHARE, "its own share is not the one it dealt");
    }
    for (uint32_t i = 0; i < s->rule.neighbours; i++) {
        if (!fl_set_has(s->set[0], neighbour[i])) {
            continue;
        }
        const uint8_t *item = v.items + (size_t)expected * FL_REVEAL_ITEM;
        if (expected == v.count || fl_get_u32(item) != neighbour[i]) {
            return fl_fail(e, FL_R_SECAGG_OBJECT, "no share of neighbour %u", neighbour[i]);
        }
        expected++;
        uint8_t kind = fl_set_has(s->set[1], neighbour[i]) ? FL_SECAGG_SELF : FL_SECAGG_PAIR;
        if (item[4] == FL_SECAGG_NONE) {
            continue;
        }
        if (item[4] != kind) {
            return fl_fail(e, FL_R_SECAGG_SHARE, "the wrong kind of share of neighbour %u",
                           neighbour[i]);
        }
        if (!fl_server_share_fits(s, neighbour[i], kind, index, item + 5)) {
            return fl_fail(e, FL_R_SECAGG_SHARE, "a share that neighbour %u did not deal",
                           neighbour[i]);
        }
    }
    if (expected != v.count) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "shares of agents that are no neighbours");
    }
    return 0;
}

/* Whether an object is welcome, told before anything in it is looked at: 0 = new, 1 = here already.
 */
static int admit(const struct fl_secagg_server *s, enum fl_secagg_stage stage,
                 const struct fl_server_member *m, const struct fl_digest *digest, struct fl_err *e)
{
    if (m && m->has[stage]) {
        if (fl_digest_equal(&m->digest[stage], digest)) {
            return 1;
        }
        return fl_fail(e, FL_R_UPDATE_CONFLICT, "other bytes of this agent are in stage %s",
                       fl_secagg_stage_name(stage));
    }
    if (stage != s->stage) {
        return fl_fail(e, stage < s->stage ? FL_R_ROUND_OVER : FL_R_MSG_ORDER,
                       "stage %s of the secure sum is %s", fl_secagg_stage_name(stage),
                       stage < s->stage ? "closed" : "not open yet");
    }
    if (stage > FL_SECAGG_ADVERTISE && (!m || !m->has[stage - 1])) {
        return fl_fail(e, FL_R_NOT_MEMBER, "the agent was not in stage %s",
                       fl_secagg_stage_name((enum fl_secagg_stage)(stage - 1)));
    }
    return 0;
}

/* An object of the current stage, which is not here yet; nothing is changed. */
static int judge(const struct fl_secagg_server *s, enum fl_secagg_stage stage, uint64_t agent,
                 const uint8_t *bytes, size_t size, uint8_t ret_principal[FL_SECAGG_PRINCIPAL_SIZE],
                 struct fl_err *e)
{
    const struct fl_server_member *m = fl_server_find(s, agent);

    switch (stage) {
    case FL_SECAGG_ADVERTISE:
        return judge_advert(s, agent, bytes, size, ret_principal, e);
    case FL_SECAGG_SHARE:
        return judge_shares(s, bytes, size, e);
    case FL_SECAGG_SIGN:
        return judge_signed(s, m, bytes, size, e);
    default:
        return judge_reveal(s, (uint32_t)(m - s->member), bytes, size, e);
    }
}

/* 0 = new and right, 1 = here already. */
static int welcome(const struct fl_secagg_server *s, enum fl_secagg_stage stage, uint64_t agent,
                   const uint8_t *bytes, size_t size, struct fl_digest *ret_digest,
                   uint8_t ret_principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e)
{
    if (stage >= FL_SECAGG_STAGES || stage == FL_SECAGG_MASK) {
        return fl_fail(e, FL_R_MSG_ORDER, "not a stage of small objects");
    }
    if (size > FL_SECAGG_OBJECT_MAX) {
        return fl_fail(e, FL_R_LIMIT, "an object of %zu bytes", size);
    }
    fl_digest_of(bytes, size, ret_digest);
    int r = admit(s, stage, fl_server_find(s, agent), ret_digest, e);
    return r != 0 ? r : judge(s, stage, agent, bytes, size, ret_principal, e);
}

int fl_secagg_server_judge(const struct fl_secagg_server *s, enum fl_secagg_stage stage,
                           uint64_t agent, const uint8_t *bytes, size_t size,
                           const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e)
{
    uint8_t found[FL_SECAGG_PRINCIPAL_SIZE];
    struct fl_digest digest;
    int r = welcome(s, stage, agent, bytes, size, &digest, found, e);

    if (r == 0 && stage == FL_SECAGG_ADVERTISE && memcmp(found, principal, sizeof found) != 0) {
        r = fl_fail(e, FL_R_SECAGG_KEYS, "keys signed by another certificate than the sender's");
    }
    return r < 0 ? r : 0;
}

int fl_secagg_server_take(struct fl_secagg_server *s, enum fl_secagg_stage stage, uint64_t agent,
                          const uint8_t *bytes, size_t size, struct fl_err *e)
{
    struct fl_server_member fresh = {.agent = agent}, *m = fl_server_find(s, agent);
    struct fl_digest digest;
    int r = welcome(s, stage, agent, bytes, size, &digest, fresh.principal, e);

    if (r != 0) {
        return r < 0 ? r : 0;
    }
    uint8_t *copy = fl_try(size > 0 ? size : 1, 1);
    if (!copy || (stage == FL_SECAGG_ADVERTISE &&
                  !fl_try_grow((void **)&s->member, s->count + 1, sizeof *s->member))) {
        fl_free(copy);
        return fl_fail(e, FL_R_NOMEM, "an object of %zu bytes", size);
    }
    if (stage == FL_SECAGG_ADVERTISE) {
        m = &s->member[s->count++];
        *m = fresh;
    }
    memcpy(copy, bytes, size);
    m->object[stage] = (struct fl_secagg_bytes){copy, size};
    m->digest[stage] = digest;
    m->has[stage] = true;
    return 0;
}

static int ascending(const void *x, const void *y)
{
    const uint64_t *a = x, *b = y;

    return (*a > *b) - (*a < *b);
}

uint32_t fl_secagg_server_taken(const struct fl_secagg_server *s, uint64_t *ret, uint32_t max)
{
    uint32_t count = 0;

    for (uint32_t i = 0; s->stage < FL_SECAGG_STAGES && i < s->count; i++) {
        if (s->member[i].has[s->stage]) {
            if (count < max) {
                ret[count] = s->member[i].agent;
            }
            count++;
        }
    }
    if (count > 0 && count <= max) {
        qsort(ret, count, sizeof *ret, ascending);
    }
    return count;
}

void fl_secagg_server_reset(struct fl_secagg_server *s)
{
    enum fl_secagg_stage stage = s->stage;

    for (uint32_t i = 0; stage < FL_SECAGG_STAGES && i < s->count; i++) {
        fl_secagg_bytes_free(&s->member[i].object[stage]);
        s->member[i].has[stage] = false;
    }
    if (stage == FL_SECAGG_ADVERTISE) {
        s->count = 0;
    } else if (stage == FL_SECAGG_MASK) {
        memset(s->words, 0, s->setup.count * fl_ring_word(s->setup.bits));
        s->spoilt = false;
    }
}

/* The last byte's unused bits, before anything is added. */
static int masked_judge(const struct fl_secagg_server *s, const struct fl_secagg_source *from,
                        struct fl_err *e)
{
    uint8_t head[FL_SECAGG_HEAD_SIZE], last;
    size_t packed;
    int r;

    if (!fl_ring_bytes(s->setup.bits, s->setup.count, &packed) ||
        from->size != packed + FL_SECAGG_HEAD_SIZE) {
        return fl_fail(e, FL_R_UPDATE_LENGTH, "a masked vector of %llu bytes",
                       (unsigned long long)from->size);
    }
    if ((r = from->read(from->arg, 0, head, sizeof head, e)) < 0 ||
        (r = fl_masked_head_read(&s->setup.context, head, sizeof head, e)) < 0) {
        return r;
    }
    uint32_t used = (uint32_t)(s->setup.count * s->setup.bits % 8);
    if (used > 0) {
        r = from->read(from->arg, from->size - 1, &last, 1, e);
        if (r == 0 && last >> used) {
            r = fl_fail(e, FL_R_UPDATE_RANGE, "bits behind the last word of a masked vector");
        }
    }
    return r;
}

int fl_secagg_server_judge_masked(const struct fl_secagg_server *s, uint64_t agent,
                                  const struct fl_secagg_source *from, struct fl_err *e)
{
    static const struct fl_digest unknown;
    const struct fl_server_member *m = fl_server_find(s, agent);
    int r = masked_judge(s, from, e);

    if (r < 0 || (m && m->has[FL_SECAGG_MASK])) {
        return r; /* which bytes are here is told when they are added */
    }
    return admit(s, FL_SECAGG_MASK, m, &unknown, e);
}

/* The digest of what was read is what makes a repetition the same. */
static int masked_digest(struct fl_secagg_server *s, const struct fl_secagg_source *from,
                         struct fl_digest *ret, struct fl_err *e)
{
    struct fl_hash h;

    fl_hash_init(&h);
    for (uint64_t at = 0; at < from->size; at += FL_MASK_TILE) {
        size_t some =
            from->size - at < FL_MASK_TILE ? (size_t)(from->size - at) : (size_t)FL_MASK_TILE;
        int r = from->read(from->arg, at, s->tile, some, e);
        if (r < 0) {
            return r;
        }
        fl_hash_add(&h, s->tile, some);
    }
    fl_hash_end(&h, ret);
    return 0;
}

int fl_secagg_server_masked(struct fl_secagg_server *s, uint64_t agent,
                            const struct fl_secagg_source *from, struct fl_err *e)
{
    struct fl_server_member *m = fl_server_find(s, agent);
    size_t tile_words = fl_ring_tile(s->setup.bits);
    struct fl_digest digest = {{0}};
    int r;

    if (s->spoilt) {
        return fl_fail(e, FL_R_INTERNAL, "the sum is spoilt by a failed read");
    }
    if ((r = masked_judge(s, from, e)) < 0 ||
        (!s->words && (r = admit(s, FL_SECAGG_MASK, m, &digest, e)) != 0)) {
        return r; /* there is no room before its stage */
    }
    if ((r = masked_digest(s, from, &digest, e)) < 0 ||
        (r = admit(s, FL_SECAGG_MASK, m, &digest, e)) != 0) {
        return r < 0 ? r : 0;
    }
    for (uint64_t first = 0; first < s->setup.count; first += tile_words) {
        uint64_t left = s->setup.count - first;
        size_t some = left < tile_words ? (size_t)left : tile_words, bytes = 0;
        (void)fl_ring_bytes(s->setup.bits, some, &bytes);
        r = from->read(from->arg, FL_SECAGG_HEAD_SIZE + first / 8 * s->setup.bits, s->tile, bytes,
                       e);
        if (r < 0) {
            s->spoilt = first > 0;
            return r;
        }
        fl_ring_unpack_add(s->setup.bits, s->tile, some,
                           (uint8_t *)s->words + first * fl_ring_word(s->setup.bits));
    }
    m->digest[FL_SECAGG_MASK] = digest;
    m->has[FL_SECAGG_MASK] = true;
    return 0;
}
