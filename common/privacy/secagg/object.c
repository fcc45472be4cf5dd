#include "common/privacy/secagg/object.h"

#include "common/base/mem.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

void fl_secagg_bytes_free(struct fl_secagg_bytes *b)
{
    if (b && b->bytes) {
        sodium_memzero(b->bytes, b->size);
        fl_free(b->bytes);
        *b = (struct fl_secagg_bytes){NULL, 0};
    }
}

uint32_t fl_set_count(const uint8_t *set, uint32_t members)
{
    uint32_t count = 0;

    for (size_t i = 0; i < fl_set_size(members); i++) {
        count += (uint32_t)__builtin_popcount(set[i]);
    }
    return count;
}

/* ---- reading ---- */

/* What is left to read. After the first piece that is not there, nothing is there any more. */
struct in {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct in *in, size_t size)
{
    const uint8_t *at = in->at;

    if (in->bad || size > in->left) {
        in->bad = true;
        return NULL;
    }
    in->at += size;
    in->left -= size;
    return at;
}

static uint32_t take_u32(struct in *in)
{
    const uint8_t *at = take(in, 4);

    return at ? fl_get_u32(at) : 0;
}

/* A length of 2 bytes, 1..max, and that many bytes. */
static const uint8_t *take_short(struct in *in, uint32_t max, uint32_t *ret_size)
{
    const uint8_t *at = take(in, 2);

    *ret_size = at ? (uint32_t)(at[0] | at[1] << 8) : 0;
    if (*ret_size == 0 || *ret_size > max) {
        in->bad = true;
    }
    return take(in, *ret_size);
}

static const uint8_t *take_set(struct in *in, uint32_t members)
{
    const uint8_t *set = take(in, fl_set_size(members));

    if (set && members % 8 && set[members / 8] >> (members % 8)) {
        in->bad = true;
    }
    return set;
}

static void take_advert(struct in *in, struct fl_advert_view *ret)
{
    ret->c_public = take(in, FL_SECAGG_KEY_SIZE);
    ret->s_public = take(in, FL_SECAGG_KEY_SIZE);
    ret->cert = take_short(in, FL_SECAGG_CERT_MAX, &ret->cert_size);
    ret->sig = take_short(in, FL_SECAGG_SIG_MAX, &ret->sig_size);
}

static void take_proof(struct in *in, struct fl_proof_view *ret)
{
    ret->index = take_u32(in);
    ret->cert = take_short(in, FL_SECAGG_CERT_MAX, &ret->cert_size);
    ret->sig = take_short(in, FL_SECAGG_SIG_MAX, &ret->sig_size);
}

static int head(enum fl_secagg_object object, const struct fl_digest *context, struct in *in,
                struct fl_err *e)
{
    const uint8_t start[8] = {'C', 'S', 'A', '1', (uint8_t)object};
    const uint8_t *at = take(in, FL_SECAGG_HEAD_SIZE);

    if (!at || memcmp(at, start, sizeof start) != 0) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "not object %d of a secure sum", object);
    }
    if (memcmp(at + sizeof start, context->bytes, sizeof context->bytes) != 0) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "object %d of another secure sum", object);
    }
    return 0;
}

static int done(enum fl_secagg_object object, const struct in *in, struct fl_err *e)
{
    if (in->bad || in->left > 0) {
        return fl_fail(e, FL_R_SECAGG_OBJECT, "object %d of a secure sum: wrong length or number",
                       object);
    }
    return 0;
}

int fl_advert_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   struct fl_advert_view *ret, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_ADVERT, context, &in, e);

    if (r < 0) {
        return r;
    }
    take_advert(&in, ret);
    return done(FL_SECAGG_ADVERT, &in, e);
}

int fl_roster_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   struct fl_roster_view *ret, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_ROSTER, context, &in, e);

    if (r < 0) {
        return r;
    }
    ret->members = take_u32(&in);
    ret->neighbours = take_u32(&in);
    ret->threshold = take_u32(&in);
    if (ret->members < 2 || ret->members > FL_SECAGG_MEMBERS_MAX || ret->neighbours < 1 ||
        ret->neighbours >= ret->members || ret->neighbours > FL_SECAGG_NEIGHBOURS_MAX) {
        in.bad = true;
    }
    ret->entries = take(&in, (size_t)ret->members * FL_SECAGG_ENTRY_SIZE);
    ret->adverts = in.at;
    ret->adverts_size = in.left;
    for (uint32_t i = 0; i < ret->neighbours && !in.bad; i++) {
        struct fl_advert_view advert;
        take_advert(&in, &advert);
    }
    return done(FL_SECAGG_ROSTER, &in, e);
}

void fl_roster_next(const struct fl_roster_view *r, size_t *at, struct fl_advert_view *ret)
{
    struct in in = {r->adverts + *at, r->adverts_size - *at, false};

    take_advert(&in, ret);
    *at = r->adverts_size - in.left;
}

void fl_roster_digest(const struct fl_digest *context, const struct fl_roster_view *r,
                      struct fl_digest *ret)
{
    static const char label[] = "cohort secagg roster 1"; /* with its zero */
    const uint32_t numbers[3] = {r->members, r->neighbours, r->threshold};
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, label, sizeof label);
    fl_hash_add(&h, context->bytes, sizeof context->bytes);
    for (int i = 0; i < 3; i++) {
        uint8_t le[4];
        fl_put_u32(le, numbers[i]);
        fl_hash_add(&h, le, sizeof le);
    }
    fl_hash_add(&h, r->entries, (size_t)r->members * FL_SECAGG_ENTRY_SIZE);
    fl_hash_end(&h, ret);
}

int fl_shares_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t neighbours, struct fl_shares_view *ret, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_SHARES, context, &in, e);

    if (r < 0) {
        return r;
    }
    ret->commitment = take(&in, FL_DIGEST_SIZE);
    ret->self_checks = take(&in, ((size_t)neighbours + 1) * FL_SECAGG_CHECK_SIZE);
    ret->pair_checks = take(&in, (size_t)neighbours * FL_SECAGG_CHECK_SIZE);
    ret->ciphers = take(&in, (size_t)neighbours * FL_SECAGG_CIPHER_SIZE);
    return done(FL_SECAGG_SHARES, &in, e);
}

int fl_delivery_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                     uint32_t members, struct fl_delivery_view *ret, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_DELIVERY, context, &in, e);

    if (r < 0) {
        return r;
    }
    ret->set = take_set(&in, members);
    ret->count = take_u32(&in);
    if (ret->count > FL_SECAGG_NEIGHBOURS_MAX) {
        in.bad = true;
    }
    ret->items = take(&in, (size_t)ret->count * FL_DELIVERY_ITEM);
    return done(FL_SECAGG_DELIVERY, &in, e);
}

int fl_survivors_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                      uint32_t members, const uint8_t **ret_set, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_SURVIVORS, context, &in, e);

    if (r < 0) {
        return r;
    }
    *ret_set = take_set(&in, members);
    return done(FL_SECAGG_SURVIVORS, &in, e);
}

int fl_masked_head_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                        struct fl_err *e)
{
    struct in in = {bytes, size, false};

    return head(FL_SECAGG_MASKED, context, &in, e);
}

int fl_signed_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t members, struct fl_signed_view *ret, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_SIGNED, context, &in, e);

    if (r < 0) {
        return r;
    }
    ret->sig = take_short(&in, FL_SECAGG_SIG_MAX, &ret->sig_size);
    ret->count = take_u32(&in);
    ret->sample = ret->count < members ? take(&in, (size_t)ret->count * 4) : NULL;
    for (uint32_t i = 0; ret->sample && i < ret->count; i++) {
        uint32_t now = fl_get_u32(ret->sample + 4 * (size_t)i);
        if (now >= members || (i > 0 && now <= fl_get_u32(ret->sample + 4 * (size_t)(i - 1)))) {
            in.bad = true;
        }
    }
    in.bad |= !ret->sample;
    return done(FL_SECAGG_SIGNED, &in, e);
}

int fl_proofs_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t members, struct fl_proofs_view *ret, struct fl_err *e)
{
    struct in in = {bytes, size, false};
    uint32_t last = 0;
    int r = head(FL_SECAGG_PROOFS, context, &in, e);

    if (r < 0) {
        return r;
    }
    ret->count = take_u32(&in);
    ret->items = in.at;
    ret->items_size = in.left;
    for (uint32_t i = 0; i < ret->count && !in.bad; i++) {
        struct fl_proof_view proof;
        take_proof(&in, &proof);
        if (proof.index >= members || (i > 0 && proof.index <= last)) {
            in.bad = true;
        }
        last = proof.index;
    }
    return done(FL_SECAGG_PROOFS, &in, e);
}

void fl_proofs_next(const struct fl_proofs_view *p, size_t *at, struct fl_proof_view *ret)
{
    struct in in = {p->items + *at, p->items_size - *at, false};

    take_proof(&in, ret);
    *at = p->items_size - in.left;
}

int fl_reveal_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t members, struct fl_reveal_view *ret, struct fl_err *e)
{
    static const uint8_t none[FL_REVEAL_ITEM - 5];
    struct in in = {bytes, size, false};
    int r = head(FL_SECAGG_REVEAL, context, &in, e);

    if (r < 0) {
        return r;
    }
    ret->self = take(&in, 32);
    ret->count = take_u32(&in);
    if (ret->count > FL_SECAGG_NEIGHBOURS_MAX) {
        in.bad = true;
    }
    ret->items = take(&in, (size_t)ret->count * FL_REVEAL_ITEM);
    for (uint32_t i = 0; ret->items && i < ret->count; i++) {
        const uint8_t *item = ret->items + (size_t)i * FL_REVEAL_ITEM;
        uint32_t index = fl_get_u32(item);
        if (index >= members || item[4] > FL_SECAGG_PAIR ||
            (item[4] == FL_SECAGG_NONE && memcmp(item + 5, none, sizeof none) != 0) ||
            (i > 0 && index <= fl_get_u32(item - FL_REVEAL_ITEM))) {
            in.bad = true;
        }
    }
    return done(FL_SECAGG_REVEAL, &in, e);
}

/* ---- writing ---- */

int fl_out_begin(struct fl_secagg_out *o, enum fl_secagg_object object,
                 const struct fl_digest *context, size_t size, struct fl_secagg_bytes *ret,
                 struct fl_err *e)
{
    const uint8_t start[8] = {'C', 'S', 'A', '1', (uint8_t)object};

    if (!fl_add(size, FL_SECAGG_HEAD_SIZE, &size) ||
        (object != FL_SECAGG_MASKED && size > FL_SECAGG_OBJECT_MAX)) {
        return fl_fail(e, FL_R_LIMIT, "an object of a secure sum would be too long");
    }
    *ret = (struct fl_secagg_bytes){fl_try(size, 1), size};
    if (!ret->bytes) {
        ret->size = 0;
        return fl_fail(e, FL_R_NOMEM, "an object of %zu bytes", size);
    }
    *o = (struct fl_secagg_out){ret, 0};
    fl_out_put(o, start, sizeof start);
    fl_out_put(o, context->bytes, sizeof context->bytes);
    return 0;
}

void fl_out_put(struct fl_secagg_out *o, const void *bytes, size_t size)
{
    assert(size <= o->to->size - o->at);
    if (size > 0) {
        memcpy(o->to->bytes + o->at, bytes, size);
        o->at += size;
    }
}

void fl_out_u32(struct fl_secagg_out *o, uint32_t number)
{
    uint8_t le[4];

    fl_put_u32(le, number);
    fl_out_put(o, le, sizeof le);
}

void fl_out_short(struct fl_secagg_out *o, const uint8_t *bytes, uint32_t size)
{
    const uint8_t le[2] = {(uint8_t)size, (uint8_t)(size >> 8)};

    assert(size > 0 && size <= UINT16_MAX);
    fl_out_put(o, le, sizeof le);
    fl_out_put(o, bytes, size);
}

void fl_out_end(const struct fl_secagg_out *o)
{
    assert(o->at == o->to->size);
}
