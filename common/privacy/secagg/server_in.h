/* What the files of the coordinator's side (server*.c) share. */
#ifndef FL_PRIVACY_SECAGG_SERVER_IN_H
#define FL_PRIVACY_SECAGG_SERVER_IN_H

#include "common/privacy/secagg/mask.h"
#include "common/privacy/secagg/secagg.h"

struct fl_server_member {
    uint64_t agent;
    uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE];
    bool has[FL_SECAGG_STAGES]; /* its object of the stage is here */
    struct fl_digest digest[FL_SECAGG_STAGES];
    struct fl_secagg_bytes object[FL_SECAGG_STAGES]; /* not of MASK */
};

struct fl_secagg_server {
    struct fl_secagg_setup setup;
    const struct fl_secagg_identity *identity;
    enum fl_secagg_stage stage; /* FL_SECAGG_STAGES: all are closed */
    bool spoilt;
    uint64_t culprit; /* an agent whose secret does not come back from the very shares it dealt */
    struct fl_server_member *member; /* as they came; once U1 is closed, by principal */
    uint32_t count;
    /* of U1 */
    struct fl_secagg_rule rule;
    struct fl_digest view;
    uint8_t *entries;
    uint32_t *near;       /* count times rule.neighbours: the graph */
    uint32_t *by_agent;   /* indices, by agent */
    uint8_t *set[2];      /* U2, U3 */
    void *words;          /* the sum, setup.count words */
    uint8_t *tile;        /* two tiles of scratch */
    struct fl_mask *mask; /* to be added to the sum: signs are already turned round */
    uint64_t mask_count;
};

struct fl_server_member *fl_server_find(const struct fl_secagg_server *s, uint64_t agent);
/* Its advert, which was read before. */
void fl_server_advert(const struct fl_secagg_server *s, const struct fl_server_member *m,
                      struct fl_advert_view *ret);
void fl_server_shares(const struct fl_secagg_server *s, const struct fl_server_member *m,
                      struct fl_shares_view *ret);
/* The neighbours of an agent, rule.neighbours of them, ascending. */
const uint32_t *fl_server_near(const struct fl_secagg_server *s, uint32_t index);
/* Whether it is what `dealer`, a neighbour of the holder or itself, published. */
bool fl_server_share_fits(const struct fl_secagg_server *s, uint32_t dealer,
                          enum fl_secagg_kind kind, uint32_t holder, const uint8_t *share);
/* Brings the secrets back; fills mask and mask_count. */
int fl_server_unmask(struct fl_secagg_server *s, struct fl_err *e);

#endif
