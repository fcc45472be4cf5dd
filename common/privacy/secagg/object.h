/*
 * What agents and coordinator of a secure sum send each other: objects of bytes, one up and one
 * down for each stage. This is the only place that reads or writes their layout (proto/WIRE.md,
 * section 11). Readers trust nothing: sizes and counts are checked before anything is looked at,
 * every object has exactly the length that its counts say, and nothing is allocated. Views point
 * into the bytes they were read from.
 *
 *   stage      up (agent)                                down (coordinator)
 *   ADVERTISE  two public keys, certificate, signature   ROSTER: everybody; the neighbours' keys
 *   SHARE      shares for the neighbours, sealed         DELIVERY: who dealt; shares from
 * neighbours MASK       the masked vector                         SURVIVORS: whose vector is in the
 * sum SIGN       a signature on what was shown, a sample   PROOFS: the sample's signatures REVEAL
 * one share of each neighbour
 */
#ifndef FL_PRIVACY_SECAGG_OBJECT_H
#define FL_PRIVACY_SECAGG_OBJECT_H

#include "common/base/le.h"
#include "common/privacy/secagg/keys.h"
#include "common/privacy/secagg/rule.h"

enum fl_secagg_object {
    FL_SECAGG_ADVERT = 1,
    FL_SECAGG_ROSTER,
    FL_SECAGG_SHARES,
    FL_SECAGG_DELIVERY,
    FL_SECAGG_MASKED,
    FL_SECAGG_SURVIVORS,
    FL_SECAGG_SIGNED,
    FL_SECAGG_PROOFS,
    FL_SECAGG_REVEAL,
};

enum {
    FL_SECAGG_HEAD_SIZE = 40, /* "CSA1", the object's number, three zeros, the context */
    FL_SECAGG_CERT_MAX = 2048,
    FL_SECAGG_SIG_MAX = 256,
    FL_SECAGG_ENTRY_SIZE = FL_SECAGG_PRINCIPAL_SIZE + FL_SECAGG_CHECK_SIZE,
    FL_SECAGG_SAMPLE_MAX = FL_SECAGG_MEMBERS_MAX,
    /* The largest of the small objects: a roster of everybody with the most neighbours. */
    FL_SECAGG_OBJECT_MAX = 8 << 20,
};

/* Bytes that own themselves; fl_secagg_bytes_free wipes them. */
struct fl_secagg_bytes {
    uint8_t *bytes;
    size_t size;
};
void fl_secagg_bytes_free(struct fl_secagg_bytes *b);

/* Sets of agents: bit i is agent i of the roster; bits behind the last are zero. */
static inline size_t fl_set_size(uint32_t members)
{
    return (members + 7) / 8;
}
static inline bool fl_set_has(const uint8_t *set, uint32_t i)
{
    return set[i / 8] >> (i % 8) & 1;
}
static inline void fl_set_add(uint8_t *set, uint32_t i)
{
    set[i / 8] = (uint8_t)(set[i / 8] | 1U << (i % 8));
}
uint32_t fl_set_count(const uint8_t *set, uint32_t members);

/* ---- reading: -FL_R_SECAGG_OBJECT for whatever is not exactly such an object ---- */

struct fl_advert_view {
    const uint8_t *c_public, *s_public, *cert, *sig;
    uint32_t cert_size, sig_size;
};
int fl_advert_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   struct fl_advert_view *ret, struct fl_err *e);

struct fl_roster_view {
    uint32_t members, neighbours, threshold;
    const uint8_t *entries; /* members times principal and keys' digest */
    const uint8_t *adverts; /* `neighbours` of them, to be walked with fl_roster_next */
    size_t adverts_size;
};
/* Adverts are checked for shape here, once. */
int fl_roster_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   struct fl_roster_view *ret, struct fl_err *e);
/* The next advert; *at begins at 0. Only for what fl_roster_read accepted. */
void fl_roster_next(const struct fl_roster_view *r, size_t *at, struct fl_advert_view *ret);
/* The digest that binds everything which follows: of the numbers and entries. */
void fl_roster_digest(const struct fl_digest *context, const struct fl_roster_view *r,
                      struct fl_digest *ret);

struct fl_shares_view {
    const uint8_t *commitment;  /* FL_DIGEST_SIZE, of b */
    const uint8_t *self_checks; /* neighbours + 1: the dealer's own first, then by index */
    const uint8_t *pair_checks; /* neighbours */
    const uint8_t *ciphers;     /* neighbours */
};
int fl_shares_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t neighbours, struct fl_shares_view *ret, struct fl_err *e);

enum { FL_DELIVERY_ITEM = FL_SECAGG_CIPHER_SIZE + 2 * FL_SECAGG_CHECK_SIZE };
struct fl_delivery_view {
    const uint8_t *set;   /* who dealt */
    const uint8_t *items; /* `count`: cipher, check of b's share, check of the key's share */
    uint32_t count;
};
int fl_delivery_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                     uint32_t members, struct fl_delivery_view *ret, struct fl_err *e);

/* The set of SURVIVORS. */
int fl_survivors_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                      uint32_t members, const uint8_t **ret_set, struct fl_err *e);

/* Only the head; the packed vector follows it. */
int fl_masked_head_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                        struct fl_err *e);

struct fl_signed_view {
    const uint8_t *sig;
    uint32_t sig_size;
    const uint8_t *sample; /* `count` numbers, ascending; fl_get_u32 */
    uint32_t count;
};
int fl_signed_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t members, struct fl_signed_view *ret, struct fl_err *e);

struct fl_proofs_view {
    uint32_t count;
    const uint8_t *items;
    size_t items_size;
};
struct fl_proof_view {
    uint32_t index;
    const uint8_t *cert, *sig;
    uint32_t cert_size, sig_size;
};
/* Items come with ascending indices below `members`. */
int fl_proofs_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t members, struct fl_proofs_view *ret, struct fl_err *e);
void fl_proofs_next(const struct fl_proofs_view *p, size_t *at, struct fl_proof_view *ret);

enum { FL_REVEAL_ITEM = 4 + 1 + 32 };
struct fl_reveal_view {
    const uint8_t *self;  /* the agent's own share of its own b */
    const uint8_t *items; /* `count`: index, kind, share; ascending */
    uint32_t count;
};
int fl_reveal_read(const struct fl_digest *context, const uint8_t *bytes, size_t size,
                   uint32_t members, struct fl_reveal_view *ret, struct fl_err *e);

/* ---- writing ---- */

/* An object of `size` bytes behind the head, filled by the fl_out functions, which stop (abort) at
 * its end: sizes are the writer's own sums. -FL_R_NOMEM, -FL_R_LIMIT. */
struct fl_secagg_out {
    struct fl_secagg_bytes *to;
    size_t at;
};
int fl_out_begin(struct fl_secagg_out *o, enum fl_secagg_object object,
                 const struct fl_digest *context, size_t size, struct fl_secagg_bytes *ret,
                 struct fl_err *e);
void fl_out_put(struct fl_secagg_out *o, const void *bytes, size_t size);
void fl_out_u32(struct fl_secagg_out *o, uint32_t number);
/* A length of 2 bytes and the bytes. */
void fl_out_short(struct fl_secagg_out *o, const uint8_t *bytes, uint32_t size);
/* All of it is written. */
void fl_out_end(const struct fl_secagg_out *o);

#endif
