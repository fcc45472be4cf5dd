/*
 * A checkpoint: what one round leaves to the next, as one file with one digest.
 *
 *     [ model of slot 0 ] [ slot 1 ] ...   safetensors of the shared tensors, all of one length
 *     [ strategy's state ]
 *     [ sections ]        what collectors made: name (32 bytes), length (8), bytes
 *     [ digests ]         of each slot's model, 32 bytes each
 *     [ placed ]          agent (8 bytes), slot (4), ascending; who is not in it has slot 0
 *     [ trailer ]
 *
 * Numbers are little-endian. Agents fetch their slot's part only, by its own digest. The file was
 * checked against its digest when the store was opened, or has just been written; that its end says
 * what it should is checked here.
 */
#ifndef SERVER_CHECKPOINT_H
#define SERVER_CHECKPOINT_H

#include "common/nn/spec.h"
#include "server/objects.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_CHECKPOINT_SLOTS_MAX = 65536,
    FL_CHECKPOINT_PLACED_MAX = 1000000,
    FL_CHECKPOINT_SECTIONS_MAX = 16,
    FL_CHECKPOINT_NAME = 32,
};

struct fl_section {
    char name[FL_CHECKPOINT_NAME];
    uint8_t *bytes;
    size_t size;
};

struct fl_placed {
    uint64_t agent;
    uint32_t slot;
};

/* ---- reading: immutable once it is open, from any thread ---- */

struct fl_checkpoint {
    struct fl_object *file;
    uint64_t round, model_size, state_size;
    uint32_t slots, section_count, placed_count;
    struct fl_digest *model; /* of each slot */
    struct {
        char name[FL_CHECKPOINT_NAME];
        uint64_t at, size;
    } section[FL_CHECKPOINT_SECTIONS_MAX];
    struct fl_placed *placed;
};

/* -FL_R_STORE_MISMATCH: not the checkpoint of this round; -FL_R_STORE_IO, -FL_R_NOMEM. */
int fl_checkpoint_open(const char *path, uint64_t round, struct fl_checkpoint **ret,
                       struct fl_err *e);
void fl_checkpoint_close(struct fl_checkpoint *c); /* NULL is fine; parts may outlive it */

/* A slot's model, for agents: unref it. NULL: no memory. */
struct fl_object *fl_checkpoint_model(const struct fl_checkpoint *c, uint32_t slot);
/* [job] All of them, one behind the other: unref it. -FL_R_LIMIT: more than `most` bytes. */
int fl_checkpoint_models(const struct fl_checkpoint *c, size_t most, struct fl_object **ret,
                         struct fl_err *e);
/* 0 for one that is not placed. */
uint32_t fl_checkpoint_slot(const struct fl_checkpoint *c, uint64_t agent);
/* *ret is freed by fl_free. */
int fl_checkpoint_state(const struct fl_checkpoint *c, uint8_t **ret, struct fl_err *e);
/* 1 found, 0 there is none. bytes are freed by fl_free. */
int fl_checkpoint_section(const struct fl_checkpoint *c, const char *name, struct fl_section *ret,
                          struct fl_err *e);
/* Values [first, first + count) of a slot's model. `head`: the length of what stands before the
 * values, by fl_checkpoint_head. */
int fl_checkpoint_values(const struct fl_checkpoint *c, size_t head, uint32_t slot, size_t first,
                         size_t count, float *to, struct fl_err *e);
/* Each model begins as fl_tensors_header of this table writes it, and is as long.
 * -FL_R_STORE_MISMATCH. */
int fl_checkpoint_head(const struct fl_checkpoint *c, const struct fl_tensors *table,
                       size_t *ret_head, struct fl_err *e);

/* ---- writing ---- */

struct fl_checkpoint_end {
    uint64_t round, model_size, state_size;
    uint32_t slots, section_count, placed_count;
    const struct fl_digest *model;
    const struct fl_section *section;
    const struct fl_placed *placed;
};
/* All that comes behind the state. *ret is freed by fl_free. -FL_R_LIMIT, -FL_R_NOMEM. */
int fl_checkpoint_end(const struct fl_checkpoint_end *end, uint8_t **ret, size_t *ret_size,
                      struct fl_err *e);

#endif
