/*
 * Secure aggregation (SecAgg+): the coordinator learns the sum of the agents' integer vectors,
 * modulo 2^bits, and no single one of them, although agents may vanish at any moment. Two pure
 * state machines, one for an agent and one for the coordinator: they open no socket or file, read
 * no clock, and only the agent's draws randomness (the kernel's, or it fails). README.md says what
 * this protects against and what not.
 *
 *          agent                                  coordinator
 *   1  ADVERTISE  fresh keys, signed   ---->   closes U1   ----> ROSTER
 *   2  SHARE      sealed shares        ---->   closes U2   ----> DELIVERY
 *   3  MASK       x + masks            ---->   closes U3   ----> SURVIVORS
 *   4  SIGN       what it was shown    ---->   closes U4   ----> PROOFS
 *   5  REVEAL     one share of each    ---->   removes the masks of U2: the sum over U3
 *
 *   y_i = x_i + PRG(b_i) + sum over j > i of PRG(s_ij) - sum over j < i of PRG(s_ij)
 *
 * with j over the neighbours of i in U2. Of an agent in U3 the neighbours reveal shares of b_i, of
 * one in U2 but not in U3 shares of the key behind its s_ij, and never both.
 *
 * Sources: Bonawitz et al. 2017 (double masks, consistency), Bell et al. 2020 (neighbour graph).
 */
#ifndef FL_PRIVACY_SECAGG_H
#define FL_PRIVACY_SECAGG_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/privacy/secagg/object.h"
#include "common/privacy/secagg/rule.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fl_secagg_stage {
    FL_SECAGG_ADVERTISE,
    FL_SECAGG_SHARE,
    FL_SECAGG_MASK,
    FL_SECAGG_SIGN,
    FL_SECAGG_UNMASK,
    FL_SECAGG_STAGES,
};
const char *fl_secagg_stage_name(enum fl_secagg_stage stage);

/* What both ends know before: from the plan and the task's key. */
struct fl_secagg_setup {
    struct fl_digest context; /* of incarnation, round, slot and plan: never the same twice */
    uint32_t members_min;     /* agents accept no smaller U1 */
    uint32_t members_max;     /* nor a larger one: the ring is made for so many */
    uint32_t survivors_min;   /* nor a smaller U3 */
    uint32_t corrupt_permille, dropout_permille; /* of U1: what is assumed */
    uint32_t corrupt_least;                      /* so many may collude in the smallest U1, too */
    uint32_t bits;                               /* of the ring */
    int64_t max;                                 /* the largest magnitude of a value */
    uint64_t count;                              /* of values */
};
/* -FL_R_CONF_RANGE, -FL_R_CONF_CONFLICT, -FL_R_PLAN_OVERFLOW (the ring is too small). */
int fl_secagg_setup_check(const struct fl_secagg_setup *s, struct fl_err *e);
/* fl_secagg_rule for a U1 of so many. */
int fl_secagg_setup_rule(const struct fl_secagg_setup *s, uint32_t members,
                         struct fl_secagg_rule *ret, struct fl_err *e);

/* Signatures are those of the agents' certificates; the core knows neither. */
struct fl_secagg_identity {
    void *arg;
    /* This agent's own; not used by a coordinator. */
    const uint8_t *cert;
    uint32_t cert_size; /* 1..FL_SECAGG_CERT_MAX */
    int (*sign)(void *arg, const uint8_t *message, size_t size, uint8_t sig[FL_SECAGG_SIG_MAX],
                uint32_t *ret_size, struct fl_err *e);
    /* The certificate is one of the trusted authority's and the signature is of its key; says who
     * that is: one principal for one enrolled agent. */
    int (*verify)(void *arg, const uint8_t *cert, uint32_t cert_size, const uint8_t *message,
                  size_t size, const uint8_t *sig, uint32_t sig_size,
                  uint8_t ret_principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e);
};

/* ---- an agent's side ---- */

struct fl_secagg_client;

/* Setup is copied, identity's pointers must outlive the client. */
int fl_secagg_client_new(const struct fl_secagg_setup *setup,
                         const struct fl_secagg_identity *identity, struct fl_secagg_client **ret,
                         struct fl_err *e);
/* Wipes every secret. */
void fl_secagg_client_free(struct fl_secagg_client *c);

/* One call for each stage, in order; each takes what the coordinator sent and makes what goes up
 * (the caller frees `ret`). Whatever is wrong with what was sent is an error and the end of this
 * client: secrets are wiped, every further call is -FL_R_MSG_ORDER. So is a call out of order or a
 * second call of a stage: a repetition on the wire is the outbox's, which repeats bytes.
 *
 *   -FL_R_SECAGG_OBJECT  malformed, or of another secure sum
 *   -FL_R_SECAGG_KEYS    keys or signatures of neighbours
 *   -FL_R_SECAGG_VIEW    what is shown contradicts what was shown, or too few sign the same
 *   -FL_R_SECAGG_FEW     fewer than the setup's or the threshold's
 *   -FL_R_UPDATE_RANGE   a value beyond `max`
 *   -FL_R_ENTROPY, -FL_R_NOMEM, or what sign said
 */
int fl_secagg_client_advertise(struct fl_secagg_client *c, struct fl_secagg_bytes *ret,
                               struct fl_err *e);
int fl_secagg_client_share(struct fl_secagg_client *c, const uint8_t *roster, size_t size,
                           struct fl_secagg_bytes *ret, struct fl_err *e);
/* `q`: setup.count values. */
int fl_secagg_client_mask(struct fl_secagg_client *c, const uint8_t *delivery, size_t size,
                          const int64_t *q, struct fl_secagg_bytes *ret, struct fl_err *e);
int fl_secagg_client_sign(struct fl_secagg_client *c, const uint8_t *survivors, size_t size,
                          struct fl_secagg_bytes *ret, struct fl_err *e);
int fl_secagg_client_reveal(struct fl_secagg_client *c, const uint8_t *proofs, size_t size,
                            struct fl_secagg_bytes *ret, struct fl_err *e);

/* For people: sizes of U1, U2, U3 as this agent was shown them (0 before that). */
struct fl_secagg_counts {
    uint32_t advertised, shared, masked, neighbours, threshold;
};
void fl_secagg_client_counts(const struct fl_secagg_client *c, struct fl_secagg_counts *ret);

/* ---- the coordinator's side ---- */

struct fl_secagg_server;

/* identity: only verify and arg. */
int fl_secagg_server_new(const struct fl_secagg_setup *setup,
                         const struct fl_secagg_identity *identity, struct fl_secagg_server **ret,
                         struct fl_err *e);
void fl_secagg_server_free(struct fl_secagg_server *s);
/* A secure sum of some of those whose keys `from`, in its first stage, has taken: agents each once,
 * all of them known there. An agent accepts one roster and no other, so it can be in one such part.
 */
int fl_secagg_server_part(const struct fl_secagg_server *from, const uint64_t *agents,
                          uint32_t count, struct fl_secagg_server **ret, struct fl_err *e);

enum fl_secagg_stage fl_secagg_server_stage(const struct fl_secagg_server *s);

/* An agent's object of the current stage (every stage but MASK). A refusal concerns this agent
 * alone. The same bytes again are 0, other bytes -FL_R_UPDATE_CONFLICT; of a stage that is closed
 * -FL_R_ROUND_OVER; of an agent that is not in the stage before -FL_R_NOT_MEMBER; and
 * -FL_R_SECAGG_OBJECT, _KEYS, _SHARE. */
int fl_secagg_server_take(struct fl_secagg_server *s, enum fl_secagg_stage stage, uint64_t agent,
                          const uint8_t *bytes, size_t size, struct fl_err *e);
/* A masked vector, read tile by tile and added to the sum at once: memory O(count), whatever the
 * number of agents. `read` fills exactly `size` bytes from `offset`. Also -FL_R_UPDATE_LENGTH and
 * -FL_R_UPDATE_RANGE, before anything is added. What `read` says is returned; the sum is then
 * spoilt if it had begun (-FL_R_INTERNAL for every later call). */
struct fl_secagg_source {
    uint64_t size;
    int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);
    void *arg;
};
int fl_secagg_server_masked(struct fl_secagg_server *s, uint64_t agent,
                            const struct fl_secagg_source *from, struct fl_err *e);

/* Whether take, or masked, would accept it, and whose it is: `principal` is what the sender's own
 * certificate proves, and keys are taken of nobody else. Changes nothing; for whoever commits to an
 * object before it is taken. Of a masked vector its shape is seen and no more, for it is hidden. */
int fl_secagg_server_judge(const struct fl_secagg_server *s, enum fl_secagg_stage stage,
                           uint64_t agent, const uint8_t *bytes, size_t size,
                           const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e);
int fl_secagg_server_judge_masked(const struct fl_secagg_server *s, uint64_t agent,
                                  const struct fl_secagg_source *from, struct fl_err *e);
/* Forgets what the current stage has taken: it is told again. The way back from a failed read. */
void fl_secagg_server_reset(struct fl_secagg_server *s);

/* Ends the current stage with whom it has. -FL_R_SECAGG_FEW: too few for the next, the round must
 * be given up. After UNMASK the masks are known (-FL_R_SECAGG_FEW or -FL_R_SECAGG_SHARE naming the
 * agent whose secret does not come back). */
int fl_secagg_server_close(struct fl_secagg_server *s, struct fl_err *e);

/* What goes down to an agent after `stage` was closed (not after UNMASK); the same bytes whenever
 * asked. -FL_R_NOT_MEMBER for one that is not in it. */
int fl_secagg_server_reply(const struct fl_secagg_server *s, enum fl_secagg_stage stage,
                           uint64_t agent, struct fl_secagg_bytes *ret, struct fl_err *e);

/* The sum: tile number `tile` of it (fl_ring_tile(bits) values, fewer in the last), after UNMASK is
 * closed. Changes nothing: tiles may be asked for on several threads, each with FL_MASK_TILE bytes
 * of `scratch` and of `words`, 64-byte aligned. -FL_R_UPDATE_RANGE: a value that no |U3| honest
 * vectors can have. */
int fl_secagg_server_sum(const struct fl_secagg_server *s, uint64_t tile, uint8_t *scratch,
                         void *words, int64_t *q, struct fl_err *e);
uint64_t fl_secagg_server_tiles(const struct fl_secagg_server *s);

/* Who is in the current stage so far: ids ascending, at most `max`; returns how many there are. */
uint32_t fl_secagg_server_taken(const struct fl_secagg_server *s, uint64_t *ret, uint32_t max);
/* Whose vectors are in the sum: ids ascending, at most `max`; returns how many there are. */
uint32_t fl_secagg_server_members(const struct fl_secagg_server *s, uint64_t *ret, uint32_t max);
/* Who says of whom, in what it reveals, that the shares it was dealt cannot be used: of the two at
 * least one cheats. `by` 0: nobody has to say so, for shares that are what `of` published do not
 * fit together. Known after the last stage was closed, or could not be; at most `max`; returns how
 * many there are. */
struct fl_secagg_complaint {
    uint64_t by, of;
};
uint32_t fl_secagg_server_complaints(const struct fl_secagg_server *s,
                                     struct fl_secagg_complaint *ret, uint32_t max);
/* How many masks a sum has to take off. */
uint64_t fl_secagg_server_masks(const struct fl_secagg_server *s);

#endif
