/* What the files of the agent's side (client*.c) share. */
#ifndef FL_PRIVACY_SECAGG_CLIENT_IN_H
#define FL_PRIVACY_SECAGG_CLIENT_IN_H

#include "common/privacy/secagg/secagg.h"
#include "common/privacy/secagg/shamir.h"

struct fl_client_neighbour {
    uint32_t index;
    bool shared; /* it is in U2 */
    bool held;   /* its shares are here and are those it published */
    uint8_t c_public[FL_SECAGG_KEY_SIZE], s_public[FL_SECAGG_KEY_SIZE];
    uint8_t secrets[FL_SECAGG_SECRETS_SIZE];
};

enum fl_client_step {
    FL_CLIENT_ADVERTISE,
    FL_CLIENT_SHARE,
    FL_CLIENT_MASK,
    FL_CLIENT_SIGN,
    FL_CLIENT_REVEAL,
    FL_CLIENT_OVER,
};

struct fl_secagg_client {
    struct fl_secagg_setup setup;
    const struct fl_secagg_identity *identity;
    enum fl_client_step step;
    /* secrets */
    struct fl_secagg_pair c, s;
    uint8_t b[FL_SECAGG_KEY_SIZE];
    uint8_t own_share[FL_SHARE_SIZE];      /* of b */
    struct fl_client_neighbour *neighbour; /* rule.neighbours, by index */
    /* what was shown */
    uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE]; /* its own */
    struct fl_secagg_rule rule;
    struct fl_digest view; /* of the roster */
    uint32_t own;          /* index in it */
    uint8_t *entries;      /* principals and keys' digests */
    uint8_t *shared_set, *masked_set;
    struct fl_digest message; /* what was signed */
    uint32_t *sample;         /* whose signatures it asked for, ascending */
    uint32_t sample_count;
};

/* -FL_R_MSG_ORDER unless it is this step's turn. */
int fl_client_in_order(const struct fl_secagg_client *c, enum fl_client_step step,
                       struct fl_err *e);
/* Every step ends here: on to the next, or secrets wiped and over for good. Returns r. */
int fl_client_end_step(struct fl_secagg_client *c, enum fl_client_step next, int r);
/* NULL when memory ends. */
uint8_t *fl_client_set_copy(const uint8_t *set, uint32_t members);

#endif
